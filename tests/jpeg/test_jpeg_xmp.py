"""XMP packets too large for one segment of a JPEG."""

from __future__ import annotations

import hashlib
import io
import struct

import pytest
from jpeg_kit import photo, pillow
from PIL import Image

from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.jpeg.segments import essential_segments, markers, metadata_segments
from vizcomp.jpeg.xmp import EXTENDED, MAIN, extended_xmp, joined_xmp, xmp_segments
from vizcomp.photos.photo import load_bytes

RDF = b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'


def packet(body: bytes, names: bytes = b"") -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        + RDF
        + names
        + b">"
        + body
        + b"</rdf:RDF></x:xmpmeta>"
    )


def long_packet(size: int = 150_000) -> bytes:
    return packet(b'<rdf:Description a:Long="' + b"x" * size + b'"/>', b' xmlns:a="urn:a"')


def segments_of(data: bytes) -> list[tuple[int, bytes]]:
    return [(m.code, m.payload) for m in markers(data) if m.code == 0xE1]


def test_a_long_packet_becomes_a_stub_and_its_extension() -> None:
    whole = long_packet()
    first, *parts = xmp_segments(b"<?xpacket begin=''?>" + whole + b"<?xpacket end='w'?>")
    assert len(parts) == 3
    assert all(len(payload) <= 65533 for _, payload in (first, *parts))
    name = hashlib.md5(whole, usedforsecurity=False).hexdigest().upper().encode()
    assert name in first[1]
    assert all(payload.startswith(EXTENDED + name) for _, payload in parts)
    assert extended_xmp(first[1].removeprefix(MAIN), parts[::-1]) == whole
    assert extended_xmp(first[1], parts[:-1]) is None
    assert xmp_segments(b"<x/>") == [(0xE1, MAIN + b"<x/>")]


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_a_long_packet_goes_from_format_to_format(kind: str) -> None:
    out = io.BytesIO()
    Image.fromarray(photo(32, 24)).save(out, kind, xmp=long_packet())
    made = compress(
        load_bytes(out.getvalue(), "long"), DjpegSettings(guide="uniform", metadata="all")
    )
    assert not made.notices
    again = load_bytes(made.data, "again")
    assert again.xmp is not None
    assert b"x" * 150_000 in again.xmp
    assert b"HasExtendedXMP" not in again.xmp
    back = compress(again, DjpegSettings(guide="uniform", metadata="all", format="webp"))
    assert load_bytes(back.data, "back").xmp == again.xmp


def test_namespaces_go_with_what_is_joined() -> None:
    main = packet(
        b'<rdf:Description xmlns:xmpNote="n" xmpNote:HasExtendedXMP="'
        + b"A" * 32
        + b'" b:Short="1"/>',
        b' xmlns:b="urn:b"',
    )
    joined = joined_xmp(main, long_packet(3))
    assert joined is not None
    assert b'xmlns:a="urn:a"' in joined
    assert joined.count(b"xmlns:rdf") == 1
    assert b'a:Long="xxx"' in joined
    assert b'b:Short="1"' in joined
    assert joined_xmp(main, b"no packet") is None


def test_an_extension_that_is_not_whole_is_told() -> None:
    first, *parts = metadata_segments(xmp=long_packet())
    head = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
        for _, payload in (first, *parts[1:])
    )
    data = pillow(photo(32, 24))
    notices = load_bytes(data[:2] + head + data[2:], "cut").notices
    assert notices == ("the extension of its XMP data cannot be read",)


def test_an_extension_that_promises_more_goes_as_a_whole() -> None:
    segments = metadata_segments(
        xmp=packet(
            b"<rdf:Description>" + b"x" * 150_000 + b'<hdrgm:Version a="1"/></rdf:Description>'
        )
    )
    kept = essential_segments(segments, "all")
    assert [payload[: len(MAIN)] for _, payload in kept] == [MAIN]
    assert b"HasExtendedXMP" not in kept[0][1]
