"""The arguments of Theorem 5.2 at the door."""

from collections.abc import Callable, Mapping
from typing import Any

from .._numbers import options
from .._settings import Arguments

ARGUMENTS = options(Arguments)
# What may be an array, and what chooses the formula.
NUMBERS = tuple(name for name, option in ARGUMENTS.items() if option.type is float)
CHOICES = tuple(name for name in ARGUMENTS if name not in NUMBERS)


def given_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers among `given`, without a train risk of `None`."""
    left = [n for n in NUMBERS if given[n] is not None or not ARGUMENTS[n].optional]
    return {name: given[name] for name in left}


def check_arguments(
    given: Mapping[str, Any], number: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers among `given`, each by `number(name, value, **limits)`, and the choices."""
    choices = {name: ARGUMENTS[name].check(name, given[name]) for name in CHOICES}
    if choices["reading"] == "printed" and not choices["assumption_5_1"]:
        raise ValueError(
            "`assumption_5_1` must be True with reading='printed', got False; "
            "the printed theorem needs it."
        )
    numbers = given_numbers(given).items()
    return {name: number(name, value, **ARGUMENTS[name].limits) for name, value in numbers}, choices
