"""The reading of a model's outputs: by its metadata, by options, by shapes; where these leave
several, the user is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision import detectors
from vizcomp.vision.detectors import part_of
from vizcomp.vision.options import BOX, ModelOptions, typed
from vizcomp.vision.parts import Parts, like_a_list, parts_of
from vizcomp.vision.readings import BELOW_ZERO, Known, Layout, Outputs, Size, absurd
from vizcomp.vision.shapes import MULTIPOSE, OBB, POSES, ROWS, end_to_end, of_vector, strides_fit


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
        if options.kind and options.kind != "boxes":
            return self._flat(options.kind)
        if options.detector:
            return self._detector(options.detector)
        if self._known.task in ("detect", "segment", "pose"):
            return self._detector(self._ultralytics())
        if self._known.task == "classify":
            return self._flat("classes")
        choices = self._choices()
        if len(choices) == 1 and "=" not in choices[0]:
            return (
                self._flat(choices[0]) if choices[0] in ("classes",) else self._detector(choices[0])
            )
        raise self._ask(choices)

    def _ask(self, choices: list[str]) -> SettingsError:
        shapes = ", ".join(
            f"{name} {'x'.join(map(str, a.shape))}" for name, a in self._outputs.items()
        )
        says = "leaves it open" if len(choices) > 1 else "does not say"
        options = [choice if "=" in choice else self._typed(choice) for choice in choices]
        return asked(
            self._name, f"how is its output to be read? Its shape {shapes} {says}", options
        )

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
            beside = self._prototypes() + (self._posed() if self._known.task == "pose" else 0)
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

    def _choices(self) -> list[str]:
        """Readings as they are typed; one that has no "=" is certain where it is alone."""
        if self._options.kind == "boxes" or any(
            (self._options.boxes, self._options.scores, self._options.units)
        ):
            return self._listed_choices()
        if len(self._outputs) > 1 and like_a_list(self._outputs) and not self._prototypes():
            return self._listed_choices()
        return self._single(self._outputs[self._main()])

    def _main(self) -> str:
        """The output that is read: the first that is no number of a class beside its
        probabilities."""
        others = [
            n
            for n, a in self._outputs.items()
            if not (np.issubdtype(a.dtype, np.integer) and a.size <= 1)
        ]
        return next(iter(others or self._outputs))

    def _single(self, main: npt.NDArray[Any]) -> list[str]:
        if (
            main.ndim >= 3
            and main.shape[-1] in (2, 3)
            and main.shape[-2] > 3
            and main[..., 0].size == main.shape[-2]
        ):
            return [f"kind=keypoints,points={order}" for order in ("yx", "xy")]
        if main.dtype.kind not in "fiub":
            raise self._wrong(
                "its output holds no numbers", "export it with the numbers that it chooses by"
            )
        if rows := self._rows(main):
            return rows
        if main.ndim == 4 and main.shape[2:] != (1, 1) and main.shape[1:3] != (1, 1):
            maps = {a.shape[1:] for a in self._outputs.values() if a.ndim == 4}
            if len(maps) > 1:
                raise self._wrong(
                    f"its outputs are {len(maps)} kinds of maps, as a detector's before its boxes"
                    " are decoded",
                    "export it with the head that decodes boxes",
                )
            return ["kind=masks"]
        if main.ndim == 3 and np.issubdtype(main.dtype, np.integer):
            return ["kind=masks"]
        if main.ndim == 3 and 1 not in main.shape[1:]:
            return self._grids(*main.shape[1:])
        if not main.ndim or main.size < 1 or main.ndim > 4:
            raise self._wrong(
                f"its output has the shape {main.shape}: neither classes nor boxes",
                "export it with the head that answers",
            )
        count = main.size // len(main) if main.ndim > 1 else main.size
        if main.dtype in (np.int32, np.int64):
            raise self._wrong(
                f"its output is {count} whole numbers: which classes, but not how sure",
                "export it before that choice",
            )
        if count == 1:
            return ["kind=classes,activation=sigmoid", "kind=classes,activation=none"]
        if count > 100_000:
            return ["kind=classes", "kind=masks", "kind=embedding"]
        if self._names:
            return ["classes"]
        return of_vector(next(iter(self._outputs)), main.reshape(-1)[-count:], count)

    def _rows(self, main: npt.NDArray[Any]) -> list[str]:
        """Readings of a list of boxes in rows, as suppression inside the graph leaves them; []
        where it is none."""
        width = (
            main.shape[-1] if main.ndim in (2, 4) or (main.ndim == 3 and main.shape[-1] == 7) else 0
        )
        inner = main.shape[1:-1]
        if width not in (6, 7) or any(
            side != 1 for side in (inner if main.ndim == 2 else main.shape[:-2])
        ):
            return []
        if main.ndim == 3 and (main.shape[1] > 1000 or strides_fit(main.shape[1], self._size, 3)):
            return []
        orders = [f"detector=yolov10,columns={'/'.join(columns)}" for columns in ROWS[width]]
        if main.ndim == 4:
            return [f"{order},units=share" for order in orders[:1]] + orders
        if main.ndim == 3:
            return [*orders, "detector=detr,activation=none"]
        name = self._main().lower()
        if (
            len(main) != 1
            or any(word in name for word in ("nms", "det", "box"))
            or len(self._outputs) > 1
        ):
            return orders
        looks = any(
            detectors.looks_like(main.astype(np.float64), columns) for columns in ROWS[width]
        )
        return [*orders, "kind=classes"] if looks and not self._names else []

    def _grids(self, rows: int, columns: int) -> list[str]:
        """Readings of one output (1, rows, columns)."""
        main = next(iter(self._outputs.values()))
        protos = self._prototypes()
        least = 5 + protos
        by_rows, by_columns = strides_fit(rows, self._size), strides_fit(columns, self._size)
        cells = detectors.strides_of(rows, *self._size)
        if (
            cells
            and rows > columns >= 6
            and detectors.is_raw_grid(part_of({"m": main}, "m"), *self._size, cells)
        ):
            return ["yolox"]
        if (
            by_columns
            and not by_rows
            and not strides_fit(rows, self._size, 3)
            and least <= rows < columns
        ):
            for count in POSES if not self._names else ():
                if rows == 5 + 3 * count:
                    pose = f"kind=keypoints,detector=yolov8,keypoints={count}x3"
                    return [pose, "detector=yolov8", f"detector=yolov8,extra={3 * count}"]
            named = len(self._names) in (0, rows - 4 - protos) and (
                rows != OBB or bool(self._names)
            )
            return ["yolov8"] if named else ["detector=yolov8"]
        if strides_fit(rows, self._size, 3) and not by_columns and not by_rows and columns >= 6:
            return ["yolov5"]
        if columns == 6 + protos and rows <= 1000 and not by_rows and not by_columns:
            return end_to_end(part_of({"m": main}, "m"), protos)
        if columns == MULTIPOSE and rows <= 20:
            return ["kind=keypoints,points=yx", "kind=keypoints,points=xy", "kind=embedding"]
        if rows <= 1000 and any(columns == 6 + 3 * count for count in POSES):
            return [
                f"kind=keypoints,detector=yolov10,keypoints={(columns - 6) // 3}x3",
                "detector=detr,activation=none",
            ]
        choices = ["detector=yolov8"] if least <= rows < columns else []
        if by_rows or strides_fit(rows, self._size, 3):
            choices += [
                "detector=yolov5",
                *(["detector=yolox"] if by_rows and columns >= 6 else []),
            ]
        if rows >= max(least, columns):
            choices.append("detector=yolov8")
        if columns >= 5:
            choices += ["detector=detr,activation=none"] + ([] if choices else ["detector=yolov5"])
        return [*choices, "kind=embedding"] if not choices or max(rows, columns) < 80 else choices

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

    def _prototypes(self) -> int:
        """How many coefficients of masks follow the classes: the channels of a second output of
        four axes."""
        arrays = list(self._outputs.values())
        if (
            len(arrays) == 2
            and arrays[0].ndim == 3
            and arrays[1].ndim == 4
            and arrays[1].shape[0] == 1
        ):
            return int(arrays[1].shape[1] if arrays[1].shape[1] <= 64 else 0)
        return 0

    def _listed_choices(self) -> list[str]:
        parts = self._parts()
        if parts.count and parts.of_tensorflow:
            return ["ssd"]
        if "logit" in parts.scores.lower():
            return ["detr"]
        array = self._outputs[parts.boxes]
        numbers = self._outputs[parts.scores or parts.boxes]
        said = self._options.units or self._options.boxes or self._options.kind
        certain = (array.ndim == 2 and numbers.ndim <= 2) or not parts.scores
        if said or (certain and parts.said and not parts.count):
            return ["torchvision"]
        named = "" if parts.said else f",{parts.typed()}"
        if certain and not parts.count:
            return [f"detector=torchvision{named}"]
        sigmoid = (
            ["detector=detr,activation=sigmoid", "detector=detr,activation=none"]
            if numbers.ndim == 3
            else []
        )
        units = [f"detector=torchvision,units={units}{named}" for units in ("pixels", "share")]
        return [*units, f"detector=ssd{named}", *sigmoid]

    def _parts(self) -> Parts:
        return parts_of(self._outputs, self._options, self._wrong)

    def _flat(self, kind: str) -> Layout:
        first = self._main()
        array = self._outputs[first]
        if kind == "classes":
            count = array.size // len(array) if array.ndim > 1 else array.size
            squeezed = [side for side in array.shape[1:] if side != 1]
            if count < 2 and not self._options.activation:
                raise self._ask(["kind=classes,activation=sigmoid", "kind=classes,activation=none"])
            if len(squeezed) > 1:
                raise self._wrong(
                    f"its output {first} has the shape {array.shape}: no row of classes"
                )
            if self._names and len(self._names) != count:
                raise self._wrong(f"it answers {count} classes, {len(self._names)} are named")
        if kind == "masks" and array.ndim not in (3, 4):
            raise self._wrong(f"its output {first} has the shape {array.shape}: no map of labels")
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
            shares=self._shares(detector != "torchvision"),
            first=1 if detector == "ssd" and "num_detections" in parts.count.lower() else 0,
            columns=self._options.columns,
        )
        return self._checked(layout)

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
        name = self._main()
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
            extra = self._prototypes() if detector != "yolov10" else 0
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
        return Layout(
            "boxes", detector, name, extra=extra, shares=shares, strides=strides, turned=turned
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
        if why := absurd(layout.detections(self._outputs, self._size).at_least(0.05)):
            raise self._wrong(f"read as {layout.detector}, {why}")
        return layout


def asked(name: str, question: str, choices: Sequence[str]) -> SettingsError:
    """The question what a model's name is to say, with what to type."""
    return SettingsError(
        f"{name}: {question}",
        f"say which: {' or '.join(typed(name, c) for c in choices)}; see docs/vision.md",
    )
