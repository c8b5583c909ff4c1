"""A photo at the size that a model's input has, and places of that input back on the photo."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.vision.answers import Pixels
from vizcomp.vision.system import fitted

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


TAPS = {"opencv": 2, "opencv-lanczos": 8}  # pixels of a side that make one
OPENCV = (*TAPS, "opencv-area")  # filters as OpenCV has them


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a photo comes into an input.

    Attributes:
        resize: one of `options.RESIZES`.
        filter: one of `options.FILTERS`.
        grey: 0..255, of the rest of a letterbox.
        crop: share of the shorter side that is seen, with "crop".
        floor: the sides of the picture in a letterbox are rounded down, as `int` does it in many
            programs; else to the nearest.
    """

    resize: str = "crop"
    filter: str = "bicubic"
    grey: float = 114
    crop: float = 1.0
    floor: bool = False


@dataclasses.dataclass(frozen=True)
class View:
    """A photo in an input.

    Attributes:
        pixels: uint8 (h, w, 3).
        scale: of x and y from the photo to the input.
        offset: x and y of the photo's corner in the input.
    """

    pixels: Pixels
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def place(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in the input of a photo of a height and width."""
        (left, top), (across, down) = self.offset, self.scale
        return left, top, left + width * across, top + height * down

    def on_photo(self, corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Places in the input, (N, 4) left, top, right, bottom, to the same on the photo."""
        return self.points_on_photo(corners.reshape(-1, 2)).reshape(corners.shape)

    def points_on_photo(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The same of x and y alone, (..., 2)."""
        return np.asarray((points - np.array(self.offset)) / np.array(self.scale))


def view_of(image: Pixels, size: tuple[int, int] | None, fit: Fit) -> View:
    """A photo, uint8 (H, W, 3), at a height and width; None: at its own."""
    if size is None:
        return View(image)
    height, width = size
    if fit.resize == "crop":
        return _cropped(image, height, width, fit)
    if fit.resize == "stretch":
        return View(
            _resized(image, height, width, fit), (width / image.shape[1], height / image.shape[0])
        )
    scale = min(height / image.shape[0], width / image.shape[1])
    down = -0.5 + 1e-6 if fit.floor else 0.0
    rows, columns = (max(1, round(side * scale + down)) for side in image.shape[:2])
    centred = fit.resize != "letterbox-corner"
    top, left = ((height - rows) // 2, (width - columns) // 2) if centred else (0, 0)
    pixels = np.full((height, width, 3), round(fit.grey), np.uint8)
    pixels[top : top + rows, left : left + columns] = _resized(image, rows, columns, fit)
    return View(pixels, (columns / image.shape[1], rows / image.shape[0]), (left, top))


def _cropped(image: Pixels, height: int, width: int, fit: Fit) -> View:
    scale = max(height / image.shape[0], width / image.shape[1]) / fit.crop
    offset = ((width - image.shape[1] * scale) / 2, (height - image.shape[0] * scale) / 2)
    if fit.crop == 1 and fit.filter == "bicubic":
        return View(fitted(image, height, width), (scale, scale), offset)
    left, top = -offset[0] / scale, -offset[1] / scale
    box = (
        max(0.0, left),
        max(0.0, top),
        min(image.shape[1], left + width / scale),
        min(image.shape[0], top + height / scale),
    )
    if fit.filter in OPENCV:
        return View(_sampled(image, height, width, fit.filter, box), (scale, scale), offset)
    cut = Image.fromarray(image).resize((width, height), _FILTERS[fit.filter], box=box)
    return View(np.asarray(cut), (scale, scale), offset)


def _resized(image: Pixels, height: int, width: int, fit: Fit) -> Pixels:
    if image.shape[:2] == (height, width):
        return image
    if fit.filter in OPENCV:
        return _sampled(
            image, height, width, fit.filter, (0.0, 0.0, image.shape[1], image.shape[0])
        )
    return np.asarray(Image.fromarray(image).resize((width, height), _FILTERS[fit.filter]))


def _sampled(
    image: Pixels, height: int, width: int, kernel: str, box: tuple[float, float, float, float]
) -> Pixels:
    """A part of an image, left, top, right, bottom, at a size, as OpenCV does it: INTER_LINEAR and
    INTER_LANCZOS4 without smoothing before it is reduced, INTER_AREA by what of each pixel lies in
    the new one's place."""
    left, top, right, bottom = box
    values = image.astype(np.float32)
    steps = (bottom - top) / height, (right - left) / width
    mixed = min(steps) < 1 < max(steps)  # INTER_AREA takes two pixels then, on both sides
    for axis, (start, count) in enumerate(((top, height), (left, width))):
        taps, weights = _weights(kernel, start, steps[axis], count, mixed=mixed)
        weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
        taps = taps.clip(0, image.shape[axis] - 1)
        shape = [1, 1, 1]
        shape[axis] = count
        values = sum(  # type: ignore[assignment]  # never empty
            np.take(values, taps[:, k], axis) * weights[:, k].reshape(shape)
            for k in range(taps.shape[1])
        )
    return np.asarray(values.round().clip(0, 255), np.uint8)


def _weights(
    kernel: str, start: float, step: float, count: int, *, mixed: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Of each of `count` new pixels, which lie `step` old ones apart: the old ones that make it and
    what they are worth, (count, K) each."""
    if kernel == "opencv-area":
        low = start + np.arange(count) * step
        if mixed:
            taps = np.floor(low).astype(int)[:, None] + np.arange(2)
            second = np.arange(1, count + 1) - (taps[:, 0] + 1 - start) / step
            second = np.where(second <= 0, 0, second - np.floor(second))
            return taps, np.stack([1 - second, second], 1)
        taps = np.floor(low).astype(int)[:, None] + np.arange(math.ceil(step) + 1)
        shared = np.minimum(taps + 1, (low + step)[:, None]) - np.maximum(taps, low[:, None])
        return taps, shared.clip(0)
    places = start + (np.arange(count) + 0.5) * step - 0.5
    first = np.floor(places).astype(int) - TAPS[kernel] // 2 + 1
    taps = first[:, None] + np.arange(TAPS[kernel])
    away = np.abs(taps - places[:, None])
    half = TAPS[kernel] / 2
    weights = 1 - away if kernel == "opencv" else np.sinc(away) * np.sinc(away / half)
    return taps, np.where(away < half, weights, 0)
