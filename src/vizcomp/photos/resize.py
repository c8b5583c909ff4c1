"""Photos with fewer pixels: Lanczos, never enlarged."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from vizcomp.photos.decoders import Pixels
from vizcomp.photos.frame import scaled_size
from vizcomp.photos.photo import Photo


def wanted_size(
    height: int, width: int, *, max_side: int | None = None, scale: float | None = None
) -> tuple[int, int]:
    """Height and width that a photo should have: aspect kept, each side at least 1, neither larger
    than it is.

    Args:
        max_side: of the longer side, 1 or more; None: as it is.
        scale: of both sides, above 0 and at most 1; None: as they are.
    """
    if scale is not None:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    if max_side is not None and max(height, width) > max_side:
        height, width = scaled_size(height, width, max_side)
    return height, width


def resized_pixels(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pixels at another size, by Lanczos' filter with three lobes over the values as they are
    stored.

    Not in linear light: docs/decisions/0018-fewer-pixels.md has what vision systems say of the two.

    Args:
        pixels: uint8 (H, W, 3) RGB or (H, W) grey.

    Returns:
        uint8 (height, width, 3) or (height, width).
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def resized(photo: Photo, height: int, width: int) -> Photo:
    """A photo with fewer pixels, and no longer with its JPEG's own bytes; as it is where it has
    that size already.

    Args:
        height, width: of the stored frame. The filter has no preference for a direction, so this is
            what resizing the photo as displayed gives, seen in the stored frame.
    """
    if photo.pixels.shape[:2] == (height, width):
        return photo
    alpha = None if photo.alpha is None else resized_pixels(photo.alpha, height, width)
    return dataclasses.replace(
        photo, pixels=resized_pixels(photo.pixels, height, width), jpeg=None, alpha=alpha
    )
