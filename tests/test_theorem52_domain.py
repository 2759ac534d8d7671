"""Theorem 5.2 over its whole domain: against mpmath, and by its properties."""

import math

import hypothesis.strategies as st
import mpmath as mp
import numpy as np
import pytest
from helpers import assert_close, blow_up_time, oracle_constants, oracle_u_log_v
from hypothesis import given, settings

from nlbound_jax import RESULTS, bounds

pytestmark = pytest.mark.float64

READINGS = ("printed", "repaired")


def draw(rng, reading):
    """A random point: L 2...10, eps 0...1, beta 1e-6...0.5, rho 1...30, s 0.05...1, and t up to
    0.999 of the blow-up time, or for L = 2 up to u^2 / shat = 500."""
    depth = int(rng.integers(2, 11))
    epsilon = float(rng.choice([0, 1, rng.uniform(), 10 ** rng.uniform(-6, 0)]))
    beta = float(10 ** rng.uniform(-6, math.log10(0.5)))
    rho = float(rng.choice([1.0, rng.uniform(1, 30)]))
    s = float(rng.uniform(0.05, 1))
    if depth == 2:
        values = [mp.mpf(v) for v in (epsilon, beta, rho, s)]
        _, sbar, shat, beta_bar = oracle_constants(2, *values, reading)
        end = float(mp.log(mp.sqrt(500 * shat) / beta_bar) / sbar)
        t = max(end, 0.1) * rng.uniform()
    else:
        end = float(blow_up_time(depth, epsilon, beta, rho, s, reading))
        t = end * float(rng.choice([0.999, rng.uniform(0, 0.999)]))
    return depth, t, epsilon, beta, rho, s


def evaluate(point, reading, **changes):
    depth, t, epsilon, beta, rho, s = point
    numbers = {"epsilon": epsilon, "beta": beta, "stable_rank_root": rho, "alignment": s}
    numbers["gamma"] = 1.0
    return bounds.theorem_5_2(
        t,
        depth=depth,
        dim=49,
        num_samples=60000,
        reading=reading,
        **(numbers | changes),
    )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 40), pytest.param(1, 1000, marks=pytest.mark.slow)],
)
def test_eq_9_to_11_on_random_points(reading, seed, count):
    """Within 1e-11 of mpmath at 40 digits: u always, v where it is a double, else log v."""
    rng = np.random.default_rng([seed, READINGS.index(reading)])
    worst = 0.0
    with mp.workdps(40):
        for _ in range(count):
            point = draw(rng, reading)
            terms = evaluate(point, reading)
            u, log_v = oracle_u_log_v(*point, reading)
            errors = [abs(mp.mpf(float(terms.u)) / u - 1)]
            errors.append(abs(mp.mpf(float(terms.log_v)) - log_v) / max(1, abs(log_v)))
            if math.isfinite(float(terms.v)) and log_v > -700:
                errors.append(abs(mp.mpf(float(terms.v)) / mp.e**log_v - 1))
            assert max(errors) < 1e-11, (point, [float(e) for e in errors])
            worst = max(worst, float(max(errors)))
    print(f"{reading}: largest relative error {worst:.1e} over {count} points")


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("depth", [3, 4, 7, 10])
def test_eq_9_blow_up(reading, depth):
    """Finite just before the blow-up time, +inf with its reason just after."""
    numbers = (0.2, 0.1, 4.0, 0.6)
    end = float(blow_up_time(depth, *numbers, reading))
    before = evaluate((depth, end * (1 - 1e-12), *numbers), reading)
    after = evaluate((depth, end * (1 + 1e-12), *numbers), reading)
    assert np.isfinite(before.u)
    assert np.isfinite(before.log_v)
    assert before.result == (
        RESULTS.successful if np.isfinite(before.penalty) else RESULTS.overflow
    )
    assert after.result == RESULTS.blow_up
    for name in ("u", "v", "log_v", "deviation", "penalty"):
        assert getattr(after, name) == np.inf


def test_eq_11_w_by_the_incomplete_gamma_function():
    """v through w(u) - w(beta), as printed, where that does not cancel."""
    depth, t, epsilon, beta, rho, s = point = (3, 5.0, 0.1, 0.1, 2.0, 0.7)
    one = 1 + rho * beta**3
    sbar = (1 - epsilon) * (s + rho * beta**3) + epsilon * 2 * one
    shat = 3 * sbar / (1 + 2 * rho)
    terms = evaluate(point, "printed")

    def w(z):
        first = bounds.upper_incomplete_gamma(-1 / 3, z**3 / shat)
        second = bounds.upper_incomplete_gamma(2 / 3, z**3 / shat)
        return -one / sbar * first - rho * shat / sbar * second

    bracket = (w(terms.u) - w(beta)) * np.exp(terms.u**3 / shat)
    assert_close(terms.v, 2 / 3 * shat ** (-1 / 3) * terms.u**2 * bracket, rtol=1e-10)


points = st.tuples(
    st.integers(2, 10),
    st.floats(0, 50, allow_subnormal=False),
    st.floats(0, 1, allow_subnormal=False),
    st.floats(1e-6, 0.5),
    st.floats(1, 30),
    st.floats(0, 1, allow_subnormal=False),  # XLA takes them for 0: refused
)


@settings(max_examples=60)
@given(points, st.sampled_from(READINGS))
def test_every_term_is_finite_or_infinite_and_never_nan(point, reading):
    terms = evaluate(point, reading)
    for name in ("u", "v", "deviation", "penalty"):
        assert float(getattr(terms, name)) >= 0
    assert not math.isnan(float(terms.log_v))


@settings(max_examples=60)
@given(points, st.floats(0, 10, allow_subnormal=False), st.sampled_from(READINGS))
def test_the_bound_grows_with_time(point, more, reading):
    depth, t, *rest = point
    early, late = evaluate(point, reading), evaluate((depth, t + more, *rest), reading)
    assert late.u >= early.u * (1 - 1e-13)
    assert late.deviation >= early.deviation * (1 - 1e-11)


@settings(max_examples=60)
@given(points, st.floats(0, 1, allow_subnormal=False), st.sampled_from(READINGS))
def test_the_bound_grows_with_epsilon(point, other, reading):
    depth, t, epsilon, *rest = point
    low, high = (evaluate((depth, t, e, *rest), reading) for e in sorted((epsilon, other)))
    assert high.u >= low.u * (1 - 1e-12)
    assert high.deviation >= low.deviation * (1 - 1e-11)


@settings(max_examples=60)
@given(points)
def test_at_rank_one_the_readings_meet_and_repaired_is_smaller(point):
    depth, t, epsilon, beta, _, s = point
    printed, repaired = (evaluate((depth, t, epsilon, beta, 1.0, s), r) for r in READINGS)
    assert_close(repaired.u, printed.u, rtol=1e-12)
    if np.isfinite(printed.log_v):
        slack = 1e-11 * max(1.0, abs(float(printed.log_v)))
        assert repaired.log_v <= printed.log_v + slack
    linear = [evaluate((depth, t, 0.0, beta, 1.0, s), r) for r in READINGS]
    assert_close(linear[0].log_v, linear[1].log_v, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    "point",
    [
        (3, 1.0, 0.1, 1e-200, 2.0, 0.6),  # beta^L is below the doubles
        (3, 1e199, 0.1, 1e-200, 2.0, 0.6),
        (4, 1e300, 0.1, 1e-160, 2.0, 0.6),  # beta^{L-2} is, and t makes up for some of it
        (2, 500.0, 0.3, 1e-200, 1.5, 0.5),
        (2, 1.0, 0.3, 1e-300, 1.5, 0.5),
        (12, 1.0, 0.5, 1e-40, 3.0, 0.9),
        (12, 1e300, 1.0, 1e-40, 3.0, 0.9),
        (5, 0.0, 0.5, 1e-100, 3.0, 0.9),
        (3, 1.0, 0.0, 1e-150, 2.0, 0.0),  # sbar is beta^L
        (2, 1.0, 0.0, 1e-300, 2.0, 0.0),
    ],
)
def test_a_beta_whose_powers_are_below_the_doubles(point, reading):
    terms = evaluate(point, reading)
    with mp.workdps(60):
        depth, t, epsilon, beta, rho, s = (point[0], *(mp.mpf(v) for v in point[1:]))
        one, sbar, shat, beta_bar = oracle_constants(depth, epsilon, beta, rho, s, reading)
        clock = (depth - 2) * sbar * t * beta_bar ** (depth - 2)
        growth = sbar * t if depth == 2 else -mp.log1p(-clock) / (depth - 2)
        assert_close(terms.u, float(beta_bar * mp.exp(growth)), rtol=1e-12)
        # w_0 e^{Lx} stays below 1e-15 here: the exponential under the integral is 1.
        if reading == "printed":
            lower, power, factor, top = beta, depth - 1, 1, growth + mp.log(beta_bar / beta)
        else:
            power = (depth - 1) * (s + beta**depth) / sbar
            lower, factor, top = beta_bar, rho, growth
        b = 1 - power
        integral = top if b == 0 else mp.expm1(b * top) / b
        value = (depth - 1) / sbar * factor * lower * one * mp.exp(power * top) * integral
        if value == 0:
            assert terms.log_v == -np.inf
            return
        assert_close(terms.log_v, float(mp.log(value)), rtol=1e-11)
        if value > mp.mpf(10) ** -300:
            assert_close(terms.v, float(value), rtol=1e-10)


far_points = st.tuples(
    st.sampled_from([2, 3, 4, 12]),
    st.sampled_from([0.0, 1e-300, 1.0, 50.0, 1e100, 1e300]) | st.floats(0, 50),
    st.sampled_from([0.0, 1e-300, 1.0]) | st.floats(0, 1),
    st.floats(-300, 200).map(lambda e: 10.0**e) | st.floats(-40, 0).map(lambda e: 10.0**e),
    st.sampled_from([1.0, 1e300]) | st.floats(1, 30),
    st.sampled_from([0.0, 1e-300]) | st.floats(0, 1),
)


@settings(max_examples=100)
@given(far_points, st.floats(1, 10), st.sampled_from(READINGS), st.sampled_from([1e-300, 1.0]))
def test_no_beta_gives_a_nan_and_infinity_has_a_reason(point, more, reading, gamma):
    if 0 < point[2] < 2.3e-308 or 0 < point[5] < 2.3e-308 or 0 < point[1] < 2.3e-308:
        return  # subnormal: refused
    terms = evaluate(point, reading, gamma=gamma)
    for name in ("u", "v", "log_v", "capacity", "deviation", "penalty"):
        assert not math.isnan(float(getattr(terms, name))), name
    assert (terms.result == RESULTS.successful) == np.isfinite(float(terms.penalty))
    depth, t, epsilon, beta, rho, s = point
    late = evaluate((depth, min(t * more, 1e308), epsilon, beta, rho, s), reading, gamma=gamma)
    assert late.u >= terms.u * (1 - 1e-12)
    assert late.deviation >= terms.deviation * (1 - 1e-10)
