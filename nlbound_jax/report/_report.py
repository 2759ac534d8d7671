"""A task and settings become a trained network and what the bounds say of it."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import _validate, ladder
from .._files import plain
from .._results import outcome
from .._settings import TIME
from ..dynamics import Trajectory
from ..ladder import AbstractBound, Terms
from ..networks import LeakyMLP
from ..tasks import AnchorSplit, Task
from ._anchor import declared_split, train_anchor
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
    - `omitted`: why a bound of the ladder was left out, by its name.
    - `certified`: the network that a bound is about where that is not `network`, by the bound's
        name, on raw features over the task's scale; `certified_risk`: its test error, `None`
        without test data.
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
    omitted: dict[str, str]
    certified: dict[str, LeakyMLP]
    certified_risk: dict[str, float | None]
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
        return Rows(self.bounds, self.terms, self.assumes, by_time, self.certified_risk)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each bound and cell (t, gamma), as in `report.json`: the keys
        `bound`, `t`, `gamma` (`None` where a bound has none), `train_term`, `complexity`, `rest`,
        their sum `uncapped`, `value` (at most 1), `train_margin_risk`, `train_ramp_risk` (`None`
        where there is no margin), `test_risk`, `a_priori`, `deterministic`, `assumes`, `source`,
        `about` (which network the bound is about, and `test_risk` with it), `numbers` (those that
        the bound was made with), `result`, and `parts`, an object of whatever the bound is made of.
        A bound that chooses its margin has one row a time."""
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
        flow = self.settings.dynamics == "flow"
        units = TIME if flow else "steps times step size"
        # No file of arrays knows of truth values.
        values = {
            n: int(v) if v is True or v is False else v for n, v in self.settings.as_dict().items()
        }
        attrs = {n: v for n, v in values.items() if v is not None}
        return xr.Dataset(
            data,
            coords={"bound": self.names(), "t": ("t", ts, {"units": units})} | labels,
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
            "omitted": self.omitted,
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


class Chosen(NamedTuple):
    """The bounds of a report, the split that some of them need, and why others are left out."""

    bounds: tuple[AbstractBound, ...]
    split: AnchorSplit | None
    omitted: dict[str, str]


def chosen_bounds(bounds: Sequence[AbstractBound] | None, task: Task, settings: Settings) -> Chosen:
    """The bounds of a report: those that were asked for, else the paper's and ours as far as the
    data has what they need, with the numbers of the settings."""
    wanted = ladder.default_bounds() if bounds is None else bounds
    if not isinstance(wanted, Sequence):
        wanted = ()  # refused below
    split, lacking = None, {"held_out": "it needs test inputs, and a norm that no input exceeds"}
    lacking["one_hidden_layer"] = f"it needs depth 2, not {settings.depth}"
    lacking["flow"] = "it needs gradient flow, not gradient descent"
    if any("anchor" in getattr(bound, "needs", ()) for bound in wanted):
        try:
            split = declared_split(task, settings)
        except ValueError as error:
            lacking["anchor"] = f"there is no anchor: {str(error).rstrip('.')}"
    anchored = split is not None
    flow = settings.dynamics == "flow"
    known = ladder.known_of(task, depth=settings.depth, along=True, anchored=anchored, flow=flow)
    if bounds is not None:
        if "anchor" in lacking and split is None:
            raise ValueError(f"`bounds` must be without anchored ones, as {lacking['anchor']}.")
        return Chosen(ladder.checked_bounds(bounds, known), split, {})
    every = ladder.configured(wanted, **settings.bound_numbers)
    chosen = ladder.applicable(every, known)
    missing = {bound.name: [n for n in bound.needs if n not in known] for bound in every}
    omitted = {name: lacking[needs[0]] for name, needs in missing.items() if needs}
    return Chosen(chosen, split, omitted)


def run_of(
    task: Task,
    settings: Settings,
    chosen: Chosen,
    progress_meter: diffrax.AbstractProgressMeter | None,
) -> ladder.Run:
    """The run that a report is on: the network, and the anchor if one is needed."""
    anchor = None if chosen.split is None else train_anchor(task, chosen.split, settings)
    return train(task, settings, anchor=anchor, progress_meter=progress_meter)


def certified_by(
    terms: Mapping[str, Terms], anchor: ladder.Anchor | None
) -> tuple[dict[str, LeakyMLP], dict[str, float | None]]:
    """The networks that bounds are about where these are others than the trained one, on raw
    features, and their test errors, by the names of the bounds."""
    networks, risks = {}, {}
    for name, found in terms.items():
        if found.certified is not None and anchor is not None:
            # Such a bound is evaluated once, at one margin.
            weights = tuple(jnp.asarray(w.reshape(w.shape[-2:])) for w in found.certified)
            net = LeakyMLP(weights, anchor.net.epsilon)
            networks[name], risks[name] = anchor.on_raw(net), anchor.test_risk(net)
    return networks, risks


def report_of(run: ladder.Run, settings: Settings, chosen: Chosen) -> Report:
    """The report on a run."""
    bounds = chosen.bounds
    with jax.enable_x64(True):
        terms = ladder.evaluate_run(bounds, run, settings.delta)
        train_risk, test_risk = ladder.risks(run)
        certified, certified_risk = certified_by(terms, run.anchor)
    return Report(
        bounds=bounds,
        terms=terms,
        start=run.start,
        trajectory=run.trajectory,
        scale=run.scale,
        train_risk=train_risk,
        test_risk=test_risk,
        assumes={b.name: ladder.assumptions(b, run.task, flow=run.flow) for b in bounds},
        omitted=chosen.omitted,
        certified=certified,
        certified_risk=certified_risk,
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

    The network is trained up to the learning time of a fraction of the strongest mode, by gradient
    flow or, with `dynamics="gd"`, by full-batch gradient descent: what rests on the envelope then
    has that of these steps, and what needs gradient flow is left out. At every saved time t and
    margin $\\gamma$ = scale(t) / ratio, Theorem 5.2 in both readings and the trajectory bound are
    evaluated, with a union over the cells, and at every time the split bound, a priori and a
    posteriori, over its own cells. The bounds are computed in float64, whatever `jax_enable_x64`
    says; the training runs in `settings.dtype`.

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

    `ValueError` naming the argument; `RuntimeError` if gradient descent diverged (that of the
    reference network as well) or the flow of the reference network stopped.
    """
    task = _validate.instance("task", task, Task)
    settings = Settings() if settings is None else settings
    _validate.instance("settings", settings, Settings)
    chosen = chosen_bounds(bounds, task, settings)
    return report_of(run_of(task, settings, chosen, progress_meter), settings, chosen)
