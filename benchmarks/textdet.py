"""What a text system answers on an image: RapidOCR's boxes and readings, one thread, kept in a
cache by the pixels.

Needs the extra `bench` (rapidocr 3 and OpenCV). The detector, the direction classifier and the
recogniser are the ones inside the rapidocr wheel; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

READ_SCORE = 0.5  # readings below this confidence count as not read: RapidOCR's own default


@dataclasses.dataclass(frozen=True)
class Answer:
    """Boxes of text on one image.

    Attributes:
        boxes: float64 (N, 4, 2), corners x, y in pixels.
        texts: what is read in each box ("" where nothing is read with confidence 0.5); None if
            reading was not asked for.
    """

    boxes: npt.NDArray[np.float64]
    texts: tuple[str, ...] | None


def default_cache() -> Path:
    """The folder of answers: below $VIZCOMP_CACHE if set, else below the user's cache folder."""
    import platformdirs

    root = os.environ.get("VIZCOMP_CACHE")
    return (Path(root) if root else platformdirs.user_cache_path("vizcomp")) / "benchmarks" / "text"


class TextSystem:
    """RapidOCR behind a cache. Equal pixels are looked at once, whatever file they came from.

    Args:
        cache: folder of the answers; made when the first is written.
    """

    def __init__(self, cache: Path | None = None) -> None:
        versions = "-".join(
            importlib.metadata.version(name) for name in ("rapidocr", "onnxruntime")
        )
        self._folder = (cache or default_cache()) / f"rapidocr-{versions}"
        self._engine: Any = None
        self.looked = 0

    def __call__(self, pixels: npt.NDArray[np.uint8], *, words: bool = False) -> Answer:
        """The system's answer on an image.

        Args:
            pixels: uint8 (H, W, 3), RGB.
            words: read the boxes as well; about half as long again as finding them.
        """
        key = hashlib.sha256(
            repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
        ).hexdigest()
        path = self._folder / key[:2] / f"{key}.json"
        boxes: npt.NDArray[np.float64] | None = None
        if path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            boxes = np.array(stored["boxes"], dtype=np.float64).reshape(-1, 4, 2)
            if stored["texts"] is not None or not words:
                return Answer(boxes, None if stored["texts"] is None else tuple(stored["texts"]))
        bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        if boxes is None:
            boxes = self._find(bgr)
        answer = Answer(boxes, self._read(bgr, boxes) if words else None)
        self._store(path, answer)
        return answer

    def _open(self) -> Any:
        if self._engine is None:
            import cv2
            from rapidocr import RapidOCR

            cv2.setNumThreads(1)
            self._engine = RapidOCR(
                params={
                    "Global.log_level": "critical",
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )
        return self._engine

    def _find(self, bgr: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        self.looked += 1
        result = self._open()(bgr, use_det=True, use_cls=False, use_rec=False)
        if result.boxes is None:
            return np.zeros((0, 4, 2))
        return np.asarray(result.boxes, dtype=np.float64).reshape(-1, 4, 2)

    def _read(self, bgr: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float64]) -> tuple[str, ...]:
        """Texts of boxes that are found already: RapidOCR's own later steps, without finding the
        boxes again."""
        if not len(boxes):
            return ()
        engine = self._open()
        crops = engine.crop_text_regions(bgr, boxes.astype(np.float32))
        upright, _ = engine.cls_and_rotate(crops)
        read = engine.recognize_txt(upright)
        return tuple(
            text.strip() if score >= READ_SCORE else ""
            for text, score in zip(read.txts, read.scores, strict=True)
        )

    @staticmethod
    def _store(path: Path, answer: Answer) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False
        ) as file:
            json.dump({"boxes": answer.boxes.tolist(), "texts": answer.texts}, file)
        os.replace(file.name, path)
