"""A number is declared once, as the field of a dataclass: its default, range, unit and meaning.

From there the dataclass checks it, the command makes an option of it and a sweep an axis. Nothing
here imports JAX or NumPy before a value is checked: the command's help is made of declarations.
"""

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

# How a number enters an ensemble: "outer" ones change shapes or code, "lane" ones are numbers of
# a flow, "after" ones enter the bounds alone and share the flow, "fixed" ones are the same in all.
Kind = Literal["outer", "lane", "after", "fixed"]


@dataclasses.dataclass(frozen=True)
class Option:
    """What a value may be and what it means; `type` and `optional` are those of the annotation.

    An option without `help` is none of the command's.
    """

    default: Any
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    words: tuple[Any, ...] = ()
    unit: str = "1"
    help: str = ""
    kind: Kind = "outer"
    type: Any = float
    optional: bool = False

    @property
    def limits(self) -> dict[str, Any]:
        """The interval as the functions of `_validate` take it."""
        ends = {"open_low": self.open_low, "open_high": self.open_high}
        return {"low": self.low, "high": self.high, **ends}

    def check(self, name: str, value: Any) -> Any:
        """`value` in the type declared, or a `ValueError` of one line that calls it `name`."""
        from . import _validate  # JAX comes with it, which the command's help does without

        if self.words:
            return _validate.member(name, value, self.words)
        if self.type is bool:
            return _validate.flag(name, value)
        if self.type is int:
            low = int(max(self.low, -_validate.LARGEST))
            high = None if math.isinf(self.high) else int(self.high)
            return _validate.integer(name, value, low, high)
        if self.type is float:
            return _validate.scalar(name, value, **self.limits)
        shown = _validate.shown(value)
        if self.type is tuple:
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ValueError(f"`{name}` must be a list of numbers, got {shown}.")
            if not value:
                raise ValueError(f"`{name}` must have at least one number, got none.")
            return tuple(_validate.scalar(name, one, **self.limits) for one in value)
        text = str | os.PathLike if self.type is Path else str
        if not isinstance(value, text) or not str(value):
            raise ValueError(f"`{name}` must be a text, got {shown}.")
        return str(value)


def field(default: Any, **facts: Any) -> Any:
    """A field of a dataclass with this default, declared by the other fields of an `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(default, **facts)})


def like(cls: type, name: str, **changes: Any) -> Any:
    """A field that is the same number as the field `name` of another dataclass."""
    option = dataclasses.replace(options(cls)[name], **changes)
    return dataclasses.field(default=option.default, metadata={"option": option})


@functools.cache
def options(cls: type) -> Mapping[str, Option]:
    """The options that a dataclass declares, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    found = {}
    for one in dataclasses.fields(cls):
        kind, words, optional = _read(hints[one.name])
        option: Option = one.metadata["option"]
        words = option.words or words
        found[one.name] = dataclasses.replace(option, type=kind, words=words, optional=optional)
    return types.MappingProxyType(found)


def _read(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """The type that an annotation asks for, its words, and whether it may be `None`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return str, args, False
    if origin in (typing.Union, types.UnionType):
        return *_read(args[0])[:2], type(None) in args
    return origin or hint, (), False


def check_fields(instance: Any) -> None:
    """Check every field of a dataclass as it is declared; `None` where the annotation has it."""
    for name, option in options(type(instance)).items():
        value = getattr(instance, name)
        if value is not None or not option.optional:
            option.check(name, value)


def check_unused(instance: Any, names: Sequence[str], but_with: str) -> None:
    """Refuse what was set and would be of no effect: fields that matter `but_with` something."""
    for name in names:
        value = getattr(instance, name)
        if value != options(type(instance))[name].default:
            raise ValueError(f"`{name}` must be left out unless {but_with}, got {value!r}.")
