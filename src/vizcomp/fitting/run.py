"""A fit from photos and systems to a policy with its certificate."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp._version import __version__
from vizcomp.batch.judges import beside
from vizcomp.djpeg.settings import RESAMPLES, DjpegSettings
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.fitting import bounds
from vizcomp.fitting.candidates import Candidate, Input, formats_of, is_last, ladders, named, pixels_of, refined
from vizcomp.fitting.measure import Bench, Watch, Work
from vizcomp.fitting.memory import Memory, key_of
from vizcomp.fitting.policy import (
    Certificate,
    CertifiedSystem,
    Policy,
    Stratum,
    encoder_fingerprint,
    loss_of,
    percent,
)
from vizcomp.fitting.result import Fitted, Row, stronger, worst_of
from vizcomp.fitting.rivals import rival_rows
from vizcomp.fitting.sample import Sample, Unit, UsedPhotos, read_sample, sample_digest, split
from vizcomp.fitting.scores import Aim, Outlook, Scores
from vizcomp.fitting.search import Round, Tested, certify, explore
from vizcomp.fitting.truth import Truths, read_truths
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.vision.system import System

WORST = 12  # photos that a report shows
TESTS = 5  # settings that the certify part is looked at with, about: what a budget has to leave time for


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What is asked of a fit; see `fit`.

    Raises:
        SettingsError: a value is out of its range.
    """

    risk: float = 0.01
    confidence: float = 0.95
    unit: str = "file"
    by: str = ""
    labels: str = ""
    format: str = "auto"
    readers: str = ""
    rivals: bool = True
    budget: float | None = None
    resume: bool = False
    jobs: int = 0
    engine: str = "local"
    max_pixels: int = DEFAULT_MAX_PIXELS
    offline: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.risk < 1:
            raise SettingsError(
                f"a risk of {percent(self.risk)} cannot be certified", "use one between 0% and 100%, as `risk` 1%"
            )
        if not 0.5 <= self.confidence < 1:
            raise SettingsError(f"a confidence of {percent(self.confidence)} says nothing", "use 50% or more, below 100%")
        if self.budget is not None and self.budget <= 0:
            raise SettingsError("the budget must be more than no time", "write it as `budget` 30min")
        if self.by and self.unit == "folder":
            raise SettingsError(
                "`by` folder and `unit` folder contradict each other",
                "a folder is either what is drawn, as a clip, or where photos are drawn from, as a camera",
            )


def fit(
    photos: Iterable[InputFile] | Sequence[str | Path],
    systems: str | System | Sequence[str | System],
    *,
    on_progress: Callable[[str], None] = lambda text: None,
    **asked: Any,
) -> Fitted:
    """Find the smallest setting of `djpeg` for some vision systems, with a guarantee.

    Args:
        photos: files, folders or patterns, or what `find_inputs` gives.
        systems: names as `open_system` takes them, or `vizcomp.System` objects; the guarantee holds for each.
        on_progress: is told what was done so far.
        risk: the mean loss not to be exceeded, between 0 and 1 (default 0.01): changed answers of classifiers, 1 - F1 of
            detectors.
        confidence: of the guarantee, between 0.5 and 1 (default 0.95).
        unit: "file" (default), or "folder" where photos of a folder belong together, as frames of one clip.
        by: "folder": the guarantee holds in each folder by itself, as of a camera or a site; "" (default) for all together.
        labels: "folders", or a file or folder of labels: what counts is how right answers are, not whether they change.
        format: "auto" (default) for the best of those that all readers open, or "jpeg", "webp", "avif", "jxl".
        readers: who must open the files, as "pillow,opencv"; "" for those of `djpeg`'s `format` auto.
        rivals: compare with JPEG, WebP and AVIF, each with its own certified setting (default).
        budget: seconds. The search leaves time for the certificate, which is not shortened; None for no limit.
        resume: go on with a fit of the very same photos and settings that was interrupted.
        jobs, engine: as `djpeg`.
        max_pixels: larger photos are left out.
        offline: never touch the network.

    Raises:
        SettingsError: a value is out of its range.
        InputError: too few photos, photos that were used before, a system that gives no answer, or nothing passes.
        ModelError: a system is unknown.
    """
    several = [systems] if isinstance(systems, str | System) else systems
    names = tuple(dict.fromkeys(one if isinstance(one, str) else one.name for one in several))
    if not names:
        raise SettingsError("no vision system is named", "give `system` NAME, once for each system")
    return _Fit(names, FitSettings(**asked), on_progress).run(_files(photos))


class _Fit:
    """One fit, from its photos to its result."""

    def __init__(self, names: tuple[str, ...], asked: FitSettings, say: Callable[[str], None]) -> None:
        self._started = time.monotonic()
        self._names, self._asked, self._say = names, asked, say
        self._formats, self._notices = formats_of(asked.format, asked.readers)
        self._work = Work(systems=names, jobs=asked.jobs, engine=asked.engine, max_pixels=asked.max_pixels, offline=asked.offline)
        self._systems = self._work.open()
        self._losses = [loss_of(system.kind, labels=bool(asked.labels)) for system in self._systems]

    def run(self, files: Iterable[InputFile]) -> Fitted:
        asked = self._asked
        files, truths = self._labelled(files)
        sample = read_sample(files, unit=asked.unit, max_pixels=asked.max_pixels, by=asked.by)
        first, second, aim = self._parts(sample)
        key = self._key(sample, truths)
        used = UsedPhotos([f"{system.kind} {system.fingerprint}" for system in self._systems])
        used.check(second, key)
        if not asked.resume and used.begun(second, key):
            raise InputError(
                "this very fit looked at its photos to certify with before, and may not look again",
                "`resume` goes on with it, or gives its result once more",
            )
        memory = Memory(key, resume=asked.resume)
        try:
            if asked.resume and not memory.found:
                self._notices.append("there is nothing to resume: no fit of these photos and settings was interrupted")
            if truths is not None:
                self._work = dataclasses.replace(self._work, truths=truths.by_file)
            bench = Bench(self._work, groups={name: i for i, name in enumerate(self._strata)}, memory=memory)
            return self._found(bench, memory, used, key, sample, first, second, aim, truths)
        finally:
            memory.close()

    def _labelled(self, files: Iterable[InputFile]) -> tuple[Iterable[InputFile], Truths | None]:
        if not self._asked.labels:
            return files, None
        listed = list(files)
        truths = read_truths(self._asked.labels, listed)
        self._notices += truths.notices
        return [file for file in listed if file in truths.by_file], truths

    def _parts(self, sample: Sample) -> tuple[list[Unit], list[Unit], Aim]:
        """The explore and the certify part, without strata of which nothing could be shown."""
        asked = self._asked
        first, second = split(sample.units)
        binary = tuple(system.kind == "classes" and asked.unit == "file" for system in self._systems)
        aim = Aim(asked.risk, asked.confidence, len(second), binary)
        counts = collections.Counter(unit.group for unit in second)
        self._strata = sorted(group for group, count in counts.items() if aim.reachable_with(count)) if asked.by else []
        if asked.by and self._strata:
            for group in sorted(set(counts) - set(self._strata)):
                self._notices.append(
                    f"the folder {group} has too few photos, {counts[group]} to certify with: the certificate is not about it"
                )
            first, second = ([unit for unit in part if unit.group in self._strata] for part in (first, second))
            aim = dataclasses.replace(aim, certify=len(second), groups=tuple(counts[group] for group in self._strata))
        if not (aim.reachable and first) or (asked.by and not self._strata):
            _too_few(sample, max(counts.values(), default=0) if asked.by else len(second), aim, asked)
        may = f"{aim.allowed} changed answers may pass" if all(binary) else f"a mean loss somewhat below {asked.risk:g} may pass"
        in_each = f" in the smallest of {len(self._strata)} folders" if self._strata else ""
        what = "photos" if asked.unit == "file" else "folders"
        self._say(f"{len(first)} {what} to choose with, {len(second)} to certify with, of which {may}{in_each}")
        return first, second, aim

    def _key(self, sample: Sample, truths: Truths | None) -> str:
        asked = self._asked
        return key_of(
            {
                "systems": [
                    [one.kind, one.fingerprint, *beside(name)] for name, one in zip(self._names, self._systems, strict=True)
                ],
                "sample": sample_digest(sample.units),
                "strata": self._strata,
                "asked": [asked.risk, asked.confidence, asked.unit, asked.by],
                "labels": truths.digest if truths else "",
                "formats": [[name, encoder_fingerprint(name)] for name in self._formats],
                "version": __version__,
            }
        )

    def _found(
        self,
        bench: Bench,
        memory: Memory,
        used: UsedPhotos,
        key: str,
        sample: Sample,
        first: list[Unit],
        second: list[Unit],
        aim: Aim,
        truths: Truths | None,
    ) -> Fitted:
        if sample.duplicates:
            self._notices.append(f"{sample.duplicates} photos have the same bytes as another: they count once")
        sequence, explored = self._explored(bench, memory, sample, first, aim)
        self._notices += _about_empty(bench, self._systems)
        self._refuse_hopeless(sequence, explored, aim)
        sequence = self._settled(memory, refined(sequence))
        used.add(second, key, explored=first)
        tests = list(self._tested(bench, sequence, second, aim))
        best, held = self._best(tests, aim)
        if held is not None:
            second = [unit for unit in second if unit.group in held]
            aim = dataclasses.replace(aim, certify=len(second), groups=tuple(aim.groups[self._strata.index(one)] for one in held))
            best = dataclasses.replace(
                best, scores=best.scores.of_groups({self._strata.index(one): i for i, one in enumerate(held)})
            )
            self._strata = held
        policy = self._policy(best, bench, aim, second, truths)
        rivals, said = (
            ([], [])
            if not self._asked.rivals
            else rival_rows(
                bench, aim, first, second, go_on=lambda: self._left() > 0, watch=lambda text: Watch(self._telling(text))
            )
        )
        self._notices += said
        if self._left() < 0:
            self._notices.append(
                f"it took {time.monotonic() - self._started:,.0f} seconds: the certificate is not shortened for a budget"
            )
        self._notices += [f"left out: {reason}" for reason in (*sample.unread, *bench.unread.values())]
        rows = [Row.of(one, "explore", scores) for one, scores in explored.items()]
        rows += [Row.of(test.setting, "certify", test.scores, test) for test in tests]
        return Fitted(
            policy=policy,
            rows=tuple(rows),
            rivals=tuple(rivals),
            worst=worst_of(bench.rows(best.setting, second), WORST),
            notices=tuple(self._notices),
            stronger=stronger(aim, best.scores) if not self._strata else (),
            seconds=time.monotonic() - self._started,
            asked=bench.asked,
        )

    # --- the explore part ---------------------------------------------------------------------------------------------

    def _explored(
        self, bench: Bench, memory: Memory, sample: Sample, first: list[Unit], aim: Aim
    ) -> tuple[list[Candidate], dict[Candidate, Scores]]:
        sizes = pixels_of([one for system in self._systems if (one := _input_of(system))], sample.sides)
        candidates: list[list[Candidate]] = [list(ladder) for ladder in ladders(self._formats, sizes)]
        count = len({one for ladder in candidates for one in ladder})
        self._say(f"explore: {count} settings: {', '.join(self._formats)}; {', '.join(map(str, sizes))}")
        rounds, noted = 0, memory.note("rounds")

        def measure(settings: Sequence[Candidate], some: range) -> dict[Candidate, Scores]:
            telling = self._telling(f"explore: {len(settings)} settings on {len(some)} {self._asked.unit}s")
            return bench.scores(settings, [first[i] for i in some], Watch(telling))

        def go_on(settings: int, units: int) -> bool:
            nonlocal rounds
            rounds += 1
            if noted is not None:
                return rounds < int(noted)
            if self._asked.budget is None or not bench.asked:
                return True
            files = len(sample.sides) / max(1, len(sample.units))  # photos of a unit
            each = files * bench.seconds / bench.asked
            enough = (settings * units + TESTS * aim.certify) * each < self._left()
            if not enough:
                self._notices.append("the budget ended the search before it had seen all photos to choose with")
            return enough

        sequence, scores = explore(candidates, len(first), measure, aim, go_on=go_on, tell=self._tell_round)
        if noted is None:
            memory.write_note("rounds", rounds if rounds and self._cut_short else rounds + 1)
        return sequence, scores

    @property
    def _cut_short(self) -> bool:
        return any(notice.startswith("the budget ended") for notice in self._notices)

    def _tell_round(self, found: Round[Candidate]) -> None:
        if found.best is None or is_last(found.best):
            self._say(f"explore: after {found.units}, nothing smaller than the sources seems to hold")
            return
        size = float(found.scores[found.best].sizes.mean())
        self._say(f"explore: after {found.units}, best so far {named(found.best)}: {size:,.0f} bytes")

    def _refuse_hopeless(self, sequence: Sequence[Candidate], explored: Mapping[Candidate, Scores], aim: Aim) -> None:
        """Leave the certify part alone where nothing but the sources themselves would pass: its photos stay fresh."""
        if not all(is_last(one) for one in sequence):
            return
        outlook = Outlook(aim, explored)
        some = [one for one in explored if not is_last(one)]
        safest = min(some, key=lambda one: outlook.strain(one, outlook.means(one)))
        raise InputError(
            f"no setting seems to hold: the safest, {named(safest)}, loses {explored[safest].worst:.4f} on the photos to choose "
            f"with, and {max(0.5, aim.allowed) / min(aim.sizes):.4f} may pass on {min(aim.sizes)} to certify with",
            f"ask for a larger `risk` than {percent(aim.risk)}, or give more photos; those to certify with were not looked at",
        )

    def _settled(self, memory: Memory, sequence: list[Candidate]) -> list[Candidate]:
        """The order of the tests, as it was written down before the certify part was first looked at."""
        noted = memory.note("sequence")
        made = [named(one) for one in sequence]
        if noted is None:
            memory.write_note("sequence", made)
        elif noted != made:
            raise InputError(
                "the order of the tests is not the one that this fit began with, so that its certificate would not hold",
                "fit again with photos that were not used",
            )
        return sequence

    # --- the certify part ---------------------------------------------------------------------------------------------

    def _tested(self, bench: Bench, sequence: Sequence[Candidate], units: list[Unit], aim: Aim) -> Iterator[Tested[Candidate]]:
        def measure(one: Candidate) -> Scores:
            telling = self._telling(f"certify: {named(one)}")
            # where there are strata, what holds in some of them is worth knowing
            stops = None if len(aim.sizes) > 1 else lambda scores: aim.p_value(scores) > 1 - aim.confidence
            return bench.scores([one], units, Watch(telling, stops))[one]

        for test in certify(sequence, measure, aim):
            verdict = "holds" if test.passed else "does not hold"
            seen = "" if test.passed else f" on {len(test.scores.sizes)}"
            self._say(f"certify: {named(test.setting)}: mean loss {test.scores.worst:.4f}{seen}, {verdict}")
            yield test

    def _best(self, tests: Sequence[Tested[Candidate]], aim: Aim) -> tuple[Tested[Candidate], list[str] | None]:
        """The smallest setting that passed, and of strata those in which it holds where that is not all of them.

        All strata must hold, which takes no correction. Where a setting fails, Holm's procedure says in which it holds.
        """
        passed = [test for test in tests if test.passed]
        failed = None if not tests or tests[-1].passed else tests[-1]
        held: list[str] = []
        if failed is not None and len(aim.sizes) > 1:
            falls = bounds.holm(aim.group_p_values(failed.scores), aim.confidence)
            held = [group for group, fell in zip(self._strata, falls, strict=True) if fell]
            missing = [group for group in self._strata if group not in held]
            if held:
                self._notices.append(
                    f"{named(failed.setting)} holds in {', '.join(held)}, and is not shown to in {', '.join(missing)}: "
                    "fit these folders apart"
                )
        if passed:
            return min(passed, key=lambda test: float(test.scores.sizes.mean())), None
        assert failed is not None
        if held:
            self._notices.append(f"the certificate is not about {', '.join(one for one in self._strata if one not in held)}")
            return failed, held
        raise InputError(
            f"nothing can be certified: even {named(failed.setting)} has a mean loss of {failed.scores.worst:.4f} on "
            f"{len(failed.scores.sizes)} photos",
            f"ask for a larger `risk` than {percent(aim.risk)}, or fit again with more, and fresh, photos",
        )

    def _policy(self, best: Tested[Candidate], bench: Bench, aim: Aim, units: list[Unit], truths: Truths | None) -> Policy:
        scores, unit = best.scores, self._asked.unit
        assert isinstance(best.setting, DjpegSettings)
        rows = bench.rows(best.setting, units)
        worse = np.array([row.verdict.changed for row in rows]).T  # (systems, photos)
        if unit == "folder":  # units in which any answer changed, which is what the sample counts
            worse = scores.losses > 0
        groups, uppers = scores.group_of, aim.uppers(scores)
        certificate = Certificate(
            risk=aim.risk,
            confidence=aim.confidence,
            photos=len(scores.sizes),
            changed=int(worse.sum(1).max()),
            bound=round(max(uppers), 6),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            loss=" and ".join(dict.fromkeys(self._losses)),
            mean_loss=round(scores.worst, 6),
            unit=unit,
            sample=sample_digest(units),
            bytes=round(float(np.mean([row.verdict.size for row in rows]))),
            source_bytes=round(float(np.mean([row.source.size for row in rows]))),
            by=self._asked.by,
            labels=truths.digest if truths else "",
        )
        certified = [
            CertifiedSystem(
                name=self._names[i],
                fingerprint=system.fingerprint,
                reading=str(getattr(system, "reading", "")),
                kind=system.kind,
                changed=int(worse[i].sum()),
                mean_loss=round(float(scores.losses[i].mean()), 6),
                right_on_sources=round(float(np.mean([row.source.right[i] for row in rows])), 6) if truths else -1.0,
                right_on_results=round(float(np.mean([row.verdict.right[i] for row in rows])), 6) if truths else -1.0,
            )
            for i, system in enumerate(self._systems)
        ]
        strata = [
            Stratum(
                name=name,
                photos=int((groups == i).sum()),
                changed=int(worse[:, groups == i].sum(1).max()),
                mean_loss=round(float(scores.losses[:, groups == i].mean(1).max()), 6),
                bound=round(uppers[i], 6),
            )
            for i, name in enumerate(self._strata)
        ]
        return Policy(settings=best.setting, certificate=certificate, systems=tuple(certified), strata=tuple(strata))

    # --- time ---------------------------------------------------------------------------------------------------------

    def _left(self) -> float:
        """Seconds of the budget that are left; endless without one."""
        return float("inf") if self._asked.budget is None else self._asked.budget - (time.monotonic() - self._started)

    def _telling(self, text: str) -> Callable[[int, int], None]:
        return lambda done, all: self._say(f"{text}: {done:,} of {all:,} answers")


def _files(photos: Iterable[InputFile] | Sequence[str | Path]) -> Iterable[InputFile]:
    listed: list[Any] = [photos] if isinstance(photos, str | Path) else list(photos)
    if any(not isinstance(one, InputFile) for one in listed):
        return find_inputs(listed)
    return listed


def _input_of(system: System) -> Input | None:
    """What a system makes of a photo first; None where it takes any size."""
    size = getattr(system, "input_size", None)
    if size is None:
        return Input((system.native, system.native)) if system.native else None
    resample = getattr(system, "resample", "")
    return Input((size[0], size[1]), bool(getattr(system, "crops", False)), resample if resample in RESAMPLES else "lanczos")


def _too_few(sample: Sample, count: int, aim: Aim, asked: FitSettings) -> None:
    """Refuse to pretend where even no change at all would not be enough."""
    what = "photos" if asked.unit == "file" else "folders"
    needed = bounds.photos_needed(aim.risk, aim.confidence)
    while not aim.reachable_with(needed):  # betting needs a few more
        needed += 1
    total = -(-needed * 10 // 7) + 1
    least = 1 - (1 - aim.confidence) ** (1 / count) if count else 1.0
    twins = f" ({sample.duplicates} more have the same bytes as another)" if sample.duplicates else ""
    each = " in one folder at least" if asked.by else " in all"
    raise InputError(
        f"{len(sample.units)} different {what} are too few{twins}: {percent(aim.risk)} at {percent(aim.confidence)} needs "
        f"{needed} unchanged to certify with, about {total}{each}",
        f"add {what}" + (f", or ask for a `risk` above {percent(least)}" if count > 1 else ""),
    )


def _about_empty(bench: Bench, systems: Sequence[System]) -> list[str]:
    notices = []
    for system, share in zip(systems, bench.empty(), strict=True):
        if share == 1:
            raise InputError(
                f"{system.name} finds nothing on any photo that was looked at: there is no answer to keep",
                "give photos with something to find, or look at how the model is read",
            )
        if share > 0:
            notices.append(f"{system.name} finds nothing on {percent(round(share, 3))} of the photos: no box there is no change")
    return notices
