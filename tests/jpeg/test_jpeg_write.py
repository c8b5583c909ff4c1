"""What is written reads back exactly, and what cannot be a JPEG is refused."""

from __future__ import annotations

import dataclasses
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_kit import SAMPLINGS, assert_same, blank, decoded, photo, pillow
from PIL import Image

from vizcomp import _native
from vizcomp.errors import FormatError
from vizcomp.jpeg.image import ZIGZAG
from vizcomp.jpeg.quantise import quantise
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.transform import from_pixels
from vizcomp.jpeg.write import write_jpeg


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 33), (1, 600)])
def test_random_coefficients_return_exactly(
    sampling: list[tuple[int, int]], size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    for density in (0.02, 0.5):
        image = blank(*size, sampling, "ycbcr")
        for c in image.components:
            shape = c.coefficients.shape
            c.coefficients[:] = rng.integers(-1023, 1024, shape) * (rng.random(shape) < density)
        for progressive, optimise in ((True, True), (False, True), (False, False)):
            data = write_jpeg(image, progressive=progressive, optimise=optimise)
            assert_same(image, read_jpeg(data))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    grey=st.booleans(),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.9]),
    largest=st.sampled_from([1, 3, 40, 1023]),
    seed=st.integers(0, 99),
)
def test_any_coefficients_return_exactly(
    width: int, height: int, grey: bool, density: float, largest: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = blank(width, height, [(1, 1)] if grey else SAMPLINGS[1], "grey" if grey else "ycbcr")
    for c in image.components:
        shape = c.coefficients.shape
        c.coefficients[:] = rng.integers(-largest, largest + 1, shape) * (
            rng.random(shape) < density
        )
    for progressive in (True, False):
        data = write_jpeg(image, progressive=progressive)
        assert_same(image, read_jpeg(data))


def test_long_runs_of_empty_blocks_return_exactly() -> None:
    """More than 32767 empty blocks in a row: the end-of-band run must be split."""
    image = blank(8 * 300, 8 * 240, [(1, 1)], "grey")
    image.components[0].coefficients[0, 0, 9] = 5
    image.components[0].coefficients[-1, -1, 63] = -1
    assert_same(image, read_jpeg(write_jpeg(image)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_scans_chosen_by_a_part_of_the_rows_are_as_good(mode: str) -> None:
    """Large components are sampled to choose their scans: no worse than the same photo in parts."""
    rng = np.random.default_rng(5)
    picture = np.asarray(Image.fromarray(photo(96, 128)).convert(mode))
    tiles = [np.roll(picture, shift, axis=(0, 1)) for shift in rng.integers(0, 90, (42, 2))]

    def written(pixels: np.ndarray) -> bytes:
        image = blank(
            pixels.shape[1],
            pixels.shape[0],
            SAMPLINGS[1] if mode == "RGB" else [(1, 1)],
            "ycbcr" if mode == "RGB" else "grey",
        )
        for c, real in zip(image.components, from_pixels(pixels).components, strict=True):
            c.h, c.v = real.h, real.v
            c.coefficients = quantise(real.values, np.full(64, 12.0))
        image = dataclasses.replace(image)  # sizes anew
        data = write_jpeg(image)
        assert_same(image, read_jpeg(data))
        return data

    whole = written(np.concatenate([np.concatenate(tiles[i::6], axis=1) for i in range(6)]))
    parts = sum(len(written(tile)) for tile in tiles)
    assert len(whole) < parts


def test_many_correction_bits_return_exactly() -> None:
    """Refinement of dense blocks without a new coefficient: correction bits pile up."""
    image = blank(8 * 40, 8 * 40, [(1, 1)], "grey")
    rng = np.random.default_rng(2)
    image.components[0].coefficients[:] = rng.choice(
        [-7, -6, -5, -4, 4, 5, 6, 7], image.components[0].coefficients.shape
    )
    assert_same(image, read_jpeg(write_jpeg(image)))


def test_a_skewed_code_is_limited_to_sixteen_bits() -> None:
    """Symbols with Fibonacci frequencies: Huffman's own code would be longer than JPEG allows."""
    image = blank(8 * 256, 8 * 256, [(1, 1)], "grey")
    blocks = image.components[0].coefficients.reshape(-1, 64)
    a, b, at = 1, 1, 0
    for symbol in range(22):  # a run and a size for each, one coefficient a block
        run, size = symbol // 10, symbol % 10
        for _ in range(a):
            blocks[at, ZIGZAG[run + 1]] = 1 << size
            at += 1
        a, b = b, a + b
    assert at < len(blocks)
    for progressive in (True, False):
        assert_same(image, read_jpeg(write_jpeg(image, progressive=progressive)))
    data = write_jpeg(image, progressive=False)
    at = data.index(b"\xff\xc4") + 4  # one segment: the DC table, then the AC table
    at += 17 + sum(data[at + 1 : at + 17])
    assert data[at] == 0x10
    counts = np.frombuffer(data[at + 1 : at + 17], np.uint8)
    assert counts[15] > 0
    # room for the all-ones code, which T.81 forbids
    assert (counts * 0.5 ** np.arange(1, 17)).sum() < 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (61, 45)])
def test_rewritten_files_show_the_same_pixels(mode: str, size: tuple[int, int]) -> None:
    for progressive, subsampling, restart in itertools.product((False, True), (0, 1, 2), (0, 2)):
        extra = {"restart_marker_blocks": restart} if restart else {}
        source = pillow(
            photo(*size),
            mode,
            progressive=progressive,
            subsampling=subsampling,
            quality=85,
            **extra,
        )
        image = read_jpeg(source)
        assert image.progressive == progressive
        assert image.restart_interval == restart
        for to_progressive in (False, True):
            data = write_jpeg(image, progressive=to_progressive)
            assert_same(image, read_jpeg(data))
            np.testing.assert_array_equal(decoded(data), decoded(source))


def test_rewriting_is_stable() -> None:
    image = read_jpeg(pillow(photo(90, 70), quality=60))
    once = write_jpeg(image)
    assert write_jpeg(read_jpeg(once)) == once


def test_wide_steps_take_sixteen_bits() -> None:
    image = blank(16, 16, SAMPLINGS[0], "ycbcr")
    image.tables[0] = np.arange(200, 264, dtype=np.uint16)
    for progressive in (True, False):
        back = read_jpeg(write_jpeg(image, progressive=progressive))
        np.testing.assert_array_equal(back.tables[0], image.tables[0])


def test_equal_tables_are_written_once() -> None:
    image = blank(16, 16, SAMPLINGS[0], "ycbcr")
    image.tables[7] = image.tables[0].copy()
    image.components[1].table = 7
    back = read_jpeg(write_jpeg(image))
    assert list(back.tables) == [0]


def test_unwritable_images_are_refused() -> None:
    image = blank(16, 16, SAMPLINGS[0], "ycbcr")
    tall = dataclasses.replace(image, height=70000)
    with pytest.raises(FormatError, match="70000"):
        write_jpeg(tall)
    for value in (1024, -1024):
        image.components[0].coefficients[0, 0, 5] = value
        with pytest.raises(FormatError, match="too large"):
            write_jpeg(image)
    image.components[0].coefficients[0, 0, 5] = 0
    image.components[0].coefficients[0, :2, 0] = (-2000, 2000)
    with pytest.raises(FormatError, match="too large"):
        write_jpeg(image)
    with pytest.raises(FormatError, match="fewer"):
        write_jpeg(dataclasses.replace(blank(16, 16, [(1, 1)], "grey"), width=100))
    with pytest.raises(FormatError, match="segment"):
        write_jpeg(
            dataclasses.replace(blank(8, 8, [(1, 1)], "grey"), segments=[(0xE1, bytes(65534))])
        )


def test_native_functions_check_their_buffers() -> None:
    good = np.zeros((2, 2, 64), np.int16)
    with pytest.raises((TypeError, ValueError)):
        # more rows than there are
        _native.encode_scans(((good, 3, 2, 2, 2, 1, 1, 1, 0),), 1, 1, 2, 2)
    with pytest.raises((TypeError, ValueError)):
        _native.encode_scans(((good.astype(np.float32), 2, 2, 2, 2, 1, 1, 1, 0),), 1, 1, 2, 2)
    with pytest.raises((TypeError, ValueError)):
        _native.quantise(4, good, good, good, None, good, bytes(256), bytes(64), good)
    with pytest.raises((BufferError, TypeError, ValueError)):
        _native.forward(
            np.zeros((8, 8), np.uint8)[:, ::2], 8, 4, 1, 1, 1, (np.zeros(64, np.float32),)
        )
    unit, half = np.ones(64, np.float32), np.zeros((1, 1, 64), np.float32)
    with pytest.raises((TypeError, ValueError)):
        _native.halve(2, 2, 2, 2, 1, 1, good.astype(np.float32), unit, half)
    with pytest.raises(ValueError, match="out"):
        _native.halve(2, 2, 2, 2, 2, 1, good, unit, half)  # more results than there is room for
    assert _native.halve(2, 2, 2, 3, 1, 1, good, unit, half)  # no means of three
    # more real rows than rows
    status, _ = _native.encode_scans(((good, 2, 2, 3, 2, 1, 1, 1, 0),), 1, 1, 2, 2)
    assert status


def test_the_colour_is_told_to_decoders() -> None:
    pixels = photo(40, 40)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", keep_rgb=True, subsampling=0, quality=95)
    rgb = read_jpeg(out.getvalue())
    assert rgb.colour == "rgb"
    np.testing.assert_array_equal(decoded(write_jpeg(rgb)), decoded(out.getvalue()))
    stripped = dataclasses.replace(
        rgb,
        segments=[],
        components=[dataclasses.replace(c, id=i + 1) for i, c in enumerate(rgb.components)],
    )
    back = write_jpeg(stripped)
    assert read_jpeg(back).colour == "rgb"
    np.testing.assert_array_equal(decoded(back), decoded(out.getvalue()))
    ycbcr = read_jpeg(pillow(pixels))
    bare = write_jpeg(dataclasses.replace(ycbcr, segments=[(0xEE, b"Adobe\0\x64\0\0\0\0\0")]))
    assert read_jpeg(bare).colour == "ycbcr"
    assert read_jpeg(bare).segments[0][1].startswith(b"JFIF\0")
