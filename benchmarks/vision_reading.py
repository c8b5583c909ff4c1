"""How well vizcomp reads real models: AP50 of a detector and top-1 of classifiers, against labels.

    python benchmarks/vision_reading.py detector \\
        yolox_nano.onnx:detector=yolox,classes=coco80.names COCO_FOLDER
    python benchmarks/vision_reading.py classifier \\
        MODEL.onnx:mean=0.498,std=0.502,crop=0.875 IMAGENET_FOLDER

COCO_FOLDER has images/NAME.jpg and labels/NAME.txt: class, centre x, centre y, width, height as
shares; no file, no label. AP50 is the mean, over the classes that the labels have, of precision
interpolated at 101 points of recall (as COCO), boxes from score 0.05 on. IMAGENET_FOLDER has a
picture of each fifth class; in sorted order they are classes 0, 5, 10, ... (`--first 1`: a model
with 1,001 classes).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from vizcomp.batch.judges import displayed
from vizcomp.photos.photo import load
from vizcomp.vision.answers import Boxes, Classes
from vizcomp.vision.systems import open_system

LEAST = 0.05


def average_precision(sure: list[tuple[float, bool]], count: int) -> float:
    """Of (score, right) of all answers to `count` labels, by 101 points of recall."""
    right = np.cumsum([good for _, good in sorted(sure, key=lambda pair: -pair[0])])
    if not len(right):
        return 0.0
    precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    at = np.searchsorted(right / count, np.linspace(0, 1, 101) - 1e-9)
    return float(np.mean(np.append(precision, 0)[at]))


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of a box with boxes (N, 4)."""
    extent = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(extent, 0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def detector(spec: str, folder: Path) -> None:
    """Prints AP50."""
    joint = "," if re.search(r"\.(onnx|tflite):", spec) else ":"
    system = open_system(spec if "least=" in spec else f"{spec}{joint}least={LEAST}")
    print(system.reading)
    answers: dict[str, list[tuple[float, bool]]] = {}
    counts: dict[str, int] = {}
    for path in sorted((folder / "images").iterdir()):
        file = folder / "labels" / f"{path.stem}.txt"
        labels = np.loadtxt(file, ndmin=2).reshape(-1, 5) if file.is_file() else np.zeros((0, 5))
        pixels = displayed(load(path))
        scale = np.array([pixels.shape[1], pixels.shape[0]] * 2)
        truth = (
            np.concatenate(
                [labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2], 1
            )
            * scale
        )
        names = [system.classes[int(number)] for number in labels[:, 0]]
        answer = system.answers([pixels])[0]
        assert isinstance(answer, Boxes)
        assert answer.scores is not None
        free = np.ones(len(names), bool)
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        for at in np.argsort(-answer.scores):
            mine = free & np.array([name == answer.labels[at] for name in names], bool)
            iou = (
                np.where(mine, overlaps(answer.quads[at][[0, 2]].reshape(-1), truth), 0)
                if len(truth)
                else np.zeros(0)
            )
            good = bool(len(iou) and iou.max() >= 0.5)
            if good:
                free[iou.argmax()] = False
            answers.setdefault(answer.labels[at], []).append((float(answer.scores[at]), good))
    scores = [average_precision(answers.get(name, []), count) for name, count in counts.items()]
    print(
        f"AP50 {np.mean(scores):.3f} over {len(counts)} classes, {sum(counts.values())} labels (101"
        " points)"
    )


def classifier(spec: str, folder: Path, first: int) -> None:
    """Prints top-1."""
    system = open_system(spec)
    print(system.reading)
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".JPEG")
    right = 0
    for at, path in enumerate(paths):
        answer = system.answers([displayed(load(path))])[0]
        assert isinstance(answer, Classes)
        right += answer.best == 5 * at + first
    print(f"top-1 {right / len(paths):.4f} of {len(paths)}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["detector", "classifier"])
    parser.add_argument("system")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    if asked.what == "detector":
        detector(asked.system, asked.folder)
    else:
        classifier(asked.system, asked.folder, asked.first)


if __name__ == "__main__":
    main()
