"""Any ONNX classifier or detector of boxes as a vision system."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.errors import InputError, ModelError, first_line
from vizcomp.vision.answers import Answer, Array, Boxes, Classes, Pixels
from vizcomp.vision.system import (
    HINT,
    LEAST_SCORE,
    boxes_answer_importance,
    checked,
    corners_to_quads,
    file_fingerprint,
    fitted,
    softmax,
)

MAX_INPUT_SIDE = 8192  # pixels of a model's input: a damaged or hostile one must not take all memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """What an ONNX model does not say of itself: NAME.json beside NAME.onnx.

    Attributes:
        kind: "classes" or "boxes"; "" = by the outputs: one of two axes is a classifier's.
        layout: "NCHW" or "NHWC"; "" = by the shape.
        size: height and width; () = by the shape, or the image's own where that is free.
        range: the value that white has in the input, before mean and deviation: 1 or 255.
        mean, std: of each channel, in units of `range`.
        order: "RGB" or "BGR".
        classes: names.
        boxes, scores, labels: names of a detector's outputs; "" = boxes, scores and labels, or by their shapes.
        units: of a detector's boxes: "pixels" of its input, or "share" of it.
        least: boxes below this score are no answer.
    """

    kind: str = ""
    layout: str = ""
    size: tuple[int, ...] = ()
    range: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    order: str = "RGB"
    classes: tuple[str, ...] = ()
    boxes: str = ""
    scores: str = ""
    labels: str = ""
    units: str = "pixels"
    least: float = LEAST_SCORE

    @classmethod
    def read(cls, path: Path) -> OnnxOptions:
        """From a JSON file; defaults where there is none.

        Raises:
            ModelError: the file cannot be read, or a value does not fit.
        """
        hint = "see docs/vision.md for its fields"
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as exc:
            raise ModelError(f"{path} cannot be read: {exc}", hint) from exc
        known: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or (strange := sorted(set(values) - set(known))):
            raise ModelError(f"{path}: unknown field {', '.join(strange) if isinstance(values, dict) else 'list'}", hint)
        try:
            made = {}
            for key, value in values.items():
                default = known[key]
                if isinstance(default, tuple):
                    kind: Any = str if key == "classes" else int if key == "size" else float
                    value = tuple(kind(v) for v in value)
                elif not isinstance(value, type(default)):
                    value = type(default)(value)
                made[key] = value
            words = cls(**made)
        except (TypeError, ValueError) as exc:
            raise ModelError(f"{path}: {exc}", hint) from exc
        fits = (
            words.kind in ("", "classes", "boxes")
            and words.layout in ("", "NCHW", "NHWC")
            and words.order in ("RGB", "BGR")
            and words.units in ("pixels", "share")
            and len(words.size) in (0, 2)
            and all(0 < s <= MAX_INPUT_SIDE for s in words.size)
            and len(words.mean) == len(words.std) == 3
            and all(s > 0 for s in words.std)
            and words.range > 0
        )
        if not fits:
            raise ModelError(f"{path}: a value is out of range", hint)
        return words


class OnnxSystem:
    """Any classifier or detector in ONNX, on one thread. It is tried on a grey image when it is opened.

    Raises:
        ModelError: no ONNX, more than one input, an input that is no image, or outputs that are neither classes nor boxes.
    """

    classes: tuple[str, ...]
    kind: Literal["classes", "boxes"]

    def __init__(self, path: Path, words: OnnxOptions | None = None) -> None:
        from vizcomp.weights.sessions import open_session

        self.name = str(path)
        if not path.is_file():
            raise ModelError(f"{path} is not there", HINT)
        self.words = OnnxOptions.read(path.with_suffix(".json")) if words is None else words
        try:
            self._session = open_session(str(path))
        except Exception as exc:  # ONNX Runtime has a class of its own for each cause
            raise ModelError(f"{path} cannot be read as an ONNX model: {first_line(exc)}", "export it again") from exc
        self.fingerprint = file_fingerprint(path)
        self.classes = self.words.classes
        try:
            self._outputs = [o.name for o in self._session.get_outputs()]
            self._read_input()
        except UnicodeDecodeError as exc:
            raise ModelError(f"{path} is damaged: its names are no text", "export it again") from exc
        self.native = self._size[0] if self._size and self._size[0] == self._size[1] <= 64 else 0
        self.kind = self._find_kind()

    def _wrong(self, what: str, hint: str = "") -> ModelError:
        return ModelError(
            f"{self.name}: {what}", hint or f"say it in {Path(self.name).with_suffix('.json').name}: see docs/vision.md"
        )

    def _read_input(self) -> None:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise self._wrong(
                f"a model with one image input is wanted, this one has {len(inputs)} inputs", "export it with one input"
            )
        shape, kind = inputs[0].shape, inputs[0].type
        self._input = inputs[0].name
        if kind not in ("tensor(float)", "tensor(uint8)", "tensor(float16)"):
            raise self._wrong(f"its input is {kind}, no image", "export it with a float or uint8 input")
        self._dtype: Any = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}[kind]
        if len(shape) != 4:
            raise self._wrong(f"its input has the shape {shape}, no batch of images", "export it with (N, 3, H, W)")
        fixed = [s if isinstance(s, int) and s > 0 else 0 for s in shape]
        layout = self.words.layout or ("NHWC" if fixed[3] == 3 and fixed[1] != 3 else "NCHW")
        channels = fixed[1] if layout == "NCHW" else fixed[3]
        if channels not in (0, 3):
            raise self._wrong(f"its input has {channels} channels in the layout {layout}, not 3")
        own = (fixed[2], fixed[3]) if layout == "NCHW" else (fixed[1], fixed[2])
        if self.words.size and any(a and a != b for a, b in zip(own, self.words.size, strict=True)):
            raise self._wrong(f"its input is {own[0]}x{own[1]}, not {self.words.size[0]}x{self.words.size[1]}")
        if max(own) > MAX_INPUT_SIDE:
            raise self._wrong(
                f"its input is {own[0]}x{own[1]}, more than {MAX_INPUT_SIDE} a side", "export it with a smaller input"
            )
        self._layout = layout
        self._size = self.words.size or (own if all(own) else ())
        self._batch = 1 if fixed[0] == 1 else 0

    def _find_kind(self) -> Literal["classes", "boxes"]:
        try:
            outputs = self._run(np.full((*(self._size or (224, 224)), 3), 128, np.uint8)[None])
        except InputError as exc:
            raise self._wrong(f"it fails on a grey image: {exc.message}") from exc
        if self.words.kind == "boxes" or (not self.words.kind and any(a.shape[-1:] == (4,) for a in outputs.values())):
            self._box_outputs(outputs)
            return "boxes"
        first = outputs[self._outputs[0]]
        if not (first.ndim and first.size) or first.size // len(first) < 2 or first.size > 1_000_000:
            raise self._wrong(f"its output {self._outputs[0]} has the shape {first.shape}: neither classes nor boxes")
        count = first.reshape(len(first), -1).shape[1]
        if self.classes and len(self.classes) != count:
            raise self._wrong(f"it answers {count} classes, {len(self.classes)} are named")
        return "classes"

    def _run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """uint8 (N, H, W, 3) of one size through the model."""
        views: Any = images if self.words.order == "RGB" else images[..., ::-1]
        if self._dtype != np.uint8:
            scaled = views.astype(np.float32) * (self.words.range / 255)
            with np.errstate(over="ignore", invalid="ignore"):  # an odd model's std: its answer is checked
                views = (scaled - np.array(self.words.mean, np.float32)) / np.array(self.words.std, np.float32)
                views = views.astype(self._dtype)
        if self._layout == "NCHW":
            views = views.transpose(0, 3, 1, 2)
        try:
            found = self._session.run(None, {self._input: np.ascontiguousarray(views)})
        except Exception as exc:
            raise InputError(f"{self.name} fails: {first_line(exc)}", "check the model's input") from exc
        return dict(zip(self._outputs, (np.asarray(f) for f in found), strict=True))

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        if self.kind == "boxes":
            return [self._boxes(image) for image in images]
        found: list[Answer] = []
        step = 1 if self._batch or not self._size else 64
        for start in range(0, len(images), step):
            some = images[start : start + step]
            views = np.stack([fitted(i, *self._size) for i in some]) if self._size else some[0][None]
            rows = self._run(views)[self._outputs[0]]
            if not rows.size or rows.size % len(views):
                raise InputError(f"{self.name} answers {rows.shape} for {len(views)} images", "export it with a free batch size")
            rows = rows.reshape(len(views), -1)
            found += [Classes(self._probabilities(row), self.classes) for row in checked(rows, self.name)]
        return found

    def _probabilities(self, row: npt.NDArray[Any]) -> Array:
        already = row.min() >= 0 and abs(float(row.sum()) - 1) < 1e-2
        return np.asarray(row / row.sum(), np.float32) if already else softmax(row)

    def _box_outputs(self, outputs: dict[str, npt.NDArray[Any]]) -> tuple[str, str, str]:
        boxes = self.words.boxes or next((n for n, a in outputs.items() if n == "boxes" or a.shape[-1:] == (4,)), "")
        scores = self.words.scores or next((n for n in outputs if "score" in n.lower()), "")
        labels = self.words.labels or next((n for n in outputs if "label" in n.lower()), "")
        for what, name in (("boxes", boxes), ("scores", scores)):
            if name not in outputs:
                raise self._wrong(f"which of its outputs are the {what}? There are {', '.join(outputs)}")
        return boxes, scores, labels

    def _boxes(self, image: Pixels) -> Boxes:
        height, width = image.shape[:2]
        view = image
        if self._size and image.shape[:2] != tuple(self._size):
            view = np.asarray(Image.fromarray(image).resize((self._size[1], self._size[0]), Image.Resampling.BILINEAR))
        outputs = self._run(view[None])
        boxes, scores, labels = self._box_outputs(outputs)
        corners = checked(outputs[boxes].reshape(-1, 4).astype(np.float64), self.name)
        sure = outputs[scores].reshape(len(corners), -1)
        keep = sure.max(1) >= self.words.least if sure.shape[1] else np.zeros(0, bool)
        across, down = (width, height) if self.words.units == "share" else (width / view.shape[1], height / view.shape[0])
        corners = corners[keep] * np.array([across, down, across, down])
        kinds = outputs[labels].reshape(-1)[keep] if labels in outputs else sure[keep].argmax(1) if sure.shape[1] > 1 else []
        named = tuple(self.classes[int(k)] if int(k) < len(self.classes) else f"class {int(k)}" for k in kinds)
        return Boxes(corners_to_quads(corners), named, (width, height))

    def importance(self, image: Pixels) -> Array:
        """Boxes with a margin; for a classifier how much the answer suffers when a place is covered (Zeiler and Fergus 2014)."""
        if self.kind == "boxes":
            return boxes_answer_importance(self, image)
        rows = columns = 8
        height, width = image.shape[:2]
        down, across = np.linspace(0, height, rows + 1).astype(int), np.linspace(0, width, columns + 1).astype(int)
        grey = image.reshape(-1, 3).mean(0).astype(np.uint8)
        covered = []
        for r in range(rows):
            for c in range(columns):
                view = image.copy()
                view[down[r] : down[r + 1], across[c] : across[c + 1]] = grey
                covered.append(view)
        whole, *parts = self.answers([image, *covered])
        assert isinstance(whole, Classes)
        loss = np.array([whole.probabilities[whole.best] - p.probabilities[whole.best] for p in parts if isinstance(p, Classes)])
        heat = np.maximum(loss, 0).reshape(rows, columns).astype(np.float32)
        largest = float(heat.max())
        return heat / np.float32(largest) if largest > 1e-6 else np.ones((1, 1), np.float32)
