"""`nlbound report`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .._settings import DataSpec, Settings
from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import declared
from ._progress import progress_bar


@declared
def report(
    data: DataSpec,
    settings: Settings,
    seeds: Annotated[int, typer.Option(help="Repeat for that many seeds and give the spread.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and report.png.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of the table.")
    ] = False,
) -> None:
    """Train a leaky-ReLU network and print the bounds next to its true test error."""
    # Imported here so that `nlbound --help` answers at once.
    from rich.console import Console

    from ..report import prepare_folder, report_seeds, save, spread, spread_table, table
    from ..tasks import load_task

    set_up_jax()
    with one_line_errors():
        if out is not None:
            prepare_folder(out)
        task = load_task(data)
        reports = list(report_seeds(task, settings, seeds, progress_meter=progress_bar()))
        first = reports[0]
        if out is not None:
            save(first, out)
    values = first.as_dict()
    if as_json:
        extra = {"seeds": spread(reports)} if seeds > 1 else {}
        typer.echo(json.dumps({**values, **extra}, allow_nan=False))
    else:
        console = Console(width=max(120, Console().width))
        console.print(table(first))
        if seeds > 1:
            console.print(spread_table(reports))
    for one in reports:
        outcome = one.as_dict()["trajectory"]["result"]
        if outcome != "successful":
            fail_at = float(one.trajectory.reached)
            typer.echo(f"nlbound: training stopped at t = {fail_at:.6g}: {outcome}", err=True)
