"""What float32 is good for, and what says that it needs float64."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from test_doors import FLOAT64, function_of

from nlbound_jax import bounds, checks, dynamics, networks

# Relative error of the float32 flow, as the README of the tests states it.
STATED = 2e-4


def test_the_comparison_rejects_one_wrong_entry():
    expected = np.random.default_rng(0).normal(size=(50, 50))
    for dtype, error in (("float64", 1e-11), ("float32", 1e-3)):
        actual = expected.astype(dtype)
        assert_close(actual, expected)
        actual[31, 7] *= 1 + error
        with pytest.raises(AssertionError, match="1 of 2500 entries differ"):
            assert_close(actual, expected)


@pytest.mark.float64
def test_the_float32_flow_is_within_its_stated_error(mnist7, optimized):
    """MNIST 7x7 at the defaults, to the learning time; float64 at rtol 1e-6."""
    ends = []
    for dtype, rtol in (("float32", None), ("float64", 1e-6)):
        net = networks.initialize(
            jax.random.key(0), 49, 64, 2, epsilon=0.001, beta=1e-3, dtype=dtype
        )
        controller = None if rtol is None else diffrax.PIDController(rtol=rtol, atol=rtol * 1e-3)
        ends.append(dynamics.gradient_flow(net, mnist7, t1=12.3, stepsize_controller=controller))
    for low, high in zip(ends[0].weights, ends[1].weights, strict=True):
        gap = np.linalg.norm(np.asarray(low[-1], float) - np.asarray(high[-1]))
        assert gap <= STATED * np.linalg.norm(np.asarray(high[-1]))
    risks = [np.mean(np.asarray(e.network()(mnist7.x_test)) * mnist7.y_test < 0) for e in ends]
    assert abs(risks[0] - risks[1]) <= STATED


@pytest.mark.float32
@pytest.mark.parametrize("name", [n for n in FLOAT64 if n != "bounds.certified_theorem_5_2"])
def test_what_needs_float64_says_so(name):
    short = "theorem_5_2" if name == "bounds.grid" else name.partition(".")[2]
    with pytest.raises(ValueError, match=f"^`{short}` must run in float64, got jax_enable_x64=F"):
        function_of(name)(**FLOAT64[name])


@pytest.mark.float32
def test_the_counterexamples_say_so_too():
    with pytest.raises(ValueError, match="must run in float64"):
        checks.lost_rho()


@pytest.mark.float32
def test_without_float64_nothing_comes_out_in_it():
    net = networks.initialize(jax.random.key(0), 3, 4, 2, epsilon=0.1, beta=0.1)
    results = [net(np.ones((5, 3))), bounds.path_norms(net.weights), bounds.kl_inverse(0.1, 0.1)]
    results += [dynamics.learning_time(0.9, depth=3, alignment=0.6, beta=0.1)]
    results += [bounds.smoothed_ramp(np.linspace(-1, 1, 5), 0.1, 0.2, 3)]
    assert {r.dtype for r in results} == {jnp.dtype("float32")}


@pytest.mark.float32
def test_kl_inverse_in_float32_is_within_its_stated_error():
    p, c = np.meshgrid(np.linspace(0, 1, 41), np.geomspace(1e-6, 5, 40))
    p, c = (a.ravel().astype("float32").astype(float) for a in (p, c))
    found = np.asarray(bounds.kl_inverse(p, c), float)
    with jax.enable_x64(True):
        exact = np.asarray(bounds.kl_inverse(p, c))
    assert_close(found, exact, rtol=0, atol=2e-5)
