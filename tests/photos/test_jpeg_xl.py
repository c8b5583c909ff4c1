"""JPEG XL is read: sizes by the header, orientation, opacity, and what is broken."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import jpeg_bytes, picture
from PIL import Image

from vizcomp.errors import FormatError, TooLargeError
from vizcomp.photos.decoders import jxl_size, load_jxl, recognise
from vizcomp.photos.photo import load_bytes

pytest.importorskip("pillow_jxl")


def jxl(pixels: np.ndarray, **options: Any) -> bytes:
    load_jxl()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JXL", effort=3, num_threads=1, **options)
    return file.getvalue()


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (8, 8), (64, 64), (40, 30), (33, 65), (300, 200), (200, 300), (160, 90), (256, 8)],
)
def test_sizes_are_known_by_the_header(size: tuple[int, int], container: bool) -> None:
    width, height = size
    data = jxl(picture(0, height, width), use_container=container)
    assert jxl_size(data) == size
    photo = load_bytes(data, "a.jxl")
    assert (photo.format, photo.pixels.shape) == ("JXL", (height, width, 3))
    if width * height > 1:
        with pytest.raises(TooLargeError):
            load_bytes(data, "a.jxl", max_pixels=width * height - 1)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_header(rest: bytes) -> None:
    jxl_size(b"\xff\x0a" + rest)
    jxl_size(b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a" + rest)


def test_what_it_holds_is_what_was_put_in() -> None:
    pixels = picture(3, 40, 56)
    assert np.array_equal(load_bytes(jxl(pixels, lossless=True), "a").pixels, pixels)
    assert np.array_equal(
        load_bytes(jxl(pixels[..., 0], lossless=True), "a").pixels, pixels[..., 0]
    )
    clear = np.dstack([pixels, np.full(pixels.shape[:2], 100, np.uint8)])
    photo = load_bytes(jxl(clear, lossless=True), "a")
    assert photo.alpha is not None
    assert (photo.alpha == 100).all()


def test_orientation_is_that_of_the_codestream_and_not_that_of_exif() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    photo = load_bytes(jxl(picture(1, 24, 40), exif=exif.tobytes()), "a")
    assert photo.orientation == 1  # ISO/IEC 18181-2: a decoder has obeyed the codestream's own
    assert photo.exif is not None
    assert b"Maker" in photo.exif


def test_a_jpeg_inside_keeps_its_own_orientation() -> None:
    from pillow_jxl import Encoder

    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = jpeg_bytes(picture(1, 24, 40), exif=exif.tobytes())
    data = Encoder(mode="RGB", lossless=True, quality=100, use_container=True)(
        jpeg, 40, 24, jpeg_encode=True
    )
    photo = load_bytes(bytes(data), "a")
    assert (photo.orientation, photo.pixels.shape) == (6, (24, 40, 3))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_broken_files_are_said_to_be(data: st.DataObject) -> None:
    whole = jxl(picture(2, 48, 48), use_container=data.draw(st.booleans()))
    broken = whole[: data.draw(st.integers(14, len(whole) - 1))]
    with pytest.raises(FormatError):
        load_bytes(broken, "a.jxl")


def test_it_is_told_by_its_first_bytes() -> None:
    assert recognise(b"\xff\x0a" + bytes(30), "a.jpg") == "JXL"
    with pytest.raises(FormatError, match="broken"):
        load_bytes(b"\xff\x0a" + bytes(50), "new.jpg")
