"""Metadata segments and the orientation that they hold."""

from __future__ import annotations

import dataclasses
import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_kit import blank, exif, photo, pillow
from PIL import Image

from vizcomp.errors import FormatError, TruncatedError
from vizcomp.jpeg.segments import (
    SOS,
    essential_segments,
    markers,
    metadata_segments,
    orientation,
    scan_end,
)
from vizcomp.jpeg.write import write_jpeg


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_survives_alone(order: str) -> None:
    noise = (0xFE, b"comment"), (0xED, b"photoshop"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    segments = [*noise, (0xE1, exif(6, order)), (0xE2, b"ICC_PROFILE\0\1\1profile")]
    essential = essential_segments(segments, "essential")
    assert [m for m, _ in essential] == [0xE1, 0xE2]
    assert orientation(essential) == 6
    data = write_jpeg(dataclasses.replace(blank(16, 8, [(1, 1)], "grey"), segments=essential))
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert essential_segments(segments, "none") == []
    assert essential_segments(segments, "all") == segments
    upright = essential_segments([(0xE1, exif(1, order))], "essential")
    assert upright == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (1, "B"),
        (3, "H"),
        (4, "I"),
        (6, "b"),
        (8, "h"),
        (9, "i"),
        (5, "II"),
        (10, "ii"),
        (3, "HHH"),
        (4, "II"),
    ],
)
def test_an_orientation_of_any_type_becomes_one_short(order: str, kind: int, stored: str) -> None:
    rational = kind in (5, 10)
    body = struct.pack(order + stored, *((6, 1) if rational else (6,) * len(stored)))
    entry = struct.pack(order + "HHI", 0x0112, kind, 1 if rational else len(stored))
    entry += body.ljust(4, b"\0") if len(body) <= 4 else struct.pack(order + "I", 26)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    segment = (0xE1, b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry + bytes(4) + body)
    for keep in ("essential", "all"):
        kept = essential_segments([segment], keep)
        assert orientation(kept) == 6
        assert Image.open(io.BytesIO(pillow(photo(16, 8), exif=kept[0][1]))).getexif()[0x0112] == 6


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 40))
def test_malformed_exif_counts_as_none(noise: bytes, cut: int) -> None:
    for payload in (
        b"Exif\0\0" + noise,
        exif(6)[:cut],
        b"Exif\0\0II*\0" + noise,
        exif(6)[:14] + noise,
    ):
        assert 1 <= orientation([(0xE1, payload)]) <= 8
        essential_segments([(0xE1, payload)], "essential")


def test_a_thumbnail_in_jfif_is_dropped() -> None:
    payload = b"JFIF\0\1\2\1\0\x48\0\x48\1\1\xaa\xbb\xcc"
    assert essential_segments([(0xE0, payload)], "all") == [(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\0\0")]


def test_profiles_are_split_and_joined() -> None:
    profile = bytes(range(256)) * 600
    segments = metadata_segments(icc=profile, exif=exif(3), xmp=b"<x/>")
    data = write_jpeg(dataclasses.replace(blank(16, 8, [(1, 1)], "grey"), segments=segments))
    opened = Image.open(io.BytesIO(data))
    assert opened.info["icc_profile"] == profile
    assert opened.getexif()[0x0112] == 3
    assert metadata_segments(xmp=bytes(17 << 20)) == []


@pytest.mark.parametrize("progressive", [False, True])
def test_markers_are_walked_over_scans_with_restarts_and_fill(progressive: bool) -> None:
    data = pillow(photo(64, 64), progressive=progressive, restart_marker_blocks=2, comment=b"hello")
    data = data.replace(b"\xff\xda", b"\xff\xff\xff\xda")
    walked = list(markers(data + b"more"))
    assert (walked[0].code, walked[-1]) == (0xE0, (0xD9, b"", len(data)))
    assert (0xFE, b"hello") in [(m.code, m.payload) for m in walked]
    scans = [m for m in walked if m.code == SOS]
    assert len(scans) > 5 if progressive else len(scans) == 1
    for scan in scans:
        end = scan_end(data, scan.end)
        assert end > scan.end
        assert data[end] == 0xFF
    assert scan_end(data, scans[-1].end) == len(data) - 2


def test_markers_refuse_what_cannot_be_walked() -> None:
    data = pillow(photo(16, 16))
    at = data.index(b"\xff\xdb")
    with pytest.raises(TruncatedError):
        list(markers(data[: at + 20]))
    with pytest.raises(TruncatedError):
        list(markers(data[: at + 3]))
    with pytest.raises(FormatError, match="length 1"):
        list(markers(data[: at + 2] + b"\0\1" + data[at + 4 :]))
    with pytest.raises(FormatError, match="second picture"):
        list(markers(data[:at] + data))
    assert [m.code for m in markers(data[:at])] == [0xE0]  # no end marker, no error
