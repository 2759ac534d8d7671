import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, numpy_network

from nlbound_jax import networks

pytestmark = pytest.mark.quick

KEY = jax.random.key(3)


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_eq_2_and_3_output(depth, epsilon):
    net = networks.initialize(KEY, 5, 7, depth, epsilon=epsilon, beta=0.8)
    x = np.random.default_rng(0).normal(size=(11, 5))
    expected = numpy_network(net.weights, epsilon, x)
    assert_close(net(x), expected, rtol=1e-12 if jax.config.jax_enable_x64 else 1e-4, atol=1e-7)
    assert_close(jax.vmap(net)(jnp.asarray(x)), net(x), rtol=1e-5, atol=1e-7)
    assert (np.asarray(net.predict(x)) == np.where(expected < 0, -1, 1)).all()
    assert net.depth == depth


@pytest.mark.parametrize("kind", ["default", "rank-one"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initialization(kind, dtype):
    if dtype == "float64" and not jax.config.jax_enable_x64:
        pytest.skip("float64 needs jax_enable_x64")
    net = networks.initialize(KEY, 49, 64, 4, epsilon=0.1, beta=0.01, kind=kind, dtype=dtype)
    assert [w.shape for w in net.weights] == [(64, 49), (64, 64), (64, 64), (1, 64)]
    for w in net.weights:
        assert w.dtype == net.epsilon.dtype == dtype
        assert np.linalg.norm(np.asarray(w, float), 2) == pytest.approx(0.01, rel=1e-5)
    first = np.asarray(net.weights[0], float)
    singular = np.linalg.svd(first, compute_uv=False)
    if kind == "rank-one":
        assert singular[1] < 1e-6 * singular[0]
    else:
        # Uniform entries: mean square one third of the largest, before and after rescaling.
        assert np.mean(first**2) / np.max(first**2) == pytest.approx(1 / 3, rel=0.05)


def test_rank_one_keeps_the_leading_part():
    full = networks.initialize(KEY, 6, 9, 2, epsilon=0.0, beta=1.0)
    one = networks.initialize(KEY, 6, 9, 2, epsilon=0.0, beta=1.0, kind="rank-one")
    u, s, vt = np.linalg.svd(np.asarray(full.weights[0]))
    assert_close(one.weights[0], s[0] * np.outer(u[:, 0], vt[0]), rtol=1e-4, atol=1e-6)
    assert_close(one.weights[1], full.weights[1])


def test_keys_decide():
    nets = [networks.initialize(jax.random.key(k), 4, 4, 2, epsilon=0, beta=1) for k in (0, 0, 1)]
    assert eqx.tree_equal(nets[0], nets[1])
    assert not eqx.tree_equal(nets[0], nets[2])


def test_initialization_is_vmapped_over_numbers():
    def make(beta, epsilon):
        return networks.initialize(KEY, 3, 4, 2, epsilon=epsilon, beta=beta)

    betas, epsilons = jnp.array([0.1, 0.5]), jnp.array([0.0, 1.0])
    nets = jax.jit(jax.vmap(make))(betas, epsilons)
    assert_close(nets.weights[0][1], make(0.5, 1.0).weights[0], rtol=1e-5)


BAD = {
    "in_size": (0, "an integer of at least 1"),
    "width": (2.5, "an integer of at least 1"),
    "depth": (1, "an integer of at least 2"),
    "epsilon": (1.3, r"in \[0, 1\]"),
    "beta": (0.0, "positive and finite"),
    "kind": ("zeros", "one of 'default', 'rank-one'"),
    "out_size": (0, "an integer of at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_get_one_line(no_type_checks, name):
    value, allowed = BAD[name]
    good = {"in_size": 3, "width": 4, "depth": 2, "epsilon": 0.1, "beta": 0.1}
    with pytest.raises(ValueError, match=f"`{name}` must be {allowed}, got"):
        networks.initialize(KEY, **(good | {name: value}))


def test_several_outputs_are_networks_of_one_output_side_by_side():
    net = networks.initialize(KEY, 5, 7, 3, epsilon=0.3, beta=0.8, out_size=4)
    assert [w.shape for w in net.weights] == [(7, 5), (7, 7), (4, 7)]
    assert net.num_outputs == 4
    x = np.random.default_rng(0).normal(size=(11, 5))
    alone = [
        networks.LeakyMLP((*net.weights[:2], row[None]), net.epsilon) for row in net.weights[2]
    ]
    outputs = net(x)
    assert outputs.shape == (11, 4)
    assert_close(outputs, jnp.stack([one(x) for one in alone], axis=1), rtol=1e-5, atol=1e-6)
    assert_close(net(x[3]), outputs[3], rtol=1e-5, atol=1e-6)
    assert net.features_first(jnp.asarray(x.T, outputs.dtype)).shape == (4, 11)
    assert (net.predict(x) == np.argmax(outputs, axis=1)).all()
    assert net.predict(x[3]).shape == ()


def test_weights_must_fit_together():
    with pytest.raises(ValueError, match=r"`weights` must be at least two matrices .* got shapes"):
        networks.LeakyMLP((jnp.ones((3, 2)), jnp.ones((1, 4))), jnp.array(0.1))


def test_a_traced_epsilon_is_checked_at_run_time():
    make = eqx.filter_jit(lambda e: networks.initialize(KEY, 3, 4, 2, epsilon=e, beta=0.1).epsilon)
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"`epsilon` must be in \[0, 1\]"):
        make(jnp.array(1.3))
