"""What `--resume` takes where nothing is to be done, as a share of the run that did it.

    python benchmarks/resume_idle.py --files 20000 --jobs 2

Photos of 64x48 and no networks: the less a photo takes, the more its bookkeeping shows. Seconds by
the clock, and processor seconds of all processes. Quiet machines only.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def make(folder: Path, count: int) -> None:
    """Photos of 64x48, no two alike."""
    noise = np.random.default_rng(0)
    small = [noise.integers(0, 256, (6, 8, 3)).astype(np.uint8) for _ in range(50)]
    folder.mkdir()
    for number in range(count):
        image = Image.fromarray(small[number % 50]).resize((64, 48), Image.Resampling.BICUBIC)
        image.putpixel((number % 64, number // 64 % 48), (number % 256, 0, 255))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
        (folder / f"{number:06}.jpg").write_bytes(out.getvalue())


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of processors."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ended - began, spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vizcomp-resume-") as folder:
        os.environ["VIZCOMP_CACHE"] = str(Path(folder) / "cache")
        source, output = Path(folder) / "in", Path(folder) / "out"
        make(source, given.files)
        command = [sys.executable, "-m", "vizcomp", "djpeg", str(source), "-o", str(output)]
        command += ["--guide", "uniform", "--quiet", "-j", str(given.jobs)]
        run, again = measure(command), measure([*command, "--resume"])
    for name, first, second in zip(("clock", "processors"), run, again, strict=True):
        share = second / first
        print(f"{given.files} files, {name}: {first:.1f} s, resumed {second:.1f} s: {share:.3f}")


if __name__ == "__main__":
    main()
