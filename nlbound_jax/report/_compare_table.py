"""The comparison as text and as files."""

from pathlib import Path
from string import ascii_uppercase

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .. import _validate
from .._files import prepare_folder, write_json, write_png
from ._compare import Comparison
from ._compare_plot import plot_comparison
from ._rows import THE_NETWORK
from ._table import number


def _letters(comparison: Comparison) -> dict[str, str]:
    """A letter for every assumption, in the order of the rows."""
    assumptions = dict.fromkeys(a for row in comparison.rows for a in row["assumes"])
    return dict(zip(assumptions, ascii_uppercase, strict=False))


def comparison_table(comparison: Comparison) -> Group:
    """The table that `nlbound compare` prints.

    **Arguments:**

    - `comparison`: a [`Comparison`][].

    **Returns:**

    A Rich renderable: one row for each bound at the end of training, and what the letters mean.

    **Raises:**

    `ValueError` naming `comparison` if it is something else.
    """
    comparison = _validate.instance("comparison", comparison, Comparison)
    task, settings = comparison.report.task, comparison.report.settings
    title = (
        f"{task['name']}: m = {task['num_samples']}, d = {task['rank']}; L = {settings.depth}, "
        f"width {settings.width}, epsilon = {settings.epsilon:g}, beta = {settings.beta:g}, "
        f"{settings.init} init, t = {comparison.rows[0]['t']:.4g}"
    )
    grid = Table(title=title, title_justify="left")
    for name in ("bound", "known", "holds for", "assumes"):
        grid.add_column(name, no_wrap=True)
    for name in ("gamma", "train\nterm", "complex-\nity", "rest"):
        grid.add_column(name, justify="right")
    grid.add_column("bound\non test", justify="right", style="bold")
    grid.add_column("best\nover t", justify="right")
    letters, before = _letters(comparison), comparison.rows[0]
    for bound, row in zip(comparison.bounds, comparison.rows, strict=True):
        if before["ours"] != row["ours"]:
            grid.add_section()
        before = row
        grid.add_row(
            row["bound"],
            "a priori" if row["a_priori"] else "a posteriori",
            THE_NETWORK if row["about"] == THE_NETWORK else "another",
            " ".join(letters[a] for a in row["assumes"]) or "-",
            *(
                number(row[key])
                for key in ("gamma", "train_term", "complexity", "rest", "uncapped")
            ),
            number(row["best_uncapped"]) if bound.over_time else "-",
        )
    return Group(grid, *(Text(line) for line in comparison_notes(comparison)))


def comparison_notes(comparison: Comparison) -> list[str]:
    """What the reader of the table must know."""
    train, risk = comparison.report.train_risk, comparison.report.test_risk
    known = "no test data" if risk is None else f"true test error {float(risk[-1]):.4f}"
    confidence = 1 - comparison.report.settings.delta
    lines = [
        f"Train error {float(train[-1]):.4f}, {known}, random guess 0.5.",
        "bound = train term + complexity + rest, at its own best gamma at the end of training; at "
        f"1 and above it says nothing. With probability {confidence:g}, each "
        "bound by itself. For our bounds (above the line) rest is the deviation, with what the "
        "split bound pays for the nonlinear part; for the classical ones the confidence term.",
        "A priori: all but the train term is known before training.",
    ]
    others = [row for row in comparison.rows if row["about"] != THE_NETWORK]
    lines += [f"{row['bound']} is about another network: {row['about']}." for row in others]
    if others:
        lines.append(
            "The train term of such a row is that network's, and its bound may lie below the true "
            "test error of the network that the other rows are about."
        )
    lines += [f"{letter}: {what}." for what, letter in _letters(comparison).items()]
    lines.append("All assume iid samples.")
    return lines


def save_comparison(comparison: Comparison, out: str | Path) -> None:
    """Write `compare.json` and `compare.png` to a folder.

    **Arguments:**

    - `comparison`: a [`Comparison`][].
    - `out`: where to; made if need be.

    **Returns:**

    Nothing.

    **Raises:**

    `ValueError` if the folder cannot be written; `OSError`, one line, if there is not enough room.
    """
    comparison = _validate.instance("comparison", comparison, Comparison)
    path = prepare_folder(out)
    write_json(path / "compare.json", comparison.as_dict())
    write_png(path / "compare.png", plot_comparison(comparison))
