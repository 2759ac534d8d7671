"""`nlbound compare`."""

import json
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


def compare(
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
    delta: Delta = 0.01,
    seed: Seed = 0,
    until: Until = 0.9,
    end_time: EndTime = None,
    rtol: Annotated[
        float, typer.Option(help="Relative tolerance of the flow; 1e-3 for long runs near ReLU.")
    ] = 1e-4,
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

    from ..report import Settings, comparison_table, prepare_folder, save_comparison
    from ..report import compare as make
    from ..tasks import load_task

    set_up_jax()
    with one_line_errors():
        settings = Settings(
            width=width,
            depth=depth,
            epsilon=epsilon,
            beta=beta,
            init=init.value,
            delta=delta,
            seed=seed,
            until=until,
            end_time=end_time,
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
        less = {"epsilons": (), "steps": None} if quick else {}
        made = make(
            task,
            settings,
            progress=lambda e: typer.echo(f"epsilon = {e:g} ...", err=True),
            **less,
        )
        if out is not None:
            save_comparison(made, out)
    found = made.as_dict()
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        Console(width=max(130, Console().width)).print(comparison_table(made))
    ends = {p["epsilon"]: p["result"] for p in found["over_epsilon"]}
    for one, outcome in (ends or {epsilon: found["trajectory"]["result"]}).items():
        if outcome != "successful":
            typer.echo(f"nlbound: training at epsilon = {one:g} stopped: {outcome}", err=True)
