"""The certificate of any Equinox module: what counts as an error, its terms by leaf, what it
refuses, and an attack on a finite population of three classes."""

import functools
import importlib.util
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_close
from test_anchored_attack import ascend, kl_inverse

from nlbound_jax import bounds, certify_module, networks
from nlbound_jax.bounds import _one_draw, one_draw_bound

pytestmark = pytest.mark.float64
KEY = jax.random.key(5)


class Table(eqx.Module):
    """An input is the outputs themselves: the parameter adds to them."""

    shift: jax.Array

    def __call__(self, x, key=None):
        return x + self.shift


class Gated(eqx.Module):
    """Dropout, BatchNorm with its state, whole numbers and a function."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    last: eqx.nn.Linear
    state: eqx.nn.State
    order: jax.Array

    def __call__(self, x):
        hidden, _ = self.norm(self.first(x[self.order]), self.state)
        return self.last(self.dropout(jax.nn.relu(hidden)))


def gated(dtype=None):
    def make(key):
        a, b = jax.random.split(key)
        norm = eqx.nn.BatchNorm(5, "batch", mode="ema", dtype=dtype)
        return (
            eqx.nn.Linear(3, 5, key=a, dtype=dtype),
            norm,
            eqx.nn.Dropout(0.5),
            eqx.nn.Linear(5, 3, key=b, dtype=dtype),
        )

    parts, state = eqx.nn.make_with_state(make)(jax.random.key(0))
    return Gated(*parts, state, jnp.asarray([2, 0, 1]))


def moved(net, by):
    keys = iter(jax.random.split(jax.random.key(9), 20))

    def move(w):
        if not eqx.is_inexact_array(w):
            return w
        return w + by * jax.random.normal(next(keys), w.shape, w.dtype)

    return jax.tree.map(move, net)


def mlp(out_size=3, dtype=None):
    return eqx.nn.MLP(2, out_size, 6, 1, key=jax.random.key(1), dtype=dtype)


def sample(n=90, classes=3, dtype=float):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)).astype(dtype), rng.integers(classes, size=n)


def test_a_tie_and_nan_are_errors():
    inf, nan = np.inf, np.nan
    outputs = [
        ([0.0, 2.0, 1.0], 1, False),
        ([0.0, 2.0, 1.0], 2, True),
        ([0.0, 2.0, 2.0], 1, True),
        ([0.0, 2.0, 2.0], 2, True),
        ([0.0, 0.0, 0.0], 0, True),
        ([nan, 2.0, 1.0], 1, True),
        ([0.0, nan, 1.0], 1, True),
        ([nan, nan, nan], 0, True),
        ([0.0, inf, 1.0], 1, False),
        ([inf, inf, 1.0], 1, True),
        ([-inf, -inf, -inf], 0, True),
        ([-inf, 0.0, -inf], 1, False),
    ]
    x, y, wrong = (np.asarray(column) for column in zip(*outputs, strict=True))
    spoilt = np.asarray([[1.0, np.nan, 0.0], [1.0, np.inf, 0.0]])
    for row, label, expected in zip(x, y, wrong, strict=True):
        # The door lets no such input in, so the network makes it.
        net = eqx.nn.Lambda(lambda z, row=row: jnp.asarray(row) + 0 * jnp.sum(z))
        seq = eqx.nn.Sequential([Table(jnp.zeros(1)), net])
        found = certify_module(seq, seq, np.zeros((4, 1)), [label] * 4, key=KEY, factors=(1.0,))
        assert set(found.risk.values()) == {float(expected)}, row
    with pytest.raises(ValueError, match="`x` must be finite"):
        certify_module(Table(jnp.zeros(3)), Table(jnp.zeros(3)), spoilt, [0, 1], key=KEY)


def test_one_output_takes_signs_and_zero_is_an_error():
    for shape in ((), (1,)):
        net = eqx.nn.Sequential(
            [eqx.nn.Lambda(lambda x, s=shape: jnp.reshape(x[0], s)), Table(jnp.zeros(shape))]
        )
        x = np.asarray([[1.0], [-1.0], [0.0], [0.0], [2.0]])
        found = certify_module(
            net, net, x, [1, -1, 1, -1, -1], key=KEY, scales=1e-300, factors=(1.0,)
        )
        # The draw moves both zeros to one side: one of the two is right.
        assert_close(list(found.risk.values()), [0.6, 0.6, 0.4])


def test_every_number_is_the_one_of_the_drawn_module():
    anchor = mlp()
    net, (x, y) = moved(anchor, 0.05), sample()
    x_test, y_test = sample(40)
    found = certify_module(
        net, anchor, x, y, key=KEY, delta=0.1, x_test=x_test, y_test=y_test, batch=7
    )
    nets = {"anchor": anchor, "network": net, "drawn": found.drawn}
    for data, risk in (((x, y), found.risk), ((x_test, y_test), found.test_risk)):
        for name, one in nets.items():
            wrong = np.argmax(np.asarray(jax.vmap(one)(jnp.asarray(data[0]))), axis=1) != data[1]
            assert_close(risk[name], wrong.mean())
    errors = round(found.risk["anchor"] * 90)
    assert_close(found.anchor_bound, scipy.stats.beta.ppf(0.9, errors + 1, 90 - errors), rtol=1e-9)
    assert found.bound.anchor_bound > found.anchor_bound
    # By leaf, from the drawn module alone.
    scales = jax.tree.leaves(bounds.leaf_scales(anchor))
    leaves = [jax.tree.leaves(eqx.filter(n, eqx.is_inexact_array)) for n in nets.values()]
    parts = []
    for u, w, drawn, scale in zip(*leaves, scales, strict=True):
        spread = np.asarray(scale * found.bound.scale)
        shift, z = np.asarray(w - u) / spread, np.asarray(drawn - w) / spread
        parts.append(np.sum(shift**2) / 2 + np.sum(shift * z))
    names = [".layers[0].weight", ".layers[0].bias", ".layers[1].weight", ".layers[1].bias"]
    assert list(found.information) == names
    assert_close(list(found.information.values()), parts, rtol=1e-8)
    assert_close(found.bound.information, sum(parts), rtol=1e-8)
    assert found.value == min(float(found.bound.value), 1.0)
    assert (found.num_samples, found.delta) == (90, 0.1)


def test_the_block_size_changes_nothing():
    anchor, (x, y) = mlp(), sample()
    net = moved(anchor, 0.1)
    made = [certify_module(net, anchor, x, y, key=KEY, batch=b) for b in (1, 13, 90, 1000)]
    assert len({m.value for m in made}) == 1
    assert len({tuple(m.risk.values()) for m in made}) == 1


def test_single_precision_stays_single_precision():
    """The network runs in the precision of the caller, who may not have asked for float64."""
    seen = []

    class Watched(eqx.Module):
        shift: jax.Array

        def __call__(self, x):
            out = x + self.shift + jnp.zeros(3)
            seen.append(out.dtype)
            return out

    with jax.enable_x64(False):
        net = Watched(jnp.zeros(3))
        x = np.eye(3)[[0, 1, 2, 0]]
        found = certify_module(net, net, x, [0, 1, 2, 0], key=KEY, factors=(1e-3,))
        assert found.drawn.shift.dtype == np.float32
    assert set(seen) == {np.dtype("float32")}
    assert found.risk["network"] == 0
    assert 0 < found.value <= 1


def test_dropout_and_batch_norm():
    net = gated()
    x, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 3
    with pytest.raises(ValueError, match="^`net` must be in inference mode .*, got a BatchNorm"):
        certify_module(net, net, x, y, key=KEY)
    quiet = eqx.nn.inference_mode(net)
    with pytest.raises(ValueError, match="^`anchor` must be in inference mode"):
        certify_module(quiet, net, x, y, key=KEY)
    found = certify_module(quiet, quiet, x, y, key=KEY)
    assert found.bound.information == 0
    assert isinstance(found.drawn, Gated)
    with pytest.raises(ValueError, match="^`anchor` must be as `net` is"):
        certify_module(
            quiet, eqx.tree_at(lambda n: n.order, quiet, quiet.order[::-1]), x, y, key=KEY
        )
    with pytest.raises(ValueError, match="^`net` must be a function of one input .*missing"):
        certify_module(quiet.norm, quiet.norm, x, y, key=KEY)
    # A dropout of nothing, as in attention, may stay.
    table = eqx.nn.Sequential([Table(jnp.zeros(3)), eqx.nn.Dropout(0.0)])
    assert certify_module(table, table, x, y, key=KEY).value <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net": 3}, "`net` must be a callable Equinox module"),
        ({"net": eqx.nn.Lambda(jnp.sin)}, "`net` must have real floating parameters"),
        ({"net": Table(jnp.zeros(3, complex))}, "`net` must have real floating parameters"),
        ({"net": Table(jnp.full(3, jnp.nan))}, "`net` must be finite"),
        ({"net": Table(jnp.zeros((3, 1)))}, "`anchor` must be as `net` is"),
        ({"net": mlp()}, "`anchor` must be as `net` is"),
        ({"x": np.zeros((4, 3, 2))}, "`net` must be a function of one input"),
        ({"x": np.zeros((0, 3))}, "`x` must be an array of numbers"),
        ({"x": "a"}, "`x` must be an array of numbers"),
        ({"y": [0, 1, 2, 3]}, "`y` must be 4 labels, integers in [0, 2] for 3 outputs, got 3"),
        ({"y": [0, 1, 0.5, 1]}, "`y` must be 4 labels, .*, got 0.5"),
        ({"y": [0, 1]}, "`y` must be 4 labels"),
        ({"x_test": np.zeros((2, 3))}, "`x_test` and `y_test` must both"),
        ({"x_test": np.zeros((2, 4)), "y_test": [0, 1]}, "`x_test` must have inputs of shape"),
        ({"x_test": np.zeros((2, 3)), "y_test": [0, 5]}, "`y_test` must be 2 labels"),
        ({"key": 0}, "`key` must"),
        ({"delta": 1.0}, "`delta` must"),
        ({"batch": 0}, "`batch` must"),
        ({"scales": -1.0}, "`scales` must"),
        ({"factors": ()}, "`factors` must"),
        ({"etas": ()}, "`etas` must"),
    ],
)
def test_what_is_wrong_is_named(no_type_checks, change, said):
    net = Table(jnp.zeros(3))
    call = {"net": net, "anchor": net, "x": np.eye(4, 3), "y": [0, 1, 2, 0], "key": KEY}
    with pytest.raises(ValueError, match=f"^{said}".replace("[0, 2]", r"\[0, 2\]")) as caught:
        certify_module(**call | change)
    assert "\n" not in str(caught.value)


# Scales and penalty.


def test_the_scales_are_root_mean_squares_with_a_floor():
    tree = {"a": jnp.asarray([3.0, -4.0]), "b": jnp.zeros(2), "c": jnp.asarray(1), "d": None}
    found = bounds.leaf_scales(tree)
    assert (found["c"], found["d"]) == (None, None)
    assert_close(found["a"], np.sqrt(12.5))
    assert_close(found["b"], 0.1 * np.sqrt(25 / 4))
    zero = bounds.leaf_scales({"a": jnp.zeros(3, "float32")})["a"]
    assert (float(zero), zero.dtype) == (1.0, np.float32)


def test_the_penalty_is_the_mean_information():
    anchor, (x, y) = mlp(), sample(50)
    net = moved(anchor, 0.05)
    scales = jax.tree.map(lambda s: 0.3 * s, bounds.leaf_scales(anchor))
    penalty = bounds.information_penalty(net, anchor, scales=scales, num_samples=50)
    drawn = [
        float(
            certify_module(
                net, anchor, x, y, key=jax.random.key(i), scales=scales, factors=(1.0,)
            ).bound.information
        )
        for i in range(30)
    ]
    assert abs(np.mean(drawn) - 50 * float(penalty)) < 4 * np.std(drawn) / np.sqrt(30)
    slope = eqx.filter_grad(
        lambda n: bounds.information_penalty(n, anchor, scales=scales, num_samples=50)
    )
    weight = np.asarray(net.layers[0].weight - anchor.layers[0].weight)
    scale = np.asarray(scales.layers[0].weight)
    assert_close(slope(net).layers[0].weight, weight / scale**2 / 50, rtol=1e-9)
    assert not np.asarray(slope(anchor).layers[1].bias).any()
    single = bounds.information_penalty(
        mlp(dtype="float32"), mlp(dtype="float32"), scales=0.1, num_samples=9
    )
    assert (float(single), single.dtype) == (0.0, np.float32)
    with pytest.raises(ValueError, match="^`num_samples` must"):
        bounds.information_penalty(net, anchor, scales=scales, num_samples=0)
    with pytest.raises(ValueError, match="^`anchor` must have the structure"):
        bounds.information_penalty(net, mlp(2), scales=1.0, num_samples=9)
    with pytest.raises(ValueError, match="^`scales` must"):
        bounds.information_penalty(net, anchor, scales=0.0, num_samples=9)


# The attack: a finite population of three classes, on which the anchor is right nearly everywhere.
# The network is fitted to S2 and against the population, near the anchor in units of the noise.
_DELTA, _SIZE, _POINTS, _DIM, _FACTOR = 0.1, 100, 1000, 30, 0.1
_CALL = {"factors": (_FACTOR,), "etas": (0.3,), "delta": _DELTA}


def fitted(centre, static, scales, x, y, seen, pull):
    def objective(parameters):
        out = jax.vmap(eqx.combine(parameters, static))(x)
        label = jnp.take_along_axis(out, y[:, None], axis=1)[:, 0]
        others = jnp.where(jnp.arange(3)[None] == y[:, None], -jnp.inf, out)
        margins = label - jnp.max(others, axis=1)
        right = jax.nn.sigmoid(20 * margins[seen] - 2)
        penalty = bounds.information_penalty(parameters, centre, scales=scales, num_samples=1)
        return jnp.mean(jax.nn.sigmoid(-20 * margins)) + 3 * jnp.mean(right) - pull * penalty

    return ascend(objective, centre, steps=60)


@functools.partial(jax.jit, static_argnames=("trials", "pull"))
def attack(key, trials, pull):
    """For each trial the exact risk of the drawn network, and every term of its bound."""

    def one(key):
        keys = jax.random.split(key, 4)
        x = jax.random.normal(keys[0], (_POINTS, _DIM))
        anchor = eqx.nn.MLP(_DIM, 3, 16, 1, key=keys[1])
        centre, static = eqx.partition(anchor, eqx.is_inexact_array)
        y = jnp.argmax(jax.vmap(anchor)(x), axis=1)
        seen = jax.random.randint(keys[2], (_SIZE,), 0, _POINTS)
        scales = bounds.leaf_scales(centre)
        units = jax.tree.map(lambda s: _FACTOR * s, scales)
        weights = fitted(centre, static, units, x, y, seen, pull)

        def errors(parameters, x, y):
            return jnp.argmax(jax.vmap(eqx.combine(parameters, static))(x), axis=1) != y

        found = one_draw_bound(
            weights,
            centre,
            lambda p: errors(p, x[seen], y[seen]),
            scales=scales,
            key=keys[3],
            **_CALL,
        )
        return jnp.mean(errors(found.parameters, x, y)), found

    return jax.lax.map(one, jax.random.split(key, trials))


@pytest.mark.parametrize(
    ("trials", "pull"),
    [
        pytest.param(20, 1e-3, id="near"),
        pytest.param(20, 1e-5, id="far"),
        pytest.param(400, 1e-2, id="nearest, many", marks=pytest.mark.slow),
        pytest.param(400, 1e-3, id="near, many", marks=pytest.mark.slow),
        pytest.param(400, 1e-5, id="far, many", marks=pytest.mark.slow),
    ],
)
def test_the_certificate_holds_on_a_finite_population(trials, pull):
    risk, found = attack(jax.random.key(0), trials, pull)
    risk = np.asarray(risk)
    print(f"risk {risk.mean():.3f}, S2 {np.mean(found.empirical):.3f}, bound", end=" ")
    print(f"{np.mean(found.value):.3f}, information {np.mean(found.information):.0f}")
    assert np.mean(risk > np.asarray(found.value)) <= _DELTA
    if pull < 1e-4:  # the attack is one: with the information for free it breaks the bound
        free = np.asarray(found.exponent) - np.maximum(np.asarray(found.information), 0) / _SIZE
        mutant = kl_inverse(np.asarray(found.empirical), free)
        assert np.mean(risk > mutant) > 3 * _DELTA


def test_the_attack_is_about_the_certificate_itself(monkeypatch):
    """One trial through the door: the same network, key and terms."""
    keys = jax.random.split(jax.random.split(jax.random.key(0), 1)[0], 4)
    x = jax.random.normal(keys[0], (_POINTS, _DIM))
    anchor = eqx.nn.MLP(_DIM, 3, 16, 1, key=keys[1])
    y = np.argmax(np.asarray(jax.vmap(anchor)(x)), axis=1)
    seen = np.asarray(jax.random.randint(keys[2], (_SIZE,), 0, _POINTS))
    net = moved(anchor, 0.02)
    found = certify_module(net, anchor, x[seen], y[seen], key=keys[3], x_test=x, y_test=y, **_CALL)
    assert found.value > found.test_risk["drawn"]  # of the population: exact
    assert found.test_risk["anchor"] == 0
    # Without the information the same numbers are smaller: it is in the value.
    plain = _one_draw._kl_form
    monkeypatch.setattr(
        _one_draw, "_kl_form", lambda mine, i, cells, d: plain(mine, 0.0 * i, cells, d)
    )
    free = certify_module(net, anchor, x[seen], y[seen], key=keys[3], **_CALL)
    assert float(free.bound.kl_value) < float(found.bound.kl_value)


class Wrapped(eqx.Module):
    """A leaky network inside another module."""

    inner: networks.LeakyMLP

    def __call__(self, x):
        return 2 * self.inner(x)


@pytest.mark.parametrize("given", [True, False])
def test_a_slope_is_no_parameter(given):
    net = networks.initialize(KEY, 2, 6, 2, epsilon=0.3, beta=1.0, out_size=3)
    net, (x, y) = Wrapped(net), sample()
    scales = jax.tree.map(lambda s: 2 * s, bounds.leaf_scales(net)) if given else None
    found = certify_module(net, net, x, y, key=KEY, factors=(0.1,), scales=scales)
    assert found.drawn.inner.epsilon == net.inner.epsilon
    assert list(found.information) == [".inner.weights[0]", ".inner.weights[1]"]
    other = eqx.tree_at(lambda n: n.inner.epsilon, net, jnp.array(0.4))
    with pytest.raises(ValueError, match="`anchor` must be as `net` is"):
        certify_module(net, other, x, y, key=KEY)


@pytest.mark.slow
def test_the_convolutional_example():
    """The script of the docs, on few samples for few epochs: the penalty is what makes the distance
    affordable."""
    path = Path(__file__).parent.parent / "docs" / "certify_a_cnn.py"
    spec = importlib.util.spec_from_file_location("certify_a_cnn", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):  # for Optax
        made = example.main(samples=4000, channels=(8, 16), hidden=32, epochs=3, more=1)
        x = np.random.default_rng(0).normal(size=(1, 28, 28)).astype("float32")
        layer = example.CNN(KEY, (4, 8), 16).convolutions[0]
        assert_close(example.convolve(layer, x), layer(x), atol=1e-5)
    near, far = made["proximal"], made["without the penalty"]
    assert made["anchor"].bound.information == 0
    assert float(near.bound.information) < 0.1 * float(far.bound.information)
    assert near.test_risk["drawn"] < near.value < far.value
    names = [".convolutions[0].weight", ".convolutions[0].bias"]
    assert list(near.information)[:2] == names
