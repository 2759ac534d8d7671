"""The options that a sweep may hold fixed or vary, as they are declared."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .._numbers import Option, options
from .._settings import Arguments, DataSpec, Settings

DEFAULT_CHUNK = {"report": 16, "theory": 65_536}
# Those that may be an axis come first.
DATA = tuple(sorted(options(DataSpec), key=lambda name: options(DataSpec)[name].kind == "fixed"))
REPORT = {name: options(DataSpec)[name] for name in DATA} | dict(options(Settings))
# Nothing is trained: every real number is one of a lane, and the rest chooses the formula.
THEORY = {
    name: dataclasses.replace(option, kind="lane" if option.type is float else "outer")
    for name, option in options(Arguments).items()
}


def options_of(mode: str) -> Mapping[str, Option]:
    """The options of a mode."""
    return REPORT if mode == "report" else THEORY


def check_setting(label: str, name: str, value: Any, mode: str) -> Any:
    """`value` as the library takes it, or one line that calls it `label`."""
    if name == "positive" and isinstance(value, list) and value:
        value = ",".join(str(v) for v in value)
    return options_of(mode)[name].check(label, value)
