"""`vizcomp.encode` and `vizcomp.decode`: one image to a .vzc file and back."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.api.images import IN_MEMORY, open_image
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.place import printable
from vizcomp.files.read import read_file
from vizcomp.files.store import StorePath, parse_place
from vizcomp.files.write import write_atomic
from vizcomp.neural import find
from vizcomp.neural.codec import Decoded, NeuralCodec
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import photo_limit, to_srgb
from vizcomp.vzc import image as vzc

_opening = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An image as a .vzc file.

    Attributes:
        data: the bytes of the file; `bytes(result)` is the same.
        width, height: of the image, upright.
        iterations: how many are in the file.
        notices: what a user should know about how the image was read.
    """

    data: bytes
    width: int
    height: int
    iterations: int
    notices: tuple[str, ...] = ()

    @property
    def bpp(self) -> float:
        """Bits of the file for each pixel."""
        return 8 * len(self.data) / (self.width * self.height)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written, or exists and `overwrite` is False.
        """
        write_atomic(parse_place(path), self.data, overwrite=overwrite)

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)


def encode(
    image: Any,
    *,
    model: str | os.PathLike[str] = "photo",
    iterations: int | None = None,
    bpp: float | None = None,
    search: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Encoded:
    """Encode one image with the recurrent codec, as `vizcomp encode` does it for a file.

        data = bytes(vizcomp.encode("street.jpg", iterations=4))

    The codec is opened once in a process. Colours become sRGB, and an EXIF rotation is applied.

    Args:
        image: as `vizcomp.compress` takes it.
        model: "photo" (any size), "cifar" (32x32), "cifar-label" (32x32, paints a label), or the
            path of one.
        iterations: 1 to the model's own; None for its default.
        bpp: as many iterations as fit into this many bits of file for each pixel, one at least.
        search: candidates tried in each iteration, as `NeuralCodec.encode`.
        max_pixels: a larger image is refused.

    Raises:
        SettingsError: a value is out of its range.
        InputError, FormatError: the image cannot be read, or is of another size than the model's.
        ModelError: no such model.
    """
    if bpp is not None and not bpp > 0:
        raise SettingsError(
            f"{bpp} bits for each pixel are not possible", "use a number above 0, as `bpp` 0.5"
        )
    photo = open_image(image, max_pixels=max_pixels).photo
    pixels, notices = to_srgb(photo)
    pixels = np.ascontiguousarray(upright(pixels, photo.orientation))
    with _opening:
        codec = _codec(os.fspath(model))
    data = codec.encode(pixels, iterations=iterations, bpp=bpp, search=search)
    height, width = pixels.shape[:2]
    return Encoded(
        data, width, height, vzc.read_header(data).iterations, (*photo.notices, *notices)
    )


@functools.lru_cache(maxsize=2)
def _codec(name: str) -> NeuralCodec:
    return NeuralCodec.load(name)


def decode(
    source: Any,
    *,
    models: Sequence[str | Path] = (),
    iterations: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    allow_truncated: bool = False,
) -> Decoded:
    """The image of a .vzc file: `decode("street.vzc").image` is uint8 (H, W, 3), or (H, W) where
    the source was grey.

    Args:
        source: a path, the bytes of the file, a file object, or what `vizcomp.encode` returned.
        models: codecs to look at first, before the bundled ones and those in the cache.
        iterations: stop after so many; None: all there are.
        max_pixels: a larger image is refused by its header.
        allow_truncated: of a file that is cut off, what can be had; `complete` and `problem` say
            so.

    Raises:
        FormatError: no .vzc file, or a damaged one.
        WeightsMissingError: the model that wrote it is not here.
    """
    if isinstance(source, str | os.PathLike | StorePath):
        place = source if isinstance(source, StorePath) else parse_place(source)
        data = read_file(place, check=lambda head, name: None, max_bytes=photo_limit(max_pixels))
        if not data:
            raise InputError(f"{printable(place)} is empty", "copy or download it again")
    elif isinstance(source, bytes | bytearray | memoryview | Encoded):
        data = bytes(source)
    elif callable(getattr(source, "read", None)):
        data = source.read()
    else:
        raise InputError(
            f"a value of the type {type(source).__name__} is no .vzc file",
            "give a path, its bytes, or a file object",
        )
    if not isinstance(data, bytes):
        raise InputError(
            f"{IN_MEMORY} gives no bytes", "open it in binary mode, as open(path, 'rb')"
        )
    with _opening:  # its models are kept in one table
        return find.decode(
            data,
            models=models,
            iterations=iterations,
            max_pixels=max_pixels,
            allow_truncated=allow_truncated,
        )
