"""Mutates JPEG files and reads, rewrites and requantises what still reads. Run it against a build
with sanitizers:

    CFLAGS="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
        python setup.py build_ext --build-lib /tmp/fuzz-lib --build-temp /tmp/fuzz-temp
    cp -rn src/vizcomp /tmp/fuzz-lib/
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
        ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=/tmp/fuzz-lib python tests/fuzz/jpeg.py --seconds 120

Any error but `FormatError` and its kind, and any file that takes longer than two seconds, ends the
run.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from vizcomp.errors import FormatError
from vizcomp.jpeg.quantise import quantise
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.transform import consume
from vizcomp.jpeg.write import write_jpeg

TABLE = np.full(64, 24)


def seeds() -> list[bytes]:
    """Small files of every kind that the reader knows."""
    noise = np.random.default_rng(0)
    picture = noise.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    files = []
    for mode in ("L", "RGB", "CMYK"):
        for size in ((40, 24), (17, 33), (1, 1)):
            image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC).convert(mode)
            for progressive in (False, True):
                for restart in (0, 1):
                    for subsampling in (0, 2):
                        out = io.BytesIO()
                        extra = {"restart_marker_blocks": restart} if restart else {}
                        image.save(
                            out,
                            "JPEG",
                            quality=70,
                            progressive=progressive,
                            subsampling=subsampling,
                            **extra,
                        )
                        files.append(out.getvalue())
                        read = read_jpeg(files[-1])
                        files.append(write_jpeg(read, progressive=progressive))
    return files


def mutate(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """One to eight changes: bytes, bits, marker-like values, cuts, repeats, parts of other
    files."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        at = dice.randrange(len(out))
        kind = dice.randrange(7)
        if kind == 0:
            out[at] = dice.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            out[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, 0xC4, 0xDA, 0xD0))
        elif kind == 3:
            del out[at : at + dice.randrange(1, 20)]
        elif kind == 4:
            out[at:at] = out[at : at + dice.randrange(1, 60)]
        elif kind == 5:
            other = dice.choice(others)
            start = dice.randrange(len(other))
            out[at:at] = other[start : start + dice.randrange(1, 200)]
        elif dice.random() < 0.2:
            del out[at:]
        if not out:
            return b"\xff"
    return bytes(out)


def end_of(data: bytes, dice: random.Random) -> str:
    """Reads, writes and requantises one file; how it ended."""
    try:
        image = read_jpeg(data, max_pixels=1_000_000)
        end = "read"
        try:
            out = write_jpeg(image, progressive=dice.random() < 0.7)
            back = read_jpeg(out)
            for a, b in zip(image.components, back.components, strict=True):
                rows, cols = a.real_rows, a.real_cols
                if not np.array_equal(a.coefficients[:rows, :cols], b.coefficients[:rows, :cols]):
                    raise AssertionError("a rewritten file differs")
        except FormatError as exc:
            end = "read, not written: " + exc.message
        real, _ = consume(image)
        for c in real.components:
            quantise(
                c.values, TABLE, unit=c.unit, dead_zone=dice.random(), rate_weight=dice.random()
            )
    except FormatError as exc:
        return type(exc).__name__
    return end


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("/tmp/fuzz-current.jpg"),
        help="where the current input is kept",
    )
    options = parser.parse_args()
    dice = random.Random(options.seed)
    corpus = seeds()
    seen: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    slowest = 0.0
    while time.monotonic() < end:
        data = mutate(dice.choice(corpus), dice, corpus)
        options.keep.write_bytes(data)
        start = time.monotonic()
        seen[end_of(data, dice)] += 1
        taken = time.monotonic() - start
        slowest = max(slowest, taken)
        if taken > 2:
            raise AssertionError(f"{taken:.1f} s for one file")
    print(seen.total(), "files,", dict(seen), f"slowest {slowest:.3f} s")


if __name__ == "__main__":
    main()
