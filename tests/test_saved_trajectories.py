"""The training of any module in a file, and back."""

import zipfile
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import EqualSteps, assert_close, small_task

from nlbound_jax import dynamics, networks
from nlbound_jax.report import load_run, load_trajectory, save_trajectory

TASK = small_task(m=20, d=3)
KEY = jax.random.key(4)


def leaky(width=4):
    return networks.initialize(KEY, 3, width, 2, epsilon=0.3, beta=0.5)


class Net(eqx.Module):
    """Something of everything that a module may hold."""

    first: eqx.nn.Linear
    inner: networks.LeakyMLP
    order: jax.Array
    signs: np.ndarray
    key: jax.Array
    bent: Callable
    scale: float
    power: int = eqx.field(static=True)

    def __init__(self, width=4, scale=0.5):
        self.first = eqx.nn.Linear(3, 3, key=KEY)
        self.inner = leaky(width)
        self.order, self.signs = jnp.array([2, 0, 1]), np.array([1, -1, 1])
        self.key, self.bent, self.scale, self.power = KEY, jnp.tanh, scale, 2

    def __call__(self, x):
        hidden = self.bent(self.first(x))[self.order] * self.signs.astype(x.dtype)
        return self.inner(self.scale * hidden) ** self.power


def train(net):
    return dynamics.gradient_descent(net, TASK, 4, step_size=0.1, save_every=2)


def assert_same(one, two):
    """Equal to the bit, dtypes included."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        assert type(a) is type(b)
        if eqx.is_array_like(a) and not jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key):
            assert np.asarray(a).dtype == np.asarray(b).dtype
            assert np.asarray(a).shape == np.asarray(b).shape
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("kind", ["module", "leaky", "flow"])
def test_the_round_trip_is_exact(kind, tmp_path):
    net: Any = leaky() if kind == "leaky" else Net()
    if kind == "flow":
        options = {"t1": 0.2, "stepsize_controller": EqualSteps(0.05), "max_steps": None}
        run = dynamics.gradient_flow(net, TASK, **options)
    else:
        run = train(net)
    # The arrays of the template do not matter, only what they are of.
    other = jax.tree.map(lambda a: a * 0 if eqx.is_inexact_array(a) else a, net)
    other = other if kind == "leaky" else eqx.tree_at(lambda n: n.order, other, 0 * net.order)
    save_trajectory(run, tmp_path / "new" / "run.npz")
    again = load_trajectory(tmp_path / "new" / "run.npz", other)
    assert_same(again, run)
    x = jnp.asarray(TASK.x[0], run.ts.dtype)
    assert_close(again.network(0)(x), run.network(0)(x))


def test_a_dtype_that_numpy_has_no_name_for(tmp_path):
    net = eqx.nn.Linear(3, "scalar", key=KEY, dtype=jnp.bfloat16)
    run = train(net)
    save_trajectory(run, tmp_path / "run.npz")
    assert_same(load_trajectory(tmp_path / "run.npz", net), run)


def change(path, target, **changed):
    """A copy of the file with other arrays; `None` takes one out."""
    with np.load(path) as found:
        arrays = {**found, **changed}
    np.savez(target, **{k: v for k, v in arrays.items() if v is not None})


def test_another_module_or_file_gets_one_line(tmp_path, no_type_checks):
    path, net = tmp_path / "run.npz", Net()
    like: Any
    save_trajectory(train(net), path)
    dtype = str(net.first.weight.dtype)
    other = "float32" if dtype == "float64" else "float16"
    low = eqx.tree_at(lambda n: n.first.bias, net, jnp.asarray(net.first.bias, other))
    more = eqx.tree_at(lambda n: n.scale, net, jnp.asarray(0.5))
    less = eqx.tree_at(lambda n: n.order, net, None)
    wider = rf"inner.weights\[0\] of {dtype} and shape \(4, 3\), got {dtype} and \(5, 3\)"
    for like, text in (
        (Net(width=5), f"have arrays as the trained module, {wider}"),
        (low, f"have arrays as the trained module, first.bias of {dtype} .*, got {other}"),
        (more, "have arrays as the trained module, got scale more"),
        (less, "have arrays as the trained module, got no order"),
        (leaky(), "have arrays as the trained"),
        (jnp.tanh, "be an Equinox module, got"),
    ):
        with pytest.raises(ValueError, match=rf"^`like` must {text}[^\n]*$"):
            load_trajectory(path, like)
    for name, changed in (
        ("shape", {"ts": np.ones((2, 2))}),
        ("gone", {"reached": None}),
        ("more", {"another": np.ones(2)}),
        ("header", {"header": None}),
        ("empty", {"header": np.frombuffer(b"{}", np.uint8)}),
    ):
        change(path, tmp_path / f"{name}.npz", **changed)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:200])
    for name, text in (
        ("shape", "its content does not fit together"),
        ("gone", "its content does not fit together"),
        ("more", "its content does not fit together"),
        ("header", "it was not written by `save_trajectory`"),
        ("empty", "it was not written by `save_trajectory`"),
        ("cut", "it is damaged, cut short, or no .npz file of arrays"),
        ("nowhere", "No such file"),
    ):
        start = "^`path` must be a trajectory saved by `save_trajectory`, got '.*"
        with pytest.raises(ValueError, match=rf"{start}{name}.npz': {text}[^\n]*$"):
            load_trajectory(tmp_path / f"{name}.npz", net)
    with pytest.raises(ValueError, match="^`path` must be a run saved by `save_run`.*not written"):
        load_run(path)
    assert all(not n.filename.endswith(".pkl") for n in zipfile.ZipFile(path).infolist())


def test_a_trajectory_that_is_traced_gets_one_line(tmp_path):
    def inside(net):
        save_trajectory(train(net), tmp_path / "run.npz")

    with pytest.raises(ValueError, match=r"^`trajectory` must be of numbers, got one that JAX"):
        eqx.filter_jit(inside)(leaky())
    assert not list(tmp_path.iterdir())
