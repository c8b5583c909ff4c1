"""Bytes against how far answers move, for each format at the pixels of a system's own resize: what
the largest qualities of each are worth to a certificate.

Photos are those that a fit of the same sample would choose with; none that would certify is looked
at. With systems that see the middle square alone, files have the guide `centre`, as in a fit.

    python benchmarks/fit_formats.py --data ../shared/data --models ../shared/models \\
        --system efficientnet_lite0.onnx --sets imagenet,coco/images,kodak,clic
    python benchmarks/fit_formats.py --data ../shared/data --models ../shared/models \\
        --system yolox_nano.onnx --sets coco/images,bsds --qualities 60,76,86,93
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.fitting.candidates import STORED, Candidate, Rival, named
from vizcomp.fitting.inputs import centre_alone, input_of, pixels_of
from vizcomp.fitting.measure import Bench, Work
from vizcomp.fitting.sample import read_sample, split
from vizcomp.fitting.scores import units_to_explore
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.vision.systems import open_system

KINDS = (
    ("jpeg", "photo", "444"),
    ("webp", "auto", "420"),
    ("avif", "auto", "444"),
    ("avif", "machine", "444"),
    ("jxl", "auto", "420"),
)


def settings_of(
    system: str, sides: Sequence[tuple[int, int]], qualities: Sequence[float]
) -> list[Candidate]:
    """Plain JPEG as people store it, and each format at each quality, with the system's pixels."""
    own = input_of(open_system(system))
    pixels = pixels_of([own] if own else [], sides)
    centre = centre_alone([own])
    kinds = [
        DjpegSettings(
            format=name,  # type: ignore[arg-type]
            table=table,  # type: ignore[arg-type]
            subsampling=chroma,  # type: ignore[arg-type]
            guide="centre" if centre else "uniform",
            strength=1.0 if centre else 0.0,
            **dataclasses.asdict(pixels[min(1, len(pixels) - 1)]),
        )
        for name, table, chroma in KINDS
    ]
    return [
        Rival("plain", STORED),
        *(dataclasses.replace(kind, quality=one) for kind in kinds for one in qualities),
    ]


def main() -> None:
    """Print a row for each setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--system", required=True)
    parser.add_argument("--sets", required=True)
    parser.add_argument("--qualities", default="76,86,93,97,99")
    parser.add_argument("--limit", type=int, default=10_000, help="photos that chose, at most")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    path = options.models / options.system
    system = str(path) if path.is_file() else options.system
    sample = read_sample(
        find_inputs([options.data / one for one in options.sets.split(",")]),
        unit="file",
        max_pixels=DEFAULT_MAX_PIXELS,
    )
    binary = open_system(system).kind == "classes"
    chose, _ = split(sample.units, lambda count: units_to_explore(count, 0.05, 0.95, binary=binary))
    qualities = [float(one) for one in options.qualities.split(",")]
    settings = settings_of(system, sample.sides, qualities)
    bench = Bench(Work(systems=(system,), jobs=options.jobs))
    found = bench.scores(settings, chose[: options.limit])
    for one in settings:
        scores = found[one]
        error = scores.moved[0].std() / len(scores.sizes) ** 0.5
        print(
            f"{named(one):80s} {scores.sizes.mean():9,.0f} bytes  lost {scores.losses.mean():.4f}"
            f"  moved {scores.moved.mean():.4f} ± {error:.4f}  ({len(scores.sizes)} photos)"
        )


if __name__ == "__main__":
    main()
