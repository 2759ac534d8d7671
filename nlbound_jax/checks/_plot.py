"""The slack of every inequality over time."""

import numpy as np
from matplotlib.figure import Figure

from ._check import Check, Checks


def plot_slack(checks: Checks) -> Figure:
    """bound / measured over training time on a log scale, one line an inequality; 1 is tight, and
    below 1 it fails.

    **Arguments:**

    - `checks`: a [`Checks`][].

    **Returns:**

    A Matplotlib figure: the claimed inequalities and those as printed.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    groups = [
        ("claimed: they must hold", [c for c in checks.checks if c.claimed]),
        ("as printed: they may fail", [c for c in checks.checks if not c.claimed]),
    ]
    for axis, (title, group) in zip(panels, groups, strict=True):
        for i, check in enumerate(group):
            style = ("-", "--", ":")[i % 3]  # some lines coincide
            axis.plot(check.ts, _shown(check), style, label=check.equation)
        axis.axhline(1, color="black", lw=1)
        axis.set_yscale("log")
        axis.set_ylim(0.3, 1e8)
        axis.set_xlabel("t (gradient-flow time)")
        axis.set_title(title)
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    panels[0].set_ylabel("slack = bound / measured")
    return figure


def _shown(check: Check) -> np.ndarray:
    """The slack; no line where the bound or the slack is infinite."""
    slack = check.slack
    return np.where(np.isfinite(slack), slack, np.nan)
