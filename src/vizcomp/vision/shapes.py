"""What the numbers of an output and its shape say: which readings they leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.vision import detectors
from vizcomp.vision.options import BOX
from vizcomp.vision.readings import Size

# As many classes as published data sets have: a row of so many numbers is no embedding.
USUAL_CLASSES = (
    80,
    90,
    91,
    100,
    101,
    102,
    120,
    196,
    200,
    257,
    365,
    397,
    1000,
    1001,
    8142,
    10000,
    11221,
    11821,
    21841,
    21843,
)
LEAST_SHARES = 5  # numbers in 0..1 that do not add up to 1; fewer may be any
LEAST_EMBEDDING = 64  # numbers; shorter ones are not made
# points of published poses: beside a box and one class, as likely a detector of more classes
POSES = (17, 21, 133)
# Columns of rows of boxes, by their number: as YOLOv10 and PaddleDetection, OpenVINO, YOLOv7,
# YOLO-NAS and EfficientDet write them.
ROWS = {
    6: ((*BOX, "score", "label"), ("label", "score", *BOX)),
    7: (
        ("other", "label", "score", *BOX),
        ("other", *BOX, "label", "score"),
        ("other", *BOX, "score", "label"),
        ("other", "top", "left", "bottom", "right", "score", "label"),
    ),
}
OBB = 20  # rows of DOTA's 15 classes and an angle, as likely as 16 classes
MULTIPOSE = 56  # numbers of a figure in MoveNet's answer: 17 points of 3, a box, a score


def strides_fit(count: int, size: Size, anchors: int = 1) -> bool:
    """Whether a number of boxes is that of the cells of an input."""
    return bool(detectors.strides_of(count, *size, anchors))


def of_vector(name: str, row: npt.NDArray[Any], count: int) -> list[str]:
    """Readings of the `count` numbers of an output for one photo."""
    probabilities = row.min() >= 0 and abs(float(row.sum()) - 1) < 1e-2
    said = any(word in name.lower() for word in ("embed", "feature", "descriptor", "pooled"))
    unit = abs(float(np.square(row, dtype=np.float64).sum()) - 1) < 1e-3 and row.min() < 0
    long = count >= LEAST_EMBEDDING and count not in USUAL_CLASSES
    # or features that are never below 0
    shares = several_labels(row) and count not in USUAL_CLASSES
    if not probabilities and (said or unit or long or shares):
        return ["kind=classes", "kind=embedding"]
    return ["classes"]


def several_labels(row: npt.NDArray[Any]) -> bool:
    """Whether the numbers of a row may each be a probability of its own: quantised probabilities of
    one label add up to about 1."""
    if row.size < LEAST_SHARES or row.dtype.kind != "f":
        return False
    within = row.min() >= 0 and row.max() <= 1
    return bool(within and abs(float(row.sum(dtype=np.float64)) - 1) > 0.5)


def end_to_end(rows: detectors.Values, protos: int) -> list[str]:
    """Readings of rows of six numbers: corners, score and label, or shares and two scores. The grey
    picture's may leave one of them."""
    shares = protos == 0 and bool((rows.min(initial=0) >= 0) and (rows.max(initial=0) <= 1))
    corners = bool((rows[:, 2:4] >= rows[:, :2]).all()) and bool(
        (rows[:, 5] == rows[:, 5].round()).all()
    )
    if shares == corners and protos == 0:
        order = f"detector=yolov10,columns={'/'.join(ROWS[6][1])}"
        return ["detector=yolov10", order, "detector=detr,activation=none"]
    return ["yolov10"] if corners or protos else ["detector=detr,activation=none"]


def of_rows(rows: detectors.Values) -> list[str]:
    """Orders of the columns of rows of boxes that the numbers leave."""
    fitting = [c for c in ROWS[rows.shape[-1]] if detectors.looks_like(rows, c)]
    return [f"detector=yolov10,columns={'/'.join(columns)}" for columns in fitting]


def softmaxed(numbers: npt.NDArray[Any]) -> bool:
    """Whether the scores of many boxes, (..., N, C), add up to 1 for each: then one column is that
    of nothing."""
    if numbers.ndim < 2 or numbers.shape[-1] < 2 or numbers.shape[-2] < 10:
        return False
    return bool(numbers.min() >= 0 and np.abs(numbers.sum(-1, dtype=np.float64) - 1).max() < 1e-3)
