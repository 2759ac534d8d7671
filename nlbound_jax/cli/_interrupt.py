"""A command that is stopped by a signal: one line, and the exit status that a shell gives it."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from ._errors import fail, received

# How long a command that was interrupted may take to end by itself, in seconds. Python hears of
# a signal when XLA returns, which a long program may not do for minutes.
GRACE = 1.5


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
            # Where training was, for one.
            notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
            fail(_line(number, ctx.invoked_subcommand) + notes, 128 + number)


def _line(number: int, subcommand: str | None) -> str:
    word = "interrupted" if number == signal.SIGINT else "terminated"
    hint = "; what is done is kept, call again to go on"
    return word + (hint if subcommand == "sweep" else "")


def run(app: Callable[[], object]) -> None:
    """Run the command in this process, with SIGTERM an interrupt like SIGINT."""
    handled: list[int] = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    ]
    for number in handled:
        signal.signal(number, _interrupt)
    if handled:
        _watch(handled)
        sys.unraisablehook = _unraisable
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


def _unraisable(lost: Any) -> None:
    """An interrupt that came where Python can raise nothing, as in JAX's callback of the garbage
    collector: once more, a moment later."""
    if not isinstance(lost.exc_value, KeyboardInterrupt) or not received:
        sys.__unraisablehook__(lost)
        return
    threading.Timer(0.05, _thread.interrupt_main, (received[0],)).start()


def _watch(handled: list[int]) -> None:
    """End this process in a thread of its own if the main one does not after a signal."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def end() -> None:
        number = 0
        while number not in handled:
            number = os.read(reader, 1)[0]
        time.sleep(GRACE)
        # What is written is written whole or not at all, whenever a process ends.
        below = "\n" if sys.stderr.isatty() else ""
        line = _line(number, sys.argv[1] if len(sys.argv) > 1 else None)
        os.write(2, f"{below}nlbound: {line}\n".encode())
        os._exit(128 + number)

    threading.Thread(target=end, daemon=True, name="nlbound-interrupt").start()
