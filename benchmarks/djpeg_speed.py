"""Speed of djpeg on one core, beside Pillow's decode and optimised progressive encode of the same
photos; memory; cold starts.

    python benchmarks/djpeg_speed.py                        # everything
    python benchmarks/djpeg_speed.py --only speed --json speed.json

- speed: median milliseconds a photo, bytes to bytes in one process: Pillow; djpeg without a guide;
  with the depth map given (as an array); with depth by the bundled network, and that alone. Street
  photos, JPEG; Kodak photos, PNG.
- batch: photos a second of the whole command over a folder, with 1 and 2 worker processes: metrics
  and report included.
- memory: peak of the largest process while the command works on a photo of 24 megapixels: JPEG in
  4:2:0 and 4:4:4, PNG.
- start: wall time of `vizcomp --help` and of `vizcomp djpeg one.jpg -o out` in a new process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vizcomp.files.find import InputFile

PARTS = ("memory", "start", "speed", "batch")  # memory first: see _peak
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
DATA = Path(
    os.environ.get("VIZCOMP_SVT", Path(__file__).resolve().parents[2] / "shared" / "data" / "svt")
)
QUALITY = 50
REPEATS = 7

# Runs a command and prints the largest resident set of any process in it. A process of its own, and
# a small one: Linux counts the memory of the process that started a command as the command's.
_PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.returncode)
"""

# Photos of 24 megapixels out of a small one: enlarged, with the grain that a large photo has.
_ENLARGE = """
import sys
import numpy as np
from PIL import Image
image = np.asarray(
    Image.open(sys.argv[1]).convert("RGB").resize((6000, 4000), Image.Resampling.BICUBIC)
)
grain = np.random.default_rng(0).integers(-4, 5, image.shape[:2], dtype=np.int16)
image = np.clip(image + grain[:, :, None], 0, 255).astype(np.uint8)
photo = Image.fromarray(image)
photo.save(sys.argv[2] + ".jpg", quality=92)
photo.save(sys.argv[2] + "-444.jpg", quality=92, subsampling="4:4:4")
photo.save(sys.argv[2] + ".png", compress_level=1)
"""


def _vizcomp(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vizcomp", *arguments]


def _street(count: int) -> list[Path]:
    photos = sorted((DATA / "photos").glob("*.jpg"))
    if not photos:
        raise SystemExit(
            f"no photos in {DATA / 'photos'}; VIZCOMP_SVT names the folder that holds photos/ and"
            " depth/"
        )
    return photos[:: max(1, len(photos) // count)][:count]


def measure_memory(scratch: Path) -> dict[str, Any]:
    """Peak memory in megabytes of the whole command at 24 megapixels, report and gallery included,
    and of Pillow's decode."""
    big = scratch / "big"
    subprocess.run(
        [sys.executable, "-c", _ENLARGE, str(_street(1)[0]), str(big)], check=True, env=ENVIRONMENT
    )
    commands = {"import vizcomp.batch.djpeg": [sys.executable, "-c", "import vizcomp.batch.djpeg"]}
    for kind in (".jpg", "-444.jpg", ".png"):
        photo = f"{big}{kind}"
        commands[f"Pillow's decode, {kind}"] = [
            *(
                sys.executable,
                "-c",
                "import sys; from PIL import Image; Image.open(sys.argv[1]).load()",
                photo,
            )
        ]
        for guide in ("depth", "depth+text", "uniform"):
            output = str(scratch / f"memory{kind}-{guide}")
            commands[f"djpeg {guide}, {kind}"] = _vizcomp(
                "djpeg", photo, "-o", output, "-j", "1", "--quiet", "--guide", guide
            )
    return {"peak_mb": {name: _peak(command) for name, command in commands.items()}}


def _peak(command: Sequence[str]) -> float:
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PEAK, *command],
        check=True,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    kilobytes, code = map(int, done.stdout.split())
    if code:
        raise SystemExit(f"{' '.join(command)} failed with {code}:\n{done.stderr}")
    return kilobytes / 1024


def measure_start(scratch: Path) -> dict[str, float]:
    """Median wall seconds of commands in new processes."""
    one = str(_street(1)[0])
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "vizcomp --help": _vizcomp("--help"),
        "vizcomp djpeg one.jpg": _vizcomp(
            "djpeg", one, "-o", str(scratch / "start"), "--overwrite", "--quiet"
        ),
        "vizcomp djpeg one.jpg --guide uniform": _vizcomp(
            "djpeg",
            one,
            "-o",
            str(scratch / "start"),
            "--overwrite",
            "--quiet",
            "--guide",
            "uniform",
        ),
    }
    seconds = {}
    for name, command in commands.items():
        times = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
            times.append(time.perf_counter() - started)
        seconds[name] = statistics.median(times[1:])  # the first may read from disk
    return seconds


def measure_batch(scratch: Path, count: int) -> dict[str, Any]:
    """Photos a second of the whole command over street photos, by number of worker processes."""
    folder = scratch / "photos"
    folder.mkdir()
    for photo in _street(count):
        shutil.copy(photo, folder)
    rates: dict[str, Any] = {}
    for jobs in (1, 2):
        output = scratch / f"batch-{jobs}"
        started = time.perf_counter()
        subprocess.run(
            _vizcomp("djpeg", str(folder), "-o", str(output), "-j", str(jobs), "--quiet"),
            check=True,
            env=ENVIRONMENT,
            capture_output=True,
        )
        wall = time.perf_counter() - started
        totals = json.loads((output / "report.json").read_text(encoding="utf-8"))["totals"]
        rates[f"jobs {jobs}"] = {
            "photos_per_second": totals["files"] / totals["seconds"],
            "with_start_and_report": totals["files"] / wall,
        }
    return rates


def measure_speed(count: int) -> dict[str, Any]:
    """Median milliseconds a photo for each way, by set of photos; each photo's time is its best of
    seven."""
    import numpy as np
    from PIL import Image

    from vizcomp.depth.kinds import Depth
    from vizcomp.depth.sources import open_depth
    from vizcomp.djpeg.compress import compress
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.photos.photo import load_bytes

    network = open_depth("compact", None, threads=1)
    default = DjpegSettings(quality=QUALITY)
    depth_only = DjpegSettings(quality=QUALITY, guide="depth")
    uniform = DjpegSettings(quality=QUALITY, guide="uniform")

    def pillow(path: Path, data: bytes, given: Depth) -> None:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.save(
            io.BytesIO(),
            "JPEG",
            quality=QUALITY,
            subsampling="4:2:0",
            optimize=True,
            progressive=True,
        )

    def ours(
        settings: DjpegSettings, with_network: bool = False
    ) -> Callable[[Path, bytes, Depth], None]:
        def run(path: Path, data: bytes, given: Depth) -> None:
            photo = load_bytes(data, path.name)
            depth = network(photo, InputFile(path, Path(path.name))) if with_network else given
            compress(photo, settings, depth=depth)

        return run

    def network_alone(path: Path, data: bytes, given: Depth) -> None:
        network(load_bytes(data, path.name), InputFile(path, Path(path.name)))

    ways: dict[str, Callable[[Path, bytes, Depth], None]] = {
        "Pillow, optimised progressive": pillow,
        "djpeg uniform": ours(uniform),
        "djpeg depth, map given": ours(depth_only),
        "djpeg default, map given": ours(default),
        "djpeg default, network": ours(default, with_network=True),
        "decode and network alone": network_alone,
    }
    result: dict[str, Any] = {}
    for name, paths in {
        "street, 640x480 JPEG": _street(count),
        "Kodak, 768x512 PNG": sorted((DATA.parent / "kodak").glob("*.png")),
    }.items():
        times: dict[str, list[float]] = {way: [] for way in ways}
        for path in paths:
            data = path.read_bytes()
            place = DATA / "depth" / f"{path.stem}.png"
            if place.is_file():
                nearness = np.asarray(Image.open(place).convert("L"), dtype=np.float32) / 255
            else:  # the Kodak photos have no map: a ramp costs the same
                nearness = np.repeat(np.linspace(0, 1, 240, dtype=np.float32)[:, None], 320, axis=1)
            for way, function in ways.items():
                best = float("inf")
                for _ in range(REPEATS):
                    started = time.perf_counter()
                    function(path, data, Depth(nearness))
                    best = min(best, time.perf_counter() - started)
                times[way].append(1000 * best)
        if paths:
            medians = {way: statistics.median(values) for way, values in times.items()}
            base = medians["Pillow, optimised progressive"]
            result[name] = {
                way: {"ms": value, "times_pillow": value / base, "per_second": 1000 / value}
                for way, value in medians.items()
            }
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="repeatable; default: everything"
    )
    parser.add_argument("--photos", type=int, default=40, help="street photos (default 40)")
    parser.add_argument(
        "--batch-photos", type=int, default=200, help="street photos of the batch (default 200)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    wanted = options.only or PARTS
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vizcomp-speed-") as name:
        scratch = Path(name)
        if "memory" in wanted:
            figures["memory"] = measure_memory(scratch)
            print("peak memory at 24 megapixels")
            for key, value in figures["memory"]["peak_mb"].items():
                print(f"  {key:28} {value:5.0f} MB")
        if "start" in wanted:
            figures["start"] = measure_start(scratch)
            print(
                "cold start, seconds:",
                {key: round(value, 3) for key, value in figures["start"].items()},
            )
        if "speed" in wanted:
            figures["speed"] = measure_speed(options.photos)
            for photos, ways in figures["speed"].items():
                print(photos)
                for way, value in ways.items():
                    ratio = f"{value['times_pillow']:5.2f} x Pillow"
                    print(
                        f"  {way:32} {value['ms']:7.1f} ms  {ratio}  {value['per_second']:6.1f} a"
                        " second"
                    )
        if "batch" in wanted:
            figures["batch"] = measure_batch(scratch, options.batch_photos)
            for jobs, rates in figures["batch"].items():
                overall = rates["with_start_and_report"]
                print(
                    f"{jobs}: {rates['photos_per_second']:.1f} photos a second, {overall:.1f} with"
                    " start and report"
                )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
