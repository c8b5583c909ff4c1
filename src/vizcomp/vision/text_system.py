"""Scene text found by RapidOCR as a vision system."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from vizcomp.errors import MissingExtraError
from vizcomp.vision.answers import Answer, Array, Boxes, Pixels, Quads
from vizcomp.vision.system import boxes_answer_importance

DETECTOR_LEAST, DETECTOR_MOST = 736, 2000  # RapidOCR's detector sees a shorter side of at least, a longer one of at most so much
FULL_WORTH_HEIGHT = 37.0  # pixels of its input: lettering up to this height keeps all that the quality promises
LOSS_PER_DOUBLING, MAX_LOSS = 0.15, 0.6  # what it is worth less, for each doubling of that height, and at most


class TextSystem:
    """Scene text found by RapidOCR with the models inside its wheel, one thread. Needs the extra `text`."""

    name = "text"
    kind: Literal["classes", "boxes", "masks", "embedding"] = "boxes"
    classes: tuple[str, ...] = ()
    native = 0

    def __init__(self) -> None:
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
        found: list[Answer] = []
        for image in images:
            result = self._engine(np.ascontiguousarray(image[:, :, ::-1]), use_det=True, use_cls=False, use_rec=False)
            quads = np.zeros((0, 4, 2)) if result.boxes is None else np.asarray(result.boxes, np.float64).reshape(-1, 4, 2)
            found.append(Boxes(quads, (), (image.shape[1], image.shape[0])))
        return found

    def importance(self, image: Pixels) -> Array:
        return boxes_answer_importance(self, image, lettering_worth)


def lettering_worth(quads: Quads, height: int, width: int) -> npt.NDArray[np.float64]:
    """What boxes (N, 4, 2) of lettering in an image of this size are worth to RapidOCR's detector: (N,) in 0..1.

    Large lettering is worth less than small: it is found by coarser detail (docs/decisions/0005-system-guide.md).
    """
    scale = min(1.0, DETECTOR_MOST / max(height, width))
    scale *= max(1.0, DETECTOR_LEAST / (scale * min(height, width)))
    tall = scale * (quads.max(1) - quads.min(1)).min(1)  # of each box, in pixels of the detector's input
    return np.asarray(1 - np.minimum(LOSS_PER_DOUBLING * np.log2(np.maximum(tall / FULL_WORTH_HEIGHT, 1)), MAX_LOSS))


@contextlib.contextmanager
def silent() -> Iterator[None]:
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
