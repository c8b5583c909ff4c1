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
    BAND,
    Component,
    JpegImage,
    RealComponent,
    RealImage,
    ceil_div,
    real_values,
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
                c.id, 2, 2, c.table, _in_bands(c.coefficients, steps, 2 * rows, 2 * cols, 1, 1)
            )
        else:
            values = _in_bands(c.coefficients, steps, rows, cols, 3 - first.v, 3 - first.h)
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


def _in_bands(
    blocks: npt.NDArray[np.int16],
    unit: npt.NDArray[np.float32],
    rows: int,
    cols: int,
    down: int,
    across: int,
) -> npt.NDArray[np.float32]:
    """Real blocks, padded or cut, to the means of `down` x `across` each: (rows, cols, 64)."""
    result = np.empty((rows, cols, 64), np.float32)
    for top in range(0, rows, BAND):
        count = min(BAND, rows - top)
        band = blocks[top * down : (top + count) * down, : cols * across]
        values = _pad_blocks(real_values(band, unit), count * down, cols * across)
        if down == 2:
            values = _halve_blocks(values, axis=0)
        if across == 2:
            values = _halve_blocks(values, axis=1)
        result[top : top + count] = values
    return result


def _pad_blocks(values: npt.NDArray[np.float32], rows: int, cols: int) -> npt.NDArray[np.float32]:
    """Pad with the last blocks, mirrored, so that no edge arises that the picture has not."""
    values = values[:rows, :cols]
    down, right = rows - values.shape[0], cols - values.shape[1]
    odd = np.where(np.arange(64) // 8 % 2, -1, 1).astype(np.float32)
    if down:
        values = np.concatenate([values, np.repeat(values[-1:] * odd, down, axis=0)], axis=0)
    if right:
        odd = np.where(np.arange(64) % 2, -1, 1).astype(np.float32)
        values = np.concatenate([values, np.repeat(values[:, -1:] * odd, right, axis=1)], axis=1)
    return values


def _halve_blocks(values: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Neighbours along `axis`, an even side, to the block of their pixels' pairwise means."""
    dct = _dct_matrix(8)
    pairs = np.repeat(np.eye(8), 2, axis=1) / 2  # (8, 16)
    both = dct @ pairs @ np.kron(np.eye(2), dct.T)  # (8, 16): two blocks to their mean
    first, second = both[:, :8].astype(np.float32), both[:, 8:].astype(np.float32)
    rows, cols = values.shape[:2]
    if axis == 0:
        blocks = values.reshape(rows // 2, 2, cols, 8, 8)
        halved = first @ blocks[:, 0] + second @ blocks[:, 1]
        return np.ascontiguousarray(halved.reshape(rows // 2, cols, 64), np.float32)
    blocks = values.reshape(rows, cols // 2, 2, 8, 8)
    halved = blocks[:, :, 0] @ first.T + blocks[:, :, 1] @ second.T
    return np.ascontiguousarray(halved.reshape(rows, cols // 2, 64), np.float32)


def _dct_matrix(size: int) -> npt.NDArray[np.float64]:
    u, x = np.mgrid[:size, :size]
    matrix: npt.NDArray[np.float64] = np.cos((2 * x + 1) * u * np.pi / (2 * size)) * np.sqrt(
        2 / size
    )
    matrix[0] /= np.sqrt(2)
    return matrix
