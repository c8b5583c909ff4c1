"""What compression costs a text detector: RapidOCR on street photos, codec by codec, one table.

The truth is what the system itself answers on the source photo: a result's F1 is its boxes against
the source's, one to one at IoU 0.5, pooled over the photos; `words` is the share of the boxes read
on the source (text of confidence 0.5 or more) whose matched box on the result reads the same text,
upper and lower case alike. Photos are split once: those at even places in the order of names are to
choose settings on, those at odd places are to report.

    python benchmarks/djpeg_text.py --part report --words --json figures.json
    python benchmarks/djpeg_text.py --part choose --codec jpeg:q=50 \\
        --codec djpeg:q=40,guide=depth,maps=given
    python benchmarks/djpeg_text.py \\
        --equal-bytes djpeg:guide=depth,maps=given djpeg:guide=uniform --at 50

From other scripts: `evaluate(codec, part="choose")`, `match_bytes`, `compare`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from photo_codecs import Codec, Pixels, family, make_codec, with_quality
from PIL import Image
from textdet import TextSystem, default_cache

from vizcomp import metrics
from vizcomp.vision.boxes import box_score, match_boxes

DATA = Path(
    os.environ.get("VIZCOMP_SVT", Path(__file__).resolve().parents[2] / "shared" / "data" / "svt")
)
PARTS = ("choose", "report", "all")
REFERENCE = "jpeg:q=50"
IDENTICAL_PSNR = 100.0  # what an identical photo counts as in a mean of decibels
DRAWS = 1000

DEFAULT_CODECS = (
    *(f"jpeg:q={q}" for q in (10, 15, 20, 25, 30, 40, 50, 60)),
    *(f"jpeg:q={q},opt=1" for q in (10, 15, 20, 25, 30, 40, 50, 60)),
    *(f"webp:q={q}" for q in (10, 25, 40, 50)),
    *(f"avif:q={q}" for q in (30, 40, 45, 55)),
    "study",
    *(f"djpeg:q={q}" for q in (30, 40, 50, 60)),
    *(f"djpeg:guide={g}" for g in ("uniform", "detail", "depth", "depth+detail", "text")),
    *(f"djpeg:guide={g},maps=given" for g in ("depth", "depth+detail")),
)


@dataclasses.dataclass(frozen=True)
class PhotoScore:
    """One photo through one codec: sizes, counts of boxes and words, fidelity in dB."""

    name: str
    bytes: int
    matched: int
    reference: int
    found: int
    words_kept: int
    words: int
    psnr: float
    ms_ssim: float
    near_psnr: float


def photos(part: str = "choose", limit: int | None = None, data: Path = DATA) -> list[Path]:
    """Photos of a part, in order of names: even places to choose on, odd places to report.

    Raises:
        FileNotFoundError: the photos are not there.
    """
    everything = sorted((data / "photos").glob("*.jpg"))
    if not everything:
        raise FileNotFoundError(
            f"no photos in {data / 'photos'}; VIZCOMP_SVT names the folder that holds photos/ and"
            " depth/"
        )
    chosen = {"choose": everything[0::2], "report": everything[1::2], "all": everything}[part]
    return chosen[:limit]


@functools.lru_cache(maxsize=256)
def load_photo(path: Path) -> Pixels:
    """Pixels of a photo, uint8 (H, W, 3), RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@functools.lru_cache(maxsize=256)
def load_depth(path: Path) -> Pixels | None:
    """The ready-made depth map of a photo, uint8 (h, w), bright = near; None if there is none."""
    place = path.parent.parent / "depth" / f"{path.stem}.png"
    if not place.is_file():
        return None
    with Image.open(place) as image:
        return np.asarray(image.convert("L"))


def nearest_third(depth: Pixels, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mask of the nearest third of a photo's pixels by a depth map of any size."""
    resized = Image.fromarray(depth.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    values = np.asarray(resized)
    return np.asarray(values >= np.quantile(values, 2 / 3))


@functools.lru_cache(maxsize=4)
def text_system(cache: Path) -> TextSystem:
    """One system for each cache and process."""
    return TextSystem(cache)


def score_photo(path: Path, codec: Codec, words: bool, cache: Path) -> PhotoScore:
    """One photo through one codec."""
    source, depth = load_photo(path), load_depth(path)
    data = codec(path, source, depth)
    with Image.open(io.BytesIO(data)) as image:
        result = np.asarray(image.convert("RGB"))
    system = text_system(cache)
    truth, answer = system(source, words=words), system(result, words=words)
    pairs = match_boxes(truth.boxes, answer.boxes)
    readings = kept = 0
    if words and truth.texts is not None and answer.texts is not None:
        readings = sum(1 for text in truth.texts if text)
        kept = sum(
            1 for i, j, _ in pairs if truth.texts[i] and _same(truth.texts[i], answer.texts[j])
        )
    near = math.nan
    if depth is not None:
        near = metrics.psnr_region(source, result, nearest_third(depth, *source.shape[:2]))
    return PhotoScore(
        name=path.stem,
        bytes=len(data),
        matched=len(pairs),
        reference=len(truth.boxes),
        found=len(answer.boxes),
        words_kept=kept,
        words=readings,
        psnr=min(IDENTICAL_PSNR, metrics.psnr(source, result)),
        ms_ssim=metrics.ms_ssim(source, result),
        near_psnr=min(IDENTICAL_PSNR, near) if not math.isnan(near) else math.nan,
    )


def _same(a: str, b: str) -> bool:
    return " ".join(a.casefold().split()) == " ".join(b.casefold().split())


def _score_spec(path: Path, spec: str, words: bool, cache: Path) -> PhotoScore:
    return score_photo(path, _cached_codec(spec), words, cache)


@functools.lru_cache(maxsize=64)
def _cached_codec(spec: str) -> Codec:
    return make_codec(spec)


def evaluate(
    codec: Codec | str,
    part: str = "choose",
    words: bool = False,
    limit: int | None = None,
    *,
    cache: Path | None = None,
    jobs: int = 1,
    data: Path = DATA,
) -> dict[str, Any]:
    """A codec over a part of the photos.

    Args:
        codec: a spec, or a function (path, pixels uint8 (H, W, 3), depth map uint8 (h, w) or None)
            -> bytes.
        part: "choose", "report" or "all".
        words: read the text too, not only find it.
        limit: the first photos only.
        cache: folder of the system's answers; None is the default one.
        jobs: processes; above 1 a spec is needed, since functions do not travel.

    Returns:
        `bytes` (mean of a file), `f1`, `words` (None unless asked), `psnr`, `ms_ssim`, `near_psnr`
        (means over photos, dB), `photos`, `per_photo` (a list of `PhotoScore`, in order of names).
    """
    paths, place = photos(part, limit, data), cache or default_cache()
    scores: list[PhotoScore]
    if jobs > 1:
        if not isinstance(codec, str):
            raise ValueError("several processes need the codec as a spec")
        scores = list(
            _pool(jobs).map(
                functools.partial(_score_spec, spec=codec, words=words, cache=place),
                paths,
                chunksize=2,
            )
        )
    else:
        function = make_codec(codec) if isinstance(codec, str) else codec
        scores = [score_photo(path, function, words, place) for path in paths]
    return summarise(scores, words)


@functools.cache
def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs)


def summarise(scores: Sequence[PhotoScore], words: bool) -> dict[str, Any]:
    """Pooled F1 and share of words, means of the rest."""
    counts = np.array(
        [[s.matched, s.reference, s.found, s.words_kept, s.words] for s in scores], dtype=np.float64
    )
    matched, reference, found, kept, readings = counts.sum(axis=0)
    return {
        "photos": len(scores),
        "bytes": float(np.mean([s.bytes for s in scores])),
        "f1": box_score(int(matched), int(reference), int(found)).f1,
        "words": float(kept / readings) if words and readings else None,
        "psnr": float(np.mean([s.psnr for s in scores])),
        "ms_ssim": float(np.mean([s.ms_ssim for s in scores])),
        "near_psnr": float(np.nanmean([s.near_psnr for s in scores])),
        "per_photo": list(scores),
    }


# --- comparisons
# --------------------------------------------------------------------------------------------------


def compare(
    a: dict[str, Any], b: dict[str, Any], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """a - b over the same photos, with 95% intervals of a paired bootstrap: photos are drawn with
    replacement, and both sides are pooled over the same draw (Efron and Tibshirani, "An
    introduction to the bootstrap", 1993, chapter 13).

    Returns:
        For `f1`, `words`, `near_psnr`, `psnr` and `bytes` (a fraction of b's) the difference and
        its interval [low, high]; `words` is None unless both sides have them.

    Raises:
        ValueError: the photos differ.
    """
    left, right = a["per_photo"], b["per_photo"]
    if [s.name for s in left] != [s.name for s in right]:
        raise ValueError("a paired comparison needs the same photos on both sides")
    count = len(left)
    drawn = (
        np.random.default_rng(seed)
        .multinomial(count, np.full(count, 1 / count), size=draws)
        .astype(np.float64)
    )
    weights = np.vstack([np.ones(count), drawn])  # row 0: the photos themselves

    def table(scores: list[PhotoScore]) -> npt.NDArray[np.float64]:
        rows = [
            [s.matched, s.reference + s.found, s.words_kept, s.words, s.near_psnr, s.psnr, s.bytes]
            for s in scores
        ]
        return np.asarray(weights @ np.array(rows, dtype=np.float64))

    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = table(left), table(right)
        differences = {
            "f1": 2 * x[:, 0] / x[:, 1] - 2 * y[:, 0] / y[:, 1],
            "words": x[:, 2] / x[:, 3] - y[:, 2] / y[:, 3],
            "near_psnr": (x[:, 4] - y[:, 4]) / count,
            "psnr": (x[:, 5] - y[:, 5]) / count,
            "bytes": x[:, 6] / y[:, 6] - 1,
        }
    if a["words"] is None or b["words"] is None:
        del differences["words"]
    result: dict[str, Any] = {"words": None}
    for name, values in differences.items():
        low, high = np.nanquantile(values[1:], [0.025, 0.975])
        result[name] = {"difference": float(values[0]), "interval": [float(low), float(high)]}
    return result


def bytes_at(points: Sequence[tuple[float, float]], level: float) -> float | None:
    """Bytes at which a curve of (bytes, F1) first reaches a level, linear in the logarithm of the
    bytes.

    A detector is not monotone in quality, so a setting counts only as far as no larger one is
    worse: the curve is taken as the least F1 at or above each size. None if the level is never
    reached; the smallest size if it always is.
    """
    ordered = sorted(points)
    safe = np.minimum.accumulate([f1 for _, f1 in reversed(ordered)])[::-1]
    reached = [index for index, f1 in enumerate(safe) if f1 >= level]
    if not reached:
        return None
    first = reached[0]
    if first == 0:
        return ordered[0][0]
    share = (level - safe[first - 1]) / (safe[first] - safe[first - 1])
    low, high = math.log(ordered[first - 1][0]), math.log(ordered[first][0])
    return math.exp(low + share * (high - low))


def mean_bytes(codec: Codec, part: str, limit: int | None = None, data: Path = DATA) -> float:
    """Mean size of a codec's files; nothing is looked at."""
    return float(
        np.mean(
            [
                len(codec(path, load_photo(path), load_depth(path)))
                for path in photos(part, limit, data)
            ]
        )
    )


def match_bytes(
    make: Callable[[float], Codec],
    target: float,
    part: str = "choose",
    limit: int | None = None,
    *,
    low: float = 1.0,
    high: float = 100.0,
    tolerance: float = 0.005,
    data: Path = DATA,
) -> float:
    """The quality at which a codec's mean file has `target` bytes, by regula falsi on the logarithm
    of the bytes.

    Args:
        make: codec of a quality; bytes must grow with it.
        tolerance: the largest relative distance from the target.

    Raises:
        ValueError: the target lies outside what the qualities give, or cannot be met that closely.
    """

    def distance(quality: float) -> float:
        return math.log(mean_bytes(make(quality), part, limit, data) / target)

    at_low, at_high = distance(low), distance(high)
    if at_low > 0 or at_high < 0:
        raise ValueError(f"{target:.0f} bytes are outside what qualities {low} to {high} give")
    for step in range(30):
        share = 0.5 if step % 3 == 2 else -at_low / (at_high - at_low)
        middle = low + min(0.97, max(0.03, share)) * (high - low)
        at = distance(middle)
        if abs(at) <= tolerance:
            return middle
        if at < 0:
            low, at_low = middle, at
        else:
            high, at_high = middle, at
    raise ValueError(f"no quality gives {target:.0f} bytes within {tolerance:.1%}")


def at_equal_bytes(
    spec: str,
    other: str,
    quality: float,
    part: str,
    *,
    words: bool,
    limit: int | None,
    cache: Path,
    jobs: int,
    data: Path,
) -> dict[str, Any]:
    """`spec` at a quality against `other` at the quality that gives the same mean bytes within
    0.5%."""
    first = with_quality(spec, quality)
    left = evaluate(first, part, words, limit, cache=cache, jobs=jobs, data=data)
    found = match_bytes(
        lambda q: make_codec(with_quality(other, q)), left["bytes"], part, limit, data=data
    )
    second = with_quality(other, found)
    right = evaluate(second, part, words, limit, cache=cache, jobs=jobs, data=data)
    return {
        "a": first,
        "b": second,
        "a_result": left,
        "b_result": right,
        "difference": compare(left, right),
    }


# --- the command
# --------------------------------------------------------------------------------------------------


def _row(spec: str, result: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, Any]:
    row = {
        "codec": family(spec),
        "setting": spec,
        **{key: value for key, value in result.items() if key != "per_photo"},
    }
    if reference is not None:
        row["saving"] = 1 - result["bytes"] / reference["bytes"]
        row["against_reference"] = compare(result, reference)
    return row


def _interval(row: dict[str, Any], name: str) -> str:
    entry = row.get("against_reference", {}).get(name)
    return f"{entry['interval'][0]:+.3f} {entry['interval'][1]:+.3f}" if entry else "-"


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        f"{'codec':44} {'bytes':>8} {'saving':>7} {'F1':>6} {'95% of diff.':>14} {'words':>6} "
        f"{'95% of diff.':>14} {'PSNR':>6} {'MS-SSIM':>8} {'near':>6}"
    )
    for row in rows:
        words = "-" if row["words"] is None else f"{row['words']:.3f}"
        saving = f"{row['saving']:.1%}" if "saving" in row else "-"
        yield (
            f"{row['setting']:44} {row['bytes']:8.0f} {saving:>7} {row['f1']:6.3f}"
            f" {_interval(row, 'f1'):>14} {words:>6} {_interval(row, 'words'):>14}"
            f" {row['psnr']:6.2f} {row['ms_ssim']:8.4f} {row['near_psnr']:6.2f}"
        )


def _curves(rows: Sequence[dict[str, Any]], level: float) -> dict[str, float | None]:
    """Bytes at which each family of two settings or more reaches a level of F1."""
    families: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        families.setdefault(row["codec"], []).append((row["bytes"], row["f1"]))
    return {name: bytes_at(points, level) for name, points in families.items() if len(points) > 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", choices=PARTS, default="choose", help="which half of the photos (default choose)"
    )
    parser.add_argument("--limit", type=int, help="the first photos of the part only")
    parser.add_argument(
        "--codec",
        action="append",
        metavar="SPEC",
        help="a codec, see photo_codecs.py; repeatable (default: all of the comparison)",
    )
    parser.add_argument("--words", action="store_true", help="read the text too, not only find it")
    parser.add_argument(
        "--equal-bytes",
        nargs=2,
        metavar=("A", "B"),
        help="compare A with B at equal mean bytes instead",
    )
    parser.add_argument(
        "--at", type=float, default=50, help="quality of A for --equal-bytes (default 50)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all figures, photo by photo, to FILE"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        help="folder of the system's answers (default %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="folder with photos/ and depth/ (default %(default)s)",
    )
    options = parser.parse_args(argv)
    shared: dict[str, Any] = {"cache": options.cache, "jobs": options.jobs, "data": options.data}

    if options.equal_bytes:
        made = at_equal_bytes(
            *options.equal_bytes,
            options.at,
            options.part,
            words=options.words,
            limit=options.limit,
            **shared,
        )
        print(
            "\n".join(_table([_row(made[key], made[f"{key}_result"], None) for key in ("a", "b")]))
        )
        for name, entry in made["difference"].items():
            if entry is not None:
                print(
                    f"a - b, {name}: {entry['difference']:+.4f}, 95% {entry['interval'][0]:+.4f} to"
                    f" {entry['interval'][1]:+.4f}"
                )
        _write(options.json, made)
        return 0

    specs = list(dict.fromkeys(options.codec or DEFAULT_CODECS))
    results: dict[str, dict[str, Any]] = {}
    for spec in dict.fromkeys([REFERENCE, *specs]):
        started = time.perf_counter()
        results[spec] = evaluate(spec, options.part, options.words, options.limit, **shared)
        print(f"{spec}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    reference = results[REFERENCE]
    rows = [_row(spec, result, reference) for spec, result in results.items()]
    boxes = sum(score.reference for score in reference["per_photo"])
    print(f"{reference['photos']} photos (part {options.part}), {boxes} boxes on the sources")
    print("\n".join(_table(rows)))
    level = reference["f1"] - 0.01
    curves = _curves(rows, level)
    for name, size in curves.items():
        reached = (
            "not reached"
            if size is None
            else f"{size:.0f} bytes, {1 - size / reference['bytes']:.1%} below {REFERENCE}"
        )
        print(f"F1 {level:.3f} ({REFERENCE} less 0.01) with {name}: {reached}")
    _write(
        options.json,
        {
            "part": options.part,
            "rows": rows,
            "curves": {"level": level, "bytes": curves},
            "results": results,
        },
    )
    return 0


def _write(path: Path | None, value: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(
            json.dumps(value, indent=1, default=dataclasses.asdict) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    raise SystemExit(main())
