"""Progressive or baseline: bytes, and the time to decode, of the same coefficients.

Each photo is made by `djpeg --guide uniform` with both kinds of scans and decoded by Pillow and
OpenCV, one after the other, several times; the least of each counts. Ratios are baseline over
progressive.

    python benchmarks/jpeg_scans.py ../shared/data/kodak ../shared/data/coco/images --limit 40
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.photos.photo import load

TURNS = 9


def by_pillow(data: bytes) -> None:
    Image.open(io.BytesIO(data)).convert("RGB").load()


def by_opencv(data: bytes) -> None:
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def least(decode: Callable[[bytes], None], files: tuple[bytes, bytes]) -> tuple[float, float]:
    """Seconds of both files, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for data, mine in zip(files, times, strict=True):
            started = time.perf_counter()
            decode(data)
            mine.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=40, help="photos of each folder")
    parser.add_argument("--quality", type=float, default=50)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    sizes, ratios = np.zeros(2), {"pillow": [], "opencv": []}
    for folder in options.photos:
        for file in list(find_inputs([str(folder)]))[: options.limit]:
            photo = load(file.path)
            made = [
                compress(
                    photo, DjpegSettings(quality=options.quality, guide="uniform", scans=scans)
                ).data  # type: ignore[arg-type]
                for scans in ("progressive", "baseline")
            ]
            sizes += [len(data) for data in made]
            for name, decode in (("pillow", by_pillow), ("opencv", by_opencv)):
                progressive, baseline = least(decode, (made[0], made[1]))
                ratios[name].append(baseline / progressive)
    print(f"{len(ratios['pillow'])} photos, bytes {sizes[1] / sizes[0]:.4f}")
    for name, some in ratios.items():
        low, median, high = np.quantile(some, [0.25, 0.5, 0.75])
        print(
            f"{name}: time to decode {median:.3f} (median; half lie from {low:.3f} to {high:.3f})"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
