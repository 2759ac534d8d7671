"""The split bound against NumPy written from its theorem: every term, the cells and their number,
the search, the norms that enter it, and the door."""

import dataclasses
import functools
import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, numpy_network
from scipy import integrate, special

from nlbound_jax._results import RESULTS
from nlbound_jax.bounds import SplitGrid, _split_norms, split_bound, split_gammas
from nlbound_jax.bounds._split_norms import linear_metric, linear_part, norms_nearby, path_norms
from nlbound_jax.bounds._split_prior import linear_sizes

pytestmark = pytest.mark.float64

_GRID = SplitGrid(
    noise=(1e-2, 1.0, 1.4),
    linear=(1e-2, 1e2, 1.2),
    path=(1e-3, 1e2, 1.3),
    pieces=7,
    thetas=(0.0, 0.2, 0.6),
    exponents=(0.0, 0.4),
    priors=(0.0, 0.3, 1.0),
)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


# The theorem once more. A problem is a dictionary: what `split_bound` takes, with the weights and
# the spectrum in place of a metric, and the spectrum for the priors in place of `linear_norm`.


@functools.cache
def grid_values(grid, name):
    low, high, ratio = getattr(grid, name)
    values = [low]
    while values[-1] < high:
        values.append(low * ratio ** len(values))
    return values


def round_up(grid, name, value):
    return next((v for v in grid_values(grid, name) if v >= value), math.inf)


def all_metrics(grid):
    return [(theta, a) for theta in grid.thetas for a in grid.exponents]


def family_count(p):
    return len(all_metrics(p["grid"])) if "spectrum" in p else len(p["paths"])


def all_priors(p):
    return p["grid"].priors if "prior_spectrum" in p else (0.0,)


def cell_count(p):
    n_noise, n_linear, n_path = (
        len(grid_values(p["grid"], n)) for n in ("noise", "linear", "path")
    )
    per_layer = (n_path * p["grid"].pieces) ** (p["depth"] - 1)
    return n_noise * n_linear * per_layer * family_count(p) * len(all_priors(p))


@functools.cache
def mean_noise(dim):
    """E|u_1| by quadrature."""

    def density(s):
        return (1 - s * s) ** ((dim - 1) / 2)

    return integrate.quad(lambda s: s * density(s), 0, 1)[0] / integrate.quad(density, 0, 1)[0]


def metric_total(weights, epsilon, spectrum, theta, exponent, nu):
    """sum_k |w_k| m_k of Section 6.5, in a loop."""
    first, last = (np.asarray(w, float) for w in weights)
    straight = (1 - epsilon / 2) * sum(w * v for w, v in zip(last[0], first, strict=True))
    mu = np.asarray(spectrum, float) ** exponent
    mu = mu / sum(mu)

    def inner(a, b):
        return sum(a[i] * b[i] / mu[i] for i in range(len(mu)))

    size = math.sqrt(sum(straight**2))
    total = 0.0
    for w, v in zip(last[0], first, strict=True):
        b, along = 0.0, 0.0
        if theta > 0:
            b = inner(v, straight) / (1 - theta)
            b /= size**2 / theta + inner(straight, straight) / (1 - theta)
            along = b**2 * (size + nu) ** 2 / theta
        q = v - b * straight
        rest = math.sqrt(inner(q, q)) + abs(b) * nu / math.sqrt(min(mu))
        total += abs(w) * math.sqrt(along + rest**2 / (1 - theta))
    return total


def halving(m):
    """S_m: the complexity of 2m points, at most that of m of classical symmetrization."""
    return min(1.0, 1 / (math.sqrt(2) * (1 - 1 / math.sqrt(math.pi * m))))


def divergence_from(p, exponent, gamma, noise):
    """The divergence from one prior, in the smallest cell that holds the linear part; and its B
    over gamma. All over gamma."""
    dim, grid = p["dim"], p["grid"]
    if exponent == 0:
        linear = round_up(grid, "linear", p["linear_norm"] / gamma)
        return dim * math.log(1 + linear / noise), linear
    q = np.asarray(p["prior_spectrum"]) ** exponent
    q = dim * q / sum(q)
    l_squared = (plain_linear_part(p) / gamma) ** 2
    sigma_squared = noise**2 / (dim + 2)
    for linear in grid_values(grid, "linear"):
        tau_squared = sigma_squared + linear**2 * q / dim
        if sum(l_squared / tau_squared) <= sum(linear**2 * q / dim / tau_squared):
            # Cross entropy at the border of the cell, where the quadratic form has mean d.
            cross = sum(np.log(2 * math.pi * tau_squared)) / 2 + dim / 2
            volume = math.pi ** (dim / 2) / math.gamma(dim / 2 + 1) * noise**dim
            return cross - math.log(volume), linear
    return math.inf, math.inf


def plain_linear_part(p):
    straight = p["weights"][-1]
    for w in p["weights"][-2::-1]:
        straight = straight @ w
    return (1 - p["epsilon"] / 2) ** (p["depth"] - 1) * straight[0]


def without_noise(smoothed, cost):
    """The largest P <= 1 with P <= A + c sqrt(P), by bisection; A + c if that is above 1."""
    if not smoothed + cost < 1:
        return smoothed + cost
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if middle <= smoothed + cost * middle**0.5 else (low, middle)
    return low


def exact_value(risk, terms):
    """The bound, of the risk with noise and `exact_terms`."""
    names = ("nonlinear", "capacity", "deviation")
    return without_noise(risk + sum(terms[n] for n in names), terms["wrong_side"])


def exact_terms(p, gamma, noise, family):
    """Every term but the train risk in one cell, and c in place of the cost of the noise; `noise`
    is nu over gamma."""
    grid, epsilon, depth, dim, m = (p[n] for n in ("grid", "epsilon", "depth", "dim", "m"))
    root = math.sqrt(dim)
    if "spectrum" in p:
        theta, a = all_metrics(grid)[family]
        totals = [metric_total(p["weights"], epsilon, p["spectrum"], theta, a, noise * gamma)]
        root = 1.0
    else:
        totals = p["paths"][family]
    if p.get("roots") is not None:
        root = p["roots"][family]
    divergence, linear = min(divergence_from(p, e, gamma, noise) for e in all_priors(p))
    both = [round_up(grid, "path", t / gamma) * (1 + 1 / grid.pieces) for t in totals]
    g, rho = 1 - epsilon / 2, 1 + (math.sqrt(0.5) - 0.5) * epsilon
    d_term = sum(
        epsilon * root / math.sqrt(m) * g ** (depth - 1 - j) * rho ** (j - 1) * both[j - 1]
        for j in range(1, depth)
    )
    d_term *= halving(m)
    divergence += math.log(cell_count(p) / p["delta"])
    noise_root = math.sqrt(dim) if p.get("noise_root") is None else p["noise_root"]
    return {
        "nonlinear": d_term,
        "capacity": math.sqrt(divergence / (2 * m)),
        "wrong_side": noise * noise_root * mean_noise(dim) / 2,
        "deviation": p.get("deviation", 0.0) / gamma,
        "linear": linear * gamma,
        "paths": np.array(both) * gamma,
    }


def risk_by_quadrature(margins, norms, gamma, nu, dim):
    """The mean of the ramp over the noise, one margin at a time."""
    total = integrate.quad(lambda s: (1 - s * s) ** ((dim - 1) / 2), -1, 1)[0]
    values = []
    for z, b in zip(margins, nu * norms, strict=True):

        def integrand(s, z=z, b=b):
            return min(max(1 - (z + b * s) / gamma, 0), 1) * (1 - s * s) ** ((dim - 1) / 2)

        corners = [c for c in (-z / b, (gamma - z) / b) if -1 < c < 1]
        ends = [-1, *sorted(corners), 1]
        parts = [integrate.quad(integrand, *e, epsabs=1e-13)[0] for e in itertools.pairwise(ends)]
        values.append(sum(parts) / total)
    return np.mean(values)


def risk_by_lemma_6(margins, norms, gamma, nu, dim):
    """The same by the closed form with the incomplete beta function."""
    b = nu * norms
    beta = special.beta(0.5, (dim + 1) / 2)

    def positive_part(z):
        s = np.clip(-z / b, -1, 1)
        cdf = special.betainc((dim + 1) / 2, (dim + 1) / 2, (1 + s) / 2)
        return z * (1 - cdf) + b * (1 - s * s) ** ((dim + 1) / 2) / ((dim + 1) * beta)

    return np.mean(1 - (positive_part(margins) - positive_part(margins - gamma)) / gamma)


def random_weights(rng, depth, dim=3, width=4):
    sizes = [dim] + [width] * (depth - 1) + [1]
    return tuple(0.7 * rng.normal(size=(b, a)) for a, b in itertools.pairwise(sizes))


def problem(name, m=60):
    """Named problems with a network, its margins on noisy labels, and uneven families."""
    depth = {"metric": 2, "L=2": 2, "L=3": 3, "L=4": 4, "roots": 2, "priors": 3}[name]
    rng = np.random.default_rng(depth)
    dim, epsilon = 3, 0.3
    weights = random_weights(rng, depth, dim)
    x = rng.normal(size=(m, dim))
    f = numpy_network(weights, epsilon, x)
    y = np.where(f + 0.3 * rng.normal(size=m) > 0, 1, -1)
    p = {
        "margins": y * f,
        "input_norms": np.linalg.norm(x, axis=1),
        "epsilon": epsilon,
        "depth": depth,
        "dim": dim,
        "m": m,
        "delta": 0.03,
        "gammas": np.geomspace(0.05, 4, 9),
        "grid": _GRID,
        "weights": weights,
    }
    p["linear_norm"] = np.linalg.norm(plain_linear_part(p))
    if name == "priors":
        p |= {"prior_spectrum": np.array([4.0, 0.3, 0.01])}
    if name == "metric":
        fine = dataclasses.replace(_GRID, path=(1e-3, 1e2, 1.02))
        return p | {"spectrum": np.array([0.5, 1.0, 3.0]), "grid": fine}
    p["paths"] = rng.uniform(0.05, 0.4, size=(3 if depth == 3 else 1, depth - 1))
    if name == "roots":
        p["paths"] = np.array([[0.3], [0.2], [0.5]])
        p |= {"roots": np.array([0.7, 1.3, 0.3]), "noise_root": 1.1, "deviation": 0.04}
    return p


PROBLEMS = ["L=2", "L=3", "L=4", "metric", "roots", "priors"]


def paths_of(p):
    """`paths` as the library takes it."""
    if "spectrum" not in p:
        return jnp.asarray(p["paths"])
    weights = tuple(jnp.asarray(w) for w in p["weights"])
    return linear_metric(weights, p["epsilon"], p["spectrum"], p["grid"])


def linear_of(p):
    """`linear_norm` as the library takes it."""
    if "prior_spectrum" not in p:
        return p["linear_norm"]
    weights = tuple(jnp.asarray(w) for w in p["weights"])
    return linear_sizes(weights, p["epsilon"], p["prior_spectrum"], p["grid"])


def call(p, **changes):
    p = p | changes
    unknown = ("m", "weights", "spectrum", "prior_spectrum")
    given = {n: v for n, v in p.items() if n not in unknown}
    return split_bound(**given | {"paths": paths_of(p), "linear_norm": linear_of(p)})


def simple(linear_norm=1.0, paths=(0.3,), grid=None, m=100, gammas=(1.0,), **changes):
    """One cell: a single margin and a single radius unless the caller says otherwise."""
    grid = grid or SplitGrid(noise=(0.25, 0.25, 2.0), linear=(0.5, 8.0, 2.0), path=(0.5, 8.0, 2.0))
    arguments = {
        "margins": np.linspace(-1, 3, m),
        "input_norms": np.linspace(0.5, 2, m),
        "epsilon": 0.5,
        "depth": 2,
        "dim": 4,
        "linear_norm": linear_norm,
        "paths": np.asarray(paths),
        "gammas": None if gammas is None else np.asarray(gammas),
        "grid": grid,
    }
    return split_bound(**arguments | changes)


@pytest.mark.parametrize("gamma", [0.4, 1.7])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.quick
def test_every_term_is_the_theorems(name, gamma):
    p = problem(name) | {"gammas": np.array([gamma])}
    found = call(p)
    assert_close(found.gamma, gamma)
    noise = float(found.noise) / gamma
    expected = exact_terms(p, gamma, noise, int(found.family))
    for term, value in expected.items():
        if term != "wrong_side":
            assert_close(getattr(found, term), value, rtol=1e-11)
    nu = float(found.noise)
    risk = risk_by_quadrature(p["margins"], p["input_norms"], gamma, nu, p["dim"])
    assert_close(found.train_risk, risk, atol=1e-10)
    value = exact_value(risk, expected)
    assert_close(found.value, value, rtol=1e-9)
    assert_close(found.penalty, value - risk, rtol=1e-9)
    root = min(1, math.sqrt(value))
    assert_close(found.smoothing, expected["wrong_side"] * root, rtol=1e-9)
    assert_close(found.log_cells, math.log(cell_count(p)), rtol=1e-12)
    assert found.result == RESULTS.successful
    assert min(abs(noise - v) for v in grid_values(p["grid"], "noise")) < 1e-12


def test_the_train_risk_is_a_mean_over_noise_in_the_ball():
    """Monte Carlo, with the noise in the weights rather than in the margin."""
    p = problem("L=2") | {"gammas": np.array([0.8])}
    found = call(p, grid=SplitGrid(noise=(0.7, 0.7, 2.0)))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(p["m"], p["dim"]))
    x *= (p["input_norms"] / np.linalg.norm(x, axis=1))[:, None]
    u = rng.normal(size=(40_000, p["dim"]))
    u *= (rng.uniform(size=40_000) ** (1 / p["dim"]) / np.linalg.norm(u, axis=1))[:, None]
    z = p["margins"] + 0.7 * 0.8 * u @ x.T
    risks = np.mean(np.clip(1 - z / 0.8, 0, 1), axis=1)
    error = np.std(risks) / math.sqrt(len(risks))
    print("Monte Carlo", np.mean(risks), "+-", error, "library", found.train_risk)
    assert error < 2e-4
    assert abs(float(found.train_risk) - np.mean(risks)) < 4 * error
    without = np.mean(np.clip(1 - p["margins"] / 0.8, 0, 1))
    assert abs(without - np.mean(risks)) > 20 * error


@pytest.mark.parametrize("m", [60, 2000])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_cell_is_nearly_the_best(name, m):
    """Every margin, radius and family by brute force."""
    p = problem(name, m)
    best, worst = math.inf, 0.0
    for gamma, noise in itertools.product(p["gammas"], grid_values(p["grid"], "noise")):
        risk = risk_by_lemma_6(p["margins"], p["input_norms"], gamma, noise * gamma, p["dim"])
        for family in range(family_count(p)):
            terms = exact_terms(p, gamma, noise, family)
            value = exact_value(risk, terms)
            best, worst = min(best, value), max(worst, value)
    gap = float(call(p).value) - best
    print(f"{name}, m = {m}: best {best:.5f}, worst {worst:.3f}, gap {gap:.2e}")
    assert -1e-11 < gap < 0.005
    assert worst > 1.5 * best


@pytest.mark.parametrize("name", ["linear_norm", "paths"])
def test_norms_are_rounded_up(name):
    def cost(value):
        found = simple(**{name: value if name == "linear_norm" else (value,)})
        field = {"linear_norm": "linear", "paths": "paths"}[name]
        factor = 1.0 if name == "linear_norm" else 51 / 50
        return float(np.squeeze(getattr(found, field))) / factor, found

    for value in (0.5, 1.0, 2.0, 4.0):
        assert_close(cost(value)[0], value, rtol=1e-15)
        assert_close(cost(np.nextafter(value, 9))[0], 2 * value, rtol=1e-15)
        assert_close(cost(np.nextafter(value, 0))[0], value, rtol=1e-15)
    assert_close(cost(8.0)[0], 8.0, rtol=1e-15)
    assert_close(cost(0.0)[0], 0.5, rtol=1e-15)
    for value in (np.nextafter(8, 9), math.inf):
        price, found = cost(value)
        assert price == math.inf
        assert found.value == math.inf
        assert found.result == RESULTS.blow_up


def test_norms_are_rounded_in_units_of_the_margin():
    for gamma in (0.25, 4.0):
        found = simple(linear_norm=2.0 * gamma, paths=(1.5 * gamma,), gammas=(gamma,))
        assert_close(found.linear, 2.0 * gamma)
        assert_close(found.paths, [2.0 * 51 / 50 * gamma])
        assert_close(found.noise, 0.25 * gamma)


def test_a_range_reaches_its_declared_end():
    rng = np.random.default_rng(0)
    for _ in range(300):
        low, ratio = 10 ** rng.uniform(-3, 0), 1 + 10 ** rng.uniform(-2, 0)
        high = low * 10 ** rng.uniform(0, 2)
        values = SplitGrid(path=(low, high, ratio)).values("path")
        assert_close(values[0], low)
        assert_close(values[1:] / values[:-1], np.full(len(values) - 1, ratio), rtol=1e-12)
        assert values[-1] >= high
        assert len(values) == 1 or values[-2] < high


def test_a_range_reaches_its_end_where_that_is_a_multiple():
    for k, ratio in itertools.product(range(1, 25), (1.1, 1.15, 1.02, 1.3)):
        high = 1e-3
        for _ in range(k):
            high *= ratio
        grid = SplitGrid(path=(1e-3, high, ratio))
        assert jnp.isfinite(grid.round_up("path", jnp.asarray(high))), (k, ratio)


def brute_cells(grid, depth, families):
    """All cells of a grid, listed."""
    n = grid.pieces
    splits = [
        ((i + 1) * total / n, (n - i) * total / n)
        for total in grid_values(grid, "path")
        for i in range(n)
    ]
    layers = itertools.product(splits, repeat=depth - 1)
    rest = (grid_values(grid, "noise"), grid_values(grid, "linear"), layers, range(families))
    return set(itertools.product(*rest))


@pytest.mark.parametrize(("depth", "families"), [(2, 1), (2, 3), (3, 2), (4, 1)])
def test_the_number_of_cells(depth, families):
    grid = SplitGrid(noise=(1.0, 3.0, 2.0), linear=(1.0, 1.9, 1.5), path=(1.0, 1.9, 1.5), pieces=3)
    cells = brute_cells(grid, depth, families)
    assert len(cells) == 3 * 3 * (3 * 3) ** (depth - 1) * families
    assert_close(np.exp(grid.log_cells(depth, families)), len(cells), rtol=1e-12)
    found = simple(depth=depth, paths=np.full((families, depth - 1), 1.1), grid=grid)
    assert_close(found.log_cells, math.log(len(cells)))


def test_the_cells_of_the_metric_are_counted():
    p = problem("metric")
    found = call(p)
    plain = call(problem("L=2"), grid=p["grid"])
    assert len(all_metrics(p["grid"])) == 6
    assert_close(found.log_cells - plain.log_cells, math.log(6))


def test_the_cells_of_the_priors_are_counted():
    p = problem("priors")
    found, plain = call(p), call({n: v for n, v in p.items() if n != "prior_spectrum"})
    assert len(p["grid"].priors) == 3
    assert_close(found.log_cells - plain.log_cells, math.log(3))
    assert plain.prior == 0


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
def test_a_linear_part_along_a_prior_has_that_prior(exponent):
    """With l_i^2 in proportion to lambda^e, where the union is cheap."""
    p = problem("priors", m=5000)
    spectrum = np.array([1.0, 1e-3, 1e-6])
    straight = spectrum ** (exponent / 2)
    first = np.vstack([straight, np.zeros((3, 3))])
    p |= {"weights": (first, np.eye(4), np.ones((1, 4))), "prior_spectrum": spectrum}
    found = call(p)
    assert p["grid"].priors[int(found.prior)] == exponent


def test_priors_of_another_grid_or_dimension_are_refused():
    p = problem("priors")
    with pytest.raises(ValueError, match="`linear_norm` must be of the same `grid`, got exponents"):
        split_bound(
            p["margins"],
            p["input_norms"],
            epsilon=0.3,
            depth=3,
            dim=3,
            linear_norm=linear_of(p),
            paths=p["paths"],
            grid=dataclasses.replace(p["grid"], priors=(0.0,)),
        )
    with pytest.raises(ValueError, match=r"`linear_norm` must have `dim` \(=4\) squares"):
        call(p, dim=4)


def test_every_split_lies_in_a_cell():
    """p+ + p- <= P: one of the pieces holds it, and the pieces' sum is what is charged."""
    grid = SplitGrid(pieces=7)
    rng = np.random.default_rng(0)
    for total in grid_values(grid, "path")[::100]:
        plus = total * np.r_[rng.uniform(size=200), np.arange(8) / 7]
        pieces = [((i + 1) * total / 7, (7 - i) * total / 7) for i in range(7)]
        slack = 1 + 1e-12
        held = [(plus <= a * slack) & (total - plus <= b * slack) for a, b in pieces]
        assert np.any(held, axis=0).all()
        sums = [a + b for a, b in pieces]
        found = simple(paths=(total,), grid=grid)
        assert_close(sums, np.full(7, float(found.paths[0])), rtol=1e-12)


def test_the_union_is_paid():
    """More cells at the same cell: 2 m capacity^2 grows by exactly the logarithm."""
    grid = {"noise": (0.25, 0.25, 2.0), "linear": (0.5, 8.0, 2.0), "path": (0.5, 8.0, 2.0)}
    base = simple(grid=SplitGrid(**grid))
    changed = {
        "linear": ({"linear": (0.5, 64.0, 2.0)}, {}, 8 / 5),
        "path": ({"path": (0.5, 64.0, 2.0)}, {}, 8 / 5),
        "families": ({}, {"paths": [[0.3], [math.inf], [math.inf]]}, 3),
        "delta": ({}, {"delta": 0.001}, 10),
    }
    for name, (fields, arguments, ratio) in changed.items():
        found = simple(**{"grid": SplitGrid(**grid | fields), "paths": (0.3,)} | arguments)
        grown = 200 * (found.capacity**2 - base.capacity**2)
        assert_close(grown, math.log(ratio), rtol=1e-10)
        assert found.value > base.value, name
        smoothed = [one.value - one.smoothing for one in (found, base)]
        assert_close(smoothed[0] - smoothed[1], found.capacity - base.capacity, rtol=1e-10)
        assert_close(found.nonlinear, base.nonlinear)
        assert found.family == 0


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("factor", [8.0, 0.37])
def test_the_scale_of_the_outputs_does_not_matter(name, factor):
    p = problem(name)
    scaled = p | {n: factor * p[n] for n in ("margins", "linear_norm", "gammas")}
    scaled["deviation"] = factor * p.get("deviation", 0.0)
    scaled["weights"] = (*p["weights"][:-1], factor * p["weights"][-1])
    if "paths" in p:
        scaled["paths"] = factor * p["paths"]
    base, found = call(p), call(scaled)
    units = ("gamma", "noise", "linear", "paths")
    same = ("train_risk", "nonlinear", "capacity", "smoothing", "deviation", "penalty", "value")
    for field in units:
        assert_close(getattr(found, field), factor * np.asarray(getattr(base, field)), rtol=1e-11)
    for field in same:
        assert_close(getattr(found, field), getattr(base, field), rtol=1e-11)
    assert (found.family, found.prior) == (base.family, base.prior)


def test_every_term_is_monotone():
    fine = SplitGrid(noise=(0.25, 0.25, 2.0), linear=(1e-2, 1e2, 1.1), path=(1e-2, 1e2, 1.1))
    base = simple(grid=fine)
    assert base.value < 0.9
    worse = {
        "capacity": [{"linear_norm": 1.5}, {"delta": 0.001}],
        "nonlinear": [{"paths": (0.5,)}, {"epsilon": 0.7}, {"roots": np.array([2.5])}],
        "smoothing": [{"noise_root": 2.5}],  # 2 is that of dim
        "deviation": [{"deviation": 0.1}],
        "train_risk": [{"margins": np.linspace(-1.5, 2.5, 100)}],
    }
    fields = list(worse)
    for term, changes in worse.items():
        for change in changes:
            found = simple(**{"grid": fine} | change)
            for field in fields:
                new, old = getattr(found, field), getattr(base, field)
                if field == "smoothing":  # c times the root of the value, which grew
                    new, old = (one.smoothing / one.value**0.5 for one in (found, base))
                if field == term:
                    assert new > old + 1e-6, change
                else:
                    assert_close(new, old)
            assert found.value > base.value
    larger = simple(grid=fine, dim=9)
    assert larger.capacity > base.capacity
    assert_close(larger.nonlinear, 1.5 * base.nonlinear)
    # The same sample four times: a quarter of m.
    four = {"margins": np.tile(np.linspace(-1, 3, 100), 4)}
    four["input_norms"] = np.tile(np.linspace(0.5, 2, 100), 4)
    found = simple(grid=fine, **four)
    assert_close(2 * found.capacity, base.capacity)
    grown = halving(400) / halving(100) / 2
    assert_close(found.nonlinear, grown * base.nonlinear)
    assert_close(found.train_risk, base.train_risk)


def test_a_linear_network_has_no_nonlinear_part():
    for paths, depth in ([[math.inf]], 2), ([[math.inf, 1.0, math.inf]], 4):
        found = simple(epsilon=0.0, depth=depth, paths=paths)
        assert found.nonlinear == 0
        assert jnp.isfinite(found.value)
        assert found.result == RESULTS.successful
        bent = simple(epsilon=1e-9, depth=depth, paths=paths)
        assert bent.value == math.inf
        assert bent.result == RESULTS.blow_up
    unbounded = simple(epsilon=0.0, linear_norm=math.inf)
    assert unbounded.value == math.inf
    assert unbounded.result == RESULTS.blow_up


def test_the_best_family_is_taken():
    """Infinite and large families beside a small one; roots count in the choice."""
    assert simple(paths=[[math.inf], [4.0], [1.0], [2.0]]).family == 2
    found = simple(paths=[[4.0], [1.0]], roots=np.array([0.1, 2.0]))
    assert found.family == 0
    assert_close(found.nonlinear, halving(100) * 0.5 / 10 * 0.1 * 4.0 * 51 / 50)


# Norms.


def loop_norms(weights, epsilon):
    """l_W and the p_j, entry by entry."""
    depth = len(weights)
    straight = np.eye(weights[0].shape[1])
    for w in weights:
        straight = np.asarray(w) @ straight
    totals = []
    for j in range(1, depth):
        ahead = np.eye(weights[j - 1].shape[0])
        for w in weights[j:]:
            ahead = np.asarray(w) @ ahead
        inner = math.prod(math.sqrt(sum(e**2 for e in np.ravel(w))) for w in weights[: j - 1])
        rows = [math.sqrt(sum(e**2 for e in row)) for row in weights[j - 1]]
        split = [
            sum(s * o * r for o, r in zip(ahead[0], rows, strict=True) if s * o > 0)
            for s in (1, -1)
        ]
        totals.append(inner * sum(split))
    return (1 - epsilon / 2) ** (depth - 1) * straight[0], totals


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.quick
def test_the_norms_of_a_network(depth):
    rng = np.random.default_rng(depth)
    for epsilon in (0.0, 0.3, 1.0):
        weights = random_weights(rng, depth, 2 + depth, 3)
        ours = tuple(jnp.asarray(w) for w in weights)
        straight, totals = loop_norms(weights, epsilon)
        assert_close(linear_part(ours, epsilon), straight)
        assert_close(path_norms(ours), totals)


def test_the_linear_part_and_the_rest_are_the_network():
    """f(x) - f(-x) = 2 l.x: the rest is even where L = 2."""
    rng = np.random.default_rng(5)
    weights = random_weights(rng, 2)
    x = rng.normal(size=(30, 3))
    odd = (numpy_network(weights, 0.6, x) - numpy_network(weights, 0.6, -x)) / 2
    assert_close(x @ np.asarray(linear_part(tuple(map(jnp.asarray, weights)), 0.6)), odd)


def slacks(near, v, w, distances, epsilon):
    """Bound over measured, for the norm of the linear part and every total."""
    linear, totals = near(v, distances, epsilon)
    measured = jnp.linalg.norm(linear_part(w, epsilon))
    return jnp.concatenate([(linear / measured)[None], totals / path_norms(w)])


def nearby_case(rng, depth, dim, width):
    """V and W on the sphere around it: random, rank one, or along V itself."""
    v, w, distances = [], [], []
    scale = 10 ** rng.uniform(-2, 1)
    along = rng.uniform() < 0.4
    for base in random_weights(rng, depth, dim, width):
        if rng.uniform() < 0.4:
            base = base[:, :1] @ base[:1]
        if along:
            base = np.abs(base)
        x = scale * rng.uniform(0.5, 2)
        move = np.abs(base) if along else rng.normal(size=base.shape)
        v.append(base)
        w.append(base + x * move / np.linalg.norm(move))
        distances.append(x)
    return tuple(v), tuple(w), np.array(distances), rng.choice([0.0, 0.4, 1.0])


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 4, 5), (3, 3, 4), (4, 1, 1), (4, 3, 4)])
def test_norms_nearby_hold(shape):
    rng = np.random.default_rng(shape[0] + shape[1])
    cases = [nearby_case(rng, *shape) for _ in range(2000)]
    batch = jax.tree.map(lambda *a: jnp.asarray(np.stack(a)), *cases)
    found = np.asarray(jax.jit(jax.vmap(functools.partial(slacks, norms_nearby)))(*batch))
    low = found.min(axis=0)
    print(f"(L, d, n) = {shape}: smallest slack", np.round(low, 5))
    assert (low > 1 - 1e-12).all()
    if shape[1] == 1:
        assert (low < 1 + 1e-9).all()


def sharp_nearby():
    """Cases with equality: d = n = 1, and orthogonal rows of one norm, which need the Frobenius
    norm of the first layer; from V near 0, and far from it."""
    for depth, scale, x in itertools.product((2, 3, 4), (1e-3, 1.0), (0.1, 1.0)):
        v = tuple(jnp.full((1, 1), scale) for _ in range(depth))
        w = tuple(m + x for m in v)
        yield v, w, jnp.full(depth, x), 0.4
    v = (jnp.eye(3), jnp.ones((1, 3)))
    far = 1.0 * jnp.stack([jnp.linalg.norm(m) for m in v])
    yield v, tuple(2 * m for m in v), far, 0.4


def sharp_slacks(near):
    return np.array([np.asarray(slacks(near, *case))[-2:] for case in sharp_nearby()])


def test_norms_nearby_are_sharp():
    found = sharp_slacks(norms_nearby)
    assert_close(found[:, 1], np.ones(len(found)), rtol=1e-12)
    assert_close(found[:-1], np.ones((len(found) - 1, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "text", "mutation"),
    [
        ("norms_nearby", "omega * product_gap", "0.95 * omega * product_gap"),
        ("norms_nearby", "+ jnp.stack(gaps)", "+ 0.95 * jnp.stack(gaps)"),
        (
            "norms_nearby",
            "product_gap(frobenius[: j + 1] + spectral[j + 1 :], x)",
            "product_gap(spectral, x)",
        ),
        ("norms_nearby", "jnp.linalg.norm(linear_part", "0.95 * jnp.linalg.norm(linear_part"),
        ("norms_nearby", "totals = path_norms", "totals = 0.95 * path_norms"),
        ("norms_nearby", "** (depth - 1)", "** depth"),
        ("product_gap", "norms[i] + distances[i]", "norms[i]"),
        ("product_gap", "norms[i] + distances[i]", "norms[i] + 0.95 * distances[i]"),
        ("product_gap", "term = distances[j]", "term = 0.95 * distances[j]"),
    ],
)
def test_a_mutant_of_norms_nearby_is_caught(function, text, mutation):
    source = "".join(
        inspect.getsource(getattr(_split_norms, n)) for n in ("product_gap", "norms_nearby")
    )
    assert inspect.getsource(getattr(_split_norms, function)).count(text) == 1
    scope = dict(vars(_split_norms))
    exec(source.replace(text, mutation), scope)
    assert sharp_slacks(scope["norms_nearby"]).min() < 0.999


def test_norms_nearby_of_an_infinite_distance():
    weights = tuple(map(jnp.asarray, random_weights(np.random.default_rng(0), 3)))
    linear, totals = norms_nearby(weights, jnp.array([0.1, math.inf, 0.1]), 0.3)
    assert linear == math.inf
    assert (totals == math.inf).all()
    found = simple(linear_norm=linear, paths=totals, depth=3)
    assert found.value == math.inf
    assert found.result == RESULTS.blow_up
    linear, totals = norms_nearby(weights, jnp.zeros(3), 0.3)
    assert_close(linear, jnp.linalg.norm(linear_part(weights, 0.3)))
    assert_close(totals, path_norms(weights))


# Under jit and vmap, and in single precision.


def bound_of(weights, x, y, epsilon, dtype=float, metric=False):
    h = weights[0] @ x.T
    f = (weights[1] @ jnp.where(h < 0, (1 - epsilon) * h, h))[0]
    spectrum = np.array([0.5, 1.0, 3.0])
    return split_bound(
        (y * f).astype(dtype),
        jnp.linalg.norm(x, axis=1),
        epsilon=epsilon,
        depth=2,
        dim=3,
        linear_norm=jnp.linalg.norm(linear_part(weights, epsilon)),
        paths=linear_metric(weights, epsilon, spectrum, _GRID) if metric else path_norms(weights),
        grid=_GRID,
    )


@pytest.mark.parametrize("metric", [False, True])
def test_jit_and_vmap_over_networks(metric):
    rng = np.random.default_rng(2)
    batch = [random_weights(rng, 2) for _ in range(3)]
    epsilons = jnp.array([0.0, 0.7, 1.0])
    x = jnp.asarray(rng.normal(size=(50, 3)))
    y = jnp.sign(x[:, 0])
    stacked = jax.tree.map(lambda *a: jnp.asarray(np.stack(a)), *batch)
    run = jax.vmap(lambda w, e: bound_of(w, x, y, e, metric=metric))
    found = jax.jit(run)(stacked, epsilons)
    for i, weights in enumerate(batch):
        alone = bound_of(tuple(map(jnp.asarray, weights)), x, y, epsilons[i], metric=metric)
        for field in ("value", "train_risk", "penalty", "gamma", "noise", "paths", "family"):
            assert_close(
                np.asarray(getattr(found, field)[i], float), getattr(alone, field), rtol=1e-10
            )
    assert len(np.unique(np.asarray(found.value))) == 3


def test_single_precision_margins():
    rng = np.random.default_rng(3)
    weights = tuple(map(jnp.asarray, random_weights(rng, 2)))
    x = jnp.asarray(rng.normal(size=(50, 3)))
    y = jnp.sign(x[:, 0])
    single = bound_of(weights, x, y, 0.3, jnp.float32)
    double = bound_of(weights, x, y, 0.3)
    assert single.value.dtype == np.float64
    assert_close(single.train_risk, double.train_risk, atol=2e-6)
    assert_close(single.penalty, double.penalty)
    assert single.train_risk != double.train_risk


# The door.

_BAD = [
    ("margins", np.array([1.0, math.nan])),
    ("margins", np.array([1.0, math.inf])),
    ("margins", np.ones((2, 1))),
    ("margins", np.ones(0)),
    ("margins", np.ones(3)),
    ("input_norms", np.array([1.0, math.inf])),
    ("input_norms", np.array([math.nan, 1.0])),
    ("epsilon", -0.1),
    ("epsilon", 1.3),
    ("epsilon", math.nan),
    ("depth", 1),
    ("depth", 2.0),
    ("depth", True),
    ("dim", 0),
    ("dim", 3.5),
    ("linear_norm", -1.0),
    ("linear_norm", math.nan),
    ("paths", np.array([-0.1])),
    ("paths", np.array([math.nan])),
    ("paths", np.ones(2)),
    ("paths", np.ones((2, 2))),
    ("paths", np.ones((1, 1, 1))),
    ("delta", 0.0),
    ("delta", 1.0),
    ("gammas", np.array([1.0, 0.0])),
    ("gammas", np.array([math.inf])),
    ("gammas", np.ones(0)),
    ("gammas", np.ones((2, 2))),
    ("deviation", -0.1),
    ("deviation", math.nan),
    ("roots", np.array([-1.0])),
    ("roots", np.ones(2)),
    ("roots", np.array([math.inf])),
    ("noise_root", -1.0),
    ("noise_root", math.inf),
]


def small_call(**changes):
    arguments = {
        "margins": np.array([1.0, -0.2]),
        "input_norms": np.ones(2),
        "epsilon": 0.5,
        "depth": 2,
        "dim": 4,
        "linear_norm": 1.0,
        "paths": np.array([0.3]),
        "gammas": np.array([1.0]),
        "grid": _GRID,
    }
    return split_bound(**arguments | changes)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(("name", "value"), _BAD)
def test_bad_input_is_refused(name, value):
    small_call()
    with pytest.raises(ValueError, match=f"`{name}`") as info:
        small_call(**{name: value})
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 120


_ACCEPTED = {
    "no axis of paths": ("paths", 0.3),
    "no family": ("paths", np.ones((0, 1))),
    "a negative norm of an input": ("input_norms", np.array([1.0, -1.0])),
    "norms by margin": ("linear_norm", np.array([1.0])),
    "slopes by margin": ("epsilon", np.array([0.5])),
    "deltas by margin": ("delta", np.array([0.5])),
    "deviations by margin": ("deviation", np.array([0.0])),
    "roots by radius": ("noise_root", np.array([1.0])),
}


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(("name", "value"), _ACCEPTED.values(), ids=list(_ACCEPTED))
def test_more_bad_input_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        small_call(**{name: value})


def test_a_metric_needs_two_layers():
    metric = paths_of(problem("metric"))
    assert jnp.isfinite(small_call(dim=3, paths=metric).value)
    with pytest.raises(ValueError, match="`depth` must be 2 with a metric, got 3"):
        small_call(depth=3, dim=3, paths=metric)
    with pytest.raises(ValueError, match=r"`roots` must have shape \(6,\)"):
        small_call(dim=3, paths=metric, roots=np.ones(2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise", (0.0, 1.0, 1.1)),
        ("linear", (1.0, 0.5, 1.1)),
        ("path", (1.0, 2.0, 1.0)),
        ("path", (1.0, math.inf, 2.0)),
        ("pieces", 0),
        ("thetas", ()),
        ("thetas", (1.0,)),
        ("thetas", (-0.1,)),
        ("exponents", ()),
        ("exponents", (-1.0,)),
        ("priors", ()),
        ("priors", (-0.5,)),
    ],
)
def test_a_bad_grid_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        SplitGrid(**{name: value})


def test_an_unknown_range_is_refused():
    with pytest.raises(ValueError, match="`name` must be one of 'noise', 'linear', 'path'"):
        SplitGrid().values("other")


def test_traced_bad_input_fails_at_run_time():
    run = jax.jit(lambda e: small_call(epsilon=e).value)
    assert jnp.isfinite(run(jnp.asarray(0.5)))
    with pytest.raises(Exception, match="`epsilon` must be in"):
        run(jnp.asarray(1.5)).block_until_ready()


@pytest.mark.parametrize("name", ["linear_norm", "deviation"])
def test_traced_negative_norms_fail_at_run_time(name):
    run = jax.jit(lambda v: small_call(**{name: v}).value)
    with pytest.raises(Exception, match=f"`{name}` must be"):
        run(jnp.asarray(-1.0)).block_until_ready()


def test_needs_double_precision():
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="`split_bound` must run in float64"),
    ):
        small_call()


def test_the_default_margins():
    """Around the root mean square of the margins, whatever their sign or precision."""
    margins = np.array([1.0, -3.0, 0.5, 2.0])
    size = math.sqrt(np.mean(margins**2))
    for dtype in (np.float32, np.float64):
        found = np.asarray(split_gammas(jnp.asarray(margins, dtype)))
        assert found.shape == (32,)
        assert found.dtype == np.float64
        assert_close(found[-1], 3 * size, rtol=1e-6)
        assert_close(found[1:] / found[:-1], np.full(31, 1000 ** (1 / 31)), rtol=1e-6)
    for fallback in (np.zeros(3), np.array([1.0, math.inf])):
        assert_close(np.asarray(split_gammas(jnp.asarray(fallback)))[-1], 3.0)
    margins = 8 * np.linspace(-1, 3, 100)
    tried = np.asarray(split_gammas(jnp.asarray(margins)))
    found = simple(margins=margins, gammas=None)
    assert np.min(np.abs(tried - float(found.gamma))) < 1e-9
