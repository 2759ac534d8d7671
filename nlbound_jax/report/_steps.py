"""Finite steps for a report: how many, how often they are saved, and the reference network."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from .. import _validate
from ..dynamics import ReferenceTrajectory, Trajectory, learning_time, reference_descent
from ..networks import LeakyMLP
from ..tasks import Task
from ._settings import Settings

# So many steps are made one by one to see when the mode is learned; more are as good as the flow.
_COUNTED = 100_000


class Steps(NamedTuple):
    """Steps of gradient descent: `saves` times `every` of them."""

    every: int
    saves: int

    @property
    def num_steps(self) -> int:
        """How many there are."""
        return self.every * self.saves


def steps_until(t1: float, settings: Settings) -> Steps:
    """The steps that get to a time: the first ones not before it after which there is a save, of
    which there are `settings.num_times` at most.

    **Arguments:**

    - `t1`: the end, a number of steps times `settings.step_size`.
    - `settings`: a [`Settings`][].

    **Returns:**

    How many steps there are between two saves, and how many saves.

    **Raises:**

    `ValueError` if there are more steps than can be counted.
    """
    size, most = settings.step_size, _validate.LARGEST
    count = t1 / size
    if count < most:
        near = round(count)  # a number of steps times their size is that number, but for rounding
        count = max(1, near if abs(count - near) <= 1e-9 * near else math.ceil(count))
        every = math.ceil(count / settings.num_times)
        steps = Steps(every, math.ceil(count / every))
        if every * settings.num_times <= most:
            return steps
    raise ValueError(
        f"`dynamics` must be 'flow' to train until t = {t1:g}, got 'gd', whose steps of "
        f"{size:g} get to t = {most * size:g} at most."
    )


def time_to_learn(alignment: float, settings: Settings) -> float:
    """When the strongest mode is learned: the clock of [`learning_time`][] for these steps. The
    aligned linear network $z_+ = z + \\eta\\, \\omega z^{L-1} (s - \\omega z^L)$, from
    $z = \\beta$, with the momentum of the settings, gets to $\\omega z^L = \\alpha s$. The flow has
    that time times $1 - \\mu$ where steps are small.

    **Arguments:**

    - `alignment`: s.
    - `settings`: a [`Settings`][].

    **Returns:**

    The number of steps times their size.
    """
    size, depth, mu = settings.step_size, settings.depth, settings.momentum
    facts = {"depth": depth, "alignment": alignment, "beta": settings.beta}
    flow = float(learning_time(settings.until, epsilon=settings.epsilon, **facts)) * (1 - mu)
    if flow / size > _COUNTED:
        return flow
    omega = (1 - settings.epsilon / 2) ** (depth - 1)
    z, trace = np.float64(settings.beta), 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for count in range(1, _COUNTED + 1):
            gradient = omega * z ** (depth - 1) * (alignment - omega * z**depth)
            trace = mu * trace + gradient
            z += size * (gradient + mu * trace if settings.nesterov else trace)
            # The target is below 2: these steps, too large, have learned what they ever will.
            if not abs(z) <= 4 or omega * z**depth >= settings.until * alignment:
                return count * size
    return flow


def reference_after(
    start: LeakyMLP, target: Any, steps: Steps, settings: Settings, **options: Any
) -> ReferenceTrajectory:
    """The reference network trained by such steps, at every save."""
    return reference_descent(
        start,
        target,
        steps.num_steps,
        step_size=settings.step_size,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        save_every=steps.every,
        **options,
    )


def reference_beside(
    start: LeakyMLP,
    task: Task,
    trajectory: Trajectory,
    settings: Settings,
    *,
    initial_residual: float,
    envelope: bool = True,
) -> ReferenceTrajectory | None:
    """The reference network trained by the steps of a network, as [`follow`][] takes it.

    **Arguments:**

    - `start`: the network at time 0.
    - `task`: the data.
    - `trajectory`: out of [`train_network`][]; times may be given twice.
    - `settings`: a [`Settings`][].

    **Other arguments:**

    - `initial_residual`: out of [`root_mean_square_residual`][].
    - `envelope`: whether to compute the envelope as well.

    **Returns:**

    A [`ReferenceTrajectory`][] at the times of the trajectory; `None` for gradient flow.

    **Raises:**

    `RuntimeError` if the steps of the reference network diverged.
    """
    if settings.dynamics == "flow":
        return None
    ts = np.asarray(trajectory.ts, float)
    saves = np.rint(ts / ts[0]).astype(int)  # at the end of which number of `every` steps
    steps = Steps(int(trajectory.stats["num_steps"]) // int(saves[-1]), int(saves[-1]))
    options = {"initial_residual": initial_residual, "envelope": envelope}
    found = reference_after(start, task.target, steps, settings, **options)
    finite = np.all([np.isfinite(w).all(axis=(1, 2)) for w in found.weights], axis=0)
    if not finite.all():
        raise RuntimeError(
            "reference_descent, the descent of the linear reference network, diverged before "
            f"t = {float(found.ts[np.argmin(finite)]):.6g}; take a smaller step size."
        )
    return _at(found, saves - 1)


def _at(found: ReferenceTrajectory, times: np.ndarray) -> ReferenceTrajectory:
    """What was found at some of the times."""
    if np.array_equal(times, np.arange(len(found.ts))):
        return found

    def over_time(one: ReferenceTrajectory) -> Any:
        sizes = (one.norms, one.frobenius, one.residual, one.envelope)
        return (one.ts, one.linear_map, *sizes, one.weights)

    picked = jax.tree.map(lambda leaf: leaf[times], over_time(found))
    return eqx.tree_at(over_time, found, picked, is_leaf=lambda leaf: leaf is None)
