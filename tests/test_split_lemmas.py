"""The lemmas of the split bound, by enumeration: all samples, all signs, every member of a class.
Nothing here calls the library but for what is attacked."""

import itertools
import math

import numpy as np
import pytest
from helpers import assert_close

from nlbound_jax.bounds import (
    layer_factors,
    mean_absolute_noise,
    smoothed_ramp,
    symmetrization_factor,
)

# Found by a search over classes of a few members: among the worst of three points.
WORST = np.array([[0.0, 1.0, -1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def all_signs(n):
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))


def shrink(m):
    """eta = C(2m, m) / 4^m."""
    return math.comb(2 * m, m) / 4**m


# Lemma 1: symmetrization with 2m points.


def both_sides(values, chances, m):
    """E sup [E h - mean of h over m points] and E sup sum r_j h(z_j) over 2m points, exactly; one
    row of `values` for each h, one column for each point of the space."""
    points = range(values.shape[1])

    def mean(count, inside):
        total = 0.0
        for z in itertools.product(points, repeat=count):
            total += math.prod(chances[i] for i in z) * inside(values[:, list(z)])
        return total

    risks, signs = values @ chances, all_signs(2 * m)
    left = mean(m, lambda h: np.max(risks - h.mean(axis=1)))
    right = mean(2 * m, lambda h: np.max(signs @ h.T, axis=1).mean())
    return left, right


@pytest.mark.parametrize("m", [1, 2, 3])
def test_symmetrization_with_twice_the_points(m):
    rng = np.random.default_rng(m)
    largest = 0.0
    for trial in range(40 if m < 3 else 8):
        points = 3 if m == 1 else 2
        values = rng.uniform(size=(rng.integers(2, 6), points))
        if trial % 2:
            values = np.round(values)
        chances = rng.dirichlet(np.ones(points))
        left, right = both_sides(values, chances, m)
        assert left <= right / (m * (1 - shrink(m))) + 1e-12
        assert left <= symmetrization_of_m(values, chances, m) + 1e-12
        largest = max(largest, left * m / right if right > 1e-9 else 0.0)
    print(f"m = {m}: largest share {largest:.3f}; allowed {1 / (1 - shrink(m)):.3f}")
    assert largest > 0.7


def symmetrization_of_m(values, chances, m):
    """The classical right side, (2/m) E sup sum over m points."""
    total, signs = 0.0, all_signs(m)
    for z in itertools.product(range(values.shape[1]), repeat=m):
        h = values[:, list(z)]
        total += math.prod(chances[i] for i in z) * np.max(signs @ h.T, axis=1).mean()
    return 2 / m * total


@pytest.mark.parametrize("m", [1, 10, 1000])
def test_symmetrization_is_attained_up_to_eta(m):
    """All subsets of n equally likely points: E sup [E h - mean h] is the chance to be unseen, and
    E sup sum r h at most m, the mean number of positive signs. So no constant below 1 is true
    where 1/(1 - eta) stands."""
    left, right = (1 - 1e-9) ** m, m
    factor = math.sqrt(2) * float(symmetrization_factor(m))
    assert left <= factor * right / m
    if m == 1000:
        assert left > 0.98 * factor * right / m


def test_balanced_signs_become_independent_ones():
    """The coupling of the proof: flipping |T| of the balanced signs gives uniform ones, of which
    each keeps (1 - eta) of what it was, on average."""
    for m in (1, 2, 3):
        balanced = [s for s in all_signs(2 * m) if s.sum() == 0]
        law = dict.fromkeys(map(tuple, all_signs(2 * m)), 0.0)
        for s in balanced:
            kept = np.zeros(2 * m)
            for t in range(-m, m + 1):
                chance = math.comb(2 * m, m + t) / 4**m
                from_sign = np.flatnonzero(s == (-1 if t > 0 else 1))
                choices = list(itertools.combinations(from_sign, abs(t)))
                for flipped in choices:
                    r = s.copy()
                    r[list(flipped)] *= -1
                    law[tuple(r)] += chance / len(choices) / len(balanced)
                    kept += chance / len(choices) * r
            assert_close(kept, (1 - shrink(m)) * s, rtol=1e-12)
        assert_close(list(law.values()), np.full(4**m, 4.0**-m), rtol=1e-12)


def test_the_symmetrization_factor():
    """Above the exact constant, but never above that of classical symmetrization."""
    for m in (1, 2, 3, 4, 10, 1000):
        exact = 1 / (math.sqrt(2) * (1 - shrink(m)))
        found = float(symmetrization_factor(m))
        assert min(exact, 1.0) <= found <= 1
        assert (found == 1) == (m <= 3)
        assert found < exact * (1 + 0.2 / m**1.5)
    assert_close(float(symmetrization_factor(60000)), 0.70874, rtol=1e-5)


def test_the_nonlinear_part_is_nearly_attained():
    """Inputs sqrt(d) e_i, i uniform, y = 1, l' = 0, the ramp in its slope, and v = P sum e_i
    / sqrt(m) over the seen axes: if these are distinct, R - R hat is
    (epsilon P/2) sqrt(d/m) (1 - m/d). A third less than D would be false."""
    m, d, epsilon, total = 400, 10**9, 1.0, 1e-6
    distinct = 1 - m * m / (2 * d)  # at least; else v = 0 gives 0
    gap = distinct * epsilon / 2 * total * math.sqrt(d / m) * (1 - m / d)
    nonlinear = float(symmetrization_factor(m)) * epsilon * total * math.sqrt(d / m)
    assert 0.68 < gap / nonlinear < 1


# Lemma 2: contraction under a convex function.


def mean_of(g, signs, members):
    """E G(sup over the members of sum r_i t_i)."""
    return g(np.max(signs @ members.T, axis=1)).mean()


def contraction(rng, low=-1.0, at_zero=0.0):
    """A random 1-Lipschitz function, piecewise linear."""
    corners = np.sort(np.r_[rng.normal(size=4), 0.0])
    slopes = rng.uniform(low, 1, size=6)
    if rng.uniform() < 0.5:
        slopes = np.sign(slopes)

    def psi(z):
        def integral(u):
            edges = np.clip(u, -50, 50)
            ends = [-50.0, *corners, 50.0]
            return sum(
                s * (np.clip(edges, a, b) - a)
                for s, a, b in zip(slopes, ends[:-1], ends[1:], strict=True)
            )

        return integral(z) - integral(np.zeros(())) + at_zero

    return psi


CONVEX = {
    "first": lambda z: z,
    "positive": lambda z: np.maximum(z, 0),
    "square": lambda z: np.maximum(z, 0) ** 2,
    "exponential": np.exp,
}


@pytest.mark.parametrize("name", CONVEX)
def test_contraction_under_a_convex_function(name):
    g, rng = CONVEX[name], np.random.default_rng(len(name))
    closest = 0.0
    for _ in range(400):
        m = rng.integers(1, 6)
        members = rng.normal(size=(rng.integers(1, 7), m)) * 10 ** rng.uniform(-1, 0.5)
        signs = all_signs(m)
        psis = [contraction(rng, at_zero=rng.normal() * (name == "first")) for _ in range(m)]
        moved = np.stack([psi(members[:, i]) for i, psi in enumerate(psis)], axis=1)
        left, right = mean_of(g, signs, moved), mean_of(g, signs, members)
        assert left <= right + 1e-9 * (1 + abs(right))
        closest = max(closest, left / right if right > 1e-6 else 0.0)
    assert closest > 0.97  # so no smaller constant is true


def test_contraction_needs_its_conditions():
    """psi(0) = 0 under the square, and one side: of |sum| the constant 1 is false."""
    zero, square = np.zeros((1, 1)), CONVEX["square"]
    assert mean_of(square, all_signs(1), zero + 0.3) > mean_of(square, all_signs(1), zero) + 0.04
    both = np.vstack([WORST, -WORST])
    sides = [np.abs(all_signs(3) @ t.T).max(axis=1).mean() for t in (np.abs(both), both)]
    assert_close(sides, [2.0, 1.5])


# Lemma 3: one inner layer.


def with_a_layer(members, epsilon, signs):
    """E sup |sum r_i phi(a h_i)|^2 over |a| <= 1 and the members h, and the same without phi."""
    both = np.vstack([members, -members])
    bent = np.where(both < 0, (1 - epsilon) * both, both)
    return [np.max((signs @ t.T) ** 2, axis=1).mean() for t in (bent, both)]


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_one_inner_layer(epsilon):
    rng = np.random.default_rng(3)
    rho = float(layer_factors(epsilon, 3)[1])
    largest = 0.0
    for trial in range(600):
        m = rng.integers(1, 6)
        members = rng.normal(size=(rng.integers(1, 6), m))
        if trial % 3 == 0:
            members = np.round(members)
        if trial % 3 == 1:
            members = WORST + rng.normal(size=(3, 3)) * 0.1
        bent, plain = with_a_layer(members, epsilon, all_signs(members.shape[1]))
        assert bent <= rho**2 * plain + 1e-12
        largest = max(largest, bent / max(plain, 1e-9))
    print(f"epsilon {epsilon}: {largest:.4f} found, {rho**2:.4f} allowed")
    assert largest > 1  # a layer may add: the factor cannot be dropped


def test_a_layer_adds_a_twelfth():
    bent, plain = with_a_layer(WORST, 1.0, all_signs(3))
    assert_close([bent, plain], [13 / 4, 3.0])


# Lemma 6: the noise.


def noise_sides(margins, spread, chances, dim):
    """P(z <= 0), and what bounds it: A and c for a distribution of a few points, gamma = 1."""
    smoothed = chances @ np.asarray(smoothed_ramp(margins, spread, 1.0, dim))
    cost = float(mean_absolute_noise(dim)) / 2 * math.sqrt(chances @ spread**2)
    return chances @ (margins <= 0), smoothed, cost


@pytest.mark.float64
@pytest.mark.parametrize("dim", [1, 3, 50])
def test_the_noise_is_paid_for_on_the_wrong_side_only(dim):
    rng = np.random.default_rng(dim)
    slacks = []
    for _ in range(200):
        margins = rng.normal(size=4) * rng.integers(0, 2, size=4)
        spread = 10 ** rng.uniform(-2, 0.5, size=4)
        error, smoothed, cost = noise_sides(margins, spread, rng.dirichlet(np.ones(4)), dim)
        slacks.append(smoothed + cost * math.sqrt(error) - error)
    assert min(slacks) > -1e-12
    # Attained: a margin of 0 with noise, another far off without.
    for chance in (0.01, 0.2, 0.9):
        chances = np.array([chance, 1 - chance])
        spread, margins = np.array([0.7, 0.0]), np.array([0.0, 2.0])
        error, smoothed, cost = noise_sides(margins, spread, chances, dim)
        assert_close(smoothed + cost * math.sqrt(error), error, rtol=1e-10)
        assert smoothed + 0.95 * cost * math.sqrt(error) < 0.999 * error
        # The bound, solved for the error, is the error itself.
        assert_close(((cost + math.sqrt(cost**2 + 4 * smoothed)) / 2) ** 2, error, rtol=1e-10)
