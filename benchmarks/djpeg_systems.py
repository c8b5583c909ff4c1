"""What compression costs several vision systems, against plain JPEG (Pillow, optimised,
progressive, 4:2:0) at equal bytes.

The truth is what a system answers on the source; `systems_kit.py` names the systems and the scores.
Photos are split by a hash of their names: settings are chosen on the part `choose`; the part
`report` is looked at once, by `--report`. Scores are kept on disk by system, source and file, so
that a run which adds a codec pays for that codec alone.

    python benchmarks/djpeg_systems.py --limit 20 --codec "" --codec guide=uniform,chroma=0.5 \\
        --rival webp --json a.json
    python benchmarks/djpeg_systems.py --from a.json

A codec is `djpeg`'s settings (guide, strength, table) and fields of `vizcomp.djpeg.settings.Shape`
(chroma, price, ...); with `format=webp` or `avif` the file is of that format. `sure=1` drops the
confidence of the depth network's map, which then guides as a given one does. Networks and photos
lie in `../shared` seen from the repository, or in VIZCOMP_SHARED.

`fewer` is the share of bytes that plain JPEG needs more than a codec for the codec's smooth score;
`--savings` prints it alone, a line a codec: who saves what for whom.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from photo_codecs import network_depth, parse_spec
from PIL import Image
from systems_kit import SHARED, Scores, digest, system
from textdet import default_cache

SETS = {
    "svt": "svt/photos/*.jpg",
    "coco": "coco/images/*",
    "bsds": "bsds/*.jpg",
    "kodak": "kodak/*.png",
    "imagenet": "imagenet/*",
    "clic": "clic/*.jpg",
}
NATURAL = ("coco", "bsds", "kodak")
LOOKS = {
    "text": ("svt",),
    "words": ("svt",),
    "yolox": (*NATURAL, "clic"),
    "efficientnet": (*NATURAL, "imagenet", "clic"),
    "mobilenet": (*NATURAL, "imagenet", "clic"),
    "deeplab": ("coco", "imagenet"),
    "movenet": ("coco",),
}
VIEWS = (
    *("efficientnet:squash", "efficientnet:cubic", "efficientnet:plain", "efficientnet:small"),
    *("mobilenet:squash", "mobilenet:cubic", "mobilenet:plain", "mobilenet:small"),
    *("yolox:plain", "yolox:small", "yolox:cubic"),
)
PLAIN = "jpeg"
LADDER = (15, 20, 25, 30, 35, 40, 50, 60, 70, 80)
QUALITIES = (35.0, 50.0, 65.0)
RIVALS = {
    "webp": (20, 35, 50, 65, 80),
    "avif": (30, 40, 50, 60, 70),
    "jpegli": (25, 40, 50, 60, 75),
}
DRAWS = 1000

Pixels = npt.NDArray[np.uint8]


def photos(part: str, sets: tuple[str, ...], limit: int | None) -> list[tuple[str, Path]]:
    """Photos of a part with the names of their sets, in the order of the hash; `limit` of each
    set."""
    found = []
    for name in sets:
        paths = {
            hashlib.md5(path.name.encode()).digest(): path
            for path in (SHARED / "data").glob(SETS[name])
        }
        mine = [paths[key] for key in sorted(paths) if key[-1] % 2 == (part == "report")]
        found += [(name, path) for path in mine[:limit]]
    order = dict.fromkeys(sets, 0)  # sets take turns, so that a run cut short has seen all of them
    turns = []
    for name, path in found:
        turns.append((order[name], name, path))
        order[name] += 1
    return [(name, path) for _, name, path in sorted(turns)]


# --- codecs
# --------------------------------------------------------------------------------------------------


def plain(pixels: Pixels, quality: float) -> bytes:
    return saved(
        pixels, "JPEG", quality=int(quality), subsampling="4:2:0", optimize=True, progressive=True
    )


def saved(pixels: Pixels, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def jpegli(pixels: Pixels, quality: float) -> bytes:
    import pyjpegli

    height, width = pixels.shape[:2]
    made: bytes = pyjpegli.encode(
        np.ascontiguousarray(pixels).tobytes(), width, height, int(quality)
    )
    return made


RIVAL_CODECS: dict[str, Callable[[Pixels, float], bytes]] = {
    "webp": lambda pixels, quality: saved(pixels, "WEBP", quality=quality),
    "avif": lambda pixels, quality: saved(pixels, "AVIF", quality=int(quality), max_threads=1),
    "jpegli": jpegli,
}


def prepared(path: Path, spec: str) -> Any:
    """A photo under a codec's settings, to be coded at any quality."""
    from vizcomp.djpeg.compress import Prepared, prepare
    from vizcomp.djpeg.settings import DjpegSettings, Shape
    from vizcomp.photos.photo import load

    values: dict[str, Any] = parse_spec("djpeg:" + spec)[1]
    sure = values.pop("sure", "")  # the network's map is taken at its word, as a given one
    own = {field.name for field in dataclasses.fields(Shape)}
    shape = Shape(**{key: float(value) for key, value in values.items() if key in own})
    rest = {
        key: float(value) if key == "strength" else value
        for key, value in values.items()
        if key not in own
    }
    settings = DjpegSettings(**rest)
    if settings.format != "jpeg":
        return prepare(load(path), settings, depth=functools.partial(network_depth, path))[0]
    depth = network_depth(path) if "depth" in settings.guides else None
    if sure and depth is not None:
        depth = dataclasses.replace(depth, confidence=None)
    return Prepared(load(path), settings, depth=depth, shape=shape)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run asks of each photo."""

    specs: tuple[str, ...]
    rivals: tuple[str, ...]
    systems: tuple[str, ...]
    ladder: tuple[int, ...]
    qualities: tuple[float, ...]
    scores: Path


def look(job: tuple[str, Path], asked: Asked) -> list[dict[str, Any]]:
    """One photo through all codecs and systems: a row for each codec, quality and system."""
    kind, path = job
    source = digest(path.read_bytes())
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    scores = Scores(asked.scores)
    truths: dict[str, Any] = {}
    made = [(PLAIN, float(quality), plain(pixels, quality)) for quality in asked.ladder]
    made += [
        (name, float(q), RIVAL_CODECS[name](pixels, q))
        for name in asked.rivals
        for q in RIVALS[name]
    ]
    for spec in asked.specs:
        encoder = prepared(path, spec)
        made += [(spec, quality, encoder.at(quality)) for quality in asked.qualities]
    rows = []
    for spec, quality, data in made:
        result: Pixels | None = None
        for name in asked.systems:
            if kind not in LOOKS[name.partition(":")[0]]:
                continue
            score = scores.find(name, source, digest(data))
            if score is None:
                if name not in truths:
                    truths[name] = system(name)(pixels)
                if result is None:
                    with Image.open(io.BytesIO(data)) as image:
                        result = np.asarray(image.convert("RGB"))
                score = list(system(name).score(truths[name], system(name)(result)))
                scores.keep(name, source, digest(data), (score[0], score[1], score[2]))
            rows.append(
                {"photo": path.name, "set": kind, "codec": spec, "quality": quality, "system": name}
                | {"bytes": len(data), "kept": score[0], "of": score[1], "close": score[2]}
            )
    return rows


# --- figures
# --------------------------------------------------------------------------------------------------


def compare(rows: list[dict[str, Any]], draws: int = DRAWS) -> list[dict[str, Any]]:
    """For each system, codec and quality: bytes, score, plain JPEG's score at these bytes,
    difference with 95% interval.

    Bytes are means over the photos, scores are pooled, and both are taken anew for each draw of
    photos; between the qualities of plain JPEG the score is linear in the logarithm of the bytes.
    `close` is the gain of the smoother score, `fewer` how many bytes less the codec has than plain
    JPEG at equal smooth score; none where plain JPEG's qualities do not reach that score.
    """
    cells: dict[tuple[str, str, float], dict[str, tuple[float, float, float, float]]] = defaultdict(
        dict
    )
    for row in rows:
        cells[row["system"], row["codec"], row["quality"]][row["photo"]] = (
            row["bytes"],
            row["kept"],
            row["of"],
            row["close"],
        )
    figures = []
    for name in sorted({row["system"] for row in rows}):
        mine = {key: cell for key, cell in cells.items() if key[0] == name}
        shared = sorted(set.intersection(*(set(cell) for cell in mine.values())))
        # where there is something to keep
        shared = [photo for photo in shared if any(cell[photo][2] for cell in mine.values())]
        if not shared:
            continue
        drawn = np.random.default_rng(0).multinomial(
            len(shared), np.full(len(shared), 1 / len(shared)), size=draws
        )
        # row 0: the photos themselves
        weights = np.vstack([np.ones(len(shared)), drawn]).astype(float)
        sums = {
            key: weights @ np.array([cell[photo] for photo in shared], float)
            for key, cell in mine.items()
        }
        size = {key: np.log(value[:, 0] / len(shared)) for key, value in sums.items()}
        score = {key: value[:, 1] / np.maximum(value[:, 2], 1e-9) for key, value in sums.items()}
        close = {key: value[:, 3] / len(shared) for key, value in sums.items()}
        rungs = sorted(key for key in mine if key[1] == PLAIN)
        for codec in dict.fromkeys(key[1] for key in mine if key[1] != PLAIN):
            keys = sorted(key for key in mine if key[1] == codec)
            gains, closer, spared = [], [], []
            ladder = [close[r] for r in rungs], [size[r] for r in rungs]
            for key in keys:
                rival = _between(size[key], [size[r] for r in rungs], [score[r] for r in rungs])
                gains.append(score[key] - rival)
                closer.append(
                    close[key]
                    - _between(size[key], [size[r] for r in rungs], [close[r] for r in rungs])
                )
                inside = ladder[0][0][0] <= close[key][0] <= ladder[0][-1][0]
                spared += [_between(close[key], *ladder) - size[key]] if inside else []
                figures.append(
                    _figure(
                        name, codec, f"{key[2]:g}", shared, size[key], score[key], rival, closer[-1]
                    )
                    | _fewer(spared[-1:] if inside else [])
                )
            mean, near = np.mean(gains, axis=0), np.mean(closer, axis=0)
            middle = np.mean([size[key] for key in keys], axis=0)
            figures.append(
                _figure(name, codec, "mean", shared, middle, mean, 0 * mean, near) | _fewer(spared)
            )
        for key in rungs:
            figures.append(
                _figure(
                    name,
                    PLAIN,
                    f"{key[2]:g}",
                    shared,
                    size[key],
                    score[key],
                    score[key],
                    0 * score[key],
                )
            )
    return figures


def _between(
    size: npt.NDArray[Any], sizes: list[npt.NDArray[Any]], scores: list[npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Plain JPEG's score at a size, for each draw."""
    x, y = np.stack(sizes), np.stack(scores)
    return np.array([np.interp(size[i], x[:, i], y[:, i]) for i in range(len(size))])


def _fewer(spared: list[npt.NDArray[Any]]) -> dict[str, Any]:
    """The share of bytes that is saved and its 95% interval, from logarithms of ratios."""
    if not spared:
        return {"fewer": None, "fewer_interval": None}
    shares = 1 - np.exp(-np.mean(spared, axis=0))
    low, high = np.quantile(shares[1:], [0.025, 0.975])
    return {"fewer": float(shares[0]), "fewer_interval": [float(low), float(high)]}


def _figure(
    name: str,
    codec: str,
    quality: str,
    shared: list[str],
    size: Any,
    score: Any,
    rival: Any,
    close: Any,
) -> dict[str, Any]:
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
        "close": float(close[0]),
        "close_error": float(close[1:].std()),
    }


def table(figures: list[dict[str, Any]]) -> str:
    lines = [
        "| system | codec | quality | photos | bytes | kept | plain | gain | 95% | smooth gain |",
        "| --- " * 10 + "|",
    ]
    for f in figures:
        gain = f"{f['gain']:+.3f} | {f['interval'][0]:+.3f} to {f['interval'][1]:+.3f}"
        kept = " | " if f["quality"] == "mean" else f"{f['score']:.3f} | {f['plain']:.3f}"
        codec = f["codec"] or "default"
        smooth = f"{f['close']:+.4f} ± {f['close_error']:.4f}"
        head = f"| {f['system']} | {codec} | {f['quality']} | {f['photos']} | {f['bytes']:,.0f}"
        lines.append(f"{head} | {kept} | {gain} | {smooth} |")
    return "\n".join(lines)


def summary(figures: list[dict[str, Any]]) -> str:
    """One line a codec: the mean gain of each system, and of its views together, in thousandths."""
    means = [f for f in figures if f["quality"] == "mean"]
    kinds = dict.fromkeys(f["system"].replace(":", " views:").split(":")[0] for f in means)
    lines = ["| codec | " + " | ".join(kinds) + " |", "| --- " * (len(kinds) + 1) + "|"]
    for codec in dict.fromkeys(f["codec"] for f in means):
        cells = []
        for kind in kinds:
            mine = [
                f
                for f in means
                if f["codec"] == codec and f["system"].replace(":", " views:").split(":")[0] == kind
            ]
            gain, close = np.mean([f["gain"] for f in mine]), np.mean([f["close"] for f in mine])
            cells.append(f"{1000 * gain:+.0f} {1000 * close:+.1f}")
        lines.append(f"| {codec or 'default'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def savings(figures: list[dict[str, Any]]) -> str:
    """One line a codec: the bytes that it saves against plain JPEG at each system's equal smooth
    score, in percent, with 95% intervals; mean of its qualities."""
    means = {(f["codec"], f["system"]): f for f in figures if f["quality"] == "mean"}
    systems = sorted({name for _, name in means})
    photos_of = {name: f["photos"] for (_, name), f in means.items()}
    heads = [f"{name} ({photos_of[name]})" for name in systems]
    lines = ["| codec | " + " | ".join(heads) + " |", "| --- " * (len(systems) + 1) + "|"]
    for codec in dict.fromkeys(codec for codec, _ in means):
        cells = []
        for name in systems:
            f = means.get((codec, name))
            if f is None or f["fewer"] is None:
                cells.append("")
                continue
            low, high = f["fewer_interval"]
            cells.append(f"{100 * f['fewer']:.0f} ({100 * low:.0f} to {100 * high:.0f})")
        lines.append(f"| {codec or 'default'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--codec", action="append", help='settings, as "guide=uniform,chroma=0.7"; "" = the default'
    )
    parser.add_argument("--rival", action="append", choices=RIVALS, default=[])
    parser.add_argument(
        "--system", action="append", help="as systems_kit.py names them; default: all as published"
    )
    parser.add_argument(
        "--views", action="store_true", help="the same networks on photos prepared otherwise, too"
    )
    parser.add_argument("--quality", type=float, action="append", help=f"default {QUALITIES}")
    parser.add_argument(
        "--ladder", type=int, action="append", help=f"qualities of plain JPEG, default {LADDER}"
    )
    parser.add_argument("--set", dest="sets", action="append", choices=SETS, help="default: all")
    parser.add_argument("--limit", type=int, help="photos of each set")
    parser.add_argument(
        "--report", action="store_true", help="the photos kept aside; look once, at the end"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--scores",
        type=Path,
        default=default_cache().parent / "systems.sqlite",
        help="scores by file, kept",
    )
    parser.add_argument("--json", type=Path, help="rows of all photos, written as they come")
    parser.add_argument(
        "--from",
        dest="made",
        type=Path,
        action="append",
        help="figures of rows that are there already",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="a line a codec: gains in thousandths, then smooth ones",
    )
    parser.add_argument(
        "--savings", action="store_true", help="a line a codec: bytes saved at equal answers"
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for place in options.made or ():
        rows += [json.loads(line) for line in place.read_text("utf-8").splitlines()]
    if not options.made:
        jobs = photos(
            "report" if options.report else "choose", tuple(options.sets or SETS), options.limit
        )
        asked = Asked(
            specs=tuple([""] if options.codec is None else options.codec),
            rivals=tuple(options.rival),
            systems=(*(options.system or LOOKS), *(VIEWS if options.views else ())),
            ladder=tuple(options.ladder or LADDER),
            qualities=tuple(options.quality or QUALITIES),
            scores=options.scores,
        )
        with ProcessPoolExecutor(options.jobs) as pool:
            for done in as_completed(
                [pool.submit(functools.partial(look, asked=asked), job) for job in jobs]
            ):
                rows += done.result()
                if options.json:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write("".join(json.dumps(row) + "\n" for row in done.result()))
    figures = compare(rows)
    show = savings if options.savings else summary if options.short else table
    print(show(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
