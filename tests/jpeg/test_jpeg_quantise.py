"""Rounding with dead zones and with a price of a bit, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_kit import assert_same, photo, pillow

from vizcomp.errors import SettingsError
from vizcomp.jpeg.image import ZIGZAG, Component, JpegImage
from vizcomp.jpeg.quantise import STANDARD_CODE_LENGTHS, quantise
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.write import write_jpeg


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


def cost_of(
    x: npt.NDArray[np.float64],
    q: npt.NDArray[np.int16],
    weight: float,
    worth: npt.ArrayLike = 1.0,
) -> float:
    """x: the block in steps."""
    error = float((worth * (x - q) ** 2)[1:].sum())
    return error + weight * bits_of(q, STANDARD_CODE_LENGTHS)


def test_plain_rounding_equals_numpy() -> None:
    values, table = spectrum(200), np.arange(10, 74)
    x = np.abs(values / table.astype(np.float32))
    expected = np.sign(values) * np.floor(x + np.float32(0.5))
    expected[..., 0] = np.floor(values[..., 0] / np.float32(10) + 0.5)
    np.testing.assert_array_equal(quantise(values, table), expected)


def test_values_beyond_the_range_are_clamped() -> None:
    values = np.array([[[1e9] * 64, [-1e9] * 64, [np.nan] * 64, [np.inf] * 64]], np.float32)
    q = quantise(values, np.ones(64), rate_weight=[[0.1, 0, 0.1, 0]])
    assert q.max() == 1023
    assert q[..., 0].min() == -1024
    assert q[..., 1:].min() == -1023
    image = JpegImage(32, 8, [Component(1, 1, 1, 0, q)], {0: np.ones(64, np.uint16)}, "grey")
    assert_same(image, read_jpeg(write_jpeg(image)))


def test_a_wider_dead_zone_never_keeps_more() -> None:
    values = spectrum(100)
    previous = np.abs(quantise(values, np.full(64, 16), dead_zone=0.4))
    for zone in (0.5, 0.6, 0.8, 1.0, 1.5, 2.0):
        now = np.abs(quantise(values, np.full(64, 16), dead_zone=zone))
        assert (now <= previous)[..., 1:].all()
        np.testing.assert_array_equal(now[..., 0], previous[..., 0])
        previous = now


def test_the_dead_zone_is_of_the_block() -> None:
    values = np.full((1, 2, 64), 16 * 1.45, np.float32)
    q = quantise(values, np.full(64, 16), dead_zone=[[0.5, 0.4]])
    assert q[0, 0, 1:].tolist() == [1] * 63
    assert q[0, 1, 1:].tolist() == [2] * 63


def test_no_price_is_plain_rounding() -> None:
    values = spectrum(100)
    plain = quantise(values, np.full(64, 12))
    np.testing.assert_array_equal(quantise(values, np.full(64, 12), rate_weight=0.0), plain)


def test_a_higher_price_never_takes_more_bits_and_the_decision_never_costs_more() -> None:
    values, table = spectrum(60), np.full(64, 12)
    x = values.astype(np.float64) / 12
    plain = quantise(values, table)
    bits = [bits_of(b, STANDARD_CODE_LENGTHS) for b in plain[0]]
    for weight in (0.01, 0.05, 0.1, 0.3, 1.0):
        q = quantise(values, table, rate_weight=weight)
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
    low=st.sampled_from([1.0, 4.0]),
)
def test_the_decision_is_the_best_of_all(
    places: list[int], data: st.DataObject, weight: float, low: float
) -> None:
    """Against brute force over all combinations of {round, one toward zero, zero}."""
    block = np.zeros(64, np.float32)
    for place in places:
        block[ZIGZAG[place]] = data.draw(st.floats(-9, 9, width=32))
    worth = np.where(np.add.outer(np.arange(8), np.arange(8)).ravel() <= 3, low, 1.0)
    rounded = quantise(block[None, None], np.ones(64))[0, 0]
    x = block.astype(np.float64)
    at = np.flatnonzero(rounded)
    choices = [sorted({int(rounded[i]), int(rounded[i]) - int(np.sign(rounded[i])), 0}) for i in at]
    best = np.inf
    for combination in itertools.product(*choices):
        q = np.zeros(64, np.int16)
        q[at] = combination
        best = min(best, cost_of(x, q, weight, worth))
    got = quantise(block[None, None], np.ones(64), rate_weight=weight, worth=worth)[0, 0]
    assert cost_of(x, got, weight, worth) == pytest.approx(best, abs=1e-3)


def test_what_is_worth_more_is_kept_longer() -> None:
    values, table = spectrum(60), np.full(64, 12)
    rounded = np.count_nonzero(quantise(values, table), axis=(0, 1))
    low = np.add.outer(np.arange(8), np.arange(8)).ravel() <= 3
    kept = [
        np.count_nonzero(
            quantise(values, table, rate_weight=0.2, worth=np.where(low, worth, 1.0)), axis=(0, 1)
        )
        for worth in (1.0, 4.0, 1e6)
    ]
    sums = [count[low][1:].sum() for count in kept]
    assert sums[0] < sums[1] < sums[2]
    np.testing.assert_array_equal(kept[2][low], rounded[low])
    assert kept[2][~low].sum() < rounded[~low].sum()


def dc_bits(dc: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """Bits of a difference of magnitude 0, 1 ..., as in a scan with these values."""
    sizes = [int(abs(d)).bit_length() for d in np.diff(dc, prepend=0)]
    shares = (np.bincount(sizes, minlength=13) + 0.5) / (len(dc) + 6.5)
    return np.array(
        [int(d).bit_length() - np.log2(shares[int(d).bit_length()]) for d in range(2000)]
    )


def dc_cost(
    dc: npt.NDArray[np.int_],
    ratio: npt.NDArray[np.float64],
    rate: npt.NDArray[np.float64],
    bits: npt.NDArray[np.float64],
) -> float:
    return float(((ratio - dc) ** 2).sum() + (rate * bits[np.abs(np.diff(dc, prepend=0))]).sum())


@pytest.mark.parametrize(
    ("shape", "mcu"),
    [((1, 6), (1, 1)), ((2, 2), (2, 2)), ((2, 3), (2, 1)), ((2, 4), (1, 2)), ((3, 2), (1, 1))],
)
def test_dc_is_the_best_of_all_along_the_scan(shape: tuple[int, int], mcu: tuple[int, int]) -> None:
    """Against brute force over the nearest value and one step on either side; prices for which two
    steps never pay."""
    rows, cols = shape
    down, across = mcu
    order = (
        np.arange(rows * cols)
        .reshape(rows // down, down, cols // across, across)
        .transpose(0, 2, 1, 3)
        .ravel()
    )
    for seed in range(8):
        rng = np.random.default_rng(seed)
        values = np.zeros((rows, cols, 64), np.float32)
        values[..., 0] = rng.normal(0, 3, shape)
        rate = rng.choice([0.0, 0.1, 0.3], shape)
        q = quantise(values, np.ones(64), rate_weight=rate, mcu=mcu)
        ratio, prices = (
            values[..., 0].ravel()[order].astype(float),
            rate.ravel()[order].astype(np.float32).astype(float),
        )
        near = np.floor(ratio + 0.5).astype(int)
        dc = near
        for _ in range(2):
            bits = dc_bits(dc)
            choices = [
                (n - 1, n, n + 1) if price else (n,) for n, price in zip(near, prices, strict=True)
            ]
            tried = [np.array(c) for c in itertools.product(*choices)]
            dc = min(tried, key=lambda c: dc_cost(c, ratio, prices, bits))
        np.testing.assert_array_equal(q[..., 0].ravel()[order], dc)


def test_dc_is_the_nearest_where_bits_are_free_or_the_step_is_the_sources() -> None:
    values = np.random.default_rng(0).normal(0, 40, (8, 8, 64)).astype(np.float32)
    table = np.full(64, 16)
    plain = quantise(values, table)[..., 0]
    rate = np.zeros((8, 8))
    np.testing.assert_array_equal(
        quantise(values, table, rate_weight=rate, mcu=(2, 2))[..., 0], plain
    )
    rate[:, 4:] = 0.8
    half = quantise(values, table, rate_weight=rate, mcu=(2, 2))[..., 0]
    np.testing.assert_array_equal(half[:, :4], plain[:, :4])
    assert (half[:, 4:] != plain[:, 4:]).any()
    assert np.abs(half - plain).max() <= 2
    exact = np.ones(64, bool)
    np.testing.assert_array_equal(
        quantise(values, table, rate_weight=rate, mcu=(2, 2), exact=exact)[..., 0], plain
    )
    np.testing.assert_array_equal(
        quantise(values, table, rate_weight=rate, mcu=(2, 2), reuse=True)[..., 0], half
    )


def test_dc_at_the_ends_of_its_range() -> None:
    values = np.zeros((2, 4, 64), np.float32)
    values[..., 0] = [[-1024, -1024, 1023, 1500], [-2000, 1016, -1024, np.nan]]
    plain = quantise(values, np.ones(64))[..., 0]
    rate = np.zeros((2, 4))
    rate[1, 1] = 0.3
    np.testing.assert_array_equal(
        np.delete(quantise(values, np.ones(64), rate_weight=rate, mcu=(1, 1))[..., 0], 5),
        np.delete(plain, 5),
    )
    dear = quantise(values, np.ones(64), rate_weight=3.0, mcu=(1, 1))[..., 0]
    assert -1024 <= dear.min() <= dear.max() <= 1023


def test_dc_settled_over_bands_in_the_memory_of_the_values() -> None:
    values = np.random.default_rng(1).normal(0, 40, (70, 6, 64)).astype(np.float32)
    apart = quantise(values, np.full(64, 9), rate_weight=0.5, mcu=(1, 1))
    np.testing.assert_array_equal(
        quantise(values, np.full(64, 9), rate_weight=0.5, mcu=(1, 1), reuse=True), apart
    )


def test_what_lies_on_the_same_step_is_kept_or_dropped() -> None:
    image = read_jpeg(pillow(photo(64, 64), quality=80))
    source, unit = image.components[0].coefficients, image.tables[0]
    table = unit.copy()
    table[40:] *= 2
    for options in (
        {"dead_zone": 0.5},
        {"dead_zone": 1.0},
        {"dead_zone": 1.4},
        {"dead_zone": 0.6, "rate_weight": 0.2},
    ):
        q = quantise(source, table, unit=unit, exact=table == unit, **options)
        same = q[..., 1:40] == source[..., 1:40]
        assert (same | (q[..., 1:40] == 0)).all()
        np.testing.assert_array_equal(q[..., 0], source[..., 0])
    np.testing.assert_array_equal(
        quantise(source, unit, unit=unit, exact=np.ones(64, bool)), source
    )


def test_the_typical_code_lengths() -> None:
    assert STANDARD_CODE_LENGTHS[0] == 4
    assert (STANDARD_CODE_LENGTHS > 0).sum() == 162


def test_quantise_refuses_what_does_not_fit() -> None:
    values = spectrum(4)
    odd_mcu = {"rate_weight": 0.1, "mcu": (3, 1)}
    for bad in (
        *(
            {"table": np.zeros(64)},
            {"table": np.ones(63)},
            {"dead_zone": np.ones((2, 2))},
            {"rate_weight": np.ones(3)},
            {"rate_weight": 0.1, "worth": np.ones(63)},
            {"rate_weight": 0.1, "worth": np.zeros(64)},
        ),
        odd_mcu,
    ):
        with pytest.raises(SettingsError):
            quantise(values, **({"table": np.ones(64)} | bad))  # type: ignore[arg-type]
