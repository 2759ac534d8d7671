"""The report as text."""

import math

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .. import _validate
from ._report import Report
from ._rows import THE_NETWORK


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

    **Raises:**

    `ValueError` naming `report` if it is something else.
    """
    report = _validate.instance("report", report, Report)
    task, settings = report.task, report.settings
    title = (
        f"{task['name']}: m = {task['num_samples']}, d = {task['rank']} of {task['num_features']} "
        f"(condition number {task['condition_number']:.0f}), "
        f"s = {task['alignment']:.3f}; L = {settings.depth}, width {settings.width}, "
        f"epsilon = {settings.epsilon:g}, beta = {settings.beta:g}, {settings.init} init"
    )
    if settings.dynamics == "gd":
        kind = "Nesterov's momentum" if settings.nesterov else "momentum"
        title += f"; descent in steps of {settings.step_size:g}"
        title += f", {kind} {settings.momentum:g}" if settings.momentum else ""
    grid = Table(title=title, title_justify="left")
    grid.add_column("bound", no_wrap=True)
    grid.add_column("at", no_wrap=True)
    for name in ("t", "gamma", "train\nerror", "train\nterm", "complexity", "rest"):
        grid.add_column(name, justify="right")
    grid.add_column("bound\non test", justify="right", style="bold")
    grid.add_column("test\nerror", justify="right")
    times = [float(t) for t in report.trajectory.ts]
    for bound in report.bounds:
        name, rows = bound.name, [("end", report.at_end(bound.name))]
        if bound.over_time:
            rows.insert(0, ("best", report.best(name)))
        for place, row in rows:
            own = row["about"] == THE_NETWORK
            train = float(report.train_risk[times.index(row["t"])]) if own else None
            cells = [row["t"], row["gamma"], train]
            cells += [row[key] for key in ("train_term", "complexity", "rest")]
            texts = [number(c) for c in cells]
            test = number(row["test_risk"])
            grid.add_row(name, place, *texts, bound_text(row["value"]), test)
    return Group(grid, *(Text(line) for line in notes(report)))


def notes(report: Report) -> list[str]:
    """What the reader of the table must know."""
    settings, measuring = report.settings, {}
    for bound in report.bounds:
        measuring.setdefault(bound.measures, []).append(bound.name)
    measured = [f"{what} ({', '.join(names)})" for what, names in measuring.items()]
    late = [bound.name for bound in report.bounds if not bound.a_priori]
    lines = [
        f"bound = train term + complexity + rest. With probability {1 - settings.delta:g}, each "
        f"bound by itself; {settings.cells} cells (t, gamma) paid for, or the bound's own cells.",
        "Random guess: 0.5.",
        f"Train term: {'; '.join(measured)}.",
    ]
    if late:
        lines.append(f"Complexity and rest are known before training, but for {', '.join(late)}.")
    for bound in report.bounds:
        numbers = ", ".join(f"{name} = {value}" for name, value in bound.numbers.items())
        assumes = ", ".join(report.assumes[bound.name]) or "nothing more"
        lines.append(f"{bound.name}{f' ({numbers})' if numbers else ''} assumes: {assumes}.")
    for name in report.certified:
        about = report.at_end(name)["about"]
        lines.append(f"{name} is about another network, with its own test error: {about}.")
    reasons: dict[str, list[str]] = {}
    for name, reason in report.omitted.items():
        reasons.setdefault(reason, []).append(name)
    lines += [f"Left out: {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return lines
