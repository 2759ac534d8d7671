"""The command and its subcommands."""

import typer

from ._bound import bound
from ._certify import certify
from ._check import check
from ._compare import compare
from ._errors import one_line_output
from ._figure import figure
from ._interrupt import Group, run
from ._report import report
from ._sweep import sweep

app = typer.Typer(
    cls=Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Generalization bounds for nearly-linear networks.",
)


@app.callback()
def _root() -> None:
    """Generalization bounds for nearly-linear networks."""


app.command()(report)
app.command()(bound)
app.command()(certify)
app.command()(check)
app.command()(compare)
app.command()(figure)
app.command()(sweep)


def main() -> None:
    """Run the `nlbound` command."""
    with one_line_output():
        run(app)
