"""`nlbound bound`."""

import dataclasses
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._errors import one_line_errors
from ._jax import set_up_jax

if TYPE_CHECKING:
    import xarray as xr

_ROWS = 60
_RANGE = "A number, a list 1,3,10 or a range start:stop:num[:log]."


class Reading(StrEnum):
    printed = "printed"
    repaired = "repaired"


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


def bound(
    t: Annotated[str, typer.Option(help=f"Training time. {_RANGE}")],
    epsilon: Annotated[str, typer.Option(help="1 - negative slope.")] = "0.001",
    beta: Annotated[str, typer.Option(help="Spectral norm of each layer at the start.")] = "0.001",
    gamma: Annotated[str, typer.Option(help="The margin.")] = "1e-6",
    stable_rank_root: Annotated[str, typer.Option(help="rho: ||W_1||_F / ||W_1||.")] = "1",
    alignment: Annotated[str, typer.Option(help="s: norm of the linear fit.")] = "0.633",
    dim: Annotated[str, typer.Option(help="d: whitened coordinates.")] = "49",
    num_samples: Annotated[str, typer.Option(help="m: training samples.")] = "60000",
    precision_bits: Annotated[str, typer.Option(help="p: bits of a number.")] = "32",
    delta: Annotated[str, typer.Option(help="1 - confidence.")] = "0.01",
    cells: Annotated[str, typer.Option(help="Cells to pay for.")] = "1",
    train_risk: Annotated[str | None, typer.Option(help="Margin risk, for the value.")] = None,
    depth: Annotated[int, typer.Option(help="Number of weight matrices L.")] = 2,
    kappa: Annotated[int, typer.Option(help="Proxy: 1 or 2.")] = 2,
    reading: Annotated[Reading, typer.Option(help="As printed, or repaired.")] = Reading.repaired,
    assumption: Annotated[
        bool, typer.Option("--assumption-5-1/--no-assumption-5-1", help="Rely on it or not.")
    ] = True,
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
    texts = {
        "t": t,
        "epsilon": epsilon,
        "beta": beta,
        "gamma": gamma,
        "stable_rank_root": stable_rank_root,
        "alignment": alignment,
        "dim": dim,
        "num_samples": num_samples,
        "precision_bits": precision_bits,
        "delta": delta,
        "cells": cells,
        "train_risk": train_risk,
    }
    settings: dict[str, Any] = {"depth": depth, "kappa": kappa, "reading": reading.value}
    settings["assumption_5_1"] = assumption
    with one_line_errors():
        numbers: dict[str, Any] = {k: parse(k, v) for k, v in texts.items() if v is not None}
        ranges = [name for name, value in numbers.items() if isinstance(value, list)]
        if out is not None and out.exists():
            raise ValueError(f"`out` must be a path that does not exist yet, got {str(out)!r}.")
        if certified:
            if ranges or out is not None:
                raise ValueError(f"`certified` must go with single numbers, got {ranges or 'out'}.")
            enclosed = dataclasses.asdict(bounds.certified_theorem_5_2(**numbers, **settings))
            typer.echo(
                json.dumps(_finite(enclosed), allow_nan=False) if as_json else _lines(enclosed)
            )
            return
        dataset = bounds.grid(**numbers, **settings)
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
    from ..figures import save_data

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_data(dataset, out)
    except OSError as error:
        raise ValueError(
            f"`out` must be a path that can be written, got {str(out)!r}: {error.strerror}."
        ) from None
