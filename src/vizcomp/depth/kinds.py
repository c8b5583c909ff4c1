"""What the numbers of a ready-made map mean: nearness, disparity or distance."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from vizcomp.depth.values import Values
from vizcomp.errors import InputError, SettingsError
from vizcomp.photos.colour import stretched

KINDS = ("auto", "nearness", "metres", "millimetres", "disparity")
FARTHER = ("metres", "millimetres")  # large = far

# What `auto` takes for one thing only, in levels of 16 bits.
_NEARLY_FULL, _BRIGHT, _FEW_ZEROS = 60_000, 15_000, 0.02
_INDOOR_MILLIMETRES = (2_100, 10_000)
_TAILS = (0.5, 99.5)  # percentiles; beyond them lies what sensors invent


@dataclasses.dataclass(frozen=True)
class Depth:
    """Depth of one photo, as displayed (EXIF orientation applied).

    Attributes:
        nearness: float32 (h, w) in 0..1, large = near; any resolution, the photo's aspect.
        confidence: float32 (h, w) in 0..1, or None where the map is taken at its word.
        metres: float32 (h, w), large = far, where the model knows distances.
        guess: the bundled network's, which nobody named: guides may do without it.
    """

    nearness: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32] | None = None
    metres: npt.NDArray[np.float32] | None = None
    guess: bool = False


def check_kind(kind: str) -> str:
    """The kind, if it is one.

    Raises:
        SettingsError: it is none of `KINDS`.
    """
    if kind not in KINDS:
        raise SettingsError(f"unknown depth kind {kind!r}", f"use {', '.join(KINDS)}")
    return kind


def kind_of(values: Values) -> str:
    """The only kind that a map can be of.

    A file may name its kind. Pictures of 8 bits, and of 16 bits that fill their range, are
    nearness, bright = near; 16 bits of a few thousands are millimetres.

    Raises:
        SettingsError: there is more than one.
    """
    if values.stated in KINDS[1:]:
        return values.stated
    if values.full == 255:
        return "nearness"
    if values.full == 65535:
        numbers = values.numbers
        most, zeros = int(numbers.max()), float((numbers == 0).mean())
        upper, top = np.percentile(numbers, (90, 99))
        if most >= _NEARLY_FULL and upper >= _BRIGHT and zeros < _FEW_ZEROS:
            return "nearness"
        low, high = _INDOOR_MILLIMETRES
        if low < top <= high and most not in (4095, 8191):  # no full range of 12 or 13 bits
            return "millimetres"
        if most == numbers.min():  # no order: all kinds say the same
            return "nearness"
    raise SettingsError(
        f"{values.name} may hold nearness, disparity or distances",
        f"say which: `depth_kind` {'|'.join(KINDS[1:])} (large = far: metres or millimetres)",
    )


def to_depth(values: Values, kind: str) -> Depth:
    """Numbers to nearness; what is no measurement is unknown: it has the confidence 0.

    Args:
        values: of the file.
        kind: one of `KINDS`. Zero and less, and what is not finite, are holes in distances and
            disparities; in nearness only the latter.

    Raises:
        SettingsError: `kind` is auto and the map may be of several.
        InputError: there is nothing but holes.
    """
    kind = kind_of(values) if kind == "auto" else check_kind(kind)
    numbers = values.numbers
    known = np.isfinite(numbers)
    if kind != "nearness":
        known &= numbers > 0
    if not known.any():
        raise InputError(f"{values.name} holds no depth: all of it is holes", "make the map again")
    if kind == "nearness":
        nearness = scaled(values)
    else:
        low, high = np.percentile(numbers[known], _TAILS)
        span = high - low if high > low else 1.0
        nearness = np.clip((np.where(known, numbers, low) - low) / span, 0, 1).astype(np.float32)
        if kind in FARTHER:
            nearness = 1 - nearness
    if known.all():
        return Depth(nearness)
    nearness[~known] = nearness[known].mean()  # no edge where nothing is known
    return Depth(nearness, confidence=known.astype(np.float32))


def scaled(values: Values) -> npt.NDArray[np.float32]:
    """Numbers to 0..1: by the full range of their samples, else by their own least and largest."""
    if values.full is None:
        return stretched(values.numbers, values.name)[0]
    return values.numbers.astype(np.float32) / np.float32(values.full)
