"""`python -m vizcomp` and the `vizcomp` command."""

from __future__ import annotations

import atexit
import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Load the command line and run it. Ctrl-C and SIGTERM while it loads are an interruption like
    any other; those that come when all is done do not spoil it."""
    code: object = 130
    atexit.register(_deaf)  # the first that is registered runs last
    try:
        # as Ctrl-C: finish what is in hand, report; not by way of SIGINT, which a job that a script
        # starts with & ignores
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        code = _run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        _end_in_peace(code)
    # Python remembers a KeyboardInterrupt that left a text it executed (a dataclass in the making),
    # and would end by SIGINT in place of the exit code: another such text makes it forget.
    exec("")
    sys.exit(code)  # type: ignore[arg-type]


def _run() -> object:
    """The exit code of what the command line says."""
    try:
        from vizcomp.cli import main as run

        run()
    except SystemExit as exc:
        return exc.code
    except BaseException as exc:
        from vizcomp.errors import was_interrupted

        if not was_interrupted(exc):
            raise
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _end_in_peace(code: object) -> None:
    """Nothing is left but Python's own end, of which a signal would leave a traceback: one is
    ignored, the next ends the process at once."""
    heard: list[int] = []

    def answer(number: int, _: object) -> None:
        if heard:
            sys.stdout.flush()
            os._exit(code if isinstance(code, int) else 1)
        heard.append(number)

    for number in SIGNALS:
        if signal.getsignal(number) is signal.default_int_handler:
            signal.signal(number, answer)


def _deaf() -> None:
    """Python takes its handlers away before it ends: for some milliseconds a signal would kill."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
