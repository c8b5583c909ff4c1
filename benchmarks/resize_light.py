"""Resizing photos as they are stored, or in linear light: what do vision systems keep at equal
bytes?

Photos are made smaller by Lanczos' filter over the stored values, or over linear light (IEC
61966-2-1) and back, then coded by `djpeg --guide uniform` at several qualities. The truth is a
system's answer on the source; boxes are compared in the source's scale. Systems and photos are
those of `djpeg_systems.py`; the score of one way at the bytes of the other is read off a line
through its qualities, linear in the logarithm of the bytes.

    python benchmarks/resize_light.py --limit 40 --json light.jsonl
    python benchmarks/resize_light.py --from light.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import djpeg_systems
import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.djpeg.compress import Prepared
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.photos.photo import load, load_bytes
from vizcomp.photos.resize import resized_pixels, wanted_size

SHARES = {
    "text": (0.7, 0.5),
    "detector": (0.5, 0.35),
    "classifier": (0.5, 0.35),
    "other": (0.5, 0.35),
}
QUALITIES = (30.0, 50.0, 75.0)
LIGHTS = ("stored", "linear")
DRAWS = 1000

Pixels = npt.NDArray[np.uint8]


def linear_light(pixels: Pixels, height: int, width: int) -> Pixels:
    """As `resized_pixels`, over linear light: uint8 (H, W, 3) or (H, W) to the same of another
    size."""
    levels = np.arange(256) / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )
    planes = []
    for plane in pixels[..., None].reshape(*pixels.shape[:2], -1).transpose(2, 0, 1):
        image = Image.fromarray(light[plane]).resize((width, height), Image.Resampling.LANCZOS)
        values = np.asarray(image).clip(0, 1)
        stored = np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
        planes.append(np.rint(stored * 255).astype(np.uint8))
    return np.stack(planes, -1).reshape((height, width, *pixels.shape[2:]))


def scaled_back(answer: Any, ratio: tuple[float, float]) -> Any:
    """Boxes on a smaller photo, on the source; classes as they are."""
    if isinstance(answer, int):
        return answer
    boxes, kinds = answer
    across, down = ratio
    factors = (
        np.array([across, down]) if boxes.ndim == 3 else np.array([across, down, across, down])
    )
    return boxes * factors, kinds


def look(job: tuple[str, Path]) -> list[dict[str, Any]]:
    """One photo through all sizes, lights and qualities: a row for each of them and each system."""
    kind, path = job
    photo = load(path)
    source = photo.pixels if photo.pixels.ndim == 3 else np.repeat(photo.pixels[..., None], 3, 2)
    names = [name for name, sets in djpeg_systems.LOOKS.items() if kind in sets]
    truths = {name: djpeg_systems.system(name)(source) for name in names}
    rows = []
    for share in sorted({share for name in names for share in SHARES[name]}):
        height, width = wanted_size(*source.shape[:2], scale=share)
        for light in LIGHTS:
            resize = resized_pixels if light == "stored" else linear_light
            small = dataclasses.replace(
                photo, pixels=resize(photo.pixels, height, width), jpeg=None
            )
            prepared = Prepared(small, DjpegSettings(guide="uniform"))
            for quality in QUALITIES:
                data = prepared.at(quality)
                shown = load_bytes(data, path.name).pixels
                shown = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, 2)
                for name in names:
                    if share not in SHARES[name]:
                        continue
                    answer = djpeg_systems.system(name)(shown)
                    answer = scaled_back(
                        answer, (source.shape[1] / width, source.shape[0] / height)
                    )
                    kept, of = djpeg_systems.counts(truths[name], answer)
                    rows.append(
                        {
                            "photo": path.name,
                            "system": name,
                            "share": share,
                            "light": light,
                            "quality": quality,
                        }
                        | {"bytes": len(data), "kept": kept, "of": of}
                    )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """For each system and size: the score of both at equal bytes, and the difference with its 95%
    interval."""
    cells: dict[tuple[str, float], dict[str, dict[tuple[str, float], tuple[int, int, int]]]] = (
        defaultdict(lambda: defaultdict(dict))
    )
    for row in rows:
        key = row["light"], row["quality"]
        cells[row["system"], row["share"]][row["photo"]][key] = row["bytes"], row["kept"], row["of"]
    lines = [
        (
            "| system | share of sides | photos | bytes | stored | linear at these bytes |"
            " difference | 95% |"
        ),
        "| --- " * 8 + "|",
    ]
    for (name, share), photos in sorted(cells.items()):
        full = [one for one in photos.values() if len(one) == len(LIGHTS) * len(QUALITIES)]
        values = np.array(
            [[[one[light, quality] for quality in QUALITIES] for light in LIGHTS] for one in full],
            float,
        )
        random = np.random.default_rng(0)
        drawn = [
            np.arange(len(full)),
            *(random.integers(0, len(full), len(full)) for _ in range(DRAWS)),
        ]
        gains, shown = [], None
        for some in drawn:
            size, kept, of = np.moveaxis(values[some].sum(0), -1, 0)  # each (lights, qualities)
            score, log = kept / np.maximum(of, 1), np.log(size / len(full))
            rival = np.interp(log[0], log[1], score[1])
            gains.append(float((rival - score[0]).mean()))
            shown = shown or (
                float(np.exp(log[0].mean())),
                float(score[0].mean()),
                float(rival.mean()),
            )
        assert shown is not None
        low, high = np.quantile(gains[1:], [0.025, 0.975])
        lines.append(
            f"| {name} | {share} | {len(full)} | {shown[0]:,.0f} | {shown[1]:.3f} | {shown[2]:.3f}"
            f" | {gains[0]:+.3f} | {low:+.3f} to {high:+.3f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, help="photos of each set")
    parser.add_argument(
        "--set", dest="sets", action="append", choices=djpeg_systems.SETS, help="default: all"
    )
    parser.add_argument(
        "--report", action="store_true", help="the photos kept aside; look once, at the end"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="rows of all photos, written as they come")
    parser.add_argument(
        "--from",
        dest="made",
        type=Path,
        action="append",
        help="figures of rows that are there already",
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for place in options.made or ():
        rows += [json.loads(line) for line in place.read_text("utf-8").splitlines()]
    if not options.made:
        part = "report" if options.report else "choose"
        jobs = djpeg_systems.photos(part, tuple(options.sets or djpeg_systems.SETS), options.limit)
        with ProcessPoolExecutor(options.jobs) as pool:
            for done in as_completed([pool.submit(functools.partial(look), job) for job in jobs]):
                rows += done.result()
                if options.json:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write("".join(json.dumps(row) + "\n" for row in done.result()))
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
