"""Options that several subcommands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Init(StrEnum):
    default = "default"
    rank_one = "rank-one"


Dataset = Annotated[
    str, typer.Option(help="The data: mnist, tfds:NAME (prepared already) or FILE.npz.")
]
Side = Annotated[
    int | None,
    typer.Option(help="Pixels to which images are pooled: 7 (default), 14 or 28 for mnist."),
]
Components = Annotated[
    int | None, typer.Option(help="Keep that many principal directions.", show_default=False)
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the prepared data sets, for tfds.")]
Positive = Annotated[
    str | None,
    typer.Option(
        help="Classes labelled +1, as 5,6,7 or names; by default the upper half of them.",
        show_default=False,
    ),
]
NormBound = Annotated[
    float | None,
    typer.Option(help="A norm no input can exceed, known beforehand, for an .npz file."),
]
Width = Annotated[int, typer.Option(help="Units of a hidden layer.")]
Depth = Annotated[int, typer.Option(help="Number of weight matrices L.")]
Epsilon = Annotated[float, typer.Option(help="1 - negative slope: 0 linear, 1 ReLU.")]
Beta = Annotated[float, typer.Option(help="Spectral norm of each layer at the start.")]
InitKind = Annotated[Init, typer.Option(help="Initialization of the input layer.")]
Delta = Annotated[float, typer.Option(help="1 - confidence.")]
Seed = Annotated[int, typer.Option(help="Seed of the initialization.")]
Until = Annotated[
    float, typer.Option(help="Train until this fraction of the strongest mode is learned.")
]
EndTime = Annotated[float | None, typer.Option(help="Train until this time instead of --until.")]
