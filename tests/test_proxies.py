import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, numpy_network

from nlbound_jax import networks

X64 = jax.config.jax_enable_x64
RTOL, ATOL = (1e-11, 1e-13) if X64 else (2e-4, 2e-5)


pytestmark = pytest.mark.quick


def pair(epsilon=0.4, depth=3):
    keys = jax.random.split(jax.random.key(5))
    make = [networks.initialize(k, 4, 6, depth, epsilon=epsilon, beta=0.9) for k in keys]
    return make[0], make[1]


def inputs(m=50, rank=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, rank)) @ rng.normal(size=(rank, 4))


def rms(values):
    return float(np.sqrt(np.mean(np.asarray(values, float) ** 2)))


def test_g0_and_g1_are_networks_at_the_linear_weights():
    net, linear = pair()
    x = inputs()
    assert_close(
        networks.linear_proxy(linear)(x), numpy_network(linear.weights, 0.0, x), RTOL, ATOL
    )
    g1 = networks.leaky_proxy(linear, 0.7)
    assert_close(g1(x), numpy_network(linear.weights, 0.7, x), RTOL, ATOL)


@pytest.mark.parametrize("rank", [4, 2])
def test_eq_25_against_numpy_at_full_and_deficient_rank(rank):
    net, linear = pair()
    x = inputs(rank=rank)
    rest = numpy_network(net.weights, 0.4, x) - numpy_network(linear.weights, 0.4, x)
    expected = np.linalg.pinv(x, rcond=1e-5) @ rest
    g2 = networks.corrected_proxy(net, linear, x, cut=1e-5)
    assert_close(g2.correction, expected, 1e-9 if X64 else 2e-3, 1e-10 if X64 else 2e-5)
    new = inputs(7, seed=1)
    value = numpy_network(linear.weights, 0.4, new) + new @ expected
    assert_close(g2(new), value, 1e-9 if X64 else 2e-3, 1e-9 if X64 else 2e-4)
    assert_close(g2(new[0]), np.asarray(g2(new))[0], 1e-4, 1e-6)


def test_eq_25_the_inverse_of_whitened_inputs_is_their_transpose():
    net, linear = pair()
    x = np.linalg.qr(inputs())[0] * np.sqrt(50)
    slow = networks.corrected_proxy(net, linear, x)
    fast = networks.corrected_proxy(net, linear, x, inverse=x / 50)
    assert_close(fast.correction, slow.correction, 1e-9 if X64 else 1e-3, 1e-12 if X64 else 1e-6)


def test_eq_25_no_other_correction_is_nearer_on_the_training_set():
    net, linear = pair()
    x = inputs()
    f, g2 = net(x), networks.corrected_proxy(net, linear, x)
    best = rms(f - g2(x))
    assert 0 < best < rms(f - networks.leaky_proxy(linear, 0.4)(x))
    for seed in range(20):
        step = 0.01 * np.random.default_rng(seed).normal(size=4)
        moved = eqx.tree_at(
            lambda g: g.correction, g2, g2.correction + step.astype(g2.correction.dtype)
        )
        assert rms(f - moved(x)) > best


def test_g2_reproduces_a_linear_network_exactly():
    net, linear = pair(epsilon=0.0)
    x, new = inputs(), inputs(9, seed=2)
    g2 = networks.corrected_proxy(net, linear, x)
    assert_close(g2(new), net(new), 1e-9 if X64 else 1e-3, 1e-11 if X64 else 1e-4)


def test_a_proxy_is_a_pytree():
    net, linear = pair()
    x = jnp.asarray(inputs())
    g2 = networks.corrected_proxy(net, linear, x)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(g2))
    assert_close(eqx.filter_jit(lambda g, x: g(x))(g2, x), g2(x), 1e-4, 1e-5)
    gradient = jax.grad(lambda g: jnp.sum(g(x)))(g2)
    assert_close(gradient.correction, np.sum(np.asarray(x), axis=0), 1e-4, 1e-4)


def test_errors(no_type_checks):
    net, linear = pair()
    x = inputs()
    other = networks.initialize(jax.random.key(0), 4, 5, 3, epsilon=0.4, beta=0.9)
    with pytest.raises(ValueError, match="`linear` must have the weights' shapes of `net`"):
        networks.corrected_proxy(net, other, x)
    with pytest.raises(ValueError, match=r"`x` must have shape \(samples, 4\), got \(50, 3\)"):
        networks.corrected_proxy(net, linear, x[:, :3])
    with pytest.raises(ValueError, match="`inverse` must have the shape of `x`"):
        networks.corrected_proxy(net, linear, x, inverse=x.T)
    with pytest.raises(ValueError, match="`cut` must be"):
        networks.corrected_proxy(net, linear, x, cut=1.5)
    with pytest.raises(ValueError, match=r"`epsilon` must be in \[0, 1\], got 1.3"):
        networks.leaky_proxy(linear, 1.3)
