"""A task from the name of its data, as the command line and a sweep's configuration give it."""

from pathlib import Path
from typing import Any

from ._mnist import mnist
from ._npz import from_npz
from ._prepared import find_source
from ._task import Task
from ._tfds import from_tfds


def load_task(
    dataset: str,
    *,
    side: int | None = None,
    components: int | None = None,
    data_dir: str | Path | None = None,
    positive: str | None = None,
    norm_bound: float | None = None,
) -> Task:
    """The task that the options name; one line for an option that the data does not take."""
    kind, _, name = dataset.partition(":")
    if dataset.endswith(".npz"):
        _refuse(dataset, side=side, data_dir=data_dir, positive=positive)
        return from_npz(dataset, norm_bound=norm_bound, components=components)
    if dataset == "mnist":
        _refuse(dataset, data_dir=data_dir, norm_bound=norm_bound)
        digits = (5, 6, 7, 8, 9) if positive is None else _classes(positive)
        return mnist(7 if side is None else side, components, positive=digits)
    if kind != "tfds" or not name:
        raise ValueError(f"`dataset` must be mnist, tfds:NAME or FILE.npz, got {dataset!r}.")
    _refuse(dataset, norm_bound=norm_bound)
    source = find_source(name, data_dir)
    return from_tfds(
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


def _classes(text: str, label: object = None) -> list[Any]:
    """`5,6` or `cat,dog`: names where there are such, else numbers."""
    names = getattr(label, "names", None) or ()
    found = []
    for word in (word.strip() for word in text.split(",")):
        try:
            found.append(word if word in names else int(word))
        except ValueError:
            found.append(word)
    return found
