"""`vizcomp encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vizcomp.cli.options import (
    Config,
    Decoder,
    DryRun,
    Engine,
    Inputs,
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
    Robust,
    Verbose,
    place,
)
from vizcomp.cli.reports import Report, check_report, codec_report
from vizcomp.cli.voice import Voice


def encode(
    inputs: Inputs,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            parser=place,
            help="Folder for the results, the inputs' tree mirrored; without it beside each photo.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME|PATH",
            help="photo; cifar or cifar-label, of 32x32; or a model.safetensors.",
        ),
    ] = "photo",
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations",
            min=1,
            help="Iterations of the codec: more are larger and better.",
            show_default="as the model says",
        ),
    ] = None,
    bpp: Annotated[
        float | None,
        typer.Option(
            "--bpp",
            metavar="X",
            help="As many iterations as fit into X bits of file for each pixel.",
        ),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            "--search",
            metavar="N",
            min=0,
            help=(
                "Candidates tried in each iteration, as 24: a better image in as many bytes, but"
                " slower; 0 = none. "
                "By default only for images that the codec's classifier would mistake."
            ),
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        list[str] | None,
        typer.Option(
            "--verify",
            metavar="SYSTEM",
            help=(
                "For each photo the fewest iterations on which this system still answers as on the"
                " source: "
                "text, inception, torchvision:NAME, PATH.onnx. Repeatable: all must."
            ),
            show_default=False,
        ),
    ] = None,
    robust: Robust = None,
    decoder: Decoder = "pillow",
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            min=0,
            max=1,
            help="How much the answer may differ under --verify: 0 = not at all.",
        ),
    ] = 0.0,
    pack: Annotated[
        bool, typer.Option("--pack", help="Write one pack of all images, named by -o, as set.vzc.")
    ] = False,
    no_names: Annotated[
        bool, typer.Option("--no-names", help="With --pack: leave the images' names out.")
    ] = False,
    with_model: Annotated[
        bool,
        typer.Option(
            "--with-model",
            help="With --pack: put the model's file into the pack, for ever decodable.",
        ),
    ] = False,
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
    """Encode photos with the recurrent codec, each to NAME.vzc; with --pack, many small images into
    one file."""
    from vizcomp.batch.encode import run_encode
    from vizcomp.batch.encode_pack import run_encode_pack
    from vizcomp.batch.engines import check_engine
    from vizcomp.batch.settings import EncodeSettings
    from vizcomp.errors import SettingsError
    from vizcomp.files.find import count_inputs, find_inputs

    voice = Voice(quiet=quiet, verbose=verbose, taken=json, log_json=log_json)
    where = check_engine(engine, ray_address)
    settings = EncodeSettings(
        model=model,
        iterations=iterations,
        bpp=bpp,
        search=search,
        max_pixels=max_pixels,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
        verify=tuple(dict.fromkeys(verify or ())),
        robust=robust,
        decoder=decoder,
        tolerance=tolerance,
        offline=offline,
    )
    if pack and output is None:
        raise SettingsError("--pack needs a file to write", "add -o, as -o set.vzc")
    if no_names and not pack:
        raise SettingsError(
            "--no-names goes with --pack", "a file of one image holds no name of it"
        )
    if with_model and not pack:
        raise SettingsError(
            "--with-model goes with --pack", "a file of one image does not hold its model"
        )
    check_report(report, dry_run=dry_run)
    files = find_inputs(inputs, exclude=output, report=voice.passed_over)
    voice.readings(settings.verify, offline=offline)
    with (
        voice.downloads(),
        voice.progress(lambda: count_inputs(inputs, exclude=output)) as on_record,
    ):
        if pack and output is not None:
            options = voice.options(on_record, jobs=jobs, engine=where)
            run = run_encode_pack(
                files, output, settings, options, names=not no_names, with_model=with_model
            )
        else:
            run = run_encode(
                files, output, settings, voice.options(on_record, jobs=jobs, engine=where)
            )
    voice.codec_summary(run, dry_run=dry_run)
    voice.verdicts(settings.verify, run.totals)
    for notice in run.told:
        voice.warn(notice)
    systems: list[dict[str, object]] = []
    if settings.verify:  # vision systems are slow to load
        from vizcomp.batch.about import about_system

        systems = [about_system(name, offline, decoder) for name in settings.verify]
    shown = {
        **settings.to_dict(),
        "pack": pack,
        "names": not no_names,
        "jobs": jobs,
        "systems": systems,
    }
    codec_report("vizcomp encode", run, shown, voice, folder=report, json=json)
    nothing_done = run.totals.files > 0 and run.totals.skipped == run.totals.files
    failed = run.exit_code
    raise typer.Exit(
        voice.exit_code(interrupted=run.interrupted, failed=failed, nothing_done=nothing_done)
    )
