"""Where a place of a photo is on the photo's result: for labels that go with it.

    labels' own frame ── turned upright, where the result is ──> scaled to the result's size

Labels are made on a photo as it is displayed, or on its stored pixels, with the EXIF orientation
ignored. The size that they name tells the two apart where it can; where it cannot, they are taken
as of the displayed photo.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.photos.frame import upright

Size = tuple[int, int]  # width, height
DIGITS = 3  # of a pixel, in coordinates that are not whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A photo and its result.

    Attributes:
        name: of the photo's file.
        output: name of the result's file.
        size: width and height of the photo as stored.
        orientation: of the photo's EXIF block, 1..8.
        output_size: width and height of the result as stored.
        turned: the result is stored upright, and has no orientation.
    """

    name: str
    output: str
    size: Size
    orientation: int
    output_size: Size
    turned: bool

    @property
    def shown(self) -> Size:
        """Width and height of the photo as displayed."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    def move(self, declared: Size | None) -> Move:
        """How places move.

        Args:
            declared: width and height of the photo as the labels say; None where they do not.

        Raises:
            ValueError: they are labels of a photo of another size.
        """
        if declared is None or declared == self.shown:
            swapped = self.orientation >= 5 and not self.turned
            return Move(self.shown, self.output_size[::-1] if swapped else self.output_size)
        if declared == self.size:
            return Move(self.size, self.output_size, self.orientation if self.turned else 1)
        (width, height), (wide, high) = declared, self.size
        raise ValueError(
            f"they are of a photo of {width} x {height} pixels, and this one has {wide} x {high}"
        )


@dataclasses.dataclass(frozen=True)
class Move:
    """From places on labels' own frame to those on a result.

    Attributes:
        size: width and height of the labels' frame.
        wanted: the same of the result.
        orientation: by which the frame is turned first.
    """

    size: Size
    wanted: Size
    orientation: int = 1

    @property
    def moves(self) -> bool:
        """Whether anything moves at all."""
        return self.size != self.wanted or self.orientation != 1

    @property
    def factors(self) -> tuple[float, float]:
        """Of x and y, once upright."""
        width, height = self.size[::-1] if self.orientation >= 5 else self.size
        return self.wanted[0] / width, self.wanted[1] / height

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A point on the result; as `photos.frame.upright` turns pixels."""
        width, height = self.size
        if self.orientation >= 5:
            x, y, width, height = y, x, height, width
        if self.orientation in (3, 4, 7, 8):
            y = height - y
        if self.orientation in (2, 3, 6, 7):
            x = width - x
        across, down = self.factors
        return x * across, y * down

    def box(
        self, left: float, top: float, right: float, bottom: float
    ) -> tuple[float, float, float, float]:
        """A box by its edges; left and top are the lesser ones again."""
        (x0, y0), (x1, y1) = self.point(left, top), self.point(right, bottom)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)

    def mask(self, mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A mask, (height, width) of the frame, on the result: each pixel from the nearest one."""
        straight = upright(mask, self.orientation)
        wanted = self.wanted[::-1]
        rows, columns = (
            ((np.arange(count) + 0.5) * have / count).astype(int)
            for count, have in zip(wanted, straight.shape, strict=True)
        )
        return np.ascontiguousarray(straight[rows[:, None], columns])


def rounded(value: float) -> float:
    """A coordinate as it is written."""
    return round(value, DIGITS)
