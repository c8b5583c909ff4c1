"""Scores of settings on units of a sample, by way of the engines; answers on the sources are asked
for once."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from vizcomp.batch.engines import map_tasks
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError
from vizcomp.files.find import InputFile
from vizcomp.fitting.judge import Judged, JudgeTask, Verdict, crashed, judge_photo
from vizcomp.fitting.sample import Unit
from vizcomp.fitting.search import Scores
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.vision.answers import Answer, is_empty
from vizcomp.vision.system import System
from vizcomp.vision.systems import open_system


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Who looks, and how the work is done.

    Attributes:
        systems: by name.
        jobs, engine: as `batch.engines.map_tasks`.
        max_pixels: larger photos are left out.
        offline: never touch the network.
        decoder: who decodes what they see.
    """

    systems: tuple[str, ...]
    jobs: int = 0
    engine: str = "local"
    max_pixels: int = DEFAULT_MAX_PIXELS
    offline: bool = False
    decoder: str = "pillow"

    def open(self) -> list[System]:
        """The systems, in this process: for their names, kinds and fingerprints."""
        return [open_system(name, offline=self.offline) for name in self.systems]


@dataclasses.dataclass(frozen=True)
class PhotoVerdict:
    """A photo under one setting: its verdict, and what the systems say of the source."""

    file: InputFile
    verdict: Verdict
    source_bytes: int
    source_texts: tuple[str, ...]


class Bench:
    """Photos that settings are tried on. Remembers answers on sources, and what could not be
    read."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._answers: dict[InputFile, tuple[Answer, ...]] = {}
        self.unread: dict[InputFile, str] = {}
        self.verdicts: dict[DjpegSettings, list[PhotoVerdict]] = {}

    def scores(
        self, settings: Sequence[DjpegSettings], units: Sequence[Unit]
    ) -> dict[DjpegSettings, Scores]:
        """The scores of some settings on some units; photos that cannot be read are left out of all
        of them.

        Raises:
            InputError: a system gives no answer on a photo; no photo can be read.
        """
        judged = self._judged(tuple(settings), [file for unit in units for file in unit.files])
        rows: dict[DjpegSettings, list[list[PhotoVerdict]]] = {one: [] for one in settings}
        for unit in units:
            members = [file for file in unit.files if file in judged]
            for place, one in enumerate(settings) if members else ():
                rows[one].append([self._row(file, judged[file], place) for file in members])
        if not any(rows.values()):
            raise InputError(
                "no photo of the sample can be read",
                next(iter(self.unread.values()), "give other photos"),
            )
        scores = {}
        for one, groups in rows.items():
            self.verdicts.setdefault(one, []).extend(row for group in groups for row in group)
            sizes = np.array([np.mean([row.verdict.size for row in group]) for group in groups])
            losses = np.array(
                [np.mean([row.verdict.losses for row in group], axis=0) for group in groups]
            ).T
            scores[one] = Scores(sizes, losses)
        return scores

    def _row(self, file: InputFile, judged: Judged, place: int) -> PhotoVerdict:
        texts = tuple(answer.words() for answer in self._answers[file])
        return PhotoVerdict(file, judged.verdicts[place], judged.source_bytes, texts)

    def _judged(
        self, settings: tuple[DjpegSettings, ...], files: Sequence[InputFile]
    ) -> dict[InputFile, Judged]:
        work = self._work
        tasks = (
            JudgeTask(
                *(i, file, settings, work.systems, self._answers.get(file, ())),
                max_pixels=work.max_pixels,
                offline=work.offline,
                decoder=work.decoder,
            )
            for i, file in enumerate(files)
        )
        judged: dict[InputFile, Judged] = {}
        failed = []
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
        )
        for result in results:
            file = files[result.number]
            if result.failed:
                failed.append(result.failed)
            elif result.unread:
                self.unread[file] = result.unread
            else:
                judged[file] = result
                self._answers[file] = result.references
        if failed:
            raise InputError(
                f"a system gives no answer on {len(failed)} of {len(files)} photos, first"
                f" {failed[0]}",
                "leave these photos out, or mend the system: a certificate is about photos that it"
                " can read",
            )
        return judged

    def empty(self) -> list[float]:
        """For each system, the share of the photos looked at on which it finds nothing."""
        counts = collections.Counter(
            place
            for answers in self._answers.values()
            for place, answer in enumerate(answers)
            if is_empty(answer)
        )
        return [
            counts[place] / max(1, len(self._answers)) for place in range(len(self._work.systems))
        ]
