"""What a certified setting costs beside what people use, on real photos: `vizcomp fit` as it is.

For each system one fit over the photos, with a risk of 5%: changed answers of classifiers, 1 - F1
of what answers in boxes. It prints the policy's mean bytes as a share of plain JPEG at quality 75,
and of optimised JPEG, WebP and AVIF, each with its own certified setting on the same photos; then
the same for each set of photos by itself, and the mean over photos of their own shares, since a few
large photos weigh most in a mean of bytes. Answers are remembered: a run that was stopped goes on,
a second one asks nothing.

A classifier of 1,000 classes is asked about photos that are of something: of street scenes and of
textures it is never sure, and plain JPEG at quality 75 changes 12% of its answers there. `--sets`
takes any photos.

    python benchmarks/fit_pays.py --data ../shared/data --models ../shared/models \\
        --system efficientnet_lite0.onnx --system yolox_nano.onnx --system text
    python benchmarks/fit_pays.py --data ../shared/data --models ../shared/models \\
        --system efficientnet_lite0.onnx --format jxl --no-rivals
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.batch.settings import BatchSettings
from vizcomp.errors import VizcompError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.fitting.candidates import STORED, Rival, named
from vizcomp.fitting.judge import Coder
from vizcomp.fitting.result import Fitted
from vizcomp.fitting.run import fit
from vizcomp.photos.photo import load

CLASSIFIED = "imagenet,coco/images,kodak,clic"
SETS = {"yolox_nano.onnx": "coco/images,bsds", "text": "svt/photos"}  # of others, CLASSIFIED


def shares(fitted: Fitted) -> dict[str, Any]:
    """The policy beside its rivals, and what each test said."""
    certificate = fitted.policy.certificate
    rows: dict[str, Any] = {
        "setting": named(fitted.policy.settings),
        "photos": certificate.photos,
        "bytes": certificate.bytes,
        "mean_loss": certificate.mean_loss,
    }
    for one in fitted.rivals:
        title = named(one.setting) if one.setting else f"{one.title}: none holds"
        rows[title] = certificate.bytes / one.bytes if one.bytes else None
    for row in fitted.rows:
        if row.part == "certify":
            said = "holds" if row.passed else "does not hold"
            rows[f"test of {named(row.settings)}"] = (
                f"{row.bytes:,.0f} bytes, loss {row.loss:.4f} on {row.units}, {said}"
            )
    return rows


def of_each_set(fitted: Fitted, sets: Mapping[str, Sequence[InputFile]]) -> dict[str, Any]:
    """For each set the policy's bytes as a share of plain JPEG's at quality 75, and over all photos
    the mean of their own shares."""
    rows: dict[str, Any] = {}
    every: list[float] = []
    stored = Rival("plain", STORED)
    for name, files in sets.items():
        sizes = []
        for file in files:
            try:
                photo = load(file.path)
                coder = Coder(photo, file, BatchSettings())
                ours, plain = (coder.data(one) for one in (fitted.policy.settings, stored))
            except VizcompError:
                continue
            assert plain is not None
            sizes.append((photo.source_bytes if ours is None else len(ours), len(plain)))
        table = np.array(sizes, float)
        rows[f"of {stored.title} q{STORED}, {name}"] = float(table[:, 0].sum() / table[:, 1].sum())
        every += (table[:, 0] / table[:, 1]).tolist()
    rows["mean of the photos' own shares"] = float(np.mean(every))
    return rows


def main() -> None:
    """Print a block for each system; `--json FILE` writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--system", action="append", required=True)
    parser.add_argument("--sets", help="in place of each system's own")
    parser.add_argument("--limit", type=int, default=10_000, help="photos of each set")
    parser.add_argument("--risk", type=float, default=0.05)
    parser.add_argument("--format", default="auto", help="files of one format, as jxl")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rows = []
    for name in options.system:
        path = options.models / name
        system = str(path) if path.is_file() else name
        sets = {
            one: list(find_inputs([options.data / one]))[: options.limit]
            for one in (options.sets or SETS.get(name, CLASSIFIED)).split(",")
        }
        try:
            fitted = fit(
                [file for files in sets.values() for file in files],
                system,
                risk=options.risk,
                format=options.format,
                rivals=not options.no_rivals,
                resume=True,
                jobs=options.jobs,
                on_progress=print,
            )
        except VizcompError as exc:
            print(f"\n{name}: {exc.message}; {exc.hint}")
            continue
        print(f"\n{name}: {fitted.policy.certificate.sentence}")
        rows.append({"system": name, **shares(fitted), **of_each_set(fitted, sets)})
        rows[-1]["asked"] = fitted.asked
        for key, value in rows[-1].items():
            print(f"  {key}: {value:.3f}" if isinstance(value, float) else f"  {key}: {value}")
        for notice in fitted.notices:
            print(f"  ({notice})")
        if options.json:
            Path(options.json).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
