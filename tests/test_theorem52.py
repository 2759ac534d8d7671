import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from helpers import assert_close, oracle_u_log_v, traced_anew

from nlbound_jax import RESULTS, bounds
from nlbound_jax.bounds import _theorem52

pytestmark = [pytest.mark.float64, pytest.mark.quick]

mp.mp.dps = 40
BASE = {
    "depth": 2,
    "epsilon": 0.01,
    "beta": 1e-3,
    "gamma": 1e-4,
    "stable_rank_root": 5.0,
    "alignment": 0.633,
    "dim": 49,
    "num_samples": 60000,
}
READINGS = ("printed", "repaired")


def evaluate(t=3.0, **changes):
    return bounds.theorem_5_2(t, **(BASE | changes))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.3, 1.0])
@pytest.mark.parametrize(("rho", "beta", "t"), [(1.0, 1e-3, 4.0), (6.0, 0.1, 1.5), (20.0, 1e-5, 9)])
def test_eq_9_to_11_at_depth_2(reading, epsilon, rho, beta, t):
    terms = evaluate(t, epsilon=epsilon, beta=beta, stable_rank_root=rho, reading=reading)
    u, log_v = oracle_u_log_v(2, t, epsilon, beta, rho, 0.633, reading)
    assert_close(terms.u, float(u), rtol=1e-12)
    assert_close(terms.log_v, float(log_v), rtol=0, atol=1e-11)
    assert_close(terms.v, float(mp.e**log_v), rtol=1e-11)


@pytest.mark.parametrize("kappa", [1, 2])
def test_eq_6_to_8_the_terms_add_up(kappa):
    terms = evaluate(kappa=kappa, train_risk=0.2, cells=120, delta=0.05, precision_bits=16)
    rho, d, m, eps, gamma = 5.0, 49, 60000, 0.01, 1e-4
    phi = {1: 2 * d**0.5 + 1 + rho, 2: (3 + rho) * d**0.5 + 2 * (1 + rho)}[kappa]
    deviation = phi * terms.v * terms.u * eps**kappa / gamma
    capacity = np.sqrt((kappa * 16 * d * np.log(2) + np.log(120 / 0.05)) / (2 * m))
    assert_close(terms.deviation, deviation, rtol=1e-12)
    assert_close(terms.capacity, capacity, rtol=1e-12)
    assert_close(terms.penalty, deviation + capacity, rtol=1e-12)
    assert_close(terms.value, 0.2 + deviation + capacity, rtol=1e-12)
    assert evaluate().value is None


def test_capacity_of_the_papers_setting():
    """The floor of the paper's bound at d = 49, p = 32, delta = 0.05: 0.1347."""
    assert float(evaluate(delta=0.05).capacity) == pytest.approx(0.1347, abs=5e-5)
    assert float(evaluate(delta=0.05, kappa=1).capacity) == pytest.approx(0.0953, abs=5e-5)


def test_the_readings_agree_for_linear_networks_of_rank_one():
    both = [evaluate(epsilon=0.0, stable_rank_root=1.0, reading=r) for r in READINGS]
    assert_close(both[0].u, both[1].u, rtol=1e-14)
    assert_close(both[0].v, both[1].v, rtol=1e-12)
    assert float(both[0].deviation) == 0


def test_without_assumption_5_1_the_bound_is_larger():
    assert float(evaluate(assumption_5_1=False).deviation) > float(evaluate().deviation)
    u, log_v = oracle_u_log_v(2, 3.0, 0.01, 1e-3, 5.0, 0.633, "repaired", assumption=False)
    terms = evaluate(assumption_5_1=False)
    assert_close(terms.u, float(u), rtol=1e-12)
    assert_close(terms.log_v, float(log_v), rtol=0, atol=1e-11)


def test_arrays_broadcast_and_agree_with_single_numbers():
    ts, epsilons = np.linspace(0.5, 8, 4)[:, None], np.array([1e-3, 0.1, 0.9])
    grid = evaluate(ts, epsilon=epsilons, train_risk=0.1)
    assert grid.value.shape == grid.log_v.shape == grid.capacity.shape == (4, 3)
    one = evaluate(ts[2, 0], epsilon=epsilons[1], train_risk=0.1)
    assert_close(grid.value[2, 1], one.value)
    mapped = jax.vmap(lambda e: evaluate(2.0, epsilon=e).log_v)(jnp.asarray(epsilons))
    assert_close(mapped, evaluate(2.0, epsilon=epsilons).log_v)
    assert (grid.result == RESULTS.successful).all()


def test_v_overflows_before_u_and_log_v_stays():
    terms = evaluate(20.0, epsilon=0.5, gamma=1.0)
    assert np.isinf(terms.v)
    assert np.isfinite(terms.log_v)
    assert np.isfinite(terms.u)


def test_a_new_number_does_not_recompile(monkeypatch):
    traced = eqx.debug.assert_max_traces(_theorem52.log_v, max_traces=1)
    monkeypatch.setattr(_theorem52, "log_v", traced)
    traced_anew(monkeypatch, _theorem52, "_evaluate")
    for epsilon, t in ((0.1, 1.0), (0.25, 2), (0, 3.5)):
        evaluate(t, epsilon=epsilon, train_risk=epsilon)


BAD = [
    ("t", -1.0, "finite and at least 0"),
    ("depth", 1, "an integer of at least 2"),
    ("epsilon", 1.3, r"in \[0, 1\]"),
    ("epsilon", np.nan, r"in \[0, 1\]"),
    ("beta", 0.0, "positive and finite"),
    ("gamma", 0.0, "positive and finite"),
    ("stable_rank_root", 0.5, "finite and at least 1"),
    ("alignment", 1.5, r"in \[0, 1\]"),
    ("dim", 0, "finite and at least 1"),
    ("num_samples", 0, "finite and at least 1"),
    ("kappa", 3, "one of 1, 2"),
    ("precision_bits", 0, "finite and at least 1"),
    ("delta", 1.0, r"in \(0, 1\)"),
    ("cells", 0, "finite and at least 1"),
    ("train_risk", 1.5, r"in \[0, 1\]"),
    ("reading", "typo", "one of 'printed', 'repaired'"),
    ("assumption_5_1", "no", "one of True, False"),
    ("gamma", [1.0, -1.0], "positive and finite"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_bad_arguments_get_one_line(no_type_checks, name, value, allowed):
    with pytest.raises(ValueError, match=f"^`{name}` must be {allowed}, got [^\n]*$"):
        evaluate(**{name: value})


def test_combinations_that_do_not_go_together():
    with pytest.raises(ValueError, match="`assumption_5_1` must be True with reading='printed'"):
        evaluate(reading="printed", assumption_5_1=False)
    with pytest.raises(ValueError, match=r"must broadcast .* `epsilon` \(2,\), `beta` \(3,\)"):
        evaluate(epsilon=[0.1, 0.2], beta=[0.1, 0.2, 0.3])


def test_without_float64_it_says_so():
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="`theorem_5_2` must run in float64, got jax_enable_x64"),
    ):
        evaluate()
