"""The fewest pixels, and then the fewest bytes, on which vision systems still answer as on the
source.

    source ── how few pixels at a good quality? ──> a side ── smallest file of it ──> bytes
                                                      └── the next larger sides, while their
                                                      smallest file is smaller

A classifier that looks at 224 pixels needs few of a photo's 2,000; but the fewest pixels that hold
at a good quality need that quality, and somewhat more pixels at a lower one may take fewer bytes.
Sides are a factor of the root of two apart. As under `--verify` alone, a verdict counts only for
the very file that it was taken on, and boxes are compared in the source's scale.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

from vizcomp.batch.seen import file_views
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.verdicts import (
    TRIALS_OF_A_THROW,
    Found,
    Panel,
    Rung,
    found_of,
    jointly,
    rungs_from,
    trials_worth,
)
from vizcomp.djpeg.compress import Ready
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.photos.photo import Photo
from vizcomp.vision import verify
from vizcomp.vision.answers import Comparison, Quads
from vizcomp.vision.system import surroundings

LEAST_SIDE = 96
"""Of the longer side, as far as `--max-side auto` goes down:
docs/decisions/0018-fewer-pixels.md."""
LEAST_SHORT = 32
"""Of the shorter side: a panorama must not become a line of pixels."""
# on which sides are tried: most photos that fail on a side fail at any quality
PROBE: Rung = (95.0, 1.0)
LARGER = 2  # sides above the smallest that holds, on which the smallest file is searched too


def sides_of(longer: int, shorter: int) -> tuple[int, ...]:
    """Longer sides to try, from few pixels to all, for a photo of these sides."""
    sides = [longer]
    while (smaller := round(longer * 0.5 ** (len(sides) / 2))) >= LEAST_SIDE:
        if shorter * smaller < LEAST_SHORT * longer:
            break
        sides.append(smaller)
    return tuple(reversed(sides))


def fewest_pixels(
    prepare: Callable[[DjpegSettings], list[Ready]],
    photo: Photo,
    settings: DjpegSettings,
    panel: Panel,
    name: str,
    batch: BatchSettings,
) -> Found:
    """The smallest file found over sides and qualities on which all systems answer the same as on
    the source.

    Args:
        prepare: the photo with its guides under some settings, in each format that comes into
            question.
        settings: with `max_side` "auto". Of several formats the sides are searched in the first;
            the others are throws at smaller files on the side that was found best.
        panel: of the systems of `--verify`, one of which at least found something on the source.
        name: of the photo, for errors.
    """
    search = _Search(prepare, photo, settings, panel, name, batch)
    shorter, longer = sorted(photo.pixels.shape[:2])
    sides = sides_of(longer, shorter)
    at = search.smallest_side(sides)
    best = search.smallest_file(sides[at], None)
    best_side = sides[at]
    for side in sides[at + 1 : at + 1 + LARGER]:
        found = search.smallest_file(side, best)
        best_side = best_side if found is best else side
        best = found
    best = search.other_formats(best_side, best)
    return dataclasses.replace(best, trials=search.trials)


class _Search:
    """The files that were made of one photo, and the verdicts on them."""

    def __init__(
        self,
        prepare: Callable[[DjpegSettings], list[Ready]],
        photo: Photo,
        settings: DjpegSettings,
        panel: Panel,
        name: str,
        batch: BatchSettings,
    ) -> None:
        self._prepare, self._photo, self._settings = prepare, photo, settings
        self._panel, self._name, self._batch = panel, name, batch
        self._rungs = rungs_from(batch.min_quality)
        self._verdicts: dict[bytes, Mapping[str, Comparison]] = {}
        self._last: tuple[int, list[Ready]] | None = None

    @property
    def trials(self) -> int:
        """Files that were judged."""
        return len(self._verdicts)

    def _prepared(self, side: int) -> list[Ready]:
        """Of one side at a time: those of a whole photo take much memory."""
        if self._last is None or self._last[0] != side:
            self._last = None
            self._last = side, self._prepare(dataclasses.replace(self._settings, max_side=side))
        return self._last[1]

    def _judge(self, data: bytes) -> Comparison:
        if data not in self._verdicts:
            self._verdicts[data] = self._panel.compare(*file_views(data, self._name, self._batch))
        return jointly(self._verdicts[data])

    def smallest_side(self, sides: tuple[int, ...]) -> int:
        """Index of the fewest pixels that hold at a good quality; of all pixels where no other do.

        One side after the other, since small pictures cost little to try, and what holds on one may
        not hold on a larger one.
        """
        probe = min((rung for rung in self._rungs if rung[0] >= PROBE[0]), default=self._rungs[-1])
        holds = (
            i
            for i, side in enumerate(sides[:-1])
            if self._judge(self._prepared(side)[0].at(*probe)).same
        )
        return next(holds, len(sides) - 1)

    def smallest_file(self, side: int, best: Found | None) -> Found:
        """The smallest file found at one side; `best` where that is smaller, or where nothing at
        this side holds."""
        prepared = self._prepared(side)[0]
        rungs = self._rungs if best is None else self._below(prepared, len(best.made.data))
        if not rungs:
            assert best is not None
            return best

        def mend(rest: Rung, fine: Rung, places: Quads) -> bytes:
            return prepared.mended(*rest, fine[0], surroundings(places, *self._panel.size))

        budget = functools.partial(trials_worth, self._photo.source_bytes)
        one = verify.smallest(
            rungs, lambda rung: prepared.at(*rung), self._judge, mend=mend, budget=budget
        )
        if best is None or (
            one.verified and (best.state != "verified" or len(one.data) < len(best.made.data))
        ):
            return found_of(prepared, one, self._verdicts[one.data])
        return best

    def other_formats(self, side: int, best: Found) -> Found:
        """The smallest file that a few trials find in the other formats; `best` where none of them
        is smaller."""
        ready = self._prepared(side)[1:]
        for one in ready:
            below = len(best.made.data) if best.state == "verified" else self._photo.source_bytes

            def at(rung: Rung, one: Ready = one) -> bytes:
                return one.at(*rung)

            found, _ = verify.thrown(
                self._rungs, at, self._judge, below=below, trials=TRIALS_OF_A_THROW
            )
            if found is not None:
                best = found_of(one, found, self._verdicts[found.data])
        return best

    def _below(self, prepared: Ready, size: int) -> tuple[Rung, ...]:
        """The rungs whose file is smaller, by halves: sizes grow along the ladder, but for its last
        rungs."""
        low, high = 0, len(self._rungs)  # all below `low` are smaller
        while low < high:
            middle = (low + high) // 2
            if len(prepared.at(*self._rungs[middle])) < size:
                low = middle + 1
            else:
                high = middle
        return self._rungs[:low]
