"""The certificate of a network with several outputs: every number from the network itself, what
changes nothing, what is refused, and the bound of one output beside that of two."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_close

from nlbound_jax import ClassCertificate, bounds, certify_classes, networks
from nlbound_jax.report import _classes

GRID = bounds.ClassGrid(
    noise=(1e-2, 0.5, 2.0),
    linear=(1e-3, 1e4, 1.1),
    path=(1e-3, 1e5, 1.1),
    priors=(0.0, 1.0),
    margin=(0.1, 2.0, 1.5),
)
KEY = jax.random.key(3)


@pytest.fixture(autouse=True)
def _weights_of_two_layers(no_type_checks):
    """Wrong arguments reach the door."""


def dense(classes=3, epsilon=0.2, dtype=None):
    return networks.initialize(
        KEY, 5, 7, 2, epsilon=epsilon, beta=0.7, out_size=classes, dtype=dtype
    )


def conv(epsilon=0.2, dtype=None):
    return networks.initialize_conv(
        KEY,
        (1, 5, 6),
        (3,),
        3,
        epsilon=epsilon,
        beta=0.7,
        size=2,
        padding=1,
        pool=2,
        dtype=dtype,
    )


NETS = {"dense": (dense, (5,)), "conv": (conv, (1, 5, 6))}


def moved(net, by):
    """The weights times 1 + by z, all from one generator."""
    rng = np.random.default_rng(1)

    def move(w):
        return w * jnp.asarray(1 + by * rng.normal(size=w.shape), w.dtype)

    return eqx.tree_at(lambda n: n.epsilon, jax.tree.map(move, net), net.epsilon)


def answers(net, x):
    return np.asarray(jax.vmap(net)(jnp.asarray(x)))


def sample(net, shape, m=3000, seed=0, flips=0.1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, *shape))
    x = x / np.maximum(
        1, np.sqrt(np.sum(x.reshape(m, -1) ** 2, axis=1)).reshape(-1, *[1] * len(shape)) / 8
    )
    x = x.astype(net.epsilon.dtype)
    y = np.argmax(answers(net, x), axis=1)
    return x, np.where(rng.uniform(size=m) < flips, rng.integers(3, size=m), y)


# The numbers.


@pytest.mark.float64
@pytest.mark.parametrize("name", NETS)
def test_every_number_is_that_of_the_network(name):
    make, shape = NETS[name]
    net = make()
    (x, y), (x_test, y_test) = sample(net, shape), sample(net, shape, 200, seed=1)
    found = certify_classes(net, x, y, grid=GRID, delta=0.05, x_test=x_test, y_test=y_test)
    assert isinstance(found, ClassCertificate)
    for risk, inputs, labels in ((found.risk, x, y), (found.test_risk, x_test, y_test)):
        assert_close(risk["network"], np.mean(np.argmax(answers(net, inputs), axis=1) != labels))
    assert (found.delta, found.num_samples, found.anchor_bound) == (0.05, 3000, None)
    assert len(found.assumes) == 1
    assert "second moment" in found.assumes[0]
    b = found.bound
    terms = b.train_risk + b.nonlinear + b.capacity + b.smoothing
    assert_close(b.value, terms, rtol=1e-12)
    assert found.value == min(float(b.value), 1.0)
    assert b.train_risk >= 0.8 * found.risk["network"]
    # P in the units of the certificate, from the network itself.
    if name == "dense":
        units = [float(jnp.max(jnp.abs(w))) for w in net.weights]
        first, last = (np.asarray(w) / unit for w, unit in zip(net.weights, units, strict=True))
        known = bounds.class_inputs(x)
        root = np.asarray(known.metrics[int(b.family)])
        columns = np.linalg.norm(last - last.mean(axis=0), axis=0)
        path = np.sum(np.linalg.norm(first @ root, axis=1) * columns)
        assert path * (1 - 1e-12) <= b.path <= 1.1 * path * (1 + 1e-12)


@pytest.mark.float64
@pytest.mark.parametrize("name", NETS)
def test_an_anchor_near_the_network_helps_and_one_that_is_the_network_costs_least(name):
    make, shape = NETS[name]
    anchor = make()
    (x, y), (x_first, _) = sample(anchor, shape), sample(anchor, shape, seed=2)
    call = {"x": x, "y": y, "x_first": x_first, "norm_bound": 8.0, "grid": GRID, "delta": 0.05}
    found = {
        by: certify_classes(moved(anchor, by), anchor=anchor, **call) for by in (0.0, 0.01, 0.3)
    }
    values = [float(one.bound.value) for one in found.values()]
    assert values[0] < values[1] < values[2]
    free = certify_classes(moved(anchor, 0.01), **call)
    assert values[1] < float(free.bound.value)
    assert free.assumes == found[0.01].assumes == ()
    # Nothing of S2 is in what the anchor fixed.
    m, wrong = len(y), np.argmax(answers(anchor, x), axis=1) != y
    limit = scipy.stats.beta.ppf(0.95, wrong.sum() + 1, m - wrong.sum())
    assert_close(found[0.01].anchor_bound, limit, rtol=1e-9)
    assert_close(found[0.01].risk["anchor"], wrong.mean())
    assert found[0.0].bound.move <= GRID.move[0]
    other = certify_classes(moved(anchor, 0.01), anchor=anchor, **call | {"y": (y + 1) % 3})
    units = found[0.01].bound.gamma / other.bound.gamma
    steps = np.log(float(units)) / np.log(1.5)
    assert abs(steps - round(steps)) < 1e-9


@pytest.mark.float64
def test_without_plug_in_the_bound_is_a_little_larger_and_assumes_nothing():
    net = dense()
    x, y = sample(net, (5,))
    plugged = certify_classes(net, x, y, grid=GRID)
    other = sample(net, (5,), seed=4)[0]
    limits = certify_classes(net, x, y, x_first=other, norm_bound=8.0, grid=GRID)
    ratio = float(limits.bound.penalty / plugged.bound.penalty)
    assert 1 < ratio < 1.5
    assert limits.assumes == ()


# What changes nothing.


@pytest.mark.float64
@pytest.mark.parametrize("anchored", [False, True])
def test_scales_classes_and_what_outputs_share_change_nothing(anchored):
    net = dense()
    x, y = sample(net, (5,))
    order = np.array([2, 0, 1])
    rng = np.random.default_rng(0)
    shared = jnp.asarray(np.tile(rng.normal(size=(1, 7)), (3, 1)))

    def changed(first, last):
        return lambda n: eqx.tree_at(
            lambda k: k.weights, n, (first(n.weights[0]), last(n.weights[1]))
        )

    same = {
        "scale": (changed(lambda w: 2.0**30 * w, lambda w: 2.0**-10 * w), y),
        "order": (changed(lambda w: w, lambda w: w[order]), np.argsort(order)[y]),
        # Not exactly: the unit of a layer is its largest weight.
        "shared": (changed(lambda w: w, lambda w: w + shared), y),
    }
    other = {"x_first": sample(net, (5,), seed=2)[0], "norm_bound": 8.0} if anchored else {}

    def value(change, labels):
        if anchored:
            other["anchor"] = change(net)
        given = change(moved(net, 0.01) if anchored else net)
        return certify_classes(given, x, labels, grid=GRID, **other).bound.value

    base = value(lambda n: n, y)
    for change, labels in same.values():
        assert_close(value(change, labels), base, rtol=1e-7)


@pytest.mark.float64
def test_ties_are_errors():
    """Small integers over a power of two, in which nothing is rounded."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, size=(2000, 5)).astype(float)
    first, last = (rng.integers(-7, 8, size=s).astype(float) for s in ((7, 5), (3, 7)))
    first[0, 0] = last[0, 0] = 8

    def net(rows):
        return networks.LeakyMLP((jnp.asarray(first), jnp.asarray(last[rows])), jnp.asarray(0.25))

    y = np.argmax(answers(net([0, 1, 2]), x), axis=1)
    for tied in (net([0, 0, 0]), jax.tree.map(jnp.zeros_like, net([0, 1, 2]))):
        found = certify_classes(tied, x, y, grid=GRID)
        assert found.risk["network"] == found.value == 1
        assert found.bound.value >= 1
    # The third class is right where it is above the other two, and these are nowhere.
    out = answers(net([0, 0, 2]), x)
    right = (out[:, 2] > out[:, 0]) & (y == 2)
    assert 0.1 < right.mean() < 0.9
    assert_close(certify_classes(net([0, 0, 2]), x, y, grid=GRID).risk["network"], 1 - right.mean())


def test_what_is_not_a_number_is_an_error():
    """The door lets no such weight in; an output could still be infinite."""
    inf, nan = np.inf, np.nan
    rows = [
        ([0.0, 2.0, 1.0], 1, False),
        ([0.0, 2.0, 2.0], 1, True),
        ([nan, 2.0, 1.0], 1, True),
        ([0.0, nan, 1.0], 1, True),
        ([0.0, inf, 1.0], 1, False),
        ([inf, inf, 1.0], 1, True),
        ([-inf, 0.0, -inf], 1, False),
    ]
    outputs, labels, wrong = zip(*rows, strict=True)
    found = _classes._wrong(jnp.asarray(outputs), jnp.asarray(labels))
    assert np.array_equal(found, wrong)


def test_nothing_overflows_and_a_network_beyond_the_grid_has_no_bound():
    net = dense(dtype="float32")
    x, y = sample(net, (5,))
    narrow = dataclasses.replace(GRID, path=(1e-3, 2e-3, 1.1))
    found = certify_classes(net, x, y, grid=narrow)
    assert np.isinf(found.bound.value)
    assert found.value == 1
    base = certify_classes(net, x, y, grid=GRID).value
    for size in (1e-30, 1e30):
        big = eqx.tree_at(lambda n: n.weights, net, tuple(size * w for w in net.weights))
        assert_close(certify_classes(big, x, y, grid=GRID).value, base, rtol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_a_network_in_single_precision_is_taken_as_it_is(name):
    """Its weights are numbers like others: in double precision they give the same certificate."""
    make, shape = NETS[name]
    net = make(dtype="float32")
    x, y = sample(net, shape, m=500)
    found = certify_classes(net, x, y, grid=GRID, anchor=net, x_first=x, norm_bound=8.0)
    assert np.asarray(found.bound.value).dtype == np.float64
    assert 0 < found.value <= 1
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda w: jnp.asarray(np.asarray(w, float)), net)
        same = certify_classes(wide, x, y, grid=GRID, anchor=wide, x_first=x, norm_bound=8.0)
    assert_close(found.bound.value, same.bound.value, rtol=1e-9)


# One output and two.


@pytest.mark.float64
def test_two_outputs_against_the_bound_of_one():
    """With l = 0 and one cell what remains differs by the constants: D by sqrt(pi)(1 + E chi_1
    sqrt(Lambda/T))/sqrt(2), over 2: with the other's one piece each sign has all of P."""
    m, d, epsilon = 4000, 6, 0.3
    rng = np.random.default_rng(0)
    w = rng.normal(size=(5, d))
    first, a = np.vstack([w, -w]), np.tile(rng.normal(size=5), 2)
    x = rng.normal(size=(m, d))
    z = x @ first.T
    f = np.where(z < 0, (1 - epsilon) * z, z) @ a
    two = np.stack([f, -f], axis=1) / 2
    y = rng.integers(2, size=m)
    norms, single = np.linalg.norm(x, axis=1), float(np.linalg.norm(first, axis=1) @ np.abs(a))
    columns = np.stack([a, -a], axis=1)[:, None] / 2
    path = bounds.class_paths(first, columns, np.eye(d)[None], np.ones((1, 1)))
    assert_close(path, [single / math.sqrt(2)], rtol=1e-12)
    linear = np.asarray(
        bounds.class_linear_part(first, columns, np.arange(d)[None], epsilon=epsilon, dim=d)
    )
    assert_close(linear, np.zeros((2, d)), atol=1e-12)
    common = {"epsilon": epsilon, "delta": 0.01, "gammas": np.array([1.0])}
    noise, size = 0.01, 1e-6
    mine = bounds.class_split_bound(
        two,
        y,
        norms,
        linear=linear,
        paths=path,
        roots=bounds.class_root(np.array([float(d)]), np.array([1.0]), 2, 1),
        grid=bounds.ClassGrid(
            noise=(noise, noise, 2.0),
            linear=(size, size, 2.0),
            path=(float(path[0]),) * 2 + (2.0,),
            priors=(0.0,),
        ),
        **common,
    )
    signs = bounds.path_norms((jnp.asarray(first), jnp.asarray(a)[None]))
    assert_close(np.sum(signs), single, rtol=1e-9)
    ball = noise * math.sqrt(2 * (d + 2))  # f_1 - f_2 has noise of twice the variance
    theirs = bounds.split_bound(
        np.where(y == 0, f, -f),
        norms,
        depth=2,
        dim=d,
        linear_norm=0.0,
        paths=np.asarray(signs),
        grid=bounds.SplitGrid(
            noise=(ball, ball, 2.0), linear=(size, size, 2.0), path=(single,) * 2 + (2.0,), pieces=1
        ),
        **common,
    )
    chi = math.sqrt(2 / math.pi)
    ratio = math.sqrt(math.pi / 2) * (1 + chi / math.sqrt(d))
    assert_close(mine.nonlinear / theirs.nonlinear, ratio / 2, rtol=1e-9)
    assert_close(mine.train_risk, theirs.train_risk, rtol=1e-2)


# What is refused.


@pytest.mark.float64
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net": None}, "`net` must be a LeakyMLP or a LeakyConv of two layers, got None"),
        ({"net": eqx.nn.Identity()}, "`net` must be a LeakyMLP or a LeakyConv of two layers"),
        (
            {"net": networks.initialize(KEY, 5, 7, 3, epsilon=0.2, beta=0.7, out_size=3)},
            "`net` must be a LeakyMLP or a LeakyConv of two layers",
        ),
        ({"net": dense(classes=1)}, "`net` must have two outputs or more, got one"),
        ({"net": moved(dense(), np.nan)}, "`net` must be finite"),
        ({"anchor": dense(epsilon=0.3), "x_first": np.eye(5)}, "`anchor` must be as `net` is"),
        ({"anchor": dense(4), "x_first": np.eye(5)}, "`anchor` must be as `net` is"),
        ({"anchor": dense()}, "`x_first` must be the inputs of S1 with an `anchor`, got None"),
        ({"x_first": np.eye(5)}, "`norm_bound` and `x_first` must both be given"),
        ({"norm_bound": 1.0}, "`norm_bound` and `x_first` must both be given"),
        ({"x_first": np.eye(4), "norm_bound": 9.0}, "`x_first` must have inputs of shape"),
        ({"x_first": np.zeros((2, 5)), "norm_bound": 9.0}, "`x_first` must not all be zero"),
        ({"x_first": np.eye(5), "norm_bound": 0.5}, "`norm_bound` must be at least the largest"),
        ({"x": np.zeros((6, 5))}, "`x` must not all be zero"),
        ({"x": np.full((6, 5), np.nan)}, "`x` must be finite"),
        ({"x": np.ones((6, 4))}, "`net` must be a function of one input of shape"),
        (
            {"y": [0, 1, 2, 3, 0, 1]},
            "`y` must be 6 labels, integers in .0, 2. for 3 outputs, got 3",
        ),
        ({"y": [0, 1]}, "`y` must be 6 labels"),
        ({"x_test": np.eye(5)}, "`x_test` and `y_test` must both"),
        ({"delta": 0.0}, "`delta` must"),
        ({"grid": bounds.SplitGrid()}, "`grid` must"),
    ],
)
def test_what_is_wrong_is_named(change, said):
    call = {"net": dense(), "x": np.eye(6, 5) + 1, "y": [0, 1, 2, 0, 1, 2]}
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        certify_classes(**call | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(
            ({name: wrong}, f"`{name}` must")
            for name in ("noise", "linear", "path", "move", "margin")
            for wrong in (None, (1.0, 2.0), (0.0, 1.0, 2.0), (2.0, 1.0, 2.0), (1.0, 2.0, 1.0))
        ),
        *(
            ({"priors": wrong}, "`priors` must")
            for wrong in ((), [1.0], (-1.0,), (np.nan,), ("a",))
        ),
    ],
)
def test_a_wrong_grid_is_named(change, said):
    with pytest.raises(ValueError, match=f"^{said}") as caught:
        bounds.ClassGrid(**change)
    assert "\n" not in str(caught.value)


def test_values_of_a_grid():
    grid = bounds.ClassGrid(noise=(0.1, 1.0, 1.7))
    values = grid.values("noise")
    assert values[0] == 0.1
    assert values[-1] >= 1
    assert_close(values[1:] / values[:-1], np.full(len(values) - 1, 1.7), rtol=1e-12)
    up = np.asarray(
        grid.round_up("noise", jnp.asarray([0.0, 0.1, 0.11, 1.0, 99.0, np.nan, np.inf]))
    )
    assert_close(up[:3], [0.1, 0.1, 0.17], rtol=1e-6)
    assert up[3] >= 1
    assert np.isinf(up[4:]).all()
    with pytest.raises(ValueError, match="`name` must be"):
        grid.values("depth")
    sizes = [len(grid.values(name)) for name in ("noise", "linear", "path")]
    assert_close(grid.log_cells(2, 5), math.log(math.prod(sizes) * 3 * 2 * 5), rtol=1e-12)
    sizes += [len(grid.values(name)) for name in ("move", "margin")]
    assert_close(grid.log_cells(1, 1, anchored=True), math.log(math.prod(sizes) * 3), rtol=1e-12)
