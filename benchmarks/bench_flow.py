"""Training to t*_0.9 on MNIST 7x7: this library, torchdiffeq and PyTorch's gradient descent."""

import functools
import time

import diffrax
import jax
import numpy as np
import pytest
from measure import (
    ATOL,
    EPSILON,
    RTOL,
    alone,
    controller,
    distance,
    done,
    end,
    map_distance,
    network,
    race,
    weights,
)

from nlbound_jax import dynamics, tasks
from nlbound_jax.dynamics import default_controller

STEP, DESCENT_STEPS = 1e-3, 200
TOLERANCES = [(RTOL, ATOL), (RTOL / 10, ATOL / 10)]


@pytest.fixture(scope="module")
def problem():
    task = tasks.mnist(7)
    return task, network(task), end(task)


@pytest.fixture(scope="module")
def exact(problem):
    task, _, t1 = problem
    net = network(task, "float64")
    solved = dynamics.gradient_flow(
        net,
        task,
        t1=t1,
        solver=diffrax.Dopri8(),
        stepsize_controller=controller(net, 1e-7),
        max_steps=100_000,
    )
    return weights(solved)


def flow(problem, **options):
    task, net, t1 = problem
    return dynamics.gradient_flow(net, task, t1=t1, **options)


def by_torch(x, y, start, t1):
    """Both of PyTorch's ways: weights, gradients and seconds of torchdiffeq at each of
    `TOLERANCES`, and seconds of a step of descent."""
    import torch
    from torchdiffeq import odeint

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y, *start = (torch.from_numpy(a).to(device) for a in (x, y, *start))
    calls = 0

    def gradient(first, last):
        first, last = (w.detach().requires_grad_() for w in (first, last))
        hidden = torch.nn.functional.leaky_relu(x @ first.T, 1 - EPSILON)
        loss = ((y - hidden @ last[0]) ** 2).sum() / (2 * len(y))
        return torch.autograd.grad(loss, (first, last))

    def field(t, w):
        nonlocal calls
        calls += 1
        return tuple(-g for g in gradient(*w))

    def solve(rtol, atol):
        nonlocal calls
        calls = 0
        times = torch.tensor([0.0, t1], device=device)
        found = odeint(field, tuple(start), times, rtol=rtol, atol=atol, method="dopri5")
        return [w[-1].cpu().double().numpy() for w in found]  # waits for the device

    def descend(steps):
        current = tuple(start)
        for _ in range(steps):
            pairs = zip(current, gradient(*current), strict=True)
            current = tuple(w - STEP * g for w, g in pairs)
        return current[0].cpu()

    runs = {pair: functools.partial(solve, *pair) for pair in TOLERANCES}
    taken = race({**runs, "descent": lambda: descend(DESCENT_STEPS)}, 3)
    solved = [(run(), calls, taken[pair]) for pair, run in runs.items()]
    return solved, taken["descent"] / DESCENT_STEPS


def test_time_to_the_learning_time(benchmark, table, problem, exact):
    pytest.importorskip("torchdiffeq", reason="the group `bench` brings it")
    task, net, t1 = problem
    arrays = [np.array(a, "float32") for a in (task.x, task.y, *net.weights)]
    solved, descending = alone(by_torch, *arrays[:2], arrays[2:], t1)
    runs = {
        "gradient_flow": lambda: flow(problem),
        "gradient_flow, one device": lambda: flow(problem, devices=jax.devices()[:1]),
    }
    timed = {name: done(lambda run=run: run().weights) for name, run in runs.items()}
    begin = time.perf_counter()
    timed["gradient_flow"]()
    first = time.perf_counter() - begin
    taken = race(timed, 5)
    benchmark.pedantic(timed["gradient_flow"], rounds=3)
    mine = taken["gradient_flow"]

    def row(name, seconds, calls, found):
        errors = f"{distance(found, exact):.0e}", f"{map_distance(found, exact):.0e}"
        digits = 0 if seconds > 10 else 2
        return [name, f"{seconds:.{digits}f}", f"{seconds / mine:.1f}", f"{calls}", *errors]

    rows = []
    for name, run in runs.items():
        made = run()
        evaluations = 6 * int(made.stats["num_steps"]) + 2
        rows.append(row(name, taken[name], evaluations, weights(made)))
    for (rtol, atol), (found, calls, seconds) in zip(TOLERANCES, solved, strict=True):
        rows.append(
            row(f"torchdiffeq dopri5, rtol {rtol:.0e}, atol {atol:.0e}", seconds, calls, found)
        )
    steps = round(t1 / STEP)
    whole = weights(dynamics.gradient_descent(net, task, steps, step_size=STEP))
    name = f"PyTorch descent, step {STEP:g}, scaled from {DESCENT_STEPS} steps"
    rows.append(row(name, descending * steps, steps, whole))
    table(
        f"To t*_0.9 = {t1:.2f}: MNIST 7x7, m = 60000, width 64, beta = epsilon = 0.001, float32",
        ["", "seconds", "ratio", "gradients", "error of W", "of W_2 W_1"],
        rows,
        f"Without compilation; the first call of gradient_flow took {first:.1f} s. PyTorch in a "
        "process of its own, both with all cores. Errors against float64, Dopri8, rtol 1e-7, "
        "relative; of descent that of the whole of it, run by gradient_descent.",
    )


def test_derivative_in_tau(benchmark, table, problem):
    task, net, t1 = problem
    same = {"stepsize_controller": default_controller(net.weights, RTOL)}
    alone = {"central": False, "finite_difference": False}

    def derivative():
        return dynamics.tau_derivative(net, task, t1=t1, **same, **alone).frozen

    contestants = {
        "flow": done(lambda: flow(problem, **same).weights),
        "jvp": done(derivative),
    }
    taken = race(contestants, 3)
    benchmark.pedantic(contestants["jvp"], rounds=1)
    table(
        "The derivative in tau by jvp through the flow, the same problem",
        ["", "seconds", "ratio"],
        [
            ["gradient_flow", f"{taken['flow']:.2f}", "1"],
            [
                "tau_derivative, jvp alone",
                f"{taken['jvp']:.2f}",
                f"{taken['jvp'] / taken['flow']:.2f}",
            ],
        ],
        "The derivative counts the crossings of kinks as well.",
    )
