"""Options of the command, made of what is declared in `_settings`."""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Annotated, Any, NamedTuple

import typer

from .._numbers import Option, options
from ._errors import called, one_line_errors

# What makes a network and its training, of `Settings`.
TRAINING = ("width", "depth", "epsilon", "beta", "init", "seed", "until", "end_time")
_RANGE = "A number, a list 1,3,10 or a range start:stop:num[:log]."


class Only(NamedTuple):
    """Some fields of a dataclass, those of `required` without their defaults."""

    names: tuple[str, ...]
    required: tuple[str, ...] = ()


class Texts(NamedTuple):
    """The fields of `cls` as a dictionary, real numbers as texts that are still to be read."""

    cls: type


def declared(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with options in place of every parameter that is annotated as a dataclass (or
    with [`Only`][] or [`Texts`][]), which is then made of them."""
    makers: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        make, own = _read(parameter.annotation)
        if make is not None:
            makers[parameter.name] = make, [one.name for one in own]
        parameters += own or [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    def run(**given: Any) -> None:
        called.clear()
        called.update(_spellings(parameters))
        with one_line_errors():
            for name, (make, names) in makers.items():
                given[name] = make(**{one: _plain(given.pop(one)) for one in names})
        command(**given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    # Read by Typer; `functools.wraps` would lead it back to the parameters of `command`.
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


# Arguments of the library that no option has the name of, and the option that they come from.
_BEHIND = {"task": "dataset", "num_seeds": "seeds"}


def _spellings(parameters: list[inspect.Parameter]) -> dict[str, str]:
    """How a user writes each parameter of a command: `--end-time`, or `STORE` of an argument."""
    found = {}
    for parameter in parameters:
        infos = getattr(parameter.annotation, "__metadata__", (None,))
        name = parameter.name.replace("_", "-")
        flags = getattr(infos[0], "param_decls", None) or (f"--{name}",)
        argument = isinstance(infos[0], typer.models.ArgumentInfo)
        found[parameter.name] = parameter.name.upper() if argument else flags[0]
    return {n: found[o] for n, o in _BEHIND.items() if o in found} | found


def _read(annotation: Any) -> tuple[Callable[..., Any] | None, list[inspect.Parameter]]:
    """What an annotation makes and out of which options; nothing if it asks for no dataclass."""
    cls: Any = annotation
    facts: list[Any] = []
    if typing.get_origin(annotation) is Annotated:
        cls, *facts = typing.get_args(annotation)
    for fact in facts:
        if isinstance(fact, Texts):
            return dict, [_parameter(n, o, text=True) for n, o in options(fact.cls).items()]
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return None, []
    declared_options = {name: option for name, option in options(cls).items() if option.help}
    only = next((fact for fact in facts if isinstance(fact, Only)), Only(tuple(declared_options)))
    return cls, [
        _parameter(name, option, required=name in only.required)
        for name, option in declared_options.items()
        if name in only.names
    ]


def _parameter(
    name: str, option: Option, *, required: bool = False, text: bool = False
) -> inspect.Parameter:
    """The parameter that Typer makes the option `--name` of."""
    kind: Any = option.type
    default, told = option.default, option.help
    required = required or (default is None and not option.optional)
    if text and kind is float:
        kind, told = str, f"{told} {_RANGE}" if required else told
        default = None if default is None else f"{default:g}".replace("e-0", "e-")
    elif kind is str and option.words:
        kind = StrEnum(name, {word.replace("-", "_"): word for word in option.words})
        default = None if default is None else kind(default)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[kind | None if option.optional else kind, typer.Option(help=told)],
    )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
