"""`vizcomp decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vizcomp.cli.options import (
    Config,
    DryRun,
    Engine,
    Jobs,
    Json,
    LogJson,
    MaxPixels,
    Offline,
    Overwrite,
    Profile,
    Quiet,
    RayAddress,
    Resume,
    Verbose,
    place,
)
from vizcomp.cli.reports import Report, check_report, codec_report
from vizcomp.cli.voice import Voice


def decode(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help=".vzc files, packs, folders (searched through) or globs."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            parser=place,
            help="Folder for the results, the inputs' tree mirrored; without it beside each file.",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations",
            min=1,
            help="Stop after so many: a coarser image.",
            show_default="all of the file",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="The model.safetensors that wrote the files, where it is not bundled.",
        ),
    ] = None,
    max_pixels: MaxPixels = 200_000_000,
    jobs: Jobs = 0,
    engine: Engine = "local",
    ray_address: RayAddress = "",
    overwrite: Overwrite = False,
    resume: Resume = False,
    dry_run: DryRun = False,
    report: Report = "none",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
    log_json: LogJson = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Decode .vzc files, each to NAME.png; a pack to a folder NAME with its images.

    The model is found by its fingerprint in the file. A file that was cut off gives the image of
    its complete iterations.
    """
    from vizcomp.batch.decode import VZC_EXTENSIONS, run_decode
    from vizcomp.batch.engines import check_engine
    from vizcomp.batch.settings import DecodeSettings
    from vizcomp.files.find import count_inputs, find_inputs

    voice = Voice(quiet=quiet, verbose=verbose, taken=json, log_json=log_json)
    where = check_engine(engine, ray_address)
    settings = DecodeSettings(
        model=model,
        iterations=iterations,
        max_pixels=max_pixels,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
    )
    check_report(report, dry_run=dry_run)
    extensions = VZC_EXTENSIONS
    files = find_inputs(
        inputs, exclude=output, report=voice.passed_over, extensions=extensions, what=".vzc file"
    )
    count = lambda: count_inputs(inputs, exclude=output, extensions=extensions)  # noqa: E731
    with voice.progress(count) as on_record:
        run = run_decode(files, output, settings, voice.options(on_record, jobs=jobs, engine=where))
    voice.codec_summary(run, dry_run=dry_run)
    shown = {**settings.to_dict(), "jobs": jobs}
    codec_report("vizcomp decode", run, shown, voice, folder=report, json=json)
    nothing_done = run.totals.files > 0 and run.totals.skipped == run.totals.files
    failed = run.exit_code
    raise typer.Exit(
        voice.exit_code(interrupted=run.interrupted, failed=failed, nothing_done=nothing_done)
    )
