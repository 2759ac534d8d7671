"""Every setting that passes its check runs, or is refused by name in one line.

NLBOUND_FUZZ sets the number of examples of the long run; with it they are drawn at random."""

import json
import math
import os
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlbound_jax import Settings, report, tasks
from nlbound_jax._numbers import options

pytestmark = pytest.mark.float64
MANY = int(os.environ.get("NLBOUND_FUZZ", "0"))
# What changes shapes or code, and with it compiles: few values, the smallest and some others.
SHAPES = {
    "width": (1, 3),
    "depth": (2, 3),
    "num_times": (1, 2),
    "max_steps": (1, 16, 512),
}
RATIOS = (1e-300, 1e-3, 1.0, 30.0, 1e6, 1e300)
# Beyond them lies nothing but more of the same; whole ranges otherwise.
EXTREMES = {"beta": (1e-300, 1e20), "epsilon": (1e-30, 1.0), "end_time": (1e-300, 1e300)}
EXTREMES |= {"step_size": (1e-3, 1e300)}  # smaller ones take as long as is asked for
STEPS = ("step_size", "momentum", "nesterov")  # of no meaning with the flow


def made(kind):
    """A small task, some of them odd."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 4)) * np.arange(1, 5)
    y = np.where(x[:, 0] + 0.5 * np.abs(x[:, 1]) + rng.normal(size=60) > 0.3, 1.0, -1.0)
    if kind == "random":
        y = rng.choice([-1.0, 1.0], 60)
    if kind == "uncorrelated":  # labels orthogonal to the inputs: alignment 0 up to rounding
        x = np.concatenate([x[:30], x[:30]])
        y = np.repeat([1.0, -1.0], 30)
    if kind == "one feature":
        x = x[:, :1]
    if kind == "fitted":
        y = np.sign(x[:, 2])
        x = np.concatenate([x, 100 * y[:, None]], axis=1)
    if kind == "wild":
        x = x * np.array([1e-150, 1e-148, 1e-152, 1e-150])
    half = kind in ("bent", "random")
    test = {"x_test": x[40:], "y_test": y[40:]} if half else {}
    bound = {"norm_bound": 60.0} if half else {}
    return tasks.from_arrays(x[:40] if half else x, y[:40] if half else y, **test, **bound)


STAGES = ("gradient_flow", "gradient_descent", "reference_flow", "reference_descent")
KINDS = ("bent", "random", "uncorrelated", "one feature", "fitted", "wild")
TASKS = {kind: made(kind) for kind in KINDS}


def numbers(name, option):
    """Values over the whole range that is declared: its ends, what is next to them, and orders of
    magnitude."""
    low, high = EXTREMES.get(name, (option.low, option.high))
    low, high = max(low, 1e-300), min(high, 1e300)
    powers = st.floats(math.log10(low), math.log10(high)).map(lambda e: 10.0**e)
    ends = [low, high, *(float(np.nextafter(v, 0.5)) for v in (option.low, option.high))]
    ends += [option.low, 0.5, 0.1, 1e-3, 1e-9, 1e-17, 1 - 1e-12]
    return st.one_of(powers, st.sampled_from(ends)).filter(lambda v: passes(name, option, v))


def passes(name, option, value):
    try:
        option.check(name, value)
    except ValueError:
        return False
    return True


def strategy(name, option):
    if option.type is bool:
        found = st.booleans()
    elif name in SHAPES:
        found = st.sampled_from(SHAPES[name])
    elif option.words:
        found = st.sampled_from(option.words)
    elif option.type is tuple:
        found = st.lists(st.sampled_from(RATIOS), min_size=2, max_size=2).map(tuple)
    elif option.type is int:
        high = min(option.high, 2**31 - 1)
        found = st.sampled_from([v for v in (option.low, 1, 8, 32, 10**6, high) if v >= option.low])
        found = found.map(int)
    else:
        # Half of the time what is common, so that most runs get far.
        found = st.one_of(numbers(name, option), st.just(option.default))
    return st.none() | found if option.optional else found


def every(**fixed):
    """`Settings` of any values, but for those that are fixed."""
    declared = {n: strategy(n, o) for n, o in options(Settings).items()}
    return st.fixed_dictionaries(declared | {n: st.just(v) for n, v in fixed.items()})


def check_row(row):
    for name in ("train_term", "complexity", "rest", "uncapped", "value"):
        assert not math.isnan(row[name]), (name, row)
    assert 0 <= row["value"] <= 1, row
    terms = [row[name] for name in ("train_term", "complexity", "rest")]
    assert math.isclose(sum(terms), row["uncapped"], rel_tol=1e-12), row
    if not all(map(math.isfinite, terms)):
        assert row["result"] != "successful", row
    for name in ("train_margin_risk", "train_ramp_risk", "test_risk"):
        assert row[name] is None or 0 <= row[name] <= 1, (name, row)
    assert row["gamma"] is None or row["gamma"] >= 0, row


def run(kind, values):
    """A report is one; what is refused is so in one line that says which or where."""
    start = time.perf_counter()
    try:
        made = report(TASKS[kind], Settings(**values))
    except ValueError as error:
        message = str(error)
        named = [n for n in [*options(Settings), "task"] if message.startswith(f"`{n}`")]
        assert named, message
        assert "\n" not in message, message
        return "refused " + named[0]
    except RuntimeError as error:
        message = str(error)
        end = "( t = [^\n]*| take a smaller step size.)"
        assert re.fullmatch(f"({'|'.join(STAGES)})[^\n]*{end}", message), message
        return "failed " + message.split(",")[0].split(" ")[0]
    finally:
        if MANY:
            took = time.perf_counter() - start
            if took > 20:
                print(f"SLOW {took:.0f} s", kind, values, flush=True)
    rows = made.rows()
    for row in rows:
        check_row(row)
    for risks in (made.train_risk, made.test_risk):
        assert risks is None or ((risks >= 0) & (risks <= 1)).all()
    json.loads(json.dumps(made.as_dict(), allow_nan=False), parse_constant=pytest.fail)
    made.to_xarray()
    outcome = made.as_dict()["trajectory"]["result"]
    return "ran, " + outcome


# One program: what differs are numbers, and the labels of two tasks of one shape.
ONE = {"width": 2, "depth": 2, "num_times": 1, "max_steps": 512, "dynamics": "flow"}
ONE |= {"dtype": "float64", "kappa": 2}
ONE |= {name: options(Settings)[name].default for name in STEPS}


@given(st.sampled_from(KINDS[:2]), every(**ONE))
@settings(max_examples=12)
def test_settings_run_or_are_refused(kind, values):
    run(kind, values)


@pytest.mark.slow
@given(st.sampled_from(KINDS), every())
@settings(max_examples=MANY or 40, derandomize=not MANY)
def test_any_settings_run_or_are_refused(kind, values):
    if values["dynamics"] == "flow":
        values = {name: value for name, value in values.items() if name not in STEPS}
    run(kind, values)
