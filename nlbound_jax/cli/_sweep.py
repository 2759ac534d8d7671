"""`nlbound sweep`."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import declared

if TYPE_CHECKING:
    from ..sweep import SweepProgress, SweepStatus

# A process may be done days before the last one, and waits for it when it leaves.
_PATIENCE = 30 * 24 * 3600


class Action(StrEnum):
    status = "status"


@declared
def sweep(
    action: Annotated[
        Action | None,
        typer.Argument(help="status: how far the sweep in STORE is.", show_default=False),
    ] = None,
    store: Annotated[
        Path | None, typer.Argument(help="The store to look at.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with the tables axes, settings, compute.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The Zarr store to make or to continue.")] = None,
    shard: Annotated[
        str | None, typer.Option(help="i/n: do every n-th piece only, from the i-th on.")
    ] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed", help="Share the pieces with the processes that JAX detects (SLURM)."
        ),
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(help="host:port of process 0.", envvar="JAX_COORDINATOR_ADDRESS"),
    ] = None,
    num_processes: Annotated[
        int | None, typer.Option(help="How many processes there are.", envvar="JAX_NUM_PROCESSES")
    ] = None,
    process_id: Annotated[
        int | None, typer.Option(help="Which one this is, from 0.", envvar="JAX_PROCESS_ID")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
) -> None:
    """Reports for every combination of the values of named axes, in pieces, into one store."""
    import jax

    from ..sweep import SweepConfig, parse_shard, sweep_status
    from ..sweep import sweep as make

    set_up_jax()
    several = action is None and (distributed or coordinator is not None)
    with one_line_errors():
        if several and shard is not None:
            raise ValueError("`shard` must be left out with several processes under one runtime.")
        if several:
            _initialize(coordinator, num_processes, process_id)
        if action is not None:
            if store is None:
                raise ValueError("`store` must be given: nlbound sweep status STORE.")
            _show(sweep_status(store), as_json)
            return
        if config is None or out is None:
            raise ValueError(f"`{'out' if config else 'config'}` must be given.")
        part = None if shard is None else parse_shard(shard)
        loaded = SweepConfig.load(config)
        first = jax.process_index() == 0
        with _meter(first) as progress:
            make(loaded, out, shard=part, progress=progress)
        if several:
            jax.distributed.shutdown()  # returns when every process is done
        if first:
            _show(sweep_status(out), as_json)


def _initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Start JAX's runtime over several processes."""
    import jax

    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, shutdown_timeout_seconds=_PATIENCE
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"`coordinator` must lead to the other processes: {reason}") from None


@contextlib.contextmanager
def _meter(first: bool) -> Iterator["Callable[[SweepProgress], None] | None"]:
    """Progress on stderr if that is a terminal."""
    if not first or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=1.0)

        def update(now: "SweepProgress") -> None:
            left = "" if now.remaining is None else f", {duration(now.remaining)} left"
            text = f"{now.flows_done} of {now.flows} done, {sum(now.failed.values())} failed"
            text += f", {now.rate:.3g}/s{left}"
            bar.update(shown, description=text, total=now.flows, completed=now.flows_done)

        yield update


def duration(seconds: float) -> str:
    """`1:02:03`, hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _show(status: "SweepStatus", as_json: bool) -> None:
    if as_json:
        row: dict[str, Any] = status._asdict() | {"path": str(status.path)}
        typer.echo(json.dumps(row, allow_nan=False))
        return
    axes = ", ".join(f"{name} {len(v)}" for name, v in status.config["axes"].items())
    unit = "cells" if status.config["compute"]["mode"] == "theory" else "flows"
    typer.echo(f"{status.path}: {axes}")
    typer.echo(
        f"{status.flows_done} of {status.flows} {unit} done, {status.pieces_done} of "
        f"{status.pieces} pieces, {duration(status.seconds)} of work"
    )
    for name, count in status.failed.items():
        typer.echo(f"  {count} {name}")
    for name, count in status.processes.items():
        typer.echo(f"  {count} pieces by {name}")
