"""What compression costs several vision systems, against plain JPEG (Pillow, optimised, progressive, 4:2:0) at equal bytes.

The truth is what a system answers on the source. `text`: RapidOCR's boxes on street photos; `detector`: YOLOX-nano's boxes,
same class; both as F1 at IoU 0.5, pooled. `classifier`, `other`: EfficientNet-lite0 and MobileNet v2 (8-bit), share of
photos with the same best class. Photos are split by a hash of their names: settings are chosen on the part `choose`; the
part `report` is looked at once, by `--report`.

    python benchmarks/djpeg_systems.py --limit 20 --codec guide=uniform --codec guide=uniform,table=auto,flat=0 --json a.json
    python benchmarks/djpeg_systems.py --from a.json

A codec is `djpeg`'s settings (guide, strength, table) and fields of `vizcomp.djpeg.settings.Shape` (chroma, price, ...).
Networks and photos lie in `../shared` seen from the repository, or in VIZCOMP_SHARED.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import io
import json
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from photo_codecs import network_depth, parse_spec
from PIL import Image
from textdet import TextSystem, default_cache

from vizcomp.vision.boxes import match_boxes

SHARED = Path(os.environ.get("VIZCOMP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SETS = {
    "svt": "svt/photos/*.jpg",
    "coco": "coco/images/*",
    "bsds": "bsds/*.jpg",
    "kodak": "kodak/*.png",
    "imagenet": "imagenet/*",
}
NATURAL = ("coco", "bsds", "kodak")
LOOKS = {"text": ("svt",), "detector": NATURAL, "classifier": (*NATURAL, "imagenet"), "other": (*NATURAL, "imagenet")}
PLAIN = "jpeg"
LADDER = (15, 20, 25, 30, 35, 40, 50, 60, 70, 80)
QUALITIES = (35.0, 50.0, 65.0)
DRAWS = 1000

Pixels = npt.NDArray[np.uint8]
Boxes = tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]  # corners x0, y0, x1, y1, and classes


def photos(part: str, sets: tuple[str, ...], limit: int | None) -> list[tuple[str, Path]]:
    """Photos of a part with the names of their sets, in the order of the hash; `limit` of each set."""
    found = []
    for name in sets:
        paths = {hashlib.md5(path.name.encode()).digest(): path for path in (SHARED / "data").glob(SETS[name])}
        mine = [paths[key] for key in sorted(paths) if key[-1] % 2 == (part == "report")]
        found += [(name, path) for path in mine[:limit]]
    order = dict.fromkeys(sets, 0)  # sets take turns, so that a run cut short has seen all of them
    turns = []
    for name, path in found:
        turns.append((order[name], name, path))
        order[name] += 1
    return [(name, path) for _, name, path in sorted(turns)]


# --- systems ------------------------------------------------------------------------------------------------------


class Detector:
    """YOLOX by its published reading: letterbox at the top left, strides 8, 16, 32, suppression class by class."""

    def __init__(self, path: Path, least: float = 0.3, overlap: float = 0.5) -> None:
        self._session, self._least, self._overlap = _session(path), least, overlap

    def __call__(self, pixels: Pixels) -> Boxes:
        side = 416
        ratio = min(side / pixels.shape[0], side / pixels.shape[1])
        height, width = int(pixels.shape[0] * ratio), int(pixels.shape[1] * ratio)
        field = np.full((side, side, 3), 114, np.float32)
        field[:height, :width] = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        raw = self._session.run(None, {self._session.get_inputs()[0].name: field[None, :, :, ::-1].transpose(0, 3, 1, 2).copy()})[
            0
        ]
        raw = np.asarray(raw[0], np.float64)
        cells, strides = [], []
        for stride in (8, 16, 32):
            count = side // stride
            down, across = np.mgrid[:count, :count]
            cells.append(np.stack([across.ravel(), down.ravel()], 1))
            strides.append(np.full(count * count, stride))
        step = np.concatenate(strides)[:, None]
        centre = (raw[:, :2] + np.concatenate(cells)) * step
        half = np.exp(raw[:, 2:4]) * step / 2
        scores = raw[:, 4:5] * raw[:, 5:]
        kind, score = scores.argmax(1), scores.max(1)
        corners = np.concatenate([centre - half, centre + half], 1) / ratio
        kept: list[int] = []
        for index in np.argsort(-score, kind="stable"):
            if score[index] < self._least:
                break
            same = [other for other in kept if kind[other] == kind[index]]
            if all(_overlap(corners[other], corners[index]) <= self._overlap for other in same):
                kept.append(int(index))
        return corners[kept], kind[kept]


def _overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(size / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - size))


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _centre(pixels: Pixels) -> Pixels:
    """The middle 87.5%, 224 pixels a side."""
    side = 224
    image = Image.fromarray(pixels)
    share = min(image.size) * 0.875
    left, top = (image.width - share) / 2, (image.height - share) / 2
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + share, top + share)))


@functools.cache
def system(name: str) -> Any:
    """A function from pixels to an answer: boxes with classes, or the best class."""
    models = SHARED / "models"
    if name == "text":
        text = TextSystem(default_cache())
        return lambda pixels: (text(pixels).boxes, None)
    if name == "detector":
        return Detector(models / "yolox_nano.onnx")
    if name == "classifier":
        session = _session(models / "efficientnet_lite0.onnx")
        entry = session.get_inputs()[0].name

        def best(pixels: Pixels) -> int:
            field = ((_centre(pixels) / np.float32(255) - np.float32(0.498)) / np.float32(0.502)).astype(np.float32)
            return int(session.run(None, {entry: field.transpose(2, 0, 1)[None].copy()})[0][0].argmax())

        return best
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(models / "mobilenet_v2_1.0_224_quant.tflite"), num_threads=1)
    network.allocate_tensors()
    entry, out = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]

    def best_of_other(pixels: Pixels) -> int:
        network.set_tensor(entry, _centre(pixels)[None])
        network.invoke()
        return int(network.get_tensor(out)[0].argmax())

    return best_of_other


def counts(truth: Any, answer: Any) -> tuple[int, int]:
    """What the score's numerator and denominator gain: F1 = 2 matched / (there + found), or 1 of 1 for the same class."""
    if isinstance(truth, int):
        return int(truth == answer), 1
    (boxes, kinds), (found, found_kinds) = truth, answer
    if kinds is None:
        matched = len(match_boxes(boxes, found))
    else:
        classes = set(kinds.tolist()) & set(found_kinds.tolist())
        matched = sum(len(match_boxes(boxes[kinds == kind], found[found_kinds == kind])) for kind in classes)
    return 2 * matched, len(boxes) + len(found)


# --- codecs -------------------------------------------------------------------------------------------------------


def plain(pixels: Pixels, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=True)
    return file.getvalue()


def prepared(path: Path, spec: str) -> Any:
    """A photo under a codec's settings, to be coded at any quality."""
    from vizcomp.djpeg.compress import Prepared
    from vizcomp.djpeg.settings import DjpegSettings, Shape
    from vizcomp.photos.photo import load

    values: dict[str, Any] = parse_spec("djpeg:" + spec)[1]
    own = {field.name for field in dataclasses.fields(Shape)}
    shape = Shape(**{key: float(value) for key, value in values.items() if key in own})
    rest = {key: float(value) if key == "strength" else value for key, value in values.items() if key not in own}
    settings = DjpegSettings(**rest)
    depth = network_depth(path) if "depth" in settings.guides else None
    return Prepared(load(path), settings, depth=depth, shape=shape)


def look(job: tuple[str, Path], specs: list[str], ladder: tuple[int, ...], qualities: tuple[float, ...]) -> list[dict[str, Any]]:
    """One photo through all codecs and systems: a row for each codec, quality and system."""
    kind, path = job
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    names = [name for name, sets in LOOKS.items() if kind in sets]
    truths = {name: system(name)(pixels) for name in names}
    made = [(PLAIN, float(quality), plain(pixels, quality)) for quality in ladder]
    for spec in specs:
        encoder = prepared(path, spec)
        made += [(spec, quality, encoder.at(quality)) for quality in qualities]
    rows = []
    for spec, quality, data in made:
        with Image.open(io.BytesIO(data)) as image:
            result = np.asarray(image.convert("RGB"))
        for name in names:
            kept, all_of = counts(truths[name], system(name)(result))
            rows.append(
                {"photo": path.name, "set": kind, "codec": spec, "quality": quality, "system": name}
                | {"bytes": len(data), "kept": kept, "of": all_of}
            )
    return rows


# --- figures ------------------------------------------------------------------------------------------------------


def compare(rows: list[dict[str, Any]], draws: int = DRAWS) -> list[dict[str, Any]]:
    """For each system, codec and quality: bytes, score, plain JPEG's score at these bytes, difference with 95% interval.

    Bytes are means over the photos, scores are pooled, and both are taken anew for each draw of photos; between the
    qualities of plain JPEG the score is linear in the logarithm of the bytes.
    """
    cells: dict[tuple[str, str, float], dict[str, tuple[int, int, int]]] = defaultdict(dict)
    for row in rows:
        cells[row["system"], row["codec"], row["quality"]][row["photo"]] = (row["bytes"], row["kept"], row["of"])
    figures = []
    for name in dict.fromkeys(row["system"] for row in rows):
        mine = {key: cell for key, cell in cells.items() if key[0] == name}
        shared = sorted(set.intersection(*(set(cell) for cell in mine.values())))
        drawn = np.random.default_rng(0).multinomial(len(shared), np.full(len(shared), 1 / len(shared)), size=draws)
        weights = np.vstack([np.ones(len(shared)), drawn]).astype(float)  # row 0: the photos themselves
        sums = {key: weights @ np.array([cell[photo] for photo in shared], float) for key, cell in mine.items()}
        size = {key: np.log(value[:, 0] / len(shared)) for key, value in sums.items()}
        score = {key: value[:, 1] / np.maximum(value[:, 2], 1) for key, value in sums.items()}
        rungs = sorted(key for key in mine if key[1] == PLAIN)
        for codec in dict.fromkeys(key[1] for key in mine if key[1] != PLAIN):
            keys = sorted(key for key in mine if key[1] == codec)
            gains = []
            for key in keys:
                curve = [
                    (np.stack([size[r][i] for r in rungs]), np.stack([score[r][i] for r in rungs])) for i in range(draws + 1)
                ]
                rival = np.array([np.interp(size[key][i], *curve[i]) for i in range(draws + 1)])
                gains.append(score[key] - rival)
                figures.append(_figure(name, codec, f"{key[2]:g}", shared, size[key], score[key], rival))
            mean = np.mean(gains, axis=0)
            figures.append(_figure(name, codec, "mean", shared, np.mean([size[key] for key in keys], axis=0), mean, 0 * mean))
        for key in rungs:
            figures.append(_figure(name, PLAIN, f"{key[2]:g}", shared, size[key], score[key], score[key]))
    return figures


def _figure(name: str, codec: str, quality: str, shared: list[str], size: Any, score: Any, rival: Any) -> dict[str, Any]:
    low, high = np.quantile((score - rival)[1:], [0.025, 0.975])
    return {
        "system": name,
        "codec": codec,
        "quality": quality,
        "photos": len(shared),
        "bytes": float(np.exp(size[0])),
        "score": float(score[0]),
        "plain": float(rival[0]),
        "gain": float(score[0] - rival[0]),
        "interval": [float(low), float(high)],
    }


def table(figures: list[dict[str, Any]]) -> str:
    lines = ["| system | codec | quality | photos | bytes | kept | plain | gain | 95% |", "| --- " * 9 + "|"]
    for f in figures:
        gain = f"{f['gain']:+.3f} | {f['interval'][0]:+.3f} to {f['interval'][1]:+.3f}"
        kept = " | " if f["quality"] == "mean" else f"{f['score']:.3f} | {f['plain']:.3f}"
        codec = f["codec"] or "default"
        lines.append(f"| {f['system']} | {codec} | {f['quality']} | {f['photos']} | {f['bytes']:,.0f} | {kept} | {gain} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", action="append", help='settings, as "guide=uniform,chroma=0.7"; "" = the default')
    parser.add_argument("--quality", type=float, action="append", help=f"default {QUALITIES}")
    parser.add_argument("--ladder", type=int, action="append", help=f"qualities of plain JPEG, default {LADDER}")
    parser.add_argument("--set", dest="sets", action="append", choices=SETS, help="default: all")
    parser.add_argument("--limit", type=int, help="photos of each set")
    parser.add_argument("--report", action="store_true", help="the photos kept aside; look once, at the end")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="rows of all photos, written as they come")
    parser.add_argument("--from", dest="made", type=Path, action="append", help="figures of rows that are there already")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for place in options.made or ():
        rows += [json.loads(line) for line in place.read_text("utf-8").splitlines()]
    if not options.made:
        jobs = photos("report" if options.report else "choose", tuple(options.sets or SETS), options.limit)
        task = functools.partial(
            look,
            specs=options.codec or [""],
            ladder=tuple(options.ladder or LADDER),
            qualities=tuple(options.quality or QUALITIES),
        )
        with ProcessPoolExecutor(options.jobs) as pool:
            for done in as_completed([pool.submit(task, job) for job in jobs]):
                rows += done.result()
                if options.json:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write("".join(json.dumps(row) + "\n" for row in done.result()))
    print(table(compare(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
