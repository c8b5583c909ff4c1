"""Mutators that know a file's structure.

Parts are changed, repeated, moved and lost, while lengths and checksums stay right.

So what is changed comes as far as the code that reads it, where bytes changed at random fail at the
first checksum. A container is taken apart into named parts and put together again by `split` and
`join` of its format; `stir` changes a list of parts, and `stir_bytes` what is in one.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

TELLING = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    1000,
    4096,
    0x7FFF,
    0x8000,
    0xFFFF,
    1 << 16,
    1 << 24,
)
LARGE = (
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0xFFFFFFFE,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
MOST = 400_000  # bytes of a file that is made


@dataclass
class Part:
    """A part of a container: its name as the format has it, and what it holds.

    `lie` is added to its length.
    """

    name: bytes
    body: bytes
    lie: int = 0


def number(dice: random.Random) -> int:
    """One that tells more than most."""
    value = dice.choice(TELLING) if dice.random() < 0.7 else dice.choice(LARGE)
    return value + dice.choice((0, 0, 0, 1, -1))


def stir_bytes(data: bytes, dice: random.Random) -> bytes:
    """One to four changes: numbers of 1, 2, 4 or 8 bytes, bits, cuts, repeats."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(out) + 1)
        kind = dice.randrange(8)
        if kind < 4:
            width = dice.choice((1, 2, 4, 8))
            at -= at % dice.choice((1, width))
            order = dice.choice(("little", "big"))
            out[at : at + width] = (number(dice) & ((1 << 8 * width) - 1)).to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == 4 and at < len(out):
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 5:
            del out[at : at + dice.choice((1, 2, 4, 8, 64))]
        elif kind == 6:
            out[at:at] = out[at : at + dice.choice((1, 2, 4, 8, 64))] * dice.choice((1, 1, 2, 50))
        else:
            out[at:at] = bytes(dice.choice((1, 4, 100)))
    return bytes(out[:MOST])


def stir(
    parts: list[Part],
    dice: random.Random,
    others: list[Part],
    inner: Callable[[Part], bytes] | None = None,
) -> list[Part]:
    """One to three changes of a list of parts.

    Args:
        others: parts of other files of the format.
        inner: changes what is in a part, by its own structure; None: as bytes.
    """
    parts = [Part(part.name, part.body, part.lie) for part in parts]
    for _ in range(dice.choice((1, 1, 2, 3))):
        if not parts:
            break
        at, kind = dice.randrange(len(parts)), dice.randrange(12)
        part = parts[at]
        if kind < 6:
            part.body = (
                inner(part)
                if inner is not None and dice.random() < 0.7
                else stir_bytes(part.body, dice)
            )
        elif kind == 6:
            del parts[at]
        elif kind == 7:
            times = dice.choice((1, 2, 50, 2000))
            times = min(times, MOST // (len(part.body) + 12) + 1)
            parts[at:at] = [Part(part.name, part.body) for _ in range(times)]
        elif kind == 8:
            parts.insert(dice.randrange(len(parts)), parts.pop(at))
        elif kind == 9 and others:
            other = dice.choice(others)
            parts.insert(at, Part(other.name, other.body))
        elif kind == 10:
            part.name = (
                dice.choice(others).name
                if others and dice.random() < 0.7
                else stir_bytes(part.name, dice)[:4].ljust(4)
            )
        else:
            part.lie = dice.choice((-8, -1, 1, 4, 1 << 16, 0x7FFFFFFF, -len(part.body)))
    return parts


# --- PNG ------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


def split_png(data: bytes) -> list[Part]:
    parts, at = [], len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        parts.append(Part(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def join_png(parts: list[Part]) -> bytes:
    made = [PNG]
    for part in parts:
        length = (len(part.body) + part.lie) & 0xFFFFFFFF
        checksum = zlib.crc32(part.body, zlib.crc32(part.name))
        made += [length.to_bytes(4, "big"), part.name, part.body, checksum.to_bytes(4, "big")]
    return b"".join(made)


def inner_png(part: Part, dice: random.Random) -> bytes:
    """What a compressed chunk holds is changed before it is compressed.

    A text may grow a thousand times.
    """
    if part.name in (b"IDAT", b"fdAT", b"iCCP", b"zTXt", b"iTXt"):
        skip = (
            4 if part.name == b"fdAT" else part.body.find(b"\0") + 2 if part.name != b"IDAT" else 0
        )
        try:
            plain = zlib.decompress(part.body[skip:])
        except zlib.error:
            return stir_bytes(part.body, dice)
        plain = bytes(50_000_000) if dice.random() < 0.005 else stir_bytes(plain, dice)
        return part.body[:skip] + zlib.compress(plain, 1)
    if part.name == b"IHDR" and dice.random() < 0.5:
        sides = [
            dice.choice((0, 1, 7, 999, 5000, 1 << 16, 0x7FFFFFFF, 0xFFFFFFFF)) for _ in range(2)
        ]
        return struct.pack(">II", *sides) + part.body[8:]
    return stir_bytes(part.body, dice)


# --- RIFF (WebP) ----------------------------------------------------------------------------------


def split_riff(data: bytes, at: int = 12) -> list[Part]:
    parts = []
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append(Part(data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + (length & 1)
    return parts


def join_riff(parts: list[Part], head: bytes = b"WEBP") -> bytes:
    made = [head]
    for part in parts:
        length = (len(part.body) + part.lie) & 0xFFFFFFFF
        made += [part.name, length.to_bytes(4, "little"), part.body, b"\0" * (len(part.body) & 1)]
    body = b"".join(made)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


# --- JPEG -----------------------------------------------------------------------------------------


def split_jpeg(data: bytes) -> list[Part]:
    """Segments, each named by its marker.

    What is coded after a scan's header is a part without a name.
    """
    parts, at = [], 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at : at + 2]
        if marker[1] in (0xD8, 0xD9) or 0xD0 <= marker[1] <= 0xD7:
            parts.append(Part(marker, b"", -2))
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(Part(marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
        if marker[1] == 0xDA:
            end = at
            while end + 1 < len(data) and not (
                data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))
            ):
                end += 1
            parts.append(Part(b"", data[at:end]))
            at = end
    return parts


def join_jpeg(parts: list[Part]) -> bytes:
    made = [b"\xff\xd8"]
    for part in parts:
        name = part.name[:2]
        if not name:
            made.append(part.body)
        elif part.lie == -2 and not part.body:
            made.append(name)
        else:
            made += [
                name,
                (min(0xFFFF, len(part.body) + 2) + part.lie & 0xFFFF).to_bytes(2, "big"),
                part.body[:0xFFFD],
            ]
    return b"".join(made) + b"\xff\xd9"


# --- boxes: AVIF, HEIF, JPEG XL -------------------------------------------------------------------

FOLDERS = {
    b"meta": 4,
    b"iprp": 0,
    b"ipco": 0,
    b"iinf": 6,
    b"iref": 4,
    b"moov": 0,
    b"trak": 0,
    b"mdia": 0,
    b"minf": 0,
    b"stbl": 0,
}
"""Boxes that hold others, and the bytes before those (ISO/IEC 14496-12)."""


def split_boxes(data: bytes) -> list[Part]:
    parts, at = [], 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = len(data) - at if size == 0 else size
        if size < head:
            break
        parts.append(Part(data[at + 4 : at + 8], data[at + head : at + size]))
        at += size
    return parts


def join_boxes(parts: list[Part]) -> bytes:
    made = []
    for part in parts:
        made += [
            ((len(part.body) + 8 + part.lie) & 0xFFFFFFFF).to_bytes(4, "big"),
            part.name,
            part.body,
        ]
    return b"".join(made)


def inner_box(part: Part, dice: random.Random) -> bytes:
    """Into the boxes that hold others, at any depth.

    One is now and then wrapped in itself many times.
    """
    skip = FOLDERS.get(part.name)
    if skip is None:
        return stir_bytes(part.body, dice)
    inside = split_boxes(part.body[skip:])
    if dice.random() < 0.03:
        body = part.body
        for _ in range(dice.choice((3, 300))):
            body = part.body[:skip] + (len(body) + 8).to_bytes(4, "big") + part.name + body
        return body[:MOST]
    changed = stir(inside, dice, inside, lambda each: inner_box(each, dice))
    return part.body[:skip] + join_boxes(changed)


# --- TIFF -----------------------------------------------------------------------------------------

TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def stir_tiff(data: bytes, dice: random.Random) -> bytes:
    """One to four entries of its directories (TIFF 6.0, section 2) with other tags, types, counts,
    values or places.
    """
    if len(data) < 8 or data[:4] not in (b"II*\0", b"MM\0*"):
        return stir_bytes(data, dice)
    order = "<" if data[:2] == b"II" else ">"
    out, entries, seen = bytearray(data), [], set()
    (at,) = struct.unpack_from(order + "I", out, 4)
    while 8 <= at < len(out) - 2 and at not in seen and len(seen) < 8:
        seen.add(at)
        (count,) = struct.unpack_from(order + "H", out, at)
        entries += [at + 2 + 12 * k for k in range(count) if at + 14 + 12 * k <= len(out)]
        end = at + 2 + 12 * count
        at = struct.unpack_from(order + "I", out, end)[0] if end + 4 <= len(out) else 0
    for _ in range(dice.choice((1, 1, 2, 4))):
        if not entries or dice.random() < 0.15:
            start = dice.choice(sorted(seen)) if seen else 4
            struct.pack_into(order + "H", out, start, dice.choice((0, 1, 2, 300, 0xFFFF)))
            continue
        place, kind = dice.choice(entries), dice.randrange(6)
        if kind == 0:
            struct.pack_into(
                order + "H",
                out,
                place,
                dice.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 324, 330, 34665)),
            )
        elif kind == 1:
            struct.pack_into(order + "H", out, place + 2, dice.choice((0, *TYPES, 16, 17, 18, 255)))
        elif kind == 2:
            struct.pack_into(order + "I", out, place + 4, number(dice) & 0xFFFFFFFF)
        elif kind in (3, 4):
            struct.pack_into(
                order + "I",
                out,
                place + 8,
                (number(dice) if kind == 3 else dice.randrange(len(out))) & 0xFFFFFFFF,
            )
        else:
            other = dice.choice(entries)
            out[place : place + 12] = out[other : other + 12]
    return stir_bytes(bytes(out), dice) if dice.random() < 0.1 else bytes(out)


def exif_of(data: bytes, dice: random.Random) -> bytes:
    """An APP1 segment with its Exif directory changed."""
    return (
        data[:6] + stir_tiff(data[6:], dice) if data[:6] == b"Exif\0\0" else stir_bytes(data, dice)
    )


# --- the formats together -------------------------------------------------------------------------


def changed(data: bytes, dice: random.Random, files: list[bytes]) -> bytes:
    """A photo's file of any format, changed by its structure."""
    other = dice.choice(files)
    if data[:8] == PNG:
        others = split_png(other) if other[:8] == PNG else []
        return join_png(stir(split_png(data), dice, others, lambda part: inner_png(part, dice)))
    if data[:4] == b"RIFF":
        others = split_riff(other) if other[:4] == b"RIFF" else []
        return join_riff(stir(split_riff(data), dice, others, lambda part: inner_riff(part, dice)))
    if data[:2] == b"\xff\xd8":
        others = split_jpeg(other) if other[:2] == b"\xff\xd8" else []
        return join_jpeg(
            stir(split_jpeg(data), dice, others, lambda part: inner_segment(part, dice))
        )
    if data[4:8] in (b"ftyp", b"JXL "):
        others = split_boxes(other) if other[4:8] in (b"ftyp", b"JXL ") else []
        return join_boxes(stir(split_boxes(data), dice, others, lambda part: inner_box(part, dice)))
    return stir_tiff(data, dice)


def inner_riff(part: Part, dice: random.Random) -> bytes:
    if part.name == b"EXIF":
        return stir_tiff(part.body, dice)
    if part.name == b"ANMF":
        frame = split_riff(part.body, 16)
        return part.body[:16] + join_riff(stir(frame, dice, frame), b"")[8:]
    return stir_bytes(part.body, dice)


def inner_segment(part: Part, dice: random.Random) -> bytes:
    if part.name == b"\xff\xe1":
        return exif_of(part.body, dice)
    if part.name in (b"\xff\xc0", b"\xff\xc2") and dice.random() < 0.5:
        sides = [dice.choice((0, 1, 8, 500, 3000, 0xFFFF)) for _ in range(2)]
        return part.body[:1] + struct.pack(">HH", *sides) + part.body[5:]
    return stir_bytes(part.body, dice)
