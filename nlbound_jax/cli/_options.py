"""Options that several subcommands share, and the data they name."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..tasks import Task


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


def load_task(
    dataset: str,
    *,
    side: int | None = None,
    components: int | None = None,
    data_dir: Path | None = None,
    positive: str | None = None,
    norm_bound: float | None = None,
) -> "Task":
    """The task that `--dataset` names; one line for an option that it does not take."""
    from .. import tasks

    kind, _, name = dataset.partition(":")
    if dataset.endswith(".npz"):
        _refuse(dataset, side=side, data_dir=data_dir, positive=positive)
        return tasks.from_npz(dataset, norm_bound=norm_bound, components=components)
    if dataset == "mnist":
        _refuse(dataset, data_dir=data_dir, norm_bound=norm_bound)
        digits = (5, 6, 7, 8, 9) if positive is None else _classes(positive)
        return tasks.mnist(7 if side is None else side, components, positive=digits)
    if kind != "tfds" or not name:
        raise ValueError(f"`dataset` must be mnist, tfds:NAME or FILE.npz, got {dataset!r}.")
    _refuse(dataset, norm_bound=norm_bound)
    from ..tasks._prepared import find_source

    source = find_source(name, data_dir)
    return tasks.from_tfds(
        name,
        None if positive is None else _classes(positive, source.label),
        side=side,
        components=components,
        test_split="test" if "test" in source.splits else None,
        data_dir=data_dir,
    )


def _refuse(dataset: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"`{name}` must be left out with {dataset}, got {str(value)!r}.")


def _classes(text: str, label: object = None) -> list:
    """`5,6` or `cat,dog`: names where there are such, else numbers."""
    names = getattr(label, "names", None) or ()
    found = []
    for word in (word.strip() for word in text.split(",")):
        try:
            found.append(word if word in names else int(word))
        except ValueError:
            found.append(word)
    return found
