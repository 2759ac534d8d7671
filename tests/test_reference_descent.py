"""The envelope of gradient descent, against leaky networks trained by NumPy."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brute_descent import batch, distance, error_and_gradient, rms, square_root, train
from helpers import assert_close

from nlbound_jax import dynamics, networks

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
    net = networks.LeakyMLP(tuple(w[-1:] if i == len(weights) - 1 else w for i, w in enumerate(weights)), epsilon)
    return eqx.tree_at(lambda n: n.weights, net, tuple(weights))


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
