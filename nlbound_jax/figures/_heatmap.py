"""Two axes of a sweep or of a grid as a picture."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import _validate
from ..ladder import SplitAPriori

REDUCE = ("mean", "min", "max")
_WORDS = {
    "value": "bound on the test error",
    "penalty": "capacity + deviation",
    "epsilon": "epsilon = 1 - negative slope",
    "beta": "beta, spectral norm at the start",
}
# The largest picture whose cells have room for a number, rows and columns.
_ROOM = (16, 12)


def heatmap(
    data: xr.Dataset,
    x: str,
    y: str,
    *,
    variable: str | None = None,
    bound: str | None = None,
    at: Mapping[str, Any] | None = None,
    reduce: Literal["mean", "min", "max"] = "mean",
) -> Figure:
    """A variable of a sweep over two of its axes. A line is drawn where a risk crosses that of a
    random guess, 1/2; cells with no result are left grey, numbers above 1 have the colour of 1.

    **Arguments:**

    - `data`: out of [`sweep`][] or [`grid`][].
    - `x`, `y`: the axes.

    **Other arguments:**

    - `variable`: what to draw; by default `value`, or `penalty` where there is none.
    - `bound`: which bound, where the variable has one for each; by default the split bound a
        priori.
    - `at`: for other axes, at which value to look.
    - `reduce`: what to take over the axes that are left: `"mean"`, `"min"` or `"max"`. The least
        bound over axes is a bound only if the union over them was paid for.

    **Returns:**

    A Matplotlib figure.

    **Raises:**

    `ValueError` naming the argument.
    """
    if variable is None:
        variable = "value" if "value" in data else "penalty"
    variable = str(_validate.member("variable", variable, [str(v) for v in data.data_vars]))
    reduce = _validate.member("reduce", reduce, REDUCE)
    table, said = data[variable], []
    axes = [str(d) for d in table.dims if d != "bound"]
    _validate.member("x", x, axes)
    _validate.member("y", y, [name for name in axes if name != x])
    if "bound" in table.dims:
        names = [str(name) for name in data["bound"].values]
        bound = SplitAPriori.name if bound is None else bound
        table = table.sel(bound=_validate.member("bound", bound, names))
        said.append(bound)
    for name, value in (at or {}).items():
        _validate.member("at", name, [n for n in axes if n not in (x, y)])
        table = table.isel({name: _find(name, data[name].values, value)})
        said.append(f"{name} = {_text(table[name].values[()])}")
    rest = [str(d) for d in table.dims if d not in (x, y)]
    if rest:
        table = getattr(table.astype(float), reduce)(rest, skipna=True)
        said.append(f"{reduce} over {', '.join(rest)}")
    grid = np.asarray(table.transpose(y, x), float)
    return _draw(data, grid, (x, y), variable, said)


def _find(name: str, values: np.ndarray, value: Any) -> int:
    """The index of a value of an axis; numbers may be off by rounding."""
    for i, one in enumerate(values):
        try:
            if np.isclose(float(one), float(value), rtol=1e-6, atol=0.0):
                return i
        except ValueError:
            if str(one) == str(value):
                return i
    listing = ", ".join(_text(v) for v in values[:8]) + (", ..." if len(values) > 8 else "")
    raise ValueError(f"`at` must name a value of {name} ({listing}), got {value!r}.")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


def _edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """The edges of the cells of an axis and whether it is drawn in logarithms: its values are
    closer to a geometric than to an arithmetic progression."""
    if values.dtype.kind not in "if":
        return np.arange(len(values) + 1) - 0.5, False
    values = values.astype(float)
    log = len(values) > 1 and bool((values > 0).all())
    if log and len(values) == 2:
        log = bool(values.max() >= 5 * values.min())
    elif log:
        log = _spread(np.log(values)) < _spread(values)
    places = np.log(values) if log else values
    if len(places) == 1:
        return places[0] + np.array([-0.5, 0.5]), False
    middle = (places[1:] + places[:-1]) / 2
    ends = np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])
    return (np.exp(ends) if log else ends), log


def _spread(values: np.ndarray) -> float:
    steps = np.diff(values)
    return float(np.std(steps) / np.abs(np.mean(steps))) if np.mean(steps) else np.inf


def _draw(data, grid: np.ndarray, axes: tuple[str, str], variable: str, said) -> Figure:
    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("0.8")
    finite = grid[np.isfinite(grid)]
    risk = data[variable].attrs.get("units", "").startswith("fraction") or variable in _WORDS
    low = float(finite.min()) if finite.size else 0.0
    high = float(finite.max()) if finite.size else 1.0
    above = risk and (high > 1 or bool(np.isposinf(grid).any()))
    high = 1.0 if above else high
    if risk:
        low, high = math.floor(min(low, high, 0.9) * 10) / 10, math.ceil(high * 10) / 10
    values = [data[name].values for name in axes]
    (x_edges, x_log), (y_edges, y_log) = (_edges(v) for v in values)
    shown = np.where(np.isposinf(grid), 1e300, grid) if above else grid
    mesh = axis.pcolormesh(
        x_edges,
        y_edges,
        np.ma.masked_invalid(shown),
        cmap="viridis",
        vmin=low,
        vmax=high if high > low else low + 1e-9,
    )
    bar = figure.colorbar(mesh, ax=axis, extend="max" if above else "neither")
    attrs = data[variable].attrs
    bar.set_label(_WORDS.get(variable) or attrs.get("long_name") or variable)
    for name, which, log, points in zip(axes, "xy", (x_log, y_log), values, strict=True):
        if log:
            getattr(axis, f"set_{which}scale")("log")
        elif points.dtype.kind not in "if" or len(points) <= 12:
            places = range(len(points)) if points.dtype.kind not in "if" else points
            getattr(axis, f"set_{which}ticks")(list(places), [_text(p) for p in points])
        getattr(axis, f"set_{which}label")(_WORDS.get(name, name))
    if risk:
        _half(axis, grid, x_edges, y_edges, (x_log, y_log), bar)
    if grid.shape[0] <= _ROOM[0] and grid.shape[1] <= _ROOM[1]:
        _annotate(axis, grid, _centres(x_edges, x_log), _centres(y_edges, y_log), low, high)
    settings = [data.attrs.get("task") and str(data.attrs["task"])]
    settings += [f"L = {data.attrs['depth']}" if "depth" in data.attrs else None, *said]
    axis.set_title(", ".join(s for s in settings if s), fontsize="medium")
    return figure


def _centres(edges: np.ndarray, log: bool) -> np.ndarray:
    return np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2


def _half(axis: Axes, grid, x_edges, y_edges, logs, bar) -> None:
    """The line at 1/2, where there are numbers on both sides of it."""
    finite = np.where(np.isposinf(grid), 1.0, grid)
    known = finite[np.isfinite(finite)]
    if min(grid.shape) < 2 or not (known < 0.5).any() or not (known > 0.5).any():
        return
    x, y = _centres(x_edges, logs[0]), _centres(y_edges, logs[1])
    axis.contour(x, y, np.ma.masked_invalid(finite), levels=[0.5], colors="white", linewidths=1.5)
    bar.ax.axhline(0.5, color="white", lw=1.5)


def _annotate(axis: Axes, grid: np.ndarray, x, y, low: float, high: float) -> None:
    for j, i in np.ndindex(grid.shape):
        if np.isfinite(grid[j, i]):
            dark = grid[j, i] < low + 0.6 * (high - low)
            colour = "white" if dark else "black"
            text = f"{grid[j, i]:.2g}" if grid[j, i] < 1e3 else f"{grid[j, i]:.0e}"
            axis.text(x[i], y[j], text, ha="center", va="center", fontsize="x-small", color=colour)
