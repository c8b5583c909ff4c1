"""The numbers of a depth map's file: pictures, .npy, .npz, .pfm and .exr."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.errors import FormatError, InputError, MissingExtraError, TooLargeError, VizcompError
from vizcomp.files.place import printable
from vizcomp.files.read import read_file
from vizcomp.photos.chunks import without_idle_chunks
from vizcomp.photos.colour import grey_samples, sample_bits
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS, decode_image, opened, pillow_errors
from vizcomp.photos.photo import read_photo

Numbers = npt.NDArray[Any]

_HINT = "a depth map has one number for each pixel: (height, width)"
# a PNG's text, as `depth --metric` writes it
_STATED = re.compile(rb"tEXtdepth-kind\0([a-z]{5,11})")
_COLOURFUL = 24  # levels between the channels of a pixel; a grey JPEG stays below


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """What a file holds, in its stored frame.

    Attributes:
        numbers: (h, w), integers or floats.
        full: the largest number that the file's samples can have; None: no limit that tells
            anything.
        stated: the kind of depth that the file itself names, else "".
        name: of the file, for messages.
    """

    numbers: Numbers
    full: int | None
    stated: str
    name: str


def read_values(
    path: Path, *, colour: bool = False, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Values:
    """Read a map of numbers.

    Args:
        path: the file.
        colour: take a coloured picture by its luma (BT.601) instead of refusing it.
        max_pixels: a larger map is refused before memory is taken.

    Raises:
        InputError: it cannot be read, is coloured, or holds no two-dimensional array.
        FormatError, MissingExtraError: as `load`.
    """
    name = printable(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        return _picture(path, name, colour, max_pixels)
    data = read_file(path, check=_not_empty, max_bytes=16 * max_pixels + (64 << 20))
    try:
        numbers = reader(data, name, max_pixels)
    except VizcompError:
        raise
    except MemoryError as exc:
        raise TooLargeError(f"{name} does not fit into memory", "make it smaller") from exc
    except Exception as exc:  # broken files make these libraries fail in many ways
        raise FormatError(f"{name} is broken: it cannot be read", "write it again") from exc
    return values_of(numbers, name)


def values_of(numbers: Numbers, name: str) -> Values:
    """The numbers of an array, (h, w), or with an axis of length 1 before or after these; `name`
    stands in messages.

    Raises:
        InputError: it is no array of one number for each pixel.
    """
    numbers = (
        numbers.squeeze()
        if numbers.ndim == 3 and 1 in (numbers.shape[0], numbers.shape[2])
        else numbers
    )
    if numbers.ndim != 2 or 0 in numbers.shape or numbers.dtype.kind not in "buif":
        raise InputError(f"{name} holds {numbers.dtype} {numbers.shape}", _HINT)
    if numbers.dtype.kind == "b":
        numbers = numbers.astype(np.uint8) * np.uint8(255)
    full = {"uint8": 255, "uint16": 65535}.get(numbers.dtype.name)
    return Values(numbers, full, "", name)


def _picture(path: Path, name: str, colour: bool, max_pixels: int) -> Values:
    source = read_photo(path, max_pixels)
    match = _STATED.search(source[:4096])
    stated = match[1].decode() if match else ""
    data = without_idle_chunks(source, [])
    with opened(data, name, max_pixels) as (image, kind):
        decode_image(image, data, name, kind)
        with pillow_errors(name, kind, data):
            if image.mode.startswith("I;16"):
                bits = sample_bits(image, data, kind)
                full = (1 << (bits if 8 < bits < 16 else 16)) - 1
                return Values(grey_samples(image, kind), full, stated, name)
            if image.mode in ("I", "F"):
                numbers = grey_samples(image, kind)
                short = image.mode == "I" and sample_bits(image, data, kind) == 16
                short = short and numbers.min() >= 0 and numbers.max() <= 65535
                return Values(numbers, 65535 if short else None, stated, name)
            if image.mode in ("LA", "La"):
                image = image.convert("L")
            elif image.mode not in ("1", "L", "RGB"):
                image = image.convert("RGB")
            if not colour and image.mode == "RGB" and _is_coloured(image):
                raise InputError(
                    f"{name} is a coloured picture of depth: its colours have no order",
                    "give the map that it was made from, in grey or as numbers",
                )
            return Values(np.asarray(image.convert("L")), 255, stated, name)


def _is_coloured(image: Image.Image) -> bool:
    """Whether more than one pixel in a hundred has a colour."""
    pixels = np.asarray(image)
    spread = pixels.max(-1).astype(np.int16) - pixels.min(-1)
    return bool((spread > _COLOURFUL).mean() > 0.01)


def _not_empty(head: bytes, name: str) -> None:
    if not head:
        raise InputError(f"{name} is empty", "copy or download it again")


def _npy(data: bytes, name: str, max_pixels: int) -> Numbers:
    source = io.BytesIO(data)
    version = np.lib.format.read_magic(source)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(source)
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, which are not read", _HINT)
    if math.prod(shape) > max_pixels:
        raise TooLargeError(f"{name} has the shape {shape}", "raise `max_pixels`")
    if math.prod(shape) * dtype.itemsize > len(data):
        raise FormatError(f"{name} is cut off", "copy it again")
    array: Numbers = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _npz(data: bytes, name: str, max_pixels: int) -> Numbers:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        chosen = members if len(members) == 1 else [m for m in members if m.filename == "depth.npy"]
        if not chosen:
            names = ", ".join(m.filename.removesuffix(".npy") for m in members[:5]) or "none"
            raise InputError(
                f"{name} holds no array called depth (there are: {names})",
                "name it so, or store it alone",
            )
        if chosen[0].file_size > 16 * max_pixels + 4096:
            raise TooLargeError(f"{name} holds more than is allowed", "raise `max_pixels`")
        return _npy(archive.read(chosen[0]), name, max_pixels)


def _pfm(data: bytes, name: str, max_pixels: int) -> Numbers:
    head = re.match(rb"P([Ff])\s+(\d{1,9})\s+(\d{1,9})\s+(-?[\d.eE+-]+)\s", data[:200])
    if head is None:
        raise FormatError(f"{name} is no PFM", "check its first lines")
    if head[1] == b"F":
        raise InputError(f"{name} has three colours", _HINT)
    width, height = int(head[2]), int(head[3])
    if width * height > max_pixels:
        raise TooLargeError(f"{name} has {width} x {height} pixels", "raise `max_pixels`")
    order = "<f4" if float(head[4]) < 0 else ">f4"
    body = np.frombuffer(data, order, count=width * height, offset=head.end())
    return body.reshape(height, width)[::-1].astype(np.float32)  # rows go from the bottom up


def _check_exr(data: bytes, name: str, max_pixels: int) -> None:
    """Refuses a map by the windows in its headers (OpenEXR file layout): the library takes memory
    for them at once."""
    if data[:4] != b"\x76\x2f\x31\x01":
        raise FormatError(f"{name} is no OpenEXR file", "write it again")
    windows = [
        struct.unpack("<4i", match[1])
        for match in re.finditer(rb"dataWindow\0box2i\0\x10\0\0\0(.{16})", data, re.DOTALL)
    ]
    if not windows:
        raise FormatError(f"{name} has no data window", "write it again")
    for left, top, right, bottom in windows:
        width, height = right - left + 1, bottom - top + 1
        if width < 1 or height < 1 or width * height > max_pixels:
            raise TooLargeError(f"{name} has {width} x {height} pixels", "raise `max_pixels`")


def _exr(data: bytes, name: str, max_pixels: int) -> Numbers:
    try:
        import OpenEXR
    except ImportError as exc:
        raise MissingExtraError("OpenEXR (EXR depth maps)", "exr") from exc
    import tempfile

    _check_exr(data, name, max_pixels)
    with tempfile.TemporaryDirectory() as folder:  # the library reads paths only
        path = Path(folder) / "map.exr"
        path.write_bytes(data)
        with OpenEXR.File(str(path)) as file:
            channels = {key: np.array(channel.pixels) for key, channel in file.channels().items()}
    for key in ("Z", "Y", "depth", "R", *channels):
        if key in channels:
            return channels[key]
    raise InputError(f"{name} has no channel", _HINT)


_READERS = {".npy": _npy, ".npz": _npz, ".pfm": _pfm, ".exr": _exr}
