"""Attacks on the anchored bound: a finite population whose risk is known exactly, a network fitted
to S2 and against the population inside one cell, and the same with less paid than is due."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlbound_jax._forward import outputs
from nlbound_jax.bounds import AnchoredGrid, anchored_bound, anchored_search

pytestmark = pytest.mark.float64

_DELTA, _SIZE, _DIM, _POINTS = 0.1, 100, 5, 600
_CELL = {"kappas": (1.0,), "kappas_nonlinear": (1.0,), "bumps": (0.0,), "margins": (0.0,)}
# Epsilon, width, noise on the linear and the nonlinear part, level; and how far W is pulled.
SHAPES = {
    "linear": (0.0, 1, 0.3, 0.1, 0.5, 0.03),
    "nearly linear": (0.1, 4, 0.3, 0.1, 1.0, 0.03),
    "relu": (1.0, 4, 0.3, 0.3, 0.5, 0.03),
    "wide relu": (1.0, 12, 0.2, 0.3, 1.3, 0.01),
    "far": (1.0, 12, 0.005, 0.01, 0.5, 0.0),
}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def ascend(objective, start, steps=120, rate=0.05):
    def step(carry, i):
        at, first, second = carry
        slope = jax.grad(objective)(at)
        first = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, first, slope)
        second = jax.tree.map(lambda a, g: 0.99 * a + 0.01 * g * g, second, slope)
        scale = rate * (1 - i / steps)
        at = jax.tree.map(lambda a, f, s: a + scale * f / (jnp.sqrt(s) + 1e-9), at, first, second)
        return (at, first, second), None

    zeros = jax.tree.map(jnp.zeros_like, start)
    return jax.lax.scan(step, (start, zeros, zeros), jnp.arange(steps, dtype=float))[0][0]


@functools.partial(jax.jit, static_argnames=("shape", "trials"))
def attack(key, shape, trials):
    """For each trial: the exact risk, and the bound."""
    epsilon, width, linear, nonlinear, level, pull = SHAPES[shape]
    grid = AnchoredGrid(
        linear=(linear, linear, 2.0), nonlinear=(nonlinear,) * 2 + (2.0,), levels=(level,), **_CELL
    )
    slope = jnp.asarray(epsilon)

    def one(key):
        keys = jax.random.split(key, 6)
        x = jax.random.normal(keys[0], (_POINTS, _DIM))
        anchor = (
            jax.random.normal(keys[1], (width, _DIM)) / math.sqrt(width),
            jax.random.normal(keys[2], (1, width)),
        )
        first = x[jax.random.randint(keys[3], (_SIZE,), 0, _POINTS)]
        unit = jnp.sqrt(jnp.mean((outputs(anchor, first.T, slope)) ** 2))
        anchor = (anchor[0], anchor[1] / jnp.where(unit > 0, unit, 1.0))
        # The anchor is right nearly everywhere, so that what W loses is W's own.
        out = outputs(anchor, x.T, slope)
        y = jnp.where(out >= 0, 1.0, -1.0)
        seen = jax.random.randint(keys[4], (_SIZE,), 0, _POINTS)

        def objective(weights):
            margins = y * outputs(weights, x.T, slope)
            wrong, right = jax.nn.sigmoid(-8 * margins), jax.nn.sigmoid(-8 * (margins - 0.2))
            moved = sum(jnp.sum((a - b) ** 2) for a, b in zip(weights, anchor, strict=True))
            return jnp.mean(wrong) - 3 * jnp.mean(right[seen]) - pull * moved

        weights = ascend(objective, anchor)
        risk = jnp.mean(jnp.where(y * outputs(weights, x.T, slope) > 0, 0.0, 1.0))
        bound = anchored_search(
            x[seen],
            y[seen],
            first,
            weights,
            anchor,
            None,
            epsilon=slope,
            delta=jnp.asarray(_DELTA),
            key=keys[5],
            grid=grid,
        )
        return risk, bound

    return jax.lax.map(one, jax.random.split(key, trials))


def kl_inverse(p, c):
    low, high = p, np.ones_like(p)
    for _ in range(60):
        q = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            kl = np.where(p > 0, p * np.log(p / q), 0) + np.where(
                p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0
            )
        low, high = np.where(kl <= c, q, low), np.where(kl <= c, high, q)
    return high


def without_divergence(bound):
    """What the bound would be if the distance were free."""
    exponent = np.asarray(bound.exponent) - np.asarray(bound.divergence) / _SIZE
    raised = np.minimum(np.asarray(bound.disagreement) + np.asarray(bound.monte_carlo), 1.0)
    distance = kl_inverse(raised, exponent) / np.asarray(bound.probability)
    return np.asarray(bound.anchor_bound) + distance


@pytest.mark.parametrize(
    ("trials", "shapes"),
    [
        pytest.param(20, ("nearly linear", "relu"), id="some"),
        pytest.param(1000, tuple(SHAPES), id="many", marks=pytest.mark.slow),
    ],
)
def test_the_bound_holds_on_a_finite_population(trials, shapes):
    for shape in shapes:
        risk, bound = attack(jax.random.key(list(SHAPES).index(shape)), shape, trials)
        risk, value = np.asarray(risk), np.asarray(bound.value)
        failures = np.mean(risk > value)
        anchor = np.asarray(bound.anchor_bound)
        print(
            f"{shape}: risk {risk.mean():.3f}, bound {value.mean():.3f}, KL "
            f"{np.mean(bound.divergence):.1f}, anchor {anchor.mean():.3f}, failures "
            f"{failures:.3f}; of the anchor's bound alone {np.mean(risk > anchor):.3f}"
        )
        assert failures <= _DELTA
        # The attack is one: what S2 says of the anchor does not hold for W.
        assert np.mean(risk > anchor) > 2 * _DELTA


def test_a_network_that_memorizes_needs_the_divergence():
    """A point for each coordinate; the anchor is right on all with margins far below the noise. W
    is right where S2 is and wrong elsewhere: 95% of the population."""
    n, size, deviation = _SIZE, 20 * _SIZE, 10.0
    seen = np.arange(n)
    # One more coordinate, which no input has, is the same in both: the factor stays 1.
    straight = np.full(size + 1, -0.01)
    straight[seen], straight[-1] = 3 * deviation, 1e5
    x = np.zeros((n, size + 1))
    x[seen, seen] = 1.0
    grid = AnchoredGrid(linear=(deviation,) * 2 + (2.0,), levels=(0.0,), **_CELL)
    first = (jnp.asarray(straight)[None], jnp.ones(size + 1).at[-1].set(1e5)[None])
    bound = anchored_search(
        jnp.asarray(x),
        jnp.ones(n),
        jnp.asarray(x),
        (first[0], jnp.ones((1, 1))),
        (first[1], jnp.ones((1, 1))),
        None,
        epsilon=jnp.asarray(0.0),
        delta=jnp.asarray(_DELTA),
        key=jax.random.key(0),
        grid=grid,
    )
    risk = 1 - n / size
    assert float(bound.anchor_risk) == 0
    assert abs(float(bound.divergence) - (n * 2.9**2 + (size - n) * 0.101**2) / 2) < 1e-3 * n
    assert float(bound.value) > risk
    assert float(without_divergence(bound)) < risk - 0.3


def test_half_of_the_complexity_is_refuted():
    """PAC-Bayes is used up to its constant: in the memorizing attack the exact mean of the loss
    over the population is above what half of the exponent allows, and below what the whole allows.
    (The loss of a seen point is Phi(-move), of any other 1/2; the divergence is n move^2 / 2.)"""
    n, copies, move = 4000, 40, 0.5
    seen = float(jax.scipy.stats.norm.cdf(-move))
    population = seen / copies + 0.5 * (1 - 1 / copies)
    # The search gives the exponent: its formula is tested in test_anchored.
    exponent = (n * move**2 / 2 + math.log(2 * math.sqrt(n) / (0.08 * _DELTA))) / n
    whole, half = kl_inverse(np.array(seen), exponent), kl_inverse(np.array(seen), exponent / 2)
    assert half < population < whole


_ONE = AnchoredGrid(linear=(0.5, 0.5, 2.0), nonlinear=(0.1, 0.1, 2.0), levels=(1.0,), **_CELL)


def memorizing(shapes, search, grid=_ONE, bumps=(0.0,)):
    """A point for each coordinate, all labels 1. The anchor is right on all; W is too on S2, by its
    nonlinear parts alone, and wrong elsewhere: 95% of the population."""
    n, size = _SIZE, 20 * _SIZE
    seen = np.where(np.arange(size) < n, 30.0, 0.0)
    other = np.where(np.arange(size) < n, 0.0, 30.0)
    small, none = np.full(size, 0.01), np.zeros(size)
    weights = np.stack([small, seen, -seen, other, -other]), np.array([[1.0, 1, 1, -1, -1]])
    anchor = np.stack([small, none, none, none, none]), np.array([[1.0, 1, 1, -1, -1]])
    x = np.zeros((n, size))
    x[np.arange(n), np.arange(n)] = 1.0
    weights, anchor = (tuple(map(jnp.asarray, w)) for w in (weights, anchor))
    margins = outputs(weights, jnp.eye(size), jnp.asarray(1.0))
    assert jnp.sum(~(margins > 0)) == size - n
    bound = search(
        jnp.asarray(x),
        jnp.ones(n),
        weights=weights,
        anchor=anchor,
        x_first=jnp.asarray(x),
        shapes=None if shapes is None else jnp.asarray(shapes),
        epsilon=jnp.asarray(1.0),
        delta=jnp.asarray(_DELTA),
        key=jax.random.key(0),
        grid=dataclasses.replace(grid, bumps=bumps),
    )
    return 1 - n / size, bound


@pytest.mark.parametrize("bumps", [(0.0, 0.5), (0.5,)])
@pytest.mark.parametrize(
    "shapes",
    [
        None,
        [[1.0] * 5],
        [[1e308] * 5],
        [[1.0, *[1e-318] * 4]],
        [[1.0, *[0.0] * 4]],
        [[1.0] * 5, [1e300, *[1e-300] * 4]],
    ],
)
def test_noise_that_vanishes_hides_no_distance(shapes, bumps):
    risk, bound = memorizing(shapes, anchored_search, bumps=bumps)
    assert float(bound.anchor_risk) == 0
    assert float(bound.value) >= risk


@pytest.mark.parametrize("spread", [(1e-100, 1e-100, 2.0), (1e-100, 0.1, 1e50)])
def test_the_least_noise_that_is_allowed_hides_no_distance(spread):
    grid = dataclasses.replace(_ONE, nonlinear=spread)
    for shapes in (None, [[1.0, *[1e-100] * 4]]):
        risk, bound = memorizing(shapes, anchored_bound, grid)
        assert float(bound.value) >= risk


def test_noise_that_would_vanish_is_refused():
    for spread in ((1e-170, 1e-170, 2.0), (1e-300, 0.1, 1e50)):
        for name in ("linear", "nonlinear"):
            with pytest.raises(ValueError, match=f"`{name}` must be finite and at least 1e-100"):
                AnchoredGrid(**{name: spread})
    for shapes in ([[1.0, *[1e-323] * 4]], [[1.0, *[1e-101] * 4]]):
        with pytest.raises(
            ValueError, match="`shapes` must be (at least 1e-100 of the largest|positive)"
        ):
            memorizing(shapes, anchored_bound)
