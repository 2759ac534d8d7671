"""Every bound of this library and every classical one, for the same trained network."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import numpy as np

from .. import _validate
from .._files import plain
from .._results import outcome
from ..bounds import classical
from ..bounds.classical import SAMPLES
from ..tasks import Task
from ._ladder import PLUG_IN
from ._report import Report, report
from ._settings import Settings

EPSILONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TIMES = 10  # saved times at which the classical bounds are evaluated


class Comparison(eqx.Module):
    """What [`compare`][] found.

    **Attributes:**

    - `rows`: one dictionary for each bound at the end of training, with the keys `bound`,
        `ours`, `a_priori`, `deterministic`, `assumes`, `source`, `t`, `gamma` (its own best
        margin, or `None`), `train_term`, `complexity`, `rest`, their sum `value` (which may
        exceed 1), and `best_value` and `best_t`, the smallest value over the times in
        `over_time`. For a bound of this library `complexity` is the capacity and `rest` the
        deviation of its report entry; for a classical one `rest` is the confidence term.
    - `over_time`: for each bound a dictionary of `bound`, `t` and `value`.
    - `over_epsilon`: for each slope a dictionary of `epsilon`, `rows` as above, `train_risk` and
        `test_risk` at the end of training, and `result`; empty if no sweep was made.
    - `report`: the [`Report`][] of the network that `rows` and `over_time` are about.
    """

    rows: list[dict[str, Any]]
    over_time: list[dict[str, Any]]
    over_epsilon: list[dict[str, Any]]
    report: Report

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


def _curve(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The values of the rows of one bound over time."""
    return {
        "bound": rows[0]["bound"],
        "t": [row["t"] for row in rows],
        "value": [row["value"] for row in rows],
    }


def _at_end(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last of the rows of one bound, and beside it the best value over time."""
    best = min(rows, key=lambda row: row["value"])
    return {**rows[-1], "best_value": best["value"], "best_t": best["t"]}


def _own(entry: dict[str, Any]) -> dict[str, Any]:
    train = entry.get("train_smoothed_ramp_risk", entry["train_margin_risk"])
    total = train + entry["capacity"] + entry["deviation"]
    return {
        "bound": entry["bound"],
        "ours": True,
        "a_priori": entry["a_priori"],
        "deterministic": True,
        "assumes": list(entry["assumes"]),
        "source": "Golikov 2024, Theorem 5.2" if "5.2" in entry["bound"] else "nlbound_jax",
        "t": entry["t"],
        "gamma": entry["gamma"],
        "train_term": train,
        "complexity": entry["capacity"],
        "rest": entry["deviation"],
        "value": math.inf if math.isnan(total) else total,
    }


def own_rows(made: Report, bound: str) -> list[dict[str, Any]]:
    """A bound of the report at every time, each at the margin where its sum, which is not capped
    at 1, is smallest."""
    best: dict[float, dict[str, Any]] = {}
    for row in (_own(entry) for entry in made.bounds if entry["bound"] == bound):
        if row["t"] not in best or row["value"] < best[row["t"]]["value"]:
            best[row["t"]] = row
    return [best[t] for t in sorted(best)]


def _classical(bound: classical.ClassicalBound, t: float, task: Task) -> dict[str, Any]:
    # The VC bound of a network on inputs of full rank is the same before any linear map.
    invariant = bound.name == "vc" and task.rank == task.num_features
    gamma = None if bound.gamma is None else float(bound.gamma)
    return {
        "bound": bound.name.replace("_", "-"),
        "ours": False,
        "a_priori": bound.a_priori,
        "deterministic": bound.deterministic,
        "assumes": [
            *([] if invariant else [PLUG_IN]),
            *(a for a in bound.assumes if a != SAMPLES),
        ],
        "source": bound.source,
        "t": t,
        "gamma": gamma,
        "train_term": float(bound.train_risk),
        "complexity": float(bound.complexity),
        "rest": float(bound.confidence),
        "value": float(bound.value),
    }


def classical_rows(
    made: Report, task: Task, times: int, steps: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Every classical bound at about `times` of the saved times; the Gaussian PAC-Bayes bound, if
    `steps` are given, at the end only."""
    settings, count = made.settings, len(made.trajectory.ts)
    chosen = np.unique(np.linspace(0, count - 1, min(times, count) + 1).round().astype(int)[1:])
    # Not the key of the initialization: the draws must not depend on the start weights.
    key = None if steps is None else jax.random.fold_in(jax.random.key(settings.seed), 1)
    found: dict[str, list[dict[str, Any]]] = {}
    with jax.enable_x64(True):
        for i in (int(i) for i in chosen):
            bounds = classical.all_bounds(
                made.trajectory.network(i).weights,
                made.start.weights,
                task.x,
                task.y,
                epsilon=settings.epsilon,
                delta=settings.delta,
                precision_bits=settings.precision_bits,
                key=key if i == count - 1 else None,
                steps=steps or 0,
            )
            for bound in bounds.values():
                row = _classical(bound, float(made.trajectory.ts[i]), task)
                found.setdefault(row["bound"], []).append(row)
    return found


def _one(
    made: Report, task: Task, times: int, steps: int | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows at the end of training, and curves over it."""
    per_bound = [own_rows(made, name) for name in made.names()]
    per_bound += classical_rows(made, task, times, steps).values()
    return [_at_end(rows) for rows in per_bound], [_curve(rows) for rows in per_bound]


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

    `ValueError` naming the argument; `RuntimeError` if gradient descent diverged.
    """
    task = _validate.instance("task", task, Task)
    settings = Settings() if settings is None else settings
    _validate.instance("settings", settings, Settings)
    times = _validate.integer("times", times, 1)
    steps = None if steps is None else _validate.integer("steps", steps, 0)
    sweep = [_validate.scalar("epsilons", e, low=0, high=1) for e in epsilons]
    # The network that was asked for comes first, then the others in the order of epsilon.
    others = sorted(set(sweep) - {settings.epsilon})
    found: list[tuple[list, list, Report]] = []
    over_epsilon = []
    for epsilon in (settings.epsilon, *others):
        if progress is not None:
            progress(epsilon)
        run = dataclasses.replace(settings, epsilon=epsilon)
        made = report(task, run, progress_meter=progress_meter)
        rows, curves = _one(made, task, times, steps)
        found = found or [(rows, curves, made)]
        point = {
            "epsilon": epsilon,
            "rows": rows,
            "train_risk": float(made.train_risk[-1]),
            "test_risk": None if made.test_risk is None else float(made.test_risk[-1]),
            "result": outcome(made.trajectory.result),
        }
        over_epsilon.append(point)
    over_epsilon = sorted(over_epsilon, key=lambda point: point["epsilon"]) if sweep else []
    rows, curves, made = found[0]
    return Comparison(rows, curves, over_epsilon, made)
