"""Runs the small network that tells which 8x8 blocks of a photo look like lettering.

The network itself is in `text_regions`; this file needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.photos.frame import pad_to_stride, rgb, scale_photo
from vizcomp.weights.sessions import open_network

NAME = "vizcomp-text-regions"
BLOCK = 8
LONG_SIDE = 1280
"""Larger photos are scaled to this long side; lettering that is lost by it is not looked for."""


class TextRegions:
    """Runs an exported network on the CPU.

    Args:
        path: an .onnx file of `training.export.export_text_regions`; None for the bundled one.
        threads: that compute together; more than one by ONNX Runtime.

    Attributes:
        fingerprint: SHA-256 of the file, in hexadecimal.

    Raises:
        ModelError: the file is missing, damaged, or not a network of this kind.
    """

    def __init__(self, path: Path | None = None, *, threads: int = 1) -> None:
        hint = "use the bundled network, or a model.onnx that recipes/text_regions.py wrote"
        self._session, _, _, self.fingerprint, _ = open_network(
            path,
            "text_regions.onnx",
            NAME,
            what="network for text regions",
            hint=hint,
            threads=threads,
        )

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """How much each place looks like lettering.

        Args:
            image: uint8 (H, W, 3) RGB or (H, W), any size.

        Returns:
            float32 (h, w) logits, one value for each 8x8 block of the photo (scaled to `LONG_SIDE`
            where it is larger); they cover the photo and nothing more.
        """
        return block_logits(self._session, image)


def block_logits(session: Any, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A network's logit for each 8x8 block of a photo, uint8 (H, W, 3) or (H, W): float32 (h, w),
    as `TextRegions` has them."""
    if max(image.shape[:2]) > LONG_SIDE:
        image = scale_photo(image, LONG_SIDE)
    image = rgb(image)
    height, width = image.shape[:2]
    padded = np.ascontiguousarray(pad_to_stride(image))
    logits = session.run(None, {"image": padded[None]})[0][0]
    return np.asarray(logits[: -(-height // BLOCK), : -(-width // BLOCK)], np.float32)
