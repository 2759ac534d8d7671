"""The divergence that the bounds for several classes pay: against the relative entropy itself, by
quadrature; the least cell and the best prior against a scan."""

import math

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.linalg
from helpers import assert_close

from nlbound_jax import RESULTS, bounds
from nlbound_jax.bounds import _class_search

pytestmark = pytest.mark.float64


def relative_entropy(means, sigma, taus):
    """Of N(mean, sigma^2) from N(0, tau^2), summed over coordinates: each an integral of
    p ln(p/q)."""
    total = mpmath.mpf(0)
    with mpmath.workdps(25):
        for mean, tau in zip(means, taus, strict=True):
            mean, tau, s = mpmath.mpf(float(mean)), mpmath.mpf(float(tau)), mpmath.mpf(sigma)

            def integrand(u, mean=mean, tau=tau, s=s):
                x = mean + s * u
                ratio = mpmath.log(tau / s) - u**2 / 2 + (x / tau) ** 2 / 2
                return mpmath.npdf(u) * ratio

            total += mpmath.quad(integrand, [-14, -5, 0, 5, 14])
    return float(total)


def call(classes, dim, grid, linear, spectra, m=60):
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(m, classes)), rng.integers(classes, size=m)
    return bounds.class_split_bound(
        outputs,
        labels,
        np.ones(m),
        epsilon=0.0,
        linear=linear,
        paths=np.zeros(1),
        roots=np.ones(1),
        spectra=spectra,
        gammas=np.array([0.7]),
        grid=grid,
    )


def shapes(spectra, exponent):
    raised = spectra**exponent
    return raised * len(spectra) / raised.sum()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("classes", "dim"), [(2, 3), (3, 4), (5, 2)])
def test_the_divergence_is_the_relative_entropy_on_the_border_of_the_cell(classes, dim, exponent):
    """The noise and the prior live on the outputs of sum 0, K - 1 for each coordinate."""
    rng = np.random.default_rng(classes)
    spectra = 10 ** rng.uniform(-2, 1, dim)
    noise, size, gamma = 0.3, 1.9, 0.7
    grid = bounds.ClassGrid(noise=(noise, noise, 2.0), linear=(size, size, 2.0), priors=(exponent,))
    sigma, linear = noise * gamma, size * gamma * math.sqrt(classes - 1)
    q = shapes(spectra, exponent)
    tau = np.sqrt(sigma**2 + linear**2 * q / ((classes - 1) * dim))
    basis = scipy.linalg.null_space(np.ones((1, classes)))  # of the outputs of sum 0
    straight = rng.normal(size=(classes, dim)) * 10 ** rng.uniform(-1, 1, dim)
    inside = basis.T @ straight
    left, right = np.sum((inside / tau) ** 2), np.sum(linear**2 * q / dim / tau**2)
    border = straight * math.sqrt(right / left)
    for share in (1 - 1e-9, 0.8, 0.0):
        found = call(classes, dim, grid, share * border, spectra)
        assert_close([found.noise, found.linear], [sigma, linear], rtol=1e-12)
        means = (basis.T @ (share * border)).ravel()
        exact = relative_entropy(means, sigma, np.tile(tau, classes - 1))
        if share > 0.9:  # sharp: no less would do
            assert_close(found.divergence, exact, rtol=1e-7)
        else:
            assert exact < found.divergence
        capacity = math.sqrt((found.divergence + found.log_cells + math.log(100)) / 120)
        assert_close(found.capacity, capacity, rtol=1e-10)
    assert_close(
        call(classes, dim, grid, border * (1 - 1e-9) + rng.normal(size=dim), spectra).divergence,
        call(classes, dim, grid, border * (1 - 1e-9), spectra).divergence,
        rtol=1e-12,
    )
    outside = call(classes, dim, grid, border * (1 + 1e-6), spectra)
    assert outside.result == RESULTS.blow_up
    assert np.isinf(outside.value)


def test_the_cell_is_the_least_that_holds_and_the_prior_the_best():
    """All values of the range, all priors and all margins, one by one."""
    rng = np.random.default_rng(0)
    classes, dim = 4, 6
    grid = bounds.ClassGrid(noise=(1e-2, 1.0, 3.0), linear=(1e-2, 1e3, 1.3), priors=(0.0, 0.4, 1.0))
    gammas, used = np.array([0.05, 0.8, 6.0]), set()
    for _ in range(30):
        spectra = np.sort(10 ** rng.uniform(-3, 1, dim))
        straight = rng.normal(size=(classes, dim)) * 10 ** rng.uniform(-3, 1, dim)
        if rng.uniform() < 0.5:
            straight = straight * spectra**0.5
        centred = straight - straight.mean(axis=0)
        squares = np.sum(centred**2, axis=0)
        sizes = _class_search.ClassSizes(
            squares=jnp.asarray(squares / (classes - 1))[None],
            shapes=jnp.asarray(np.stack([shapes(spectra, e) for e in grid.priors]))[None],
            noise_roots=jnp.ones(1),
            paths=jnp.zeros(1),
            roots=jnp.ones(1),
        )
        cost, linear, prior = _class_search._linear_cells(sizes, jnp.asarray(gammas), classes, grid)
        for g, gamma in enumerate(gammas):
            for n, noise in enumerate(grid.values("noise")):
                best = math.inf, math.inf, None
                for e, exponent in enumerate(grid.priors):
                    q = shapes(spectra, exponent)
                    for value in grid.values("linear"):
                        b = value**2 * (classes - 1)
                        tau = noise**2 + b * q / ((classes - 1) * dim)
                        if np.sum(squares / gamma**2 / tau) <= np.sum(b * q / dim / tau):
                            kl = (classes - 1) / 2 * np.sum(np.log1p(value**2 * q / dim / noise**2))
                            best = min(best, (kl, value, e))
                            break
                assert_close(cost[g, 0, n], best[0], rtol=1e-10)
                assert_close(linear[g, 0, n], best[1], rtol=1e-12)
                assert best[2] is None or prior[g, 0, n] == best[2]
                used.add(best[2])
    assert used >= {0, 1, 2}
