"""What a vision system owes; helpers that all of them share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.errors import InputError
from vizcomp.vision.answers import (
    COUNTED,
    Answer,
    Array,
    Boxes,
    Classes,
    Embedding,
    Keypoints,
    Kind,
    Masks,
    Pixels,
    Quads,
    Text,
    compare,
)
from vizcomp.vision.boxes import corners_to_quads as corners_to_quads

HINT = (
    "use inception, watcher, inception-v3, text, text:read, torchvision:NAME, or a file: .onnx,"
    " .tflite, .pt, .pt2 or .safetensors"
)

BOX_MARGIN = 0.15  # of a box's shorter side, around it in an importance map, and 8 pixels at least

AROUND = 16  # pixels around a box that is to be found again

FALLOFF = 0.0375  # beyond that margin, of the image's longer side: 24 pixels of 640
PLACES = 8  # rows and columns of the places that are covered in turn
BAND = 0.02  # boxes so little below the least score that counts are told beside an answer
LEAST_SCORE = 0.5  # boxes below this confidence are no answer, where the model leaves that open


def surroundings(quads: Quads, height: int, width: int) -> Array:
    """`boxes_importance` of boxes that are larger by `AROUND` pixels and half their shorter side,
    all around."""
    corners = np.stack([quads.min(1), quads.max(1)], 1)  # (N, 2, 2)
    margin = AROUND + 0.5 * (corners[:, 1] - corners[:, 0]).min(1, keepdims=True)  # (N, 1)
    return boxes_importance(
        np.stack([corners[:, 0] - margin, corners[:, 1] + margin], 1), height, width
    )


@runtime_checkable
class System(Protocol):
    """What looks at images.

    Attributes:
        name: by which it was asked for.
        kind: one of `answers.Kind`: "classes", "boxes", "masks", "keypoints", "text" or
            "embedding".
        fingerprint: names the weights and the version, for a report; 12 hexadecimal digits, of
            options 6 more, or a version.
        classes: names of the classes; () where unknown or none.
        native: side of the images that it is made for, 0 for any.

    It may have an attribute `reading` too: one line that says how the model is read; `reading_of`
    does without.
    """

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    native: int

    @property
    def kind(self) -> Kind: ...

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        """The answers on uint8 (H, W, 3) RGB images of any sizes, in their order."""
        ...

    def importance(self, image: Pixels) -> Array:
        """Where the system looks: float32 (h, w) in 0..1 over the whole image, at any
        resolution."""
        ...


@runtime_checkable
class Resizing(Protocol):
    """A system that can be shown a photo as other programs resize it.

    Attributes:
        resize_filter: its own, one of `options.FILTERS`.
    """

    @property
    def resize_filter(self) -> str: ...

    def enlarges(self, height: int, width: int) -> bool:
        """Whether a side of a photo of this size has fewer pixels than the system looks at."""
        ...

    def answer_with(self, image: Pixels, resize_filter: str) -> Answer | None:
        """The answer under another filter; None where the photo is not resized."""
        ...


def reading_of(system: System) -> str:
    """How a system is read, in one line: kind, input, classes, fingerprint."""
    said = getattr(system, "reading", "")
    if isinstance(said, str) and said:
        return said
    side = f"input {system.native}x{system.native}" if system.native else "any input size"
    named = [f"{len(system.classes)} classes named"] if system.classes else []
    return "; ".join([system.kind, side, *named, f"version {system.fingerprint}"])


def file_fingerprint(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def fitted(image: Pixels, height: int, width: int) -> Pixels:
    """An image at the size a network wants: scaled until it covers it, then cut in its middle.
    uint8 (H, W, 3)."""
    if image.shape[:2] == (height, width):
        return image
    scale = max(height / image.shape[0], width / image.shape[1])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    scaled = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(scaled.crop((left, top, left + width, top + height)))


def boxes_importance(
    quads: npt.NDArray[np.float64],
    height: int,
    width: int,
    worth: npt.NDArray[np.float64] | None = None,
) -> Array:
    """1, or what the box is worth, inside each box and a margin around it, falling to 0 over
    `FALLOFF`: float32 (height, width).

    Quadrilaterals by their bounds. A detector looks at the surroundings of what it finds: with a
    hard edge in the place of the fall it found fewer boxes again at equal bytes.
    """
    importance = np.zeros((height, width), np.float32)
    fall = max(8.0, FALLOFF * max(height, width))
    for quad, most in zip(quads, np.ones(len(quads)) if worth is None else worth, strict=True):
        (left, top), (right, bottom) = quad.min(0), quad.max(0)
        margin = max(8.0, BOX_MARGIN * min(right - left, bottom - top))
        reach = margin + fall
        rows = np.arange(max(0, int(top - reach)), min(height, int(np.ceil(bottom + reach))))
        cols = np.arange(max(0, int(left - reach)), min(width, int(np.ceil(right + reach))))
        if not len(rows) or not len(cols):
            continue
        down = np.maximum(0, np.maximum(top - margin - rows, rows + 1 - bottom - margin))
        across = np.maximum(0, np.maximum(left - margin - cols, cols + 1 - right - margin))
        near = 1 - np.hypot(down[:, None], across[None]) / fall
        place = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
        importance[place] = np.maximum(importance[place], most * near.clip(0, 1))
    return importance


def softmax(logits: npt.NDArray[Any]) -> Array:
    shifted = logits.astype(np.float64) - logits.max()
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(), np.float32)


def checked(answer: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if not np.isfinite(answer).all():
        raise InputError(
            f"{name} answers with numbers that are not finite",
            "check the model and its normalisation",
        )
    return answer


def boxes_answer_importance(
    system: System,
    image: Pixels,
    worth: Callable[[Quads, int, int], npt.NDArray[np.float64]] | None = None,
) -> Array:
    """`boxes_importance` of an answer that has places: boxes, figures or lines of text."""
    answer = system.answers([image])[0]
    assert isinstance(answer, Boxes | Keypoints | Text)
    height, width = image.shape[:2]
    return boxes_importance(
        answer.quads, height, width, worth and worth(answer.quads, height, width)
    )


def answer_importance(system: System, image: Pixels) -> Array:
    """Boxes, figures, lines of text and masks with a margin; else how much the answer suffers when
    a place is covered (Zeiler and Fergus 2014)."""
    if system.kind in COUNTED:
        return boxes_answer_importance(system, image)
    if system.kind == "masks":
        answer = system.answers([image])[0]
        assert isinstance(answer, Masks)
        return masks_importance(answer.labels)
    height, width = image.shape[:2]
    down, across = (
        np.linspace(0, height, PLACES + 1).astype(int),
        np.linspace(0, width, PLACES + 1).astype(int),
    )
    grey = image.reshape(-1, 3).mean(0).astype(np.uint8)
    covered = []
    for r in range(PLACES):
        for c in range(PLACES):
            view = image.copy()
            view[down[r] : down[r + 1], across[c] : across[c + 1]] = grey
            covered.append(view)
    whole, *parts = system.answers([image, *covered])
    loss = np.array([_loss(whole, part) for part in parts])
    heat = np.maximum(loss, 0).reshape(PLACES, PLACES).astype(np.float32)
    largest = float(heat.max())
    return np.asarray(heat / np.float32(largest)) if largest > 1e-6 else np.ones((1, 1), np.float32)


def _loss(whole: Answer, part: Answer) -> float:
    if isinstance(whole, Classes) and isinstance(part, Classes):
        return float(whole.probabilities[whole.best] - part.probabilities[whole.best])
    assert isinstance(whole, Embedding)
    return 1 - compare(whole, part).score


def masks_importance(labels: npt.NDArray[np.int32]) -> Array:
    """1 on all that is not background and a margin around it, where it falls to 0: int32 (H, W) to
    float32 (h, w)."""
    height, width = labels.shape
    scale = max(1, max(height, width) // 160)  # the fall needs no more detail than a guide's blocks
    some = Image.fromarray((labels != 0).astype(np.float32))
    small = some.resize((max(1, width // scale), max(1, height // scale)), Image.Resampling.BOX)
    near = np.minimum(np.asarray(small), 1) > 0
    reach = max(1, round(2 * FALLOFF * max(near.shape)))
    heat = near.astype(np.float32)
    for step in range(1, reach + 1):
        padded = np.pad(near, 1)
        near = near | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        heat = np.maximum(heat, near * np.float32(1 - step / (reach + 1)))
    return np.asarray(heat, np.float32)
