"""Figure 8: how far a bound through each proxy could get, and its components.

The paper gives neither the margins nor the horizon. Here the margins are the reference network's
root mean square output (linear, slope $1 - \\epsilon / 2$), as in a report, over `RATIOS`: with
the multiples of $\\beta^2$ of Section 6 the deviation term is vacuous as soon as the network has
left the origin.
"""

import math
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._colours import COLOURS
from .._results import RESULTS
from .._types import WeightsOverTime
from ..bounds import OPTIMISTIC, optimistic_bound
from ..dynamics import gradient_flow, learning_time, reference_flow
from ..networks import CorrectedMLP, LeakyMLP, initialize
from ..tasks import Task
from ._common import Preset
from ._figure7 import problem

TITLE = "The optimistic bound (Eq. 41) for three proxies, and its components"
SIDE, DEPTH, BETA, EPSILON = 14, 2, 0.001, 0.1
RATIOS = (2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
PROXIES = ("g0", "g1", "g2")
NAMES = {
    "g0": "linear network",
    "g1": "kappa = 1, leaky",
    "g2": "kappa = 2, corrected",
}
PROXY_COLOURS = {"g0": "darkgoldenrod", "g1": "steelblue", "g2": "teal"}
LOSS, LINEAR_LOSS, LINEAR_RISK = "indigo", "sienna", "crimson"
RTOL, MAX_STEPS = 1e-3, 16384


class Run(NamedTuple):
    """Weights at the times that were reached, where the run ended, and its steps."""

    weights: WeightsOverTime
    reached: float
    num_steps: int


def times(task: Task, epsilon: float, num_times: int) -> tuple[np.ndarray, float]:
    """Half of the times up to one, returned as well, at which the network has learned; half from
    there until the flow has left the linear loss, which takes a time of order $1/\\epsilon$."""
    settings = {"depth": DEPTH, "alignment": task.alignment, "beta": BETA, "epsilon": epsilon}
    learned = float(learning_time(0.9, **settings))
    half, switch = num_times // 2, 1.5 * learned
    early = np.geomspace(1.0, switch, half)
    late = np.geomspace(switch, learned + 40 / epsilon, num_times - half + 1)[1:]
    # As the solver, which is in float32, will have them.
    ts = np.append(early, late).astype(np.float32).astype(float)
    return ts, float(ts[half - 1])


def train(net: LeakyMLP, task: Task, ts: np.ndarray, switch: float) -> Run:
    """The network's flow in two stages: to leave the origin at the right time, the small weights
    must be right; late times are long, stiff and full of kinks, and a low order is cheaper."""
    stages = [
        (ts[ts <= switch], diffrax.Tsit5(), 1e-5),
        (ts[ts > switch] - switch, diffrax.Bosh3(), 1e-3),
    ]
    parts, reached, num_steps = [], 0.0, 0
    for wanted, solver, atol in stages:
        trajectory = gradient_flow(
            net,
            task,
            t1=wanted[-1],
            saveat=diffrax.SaveAt(ts=jnp.asarray(wanted, net.epsilon.dtype)),
            solver=solver,
            stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=atol * BETA),
            max_steps=MAX_STEPS,
            throw=False,
        )
        stopped = bool(trajectory.result != RESULTS.successful)
        # The last one saved of a run that stopped is not one of the times.
        parts.append([w[:-1] if stopped else w for w in trajectory.weights])
        reached += float(trajectory.reached)
        num_steps += int(trajectory.stats["num_steps"])
        if stopped:
            break
        net = trajectory.network()
    weights = tuple(jnp.concatenate(layers) for layers in zip(*parts, strict=True))
    return Run(weights, reached, num_steps)


@eqx.filter_jit
def outputs(weights, linear, epsilon, x, inverse, x_test):
    """f and g0, g1, g2 on training and test inputs (features first), `(4, samples)` each."""
    dtype = x.dtype
    f, base = LeakyMLP(weights, epsilon), LeakyMLP(linear, jnp.zeros((), dtype))
    frozen = LeakyMLP(linear, epsilon)
    rest = f.features_first(x) - frozen.features_first(x)
    corrected = CorrectedMLP(frozen, inverse @ rest)  # Eq. 25
    nets = (f, base, frozen, corrected)
    return tuple(jnp.stack([net.features_first(z) for net in nets]) for z in (x, x_test))


def _terms(train_out, test_out, y, y_test, gamma) -> dict[str, Any]:
    bounds = [
        optimistic_bound(
            train_out[0], train_out[i], y, test_out[0], test_out[i], y_test, gamma=gamma
        )
        for i in (1, 2, 3)
    ]
    curves = {
        name: np.stack([np.asarray(getattr(b, name)) for b in bounds])
        for name in ("gap", "train_deviation", "test_deviation", "value")
    }
    f, f_test = (np.asarray(out[0], float) for out in (train_out, test_out))
    return {
        **curves,
        "train_margin_risk": np.asarray(bounds[0].train_margin_risk),
        "gamma": gamma,
        "train_risk": np.mean(~(y * f > 0)),
        "test_risk": np.mean(~(y_test * f_test > 0)),
        "train_loss": np.mean((y - f) ** 2) / 2,
        "test_loss": np.mean((y_test - f_test) ** 2) / 2,
    }


AXES = {
    "gap": ("proxy", "ratio"),
    "train_deviation": ("proxy",),
    "test_deviation": ("proxy",),
    "value": ("proxy", "ratio"),
    "train_margin_risk": ("ratio",),
    "gamma": ("ratio",),
}


def follow(task: Task, preset: Preset, epsilon: float) -> xr.Dataset:
    """Every term of Eq. 41 along one run, for the three proxies; NaN from where a run stopped.

    **Arguments:**

    - `task`: the data, with a test set.
    - `preset`: a [`Preset`][].
    - `epsilon`: one minus the negative slope.

    **Returns:**

    An `xarray.Dataset` over `step` (times), `proxy` and `ratio`.
    """
    if task.x_test is None or task.y_test is None:
        raise ValueError("`task` must have test data, got none.")
    with jax.enable_x64(True):
        key, width = jax.random.key(preset.seed), preset.width
        net = initialize(key, task.rank, width, DEPTH, epsilon=epsilon, beta=BETA, dtype="float32")
        start = eqx.tree_at(lambda n: n.epsilon, net, jnp.zeros_like(net.epsilon))
        ts, switch = times(task, epsilon, preset.num_times)
        linear = reference_flow(start, task.target, ts, envelope=False)
        scale = reference_flow(net, task.target, ts, envelope=False).scale
        run = train(net, task, ts, switch)
        reached = len(run.weights[0])
        x, x_test = (jnp.asarray(z.T, "float32") for z in (task.x, task.x_test))
        inverse = x / task.num_samples  # the pseudo-inverse of whitened inputs
        rows = []
        for i in range(reached):
            weights = tuple(w[i] for w in run.weights)
            frozen = tuple(w[i].astype("float32") for w in linear.weights)
            out = outputs(weights, frozen, net.epsilon, x, inverse, x_test)
            gamma = float(scale[i]) / np.asarray(RATIOS)
            f, f_test = (np.asarray(values, float) for values in out)
            rows.append(_terms(f, f_test, task.y, task.y_test, gamma))
    data = {}
    for name in rows[0]:
        table = np.stack([np.asarray(row[name], float) for row in rows])
        missing = np.full((len(ts) - reached, *table.shape[1:]), np.nan)
        data[name] = (("step", *AXES.get(name, ())), np.concatenate([table, missing]))
    coordinates = {"step": np.arange(1, len(ts) + 1), "proxy": list(PROXIES), "ratio": list(RATIOS)}
    clock = ("step", ts, {"units": "gradient-flow time"})
    dataset = xr.Dataset(data, coords={**coordinates, "t": clock})
    dataset["reached"] = run.reached
    dataset["num_steps"] = run.num_steps
    return dataset


def attributes(title: str, task: Task, preset: Preset) -> dict[str, Any]:
    """Every parameter, and the baselines: loss and risk of the best linear function."""
    fit = task.x @ task.target
    return {
        "title": title,
        "label": OPTIMISTIC,
        "task": task.name,
        "num_samples": task.num_samples,
        "dim": task.rank,
        "alignment": task.alignment,
        "width": preset.width,
        "depth": DEPTH,
        "beta": BETA,
        "init": "default",
        "seed": preset.seed,
        "preset": preset.name,
        "gamma": "root mean square output of the reference network at t, over the ratio",
        "dynamics": "gradient flow (Tsit5, later Bosh3), float32",
        "rtol": RTOL,
        "linear_loss": (1 - task.alignment**2) / 2,
        "linear_risk": float(np.mean(~(task.y * fit > 0))),
    }


def compute(preset: Preset) -> xr.Dataset:
    """The data of Figure 8.

    **Arguments:**

    - `preset`: a [`Preset`][]; its `overlay` and `relative_gamma` do not matter here.

    **Returns:**

    An `xarray.Dataset`: over `step`, `proxy` and `ratio` the optimistic bound `value` (not capped
    at 1) and `gap`; over `step` and `proxy` `train_deviation` and `test_deviation`; over `step`
    the risks and losses of the network, `t`. `reached` is the time at which training ended.
    """
    task = problem(preset, SIDE)
    data = follow(task, preset, EPSILON)
    return data.assign_attrs(epsilon=EPSILON, **attributes(TITLE, task, preset))


def shade(index: int) -> float:
    """The opacity of a ratio's lines: the smallest margin is the faintest."""
    return 1.0 - 0.75 * index / max(1, len(RATIOS) - 1)


def draw_bound(axis: Axes, data: xr.Dataset, proxy: str) -> None:
    """The bound through one proxy at every margin, and the network's risks."""
    ts = data["t"].values
    for i, ratio in enumerate(data["ratio"].values):
        colour = PROXY_COLOURS[proxy]
        value = data["value"].sel(proxy=proxy, ratio=ratio)
        label = f"optimistic bound, gamma = rms / {ratio:g}"
        axis.plot(ts, value, color=colour, alpha=shade(i), label=label)
    for i, ratio in enumerate(data["ratio"].values):
        risk = data["train_margin_risk"].sel(ratio=ratio)
        label = "train margin risk" if i == 0 else "_margin"
        axis.plot(ts, risk, color=COLOURS["train"], lw=1, alpha=shade(i), label=label)
    axis.plot(ts, data["test_risk"], "--", color=COLOURS["test"], label="true test error")
    axis.axhline(0.5, ls=":", color=COLOURS["guess"], label="random guess, loss of f = 0")
    axis.set_ylim(0, 1.05)


def draw_losses(axis: Axes, data: xr.Dataset) -> None:
    """Train and test loss of the network, and the best linear function."""
    ts = data["t"].values
    axis.plot(ts, data["train_loss"], color=LOSS, lw=1, label="train loss (MSE / 2)")
    axis.plot(ts, data["test_loss"], "--", color=LOSS, lw=1, label="test loss (MSE / 2)")
    level = {"lw": 1, "ls": "-."}
    label = "best linear function, train loss"
    axis.axhline(data.attrs["linear_loss"], color=LINEAR_LOSS, label=label, **level)
    label = "best linear function, train error"
    axis.axhline(data.attrs["linear_risk"], color=LINEAR_RISK, label=label, **level)


def _draw_components(left: Axes, middle: Axes, data: xr.Dataset) -> None:
    ts = data["t"].values
    deviation = data["train_deviation"] + data["test_deviation"]
    for proxy in data["proxy"].values:
        for i, ratio in enumerate(data["ratio"].values):
            gap = data["gap"].sel(proxy=proxy, ratio=ratio)
            label = NAMES[proxy] if i == 0 else "_margin"
            left.plot(ts, gap, color=PROXY_COLOURS[proxy], alpha=shade(i), label=label)
        line = deviation.sel(proxy=proxy)
        middle.loglog(ts, line, color=PROXY_COLOURS[proxy], label=NAMES[proxy])
    output = data["gamma"].isel(ratio=0) * data["ratio"].values[0]
    middle.loglog(ts, output, ":", color="black", label="output of the reference network")
    left.set_ylim(-0.05, 0.05)
    left.axhline(0.0, color=COLOURS["guess"], lw=0.5)
    left.set_title("generalization gap of the proxy")
    left.set_ylabel("test minus train ramp risk")
    middle.set_title("deviation from the proxy, test + train")
    middle.set_ylabel("E|f - g| (output units)")


def draw(data: xr.Dataset) -> Figure:
    """Figure 8 from its data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure: the components above, the full bound for each proxy below.
    """
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    _draw_components(top[0], top[1], data)
    draw_losses(top[2], data)
    top[2].plot(data["t"], data["test_risk"], "--", color=COLOURS["test"], label="true test error")
    top[2].axhline(0.5, ls=":", color=COLOURS["guess"], label="random guess, loss of f = 0")
    top[2].set_ylim(0, 0.55)
    top[2].set_title("loss and risk of the network")
    top[2].set_ylabel("loss, risk")
    for axis, proxy in zip(bottom, data["proxy"].values, strict=True):
        draw_bound(axis, data, proxy)
        axis.set_title(f"{proxy}: {NAMES[proxy]}")
        axis.set_ylabel("risk (fraction misclassified)")
    for axis in (*top, *bottom):
        axis.set_xscale("log")
        axis.set_xlabel("t (gradient-flow time)")
    for axis in top:
        axis.legend(fontsize="x-small")
    handles, labels = bottom[-1].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=4)
    figure.suptitle(headline(data))
    return figure


def headline(data: xr.Dataset) -> str:
    """The title of a picture, with its parameters and its label."""
    a = data.attrs
    shown = f", epsilon = {a['epsilon']:g}" if not math.isnan(a.get("epsilon", math.nan)) else ""
    return f"{a['task']}, L = {a['depth']}{shown}, beta = {a['beta']:g}: {a['label']}"
