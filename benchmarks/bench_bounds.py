"""What a setting costs after its flow: the reference flow, and bounds along the run."""

from measure import done, race

from nlbound_jax import Settings, dynamics, ladder, tasks
from nlbound_jax.report import train

SPLIT = (
    ladder.SplitAPriori(),
    ladder.SplitWhollyAPriori(),
    ladder.SplitAPosteriori(),
    ladder.SplitNoPlugIn(),
)
LADDERS = {
    "trajectory bound": (ladder.EnvelopeTrajectoryBound(),),
    "split bounds": SPLIT,
    "all bounds of a report": ladder.default_bounds(),
}


def test_bounds_of_a_setting(benchmark, table):
    task, rows = tasks.mnist(7), []
    for depth in (2, 3):
        settings = Settings(depth=depth, beta=0.001 if depth == 2 else 0.01)
        run = train(task, settings)
        net, ts = run.start, run.reference.ts
        contestants = {
            "reference flow with envelope": done(
                lambda net=net, ts=ts: dynamics.reference_flow(net, task.target, ts).envelope
            )
        }
        for name, bounds in LADDERS.items():
            contestants[name] = done(ladder.evaluate_run, bounds, run, settings.delta)
        taken = race(contestants, 5)
        rows += [[f"{depth}", name, f"{seconds:.3f}"] for name, seconds in taken.items()]
        if depth == 2:
            benchmark.pedantic(contestants["split bounds"], rounds=3)
    table(
        f"Bounds of one setting at {len(ts)} times, MNIST 7x7, after compilation",
        ["L", "", "seconds"],
        rows,
        f"The trajectory bound in {run.cells} cells (t, gamma); the split bounds in all four "
        "versions. With the passes over the sample: margins, risks, the held-out whitening.",
    )
