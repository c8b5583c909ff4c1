"""Samples of any kind as 8 bits; colours as sRGB."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.errors import UnsupportedError
from vizcomp.photos.boxes import stated_primaries
from vizcomp.photos.decoders import Pixels, quiet_pillow

_STRIP_PIXELS = 1 << 18
FLATTENED = "transparency flattened on white"
"""The notice of it."""


def to_eight_bit(
    image: Image.Image, data: bytes, name: str, kind: str, icc: bytes | None, notices: list[str]
) -> tuple[Pixels, bytes | None, Pixels | None]:
    """Pixels as uint8 RGB or grey, the ICC profile if it still describes them, and the opacity;
    adds to `notices`.

    The opacity is uint8 (H, W), None where all is opaque; the pixels are flattened on white.
    """
    mode = image.mode
    alpha: Pixels | None = None
    if kind == "PNG" and mode in ("1", "L", "RGB") and "transparency" in image.info:
        pixels, alpha = _one_colour_clear(image, data, notices)
    elif mode in ("L", "RGB") and "transparency" not in image.info:
        if sample_bits(image, data, kind) == 16:
            notices.append("16 bits a sample reduced to 8")
        pixels = as_array(image)
    elif mode.startswith("I;16"):
        values = grey_samples(image, kind).astype(np.uint32)
        bits = sample_bits(image, data, kind)
        bits = bits if 8 < bits < 16 else 16
        notices.append(f"{bits} bits a sample reduced to 8")
        most = (1 << bits) - 1
        pixels = ((values * 255 + most // 2) // most).astype(np.uint8)
        clear = image.info.get("transparency")
        if isinstance(clear, int) and (values == clear).any():
            pixels[values == clear] = 255
            alpha = np.where(values == clear, 0, 255).astype(np.uint8)
            notices.append(FLATTENED)
    elif mode in ("I", "F"):
        pixels = wide_grey(image, data, name, kind, notices)
    elif mode == "1":
        pixels = as_array(image.convert("L"))
    elif mode == "CMYK":
        return as_array(_from_cmyk(image, icc, notices)), None, None
    elif mode in ("LAB", "YCbCr", "HSV"):
        pixels, icc = as_array(image.convert("RGB")), None
        if mode == "LAB":
            notices.append("LAB converted to sRGB")
    else:
        if mode in ("LA", "RGBA") and sample_bits(image, data, kind) == 16:
            notices.append("16 bits a sample reduced to 8")
        with quiet_pillow():
            flat, alpha = _flattened(image, notices)
            pixels = as_array(flat)
    if icc is not None and icc[16:20] != (b"GRAY" if pixels.ndim == 2 else b"RGB "):
        notices.append("ICC profile left out: it does not fit the colours")
        icc = None
    return pixels, icc, alpha


# Of ITU-T H.273: what is far from sRGB.
_PRIMARIES = {
    4: "BT.470 M",
    8: "film",
    9: "BT.2020",
    10: "XYZ",
    11: "DCI-P3",
    12: "Display P3",
    22: "EBU 3213",
}
_TRANSFERS = {8: "linear light", 16: "PQ (HDR)", 18: "HLG (HDR)"}
_SRGB_GAMMA, _SRGB_PLACES = 0.45455, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_NEAR_GAMMA, _NEAR_PLACES = 0.05, 0.02


def stated_colours(data: bytes, kind: str, info: Mapping[Any, Any]) -> str:
    """Colours far from sRGB that a file states by other means than an ICC profile; "" where it does
    not.

    Decoders of computer vision ignore them: gAMA, cHRM and cICP of a PNG, nclx of an AVIF or HEIC.

    Args:
        info: what Pillow read of the file.
    """
    codes: tuple[int, int] | None = None
    told: list[str] = []
    if kind in ("AVIF", "HEIF"):
        codes = stated_primaries(data)
    elif kind == "PNG":
        at = data.find(b"\0\0\0\4cICP", 0, max(data.find(b"IDAT"), 0))
        if at >= 0:
            codes = data[at + 8], data[at + 9]
        elif "srgb" not in info:
            gamma, places = info.get("gamma", _SRGB_GAMMA), info.get("chromaticity", _SRGB_PLACES)
            if abs(gamma - _SRGB_GAMMA) > _NEAR_GAMMA:
                told.append(f"gamma {gamma:g}")
            if any(abs(a - b) > _NEAR_PLACES for a, b in zip(places, _SRGB_PLACES, strict=False)):
                told.append("primaries of its own")
    if codes is not None:
        told += filter(None, (_PRIMARIES.get(codes[0]), _TRANSFERS.get(codes[1])))
    return ", ".join(told)


def _one_colour_clear(
    image: Image.Image, data: bytes, notices: list[str]
) -> tuple[Pixels, Pixels | None]:
    """A PNG whose tRNS chunk names one transparent value, that value white: uint8 RGB or grey; and
    the opacity.

    The chunk has the file's own depth, while Pillow's pixels have 8 bits.
    """
    clear, bits = image.info["transparency"], sample_bits(image, data, "PNG")
    pixels = as_array(image.convert("L") if image.mode == "1" else image)
    if bits == 16:
        notices.append("16 bits a sample reduced to 8")
    if isinstance(clear, tuple):
        high = np.array([value >> 8 if bits == 16 else value for value in clear], np.uint16)
        where = (pixels == high).all(-1)
        if bits == 16 and where.any():
            low = np.array([value & 255 for value in clear], np.uint16)
            where &= (_low_bytes(data) == low).all(-1)
    else:
        where = pixels == (255 if bits == 1 and clear else clear * 255 // ((1 << bits) - 1))
    if not where.any():
        return pixels, None
    pixels[where] = 255
    notices.append(FLATTENED)
    return pixels, np.where(where, 0, 255).astype(np.uint8)


def _low_bytes(data: bytes) -> Pixels:
    """The lower bytes of a PNG's 16-bit RGB samples, which Pillow's pixels lack."""
    with quiet_pillow(), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]  # type: ignore[attr-defined]
        image.load()
        return np.asarray(image)


def _flattened(image: Image.Image, notices: list[str]) -> tuple[Image.Image, Pixels | None]:
    """Without palette and transparency, on white: mode L or RGB; and the opacity, None where all is
    opaque."""
    grey = image.mode in ("L", "LA", "La", "1")
    if image.mode in ("RGBa", "La"):  # colours multiplied by their alpha already
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    elif image.mode in ("PA",) or "transparency" in image.info:
        image = image.convert("LA" if grey else "RGBA")
    if image.mode not in ("RGBA", "LA"):
        return image.convert("L" if grey else "RGB"), None
    alpha = image.getchannel("A")
    opaque = image.convert("L" if grey else "RGB")
    if alpha.getextrema() == (255, 255):
        return opaque, None
    notices.append(FLATTENED)
    white = Image.new(opaque.mode, image.size, "white")
    white.paste(opaque, mask=alpha)
    return white, np.array(alpha)


def _from_cmyk(image: Image.Image, icc: bytes | None, notices: list[str]) -> Image.Image:
    """CMYK to sRGB: by the photo's own profile if it has a usable one, else by the plain
    formula."""
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


def wide_grey(image: Image.Image, data: bytes, name: str, kind: str, notices: list[str]) -> Pixels:
    """Grey of 32-bit integers or floats to uint8."""
    values = grey_samples(image, kind)
    low, high = values.min(), values.max()
    if image.mode == "I" and low >= 0 and high <= 65535 and sample_bits(image, data, kind) == 16:
        notices.append("16 bits a sample reduced to 8")
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 1:
        notices.append("float samples 0..1 reduced to 8 bits")
        return np.asarray(np.rint(values * 255), np.uint8)
    level, (low, high) = stretched(values, name)
    notices.append(f"samples from {low:g} to {high:g} stretched to 8 bits")
    return np.rint(level * 255).astype(np.uint8)


def grey_samples(image: Image.Image, kind: str) -> npt.NDArray[Any]:
    """Samples of a grey picture of more than 8 bits, large = bright.

    Pillow knows neither unsigned 32-bit samples nor, above 8 bits, a TIFF that counts from white.
    """
    values = np.asarray(image)
    if kind != "TIFF":
        return values
    tags = getattr(image, "tag_v2", {})
    bits, layout = first_of(tags.get(258, 8)), first_of(tags.get(339, 1))
    if image.mode == "I" and bits == 32 and layout == 1:
        values = values.view(np.uint32)
    if tags.get(262) != 0:
        return values
    if image.mode == "F":
        low, high = values.min(), values.max()
        return 1 - values if low >= 0 and high <= 1 else -values
    if layout == 1:
        return ((1 << bits) - 1 - values.astype(np.int64)).astype(values.dtype)
    return -values.astype(np.int64)


def first_of(value: Any) -> int:
    """A TIFF tag's value, or the first of several."""
    return int(value[0] if isinstance(value, tuple) else value)


def stretched(
    values: npt.NDArray[Any], name: str
) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """Values by their own range: float32 in 0..1, and that range. Not-a-number counts as the
    least."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise UnsupportedError(
            f"{name} holds no finite value", "export it again with 8 or 16 bits a sample"
        )
    low, high = float(finite.min()), float(finite.max())
    if not high > low:
        return np.zeros(values.shape, np.float32), (low, high)
    clean = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return ((clean - low) / (high - low)).astype(np.float32), (low, high)


def sample_bits(image: Image.Image, data: bytes, kind: str) -> int:
    """Bits of a stored sample where the format has more than 8 in use; else 8."""
    if kind == "PNG" and len(data) > 24:
        return data[24]
    if kind == "PPM":
        return 16 if image.mode == "I" else 8
    if kind == "TIFF":
        return first_of(getattr(image, "tag_v2", {}).get(258, 8))
    return 8


def as_array(image: Image.Image) -> Pixels:
    """Pixels of an L or RGB image as a new array; in strips, so that no second whole copy is made
    beside it."""
    width, height = image.size
    if width * height <= _STRIP_PIXELS * 2:
        return np.array(image, dtype=np.uint8)
    pixels = np.empty((height, width) if image.mode == "L" else (height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels
