"""The anchored bound known before training: the most that KL can be, against networks that move as
far as they may; a constant that is too small; a run of its own; a finite population."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, numpy_network, small_data

from nlbound_jax import Settings, bounds, ladder, tasks
from nlbound_jax.bounds import (
    AnchoredGrid,
    Nearby,
    _anchored_nearby,
    _anchored_problem,
    _anchored_search,
)
from nlbound_jax.ladder._anchored import A_PRIORI
from nlbound_jax.report import bound_key, declared_split, train, train_anchor

pytestmark = pytest.mark.float64
KEY = jax.random.key(3)
GRID = AnchoredGrid(
    linear=(0.02, 0.4, 2.0),
    nonlinear=(0.01, 0.1, 3.0),
    kappas=(1.0, 3.0, 30.0),
    kappas_nonlinear=(1.0,),
    levels=(0.5, 1.2),
    bumps=(0.0,),
)
CELL = _anchored_problem.Cell(
    *(jnp.asarray(v) for v in (0.05, 0.03, 3.0, 1.3, 1.0, 0, 0.0, 0, 0.0))
)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def situation(rng):
    """V, an anchor near it or not, distances, and the map between the coordinates."""
    width, r, d = int(rng.choice([1, 3, 8])), int(rng.choice([2, 4])), 4
    v = [rng.normal(size=(width, r)), rng.normal(size=(1, width))]
    v[1] *= 10 ** rng.uniform(-2, 0, size=(1, width))  # some turn over easily
    matrix = rng.normal(size=(r, d)) * 10 ** rng.uniform(-0.5, 0.5)
    moved = rng.choice([0.0, 0.01, 1.0])
    anchor = [
        v[0] @ matrix + moved * rng.normal(size=(width, d)),
        v[1] + moved * rng.normal(size=v[1].shape),
    ]
    x = 10 ** rng.uniform(-2.5, 0.5, size=2)
    return v, anchor, x, matrix, rng.choice([0.001, 0.3, 1.0])


def adversary(rng, v, x, matrix):
    """A network as far from V as allowed: anywhere, along V, in one unit, or turning units over."""
    first, last = v
    kind = rng.integers(5)
    size = [1.0, 1.0] if kind else rng.uniform(size=2)
    steps = [rng.normal(size=w.shape) for w in v]
    if kind == 1:
        steps = [w * rng.choice([-1.0, 1.0]) for w in v]
    if kind == 2:  # in the unit and the direction that count most
        k = np.argmax(np.abs(last[0]) if rng.uniform() < 0.5 else np.linalg.norm(first, axis=1))
        steps = [np.zeros_like(w) for w in v]
        axis = np.linalg.svd(matrix)[0][:, 0]
        steps[0][k] = axis * (np.sign(first[k] @ axis) or 1.0)
        steps[1][0, k] = np.sign(last[0, k]) or 1.0
    if kind == 3:
        u, _, t = np.linalg.svd(first, full_matrices=False)
        steps = [np.outer(u[:, 0], t[0]), u[:, :1].T * np.sign(last @ u[:, :1])]
    if kind == 4:
        order = np.argsort(np.abs(last[0]))
        spent = np.cumsum(last[0, order] ** 2) * (1 + 1e-9) <= x[1] ** 2
        steps[1] = np.zeros_like(last)
        steps[1][0, order[spent]] = -last[0, order[spent]] * (1 + 1e-9)
        size[1] = np.linalg.norm(steps[1]) / x[1]
    norms = [np.linalg.norm(s) for s in steps]
    steps = [s * a * b / n if n else s for s, a, b, n in zip(steps, size, x, norms, strict=True)]
    return [w + s for w, s in zip(v, steps, strict=True)]


def known(problem, cell, noise):
    """KL as it is known beforehand; the library takes what was measured where that is larger."""
    straight, bent = _anchored_nearby.farthest(problem.reach, noise)
    width, dim = problem.net.units.shape
    free = [jnp.log(k) + 1 / k - 1 for k in (cell.kappa, cell.kappa_nonlinear)]
    wide = straight / cell.kappa + bent / cell.kappa_nonlinear
    return (dim * free[0] + width * dim * free[1] + wide) / 2


def compared(seed, share=1.0):
    """KL as measured over what it can be at most, with the same factor, and the differences."""
    rng = np.random.default_rng(seed)
    v, anchor, x, matrix, epsilon = situation(rng)
    first, last = adversary(rng, v, x, matrix)
    x_first, ones = rng.normal(size=(20, 4)), jnp.ones(20)
    near = Nearby(tuple(map(jnp.asarray, v)), jnp.asarray(x * share), jnp.asarray(matrix))
    args = [jnp.asarray(x_first), ones, jnp.asarray(x_first)]
    net, anchor = (tuple(map(jnp.asarray, w)) for w in ((first @ matrix, last), anchor))
    args += [net, anchor, None, jnp.asarray(epsilon)]
    found, _ = _anchored_problem.problem_of(*args, near=near)  # pyright: ignore
    most = found.reach.differences  # pyright: ignore
    plain, differences = _anchored_problem.problem_of(*args)  # pyright: ignore
    noise = _anchored_problem.noise_of(found, CELL, 3.4)
    pair = _anchored_problem.divergence_of(plain, CELL, noise), known(found, CELL, noise)
    # Without what does not depend on the networks.
    free = [CELL.kappa, CELL.kappa_nonlinear]
    free = [float(jnp.log(k) + 1 / k - 1) for k in free]
    width, dim = net[0].shape
    base = (dim * free[0] + width * dim * free[1]) / 2
    return (float(pair[0]) - base) / (float(pair[1]) - base), int(differences), int(most)


@pytest.fixture(scope="module")
def attacked():
    with jax.enable_x64(True):
        return [compared(seed) for seed in range(150)]


def test_no_network_within_reach_has_a_larger_divergence(attacked):
    ratios, differences, most = map(np.array, zip(*attacked, strict=True))
    print(f"largest KL over its bound: {ratios.max():.4f}; turned over: {differences.max()}")
    assert ratios.max() <= 1 + 1e-9
    assert np.all(differences <= most)
    # Some come close, and turn over as many units as may be.
    assert ratios.max() > 0.95
    assert np.any((differences == most) & (differences > 0))


def test_distances_too_small_by_a_fifth_are_caught():
    found = [compared(seed, share=0.8) for seed in range(150)]
    assert np.mean([ratio > 1 + 1e-6 for ratio, _, _ in found]) > 0.01
    assert any(differences > most for _, differences, most in found)


def test_the_stretch_between_the_coordinates_counts(monkeypatch):
    """A stretch of 0.8 times the spectral norm is refused, and without the check it is caught."""
    small = Nearby(*given()[:2], jnp.eye(4), jnp.asarray(0.8))
    with pytest.raises(ValueError, match=r"`near.stretch` must be at least"):
        call(near=small)
    whole = Nearby.at_least_its_stretch
    monkeypatch.setattr(Nearby, "at_least_its_stretch", lambda near: 0.8 * whole(near))
    assert max(compared(seed)[0] for seed in range(150)) > 1.02


# The bound as a whole.


def given(n=1500, seed=0):
    """V, its distances, and a sample."""
    rng = np.random.default_rng(seed)
    anchor = tuple(map(jnp.asarray, (rng.normal(size=(5, 4)), rng.normal(size=(1, 5)))))
    x = rng.normal(size=(2 * n, 4))
    y = np.where(numpy_network(anchor, 0.1, x) + 0.3 * rng.normal(size=2 * n) > 0, 1.0, -1.0)
    return anchor, jnp.asarray([0.02, 0.03]), x, y


def call(**changes):
    anchor, far, x, y = given()
    n = len(y) // 2
    weights = tuple(w + 0.002 for w in anchor)
    near = Nearby(anchor, far, jnp.eye(4))
    arguments = {"x": x[n:], "y": y[n:], "weights": weights, "anchor": anchor, "x_first": x[:n]}
    more = {"epsilon": 0.1, "key": KEY, "grid": GRID, "near": near}
    return bounds.anchored_bound(**(arguments | more | changes))


def test_the_divergence_is_the_formula():
    """Nothing of the library is used but the cell."""
    found = call()
    anchor, far, x, y = given()
    n, epsilon = len(y) // 2, 0.1
    units = [2.0 ** (math.floor(math.log2(np.abs(w + 0.002).max())) + 1) for w in anchor]
    own = [2.0 ** (math.floor(math.log2(np.abs(w).max())) + 1) for w in anchor]
    v = [np.asarray(w) / u for w, u in zip(anchor, units, strict=True)]
    a0 = [np.asarray(w) / u for w, u in zip(anchor, own, strict=True)]
    x1, x2 = np.asarray(far) / units
    size = numpy_network(a0, epsilon, x[:n]) / np.linalg.norm(x[:n], axis=1)
    unit = np.sqrt(np.mean(size**2))

    def parts(first, last):
        return (1 - epsilon / 2) * last[0] @ first, epsilon / 2 * np.abs(last[0])[:, None] * first

    (line, u), (line_0, u0) = parts(*v), (p / unit for p in parts(*a0))
    r = np.linalg.norm(u0, axis=1)
    r = np.maximum(r, 0.2 * r.mean())
    sigma = float(found.noise_nonlinear) * np.sqrt(r / r.sum())
    a = float(found.factor)
    norms = np.linalg.norm(v[0], 2), np.linalg.norm(v[1])
    gap = (norms[0] + x1) * (norms[1] + x2) - norms[0] * norms[1]
    straight = np.linalg.norm(a * line - line_0) + a * (1 - epsilon / 2) * gap
    gains, rows = np.abs(v[1][0]), np.linalg.norm(v[0], axis=1)
    e = np.max(gains / sigma) * x1 + np.max(rows / sigma) * x2 + x1 * x2 / sigma.min()
    bent = np.linalg.norm(np.linalg.norm(a * u - u0, axis=1) / sigma) + a * epsilon / 2 * e
    kappa, kappa_n = float(found.kappa), float(found.kappa_nonlinear)
    wide = straight**2 / (kappa * float(found.noise) ** 2) + bent**2 / kappa_n
    free = 4 * (np.log(kappa) + 1 / kappa - 1) + 20 * (np.log(kappa_n) + 1 / kappa_n - 1)
    assert_close(found.divergence, (free + wide) / 2, rtol=1e-7)
    turned = int(np.sum(np.cumsum(np.sort(gains**2)) <= x2**2))
    assert int(found.differences) == turned
    assert_close(found.value, found.anchor_bound + found.distance_bound)


def test_the_network_enters_by_its_errors_alone():
    """Another network within reach: the same price in the same cell."""
    one = GRID
    for name in ("kappas", "levels", "margins"):
        one = dataclasses.replace(one, **{name: getattr(one, name)[:1]})
    one = dataclasses.replace(one, linear=(0.1, 0.1, 2.0), nonlinear=(0.03, 0.03, 2.0))
    anchor = given()[0]
    found = [call(weights=tuple(w + c for w in anchor), grid=one) for c in (0.0, 0.002, -0.003)]
    for name in ("exponent", "differences", "anchor_bound"):
        assert len({float(getattr(b, name)) for b in found}) == 1
    assert len({float(b.disagreement) for b in found}) == 3


def test_metrics_and_scales_change_nothing_but_units():
    plain = call()
    anchor, far, *_ = given()
    smaller = Nearby((anchor[0] / 64, anchor[1] * 4), far * jnp.asarray([1 / 64, 4]), jnp.eye(4))
    weights = ((anchor[0] + 0.002) / 64, (anchor[1] + 0.002) * 4)
    assert_close(call(near=smaller, weights=weights).value, plain.value, rtol=1e-9)
    found = call(metrics=np.full((1, 4), 4.0))
    assert_close(found.divergence, plain.divergence, rtol=0.05)


@pytest.mark.parametrize("scale", [1e-200, 1e-155, 1e155, 1e200])
def test_the_matrix_and_the_first_layer_may_have_opposite_scales(scale):
    anchor, far, *_ = given()
    near = Nearby(
        (anchor[0] / scale, anchor[1]), far * jnp.asarray([1 / scale, 1.0]), scale * jnp.eye(4)
    )
    found = call(near=near)
    assert_close(found.divergence, call().divergence, rtol=1e-7)
    # All of the nonlinear noise's price is at stake where the second layer moves.
    far = jnp.asarray([0.0, 1.0])
    apart = call(near=Nearby(anchor, far, jnp.eye(4))).divergence
    near = Nearby((anchor[0] / scale, anchor[1]), far, scale * jnp.eye(4))
    assert_close(call(near=near).divergence, apart, rtol=1e-7)


def test_a_network_that_is_farther_costs_what_it_is():
    """Whatever the caller said, and however the flow was solved."""
    anchor = given()[0]
    far = tuple(w + 0.3 for w in anchor)
    rash = call(weights=far, near=Nearby(anchor, jnp.asarray([1e-9, 1e-9]), jnp.eye(4)))
    plain = call(weights=far, near=None)
    assert float(rash.value) > float(plain.value) * (1 - 1e-2)
    assert int(rash.differences) >= int(plain.differences)
    turned = (anchor[0], -anchor[1])
    rash = call(weights=turned, near=Nearby(anchor, jnp.asarray([1e-9, 1e-9]), jnp.eye(4)))
    assert int(rash.differences) == 5


def test_where_nothing_is_known_there_is_no_bound():
    for far in ([np.inf, 0.1], [0.1, np.inf], [np.inf, np.inf]):
        for epsilon in (0.0, 0.1):
            near = Nearby(given()[0], jnp.asarray(far), jnp.eye(4))
            assert float(call(near=near, epsilon=epsilon).value) == np.inf


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda n: 3, "near"),
        (lambda n: eqx.tree_at(lambda m: m.matrix, n, jnp.eye(3)), "near.matrix"),
        (lambda n: eqx.tree_at(lambda m: m.weights, n, n.weights[::-1]), "near.weights"),
        (lambda n: eqx.tree_at(lambda m: m.distances, n, jnp.ones(3)), "near.distances"),
        (lambda n: eqx.tree_at(lambda m: m.distances, n, -jnp.ones(2)), "near.distances"),
    ],
)
def test_what_is_wrong_is_named(no_type_checks, change, named):
    with pytest.raises(ValueError, match=f"`{named}` must"):
        call(near=change(Nearby(given()[0], given()[1], jnp.eye(4))))


def failures(trials=12, n=200, d=220, delta=0.2):
    """How often the bound is below the error on a finite population: W is as far from V as it may
    be, and the same as V on S2."""
    rng, failed = np.random.default_rng(8), 0
    population, line = rng.normal(size=(1000, d)), rng.normal(size=d) / math.sqrt(d)
    label = np.sign(population @ line)
    v = np.stack([line, -line]), np.array([[1.0, -1.0]])
    near = Nearby(tuple(map(jnp.asarray, v)), jnp.asarray([6.0, 0.0]), jnp.eye(d))
    grid = AnchoredGrid((0.1, 0.1, 2.0), (0.01, 0.01, 2.0), (1.0,), (1.0,), (1.0,), (0.0,), (0.0,))
    for trial in range(trials):
        drawn = rng.choice(1000, size=n)
        unseen = np.linalg.svd(population[drawn])[2][-1] * 6.0 / math.sqrt(2)
        net = v[0] + np.stack([unseen, -unseen]), v[1]
        found = bounds.anchored_bound(
            population[drawn],
            label[drawn],
            tuple(map(jnp.asarray, net)),
            tuple(map(jnp.asarray, v)),
            x_first=population,
            epsilon=0.3,
            key=jax.random.key(trial),
            delta=delta,
            grid=grid,
            near=near,
        )
        assert float(found.anchor_risk) == 0
        failed += float(found.value) < np.mean(label * numpy_network(net, 0.3, population) <= 0)
    return failed / trials


def test_a_finite_population_is_not_overestimated(monkeypatch):
    """And it would be, if the distance were not paid for."""
    assert failures() == 0
    most = _anchored_search.divergence_of
    monkeypatch.setattr(_anchored_search, "divergence_of", lambda *a: 1e-6 * most(*a))
    jax.clear_caches()
    try:
        assert failures() > 0.5
    finally:
        jax.clear_caches()


# Along a run.

TASK = tasks.from_arrays(**small_data(m=400, test=100))
SMALL = Settings(width=4, beta=0.05, epsilon=0.01, num_times=3, dtype="float64", rtol=1e-8)


@pytest.fixture(scope="module")
def run():
    with jax.enable_x64(True):
        anchor = train_anchor(TASK, declared_split(TASK, SMALL), SMALL)
        return train(TASK, SMALL, anchor=anchor)


def test_a_run_stays_within_what_was_known_before(run):
    """The divergence measured along a run is below what the row says, in the row's cell."""
    with jax.enable_x64(True):
        bound = ladder.AnchoredAPriori()
        terms = ladder.evaluate_run([bound], run, 0.01)[bound.name]
        split, anchor = run.anchor.split, run.anchor
        matrix = split.from_task(np.eye(TASK.rank), TASK)
        for i in range(SMALL.num_times):
            weights = [np.asarray(w[i]) for w in run.trajectory.weights]
            near = [np.asarray(w[i]) for w in run.reference.weights]
            far = [np.linalg.norm(w - v) for w, v in zip(weights, near, strict=True)]
            assert np.all(np.array(far) <= np.asarray(run.reference.envelope[i]) + 1e-7)
            net = (jnp.asarray(weights[0] @ matrix), jnp.asarray(weights[1]))
            before = Nearby(
                tuple(w[i] for w in run.reference.weights), run.reference.envelope[i], matrix
            )
            found = bounds.anchored_bound(
                split.x,
                split.y,
                net,
                tuple(w[i] for w in anchor.reference),
                x_first=split.x_first,
                epsilon=SMALL.epsilon,
                key=bound_key(SMALL),
                anchors=SMALL.num_times,
                draws=2,
                grid=A_PRIORI,
                near=before,
                finalists=1,
            )
            assert_close(np.asarray(terms.value)[i, 0], found.value, rtol=1e-6)
            divergences = np.asarray(terms.parts["divergence"])
            assert_close(divergences[i, 0], found.divergence, rtol=1e-6)
            args = [jnp.asarray(a) for a in (split.x, split.y, split.x_first)]
            args += [net, tuple(w[i] for w in anchor.reference), None, jnp.asarray(SMALL.epsilon)]
            plain, differences = _anchored_problem.problem_of(*args)  # pyright: ignore
            cell = _anchored_problem.Cell(
                found.noise,
                found.noise_nonlinear,
                found.kappa,
                found.kappa_nonlinear,
                found.level,
                found.form,
                found.bump,
                found.shape,
                found.margin,
            )
            noise = _anchored_problem.noise_of(plain, cell, 3.4)
            noise = eqx.tree_at(lambda n: n.factor, noise, found.factor)
            measured = _anchored_problem.divergence_of(plain, cell, noise)
            with_reach, _ = _anchored_problem.problem_of(*args, near=before)  # pyright: ignore
            assert_close(known(with_reach, cell, noise), found.divergence, rtol=1e-9)
            assert float(measured) <= float(found.divergence) * (1 + 1e-9)
            assert int(differences) <= int(with_reach.reach.differences)  # pyright: ignore


def test_the_anchors_know_nothing_of_the_second_part(run):
    """Neither its labels nor how long the whole sample trains."""
    second = run.anchor.split.second
    y = TASK.y.copy()
    y[second] = -y[second]
    target = y @ TASK.x / len(y)
    other = dataclasses.replace(TASK, y=y, target=target, alignment=float(np.linalg.norm(target)))
    again = train_anchor(other, declared_split(other, SMALL), SMALL)
    assert again.reference is not None
    for w, v in zip(run.anchor.reference, again.reference, strict=True):
        np.testing.assert_array_equal(w, v)


def test_the_row_says_what_it_assumes(run):
    bound = ladder.AnchoredAPriori()
    assert bound.a_priori
    assert bound.over_time
    assert bound.assumes(TASK) == ladder.SplitAPriori().assumes(TASK)[:1]


def test_a_run_may_end_early_but_not_have_more_times(run):
    """All declared times are paid for."""
    bound = ladder.AnchoredAPriori()
    whole = ladder.evaluate_run([bound], run, 0.01)[bound.name]
    cut = eqx.tree_at(
        lambda t: (t.ts, t.weights),
        run.trajectory,
        (run.trajectory.ts[:2], tuple(w[:2] for w in run.trajectory.weights)),
    )
    options = {"ratios": SMALL.ratios, "cells": SMALL.cells, "key": run.key}
    early = ladder.follow(TASK, run.start, cut, anchor=run.anchor, **options)
    found = ladder.evaluate_run([bound], early, 0.01)[bound.name]
    assert_close(found.parts["log_cells"], whole.parts["log_cells"][:2], rtol=1e-12)
    few = eqx.tree_at(lambda a: a.reference, run.anchor, tuple(w[:2] for w in run.anchor.reference))
    with pytest.raises(ValueError, match="`anchor` must have a reference network at 3 times"):
        ladder.follow(TASK, run.start, run.trajectory, anchor=few, **options)


def test_the_reach_has_no_gap_at_a_unit_that_is_zero():
    """V has a unit whose first layer is zero: the sign of its second counts."""
    near = Nearby((jnp.zeros((1, 2)), -jnp.ones((1, 1))), jnp.asarray([0.1, 0.1]), jnp.eye(2))
    anchor = _anchored_problem.parts_of((jnp.ones((1, 2)), jnp.ones((1, 1))), jnp.asarray(0.5))
    found = _anchored_nearby.reach_of(near, near.weights, anchor, jnp.asarray(0.5))
    assert int(found.differences) == 1
