"""Reports of gradient descent in finite steps: their clock, their bounds and their saved runs."""

import dataclasses
import json
import math
import types

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import assert_close, numpy_network, small_task
from typer.testing import CliRunner

from nlbound_jax import Settings, citation, dynamics, ladder, report
from nlbound_jax.cli._app import app
from nlbound_jax.report import (
    _anchor,
    declared_split,
    end_time,
    load_run,
    save_run,
    start_network,
    table,
    train,
)
from nlbound_jax.report._steps import steps_until

TASK = small_task(m=120, test=60)
SMALL = Settings(width=4, beta=0.05, epsilon=0.1, num_times=6, anchor_fraction=0.0, dynamics="gd")
DOUBLE = bool(jax.config.read("jax_enable_x64"))
SMALL = dataclasses.replace(SMALL, dtype="float64" if DOUBLE else "float32")
METHODS = {
    "small": {"step_size": 0.03},
    "large": {"step_size": 1.2},
    "momentum": {"step_size": 0.3, "momentum": 0.9},
    "nesterov": {"step_size": 0.3, "momentum": 0.8, "nesterov": True},
}
WORD = "gradient descent in these steps"


def settings_of(name, **changes):
    return dataclasses.replace(SMALL, **METHODS[name], **changes)


@pytest.fixture(scope="module", params=METHODS)
def one(request):
    settings = settings_of(request.param)
    with jax.enable_x64(True):
        return settings, train(TASK, settings)


@pytest.fixture(scope="module")
def made():
    return report(TASK, settings_of("nesterov"))


def numpy_gradient(weights, epsilon, x, y):
    """The negative gradient of the mean of (y - f)^2 / 2 with the slope sigma at 0, and that of
    the linear network of that slope."""
    z = weights[0] @ x.T
    slope = 1 - epsilon / 2 + epsilon / 2 * np.sign(z)
    e = (y - weights[1] @ (slope * z)) / len(y)
    return [(slope * (weights[1].T @ e)) @ x, e @ (slope * z).T]


def numpy_reference(weights, epsilon, q):
    sigma = 1 - epsilon / 2
    r = q[None] - sigma * weights[1] @ weights[0]
    return [sigma * weights[1].T @ r, sigma * r @ weights[0].T]


def numpy_descent(start, gradient, count, settings):
    """All the networks of a descent with momentum."""
    weights = [np.asarray(w, float) for w in start.weights]
    traces, found = [np.zeros_like(w) for w in weights], []
    eta, mu = settings.step_size, settings.momentum
    for _ in range(count):
        moving = gradient(weights)
        traces = [mu * m + g for m, g in zip(traces, moving, strict=True)]
        moves = traces
        if settings.nesterov:
            moves = [g + mu * m for m, g in zip(traces, moving, strict=True)]
        weights = [w + eta * u for w, u in zip(weights, moves, strict=True)]
        found.append(weights)
    return found


def test_both_networks_make_the_steps_of_numpy(one):
    settings, run = one
    every = round(float(run.trajectory.ts[0]) / settings.step_size)
    count = every * len(run.trajectory.ts)
    assert count == run.trajectory.stats["num_steps"]
    assert_close(run.trajectory.ts, settings.step_size * every * np.arange(1, count // every + 1))
    epsilon = settings.epsilon
    pairs = (
        (run.trajectory.weights, lambda w: numpy_gradient(w, epsilon, TASK.x, TASK.y)),
        (run.reference.weights, lambda w: numpy_reference(w, epsilon, TASK.target)),
    )
    for weights, gradient in pairs:
        ours = numpy_descent(run.start, gradient, count, settings)[every - 1 :: every]
        for layer, found in enumerate(weights):
            assert_close(found, np.stack([w[layer] for w in ours]), rtol=1e-6, atol=1e-9)


def _distances(pairs):
    """Frobenius norms over time, `(times layers)`."""
    gaps = [np.asarray(w, float) - np.asarray(v, float) for w, v in pairs]
    return np.stack([np.linalg.norm(gap, axis=(1, 2)) for gap in gaps], axis=1)


def test_the_envelope_holds_at_every_saved_time(one):
    settings, run = one
    pairs = zip(run.trajectory.weights, run.reference.weights, strict=True)
    far = _distances(pairs)
    allowed = np.asarray(run.reference.envelope)
    rounding = 1e-12 if DOUBLE else 1e-5
    assert np.all(far <= allowed * (1 + 1e-9) + rounding)
    # It is no bound by chance: at first it is near what it bounds, and finite.
    assert np.all(far[0] > 1e-4 * allowed[0])
    assert np.isfinite(allowed[: len(allowed) // 2]).all()


def test_the_flow_of_the_reference_network_would_not_do(one):
    """With large steps the network is not within the envelope of gradient flow."""
    settings, run = one
    if settings.step_size < 0.1:
        return
    with jax.enable_x64(True):
        flow = dynamics.reference_flow(run.start, TASK.target, np.asarray(run.trajectory.ts))
    pairs = zip(run.trajectory.weights, flow.weights, strict=True)
    far = _distances(pairs)
    assert np.any(far > 1.01 * np.asarray(flow.envelope))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("depth", [2, 3])
def test_the_strongest_mode_is_learned_at_the_end(name, depth):
    """The end is the first step at which the aligned linear network has learned it."""
    settings = settings_of(name, depth=depth, beta=0.3, until=0.8)
    q, beta = TASK.alignment, settings.beta
    omega = (1 - settings.epsilon / 2) ** (depth - 1)
    first = np.zeros((2, 3))
    first[0, 0] = beta
    weights = [first, *[np.diag([beta, 0.0])] * (depth - 2), np.array([[beta, 0.0]])]
    target = np.array([q, 0.0, 0.0])

    def gradient(w):
        products = [np.eye(3), *(np.linalg.multi_dot([*w[:n][::-1], np.eye(3)]) for n in (1, 2, 3))]
        products = products[: depth + 1]
        r = target[None] - omega * products[depth]
        after = [np.eye(1)]
        for one in reversed(w[1:]):
            after.insert(0, after[0] @ one)
        return [omega * after[i].T @ r @ products[i].T for i in range(depth)]

    start = types.SimpleNamespace(weights=weights)
    count = round(end_time(TASK, settings) / settings.step_size)
    found = numpy_descent(start, gradient, count, settings)
    learned = [omega * np.linalg.multi_dot([*w[::-1], np.eye(3)])[0, 0] / q for w in found]
    assert learned[-1] >= settings.until * (1 - 1e-9)
    assert max(learned[:-1], default=0.0) < settings.until


@pytest.mark.parametrize("depth", [2, 3, 600])
@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_steps_that_are_too_large_for_a_clock_have_an_end(depth, momentum):
    for step_size in (30.0, 1e6, 1e30):
        facts = {"step_size": step_size, "momentum": momentum, "depth": depth, "epsilon": 1e-5}
        settings = Settings(dynamics="gd", beta=0.2 if depth < 600 else 0.9, **facts)
        count = end_time(TASK, settings) / step_size
        assert math.isfinite(count)
        assert depth == 600 or 1 <= round(count, 6) < 1000  # few, whatever their size


@pytest.mark.float64
@pytest.mark.parametrize("dynamics", ["flow", "gd"])
def test_a_fraction_below_the_normal_numbers_is_named(dynamics):
    settings = Settings(until=5e-324, beta=1e-162, dynamics=dynamics, dtype="float64")
    with pytest.raises(ValueError, match="^`until` must be in "):
        end_time(TASK, settings)


def test_a_step_beyond_float32_is_refused():
    settings = Settings(dynamics="gd", step_size=1e38, num_times=40)
    with pytest.raises(
        ValueError, match=r"^`step_size` must be in \[1.18e-38, 8.51e\+36\] in float32"
    ):
        end_time(TASK, settings)


def test_small_steps_have_the_clock_of_the_flow():
    flow = end_time(TASK, dataclasses.replace(SMALL, dynamics="flow"))
    for mu in (0.0, 0.9):
        steps = dataclasses.replace(SMALL, step_size=1e-4, momentum=mu)
        assert_close(end_time(TASK, steps), flow * (1 - mu), rtol=0.02)
        # So small that they are not made one by one.
        steps = dataclasses.replace(SMALL, step_size=1e-7, momentum=mu)
        assert_close(end_time(TASK, steps), flow * (1 - mu), rtol=1e-6)


@pytest.mark.parametrize("num_times", [1, 6, 40])
@pytest.mark.parametrize("step_size", [0.1, 0.3, 1e-3, 7.0])
def test_steps_end_with_the_first_save_that_is_late_enough(step_size, num_times):
    settings = Settings(dynamics="gd", step_size=step_size, num_times=num_times)
    for count in (1, 2, 5, 39, 40, 41, 1000):
        steps = steps_until(count * step_size, settings)
        assert steps.saves <= num_times
        assert steps.num_steps - steps.every < count <= steps.num_steps
        assert steps.every == math.ceil(count / num_times)
        more = steps_until(count * step_size * (1 + 1e-6), settings)
        assert more.num_steps >= count + 1


def test_a_report_says_what_holds_for_steps(made):
    settings = made.settings
    left_out = {name for name in made.omitted if name.startswith("theorem")}
    assert len(left_out) == 2
    for bound in left_out:
        assert made.omitted[bound] == "it needs gradient flow, not gradient descent"
    named = {bound.name: bound for bound in made.bounds}
    assert {"trajectory", "split-a-priori", "split-wholly-a-priori"} <= set(named)
    for bound in made.bounds:
        assert "exact gradient flow" not in made.assumes[bound.name]
        assert (WORD in made.assumes[bound.name]) == ("envelope" in bound.needs)
    values = json.loads(json.dumps(made.as_dict(), allow_nan=False))
    assert values["settings"]["step_size"] == settings.step_size
    assert values["settings"]["nesterov"] is True
    for row in values["bounds"]:
        assert 0 < row["value"] <= 1
    data = made.to_xarray()
    assert data.attrs["nesterov"] == 1
    assert data.sizes["t"] == len(made.trajectory.ts) <= settings.num_times
    assert f"steps of {settings.step_size:g}" in table(made).renderables[0].title


def test_a_bound_on_steps_is_over_the_measured_distance(made):
    """The trajectory bound from the envelope is no less than that from what was measured, and the
    wholly a-priori train term no less than the measured one."""
    before, after = (made.over_time(n) for n in ("trajectory", "trajectory-measured"))
    for one, two in zip(before, after, strict=True):
        assert one["uncapped"] >= two["uncapped"] - 1e-12
    outputs = numpy_network([np.asarray(w[0]) for w in made.trajectory.weights], 0.1, TASK.x)
    assert_close(made.train_risk[0], np.mean(TASK.y * outputs <= 0))


def test_bounds_of_gradient_flow_are_refused_by_name():
    with pytest.raises(ValueError, match="'theorem-5.2-repaired', which needs flow as well"):
        report(TASK, SMALL, bounds=[ladder.RepairedTheorem52Bound()])


def test_a_bound_of_ones_own_keeps_its_assumption():
    """Only what rests on the envelope has one of steps."""

    class Own(ladder.SplitAPosteriori):
        def assumes(self, data):
            return ("exact gradient flow",)

    assert ladder.assumptions(Own(), TASK, flow=False) == ("exact gradient flow",)
    bound = ladder.SplitAPriori()
    assert ladder.assumptions(bound, TASK) == bound.assumes(TASK)
    assert ladder.assumptions(bound, TASK, flow=False)[0] == WORD


def anchor_of(task, settings):
    """The anchors of a report, without the networks that the other anchored bounds ask for."""
    split = declared_split(task, settings)
    with jax.enable_x64(True):
        start = start_network(split.anchor, settings)
        reference = _anchor._reference(split, settings)
        return ladder.anchor_of(split, start, task=split.anchor, reference=reference)


def test_the_anchors_of_steps_know_nothing_of_the_second_part():
    settings = settings_of("momentum", anchor_fraction=0.5, epsilon=0.01)
    y, second = TASK.y.copy(), declared_split(TASK, settings).second
    y[second] = -y[second]
    target = y @ TASK.x / len(y)
    other = dataclasses.replace(TASK, y=y, target=target, alignment=float(np.linalg.norm(target)))
    assert end_time(other, settings) != end_time(TASK, settings)
    anchors = [anchor_of(task, settings) for task in (TASK, other)]
    for w, v in zip(anchors[0].reference, anchors[1].reference, strict=True):
        np.testing.assert_array_equal(w, v)
        assert len(w) == settings.num_times
    with jax.enable_x64(True):
        run = train(TASK, settings, anchor=anchors[0])
        terms = ladder.evaluate_run([ladder.AnchoredAPriori()], run, 0.01)["anchored-a-priori"]
    assert len(terms.t) == len(run.trajectory.ts)
    assert not np.isnan(terms.value).any()


def test_a_reference_network_of_other_times_is_refused(one):
    _, run = one
    options = {"ratios": (1.0,), "cells": 1, "reference": run.reference}
    late = eqx.tree_at(lambda t: t.ts, run.trajectory, 1.1 * run.trajectory.ts)
    short = eqx.tree_at(lambda t: t.ts, run.trajectory, run.trajectory.ts[:2])
    with jax.enable_x64(True):
        for other in (late, short):
            with pytest.raises(ValueError, match="`reference` must be at the times of `trajectory"):
                ladder.follow(TASK, run.start, other, **options)
        assert not ladder.follow(TASK, run.start, run.trajectory, **options).flow


def test_a_saved_run_keeps_its_steps(made, tmp_path):
    settings = made.settings
    save_run(made, TASK, tmp_path / "run.npz")
    again = load_run(tmp_path / "run.npz")
    assert again.settings == settings
    np.testing.assert_array_equal(again.trajectory.ts, made.trajectory.ts)
    assert "nesterov1983method" in citation(again)
    assert "polyak1964some" not in citation(again)
    assert "polyak1964some" in citation(settings_of("momentum"))


def test_steps_that_are_too_large_are_one_line():
    with pytest.raises(RuntimeError, match="^gradient_descent: [^\n]*$"):
        report(TASK, dataclasses.replace(SMALL, step_size=50.0, end_time=5e4))


@pytest.mark.parametrize("name", ["step_size", "momentum", "nesterov"])
@pytest.mark.quick
def test_what_belongs_to_steps_is_refused_with_the_flow(name):
    value = {"step_size": 0.5, "momentum": 0.5, "nesterov": True}[name]
    message = f"^`{name}` must be left out unless `dynamics` = 'gd', got {value!r}.$"
    with pytest.raises(ValueError, match=message):
        Settings(**{name: value})
    assert getattr(Settings(dynamics="gd", **{name: value}), name) == value


@pytest.mark.quick
def test_the_command_names_its_options():
    result = CliRunner().invoke(app, ["report", "--momentum", "0.9"])
    assert result.exit_code == 2
    assert "`--momentum` must be left out unless `--dynamics` = 'gd', got 0.9." in result.output
