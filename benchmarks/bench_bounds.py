"""What a setting costs after its flow: reference flow, trajectory and split bounds."""

import diffrax
import jax
from measure import done, race
from nlbound_jax.report._ladder import Run
from nlbound_jax.report._split import split_rows

from nlbound_jax import bounds, dynamics, tasks
from nlbound_jax.report import Settings
from nlbound_jax.report._train import end_time, risks, save_times, start, train


def prepared(depth):
    """A run of `nlbound report`, as far as the bounds need it."""
    task = tasks.mnist(7)
    beta = 0.001 if depth == 2 else 0.01
    settings = Settings(depth=depth, beta=beta)
    net, t1 = start(task, settings), end_time(task, settings)
    trajectory = train(net, task, settings, t1, diffrax.NoProgressMeter())
    ts = save_times(t1, settings)
    reference = dynamics.reference_flow(net, task.target, ts)
    gammas = reference.scale[:, None] / jax.numpy.asarray(settings.ratios)
    run = Run(task, settings, net, trajectory, reference, gammas, risks(trajectory, task, gammas))
    return run, net, ts


def trajectory_bound(run):
    settings, reference = run.settings, run.reference
    return bounds.trajectory_bound(
        reference.norms[:, None],
        reference.frobenius[:, None, 0],
        reference.envelope[:, None],
        epsilon=settings.epsilon,
        gamma=run.gammas,
        dim=run.task.rank,
        num_samples=run.task.num_samples,
        cells=settings.cells,
    ).value


def test_bounds_of_a_setting(benchmark, table):
    rows = []
    for depth in (2, 3):
        run, net, ts = prepared(depth)
        contestants = {
            "reference flow with envelope": done(
                lambda net=net, run=run, ts=ts: (
                    dynamics.reference_flow(net, run.task.target, ts).envelope
                )
            ),
            "trajectory bound": done(lambda run=run: trajectory_bound(run)),
            "split bounds": done(lambda run=run: split_rows(run)),
        }
        taken = race(contestants, 5)
        rows += [[f"{depth}", name, f"{seconds:.3f}"] for name, seconds in taken.items()]
        if depth == 2:
            benchmark.pedantic(contestants["split bounds"], rounds=3)
    cells = run.settings.cells
    table(
        "Bounds of one setting at 40 times, MNIST 7x7, after compilation",
        ["L", "", "seconds"],
        rows,
        f"The trajectory bound in {cells} cells (t, gamma); the split bounds in all four versions.",
    )
