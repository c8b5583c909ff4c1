"""What the margins of `djpeg --verify` cost, and what they buy.

A classifier's photos are made with none of the margins, with each, and with both. Then each result
is read from disk, and source and result are resized by code of this file (OpenCV's filters) to the
model's own size, as a user's own code might: on how many photos is the best class the same?

    python benchmarks/verify_margins.py --model ../shared/models/efficientnet_lite0.onnx \\
        --photos ../shared/data/imagenet --limit 60
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import load
from vizcomp.vision import verify
from vizcomp.vision.answers import Classes
from vizcomp.vision.systems import open_system

FILTERS = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "lanczos": cv2.INTER_LANCZOS4}
# As ../shared/models/README.md says of efficientnet_lite0.
READING = {"mean": [0.498] * 3, "std": [0.502] * 3}
SIDE, CROP = 224, 0.875


def view(path: Path, resize: int) -> np.ndarray:
    """The middle of a photo, uint8 (SIDE, SIDE, 3), by one of OpenCV's filters."""
    photo = load(path)
    pixels = upright(photo.pixels, photo.orientation)
    pixels = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
    side = round(CROP * min(pixels.shape[:2]))
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return cv2.resize(np.ascontiguousarray(pixels[top : top + side, left : left + side]), (SIDE, SIDE), interpolation=resize)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--guide", default="uniform")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(shutil.copy(options.model, folder))
        model.with_suffix(".json").write_text(json.dumps(READING))
        system = open_system(str(model))
        files = list(find_inputs([str(options.photos)]))
        files = files[:: max(1, len(files) // options.limit)][: options.limit]
        lead = verify.LEAD
        for name, robust, share in (
            ("neither", False, -1.0),
            ("lead", False, lead),
            ("filters", True, -1.0),
            ("both", True, lead),
        ):
            verify.LEAD = share
            output = Path(folder) / name
            settings = BatchSettings(verify=(str(model),), robust=robust)
            run = run_djpeg(files, output, DjpegSettings(guide=options.guide), settings, RunOptions(jobs=1))
            done = [r for r in run.records if r.output is not None]
            holds = dict.fromkeys(FILTERS, 0)
            for record in done:
                for kind, resize in FILTERS.items():
                    pair = [view(Path(str(path)), resize) for path in (record.input, record.output)]
                    before, after = system.answers(pair)
                    assert isinstance(before, Classes)
                    assert isinstance(after, Classes)
                    holds[kind] += before.best == after.best
            size, trials = (np.mean([getattr(r, field) for r in done]) for field in ("output_bytes", "verify_trials"))
            held = ", ".join(f"{kind} {count}" for kind, count in holds.items())
            print(
                f"{name}: {size:.0f} bytes, {trials:.2f} trials, {run.totals.verified} of {len(done)} verified; {held}",
                flush=True,
            )


if __name__ == "__main__":
    main()
