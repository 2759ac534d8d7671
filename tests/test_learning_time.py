import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from helpers import assert_close

from nlbound_jax import dynamics

CASES = [
    (depth, fraction, s, beta)
    for depth in (2, 3, 4, 6, 10)
    for fraction in (0.1, 0.9, 0.999999)
    for s, beta in ((0.2, 0.03), (1.0, 0.5), (0.633, 1e-3), (0.7, 1e-6))
    if beta**depth < fraction * s
]


def oracle(depth, fraction, s, beta):
    """The time in which z' = z^(L-1) (s - z^L) goes from beta to (fraction s)^(1/L)."""
    with mp.workdps(30):
        s, beta = mp.mpf(s), mp.mpf(beta)
        end = mp.log((mp.mpf(fraction) * s) ** (mp.mpf(1) / depth))
        start = mp.log(beta)
        points = [start + (end - start) * k / 12 for k in range(13)]

        def integrand(y):
            return mp.e ** (y * (2 - depth)) / (s - mp.e ** (depth * y))

        return float(mp.quad(integrand, points))


@pytest.mark.parametrize(("depth", "fraction", "s", "beta"), CASES)
def test_eq_15_and_97_against_quadrature(depth, fraction, s, beta):
    # What the library sees: 1 - fraction has few digits where float32 rounds fraction.
    seen = [float(jnp.asarray(v, dtype=float)) for v in (fraction, s, beta)]
    time = dynamics.learning_time(fraction, depth=depth, alignment=s, beta=beta)
    expected = oracle(depth, *seen)
    if expected > float(jnp.finfo(time.dtype).max):
        expected = np.inf
    assert_close(time, expected, rtol=1e-9)


def test_eq_15_closed_form():
    a, s, beta = 0.9, 0.633, 1e-3
    time = dynamics.learning_time(a, depth=2, alignment=s, beta=beta)
    assert_close(time, np.log(a * (s - beta**2) / ((1 - a) * beta**2)) / (2 * s), rtol=1e-13)


def test_leaky_clock_closed_form():
    a, s, beta, epsilon = 0.9, 0.6331852, 1e-3, 1.0
    omega = 1 - epsilon / 2
    expected = np.log(a * (s - omega * beta**2) / ((1 - a) * omega * beta**2)) / (2 * omega * s)
    time = dynamics.learning_time(a, depth=2, alignment=s, beta=beta, epsilon=epsilon)
    assert_close(time, expected, rtol=1e-13)
    assert float(time) == pytest.approx(25.66, abs=0.01)


def test_it_broadcasts_and_jits():
    betas = np.array([1e-4, 1e-2])[:, None]
    epsilons = np.array([0.0, 0.5, 1.0])

    def times(b, e):
        return dynamics.learning_time(0.5, depth=3, alignment=0.7, beta=b, epsilon=e)

    grid = times(betas, epsilons)
    assert grid.shape == (2, 3)
    assert_close(jax.jit(times)(betas, epsilons), grid, rtol=1e-13)
    assert_close(times(betas[1, 0], epsilons[2]), grid[1, 2], rtol=1e-13)


def test_bad_arguments_get_one_line(no_type_checks):
    good = {"fraction": 0.9, "depth": 2, "alignment": 0.5, "beta": 0.1, "epsilon": 0.0}
    for name, value, allowed in (
        ("fraction", 1.0, r"in \(0, 1\)"),
        ("depth", 1, "an integer of at least 2"),
        ("alignment", 0.0, r"in \(0, 1\]"),
        ("beta", -1.0, "positive and finite"),
        ("epsilon", 2.0, r"in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be {allowed}, got"):
            dynamics.learning_time(**(good | {name: value}))
    with pytest.raises(ValueError, match="`fraction` must exceed omega beta.depth / alignment"):
        dynamics.learning_time(0.1, depth=2, alignment=0.5, beta=0.5)
