"""`vizcomp demo`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vizcomp.cli.djpeg_run import Asked, carried_out, told
from vizcomp.cli.options import Config, Jobs, Profile, Quiet
from vizcomp.cli.voice import Voice


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for results and report.")
    ] = Path("vizcomp-demo"),
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Do not open the report in a browser.")
    ] = False,
    jobs: Jobs = 0,
    quiet: Quiet = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Compress the sample photos that come with vizcomp, and open the report.

    Needs neither photos nor the network. Results and report go to vizcomp-demo/.
    """
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.batch.streams import planned
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.evaluation.data import samples_folder

    voice = Voice(quiet=quiet, verbose=False)
    samples, batch = str(samples_folder()), BatchSettings()
    with planned(
        [samples], output, standard_input=sys.stdin.buffer, max_pixels=batch.max_pixels
    ) as plan:
        job = Asked(plan=plan, settings=DjpegSettings(), batch=batch, jobs=jobs, report=output)
        code = told(job, carried_out(job, voice), voice)
    page = (output / "report.html").absolute()
    if code == 0 and not no_open and _has_display():
        import webbrowser

        if webbrowser.open(page.as_uri()):
            voice.say(f"opened {page}")
    raise typer.Exit(code)


def _has_display() -> bool:
    """Whether somebody can see a browser."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
