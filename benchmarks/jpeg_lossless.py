"""What `djpeg --lossless` saves: the same coefficients as progressive JPEG and as JPEG XL.

Every file is checked: the JPEG has the source's coefficients, and the JPEG XL gives back that very
JPEG. Bytes are shares of the source's, metadata as `--metadata essential` keeps them; 95% intervals
of the mean share by a bootstrap over photos. Needs the extra `jxl`.

    python benchmarks/jpeg_lossless.py ../shared/data/coco/images ../shared/data/svt/photos \\
        --limit 30
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vizcomp.djpeg.lossless import rewritten
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.jpeg.read import read_jpeg
from vizcomp.photos.formats import transcoded
from vizcomp.photos.photo import load

DRAWS = 1000


def shares(path: Path) -> tuple[float, float]:
    """Bytes of the JPEG and of the JPEG XL over the source's."""
    photo = load(path)
    if photo.jpeg is None:
        raise SystemExit(f"{path} is no JPEG")
    height, width = photo.pixels.shape[:2]
    settings = DjpegSettings(lossless=True)
    data = rewritten(photo.jpeg, settings, max_pixels=height * width).data
    for ours, theirs in zip(
        read_jpeg(data, max_pixels=height * width).components,
        read_jpeg(photo.jpeg, max_pixels=height * width).components,
        strict=True,
    ):
        real = slice(ours.real_rows), slice(ours.real_cols)
        if not np.array_equal(ours.coefficients[real], theirs.coefficients[real]):
            raise SystemExit(f"{path}: a coefficient differs")
    whole = len(photo.jpeg)
    return len(data) / whole, len(transcoded(data, height, width)) / whole


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="+", type=Path, help="folders of JPEGs")
    parser.add_argument("--limit", type=int, default=30, help="photos of each folder")
    options = parser.parse_args()
    for folder in options.photos:
        files = list(find_inputs([str(folder)]))[: options.limit]
        found = np.array([shares(file.path) for file in files])
        drawn = np.random.default_rng(0).integers(len(found), size=(DRAWS, len(found)))
        low, high = np.quantile(found[drawn].mean(1), [0.025, 0.975], axis=0)
        for name, mean, least, most in zip(("jpeg", "jxl"), found.mean(0), low, high, strict=True):
            print(
                f"{folder}: {len(found)} photos, {name} {mean:.3f} ({least:.3f} to {most:.3f})"
                " of the source"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
