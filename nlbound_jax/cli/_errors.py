"""Errors as a user of the command reads them."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from .._naming import renamed
from .._writing import FULL, CannotWrite, reason

# The signals that were received: what fails after one is no failure of the program.
received: list[int] = []

# What the command that runs calls its arguments.
called: dict[str, str] = {}


def fail(message: str, status: int = 2) -> NoReturn:
    """Print one line on stderr and exit, with status 2 if it is about the user's input. Arguments
    are called what the command's user wrote."""
    typer.echo(f"nlbound: {renamed(message, called)}", err=True)
    raise typer.Exit(status)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a `ValueError` about the user's input, or the lack of an optional extra, into one line
    and exit status 2. A file that could not be written or a computation that failed
    (`RuntimeError`) is one line and status 1; what JAX raises of that kind is an error of the
    program and keeps its traceback."""
    try:
        yield
    except CannotWrite as error:
        fail(str(error), 1)
    except (ImportError, ValueError) as error:
        fail(str(error))
    except RuntimeError as error:
        if type(error) is not RuntimeError or received:
            raise
        fail(str(error), status=1)


@contextlib.contextmanager
def one_line_output() -> Iterator[None]:
    """Exit with status 1 where standard output cannot be written: silently if nobody reads it any
    more, with one line if there is no room for it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (*FULL, errno.EPIPE):
            raise
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            typer.echo(f"nlbound: the output could not be written: {reason(error)}.", err=True)
        sys.exit(1)
