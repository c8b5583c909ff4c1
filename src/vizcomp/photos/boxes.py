"""Boxes of HEIC, AVIF and JPEG XL: what they carry beside the picture, and the same files without
what tells of place or camera.

ISO/IEC 14496-12 (boxes, items), 23008-12 (HEIF), 18181-2 (JPEG XL), 21496-1 (gain maps).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

from vizcomp.jpeg.segments import EXIF

_MAX_BOXES, _MAX_ITEMS = 10_000, 10_000
_EMPTY_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
GAIN_MAP, DEPTH_MAP, VIDEO = "gain map (HDR)", "depth map", "video of the motion photo"
# Auxiliary pictures by the beginning of their names, in HEIC of Apple and of others.
_AUXILIARY = (
    (b"urn:com:apple:photo:2020:aux:hdrgainmap", GAIN_MAP),
    (b"urn:mpeg:hevc:2015:auxid:2", DEPTH_MAP),
    (b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth", DEPTH_MAP),
)


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of a file: its type, where it begins, where its content begins, and where it ends."""

    kind: bytes
    at: int
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two places, until one does not fit."""
    end = len(data) if end is None else end
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, head = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            return
        yield Box(data[start + 4 : start + 8], start, start + head, start + size)
        start += size


def carried(data: bytes, kind: str) -> tuple[str, ...]:
    """What a HEIC, an AVIF or a JPEG XL carries beside its picture: a gain map, a depth map, a
    video."""
    found: dict[str, None] = {}
    for box in boxes(data):
        if kind == "JXL":
            if box.kind == b"jhgm":
                found[GAIN_MAP] = None
        elif box.kind == b"mpvd":
            found[VIDEO] = None
        elif box.kind == b"meta":
            if any(item == b"tmap" for _, item in _items(data, box).values()):
                found[GAIN_MAP] = None
            body = data[box.start : box.end]
            found |= dict.fromkeys(name for urn, name in _AUXILIARY if urn in body)
    return tuple(found)


def stated_primaries(data: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer of an AVIF or HEIC (ITU-T H.273) by its first nclx property;
    None without one."""
    for box in boxes(data):
        if box.kind == b"meta":
            at = data.find(b"colrnclx", box.start, box.end)
            if 0 <= at <= box.end - 12:
                first, second = struct.unpack_from(">HH", data, at + 8)
                return first, second
    return None


def essential_jxl(data: bytes, exif: bytes) -> bytes | None:
    """A JPEG XL without its boxes of metadata but for a given EXIF block; None where it is not
    understood.

    What gives back a JPEG goes too, since it would miss them.

    Args:
        data: a whole file.
        exif: without header; b"" for none.
    """
    if data.startswith(b"\xff\x0a"):
        return data  # a codestream alone
    parts, end = [], 0
    for box in boxes(data):
        end = box.end
        if box.kind in (b"JXL ", b"ftyp", b"jxll", b"jxli", b"jxlc", b"jxlp", b"jhgm"):
            if box.kind in (b"jxlc", b"jxlp") and exif:
                parts.append(struct.pack(">I", 12 + len(exif)) + b"Exif" + bytes(4) + exif)
                exif = b""
            parts.append(data[box.at : box.end])
    return b"".join(parts) if end == len(data) else None


def essential_heif(data: bytes, exif: bytes) -> bytes | None:
    """A HEIC or AVIF with a given block as its EXIF; None where it is not understood. Arguments as
    `essential_jxl`.

    In place, so that no offset changes: the bytes of items and boxes that tell of the photo are
    written over.
    """
    out, end = bytearray(data), 0
    for box in boxes(data):
        end = box.end
        if box.kind in (b"uuid", b"udta", b"mpvd", b"sefd"):
            out[box.at + 4 : box.at + 8] = b"free"
            out[box.start : box.end] = bytes(box.end - box.start)
        elif box.kind == b"meta":
            items = _items(data, box)
            for number, parts in _places(data, box).items():
                _, kind = items.get(number, (0, b""))
                if kind not in (b"Exif", b"mime"):
                    continue
                room = sum(length for _, length in parts)
                if room > len(data) or any(at + length > len(data) for at, length in parts):
                    return None
                new = struct.pack(">I", len(EXIF)) + EXIF + exif if kind == b"Exif" else _EMPTY_XMP
                filled = new.ljust(room, b"\0" if kind == b"Exif" else b" ")
                if len(filled) != room:
                    return None
                taken = 0
                for at, length in parts:
                    out[at : at + length] = filled[taken : taken + length]
                    taken += length
    return bytes(out) if end == len(data) else None


def _items(data: bytes, meta: Box) -> dict[int, tuple[int, bytes]]:
    """By number: version of the entry, and type, of each item."""
    items: dict[int, tuple[int, bytes]] = {}
    for box in boxes(data, meta.start + 4, meta.end):
        if box.kind != b"iinf" or box.start + 8 > box.end:
            continue
        for entry in boxes(data, box.start + (6 if data[box.start] == 0 else 8), box.end):
            version = data[entry.start] if entry.start < entry.end else 0
            width = 4 if version == 3 else 2
            if (
                entry.kind == b"infe"
                and version in (2, 3)
                and entry.start + 10 + width <= entry.end
            ):
                number = int.from_bytes(data[entry.start + 4 : entry.start + 4 + width], "big")
                items[number] = version, data[entry.start + 6 + width : entry.start + 10 + width]
    return items


def _places(data: bytes, meta: Box) -> dict[int, list[tuple[int, int]]]:
    """By number, where the bytes of each item are: offset and length of each part; of items
    elsewhere nothing."""
    inner = {box.kind: box for box in boxes(data, meta.start + 4, meta.end)}
    if b"iloc" not in inner:
        return {}
    box, idat = inner[b"iloc"], inner.get(b"idat")
    reader = _Numbers(data, box.start, box.end)
    version = reader.take(1)
    reader.take(3)
    sizes = reader.take(2)
    offset, length, base, index = (
        sizes >> 12,
        sizes >> 8 & 15,
        sizes >> 4 & 15,
        sizes & 15 if version else 0,
    )
    places: dict[int, list[tuple[int, int]]] = {}
    left = _MAX_ITEMS  # a broken list may have parts of no bytes without end
    for _ in range(min(reader.take(4 if version == 2 else 2), _MAX_ITEMS)):
        number = reader.take(4 if version == 2 else 2)
        method = reader.take(2) & 15 if version else 0
        reader.take(2)  # of the file, where it is another one
        start = reader.take(base)
        if method == 1 and idat is not None:
            start += idat.start
        parts = []
        count = reader.take(2)
        left -= count
        for _ in range(count if left >= 0 else 0):
            reader.take(index)
            at = start + reader.take(offset)
            parts.append((at, reader.take(length)))
        if reader.past or left < 0:
            return {}
        if method < 2:
            places[number] = parts
    return places


class _Numbers:
    """Big-endian numbers in turn; `past` once there are none left."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data, self._at, self._end = data, at, end
        self.past = False

    def take(self, size: int) -> int:
        self.past |= self._at + size > self._end
        value = int.from_bytes(self._data[self._at : self._at + size], "big")
        self._at += size
        return 0 if self.past else value
