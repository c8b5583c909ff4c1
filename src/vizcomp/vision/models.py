"""Any model file as a vision system: photos in by its options, answers out by its layout. What runs
it is a `Runtime`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.errors import InputError, ModelError
from vizcomp.vision import detectors, layouts, line_readers, maps, poses, readings
from vizcomp.vision.answers import (
    Answer,
    Array,
    Boxes,
    Classes,
    Embedding,
    Keypoints,
    Kind,
    Masks,
    Pixels,
)
from vizcomp.vision.inputs import check_others, constants, picture_slot
from vizcomp.vision.instances import masks_of
from vizcomp.vision.line_readers import MOST_HIGH
from vizcomp.vision.model_files import fingerprint_of
from vizcomp.vision.options import MAX_INPUT_SIDE, ModelOptions
from vizcomp.vision.runtime import PICTURES, Preparation, Runtime, prepared
from vizcomp.vision.shapes import several_labels
from vizcomp.vision.system import (
    BAND,
    LEAST_SCORE,
    answer_importance,
    checked,
    corners_to_quads,
    softmax,
)
from vizcomp.vision.views import OPENCV, View, view_of

NMS = 0.5  # suppression where an option says nothing
LEAST_POINT = 0.3  # certainty from which a point is seen
# mean certainty of the points of the one figure of a pose network that has no detector
LEAST_POSE = 0.3
YOLO_SIDE = 640  # of an input that the model leaves open
_TRIAL_SIDE = 224
_TRIAL_LINE = 8  # times as wide as high is a grey line
MOST_SAID = 3  # names of outputs that are not read
_BATCH = 64


class ModelSystem:
    """A model file as a system. It is tried on a grey image when it is opened.

    Args:
        name: as it was typed.
        path: of the file.
        options: what the user says.
        runtime: what runs it.

    Raises:
        ModelError: an input that is no image, outputs that cannot be read, options that do not fit.
        SettingsError: several readings are possible; it lists what to type.
    """

    kind: Kind

    def __init__(self, name: str, path: Path, options: ModelOptions, runtime: Runtime) -> None:
        self.name, self._path, self.options, self._runtime = name, path, options, runtime
        self.fingerprint = fingerprint_of(path, options)
        if options.signature and path.suffix.lower() != ".tflite":
            raise self._wrong("signatures are of .tflite files", "omit `signature`")
        self._size: tuple[int, int] | None = None
        self._known = readings.known_of(runtime.metadata)
        self.classes: tuple[str, ...] = options.classes or self._known.names
        self._read_input()
        self._preparation = self._prepared("")
        line = (self._line, _TRIAL_LINE * self._line) if self._line else None
        size = self._size or line or (_TRIAL_SIDE, _TRIAL_SIDE)
        outputs = self._tried(size)
        self._layout = layouts.Reader(name, outputs, size, options, self._known).layout()
        self._unread = [name for name in outputs if name not in self._layout.read]
        family = self._layout.detector or self._layout.kind
        if (
            self._size is None
            and not self._line
            and not options.size
            and self._layout.kind in ("classes", "embedding")
        ):
            raise layouts.asked(
                name, "how large is its input? The file leaves that open", ["size=224", "size=own"]
            )
        self._check_line()
        self._numbers = (
            np.asarray(outputs[self._layout.output]).size if self._layout.output in outputs else 0
        )
        row = np.asarray(outputs.get(self._layout.output, ())).reshape(-1)
        self._several = (
            self._layout.kind == "classes"
            and several_labels(row)
            and self._layout.output not in runtime.probabilities
        )
        self.kind = self._layout.kind  # type: ignore[assignment]  # one of options.KINDS
        if not self._size and family.startswith("yolo"):
            self._size = (YOLO_SIDE, YOLO_SIDE)
        self._preparation = self._prepared(family)
        self.native = self._size[0] if self._size and self._size[0] == self._size[1] <= 64 else 0

    @property
    def _masked(self) -> bool:
        """Whether masks of instances are read, for which all of the photo must be in the input."""
        return self._size is not None and not self.crops

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of its input; None where it takes photos of any size."""
        return self._size

    @property
    def crops(self) -> bool:
        """Whether it sees the middle of a photo alone where that has another shape than the
        input."""
        return self._preparation.fit.resize == "crop"

    @property
    def seen(self) -> float:
        """Where it crops, share of a photo's shorter side that it sees."""
        return self._preparation.fit.crop

    @property
    def resample(self) -> str:
        """The filter by which photos come to its input, one of `options.FILTERS`."""
        return self._preparation.fit.filter

    @property
    def reading(self) -> str:
        """How the model is read, in one line."""
        own = f"{self._line} high, as wide as the line" if self._line else "the photo's own size"
        side = f"{self._size[0]}x{self._size[1]}" if self._size else own
        parts = [
            self.kind,
            f"input {side}{' grey' if self._channels == 1 else ''}",
            self._preparation.said(),
        ]
        if self.kind == "text":
            parts += ["one line", self._layout.said(), f"from certainty {self._least:g}"]
        if self.kind in ("boxes", "keypoints"):
            parts += [f"layout {self._layout.said()}", f"from score {self._least:g}"]
            if self.kind == "keypoints":
                parts.append(f"points from {self._seen:g}")
            parts.append(
                f"doubles above IoU {self._nms:g} dropped"
                if self._nms < 1
                else "doubles not looked for"
            )
        if self._several:
            parts.append("scores of several labels, of which the best counts")
        if self._layout.prototypes and not self._masked:
            parts.append("masks not compared: the input shows a part of the photo")
        if self.classes:
            parts.append(f"{len(self.classes)} classes named")
        if self._unread:
            more = len(self._unread) - MOST_SAID
            names = ", ".join(self._unread[:MOST_SAID])
            parts.append(f"not read: {names}{f' and {more} more' if more > 0 else ''}")
        return "; ".join([*parts, f"fingerprint {self.fingerprint}"])

    def _wrong(self, what: str, hint: str = "") -> ModelError:
        return ModelError(
            f"{self.name}: {what}",
            hint or f"say it in {self._path.with_suffix('.json').name}: see docs/vision.md",
        )

    @property
    def _least(self) -> float:
        usual = LEAST_SCORE if self.kind != "keypoints" or self._layout.detector else LEAST_POSE
        return usual if self.options.least is None else self.options.least

    @property
    def _seen(self) -> float:
        return LEAST_POINT if self.options.seen is None else self.options.seen

    @property
    def _nms(self) -> float:
        grid = self._layout.detector in ("yolov5", "yolov8", "yolox") or self._layout.raw
        usual = NMS if grid else 1.0
        return usual if self.options.nms is None else self.options.nms

    def _read_input(self) -> None:
        slot = self._slot = picture_slot(self.name, self._runtime.slots, self.options)
        if slot.dtype not in PICTURES:
            raise self._wrong(
                f"its input is {slot.said}, no image", "export it with a float or uint8 input"
            )
        if len(slot.shape) not in (3, 4):
            raise self._wrong(
                f"its input has the shape {list(slot.shape)}, no batch of images",
                "export it with (N, 3, H, W)",
            )
        # of one image alone, as torchvision's detectors take it
        fixed = slot.shape if len(slot.shape) == 4 else (1, *slot.shape)
        layout = self.options.layout or (
            "NHWC" if fixed[3] in (1, 3) and fixed[1] not in (1, 3) else "NCHW"
        )
        channels = fixed[1] if layout == "NCHW" else fixed[3]
        if channels not in (0, 1, 3):
            raise self._wrong(
                f"its input has {channels} channels in the layout {layout}, not 3",
                "export it with 3 channels, or 1",
            )
        sides = (fixed[2], fixed[3]) if layout == "NCHW" else (fixed[1], fixed[2])
        size = self.options.size or (self._known.size if not all(sides) else ())
        if size and any(a and a != b for a, b in zip(sides, size, strict=True)):
            raise self._wrong(f"its input is {sides[0]}x{sides[1]}, not {size[0]}x{size[1]}")
        if max(sides) > MAX_INPUT_SIDE:
            raise self._wrong(
                f"its input is {sides[0]}x{sides[1]}, more than {MAX_INPUT_SIDE} a side",
                "export it smaller",
            )
        self._nchw, self._channels = layout == "NCHW", channels or 3
        self._size = (size[0], size[1]) if size and all(size) else sides if all(sides) else None
        # of readers of text: a line as wide as it is
        self._line = sides[0] if sides[0] and not sides[1] and not size else 0
        if not size and any(sides) and not all(sides) and not 0 < self._line <= MOST_HIGH:
            side = max(sides)
            question = f"its input is {side} on one side and open on the other: how large is it?"
            raise layouts.asked(self.name, question, [f"size={side}x{side}"])
        self._batch = fixed[0]
        check_others(self.name, self._runtime.slots, slot, self.options, self._size or ())

    def _check_line(self) -> None:
        """A reader of text needs a height, and to know what becomes of a line of another shape."""
        text = self._layout.kind == "text"
        if self._line and not text:
            raise self._wrong(
                f"its input is {self._line} high and of any width, which readers of text have",
                f"say its size, as size={self._line}x{self._line}",
            )
        if text and not self._size and not self._line:
            question = "how large is its input? The file leaves that open"
            raise layouts.asked(self.name, question, ["size=48x320", "size=32x100"])
        if text and self._size and not self.options.resize:
            size = "x".join(map(str, self._size))
            question = f"its input is {size}: is a line stretched to it, or filled up to it?"
            raise layouts.asked(self.name, question, ["resize=stretch", "resize=letterbox-corner"])

    def _prepared(self, family: str) -> Preparation:
        return prepared(
            self.options,
            family,
            poses=self._layout_order == "yx",
            activation=self._layout_activation,
            tflite=self._path.suffix.lower() == ".tflite",
            whole=self._slot.dtype == np.uint8,
        )

    @property
    def _layout_order(self) -> str:
        """Of the points of a network as MoveNet, which fills a letterbox with black."""
        layout: readings.Layout | None = getattr(self, "_layout", None)
        return layout.order if layout is not None and layout.points and not layout.detector else ""

    @property
    def _layout_activation(self) -> str:
        layout: readings.Layout | None = getattr(self, "_layout", None)
        return layout.activation if layout is not None and layout.detector == "detr" else ""

    def _tried(self, size: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
        for values in self.options.mean, self.options.std:
            if len(values) not in (0, 1, self._channels):
                raise self._wrong(
                    f"its input has {self._channels} channels, mean or std are {len(values)}"
                )
        try:
            return self._run([np.full((*size, 3), 128, np.uint8)])
        except InputError as exc:
            raise self._wrong(f"it fails on a grey image: {exc.message}") from exc

    def _run(self, views: Sequence[Pixels]) -> dict[str, npt.NDArray[Any]]:
        """Views of one size through the model; a fixed batch is filled up and cut again."""
        count = len(views)
        batch: Any = np.stack([self._channels_of(view) for view in views])
        if self._batch > count:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self._batch - count, 0)])
        plan = self._preparation
        if self._slot.dtype != np.uint8:
            scaled = batch.astype(np.float32) * (plan.range / 255)
            # an odd model's std: its answer is checked
            with np.errstate(over="ignore", invalid="ignore"):
                batch = (scaled - np.array(plan.mean, np.float32)) / np.array(plan.std, np.float32)
                batch = batch.astype(self._slot.dtype)
        if self._nchw:
            batch = batch.transpose(0, 3, 1, 2)
        feeds = constants(
            self.name, self._runtime.slots, self.options, len(batch), views[0].shape[:2]
        )
        batch = batch[0] if len(self._slot.shape) == 3 else batch
        try:
            outputs = self._runtime.run({self._slot.name: np.ascontiguousarray(batch), **feeds})
        except Exception as exc:  # a runtime has a class of its own for each cause
            from vizcomp.errors import first_line

            raise InputError(
                f"{self.name} fails: {first_line(exc)}", "check the model's input"
            ) from exc
        if self._batch > count:
            outputs = {
                n: a[:count] if a.ndim and len(a) == self._batch else a for n, a in outputs.items()
            }
        return outputs

    def _channels_of(self, view: Pixels) -> Pixels:
        if self._channels == 1:
            return np.asarray(Image.fromarray(view).convert("L"))[..., None]
        return view if self._preparation.order == "RGB" else view[..., ::-1]

    @property
    def resize_filter(self) -> str:
        """By which a photo comes to the input's size: one of `options.FILTERS`."""
        return self._preparation.fit.filter

    def enlarges(self, height: int, width: int) -> bool:
        """As `system.Resizing.enlarges`."""
        size = self._size_for(height, width)
        return size is not None and height < size[0] and width < size[1]

    def _size_for(self, height: int, width: int) -> tuple[int, int] | None:
        """Of the input for a photo; None: the photo's own."""
        if not self._line:
            return self._size
        across = round(width * self._line / height)
        return self._line, min(max(self._line, across), MAX_INPUT_SIDE)

    def answer_with(self, image: Pixels, resize_filter: str) -> Answer | None:
        """The answer where another program resizes the photo, by one of `options.FILTERS`; None
        where no size is asked for."""
        size = self._size_for(*image.shape[:2])
        if size is None:
            return None
        # programs that resize by OpenCV round sides as `int` does
        other = dataclasses.replace(
            self._preparation.fit, filter=resize_filter, floor=resize_filter in OPENCV
        )
        view = view_of(image, size, other)
        return self._answer(self._run([view.pixels]), image, view)

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        """As `System.answers`."""
        step = self._step()
        answers: list[Answer] = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            fit = self._preparation.fit
            views = [view_of(image, self._size_for(*image.shape[:2]), fit) for image in part]
            outputs = self._run([view.pixels for view in views])
            if len(part) > 1 and np.shape(outputs[self._layout.output])[:1] != (len(part),):
                # its answer does not follow the batch
                answers += [self.answers([image])[0] for image in part]
                continue
            for at, (image, view) in enumerate(zip(part, views, strict=True)):
                one = outputs if len(part) == 1 else {n: a[at : at + 1] for n, a in outputs.items()}
                answers.append(self._answer(one, image, view))
        return answers

    def _step(self) -> int:
        if self.kind != "classes" or not self._size:
            return 1
        return self._batch or _BATCH

    def _answer(self, outputs: dict[str, npt.NDArray[Any]], image: Pixels, view: View) -> Answer:
        if self.kind in ("boxes", "keypoints"):
            return self._detected(outputs, image, view)
        main = checked(np.asarray(outputs[self._layout.output]), self.name)
        if self.kind == "masks":
            try:
                labels = maps.labels_on_photo(
                    main, len(self.classes), self._layout.activation, image.shape[:2], view
                )
            except InputError as exc:
                raise InputError(f"{self.name}: {exc.message}", exc.hint) from exc
            return Masks(labels, self.classes)
        if self.kind == "text":
            rows = line_readers.steps_of(main, len(self._layout.signs))
            if rows is None:
                raise InputError(f"{self.name}: its output has the shape {main.shape} here")
            return line_readers.answer_of(rows, self._layout.signs, self._least, image)
        row = main.reshape(-1)
        if row.size != self._numbers:
            raise InputError(
                f"{self.name}: {row.size} numbers here, {self._numbers} on a grey picture: no"
                f" {self.kind}",
                "are these boxes? Say how it is read: see docs/vision.md",
            )
        if row.size == 1:
            yes = (
                float(1 / (1 + np.exp(-row[0])))
                if self._layout.activation == "sigmoid"
                else float(row[0])
            )
            if not 0 <= yes <= 1:
                raise InputError(
                    f"{self.name}: {yes:.3g} is no probability", "say activation=sigmoid"
                )
            return Classes(np.array([1 - yes, yes], np.float32), self.classes)
        if self.kind == "embedding":
            return Embedding(np.asarray(row, np.float32))
        total = float(row.sum())
        certain = self._layout.output in self._runtime.probabilities and total > 0
        several = self._several and row.min() >= 0 and row.max() <= 1 + 1e-6 and total > 0
        if certain or several or (row.min() >= 0 and abs(total - 1) < 1e-2):
            return Classes(np.asarray(row / total, np.float32), self.classes)
        return Classes(softmax(row), self.classes)

    def _detected(
        self, outputs: dict[str, npt.NDArray[Any]], image: Pixels, view: View
    ) -> Boxes | Keypoints:
        size = view.pixels.shape[0], view.pixels.shape[1]
        every = self._layout.detections(outputs, size)
        checked(every.scores, self.name)
        banded = self.kind == "boxes" and self._least > 0
        sure = every.at_least(max(self._least - (BAND if banded else 0), 1e-9))
        checked(sure.corners, self.name)
        why = readings.absurd(sure)
        if not self.options.units:
            why = why or readings.misplaced(sure, self._layout.shares, size)
        if why:
            raise InputError(f"{self.name}: {why}", "see docs/vision.md for the options of models")
        whole = np.array([size[1], size[0]] * 2) if self._layout.shares else np.ones(4)
        detections = detectors.suppressed(sure._replace(corners=sure.corners * whole), self._nms)
        if self.kind == "keypoints":
            return self._figures(detections, whole[:2], image, view)
        corners = view.on_photo(detections.corners)
        height, width = image.shape[:2]
        corners = (
            corners.clip(0, [width, height] * 2)
            if self._layout.detector.startswith("yolo")
            else corners
        )
        named = bool((detections.labels >= 0).any())
        masks = None
        if self._layout.prototypes and self._masked:
            protos = checked(self._layout.prototypes_of(outputs), self.name)
            masks = masks_of(detections, protos, size, view.place(height, width))

        def boxes(which: npt.NDArray[np.bool_], below: Boxes | None = None) -> Boxes:
            labels = (
                tuple(self._label(int(label)) for label in detections.labels[which])
                if named
                else ()
            )
            scores = np.asarray(detections.scores[which], np.float32)
            return Boxes(
                corners_to_quads(corners[which]),
                labels,
                (width, height),
                scores,
                self._least,
                below,
                None if masks is None else masks[which],
            )

        return boxes(detections.scores >= self._least, boxes(detections.scores < self._least))

    def _figures(
        self,
        detections: detectors.Detections,
        whole: npt.NDArray[np.float64],
        image: Pixels,
        view: View,
    ) -> Keypoints:
        every = checked(
            np.zeros((0, 1, 2)) if detections.points is None else detections.points, self.name
        )
        points = view.points_on_photo(every[..., :2] * whole)
        scores = np.asarray(
            every[..., 2] if every.shape[2] == 3 else np.ones(every.shape[:2]), np.float32
        )
        some = (scores >= self._seen).any(1)  # a figure without a seen point is none
        points, scores = points[some], scores[some]
        boxed = bool(detections.corners.any())
        corners = (
            view.on_photo(detections.corners[some])
            if boxed
            else poses.bounds(points, scores, self._seen)
        )
        return Keypoints(points, scores, corners, (image.shape[1], image.shape[0]), self._seen)

    def _label(self, label: int) -> str:
        first = self._layout.first if self.options.first is None else self.options.first
        at = label - first
        return self.classes[at] if 0 <= at < len(self.classes) else f"class {label}"

    def importance(self, image: Pixels) -> Array:
        """As `System.importance`."""
        return answer_importance(self, image)
