"""Runs a guide that `vizcomp train --kind guide` made: where one's own systems are likely to look,
in milliseconds.

Such a network has learned from where the systems looked on photos (`System.importance`); the
published form of this is AccMPEG (Du et al., "AccMPEG: Optimizing video encoding for accurate video
analytics", MLSys 2022). This file needs no torch.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg.text_regions import block_logits
from vizcomp.errors import ModelError
from vizcomp.weights.sessions import open_network

NAME = "vizcomp-guide"
HINT = "make one with vizcomp train --kind guide"


class LearnedGuide:
    """Runs an exported guide on the CPU.

    Args:
        path: an .onnx file of `training.export.export_guide`.
        threads: that compute together; more than one by ONNX Runtime.

    Attributes:
        fingerprint: SHA-256 of the file, in hexadecimal.
        systems: whose looking it has learned, as the training was told.

    Raises:
        ModelError: the file is missing, damaged, or not a network of this kind.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._path = path
        self._session, metadata, _, self.fingerprint, _ = open_network(
            path, "", NAME, what="guide", hint=HINT, threads=threads
        )
        self.systems = metadata.get("systems", "")
        try:
            self._least, self._sure = (
                float(word) for word in metadata.get("levels", "").split(",")
            )
        except ValueError as exc:
            raise ModelError(f"{path}: its levels cannot be read", HINT) from exc
        if not (
            math.isfinite(self._least) and math.isfinite(self._sure) and self._least < self._sure
        ):
            raise ModelError(f"{path}: its levels are no range", HINT)

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """How much each place matters: uint8 (H, W, 3) RGB or (H, W), upright, to float32 (h, w) in
        0..1 over the whole photo.

        0 below a level that 95% of the blocks in which the systems looked reached on photos, 1
        above one that 80% reached.

        Raises:
            ModelError: its answer is not finite.
        """
        logits = block_logits(self._session, image)
        if not np.isfinite(logits).all():
            raise ModelError(
                f"{self._path}: the network's answer is not finite",
                "its weights are damaged; train it again",
            )
        return np.asarray(
            np.clip((logits - self._least) / (self._sure - self._least), 0, 1), np.float32
        )
