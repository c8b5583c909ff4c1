"""Broken, cut, hostile and unsupported files, and what stands before the first scan."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_kit import assert_same, blank, photo, pillow
from kit import processor_seconds
from PIL import Image

from vizcomp.errors import (
    DamagedError,
    FormatError,
    TooLargeError,
    TruncatedError,
    UnsupportedError,
)
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.write import write_jpeg


def test_what_stands_before_the_first_scan() -> None:
    data = pillow(photo(50, 30), quality=40, progressive=True, subsampling=2, comment=b"hello")
    image = read_jpeg(data)
    assert (image.width, image.height, image.progressive, image.colour) == (50, 30, True, "ycbcr")
    assert [(c.h, c.v) for c in image.components] == [(2, 2), (1, 1), (1, 1)]
    assert (0xFE, b"hello") in image.segments
    with Image.open(io.BytesIO(data)) as opened:
        tables = opened.quantization  # type: ignore[attr-defined]
    for slot, table in tables.items():
        assert image.tables[slot].tolist() == list(table)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file_is_truncated(progressive: bool, share: float) -> None:
    data = pillow(photo(120, 80), quality=80, progressive=progressive)
    with pytest.raises(TruncatedError):
        read_jpeg(data[: int(len(data) * share)])


def test_every_cut_is_refused_or_complete() -> None:
    data = pillow(photo(24, 16), quality=80, progressive=True)
    whole = read_jpeg(data)
    for size in range(len(data)):
        try:
            image = read_jpeg(data[:size])
        except TruncatedError:
            continue
        # only the end marker and the padding of the last byte may be missing
        assert size >= len(data) - 3
        assert_same(whole, image)


def test_a_missing_end_marker_and_what_follows_it_are_forgiven() -> None:
    for progressive in (False, True):
        data = pillow(photo(40, 40), progressive=progressive)
        whole = read_jpeg(data)
        assert_same(whole, read_jpeg(data[:-2]))
        assert_same(whole, read_jpeg(data + b"\xff\xd8 more \xff\xda"))


def test_fill_bytes_before_markers_are_passed() -> None:
    data = pillow(photo(40, 40))
    filled = data.replace(b"\xff\xda", b"\xff\xff\xff\xda").replace(b"\xff\xc4", b"\xff\xff\xc4")
    assert_same(read_jpeg(data), read_jpeg(filled))


def frame(
    marker: int, *, precision: int = 8, width: int = 16, height: int = 16, count: int = 1
) -> bytes:
    body = struct.pack(">BHHB", precision, height, width, count) + b"".join(
        bytes([i + 1, 0x11, 0]) for i in range(count)
    )
    return (
        b"\xff\xd8\xff"
        + bytes([marker])
        + struct.pack(">H", len(body) + 2)
        + body
        + b"\xff\xda\0\x08\1\1\0\0\x3f\0"
        + bytes(40)
    )


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (frame(0xC9), "arithmetic"),
        (frame(0xCA), "arithmetic"),
        (frame(0xC1, precision=12), "12 bits"),
        (frame(0xC3), "lossless"),
        (frame(0xC5), "hierarchical"),
        (frame(0xC0, height=0), "height"),
        (frame(0xC0, count=2), "2 components"),
    ],
)
def test_what_is_not_supported_is_named(data: bytes, word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        read_jpeg(data)


def test_a_bomb_is_refused_at_once() -> None:
    with processor_seconds(0.5), pytest.raises(TooLargeError):
        read_jpeg(frame(0xC0, width=65500, height=65500, count=3))
    # allowed size, but no file of this length can hold it
    with processor_seconds(0.5), pytest.raises(TruncatedError):
        read_jpeg(frame(0xC0, width=12000, height=12000, count=3))


def test_too_many_scans_are_refused() -> None:
    data = write_jpeg(blank(16, 16, [(1, 1)], "grey"))
    at = data.index(b"\xff\xda")
    scan = data[at : data.index(b"\xff\xc4", at)]
    with pytest.raises(FormatError):
        read_jpeg(data[:at] + scan * 500 + data[at:])


@pytest.mark.parametrize(
    "name",
    ["no huffman", "no quantisation", "bad code", "zero step", "scan first", "not jpeg", "empty"],
)
def test_broken_files_are_format_errors(name: str) -> None:
    data = pillow(photo(40, 40))
    at = {b: data.index(b) for b in (b"\xff\xc4", b"\xff\xdb", b"\xff\xc0", b"\xff\xda")}
    if name == "no huffman":
        data = pillow(photo(40, 40), progressive=True).replace(b"\xff\xc4", b"\xff\xef")
    elif name == "no quantisation":
        data = data.replace(b"\xff\xdb", b"\xff\xef")
    elif name == "bad code":
        data = data[: at[b"\xff\xc4"] + 5] + b"\xff" + data[at[b"\xff\xc4"] + 6 :]
    elif name == "zero step":
        data = data[: at[b"\xff\xdb"] + 5] + b"\0" + data[at[b"\xff\xdb"] + 6 :]
    elif name == "scan first":
        data = data[: at[b"\xff\xc0"]] + data[at[b"\xff\xda"] :]
    elif name == "not jpeg":
        data = b"hello world, this is text"
    else:
        data = b""
    with pytest.raises(FormatError):
        read_jpeg(data)


FLIPPED = {
    "baseline": pillow(photo(33, 20), quality=70),
    "progressive": pillow(photo(33, 20), quality=70, progressive=True),
    "restarts": pillow(photo(33, 20), quality=70, restart_marker_blocks=1),
    "grey": pillow(photo(33, 20), "L", quality=70, progressive=True),
}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_never_do_worse_than_a_format_error(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FLIPPED)))
    broken = bytearray(FLIPPED[name])
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read_jpeg(bytes(broken), max_pixels=1_000_000)
    except FormatError:
        return
    try:
        written = write_jpeg(image)
    except FormatError:  # coefficients that hostile data can hold, but no picture of 8 bits
        assert any(
            np.abs(np.diff(c.coefficients[..., 0], axis=1)).max(initial=0) > 2047
            for c in image.components
        )
        return
    assert_same(image, read_jpeg(written))


def with_restarts() -> tuple[bytes, int]:
    """A JPEG and the place of its first restart marker."""
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = pillow(pixels, restart_marker_blocks=2)
    return data, data.index(b"\xff\xd0", data.index(b"\xff\xda"))


@pytest.mark.parametrize("left", [b"\x12", b"\x12\x34"])
def test_a_byte_or_two_before_a_restart_marker_are_passed_over(left: bytes) -> None:
    """All samples of the interval are there; libjpeg shows the whole picture with a warning."""
    data, where = with_restarts()
    image = read_jpeg(data[:where] + left + data[where:])
    assert_same(image, read_jpeg(data))
    assert len(image.notices) == 1
    assert read_jpeg(data).notices == ()


@pytest.mark.parametrize("left", [b"\x12\x34\x56", bytes(200)])
def test_more_bytes_before_a_restart_marker_are_damage(left: bytes) -> None:
    """The interval was read wrongly: a damaged file must not pass as a good one."""
    data, where = with_restarts()
    with pytest.raises(DamagedError, match="restart"):
        read_jpeg(data[:where] + left + data[where:])


def test_the_standards_huffman_tables_may_be_missing() -> None:
    for options in ({}, {"mode": "L"}):
        data = pillow(photo(40, 40), **options)
        bare = data
        while (at := bare.find(b"\xff\xc4")) > 0:
            bare = bare[:at] + bare[at + 2 + int.from_bytes(bare[at + 2 : at + 4], "big") :]
        assert_same(read_jpeg(bare), read_jpeg(data))
