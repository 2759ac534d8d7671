"""Figure 4: the parts of Theorem 5.2."""

import xarray as xr
from matplotlib.figure import Figure

from ._common import Preset
from ._panels import Case, Column, draw_panels, evaluate, settings

TITLE = "Theorem 5.2 and its parts: 7x7 MNIST, L = 2, beta = 0.001, epsilon = 0.01, kappa = 2"
EPSILON = 0.01


def compute(preset: Preset) -> xr.Dataset:
    """The bound over training time and its parts.

    **Arguments:**

    - `preset`: a [`Preset`][].

    **Returns:**

    An `xarray.Dataset` over `case` (one), `step`, `ratio` and `reading`.
    """
    cases = [Case(f"epsilon = {EPSILON:g}", settings(preset, epsilon=EPSILON))]
    return evaluate(TITLE, preset, cases, horizon=0.3)


def draw(data: xr.Dataset) -> Figure:
    """The full bound, the bound without the capacity and the bound without the deviation.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure.
    """
    case = str(data["case"].values[0])
    one = data.sel(case=case)
    risk, full = one["train_margin_risk"], one["value"]
    without = (risk + one["capacity"]).broadcast_like(full)
    parts = {
        "full": full,
        "without the capacity Upsilon": risk + one["deviation"],
        "without the deviation": without,
    }
    return draw_panels(data, TITLE, [Column(name, case, part) for name, part in parts.items()])
