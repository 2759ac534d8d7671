"""The bounds for several classes: the smoothed ramp, norms of dense and convolutional networks,
every term against NumPy, and the suprema of the proof found by ascent."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special
from helpers import assert_close

from nlbound_jax import bounds, networks

pytestmark = pytest.mark.float64


def ramp(z, gamma):
    return np.clip(1 - z / gamma, 0, 1)


def margins_of(outputs, labels):
    rest = np.array(outputs)
    own = rest[np.arange(len(rest)), labels].copy()
    rest[np.arange(len(rest)), labels] = -np.inf
    return own - rest.max(axis=1)


def chi(n):
    return float(mpmath.sqrt(2) * mpmath.gamma((n + 1) / 2) / mpmath.gamma(mpmath.mpf(n) / 2))


# The smoothed ramp.


@pytest.mark.parametrize(("spread", "gamma"), [(0.02, 0.3), (0.5, 0.3), (40.0, 0.3), (1e-5, 3.0)])
def test_eq_9_smoothed_ramp_two_classes_closed_form(spread, gamma):
    """One rival: the margin is Gaussian of deviation sqrt(2) b."""
    ahead = np.linspace(-1.2, 1.2, 9)
    outputs = np.stack([ahead + 0.7, np.full(9, 0.7)], axis=1)
    found = bounds.class_smoothed_ramp(outputs, np.zeros(9, int), spread, gamma)

    def hinge(z):
        deviation = mpmath.sqrt(2) * mpmath.mpf(spread)
        u = z / deviation
        return z * mpmath.ncdf(u) + deviation * mpmath.npdf(u)

    with mpmath.workdps(40):
        exact = [
            float(1 - (hinge(mpmath.mpf(z)) - hinge(mpmath.mpf(z) - gamma)) / gamma) for z in ahead
        ]
    assert_close(found, exact, rtol=0, atol=1e-11)


@pytest.mark.parametrize("spread", [0.05, 0.6, 5.0])
def test_eq_9_smoothed_ramp_against_a_double_integral(spread):
    """The chance that the margin exceeds t, integrated over t, as the definition has it."""
    gamma, outputs = 0.4, np.array([0.3, 0.1, 0.28, -0.2, 0.05])
    node, weight = np.polynomial.legendre.leggauss(120)
    t = gamma * (node + 1) / 2
    u = np.linspace(-11, 11, 4001)
    phi = np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    cdf = np.asarray(
        jax.scipy.special.ndtr((0.3 - outputs[1:] - t[:, None, None]) / spread + u[:, None])
    )
    chance = np.sum(phi * np.prod(cdf, axis=2), axis=1) * (u[1] - u[0])
    found = bounds.class_smoothed_ramp(outputs[None], np.array([0]), spread, gamma)
    assert_close(found, [1 - np.sum(weight * chance) / 2], rtol=0, atol=1e-10)


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_eq_9_smoothed_ramp_of_many_classes(classes, spread):
    """All rivals alike: the strongest has the distribution function Phi^(K-1)."""
    ahead, gamma = 0.4, 1.0
    outputs = np.zeros((1, classes))
    outputs[0, 0] = ahead
    s, step = np.linspace(-12, 12, 48001, retstep=True)  # of f_j - f_y over the noise
    density = np.exp(-(s**2) / 2) / np.sqrt(2 * np.pi)
    normal = scipy.special.ndtr(s)
    density = (classes - 1) * normal ** (classes - 2) * density

    def hinge(z):
        return z * scipy.special.ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    place, ratio = s - ahead / spread, gamma / spread
    expected = step / ratio * np.sum(density * (hinge(place + ratio) - hinge(place)))
    found = bounds.class_smoothed_ramp(outputs, np.zeros(1, int), spread, gamma)
    assert_close(found, np.array([expected]), rtol=0, atol=1e-11)


def test_smoothed_ramp_without_noise_and_far_away():
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(40, 4)), rng.integers(4, size=40)
    plain = ramp(margins_of(outputs, labels), 0.5)
    for spread in (0.0, 1e-13):
        found = bounds.class_smoothed_ramp(outputs, labels, spread, 0.5)
        assert_close(found, plain, rtol=0, atol=1e-10)
    far = bounds.class_smoothed_ramp(1e9 * outputs, labels, 1e-3, 0.5)
    assert_close(far, ramp(1e9 * margins_of(outputs, labels), 0.5), rtol=0, atol=1e-6)


# The norms.

CONVOLUTIONS = [(1, 0, 1), (1, 1, 2), (2, 0, 1), (2, 1, 2), (1, 2, 3)]


def convolution(stride, padding, pool, epsilon=0.3):
    rng = np.random.default_rng(stride + 10 * padding + 100 * pool)
    filters = rng.normal(size=(4, 2, 3, 3))
    height, width = ((n + 2 * padding - 3) // stride + 1 for n in (7, 8))
    features = 4 * (height // pool) * (width // pool)
    head = rng.normal(size=(3, features))
    net = networks.LeakyConv(
        (jnp.asarray(filters),),
        jnp.asarray(head),
        jnp.asarray(epsilon),
        (2, 7, 8),
        stride=stride,
        padding=padding,
        pool=pool,
    )
    positions = bounds.patch_positions((2, 7, 8), (3, 3), stride=stride, padding=padding)
    columns = bounds.pooled_columns(head, height, width, pool)
    return net, filters.reshape(4, -1), columns, positions, rng.normal(size=(6, 2, 7, 8))


@pytest.mark.parametrize(("stride", "padding", "pool"), CONVOLUTIONS)
def test_filters_columns_and_positions_are_the_network(stride, padding, pool):
    """sum a_cp phi(w_c . pi_p x) is f, and its linear part and the rest are the two parts."""
    net, filters, columns, positions, x = convolution(stride, padding, pool)
    patches = np.pad(x.reshape(6, -1), ((0, 0), (0, 1)))[:, positions]
    z = np.einsum("npq,cq->ncp", patches, filters)
    assert columns.shape == (4, z.shape[2], 3)
    expected = np.asarray(jax.vmap(net)(x))
    leaky = np.where(z < 0, 0.7 * z, z)
    assert_close(np.einsum("ncp,cpk->nk", leaky, columns), expected, rtol=1e-11, atol=1e-12)
    linear = bounds.class_linear_part(filters, columns, positions, epsilon=0.3, dim=112)
    rest = 0.15 * np.einsum("ncp,cpk->nk", np.abs(z), columns)
    centred = expected - expected.mean(axis=1, keepdims=True)
    rest = rest - rest.mean(axis=1, keepdims=True)
    assert_close(x.reshape(6, -1) @ np.asarray(linear).T + rest, centred, rtol=1e-10, atol=1e-11)


def test_paths_and_moments_against_loops():
    _, filters, columns, positions, _ = convolution(1, 1, 2)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 112)) * np.linspace(0.5, 2, 112)
    known = bounds.class_inputs(x, positions=positions, exponents=(0.0, 0.5))
    found = bounds.class_paths(filters, columns, known.metrics, known.weights)
    columns = np.asarray(columns)
    for f in range(4):
        root, weights = np.asarray(known.metrics[f]), np.asarray(known.weights[f])
        inverse = np.linalg.inv(root @ root)
        total, trace, spread = 0.0, 0.0, 0.0
        for c in range(4):
            side = 0.0
            for p in range(len(positions)):
                a = columns[c, p] - columns[c, p].mean()
                side += a @ a / weights[p]
            total += math.sqrt(filters[c] @ root @ root @ filters[c]) * math.sqrt(side)
        for p in range(len(positions)):
            patch = np.pad(x, ((0, 0), (0, 1)))[:, positions[p]]
            moment = patch.T @ patch / len(x)
            trace += weights[p] * np.trace(inverse @ moment)
            spread += weights[p] * np.max(np.linalg.eigvals(inverse @ moment).real)
        assert_close(found[f], total, rtol=1e-9)
        assert_close(known.traces[f], trace, rtol=1e-8)
        assert_close(known.spreads[f], (math.sqrt(spread) + math.sqrt(trace / 30)) ** 2, rtol=1e-8)


def test_moments_without_plug_in_bound_those_of_the_distribution():
    """A finite population: its second moment is known. Without the added terms they fail."""
    rng = np.random.default_rng(1)
    population = rng.normal(size=(4000, 5)) * np.array([3.0, 1, 1, 0.3, 0.1])
    population[::200] *= 3.0
    radius = float(np.linalg.norm(population, axis=1).max())
    reference, below = population[rng.integers(4000, size=300)], 0
    for _ in range(20):
        x = population[rng.integers(4000, size=400)]
        known = bounds.class_inputs(x, reference, norm_bound=radius, exponents=(0.0, 1.0))
        for t in range(4):
            true = np.mean(np.sum((population @ np.asarray(known.forward[t])) ** 2, axis=1))
            assert known.noise_roots[t] ** 2 >= true
        for f in range(4):
            inverse = np.linalg.inv(np.asarray(known.metrics[f]))
            seen, every = (
                np.linalg.eigvalsh((z @ inverse).T @ (z @ inverse) / len(z))[-1]
                for z in (x, population)
            )
            assert known.spreads[f] >= every
            below += seen < every
            assert known.traces[f] >= np.mean(np.sum((population @ inverse) ** 2, axis=1))
    assert below > 0


# Every term.

GRID = bounds.ClassGrid(
    noise=(1e-3, 1.0, 1.5), linear=(1e-3, 1e3, 1.2), path=(1e-3, 1e4, 1.1), priors=(0.0,)
)


def problem(m=500, d=4, classes=3, epsilon=0.2, seed=0):
    rng = np.random.default_rng(seed)
    x, first = rng.normal(size=(m, d)), rng.normal(size=(6, d))
    last = rng.normal(size=(classes, 6))
    z = x @ first.T
    outputs = np.where(z < 0, (1 - epsilon) * z, z) @ last.T
    labels = np.argmax(outputs + 0.3 * rng.normal(size=outputs.shape), axis=1)
    columns = last.T[:, None]
    places = np.arange(d)[None]
    linear = np.asarray(bounds.class_linear_part(first, columns, places, epsilon=epsilon, dim=d))
    path = bounds.class_paths(first, columns, np.eye(d)[None], np.ones((1, 1)))
    call = {"epsilon": epsilon, "linear": linear, "paths": path}
    call["roots"] = bounds.class_root(np.array([float(d)]), np.array([1.0]), classes, 1)
    return (outputs, labels, np.linalg.norm(x, axis=1)), call


def check_terms(found, arguments, call, grid, extra=0.0, anchored=False, unit=None):
    (outputs, labels, norms), (m, classes), d = (
        arguments,
        arguments[0].shape,
        call["linear"].shape[1],
    )
    g = float(found.gamma)
    root = math.sqrt(d) + chi(classes - 1)
    factor = min(1, 1 / (math.sqrt(2) * (1 - 1 / math.sqrt(math.pi * m))))
    nonlinear = (
        factor * math.sqrt(math.pi / m) * call["epsilon"] / g * (float(found.path) * root + extra)
    )
    assert_close(found.nonlinear, nonlinear, rtol=1e-10)
    assert found.path >= call["paths"][0]
    centred = np.asarray(call["linear"]) - np.mean(call["linear"], axis=0)
    assert found.linear >= np.linalg.norm(centred) * (1 - 1e-12)
    free = (classes - 1) * d
    kl = free / 2 * math.log1p(float(found.linear) ** 2 / (free * float(found.noise) ** 2))
    names = ["noise", "linear", "path", *(["move", "margin"] if anchored else [])]
    cells = sum(math.log(len(grid.values(name))) for name in names) + math.log(len(grid.priors))
    capacity = math.sqrt((kl + cells + math.log(100)) / (2 * m))
    assert_close(found.capacity, capacity, rtol=1e-10)
    smoothed = bounds.class_smoothed_ramp(outputs, labels, float(found.noise) * norms, g)
    assert_close(found.train_risk, np.mean(smoothed), rtol=1e-10)
    below = float(found.train_risk) + nonlinear + capacity
    c = float(found.noise) * math.sqrt(d / math.pi) / g
    assert_close(
        found.value, max(below + c * min((c + math.sqrt(c * c + 4 * below)) / 2, 1), 0), rtol=1e-10
    )
    assert_close(found.train_risk + found.penalty, found.value, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_eq_9_every_term_of_the_split_bound(classes):
    grid = GRID
    arguments, call = problem(classes=classes)
    found = bounds.class_split_bound(*arguments, **call, grid=grid)
    check_terms(found, arguments, call, grid)


def test_eq_9_every_term_of_the_anchored_bound():
    grid = GRID
    arguments, call = problem()
    moved = {"moves": np.array([0.013]), "anchor_paths": np.array([7.0]), "unit": 2.0}
    found = bounds.class_anchored_bound(*arguments, **call, **moved, grid=grid)
    assert 0.013 <= found.move <= 0.013 * 1.02
    check_terms(found, arguments, call, grid, extra=float(found.move) * 7.0, anchored=True)
    assert np.min(np.abs(np.log(found.gamma / (2.0 * grid.values("margin"))))) < 1e-12


def test_what_does_not_change_the_bound():
    """The scale of the network, a constant in all outputs and the order of classes."""
    arguments, call = problem()
    call["grid"] = GRID
    outputs, labels, norms = arguments
    base = bounds.class_split_bound(*arguments, **call)
    scale = 2.0**20
    big = call | {"linear": scale * call["linear"], "paths": scale * call["paths"]}
    shifted = call | {"linear": call["linear"] + np.arange(4.0)}
    order = np.array([2, 0, 1])
    permuted = call | {"linear": call["linear"][order]}
    places = np.argsort(order)[labels]
    for other in (
        bounds.class_split_bound(scale * outputs, labels, norms, **big),
        bounds.class_split_bound(outputs + norms[:, None], labels, norms, **shifted),
        bounds.class_split_bound(outputs[:, order], places, norms, **permuted),
    ):
        assert_close(other.value, base.value, rtol=1e-9)


def test_no_bound_where_a_norm_is_beyond_the_range():
    arguments, call = problem()
    call["grid"] = GRID
    for name in ("paths", "linear"):
        found = bounds.class_split_bound(*arguments, **call | {name: 1e30 * call[name]})
        assert np.isinf(found.value)
        assert not np.isnan(jax.tree.leaves(found.penalty)[0])
    zero = call | {"paths": np.zeros(1), "linear": np.zeros((3, 4)), "epsilon": 0.0}
    found = bounds.class_split_bound(np.zeros((500, 3)), *arguments[1:], **zero)
    assert found.value >= 1  # every output is a tie
    assert found.nonlinear == 0


# The suprema of the proof.


@pytest.mark.parametrize(("d", "classes", "n"), [(3, 3, 40), (8, 10, 200), (2, 10, 60)])
def test_eq_9_gaussian_supremum_by_ascent(d, classes, n):
    """E sup_alpha |sum Pi g_i |alpha . x_i|| is at most sqrt(n) (sqrt T + E chi sqrt Lambda) with
    the moments of these n points, and more than that without the second term at d = 2, K = 10."""
    rng = np.random.default_rng(d)
    found, bound, first = [], [], []
    for _ in range(40):
        x, g = rng.normal(size=(n, d)), rng.normal(size=(n, classes))
        g = g - g.mean(axis=1, keepdims=True)
        alpha = rng.normal(size=(30, d))
        for _ in range(60):  # a convex function on the sphere: follow the gradient
            alpha /= np.linalg.norm(alpha, axis=1, keepdims=True)
            z = alpha @ x.T
            total = np.abs(z) @ g
            alpha = ((total @ g.T) * np.sign(z)) @ x
        alpha /= np.linalg.norm(alpha, axis=1, keepdims=True)
        found.append(np.max(np.linalg.norm(np.abs(alpha @ x.T) @ g, axis=1)))
        moment = x.T @ x
        first.append(math.sqrt(np.trace(moment)))
        bound.append(first[-1] + chi(classes - 1) * math.sqrt(np.linalg.eigvalsh(moment)[-1]))
    ratio = np.mean(found) / np.mean(bound)
    print(f"d = {d}, K = {classes}: {ratio:.3f} of the bound")
    assert ratio < 1
    if d == 2:
        assert np.mean(found) > np.mean(first)


@pytest.mark.parametrize("seen", [1e-7, 0.0])
@pytest.mark.parametrize("known", [True, False])
def test_no_direction_is_free(seen, known):
    """A network that looks where the sample hardly has anything is paid for: with eigenvalues cut
    off at 1e-12 a network that interpolates random labels there had a certificate of 0.11."""
    x = np.random.default_rng(0).normal(size=(30, 3)) * np.array([1.0, seen, 0.5])
    reference = {"reference": x[:10], "norm_bound": 9.0} if known else {}
    found = bounds.class_inputs(x[10:], **reference)
    least = 1e-8 if seen else 0.0
    for back, metric in zip(found.back, found.metrics, strict=True):
        sizes = np.linalg.norm(np.eye(3) @ np.asarray(back), axis=1)
        assert (sizes > max(least, 1e-4 * sizes.max() if known else 1e-5 * sizes.max())).all()
        assert np.linalg.eigvalsh(metric)[0] > 1e-5 * np.linalg.eigvalsh(metric)[-1]


@pytest.mark.parametrize("size", [1e-155, 1e-61, 1e61, 1e160])
@pytest.mark.parametrize("name", ["inputs", "reference"])
def test_sizes_beyond_what_can_be_squared_get_one_line(no_type_checks, name, size):
    x = np.random.default_rng(0).normal(size=(30, 3))
    given = {"inputs": x, "reference": x} | {name: size * x}
    with pytest.raises(
        ValueError, match=rf"`{name}` must have a largest entry in \[1e-60, 1e\+60\]"
    ):
        bounds.class_inputs(**given, norm_bound=1e200)


def test_patches_that_see_nothing_get_one_line(no_type_checks):
    x = np.ones((5, 4)) * np.array([0.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="`positions` must see inputs that are not all zero"):
        bounds.class_inputs(x, positions=np.array([[0, 1]]))
