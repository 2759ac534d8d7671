"""A convolutional network by exact gradient flow, from linear to ReLU: its test error and its
certificate."""

from typing import Any, NamedTuple

import diffrax
import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..dynamics import gradient_flow
from ..networks import LeakyConv, LinearConv, initialize_conv
from ..report import certify_module
from ..tasks import ClassTask, class_task, mnist_classes
from ._common import Preset

TITLE = "A convolutional network of ten classes: test error and certificate over the slope"
DELTA = 0.01
BETA = 0.5


class _Scale(NamedTuple):
    """How much work it is: pixels a side, training samples (a half for the anchor), filters, where
    training ends, and how many slopes there are."""

    side: int
    samples: int
    channels: int
    end_time: float
    slopes: int


_SCALES = {
    "full": _Scale(14, 12_000, 8, 40.0, 7),
    "quick": _Scale(7, 6000, 8, 20.0, 4),
    "tiny": _Scale(7, 400, 2, 2.0, 2),
}
# What a curve shows, its label and its style.
_CURVES = {
    "certificate": ("certificate of the drawn network", "o-C3"),
    "anchor_bound": ("test bound of the anchor", "s-C1"),
    "drawn": ("test error of the drawn network", "o:C3"),
    "network": ("test error of the network", "-k"),
    "linear": ("test error of the linear reference", "--C0"),
}


def _tasks(scale: _Scale, seed: int) -> tuple[ClassTask, ClassTask]:
    """All samples, and the half that the anchor sees: the first of a random order."""
    data = mnist_classes(scale.side)
    order = np.asarray(jax.random.permutation(jax.random.key(seed), data.num_samples))
    chosen = order[: scale.samples]
    test = data.x_test, data.y_test

    def part(places):
        return class_task(data.x[places], data.y[places], *test, scale=1.0, name=data.name)

    return part(chosen), part(chosen[: scale.samples // 2])


def _trained(net: Any, task: ClassTask, scale: _Scale) -> Any:
    # The steps are limited by stability: a small tolerance, for a distance of the order of the
    # smallest slope, costs little.
    controller = diffrax.PIDController(rtol=1e-5, atol=1e-7)
    options = {"stepsize_controller": controller, "max_steps": None}
    return gradient_flow(net, task, t1=scale.end_time, **options).network()


def _test_error(net: Any, task: ClassTask) -> float:
    outputs = jax.lax.map(net, np.asarray(task.x_test, "float32"), batch_size=1000)
    return float(np.mean(task.predict(outputs) != task.y_test))


def _distance(net: LeakyConv, linear: LeakyConv) -> float:
    """How far the weights are from those of the linear reference, of the size of the latter."""
    far = [a - b for a, b in zip(_weights(net), _weights(linear), strict=True)]
    squares = [sum(float((w**2).sum()) for w in layers) for layers in (far, _weights(linear))]
    return float(np.sqrt(squares[0] / squares[1]))


def _weights(net: LeakyConv) -> tuple[Any, ...]:
    return (*net.filters, net.head)


def compute(preset: Preset) -> xr.Dataset:
    """The data of the figure: for each slope three flows from one start, of the network on all
    samples, of its anchor on half of them, and of the linear reference. The other half certifies.

    **Arguments:**

    - `preset`: a [`Preset`][]; its `overlay` and `relative_gamma` do not matter here.

    **Returns:**

    An `xarray.Dataset` over `epsilon`: `certificate` of the drawn network, `anchor_bound` of the
    anchor, each at $\\delta$ by itself; the test errors `drawn`, `network` and `linear`; the
    `distance` $\\|W - V\\|_F / \\|V\\|_F$ of the weights from those of the linear reference; the
    `information`, in nats.
    """
    scale = _SCALES[preset.name]
    task, first = _tasks(scale, preset.seed)
    keys = jax.random.split(jax.random.key(preset.seed + 1), 2)
    second = slice(first.num_samples, None)
    epsilons = np.geomspace(1e-3, 1.0, scale.slopes)
    rows = []
    for epsilon in epsilons.tolist():
        sizes = {"size": 3, "stride": 2, "epsilon": epsilon, "beta": BETA, "dtype": "float32"}
        start = initialize_conv(keys[0], task.shape, (scale.channels,), task.num_classes, **sizes)
        net, anchor = (_trained(start, data, scale) for data in (task, first))
        linear = _trained(LinearConv(start), task, scale)
        found = certify_module(
            net, anchor, task.x[second], task.y[second], key=keys[1], delta=DELTA
        )
        row = {
            "certificate": found.value,
            "anchor_bound": found.anchor_bound,
            "drawn": _test_error(found.drawn, task),
            "network": _test_error(net, task),
            "linear": _test_error(linear, task),
            "distance": _distance(net, linear.network),
            "information": float(found.bound.information),
        }
        rows.append(row)
    return xr.Dataset(
        {name: ("epsilon", np.asarray([row[name] for row in rows])) for name in rows[0]},
        coords={"epsilon": epsilons},
        attrs={
            "title": TITLE,
            "task": f"{task.name}, {scale.samples} samples",
            "channels": scale.channels,
            "end_time": scale.end_time,
            "beta": BETA,
            "delta": DELTA,
            "seed": preset.seed,
        },
    )


def draw(data: xr.Dataset) -> Figure:
    """The figure from its data.

    **Arguments:**

    - `data`: out of [`compute`][].

    **Returns:**

    A Matplotlib figure of two panels: errors and bounds, and the distance from linear.
    """
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    risks, distances = figure.subplots(1, 2)
    for name, (label, style) in _CURVES.items():
        risks.semilogx(data["epsilon"], data[name], style, ms=4, label=label)
    risks.set_ylabel("share of test images misclassified, or a bound on it")
    risks.set_ylim(bottom=0)
    risks.legend(fontsize="small")
    distances.loglog(data["epsilon"], data["distance"], "o-k", ms=4)
    distances.set_ylabel(r"$\|W - V\|_F / \|V\|_F$")
    distances.set_title("distance from the linear reference")
    for axis in (risks, distances):
        axis.set_xlabel("epsilon = 1 - negative slope (linear: 0, ReLU: 1)")
    risks.set_title(f"delta = {data.attrs['delta']:g} each")
    figure.suptitle(f"{data.attrs['task']}: one convolution by gradient flow")
    return figure
