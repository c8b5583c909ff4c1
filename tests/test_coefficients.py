"""Coefficients in memory: exact round trips, quantisation, forward DCT, metadata, and refusal of what is broken."""

from __future__ import annotations

import dataclasses
import io
import itertools
import struct
import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vizcomp import _native, coefficients
from vizcomp.coefficients import STANDARD_CODE_LENGTHS, ZIGZAG, Component, JpegImage, RealImage
from vizcomp.errors import FormatError, SettingsError, TooLargeError, TruncatedError, UnsupportedError


def photo(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth picture with edges and some noise: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    big = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(float)
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
    assert (a.width, a.height, a.colour, len(a.components)) == (b.width, b.height, b.colour, len(b.components))
    for x, y in zip(a.components, b.components, strict=True):
        assert (x.h, x.v, x.real_rows, x.real_cols) == (y.h, y.v, y.real_rows, y.real_cols)
        np.testing.assert_array_equal(x.coefficients[: x.real_rows, : x.real_cols], y.coefficients[: y.real_rows, : y.real_cols])
        np.testing.assert_array_equal(a.tables[x.table], b.tables[y.table])


def blank(width: int, height: int, sampling: list[tuple[int, int]], colour: str) -> JpegImage:
    h_max, v_max = max(h for h, _ in sampling), max(v for _, v in sampling)
    rows, cols = -(-height // (8 * v_max)), -(-width // (8 * h_max))
    components = [Component(i + 1, h, v, 0, np.zeros((rows * v, cols * h, 64), np.int16)) for i, (h, v) in enumerate(sampling)]
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


# ------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 33), (1, 600)])
def test_random_coefficients_return_exactly(sampling: list[tuple[int, int]], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for density in (0.02, 0.5):
        image = blank(*size, sampling, "ycbcr")
        for c in image.components:
            shape = c.coefficients.shape
            c.coefficients[:] = rng.integers(-1023, 1024, shape) * (rng.random(shape) < density)
        for progressive, optimise in ((True, True), (False, True), (False, False)):
            data = coefficients.write(image, progressive=progressive, optimise=optimise)
            assert_same(image, coefficients.read(data))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    grey=st.booleans(),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.9]),
    largest=st.sampled_from([1, 3, 40, 1023]),
    restart=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_any_coefficients_return_exactly(
    width: int, height: int, grey: bool, density: float, largest: int, restart: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = blank(width, height, [(1, 1)] if grey else SAMPLINGS[1], "grey" if grey else "ycbcr")
    image.restart_interval = restart
    for c in image.components:
        shape = c.coefficients.shape
        c.coefficients[:] = rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < density)
    for progressive in (True, False):
        data = coefficients.write(image, progressive=progressive, restarts=restart > 0)
        back = coefficients.read(data)
        assert_same(image, back)
        assert back.restart_interval == restart


def test_long_runs_of_empty_blocks_return_exactly() -> None:
    """More than 32767 empty blocks in a row: the end-of-band run must be split."""
    image = blank(8 * 300, 8 * 240, [(1, 1)], "grey")
    image.components[0].coefficients[0, 0, 9] = 5
    image.components[0].coefficients[-1, -1, 63] = -1
    assert_same(image, coefficients.read(coefficients.write(image)))


def test_many_correction_bits_return_exactly() -> None:
    """Refinement of dense blocks without a new coefficient: correction bits pile up."""
    image = blank(8 * 40, 8 * 40, [(1, 1)], "grey")
    rng = np.random.default_rng(2)
    image.components[0].coefficients[:] = rng.choice([-7, -6, -5, -4, 4, 5, 6, 7], image.components[0].coefficients.shape)
    assert_same(image, coefficients.read(coefficients.write(image)))


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
        assert_same(image, coefficients.read(coefficients.write(image, progressive=progressive)))
    lengths = coefficients.code_lengths(image.components[0])
    assert lengths.max() == 16
    used = lengths[lengths > 0].astype(float)
    assert (2.0**-used).sum() < 1  # room for the all-ones code, which T.81 forbids


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (61, 45)])
def test_rewritten_files_show_the_same_pixels(mode: str, size: tuple[int, int]) -> None:
    for progressive, subsampling, restart in itertools.product((False, True), (0, 1, 2), (0, 2)):
        extra = {"restart_marker_blocks": restart} if restart else {}
        source = pillow(photo(*size), mode, progressive=progressive, subsampling=subsampling, quality=85, **extra)
        image = coefficients.read(source)
        assert image.progressive == progressive
        assert image.restart_interval == restart
        for to_progressive in (False, True):
            data = coefficients.write(image, progressive=to_progressive)
            assert_same(image, coefficients.read(data))
            np.testing.assert_array_equal(decoded(data), decoded(source))


def test_rewriting_is_stable() -> None:
    image = coefficients.read(pillow(photo(90, 70), quality=60))
    once = coefficients.write(image)
    assert coefficients.write(coefficients.read(once)) == once


def test_wide_steps_take_sixteen_bits() -> None:
    image = blank(16, 16, SAMPLINGS[0], "ycbcr")
    image.tables[0] = np.arange(200, 264, dtype=np.uint16)
    for progressive in (True, False):
        back = coefficients.read(coefficients.write(image, progressive=progressive))
        np.testing.assert_array_equal(back.tables[0], image.tables[0])


def test_equal_tables_are_written_once() -> None:
    image = blank(16, 16, SAMPLINGS[0], "ycbcr")
    image.tables[7] = image.tables[0].copy()
    image.components[1].table = 7
    back = coefficients.read(coefficients.write(image))
    assert list(back.tables) == [0]


# ------------------------------------------------------------------------------------------------ header, refusals


def test_header_without_decoding() -> None:
    data = pillow(photo(50, 30), quality=40, progressive=True, subsampling=2, comment=b"hello")
    header = coefficients.read_header(data)
    image = coefficients.read(data)
    assert (header.width, header.height, header.progressive, header.colour) == (50, 30, True, "ycbcr")
    assert [(c.h, c.v) for c in header.components] == [(2, 2), (1, 1), (1, 1)]
    assert (0xFE, b"hello") in header.segments
    np.testing.assert_array_equal(header.tables[0], image.tables[0])
    # only the header is read: a broken body does not matter
    assert coefficients.read_header(data[: data.index(b"\xff\xda") + 20]).width == 50


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file_is_truncated(progressive: bool, share: float) -> None:
    data = pillow(photo(120, 80), quality=80, progressive=progressive)
    with pytest.raises(TruncatedError):
        coefficients.read(data[: int(len(data) * share)])


def test_every_cut_is_refused_or_complete() -> None:
    data = pillow(photo(24, 16), quality=80, progressive=True)
    whole = coefficients.read(data)
    for size in range(len(data)):
        try:
            image = coefficients.read(data[:size])
        except TruncatedError:
            continue
        assert size >= len(data) - 3  # only the end marker and the padding of the last byte may be missing
        assert_same(whole, image)


def test_a_missing_end_marker_and_what_follows_it_are_forgiven() -> None:
    for progressive in (False, True):
        data = pillow(photo(40, 40), progressive=progressive)
        whole = coefficients.read(data)
        assert_same(whole, coefficients.read(data[:-2]))
        assert_same(whole, coefficients.read(data + b"\xff\xd8 more \xff\xda"))


def test_fill_bytes_before_markers_are_passed() -> None:
    data = pillow(photo(40, 40))
    filled = data.replace(b"\xff\xda", b"\xff\xff\xff\xda").replace(b"\xff\xc4", b"\xff\xff\xc4")
    assert_same(coefficients.read(data), coefficients.read(filled))


def frame(marker: int, *, precision: int = 8, width: int = 16, height: int = 16, count: int = 1) -> bytes:
    body = struct.pack(">BHHB", precision, height, width, count) + b"".join(bytes([i + 1, 0x11, 0]) for i in range(count))
    return (
        b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(40)
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
    for function in (coefficients.read, coefficients.read_header):
        with pytest.raises(UnsupportedError, match=word):
            function(data)


def test_a_bomb_is_refused_at_once() -> None:
    start = time.perf_counter()
    with pytest.raises(TooLargeError):
        coefficients.read(frame(0xC0, width=65500, height=65500, count=3))
    with pytest.raises(TruncatedError):  # allowed size, but no file of this length can hold it
        coefficients.read(frame(0xC0, width=12000, height=12000, count=3))
    assert time.perf_counter() - start < 0.2


def test_too_many_scans_are_refused() -> None:
    data = coefficients.write(blank(16, 16, [(1, 1)], "grey"))
    at = data.index(b"\xff\xda")
    scan = data[at : data.index(b"\xff\xc4", at)]
    with pytest.raises(FormatError):
        coefficients.read(data[:at] + scan * 500 + data[at:])


@pytest.mark.parametrize("name", ["no huffman", "no quantisation", "bad code", "zero step", "scan first", "not jpeg", "empty"])
def test_broken_files_are_format_errors(name: str) -> None:
    data = pillow(photo(40, 40))
    at = {b: data.index(b) for b in (b"\xff\xc4", b"\xff\xdb", b"\xff\xc0", b"\xff\xda")}
    if name == "no huffman":
        data = data.replace(b"\xff\xc4", b"\xff\xef")
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
        coefficients.read(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_never_do_worse_than_a_format_error(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FLIPPED)))
    broken = bytearray(FLIPPED[name])
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = coefficients.read(bytes(broken), max_pixels=1_000_000)
    except FormatError:
        return
    try:
        written = coefficients.write(image)
    except FormatError:  # coefficients that hostile data can hold, but no picture of 8 bits
        assert any(np.abs(np.diff(c.coefficients[..., 0], axis=1)).max(initial=0) > 2047 for c in image.components)
        return
    assert_same(image, coefficients.read(written))


FLIPPED = {
    "baseline": pillow(photo(33, 20), quality=70),
    "progressive": pillow(photo(33, 20), quality=70, progressive=True),
    "restarts": pillow(photo(33, 20), quality=70, restart_marker_blocks=1),
    "grey": pillow(photo(33, 20), "L", quality=70, progressive=True),
}


def test_unwritable_images_are_refused() -> None:
    image = blank(16, 16, SAMPLINGS[0], "ycbcr")
    tall = dataclasses.replace(image, height=70000)
    with pytest.raises(FormatError, match="70000"):
        coefficients.write(tall)
    for value in (1024, -1024):
        image.components[0].coefficients[0, 0, 5] = value
        with pytest.raises(FormatError, match="too large"):
            coefficients.write(image)
    image.components[0].coefficients[0, 0, 5] = 0
    image.components[0].coefficients[0, :2, 0] = (-2000, 2000)
    with pytest.raises(FormatError, match="too large"):
        coefficients.write(image)
    with pytest.raises(FormatError, match="fewer"):
        coefficients.write(dataclasses.replace(blank(16, 16, [(1, 1)], "grey"), width=100))
    with pytest.raises(FormatError, match="segment"):
        coefficients.write(dataclasses.replace(blank(8, 8, [(1, 1)], "grey"), segments=[(0xE1, bytes(65534))]))


def test_native_functions_check_their_buffers() -> None:
    good = np.zeros((2, 2, 64), np.int16)
    with pytest.raises((TypeError, ValueError)):
        _native.encode_scans(((good, 3, 2, 2, 2, 1, 1, 1, 0),), 1, 1, 0, 2, 2)  # more rows than there are
    with pytest.raises((TypeError, ValueError)):
        _native.encode_scans(((good.astype(np.float32), 2, 2, 2, 2, 1, 1, 1, 0),), 1, 1, 0, 2, 2)
    with pytest.raises((TypeError, ValueError)):
        _native.quantise(4, good, good, good, None, None, bytes(256), bytes(64), good)
    with pytest.raises((BufferError, TypeError, ValueError)):
        _native.forward(np.zeros((8, 8), np.uint8)[:, ::2], 8, 4, 1, 1, 1, (np.zeros(64, np.float32),))
    status, _ = _native.encode_scans(((good, 2, 2, 3, 2, 1, 1, 1, 0),), 1, 1, 0, 2, 2)  # more real rows than rows
    assert status


# ------------------------------------------------------------------------------------------------ forward DCT


def dct_matrix() -> npt.NDArray[np.float64]:
    u, x = np.mgrid[:8, :8]
    matrix = np.cos((2 * x + 1) * u * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


def reference(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows, cols = plane.shape[0] // 8, plane.shape[1] // 8
    blocks = plane.reshape(rows, 8, cols, 8).transpose(0, 2, 1, 3)
    m = dct_matrix()
    return (m @ blocks @ m.T).reshape(rows, cols, 64)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 33), (64, 48)])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4", "grey"])
def test_forward_dct_equals_the_definition(size: tuple[int, int], subsampling: str) -> None:
    pixels = photo(*size)
    hx, vy = {"4:2:0": (2, 2), "4:2:2": (2, 1)}.get(subsampling, (1, 1))
    rows, cols = -(-size[1] // (8 * vy)) * 8 * vy, -(-size[0] // (8 * hx)) * 8 * hx
    if subsampling == "grey":
        given_ = pixels[..., 0]
        image = coefficients.from_pixels(given_)
        planes = [np.pad(given_.astype(float), ((0, rows - size[1]), (0, cols - size[0])), "edge") - 128]
    else:
        image = coefficients.from_pixels(pixels, subsampling=subsampling)  # type: ignore[arg-type]
        rgb = np.pad(pixels.astype(float), ((0, rows - size[1]), (0, cols - size[0]), (0, 0)), "edge")
        y = rgb @ [0.299, 0.587, 0.114]
        cb, cr = (rgb[..., 2] - y) / 1.772, (rgb[..., 0] - y) / 1.402
        small = [c.reshape(rows // vy, vy, cols // hx, hx).mean((1, 3)) for c in (cb, cr)]
        planes = [y - 128, *small]
    for component, plane in zip(image.components, planes, strict=True):
        assert component.values.dtype == np.float32
        np.testing.assert_allclose(component.values, reference(plane), atol=2e-3)


def test_dc_of_a_flat_block() -> None:
    image = coefficients.from_pixels(np.full((8, 8), 200, np.uint8))
    assert image.components[0].values[0, 0, 0] == pytest.approx(8 * (200 - 128), abs=1e-3)


def test_pixels_written_and_decoded_are_close() -> None:
    pixels = photo(75, 50)
    real = coefficients.from_pixels(pixels, subsampling="4:4:4")
    parts = [Component(c.id, c.h, c.v, 0, coefficients.quantise(c.values, np.ones(64))) for c in real.components]
    data = coefficients.write(JpegImage(75, 50, parts, {0: np.ones(64, np.uint16)}, "ycbcr"))
    assert np.abs(decoded(data).astype(int) - pixels).max() <= 3


def test_from_pixels_refuses_other_arrays() -> None:
    for bad in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(SettingsError):
            coefficients.from_pixels(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2"])
@pytest.mark.parametrize("size", [(64, 48), (41, 23), (8, 8), (1, 1)])
def test_halved_chroma_equals_halved_pixels(subsampling: str, size: tuple[int, int]) -> None:
    pixels = photo(*size)
    fine = coefficients.from_pixels(pixels, subsampling=subsampling)  # type: ignore[arg-type]
    wanted = coefficients.from_pixels(pixels, subsampling="4:2:0")
    got, halved = coefficients.halve_chroma(fine)
    assert halved
    for a, b in zip(got.components, wanted.components, strict=True):
        assert (a.h, a.v, a.values.shape, a.real_rows) == (b.h, b.v, b.values.shape, b.real_rows)
        inside = (size[1] // 16, size[0] // 16)  # blocks whose pixels all lie in the picture
        np.testing.assert_allclose(a.values[: inside[0], : inside[1]], b.values[: inside[0], : inside[1]], atol=1e-2)
    assert coefficients.halve_chroma(wanted)[1] is False


# ------------------------------------------------------------------------------------------------ quantisation


def spectrum(blocks: int, seed: int = 0, scale: float = 300) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    fall = scale / (1 + np.add.outer(np.arange(8), np.arange(8)).ravel() ** 1.6)
    return (rng.laplace(0, 1, (1, blocks, 64)) * fall).astype(np.float32)


def bits_of(block: npt.NDArray[np.int16], lengths: npt.NDArray[np.uint8]) -> int:
    """AC bits of one block, from the definition of the code."""
    bits, run = 0, 0
    for value in block[ZIGZAG[1:]]:
        if value == 0:
            run += 1
            continue
        bits += (run // 16) * (int(lengths[0xF0]) or 16)
        size = int(abs(int(value))).bit_length()
        bits += (int(lengths[(run % 16) << 4 | size]) or 16) + size
        run = 0
    return bits + ((int(lengths[0]) or 16) if run else 0)


def cost_of(x: npt.NDArray[np.float64], q: npt.NDArray[np.int16], weight: float) -> float:
    """x: the block in steps."""
    return float(((x - q) ** 2)[1:].sum()) + weight * bits_of(q, STANDARD_CODE_LENGTHS)


def test_plain_rounding_equals_numpy() -> None:
    values, table = spectrum(200), np.arange(10, 74)
    x = np.abs(values / table.astype(np.float32))
    wanted = np.sign(values) * np.floor(x + np.float32(0.5))
    wanted[..., 0] = np.floor(values[..., 0] / np.float32(10) + 0.5)
    np.testing.assert_array_equal(coefficients.quantise(values, table), wanted)


def test_values_beyond_the_range_are_clamped() -> None:
    values = np.array([[[1e9] * 64, [-1e9] * 64, [np.nan] * 64, [np.inf] * 64]], np.float32)
    q = coefficients.quantise(values, np.ones(64), rate_weight=[[0.1, 0, 0.1, 0]])
    assert q.max() == 1023
    assert q[..., 0].min() == -1024
    assert q[..., 1:].min() == -1023
    image = JpegImage(32, 8, [Component(1, 1, 1, 0, q)], {0: np.ones(64, np.uint16)}, "grey")
    assert_same(image, coefficients.read(coefficients.write(image)))


def test_a_wider_dead_zone_never_keeps_more() -> None:
    values = spectrum(100)
    previous = np.abs(coefficients.quantise(values, np.full(64, 16), dead_zone=0.4))
    for zone in (0.5, 0.6, 0.8, 1.0, 1.5, 2.0):
        now = np.abs(coefficients.quantise(values, np.full(64, 16), dead_zone=zone))
        assert (now <= previous)[..., 1:].all()
        np.testing.assert_array_equal(now[..., 0], previous[..., 0])
        previous = now


def test_the_dead_zone_is_of_the_block_and_of_the_frequency() -> None:
    values = np.full((1, 2, 64), 16 * 1.45, np.float32)
    q = coefficients.quantise(values, np.full(64, 16), dead_zone=[[0.5, 0.4]])
    assert q[0, 0, 1:].tolist() == [1] * 63
    assert q[0, 1, 1:].tolist() == [2] * 63
    frequency = np.zeros(64)
    frequency[7] = -0.1
    q = coefficients.quantise(values, np.full(64, 16), dead_zone_frequency=frequency)
    assert q[0, 0].tolist() == [1] * 7 + [2] + [1] * 56


def test_no_price_is_plain_rounding() -> None:
    values = spectrum(100)
    plain = coefficients.quantise(values, np.full(64, 12))
    np.testing.assert_array_equal(coefficients.quantise(values, np.full(64, 12), rate_weight=0.0), plain)


def test_a_higher_price_never_takes_more_bits_and_the_decision_never_costs_more() -> None:
    values, table = spectrum(60), np.full(64, 12)
    x = values.astype(np.float64) / 12
    plain = coefficients.quantise(values, table)
    bits = [bits_of(b, STANDARD_CODE_LENGTHS) for b in plain[0]]
    for weight in (0.01, 0.05, 0.1, 0.3, 1.0):
        q = coefficients.quantise(values, table, rate_weight=weight)
        now = [bits_of(b, STANDARD_CODE_LENGTHS) for b in q[0]]
        assert all(a <= b for a, b in zip(now, bits, strict=True))
        bits = now
        for i in range(60):
            assert cost_of(x[0, i], q[0, i], weight) <= cost_of(x[0, i], plain[0, i], weight) + 1e-3
    np.testing.assert_array_equal(q[..., 0], plain[..., 0])


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.integers(1, 63), min_size=1, max_size=6, unique=True),
    data=st.data(),
    weight=st.sampled_from([0.02, 0.1, 0.3]),
)
def test_the_decision_is_the_best_of_all(places: list[int], data: st.DataObject, weight: float) -> None:
    """Against brute force over all combinations of {round, one toward zero, zero}."""
    block = np.zeros(64, np.float32)
    for place in places:
        block[ZIGZAG[place]] = data.draw(st.floats(-9, 9, width=32))
    rounded = coefficients.quantise(block[None, None], np.ones(64))[0, 0]
    x = block.astype(np.float64)
    at = np.flatnonzero(rounded)
    choices = [sorted({int(rounded[i]), int(rounded[i]) - int(np.sign(rounded[i])), 0}) for i in at]
    best = np.inf
    for combination in itertools.product(*choices):
        q = np.zeros(64, np.int16)
        q[at] = combination
        best = min(best, cost_of(x, q, weight))
    got = coefficients.quantise(block[None, None], np.ones(64), rate_weight=weight)[0, 0]
    assert cost_of(x, got, weight) == pytest.approx(best, abs=1e-3)


def dc_bits(dc: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """Bits of a difference of magnitude 0, 1 ..., as in a scan with these values."""
    sizes = [int(abs(d)).bit_length() for d in np.diff(dc, prepend=0)]
    shares = (np.bincount(sizes, minlength=13) + 0.5) / (len(dc) + 6.5)
    return np.array([int(d).bit_length() - np.log2(shares[int(d).bit_length()]) for d in range(2000)])


def dc_cost(
    dc: npt.NDArray[np.int_], ratio: npt.NDArray[np.float64], rate: npt.NDArray[np.float64], bits: npt.NDArray[np.float64]
) -> float:
    return float(((ratio - dc) ** 2).sum() + (rate * bits[np.abs(np.diff(dc, prepend=0))]).sum())


@pytest.mark.parametrize(
    ("shape", "mcu"), [((1, 6), (1, 1)), ((2, 2), (2, 2)), ((2, 3), (2, 1)), ((2, 4), (1, 2)), ((3, 2), (1, 1))]
)
def test_dc_is_the_best_of_all_along_the_scan(shape: tuple[int, int], mcu: tuple[int, int]) -> None:
    """Against brute force over the nearest value and one step on either side; prices for which two steps never pay."""
    rows, cols = shape
    down, across = mcu
    order = np.arange(rows * cols).reshape(rows // down, down, cols // across, across).transpose(0, 2, 1, 3).ravel()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        values = np.zeros((rows, cols, 64), np.float32)
        values[..., 0] = rng.normal(0, 3, shape)
        rate = rng.choice([0.0, 0.1, 0.3], shape)
        q = coefficients.quantise(values, np.ones(64), rate_weight=rate, mcu=mcu)
        ratio, prices = values[..., 0].ravel()[order].astype(float), rate.ravel()[order].astype(np.float32).astype(float)
        near = np.floor(ratio + 0.5).astype(int)
        dc = near
        for _ in range(2):
            bits = dc_bits(dc)
            choices = [(n - 1, n, n + 1) if price else (n,) for n, price in zip(near, prices, strict=True)]
            tried = [np.array(c) for c in itertools.product(*choices)]
            dc = min(tried, key=lambda c: dc_cost(c, ratio, prices, bits))
        np.testing.assert_array_equal(q[..., 0].ravel()[order], dc)


def test_dc_is_the_nearest_where_bits_are_free_or_the_step_is_the_sources() -> None:
    values = np.random.default_rng(0).normal(0, 40, (8, 8, 64)).astype(np.float32)
    table = np.full(64, 16)
    plain = coefficients.quantise(values, table)[..., 0]
    rate = np.zeros((8, 8))
    np.testing.assert_array_equal(coefficients.quantise(values, table, rate_weight=rate, mcu=(2, 2))[..., 0], plain)
    rate[:, 4:] = 0.8
    half = coefficients.quantise(values, table, rate_weight=rate, mcu=(2, 2))[..., 0]
    np.testing.assert_array_equal(half[:, :4], plain[:, :4])
    assert (half[:, 4:] != plain[:, 4:]).any()
    assert np.abs(half - plain).max() <= 2
    exact = np.ones(64, bool)
    np.testing.assert_array_equal(coefficients.quantise(values, table, rate_weight=rate, mcu=(2, 2), exact=exact)[..., 0], plain)
    np.testing.assert_array_equal(coefficients.quantise(values, table, rate_weight=rate, mcu=(2, 2), reuse=True)[..., 0], half)


def test_dc_at_the_ends_of_its_range() -> None:
    values = np.zeros((2, 4, 64), np.float32)
    values[..., 0] = [[-1024, -1024, 1023, 1500], [-2000, 1016, -1024, np.nan]]
    plain = coefficients.quantise(values, np.ones(64))[..., 0]
    rate = np.zeros((2, 4))
    rate[1, 1] = 0.3
    np.testing.assert_array_equal(
        np.delete(coefficients.quantise(values, np.ones(64), rate_weight=rate, mcu=(1, 1))[..., 0], 5), np.delete(plain, 5)
    )
    dear = coefficients.quantise(values, np.ones(64), rate_weight=3.0, mcu=(1, 1))[..., 0]
    assert -1024 <= dear.min() <= dear.max() <= 1023


def test_dc_settled_over_bands_in_the_memory_of_the_values() -> None:
    values = np.random.default_rng(1).normal(0, 40, (70, 6, 64)).astype(np.float32)
    apart = coefficients.quantise(values, np.full(64, 9), rate_weight=0.5, mcu=(1, 1))
    np.testing.assert_array_equal(coefficients.quantise(values, np.full(64, 9), rate_weight=0.5, mcu=(1, 1), reuse=True), apart)


def test_requantising_keeps_or_drops_what_lies_on_the_same_step() -> None:
    image = coefficients.read(pillow(photo(64, 64), quality=80))
    source = image.components[0].coefficients
    table = image.tables[0].copy()
    table[40:] *= 2
    for options in ({"dead_zone": 0.5}, {"dead_zone": 1.0}, {"dead_zone": 1.4}, {"dead_zone": 0.6, "rate_weight": 0.2}):
        q = coefficients.requantise(image, 0, table, **options)  # type: ignore[arg-type]
        kept = q[..., 1:40] == source[..., 1:40]
        assert (kept | (q[..., 1:40] == 0)).all()
        np.testing.assert_array_equal(q[..., 0], source[..., 0])
    same = coefficients.requantise(image, 0, image.tables[0])
    np.testing.assert_array_equal(same, source)


def test_real_image_of_a_jpeg() -> None:
    image = coefficients.read(pillow(photo(30, 30)))
    real = RealImage.from_jpeg(image)
    for c, r in zip(image.components, real.components, strict=True):
        np.testing.assert_array_equal(r.values, c.coefficients.astype(np.float64) * image.tables[c.table])


def test_quantise_refuses_what_does_not_fit() -> None:
    values = spectrum(4)
    odd_mcu = {"rate_weight": 0.1, "mcu": (3, 1)}
    for bad in (
        *({"table": np.zeros(64)}, {"table": np.ones(63)}, {"dead_zone": np.ones((2, 2))}, {"rate_weight": np.ones(3)}),
        odd_mcu,
    ):
        with pytest.raises(SettingsError):
            coefficients.quantise(values, **({"table": np.ones(64)} | bad))  # type: ignore[arg-type]


def test_code_lengths_suit_the_coefficients() -> None:
    image = coefficients.read(pillow(photo(120, 90), quality=60))
    own = coefficients.code_lengths(image.components[0])
    luma = image.components[0]
    blocks = luma.coefficients[: luma.real_rows, : luma.real_cols].reshape(-1, 64)
    assert sum(bits_of(b, own) for b in blocks) < sum(bits_of(b, STANDARD_CODE_LENGTHS) for b in blocks)
    assert own[0xF0] <= 16
    assert STANDARD_CODE_LENGTHS[0] == 4
    assert (STANDARD_CODE_LENGTHS > 0).sum() == 162


# ------------------------------------------------------------------------------------------------ metadata


def exif(value: int, order: str = ">") -> bytes:
    head = b"MM\0*" if order == ">" else b"II*\0"
    return b"Exif\0\0" + head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_survives_alone(order: str) -> None:
    noise = (0xFE, b"comment"), (0xED, b"photoshop"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    segments = [*noise, (0xE1, exif(6, order)), (0xE2, b"ICC_PROFILE\0\1\1profile")]
    kept = coefficients.essential_segments(segments, "essential")
    assert [m for m, _ in kept] == [0xE1, 0xE2]
    assert coefficients.orientation(kept) == 6
    data = coefficients.write(dataclasses.replace(blank(16, 8, [(1, 1)], "grey"), segments=kept))
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert coefficients.essential_segments(segments, "none") == []
    assert coefficients.essential_segments(segments, "all") == segments
    upright = coefficients.essential_segments([(0xE1, exif(1, order))], "essential")
    assert upright == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 40))
def test_malformed_exif_counts_as_none(noise: bytes, cut: int) -> None:
    for payload in (b"Exif\0\0" + noise, exif(6)[:cut], b"Exif\0\0II*\0" + noise, exif(6)[:14] + noise):
        assert 1 <= coefficients.orientation([(0xE1, payload)]) <= 8
        coefficients.essential_segments([(0xE1, payload)], "essential")


def test_a_thumbnail_in_jfif_is_dropped() -> None:
    payload = b"JFIF\0\1\2\1\0\x48\0\x48\1\1\xaa\xbb\xcc"
    assert coefficients.essential_segments([(0xE0, payload)], "all") == [(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\0\0")]


def test_profiles_are_split_and_joined() -> None:
    profile = bytes(range(256)) * 600
    segments = coefficients.metadata_segments(icc=profile, exif=exif(3), xmp=b"<x/>")
    data = coefficients.write(dataclasses.replace(blank(16, 8, [(1, 1)], "grey"), segments=segments))
    opened = Image.open(io.BytesIO(data))
    assert opened.info["icc_profile"] == profile
    assert opened.getexif()[0x0112] == 3
    assert coefficients.metadata_segments(xmp=bytes(70000)) == []


def test_the_colour_is_told_to_decoders() -> None:
    pixels = photo(40, 40)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", keep_rgb=True, subsampling=0, quality=95)
    rgb = coefficients.read(out.getvalue())
    assert rgb.colour == "rgb"
    np.testing.assert_array_equal(decoded(coefficients.write(rgb)), decoded(out.getvalue()))
    stripped = dataclasses.replace(
        rgb, segments=[], components=[dataclasses.replace(c, id=i + 1) for i, c in enumerate(rgb.components)]
    )
    back = coefficients.write(stripped)
    assert coefficients.read(back).colour == "rgb"
    np.testing.assert_array_equal(decoded(back), decoded(out.getvalue()))
    ycbcr = coefficients.read(pillow(pixels))
    bare = coefficients.write(dataclasses.replace(ycbcr, segments=[(0xEE, b"Adobe\0\x64\0\0\0\0\0")]))
    assert coefficients.read(bare).colour == "ycbcr"
    assert coefficients.read(bare).segments[0][1].startswith(b"JFIF\0")


def test_bytes_left_over_before_a_restart_marker_are_damage() -> None:
    """libjpeg only warns here, and the picture is wrong up to the marker: a damaged file must not pass as a good one."""
    import io

    from PIL import Image

    rng = np.random.default_rng(5)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(out, "JPEG", restart_marker_blocks=2)
    data = out.getvalue()
    where = data.index(b"\xff\xd0", data.index(b"\xff\xda"))
    coefficients.read(data)
    with pytest.raises(FormatError, match="restart"):
        coefficients.read(data[:where] + b"\x12\x34" + data[where:])
