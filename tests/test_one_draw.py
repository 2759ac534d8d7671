"""The one-draw bound: its terms from the formula, what it must refuse, the inequality behind it,
and an attack: a predictor that memorizes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import assert_close, kl_inverse

from nlbound_jax.bounds import _one_draw, one_draw_bound

pytestmark = pytest.mark.float64
KEY = jax.random.key(3)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


class Net(eqx.Module):
    first: jax.Array
    last: tuple[jax.Array, ...]


def problem(n=80, dtype="float64"):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 3)), rng.choice([-1.0, 1.0], size=n)
    centre = Net(
        jnp.asarray(rng.normal(size=(4, 3)), dtype), (jnp.asarray(rng.normal(size=(4,)), dtype),)
    )
    moved = jax.tree.map(lambda w: w + jnp.asarray(0.05 * rng.normal(size=w.shape), dtype), centre)

    def errors(net):
        out = jnp.maximum(net.first @ x.T.astype(dtype), 0).T @ net.last[0]
        return ~(jnp.asarray(y, dtype) * out > 0)

    return moved, centre, errors


def test_every_term_is_the_formula():
    net, anchor, errors = problem()
    scales = Net(0.5, (jnp.asarray([1.0, 2.0, 3.0, 4.0]),))
    factors, etas = (0.05, 0.2), (0.1, 0.3)
    found = one_draw_bound(
        net,
        anchor,
        errors,
        scales=scales,
        key=KEY,
        delta=0.1,
        factors=factors,
        etas=etas,
        anchors=3,
    )
    drawn, n = found.parameters, 80
    factor = factors[int(found.cell)]
    assert_close(found.scale, factor)
    sizes = [np.full((4, 3), 0.5), np.array([1.0, 2.0, 3.0, 4.0])]
    information = 0.0
    for w, u, p, s in zip(*map(jax.tree.leaves, (net, anchor, drawn)), sizes, strict=True):
        z = np.asarray(p - w) / (factor * s)
        assert np.abs(z).max() < 5  # one standard normal draw
        shift = np.asarray(w - u) / (factor * s)
        information += np.sum(shift**2) / 2 + np.sum(shift * z)
    assert_close(found.information, information, rtol=1e-9)
    mine, other = (np.asarray(errors(p), float) for p in (drawn, anchor))
    exponent = (max(information, 0) + np.log(2 * np.sqrt(n) * 2 * 3 / (0.05 * 0.1))) / n
    assert_close(found.exponent, exponent, rtol=1e-9)
    assert_close(found.kl_value, kl_inverse(mine.mean(), exponent), rtol=1e-7)
    delta_1, delta_2 = 0.85 * 0.1 / 3, 0.1 * 0.1
    limit = scipy.special.betaincinv(other.sum() + 1, n - other.sum(), 1 - delta_1)
    gap, square = (mine - other).mean(), ((mine - other) ** 2).mean()
    every = []
    for eta in etas:
        theta = (-np.log(1 - eta) - eta) / eta**2
        price = (information + np.log(2 * 2 * 3 / delta_2)) / (eta * n)
        every.append(limit + gap + eta * theta * square + price)
    assert_close(found.anchor_bound, limit, rtol=1e-8)
    assert_close(found.excess_value, min(every), rtol=1e-8)
    assert_close(found.value, min(found.kl_value, found.excess_value))
    assert_close(found.log_cells, np.log(2 * 2 * 3))


def test_the_certified_parameters_are_those_that_were_drawn():
    net, anchor, errors = problem(dtype="float32")
    found = one_draw_bound(net, anchor, errors, scales=0.1, key=KEY)
    assert [w.dtype for w in jax.tree.leaves(found.parameters)] == [np.float32] * 2
    assert_close(found.empirical, np.asarray(errors(found.parameters), float).mean())
    again = one_draw_bound(net, anchor, errors, scales=0.1, key=KEY)
    assert eqx.tree_equal(found, again)
    other = one_draw_bound(net, anchor, errors, scales=0.1, key=jax.random.key(4))
    assert not eqx.tree_equal(found.parameters, other.parameters)


def test_zeros_and_what_is_not_a_number_are_errors():
    net, anchor, errors = problem()
    zero = jax.tree.map(jnp.zeros_like, anchor)
    found = one_draw_bound(zero, zero, errors, scales=1e-300, key=KEY)
    assert float(found.anchor_risk) == 1
    odd = one_draw_bound(net, anchor, lambda p: jnp.full(50, jnp.nan), scales=0.1, key=KEY)
    assert float(odd.empirical) == float(odd.anchor_risk) == float(odd.anchor_bound) == 1
    assert float(odd.value) >= 1


def test_losses_between_zero_and_one_take_chernoffs_limit():
    net, anchor, errors = problem()
    found = one_draw_bound(
        net, anchor, lambda p: jnp.where(errors(p), 0.5, 0.0), scales=0.1, key=KEY, delta=0.1
    )
    expected = kl_inverse(0.5 * np.asarray(errors(anchor)).mean(), -np.log(0.085) / 80)
    assert_close(found.anchor_bound, expected, rtol=1e-7)


def test_it_can_be_traced():
    net, anchor, errors = problem()
    eager = one_draw_bound(net, anchor, errors, scales=0.1, key=KEY)
    jitted = eqx.filter_jit(lambda *a: one_draw_bound(*a, errors, scales=0.1, key=KEY))(net, anchor)
    assert_close(jitted.value, eager.value, rtol=1e-9)


def test_maurers_constant_holds_for_few_samples_too():
    """He asks for n >= 8."""
    for n in range(1, 12):
        k = np.arange(n + 1)
        terms = scipy.special.comb(n, k) * (k / n) ** k * (1 - k / n) ** (n - k)
        assert terms.sum() <= 2 * np.sqrt(n) * (1 + 1e-12)


def test_the_density_of_the_draw():
    """E exp(-I) = 1 over z: the change of measure from the anchor's noise to the network's."""
    rng = np.random.default_rng(1)
    shift = 0.4 * rng.normal(size=4)
    z = rng.normal(size=(200_000, 4))
    weight = np.exp(-(np.sum(shift**2) / 2 + z @ shift))
    assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(len(weight))
    half = np.exp(-(np.sum(shift**2) / 2 + z @ shift) / 2)
    assert half.mean() < 1 - 5 * half.std() / np.sqrt(len(half))


def test_the_inequality_of_the_excess_form():
    """-ln(1 - x) <= x + theta x^2 at x <= eta, in equality at eta: so a smaller theta fails."""
    for eta in (0.05, 0.3, 0.6, 0.95):
        theta = (-np.log1p(-eta) - eta) / eta**2
        x = np.linspace(-30, eta, 20_001)
        slack = x + theta * x**2 + np.log1p(-x)
        assert slack.min() > -1e-13
        assert abs(slack[-1]) < 1e-12
        assert (x + 0.99 * theta * x**2 + np.log1p(-x)).min() < -1e-6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"parameters": ()}, "parameters"),
        ({"parameters": (np.array([1]),)}, "parameters"),
        ({"anchor": (np.ones(3),)}, "anchor"),
        ({"scales": 0.0}, "scales"),
        ({"scales": (1.0, 2.0)}, "scales"),
        ({"scales": Net(np.ones(7), (1.0,))}, "scales"),
        ({"factors": ()}, "factors"),
        ({"etas": (1.0,)}, "etas"),
        ({"anchors": 0}, "anchors"),
        ({"delta": 0.0}, "delta"),
        ({"key": 1}, "key"),
        ({"errors": 3}, "errors"),
        ({"errors": lambda p: np.full(5, 2.0)}, "errors"),
        ({"errors": lambda p: np.zeros((5, 1))}, "errors"),
    ],
)
def test_what_is_wrong_is_named(no_type_checks, change, named):
    net, anchor, errors = problem()
    call = {"parameters": net, "anchor": anchor, "errors": errors, "scales": 0.1, "key": KEY}
    with pytest.raises(ValueError, match=f"`{named}` must"):
        one_draw_bound(**call | change)


# The attack: parameter j is the error at point j of a population of 100 n points, and the "trained"
# one is moved just where the sample is. Half of all points are errors whatever happens.


def memorizer(trial, move, n=400):
    """The bound and the true risk."""
    rng = np.random.default_rng(trial)
    size = 100 * n
    seen = rng.integers(size, size=n)
    centre = jnp.zeros(size)
    moved = centre.at[np.unique(seen)].set(-move)
    found = one_draw_bound(
        (moved,),
        (centre,),
        lambda p: jnp.where(p[0][seen] >= 0, 1.0, 0.0),
        scales=1.0,
        key=jax.random.key(trial),
        delta=0.1,
        factors=(1.0,),
        etas=(0.3,),
    )
    return found, float(jnp.mean(found.parameters[0] >= 0))


def failures(move, trials):
    found = [memorizer(trial, move) for trial in range(trials)]
    return {
        "value": np.mean([float(b.value) < risk for b, risk in found]),
        "kl": np.mean([float(b.kl_value) < risk for b, risk in found]),
    }


def test_a_memorizer_does_not_break_the_bound():
    for move in (0.3, 0.6, 1.0):
        assert failures(move, 20) == {"value": 0, "kl": 0}


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_mutant_that_pays_less_is_broken(monkeypatch, share):
    """With half of the complexity, or none of the information."""
    plain = _one_draw._kl_form

    def mutant(mine, information, cells, delta):
        found = plain(mine, share * information, cells, delta)
        if share:  # the confidence as well
            cost = found["exponent"] - share * jnp.maximum(information, 0) / mine.shape[0]
            low = found["exponent"] - (1 - share) * cost
            found |= {"kl_value": _one_draw.invert(found["empirical"], low)}
        return found

    monkeypatch.setattr(_one_draw, "_kl_form", mutant)
    assert failures(0.6, 20)["kl"] > 0.25  # delta is 0.1
