"""Figure 1: Theorem 5.2 converges as the initialization shrinks, and grows with it."""

import xarray as xr
from matplotlib.figure import Figure

from ._common import Preset
from ._panels import Case, columns, draw_panels, evaluate, settings

TITLE = "Theorem 5.2: 7x7 MNIST, L = 2, kappa = 2, epsilon = 0.001, varying beta"
BETAS = (0.1, 0.01, 0.001)


def compute(preset: Preset) -> xr.Dataset:
    """The bound over training time, for three sizes of the initialization.

    **Arguments:**

    - `preset`: a [`Preset`][].

    **Returns:**

    An `xarray.Dataset` over `case`, `step`, `ratio` and `reading`.
    """
    cases = [Case(f"beta = {b:g}", settings(preset, beta=b)) for b in BETAS]
    return evaluate(TITLE, preset, cases)


def draw(data: xr.Dataset) -> Figure:
    """The picture of [`compute`][]'s data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure.
    """
    return draw_panels(data, TITLE, columns(data))
