"""Boxes in the arrays that exporters of detectors write, to corners, scores and labels. Arrays
alone: no model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vizcomp.vision.options import BOX

Values = npt.NDArray[np.float64]

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
CANDIDATES = 3000  # the surest boxes, among which doubles are looked for
# raw numbers of cells stay below: in cells, and as logarithms
_STILL_OFFSETS, _STILL_SIZES = 8.0, 9.0


class Detections(NamedTuple):
    """Boxes of one picture.

    Attributes:
        corners: float64 (N, 4) left, top, right, bottom, in pixels of the input or shares of it.
        scores: float64 (N,).
        labels: int64 (N,), -1 where there is one kind only.
        points: float64 (N, K, 2 or 3), x, y and perhaps certainty of the points of each box's
            figure; x and y as in `corners`; None where there are none.
        coefficients: float64 (N, K) of masks, for as many prototypes; None where there are none.
    """

    corners: Values
    scores: Values
    labels: npt.NDArray[np.int64]
    points: Values | None = None
    coefficients: Values | None = None

    def at_least(self, least: float) -> Detections:
        """Those of at least this score."""
        return self.chosen(self.scores >= least)

    def chosen(self, which: npt.NDArray[Any]) -> Detections:
        """Some of them, by a mask or by their indices."""
        points, weights = (
            None if part is None else part[which] for part in (self.points, self.coefficients)
        )
        return Detections(
            self.corners[which], self.scores[which], self.labels[which], points, weights
        )


def cell_count(height: int, width: int, strides: Sequence[int]) -> int:
    """How many cells an input has over all strides."""
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)


def strides_of(rows: int, height: int, width: int, anchors: int = 1) -> tuple[int, ...]:
    """The strides whose cells, with so many boxes each, make so many rows; () where none do."""
    return next((s for s in STRIDES if anchors * cell_count(height, width, s) == rows), ())


def grid(height: int, width: int, strides: Sequence[int]) -> tuple[Values, Values]:
    """Column and row of each cell, (N, 2), and its stride, (N, 1)."""
    places, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)]
        places.append(np.stack([columns.ravel(), rows.ravel()], 1))
        steps.append(np.full((rows.size, 1), stride))
    return np.concatenate(places).astype(np.float64), np.concatenate(steps).astype(np.float64)


def from_centres(boxes: Values) -> Values:
    """(N, 4) centre x, centre y, width, height to left, top, right, bottom."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def suppressed(detections: Detections, iou: float) -> Detections:
    """Of boxes of one label that overlap by more than `iou`, the surest alone; surest first. 1
    suppresses none."""
    order = np.argsort(-detections.scores, kind="stable")[:CANDIDATES]
    corners, labels = detections.corners[order], detections.labels[order]
    areas = np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), 1)
    alive = np.ones(len(order), bool)
    for i in range(len(order) if iou < 1 else 0):
        if alive[i]:
            extent = np.minimum(corners[i, 2:], corners[i + 1 :, 2:]) - np.maximum(
                corners[i, :2], corners[i + 1 :, :2]
            )
            shared = np.prod(np.maximum(extent, 0), 1)
            union = np.maximum(areas[i] + areas[i + 1 :] - shared, 1e-12)
            alive[i + 1 :] &= (labels[i + 1 :] != labels[i]) | (shared / union <= iou)
    return detections.chosen(order[alive])


def yolov5(rows: Values, extra: int = 0, points: tuple[int, ...] = ()) -> Detections:
    """(N, 5 + C + extra): centre x, y, width, height, certainty that there is something, C scores;
    then perhaps points."""
    scores = rows[:, 5 : rows.shape[1] - extra]
    labels = scores.argmax(1) if scores.shape[1] else np.full(len(rows), -1)
    sure = rows[:, 4] * (scores.max(1) if scores.shape[1] else 1)
    return Detections(
        from_centres(rows[:, :4]), sure, labels.astype(np.int64), _last_points(rows, points)
    )


def yolov8(columns: Values, extra: int = 0, points: tuple[int, ...] = ()) -> Detections:
    """(4 + C + extra, N): centre x, y, width, height, C scores; then perhaps points."""
    scores = columns[4 : len(columns) - extra].T
    labels = scores.argmax(1).astype(np.int64)
    return Detections(
        from_centres(columns[:4].T), scores.max(1), labels, _last_points(columns.T, points)
    )


def yolov10(rows: Values, points: tuple[int, ...] = ()) -> Detections:
    """(N, 6 or more): left, top, right, bottom, score, label; suppressed already; then perhaps
    points."""
    return Detections(
        rows[:, :4], rows[:, 4], rows[:, 5].round().astype(np.int64), _last_points(rows, points)
    )


def _last_points(rows: Values, points: tuple[int, ...]) -> Values | None:
    """(N, K, D) of the last K * D columns."""
    return rows[:, rows.shape[1] - points[0] * points[1] :].reshape(-1, *points) if points else None


def figures(main: Values, points: tuple[int, ...], order: str) -> Detections:
    """Points of figures without a detector: (1, K, D) of the one figure there is, or (N, K * D + 5)
    as MoveNet writes them: then top, left, bottom, right and score.

    A figure without a score has the mean of its points', and no box: (0, 0, 0, 0).
    """
    count, numbers = points
    boxed = main.ndim == 2 and main.shape[1] == count * numbers + 5
    rows = main.reshape(-1, count * numbers + (5 if boxed else 0))
    each = rows[:, : count * numbers].reshape(-1, count, numbers)
    if order == "yx":
        each = np.concatenate([each[..., [1, 0]], each[..., 2:]], 2)
    means = each[..., 2].mean(1) if numbers == 3 else np.ones(len(each))
    corners, scores = (
        (rows[:, [-4, -5, -2, -3]], rows[:, -1]) if boxed else (np.zeros((len(each), 4)), means)
    )
    return Detections(corners, scores, np.full(len(each), -1), each)


def yolox(rows: Values, height: int, width: int, strides: Sequence[int]) -> Detections:
    """(N, 5 + C) as YOLOX writes them: centre from the cell and log size, both in strides,
    certainty, C scores."""
    places, steps = grid(height, width, strides)
    sizes = np.exp(np.minimum(rows[:, 2:4], 20)) * steps
    return yolov5(np.concatenate([(rows[:, :2] + places) * steps, sizes, rows[:, 4:]], 1))


def is_raw_grid(rows: Values, height: int, width: int, strides: Sequence[int]) -> bool:
    """Whether the first numbers of each row are offsets from its cell: small, and blind to where
    the cell is."""
    if np.abs(rows[:, :2]).max() > _STILL_OFFSETS or np.abs(rows[:, 2:4]).max() > _STILL_SIZES:
        return False
    if rows[:, 4:].min() < 0 or rows[:, 4:].max() > 1:
        return False  # scores come after a sigmoid
    places, steps = grid(height, width, strides)
    centres = places * steps
    if min(rows[:, axis].std() for axis in (0, 1)) < 1e-6:
        return False  # no spread, nothing to tell by
    return all(abs(np.corrcoef(rows[:, axis], centres[:, axis])[0, 1]) < 0.5 for axis in (0, 1))


def activated(numbers: Values, activation: str) -> Values:
    """Scores (N, C) of numbers (N, C); of a softmax the last column, "nothing", is left out."""
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-numbers.clip(-60, 60))))
    if activation == "softmax":
        powers = np.exp(numbers - numbers.max(1, keepdims=True))
        return np.asarray((powers / powers.sum(1, keepdims=True))[:, :-1])
    return numbers


def detr(boxes: Values, numbers: Values, activation: str) -> Detections:
    """(N, 4) centre x, y, width, height as shares of the input, and (N, C) numbers that become
    scores."""
    scores = activated(numbers, activation)
    return Detections(from_centres(boxes), scores.max(1), scores.argmax(1).astype(np.int64))


def ordered(boxes: Values, columns: Sequence[str]) -> Values:
    """(N, 4) of some order to left, top, right, bottom; as they are where no order is given."""
    return boxes[:, [columns.index(side) for side in BOX]] if columns else boxes


def table(rows: Values, columns: Sequence[str]) -> Detections:
    """Rows of boxes (N, len(columns)); padding with scores below 0 is none."""
    rows = rows.reshape(-1, len(columns))
    rows = rows[rows[:, columns.index("score")] >= 0]
    labels = rows[:, columns.index("label")] if "label" in columns else np.full(len(rows), -1.0)
    return Detections(
        ordered(rows, columns), rows[:, columns.index("score")], labels.round().astype(np.int64)
    )


def looks_like(rows: Values, columns: Sequence[str]) -> bool:
    """Whether rows hold what these columns say: whole labels, scores in 0..1, corners in order."""
    label, score, corners = (
        rows[:, columns.index("label")],
        rows[:, columns.index("score")],
        ordered(rows, columns),
    )
    whole = bool((label == label.round()).all() and (label >= -1).all())
    return whole and bool(
        (score <= 1).all() and (score >= -1).all() and (corners[:, 2:] >= corners[:, :2]).all()
    )


def listed(corners: Values, scores: Values, labels: Values | None) -> Detections:
    """(N, 4) left, top, right, bottom; (N,) or (N, C) scores; (N,) labels."""
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim == 2:
        labels = scores.argmax(1) if labels is None else labels
        scores = scores.max(1) if scores.shape[1] else np.zeros(len(scores))
    kinds = np.full(len(corners), -1) if labels is None else labels
    return Detections(corners, scores, kinds.round().astype(np.int64))


def part_of(outputs: Mapping[str, npt.NDArray[Any]], name: str) -> Values:
    """An output as float64, without its axis of one picture."""
    array = np.asarray(outputs[name], np.float64)
    return array[0] if array.ndim > 1 and array.shape[0] == 1 and array.ndim >= 3 else array
