"""`nlbound check`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from .._settings import DataSpec, Settings
from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import TRAINING, Only, declared
from ._progress import progress_bar


def _number(value: float | None) -> str:
    return "inf" if value is None else f"{value:.3g}"


def _counterexamples(as_json: bool) -> None:
    from ..checks import counterexamples

    inequalities = counterexamples()
    if as_json:
        keys = ("name", "statement", "measured", "bound", "holds", "setting")
        rows = [
            {key: getattr(one, key) for key in keys}
            | {"repaired_measured": one.repaired_measured, "repaired": one.repaired}
            for one in inequalities
        ]
        typer.echo(json.dumps({"counterexamples": rows}, allow_nan=False))
        return
    for one in inequalities:
        typer.echo(f"{one.name}: {one.statement}")
        typer.echo(f"  {one.setting}")
        verdict = "holds" if one.holds else "fails"
        typer.echo(f"  measured {one.measured:.3g}, claimed bound {one.bound:.3g}: {verdict}")
        if one.repaired is not None:
            typer.echo(f"  repaired: measured {one.repaired_measured:.3g} <= {one.repaired:.3g}")


def _table(inequalities):
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title="every inequality at its tightest time", title_justify="left")
    grid.add_column("inequality", overflow="fold")
    grid.add_column("", no_wrap=True)
    for name in ("t", "measured", "bound", "slack"):
        grid.add_column(name, justify="right")
    grid.add_column("holds", no_wrap=True)
    for check in inequalities.checks:
        row = check.as_dict()
        kind = "claimed" if row["claimed"] else "as printed"
        numbers = [_number(row[key]) for key in ("measured", "bound", "slack")]
        verdict = "yes" if row["holds"] else "NO"
        grid.add_row(escape(row["equation"]), kind, f"{row['t']:.2f}", *numbers, verdict)
    return grid


def _lines(inequalities) -> list[str]:
    """What is to be said of kinks."""
    crossed = int(inequalities.crossings[-1])
    lines = [f"{crossed} pairs of a sample and a hidden unit crossed a kink by the end."]
    if inequalities.gap is not None:
        gap, error = float(inequalities.gap[-1].max()), float(inequalities.gap_error[-1].max())
        lines.append(
            f"Frozen and true derivative differ by {gap:.2g} there (the true one is known to "
            f"{error:.2g})."
        )
    return lines


@declared
def check(
    data: DataSpec,
    settings: Annotated[Settings, Only(TRAINING)],
    points: Annotated[int, typer.Option(help="Times at which to measure.")] = 20,
    central: Annotated[
        bool, typer.Option(help="Find the true derivative in tau as well (four more flows).")
    ] = True,
    counterexamples: Annotated[
        bool, typer.Option("--counterexamples", help="Run the counterexamples instead.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json, check.png and check.zarr.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure every inequality of the proofs along a run and hold it against its bound.

    Exit status 1 if a claimed inequality fails."""
    import numpy as np
    from rich.console import Console

    from .. import _validate, checks
    from .._files import write_json, write_png
    from ..figures import save_data
    from ..report import end_time, prepare_folder, start_network
    from ..tasks import load_task

    set_up_jax()
    if counterexamples:
        _counterexamples(as_json)
        return
    with one_line_errors():
        points = _validate.integer("points", points, 1)
        settings = dataclasses.replace(settings, dtype="float64")
        folder = None if out is None else prepare_folder(out)
        task = load_task(data)
        net = start_network(task, settings)
        ts = np.linspace(0.0, end_time(task, settings), points + 1)[1:]
        run = checks.measure(net, task, ts, central=central, progress_meter=progress_bar())
        inequalities = checks.evaluate(run)
        if folder is not None:
            write_json(folder / "check.json", inequalities.as_dict())
            write_png(folder / "check.png", checks.plot_slack(inequalities), dpi=110)
            save_data(inequalities.to_xarray(), folder / "check.zarr")
    if as_json:
        typer.echo(json.dumps(inequalities.as_dict(), allow_nan=False))
    else:
        Console(width=max(130, Console().width)).print(_table(inequalities))
        typer.echo("\n".join(_lines(inequalities)))
    if not inequalities.hold:
        raise typer.Exit(1)
