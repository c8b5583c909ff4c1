"""Pictures as OpenCV decodes them, for vision systems whose own programs do.

OpenCV turns a photo by its EXIF block, and knows no ICC profile and no opacity: what lies under
transparent parts is shown.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from vizcomp.errors import MissingExtraError, SettingsError, UnsupportedError
from vizcomp.photos.decoders import Pixels

DECODERS = ("pillow", "opencv")
"""Who decodes what a vision system sees."""


def check_decoder(decoder: str, formats: Iterable[str] = ()) -> str:
    """Refuse a decoder that is not there, or cannot read what is to be written.

    Args:
        decoder: one of `DECODERS`.
        formats: of results, as "jpeg" or "avif".

    Returns:
        Its name and version where answers hang on it; "" for Pillow, by which vizcomp reads
        everything.

    Raises:
        SettingsError: no such decoder, or it does not read a format.
        MissingExtraError: OpenCV is not installed.
    """
    if decoder not in DECODERS:
        raise SettingsError(f"unknown `decoder` {decoder!r}", f"use {' or '.join(DECODERS)}")
    if decoder == "pillow":
        return ""
    version = str(_opencv().__version__)
    for kind in formats:
        if not _reads(kind):
            raise SettingsError(
                f"this OpenCV, {version}, does not read {kind.upper()}",
                "use `decoder` pillow, or leave that format out",
            )
    return f"opencv {version}"


def by_opencv(data: bytes, name: str) -> Pixels:
    """A picture's file as OpenCV shows it: uint8 (H, W, 3), RGB; `name` stands in messages.

    Raises:
        UnsupportedError: it does not read the file.
        MissingExtraError: OpenCV is not installed.
    """
    cv2 = _opencv()
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a picture beyond its own limits
        found = None
    if found is None:
        raise UnsupportedError(
            f"{name}: OpenCV does not read it", "use `decoder` pillow, or leave it out"
        )
    return np.ascontiguousarray(found[..., ::-1])


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as exc:
        raise MissingExtraError("OpenCV (opencv-python-headless)", "text") from exc
    return cv2


@functools.cache
def _reads(kind: str) -> bool:
    """Whether it reads a format that vizcomp writes: tried on a small picture."""
    if kind == "jxl":
        import pillow_jxl  # noqa: F401 - Pillow knows the format by it
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 150)).save(buffer, kind.upper())
    try:
        return by_opencv(buffer.getvalue(), kind).shape == (16, 16, 3)
    except UnsupportedError:
        return False
