"""Coding of bit planes: the arithmetic against its description in Python, fixed words, hostile data
and models, fitting."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vizcomp.errors import FormatError, ModelError, TooLargeError
from vizcomp.vzc import coding, fitting
from vizcomp.vzc.coding import ContextModel

Bits = npt.NDArray[np.uint8]

# ----------------------------------------------------------------------- the description, in Python

LIMIT, FULL, LEAST = 2816, 1 << 56, 1 << 48


def _number_tables() -> tuple[dict[int, int], list[int]]:
    squash, power = {}, 1 << 31
    for x in range(LIMIT + 1):
        squash[x] = ((1 << 47) + ((1 << 31) + power) // 2) // ((1 << 31) + power)
        squash[-x] = 65536 - squash[x] if x else squash[x]
        power = (power * 2139111403 + (1 << 30)) >> 31
    stretch = [0] * 4096
    for step in range(2048, 4096):
        stretch[step] = next(
            (x for x in range(stretch[step - 1], LIMIT) if squash[x] >= 16 * step + 8), LIMIT
        )
        stretch[4095 - step] = -stretch[step]
    return squash, stretch


SQUASH, STRETCH = _number_tables()


def shifted(x: int, n: int) -> int:
    size = (abs(x) + (1 << n >> 1)) >> n
    return -size if x < 0 else size


class Writer:
    def __init__(self) -> None:
        self.low, self.range, self.left = 0, FULL, 0  # low: all bytes that have left, then 56 bits

    def code(self, p: int, bit: int) -> int:
        part = (self.range >> 16) * p
        self.low, self.range = (self.low, part) if bit else (self.low + part, self.range - part)
        while self.range < LEAST:
            self.low, self.range, self.left = self.low << 8, self.range << 8, self.left + 1
        return bit

    def finish(self) -> tuple[bytes, int]:
        for more in range(8):
            step = 1 << (56 - 8 * more)
            value = -(-self.low // step)
            if value * step < self.low + self.range:
                return value.to_bytes(self.left + more, "big").rstrip(b"\0"), self.left + more
        raise AssertionError("one of the 8 fits")


class Reader:
    def __init__(self, data: bytes) -> None:
        self.at, self.range = int.from_bytes(data[:7].ljust(7, b"\0"), "big"), FULL
        self.rest = iter(data[7:])

    def code(self, p: int, _bit: int) -> int:
        part = (self.range >> 16) * p
        bit = int(self.at < part)
        self.at, self.range = (self.at, part) if bit else (self.at - part, self.range - part)
        while self.range < LEAST:
            self.at, self.range = self.at << 8 | next(self.rest, 0), self.range << 8
        return bit


def code_planes(model: ContextModel, bits: Bits, start: int, coder: Writer | Reader) -> None:
    """Code slots from `start` on of bits (slots, H, W), into which a reader's go."""
    slots, rows, columns = bits.shape
    starts, sets = [0, *np.cumsum(model.channels).tolist()], model.sets
    references, tables = iter(model.references.tolist()), iter(np.array(model.tables).tolist())
    for slot in range(slots):
        lengths = model.lengths[slot].tolist()
        chosen = [[next(references) for _ in range(n)] for n in lengths]
        table = [[next(tables) for _ in range(1 << n)] for n in lengths]
        weights, rates = model.weights[slot].tolist(), model.rates.tolist()
        for y in range(rows if slot >= start else 0):
            for x in range(columns):
                index = [0] * sets
                for k in range(sets):
                    for j, (dy, dx, iteration, channel) in enumerate(chosen[k]):
                        if 0 <= y + dy < rows and 0 <= x + dx < columns:
                            one = (
                                1
                                if iteration < 0
                                else int(bits[starts[iteration] + channel, y + dy, x + dx])
                            )
                            index[k] |= one << j
                inputs = [*[STRETCH[table[k][index[k]] >> 4] for k in range(sets)], 256]
                p = SQUASH[
                    max(
                        -LIMIT,
                        min(
                            LIMIT,
                            shifted(sum(w * s for w, s in zip(weights, inputs, strict=True)), 16),
                        ),
                    )
                ]
                bit = coder.code(p, int(bits[slot, y, x]))
                bits[slot, y, x] = bit
                for k in range(sets):
                    if rates[k]:
                        t = table[k][index[k]]
                        table[k][index[k]] = (
                            t + ((65536 - t) >> rates[k]) if bit else t - (t >> rates[k])
                        )
                if rates[sets]:
                    moved = [
                        w + shifted((65536 * bit - p) * s, rates[sets])
                        for w, s in zip(weights, inputs, strict=True)
                    ]
                    weights = [max(-coding.MAX_WEIGHT, min(coding.MAX_WEIGHT, w)) for w in moved]


def described_encode(
    model: ContextModel, planes: Sequence[Bits], previous: Sequence[Bits]
) -> bytes:
    bits, start = np.concatenate([*previous, *planes]), sum(len(p) for p in previous)
    writer = Writer()
    code_planes(model, bits.copy(), start, writer)
    raw = np.packbits(bits[start:]).tobytes()
    data, emitted = writer.finish()
    return data if emitted <= len(raw) and len(data) < len(raw) else raw


def described_decode(
    model: ContextModel, data: bytes, planes: Sequence[Bits], previous: Sequence[Bits]
) -> list[Bits]:
    bits, start = (
        np.concatenate([*previous, *[np.zeros_like(p) for p in planes]]),
        sum(len(p) for p in previous),
    )
    code_planes(model, bits, start, Reader(data))
    ends = np.cumsum([start, *[len(p) for p in planes]]).tolist()
    return [bits[a:b] for a, b in itertools.pairwise(ends)]


# ----------------------------------------------------------------------------- made models and bits


def numbers(seed: int) -> Iterator[int]:
    """16-bit numbers that are the same for ever, whatever becomes of NumPy's generators."""
    while True:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        yield seed >> 48


def made_model(
    seed: int, channels: tuple[int, ...] = (2, 3), sets: int = 3, learning: bool = False
) -> ContextModel:
    """A model whose references, tables and weights are anything that is allowed."""
    draw = numbers(seed)
    slots, owner = sum(channels), [(t, c) for t, count in enumerate(channels) for c in range(count)]
    lengths = np.array([[next(draw) % 6 for _ in range(sets)] for _ in range(slots)], np.uint8)
    references = []
    for slot in range(slots):
        for _ in range(int(lengths[slot].sum())):
            other, dy, dx = next(draw) % (slot + 2) - 1, next(draw) % 5 - 2, next(draw) % 5 - 2
            if other == slot:
                dy, dx = (-abs(dy), dx) if dy else (0, -1 - abs(dx) % 2)
            references.append((dy, dx, *(owner[other] if other >= 0 else (-1, 0))))
    return ContextModel(
        channels=channels,
        lengths=lengths,
        references=np.array(references, np.int16).reshape(-1, 4),
        tables=np.array(
            [max(1, next(draw)) for _ in range(int((1 << lengths.astype(int)).sum()))], np.uint16
        ),
        weights=np.array(
            [[next(draw) * 2 - 40000 for _ in range(sets + 1)] for _ in range(slots)], np.int32
        ),
        rates=np.array(
            [next(draw) % 7 if learning else 0 for _ in range(sets)] + [14 if learning else 0],
            np.uint8,
        ),
    )


def made_bits(
    seed: int, channels: Sequence[int], grid: tuple[int, int], ones: int = 20000
) -> list[Bits]:
    """Planes with ones / 65536 of ones."""
    draw = numbers(seed)
    return [
        np.array([next(draw) < ones for _ in range(c * grid[0] * grid[1])], np.uint8).reshape(
            c, *grid
        )
        for c in channels
    ]


def typical_bits(model: ContextModel, seed: int, grid: tuple[int, int]) -> list[Bits]:
    """Planes as likely as the model says: what it makes of random bytes, by the description."""
    draw = numbers(seed)
    planes = [np.zeros((c, *grid), np.uint8) for c in model.channels]
    return described_decode(
        model, bytes(next(draw) & 255 for _ in range(2 * sum(p.size for p in planes))), planes, []
    )


def fields(
    images: int, channels: Sequence[int], grid: tuple[int, int], seed: int = 0
) -> list[Bits]:
    """Correlated binary fields, (images, C_t, H, W) for each t: signs of smooth noise that all
    channels share in part."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(images, 3, grid[0] + 2, grid[1] + 2))
    common = (
        sum(np.roll(common, (a, b), (2, 3)) for a in (-1, 0, 1) for b in (-1, 0, 1))[
            :, :, 1:-1, 1:-1
        ]
        / 3
    )
    planes = []
    for count in channels:
        mixed = np.einsum(
            "cs,nsyx->ncyx", np.random.default_rng(count).normal(size=(count, 3)), common
        )
        planes.append((mixed + rng.normal(size=mixed.shape) > 0).astype(np.uint8))
    return planes


def listed(planes: Sequence[Bits]) -> list[list[Bits]]:
    """By image, as `fit` takes them."""
    return [[p[i] for p in planes] for i in range(len(planes[0]))]


def assert_equal(a: Sequence[Bits], b: Sequence[Bits]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.dtype == np.uint8
        np.testing.assert_array_equal(x, y)


# ------------------------------------------------------------------------------------------- coding

MODELS = [made_model(seed, learning=learning) for seed in (1, 2) for learning in (False, True)]


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    seed=st.integers(0, 2**32),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    ones=st.sampled_from([0, 300, 32768, 65000, 65536, None]),
    first=st.integers(0, 1),
)
def test_encode_does_what_is_described(
    model: ContextModel, seed: int, grid: tuple[int, int], ones: int | None, first: int
) -> None:
    planes = (
        made_bits(seed, model.channels, grid, ones)
        if ones is not None
        else typical_bits(model, seed, grid)
    )
    data = coding.encode(model, planes[first:], planes[:first])
    assert data == described_encode(model, planes[first:], planes[:first])
    assert_equal(coding.decode(model, data, first, 1, grid, planes[:first]), planes[first:])
    assert len(data) <= coding.raw_bytes(model, first, 1, grid)


def test_any_bytes_decode_or_are_refused() -> None:
    ends = set()

    @settings(max_examples=60, deadline=None)
    @given(
        model=st.sampled_from(MODELS),
        data=st.binary(max_size=24),
        grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        t=st.integers(0, 1),
    )
    @example(MODELS[0], b"\x9c\x31", (5, 5), 1)
    @example(MODELS[0], bytes(24), (1, 1), 0)
    def decode(model: ContextModel, data: bytes, grid: tuple[int, int], t: int) -> None:
        previous = made_bits(3, model.channels[:t], grid)
        raw = coding.raw_bytes(model, t, t, grid)
        try:
            planes = coding.decode(model, data, t, t, grid, previous)
        except FormatError:
            assert len(data) >= raw or data.endswith(b"\0") or len(data) > 7
            ends.add("refused")
            return
        assert [p.shape for p in planes] == [(model.channels[t], *grid)]
        assert set(np.unique(planes[0])) <= {0, 1}
        if len(data) < raw:
            assert_equal(planes, described_decode(model, data, planes, previous))
            again = coding.encode(model, planes, previous)
            assert len(again) in (*range(len(data) + 1), raw)
            ends.add("coded")

    decode()
    assert ends == {"refused", "coded"}


def test_20000_mutations_decode_or_are_refused() -> None:
    model, grid = made_model(5, (5, 7), learning=True), (4, 4)
    planes, draw = typical_bits(model, 9, grid), numbers(4)
    data = coding.encode(model, planes, [])
    assert 7 < len(data) < coding.raw_bytes(model, 0, 1, grid)
    decoded = refused = 0
    for _ in range(20000):
        broken = bytearray(data)
        broken[next(draw) % len(broken)] ^= 1 << next(draw) % 8
        if next(draw) % 4 == 0:
            broken = broken[: next(draw) % len(broken)]
        try:
            result = coding.decode(model, bytes(broken), 0, 1, grid, [])
        except FormatError:
            refused += 1
        else:
            decoded += 1
            assert [p.shape for p in result] == [p.shape for p in planes]
    assert decoded > 19000
    assert decoded + refused == 20000


WORDS = [  # model's seed, learning, first iteration; the bytes
    (1, False, 0, "5768fa03a221cebff8ccea279f2a2e"),
    (2, True, 0, "a9c8ff500fae5c5d5847b4d1cb6bf952"),
    (3, True, 1, "80ca46d567"),
    (4, False, 1, "d2f8491d443b"),
    (5, True, 0, "9fe60c385755073678b514cf4e2ed573da"),
    (6, True, 0, "000000000000000000000000000000000800001000081020"),
    (7, False, 1, "000000000000000000000000000022"),
]


@pytest.mark.parametrize(("seed", "learning", "first", "words"), WORDS)
def test_words_are_fixed_for_ever(seed: int, learning: bool, first: int, words: str) -> None:
    model = made_model(seed, (3, 5), sets=4, learning=learning)
    planes = (
        typical_bits(model, seed, (4, 6))
        if seed < 6
        else made_bits(seed, model.channels, (4, 6), 1000)
    )
    assert coding.encode(model, planes[first:], planes[:first]).hex() == words
    assert_equal(
        coding.decode(model, bytes.fromhex(words), first, 1, (4, 6), planes[:first]), planes[first:]
    )


def test_flat_model_makes_raw_bits() -> None:
    model = ContextModel.flat((3, 2))
    planes = made_bits(1, model.channels, (3, 3))
    data = coding.encode(model, planes, [])
    assert data == np.packbits(np.concatenate([p.ravel() for p in planes])).tobytes()
    assert len(data) == coding.raw_bytes(model, 0, 1, (3, 3)) == 6
    assert coding.cost_bits(model, planes, []) == pytest.approx(45, abs=0.05)
    assert_equal(coding.decode(model, data, 0, 1, (3, 3), []), planes)
    with pytest.raises(FormatError):  # the bits that fill the last byte are zero
        coding.decode(model, data[:-1] + bytes([data[-1] | 1]), 0, 1, (3, 3), [])


def test_data_that_encode_never_makes_are_refused() -> None:
    model = made_model(1)
    for data in (bytes(3) + b"\1", b"\1\0", bytes(1)):
        with pytest.raises(FormatError):
            coding.decode(model, data, 0, 1, (2, 2), [])
    with pytest.raises(TooLargeError):
        coding.decode(model, b"", 0, 1, (1 << 20, 1 << 20), [])
    with pytest.raises(TooLargeError):
        coding.decode(model, b"", 0, 1, (2, 2), [], max_bits=19)
    confident = dataclasses.replace(
        ContextModel.flat((64,)),
        tables=np.full(64, 65535, np.uint16),
        weights=np.full((64, 2), 65536, np.int32),
    )
    # the bits cost 0.1 bytes, so no string has more than 7
    with pytest.raises(FormatError, match="image 1"):
        coding.decode_batch(confident, [b"", b"\1" * 8], 0, 0, (4, 4), [])


def test_batches_equal_single_images_in_every_thread() -> None:
    model = made_model(7, (5, 7), learning=True)
    planes = fields(60, model.channels, (4, 4))
    single = [coding.encode(model, [planes[1][i]], [planes[0][i]]) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        for batch in pool.map(
            lambda _: coding.encode_batch(model, planes[1:], planes[:1]), range(8)
        ):
            assert batch == single
    assert_equal(coding.decode_batch(model, single, 1, 1, (4, 4), planes[:1]), planes[1:])
    costs = coding.cost_bits_batch(model, planes[1], planes[:1])
    assert costs.tolist() == [
        coding.cost_bits(model, [planes[1][i]], [planes[0][i]]) for i in range(60)
    ]
    shared = coding.cost_bits_batch(model, planes[1], [planes[0][0]])
    assert shared[0] == costs[0]
    assert shared[1:].tolist() != costs[1:].tolist()
    assert coding.encode_batch(model, [planes[0][:0]], []) == []
    assert coding.decode_batch(model, [], 0, 0, (4, 4), [])[0].shape == (0, 5, 4, 4)


def test_arguments_that_do_not_fit_are_errors_of_the_caller() -> None:
    model, planes = made_model(1), made_bits(1, (2, 3), (2, 2))
    calls = [
        lambda: coding.encode(model, planes[1:], []),
        lambda: coding.encode(model, [p.astype(np.int64) for p in planes], []),
        lambda: coding.encode(model, [planes[0], planes[1][:, :1]], []),
        lambda: coding.encode(model, [*planes, planes[0]], []),
        lambda: coding.encode(model, [planes[0][:, :0]], []),
        lambda: coding.decode(model, b"", 1, 1, (2, 2), []),
        lambda: coding.decode(model, b"", 1, 1, (2, 2), [planes[1]]),
        lambda: coding.decode(model, b"", 0, 2, (2, 2), []),
        lambda: coding.decode(model, b"", 0, 0, (0, 2), []),
        lambda: coding.raw_bytes(model, 1, 0, (2, 2)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"planes|iterations|grid"):
            call()


def test_waste_is_less_than_a_byte() -> None:
    model, grid = made_model(2, (3, 5), sets=4), (4, 4)
    images = [typical_bits(model, seed, grid) for seed in range(150)]
    planes = [np.stack([one[t] for one in images]) for t in range(2)]
    waste = (
        np.array([len(d) for d in coding.encode_batch(model, planes, [])])
        - coding.cost_bits_batch(model, planes, []) / 8
    )
    # expected: 0.5 - 1 / ln 256 = 0.32, were the costs spread evenly over bytes
    assert waste.mean() < 0.45
    assert waste.max() < 1.01


@pytest.mark.slow
def test_five_million_bits_a_second() -> None:
    planes = fields(1, (8, 8), (256, 256))
    model = fitting.fit(listed(fields(20, (8, 8), (32, 32), 1)), adaptive=False)
    start = time.perf_counter()
    data = coding.encode(model, [p[0] for p in planes], [])
    middle = time.perf_counter()
    coding.decode(model, data, 0, 1, (256, 256), [])
    assert middle - start < 0.21
    assert time.perf_counter() - middle < 0.21


# ------------------------------------------------------------------------------------------- models


def test_model_survives_storing_and_pickling() -> None:
    model = made_model(3, learning=True)
    planes = typical_bits(model, 1, (3, 5))
    arrays = model.to_arrays()
    assert {a.dtype.kind for a in arrays.values()} <= {"i", "u"}
    for again in (ContextModel.from_arrays(arrays), pickle.loads(pickle.dumps(model))):
        assert again.fingerprint_bytes() == model.fingerprint_bytes()
        assert coding.encode(again, planes, []) == coding.encode(model, planes, [])
    other = dataclasses.replace(model, rates=np.zeros(4, np.uint8))
    assert other.fingerprint_bytes() != model.fingerprint_bytes()
    assert model.adaptive
    assert not other.adaptive
    assert not model.tables.flags.writeable


def reference(dy: int, dx: int, iteration: int, channel: int) -> dict[str, npt.NDArray[np.int16]]:
    """Of the second channel of the first iteration."""
    return {"references": np.array([[dy, dx, iteration, channel]], np.int16)}


BROKEN = [
    *[
        reference(*r)
        for r in [
            (0, 0, 0, 1),
            (0, 1, 0, 1),
            (1, -1, 0, 1),
            (0, 0, 0, 2),
            (0, 0, 1, 0),
            (-1, 0, 1, 0),
        ]
    ],
    *[
        reference(*r)
        for r in [
            (3, 0, 0, 0),
            (0, -3, 0, 0),
            (-32768, 0, 0, 0),
            (0, 0, -1, 1),
            (0, 0, -2, 0),
            (0, 0, 0, -1),
        ]
    ],
    *[reference(*r) for r in [(0, 0, 2, 0), (0, 0, 32767, 0), (0, 0, 0, 32767), (0, 0, -32768, 0)]],
    {"references": np.zeros((2, 4), np.int16)},
    {"references": np.zeros((1, 3), np.int16)},
    {"references": np.zeros((1, 4), np.int32)},
    {"lengths": np.array([[0], [2], [0]], np.uint8)},
    {"lengths": np.array([[0], [1]], np.uint8)},
    {
        "lengths": np.array([[0], [9], [0]], np.uint8),
        "references": np.zeros((9, 4), np.int16),
        "tables": np.ones(514, np.uint16),
    },
    {
        "lengths": np.zeros((3, 17), np.uint8),
        "references": np.zeros((0, 4), np.int16),
        "tables": np.ones(51, np.uint16),
    },
    {"lengths": np.zeros((3, 0), np.uint8)},
    {"tables": np.ones(5, np.uint16)},
    {"tables": np.array([1, 2, 0, 4], np.uint16)},
    {"tables": np.ones(4, np.int32)},
    {"weights": np.full((3, 2), 1 << 21, np.int32)},
    {"weights": np.full((3, 2), -(1 << 31), np.int32)},
    {"weights": np.zeros((3, 3), np.int32)},
    {"weights": np.zeros((3, 2), np.float64)},
    {"rates": np.array([25, 0], np.uint8)},
    {"rates": np.array([0], np.uint8)},
    {"channels": np.array([], np.int32)},
    {"channels": np.array([3, 0], np.int32)},
    {"channels": np.array([4, -1], np.int32)},
    {"channels": np.array([1 << 30, 1 << 30], np.int32)},
    {"channels": np.array([2, 1], np.int64)},
    {"channels": np.array(2, np.int32)},
    {"arithmetic": np.array([2], np.int32)},
    {"arithmetic": np.array([1.0])},
]


@pytest.mark.parametrize("change", BROKEN)
def test_broken_models_are_refused(change: dict[str, npt.NDArray[np.generic]]) -> None:
    flat = ContextModel.flat((2, 1)).to_arrays()
    sound = (
        flat
        | {"lengths": np.array([[0], [1], [0]], np.uint8), "tables": np.full(4, 9, np.uint16)}
        | reference(-1, 2, 0, 1)
    )
    assert ContextModel.from_arrays(sound).to_arrays()["references"].tolist() == [[-1, 2, 0, 1]]
    with pytest.raises(ModelError):
        ContextModel.from_arrays({**sound, **change})


@pytest.mark.parametrize("name", sorted(ContextModel.flat((1,)).to_arrays()))
def test_models_with_a_missing_field_are_refused(name: str) -> None:
    arrays = ContextModel.flat((1,)).to_arrays()
    del arrays[name]
    with pytest.raises(ModelError, match=name):
        ContextModel.from_arrays(arrays)


# ------------------------------------------------------------------------------------------ fitting


def share(model: ContextModel, planes: Sequence[Bits]) -> float:
    """Of the raw bits, left."""
    costs = coding.cost_bits_batch(model, planes, [])
    return float(costs.sum() / sum(p.size for p in planes))


def test_fit_finds_what_bits_have_in_common() -> None:
    planes, others = fields(700, (2, 4), (4, 4), 1), fields(300, (2, 4), (4, 4), 2)
    model = fitting.fit(listed(planes), adaptive=False, sets=4)
    assert not model.adaptive
    assert share(model, others) < 0.88
    entropies = [-(q := p.mean((0, 2, 3))) * np.log2(q) - (1 - q) * np.log2(1 - q) for p in others]
    assert share(model, others) < 0.9 * np.concatenate(entropies).mean()
    data = coding.encode_batch(model, others, [])
    assert sum(map(len, data)) / len(data) / coding.raw_bytes(model, 0, 1, (4, 4)) < 0.92
    assert_equal(coding.decode_batch(model, data, 0, 1, (4, 4), []), others)
    again = fitting.fit(listed(planes), adaptive=False, sets=4)
    assert again.fingerprint_bytes() == model.fingerprint_bytes()


def test_fit_sees_copies_edges_and_constants() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, (400, 2, 4, 4)).astype(np.uint8)
    second = np.zeros((400, 3, 4, 4), np.uint8)
    second[:, 0] = first[:, 0] ^ 1  # a copy, turned
    second[:, 1, 0] = 1  # tells the top row
    model = fitting.fit(listed([first, second]), adaptive=False)
    costs = coding.cost_bits_batch(model, second, [first[0]])
    assert math.isclose(share(model, [first]), 1, abs_tol=0.02)
    assert coding.cost_bits_batch(model, [first, second], [])[0] < 1.1 * first[0].size
    assert len(costs) == 400


def test_adaptive_fit_takes_grids_of_many_sizes_and_learns() -> None:
    rng = np.random.default_rng(0)

    def image(grid: tuple[int, int]) -> list[Bits]:  # each image has its own share of ones
        return [(rng.random((c, *grid)) < rng.choice([0.1, 0.9])).astype(np.uint8) for c in (1, 2)]

    codes = [image((int(rng.integers(12, 30)), int(rng.integers(12, 30)))) for _ in range(60)]
    model = fitting.fit(codes, adaptive=True, sets=2)
    static = dataclasses.replace(model, rates=np.zeros(3, np.uint8))
    others = [image((40, 25)) for _ in range(10)]
    costs = [sum(coding.cost_bits(m, planes, []) for planes in others) for m in (model, static)]
    assert model.adaptive
    assert costs[0] < costs[1]
    for planes in others[:2]:
        data = coding.encode(model, planes, [])
        assert_equal(coding.decode(model, data, 0, 1, (40, 25), []), planes)


@pytest.mark.parametrize("images", [1, 2, 9])
def test_fit_from_hardly_anything_does_no_harm(images: int) -> None:
    planes = fields(images, (2, 3), (1, 3))
    model = fitting.fit(listed(planes), adaptive=True)
    assert share(model, fields(200, (2, 3), (1, 3), 1)) < 1.1


def test_fit_refuses_codes_that_do_not_fit_together() -> None:
    good = [np.zeros((2, 3, 3), np.uint8)]
    for codes, sets in (
        ([], 4),
        ([good], 0),
        ([good], 17),
        ([good, [*good, *good]], 4),
        ([[good[0], good[0][:, 1:]]], 4),
    ):
        with pytest.raises(ValueError, match="fit"):
            fitting.fit(codes, adaptive=False, sets=sets)
