"""Pixels as PNG, as 16-bit PNG of depth, and as a plain JPEG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from vizcomp.errors import UnsupportedError
from vizcomp.photos.decoders import Pixels

_MAX_JPEG_SIDE = 65_500  # of libjpeg, and so of almost every reader; the format itself has 65,535


def check_jpeg_sides(height: int, width: int) -> None:
    """Refuse what readers of JPEG refuse.

    Raises:
        UnsupportedError: a side above 65500 pixels.
    """
    if max(height, width) > _MAX_JPEG_SIDE:
        raise UnsupportedError(
            f"{width} x {height} pixels do not fit into a JPEG",
            "no side above 65500 pixels is possible",
        )


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
        UnsupportedError: as `check_jpeg_sides`.
    """
    check_jpeg_sides(*pixels.shape[:2])
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
        raise UnsupportedError(
            "the metadata do not fit into a JPEG", "leave the metadata out"
        ) from exc
    return buffer.getvalue()


def encode_depth_png16(depth: npt.NDArray[np.float32], *, kind: str = "") -> bytes:
    """A depth map as a 16-bit grey PNG: float (h, w) in 0..1 to 0..65535; not-a-number as 0.

    Args:
        depth: the map.
        kind: what the numbers mean, one of `depth.kinds.KINDS`, to be written into the file.
    """
    levels = np.rint(
        np.nan_to_num(np.asarray(depth, np.float32), nan=0.0).clip(0, 1) * np.float32(65535)
    ).astype(np.uint16)
    buffer = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    if kind:
        info.add_text("depth-kind", kind)
    Image.fromarray(levels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def encode_png(pixels: Pixels) -> bytes:
    """A PNG of 8-bit pixels: uint8 (H, W, 3) RGB or (H, W) grey."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
