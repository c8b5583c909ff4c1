"""Chunks of a PNG that are not its picture, left out where Pillow would refuse the file for
them."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
EXIF_TEXTS = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP = b"XML:com.adobe.xmp\0"
_PIXELS = "a checksum of its pixels is wrong; they unpack all the same"
_LARGEST_TEXT = 1 << 20  # of Pillow, unpacked


def without_idle_chunks(data: bytes, notices: list[str]) -> bytes:
    """A PNG that Pillow reads if its pixels are whole; adds to `notices` what was left out.

    Text is dropped, but for XMP and EXIF of a sane size; other chunks beside the picture are where
    their checksum is wrong. The very bytes come back where there is nothing to drop.
    """
    if not data.startswith(_SIGNATURE):
        return data
    parts: list[bytes] = [_SIGNATURE]
    broken: list[str] = []
    dropped = False
    end = len(_SIGNATURE)
    for kind, start, body, whole in _chunks(data):
        end = start + 12 + len(body)
        sound = kind in _PICTURE or whole
        if kind == b"IDAT" and not whole and _PIXELS not in notices:
            notices.append(_PIXELS)
        if kind in _TEXT and not (
            sound and (_is_small_xmp(kind, body) or _is_small_exif(kind, body))
        ):
            dropped = True
        elif not sound:
            broken.append(kind.decode("latin-1"))
        else:
            parts.append(data[start:end])
    notices += [f"{name} left out: its checksum is wrong" for name in dict.fromkeys(broken)]
    return b"".join([*parts, data[end:]]) if dropped or broken else data


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, bytes, bool]]:
    """Type, place, content and whether the checksum is right; of the picture for pixels only."""
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if at + 12 + size > len(data) or not kind.isalpha():
            return
        body = data[at + 8 : at + 8 + size]
        whole = True
        if kind not in _PICTURE or kind == b"IDAT":
            (total,) = struct.unpack_from(">I", data, at + 8 + size)
            whole = zlib.crc32(kind + body) == total
        yield kind, at, body, whole
        at += 12 + size
        if kind == b"IEND":
            return


def _is_small_xmp(kind: bytes, body: bytes) -> bool:
    if kind != b"iTXt" or not body.startswith(_XMP) or len(body) > _LARGEST_TEXT:
        return False
    if body[len(_XMP) : len(_XMP) + 1] != b"\1":
        return True
    return _unpacks_small(body[len(_XMP) + 2 :].split(b"\0", 2)[-1])


def _is_small_exif(kind: bytes, body: bytes) -> bool:
    """Whether it is EXIF as ImageMagick wrote it before there was a chunk for it: hexadecimal, in a
    text."""
    keyword, _, rest = body.partition(b"\0")
    if keyword not in EXIF_TEXTS or kind == b"iTXt" or len(body) > _LARGEST_TEXT:
        return False
    return kind == b"tEXt" or _unpacks_small(rest[1:])


def _unpacks_small(packed: bytes) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, _LARGEST_TEXT)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def exif_of_text(info: Mapping[Any, Any]) -> bytes | None:
    """The EXIF block of such a text, as stored in it; None without one, or where it is no
    hexadecimal.

    Args:
        info: texts of a PNG by keyword, as Pillow reads them.
    """
    for keyword in EXIF_TEXTS:
        text = info.get(keyword.decode())
        if isinstance(text, str):
            # a line with a name, one with a number, then the bytes
            with contextlib.suppress(ValueError):
                return bytes.fromhex("".join(text.strip().split("\n")[2:])) or None
    return None
