"""The split bound in a report, by `certify` and on the command line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, numpy_network, small_task
from typer.testing import CliRunner

from nlbound_jax import Settings, bounds, certify, figures, ladder, networks, report, tasks
from nlbound_jax.cli._app import app
from nlbound_jax.report import report_seeds, spread

pytestmark = pytest.mark.float64

NAMES = ["split-a-priori", "split-wholly-a-priori", "split-a-posteriori", "split-no-plug-in"]
RUN = CliRunner()


def bounded_task(m=400, d=4):
    """A small task whose inputs are bounded beforehand, so that nothing need be plugged in."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, size=(m + 200, d))
    y = np.where(x[:, 0] + 0.3 * np.abs(x[:, 1]) + 0.2 * rng.normal(size=m + 200) > 0.1, 1, -1)
    return tasks.from_arrays(x[:m], y[:m], x[m:], y[m:], norm_bound=2.0)


TASK = bounded_task()
SMALL = Settings(width=6, beta=0.05, epsilon=0.05, num_times=5, anchor_fraction=0.0)


@pytest.fixture(scope="module")
def made():
    return report(TASK, SMALL)


def test_every_time_has_one_entry_of_each_version(made):
    assert [n for n in made.names() if n.startswith("split")] == NAMES
    for name in NAMES:
        rows = [r for r in made.rows() if r["bound"] == name]
        assert [r["t"] for r in rows] == [float(t) for t in made.trajectory.ts]
        for row in rows:
            total = row["train_term"] + row["complexity"] + row["rest"]
            assert_close(row["value"], min(1.0, total), rtol=1e-9)
            parts = row["parts"]
            total = parts["nonlinear"] + parts["smoothing"] + parts["deviation"]
            assert_close(row["rest"], total, rtol=1e-9)
            assert row["a_priori"] == ("a-priori" in name)
            assert parts["log_cells"] > 10
    assert made.best("split-no-plug-in")["assumes"] != made.best("split-a-priori")["assumes"]


def test_a_priori_norms_hold_for_the_trained_network(made):
    """What was known before training bounds what came out, at every time."""
    for i in range(SMALL.num_times):
        weights = tuple(jnp.asarray(w[i], float) for w in made.trajectory.weights)
        row = [r for r in made.rows() if r["bound"] == "split-a-priori"][i]
        assert float(jnp.linalg.norm(bounds.linear_part(weights, 0.05))) <= row["parts"]["linear"]
        assert float(bounds.path_norms(weights)[0]) <= row["parts"]["paths"][0]


def test_the_a_posteriori_entry_agrees_with_split_bound_and_numpy(made):
    i = SMALL.num_times - 1
    row = made.at_end("split-a-posteriori")
    weights = [np.asarray(w[i], float) for w in made.trajectory.weights]
    margins = TASK.y * numpy_network(weights, 0.05, TASK.x)
    assert_close(row["train_margin_risk"], np.mean(margins < row["gamma"]), rtol=0, atol=1e-9)
    ramp = np.clip(1 - margins / row["gamma"], 0, 1).mean()
    assert_close(row["train_ramp_risk"], ramp, rtol=1e-4)
    grid = bounds.SplitGrid()
    wide = tuple(jnp.asarray(w) for w in weights)
    found = bounds.split_bound(
        margins,
        np.linalg.norm(TASK.x, axis=1),
        epsilon=0.05,
        depth=2,
        dim=4,
        linear_norm=bounds.linear_sizes(wide, 0.05, TASK.spectrum, grid),
        paths=bounds.linear_metric(wide, 0.05, TASK.spectrum, grid),
        roots=np.ones(len(grid.metrics()[0])),
    )
    assert_close(row["value"], min(1.0, float(found.value)), rtol=1e-4)


@pytest.mark.slow
def test_without_a_norm_bound_or_test_data_there_is_no_version_without_the_plug_in():
    plain = report(small_task(), SMALL)
    assert "split-no-plug-in" not in plain.names()
    alone = tasks.from_arrays(TASK.x, TASK.y, norm_bound=50.0)
    made = report(alone, SMALL)
    assert made.names()[-1] == "split-a-posteriori"
    assert made.task["held_out_trace"] is None


def test_where_whitening_dropped_a_direction_nothing_bounds_the_moments():
    """Projections that the sample chose are shorter than a new input: second moment I/20."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(6000, 20))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.where(x[:, 0] > 0, 1.0, -1.0)
    data = (x[:4000], y[:4000], x[4000:], y[4000:])
    full = tasks.from_arrays(*data, norm_bound=1.0)
    with jax.enable_x64(True):
        held_out = ladder.samples_of(full, float, 0.01).held_out
    # a = 0: E |x|^2 in these coordinates is the sum of 1/(20 e_i), whatever the basis.
    truth = np.sum(1 / (20 * np.asarray(held_out.scales)), axis=1)
    assert np.all(np.asarray(held_out.roots) ** 2 >= truth)
    for less in ({"components": 5}, {"cut": 0.99}):
        cut = tasks.from_arrays(*data, norm_bound=1.0, **less)
        raw = cut.transform.inverse(cut.x) * cut.transform.scale
        assert np.mean(np.sum(raw**2, axis=1)) < 0.95  # of 1: what would be taken for the truth
        assert not ladder.has_held_out(cut)
        assert ladder.known_of(cut, depth=2, along=False) == ("one_hidden_layer",)
        with jax.enable_x64(True):
            assert ladder.samples_of(cut, float, 0.01).held_out is None
    net = networks.initialize(jax.random.key(0), 5, 4, 2, beta=0.1, epsilon=0.1)
    cut = tasks.from_arrays(*data, norm_bound=1.0, components=5)
    assert [row["bound"] for row in certify(net, cut).rows] == ["split-a-posteriori"]
    with pytest.raises(ValueError, match="needs held_out as well"):
        certify(net, cut, bounds=[ladder.SplitNoPlugIn()])


@pytest.mark.slow
def test_deeper_networks_have_one_total_for_each_hidden_layer():
    made = report(TASK, Settings(width=5, depth=3, beta=0.2, epsilon=0.05, num_times=2))
    assert len(made.best("split-a-posteriori")["parts"]["paths"]) == 2


@pytest.mark.slow
def test_a_blown_envelope_is_vacuous_and_says_so():
    made = report(TASK, Settings(width=4, depth=3, beta=0.3, end_time=60.0, num_times=3))
    row = made.at_end("split-a-priori")
    assert (row["value"], row["result"]) == (1.0, "blow_up")
    assert made.as_dict()["bounds"][-1]["value"] <= 1


@pytest.mark.slow
def test_seeds_give_a_spread():
    made = list(report_seeds(TASK, SMALL, 2))
    found = spread(made)
    values = [m.best("split-a-posteriori")["value"] for m in made]
    assert found["split-a-posteriori"]["values"] == values
    assert found["split-a-posteriori"]["min"] == min(values) != max(values)
    assert set(found) == {*made[0].names(), "test_risk"}
    with pytest.raises(ValueError, match="`num_seeds` must be an integer of at least 1, got 0"):
        report_seeds(TASK, SMALL, 0)


def trained_by_adam(task, steps=1000):
    """A ReLU network on raw inputs, by minibatches and Adam: no flow, no whitening."""
    x = jnp.asarray(task.transform.inverse(task.x), jnp.float32)
    y = jnp.asarray(task.y, jnp.float32)
    features = x.shape[1]
    net = networks.initialize(
        jax.random.key(1), features, 16, 2, epsilon=1.0, beta=1.0, dtype="float32"
    )
    optimizer = optax.adam(3e-3)

    def step(carry, key):
        weights, state = carry
        rows = jax.random.randint(key, (64,), 0, len(y))

        def loss(weights):
            return jnp.mean((y[rows] - networks.LeakyMLP(weights, net.epsilon)(x[rows])) ** 2)

        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, updates), state), None

    keys = jax.random.split(jax.random.key(2), steps)
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam needs it
        (weights, _), _ = jax.lax.scan(step, (net.weights, optimizer.init(net.weights)), keys)
    return networks.LeakyMLP(weights, net.epsilon)


@pytest.mark.slow
def test_certify_a_relu_network_trained_by_adam(mnist7):
    net = trained_by_adam(mnist7)
    made = certify(net, mnist7, inputs="raw")
    row = made["split-a-posteriori"]
    print(f"test error {made.test_risk:.3f}, {[(r['bound'], r['value']) for r in made.rows]}")
    assert made.test_risk < 0.25
    assert made.test_risk < row["value"] < 0.5
    assert row["train_term"] > made.train_risk
    assert_close(made.held_out_trace, 46.19, rtol=1e-3)
    # The network on whitened inputs is the same function.
    raw = mnist7.transform.inverse(mnist7.x[:50])
    assert_close(made.network(mnist7.x[:50]), net(raw), rtol=1e-3, atol=1e-3)


def test_a_factor_of_raw_inputs_does_not_matter():
    net = networks.initialize(jax.random.key(0), 4, 5, 2, epsilon=0.5, beta=1.0)
    scaled = networks.LeakyMLP((255 * net.weights[0], net.weights[1]), net.epsilon)
    values = [certify(n, TASK, inputs="raw").rows for n in (net, scaled)]
    for one, other in zip(*values, strict=True):
        assert_close(one["value"], other["value"], rtol=1e-6)


def test_certify_says_what_is_wrong():
    net = networks.initialize(jax.random.key(0), 7, 5, 2, epsilon=0.5, beta=1.0)
    with pytest.raises(ValueError, match=r"`net` must have 4 inputs .*, got 7"):
        certify(net, TASK)
    broken = networks.LeakyMLP((net.weights[0] * np.nan, net.weights[1]), net.epsilon)
    with pytest.raises(ValueError, match=r"`net` must be finite, got nan"):
        certify(broken, TASK)
    good = certify(networks.initialize(jax.random.key(0), 4, 5, 2, epsilon=0.5, beta=1.0), TASK)
    with pytest.raises(ValueError, match="`name` must be one of 'split-a-posteriori'"):
        good["split"]


def invoke(*args):
    return RUN.invoke(app, [str(a) for a in args])


@pytest.mark.slow
def test_certify_on_the_command_line(tmp_path, mnist7):
    net = trained_by_adam(mnist7)
    path = tmp_path / "weights.npz"
    np.savez(path, **{f"W{i + 1}": np.asarray(w) for i, w in enumerate(net.weights)})
    result = invoke("certify", path, "--epsilon", 1, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    value = certify(net, mnist7, inputs="raw")["split-a-posteriori"]["value"]
    assert_close(found["bounds"][0]["value"], value, rtol=1e-6)
    text = invoke("certify", path, "--epsilon", 1).stdout
    assert f"test error <= {value:.4f}" in text


@pytest.mark.parametrize(
    ("arrays", "args", "message"),
    [
        (None, [], "`WEIGHTS` must be an .npz file, got"),
        ({"W1": np.ones((3, 49))}, [], "`WEIGHTS` must hold the arrays W1 ... WL, L >= 2, got W1"),
        ({"W1": np.ones(3), "W2": np.ones((1, 3))}, [], "got W1 of shape (3,)"),
        ({"W1": np.ones((3, 5)), "W2": np.ones((1, 3))}, [], "`WEIGHTS` must have 49 inputs"),
        ({"W1": np.ones((3, 5)), "W2": np.ones((1, 4))}, [], "`WEIGHTS` must be at least two"),
        (
            {"W1": np.ones((3, 49)), "W2": np.ones((1, 3))},
            ["--epsilon", 2],
            "`--epsilon` must be in",
        ),
    ],
    ids=["missing", "one", "vector", "inputs", "chain", "epsilon"],
)
def test_bad_weights_get_one_line_and_status_2(tmp_path, arrays, args, message):
    path = tmp_path / "weights.npz"
    if arrays is not None:
        np.savez(path, **arrays)
    result = invoke("certify", path, *(args or ["--epsilon", 1]))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr


@pytest.mark.slow
def test_seeds_on_the_command_line():
    args = ["--components", 3, "--width", 4, "--end-time", 1, "--seeds", 2]
    found = json.loads(invoke("report", *args, "--json").stdout)
    assert len(found["seeds"]["split-a-posteriori"]["values"]) == 2
    bad = invoke("report", *args[:-1], 0)
    assert bad.exit_code == 2
    assert "`--seeds` must be an integer of at least 1, got 0." in bad.stderr


@pytest.mark.slow
def test_the_ladder_holds_the_best_values_and_its_picture_shows_them():
    data = figures.ladder(TASK, SMALL, epsilons=[0.01, 1.0])
    direct = report(TASK, Settings(**{**SMALL.as_dict(), "epsilon": 1.0, "ratios": SMALL.ratios}))
    for name in direct.names():
        assert_close(data["value"].sel(bound=name)[1], direct.best(name)["value"], rtol=1e-9)
    axis = figures.plot_ladder(data).axes[0]
    labels = [line.get_label() for line in axis.lines]
    assert [*data["bound"].values, "true test error at the end", "random guess"] == labels
    assert_close(axis.lines[0].get_ydata(), data["value"][:, 0].values)


@pytest.mark.slow
def test_figure_on_the_command_line(tmp_path):
    result = invoke("figure", "ladder", "--preset", "tiny", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ladder.png", "ladder.zarr"]
    assert (tmp_path / "ladder.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    data = figures.load_data(tmp_path / "ladder.zarr")
    assert data["value"].shape[0] == 2
    assert data.attrs["width"] == 4
    assert invoke("figure", "10").exit_code == 2
    with pytest.raises(ValueError, match="`folder` must hold figure1.zarr"):
        figures.redraw("1", tmp_path)
