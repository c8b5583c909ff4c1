"""Scene text found, or found and read, by RapidOCR as a vision system."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import MissingExtraError
from vizcomp.vision.answers import Answer, Array, Boxes, Kind, Pixels, Quads, Text
from vizcomp.vision.system import boxes_answer_importance

# RapidOCR's detector sees a shorter side of at least, a longer one of at most so much
DETECTOR_LEAST, DETECTOR_MOST = 736, 2000
READS = "text:read"  # by this name it reads
LEAST_READ = 0.5  # lines below this certainty are no answer; as RapidOCR itself has it
# pixels of its input: lettering up to this height keeps all that the quality promises
FULL_WORTH_HEIGHT = 37.0
# what it is worth less, for each doubling of that height, and at most
LOSS_PER_DOUBLING, MAX_LOSS = 0.15, 0.6


class TextSystem:
    """Scene text found by RapidOCR with the models inside its wheel, one thread. Needs the extra
    `text`.

    Args:
        reads: read each line too; lines that the recogniser is less sure of than `LEAST_READ` are
            none.
    """

    name = "text"
    classes: tuple[str, ...] = ()
    native = 0

    def __init__(self, *, reads: bool = False) -> None:
        self.kind: Kind = "text" if reads else "boxes"
        self.name = READS if reads else "text"
        try:
            import cv2
            from rapidocr import RapidOCR
        except ImportError as exc:
            raise MissingExtraError("rapidocr", "text") from exc
        cv2.setNumThreads(1)
        self.fingerprint = f"rapidocr {importlib.metadata.version('rapidocr')}"
        with silent():
            self._engine = RapidOCR(
                params={
                    "Global.log_level": "critical",
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        """As `System.answers`."""
        return [
            self._read(image) if self.kind == "text" else self._found(image) for image in images
        ]

    def _found(self, image: Pixels) -> Boxes:
        result = self._engine(
            np.ascontiguousarray(image[:, :, ::-1]), use_det=True, use_cls=False, use_rec=False
        )
        return Boxes(_quads(result.boxes), (), (image.shape[1], image.shape[0]))

    def _read(self, image: Pixels) -> Text:
        with silent():  # it warns where it finds nothing
            result = self._engine(
                np.ascontiguousarray(image[:, :, ::-1]),
                use_det=True,
                use_cls=False,
                use_rec=True,
                text_score=LEAST_READ,
            )
        boxes, lines, sure = (getattr(result, name, None) for name in ("boxes", "txts", "scores"))
        if boxes is None or lines is None or sure is None:  # nothing found, or nothing read
            return Text((), _quads(None), (image.shape[1], image.shape[0]), np.zeros(0, np.float32))
        quads, scores = _quads(boxes), np.asarray(sure, np.float32)
        some = [i for i, line in enumerate(lines) if line.strip()]
        return Text(
            tuple(lines[i].strip() for i in some),
            quads[some],
            (image.shape[1], image.shape[0]),
            scores[some],
        )

    @property
    def reading(self) -> str:
        """How it answers, in one line."""
        if self.kind == "boxes":
            return f"boxes; any input size; lettering found, not read; version {self.fingerprint}"
        return (
            f"text; any input size; lines found and read from score {LEAST_READ:g}; version"
            f" {self.fingerprint}"
        )

    def importance(self, image: Pixels) -> Array:
        """As `System.importance`."""
        return boxes_answer_importance(self, image, lettering_worth)


def _quads(boxes: Any) -> Quads:
    return np.zeros((0, 4, 2)) if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4, 2)


def lettering_worth(quads: Quads, height: int, width: int) -> npt.NDArray[np.float64]:
    """What boxes (N, 4, 2) of lettering in an image of this size are worth to RapidOCR's detector:
    (N,) in 0..1.

    Large lettering is worth less than small: it is found by coarser detail
    (docs/decisions/0005-system-guide.md).
    """
    scale = min(1.0, DETECTOR_MOST / max(height, width))
    scale *= max(1.0, DETECTOR_LEAST / (scale * min(height, width)))
    # of each box, in pixels of the detector's input
    tall = scale * (quads.max(1) - quads.min(1)).min(1)
    return np.asarray(
        1
        - np.minimum(LOSS_PER_DOUBLING * np.log2(np.maximum(tall / FULL_WORTH_HEIGHT, 1)), MAX_LOSS)
    )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
