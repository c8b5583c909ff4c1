"""`vizcomp train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vizcomp.cli import shared

if TYPE_CHECKING:
    from vizcomp.training import loop

CODEC_ONLY: tuple[str, ...] = (
    *("preset", "width", "classifier", "watching", "task", "task_weight", "watching_weight", "reconstruction"),
    *("reconstruction_weight", "iterations", "steps", "crop", "start"),
)


def train(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="cifar10, CIFAR-10 as published, class folders, photos (codec); labelled pictures (classifier); photos/ and "
            "depth/ (depth).",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Run folder: weights, metrics, curves.")] = Path(
        "run"
    ),
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="codec|classifier|depth", help="What to train; codec unless the recipe says.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="TOML file with training settings; the options below go before it."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="cifar|photo|published", help="Codec: which network; cifar unless said.")
    ] = None,
    width: Annotated[float | None, typer.Option("--width", help="Codec: factor on the network's channels.")] = None,
    classifier: Annotated[
        str | None, typer.Option("--classifier", metavar="NAME|PATH", help="Codec: the frozen classifier it is trained through.")
    ] = None,
    watching: Annotated[
        str | None, typer.Option("--watching", metavar="NAME|PATH", help="Codec: a second frozen classifier in the loss.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="kl|ce", help="Codec: the classifier's term.")] = None,
    task_weight: Annotated[float | None, typer.Option("--task-weight", help="Codec: weight of that term.")] = None,
    watching_weight: Annotated[float | None, typer.Option("--watching-weight", help="Codec: weight of the second one's.")] = None,
    reconstruction: Annotated[
        str | None, typer.Option("--reconstruction", metavar="l1|l2|ms-ssim", help="Codec: the image's term.")
    ] = None,
    reconstruction_weight: Annotated[
        float | None, typer.Option("--reconstruction-weight", help="Codec: weight of that term.")
    ] = None,
    iterations: Annotated[
        str | None, typer.Option("--iterations", metavar="drawn|all", help="Codec: how many iterations a batch goes through.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", metavar="FILE", help="Codec: weights of an earlier stage to start from.")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option("--architecture", metavar="inception|inception-full|watcher|whitened", help="Classifier: which network."),
    ] = None,
    pretrain: Annotated[
        Path | None,
        typer.Option("--pretrain", metavar="PATH", help="Depth: folder of class folders with small pictures, for the encoder."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the data (depth: for each member).")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Codec: updates, instead of epochs.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures for each update.")] = None,
    crop: Annotated[int | None, typer.Option("--crop", min=16, help="Codec: side of the crops from photos.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak learning rate.")] = None,
    validation: Annotated[
        float | None, typer.Option("--validation", min=0, max=0.9, help="Share of the data to check on, not trained on.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Processes on this machine that share each batch: one a GPU, or on the CPU.")
    ] = 1,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads on the CPU; another number can change the last digits.")
    ] = 1,
    download: Annotated[
        bool, typer.Option("--download", help="Fill the folder of --data with CIFAR-10 where it is empty or not there.")
    ] = False,
    offline: shared.Offline = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the run folder.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Train the recurrent codec, a classifier, or the small depth network.

    Writes model.safetensors (and model.onnx for depth), model.json, metrics.jsonl and curves.svg; --resume goes on after a stop.
    """
    from rich.console import Console

    from vizcomp.errors import SettingsError
    from vizcomp.training import settings as words

    given = {name: value for name, value in locals().items() if name in _NAMES and value is not None}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    values: dict[str, Any] = {}
    if recipe is not None:
        values = words.read_recipe(recipe)
    elif resume:
        values = words.read_saved(output)
    found = values.pop("kind", None)
    if found is None and recipe is not None and kind is None:
        found = "depth" if "pretrain_epochs" in values else None
    kind = kind or found or "codec"
    if kind not in words.KINDS:
        raise SettingsError(f"--kind {kind} is not known", f"use one of {', '.join(words.KINDS)}")
    if wrong := [name for name in given if name not in _ALLOWED[kind]]:
        raise SettingsError(f"--{wrong[0].replace('_', '-')} does not go with --kind {kind}", "see vizcomp train --help")
    network = {k: given.pop(k) for k in ("preset", "width") if k in given}
    if network:
        values["network"] = {"preset": "cifar", **values.get("network", {}), **network}
    values.update(given)
    if offline:  # by the environment, so that classifiers in the training and the processes of --devices hear of it
        os.environ["VIZCOMP_OFFLINE"] = "1"
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
    with shared.downloads_on(console, quiet=quiet):
        _find_data(kind, values, download=download, offline=offline)
    if not Path(str(values["data"]).split(":")[0]).exists():
        raise SettingsError(f"{values['data']} does not exist", "give --data a folder or an archive that is there")
    if devices > 1:
        _start(devices)
    import torch

    torch.set_num_threads(threads)
    with shared.downloads_on(console, quiet=quiet):
        _train(kind, values, output, resume, console)


def _find_data(kind: str, values: dict[str, Any], *, download: bool, offline: bool) -> None:
    """Fetches CIFAR-10 where `values` or --download ask for it."""
    from vizcomp import weights
    from vizcomp.errors import SettingsError

    if values.get("data") == "cifar10" and not Path("cifar10").exists():
        values["data"] = str(weights.cifar10(offline=offline))
    if not values.get("data"):
        raise SettingsError("no training data given", "add --data PATH")
    if download:
        if kind == "depth":
            raise SettingsError("--download does not go with --kind depth", "CIFAR-10 has no depth maps")
        weights.fill_with_cifar10(Path(str(values["data"])), offline=offline)


_NAMES = (*CODEC_ONLY, "data", "architecture", "pretrain", "epochs", "batch", "seed", "learning_rate", "validation", "device")
_SHARED = {"data", "epochs", "seed", "learning_rate", "validation", "device"}
_ALLOWED = {
    "codec": {*_SHARED, *CODEC_ONLY, "batch"},
    "classifier": {*_SHARED, "architecture", "batch"},
    "depth": {*_SHARED, "pretrain"},
}


def _start(devices: int) -> None:
    """Hands the command to several processes, and ends with their exit code; in one of them it does nothing."""
    import sys

    from vizcomp.training import launch

    if not launch.launched():
        raise typer.Exit(launch.run_processes(sys.argv[1:], devices))


def _train(kind: str, values: dict[str, Any], output: Path, resume: bool, console: Any) -> None:
    from vizcomp.training import settings as words

    result: loop.RunResult
    with console.status("reading the data") as status:

        def on_progress(p: loop.Progress) -> None:
            figures = ", ".join(f"{name} {value:.3g}" for name, value in {**p.figures, **p.validation}.items())
            stage = f"{p.stage}, " if p.stage else ""
            left = f"{int(p.seconds_left) // 60}:{int(p.seconds_left) % 60:02d} left"
            line = f"{stage}epoch {p.epoch:.2f}/{p.epochs:g}: {figures}, {p.images_per_second:.0f} images/s, {left}"
            status.update(line)
            if p.at_end:
                console.print(line, markup=False)

        how: dict[str, Any] = {"resume": resume, "on_progress": on_progress, "on_stage": status.update}
        if kind == "classifier":
            from vizcomp.training.classifier import ClassifierTrainSettings, train_classifier

            result = train_classifier(words.build(ClassifierTrainSettings, values), output, **how)
        elif kind == "depth":
            from vizcomp.training.depth import train_depth
            from vizcomp.training.depth_data import DepthTrainSettings

            result = train_depth(words.build(DepthTrainSettings, values), output, **how)
        else:
            from vizcomp.training.codec import CodecTrainSettings, train_codec

            result = train_codec(words.build(CodecTrainSettings, values), output, **how)
    if not result.first:
        return
    if result.skipped:
        name, why = result.skipped[0]
        many = "1 picture skipped" if len(result.skipped) == 1 else f"{len(result.skipped)} pictures skipped, the first"
        console.print(f"{many}: {name}: {why}", markup=False)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.figures.items())
    on_validation = f"; on the validation part {figures}" if figures else ""
    model = output / ("model.onnx" if kind == "depth" else "model.safetensors")
    console.print(f"{result.new_steps} steps in {result.seconds:.0f} s{on_validation}: {model}", markup=False)
