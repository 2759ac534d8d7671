"""The `nlbound` command, one module a subcommand."""

from ._app import main as main
