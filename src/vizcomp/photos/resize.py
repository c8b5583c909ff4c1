"""Photos with fewer pixels, never enlarged."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from vizcomp.photos.decoders import Pixels
from vizcomp.photos.frame import scaled_size
from vizcomp.photos.photo import Photo

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}


def wanted_size(
    height: int,
    width: int,
    *,
    max_side: int | None = None,
    short_side: int | None = None,
    scale: float | None = None,
) -> tuple[int, int]:
    """Height and width that a photo should have: aspect kept, each side at least 1, neither larger
    than it is.

    Args:
        max_side: of the longer side, 1 or more; None: as it is.
        short_side: of the shorter side, the same.
        scale: of both sides, above 0 and at most 1; None: as they are.
    """
    if scale is not None:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    if max_side is not None and max(height, width) > max_side:
        height, width = scaled_size(height, width, max_side)
    if short_side is not None and min(height, width) > short_side:
        share = short_side / min(height, width)
        height, width = (max(short_side, round(side * share)) for side in (height, width))
    return height, width


def resized_pixels(pixels: Pixels, height: int, width: int, *, resample: str = "lanczos") -> Pixels:
    """Pixels at another size, by Pillow's filters over the values as they are stored; Lanczos has
    three lobes.

    Not in linear light: docs/decisions/0018-fewer-pixels.md has what vision systems say of the two.

    Args:
        pixels: uint8 (H, W, 3) RGB or (H, W) grey.
        resample: one of `FILTERS`.

    Returns:
        uint8 (height, width, 3) or (height, width).
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), FILTERS[resample]))


def resized(photo: Photo, height: int, width: int, *, resample: str = "lanczos") -> Photo:
    """A photo with fewer pixels, and no longer with its JPEG's own bytes; as it is where it has
    that size already.

    Args:
        height, width: of the stored frame. The filter has no preference for a direction, so this is
            what resizing the photo as displayed gives, seen in the stored frame.
        resample: one of `FILTERS`.
    """
    if photo.pixels.shape[:2] == (height, width):
        return photo
    alpha = (
        None
        if photo.alpha is None
        else resized_pixels(photo.alpha, height, width, resample=resample)
    )
    pixels = resized_pixels(photo.pixels, height, width, resample=resample)
    return dataclasses.replace(photo, pixels=pixels, jpeg=None, alpha=alpha)
