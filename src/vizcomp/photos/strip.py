"""Files that are no JPEG with their picture byte for byte and essential metadata alone, for sources
that are kept."""

from __future__ import annotations

import struct
import zlib

from vizcomp.jpeg.exif import (
    EXIF_DIRECTORY,
    byte_order,
    directory,
    first_offset,
    is_essential,
    pointed,
)
from vizcomp.photos.boxes import essential_heif, essential_jxl

# Chunks of a PNG that tell of the photo, and not of its picture (PNG third edition, 11.3).
_TELLING = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"})
_ANIMATED = frozenset({b"acTL", b"fcTL", b"fdAT"})  # named like private ones
# Tags of TIFF that are of the picture: its layout, its samples, its colour.
_PICTURE = frozenset(
    {
        *range(254, 260),
        *(
            262,
            263,
            264,
            265,
            266,
            273,
            274,
            277,
            278,
            279,
            280,
            281,
            282,
            283,
            284,
            290,
            291,
            292,
            293,
            296,
            297,
            301,
        ),
        *(
            317,
            318,
            319,
            320,
            321,
            322,
            323,
            324,
            325,
            330,
            332,
            334,
            336,
            338,
            339,
            340,
            341,
            342,
            347,
        ),
        *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559, 34675),
    }
)
_MAX_DIRECTORIES = 100
# extensions of a GIF that its picture needs
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")


def with_essential(data: bytes, exif: bytes) -> bytes | None:
    """The file without what tells of place, camera or people; None where its format is another one,
    or is not understood.

    Args:
        data: a whole file.
        exif: the EXIF block that it may keep, without header, as `jpeg.exif.essential_exif` makes
            it; a TIFF keeps the same of its own.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data, exif)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data, exif)
    if byte_order(data) is not None:
        return _tiff(data)
    if data[4:8] == b"ftyp":
        return essential_heif(data, exif)
    if data.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return essential_jxl(data, exif)
    return _gif(data) if data.startswith((b"GIF87a", b"GIF89a")) else None


def _png(data: bytes, exif: bytes) -> bytes | None:
    parts, place, written = [data[:8]], 8, False
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if end > len(data):
            return None
        if kind == b"IDAT" and exif and not written:
            parts.append(
                struct.pack(">I", len(exif))
                + b"eXIf"
                + exif
                + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
            )
            written = True
        private = kind[:1].islower() and kind[1:2].islower() and kind not in _ANIMATED
        if kind not in _TELLING and not private:
            parts.append(data[place:end])
        place = end
        if kind == b"IEND":
            return b"".join(parts)  # what follows the end tells of something else
    return None


def _webp(data: bytes, exif: bytes) -> bytes | None:
    (size,) = struct.unpack_from("<I", data, 4)
    end, place, chunks = 8 + size, 12, []
    if end > len(data):
        return None
    while place + 8 <= end:
        kind, (length,) = data[place : place + 4], struct.unpack_from("<I", data, place + 4)
        body = data[place + 8 : place + 8 + length]
        if len(body) != length:
            return None
        place += 8 + length + length % 2
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"):
            chunks.append((kind, body))
    if not chunks:
        return None
    if chunks[0][0] != b"VP8X":  # a simple file: it can hold no metadata
        return b"RIFF" + struct.pack("<I", 4 + _riff_length(chunks)) + b"WEBP" + _riff(chunks)
    flags = chunks[0][1][0] & ~0x0C | (0x08 if exif else 0)  # bit 3: EXIF, bit 2: XMP
    chunks[0] = (b"VP8X", bytes([flags]) + chunks[0][1][1:])
    if exif:
        chunks.append((b"EXIF", exif))
    return b"RIFF" + struct.pack("<I", 4 + _riff_length(chunks)) + b"WEBP" + _riff(chunks)


def _gif(data: bytes) -> bytes | None:
    """Without comments, and without extensions of programs but for loops and the colour profile
    (GIF89a, 24 and 26)."""
    if len(data) < 13:
        return None
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    parts = [data[:place]]
    while place < len(data):
        start, kind = place, data[place]
        if kind == 0x3B:
            return b"".join([*parts, b";"])
        if kind == 0x2C and place + 10 <= len(data):
            place += 11 + (3 << (data[place + 9] & 7) + 1 if data[place + 9] & 0x80 else 0)
        elif kind == 0x21 and place + 2 <= len(data):
            place += 2
        else:
            return None
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
        if place > len(data):
            return None
        told = kind == 0x21 and (
            data[start + 1] == 0xFE
            or (data[start + 1] == 0xFF and data[start + 3 : start + 14] not in _LOOPS)
        )
        if not told:
            parts.append(data[start:place])
    return None


def _riff_length(chunks: list[tuple[bytes, bytes]]) -> int:
    return sum(8 + len(body) + len(body) % 2 for _, body in chunks)


def _riff(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(
        kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        for kind, body in chunks
    )


def _tiff(data: bytes) -> bytes | None:
    """In place: entries that tell of the photo leave their directories, and their values become
    zeros."""
    order = byte_order(data)
    out, offset, seen = bytearray(data), first_offset(data), set[int]()
    while offset:
        if (
            order is None
            or offset in seen
            or len(seen) > _MAX_DIRECTORIES
            or not 8 <= offset <= len(data) - 2
        ):
            return None
        seen.add(offset)
        (count,) = struct.unpack_from(order + "H", data, offset)
        after = offset + 2 + 12 * count
        if after + 4 > len(data):
            return None
        _blank(data, out, offset, order, below=False)
        (offset,) = struct.unpack_from(order + "I", data, after)
    return bytes(out)


def _blank(data: bytes, out: bytearray, offset: int, order: str, *, below: bool) -> int:
    """Removes what is not to stay from a directory; how many entries stay."""
    (count,) = struct.unpack_from(order + "H", data, offset)
    stays = []
    for entry in directory(data, offset):
        if entry.tag == EXIF_DIRECTORY and not below:
            inner = pointed(data, entry)
            if 8 <= inner <= len(data) - 2 and _blank(data, out, inner, order, below=True):
                stays.append(data[entry.at : entry.at + 12])
            continue
        if is_essential(entry.tag, below=below) or (not below and entry.tag in _PICTURE):
            stays.append(data[entry.at : entry.at + 12])
        elif entry.size > 4 and entry.place + entry.size <= len(data):
            out[entry.place : entry.place + entry.size] = bytes(entry.size)
    after = offset + 2 + 12 * count
    following = data[after : after + 4].ljust(4, b"\0")
    new = struct.pack(order + "H", len(stays)) + b"".join(stays) + following
    out[offset : offset + len(new)] = new
    out[offset + len(new) : after + 4] = bytes(after + 4 - offset - len(new))
    return len(stays)
