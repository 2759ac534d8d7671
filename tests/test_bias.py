"""Biases in the first layer, by a constant feature."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, small_data
from scipy.integrate import solve_ivp

from nlbound_jax import Settings, certify, dynamics, networks, report, tasks
from nlbound_jax.report import load_run, save_run

pytestmark = pytest.mark.float64
R = 20.0


def biased(**options):
    return tasks.from_arrays(**small_data(), norm_bound=R, bias=True, **options)


def test_the_constant_is_one_feature_more_and_whitened():
    plain, task = tasks.from_arrays(**small_data(), norm_bound=R), biased()
    assert task.num_features == plain.num_features + 1
    assert task.rank == plain.rank + 1
    assert_close(task.x.T @ task.x / len(task.x), np.eye(task.rank), atol=1e-9)
    raw = small_data()["x"]
    with_constant = np.concatenate([raw, np.full((len(raw), 1), R)], axis=1)
    assert_close(task.transform.inverse(task.x), with_constant / (np.sqrt(2) * R), atol=1e-9)
    assert np.linalg.norm(with_constant / (np.sqrt(2) * R), axis=1).max() <= 1
    # New inputs come without it.
    assert_close(task.transform(raw), task.x, atol=1e-9)
    assert_close(task.transform(raw[0]), task.x[0], atol=1e-9)
    assert_close(task.transform(small_data()["x_test"]), task.x_test, atol=1e-9)


def test_the_flow_is_that_of_a_network_with_biases():
    """SciPy on the raw inputs with a bias for each hidden unit: in the coordinates of the whitened
    inputs W1 x + b is the first layer, trained at the speeds that the whitening gives."""
    task = biased()
    net = networks.initialize(jax.random.key(0), task.rank, 3, 2, epsilon=0.5, beta=0.8)
    x, y, matrix = small_data()["x"], task.y, task.transform.matrix / task.transform.scale
    m, speeds = len(x), matrix @ matrix.T
    constant = task.transform.scale / np.sqrt(2)

    def parts(flat):
        return flat[: 3 * x.shape[1]].reshape(3, -1), flat[-6:-3], flat[-3:]

    def field(_, flat):
        w, b, v = parts(flat)
        z = x @ w.T + b
        slopes = np.where(z < 0, 0.5, 1.0)
        error = y - (z * slopes) @ v
        back = error[:, None] * slopes * v
        raw = np.concatenate([back.T @ x, constant * back.sum(0)[:, None]], axis=1) / m @ speeds
        return np.concatenate(
            [raw[:, :-1].ravel(), constant * raw[:, -1], (z * slopes).T @ error / m]
        )

    first = np.asarray(net.weights[0]) @ matrix.T
    start = np.concatenate(
        [first[:, :-1].ravel(), constant * first[:, -1], np.asarray(net.weights[1][0])]
    )
    truth = solve_ivp(field, (0, 2.0), start, method="RK45", rtol=1e-7, atol=1e-9).y[:, -1]
    tight = diffrax.PIDController(rtol=1e-7, atol=1e-9)
    trained = dynamics.gradient_flow(net, task, t1=2.0, stepsize_controller=tight).network()
    w, b, v = parts(truth)
    z = x @ w.T + b
    assert_close(trained(task.x), np.where(z < 0, 0.5 * z, z) @ v, rtol=0, atol=1e-4)
    assert np.abs(b - start[-6:-3]).max() > 1e-3


def test_a_report_and_a_saved_run_with_biases(tmp_path):
    task = biased()
    made = report(task, Settings(width=4, num_times=2, end_time=1.0, anchor_fraction=0.5))
    values = {name: made.best(name)["value"] for name in made.names()}
    assert "split-no-plug-in" in values
    assert "anchored" in values
    save_run(made, task, tmp_path / "run.npz")
    again = load_run(tmp_path / "run.npz")
    assert again.transform.bias
    new = small_data()["x_test"]
    assert_close(again.transform(new), task.transform(new))
    assert (again.predict(new) == made.network.predict(task.x_test)).all()


def test_raw_weights_have_the_bias_last():
    task = biased()
    rng = np.random.default_rng(0)
    x = small_data()["x"]
    w, b = rng.normal(size=(4, x.shape[1])), rng.normal(size=4)
    v = jnp.asarray(rng.normal(size=(1, 4)))
    first = jnp.asarray(np.concatenate([w, b[:, None] / R], axis=1))
    net = networks.LeakyMLP((first, v), jnp.asarray(0.3))
    found = certify(net, task, inputs="raw")
    z = x @ w.T + b
    f = np.where(z < 0, 0.7 * z, z) @ np.asarray(v[0])
    assert found.train_risk == np.mean(f * task.y <= 0)


def test_split_keeps_the_constant():
    task = biased()
    split = tasks.split(task, key=jax.random.key(3))
    assert split.transform.bias
    assert split.anchor.transform.bias
    assert split.anchor.num_features == task.num_features
    raw = small_data()["x"]
    assert_close(split.transform(raw[split.second]), split.x, atol=1e-6)
    assert_close(split.anchor.transform(raw[split.first]), split.anchor.x, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bias": True}, "`bias` must be False unless a bound on the norm .* got True"),
        ({"bias": 2, "norm_bound": R}, "`bias` must be one of True, False, got 2"),
    ],
)
def test_a_constant_needs_a_size_known_beforehand(no_type_checks, options, text):
    with pytest.raises(ValueError, match=text):
        tasks.from_arrays(**small_data(), **options)


def test_mnist_with_biases():
    task = tasks.mnist(7, bias=True)
    assert (task.rank, task.num_features) == (50, 50)
    assert_close(task.transform(tasks.load_mnist()["x_test"][:3]), task.x_test[:3], atol=1e-9)
    assert task.alignment > tasks.mnist(7).alignment
