"""A command that is stopped by a signal: one line, and the exit status that a shell gives it."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from ._errors import fail, received


class Group(TyperGroup):
    """Subcommands that end with one line when they are interrupted."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except BaseException as error:
            # An interrupt inside a callback of XLA comes as an error of XLA.
            if not received and not isinstance(error, KeyboardInterrupt):
                raise
            number = received[0] if received else signal.SIGINT
            if sys.stderr.isatty():
                typer.echo(err=True)  # below a bar that was cut short, and the terminal's ^C
            hint = "; what is done is kept, call again to go on"
            word = "interrupted" if number == signal.SIGINT else "terminated"
            fail(word + (hint if ctx.invoked_subcommand == "sweep" else ""), 128 + number)


def run(app: Callable[[], object]) -> None:
    """Run the command in this process, with SIGTERM an interrupt like SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    try:
        app()
    except SystemExit as end:
        if not received:
            raise
        # Not by Python's own end: it would take down what threads of XLA still work on, and
        # wait for the other processes of a sweep.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


def _interrupt(number: int, frame: object) -> None:
    received.append(number)
    raise KeyboardInterrupt
