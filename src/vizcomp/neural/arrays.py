"""Images as arrays for the networks and back, and tiles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vizcomp.graphs.codecs import CodecConfig
from vizcomp.photos.frame import rgb
from vizcomp.vzc import coding

Pixels = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def bit_limit(max_pixels: int, config: CodecConfig) -> int:
    """More bits than an image of `max_pixels` can have, long thin ones included."""
    return max(coding.MAX_BITS, sum(config.bits) * (max_pixels // config.block + 1))


def cut(image: Pixels, at: tuple[slice, slice], block: int) -> Pixels:
    """A part of an image, given in positions, as RGB; what is outside repeats the image's edge."""
    height, width = image.shape[:2]
    bottom, right = at[0].stop * block, at[1].stop * block
    part = image[at[0].start * block : min(bottom, height), at[1].start * block : min(right, width)]
    return np.pad(
        rgb(part), ((0, max(0, bottom - height)), (0, max(0, right - width)), (0, 0)), mode="edge"
    )


def tiles(
    rows: int, columns: int, side: int, reach: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Tiles in positions: the inside of each, and the inside with its overlap."""

    def cuts(length: int) -> list[tuple[slice, slice]]:
        return [
            (
                slice(a, min(a + side, length)),
                slice(max(0, a - reach), min(a + side + reach, length)),
            )
            for a in range(0, length, side)
        ]

    for y, wide_y in cuts(rows):
        for x, wide_x in cuts(columns):
            yield (y, x), (wide_y, wide_x)


def to_planes(images: Pixels) -> Floats:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in -1..1, as the networks have it."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
    planes /= np.float32(127.5)
    planes -= np.float32(1)
    return planes


def to_pixels(images: Floats) -> Pixels:
    """What a decoder writes, in whole levels: float32 (N, 3, H, W), about -1..1, to uint8 (N, H, W,
    3)."""
    levels = np.clip(images, -1, 1)
    levels += np.float32(1)
    levels *= np.float32(127.5)
    return np.ascontiguousarray(np.rint(levels, out=levels).astype(np.uint8).transpose(0, 2, 3, 1))


def to_grey(image: Pixels) -> Pixels:
    grey: Pixels = np.rint(image.mean(2)).astype(np.uint8)
    return grey
