"""Scores of settings on units of a sample, by way of the engines; nothing is asked for twice."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vizcomp.batch.engines import map_tasks
from vizcomp.djpeg.kinds import of_kind
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError
from vizcomp.files.find import InputFile
from vizcomp.fitting.candidates import Candidate
from vizcomp.fitting.judge import Judged, JudgeTask, Verdict, crashed, judge_photo
from vizcomp.fitting.memory import Memory
from vizcomp.fitting.sample import Unit
from vizcomp.fitting.scores import Scores
from vizcomp.fitting.truth import Truth
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.vision.answers import Answer, Masks, is_empty
from vizcomp.vision.gist import gist, numbers
from vizcomp.vision.one_answer import Hearing
from vizcomp.vision.system import System
from vizcomp.vision.systems import open_system

TELL_SECONDS = 5.0  # between two lines of progress
LOOK_EVERY = 8  # photos after which it is seen whether a setting can still pass
SOURCE = "source"  # in place of a setting: what is known of the photo itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Who looks, and how the work is done.

    Attributes:
        systems: by name.
        truths: the label of each photo; empty where agreement is what counts.
        jobs, engine: as `batch.engines.map_tasks`.
        max_pixels: larger photos are left out.
        offline: never touch the network.
        decoder: who decodes what they see.
        kinds: it is asked of each photo whether there is lettering on it.
    """

    systems: tuple[str, ...]
    truths: Mapping[InputFile, Truth] = dataclasses.field(default_factory=dict)
    jobs: int = 0
    engine: str = "local"
    max_pixels: int = DEFAULT_MAX_PIXELS
    offline: bool = False
    decoder: str = "pillow"
    kinds: bool = False

    def open(self) -> list[System]:
        """The systems, in this process: for their names, kinds and fingerprints."""
        return [open_system(name, offline=self.offline) for name in self.systems]


@dataclasses.dataclass(frozen=True)
class SourceAnswers:
    """A photo, and what the systems say of it.

    Attributes:
        size: its bytes.
        texts: of each system, its answer for people.
        empty: of each system, whether it finds nothing.
        right: of each system, how right the answer is by the label; () without labels.
        lettering: whether there is some on the photo; None where nobody asked.
        said, numbers: of each system, its answer as `vision.gist` has it; () where an earlier
            release looked.
    """

    size: int
    texts: tuple[str, ...]
    empty: tuple[bool, ...]
    right: tuple[float, ...] = ()
    lettering: bool | None = None
    said: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PhotoVerdict:
    """A photo under one setting."""

    file: InputFile
    verdict: Verdict
    source: SourceAnswers


@dataclasses.dataclass(frozen=True)
class Watch:
    """What a measurement is told while it runs.

    Attributes:
        tell: is given how many answers are there and how many there will be, every few seconds.
        hopeless: of one setting alone: from its scores so far, with what is missing in
            `Scores.rest`, whether it cannot pass.
    """

    tell: Callable[[int, int], None] = lambda done, all: None
    hopeless: Callable[[Scores], bool] | None = None


class Bench:
    """Photos that settings are tried on. Remembers all verdicts, answers on sources, and what could
    not be read.

    Args:
        work: who looks.
        groups: the numbers of the strata by name; those of other units are 0.
        memory: keeps verdicts for a later run; None: they are forgotten.

    Attributes:
        asked: verdicts that were made here, not remembered.
        seconds: that took.
    """

    def __init__(
        self, work: Work, *, groups: Mapping[str, int] | None = None, memory: Memory | None = None
    ) -> None:
        self._work, self._groups, self._memory = work, dict(groups or {}), memory
        self._answers: dict[InputFile, tuple[Answer, ...]] = {}
        self._digests: dict[InputFile, str] = {}
        self._verdicts: dict[tuple[InputFile, Candidate], Verdict] = {}
        self.sources: dict[InputFile, SourceAnswers] = {}
        self.unread: dict[InputFile, str] = {}
        self.asked, self.seconds = 0, 0.0

    def scores(
        self,
        settings: Sequence[Candidate],
        units: Sequence[Unit],
        watch: Watch = Watch(),
        *,
        quick: bool = False,
    ) -> dict[Candidate, Scores]:
        """The scores of some settings on some units; photos that cannot be read are left out of all
        of them.

        Args:
            quick: files as of `encode_format`, to choose by: nothing may be certified on these
                units.

        Raises:
            InputError: a system gives no answer on a photo; no photo can be read.
        """
        for unit in units:
            self._digests.update(zip(unit.files, unit.digests, strict=True))
        files = [file for unit in units for file in unit.files]
        started, last, done = time.monotonic(), time.monotonic(), 0
        for one in settings:
            for file in files:
                self._remember(file, one)
        known = sum(
            (file, self._own(file, one)) in self._verdicts for one in settings for file in files
        )
        stop = threading.Event()
        if self._hopeless(settings[0], units, watch):  # an earlier run saw that
            stop.set()
        failed: list[str] = []
        for number, result in enumerate(self._judged(settings, files, stop, quick=quick)):
            if result.failed:
                failed.append(result.failed)
            done += len(result.verdicts)
            if time.monotonic() - last > TELL_SECONDS:
                last = time.monotonic()
                watch.tell(known + done, len(files) * len(settings))
            if (
                number % LOOK_EVERY == 0
                and not stop.is_set()
                and self._hopeless(settings[0], units, watch)
            ):
                stop.set()
        self.asked += done
        self.seconds += time.monotonic() - started
        if self._memory is not None:
            self._memory.save()
        if failed:
            raise InputError(
                f"a system gives no answer on {len(failed)} of {len(files)} photos, first"
                f" {failed[0]}",
                "leave these photos out, or mend the system: a certificate is about photos that it"
                " can read",
            )
        scores = {one: found for one in settings if (found := self._known(one, units)) is not None}
        if len(scores) < len(settings):
            raise InputError(
                "no photo of the sample can be read",
                next(iter(self.unread.values()), "give other photos"),
            )
        return (
            scores
            if stop.is_set()
            else {one: dataclasses.replace(found, rest=()) for one, found in scores.items()}
        )

    def _hopeless(self, one: Candidate, units: Sequence[Unit], watch: Watch) -> bool:
        if watch.hopeless is None:
            return False
        so_far = self._known(one, units)
        return so_far is not None and bool(so_far.rest) and watch.hopeless(so_far)

    def rows(self, one: Candidate, units: Sequence[Unit]) -> list[PhotoVerdict]:
        """Each photo's verdict under a setting, of those that have one."""
        files = [file for unit in units for file in unit.files]
        return [
            PhotoVerdict(file, self._verdicts[file, self._own(file, one)], self.sources[file])
            for file in files
            if (file, self._own(file, one)) in self._verdicts
        ]

    def _known(self, one: Candidate, units: Sequence[Unit]) -> Scores | None:
        """The scores on those units of which all photos were looked at, and how many of each group
        are missing; None: no unit."""
        sizes, losses, soft, groups = [], [], [], []
        rest = [0] * max(1, len(self._groups))
        for unit in units:
            files = [file for file in unit.files if file not in self.unread]
            rows = [self._verdicts.get((file, self._own(file, one))) for file in files]
            group = self._groups.get(unit.group, 0)
            there = [row for row in rows if row is not None]
            if not there or len(there) < len(rows):
                rest[group] += bool(files)
                continue
            sizes.append(np.mean([row.size for row in there]))
            losses.append(np.mean([row.losses for row in there], axis=0))
            soft.append(np.mean([row.soft for row in there], axis=0))
            groups.append(group)
        if not sizes:
            return None
        numbers = np.array(groups, np.int64)
        return Scores(
            np.array(sizes),
            np.array(losses).T,
            np.array(soft).T,
            numbers,
            tuple(rest) if any(rest) else (),
        )

    def _judged(
        self,
        settings: Sequence[Candidate],
        files: Sequence[InputFile],
        stop: threading.Event,
        *,
        quick: bool,
    ) -> Iterator[Judged]:
        """What comes of the photos, as it comes; what is known already is not made again."""
        work = self._work
        missing = {
            file: tuple(
                own
                for own in dict.fromkeys(self._own(file, one) for one in settings)
                if (file, own) not in self._verdicts
            )
            for file in files
        }
        todo = [file for file in files if missing[file] and file not in self.unread]
        tasks = (
            JudgeTask(
                number=number,
                file=file,
                settings=missing[file],
                systems=work.systems,
                references=self._answers.get(file, ()),
                truth=work.truths.get(file),
                max_pixels=work.max_pixels,
                offline=work.offline,
                decoder=work.decoder,
                kinds=work.kinds and self.lettering(file) is None,
                quick=quick,
            )
            for number, file in enumerate(todo)
        )
        # one job works in this process: a pool for every setting of a small sample would cost more
        # than the work
        isolate = work.jobs != 1
        results = map_tasks(
            judge_photo,
            tasks,
            on_crash=crashed,
            engine=work.engine,
            jobs=work.jobs,
            isolate=isolate,
            stop=stop,
        )
        for result in results:
            file = todo[result.number]
            if result.unread:
                self.unread[file] = result.unread
            elif not result.failed:
                self._add(file, missing[file], result)
            yield result

    def _add(self, file: InputFile, settings: Sequence[Candidate], result: Judged) -> None:
        if not any(
            isinstance(answer, Masks) for answer in result.references
        ):  # they are as large as their photos
            self._answers[file] = result.references
        source = SourceAnswers(
            result.source_bytes,
            tuple(answer.words() for answer in result.references),
            tuple(is_empty(answer) for answer in result.references),
            result.right,
            self.lettering(file) if result.lettering is None else result.lettering,
            tuple(gist(answer) for answer in result.references),
            tuple(numbers(answer) for answer in result.references),
        )
        self.sources[file] = source
        rows: list[tuple[str, SourceAnswers | Verdict]] = [(SOURCE, source)]
        for one, verdict in zip(settings, result.verdicts, strict=True):
            own = self._own(file, one)  # its kind is known now
            self._verdicts[file, own] = verdict
            rows.append((_key(own), verdict))
        if self._memory is not None:
            for key, row in rows:
                self._memory.add(self._digests[file], key, dataclasses.asdict(row))

    def lettering(self, file: InputFile) -> bool | None:
        """Whether there is lettering on a photo, where that is known."""
        source = self.sources.get(file)
        return None if source is None else source.lettering

    def _own(self, file: InputFile, one: Candidate) -> Candidate:
        """A photo's own setting of those by kind, where its kind is known: what is asked of one
        kind is not asked again where the other's setting alone is new."""
        if not isinstance(one, DjpegSettings) or one.without_lettering is None:
            return one
        lettering = self.lettering(file)
        return one if lettering is None else of_kind(one, lettering=lettering)

    def _remember(self, file: InputFile, one: Candidate) -> None:
        """Take a verdict from an earlier run, where there is one."""
        if self._memory is None or (file, self._own(file, one)) in self._verdicts:
            return
        digest = self._digests[file]
        source = self._memory.row(digest, SOURCE)
        if source is None:
            return
        self.sources.setdefault(file, SourceAnswers(**_tupled(source)))
        own = self._own(file, one)
        row = self._memory.row(digest, _key(own))
        if row is not None:
            self._verdicts[file, own] = Verdict(**_tupled(row))

    def one_answer(self, files: Iterable[InputFile], *, blind: bool = False) -> dict[str, Any]:
        """Of the systems with one answer for all of these photos, `one_answer.Hearing.found`.

        Args:
            files: those that were not looked at are passed over.
            blind: with the very same numbers.
        """
        hearing = Hearing()
        for file in files:
            if (source := self.sources.get(file)) is None:
                continue
            said = source.numbers if blind else source.said
            # without numbers nothing is known
            told = [one or self._digests[file] for one in said]
            hearing.add(dict(zip(self._work.systems, told, strict=False)), self._digests[file])
        return hearing.found()

    def empty(self) -> list[float]:
        """For each system, the share of the photos looked at on which it finds nothing."""
        counts = collections.Counter(
            place
            for source in self.sources.values()
            for place, empty in enumerate(source.empty)
            if empty
        )
        return [
            counts[place] / max(1, len(self.sources)) for place in range(len(self._work.systems))
        ]


@functools.lru_cache(maxsize=4096)
def _key(one: Candidate) -> str:
    return json.dumps({"kind": type(one).__name__, **dataclasses.asdict(one)}, sort_keys=True)


def _tupled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
