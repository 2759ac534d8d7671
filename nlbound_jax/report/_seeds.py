"""The same report for several initializations."""

import dataclasses
from collections.abc import Iterator, Sequence

import diffrax
import numpy as np
from rich.table import Table

from .. import _validate
from .._numbers import options
from ..tasks import Task
from ._report import Report, report
from ._settings import Settings
from ._table import number


def report_seeds(
    task: Task,
    settings: Settings,
    num_seeds: int,
    *,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
) -> Iterator[Report]:
    """Reports for `settings.seed`, `settings.seed + 1`, ...

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][]; `seed` is the first seed.
    - `num_seeds`: how many.
    - `progress_meter`: a Diffrax progress meter for each training; none by default.

    **Returns:**

    The reports, one after the other.

    **Raises:**

    `ValueError` naming the argument.
    """
    task = _validate.instance("task", task, Task)
    settings = _validate.instance("settings", settings, Settings)
    num_seeds = _validate.integer("num_seeds", num_seeds, 1)
    last = settings.seed + num_seeds - 1
    largest = int(options(Settings)["seed"].high)
    if last > largest:
        raise ValueError(
            f"`num_seeds` must be at most {largest - settings.seed + 1} from `seed` = "
            f"{settings.seed} on, got {num_seeds}."
        )
    return (
        report(task, dataclasses.replace(settings, seed=seed), progress_meter=progress_meter)
        for seed in range(settings.seed, last + 1)
    )


def spread(reports: list[Report]) -> dict[str, dict[str, float | list[float]]]:
    """The best value of every bound over several reports.

    **Arguments:**

    - `reports`: out of [`report_seeds`][].

    **Returns:**

    For every bound `values` (one a report), `min`, `mean` and `max`; and the same for
    `test_risk`, at the end of training, where there is test data.

    **Raises:**

    `ValueError` naming `reports` if it is something else.
    """
    if not isinstance(reports, Sequence) or not reports:
        raise ValueError(f"`reports` must be a list of reports, got {_validate.shown(reports)}.")
    reports = [_validate.instance("reports", one, Report) for one in reports]
    values_of = {name: [r.best(name)["value"] for r in reports] for name in reports[0].names()}
    risks = [r.test_risk[-1] for r in reports if r.test_risk is not None]
    if risks:
        values_of["test_risk"] = [float(risk) for risk in risks]
    return {
        name: {
            "values": values,
            "min": min(values),
            "mean": float(np.mean(values)),
            "max": max(values),
        }
        for name, values in values_of.items()
    }


def spread_table(reports: list[Report]) -> Table:
    """The spread over seeds as a table.

    **Arguments:**

    - `reports`: out of [`report_seeds`][].

    **Returns:**

    A Rich table.
    """
    first = reports[0].settings.seed
    grid = Table(
        title=f"best value over seeds {first} to {first + len(reports) - 1}", title_justify="left"
    )
    grid.add_column("bound", no_wrap=True)
    for name in ("min", "mean", "max"):
        grid.add_column(name, justify="right")
    for name, row in spread(reports).items():
        label = "test error at the end" if name == "test_risk" else name
        grid.add_row(label, *(number(row[key]) for key in ("min", "mean", "max")))  # pyright: ignore
    return grid
