"""A fit from photos and systems to a policy with its certificate."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vizcomp._version import __version__
from vizcomp.batch.judges import beside
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.fitting import bounds
from vizcomp.fitting.asked import FitSettings, about_answers, refuse_too_few
from vizcomp.fitting.candidates import (
    Candidate,
    formats_of,
    is_last,
    ladders,
    named,
    refined,
)
from vizcomp.fitting.certified import policy_of
from vizcomp.fitting.exploring import Exploring, tell_to
from vizcomp.fitting.inputs import centre_alone, input_of, pixels_of
from vizcomp.fitting.measure import Bench, Watch, Work
from vizcomp.fitting.memory import Memory, key_of
from vizcomp.fitting.policy import encoder_fingerprint, loss_of, percent
from vizcomp.fitting.result import Fitted, RivalRow, Row, stronger, worst_of
from vizcomp.fitting.rivals import rival_rows
from vizcomp.fitting.sample import Sample, Unit, UsedPhotos, read_sample, sample_digest, split
from vizcomp.fitting.scores import Aim, Outlook, Scores, units_to_explore
from vizcomp.fitting.search import Order, Tested, certify, seen_of
from vizcomp.fitting.truth import Truths, read_truths
from vizcomp.photos.opencv import check_decoder
from vizcomp.vision.system import System

WORST = 12  # photos that a report shows


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
        systems: names as `open_system` takes them, or `vizcomp.System` objects; the guarantee holds
            for each.
        on_progress: is told what was done so far.
        risk: the mean loss not to be exceeded, between 0 and 1 (default 0.01): changed answers of
            classifiers, 1 - F1 of detectors.
        confidence: of the guarantee, between 0.5 and 1 (default 0.95).
        unit: "file" (default), or "folder" where photos of a folder belong together, as frames of
            one clip.
        by: "folder": the guarantee holds in each folder by itself, as of a camera or a site; ""
            (default) for all together.
        labels: "folders", or a file or folder of labels: what counts is how right answers are, not
            whether they change.
        format: "auto" (default) for the best of those that all readers open, or "jpeg", "webp",
            "avif", "jxl".
        readers: who must open the files, as "pillow,opencv"; "" for those of `djpeg`'s `format`
            auto.
        kinds: photos with lettering and those without may have settings of their own, where that
            pays (default).
        keep_sides: what systems do not see of a photo, beside its middle square, is not made
            cheaper (default: it is).
        rivals: compare with JPEG, WebP and AVIF, each with its own certified setting (default).
        budget: seconds. The search leaves time for the certificate, which is not shortened; None
            for no limit.
        resume: go on with a fit of the very same photos and settings that was interrupted.
        jobs, engine: as `djpeg`.
        max_pixels: larger photos are left out.
        offline: never touch the network.
        decoder: who decodes what the systems see, one of `photos.opencv.DECODERS`.

    Raises:
        SettingsError: a value is out of its range.
        InputError: too few photos, photos that were used before, a system that gives no answer, or
            nothing passes.
        ModelError: a system is unknown.
    """
    several = [systems] if isinstance(systems, str | System) else systems
    names = tuple(dict.fromkeys(one if isinstance(one, str) else one.name for one in several))
    if not names:
        raise SettingsError("no vision system is named", "give `system` NAME, once for each system")
    return _Fit(names, FitSettings(**asked), on_progress).run(_files(photos))


class _Fit:
    """One fit, from its photos to its result."""

    def __init__(
        self, names: tuple[str, ...], asked: FitSettings, say: Callable[[str], None]
    ) -> None:
        self._started = time.monotonic()
        self._names, self._asked, self._say = names, asked, say
        self._formats, self._notices = formats_of(asked.format, asked.readers)
        check_decoder(asked.decoder, self._formats)
        self._work = Work(
            systems=names,
            jobs=asked.jobs,
            engine=asked.engine,
            max_pixels=asked.max_pixels,
            offline=asked.offline,
            decoder=asked.decoder,
            # what a rule says of folders of photos would be of none in particular
            kinds=asked.kinds and asked.unit == "file" and not asked.by,
        )
        self._systems = self._work.open()
        for system in self._systems:
            loss_of(system.kind, labels=bool(asked.labels))  # it says where there are none

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
                self._notices.append(
                    "nothing is resumed: what is known of these photos is of other settings or of"
                    " another version of vizcomp; it starts anew"
                    if memory.others
                    else "there is nothing to resume: no fit of these photos and settings was"
                    " interrupted"
                )
            if truths is not None:
                self._work = dataclasses.replace(self._work, truths=truths.by_file)
            bench = Bench(
                self._work, groups={name: i for i, name in enumerate(self._strata)}, memory=memory
            )
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
        binary = tuple(
            system.kind == "classes" and asked.unit == "file" for system in self._systems
        )
        first, second = split(
            sample.units,
            lambda count: units_to_explore(count, asked.risk, asked.confidence, binary=all(binary)),
        )
        aim = Aim(asked.risk, asked.confidence, len(second), binary)
        counts = collections.Counter({unit.group: 0 for unit in sample.units})
        counts.update(unit.group for unit in second)
        whole = collections.Counter(unit.group for unit in sample.units)
        self._strata = (
            sorted(group for group, count in counts.items() if aim.reachable_with(count))
            if asked.by
            else []
        )
        if asked.by and self._strata:
            for group in sorted(set(counts) - set(self._strata)):
                self._notices.append(
                    f"the folder {group} has too few photos, {whole[group]}: the certificate is not"
                    " about it"
                )
            first, second = (
                [unit for unit in part if unit.group in self._strata] for part in (first, second)
            )
            aim = dataclasses.replace(
                aim, certify=len(second), groups=tuple(counts[group] for group in self._strata)
            )
        if not (aim.reachable and first) or (asked.by and not self._strata):
            refuse_too_few(
                sample, max(counts.values(), default=0) if asked.by else len(second), aim, asked
            )
        may = (
            f"{aim.allowed} changed answers may pass"
            if all(binary)
            else f"a mean loss somewhat below {asked.risk:g} may pass"
        )
        in_each = f" in the smallest of {len(self._strata)} folders" if self._strata else ""
        what = "photos" if asked.unit == "file" else "folders"
        self._say(
            f"{len(first)} {what} to choose with, {len(second)} to certify with, of which"
            f" {may}{in_each}"
        )
        return first, second, aim

    def _key(self, sample: Sample, truths: Truths | None) -> str:
        asked = self._asked
        return key_of(
            {
                "systems": [[one.kind, one.fingerprint] for one in self._systems],
                "sample": sample_digest(sample.units),
            },
            {
                "beside": [list(beside(name)) for name in self._names],
                "strata": self._strata,
                "asked": [asked.risk, asked.confidence, asked.unit, asked.by, asked.decoder],
                "keep_sides": asked.keep_sides,
                "kinds": asked.kinds,
                "labels": truths.digest if truths else "",
                "formats": [[name, encoder_fingerprint(name)] for name in self._formats],
                "version": __version__,
            },
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
            self._notices.append(
                f"{sample.duplicates} photos have the same bytes as another: they count once"
            )
        order, explored = self._explored(bench, memory, sample, first, aim)
        self._notices += about_answers(bench, self._systems)
        self._refuse_hopeless(order.rungs, explored, aim)
        steps = refined(order.rungs, order.near, order.sizes)
        sequence, aim = self._settled(memory, steps, aim.informed(seen_of(order, explored)))
        used.add(second, key, explored=first)
        tests = list(self._tested(bench, sequence, second, aim))
        best, held = self._best(tests, aim, len(bench.unread))
        if held is not None:
            second = [unit for unit in second if unit.group in held]
            aim = dataclasses.replace(
                aim,
                certify=len(second),
                groups=tuple(aim.groups[self._strata.index(one)] for one in held),
            )
            best = dataclasses.replace(
                best,
                scores=best.scores.of_groups(
                    {self._strata.index(one): i for i, one in enumerate(held)}
                ),
            )
            self._strata = held
        if isinstance(best.setting, DjpegSettings) and "centre" in best.setting.guides:
            self._notices.append(
                "the systems see the middle square of a photo alone, so the policy keeps little of"
                " its sides; `keep_sides` keeps them"
            )
        policy = policy_of(
            best,
            bench.rows(best.setting, second),
            asked=self._asked,
            aim=aim,
            units=second,
            systems=self._systems,
            names=self._names,
            strata=self._strata,
            labels=truths.digest if truths else "",
            date=str(memory.note("date")),
        )
        rivals = self._rivals(bench, aim, first, second)
        if self._left() < 0:
            self._notices.append(
                f"it took {time.monotonic() - self._started:,.0f} seconds: the certificate is not"
                " shortened for a budget"
            )
        self._notices += [
            f"left out: {reason}" for reason in (*sample.unread, *bench.unread.values())
        ]
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

    def _rivals(
        self, bench: Bench, aim: Aim, first: list[Unit], second: list[Unit]
    ) -> list[RivalRow]:
        if not self._asked.rivals:
            return []
        rows, said = rival_rows(
            bench,
            aim,
            first,
            second,
            go_on=lambda: self._left() > 0,
            watch=lambda text: Watch(self._telling(text)),
        )
        self._notices += said
        return list(rows)

    # --- choosing

    def _explored(
        self, bench: Bench, memory: Memory, sample: Sample, first: list[Unit], aim: Aim
    ) -> tuple[Order[Candidate], dict[Candidate, Scores]]:
        inputs = [input_of(system) for system in self._systems]
        sizes = pixels_of([one for one in inputs if one], sample.sides)
        centre = not self._asked.keep_sides and centre_alone(inputs)
        exploring = Exploring(
            bench,
            first,
            aim,
            say=self._say,
            left=None if self._asked.budget is None else self._left,
            files=len(sample.sides) / max(1, len(sample.units)),
            noted=memory.note("rounds"),
        )
        tried = ", ".join(self._formats), ", ".join(map(str, sizes))
        order, scores = exploring.run(
            ladders(self._formats, sizes, centre=centre), "; ".join(tried), kinds=self._work.kinds
        )
        self._notices += exploring.notices
        if memory.note("rounds") is None:
            memory.write_note("rounds", exploring.to_note)
        return order, scores

    def _refuse_hopeless(
        self, sequence: Sequence[Candidate], explored: Mapping[Candidate, Scores], aim: Aim
    ) -> None:
        """Leave the certify part alone where nothing but the sources themselves would pass: its
        photos stay fresh."""
        if not all(is_last(one) for one in sequence):
            return
        outlook = Outlook(aim, explored)
        some = [one for one in explored if not is_last(one)]
        safest = min(some, key=lambda one: outlook.strain(outlook.means(one)))
        raise InputError(
            f"no setting seems to hold: the safest, {named(safest)}, loses"
            f" {explored[safest].worst:.4f} on the photos to choose with, and"
            f" {max(0.5, aim.allowed) / min(aim.sizes):.4f} may pass on {min(aim.sizes)} to certify"
            " with",
            f"ask for a larger `risk` than {percent(aim.risk)}, or give more photos; those to"
            " certify with were not looked at",
        )

    def _settled(
        self, memory: Memory, sequence: list[Candidate], aim: Aim
    ) -> tuple[list[Candidate], Aim]:
        """The order of the tests and what their bets go by, as they were written down before the
        certify part was first looked at."""
        noted = memory.note("sequence")
        made = [named(one) for one in sequence]
        if noted is None:
            memory.write_note("sequence", made)
            memory.write_note("seen", aim.seen)
            memory.write_note("date", datetime.datetime.now(datetime.UTC).date().isoformat())
        elif noted != made:
            raise InputError(
                "the order of the tests is not the one that this fit began with, so that its"
                " certificate would not hold",
                "fit again with photos that were not used",
            )
        seen = tuple((lost, squares) for lost, squares in memory.note("seen") or ())
        return sequence, dataclasses.replace(aim, seen=seen)

    # --- certifying

    def _tested(
        self, bench: Bench, sequence: Sequence[Candidate], units: list[Unit], aim: Aim
    ) -> Iterator[Tested[Candidate]]:
        def measure(one: Candidate) -> Scores:
            telling = self._telling(f"certify: {named(one)}")
            # where there are strata, what holds in some of them is worth knowing
            stops = (
                None
                if len(aim.sizes) > 1
                else lambda scores: aim.p_value(scores) > 1 - aim.confidence
            )
            return bench.scores([one], units, Watch(telling, stops))[one]

        for test in certify(sequence, measure, aim):
            verdict = "holds" if test.passed else "does not hold"
            seen = "" if test.passed else f" on {len(test.scores.sizes)}"
            self._say(
                f"certify: {named(test.setting)}: mean loss {test.scores.worst:.4f}{seen},"
                f" {verdict}"
            )
            yield test

    def _best(
        self, tests: Sequence[Tested[Candidate]], aim: Aim, unread: int
    ) -> tuple[Tested[Candidate], list[str] | None]:
        """The smallest setting that passed, and of strata those in which it holds where that is not
        all of them.

        All strata must hold, which takes no correction. Where a setting fails, Holm's procedure
        says in which it holds.

        Args:
            unread: photos that could not be read.
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
                    f"{named(failed.setting)} holds in {', '.join(held)}, and is not shown to in"
                    f" {', '.join(missing)}: fit these folders apart"
                )
        if passed:
            return min(passed, key=lambda test: float(test.scores.sizes.mean())), None
        assert failed is not None
        if held:
            self._notices.append(
                "the certificate is not about"
                f" {', '.join(one for one in self._strata if one not in held)}"
            )
            return failed, held
        raise InputError(
            f"nothing can be certified: even {named(failed.setting)} has a mean loss of"
            f" {failed.scores.worst:.4f} on {len(failed.scores.sizes)} photos"
            + (f"; {unread} photos of the sample cannot be read" if unread else ""),
            f"ask for a larger `risk` than {percent(aim.risk)}, or fit again with more, and fresh,"
            " photos",
        )

    # --- time

    def _left(self) -> float:
        """Seconds of the budget that are left; endless without one."""
        return (
            float("inf")
            if self._asked.budget is None
            else self._asked.budget - (time.monotonic() - self._started)
        )

    def _telling(self, text: str) -> Callable[[int, int], None]:
        return tell_to(self._say, text)


def _files(photos: Iterable[InputFile] | Sequence[str | Path]) -> Iterable[InputFile]:
    listed: list[Any] = [photos] if isinstance(photos, str | Path) else list(photos)
    if any(not isinstance(one, InputFile) for one in listed):
        return find_inputs(listed)
    return listed
