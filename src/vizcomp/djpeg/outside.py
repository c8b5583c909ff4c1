"""What lies outside a mask, left out of the picture: places without data, and what is nobody's
business."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from vizcomp.depth.maps import mask_hint
from vizcomp.errors import InputError
from vizcomp.photos.frame import resize_map, stored
from vizcomp.photos.photo import Photo

INSIDE = 0.5  # of a mask, and more: kept


def without_outside(photo: Photo, mask: npt.NDArray[np.float32]) -> Photo:
    """The photo with black in the place of what a mask does not keep; the photo itself where it
    keeps all.

    Nothing of these pixels is left in what is made of it: neither in coefficients next to the
    mask's edge, nor, since the
    JPEG's own bytes are gone, in a source that would be kept.

    Args:
        mask: float (h, w) in 0..1 as displayed, of any size; `INSIDE` and more is kept.

    Raises:
        InputError: its brightest level is 1 of 255, so that 0 and 1 were meant.
    """
    if hint := mask_hint(mask):
        raise InputError(hint[0], "with `mask_outside` drop all of the photo would go")
    height, width = photo.pixels.shape[:2]
    kept = (
        resize_map(np.ascontiguousarray(stored(mask, photo.orientation), np.float32), height, width)
        >= INSIDE
    )
    if kept.all():
        return photo
    pixels = np.where(
        kept if photo.pixels.ndim == 2 else kept[..., None], photo.pixels, np.uint8(0)
    )
    alpha = None if photo.alpha is None else np.where(kept, photo.alpha, np.uint8(255))
    return dataclasses.replace(photo, pixels=pixels, alpha=alpha, jpeg=None)
