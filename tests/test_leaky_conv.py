"""The convolutional leaky-ReLU network, its linear reference, and the flows of both."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import EqualSteps, assert_close
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

from nlbound_jax import RESULTS, dynamics, networks, tasks

KEY = jax.random.key(5)
X64 = jax.config.jax_enable_x64
# Stride, padding and pooling that do not divide the images, and filters that are not square.
KINDS = {
    "plain": {"shape": (1, 5, 6), "filters": [(3, 1, 3, 3)]},
    "deep": {"shape": (2, 9, 8), "filters": [(3, 2, 3, 2), (4, 3, 2, 3)], "padding": 1, "pool": 2},
    "strided": {"shape": (3, 11, 10), "filters": [(2, 3, 3, 3), (5, 2, 2, 2)], "stride": 2},
    "all": {"shape": (2, 12, 9), "filters": [(4, 2, 4, 3)], "stride": 2, "padding": 2, "pool": 3},
}


def numpy_outputs(net, x, activation):
    """One image through the network, in float64 by loops over the pixels."""
    for w in (np.asarray(w, float) for w in net.filters):
        out, channels, rows, columns = w.shape
        p, s, r = net.padding, net.stride, net.pool
        padded = np.zeros((channels, x.shape[1] + 2 * p, x.shape[2] + 2 * p))
        padded[:, p : p + x.shape[1], p : p + x.shape[2]] = x
        height, width = (
            (n - k) // s + 1 for n, k in zip(padded.shape[1:], (rows, columns), strict=True)
        )
        z = np.zeros((out, height, width))
        for i in range(height):
            for j in range(width):
                patch = padded[:, s * i : s * i + rows, s * j : s * j + columns]
                for c in range(out):
                    z[c, i, j] = (w[c] * patch).sum()
        h = activation(z)
        x = np.zeros((out, height // r, width // r))
        for i in range(height // r):
            for j in range(width // r):
                x[:, i, j] = h[:, r * i : r * (i + 1), r * j : r * (j + 1)].mean(axis=(1, 2))
    return np.asarray(net.head, float) @ x.ravel()


def make(kind, epsilon=0.3):
    """A network of the kind, of normal weights."""
    rng = np.random.default_rng(7)
    options = dict(KINDS[kind])
    shape, sizes = options.pop("shape"), options.pop("filters")
    filters = tuple(jnp.asarray(rng.normal(size=s), float) for s in sizes)
    features = {"plain": 36, "deep": 16, "strided": 20, "all": 16}[kind]
    head = jnp.asarray(rng.normal(size=(3, features)), float)
    return networks.LeakyConv(filters, head, jnp.asarray(epsilon, float), shape, **options)


def images(net, count=4):
    return np.random.default_rng(1).normal(size=(count, *net.shape))


@pytest.mark.quick
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_outputs_against_loops(kind, epsilon):
    net = make(kind, epsilon)
    s = 1 - float(net.epsilon) / 2
    for x in images(net):
        leaky = numpy_outputs(net, x, lambda z: np.where(z < 0, (1 - float(net.epsilon)) * z, z))
        linear = numpy_outputs(net, x, lambda z: s * z)
        # Sums that cancel: the error is one of the terms, whose sums are of the order of 100.
        atol = 1e-12 if X64 else 1e-3
        assert_close(net(x), leaky, rtol=1e-12, atol=atol)
        assert_close(networks.LinearConv(net)(x), linear, rtol=1e-12, atol=atol)
    assert net.depth == len(net.filters) + 1


@pytest.mark.quick
def test_convolution_is_that_of_equinox():
    net, x = make("strided"), jnp.asarray(images(make("strided"))[0], float)
    h = x
    for w in net.filters:
        layer = eqx.nn.Conv2d(w.shape[1], w.shape[0], w.shape[2:], 2, use_bias=False, key=KEY)
        h = jax.nn.leaky_relu(eqx.tree_at(lambda c: c.weight, layer, w)(h), 0.7)
    assert_close(net(x), net.head @ h.ravel(), rtol=1e-11, atol=1e-11 if X64 else 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_linear_map_against_basis_images(kind):
    net = make(kind)
    found = net.linear_map()
    size = np.prod(net.shape)
    assert found.shape == (3, size)
    s = 1 - float(net.epsilon) / 2
    basis = np.eye(size).reshape(size, *net.shape)
    expected = np.stack([numpy_outputs(net, x, lambda z: s * z) for x in basis], axis=1)
    assert_close(found, expected, rtol=1e-11, atol=1e-12 if X64 else 1e-4)
    linear = networks.LinearConv(net)
    pushed = jax.vmap(linear)(jnp.asarray(basis, found.dtype)).T
    assert_close(found, pushed, rtol=1e-11, atol=1e-12 if X64 else 1e-4)


@pytest.mark.quick
@pytest.mark.parametrize("kind", KINDS)
def test_at_epsilon_0_the_network_is_its_linear_reference(kind):
    net = make(kind, 0.0)
    linear = networks.LinearConv(net)
    for x in images(net):
        assert (net(x) == linear(x)).all()
        flat = np.asarray(net.linear_map(), float) @ x.ravel()
        assert_close(net(x), flat, rtol=1e-11, atol=1e-11 if X64 else 1e-3)


@pytest.mark.quick
@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_homogeneous_in_the_image(epsilon):
    """By powers of two, which round nothing, exactly; but for negative ones."""
    net = make("deep", epsilon)
    for x in images(net):
        for c in (0.25, 8.0):
            assert (net(c * x) == c * net(x)).all()
        assert_close(net(0.3 * x), 0.3 * net(x), rtol=1e-11, atol=1e-11 if X64 else 1e-3)
        assert jnp.abs(net(-x) + net(x)).max() > 0.1


@pytest.mark.quick
def test_the_linear_part_is_the_odd_part_of_one_hidden_layer():
    """phi(z) - phi(-z) = 2 (1 - epsilon/2) z, and one hidden layer is linear in it."""
    for kind in ("plain", "all"):
        net = make(kind)
        for x in images(net):
            odd = (net(x) - net(-x)) / 2
            assert_close(networks.LinearConv(net)(x), odd, rtol=1e-11, atol=1e-11 if X64 else 1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None])
def test_initialization(dtype):
    net = networks.initialize_conv(
        *(KEY, (2, 10, 9), (5, 7), 4),
        **{"epsilon": 0.1, "beta": 0.2, "size": 3, "padding": 1, "pool": 2, "dtype": dtype},
    )
    assert [w.shape for w in net.filters] == [(5, 2, 3, 3), (7, 5, 3, 3)]
    assert net.head.shape == (4, 7 * 2 * 2)
    for w in (*net.filters, net.head):
        assert w.dtype == net.epsilon.dtype == (dtype or jnp.zeros(()).dtype)
        flat = np.asarray(w.astype("float32"), float).reshape(len(w), -1)
        rel = 0.02 if dtype == "bfloat16" else 1e-5
        assert np.linalg.norm(flat, 2) == pytest.approx(0.2, rel=rel)
    assert net(np.ones((2, 10, 9))).dtype == net.head.dtype
    other = networks.initialize_conv(jax.random.key(6), (2, 10, 9), (5, 7), 4, epsilon=0, beta=1)
    assert (other.stride, other.padding, other.pool) == (1, 0, 1)
    assert other.head.shape == (4, 7 * 6 * 5)


@pytest.mark.parametrize(("stride", "padding", "times"), [(1, 2, 3), (2, 0, 2), (3, 1, 1)])
def test_the_norm_of_a_convolution_as_a_map_of_images(stride, padding, times):
    """At most the documented factor, and more than 1 where patches overlap."""
    options = {"epsilon": 0, "beta": 0.5, "stride": stride, "padding": padding}
    net = networks.initialize_conv(KEY, (2, 12, 12), (1,), 1, **options)
    # The filter of equal entries attains it, but for the edges.
    flat = jnp.full_like(net.filters[0], 0.5 / np.sqrt(18))
    for w in (net.filters[0], flat):
        identity = jnp.eye(net.head.shape[1], dtype=w.dtype)
        whole = networks.LeakyConv((w,), identity, net.epsilon, net.shape, stride, padding)
        norm = np.linalg.norm(np.asarray(whole.linear_map(), float), 2)
        assert norm <= 0.5 * times * (1 + 1e-5)
    assert norm > 0.5 * times * 0.75


def test_initialization_is_vmapped_over_numbers():
    def output(epsilon, beta):
        options = {"epsilon": epsilon, "beta": beta}
        return networks.initialize_conv(KEY, (1, 4, 4), (2,), 3, **options)(jnp.ones((1, 4, 4)))

    many = jax.vmap(output)(jnp.array([0.1, 0.7]), jnp.array([0.2, 0.5]))
    assert_close(many[1], output(0.7, 0.5), rtol=1e-10, atol=1e-12 if X64 else 1e-6)


# --- Flows


TS = (0.0, 1.0, 3.0)
TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-11)


def class_task():
    """Images (9 1 5 5) of three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(9) % 3
    x = rng.normal(size=(9, 1, 5, 5))
    x[:, 0, :, 0] += y[:, None]
    return tasks.class_task(x, y)


def start(epsilon, beta=1.2):
    options = {"epsilon": epsilon, "beta": beta, "padding": 1, "pool": 2}
    return networks.initialize_conv(KEY, (1, 5, 5), (2, 3), 3, **options)


def half_squares(outputs, y):
    return jnp.sum((outputs - y) ** 2, axis=1) / 2


@pytest.mark.float64
@pytest.mark.parametrize(
    ("linear", "loss"),
    [(False, None), (False, optax.softmax_cross_entropy), (True, None)],
    ids=["squares", "cross-entropy", "linear"],
)
def test_flow_against_scipy(linear, loss):
    task, net = class_task(), start(0.3)
    run = dynamics.gradient_flow(
        networks.LinearConv(net) if linear else net,
        task,
        **{"t1": TS[-1], "loss": loss, "stepsize_controller": TIGHT},
        saveat=diffrax.SaveAt(ts=TS),
    )
    assert run.result == RESULTS.successful
    flat, build = ravel_pytree((net.filters, net.head))
    x, y = jnp.asarray(task.x), jnp.asarray(task.targets)

    def outputs(weights, image):
        """By XLA's convolution and a sum over windows."""
        h = image[None]
        for w in weights[0]:
            z = jax.lax.conv_general_dilated(h, w, (1, 1), [(1, 1), (1, 1)])
            z = 0.85 * z if linear else jnp.maximum(z, 0.7 * z)
            h = jax.lax.reduce_window(z, 0.0, jax.lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4
        return weights[1] @ h.ravel()

    @jax.jit
    def field(flat):
        def mean(flat):
            found = jax.vmap(lambda image: outputs(build(flat), image))(x)
            return jnp.mean((loss or half_squares)(found, y))

        return -jax.grad(mean)(flat)

    solution = solve_ivp(
        lambda t, flat: np.asarray(field(jnp.asarray(flat))),
        *((0, TS[-1]), np.asarray(flat), "DOP853", TS),
        rtol=1e-10,
        atol=1e-12,
    )
    weights = run.weights.network if linear else run.weights
    found = [np.asarray(w).reshape(len(TS), -1) for w in (*weights.filters, weights.head)]
    # Kinks are crossed, where the field jumps: the steps there promise their tolerance at best.
    assert_close(np.concatenate(found, axis=1), solution.y.T, rtol=0, atol=2e-6)
    assert np.abs(solution.y[:, -1] - solution.y[:, 0]).max() > 0.05


@pytest.mark.quick
def test_the_slope_stays():
    net = start(0.3)
    options = {"t1": 1.0, "stepsize_controller": EqualSteps(0.25)}
    run = dynamics.gradient_flow(net, class_task(), **options)
    assert run.weights.epsilon is None
    end = run.network()
    assert isinstance(end, networks.LeakyConv)
    assert end.epsilon == net.epsilon
    assert (end.shape, end.padding, end.pool) == ((1, 5, 5), 1, 2)
    assert all(jnp.abs(a - b).max() > 1e-4 for a, b in zip(end.filters, net.filters, strict=True))
    linear = dynamics.gradient_descent(networks.LinearConv(net), class_task(), 3, step_size=0.2)
    assert linear.network().network.epsilon == net.epsilon
    assert jnp.abs(linear.network().network.head - net.head).max() > 1e-4
    assert set(run.to_xarray().data_vars) == {"filters[0]", "filters[1]", "head"}


@pytest.mark.float64
def test_leaky_and_linear_flow_are_of_order_epsilon_apart(optimized):
    """In equal steps, so that the distance is that of two maps and not of two controllers."""
    task = class_task()
    options = {"t1": 4.0, "stepsize_controller": EqualSteps(0.125)}

    def distance(epsilon):
        net = start(epsilon)
        leaky = dynamics.gradient_flow(net, task, **options).network()
        linear = dynamics.gradient_flow(networks.LinearConv(net), task, **options).network()
        x = jnp.asarray(task.x)
        return float(jnp.linalg.norm(jax.vmap(leaky)(x) - jax.vmap(linear)(x)))

    epsilons = np.array([0.16, 0.08, 0.04, 0.02])
    found = np.array([distance(epsilon) for epsilon in epsilons])
    # Half of epsilon is half of the distance, up to a factor 1 + O(epsilon): a factor of 2 or of
    # its root would be another order.
    error = np.abs(2 * found[1:] / found[:-1] - 1)
    assert (error < epsilons[:-1]).all(), error
    assert found[-1] > 1e-3


# --- At the door

GOOD = {"filters": (jnp.ones((2, 1, 3, 3)),), "head": jnp.ones((3, 18)), "shape": (1, 5, 5)}
GOOD |= {"epsilon": jnp.asarray(0.1)}
BAD = [
    ({"shape": 5}, r"`shape` must be \(channels, height, width\), got 5"),
    ({"shape": (1, 5)}, r"`shape` must be \(channels, height, width\), got \(1, 5\)"),
    ({"shape": (1, 5, 0)}, "`shape` must be an integer of at least 1, got 0"),
    ({"shape": (1, 2, 5)}, "`filters` must fit into their inputs, of 2 x 5 pixels and 0 more"),
    ({"shape": (2, 5, 5)}, r"`filters` must be at least one array .* 2 channels .* \[\(2, 1, 3, 3"),
    ({"filters": ()}, r"`filters` must be at least one array .* got shapes \[\]"),
    ({"filters": jnp.ones((1, 2, 1, 3, 3))}, "`filters` must be a tuple of arrays, got an array"),
    ({"filters": (jnp.full((2, 1, 3, 3), jnp.nan),)}, "`filters` must be finite, got nan"),
    ({"filters": (jnp.ones((2, 1, 3, 3), "bfloat16"),)}, "`filters` and `head` must be of one"),
    ({"head": jnp.ones((3, 17))}, r"`head` must be a matrix \(outputs, 18\), got an array .*17"),
    ({"head": jnp.full((3, 18), jnp.inf)}, "`head` must be finite, got inf"),
    ({"epsilon": 0.1}, "`epsilon` must be a scalar array, got 0.1"),
    ({"epsilon": jnp.asarray(1.5)}, r"`epsilon` must be in \[0, 1\], got 1.5"),
    ({"stride": jnp.ones(2)}, "`stride` must be an integer of at least 1, got an array"),
    ({"stride": 0}, "`stride` must be an integer of at least 1, got 0"),
    ({"padding": 3}, r"`padding` must be an integer in \[0, 2\], got 3"),
    ({"pool": 4}, "`pool` must be at most the 3 x 3 pixels of every convolution, got 4"),
]


@pytest.mark.quick
@pytest.mark.parametrize(("changed", "text"), BAD)
def test_a_network_that_is_none_gets_one_line(no_type_checks, changed, text):
    networks.LeakyConv(**GOOD)
    with pytest.raises(ValueError, match=f"^{text}") as caught:
        networks.LeakyConv(**(GOOD | changed))
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_other_arguments_at_the_door(no_type_checks):
    net = networks.LeakyConv(**GOOD)
    for call in (net, networks.LinearConv(net)):
        with pytest.raises(ValueError, match=r"^`x` must be one image of shape \(1, 5, 5\), got"):
            call(np.ones((2, 1, 5, 5)))
        with pytest.raises(ValueError, match="^`x` must be a finite number, got nan"):
            call(np.full((1, 5, 5), np.nan))
    with pytest.raises(ValueError, match="^`network` must be a LeakyConv, got 3"):
        networks.LinearConv(3)
    with pytest.raises(
        ValueError, match=r"^`channels` must be the numbers of filters, .* got \(\)"
    ):
        networks.initialize_conv(KEY, (1, 5, 5), (), 3, epsilon=0.1, beta=0.1)
    with pytest.raises(ValueError, match="^`size` must fit into their inputs, of 5 x 5 pixels"):
        networks.initialize_conv(KEY, (1, 5, 5), (2,), 3, epsilon=0.1, beta=0.1, size=6)
    small = networks.initialize_conv(KEY, (1, 4, 5), (2,), 3, epsilon=0.1, beta=0.1)
    with pytest.raises(ValueError, match=r"^`net` must take one sample of `task`, of shape \(1, 5"):
        dynamics.gradient_flow(small, class_task(), t1=1.0)
