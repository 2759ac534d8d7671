"""Full-batch gradient descent, the way the paper's experiments train."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS, where
from .._types import Parameters, ParametersOverTime
from ..tasks import ClassTask, Task
from ._devices import run_on_mesh, samples_mesh
from ._engine import all_finite
from ._field import Blocks, SampleBlocks, negative_gradient
from ._model import Model
from ._pieces import pieces
from ._problem import pose
from ._progress import Meter
from ._trajectory import Trajectory, is_concrete


class _Descent(eqx.Module):
    """What a descent is made of: `num_steps` steps, its weights saved `num_saves` times."""

    model: Float[Array, ""] | Model
    blocks: Blocks | SampleBlocks
    optimizer: optax.GradientTransformation
    num_saves: int
    save_every: int

    @property
    def num_steps(self) -> int:
        """How many steps there are."""
        return self.num_saves * self.save_every

    def step(self, weights: Parameters, state: Any) -> tuple[Parameters, Any]:
        """One step: the weights and the state of the optimizer after it."""
        gradient = jax.tree.map(jnp.negative, negative_gradient(weights, self.model, self.blocks))
        updates, state = self.optimizer.update(gradient, state, weights)
        return jax.tree.map(jnp.add, weights, updates), state


@eqx.filter_jit
def _descend(
    weights: Parameters, descent: _Descent, progress_meter: diffrax.AbstractProgressMeter
) -> ParametersOverTime:
    """All steps in one program, which JAX can differentiate."""

    def step(carry, _):
        weights, state, meter, count = carry
        weights, state = descent.step(weights, state)
        count = count + 1
        progress = count.astype(descent.blocks.x.dtype) / descent.num_steps
        return (weights, state, progress_meter.step(meter, progress), count), None

    def save(carry, _):
        carry, _ = jax.lax.scan(step, carry, None, length=descent.save_every)
        return carry, carry[0]

    start = (weights, descent.optimizer.init(weights), progress_meter.init(), jnp.array(0))
    (_, _, meter, _), saved = jax.lax.scan(save, start, None, length=descent.num_saves)
    progress_meter.close(meter)
    return saved


@eqx.filter_jit
def _begin(weights: Parameters, descent: _Descent) -> Any:
    saved = jax.tree.map(lambda w: jnp.zeros((descent.num_saves, *w.shape), w.dtype), weights)
    return weights, descent.optimizer.init(weights), saved, jnp.asarray(0)


@eqx.filter_jit
def _piece(state: Any, descent: _Descent, limit: Any) -> Any:
    """Some steps more."""

    def step(_, state):
        weights, inner, saved, count = state
        weights, inner = descent.step(weights, inner)
        # Until the last step before a save its row is written over and over.
        row = count // descent.save_every
        saved = jax.tree.map(lambda rows, w: rows.at[row].set(w), saved, weights)
        return weights, inner, saved, count + 1

    return jax.lax.fori_loop(0, limit, step, state)


def _descend_in_pieces(
    weights: Parameters, descent: _Descent, meter: diffrax.AbstractProgressMeter, step_size: float
) -> ParametersOverTime:
    """The same steps, some at a time: an interrupt ends them, and progress is shown."""
    num_steps, done, sizes = descent.num_steps, 0, pieces()
    with Meter(meter, num_steps * step_size) as shown:
        state = _begin(weights, descent)
        while done < num_steps:
            size = min(next(sizes), num_steps - done)
            state = jax.block_until_ready(_piece(state, descent, jnp.asarray(size)))
            done += size
            shown(done * step_size, done)
    return state[2]


def gradient_descent(
    net: eqx.Module,
    task: Task | ClassTask,
    num_steps: int,
    *,
    step_size: float = 1e-3,
    loss: Callable[..., Any] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    save_every: int | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> Trajectory:
    """Train a network by full-batch gradient descent on the same loss as [`gradient_flow`][].

    **Main arguments:**

    - `net`: the network at the start, a [`LeakyMLP`][] or any module as for [`gradient_flow`][].
        The dtype of what is trained is the dtype of the training.
    - `task`: the data, a [`Task`][] or a [`ClassTask`][].
    - `num_steps`: the number of steps.
    - `step_size`: the learning rate, and the flow time that one step counts for.
    - `loss`: the loss of a sample, as for [`gradient_flow`][].

    **Other arguments:**

    - `optimizer`: an Optax transformation; `optax.sgd(step_size)` by default. With another one,
        `step_size` is only the clock.
    - `save_every`: save the weights every so many steps, a divisor of `num_steps`; the end only
        by default.
    - `progress_meter`: a Diffrax progress meter, such as [`ProgressBar`][]; none by default.
    - `devices`: as for [`gradient_flow`][].
    - `throw`: raise if the weights stop being finite.

    **Returns:**

    A [`Trajectory`][] with `ts = step_size * (save_every, 2 save_every, ..., num_steps)`.

    **Raises:**

    `ValueError` naming the argument; with `throw`, `RuntimeError` if descent diverged.
    """
    problem = pose(net, task, loss)
    num_steps = _validate.integer("num_steps", num_steps, 1)
    step_size = _validate.scalar("step_size", step_size, low=0, open_low=True)
    save_every = num_steps if save_every is None else save_every
    save_every = _validate.integer("save_every", save_every, 1, num_steps)
    if num_steps % save_every:
        raise ValueError(f"`save_every` must divide num_steps = {num_steps}, got {save_every}.")
    blocks = problem.blocks(samples_mesh(devices, net))

    def descend(weights, model):
        update = optax.sgd(step_size) if optimizer is None else optimizer
        descent = _Descent(model, blocks, update, num_steps // save_every, save_every)
        meter = diffrax.NoProgressMeter() if progress_meter is None else progress_meter
        if is_concrete((weights, descent)):
            return _descend_in_pieces(weights, descent, meter, step_size)
        return _descend(weights, descent, meter)

    weights = run_on_mesh(descend, problem.parameters, problem.model, mesh=blocks.mesh)
    steps = save_every * jnp.arange(1, num_steps // save_every + 1)
    ts = steps.astype(problem.dtype) * jnp.asarray(step_size, problem.dtype)
    result = where(all_finite(weights), RESULTS.successful, RESULTS.diverged)
    trajectory = problem.trajectory(ts, weights, ts[-1], {"num_steps": num_steps}, result)
    if not throw:
        return trajectory
    if not is_concrete(trajectory):
        return result.error_if(trajectory, result != RESULTS.successful)
    if result != RESULTS.successful:
        raise RuntimeError(f"gradient_descent: {RESULTS[result]}")
    return trajectory
