"""Maps of real photos by a depth network's own answers, to go on learning from: self-consistency.

    python recipes/depth_own.py --photos ../shared/data/bsds --model run-1/model.onnx \\
        --out own [--least 0.3]

The answers for a photo, its mirror image, four crops of it, a lighter and a darker copy are put on
one scale and averaged: what the network says of a place whatever the frame and the light (Tarvainen
and Valpola, "Mean teachers are better role models", 2017, average the weights to the same end).
Photos of which it is not sure are left out: those whose mean confidence is below `--least`. Writes
`own/photos/NAME.jpg` and `own/depth/NAME.png`, bright = near, as `vizcomp train --kind depth` reads
them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.depth.compact import CompactDepth
from vizcomp.metrics import rank_scale

Array = npt.NDArray[np.float32]
CROPS = ((0.0, 0.0), (0.25, 0.0), (0.0, 0.25), (0.25, 0.25))  # of three quarters of each side


def sized(array: Array, height: int, width: int) -> Array:
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


def own_map(network: CompactDepth, photo: npt.NDArray[np.uint8]) -> tuple[Array, float]:
    """The averaged map, float32 (h, w) on the rank scale, and the mean confidence."""
    first = network(photo)
    h, w = first.depth.shape
    total, weight = first.depth.copy(), np.ones((h, w), np.float32)
    total += network(np.ascontiguousarray(photo[:, ::-1])).depth[:, ::-1]
    weight += 1
    for gamma in (0.7, 1.4):
        total += network((255 * (photo / 255) ** gamma).astype(np.uint8)).depth
        weight += 1
    tall, wide = photo.shape[:2]
    for y, x in CROPS:
        crop = photo[int(y * tall) : int((y + 0.75) * tall), int(x * wide) : int((x + 0.75) * wide)]
        rows, columns = (
            slice(int(y * h), int((y + 0.75) * h)),
            slice(int(x * w), int((x + 0.75) * w)),
        )
        found = sized(
            network(np.ascontiguousarray(crop)).depth,
            rows.stop - rows.start,
            columns.stop - columns.start,
        )
        there = first.depth[rows, columns]  # the crop's ranks on the whole photo's scale
        slope = float(np.cov(found.ravel(), there.ravel())[0, 1] / max(float(found.var()), 1e-6))
        total[rows, columns] += there.mean() + max(slope, 0.0) * (found - found.mean())
        weight[rows, columns] += 1
    return rank_scale((total / weight).astype(np.float32)), float(first.confidence.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="model.onnx of a run of vizcomp train --kind depth",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--least", type=float, default=0.3, help="mean confidence of the photos that are used"
    )
    arguments = parser.parse_args()
    network = CompactDepth(arguments.model)
    for part in ("photos", "depth"):
        (arguments.out / part).mkdir(parents=True, exist_ok=True)
    used = 0
    photos = sorted(p for p in arguments.photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    for path in photos:
        with Image.open(path) as file:
            found, sure = own_map(network, np.asarray(file.convert("RGB")))
        if sure < arguments.least:
            continue
        used += 1
        Image.fromarray((found * 65535).astype(np.uint16)).save(
            arguments.out / "depth" / f"{path.stem}.png"
        )
        shutil.copy(path, arguments.out / "photos" / f"{path.stem}.jpg")
    print(f"{used} of {len(photos)} photos in {arguments.out}")


if __name__ == "__main__":
    main()
