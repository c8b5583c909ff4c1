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
from vizcomp.files.place import printable
from vizcomp.weights.sessions import open_network

NAME = "vizcomp-guide"
HINT = "make one with vizcomp train --kind guide"
LEAST_SCALE, MOST_SCALE = 0.25, 4.0  # of a file's factor on steps; what is measured is well within


class LearnedGuide:
    """Runs an exported guide on the CPU.

    Args:
        path: an .onnx file of `training.export.export_guide`.
        threads: that compute together; more than one by ONNX Runtime.

    Attributes:
        fingerprint: SHA-256 of the file, in hexadecimal.
        systems: whose looking it has learned, as the training was told.
        scale: factor on all steps under which a quality keeps what plain JPEG of that quality
            keeps, as the training measured it; 1 where it is not known.
        uncalibrated: why the factor is not known; "" where it is.

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
        self.scale, self.uncalibrated = _scale(path, metadata)

    @property
    def reading(self) -> str:
        """What it is, in one line."""
        steps = (
            f"factor on steps not known, {self.uncalibrated}"
            if self.uncalibrated
            else f"steps {self.scale:g} times as large"
        )
        return f"a guide to where {printable(self.systems) or 'a system'} looks; {steps}"

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
        return in_levels(logits, (self._least, self._sure))


def in_levels(
    logits: npt.NDArray[np.float32], levels: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Importance 0..1 of logits of any shape: 0 at the lower level, 1 at the upper one."""
    least, sure = levels
    return np.asarray(np.clip((logits - least) / (sure - least), 0, 1), np.float32)


def _scale(path: Path, metadata: dict[str, str]) -> tuple[float, str]:
    """The factor on steps that a file says, and why it says none.

    Raises:
        ModelError: it says one that no training measures.
    """
    said = metadata.get("scale")
    if said is None:
        why = metadata.get("uncalibrated", "it was made before guides were calibrated")
        return 1.0, printable(why[:200]) or "it does not say"
    try:
        scale = float(said)
    except ValueError:
        scale = math.nan
    if not LEAST_SCALE <= scale <= MOST_SCALE:
        raise ModelError(f"{path}: {said[:20]!r} is no factor on steps", HINT)
    return scale, ""
