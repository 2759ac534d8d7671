"""Figure 6: Theorem 5.2 against the depth."""

import xarray as xr
from matplotlib.figure import Figure

from ._common import Preset
from ._panels import Case, columns, draw_panels, evaluate, settings

TITLE = (
    "Theorem 5.2: 7x7 MNIST, beta = 0.001, epsilon = 0.001, kappa = 2, p = 16, rank one, varying L"
)
DEPTHS = (2, 3, 4)


def compute(preset: Preset) -> xr.Dataset:
    """The bound over training time, for three depths, at margins $\\beta^L$ / ratio.

    **Arguments:**

    - `preset`: a [`Preset`][].

    **Returns:**

    An `xarray.Dataset` over `case`, `step`, `ratio` and `reading`.
    """
    cases = []
    for depth in DEPTHS:
        chosen = settings(preset, depth=depth, init="rank-one", precision_bits=16)
        cases.append(Case(f"L = {depth}", chosen))
    return evaluate(TITLE, preset, cases, horizon=0.8)


def draw(data: xr.Dataset) -> Figure:
    """The picture of [`compute`][]'s data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure.
    """
    return draw_panels(data, TITLE, columns(data))
