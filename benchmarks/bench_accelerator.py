"""What an accelerator is to be told: the samples of a block, and the precision of products."""

import contextlib

import jax
import pytest
from bench_field import gradient_error
from measure import WIDTH, distance, done, end, network, race, weights

from nlbound_jax import dynamics, tasks
from nlbound_jax.dynamics import default_controller, make_blocks, negative_gradient

pytestmark = pytest.mark.skipif(
    jax.default_backend() == "cpu", reason="on CPUs the products have one precision"
)


REPEATS = 50


def repeated(task, net, largest=None):
    """`REPEATS` evaluations in one program, as in a flow: launched one by one from the host, small
    ones would measure the host."""
    blocks = make_blocks(task, net.weights[0].dtype, largest=largest)

    @jax.jit
    def run(weights, epsilon, blocks):
        def step(_, weights):
            change = negative_gradient(weights, epsilon, blocks)
            return jax.tree.map(lambda w, c: w + 1e-6 * c, weights, change)

        return jax.lax.fori_loop(0, REPEATS, step, weights)

    return done(run, net.weights, net.epsilon.astype(net.weights[0].dtype), blocks)


@pytest.mark.parametrize("side", [7, 28])
def test_samples_of_a_block(benchmark, table, side):
    task, rows, runs = tasks.mnist(side), [], {}
    gflop = 4 * task.x.size * WIDTH / 1e9
    for dtype in ("float32", "float64"):
        net = network(task, dtype)
        for samples in (1000, 2**12, 2**13, 2**14, 2**15, 2**16):
            runs[dtype, samples] = repeated(task, net, samples)
    for (dtype, samples), seconds in race(runs, 5).items():
        each = seconds / REPEATS
        rows.append([dtype, f"{samples}", f"{1e3 * each:.3f}", f"{gflop / each:.0f}"])
    benchmark.pedantic(runs["float32", 2**16], rounds=3)
    table(
        f"The vector field by samples of a block, {side}x{side}",
        ["dtype", "at most", "ms", "GFLOP/s"],
        rows,
        f"The mean of {REPEATS} in one program.",
    )


def test_precision_of_products(benchmark, table):
    task = tasks.mnist(7)
    t1 = end(task)
    start = network(task, "float64")
    tight = default_controller(start.weights, 1e-8)
    exact = weights(
        dynamics.gradient_flow(start, task, t1=t1, stepsize_controller=tight, max_steps=100_000)
    )
    net, large = network(task), tasks.mnist(28)
    wide, rows = network(large), []
    for precision in (None, "high", "default", "bfloat16"):
        chosen = jax.default_matmul_precision(precision) if precision else contextlib.nullcontext()
        with chosen:
            taken = {"flow": done(lambda: dynamics.gradient_flow(net, task, t1=t1).weights)}
            taken["field"] = repeated(large, wide)
            taken = race(taken, 3)
            found = dynamics.gradient_flow(net, task, t1=t1)
            rows.append(
                [
                    precision or "the library's own",
                    f"{int(found.stats['num_steps'])}",
                    f"{taken['flow']:.3f}",
                    f"{distance(weights(found), exact):.0e}",
                    f"{gradient_error(task, net):.0e}",
                    f"{1e3 * taken['field'] / REPEATS:.3f}",
                ]
            )
    benchmark.pedantic(repeated(task, net), rounds=3)
    table(
        "jax.default_matmul_precision: the flow to t*_0.9, 7x7, float32",
        ["", "steps", "seconds", "error of W", "of a gradient", "a field at 28x28, ms"],
        rows,
        "Errors relative, of W against float64, rtol 1e-8.",
    )
