"""What a certified setting costs beside what people use, on real photos: `vizcomp fit` as it is.

For each system one fit over the photos, with a risk of 5%: changed answers of classifiers, 1 - F1
of what answers in boxes. It prints the policy's mean bytes as a share of plain JPEG at quality 75,
and of optimised JPEG, WebP and AVIF, each with its own certified setting on the same photos.
Answers are remembered: a run that was stopped goes on, a second one asks nothing.

    python benchmarks/fit_pays.py --data ../shared/data --models ../shared/models \\
        --system efficientnet_lite0.onnx --system yolox_nano.onnx --system text
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vizcomp.files.find import find_inputs
from vizcomp.fitting.candidates import named
from vizcomp.fitting.result import Fitted
from vizcomp.fitting.run import fit

SETS = ("imagenet", "coco/images", "bsds", "svt/photos", "kodak", "clic")


def shares(fitted: Fitted) -> dict[str, Any]:
    """The policy beside its rivals."""
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
    return rows


def main() -> None:
    """Print a block for each system; `--json FILE` writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--system", action="append", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--limit", type=int, default=10_000, help="photos of each set")
    parser.add_argument("--risk", type=float, default=0.05)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    files = []
    for name in options.sets.split(","):
        files += list(find_inputs([options.data / name]))[: options.limit]
    rows = []
    for name in options.system:
        path = options.models / name
        system = str(path) if path.is_file() else name
        fitted = fit(
            files, system, risk=options.risk, resume=True, jobs=options.jobs, on_progress=print
        )
        print(f"\n{name}: {fitted.policy.certificate.sentence}")
        rows.append({"system": name, **shares(fitted), "asked": fitted.asked})
        for key, value in rows[-1].items():
            print(f"  {key}: {value:.3f}" if isinstance(value, float) else f"  {key}: {value}")
        for notice in fitted.notices:
            print(f"  ({notice})")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
