"""What a sweep is over: a TOML file or a mapping, every entry checked before any work."""

import dataclasses
import itertools
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import _validate
from .._naming import naming
from .._numbers import Option
from ..report import Settings, check_start
from ._options import DEFAULT_CHUNK, check_setting, options_of

KEEP = ("trajectory", "bounds", "checks")
MODES = ("report", "theory")
SCALES = ("linear", "log")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A sweep: every combination of the values of its axes, at fixed settings.

    **Attributes:**

    - `axes`: the values of every axis, a tuple, in the order of the dimensions of the result;
        given as a list or as `{"start": ..., "stop": ..., "num": ..., "scale": "log"}`.
    - `settings`: the options that are the same everywhere; what is not given has the default of
        the report (of [`grid`][] with `mode="theory"`).
    - `mode`: `"report"`: networks are trained and the bounds evaluated along the way, but for those
        around an anchor (it would be two more flows a lane; `report` has them);
        `"theory"`: Theorem 5.2 alone, for numbers, nothing trained.
    - `keep`: what is kept of a report: out of `"trajectory"` (risks over time), `"bounds"` and
        `"checks"` (the smallest slack of every claimed inequality: two more flows in float64).
    - `chunk`: the largest number of flows in a piece of work (of cells with `mode="theory"`).

    **Raises:**

    `ValueError` naming the entry, such as `axes.epsilon`.
    """

    axes: Mapping[str, Any]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mode: str = "report"
    keep: Sequence[str] = ("trajectory", "bounds")
    chunk: Any = None

    def __post_init__(self):
        _validate.member("compute.mode", self.mode, MODES)
        axes = {name: _axis(name, values, self.mode) for name, values in self.axes.items()}
        if not axes:
            raise ValueError("`axes` must have at least one entry, got none.")
        settings = {name: _setting(name, v, self.mode) for name, v in self.settings.items()}
        for name in axes:
            if name in settings:
                raise ValueError(f"`settings.{name}` must be left out with `axes.{name}`.")
        if self.mode == "theory":
            missing = [n for n in ("t", "gamma") if n not in axes and n not in settings]
            if missing:
                raise ValueError(f"`settings.{missing[0]}` must be given, or `axes.{missing[0]}`.")
        chunk = DEFAULT_CHUNK[self.mode] if self.chunk is None else self.chunk
        _validate.integer("compute.chunk", chunk, 1)
        keep = self.keep
        if isinstance(keep, str) or not isinstance(keep, list | tuple) or not keep:
            raise ValueError(f"`compute.keep` must be a list out of {', '.join(KEEP)}.")
        for one in keep:
            _validate.member("compute.keep", one, KEEP)
        if self.mode == "report":
            _check_starts(axes, settings)
        changes = {"axes": axes, "settings": settings, "chunk": int(chunk)}
        changes["keep"] = tuple(k for k in KEEP if k in keep)
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    @classmethod
    def load(
        cls, source: "str | os.PathLike[str] | Mapping[str, Any] | SweepConfig"
    ) -> "SweepConfig":
        """A configuration out of a TOML file or of a mapping of the same layout.

        **Arguments:**

        - `source`: the path of the file, a mapping with the tables `axes`, `settings` and
            `compute`, or a [`SweepConfig`][], which is returned as it is.

        **Returns:**

        A [`SweepConfig`][].

        **Raises:**

        `ValueError` naming the entry.
        """
        if isinstance(source, SweepConfig):
            return source
        tables = source if isinstance(source, Mapping) else _read(_validate.path("config", source))
        for name, table in tables.items():
            _validate.member("config", name, ("axes", "settings", "compute"))
            if not isinstance(table, Mapping):
                raise ValueError(f"`{name}` must be a table, got {_validate.shown(table)}.")
        compute = dict(tables.get("compute", {}))
        for name in compute:
            if name not in ("mode", "keep", "chunk"):
                raise ValueError(f"`compute.{name}` must be one of mode, keep, chunk.")
        return cls(dict(tables.get("axes", {})), dict(tables.get("settings", {})), **compute)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of every axis."""
        return tuple(len(values) for values in self.axes.values())

    def options(self, index: Mapping[str, int]) -> dict[str, Any]:
        """The options at one place.

        **Arguments:**

        - `index`: for every axis the index of its value.

        **Returns:**

        The settings that were given and the values of the axes, by name.
        """
        return dict(self.settings) | {name: self.axes[name][i] for name, i in index.items()}

    def as_dict(self) -> dict[str, Any]:
        """The configuration as JSON values, defaults written out."""
        options = options_of(self.mode)
        defaults = {n: o.default for n, o in options.items() if n not in self.axes}
        full = defaults | dict(self.settings)
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in full.items()}
        compute: dict[str, Any] = {"mode": self.mode, "chunk": self.chunk}
        if self.mode == "report":
            compute["keep"] = list(self.keep)
        axes = {name: list(values) for name, values in self.axes.items()}
        return {"axes": axes, "settings": plain, "compute": compute}

    def report_settings(self, options: Mapping[str, Any]) -> Settings:
        """The settings of a report among the options of a place.

        **Arguments:**

        - `options`: out of [`options`][].

        **Returns:**

        A [`Settings`][].
        """
        names = [f.name for f in dataclasses.fields(Settings)]
        return Settings(**{n: options[n] for n in names if n in options})


def _check_starts(axes: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse numbers that the dtype of a training cannot hold, before any work."""
    # What is checked together: long axes of both times are not multiplied.
    steps = ("dynamics", "step_size", "momentum", "nesterov", "dtype")
    for names in (("beta", "depth", "dtype"), ("end_time", "dtype", "num_times"), steps):
        fixed = {n: settings[n] for n in names if n in settings}
        varied = [n for n in names if n in axes]
        where = {n: f"{'axes' if n in axes else 'settings'}.{n}" for n in names}
        for values in itertools.product(*(axes[n] for n in varied)):
            with naming(**where):
                check_start(Settings(**fixed, **dict(zip(varied, values, strict=True))))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = f"no TOML: {error}".rstrip(".")
    raise ValueError(f"`config` must be a TOML file, got {str(path)!r}: {reason}.")


def _option(table: str, name: str, mode: str) -> Option:
    options, other = options_of(mode), next(m for m in MODES if m != mode)
    if name in options:
        return options[name]
    if name in options_of(other):
        raise ValueError(f'`{table}.{name}` must be left out unless `compute.mode = "{other}"`.')
    raise ValueError(f"`{table}.{name}` must be one of {', '.join(options)}.")


def _setting(name: str, value: Any, mode: str) -> Any:
    _option("settings", name, mode)
    return check_setting(f"settings.{name}", name, value, mode)


def _axis(name: str, values: Any, mode: str) -> tuple[Any, ...]:
    """The values of an axis: a list, or `{start, stop, num, scale}`."""
    option = _option("axes", name, mode)
    label = f"axes.{name}"
    if option.kind == "fixed":
        raise ValueError(f"`{label}` must be left out: give `settings.{name}`.")
    if isinstance(values, Mapping):
        values = _range(label, values)
        if option.type is int:
            if any(v != round(v) for v in values):
                raise ValueError(f"`{label}` must have integers, got {_validate.shown(values)}.")
            values = [round(v) for v in values]
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(
            f"`{label}` must be a list of values or {{start, stop, num, scale}}, "
            f"got {_validate.shown(values)}."
        )
    checked = tuple(check_setting(label, name, v, mode) for v in values)
    if len(set(checked)) < len(checked):
        twice = next(v for v in checked if checked.count(v) > 1)
        raise ValueError(f"`{label}` must have every value once, got {twice!r} twice.")
    return checked


def _range(label: str, table: Mapping[str, Any]) -> list[float]:
    for key in table:
        if key not in ("start", "stop", "num", "scale"):
            raise ValueError(f"`{label}` must be {{start, stop, num, scale}}, got the key {key!r}.")
    for key in ("start", "stop", "num"):
        if key not in table:
            raise ValueError(f"`{label}.{key}` must be given.")
    scale = _validate.member(f"{label}.scale", table.get("scale", "linear"), SCALES)
    num = _validate.integer(f"{label}.num", table["num"], 1)
    start = _validate.scalar(f"{label}.start", table["start"])
    stop = _validate.scalar(f"{label}.stop", table["stop"])
    if scale == "log" and min(start, stop) <= 0:
        raise ValueError(f"`{label}` must have a positive start and stop with scale log.")
    values = (np.geomspace if scale == "log" else np.linspace)(start, stop, num)
    return [float(v) for v in values]
