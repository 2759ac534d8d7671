"""Figure 5: Theorem 5.2 against the size of the images."""

import xarray as xr
from matplotlib.figure import Figure

from ._common import Preset
from ._panels import Case, columns, draw_panels, evaluate, settings

TITLE = "Theorem 5.2: MNIST, L = 2, beta = 0.001, epsilon = 0.001, kappa = 2, p = 16, rank one"
SIDES = (7, 14, 28)


def compute(preset: Preset) -> xr.Dataset:
    """The bound over training time, for three sizes of images.

    **Arguments:**

    - `preset`: a [`Preset`][].

    **Returns:**

    An `xarray.Dataset` over `case`, `step`, `ratio` and `reading`.
    """
    few = {"num_times": 8} if preset.name == "quick" else {}
    chosen = settings(preset, init="rank-one", precision_bits=16, **few)
    cases = [Case(f"{side}x{side}", chosen, side) for side in SIDES]
    return evaluate(TITLE, preset, cases, rtol=1e-5 if preset.name == "full" else 1e-3)


def draw(data: xr.Dataset) -> Figure:
    """The picture of [`compute`][]'s data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure.
    """
    return draw_panels(data, TITLE, columns(data))
