"""What more training time, or more pictures, buy a classifier: one recipe of `vizcomp train`, run
at several lengths.

Every run goes through the same settings but for its epochs, so each has the whole of the learning
rate's cycle; a point in the middle of a longer run would tell less. Shares of the pictures are
trained on for as many updates as `--share-epochs` over all of them take, and all runs are checked
on the same held pictures. Runs lie in the folder of -o: what is finished there is not done again,
so a run of `vizcomp train` may be moved to epochs-N/run there.

    python benchmarks/training_scale.py --recipe recipes/watcher.toml --data CIFAR/train \\
        --epochs 1 2 4 20 \\
        --share 0.25 0.5 --share-epochs 4 -o scale
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vizcomp.datasets.photos import split
from vizcomp.datasets.read import read_labelled
from vizcomp.training.classifier import ClassifierTask, ClassifierTrainSettings
from vizcomp.training.loop import train
from vizcomp.training.settings import SAVED, build, read_recipe

WIDTH, HEIGHT, LEFT, BOTTOM = 560, 310, 70, 270


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: what it saw, and how often it was right on the held pictures."""

    pictures: int  # different ones
    views: int  # shown in all
    accuracy: float


def thinned(data: Path, share: float, held: float, seed: int, folder: Path) -> Path:
    """Class folders with a share of what a training on all learns from, and none of what that holds
    back."""
    found = read_labelled(data, part="train")
    train, _ = split(found.labels, held, seed)
    kept = np.random.default_rng(seed).permutation(train)[: round(share * len(train))]
    for index in kept:
        target = folder / found.classes[found.labels[index]] / Path(found.names[index]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / found.names[index], target)
    return folder


def accuracy_on_held(model: Path, data: Path, held: float, seed: int) -> float:
    """Of a trained classifier, on the pictures that a training on all of the data holds back."""
    from vizcomp.nets import classifiers

    found = read_labelled(data, part="train")
    _, chosen = split(found.labels, held, seed)
    classifier = classifiers.load_folded(str(model))
    images = torch.from_numpy(found.images[chosen]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        answers = classifiers.logits_of(classifier, images).argmax(1).numpy()
    return float((answers == found.labels[chosen]).mean())


def trained(values: dict[str, Any], data: Path, epochs: int, share: float, folder: Path) -> Run:
    """One training, or what is left in its folder of an earlier one."""
    kept = folder / "scale.json"
    if kept.exists():
        return Run(**json.loads(kept.read_text()))
    full = build(ClassifierTrainSettings, {**values, "data": str(data), "epochs": epochs})
    given, settings = data, full
    if share < 1:
        given = thinned(data, share, full.validation, full.seed, folder / "pictures")
        settings = dataclasses.replace(
            full, data=str(given), epochs=round(epochs / share), validation=0.0
        )
    resume = (folder / "run" / SAVED).exists()
    result = train(ClassifierTask, settings, folder / "run", resume=resume)
    pictures = len(read_labelled(given, part="train")) * (1 - settings.validation)
    run = Run(
        pictures=round(pictures),
        views=result.steps * settings.batch,
        accuracy=accuracy_on_held(
            folder / "run" / "model.safetensors", data, full.validation, full.seed
        ),
    )
    kept.write_text(json.dumps(dataclasses.asdict(run)))
    return run


def plot(points: list[tuple[float, float]], title: str) -> str:
    """Percentages over a number on a scale of doublings: an SVG document."""
    low, high = math.floor(min(y for _, y in points)), math.ceil(max(y for _, y in points))
    first, last = math.log2(points[0][0]), math.log2(points[-1][0])

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - 30) * (math.log2(x) - first) / max(last - first, 1e-9)

    def down(y: float) -> float:
        return BOTTOM - (BOTTOM - 50) * (y - low) / max(high - low, 1)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        (
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="22"'
            f' font-size="13">{title}</text>'
        ),
    ]
    for mark in range(low, high + 1, max(1, (high - low) // 6)):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 30}" y1="{down(mark):.0f}" y2="{down(mark):.0f}"'
            ' stroke="#ddd"/>'
        )
        parts.append(
            f'<text x="{LEFT - 14}" y="{down(mark) + 4:.0f}" text-anchor="end">{mark}%</text>'
        )
    line = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#222" stroke-width="2"/>')
    for x, y in points:
        parts.append(f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="4" fill="#222"/>')
        parts.append(
            f'<text x="{across(x):.1f}" y="{down(y) - 9:.1f}" text-anchor="middle">{y:.1f}</text>'
        )
        parts.append(
            f'<text x="{across(x):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{x:g}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print the table, draw the plots; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, required=True, help="of a classifier")
    parser.add_argument("--data", type=Path, required=True, help="class folders")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        default=[2, 4, 8],
        help="lengths of the runs on all pictures",
    )
    parser.add_argument(
        "--share", type=float, nargs="*", default=[0.25, 0.5], help="of the pictures"
    )
    parser.add_argument(
        "--share-epochs",
        type=int,
        default=4,
        help="one of --epochs: the length of the runs on shares",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("scale"))
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    values = {k: v for k, v in read_recipe(options.recipe).items() if k != "kind"}
    if options.share_epochs not in options.epochs:
        parser.error("--share-epochs is none of --epochs")
    runs: dict[str, list[Run]] = {"time": [], "pictures": []}
    for epochs in sorted(options.epochs):
        runs["time"].append(
            trained(values, options.data, epochs, 1.0, options.output / f"epochs-{epochs}")
        )
    for share in sorted(options.share):
        folder = options.output / f"share-{share:g}"
        runs["pictures"].append(trained(values, options.data, options.share_epochs, share, folder))
    runs["pictures"].append(runs["time"][sorted(options.epochs).index(options.share_epochs)])
    print(f"{options.recipe.name}, {options.threads} thread(s), torch {torch.__version__}")
    print(f"{'pictures':>9} {'epochs':>7} {'held accuracy':>14}")
    for run in (*runs["time"], *runs["pictures"][:-1]):
        print(f"{run.pictures:9,} {run.views / run.pictures:7.0f} {run.accuracy:14.1%}")
    for name, series in runs.items():
        points: list[tuple[float, float]] = [
            (round(r.views / r.pictures) if name == "time" else r.pictures, 100 * r.accuracy)
            for r in series
        ]
        what = (
            "epochs over all pictures"
            if name == "time"
            else "different pictures, shown equally often in all"
        )
        svg = plot(points, f"{options.recipe.stem}: accuracy on held pictures, by {what}")
        (options.output / f"scale-{name}.svg").write_text(svg)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
