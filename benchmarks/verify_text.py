"""What a verified file costs: `djpeg --verify text` against optimised progressive JPEG searched
under the same verdict.

Every photo gets the smallest file on which RapidOCR's detector still finds the boxes that it finds
on the source, and no others (F1 of 1 at IoU 0.5, unless --tolerance says otherwise). Both sides
have the same search, the same qualities and the same fall back to the source's own bytes where no
quality passes. Then every file is read from disk again and judged by a system that was opened anew;
a photo that is called verified and is not counts as FALSE, and the exit code is 1.

    python benchmarks/verify_text.py --part report
    python benchmarks/verify_text.py --part choose --guide uniform --limit 20
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from djpeg_text import DATA, PARTS, photos

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.verdicts import trials_worth
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.photo import decode_jpeg, load
from vizcomp.vision import verify
from vizcomp.vision.answers import Boxes, Comparison, compare
from vizcomp.vision.system import System
from vizcomp.vision.systems import open_system

# as many rungs as djpeg has, and one more
PLAIN_QUALITIES = (5, 12, 17, 23, 30, 38, 47, 57, 67, 77, 82, 86, 90, 92, 95, 97, 100)


@dataclasses.dataclass(frozen=True)
class Kept:
    """One photo's verified file by the side that we are compared with."""

    data: bytes
    verified: bool
    trials: int


def plain(path: Path, system: System, tolerance: float) -> Kept:
    """The same search over optimised progressive JPEG, 4:2:0."""
    photo = load(path)
    wanted = system.answers([photo.pixels])[0]

    def encode(quality: float) -> bytes:
        return encode_plain_jpeg(photo.pixels, quality=quality, optimize=True, progressive=True)

    def judge(data: bytes) -> Comparison:
        return compare(wanted, system.answers([decode_jpeg(data)])[0], tolerance=tolerance)

    budget = functools.partial(trials_worth, photo.source_bytes)
    found = verify.smallest(PLAIN_QUALITIES, encode, judge, budget=budget)
    if not found.verified or len(found.data) >= photo.source_bytes:
        return Kept(path.read_bytes(), True, found.trials)
    return Kept(found.data, True, found.trials)


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", choices=PARTS, default="report", help="which half of the photos (default report)"
    )
    parser.add_argument("--limit", type=int, help="the first photos of the part only")
    parser.add_argument(
        "--guide", default="system:text", help="guide of djpeg (default %(default)s)"
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=DjpegSettings().strength,
        help="its strength (default %(default)s)",
    )
    parser.add_argument("--tolerance", type=float, default=0.0, help="of the verdict (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes of djpeg (default 1)")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with photos/ (default %(default)s)"
    )
    options = parser.parse_args(argv)
    paths = photos(options.part, options.limit, options.data)
    settings = DjpegSettings(guide=options.guide, strength=options.strength)
    common = BatchSettings(verify=("text",), tolerance=options.tolerance)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        files = find_inputs([str(p) for p in paths])
        run = run_djpeg(files, out, settings, common, options=RunOptions(jobs=options.jobs))
        judge = open_system("text")
        false = empty = 0
        for record in run.records:
            if record.output is None or not record.verified:
                continue
            with open(record.output, "rb") as file:
                written = decode_jpeg(file.read())
            before, after = judge.answers([load(Path(record.input)).pixels, written])
            false += not compare(before, after, tolerance=options.tolerance).same
            empty += not len(before.quads) if isinstance(before, Boxes) else 0
        sizes = [os.path.getsize(r.output) for r in run.records if r.output is not None]
    others = [plain(p, judge, options.tolerance) for p in paths]
    verified = sum(bool(r.verified) for r in run.records)
    kept = sum(r.status == "kept" for r in run.records)
    ours, theirs = float(np.mean(sizes)), float(np.mean([len(o.data) for o in others]))
    source = float(np.mean([r.source_bytes for r in run.records]))
    medians = statistics.median(sizes), statistics.median(len(o.data) for o in others)
    print(
        f"{len(paths)} photos (part {options.part}), source {source:.0f} bytes; tolerance"
        f" {options.tolerance:g}"
    )
    print(
        f"djpeg --verify text --guide {options.guide} --strength {options.strength:g}: {ours:.0f}"
        f" bytes (median {medians[0]:.0f})"
    )
    print(f"optimised progressive JPEG, same search: {theirs:.0f} bytes (median {medians[1]:.0f})")
    print(f"saving {1 - ours / theirs:.1%} (of the medians {1 - medians[0] / medians[1]:.1%})")
    print(
        f"verified {verified} of {len(paths)}, {kept} of them the source's own bytes; {empty} have"
        " no text on the source"
    )
    print(
        f"trials a photo: {np.mean([r.verify_trials for r in run.records]):.2f}, JPEG"
        f" {np.mean([o.trials for o in others]):.2f}"
    )
    print(f"FALSE (called verified, and not when read again from disk): {false}")
    return 1 if false or run.totals.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
