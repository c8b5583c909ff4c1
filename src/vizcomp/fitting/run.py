"""A fit from photos and systems to a policy with its certificate."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.djpeg.formats import check_formats
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.fitting import bounds
from vizcomp.fitting.measure import Bench, PhotoVerdict, Work
from vizcomp.fitting.policy import Certificate, CertifiedSystem, Policy, percent
from vizcomp.fitting.sample import Sample, Unit, UsedPhotos, read_sample, sample_digest, split
from vizcomp.fitting.search import Aim, Scores, Tested, certify, explore
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.formats import FORMATS
from vizcomp.photos.opencv import check_decoder
from vizcomp.vision.system import System

QUALITIES = (8, 14, 22, 32, 45, 60, 76, 90)
FAMILIES = (("uniform", 0.0, "machine"), ("depth+text", 0.25, "machine"), ("uniform", 0.0, "photo"))
SIDES = (1024, 640, 448, 320)  # longer sides of results that are tried beside all pixels
# the family of these: what a resize leaves has no smooth far parts to save on
RESIZED = ("uniform", 0.0, "photo")
# a JPEG source keeps its integers
LAST_RESORT = DjpegSettings(quality=100.0, guide="uniform", strength=0.0)
WORST = 12  # photos that a report shows


@dataclasses.dataclass(frozen=True)
class Row:
    """A setting on one part of the sample.

    Attributes:
        part: "explore" or "certify".
        units: looked at.
        bytes: mean of a file.
        loss: mean, of the system that loses most.
        p_value: of the test, None on the explore part.
        passed: the test's verdict, None on the explore part.
    """

    settings: DjpegSettings
    part: str
    units: int
    bytes: float
    loss: float
    p_value: float | None = None
    passed: bool | None = None


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What a fit came to.

    Attributes:
        policy: the certified setting.
        rows: all settings, first as explored, then as tested.
        worst: photos of the certify part that lose most under the policy, worst first.
        notices: what a user should know.
        stronger: risk to the number of photos with no changed answer that would show it.
        seconds: the whole took.
    """

    policy: Policy
    rows: tuple[Row, ...]
    worst: tuple[PhotoVerdict, ...]
    notices: tuple[str, ...]
    stronger: dict[float, int]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        rows = [
            {**dataclasses.asdict(row), "settings": row.settings.to_dict()} for row in self.rows
        ]
        worst = [
            {
                "input": one.file.shown,
                "source_bytes": one.source_bytes,
                "bytes": one.verdict.size,
                "losses": list(one.verdict.losses),
                "source_answers": list(one.source_texts),
                "answers": list(one.verdict.texts),
            }
            for one in self.worst
        ]
        stronger = [{"risk": risk, "photos": photos} for risk, photos in self.stronger.items()]
        return {
            **self.policy.to_dict(),
            "headline": self.policy.certificate.sentence,
            "rows": rows,
            "worst": worst,
            "stronger": stronger,
            "notices": list(self.notices),
            "seconds": self.seconds,
        }


def fit(
    photos: Iterable[InputFile] | Sequence[str | Path],
    systems: str | System | Sequence[str | System],
    *,
    risk: float = 0.01,
    confidence: float = 0.95,
    unit: str = "file",
    format: str = "jpeg",
    budget: float | None = None,
    jobs: int = 0,
    engine: str = "local",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    offline: bool = False,
    decoder: str = "pillow",
    on_progress: Callable[[str], None] = lambda text: None,
) -> Fitted:
    """Find the smallest setting of `djpeg` for some vision systems, with a guarantee.

    Args:
        photos: files, folders or patterns, or what `find_inputs` gives.
        systems: names as `open_system` takes them, or `vizcomp.System` objects; the guarantee holds
            for each.
        risk: the mean loss not to be exceeded, between 0 and 1: changed answers of classifiers, 1 -
            F1 of detectors.
        confidence: of the guarantee, between 0 and 1.
        unit: "file", or "folder" where photos of a folder belong together, as frames of one clip.
        format: of the files: "jpeg", "webp", "avif" or "jxl".
        budget: seconds; no further round of the search begins after so many. The certificate is not
            shortened.
        jobs, engine: as `djpeg`.
        max_pixels: larger photos are left out.
        offline: never touch the network.
        decoder: who decodes what the systems see, one of `photos.opencv.DECODERS`.
        on_progress: is told what was done so far.

    Raises:
        SettingsError: risk, confidence or unit are out of range.
        InputError: too few photos, photos that were used before, a system that gives no answer, or
            nothing passes.
        ModelError: a system is unknown.
    """
    started = time.monotonic()
    several = [systems] if isinstance(systems, str | System) else systems
    names = tuple(dict.fromkeys(one if isinstance(one, str) else one.name for one in several))
    _check(names, risk, confidence, budget)
    _check_format(format, decoder)
    work = Work(
        systems=names,
        jobs=jobs,
        engine=engine,
        max_pixels=max_pixels,
        offline=offline,
        decoder=decoder,
    )
    opened = work.open()
    sample = read_sample(_files(photos), unit=unit, max_pixels=max_pixels)
    first, second = split(sample.units)
    binary = tuple(system.kind == "classes" and unit == "file" for system in opened)
    aim = Aim(risk, confidence, len(second), binary)
    _check_size(sample, first, aim, unit)
    used = UsedPhotos([f"{system.kind} {system.fingerprint}" for system in opened])
    used.check(second)

    bench = Bench(work)
    sequence, explored = explore(
        ladders(format),
        len(first),
        lambda settings, some: bench.scores(settings, [first[i] for i in some]),
        aim,
        go_on=lambda: budget is None or time.monotonic() - started < budget,
        tell=lambda scores: on_progress(_best_so_far(scores, risk)),
    )
    notices = _notices(sample, bench, opened)
    sequence = refined(sequence)
    used.add(second)
    tests = []
    for test in certify(sequence, lambda one: _on_all(bench, one, second), aim):
        tests.append(test)
        verdict = "holds" if test.passed else "does not hold"
        on_progress(f"certify: {named(test.setting)}: mean loss {test.scores.worst:.4f}, {verdict}")
    passed = [test for test in tests if test.passed]
    if not passed:
        _nothing_passed(tests[0], aim)
    best = min(passed, key=lambda test: float(test.scores.sizes.mean()))
    policy = _policy(best, bench, work, opened, aim, unit, second)
    rows = [_row(one, "explore", scores) for one, scores in explored.items()]
    rows += [_row(test.setting, "certify", test.scores, test) for test in tests]
    worst = sorted(bench.verdicts[best.setting], key=lambda one: -max(one.verdict.losses))[:WORST]
    notices += [f"left out: {reason}" for reason in (*sample.unread, *bench.unread.values())]
    return Fitted(
        policy,
        tuple(rows),
        tuple(worst),
        tuple(notices),
        _stronger(aim),
        time.monotonic() - started,
    )


def ladders(format: str = "jpeg") -> list[list[DjpegSettings]]:
    """The candidates: for each kind of setting a ladder of qualities, and above them the last
    resort.

    Sides have ladders of their own, which a first round over few photos thins out. Tables are of
    JPEG alone, so that other formats have a family for each guide.
    """
    kinds = (
        FAMILIES
        if format == "jpeg"
        else tuple({guide: (guide, s, "auto") for guide, s, _ in FAMILIES}.values())
    )
    families = [
        [
            DjpegSettings(
                quality=float(q),
                guide=guide,
                strength=strength,
                table=table,  # type: ignore[arg-type]
                format=format,  # type: ignore[arg-type]
            )
            for q in QUALITIES
        ]
        for guide, strength, table in kinds
    ]
    own = dict(zip(("guide", "strength", "table"), RESIZED, strict=True))
    families += [
        [DjpegSettings(quality=float(q), max_side=side, format=format, **own) for q in QUALITIES]  # type: ignore[arg-type]
        for side in SIDES
    ]
    last = dataclasses.replace(LAST_RESORT, format=format)  # type: ignore[arg-type]
    return [[*family, last] for family in families]


def _is_last(one: DjpegSettings) -> bool:
    return dataclasses.replace(one, format=LAST_RESORT.format) == LAST_RESORT


def refined(sequence: Sequence[DjpegSettings]) -> list[DjpegSettings]:
    """A sequence with a step between each two of its qualities, and one below the last."""
    finer: list[DjpegSettings] = []
    for one in sequence:
        if finer and not _is_last(finer[-1]):
            finer.append(_between(finer[-1], one.quality))
        finer.append(one)
    last = sequence[-1]
    below = max((q for q in QUALITIES if q < last.quality), default=0)
    if below and not _is_last(last):
        finer.append(_between(last, below))
    return finer


def _between(one: DjpegSettings, quality: float) -> DjpegSettings:
    return dataclasses.replace(one, quality=float(round((one.quality * quality) ** 0.5)))


def named(settings: DjpegSettings) -> str:
    """A setting for people."""
    guide = settings.guide if settings.strength else "no guide"
    kind = f"{settings.table} table" if settings.format == "jpeg" else settings.format
    side = f", side {settings.max_side}" if settings.max_side else ""
    return f"quality {settings.quality:g}, {guide}, {kind}{side}"


def _files(photos: Iterable[InputFile] | Sequence[str | Path]) -> Iterable[InputFile]:
    listed: list[Any] = [photos] if isinstance(photos, str | Path) else list(photos)
    if any(not isinstance(one, InputFile) for one in listed):
        return find_inputs(listed)
    return listed


def _check_format(format: str, decoder: str) -> None:
    if format not in (*FORMATS, "jpeg"):
        raise SettingsError(
            f"a policy has one format, not {format!r}", f"use jpeg, {', '.join(FORMATS)}"
        )
    check_formats(DjpegSettings(format=format))  # type: ignore[arg-type]
    check_decoder(decoder, (format,))


def _check(names: Sequence[str], risk: float, confidence: float, budget: float | None) -> None:
    if not names:
        raise SettingsError("no vision system is named", "give `system` NAME, once for each system")
    if not 0 < risk < 1:
        raise SettingsError(
            f"a risk of {percent(risk)} cannot be certified",
            "use one between 0% and 100%, as `risk` 1%",
        )
    if not 0.5 <= confidence < 1:
        raise SettingsError(
            f"a confidence of {percent(confidence)} says nothing", "use 50% or more, below 100%"
        )
    if budget is not None and budget <= 0:
        raise SettingsError("the budget must be more than no time", "write it as `budget` 30min")


def _check_size(sample: Sample, first: Sequence[Unit], aim: Aim, unit: str) -> None:
    """Refuse to pretend where even no change at all would not be enough."""
    if aim.reachable and first:
        return
    what = "photos" if unit == "file" else "folders"
    count = aim.certify
    needed = bounds.photos_needed(aim.risk, aim.confidence)
    while not dataclasses.replace(aim, certify=needed).reachable:  # betting needs a few more
        needed += 1
    total = -(-needed * 10 // 7) + 1
    least = 1 - (1 - aim.confidence) ** (1 / count) if count else 1.0
    twins = (
        f" ({sample.duplicates} more have the same bytes as another)" if sample.duplicates else ""
    )
    raise InputError(
        f"{len(sample.units)} different {what} are too few{twins}: {percent(aim.risk)} at"
        f" {percent(aim.confidence)} needs {needed} unchanged to certify with, about {total}"
        " in all",
        f"add {what}" + (f", or ask for a `risk` above {percent(least)}" if count > 1 else ""),
    )


def _best_so_far(scores: dict[DjpegSettings, Scores], risk: float) -> str:
    units = max(len(one.sizes) for one in scores.values())
    good = [
        (float(one.sizes.mean()), setting) for setting, one in scores.items() if one.worst <= risk
    ]
    if not good:
        return f"explore: {units} photos, no setting holds so far"
    size, setting = min(good, key=lambda pair: pair[0])
    return f"explore: {units} photos, best so far {named(setting)}: {size:,.0f} bytes"


def _notices(sample: Sample, bench: Bench, systems: Sequence[System]) -> list[str]:
    notices = []
    if sample.duplicates:
        notices.append(
            f"{sample.duplicates} photos have the same bytes as another: they count once"
        )
    for system, share in zip(systems, bench.empty(), strict=True):
        if share == 1:
            raise InputError(
                f"{system.name} finds nothing on any photo that was looked at: there is no answer"
                " to keep",
                "give photos with something to find, or look at how the model is read",
            )
        if share > 0:
            notices.append(
                f"{system.name} finds nothing on {percent(round(share, 3))} of the photos: no box"
                " there is no change"
            )
    return notices


def _on_all(bench: Bench, setting: DjpegSettings, units: Sequence[Unit]) -> Scores:
    bench.verdicts.pop(setting, None)  # those of the explore part
    return bench.scores([setting], units)[setting]


def _nothing_passed(test: Tested[DjpegSettings], aim: Aim) -> None:
    raise InputError(
        f"nothing can be certified: even {named(test.setting)} has a mean loss of"
        f" {test.scores.worst:.4f} on {len(test.scores.sizes)} photos",
        f"ask for a larger `risk` than {percent(aim.risk)}, or fit again with more, and fresh,"
        " photos",
    )


def _policy(
    best: Tested[DjpegSettings],
    bench: Bench,
    work: Work,
    systems: Sequence[System],
    aim: Aim,
    unit: str,
    units: Sequence[Unit],
) -> Policy:
    rows = bench.verdicts[best.setting]
    changed = [sum(row.verdict.changed[i] for row in rows) for i in range(len(systems))]
    if unit == "folder":  # units in which any answer changed, which is what the sample counts
        changed = [int(np.count_nonzero(losses)) for losses in best.scores.losses]
    kinds = ["changed answers" if system.kind == "classes" else "1 - F1" for system in systems]
    certificate = Certificate(
        risk=aim.risk,
        confidence=aim.confidence,
        photos=len(best.scores.sizes),
        changed=max(changed),
        bound=round(aim.upper(best.scores.losses), 6),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        loss=" and ".join(sorted(set(kinds), reverse=True)),
        mean_loss=round(best.scores.worst, 6),
        unit=unit,
        sample=sample_digest(units),
        bytes=round(float(np.mean([row.verdict.size for row in rows]))),
        source_bytes=round(float(np.mean([row.source_bytes for row in rows]))),
        decoder=work.decoder,
    )
    certified = tuple(
        CertifiedSystem(
            name=work.systems[i],
            fingerprint=system.fingerprint,
            reading=str(getattr(system, "reading", "")),
            kind=system.kind,
            changed=changed[i],
            mean_loss=round(float(best.scores.losses[i].mean()), 6),
        )
        for i, system in enumerate(systems)
    )
    return Policy(settings=best.setting, certificate=certificate, systems=certified)


def _row(
    settings: DjpegSettings, part: str, scores: Scores, test: Tested[DjpegSettings] | None = None
) -> Row:
    size = float(scores.sizes.mean())
    value, passed = (None, None) if test is None else (test.p_value, test.passed)
    return Row(settings, part, len(scores.sizes), size, scores.worst, value, passed)


def _stronger(aim: Aim) -> dict[float, int]:
    return {
        risk: bounds.photos_needed(risk, aim.confidence)
        for risk in (0.05, 0.02, 0.01, 0.005, 0.001)
        if risk < aim.risk
    }
