"""What the figures of the paper share: presets, and a store for their data."""

import dataclasses
from pathlib import Path
from typing import Literal

import xarray as xr
from zarr.storage import MemoryStore

from .. import _validate
from .._numbers import options
from .._settings import Settings
from .._writing import write_folder
from ..tasks import Task, mnist


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much work a figure may be.

    **Attributes:**

    - `name`: `"full"`, as the paper has it; `"quick"`, minutes for all figures; `"tiny"`, seconds,
        for tests: three principal directions and a few hidden units.
    - `seed`: of the initialization.
    - `overlay`: whether to draw the trajectory and split bounds over the paper's.
    - `relative_gamma`: margins relative to the reference network's outputs, as in a report,
        instead of the paper's multiples of $\\beta^2$.

    **Raises:**

    `ValueError` naming the attribute.
    """

    name: Literal["full", "quick", "tiny"] = "full"
    seed: int = 0
    overlay: bool = False
    relative_gamma: bool = False

    def __post_init__(self):
        _validate.member("name", self.name, ("full", "quick", "tiny"))
        options(Settings)["seed"].check("seed", self.seed)

    @property
    def width(self) -> int:
        """Units of a hidden layer."""
        return 4 if self.name == "tiny" else 64

    @property
    def num_times(self) -> int:
        """How many times a curve has."""
        return {"full": 60, "quick": 20, "tiny": 4}[self.name]

    def task(self, side: int) -> Task:
        """Binary MNIST at that many pixels.

        **Arguments:**

        - `side`: 7, 14 or 28.

        **Returns:**

        A [`Task`][]; at 7x7 and with three components for the tiny preset.
        """
        return mnist(7, 3) if self.name == "tiny" else mnist(side)


def save_data(data: xr.Dataset, path: Path) -> None:
    """Write a figure's data as Zarr, replacing what is there only once it is complete.

    **Arguments:**

    - `data`: any dataset.
    - `path`: the store; its folder must exist.

    **Returns:**

    Nothing.

    **Raises:**

    `OSError`, one line, if it cannot be written; what was there stays.
    """
    files = {}
    # Format 2 has a settled way to hold names.
    data.to_zarr(MemoryStore(files), mode="w", zarr_format=2)
    write_folder(path, {name: content.to_bytes() for name, content in files.items()})


def load_data(path: Path) -> xr.Dataset:
    """The data of a figure, in memory.

    **Arguments:**

    - `path`: the store.

    **Returns:**

    An `xarray.Dataset`.
    """
    with xr.open_zarr(path) as data:
        return data.load()
