"""Gradient flow and descent of any Equinox module, any loss, and tasks of several classes."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import EqualSteps, assert_close, run_on_three_devices, small_data, small_task
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

from nlbound_jax import RESULTS, certify, dynamics, networks, report, tasks
from nlbound_jax.dynamics import _field

TASK = small_task()
KEY = jax.random.key(2)
TS = (0.0, 0.7, 2.0)
TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-11)
FIXED = EqualSteps(0.125)


def mlp(out="scalar", activation=jax.nn.tanh, inputs=4):
    return eqx.nn.MLP(inputs, out, 5, 2, activation=activation, key=KEY)


class Convolutions(eqx.Module):
    """Two convolutions and a linear layer, all with biases."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    last: eqx.nn.Linear

    def __init__(self, outputs, key):
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Conv2d(1, 2, 3, key=keys[0])
        self.second = eqx.nn.Conv2d(2, 3, 2, stride=2, key=keys[1])
        self.last = eqx.nn.Linear(12, outputs, key=keys[2])

    def __call__(self, x):
        x = jax.nn.softplus(self.second(jnp.tanh(self.first(x))))
        return self.last(x.ravel())


def images(m=23, seed=0):
    """Images (m 1 6 6) of three classes, in words."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=m)
    x = rng.normal(size=(m, 1, 6, 6))
    x[:, 0, :, 0] += y[:, None]
    return x, np.array(["cat", "dog", "owl"])[y]


def scipy_flow(net, x, y, loss):
    """SciPy's solution at TS, `(times parameters)`: flattened, by the gradient of a plain mean."""
    start, build = ravel_pytree(eqx.filter(net, eqx.is_inexact_array))
    rest = eqx.filter(net, eqx.is_inexact_array, inverse=True)
    x, y = jnp.asarray(x), jnp.asarray(y)

    @jax.jit
    def field(flat):
        def mean(flat):
            outputs = jax.vmap(eqx.combine(build(flat), rest))(x)
            return jnp.mean(loss(outputs, y))

        return -jax.grad(mean)(flat)

    solution = solve_ivp(
        lambda t, flat: np.asarray(field(jnp.asarray(flat))),
        (0, TS[-1]),
        np.asarray(start),
        method="DOP853",
        t_eval=TS,
        rtol=1e-10,
        atol=1e-12,
    )
    return solution.y.T


def flat_over_time(run):
    leaves = jax.tree.leaves(run.weights)
    return np.concatenate([np.asarray(w).reshape(len(w), -1) for w in leaves], axis=1)


def half_squares(outputs, y):
    return 0.5 * jnp.sum(((outputs - y) ** 2).reshape(len(y), -1), axis=1)


def one_of(kind):
    """A module, a task, and the loss of the library and of all samples together."""
    if kind == "mlp":
        return mlp(), TASK, TASK.y, None, half_squares
    x, y = images()
    task, net = tasks.class_task(x, y), Convolutions(3, KEY)
    if kind == "squares":
        return net, task, task.targets, None, half_squares
    return net, task, task.targets, optax.softmax_cross_entropy, optax.softmax_cross_entropy


@pytest.mark.float64
@pytest.mark.parametrize("kind", ["mlp", "squares", "cross-entropy"])
def test_flow_of_a_module_against_scipy(kind, monkeypatch):
    """In blocks that the samples do not fill: with biases those filled up would count."""
    monkeypatch.setattr(_field, "BLOCK", 11)
    net, task, y, loss, whole = one_of(kind)
    assert task.num_samples % 11
    run = dynamics.gradient_flow(
        net, task, t1=TS[-1], loss=loss, saveat=diffrax.SaveAt(ts=TS), stepsize_controller=TIGHT
    )
    expected = scipy_flow(net, task.x, y, whole)
    assert_close(flat_over_time(run), expected, rtol=0, atol=1e-7)
    assert np.abs(expected[-1] - expected[0]).max() > 0.03
    assert run.result == RESULTS.successful


@pytest.mark.quick
@pytest.mark.parametrize("samples", [1, 6, 7, 20, 21])
def test_what_fills_up_a_block_does_not_count(samples):
    x, y = TASK.x[:samples], TASK.y[:samples]
    net = mlp()
    parameters, rest = eqx.partition(net, eqx.is_inexact_array)
    dtype = parameters.layers[0].weight.dtype
    model = dynamics.Model(rest, lambda f, y: (f - y) ** 2)
    blocks = dynamics.make_sample_blocks(x, y, dtype, largest=7)
    assert blocks.x.shape[1] <= 7
    found = dynamics.negative_gradient(parameters, model, blocks)
    data = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
    mean = jax.grad(lambda p: jnp.mean((jax.vmap(eqx.combine(p, rest))(data[0]) - data[1]) ** 2))(
        parameters
    )
    atol = 1e-14 if dtype == "float64" else 1e-6
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(mean), strict=True):
        assert_close(a, -b, rtol=1e-10, atol=atol)


class Norm(eqx.Module):
    """Its gradient at 0 is NaN."""

    weight: jax.Array

    def __call__(self, x):
        return jnp.sqrt(jnp.sum((self.weight * x) ** 2))


def test_no_sample_is_made_up():
    """A zero input in place of one that is missing would make the gradient NaN."""
    net = Norm(jnp.ones(4))
    assert TASK.num_samples % 500
    x, y = small_data(m=7)["x"], small_data(m=7)["y"]
    blocks = dynamics.make_sample_blocks(x, y * 1.0, net.weight.dtype, largest=5)
    model = dynamics.Model(Norm(None), lambda f, y: (f - y) ** 2)
    assert jnp.isfinite(dynamics.negative_gradient(net, model, blocks).weight).all()


@pytest.mark.quick
@pytest.mark.parametrize(("depth", "epsilon"), [(2, 0.3), (3, 1.0)])
def test_a_leaky_mlp_is_a_module_like_any_other(depth, epsilon):
    net = networks.initialize(KEY, 4, 6, depth, epsilon=epsilon, beta=0.3)
    options = {"t1": 2.0, "stepsize_controller": FIXED, "saveat": diffrax.SaveAt(ts=TS)}
    fast = dynamics.gradient_flow(net, TASK, **options)
    general = dynamics.gradient_flow(net, TASK, loss=optax.l2_loss, **options)
    atol = 1e-13 if net.weights[0].dtype == "float64" else 1e-5
    for a, b in zip(general.weights, fast.weights, strict=True):
        assert_close(a, b, rtol=1e-10, atol=atol)
    assert isinstance(general.network(), networks.LeakyMLP)
    steps = {"num_steps": 4, "step_size": 0.1}
    fast = dynamics.gradient_descent(net, TASK, **steps)
    general = dynamics.gradient_descent(net, TASK, loss=optax.l2_loss, **steps)
    for a, b in zip(general.weights, fast.weights, strict=True):
        assert_close(a, b, rtol=1e-10, atol=atol)


@pytest.mark.parametrize("loss", [None, optax.softmax_cross_entropy])
def test_a_leaky_mlp_of_several_outputs_is_a_convolution_of_one_pixel(loss):
    x, y = images()
    task = tasks.class_task(x, y, whitened=True, components=5)
    net = networks.initialize(KEY, 5, 6, 3, epsilon=0.4, beta=0.7, out_size=3)
    pixels = tasks.class_task(np.asarray(task.x)[:, :, None, None], y, scale=1.0)
    filters = tuple(w[:, :, None, None] for w in net.weights[:2])
    other = networks.LeakyConv(filters, net.weights[2], net.epsilon, (5, 1, 1))
    options = {"loss": loss, "stepsize_controller": FIXED}
    one = dynamics.gradient_flow(net, task, t1=2.0, **options)
    two = dynamics.gradient_flow(other, pixels, t1=2.0, **options)
    assert isinstance(one.network(), networks.LeakyMLP)
    assert one.network().num_outputs == 3
    trained = two.network()
    for w, v in zip(one.weights, (*trained.filters, trained.head), strict=True):
        assert_close(w[-1], v.reshape(w[-1].shape), rtol=1e-4, atol=1e-5)


def test_of_a_leaky_mlp_inside_another_module_the_slope_stays():
    inner = networks.initialize(KEY, 4, 3, 2, epsilon=0.3, beta=0.3)
    net = eqx.nn.Sequential([eqx.nn.Linear(4, 4, key=KEY), eqx.nn.Lambda(jnp.tanh), inner])
    with pytest.raises(ValueError, match="`net` must take one sample"):  # it takes no key
        dynamics.gradient_flow(net, TASK, t1=1.0)
    net = Pair(eqx.nn.Linear(4, 4, key=KEY), inner)
    run = dynamics.gradient_flow(net, TASK, t1=1.0, stepsize_controller=FIXED)
    assert run.weights.last.epsilon is None
    assert run.network().last.epsilon == inner.epsilon
    assert jnp.abs(run.network().last.weights[0] - inner.weights[0]).max() > 1e-4


class Pair(eqx.Module):
    """One after the other."""

    first: eqx.Module
    last: eqx.Module

    def __call__(self, x):
        return self.last(self.first(x))


@pytest.mark.quick
def test_descent_against_a_loop_by_hand():
    net, x, y = mlp(), jnp.asarray(TASK.x), jnp.asarray(TASK.y)
    x, y = (a.astype(net.layers[0].weight.dtype) for a in (x, y))
    run = dynamics.gradient_descent(net, TASK, 6, step_size=0.1, save_every=3)
    loss = eqx.filter_grad(lambda net: jnp.mean((jax.vmap(net)(x) - y) ** 2) / 2)
    by_hand = net
    for _ in range(6):
        by_hand = eqx.apply_updates(by_hand, jax.tree.map(lambda g: -0.1 * g, loss(by_hand)))
    expected = ravel_pytree(eqx.filter(by_hand, eqx.is_inexact_array))[0]
    found = ravel_pytree(eqx.filter(run.network(), eqx.is_inexact_array))[0]
    atol = 1e-12 if found.dtype == "float64" else 1e-5
    assert_close(found, expected, rtol=1e-9, atol=atol)
    assert_close(run.ts, [0.3, 0.6])
    heavy = dynamics.gradient_descent(net, TASK, 3, optimizer=optax.sgd(0.1, momentum=0.9))
    assert heavy.result == RESULTS.successful


class Everything(eqx.Module):
    """A static field, an integer buffer, a NumPy buffer, a tied layer and dropout at rest."""

    shared: eqx.nn.Shared
    dropout: eqx.nn.Dropout
    order: jax.Array
    sizes: np.ndarray
    power: int = eqx.field(static=True)

    def __init__(self):
        layers = [eqx.nn.Linear(4, 4, key=k) for k in jax.random.split(KEY)]
        where = lambda pair: pair[1].weight, lambda pair: pair[0].weight  # noqa: E731
        self.shared = eqx.nn.Shared(layers, *where)
        self.dropout = eqx.nn.Dropout(0.5, inference=True)
        self.order, self.sizes, self.power = jnp.array([2, 0, 1, 3]), np.arange(4), 2

    def __call__(self, x):
        first, second = self.shared()
        x = self.dropout(jnp.tanh(first(x)))[self.order]
        return 0.1 * jnp.sum(second(x) * self.sizes.astype(x.dtype)) ** self.power


def test_buffers_stay_and_shared_layers_stay_shared():
    net = Everything()
    run = dynamics.gradient_flow(net, TASK, t1=0.2, stepsize_controller=EqualSteps(0.05))
    end = run.network()
    assert (end.order == net.order).all()
    assert (end.sizes == net.sizes).all()
    assert end.power == 2
    first, second = end.shared()
    assert (first.weight == second.weight).all()
    assert jnp.abs(first.weight - net.shared()[0].weight).max() > 1e-4
    # The gradient of what is tied is the sum over its places.
    one = dynamics.gradient_descent(net, TASK, 1, step_size=1.0).network()
    x, y = (jnp.asarray(a, first.weight.dtype) for a in (TASK.x, TASK.y))

    def loss(weight):
        tied = eqx.tree_at(lambda n: n.shared.pytree[0].weight, net, weight)
        return jnp.mean((jax.vmap(tied)(x) - y) ** 2) / 2

    start = net.shared()[0].weight
    expected = start - jax.grad(loss)(start)
    atol = 1e-10 if expected.dtype == "float64" else 1e-3
    assert_close(one.shared()[0].weight, expected, rtol=1e-9, atol=atol)


def tied_by_hand():
    layer = eqx.nn.Linear(4, 4, key=KEY)
    return eqx.nn.Sequential([layer, layer, eqx.nn.Linear(4, "scalar", key=KEY)])


def with_dropout(inference):
    layers = [eqx.nn.Dropout(0.5, inference=inference), eqx.nn.Linear(4, "scalar", key=KEY)]
    return eqx.nn.Sequential(layers)


def half_precision():
    return eqx.tree_at(lambda n: n.layers[0].bias, mlp(), jnp.zeros(5, jnp.bfloat16))


REFUSED = {
    "dropout": (
        lambda: with_dropout(False),
        r"be in inference mode, `eqx.nn.inference_mode",
    ),
    "batch norm": (lambda: eqx.nn.BatchNorm(4, "batch", mode="batch"), "be stateless, net"),
    "tied": (tied_by_hand, "have each parameter in one place, got one array in two: .*Shared"),
    "no parameter": (lambda: eqx.nn.Lambda(jnp.sum), "have parameters, floating arrays of JAX"),
    "two dtypes": (half_precision, "have parameters of one floating dtype, got bfloat16 and float"),
    "NaN": (lambda: jax.tree.map(lambda a: a * jnp.nan if eqx.is_array(a) else a, mlp()), "be fin"),
    "no module": (lambda: jnp.tanh, "be an Equinox module that can be called"),
    "no call": (lambda: TASK, "be an Equinox module that can be called"),
    "other inputs": (lambda: mlp(inputs=3), r"take one sample of `task`, of shape \(4,\)"),
    "one output too many": (lambda: mlp(1), r"return outputs .*scalar.*, got \(1,\)"),
    "two arrays": (lambda: Pair(mlp(), eqx.nn.Lambda(lambda x: (x, x))), "return one array"),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", REFUSED)
def test_a_module_that_cannot_be_trained_gets_one_line(no_type_checks, name):
    make, text = REFUSED[name]
    for train in (
        lambda net: dynamics.gradient_flow(net, TASK, t1=0.1),
        lambda net: dynamics.gradient_descent(net, TASK, 2),
    ):
        with pytest.raises(ValueError, match=r"^`net` must [^\n]*$") as caught:
            train(make())
        caught.match(f"^`net` must {text}")


def test_dropout_at_rest_works():
    for net in (with_dropout(True), eqx.nn.inference_mode(with_dropout(False))):
        dynamics.gradient_descent(net, TASK, 1)


@pytest.mark.quick
def test_a_loss_that_is_none_gets_one_line(no_type_checks):
    for loss, text in (
        ("squares", r"be a function loss\(predictions, targets\), got 'squares'"),
        (lambda f: f, "take outputs .* and targets .* of one sample, got TypeError"),
        (lambda f, y: jnp.stack([f, y]), r"return one floating number .*, got shape \(2,\)"),
        (lambda f, y: f > y, "return one floating number .* dtype bool"),
    ):
        with pytest.raises(ValueError, match=rf"^`loss` must {text}[^\n]*$"):
            dynamics.gradient_flow(mlp(), TASK, t1=0.1, loss=loss)
    with pytest.raises(ValueError, match="`task` must be a Task or a ClassTask, got 3"):
        dynamics.gradient_flow(mlp(), 3, t1=0.1)


@pytest.mark.float64
def test_pieces_are_the_whole_and_can_be_differentiated():
    """By JAX through the traced solve, against central differences, blocks of samples included."""
    net, ts = mlp(), jnp.asarray(TS)

    def final(shift, **options):
        moved = eqx.tree_at(lambda n: n.layers[0].bias, net, net.layers[0].bias + shift)
        run = dynamics.gradient_flow(
            moved,
            TASK,
            t1=2.0,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=FIXED,
            **options,
        )
        return run.weights.layers[2].weight[-1].sum()

    whole = eqx.filter_jit(final)(0.0)
    assert_close(whole, final(0.0), rtol=1e-10)
    slope = (final(1e-5) - final(-1e-5)) / 2e-5
    assert_close(jax.grad(final)(0.0), slope, rtol=1e-6)
    forward = lambda shift: final(shift, adjoint=diffrax.ForwardMode())  # noqa: E731
    assert_close(jax.jvp(forward, (0.0,), (1.0,))[1], slope, rtol=1e-6)


def test_a_solve_that_stops_keeps_what_it_has():
    saves = diffrax.SaveAt(ts=np.linspace(0, 2, 9))
    options = {"t1": 2.0, "saveat": saves, "stepsize_controller": FIXED, "max_steps": 7}
    run = dynamics.gradient_flow(mlp(), TASK, throw=False, **options)
    assert float(run.ts[-1]) == float(run.reached) == 0.875
    leaves = jax.tree.leaves(run.weights)
    assert all(len(w) == len(run.ts) and jnp.isfinite(w).all() for w in leaves)
    with pytest.raises(RuntimeError, match="gradient_flow stopped at t = 0.875 of 2 after 7 steps"):
        dynamics.gradient_flow(mlp(), TASK, **options)


def test_a_trajectory_of_a_module_has_labels():
    saves = diffrax.SaveAt(ts=TS)
    run = dynamics.gradient_flow(mlp(), TASK, t1=2.0, saveat=saves, stepsize_controller=FIXED)
    data = run.to_xarray()
    assert data["layers[0].weight"].shape == (3, 5, 4)
    assert_close(data["layers[2].bias"].values[1], run.network(1).layers[2].bias)
    assert "epsilon" not in data.attrs


def test_a_bias_that_starts_at_zero_does_not_set_the_tolerance():
    net = eqx.tree_at(lambda n: n.layers[0].bias, mlp(), jnp.zeros(5))
    other = [jnp.linalg.norm(w) for w in jax.tree.leaves(eqx.filter(net, eqx.is_array)) if w.any()]
    found = dynamics.default_controller(eqx.filter(net, eqx.is_inexact_array), 1e-3)
    assert_close(found.atol, 1e-3 * min(map(float, other)))


DEVICES = """
import sys
sys.path.insert(0, "tests")
import jax
from test_any_module import *

assert jax.local_device_count() == 3
net, task = Convolutions(3, KEY), tasks.class_task(*images())
options = {"t1": 1.0, "stepsize_controller": FIXED, "loss": optax.softmax_cross_entropy}
everywhere = dynamics.gradient_flow(net, task, **options)
one = dynamics.gradient_flow(net, task, devices=jax.devices()[:1], **options)
for a, b in zip(*map(jax.tree.leaves, (everywhere.weights, one.weights)), strict=True):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-12)
    assert not a.committed
dynamics.gradient_descent(everywhere.network(), task, 2)
print("done")
"""


@pytest.mark.float64
def test_samples_of_a_module_are_shared_out_over_devices():
    run_on_three_devices(DEVICES)


# --- Tasks of several classes


@pytest.mark.quick
def test_images_and_codes_of_the_classes():
    x, y = images()
    task = tasks.class_task(x, y, x[:5], y[:5], code="signs", scale=2.0)
    assert task.classes.tolist() == ["cat", "dog", "owl"]
    assert (task.classes[task.y] == y).all()
    assert task.shape == (1, 6, 6)
    assert (task.num_samples, task.num_classes) == (23, 3)
    assert_close(task.x, x / 2)
    assert_close(task.x_test, task.x[:5])
    assert (task.y_test == task.y[:5]).all()
    assert_close(task.targets, np.where(y[:, None] == np.unique(y)[None], 1.0, -1.0))
    assert_close(task.target, task.targets.T @ task.x.reshape(23, -1) / 23)
    one_hot = tasks.class_task(x, y)
    assert_close(one_hot.targets, (task.targets + 1) / 2)
    assert_close(np.abs(one_hot.x).max(), 1.0)
    assert_close(one_hot.inputs(x[0]), one_hot.x[0])
    for made in (task, one_hot):
        assert (made.predict(made.targets) == made.y).all()
        assert made.predict(np.array([0.1, 0.3, 0.2])) == 1
    codes = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])
    assert_close(tasks.class_task(x, y, code=codes).targets, codes[task.y])


def test_whitened_classes_have_the_inputs_of_the_binary_task():
    data = small_data()
    binary, task = tasks.from_arrays(**data), tasks.class_task(**data, whitened=True)
    assert_close(task.x, binary.x, rtol=1e-9, atol=1e-12)
    assert_close(task.x_test, binary.x_test, rtol=1e-9, atol=1e-12)
    assert_close(task.inputs(data["x_test"]), task.x_test, rtol=1e-12, atol=1e-14)
    assert tasks.class_task(**data, whitened=True, components=2).shape == (2,)
    # The second of the classes is +1.
    assert_close(task.target[1] - task.target[0], binary.target, rtol=1e-9, atol=1e-12)


@pytest.mark.float64
def test_the_digits_of_mnist():
    task, raw = tasks.mnist_classes(7), tasks.load_mnist()
    assert task.x.shape == (60000, 1, 7, 7)
    assert task.x_test.shape == (10000, 1, 7, 7)
    assert (task.y == raw["y_train"]).all()
    pooled = raw["x_train"][3].reshape(7, 4, 7, 4).mean(axis=(1, 3)) / 255
    assert_close(task.x[3, 0], pooled)
    assert_close(task.inputs(raw["x_test"][:2]), task.x_test[:2])
    assert_close(task.inputs(raw["x_test"][0]), task.x_test[0])
    whitened = tasks.mnist_classes(7, whitened=True, components=10)
    assert_close(whitened.x.T @ whitened.x / 60000, np.eye(10), rtol=0, atol=1e-9)
    assert_close(whitened.inputs(raw["x_test"][:2]), whitened.x_test[:2], atol=1e-9)


BAD = [
    ({"x": np.ones(3)}, r"`x` must be a non-empty array \(samples, ...\)"),
    ({"x": np.full((23, 2), np.nan)}, "`x` must be finite"),
    ({"y": np.ones(23)}, "`y` must have at least two classes, got 1"),
    ({"y": np.ones(4)}, r"`y` must have shape \(23,\), got \(4,\)"),
    ({"x_test": np.ones((2, 3)), "y_test": ["cat", "dog"]}, "`x_test` must have samples of shape"),
    ({"x_test": np.ones((1, 1, 6, 6)), "y_test": ["cow"]}, "`y_test` must have the classes of `y`"),
    ({"y_test": ["cow"]}, "`x_test` and `y_test` must be given together"),
    ({"code": "hot"}, "`code` must be one of 'one-hot', 'signs', got 'hot'"),
    ({"code": np.ones((2, 3))}, r"`code` must be 'one-hot', 'signs' or a row .* shape \(2, 3\)"),
    ({"code": np.ones((3, 2))}, "`code` must have different rows"),
    ({"scale": 0.0}, "`scale` must be positive"),
    ({"whitened": 3}, "`whitened` must be one of True, False"),
    ({"components": 2}, "`components` must be left out where the inputs are not whitened, got 2"),
    ({"whitened": True, "components": 99}, "`components` must be an integer in"),
]


@pytest.mark.quick
@pytest.mark.parametrize(("changed", "text"), BAD)
def test_bad_classes_get_one_line(no_type_checks, changed, text):
    x, y = images()
    with pytest.raises(ValueError, match=text) as caught:
        tasks.class_task(**({"x": x, "y": y} | changed))
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_binary_doors_refuse_several_classes(no_type_checks):
    task = tasks.class_task(*images())
    net = networks.initialize(KEY, 36, 3, 2, epsilon=0.3, beta=0.3)
    for call in (
        lambda: report(task),
        lambda: certify(net, task),
        lambda: dynamics.gradient_flow(net, task, t1=1.0),
        lambda: dynamics.gradient_flow(net, task, t1=1.0, loss=optax.l2_loss),
        lambda: dynamics.gradient_descent(net, task, 3),
        lambda: dynamics.tau_derivative(net, task, t1=1.0),
        lambda: tasks.split(task, key=KEY),
    ):
        with pytest.raises(ValueError, match=r"^`task` must be a Task, got ClassTask[^\n]*$"):
            call()
    with pytest.raises(ValueError, match=r"^`net` must be a LeakyMLP, got [^\n]*$"):
        dynamics.tau_derivative(mlp(), TASK, t1=1.0)
