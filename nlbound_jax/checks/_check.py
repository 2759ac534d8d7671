"""One inequality along a run, and all of them."""

import math
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import Float

from .. import _validate


class Check(eqx.Module):
    """An inequality, measured <= bound, over training time.

    **Attributes:**

    - `name`: a short name.
    - `equation`: what is bounded by what, and where it stands.
    - `claimed`: whether it is proved and must hold; if not it is printed in the paper, and may
        fail.
    - `ts`: times, `(times,)`.
    - `measured`, `bound`: both sides, `(times,)`; `bound` may be `+inf`.
    - `tolerance`: by how much the left side may be off numerically, `(times,)`.
    """

    name: str
    equation: str
    claimed: bool
    ts: Float[np.ndarray, " times"]
    measured: Float[np.ndarray, " times"]
    bound: Float[np.ndarray, " times"]
    tolerance: Float[np.ndarray, " times"]

    @property
    def slack(self) -> Float[np.ndarray, " times"]:
        """bound / measured, `(times,)`: at least 1 where it holds; `+inf` where `measured` is not
        positive."""
        measured = np.where(self.measured > 0, self.measured, 1.0)
        # A zero left side is no tighter than any other that is not positive.
        return np.where(self.measured > 0, self.bound / measured, math.inf)

    @property
    def holds(self) -> bool:
        """Whether it holds at every time, within the tolerance."""
        return bool(np.all(self.measured <= self.bound + self.tolerance))

    @property
    def tightest(self) -> int:
        """The index of the time of the smallest slack, or of the largest left side over the
        right where the bound is not positive."""
        if np.isfinite(self.slack).any():
            return int(np.argmin(self.slack))
        return int(np.argmax(np.where(np.isfinite(self.bound), self.measured - self.bound, -1e300)))

    def as_dict(self) -> dict[str, Any]:
        """The check at its tightest time, as JSON values; what is not finite is `None`."""
        i = self.tightest
        numbers = {"measured": self.measured, "bound": self.bound, "slack": self.slack}
        finite = {k: float(v[i]) if math.isfinite(v[i]) else None for k, v in numbers.items()}
        head = {"name": self.name, "equation": self.equation, "claimed": self.claimed}
        return {**head, **finite, "holds": self.holds, "t": float(self.ts[i])}


class Checks(eqx.Module):
    """All inequalities of a run.

    **Attributes:**

    - `checks`: a tuple of [`Check`][]s.
    - `crossings`: pairs of a sample and a hidden unit whose pre-activation has changed sign
        since t = 0, `(times,)`: where they cross, the three derivatives differ.
    - `gap`: $\\|\\cdot\\|_F$ between the frozen and the true derivative, `(times layers)`, or
        `None`.
    - `gap_error`: the estimated error of the true one, `(times layers)`, or `None`.
    """

    checks: tuple[Check, ...]
    crossings: np.ndarray
    gap: np.ndarray | None
    gap_error: np.ndarray | None

    def names(self) -> list[str]:
        """The names, in order."""
        return [check.name for check in self.checks]

    def __getitem__(self, name: str) -> Check:
        """The check of a name.

        **Arguments:**

        - `name`: out of [`names`][].

        **Returns:**

        A [`Check`][].

        **Raises:**

        `ValueError` if `name` is not one of these.
        """
        return self.checks[self.names().index(_validate.member("name", name, self.names()))]

    @property
    def hold(self) -> bool:
        """Whether every *claimed* inequality holds."""
        return all(check.holds for check in self.checks if check.claimed)

    def as_dict(self) -> dict[str, Any]:
        """`{"checks": [...]}`, every check at its tightest time, as JSON values."""
        return {"checks": [check.as_dict() for check in self.checks]}

    def to_xarray(self) -> xr.Dataset:
        """Both sides, slack and verdict of every check over time, labelled."""
        sides = ("measured", "bound", "slack")
        table = {key: np.stack([getattr(c, key) for c in self.checks]) for key in sides}
        return xr.Dataset(
            {
                **{key: (("check", "t"), value) for key, value in table.items()},
                "claimed": ("check", [c.claimed for c in self.checks]),
                "holds": ("check", [c.holds for c in self.checks]),
                "crossings": ("t", np.asarray(self.crossings)),
            },
            coords={
                "check": self.names(),
                "t": np.asarray(self.checks[0].ts),
                "equation": ("check", [c.equation for c in self.checks]),
            },
        )
