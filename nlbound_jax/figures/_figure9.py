"""Figure 9: the optimistic bound through the kappa = 2 proxy, from nearly linear to ReLU."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ._common import Preset
from ._figure7 import problem
from ._figure8 import SIDE, attributes, draw_bound, draw_losses, follow, headline

TITLE = "The optimistic bound (Eq. 41) of the kappa = 2 proxy over the slope"
EPSILONS = {"full": (0.1, 0.2, 0.4, 1.0), "quick": (0.2, 0.4, 1.0), "tiny": (0.4, 1.0)}
PROXY = "g2"


def compute(preset: Preset) -> xr.Dataset:
    """The data of Figure 9.

    **Arguments:**

    - `preset`: a [`Preset`][]; its `overlay` and `relative_gamma` do not matter here.

    **Returns:**

    An `xarray.Dataset` as of Figure 8 with one proxy, and `epsilon` as its first dimension.
    `reached` is, for each epsilon, the time at which training ended.
    """
    task, epsilons = problem(preset, SIDE), EPSILONS[preset.name]
    runs = [follow(task, preset, epsilon).sel(proxy=[PROXY]) for epsilon in epsilons]
    data = xr.concat(
        [run.reset_coords("t") for run in runs],
        xr.DataArray(np.asarray(epsilons), dims="epsilon", name="epsilon"),
    )
    return data.set_coords("t").assign_attrs(attributes(TITLE, task, preset))


def draw(data: xr.Dataset) -> Figure:
    """Figure 9 from its data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure with one panel an epsilon.
    """
    epsilons = data["epsilon"].values
    columns = 2 if len(epsilons) in (2, 4) else min(3, len(epsilons))
    rows = -(-len(epsilons) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.7 * rows + 1.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axis, epsilon in zip(panels, epsilons, strict=False):
        one = data.sel(epsilon=epsilon)
        draw_bound(axis, one, PROXY)
        draw_losses(axis, one)
        axis.set_xscale("log")
        axis.set_title(f"epsilon = {epsilon:g}")
        axis.set_xlabel("t (gradient-flow time)")
    for axis in panels[len(epsilons) :]:
        axis.remove()
    for axis in panels[::columns]:
        axis.set_ylabel("risk (fraction misclassified), loss")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=3)
    figure.suptitle(headline(data))
    return figure
