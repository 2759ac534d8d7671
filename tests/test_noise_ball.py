"""The ramp averaged over noise in a ball against mpmath, Monte Carlo and its own identities."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from helpers import assert_close

from nlbound_jax.bounds import _noise_ball
from nlbound_jax.bounds._noise_ball import mean_absolute_noise, smoothed_ramp

_DIMS = [1, 2, 3, 49, 188, 712]
# Absolute, for an average in [0, 1].
_TOLERANCE = {np.dtype("float32"): 5e-7, np.dtype("float64"): 5e-14}


@pytest.fixture(autouse=True)
def _double_precision():
    """Arrays of float32 ask for single precision here, not the environment."""
    with jax.enable_x64(True):
        yield


def _ramp(z, gamma):
    return np.clip(1 - z / gamma, 0, 1)


def _density(dim):
    """The density of u_1, normalized by quadrature."""
    power = mp.mpf(dim - 1) / 2
    points = mp.linspace(-1, 1, 9 if dim < 20 else 49)
    total = mp.quad(lambda v: (1 - v * v) ** power, points)
    return lambda v: (1 - v * v) ** power / total


def _average(function, density, dim, corners):
    """The integral of function * density, cut at the corners; to 20 digits."""
    reach = min(mp.mpf(1), 12 / mp.sqrt(dim + 2))
    inner = [c for c in corners if -reach < c < reach]
    points = sorted([*mp.linspace(-reach, reach, 9), *inner])
    return mp.quad(lambda v: function(v) * density(v), points)


def _problems(dim, count=14, seed=11):
    """z, b and gamma where the average is not constant: gamma from 1e-4 to 1e2 deviations of the
    noise, b from 1e-6 to 10, margins about the corners and between them."""
    rng = np.random.default_rng(seed + dim)
    b = 10 ** rng.uniform(-6, 1, count)
    deviation = b / np.sqrt(dim + 2)
    gamma = deviation * 10 ** rng.uniform(-4, 2, count)
    z = rng.uniform(-0.1, 1.1, count) * gamma + 1.5 * deviation * rng.normal(size=count)
    return z, b, gamma


def _spread_out(seed, count):
    rng = np.random.default_rng(seed)
    b, gamma = 10 ** rng.uniform(-6, 2, (2, count))
    z = rng.uniform(-0.3, 1.3, count) * gamma + 0.5 * b * rng.normal(size=count)
    return z, b, gamma


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dim", _DIMS)
def test_agrees_with_quadrature(dim, dtype):
    z, b, gamma = (n.astype(dtype) for n in _problems(dim))
    values = smoothed_ramp(z, b, gamma, dim)
    assert values.dtype == dtype
    with mp.workdps(25):
        density = _density(dim)
        exact = []
        for p, q, g in zip(*(n.tolist() for n in (z, b, gamma)), strict=True):

            def ramp(v, p=p, q=q, g=g):
                return min(max(1 - (p + q * v) / mp.mpf(g), 0), 1)

            corners = [-mp.mpf(p) / q, (mp.mpf(g) - p) / q]
            exact.append(float(_average(ramp, density, dim, corners)))
    inside = (np.array(exact) > 1e-3) & (np.array(exact) < 1 - 1e-3)
    assert inside.sum() >= 7
    assert_close(values, exact, rtol=0.0, atol=_TOLERANCE[np.dtype(dtype)])


# Each way of fitting, on both sides of where it changes.
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 8, 13, 14, 15, 16, 17, 18, 30, 100, 784, 3000])
def test_positive_part_in_closed_form(dim):
    """With z >= b, gamma E ramp is E(b u_1 - (gamma - z))_+ = b h(a), to 1e-13 of h(0)."""
    a = np.linspace(0, min(1.0, 9 / np.sqrt(dim + 2)), 12)
    # XLA would compile for each dimension.
    with jax.disable_jit():
        values = (2 - a) * np.asarray(smoothed_ramp(np.full(12, 2.0), 1.0, 2 - a, dim))
    with mp.workdps(40):
        half, power = mp.mpf(1) / 2, mp.mpf(dim + 1) / 2
        beta = mp.beta(half, power)
        exact = [
            (1 - c * c) ** power / ((dim + 1) * beta)
            - c * (half - mp.betainc(half, power, 0, c * c) / (2 * beta))
            for c in map(mp.mpf, (2 - (2 - a)).tolist())
        ]
        assert_close(values, [float(h) for h in exact], rtol=0.0, atol=1e-13 * float(exact[0]))


@pytest.mark.parametrize("dim", [2, 9, 188])
def test_agrees_with_monte_carlo(dim):
    rng = np.random.default_rng(5)
    count = 10**6
    first = rng.normal(size=count)
    radius = rng.uniform(size=count) ** (1 / dim)
    u = radius * first / np.sqrt(first**2 + rng.chisquare(dim - 1, count))

    def scores(dim):
        for z, b, gamma in ((0.02, 1.0, 0.05), (0.3, 1.5, 0.2), (-0.1, 0.7, 1.0)):
            draws = _ramp(z + b * u, gamma)
            error = draws.mean() - float(smoothed_ramp(z, b, gamma, dim))
            yield abs(error) / (draws.std() / np.sqrt(count))

    assert max(scores(dim)) < 4
    if dim < 100:
        # The draws tell a slip from ball to sphere apart.
        assert max(scores(dim + 2)) > 8


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_without_noise_is_ramp(dtype, scale):
    z = (scale * np.linspace(-2, 3, 101)).astype(dtype)
    gamma = np.full_like(z, scale)
    values = smoothed_ramp(z, np.zeros_like(z), gamma, 49)
    assert values.dtype == dtype
    assert_close(values, _ramp(z, gamma), rtol=0.0, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dim", [2, 188])
def test_little_noise_is_ramp_but_at_its_corners(dim, dtype):
    eps = float(np.finfo(dtype).eps)
    for b in (1e-3, 1e-6, 1e-30):
        z = np.array([-1.0, -2e-3, 2e-3, 0.25, 0.5, 0.998, 1.002, 50.0], dtype)
        values = smoothed_ramp(z, np.full_like(z, b), np.ones_like(z), dim)
        assert_close(values, _ramp(z, dtype(1)), rtol=0.0, atol=2 * eps)
        corners = np.array([0.0, 1.0], dtype)
        bent = np.asarray(smoothed_ramp(corners, np.full_like(corners, b), dtype(1), dim))
        # E(b u_1)_+ is cut off at the upper corner and added at the lower one.
        change = b * float(mean_absolute_noise(dim)) / 2
        assert_close(bent, [1 - change, change], rtol=0.0, atol=2 * eps)


def test_narrow_ramp_is_a_probability():
    b, dim = 2.0, 49
    z = np.linspace(-1, 1, 41)
    values = [smoothed_ramp(z, b, gamma, dim) for gamma in (1e-12, 1e-300)]
    with mp.workdps(25):
        density = _density(dim)
        one = _average(lambda v: v < -mp.mpf("0.1"), density, dim, [-mp.mpf("0.1")])
    assert_close(values[0], values[1], rtol=0.0, atol=1e-11)
    assert_close(smoothed_ramp(0.2, b, 1e-300, dim), float(one), rtol=1e-13)


@pytest.mark.parametrize("dim", [*_DIMS, 14])
def test_float32_agrees_with_float64(dim):
    single = [n.astype(np.float32) for n in _spread_out(3, 4000)]
    values = smoothed_ramp(*single, dim)
    assert values.dtype == jnp.float32
    double = smoothed_ramp(*(n.astype(np.float64) for n in single), dim)
    assert double.dtype == jnp.float64
    # Not the same computation.
    assert np.max(np.abs(np.asarray(values, float) - np.asarray(double))) > 1e-9
    assert_close(values, double, rtol=0.0, atol=_TOLERANCE[np.dtype("float32")])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_only_ratios_matter(dtype):
    numbers = [n.astype(dtype) for n in _spread_out(4, 1000)]
    shrunk = [n * dtype(2.0**-30) for n in numbers]
    np.testing.assert_array_equal(smoothed_ramp(*shrunk, 188), smoothed_ramp(*numbers, 188))


@pytest.mark.parametrize("dim", _DIMS)
def test_symmetry(dim):
    z, b, gamma = _spread_out(6, 2000)
    there, back = (np.asarray(smoothed_ramp(n, b, gamma, dim)) for n in (z, gamma - z))
    assert there.std() > 0.1
    np.testing.assert_allclose(there + back, 1, rtol=0, atol=_TOLERANCE[there.dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dim", [1, 2, 14, 188, 712])
def test_falls_with_the_margin(dim, dtype):
    eps = np.finfo(dtype).eps
    for gamma in (1e-3, 1.0, 30.0):
        z = np.linspace(-1.2, gamma + 1.2, 3001).astype(dtype)
        values = np.asarray(smoothed_ramp(z, dtype(1), dtype(gamma), dim))
        assert values[0] == 1
        assert values[-1] == 0
        assert np.all((values >= 0) & (values <= 1))
        assert np.all(np.diff(values) <= 10 * eps)
        middle = (values[1:] > 0.1) & (values[:-1] < 0.9)
        assert np.all(np.diff(values)[middle] < 0)


@pytest.mark.parametrize("dim", [2, 188])
def test_jit_and_vmap_agree_with_eager(dim):
    z, b, gamma = _spread_out(7, 30)
    values = smoothed_ramp(z, b, gamma, dim)
    others = [
        jax.jit(smoothed_ramp, static_argnums=3)(z, b, gamma, dim),
        jax.vmap(lambda p, q, g: smoothed_ramp(p, q, g, dim))(z, b, gamma),
        [float(smoothed_ramp(p, q, g, dim)) for p, q, g in zip(z, b, gamma, strict=True)],
    ]
    for other in others:
        np.testing.assert_allclose(other, values, rtol=0, atol=_TOLERANCE[values.dtype])


def test_broadcasts_and_takes_the_dtype_of_its_arrays():
    z, b = np.linspace(-1, 1, 4), np.array([[0.0], [0.5], [2.0]])
    values = smoothed_ramp(z, b, 0.3, 5)
    assert values.shape == (3, 4)
    assert_close(values[1], smoothed_ramp(z, 0.5, 0.3, 5))
    single = z.astype(np.float32)
    assert smoothed_ramp(single, 1, 0.3, 5).dtype == jnp.float32
    assert smoothed_ramp(single, b, 0.3, 5).dtype == jnp.float64
    assert smoothed_ramp(0, 1, 0.3, 5).dtype == jnp.float64
    with jax.enable_x64(False):
        assert smoothed_ramp(z, b, 0.3, 5).dtype == jnp.float32


def test_fits_are_well_conditioned():
    """What keeps Horner's scheme accurate; and the cost of an evaluation."""
    for dim in [*range(1, 40), 188, 712, 3000]:
        for eps, longest in ((2.0**-52, 40), (2.0**-23, 18)):
            coefficients = _noise_ball._fit(dim, eps).coefficients
            assert 2 <= len(coefficients) <= longest
            assert 0.2 < np.sum(np.abs(coefficients)) < 0.7


def test_mean_absolute_noise_against_quadrature():
    dims = [*_DIMS, 3000]
    with mp.workdps(25):
        exact = [
            2 * _average(lambda v: max(v, 0), _density(d), d, [mp.mpf(0)]) for d in map(int, dims)
        ]
    exact = np.array([float(e) for e in exact])
    values = mean_absolute_noise(np.array(dims))
    assert_close(values, exact, rtol=4e-15)
    with jax.enable_x64(False):
        np.testing.assert_allclose(mean_absolute_noise(np.array(dims)), exact, rtol=1e-6)
    assert_close(mean_absolute_noise(1), 0.5)
    assert mean_absolute_noise(7).shape == ()
    np.testing.assert_allclose(mean_absolute_noise(1e8) * np.sqrt(np.pi * 1e8 / 2), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("margins", (np.nan, 1.0, 1.0)),
        ("margins", ([0.0, np.inf], 1.0, 1.0)),
        ("spread", (0.0, -1e-9, 1.0)),
        ("spread", (0.0, np.nan, 1.0)),
        ("gamma", (0.0, 1.0, 0)),
        ("gamma", (0.0, 1.0, [1.0, -1.0])),
        ("gamma", (0.0, 1.0, 1e-320)),
    ],
)
def test_refuses_what_is_out_of_range(name, values):
    with pytest.raises(ValueError, match=rf"^`{name}` must be .*, got .*\.$"):
        smoothed_ramp(*values, 3)


def test_refuses_a_width_that_float32_would_flush():
    with pytest.raises(ValueError, match=r"^`gamma` must be .*, got 1e-39\.$"):
        smoothed_ramp(np.zeros(2, np.float32), 1.0, 1e-39, 3)


@pytest.mark.parametrize("dim", [0, -3, 2.0, True])
def test_refuses_a_dimension_that_is_none(dim, no_type_checks):
    with pytest.raises(ValueError, match=r"^`dim` must be an integer of at least 1, got .*\.$"):
        smoothed_ramp(0.0, 1.0, 1.0, dim)


@pytest.mark.parametrize("dim", [0, 0.5, np.nan, [3.0, -1.0]])
def test_mean_absolute_noise_refuses_what_is_out_of_range(dim):
    with pytest.raises(ValueError, match=r"^`dim` must be finite and at least 1, got .*\.$"):
        mean_absolute_noise(dim)


def test_refuses_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"`margins` \(2,\), `gamma` \(3,\)"):
        smoothed_ramp(np.zeros(2), 1.0, np.ones(3), 3)


def test_traced_values_are_checked_at_run_time():
    with pytest.raises(Exception, match=r"`spread` must be"):
        jax.jit(smoothed_ramp, static_argnums=3)(0.0, -1.0, 1.0, 3).block_until_ready()
