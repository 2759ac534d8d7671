"""Full-batch gradient descent, the way the paper's experiments train."""

from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS, where
from .._types import Weights, WeightsOverTime
from ..networks import LeakyMLP, check_network
from ..tasks import Task
from ._devices import run_on_mesh, samples_mesh
from ._field import Blocks, make_blocks, negative_gradient
from ._trajectory import Trajectory, is_concrete


@eqx.filter_jit
def _descend(
    weights: Weights,
    epsilon: Float[Array, ""],
    blocks: Blocks,
    optimizer: optax.GradientTransformation,
    num_saves: int,
    save_every: int,
    progress_meter: diffrax.AbstractProgressMeter,
) -> WeightsOverTime:
    num_steps = num_saves * save_every

    def step(carry, _):
        weights, state, meter, count = carry
        gradient = jax.tree.map(jnp.negative, negative_gradient(weights, epsilon, blocks))
        updates, state = optimizer.update(gradient, state, weights)
        weights = jax.tree.map(jnp.add, weights, updates)
        count = count + 1
        meter = progress_meter.step(meter, count.astype(epsilon.dtype) / num_steps)
        return (weights, state, meter, count), None

    def save(carry, _):
        carry, _ = jax.lax.scan(step, carry, None, length=save_every)
        return carry, carry[0]

    start = (weights, optimizer.init(weights), progress_meter.init(), jnp.array(0))
    (_, _, meter, _), saved = jax.lax.scan(save, start, None, length=num_saves)
    progress_meter.close(meter)
    return saved


def gradient_descent(
    net: LeakyMLP,
    task: Task,
    num_steps: int,
    *,
    step_size: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    save_every: int | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> Trajectory:
    """Train a network by full-batch gradient descent on the same loss as [`gradient_flow`][].

    **Main arguments:**

    - `net`: the network at the start. Its dtype is the dtype of the training.
    - `task`: the data.
    - `num_steps`: the number of steps.
    - `step_size`: the learning rate, and the flow time that one step counts for.

    **Other arguments:**

    - `optimizer`: an Optax transformation; `optax.sgd(step_size)` by default. With another one,
        `step_size` is only the clock.
    - `save_every`: save the weights every so many steps, a divisor of `num_steps`; the end only
        by default.
    - `progress_meter`: a Diffrax progress meter; none by default.
    - `devices`: as for [`gradient_flow`][].
    - `throw`: raise if the weights stop being finite.

    **Returns:**

    A [`Trajectory`][] with `ts = step_size * (save_every, 2 save_every, ..., num_steps)`.

    **Raises:**

    `ValueError` naming the argument; with `throw`, `RuntimeError` if descent diverged.
    """
    net = check_network("net", net, _validate.instance("task", task, Task).rank)
    num_steps = _validate.integer("num_steps", num_steps, 1)
    step_size = _validate.scalar("step_size", step_size, low=0, open_low=True)
    save_every = num_steps if save_every is None else save_every
    save_every = _validate.integer("save_every", save_every, 1, num_steps)
    if num_steps % save_every:
        raise ValueError(f"`save_every` must divide num_steps = {num_steps}, got {save_every}.")
    dtype = net.weights[0].dtype
    blocks = make_blocks(task, dtype, samples_mesh(devices, net))

    def descend(weights, epsilon):
        return _descend(
            weights,
            epsilon,
            blocks,
            optax.sgd(step_size) if optimizer is None else optimizer,
            num_steps // save_every,
            save_every,
            diffrax.NoProgressMeter() if progress_meter is None else progress_meter,
        )

    weights = run_on_mesh(descend, net.weights, net.epsilon.astype(dtype), mesh=blocks.mesh)
    steps = save_every * jnp.arange(1, num_steps // save_every + 1)
    ts = steps.astype(dtype) * jnp.asarray(step_size, dtype)
    finite = jnp.all(jnp.stack([jnp.isfinite(w[-1]).all() for w in weights]))
    result = where(finite, RESULTS.successful, RESULTS.diverged)
    trajectory = Trajectory(ts, weights, net.epsilon, ts[-1], {"num_steps": num_steps}, result)
    if not throw:
        return trajectory
    if not is_concrete(trajectory):
        return result.error_if(trajectory, result != RESULTS.successful)
    if result != RESULTS.successful:
        raise RuntimeError(f"gradient_descent: {RESULTS[result]}")
    return trajectory
