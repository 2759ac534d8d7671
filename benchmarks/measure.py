"""Timing, and the problem that the benchmarks share."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from nlbound_jax import dynamics, networks

WIDTH, BETA, EPSILON = 64, 1e-3, 1e-3
RTOL, ATOL = 1e-4, 1e-7  # the defaults, at this beta


def clock(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def race(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The smallest time of each, in seconds, all of them run in turn after one call to warm up."""
    for run in contestants.values():
        run()
    best = dict.fromkeys(contestants, np.inf)
    for _ in range(rounds):
        for name, run in contestants.items():
            best[name] = min(best[name], clock(run))
    return best


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` in a process of its own: the threads of PyTorch and those of JAX want the
    same cores, and beside JAX's torchdiffeq takes twice the time."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def done(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """`function(*args)`, waiting for JAX to have computed it."""
    return lambda: jax.block_until_ready(function(*args))


def network(task, dtype="float32", *, epsilon=EPSILON, beta=BETA, depth=2, seed=0):
    """The network at time 0, the same in either precision."""
    net = networks.initialize(
        jax.random.key(seed), task.rank, WIDTH, depth, epsilon=epsilon, beta=beta, dtype="float32"
    )
    return jax.tree.map(lambda a: a.astype(dtype), net)


def end(task, *, epsilon=EPSILON, beta=BETA, depth=2) -> float:
    """t*_0.9."""
    time = dynamics.learning_time(
        0.9, depth=depth, alignment=task.alignment, beta=beta, epsilon=epsilon
    )
    return float(time)


def controller(net, rtol: float) -> diffrax.PIDController:
    """The library's default tolerances with Diffrax's default coefficients."""
    atol = rtol * float(min(jnp.linalg.norm(w) for w in net.weights))
    return diffrax.PIDController(rtol=rtol, atol=atol)


def weights(trajectory) -> list[np.ndarray]:
    """The last weights, float64."""
    return [np.asarray(w[-1], float) for w in trajectory.weights]


def distance(found: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """The largest relative difference of a layer."""
    pairs = zip(found, exact, strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def map_distance(found: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """The difference of the products W_L ... W_1, over their size."""
    one, other = (np.linalg.multi_dot(w[::-1]) for w in (found, exact))
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))
