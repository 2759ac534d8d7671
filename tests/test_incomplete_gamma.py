"""The upper incomplete gamma function against mpmath, SciPy and its own identities."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special

from nlbound_jax.bounds import _gamma
from nlbound_jax.bounds._gamma import upper_incomplete_gamma

_THRESHOLD = _gamma._THRESHOLD
_ORDERS = [0, 1, -0.5, -1 / 3, -0.8, 2 / 3, 0.2, 1e-8, -1e-8, 1e-10, -1e-10, 1e-12, -1 + 1e-6]
_LIMITS = [
    1e-300,
    1e-8,
    0.5,
    1,
    _THRESHOLD - 1e-12,
    _THRESHOLD,
    _THRESHOLD + 1e-12,
    2,
    30,
    300,
    700,
]


def _grid(orders, limits):
    """All pairs, as two flat arrays."""
    a, x = np.meshgrid(np.array(orders, float), np.array(limits, float))
    return a.ravel(), x.ravel()


def _random(count, seed=20241, lowest=-300.0, highest=700.0):
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, count)
    small = rng.choice([-1, 1], count) * 10 ** rng.uniform(-15, 0, count)
    a = np.where(np.arange(count) % 3 == 0, small, a)
    x = np.where(
        np.arange(count) % 2 == 0,
        10 ** rng.uniform(lowest, 0, count),
        10 ** rng.uniform(-1, np.log10(highest), count),
    )
    return a, x


def _reference(a, x):
    with mpmath.workdps(40):
        return [mpmath.gammainc(float(p), float(q)) for p, q in zip(a, x, strict=True)]


def _relative_errors(values, reference):
    """Relative errors; in place of a subnormal result, 0 is right too."""
    tiny = np.finfo(np.asarray(values).dtype).tiny
    errors = []
    with mpmath.workdps(40):
        for value, exact in zip(np.asarray(values), reference, strict=True):
            if exact < tiny:
                assert 0 <= value <= tiny
            else:
                errors.append(float(abs(mpmath.mpf(float(value)) / exact - 1)))
    return np.array(errors)


@pytest.mark.parametrize("points", [_grid(_ORDERS, _LIMITS), _random(300)], ids=["grid", "random"])
@pytest.mark.float64
@pytest.mark.quick
def test_agrees_with_mpmath(points):
    values = upper_incomplete_gamma(*points)
    errors = _relative_errors(values, _reference(*points))
    assert len(errors) > 0.9 * len(values)
    assert np.max(errors) < 1e-12


@pytest.mark.float64
def test_is_exponential_integral_at_zero():
    x = np.geomspace(1e-300, 700, 501)
    np.testing.assert_allclose(upper_incomplete_gamma(0, x), scipy.special.exp1(x), rtol=1e-13)


@pytest.mark.float64
def test_is_exponential_at_one():
    x = np.geomspace(1e-300, 700, 501)
    np.testing.assert_allclose(upper_incomplete_gamma(1, x), np.exp(-x), rtol=1e-13)


@pytest.mark.float64
def test_recurrence():
    a, x = _grid(np.linspace(-0.95, -0.05, 19), np.geomspace(1e-3, 30, 40))
    raised = upper_incomplete_gamma(a + 1, x)
    left, right = a * upper_incomplete_gamma(a, x), x**a * np.exp(-x)
    # The two terms on the right cancel; measure against the larger.
    np.testing.assert_array_less(np.abs(raised - left - right), 1e-13 * right)


@pytest.mark.float64
def test_continuous_at_switches():
    x = np.geomspace(1e-300, 700, 50)
    for order in (0.0, -0.5):
        below, above = (upper_incomplete_gamma(order + shift, x) for shift in (-1e-15, 1e-15))
        # d ln Gamma(a, x) / da is at most about |ln x| here.
        np.testing.assert_allclose(below, above, rtol=5e-12)
    a = np.linspace(-0.999, 1, 50)
    below, above = (upper_incomplete_gamma(a, _THRESHOLD + shift) for shift in (-1e-14, 1e-14))
    np.testing.assert_allclose(below, above, rtol=2e-13)


@pytest.mark.float64
def test_derivative_in_x():
    a, x = _grid(_ORDERS, [1e-100, 1e-8, 0.5, 1, _THRESHOLD, 2, 30, 300, 650])
    derivative = jax.jit(jax.vmap(jax.grad(upper_incomplete_gamma, argnums=1)))(a, x)
    np.testing.assert_allclose(derivative, -(x ** (a - 1)) * np.exp(-x), rtol=1e-10)


@pytest.mark.float64
def test_derivative_is_spared_the_overflow_of_the_other_branch():
    # The fraction at a small x squares it; the series at a large x takes its 22nd power.
    derivative = jax.jit(jax.grad(upper_incomplete_gamma, argnums=1))
    np.testing.assert_allclose(derivative(1.0, 1e-200), -1, rtol=1e-12)
    with jax.enable_x64(False):
        np.testing.assert_allclose(derivative(0.5, 60.0), -np.exp(-60) / 60**0.5, rtol=1e-5)
        assert derivative(0.5, 700.0) == 0


@pytest.mark.float64
def test_derivative_in_a():
    a, x = _grid([0, 1e-12, -1e-8, 0.2, -0.5, -0.8, 1], [1e-100, 0.5, _THRESHOLD, 2, 300])
    derivative = jax.jit(jax.vmap(jax.grad(upper_incomplete_gamma)))(a, x)
    step = mpmath.mpf("1e-15")
    with mpmath.workdps(60):
        for value, p, q in zip(np.asarray(derivative), a.tolist(), x.tolist(), strict=True):
            ends = [mpmath.gammainc(p + sign * step, q) for sign in (1, -1)]
            exact = (ends[0] - ends[1]) / (2 * step)
            assert abs(float(value) / exact - 1) < 1e-10


@pytest.mark.float64
def test_jit_and_vmap_agree_with_eager():
    a, x = _random(60)
    values = upper_incomplete_gamma(a, x)
    jitted = jax.jit(upper_incomplete_gamma)(a, x)
    mapped = jax.vmap(upper_incomplete_gamma)(a, x)
    looped = [float(upper_incomplete_gamma(p, q)) for p, q in zip(a, x, strict=True)]
    for other in (jitted, mapped, looped):
        np.testing.assert_allclose(other, values, rtol=1e-14)


def test_broadcasts():
    a, x = np.array([[-0.5], [0.0], [1.0]]), np.array([0.1, 1.0, 3.0, 20.0])
    values = upper_incomplete_gamma(a, x)
    assert values.shape == (3, 4)
    np.testing.assert_allclose(values[1], upper_incomplete_gamma(0.0, x), rtol=1e-15)
    assert upper_incomplete_gamma(0.5, 2).shape == ()


def test_float32():
    a, x = _random(200, lowest=-37.0, highest=86.0)
    a, x = (np.clip(n, -0.999, None).astype(np.float32) for n in (a, x))
    with jax.enable_x64(False):
        values = upper_incomplete_gamma(a, x)
    assert values.dtype == jnp.float32
    reference = _reference(a, x)
    largest = np.finfo(np.float32).max
    kept = [k for k, exact in enumerate(reference) if exact < largest]
    errors = _relative_errors(np.asarray(values)[kept], [reference[k] for k in kept])
    assert len(errors) > 150
    assert np.max(errors) < 1e-5


@pytest.mark.parametrize(
    ("name", "a", "x"),
    [
        ("a", -1, 1.0),
        ("a", 1.5, 1.0),
        ("a", np.nan, 1.0),
        ("a", [0.0, -2.0], 1.0),
        ("x", 0.0, 0),
        ("x", 0.0, -1.0),
        ("x", 0.0, 701),
        ("x", 0.0, np.nan),
        ("x", 0.0, np.inf),
    ],
)
def test_refuses_what_is_out_of_range(name, a, x):
    with pytest.raises(ValueError, match=rf"^`{name}` must be in .*, got .*\.$"):
        upper_incomplete_gamma(a, x)


def test_refuses_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"`a` \(2,\), `x` \(3,\)"):
        upper_incomplete_gamma(np.zeros(2), np.ones(3))


def test_traced_values_are_checked_at_run_time():
    with pytest.raises(Exception, match=r"`x` must be in"):
        jax.jit(upper_incomplete_gamma)(0.0, 701.0).block_until_ready()
