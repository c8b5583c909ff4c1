"""Who reads which format: what `--readers` goes by. The sources are in docs/djpeg.md."""

from __future__ import annotations

from vizcomp.errors import SettingsError

READERS: dict[str, tuple[str, ...]] = {
    "pillow": ("jpeg", "webp", "avif"),
    "opencv": ("jpeg", "webp", "avif"),
    "torchvision": ("jpeg", "webp"),
    "tensorflow": ("jpeg", "webp", "jxl"),
    "dali": ("jpeg", "webp"),
    "browser": ("jpeg", "webp", "avif"),
}
"""Formats that each opens by itself, as installed, without packages beside it."""

DEFAULT = ("pillow", "opencv", "browser")
"""Who must read a file of `--format auto` where nobody is named."""

PLAIN_WEBP_ONLY = ("dali",)
"""Readers of WebP that refuse its extended form (RFC 9649, 2.7): files with an ICC profile,
metadata or opacity."""


def parse_readers(text: str) -> tuple[str, ...]:
    """The readers in "pillow,opencv"; none in "".

    Raises:
        SettingsError: one is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in READERS:
            raise SettingsError(
                f"unknown reader {name!r} in `readers`",
                f"use {', '.join(READERS)}, several joined by commas",
            )
    if text and not names:
        raise SettingsError(
            f"`readers` {text!r} names nobody",
            f"it takes {', '.join(READERS)}, several joined by commas",
        )
    return names


def readable(name: str, readers: tuple[str, ...]) -> bool:
    """Whether all of the readers open a format."""
    return all(name in READERS[reader] for reader in readers)


def only_plain_webp(readers: tuple[str, ...]) -> bool:
    """Whether one of them opens WebP files only where they hold a picture and nothing else."""
    return any(reader in PLAIN_WEBP_ONLY for reader in readers)
