"""The reading of a model's outputs: by its metadata, by options, by shapes; where these leave
several, the user is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision import detectors, line_readers
from vizcomp.vision.choices import Choices, main_output, prototypes
from vizcomp.vision.detectors import part_of
from vizcomp.vision.options import BOX, ModelOptions, parse_options, typed
from vizcomp.vision.parts import Parts, parts_of
from vizcomp.vision.readings import (
    BELOW_ZERO,
    LEAST_SIDE,
    MOST_PIXELS,
    Known,
    Layout,
    Outputs,
    Size,
    absurd,
    misplaced,
)
from vizcomp.vision.refusals import covers, reads_text, refusal
from vizcomp.vision.shapes import MULTIPOSE, strides_fit

_KEYS = "characters=KEYS.txt"  # as it is typed
LEAST_RAW = 1000  # boxes in a list with scores of classes from which doubles are looked for


class Reader:
    """Finds the one reading of a model.

    Args:
        name: of the model, as it was typed.
        outputs: arrays by name, as answered to a grey picture.
        size: height and width of that picture in the input.
        options: what the user says.
        known: what the file says.
    """

    def __init__(
        self, name: str, outputs: Outputs, size: Size, options: ModelOptions, known: Known
    ) -> None:
        self._name, self._outputs, self._size = name, outputs, size
        self._options, self._known = options, known
        if options.output:
            if options.output not in outputs:
                there = f"there are {', '.join(outputs)}"
                raise ModelError(f"{name}: it has no output {options.output}", there)
            self._outputs = {options.output: outputs[options.output]}
        self._names = options.classes or known.names

    def layout(self) -> Layout:
        """The one reading.

        Raises:
            SettingsError: several are possible: it lists what to type.
            ModelError: none is, or the chosen one does not fit.
        """
        options = self._options
        if self._known.task == "obb":
            raise ModelError(
                f"{self._name} is an obb model: its boxes are turned, which is not read here",
                "export a detect model",
            )
        if options.kind == "keypoints" or (self._known.task == "pose" and options.kind != "boxes"):
            return self._pose()
        if options.kind == "text" or (not options.kind and self._reads_text()):
            return self._text()
        if options.kind and options.kind != "boxes":
            return self._flat(options.kind)
        if options.detector:
            return self._detector(options.detector)
        if self._known.task in ("detect", "segment", "pose"):
            return self._detector(self._ultralytics())
        if self._known.task == "classify":
            return self._flat("classes")
        if not options.kind and reads_text(self._outputs):
            raise self._asks_for_characters()
        if not options.kind and (why := refusal(self._outputs, self._size)):
            raise self._wrong(*why)
        choices = Choices(self._outputs, self._size, self._options, self._names, self._wrong).all()
        choices = [choice for choice in choices if "=" not in choice or self._can_be(choice)]
        if not options.kind and self._may_read_text():
            choices = [f"kind=text,{_KEYS}", *choices]
        if not choices:
            raise self._wrong(
                f"its output {self._shapes()} is none that is read here: its numbers are no boxes"
                " and no map",
                "export it with the head that answers: see docs/vision.md",
            )
        if len(choices) == 1 and "=" not in choices[0]:
            return (
                self._flat(choices[0]) if choices[0] in ("classes",) else self._detector(choices[0])
            )
        raise self._ask(choices)

    def _ask(self, choices: list[str]) -> SettingsError:
        says = "leaves it open" if len(choices) > 1 else "does not say"
        options = [choice if "=" in choice else self._typed(choice) for choice in choices]
        return asked(
            self._name, f"how is its output to be read? Its shape {self._shapes()} {says}", options
        )

    def _shapes(self) -> str:
        return ", ".join(
            f"{name} {'x'.join(map(str, a.shape))}" for name, a in self._outputs.items()
        )

    def _can_be(self, choice: str) -> bool:
        """Whether the numbers on the grey picture leave a reading."""
        options = parse_options(choice).merged(self._options)
        try:
            Reader(self._name, self._outputs, self._size, options, self._known).layout()
        except SettingsError:
            return True  # there is more to ask
        except ModelError:
            return False
        return True

    @staticmethod
    def _typed(choice: str) -> str:
        return (
            f"kind={choice}"
            if choice in ("classes", "embedding", "masks")
            else f"detector={choice}"
        )

    def _wrong(self, what: str, hint: str = "") -> ModelError:
        return ModelError(
            f"{self._name}: {what}", hint or "choose another reading: see docs/vision.md"
        )

    def _ultralytics(self) -> str:
        main = next(iter(self._outputs.values()))
        if main.ndim == 3 and len(self._outputs) <= 2:
            rows, columns = main.shape[1:]
            beside = prototypes(self._outputs) + (
                self._posed() if self._known.task == "pose" else 0
            )
            if self._names and rows == 4 + len(self._names) + beside:
                return "yolov8"
            if columns >= 6 and rows <= 1000 and not strides_fit(columns, self._size):
                merged = rows == 300 and columns == 4 + len(self._names) and columns != 6
                return "detr" if merged else "yolov10"
            if strides_fit(rows, self._size, 3):
                return "yolov5"
            if rows <= columns:
                return "yolov8"
        raise self._wrong(
            "it says that it is a YOLO, but its outputs are none that is read here",
            "export it with its head",
        )

    def _posed(self) -> int:
        """How many numbers of points follow the classes."""
        return int(np.prod(self._options.keypoints or self._known.points or (0,)))

    def _pose(self) -> Layout:
        """Points of figures: of a detector with a head for them, or alone."""
        name, array = next(iter(self._outputs.items()))
        points = self._options.keypoints or self._known.points
        if self._options.detector or self._known.task == "pose":
            detector = self._options.detector or self._ultralytics()
            if detector not in ("yolov5", "yolov8", "yolov10"):
                raise self._wrong(f"points beside the boxes of {detector} are not read here")
            if not points:
                raise self._wrong(
                    "it does not say how many points a figure has",
                    "say it: option keypoints=17x3, points and numbers of each",
                )
            layout = self._yolo(detector)
            held = layout.extra if detector != "yolov10" else array.shape[-1] - 6
            if held != np.prod(points):
                raise self._wrong(
                    f"{points[0]} points of {points[1]} are not {held} numbers",
                    "say it: option keypoints=17x3",
                )
            return self._checked(dataclasses.replace(layout, kind="keypoints", points=points))
        main = part_of(self._outputs, name)
        if array.ndim == 3 and array.shape[2] == MULTIPOSE and not points:
            points = (17, 3)
        elif array.ndim > 1 and array.shape[-1] in (2, 3) and array[..., 0].size == array.shape[-2]:
            if points and points != array.shape[-2:]:
                raise self._wrong(
                    f"its output has the shape {array.shape}, not points of {points[0]}x{points[1]}"
                )
            points = (array.shape[-2], array.shape[-1])
        elif array.ndim == 3 and not points:
            raise self._ask(
                [
                    f"detector={detector},keypoints=17x3"
                    for detector in ("yolov8", "yolov10", "yolov5")
                ]
            )
        elif main.ndim != 2 or main.shape[1] != np.prod(points) + 5:
            raise self._wrong(
                f"its output has the shape {array.shape}: no points of figures",
                "choose another reading",
            )
        if not self._options.points:
            raise self._ask(["points=yx", "points=xy"])
        figures = detectors.figures(main, points, self._options.points).points
        assert figures is not None
        shares = self._shares(bool(np.abs(figures[..., :2]).max(initial=0) <= 2))
        return Layout(
            "keypoints", output=name, shares=shares, points=points, order=self._options.points
        )

    def _may_read_text(self) -> bool:
        """Whether an input like a line and steps of an answer leave that open."""
        main = self._outputs[main_output(self._outputs)]
        return line_readers.line_like(self._size) and line_readers.is_steps(main)

    def _reads_text(self) -> bool:
        """Whether the file or the user says which characters it knows, and an output has them."""
        characters = self._options.characters or self._known.characters
        main = self._outputs[main_output(self._outputs)]
        near = range(len(characters), len(characters) + 3)
        return bool(characters) and any(
            line_readers.steps_of(main, columns) is not None for columns in near
        )

    def _asks_for_characters(self) -> SettingsError:
        return SettingsError(
            f"{self._name}: its output {self._shapes()} has a number for each character and step:"
            " it reads a line of text; which are its characters?",
            f"say it: {typed(self._name, f'kind=text,{_KEYS}')}, a file with a character a line;"
            " to find lines in whole photos there is text:read",
        )

    def _text(self) -> Layout:
        """The characters of one line, step by step."""
        name = main_output(self._outputs)
        array = self._outputs[name]
        characters = self._options.characters or self._known.characters
        if not characters:
            raise self._asks_for_characters()
        near = range(len(characters), len(characters) + 3)
        found = [
            columns
            for columns in (*array.shape[:0:-1], *near)
            if line_readers.steps_of(array, columns) is not None
        ]
        if array.dtype.kind != "f" or not found:
            raise self._wrong(
                f"its output {name} has the shape {array.shape}: no scores of characters, step by"
                " step",
                "export it with (1, steps, characters)",
            )
        columns = next((each for each in found if each in near), found[0])
        rows = line_readers.steps_of(array, columns)
        assert rows is not None
        try:
            signs = line_readers.signs_by(characters, columns, self._options.blank, rows)
        except ValueError as exc:
            hint = f"say all its characters, in order: {_KEYS}, a character a line"
            raise self._wrong(str(exc), hint) from exc
        if signs is None:
            raise asked(
                self._name,
                "which column of its output stands for no character?",
                ["blank=first", "blank=last"],
            )
        return Layout("text", output=name, signs=signs)

    def _parts(self) -> Parts:
        return parts_of(self._outputs, self._options, self._wrong)

    def _flat(self, kind: str) -> Layout:
        first = main_output(self._outputs)
        array = self._outputs[first]
        if kind == "classes":
            count = array.size // len(array) if array.ndim > 1 else array.size
            squeezed = [side for side in array.shape[1:] if side != 1]
            if count < 2 and not self._options.activation:
                raise self._ask(["kind=classes,activation=sigmoid", "kind=classes,activation=none"])
            if len(squeezed) > 1 or (array.ndim > 1 and len(array) != 1):
                raise self._wrong(
                    f"its output {first} has the shape {array.shape}: no row of classes"
                )
            if self._names and len(self._names) != count:
                raise self._wrong(f"it answers {count} classes, {len(self._names)} are named")
        if kind == "embedding" and array.size != max(array.shape, default=0):
            raise self._wrong(
                f"its output {first} has the shape {array.shape}: no row of numbers for one picture"
            )
        if kind == "masks" and not covers(array, self._size):
            raise self._wrong(
                f"its output {first} has the shape {array.shape}: no map of labels over the picture"
            )
        return Layout(kind, output=first, activation=self._options.activation or "none")

    def _detector(self, detector: str) -> Layout:
        if detector in ("yolov5", "yolov8", "yolov10", "yolox"):
            return self._checked(self._yolo(detector))
        if detector == "detr" and len(self._outputs) == 1:
            name, array = next(iter(self._outputs.items()))
            if array.ndim != 3 or array.shape[2] < 5:
                raise self._wrong(
                    f"its output has the shape {array.shape}, not (1, N, 4 + classes)"
                )
            return self._checked(
                Layout(
                    "boxes",
                    "detr",
                    name,
                    activation=self._options.activation or "none",
                    shares=self._shares(True),
                )
            )
        parts = self._parts()
        activation = self._options.activation or (
            "none" if detector != "detr" else self._detr_activation(parts.scores)
        )
        layout = Layout(
            "boxes",
            detector,
            parts.boxes,
            scores=parts.scores,
            labels=parts.labels,
            count=parts.count,
            activation=activation,
            shares=self._shares(detector != "torchvision" or self._within_shares(parts)),
            first=1 if detector == "ssd" and "num_detections" in parts.count.lower() else 0,
            columns=self._options.columns,
            background=self._options.background or "none",
            raw=self._is_raw(parts),
        )
        if layout.background == "first":
            layout = dataclasses.replace(layout, first=1)
        return self._checked(layout)

    def _within_shares(self, parts: Parts) -> bool:
        """Whether there are boxes on the grey picture, all of them within two pixels."""
        corners = np.abs(self._outputs[parts.boxes][..., :4])
        return 0 < float(corners.max(initial=0)) <= MOST_PIXELS and min(self._size) > LEAST_SIDE

    def _is_raw(self, parts: Parts) -> bool:
        """Whether a list has boxes of all places with scores of classes, doubles among them."""
        if not parts.scores or parts.labels:
            return False
        rows = int(np.prod(self._outputs[parts.boxes].shape[:-1]))
        return rows >= LEAST_RAW and self._outputs[parts.scores].size >= rows

    def _shares(self, usual: bool) -> bool:
        return self._options.units == "share" if self._options.units else usual

    def _detr_activation(self, scores: str) -> str:
        count = self._outputs[scores].shape[-1]
        if (self._names and count == len(self._names) + 1) or count == 92:
            return "softmax"
        if (self._names and count == len(self._names)) or count in (80, 91):
            return "sigmoid"
        raise self._ask(["detector=detr,activation=sigmoid", "detector=detr,activation=softmax"])

    def _yolo(self, detector: str) -> Layout:
        name = main_output(self._outputs)
        array = self._outputs[name]
        if array.ndim == 2:
            array = array[None]
        if array.ndim == 4 and detector == "yolov10" and array.shape[:2] == (1, 1):
            array = array[0]
        if array.ndim == 3 and detector == "yolov10" and self._options.columns:
            return self._table(name, array)
        if array.ndim != 3 or (len(array) != 1 and detector != "yolov8" and array.shape[0] != 1):
            raise self._wrong(
                f"its output {name} has the shape {self._outputs[name].shape}, no list of boxes",
                "export it with the head that decodes boxes",
            )
        rows, columns = array.shape[1:]
        turned = (
            detector == "yolov8"
            and strides_fit(rows, self._size)
            and not strides_fit(columns, self._size)
        )
        if turned:  # some exporters turn it round
            rows, columns, array = columns, rows, array.transpose(0, 2, 1)
        wide = {"yolov8": rows - 4, "yolov10": columns - 5}.get(detector, columns - 5)
        extra = self._options.extra
        if extra is None:
            extra = prototypes(self._outputs) if detector != "yolov10" else 0
            if (self._known.task == "pose" or self._options.keypoints) and detector != "yolov10":
                extra = self._posed()
        if wide - extra < (1 if detector in ("yolov8", "yolov10") else 0):
            raise self._wrong(
                f"its output {name} has the shape {array.shape}: too few numbers for {detector}"
            )
        if self._names and detector != "yolov10" and wide - extra != len(self._names):
            raise self._wrong(f"it answers {wide - extra} classes, {len(self._names)} are named")
        strides: tuple[int, ...] = ()
        if detector == "yolox":
            cells = detectors.strides_of(rows, *self._size)
            if not cells:
                raise self._wrong(
                    f"its {rows} rows are not the cells of an input of"
                    f" {self._size[0]}x{self._size[1]}"
                )
            main = part_of({"m": array}, "m")
            decoded = float(np.abs(main[:, :2]).max()) > 2 * max(cells)
            strides = () if decoded else cells
        # boxes of all cells within two pixels of the corner are none: such numbers are shares, as
        # in TFLite exports
        sides = np.abs(array[0, :4] if detector == "yolov8" else array[0, :, :4])
        shares = self._shares(not strides and 0 < float(sides.max(initial=0)) <= 2)
        protos = prototypes(self._outputs)
        masked = protos and self._options.kind != "boxes" and self._options.extra is None
        masked = masked and (extra == protos or (detector == "yolov10" and columns == 6 + protos))
        return Layout(
            "boxes",
            detector,
            name,
            extra=extra,
            shares=shares,
            strides=strides,
            turned=turned,
            prototypes=list(self._outputs)[1] if masked else "",
        )

    def _table(self, name: str, array: npt.NDArray[Any]) -> Layout:
        columns = self._options.columns
        if array.shape[2] != len(columns) or "score" not in columns:
            raise self._wrong(
                f"its output {name} has {array.shape[2]} columns, and {len(columns)} are named",
                "say all, the score among them",
            )
        largest = float(np.abs(array[0][:, [columns.index(side) for side in BOX]]).max(initial=0))
        return Layout(
            "boxes", "yolov10", name, shares=self._shares(0 < largest <= 2), columns=columns
        )

    def _checked(self, layout: Layout) -> Layout:
        """Scores and corners on the grey picture must be such."""
        if layout.before_activation(self._outputs):
            raise self._wrong(f"read as {layout.detector}, {BELOW_ZERO}")
        sure = layout.detections(self._outputs, self._size).at_least(0.05)
        why = absurd(sure)
        why = why or misplaced(sure, layout.shares, self._size)
        if why:
            raise self._wrong(f"read as {layout.detector}, {why}")
        return layout


def asked(name: str, question: str, choices: Sequence[str]) -> SettingsError:
    """The question what a model's name is to say, with what to type."""
    return SettingsError(
        f"{name}: {question}",
        f"say which: {' or '.join(typed(name, c) for c in choices)}; see docs/vision.md",
    )
