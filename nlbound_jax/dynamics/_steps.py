"""The loop over the steps of a flow, by hand. `diffrax.diffeqsolve` checks the times to save at
by a callback to the host, and a program with one is not kept between processes."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Parameters
from ._state import Solve, State, Wrapped

_Scalar = Float[Array, ""]


def strong(state: State) -> State:
    """Arrays with the types that they have now: a weak type would compile the next piece anew."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.result_type(a)), state)


def begin(weights: Parameters, solve: Solve) -> State:
    """Where a flow starts, at time 0."""
    t0, terms, args = jnp.zeros_like(solve.t1), Wrapped(solve.terms), solve.args
    controller, solver = solve.controller.wrap(1), solve.solver
    order = solver.error_order(terms)
    tnext, state = controller.init(terms, t0, solve.t1, weights, None, args, solver.func, order)
    tnext = jnp.minimum(tnext, solve.t1)
    empty = (len(solve.times),)
    begun = State(
        t0,
        weights,
        jnp.asarray(tnext, t0.dtype),
        state,
        solver.init(terms, t0, tnext, weights, args),
        jnp.asarray(False),
        jnp.full(empty, jnp.inf, t0.dtype),
        jax.tree.map(lambda w: jnp.full(empty + w.shape, jnp.inf, w.dtype), weights),
        {name: jnp.asarray(0) for name in ("accepted", "rejected")},
    )
    return strong(begun)


def _clipped(tprev: _Scalar, tnext: _Scalar, t1: _Scalar, kept: Bool[Array, ""]) -> _Scalar:
    """The end of the next step: t1, where it is beyond or some roundings before it (half-way
    there, if the last step was rejected). As in `diffeqsolve`."""
    floor = jax.lax.fori_loop(0, 100, lambda _, t: jnp.nextafter(t, jnp.zeros_like(t)), t1)
    return jnp.where(tnext > floor, jnp.where(kept, t1, tprev + 0.5 * (t1 - tprev)), tnext)


def _saved(state: State, times: Float[Array, " times"], kept, interpolation) -> tuple[Any, Any]:
    """What was saved, and what the step that was kept adds."""

    def due(carry):
        ts, _ = carry
        done = jnp.sum(jnp.isfinite(ts))
        time = times[jnp.minimum(done, len(times) - 1)]
        return kept & (done < len(times)) & (time <= state.tnext)

    def save(carry):
        ts, saved = carry
        done = jnp.sum(jnp.isfinite(ts))
        now = interpolation.evaluate(times[done])
        saved = jax.tree.map(lambda rows, w: rows.at[done].set(w), saved, now)
        return ts.at[done].set(times[done]), saved

    return jax.lax.while_loop(due, save, (state.ts, state.saved))


def march(state: State, solve: Solve, limit: Int[Array, ""]) -> tuple[State, Any]:
    """Some steps more, as `diffrax.diffeqsolve` makes them with a solver that is not implicit.

    **Arguments:**

    - `state`: where the flow is.
    - `solve`: what the solve is made of.
    - `limit`: after how many steps to pause, rejected ones included.

    **Returns:**

    Where it is then, and how it ended: `max_steps_reached` where it paused.
    """
    terms, args, solver = Wrapped(solve.terms), solve.args, solve.solver
    controller, t1 = solve.controller.wrap(1), solve.t1
    order: Any = solver.error_order(terms)
    results = diffrax.RESULTS

    def going(carry):
        state, count, result = carry
        return (state.t < t1) & (count < limit) & (result == results.successful)

    def step(carry):
        state, count, result = carry
        weights, error, dense, solver_state, solved = solver.step(
            terms, state.t, state.tnext, state.weights, args, state.solver, state.made_jump
        )
        error = jax.tree.map(lambda e: jnp.where(jnp.isnan(e), jnp.inf, e), error)
        kept, tprev, tnext, made_jump, controlled, adapted = controller.adapt_step_size(
            state.t, state.tnext, state.weights, weights, args, error, order, state.controller
        )
        # A controller of fixed steps gives Python's numbers.
        kept, tprev, tnext = jnp.asarray(kept), jnp.minimum(tprev, t1), jnp.asarray(tnext, t1.dtype)
        old = (state.weights, state.solver, state.made_jump)
        new = jax.tree.map(
            lambda a, b: jnp.where(kept, a, b), (weights, solver_state, made_jump), old
        )
        solved = results.where(kept, solved, results.successful)
        result = results.where(result == results.successful, solved, result)
        result = results.where(result == results.successful, adapted, result)
        saved = (state.ts, state.saved)
        if len(solve.times):
            interpolation = solver.interpolation_cls(t0=state.t, t1=state.tnext, **dense)
            saved = _saved(state, solve.times, kept, interpolation)
        counts = {
            "accepted": state.counts["accepted"] + jnp.where(kept, 1, 0),
            "rejected": state.counts["rejected"] + jnp.where(kept, 0, 1),
        }
        after = State(
            tprev,
            new[0],
            _clipped(tprev, tnext, t1, kept),
            controlled,
            new[1],
            new[2],
            *saved,
            counts,
        )
        # Types as they were: a loop asks for it, and a controller may give weak ones.
        return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), (after, count + 1, result), carry)

    start = (state, jnp.zeros_like(limit), jax.tree.map(jnp.asarray, results.successful))
    state, _, result = jax.lax.while_loop(going, step, start)
    paused = (result == results.successful) & (state.t < t1)
    return state, results.where(paused, results.max_steps_reached, result)


steps = eqx.filter_jit(march)
