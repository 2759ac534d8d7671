"""Gradient flow, integrated as an ordinary differential equation."""

from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS
from .._types import Numeric, Weights, WeightsOverTime
from ..networks import LeakyMLP
from ..networks._mlp import checked
from ..tasks import Task
from ._devices import gather, replicate, samples_mesh
from ._field import Blocks, make_blocks, negative_gradient
from ._trajectory import Trajectory, is_concrete

RTOL = 1e-4


def pi_controller(rtol: float | Array, atol: float | Array) -> diffrax.PIDController:
    """Steps by the last two errors. By the last alone (Diffrax's default) a quarter are rejected
    and the others have up to 20 times the error (benchmarks/README.md)."""
    return diffrax.PIDController(rtol=rtol, atol=atol, pcoeff=0.3, icoeff=0.4)


def default_controller(weights: Weights, rtol: float = RTOL) -> diffrax.PIDController:
    """A controller whose absolute tolerance is `rtol` times the smallest weight norm, so that an
    initialization of any size is resolved."""
    norms = [jnp.linalg.norm(w) for w in weights]
    smallest = jnp.min(jnp.stack(norms))
    tiny = jnp.finfo(smallest.dtype).tiny
    return pi_controller(rtol, jnp.maximum(rtol * smallest, tiny))


def _with_end(saveat: diffrax.SaveAt, t1: Float[Array, ""]) -> diffrax.SaveAt:
    """`saveat` with times in the dtype of `t1`, which also saves where the solve ended."""
    sub = saveat.subs
    plain = isinstance(sub, diffrax.SubSaveAt) and sub.fn is diffrax.SubSaveAt(t1=True).fn
    if not plain or saveat.dense or saveat.solver_state or saveat.controller_state:
        raise ValueError(
            "`saveat` must be a diffrax.SaveAt of t0, t1, ts or steps, without subs, dense output, "
            "states or a function of its own."
        )
    if sub.ts is not None:
        ts = sub.ts.astype(t1.dtype)
        if is_concrete((ts, t1)) and bool(jnp.any((ts < 0) | (ts > t1) | ~jnp.isfinite(ts))):
            raise ValueError(f"`saveat.ts` must lie in [0, t1] = [0, {float(t1):g}], got {ts}.")
        sub = eqx.tree_at(lambda s: s.ts, sub, ts)
    return diffrax.SaveAt(subs=(sub, diffrax.SubSaveAt(t1=True)))


@eqx.filter_jit
def _solve(
    weights: Weights,
    epsilon: Float[Array, ""],
    blocks: Blocks,
    t1: Float[Array, ""],
    saveat: diffrax.SaveAt,
    solver: diffrax.AbstractSolver,
    stepsize_controller: diffrax.AbstractStepSizeController | None,
    adjoint: diffrax.AbstractAdjoint,
    progress_meter: diffrax.AbstractProgressMeter,
    max_steps: int | None,
) -> diffrax.Solution:
    def field(t, y, args):
        epsilon, blocks = args
        return negative_gradient(y, epsilon, blocks)

    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        t0=jnp.zeros_like(t1),
        t1=t1,
        dt0=None,
        y0=weights,
        args=(epsilon, blocks),
        saveat=saveat,
        stepsize_controller=(
            default_controller(weights) if stepsize_controller is None else stepsize_controller
        ),
        adjoint=adjoint,
        progress_meter=progress_meter,
        max_steps=max_steps,
        throw=False,
    )


def _trim(trajectory: Trajectory, end: WeightsOverTime) -> Trajectory:
    """Replace what was not reached by the state where the solve ended."""
    saved = int(jnp.sum(jnp.isfinite(trajectory.ts)))
    weights = jax.tree.map(
        lambda w, last: jnp.concatenate([w[:saved], last]), trajectory.weights, end
    )
    ts = jnp.concatenate([trajectory.ts[:saved], trajectory.reached[None]])
    return eqx.tree_at(lambda t: (t.ts, t.weights), trajectory, (ts, weights))


def gradient_flow(
    net: LeakyMLP,
    task: Task,
    *,
    t1: Numeric,
    saveat: diffrax.SaveAt | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    max_steps: int | None = 4096,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> Trajectory:
    """Train a network by gradient flow (Eq. 4), without a learning rate:

    $dW_l/dt = -\\partial_{W_l} \\frac{1}{2m} \\|Y - f(\\tilde X)\\|^2$, $W_l(0)$ from `net`.

    **Main arguments:**

    - `net`: the network at time 0. Its dtype is the dtype of the solve.
    - `task`: the data.
    - `t1`: the time to integrate to, positive.
    - `saveat`: what to save, a `diffrax.SaveAt` of `t0`, `t1`, `ts` or `steps`; the end only by
        default.

    **Other arguments:**

    - `solver`: a Diffrax solver; `Tsit5` by default.
    - `stepsize_controller`: a Diffrax controller; by default a `PIDController` with
        `pcoeff = 0.3`, `icoeff = 0.4`, `rtol = 1e-4` and `atol = 1e-4` times the smallest
        Frobenius norm of the initial weights.
        Near ReLU a smooth error estimate is foiled by the samples that cross kinks: there
        `rtol = 1e-3` takes 100 steps where 1e-4 takes 450 (MNIST 7x7, epsilon = 1, to t = 60).
    - `adjoint`: a Diffrax adjoint; `RecursiveCheckpointAdjoint` by default. To differentiate
        forward (`jax.jvp`) pass `ForwardMode()`.
    - `progress_meter`: a Diffrax progress meter; none by default.
    - `max_steps`: the largest number of solver steps.
    - `devices`: devices of this process to share the samples out over. By default all CPU devices
        there are (`jax.config.update("jax_num_cpu_devices", n)` before JAX is used makes one of
        each core), but for a start that is traced or with `jax_default_device`; otherwise
        one device.
    - `throw`: raise if the solve does not get to `t1`; otherwise what was computed is kept and
        `Trajectory.result` says why.

    **Returns:**

    A [`Trajectory`][].

    **Raises:**

    `ValueError` naming the argument; with `throw`, `RuntimeError` saying at which time the solve
    stopped.
    """
    net = checked("net", net, _validate.instance("task", task, Task).rank)
    dtype = net.weights[0].dtype
    t1 = _validate.number("t1", t1, 0, open_low=True).astype(dtype)
    if max_steps is not None:
        max_steps = _validate.integer("max_steps", max_steps, 1)
    blocks = make_blocks(task, dtype, samples_mesh(devices, net, t1))
    start, epsilon = replicate((net.weights, net.epsilon.astype(dtype)), blocks.mesh)
    solution = _solve(
        start,
        epsilon,
        blocks,
        t1,
        _with_end(diffrax.SaveAt(t1=True) if saveat is None else saveat, t1),
        diffrax.Tsit5() if solver is None else solver,
        stepsize_controller,
        diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        diffrax.NoProgressMeter() if progress_meter is None else progress_meter,
        max_steps,
    )
    (ts, weights), (end_ts, end) = zip(solution.ts, solution.ys, strict=True)  # pyright: ignore
    result = RESULTS.promote(solution.result)
    trajectory = Trajectory(ts, weights, net.epsilon, end_ts[0], solution.stats, result)
    trajectory, end = gather((trajectory, end), blocks)
    result = trajectory.result
    if not is_concrete(trajectory):
        return result.error_if(trajectory, result != RESULTS.successful) if throw else trajectory
    if result == RESULTS.successful:
        return trajectory
    if throw:
        raise RuntimeError(
            f"gradient_flow stopped at t = {float(end_ts[0]):.6g} of {float(t1):.6g} after "
            f"{int(solution.stats['num_steps'])} steps: {RESULTS[result].strip()} "
            "With throw=False what was computed is kept."
        )
    return _trim(trajectory, end)
