"""How long an input can hold a worker: bounded by its pixels and bytes, as SECURITY.md says.

Processor time counts, so that a busy machine changes little. Each case is the worst of its kind
that is known; what is worse is refused before the work starts (`tests/photos/test_heavy_files.py`).
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

import vizcomp
from vizcomp.jpeg.read import MAX_SCANS

A_MEGAPIXEL, A_KILOBYTE, START = 5.0, 0.005, 1.0  # seconds of one core; SECURITY.md says the same


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def saved(side: int, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    noise(side).save(out, kind, **options)
    return out.getvalue()


def scans(side: int) -> bytes:
    """A valid progressive JPEG of 190 scans, each of a few bytes: one for each AC coefficient.

    Each says by a run (T.81, G.1.2.2) that this coefficient is zero in all blocks.
    """
    data = saved(side, "JPEG", progressive=True, quality=50, subsampling=0)
    first = data.index(b"\xff\xda")
    end = first + 2
    while not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
        end += 1
    blocks = (-(-side // 8)) ** 2
    length = blocks.bit_length() - 1
    table = b"\xff\xc4\x00\x14\x10" + bytes([1] + [0] * 15) + bytes([length << 4])
    bits = "0" + (format(blocks - (1 << length), f"0{length}b") if length else "")
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    made = [data[:end], table]
    for number in range(1, 64):
        for component in (1, 2, 3):
            made.append(b"\xff\xda\x00\x08\x01" + bytes([component, 0, number, number, 0]) + coded)
    assert len(made) < MAX_SCANS
    return b"".join(made) + b"\xff\xd9"


def chunks(side: int) -> bytes:
    """A PNG with 20,000 texts before its pixels."""
    data = saved(side, "PNG")
    body = b"a\0" + b"b" * 20
    text = struct.pack(">I", len(body)) + b"tEXt" + body
    text += struct.pack(">I", zlib.crc32(b"tEXt" + body))
    return data[:33] + text * 20_000 + data[33:]


def segments(side: int) -> bytes:
    """A JPEG with 20,000 comments and 9,000 EXIF blocks before its picture."""
    data = saved(side, "JPEG", quality=95)
    comment = b"\xff\xfe\x00\x06abcd"
    exif = b"\xff\xe1\x00\x16Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    return data[:2] + exif * 9000 + comment * 20_000 + data[2:]


def frames(side: int) -> bytes:
    """A GIF of 5,000 pictures of which the first is read."""
    out = io.BytesIO()
    small = [Image.new("P", (1, 1), i % 2) for i in range(5000)]
    small[0].save(out, "GIF", save_all=True, append_images=small[1:], duration=20, optimize=False)
    return out.getvalue()


CASES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved(1000, "JPEG", quality=100, subsampling=0),
    "JPEG, scans": lambda: scans(1000),
    "JPEG, small, scans": lambda: scans(16),
    "JPEG, segments": lambda: segments(64),
    "PNG": lambda: saved(1000, "PNG"),
    "PNG, flat": lambda: (lambda out: (Image.new("RGB", (1000, 1000)).save(out, "PNG"), out)[1])(
        io.BytesIO()
    ).getvalue(),
    "PNG, texts": lambda: chunks(64),
    "WebP": lambda: saved(1000, "WEBP", lossless=True, method=0),
    "AVIF": lambda: saved(700, "AVIF", quality=95, speed=10),
    "TIFF": lambda: saved(1000, "TIFF", compression="tiff_lzw"),
    "GIF, frames": lambda: frames(1),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("guide", ["uniform", "depth+text"])
def test_a_photo_holds_a_worker_no_longer_than_its_size_allows(case: str, guide: str) -> None:
    data = CASES[case]()
    with Image.open(io.BytesIO(data)) as image:
        megapixels = image.width * image.height / 1e6
    if guide != "uniform":
        vizcomp.compress(noise(8), guide=guide)  # its networks are loaded once a worker
    began = time.process_time()
    vizcomp.compress(data, guide=guide, metadata="all")
    took = time.process_time() - began
    print(f"{case}: {took:.2f} s, {megapixels:.3f} megapixels, {len(data) / 1000:.0f} kB")
    assert took < START + A_MEGAPIXEL * megapixels + A_KILOBYTE * len(data) / 1000
