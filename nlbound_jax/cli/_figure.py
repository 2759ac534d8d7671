"""`nlbound figure`."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .._settings import Settings
from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import Only, declared


class Reduce(StrEnum):
    mean = "mean"
    min = "min"
    max = "max"


class Name(StrEnum):
    one = "1"
    two = "2"
    three = "3"
    four = "4"
    five = "5"
    six = "6"
    seven = "7"
    eight = "8"
    nine = "9"
    ladder = "ladder"
    conv = "conv"
    heatmap = "heatmap"
    all = "all"


@declared
def figure(
    *,
    name: Annotated[
        Name,
        typer.Argument(
            help="1 to 9 as in the paper; ladder: every bound against epsilon; conv: a "
            "convolutional network of ten classes; all of these; or heatmap: two axes of STORE."
        ),
    ],
    store: Annotated[
        Path | None,
        typer.Argument(help="The store of a sweep or grid, for heatmap.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for figureN.png and its data.")] = Path("out"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer times and slopes.")] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Add the trajectory and split bounds (1 to 6).")
    ] = False,
    relative_gamma: Annotated[
        bool,
        typer.Option(
            "--relative-gamma", help="Margins relative to the reference network's outputs (1 to 6)."
        ),
    ] = False,
    settings: Annotated[Settings, Only(("seed",))],
    x: Annotated[str | None, typer.Option(help="The horizontal axis (heatmap).")] = None,
    y: Annotated[str | None, typer.Option(help="The vertical axis (heatmap).")] = None,
    variable: Annotated[
        str | None, typer.Option(help="What to draw (heatmap); value or penalty by default.")
    ] = None,
    bound: Annotated[
        str | None,
        typer.Option(help="Which bound (heatmap); by default the split bound a priori."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="axis=value, where to look along another axis (heatmap)."),
    ] = None,
    reduce: Annotated[
        Reduce, typer.Option(help="What to take over the axes that are left (heatmap).")
    ] = Reduce.mean,
    preset: Annotated[str, typer.Option(hidden=True)] = "full",
) -> None:
    """Draw a figure of the paper on real MNIST and save its data, or draw a sweep."""
    from .. import figures
    from ..report import prepare_folder

    set_up_jax()
    with one_line_errors():
        if name is Name.heatmap:
            options = {"variable": variable, "bound": bound, "reduce": reduce.value}
            typer.echo(_heatmap(store, x, y, out, _places(at or []), options))
            return
        if store is not None:
            raise ValueError(f"`store` must be left out with {name.value}, got {str(store)!r}.")
        chosen = figures.Preset(
            name="quick" if quick else preset,  # pyright: ignore
            seed=settings.seed,
            overlay=overlay,
            relative_gamma=relative_gamma,
        )
        folder = prepare_folder(out)
        for one in figures.NAMES if name.value == "all" else (name.value,):
            began = time.monotonic()
            typer.echo(f"{figures.title(one)} ...", err=True)
            path = figures.make(one, folder, chosen)
            typer.echo(f"{path} ({time.monotonic() - began:.0f} s)")


def _places(at: list[str]) -> dict[str, str]:
    places = {}
    for text in at:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ValueError(f"`at` must be axis=value, got {text!r}.")
        places[name] = value
    return places


def _heatmap(
    store: Path | None,
    x: str | None,
    y: str | None,
    out: Path,
    at: dict[str, str],
    options: dict[str, Any],
) -> Path:
    """Draw `heatmap.png` from a store."""
    import xarray as xr

    from .. import figures
    from .._files import write_png
    from ..report import prepare_folder

    if store is None or x is None or y is None:
        missing = "store" if store is None else "x" if x is None else "y"
        raise ValueError(f"`{missing}` must be given: nlbound figure heatmap STORE --x A --y B.")
    if not (store / ".zattrs").is_file():
        raise ValueError(f"`store` must be a Zarr store, got {str(store)!r}.")
    folder = prepare_folder(out)
    with xr.open_zarr(store, chunks=None) as data:
        drawn = figures.heatmap(data, x, y, at=at, **options)
    path = folder / "heatmap.png"
    write_png(path, drawn)
    return path
