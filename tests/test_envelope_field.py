"""The right-hand side of the envelope, by itself: at any two weights W, V and any data,
||dW_l/dt - dV_l/dt||_F is at most its l-th entry. Its constants are sharp: each one, lowered by
5% in the source text, is caught."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

from nlbound_jax.bounds import _trajectory
from nlbound_jax.dynamics import _envelope, _reference

pytestmark = pytest.mark.float64


def outputs(weights, epsilon, x):
    h = x
    for w in weights[:-1]:
        z = w @ h
        h = jnp.where(z < 0, (1 - epsilon) * z, z)
    return (weights[-1] @ h)[0]


def straight(weights, x):
    for w in weights:
        x = w @ x
    return x[0]


def ratios(field, distance, w, v, epsilon, x, y, known_residual):
    """Bound over measured: for each dW_l/dt, then Q and c Q. Each is 0 over 0 at W = V, eps = 0."""
    depth = len(w)
    slope = _envelope.envelope_slopes(jnp.asarray(epsilon), depth)
    target = x @ y / y.size
    residual = target - slope.omega * _reference.end_to_end(v)

    def loss(weights):
        return jnp.mean((y - outputs(weights, epsilon, x)) ** 2) / 2

    def reference_loss(weights):
        return jnp.sum((target - slope.omega * _reference.end_to_end(weights)) ** 2) / 2

    moved = jax.tree.map(lambda a, b: a - b, jax.grad(loss)(w), jax.grad(reference_loss)(v))
    measured = [jnp.linalg.norm(m) for m in moved]
    norms = jnp.stack([_reference.spectral_norm(m) for m in v])
    far = jnp.stack([jnp.linalg.norm(a - b) for a, b in zip(w, v, strict=True)])
    first = jnp.linalg.norm(v[0])
    rms = jnp.sqrt(jnp.mean((y - outputs(w, epsilon, x)) ** 2))
    ell = jnp.where(known_residual, rms, 1e9)
    rates = field(far, norms, first, jnp.linalg.norm(residual), jnp.linalg.norm(target), ell, slope)
    q = distance(norms, first, far)
    linear_w, linear_v = slope.omega * straight(w, x), slope.omega * straight(v, x)
    whole = outputs(w, epsilon, x) - linear_v
    leaky = outputs(v, epsilon, x)
    bent = outputs(w, epsilon, x) - linear_w - leaky + linear_v
    measured += [jnp.sqrt(jnp.mean((whole - leaky + linear_v) ** 2)), jnp.sqrt(jnp.mean(bent**2))]
    allowed = [*rates, q, slope.bend * q]
    return jnp.stack([b / m for b, m in zip(allowed, measured, strict=True)])


def random_problem(rng, depth, d, width, m):
    x = rng.normal(size=(m, d)) * rng.uniform(0.2, 3, size=d)
    if rng.uniform() < 0.4:
        x = np.sign(x) + 1e-3 * x
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    x = np.sqrt(m) * u @ vt
    score = [rng.normal(size=m), x @ rng.normal(size=d), np.abs(x[:, 0]) - 0.7, np.ones(m)]
    y = np.where(score[rng.integers(4)] > 0, 1.0, -1.0)
    sizes = [d] + [width] * (depth - 1) + [1]
    w, v = [], []
    spread = 10 ** rng.uniform(-4, 1)
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        base = rng.normal(size=(fan_out, fan_in))
        if rng.uniform() < 0.5:
            base = base[:, :1] * base[:1]  # rank one
        base *= 10 ** rng.uniform(-2, 0.5) / np.linalg.norm(base, 2)
        other = base if rng.uniform() < 0.3 else rng.normal(size=base.shape)
        v.append(base)
        w.append(base + spread * other * np.linalg.norm(base) / np.linalg.norm(other))
    epsilon = rng.choice([0.0, 10 ** rng.uniform(-3, 0), rng.uniform(), 1.0])
    return tuple(w), tuple(v), epsilon, x.T, y


@pytest.mark.parametrize("shape", [(2, 1, 1, 6), (2, 3, 5, 20), (3, 2, 3, 12), (4, 2, 3, 12)])
def test_the_right_hand_side_holds_at_any_weights(shape):
    rng = np.random.default_rng(shape[0])
    batch = [random_problem(rng, *shape) for _ in range(2000)]
    batch = jax.tree.map(lambda *a: jnp.asarray(np.stack(a)), *batch)
    one = functools.partial(ratios, _envelope.envelope_field, _trajectory.output_distance)
    for known in (True, False):
        run = jax.jit(jax.vmap(lambda *p, known=known: one(*p, known)))
        found = np.asarray(run(*batch))
        assert np.isfinite(found[:, : shape[0]]).all()
        low = np.nanmin(found, axis=0)
        print(f"{shape}, ell(0) known {known}: smallest slack", np.round(low, 6))
        assert (low > 1 - 1e-9).all()


def scalars(depth, values):
    return tuple(jnp.full((1, 1), value) for value in [values] * depth)


def one_sided(depth, epsilon, w):
    """d = n = 1 and x = 1 throughout, so that |z| = z; the reference has learned, W is beyond."""
    omega = (1 - epsilon / 2) ** (depth - 1)
    x = jnp.ones((1, 2))
    v = scalars(depth, omega ** (-1 / depth))
    return scalars(depth, w), v, epsilon, x, jnp.ones(2)


def small(depth, epsilon, ratio):
    """As above with weights so small that only terms linear in the residual count; y = x = 1."""
    x = jnp.ones((1, 2))
    return scalars(depth, ratio * 1e-4), scalars(depth, 1e-4), epsilon, x, jnp.ones(2)


def overshot(depth, epsilon, w):
    """As [`one_sided`][] with r_V = 1 and r_W < 0, where ||f_W - f_V|| = ell + ||r||."""
    x = jnp.ones((1, 2))
    return scalars(depth, w), scalars(depth, 1e-6), epsilon, x, jnp.ones(2)


def cube(depth, epsilon):
    """x in {-1, 1}^3, every corner, y = 1 and W_1 a multiple of I: |z_k| is the same everywhere,
    so the Frobenius norm of W_1 is met. It has q = 0 and so s = 0."""
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(8, 3).T
    weights = [1e-3 * jnp.eye(3)] + [jnp.full((1, 3), 1e-3)]
    return tuple(weights), tuple(weights), epsilon, jnp.asarray(corners), jnp.ones(8)


def wider_cube(epsilon):
    """The same corners with W beyond V = 0 in proportion."""
    w, _, epsilon, x, y = cube(2, epsilon)
    return w, tuple(0 * m for m in w), epsilon, x, y


CASES = {
    "one-sided": [one_sided(depth, 0.4, 1.7) for depth in (2, 3, 4)],
    "small": [small(depth, 0.4, 1.5) for depth in (2, 3, 4)],
    "small, linear": [small(depth, 0.0, 1.5) for depth in (2, 3, 4)],
    "overshot": [overshot(depth, 0.4, 1.5) for depth in (2, 3)],
    "cube": [cube(2, 0.5), wider_cube(0.5)],
}


def slacks(field, distance):
    """(case, the smallest slack over layers, Q and c Q) for every case and both bounds of ell."""
    for name, cases in CASES.items():
        for case in cases:
            for known in (True, False):
                yield name, np.nanmin(np.asarray(ratios(field, distance, *case, known)))


@pytest.mark.quick
def test_the_constants_are_sharp():
    found = {}
    for name, slack in slacks(_envelope.envelope_field, _trajectory.output_distance):
        found[name] = min(slack, found.get(name, np.inf))
    print(found)
    assert min(found.values()) > 1 - 1e-7
    for name, slack in found.items():
        assert slack < 1.01, name


MUTANTS = [
    ("residual * others_gap", "0.95 * residual * others_gap"),
    ("others_upper * gap)", "0.95 * others_upper * gap)"),
    ("pure * others_upper", "0.95 * pure * others_upper"),
    ("mixed * with_first", "0.95 * mixed * with_first"),
    ("with_first = _product([first if", "with_first = _product([upper[0] if"),
    ("lin = slope.omega", "lin = 0.95 * slope.omega"),
    ("non = slope.bend * (", "non = 0.95 * slope.bend * ("),
    ("non = slope.bend * (frobenius + x[0])", "non = slope.bend * frobenius"),
    ("jnp.minimum(initial_residual,", "jnp.minimum(0.95 * initial_residual,"),
    ("jnp.sqrt(rest", "0.95 * jnp.sqrt(rest"),
    ("(residual + lin) ** 2", "(0.95 * residual + lin) ** 2"),
    ("(residual + lin) ** 2", "(residual + 0.95 * lin) ** 2"),
    (") + non)", ") + 0.95 * non)"),
    ("jnp.minimum(lin + non,", "jnp.minimum(0.95 * lin + non,"),
    ("jnp.minimum(lin + non,", "jnp.minimum(lin + 0.95 * non,"),
    ("ell + residual)", "0.95 * (ell + residual))"),
    ("rate = omega", "rate = 0.95 * omega"),
]


@pytest.mark.parametrize(("text", "mutation"), MUTANTS, ids=[b for _, b in MUTANTS])
def test_a_constant_lowered_by_5_percent_is_caught(text, mutation):
    parts = (_envelope.envelope_terms, _envelope.envelope_field)
    source = "\n".join(inspect.getsource(part) for part in parts)
    assert source.count(text) == 1
    scope = dict(vars(_envelope))
    exec(source.replace(text, mutation), scope)
    # The first case that it fails is enough.
    found = slacks(scope["envelope_field"], _trajectory.output_distance)
    assert any(slack < 0.999 for _, slack in found)


def test_a_deviation_lowered_by_5_percent_is_caught():
    def mutant(*a):
        return 0.95 * _trajectory.output_distance(*a)

    found = slacks(_envelope.envelope_field, mutant)
    assert min(slack for name, slack in found if name == "cube") < 0.951


def test_the_default_initial_residual_is_sharp():
    """1 + ||W_1||_F ||W_2|| is the residual where every output is as wrong as it can be."""
    w, _, epsilon, x, y = cube(2, 1.0)
    rms = jnp.sqrt(jnp.mean((-y - outputs(w, 0.0 * epsilon, jnp.abs(x))) ** 2))
    assert_close(rms, 1 + jnp.linalg.norm(w[0]) * jnp.linalg.norm(w[1]), rtol=1e-12)
