"""`nlbound figure`."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._errors import one_line_errors


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
    all = "all"


def figure(
    name: Annotated[
        Name,
        typer.Argument(help="1 to 9 as in the paper; ladder: every bound against epsilon; or all."),
    ],
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
    seed: Annotated[int, typer.Option(help="Seed of the initialization.")] = 0,
    preset: Annotated[str, typer.Option(hidden=True)] = "full",
) -> None:
    """Draw a figure of the paper on real MNIST and save its data."""
    import jax

    from .. import figures
    from ..report import prepare_folder

    jax.config.update("jax_enable_x64", True)
    with one_line_errors():
        chosen = figures.Preset(
            name="quick" if quick else preset,  # pyright: ignore
            seed=seed,
            overlay=overlay,
            relative_gamma=relative_gamma,
        )
        folder = prepare_folder(out)
        for one in figures.NAMES if name.value == "all" else (name.value,):
            began = time.monotonic()
            typer.echo(f"{figures.title(one)} ...", err=True)
            path = figures.make(one, folder, chosen)
            typer.echo(f"{path} ({time.monotonic() - began:.0f} s)")
