import diffrax
import jax
import numpy as np
import optax
import pytest
from helpers import assert_close, small_task

from nlbound_jax import RESULTS, dynamics, networks

pytestmark = pytest.mark.quick

TASK = small_task()
NET = networks.initialize(jax.random.key(1), 4, 5, 2, epsilon=0.3, beta=0.3, dtype="float64")


def by_hand(steps, rate):
    w1, w2 = (np.array(w) for w in NET.weights)
    saved = []
    for _ in range(steps):
        z = w1 @ TASK.x.T
        slope = np.where(z < 0, 0.7, 1.0)
        r = (TASK.y - w2 @ (z * slope)) / TASK.num_samples
        g1, g2 = ((w2.T @ r) * slope) @ TASK.x, r @ (z * slope).T
        w1, w2 = w1 + rate * g1, w2 + rate * g2
        saved.append((w1, w2))
    return saved


def test_steps_against_a_loop_by_hand():
    run = dynamics.gradient_descent(NET, TASK, 12, step_size=0.05, save_every=4)
    expected = by_hand(12, 0.05)[3::4]
    assert_close(run.ts, [0.2, 0.4, 0.6])
    for level in range(2):
        assert_close(run.weights[level], [e[level] for e in expected], rtol=1e-9)
    assert run.result == RESULTS.successful


def test_small_steps_follow_the_flow():
    controller = diffrax.PIDController(rtol=1e-8, atol=1e-9)
    flow = dynamics.gradient_flow(NET, TASK, t1=2.0, stepsize_controller=controller)
    errors = []
    for steps in (200, 400):
        run = dynamics.gradient_descent(NET, TASK, steps, step_size=2.0 / steps)
        errors.append(float(np.abs(run.weights[0][-1] - flow.weights[0][-1]).max()))
    assert errors[1] < 0.6 * errors[0] < 0.01


def test_any_optax_optimizer():
    run = dynamics.gradient_descent(NET, TASK, 3, optimizer=optax.sign_sgd(0.1), step_size=0.5)
    assert_close(run.ts, [1.5])
    # Every entry moves by the rate in every step, up or down.
    moves = np.abs(np.asarray(run.weights[0][-1] - NET.weights[0])) / 0.1
    assert_close(moves, np.where(moves > 2, 3.0, 1.0), rtol=1e-9)


def test_divergence_is_an_outcome():
    with pytest.raises(RuntimeError, match="Training diverged: .* a smaller step size"):
        dynamics.gradient_descent(NET, TASK, 100, step_size=100.0)
    run = dynamics.gradient_descent(NET, TASK, 100, step_size=100.0, throw=False)
    assert run.result == RESULTS.diverged


def test_bad_arguments_get_one_line(no_type_checks):
    for name, value, allowed in (
        ("num_steps", 0, "an integer of at least 1"),
        ("save_every", 11, r"an integer in \[1, 10\]"),
        ("step_size", -1, "positive and finite"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be {allowed}, got {value}"):
            dynamics.gradient_descent(NET, TASK, **({"num_steps": 10} | {name: value}))
    with pytest.raises(ValueError, match="`save_every` must divide num_steps = 10, got 3"):
        dynamics.gradient_descent(NET, TASK, 10, save_every=3)
