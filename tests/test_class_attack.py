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
    """A grid with a single cell, in units of gamma; that of the linear part over sqrt(K - 1)."""
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

_POINTS, _DIM, _WIDTH, _SIZE = 1000, 4, 12, 500


def forward(weights, x, epsilon):
    z = x @ weights[0].T
    return jnp.where(z < 0, (1 - epsilon) * z, z) @ weights[1].T


def margins_of(outputs, y):
    own = jnp.take_along_axis(outputs, y[:, None], axis=1)
    return jnp.min(jnp.where(jnp.arange(_K)[None] == y[:, None], jnp.inf, own - outputs), axis=1)


@functools.cache
def population(flips=0.4):
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


def errors(outputs, labels):
    return jnp.where(margins_of(outputs, labels) > 0, 0.0, 1.0)


def attacked(points, labels, seen, start, epsilon, border=lambda weights: weights):
    """Trained to be wrong on the population and right on the sample, by a margin of 1."""

    def objective(weights):
        margins = margins_of(forward(border(weights), points, epsilon), labels)
        right = jnp.clip(1 - margins[seen], 0, 1)
        return jnp.mean(jax.nn.sigmoid(-10 * margins)) - 2 * jnp.mean(right)

    return border(ascend(objective, start, steps=100))


def to_border(weights, epsilon, grid):
    """The largest multiple of a network that lies in the cell at gamma = 1."""
    linear, path = norms(weights, epsilon)
    linear = jnp.sqrt(jnp.sum(linear**2) + 1e-30) / math.sqrt(_K - 1)
    size = jnp.maximum(linear / grid.linear[0], path[0] / grid.path[0])
    return weights[0], weights[1] / (size * (1 + 1e-9))


# Without small noise the sample's ramp risk is near 1 for all.
_CELLS = {1.0: one_cell(0.05, 0.8, 1.5), 0.03: one_cell(0.05, 0.8, 20.0)}
_ALL = bounds.ClassGrid(
    noise=(1e-2, 1.0, 2.0), linear=(0.1, 1e3, 1.3), path=(1e-2, 1e3, 1.1), priors=(0.0,)
)


@functools.partial(jax.jit, static_argnames=("epsilon", "trials", "whole", "delta"))
def attack_split(key, root, epsilon, trials, whole, delta):
    points, labels = (jnp.asarray(a) for a in population())
    grid = _ALL if whole else _CELLS[epsilon]

    def border(weights):
        return weights if whole else to_border(weights, epsilon, grid)

    def one(key):
        keys = jax.random.split(key, 3)
        seen = jax.random.randint(keys[0], (_SIZE,), 0, _POINTS)
        start = (
            jax.random.normal(keys[1], (_WIDTH, _DIM)),
            0.3 * jax.random.normal(keys[2], (_K, _WIDTH)),
        )
        weights = attacked(points, labels, seen, start, epsilon, border)
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
        wrong = errors(out, labels)
        return jnp.mean(wrong), jnp.mean(wrong[seen]), bound

    return jax.lax.map(one, jax.random.split(key, trials))


@functools.partial(jax.jit, static_argnames=("epsilon", "trials", "delta"))
def attack_anchored(key, root, epsilon, trials, delta):
    """The anchor is fitted to S1, one draw of the population, and the network to S2 from there,
    inside of the cell."""
    points, labels = (jnp.asarray(a) for a in population())
    grid = one_cell(0.05, 0.8, *((0.5, 0.05) if epsilon == 1 else (10.0, 1.0)))

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
        margins = margins_of(forward(anchor, points[first], epsilon), labels[first])
        unit = jnp.sqrt(jnp.mean(margins**2))
        anchor = anchor[0], anchor[1] / unit
        profile = jnp.linalg.norm(anchor[0], axis=1)
        fixed = jnp.sum(profile * jnp.linalg.norm(anchor[1] - anchor[1].mean(axis=0)[None], axis=0))

        def sizes(weights):
            straight = norms(weights, epsilon)[0] - norms(anchor, epsilon)[0]
            path = norms((weights[0], weights[1] - anchor[1]), epsilon)[1]
            distance = jnp.sqrt(jnp.sum((weights[0] - anchor[0]) ** 2, axis=1) + 1e-30)
            return straight, path, jnp.max(distance / profile)

        def border(weights):
            """Towards the anchor as far as is surely enough."""
            steps = jax.tree.map(jnp.subtract, weights, anchor)
            move = sizes(weights)[2]
            size = 0.0
            for pair in ((anchor[0], steps[1]), (steps[0], anchor[1]), (steps[0], steps[1])):
                size += jnp.sqrt(jnp.sum(norms(pair, epsilon)[0] ** 2) + 1e-30)
            longer = jnp.linalg.norm(anchor[0], axis=1) + jnp.sqrt(
                jnp.sum(steps[0] ** 2, axis=1) + 1e-30
            )
            path = jnp.sum(longer * jnp.sqrt(jnp.sum(steps[1] ** 2, axis=0) + 1e-30))
            over = [size / math.sqrt(_K - 1) / grid.linear[0], path / grid.path[0]]
            share = 1 / jnp.maximum(jnp.max(jnp.stack([*over, move / grid.move[0]])), 1.0)
            return jax.tree.map(lambda a, b: a + share * (1 - 1e-9) * b, anchor, steps)

        weights = attacked(points, labels, seen, anchor, epsilon, border)
        straight, path, move = sizes(weights)
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
            unit=1.0,
            delta=delta,
            grid=grid,
        )
        wrong = errors(out, labels)
        return jnp.mean(wrong), jnp.mean(wrong[seen]), bound

    return jax.lax.map(one, jax.random.split(key, trials))


def root_of(m=_SIZE):
    spread = spread_of(population()[0], m)
    return bounds.class_root(np.array(float(_DIM)), np.array(spread), _K, 1)


@pytest.mark.parametrize(
    ("case", "epsilon", "trials"),
    [
        *(("one cell", 1.0, 12), ("all cells", 0.03, 12), ("anchored", 1.0, 12)),
        *(
            pytest.param(case, epsilon, 600, marks=pytest.mark.slow)
            for case in ("one cell", "all cells", "anchored")
            for epsilon in (1.0, 0.03)
        ),
    ],
)
def test_no_network_found_by_ascent_exceeds_the_bound(case, epsilon, trials):
    """What the sample says of the network, without any penalty, does not hold for it."""
    key, delta = jax.random.key(len(case)), 0.5
    if case == "anchored":
        risk, error, bound = attack_anchored(key, root_of(), epsilon, trials, delta)
    else:
        whole = case == "all cells"
        risk, error, bound = attack_split(key, root_of(), epsilon, trials, whole, delta)
    risk, error, value = (np.asarray(a) for a in (risk, error, bound.value))
    bare = without(bound, "nonlinear", "capacity", "smoothing")
    print(
        f"{case}, epsilon {epsilon}: risk {risk.mean():.3f}, error {error.mean():.3f}, train "
        f"{np.mean(bound.train_risk):.3f}, D {np.mean(bound.nonlinear):.3f}, capacity "
        f"{np.mean(bound.capacity):.3f}, smoothing {np.mean(bound.smoothing):.3f}, bound "
        f"{value.mean():.3f}; smallest slack {np.min(value - risk):.3f}; the train "
        f"term is exceeded in {np.mean(risk > bare):.0%}"
    )
    assert np.mean(risk > value) <= allowed(trials, delta)
    assert np.isfinite(value).all()
    assert np.mean(risk > error) > 0.5
    assert np.mean(risk) > np.mean(error)


# By hand. A point for each of n coordinates, and the label is a coin of three sides: no network is
# right in more than a third of the population. The attack answers with what the sample says most
# often of the coordinate.


def coins(rng, n, m):
    """Places, inputs and labels of a sample, and the answers."""
    place, y = rng.integers(n, size=m), rng.integers(_K, size=m)
    x = np.zeros((m, n))
    x[np.arange(m), place] = math.sqrt(n)
    counts = np.zeros((n, _K))
    np.add.at(counts, (place, y), 1)
    return x, y, np.argmax(counts, axis=1)


def by_columns(n, answers, epsilon):
    """Two units for each coordinate, so that nothing is linear; the answer is in the columns. All
    margins are 1. The anchor has the same filters and no columns."""
    filters = np.vstack([np.eye(n), -np.eye(n)])
    last = np.tile(_RIGHT[answers], (2, 1)).T / (epsilon * math.sqrt(n))
    return (filters, last), (filters, np.zeros_like(last))


def by_filters(n, answers, epsilon):
    """The same from an anchor with six units for each coordinate, two for each class, whose outputs
    are all 0: those of the answer grow and the others shrink."""
    filters = np.repeat(np.vstack([np.eye(n), -np.eye(n)]), _K, axis=0)
    last = np.tile(_RIGHT.T, (1, 2 * n))
    chosen = np.arange(_K)[None] == np.tile(answers, 2)[:, None]
    move = np.where(chosen, 1, -1).reshape(-1, 1) / (2 * epsilon * math.sqrt(n))
    return (filters * (1 + move), last), (filters, last)


def by_linear(n, answers, epsilon):
    """One unit for each coordinate, a linear network: epsilon is 0. All margins are 2."""
    last = 2 * _RIGHT[answers].T / math.sqrt(n)
    return (np.eye(n), last), (np.eye(n), np.zeros_like(last))


def by_nothing(n, answers, epsilon):
    """Only ties, all of which are errors; with noise a third is right."""
    last = np.zeros((_K, n))
    return (np.eye(n), last), (np.eye(n), last)


# The term that is refuted, and: epsilon, n, m, the noise of the outputs, B over sqrt(K - 1).
_HANDS = {
    by_columns: ("nonlinear", 0.5, 12, 14400, 1e-3, 1e-4),
    by_filters: ("nonlinear", 0.5, 12, 14400, 1e-3, 1e-4),
    by_linear: ("capacity", 0.0, 30, 600, 0.1, 2 / math.sqrt(3)),
    by_nothing: ("smoothing", 0.0, 12, 600, 0.3, 1e-4),
}


def by_hand(make, anchored, rng):
    """The exact risk, and the bound."""
    _, epsilon, n, m, noise, linear = _HANDS[make]
    x, y, answers = coins(rng, n, m)
    weights, anchor = make(n, answers, epsilon)
    columns, other = weights[1].T[:, None], anchor[1].T[:, None]
    places = np.arange(n)[None]
    straight, centre = (
        np.asarray(bounds.class_linear_part(w, a, places, epsilon=epsilon, dim=n))
        for w, a in ((weights[0], columns), (anchor[0], other))
    )
    identity = np.eye(n)[None], np.ones((1, 1))
    if anchored:
        straight, columns = straight - centre, columns - other
    path = bounds.class_paths(weights[0], columns, *identity)
    grid = one_cell(
        noise / math.sqrt(n),
        linear * (1 + 1e-9),
        round(float(path[0]), 6) + 1e-6,  # the same in all trials: it is compiled once
        move=1 / math.sqrt(n),
    )
    sample = (np.asarray(forward(weights, x, epsilon)), y, np.linalg.norm(x, axis=1))
    call = {"epsilon": epsilon, "linear": straight, "paths": path, "delta": 0.5, "grid": grid}
    call["roots"] = bounds.class_root(
        np.array([float(n)]), np.array([spread_of_coins(n, m)]), _K, 1
    )
    every = np.asarray(forward(weights, math.sqrt(n) * np.eye(n), epsilon))
    wrong = [errors(every, np.full(n, k)) for k in range(_K)]
    if not anchored:
        return np.mean(wrong), bounds.class_split_bound(*sample, **call, gammas=np.ones(1))
    moves = np.linalg.norm(weights[0] - anchor[0], axis=1)
    fixed = math.sqrt(n) * np.sum(np.linalg.norm(anchor[1] - anchor[1].mean(axis=0), axis=0))
    call |= {"moves": np.array([moves.max()]), "anchor_paths": np.array([fixed]), "unit": 1.0}
    return np.mean(wrong), bounds.class_anchored_bound(*sample, **call)


@functools.cache
def spread_of_coins(n, m):
    """The second moment is diagonal: the most frequent coordinate, with 4 standard errors."""
    rng = np.random.default_rng(n)
    most = rng.multinomial(m, np.full(n, 1 / n), size=4000).max(axis=1) * (n / m)
    return np.mean(most) + 4 * np.std(most) / math.sqrt(4000)


@pytest.mark.parametrize(
    ("make", "anchored", "trials"),
    [
        *((make, False, 12) for make in (by_columns, by_linear, by_nothing)),
        *((make, True, 12) for make in (by_columns, by_filters)),
        *(pytest.param(make, True, 300, marks=pytest.mark.slow) for make in _HANDS),
    ],
)
def test_each_term_is_needed_where_labels_are_coins(make, anchored, trials):
    rng, term = np.random.default_rng(5), _HANDS[make][0]
    slack, lowered = [], []
    for _ in range(trials):
        risk, bound = by_hand(make, anchored, rng)
        assert risk == (1 if make is by_nothing else pytest.approx(2 / 3, abs=1e-12))
        slack.append(float(bound.value) - risk)
        lowered.append(float(without(bound, term)) - risk)
    print(
        f"{make.__name__}: {term} {float(getattr(bound, term)):.3f}, value {float(bound.value):.3f}"
        f", smallest slack {min(slack):.4f}; without {term} {np.mean(np.less(lowered, 0)):.0%} fail"
    )
    assert np.isfinite(slack).all()
    assert np.mean(np.less(slack, 0)) <= allowed(trials, 0.5)
    assert np.mean(np.less(lowered, 0)) > allowed(trials, 0.5)
    # The first two attacks are on a bound that says something.
    assert make is by_nothing or float(bound.value) < 1


# The moments.


@pytest.mark.parametrize("positions", [None, bounds.patch_positions((1, 3, 3), (2, 2), padding=1)])
@pytest.mark.parametrize("trials", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_limits_of_moments_where_a_sample_may_miss_the_largest_inputs(positions, trials):
    """One input in 50 is ten times as large: most samples of 40 have too small moments."""
    delta, m = 0.1, 40
    rng = np.random.default_rng(2)
    points = rng.normal(size=(500, 9))
    points[::50] *= 10
    radius = float(np.linalg.norm(points, axis=1).max())
    call = {"norm_bound": radius, "delta": delta, "positions": positions}
    call |= {"exponents": (0.0, 1.0), "ridges": (0.01,)}
    reference = points[rng.integers(500, size=200)]
    known = bounds.class_inputs(points[:m], reference, **call)
    places = np.arange(9)[None] if positions is None else positions

    def moments(x):
        """T and Lambda of each metric, and E|x|^2 in each of the coordinates."""
        local = np.pad(x, ((0, 0), (0, 1)))[:, places]
        found = [np.mean(np.sum((x @ f) ** 2, axis=1)) for f in np.asarray(known.forward)]
        for root, weights in zip(*map(np.asarray, (known.metrics, known.weights)), strict=True):
            z = local @ np.linalg.inv(root)
            moment = np.einsum("npi,npj->pij", z, z) / len(x)
            found.append(weights @ np.trace(moment, axis1=1, axis2=2))
            found.append(weights @ np.linalg.eigvalsh(moment)[:, -1])
        return np.array(found)

    true = moments(points)
    samples = [moments(points[rng.integers(500, size=m)]) for _ in range(1000)]
    # The largest eigenvalue is meant as a mean over samples of this size.
    t = len(known.forward)
    true[t + 1 :: 2] = np.mean(samples, axis=0)[t + 1 :: 2]
    failures, plain = [], []
    for _ in range(trials):
        x = points[rng.integers(500, size=m)]
        found = bounds.class_inputs(x, reference, **call)
        assert np.array_equal(found.metrics, known.metrics)
        limits = [np.asarray(found.noise_roots) ** 2]
        limits.append(np.stack([found.traces, found.spreads], axis=1).ravel())
        failures.append((np.concatenate(limits) < true).any())
        plain.append((moments(x) < true).all())
    print(
        f"limits fail in {np.mean(failures):.2%}, all moments of the sample in {np.mean(plain):.0%}"
    )
    assert np.mean(failures) <= allowed(trials, delta)
    assert np.mean(plain) > allowed(trials, delta)
