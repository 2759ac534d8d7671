"""`nlbound report`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import (
    Beta,
    Components,
    DataDir,
    Dataset,
    Delta,
    Depth,
    EndTime,
    Epsilon,
    Init,
    InitKind,
    NormBound,
    Positive,
    Seed,
    Side,
    Until,
    Width,
)


class Dynamics(StrEnum):
    flow = "flow"
    gd = "gd"


class Dtype(StrEnum):
    float32 = "float32"
    float64 = "float64"


def report(
    dataset: Dataset = "mnist",
    side: Side = None,
    components: Components = None,
    data_dir: DataDir = None,
    positive: Positive = None,
    norm_bound: NormBound = None,
    width: Width = 64,
    depth: Depth = 2,
    epsilon: Epsilon = 0.001,
    beta: Beta = 0.001,
    init: InitKind = Init.default,
    kappa: Annotated[int, typer.Option(help="Proxy of Theorem 5.2: 1 or 2.")] = 2,
    delta: Delta = 0.01,
    precision_bits: Annotated[int, typer.Option(help="Bits of a number, p.")] = 32,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(help="Repeat for that many seeds and give the spread.")] = 1,
    until: Until = 0.9,
    end_time: EndTime = None,
    dynamics: Annotated[
        Dynamics, typer.Option(help="Exact gradient flow, or gradient descent with step 0.001.")
    ] = Dynamics.flow,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the training.")] = Dtype.float32,
    max_steps: Annotated[int, typer.Option(help="Largest number of solver steps.")] = 4096,
    rtol: Annotated[
        float, typer.Option(help="Relative tolerance of the flow; 1e-3 for long runs near ReLU.")
    ] = 1e-4,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and report.png.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of the table.")
    ] = False,
) -> None:
    """Train a leaky-ReLU network and print the bounds next to its true test error."""
    # Imported here so that `nlbound --help` answers at once.
    import diffrax
    from rich.console import Console

    from ..report import Settings, prepare_folder, report_seeds, save, spread, spread_table, table
    from ..tasks import load_task

    set_up_jax()
    with one_line_errors():
        settings = Settings(
            width=width,
            depth=depth,
            epsilon=epsilon,
            beta=beta,
            init=init.value,
            kappa=kappa,
            delta=delta,
            precision_bits=precision_bits,
            seed=seed,
            until=until,
            end_time=end_time,
            dynamics=dynamics.value,
            dtype=dtype.value,
            max_steps=max_steps,
            rtol=rtol,
        )
        if out is not None:
            prepare_folder(out)
        task = load_task(
            dataset,
            side=side,
            components=components,
            data_dir=data_dir,
            positive=positive,
            norm_bound=norm_bound,
        )
        meter = diffrax.TqdmProgressMeter()
        reports = list(report_seeds(task, settings, seeds, progress_meter=meter))
    made = reports[0]
    if out is not None:
        save(made, out)
    found = made.as_dict()
    if as_json:
        extra = {"seeds": spread(reports)} if seeds > 1 else {}
        typer.echo(json.dumps({**found, **extra}, allow_nan=False))
    else:
        console = Console(width=max(120, Console().width))
        console.print(table(made))
        if seeds > 1:
            console.print(spread_table(reports))
    for one in reports:
        outcome = one.as_dict()["trajectory"]["result"]
        if outcome != "successful":
            fail_at = float(one.trajectory.reached)
            typer.echo(f"nlbound: training stopped at t = {fail_at:.6g}: {outcome}", err=True)
