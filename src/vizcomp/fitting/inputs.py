"""What systems make of a photo first, and how many pixels are therefore worth trying."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vizcomp.djpeg.settings import RESAMPLES
from vizcomp.vision.system import System

LARGER = 0.25  # share of the photos that have to be larger than a side for it to be tried
SHARES = (1.0, 4 / 3, 2.0)  # of the side that a system makes, sides that are tried
SIDES = (320, 448, 640, 1024)  # longer sides where no system says how large its input is


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How many pixels a result has.

    Attributes:
        max_side, short_side, resample: as of `DjpegSettings`; by default all pixels of the photo.
    """

    max_side: int | None = None
    short_side: int | None = None
    resample: str = "lanczos"

    def __str__(self) -> str:
        if self.short_side:
            return f"shorter side {self.short_side} {self.resample}"
        return f"longer side {self.max_side} {self.resample}" if self.max_side else "all pixels"


@dataclasses.dataclass(frozen=True)
class Input:
    """What a system makes of a photo first.

    Attributes:
        size: height and width.
        crops: it sees the middle of a photo that has another shape.
        resample: its filter, or "lanczos" where that is not known or not ours.
        seen: of what it sees where it crops, share of the photo's shorter side.
    """

    size: tuple[int, int]
    crops: bool = False
    resample: str = "lanczos"
    seen: float = 1.0

    @property
    def side(self) -> int:
        """The side of a photo that its own resize gives: the shorter one where it crops."""
        return round(max(self.size) / (self.seen if self.crops else 1.0))


def pixels_of(inputs: Sequence[Input], sides: Sequence[tuple[int, int]]) -> list[Pixels]:
    """How many pixels to try, all of them first; what would make hardly any photo smaller is left
    out.

    A photo that has just the size which a system's own resize gives, by the same filter, is to that
    system the photo itself.

    Args:
        inputs: of the systems that say how large theirs is.
        sides: width and height of some photos.
    """
    tried: list[Pixels] = []
    for one in inputs:
        for share in SHARES:
            side = round(one.side * share)
            which = "short_side" if one.crops else "max_side"
            tried.append(Pixels(**{which: side}, resample=one.resample))  # type: ignore[arg-type]
    if not inputs:
        tried = [Pixels(max_side=side) for side in SIDES]
    longer, shorter = (np.array([by(size) for size in sides]) for by in (max, min))
    found = [Pixels()]
    for pixels in dict.fromkeys(tried):
        larger = (
            longer > 1.1 * (pixels.max_side or 0)
            if pixels.max_side
            else shorter > 1.1 * (pixels.short_side or 0)
        )
        if not len(sides) or float(larger.mean()) >= LARGER:
            found.append(pixels)
    return found


def input_of(system: System) -> Input | None:
    """What a system makes of a photo first; None where it takes any size."""
    size = getattr(system, "input_size", None)
    if size is None:
        return Input((system.native, system.native)) if system.native else None
    resample = getattr(system, "resample", "")
    return Input(
        (size[0], size[1]),
        bool(getattr(system, "crops", False)),
        resample if resample in RESAMPLES else "lanczos",
        float(getattr(system, "seen", 1.0)),
    )


def centre_alone(inputs: Sequence[Input | None]) -> bool:
    """Whether all of some systems see the middle square of a photo, and nothing beside it."""
    return bool(inputs) and all(
        one is not None and one.crops and one.size[0] == one.size[1] for one in inputs
    )
