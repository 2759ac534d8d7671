"""Every bound against the slope, from linear to ReLU: the picture at the top of the README."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import _validate
from .._colours import COLOURS
from ..ladder import colour_of
from ..report import Settings, report
from ..tasks import Task
from ._common import Preset

TITLE = "Every bound against the slope, from linear to ReLU"
EPSILONS = tuple(float(e) for e in np.geomspace(1e-3, 1.0, 13))


def ladder(
    task: Task,
    settings: Settings | None = None,
    *,
    epsilons: Sequence[float] = EPSILONS,
    progress: Callable[[float], None] | None = None,
) -> xr.Dataset:
    """The best value of every bound for every slope.

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][]; its `epsilon` is not used.
    - `epsilons`: one minus the negative slopes, in [0, 1].
    - `progress`: called with each epsilon before its run.

    **Returns:**

    An `xarray.Dataset` over `epsilon` and `bound`: `value` (at most 1), `t` and `test_risk` at
    the best cell, and, over `epsilon`, `test_risk_at_end`. Its attributes are the settings.

    **Raises:**

    `ValueError` naming the argument.
    """
    settings = Settings() if settings is None else settings
    epsilons = _validate.numbers("epsilons", epsilons, low=0, high=1)
    if not epsilons:
        raise ValueError("`epsilons` must have at least one number, got none.")
    runs = [dataclasses.replace(settings, epsilon=e) for e in epsilons]
    columns, ends, names = [], [], []
    for run in runs:
        if progress is not None:
            progress(run.epsilon)
        answer = report(task, run)
        names = answer.names()
        columns.append([answer.best(name) for name in names])
        ends.append(np.nan if answer.test_risk is None else float(answer.test_risk[-1]))

    def table(key: str):
        values = [[np.nan if r[key] is None else r[key] for r in column] for column in columns]
        return (("epsilon", "bound"), np.asarray(values, float))

    attributes = {k: v for k, v in settings.as_dict().items() if k != "epsilon" and v is not None}
    return xr.Dataset(
        {
            "value": table("value"),
            "t": table("t"),
            "test_risk": table("test_risk"),
            "test_risk_at_end": ("epsilon", np.asarray(ends)),
        },
        coords={"epsilon": np.asarray(epsilons, float), "bound": names},
        attrs={"task": task.name, **attributes},
    )


def plot_ladder(data: xr.Dataset) -> Figure:
    """The ladder as a picture.

    **Arguments:**

    - `data`: out of [`ladder`][].

    **Returns:**

    A Matplotlib figure.

    **Raises:**

    `ValueError` if `data` lacks what the picture shows.
    """
    for name in ("value", "test_risk_at_end"):
        _validate.member("data", name, tuple(data.data_vars))
    figure = Figure(figsize=(8, 6), layout="constrained")
    axis = figure.subplots()
    for name in data["bound"].values:
        line = data["value"].sel(bound=name)
        axis.semilogx(data["epsilon"], line, "o-", ms=3, label=name, color=colour_of(name))
    axis.semilogx(
        data["epsilon"],
        data["test_risk_at_end"],
        "--",
        color=COLOURS["test"],
        label="true test error at the end",
    )
    axis.axhline(0.5, ls=":", color=COLOURS["guess"], label="random guess")
    axis.set_xlabel("epsilon = 1 - negative slope (linear: 0, ReLU: 1)")
    axis.set_ylabel("bound on the test error, best t and margin")
    axis.set_ylim(0, 1.05)
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    axis.set_title(f"{data.attrs['task']}, L = {data.attrs['depth']}, {data.attrs['init']} init")
    return figure


draw = plot_ladder


def compute(preset: Preset) -> xr.Dataset:
    """The ladder at 7x7, among the figures that are made by name."""
    points = {"full": 13, "quick": 5, "tiny": 2}[preset.name]
    settings = Settings(
        width=preset.width,
        seed=preset.seed,
        num_times=min(preset.num_times, 40),
        end_time=1.0 if preset.name == "tiny" else None,
    )
    epsilons = np.geomspace(1e-3, 1.0, points).tolist()
    return ladder(preset.task(7), settings, epsilons=epsilons)
