"""`nlbound figure`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._errors import one_line_errors
from ._report import Init


class Name(StrEnum):
    ladder = "ladder"


def figure(
    name: Annotated[Name, typer.Argument(help="ladder: every bound against epsilon.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.png and its data, NAME.zarr.")] = Path(
        "out"
    ),
    side: Annotated[int, typer.Option(help="Pixels of the pooled images: 7, 14 or 28.")] = 7,
    width: Annotated[int, typer.Option(help="Units of a hidden layer.")] = 64,
    depth: Annotated[int, typer.Option(help="Number of weight matrices L.")] = 2,
    beta: Annotated[float, typer.Option(help="Spectral norm of each layer at the start.")] = 0.001,
    init: Annotated[Init, typer.Option(help="Initialization of the input layer.")] = Init.default,
    seed: Annotated[int, typer.Option(help="Seed of the initialization.")] = 0,
    points: Annotated[int, typer.Option(help="Slopes from 0.001 to 1, geometric.")] = 13,
) -> None:
    """Draw a figure and save its data."""
    import jax
    import numpy as np

    from .. import _validate, figures, tasks
    from ..report import Settings, prepare_folder

    jax.config.update("jax_enable_x64", True)
    with one_line_errors():
        points = _validate.integer("points", points, 1)
        settings = Settings(
            width=width, depth=depth, beta=beta, init=init.value, seed=seed, epsilon=0.0
        )
        folder = prepare_folder(out)
        data = figures.ladder(
            tasks.mnist(side),
            settings,
            epsilons=np.geomspace(1e-3, 1.0, points).tolist(),
            progress=lambda epsilon: typer.echo(f"epsilon = {epsilon:.4g}", err=True),
        )
    # Format 2 has a settled way to hold the names of the bounds.
    data.to_zarr(folder / f"{name.value}.zarr", mode="w", zarr_format=2)
    figures.plot_ladder(data).savefig(folder / f"{name.value}.png", dpi=120)
    typer.echo(f"{folder / name.value}.png")
