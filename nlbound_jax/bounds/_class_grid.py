"""The cells of the bounds for several classes, declared before the sample is seen."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from ._ranges import check_list, check_range, range_values

_Values = Float[Array, "..."]
_RANGES = ("noise", "linear", "path", "move", "margin")


@dataclasses.dataclass(frozen=True)
class ClassGrid:
    """The cells over which a bound for several classes holds at once; their number K is always paid
    for. Every quantity is rounded *up* to the next value of a geometric range (lowest, highest,
    ratio of neighbours); a value below the lowest costs the lowest, and above the highest the bound
    is `+inf`.

    **Attributes:**

    - `noise`: the range of $\\sigma/\\gamma$, the deviation of the noise.
    - `linear`: the range of $B/\\gamma\\sqrt{K-1}$, B a bound on the size of the linear part.
    - `path`: the range of $P/\\gamma$, the size of the nonlinear part.
    - `priors`: e in the variances of the prior of the linear part, which are the larger the larger
        $\\lambda_i^e$ is.
    - `move`: the range of T, how far the filters are from the anchor's. Of anchored bounds only.
    - `margin`: the values of $\\gamma$ over the unit of the anchor's outputs. Of anchored bounds
        only: where there is no anchor margins cost nothing.

    **Raises:**

    `ValueError` naming the attribute.
    """

    noise: tuple[float, float, float] = (1e-4, 1.0, 1.2)
    linear: tuple[float, float, float] = (1e-4, 1e4, 1.1)
    path: tuple[float, float, float] = (1e-4, 1e6, 1.02)
    priors: tuple[float, ...] = (0.0, 0.5, 1.0)
    move: tuple[float, float, float] = (1e-4, 1e3, 1.02)
    margin: tuple[float, float, float] = (0.03, 3.0, 1.16)

    def __post_init__(self):
        for name in _RANGES:
            check_range(name, getattr(self, name), low=0, open_low=True)
        check_list("priors", self.priors, low=0)

    def values(self, name: str) -> Float[np.ndarray, " values"]:
        """The values of a range, increasing.

        **Arguments:**

        - `name`: `"noise"`, `"linear"`, `"path"`, `"move"` or `"margin"`.

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

        - `name`: as for `values`.
        - `value`: any shape.

        **Returns:**

        Of the shape of `value`.
        """
        values = jnp.append(jnp.asarray(self.values(name)), jnp.inf)
        return values[jnp.searchsorted(values, jnp.minimum(value, jnp.inf), side="left")]

    def log_cells(self, metrics: int, families: int, anchored: bool = False) -> float:
        """$\\ln K$.

        **Arguments:**

        - `metrics`: in how many coordinates the linear part is tried.
        - `families`: in how many metrics the nonlinear part is tried.
        - `anchored`: whether the bound has an anchor.

        **Returns:**

        The logarithm of the number of cells.
        """
        ranges = _RANGES if anchored else _RANGES[:3]
        sizes = [len(self.values(name)) for name in ranges]
        return math.log(math.prod([*sizes, len(self.priors), metrics, families]))
