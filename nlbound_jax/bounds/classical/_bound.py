"""What every classical bound returns."""

import equinox as eqx
from jaxtyping import Array, Float

_Scalar = Float[Array, ""]

SAMPLES = "the samples are iid, their inputs as given or under a map fixed before the sample"
# What a classical bound assumes of a reference, as `ClassicalBound.assumes` says it.
START = "the reference weights do not depend on the sample"


class ClassicalBound(eqx.Module):
    """A bound on $P(y f(x) \\le 0)$, which holds with probability $1 - \\delta$; term by term.

    **Attributes:**

    - `value`: `train_risk + complexity + confidence`; it may exceed 1.
    - `train_risk`: the risk on the sample: training error, margin or ramp risk as in the theorem.
    - `complexity`: the term of the norm or the capacity.
    - `confidence`: the rest: $\\delta$, and the union over all that was learned.
    - `gamma`: the margin, in the units of the output; `None` where there is none.
    - `name`: of the function that computed it.
    - `a_priori`: whether all but `train_risk` is known before training.
    - `deterministic`: whether it holds for the network itself; otherwise for the random network
        of a posterior around it.
    - `assumes`: what is assumed, in words.
    - `source`: paper and theorem.
    """

    value: _Scalar
    train_risk: _Scalar
    complexity: _Scalar
    confidence: _Scalar
    gamma: _Scalar | None
    name: str = eqx.field(static=True)
    a_priori: bool = eqx.field(static=True)
    deterministic: bool = eqx.field(static=True)
    assumes: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True)

    @property
    def penalty(self) -> _Scalar:
        """`complexity + confidence`, the bound on the gap."""
        return self.complexity + self.confidence
