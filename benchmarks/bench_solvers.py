"""Which solver, which controller, which norm, and what a tolerance buys in digits of the bound."""

import dataclasses
import functools

import diffrax
import jax
import jax.numpy as jnp
import pytest
from measure import (
    BETA,
    EPSILON,
    controller,
    distance,
    end,
    map_distance,
    network,
    race,
    weights,
)

from nlbound_jax import Settings, dynamics, networks, report, tasks
from nlbound_jax.dynamics import default_controller

# What each step costs in evaluations of the field (the first stage is the last of the step before).
STAGES = {"Tsit5": 6, "Dopri5": 6, "Dopri8": 13, "Bosh3": 3}
# By epsilon. Where samples cross kinks all the time a tight tolerance takes thousands of steps.
END = {0.001: None, 0.1: None, 1.0: 32.0}
EXACT_RTOL = {0.001: 1e-8, 0.1: 1e-7, 1.0: 1e-5}
RTOLS = {0.001: (1e-3, 1e-4, 1e-5, 1e-6), 0.1: (1e-3, 1e-4, 1e-5), 1.0: (1e-3, 1e-4)}
pytestmark = pytest.mark.slow
by_epsilon = pytest.mark.parametrize("epsilon", [0.001, 0.1, 1.0])


class OfTheMap(diffrax.AbstractAdaptiveStepSizeController):
    """Another controller's steps, with the error of the product W_2 W_1 in place of the weights':
    the product's change along the error estimate, to first order."""

    controller: diffrax.PIDController

    @property
    def rtol(self):
        return self.controller.rtol

    @property
    def atol(self):
        return self.controller.atol

    @property
    def norm(self):
        return self.controller.norm

    @staticmethod
    def product(w):
        return w[1] @ w[0]

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, state):
        _, of_map = jax.jvp(self.product, (y1,), (y_error,))
        start, stop = self.product(y0), self.product(y1)
        return self.controller.adapt_step_size(
            t0, t1, start, stop, args, of_map, error_order, state
        )


def problem(epsilon):
    task = tasks.mnist(7)
    return task, END[epsilon] or end(task, epsilon=epsilon)


def solve(task, net, t1, control, solver, **options):
    return dynamics.gradient_flow(
        net,
        task,
        t1=t1,
        stepsize_controller=control,
        solver=solver,
        max_steps=100_000,
        throw=False,
        **options,
    )


def exact(epsilon):
    """To a tolerance at which samples on their kinks still let the solver arrive."""
    task, t1 = problem(epsilon)
    net = network(task, "float64", epsilon=epsilon)
    made = solve(
        task, net, t1, default_controller(net.weights, EXACT_RTOL[epsilon]), diffrax.Dopri5()
    )
    assert float(made.reached) == pytest.approx(t1)
    return weights(made)


def contestants(net, rtols):
    for rtol in rtols:
        for name in ("Tsit5", "Bosh3", "Dopri8"):
            yield name, "I", rtol, controller(net, rtol), getattr(diffrax, name)()
        for name in ("Tsit5", "Bosh3"):
            yield name, "PI", rtol, default_controller(net.weights, rtol), getattr(diffrax, name)()
        product = float(jnp.linalg.norm(net.weights[1] @ net.weights[0]))
        inner = diffrax.PIDController(rtol=rtol, atol=rtol * product)
        yield "Tsit5", "I, norm of W_2 W_1", rtol, OfTheMap(inner), diffrax.Tsit5()


@by_epsilon
def test_solvers(benchmark, table, epsilon):
    reference = exact(epsilon)
    task, t1 = problem(epsilon)
    net = network(task, epsilon=epsilon)
    rows = []
    for name, kind, rtol, control, solver in contestants(net, RTOLS[epsilon]):
        made = solve(task, net, t1, control, solver)
        stats, found = made.stats, weights(made)
        steps = int(stats["num_steps"])
        rows.append(
            [
                name,
                kind,
                f"{rtol:.0e}",
                f"{steps}",
                f"{int(stats['num_rejected_steps'])}",
                f"{steps * STAGES[name] + 2}",
                f"{distance(found, reference):.0e}",
                f"{map_distance(found, reference):.0e}",
            ]
        )
    benchmark.pedantic(lambda: weights(dynamics.gradient_flow(net, task, t1=t1)), rounds=2)
    table(
        f"Solvers at epsilon = {epsilon:g} to t = {t1:.2f}, float32",
        [
            "solver",
            "controller",
            "rtol",
            "steps",
            "rejected",
            "gradients",
            "error of W",
            "of W_2 W_1",
        ],
        rows,
        f"Errors against float64, Dopri5, rtol {EXACT_RTOL[epsilon]:.0e}.",
    )


def test_an_implicit_solver_late(benchmark, table):
    """From t*_0.9 on, where the flow creeps: a small network, since every Newton step needs the
    field's Jacobian, as many directional derivatives as there are weights."""
    task = tasks.mnist(7, components=10)
    t1 = end(task)
    start = networks.initialize(
        jax.random.key(0), task.rank, 16, 2, epsilon=EPSILON, beta=BETA, dtype="float64"
    )
    late = dynamics.gradient_flow(start, task, t1=t1).network()
    reference = weights(solve(task, late, 10 * t1, controller(late, 1e-9), diffrax.Dopri8()))
    rows = []
    for solver in (diffrax.Tsit5(), diffrax.Bosh3(), diffrax.Kvaerno3(), diffrax.Kvaerno5()):
        run = functools.partial(solve, task, late, 10 * t1, controller(late, 1e-4), solver)
        made = run()
        seconds = race({"": lambda run=run: weights(run())}, 2)[""]
        steps = int(made.stats["num_steps"])
        error = distance(weights(made), reference)
        rows.append([type(solver).__name__, f"{steps}", f"{seconds:.2f}", f"{error:.0e}"])
    benchmark.pedantic(lambda: weights(run()), rounds=1)
    count = sum(w.size for w in late.weights)
    table(
        f"From t = {t1:.1f} to {11 * t1:.0f}: 10 components, width 16, rtol 1e-4, float64",
        ["solver", "steps", "seconds", "error of W"],
        rows,
        f"{count} weights, and so {count} directional derivatives a Jacobian.",
    )


BOUNDS = ("trajectory", "trajectory-measured", "split-a-priori", "split-a-posteriori")


@by_epsilon
def test_digits_of_the_bound(benchmark, table, epsilon):
    task = tasks.mnist(7)
    names = BOUNDS if epsilon < 1 else BOUNDS[2:]
    settings = Settings(epsilon=epsilon, end_time=END[epsilon])

    def values(rtol):
        made = report(task, dataclasses.replace(settings, rtol=rtol, max_steps=100_000))
        steps = int(made.trajectory.stats["num_steps"])
        return steps, {name: float(made.best(name)["value"]) for name in names}

    finest = RTOLS[epsilon][-1] / 10
    most, best = values(finest)
    rows = []
    for rtol in (1e-2, *RTOLS[epsilon]):
        steps, found = values(rtol)
        row = [f"{rtol:.0e}", f"{steps}", *(f"{found[n]:.5f}" for n in names)]
        worst = max(abs(found[name] - best[name]) for name in names)
        rows.append([*row, f"{worst:.0e}"])
    rows.append([f"{finest:.0e}", f"{most}", *(f"{best[n]:.5f}" for n in names), "-"])
    benchmark.pedantic(values, args=(1e-2,), rounds=1)
    table(
        f"What rtol buys, epsilon = {epsilon:g}: the best bounds of a report",
        ["rtol", "steps", *names, "largest difference"],
        rows,
    )


def test_why_a_tight_tolerance_takes_so_many_steps(benchmark, table):
    """Steps without kinks (epsilon = 0) and with larger and larger ones."""
    rows = []
    task = tasks.mnist(7)
    for epsilon in (0.0, 0.001, 0.01, 0.1):
        net = network(task, "float64", epsilon=epsilon)
        t1 = end(task, epsilon=epsilon)
        row = [f"{epsilon:g}"]
        for rtol in (1e-3, 1e-5, 1e-7):
            made = solve(task, net, t1, default_controller(net.weights, rtol), diffrax.Tsit5())
            row.append(f"{int(made.stats['num_steps'])}")
        rows.append(row)
    net = network(task, epsilon=0.1)
    benchmark.pedantic(lambda: weights(dynamics.gradient_flow(net, task, t1=1.0)), rounds=2)
    table(
        "Steps of Tsit5 to t*_0.9, float64",
        ["epsilon", "rtol 1e-3", "1e-5", "1e-7"],
        rows,
        "Without kinks (epsilon = 0) a hundredth of the tolerance costs 100^(1/5) = 2.5 times the "
        "steps. With kinks the right side has jumps of size epsilon in its derivative, and a step "
        "over them has an error of order h^2 epsilon however many stages the solver has.",
    )
