"""Training to t*_0.9 on MNIST 7x7: this library, torchdiffeq and PyTorch's gradient descent."""

import time

import diffrax
import jax
import numpy as np
import pytest
from measure import (
    ATOL,
    EPSILON,
    RTOL,
    controller,
    distance,
    done,
    end,
    map_distance,
    mnist,
    network,
    race,
    weights,
)

from nlbound_jax import dynamics

STEP, DESCENT_STEPS = 1e-3, 200


@pytest.fixture(scope="module")
def problem():
    task = mnist(7)
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


def torch_problem(problem):
    """The same data and weights in PyTorch, and the gradient of the loss by autograd."""
    torch = pytest.importorskip("torch", reason="the group `bench` brings PyTorch")
    task, net, _ = problem
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def put(array):
        return torch.from_numpy(np.array(array, "float32")).to(device)

    x, y = put(task.x), put(task.y)
    start = tuple(put(w) for w in net.weights)

    def gradient(first, last):
        first, last = (w.detach().requires_grad_() for w in (first, last))
        hidden = torch.nn.functional.leaky_relu(x @ first.T, 1 - EPSILON)
        loss = ((y - hidden @ last[0]) ** 2).sum() / (2 * len(y))
        return torch.autograd.grad(loss, (first, last))

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    return torch, start, gradient, wait


def descend(start, gradient, steps):
    current = start
    for _ in range(steps):
        current = tuple(w - STEP * g for w, g in zip(current, gradient(*current), strict=True))
    return current


def by_torchdiffeq(torch, start, gradient, t1):
    odeint = pytest.importorskip("torchdiffeq").odeint
    calls = 0

    def field(t, w):
        nonlocal calls
        calls += 1
        return tuple(-g for g in gradient(*w))

    times = torch.tensor([0.0, t1], device=start[0].device)
    found = odeint(field, start, times, rtol=RTOL, atol=ATOL, method="dopri5")
    return [w[-1].cpu().double().numpy() for w in found], calls


def test_time_to_the_learning_time(benchmark, table, problem, exact):
    task, net, t1 = problem
    torch, start, gradient, wait = torch_problem(problem)
    same = {"stepsize_controller": diffrax.PIDController(rtol=RTOL, atol=ATOL)}
    one = {"devices": jax.devices()[:1]}
    runs = {
        "gradient_flow": lambda: flow(problem),
        "gradient_flow, rtol 1e-5 as torchdiffeq": lambda: flow(problem, **same),
        "gradient_flow, one device": lambda: flow(problem, **one),
        "torchdiffeq dopri5, rtol 1e-5": lambda: by_torchdiffeq(torch, start, gradient, t1),
    }
    timed = {
        name: (lambda run=run: (jax.block_until_ready(jax.tree.leaves(run())), wait()))
        if name.startswith("gradient_flow")
        else (lambda run=run: (run(), wait()))
        for name, run in runs.items()
    }
    begin = time.perf_counter()
    timed["gradient_flow"]()
    first = time.perf_counter() - begin
    taken = race(timed, 5)
    benchmark.pedantic(timed["gradient_flow"], rounds=3)

    def both(found):
        return f"{distance(found, exact):.0e}", f"{map_distance(found, exact):.0e}"

    rows, mine = [], taken["gradient_flow"]
    for name, run in runs.items():
        made = run()
        if name.startswith("torch"):
            found, calls = made
        else:
            found = weights(made)
            calls = 6 * int(made.stats["num_steps"]) + 2
        rows.append([name, f"{taken[name]:.2f}", f"{taken[name] / mine:.1f}", f"{calls}"])
        rows[-1] += both(found)
    descend(start, gradient, 5)
    begin = time.perf_counter()
    descend(start, gradient, DESCENT_STEPS)
    wait()
    steps = round(t1 / STEP)
    scaled = (time.perf_counter() - begin) * steps / DESCENT_STEPS
    whole = weights(dynamics.gradient_descent(net, task, steps, step_size=STEP))
    name = f"PyTorch descent, step {STEP:g}, scaled from {DESCENT_STEPS} steps"
    rows.append([name, f"{scaled:.0f}", f"{scaled / mine:.0f}", f"{steps}", *both(whole)])
    table(
        f"To t*_0.9 = {t1:.2f}: MNIST 7x7, m = 60000, width 64, beta = epsilon = 0.001, float32",
        ["", "seconds", "ratio", "gradients", "error of W", "of W_2 W_1"],
        rows,
        f"Without compilation; the first call of gradient_flow took {first:.1f} s. Errors against "
        "float64, Dopri8, rtol 1e-7, relative. The error of descent is that of the whole of it, "
        "run by gradient_descent.",
    )


def test_derivative_in_tau(benchmark, table, problem):
    task, net, t1 = problem
    options = {"central": False, "finite_difference": False}

    def derivative():
        return dynamics.tau_derivative(net, task, t1=t1, **options).frozen

    contestants = {
        "flow": done(lambda: flow(problem).weights),
        "jvp": done(derivative),
    }
    taken = race(contestants, 5)
    benchmark.pedantic(contestants["jvp"], rounds=3)
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
