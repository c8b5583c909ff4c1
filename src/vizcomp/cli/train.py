"""`vizcomp train`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vizcomp.cli.options import Config, Offline, Profile, Quiet
from vizcomp.cli.voice import downloads_on

if TYPE_CHECKING:
    from vizcomp.training import loop
    from vizcomp.training.task import Task


def train(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help=(
                "cifar10, CIFAR-10 as published, class folders, photos (codec); labelled pictures"
                " (classifier); photos/ and "
                "depth/ (depth); photos (guide)."
            ),
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="RUN", help="Run folder: weights, metrics, curves."),
    ] = Path("run"),
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="codec|classifier|depth|guide",
            help="What to train; codec unless the recipe says.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="TOML file with training settings; options go before it.",
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting as in a recipe, such as epochs=10. May be repeated.",
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            "--classifier",
            metavar="NAME|PATH",
            help=(
                "Codec: the frozen classifier it is trained through; docs/training.md has all"
                " forms."
            ),
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            metavar="NAME|PATH",
            help=(
                "Codec: a network whose features at several depths count, in the same forms; may"
                " be repeated."
            ),
        ),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(
            "--side",
            min=16,
            help="Labelled pictures: crop and resize all to this side. Without it none is resized.",
        ),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            metavar="NAME",
            help="Guide: a vision system, as djpeg has them; may be repeated.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")
    ] = None,
    devices: Annotated[
        int,
        typer.Option(
            "--devices",
            min=1,
            help="Processes on this machine that share each batch: one a GPU, or on the CPU.",
        ),
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            min=1,
            help="Threads on the CPU; another number can change the last digits.",
        ),
    ] = 1,
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Fill the folder of --data with CIFAR-10 where it is empty or not there.",
        ),
    ] = False,
    offline: Offline = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the run folder.")
    ] = False,
    quiet: Quiet = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Train the recurrent codec, a classifier, the small depth network, or a guide for djpeg.

    Writes model.safetensors (and model.onnx for depth and guide), model.json, metrics.jsonl and
    curves.svg; --resume goes on after a stop.
    """
    from rich.console import Console

    from vizcomp.training import settings

    settings.need_torch()
    kind, values = settings.read_values(kind, recipe, output if resume else None)
    task = _task(kind, values)
    cls = task.settings_class
    options = {
        "data": data,
        "classifier": classifier,
        "features": tuple(features) if features else None,
        "side": side,
        "system": system,
        "seed": seed,
        "device": device,
    }
    options = {name: value for name, value in options.items() if value is not None}
    values = settings.changed(cls, values, options, pairs or [])
    # in the environment, for the classifiers of a training and the processes of --devices
    if offline:
        os.environ["VIZCOMP_OFFLINE"] = "1"
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
    with downloads_on(console, quiet=quiet):
        settings.find_data(kind, values, download=download, offline=offline)
    checked: Any = settings.build(cls, values)
    _print_readings(getattr(checked, "system", ()), console, offline=offline)
    if not resume and (beginning := task.beginning(checked)):
        console.print(beginning, markup=False)
    if devices > 1:
        _start_processes(devices)
    import torch

    from vizcomp.training import loop

    torch.set_num_threads(threads)
    with downloads_on(console, quiet=quiet), console.status("reading the data") as status:

        def on_progress(progress: loop.Progress) -> None:
            line = _progress_line(progress)
            status.update(line)
            if progress.at_end:
                console.print(line, markup=False)

        result = loop.train(
            task, checked, output, resume=resume, on_progress=on_progress, on_stage=status.update
        )
    if result.first:
        _print_result(
            result,
            output / ("model.onnx" if kind in ("depth", "guide") else "model.safetensors"),
            console,
        )


def _print_readings(names: Iterable[str], console: Any, *, offline: bool) -> None:
    """How each vision system that teaches is read."""
    from vizcomp.batch.judges import system_by_name
    from vizcomp.vision.system import reading_of

    for name in names:
        with downloads_on(console, quiet=console.quiet):
            reading = reading_of(system_by_name(name, offline))
        console.print(f"{name} is read as {reading}", markup=False)


def _task(kind: str, values: Mapping[str, Any]) -> type[Task]:
    if kind == "classifier":
        from vizcomp.training.classifier import ClassifierTask

        return ClassifierTask
    if kind == "depth":
        from vizcomp.training.depth import DepthTask

        return DepthTask
    if kind == "guide":
        from vizcomp.training.guide import GuideTask

        return GuideTask
    from vizcomp.graphs.codecs import is_spectral

    if is_spectral(values.get("network", {})):
        from vizcomp.training.spectral import SpectralTask

        return SpectralTask
    from vizcomp.training.codec import CodecTask

    return CodecTask


def _start_processes(devices: int) -> None:
    """Hands the command to several processes and ends with their exit code; in one of them it does
    nothing."""
    import sys

    from vizcomp.training import processes

    if not processes.launched():
        raise typer.Exit(processes.run_processes(sys.argv[1:], devices))


def _progress_line(p: loop.Progress) -> str:
    figures = ", ".join(
        f"{name} {value:.3g}" for name, value in {**p.figures, **p.validation}.items()
    )
    stage = f"{p.stage}, " if p.stage else ""
    left = f"{int(p.seconds_left) // 60}:{int(p.seconds_left) % 60:02d} left"
    return (
        f"{stage}epoch {p.epoch:.2f}/{p.epochs:g}: {figures}, {p.images_per_second:.0f} images/s,"
        f" {left}"
    )


def _print_result(result: loop.RunResult, model: Path, console: Any) -> None:
    if result.skipped:
        name, reason = result.skipped[0]
        count = (
            "1 picture skipped"
            if len(result.skipped) == 1
            else f"{len(result.skipped)} pictures skipped, the first"
        )
        console.print(f"{count}: {name}: {reason}", markup=False)
    for note in result.notes:
        console.print(note, markup=False)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.figures.items())
    validation = f"; on the validation part {figures}" if figures else ""
    console.print(
        f"{result.new_steps} steps in {result.seconds:.0f} s{validation}: {model}", markup=False
    )
