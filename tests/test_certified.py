"""The enclosures hold what mpmath finds at 50 digits, are as narrow as doubles allow, and agree
with the float64 bound."""

import math
from typing import Any

import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from nlbound_jax.bounds import _certified, theorem_5_2
from nlbound_jax.bounds._certified import certified_theorem_5_2

pytestmark = pytest.mark.float64

pytest.importorskip("flint")

READINGS = ("printed", "repaired")
MAX = math.nextafter(math.inf, 0)
BASE: dict[str, Any] = dict(
    depth=2,
    epsilon=0.1,
    beta=0.01,
    gamma=0.1,
    stable_rank_root=2.0,
    alignment=0.5,
    dim=49,
    num_samples=60000,
)


def point(**changes: Any) -> dict[str, Any]:
    return BASE | changes


def constants(p, reading, assumption=True):
    """one, sbar, shat and beta_bar of Theorem 5.2."""
    depth = p["depth"]
    epsilon, beta, s = (mp.mpf(p[k]) for k in ("epsilon", "beta", "alignment"))
    rho = mp.mpf(p["stable_rank_root"])
    one = 1 + rho * beta**depth
    linear = s + rho * beta**depth if assumption else one
    root = mp.sqrt(rho) if reading == "printed" else rho
    sbar, sbar_rho = ((1 - epsilon) * linear + epsilon * r * (depth - 1) * one for r in (1, root))
    return one, sbar, depth * sbar / (1 + (depth - 1) * rho), beta * sbar_rho / sbar


def blow_up_time(p, reading):
    _, sbar, _, beta_bar = constants(p, reading)
    return beta_bar ** (2 - p["depth"]) / ((p["depth"] - 2) * sbar)


def oracle_log_v(p, u, reading, assumption=True):
    """Printed: Eq. 10-11 as they stand. Repaired: the integral, over x = ln(z / beta_bar)."""
    depth, rho = p["depth"], mp.mpf(p["stable_rank_root"])
    beta, s = mp.mpf(p["beta"]), mp.mpf(p["alignment"])
    one, sbar, shat, beta_bar = constants(p, reading, assumption)
    if reading == "printed":

        def w(z):
            first, second = (
                mp.gammainc(mp.mpf(k) / depth, z**depth / shat) for k in (2 - depth, 2)
            )
            return -one / sbar * first - rho * shat / sbar * second

        head = mp.mpf(depth - 1) / depth * shat ** (mp.mpf(2 - depth) / depth)
        return mp.log(head * u ** (depth - 1) * (w(u) - w(beta))) + u**depth / shat
    eta = (depth - 1) * (s + beta**depth) / sbar
    start, top = beta_bar**depth / sbar, mp.log(u / beta_bar)

    def integrand(x):
        decay = mp.exp(-start * mp.expm1(depth * x) + (1 - eta) * x)
        return decay * beta_bar * (one + beta_bar**depth * mp.exp(depth * x))

    # Break where the exponent is 0.01, ..., 60; nothing is left beyond 150.
    bends = [mp.log1p(mp.mpf(w) / start) / depth for w in ("0.01", "0.3", 2, 8, 25, 60, 150)]
    end = min(top, bends[-1])
    points = [0, bends[0] / 2, *(b for b in bends if b < end), end] if bends[0] < end else [0, end]
    value, error = mp.quad(integrand, points, error=True)
    assert error < mp.mpf("1e-25") * value
    return mp.log((depth - 1) * rho / sbar * value) + eta * top + start * mp.expm1(depth * top)


def oracle(p, t, reading, kappa=2, assumption=True):
    """The terms of the theorem, at the precision of mpmath."""
    depth, t = p["depth"], mp.mpf(t)
    gamma, epsilon, rho = (mp.mpf(p[k]) for k in ("gamma", "epsilon", "stable_rank_root"))
    _, sbar, _, beta_bar = constants(p, reading, assumption)
    if depth == 2:
        u = beta_bar * mp.exp(sbar * t)
    else:
        u = (beta_bar ** (2 - depth) - (depth - 2) * sbar * t) ** (mp.mpf(1) / (2 - depth))
    log_v = oracle_log_v(p, u, reading, assumption)
    root, inner = mp.sqrt(p["dim"]), 1 + (depth - 1) * rho
    phi = depth * root + inner
    if kappa == 2:
        phi = (depth - 1) * ((depth + inner) * root + 2 * inner)
    size = kappa * 32 * p["dim"] * mp.log(2) + mp.log(p.get("cells", 1) / mp.mpf(0.01))
    capacity = mp.sqrt(size / (2 * p["num_samples"]))
    deviation = phi * mp.exp(log_v) * u ** (depth - 1) * epsilon**kappa / gamma
    penalty = capacity + deviation
    return dict(
        u=u,
        v=mp.exp(log_v),
        log_v=log_v,
        capacity=capacity,
        deviation=deviation,
        penalty=penalty,
        value=penalty + mp.mpf(p.get("train_risk", 0)),
    )


def random_point(rng, index):
    """Parameters and a time from the whole domain."""
    depth = 2 + index % 9
    p = point(
        depth=depth,
        epsilon=(0.0, 1.0, rng.uniform(), 10 ** rng.uniform(-9, 0))[rng.integers(4)],
        beta=10 ** rng.uniform(-6, math.log10(0.5)),
        gamma=10 ** rng.uniform(-4, 0),
        stable_rank_root=(1.0, rng.uniform(1, 30))[rng.integers(2)],
        alignment=rng.uniform(0.05, 1),
        train_risk=rng.uniform(),
        cells=int(rng.integers(1, 1000)),
    )
    reading = READINGS[rng.integers(2)]
    # Early, middling and late times.
    share = (10 ** rng.uniform(-6, 0), rng.uniform(), 1 - 10 ** rng.uniform(-3, 0))
    share = 0.999 * share[rng.integers(3)]
    if depth > 2:
        return p, float(share * blow_up_time(p, reading)), reading
    _, sbar, shat, beta_bar = constants(p, reading)
    return p, float(share * mp.log(mp.sqrt(500 * shat) / beta_bar) / sbar), reading


def assert_encloses(found, expected):
    for name, true in expected.items():
        low, high = getattr(found, name)
        assert mp.mpf(low) <= true <= mp.mpf(high), f"{name}: {true} outside [{low}, {high}]"
        if math.isfinite(high):
            assert high - low <= 1e-15 * abs(high), f"{name}: [{low}, {high}]"
        else:
            assert low == MAX


@pytest.mark.parametrize("index", range(45))
def test_the_enclosures_hold_what_mpmath_finds(index):
    p, t, reading = random_point(np.random.default_rng(1000 + index), index)
    kappa = 1 + index % 2
    found = certified_theorem_5_2(t, **p, kappa=kappa, reading=reading)
    assert found.result == "successful"
    assert math.isfinite(found.log_v.upper)
    with mp.workdps(50):
        assert_encloses(found, oracle(p, t, reading, kappa))


@pytest.mark.parametrize("depth", [2, 4])
def test_without_assumption_5_1(depth):
    p = point(depth=depth, beta=0.1)
    found = certified_theorem_5_2(1.5, **p, assumption_5_1=False)
    assert found.value is None
    with mp.workdps(50):
        expected = oracle(p, 1.5, "repaired", assumption=False)
    del expected["value"]
    assert_encloses(found, expected)


# eta = 1 is the pole of Gamma((1 - eta)/L): exactly there at epsilon = 0, rho = 1, L = 2, and at
# the dyadic numbers of the second case; the others are near it.
@pytest.mark.parametrize(
    "changes",
    [
        dict(epsilon=0.0),
        dict(depth=3, beta=0.5, alignment=0.125, epsilon=0.125),
        dict(epsilon=1e-30),
        dict(epsilon=math.ulp(0.0)),
        dict(depth=3, beta=0.5, alignment=0.125, epsilon=math.nextafter(0.125, 1)),
    ],
)
@pytest.mark.parametrize("reading", READINGS)
def test_at_the_pole_of_gamma(changes, reading):
    p = point(**dict(stable_rank_root=1.0) | changes)
    found = certified_theorem_5_2(1.25, **p, reading=reading, train_risk=0.25)
    with mp.workdps(50):
        expected = oracle(p | dict(train_risk=0.25), 1.25, reading)
        del expected["deviation"]
        assert_encloses(found, expected)
    assert (found.deviation.lower > 0) == (p["epsilon"] > 1e-150)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_float64_agrees(depth, reading):
    rng = np.random.default_rng(depth)
    points = []
    while len(points) < 12:
        p, t, drawn = random_point(rng, depth - 2)
        if drawn == reading and p["epsilon"]:
            points.append((p, t))
    found = [certified_theorem_5_2(t, **p, reading=reading) for p, t in points]
    names = [name for name in points[0][0] if name != "depth"]
    arrays: Any = {name: jnp.asarray([float(p[name]) for p, _ in points]) for name in names}
    times = jnp.asarray([t for _, t in points])
    bound = theorem_5_2(times, depth=depth, **arrays, reading=reading)
    log = {"log_v": np.asarray(bound.log_v)}
    for name in ("u", "v", "capacity", "deviation", "penalty", "value"):
        log[name] = np.log(np.asarray(getattr(bound, name)))
    for i, one in enumerate(found):
        for name, values in log.items():
            low, high = getattr(one, name)
            if math.isinf(high):
                continue
            expected = high if name == "log_v" else math.log(high)
            assert values[i] == pytest.approx(expected, rel=1e-9, abs=1e-9), (name, points[i])


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("depth", [3, 6])
def test_blow_up_to_the_last_bit(depth, reading):
    p = point(depth=depth, train_risk=0.1)
    with mp.workdps(60):
        exact = blow_up_time(p, reading)
        below = float(exact)
        below = below if below < exact else math.nextafter(below, 0)
    before = certified_theorem_5_2(below, **p, reading=reading)
    after = certified_theorem_5_2(math.nextafter(below, math.inf), **p, reading=reading)
    assert before.result == "successful"
    assert math.isfinite(before.u.upper)
    assert math.isfinite(before.log_v.upper)
    assert after.result == "blow_up"
    infinite = (math.inf, math.inf)
    assert (after.u, after.v, after.log_v, after.deviation, after.penalty, after.value) == (
        (infinite,) * 6
    )
    assert after.capacity == before.capacity


def test_blow_up_at_exactly_t():
    p = point(depth=3, beta=0.5, alignment=0.875, stable_rank_root=1, epsilon=0)
    assert certified_theorem_5_2(2, **p).result == "blow_up"
    just_before = certified_theorem_5_2(math.nextafter(2, 0), **p)
    assert just_before.result == "successful"
    assert just_before.deviation == (0, 0)


@pytest.mark.parametrize("depth", [2, 3])
def test_t_0(depth):
    for changes in (dict(), dict(stable_rank_root=1), dict(epsilon=0)):
        p = point(depth=depth, **changes)
        found = certified_theorem_5_2(0, **p)
        assert found.v == found.deviation == (0, 0)
        assert found.log_v == (-math.inf, -math.inf)
        assert found.penalty == found.capacity
        with mp.workdps(50):
            low, high = found.u
            assert mp.mpf(low) <= constants(p, "repaired")[-1] <= mp.mpf(high)
        printed = certified_theorem_5_2(0, **p, reading="printed")
        if changes:
            assert printed.v == (0, 0)
        else:
            with mp.workdps(50):
                assert_encloses(
                    printed, {k: v for k, v in oracle(p, 0, "printed").items() if k != "value"}
                )


def test_small_and_large_times():
    p = point(epsilon=1.0)
    rate = 2 * 0.01 * (1 + 2e-4 + 4e-4) * 2
    for t in (1e-300, math.ulp(0.0)):
        found = certified_theorem_5_2(t, **p)
        assert found.log_v.lower == pytest.approx(math.log(rate) + math.log(t), rel=1e-12)
    for t in (1e4, 1e17, MAX):
        found = certified_theorem_5_2(t, **p)
        assert found.result == "successful"
        assert found.u == found.v == found.log_v == found.penalty == (MAX, math.inf)


def test_a_tiny_deviation_is_not_negative():
    found = certified_theorem_5_2(1, **point(epsilon=1e-300))
    assert found.deviation == (0, math.ulp(0.0))
    assert found.penalty == found.capacity


def test_numbers_of_every_kind_are_taken_exactly():
    plain = certified_theorem_5_2(1.0, **BASE)
    other = point(epsilon=np.float64(0.1), beta=jnp.asarray(0.01), dim=np.int32(49))
    assert certified_theorem_5_2(jnp.asarray(1), **other, bits=64) == plain
    m = 2**80 + 1
    found = certified_theorem_5_2(1.0, **point(num_samples=m))
    with mp.workdps(50):
        size = (64 * 49 * mp.log(2) - mp.log(mp.mpf(0.01))) / (2 * m)
        assert mp.mpf(found.capacity.lower) <= mp.sqrt(size) <= mp.mpf(found.capacity.upper)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(t=-1.0), r"^`t` must be finite and at least 0, got -1\.$"),
        (dict(t=np.array([1.0, 2.0])), r"^`t` must be a single number"),
        (dict(t=math.nan), r"^`t` must be finite and at least 0, got nan\.$"),
        (dict(depth=1), r"^`depth` must be an integer of at least 2, got 1\.$"),
        (dict(epsilon=1.5), r"^`epsilon` must be in \[0, 1\], got 1\.5\.$"),
        (dict(beta=0.0), r"^`beta` must be positive and finite, got 0\.$"),
        (dict(gamma=-1), r"^`gamma` must be positive"),
        (dict(stable_rank_root=0.5), r"^`stable_rank_root` must be"),
        (dict(alignment=1.01), r"^`alignment` must be in \[0, 1\]"),
        (dict(dim=0), r"^`dim` must be"),
        (dict(num_samples=0), r"^`num_samples` must be"),
        (dict(kappa=3), r"^`kappa` must be one of 1, 2, got 3\.$"),
        (dict(precision_bits=0), r"^`precision_bits` must be"),
        (dict(delta=1.0), r"^`delta` must be in \(0, 1\)"),
        (dict(cells=0), r"^`cells` must be"),
        (dict(train_risk=2.0), r"^`train_risk` must be in \[0, 1\]"),
        (dict(bits=8), r"^`bits` must be an integer in \[64, 16384\], got 8\.$"),
        (dict(reading="printed", assumption_5_1=False), r"^`assumption_5_1` must be True"),
    ],
)
def test_errors_name_the_argument(changes, message):
    arguments = point(**dict(t=1.0) | changes)
    with pytest.raises(ValueError, match=message):
        certified_theorem_5_2(arguments.pop("t"), **arguments)


def test_what_the_bits_do_not_tell_is_an_error(monkeypatch):
    monkeypatch.setattr(_certified, "_MAX_BITS", 256)
    message = r"^`t` must not need more than 256 bits, got 1e-300; they leave open "
    with pytest.raises(ValueError, match=message + r"how large the bound is\.$"):
        certified_theorem_5_2(1e-300, **BASE)
    monkeypatch.setattr(_certified, "_log_growth", lambda *_: None)
    with pytest.raises(ValueError, match=message + r"whether u has blown up by then\.$"):
        certified_theorem_5_2(1e-300, **BASE)


def test_without_python_flint(monkeypatch):
    monkeypatch.setattr(_certified, "flint", None)
    message = r"^certified_theorem_5_2 needs python-flint; install nlbound_jax\[certified\]\.$"
    with pytest.raises(ImportError, match=message):
        certified_theorem_5_2(1.0, **BASE)
