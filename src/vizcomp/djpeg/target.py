"""A file of at most a number of bytes, and close to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vizcomp.djpeg.encoder import Encoder
from vizcomp.errors import InputError

if TYPE_CHECKING:
    pass


TARGET_TOLERANCE = 0.02
SMALLEST_QUALITY = 0.5


def meet_target(encoder: Encoder, target: int) -> tuple[bytes, float, tuple[str, ...]]:
    """The best file of at most `target` bytes, and of at least 98% of it where the photo has that
    much to say.

    Steps are whole numbers, so the size as a function of quality goes in jumps; between two jumps
    the price of a bit is raised until the finer steps fit.
    """
    floor = target * (1 - TARGET_TOLERANCE)
    best, best_quality = encoder.encode(100), 100.0
    if len(best) <= target:
        return (
            best,
            best_quality,
            ("smaller than the target size at the highest quality",) if len(best) < floor else (),
        )
    low, high = SMALLEST_QUALITY, 100.0  # the file fits at `low`, not at `high`
    best, best_quality = encoder.encode(low), low
    if len(best) > target:
        return (*_squeeze(encoder, low, target), ())
    for _ in range(12):
        if len(best) >= floor:
            return best, best_quality, ()
        middle = (low * high) ** 0.5 if low < 20 else (low + high) / 2
        data = encoder.encode(middle)
        if len(data) <= target:
            low, best, best_quality = middle, data, middle
        else:
            high = middle
        if high - low < 0.05:
            break
    finer, quality = _squeeze(encoder, high, target)
    return (finer, quality, ()) if len(finer) >= len(best) else (best, best_quality, ())


def _squeeze(encoder: Encoder, quality: float, target: int) -> tuple[bytes, float]:
    """Raise the price of a bit at one quality, too large as it is, until the file fits; the largest
    that fits.

    Coefficients of a source that was a JPEG lie on a lattice, so many of them give way at the very
    same price. Where the size jumps over the target for that reason, only a share of the blocks,
    the least important first, pays the higher price.
    """
    low, high = 0.0, 0.125  # the file is too large at `low`
    while len(data := encoder.encode(quality, high)) > target:
        low, high = high, high * 4
        if high > 1e4:
            raise InputError(
                f"cannot be made as small as {target} bytes: its smallest is {len(data)}",
                "give a larger `target_size`, or resize the photo",
            )
    data, low, high = _bisect(
        lambda price: encoder.encode(quality, price), high, low, data, target, steps=12
    )
    if len(data) < target * (1 - TARGET_TOLERANCE):
        data = _bisect(
            lambda share: encoder.encode(quality, low, high, share),
            1.0,
            0.0,
            data,
            target,
            steps=12,
        )[0]
    return data, quality


def _bisect(
    encode: Callable[[float], bytes],
    fits: float,
    too_large: float,
    data: bytes,
    target: int,
    *,
    steps: int,
) -> tuple[bytes, float, float]:
    """Halve the way between a setting that fits and one that is too large, until within the
    tolerance of the target.

    Returns:
        The largest file that fits, and the last settings that were too large and that fitted.
    """
    for _ in range(steps):
        if len(data) >= target * (1 - TARGET_TOLERANCE):
            break
        middle = (fits + too_large) / 2
        file = encode(middle)
        if len(file) <= target:
            fits, data = middle, max(data, file, key=len)
        else:
            too_large = middle
    return data, too_large, fits
