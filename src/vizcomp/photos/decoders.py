"""Formats of photos by their first bytes, opened safely by Pillow."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import math
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vizcomp.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    TooLargeError,
    TruncatedError,
    UnsupportedError,
)
from vizcomp.files.find import READABLE
from vizcomp.files.read import HEAD_BYTES
from vizcomp.jpeg.read import MAX_SCANS
from vizcomp.jpeg.segments import DAC, DHT, EXIF, SOS, exif_directory, markers
from vizcomp.photos.chunks import exif_of_text
from vizcomp.photos.tiff import mend_tiles, more_layouts

DEFAULT_MAX_PIXELS = 200_000_000

Pixels = npt.NDArray[np.uint8]

# Only these formats are ever tried, each by its magic number: a file cannot choose another of
# Pillow's parsers by its content.
_PLUGINS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "AVIF": "AvifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "PPM": "PpmImagePlugin",
}

_MOST_SIDE = 65500  # of a JPEG, as libjpeg has it; the format allows 35 more
MAX_EXIF = 10_000  # blocks in a JPEG; a camera writes one
MAX_PAGES = 1000  # of a TIFF that are counted, for a notice

open_lock = threading.RLock()


def recognise(head: bytes, name: str) -> str:
    """The format by its magic number.

    Raises:
        InputError: empty, or none of the formats that we read.
    """
    if not head:
        raise InputError(f"{name} is empty", "copy or download it again")
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        size = min(max(struct.unpack(">I", head[:4])[0], 16), HEAD_BYTES)
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)) - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIF"
    if head.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return "JXL"
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "TIFF"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    if re.match(rb"P[1-6f][\s#]", head):
        return "PPM"
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise InputError(
                f"{name} is {what}, which is not read", f"convert it first; {READABLE}"
            )
    raise InputError(f"{name} is not an image", READABLE)


_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop file"),
)


@contextlib.contextmanager
def pillow_errors(name: str, kind: str, data: bytes) -> Iterator[None]:
    """Turns whatever a decoder throws into our errors. Only calls into Pillow belong inside.

    Decoders fail on broken files with almost any exception (OSError, SyntaxError, ValueError,
    struct.error, KeyError, zlib.error ...), so all of them are caught here, and here alone.
    """
    try:
        yield
    except (FormatError, InputError, MissingExtraError):
        raise
    except MemoryError as exc:
        raise TooLargeError(
            f"{name} does not fit into memory", "make it smaller, or run fewer jobs at once"
        ) from exc
    except Exception as exc:
        raise _format_error(name, kind, data, exc) from exc


def _format_error(name: str, kind: str, data: bytes, exc: Exception) -> FormatError:
    text = str(exc).lower()
    if kind == "JPEG" and (special := _jpeg_special(data)):
        return UnsupportedError(
            f"{name} is {special}, which is not read",
            "convert it to an ordinary 8-bit JPEG or a PNG",
        )
    if _is_cut(kind, data) or "truncated" in text or isinstance(exc, EOFError):
        return TruncatedError(
            f"{name} is cut off: the {kind} data end too early", "copy or download it again"
        )
    if isinstance(exc, Image.DecompressionBombError):
        return TooLargeError(
            f"{name} is larger than allowed", "make it smaller, or raise `max_pixels`"
        )
    known = (
        "unsupported",
        "unknown",
        "not supported",
        "cannot handle",
        "missing codec",
        "not implemented",
    )
    # Pillow's word for sample layouts it does not know
    whole_tiff = kind == "TIFF" and isinstance(exc, UnidentifiedImageError)
    if whole_tiff or isinstance(exc, NotImplementedError) or any(word in text for word in known):
        return UnsupportedError(
            f"{name} is a {kind} of a kind that is not read",
            "convert it to an ordinary JPEG or PNG",
        )
    return FormatError(
        f"{name} is broken: its {kind} data cannot be decoded",
        "copy it again, or open and save it in another program",
    )


def _jpeg_special(data: bytes) -> str | None:
    """What sets a JPEG apart that Pillow refuses; None for an ordinary one."""
    end = 2
    try:
        for marker in markers(data):
            if data[end : marker.end - len(marker.payload) - 4].strip(b"\xff"):
                return None  # bytes that belong to no segment: it is broken, whatever the rest says
            end = marker.end
            if 0xC0 <= marker.code <= 0xCF and marker.code not in (DHT, 0xC8, DAC):
                return _special_frame(marker.code, marker.payload)
            if marker.code == SOS:
                return None
    except FormatError:
        return None
    return None


def _has_arithmetic() -> bool:
    """Whether the JPEG library decodes arithmetic coding: always so in Pillow's own builds
    (libjpeg-turbo)."""
    from PIL import features

    return bool(features.check_feature("libjpeg_turbo"))


def _is_cut(kind: str, data: bytes) -> bool:
    """Whether a container that states its length, or must end in a mark, was cut; decoders do not
    always say so."""
    if kind == "WEBP":
        return len(data) < 20 or len(data) < int.from_bytes(data[4:8], "little") + 8
    if kind == "JPEG":
        return (
            not data[-64:].rstrip(b"\x00").endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9") == -1
        )
    if kind == "PNG":
        return b"IEND" not in data[-4096:]
    if kind == "TIFF":
        return data[2:4] in (b"*\x00", b"\x00*") and exif_directory(data) is None
    if kind == "GIF":
        return not data.rstrip(b"\x00").endswith(b";")
    if kind == "BMP":
        return len(data) < max(26, int.from_bytes(data[2:6], "little"))
    if kind in ("AVIF", "HEIF") or (kind == "JXL" and data[:1] == b"\0"):
        position = 0
        while position + 8 <= len(data):
            size = int.from_bytes(data[position : position + 4], "big")
            if size == 1 and position + 16 <= len(data):
                size = int.from_bytes(data[position + 8 : position + 16], "big")
            if size == 0:
                return False
            if size < 8:
                return False
            position += size
        return position > len(data) or position + 8 > len(data) > position
    return False


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow without its warnings and without its own limit of pixels; ours was or will be applied.

    Both are settings of the whole process, hence the lock, and hence not kept longer than needed.
    """
    with open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def opened(data: bytes, name: str, max_pixels: int | None) -> Iterator[tuple[Image.Image, str]]:
    """An image by its header only, checked for size, and its format."""
    kind = recognise(data[:HEAD_BYTES], name)
    if kind == "WEBP":  # its decoder takes memory for the whole picture as soon as it is opened
        _check_size(_webp_size(data), name, max_pixels)
    if kind == "JXL":  # its plugin decodes as it opens
        _check_size(jxl_size(data), name, max_pixels)
    if kind == "JPEG":
        _check_scans(data, name)
        _check_exif(data, name)
    with pillow_errors(name, kind, data):
        if kind == "HEIF":
            opener = _heif_opener()
            with quiet_pillow():
                image: Image.Image = opener(io.BytesIO(data))
        elif kind == "JXL":
            opener = load_jxl()
            with quiet_pillow():
                image = opener(io.BytesIO(data))
        else:
            importlib.import_module(f"PIL.{_PLUGINS[kind]}")
            with quiet_pillow(), more_layouts() if kind == "TIFF" else contextlib.nullcontext():
                image = Image.open(io.BytesIO(data), formats=[kind])
            if kind == "TIFF":
                mend_tiles(image)
    try:
        _check_size(image.size, name, max_pixels)
        yield image, kind
    finally:
        image.close()


def _heif_opener() -> Callable[[io.BytesIO], Image.Image]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as exc:
        raise MissingExtraError("pillow-heif (HEIC photos)", "heif") from exc
    return HeifImageFile  # type: ignore[no-any-return]


def load_jxl() -> Callable[[io.BytesIO], Image.Image]:
    """What opens a JPEG XL; Pillow writes them too after this call.

    Raises:
        MissingExtraError: its package is not installed.
    """
    try:
        from pillow_jxl import JpegXLImagePlugin
    except ImportError as exc:
        raise MissingExtraError("pillow-jxl-plugin (JPEG XL)", "jxl") from exc
    JpegXLImagePlugin.DECODE_THREADS = 0  # workers share the cores
    return JpegXLImagePlugin.JXLImageFile  # type: ignore[no-any-return]


def _check_scans(data: bytes, name: str) -> None:
    if data.count(b"\xff\xda") <= MAX_SCANS:  # what follows the picture may hold some by chance
        return
    scans = 0
    with contextlib.suppress(FormatError):  # broken: the decoder says so
        scans = sum(
            marker.code == SOS for marker in itertools.islice(markers(data), 100 * MAX_SCANS)
        )
    if scans > MAX_SCANS:
        raise TooLargeError(
            f"{name} has more than {MAX_SCANS} scans", "open and save it in another program"
        )


def _check_exif(data: bytes, name: str) -> None:
    """Pillow joins the blocks of EXIF one by one, which takes the square of their number."""
    if data.count(b"\xff\xe1") <= MAX_EXIF:
        return
    blocks = 0
    with contextlib.suppress(FormatError):
        for marker in itertools.islice(markers(data), 100 * MAX_EXIF):
            blocks += marker.payload.startswith(EXIF)
    if blocks > MAX_EXIF:
        raise TooLargeError(
            f"{name} has more than {MAX_EXIF:,} blocks of EXIF", "remove its metadata"
        )


def _check_size(size: tuple[int, int] | None, name: str, max_pixels: int | None) -> None:
    if size is not None and max_pixels is not None and size[0] * size[1] > max_pixels:
        raise TooLargeError(
            f"{name} has {size[0]} x {size[1]} pixels, more than the {max_pixels / 1e6:g} million"
            " allowed",
            "make it smaller, or raise `max_pixels`",
        )


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return (
            int.from_bytes(body[6:8], "little") & 0x3FFF,
            int.from_bytes(body[8:10], "little") & 0x3FFF,
        )
    return None


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the header of a JPEG XL (ISO/IEC 18181-1, SizeHeader); None where there
    is none."""
    stream = data if data.startswith(b"\xff\x0a") else _jxl_codestream(data)
    if len(stream) < 12:
        return None
    bits, place = int.from_bytes(stream[2:12], "little"), 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return bits >> (place - count) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else 1 + take((9, 13, 18, 30)[take(2)])

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    across, down = _JXL_RATIOS[ratio - 1]
    return height * across // down, height


def _jxl_codestream(data: bytes) -> bytes:
    """The beginning of the codestream in a container (ISO/IEC 18181-2): the first jxlc box, or the
    first jxlp after its index."""
    at = 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        kind = data[at + 4 : at + 8]
        if kind in (b"jxlc", b"jxlp"):
            start = at + head + (4 if kind == b"jxlp" else 0)
            return data[start : start + 16]
        if size < head:
            break
        at += size
    return b""


def decode_image(image: Image.Image, data: bytes, name: str, kind: str) -> None:
    with pillow_errors(name, kind, data):
        if kind == "JPEG":  # does not warn, and must not wait for other threads
            image.load()
        else:
            with quiet_pillow():
                image.load()


def count_frames(image: Image.Image, data: bytes, kind: str) -> int:
    """Number of pictures in the file, of a TIFF `MAX_PAGES` at most; 1 where that cannot be told,
    since the first one counts."""
    if kind == "TIFF":  # Pillow takes the square of their number
        return _count_pages(data)
    try:
        with quiet_pillow():
            frames = int(getattr(image, "n_frames", 1))
            if frames > 1 and kind != "HEIF":
                image.seek(0)
    # a decoder on a broken later frame; if the first one is broken too, decoding says so
    except Exception:
        return 1
    return frames


def _count_pages(data: bytes) -> int:
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    large = data[2:4] in (b"+\x00", b"\x00+")
    start, count_bytes, entry, width = (8, 8, 20, 8) if large else (4, 2, 12, 4)
    seen: set[int] = set()
    at = int.from_bytes(data[start : start + width], order)
    while 0 < at < len(data) and at not in seen and len(seen) < MAX_PAGES:
        seen.add(at)
        end = at + count_bytes + entry * int.from_bytes(data[at : at + count_bytes], order)
        at = int.from_bytes(data[end : end + width], order)
    return max(1, len(seen))


def exif_of(
    image: Image.Image, info: dict[Any, Any], kind: str, notices: list[str]
) -> bytes | None:
    """The Exif block from `Exif\\0\\0` on; None, with a notice, where it cannot be one."""
    if kind == "TIFF":
        return _exif_of_tiff(image)
    exif = info.get("exif") or (exif_of_text(info) if kind == "PNG" else None)
    if not isinstance(exif, bytes) or not exif:
        return None
    body = exif.removeprefix(EXIF)
    if exif_directory(body) is None:
        notices.append("EXIF data left out: they are broken")
        return None
    return EXIF + body


# Of a TIFF's own tags those that describe the photo; the others describe how its pixels are stored.
# Not the orientation: Pillow turns a TIFF upright as it decodes.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)


def _exif_of_tiff(image: Image.Image) -> bytes | None:
    try:
        with quiet_pillow():
            tags = getattr(image, "tag_v2", {})
            tiff_exif = image.getexif()
            exif = Image.Exif()
            for tag in _DESCRIPTIVE:
                if tag in (0x8769, 0x8825):
                    directory = tiff_exif.get_ifd(tag)
                    if directory:
                        exif[tag] = dict(directory)
                elif tag in tags:
                    exif[tag] = tags[tag]
            return exif.tobytes() if len(exif) else None
    # Pillow writes what it read; odd tags make it fail in many ways, and a photo needs none of them
    except Exception:
        return None


def dots_per_inch(value: object) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(v) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (
        math.isfinite(horizontal) and math.isfinite(vertical) and horizontal > 1 and vertical > 1
    ):
        return None  # 0 and 1 stand for "no unit" in JFIF and TIFF
    return horizontal, vertical


def _special_frame(marker: int, header: bytes) -> str | None:
    if header and header[0] != 8:
        return f"a {header[0]}-bit JPEG"
    if len(header) >= 5 and max(struct.unpack_from(">HH", header, 1)) > _MOST_SIDE:
        return f"a JPEG with a side above {_MOST_SIDE} pixels"
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "a lossless JPEG"
    if marker in (0xC5, 0xC6, 0xCD, 0xCE):
        return "a hierarchical JPEG"
    return "an arithmetic-coded JPEG" if marker in (0xC9, 0xCA) and not _has_arithmetic() else None
