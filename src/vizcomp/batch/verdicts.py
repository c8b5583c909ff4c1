"""Systems asked about one photo: what they answer on its source, and whether they answer the same
on a file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vizcomp.batch.judges import Pixels, system_by_name, system_errors
from vizcomp.batch.records import VerifyState
from vizcomp.batch.seen import file_views, uncoloured
from vizcomp.batch.settings import BatchSettings, EncodeSettings
from vizcomp.depth.kinds import Depth
from vizcomp.djpeg.compress import Compressed, Prepared, Ready
from vizcomp.djpeg.plain import Plain
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.djpeg.source import Source
from vizcomp.photos.photo import Photo
from vizcomp.vision import verify
from vizcomp.vision.answers import NOWHERE, Answer, Comparison, Quads, together
from vizcomp.vision.gist import gist
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.one_answer import NOTHING
from vizcomp.vision.options import model_path
from vizcomp.vision.scale import rescaled
from vizcomp.vision.system import Resizing, System, surroundings
from vizcomp.vision.views import OPENCV

Rung = tuple[float, float]  # quality, share of the guide's strength

# Near the top the qualities are far apart, so rungs with a weaker guide are tried as well.
RUNGS: tuple[Rung, ...] = (
    *((q, 1.0) for q in (5.0, 12.0, 20.0, 26.0, 34.0, 42.0, 52.0, 62.0, 72.0, 82.0, 86.0, 90.0)),
    *((86.0, 0.3), (95.0, 1.0), (95.0, 0.3), (100.0, 0.0)),
)

# (file size as a share of the source from which this holds, number of trials allowed)
MOST_TRIALS = 10  # with those of other formats
TRIALS_OF_A_THROW = 3
OTHER_STRENGTH = 1.6  # of the guides' blur, for the second throw in one format
TRIALS = ((0.5, 14), (0.3, 8), (0.1, 6), (0.06, 5), (0.0, 4))


def trials_worth(source: int, size: int) -> int:
    """How many files to make under `--verify`, where the smallest that passed has `size` bytes: the
    more there is to gain."""
    return next(trials for share, trials in TRIALS if size >= share * source)


def rungs_from(least: float) -> tuple[Rung, ...]:
    """The rungs of the ladder, none below the quality `least`; the first is `least` itself where
    rungs lie below it."""
    above = tuple(rung for rung in RUNGS if rung[0] >= least)
    return (
        above
        if len(above) == len(RUNGS)
        else ((least, 1.0), *(rung for rung in above if rung[0] > least))
    )


def plain_qualities(least: float) -> list[int]:
    """The ladder of plain JPEG, which has one setting."""
    return sorted({round(quality) or 1 for quality, _ in rungs_from(least)})


@dataclasses.dataclass(frozen=True)
class Found:
    """A photo's file, and what `--verify` came to.

    Attributes:
        made: the file.
        photo: what it was made of: the source, or that with fewer pixels.
        state: as `FileRecord.verify_state`; None without `--verify`.
        scores: of each system that was asked, on that file.
        trials: files that were made and judged.
        against: the systems that answer otherwise on it.
        keep: why the source itself is to be the output, whatever its size; "" where it need not.
        rivals: the record's sizes of plain JPEG, where they are known.
        depth: what guided, where a guide is depth.
        said: of each system, its answer on the source, as `vision.gist` has it.
    """

    made: Compressed
    photo: Photo
    state: VerifyState | None = None
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    trials: int = 0
    against: tuple[str, ...] = ()
    keep: str = ""
    rivals: dict[str, int] | None = None
    depth: Depth | None = None
    said: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def searched(self) -> bool:
        """Whether a verdict was asked for on files of it."""
        return self.state in ("verified", "not_reached")


def robust(name: str, system: System, batch: BatchSettings | EncodeSettings) -> bool:
    """Whether a system must hold under other resize filters too: as asked, else where a model file
    leaves its filter open."""
    if batch.robust is not None:
        return batch.robust
    said = isinstance(system, ModelSystem) and system.options.filter
    return model_path(name) is not None and not said


class Panel:
    """Some systems, and what they answer on a source.

    Args:
        source: as systems are shown it, uint8 (h, w, 3).
        raw: the same without its colour profile, `seen.uncoloured`: what a program sees that
            resizes by OpenCV; None where it has none.

    Raises:
        InputError: a system fails on it.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        source: Pixels,
        batch: BatchSettings | EncodeSettings,
        raw: Pixels | None = None,
    ) -> None:
        self._batch = batch
        self.size = source.shape[:2]
        self._answers = {name: self._ask(name, source, raw) for name in names}

    def _ask(self, name: str, picture: Pixels, raw: Pixels | None) -> list[Answer]:
        """The answers on a picture; where they must be robust, on views of it as other programs
        resize it too."""
        with system_errors(name):
            system = system_by_name(name, self._batch.offline)
            answers = [system.answers([picture])[0]]
            if not robust(name, system, self._batch):
                return answers
            if isinstance(system, Resizing):
                filters = verify.other_filters(
                    system.kind, system.resize_filter, enlarged=system.enlarges(*self.size)
                )
                others = [
                    system.answer_with(picture if raw is None or one not in OPENCV else raw, one)
                    for one in filters
                ]
                if all(answer is not None for answer in others):
                    return [*answers, *(answer for answer in others if answer is not None)]
            return [*answers, system.answers([verify.second_view(picture)])[0]]

    @property
    def blind(self) -> tuple[str, ...]:
        """The systems that find nothing on the source."""
        return tuple(
            name for name, answers in self._answers.items() if verify.sees_nothing(answers)
        )

    @property
    def said(self) -> dict[str, str]:
        """What each system answers on the source, as `vision.gist` has it."""
        blind = self.blind
        return {
            name: NOTHING if name in blind else gist(answers[0])
            for name, answers in self._answers.items()
        }

    def compare(self, picture: Pixels, raw: Pixels | None = None) -> dict[str, Comparison]:
        """By system, how its answer on a uint8 (h, w, 3) picture stands to that on the source, in
        the source's scale; `raw` as for the source."""
        tolerance, verdicts = self._batch.tolerance, {}
        for name, answers in self._answers.items():
            views = [
                rescaled(view, picture.shape[:2], self.size)
                for view in self._ask(name, picture, raw)
            ]
            with system_errors(name):
                verdicts[name] = verify.compare_views(answers, views, tolerance=tolerance)
        return verdicts


def verified(
    ready: Sequence[Ready], photo: Photo, panel: Panel, name: str, batch: BatchSettings
) -> Found:
    """The smallest file on which all systems answer the same; each verdict is on the bytes that
    would be written.

    Args:
        ready: the photo with its guides, in each format that comes into question. The first is
            searched; the others, and other strengths, are throws at files smaller than what that
            found, and so is plain JPEG beside JPEG.
        panel: of the systems of `--verify`, one of which at least found something on the source.
        name: of the photo, for errors.
    """
    verdicts: dict[bytes, Mapping[str, Comparison]] = {}

    def judge(data: bytes) -> Comparison:
        if data not in verdicts:
            verdicts[data] = panel.compare(*file_views(data, name, batch))
        return jointly(verdicts[data])

    def mend(rest: Rung, fine: Rung, places: Quads) -> bytes:
        return first.mended(*rest, fine[0], surroundings(places, *panel.size))

    first = best_of = ready[0]
    budget = functools.partial(trials_worth, photo.source_bytes)
    rungs = rungs_from(batch.min_quality)
    best = verify.smallest(rungs, lambda rung: first.at(*rung), judge, mend=mend, budget=budget)
    trials, judged = best.trials, 0
    if isinstance(first, Prepared):
        below = len(best.data) if best.verified else photo.source_bytes
        plain, judged = verify.outdone(
            [(float(quality), 0.0) for quality in plain_qualities(batch.min_quality)],
            functools.partial(_plain_at, first.plain()),
            judge,
            below=below,
            budget=budget,
        )
        best = best if plain is None else plain
    for one, strength in _throws(ready, best.verified):
        if trials >= MOST_TRIALS:
            break
        ladder = [(quality, share * strength) for quality, share in rungs]
        below = len(best.data) if best.verified else photo.source_bytes
        result, used = verify.thrown(
            ladder,
            functools.partial(_at, one),
            judge,
            below=below,
            trials=min(MOST_TRIALS - trials, TRIALS_OF_A_THROW),
        )
        trials += used
        if result is not None:
            best, best_of = result, one
    best = dataclasses.replace(best, trials=trials + judged)
    return found_of(best_of, best, verdicts[best.data])


def found_of(
    prepared: Ready, best: verify.Verified[Rung], by_system: Mapping[str, Comparison]
) -> Found:
    """What a search came to, from its file and the systems' verdicts on it."""
    return Found(
        Compressed(best.data, best.rung[0], prepared.importance, prepared.notices, prepared.format),
        prepared.photo,
        "verified" if best.verified else "not_reached",
        {system: verdict.score for system, verdict in by_system.items()},
        best.trials,
        tuple(system for system, verdict in by_system.items() if not verdict.same),
    )


def _plain_at(one: Plain, rung: Rung) -> bytes:
    return one.at(round(rung[0]))


def _at(one: Ready, rung: Rung) -> bytes:
    return one.at(*rung)


def _throws(ready: Sequence[Ready], verified: bool) -> list[tuple[Ready, float]]:
    """Formats and shares of the strength to try after the first search; none for JPEG alone, which
    has its own mending."""
    if not verified:  # the last resort of the formats that are left
        return [(one, 1.0) for one in ready[1:]]
    others = [(one, 1.0) for one in ready[1:]]
    return others if ready[0].format == "jpeg" else [*others, (ready[0], OTHER_STRENGTH)]


def plain_rival(
    photo: Photo, settings: DjpegSettings, source: Pixels, name: str, batch: BatchSettings
) -> dict[str, Any]:
    """The fields of `FileRecord` on optimised plain JPEG under the same verdict, with the same
    metadata, by the same search over the same qualities.

    `source` is the photo as systems see it.
    """
    panel = Panel(batch.verify, source, batch, uncoloured(photo, batch))
    plain = Plain(photo, settings, Source.of(photo, settings))

    def judge(data: bytes) -> Comparison:
        return jointly(panel.compare(*file_views(data, name, batch)))

    budget = functools.partial(trials_worth, photo.source_bytes)
    best = verify.smallest(plain_qualities(batch.min_quality), plain.at, judge, budget=budget)
    size = plain.size(best.rung) if best.verified else None
    if photo.jpeg is not None and (size is None or size >= photo.source_bytes):
        return {"rival_bytes": photo.source_bytes, "rival_quality": None}
    return {"rival_bytes": size, "rival_quality": best.rung if best.verified else None}


def jointly(verdicts: Mapping[str, Comparison]) -> Comparison:
    """One verdict from those of several systems: all must hold, the lowest score counts, and so do
    all places."""
    places = NOWHERE
    for verdict in verdicts.values():
        places = together(places, verdict.unlike)
    return Comparison(
        float(np.min([verdict.score for verdict in verdicts.values()])),
        all(verdict.same for verdict in verdicts.values()),
        unlike=places,
    )
