"""What `djpeg --max-side auto --verify` saves over `djpeg --verify` alone, and what a system that
was not asked still sees.

    python benchmarks/max_side.py --photos ../shared/data/clic \\
        --model ../shared/models/efficientnet_lite0.onnx \\
        --watch ../shared/models/mobilenet_v2_1.0_224_quant.tflite --json sides.json

Both ways make every photo of a folder; the ratio is the geometric mean over photos, with the sum
beside it. A photo on which nothing but its source is verified has a ratio of 1. `--format` makes
both ways in another format. `watch`: on how many results the second classifier has the source's
class. Readings of the models are those of ../shared/models/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs

READINGS: dict[str, dict[str, Any]] = {
    ".onnx": {"mean": [0.498] * 3, "std": [0.502] * 3, "crop": 0.875},
    ".tflite": {"crop": 0.875},
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--watch", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--guide", default="depth+text")
    parser.add_argument("--format", default="jpeg", choices=("jpeg", "webp", "avif", "jxl", "auto"))
    parser.add_argument("--json", type=Path, help="a row for each photo")
    options = parser.parse_args()
    files = list(find_inputs([str(options.photos)]))[: options.limit]
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for model in filter(None, (options.model, options.watch)):
            copy = Path(shutil.copy(model, folder))
            copy.with_suffix(".json").write_text(json.dumps(READINGS[copy.suffix]), "utf-8")
            names.append(str(copy))
        batch = BatchSettings(verify=tuple(names[:1]), watch_with=tuple(names[1:]))
        rows: dict[str, list[Any]] = {}
        for way, side in (("auto", "auto"), ("alone", None)):
            settings = DjpegSettings(guide=options.guide, max_side=side, format=options.format)  # type: ignore[arg-type]
            run = run_djpeg(
                files, Path(folder) / way, settings, batch, RunOptions(jobs=1, on_record=_say)
            )
            rows[way] = list(run.records)
    ratios = [
        auto.output_bytes / alone.output_bytes
        for auto, alone in zip(rows["auto"], rows["alone"], strict=True)
    ]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    total = sum(r.output_bytes for r in rows["auto"]) / sum(r.output_bytes for r in rows["alone"])
    middle = sorted(ratios)[len(ratios) // 2]
    print(
        f"{len(ratios)} photos: ratio {mean:.3f} (geometric mean), {total:.3f} of the sum, median"
        f" {middle:.3f}"
    )
    for way, records in rows.items():
        trials = sum(r.verify_trials for r in records) / len(records)
        seen = sum(all((r.watch_same or {}).values()) for r in records)
        reached = sum(r.status == "ok" for r in records)
        print(
            f"{way}: {reached} made, {trials:.1f} trials a photo, watched alike {seen} of"
            f" {len(records)}"
        )
    if options.json:
        whole = {way: [r.to_dict() for r in records] for way, records in rows.items()}
        options.json.write_text(json.dumps(whole, indent=1), "utf-8")
    return 0


def _say(record: Any) -> None:
    size = f"{record.output_width}x{record.output_height}"
    trials = f"{record.verify_trials} trials, watched {record.watch_same}"
    print(
        record.input,
        record.status,
        record.output_bytes,
        size,
        f"quality {record.quality}",
        trials,
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
