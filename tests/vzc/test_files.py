"""The .vzc format: what docs/vzc-format.md says, golden files that decode for ever, refusal of what
is broken or hostile."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import mmap
import os
import random
import re
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import processor_seconds

from vizcomp.errors import FormatError, InputError, TooLargeError, TruncatedError, UnsupportedError
from vizcomp.vzc import image as vzc
from vizcomp.vzc import pack_layout
from vizcomp.vzc.fields import (
    MAGIC,
    MAX_SIDE,
    TAG_ALPHA,
    TAG_NAME,
    Cursor,
    checksum_size,
    name_problem,
    short_checksum,
    write_column,
    write_varint,
)
from vizcomp.vzc.pack_blocks import MAX_PACKED_SIDE, PackEntry
from vizcomp.vzc.pack_layout import END_MARK, HEADER, SECTION_HEAD, section, trailer
from vizcomp.vzc.packs import PackReader, PackWriter

HERE = Path(__file__).parents[1]
GOLDEN = HERE / "golden"
PAGE = (HERE.parent / "docs" / "vzc-format.md").read_text("utf-8")
MODEL = bytes.fromhex("a1b2c3d4")


def noise(length: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(f"payload {seed}".encode()).digest(length)


def image(lengths: tuple[int, ...], width: int = 32, height: int = 32, **more: object) -> bytes:
    chunks = [noise(n, i) for i, n in enumerate(lengths)]
    return vzc.pack(chunks, model=MODEL, width=width, height=height, **more)  # type: ignore[arg-type]


def big_pack(seed: int = 0) -> bytes:
    """150 images: three blocks, mixed sizes, grey, iterations; most with names, some with
    labels."""
    dice = random.Random(seed)
    out = PackWriter(model=MODEL, classes=["airplane", "cat", "Zürich"])
    for i in range(150):
        out.add(
            noise(dice.choice((0, 16, 60, 200)), i),
            dice.choice((32, 48)),
            dice.choice((32, 1)),
            grey=i % 5 == 0,
            iterations=1 + i % 3,
            name=None if i % 7 == 6 else f"{'cat' if i % 2 else 'Zürich'}/{i:04}.png",
            label=None if i % 11 == 0 else i % 3,
        )
    return out.finish()


def plain_pack(lengths: list[int], *, model_file: bytes = b"", **more: object) -> bytes:
    out = PackWriter(model=MODEL, model_file=model_file)
    for i, n in enumerate(lengths):
        out.add(noise(n, i), 32, 32, **more)  # type: ignore[arg-type]
    return out.finish()


def stored(plane: bytes) -> bytes:
    """A zlib stream without compression: the same bytes whatever zlib is installed."""
    size = len(plane).to_bytes(2, "little")
    return (
        b"\x78\x01\x01"
        + size
        + bytes(255 - b for b in size)
        + plane
        + zlib.adler32(plane).to_bytes(4, "big")
    )


def golden_content() -> dict[str, bytes]:
    """What each golden file must be. `random` and SHAKE are the same on every machine."""
    return {
        "one": image((11,)),
        "steps": image((8, 14, 16, 64, 100), grey=True),
        "large": image((300, 256, 257), 768, 512),
        "tagged": image(
            (20, 0), 3, 5, metadata=((TAG_ALPHA, stored(bytes(range(15)))), (TAG_NAME, b"a/b.png"))
        ),
        "most": image(tuple(range(64))),
        "pack2": big_pack(),
        "pack2-plain": plain_pack([16] * 70),
        "pack2-empty": plain_pack([]),
        "pack2-model": plain_pack([5], model_file=noise(300, 5)),
    }


def golden(name: str) -> bytes:
    path = GOLDEN / f"{name}.vzc"
    if os.environ.get("VIZCOMP_WRITE_GOLDEN") and not path.exists():
        path.write_bytes(golden_content()[name])
    return path.read_bytes()


def load_fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_vzc", HERE / "fuzz" / "vzc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load_fuzz()
IMAGES = ["one", "steps", "large", "tagged", "most"]
OLD_PACKS = ["pack", "pack-plain", "pack-empty"]  # version 1, which is written no longer
OLD_DIGESTS = {
    "pack": "7f758b36ce1392ff",
    "pack-plain": "eaecabe8a9ff0f75",
    "pack-empty": "7a47a38c20741fea",
}
NEW_PACKS = ["pack2", "pack2-plain", "pack2-empty", "pack2-model"]
PACKS = [*OLD_PACKS, *NEW_PACKS]


# The document
# --------------------------------------------------------------------------------------------------


def hex_blocks() -> list[bytes]:
    blocks = re.findall(r"^```hex\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [
        b"".join(bytes.fromhex(re.split(r"  +", line)[0]) for line in block.splitlines())
        for block in blocks
    ]


def test_the_examples_of_the_page_are_what_the_code_writes_and_reads() -> None:
    one, many = hex_blocks()
    assert vzc.pack([b"\1\2\3", b"\xff"], model=MODEL, width=48, height=20, grey=True) == one
    assert vzc.unpack(one).chunks == (b"\1\2\3", b"\xff")
    out = PackWriter(model=MODEL, classes=["cat"])
    out.add(b"\x0a\x0b", 32, 32, iterations=5, name="cat/1.png", label=0)
    out.add(b"\x0c", 32, 32, iterations=5, name="cat/2.png")
    assert out.finish() == many
    assert [e.name for e in PackReader(many)] == ["cat/1.png", "cat/2.png"]


def test_the_numbers_of_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| `([0-9a-f ]+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for number, coded in rows:
        assert write_varint(int(number)) == bytes.fromhex(coded)
    assert short_checksum(b"1234", b"56789") == (0x29B1).to_bytes(2, "little")
    assert "29b1" in PAGE
    assert zlib.crc32(b"123456789") == 0xCBF43926
    assert "cbf43926" in PAGE
    long = noise(257)
    assert short_checksum(b"12", long) == zlib.crc32(b"12" + long).to_bytes(4, "little")
    assert write_column([5, 7, 6]) == bytes.fromhex("a20118")
    assert "`a2 01 18`" in PAGE


def test_sizes_are_those_of_the_page() -> None:
    for length, overhead in (
        (0, 13),
        (11, 13),
        (63, 13),
        (64, 14),
        (128, 14),
        (256, 14),
        (257, 16),
    ):
        data = image((length,))
        assert len(data) - length == overhead
        assert vzc.read_header(data).overhead == overhead
    assert len(image((10,) * 8)) == 13 + 10 + 7 * 13
    assert len(image((100,) * 8, 768, 512)) == 8 * 100 + 14 + 4 + 7 * 4


@pytest.mark.parametrize(("spread", "most"), [(1, 0.5), (64, 1.25), (4096, 2.0), (8192, 2.1)])
def test_an_image_of_a_pack_costs_at_most_two_bytes(spread: int, most: float) -> None:
    dice = random.Random(spread)
    fixed = len(plain_pack([])) + 8
    for n in (64, 640):
        lengths = [
            dice.choice((40, 39 + spread)) if i % 9 else 40 + (spread - 1) * (i % 2)
            for i in range(n)
        ]
        assert max(lengths) - min(lengths) == spread - 1
        overhead = len(plain_pack(lengths, iterations=5)) - sum(lengths)
        assert (overhead - fixed) / n <= most
    assert fixed <= 37


def test_names_and_labels_of_a_pack_cost_little() -> None:
    def size(named: bool, labelled: bool) -> int:
        out = PackWriter(model=MODEL, classes=[f"class {i}" for i in range(10)])
        for i in range(1280):
            out.add(
                noise(50),
                32,
                32,
                name=f"cat/{i:05}.png" if named else None,
                label=i % 10 if labelled else None,
            )
        return len(out.finish())

    bare = size(False, False)
    assert 0.5 <= (size(False, True) - bare) / 1280 < 0.6
    assert (size(True, False) - bare) / 1280 < 4


# Golden files
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES + PACKS)
def test_golden_files_stay_the_same_for_ever(name: str) -> None:
    if name in OLD_PACKS:  # as they were once written
        assert hashlib.sha256(golden(name)).hexdigest()[:16] == OLD_DIGESTS[name]
    else:
        assert golden(name) == golden_content()[name]


def test_no_golden_file_is_missing() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.vzc")) == sorted(
        [*golden_content(), *OLD_PACKS]
    )
    # those of the first day
    names = sorted(set(golden_content()) - set(NEW_PACKS) | set(OLD_PACKS))
    digest = hashlib.sha256(b"".join(golden(name) for name in names)).hexdigest()
    assert digest == "00aed8591fe6dafa685df63a3fd3f577a531d210a2b969c6ba1f29e48e743e19"


@pytest.mark.parametrize("name", IMAGES)
def test_golden_images_decode(name: str) -> None:
    got = vzc.unpack(golden(name))
    assert got.complete
    assert not got.problem
    assert got.header.model == MODEL
    assert got.chunks == tuple(noise(n, i) for i, n in enumerate(got.header.lengths))
    assert got.header == vzc.read_header(golden(name))
    assert got.header.file_bytes == len(golden(name))
    for chunk, start in zip(got.chunks, got.header.offsets, strict=True):
        assert golden(name)[start : start + len(chunk)] == chunk


@pytest.mark.parametrize("version", [1, 2])
def test_golden_pack_decodes(version: int) -> None:
    first = "pack" if version == 1 else "pack2"
    with PackReader(golden(first)) as pack:
        assert (pack.version, pack.problem, pack.has_model) == (version, "", False)
        assert (len(pack), pack.blocks, pack.model) == (150, 3, MODEL)
        assert pack.classes == ("airplane", "cat", "Zürich")
        for i in range(150):
            entry = pack.entry(i)
            assert entry.payload == noise(len(entry.payload), i) == pack.payload(i)
            assert (
                entry.name
                == (None if i % 7 == 6 else f"{'cat' if i % 2 else 'Zürich'}/{i:04}.png")
                == pack.name(i)
            )
            assert entry.label == (None if i % 11 == 0 else i % 3) == pack.label(i)
            assert (entry.grey, entry.iterations) == (i % 5 == 0, 1 + i % 3)
            assert (entry.width, entry.height) == pack.size(i)
            if entry.name:
                assert pack.index_of(entry.name) == i
        assert pack.check() == []
        with pytest.raises(InputError, match="no image named 'dog'"):
            pack.index_of("dog")
        for outside in (150, -1):
            with pytest.raises(IndexError):
                pack.entry(outside)
    assert len(PackReader(golden(f"{first}-empty"))) == 0
    assert list(PackReader(golden(f"{first}-empty"))) == []
    assert [e.payload for e in PackReader(golden(f"{first}-plain"))] == [
        noise(16, i) for i in range(70)
    ]


# Round trips
# --------------------------------------------------------------------------------------------------

sides = st.one_of(st.just(32), st.integers(1, 300), st.integers(1, MAX_SIDE))
tags = st.dictionaries(
    st.integers(3, 1000).map(lambda n: 2 * n), st.binary(max_size=300), max_size=4
)


@given(
    chunks=st.lists(
        st.one_of(st.binary(max_size=40), st.binary(min_size=250, max_size=300)),
        min_size=1,
        max_size=64,
    ),
    width=sides,
    height=sides,
    grey=st.booleans(),
    items=tags,
    model=st.binary(min_size=4, max_size=4),
)
def test_images_come_back(
    chunks: list[bytes], width: int, height: int, grey: bool, items: dict[int, bytes], model: bytes
) -> None:
    data = vzc.pack(
        chunks, model=model, width=width, height=height, grey=grey, metadata=sorted(items.items())
    )
    got = vzc.unpack(bytearray(data), max_pixels=2**62)
    assert got.chunks == tuple(chunks)
    header = got.header
    assert (header.model, header.width, header.height, header.grey) == (model, width, height, grey)
    assert dict(header.metadata) == items
    assert (header.file_bytes, header.payload_bytes) == (len(data), sum(map(len, chunks)))
    assert vzc.kind(data) == "image"


names = st.one_of(
    st.none(), st.text("ab/é😀.", min_size=1, max_size=12).filter(lambda n: not name_problem(n))
)
entries = st.builds(
    PackEntry,
    payload=st.binary(max_size=60),
    width=st.one_of(st.just(32), st.integers(1, MAX_PACKED_SIDE)),
    height=st.one_of(st.just(32), st.integers(1, MAX_PACKED_SIDE)),
    grey=st.booleans(),
    iterations=st.integers(1, 64),
    name=names,
    label=st.one_of(st.none(), st.integers(0, 2)),
)


@given(
    images=st.lists(
        entries, max_size=140, unique_by=lambda e: e.name if e.name is not None else object()
    ),
    stream=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_packs_come_back(images: list[PackEntry], stream: bool) -> None:
    file = io.BytesIO()
    out = PackWriter(file if stream else None, model=MODEL, classes=["a", "b", "c"])
    for i, e in enumerate(images):
        more = {"grey": e.grey, "iterations": e.iterations, "name": e.name, "label": e.label}
        assert out.add(e.payload, e.width, e.height, **more) == i  # type: ignore[arg-type]
    data = out.finish()
    if stream:
        assert data == b""
        data = file.getvalue()
    assert out.bytes_written == len(data)
    pack = PackReader(data, max_pixels=2**62)
    assert list(pack) == images
    assert all(pack.index_of(e.name) == i for i, e in enumerate(images) if e.name is not None)
    assert vzc.kind(data) == "pack"


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=70))
def test_columns_come_back(numbers: list[int]) -> None:
    data = write_column(numbers)
    cursor = Cursor(memoryview(data), 0, len(data), "it")
    assert cursor.column(len(numbers)).tolist() == numbers
    assert cursor.at == len(data)


def test_long_columns_come_back() -> None:
    numbers = np.random.default_rng(0).integers(1000, 9000, 200_001)
    data = write_column(numbers)
    assert len(data) == 3 + (200_001 * 13 + 7) // 8
    np.testing.assert_array_equal(
        Cursor(memoryview(data), 0, len(data), "it").column(len(numbers)), numbers
    )


@given(st.integers(0, 2**63 - 1))
def test_varints_come_back(number: int) -> None:
    data = write_varint(number)
    assert len(data) <= 9
    assert Cursor(memoryview(data), 0, len(data), "it").varint() == number


@pytest.mark.parametrize(
    "code", ["8000", "8180808080808080808001", "ff" * 9 + "01", "808080808080808080"]
)
def test_varints_that_are_not_the_shortest_or_too_long_are_refused(code: str) -> None:
    data = bytes.fromhex(code)
    with pytest.raises(FormatError):
        Cursor(memoryview(data), 0, len(data), "it").varint()


def test_a_pack_in_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "set.vzc"
    path.write_bytes(golden("pack"))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with PackReader(mapped) as pack:
            assert pack.entry(149).payload == noise(len(pack.payload(149)), 149)
            assert pack.index_of("cat/0001.png") == 1
        mapped.close()


def test_a_large_pack_is_written_in_bounded_memory_and_read_quickly() -> None:
    class Sink(io.RawIOBase):
        size = 0

        def write(self, data: object) -> int:
            assert isinstance(data, bytes)
            self.size += len(data)
            return len(data)

    sink = Sink()
    tracemalloc.start()
    out = PackWriter(sink, model=MODEL)  # type: ignore[arg-type]
    payload = noise(1000)
    for _ in range(20_000):
        out.add(payload, 32, 32)
    out.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sink.size > 20_000_000
    assert peak < 2_000_000
    data = plain_pack([60] * 30_000)
    with processor_seconds(10):
        pack = PackReader(data)
        dice = random.Random(0)
        for i in [dice.randrange(30_000) for _ in range(500)]:
            assert pack.payload(i) == noise(60, i)


def test_alpha_comes_back() -> None:
    plane = np.random.default_rng(0).integers(0, 256, (7, 5)).astype(np.uint8)
    content = vzc.pack_alpha(plane)
    np.testing.assert_array_equal(vzc.unpack_alpha(content, 5, 7), plane)
    for bad in (
        content[:-1],
        content + b"\0",
        b"",
        b"PNG",
        zlib.compress(bytes(34)),
        zlib.compress(bytes(36)),
    ):
        with pytest.raises(FormatError, match="alpha"):
            vzc.unpack_alpha(bad, 5, 7)
    header = vzc.unpack(golden("tagged")).header
    assert vzc.unpack_alpha(header.item(TAG_ALPHA) or b"", 3, 5).ravel().tolist() == list(range(15))
    tracemalloc.start()
    with pytest.raises(FormatError):
        vzc.unpack_alpha(zlib.compress(bytes(50_000_000)), 5, 7)  # a bomb
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 51_000_000  # the 50 MB are the test's own


# Damage
# --------------------------------------------------------------------------------------------------


def read_all(data: bytes) -> object:
    if vzc.kind(data) == "image":
        return vzc.unpack(data)
    return list(PackReader(data))


@pytest.mark.parametrize(
    "name",
    [
        "one",
        "steps",
        "tagged",
        "large",
        "most",
        "pack-plain",
        "pack-empty",
        "pack2-plain",
        "pack2-empty",
    ],
)
def test_every_flipped_bit_is_found(name: str) -> None:
    data = bytearray(golden(name))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read_all(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("name", ["pack", "pack2"])
def test_flipped_bits_of_a_large_pack_are_found(name: str) -> None:
    data = bytearray(golden(name))
    for at in [*range(0, len(data) - 80, 9), *range(len(data) - 80, len(data))]:
        data[at] ^= 1 << at % 8
        try:
            problems = PackReader(bytes(data)).check()
        except FormatError:
            problems = ["not even opened"]
        assert len(problems) == 1  # one block, the others are good
        data[at] ^= 1 << at % 8


@pytest.mark.parametrize("name", IMAGES)
def test_a_flipped_bit_is_named_by_its_iteration(name: str) -> None:
    header = vzc.read_header(golden(name))
    for number, (start, length) in enumerate(zip(header.offsets, header.lengths, strict=True), 1):
        data = bytearray(golden(name))
        # of the payload, or of the checksum where the payload is empty
        data[start + length // 2] ^= 4
        with pytest.raises(
            FormatError, match=rf"the checksum of iteration {number} does not match"
        ):
            vzc.unpack(bytes(data))
        with pytest.raises(FormatError, match=f"iteration {number} "):
            vzc.unpack(bytes(data), allow_truncated=True)
    data = bytearray(golden(name))
    data[5] ^= 1
    with pytest.raises(FormatError, match="checksum of the header"):
        vzc.unpack(bytes(data))


@pytest.mark.parametrize("name", IMAGES)
def test_every_truncation_of_an_image(name: str) -> None:
    whole = golden(name)
    header = vzc.read_header(whole)
    ends = [a + n + checksum_size(n) for a, n in zip(header.offsets, header.lengths, strict=True)]
    for length in range(1, len(whole)):
        with pytest.raises(TruncatedError):
            vzc.unpack(whole[:length])
        done = sum(end <= length for end in ends)
        if not done:
            with pytest.raises(TruncatedError):
                vzc.unpack(whole[:length], allow_truncated=True)
            continue
        got = vzc.unpack(whole[:length], allow_truncated=True)
        assert not got.complete
        assert (
            got.problem == f"the file ends in iteration {done + 1} of {header.iterations},"
            f" {len(whole) - length} bytes are missing"
        )
        assert got.chunks == tuple(noise(n, i) for i, n in enumerate(header.lengths[:done]))
    for length in range(header.header_bytes, len(whole)):
        assert vzc.read_header(whole[:length]) == header


@pytest.mark.parametrize(
    "name", ["pack-plain", "pack-empty", "pack2-plain", "pack2-empty", "pack2-model"]
)
def test_every_truncation_of_a_pack(name: str) -> None:
    whole = golden(name)
    for length in range(1, len(whole)):
        with pytest.raises(FormatError):
            PackReader(whole[:length])
    with pytest.raises(TruncatedError, match="cut off"):
        PackReader(whole[:-1])


@pytest.mark.parametrize("name", IMAGES + PACKS)
def test_bytes_after_the_end_are_refused(name: str) -> None:
    for more in (b"\0", b"\n", golden(name)):
        if name.startswith("pack") and len(more) > 1:
            continue
        with pytest.raises(FormatError):
            read_all(golden(name) + more)
    if name in IMAGES:
        with pytest.raises(FormatError, match="2 bytes follow the last iteration"):
            vzc.unpack(golden(name) + b"\r\n")


def test_chunks_that_were_swapped_or_come_from_another_file_are_found() -> None:
    chunks = [noise(20, i) for i in range(3)]
    one = vzc.pack(chunks, model=MODEL, width=32, height=32)
    other = vzc.pack([noise(20, 9), *chunks[1:]], model=MODEL, width=32, height=32)
    a, b, c = vzc.read_header(one).offsets
    assert one[c:] != other[c:], "a checksum covers those before it"
    for data in (
        one[:a] + one[b:c] + one[a:b] + one[c:],
        one[:c] + other[c:],
        one[:a] + other[a:b] + one[b:],
    ):
        assert len(data) == len(one)
        with pytest.raises(FormatError, match=r"iteration \d does not match"):
            vzc.unpack(data)


def test_a_pack_that_was_cut_off_gives_back_its_whole_blocks() -> None:
    whole = golden("pack2")
    ends = [end for _, end in PackReader(whole)._layout.spans]
    classes_end = PackReader(whole)._layout.spans[0][0] - SECTION_HEAD
    for length in [
        *range(HEADER, len(whole), 37),
        *ends,
        *(end - 1 for end in ends),
        len(whole) - 1,
    ]:
        pack = PackReader(whole[:length], allow_truncated=True)
        blocks = sum(end <= length for end in ends)
        assert len(pack) == (150 if blocks == 3 else 64 * blocks)
        assert pack.classes == (("airplane", "cat", "Zürich") if length >= classes_end else ())
        assert f"{len(pack)} images of whole blocks are left" in pack.problem
        assert pack.check() == []
        assert [e.payload for e in pack] == [
            noise(len(pack.payload(i)), i) for i in range(len(pack))
        ]
    with pytest.raises(TruncatedError, match="within its header"):
        PackReader(whole[:9], allow_truncated=True)
    assert not PackReader(whole, allow_truncated=True).problem
    for cut in (golden("pack")[:5000], golden("pack")[:-1]):
        with pytest.raises(TruncatedError, match="cut off"):
            PackReader(cut, allow_truncated=True)  # of version 1


def test_a_pack_with_a_damaged_directory_is_read_by_its_marks() -> None:
    data = bytearray(golden("pack2"))
    data[-30] ^= 8
    with pytest.raises(FormatError):
        PackReader(bytes(data))
    assert len(PackReader(bytes(data), allow_truncated=True)) == 150
    spans = PackReader(golden("pack2"))._layout.spans
    data[spans[1][0] + 200] ^= 1  # and a damaged block between good ones
    pack = PackReader(bytes(data), allow_truncated=True)
    assert pack.check() == ["the checksum of block 1 (images 64 to 127) does not match"]
    assert pack.payload(149) == noise(len(pack.payload(149)), 149)
    # the last one says how many images it has: without it nobody knows
    data[spans[2][0] + 200] ^= 1
    assert len(PackReader(bytes(data), allow_truncated=True)) <= 64


def test_blocks_that_were_swapped_or_come_from_another_pack_are_found() -> None:
    whole, other = golden("pack2"), big_pack(seed=1)
    (a, b), (c, d), _ = PackReader(whole)._layout.spans
    head = SECTION_HEAD
    for data in (
        whole[: a - head] + whole[c - head : d] + whole[a - head : b] + whole[d:],
        whole[: a - head] + other[a - head : b] + whole[b:] if len(other) == len(whole) else b"",
    ):
        if data:
            pack = PackReader(data, allow_truncated=True)
            assert pack.problem or pack.check()


def test_a_model_in_the_pack() -> None:
    pack = PackReader(golden("pack2-model"))
    assert pack.has_model
    assert pack.model_file() == noise(300, 5)
    data = bytearray(golden("pack2-model"))
    data[120] ^= 1
    assert PackReader(bytes(data)).check() == [
        "the checksum of the model in the pack does not match"
    ]
    assert PackReader(bytes(data)).payload(0) == noise(5)
    assert PackReader(golden("pack2")).model_file() == b""


def test_a_damaged_block_costs_its_own_images_only() -> None:
    start = PackReader(golden("pack2"))._layout.spans[1][0]
    data = bytearray(golden("pack2"))
    data[start + 200] ^= 1
    pack = PackReader(bytes(data))
    for i in range(150):
        if 64 <= i < 128:
            with pytest.raises(
                FormatError, match=r"the checksum of block 1 \(images 64 to 127\) does not match"
            ):
                pack.payload(i)
        else:
            assert pack.payload(i) == noise(len(pack.payload(i)), i)
    assert pack.check() == ["the checksum of block 1 (images 64 to 127) does not match"]
    assert pack.index_of("Zürich/0000.png") == 0
    with pytest.raises(FormatError, match="block 1 is damaged"):
        pack.index_of("cat/0065.png")


# Other files
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"", "it is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "a WebP image"),
        (b"\0\0\0\x1cftypavif", "an AVIF or HEIF image"),
        (b"\0\0\0\x1cftypisom", "an MP4 file"),
        (b"GIF89a", "a GIF image"),
        (b"\x1f\x8b\x08", "gzip data"),
        (b"<html>\n", "text"),
        ("Grüße ".encode() * 20, "text"),
        (b"a" * 63 + "é".encode(), "text"),
        (bytes(100), "it begins with zeros"),
        (b"\xb5VX\x10", "it begins with b5 56 58 10"),
        (b"\x80\x02}q", "it begins with 80 02 7d 71"),
    ],
)
def test_other_files_are_called_by_their_names(start: bytes, what: str) -> None:
    for read in (vzc.kind, vzc.unpack, vzc.read_header, PackReader):
        with pytest.raises(FormatError, match=f"not a .vzc file: .*{what}"):
            read(start)


def test_packs_and_images_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(FormatError, match="is a pack of many images"):
        vzc.unpack(golden("pack"))
    with pytest.raises(FormatError, match="is one image, not a pack"):
        PackReader(golden("one"))


@pytest.mark.parametrize("version", [0, 2, 15])
def test_other_versions_are_unsupported(version: int) -> None:
    for name in ("one", "pack"):
        data = bytearray(golden(name))
        data[3] = data[3] & 15 | (version + (name == "pack" and version == 2)) << 4
        with pytest.raises(UnsupportedError, match=r"version \d+ "):
            read_all(bytes(data))


# Hostile files: everything below has checksums that match
# ----------------------------------------------------------------------


def forged(code: str, payload: bytes = b"") -> bytes:
    """An image file from the hexadecimal fields of its header after the magic, with one payload."""
    body = MAGIC + bytes.fromhex(code)
    checksum = short_checksum(b"", body)
    return body + checksum + payload + short_checksum(checksum, payload)


@pytest.mark.parametrize(
    ("code", "error", "match"),
    [
        ("12 00000000 20 20 00", FormatError, "size of 32x32"),
        ("12 00000000 00 20 00", FormatError, "size of 0x32"),
        ("12 00000000 20 00 00", FormatError, "size of 32x0"),
        ("12 00000000 8080808008 01 00", FormatError, "size of 2147483648x1"),
        (
            "12 00000000 ffffffff07 ffffffff07 00",
            TooLargeError,
            "more than the limit of 200,000,000",
        ),
        ("12 00000000 c1d1ee5f 01 00", TooLargeError, "201042113x1"),
        ("12 00000000 a000 20 00", FormatError, "shortest"),
        ("10 00000000 " + "01" * 64 + "00", FormatError, "more than 64 iterations"),
        ("10 00000000 8080808010", FormatError, "an iteration is too long"),
        ("10 00000000 feffffff0f", TruncatedError, "ends in iteration 1 of 1"),
        ("14 00000000 00 00", FormatError, "metadata block is damaged: it is empty"),
        ("14 00000000 02 0000 00", FormatError, "tags do not rise"),
        ("14 00000000 04 0200 0200 00", FormatError, "tags do not rise"),
        ("14 00000000 04 0600 0200 00", FormatError, "tags do not rise"),
        ("14 00000000 02 0201 00", FormatError, "longer than what is left"),
        ("14 00000000 02 0300 00", UnsupportedError, "number 3"),
        ("14 00000000 05 04032e2e2f 00", FormatError, "name '../' is refused"),
        ("14 00000000 03 0401ff 00", FormatError, "not UTF-8"),
        ("14 00000000 02 0400 00", FormatError, "it is empty"),
        ("14 00000000 ffffffffffffffff7f", TruncatedError, "within its header"),
        ("19 00000000 00", FormatError, "flags of the pack"),
    ],
)
def test_forged_headers_are_refused(code: str, error: type[FormatError], match: str) -> None:
    with pytest.raises(FormatError, match=match) as got:
        vzc.unpack(forged(code))
    assert type(got.value) is error


def test_unknown_even_tags_are_ignored() -> None:
    got = vzc.unpack(forged("14 00000000 03 0a0107 06", b"abc"))
    assert (got.header.metadata, got.chunks) == (((10, b"\7"),), (b"abc",))


def column(*numbers: int) -> bytes:
    return write_column(numbers)


def forged_pack(
    *, count: str = "01", classes: str = "00", directory: bytes | None = None, **fields: bytes
) -> bytes:
    """A pack of one block and one image of two bytes; any field may be given in other bytes."""
    block = {
        "lengths": column(2),
        "widths": column(32),
        "heights": column(32),
        "iterations": column(1),
        "grey": column(0),
        "labels": column(0),
        "heads": column(0),
        "tails": column(0),
        "middles": column(0),
        "names": b"",
        "payloads": b"ab",
    }
    assert fields.keys() <= block.keys()
    body = b"".join((block | fields).values())
    if directory is None:
        directory = column(len(body)) + zlib.crc32(body).to_bytes(4, "little")
    header = MAGIC + b"\x18" + MODEL
    header += short_checksum(b"", header)
    footer = bytes.fromhex(count + classes) + directory
    footer += len(footer).to_bytes(4, "little")
    return header + body + footer + zlib.crc32(header + footer).to_bytes(4, "little") + END_MARK


def test_the_forged_pack_itself_is_good() -> None:
    assert [e.payload for e in PackReader(forged_pack())] == [b"ab"]
    named = forged_pack(middles=column(3), names=b"a/b")
    assert PackReader(named).name(0) == "a/b"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"lengths": column(3)}, "its length is not that of what it holds"),
        ({"lengths": column(1)}, "its length is not that of what it holds"),
        ({"lengths": column(2**24)}, "out of its range"),
        ({"lengths": bytes.fromhex("ffffffffffffffff7f")}, "shortest"),
        ({"middles": bytes.fromhex("1f")}, "longer than what is left"),
        ({"lengths": bytes.fromhex("4100")}, "shortest"),
        ({"lengths": bytes.fromhex("4101")}, "shortest"),
        ({"widths": column(0)}, "out of its range"),
        ({"heights": column(2**24)}, "out of its range"),
        ({"iterations": column(0)}, "out of its range"),
        ({"iterations": column(65)}, "out of its range"),
        ({"grey": column(2)}, "out of its range"),
        ({"labels": column(1)}, "out of its range"),
        ({"heads": column(1)}, "shortest way"),
        ({"tails": column(1)}, "shortest way"),
        ({"middles": column(1025), "names": b"x" * 1025}, "out of its range"),
        ({"middles": column(1), "names": b"\xff"}, "not UTF-8"),
        *(
            ({"middles": column(len(name)), "names": name}, "is refused")
            for name in (
                b"..",
                b"a/../b",
                b"/etc/passwd",
                b"a\0b",
                b"a//b",
                b"a/",
                b".",
                b"C:x",
                b"..\\x",
                b"a\x1b[2Jb",
                b"\xc2\x85",
            )
        ),
    ],
)
def test_forged_blocks_are_refused(fields: dict[str, bytes], match: str) -> None:
    pack = PackReader(forged_pack(**fields))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=match):
        pack.entry(0)
    assert len(pack.check()) == 1


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"count": "8180808008"}, "too many images"),
        ({"count": "ffffffff07"}, "more images than the directory has room for"),
        ({"count": "41"}, "more images than the directory has room for"),
        ({"count": "00"}, "bytes follow the directory"),
        ({"classes": "818004"}, "too many"),
        ({"classes": "ffff03"}, "damaged"),
        ({"classes": "02 0161 0161"}, "same name"),
        ({"classes": "01 022e2e"}, "is refused"),
        ({"directory": column(18) + bytes(4)}, "do not fill the file"),
        ({"directory": column(2**40) + bytes(4)}, "longer than the file"),
        ({"directory": column(13) + bytes(5)}, "bytes follow the directory"),
        ({"directory": column(13) + bytes(3)}, "longer than what is left|more images"),
    ],
)
def test_forged_footers_are_refused(fields: dict[str, str], match: str) -> None:
    with pytest.raises(FormatError, match=match):
        PackReader(forged_pack(**fields))  # type: ignore[arg-type]


def forged_sections(
    *sections: tuple[int, bytes], count: int = 0, listed: bytes | None = None
) -> bytes:
    """A pack of version 2 of any sections, whose checksums match."""
    header = MAGIC + b"\x28" + MODEL
    header += short_checksum(b"", header)
    body = (
        pack_layout.directory(count, [(kind, len(content)) for kind, content in sections])
        if listed is None
        else listed
    )
    parts = [section(header, k, kind, content) for k, (kind, content) in enumerate(sections)]
    return b"".join(
        [
            header,
            *parts,
            section(header, len(sections), pack_layout.DIRECTORY, body),
            trailer(SECTION_HEAD + len(body)),
        ]
    )


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (forged_sections((9, b"x")), "unknown kind 9"),
        (forged_sections((pack_layout.MODEL, b"x"), (pack_layout.MODEL, b"x")), "a section twice"),
        (forged_sections((pack_layout.CLASSES, b"\x02\x01a\x01a")), "same name"),
        (forged_sections((pack_layout.CLASSES, b"\x01\x01ab")), "bytes follow the names"),
        (forged_sections(count=1), "1 images in 0 blocks"),
        (forged_sections((pack_layout.IMAGES, b"\x01"), count=0), "0 images in 1 blocks"),
        (forged_sections(count=2**31), "more images"),
        (forged_sections(listed=b"\x00\xff\xff\x03"), "more images or sections"),
        (forged_sections(listed=b"\x00\x00x"), "bytes follow it"),
        (
            forged_sections(
                (pack_layout.MODEL, b"xyz"),
                listed=pack_layout.directory(0, [(pack_layout.MODEL, 2)]),
            ),
            "do not fill the file",
        ),
        (
            forged_sections(
                (pack_layout.MODEL, b"xyz"),
                listed=pack_layout.directory(0, [(pack_layout.MODEL, 2**40)]),
            ),
            "do not fill the file",
        ),
        (golden("pack2-empty")[:-6] + b"\xff\xff\xff\xff" + END_MARK, "longer than the file"),
    ],
)
def test_forged_directories_are_refused(data: bytes, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        PackReader(data)


def test_a_block_of_another_number_of_images_than_the_directory_says() -> None:
    whole = golden("pack2-plain")
    header, ((_, b), (c, d)) = whole[:HEADER], PackReader(whole)._layout.spans
    bad = whole[:b] + section(header, 1, pack_layout.IMAGES, b"\x05" + whole[c + 1 : d]) + whole[d:]
    with pytest.raises(FormatError, match="another number of images"):
        PackReader(bad).payload(69)


def test_a_footer_that_is_longer_than_the_file_is_refused() -> None:
    data = golden("pack-empty")
    bad = data[:-10] + b"\xff\xff\xff\xff" + data[-6:]
    with pytest.raises(FormatError, match="longer than the file"):
        PackReader(bad)


def test_limits_of_pixels_are_kept() -> None:
    pack = PackReader(forged_pack(widths=column(20_000), heights=column(20_000)))
    for read in (pack.size, pack.entry):
        with pytest.raises(TooLargeError, match="20000x20000"):
            read(0)
    assert pack.payload(0) == b"ab"
    with pytest.raises(TooLargeError, match="768x512"):
        vzc.unpack(golden("large"), max_pixels=768 * 512 - 1)
    assert vzc.unpack(golden("large"), max_pixels=768 * 512).complete


def test_two_images_of_the_same_name_are_refused() -> None:
    """No writer of ours makes such a pack, so two of its names are made equal in the file."""
    out = PackWriter(model=MODEL)
    for i in range(70):
        out.add(b"x", 32, 32, name=f"n{i}")
    data = out.finish()
    header, ((_, b), (c, d)) = data[:HEADER], PackReader(data)._layout.spans
    changed = data[c:d].replace(b"n64", b"n10", 1)
    assert changed != data[c:d]
    bad = data[:b] + section(header, 1, pack_layout.IMAGES, changed) + data[d:]
    with pytest.raises(FormatError, match=r"images 1\d and 6\d have the same name"):
        PackReader(bad).index_of("n10")


# Writers
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "../a", "a/./b", "a\nb", "a\\b", "c:/x", "x" * 1025, "\udc80", "a//b"]
)
def test_names_that_cannot_stand_in_a_file_are_refused(name: str) -> None:
    out = PackWriter(model=MODEL)
    with pytest.raises(InputError, match="cannot name an image"):
        out.add(b"", 1, 1, name=name)
    assert len(out) == 0
    with pytest.raises(InputError):
        PackWriter(model=MODEL, classes=[name])


def test_what_a_pack_cannot_hold_is_refused() -> None:
    out = PackWriter(model=MODEL, classes=["a"])
    out.add(b"", 1, 1, name="n", label=0)
    with pytest.raises(InputError, match="two images are named 'n'"):
        out.add(b"", 1, 1, name="n")
    with pytest.raises(InputError, match="too large for a pack"):
        out.add(bytes(2**24), 1, 1)
    for bad in ({"width": 0}, {"height": 2**24}, {"iterations": 65}, {"label": 1}, {"label": -1}):
        with pytest.raises(ValueError, match=r"label|cannot hold"):
            out.add(b"", **({"width": 1, "height": 1} | bad))  # type: ignore[arg-type]
    assert len(PackReader(out.finish())) == 1
    for late in (out.finish, lambda: out.add(b"", 1, 1)):
        with pytest.raises(ValueError, match="finished"):
            late()
    with pytest.raises(ValueError, match="4 bytes"):
        PackWriter(model=b"abc")
    with pytest.raises(InputError, match="all different"):
        PackWriter(model=MODEL, classes=["a", "a"])


@pytest.mark.parametrize(
    "bad",
    [
        {"model": b"abc"},
        {"width": 0},
        {"height": 2**31},
        {"lengths": ()},
        {"lengths": (1,) * 65},
        {"lengths": (2**31,)},
        {"metadata": ((3, b""),)},
        {"metadata": ((4, b"a"), (2, b""))},
        {"metadata": ((4, b"../a"),)},
        {"metadata": ((4, b"\xff"),)},
    ],
)
def test_what_a_header_cannot_hold_is_refused(bad: dict[str, object]) -> None:
    good = vzc.Header(model=MODEL, width=1, height=1, lengths=(1,))
    with pytest.raises(ValueError, match=r"."):
        dataclasses.replace(good, **bad)  # type: ignore[arg-type]


# Fuzz
# --------------------------------------------------------------------------------------------------


def run_fuzz(seed: int, trials: int) -> Counter[str]:
    files = fuzz.corpus()
    contents = [fuzz.read(data) for data in files]
    dice = random.Random(seed)
    return Counter(fuzz.trial(dice, files, contents) for _ in range(trials))


def test_twenty_thousand_mutations_end_right_or_in_a_format_error() -> None:
    ends = run_fuzz(0, 20_000)
    assert ends.total() == 20_000
    assert ends["damaged: FormatError"] > 8_000
    assert ends["forged: read"] > 200
    assert ends["damaged: read in part"] > 100


def test_mutations_take_little_memory() -> None:
    tracemalloc.start()
    run_fuzz(1, 1_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000
