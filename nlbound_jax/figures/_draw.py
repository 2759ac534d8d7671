"""Figures by name: data computed once, saved, and drawn from what was saved."""

import importlib
from pathlib import Path
from types import ModuleType

import xarray as xr
from matplotlib.figure import Figure

from .. import _validate
from .._files import write_png
from ._common import Preset, load_data, save_data

NAMES = (*(str(n) for n in range(1, 10)), "ladder", "conv")


def _module(name: str) -> ModuleType:
    _validate.member("name", name, NAMES)
    file = f"_figure{name}" if name.isdigit() else f"_{name}"
    return importlib.import_module(f"{__package__}.{file}")


def stem(name: str) -> str:
    """The file name of a figure, without its suffix."""
    _validate.member("name", name, NAMES)
    return f"figure{name}" if name.isdigit() else name


def title(name: str) -> str:
    """What a figure shows, in one line.

    **Arguments:**

    - `name`: `"1"` to `"9"`, `"ladder"` or `"conv"`.

    **Returns:**

    A line of text.
    """
    return _module(name).TITLE


def compute(name: str, preset: Preset | None = None) -> xr.Dataset:
    """The data of a figure.

    **Arguments:**

    - `name`: `"1"` to `"9"`, `"ladder"` or `"conv"`.
    - `preset`: a [`Preset`][]; the full one if `None`.

    **Returns:**

    An `xarray.Dataset` whose attributes are the settings.

    **Raises:**

    `ValueError` naming the argument.
    """
    preset = Preset() if preset is None else _validate.instance("preset", preset, Preset)
    return _module(name).compute(preset)


def draw(name: str, data: xr.Dataset) -> Figure:
    """A figure from its data.

    **Arguments:**

    - `name`: `"1"` to `"9"`, `"ladder"` or `"conv"`.
    - `data`: out of [`compute`][], or loaded from a file.

    **Returns:**

    A Matplotlib figure.

    **Raises:**

    `ValueError` if there is no such figure, or naming `data` if it is something else.
    """
    data = _validate.instance("data", data, xr.Dataset)
    return _module(name).draw(data)


def make(name: str, folder: str | Path, preset: Preset | None = None) -> Path:
    """Compute a figure's data, save it, and draw the picture from what was saved.

    **Arguments:**

    - `name`: `"1"` to `"9"`, `"ladder"` or `"conv"`.
    - `folder`: an existing folder; it gets `figure1.png` and `figure1.zarr`, and so on.
    - `preset`: a [`Preset`][]; the full one if `None`.

    **Returns:**

    The path of the picture.

    **Raises:**

    `ValueError` naming the argument.
    """
    path = _validate.path("folder", folder)
    if not path.is_dir():
        raise ValueError(f"`folder` must be an existing folder, got {str(path)!r}.")
    save_data(compute(name, preset), path / f"{stem(name)}.zarr")
    return redraw(name, path)


def redraw(name: str, folder: str | Path) -> Path:
    """Draw a figure again from the data in a folder.

    **Arguments:**

    - `name`: `"1"` to `"9"`, `"ladder"` or `"conv"`.
    - `folder`: where [`make`][] saved the data.

    **Returns:**

    The path of the picture.

    **Raises:**

    `ValueError` if there is no data.
    """
    path = _validate.path("folder", folder)
    store = path / f"{stem(name)}.zarr"
    if not store.is_dir():
        raise ValueError(f"`folder` must hold {store.name}, got {str(path)!r}.")
    picture = path / f"{stem(name)}.png"
    write_png(picture, draw(name, load_data(store)))
    return picture
