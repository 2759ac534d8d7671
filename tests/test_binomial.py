"""The exact binomial limit against SciPy, the sum it inverts, and its own promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nlbound_jax.bounds import binomial_upper

pytestmark = pytest.mark.float64


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def exact(k, n, delta):
    return np.where(k < n, scipy.special.betaincinv(k + 1, np.maximum(n - k, 1), 1 - delta), 1.0)


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 30_000])
@pytest.mark.parametrize("delta", [0.5, 0.1, 0.01, 1e-4])
def test_against_scipy(n, delta):
    k = np.unique(np.round(np.array([0, 1e-3, 0.01, 0.1, 0.2, 0.5, 0.9, 1]) * n))
    found, expected = np.asarray(binomial_upper(k, float(n), delta)), exact(k, n, delta)
    assert np.abs(found - expected).max() < 1e-9
    assert (found >= expected * (1 - 1e-14)).all()


@given(n=st.integers(1, 3000), share=st.floats(0, 1), delta=st.floats(1e-8, 0.99, exclude_min=True))
def test_it_is_the_supremum(n, share, delta):
    """P(Bin(n, p) <= k) is at most delta at the limit and more just below it."""
    with jax.enable_x64(True):
        k = int(share * n)
        limit = float(binomial_upper(float(k), float(n), delta))
        if k == n:
            assert limit == 1
            return
        assert 0 < limit <= 1
        assert scipy.stats.binom.cdf(k, n, limit) <= delta * (1 + 1e-12)
        assert scipy.stats.binom.cdf(k, n, limit * (1 - 1e-6)) > delta


def test_it_holds_with_the_probability_it_says_and_no_less_would_do():
    """All outcomes of 30 samples, at many risks: it fails with at most delta, and the 0.1% lower
    limit with more somewhere."""
    n, delta = 30, 0.1
    k = np.arange(n + 1)
    limit = np.asarray(binomial_upper(k.astype(float), float(n), delta))
    assert (np.diff(limit) > 0).all()
    p = np.concatenate([np.linspace(0.001, 0.999, 500), limit[:-1] * (1 - 1e-9)])[:, None]
    chance = scipy.stats.binom.pmf(k, n, p)
    assert np.sum(chance * (limit < p), axis=1).max() <= delta * (1 + 1e-6)
    lower = limit * 0.999
    assert np.sum(chance * (lower < p), axis=1).max() > delta


def test_it_can_be_traced_and_mapped():
    found = jax.jit(jax.vmap(lambda k: binomial_upper(k, 50.0, 0.05)))(jnp.array([0.0, 7.0, 50.0]))
    assert np.abs(np.asarray(found) - exact(np.array([0, 7, 50]), 50, 0.05)).max() < 1e-9


@pytest.mark.parametrize(
    ("numbers", "named"),
    [((3.0, 2.0, 0.1), "k"), ((-1.0, 2.0, 0.1), "k"), ((0.0, 0.5, 0.1), "n"), ((0, 2, 1), "delta")],
)
def test_what_is_wrong_is_named(numbers, named):
    with pytest.raises(ValueError, match=f"`{named}` must"):
        binomial_upper(*numbers)
