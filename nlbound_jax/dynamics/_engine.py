"""The solve of gradient flow on blocks of data, which every training by flow goes through."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._results import RESULTS
from .._types import Parameters, ParametersOverTime
from ._field import Blocks, SampleBlocks, negative_gradient
from ._model import Model
from ._pieces import Solve, State, solve_in_pieces
from ._trajectory import is_concrete

RTOL = 1e-4


def pi_controller(rtol: float | Array, atol: float | Array) -> diffrax.PIDController:
    """The step size control of every flow: by the last two errors. By the last alone (Diffrax's
    default) a quarter of the steps are rejected and the others have up to 20 times the error
    (`benchmarks/README.md`).

    **Arguments:**

    - `rtol`: relative tolerance.
    - `atol`: absolute tolerance, in the units of a weight.

    **Returns:**

    A `diffrax.PIDController` with `pcoeff = 0.3` and `icoeff = 0.4`.
    """
    return diffrax.PIDController(rtol=rtol, atol=atol, pcoeff=0.3, icoeff=0.4)


def default_controller(weights: Parameters, rtol: float = RTOL) -> diffrax.PIDController:
    """The step size control of [`gradient_flow`][], for another tolerance. The absolute tolerance
    is `rtol` times the smallest weight norm, so that an initialization of any size is resolved;
    arrays that start at zero, as biases may, are left out.

    **Arguments:**

    - `weights`: the weights at time 0, any tree of arrays.
    - `rtol`: relative tolerance.

    **Returns:**

    A `diffrax.PIDController`, see [`pi_controller`][].
    """
    arrays = jax.lax.stop_gradient(jax.tree.leaves(weights))
    arrays = [w if w.ndim <= 2 else w.reshape(len(w), -1) for w in arrays]
    norms = jnp.stack([jnp.linalg.norm(w) for w in arrays])
    smallest = jnp.min(jnp.where(norms > 0, norms, jnp.max(norms)))
    tiny = jnp.finfo(smallest.dtype).tiny
    return pi_controller(rtol, jnp.maximum(rtol * smallest, tiny))


class FlowSolution(eqx.Module):
    """What [`solve_flow`][] found.

    **Attributes:**

    - `ts`: the saved times, `(times,)`; `inf` where the solve did not come.
    - `weights`: the weights there, a tree like that of the start with arrays `(times ...)`; `inf`
        likewise.
    - `reached`: the time at which the solve ended.
    - `end`: the weights there, `(1 ...)` each.
    - `stats`: Diffrax's statistics (`num_steps` and others).
    - `result`: how the solve ended, a member of `RESULTS`.
    """

    ts: Float[Array, " times"]
    weights: ParametersOverTime
    reached: Float[Array, ""]
    end: PyTree[Float[Array, "1 ..."]]
    stats: dict[str, Any]
    result: RESULTS


def check_saves(saveat: diffrax.SaveAt | None, t1: Float[Array, ""]) -> diffrax.SaveAt:
    """`saveat`, the end by default, with times in the dtype of `t1`; refused if it is of a kind
    that a flow does not save, or if a time that is known lies outside [0, t1]."""
    saves = diffrax.SaveAt(t1=True) if saveat is None else saveat
    sub = saves.subs
    plain = isinstance(sub, diffrax.SubSaveAt) and sub.fn is diffrax.SubSaveAt(t1=True).fn
    if not plain or saves.dense or saves.solver_state or saves.controller_state:
        raise ValueError(
            "`saveat` must be a diffrax.SaveAt of t0, t1, ts or steps, without subs, dense output, "
            "states or a function of its own."
        )
    if sub.ts is not None:
        ts = sub.ts.astype(t1.dtype)
        if is_concrete((ts, t1)) and bool(jnp.any((ts < 0) | (ts > t1) | ~jnp.isfinite(ts))):
            raise ValueError(f"`saveat.ts` must lie in [0, t1] = [0, {float(t1):g}], got {ts}.")
        saves = eqx.tree_at(lambda s: s.subs.ts, saves, ts)
    return saves


def _field(t, y, args):
    return negative_gradient(y, *args)


_TERM = diffrax.ODETerm(_field)


@eqx.filter_jit
def _solve(
    weights: Parameters,
    model: Float[Array, ""] | Model,
    blocks: Blocks | SampleBlocks,
    t1: Float[Array, ""],
    saveat: diffrax.SaveAt,
    solver: diffrax.AbstractSolver,
    stepsize_controller: diffrax.AbstractStepSizeController | None,
    adjoint: diffrax.AbstractAdjoint,
    progress_meter: diffrax.AbstractProgressMeter,
    max_steps: int | None,
) -> diffrax.Solution:
    return diffrax.diffeqsolve(
        _TERM,
        solver,
        t0=jnp.zeros_like(t1),
        t1=t1,
        dt0=None,
        y0=weights,
        args=(model, blocks),
        saveat=saveat,
        stepsize_controller=(
            default_controller(weights) if stepsize_controller is None else stepsize_controller
        ),
        adjoint=adjoint,
        progress_meter=progress_meter,
        max_steps=max_steps,
        throw=False,
    )


@eqx.filter_jit
def all_finite(parameters: ParametersOverTime) -> Array:
    """Whether the last of the parameters are finite."""
    leaves = jax.tree.leaves(parameters)
    return jnp.all(jnp.stack([jnp.isfinite(w[-1]).all() for w in leaves]))


def _outcome(result: Any, end: Parameters) -> RESULTS:
    """How a solve ended. Steps of a fixed size may end in what is not a number."""
    found = RESULTS.promote(result)
    astray = (found == RESULTS.successful) & ~all_finite(end)
    return RESULTS.where(astray, RESULTS.diverged, found)


def _joined(
    weights: Parameters, sub: Any, max_steps: int | None, state: State, result: Any
) -> FlowSolution:
    """The start, what was saved, and the end, one after the other as Diffrax lays them out: what
    was not reached comes last."""
    end = jax.tree.map(lambda w: w[None], state.weights)
    rows = [(state.ts, state.saved)]
    if sub.t0:
        rows.insert(0, (jnp.zeros_like(state.t)[None], jax.tree.map(lambda w: w[None], weights)))
    if sub.t1:
        saved = int(jnp.sum(jnp.isfinite(state.ts)))
        early, late = (
            jax.tree.map(lambda a, part=part: a[part], rows[-1])
            for part in (slice(saved), slice(saved, None))
        )
        rows[-1:] = [early, (state.t[None], end), late]
    ts, kept = jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)
    accepted, rejected = (state.counts[name] for name in ("accepted", "rejected"))
    stats = {"num_accepted_steps": accepted, "num_rejected_steps": rejected}
    stats |= {"num_steps": accepted + rejected, "max_steps": max_steps}
    return FlowSolution(ts, kept, state.t, end, stats, _outcome(result, end))


def solve_flow(
    weights: Parameters,
    model: Float[Array, ""] | Model,
    blocks: Blocks | SampleBlocks,
    *,
    t1: Float[Array, ""],
    saveat: diffrax.SaveAt | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    max_steps: int | None = 4096,
) -> FlowSolution:
    """The engine of [`gradient_flow`][]: weights and data are arrays on the devices where they are
    to be, and are taken as they are; a solve that stops early is a result. It is compiled once for
    all numbers of one shape, and may be called where JAX traces.

    **Main arguments:**

    - `weights`: the weights at time 0, `(out in)` each, or the parameters of a module.
    - `model`: as for [`negative_gradient`][]: epsilon or, of any module, a [`Model`][].
    - `blocks`: the data, out of [`make_blocks`][] or [`make_sample_blocks`][].
    - `t1`: the time to integrate to, in the dtype of the weights.
    - `saveat`: what to save, as for [`gradient_flow`][].

    **Other arguments:**

    - `solver`, `stepsize_controller`, `adjoint`, `progress_meter`, `max_steps`: as for
        [`gradient_flow`][].

    **Returns:**

    A [`FlowSolution`][].

    **Raises:**

    `ValueError` if `saveat` is of another kind or has a time outside [0, t1].
    """
    saves = check_saves(saveat, t1)
    sub: Any = saves.subs
    solver = diffrax.Tsit5() if solver is None else solver
    meter = diffrax.NoProgressMeter() if progress_meter is None else progress_meter
    if not sub.steps and is_concrete((weights, model, blocks, t1, sub.ts, stepsize_controller)):
        controller = stepsize_controller
        if controller is None:
            controller = eqx.filter_jit(default_controller)(weights)
        times = jnp.zeros((0,), t1.dtype) if sub.ts is None else sub.ts
        solve = Solve(_TERM, (model, blocks), t1, times, solver, controller)
        return _joined(weights, sub, max_steps, *solve_in_pieces(weights, solve, max_steps, meter))
    solution = _solve(
        weights,
        model,
        blocks,
        t1,
        # Where the solve ended is saved as well.
        diffrax.SaveAt(subs=(sub, diffrax.SubSaveAt(t1=True))),
        solver,
        stepsize_controller,
        diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        meter,
        max_steps,
    )
    (ts, weights), (reached, end) = zip(solution.ts, solution.ys, strict=True)  # pyright: ignore
    result = _outcome(solution.result, end)
    return FlowSolution(ts, weights, reached[0], end, solution.stats, result)
