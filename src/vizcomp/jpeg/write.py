"""A `JpegImage` to the bytes of a file."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.errors import FormatError
from vizcomp.jpeg.image import ZIGZAG, JpegImage, Segment, ceil_div, set_real_sizes
from vizcomp.jpeg.segments import (
    APP0,
    COM,
    DQT,
    JFIF,
    MAX_PAYLOAD,
    adobe_segment,
    is_adobe,
    is_jfif,
    without_adobe,
)

_COMPONENTS = {"grey": 1, "ycbcr": 3, "rgb": 3, "cmyk": 4, "ycck": 4}
_TRANSFORMS = {"rgb": 0, "ycbcr": 1, "cmyk": 0, "ycck": 2}  # in Adobe's segment
_PLAIN_JFIF = JFIF + b"\1\1\0\0\1\0\1\0\0"


def write_jpeg(image: JpegImage, *, progressive: bool = True, optimise: bool = True) -> bytes:
    """Write coefficients as a JPEG file that decodes to exactly these integers.

    Huffman tables are optimal for each scan (T.81 K.2). Progressive scan scripts are chosen by
    counting the bits of several: with and without successive approximation, with one to three
    bands, for each component alone. Blocks beside the picture get the cheapest code, not the values
    given. `JFIF` is added where the colour is grey or YCbCr.

    Args:
        image: what to write; tables hold 1..65535.
        progressive: SOF2; else sequential.
        optimise: sequential only: optimal tables instead of the standard's typical ones.

    Raises:
        FormatError: sizes, tables, segments or coefficients are out of a JPEG's range.
    """
    _check(image)
    slots, tables = _slots(image)
    scans = _scans(image, progressive, optimise)
    parts = [b"\xff\xd8"]
    parts += [_segment(marker, payload) for marker, payload in _colour_segments(image)]
    parts.append(_segment(DQT, b"".join(_table(slot, table) for slot, table in enumerate(tables))))
    frame = struct.pack(">BHHB", 8, image.height, image.width, len(image.components))
    lone = len(image.components) == 1
    for c, slot in zip(image.components, slots, strict=True):
        frame += bytes([c.id, 0x11 if lone else c.h << 4 | c.v, slot])
    wide = any(int(t.max()) > 255 for t in tables)
    parts.append(_segment(0xC2 if progressive else 0xC1 if wide else 0xC0, frame))
    parts += [scans, b"\xff\xd9"]
    return b"".join(parts)


def _scans(image: JpegImage, progressive: bool, optimise: bool) -> bytes:
    """DHT, SOS and entropy-coded data of all scans."""
    chroma_set = 1 if image.colour in ("ycbcr", "ycck") else 0
    lone = len(image.components) == 1
    components = []
    for i, c in enumerate(image.components):
        blocks = np.ascontiguousarray(c.coefficients)
        code_set = chroma_set if i in (1, 2) else 0
        h, v = (1, 1) if lone else (c.h, c.v)
        components.append(
            (blocks, *blocks.shape[:2], c.real_rows, c.real_cols, h, v, c.id, code_set)
        )
    h_max, v_max = max(c.h for c in image.components), max(c.v for c in image.components)
    mcu_rows, mcu_cols = ceil_div(image.height, 8 * v_max), ceil_div(image.width, 8 * h_max)
    status, scans = _native.encode_scans(
        tuple(components), int(progressive), int(optimise), mcu_rows, mcu_cols
    )
    if status or scans is None:
        raise FormatError("a coefficient is too large for an 8-bit JPEG", "use a coarser table")
    return scans


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def _table(slot: int, table: npt.NDArray[np.uint16]) -> bytes:
    steps: npt.NDArray[np.uint16] = table[ZIGZAG]
    if int(table.max()) > 255:
        return bytes([16 + slot]) + steps.astype(">u2").tobytes()
    return bytes([slot]) + steps.astype(np.uint8).tobytes()


def _check(image: JpegImage) -> None:
    if not (1 <= image.width <= 65535 and 1 <= image.height <= 65535):
        raise FormatError(
            f"{image.width} x {image.height} cannot be a JPEG", "sides go from 1 to 65535 pixels"
        )
    if len(image.components) != _COMPONENTS.get(image.colour):
        raise FormatError(
            f"{len(image.components)} components do not fit the colour {image.colour}", ""
        )
    if len({c.id for c in image.components}) != len(image.components):
        raise FormatError("two components have the same number", "")
    set_real_sizes(image.width, image.height, image.components)
    for c in image.components:
        shape = c.coefficients.shape
        if c.coefficients.dtype != np.int16 or len(shape) != 3 or shape[2] != 64:
            raise FormatError(
                f"coefficients are {c.coefficients.dtype} {shape}", "give int16 (rows, columns, 64)"
            )
        if shape[0] < c.real_rows or shape[1] < c.real_cols:
            raise FormatError(
                f"{shape[:2]} blocks are fewer than the picture's {(c.real_rows, c.real_cols)}", ""
            )
        if (
            not (1 <= c.h <= 4 and 1 <= c.v <= 4 and 0 <= c.id <= 255)
            or c.table not in image.tables
        ):
            raise FormatError("a component's sampling, number or table is out of range", "")
    for marker, payload in image.segments:
        if not (0xE0 <= marker <= 0xEF or marker == COM) or len(payload) > MAX_PAYLOAD:
            raise FormatError(
                "a metadata segment is too long or no APPn or COM",
                f"at most {MAX_PAYLOAD} bytes each",
            )


def _slots(image: JpegImage) -> tuple[list[int], list[npt.NDArray[np.uint16]]]:
    """Each component's slot, and the tables by slot: equal ones are written once."""
    slots: list[int] = []
    tables: list[npt.NDArray[np.uint16]] = []
    for c in image.components:
        table = np.asarray(image.tables[c.table])
        if table.shape != (64,) or not ((table >= 1) & (table <= 65535)).all():
            raise FormatError("a quantisation table is not 64 steps of 1 to 65535", "")
        slot = next((i for i, t in enumerate(tables) if np.array_equal(t, table)), len(tables))
        if slot == len(tables):
            tables.append(table.astype(np.uint16))
        slots.append(slot)
    return slots, tables


def _colour_segments(image: JpegImage) -> list[Segment]:
    """The image's segments; those that tell decoders the colour (JFIF, Adobe) are put right."""
    others = [s for s in image.segments if not is_jfif(s)]
    adobe = [s[1][11] for s in others if is_adobe(s)]
    contradicted = any(transform != _TRANSFORMS.get(image.colour) for transform in adobe)
    if contradicted:
        others = without_adobe(others)
    if image.colour in ("grey", "ycbcr"):
        jfif = next((s for s in image.segments if is_jfif(s)), (APP0, _PLAIN_JFIF))
        return [jfif, *others]
    if (contradicted or not adobe) and _needs_adobe(image, contradicted):
        others.insert(0, adobe_segment(_TRANSFORMS[image.colour]))
    return others


def _needs_adobe(image: JpegImage, contradicted: bool) -> bool:
    """Whether Adobe's segment must tell the colour. `contradicted`: the source's said another."""
    if image.colour == "rgb":
        return tuple(c.id for c in image.components) != tuple(b"RGB")
    # CMYK follows from the count alone; with Adobe's segment decoders take the values for inverted.
    return image.colour == "ycck" or contradicted
