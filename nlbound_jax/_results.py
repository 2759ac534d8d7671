"""Why a result is what it is."""

from typing import Any

import diffrax
import jax
from jaxtyping import Array, Bool


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Diffrax's outcomes and those of a bound. A bound that cannot be given is `+inf` with the
    member that says why; `RESULTS[member]` is the sentence a user reads."""

    blow_up = (
        "t is at or past the time at which the bound on the weight norms blows up, so there is "
        "no bound; take a smaller t or beta."
    )
    diverged = "Gradient descent diverged: the weights are not finite; take a smaller step size."


def where(flag: Bool[Array, "*shape"], if_true: Any, if_false: Any) -> RESULTS:
    """`RESULTS.where` for an array of flags: the outcome has the shape of `flag`."""

    def choose(one):
        return RESULTS.where(one, if_true, if_false)

    for _ in range(flag.ndim):
        choose = jax.vmap(choose)
    return choose(flag)


def outcome_names() -> tuple[str, ...]:
    """The names of all outcomes; the place of one is its number in an array."""
    return tuple(RESULTS._name_to_item)


def outcome_name(result: RESULTS) -> str:
    """The name of a concrete outcome, such as `blow_up`; `RESULTS[result]` is its sentence."""
    return outcome_names()[int(result._value)]  # pyright: ignore


def outcome(result: RESULTS) -> str:
    """`"successful"`, or the sentence that says what happened."""
    return "successful" if result == RESULTS.successful else RESULTS[result].strip()
