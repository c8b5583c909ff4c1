"""`vizcomp djpeg`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vizcomp.cli.djpeg_run import Asked, carried_out, told
from vizcomp.cli.options import (
    Config,
    Decoder,
    DepthModel,
    DryRun,
    Engine,
    Jobs,
    Json,
    LogJson,
    MaxPixels,
    NoThumbnails,
    Offline,
    Output,
    Overwrite,
    PhotoInputs,
    Profile,
    Quiet,
    RayAddress,
    Resume,
    Robust,
    Verbose,
    place,
)
from vizcomp.cli.pixels import (
    Labels,
    Lossless,
    MaskOutside,
    MaxSide,
    Resample,
    Scale,
    Scans,
    ShortSide,
    Subsampling,
    parse_max_side,
    parse_scale,
    parse_short_side,
    unused_without_loss,
    without,
)
from vizcomp.cli.policies import check_by_folder, policy_settings
from vizcomp.cli.voice import Voice

if TYPE_CHECKING:
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.batch.streams import Plan


def djpeg(
    context: typer.Context,
    output: Output,
    inputs: PhotoInputs = None,
    files_from: Annotated[
        str,
        typer.Option(
            "--files-from",
            metavar="FILE|-",
            help=(
                "Names of photos, folders and patterns: one a line, or with NUL bytes between them."
            ),
            show_default=False,
        ),
    ] = "",
    fields: Annotated[
        str,
        typer.Option(
            "--fields",
            metavar="NAMES",
            help=(
                "What holds photos in shards: extensions of a tar as jpg,png, columns of a Parquet"
                " file; else all that do."
            ),
            show_default=False,
        ),
    ] = "",
    quality: Annotated[
        float,
        typer.Option(
            "--quality", "-q", min=1, max=100, help="Quality of the most important regions."
        ),
    ] = 50,
    strength: Annotated[
        float,
        typer.Option(
            "--strength",
            min=0,
            max=1,
            help="How much cheaper the least important regions get; 0 = no guidance.",
        ),
    ] = 0.25,
    guide: Annotated[
        str,
        typer.Option(
            "--guide",
            metavar="NAMES",
            help=(
                "depth, text, detail, mask, centre, system:NAME, PATH.onnx (of train --kind guide),"
                " several joined by +, or uniform."
            ),
        ),
    ] = "depth+text",
    table: Annotated[
        str,
        typer.Option(
            "--table",
            metavar="auto|machine|photo",
            help=(
                "auto: by what the photo holds; machine: one step for all frequencies; photo: made"
                " for eyes."
            ),
        ),
    ] = "auto",
    shape: Annotated[
        str,
        typer.Option(
            "--shape",
            metavar="NAME=NUMBER,...",
            help="Numbers of the table and the price of bits, as price=0.1 (docs/djpeg.md).",
        ),
    ] = "",
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="jpeg|webp|avif|jxl|auto",
            help="auto: for each photo the smallest that all readers open.",
        ),
    ] = "jpeg",
    readers: Annotated[
        str,
        typer.Option(
            "--readers",
            metavar="LIST",
            help=(
                "Who must open the results: pillow, opencv, torchvision, tensorflow, dali, browser,"
                " joined by commas."
            ),
            show_default="pillow,opencv,browser for --format auto",
        ),
    ] = "",
    depth_model: DepthModel = "compact",
    depth_maps: Annotated[
        Path | None,
        typer.Option("--depth-maps", metavar="DIR", help="Ready-made depth maps by file stem."),
    ] = None,
    depth_kind: Annotated[
        str,
        typer.Option(
            "--depth-kind",
            metavar="KIND",
            help=(
                "What their numbers mean: nearness or disparity (large = near), metres or"
                " millimetres (large = far), or auto: "
                "told by the maps, or asked."
            ),
        ),
    ] = "auto",
    depth_names: Annotated[
        str,
        typer.Option(
            "--depth-names",
            metavar="PATTERN",
            help="How the maps are called, as 'depth_{stem}.png'.",
            show_default="{stem}.png, {stem}.depth.png and the like",
        ),
    ] = "",
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", metavar="DIR", help="Masks by file stem for --guide mask, bright = keep."
        ),
    ] = None,
    mask_outside: MaskOutside = "cheap",
    target_size: Annotated[
        str,
        typer.Option(
            "--target-size",
            metavar="SIZE",
            help="Size of each result, as 20kB; met within 2% from below. Replaces --quality.",
        ),
    ] = "",
    min_saving: Annotated[
        str,
        typer.Option(
            "--min-saving",
            metavar="SHARE",
            help="Keep the source where less than this is saved, as 5%.",
        ),
    ] = "0%",
    metadata: Annotated[
        str,
        typer.Option(
            "--metadata",
            metavar="none|essential|all",
            help="essential: ICC profile, orientation, date, author.",
        ),
    ] = "essential",
    max_side: MaxSide = "",
    short_side: ShortSide = "",
    scale: Scale = "",
    resample: Resample = "lanczos",
    labels: Labels = None,
    subsampling: Subsampling = "420",
    scans: Scans = "progressive",
    lossless: Lossless = False,
    verify: Annotated[
        list[str] | None,
        typer.Option(
            "--verify",
            metavar="SYSTEM",
            help=(
                "For each photo the smallest file on which this system still answers as on the"
                " source: text, inception, "
                "torchvision:NAME, PATH.onnx. Given several times: all of them. Replaces --quality."
            ),
        ),
    ] = None,
    watch_with: Annotated[
        list[str] | None,
        typer.Option(
            "--watch-with",
            metavar="SYSTEM",
            help="Report how this system answers on the results; it decides nothing.",
        ),
    ] = None,
    min_quality: Annotated[
        float,
        typer.Option(
            "--min-quality",
            min=0,
            max=100,
            help="No file of --verify is made below this quality; 0 lifts it.",
        ),
    ] = 20,
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
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="FILE|DIR",
            help="Certified settings, as vizcomp fit writes them; DIR: those of fit --each.",
        ),
    ] = "",
    keep_dates: Annotated[
        bool, typer.Option("--keep-dates", help="Give results the dates of their sources.")
    ] = False,
    max_pixels: MaxPixels = 200_000_000,
    jobs: Jobs = 0,
    engine: Engine = "local",
    ray_address: RayAddress = "",
    overwrite: Overwrite = False,
    resume: Resume = False,
    dry_run: DryRun = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Go on with photos that arrive, each once it is whole, until Ctrl-C or SIGTERM.",
        ),
    ] = False,
    report: Annotated[
        str,
        typer.Option(
            "--report",
            metavar="DIR|none",
            help="Folder of the report, where it is not that of the results.",
        ),
    ] = "",
    no_thumbnails: NoThumbnails = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_json: LogJson = False,
    offline: Offline = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Compress photos to ordinary JPEG files: near regions keep their detail, far ones cost little.

    Writes NAME.jpg for each photo (or .webp, .avif, .jxl as --format says), and report.html,
    report.json and report.csv.
    """
    from vizcomp.batch.engines import check_engine
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.cli.values import parse_fraction, parse_size
    from vizcomp.djpeg.settings import DjpegSettings

    voice = Voice(quiet=quiet, verbose=verbose, taken=json or str(output) == "-", log_json=log_json)
    where = check_engine(engine, ray_address)
    unused = unused_without_loss(context, lossless, voice)
    values = {
        "quality": quality,
        "strength": strength,
        "guide": guide,
        "table": table,
        "shape": shape,
        "target_size": parse_size(target_size, "target_size") if target_size else None,
        "min_saving": parse_fraction(min_saving, "min_saving"),
        "metadata": metadata,
        "mask_outside": mask_outside,
        "max_side": parse_max_side(max_side),
        "short_side": parse_short_side(short_side),
        "scale": parse_scale(scale),
        "resample": resample,
        "subsampling": subsampling,
        "scans": scans,
        "lossless": lossless,
        "format": format,
        "readers": readers,
    }
    asked = DjpegSettings(**without(unused, values))
    settings, by_folder = policy_settings(context, policy, voice, asked)
    values = {
        "depth_model": depth_model,
        "depth_maps": None if depth_maps is None else str(depth_maps),
        "depth_kind": depth_kind,
        "depth_names": depth_names,
        "masks": None if masks is None else str(masks),
        "labels": None if labels is None else str(labels),
        "verify": tuple(dict.fromkeys(verify or ())),
        "min_quality": min_quality,
        "robust": robust,
        "tolerance": tolerance,
    }
    common = BatchSettings(
        **without(unused, values),
        max_pixels=max_pixels,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
        keep_dates=keep_dates,
        watch_with=tuple(dict.fromkeys(watch_with or ())),
        decoder=decoder,
        offline=offline,
    )
    with _planned(inputs or [], output, files_from, common) as plan:
        _check_plan(plan, json=json, watch=watch, labels=labels is not None, format=settings.format)
        check_by_folder(by_folder, plan, labels=labels is not None)
        written = report != "none" and not dry_run and (plan.writes_report or report)
        beside = plan.folder if written else None
        job = Asked(
            plan=plan,
            fields=tuple(filter(None, (name.strip() for name in fields.split(",")))),
            settings=settings,
            by_folder=by_folder,
            batch=common,
            jobs=jobs,
            engine=where,
            report=place(report) if report and beside is not None else beside,
            thumbnails=not no_thumbnails,
            json=json,
            watch=watch,
        )
        code = told(job, carried_out(job, voice), voice)
    raise typer.Exit(code)


def _planned(
    inputs: list[str], output: Any, files_from: str, common: BatchSettings
) -> contextlib.AbstractContextManager[Plan]:
    from vizcomp.batch.streams import planned

    replace = common.overwrite or common.resume or common.dry_run
    source = sys.stdin.buffer
    return planned(
        inputs,
        output,
        standard_input=source,
        files_from=files_from,
        replace=replace,
        max_pixels=common.max_pixels,
    )


def _check_plan(plan: Plan, *, json: bool, watch: bool, labels: bool, format: str) -> None:
    """What contradicts itself."""
    from vizcomp.errors import SettingsError

    if plan.to_output and json:
        raise SettingsError(
            "the photo and the report of `json` cannot both go to standard output",
            "name a file for the photo",
        )
    plan.check_format(format)
    if watch and (plan.piped is not None or plan.target is not None):
        raise SettingsError(
            "`watch` is for folders", "name a folder to watch, and one for the results"
        )
    if labels and (watch or plan.target is not None):
        raise SettingsError(
            "`labels` are of the photos of one run into a folder",
            "omit them, or name a folder for the results",
        )
