"""What a flow is made of, and where it is."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

from .._types import Parameters, ParametersOverTime


class Wrapped(diffrax.AbstractTerm):
    """A term as `diffeqsolve` hands it to solvers and controllers: no `ODETerm` to look at, so that
    the first step of a `PIDController` is 0.01."""

    term: diffrax.ODETerm

    def vf(self, t, y, args):
        return self.term.vf(t, y, args)

    def contr(self, t0, t1, **kwargs):
        return self.term.contr(t0, t1, **kwargs)

    def prod(self, vf, control):
        return self.term.prod(vf, control)


class State(eqx.Module):
    """Where a flow is.

    - `t`, `weights`: the time and the weights there.
    - `tnext`, `controller`, `solver`, `made_jump`: what Diffrax carries from step to step.
    - `ts`, `saved`: as in a `FlowSolution`, without the start and the end.
    - `counts`: Diffrax's numbers of steps, by their names.
    """

    t: Float[Array, ""]
    weights: Parameters
    tnext: Float[Array, ""]
    controller: Any
    solver: Any
    made_jump: Bool[Array, ""]
    ts: Float[Array, " times"]
    saved: ParametersOverTime
    counts: dict[str, Int[Array, ""]]


class Solve(NamedTuple):
    """What a solve is made of: `args` is what the right-hand side takes beside the weights,
    `times`, `(times,)`, are where to save, and may be none."""

    terms: diffrax.ODETerm
    args: Any
    t1: Float[Array, ""]
    times: Float[Array, " times"]
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
