"""The cells of the split bound, declared before the sample is seen."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _validate
from ._ranges import check_list, check_range, range_values

_Values = Float[Array, "..."]
_RANGES = ("noise", "linear", "path")


@dataclasses.dataclass(frozen=True)
class SplitGrid:
    """The cells over which the split bound holds at once; their number K is always paid for.

    Every quantity is in units of the margin $\\gamma$, and rounded *up* to the next value of a
    geometric range (lowest, highest, ratio of neighbours); a value below the lowest costs the
    lowest, and above the highest the bound is `+inf`.

    **Attributes:**

    - `noise`: the range of $\\nu/\\gamma$, the radius of the noise ball.
    - `linear`: the range of $B/\\gamma$, $B \\ge \\|l_W\\|$.
    - `path`: the range of the total $P_j/\\gamma$, $P_j \\ge p_j^+ + p_j^-$.
    - `pieces`: the total is split into $P^+ = (i+1)P/n$, $P^- = (n-i)P/n$, n = `pieces`.
    - `priors`: e in the variances of the prior of the linear part, which are the larger the larger
        $\\lambda_i^e$ is; for 0 the prior is uniform in a ball.
    - `thetas`: the mixing of the metric along the linear part (L = 2).
    - `exponents`: a in $\\mu_i \\propto \\lambda_i^a$, the weights of that metric.

    **Raises:**

    `ValueError` naming the attribute.
    """

    noise: tuple[float, float, float] = (1e-3, 2.0, 1.15)
    linear: tuple[float, float, float] = (1e-2, 1e5, 1.1)
    path: tuple[float, float, float] = (1e-3, 1e6, 1.02)
    pieces: int = 50
    priors: tuple[float, ...] = (0.0, 0.5, 1.0)
    thetas: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    exponents: tuple[float, ...] = (0.0, 0.25, 0.5)

    def __post_init__(self):
        for name in _RANGES:
            check_range(name, getattr(self, name), low=0, open_low=True)
        _validate.integer("pieces", self.pieces, 1)
        check_list("thetas", self.thetas, low=0, high=1, open_high=True)
        for name in ("priors", "exponents"):
            check_list(name, getattr(self, name), low=0)

    def values(self, name: str) -> Float[np.ndarray, " values"]:
        """The values of a range, increasing.

        **Arguments:**

        - `name`: `"noise"`, `"linear"` or `"path"`.

        **Returns:**

        `(values,)`; the last is at least the declared highest.

        **Raises:**

        `ValueError` if `name` is not one of these.
        """
        limits = getattr(self, _validate.member("name", name, _RANGES))
        return range_values(limits)

    def round_up(self, name: str, value: _Values) -> _Values:
        """The smallest value of a range that is at least `value`; `+inf` above the highest.

        **Arguments:**

        - `name`: `"noise"`, `"linear"` or `"path"`.
        - `value`: in units of $\\gamma$, any shape.

        **Returns:**

        Of the shape of `value`.
        """
        values = jnp.append(jnp.asarray(self.values(name)), jnp.inf)
        return values[jnp.searchsorted(values, jnp.minimum(value, jnp.inf), side="left")]

    def log_cells(self, depth: int, families: int = 1) -> float:
        """$\\ln K$.

        **Arguments:**

        - `depth`: L; there are L - 1 totals.
        - `families`: how many pairs of a prior and a metric are tried.

        **Returns:**

        The logarithm of the number of cells.
        """
        path = math.log(len(self.values("path"))) + math.log(self.pieces)
        single = math.log(len(self.values("noise"))) + math.log(len(self.values("linear")))
        return single + (depth - 1) * path + math.log(families)

    def metrics(self) -> tuple[Float[np.ndarray, " c"], Int[np.ndarray, " c"]]:
        """Every pair (theta, index of the exponent) of the metric along the linear part.

        **Returns:**

        Two arrays, `(families,)`.
        """
        pairs = [(t, i) for t in self.thetas for i in range(len(self.exponents))]
        thetas, exponents = zip(*pairs, strict=True)
        return np.asarray(thetas, float), np.asarray(exponents, int)
