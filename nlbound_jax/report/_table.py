"""The report as text."""

import math

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ._report import Report


def number(value: float | None) -> str:
    """A number for a table: four decimals, fewer for the large, a dash for none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "inf"
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.4f}"
    return f"{value:.2e}"


def bound_text(value: float) -> str:
    """A bound, marked where it says nothing."""
    return number(value) if value < 1 else "1 (vacuous)"


def table(report: Report) -> Group:
    """The short table that `nlbound report` prints.

    **Arguments:**

    - `report`: a [`Report`][].

    **Returns:**

    A Rich renderable: for each bound its best cell and the end of training.
    """
    task, settings = report.task, report.settings
    title = (
        f"{task['name']}: m = {task['num_samples']}, d = {task['rank']} of {task['num_features']} "
        f"(condition number {task['condition_number']:.0f}), "
        f"s = {task['alignment']:.3f}; L = {settings.depth}, width {settings.width}, "
        f"epsilon = {settings.epsilon:g}, beta = {settings.beta:g}, {settings.init} init, "
        f"kappa = {settings.kappa}"
    )
    grid = Table(title=title, title_justify="left")
    grid.add_column("bound", no_wrap=True)
    grid.add_column("at", no_wrap=True)
    for name in ("t", "gamma", "train\nerror", "train\nterm", "capacity", "deviation"):
        grid.add_column(name, justify="right")
    grid.add_column("bound\non test", justify="right", style="bold")
    grid.add_column("test\nerror", justify="right")
    times = [float(t) for t in report.trajectory.ts]
    for name in report.names():
        for place, row in (("best", report.best(name)), ("end", report.at_end(name))):
            train = float(report.train_risk[times.index(row["t"])])
            term = row.get("train_smoothed_ramp_risk", row["train_margin_risk"])
            cells = [row["t"], row["gamma"], train, term]
            cells += [row["capacity"], row["deviation"]]
            texts = [number(c) for c in cells]
            test = number(row["test_risk"])
            grid.add_row(name, place, *texts, bound_text(row["value"]), test)
    return Group(grid, *(Text(line) for line in notes(report)))


def notes(report: Report) -> list[str]:
    """What the reader of the table must know."""
    lines = [
        "bound = train term + capacity + deviation; the train term is the margin risk (split-*: "
        f"the smoothed ramp risk). With probability {1 - report.settings.delta:g}, each bound by "
        "itself; "
        f"{report.settings.cells} cells (t, gamma) paid for, and the split bound's own cells.",
        "Random guess: 0.5.",
        "A priori: capacity and deviation, but for trajectory-measured, split-a-posteriori and "
        "split-no-plug-in, which measure the trained network. The train risk is measured, but "
        "for split-wholly-a-priori, where it is that of the reference network's weights.",
    ]
    for name in report.names():
        lines.append(f"{name} assumes: {', '.join(report.best(name)['assumes'])}.")
    return lines
