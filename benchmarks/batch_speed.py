"""Throughput of `vizcomp djpeg` with one and two workers against Pillow alone, and what the journal
costs.

    python benchmarks/batch_speed.py --photos DIR --copies 4 --rounds 3

Pillow alone: open, decode, save as JPEG of the same quality, in one process that is already
running, nothing else. The commands are whole: start, depth network, report. Rounds are interleaved,
so that other work on the machine weighs on all alike; what counts are the ratios of one run of this
script. Processor time, of workers too, tells more than the clock where others work. Without
--photos the samples that come with the package.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from vizcomp.batch import log
from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import EXTENSIONS, find_inputs

NO_JOURNAL = "run_djpeg uniform, no journal"


def processor() -> float:
    """Seconds of processor time of this process and of those that it started and that have
    ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def copied(source: Path, folder: Path, copies: int) -> list[Path]:
    """Each photo `copies` times, under names of its own."""
    made = []
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in EXTENSIONS):
        for n in range(copies):
            made.append(folder / f"{len(made):05}-{n}{path.suffix}")
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, made[-1])
    return made


def pillow(photos: list[Path], output: Path) -> None:
    output.mkdir()
    for path in photos:
        out = io.BytesIO()
        Image.open(path).convert("RGB").save(out, "JPEG", quality=50)
        (output / f"{path.stem}.jpg").write_bytes(out.getvalue())


def command(source: Path, output: Path, *options: str) -> None:
    call = [
        sys.executable,
        "-m",
        "vizcomp",
        "djpeg",
        str(source),
        "-o",
        str(output),
        "--quiet",
        *options,
    ]
    subprocess.run(call, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def library(source: Path, output: Path, journal: Any) -> None:
    log.Journal, kept = journal or log.Journal, log.Journal
    try:
        found = find_inputs([str(source)])
        run_djpeg(
            found,
            output,
            DjpegSettings(guide="uniform"),
            BatchSettings(),
            options=RunOptions(jobs=1),
        )
    finally:
        log.Journal = kept


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    source = given.photos or Path(str(files("vizcomp") / "bundled" / "samples"))
    with tempfile.TemporaryDirectory(prefix="vizcomp-speed-") as name:
        folder = Path(name)
        os.environ["VIZCOMP_CACHE"] = str(folder / "cache")
        photos = copied(source, folder / "in", given.copies)
        pixels = sum(a * b for a, b in (Image.open(p).size for p in photos)) / 1e6
        todo = {
            "Pillow alone": lambda out: pillow(photos, out),
            "djpeg -j 1": lambda out: command(folder / "in", out, "-j", "1"),
            "djpeg -j 2": lambda out: command(folder / "in", out, "-j", "2"),
            "djpeg -j 1 uniform": lambda out: command(
                folder / "in", out, "-j", "1", "--guide", "uniform"
            ),
            "djpeg -j 2 uniform": lambda out: command(
                folder / "in", out, "-j", "2", "--guide", "uniform"
            ),
            "run_djpeg uniform": lambda out: library(folder / "in", out, None),
            NO_JOURNAL: lambda out: library(folder / "in", out, lambda *_: None),
        }
        taken: dict[str, list[float]] = {what: [] for what in todo}
        busy: dict[str, list[float]] = {what: [] for what in todo}
        for _ in range(given.rounds):
            for what, work in todo.items():
                started, before = time.perf_counter(), processor()
                work(folder / "out")
                taken[what].append(time.perf_counter() - started)
                busy[what].append(processor() - before)
                shutil.rmtree(folder / "out")
    print(
        f"{len(photos)} photos, {pixels:.1f} megapixels; medians of {given.rounds} interleaved"
        " rounds"
    )
    base, base_busy = (
        statistics.median(taken["Pillow alone"]),
        statistics.median(busy["Pillow alone"]),
    )
    for what, times in taken.items():
        middle, own = statistics.median(times), statistics.median(busy[what])
        print(
            f"{what:30} {len(photos) / middle:6.1f} photos/s {pixels / middle:5.1f} MP/s,"
            f" {middle / base:5.2f} of Pillow's time; processor {1000 * own / len(photos):6.1f} ms"
            f" a photo, {own / base_busy:5.2f} times Pillow's"
        )
    extra = statistics.median(
        a - b for a, b in zip(busy["run_djpeg uniform"], busy[NO_JOURNAL], strict=True)
    )
    share = extra / statistics.median(busy[NO_JOURNAL])
    print(f"journal: {1000 * extra / len(photos):.2f} ms of processor time a photo, {share:.1%}")


if __name__ == "__main__":
    main()
