"""The options that a sweep may hold fixed or vary, and how each one enters the work."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from .. import _validate
from ..bounds import grid
from ..report import Settings

# How an option enters: "outer" ones change shapes or code, "lane" ones are numbers of a flow,
# "after" ones enter the bounds alone and share the flow, "fixed" ones cannot be an axis.
Kind = Literal["outer", "lane", "after", "fixed"]
DEFAULT_CHUNK = {"report": 16, "theory": 65_536}


class Option(NamedTuple):
    """An option: how it enters, its default, its unit, and whether its values are integers."""

    kind: Kind
    default: Any
    unit: str = "1"
    whole: bool = False


_UNITS = {
    "epsilon": "1 - negative slope",
    "beta": "spectral norm",
    "width": "units of a hidden layer",
    "depth": "weight matrices",
    "delta": "probability",
    "precision_bits": "bits",
    "end_time": "gradient-flow time",
    "t": "gradient-flow time",
    "until": "fraction of the strongest mode",
    "max_steps": "solver steps",
    "side": "pixels",
    "components": "principal directions",
    "norm_bound": "norm of an input",
    "gamma": "margin",
    "dim": "coordinates",
    "num_samples": "samples",
    "cells": "cells",
    "train_risk": "probability",
}
_WHOLE = {"width", "depth", "kappa", "precision_bits", "seed", "max_steps", "side", "components"}
_LANE = {"epsilon", "beta", "init", "seed", "until", "end_time", "rtol"}
_AFTER = {"kappa", "delta", "precision_bits"}
_FIXED = {"ratios", "num_times", "data_dir"}
_WORDS = {
    "init": ("default", "rank-one"),
    "dynamics": ("flow", "gd"),
    "dtype": ("float32", "float64"),
}
DATA = ("dataset", "side", "components", "positive", "norm_bound", "data_dir")


def _kind(name: str) -> Kind:
    if name in _LANE:
        return "lane"
    if name in _AFTER:
        return "after"
    return "fixed" if name in _FIXED else "outer"


def _report_options() -> dict[str, Option]:
    defaults: dict[str, Any] = {"dataset": "mnist"} | {name: None for name in DATA[1:]}
    defaults |= {f.name: f.default for f in dataclasses.fields(Settings)}
    return {
        name: Option(_kind(name), default, _UNITS.get(name, "1"), name in _WHOLE)
        for name, default in defaults.items()
    }


# Of Theorem 5.2 as `nlbound bound` has them; t and gamma must be given.
_NUMBERS = {
    "t": (None, {"low": 0}),
    "epsilon": (0.001, {"low": 0, "high": 1}),
    "beta": (0.001, {"low": 0, "open_low": True}),
    "gamma": (None, {"low": 0, "open_low": True}),
    "stable_rank_root": (1.0, {"low": 1}),
    "alignment": (0.633, {"low": 0, "high": 1}),
    "dim": (49.0, {"low": 1}),
    "num_samples": (60000.0, {"low": 1}),
    "precision_bits": (32.0, {"low": 1}),
    "delta": (0.01, {"low": 0, "high": 1, "open_low": True, "open_high": True}),
    "cells": (1.0, {"low": 1}),
    "train_risk": (None, {"low": 0, "high": 1}),
}


def _theory_options() -> dict[str, Option]:
    found = {n: Option("lane", default, _UNITS.get(n, "1")) for n, (default, _) in _NUMBERS.items()}
    signature = inspect.signature(grid).parameters
    codes = {"depth": 2} | {n: signature[n].default for n in ("kappa", "reading", "assumption_5_1")}
    return found | {
        n: Option("outer", default, _UNITS.get(n, "1"), n in _WHOLE) for n, default in codes.items()
    }


REPORT = _report_options()
THEORY = _theory_options()


def options_of(mode: str) -> dict[str, Option]:
    """The options of a mode."""
    return REPORT if mode == "report" else THEORY


def check_setting(label: str, name: str, value: Any, mode: str) -> Any:
    """`value` as the library takes it, or one line that calls it `label`."""
    try:
        if mode == "theory":
            return _theory(name, value)
        return _data(name, value) if name in DATA else _report(name, value)
    except ValueError as error:
        raise ValueError(relabel(str(error), {name: label})) from None


def _theory(name: str, value: Any) -> Any:
    if name in _NUMBERS:
        return _validate.scalar(name, value, **_NUMBERS[name][1])
    if name == "assumption_5_1":
        return _validate.flag(name, value)
    if name == "depth":
        return _validate.integer(name, value, 2)
    allowed = (1, 2) if name == "kappa" else ("printed", "repaired")
    return _validate.member(name, value, allowed)


def _report(name: str, value: Any) -> Any:
    default = getattr(Settings, name, None)
    if name == "ratios":
        if not isinstance(value, list | tuple):
            raise ValueError(f"`ratios` must be a list of numbers, got {_validate.shown(value)}.")
        value = tuple(_validate.scalar(name, v) for v in value)
    elif isinstance(default, float) or name == "end_time":
        value = _validate.scalar(name, value)
    elif name in _WORDS:
        value = _validate.member(name, value, _WORDS[name])
    Settings(**{name: value})
    return int(value) if isinstance(default, int) else value


def _data(name: str, value: Any) -> Any:
    if name in ("side", "components"):
        return _validate.integer(name, value, 1)
    if name == "norm_bound":
        return _validate.scalar(name, value, low=0, open_low=True)
    if name == "positive" and isinstance(value, list) and value:
        value = ",".join(str(v) for v in value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{name}` must be a text, got {_validate.shown(value)}.")
    return value


def relabel(message: str, labels: Mapping[str, str]) -> str:
    """A message about `name` that calls it by its place in the configuration."""
    for name, label in labels.items():
        if message.startswith(f"`{name}`"):
            return f"`{label}`" + message[len(name) + 2 :]
    return message
