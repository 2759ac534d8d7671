"""Training in pieces: the same steps, an end when the user wants one, and progress that is true."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TIMEOUT, EqualSteps, small_task

from nlbound_jax import networks
from nlbound_jax._results import RESULTS
from nlbound_jax.dynamics import ProgressBar, _pieces, gradient_descent, gradient_flow

# Two compilations of the same steps.
CLOSE = {"rtol": 1e-9, "atol": 1e-14} if jax.config.jax_enable_x64 else {"rtol": 2e-4, "atol": 1e-8}


@pytest.fixture(scope="module")
def task():
    return small_task(m=30, d=3)


@pytest.fixture(scope="module")
def net(task):
    key = jax.random.key(0)
    return networks.initialize(key, task.rank, 4, 2, epsilon=0.5, beta=0.1)


@pytest.fixture(autouse=True)
def many_pieces(monkeypatch):
    """Three steps, then pieces of any length."""
    monkeypatch.setattr(_pieces, "FIRST_STEPS", 3)


def traced(net, task, **options):
    """The flow as one program."""
    return jax.jit(lambda weights: gradient_flow(weights, task, **options))(net)


SAVES = [
    diffrax.SaveAt(t1=True),
    diffrax.SaveAt(ts=[0.0, 0.3, 0.31, 1.7, 4.0]),
    diffrax.SaveAt(t0=True, ts=[0.5], t1=True),
    diffrax.SaveAt(t0=True),
    diffrax.SaveAt(steps=True),
]


@pytest.mark.parametrize("saveat", SAVES, ids=["t1", "ts", "all", "t0", "steps"])
def test_pieces_are_the_whole(net, task, saveat):
    options = {"t1": 4.0, "saveat": saveat, "stepsize_controller": EqualSteps(0.25)}
    options["max_steps"] = 32
    found, whole = gradient_flow(net, task, **options), traced(net, task, **options)
    np.testing.assert_allclose(found.ts, whole.ts, rtol=1e-6)
    for w, expected in zip(found.weights, whole.weights, strict=True):
        np.testing.assert_allclose(w, expected, **CLOSE)
    for name in ("num_steps", "num_accepted_steps", "num_rejected_steps", "max_steps"):
        assert int(found.stats[name]) == int(whole.stats[name]), name
    assert int(found.stats["num_steps"]) == 16


CONTROLLERS = {
    "pid": diffrax.PIDController(rtol=1e-5, atol=1e-7),
    "jumps": diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=1e-5, atol=1e-7), jump_ts=jnp.array([1.0, 2.5])
    ),
    "given": diffrax.StepTo(jnp.linspace(0.0, 4.0, 40)),
}


@pytest.mark.float64  # in float32 rounding is as large as what rtol = 1e-5 measures, and counts
@pytest.mark.parametrize("name", CONTROLLERS)
def test_any_controller_goes_on_where_it_paused(net, task, name):
    """A first step is made in each program, and a rejected one is made again: without the state
    of the controller there would be more of both."""
    options = {"t1": 4.0, "stepsize_controller": CONTROLLERS[name]}
    found, whole = gradient_flow(net, task, **options), traced(net, task, **options)
    for w, expected in zip(found.weights, whole.weights, strict=True):
        np.testing.assert_allclose(w, expected, rtol=1e-2, atol=1e-3)
    steps = int(whole.stats["num_steps"])
    assert abs(int(found.stats["num_steps"]) - steps) <= 2 < steps / 4


def test_an_implicit_solver_has_the_tolerances_of_its_controller(net, task):
    options = {"t1": 2.0, "solver": diffrax.Kvaerno3(), "stepsize_controller": CONTROLLERS["pid"]}
    found = gradient_flow(net, task, **options)
    explicit = gradient_flow(net, task, t1=2.0, stepsize_controller=CONTROLLERS["pid"])
    for w, expected in zip(found.weights, explicit.weights, strict=True):
        np.testing.assert_allclose(w, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("most", [1, 3, 4, 15])
def test_the_largest_number_of_steps_counts_all_pieces(net, task, most):
    options = {"t1": 4.0, "stepsize_controller": EqualSteps(0.25), "max_steps": most}
    saveat = diffrax.SaveAt(ts=[0.1, 3.9])
    found = gradient_flow(net, task, saveat=saveat, throw=False, **options)
    assert found.result == RESULTS.max_steps_reached
    assert int(found.stats["num_steps"]) == most
    np.testing.assert_allclose(found.reached, 0.25 * most, rtol=1e-6)
    np.testing.assert_allclose(found.ts, [0.1, 0.25 * most], rtol=1e-6)
    with pytest.raises(RuntimeError, match=f"after {most} steps"):
        gradient_flow(net, task, **options)


def test_the_last_step_may_end_a_piece(net, task):
    found = gradient_flow(net, task, t1=0.75, stepsize_controller=EqualSteps(0.25), max_steps=3)
    assert found.result == RESULTS.successful
    assert int(found.stats["num_steps"]) == 3


def descend(net, task, **options):
    return gradient_descent(net, task, 12, step_size=0.05, save_every=4, **options)


def test_pieces_of_descent_are_the_whole(net, task):
    options = {"optimizer": optax.sgd(0.05, momentum=0.9)}
    found = descend(net, task, **options)
    whole = jax.jit(lambda net: descend(net, task, **options))(net)
    np.testing.assert_allclose(found.ts, whole.ts)
    for w, expected in zip(found.weights, whole.weights, strict=True):
        np.testing.assert_allclose(w, expected, **CLOSE)


class Interrupting(diffrax.AbstractProgressMeter):
    """As if the user pressed Ctrl-C in the third piece."""

    def init(self):
        return 0

    def step(self, state, progress):
        if state == 2:
            raise KeyboardInterrupt
        return state + 1

    def close(self, state):
        assert state == 2


@pytest.mark.parametrize("kind", ["flow", "descent"])
def test_an_interrupt_says_how_far_it_came(net, task, kind, monkeypatch):
    monkeypatch.setattr(_pieces, "PATIENCE", 0.0)  # a step a piece, after the first two
    meter = Interrupting()
    options = {"t1": 4.0, "stepsize_controller": EqualSteps(0.25)} if kind == "flow" else {}
    train = gradient_flow if kind == "flow" else descend
    with pytest.raises(KeyboardInterrupt) as caught:
        train(net, task, progress_meter=meter, **options)
    t, t1 = (1.75, 4) if kind == "flow" else (0.35, 0.6)
    (note,) = caught.value.__notes__
    assert note == f"training was at t = {t:g} of {t1:g} after 7 steps"


def shown(monkeypatch, train):
    """What a bar says at its end."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    train(ProgressBar())
    return sys.stderr.getvalue().split("\r")[-1]


def test_a_bar_that_is_done_says_so(net, task, monkeypatch):
    last = shown(monkeypatch, lambda bar: gradient_flow(net, task, t1=4.0, progress_meter=bar))
    assert re.search(r"t = 4 of 4, \d+ steps", last)


def test_a_bar_of_what_stopped_stays_there(net, task, monkeypatch):
    options = {"t1": 4.0, "stepsize_controller": EqualSteps(0.25), "max_steps": 6, "throw": False}
    last = shown(monkeypatch, lambda bar: gradient_flow(net, task, progress_meter=bar, **options))
    assert "t = 1.5 of 4, 6 steps" in last
    assert "%" not in last


def test_a_bar_works_where_jax_traces(net, task, capfd):
    traced(net, task, t1=1.0, progress_meter=ProgressBar())
    jax.effects_barrier()
    assert "100.00%" in capfd.readouterr().err


LONG = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
from nlbound_jax.cli import main
from nlbound_jax.dynamics import _progress

show = _progress.Meter.__call__

def said(self, t, steps):
    show(self, t, steps)
    print("piece", flush=True)

_progress.Meter.__call__ = said
sys.argv = ["nlbound", *{arguments!r}]
main()
"""
STUCK = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
import jax
from nlbound_jax.cli import _interrupt

def stuck():
    forever = jax.jit(lambda: jax.lax.while_loop(lambda i: i >= 0, lambda i: (i + 1) % 7, 0))
    forever.lower().compile()
    print("piece", flush=True)
    forever().block_until_ready()

sys.argv = ["nlbound", {name!r}]
_interrupt.run(stuck)
"""


def interrupted(code, number):
    """What a process said that had a signal after its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "piece\n", process.stderr.read()
    time.sleep(0.5)  # it computes
    process.send_signal(number)
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number, said
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")
@pytest.mark.skipif("NLBOUND_SHAKE" in os.environ, reason="the other process is not shaken")
@pytest.mark.parametrize("dynamics", ["flow", "gd"])
def test_an_interrupted_report_says_how_far_it_came(dynamics):
    arguments = ["report", "--components", "3", "--width", "4", "--epsilon", "1", "--rtol", "1e-9"]
    arguments += ["--end-time", "1e5", "--max-steps", "1000000000", "--dynamics", dynamics]
    said = interrupted(LONG.format(arguments=arguments), signal.SIGINT)
    pattern = r"nlbound: interrupted; training was at t = \S+ of 100000 after \d+ steps\n"
    assert re.fullmatch(pattern, said)


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")
@pytest.mark.parametrize("name", ["report", "sweep"])
def test_a_command_that_hears_nothing_is_ended(name):
    """The program of XLA would run for ever."""
    said = interrupted(STUCK.format(name=name), signal.SIGTERM)
    hint = "; what is done is kept, call again to go on" if name == "sweep" else ""
    assert said == f"nlbound: terminated{hint}\n"
