"""Pictures, JPEG files and comparisons that the tests of this folder share."""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.jpeg.image import Component, JpegImage


def photo(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth picture with edges and some noise: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    big = np.asarray(
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    ).astype(float)
    big[height // 3 :, width // 2 :] *= 0.6
    return np.clip(big + rng.normal(0, 6, big.shape), 0, 255).astype(np.uint8)


def pillow(pixels: npt.NDArray[np.uint8], mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def assert_same(a: JpegImage, b: JpegImage) -> None:
    """Equal in the blocks that hold samples; those beside the picture are free."""
    assert (a.width, a.height, a.colour, len(a.components)) == (
        b.width,
        b.height,
        b.colour,
        len(b.components),
    )
    for x, y in zip(a.components, b.components, strict=True):
        assert (x.h, x.v, x.real_rows, x.real_cols) == (y.h, y.v, y.real_rows, y.real_cols)
        np.testing.assert_array_equal(
            x.coefficients[: x.real_rows, : x.real_cols],
            y.coefficients[: y.real_rows, : y.real_cols],
        )
        np.testing.assert_array_equal(a.tables[x.table], b.tables[y.table])


def blank(width: int, height: int, sampling: list[tuple[int, int]], colour: str) -> JpegImage:
    h_max, v_max = max(h for h, _ in sampling), max(v for _, v in sampling)
    rows, cols = -(-height // (8 * v_max)), -(-width // (8 * h_max))
    components = [
        Component(i + 1, h, v, 0, np.zeros((rows * v, cols * h, 64), np.int16))
        for i, (h, v) in enumerate(sampling)
    ]
    return JpegImage(width, height, components, {0: np.full(64, 3, np.uint16)}, colour)  # type: ignore[arg-type]


SAMPLINGS = [
    [(1, 1), (1, 1), (1, 1)],
    [(2, 2), (1, 1), (1, 1)],
    [(2, 1), (1, 1), (1, 1)],
    [(1, 2), (1, 1), (1, 1)],
    [(4, 1), (1, 1), (1, 1)],
    [(4, 2), (1, 1), (1, 1)],
    [(3, 1), (1, 1), (2, 1)],
    [(4, 4), (1, 1), (1, 1)],  # more than ten blocks an MCU: cannot be interleaved
]


def exif(value: int, order: str = ">") -> bytes:
    head = b"MM\0*" if order == ">" else b"II*\0"
    return b"Exif\0\0" + head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
