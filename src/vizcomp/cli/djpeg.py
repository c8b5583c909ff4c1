"""`vizcomp djpeg`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vizcomp.cli.options import (
    Config,
    DepthModel,
    DryRun,
    Engine,
    Inputs,
    Jobs,
    Json,
    MaxPixels,
    Offline,
    Output,
    Overwrite,
    Profile,
    Quiet,
    RayAddress,
    Resume,
    Robust,
    Verbose,
)
from vizcomp.cli.pixels import (
    Labels,
    Lossless,
    MaxSide,
    Scale,
    Scans,
    Subsampling,
    parse_max_side,
    parse_scale,
    unused_without_loss,
)
from vizcomp.cli.policies import policy_settings
from vizcomp.cli.voice import Voice, command_line, print_parts


def djpeg(
    context: typer.Context,
    inputs: Inputs,
    output: Output,
    quality: Annotated[
        float, typer.Option("--quality", "-q", min=1, max=100, help="Quality of the most important regions.")
    ] = 50,
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, help="How much cheaper the least important regions get; 0 = no guidance.")
    ] = 0.25,
    guide: Annotated[
        str,
        typer.Option("--guide", metavar="NAMES", help="depth, text, detail, mask, system:NAME, several joined by +, or uniform."),
    ] = "depth+text",
    table: Annotated[
        str,
        typer.Option(
            "--table",
            metavar="auto|machine|photo",
            help="auto: by what the photo holds; machine: one step for all frequencies; photo: the standard's, for eyes.",
        ),
    ] = "auto",
    depth_model: DepthModel = "compact",
    depth_maps: Annotated[
        Path | None, typer.Option("--depth-maps", metavar="DIR", help="Ready-made depth maps by file stem.")
    ] = None,
    depth_kind: Annotated[
        str,
        typer.Option(
            "--depth-kind",
            metavar="KIND",
            help="What their numbers mean: nearness or disparity (large = near), metres or millimetres (large = far), or auto: "
            "told by the maps, or asked.",
        ),
    ] = "auto",
    depth_names: Annotated[
        str,
        typer.Option("--depth-names", metavar="PATTERN", help="How they are called, as 'depth_{stem}.png'.", show_default=False),
    ] = "",
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="Masks by file stem for --guide mask, bright = keep.")
    ] = None,
    target_size: Annotated[
        str,
        typer.Option(
            "--target-size", metavar="SIZE", help="Size of each result, as 20kB; met within 2% from below. Replaces --quality."
        ),
    ] = "",
    min_saving: Annotated[
        str, typer.Option("--min-saving", metavar="SHARE", help="Keep the source where less than this is saved, as 5%.")
    ] = "0%",
    metadata: Annotated[
        str, typer.Option("--metadata", metavar="none|essential|all", help="essential: ICC profile and orientation.")
    ] = "essential",
    max_side: MaxSide = "",
    scale: Scale = "",
    labels: Labels = None,
    subsampling: Subsampling = "420",
    scans: Scans = "progressive",
    lossless: Lossless = False,
    verify: Annotated[
        list[str] | None,
        typer.Option(
            "--verify",
            metavar="SYSTEM",
            help="For each photo the smallest file on which this system still answers as on the source: text, inception, "
            "torchvision:NAME, PATH.onnx. Given several times: all of them. Replaces --quality.",
        ),
    ] = None,
    watch_with: Annotated[
        list[str] | None,
        typer.Option("--watch-with", metavar="SYSTEM", help="Report how this system answers on the results; it decides nothing."),
    ] = None,
    min_quality: Annotated[
        float, typer.Option("--min-quality", min=0, max=100, help="No file of --verify is made below this quality; 0 lifts it.")
    ] = 20,
    robust: Robust = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="How much the answer may differ under --verify: 0 = not at all.")
    ] = 0.0,
    policy: Annotated[
        str,
        typer.Option("--policy", metavar="FILE", help="Certified settings, as vizcomp fit writes them."),
    ] = "",
    keep_dates: Annotated[bool, typer.Option("--keep-dates", help="Give results the dates of their sources.")] = False,
    max_pixels: MaxPixels = 200_000_000,
    jobs: Jobs = 0,
    engine: Engine = "local",
    ray_address: RayAddress = "",
    overwrite: Overwrite = False,
    resume: Resume = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Compress photos to ordinary JPEG files: near regions keep their detail, far ones cost little.

    Writes NAME.jpg for each photo, and report.html, report.json and report.csv.
    """
    from vizcomp._version import __version__
    from vizcomp.batch.about import systems_of
    from vizcomp.batch.djpeg import gallery, run_djpeg
    from vizcomp.batch.engines import check_engine
    from vizcomp.batch.judges import guide_systems
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.cli.values import parse_fraction, parse_size
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.errors import OutputError
    from vizcomp.files.find import count_inputs, find_inputs
    from vizcomp.files.write import check_output_folder
    from vizcomp.report.djpeg import DjpegReport

    voice = Voice(quiet=quiet, verbose=verbose)
    where = check_engine(engine, ray_address)
    unused = unused_without_loss(context, lossless, voice)
    asked = {
        "quality": quality,
        "strength": strength,
        "guide": guide,
        "table": table,
        "target_size": parse_size(target_size) if target_size else None,
        "min_saving": parse_fraction(min_saving),
        "metadata": metadata,
        "max_side": parse_max_side(max_side),
        "scale": parse_scale(scale),
        "subsampling": subsampling,
        "scans": scans,
        "lossless": lossless,
    }
    settings = DjpegSettings(**{name: value for name, value in asked.items() if name not in unused})  # type: ignore[arg-type]
    if policy:
        settings = dataclasses.replace(policy_settings(context, policy, voice), scans=settings.scans)
    common = BatchSettings(
        depth_model=depth_model,
        depth_maps=None if depth_maps is None else str(depth_maps),
        depth_kind=depth_kind,
        depth_names=depth_names,
        masks=None if masks is None else str(masks),
        labels=None if labels is None else str(labels),
        max_pixels=max_pixels,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
        keep_dates=keep_dates,
        verify=() if "verify" in unused else tuple(dict.fromkeys(verify or ())),
        watch_with=tuple(dict.fromkeys(watch_with or ())),
        min_quality=min_quality,
        robust=robust,
        tolerance=tolerance,
        offline=offline,
    )
    files = find_inputs(inputs, exclude=output, report=voice.passed_over)
    if not dry_run:
        check_output_folder(output)
    voice.readings([*guide_systems(settings), *common.verify, *common.watch_with], offline=offline)
    with voice.downloads(), voice.progress(lambda: count_inputs(inputs, exclude=output)) as on_record:
        run = run_djpeg(files, output, settings, common, voice.options(on_record, jobs=jobs, engine=where))
    report = DjpegReport(
        tool="vizcomp djpeg",
        version=__version__,
        command=command_line(),
        settings={**settings.to_dict(), **common.to_dict(), "jobs": jobs, "systems": systems_of(settings, common)},
        totals=run.totals,
        files=run.records,
        interrupted=run.interrupted,
    )
    all_skipped = run.totals.files > 0 and run.totals.skipped == run.totals.files and (output / "report.json").exists()
    written, lost = "", None
    if not dry_run and not all_skipped:  # a run that had nothing to do leaves the report of the one that did
        try:
            written = str(report.write(output, gallery(run, settings, common)).html)
        except OutputError as exc:  # a full disk, say: what was done is still printed
            lost = exc
    if json:
        print_parts(report.json_chunks())
    voice.djpeg_summary(run.totals, written, dry_run=dry_run, systems=common.verify)
    voice.labels(run.totals, run.notices)
    if all_skipped:
        voice.say(f"nothing to do: all results exist; the earlier report stays in {output}")
    if run.interrupted:
        voice.warn(f"interrupted: {run.totals.files} photos done; start the same command again to do the rest")
    if lost is not None:
        raise lost
    raise typer.Exit(130 if run.interrupted else 1 if run.totals.failed or (run.totals.labels or {}).get("refused") else 0)
