"""Pictures for the depth network's model card: photos with its map and its confidence, and made
scenes beside their true depth.

    python benchmarks/depth_pictures.py \\
        --out docs/models/compact-depth.png [--model PATH.onnx] [--scenes FOLDER]

The photos are those that come with scikit-image and the package. `--scenes` is a folder of
`recipes/depth_scenes.py` that the network has not learned from; its first picture of each kind is
shown. Bright is near; ranks are shown, so black is the farthest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from depth_truth import score, truth
from PIL import Image, ImageDraw

from vizcomp.depth.compact import CompactDepth
from vizcomp.metrics import rank_scale

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
HEIGHT, GAP = 120, 4


def tile(pixels: npt.NDArray[np.generic]) -> Image.Image:
    """Any picture or map in 0..1 at one height."""
    if pixels.dtype != np.uint8:
        pixels = np.clip(np.nan_to_num(np.asarray(pixels, np.float32)) * 255, 0, 255).astype(
            np.uint8
        )
    image = Image.fromarray(pixels).convert("RGB")
    return image.resize(
        (round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.BILINEAR
    )


def row(tiles: list[Image.Image], words: str) -> Image.Image:
    width = max(sum(t.width + GAP for t in tiles), 6 * len(words) + GAP)
    out = Image.new("RGB", (width, HEIGHT + 16), "white")
    x = 0
    for t in tiles:
        out.paste(t, (x, 0))
        x += t.width + GAP
    ImageDraw.Draw(out).text((2, HEIGHT + 2), words, fill="black")
    return out


def photo_rows(network: CompactDepth) -> list[Image.Image]:
    from skimage import data

    photos = [(name, np.asarray(getattr(data, name)())[..., :3]) for name in PHOTOS]
    samples = Path(__file__).resolve().parents[1] / "src" / "vizcomp" / "bundled" / "samples"
    for path in sorted(p for p in samples.rglob("*") if p.suffix.lower() in (".jpg", ".png")):
        if path.stem not in PHOTOS:
            with Image.open(path) as file:
                photos.append((path.stem, np.asarray(file.convert("RGB"))))
    rows = []
    for name, photo in photos:
        found = network(np.ascontiguousarray(photo))
        words = f"{name}: photo, map, confidence (mean {found.confidence.mean():.2f})"
        rows.append(row([tile(photo), tile(found.depth), tile(found.confidence)], words))
    return rows


def scene_rows(network: CompactDepth, folder: Path) -> list[Image.Image]:
    rows, seen = [], set()
    for path in sorted((folder / "photos").glob("*.jpg")):
        kind = path.stem.split("_")[0]
        if kind in seen:
            continue
        seen.add(kind)
        with Image.open(path) as file:
            photo = np.asarray(file.convert("RGB"))
        true = truth(folder / "depth" / f"{path.stem}.png", True, (0, 65535))
        found = network(photo)
        known = np.isfinite(true)
        shown = np.zeros(true.shape, np.float32)
        shown[known] = rank_scale(true[known][None])[0]
        words = (
            f"{kind}: photo, truth, map; correlation {score(found.depth, true):.2f}, confidence"
            f" {found.confidence.mean():.2f}"
        )
        rows.append(row([tile(photo), tile(shown), tile(found.depth)], words))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--scenes", type=Path, default=None)
    arguments = parser.parse_args()
    network = CompactDepth(arguments.model)
    rows = photo_rows(network) + (scene_rows(network, arguments.scenes) if arguments.scenes else [])
    half = (len(rows) + 1) // 2
    columns = [rows[:half], rows[half:]]
    widths = [max((r.width for r in column), default=0) for column in columns]
    out = Image.new("RGB", (sum(widths) + GAP * 3, half * (HEIGHT + 20)), "white")
    for k, column in enumerate(columns):
        for number, picture in enumerate(column):
            out.paste(picture, (k * (widths[0] + GAP * 3), number * (HEIGHT + 20)))
    out.quantize(128).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
