"""What a quality keeps: the factor on all steps with which quality 50 of a codec keeps of a
system's answers what plain JPEG keeps; 1 where it is calibrated, below 1 where it keeps less.

    python benchmarks/djpeg_quality.py --set coco --limit 40 \\
        --system ../shared/models/yolox_nano.onnx:detector=yolox --codec guide=uniform,table=machine

The measure is that of `vizcomp train --kind guide` (`vizcomp.training.step_scale`): files at seven
sizes of steps, plain JPEG at the same, one standard error by a bootstrap over photos. Codecs and
photos are those of `djpeg_systems.py`; photos are taken as pixels, so that no JPEG source bounds
the steps. A guide of one's own is a codec `guide=run/model.onnx`; its own factor counts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from djpeg_systems import SETS, photos, prepared
from PIL import Image

from vizcomp.training.step_scale import PLAIN, STEPS, moves, softer, step_scale
from vizcomp.vision.systems import open_system


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--codec", action="append", help='djpeg\'s settings; default ""')
    parser.add_argument("--system", action="append", required=True, help="as vizcomp names it")
    parser.add_argument("--set", dest="sets", action="append", choices=SETS, required=True)
    parser.add_argument("--limit", type=int, default=40, help="photos of each set")
    parser.add_argument("--skip", type=int, default=0, help="the first photos of each set")
    options = parser.parse_args()
    systems = [softer(name, open_system(name)) for name in options.system]
    jobs = photos("choose", tuple(options.sets), options.limit + options.skip)
    jobs = jobs[len(options.sets) * options.skip :]
    print("| codec | system | factor |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for spec in options.codec or [""]:
            rows: list[list[np.ndarray]] = [[] for _ in systems]
            for number, (_, path) in enumerate(jobs):
                with Image.open(path) as file:
                    pixels = np.asarray(file.convert("RGB"))
                place = Path(folder) / f"{number}.png"  # the depth network is asked once for each
                if not place.exists():
                    Image.fromarray(pixels).save(place, compress_level=1)
                found = moves(pixels, prepared(place, spec).at, systems)
                for mine, row in zip(rows, found, strict=True):
                    mine += [] if row is None else [row]
            for name, mine in zip(options.system, rows, strict=True):
                table = np.array(mine, float).reshape(-1, len(STEPS) + len(PLAIN))
                scale = step_scale(table[:, : len(STEPS)], table[:, len(STEPS) :])
                print(f"| {spec or 'default'} | {Path(name).name} | {scale.words()} |", flush=True)


if __name__ == "__main__":
    main()
