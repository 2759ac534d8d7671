"""Properties of the public surface over random valid inputs (Hypothesis, derandomized)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from nlbound_jax import bounds, dynamics, networks, tasks

X64 = jax.config.jax_enable_x64
EXAMPLES = settings(max_examples=25)


def between(low, high):
    # Subnormal numbers are refused: XLA takes them for 0.
    width = 64 if X64 else 32
    return st.floats(low, high, allow_nan=False, allow_subnormal=False, width=width)


UNIT = st.floats(0, 1, allow_subnormal=False, width=32)
THEOREM = {
    "t": between(0, 1000),
    "epsilon": UNIT,
    "beta": st.floats(-30, 0).map(lambda e: 10**e),
    "gamma": st.floats(-60, 3).map(lambda e: 10**e),
    "stable_rank_root": between(1, 1000),
    "alignment": UNIT,
    "dim": st.integers(1, 10**6),
    "num_samples": st.integers(1, 10**9),
    "precision_bits": st.integers(1, 64),
    "delta": st.floats(1e-300, 0.999),
    "cells": st.integers(1, 10**9),
    "train_risk": UNIT,
}


@pytest.mark.float64
@EXAMPLES
@given(
    numbers=st.fixed_dictionaries(THEOREM),
    code=st.sampled_from([(2, 2, "repaired"), (3, 1, "printed")]),  # each compiles anew
)
def test_theorem_5_2_is_never_nan(numbers, code):
    depth, kappa, reading = code
    terms = bounds.theorem_5_2(**numbers, depth=depth, kappa=kappa, reading=reading)
    for name in ("u", "v", "log_v", "capacity", "deviation", "penalty", "value"):
        assert not np.isnan(float(getattr(terms, name))), name
    assert float(terms.value) >= numbers["train_risk"]


@pytest.mark.float64
@EXAMPLES
@given(
    numbers=st.fixed_dictionaries(THEOREM),
    name=st.sampled_from(["t", "epsilon", "stable_rank_root", "dim", "cells", "precision_bits"]),
    factor=st.floats(1.01, 10),
)
def test_theorem_5_2_is_monotone(numbers, name, factor):
    """A larger one of these never gives a smaller penalty; more samples or margin never more."""

    def penalty(**changed):
        return float(bounds.theorem_5_2(**{**numbers, **changed}, depth=2).penalty)

    larger = numbers[name] * factor
    larger = min(larger, 1.0) if name == "epsilon" else larger
    slack = 1 + 1e-9
    assert penalty(**{name: larger}) * slack >= penalty()
    assert penalty(num_samples=numbers["num_samples"] * factor) <= penalty() * slack
    assert penalty(gamma=numbers["gamma"] * factor) <= penalty() * slack


@EXAMPLES
@given(p=UNIT, c=between(0, 2**10), more=between(1, 2))
def test_kl_inverse_is_between_p_and_1_and_monotone(p, c, more):
    value = float(bounds.kl_inverse(p, c))
    assert p <= value <= 1
    assert float(bounds.kl_inverse(p, c * more)) >= value * (1 - 1e-6)
    assert float(bounds.kl_inverse(min(1.0, p * more), c)) >= value * (1 - 1e-6)


@EXAMPLES
@given(
    alpha=st.floats(0.05, 0.95),
    s=st.floats(0.05, 1),
    beta=st.floats(-3, -1).map(lambda e: 10**e),
    epsilon=UNIT,
    depth=st.integers(2, 4),
)
def test_learning_time_is_positive_and_monotone(alpha, s, beta, epsilon, depth):
    def time(a):
        return dynamics.learning_time(a, depth=depth, alignment=s, beta=beta, epsilon=epsilon)

    if alpha * s <= 1.1 * beta**depth:
        return
    value = time(alpha)
    assert 0 < float(value) < np.inf
    assert float(time(min(0.99, 1.05 * alpha))) >= float(value)


@EXAMPLES
@given(
    margin=between(-4, 4),
    spread=between(0, 4),
    gamma=st.floats(0.125, 4, width=32),
    dim=st.sampled_from([1, 2, 49]),
)
def test_smoothed_ramp_is_a_mean_of_losses(margin, spread, gamma, dim):
    value = float(bounds.smoothed_ramp(margin, spread, gamma, dim))
    assert 0 <= value <= 1
    assert value >= float(bounds.smoothed_ramp(margin + 0.125, spread, gamma, dim)) - 2e-6
    if spread == 0:
        assert value == pytest.approx(np.clip(1 - margin / gamma, 0, 1), abs=2e-6)


@EXAMPLES
@given(
    m=st.integers(2, 30),
    features=st.integers(1, 8),
    scale=st.floats(-100, 100).map(lambda e: 10**e),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(["float16", "float32", "float64", "int16", "uint8", "bool"]),
)
def test_any_valid_array_becomes_a_whitened_task(m, features, scale, seed, dtype):
    rng = np.random.default_rng(seed)
    x = 20 * rng.normal(size=(m, features))
    x = np.abs(x).astype(dtype) if dtype == "uint8" else x.astype(dtype)
    if dtype == "float64":
        x = scale * x
    y = rng.integers(0, 2, m)
    y[:2] = 0, 1
    if not np.any(x):
        return
    task = tasks.from_arrays(x, y)
    assert np.isfinite(task.x).all()
    assert_close(task.x.T @ task.x / m, np.eye(task.rank), rtol=0, atol=1e-9)
    assert 0 <= task.alignment <= 1 + 1e-12
    assert 1 <= task.rank <= min(m, features)
    assert_close(task.transform(x), task.x, rtol=0, atol=1e-7)
    back = task.transform.inverse(task.x) * task.transform.scale
    size = np.abs(np.asarray(x, float)).max()
    assert_close(back / size, np.asarray(x, float) / size, rtol=0, atol=1e-5)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), epsilon=UNIT, depth=st.integers(2, 4))
def test_a_network_is_the_same_under_jit_and_vmap_and_homogeneous(seed, epsilon, depth):
    net = networks.initialize(jax.random.key(seed), 3, 4, depth, epsilon=epsilon, beta=1.0)
    x = np.random.default_rng(seed).normal(size=(6, 3))
    out = net(x)
    assert np.isfinite(np.asarray(out)).all()
    size = float(jnp.abs(out).max())
    assert_close(eqx.filter_jit(net)(x), out, rtol=1e-6, atol=1e-6 * size)
    assert_close(jax.vmap(net)(jnp.asarray(x)), out, rtol=1e-6, atol=1e-6 * size)
    assert_close(net(4 * x), 4 * np.asarray(out), rtol=1e-6, atol=1e-5 * size)
    linear = np.asarray(bounds.linear_part(net.weights, epsilon))
    flat = networks.LeakyMLP(net.weights, jnp.zeros_like(net.epsilon))
    if epsilon == 0:
        assert_close(x @ linear, np.asarray(flat(x), float), rtol=0, atol=1e-5 * size)


@pytest.mark.float64
@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), epsilon=UNIT)
def test_grid_is_a_loop_of_single_calls(seed, epsilon):
    rng = np.random.default_rng(seed)
    numbers = {"beta": 0.01, "stable_rank_root": 2.0, "alignment": 0.6, "dim": 49}
    numbers |= {"num_samples": 60000, "epsilon": epsilon}
    t, gamma = np.sort(rng.uniform(0, 9, 3)), np.sort(10 ** rng.uniform(-9, 0, 2))
    found = bounds.grid(t, gamma=gamma, depth=2, **numbers)
    for i, j in np.ndindex(3, 2):
        one = bounds.theorem_5_2(t[i], gamma=gamma[j], depth=2, **numbers)
        assert_close(found["penalty"].values[i, j], float(one.penalty), rtol=1e-12)


@pytest.mark.float64
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    epsilon=UNIT,
    size=st.floats(-3, 3).map(lambda e: 10**e),
    depth=st.integers(2, 3),
)
def test_split_bound_is_never_nan_and_homogeneous(seed, epsilon, size, depth):
    rng = np.random.default_rng(seed)
    margins = rng.normal(0.3, 1.0, 40)
    call = {"epsilon": epsilon, "depth": depth, "dim": 5, "gammas": np.geomspace(0.01, 3, 8)}

    def bound(scale):
        return bounds.split_bound(
            scale * margins,
            np.ones(40),
            linear_norm=0.7 * scale,
            paths=np.full(depth - 1, 0.4 * scale),
            **{**call, "gammas": scale * call["gammas"]},
        )

    one, other = bound(1.0), bound(size)
    assert 0 < float(one.value) < np.inf
    assert_close(other.value, float(one.value), rtol=5e-2)  # the cells are rounded up
