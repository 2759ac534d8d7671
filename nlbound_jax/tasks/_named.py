"""A task from the name of its data, as the command line and a sweep's configuration give it."""

from typing import Any

from .. import _validate
from .._naming import naming
from .._settings import DataSpec
from ._mnist import mnist
from ._npz import from_npz
from ._prepared import find_source
from ._task import Task
from ._tfds import from_tfds


def load_task(data: DataSpec) -> Task:
    """The task that the options name, as the command line and a sweep's configuration give them.

    **Arguments:**

    - `data`: a [`DataSpec`][].

    **Returns:**

    A [`Task`][].

    **Raises:**

    `ValueError` naming the option, also one that the data does not take.
    """
    data = _validate.instance("data", data, DataSpec)
    with naming(path="dataset", name="dataset", split="dataset", test_split="dataset"):
        return _load(data)


def _load(data: DataSpec) -> Task:
    dataset, positive = data.dataset, data.positive
    kind, _, name = dataset.partition(":")
    if dataset.endswith(".npz"):
        _refuse(data, "side", "data_dir", "positive")
        return from_npz(
            dataset,
            norm_bound=data.norm_bound,
            components=data.components,
            scale=data.scale or "norm",
        )
    if dataset == "mnist":
        _refuse(data, "data_dir", "norm_bound", "scale")
        digits = (5, 6, 7, 8, 9) if positive is None else _classes(positive)
        return mnist(7 if data.side is None else data.side, data.components, positive=digits)
    if kind != "tfds" or not name:
        raise ValueError(f"`dataset` must be mnist, tfds:NAME or FILE.npz, got {dataset!r}.")
    _refuse(data, "norm_bound", "scale")
    source = find_source(name, data.data_dir)
    return from_tfds(
        name,
        None if positive is None else _classes(positive, source.label),
        side=data.side,
        components=data.components,
        test_split="test" if "test" in source.splits else None,
        data_dir=data.data_dir,
    )


def _refuse(data: DataSpec, *names: str) -> None:
    for name in names:
        value = getattr(data, name)
        if value is not None:
            raise ValueError(f"`{name}` must be left out with {data.dataset}, got {str(value)!r}.")


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
