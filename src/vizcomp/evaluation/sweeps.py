"""What the evaluation needs of a codec, and what a codec gives it at one setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Some images at one setting of a codec.

    Attributes:
        setting: as in "quality 30".
        sizes: bytes of each file as it is on disk; None where the image could not be coded.
        payloads: the same without headers and tables, where they are separate.
        results: decoded from the files: uint8 (H, W, 3) each, or None.
        encode_seconds, decode_seconds: for all of them together.
        errors: (index, what went wrong).
        series: name of the curve, where it is not the codec's own name.
    """

    setting: str
    sizes: list[float | None]
    payloads: list[float | None]
    results: list[Pixels | None]
    encode_seconds: float
    decode_seconds: float
    errors: tuple[tuple[int, str], ...] = ()
    series: str = ""


class Codec(Protocol):
    """What `eval` needs of a codec.

    Attributes:
        name: of its curve; `ours` is False for baselines.
        version: of the library, or of vizcomp; `fingerprint` names weights, "" without any.
        native: side of the images that it is for, 0 for any.
        series: all the curves that it gives.
    """

    name: str
    ours: bool
    version: str
    fingerprint: str
    native: int
    series: tuple[str, ...]

    def sweep(
        self, sources: Sequence[Pixels], total: int, originals: Sequence[Path | None] = ()
    ) -> Iterator[Sweep]:
        """Images through all settings.

        Args:
            sources: uint8 (H, W, 3) each.
            total: how many images the whole evaluation has: what is stored once for all of them, as
                in a pack, is shared out.
            originals: for each image the JPEG file that it is, pixel for pixel, or None: d-JPEG
                uses its coefficients.
        """
        ...
