"""Small files that would hold a worker for minutes: bounded before the work starts."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from kit import picture, processor_seconds
from PIL import Image

from vizcomp.errors import FormatError, TooLargeError
from vizcomp.jpeg.read import MAX_SCANS
from vizcomp.neural.codec import NeuralCodec
from vizcomp.photos.decoders import MAX_PAGES
from vizcomp.photos.photo import load_bytes
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc


def tiff_of_pages(count: int, order: str = "<", *, loop: bool = False) -> bytes:
    """Pages of one pixel, all of which share it."""
    data = bytearray(
        (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 10) + b"\x80\0"
    )
    for number in range(count):
        entries = [
            (256, 4, 1),
            (257, 4, 1),
            (258, 4, 8),
            (259, 4, 1),
            (262, 4, 1),
            (273, 4, 8),
            (278, 4, 1),
            (279, 4, 1),
        ]
        body = b"".join(
            struct.pack(order + "HHII", tag, kind, 1, value) for tag, kind, value in entries
        )
        here = len(data)
        after = 10 if loop else 0 if number == count - 1 else here + 2 + len(body) + 4
        data += struct.pack(order + "H", len(entries)) + body + struct.pack(order + "I", after)
    return bytes(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("count", "said"),
    [(1, ()), (3, ("first of 3 pages",)), (40_000, (f"first of {MAX_PAGES} pages or more",))],
)
def test_pages_of_a_tiff_are_counted_up_to_a_bound(
    order: str, count: int, said: tuple[str, ...]
) -> None:
    data = tiff_of_pages(count, order)
    with processor_seconds(5):
        assert load_bytes(data, "a.tif").notices == said


def test_pages_of_a_tiff_that_go_in_a_circle_are_counted_once() -> None:
    assert load_bytes(tiff_of_pages(1, loop=True), "a.tif").notices == ()


def of_many_scans(scans: int) -> bytes:
    """A progressive JPEG in which the last scan comes again and again."""
    out = io.BytesIO()
    Image.fromarray(picture(1, 64, 64)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def test_a_jpeg_of_too_many_scans_is_refused() -> None:
    with pytest.raises(TooLargeError, match="scans"):
        load_bytes(of_many_scans(2000), "a.jpg")


def test_marks_of_scans_behind_a_picture_do_not_count() -> None:
    out = io.BytesIO()
    Image.fromarray(picture(1)).save(out, "JPEG")
    assert load_bytes(out.getvalue() + b"\xff\xda\0" * (MAX_SCANS + 1), "a.jpg").pixels.shape == (
        32,
        32,
        3,
    )


def test_a_jpeg_of_too_many_blocks_of_exif_is_refused() -> None:
    """Pillow takes the square of their number: 24 seconds for these 4.8 MB."""
    out = io.BytesIO()
    Image.fromarray(picture(1)).save(out, "JPEG")
    data, block = out.getvalue(), b"\xff\xe1\x00\x16Exif\0\0II*\0\x08" + bytes(9)
    with pytest.raises(TooLargeError, match="blocks of EXIF"):
        load_bytes(data[:2] + block * 200_000 + data[2:], "a.jpg")
    other = b"\xff\xe1\x00\x16Else\0\0" + bytes(14)
    assert load_bytes(data[:2] + other * 20_000 + data[2:], "a.jpg").exif is None


def test_a_vzc_of_few_bytes_and_many_pixels_is_refused(any_model: Path) -> None:
    codec = NeuralCodec.load(any_model)
    chunks = [b""] * codec.iterations
    data = vzc.pack(chunks, model=codec.fingerprint, width=14_000, height=14_000)
    assert len(data) < 60
    with processor_seconds(5), pytest.raises(FormatError, match="fewer than its size can take"):
        codec.decode(data)


def test_no_encoder_writes_fewer_bytes_than_the_bound() -> None:
    """A model that is as sure as it can be, of bits that are all as it expects."""
    rows, columns, bits = 512, 512, 32
    zeros = np.zeros((bits, rows, columns), np.uint8)
    sure = coding.ContextModel.flat([bits]).to_arrays()
    sure["tables"] = np.ones_like(sure["tables"])
    sure["weights"] = np.full_like(sure["weights"], 65536 * 4)
    data = coding.encode(coding.ContextModel.from_arrays(sure), [zeros], [])
    assert len(data) >= coding.least_bytes(bits * rows * columns) > 0
