"""Rank correlation of the depth network with DenseDepth's maps, beside two priors, and its speed.

    python benchmarks/depth_rank.py --data ../shared/data/svt \\
        --run FOLDER [--json OUT] [--threads 1]
    python benchmarks/depth_rank.py --data ../shared/data/svt [--model PATH.onnx]

With `--run`, a run of a recipe with `folds`: all photos, each answered by the ensemble of the fold
that left it and its whole place out (weights before they are rounded for the file). Without, the
photos are every fifth in sorted order: those that a recipe keeps out of training where it says
`held_every = 5`. The bundled file has learned from all photos, so it can only be measured by its
recipe's folds, or by a `--model` that was trained with the photos held out. Per photo: Spearman's
rank correlation over the cells of an 80x60 grid. Priors: the mean of the other photos' maps on the
rank scale, and a ramp from far at the top to near at the bottom. Confidence: photos in thirds by
their mean confidence, and cells in fifths by theirs, with the share of pairs that are in the right
order minus the share in the wrong one (what confidence means).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.depth.compact import CompactDepth
from vizcomp.metrics import rank_scale, spearman
from vizcomp.nets.compact_depth import ensemble_moments

HELD_EVERY = 5
KEY = "confidence against the photo's rank correlation"
GRID = (80, 60)  # columns, rows
Array = npt.NDArray[np.float32]


def on_grid(array: npt.NDArray[np.generic]) -> Array:
    """Any (h, w) map as float32 (60, 80), the mean of each cell."""
    return np.asarray(
        Image.fromarray(np.asarray(array, dtype=np.float32)).resize(GRID, Image.Resampling.BOX)
    )


def score(found: Array, truth: Array) -> float:
    value = spearman(found, truth)
    return value if math.isfinite(value) else 0.0


def from_run(folder: Path) -> tuple[dict[str, tuple[Array, Array]], list[list[str]]]:
    """Depth and confidence of each photo by the folds' ensembles, (60, 80), and the names in each
    fold."""
    import torch
    from torch.nn import functional as F

    card = json.loads((folder / "model.json").read_text("utf-8"))
    a, b, c = card["network"]["calibration"]
    found = {}
    for name, maps in torch.load(folder / "checkpoint.pt", weights_only=True)["task"][
        "answers"
    ].items():
        mean, spread, photo = ensemble_moments(maps)
        both = torch.cat([mean, torch.sigmoid(a - b * spread - c * photo)], 1)
        depth, confidence = F.interpolate(
            both, size=GRID[::-1], mode="bilinear", align_corners=False
        )[0].numpy()
        found[name] = (depth, confidence)
    return found, card["photos"]["folds"]


def summary(values: list[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "p10": float(np.percentile(values, 10)),
    }


def concordance(found: Array, truth: Array) -> Array:
    """For each cell, over the others: share of pairs in the right order minus share in the wrong
    one."""
    f, t = found.ravel(), truth.ravel()
    agree = np.sign(f[:, None] - f[None]) * np.sign(t[:, None] - t[None])
    return (agree.sum(1) / (len(f) - 1)).reshape(found.shape).astype(np.float32)


def milliseconds(network: CompactDepth, height: int, width: int, runs: int) -> dict[str, float]:
    """Wall-clock and processor time of a whole call, median over runs."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    wall, processor = [], []
    for _ in range(runs + 3):
        a, b = time.perf_counter(), time.process_time()
        network(image)
        wall.append(time.perf_counter() - a)
        processor.append(time.process_time() - b)
    return {
        "wall": 1e3 * float(np.median(wall[3:])),
        "processor": 1e3 * float(np.median(processor[3:])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and depth/")
    parser.add_argument(
        "--model", type=Path, default=None, help="an .onnx file; the bundled network without it"
    )
    parser.add_argument("--run", type=Path, default=None, help="folder of a run with folds")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    network = CompactDepth(
        arguments.run / "model.onnx" if arguments.run else arguments.model,
        threads=arguments.threads,
    )
    photos = sorted((arguments.data / "photos").glob("*.jpg"))
    maps = [
        on_grid(np.asarray(Image.open(arguments.data / "depth" / f"{p.stem}.png").convert("L")))
        for p in photos
    ]
    answers: dict[str, tuple[Array, Array]] = {}
    parts = [[i for i in range(len(photos)) if i % HELD_EVERY == HELD_EVERY - 1]]
    if arguments.run:
        answers, folds = from_run(arguments.run)
        parts = [[i for i, p in enumerate(photos) if p.stem in set(fold)] for fold in folds]
    ramp = np.repeat(np.arange(GRID[1], dtype=np.float32)[:, None], GRID[0], axis=1)

    held, priors, ours, means, cells, right = [], [], [], [], [], []
    for part in parts:
        rest = sorted(set(range(len(photos))) - set(part))
        prior = np.mean([rank_scale(maps[i]) for i in rest], axis=0).astype(np.float32)
        for i in part:
            if answers:
                found, sure = answers[photos[i].stem]
            else:
                prediction = network(np.asarray(Image.open(photos[i]).convert("RGB")))
                found, sure = on_grid(prediction.depth), on_grid(prediction.confidence)
            held.append(i)
            priors.append(score(prior, maps[i]))
            ours.append(score(found, maps[i]))
            means.append(float(sure.mean()))
            cells.append(sure.ravel())
            right.append(concordance(found, maps[i]).ravel())
    result: dict[str, object] = {
        "photos": len(held),
        "network": summary(ours),
        "mean map": summary(priors),
        "vertical ramp": summary([score(ramp, maps[i]) for i in held]),
    }
    by_photo = np.array_split(np.argsort(means), 3)
    thirds = [
        {
            "confidence": float(np.mean([means[k] for k in third])),
            "concordance": float(np.mean([right[k].mean() for k in third])),
            "rank correlation": float(np.mean([ours[k] for k in third])),
        }
        for third in by_photo
    ]
    all_sure, correct = np.concatenate(cells), np.concatenate(right)
    by_cell = np.array_split(np.argsort(all_sure, kind="stable"), 5)
    fifths = [
        {"confidence": float(all_sure[k].mean()), "concordance": float(correct[k].mean())}
        for k in by_cell
    ]
    result |= {
        "photos by confidence": thirds,
        KEY: spearman(np.asarray(means), np.asarray(ours)),
        "cells by confidence": fifths,
        "milliseconds 640x480": milliseconds(network, 480, 640, 60),
        "milliseconds 24 megapixels": milliseconds(network, 4000, 6000, 5),
        "per photo": {photos[i].stem: round(s, 4) for i, s in zip(held, ours, strict=True)},
    }

    print(f"{len(held)} held photos; Spearman's rank correlation with DenseDepth")
    print(f"{'':16}{'mean':>8}{'median':>8}{'p10':>8}")
    for name in ("network", "mean map", "vertical ramp"):
        row = result[name]
        assert isinstance(row, dict)
        print(f"{name:16}{row['mean']:8.3f}{row['median']:8.3f}{row['p10']:8.3f}")
    print("\nphotos in thirds by mean confidence")
    for group in thirds:
        print("  " + ", ".join(f"{k} {v:.3f}" for k, v in group.items()))
    print(f"  Spearman of mean confidence with the photo's rank correlation: {result[KEY]:.3f}")
    print("cells in fifths by confidence")
    for group in fifths:
        print("  " + ", ".join(f"{k} {v:.3f}" for k, v in group.items()))
    for size in ("640x480", "24 megapixels"):
        row = result[f"milliseconds {size}"]
        assert isinstance(row, dict)
        print(
            f"{size}, {arguments.threads} thread: {row['wall']:.1f} ms wall, {row['processor']:.1f}"
            " ms processor time"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
