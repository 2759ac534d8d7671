"""The envelope of gradient descent, against leaky networks trained by NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brute_descent import batch, distance, error_and_gradient, rms, square_root, train
from helpers import assert_close, traced_anew

from nlbound_jax import dynamics, networks
from nlbound_jax.dynamics import _loss_steps, _reference_descent

pytestmark = pytest.mark.float64

# (depth, outputs, d, width, m)
SHAPES = [(2, 1, 1, 1, 4), (2, 1, 3, 4, 20), (2, 3, 2, 4, 12), (3, 2, 3, 3, 15), (4, 1, 2, 3, 10)]
METHODS = {
    "plain": {},
    "decay": {"weight_decay": 0.3},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "dampened": {"momentum": 0.7, "dampening": 0.4, "weight_decay": 0.5},
    "nesterov-decay": {"momentum": 0.6, "nesterov": True, "weight_decay": 0.4},
}
STEPS = 25


def network(weights, epsilon):
    return networks.LeakyMLP(tuple(weights), epsilon)


def descend(weights, epsilon, x, y, factors, loss, *, raw, known, **method):
    """The reference network and its envelope at every step."""
    m = x.shape[1]
    return dynamics.reference_descent(
        network(weights, epsilon),
        y @ x.T / m,
        STEPS,
        step_size=1.0,
        schedule=lambda count: factors[count],
        second_moment=x @ x.T / m if raw else None,
        label_size=np.sqrt(y.shape[0]),
        initial_residual=loss if known else None,
        save_every=1,
        **method,
    )


def run_both(shape, name, raw, count, seed, known):
    """Distances measured and allowed, `(count steps layers)`, and the size of V; the last layer is
    that of the first in the metric of the inputs."""
    rng = np.random.default_rng(seed)
    weights, epsilon, x, y = batch(rng, count, shape, raw=raw)
    method = METHODS[name]
    top = np.linalg.norm(x, 2, axis=(1, 2)) ** 2 / x.shape[2]
    factors = rng.uniform(0.2, 1, size=(STEPS, count)) * 10 ** rng.uniform(-2, 0.3, size=count)
    factors = factors / np.maximum(top, 1)
    loss = rms(error_and_gradient(weights, epsilon, x, y)[0])
    run = jax.jit(jax.vmap(functools.partial(descend, raw=raw, known=known, **method)))
    found = run(*jax.tree.map(jnp.asarray, (weights, epsilon, x, y, factors.T, loss)))
    options = dict(method)
    decay = options.pop("weight_decay", 0.0)

    def gradient(w):
        return error_and_gradient(w, epsilon, x, y, rng)[1]

    with np.errstate(over="ignore", invalid="ignore"):
        trained = train(weights, gradient, factors, decay=decay, **options)
        root = square_root(x @ np.swapaxes(x, 1, 2) / x.shape[2]) if raw else np.eye(x.shape[1])
        w = [np.stack([step[i] for step in trained], axis=1) for i in range(shape[0])]
        v = [np.asarray(a) for a in found.weights]
        gaps = [distance(a, b) for a, b in zip(w, v, strict=True)]
        size = np.stack([np.linalg.norm(b, axis=(2, 3)) for b in v], axis=-1).max(axis=-1)
        root = root[:, None] if raw else root
        gaps.append(distance(w[0] @ root, v[0] @ root))
    far = np.asarray(found.envelope)
    inner = np.asarray(found.weighted_envelope) if raw else far[..., 0]
    return np.stack(gaps, axis=-1), np.concatenate([far, inner[..., None]], axis=-1), size


def violations(measured, far, size):
    """Where a distance exceeds what is allowed, by more than rounding."""
    claimed = np.isfinite(far)
    slack = 1e-9 * np.where(claimed, far, 0) + 1e-12 * (1 + np.where(claimed, size[..., None], 0))
    # What is not finite is no distance that was allowed.
    return claimed & ~(measured <= np.where(claimed, far, 0) + slack)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("raw", [False, True])
def test_networks_stay_within_the_envelope(name, raw):
    for seed, shape in enumerate(SHAPES):
        measured, far, size = run_both(shape, name, raw, 24, seed, known=seed % 2 == 0)
        assert not np.isnan(far).any()
        used = np.isfinite(far) & (measured > 1e-9)
        tight = np.quantile(measured[used] / far[used], [0.5, 1])
        print(name, raw, shape, np.isfinite(far).mean().round(2), tight.round(3))
        assert used.mean() > 0.2
        assert not violations(measured, far, size).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("raw", [False, True])
def test_many_networks_stay_within_the_envelope(name, raw):
    for seed, shape in enumerate(SHAPES):
        measured, far, size = run_both(shape, name, raw, 400, 100 + seed, known=seed % 2 == 1)
        assert not np.isnan(far).any()
        assert not violations(measured, far, size).any()


def constant(depth, outputs, size, epsilon):
    """Every sample is the same, all weights are positive and the labels are -1."""
    weights = [jnp.full((1, 1), 0.3 + 0.2 * i) for i in range(depth - 1)]
    weights.append(jnp.full((outputs, 1), 0.7))
    x, y = np.full((1, 1, 3), size), -np.ones((1, outputs, 3))
    return tuple(weights), epsilon, x, y


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("depth", "outputs", "size"), [(2, 1, 1.0), (3, 2, 1.0), (4, 3, 0.6)])
def test_the_first_step_is_sharp(name, depth, outputs, size):
    weights, epsilon, x, y = constant(depth, outputs, size, 0.4)
    found = dynamics.reference_descent(
        network(weights, jnp.asarray(epsilon)),
        y[0] @ x[0].T / 3,
        1,
        step_size=0.2,
        second_moment=None if size == 1 else np.full((1, 1), size**2),
        label_size=np.sqrt(outputs),
        **METHODS[name],
    )

    def gradient(w):
        return error_and_gradient(w, np.array([epsilon]), x, y)[1]

    options = dict(METHODS[name])
    decay = options.pop("weight_decay", 0.0)
    start = tuple(np.asarray(w)[None] for w in weights)
    (moved,) = train(start, gradient, np.full((1, 1), 0.2), decay=decay, **options)
    gaps = [distance(a[0], b[0]) for a, b in zip(moved, found.weights, strict=True)]
    assert min(gaps) > 0.01
    assert_close(found.envelope[0], np.stack(gaps), rtol=1e-10)
    if size != 1:
        assert_close(found.weighted_envelope, size * gaps[0][None], rtol=1e-10)


def scalar_run(net, x, y, eta, num_steps, **options):
    """Distances and envelope of a network of scalars, `(steps layers)`, and its losses."""
    x, y = np.asarray(x, float)[None, None], np.asarray(y, float)[None, None]
    weights = tuple(np.asarray(w)[None] for w in net.weights)
    epsilon = np.asarray(net.epsilon)[None]
    found = dynamics.reference_descent(
        net, y[0, 0] @ x[0].T / x.size, num_steps, step_size=eta, save_every=1, **options
    )

    def gradient(w):
        return error_and_gradient(w, epsilon, x, y)[1]

    steps = train(weights, gradient, np.full((num_steps, 1), eta))
    gaps = np.stack([[distance(w[i][0], found.weights[i][k]) for i in range(len(weights))]
                     for k, w in enumerate(steps)])  # fmt: skip
    losses = [rms(error_and_gradient(w, epsilon, x, y)[0])[0] for w in (weights, *steps)]
    return gaps, np.asarray(found.envelope), np.asarray(losses)


def test_steps_may_raise_the_loss_and_an_envelope_that_forbids_it_fails(monkeypatch):
    """x = y = 1, one sample, one unit: the reference network learns smoothly."""
    net = network((jnp.full((1, 1), 4.5), jnp.full((1, 1), 0.2)), jnp.asarray(1.0))
    gaps, far, losses = scalar_run(net, [1.0], [1.0], 0.25, 3, initial_residual=0.1)
    assert_close(losses, [0.1, 0.408, 1.657, 6.527], rtol=2e-3)
    assert (gaps <= far).all()
    monkeypatch.setattr(_reference_descent, "loss_after_step", lambda loss, *_: loss)
    traced_anew(monkeypatch, _reference_descent, "_descend")
    gaps, far, _ = scalar_run(net, [1.0], [1.0], 0.25, 8, initial_residual=0.1)
    assert (gaps > 100 * far).any()


@pytest.mark.parametrize("eta", [1e-3, 0.1, 0.5])
def test_a_kink_raises_the_loss_at_every_step_size(eta):
    """The bound on the rise is met to first order."""
    epsilon, w = 0.5, 1e-9
    net = network((jnp.full((1, 1), w), jnp.ones((1, 1))), jnp.asarray(epsilon))
    _, _, losses = scalar_run(net, [1.0, -1.0], [-1.0, -1.0], eta, 1)
    assert losses[1] > losses[0]
    moved = np.array([abs(w), 1.0]) + eta
    gradient = epsilon / 2  # of the first layer; that of the second is of the size of w
    bound = _loss_steps.loss_after_step(
        *(jnp.asarray(a, float) for a in (losses[0], eta, [1 + 1e-6], eta, 1.0, 10.0, epsilon))
    )
    assert moved.min() > gradient * eta
    assert losses[1] <= bound
    if eta == 1e-3:
        rise = (losses[1] ** 2 - losses[0] ** 2) / (float(bound) ** 2 - losses[0] ** 2)
        assert rise > 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bound_on_the_loss_holds_for_any_step(shape):
    rng = np.random.default_rng(shape[0])
    weights, epsilon, x, y = batch(rng, 300, shape, raw=True)
    eta = 10 ** rng.uniform(-2, 2, size=300)
    error, gradient = error_and_gradient(weights, epsilon, x, y, rng)
    moved = tuple(w + eta[:, None, None] * g for w, g in zip(weights, gradient, strict=True))
    after = rms(error_and_gradient(moved, epsilon, x, y)[0])
    norms = [
        np.stack([np.linalg.norm(w, 2, axis=(1, 2)) for w in v[1:]], axis=1)
        for v in (weights, moved)
    ]
    m = x.shape[2]
    first = [np.linalg.norm(v[0] @ x, axis=(1, 2)) / np.sqrt(m) for v in (weights, moved)]
    size = np.sqrt(sum((g**2).sum(axis=(1, 2)) for g in gradient))
    kappa = np.linalg.norm(x, 2, axis=(1, 2)) / np.sqrt(m)
    given = (rms(error), eta, np.maximum(*norms), np.maximum(*first), kappa, size, epsilon)
    bound = np.asarray(jax.vmap(_loss_steps.loss_after_step)(*map(jnp.asarray, given)))
    print(shape, "closest", (after / bound).max(), "rising", (after > rms(error)).mean())
    assert (after > rms(error)).mean() > 0.05
    assert (after <= bound * (1 + 1e-12)).all()


@pytest.mark.parametrize("name", [n for n in METHODS if "dampening" not in METHODS[n]])
def test_without_a_bend_it_is_optax(name):
    rng = np.random.default_rng(3)
    weights, _, x, y = (jax.tree.map(lambda a: jnp.asarray(a[0]), a)
                        for a in batch(rng, 1, (3, 2, 4, 5, 30), raw=True))  # fmt: skip
    method, m, steps = METHODS[name], x.shape[1], 20

    def schedule(count):
        return 0.15 * jnp.cos(jnp.asarray(count, float) / steps)

    momentum, nesterov = method.get("momentum"), method.get("nesterov", False)
    optimizer = optax.chain(
        optax.add_decayed_weights(method.get("weight_decay", 0.0)),
        optax.sgd(schedule, momentum, nesterov),
    )

    def loss(w):
        out = x
        for layer in w:
            out = layer @ out
        return jnp.sum((y - out) ** 2) / (2 * m)

    @jax.jit
    def step(w, state):
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        return optax.apply_updates(w, updates), state

    w, state, run = weights, optimizer.init(weights), []
    for _ in range(steps):
        w, state = step(w, state)
        run.append(w)
    found = dynamics.reference_descent(
        network(weights, jnp.asarray(0.0)),
        y @ x.T / m,
        steps,
        step_size=1.0,
        schedule=schedule,
        second_moment=x @ x.T / m,
        label_size=2.0,
        save_every=1,
        **method,
    )
    for i, v in enumerate(found.weights):
        size = float(jnp.abs(v).max())
        assert_close(v, jnp.stack([w[i] for w in run]), rtol=0, atol=1e-12 * size)
    assert (np.asarray(found.envelope) == 0).all()
    assert_close(found.ts, np.cumsum([schedule(k) for k in range(steps)]), rtol=1e-12)
