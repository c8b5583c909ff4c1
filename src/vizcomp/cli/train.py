"""`vizcomp train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vizcomp.cli import shared


def train(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="PATH", help="Folder with photos/ and depth/, paired by file name (a.jpg, a.png); bright = near."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Run folder: weights, metrics, curves.")] = Path(
        "run"
    ),
    kind: Annotated[
        str, typer.Option("--kind", metavar="depth", help="What to train: depth, the small depth network.")
    ] = "depth",
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="TOML file with training settings; the options below go before it."),
    ] = None,
    pretrain: Annotated[
        Path | None,
        typer.Option("--pretrain", metavar="PATH", help="Folder of class folders with small pictures, for the encoder."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the photos for each member.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak learning rate.")] = None,
    validation: Annotated[
        float | None, typer.Option("--validation", min=0, max=0.9, help="Share of photos to check on, not trained on.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="cpu|cuda", help="Where to compute.")] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads on the CPU; another number can change the last digits.")
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the run folder.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Train the small depth network on photos with depth maps.

    Writes model.onnx (for --depth-model), model.safetensors, model.json, metrics.jsonl and curves.svg.
    """
    from rich.console import Console

    from vizcomp.errors import SettingsError

    if kind != "depth":
        raise SettingsError(f"--kind {kind} is not known", "this version trains one kind: --kind depth")
    import torch

    from vizcomp.training.depth import DepthTrainSettings, Progress, saved_settings, train_depth

    changes = {
        "data": None if data is None else str(data),
        "pretrain": None if pretrain is None else str(pretrain),
        "epochs": epochs,
        "seed": seed,
        "learning_rate": learning_rate,
        "validation": validation,
        "device": device,
    }
    if recipe is not None:
        settings = DepthTrainSettings.from_toml(recipe, **changes)
    elif resume:
        settings = saved_settings(output, **changes)
    else:
        settings = DepthTrainSettings.from_dict({k: v for k, v in changes.items() if v is not None})
    if not settings.data:
        raise SettingsError("no training data given", "add --data PATH, a folder that holds photos/ and depth/")
    torch.set_num_threads(threads)
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)

    with console.status("reading the data") as status:

        def on_progress(p: Progress) -> None:
            part = "pretraining" if p.stage == "pretrain" else f"member {p.member + 1} of {p.members}"
            score = "" if p.rank_correlation is None else f", rank correlation {p.rank_correlation:.3f}"
            left = f"{int(p.seconds_left) // 60}:{int(p.seconds_left) % 60:02d} left"
            line = f"{part}, epoch {p.epoch}/{p.epochs}: loss {p.loss:.3f}, fit {p.fit:.3f}{score}"
            status.update(f"{line}, {p.images_per_second:.0f} images/s, {left}")
            if p.rank_correlation is not None or p.stage == "pretrain" or p.epoch == p.epochs:
                console.print(f"{line}, {p.images_per_second:.0f} images/s, {left}", markup=False)

        result = train_depth(settings, output, resume=resume, on_progress=on_progress)
    if result.skipped:
        console.print(f"{len(result.skipped)} photos skipped, the first: {result.skipped[0]}", markup=False)
    score = ""
    if result.rank_correlation is not None:
        score = f", rank correlation {result.rank_correlation:.3f} on {result.validation_photos} others"
    console.print(f"trained on {result.photos} photos in {result.seconds:.0f} s{score}: {output / 'model.onnx'}", markup=False)
