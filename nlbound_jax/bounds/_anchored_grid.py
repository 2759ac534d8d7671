"""The cells of the anchored bound, declared before the second part of the sample is seen."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from .. import _validate
from ._ranges import check_list, check_range, range_values

_RANGES = ("linear", "nonlinear")
# The least deviation of a noise, and of a shape over the largest of its row: products of them and
# of distances stay within the doubles.
SMALLEST = 1e-100


@dataclasses.dataclass(frozen=True)
class AnchoredGrid:
    """The cells over which [`anchored_bound`][] holds at once; their number is always paid for.

    **Attributes:**

    - `linear`: the range (lowest, highest, ratio of neighbours) of $S_0$, the deviation of the
        noise on the linear part, in units of the anchor's outputs over $\\|\\hat x\\|$ on S1; at
        least 1e-100.
    - `nonlinear`: the range of $S_N$, the deviation of the noise on the nonlinear part, likewise.
    - `kappas`: the variance of the prior on the linear part over that of the noise.
    - `kappas_nonlinear`: the same of the nonlinear part.
    - `levels`: s in $p_c = \\Phi(s)$, the probability with which the noise stays below the
        threshold.
    - `bumps`: $\\beta$ of the correction of $E|z + \\sigma n| - |z|$; 0 is the constant one.
    - `tail`: $s'$, the level of the nonlinear noise in the second form of the threshold.
    - `margins`: $\\tau$, in the same units; the anchor errs where its margin is at most
        $\\tau q$.
    - `shares`: of $\\delta$, for the anchor's errors, for PAC-Bayes and for Monte Carlo.

    **Raises:**

    `ValueError` naming the attribute.
    """

    linear: tuple[float, float, float] = (2e-3, 0.2, 1.5)
    nonlinear: tuple[float, float, float] = (1e-4, 0.1, 1.8)
    kappas: tuple[float, ...] = (1.5, 3.0, 6.0, 10.0)
    kappas_nonlinear: tuple[float, ...] = (1.0, 1.3)
    levels: tuple[float, ...] = (0.4, 0.7, 1.0, 1.3, 1.6, 2.0)
    bumps: tuple[float, ...] = (0.0, 0.25, 0.5)
    margins: tuple[float, ...] = (0.0, 0.04)
    tail: float = 3.4
    shares: tuple[float, float, float] = (0.9, 0.08, 0.02)

    def __post_init__(self):
        for name in _RANGES:
            check_range(name, getattr(self, name), low=SMALLEST)
        lists = {"kappas": {"low": 0, "open_low": True}, "levels": {}, "bumps": {"low": 0}}
        lists |= {"kappas_nonlinear": lists["kappas"], "margins": {}}
        for name, limits in lists.items():
            check_list(name, getattr(self, name), **limits)
        _validate.scalar("tail", self.tail)
        if not isinstance(self.shares, tuple) or len(self.shares) != 3:
            raise ValueError(f"`shares` must be a tuple of three numbers, got {self.shares!r}.")
        for share in self.shares:
            _validate.scalar("shares", share, low=0, high=1, open_low=True, open_high=True)
        if math.fsum(self.shares) > 1 + 1e-12:
            raise ValueError(f"`shares` must sum to at most 1, got {math.fsum(self.shares):g}.")

    def values(self, name: str) -> Float[np.ndarray, " values"]:
        """The values of a range, increasing.

        **Arguments:**

        - `name`: `"linear"` or `"nonlinear"`.

        **Returns:**

        `(values,)`; the last is at least the declared highest.

        **Raises:**

        `ValueError` if `name` is not one of these.
        """
        limits = getattr(self, _validate.member("name", name, _RANGES))
        return range_values(limits, slack=1e-9)

    def log_cells(self, families: int = 1, anchors: int = 1) -> float:
        """$\\ln K$, the patterns of signs apart.

        **Arguments:**

        - `families`: the number of metrics times that of shapes.
        - `anchors`: the number of anchors.

        **Returns:**

        The logarithm of the number of cells.
        """
        lists = ("kappas", "kappas_nonlinear", "levels", "bumps", "margins")
        counts = [len(self.values(name)) for name in _RANGES]
        counts += [len(getattr(self, name)) for name in lists]
        return math.fsum(math.log(count) for count in (*counts, 2, families, anchors))


def log_pattern_cost(width: int) -> Float[np.ndarray, "..."]:
    """What a pattern of signs that differs from the anchor's in j of `width` places costs, by j:
    $\\ln((j+1)(j+2)\\binom{\\text{width}}{j})$, as $\\sum_j \\frac1{(j+1)(j+2)} \\le 1$.

    **Arguments:**

    - `width`: the number of units.

    **Returns:**

    Nats, `(width + 1,)`.
    """
    j = np.arange(width + 1)
    table = [math.lgamma(width + 1) - math.lgamma(i + 1) - math.lgamma(width - i + 1) for i in j]
    return np.log((j + 1.0) * (j + 2.0)) + np.maximum(table, 0.0)
