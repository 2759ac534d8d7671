"""The comparison as a picture."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from .. import _validate
from .._colours import COLOURS
from ..ladder import AbstractBound
from ._compare import Comparison
from ._rows import THE_NETWORK

TOP = 5.0  # what lies above is far from saying anything
TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)
TRUTH = {"color": "black", "lw": 2.5, "ls": ":", "label": "true test error of the network"}


def _style(bound: AbstractBound, ours: bool) -> dict:
    """Ours are solid, the thick ones a priori; the classical ones are dashed."""
    line = {"color": bound.colour, "ls": "--", "lw": 1.0}
    if ours:
        line |= {"ls": "-", "lw": 2.8 if bound.a_priori else 1.3}
    if bound.marker:
        line |= {"marker": bound.marker, "ms": 4.5 if bound.over_time else 9, "mfc": "none"}
    return line


def _floor(comparison: Comparison) -> float:
    """A little below the lowest point that is drawn."""
    points = [v for curve in comparison.over_time for v in curve["uncapped"]]
    points += [row["uncapped"] for point in comparison.over_epsilon for row in point["rows"]]
    points += [p["test_risk"] for p in comparison.over_epsilon if p["test_risk"] is not None]
    if comparison.report.test_risk is not None:
        points += comparison.report.test_risk.tolist()
    lowest = min((p for p in points if p > 0), default=0.1)
    return max(1e-4, 0.8 * min(lowest, 0.4))


def plot_comparison(comparison: Comparison) -> Figure:
    """All bounds over training time and, if there was a sweep, over epsilon.

    **Arguments:**

    - `comparison`: a [`Comparison`][].

    **Returns:**

    A Matplotlib figure of one or two panels with a logarithmic risk axis; lines that leave it at
    the top are vacuous by far. Over epsilon every bound is drawn at its best time, except for
    those that are evaluated at the end only.

    **Raises:**

    `ValueError` naming `comparison` if it is something else.
    """
    comparison = _validate.instance("comparison", comparison, Comparison)
    panels = 2 if comparison.over_epsilon else 1
    figure = Figure(figsize=(1 + 5.5 * panels, 6.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels, sharey=True))
    ours = set(comparison.report.names())
    styles = {bound.name: _style(bound, bound.name in ours) for bound in comparison.bounds}
    left = axes[0]
    for curve in comparison.over_time:
        name = curve["bound"]
        left.semilogy(curve["t"], curve["uncapped"], label=name, **styles[name])
    if comparison.report.test_risk is not None:
        ts = np.asarray(comparison.report.trajectory.ts)
        left.semilogy(ts, comparison.report.test_risk, **TRUTH)
    left.set_xlabel("t (gradient-flow time)")
    left.set_ylabel("bound on the risk (fraction misclassified)")
    left.set_title(f"over training time, epsilon = {comparison.report.settings.epsilon:g}")
    if comparison.over_epsilon:
        _over_epsilon(axes[1], comparison, styles)
    for axis in axes:
        axis.axhline(0.5, ls="-.", color=COLOURS["guess"], label="random guess")
        axis.axhline(1.0, ls="-", lw=0.6, color=COLOURS["guess"])
        axis.set_ylim(_floor(comparison), TOP)
        axis.grid(which="both", alpha=0.15)
        axis.yaxis.set_major_locator(FixedLocator(TICKS))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    handles, labels = left.get_legend_handles_labels()
    other = {row["bound"] for row in comparison.rows if row["about"] != THE_NETWORK}
    labels = [f"{name} (another network)" if name in other else name for name in labels]
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=4)
    settings = comparison.report.settings
    figure.suptitle(
        f"{comparison.report.task['name']}, L = {settings.depth}, width {settings.width}, "
        f"beta = {settings.beta:g}, {settings.init} init\n"
        "solid: this library and the paper (thick: a priori); dashed: classical"
    )
    return figure


def _over_epsilon(axis, comparison: Comparison, styles: dict[str, dict]) -> None:
    """The best value of every bound against epsilon."""
    points = [p for p in comparison.over_epsilon if p["epsilon"] > 0]
    epsilons = [p["epsilon"] for p in points]
    for name, style in styles.items():
        values = [{r["bound"]: r for r in p["rows"]}[name]["best_uncapped"] for p in points]
        axis.loglog(epsilons, values, label=name, **style)
    if comparison.report.test_risk is not None:
        risks = [p["test_risk"] for p in points]
        axis.loglog(epsilons, risks, **TRUTH)
    axis.set_xlabel("epsilon = 1 - negative slope (linear: 0, ReLU: 1)")
    once = any(not bound.over_time for bound in comparison.bounds)
    note = " (large markers: at the end)" if once else ""
    axis.set_title(f"over epsilon, each at its best time{note}")
