"""Attacks on the bounds for several classes: finite populations of three classes whose risk is
exact, networks that saw the sample, and the same with one term of the bound left out. Every term
but one is refuted where it is left out: the logarithm of the number of cells is not, since no
network here profits from the choice of a cell (`test_class_split.py` counts the cells)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from test_anchored_attack import ascend

from nlbound_jax import bounds

pytestmark = pytest.mark.float64

_K = 3
# Outputs of margin 1 for each class; their length is sqrt(2/3).
_RIGHT = np.eye(_K) - 1 / _K


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def allowed(trials, delta):
    """The share of failures that a bound of confidence 1 - delta exceeds once in 1000 runs."""
    return scipy.stats.binom.ppf(0.999, trials, delta) / trials


def one_cell(noise, linear, path, move=1.0):
    """A grid with a single cell, in units of gamma; the linear part is centred, over sqrt(K - 1)."""
    ranges = {"noise": noise, "linear": linear, "path": path, "move": move, "margin": 1.0}
    ranges = {name: (value, value, 2.0) for name, value in ranges.items()}
    return bounds.ClassGrid(priors=(0.0,), **ranges)


def spread_of(points, m, draws=400):
    """The mean over samples of the largest eigenvalue, with 4 standard errors."""
    rng = np.random.default_rng(m)
    found = []
    for _ in range(draws):
        x = points[rng.integers(len(points), size=m)]
        found.append(np.linalg.eigvalsh(x.T @ x / m)[-1])
    return np.mean(found) + 4 * np.std(found) / math.sqrt(draws)


def without(bound, *names):
    """The value that is left when terms are; without smoothing only the smoothed risk is."""
    left = {"nonlinear", "capacity", "smoothing"} - set(names)
    below = bound.train_risk + sum(getattr(bound, n) for n in left - {"smoothing"})
    if "smoothing" in names:
        return np.asarray(below)
    cost = bound.smoothing / np.sqrt(np.minimum(bound.value, 1))  # c
    return np.asarray(below + cost * np.minimum((cost + np.sqrt(cost**2 + 4 * below)) / 2, 1))


# By ascent: the risk on the population less that on the sample.

_POINTS, _DIM, _WIDTH, _SIZE = 400, 4, 12, 150


def forward(weights, x, epsilon):
    z = x @ weights[0].T
    return jnp.where(z < 0, (1 - epsilon) * z, z) @ weights[1].T


def margins_of(outputs, y):
    own = jnp.take_along_axis(outputs, y[:, None], axis=1)
    return jnp.min(jnp.where(jnp.arange(_K) == y[:, None], jnp.inf, own - outputs), axis=1)


@functools.cache
def population(flips=0.3):
    """Points whose second moment is the identity, and noisy labels that belong to them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_POINTS, _DIM))
    values, vectors = np.linalg.eigh(x.T @ x / _POINTS)
    x = x @ (vectors / np.sqrt(values))
    y = np.argmax(np.abs(x @ rng.normal(size=(_DIM, _K))), axis=1)
    return x, np.where(rng.uniform(size=_POINTS) < flips, rng.integers(_K, size=_POINTS), y)


def norms(weights, epsilon):
    """Pi l and P."""
    columns = weights[1].T[:, None]
    identity = jnp.eye(_DIM)[None], jnp.ones((1, 1))
    places = np.arange(_DIM)[None]
    linear = bounds.class_linear_part(weights[0], columns, places, epsilon=epsilon, dim=_DIM)
    return linear, bounds.class_paths(weights[0], columns, *identity)


def attacked(points, labels, seen, start, epsilon):
    """Trained to be wrong on the population and right on the sample."""

    def objective(weights):
        margins = margins_of(forward(weights, points, epsilon), labels)
        wrong, right = jax.nn.sigmoid(-8 * margins), jax.nn.sigmoid(-8 * (margins - 0.3))
        return jnp.mean(wrong) - 3 * jnp.mean(right[seen])

    return ascend(objective, start, steps=100)


def split_grid(whole):
    return bounds.ClassGrid() if whole else one_cell(0.3, 1.0, 5.0)


@functools.partial(jax.jit, static_argnames=("epsilon", "trials", "whole", "delta"))
def attack_split(key, root, epsilon, trials, whole, delta):
    points, labels = (jnp.asarray(a) for a in population())
    grid = split_grid(whole)

    def one(key):
        keys = jax.random.split(key, 3)
        seen = jax.random.randint(keys[0], (_SIZE,), 0, _POINTS)
        start = (
            jax.random.normal(keys[1], (_WIDTH, _DIM)),
            0.3 * jax.random.normal(keys[2], (_K, _WIDTH)),
        )
        weights = attacked(points, labels, seen, start, epsilon)
        if not whole:  # to the border of the cell
            linear, path = norms(weights, epsilon)
            size = jnp.linalg.norm(linear) / (grid.linear[0] * math.sqrt(_K - 1))
            size = jnp.maximum(size, path[0] / grid.path[0])
            weights = weights[0], weights[1] / (size * (1 + 1e-9))
        linear, path = norms(weights, epsilon)
        out = forward(weights, points, epsilon)
        bound = bounds.class_split_bound(
            out[seen],
            labels[seen],
            jnp.linalg.norm(points[seen], axis=1),
            epsilon=epsilon,
            linear=linear,
            paths=path,
            roots=root[None],
            delta=delta,
            gammas=None if whole else jnp.ones(1),
            grid=grid,
        )
        return 1 - jnp.mean(margins_of(out, labels) > 0), bound

    return jax.lax.map(one, jax.random.split(key, trials))


@functools.partial(jax.jit, static_argnames=("epsilon", "trials", "delta"))
def attack_anchored(key, root, epsilon, trials, delta):
    """The anchor is fitted to S1, one draw of the population, and the network to S2 from there; then
    it is pulled back to the border of the cell on the line between the two."""
    points, labels = (jnp.asarray(a) for a in population())
    grid = one_cell(0.3, 1.0, 5.0, move=0.5)

    def one(key):
        keys = jax.random.split(key, 4)
        first, seen = jax.random.randint(keys[0], (2, _SIZE), 0, _POINTS)
        start = (
            jax.random.normal(keys[1], (_WIDTH, _DIM)),
            0.3 * jax.random.normal(keys[2], (_K, _WIDTH)),
        )

        def fit(weights):
            margins = margins_of(forward(weights, points[first], epsilon), labels[first])
            return -jnp.mean(jax.nn.sigmoid(-4 * margins))

        anchor = ascend(fit, start, steps=40)
        unit = jnp.sqrt(jnp.mean(margins_of(forward(anchor, points[first], epsilon), labels[first]) ** 2))
        profile = jnp.linalg.norm(anchor[0], axis=1)
        fixed = jnp.sum(profile * jnp.linalg.norm(anchor[1] - anchor[1].mean(0), axis=0))
        moved = attacked(points, labels, seen, anchor, epsilon)

        def sizes(share):
            weights = jax.tree.map(lambda a, b: a + share * (b - a), anchor, moved)
            straight = norms(weights, epsilon)[0] - norms(anchor, epsilon)[0]
            path = norms((weights[0], weights[1] - anchor[1]), epsilon)[1]
            distance = jnp.linalg.norm(weights[0] - anchor[0], axis=1)
            return weights, straight, path, jnp.max(distance / profile)

        def inside(share):
            _, straight, path, move = sizes(share)
            linear = jnp.linalg.norm(straight) / math.sqrt(_K - 1)
            fits = (linear <= unit) & (path[0] <= 5 * unit) & (move <= 0.5)
            return jnp.where(fits, share, 0.0)

        share = jnp.max(jax.vmap(inside)(jnp.linspace(0, 1, 101)))
        weights, straight, path, move = sizes(share)
        out = forward(weights, points, epsilon)
        bound = bounds.class_anchored_bound(
            out[seen],
            labels[seen],
            jnp.linalg.norm(points[seen], axis=1),
            epsilon=epsilon,
            linear=straight,
            paths=path,
            roots=root[None],
            moves=move[None],
            anchor_paths=fixed[None] * math.sqrt(_DIM),
            unit=unit,
            delta=delta,
            grid=grid,
        )
        return 1 - jnp.mean(margins_of(out, labels) > 0), bound

    return jax.lax.map(one, jax.random.split(key, trials))


def root_of(m=_SIZE):
    spread = spread_of(population()[0], m)
    return bounds.class_root(np.array(float(_DIM)), np.array(spread), _K, 1)


CASES = ["one cell", "all cells", "anchored"]


@pytest.mark.parametrize("epsilon", [1.0, 0.03])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("trials", [20, pytest.param(600, marks=pytest.mark.slow)])
def test_no_network_found_by_ascent_exceeds_the_bound(case, epsilon, trials):
    """What the sample says of the network, without any penalty, does not hold for it."""
    key, delta = jax.random.key(len(case)), 0.5
    if case == "anchored":
        risk, bound = attack_anchored(key, root_of(), epsilon, trials, delta)
    else:
        whole = case == "all cells"
        risk, bound = attack_split(key, root_of(), epsilon, trials, whole, delta)
    risk, value = np.asarray(risk), np.asarray(bound.value)
    bare = without(bound, "nonlinear", "capacity", "smoothing")
    print(
        f"{case}, epsilon {epsilon}: risk {risk.mean():.3f}, train {np.mean(bound.train_risk):.3f}"
        f", D {np.mean(bound.nonlinear):.3f}, capacity {np.mean(bound.capacity):.3f}, smoothing "
        f"{np.mean(bound.smoothing):.3f}, bound {value.mean():.3f}; smallest slack "
        f"{np.min(value - risk):.3f}; the train term is exceeded in {np.mean(risk > bare):.0%}"
    )
    assert np.mean(risk > value) <= allowed(trials, delta)
    assert np.isfinite(value).all()
    assert np.mean(risk > bare) > 0.3
