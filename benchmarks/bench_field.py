"""One evaluation of the vector field against its matrix products alone, in PyTorch and in XLA.

The products are those that no evaluation can do without: at L = 2 `W_1 X` and `D X^T`, at L = 3
also `W_2 H`, `W_2^T D` and `D H^T`, over all 60,000 samples at once, each in the better of the two
layouts (samples first, samples last), with all cores. Nothing else is computed, not even phi.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import WIDTH, alone, network, race

from nlbound_jax import tasks
from nlbound_jax.dynamics import make_blocks, negative_gradient, replicate, samples_mesh
from nlbound_jax.networks import LeakyMLP

SHAPES = [(depth, side) for depth in (2, 3) for side in (7, 14, 28)]
ROUNDS = {7: 6, 14: 5, 28: 3}
DTYPES = ("float32", "float64")
ON_CPU = jax.default_backend() == "cpu"
# One after the other, as in a flow: what the caches hold of the data counts, and the host does not
# wait for an accelerator in between.
LAUNCHES = 4 if ON_CPU else 20
data = functools.cache(tasks.mnist)


def products(x, first, back, second, hidden):
    """Samples first: x (m d), back and hidden (m n), first (n d), second (n n)."""
    out = [x @ first.T, back.T @ x]
    if second is not None:
        out += [hidden @ second.T, back @ second, back.T @ hidden]
    return out


def products_last(x, first, back, second, hidden):
    """Samples last: x (d m), back and hidden (n m)."""
    out = [first @ x, x @ back.T]
    if second is not None:
        out += [second @ hidden, second.T @ back, hidden @ back.T]
    return out


def arrays(task, dtype, depth):
    rng = np.random.default_rng(0)
    m, d = task.x.shape
    first, back = rng.normal(size=(WIDTH, d)), rng.normal(size=(m, WIDTH))
    second = hidden = None
    if depth == 3:
        second, hidden = rng.normal(size=(WIDTH, WIDTH)), rng.normal(size=(m, WIDTH))
    made = (task.x, first, back, second, hidden)
    return [None if a is None else np.asarray(a, dtype) for a in made]


def turned(made):
    x, first, back, second, hidden = made
    flip = [None if a is None else np.ascontiguousarray(a.T) for a in (x, back, hidden)]
    return flip[0], first, flip[1], second, flip[2]


def seconds(contestants, rounds):
    """Of one launch each, by name."""

    def launched(run, wait):
        def several():
            for _ in range(LAUNCHES - 1):
                run()
            wait(run())

        return several

    several = {name: launched(*pair) for name, pair in contestants.items()}
    return {name: found / LAUNCHES for name, found in race(several, rounds).items()}


def fastest(timed):
    """Seconds of the better layout, by dtype and shape; `timed(function, args)` prepares a run and
    how to wait for it."""
    found = {}
    for dtype in DTYPES:
        for depth, side in SHAPES:
            made = arrays(data(side), dtype, depth)
            both = {"": timed(products, made), "last": timed(products_last, turned(made))}
            found[dtype, depth, side] = min(seconds(both, ROUNDS[side]).values())
    return found


def by_xla():
    """With one CPU device, whose products use every core."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")

    def timed(function, args):
        args = jax.device_put(args)  # once, not at every call
        return functools.partial(jax.jit(function), *args), jax.block_until_ready

    return fastest(timed)


def by_torch():
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def timed(function, args):
        args = [None if a is None else torch.from_numpy(a).to(device) for a in args]
        wait = torch.cuda.synchronize if device == "cuda" else int
        return functools.partial(function, *args), lambda _: wait()

    return fastest(timed)


def ours(task, net, devices=None):
    blocks = make_blocks(task, net.weights[0].dtype, samples_mesh(devices, net))
    args = replicate((net.weights, net.epsilon.astype(net.weights[0].dtype)), blocks.mesh)
    return functools.partial(jax.jit(negative_gradient), *args, blocks), jax.block_until_ready


def loop_over_blocks(task, net):
    """What autodiff makes of the same blocks on one device."""
    blocks = make_blocks(task, net.weights[0].dtype)
    epsilon = net.epsilon.astype(net.weights[0].dtype)

    def loss(weights, x, y):
        return 0.5 * jnp.sum((y - LeakyMLP(weights, epsilon).features_first(x)) ** 2)

    @jax.jit
    def field(weights, x, y):
        def add(total, block):
            return jax.tree.map(jnp.subtract, total, jax.grad(loss)(weights, *block)), None

        with jax.default_matmul_precision("highest"):
            return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, weights), (x, y))[0]

    return functools.partial(field, net.weights, blocks.x, blocks.y), jax.block_until_ready


def gradient_error(task, net) -> float:
    """The largest relative error of a layer's gradient, against autodiff in float64 by NumPy."""
    dtype = net.weights[0].dtype
    blocks = make_blocks(task, dtype, samples_mesh(None, net))
    args = replicate((net.weights, net.epsilon.astype(dtype)), blocks.mesh)
    found = jax.jit(negative_gradient)(*args, blocks)
    *hidden, last = (np.asarray(w, float) for w in net.weights)
    slope = 1 - float(args[1])
    x = np.asarray(task.x.astype(dtype), float).T
    inputs, slopes = [x], []
    for w in hidden:
        z = w @ inputs[-1]
        slopes.append(np.where(z < 0, slope, 1.0))
        inputs.append(z * slopes[-1])
    back = (task.y - last @ inputs[-1]) / task.num_samples
    exact = [back @ inputs[-1].T]
    for w, h, s in zip(net.weights[:0:-1], inputs[-2::-1], slopes[::-1], strict=True):
        back = s * (np.asarray(w, float).T @ back)
        exact.append(back @ h.T)
    pairs = zip(found, exact[::-1], strict=True)
    return max(float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)) for a, b in pairs)


@pytest.fixture(scope="module")
def competitors():
    pytest.importorskip("torch", reason="the group `bench` brings PyTorch")
    return alone(by_xla), alone(by_torch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_field_against_its_products(benchmark, table, competitors, dtype):
    rows = []
    for depth, side in SHAPES:
        task = data(side)
        net = network(task, dtype, depth=depth, beta=0.3, epsilon=0.1)
        m, d = task.x.shape
        gflop = (4 * m * d * WIDTH + (6 * m * WIDTH**2 if depth == 3 else 0)) / 1e9
        contestants = {"all": ours(task, net), "loop": loop_over_blocks(task, net)}
        if jax.device_count() > 1:
            contestants["one"] = ours(task, net, jax.devices()[:1])
        taken = seconds(contestants, ROUNDS[side])
        taken.setdefault("one", taken["all"])
        others = [found[dtype, depth, side] for found in competitors]
        each = (taken["all"], taken["one"], taken["loop"], *others)
        rates = [gflop / one for one in each]
        rows.append(
            [
                f"{depth}",
                f"{side}x{side}",
                *(f"{rate:.0f}" for rate in rates),
                *(f"{rates[0] / rate:.2f}" for rate in rates[-2:]),
                f"{gradient_error(task, net):.0e}",
            ]
        )
    small = data(7)
    run, wait = ours(small, network(small, dtype))
    benchmark.pedantic(lambda: wait(run()), rounds=10, warmup_rounds=1)
    table(
        f"The vector field, {dtype}, GFLOP/s of its matrix products (m = 60000, width {WIDTH})",
        [
            "L",
            "images",
            "field",
            "on one device",
            "autodiff, one device",
            "XLA's products alone",
            "PyTorch's",
            "field / XLA's",
            "field / PyTorch's",
            "error of the gradient",
        ],
        rows,
        f"The mean of {LAUNCHES} one after the other, the best of several.",
    )
