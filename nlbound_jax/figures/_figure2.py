"""Figure 2: Theorem 5.2 for kappa = 2 against kappa = 1."""

import xarray as xr
from matplotlib.figure import Figure

from ._common import Preset
from ._panels import Case, columns, draw_panels, evaluate, settings

TITLE = "Theorem 5.2: 7x7 MNIST, L = 2, beta = 0.001, epsilon = 0.001, varying kappa"
KAPPAS = (1, 2)


def compute(preset: Preset) -> xr.Dataset:
    """The bound over training time, for both proxies of one trained network.

    **Arguments:**

    - `preset`: a [`Preset`][].

    **Returns:**

    An `xarray.Dataset` over `case`, `step`, `ratio` and `reading`.
    """
    cases = [Case(f"kappa = {k}", settings(preset, kappa=k)) for k in KAPPAS]
    return evaluate(TITLE, preset, cases)


def draw(data: xr.Dataset) -> Figure:
    """The picture of [`compute`][]'s data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure.
    """
    return draw_panels(data, TITLE, columns(data))
