"""What does not carry over from gradient flow to finite steps: constructions that run.

They need `jax_enable_x64` and raise `ValueError` without it.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _validate
from ..dynamics import (
    envelope_slopes,
    envelope_terms,
    gradient_descent,
    reference_descent,
)
from ..networks import LeakyMLP
from ..tasks import Task
from ._counterexamples import Counterexample, result_of, scalar_network, white_task


def rising_loss(step_size: float = 0.5) -> Counterexample:
    """That the loss does not rise once steps are small enough, as it does not along gradient flow,
    is false: no step size will do.

    $L = 2$, $d = n = 1$, two points $x = \\pm 1$, $y = -1$, a ReLU network with $w_2 = 1$ and
    $w_1$ just above 0. The gradient of $w_1$ at the kink is that of the other side: a step leads
    to $w_1 = -\\eta/2$ and raises the loss by $\\eta/4$, to first order. So the loss of a network
    trained by steps has a bound of its own (README of `bounds`, Lemma 19).

    **Arguments:**

    - `step_size`: $\\eta$, positive; the smaller, the smaller the rise.

    **Returns:**

    A [`Counterexample`][]: the loss after a step, and before it.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("rising_loss")
    step_size = _validate.scalar("step_size", step_size, 1e-6, 1.0)
    task = white_task(np.array([[1.0], [-1.0]]), np.array([-1.0, -1.0]))
    net = scalar_network(1e-12, 1.0, 1.0)
    after = gradient_descent(net, task, 1, step_size=step_size).network()
    losses = [float(jnp.mean((one(task.x) - task.y) ** 2)) / 2 for one in (after, net)]
    return result_of(
        *losses,
        name="rising-loss",
        statement="finite steps (A.1): the loss does not rise if steps are small",
        setting=(
            "x = -1 and 1, y = -1, d = n = 1, L = 2, epsilon = 1, w_1 = 1e-12, w_2 = 1, one step "
            f"of {step_size:g}."
        ),
    )


def naive_envelope() -> Counterexample:
    """The envelope of gradient flow with Euler steps in the place of the integral, which takes it
    for granted that the loss does not rise, is false.

    $d = n = m = 1$, $x = y = 1$, $W(0) = (4.5, 0.2)$, $\\epsilon = 1$, five steps of 1/4.
    The error grows a hundredfold in the first four, and the gradients with it. What holds is the
    envelope of [`reference_descent`][] (README of `bounds`, Theorem 17).

    **Returns:**

    A [`Counterexample`][]: $\\|W_1 - V_1\\|$ after five steps; `repaired` is the envelope of the
    steps.

    **Raises:**

    `ValueError` if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("naive_envelope")
    step_size, num_steps = 0.25, 5
    task = white_task(np.ones((1, 1)), np.ones(1))
    net = scalar_network(4.5, 0.2, 1.0)
    residual = float(jnp.sqrt(jnp.mean((net(task.x) - task.y) ** 2)))
    options = {"step_size": step_size, "save_every": 1}
    trained = gradient_descent(net, task, num_steps, **options)
    reference = reference_descent(net, task.target, num_steps, initial_residual=residual, **options)
    envelope: Any = reference.envelope
    distance = float(jnp.linalg.norm(trained.weights[0][-1] - reference.weights[0][-1]))
    naive = _euler(net, task, reference, residual, step_size)
    return result_of(
        distance,
        naive,
        distance,
        float(envelope[-1, 0]),
        name="naive-envelope",
        statement="finite steps (A.1): Euler steps of the flow's envelope bound ||W_1 - V_1||",
        setting=(
            "x = y = 1, d = n = m = 1, L = 2, epsilon = 1, w_1 = 4.5, w_2 = 0.2, five steps of "
            f"{step_size:g}."
        ),
    )


def _euler(net: LeakyMLP, task: Task, reference, residual: float, step_size: float) -> float:
    """The first distance that Euler steps of Eq. (4) at L = 2 give."""
    slope = envelope_slopes(net.epsilon, 2)
    omega, bend = float(slope.omega), float(slope.bend)
    x = np.zeros(2)
    weights = [
        np.concatenate([w[None], v]) for w, v in zip(net.weights, reference.weights, strict=True)
    ]
    for first, second in zip(weights[0][:-1, 0, 0], weights[1][:-1, 0, 0], strict=True):
        a = np.abs([first, second])
        left = abs(task.target[0] - omega * first * second)
        facts = map(jnp.asarray, (x, a, a[0], left, task.alignment, residual))
        terms = envelope_terms(*facts, slope)
        upper = (a + x)[::-1]  # of the other layer
        pure = omega * (left * x[::-1] + upper * float(terms.gap))
        x = x + step_size * (pure + float(terms.ell) * bend * upper)
    return float(x[0])
