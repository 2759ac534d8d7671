"""`nlbound report`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._errors import one_line_errors


class Init(StrEnum):
    default = "default"
    rank_one = "rank-one"


class Dynamics(StrEnum):
    flow = "flow"
    gd = "gd"


class Dtype(StrEnum):
    float32 = "float32"
    float64 = "float64"


def report(
    dataset: Annotated[str, typer.Option(help="The data: mnist.")] = "mnist",
    side: Annotated[int, typer.Option(help="Pixels of the pooled images: 7, 14 or 28.")] = 7,
    components: Annotated[
        int | None, typer.Option(help="Keep that many principal directions.")
    ] = None,
    width: Annotated[int, typer.Option(help="Units of a hidden layer.")] = 64,
    depth: Annotated[int, typer.Option(help="Number of weight matrices L.")] = 2,
    epsilon: Annotated[float, typer.Option(help="1 - negative slope: 0 linear, 1 ReLU.")] = 0.001,
    beta: Annotated[float, typer.Option(help="Spectral norm of each layer at the start.")] = 0.001,
    init: Annotated[Init, typer.Option(help="Initialization of the input layer.")] = Init.default,
    kappa: Annotated[int, typer.Option(help="Proxy of Theorem 5.2: 1 or 2.")] = 2,
    delta: Annotated[float, typer.Option(help="1 - confidence.")] = 0.01,
    precision_bits: Annotated[int, typer.Option(help="Bits of a number, p.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the initialization.")] = 0,
    seeds: Annotated[int, typer.Option(help="Repeat for that many seeds and give the spread.")] = 1,
    until: Annotated[
        float, typer.Option(help="Train until this fraction of the strongest mode is learned.")
    ] = 0.9,
    end_time: Annotated[
        float | None, typer.Option(help="Train until this time instead of --until.")
    ] = None,
    dynamics: Annotated[
        Dynamics, typer.Option(help="Exact gradient flow, or gradient descent with step 0.001.")
    ] = Dynamics.flow,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the training.")] = Dtype.float32,
    max_steps: Annotated[int, typer.Option(help="Largest number of solver steps.")] = 4096,
    rtol: Annotated[
        float, typer.Option(help="Relative tolerance of the flow; 1e-3 for long runs near ReLU.")
    ] = 1e-5,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and report.png.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of the table.")
    ] = False,
) -> None:
    """Train a leaky-ReLU network and print the bounds next to its true test error."""
    # Imported here so that `nlbound --help` answers at once.
    import diffrax
    import jax
    from rich.console import Console

    from .. import tasks
    from ..report import Settings, prepare_folder, report_seeds, save, spread, spread_table, table

    jax.config.update("jax_enable_x64", True)
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
        if dataset != "mnist":
            raise ValueError(f"`dataset` must be 'mnist', got {dataset!r}.")
        if out is not None:
            prepare_folder(out)
        task = tasks.mnist(side, components)
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
