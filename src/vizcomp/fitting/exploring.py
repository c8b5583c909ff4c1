"""The explore part of a fit: which settings to test, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.fitting.candidates import Candidate, is_last, named, rungs_like, variants
from vizcomp.fitting.kinds import PAYS, paired, worth_a_look
from vizcomp.fitting.measure import Bench, Watch
from vizcomp.fitting.sample import Unit
from vizcomp.fitting.scores import Aim, Scores
from vizcomp.fitting.search import Order, Round, cost_of, explore, order_of

# settings that the certify part is looked at with, about: what a budget has to leave time for
TESTS = 5
SLOWER = 1.5  # an answer takes longer there, since nothing is made quickly, about


def tell_to(say: Callable[[str], None], text: str) -> Callable[[int, int], None]:
    """What tells of answers as they come."""
    return lambda done, all: say(f"{text}: {done:,} of {all:,} answers")


class Exploring:
    """One look at the explore part.

    Args:
        bench: asks.
        units: of the explore part.
        aim: what is asked for.
        say: is told what was done.
        left: seconds of a budget that are left; None: no budget.
        files: photos of a unit, about.
        noted: how many rounds an earlier run of the same fit made; None: there was none.

    Attributes:
        notices: what a user should know.
    """

    def __init__(
        self,
        bench: Bench,
        units: Sequence[Unit],
        aim: Aim,
        *,
        say: Callable[[str], None],
        left: Callable[[], float] | None,
        files: float,
        noted: int | None,
    ) -> None:
        self._bench, self._units, self._aim, self._say = bench, units, aim, say
        self._left, self._files, self._noted = left, files, noted
        self._rounds, self._cut_short = 0, False
        self.notices: list[str] = []

    def run(
        self, ladders: Sequence[Sequence[DjpegSettings]], tried: str, *, kinds: bool
    ) -> tuple[Order[Candidate], dict[Candidate, Scores]]:
        """The order of the tests, and the scores that it rests on.

        Args:
            ladders: each from small files to large ones.
            tried: what they are, for people.
            kinds: photos with lettering and those without may have settings of their own.
        """
        candidates: list[list[Candidate]] = [list(ladder) for ladder in ladders]
        count = len({one for ladder in candidates for one in ladder})
        self._say(f"explore: {count} settings: {tried}")
        order, scores = explore(
            candidates,
            len(self._units),
            self._measure,
            self._aim,
            kind=lambda one: getattr(one, "format", ""),
            vary=variants,  # type: ignore[arg-type]  # all ladders here are of djpeg's settings
            go_on=self._go_on,
            tell=self._tell_round,
        )
        if kinds and not self._cut_short:
            order = self._by_kind(order, scores) or order
        return order, scores

    @property
    def to_note(self) -> int:
        """For a later run of the same fit: what `noted` has to be."""
        return self._rounds if self._cut_short else self._rounds + 1

    def _measure(self, settings: Sequence[Candidate], some: range) -> dict[Candidate, Scores]:
        text = f"explore: {len(settings)} settings on {len(some)} photos"
        units = [self._units[i] for i in some]
        watch = Watch(tell_to(self._say, text))
        return self._bench.scores(settings, units, watch, quick=True)

    def _go_on(self, settings: int, units: int) -> bool:
        self._rounds += 1
        if self._noted is not None:
            self._cut_short = self._rounds >= self._noted
        elif self._left is not None and self._bench.asked:
            each = self._files * self._bench.seconds / self._bench.asked
            self._cut_short = (
                settings * units + SLOWER * TESTS * self._aim.certify
            ) * each >= self._left()
            if self._cut_short:
                self.notices.append(
                    "the budget ended the search before it had seen all photos to choose with"
                )
        return not self._cut_short

    def _tell_round(self, found: Round[Candidate]) -> None:
        if found.best is None or is_last(found.best):
            self._say(
                f"explore: after {found.units}, nothing smaller than the sources seems to hold"
            )
            return
        size = float(found.scores[found.best].sizes.mean())
        self._say(
            f"explore: after {found.units}, best so far {named(found.best)}: {size:,.0f} bytes"
        )

    def _by_kind(
        self, order: Order[Candidate], scores: Mapping[Candidate, Scores]
    ) -> Order[Candidate] | None:
        """The order of settings by kind of photo, where they are smaller; None where not."""
        files = [file for unit in self._units for file in unit.files]
        flags = [self._bench.lettering(one) for one in files if one not in self._bench.unread]
        lettering = np.array(flags, bool)
        if len(order.rungs) < 2 or None in flags or not worth_a_look(lettering):
            return None
        kind = order.rungs[1]
        assert isinstance(kind, DjpegSettings)
        ladder: list[Candidate] = [*rungs_like(kind), order.rungs[0]]
        whole = range(len(self._units))
        new = sum(len(scores[one].sizes) < len(lettering) for one in ladder if one in scores)
        new += sum(one not in scores for one in ladder)
        if not self._go_on(new, len(whole)):
            return None
        known = self._measure(ladder, whole)
        pairs, both = paired(ladder, known, lettering, self._aim)
        alone, by_kind = cost_of(ladder, known, self._aim), cost_of(pairs, both, self._aim)
        share = f"{by_kind / alone:.0%} of the bytes of one setting for all"
        count = f"{int(lettering.sum())} of {len(lettering)} photos have lettering"
        pays = by_kind <= PAYS * alone
        self._say(f"explore: {count}; settings by kind: {share}{'' if pays else ', left'}")
        return order_of(pairs, both, self._aim) if pays else None
