"""What of an EXIF block is essential: the orientation, the dates, the artist and the copyright
(CIPA DC-008, EXIF 3.0).

Place, camera, serial numbers, thumbnail and maker notes are not. A broken block costs nothing but
itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

ORIENTATION, EXIF_DIRECTORY = 0x0112, 0x8769
_KEPT = {0x0132: "date of change", 0x013B: "artist", 0x8298: "copyright"}
_KEPT_BELOW = {0x9003: "date", 0x9004: "date of digitising"}
_TEXTS = (2, 129)  # ASCII; UTF-8 of EXIF 3.0
MAX_TEXT = 4096
_MAX_ENTRIES = 1000
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}


class Entry(NamedTuple):
    """An entry of a TIFF directory.

    Attributes:
        at: where its 12 bytes are.
        place, size: where its values are, and how many bytes; they may be outside the block.
    """

    tag: int
    kind: int
    values: int
    at: int
    place: int
    size: int


def byte_order(tiff: bytes) -> Literal["<", ">"] | None:
    """Of a TIFF structure; None where it is none."""
    return "<" if tiff[:4] == b"II*\0" else ">" if tiff[:4] == b"MM\0*" else None


def directory(tiff: bytes, offset: int) -> Iterator[Entry]:
    """The entries of the directory at an offset, as far as it goes; none where there is none."""
    order = byte_order(tiff)
    if order is None or not 8 <= offset <= len(tiff) - 2:
        return
    (count,) = struct.unpack_from(order + "H", tiff, offset)
    for number in range(min(count, _MAX_ENTRIES)):
        at = offset + 2 + 12 * number
        if at + 12 > len(tiff):
            return
        tag, kind, values = struct.unpack_from(order + "HHI", tiff, at)
        size = _SIZES.get(kind, 1) * values
        place = at + 8 if size <= 4 else struct.unpack_from(order + "I", tiff, at + 8)[0]
        yield Entry(tag, kind, values, at, place, size)


def first_offset(tiff: bytes) -> int:
    """Of the first directory; 0 without one."""
    order = byte_order(tiff)
    return 0 if order is None or len(tiff) < 8 else int(struct.unpack_from(order + "I", tiff, 4)[0])


def pointed(tiff: bytes, entry: Entry) -> int:
    """The offset of the directory that an entry leads to."""
    order = byte_order(tiff)
    return (
        0
        if order is None or entry.size < 4
        else int(struct.unpack_from(order + "I", tiff, entry.at + 8)[0])
    )


def essential_exif(tiff: bytes, orientation: int) -> bytes:
    """A block with the orientation (2..8; 1 is not written), dates, artist and copyright of
    another; b"" where there is none.

    Args:
        tiff: without the header "Exif".
    """
    first, below = _texts(tiff, first_offset(tiff), _KEPT), {}
    for entry in directory(tiff, first_offset(tiff)):
        if entry.tag == EXIF_DIRECTORY:
            below = _texts(tiff, pointed(tiff, entry), _KEPT_BELOW)
            break
    if not (first or below or 2 <= orientation <= 8):
        return b""
    return _block(first, below, orientation)


def has_more_than_essential(tiff: bytes) -> bool:
    """Whether a block tells anything else of a photo."""
    if byte_order(tiff) is None:
        return bool(tiff)
    for entry in directory(tiff, first_offset(tiff)):
        if entry.tag == EXIF_DIRECTORY:
            if any(e.tag not in _KEPT_BELOW for e in directory(tiff, pointed(tiff, entry))):
                return True
        elif entry.tag != ORIENTATION and entry.tag not in _KEPT:
            return True
    return False


def states_orientation(tiff: bytes) -> bool:
    """Whether a block has an orientation, upright ones included."""
    return any(entry.tag == ORIENTATION for entry in directory(tiff, first_offset(tiff)))


def is_essential(tag: int, *, below: bool = False) -> bool:
    """Whether a tag stays, in the first directory or in that of EXIF."""
    return tag in _KEPT_BELOW if below else tag in _KEPT or tag == ORIENTATION


def _texts(tiff: bytes, offset: int, tags: Mapping[int, str]) -> dict[int, tuple[int, bytes]]:
    """By tag the type and the bytes of the texts that are wanted; blank and long ones are not."""
    texts: dict[int, tuple[int, bytes]] = {}
    for entry in directory(tiff, offset):
        inside = entry.place + entry.size <= len(tiff) and 0 < entry.size <= MAX_TEXT
        if entry.tag in tags and entry.kind in _TEXTS and inside and entry.tag not in texts:
            text = tiff[entry.place : entry.place + entry.size].rstrip(b"\0")
            if text.strip(b" \0:"):  # cameras without a clock write blanks
                texts[entry.tag] = (entry.kind, text + b"\0")
    return texts


def _block(
    first: dict[int, tuple[int, bytes]], below: dict[int, tuple[int, bytes]], orientation: int
) -> bytes:
    """A big-endian TIFF structure of two directories at most."""
    values: list[tuple[int, int, bytes]] = [
        (tag, kind, text) for tag, (kind, text) in first.items()
    ]
    if 2 <= orientation <= 8:
        values.append((ORIENTATION, 3, struct.pack(">H", orientation)))
    if below:
        values.append((EXIF_DIRECTORY, 4, b"\0\0\0\0"))
    head = 8
    size = _length(values)
    inner = [(tag, kind, text) for tag, (kind, text) in below.items()]
    values = [
        (t, k, struct.pack(">I", head + size) if t == EXIF_DIRECTORY else v) for t, k, v in values
    ]
    return (
        b"MM\0*"
        + struct.pack(">I", head)
        + _written(values, head)
        + (_written(inner, head + size) if inner else b"")
    )


def _length(values: list[tuple[int, int, bytes]]) -> int:
    return 2 + 12 * len(values) + 4 + sum(len(v) + len(v) % 2 for _, _, v in values if len(v) > 4)


def _written(values: list[tuple[int, int, bytes]], start: int) -> bytes:
    entries, rest = b"", b""
    place = start + 2 + 12 * len(values) + 4
    for tag, kind, value in sorted(values):
        count = len(value) // _SIZES[kind]
        if len(value) <= 4:
            entries += struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
        else:
            entries += struct.pack(">HHII", tag, kind, count, place + len(rest))
            rest += value + b"\0" * (len(value) % 2)
    return struct.pack(">H", len(values)) + entries + b"\0\0\0\0" + rest
