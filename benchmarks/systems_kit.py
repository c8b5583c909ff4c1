"""The vision systems that `djpeg_systems.py` asks, and how an answer on a result is scored against
the one on its source.

    name          what                                             published reading
    text          boxes of RapidOCR's detector                     F1 at IoU 0.5
    words         what RapidOCR reads in the boxes of the source   share read the same
    yolox         YOLOX-nano's boxes, same class                   F1 at IoU 0.5
    efficientnet  classes of ImageNet (and mobilenet)              same best class
    deeplab       masks of VOC's classes                           F1 of one class's foreground
    movenet       joints of a person                               share in a tenth of the height

A name may have a view behind a colon, the same network on the photo prepared in another way: a
cheap stand-in for systems that nobody here has. `squash` scales the whole photo without a crop,
`cubic` and `plain` use other filters (`plain` is bilinear without antialiasing, as OpenCV's),
`small` first makes the photo 0.8 times as large, `wide` 1.25 times.

Beside the score that counts, `close` is a smoother one in 0..1 of the same answer (probabilities,
not decisions), which tells neighbouring settings apart on fewer photos.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from textdet import Answer, TextSystem, default_cache

from vizcomp.vision.boxes import match_boxes

SHARED = Path(os.environ.get("VIZCOMP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]

LEAST, OVERLAP = 0.3, 0.5  # YOLOX
JOINT, JOINTS = 0.3, 5  # a joint is seen from this score on; a person is where so many are
BAR = "bilinear"
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@functools.cache
def interpreter(name: str) -> tuple[Any, int, list[int]]:
    """A .tflite network, the index of its input and those of its outputs."""
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(SHARED / "models" / name), num_threads=1)
    network.allocate_tensors()
    return (
        network,
        network.get_input_details()[0]["index"],
        [detail["index"] for detail in network.get_output_details()],
    )


def run_tflite(name: str, field: npt.NDArray[Any]) -> npt.NDArray[Any]:
    network, entry, out = interpreter(name)
    network.set_tensor(entry, np.ascontiguousarray(field)[None])
    network.invoke()
    return np.asarray(network.get_tensor(out[0]))


# --- views
# --------------------------------------------------------------------------------------------------


def resized(
    pixels: Pixels,
    width: int,
    height: int,
    view: str,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    image = Image.fromarray(pixels)
    if view == "plain":
        left, top, right, bottom = box or (0.0, 0.0, image.width, image.height)
        affine = ((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)
        return np.asarray(
            image.transform(
                (width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
            )
        )
    return np.asarray(
        image.resize((width, height), FILTERS.get(view, Image.Resampling.BILINEAR), box=box)
    )


def scaled(pixels: Pixels, view: str) -> Pixels:
    factor = {"small": 0.8, "wide": 1.25}.get(view)
    if factor is None:
        return pixels
    return resized(pixels, round(pixels.shape[1] * factor), round(pixels.shape[0] * factor), BAR)


def centre(pixels: Pixels, view: str, side: int = 224) -> Pixels:
    """The middle 87.5%, `side` pixels a side."""
    if view == "squash":
        return resized(pixels, side, side, BAR)
    pixels = scaled(pixels, view)
    height, width = pixels.shape[:2]
    share = min(width, height) * 0.875
    left, top = (width - share) / 2, (height - share) / 2
    return resized(pixels, side, side, view, (left, top, left + share, top + share))


def letterbox(pixels: Pixels, side: int, fill: int, view: str) -> tuple[Pixels, float]:
    """The photo at the top left of a square, and the scale."""
    ratio = min(side / pixels.shape[0], side / pixels.shape[1])
    ratio *= 0.8 if view == "small" else 1.0
    height, width = max(1, int(pixels.shape[0] * ratio)), max(1, int(pixels.shape[1] * ratio))
    field = np.full((side, side, 3), fill, np.uint8)
    field[:height, :width] = resized(pixels, width, height, view)
    return field, ratio


# --- answers: what counts, and what is close
# ----------------------------------------------------------------------


def softmax(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = np.exp(x - x.max())
    return np.asarray(x / x.sum(), np.float32)


class Classifier:
    def __init__(self, name: str, view: str) -> None:
        self._name, self._view = name, view
        self._session = (
            session(SHARED / "models" / "efficientnet_lite0.onnx")
            if name == "efficientnet"
            else None
        )

    def __call__(self, pixels: Pixels) -> Any:
        field = centre(pixels, self._view)
        if self._session is None:
            scores = run_tflite("mobilenet_v2_1.0_224_quant.tflite", field)[0].astype(np.float32)
            return scores / max(1.0, float(scores.sum()))
        real = (field / np.float32(255) - np.float32(0.498)) / np.float32(0.502)
        entry = self._session.get_inputs()[0].name
        return softmax(
            self._session.run(
                None, {entry: real.astype(np.float32).transpose(2, 0, 1)[None].copy()}
            )[0][0]
        )

    def score(self, truth: Any, answer: Any) -> tuple[float, float, float]:
        return float(truth.argmax() == answer.argmax()), 1.0, float(np.minimum(truth, answer).sum())


class Detector:
    """YOLOX by its published reading: letterbox at the top left, strides 8, 16, 32, suppression
    class by class."""

    def __init__(self, view: str) -> None:
        self._session, self._view = session(SHARED / "models" / "yolox_nano.onnx"), view

    def __call__(self, pixels: Pixels) -> Any:
        side = 416
        field, ratio = letterbox(pixels, side, 114, self._view)
        entry = self._session.get_inputs()[0].name
        image = field[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        raw = np.asarray(
            self._session.run(None, {entry: np.ascontiguousarray(image)})[0][0], np.float64
        )
        cells, strides = [], []
        for stride in (8, 16, 32):
            count = side // stride
            down, across = np.mgrid[:count, :count]
            cells.append(np.stack([across.ravel(), down.ravel()], 1))
            strides.append(np.full(count * count, stride))
        step = np.concatenate(strides)[:, None]
        middle = (raw[:, :2] + np.concatenate(cells)) * step
        half = np.exp(raw[:, 2:4]) * step / 2
        scores = raw[:, 4:5] * raw[:, 5:]
        kind, score = scores.argmax(1), scores.max(1)
        corners = np.concatenate([middle - half, middle + half], 1) / ratio
        kept: list[int] = []
        for index in np.argsort(-score, kind="stable"):
            if score[index] < LEAST:
                break
            same = [other for other in kept if kind[other] == kind[index]]
            if all(overlap(corners[other], corners[index]) <= OVERLAP for other in same):
                kept.append(int(index))
        return corners[kept], kind[kept], np.where(scores > 0.05, scores, 0).astype(np.float32)

    def score(self, truth: Any, answer: Any) -> tuple[float, float, float]:
        boxes, kinds, evidence = truth
        found, found_kinds, other = answer
        matched = 0
        for kind in set(kinds.tolist()) & set(found_kinds.tolist()):
            matched += len(match_boxes(boxes[kinds == kind], found[found_kinds == kind]))
        both = float(evidence.sum() + other.sum())
        return (
            2 * matched,
            len(boxes) + len(found),
            2 * float(np.minimum(evidence, other).sum()) / both if both else 1.0,
        )


def overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(size / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - size))


class Masks:
    """DeepLab v3: the foreground's pixels."""

    def __init__(self, view: str) -> None:
        self._view = view

    def __call__(self, pixels: Pixels) -> Any:
        field, ratio = letterbox(pixels, 513, 128, self._view)
        labels = run_tflite("deeplabv3_mnv2_pascal_quant.tflite", field)
        labels = labels.reshape(513, 513).astype(np.int16)
        return labels[
            : max(1, int(pixels.shape[0] * ratio)), : max(1, int(pixels.shape[1] * ratio))
        ]

    def score(self, truth: Any, answer: Any) -> tuple[float, float, float]:
        there, found = truth > 0, answer > 0
        if there.mean() < 0.01:
            return 0.0, 0.0, 1.0
        same = 2.0 * float((there & (truth == answer)).sum()) / float(there.sum() + found.sum())
        return same, 1.0, same


class Joints:
    """MoveNet: the joints of one person, where there is one."""

    def __init__(self, view: str) -> None:
        self._view = view

    def __call__(self, pixels: Pixels) -> Any:
        field, _ = letterbox(pixels, 192, 0, self._view)
        return run_tflite("movenet_single_pose_lightning_ptq.tflite", field)[0, 0].astype(
            np.float32
        )

    def score(self, truth: Any, answer: Any) -> tuple[float, float, float]:
        seen = truth[:, 2] >= JOINT
        if seen.sum() < JOINTS:
            return 0.0, 0.0, 1.0
        size = max(float(np.ptp(truth[seen, 0])), float(np.ptp(truth[seen, 1])), 0.05)
        apart = np.hypot(*(truth[seen, :2] - answer[seen, :2]).T) / size
        kept = float(((apart < 0.1) & (answer[seen, 2] >= JOINT)).mean())
        return kept, 1.0, float(np.exp(-10 * apart).mean())


class Text:
    """RapidOCR's boxes; `words`: what is read in the places of the source's boxes."""

    def __init__(self, view: str, words: bool = False) -> None:
        self._system, self._view, self._words = TextSystem(default_cache()), view, words

    def __call__(self, pixels: Pixels) -> Answer:
        return self._system(scaled(pixels, self._view), words=self._words)

    def score(self, truth: Answer, answer: Answer) -> tuple[float, float, float]:
        pairs = match_boxes(truth.boxes, answer.boxes)
        if not self._words:
            of = len(truth.boxes) + len(answer.boxes)
            return 2 * len(pairs), of, 2 * len(pairs) / of if of else 1.0
        assert truth.texts is not None
        assert answer.texts is not None
        read = sum(1 for text in truth.texts if text)
        same = sum(
            1
            for mine, theirs, _ in pairs
            if truth.texts[mine] and truth.texts[mine] == answer.texts[theirs]
        )
        return same, read, same / read if read else 1.0


@functools.cache
def system(name: str) -> Any:
    """A system by its name and view: called with pixels it answers, `score` compares two
    answers."""
    base, _, view = name.partition(":")
    if base in ("efficientnet", "mobilenet"):
        return Classifier(base, view)
    if base in ("text", "words"):
        return Text(view, words=base == "words")
    return {"yolox": Detector, "deeplab": Masks, "movenet": Joints}[base](view)


# --- what was scored before
# ---------------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


class Scores:
    """Scores by system, source and file, on disk: a run that adds a codec or a system pays for that
    alone."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._file.execute("create table if not exists scores (key text primary key, score text)")

    def find(self, name: str, source: str, result: str) -> list[float] | None:
        row = self._file.execute(
            "select score from scores where key = ?", (f"{name} {source} {result}",)
        ).fetchone()
        return None if row is None else [float(x) for x in json.loads(row[0])]

    def keep(self, name: str, source: str, result: str, score: tuple[float, float, float]) -> None:
        key = f"{name} {source} {result}"
        self._file.execute("insert or replace into scores values (?, ?)", (key, json.dumps(score)))
