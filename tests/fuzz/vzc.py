"""Mutates .vzc files and reads them. `tests/vzc/test_files.py` runs it for 20,000 files; for
longer:

    python tests/fuzz/vzc.py --seconds 600

Two kinds of files. *Damaged* ones are mutated as they are: each must end in a `FormatError`, or in
exactly what a whole file holds. *Forged* ones are mutated inside and then given checksums that
match, as an attacker would: they may hold anything that the format allows, but nothing may be
raised except `FormatError`. Any other end, and any file that takes longer than two seconds, stops
the run.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

from vizcomp.errors import FormatError, InputError
from vizcomp.vzc import image as vzc
from vizcomp.vzc.fields import TAG_ALPHA, checksum_size, short_checksum, write_column
from vizcomp.vzc.pack_blocks import PackEntry
from vizcomp.vzc.pack_layout import DIRECTORY, HEADER, SECTION_HEAD, directory, section, trailer
from vizcomp.vzc.packs import PackReader

GOLDEN = Path(__file__).parents[1] / "golden"
MAX_PIXELS = 10_000_000


def corpus() -> list[bytes]:
    """The golden files, in a fixed order."""
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.vzc"))]
    if len(files) < 5:
        raise FileNotFoundError(f"golden files are missing in {GOLDEN}")
    return files


def mutate(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """One to eight changes: bytes, bits, telling values, deletions, repeats, moves, parts of other
    files, cuts."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        if not out:
            break
        # more often near the beginning
        at = dice.randrange(min(len(out), dice.choice((16, 64, len(out)))))
        if dice.random() < 0.3:
            at = len(out) - 1 - at  # or the end
        kind = dice.randrange(9)
        if kind == 0:
            out[at] = dice.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            out[at] = dice.choice((0, 1, 0x1F, 0x7F, 0x80, 0xFF))
        elif kind == 3:
            del out[at : at + dice.choice((1, 1, 2, 20, 300))]
        elif kind == 4:
            out[at:at] = out[at : at + dice.choice((1, 1, 2, 20, 300))]
        elif kind == 5:
            part = out[at : at + dice.randrange(1, 40)]
            del out[at : at + len(part)]
            to = dice.randrange(len(out) + 1)
            out[to:to] = part
        elif kind == 6:
            other = dice.choice(others)
            start = dice.randrange(len(other))
            part = bytearray(other[start : start + dice.choice((1, 2, 20, 300))])
            if dice.random() < 0.5:
                out[at : at + len(part)] = part
            else:
                out[at:at] = part
        elif kind == 7:
            out[at:at] = b"\xff" * dice.randrange(1, 10)
        elif dice.random() < 0.3:
            del out[at:]
    return bytes(out)


def read(data: bytes) -> list[object]:
    """Everything that can be read from a file: a list of (header, chunks) or of entries, None where
    a block is damaged."""
    if vzc.kind(data) == "image":
        vzc.read_header(data, max_pixels=MAX_PIXELS)
        got = vzc.unpack(data, max_pixels=MAX_PIXELS, allow_truncated=True)
        alpha = got.header.item(TAG_ALPHA)
        if alpha is not None:
            vzc.unpack_alpha(alpha, got.header.width, got.header.height)
        return [got.header, got.chunks, got.complete]
    pack = PackReader(data, max_pixels=MAX_PIXELS)
    entries: list[object] = [pack.model, pack.classes]
    good: PackEntry | None = None
    for i in range(min(len(pack), 1000)):
        try:
            entry = pack.entry(i)
            entries.append(entry)
            good = entry if entry.name else good
        except FormatError:
            entries.append(None)
    pack.check() if len(pack) < 10_000 else None
    if good is not None and good.name is not None:
        try:
            pack.index_of(good.name)
        except (FormatError, InputError):
            entries.append("two images have the same name")
    return entries


def is_right(got: list[object], wanted: list[object]) -> bool:
    """Whether what was read is what the whole file holds, or a part of it that says that it is a
    part."""
    if len(got) == 3 and isinstance(got[0], vzc.Header):
        chunks, complete = got[1], got[2]
        assert isinstance(chunks, tuple)
        if got[0] != wanted[0] or not isinstance(wanted[1], tuple):
            return False
        return (
            chunks == wanted[1] if complete else bool(chunks) and chunks == wanted[1][: len(chunks)]
        )
    return len(got) == len(wanted) and all(
        a is None or a == b for a, b in zip(got, wanted, strict=True)
    )


def forge(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """A mutated file whose checksums match."""
    if vzc.kind(data) == "image":
        header = vzc.read_header(data)
        end = header.header_bytes - checksum_size(header.header_bytes - 2)
        body = data[:4] + mutate(data[4:end], dice, others)
        if dice.random() < 0.5:
            body = body[:3] + bytes([0x10 | dice.randrange(8)]) + body[4:]
        checksum = short_checksum(b"", body)
        return body + checksum + data[header.header_bytes :]
    if data[3] >> 4 == 2:
        return forge_sections(data, dice, others)
    spans = PackReader(data)._layout.spans
    blocks = [data[a:b] for a, b in spans]
    if blocks and dice.random() < 0.7:
        k = dice.randrange(len(blocks))
        blocks[k] = (
            blocks[k][:1] + mutate(blocks[k][1:], dice, others)
            if dice.random() < 0.8
            else blocks[dice.randrange(len(blocks))]
        )
    length = int.from_bytes(data[-10:-6], "little")
    directory = len(blocks) * 4
    footer = data[-10 - length : -10]
    # size column and checksums are those of the forged blocks; what comes before them stays
    if blocks:
        old = len(write_column([b - a for a, b in spans]))
        checksums = b"".join(zlib.crc32(block).to_bytes(4, "little") for block in blocks)
        footer = (
            footer[: len(footer) - directory - old]
            + write_column([len(block) for block in blocks])
            + checksums
        )
    if dice.random() < 0.4:
        footer = mutate(footer, dice, others)
    body = footer + len(footer).to_bytes(4, "little")
    return (
        data[:10]
        + b"".join(blocks)
        + body
        + zlib.crc32(body, zlib.crc32(data[:10])).to_bytes(4, "little")
        + data[-2:]
    )


def forge_sections(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """A mutated pack of version 2 whose checksums match."""
    header, at, sections = data[:HEADER], HEADER, []
    while data[at + 2] != DIRECTORY:
        end = at + SECTION_HEAD + int.from_bytes(data[at + 3 : at + 7], "little")
        sections.append((data[at + 2], data[at + SECTION_HEAD : end]))
        at = end
    length = int.from_bytes(data[-6:-2], "little")
    listed = data[at + SECTION_HEAD : at + length]
    count = len(PackReader(data))
    if sections and dice.random() < 0.7:
        k = dice.randrange(len(sections))
        kind, body = sections[k]
        sections[k] = (
            kind if dice.random() < 0.9 else dice.randrange(6),
            mutate(body, dice, others),
        )
        listed = directory(count, [(kind, len(body)) for kind, body in sections])
    if dice.random() < 0.4:
        listed = mutate(listed, dice, others)
    parts = [section(header, k, kind, body) for k, (kind, body) in enumerate(sections)]
    return b"".join(
        [
            header,
            *parts,
            section(header, len(sections), DIRECTORY, listed),
            trailer(SECTION_HEAD + len(listed)),
        ]
    )


def trial(dice: random.Random, files: list[bytes], contents: list[list[object]]) -> str:
    """One file, made and read; returns how it ended. Raises AssertionError where it ended
    wrongly."""
    number = dice.randrange(len(files))
    if dice.random() < 0.25:
        data = forge(files[number], dice, files)
        forged = True
    else:
        data = mutate(files[number], dice, files)
        forged = False
    start = time.process_time()
    try:
        got = read(data)
    except FormatError as exc:
        end = f"{'forged' if forged else 'damaged'}: {type(exc).__name__}"
        if len(exc.message.splitlines()) != 1:
            raise AssertionError(f"not one line: {exc.message!r}") from exc
    else:
        end = (
            "forged: read"
            if forged
            else "damaged: read in part"
            if data not in files
            else "unchanged: read"
        )
        if not forged and not any(is_right(got, wanted) for wanted in contents):
            raise AssertionError(f"a wrong result from {data.hex()}")
    if time.process_time() - start > 2:
        raise AssertionError(f"more than 2 s for {data.hex()}")
    return end


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files = corpus()
    contents = [read(data) for data in files]
    dice = random.Random(given.seed)
    ends: Counter[str] = Counter()
    last = time.monotonic() + given.seconds
    while time.monotonic() < last:
        ends[trial(dice, files, contents)] += 1
    sys.stdout.write(f"{ends.total()} files: {dict(ends.most_common())}\n")


if __name__ == "__main__":
    main()
