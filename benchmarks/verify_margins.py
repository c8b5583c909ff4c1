"""What the margins of `djpeg --verify` cost, and what they buy.

Photos are made with none of the margins, with each, and with all: the lead of a class or the band
of boxes, and the resize filters of other programs. Then each result is read from disk, and source
and result are resized by code of this file (OpenCV's filters) to the model's own size, as a user's
own code might: on how many photos is the answer the same? Of boxes strictly, and with those within
the band left out.

    python benchmarks/verify_margins.py \\
        --model ../shared/models/efficientnet_lite0.onnx:mean=0.498,std=0.502 \\
        --photos ../shared/data/imagenet --limit 60
    python benchmarks/verify_margins.py --model ../shared/models/yolox_nano.onnx \\
        --photos ../shared/data/coco/images --limit 60
"""

from __future__ import annotations

import argparse
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
from vizcomp.vision.answers import Answer, Classes, compare
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

FILTERS = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
    "bicubic": cv2.INTER_CUBIC,
}


def view(path: Path, resize: int, system: ModelSystem, side: int) -> np.ndarray:
    """A photo at the input's size by one of OpenCV's filters, uint8 (side, side, 3), so that
    vizcomp resizes nothing."""
    photo = load(path)
    pixels = upright(photo.pixels, photo.orientation)
    pixels = np.ascontiguousarray(
        np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
    )
    if system.kind == "classes":  # the middle, as published for the models of ../shared
        seen = round(0.875 * min(pixels.shape[:2]))
        top, left = (pixels.shape[0] - seen) // 2, (pixels.shape[1] - seen) // 2
        return cv2.resize(
            pixels[top : top + seen, left : left + seen], (side, side), interpolation=resize
        )
    scale = side / max(pixels.shape[:2])  # a letterbox in the corner, as YOLOX has it
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    made = np.full((side, side, 3), 114, np.uint8)
    made[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=resize)
    return made


def holds(before: Answer, after: Answer) -> tuple[bool, bool]:
    """Whether an answer is the same: strictly, and with boxes in doubt left out."""
    if isinstance(before, Classes) and isinstance(after, Classes):
        return before.best == after.best, before.best == after.best
    band = verify.compare_views([before], [after]).same
    return compare(before, after).same, band


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--guide", default="uniform")
    parser.add_argument("--rows", default="neither,margin,filters,both")
    options = parser.parse_args()
    system = open_system(options.model)
    assert isinstance(system, ModelSystem)
    print(reading_of(system))
    side = int(reading_of(system).split("input ")[1].split("x")[0])
    files = list(find_inputs([str(options.photos)]))
    files = files[:: max(1, len(files) // options.limit)][: options.limit]
    lead, band = verify.LEAD, verify.BAND
    with tempfile.TemporaryDirectory() as folder:
        for name in options.rows.split(","):
            margin = name in ("margin", "both")
            verify.LEAD, verify.BAND = (lead, band) if margin else (-1.0, 0.0)
            settings = BatchSettings(verify=(options.model,), robust=name in ("filters", "both"))
            run = run_djpeg(
                files,
                Path(folder) / name,
                DjpegSettings(guide=options.guide),
                settings,
                RunOptions(jobs=1),
            )
            verify.LEAD, verify.BAND = lead, band
            done = [
                r
                for r in run.records
                if r.output is not None and r.verify_state in ("verified", "not_reached")
            ]
            same = {kind: np.zeros(2, int) for kind in FILTERS}
            for record in done:
                for kind, resize in FILTERS.items():
                    paths = [Path(str(path)) for path in (record.input, record.output)]
                    before, after = system.answers(
                        [view(path, resize, system, side) for path in paths]
                    )
                    same[kind] += holds(before, after)
            size, trials = (
                np.mean([getattr(r, field) for r in done])
                for field in ("output_bytes", "verify_trials")
            )
            held = ", ".join(f"{kind} {strict} ({loose})" for kind, (strict, loose) in same.items())
            rival = run.totals.rival or {}
            print(
                f"{name}: {size:.0f} bytes, {trials:.2f} trials, {run.totals.verified} of"
                f" {len(done)} verified; {held}; against optimised JPEG"
                f" {rival.get('saving', 0):.1%} {rival.get('interval')}",
                flush=True,
            )


if __name__ == "__main__":
    main()
