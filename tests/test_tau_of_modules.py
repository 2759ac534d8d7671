"""The derivative of trained parameters in what a module holds fixed."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import EqualSteps, assert_close, small_task

from nlbound_jax import RESULTS, dynamics, networks, tasks

TASK = small_task(m=20, d=3)
KEY = jax.random.key(4)
FIXED = EqualSteps(0.125)
SAVES = diffrax.SaveAt(ts=(0.0, 0.5, 1.5))
OPTIONS = {"t1": 1.5, "saveat": SAVES, "stepsize_controller": FIXED}


class Bend(eqx.Module):
    """x where it is large, `slope` x where it is small, without a kink."""

    slope: jax.Array

    def __call__(self, x):
        return self.slope * x + (1 - self.slope) * jax.nn.softplus(x)


def mlp(out: Any = "scalar"):
    """One slope for each unit of each hidden layer: Equinox copies what an activation holds."""
    activation = Bend(jnp.asarray(0.3))
    return eqx.nn.MLP(3, out, 4, 2, activation=activation, key=KEY)


def slopes(net):
    return net.activation.slope


def trained(net, task, loss):
    """The parameters but the slopes over time, by a flow in which nothing is named."""
    constant = eqx.tree_at(lambda n: n.activation, net, Constant(slopes(net)))
    return dynamics.gradient_flow(constant, task, loss=loss, **OPTIONS).weights.layers


class Constant(eqx.Module):
    """`Bend` with a slope that training does not move."""

    slope: jax.Array

    def __call__(self, x):
        return Bend(jax.lax.stop_gradient(self.slope))(x)


def classes():
    x = np.random.default_rng(3).normal(size=(21, 3))
    return tasks.class_task(x, np.arange(21) % 3)


@pytest.mark.float64
@pytest.mark.parametrize("kind", ["squares", "cross-entropy"])
def test_against_central_differences(kind):
    net, task, loss = mlp(), TASK, None
    if kind == "cross-entropy":
        net, task, loss = mlp(3), classes(), optax.softmax_cross_entropy
    direction = np.random.default_rng(0).normal(size=slopes(net).shape)
    run = dynamics.hyperparameter_derivative(
        net, task, where=slopes, tangent=direction, loss=loss, **OPTIONS
    )
    assert run.weights.activation.slope is None
    assert run.frozen.activation.slope is None
    assert run.result == RESULTS.successful
    assert_close(run.reached, 1.5)
    assert_close(run.ts, SAVES.subs.ts)
    h = 1e-4

    def at(step):
        return trained(eqx.tree_at(slopes, net, slopes(net) + step * direction), task, loss)

    for found, same in zip(*map(jax.tree.leaves, (run.weights.layers, at(0.0))), strict=True):
        assert_close(found, same, rtol=0, atol=1e-12)
    size = 0.0
    for d, up, down in zip(*map(jax.tree.leaves, (run.frozen.layers, at(h), at(-h))), strict=True):
        # h^2 times the third derivative over 6, and the rounding of numbers of size 1 over h.
        assert_close(d, (up - down) / (2 * h), rtol=0, atol=1e-8)
        assert_close(d[0], np.zeros(d.shape[1:]))
        size = max(size, float(jnp.abs(d[-1]).max()))
    assert size > 1e-3


@pytest.mark.float64
@pytest.mark.parametrize("depth", [2, 3])
def test_of_a_leaky_mlp_it_is_the_frozen_derivative_in_tau(depth):
    """By two gradients, by hand and by JAX, on the same steps; tau is epsilon itself."""
    net = networks.initialize(KEY, 3, 4, depth, epsilon=0.3, beta=0.6)
    alone = {"central": False, "finite_difference": False}
    expected = dynamics.tau_derivative(net, TASK, **alone, **OPTIONS)
    found = dynamics.hyperparameter_derivative(net, TASK, where=lambda n: n.epsilon, **OPTIONS)
    for pair in ((found.weights, expected.weights), (found.frozen, expected.frozen)):
        for a, b in zip(*pair, strict=True):
            assert_close(a, b, rtol=0, atol=1e-11)
    assert float(expected.norms["frozen"][-1].min()) > 1e-2
    twice = {"where": lambda n: (n.epsilon,), "tangent": (-2.0,)}
    scaled = dynamics.hyperparameter_derivative(net, TASK, **twice, **OPTIONS)
    for a, b in zip(scaled.frozen, expected.frozen, strict=True):
        assert_close(a, -2 * b, rtol=0, atol=1e-11)


@pytest.mark.float64
def test_of_several_leaves_it_is_the_sum_and_under_jit_the_same():
    """A bias may be named: then it is held, and its layer's weight is trained."""
    net = mlp()

    def both(net):
        return {"slope": net.activation.slope, "bias": net.layers[0].bias}

    def derivative(where, **more):
        return dynamics.hyperparameter_derivative(net, TASK, where=where, **more, **OPTIONS)

    tangent = {"slope": np.full((2, 4), 2.0), "bias": np.array([1.0, 0.0, -1.0, 3.0])}
    together = derivative(both, tangent=tangent)
    assert together.frozen.layers[0].bias is None
    assert together.frozen.layers[0].weight.shape == (3, 4, 3)
    alone = [
        derivative(both, tangent={**tangent, name: 0 * tangent[name]}) for name in ("slope", "bias")
    ]
    for total, *parts in zip(*(jax.tree.leaves(r.frozen) for r in (together, *alone)), strict=True):
        assert_close(total, parts[0] + parts[1], rtol=0, atol=1e-13)
        assert float(jnp.abs(parts[1]).max()) > 1e-5

    @eqx.filter_jit
    def traced(net):
        return dynamics.hyperparameter_derivative(
            net, TASK, where=both, tangent=tangent, **OPTIONS
        ).frozen

    for a, b in zip(*map(jax.tree.leaves, (traced(net), together.frozen)), strict=True):
        assert_close(a, b, rtol=0, atol=1e-13)


def test_a_shared_slope_moves_everywhere_and_the_dtype_stays():
    shared = Bend(jnp.asarray(0.3))
    layers = [eqx.nn.Linear(3, 3, key=KEY), shared, eqx.nn.Linear(3, 3, key=jax.random.key(5))]
    net = eqx.nn.Sequential(
        [eqx.nn.Lambda(part) if part is shared else part for part in (*layers, shared)]
        + [eqx.nn.Linear(3, "scalar", key=KEY)]
    )
    apart = eqx.tree_at(lambda n: n.layers[3].fn.slope, net, jnp.asarray(0.3) + 0)
    one = dynamics.hyperparameter_derivative(
        net, TASK, where=lambda n: n.layers[1].fn.slope, **OPTIONS
    )
    two = dynamics.hyperparameter_derivative(
        apart, TASK, where=lambda n: (n.layers[1].fn.slope, n.layers[3].fn.slope), **OPTIONS
    )
    for a, b in zip(*map(jax.tree.leaves, (one.frozen, two.frozen)), strict=True):
        assert a.dtype == net.layers[0].weight.dtype
        assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_not_reached_is_inf():
    options = {**OPTIONS, "where": slopes, "max_steps": 5}
    with pytest.raises(RuntimeError, match=r"^hyperparameter_derivative stopped at t = 0.625 of 1"):
        dynamics.hyperparameter_derivative(mlp(), TASK, **options)
    run = dynamics.hyperparameter_derivative(mlp(), TASK, throw=False, **options)
    assert run.result == RESULTS.max_steps_reached
    assert jnp.isfinite(run.ts).tolist() == [True, True, False]
    for tree in (run.weights, run.frozen):
        for leaf in jax.tree.leaves(tree):
            assert jnp.isfinite(leaf[:2]).all()
            assert jnp.isposinf(leaf[2]).all()


def first_bias(net):
    return net.layers[0].bias


REFUSED = [
    ({"where": "slope"}, r"`where` must be a function where\(net\) -> arrays of net, got 'slope'"),
    ({"where": lambda n: n.slope}, "`where` must return floating .*, got AttributeError: .*slope"),
    ({"where": lambda n: None}, "`where` must return floating arrays .* leaves of `net`.*got None"),
    ({"where": lambda n: ()}, r"`where` must return floating arrays .*, got \(\)"),
    ({"where": lambda n: 2 * first_bias(n)}, r"`where` must .*, got an array of shape \(4,\)"),
    ({"where": lambda n: n.layers[0].in_features}, "`where` must return floating arrays.* got 3"),
    ({"where": lambda n: n.activation.fn}, "`where` must return floating arrays"),
    ({"where": lambda n: (first_bias(n), first_bias(n))}, "`where` must .* each once, got"),
    ({"tangent": np.ones(3)}, r"`tangent` must have the shape .*, \(4,\), got \(3,\)"),
    ({"tangent": 1.0}, r"`tangent` must have the shape .*, \(4,\), got \(\)"),
    ({"tangent": np.full(4, np.nan)}, "`tangent` must be a finite number, got nan"),
    ({"tangent": "ones"}, "`tangent` must be"),
    ({"where": lambda n: (first_bias(n),), "tangent": np.ones(4)}, "`tangent` must be a tree like"),
    ({"saveat": diffrax.SaveAt(steps=True)}, "`saveat` must be of t0, t1 or ts, got steps"),
    ({"t1": -1.0}, "`t1` must be positive"),
    ({"loss": "squares"}, "`loss` must be a function"),
    ({"task": 3}, "`task` must be a Task or a ClassTask, got 3"),
    ({"net": jnp.tanh}, "`net` must be an Equinox module"),
    (
        {"net": eqx.nn.Linear(3, "scalar", key=KEY), "where": lambda n: (n.weight, n.bias)},
        "`net` must have parameters, floating arrays of JAX, beside what `where` names, got none",
    ),
]


@pytest.mark.quick
@pytest.mark.parametrize(("changed", "text"), REFUSED)
def test_what_is_wrong_gets_one_line(no_type_checks, changed, text):
    call = {"net": mlp(), "task": TASK, "where": first_bias, "t1": 0.1} | changed
    with pytest.raises(ValueError, match=f"^{text}") as caught:
        dynamics.hyperparameter_derivative(**call)
    assert "\n" not in str(caught.value)
