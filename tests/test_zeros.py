"""Outputs that are zero, or too small for float32, are not right by accident."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, small_data

from nlbound_jax import Settings, bounds, certify, ladder, networks, report, tasks
from nlbound_jax.report import end_time, start_network

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


FAR = {"width": 1, "num_times": 1, "max_steps": 16, "dtype": "float64"}


@pytest.mark.float64
@pytest.mark.parametrize(
    "settings",
    [
        # Margins below the doubles, of outputs that are not and of outputs that are.
        {**FAR, "ratios": (1e300, 1e-300), "beta": 1e-9, "end_time": 1.0},
        pytest.param({**FAR, "depth": 3, "beta": 4e-142, "until": 0.9}, marks=pytest.mark.slow),
        {**FAR, "beta": 1e-220, "ratios": (1e-300, 30.0), "end_time": 1e-3},
    ],
)
def test_a_margin_below_the_doubles_is_no_bound_and_says_so(settings):
    for row in report(TASK, Settings(**settings)).rows():
        numbers = [row[name] for name in ("train_term", "complexity", "rest", "uncapped")]
        assert not np.isnan(numbers).any(), row
        assert np.isfinite(numbers).all() == (row["result"] == "successful"), row


@pytest.mark.parametrize("beta", [1e20, 1e11])
def test_a_start_whose_gradients_exceed_the_dtype_is_refused(beta):
    message = (
        r"^`beta` must be in \[9.86e-32, 3.44e\+10\] at depth 2 in float32, \[1e-292, 3.42e\+97"
    )
    with pytest.raises(ValueError, match=message):
        start_network(TASK, Settings(beta=beta, end_time=1.0))


@pytest.mark.float64
def test_an_until_below_the_doubles_is_refused_by_the_start():
    with pytest.raises(ValueError, match=r"^`beta` must be below [^\n]* at `until` = 4.94066e-324"):
        end_time(TASK, Settings(until=5e-324))


@pytest.mark.float64
def test_subnormal_numbers_are_refused():
    """XLA takes them for 0, and with them what the bound depends on."""
    numbers = {"depth": 2, "epsilon": 0.1, "beta": 0.1, "gamma": 0.1, "stable_rank_root": 1.0}
    numbers |= {"alignment": 0.5, "dim": 3, "num_samples": 100}
    for name in ("epsilon", "beta", "gamma"):
        with pytest.raises(
            ValueError, match=rf"^`{name}` must be [^\n]* in float64, whose [^\n]*$"
        ):
            bounds.theorem_5_2(1.0, **numbers | {name: 1e-310})


@pytest.mark.float64
def test_the_residual_of_outputs_beyond_the_dtype():
    net = times(network("float32"), 2.0**100)
    net = times(net, 2.0**100, 1)
    assert not np.isfinite(np.asarray(net(TASK.x))).all()
    found = ladder.root_mean_square_residual(net, TASK)
    plain = np.asarray(network("float64")(TASK.x)) * 2.0**200
    assert_close(found, np.sqrt(np.mean(plain**2)), rtol=1e-5)
