"""Checks of what describes the network that is bounded."""

import numpy as np
from jaxtyping import Array, Float

from ... import _validate
from ..._types import Weights


def check_weights(name: str, weights: Weights) -> Weights:
    """`weights` in the default dtype, at least two finite matrices that end in one output."""
    _validate.chain(name, [np.shape(w) for w in weights])
    return tuple(_validate.real(name, w) for w in weights)


def check_reference(name: str, reference: Weights | None, weights: Weights) -> Weights | None:
    """`reference`, checked to have the shapes of `weights`."""
    if reference is None:
        return None
    reference = check_weights(name, reference)
    if [w.shape for w in reference] != [w.shape for w in weights]:
        raise ValueError(
            f"`{name}` must have the shapes of `weights`, {[w.shape for w in weights]}, "
            f"got {[w.shape for w in reference]}."
        )
    return reference


def check_margins(margins) -> Float[Array, " m"]:
    """`margins` in the default dtype, a non-empty vector of finite numbers."""
    if np.ndim(margins) != 1 or not np.shape(margins)[0]:
        raise ValueError(f"`margins` must have shape (m,), m >= 1, got {np.shape(margins)}.")
    return _validate.real("margins", margins)


def check_delta(delta) -> Float[Array, ""]:
    """`delta` as a scalar array in (0, 1)."""
    return _validate.number("delta", delta, 0, 1, open_low=True, open_high=True)


def check_widths(widths) -> tuple[int, ...]:
    """`widths` as at least three positive integers, the last one 1."""
    widths = tuple(_validate.integer("widths", k, 1) for k in widths)
    if len(widths) < 3 or widths[-1] != 1:
        raise ValueError(
            f"`widths` must be at least three, (d, k_1, ..., k_L) with k_L = 1, got {widths}."
        )
    return widths


def check_data(x, y) -> tuple[Float[Array, "m d"], Float[Array, " m"]]:
    """Inputs `(m d)` and labels `(m,)` in {-1, +1}, in the default dtype."""
    if np.ndim(x) != 2 or not np.size(x):
        raise ValueError(f"`x` must have shape (samples, features), got {np.shape(x)}.")
    if np.shape(y) != np.shape(x)[:1]:
        raise ValueError(f"`y` must have shape ({np.shape(x)[0]},), got {np.shape(y)}.")
    if not _validate.is_traced(y) and not np.isin(np.asarray(y), (-1, 1)).all():
        raise ValueError("`y` must be -1 or +1 in every entry.")
    return _validate.real("x", x), _validate.real("y", y)
