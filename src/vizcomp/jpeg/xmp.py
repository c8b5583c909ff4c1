"""XMP packets (ISO 16684-1): their orientation, and those too large for one segment of a JPEG (XMP
part 3, 1.1.3)."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence

from vizcomp.jpeg.image import Segment

_APP1 = 0xE1
MAIN, EXTENDED = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
MAX_MAIN = 65533 - len(MAIN)
_PART = 65400  # bytes of an extended packet in a segment, as the standard advises
MAX_EXTENDED = 16 << 20  # larger ones than any camera or editor writes
_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*))([2-8])")
_WRAPPER = re.compile(rb"<\?xpacket[^>]*\?>")
_POINTER = re.compile(
    rb"\s*xmpNote:HasExtendedXMP\s*=\s*[\"']([0-9A-Fa-f]{32})[\"']|"
    rb"\s*<xmpNote:HasExtendedXMP>\s*([0-9A-Fa-f]{32})\s*</xmpNote:HasExtendedXMP>"
)
_DESCRIPTIONS = re.compile(rb"^(.*?)<rdf:RDF\b([^>]*)>(.*)</rdf:RDF>", re.DOTALL)
_NAMESPACE = re.compile(rb"(xmlns:[\w.-]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_STUB = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
    b' xmpNote:HasExtendedXMP="%s"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def upright_xmp(xmp: bytes) -> bytes:
    """A packet whose orientation, where it has one (XMP part 2, tiff:Orientation), is upright."""
    return _ORIENTATION.sub(rb"\g<1>1", xmp)


def xmp_orientation(xmp: bytes) -> int:
    """The orientation that a packet states, 2..8; else 1."""
    found = _ORIENTATION.search(xmp)
    return int(found.group(2)) if found else 1


def xmp_segments(xmp: bytes) -> list[Segment]:
    """A packet as segments of a JPEG: one, or where it is too large a stub and its extension; none
    above `MAX_EXTENDED`."""
    if len(xmp) <= MAX_MAIN:
        return [(_APP1, MAIN + xmp)]
    bare = _WRAPPER.sub(b"", xmp).strip()
    if len(bare) > MAX_EXTENDED:
        return []
    name = hashlib.md5(bare, usedforsecurity=False).hexdigest().upper().encode()
    parts = [
        (_APP1, EXTENDED + name + struct.pack(">II", len(bare), at) + bare[at : at + _PART])
        for at in range(0, len(bare), _PART)
    ]
    return [(_APP1, MAIN + _STUB % name), *parts]


def extended_xmp(main: bytes, segments: Sequence[Segment]) -> bytes | None:
    """The extension that a main packet names; b"" where it names none, None where it is not there
    whole."""
    # most packets have none: a plain search is many times as fast as the pattern
    pointer = _POINTER.search(main) if b"HasExtendedXMP" in main else None
    if pointer is None:
        return b""
    head = EXTENDED + (pointer.group(1) or pointer.group(2)).upper()
    parts: dict[int, bytes] = {}
    total = 0
    for marker, payload in segments:
        if (
            marker == _APP1
            and payload[: len(head)].upper() == head.upper()
            and len(payload) > len(head) + 8
        ):
            total, at = struct.unpack_from(">II", payload, len(head))
            parts[at] = payload[len(head) + 8 :]
    whole = b"".join(parts[at] for at in sorted(parts))
    return whole if whole and len(whole) == total else None


def without_pointer(payload: bytes) -> bytes:
    """A main packet, with or without its header, that names no extension."""
    return _POINTER.sub(b"", payload)


def joined_xmp(main: bytes, extended: bytes) -> bytes | None:
    """One packet with what a main packet and its extension say; None where they are not written as
    usual."""
    first, second = _DESCRIPTIONS.match(main), _DESCRIPTIONS.match(extended)
    if first is None or second is None:
        return None
    known = set(re.findall(rb"xmlns:[\w.-]+", first.group(1) + first.group(2)))
    names = [
        m.group(0)
        for m in _NAMESPACE.finditer(second.group(1) + second.group(2))
        if m.group(1) not in known
    ]
    at = first.end(2)
    end = first.end(3)
    tag = b"".join(b" " + name for name in dict.fromkeys(names))
    return without_pointer(main[:at] + tag + main[at:end] + second.group(3) + main[end:])
