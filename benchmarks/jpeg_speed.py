"""Speed and size of `vizcomp.jpeg` beside Pillow, jpegtran and jpeglib, in one run on one thread.

    OMP_NUM_THREADS=1 python benchmarks/jpeg_speed.py [PHOTO.jpg ...]

Without photos: skimage's astronaut and coffee, at 640x480. Milliseconds are the least of several
repetitions.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vizcomp.jpeg.image import Component, JpegImage
from vizcomp.jpeg.quantise import quantise
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.transform import consume, from_pixels
from vizcomp.jpeg.write import write_jpeg


def least(function: Callable[[], object], repetitions: int = 15) -> float:
    """Milliseconds of the fastest run."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def row(name: str, *cells: str) -> None:
    print(f"{name:44}", *(f"{cell:>16}" for cell in cells))


def measure(name: str, data: bytes) -> None:
    image = read_jpeg(data)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    real, _ = consume(read_jpeg(data))
    print(
        f"\n{name}: {image.width} x {image.height}, {len(data)} bytes,"
        f" {[(c.h, c.v) for c in image.components]}"
    )
    row("", "ms", "bytes")
    row(
        "Pillow: decode to pixels",
        f"{least(lambda: Image.open(io.BytesIO(data)).convert('RGB')):.2f}",
    )
    row("ours: read coefficients", f"{least(lambda: read_jpeg(data)):.2f}")
    row("ours: read, chroma to 4:2:0", f"{least(lambda: consume(read_jpeg(data))):.2f}")
    row("ours: DCT of the pixels, 4:2:0", f"{least(lambda: from_pixels(pixels)):.2f}")
    for step in (24, 36):
        table = np.full(64, step, np.uint16)

        # bound now: the loop goes on
        def quantised(weight: float, table: np.ndarray = table) -> JpegImage:
            parts = [
                Component(
                    c.id, c.h, c.v, 0, quantise(c.values, table, unit=c.unit, rate_weight=weight)
                )
                for c in real.components
            ]
            return JpegImage(image.width, image.height, parts, {0: table}, image.colour)

        plain, decided = quantised(0), quantised(0.1)
        row(f"step {step}: quantise, plain", f"{least(lambda q=quantised: q(0)):.2f}")
        row(
            f"step {step}: quantise, rate-distortion 0.1",
            f"{least(lambda q=quantised: q(0.1)):.2f}",
        )
        for label, picture in (("plain", plain), ("rate-distortion", decided)):
            for progressive in (True, False):
                kind = "progressive" if progressive else "sequential"
                out = write_jpeg(picture, progressive=progressive)
                taken = least(lambda p=picture, k=progressive: write_jpeg(p, progressive=k))
                row(f"step {step}: ours, {label}, {kind}", f"{taken:.2f}", str(len(out)))
        steps = [[step] * 64] * 2

        def save(steps: list[list[int]] = steps) -> bytes:
            out = io.BytesIO()
            Image.fromarray(pixels).save(
                out, "JPEG", qtables=steps, subsampling=2, optimize=True, progressive=True
            )
            return out.getvalue()

        row(f"step {step}: Pillow from pixels, progressive", f"{least(save):.2f}", str(len(save())))
        others(plain, step)


def others(picture: JpegImage, step: int) -> None:
    """jpegtran and jpeglib on the same coefficients."""
    data = write_jpeg(dataclasses.replace(picture, segments=[]), progressive=False)
    if shutil.which("jpegtran"):
        out = subprocess.run(
            ["jpegtran", "-copy", "none", "-optimize", "-progressive"],
            input=data,
            capture_output=True,
            check=True,
        ).stdout
        row(f"step {step}: jpegtran, same coefficients", "", str(len(out)))
    try:
        import jpeglib
    except ImportError:
        return
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        path, target = Path(folder) / "a.jpg", Path(folder) / "b.jpg"
        path.write_bytes(data)
        loaded = jpeglib.read_dct(str(path))
        row(
            f"step {step}: jpeglib read", f"{least(lambda: jpeglib.read_dct(str(path)).load()):.2f}"
        )
        taken = least(lambda: loaded.write_dct(str(target)))
        row(
            f"step {step}: jpeglib write, same coefficients",
            f"{taken:.2f}",
            str(target.stat().st_size),
        )


def main() -> None:
    photos = [(path, Path(path).read_bytes()) for path in sys.argv[1:]]
    if not photos:
        import skimage.data

        for name in ("astronaut", "coffee"):
            out = io.BytesIO()
            Image.fromarray(getattr(skimage.data, name)()).resize((640, 480)).save(
                out, "JPEG", quality=90
            )
            photos.append((name, out.getvalue()))
    for name, data in photos:
        measure(name, data)


if __name__ == "__main__":
    main()
