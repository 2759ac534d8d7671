"""The figure of the convolutional network over the slope."""

import jax
import numpy as np
import pytest
from helpers import assert_close

from nlbound_jax import figures, tasks
from nlbound_jax.figures import Preset

pytestmark = pytest.mark.float64


@pytest.fixture(scope="module")
def data():
    return figures.compute("conv", Preset("tiny"))


def test_the_flow_stays_within_order_epsilon_of_linear(data):
    near, far = data["distance"].values
    assert_close(data["epsilon"], [1e-3, 1.0])
    # A thousandth of the slope is about a thousandth of the distance.
    assert 500 < far / near < 2000
    assert abs(float(data["network"][0] - data["linear"][0])) < 0.01
    assert data["network"][1] != data["linear"][1]


def test_certificates_are_above_the_truth(data):
    assert (data["certificate"] > data["drawn"]).all()
    assert (data["certificate"] <= 1).all()
    assert (data["anchor_bound"] > 0).all()
    for name in ("drawn", "network", "linear"):
        counts = data[name].values * len(tasks.mnist_classes(7).x_test)
        assert_close(counts, np.round(counts), rtol=0, atol=1e-6)


def test_it_is_drawn_from_what_was_saved(data, tmp_path):
    figures.save_data(data, tmp_path / "conv.zarr")
    assert figures.redraw("conv", tmp_path).stat().st_size > 10_000
    figure = figures.draw("conv", figures.load_data(tmp_path / "conv.zarr"))
    risks, distances = figure.axes
    for name, line in zip(
        ("certificate", "anchor_bound", "drawn", "network", "linear"), risks.lines, strict=True
    ):
        assert_close(np.asarray(line.get_ydata()), data[name].values)
    assert_close(np.asarray(distances.lines[0].get_ydata()), data["distance"].values)


def test_the_anchor_sees_the_first_half_of_the_order_only():
    from nlbound_jax.figures import _conv

    scale = _conv._SCALES["tiny"]
    task, first = _conv._tasks(scale, 3)
    order = np.asarray(jax.random.permutation(jax.random.key(3), 60000))[: scale.samples]
    whole = tasks.mnist_classes(scale.side)
    assert (task.x == whole.x[order]).all()
    assert (task.y == whole.y[order]).all()
    assert (first.x == whole.x[order[: scale.samples // 2]]).all()
