"""Headline, warnings, examples and versions for the report."""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vizcomp.evaluation.data import EvalData, Pixels, chunk_size
from vizcomp.evaluation.points import (
    PointSum,
    bytes_at,
    no_answer,
    point_measures,
    point_value,
    rate_curves,
    top_value,
)
from vizcomp.evaluation.results import EvalExample, EvalPoint
from vizcomp.evaluation.tasks import ImageResult, system_answers, worker_codec
from vizcomp.files.place import printable
from vizcomp.photos.encode import encode_plain_jpeg, encode_png
from vizcomp.photos.frame import thumbnail
from vizcomp.vision.answers import COUNTED, Answer, Boxes, Keypoints, Text, compare
from vizcomp.vision.gist import gist
from vizcomp.vision.one_answer import NOTHING, Hearing, about
from vizcomp.vision.options import model_path
from vizcomp.vision.system import System

GALLERY = 24

SAME_ENOUGH = 0.95  # the headline's point: the fewest bytes that surely keep this share
FEW = 100  # images; from fewer the headline says so
PLAIN = "jpeg optimised"
_BASELINES = {PLAIN: "optimised JPEG", "jpeg": "plain JPEG"}

# The original study of 2020: its own evaluation log (47.1% at 128 bits) and report (that code lay
# in a 410-byte archive).
STUDY = (
    {
        "name": "study 2020, code alone",
        "bytes": 16.0,
        "value": 0.471,
        "source": "its evaluation log: 128 bits an image",
    },
    {
        "name": "study 2020, file as stored",
        "bytes": 410.0,
        "value": 0.471,
        "source": "its report: .npz archives of 410 bytes",
    },
)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def short_name(name: str) -> str:
    """A system's name for a sentence or the head of a table: of a model's path its file."""
    path = model_path(name)
    return name if path is None else printable(path.name)


def headline_of(
    points: Sequence[EvalPoint],
    equal: Sequence[dict[str, Any]],
    systems: Sequence[System],
    data: EvalData,
    answers: Sequence[Sequence[Answer | None]],
) -> str:
    """What a buyer asks: how much each system keeps, with its interval, at what bytes, and what
    others need for that.

    The point is the cheapest of our first codec that keeps `SAME_ENOUGH` by the lower end of its
    interval, not by luck.
    """
    curves = rate_curves(points)
    mine = next((c for c, some in curves.items() if some[0].ours), None)
    others = {c: some for c, some in curves.items() if not some[0].ours}
    if mine is None:
        return "No codec of vizcomp was measured." if points else "Nothing was measured."
    measures = point_measures(points, systems)
    top, first = top_value(measures[0], systems, data, answers), systems[0].name
    able = [
        p
        for p in curves[mine]
        if (interval := p.interval.get(first)) is not None and interval[0] >= SAME_ENOUGH * top
    ]
    point = (
        min(able, key=lambda p: p.bytes_per_image)
        if able
        else max(curves[mine], key=lambda p: point_value(p, measures[0]) or 0)
    )
    size = _Sizes(data.about["source_bytes_per_image"])
    parts: list[tuple[str, str]] = []
    for at, (system, measure) in enumerate(zip(systems, measures, strict=True)):
        value = point_value(point, measure)
        if value is None:
            continue
        who = f"unseen {short_name(system.name)}" if at else short_name(system.name)
        if system.kind in COUNTED and all(no_answer(a) for a in answers[at]):
            parts.append((f"{who} finds nothing on any source", "there is nothing to keep"))
            continue
        kept = (
            f"{who}"
            f" {_kept(system, measure, value, point, top_value(measure, systems, data, answers))}"
        )
        needs = {
            c: b for c, some in others.items() if (b := bytes_at(some, measure, value)) is not None
        }
        rivals = [
            name
            for name in (PLAIN, min(needs, key=lambda c: needs[c], default=""))
            if name in needs
        ]
        against = " and ".join(
            f"{_BASELINES.get(name, name)} needs {size(needs[name])}"
            for name in dict.fromkeys(rivals)
        )
        none = "no baseline reaches that" if others else ""
        parts.append((f"{kept} at {size(point.bytes_per_image)}{size.unit}", against or none))
    quality = f" PSNR there is {point.psnr:.1f} dB." if point.psnr is not None else ""
    few = f" From {point.images:,} images alone, which prove little." if point.images < FEW else ""
    surely = "" if able else f" No setting of it surely keeps {SAME_ENOUGH:.0%}."
    if not parts:
        return f"{mine}: no system answered."
    (claim, against), *unseen = parts
    said = [against, *("; ".join(filter(None, part)) for part in unseen)]
    rest = " ".join(f"{part[:1].upper()}{part[1:]}." for part in said if part)
    return f"{claim}, by {mine}{f': {rest}' if rest else '.'}{quality}{surely}{few}"


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Bytes for people: as a share of the sources' own files where these are files, else as they
    are."""

    source: float | None

    @property
    def unit(self) -> str:
        return " of the sources' bytes" if self.source else " an image"

    def __call__(self, size: float) -> str:
        return f"{100 * size / self.source:.0f}%" if self.source else f"{size:,.0f} bytes"


def _kept(system: System, measure: str, value: float, point: EvalPoint, top: float) -> str:
    interval = point.interval.get(system.name)
    low_high = (
        f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval is not None else ""
    )
    if measure.startswith("accuracy"):
        return (
            f"is right on {_percent(value)}{low_high} of the images, {_percent(top)} on the"
            " sources,"
        )
    what = {"boxes": "boxes", "keypoints": "figures", "text": "words"}.get(system.kind)
    return (
        f"keeps {_percent(value)}{low_high} of its {what} (F1)"
        if what
        else f"keeps {_percent(value)}{low_high} of its answers"
    )


def warnings_of(
    points: Sequence[EvalPoint],
    errors: Sequence[str],
    data: EvalData,
    answers: Sequence[Sequence[Answer | None]],
    systems: Sequence[System],
) -> list[str]:
    warnings = []
    for system, some in zip(systems, answers, strict=True):
        if one := one_answer_of(some, data):
            warnings.append(f"{about(system.name, **one)}.")
        elif empty := sum(no_answer(a) for a in some):
            warnings.append(
                f"{system.name} finds nothing on {empty:,} of {len(some):,} sources: "
                "a result there is the same if it finds nothing too."
            )
    if errors:
        counts = collections.Counter(errors)
        first, many = counts.most_common(1)[0]
        more = f" ({many} times)" if many > 1 else ""
        warnings.append(
            f"{len(errors):,} times something failed and was left out, most often: {first}{more}."
        )
    if data.labels is None:
        warnings.append(
            "The images have no labels: agreement with each system's own answer on the source"
            " replaces accuracy."
        )
    source = data.about["source_bytes_per_image"]
    if source and points and all(p.bytes_per_image >= source for p in points):
        warnings.append(
            f"No setting gives files smaller than the sources ({source:,.0f} bytes an image)."
        )
    return warnings


def one_answer_of(answers: Sequence[Answer | None], data: EvalData) -> dict[str, Any] | None:
    """What a system answers on all sources alike, as `one_answer.Hearing.found`; None where answers
    differ, or are too few to tell."""
    hearing = Hearing()
    for index, answer in enumerate(answers):
        said = NOTHING if answer is None else gist(answer)
        hearing.add({"": said}, zlib.crc32(data.image(index).data))
        if not hearing.systems[""].one:
            return None
    return hearing.found().get("")


def study_points(data: EvalData, systems: Sequence[System]) -> list[dict[str, Any]]:
    """The original study's published points, where the data are CIFAR-10 and the first system a
    classifier of it."""
    if (
        data.labels is None
        or "airplane" not in data.classes
        or len(data.classes) != 10
        or systems[0].kind != "classes"
    ):
        return []
    return [{**row, "measure": f"accuracy:{systems[0].name}"} for row in STUDY]


def package_versions() -> dict[str, str]:
    versions = {}
    for name in ("vizcomp", "torch", "numpy", "pillow", "onnxruntime", "torchvision", "rapidocr"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def example_gallery(
    sums: Sequence[tuple[str, EvalPoint, PointSum]],
    data: EvalData,
    systems: Sequence[System],
    answers: Sequence[Sequence[Answer | None]],
) -> list[EvalExample]:
    """The images on which our first codec's middle setting lost most for the systems, worst
    first."""
    mine = [(name, point, one) for name, point, one in sums if point.ours]
    if not mine:
        return []
    curve = sorted(
        (x for x in mine if x[1].codec == mine[0][1].codec), key=lambda x: x[1].bytes_per_image
    )
    name, point, one = curve[len(curve) // 2] if name_is_photo(curve[0][0]) else curve[0]

    def score(row: ImageResult) -> float:
        scores = [c.score for c in row.comparisons if c is not None]
        return sum(scores) / len(scores) if scores else 0.0

    worst = sorted(one.rows, key=lambda r: (score(r), r.index))[:GALLERY]
    codec = worker_codec(name)
    results: list[Pixels | None] = []
    step = chunk_size(data)
    for some in (worst[i : i + step] for i in range(0, len(worst), step)):
        sweeps = codec.sweep(
            [data.image(r.index) for r in some], len(data), [data.originals[r.index] for r in some]
        )
        results += next(
            s for s in sweeps if (s.series or codec.name, s.setting) == (point.codec, point.setting)
        ).results
    examples = []
    for row, result in zip(worst, results, strict=True):
        source = data.image(row.index)
        if result is None:
            continue
        texts: dict[str, tuple[str, str, bool]] = {}
        boxes: dict[str, Any] = {}
        for system, scores in zip(systems, answers, strict=True):
            before, after = scores[row.index], system_answers(system, [result], [], _NO_TASK)[0]
            if before is None or after is None:
                continue
            texts[system.name] = before.words(), after.words(), compare(before, after).same
            if isinstance(before, Boxes | Keypoints | Text) and isinstance(
                after, Boxes | Keypoints | Text
            ):
                scale = np.array([source.shape[1], source.shape[0]], float)
                boxes[system.name] = tuple(
                    [[(float(x), float(y)) for x, y in q / scale] for q in b.quads]
                    for b in (before, after)
                )
        examples.append(
            EvalExample(
                name=data.names[row.index],
                codec=point.codec,
                setting=point.setting,
                result_bytes=round(row.size),
                source_bytes=round(data.about["source_bytes_per_image"] or 0),
                source=_picture(source),
                result=_picture(result),
                answers=texts,
                boxes=boxes,
                score=score(row),
            )
        )
    return examples


_NO_TASK: Any = None


def name_is_photo(codec: str) -> bool:
    """Whether a codec's middle setting is its usual one; of a codec of few bytes it is the
    first."""
    return not codec.startswith("cifar-label")


def _picture(pixels: Pixels) -> bytes:
    """Small images as PNG, exactly; photos as a small JPEG."""
    if max(pixels.shape[:2]) <= 128:
        return encode_png(pixels)
    return encode_plain_jpeg(thumbnail(pixels, long_side=640), quality=85)
