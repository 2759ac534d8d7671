"""`nlbound compare`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .._settings import DataSpec, Settings
from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import TRAINING, Only, declared


@declared
def compare(
    data: DataSpec,
    settings: Annotated[
        Settings, Only((*TRAINING, "delta", "rtol", "anchor_fraction", "split_seed"))
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="No sweep over epsilon, no Gaussian PAC-Bayes bound.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for compare.json and compare.png.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the table.")
    ] = False,
) -> None:
    """Hold our bounds against the classical ones, for the same trained network."""
    from rich.console import Console

    from ..report import compare as make
    from ..report import comparison_table, prepare_folder, save_comparison
    from ..tasks import load_task

    set_up_jax()
    with one_line_errors():
        if out is not None:
            prepare_folder(out)
        task = load_task(data)
        less = {"epsilons": (), "steps": None} if quick else {}
        comparison = make(
            task,
            settings,
            progress=lambda e: typer.echo(f"epsilon = {e:g} ...", err=True),
            **less,
        )
        if out is not None:
            save_comparison(comparison, out)
    values = comparison.as_dict()
    if as_json:
        typer.echo(json.dumps(values, allow_nan=False))
    else:
        Console(width=max(130, Console().width)).print(comparison_table(comparison))
    ends = {p["epsilon"]: p["result"] for p in values["over_epsilon"]}
    for one, outcome in (ends or {settings.epsilon: values["trajectory"]["result"]}).items():
        if outcome != "successful":
            typer.echo(f"nlbound: training at epsilon = {one:g} stopped: {outcome}", err=True)
