"""Whatever holds an image, to a photo: a path, bytes, a file object, a PIL image, an array."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from vizcomp.errors import InputError
from vizcomp.files.find import InputFile
from vizcomp.files.place import printable
from vizcomp.files.read import read_file
from vizcomp.files.store import StorePath, parse_place
from vizcomp.photos.decoders import recognise
from vizcomp.photos.photo import Photo, in_memory, load_bytes, photo_limit

IN_MEMORY = "the image"  # its name in messages
_TAKEN = (
    "give a path, the bytes of a file, a file object, a PIL image or a uint8 array (H, W) or (H, W,"
    " 3), RGB"
)
_PLAIN = ("L", "RGB")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A photo, and where it came from.

    Attributes:
        photo: as it is compressed.
        file: by which maps are found, and named in messages.
        original: gives the bytes of the file that it was read from; None where it was no file.
        named: it has a name by which maps can be found.
    """

    photo: Photo
    file: InputFile
    original: Callable[[], bytes] | None
    named: bool = False


def open_image(image: Any, *, max_pixels: int) -> Opened:
    """A photo from anything that holds one.

    Args:
        image: a path (s3:// and gs:// too), the bytes of a file in any format that is read, an
            object with `read`, a PIL image, a `Photo`, or a uint8 array (H, W) grey, (H, W, 3) RGB
            or (H, W, 4) with alpha.
        max_pixels: a larger picture is refused.

    Raises:
        InputError: it is none of these, or cannot be read.
        FormatError: the bytes are of no whole image.
    """
    if isinstance(image, Photo):
        jpeg = image.jpeg
        return Opened(image, _nameless(), None if jpeg is None else lambda: jpeg)
    if isinstance(image, str | os.PathLike | StorePath):
        place = image if isinstance(image, StorePath) else parse_place(image)
        data = read_file(place, check=recognise, max_bytes=photo_limit(max_pixels))
        photo = load_bytes(data, printable(place), max_pixels=max_pixels)
        return Opened(photo, InputFile(place, PurePath(place.name)), lambda: data, named=True)
    if isinstance(image, bytes | bytearray | memoryview):
        return _of_bytes(bytes(image), IN_MEMORY, max_pixels)
    if isinstance(image, Image.Image):
        return Opened(_of_pil(image, max_pixels), _nameless(), None)
    if callable(getattr(image, "read", None)):
        data = image.read()
        name = getattr(image, "name", "")
        if not isinstance(data, bytes):
            raise InputError(
                "the file object gives no bytes", "open it in binary mode, as open(path, 'rb')"
            )
        return _of_bytes(
            data, printable(name) if isinstance(name, str) and name else IN_MEMORY, max_pixels
        )
    if isinstance(image, np.ndarray):
        return Opened(_of_array(image, max_pixels), _nameless(), None)
    raise InputError(f"a value of the type {type(image).__name__} is no image", _TAKEN)


def _nameless(name: str = IN_MEMORY) -> InputFile:
    return InputFile(PurePath(name), PurePath(name), name)  # type: ignore[arg-type]  # never opened


def _of_bytes(data: bytes, name: str, max_pixels: int) -> Opened:
    if not data:
        raise InputError(
            f"{name} is empty", "a file object that was read already has to be sought back"
        )
    return Opened(load_bytes(data, name, max_pixels=max_pixels), _nameless(name), lambda: data)


def _of_array(array: Any, max_pixels: int) -> Photo:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8:
        hint = "scale it to 0..255 and use astype('uint8')" if array.dtype.kind in "fb" else _TAKEN
        raise InputError(f"the array holds {array.dtype}, not uint8", hint)
    if (
        array.ndim not in (2, 3)
        or 0 in array.shape
        or (array.ndim == 3 and array.shape[2] not in (3, 4))
    ):
        hint = (
            "put the channels last: (H, W, 3)"
            if array.ndim == 3 and array.shape[0] in (1, 3)
            else _TAKEN
        )
        raise InputError(f"the array has the shape {tuple(array.shape)}, which is no image", hint)
    if array.ndim == 3 and array.shape[2] == 4:
        return _of_pil(Image.fromarray(np.ascontiguousarray(array)), max_pixels)
    return _plain(np.ascontiguousarray(array), max_pixels)


def _plain(pixels: Any, max_pixels: int, **metadata: Any) -> Photo:
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        raise InputError(
            f"{pixels.shape[1]} x {pixels.shape[0]} pixels are too many",
            "raise the limit with `max_pixels`",
        )
    return in_memory(pixels, **metadata)


def _of_pil(image: Image.Image, max_pixels: int) -> Photo:
    """Grey and RGB as they are; other modes as a file of that kind is read: transparency on white,
    16 bits to 8."""
    try:
        image.load()
    except OSError as exc:
        raise InputError(
            f"the PIL image cannot be read: {exc}",
            "its file is broken, or was closed before it was loaded",
        ) from exc
    if 0 in image.size:
        raise InputError("the PIL image has no pixels", _TAKEN)
    if image.mode not in (*_PLAIN, "1", "LA", "P", "RGBA", "I", "I;16", "I;16B"):
        image = image.convert(
            "L" if image.mode == "F" else "RGBA" if image.mode in ("PA", "RGBa") else "RGB"
        )
    buffer = io.BytesIO()
    if image.mode in _PLAIN and "transparency" not in image.info:
        # carries the metadata by the way that those of files take
        head = Image.new(image.mode, (1, 1))
        head.save(buffer, "PNG", exif=image.getexif(), icc_profile=image.info.get("icc_profile"))
        about = load_bytes(buffer.getvalue(), IN_MEMORY)
        return _plain(
            np.asarray(image),
            max_pixels,
            icc=about.icc,
            exif=about.exif,
            orientation=about.orientation,
        )
    image.save(buffer, "PNG", compress_level=1, exif=image.getexif())
    photo = load_bytes(buffer.getvalue(), IN_MEMORY, max_pixels=max_pixels)
    return dataclasses.replace(photo, format="array", source_bytes=photo.pixels.nbytes)
