"""Theorem 5.2 of the paper as a bound of the ladder."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Reading
from ..bounds import theorem_5_2
from ..tasks import Task
from ._bound import FLOW, PLUG_IN
from ._proxy import ROUNDING, AbstractProxyBound
from ._snapshot import Snapshot
from ._terms import Terms


class AbstractTheorem52Bound(AbstractProxyBound):
    """[`theorem_5_2`][] at every margin of the run."""

    reading: ClassVar[Reading]
    needs = ("t", "start", "gammas", "cells", "flow")
    a_priori = True
    source = "Golikov 2024, Theorem 5.2"
    cites = ("hoeffding1963probability",)

    def assumes(self, data: Task) -> tuple[str, ...]:
        """Assumption 5.1, and what all that count numbers assume."""
        return (FLOW, "Assumption 5.1", PLUG_IN, ROUNDING)

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The theorem, its premises beta and rho measured on the network at time 0."""
        start: Any = at.start
        t, gammas, cells = at.along
        theorem = theorem_5_2(
            t,
            depth=at.net.depth,
            epsilon=at.epsilon,
            beta=jnp.max(start.norms),
            gamma=gammas,
            stable_rank_root=jnp.maximum(1.0, start.frobenius / start.norms[0]),
            alignment=at.data.alignment,
            dim=at.data.dim,
            num_samples=at.data.num_samples,
            kappa=self.kappa,
            precision_bits=self.precision_bits,
            delta=delta,
            cells=cells,
            reading=self.reading,
        )
        return self._terms(at, theorem)


class PrintedTheorem52Bound(AbstractTheorem52Bound):
    """The theorem as it is printed; its proof has gaps.

    **Attributes:**

    - `kappa`: which proxy, 1 or 2.
    - `precision_bits`: p.
    """

    name = "theorem-5.2-printed"
    reading = "printed"
    colour = "tab:blue"

    def assumes(self, data: Task) -> tuple[str, ...]:
        """Its proof too."""
        return (FLOW, "Assumption 5.1", "the printed proof", PLUG_IN, ROUNDING)


class RepairedTheorem52Bound(AbstractTheorem52Bound):
    """The theorem with a proof that holds.

    **Attributes:**

    - `kappa`: which proxy, 1 or 2.
    - `precision_bits`: p.
    """

    name = "theorem-5.2-repaired"
    reading = "repaired"
    colour = "tab:orange"
