"""Training a network for a report, and its risks along the way."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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

GD_STEP = 1e-3


def start(task: Task, settings: Settings) -> LeakyMLP:
    """The network at time 0."""
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


def end_time(task: Task, settings: Settings) -> float:
    """When training ends."""
    if settings.end_time is not None:
        return settings.end_time
    if not task.alignment > 0:
        raise ValueError(
            "`task` must have labels that correlate with the inputs, got alignment 0: "
            "there is nothing to learn, so no learning time; set `end_time`."
        )
    return float(
        learning_time(
            settings.until,
            depth=settings.depth,
            alignment=min(task.alignment, 1.0),  # rounding may lift it above
            beta=settings.beta,
            epsilon=settings.epsilon,
        )
    )


def save_times(t1: float, settings: Settings) -> Float[Array, " times"]:
    """`settings.num_times` equally spaced times up to `t1`."""
    ts = jnp.linspace(0.0, t1, settings.num_times + 1, dtype=settings.dtype)[1:]
    return jnp.minimum(ts, jnp.asarray(t1, ts.dtype))  # rounding may leave the last one beyond


def train(
    net: LeakyMLP,
    task: Task,
    settings: Settings,
    t1: float,
    progress_meter: diffrax.AbstractProgressMeter,
    devices: Sequence[Any] | None = None,
) -> Trajectory:
    """The weights at `settings.num_times` equally spaced times up to `t1`."""
    if settings.dynamics == "gd":
        every = max(1, math.ceil(t1 / (settings.num_times * GD_STEP)))
        return gradient_descent(
            net,
            task,
            every * settings.num_times,
            step_size=GD_STEP,
            save_every=every,
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


def root_mean_square_residual(net: LeakyMLP, task: Task) -> float:
    """$\\ell(0)$, the root mean square of $y - f(\\tilde x)$ over the training set."""
    return float(np.sqrt(np.mean((task.y - np.asarray(net(task.x), float)) ** 2)))


class Risks(eqx.Module):
    """Risks of the network at the saved times: `(times,)`, with margins `(times ratios)`."""

    train: Float[Array, " times"]
    margin: Float[Array, "times ratios"]
    ramp: Float[Array, "times ratios"]
    test: Float[Array, " times"] | None


@eqx.filter_jit
def _outputs_to_risks(weights, epsilon, x, y, gammas):
    def one(args):
        weights, gammas = args
        margin = y * LeakyMLP(weights, epsilon).features_first(x)
        ratio = margin[None, :] / gammas[:, None]
        ramp = jnp.clip(1 - ratio, 0.0, 1.0)
        mean = functools.partial(jnp.mean, dtype=float, axis=-1)  # counts are exact in float64
        return mean(margin < 0), mean(ratio < 1), mean(ramp)

    return jax.lax.map(one, (weights, gammas))


def risks(trajectory: Trajectory, task: Task, gammas: Float[np.ndarray, "times ratios"]) -> Risks:
    """Train risk, margin risk [y f < gamma], ramp risk and test risk at every saved time."""
    dtype = trajectory.weights[0].dtype

    def evaluate(x, y):
        x, y = jnp.asarray(x.T, dtype), jnp.asarray(y, dtype)
        return _outputs_to_risks(
            trajectory.weights, trajectory.epsilon, x, y, jnp.asarray(gammas, dtype)
        )

    train_risk, margin, ramp = evaluate(task.x, task.y)
    test = None
    if task.x_test is not None and task.y_test is not None:
        test, _, _ = evaluate(task.x_test, task.y_test)
    return Risks(train_risk, margin, ramp, test)
