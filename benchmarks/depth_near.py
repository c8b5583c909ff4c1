"""What a depth network buys where it matters: PSNR of the nearest third of each photo at equal
bytes, over the guide `uniform`.

    python benchmarks/depth_near.py \\
        --data ../shared/data/svt [--start 03_,08_] [--model NAME]... [--strength 0.25]...
    python benchmarks/depth_near.py --data ../shared/data/depth/kitti_sparse --small-is-near ...

The nearest third is what the ready-made map of the photo says. Each photo is compressed with
`--guide depth` (or what `--guide` says) at quality 50, by a network's map, by the ready-made map
("given") and by a flat one; and with `--guide uniform` at the quality whose file is as large
(between two files, PSNR is interpolated over the logarithm of the bytes). "own" is what the
network's map adds to the flat one.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from depth_truth import score, truth
from PIL import Image

import vizcomp
from vizcomp.files.find import InputFile
from vizcomp.metrics import rank_scale

Array = npt.NDArray[np.float32]


def near_psnr(data: bytes, pixels: npt.NDArray[np.uint8], near: npt.NDArray[np.bool_]) -> float:
    with Image.open(io.BytesIO(data)) as file:
        found = np.asarray(file.convert("RGB"), np.float64)
    return 10 * math.log10(255**2 / max(float(np.square(found - pixels)[near].mean()), 1e-9))


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
    parser.add_argument("--limit", type=int, default=1000)
    arguments = parser.parse_args()
    networks = {
        Path(name).name: vizcomp.open_depth(name) for name in arguments.model or ["compact"]
    }
    strengths = arguments.strength or [0.25, 1.0]
    starts = tuple(arguments.start.split(","))
    gains: dict[tuple[str, float], list[float]] = {}
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
            gains.setdefault((f"{name}: rank correlation", 0.0), []).append(
                score(maps[name].nearness, true)
            )
        plain = []
        for quality in (15, 20, 25, 30, 35, 40, 45, 50, 58):
            data = vizcomp.compress(
                photo, vizcomp.DjpegSettings(quality=quality, guide="uniform")
            ).data
            plain.append((math.log(len(data)), near_psnr(data, pixels, near)))
        x, y = np.asarray(plain).T
        for strength in strengths:
            for name, depth in maps.items():
                settings = vizcomp.DjpegSettings(
                    quality=50, guide=arguments.guide, strength=strength
                )
                data = vizcomp.compress(photo, settings, depth=depth).data
                gain = near_psnr(data, pixels, near) - float(np.interp(math.log(len(data)), x, y))
                gains.setdefault((name, strength), []).append(gain)
    for (name, strength), values in gains.items():
        own = (
            ""
            if name in ("given", "flat") or not strength
            else f", own {np.mean(values) - np.mean(gains['flat', strength]):+.2f}"
        )
        unit = (
            f" at strength {strength:g}: {np.mean(values):+.2f} dB{own}"
            if strength
            else f" {np.mean(values):.3f}"
        )
        print(f"{name}{unit} ({len(values)} photos)")


if __name__ == "__main__":
    main()
