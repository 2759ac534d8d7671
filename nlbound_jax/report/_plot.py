"""The report as a picture."""

import numpy as np
from matplotlib.figure import Figure

from .. import _validate
from .._colours import COLOURS
from ._report import Report


def plot(report: Report) -> Figure:
    """The bounds, the parts of the best of them and the true test error over time.

    **Arguments:**

    - `report`: a [`Report`][].

    **Returns:**

    A Matplotlib figure with two panels.

    **Raises:**

    `ValueError` naming `report` if it is something else.
    """
    report = _validate.instance("report", report, Report)
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ts = np.asarray(report.trajectory.ts)
    for bound in report.bounds:
        rows = report.over_time(bound.name)
        values = [row["value"] for row in rows]
        # A bound that is evaluated once is a point.
        style = {"color": bound.colour, "marker": "" if len(rows) > 1 else bound.marker or "o"}
        left.plot([row["t"] for row in rows], values, label=bound.name, **style)
    left.set_title("bound on the test error, best margin at each t")
    # Of what is evaluated over time, and so about the network itself.
    over_time = [b.name for b in report.bounds if b.over_time] or report.names()
    name = min(over_time, key=lambda name: report.best(name)["value"])
    parts = report.over_time(name)
    named = (("complexity", "complexity"), ("rest", "rest"), ("train_term", "train_term"))
    for key, colour in named:
        label = key.replace("_", " ")
        values = [min(row[key], 10.0) for row in parts]
        right.plot([row["t"] for row in parts], values, label=label, color=COLOURS[colour])
    right.set_title(f"the terms of the best bound, {name}")
    for axis in (left, right):
        if report.test_risk is not None:
            axis.plot(ts, report.test_risk, "--", color=COLOURS["test"], label="true test error")
        axis.axhline(0.5, ls=":", color=COLOURS["guess"], label="random guess")
        flow = report.settings.dynamics == "flow"
        axis.set_xlabel(f"t ({'gradient-flow time' if flow else 'steps times step size'})")
        axis.set_ylim(0, 1.05)
        axis.legend(fontsize="x-small", ncols=2, loc="upper left")
    left.set_ylabel("risk (fraction misclassified)")
    settings = report.settings
    figure.suptitle(
        f"{report.task['name']}, L = {settings.depth}, epsilon = {settings.epsilon:g}, "
        f"beta = {settings.beta:g}, {settings.init} init"
    )
    return figure
