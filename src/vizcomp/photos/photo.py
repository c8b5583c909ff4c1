"""A photo read from a file or from bytes, with what its file says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from vizcomp.errors import FormatError
from vizcomp.files.place import printable
from vizcomp.files.read import read_file
from vizcomp.files.store import AnyPath
from vizcomp.jpeg.exif import states_orientation
from vizcomp.jpeg.segments import (
    APP1,
    EXIF,
    chroma_sampling,
    companions,
    exif_orientation,
    markers,
    upright_exif,
)
from vizcomp.jpeg.xmp import extended_xmp, joined_xmp, xmp_orientation
from vizcomp.photos.boxes import DEPTH_MAP, GAIN_MAP, carried
from vizcomp.photos.chunks import without_idle_chunks
from vizcomp.photos.colour import as_array, stated_colours, to_eight_bit
from vizcomp.photos.decoders import (
    DEFAULT_MAX_PIXELS,
    MAX_PAGES,
    Pixels,
    count_frames,
    decode_image,
    dots_per_inch,
    exif_of,
    opened,
    pillow_errors,
    recognise,
)

BOXED = ("AVIF", "HEIF", "JXL")
STILL_THERE = tuple(f"its {what} is not in the result" for what in (GAIN_MAP, DEPTH_MAP))
"""Notices that do not hold of a HEIC, AVIF or JPEG XL that is kept."""
_ROUNDING = 4  # levels by which profiles of sRGB differ among each other


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """A photo in memory, in its stored frame.

    Attributes:
        pixels: uint8 (H, W, 3) RGB or (H, W) grey; EXIF orientation not applied, transparency
            flattened on white.
        orientation: EXIF orientation, 1..8; 1 where there is none or a broken one.
        icc: ICC profile that describes `pixels`, or None (then sRGB).
        exif: Exif block as in a JPEG APP1 segment, from `Exif\\0\\0` on, or None.
        xmp: XMP packet without any header, or None.
        format: "JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JXL", "TIFF", "BMP", "GIF" or "PPM".
        source_bytes: size of the file.
        jpeg: the file's own bytes where it is a JPEG, else None.
        dpi: horizontal and vertical resolution, or None.
        alpha: opacity, uint8 (H, W), 255 = opaque; None where all is.
        notices: what a user should know about how the photo was read.
        subsampling: of chroma, as `jpeg.segments.chroma_sampling`; "" where the file is no JPEG.
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
    alpha: Pixels | None = None
    subsampling: str = ""


def in_memory(pixels: Pixels, **known: Any) -> Photo:
    """A photo that comes from no file.

    Args:
        pixels: as `Photo` has them.
        known: other attributes of `Photo`; those that are not given say that there is nothing.
    """
    fields: dict[str, Any] = {
        "orientation": 1,
        "icc": None,
        "exif": None,
        "xmp": None,
        "jpeg": None,
        "format": "array",
        "source_bytes": pixels.nbytes,
    }
    return Photo(pixels=pixels, **{**fields, **known})


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
    return load_bytes(read_photo(path, max_pixels), printable(path), max_pixels=max_pixels)


def load_bytes(data: bytes, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Read a photo from memory; `name` stands in messages. Limits and errors as `load`."""
    notices: list[str] = []
    source_bytes, data = len(data), without_idle_chunks(data, notices)
    with opened(data, name, max_pixels) as (image, kind):
        frames = count_frames(image, data, kind)
        decode_image(image, data, name, kind)
        if frames > 1:
            notices.append(
                f"first of {frames} pages{' or more' * (frames == MAX_PAGES)}" if kind == "TIFF"
                else f"main picture of {frames}" if kind in ("JPEG", "HEIF")
                else f"first of {frames} frames"
            )  # fmt: skip
        with pillow_errors(name, kind, data):
            beside = (
                companions(data) if kind == "JPEG" else carried(data, kind) if kind in BOXED else ()
            )
            notices += [f"its {what} is not in the result" for what in beside]
            info = dict(image.info)
            exif = exif_of(image, info, kind, notices)
            icc = info.get("icc_profile")
            icc = icc if isinstance(icc, bytes) and icc else None
            if icc is None and (colours := stated_colours(data, kind, info)):
                notices.append(f"its colours ({colours}) are taken for sRGB, as other decoders do")
            pixels, icc, alpha = to_eight_bit(image, data, name, kind, icc, notices)
            if kind == "JXL" and not getattr(image, "jpeg", False):
                # its own orientation, which the decoder has obeyed, overrules that of EXIF
                exif = upright_exif(exif)
    xmp = _xmp_of(data, info, kind, notices)
    _check_xmp_turn(exif, xmp, kind, notices)
    return Photo(
        pixels=pixels,
        orientation=_orientation(exif),
        icc=icc,
        exif=exif,
        xmp=xmp,
        format=kind,
        source_bytes=source_bytes,
        jpeg=data if kind == "JPEG" else None,
        dpi=dots_per_inch(info.get("dpi")),
        notices=tuple(notices),
        alpha=alpha,
        subsampling=chroma_sampling(data) if kind == "JPEG" else "",
    )


def _xmp_of(data: bytes, info: dict[Any, Any], kind: str, notices: list[str]) -> bytes | None:
    """The whole packet; adds to `notices` where a part of it is lost."""
    xmp = info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "replace")
    if not isinstance(xmp, bytes) or not xmp:
        return None
    if kind == "JPEG":
        with contextlib.suppress(FormatError):  # broken behind what a decoder needs
            rest = extended_xmp(xmp, [(m.code, m.payload) for m in markers(data) if m.code == APP1])
            whole = xmp if rest == b"" else joined_xmp(xmp, rest) if rest is not None else None
            if whole is None:
                notices.append("the extension of its XMP data cannot be read")
            return whole or xmp
    return xmp


def _check_xmp_turn(exif: bytes | None, xmp: bytes | None, kind: str, notices: list[str]) -> None:
    """Notes an orientation that XMP alone states. Most readers ignore it, and others' pixels are
    upright already."""
    if (
        xmp is None
        or kind in ("TIFF", "HEIF", "JXL")
        or states_orientation((exif or b"").removeprefix(EXIF))
    ):
        return
    if (turn := xmp_orientation(xmp)) != 1:
        notices.append(f"orientation {turn} stands in its XMP alone: not turned, as in browsers")


def size_in(data: bytes) -> tuple[int, int]:
    """Width and height of the stored picture in a file that we wrote, by its header.

    Raises:
        FormatError: the bytes are no picture.
    """
    with opened(data, "the result", None) as (image, _):
        return image.size


def decode_jpeg(data: bytes) -> Pixels:
    """Pixels of a JPEG that we wrote: uint8 (H, W, 3) RGB or (H, W) grey, stored frame; any size.

    Raises:
        FormatError: the bytes are no whole JPEG.
    """
    with opened(data, "the JPEG", None) as (image, kind):
        decode_image(image, data, "the JPEG", kind)
        with pillow_errors("the JPEG", kind, data):
            return as_array(image if image.mode in ("L", "RGB") else image.convert("RGB"))


class JpegPixels:
    """A decoded picture that gives its pixels part by part, so that no array of them all is made.

    Attributes:
        shape: (H, W, 3), or (H, W) where it is grey.
        dtype: uint8.
    """

    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, image: Image.Image) -> None:
        self._image = image if image.mode in ("L", "RGB") else image.convert("RGB")
        self.shape: tuple[int, ...] = (image.height, image.width, 3)[
            : 2 if image.mode == "L" else 3
        ]

    def __getitem__(self, part: tuple[slice, slice], /) -> Pixels:
        """Some rows and columns, in steps of 1, as a new array."""
        top, bottom, _ = part[0].indices(self.shape[0])
        left, right, _ = part[1].indices(self.shape[1])
        return np.asarray(self._image.crop((left, top, right, bottom)))


@contextlib.contextmanager
def jpeg_pixels(data: bytes) -> Iterator[JpegPixels]:
    """`decode_jpeg` for large pictures: the pixels part by part, until the context ends. Errors as
    `decode_jpeg`."""
    with opened(data, "the JPEG", None) as (image, kind):
        decode_image(image, data, "the JPEG", kind)
        yield JpegPixels(image)


def read_photo(path: AnyPath, max_pixels: int) -> bytes:
    return read_file(path, check=recognise, max_bytes=photo_limit(max_pixels))


def photo_limit(max_pixels: int) -> int:
    """The most bytes that a file of so many pixels may have."""
    return 16 * max_pixels + (64 << 20)


def _orientation(exif: bytes | None) -> int:
    return exif_orientation((exif or b"").removeprefix(EXIF))


def to_srgb(photo: Photo) -> tuple[Pixels, tuple[str, ...]]:
    """A photo's pixels with its ICC profile applied, and what a user should know about that; in the
    stored frame.

    For outputs that carry no profile. Returns uint8 (H, W, 3) or, for a grey photo, (H, W). Pixels
    that have no profile, or one that is called sRGB and is, are returned as they are.
    """
    if photo.icc is None:
        return photo.pixels, ()
    from PIL import ImageCms

    grey = photo.pixels.ndim == 2
    try:
        name, transform = _transform(photo.icc, grey=grey)
        if transform is None:
            return photo.pixels, ()
        converted = ImageCms.applyTransform(Image.fromarray(photo.pixels), transform)
        if converted is None:
            raise ValueError
        pixels = as_array(converted)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return photo.pixels, ("ICC profile left out: it cannot be used",)
    return (np.ascontiguousarray(pixels[..., 1]) if grey else pixels), (
        f"converted to sRGB from {printable(name) or 'its ICC profile'}",
    )


@functools.lru_cache(maxsize=16)
def _transform(icc: bytes, *, grey: bool) -> tuple[str, Any]:
    """What a profile is called, and its transform to sRGB; None where that changes nothing. All
    photos of a camera have one, and it takes as long to make as to apply.

    Raises:
        PyCMSError, OSError, ValueError, TypeError: it cannot be used.
    """
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    name = ImageCms.getProfileDescription(profile).strip()
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        "L" if grey else "RGB",
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    same = not grey and "srgb" in name.lower() and _changes_nothing(transform)
    return name, None if same else transform


def _changes_nothing(transform: Any) -> bool:
    """Whether a transform to sRGB leaves 512 colours as they are, but for rounding."""
    from PIL import ImageCms

    steps = np.linspace(0, 255, 8).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(8, 64, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    return bool(np.abs(changed.astype(int) - colours).max() <= _ROUNDING)
