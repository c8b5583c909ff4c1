"""What HEIC, AVIF and JPEG XL carry beside their picture."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from kit import picture
from PIL import Image

from vizcomp.photos.boxes import boxes, carried, essential_heif, essential_jxl, stated_primaries
from vizcomp.photos.photo import load_bytes
from vizcomp.photos.strip import with_essential


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def avif(**options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(1, 32, 48)).save(out, "AVIF", **options)
    return out.getvalue()


def with_item(data: bytes, kind: bytes) -> bytes:
    """An AVIF whose list of items has one more, of no bytes: as the `tmap` of ISO 21496-1 it
    promises a gain map."""
    meta = next(b for b in boxes(data) if b.kind == b"meta")
    inner = list(boxes(data, meta.start + 4, meta.end))
    parts = [data[meta.start : meta.start + 4]]
    added = box(b"infe", b"\2\0\0\1", struct.pack(">HH", 99, 0), kind, b"\0")
    for b in inner:
        body = data[b.start : b.end]
        if b.kind == b"iinf":
            count = struct.unpack_from(">H", body, 4)[0] + 1
            parts.append(box(b"iinf", body[:4], struct.pack(">H", count), body[6:], added))
        elif b.kind == b"iloc":  # the pixels move
            at = body.index(struct.pack(">I", _pixels(data)))
            moved = struct.pack(">I", _pixels(data) + len(added))
            parts.append(box(b"iloc", body[:at], moved, body[at + 4 :]))
        else:
            parts.append(data[b.at : b.end])
    return data[: meta.at] + box(b"meta", *parts) + data[meta.end :]


def _pixels(data: bytes) -> int:
    return next(b for b in boxes(data) if b.kind == b"mdat").start


def told(data: bytes) -> list[str]:
    return [
        notice
        for notice in load_bytes(data, "photo").notices
        if notice.endswith("is not in the result")
    ]


def test_a_gain_map_of_avif_is_told() -> None:
    assert told(avif()) == []
    assert told(with_item(avif(), b"tmap")) == ["its gain map (HDR) is not in the result"]
    assert told(avif() + box(b"mpvd", b"video")) == [
        "its video of the motion photo is not in the result"
    ]


@pytest.mark.parametrize(
    ("urn", "name"),
    [
        (b"urn:com:apple:photo:2020:aux:hdrgainmap", "gain map (HDR)"),
        (b"urn:mpeg:hevc:2015:auxid:2", "depth map"),
        (b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth", "depth map"),
    ],
)
def test_auxiliary_pictures_of_heic_are_told(urn: bytes, name: str) -> None:
    properties = box(b"iprp", box(b"ipco", box(b"auxC", bytes(4), urn, b"\0")))
    data = box(b"ftyp", b"heic", bytes(4), b"mif1heic") + box(b"meta", bytes(4), properties)
    assert carried(data, "HEIF") == (name,)


def test_a_gain_map_of_jpeg_xl_is_told() -> None:
    head = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl ", bytes(4), b"jxl ")
    assert carried(head + box(b"jhgm", b"map") + box(b"jxlc", b"\xff\x0a"), "JXL") == (
        "gain map (HDR)",
    )


def test_wide_colours_without_a_profile_are_told() -> None:
    data = avif()
    assert stated_primaries(data) == (1, 13)
    assert not load_bytes(data, "srgb").notices
    at = data.index(b"colrnclx") + 8
    wide = data[:at] + struct.pack(">HH", 12, 16) + data[at + 4 :]
    assert load_bytes(wide, "p3").notices == (
        "its colours (Display P3, PQ (HDR)) are taken for sRGB, as other decoders do",
    )


def test_without_what_tells_the_picture_stays() -> None:
    data = avif(
        exif=Image.Exif().tobytes() + b"SecretCamera" + bytes(200),
        xmp=b"<x>SecretPlace" + b" " * 60 + b"</x>",
    )
    data += box(b"uuid", b"SecretUuid")
    stripped = essential_heif(data, b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
    assert stripped is not None
    assert len(stripped) == len(data)
    assert b"Secret" not in stripped
    assert np.array_equal(load_bytes(stripped, "a").pixels, load_bytes(data, "b").pixels)
    assert essential_heif(data, bytes(1000)) is None  # there is no room for that


def test_a_jpeg_xl_without_its_boxes_keeps_its_codestream() -> None:
    head = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl ", bytes(4), b"jxl ")
    whole = (
        head
        + box(b"Exif", bytes(4), b"Secret")
        + box(b"xml ", b"Secret")
        + box(b"brob", b"Exif", b"Secret")
    )
    whole += box(b"jbrd", b"Secret") + box(b"jxlc", b"\xff\x0astream")
    assert essential_jxl(whole, b"") == head + box(b"jxlc", b"\xff\x0astream")
    assert essential_jxl(whole, b"MM") == head + box(b"Exif", bytes(4), b"MM") + box(
        b"jxlc", b"\xff\x0astream"
    )
    assert essential_jxl(whole[:-3], b"") is None
    assert essential_jxl(b"\xff\x0astream", b"") == b"\xff\x0astream"


def test_broken_boxes_cost_nothing_but_themselves() -> None:
    data = with_item(
        avif(exif=Image.Exif().tobytes() + bytes(100), xmp=b"<x/>" + b" " * 60), b"tmap"
    )
    rng = np.random.default_rng(5)
    end = min(len(data), 900)
    for trial in range(1500):
        broken = bytearray(data)
        for place in rng.integers(0, end, 1 + trial % 4):
            broken[place] = rng.integers(0, 256)
        cut = bytes(broken[: rng.integers(end)] if trial % 3 == 0 else broken)
        carried(cut, "AVIF")
        stated_primaries(cut)
        with_essential(cut, b"")
