"""Geometric ranges and lists of numbers, which grids of cells are declared by."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from .. import _validate


def check_range(name: str, given: Any, **lowest: Any) -> None:
    """Raise unless `given` is a geometric range, with these limits on its lowest value."""
    if not isinstance(given, tuple) or len(given) != 3:
        raise ValueError(f"`{name}` must be a tuple (low, high, ratio), got {given!r}.")
    low, high, ratio = given
    _validate.scalar(name, low, **lowest)
    _validate.scalar(name, high, low=low)
    _validate.scalar(name, ratio, low=1, open_low=True)


def check_list(name: str, given: Any, **limits: Any) -> None:
    """Raise unless `given` is a tuple of numbers within the limits."""
    if not isinstance(given, tuple) or not given:  # a list could not be hashed
        raise ValueError(f"`{name}` must be a tuple of at least one number, got {given!r}.")
    for value in given:
        _validate.scalar(name, value, **limits)


def range_values(
    limits: tuple[float, float, float], slack: float = 0.0
) -> Float[np.ndarray, " values"]:
    """The values of a range (low, high, ratio), increasing; the last is at least `high`. Steps that
    miss it by less than `slack` are not made."""
    low, high, ratio = limits
    count = 1 + max(0, math.ceil(math.log(high / low) / math.log(ratio) - slack))
    values = low * ratio ** np.arange(count)
    values[-1] = max(values[-1], high)  # rounding may leave it below
    return values
