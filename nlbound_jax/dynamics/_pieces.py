"""A flow in pieces: the host asks for some steps at a time, so that an interrupt ends it and what
a progress meter shows is true. The steps are those of a solve as a whole."""

import time
from collections.abc import Iterator
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Parameters
from ._progress import Meter
from ._state import Solve, State
from ._steps import begin, steps, strong

# About how long the host waits for a piece, in seconds: an interrupt waits as long.
PATIENCE = 0.3
# Of the first two pieces.
FIRST_STEPS = 8


class _Pausing(diffrax.AbstractStepSizeController):
    """A step size control that goes on where another solve paused, and pauses after `limit`
    steps: to Diffrax that is a solve that ends as if it had no more steps.

    - `tnext`, `state`: where the first step ends, and the state of `controller` there.
    - `limit`: after how many steps, rejected ones included.
    """

    controller: diffrax.AbstractStepSizeController
    tnext: Float[Array, ""]
    state: Any
    limit: Int[Array, ""]

    def wrap(self, direction):
        return eqx.tree_at(lambda c: c.controller, self, self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.tnext, (self.state, self.tnext, jnp.zeros_like(self.limit))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        inner, _, count = controller_state
        keep, tprev, tnext, made_jump, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, inner
        )
        count = count + 1
        paused = diffrax.RESULTS.where(
            count >= self.limit, diffrax.RESULTS.max_steps_reached, diffrax.RESULTS.successful
        )
        result = diffrax.RESULTS.where(result == diffrax.RESULTS.successful, paused, result)
        tnext = jnp.asarray(tnext, self.tnext.dtype)
        return keep, tprev, tnext, made_jump, (inner, tnext, count), result


class _PausingAdaptive(_Pausing, diffrax.AbstractAdaptiveStepSizeController):  # pyright: ignore
    """The same with tolerances, which implicit solvers ask for."""

    @property
    def rtol(self):  # pyright: ignore
        return self.controller.rtol  # pyright: ignore

    @property
    def atol(self):  # pyright: ignore
        return self.controller.atol  # pyright: ignore

    @property
    def norm(self):  # pyright: ignore
        return self.controller.norm  # pyright: ignore


_begin = eqx.filter_jit(begin)


@eqx.filter_jit
def _piece(state: State, solve: Solve, limit: Int[Array, ""]) -> tuple[State, Any]:
    """As [`steps`][], for implicit solvers: Diffrax gives them the tolerances of the controller."""
    adaptive = isinstance(solve.controller, diffrax.AbstractAdaptiveStepSizeController)
    pausing: Any = _PausingAdaptive if adaptive else _Pausing
    controller = pausing(solve.controller, state.tnext, state.controller, limit)
    # What is saved already is asked for again at the start, and not looked at.
    before = jnp.isfinite(state.ts)
    subs = [diffrax.SubSaveAt(t1=True)]
    if len(solve.times):
        subs.append(diffrax.SubSaveAt(ts=jnp.where(before, state.t, solve.times)))
    found = diffrax.diffeqsolve(
        solve.terms,
        solve.solver,
        t0=state.t,
        t1=solve.t1,
        dt0=None,
        y0=state.weights,
        args=solve.args,
        saveat=diffrax.SaveAt(subs=subs, solver_state=True, controller_state=True, made_jump=True),
        stepsize_controller=controller,
        # Nothing is differentiated here, and this compiles fastest.
        adjoint=diffrax.ForwardMode(),
        solver_state=state.solver,
        made_jump=state.made_jump,
        max_steps=None,
        throw=False,
    )
    ts, ys = found.ts, found.ys
    controlled, tnext, _ = found.controller_state  # pyright: ignore
    saved_ts, saved = state.ts, state.saved
    if len(solve.times):
        new = ~before & jnp.isfinite(ts[1])  # pyright: ignore
        saved_ts = jnp.where(new, ts[1], saved_ts)  # pyright: ignore
        saved = jax.tree.map(
            lambda w, old: jnp.where(new.reshape(-1, *(1,) * (w.ndim - 1)), w, old),
            ys[1],  # pyright: ignore
            saved,
        )
    counts = {
        name: count + jnp.asarray(found.stats[f"num_{name}_steps"], count.dtype)
        for name, count in state.counts.items()
    }
    end = State(
        ts[0][0],  # pyright: ignore
        jax.tree.map(lambda w: w[0], ys[0]),  # pyright: ignore
        tnext,
        controlled,
        found.solver_state,
        jnp.asarray(found.made_jump),
        saved_ts,
        saved,
        counts,
    )
    return strong(end), found.result


def pieces() -> Iterator[int]:
    """How many steps to do next, so that each piece takes about [`PATIENCE`][] seconds.

    **Returns:**

    An iterator without an end.
    """
    steps, first = FIRST_STEPS, True
    while True:
        began = time.monotonic()
        yield steps
        seconds = max(time.monotonic() - began, 1e-9)
        # The first is compiled: its time says nothing of the next.
        if not first:
            steps = max(1, min(4 * steps, int(steps * PATIENCE / seconds)))
        first = False


def solve_in_pieces(
    weights: Parameters, solve: Solve, max_steps: int | None, meter: diffrax.AbstractProgressMeter
) -> tuple[State, Any]:
    """Solve from time 0, a piece after the other.

    **Arguments:**

    - `weights`: the weights at time 0, any tree of arrays.
    - `solve`: a [`Solve`][].
    - `max_steps`: the largest number of steps.
    - `meter`: a Diffrax progress meter.

    **Returns:**

    Where it ended, and how: a member of `diffrax.RESULTS`.
    """
    t1, done, sizes = float(solve.t1), 0, pieces()
    piece = _piece if isinstance(solve.solver, diffrax.AbstractImplicitSolver) else steps
    with Meter(meter, t1) as shown:
        state, result = _begin(weights, solve), diffrax.RESULTS.max_steps_reached
        while max_steps is None or done < max_steps:
            size = next(sizes)
            limit = size if max_steps is None else min(size, max_steps - done)
            state, result = piece(state, solve, jnp.asarray(limit))
            t, counts = jax.device_get((state.t, state.counts))
            done = int(counts["accepted"] + counts["rejected"])
            shown(float(t), done)
            if t >= t1:
                return state, diffrax.RESULTS.successful
            if result != diffrax.RESULTS.max_steps_reached:
                break
    return state, result
