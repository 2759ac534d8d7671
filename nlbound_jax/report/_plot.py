"""The report as a picture."""

import numpy as np
from matplotlib.figure import Figure

from ._report import Report

# The same colour for the same thing in every picture of this library.
COLOURS = {
    "theorem-5.2-printed": "tab:blue",
    "theorem-5.2-repaired": "tab:orange",
    "trajectory": "tab:purple",
    "trajectory-measured": "tab:pink",
    "split-a-priori": "tab:green",
    "split-wholly-a-priori": "tab:olive",
    "split-a-posteriori": "tab:red",
    "split-no-plug-in": "tab:brown",
    "test": "black",
    "train": "tab:gray",
    "capacity": "tab:green",
    "deviation": "tab:red",
    "guess": "tab:gray",
}


def plot(report: Report) -> Figure:
    """The bounds, the parts of the repaired theorem and the true test error over time.

    **Arguments:**

    - `report`: a [`Report`][].

    **Returns:**

    A Matplotlib figure with two panels.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ts = np.asarray(report.trajectory.ts)
    for name in report.names():
        rows = report.over_time(name)
        values = [row["value"] for row in rows]
        left.plot([row["t"] for row in rows], values, label=name, color=COLOURS[name])
    left.set_title("bound on the test error, best margin at each t")
    parts = report.over_time("theorem-5.2-repaired")
    named = (("capacity", "capacity"), ("deviation", "deviation"), ("train_margin_risk", "train"))
    for key, colour in named:
        label = f"{key.replace('_', ' ')} (theorem-5.2-repaired)"
        values = [min(row[key], 10.0) for row in parts]
        right.plot([row["t"] for row in parts], values, label=label, color=COLOURS[colour])
    right.set_title("its parts")
    for axis in (left, right):
        if report.test_risk is not None:
            axis.plot(ts, report.test_risk, "--", color=COLOURS["test"], label="true test error")
        axis.axhline(0.5, ls=":", color=COLOURS["guess"], label="random guess")
        axis.set_xlabel("t (gradient-flow time)")
        axis.set_ylim(0, 1.05)
        axis.legend(fontsize="small")
    left.set_ylabel("risk (fraction misclassified)")
    settings = report.settings
    figure.suptitle(
        f"{report.task['name']}, L = {settings.depth}, epsilon = {settings.epsilon:g}, "
        f"beta = {settings.beta:g}, {settings.init} init, kappa = {settings.kappa}"
    )
    return figure
