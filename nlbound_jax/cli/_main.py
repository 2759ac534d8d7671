"""Where the command begins."""

import sys


def main() -> None:
    """Run the `nlbound` command."""
    try:
        # Imported here: an interrupt may come as early as this.
        from ._app import main as run
    except KeyboardInterrupt:
        print("nlbound: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    run()
