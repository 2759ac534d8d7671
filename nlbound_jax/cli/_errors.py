"""Errors as a user of the command reads them."""

import contextlib
from collections.abc import Iterator
from typing import NoReturn

import typer

from .._writing import CannotWrite


def fail(message: str, status: int = 2) -> NoReturn:
    """Print one line on stderr and exit."""
    typer.echo(f"nlbound: {message}", err=True)
    raise typer.Exit(status)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a `ValueError` about the user's input, or the lack of an optional extra, into one line
    and exit status 2; a file that could not be written into one line and exit status 1."""
    try:
        yield
    except CannotWrite as error:
        fail(str(error), 1)
    except (ImportError, ValueError) as error:
        fail(str(error))
