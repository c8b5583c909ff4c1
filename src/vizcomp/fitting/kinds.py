"""Settings by kind of photo: two rungs of one ladder, one for photos with lettering and one for
those without.

What a certificate allows is about all photos together, so the kinds share it: from the largest
files down, each step lowers the kind that saves most bytes for what is lost more.

    rungs, scores, which photos have lettering ── pairs of rungs, a ladder like any other
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.fitting.candidates import Candidate, is_last
from vizcomp.fitting.scores import Aim, Outlook, Scores

FEWEST = 10  # photos of each kind, to choose with
PAYS = 0.95  # of the bytes of one setting for all: more would not be worth a rule

Flags = npt.NDArray[np.bool_]
Pair = tuple[int, int]  # places of rungs: with lettering, without


def worth_a_look(lettering: Flags) -> bool:
    """Whether there are enough photos of each kind."""
    return bool(min(lettering.sum(), (~lettering).sum()) >= FEWEST)


def pair(one: DjpegSettings, other: DjpegSettings) -> DjpegSettings:
    """One setting for photos with lettering, another for those without."""
    return one if one == other else dataclasses.replace(one, without_lettering=other)


def paired(
    ladder: Sequence[Candidate],
    scores: Mapping[Candidate, Scores],
    lettering: Flags,
    aim: Aim,
) -> tuple[list[Candidate], dict[Candidate, Scores]]:
    """A ladder of pairs, small files first, with its scores; its last rung is that of the ladder.

    Args:
        ladder: settings of one kind, small files first.
        scores: of all of them, on the same units of one photo each.
        lettering: bool (N,), of these units.
        aim: what is asked.
    """
    rungs = [one for one in ladder if not is_last(one)]
    outlook = Outlook(aim, scores)

    def mixed(at: Pair) -> Scores:
        return _mixed(scores[rungs[at[0]]], scores[rungs[at[1]]], lettering)

    def strain(both: Scores) -> float:
        return outlook.strain(outlook.means_of(both))

    at: Pair = (len(rungs) - 1, len(rungs) - 1)
    path: list[tuple[Pair, Scores]] = [(at, mixed(at))]
    while at != (0, 0):
        lower = [(at[0] - 1, at[1]), (at[0], at[1] - 1)]
        steps = [(one, mixed(one)) for one in lower if min(one) >= 0]
        here = path[-1][1]
        at, both = max(steps, key=lambda step: _worth(here, step[1], strain(here), strain(step[1])))
        path.append((at, both))
    found: dict[Candidate, Scores] = {}
    for (with_it, without), both in reversed(path):
        one, other = rungs[with_it], rungs[without]
        assert isinstance(one, DjpegSettings)
        assert isinstance(other, DjpegSettings)
        found[pair(one, other)] = both
    pairs = list(found)
    return [*pairs, ladder[-1]], {**found, ladder[-1]: scores[ladder[-1]]}


def _worth(here: Scores, there: Scores, before: float, after: float) -> float:
    """Bytes saved by a step down, for what it loses more; without end where it loses nothing."""
    saved = float(here.sizes.mean() - there.sizes.mean())
    return saved / max(after - before, 1e-6)


def _mixed(one: Scores, other: Scores, lettering: Flags) -> Scores:
    """The scores of units by kind."""
    return Scores(
        np.where(lettering, one.sizes, other.sizes),
        np.where(lettering, one.losses, other.losses),
        np.where(lettering, one.moved, other.moved),
        one.groups,
    )
