"""Errors as a user of the command reads them."""

import contextlib
from collections.abc import Iterator
from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """Print one line on stderr and exit with status 2."""
    typer.echo(f"nlbound: {message}", err=True)
    raise typer.Exit(2)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a `ValueError` about the user's input, or the lack of an optional extra, into one line
    and exit status 2."""
    try:
        yield
    except (ImportError, ValueError) as error:
        fail(str(error))
