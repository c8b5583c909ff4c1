"""Measures of images, each defined once: PSNR, MS-SSIM, bits per pixel; and rank correlation.

Arrays in, numbers out; nothing here opens a file. Images are uint8 arrays, (H, W) grey or (H, W, 3)
RGB. Arguments that break what is written below are a caller's mistake and raise `ValueError`.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

ByteImage = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003, section 3.2)."""

_WINDOW = 11  # taps of the Gaussian window of SSIM, sigma 1.5 (Wang et al. 2004)
_SIGMA = 1.5
_C1 = (0.01 * 255.0) ** 2
_C2 = (0.03 * 255.0) ** 2
# samples of a difference held at a time: a few megabytes, whatever the size of the image
_CHUNK = 1 << 18
_TILE = 256  # side of the tiles on which MS-SSIM of a large image is sampled
# outputs of one banded product in `_blur`: 30 + 10 inputs; fewer cost calls, more cost products
# with zeros
_BLOCK = 30


class Pictured(Protocol):
    """An image that gives parts of itself as arrays: a `ByteImage`, or one that never is in memory
    as a whole."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, 3)."""

    def __getitem__(self, part: tuple[slice, slice], /) -> ByteImage:
        """Some rows and columns."""


def psnr(a: ByteImage, b: Pictured) -> float:
    """Peak signal-to-noise ratio of two images in dB, over all samples: 10 log10(255^2 / MSE).

    Args:
        a, b: uint8 arrays of one shape, (H, W) or (H, W, 3).

    Returns:
        dB; `inf` when the images are identical.

    Raises:
        ValueError: the shapes differ, the type is not uint8, or there are no samples.
    """
    _check_pair(a, b)
    error, every = 0.0, slice(None)
    rows = max(1, _CHUNK // (a.size // len(a)))
    for top in range(0, len(a), rows):
        part = slice(top, top + rows)
        error += _squared_error(a[part, every].reshape(-1), b[part, every].reshape(-1))
    return _decibel(error, a.size)


def psnr_region(a: ByteImage, b: ByteImage, mask: npt.NDArray[np.bool_]) -> float:
    """PSNR over the pixels of a region only, in dB; all channels of a pixel count.

    Args:
        a, b: uint8 arrays of one shape, (H, W) or (H, W, 3).
        mask: bool array (H, W), True in the region.

    Returns:
        dB; `inf` when the region is identical, `nan` when it is empty.

    Raises:
        ValueError: the shapes do not fit, or a type is wrong.
    """
    _check_pair(a, b)
    if mask.dtype != np.bool_ or mask.shape != a.shape[:2]:
        raise ValueError(f"mask must be bool of shape {a.shape[:2]}, is {mask.dtype} {mask.shape}")
    if not mask.any():
        return math.nan
    chosen_a, chosen_b = a[mask].reshape(-1), b[mask].reshape(-1)
    return _decibel(_squared_error(chosen_a, chosen_b), chosen_a.size)


def luma(image: ByteImage) -> FloatImage:
    """Luma of an image by ITU-R BT.601, not rounded: 0.299 R + 0.587 G + 0.114 B.

    Args:
        image: uint8 array (H, W) or (H, W, 3), RGB.

    Returns:
        float32 array (H, W) in 0..255.
    """
    if image.ndim == 2:
        return image.astype(np.float32)
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    result: FloatImage = image.astype(np.float32) @ weights
    return result


def ms_ssim(a: ByteImage, b: Pictured, max_pixels: int | None = 2_000_000) -> float:
    """Multi-scale structural similarity of luma: Wang, Simoncelli and Bovik, "Multi-scale
    structural similarity for image quality assessment", 2003, equation 7, with the exponents of its
    section 3.2.

    Contrast and structure are compared at each scale, luminance at the coarsest; the window is a
    Gaussian of 11x11 taps and sigma 1.5 and stays inside the image; the next scale is the mean of
    each 2x2 block (an odd last row or column is left out). Computed in float32; a negative mean of
    a scale counts as 0.

    Where we differ from the paper, because photos come in every size:

    * An image whose shorter side is below 176 pixels has fewer scales: as many of the first ones as
      keep the window inside, with the exponents renormalised to the sum 1. A side below 11 pixels
      shortens the window on that axis.
    * An image of more than `max_pixels` pixels is sampled: on a regular grid of full-resolution
      tiles of 256x256 that cover about `max_pixels` pixels together, first tile in the top left
      corner, last in the bottom right. Time and memory stay those of an image of that size.

    Args:
        a, b: uint8 arrays of one shape, (H, W) or (H, W, 3).
        max_pixels: pixels above which the image is sampled; None never samples, and then takes
            about 40 bytes of memory for each pixel.

    Returns:
        0..1; 1 for identical images.

    Raises:
        ValueError: the shapes differ, the type is not uint8, there are no samples, or `max_pixels`
            is below 1.
    """
    _check_pair(a, b)
    if max_pixels is not None and max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, is {max_pixels}")
    height, width = a.shape[:2]
    if max_pixels is None or height * width <= max_pixels:
        sums = _scale_sums(luma(a), luma(b[:, :]))
    else:
        rows, columns = min(_TILE, height), min(_TILE, width)
        tiles = [
            (slice(top, top + rows), slice(left, left + columns))
            for top, left in _tile_grid(height, width, rows, columns, max_pixels)
        ]
        sums = sum((_scale_sums(luma(a[tile]), luma(b[tile])) for tile in tiles), np.zeros(()))
    # columns: contrast-structure, luminance x contrast-structure, windows
    means = sums[:, 0] / sums[:, 2]
    means[-1] = sums[-1, 1] / sums[-1, 2]
    weights = np.array(MS_SSIM_WEIGHTS[: len(means)])
    score = np.prod(np.maximum(means, 0.0) ** (weights / weights.sum()))
    return min(1.0, float(score))


def bits_per_pixel(file_bytes: float, pixels: int) -> float:
    """Bits of whole files, headers included, for each pixel of their images.

    Raises:
        ValueError: there are no pixels.
    """
    if pixels < 1:
        raise ValueError(f"{pixels} pixels: an image has no pixels")
    return 8.0 * file_bytes / pixels


def _check_pair(a: npt.NDArray[Any], b: Pictured) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"images must be uint8, are {a.dtype} and {b.dtype}")
    if a.shape != b.shape:
        raise ValueError(f"images must have one shape, have {a.shape} and {b.shape}")
    if a.size == 0 or not (a.ndim == 2 or (a.ndim == 3 and a.shape[2] == 3)):
        raise ValueError(f"images must be (H, W) or (H, W, 3) and not empty, are {a.shape}")


def _squared_error(a: ByteImage, b: ByteImage) -> float:
    """Sum of squared differences of two flat arrays; exact, since float64 holds integers up to
    2^53."""
    total = 0.0
    for start in range(0, a.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        difference = np.subtract(a[part], b[part], dtype=np.float64)
        total += float(difference @ difference)
    return total


def _decibel(squared_error: float, samples: int) -> float:
    if squared_error == 0.0:
        return math.inf
    return 10.0 * math.log10(255.0**2 * samples / squared_error)


def _tile_grid(
    height: int, width: int, rows: int, columns: int, max_pixels: int
) -> list[tuple[int, int]]:
    """Top left corners of a regular grid of tiles, its cells about square, of about `max_pixels`
    pixels together."""
    count = max(1.0, max_pixels / (rows * columns))
    down = round(min(max(1.0, math.sqrt(count * height / width)), math.ceil(height / rows)))
    across = round(min(max(1.0, count / down), math.ceil(width / columns)))
    tops = np.linspace(0, height - rows, down).round().astype(int)
    lefts = np.linspace(0, width - columns, across).round().astype(int)
    return [(int(top), int(left)) for top in tops for left in lefts]


def _scale_sums(a: FloatImage, b: FloatImage) -> FloatArray:
    """Sums of one image over each scale: float64 array (scales, 3) of contrast-structure, luminance
    times contrast-structure (the coarsest scale only, else 0), and number of windows."""
    scales = 1
    while scales < len(MS_SSIM_WEIGHTS) and min(a.shape) >> scales >= _WINDOW:
        scales += 1
    sums = np.zeros((scales, 3))
    a = a - np.float32(128.0)  # variances do not change, and float32 loses less in E[x^2] - E[x]^2
    b = b - np.float32(128.0)
    for scale in range(scales):
        mean_a, mean_b = _blur(a), _blur(b)
        product = a * b
        energy = a * a
        energy += b * b
        covariance = _blur(product)
        spread = _blur(energy)  # one blur for both variances: only their sum is needed
        covariance -= mean_a * mean_b
        spread -= mean_a * mean_a
        spread -= mean_b * mean_b
        covariance *= 2.0
        covariance += np.float32(_C2)
        spread += np.float32(_C2)
        covariance /= spread
        sums[scale, 0] = covariance.sum(dtype=np.float64)
        sums[scale, 2] = covariance.size
        if scale == scales - 1:
            mean_a += 128.0
            mean_b += 128.0
            luminance = (2.0 * mean_a * mean_b + np.float32(_C1)) / (
                mean_a**2 + mean_b**2 + np.float32(_C1)
            )
            sums[scale, 1] = (luminance * covariance).sum(dtype=np.float64)
        else:
            a, b = _halve(a), _halve(b)
    return sums


def _halve(image: FloatImage) -> FloatImage:
    """Mean of each 2x2 block; an odd last row or column is left out."""
    rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    pairs = image[0:rows:2] + image[1:rows:2]  # (H/2, W)
    result: FloatImage = pairs[:, 0:columns:2] + pairs[:, 1:columns:2]
    result *= 0.25
    return result


def _window(taps: int) -> FloatImage:
    position = np.arange(taps) - (taps - 1) / 2
    weights = np.exp(-(position**2) / (2 * _SIGMA**2))
    normalised: FloatImage = (weights / weights.sum()).astype(np.float32)
    return normalised


@functools.lru_cache(maxsize=64)
def _band(taps: int, outputs: int) -> FloatImage:
    """(outputs + taps - 1, outputs) matrix whose column j holds the window from row j on."""
    band = np.zeros((outputs + taps - 1, outputs), dtype=np.float32)
    window = _window(taps)
    for column in range(outputs):
        band[column : column + taps, column] = window
    return band


def _blur(image: FloatImage) -> FloatImage:
    """Gaussian window over an image, only where it lies inside: (H, W) to (H - taps + 1, W - taps +
    1).

    The window is separable, and each pass is a product with a banded matrix, block by block: some
    of the products are with zeros, but a matrix product does them many times faster than slices
    added one by one.
    """
    taps_down, taps_across = min(_WINDOW, image.shape[0]), min(_WINDOW, image.shape[1])
    rows = image.shape[0] - taps_down + 1
    columns = image.shape[1] - taps_across + 1
    down = np.empty((rows, image.shape[1]), dtype=np.float32)
    band = _band(taps_down, min(_BLOCK, rows)).T
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        np.matmul(
            band[:count, : count + taps_down - 1],
            image[start : start + count + taps_down - 1],
            out=down[start : start + count],
        )
    result = np.empty((rows, columns), dtype=np.float32)
    band = _band(taps_across, min(_BLOCK, columns))
    for start in range(0, columns, _BLOCK):
        count = min(_BLOCK, columns - start)
        result[:, start : start + count] = (
            down[:, start : start + count + taps_across - 1]
            @ band[: count + taps_across - 1, :count]
        )
    return result


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Rank correlation: Spearman, "The proof and measurement of association between two things",
    1904. Equal values share the mean of their ranks, and the ranks' product-moment correlation is
    returned.

    Args:
        a, b: arrays of one shape with at least two values; finite.

    Returns:
        -1..1; `nan` when all values of one array are equal.

    Raises:
        ValueError: the shapes differ, there are fewer than two values, or one is not finite.
    """
    flat_a, flat_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if flat_a.shape != flat_b.shape or flat_a.size < 2:
        raise ValueError(
            f"spearman needs two or more values in one shape, got {flat_a.shape} and {flat_b.shape}"
        )
    if not (np.isfinite(flat_a).all() and np.isfinite(flat_b).all()):
        raise ValueError("spearman needs finite values")
    ranks_a, ranks_b = _ranks(flat_a.reshape(-1)), _ranks(flat_b.reshape(-1))
    ranks_a -= ranks_a.mean()
    ranks_b -= ranks_b.mean()
    scale = math.sqrt(float(ranks_a @ ranks_a) * float(ranks_b @ ranks_b))
    if scale == 0.0:
        return math.nan
    return max(-1.0, min(1.0, float(ranks_a @ ranks_b) / scale))


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: FloatArray = last - (counts - 1) / 2.0
    return means[inverse.reshape(-1)]


def rank_scale(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Values as the share of the array that is smaller, 0..1; equal values stay equal: float32 (h,
    w) to float32 (h, w).

    An array without differences becomes 0.5 throughout.
    """
    flat = values.reshape(-1)
    order = np.argsort(flat)  # equal values share a rank, so their order is free
    ordered = flat[order]
    if ordered[-1] - ordered[0] <= 1e-6:
        return np.full(values.shape, 0.5, np.float32)
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    group = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(flat)) - 1
    ranks = np.empty(len(flat), np.float32)
    ranks[order] = ((first + last) / (2.0 * (len(flat) - 1)))[group]
    return ranks.reshape(values.shape)
