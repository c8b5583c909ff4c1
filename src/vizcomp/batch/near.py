"""What the depth guide bought near the camera: the nearest third of a photo, with and without a
guide.

Both files have the same bytes. The nearest third is what the map says that guided: given maps are
taken at their word, and of a network's guess this is its own opinion.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.batch.rivals import beside, bootstrapped
from vizcomp.depth.kinds import Depth
from vizcomp.djpeg.compress import prepare
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.photos.photo import Photo

MOST_PHOTOS = 12
"""Photos of a run on which it is measured, the first of them; fewer where they are large."""

LEAST_PHOTOS = 2
PIXELS = 12_000_000  # that a run spends on this, or what its first two photos have
# of a photo: on a larger one it would take as much memory again as all else
MOST_PIXELS = 12_000_000

TRIALS = 7
CLOSE = 0.005  # of a file's bytes: near enough
TIGHT = 0.08  # two files no further apart than that share: what lies between is linear
WIDE = 0.25  # two files further apart than that share say nothing of what lies between

Near = npt.NDArray[np.bool_]


def measures_near(number: int, photo: Photo, settings: DjpegSettings) -> bool:
    """Whether it is measured on a photo, the `number`-th of a run, counted from 0."""
    if "depth" not in settings.guides or settings.strength == 0 or settings.lossless:
        return False
    pixels = max(1, int(photo.pixels.shape[0]) * int(photo.pixels.shape[1]))
    if pixels > MOST_PIXELS:
        return False
    return number < min(MOST_PHOTOS, max(LEAST_PHOTOS, PIXELS // pixels))


def near_third(depth: Depth, height: int, width: int) -> Near | None:
    """Where the nearest third of a photo is, bool (height, width); None: the map has none."""
    nearness = depth.nearness
    rows = np.arange(height) * nearness.shape[0] // height
    columns = np.arange(width) * nearness.shape[1] // width
    found = nearness[np.ix_(rows, columns)]
    near: Near = found >= np.quantile(nearness, 2 / 3)
    return near if 0.2 < near.mean() < 0.5 else None


def near_psnr(photo: Photo, data: bytes, near: Near) -> tuple[float, float]:
    """PSNR of the nearest third of a file and of the rest, in dB over all channels."""
    original, shown = beside(photo, data)
    total = np.zeros(2)
    for top in range(
        0, len(near), 256
    ):  # strips: differences of a whole photo take eight times its memory
        rows = slice(top, top + 256)
        error = np.square(original[rows].astype(np.float32) - shown[rows])
        squares = error.reshape(*error.shape[:2], -1).mean(2, dtype=np.float64)
        total += squares[near[rows]].sum(), squares[~near[rows]].sum()
    mean = total / (near.sum(), near.size - near.sum())
    one, other = (10 * math.log10(255**2 / max(float(error), 1e-6)) for error in mean)
    return one, other


def near_field(
    photo: Photo, data: bytes, quality: float, name: Any, depth: Depth, settings: DjpegSettings
) -> dict[str, float] | None:
    """`FileRecord.near` of a file.

    None where the map has no nearest third, or no file without a guide has its bytes.

    Args:
        photo: what the file was made of.
        data, quality, name: the file, its quality and its format.
        depth: what guided.
        settings: it was made by.
    """
    height, width = photo.pixels.shape[:2]
    near = near_third(depth, *((width, height) if photo.orientation >= 5 else (height, width)))
    if near is None:
        return None
    plain = dataclasses.replace(
        settings,
        guide="uniform",
        format=name,
        target_size=None,
        max_side=None,
        scale=None,
        readers="",
    )
    ready = prepare(photo, plain)[0]
    ends = _around(ready.at, len(data), quality)
    if ends is None:
        return None
    (low, under), (high, over) = (
        (math.log(len(each)), near_psnr(photo, each, near)) for each in ends
    )
    share = (math.log(len(data)) - low) / (high - low) if high > low else 0.0
    ours = near_psnr(photo, data, near)
    uniform = [a + share * (b - a) for a, b in zip(under, over, strict=True)]
    return {
        "psnr": ours[0],
        "uniform_psnr": uniform[0],
        "rest_psnr": ours[1],
        "uniform_rest_psnr": uniform[1],
    }


def _around(encode: Any, size: int, quality: float) -> tuple[bytes, bytes] | None:
    """A file of at most and one of at least `size` bytes, close to it; None: there are none."""
    under: tuple[float, bytes] | None = None
    over: tuple[float, bytes] | None = None
    for _ in range(TRIALS):
        data = encode(quality)
        if abs(len(data) - size) <= CLOSE * size:
            return data, data
        if len(data) < size:
            under = quality, data
        else:
            over = quality, data
        if under is not None and over is not None:
            if len(over[1]) <= (1 + TIGHT) * len(under[1]):
                break
            share = math.log(size / len(under[1])) / math.log(len(over[1]) / len(under[1]))
            quality = under[0] + (over[0] - under[0]) * min(0.9, max(0.1, share))
        elif over is not None and quality > 1:
            quality = max(1.0, quality * (0.8 if len(over[1]) < 1.3 * size else 0.5))
        elif over is None and quality < 100:
            quality = min(100.0, quality + (100 - quality) * 0.3 + 1)
        else:
            return None
    if under is None or over is None or len(over[1]) > (1 + WIDE) * len(under[1]):
        return None
    return under[1], over[1]


def near_totals(photos: Sequence[dict[str, float]]) -> dict[str, Any] | None:
    """`Totals.near` of the photos' `FileRecord.near`; None without any."""
    if not photos:
        return None
    rows = np.array(
        [[p["psnr"], p["uniform_psnr"], p["rest_psnr"], p["uniform_rest_psnr"]] for p in photos]
    )
    gains = rows[:, [0, 2]] - rows[:, [1, 3]]
    one = np.ones((len(photos), 1))
    low, high = bootstrapped(np.hstack([gains[:, :1], one]), lambda sums: sums[:, 0] / sums[:, 1])
    psnr, uniform = rows[:, :2].mean(0).tolist()
    return {
        "photos": len(photos),
        "psnr": psnr,
        "uniform_psnr": uniform,
        "gain": psnr - uniform,
        "interval": [low, high],
        "rest_gain": float(gains[:, 1].mean()),
    }
