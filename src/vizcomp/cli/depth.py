"""`vizcomp depth`."""

from __future__ import annotations

from typing import Annotated

import typer

from vizcomp.cli.options import (
    Config,
    DryRun,
    Engine,
    Inputs,
    Jobs,
    Json,
    LogJson,
    MaxPixels,
    Offline,
    Output,
    Overwrite,
    Profile,
    Quiet,
    RayAddress,
    Resume,
    Verbose,
)
from vizcomp.cli.reports import Report, check_report, records_report
from vizcomp.cli.voice import Voice
from vizcomp.errors import SettingsError


def depth(
    inputs: Inputs,
    output: Output,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "--depth-model",
            metavar="NAME|PATH",
            help=(
                "compact (bundled), a model.onnx of vizcomp train, a published one as"
                " PATH.onnx:norm=imagenet,polarity=near, "
                "depth-anything-v2-small, midas-small or midas (downloaded once), nyu (DenseDepth)"
                " or its .h5 file as nyu:flip."
            ),
        ),
    ] = "compact",
    metric: Annotated[
        bool,
        typer.Option(
            "--metric", help="Millimetres, large = far, where the model knows distances (nyu)."
        ),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview", help="Also write NAME.depth.jpg: photo and coloured map side by side."
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
    """Write the depth map of each photo as NAME.depth.png: 16-bit grey, bright = near (--metric:
    millimetres)."""
    from vizcomp.batch.depth import run_depth
    from vizcomp.batch.engines import check_engine
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.files.apart import check_apart
    from vizcomp.files.find import count_inputs, find_inputs
    from vizcomp.files.write import check_output_folder

    voice = Voice(quiet=quiet, verbose=verbose, taken=json, log_json=log_json)
    where = check_engine(engine, ray_address)
    if metric and (model == "compact" or model.endswith(".onnx")):
        raise SettingsError(
            f"the depth model {model} knows no distances", "omit --metric, or use --model nyu"
        )
    common = BatchSettings(
        depth_model=model,
        max_pixels=max_pixels,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
        offline=offline,
    )
    check_apart(inputs, output)
    check_report(report, dry_run=dry_run)
    files = find_inputs(inputs, exclude=output, report=voice.passed_over)
    if not dry_run:
        check_output_folder(output)
    with (
        voice.downloads(),
        voice.progress(lambda: count_inputs(inputs, exclude=output)) as on_record,
    ):
        records, interrupted = run_depth(
            files,
            output,
            common,
            voice.options(on_record, jobs=jobs, engine=where),
            preview=preview,
            metric=metric,
        )
    failed = sum(r.status == "failed" for r in records)
    skipped = sum(r.status == "skipped" for r in records)
    voice.result(
        f"{len(records) - failed - skipped} depth maps"
        + ("" if dry_run else f" in {output}")
        + (f", {skipped} skipped (--overwrite replaces what exists)" if skipped else "")
        + (f", {failed} failed" if failed else "")
        + ("; interrupted" if interrupted else "")
    )
    shown = {**common.to_dict(), "preview": preview, "metric": metric}
    records_report("vizcomp depth", records, shown, voice, folder=report, json=json)
    nothing_done = bool(records) and skipped == len(records)
    raise typer.Exit(
        voice.exit_code(interrupted=interrupted, failed=bool(failed), nothing_done=nothing_done)
    )
