"""Points of rate and accuracy from the results of images; intervals; bytes at equal accuracy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.evaluation.bd_rate import bd_rate
from vizcomp.evaluation.data import EvalData
from vizcomp.evaluation.results import EvalPoint
from vizcomp.evaluation.tasks import ImageResult
from vizcomp.metrics import bits_per_pixel
from vizcomp.vision.answers import COUNTED, Answer, Classes, is_empty
from vizcomp.vision.boxes import box_score
from vizcomp.vision.system import System

DRAWS = 1000  # of the bootstrap

LEAST_POINTS = 6  # for a BD-rate

LEVELS = (0.99, 0.95, 0.9, 0.8)  # shares of the accuracy on the sources at which bytes are compared


@dataclasses.dataclass
class PointSum:
    """What is collected for one point."""

    rows: list[ImageResult] = dataclasses.field(default_factory=list)
    encoding: float = 0.0
    decoding: float = 0.0
    failed: int = 0


def no_answer(answer: Answer | None) -> bool:
    return answer is None or is_empty(answer)


def _numbers(system: System, data: EvalData) -> list[int] | None:
    """For each of the data's classes its number in the system's answers; None where labels say
    nothing about it."""
    if (
        data.labels is None
        or system.kind != "classes"
        or not set(data.classes) <= set(system.classes)
    ):
        return None
    return [system.classes.index(name) for name in data.classes]


def accuracy_on_sources(
    system: System, answers: Sequence[Answer | None], data: EvalData
) -> float | None:
    numbers = _numbers(system, data)
    if numbers is None or data.labels is None:
        return None
    right = [
        isinstance(a, Classes) and a.best == numbers[label]
        for a, label in zip(answers, data.labels, strict=True)
    ]
    return sum(right) / len(right)


def summed_point(
    series: str,
    setting: str,
    ours: bool,
    one: PointSum,
    data: EvalData,
    systems: Sequence[System],
    seed: int,
) -> EvalPoint:
    rows = one.rows
    count = len(rows)
    accuracy: dict[str, float | None] = {}
    agreement: dict[str, float | None] = {}
    top5: dict[str, float | None] = {}
    recall: dict[str, float | None] = {}
    precision: dict[str, float | None] = {}
    interval: dict[str, tuple[float, float] | None] = {}
    for at, system in enumerate(systems):
        compared = [c for r in rows if (c := r.comparisons[at]) is not None]
        accuracy[system.name] = top5[system.name] = recall[system.name] = precision[system.name] = (
            None
        )
        agreement[system.name] = interval[system.name] = None
        if not compared:
            continue
        if system.kind in COUNTED:
            counts = np.array([(c.matched, c.reference, c.found) for c in compared], float)
            score = box_score(*(int(x) for x in counts.sum(0)))
            agreement[system.name], recall[system.name], precision[system.name] = (
                score.f1,
                score.recall,
                score.precision,
            )
            interval[system.name] = _bootstrap_f1(counts, seed)
            continue
        same = np.array([c.same for c in compared], float)
        agreement[system.name] = float(same.mean())
        top5[system.name] = sum(r.within5[at] for r in rows) / count
        numbers = _numbers(system, data)
        if numbers is not None and data.labels is not None:
            same = np.array([r.best[at] == numbers[data.labels[r.index]] for r in rows], float)
            accuracy[system.name] = float(same.mean())
        interval[system.name] = _share_interval(same)
    finite = [r.psnr for r in rows if math.isfinite(r.psnr)]
    pixels = sum(data.shapes[r.index][0] * data.shapes[r.index][1] for r in rows)
    size = sum(r.size for r in rows)
    return EvalPoint(
        codec=series,
        setting=setting,
        ours=ours,
        images=count,
        failed=one.failed,
        bytes_per_image=size / count,
        payload_bytes_per_image=sum(r.payload for r in rows) / count,
        bpp=bits_per_pixel(size, pixels),
        accuracy=accuracy,
        agreement=agreement,
        top5=top5,
        recall=recall,
        precision=precision,
        interval=interval,
        psnr=sum(finite) / len(finite) if finite else None,
        ms_ssim=sum(r.ms_ssim for r in rows) / count,
        encode_seconds=one.encoding / count,
        decode_seconds=one.decoding / count,
    )


def _share_interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95% interval of the mean of zeros and ones by its score (Wilson 1927): of 6 alike of 6 it
    says 61% to 100%, where drawing from the 6 would say 100%."""
    count, share, z = len(values), float(values.mean()), 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z
        * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
        / (1 + z * z / count)
    )
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _bootstrap_f1(counts: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """The same for F1 by bootstrap (Efron 1979): whole images are drawn, with their boxes. Where
    all are alike, drawing tells nothing, and the lower end is that of so many images that are
    right."""
    drawn = (
        np.random.default_rng(seed).multinomial(
            len(counts), np.full(len(counts), 1 / len(counts)), DRAWS
        )
        @ counts
    )
    both = drawn[:, 1] + drawn[:, 2]
    scores = np.where(both > 0, 2 * drawn[:, 0] / np.maximum(both, 1), 1.0)
    low, high = np.percentile(scores, (2.5, 97.5))
    if high - low < 1e-9:
        low *= _share_interval(np.ones(len(counts)))[0]
    return float(low), float(high)


def point_value(point: EvalPoint, measure: str) -> float | None:
    kind, _, name = measure.partition(":")
    if kind == "psnr":
        return point.psnr
    if kind == "ms_ssim":
        return point.ms_ssim
    return (point.accuracy if kind == "accuracy" else point.agreement).get(name)


def point_measures(points: Sequence[EvalPoint], systems: Sequence[System]) -> list[str]:
    """For each system its accuracy, or its agreement where there is none."""

    def measure(name: str) -> str:
        measured = any(p.accuracy.get(name) is not None for p in points)
        return "accuracy" if measured else "agreement"

    return [f"{measure(s.name)}:{s.name}" for s in systems]


def rate_curves(points: Sequence[EvalPoint]) -> dict[str, list[EvalPoint]]:
    curves: dict[str, list[EvalPoint]] = {}
    for point in points:
        curves.setdefault(point.codec, []).append(point)
    return curves


def bd_rates(points: Sequence[EvalPoint], systems: Sequence[System]) -> list[dict[str, Any]]:
    """Each of our curves against each baseline, by each measure."""
    curves = rate_curves(points)
    rows = []
    for mine in (c for c, some in curves.items() if some[0].ours):
        for anchor in (c for c, some in curves.items() if not some[0].ours):
            for measure in ("psnr", "ms_ssim", *point_measures(points, systems)):
                rows.append(
                    {
                        "codec": mine,
                        "anchor": anchor,
                        "measure": measure,
                        **_bd_rate(curves[anchor], curves[mine], measure),
                    }
                )
    return rows


def _bd_rate(
    anchor: Sequence[EvalPoint], mine: Sequence[EvalPoint], measure: str
) -> dict[str, Any]:
    sides = []
    for curve in (anchor, mine):
        pairs = [
            (p.bytes_per_image, v) for p in curve if (v := point_value(p, measure)) is not None
        ]
        sides.append(pairs)
    none = {"bd_rate": None, "overlap": None}
    short = min(len(pairs) for pairs in sides)
    if short < LEAST_POINTS:
        return {**none, "why": f"a curve has {short} points; {LEAST_POINTS} are needed"}
    (rate_a, value_a), (rate_b, value_b) = (tuple(zip(*pairs, strict=True)) for pairs in sides)
    low, high = max(min(value_a), min(value_b)), min(max(value_a), max(value_b))
    if low >= high:
        return {**none, "why": "no overlap"}
    try:
        rate = bd_rate(rate_a, value_a, rate_b, value_b)
    except ValueError as exc:
        return {**none, "why": str(exc)}
    return (
        {"bd_rate": rate, "overlap": [low, high], "why": ""}
        if math.isfinite(rate)
        else {**none, "why": "no overlap"}
    )


def bytes_at(points: Sequence[EvalPoint], measure: str, level: float) -> float | None:
    """The fewest bytes at which a curve reaches a level: linear in the logarithm of bytes between
    neighbouring points.

    None where no point reaches it; the size of the smallest point where that one does already.
    """
    pairs = sorted(
        (p.bytes_per_image, v) for p in points if (v := point_value(p, measure)) is not None
    )
    for at, (size, value) in enumerate(pairs):
        if value < level:
            continue
        if at == 0:
            return size
        before, low = pairs[at - 1]
        share = (level - low) / (value - low)
        return math.exp(math.log(before) + share * (math.log(size) - math.log(before)))
    return None


def top_value(
    measure: str,
    systems: Sequence[System],
    data: EvalData,
    answers: Sequence[Sequence[Answer | None]],
) -> float:
    """What the sources themselves reach: their accuracy, or 1 for agreement."""
    kind, _, name = measure.partition(":")
    if kind != "accuracy":
        return 1.0
    at = next(i for i, s in enumerate(systems) if s.name == name)
    return accuracy_on_sources(systems[at], answers[at], data) or 0.0


def bytes_at_levels(
    points: Sequence[EvalPoint],
    systems: Sequence[System],
    data: EvalData,
    answers: Sequence[Sequence[Answer | None]],
) -> list[dict[str, Any]]:
    curves = rate_curves(points)
    rows = []
    for measure in point_measures(points, systems):
        top = top_value(measure, systems, data, answers)
        for share in LEVELS:
            for mine in (c for c, some in curves.items() if some[0].ours):
                for anchor in (c for c, some in curves.items() if not some[0].ours):
                    our_bytes, theirs = (
                        bytes_at(curves[c], measure, share * top) for c in (mine, anchor)
                    )
                    saving = None if our_bytes is None or theirs is None else 1 - our_bytes / theirs
                    rows.append(
                        {
                            "measure": measure,
                            "level": share * top,
                            "codec": mine,
                            "bytes": our_bytes,
                            "anchor": anchor,
                            "anchor_bytes": theirs,
                            "saving": saving,
                        }
                    )
    return rows
