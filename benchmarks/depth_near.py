"""What a depth network buys where it matters: PSNR of the nearest third of each photo at equal
bytes, over the guide `uniform` or over plain JPEG.

    python benchmarks/depth_near.py \\
        --data ../shared/data/svt [--start 03_,08_] [--model NAME]... [--strength 0.25]...
    python benchmarks/depth_near.py --data ../shared/data/depth/kitti_sparse --small-is-near ...
    python benchmarks/depth_near.py --data ../shared/data/svt --guide depth+text --strength 0.25 \\
        --against plain --against uniform --limit 16

The nearest third is what the ready-made map of the photo says. Each photo is compressed with
`--guide depth` (or what `--guide` says) at quality 50, by a network's map, by the ready-made map
("given") and by a flat one; and with each rival of `--against` at the quality whose file is as
large (between two files, PSNR is interpolated over the logarithm of the bytes): `uniform`, the same
encoder without a guide, or `plain`, Pillow's JPEG, optimised and progressive. "rest" is the gain
over the other two thirds; "own" is what the network's map adds to the flat one.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from depth_truth import score, truth
from djpeg_systems import plain
from PIL import Image

import vizcomp
from vizcomp.files.find import InputFile
from vizcomp.metrics import rank_scale

Array = npt.NDArray[np.float32]

RIVALS = ("uniform", "plain")
QUALITIES = {
    "uniform": (15, 20, 25, 30, 35, 40, 45, 50, 58),
    "plain": (8, 12, 16, 20, 25, 30, 36, 43, 50, 60),
}


def psnr_of(
    data: bytes, pixels: npt.NDArray[np.uint8], near: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """dB over the nearest third, and over the rest."""
    with Image.open(io.BytesIO(data)) as file:
        squares = np.square(np.asarray(file.convert("RGB"), np.float64) - pixels)
    here, there = (
        10 * math.log10(255**2 / max(float(squares[part].mean()), 1e-9)) for part in (near, ~near)
    )
    return here, there


def curve(
    rival: str, photo: vizcomp.Photo, pixels: npt.NDArray[np.uint8], near: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """A rival at some qualities: (qualities, 3), logarithm of the bytes and dB of both parts."""
    rows = []
    for quality in QUALITIES[rival]:
        if rival == "plain":
            data = plain(pixels, quality)
        else:
            settings = vizcomp.DjpegSettings(quality=quality, guide="uniform")
            data = vizcomp.compress(photo, settings).data
        rows.append((math.log(len(data)), *psnr_of(data, pixels, near)))
    return np.asarray(rows)


def gain(
    data: bytes,
    rows: npt.NDArray[np.float64],
    pixels: npt.NDArray[np.uint8],
    near: npt.NDArray[np.bool_],
) -> tuple[float, float]:
    """dB over a rival's curve at a file's bytes, over the nearest third and over the rest."""
    here, there = psnr_of(data, pixels, near)
    x = math.log(len(data))
    return (
        here - float(np.interp(x, rows[:, 0], rows[:, 1])),
        there - float(np.interp(x, rows[:, 0], rows[:, 2])),
    )


def nearness(true: Array) -> Array:
    """A map with holes as 0..1, holes in the middle."""
    known = np.isfinite(true)
    out = np.full(true.shape, 0.5, np.float32)
    out[known] = rank_scale(true[known][None])[0]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and depth/")
    parser.add_argument(
        "--small-is-near", action="store_true", help="in the maps, with 0 as unknown"
    )
    parser.add_argument("--start", default="", help="photos that begin so; separated by commas")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="as djpeg --depth-model; the bundled network without it",
    )
    parser.add_argument("--strength", type=float, action="append", default=[])
    parser.add_argument("--guide", default="depth", help="with depth in it; default: depth")
    parser.add_argument(
        "--against", action="append", choices=RIVALS, help="the rival; default: uniform"
    )
    parser.add_argument("--limit", type=int, default=1000)
    arguments = parser.parse_args()
    networks = {
        Path(name).name: vizcomp.open_depth(name) for name in arguments.model or ["compact"]
    }
    strengths = arguments.strength or [0.25, 1.0]
    starts = tuple(arguments.start.split(","))
    rivals = arguments.against or ["uniform"]
    ranks: dict[str, list[float]] = {}
    gains: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    paths = [p for p in sorted((arguments.data / "photos").iterdir()) if p.stem.startswith(starts)]
    for path in paths[:: max(1, len(paths) // arguments.limit)][: arguments.limit]:
        true = truth(
            arguments.data / "depth" / f"{path.stem}.png",
            arguments.small_is_near,
            (0,) if arguments.small_is_near else (),
        )
        photo = vizcomp.load(path)
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB"))
        sized = np.asarray(
            Image.fromarray(true).resize(
                (pixels.shape[1], pixels.shape[0]), Image.Resampling.NEAREST
            )
        )
        known = np.isfinite(sized)
        near = known & (sized >= np.percentile(sized[known], 200 / 3))
        maps = {
            "given": vizcomp.Depth(nearness(true)),
            "flat": vizcomp.Depth(np.full((8, 8), 0.5, np.float32)),
        }
        for name, network in networks.items():
            maps[name] = network(photo, InputFile(path, Path(path.name)))
            ranks.setdefault(name, []).append(score(maps[name].nearness, true))
        curves = {rival: curve(rival, photo, pixels, near) for rival in rivals}
        for strength in strengths:
            for name, depth in maps.items():
                settings = vizcomp.DjpegSettings(
                    quality=50, guide=arguments.guide, strength=strength
                )
                data = vizcomp.compress(photo, settings, depth=depth).data
                for rival, rows in curves.items():
                    found = gain(data, rows, pixels, near)
                    gains.setdefault((rival, name, strength), []).append(found)
    for name, scores in ranks.items():
        print(f"{name}: rank correlation {np.mean(scores):.3f} ({len(scores)} photos)")
    for (rival, name, strength), values in gains.items():
        near_gain, rest = np.mean(values, axis=0)
        error = np.std(values, axis=0)[0] / math.sqrt(len(values))
        flat = np.mean(gains[rival, "flat", strength], axis=0)[0]
        own = "" if name in ("given", "flat") else f", own {near_gain - flat:+.2f}"
        head = f"{name} against {rival} at strength {strength:g}: {near_gain:+.2f} ± {error:.2f} dB"
        print(f"{head}, rest {rest:+.2f}{own} ({len(values)} photos)")


if __name__ == "__main__":
    main()
