"""Outputs that are zero, or too small for float32, are not right by accident."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, small_data

from nlbound_jax import Settings, certify, ladder, networks, report, tasks

TASK = tasks.from_arrays(**small_data(), norm_bound=60.0)


def network(dtype, depth=2, seed=0, epsilon=0.3):
    return networks.initialize(
        jax.random.key(seed), TASK.rank, 5, depth, epsilon=epsilon, beta=0.7, dtype=dtype
    )


def times(net, factor, layer=0):
    """The network with one layer times a power of two, exactly."""
    return eqx.tree_at(lambda n: n.weights[layer], net, net.weights[layer] * factor)


@pytest.mark.parametrize("depth", [2, 4])
def test_a_network_is_its_units_times_what_is_left(depth):
    net = times(network(None, depth), 2.0**-20)
    scaled, unit = networks.in_units(net)
    assert np.array_equal(net(TASK.x), scaled(TASK.x) * unit.astype(net.weights[0].dtype))
    assert all(0.5 <= float(jnp.max(jnp.abs(w))) < 1 for w in scaled.weights)
    assert np.log2(float(unit)) == round(np.log2(float(unit)))


@pytest.mark.parametrize("odd", [0.0, np.nan, np.inf])
def test_what_has_no_unit_stays_what_it_is(odd):
    net = network(None)
    net = eqx.tree_at(lambda n: n.weights[0], net, jnp.full_like(net.weights[0], odd))
    scaled, unit = networks.in_units(net)
    assert np.array_equal(scaled.weights[0], net.weights[0], equal_nan=True)
    assert np.isfinite(float(unit))


@pytest.mark.float64
@pytest.mark.parametrize("layer", [0, 1])
def test_no_risk_depends_on_the_scale_of_a_layer(layer):
    """2^-120 (1e-36): the outputs of a float32 network are subnormal or zero, its signs are not."""
    factor = 2.0**-120
    net = times(network("float32"), 2.0**-20, 1 - layer)
    small = times(net, factor, layer)
    assert not np.asarray(small(TASK.x)).any()
    samples = ladder.samples_of(TASK, "float32", 0.01, held_out=False)
    gammas = jnp.asarray([0.1, 0.5]) * 2.0**-20
    one = ladder.Snapshot(net, samples, gammas=gammas)
    other = ladder.Snapshot(small, samples, gammas=gammas * factor)
    assert 0 < float(one.margin_risk(one.gammas)[0]) < 1
    for risk in ("margin_risk", "ramp_risk"):
        found = [getattr(at, risk)(at.gammas) for at in (one, other)]
        assert np.array_equal(*found)
    assert np.array_equal(one.margins * factor, other.margins)
    assert np.array_equal(net.predict(TASK.x), small.predict(TASK.x))
    made = [certify(n, TASK) for n in (net, small)]
    assert made[0].train_risk == made[1].train_risk > 0
    assert made[0].test_risk == made[1].test_risk > 0
    for row, same in zip(made[0].rows, made[1].rows, strict=True):
        for name in ("train_term", "complexity", "rest", "train_margin_risk", "train_ramp_risk"):
            assert_close(same[name], row[name], rtol=1e-12)
        assert_close(same["gamma"], row["gamma"] * factor, rtol=1e-12)
        assert_close(same["parts"]["noise"], row["parts"]["noise"] * factor, rtol=1e-12)


@pytest.mark.float64
def test_a_report_at_a_tiny_beta_has_the_risks_of_a_small_one():
    """At equal stages: the learning time depends on beta. Before, every error was 0 where the
    outputs underflow, and a bound was a certificate of it."""
    settings = {"width": 4, "num_times": 4, "until": 0.5, "epsilon": 0.001}
    bounds = [ladder.RepairedTheorem52Bound(), ladder.SplitAPosteriori()]
    small, tiny = (report(TASK, Settings(**settings, beta=b), bounds=bounds) for b in (1e-3, 1e-25))
    # Early on all of them are aligned alike; the flow is right to its tolerance.
    assert_close(tiny.train_risk[-1], small.train_risk[-1], rtol=0, atol=4 / 120)
    assert (tiny.train_risk > 0.05).all()
    for row in tiny.rows():
        numbers = [row[name] for name in ("train_term", "value", "train_margin_risk")]
        assert not np.isnan([*numbers, row["train_ramp_risk"]]).any()
        assert row["train_margin_risk"] >= row["train_ramp_risk"] > 0


@pytest.mark.float64
def test_an_output_of_zero_is_an_error():
    net = eqx.tree_at(lambda n: n.weights[1], network(None), jnp.zeros((1, 5)))
    assert certify(net, TASK).train_risk == certify(net, TASK).test_risk == 1.0
    assert net.predict(TASK.x).tolist() == [1.0] * TASK.num_samples
