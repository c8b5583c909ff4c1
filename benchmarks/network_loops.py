"""The two small networks of djpeg's default on compiled loops, against ONNX Runtime: how long they
take, and what their rounding changes in the files.

    python benchmarks/network_loops.py --data ../shared/data/svt/photos --limit 40

Times are the least of some runs in turns, in seconds of this thread, so that the ratio holds on a
machine that does other work too. Files are those of the default settings, depth included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from vizcomp.depth.compact import CompactDepth
from vizcomp.depth.kinds import Depth
from vizcomp.djpeg import compress as module
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.djpeg.text_regions import TextRegions
from vizcomp.photos.photo import Photo, load


def networks(*, loops: bool) -> tuple[TextRegions, CompactDepth]:
    """Both, on the loops or on ONNX Runtime."""
    if loops:
        return TextRegions(), CompactDepth()
    with mock.patch("vizcomp.weights.looking.opened", return_value=None):
        return TextRegions(), CompactDepth()


def least(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of this thread, the least of some rounds in turns."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.thread_time()
            function()
            best[name] = min(best[name], 1000 * (time.thread_time() - started))
    return best


def made(photo: Photo, text: TextRegions, depth: CompactDepth) -> module.Compressed:
    """The file of the default settings by these networks."""
    module.text_regions = lambda: text

    def guessed() -> Depth:
        found = depth(photo.pixels)
        return Depth(found.depth, found.confidence, guess=True)

    return module.compress(photo, DjpegSettings(), depth=guessed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    paths = sorted(options.data.glob("*.jpg"))
    paths = paths[:: max(1, len(paths) // options.limit)][: options.limit]
    ways = {"ONNX Runtime": networks(loops=False), "loops": networks(loops=True)}
    first = load(paths[0])
    seen = first.pixels
    rounds = options.rounds
    print("text", least({way: lambda n=n: n[0](seen) for way, n in ways.items()}, rounds))
    print("depth", least({way: lambda n=n: n[1](seen) for way, n in ways.items()}, rounds))
    print("file", least({way: lambda n=n: made(first, *n) for way, n in ways.items()}, rounds))
    sizes, changed, moved, same = [], [], [], 0
    for path in paths:
        photo = load(path)
        old, new = (made(photo, *ways[way]) for way in ("ONNX Runtime", "loops"))
        same += old.data == new.data
        sizes.append((len(old.data), len(new.data)))
        difference = np.abs(old.importance - new.importance)
        changed.append(float(difference.max()))
        moved.append(float((difference > 0.01).mean()))
    before, after = np.array(sizes).T
    print(
        f"{len(paths)} photos: {same} files the same; bytes {after.sum() / before.sum() - 1:+.5%},"
        f" of one photo at most {np.abs(after / before - 1).max():.3%}; importance differs by at"
        f" most {max(changed):.3f}, by more than .01 in {np.mean(moved):.4%} of the blocks"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
