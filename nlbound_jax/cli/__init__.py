"""The `nlbound` command, one module a subcommand."""

from ._main import main as main
