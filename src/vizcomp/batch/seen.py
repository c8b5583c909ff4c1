"""What vision systems are shown of a photo: its pixels as the decoder of their own programs makes
them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from vizcomp.batch.judges import Pixels, displayed
from vizcomp.photos.frame import rgb, upright
from vizcomp.photos.opencv import by_opencv
from vizcomp.photos.photo import Photo, load_bytes


class Showing(Protocol):
    """Settings that say how a file is shown."""

    @property
    def decoder(self) -> str: ...
    @property
    def max_pixels(self) -> int: ...


def source_seen(
    photo: Photo, original: Callable[[], bytes] | None, name: str, showing: Showing
) -> Pixels:
    """A source as a system gets it, upright, uint8 (H, W, 3).

    Args:
        original: the bytes that it was read from; None: it was no file, so that nothing was to be
            decoded.
        name: for errors.

    Raises:
        UnsupportedError: the decoder does not read it.
    """
    if showing.decoder == "pillow" or original is None:
        return displayed(photo)
    return by_opencv(photo.jpeg or original(), name)


def uncoloured(photo: Photo, showing: Showing) -> Pixels | None:
    """A photo with a colour profile as programs show it that know of none, as those that decode by
    OpenCV do; None where it has none, or where that is what systems are shown anyway."""
    if photo.icc is None or showing.decoder != "pillow":
        return None
    return np.ascontiguousarray(rgb(upright(photo.pixels, photo.orientation)))


def file_views(data: bytes, name: str, showing: Showing) -> tuple[Pixels, Pixels | None]:
    """`file_seen`, and `uncoloured` of the same file."""
    if showing.decoder != "pillow":
        return by_opencv(data, name), None
    photo = load_bytes(data, name, max_pixels=showing.max_pixels)
    return displayed(photo), uncoloured(photo, showing)


def file_seen(data: bytes, name: str, showing: Showing) -> Pixels:
    """A file as a system gets it: upright, uint8 (H, W, 3). Errors as `load_bytes` and
    `source_seen`."""
    if showing.decoder == "pillow":
        return displayed(load_bytes(data, name, max_pixels=showing.max_pixels))
    return by_opencv(data, name)
