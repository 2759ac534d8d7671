"""A task and settings become a trained network and what the bounds say of it."""

import importlib.metadata
import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import numpy as np

from .. import _validate
from .._files import plain
from .._results import outcome
from ..dynamics import Trajectory, reference_flow
from ..networks import LeakyMLP
from ..tasks import Task
from ._ladder import Run, theorem_rows, trajectory_rows
from ._settings import Settings
from ._split import split_rows
from ._train import end_time, risks, root_mean_square_residual, start, train

SCHEMA = 1


class Report(eqx.Module):
    """What a report holds.

    **Attributes:**

    - `bounds`: one dictionary for each bound and cell (t, gamma), with the keys `bound`,
        `kappa`, `ratio`, `gamma`, `t`, `train_margin_risk`, `train_ramp_risk`, `capacity`,
        `deviation`, `value` (at most 1), `value_ramp`, `test_risk`, `a_priori`, `assumes`,
        `result`. The split bound has one entry a time, in its best cell, and more keys: the
        parts of `deviation` (`complexity`, `smoothing`, `proxy`), the risk it adds them to
        (`train_smoothed_ramp_risk`), the cell (`noise`, `linear`, `paths`, `theta`, `exponent`,
        `log_cells`) and `held_out_trace`.
    - `start`: the network at time 0, a [`LeakyMLP`][].
    - `trajectory`: the trained network over time, a [`Trajectory`][].
    - `scale`: $\\|\\omega V_L \\cdots V_1\\|$ of the reference network over time, `(times,)`.
    - `train_risk`, `test_risk`: over time, `(times,)`; `test_risk` is `None` without test data.
    - `task`: a summary of the data.
    - `settings`: the [`Settings`][].
    """

    bounds: list[dict[str, Any]]
    start: LeakyMLP
    trajectory: Trajectory
    scale: np.ndarray
    train_risk: np.ndarray
    test_risk: np.ndarray | None
    task: dict[str, Any]
    settings: Settings = eqx.field(static=True)

    @property
    def network(self) -> LeakyMLP:
        """The network at the end of training."""
        return self.trajectory.network()

    def names(self) -> list[str]:
        """The names of the bounds, in the order of the table."""
        return list(dict.fromkeys(row["bound"] for row in self.bounds))

    def best(self, bound: str) -> dict[str, Any]:
        """The cell in which `bound` is smallest (the union over cells is paid for).

        **Arguments:**

        - `bound`: a name out of [`names`][].

        **Returns:**

        An entry of `bounds`.
        """
        return min((r for r in self.bounds if r["bound"] == bound), key=_order)

    def at_end(self, bound: str) -> dict[str, Any]:
        """The best cell of `bound` at the end of training.

        **Arguments:**

        - `bound`: a name out of [`names`][].

        **Returns:**

        An entry of `bounds`.
        """
        return self.over_time(bound)[-1]

    def over_time(self, bound: str) -> list[dict[str, Any]]:
        """The best cell of `bound` at every time.

        **Arguments:**

        - `bound`: a name out of [`names`][].

        **Returns:**

        Entries of `bounds`, in the order of time.
        """
        best = {}
        for row in sorted((r for r in self.bounds if r["bound"] == bound), key=_order):
            best.setdefault(row["t"], row)
        return [best[t] for t in sorted(best)]

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
            "bounds": plain(self.bounds),
            "trajectory": plain(trajectory),
        }


def _order(row: dict[str, Any]) -> tuple[float, float]:
    # Where everything is vacuous, prefer the cell with the smaller penalty.
    penalty = row["capacity"] + row["deviation"]
    return row["value"], penalty if math.isfinite(penalty) else math.inf


def _summary(task: Task) -> dict[str, Any]:
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
    }


def report(
    task: Task,
    settings: Settings | None = None,
    *,
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
    - `progress_meter`: a Diffrax progress meter for the training; none by default.

    **Returns:**

    A [`Report`][].

    **Raises:**

    `ValueError` naming the argument; `RuntimeError` if gradient descent diverged.
    """
    task = _validate.instance("task", task, Task)
    settings = Settings() if settings is None else settings
    _validate.instance("settings", settings, Settings)
    if settings.dtype == "float64":
        _validate.needs_x64("dtype='float64'")
    meter = diffrax.NoProgressMeter() if progress_meter is None else progress_meter
    with jax.enable_x64(True):
        net = start(task, settings)
        t1 = end_time(task, settings)
        trajectory = train(net, task, settings, t1, meter)
        reference = reference_flow(
            net,
            task.target,
            np.asarray(trajectory.ts, float),
            initial_residual=root_mean_square_residual(net, task),
        )
        scale = np.asarray(reference.scale)
        gammas = scale[:, None] / np.asarray(settings.ratios)
        measured = risks(trajectory, task, gammas)
        run = Run(task, settings, net, trajectory, reference, gammas, measured)
        rows = [*theorem_rows(run, "printed"), *theorem_rows(run, "repaired")]
        rows += [*trajectory_rows(run, measured=False), *trajectory_rows(run, measured=True)]
        rows += split_rows(run)
    return Report(
        bounds=rows,
        start=net,
        trajectory=trajectory,
        scale=scale,
        train_risk=np.asarray(run.risks.train),
        test_risk=None if run.risks.test is None else np.asarray(run.risks.test),
        task=_summary(task),
        settings=settings,
    )
