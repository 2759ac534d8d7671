"""What a bound says."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from .._results import RESULTS
from .._types import AnyArray


class Terms(eqx.Module):
    """What a bound says of a network at k margins (k = 1 where it chose its own), uncapped. Over
    time every array has a leading axis.

    **Attributes:**

    - `gamma`: the margin, NaN where the bound has none.
    - `train_term`: what is measured on the training set.
    - `complexity`: the price of the class of networks that the bound holds for.
    - `rest`: everything else: deviation, smoothing, confidence; they keep their names in `parts`.
    - `margin_risk`, `ramp_risk`: of the network itself at this margin: the share of the training
        set with $y f < \\gamma$, and the mean of ramp$_\\gamma(y f)$; NaN where there is no margin.
    - `result`: a member of `RESULTS` at each margin: `successful`, or why the bound is `+inf`.
    - `parts`: whatever the bound is made of, by its own names, `(k, ...)` each.
    - `t`: the time of training; NaN where it is not known.
    - `certified`: the weights of the network that the bound is about, on the inputs of the
        [`Anchor`][]'s split, `(k out in)` each; `None` where that is the network itself.
    """

    gamma: Float[AnyArray, "*times k"]
    train_term: Float[AnyArray, "*times k"]
    complexity: Float[AnyArray, "*times k"]
    rest: Float[AnyArray, "*times k"]
    margin_risk: Float[AnyArray, "*times k"]
    ramp_risk: Float[AnyArray, "*times k"]
    result: RESULTS
    parts: dict[str, Any]
    t: Float[AnyArray, "*times"]
    certified: tuple[Float[AnyArray, "*times k _out _in"], ...] | None = None

    @property
    def value(self) -> Float[AnyArray, "..."] | float:
        """`train_term + complexity + rest`, the bound on P(y f <= 0); `+inf` where a term is not
        known."""
        total = self.train_term + self.complexity + self.rest
        xp = jax.numpy if isinstance(total, jax.Array) else np
        return xp.where(xp.isnan(total), xp.inf, total)[()]

    @property
    def order(self) -> tuple[Float[np.ndarray, "*times k"], Float[np.ndarray, "*times k"]]:
        """What is smaller is better: the value, at most 1; where several say nothing, `complexity`
        and `rest`."""
        penalty = np.asarray(self.complexity + self.rest)
        known = np.where(np.isnan(penalty), np.inf, penalty)
        return np.minimum(1.0, np.asarray(self.value)), known

    def best_margins(self) -> Int[np.ndarray, "*times"]:
        """The margin that is best at each time: the union over margins is paid for.

        **Returns:**

        Indices, `(times,)`.
        """
        capped, penalty = self.order
        return np.lexsort((penalty, capped), axis=-1)[..., 0]

    def best_cell(self) -> tuple[int, int]:
        """The time and margin that are best: the union over both is paid for.

        **Returns:**

        The index of the time, and that of the margin.
        """
        capped, penalty = (values.ravel() for values in self.order)
        time, margin = np.unravel_index(np.lexsort((penalty, capped))[0], self.gamma.shape)
        return int(time), int(margin)

    def at(self, *index: Any) -> "Terms":
        """The terms at an index of their leading axes.

        **Arguments:**

        - `index`: of times, and of margins if given.

        **Returns:**

        A [`Terms`][].
        """
        return jax.tree.map(lambda leaf: leaf[index[: leaf.ndim]], self)
