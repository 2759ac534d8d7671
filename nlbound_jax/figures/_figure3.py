"""Figure 3: Theorem 5.2 for a rank-one input layer, and for fewer bits of precision."""

import xarray as xr
from matplotlib.figure import Figure

from ._common import Preset
from ._panels import Case, columns, draw_panels, evaluate, settings

TITLE = "Theorem 5.2: 7x7 MNIST, L = 2, beta = 0.001, epsilon = 0.01, kappa = 2, varying rho and p"
EPSILON = 0.01
INITS = ("default", "rank-one")
BITS = (32, 16)


def compute(preset: Preset) -> xr.Dataset:
    """The bound over training time, for two initializations, each counted in two precisions.

    **Arguments:**

    - `preset`: a [`Preset`][].

    **Returns:**

    An `xarray.Dataset` over `case`, `step`, `ratio` and `reading`.
    """
    cases = []
    for init in INITS:
        for bits in BITS:
            chosen = settings(preset, epsilon=EPSILON, init=init, precision_bits=bits)
            cases.append(Case(f"{init} init, p = {bits}", chosen))
    return evaluate(TITLE, preset, cases, horizon=0.3)


def draw(data: xr.Dataset) -> Figure:
    """The picture of [`compute`][]'s data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure.
    """
    return draw_panels(data, TITLE, columns(data))
