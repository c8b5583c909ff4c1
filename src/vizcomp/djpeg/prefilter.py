"""A guide for encoders that know of none: what is of little importance is blurred before it is
coded.

    a sigma for each block ── bilinear ── a weight for each pixel and blur ──┐
    pixels ── some Gaussian blurs, each wider than the last ─────────────────┴── blended

Every transform coder spends few bits on a smooth block, and any decoder shows the result. The blur
is in the picture's own gamma space, as the encoder's rounding is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from vizcomp.djpeg.guide import BLOCK
from vizcomp.photos.decoders import Pixels

Array = npt.NDArray[np.float32]

LEVELS = (0.25, 0.5, 1.0)
"""Blurs that are really made, as shares of the widest; between two of them their mixture is
taken."""
LEAST_SIGMA = 0.15  # pixels: a narrower blur changes nothing that a quantiser would keep


def prefiltered(pixels: Pixels, sigmas: Array) -> Pixels:
    """Blur a picture, more in some blocks than in others.

    Args:
        pixels: uint8 (H, W, 3) or (H, W).
        sigmas: float32 (R, C), for each 8x8 block of `pixels` the standard deviation of its
            Gaussian, in pixels.

    Returns:
        uint8, the shape of `pixels`; `pixels` itself where nothing is blurred.
    """
    most = float(sigmas.max())
    if most < LEAST_SIGMA:
        return pixels
    source = Image.fromarray(np.ascontiguousarray(pixels))
    share = _on_pixels(sigmas / np.float32(most), source.size)
    result, low = source, 0.0
    for level in LEVELS:
        # piecewise linear: where the share passes this level its blur replaces all narrower ones
        weight = share.point(_ramp(low, level), "L")
        blur = source.filter(ImageFilter.GaussianBlur(most * level))
        result = Image.composite(blur, result, weight)
        low = level
    return np.asarray(result)


def _on_pixels(shares: Array, size: tuple[int, int]) -> Image.Image:
    """Values of blocks on pixels, bilinear between the centres of blocks: mode L, 255 = 1."""
    levels = Image.fromarray(np.rint(shares.clip(0, 1) * 255).astype(np.uint8))
    width, height = size
    box = (0, 0, width / BLOCK, height / BLOCK)  # the last blocks may be partly outside
    return levels.resize(size, Image.Resampling.BILINEAR, box=box)


def _ramp(low: float, high: float) -> list[int]:
    """A table for 0..255: 0 up to `low`, 255 from `high` on, straight between; both in 0..1."""
    share = (np.arange(256) / 255 - low) / (high - low)
    return [int(value) for value in np.rint(share.clip(0, 1) * 255)]
