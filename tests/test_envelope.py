"""The envelope and the deviations, by brute force on random and adversarial small problems."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, small_task, traced_anew

from nlbound_jax import RESULTS, Settings, bounds, dynamics, networks
from nlbound_jax.dynamics import _reference, _reference_solve, _statistic
from nlbound_jax.report import train as train_for_report

pytestmark = pytest.mark.float64

# (depth, d, width, m, t1)
SHAPES = [
    (2, 1, 1, 8, 6.0),
    (2, 1, 4, 40, 6.0),
    (2, 4, 8, 60, 6.0),
    (2, 8, 16, 400, 5.0),
    (3, 2, 4, 30, 4.0),
    (3, 6, 8, 200, 3.0),
    (4, 3, 6, 60, 2.0),
]
BATCH = 72


def whitened(rng, count, d):
    x = rng.normal(size=(count, d)) * rng.uniform(0.3, 2, size=d)
    if rng.uniform() < 0.3:  # discrete inputs meet many kinks at once
        x = np.sign(x) + 1e-3 * x
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return np.sqrt(count) * u @ vt


def problems(shape, seed):
    """BATCH problems of one shape: data, labels of several kinds, networks, a fresh sample."""
    depth, d, width, m, _ = shape
    rng = np.random.default_rng(seed)
    out = []
    for i in range(BATCH):
        x, fresh = whitened(rng, m, d), whitened(rng, 50 * d, d)
        kind = i % 4
        score = [rng.normal(size=m), x @ rng.normal(size=d), np.abs(x[:, 0]) - 0.7, np.ones(m)]
        y = np.where(score[kind] + 0.1 * rng.normal(size=m) > 0, 1.0, -1.0)
        sizes = [d] + [width] * (depth - 1) + [1]
        scale = 10 ** rng.uniform(-3, -0.2) if depth == 2 else rng.uniform(0.2, 0.9)
        weights = []
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
            w = rng.normal(size=(fan_out, fan_in))
            weights.append(scale * w / np.linalg.norm(w, 2))
        epsilon = rng.choice([rng.uniform(), 10 ** rng.uniform(-3, 0), 0.5, 1.0])
        out.append((tuple(weights), epsilon, x.T, y, fresh.T))
    return jax.tree.map(lambda *a: jnp.asarray(np.stack(a)), *out)


def outputs(weights, epsilon, x):
    h = x
    for w in weights[:-1]:
        z = w @ h
        h = jnp.where(z < 0, (1 - epsilon) * z, z)
    return (weights[-1] @ h)[0]


def train(weights, epsilon, x, y, ts):
    """Gradient flow by a field of its own."""

    def field(t, w, args):
        def loss(w):
            return jnp.mean((y - outputs(w, epsilon, x)) ** 2) / 2

        return jax.tree.map(jnp.negative, jax.grad(loss)(w))

    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        0.0,
        ts[-1],
        None,
        weights,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-9),
        max_steps=3000,
        throw=False,
    ).ys


def measure(weights, epsilon, x, y, fresh, ts):
    """Ratios bound / measured, one for each inequality and time; NaN where the solve stopped."""
    run = train(weights, epsilon, x, y, ts)
    net = networks.LeakyMLP(weights, epsilon)
    ell = jnp.sqrt(jnp.mean((y - outputs(weights, epsilon, x)) ** 2))
    target = x @ y / x.shape[1]
    reference = dynamics.reference_flow(net, target, ts, initial_residual=ell)
    gaps = [
        jnp.sqrt(jnp.sum((w - v) ** 2, axis=(1, 2)))
        for w, v in zip(run, reference.weights, strict=True)
    ]
    ratios = [(reference.envelope[:, i] + 1e-8) / (gap + 1e-8) for i, gap in enumerate(gaps)]
    q = bounds.trajectory_bound(
        reference.norms,
        reference.frobenius[:, 0],
        reference.envelope,
        epsilon=0.5,
        gamma=1.0,
        dim=1.0,
        num_samples=1.0,
    ).distance
    omega = (1 - epsilon / 2) ** (net.depth - 1)

    def linear(ws, data):
        row = ws[-1]
        for w in ws[-2::-1]:
            row = row @ w
        return omega * (row @ data)[0]

    for data in (x, fresh):
        trained = jax.vmap(lambda w, data=data: outputs(w, epsilon, data))(run)
        straight = jax.vmap(lambda w, data=data: linear(w, data))(run)
        other = jax.vmap(lambda v, data=data: linear(v, data))(reference.weights)
        # f_V is linear in the reference flow; as a leaky network on V it has a part of its own.
        leaky = jax.vmap(lambda v, data=data: outputs(v, epsilon, data))(reference.weights)
        whole = jnp.sqrt(jnp.mean((trained - leaky) ** 2, axis=1))
        bent = jnp.sqrt(jnp.mean((trained - straight - (leaky - other)) ** 2, axis=1))
        ratios += [(q + 1e-8) / (whole + 1e-8), ((1 - omega) * q + 1e-8) / (bent + 1e-8)]
    return jnp.stack(ratios), jnp.isfinite(run[0]).all(axis=(1, 2))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(
            s, marks=pytest.mark.slow if s[0] == 4 or s[1] >= 4 or s == (2, 1, 4, 40, 6.0) else ()
        )
        for s in SHAPES
    ],
    ids=str,
)
def test_envelope_and_deviations_hold(shape):
    """x_l >= ||W_l - V_l||_F, Q >= rms |f_W - f_V| and c Q >= rms |N_W - N_V|, on the training
    set and on fresh whitened data."""
    ts = jnp.linspace(0, shape[-1], 6)[1:]
    batch = problems(shape, seed=SHAPES.index(shape))
    # One after the other: under `vmap` every step of each would wait for the slowest.
    run = jax.jit(lambda batch: jax.lax.map(lambda p: measure(*p, ts), batch))
    ratios, finished = (np.asarray(a) for a in run(batch))
    done = np.broadcast_to(finished[:, None], ratios.shape)
    assert finished[:, 0].mean() > 0.9
    relative = np.where(done, ratios, np.inf)
    unfinished = int((~finished[:, -1]).sum())
    print(f"{shape}: smallest slack {relative.min():.6f}, unfinished {unfinished} of {BATCH}")
    assert (relative > 1 - 2e-5).all(), np.argwhere(~(relative > 1 - 2e-5))[:5]


def adversarial(beta, epsilon, t1):
    """d = n = 1, x = +-1, y = 1: every sample pulls the same way, and the constants are sharp."""
    x, y = jnp.array([[1.0, -1.0]]), jnp.ones(2)
    weights = (jnp.full((1, 1), beta), jnp.full((1, 1), beta))
    ts = jnp.array([t1])
    return jax.jit(lambda: measure(weights, jnp.asarray(epsilon), x, y, x, ts))()


def test_the_constants_of_the_sources_are_sharp():
    ratios, _ = adversarial(1e-3, 0.5, 0.01)
    ratios = np.asarray(ratios)[:2, 0]
    assert (ratios > 1 - 1e-6).all()
    assert (ratios < 1.01).all()


@pytest.mark.parametrize("level", [0, 1])
def test_a_source_lowered_by_5_percent_is_caught(monkeypatch, level):
    original = _reference_solve.envelope_rates
    factor = np.ones(2)
    factor[level] = 0.95

    def lowered(*given):
        rates = original(*given)
        return rates._replace(layers=rates.layers * jnp.asarray(factor))

    monkeypatch.setattr(_reference_solve, "envelope_rates", lowered)
    traced_anew(monkeypatch, _reference, "solve_reference")
    ratios, _ = adversarial(1e-3, 0.5, 0.01)
    assert np.asarray(ratios)[level, 0] < 0.99


@pytest.mark.parametrize("kind", ["default", "rank-one"])
@pytest.mark.parametrize("depth", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_reduced_coordinates_agree_with_full_ones(monkeypatch, depth, kind):
    task = small_task(seed=1, m=100, d=9)
    net = networks.initialize(jax.random.key(0), 9, 4, depth, epsilon=0.3, beta=0.4, kind=kind)
    ts = np.linspace(0, 4, 5)
    small, *_ = _statistic.reduce_coordinates(net.weights, jnp.asarray(task.target)[None])
    rows = 2 if kind == "rank-one" and depth == 2 else 4
    assert small[0].shape == (rows, 2 if kind == "rank-one" else 5)
    reduced = dynamics.reference_flow(net, task.target, ts)
    assert reduced.weights[0].shape == (5, 4, 9)
    others = [reduced]
    if depth == 2:  # under jit only the rows of V_1 are reduced
        others.append(eqx.filter_jit(dynamics.reference_flow)(net, task.target, ts))

    def unreduced(w, q, moment, size, driver):
        seen = _statistic.Statistic(q, None, jnp.sqrt(size**2 - jnp.sum(q**2)))
        return w, seen, _statistic.Coordinates(None, None)

    monkeypatch.setattr(_reference, "reduce_coordinates", unreduced)
    full = dynamics.reference_flow(net, task.target, ts)

    # Solves of their own: every entry is right to some ten times the tolerance, over the size of
    # what it is an entry of. The envelope grows five hundredfold after t = 1 and magnifies that
    # (at depth 3 it blows up between two times, in all of them).
    def near(one, other, times):
        size = np.abs(np.asarray(other)[np.isfinite(other)]).max()
        assert_close(one, other, rtol=0, atol=times * _reference_solve.RTOL * size)

    for other in others:
        for name in ("linear_map", "norms", "frobenius", "residual"):
            near(getattr(other, name), getattr(full, name), 20)
        near(other.envelope, full.envelope, 10_000)
    for w, v in zip(reduced.weights, full.weights, strict=True):
        near(w, v, 20)


def test_a_linear_network_stays_with_its_reference():
    task = small_task()
    net = networks.initialize(jax.random.key(0), 4, 5, 3, epsilon=0.0, beta=0.4)
    reference = dynamics.reference_flow(net, task.target, np.linspace(0, 5, 13))
    assert (np.asarray(reference.envelope) == 0).all()


def test_small_initializations_are_resolved():
    """The envelope is homogeneous at first: x(beta) / beta does not depend on a small beta."""
    task = small_task()
    values = []
    for beta in (1e-4, 1e-6):
        net = networks.initialize(jax.random.key(0), 4, 5, 2, epsilon=0.3, beta=beta)
        reference = dynamics.reference_flow(net, task.target, np.array([0.5, 2.0]))
        values.append(np.asarray(reference.envelope) / beta)
    assert_close(values[1], values[0], rtol=1e-3)


def test_blow_up_is_infinite_from_there_on():
    task = small_task()
    net = networks.initialize(jax.random.key(0), 4, 5, 3, epsilon=1.0, beta=0.5)
    reference = dynamics.reference_flow(net, task.target, np.linspace(0, 60, 13))
    far = np.asarray(reference.envelope)
    assert np.isinf(far[-1]).all()
    assert np.isfinite(far[0]).all()
    first = np.argmax(np.isinf(far[:, 0]))
    assert np.isinf(far[first:]).all()
    assert np.isfinite(np.asarray(reference.norms)).all()


def stopping(monkeypatch, *, with_envelope_only):
    """The solve of the reference network loses what comes after its first time."""
    solve = _reference.solve_reference

    def stopped(*args):
        (weights, far), result = solve(*args)
        if with_envelope_only and not args[-2]:  # without one
            return (weights, far), result
        weights, far = jax.tree.map(lambda a: a.at[1:].set(jnp.inf), (weights, far))
        return (weights, far), RESULTS.max_steps_reached

    monkeypatch.setattr(_reference, "solve_reference", stopped)


@pytest.mark.quick
def test_a_reference_network_that_stopped_says_so_itself(monkeypatch):
    task = small_task()
    net = networks.initialize(
        jax.random.key(0), task.rank, 4, 2, epsilon=0.1, beta=0.1, dtype="float64"
    )
    ts = np.array([0.5, 1.0])
    stopping(monkeypatch, with_envelope_only=False)
    kept = dynamics.reference_flow(net, task.target, ts)
    assert np.isinf(kept.linear_map[1]).all()
    message = r"^reference_flow, .*, stopped after t = 0.5 of 1: The maximum number [^.`]*\.$"
    with pytest.raises(RuntimeError, match=message):
        dynamics.reference_flow(net, task.target, ts, throw=True)
    with pytest.raises(RuntimeError, match=message):
        train_for_report(task, Settings(width=3, num_times=2, end_time=1.0))


@pytest.mark.quick
def test_an_envelope_that_stopped_leaves_the_reference_network(monkeypatch):
    task = small_task()
    net = networks.initialize(
        jax.random.key(0), task.rank, 4, 2, epsilon=0.1, beta=0.1, dtype="float64"
    )
    ts = np.array([0.5, 1.0])
    whole = dynamics.reference_flow(net, task.target, ts)
    stopping(monkeypatch, with_envelope_only=True)
    found = dynamics.reference_flow(net, task.target, ts, throw=True)
    assert_close(found.linear_map, whole.linear_map, rtol=1e-6)
    assert found.envelope is not None
    assert np.isfinite(found.envelope[0]).all()
    assert np.isinf(found.envelope[1]).all()
