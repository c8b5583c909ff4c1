"""A JPEG as its quantised DCT coefficients, and a picture as real-valued ones.

    bytes ── read_jpeg ──> JpegImage ── consume ──┐
    pixels ── from_pixels ────────────────────────> RealImage ── quantise ──> JpegImage ──
    write_jpeg ──> bytes

Markers are read and written in this package; entropy-coded data and the loops over blocks are in
`vizcomp._native`. All input is hostile: sizes are checked before memory is taken, and every error
of the data is a `FormatError`.
Why this is our own code: docs/decisions/0001-jpeg-coefficients.md.

A block holds 64 values in natural order (row by row, not zigzag). A component's blocks are padded
to whole MCUs, as in the stream. The blocks that hold samples of the picture are the first
`real_rows` x `real_cols`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Colour = Literal["grey", "ycbcr", "rgb", "cmyk", "ycck"]
Segment = tuple[int, bytes]

ZIGZAG = np.array(
    [
        *(0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48),
        *(41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23),
        *(30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63),
    ]
)
"""Natural index of each zigzag position (T.81, figure 5)."""

# Block rows worked on at a time; even, so that a band of padded rows holds a real one to mirror.
BAND = 32


@dataclass
class Component:
    """One component's quantised coefficients.

    Attributes:
        id: identifier in the stream, 0..255.
        h, v: sampling factors, 1..4.
        table: key of its quantisation table in `JpegImage.tables`.
        coefficients: int16 (block_rows, block_cols, 64), natural order.
        real_rows, real_cols: blocks that hold samples; set by the image of the component.
    """

    id: int
    h: int
    v: int
    table: int
    coefficients: npt.NDArray[np.int16]
    real_rows: int = 0
    real_cols: int = 0


@dataclass
class JpegImage:
    """A JPEG as its integers.

    Attributes:
        width, height: of the picture, 1..65535.
        components: 1, 3 or 4 of them.
        tables: quantisation tables, uint16 (64,) in natural order, by key.
        colour: what the components mean.
        segments: APPn and COM segments in order: (marker's low byte, payload).
        progressive: how the source was coded; `write_jpeg` has its own switch.
        restart_interval: of the source, in MCUs; 0 = none. It is not written.
        notices: what a user should know about how the file was read.
    """

    width: int
    height: int
    components: list[Component]
    tables: dict[int, npt.NDArray[np.uint16]]
    colour: Colour
    segments: list[Segment] = field(default_factory=list)
    progressive: bool = False
    restart_interval: int = 0
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        set_real_sizes(self.width, self.height, self.components)


@dataclass
class RealComponent:
    """One component's real-valued coefficients: as `Component`, but for `values`.

    Attributes:
        values: float32 (block_rows, block_cols, 64), or int16 to be multiplied by `unit`: half the
            memory.
        unit: float32 (64,) where `values` are integers, else None.
    """

    id: int
    h: int
    v: int
    table: int
    values: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    real_rows: int = 0
    real_cols: int = 0
    unit: npt.NDArray[np.float32] | None = None

    def dc(self) -> npt.NDArray[np.float32]:
        """The real DC of each block: float32 (block_rows, block_cols)."""
        dc = self.values[:, :, 0]
        return np.asarray(dc, np.float32) if self.unit is None else np.multiply(dc, self.unit[0])

    def ac_norm(self) -> npt.NDArray[np.float32]:
        """Root of the summed squared real AC of each block: float32 (block_rows, block_cols)."""
        result = np.empty(self.values.shape[:2], np.float32)
        for top in range(0, len(result), BAND):
            ac = real_values(self.values[top : top + BAND], self.unit)[:, :, 1:]
            np.sqrt(np.einsum("rck,rck->rc", ac, ac), out=result[top : top + BAND])
        return result


@dataclass
class RealImage:
    """A picture as real-valued DCT coefficients.

    They are scaled as in JPEG: a flat block of value v has the DC 8 (v - 128).

    Attributes: as of `JpegImage`.
    """

    width: int
    height: int
    components: list[RealComponent]
    colour: Colour
    segments: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        set_real_sizes(self.width, self.height, self.components)


def set_real_sizes(
    width: int, height: int, components: Sequence[Component] | Sequence[RealComponent]
) -> None:
    """Set `real_rows` and `real_cols` of all components of a picture (T.81, A.1.1)."""
    h_max, v_max = (
        max((c.h for c in components), default=1),
        max((c.v for c in components), default=1),
    )
    for c in components:
        c.real_rows = ceil_div(ceil_div(height * c.v, v_max), 8)
        c.real_cols = ceil_div(ceil_div(width * c.h, h_max), 8)


def real_values(
    blocks: npt.NDArray[np.int16] | npt.NDArray[np.float32], unit: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """Blocks times `unit`, as float32; None is 1."""
    return np.asarray(blocks, np.float32) if unit is None else np.multiply(blocks, unit)


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
