"""A reading of a model's outputs, its layout, and what a model's own metadata say. `layouts` finds
the reading."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.vision import detectors, line_readers
from vizcomp.vision.detectors import Detections, part_of

Outputs = Mapping[str, npt.NDArray[Any]]
Size = tuple[int, int]


MOST_PIXELS = 2  # boxes that all lie so near to the corner are shares of the input
MOST_SHARE = 3  # of the input's side, for a corner that is a share of it
LEAST_SIDE = 8  # of an input in which boxes of two pixels are none


@dataclasses.dataclass(frozen=True)
class Layout:
    """How outputs are read.

    Attributes:
        kind: as `System.kind`.
        detector: one of `options.DETECTORS`, or "".
        output: the output that is read; of a detector with several, its boxes.
        scores, labels, count: further outputs, or "".
        extra: columns after the classes that are none.
        activation: of the scores.
        shares: whether boxes are shares of the input.
        strides: of cells that a raw grid has; () where boxes are decoded.
        first: the number of the first class.
        points: how many points each figure has, and how many numbers each point: 2, or 3 with how
            sure it is; () without figures.
        order: of a point's first two numbers, "xy" or "yx".
        columns: of rows of boxes, as `ModelOptions.columns`; () for the detector's own.
        turned: rows and columns are the other way round.
        background: the column of class scores that means nothing: "first", "last" or "none".
        raw: a list of boxes of all places, doubles among them.
        prototypes: the output of masks, for which the last columns of each box hold coefficients;
            "" where there are none.
        signs: of a reader of text, what each column stands for; "" is the blank.
    """

    kind: str
    detector: str = ""
    output: str = ""
    scores: str = ""
    labels: str = ""
    count: str = ""
    extra: int = 0
    activation: str = "none"
    shares: bool = False
    strides: tuple[int, ...] = ()
    first: int = 0
    points: tuple[int, ...] = ()
    order: str = "xy"
    columns: tuple[str, ...] = ()
    turned: bool = False
    background: str = "none"
    raw: bool = False
    prototypes: str = ""
    signs: tuple[str, ...] = ()

    @property
    def read(self) -> set[str]:
        """Names of the outputs that are read."""
        parts = {self.output, self.scores, self.labels, self.count, self.prototypes}
        return parts - {""}

    def before_activation(self, outputs: Outputs) -> bool:
        """Whether class scores of boxes are below 0, as numbers before a sigmoid are, and an angle
        among them."""
        main = np.asarray(outputs[self.output])
        if self.scores and self.activation == "none":
            scores = np.asarray(outputs[self.scores])
            rows = int(np.prod(main.shape[:-1]))  # one score each may be -1, as padding
            return bool(scores.size > rows and scores.min(initial=0) < -0.01)
        if self.detector not in ("yolov5", "yolov8", "yolox") or not main.size:
            return False
        main = main if self.detector == "yolov8" and not self.turned else np.swapaxes(main, -1, -2)
        return bool(main[..., 4 : main.shape[-2] - self.extra, :].min(initial=0) < -0.01)

    def detections(self, outputs: Outputs, size: Size) -> Detections:
        """Boxes of one picture in an input of this height and width; no score is too low, none is
        suppressed."""
        main = part_of(outputs, self.output)
        if self.points and not self.detector:
            return detectors.figures(main, self.points, self.order)
        if self.prototypes:
            weights = len(self.prototypes_of(outputs))
            rows = main.T if self.detector == "yolov8" and not self.turned else main
            found = self._yolo(main, size)
            return found._replace(coefficients=rows[:, rows.shape[1] - weights :])
        if self.detector in ("yolov5", "yolov8", "yolov10", "yolox"):
            return self._yolo(main, size)
        width = (
            5 if main.shape[-1] == 5 and not self.scores else 4 if self.scores else main.shape[-1]
        )
        main = main.reshape(-1, width)
        if not len(main):
            return Detections(main[:, :4], np.zeros(0), np.zeros(0, np.int64))
        if self.detector == "detr" and not self.scores:
            return detectors.detr(main[:, :4], main[:, 4:], self.activation)
        boxes = detectors.ordered(main[:, :4], self.columns)
        numbers = part_of(outputs, self.scores) if self.scores else main[:, 4]
        if numbers.ndim == 2 and numbers.shape[0] != len(boxes) == numbers.shape[1]:
            numbers = numbers.T  # classes first
        numbers = numbers.reshape(len(boxes), -1)
        if self.detector == "detr":
            return detectors.detr(boxes, numbers, self.activation)
        labels = part_of(outputs, self.labels).reshape(-1) if self.labels else None
        count = int(np.asarray(outputs[self.count]).reshape(-1)[0]) if self.count else len(boxes)
        labels = None if labels is None else labels[:count]
        numbers = detectors.activated(numbers[:count], self.activation)
        if self.background != "none":  # never an answer; classes keep their numbers
            numbers[:, 0 if self.background == "first" else -1] = 0
        if self.detector == "ssd":
            boxes = boxes[:, [1, 0, 3, 2]]
        return detectors.listed(boxes[:count], numbers, labels)

    def prototypes_of(self, outputs: Outputs) -> detectors.Values:
        """The prototypes of masks, float64 (K, H, W)."""
        return part_of(outputs, self.prototypes)

    def _yolo(self, main: detectors.Values, size: Size) -> Detections:
        main = main.T if self.turned else main
        if self.columns:
            return detectors.table(main, self.columns)
        if self.detector == "yolov10":
            return detectors.yolov10(main, self.points)
        if self.detector == "yolov8":
            return detectors.yolov8(main, self.extra, self.points)
        if self.strides:
            return detectors.yolox(main, *size, self.strides)
        return detectors.yolov5(main, self.extra, self.points)

    def said(self) -> str:
        """For people."""
        if self.signs:
            blank = self.signs.index("")
            where = {0: "first", len(self.signs) - 1: "last"}.get(blank, f"column {blank}")
            spaced = ", a space last" if self.signs[-1] == " " else ""
            return f"{len(self.signs) - 1} characters{spaced}, blank {where}"
        more = ", ".join(
            part
            for part in (
                f"activation {self.activation}" if self.activation != "none" else "",
                "shares" if self.shares else "",
                f"strides {'/'.join(map(str, self.strides))}" if self.strides else "",
                f"columns {'/'.join(self.columns)}" if self.columns else "",
                "classes last" if self.turned else "",
                f"background {self.background}" if self.background != "none" else "",
                (
                    "masks of instances"
                    if self.prototypes
                    else f"{self.extra} columns left out"
                    if self.extra and not self.points
                    else ""
                ),
            )
            if part
        )
        if self.points:
            axes = self.order if self.points[1] == 2 else f"{self.order} and certainty"
            more = ", ".join(filter(None, [f"{self.points[0]} points of {axes}", more]))
        return (self.detector or "points") + (f" ({more})" if more else "")


@dataclasses.dataclass(frozen=True)
class Known:
    """What a model's own metadata say.

    Attributes:
        task: of Ultralytics: detect, segment, pose, obb, classify; "" where nothing is said.
        names: of the classes.
        size: height and width, or ().
        points: of a pose beside its box: how many, and how many numbers each; ().
        characters: of a reader of text.
    """

    task: str = ""
    names: tuple[str, ...] = ()
    size: tuple[int, ...] = ()
    points: tuple[int, ...] = ()
    characters: tuple[str, ...] = ()


def known_of(metadata: Mapping[str, str]) -> Known:
    """From the metadata of an ONNX file; values that cannot be read count as not said."""

    def literal(key: str) -> Any:
        try:
            return ast.literal_eval(metadata.get(key, ""))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None

    names, size, points = literal("names"), literal("imgsz"), literal("kpt_shape")
    if isinstance(names, dict):
        names = [
            names[key]
            for key in sorted(
                names, key=lambda k: (not isinstance(k, int), k if isinstance(k, int) else 0)
            )
        ]
    sides = (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(isinstance(s, int) and 0 < s <= 8192 for s in size)
    )
    pair = (
        isinstance(points, list | tuple)
        and len(points) == 2
        and all(isinstance(p, int) for p in points)
    )
    posed = (
        pair and isinstance(points, list | tuple) and 0 < points[0] <= 1000 and points[1] in (2, 3)
    )
    return Known(
        metadata.get("task", ""),
        tuple(str(name) for name in names) if isinstance(names, list | tuple) else (),
        tuple(size) if sides and isinstance(size, list | tuple) else (),
        tuple(points) if posed and isinstance(points, list | tuple) else (),
        line_readers.characters_of(metadata),
    )


BELOW_ZERO = "a score is below 0: are these numbers before an activation, or turned boxes (obb)?"


def absurd(detections: Detections) -> str:
    """Why these cannot be boxes, or ""; scores of 0 and less are not looked at."""
    if len(detections.scores) and float(detections.scores.max()) > 1.01:
        return (
            f"a box has the score {float(detections.scores.max()):.3g}, above 1: are these numbers"
            " before an activation?"
        )
    turned = (detections.corners[:, 2:] < detections.corners[:, :2] - 1e-6).any(1)
    if turned.any():
        return "corners of a box are not in order (left, top, right, bottom)"
    return ""


def misplaced(detections: Detections, shares: bool, size: Size) -> str:
    """Why the corners, in units of the answer, cannot be shares of an input of this size, or
    pixels of it; or ""."""
    largest = float(np.abs(detections.corners).max(initial=0))
    if shares and largest > MOST_SHARE:
        return "its boxes are no shares of the input: say units=pixels"
    if not shares and 0 < largest <= MOST_PIXELS and min(size) > LEAST_SIDE:
        return "all its boxes lie within two pixels of the corner: are they shares? Say units=share"
    return ""
