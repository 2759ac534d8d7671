"""The ladder among the figures that are made by name."""

import numpy as np
import xarray as xr

from ..report import Settings
from ._common import Preset
from ._ladder import ladder
from ._ladder import plot_ladder as draw

TITLE = "Every bound against the slope, from linear to ReLU"

__all__ = ["TITLE", "compute", "draw"]


def compute(preset: Preset) -> xr.Dataset:
    """The ladder at 7x7."""
    points = {"full": 13, "quick": 5, "tiny": 2}[preset.name]
    settings = Settings(
        width=preset.width,
        seed=preset.seed,
        num_times=min(preset.num_times, 40),
        end_time=1.0 if preset.name == "tiny" else None,
    )
    epsilons = np.geomspace(1e-3, 1.0, points).tolist()
    return ladder(preset.task(7), settings, epsilons=epsilons)
