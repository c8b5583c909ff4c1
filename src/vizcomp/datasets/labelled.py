"""Labelled pictures as arrays, and how one picture is read."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from vizcomp.errors import InputError, TooLargeError, VizcompError
from vizcomp.files.find import SYSTEM_FOLDERS
from vizcomp.photos.frame import rgb, upright
from vizcomp.photos.photo import load_bytes

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Part = Literal["train", "validation", "test", "all"]
OnSkip = Callable[[str, str], None]

MAX_SIZE = 1024
"""Longest side of a labelled image; larger ones are photos, which are read one by one."""

# bytes of a picture or batch; CIFAR-100's is the largest published one, 155 MB
MAX_FILE = 256 << 20

MAX_MEMBERS = 5_000_000

IN_MEMORY = 2 << 30  # bytes of pictures that are held in memory

_SMALL = 256 << 10  # bytes of a picture that is read the quick way
_SMALL_PIXELS = 1 << 20
FORMS_READ = (
    "readable are CIFAR-10 and CIFAR-100 as published, Parquet, and folders with one sub-folder for"
    " each class"
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Images of one size with a class each, in memory.

    Attributes:
        images: uint8 (N, size, size, 3), RGB, C-contiguous.
        labels: int64 (N,), indices into `classes`.
        classes: names of the classes.
        names: for each image the file it came from, below the data's own folder, or the name that
            its batch states; safe to print.
        skipped: (name, reason) of each picture that could not be read.
        source: what the data were found as, such as "CIFAR-10, python batches".
        resized: how many had another size, and were cropped to a square and resized.
    """

    images: Pixels
    labels: Labels
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    source: str
    resized: int = 0

    def __len__(self) -> int:
        return len(self.labels)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


class NoPart(InputError):
    """The data have no such part."""


class Unreadable(Exception):
    """One picture cannot be used; the others may."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def make_room(count: int, size: int) -> Pixels:
    """An array for pictures, uint8 (count, size, size, 3): in memory, or from `IN_MEMORY` bytes on
    in a temporary file.

    Raises:
        TooLargeError: neither has room.
    """
    shape = (count, size, size, 3)
    try:
        if count * size * size * 3 < IN_MEMORY:
            return np.empty(shape, np.uint8)
        with tempfile.TemporaryFile(prefix="vizcomp-pictures-") as file:
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except (MemoryError, OSError) as exc:
        raise TooLargeError(
            f"there is no room for {count} images of side {size}", "use a smaller size"
        ) from exc


def read_picture(data: bytes, size: int, *, exact: bool = False) -> tuple[Pixels, bool]:
    """One picture as uint8 (size, size, 3), and whether it had another size.

    Args:
        exact: refuse another size.

    Raises:
        Unreadable: it is no picture.
        InputError: another size, and `exact`.
    """
    pixels = _small_picture(data)
    if pixels is None:
        try:
            pixels = upright_rgb(data)
        except VizcompError as exc:
            raise Unreadable(exc.message) from exc
    height, width = pixels.shape[:2]
    if height == width == size:
        return pixels, False
    if exact:
        raise InputError(
            f"a picture of {width}x{height} pixels among training data for {size}x{size}",
            f"`side` {size} crops and resizes every picture; another `side` trains at that size",
        )
    return square(pixels, size), True


def _small_picture(data: bytes) -> Pixels | None:
    """The plain case, quickly: a small JPEG or PNG without anything odd. None for all others, the
    broken ones too.

    The checks of `photo.load_bytes` cost more time than such a picture itself, 50,000 times.
    """
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    if len(data) > _SMALL:
        return None
    try:
        image: JpegImageFile | PngImageFile
        if data.startswith(b"\xff\xd8\xff"):
            image = JpegImageFile(io.BytesIO(data))
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            image = PngImageFile(io.BytesIO(data))
        else:
            return None
        if image.mode not in ("L", "RGB") or image.width * image.height > _SMALL_PIXELS:
            return None
        image.load()
        if "exif" in image.info or "transparency" in image.info:
            return None
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception:  # decoders fail with almost anything; the careful way says what is wrong
        return None


def upright_rgb(data: bytes) -> Pixels:
    """Any picture as displayed: uint8 (H, W, 3), C-contiguous. Errors as `photo.load_bytes`."""
    photo = load_bytes(data, "the file")
    return np.ascontiguousarray(rgb(upright(photo.pixels, photo.orientation)))


def square(pixels: Pixels, size: int) -> Pixels:
    """The square in the middle of uint8 (H, W, 3), resized to (size, size, 3); Lanczos, widened
    where it shrinks."""
    from PIL import Image

    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0))
