"""`python -m vizcomp` and the `vizcomp` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line and run it. Ctrl-C while it loads is an interruption like any other."""
    try:
        from vizcomp.cli import main as run
    except BaseException as exc:
        from vizcomp.errors import was_interrupted

        if not was_interrupted(exc):
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
