"""Training a network for a report."""

import math
from collections.abc import Sequence
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _validate, ladder
from .._naming import naming
from ..dynamics import (
    Trajectory,
    default_controller,
    gradient_descent,
    gradient_flow,
    learning_time,
)
from ..networks import LeakyMLP, initialize
from ..tasks import Task
from ._settings import Settings
from ._steps import reference_beside, steps_until, time_to_learn


def _range_of_beta(depth: int, dtype: str) -> tuple[float, float]:
    """The gradients at the start are of the size of beta^(L-1), and what is smaller than them by a
    unit of rounding still counts; where the outputs are large, of that of beta^(2L-1)."""
    limits = np.finfo(dtype)
    tiny, large, unit = (math.log(v) for v in (limits.tiny, limits.max, limits.eps))
    return math.exp((tiny - unit) / (depth - 1)), math.exp((large + unit) / (2 * depth - 1))


def check_start(settings: Settings) -> None:
    """Refuse numbers that pass by themselves, but that the dtype of the training cannot hold.

    **Arguments:**

    - `settings`: a [`Settings`][].

    **Returns:**

    Nothing.

    **Raises:**

    `ValueError` naming `beta`, `step_size` or `end_time`.
    """
    settings = _validate.instance("settings", settings, Settings)
    dtype, depth = settings.dtype, settings.depth
    low, high = _range_of_beta(depth, dtype)
    if not low <= settings.beta <= high:
        least, most = _range_of_beta(depth, "float64")
        more = f", [{least:.3g}, {most:.3g}] in float64" if dtype == "float32" else ""
        raise ValueError(
            f"`beta` must be in [{low:.3g}, {high:.3g}] at depth {depth} in {dtype}{more}, "
            f"got {settings.beta:g}."
        )
    limits = np.finfo(dtype)
    low, high = float(limits.tiny), float(limits.max) / settings.num_times
    if settings.dynamics == "gd" and not low <= settings.step_size <= high:
        raise ValueError(
            f"`step_size` must be in [{low:.3g}, {high:.3g}] in {dtype}, "
            f"got {settings.step_size:g}."
        )
    if settings.end_time is None:
        return
    low, high = settings.num_times * float(limits.tiny), float(limits.max)
    if not low <= settings.end_time <= high:
        raise ValueError(
            f"`end_time` must be in [{low:.3g}, {high:.3g}] in {dtype}, got {settings.end_time:g}."
        )


def start_network(task: Task, settings: Settings) -> LeakyMLP:
    """The network at time 0.

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][].

    **Returns:**

    A [`LeakyMLP`][].

    **Raises:**

    `ValueError` naming `beta`, `step_size` or `end_time` if the dtype cannot hold it.
    """
    task = _validate.instance("task", task, Task)
    check_start(settings)
    return initialize(
        jax.random.key(settings.seed),
        task.rank,
        settings.width,
        settings.depth,
        epsilon=settings.epsilon,
        beta=settings.beta,
        kind=settings.init,
        dtype=settings.dtype,
    )


class NothingToLearn(ValueError):
    """There is no learning time: the labels do not correlate with the inputs, or the network
    starts beyond the fraction that is to be learned."""


def end_time(task: Task, settings: Settings) -> float:
    """When training ends.

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][].

    **Returns:**

    A time of gradient flow; with `dynamics="gd"` a number of steps times `step_size`, those in
    which the same steps learn that fraction of the strongest mode in an aligned linear network.

    **Raises:**

    [`NothingToLearn`][], a `ValueError`, if there is no learning time and no `end_time` is set.
    """
    task = _validate.instance("task", task, Task)
    check_start(settings)
    if settings.end_time is not None:
        return settings.end_time
    if not task.alignment > 0:
        raise NothingToLearn(
            "`task` must have labels that correlate with the inputs, got alignment 0: "
            "there is nothing to learn, so no learning time; set `end_time`."
        )
    alignment = min(task.alignment, 1.0)  # rounding may lift it above
    _check_before(settings, alignment)
    with naming(fraction="until"):
        if settings.dynamics == "gd":
            return time_to_learn(alignment, settings)
        t1 = learning_time(
            settings.until,
            depth=settings.depth,
            alignment=alignment,
            beta=settings.beta,
            epsilon=settings.epsilon,
        )
    return float(t1)


def _check_before(settings: Settings, alignment: float) -> None:
    """Raise unless the network starts before the fraction that is to be learned."""
    depth, beta = settings.depth, settings.beta
    log_omega = (depth - 1) * math.log1p(-settings.epsilon / 2)
    log_start = log_omega + depth * math.log(beta) - math.log(alignment)
    if log_start < math.log(settings.until):
        return
    log_target = math.log(settings.until) + math.log(alignment)
    limit = math.exp((log_target - log_omega) / depth)
    start = math.exp(log_start) if log_start < 700 else math.inf
    raise NothingToLearn(
        f"`beta` must be below {limit:.4g} at `until` = {settings.until:g}, got {beta:g}: the "
        f"network starts at {start:.4g} times the target, beyond what it is to learn; a smaller "
        "`beta` gives a learning time, or `end_time` sets the time itself."
    )


def save_times(t1: float, settings: Settings) -> Float[Array, " times"]:
    """`settings.num_times` equally spaced times up to `t1`.

    **Arguments:**

    - `t1`: the end.
    - `settings`: a [`Settings`][].

    **Returns:**

    Times, in the dtype of the training.
    """
    ts = jnp.linspace(0.0, t1, settings.num_times + 1, dtype=settings.dtype)[1:]
    return jnp.minimum(ts, jnp.asarray(t1, ts.dtype))  # rounding may leave the last one beyond


def train_network(
    net: LeakyMLP,
    task: Task,
    settings: Settings,
    t1: float,
    *,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    devices: Sequence[Any] | None = None,
) -> Trajectory:
    """Train a network as the settings say.

    **Arguments:**

    - `net`: the network at time 0.
    - `task`: the data.
    - `settings`: a [`Settings`][].
    - `t1`: when training ends.

    **Other arguments:**

    - `progress_meter`: a Diffrax progress meter; none by default.
    - `devices`: as in [`gradient_flow`][].

    **Returns:**

    A [`Trajectory`][] at `settings.num_times` equally spaced times; fewer if there are fewer steps
    of gradient descent, or if those between two saves get there sooner.

    **Raises:**

    `RuntimeError` if gradient descent diverged; `ValueError` if it would take more steps than can
    be counted.
    """
    if settings.dynamics == "gd":
        steps, momentum = steps_until(t1, settings), settings.momentum or None
        return gradient_descent(
            net,
            task,
            steps.num_steps,
            step_size=settings.step_size,
            optimizer=optax.sgd(settings.step_size, momentum, settings.nesterov),
            save_every=steps.every,
            progress_meter=progress_meter,
            devices=devices,
        )
    return gradient_flow(
        net,
        task,
        t1=t1,
        saveat=diffrax.SaveAt(ts=save_times(t1, settings)),
        progress_meter=progress_meter,
        max_steps=settings.max_steps,
        stepsize_controller=default_controller(net.weights, settings.rtol),
        devices=devices,
        throw=False,
    )


def bound_key(settings: Settings) -> PRNGKeyArray:
    """The key for bounds that draw at random. Not that of the initialization: the draws must not
    depend on the start weights.

    **Arguments:**

    - `settings`: a [`Settings`][].

    **Returns:**

    A JAX random key.
    """
    return jax.random.fold_in(jax.random.key(settings.seed), 1)


def train(
    task: Task,
    settings: Settings,
    *,
    envelope: bool = True,
    anchor: ladder.Anchor | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
) -> ladder.Run:
    """A trained network and what its bounds need along the way: what a report is made of.

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][].

    **Other arguments:**

    - `envelope`: whether to integrate the envelope as well.
    - `anchor`: out of [`train_anchor`][], for the anchored bounds; none by default.
    - `progress_meter`: a Diffrax progress meter; none by default.

    **Returns:**

    A [`Run`][].

    **Raises:**

    `ValueError` naming the argument, or if there is no learning time; `RuntimeError` if gradient
    descent, or that of the reference network, diverged or the flow of the latter stopped.
    """
    task = _validate.instance("task", task, Task)
    settings = _validate.instance("settings", settings, Settings)
    if settings.dtype == "float64":
        _validate.needs_x64("dtype='float64'")
    with jax.enable_x64(True):
        net = start_network(task, settings)
        t1 = end_time(task, settings)
        trajectory = train_network(net, task, settings, t1, progress_meter=progress_meter)
        residual = ladder.root_mean_square_residual(net, task)
        reference = reference_beside(
            net, task, trajectory, settings, initial_residual=residual, envelope=envelope
        )
        return ladder.follow(
            task,
            net,
            trajectory,
            ratios=settings.ratios,
            cells=settings.cells,
            key=bound_key(settings),
            anchor=anchor,
            envelope=envelope,
            initial_residual=residual,
            reference=reference,
        )
