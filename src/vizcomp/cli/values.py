"""Sizes, shares and times as people write them, such as 20kB, 5% and 30min. `setting` is the name
that errors give."""

from __future__ import annotations

import math

from vizcomp.errors import SettingsError


def parse_size(text: str, setting: str) -> int:
    """Bytes from "20kB", "1.5 MB", "900" or "16KiB": k and M are powers of 1000, Ki and Mi of 1024.

    Raises:
        SettingsError: not a size.
    """
    units = {
        "": 1,
        "b": 1,
        "k": 1000,
        "kb": 1000,
        "m": 10**6,
        "mb": 10**6,
        "ki": 1024,
        "kib": 1024,
        "mi": 1 << 20,
        "mib": 1 << 20,
    }
    number = text.strip().rstrip("abegikmABEGIKM").strip()
    unit = text.strip()[len(number) :].strip().lower()
    try:
        size = float(number) * units[unit]
    except (ValueError, KeyError) as exc:
        raise SettingsError(
            f"`{setting}` {text!r} is not a size",
            "write it as 20kB, 1.5MB, 16KiB or a number of bytes",
        ) from exc
    if not (math.isfinite(size) and size >= 1):
        raise SettingsError(
            f"`{setting}` {text!r} is not a size of at least one byte",
            "write it as 20kB, 1.5MB, 16KiB or a number of bytes",
        )
    return int(size)


def parse_fraction(text: str, setting: str) -> float:
    """A fraction from "5%" or "0.05".

    Raises:
        SettingsError: not a fraction between 0 and 1.
    """
    number = text.strip()
    try:
        value = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError as exc:
        raise SettingsError(
            f"`{setting}` {text!r} is not a share", "write it as 5% or 0.05"
        ) from exc
    if not 0 <= value <= 1:
        raise SettingsError(
            f"`{setting}` {text!r} is not between 0% and 100%", "write it as 5% or 0.05"
        )
    return value


def parse_time(text: str, setting: str) -> float:
    """Seconds from "90s", "30min", "2h" or "90".

    Raises:
        SettingsError: not a time above 0.
    """
    units = {"": 1, "s": 1, "min": 60, "h": 3600}
    number = text.strip().rstrip("sminh").strip()
    try:
        seconds = float(number) * units[text.strip()[len(number) :].strip()]
    except (ValueError, KeyError) as exc:
        raise SettingsError(
            f"`{setting}` {text!r} is not a time", "write it as 30min, 2h or 90s"
        ) from exc
    if not (math.isfinite(seconds) and seconds > 0):
        raise SettingsError(
            f"`{setting}` {text!r} is no time above 0", "write it as 30min, 2h or 90s"
        )
    return seconds
