"""Figure 7: does the projected loss fall? Assumption 5.1 along single runs."""

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .._colours import COLOURS
from .._results import RESULTS
from ..dynamics import gradient_flow
from ..networks import LeakyMLP, initialize
from ..tasks import Task, from_arrays
from ._common import Preset

TITLE = "Loss and projected loss fall (Assumption 5.1)"
SIDE, DEPTH = 7, 2
# What the caption adds, so that zero is visible on the logarithmic axis.
OFFSET = 1e-8
RTOL, MAX_STEPS = 1e-3, 16384
FEWER_SAMPLES = 5_000


def problem(preset: Preset, side: int) -> Task:
    """Binary MNIST; below the full preset a random part of the training set, whitened anew."""
    task = preset.task(side)
    if preset.name == "full":
        return task
    assert task.x_test is not None
    chosen = np.random.default_rng(preset.seed).permutation(task.num_samples)[:FEWER_SAMPLES]
    raw, raw_test = (x * np.sqrt(task.spectrum) for x in (task.x, task.x_test))
    name = f"{task.name}, {FEWER_SAMPLES} random training images"
    return from_arrays(raw[chosen], task.y[chosen], raw_test, task.y_test, name=name)


class Case(NamedTuple):
    """One run: `panel` is the panel it is drawn in."""

    panel: str
    epsilon: float
    beta: float
    end_time: float


SLOPES, SIZES = "beta = 0.001, epsilon varies", "epsilon = 0.001, beta varies"
CASES = {
    "full": (
        *(Case(SLOPES, e, 1e-3, 40.0) for e in (1e-3, 1e-2, 0.1, 1.0)),
        *(Case(SIZES, 1e-3, b, 40.0) for b in (1e-2, 0.1, 0.5, 1.0)),
    ),
    "quick": (
        *(Case(SLOPES, e, 1e-3, 28.0) for e in (1e-3, 0.1, 1.0)),
        *(Case(SIZES, 1e-3, b, 28.0) for b in (0.1, 1.0)),
    ),
    "tiny": (Case(SLOPES, 1e-3, 1e-3, 20.0), Case(SIZES, 1e-3, 1.0, 20.0)),
}


@eqx.filter_jit
def losses(weights, epsilon, x, y):
    """Loss and projected loss over time, for inputs features first."""

    def one(weights):
        residual = y - LeakyMLP(weights, epsilon).features_first(x)
        projected = x @ residual / y.size
        return jnp.mean(residual**2) / 2, jnp.sum(projected**2) / 2

    return jax.lax.map(one, weights)


def _follow(task: Task, preset: Preset, case: Case) -> dict[str, np.ndarray]:
    """One run; NaN from where it stopped."""
    net = initialize(
        jax.random.key(preset.seed),
        task.rank,
        preset.width,
        DEPTH,
        epsilon=case.epsilon,
        beta=case.beta,
        dtype="float32",
    )
    ts = np.linspace(0.0, case.end_time, preset.num_times + 1, dtype=np.float32)
    trajectory = gradient_flow(
        net,
        task,
        t1=case.end_time,
        saveat=diffrax.SaveAt(ts=jnp.asarray(ts)),
        # An array, so that a new beta does not recompile.
        stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=jnp.asarray(1e-5 * case.beta)),
        max_steps=MAX_STEPS,
        throw=False,
    )
    stopped = int(trajectory.result != RESULTS.successful)
    reached = min(trajectory.ts.size - stopped, ts.size)
    # In float64: the differences are as small as 1e-8.
    weights = tuple(w[:reached].astype(float) for w in trajectory.weights)
    values = losses(weights, net.epsilon.astype(float), jnp.asarray(task.x.T), jnp.asarray(task.y))
    padded = [np.append(np.asarray(v), np.full(ts.size - reached, np.nan)) for v in values]
    return {
        "t": ts.astype(float),
        "loss": padded[0],
        "projected_loss": padded[1],
        "reached": np.asarray(float(trajectory.reached)),
        "num_steps": np.asarray(int(trajectory.stats["num_steps"])),
    }


def compute(preset: Preset) -> xr.Dataset:
    """The data of Figure 7: $L = \\|Y - f\\|^2 / 2m$ and the projected loss
    $L_X = \\|(Y - f) \\tilde X^\\top\\|^2 / 2 m^2$ over time. (The caption has $2m$ in the second,
    m times as much; with $2 m^2$ both fall alike for a linear network.)

    **Arguments:**

    - `preset`: a [`Preset`][]; its `overlay` and `relative_gamma` do not matter here.

    **Returns:**

    An `xarray.Dataset` over `case` and `step`: `loss`, `projected_loss`, the coordinate `t`; over
    `case` `panel`, `epsilon`, `beta`, `end_time`, and `reached`, where the run ended.
    """
    task, cases = problem(preset, SIDE), CASES[preset.name]
    with jax.enable_x64(True):
        runs = [_follow(task, preset, case) for case in cases]
    axes = {name: ("case",) for name in ("reached", "num_steps")}
    data = {
        name: (axes.get(name, ("case", "step")), np.stack([run[name] for run in runs]))
        for name in runs[0]
    }
    clock = (*data.pop("t"), {"units": "gradient-flow time"})
    labels = {name: ("case", [getattr(c, name) for c in cases]) for name in Case._fields}
    return xr.Dataset(
        data,
        coords={"step": np.arange(preset.num_times + 1), "t": clock, **labels},
        attrs={
            "title": TITLE,
            "task": task.name,
            "num_samples": task.num_samples,
            "dim": task.rank,
            "alignment": task.alignment,
            "width": preset.width,
            "depth": DEPTH,
            "init": "default",
            "seed": preset.seed,
            "preset": preset.name,
            "offset": OFFSET,
            "dynamics": "gradient flow (Tsit5), float32; losses in float64",
            "rtol": RTOL,
        },
    )


def falls(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """$L(0) - L(t)$ and $L_X(0) - L_X(t)$.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    Two arrays over `case` and `step`.
    """
    loss, projected = data["loss"], data["projected_loss"]
    return loss.isel(step=0) - loss, projected.isel(step=0) - projected


def draw(data: xr.Dataset) -> Figure:
    """Figure 7 from its data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure: solid the fall of the loss, dashed that of the projected loss, plus the
    offset. A gap in a line is a rise beyond the start.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = dict(zip((SLOPES, SIZES), figure.subplots(1, 2, sharey=True), strict=True))
    offset = data.attrs["offset"]
    fall, projected = (values + offset for values in falls(data))
    for name, axis in panels.items():
        chosen = np.flatnonzero(data["panel"].values == name)
        for place, case in enumerate(chosen):
            one = data.isel(case=case)
            varied = "epsilon" if name == SLOPES else "beta"
            colour, label = f"C{place}", f"{varied} = {float(one[varied]):g}"
            for values, style in ((fall, "-"), (projected, "--")):
                curve = values.isel(case=case).values
                axis.plot(one["t"], np.where(curve > 0, curve, np.nan), style, color=colour)
                axis.lines[-1].set_label(label if style == "-" else "_projected")
        end = 0.5 + offset
        axis.axhline(end, ls=":", color=COLOURS["guess"], label="loss of f = 0")
        axis.set_yscale("log")
        axis.set_title(name)
        axis.set_xlabel("t (gradient-flow time)")
        axis.legend(fontsize="small", loc="lower right")
    panels[SLOPES].set_ylabel(
        f"L(0) - L(t) (solid), L_X(0) - L_X(t) (dashed)\nplus {offset:g}, units of label$^2$"
    )
    figure.suptitle(f"{data.attrs['task']}, L = {data.attrs['depth']}: loss and projected loss")
    return figure
