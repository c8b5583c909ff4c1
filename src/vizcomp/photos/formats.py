"""WebP, AVIF and JPEG XL: what they can hold, and their encoders by way of Pillow."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image, features

from vizcomp.errors import SettingsError, UnsupportedError
from vizcomp.photos.decoders import Pixels, load_jxl


@dataclasses.dataclass(frozen=True)
class Format:
    """A format beside JPEG.

    Attributes:
        name: as users write it.
        title: as people say it.
        most_side: pixels of the longest side that the format, or what reads it, holds.
        options: of Pillow's encoder: the effort and, of AVIF, what it is tuned for
            (docs/decisions/0016-formats.md); one thread, since workers share the cores.
    """

    name: str
    title: str
    most_side: int
    options: dict[str, Any]

    @property
    def suffix(self) -> str:
        """Of its files, as ".webp"."""
        return f".{self.name}"


FORMATS = {
    # WebP: RFC 9649, 2.4: 14 bits for each side
    "webp": Format("webp", "WebP", 16383, {"method": 6}),
    # AVIF: what libavif's decoder takes at most, and with it browsers, Pillow and OpenCV
    "avif": Format(
        "avif",
        "AVIF",
        32768,
        {"speed": 6, "max_threads": 1, "codec": "aom"},
    ),
    # JPEG XL: ISO/IEC 18181-1 allows more; no photo that is read here has more
    "jxl": Format("jxl", "JPEG XL", 65500, {"effort": 5, "num_threads": 1}),
}

QUICK = {"avif": {"speed": 7}, "webp": {"method": 5}}
"""Where files are tried and thrown away: half the time, within 3% the same bytes
(docs/decisions/0013-certified-settings.md)."""
BY_SIGNAL = {"tune": "psnr"}
"""AVIF where the photo has lettering: words want the signal."""
FOR_SIGHT = {"qm-min": "0", "qm-max": "6", "enable-cdef": "0"}
"""AVIF elsewhere, beside the library's own choices: steeper quantiser matrices (0 is the steepest,
15 flat) and no deringing filter, by which detectors and classifiers keep more at equal bytes
(docs/decisions/0023-less-time.md)."""

SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "heif": (".heic", ".heif", ".hif"),
    **{name: (kind.suffix,) for name, kind in FORMATS.items()},
}
"""What the names of files end in, by their format."""

# of a JPEG; below 3 little is saved, above 7 it takes five times as long for a thousandth
TRANSCODE_EFFORT = 7

WITHOUT_PROFILES = ("jxl",)
"""Formats whose encoder here takes no ICC profile: their pixels have to be sRGB."""


def check_writable(name: str) -> None:
    """Whether the library that writes a format is there.

    Raises:
        MissingExtraError: JPEG XL without its package.
        SettingsError: this Pillow was built without the format.
    """
    if name == "jxl":
        load_jxl()
        return
    if name == "avif":
        there = features.check("avif") and _avif_encoder()
    else:
        there = bool(features.check(name))
    if not there:
        title = FORMATS[name].title
        raise SettingsError(
            f"this Pillow writes no {title}", "pip install -U pillow, or use another `format`"
        )


def _avif_encoder() -> bool:
    from PIL import _avif  # type: ignore[attr-defined]

    return bool(_avif.encoder_codec_available("aom"))


def check_sides(kind: Format, height: int, width: int) -> None:
    """Refuse what a format cannot hold.

    Raises:
        UnsupportedError: a side is too long.
    """
    if max(height, width) > kind.most_side:
        raise UnsupportedError(
            f"{width} x {height} pixels do not fit into {kind.title}, whose sides have at most"
            f" {kind.most_side:,}",
            "use `format` auto or jpeg, or a smaller photo",
        )


def encode_format(
    pixels: Pixels,
    kind: Format,
    quality: float,
    *,
    alpha: Pixels | None = None,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    by_signal: bool = True,
    full_chroma: bool = False,
    quick: bool = False,
) -> bytes:
    """A file by the encoder's own quality.

    Args:
        pixels: uint8 (H, W, 3) or (H, W); where there is `alpha`, flattened on white.
        quality: 0..100 as the encoder has it.
        alpha: opacity, uint8 (H, W), or None.
        icc, exif, xmp: metadata to carry; no `icc` in those of `WITHOUT_PROFILES`.
        by_signal: AVIF is tuned for signal-to-noise, which keeps lettering; else as the library
            does by itself, but for `FOR_SIGHT`.
        full_chroma: of AVIF, 4:4:4 in place of 4:2:0.
        quick: by `QUICK`, for a search that wants no file.

    Raises:
        UnsupportedError: as `check_sides`, or what the encoder refuses.
        MissingExtraError, SettingsError: as `check_writable`.
    """
    check_sides(kind, *pixels.shape[:2])
    check_writable(kind.name)
    image = (
        Image.fromarray(np.ascontiguousarray(pixels))
        if alpha is None
        else with_alpha(pixels, alpha)
    )
    if image.mode == "L" and kind.name == "webp":
        image = image.convert("RGB")
    if image.mode == "LA" and kind.name != "jxl":
        image = image.convert("RGBA")
    options: dict[str, Any] = {**kind.options, "quality": quality}
    if kind.name == "avif":
        options["quality"] = round(quality)
        options["advanced"] = BY_SIGNAL if by_signal else FOR_SIGHT
        options |= {"subsampling": "4:4:4"} if full_chroma else {}
    options |= QUICK.get(kind.name, {}) if quick else {}
    options |= {
        key: value for key, value in (("icc_profile", icc), ("exif", exif), ("xmp", xmp)) if value
    }
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind.name.upper(), **options)
    except (OSError, ValueError, RuntimeError) as exc:
        raise UnsupportedError(
            f"the {kind.title} encoder fails: {exc}",
            "use another `format`, or `metadata` essential",
        ) from exc
    return buffer.getvalue()


def transcoded(jpeg: bytes, height: int, width: int) -> bytes:
    """A JPEG's own coefficients as a JPEG XL (ISO/IEC 18181-2, annex A), from which the very bytes
    of the JPEG can be had again.

    Raises:
        UnsupportedError: the encoder cannot, or what it wrote does not give back the JPEG.
        MissingExtraError: as `check_writable`.
    """
    check_writable("jxl")
    from pillow_jxl import Decoder, Encoder

    make: Any = Encoder  # its types leave out the effort
    options = {
        "decoding_speed": 0,
        "use_container": True,
        "use_original_profile": False,
        "num_threads": 0,
    }
    encode = make(mode="RGB", lossless=True, quality=100, effort=TRANSCODE_EFFORT, **options)
    try:
        data = bytes(encode(jpeg, width, height, jpeg_encode=True))
        whole, _, again, *_ = Decoder(num_threads=0)(data)
    except Exception as exc:  # whatever the binding makes of libjxl's refusals
        raise UnsupportedError(
            f"JPEG XL cannot hold its coefficients: {exc}", "omit `format`"
        ) from exc
    if not whole or bytes(again) != jpeg:
        raise UnsupportedError("JPEG XL does not give back its JPEG", "omit `format`")
    return data


def with_alpha(pixels: Pixels, alpha: Pixels) -> Image.Image:
    """Colours that were flattened on white, and their opacity, as they were before: mode RGBA or
    LA.

    Over any background the result differs from the source by one level at most; where nothing is
    opaque it is white.
    """
    share = alpha.astype(np.uint16)
    if pixels.ndim == 3:
        share = share[..., None]
    missing = (np.uint16(255) - pixels) * np.uint16(255)
    clear = np.rint(missing / np.maximum(share, 1)).clip(0, 255)
    colours = np.where(share > 0, 255 - clear, 255).astype(np.uint8)
    image = Image.fromarray(colours)
    image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    return image
