"""Rank correlation of a depth network with true depth, on every set at hand, beside a vertical
ramp.

    python benchmarks/depth_truth.py \\
        --data ../shared/data [--model NAME]... [--json OUT] [--only NAME,NAME] [--start NAME]

For each photo Spearman's rank correlation over the pixels whose depth is known, at the map's own
size; the mean over photos. A ramp is near at the bottom and far at the top, and knows nothing else.
"confidence" is the rank correlation, over the photos of a set, of the network's mean confidence
with the photo's score. KITTI, 7-Scenes, SLAM bench and Depthy's phone photos are for measuring
only: no network of this project has seen them. Rooms and SVT are trained on; `--start` names the
photos of them that count, by how their names begin (those that a recipe keeps out, `checked`). A
photo that lies there several times counts once (the 30 files of KITTI are five photos, six times
each). SVT's maps are DenseDepth's answers, no measurements. A model is what `--depth-model` takes:
a file of `vizcomp train --kind depth`, a published network by its name in `vizcomp weights list`,
or by its path with options.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import vizcomp
from vizcomp.depth.maps import DepthSource
from vizcomp.files.find import InputFile
from vizcomp.metrics import spearman

Array = npt.NDArray[np.float32]
SETS = {  # folder, whether small is near, levels that stand for no measurement
    "kitti": ("depth/kitti_sparse", True, (0,)),
    "kitchen": ("depth/7scenes_kitchen", True, (0, 65535)),
    "slambook": ("depth/slambook", True, (0, 65535)),
    "phone": ("depth/lensblur_depthy", True, ()),
    "rooms": ("depth/rooms", True, (0,)),
    "svt": ("svt", False, ()),
}
MEASURING_ONLY = ("kitti", "kitchen", "slambook", "phone")


def truth(path: Path, small_is_near: bool, holes: tuple[int, ...]) -> Array:
    """Nearness of any scale, float32 (h, w), NaN where nothing was measured."""
    with Image.open(path) as file:
        numbers = np.asarray(file if file.mode.startswith("I") else file.convert("L")).astype(
            np.float32
        )
    known = ~np.isin(numbers, holes)
    return np.where(known, -numbers if small_is_near else numbers, np.nan).astype(np.float32)


def score(found: Array, true: Array) -> float:
    """Spearman's correlation where the truth is known; 0 where one of the two has no order."""
    sized = np.asarray(
        Image.fromarray(found).resize((true.shape[1], true.shape[0]), Image.Resampling.BILINEAR)
    )
    known = np.isfinite(true)
    value = spearman(sized[known], true[known])
    return value if math.isfinite(value) else 0.0


def measure(
    folder: Path,
    small_is_near: bool,
    holes: tuple[int, ...],
    networks: list[DepthSource],
    start: tuple[str, ...],
) -> dict:
    """Scores of each photo by the ramp and by each network, and the networks' mean confidences."""
    names, ramps = [], []
    scores: list[list[float]] = [[] for _ in networks]
    sure: list[list[float]] = [[] for _ in networks]
    seen = set()
    for path in sorted((folder / "photos").iterdir()):
        if path.suffix not in (".jpg", ".png") or not path.stem.startswith(start):
            continue
        photo_hash = hashlib.sha256(path.read_bytes()).digest()
        if photo_hash in seen:
            continue
        seen.add(photo_hash)
        true = truth(folder / "depth" / f"{path.stem}.png", small_is_near, holes)
        photo = vizcomp.load(path)
        names.append(path.stem)
        ramps.append(score(np.repeat(np.arange(64, dtype=np.float32)[:, None], 8, 1), true))
        for k, network in enumerate(networks):
            found = network(photo, InputFile(path, Path(path.name)))
            scores[k].append(score(found.nearness, true))
            sure[k].append(math.nan if found.confidence is None else float(found.confidence.mean()))
    return {"names": names, "ramp": ramps, "scores": scores, "confidence": sure}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with depth/ and svt/")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="as djpeg --depth-model; the bundled network without it",
    )
    parser.add_argument("--only", default=",".join(SETS), help="names of sets")
    parser.add_argument(
        "--start",
        default="",
        help="of rooms and svt, the photos that begin so; separated by commas",
    )
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    labels = arguments.model or ["compact"]
    networks = [vizcomp.open_depth(name) for name in labels]
    results: dict[str, dict] = {}
    print(
        f"{'':10}{'photos':>7}{'ramp':>8}"
        + "".join(f"{Path(label).name[-18:]:>20}{'p10':>8}{'confidence':>12}" for label in labels)
    )
    for name in arguments.only.split(","):
        folder, small_is_near, holes = SETS[name]
        start = (
            tuple(arguments.start.split(","))
            if arguments.start and name not in MEASURING_ONLY
            else ("",)
        )
        found = measure(arguments.data / folder, small_is_near, holes, networks, start)
        if not found["names"]:
            continue
        results[name] = found
        line = f"{name:10}{len(found['names']):7}{np.mean(found['ramp']):8.3f}"
        for scores, sure in zip(found["scores"], found["confidence"], strict=True):
            worth = spearman(np.asarray(sure), np.asarray(scores)) if len(scores) > 4 else math.nan
            line += f"{np.mean(scores):20.3f}{np.percentile(scores, 10):8.3f}{worth:12.3f}"
        print(line, flush=True)
    if len(results) > 1:
        line = f"{'all':10}{sum(len(r['names']) for r in results.values()):7}{'':8}"
        for k in range(len(networks)):
            scores = np.concatenate([r["scores"][k] for r in results.values()])
            sure = np.concatenate([r["confidence"][k] for r in results.values()])
            line += f"{'':20}{'':8}{spearman(sure, scores):12.3f}"
        print(line)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"networks": labels, **results}, indent=1) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()
