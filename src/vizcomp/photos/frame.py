"""Photos and maps as stored or upright, made smaller, resized."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.photos.decoders import Pixels


def upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """From the stored frame to the picture as displayed.

    Args:
        array: (H, W) or (H, W, C), any dtype.
        orientation: EXIF orientation 1..8; other numbers count as 1.

    Returns:
        A view of `array`: (H, W, ...) for orientations 1 to 4, (W, H, ...) for 5 to 8.
    """
    if orientation >= 5 and orientation <= 8:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def stored(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The inverse of `upright`: from the picture as displayed to the stored frame; a view."""
    # 6 and 8 turn by a quarter and undo each other; each of the others undoes itself.
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def rgb(pixels: Pixels) -> Pixels:
    """Grey, uint8 (H, W), as (H, W, 3) of three equal channels; colour as it is."""
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def check_image(image: Pixels) -> None:
    """Raises ValueError for what is no uint8 array (H, W, 3) or (H, W) with pixels in it."""
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or (image.ndim == 3 and image.shape[2] != 3)
        or 0 in image.shape
    ):
        raise ValueError(
            f"an image is a uint8 array (H, W, 3) or (H, W), not {image.dtype} {image.shape}"
        )


def thumbnail(pixels: Pixels, *, long_side: int) -> Pixels:
    """A smaller copy whose longer side has `long_side` pixels; never enlarged. uint8 (H, W, 3) or
    (H, W), as given."""
    height, width = pixels.shape[:2]
    if max(height, width) <= long_side:
        return np.array(pixels)
    scale = long_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(
        size, Image.Resampling.LANCZOS, reducing_gap=2.0
    )
    return np.array(small, dtype=np.uint8)


def resize_map(values: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """A map at another size, without overshoot: float32 (h, w) in 0..1 to (height, width) in 0..1,
    triangle filter."""
    if values.shape == (height, width):
        return np.asarray(values, np.float32)
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(
        image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32
    ).clip(0, 1)


STRIDE = 16
"""The encoder halves four times: both sides of its input must be multiples of this."""


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Height and width of a photo scaled to a long side, aspect kept, each at least 1."""
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def scale_photo(image: npt.NDArray[np.uint8], long_side: int) -> npt.NDArray[np.uint8]:
    """A photo scaled to a long side: uint8 (H, W, 3) or (H, W) to uint8 (h, w, 3).

    Photos of more than 16 times that size are first thinned, to at least 8 pixels on a side for
    each pixel of the result. Then the mean of whole squares is taken, which is fast, and the rest
    is filtered bilinearly.
    """
    from PIL import Image

    height, width = scaled_size(image.shape[0], image.shape[1], long_side)
    thin = min(image.shape[0] // (8 * height), image.shape[1] // (8 * width))
    if thin > 1:
        image = image[::thin, ::thin]
    picture = Image.fromarray(np.ascontiguousarray(image))
    factor = min(picture.width // (2 * width), picture.height // (2 * height))
    if factor > 1:
        picture = picture.reduce(factor)
    return np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def pad_to_stride(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Repeats the last row and column until both sides are multiples of `STRIDE`: uint8 (h, w, 3)
    to (h', w', 3)."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
