"""What the command shows while it trains."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..dynamics import ProgressBar


def progress_bar() -> "ProgressBar | None":
    """A bar on stderr if that is a terminal: a log holds what was found, not the way there."""
    if not sys.stderr.isatty():
        return None
    from ..dynamics import ProgressBar

    return ProgressBar()
