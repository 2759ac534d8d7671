"""Why a result is what it is."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Diffrax's outcomes and those of a bound. A bound that cannot be given is `+inf` with the
    member that says why; `RESULTS[member]` is the sentence a user reads."""

    blow_up = (
        "t is at or past the time at which the bound on the weight norms blows up, so there is "
        "no bound; take a smaller t or beta."
    )
    diverged = "Training diverged: the weights are not finite; take a smaller step size."
    overflow = "The bound exceeds the largest double: it says nothing."


def _over_axes(one: Callable[..., RESULTS], count: int) -> Callable[..., RESULTS]:
    """A function of numbers as one of arrays of `count` axes: a result has none of its own."""
    for _ in range(count):
        one = jax.vmap(one)
    return one


def where(flag: Bool[Array, "*shape"], if_true: Any, if_false: Any) -> RESULTS:
    """`RESULTS.where` for an array of flags: the outcome has the shape of `flag`."""

    return _over_axes(lambda one: RESULTS.where(one, if_true, if_false), flag.ndim)(flag)


def explained(result: RESULTS, value: Float[Array, "*shape"]) -> RESULTS:
    """`result`, of the shape of `value`, and `overflow` where it says nothing of a value that is
    not finite."""

    def one(result, value):
        silent = (result == RESULTS.successful) & ~jnp.isfinite(value)
        return RESULTS.where(silent, RESULTS.overflow, result)

    return _over_axes(one, value.ndim)(result, value)


# How a cell of a grid of bounds may end; the place of one is its number in an array.
CELL_OUTCOMES = ("successful", "blow_up", "overflow")


def cell_flags(result: RESULTS) -> np.ndarray:
    """The places in `CELL_OUTCOMES` of an array of results."""
    found = [np.asarray(result == getattr(RESULTS, name)) for name in CELL_OUTCOMES]
    return np.asarray(np.argmax(found, axis=0), np.int8)


def outcome_names() -> tuple[str, ...]:
    """The names of all outcomes; the place of one is its number in an array."""
    return tuple(RESULTS._name_to_item)


def outcome_name(result: RESULTS) -> str:
    """The name of a concrete outcome, such as `blow_up`; `RESULTS[result]` is its sentence."""
    return outcome_names()[int(result._value)]  # pyright: ignore


def outcome(result: RESULTS) -> str:
    """`"successful"`, or the sentence that says what happened."""
    return "successful" if result == RESULTS.successful else RESULTS[result].strip()
