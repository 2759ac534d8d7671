"""The anchored bound: its terms in the best cell from the formula, with draws of its own; what may
not matter; what must count as an error; the tail lemma."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import assert_close, kl_inverse, numpy_network

from nlbound_jax._results import RESULTS
from nlbound_jax.bounds import (
    AnchoredGrid,
    _anchored_noise,
    _anchored_problem,
    _anchored_search,
    anchor_shapes,
    anchored_bound,
)

pytestmark = pytest.mark.float64
KEY = jax.random.key(11)
SMALL = AnchoredGrid(
    linear=(0.05, 0.4, 2.0),
    nonlinear=(0.01, 0.1, 3.0),
    kappas=(1.0, 3.0),
    kappas_nonlinear=(1.0, 1.3),
    levels=(0.5, 1.2),
    bumps=(0.0, 0.5),
    margins=(0.0, 0.1),
)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@functools.cache
def problem(n=1500, d=4, width=5, seed=0, moved=0.03):
    """An anchor that is right on most of the samples, and a network near it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * n, d))
    anchor = rng.normal(size=(width, d)), rng.normal(size=(1, width))
    out = numpy_network(anchor, 0.5, x)
    y = np.where(out + 0.3 * rng.normal(size=2 * n) > 0, 1.0, -1.0)
    weights = tuple(w + moved * rng.normal(size=w.shape) for w in anchor)
    weights, anchor = (tuple(map(jnp.asarray, w)) for w in (weights, anchor))
    return {"x": x[n:], "y": y[n:], "weights": weights, "anchor": anchor, "x_first": x[:n]}


def call(**changes):
    return anchored_bound(**{**problem(), "epsilon": 0.5, "key": KEY, "grid": SMALL} | changes)


def parts(weights, epsilon):
    first, last = (np.asarray(w) for w in weights)
    last = last[0]
    straight = (1 - epsilon / 2) * last @ first
    return straight, epsilon / 2 * np.abs(last)[:, None] * first, np.sign(last)


def expected(found, given, epsilon, grid, delta=0.01, anchors=1, shapes=None, draws=30):
    """Every term in the cell that was found; nothing of the library is used but the cell."""
    x, y, n = np.asarray(given["x"]), np.asarray(given["y"]), len(given["y"])
    # The library measures in units of the anchor over powers of two.
    anchor = [np.asarray(w) for w in given["anchor"]]
    net = [np.asarray(w) for w in given["weights"]]
    anchor, net = (
        [w / 2.0 ** (math.floor(math.log2(np.abs(w).max())) + 1) for w in ws]
        for ws in (anchor, net)
    )
    straight, units, signs = parts(net, epsilon)
    straight_0, units_0, signs_0 = parts(anchor, epsilon)
    q = np.linalg.norm(x, axis=1)
    first = np.asarray(given["x_first"])
    on_first = numpy_network(anchor, epsilon, first) / np.linalg.norm(first, axis=1)
    unit = np.sqrt(np.mean(on_first**2))
    sizes = np.linalg.norm(units_0, axis=1)
    sizes = np.maximum(sizes, 0.2 * sizes.mean()) if epsilon else np.ones(len(sizes))
    sizes = sizes if shapes is None else shapes[int(found.shape)]
    straight_0, units_0 = straight_0 / unit, units_0 / unit * (signs == signs_0)[:, None]
    noise, a = float(found.noise), float(found.factor)
    sigma = float(found.noise_nonlinear) * np.sqrt(sizes / sizes.sum())
    kappas = float(found.kappa), float(found.kappa_nonlinear)
    costs = [np.log(k) + 1 / k - 1 for k in kappas]
    d, width = len(straight), len(signs)
    wide = np.sum((a * straight - straight_0) ** 2) / (kappas[0] * noise**2)
    divergence = 0.5 * (d * costs[0] + wide)
    if epsilon > 0:
        wide = np.sum(np.sum((a * units - units_0) ** 2, axis=1) / (kappas[1] * sigma**2))
        divergence += 0.5 * (d * width * costs[1] + wide)
    differ = int(np.sum(signs != signs_0))
    pattern = np.log((differ + 1) * (differ + 2) * math.comb(width, differ))
    lists = (grid.kappas, grid.kappas_nonlinear, grid.levels, grid.bumps, grid.margins)
    count = math.prod(len(v) for v in lists) * 2 * (1 if shapes is None else len(shapes)) * anchors
    count *= len(grid.values("linear")) * len(grid.values("nonlinear"))
    log_cells = pattern + np.log(count)
    exponent = (divergence + np.log(2 * np.sqrt(n)) + log_cells - np.log(0.08 * delta)) / n
    # The threshold.
    s, bump, tail = float(found.level), float(found.bump), grid.tail
    phi = scipy.stats.norm
    height = np.sqrt(2 / np.pi * (1 + bump**2))
    steep = 1 + height * bump * np.exp(-0.5)
    limits = []
    for sign in (-1, 1):
        mine, others = (np.sum(sigma[signs == t] ** 2) for t in (sign, -sign))
        curved = np.sqrt(steep**2 * mine + others)
        if int(found.form) == 0:
            limits.append((s * phi.cdf(s) + phi.pdf(s)) * np.hypot(noise, curved))
        else:
            limits.append(s * noise + (tail * phi.cdf(tail) + phi.pdf(tail)) * curved)
    p = phi.cdf(s) * (1 if int(found.form) == 0 else phi.cdf(tail))
    # The mean, by noise on all coordinates.
    rng = np.random.default_rng(5)
    margin = y * numpy_network(anchor, epsilon, x) / q / unit
    inside, means = margin > float(found.margin), []
    for _ in range(draws):
        moved = a * straight + noise * rng.normal(size=(n, d))
        output = np.sum(moved * x, axis=1)
        moved = a * units + sigma[:, None] * rng.normal(size=(n, width, d))
        bends = np.einsum("nwd,nd->nw", moved, x)
        output += np.abs(bends) @ signs
        ratio = bends / np.where(sigma > 0, sigma, 1) / q[:, None]
        correction = height * np.exp(-0.5 * (bump * ratio) ** 2) * sigma
        correction = np.sum(correction * (signs[None] == y[:, None]), axis=1)
        limit = np.where(y > 0, limits[1], limits[0]) + correction
        means.append(np.mean(inside & (y * output <= limit * q)))
    risk = np.mean(~inside)
    limit = scipy.special.betaincinv(risk * n + 1, n - risk * n, 1 - 0.9 * delta / anchors / 2)
    terms = {"anchor_risk": risk, "anchor_bound": limit, "divergence": divergence}
    terms |= {"exponent": exponent, "threshold": limits, "probability": p, "log_cells": log_cells}
    return terms, np.mean(means), np.std(means) / np.sqrt(draws)


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("anchors", [1, 13])
def test_every_term_is_the_formula(epsilon, anchors):
    shapes = None if anchors == 1 else np.array([[1.0, 2.0, 1.0, 0.5, 3.0], [1.0] * 5])
    found = call(epsilon=epsilon, anchors=anchors, shapes=shapes)
    terms, mean, error = expected(found, problem(), epsilon, SMALL, anchors=anchors, shapes=shapes)
    for name, value in terms.items():
        assert_close(getattr(found, name), value, rtol=1e-8)
    assert abs(float(found.disagreement) - mean) < 5 * error + 1e-3 * mean + 1e-6
    raised = min(float(found.disagreement + found.monte_carlo), 1.0)
    distance = kl_inverse(raised, terms["exponent"]) / terms["probability"]
    assert_close(found.distance_bound, distance, rtol=1e-7)
    assert_close(found.value, found.anchor_bound + found.distance_bound)
    assert (float(found.monte_carlo) == 0) == (epsilon == 0)


def test_it_bounds_the_error_of_a_network_that_moved_little():
    """And is below 1: the distance is paid for, not the size."""
    near, far = call(weights=problem()["anchor"]), call(weights=problem(moved=0.3)["weights"])
    assert float(near.value) < 0.7 * float(call(grid=dataclasses.replace(SMALL)).value) + 0.2
    assert float(near.value) < float(far.value)
    assert float(near.divergence) < float(far.divergence)


def test_nothing_but_the_sign_of_the_outputs_matters():
    """Layers times powers of two, as small as 1e-60: nothing changes; times any factor: all but
    the factor."""
    plain, given = call(), problem()
    for first, last in ((2.0**-100, 2.0**-100), (2.0**200, 1.0), (3.7, 0.2)):
        nets = {
            name: (given[name][0] * first, given[name][1] * last) for name in ("weights", "anchor")
        }
        for changed in (nets, {"weights": nets["weights"]}):
            found = call(**changed)
            assert_close(found.value, plain.value, rtol=1e-6)
            assert_close(found.divergence, plain.divergence, rtol=1e-6)


def test_outputs_of_zero_are_errors():
    zero = tuple(jnp.zeros_like(w) for w in problem()["anchor"])
    silent = call(anchor=zero)
    assert float(silent.anchor_risk) == float(silent.anchor_bound) == 1
    assert float(call(weights=zero).disagreement) > 0.4
    x = problem()["x"].copy()
    x[:300] = 0.0
    plain, blank = call(), call(x=x)
    assert float(blank.anchor_risk) >= 0.2
    assert float(blank.value) > float(plain.value)
    # Units that are all dead: outputs are exactly zero.
    dead = (jnp.abs(problem()["anchor"][0]), problem()["anchor"][1])
    x = -np.abs(problem()["x"])
    assert float(call(anchor=dead, x=x, epsilon=1.0).anchor_risk) == 1


def test_what_is_not_finite_is_no_bound():
    """Traced numbers cannot be refused."""
    given = problem()
    args = [jnp.asarray(given[n]) for n in ("x", "y", "x_first")]
    weights = (given["weights"][0].at[0, 0].set(jnp.nan), given["weights"][1])
    found = _anchored_search.anchored_search(
        *args,
        weights,
        given["anchor"],
        None,
        epsilon=jnp.asarray(0.5),
        delta=jnp.asarray(0.01),
        key=KEY,
        grid=SMALL,
    )
    assert float(found.value) == np.inf
    assert found.result == RESULTS.blow_up


def test_nothing_of_s2_enters_what_s1_determines():
    """Permuted labels and other inputs in S2, and another W: the anchor in its units, the shapes
    and with them the grid and the prior stay."""
    given, rng = problem(), np.random.default_rng(4)

    def fixed(x, y, weights):
        made, _ = _anchored_problem.problem_of(
            *(jnp.asarray(v) for v in (x, y, given["x_first"])),
            weights,
            given["anchor"],
            None,
            jnp.asarray(0.5),
        )
        return [np.asarray(a) for a in (made.anchor.linear, made.anchor.units, made.shapes)]

    plain = fixed(given["x"], given["y"], given["weights"])
    changed = [
        fixed(given["x"], rng.permutation(given["y"]), given["weights"]),
        fixed(7 * given["x"][::-1] + 1, given["y"], given["weights"]),
        fixed(given["x"], given["y"], problem(moved=0.01)["weights"]),
    ]
    for other in changed:
        assert all(np.array_equal(a, b) for a, b in zip(plain, other, strict=True))
    cells = [call(), call(y=rng.permutation(given["y"]))]
    assert_close(cells[0].log_cells, cells[1].log_cells)


def test_signs_that_differ_are_paid_for():
    given = problem()
    last = given["weights"][1].at[0, 2].multiply(-1e-3)
    found = call(weights=(given["weights"][0], last))
    assert int(found.differences) == 1
    extra = float(found.log_cells) - float(call().log_cells)
    assert_close(extra, np.log(6 * 5) - np.log(2), rtol=1e-9)
    # A unit that is zero has no sign.
    silent = call(weights=(given["weights"][0], given["weights"][1].at[0, 2].set(0.0)))
    assert int(silent.differences) == 0


def test_the_price_of_monte_carlo_is_enough():
    """Draws of few values at samples that differ, with a tenth of the confidence asked for: the
    true mean is below in nearly all trials; without the price in half of them."""
    rng = np.random.default_rng(8)
    n, pairs, delta = 60, 2, 0.1
    chances = rng.choice([0.0, 0.02, 0.5], size=n)
    draws = (rng.uniform(size=(2000, n, pairs, 2)) < chances[:, None, None]).astype(float)
    means = draws.mean((1, 2, 3))
    variances = ((draws[..., 0] - draws[..., 1]) ** 2 / 2).mean((1, 2))
    cost = _anchored_search.monte_carlo_cost(jnp.asarray(variances), 2.0 * pairs * n, delta)
    assert np.mean(means + np.asarray(cost) < chances.mean()) <= delta
    assert np.mean(means < chances.mean()) > 0.3


def test_the_draws_come_from_the_key():
    one, same, other = call(), call(), call(key=jax.random.key(12))
    assert float(one.value) == float(same.value)
    assert float(one.disagreement) != float(other.disagreement)
    many = call(draws=64)
    assert 0 < float(many.monte_carlo) < float(one.monte_carlo)
    assert abs(float(many.value) - float(one.value)) < 0.01


def test_metrics_are_paid_for_and_the_identity_among_them():
    plain = call()
    found = call(metrics=np.array([[1.0] * 4, [1.0, 2.0, 1.0, 0.5]]))
    assert_close(found.log_cells, plain.log_cells + np.log(2), rtol=1e-9)
    assert int(found.metric) in (0, 1)
    assert_close(call(metrics=np.full((1, 4), 4.0)).value, plain.value, rtol=0.05)


def test_shapes_follow_the_displacements():
    anchor = problem()["anchor"]
    others = [tuple(w + 0.1 * (i + 1) for w in anchor) for i in range(3)]
    found = np.asarray(anchor_shapes(anchor, others))
    units = [np.asarray(n[1]).T * np.asarray(n[0]) for n in (anchor, *others)]
    sizes = np.sqrt(np.mean([np.sum((u - units[0]) ** 2, axis=1) for u in units[1:]], axis=0))
    sizes = np.maximum(sizes, 0.2 * sizes.mean())
    assert_close(found[0] / found[0].sum(), sizes / sizes.sum(), rtol=1e-9)
    assert_close(found[1] / found[1].sum(), sizes**1.5 / np.sum(sizes**1.5), rtol=1e-9)
    assert np.array_equal(anchor_shapes(anchor, [anchor]), np.ones((2, 5)))


# The tail lemma.


def tail_case(rng):
    """An adversarial configuration: few units or many, equal or not, at the kink or far from it."""
    width = int(rng.choice([1, 2, 5, 64]))
    sigma = 10 ** rng.uniform(-2, 0, width) if rng.uniform() < 0.5 else np.ones(width)
    signs = rng.choice([-1.0, 1.0], size=width) if rng.uniform() < 0.5 else np.ones(width)
    kind = rng.integers(4)
    z = [0.0, 1.0, 30.0, None][kind]
    z = (
        np.abs(rng.normal(size=width)) * 10 ** rng.uniform(-1, 1)
        if z is None
        else np.full(width, z)
    )
    z = z * sigma
    linear = np.linalg.norm(sigma) * rng.choice([1e-3, 0.3, 1.0, 10.0])
    level = rng.uniform(-0.5, 2.5)
    return linear, sigma, signs, z, level, int(rng.integers(2)), rng.choice([0.0, 0.25, 0.5, 2.0])


def chance(rng, case, y, share=1.0, draws=4000):
    """P(xi <= c) with n_0 integrated exactly, its error, and p_c. `share` lowers c."""
    linear, sigma, signs, z, level, form, bump = case
    tail = jnp.asarray(3.4)
    args = [jnp.asarray(v, float) for v in (sigma, signs, bump)]
    by_sign = _anchored_noise.lipschitz(*args)
    limit = _anchored_noise.threshold(
        jnp.asarray(linear), by_sign, jnp.asarray(level), jnp.asarray(form), tail
    )[int(y > 0)]
    n = rng.normal(size=(draws, len(sigma)))
    # Not the library's way to write it.
    moved = (np.abs(z + sigma * n) - np.abs(z)) @ (y * signs)
    height = np.sqrt(2 / np.pi * (1 + bump**2))
    bumps = height * np.exp(-0.5 * (bump * (z / sigma + n)) ** 2) * sigma
    moved = moved - bumps @ (signs == y)
    found = scipy.stats.norm.cdf((share * float(limit) - moved) / linear)
    p = float(jnp.exp(_anchored_noise.log_probability(jnp.asarray(level), jnp.asarray(form), tail)))
    return found.mean(), found.std() / np.sqrt(draws), p


def tail_slack(cases, share=1.0):
    rng = np.random.default_rng(cases)
    every = [chance(rng, tail_case(rng), y, share) for _ in range(cases) for y in (-1.0, 1.0)]
    return np.array([(found - p) / (error + 1e-9) for found, error, p in every]), every


@pytest.mark.parametrize(
    "cases", [pytest.param(100, id="some"), pytest.param(1000, id="many", marks=pytest.mark.slow)]
)
def test_the_noise_stays_below_the_threshold(cases):
    slack, every = tail_slack(cases)
    print(f"least P(xi <= c) - p_c: {min(f - p for f, _, p in every):.4f}")
    assert slack.min() > -4.5  # standard errors


def test_a_threshold_lowered_by_30_percent_is_caught():
    slack, _ = tail_slack(100, share=0.7)
    assert np.mean(slack < -6) > 0.1


def test_the_excess_over_the_mean_is_attained():
    """H(s) is sharp: min(N, s) exceeds its mean by H(s) with probability 1 - Phi(s)."""
    for s in (-0.5, 0.0, 1.0, 2.0):
        mean = -scipy.stats.norm.pdf(s) + s * scipy.stats.norm.sf(s)
        assert_close(_anchored_noise.excess(jnp.asarray(s)), s - mean, rtol=1e-12)


def test_the_correction_is_enough_and_no_less_is():
    """E kappa(z + n) >= E|z + n| - |z|, in equality at z = 0."""
    z = np.linspace(0, 8, 400)
    bias = 2 * scipy.stats.norm.pdf(z) - 2 * z * scipy.stats.norm.sf(z)
    n, weight = np.polynomial.hermite_e.hermegauss(80)
    for bump in (0.0, 0.25, 0.5, 1.0):
        height = float(_anchored_noise.height(jnp.asarray(bump)))
        mean = height * np.exp(-0.5 * (bump * (z[:, None] + n)) ** 2) @ weight / np.sqrt(2 * np.pi)
        assert (mean - bias).min() > -1e-9
        assert abs(mean[0] - bias[0]) < 1e-9


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": (jnp.ones((3, 4)), jnp.ones((3, 3)), jnp.ones((1, 3)))}, "weights"),
        ({"anchor": (jnp.ones((3, 4)), jnp.ones((1, 3)))}, "anchor"),
        ({"y": np.zeros(1500)}, "y"),
        ({"y": np.ones(3)}, "y"),
        ({"x": np.ones((1500, 3))}, "x"),
        ({"x_first": np.ones((0, 4))}, "x_first"),
        ({"shapes": np.zeros((1, 5))}, "shapes"),
        ({"shapes": np.ones(5)}, "shapes"),
        ({"metrics": np.ones((1, 5))}, "metrics"),
        ({"draws": 3}, "draws"),
        ({"grid": 1}, "grid"),
        ({"key": 0}, "key"),
    ],
)
def test_what_is_wrong_is_named(no_type_checks, change, named):
    with pytest.raises(ValueError, match=f"`{named}` must"):
        call(**change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"linear": (0.1, 0.2)}, "linear"),
        ({"nonlinear": (0.0, 1.0, 2.0)}, "nonlinear"),
        ({"kappas": (0.0,)}, "kappas"),
        ({"kappas_nonlinear": ()}, "kappas_nonlinear"),
        ({"levels": [1.0]}, "levels"),
        ({"bumps": (-1.0,)}, "bumps"),
        ({"margins": (float("nan"),)}, "margins"),
        ({"tail": float("inf")}, "tail"),
        ({"shares": (0.9, 0.2, 0.1)}, "shares"),
        ({"shares": (0.9, 0.1)}, "shares"),
    ],
)
def test_a_grid_that_is_wrong_is_refused(no_type_checks, change, named):
    with pytest.raises(ValueError, match=f"`{named}` must"):
        AnchoredGrid(**change)


def test_the_patterns_of_signs_cost_at_most_their_share():
    from nlbound_jax.bounds._anchored_grid import log_pattern_cost

    for width in (1, 5, 64):
        j = np.arange(width + 1)
        shares = np.exp(-log_pattern_cost(width))
        counts = np.array([math.comb(width, int(i)) for i in j], float)
        assert np.sum(shares * counts) < 1
        assert_close(shares * counts, 1 / ((j + 1.0) * (j + 2.0)), rtol=1e-9)
