"""`nlbound bound`."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._numbers import options
from .._settings import Arguments
from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import Texts, declared

if TYPE_CHECKING:
    import xarray as xr

_ROWS = 60


def parse(name: str, text: str) -> float | list[float]:
    """A number, `1,3,10`, or `start:stop:num` with an optional `:log`."""
    import numpy as np

    message = f"`{name}` must be a number, a list 1,3,10 or a range start:stop:num[:log], got"
    parts = text.split(":")
    try:
        if len(parts) == 1:
            values = [float(v) for v in text.split(",")]
            return values if "," in text else values[0]
        start, stop, num = float(parts[0]), float(parts[1]), int(parts[2])
        space = {"": np.linspace, "log": np.geomspace}[":".join(parts[3:])]
        if num < 1 or (space is np.geomspace and min(start, stop) <= 0):
            raise ValueError
        return space(start, stop, num).tolist()
    except (ValueError, KeyError, IndexError, OverflowError):
        raise ValueError(f"{message} {text!r}.") from None


@declared
def bound(
    given: Annotated[dict[str, Any], Texts(Arguments)],
    certified: Annotated[
        bool, typer.Option("--certified", help="Enclosures by ball arithmetic (one cell).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write a Zarr store instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate Theorem 5.2 for given numbers, or over ranges of them; no data needed."""
    from rich.console import Console

    from .. import bounds

    set_up_jax()
    with one_line_errors():
        given = {name: _value(name, value) for name, value in given.items() if value is not None}
        ranges = [name for name, value in given.items() if isinstance(value, list)]
        if out is not None and out.exists():
            raise ValueError(f"`out` must be a path that does not exist yet, got {str(out)!r}.")
        if certified:
            if ranges or out is not None:
                raise ValueError(f"`certified` must go with single numbers, got {ranges or 'out'}.")
            enclosed = dataclasses.asdict(bounds.certified_theorem_5_2(**given))
            typer.echo(
                json.dumps(_finite(enclosed), allow_nan=False) if as_json else _lines(enclosed)
            )
            return
        dataset = bounds.grid(**given)
        if out is None and not as_json and dataset["penalty"].size > _ROWS:
            raise ValueError(
                f"`out` must be given for more than {_ROWS} cells, got {dataset['penalty'].size}."
            )
        if out is not None:
            _write(dataset, out)
            return
    if as_json:
        typer.echo(json.dumps(_finite(dataset.to_dict()), allow_nan=False))
    else:
        Console(width=max(120, Console().width)).print(_table(dataset))


def _value(name: str, value: Any) -> Any:
    return parse(name, value) if options(Arguments)[name].type is float else value


def _finite(value: Any) -> Any:
    """`value` as JSON, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def _lines(enclosed: dict[str, Any]) -> str:
    """One line a term, lower and upper end with all their digits."""
    rows = []
    for name, value in enclosed.items():
        if value is not None:
            text = value if isinstance(value, str) else f"[{value[0]!r}, {value[1]!r}]"
            rows.append(f"{name:10} {text}")
    return "\n".join(rows)


def _table(dataset: "xr.Dataset"):
    from rich.table import Table

    axes = [str(d) for d in dataset.dims]
    terms = [v for v in ("u", "log_v", "capacity", "deviation", "penalty", "value") if v in dataset]
    grid = Table(title=", ".join(f"{k} = {v}" for k, v in dataset.attrs.items()))
    for name in [*axes, *terms, "result"]:
        grid.add_column(name, justify="right")
    words = dataset["result"].attrs["flag_meanings"].split()
    flat = dataset.stack(cell=axes).transpose("cell", ...) if axes else dataset.expand_dims("cell")
    for i in range(flat.sizes["cell"]):
        row = flat.isel(cell=i)
        numbers = [f"{float(row[name]):.5g}" for name in [*axes, *terms]]
        grid.add_row(*numbers, words[int(row["result"])])
    return grid


def _write(dataset: "xr.Dataset", out: Path) -> None:
    from .._writing import writable
    from ..figures import save_data

    with writable("out", "path", out):
        save_data(dataset, out)
