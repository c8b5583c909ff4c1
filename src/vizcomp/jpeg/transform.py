"""Pixels to DCT coefficients, and a JPEG's integers to real values with chroma as 4:2:0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.errors import SettingsError
from vizcomp.jpeg.image import (
    Component,
    JpegImage,
    RealComponent,
    RealImage,
    ceil_div,
)

_SUBSAMPLING = {"4:2:0": (2, 2), "4:2:2": (2, 1), "4:4:4": (1, 1)}


def from_pixels(
    pixels: npt.NDArray[np.uint8], *, subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0"
) -> RealImage:
    """The DCT coefficients of a picture, before any quantisation.

    YCbCr as JFIF has it (ITU-T T.871: BT.601, full range), not rounded; chroma by the mean of each
    group of pixels; the last row and column repeated to whole MCUs.

    Args:
        pixels: uint8 (H, W, 3) RGB, or (H, W) grey; sides of 1..65535.
        subsampling: of chroma; ignored for grey.

    Raises:
        SettingsError: another shape, dtype or subsampling.
    """
    if pixels.dtype != np.uint8 or not (
        pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    ):
        raise SettingsError(
            f"pixels are {pixels.dtype} {pixels.shape}", "give uint8 (H, W, 3) or (H, W)"
        )
    if subsampling not in _SUBSAMPLING:
        raise SettingsError(f"unknown subsampling {subsampling!r}", "use 4:2:0, 4:2:2 or 4:4:4")
    height, width = pixels.shape[:2]
    if not (1 <= height <= 65535 and 1 <= width <= 65535):
        raise SettingsError(
            f"{width} x {height} cannot be a JPEG", "sides go from 1 to 65535 pixels"
        )
    channels = 1 if pixels.ndim == 2 else 3
    hx, vy = (1, 1) if channels == 1 else _SUBSAMPLING[subsampling]
    rows, cols = ceil_div(height, 8 * vy), ceil_div(width, 8 * hx)
    planes = [np.empty((rows * vy, cols * hx, 64), np.float32)]
    planes += [np.empty((rows, cols, 64), np.float32) for _ in range(channels - 1)]
    status = _native.forward(
        np.ascontiguousarray(pixels), height, width, channels, hx, vy, tuple(planes)
    )
    if status:
        raise AssertionError(f"forward: status {status}")
    components = [
        RealComponent(i + 1, *((hx, vy) if i == 0 else (1, 1)), min(i, 1), plane)
        for i, plane in enumerate(planes)
    ]
    return RealImage(width, height, components, "grey" if channels == 1 else "ycbcr")


def consume(jpeg: JpegImage, *, halve: bool = True) -> tuple[RealImage, bool]:
    """The real values of a JPEG's integers: coefficient times step. Finer chroma becomes 4:2:0,
    unless it is kept.

    Finer chroma is that of 4:4:4, 4:2:2 and 4:4:0. The mean of neighbouring pixels is a linear map,
    so it is one matrix on the 16 coefficients of two blocks.
    Little memory is taken: integers stay integers, or are dropped once read.

    Args:
        jpeg: not to be used afterwards: its components are left without coefficients.
        halve: make finer chroma 4:2:0.

    Returns:
        The picture, and whether its chroma was halved.
    """
    _reduce_sampling(jpeg.components)
    halved = halve and _can_halve(jpeg.components)
    first = jpeg.components[0]
    rows, cols = ceil_div(jpeg.height, 16), ceil_div(jpeg.width, 16)
    by_index: dict[int, RealComponent] = {}
    # Chroma first: once halved it is small, so that luma has the room.
    for index in (*range(1, len(jpeg.components)), 0):
        c = jpeg.components[index]
        steps = jpeg.tables[c.table].astype(np.float32)
        if not halved:
            by_index[index] = RealComponent(c.id, c.h, c.v, c.table, c.coefficients, unit=steps)
        elif index == 0 and c.coefficients.shape[:2] == (2 * rows, 2 * cols):
            by_index[0] = RealComponent(c.id, 2, 2, c.table, c.coefficients, unit=steps)
        elif index == 0:
            by_index[0] = RealComponent(
                c.id, 2, 2, c.table, _means(c.coefficients, steps, 2 * rows, 2 * cols, 1, 1)
            )
        else:
            values = _means(c.coefficients, steps, rows, cols, 3 - first.v, 3 - first.h)
            by_index[index] = RealComponent(c.id, 1, 1, c.table, values)
        c.coefficients = np.empty((0, 0, 64), np.int16)
    components = [by_index[index] for index in range(len(by_index))]
    return RealImage(jpeg.width, jpeg.height, components, jpeg.colour, list(jpeg.segments)), halved


def _reduce_sampling(components: Sequence[Component]) -> None:
    """Sampling factors without a common divisor: 2x1 three times is 4:4:4, as 1x1 is."""
    h, v = math.gcd(*(c.h for c in components)), math.gcd(*(c.v for c in components))
    for c in components:
        c.h, c.v = c.h // h, c.v // v


def _can_halve(components: Sequence[Component]) -> bool:
    if len(components) != 3:
        return False
    luma, *chroma = components
    return all((c.h, c.v) == (1, 1) for c in chroma) and (luma.h, luma.v) in (
        (1, 1),
        (2, 1),
        (1, 2),
    )


def _means(
    blocks: npt.NDArray[np.int16],
    unit: npt.NDArray[np.float32],
    rows: int,
    cols: int,
    down: int,
    across: int,
) -> npt.NDArray[np.float32]:
    """Integer blocks, `down` x `across` of them to the real block of their pixels' means: (rows,
    cols, 64).

    Padded with the last blocks, mirrored, so that no edge arises that the picture has not.
    """
    result = np.empty((rows, cols, 64), np.float32)
    have, wide, _ = blocks.shape
    blocks = np.ascontiguousarray(blocks)
    status = _native.halve(have, wide, down, across, rows, cols, blocks, unit, result)
    if status:
        raise AssertionError(f"halve: status {status}")
    return result
