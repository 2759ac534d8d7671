"""Every bound of this library and every classical one, for the same trained network."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import numpy as np

from .. import _validate, ladder
from .._files import plain
from .._results import outcome
from ..ladder import AbstractBound, Terms
from ..tasks import Task
from ._report import Report, chosen_bounds, report_of, run_of
from ._rows import Rows
from ._settings import Settings

EPSILONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TIMES = 10  # saved times at which the classical bounds are evaluated


class Comparison(eqx.Module):
    """What [`compare`][] found.

    **Attributes:**

    - `rows`: one dictionary for each bound at the end of training, at its own best margin, with
        the keys of a report's entry; `ours`, whether it is of the paper or this library;
        `best_uncapped` and `best_t`, the smallest sum over the times in `over_time`.
    - `over_time`: for each bound a dictionary of `bound`, `t` and `uncapped`.
    - `bounds`: the bounds, a tuple of [`AbstractBound`][]s, in the order of `rows`.
    - `over_epsilon`: for each slope a dictionary of `epsilon`, `rows` as above, `train_risk` and
        `test_risk` at the end of training, and `result`; empty if no sweep was made.
    - `report`: the [`Report`][] of the network that `rows` and `over_time` are about.
    """

    rows: list[dict[str, Any]]
    over_time: list[dict[str, Any]]
    over_epsilon: list[dict[str, Any]]
    report: Report
    bounds: tuple[AbstractBound, ...]

    def __getitem__(self, bound: str) -> dict[str, Any]:
        """The row of a bound.

        **Arguments:**

        - `bound`: its name.

        **Returns:**

        An entry of `rows`.

        **Raises:**

        `ValueError` if there is no such row.
        """
        rows = {row["bound"]: row for row in self.rows}
        return rows[_validate.member("bound", bound, tuple(rows))]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON values, in the layout of `compare.json`."""
        whole = self.report.as_dict()
        kept = ("schema", "versions", "task", "settings", "trajectory")
        return {
            **{key: whole[key] for key in kept},
            "bounds": plain(self.rows),
            "over_time": plain(self.over_time),
            "over_epsilon": plain(self.over_epsilon),
        }


class _Point(NamedTuple):
    """One network of a comparison: rows at the end of training, and curves over it."""

    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    report: Report

    def at(self, epsilon: float) -> dict[str, Any]:
        """What the sweep keeps of it."""
        report = self.report
        return {
            "epsilon": epsilon,
            "rows": self.rows,
            "train_risk": float(report.train_risk[-1]),
            "test_risk": None if report.test_risk is None else float(report.test_risk[-1]),
            "result": outcome(report.trajectory.result),
        }


def _rows_and_curves(
    rows: Rows, *, ours: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """For every bound its row at the end, and its sum over time, each at its best margin there:
    sums that exceed 1 have an order too."""
    at_end, curves = [], []
    for name, terms in rows.terms.items():
        margins, sums = np.argmin(terms.value, axis=1), np.min(terms.value, axis=1)
        best, last = int(np.argmin(sums)), len(sums) - 1
        row = rows.cell(name, last, int(margins[last]))
        best_of_all = {"best_uncapped": float(sums[best]), "best_t": float(terms.t[best])}
        at_end.append({**row, "ours": ours, **best_of_all})
        curves.append({"bound": name, "t": terms.t.tolist(), "uncapped": sums.tolist()})
    return at_end, curves


def _classical(
    run: ladder.Run, settings: Settings, bounds: Sequence[AbstractBound], times: int
) -> dict[str, Terms]:
    """The classical bounds at about `times` of the saved times. They hold for all weights at once,
    and so at every time; float64 throughout, as they take no account of rounding."""
    count = len(run.trajectory.ts)
    chosen = np.unique(np.linspace(0, count - 1, min(times, count) + 1).round().astype(int)[1:])
    with jax.enable_x64(True):
        return ladder.evaluate_run(bounds, run, settings.delta, times=chosen, dtype=float)


def _point(
    task: Task,
    settings: Settings,
    classical: Sequence[AbstractBound],
    times: int,
    progress_meter: diffrax.AbstractProgressMeter | None,
) -> _Point:
    """Train a network, and evaluate every bound on it."""
    chosen = chosen_bounds(None, task, settings)
    run = run_of(task, settings, chosen, progress_meter)
    report = report_of(run, settings, chosen)
    labelled = report.labelled()
    ours = _rows_and_curves(labelled, ours=True)
    terms = _classical(run, settings, classical, times)
    assumes = {bound.name: bound.assumes(task) for bound in classical}
    others = Rows(classical, terms, assumes, labelled.test_risk)
    theirs = _rows_and_curves(others, ours=False)
    return _Point(ours[0] + theirs[0], ours[1] + theirs[1], report)


def compare(
    task: Task,
    settings: Settings | None = None,
    *,
    epsilons: Sequence[float] = EPSILONS,
    times: int = TIMES,
    steps: int | None = 2000,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Train a network and hold every bound of this library against every classical bound on the
    same weights: what `nlbound compare` prints.

    Each bound is taken at its own best margin and holds with probability $1 - \\delta$ by itself.
    The bounds of this library pay for the saved times and margins as in [`report`][]; the classical
    ones hold for all weights at once, so that the best over time costs nothing, except for
    `pac-bayes-gaussian`, whose estimate is made once, at the end of training. The classical bounds
    are evaluated on whitened inputs as if the whitening had been fixed before the sample: the
    same plug-in of $\\Sigma_X$ for $\\Sigma$ as in the bounds of this library.

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][]; the defaults if `None`.

    **Other arguments:**

    - `epsilons`: one minus the negative slopes of more networks, for the sweep; the one of
        `settings` is added. With none there is no sweep.
    - `times`: at about how many of the saved times the classical bounds are evaluated.
    - `steps`: steps of Adam of [`pac_bayes_gaussian`][], which is left out with `None`.
    - `progress_meter`: a Diffrax progress meter for each training; none by default.
    - `progress`: called with each epsilon before its run.

    **Returns:**

    A [`Comparison`][].

    **Raises:**

    `ValueError` naming the argument; `RuntimeError` if gradient descent diverged
    or the flow of the reference network stopped.
    """
    task = _validate.instance("task", task, Task)
    settings = Settings() if settings is None else settings
    _validate.instance("settings", settings, Settings)
    times = _validate.integer("times", times, 1)
    steps = None if steps is None else _validate.integer("steps", steps, 0)
    sweep = _validate.numbers("epsilons", epsilons, low=0, high=1)
    classical = ladder.configured(
        (
            bound
            for bound in ladder.classical_bounds()
            if steps is not None or "steps" not in bound.numbers
        ),
        precision_bits=settings.precision_bits,
        **({} if steps is None else {"steps": steps}),
    )
    # The network that was asked for comes first, then the others in the order of epsilon.
    epsilons = (settings.epsilon, *sorted(set(sweep) - {settings.epsilon}))
    points: dict[float, _Point] = {}
    for epsilon in epsilons:
        if progress is not None:
            progress(epsilon)
        one = dataclasses.replace(settings, epsilon=epsilon)
        points[epsilon] = _point(task, one, classical, times, progress_meter)
    first = points[settings.epsilon]
    over_epsilon = [points[e].at(e) for e in sorted(points)] if sweep else []
    bounds = (*first.report.bounds, *classical)
    return Comparison(first.rows, first.curves, over_epsilon, first.report, bounds)
