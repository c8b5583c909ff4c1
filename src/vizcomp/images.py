"""Photos on disk: found, opened safely, turned, flattened to 8-bit RGB or grey, named, and written whole or not at all.

This is the one file of the package that opens photos and writes results. A photo is kept in its *stored frame*: the
EXIF orientation is a number beside the pixels, and `upright` applies it where somebody looks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vizcomp.errors import FormatError, InputError, MissingExtraError, TooLargeError, TruncatedError, UnsupportedError
from vizcomp.files.find import READABLE
from vizcomp.files.place import printable
from vizcomp.files.read import HEAD_BYTES, read_file
from vizcomp.files.store import AnyPath
from vizcomp.jpeg.segments import DAC, DHT, EXIF, SOS, exif_directory, exif_orientation, markers

DEFAULT_MAX_PIXELS = 200_000_000

Pixels = npt.NDArray[np.uint8]

# Only these formats are ever tried, each by its magic number: a file cannot choose another of Pillow's parsers by its content.
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

_STRIP_PIXELS = 1 << 18
_MAX_JPEG_SIDE = 65_535
_open_lock = threading.RLock()


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """A photo in memory, in its stored frame.

    Attributes:
        pixels: uint8 (H, W, 3) RGB or (H, W) grey; EXIF orientation not applied, transparency flattened on white.
        orientation: EXIF orientation, 1..8; 1 where there is none or a broken one.
        icc: ICC profile that describes `pixels`, or None (then sRGB).
        exif: Exif block as in a JPEG APP1 segment, from `Exif\\0\\0` on, or None.
        xmp: XMP packet without any header, or None.
        format: "JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF" or "PPM".
        source_bytes: size of the file.
        jpeg: the file's own bytes where it is a JPEG, else None.
        dpi: horizontal and vertical resolution, or None.
        notices: what a user should know about how the photo was read.
    """

    pixels: Pixels
    orientation: int
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    format: str
    source_bytes: int
    jpeg: bytes | None
    dpi: tuple[float, float] | None = None
    notices: tuple[str, ...] = ()


def load(path: AnyPath, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Read a photo; the file is opened and read once.

    Args:
        path: the file.
        max_pixels: a larger picture is refused by its header, before memory is taken.

    Raises:
        InputError: missing, unreadable, empty, not a file, or not an image that we read.
        FormatError: an image, but broken; `TruncatedError` cut off, `TooLargeError` over the limit,
            `UnsupportedError` of a kind we do not read.
        MissingExtraError: a HEIC without pillow-heif.
    """
    return load_bytes(_read_photo(path, max_pixels), printable(path), max_pixels=max_pixels)


def load_bytes(data: bytes, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Read a photo from memory; `name` stands in messages. Limits and errors as `load`."""
    with _opened(data, name, max_pixels) as (image, kind):
        frames = _frames(image, kind)
        _decode(image, data, name, kind)
        notices: list[str] = []
        if frames > 1:
            notices.append(
                f"first of {frames} pages" if kind == "TIFF"
                else f"main picture of {frames}" if kind in ("JPEG", "HEIF")
                else f"first of {frames} frames"
            )  # fmt: skip
        with _pillow(name, kind, data):
            info = dict(image.info)
            exif = _exif_of(image, info, kind, notices)
            icc = info.get("icc_profile")
            pixels, icc = _to_eight_bit(image, data, name, kind, icc if isinstance(icc, bytes) and icc else None, notices)
    xmp = info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "replace")
    return Photo(
        pixels=pixels,
        orientation=_orientation(exif),
        icc=icc,
        exif=exif,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        format=kind,
        source_bytes=len(data),
        jpeg=data if kind == "JPEG" else None,
        dpi=_dpi(info.get("dpi")),
        notices=tuple(notices),
    )


def decode_jpeg(data: bytes) -> Pixels:
    """Pixels of a JPEG that we wrote: uint8 (H, W, 3) RGB or (H, W) grey, stored frame; any size.

    Raises:
        FormatError: the bytes are no whole JPEG.
    """
    with _opened(data, "the JPEG", None) as (image, kind):
        _decode(image, data, "the JPEG", kind)
        with _pillow("the JPEG", kind, data):
            return _array(image if image.mode in ("L", "RGB") else image.convert("RGB"))


class JpegPixels:
    """A decoded picture that gives its pixels part by part, so that no array of them all is made.

    Attributes:
        shape: (H, W, 3), or (H, W) where it is grey.
        dtype: uint8.
    """

    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, image: Image.Image) -> None:
        self._image = image if image.mode in ("L", "RGB") else image.convert("RGB")
        self.shape: tuple[int, ...] = (image.height, image.width, 3)[: 2 if image.mode == "L" else 3]

    def __getitem__(self, part: tuple[slice, slice], /) -> Pixels:
        """Some rows and columns, in steps of 1, as a new array."""
        top, bottom, _ = part[0].indices(self.shape[0])
        left, right, _ = part[1].indices(self.shape[1])
        return np.asarray(self._image.crop((left, top, right, bottom)))


@contextlib.contextmanager
def jpeg_pixels(data: bytes) -> Iterator[JpegPixels]:
    """`decode_jpeg` for large pictures: the pixels part by part, until the context ends. Errors as `decode_jpeg`."""
    with _opened(data, "the JPEG", None) as (image, kind):
        _decode(image, data, "the JPEG", kind)
        yield JpegPixels(image)


def read_depth_map(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.float32]:
    """A ready-made depth map: float32 (h, w) in 0..1, bright = near, in the file's stored frame.

    8-bit and 16-bit grey by their full range, colour by its luma (BT.601), transparency ignored; 32-bit integer and
    float maps by their own least and largest value (all 0 where they are equal; not-a-number counts as far).

    Raises:
        InputError, FormatError, MissingExtraError: as `load`.
    """
    data = _read_photo(Path(path), max_pixels)
    name = printable(path)
    with _opened(data, name, max_pixels) as (image, kind):
        _decode(image, data, name, kind)
        with _pillow(name, kind, data):
            if image.mode.startswith("I;16"):
                return np.asarray(image).astype(np.float32) / np.float32(65535)
            if image.mode in ("I", "F"):
                values = np.asarray(image)
                if image.mode == "I" and _sample_bits(image, data, kind) == 16 and values.min() >= 0 and values.max() <= 65535:
                    return values.astype(np.float32) / np.float32(65535)
                return _stretched(values, name)[0]
            if image.mode in ("P", "PA", "RGBA", "LA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
                image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
            return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)


def _read_photo(path: AnyPath, max_pixels: int) -> bytes:
    return read_file(path, check=_recognise, max_bytes=16 * max_pixels + (64 << 20))


def _recognise(head: bytes, name: str) -> str:
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
            raise InputError(f"{name} is {what}, which is not read", f"convert it first; {READABLE}")
    raise InputError(f"{name} is not an image", READABLE)


_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop file"),
)


@contextlib.contextmanager
def _pillow(name: str, kind: str, data: bytes) -> Iterator[None]:
    """Turns whatever a decoder throws into our errors. Only calls into Pillow belong inside.

    Decoders fail on broken files with almost any exception (OSError, SyntaxError, ValueError, struct.error, KeyError,
    zlib.error ...), so all of them are caught here, and here alone.
    """
    try:
        yield
    except (FormatError, InputError, MissingExtraError):
        raise
    except MemoryError as exc:
        raise TooLargeError(f"{name} does not fit into memory", "make it smaller, or run fewer jobs at once") from exc
    except Exception as exc:
        raise _format_error(name, kind, data, exc) from exc


def _format_error(name: str, kind: str, data: bytes, exc: Exception) -> FormatError:
    text = str(exc).lower()
    if kind == "JPEG" and (special := _jpeg_special(data)):
        return UnsupportedError(f"{name} is {special}, which is not read", "convert it to an ordinary 8-bit JPEG or a PNG")
    if _is_cut(kind, data) or "truncated" in text or isinstance(exc, EOFError):
        return TruncatedError(f"{name} is cut off: the {kind} data end too early", "copy or download it again")
    if isinstance(exc, Image.DecompressionBombError):
        return TooLargeError(f"{name} is larger than allowed", "make it smaller, or raise the limit of pixels")
    known = ("unsupported", "unknown", "not supported", "cannot handle", "missing codec", "not implemented")
    whole_tiff = kind == "TIFF" and isinstance(exc, UnidentifiedImageError)  # Pillow's word for sample layouts it does not know
    if whole_tiff or isinstance(exc, NotImplementedError) or any(word in text for word in known):
        return UnsupportedError(f"{name} is a {kind} of a kind that is not read", "convert it to an ordinary JPEG or PNG")
    return FormatError(
        f"{name} is broken: its {kind} data cannot be decoded", "copy it again, or open and save it in another program"
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


def _special_frame(marker: int, header: bytes) -> str | None:
    if header and header[0] != 8:
        return f"a {header[0]}-bit JPEG"
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "a lossless JPEG"
    if marker in (0xC5, 0xC6, 0xCD, 0xCE):
        return "a hierarchical JPEG"
    return "an arithmetic-coded JPEG" if marker in (0xC9, 0xCA) and not _has_arithmetic() else None


def _has_arithmetic() -> bool:
    """Whether the JPEG library decodes arithmetic coding: always so in Pillow's own builds (libjpeg-turbo)."""
    from PIL import features

    return bool(features.check_feature("libjpeg_turbo"))


def _is_cut(kind: str, data: bytes) -> bool:
    """Whether a container that states its length, or must end in a mark, was cut; decoders do not always say so."""
    if kind == "WEBP":
        return len(data) < 20 or len(data) < int.from_bytes(data[4:8], "little") + 8
    if kind == "JPEG":
        return not data[-64:].rstrip(b"\x00").endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9") == -1
    if kind == "PNG":
        return b"IEND" not in data[-4096:]
    if kind == "TIFF":
        return data[2:4] in (b"*\x00", b"\x00*") and exif_directory(data) is None
    if kind == "GIF":
        return not data.rstrip(b"\x00").endswith(b";")
    if kind == "BMP":
        return len(data) < max(26, int.from_bytes(data[2:6], "little"))
    if kind in ("AVIF", "HEIF"):
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
def _quiet() -> Iterator[None]:
    """Pillow without its warnings and without its own limit of pixels; ours was or will be applied.

    Both are settings of the whole process, hence the lock, and hence not kept longer than needed.
    """
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _opened(data: bytes, name: str, max_pixels: int | None) -> Iterator[tuple[Image.Image, str]]:
    """An image by its header only, checked for size, and its format."""
    kind = _recognise(data[:HEAD_BYTES], name)
    if kind == "WEBP":  # its decoder takes memory for the whole picture as soon as it is opened
        _check_size(_webp_size(data), name, max_pixels)
    with _pillow(name, kind, data):
        if kind == "HEIF":
            opener = _heif_opener()
            with _quiet():
                image: Image.Image = opener(io.BytesIO(data))
        else:
            importlib.import_module(f"PIL.{_PLUGINS[kind]}")
            with _quiet():
                image = Image.open(io.BytesIO(data), formats=[kind])
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


def _check_size(size: tuple[int, int] | None, name: str, max_pixels: int | None) -> None:
    if size is not None and max_pixels is not None and size[0] * size[1] > max_pixels:
        raise TooLargeError(
            f"{name} has {size[0]} x {size[1]} pixels, more than the {max_pixels / 1e6:g} million allowed",
            "make it smaller, or raise the limit of pixels",
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
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def _decode(image: Image.Image, data: bytes, name: str, kind: str) -> None:
    with _pillow(name, kind, data):
        if kind == "JPEG":  # does not warn, and must not wait for other threads
            image.load()
        else:
            with _quiet():
                image.load()


def _frames(image: Image.Image, kind: str) -> int:
    """Number of pictures in the file; 1 where that cannot be told, since the first one counts."""
    try:
        with _quiet():
            frames = int(getattr(image, "n_frames", 1))
            if frames > 1 and kind != "HEIF":
                image.seek(0)
    except Exception:  # a decoder on a broken later frame; if the first one is broken too, decoding says so
        return 1
    return frames


def _to_eight_bit(
    image: Image.Image, data: bytes, name: str, kind: str, icc: bytes | None, notices: list[str]
) -> tuple[Pixels, bytes | None]:
    """Pixels as uint8 RGB or grey, and the ICC profile if it still describes them; adds to `notices`."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" not in image.info:
        if _sample_bits(image, data, kind) == 16:
            notices.append("16 bits a sample reduced to 8")
        pixels = _array(image)
    elif mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        notices.append("16 bits a sample reduced to 8")
        pixels = ((values * 255 + 32767) // 65535).astype(np.uint8)
        clear = image.info.get("transparency")
        if isinstance(clear, int) and (values == clear).any():
            pixels[values == clear] = 255
            notices.append("transparency flattened on white")
    elif mode in ("I", "F"):
        pixels = _wide_grey(image, data, name, kind, notices)
    elif mode == "1":
        pixels = _array(image.convert("L"))
    elif mode == "CMYK":
        return _array(_from_cmyk(image, icc, notices)), None
    elif mode in ("LAB", "YCbCr", "HSV"):
        pixels, icc = _array(image.convert("RGB")), None
        if mode == "LAB":
            notices.append("LAB converted to sRGB")
    else:
        if mode in ("LA", "RGBA") and _sample_bits(image, data, kind) == 16:
            notices.append("16 bits a sample reduced to 8")
        with _quiet():
            pixels = _array(_flattened(image, notices))
    if icc is not None and icc[16:20] != (b"GRAY" if pixels.ndim == 2 else b"RGB "):
        notices.append("ICC profile left out: it does not fit the colours")
        icc = None
    return pixels, icc


def _flattened(image: Image.Image, notices: list[str]) -> Image.Image:
    """Without palette and transparency, on white: mode L or RGB."""
    grey = image.mode in ("L", "LA", "La", "1")
    if image.mode in ("RGBa", "La"):  # colours multiplied by their alpha already
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    elif image.mode in ("PA",) or "transparency" in image.info:
        image = image.convert("LA" if grey else "RGBA")
    if image.mode not in ("RGBA", "LA"):
        return image.convert("L" if grey else "RGB")
    alpha = image.getchannel("A")
    opaque = image.convert("L" if grey else "RGB")
    if alpha.getextrema() == (255, 255):
        return opaque
    notices.append("transparency flattened on white")
    white = Image.new(opaque.mode, image.size, "white")
    white.paste(opaque, mask=alpha)
    return white


def _from_cmyk(image: Image.Image, icc: bytes | None, notices: list[str]) -> Image.Image:
    """CMYK to sRGB: by the photo's own profile if it has a usable one, else by the plain formula."""
    if icc is not None and icc[16:20] == b"CMYK":
        from PIL import ImageCms

        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None  # a broken profile: the plain formula still gives a picture
        if converted is not None:
            notices.append("CMYK converted to sRGB by its ICC profile")
            return converted
    notices.append("CMYK converted to RGB without a usable ICC profile: colours are approximate")
    return image.convert("RGB")


def _wide_grey(image: Image.Image, data: bytes, name: str, kind: str, notices: list[str]) -> Pixels:
    """Grey of 32-bit integers or floats to uint8."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "I" and low >= 0 and high <= 65535 and _sample_bits(image, data, kind) == 16:
        notices.append("16 bits a sample reduced to 8")
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 1:
        notices.append("float samples 0..1 reduced to 8 bits")
        return np.asarray(np.rint(values * 255), np.uint8)
    level, (low, high) = _stretched(values, name)
    notices.append(f"samples from {low:g} to {high:g} stretched to 8 bits")
    return np.rint(level * 255).astype(np.uint8)


def _stretched(values: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """Values by their own range: float32 in 0..1, and that range. Not-a-number counts as the least."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise UnsupportedError(f"{name} holds no finite value", "export it again with 8 or 16 bits a sample")
    low, high = float(finite.min()), float(finite.max())
    if not high > low:
        return np.zeros(values.shape, np.float32), (low, high)
    clean = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return ((clean - low) / (high - low)).astype(np.float32), (low, high)


def _sample_bits(image: Image.Image, data: bytes, kind: str) -> int:
    """Bits of a stored sample where the format has more than 8 in use; else 8."""
    if kind == "PNG" and len(data) > 24:
        return data[24]
    if kind == "PPM":
        return 16 if image.mode == "I" else 8
    if kind == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return int(bits[0] if isinstance(bits, tuple) else bits)
    return 8


def _array(image: Image.Image) -> Pixels:
    """Pixels of an L or RGB image as a new array; in strips, so that no second whole copy is made beside it."""
    width, height = image.size
    if width * height <= _STRIP_PIXELS * 2:
        return np.array(image, dtype=np.uint8)
    pixels = np.empty((height, width) if image.mode == "L" else (height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def _exif_of(image: Image.Image, info: dict[Any, Any], kind: str, notices: list[str]) -> bytes | None:
    """The Exif block from `Exif\\0\\0` on; None, with a notice, where it cannot be one."""
    if kind == "TIFF":
        return _exif_of_tiff(image)
    exif = info.get("exif")
    if not isinstance(exif, bytes) or not exif:
        return None
    body = exif.removeprefix(EXIF)
    if exif_directory(body) is None:
        notices.append("EXIF data left out: they are broken")
        return None
    return EXIF + body


# Of a TIFF's own tags those that describe the photo; the others describe how its pixels are stored. Not the orientation:
# Pillow turns a TIFF upright as it decodes.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)


def _exif_of_tiff(image: Image.Image) -> bytes | None:
    try:
        with _quiet():
            tags = getattr(image, "tag_v2", {})
            own = image.getexif()
            made = Image.Exif()
            for tag in _DESCRIPTIVE:
                if tag in (0x8769, 0x8825):
                    directory = own.get_ifd(tag)
                    if directory:
                        made[tag] = dict(directory)
                elif tag in tags:
                    made[tag] = tags[tag]
            return made.tobytes() if len(made) else None
    except Exception:  # Pillow writes what it read; odd tags make it fail in many ways, and a photo needs none of them
        return None


def _orientation(exif: bytes | None) -> int:
    return exif_orientation((exif or b"").removeprefix(EXIF))


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(v) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (math.isfinite(horizontal) and math.isfinite(vertical) and horizontal > 1 and vertical > 1):
        return None  # 0 and 1 stand for "no unit" in JFIF and TIFF
    return horizontal, vertical


def upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """From the stored frame to the picture as displayed.

    Args:
        array: (H, W) or (H, W, C), any dtype.
        orientation: EXIF orientation 1..8; other numbers count as 1.

    Returns:
        A view of `array`: (H, W, ...) for orientations 1 to 4, (W, H, ...) for 5 to 8.
    """
    if orientation >= 5 and orientation <= 8:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def stored(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The inverse of `upright`: from the picture as displayed to the stored frame; a view."""
    # 6 and 8 turn by a quarter and undo each other; each of the others undoes itself.
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def thumbnail(pixels: Pixels, *, long_side: int) -> Pixels:
    """A smaller copy whose longer side has `long_side` pixels; never enlarged. uint8 (H, W, 3) or (H, W), as given."""
    height, width = pixels.shape[:2]
    if max(height, width) <= long_side:
        return np.array(pixels)
    scale = long_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.array(small, dtype=np.uint8)


def to_srgb(photo: Photo) -> tuple[Pixels, tuple[str, ...]]:
    """A photo's pixels with its ICC profile applied, and what a user should know about that; in the stored frame.

    For outputs that carry no profile. Returns uint8 (H, W, 3) or, for a grey photo, (H, W). Pixels that have no profile, or one
    of sRGB by its name, are returned as they are.
    """
    if photo.icc is None:
        return photo.pixels, ()
    from PIL import ImageCms

    grey = photo.pixels.ndim == 2
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(photo.icc))
        name = ImageCms.getProfileDescription(profile).strip()
        if not grey and "srgb" in name.lower():
            return photo.pixels, ()
        converted = ImageCms.profileToProfile(
            Image.fromarray(photo.pixels),
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if converted is None:
            raise ValueError
        pixels = _array(converted)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return photo.pixels, ("ICC profile left out: it cannot be used",)
    return (np.ascontiguousarray(pixels[..., 1]) if grey else pixels), (
        f"converted to sRGB from {printable(name) or 'its ICC profile'}",
    )


def resize_map(values: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """A map at another size, without overshoot: float32 (h, w) in 0..1 to (height, width) in 0..1, triangle filter."""
    if values.shape == (height, width):
        return np.asarray(values, np.float32)
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32).clip(0, 1)


def encode_plain_jpeg(
    pixels: Pixels,
    *,
    quality: int,
    subsampling: str = "4:2:0",
    optimize: bool = False,
    progressive: bool = False,
    icc: bytes | None = None,
    exif: bytes | None = None,
) -> bytes:
    """An ordinary JPEG by Pillow (libjpeg-turbo): what results are compared with.

    Args:
        pixels: uint8 (H, W, 3) RGB or (H, W) grey.
        quality: 1..100, the scale of the Independent JPEG Group.
        subsampling: "4:4:4", "4:2:2" or "4:2:0"; grey has none.
        icc, exif: metadata to carry, as in `Photo`.

    Raises:
        UnsupportedError: a side longer than the 65,535 pixels that a JPEG can hold.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > _MAX_JPEG_SIDE:
        raise UnsupportedError(f"{width} x {height} pixels do not fit into a JPEG", "no side may be longer than 65535 pixels")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    options: dict[str, Any] = {"quality": quality, "optimize": optimize, "progressive": progressive}
    if image.mode == "RGB":
        options["subsampling"] = subsampling
    if icc:
        options["icc_profile"] = icc
    if exif:
        options["exif"] = exif
    buffer = io.BytesIO()
    try:
        image.save(buffer, "JPEG", **options)
    except (ValueError, OSError) as exc:  # metadata that no JPEG segment can hold
        if not (icc or exif):
            raise
        raise UnsupportedError("the metadata do not fit into a JPEG", "leave the metadata out") from exc
    return buffer.getvalue()


def encode_depth_png16(depth: npt.NDArray[np.float32]) -> bytes:
    """A depth map as a 16-bit grey PNG: float (h, w) in 0..1 to 0..65535; not-a-number as 0."""
    levels = np.rint(np.nan_to_num(np.asarray(depth, np.float32), nan=0.0).clip(0, 1) * np.float32(65535)).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def encode_png(pixels: Pixels) -> bytes:
    """A PNG of 8-bit pixels: uint8 (H, W, 3) RGB or (H, W) grey."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
