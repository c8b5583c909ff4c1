"""What a file is compared with: optimised progressive plain JPEG, at the same quality setting and
at the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp import metrics
from vizcomp.photos.decoders import Pixels
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.frame import rgb, upright
from vizcomp.photos.photo import JpegPixels, Photo, jpeg_pixels, load_bytes, to_srgb

SAMPLE = 50
"""Photos of a run, the first of them, on which plain JPEG is also decoded and searched at our
bytes."""


DRAWS = 1000  # of the bootstrap


def optimised_jpeg(photo: Photo, quality: int) -> bytes:
    """A plain JPEG of a photo, 4:2:0, with optimised Huffman tables and progressive scans, without
    metadata."""
    return encode_plain_jpeg(photo.pixels, quality=quality, optimize=True, progressive=True)


def likeness(photo: Photo, data: bytes) -> tuple[float | None, float]:
    """PSNR, None where no pixel differs, and MS-SSIM of a file against its photo; opacity flattened
    on white."""
    if not data.startswith(b"\xff\xd8"):
        return _likeness(*beside(photo, data))
    with jpeg_pixels(data) as shown:
        return _likeness(
            (
                photo.pixels
                if shown.shape == photo.pixels.shape
                else upright(photo.pixels, photo.orientation)
            ),
            shown,
        )


def beside(photo: Photo, data: bytes) -> tuple[Pixels, Pixels]:
    """The pixels of a photo and of its file as displayed, both of one shape; opacity flattened on
    white."""
    result = load_bytes(data, "the result", max_pixels=photo.pixels.size)
    pixels = upright(result.pixels, result.orientation)
    converted = result.format == "JXL" and photo.icc is not None  # its encoder takes no profile
    original = upright(to_srgb(photo)[0] if converted else photo.pixels, photo.orientation)
    if original.ndim != pixels.ndim:  # some formats know no grey
        original, pixels = rgb(original), rgb(pixels)
    return original, pixels


def _likeness(original: Pixels, shown: Pixels | JpegPixels) -> tuple[float | None, float]:
    decibel = metrics.psnr(original, shown)
    return (decibel if np.isfinite(decibel) else None), metrics.ms_ssim(original, shown)


def rival_totals(photos: Sequence[tuple[int, int]]) -> dict[str, Any] | None:
    """`Totals.rival` of photos, each with the rival's bytes and ours; None without any."""
    if not photos:
        return None
    pairs = np.array(photos, np.float64)
    low, high = bootstrapped(pairs, lambda sums: 1 - sums[:, 1] / sums[:, 0])
    theirs, ours = (int(column.sum()) for column in pairs.T)
    return {
        "codec": "jpeg optimised",
        "photos": len(photos),
        "bytes": theirs,
        "our_bytes": ours,
        "saving": 1 - ours / theirs,
        "interval": [low, high],
    }


def bootstrapped(
    photos: npt.NDArray[np.float64],
    figure: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> tuple[float, float]:
    """The 95% interval of a figure of sums over photos.

    Args:
        photos: (photos, K), the terms of K sums.
        figure: of sums (draws, K), one value for each draw.
    """
    # whole photos are drawn (Efron 1979); a fixed seed, so that the same records give the same
    # report
    drawn = (
        np.random.default_rng(0).multinomial(
            len(photos), np.full(len(photos), 1 / len(photos)), DRAWS
        )
        @ photos
    )
    low, high = np.percentile(figure(drawn), (2.5, 97.5))
    return float(low), float(high)


def against_plain(photo: Photo, quality: float, size: int | None) -> dict[str, Any]:
    """The fields of `FileRecord` on optimised plain JPEG.

    Args:
        quality: of our file.
        size: its bytes; None: nothing is decoded, and no quality searched.
    """
    setting = round(quality) or 1
    plain = optimised_jpeg(photo, setting)
    fields: dict[str, Any] = {"optimised_jpeg_bytes": len(plain)}
    if size is None:
        return fields
    fields["jpeg_psnr"], fields["jpeg_ms_ssim"] = likeness(photo, plain)
    equal = _of_bytes(photo, size, {setting: plain})
    if equal is not None:
        fields["equal_bytes_quality"], data = equal
        fields["equal_bytes_psnr"], fields["equal_bytes_ms_ssim"] = likeness(photo, data)
    return fields


def _of_bytes(photo: Photo, size: int, file: dict[int, bytes]) -> tuple[int, bytes] | None:
    """The highest quality of at most `size` bytes, and its file; None where even quality 1 has
    more."""
    low, high = 0, 101
    while high - low > 1:
        # first where we already know the answer, then by halves
        middle = next((q for q in file if low < q < high), (low + high) // 2)
        if middle not in file:
            file[middle] = optimised_jpeg(photo, middle)
        if len(file[middle]) <= size:
            low = middle
        else:
            high = middle
    return (low, file[low]) if low else None
