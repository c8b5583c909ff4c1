"""`vizcomp eval`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vizcomp.cli.options import (
    Config,
    Decoder,
    DryRun,
    Engine,
    Jobs,
    Json,
    LogJson,
    MaxPixels,
    NoThumbnails,
    Offline,
    Profile,
    Quiet,
    RayAddress,
    Verbose,
)
from vizcomp.cli.voice import Voice, command_line, print_parts

if TYPE_CHECKING:
    from vizcomp.evaluation.results import EvalResult


def evaluate(
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            "--classifier",
            metavar="NAME",
            help=(
                "Who looks: inception, watcher, text, torchvision:NAME, PATH.onnx or"
                " PATH.safetensors. Repeatable: the second and later ones are unseen by the codec."
            ),
            show_default="inception; text with --task text",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Class folders, CIFAR-10 as published, or plain photos.",
            show_default="CIFAR-10",
        ),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            metavar="NAME|PATH",
            help=(
                "djpeg, photo, cifar, cifar-label, a model.safetensors; with options as"
                " djpeg:guide=uniform. Repeatable."
            ),
            show_default="djpeg; cifar for images of 32x32",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="NAME",
            help="jpeg, webp, avif, jxl or none. Repeatable.",
            show_default="jpeg, webp, avif",
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="classify|text",
            help="text: the scene-text detector in place of a classifier.",
        ),
    ] = "classify",
    limit: Annotated[
        int,
        typer.Option(
            "--limit", min=0, metavar="N", help="At most N images, drawn by --seed; 0 = all."
        ),
    ] = 0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the draw and of the intervals.")
    ] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the report.")
    ] = Path("vizcomp-report"),
    decoder: Decoder = "pillow",
    max_pixels: MaxPixels = 200_000_000,
    jobs: Jobs = 0,
    engine: Engine = "local",
    ray_address: RayAddress = "",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Take over what a stopped evaluation into the same folder finished; do the rest.",
        ),
    ] = False,
    dry_run: DryRun = False,
    no_thumbnails: NoThumbnails = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
    log_json: LogJson = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Rate against accuracy: what codecs cost, and what a vision system still sees.

    Writes report.html, report.json and report.csv. Every figure is shown beside that of the other
    systems and of plain formats.
    """
    from vizcomp._version import __version__
    from vizcomp.batch.engines import check_engine
    from vizcomp.errors import OutputError, SettingsError
    from vizcomp.evaluation.results import EvalSettings
    from vizcomp.evaluation.run import run_eval
    from vizcomp.evaluation.tasks import worker_system
    from vizcomp.files.write import check_output_folder
    from vizcomp.report.evaluation import EvaluationReport
    from vizcomp.vision.system import reading_of

    voice = Voice(quiet=quiet, verbose=verbose, taken=json, log_json=log_json)
    where = check_engine(engine, ray_address)
    if task not in ("classify", "text"):
        raise SettingsError(f"unknown task {task!r}", "use classify or text")
    settings = EvalSettings(
        classifiers=tuple(classifier or (["text"] if task == "text" else ["inception"])),
        data="" if data is None else str(data),
        codecs=tuple(codec or ()),
        baselines=_baselines(baseline),
        limit=limit,
        seed=seed,
        max_pixels=max_pixels,
        decoder=decoder,
        offline=offline,
    )
    if not dry_run:
        check_output_folder(output)
    for name in settings.classifiers:
        with voice.downloads():
            system = worker_system(name, offline)
        if task == "text" and system.kind not in ("boxes", "text"):
            raise SettingsError(
                f"--task text is of what finds or reads text, and {name} gives {system.kind}",
                "omit --task, or --classifier",
            )
        voice.reading(name, reading_of(system))
    with voice.downloads(), _progress(voice) as step:
        result = run_eval(
            settings,
            jobs=jobs,
            engine=where,
            output=output,
            resume=resume,
            dry_run=dry_run,
            on_progress=lambda p: step(p.done, p.total, p.what),
            on_skip=lambda name, why: voice.warn(f"left out: {name}: {why}"),
            on_notice=voice.warn,
        )
    report = EvaluationReport(
        tool="vizcomp eval",
        version=__version__,
        command=command_line(),
        settings={**settings.to_dict(), "task": task, "jobs": jobs},
        result=dataclasses.replace(result, gallery=[]) if no_thumbnails else result,
    )
    written, lost = "", None
    if not dry_run:
        try:
            written = str(report.write(output).html)
        except OutputError as exc:  # a full disk, say: what was found is still printed
            lost = exc
    if json:
        print_parts([report.json()])
    _summary(voice, result, written)
    if result.interrupted:
        voice.warn(
            "interrupted: the report holds the codecs that were finished; the same command with"
            " --resume goes on"
        )
    if lost is not None:
        raise lost
    failed = result.data["skipped"] or result.undone or any(p.failed for p in result.points)
    raise typer.Exit(130 if result.interrupted else 1 if failed else 0)


def _baselines(named: list[str] | None) -> tuple[str, ...]:
    from vizcomp.errors import SettingsError

    if named is None:
        return "jpeg", "webp", "avif"
    if "none" in named and set(named) != {"none"}:
        raise SettingsError("--baseline none contradicts the others", "omit one of them")
    return tuple(name for name in named if name != "none")


@contextlib.contextmanager
def _progress(voice: Voice) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal; otherwise a line whenever another codec begins."""
    if voice.quiet or not voice.console.is_terminal:
        last = ""

        def line(done: int, total: int, what: str) -> None:
            nonlocal last
            if what != last:
                voice.say(f"{what} ({done} of {total})")
            last = what

        yield line
        return
    from rich import progress as bar

    columns = (
        bar.TextColumn("{task.description}"),
        bar.BarColumn(),
        bar.TaskProgressColumn(),
        bar.TimeRemainingColumn(),
    )
    with bar.Progress(*columns, console=voice.console, transient=True) as shown:
        task = shown.add_task("sources", total=None)
        yield lambda done, total, what: shown.update(
            task, completed=done, total=total, description=what
        )


def _summary(voice: Voice, result: EvalResult, report: str) -> None:
    """The headline and a table of the points."""
    for warning in result.warnings:
        voice.warn(f"note: {warning}")
    if voice.quiet:
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from vizcomp.evaluation.summary import short_name

    names = [c["name"] for c in result.classifiers]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("codec", no_wrap=True)
    table.add_column("setting", no_wrap=True)
    for head in ("bytes", *map(short_name, names), "PSNR", "MS-SSIM"):
        table.add_column(Text(head), justify="right")
    sources = [
        f"{100 * x:.1f}%" if (x := result.source_accuracy.get(n)) is not None else "" for n in names
    ]
    if any(sources):
        table.add_row("sources", "", "", *sources, "", "")
    for p in result.points:
        values = [
            p.accuracy.get(n) if p.accuracy.get(n) is not None else p.agreement.get(n)
            for n in names
        ]
        cells = ["" if v is None else f"{100 * v:.1f}%" for v in values]
        psnr, ssim = (
            ("" if p.psnr is None else f"{p.psnr:.2f}"),
            ("" if p.ms_ssim is None else f"{p.ms_ssim:.4f}"),
        )
        table.add_row(Text(p.codec), p.setting, f"{p.bytes_per_image:,.1f}", *cells, psnr, ssim)
    voice.table(table)
    voice.result(result.headline)
    if report:
        voice.result(f"report: {report}")
