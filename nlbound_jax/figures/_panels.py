"""What Figures 1 to 6 share: Theorem 5.2 over training time, one panel a case and reading."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from .._colours import COLOURS
from .._results import RESULTS, outcome
from .._types import Reading
from ..ladder import (
    EnvelopeTrajectoryBound,
    PrintedTheorem52Bound,
    RepairedTheorem52Bound,
    Run,
    SplitAPriori,
    colour_of,
    configured,
    evaluate_run,
    risks,
)
from ..report import Settings, end_time, train
from ..tasks import Task
from ._common import Preset

RATIOS = (1.0, 10.0, 100.0)
READINGS: tuple[Reading, ...] = ("printed", "repaired")
THEOREM = (PrintedTheorem52Bound(), RepairedTheorem52Bound())
OVERLAY = (EnvelopeTrajectoryBound(), SplitAPriori())
CELLS = "the (t, ratio) cells of one case, over which its union bound is taken"


class Case(NamedTuple):
    """One family of curves, over time and margins: `label` names it in the picture."""

    label: str
    settings: Settings
    side: int = 7


def settings(preset: Preset, **changes: Any) -> Settings:
    """The settings of a case: the preset's, and what the figure varies."""
    known = {"width": preset.width, "seed": preset.seed, "num_times": preset.num_times}
    return Settings(**{**known, "ratios": RATIOS, **changes})


def _train(preset: Preset, task: Task, settings: Settings, horizon: float, rtol: float) -> Run:
    """The network along its gradient flow, and the reference network; margins relative to its
    outputs."""
    end = horizon * end_time(task, settings)
    chosen = dataclasses.replace(settings, end_time=end, rtol=rtol)
    run = train(task, chosen, envelope=preset.overlay)
    if run.trajectory.result != RESULTS.successful:
        raise RuntimeError(f"{task.name}, {settings}: {outcome(run.trajectory.result)}")
    return run


def _paper_margins(run: Run, settings: Settings) -> Run:
    """The run at the paper's margins, multiples of $\\beta^L$."""
    gammas = np.full(run.scale.shape, settings.beta**settings.depth)[:, None]
    return eqx.tree_at(lambda run: run.gammas, run, gammas / np.asarray(settings.ratios))


def _theorem(run: Run, settings: Settings) -> dict[str, Any]:
    """Theorem 5.2 in both readings; `deviation` is `(times ratios readings)`."""
    bounds = configured(THEOREM, **settings.bound_numbers)
    terms = list(evaluate_run(bounds, run, settings.delta).values())
    train_risk, test_risk = risks(run)
    return {
        "t": np.asarray(run.trajectory.ts, float),
        "gamma": run.gammas,
        "train_margin_risk": terms[0].margin_risk,
        "capacity": terms[0].complexity[0, 0],
        "deviation": np.stack([one.rest for one in terms], axis=-1),
        "scale": run.scale,
        "train_risk": train_risk,
        "test_risk": np.asarray(test_risk, float),
    }


def _overlay(run: Run, settings: Settings, *names: str) -> dict[str, np.ndarray]:
    """Bounds drawn over the paper's, each at its best margin at every time; the union over the
    cells is paid for."""
    bounds = [b for b in configured(OVERLAY, **settings.bound_numbers) if b.name in names]
    terms_of = evaluate_run(bounds, run, settings.delta)
    return {name: np.minimum(1.0, terms.value).min(axis=1) for name, terms in terms_of.items()}


def _case_coordinates(case: Case, run: Run) -> dict[str, Any]:
    first, chosen, s = np.asarray(run.start.weights[0], float), case.settings, run.task.alignment
    names = ("width", "depth", "epsilon", "beta", "init", "kappa", "precision_bits")
    return {
        "side": case.side,
        **{name: getattr(chosen, name) for name in names},
        "task": run.task.name,
        "dim": run.task.rank,
        "num_samples": run.task.num_samples,
        "alignment": s,
        "stable_rank_root": float(np.linalg.norm(first) / np.linalg.norm(first, 2)),
        "end_time": float(run.trajectory.ts[-1]),
        "time_unit": 1.0 if chosen.depth == 2 else chosen.beta ** (2 - chosen.depth) / s,
    }


def evaluate(
    title: str,
    preset: Preset,
    cases: Sequence[Case],
    *,
    horizon: float = 0.7,
    rtol: float = 1e-5,
) -> xr.Dataset:
    """Theorem 5.2 over training time for several cases. Cases that differ only in the formula
    (kappa, precision bits) share one training.

    **Arguments:**

    - `title`: of the figure.
    - `preset`: a [`Preset`][].
    - `cases`: with the same number of times and the same ratios.
    - `horizon`: the fraction of the learning time at which training ends. With margins in
        units of $\\beta^L$ the bound is vacuous well before; with relative margins it is 1.
    - `rtol`: of the gradient flow.

    **Returns:**

    An `xarray.Dataset`. Over `case`, `step` (times), `ratio` and `reading`: `value` (not capped
    at 1) and `deviation`; over some of these `gamma`, `train_margin_risk`, `capacity`,
    `train_risk`, `test_risk`, `scale` (of the reference network's outputs), and, with the
    overlay, `overlay` over `case`, `step` and `bound`.
    Coordinates: `t` and what characterizes each case. Attributes: every parameter, a list
    where the cases differ.
    """
    horizon = 1.0 if preset.relative_gamma else horizon
    tasks = {side: preset.task(side) for side in {case.side for case in cases}}
    runs: dict[Any, Run] = {}
    shared: dict[Any, dict[str, np.ndarray]] = {}
    tables, coordinates = [], []
    trajectory, split = (bound.name for bound in OVERLAY)
    with jax.enable_x64(True):
        for case in cases:
            chosen = case.settings
            key = (case.side, dataclasses.replace(chosen, kappa=2, precision_bits=32))
            if key not in runs:
                runs[key] = _train(preset, tasks[case.side], chosen, horizon, rtol)
            run = runs[key]
            at = run if preset.relative_gamma else _paper_margins(run, chosen)
            table = _theorem(at, chosen)
            if preset.overlay:
                # The split bound knows neither kappa nor p.
                lines = shared.setdefault(key, {}) or _overlay(run, chosen, split)
                shared[key] = lines
                lines = lines | _overlay(run, chosen, trajectory)
                table["overlay"] = np.stack([lines[trajectory], lines[split]], axis=-1)
            tables.append(table)
            coordinates.append(_case_coordinates(case, run))
    data = _dataset(preset, cases, tables, coordinates)
    return data.assign_attrs(title=title, horizon=horizon, rtol=rtol)


def _dataset(preset: Preset, cases, tables, coordinates) -> xr.Dataset:
    axes = {
        "gamma": ("step", "ratio"),
        "train_margin_risk": ("step", "ratio"),
        "deviation": ("step", "ratio", "reading"),
        "capacity": (),
        "overlay": ("step", "bound"),
    }
    data = {
        name: (("case", *axes.get(name, ("step",))), np.stack([t[name] for t in tables]))
        for name in tables[0]
    }
    ts = (*data.pop("t"), {"units": "gradient-flow time"})
    common = {k: [c[k] for c in coordinates] for k in coordinates[0]}
    labels = {k: ("case", np.asarray(v)) for k, v in common.items()}
    first = cases[0].settings
    out = xr.Dataset(
        data,
        coords={
            "case": [case.label for case in cases],
            "step": np.arange(1, first.num_times + 1),
            "ratio": np.asarray(first.ratios),
            "reading": list(READINGS),
            "t": ts,
            **labels,
            **({"bound": [bound.name for bound in OVERLAY]} if preset.overlay else {}),
        },
        attrs={k: v[0] if len(set(v)) == 1 else v for k, v in common.items()},
    )
    out["value"] = out["train_margin_risk"] + out["capacity"] + out["deviation"]
    out.attrs |= {
        "preset": preset.name,
        "seed": preset.seed,
        "relative_gamma": int(preset.relative_gamma),
        "delta": first.delta,
        "until": first.until,
        "num_times": first.num_times,
        "cells": first.cells,
        "cells_are": CELLS,
    }
    return out


class Column(NamedTuple):
    """A column of panels: the case it belongs to, and curves over `step`, `ratio`, `reading`."""

    heading: str
    case: str
    values: xr.DataArray


def columns(data: xr.Dataset) -> list[Column]:
    """One column for each case."""
    return [Column(c, c, data["value"].sel(case=c)) for c in data["case"].values.tolist()]


def _shades(colour: str) -> list[tuple[float, float, float]]:
    """Light, plain and dark, for the margins from large to small."""
    plain = np.asarray(to_rgb(colour))
    shades = (0.45 * plain + 0.55, plain, 0.5 * plain)
    return [cast("tuple[float, float, float]", tuple(s.tolist())) for s in shades]


def _margin(data: xr.Dataset, ratio: float) -> str:
    depth = data.attrs["depth"]
    power = "L" if isinstance(depth, (list, tuple)) else f"{depth}"
    unit = "scale(t)" if data.attrs["relative_gamma"] else f"beta^{power}"
    return f"gamma = {unit}" if ratio == 1 else f"gamma = {unit}/{ratio:g}"


def _panel(axis: Axes, data: xr.Dataset, column: Column, reading: Reading) -> None:
    case = data.sel(case=column.case)
    unit = float(case["time_unit"])
    ts = case["t"].values / unit
    shades = _shades(next(b.colour for b in THEOREM if b.reading == reading))
    ratios = data["ratio"].values.tolist()
    for ratio, shade in zip(ratios, shades, strict=True):
        line = column.values.sel(reading=reading, ratio=ratio).values
        label = f"{reading}, {_margin(data, ratio)}"
        axis.plot(ts, line, color=shade, label=label)
    for name in data["bound"].values.tolist() if "overlay" in data else []:
        line = case["overlay"].sel(bound=name).values
        axis.plot(ts, line, "-.", lw=1.2, color=colour_of(name), label=name)
    axis.plot(ts, case["test_risk"].values, "--", color=COLOURS["test"], label="true test error")
    axis.axhline(0.5, ls=":", color=COLOURS["guess"], label="random guess")
    best = float(column.values.sel(reading=reading).min())
    axis.set_title(f"{column.heading}\nbest {reading}: {best:.3f}", fontsize="medium")
    axis.set_ylim(0, 1.05)
    axis.set_xlim(0, ts[-1])
    axis.set_xlabel(
        "t (gradient-flow time)" if unit == 1 else f"t (units of beta^{{2-L}}/s = {unit:.3g})"
    )


def draw_panels(data: xr.Dataset, title: str, chosen: Sequence[Column]) -> Figure:
    """The curves of `chosen`, a row for each reading.

    **Arguments:**

    - `data`: out of [`evaluate`][].
    - `title`: over the picture.
    - `chosen`: a [`Column`][] for each column of panels.

    **Returns:**

    A Matplotlib figure.
    """
    figure = Figure(figsize=(1.2 + 3.3 * len(chosen), 7.4), layout="constrained")
    grid = figure.subplots(len(READINGS), len(chosen), sharey=True, squeeze=False)
    for row, reading in zip(grid, READINGS, strict=True):
        for axis, column in zip(row, chosen, strict=True):
            _panel(axis, data, column, reading)
        row[0].set_ylabel("risk (fraction misclassified)")
    lines = [line for axis in grid[:, 0] for line in axis.lines]
    # The theorem first, so that three to a column keeps each reading together.
    lines.sort(key=lambda line: "gamma" not in str(line.get_label()))
    named = {line.get_label(): line for line in lines}
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=-(-len(named) // len(data["ratio"])),
        fontsize="small",
    )
    tried = "" if data.attrs["preset"] == "full" else f" ({data.attrs['preset']} preset)"
    figure.suptitle(title + tried)
    return figure
