"""What a verified file costs in each format: `djpeg --format F --verify text` on street photos, and
what a reader still reads.

The verdict is RapidOCR's detector, as in `verify_text`; the reader, which is not asked, is its
recogniser: `words` is the share of the words read on the source that are read the same on the file.
Means of bytes are geometric. Rows: --json.

    python benchmarks/verify_formats.py --limit 20 --format jpeg --format avif --format auto \\
        --json rows.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from djpeg_formats import words_kept
from djpeg_systems import photos
from textdet import TextSystem, default_cache

from vizcomp.batch import single, verdicts
from vizcomp.batch.judges import displayed
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import InputFile
from vizcomp.photos.photo import load, load_bytes
from vizcomp.vision.answers import Answer, Boxes
from vizcomp.vision.system import boxes_answer_importance
from vizcomp.vision.text_system import lettering_worth


class CachedText:
    """`vision.text_system.TextSystem` whose answers are kept by pixels."""

    name = "text"
    kind = "boxes"
    classes: tuple[str, ...] = ()
    native = 0
    fingerprint = "cached"

    def __init__(self) -> None:
        self.reader = TextSystem(default_cache())

    def answers(self, images: Sequence[Any]) -> list[Answer]:
        return [
            Boxes(self.reader(image).boxes, (), (image.shape[1], image.shape[0]))
            for image in images
        ]

    def importance(self, image: Any) -> Any:
        return boxes_answer_importance(self, image, lettering_worth)  # type: ignore[arg-type]


def verify(path: Path, name: str, guide: str, reader: CachedText) -> dict[str, Any]:
    """One photo in one format: a row."""
    photo = load(path)
    file = InputFile(path, Path(path.name))
    settings = DjpegSettings(guide=guide, format=name)  # type: ignore[arg-type]
    made = single.finish(
        photo, file, settings, BatchSettings(verify=("text",)), original=path.read_bytes
    )
    before = reader.reader(displayed(photo), words=True)
    after = reader.reader(displayed(load_bytes(made.data, path.name)), words=True)
    kept, words = words_kept((before.boxes, None, before.texts), (after.boxes, None, after.texts))
    found = made.found
    return {
        "photo": path.name,
        "format": name,
        "guide": guide,
        "bytes": len(made.data),
        "source_bytes": photo.source_bytes,
        "taken": made.format,
        "state": found.state,
        "kept_source": made.kept,
        "trials": found.trials,
        "quality": found.made.quality,
        "words_kept": kept,
        "words": words,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Formats on the photos that all of them have, but for those with nothing to verify."""
    by_format: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["state"] != "nothing":
            by_format[row["format"]][row["photo"]] = row
    shared = sorted(set.intersection(*(set(cell) for cell in by_format.values())))
    base = [by_format["jpeg"][photo]["bytes"] for photo in shared] if "jpeg" in by_format else []
    lines = [
        (
            "| format | photos | bytes, geometric | of djpeg | trials | most | sources kept | words"
            " | taken |"
        ),
        "| --- " * 9 + "|",
    ]
    for name, cell in by_format.items():
        mine = [cell[photo] for photo in shared]
        size = np.exp(np.mean(np.log([row["bytes"] for row in mine])))
        ratio = (
            f"{np.exp(np.mean(np.log([row['bytes'] for row in mine])) - np.mean(np.log(base))):.3f}"
            if base
            else ""
        )
        trials = [row["trials"] for row in mine]
        words = sum(row["words_kept"] for row in mine) / max(1, sum(row["words"] for row in mine))
        taken = {
            kind: sum(row["taken"] == kind for row in mine)
            for kind in sorted({row["taken"] for row in mine})
        }
        lines.append(
            f"| {name} | {len(mine)} | {size:,.0f} | {ratio} | {np.mean(trials):.1f} |"
            f" {max(trials)} | {sum(row['kept_source'] for row in mine)} | {words:.3f} | {taken} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", action="append", help="default: jpeg, avif, auto")
    parser.add_argument("--guide", default="system:text")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--report", action="store_true", help="the photos kept aside")
    parser.add_argument("--json", type=Path, help="rows, kept and added to")
    options = parser.parse_args()
    reader = CachedText()
    there_already = options.json is not None and options.json.exists()
    rows = (
        [json.loads(line) for line in options.json.read_text("utf-8").splitlines()]
        if there_already
        else []
    )
    there = {(row["photo"], row["format"], row["guide"]) for row in rows}
    with (
        mock.patch.object(verdicts, "system_by_name", return_value=reader),
        mock.patch.object(single, "system_by_name", return_value=reader),
    ):
        for _, path in photos("report" if options.report else "choose", ("svt",), options.limit):
            for name in options.format or ["jpeg", "avif", "auto"]:
                if (path.name, name, options.guide) in there:
                    continue
                rows.append(verify(path, name, options.guide, reader))
                if options.json:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    print(table([row for row in rows if row["guide"] == options.guide]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
