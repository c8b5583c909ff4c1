"""The command line: parse, call one verb, print, exit code. Nothing here computes."""

from __future__ import annotations

import contextlib
import errno
import sys
from typing import Annotated, NoReturn

import typer

from vizcomp._version import __version__
from vizcomp.cli import log
from vizcomp.cli.check import check
from vizcomp.cli.decode import decode
from vizcomp.cli.demo import demo
from vizcomp.cli.depth import depth
from vizcomp.cli.djpeg import djpeg
from vizcomp.cli.doctor import doctor
from vizcomp.cli.encode import encode
from vizcomp.cli.eval import evaluate
from vizcomp.cli.fit import fit
from vizcomp.cli.info import info
from vizcomp.cli.look import look
from vizcomp.cli.train import train
from vizcomp.cli.usage import read
from vizcomp.cli.weights import app as weights
from vizcomp.cli.words import in_flags, in_safe_lines
from vizcomp.errors import (
    FormatError,
    InputError,
    ModelError,
    OutputError,
    VizcompError,
    was_interrupted,
)

_STREAM_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of the disk behind a stream

app = typer.Typer(
    name="vizcomp",
    help=(
        "Compress images for the computer-vision system that will look at them.\n\nEvery option is"
        " also a variable, as VIZCOMP_QUALITY or VIZCOMP_DJPEG_QUALITY, and a key of vizcomp.toml."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(djpeg)
app.command()(depth)
app.command()(encode)
app.command()(decode)
app.command("eval")(evaluate)
app.command()(fit)
app.command()(check)
app.command()(info)
app.command()(look)
app.command()(doctor)
app.command()(demo)
app.command()(train)
app.add_typer(weights, name="weights")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vizcomp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def _interrupted() -> NoReturn:
    if log.in_json:
        log.event("error", text="interrupted", hint="", code=130)
    else:
        print("interrupted", file=sys.stderr)
    sys.exit(130)


def _failed(exc: VizcompError) -> NoReturn:
    hint = exc.hint
    if not hint and isinstance(exc, FormatError | InputError | ModelError):
        hint = "give another file, or make this one again"
    elif not hint:
        hint = "--help lists the options of a command"
    if log.in_json:
        log.event("error", text=in_flags(exc.message), hint=in_flags(hint), code=exc.exit_code)
    else:
        print(f"error: {in_safe_lines(exc.message)}", file=sys.stderr)
        print(f"  try: {in_safe_lines(hint)}", file=sys.stderr)
    sys.exit(exc.exit_code)


def main() -> None:
    """Run the command line; every error that a user can cause ends in two lines and its exit
    code."""
    log.in_json = False
    try:
        code = read(app)
        if sys.stdout is not None:  # the shell may have closed it
            sys.stdout.flush()  # Python's own end would say in words of its own what fails here
        sys.exit(code)
    except VizcompError as exc:
        if was_interrupted(exc):
            _interrupted()
        _failed(exc)
    except KeyboardInterrupt:
        _interrupted()
    # the reader of our output has gone (vizcomp ... | head): nothing is left to say
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as exc:
        # of a file there would be the name
        if exc.filename is not None or exc.errno not in _STREAM_FAULTS:
            raise
        from vizcomp.files.place import disk_cause, disk_hint

        with contextlib.suppress(OSError):
            sys.stdout.close()  # what it still holds goes nowhere
        _failed(
            OutputError(f"standard output cannot be written: {disk_cause(exc)}", disk_hint(exc))
        )
