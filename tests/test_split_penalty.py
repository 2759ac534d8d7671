"""The split bound as a regulariser: its value, its gradient, and what training on it does."""

import importlib.util
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from test_split import halving, random_weights

from nlbound_jax.bounds import split_penalty

pytestmark = pytest.mark.float64


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def by_loops(weights, epsilon, m, gamma, noise, spectrum, exponent, log_terms):
    depth, dim = len(weights), weights[0].shape[1]
    mu = np.asarray(spectrum) ** exponent
    mu = mu / sum(mu)
    nonlinear = 0.0
    for j in range(1, depth):
        ahead = np.eye(weights[j - 1].shape[0])
        for w in weights[j:]:
            ahead = w @ ahead
        first = weights[0] / np.sqrt(mu)
        layers = [first, *weights[1:]]
        inner = math.prod(math.sqrt(np.sum(w**2)) for w in layers[: j - 1])
        rows = [math.sqrt(sum(row**2)) for row in layers[j - 1]]
        total = inner * sum(abs(a) * r for a, r in zip(ahead[0], rows, strict=True))
        rho = 1 - epsilon / 2 + epsilon / math.sqrt(2)
        nonlinear += (1 - epsilon / 2) ** (depth - 1 - j) * rho ** (j - 1) * total
    straight = np.eye(dim)
    for w in weights:
        straight = w @ straight
    size = (1 - epsilon / 2) ** (depth - 1) * np.linalg.norm(straight) / gamma
    capacity = math.sqrt((dim * math.log(1 + size / noise) + log_terms) / (2 * m))
    return halving(m) * epsilon / math.sqrt(m) * nonlinear / gamma + capacity


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("exponent", [0.0, 0.25])
def test_the_penalty_is_that_of_the_bound_unrounded(depth, exponent):
    weights = random_weights(np.random.default_rng(depth), depth)
    spectrum = np.array([2.0, 0.5, 0.1])
    rest = {"gamma": 0.7, "noise": 0.1, "spectrum": spectrum, "exponent": exponent}
    rest["log_terms"] = 20.0
    ours = tuple(map(jnp.asarray, weights))
    found = split_penalty(ours, 0.4, num_samples=500, **rest)
    assert_close(found, by_loops(weights, 0.4, 500, **rest), rtol=1e-12)


def test_the_gradient_is_right_and_finite_where_a_row_is_zero():
    weights = tuple(map(jnp.asarray, random_weights(np.random.default_rng(1), 3)))

    def penalty(w):
        return split_penalty(w, 0.7, num_samples=200)

    slope, rng = jax.grad(penalty)(weights), np.random.default_rng(2)
    toward = tuple(jnp.asarray(rng.normal(size=w.shape)) for w in weights)
    ends = [
        penalty(tuple(w + s * t for w, t in zip(weights, toward, strict=True)))
        for s in (1e-5, -1e-5)
    ]
    inner = sum(jnp.sum(s * t) for s, t in zip(slope, toward, strict=True))
    assert_close((ends[0] - ends[1]) / 2e-5, inner, rtol=1e-6)
    for zeros in ((weights[0].at[1].set(0.0), *weights[1:]), tuple(0 * w for w in weights)):
        for w in jax.grad(penalty)(zeros):
            assert jnp.isfinite(w).all()
    single = tuple(w.astype(jnp.float32) for w in weights)
    assert penalty(single).dtype == jnp.float32
    assert_close(penalty(single), penalty(weights), rtol=1e-5)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_samples", 0),
        ("gamma", 0.0),
        ("noise", -1.0),
        ("noise", math.nan),
        ("log_terms", -1.0),
        ("exponent", -0.5),
        ("exponent", 0.25),
        ("spectrum", np.ones(2)),
        ("spectrum", np.zeros(3)),
        ("epsilon", 1.5),
        ("weights", np.ones(3)),
    ],
)
def test_bad_input_is_refused(name, value):
    weights = tuple(map(jnp.asarray, random_weights(np.random.default_rng(1), 2)))
    given = {"weights": weights, "epsilon": 0.5, "num_samples": 100}
    split_penalty(**given)
    with pytest.raises(ValueError, match=f"`{name}`") as info:
        split_penalty(**given | {name: value})
    assert "\n" not in str(info.value)


def test_training_on_the_bound_lowers_it():
    """The example of the README, for two epochs."""
    path = Path(__file__).parent.parent / "docs" / "train_on_the_bound.py"
    spec = importlib.util.spec_from_file_location("train_on_the_bound", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with jax.numpy_dtype_promotion("standard"):  # for Optax
        made = example.main(epochs=2)
    without, trained = (made[p]["split-a-posteriori"]["value"] for p in (0.0, 2.0))
    assert trained < without - 0.02
    assert made[2.0].test_risk < trained < 0.4
