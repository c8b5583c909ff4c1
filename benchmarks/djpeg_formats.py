"""What vision systems see on WebP, AVIF and JPEG XL files, with and without a guide's blur, against
JPEG.

Systems, sets and parts are those of `djpeg_systems`; `words` is also asked: the share of the words
read on the source that are read the same. A codec is one of

    jpeg:q=50                           Pillow, optimised, progressive, 4:2:0
    avif:q=45[,guide=G,sigma=S,...]     Pillow's encoder at its own quality; guide and widest blur
                                        in pixels; the rest are the encoder's options. webp and jxl
                                        alike
    djpeg:q=50[,format=F,guide=G,...]   vizcomp's settings

    python benchmarks/djpeg_formats.py --limit 60 --json rows.json --codec jpeg:q=50 \\
        --codec avif:q=45,guide=system:text,sigma=2.5
    python benchmarks/djpeg_formats.py --from rows.json --reference jpeg:q=50
    python benchmarks/djpeg_formats.py --from rows.json --calibrate avif --reference djpeg

Rows are kept in --json: a photo and codec that are there already are not made again.
`--calibrate F` prints, for each quality of the codecs called --reference, the quality of encoder
F's plain files that keeps the same.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from djpeg_systems import LOOKS, SETS, counts, photos, system
from photo_codecs import network_depth, parse_spec, text_importance
from PIL import Image
from textdet import TextSystem, default_cache

from vizcomp.djpeg.compress import Ready, prepare
from vizcomp.djpeg.prefilter import prefiltered
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.photos.photo import load
from vizcomp.vision.boxes import match_boxes

Pixels = npt.NDArray[np.uint8]
DRAWS = 1000
SPEED: dict[str, dict[str, Any]] = {
    "avif": {"speed": 6, "max_threads": 1},
    "webp": {"method": 6},
    "jxl": {"effort": 5, "num_threads": 1},
}


def made(path: Path, pixels: Pixels, spec: str) -> bytes:
    """A photo's file by a codec."""
    kind, values = parse_spec(spec)
    quality = float(values.pop("q", "50"))
    if kind == "jpeg":
        return _saved(
            pixels,
            "JPEG",
            quality=int(quality),
            optimize=True,
            progressive=True,
            subsampling="4:2:0",
        )
    if kind == "djpeg":
        return min(
            (one.at(quality) for one in _prepared(path, tuple(sorted(values.items())))), key=len
        )
    guide, sigma = values.pop("guide", "uniform"), float(values.pop("sigma", "0"))
    if guide != "uniform":
        importance = _prepared(path, (("guide", guide),))[0].importance
        pixels = prefiltered(pixels, (1 - importance) * np.float32(sigma))
    options: dict[str, Any] = dict(SPEED[kind])
    advanced = {}
    for key, value in values.items():
        if key in ("speed", "method", "effort"):
            options[key] = int(value)
        elif key == "subsampling":
            options[key] = ":".join(value)
        elif key == "sharp":
            options["use_sharp_yuv"] = value == "1"
        else:
            advanced[key] = value
    if advanced:
        options["advanced"] = advanced
    return _saved(
        pixels, kind.upper(), quality=int(quality) if kind == "avif" else quality, **options
    )


def _saved(pixels: Pixels, kind: str, **options: Any) -> bytes:
    if kind == "JXL":
        import pillow_jxl  # noqa: F401 - registers itself
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@functools.lru_cache(maxsize=8)
def _prepared(path: Path, values: tuple[tuple[str, str], ...]) -> list[Ready]:
    settings = DjpegSettings(
        **{key: float(value) if key == "strength" else value for key, value in values}
    )  # type: ignore[arg-type]
    depth = network_depth(path) if "depth" in settings.guides else None
    looked = {name: text_importance(path) for name in settings.guides if name == "system:text"}
    return prepare(load(path), settings, depth=depth, looked=looked)


@functools.cache
def _text() -> TextSystem:
    return TextSystem(default_cache())


def look(
    kind: str, path: Path, specs: Sequence[str], systems: Sequence[str]
) -> list[dict[str, Any]]:
    """One photo through codecs: a row for each codec and system."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    names = [name for name, sets in LOOKS.items() if kind in sets and name in systems]
    truths = {name: _answer(name, pixels) for name in names}
    rows = []
    for spec in specs:
        data = made(path, pixels, spec)
        with Image.open(io.BytesIO(data)) as image:
            result = np.asarray(image.convert("RGB"))
        for name in names:
            answer = _answer(name, result)
            figures = {
                name: (
                    counts(truths[name][:2], answer[:2])
                    if name == "text"
                    else counts(truths[name], answer)
                )
            }
            if name == "text":
                figures["words"] = words_kept(truths[name], answer)
            for each, (kept, all_of) in figures.items():
                row = {"photo": path.name, "set": kind, "codec": spec, "system": each}
                rows.append(row | {"bytes": len(data), "kept": kept, "of": all_of})
    return rows


def _answer(name: str, pixels: Pixels) -> Any:
    if name != "text":
        return system(name)(pixels)
    answer = _text()(pixels, words=True)
    return answer.boxes, None, answer.texts


def words_kept(truth: Any, answer: Any) -> tuple[int, int]:
    pairs = match_boxes(truth[0], answer[0])
    kept = sum(
        1 for i, j, _ in pairs if truth[2][i] and truth[2][i].casefold() == answer[2][j].casefold()
    )
    return kept, sum(1 for text in truth[2] if text)


# --- figures
# --------------------------------------------------------------------------------------------------

Cells = dict[tuple[str, str], dict[str, tuple[int, int, int]]]


def cells(rows: list[dict[str, Any]]) -> Cells:
    """By system and codec, by photo: bytes, kept, of."""
    found: Cells = defaultdict(dict)
    for row in rows:
        found[row["system"], row["codec"]][row["photo"]] = (row["bytes"], row["kept"], row["of"])
    return found


def table(rows: list[dict[str, Any]], reference: str) -> str:
    """Bytes and score of each codec on the photos that it shares with the reference; differences
    with 95% intervals."""
    found = cells(rows)
    lines = [
        "| system | codec | photos | bytes | of reference | kept | reference | difference, 95% |",
        "| --- " * 8 + "|",
    ]
    for (name, codec), cell in sorted(found.items()):
        base = found.get((name, reference), {})
        shared = sorted(set(cell) & set(base))
        if not shared:
            continue
        mine, theirs = (np.array([one[photo] for photo in shared], float) for one in (cell, base))
        drawn = np.random.default_rng(0).multinomial(
            len(shared), np.full(len(shared), 1 / len(shared)), size=DRAWS
        )
        weights = np.vstack([np.ones(len(shared)), drawn])
        ours, other = (
            (weights @ m)[:, 1] / np.maximum((weights @ m)[:, 2], 1) for m in (mine, theirs)
        )
        low, high = np.quantile((ours - other)[1:], [0.025, 0.975])
        lines.append(
            f"| {name} | {codec} | {len(shared)} | {mine[:, 0].mean():,.0f} |"
            f" {mine[:, 0].sum() / theirs[:, 0].sum():.3f} | {ours[0]:.3f} | {other[0]:.3f} |"
            f" {ours[0] - other[0]:+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
    return "\n".join(lines)


def curve(found: Cells, name: str, prefix: str) -> tuple[list[float], list[float], list[float]]:
    """Qualities, bytes and scores of the codecs "PREFIX" with ",q=..." or ":q=...", by quality, on
    the photos that all share."""
    mine = {
        _quality(codec): cell
        for (asked, codec), cell in found.items()
        if asked == name and _family(codec) == prefix
    }
    if not mine:
        return [], [], []
    shared = sorted(set.intersection(*(set(cell) for cell in mine.values())))
    qualities = sorted(mine)
    sums = [np.array([mine[q][photo] for photo in shared], float).sum(0) for q in qualities]
    return qualities, [s[0] / len(shared) for s in sums], [s[1] / max(1.0, s[2]) for s in sums]


def _quality(codec: str) -> float:
    return float(parse_spec(codec)[1].get("q", "50"))


def _family(codec: str) -> str:
    kind, values = parse_spec(codec)
    values.pop("q", None)
    return ":".join(filter(None, (kind, ",".join(f"{k}={v}" for k, v in values.items()))))


def calibrate(rows: list[dict[str, Any]], encoder: str, reference: str) -> str:
    """For each quality of the reference, the encoder's quality that keeps the same, by system and
    in the mean."""
    found = cells(rows)
    names = [name for name in dict.fromkeys(row["system"] for row in rows) if name != "other"]
    wanted: dict[float, dict[str, float]] = defaultdict(dict)
    for name in names:
        qualities, _, scores = curve(found, name, reference)
        own, _, kept = curve(found, name, encoder)
        rising = np.maximum.accumulate(kept)
        for quality, score in zip(qualities, scores, strict=True):
            wanted[quality][name] = float(
                np.interp(score, rising + 1e-9 * np.arange(len(own)), own)
            )
    lines = ["| quality | " + " | ".join(names) + " | mean |", "| --- " * (len(names) + 2) + "|"]
    for quality, by_name in sorted(wanted.items()):
        each = [by_name[name] for name in names]
        lines.append(
            f"| {quality:g} | " + " | ".join(f"{q:.1f}" for q in each) + f" | {np.mean(each):.1f} |"
        )
    return "\n".join(lines)


def equal_answers(rows: list[dict[str, Any]], family: str, rival: str) -> str:
    """Bytes of a family of codecs against a rival's at the scores of the family's own qualities."""
    found = cells(rows)
    lines = [
        f"| system | {family}: quality | bytes | score | {rival}: bytes for that score | ratio |",
        "| --- " * 6 + "|",
    ]
    for name in dict.fromkeys(row["system"] for row in rows):
        qualities, sizes, scores = curve(found, name, family)
        _, theirs, kept = curve(found, name, rival)
        if not (qualities and theirs):
            continue
        rising = np.maximum.accumulate(kept) + 1e-9 * np.arange(len(kept))
        for quality, size, score in zip(qualities, sizes, scores, strict=True):
            if not rising[0] <= score <= rising[-1]:
                continue
            needs = float(np.exp(np.interp(score, rising, np.log(theirs))))
            lines.append(
                f"| {name} | {quality:g} | {size:,.0f} | {score:.3f} | {needs:,.0f} |"
                f" {size / needs:.3f} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", action="append", default=[], help="as above; repeatable")
    parser.add_argument("--set", dest="sets", action="append", choices=SETS, help="default: all")
    parser.add_argument(
        "--system", dest="systems", action="append", choices=LOOKS, help="default: all"
    )
    parser.add_argument("--limit", type=int, help="photos of each set")
    parser.add_argument(
        "--report", action="store_true", help="the photos kept aside; look once, at the end"
    )
    parser.add_argument("--json", type=Path, help="rows, kept and added to")
    parser.add_argument(
        "--from",
        dest="made",
        type=Path,
        action="append",
        default=[],
        help="rows that are there already",
    )
    parser.add_argument(
        "--reference", default="jpeg:q=50", help="codec of the differences (default %(default)s)"
    )
    parser.add_argument(
        "--calibrate",
        metavar="FAMILY",
        help="codecs whose quality is sought; --reference names a family then",
    )
    parser.add_argument(
        "--equal-answers",
        metavar="FAMILY",
        help="codecs compared with --reference, a family, at their scores",
    )
    options = parser.parse_args()
    places = [*options.made, *([options.json] if options.json and options.json.exists() else [])]
    rows = [json.loads(line) for place in places for line in place.read_text("utf-8").splitlines()]
    there = {(row["set"], row["photo"], row["codec"]) for row in rows}
    systems = options.systems or list(LOOKS)
    jobs = (
        photos("report" if options.report else "choose", tuple(options.sets or SETS), options.limit)
        if options.codec
        else []
    )
    for kind, path in jobs:
        missing = [spec for spec in options.codec if (kind, path.name, spec) not in there]
        fresh = look(kind, path, missing, systems) if missing else []
        rows += fresh
        if options.json:
            with options.json.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in fresh))
    if options.calibrate:
        print(calibrate(rows, options.calibrate, options.reference))
    elif options.equal_answers:
        print(equal_answers(rows, options.equal_answers, options.reference))
    else:
        print(table(rows, options.reference))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
