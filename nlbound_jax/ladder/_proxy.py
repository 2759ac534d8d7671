"""What Theorem 5.2 and the trajectory bound share: a proxy whose numbers are counted."""

import equinox as eqx
import jax

from .. import _validate
from .._types import Numeric
from ..bounds import Theorem52, TrajectoryBound
from ._bound import AbstractBound
from ._snapshot import Snapshot
from ._terms import Terms

ROUNDING = "rounding to p bits"


class AbstractProxyBound(AbstractBound):
    """A bound at every margin of the run, by the distance from a proxy.

    **Attributes:**

    - `kappa`: which proxy, 1 or 2.
    - `precision_bits`: p.
    """

    kappa: int = eqx.field(static=True, default=2)
    precision_bits: Numeric = 32

    def __check_init__(self):
        _validate.member("kappa", self.kappa, (1, 2))
        if not isinstance(self.precision_bits, jax.Array):  # those were checked as numbers
            _validate.scalar("precision_bits", self.precision_bits, low=1)

    def _terms(self, at: Snapshot, bound: Theorem52 | TrajectoryBound) -> Terms:
        """Its deviation is the rest."""
        gammas = at.along[1]
        return at.terms(
            gamma=gammas,
            train_term=at.margin_risk(gammas),
            complexity=bound.capacity,
            rest=bound.deviation,
            result=bound.result,
            parts={"capacity": bound.capacity, "deviation": bound.deviation},
        )
