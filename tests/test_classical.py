"""The classical bounds against plain arithmetic, their invariances, and bad input."""

import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, numpy_network

from nlbound_jax.bounds import classical
from nlbound_jax.bounds.classical import (
    ClassicalBound,
    all_bounds,
    counting,
    frobenius,
    pac_bayes_gaussian,
    pac_bayes_spectral,
    path_norm,
    spectral,
    vc,
)
from nlbound_jax.bounds.classical._pac_bayes_gaussian import best_divergence, evaluate
from nlbound_jax.bounds.classical._posterior import Posterior

# A network by hand: f(x) = 2 phi(3 x_1 + 4 x_2) - phi(-x_1).
FIRST, LAST = [[3.0, 4.0], [-1.0, 0.0]], [[2.0, -1.0]]
# Small margins among large ones, so that the best margin is inside.
MARGINS = [30.0] * 4000 + [8.0] * 600 + [-1.0] * 250 + [0.0] * 50
M = len(MARGINS)
INPUT_NORM = 0.2
DELTA = 0.01


def net(*matrices):
    return tuple(jnp.asarray(w, float) for w in matrices)


WEIGHTS = net(FIRST, LAST)


def cost(k):
    return math.log(1.5 * (abs(k) + 1) * (abs(k) + 2))


def above(ratio):
    return math.ceil(8 * math.log2(ratio))


def best_ramp(norm, unit, cells=0.0, margins=MARGINS):
    """The minimum over rho = 2^(k/8), by brute force; (value, risk, complexity, rest, gamma)."""
    values, m = sorted(set(margins)), len(margins)
    share = [margins.count(v) / m for v in values]

    def at(k):
        rho = 2 ** (k / 8)
        ramp = [min(1.0, max(0.0, 1 - rho * v / norm)) for v in values]
        risk = sum(p * r for p, r in zip(share, ramp, strict=True))
        rest = 2 * math.sqrt((cost(k) + cells + math.log(1 / DELTA)) / (2 * m))
        return risk + rho * unit + rest, risk, rho * unit, rest, norm / rho

    return min(at(k) for k in range(-300, 300))


def terms(bound):
    return [bound.value, bound.train_risk, bound.complexity, bound.confidence, bound.gamma]


def agree(bound, expected):
    assert isinstance(bound, ClassicalBound)
    for found, exact in zip(terms(bound), expected, strict=True):
        assert_close(found, exact, rtol=None if found.dtype == np.float64 else 1e-4)


# Each bound by hand.


@pytest.mark.quick
def test_vc_by_hand():
    """(3, 2, 1): W_1 = 6, W_2 = 8, R = 1*2 + 2*1 = 4, V = 2 + 14 log2(16e log2(8e)) = 107.0."""
    dimension = 2 + 14 * math.log2(16 * math.e * math.log2(8 * math.e))
    assert 106 < dimension < 109
    m = 1000
    growth = 2 * math.log(2) + 6 * math.log(4000 * math.e / 6) + 8 * math.log(4000 * math.e / 8)
    assert growth < dimension * math.log(math.e * m / dimension)
    bound = vc((3, 2, 1), train_risk=0.25, num_samples=m, delta=DELTA)
    assert_close(bound.complexity, math.sqrt(2 * growth / m))
    assert_close(bound.confidence, math.sqrt(math.log(100) / (2 * m)))
    assert_close(bound.value, 0.25 + float(bound.complexity) + float(bound.confidence))
    # Too few samples for either form.
    assert_close(vc((3, 2, 1), train_risk=0, num_samples=5).complexity, math.sqrt(2 * math.log(2)))


def test_vc_dimension_form():
    """Layers so unequal that m k_2 < W_2 forbids the growth form while m >= V allows the other."""
    from nlbound_jax.bounds.classical._vc import log_growth, vc_dimension

    # The paper's task: W_1 = 3136, W_2 = 3200, R = 66.
    exact = 2 + 6336 * math.log2(4 * math.e * 66 * math.log2(2 * math.e * 66))
    assert_close(vc_dimension((49, 64, 1)), exact, rtol=1e-12)
    growth = (
        2 * math.log(2)
        + 3136 * math.log(2 * math.e * 60000 * 64 / 3136)
        + 3200 * math.log(2 * math.e * 60000 * 2 / 3200)
    )
    assert_close(log_growth((49, 64, 1), 60000), growth, rtol=1e-12)
    # Below m = W_2 no form is proven.
    assert log_growth((49, 64, 1), 3199) == 3199 * math.log(2)
    # Sauer's lemma would have to exceed the direct count wherever both are proven.
    for m in (90_000, 10**6, 10**9):
        assert log_growth((49, 64, 1), m) < exact * math.log(math.e * m / exact)


@pytest.mark.quick
def test_counting_by_hand():
    """W = 3*2 + 2 = 8 weights of 4 bits are 32 bits."""
    bound = counting((3, 2, 1), train_risk=0.1, num_samples=500, precision_bits=4, delta=0.05)
    assert_close(bound.value, 0.1 + math.sqrt((32 * math.log(2) + math.log(20)) / 1000))
    assert_close(bound.complexity, math.sqrt(32 * math.log(2) / 1000))
    assert bound.a_priori
    assert bound.deterministic
    assert bound.gamma is None


@pytest.mark.quick
def test_frobenius_by_hand():
    """Norms sqrt(26) and sqrt(5); two layers cost a factor 2."""
    unit = 2 * 2 * INPUT_NORM / math.sqrt(M)
    bound = frobenius(WEIGHTS, jnp.asarray(MARGINS), input_norm=INPUT_NORM, delta=DELTA)
    agree(bound, best_ramp(math.sqrt(130), unit))
    assert 0.1 < float(bound.value) < 0.5


def test_frobenius_at_a_margin():
    """sqrt(130)/2 = 5.70 is above 2^(20/8) = 5.66 and below 2^(21/8) = 6.17."""
    bound = frobenius(WEIGHTS, jnp.asarray(MARGINS), input_norm=INPUT_NORM, gamma=2.0, delta=DELTA)
    rho = 2 ** (21 / 8)
    assert_close(bound.gamma, math.sqrt(130) / rho)
    assert_close(bound.complexity, 4 * INPUT_NORM * rho / math.sqrt(M))
    assert_close(bound.train_risk, 300 / M)
    assert_close(bound.confidence, 2 * math.sqrt((math.log(1.5 * 22 * 23 * 100)) / (2 * M)))


def test_frobenius_of_three_layers():
    """1 + sqrt(4 ln 2) = 2.665 is below 4."""
    middle = [[1.0, 2.0], [2.0, 0.0]]
    unit = 2 * (1 + 2 * math.sqrt(math.log(2))) * INPUT_NORM / math.sqrt(M)
    bound = frobenius(
        net(FIRST, middle, LAST), jnp.asarray(MARGINS), input_norm=INPUT_NORM, delta=DELTA
    )
    agree(bound, best_ramp(math.sqrt(26 * 9 * 5), unit))


@pytest.mark.quick
def test_path_norm_by_hand():
    """linf: 2 (3 + 4) + 1 (1 + 0) = 15; l2: 2 * 5 + 1 * 1 = 11."""
    factor = math.sqrt(2 * (2 * math.log(2) + math.log(2)))
    bound = path_norm(WEIGHTS, jnp.asarray(MARGINS), input_norm=INPUT_NORM, delta=DELTA)
    agree(bound, best_ramp(15.0, 2 * factor * INPUT_NORM / math.sqrt(M)))
    bound = path_norm(
        WEIGHTS, jnp.asarray(MARGINS), input_norm=INPUT_NORM, inputs="l2", delta=DELTA
    )
    agree(bound, best_ramp(11.0, 4 * INPUT_NORM / math.sqrt(M)))


def test_path_norm_of_three_layers():
    """Rows 7 and 1; then 1*7 + 2*1 = 9 and 2*7 = 14; then 2*9 + 14 = 32."""
    weights = net(FIRST, [[1.0, -2.0], [2.0, 0.0]], LAST)
    factor = math.sqrt(2 * (3 * math.log(2) + math.log(2)))
    bound = path_norm(weights, jnp.asarray(MARGINS), input_norm=INPUT_NORM, delta=DELTA)
    agree(bound, best_ramp(32.0, 2 * factor * INPUT_NORM / math.sqrt(M)))


def covering(ratios, logs):
    return sum((r * math.sqrt(n)) ** (2 / 3) for r, n in zip(ratios, logs, strict=True)) ** 1.5


def chain(size, m):
    steps = [math.exp(-k) * math.sqrt(m) + math.sqrt(2) * math.e * k * size for k in range(60)]
    return min(steps)


# A diagonal first layer, so that the spectral norms are seen at once.
DIAGONAL = net([[3.0, 0.0], [0.0, 2.0]], [[0.0, 4.0]])
LOGS = (math.log(8), math.log(4))


@pytest.mark.quick
def test_spectral_by_hand():
    """s = (3, 4), b = (3 + 2, 4)."""
    j = above(5 / 3), 0
    size = covering((2 ** (j[0] / 8), 2 ** (1 / 8)), LOGS)
    # b_2/s_2 = 1 lies on the grid; the guard against rounding takes the next point.
    cells = cost(j[0]) + cost(1)
    unit = 2 * 0.02 * chain(size, M) / math.sqrt(M)
    bound = spectral(DIAGONAL, jnp.asarray(MARGINS), input_norm=0.02, delta=DELTA)
    agree(bound, best_ramp(12.0, unit, cells))
    assert 0.02 < float(bound.complexity)
    assert float(bound.value) < 0.6


def test_spectral_with_a_reference():
    """M = (diag(2.5, 1), (0, 1.9)): b = (0.5 + 1, 2.1), s rounded up from 3/2.5 and 4/1.9."""
    reference = net([[2.5, 0.0], [0.0, 1.0]], [[0.0, 1.9]])
    i = above(3 / 2.5), above(4 / 1.9)
    s = 2.5 * 2 ** (i[0] / 8), 1.9 * 2 ** (i[1] / 8)
    j = above(1.5 / s[0]), above(2.1 / s[1])
    size = covering([2 ** (k / 8) for k in j], LOGS)
    unit = 2 * 0.02 * chain(size, M) / math.sqrt(M)
    bound = spectral(
        DIAGONAL, jnp.asarray(MARGINS), input_norm=0.02, reference=reference, delta=DELTA
    )
    agree(bound, best_ramp(s[0] * s[1], unit, sum(map(cost, i + j))))
    assert bound.assumes != spectral(DIAGONAL, jnp.asarray(MARGINS), input_norm=1e-3).assumes


def kl(p, q):
    first = p * math.log(p / q) if p else 0.0
    return first + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def kl_inverse(p, c):
    low, high = p, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if middle < 1 and kl(p, middle) <= c:
            low = middle
        else:
            high = middle
    return high


def pac_bayes_candidates(reference):
    """(value, risk, gamma) of every noise that is tried, for DIAGONAL; B = 1e-3."""
    s, distance = np.array([3.0, 4.0]), np.array([math.sqrt(13), 4.0])
    units = np.array([2.5, 1.9])
    if reference:
        distance = np.array([math.sqrt(0.25 + 1), 2.1])
    roots = np.array([2 * math.sqrt(2), 1 + math.sqrt(2)])
    for p, q in itertools.product(np.geomspace(1e-3, 3, 60), (0.5, 0.7, 0.9, 0.97)):
        c = roots + math.sqrt(2 * math.log(2 / (1 - q)))
        shape = (c / (distance / s) ** 2) ** (1 / 3)
        sigma = s / (shape * sum(c / shape) / p)
        if reference:
            k = [-above(r) for r in units / sigma]
            sigma = units * 2 ** (np.array(k) / 8)
        smallest = 2e-3 * (math.prod(s + sigma * c) - math.prod(s))
        if reference:
            level = above(smallest / math.prod(units))
            gamma = math.prod(units) * 2 ** (level / 8)
            cells = sum(map(cost, k)) + cost(level)
        else:
            k = -above(smallest / math.prod(sigma))
            gamma, cells = math.prod(sigma) / 2 ** (k / 8), cost(k)
        whole = sum(distance**2 / (2 * sigma**2))
        entropy = -q * math.log(q) - (1 - q) * math.log(1 - q)
        exponent = (whole + entropy) / q + math.log(2 * math.sqrt(M) / (0.9 * DELTA)) + cells
        risk = sum(v <= gamma for v in MARGINS) / M
        yield kl_inverse(risk, exponent / M) + math.log(10 / DELTA) / M, risk, gamma


@pytest.mark.parametrize("with_reference", [False, True])
def test_pac_bayes_spectral_by_hand(with_reference):
    reference = net([[2.5, 0.0], [0.0, 1.0]], [[0.0, 1.9]]) if with_reference else None
    bound = pac_bayes_spectral(
        DIAGONAL, jnp.asarray(MARGINS), largest_norm=1e-3, reference=reference, delta=DELTA
    )
    value, risk, gamma = min(pac_bayes_candidates(with_reference))
    rtol = 1e-9 if bound.value.dtype == np.float64 else 1e-4
    assert_close(bound.value, value, rtol=rtol)
    assert_close(bound.train_risk, risk, rtol=rtol)
    assert_close(bound.gamma, gamma, rtol=rtol)
    assert value < 0.7
    assert_close(bound.train_risk + bound.complexity + bound.confidence, value, rtol=1e-4)


def test_the_divergence_by_hand():
    """Three weights: means 1, 2, -1, deviations 1, 1/2, 2; prior at 0 of variance 2."""
    posterior = Posterior(
        means=net([[1.0], [2.0]], [[-1.0, 0.0]]),
        log_deviations=net([[0.0], [math.log(0.5)]], [[math.log(2.0), 0.0]]),
    )
    start = net([[0.0], [0.0]], [[0.0, 0.0]])
    pairs = ((1, 1), (4, 0.25), (1, 4), (0, 1))
    exact = sum(((s + a) / 2 - 1 + math.log(2 / s)) / 2 for a, s in pairs)
    assert_close(posterior.divergence(start, jnp.asarray(2.0)), exact)
    # The grid: spread 6 + 6.25 over 4 weights; the start is 0, so its unit is 1.
    found = best_divergence(posterior, start)

    def at(k):
        v = 2 ** (k / 8)
        return sum(((s + a) / v - 1 + math.log(v / s)) / 2 for a, s in pairs) + cost(k)

    assert_close(found, min(at(k) for k in range(-50, 50)))


def test_pac_bayes_gaussian_by_hand():
    """Hardly any noise: the number of errors is known, 3 of 10 in each of 5 draws."""
    x = np.linspace(1, 2, 10)[:, None].astype(np.float32)
    y = np.array([1, 1, 1, 1, 1, 1, 1, -1, -1, -1], np.float32)
    weights = jax.tree.map(lambda a: a.astype(np.float32), net([[1.0]], [[1.0]]))
    deviation = jnp.full((1, 1), math.log(1e-3), np.float32)
    posterior = Posterior(means=weights, log_deviations=(deviation, deviation))
    found = evaluate(
        posterior,
        weights,
        (jnp.asarray(x), jnp.asarray(y)),
        jnp.asarray(0.5, np.float32),
        jnp.asarray(DELTA),
        0.1,
        jax.random.key(0),
        5,
    )

    def at(k):  # the start weights are 1 and so is their mean square
        v = 2 ** (k / 8)
        return 1e-6 / v - 1 + math.log(v / 1e-6) + cost(k)

    exponent = (
        min(at(k) for k in range(-200, -100)) + math.log(2 * math.sqrt(10) / (0.9 * DELTA))
    ) / 10
    upper = kl_inverse(0.3, math.log(1000) / 50)
    rtol = 1e-4
    assert_close(found["train_risk"], 0.3, rtol=rtol)
    assert_close(found["value"], kl_inverse(upper, exponent), rtol=rtol)


# Invariances.

SCALED = {
    "frobenius": lambda w, r, z: frobenius(w, z, input_norm=INPUT_NORM),
    "path_norm": lambda w, r, z: path_norm(w, z, input_norm=INPUT_NORM),
    "path_norm_l2": lambda w, r, z: path_norm(w, z, input_norm=INPUT_NORM, inputs="l2"),
    "spectral": lambda w, r, z: spectral(w, z, input_norm=1e-3),
    "spectral, reference": lambda w, r, z: spectral(w, z, input_norm=1e-3, reference=r),
    "pac_bayes_spectral": lambda w, r, z: pac_bayes_spectral(w, z, largest_norm=1e-3),
    "pac_bayes_spectral, reference": lambda w, r, z: pac_bayes_spectral(
        w, z, largest_norm=1e-3, reference=r
    ),
}
START = net([[2.5, 0.3], [0.1, 1.0]], [[0.2, 1.9]])


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("scales", [(8.0, 0.25), (0.37, 11.0)])
def test_scaling_layers_and_margins_changes_nothing(name, scales):
    margins = jnp.asarray(MARGINS)
    scaled = [tuple(c * w for c, w in zip(scales, ws, strict=True)) for ws in (DIAGONAL, START)]
    one = SCALED[name](DIAGONAL, START, margins)
    other = SCALED[name](*scaled, math.prod(scales) * margins)
    rtol = 1e-10 if margins.dtype == np.float64 else 1e-4
    assert_close(other.value, one.value, rtol=rtol)
    assert_close(other.gamma, math.prod(scales) * one.gamma, rtol=rtol)
    assert float(one.value) < 1


@pytest.mark.parametrize("name", SCALED)
def test_more_samples_help(name):
    values = []
    for copies in (1, 2, 4):
        bound = SCALED[name](DIAGONAL, START, jnp.asarray(MARGINS * copies))
        values.append(float(bound.value))
    assert values[0] > values[1] > values[2]
    # No lower than what is known: the training error.
    assert values[2] > 300 / M


def test_more_samples_help_the_a_priori_bounds():
    for m in (10**4, 10**5, 10**6):
        for bound in (vc, counting):
            one = bound((49, 64, 1), train_risk=0.1, num_samples=m)
            two = bound((49, 64, 1), train_risk=0.1, num_samples=2 * m)
            assert float(two.value) < float(one.value)
            assert bool(one.a_priori)


def test_larger_norms_and_smaller_delta_cost():
    margins = jnp.asarray(MARGINS)
    # Not for PAC-Bayes: its margin risk is a step function, and the union may get cheaper.
    for name in [n for n in SCALED if not n.startswith("pac_bayes")]:
        one = SCALED[name](DIAGONAL, START, margins)
        other = SCALED[name](tuple(1.5 * w for w in DIAGONAL), START, margins)
        assert float(other.value) > float(one.value)
    for bound, size in ((frobenius, 0.2), (path_norm, 0.2), (spectral, 1e-3)):
        less, more = (bound(DIAGONAL, margins, input_norm=size, delta=v) for v in (0.1, 1e-4))
        assert float(less.value) < float(more.value)


@pytest.mark.parametrize("name", SCALED)
def test_a_network_that_vanishes_or_explodes(name):
    """No margin is worth anything then, and nothing is nan."""
    margins = jnp.asarray(MARGINS)
    for factor in (0.0, 1e18):
        weights = tuple(factor * w for w in DIAGONAL)
        bound = SCALED[name](weights, START, 0.0 * margins)
        assert float(bound.value) >= 1
        assert not np.isnan([float(v) for v in terms(bound)[:4]]).any()


# The front end.


def small_problem(epsilon, m=300, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, 3))
    y = np.where(x[:, 0] + 0.3 * rng.normal(size=m) > 0, 1, -1)
    start = net(0.3 * rng.normal(size=(4, 3)), 0.3 * rng.normal(size=(1, 4)))
    weights = tuple(w + 0.5 * jnp.asarray(rng.normal(size=w.shape), float) for w in start)
    return weights, start, x, y, y * numpy_network(weights, epsilon, x)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_all_bounds_are_the_single_ones(epsilon):
    weights, start, x, y, margins = small_problem(epsilon)
    found = all_bounds(weights, start, x, y, epsilon=epsilon, delta=0.05)
    assert list(found) == [
        "vc",
        "counting",
        "frobenius",
        "path_norm",
        "path_norm_l2",
        "spectral",
        "pac_bayes_spectral",
    ]
    margins = jnp.asarray(margins, float)
    norms = np.linalg.norm(x, axis=1)
    size = math.sqrt(np.mean(norms**2))
    column = math.sqrt(np.max(np.mean(x**2, axis=0)))
    risk, m = float(np.mean(np.asarray(margins) <= 0)), len(y)
    expected = {
        "vc": vc((3, 4, 1), train_risk=risk, num_samples=m, delta=0.05),
        "counting": counting((3, 4, 1), train_risk=risk, num_samples=m, delta=0.05),
        "frobenius": frobenius(weights, margins, input_norm=size, delta=0.05),
        "path_norm": path_norm(weights, margins, input_norm=column, delta=0.05),
        "path_norm_l2": path_norm(weights, margins, input_norm=size, inputs="l2", delta=0.05),
        "spectral": spectral(weights, margins, input_norm=size, reference=start, delta=0.05),
        "pac_bayes_spectral": pac_bayes_spectral(
            weights, margins, largest_norm=norms.max(), reference=start, delta=0.05
        ),
    }
    for name, bound in found.items():
        assert bound.name == name
        assert_close(bound.value, expected[name].value, rtol=1e-4)
        total = bound.train_risk + bound.complexity + bound.confidence
        assert_close(total, bound.value, rtol=1e-5)
        assert_close(bound.penalty, bound.value - bound.train_risk, rtol=1e-4, atol=1e-6)
        assert bound.deterministic
        assert bound.a_priori == (name in ("vc", "counting"))
        assert bound.assumes
        assert bound.source


def test_all_bounds_with_a_key():
    weights, start, x, y, _ = small_problem(0.3)
    call = {"epsilon": 0.3, "key": jax.random.key(1), "steps": 60}
    one, two = (all_bounds(weights, start, x, y, **call)["pac_bayes_gaussian"] for _ in range(2))
    assert float(one.value) == float(two.value)
    assert not one.deterministic
    assert float(one.train_risk) < float(one.value) <= 1
    alone = pac_bayes_gaussian(weights, start, x, y, **call)
    assert float(alone.value) == float(one.value)
    assert "pac_bayes_gaussian" not in all_bounds(weights, None, x, y, **call)


def test_training_the_posterior_helps():
    weights, start, x, y, _ = small_problem(0.3, m=2000)
    values = [
        float(
            pac_bayes_gaussian(
                weights, start, x, y, epsilon=0.3, key=jax.random.key(0), steps=s, batch_size=100
            ).value
        )
        for s in (0, 300)
    ]
    print(f"untrained {values[0]:.3f}, trained {values[1]:.3f}")
    assert values[1] < 0.8 * values[0]


# Bad input.

SINGLE = {
    "frobenius": lambda **k: frobenius(**{"input_norm": 1.0} | k),
    "path_norm": lambda **k: path_norm(**{"input_norm": 1.0} | k),
    "spectral": lambda **k: spectral(**{"input_norm": 1.0} | k),
    "pac_bayes_spectral": lambda **k: pac_bayes_spectral(**{"largest_norm": 1.0} | k),
}
BAD = {
    "one matrix": ({"weights": net(LAST)}, "`weights` must be at least two matrices"),
    "no fit": ({"weights": net(FIRST, [[1.0]])}, "`weights` must be at least two matrices"),
    "two outputs": ({"weights": net(FIRST, FIRST)}, "end in one output"),
    "nan": ({"weights": net(FIRST, [[1.0, math.nan]])}, "`weights` must be a finite number"),
    "no margins": ({"margins": jnp.zeros(0)}, "`margins` must have shape"),
    "infinite": ({"margins": jnp.asarray([math.inf])}, "`margins` must be a finite number"),
    "delta": ({"delta": 1.0}, r"`delta` must be in \(0, 1\), got 1"),
    "two deltas": ({"delta": np.array([0.1, 0.2])}, "`delta` must be a single number"),
}


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("case", BAD)
def test_bad_input(name, case):
    given, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        SINGLE[name](**{"weights": WEIGHTS, "margins": jnp.asarray([1.0, 2.0])} | given)


MARGIN_CASES = [
    (frobenius, {"input_norm": -1.0}, "`input_norm` must be finite and at least 0, got -1"),
    (frobenius, {"gamma": 0.0}, "`gamma` must be positive and finite, got 0"),
    (path_norm, {"gamma": -2.0}, "`gamma` must be positive and finite, got -2"),
    (spectral, {"gamma": math.inf}, "`gamma` must be positive and finite, got inf"),
    (spectral, {"reference": net(FIRST)}, "`reference` must be at least two matrices"),
    (spectral, {"reference": net([[1.0, 0.0]], [[1.0]])}, "`reference` must have the shapes"),
]


@pytest.mark.parametrize(("bound", "given", "message"), MARGIN_CASES)
def test_bad_margins_and_references(bound, given, message):
    call = {"input_norm": 1.0} | given
    with pytest.raises(ValueError, match=message):
        bound(WEIGHTS, jnp.asarray([1.0, 2.0]), **call)


@pytest.mark.parametrize("bound", [vc, counting])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widths": (3, 1)}, "`widths` must be at least three"),
        ({"widths": (3, 2, 2)}, "`widths` must be at least three"),
        ({"widths": (3, 0, 1)}, "`widths` must be an integer of at least 1, got 0"),
        ({"num_samples": 0}, "`num_samples` must be an integer of at least 1, got 0"),
        ({"train_risk": 1.2}, r"`train_risk` must be in \[0, 1\], got 1.2"),
        ({"delta": 0.0}, r"`delta` must be in \(0, 1\), got 0"),
    ],
)
def test_bad_architectures(bound, given, message):
    call = {"widths": (3, 2, 1), "train_risk": 0.1, "num_samples": 10} | given
    with pytest.raises(ValueError, match=message):
        bound(**call)


def test_bad_bits_and_norms():
    with pytest.raises(ValueError, match="`precision_bits` must be an integer of at least 1"):
        counting((3, 2, 1), train_risk=0.1, num_samples=10, precision_bits=0)
    with pytest.raises(ValueError, match="`largest_norm` must be finite and at least 0"):
        pac_bayes_spectral(WEIGHTS, jnp.asarray([1.0]), largest_norm=-1.0)


def test_inputs_must_be_one_of_two(no_type_checks):
    with pytest.raises(ValueError, match="`inputs` must be one of 'linf', 'l2', got 'l1'"):
        path_norm(WEIGHTS, jnp.asarray([1.0]), input_norm=1.0, inputs="l1")  # type: ignore


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": np.zeros((2, 3))}, "`x` must have 2 features"),
        ({"x": np.full((2, 2), math.nan)}, "`x` must be a finite number"),
        ({"y": np.array([1, 0])}, "`y` must be -1 or"),
        ({"y": np.array([1, -1, 1])}, r"`y` must have shape \(2,\)"),
        ({"epsilon": 1.3}, r"`epsilon` must be in \[0, 1\], got 1.3"),
        ({"start": net(FIRST)}, "`start` must be at least two matrices"),
        ({"steps": -1}, "`steps` must be an integer of at least 0"),
    ],
)
def test_bad_data(given, message, no_type_checks):
    call = {
        "weights": WEIGHTS,
        "start": WEIGHTS,
        "x": np.ones((2, 2)),
        "y": np.array([1, -1]),
        "epsilon": 0.1,
        "key": jax.random.key(0),
    } | given
    for bound in (all_bounds, pac_bayes_gaussian):
        with pytest.raises(ValueError, match=message):
            bound(**call)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draws": 0}, "`draws` must be an integer of at least 1"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1"),
        ({"share": 1.0}, r"`share` must be in \(0, 1\), got 1"),
    ],
)
def test_bad_settings_of_the_posterior(given, message):
    data = WEIGHTS, WEIGHTS, np.ones((2, 2)), np.array([1, -1])
    with pytest.raises(ValueError, match=message):
        pac_bayes_gaussian(*data, epsilon=0.1, key=jax.random.key(0), **given)


# The public face.

PUBLIC = {n: v for n, v in vars(classical).items() if not n.startswith("_")}
PUBLIC = {n: v for n, v in PUBLIC.items() if not inspect.ismodule(v)}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    value = PUBLIC[name]
    doc = value.__doc__ or ""
    assert doc.strip()
    if inspect.isfunction(value):
        for p in inspect.signature(value).parameters.values():
            assert p.annotation is not inspect.Parameter.empty
            assert f"`{p.name}`" in doc, p.name
        for part in ("rguments:**", "**Returns:**", "**Raises:**"):
            assert part in doc
