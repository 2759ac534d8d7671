"""A task and settings become a trained network and what the bounds say of it."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import numpy as np
import xarray as xr

from .. import _validate, ladder
from .._files import plain
from .._results import outcome
from ..dynamics import Trajectory
from ..ladder import AbstractBound, Terms
from ..networks import LeakyMLP
from ..tasks import Task
from ._rows import Rows
from ._settings import Settings
from ._train import train

SCHEMA = 2


class Report(eqx.Module):
    """What a report holds.

    **Attributes:**

    - `bounds`: the bounds, a tuple of [`AbstractBound`][]s, in the order of the table.
    - `terms`: what each says at every time and margin, a [`Terms`][] of arrays by its name.
    - `start`: the network at time 0, a [`LeakyMLP`][].
    - `trajectory`: the trained network over time, a [`Trajectory`][].
    - `scale`: $\\|\\omega V_L \\cdots V_1\\|$ of the reference network over time, `(times,)`.
    - `train_risk`, `test_risk`: the share of samples with $y f(x) \\le 0$ over time, `(times,)`: an
        output of 0, or NaN, is an error. `test_risk` is `None` without test data.
    - `assumes`: what each bound assumes of these data, by its name.
    - `task`: a summary of the data.
    - `settings`: the [`Settings`][].
    """

    bounds: tuple[AbstractBound, ...]
    terms: dict[str, Terms]
    start: LeakyMLP
    trajectory: Trajectory
    scale: np.ndarray
    train_risk: np.ndarray
    test_risk: np.ndarray | None
    assumes: dict[str, tuple[str, ...]]
    task: dict[str, Any]
    settings: Settings = eqx.field(static=True)

    @property
    def network(self) -> LeakyMLP:
        """The network at the end of training."""
        return self.trajectory.network()

    def names(self) -> list[str]:
        """The names of the bounds, in the order of the table."""
        return [bound.name for bound in self.bounds]

    def labelled(self) -> Rows:
        """The terms as rows, made when they are asked for."""
        ts, risks = np.asarray(self.trajectory.ts, float).tolist(), self.test_risk
        by_time = {} if risks is None else dict(zip(ts, risks.tolist(), strict=True))
        return Rows(self.bounds, self.terms, self.assumes, by_time)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each bound and cell (t, gamma), as in `report.json`: the keys
        `bound`, `t`, `gamma` (`None` where a bound has none), `train_term`, `complexity`, `rest`,
        their sum `uncapped`, `value` (at most 1), `train_margin_risk`, `train_ramp_risk`,
        `test_risk`, `a_priori`, `deterministic`, `assumes`, `source`, `numbers` (those that the
        bound was made with), `result`, and `parts`, an object of whatever the bound is made of. A
        bound that chooses its margin has one row a time."""
        return self.labelled().every()

    def best(self, bound: str) -> dict[str, Any]:
        """The cell in which `bound` is smallest (the union over cells is paid for).

        **Arguments:**

        - `bound`: a name out of [`names`][].

        **Returns:**

        An entry of [`rows`][].

        **Raises:**

        `ValueError` if there is no such bound.
        """
        return self.labelled().best(_validate.member("bound", bound, self.names()))

    def at_end(self, bound: str) -> dict[str, Any]:
        """The best cell of `bound` at the end of training.

        **Arguments:**

        - `bound`: a name out of [`names`][].

        **Returns:**

        An entry of [`rows`][].

        **Raises:**

        `ValueError` if there is no such bound.
        """
        return self.over_time(bound)[-1]

    def over_time(self, bound: str) -> list[dict[str, Any]]:
        """The best cell of `bound` at every time.

        **Arguments:**

        - `bound`: a name out of [`names`][].

        **Returns:**

        Entries of [`rows`][], in the order of time.

        **Raises:**

        `ValueError` if there is no such bound.
        """
        return self.labelled().over_time(_validate.member("bound", bound, self.names()))

    def to_xarray(self) -> xr.Dataset:
        """The report as a labelled dataset.

        **Returns:**

        An `xarray.Dataset` over `bound` and `t`, each bound at its best margin: `value` (at most
        1), `gamma`, `train_term`, `complexity`, `rest`; over `t` `train_risk`, `test_risk` and
        `scale`; over `bound` what it assumes and where it stands. Where a bound was not
        evaluated it is NaN. The settings are attributes.
        """
        ts = np.asarray(self.trajectory.ts, float)
        names = ("value", "gamma", "train_term", "complexity", "rest")
        tables = {name: np.full((len(self.bounds), len(ts)), np.nan) for name in names}
        for i, bound in enumerate(self.bounds):
            terms = self.terms[bound.name]
            chosen, at = terms.best_margins()[:, None], np.searchsorted(ts, terms.t)
            for name, table in tables.items():
                values = np.take_along_axis(np.asarray(getattr(terms, name)), chosen, axis=1)
                table[i, at] = values[:, 0]
        tables["value"] = np.minimum(1.0, tables["value"])
        data: dict[str, Any] = {n: (("bound", "t"), table) for n, table in tables.items()}
        for name in ("train_risk", "test_risk", "scale"):
            if getattr(self, name) is not None:
                data[name] = ("t", np.asarray(getattr(self, name), float))
        words = ("a_priori", "deterministic", "source")
        labels = {n: ("bound", [getattr(bound, n) for bound in self.bounds]) for n in words}
        labels["assumes"] = ("bound", ["; ".join(self.assumes[name]) for name in self.names()])
        attrs = {n: v for n, v in self.settings.as_dict().items() if v is not None}
        return xr.Dataset(
            data,
            coords={"bound": self.names(), "t": ("t", ts, {"units": "gradient-flow time"})}
            | labels,
            attrs={"task": self.task["name"], **attrs},
        )

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values, in the layout of `report.json`."""
        packages = ("nlbound_jax", "jax", "equinox", "diffrax", "optax", "numpy")
        trajectory = {
            "t": self.trajectory.ts,
            "train_risk": self.train_risk,
            "test_risk": self.test_risk,
            "scale": self.scale,
            "num_steps": int(self.trajectory.stats["num_steps"]),
            "reached": float(self.trajectory.reached),
            "result": outcome(self.trajectory.result),
        }
        return {
            "schema": SCHEMA,
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "task": self.task,
            "settings": self.settings.as_dict(),
            "bounds": plain(self.rows()),
            "trajectory": plain(trajectory),
        }


def summary(task: Task) -> dict[str, Any]:
    """What the data is, as plain values."""
    trace = None if task.x_test is None else float(np.mean(np.sum(task.x_test**2, axis=1)))
    return {
        "name": task.name,
        "num_samples": task.num_samples,
        "num_test": None if task.y_test is None else len(task.y_test),
        "rank": task.rank,
        "num_features": task.num_features,
        "condition_number": task.condition_number,
        "alignment": task.alignment,
        "norm_bound": task.norm_bound,
        "largest_eigenvalue": float(task.spectrum[0]),
        "smallest_eigenvalue": float(task.spectrum[-1]),
        # The mean of |x|^2 over the whitened test set; the plug-in takes it to be d.
        "held_out_trace": trace,
    }


def chosen_bounds(
    bounds: Sequence[AbstractBound] | None, task: Task, settings: Settings
) -> tuple[AbstractBound, ...]:
    """The bounds of a report: those that were asked for, else the paper's and ours as far as the
    data has what they need, with the numbers of the settings."""
    known = ladder.known_of(task, along=True)
    if bounds is not None:
        return ladder.checked_bounds(bounds, known)
    every = ladder.configured(ladder.default_bounds(), **settings.bound_numbers)
    return ladder.applicable(every, known)


def report_of(run: ladder.Run, settings: Settings, bounds: tuple[AbstractBound, ...]) -> Report:
    """The report on a run."""
    with jax.enable_x64(True):
        terms = ladder.evaluate_run(bounds, run, settings.delta)
        train_risk, test_risk = ladder.risks(run)
    return Report(
        bounds=bounds,
        terms=terms,
        start=run.start,
        trajectory=run.trajectory,
        scale=run.scale,
        train_risk=train_risk,
        test_risk=test_risk,
        assumes={bound.name: bound.assumes(run.task) for bound in bounds},
        task=summary(run.task),
        settings=settings,
    )


def report(
    task: Task,
    settings: Settings | None = None,
    *,
    bounds: Sequence[AbstractBound] | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
) -> Report:
    """Train a network and evaluate the bounds along the way: what `nlbound report` prints.

    The network is trained up to the learning time of a fraction of the strongest mode. At every
    saved time t and margin $\\gamma$ = scale(t) / ratio, Theorem 5.2 in both readings and the
    trajectory bound are evaluated, with a union over the cells, and at every time the split
    bound, a priori and a posteriori, over its own cells. The bounds are computed in
    float64, whatever `jax_enable_x64` says; the training runs in `settings.dtype`.

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][]; the defaults if `None`.
    - `bounds`: bounds of the ladder, such as
        `(*ladder.OURS, ladder.RepairedTheorem52Bound(kappa=1))`. By default those of the
        paper and ours, with the `kappa` and `precision_bits` of the settings.
    - `progress_meter`: a Diffrax progress meter for the training; none by default.

    **Returns:**

    A [`Report`][].

    **Raises:**

    `ValueError` naming the argument; `RuntimeError` if gradient descent diverged
    or the flow of the reference network stopped.
    """
    task = _validate.instance("task", task, Task)
    settings = Settings() if settings is None else settings
    _validate.instance("settings", settings, Settings)
    bounds = chosen_bounds(bounds, task, settings)
    return report_of(train(task, settings, progress_meter=progress_meter), settings, bounds)
