"""The engine `ray` against `local`: the same photos, the same settings, one after the other on this
machine.

    OMP_NUM_THREADS=1 python benchmarks/ray_overhead.py --photos 1000 --jobs 2

Prints the time of each, with starting and stopping and without, the ratio, photos/s for each core,
and whether the outputs are equal byte for byte. Photos are crops of scikit-image's free pictures,
or of --data, saved as JPEG at quality 92.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs


def make_photos(folder: Path, count: int, side: tuple[int, int], data: str | None) -> None:
    """Crops at random places, so that no two are the same."""
    if data:
        sources = [
            np.asarray(Image.open(p).convert("RGB")) for p in sorted(Path(data).rglob("*.jpg"))[:40]
        ]
    else:
        from skimage import data as free

        sources = [
            np.tile(np.asarray(p), (3, 3, 1))
            for p in (free.astronaut(), free.coffee(), free.chelsea(), free.rocket())
        ]
    rng = np.random.default_rng(0)
    width, height = side
    for i in range(count):
        source = sources[i % len(sources)]
        source = np.tile(source, (1 + height // source.shape[0], 1 + width // source.shape[1], 1))
        top, left = (
            rng.integers(0, source.shape[0] - height + 1),
            rng.integers(0, source.shape[1] - width + 1),
        )
        Image.fromarray(source[top : top + height, left : left + width]).save(
            folder / f"{i:05}.jpg", quality=92
        )


def run(engine: str, source: Path, output: Path, jobs: int) -> dict[str, float]:
    """One run: seconds in all, and from the first record to the last with the photos done in that
    time."""
    stamps: list[float] = []
    started = time.perf_counter()
    files = find_inputs([str(source)])
    run_djpeg(
        files,
        output,
        DjpegSettings(),
        BatchSettings(),
        options=RunOptions(
            jobs=jobs, engine=engine, on_record=lambda record: stamps.append(time.perf_counter())
        ),
    )
    whole = time.perf_counter() - started
    skip = len(stamps) // 10  # the first tenth is the start
    steady = (len(stamps) - skip - 1) / (stamps[-1] - stamps[skip])
    return {
        "seconds": whole,
        "photos_per_second": len(stamps) / whole,
        "steady_photos_per_second": steady,
    }


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--data")
    parser.add_argument("--address", default="", help="of a cluster; else one on this machine")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json")
    chosen = parser.parse_args()
    width, height = (int(n) for n in chosen.size.split("x"))
    found: dict[str, object] = {
        "photos": chosen.photos,
        "jobs": chosen.jobs,
        "size": chosen.size,
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "in"
        source.mkdir()
        make_photos(source, chosen.photos, (width, height), chosen.data)
        times: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
        for number in range(chosen.rounds):
            for name in ("local", "ray"):
                engine = f"ray:{chosen.address}" if name == "ray" and chosen.address else name
                times[name].append(
                    run(engine, source, Path(temporary) / f"{name}{number}", chosen.jobs)
                )
                print(name, {k: round(v, 2) for k, v in times[name][-1].items()}, file=sys.stderr)
        for name, each in times.items():
            best = min(each, key=lambda one: one["seconds"])
            found[name] = {
                **best,
                "steady_per_core": best["steady_photos_per_second"] / chosen.jobs,
            }
        ends = [
            {p.name: p.read_bytes() for p in (Path(temporary) / f"{name}0").glob("*.jpg")}
            for name in times
        ]
        found["equal"] = ends[0] == ends[1]
    local, ray = found["local"], found["ray"]
    assert isinstance(local, dict)
    assert isinstance(ray, dict)
    found["ratio"] = ray["seconds"] / local["seconds"]
    found["steady_ratio"] = local["steady_photos_per_second"] / ray["steady_photos_per_second"]
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json:
        Path(chosen.json).write_text(text)


if __name__ == "__main__":
    main()
