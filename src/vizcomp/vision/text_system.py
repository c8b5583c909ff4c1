"""Scene text found, or found and read, by RapidOCR as a vision system."""

from __future__ import annotations

import contextlib
import importlib.metadata
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import MissingExtraError
from vizcomp.vision.answers import Answer, Array, Boxes, Kind, Pixels, Quads, Text
from vizcomp.vision.named_options import (
    Allowed,
    Range,
    read_options,
    said,
    split_options,
    with_options,
)
from vizcomp.vision.scale import rescaled
from vizcomp.vision.system import BAND, boxes_answer_importance
from vizcomp.vision.views import OPENCV, Fit, view_of

# RapidOCR's detector sees a shorter side of at least, a longer one of at most so much
DETECTOR_LEAST, DETECTOR_MOST = 736, 2000
READS = "text:read"  # by this name it reads
LEAST_BOX = 0.5  # certainty from which a box is one; as RapidOCR itself has it
LEAST_READ = 0.5  # lines below this certainty are no answer; as RapidOCR itself has it
# pixels of its input: lettering up to this height keeps all that the quality promises
FULL_WORTH_HEIGHT = 37.0
# what it is worth less, for each doubling of that height, and at most
LOSS_PER_DOUBLING, MAX_LOSS = 0.15, 0.6


# of RapidOCR
_PARAMETERS = {
    "threshold": "Det.box_thresh",
    "side": "Det.limit_side_len",
    "max_side": "Global.max_side_len",
}
_INTERPOLATIONS = {
    "opencv": "INTER_LINEAR",
    "opencv-lanczos": "INTER_LANCZOS4",
    "opencv-area": "INTER_AREA",
}
# Options in the name: certainty of a box, the sides that its detector sees, certainty of a line.
OPTIONS: dict[str, Allowed] = {
    "threshold": Range(0.05, 1),
    "side": Range(32, 4000, whole=True),
    "max_side": Range(32, 8000, whole=True),
}
OPTIONS_OF_READING: dict[str, Allowed] = {**OPTIONS, "least": Range(0, 1)}


def text_system(spec: str) -> TextSystem:
    """`text` or `text:read`, perhaps with options, as text:threshold=0.6.

    Raises:
        ModelError, SettingsError: no such system, or no such option.
        MissingExtraError: RapidOCR is not installed.
    """
    name, text = split_options(spec, ("text", READS))
    options = read_options(spec, text, OPTIONS_OF_READING if name == READS else OPTIONS)
    return TextSystem(reads=name == READS, options=options, name=spec)


class TextSystem:
    """Scene text found by RapidOCR with the models inside its wheel, one thread. Needs the extra
    `text`.

    Args:
        reads: read each line too; lines that the recogniser is less sure of than `least` are none.
        options: of `OPTIONS_OF_READING`, as `named_options.read_options` gives them.
        name: as it was typed; "": its usual one.
    """

    classes: tuple[str, ...] = ()
    native = 0

    def __init__(
        self,
        *,
        reads: bool = False,
        options: Mapping[str, float | str] = types.MappingProxyType({}),
        name: str = "",
    ) -> None:
        self.kind: Kind = "text" if reads else "boxes"
        self.name = name or (READS if reads else "text")
        self._options = dict(options)
        self._least = float(options.get("least", LEAST_READ))
        given = {_PARAMETERS[key]: value for key, value in options.items() if key in _PARAMETERS}
        self._threshold = float(options.get("threshold", LEAST_BOX))
        if not reads:  # boxes in doubt are wanted too
            given[_PARAMETERS["threshold"]] = self._threshold - BAND
        self._side = float(options.get("side", DETECTOR_LEAST))
        try:
            import cv2
            from rapidocr import RapidOCR
        except ImportError as exc:
            raise MissingExtraError("rapidocr", "text") from exc
        cv2.setNumThreads(1)
        self.fingerprint = with_options(
            f"rapidocr {importlib.metadata.version('rapidocr')}", options
        )
        with silent():
            self._engine = RapidOCR(
                params={
                    "Global.log_level": "critical",
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                    **given,
                }
            )

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        """As `System.answers`."""
        return [
            self._read(image) if self.kind == "text" else self._found(image) for image in images
        ]

    @property
    def resize_filter(self) -> str:
        """By which RapidOCR brings a photo to its detector's size: one of `options.FILTERS`."""
        return "opencv"

    def enlarges(self, height: int, width: int) -> bool:
        """As `system.Resizing.enlarges`."""
        seen = _seen_size(height, width, self._side)
        return seen[0] > height or seen[1] > width

    def answer_with(self, image: Pixels, resize_filter: str) -> Answer:
        """The answer where another program brings the photo to the detector's size, by one of
        `options.FILTERS`."""
        size = _seen_size(image.shape[0], image.shape[1], self._side)
        view = _resized(image, size, resize_filter)
        return rescaled(self.answers([view])[0], size, (image.shape[0], image.shape[1]))

    def _found(self, image: Pixels) -> Boxes:
        result = self._engine(
            np.ascontiguousarray(image[:, :, ::-1]), use_det=True, use_cls=False, use_rec=False
        )
        quads, size = _quads(result.boxes), (image.shape[1], image.shape[0])
        scores = np.asarray([] if result.scores is None else result.scores, np.float32)
        sure = scores >= self._threshold
        below = Boxes(quads[~sure], (), size, scores[~sure], self._threshold)
        return Boxes(quads[sure], (), size, scores[sure], self._threshold, below)

    def _read(self, image: Pixels) -> Text:
        with silent():  # it warns where it finds nothing
            result = self._engine(
                np.ascontiguousarray(image[:, :, ::-1]),
                use_det=True,
                use_cls=False,
                use_rec=True,
                text_score=self._least,
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
            what = "boxes; any input size; lettering found, not read"
            return "; ".join(
                filter(None, [what, said(self._options), f"version {self.fingerprint}"])
            )
        what = f"text; any input size; lines found and read from score {self._least:g}"
        more = {key: value for key, value in self._options.items() if key != "least"}
        return "; ".join(filter(None, [what, said(more), f"version {self.fingerprint}"]))

    def importance(self, image: Pixels) -> Array:
        """As `System.importance`."""
        return boxes_answer_importance(self, image, lettering_worth)


def _quads(boxes: Any) -> Quads:
    return np.zeros((0, 4, 2)) if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4, 2)


def _seen_size(height: int, width: int, least: float) -> tuple[int, int]:
    """Height and width at which the detector looks, in multiples of 32, as RapidOCR's own
    preparation rounds them."""
    scale = max(1.0, least / min(height, width))
    rows, columns = (max(32, 32 * round(scale * side / 32)) for side in (height, width))
    return rows, columns


def _resized(image: Pixels, size: tuple[int, int], resize_filter: str) -> Pixels:
    """A photo at a size; by OpenCV itself where the filter is one of its own: a grey level of
    rounding moves a box's score by as much as the margins of verdicts."""
    if resize_filter not in OPENCV:
        return view_of(image, size, Fit("stretch", resize_filter)).pixels
    import cv2

    kind = getattr(cv2, _INTERPOLATIONS[resize_filter])
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=kind), np.uint8)


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
