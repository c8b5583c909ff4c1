"""Peak memory of a batch of many tiny files: of the process that hands out the work, and of its
workers.

    python benchmarks/batch_memory.py --files 1000 20000 --jobs 2

Linux: VmHWM of each process, read until it ends. The photos are made in a temporary folder and are
of 32x32 pixels, so that what grows is the batch's own: names, records, journal, report.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def make(folder: Path, count: int) -> None:
    """Photos of 32x32, 1,000 in a folder."""
    kinds = []
    for seed in range(16):
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)).save(
            out, "JPEG", quality=90
        )
        kinds.append(out.getvalue())
    for i in range(count):
        path = folder / f"{i // 1000:04}" / f"{i:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kinds[i % len(kinds)])


def high_water(process: int) -> int:
    """Largest resident set of a process so far, in bytes; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def children(process: int) -> list[int]:
    try:
        return [
            int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except OSError:
        return []


def measure(source: Path, output: Path, jobs: int, guide: str) -> dict[str, float]:
    """One run of djpeg: peaks in MB, seconds, bytes of its reports."""
    options = ["--guide", guide, "-j", str(jobs), "--quiet"]
    command = [sys.executable, "-m", "vizcomp", "djpeg", str(source), "-o", str(output), *options]
    started = time.monotonic()
    running = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    parent, worker = 0, 0
    while running.poll() is None:
        parent = max(parent, high_water(running.pid))
        worker = max([worker, *(high_water(child) for child in children(running.pid))])
        time.sleep(0.05)
    if running.returncode:
        raise SystemExit(f"the run ended with {running.returncode}")
    seconds = time.monotonic() - started
    sizes = {
        f"{kind}_mb": (output / f"report.{kind}").stat().st_size / 1e6
        for kind in ("html", "json", "csv")
    }
    return {"parent_mb": parent / 1e6, "worker_mb": worker / 1e6, "seconds": seconds, **sizes}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--guide", default="uniform")
    given = parser.parse_args()
    for count in given.files:
        with tempfile.TemporaryDirectory(prefix="vizcomp-memory-") as folder:
            os.environ["VIZCOMP_CACHE"] = str(Path(folder) / "cache")
            make(Path(folder) / "in", count)
            found = measure(Path(folder) / "in", Path(folder) / "out", given.jobs, given.guide)
        print(
            f"{count} files: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
