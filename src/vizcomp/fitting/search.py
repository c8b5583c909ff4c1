"""Which setting to certify: ladders of settings explored by successive halving, then tested in one
order.

    order, scores = explore(ladders, units, measure, aim)   # free to look, choose and smooth
    tests = certify(order.rungs, measure_certify, aim)      # fixed sequence, nothing is smoothed

Settings are any hashable values here, so that a simulation can run the very same search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Generic

import numpy as np

from vizcomp.fitting.scores import Aim, Array, Outlook, Scores, Setting

FIRST_SHARE = 16  # the first round has one of so many explore units
FEWEST = 16  # units of a round, where there are so many
APART = 3  # of the rungs that the first round takes, the smallest stand so far apart
FEWER = 3  # rungs of a ladder in the last rounds, at least
LEAST_STRAIN = 0.1  # below that, bytes are not told apart by how far a loss is from the edge
VARY_SHARE = 4  # the first round over a ladder's variants has one of so many explore units
SAFE_FIRST = 2  # rungs that are sure to pass and are tested before the steps begin
SURE = 0.9  # chance to pass from which steps between rungs would be wasted
TIE = 0.01  # of the bytes, by which ladders are told apart that end alike
HOPELESS = 0.02  # chance to pass below which a setting is not tested

Measure = Callable[[Sequence[Setting], range], dict[Setting, Scores]]
"""From settings and a range of units to the scores of each setting on these units."""


@dataclasses.dataclass(frozen=True)
class Round(Generic[Setting]):
    """Where the search is after a round.

    Attributes:
        units: of the explore part, looked at so far.
        scores: of all settings.
        best: the smallest setting that will just about pass; None where none will.
    """

    units: int
    scores: dict[Setting, Scores]
    best: Setting | None


def explore(
    ladders: Sequence[Sequence[Setting]],
    units: int,
    measure: Measure[Setting],
    aim: Aim,
    *,
    kind: Callable[[Setting], Hashable] = lambda setting: None,
    vary: Callable[[Sequence[Setting]], Sequence[Sequence[Setting]]] = lambda ladder: (),
    go_on: Callable[[int, int], bool] = lambda answers, units: True,
    tell: Callable[[Round[Setting]], None] = lambda found: None,
) -> tuple[Order[Setting], dict[Setting, Scores]]:
    """The order in which settings are to be tested, safest first, and the scores that this rests
    on.

    The first round takes every third rung. Later ones are over twice as many units each: the better
    half of the ladders stays, the best of each kind and the safest, so that none is dropped for
    what a few units say of it; of each ladder the half of its rungs that lie next to where the loss
    passes what is allowed, later the third. The best ladder is held against its own variants in the
    same way. The best of all gives the sequence.

    Args:
        ladders: each from small files to large ones.
        units: of the explore part.
        measure: the scores of settings on some units.
        kind: of a setting, as its format; all of a ladder, but for its last, are of one.
        vary: ladders like the best one that are worth a look beside it, with as many rungs.
        go_on: asked before each round but the first, with the settings it would try and the units
            it would try them on.
        tell: is given where the search is after each round.
    """
    halving = _Halving(units, measure, aim, kind, go_on, tell)
    first = min(units, max(FEWEST, -(-units // FIRST_SHARE)))
    rungs = [[*ladder[-2::-APART][::-1], ladder[-1]] for ladder in ladders]
    best, seen, whole = halving.run(list(zip(ladders, rungs, strict=True)), first)
    more = vary(best) if whole else ()
    if more:
        places = [best.index(one) for one in seen.near(best, 3)]
        again = [(ladder, [ladder[place] for place in places]) for ladder in (best, *more)]
        size = max(first, -(-units // VARY_SHARE))
        if go_on(len(more) * len(places), size):
            best, *_ = halving.run(again, size)
    return order_of(best, halving.scores, aim), halving.scores


_Alive = list[tuple[Sequence[Setting], list[Setting]]]  # ladders, and the rungs of each to measure


class _Halving(Generic[Setting]):
    """Successive halving over ladders; arguments as of `explore`.

    Attributes:
        scores: of all settings that were measured, on the units from the first on.
    """

    def __init__(
        self,
        units: int,
        measure: Measure[Setting],
        aim: Aim,
        kind: Callable[[Setting], Hashable],
        go_on: Callable[[int, int], bool],
        tell: Callable[[Round[Setting]], None],
    ) -> None:
        self._units, self._measure, self._aim = units, measure, aim
        self._kind, self._go_on, self._tell = kind, go_on, tell
        self.scores: dict[Setting, Scores] = {}
        self._seen_on: dict[Setting, int] = {}  # units, those too that could not be read

    def run(
        self, alive: _Alive[Setting], size: int
    ) -> tuple[Sequence[Setting], _Seen[Setting], bool]:
        """The best of some ladders, what was seen of it, and whether all units had their say; the
        first round is over `size` units."""
        first = size
        while True:
            self._look(list(dict.fromkeys(one for _, rungs in alive for one in rungs)), size)
            scores = self._on_equal_units(size)
            outlook = Outlook(self._aim, scores)
            seen = [(_Seen.of(ladder, scores, outlook), ladder) for ladder, _ in alive]
            seen.sort(key=lambda pair: pair[0].cost)
            best, ladder = seen[0]
            self._tell(Round(size, self.scores, best.best))
            if size == self._units:
                return ladder, best, True
            share = 2 if size == first else 3
            alive = [(ladder, one.near(ladder, share)) for one, ladder in _kept(seen, self._kind)]
            done, size = size, min(self._units, 2 * size)
            if not self._go_on(len({one for _, rungs in alive for one in rungs}), size - done):
                return ladder, best, False

    def _on_equal_units(self, size: int) -> dict[Setting, Scores]:
        """The scores, of settings that were seen on more than `size` units on the first alone: what
        is compared is compared on the same."""
        counts = [len(self.scores[one].sizes) for one, on in self._seen_on.items() if on == size]
        if not counts:
            return dict(self.scores)
        return {one: scores.first(max(counts)) for one, scores in self.scores.items()}

    def _look(self, asked: Sequence[Setting], size: int) -> None:
        """Measure settings on the units up to `size` that they have not been seen on."""
        by_count: dict[int, list[Setting]] = {}
        for one in asked:
            by_count.setdefault(self._seen_on.get(one, 0), []).append(one)
        for known, some in by_count.items():
            if known >= size:
                continue
            for one, found in self._measure(some, range(known, size)).items():
                self.scores[one] = self.scores[one].joined(found) if known else found
                self._seen_on[one] = size


def falling(values: Array, weights: Array) -> Array:
    """The nearest sequence that never rises, by pooling neighbours (weighted least squares); (N,)
    float64."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pools.append((float(value), float(weight), 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (a, v, n), (b, w, m) = pools[-2:]
            pools[-2:] = [((a * v + b * w) / (v + w), v + w, n + m)]
    return np.array([value for value, _, count in pools for _ in range(count)])


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen(Generic[Setting]):
    """The rungs of a ladder that were measured, small files first.

    Attributes:
        sizes: mean bytes, of those photos that all rungs saw.
        strain, chances: of each, after their losses were smoothed so that they fall with size.
    """

    rungs: list[Setting]
    sizes: Array
    strain: Array
    chances: Array

    @classmethod
    def of(
        cls, ladder: Sequence[Setting], scores: dict[Setting, Scores], outlook: Outlook[Setting]
    ) -> _Seen[Setting]:
        rungs = [setting for setting in ladder if setting in scores]
        weights = np.array([len(scores[setting].sizes) for setting in rungs], float)
        # (rungs, systems and groups)
        means = np.array([outlook.means(setting) for setting in rungs])
        smooth = np.stack([falling(column, weights) for column in means.T], 1)
        return cls(
            rungs,
            np.array([scores[setting].sizes.mean() for setting in rungs]),
            np.array([outlook.strain(mean) for mean in smooth]),
            np.array(
                [outlook.chance(setting, mean) for setting, mean in zip(rungs, smooth, strict=True)]
            ),
        )

    @property
    def edge(self) -> int:
        """The smallest rung that will just about pass; the largest rung where none will."""
        return (
            int(np.argmax(self.strain <= 1)) if (self.strain <= 1).any() else len(self.strain) - 1
        )

    @property
    def best(self) -> Setting | None:
        return self.rungs[self.edge] if self.strain[self.edge] <= 1 else None

    @property
    def least(self) -> tuple[float, float]:
        """The strain of the largest rung below the last, which in a fit is the sources; of equal
        ones larger files come first."""
        at = max(0, len(self.strain) - 2)
        return float(self.strain[at]), -float(self.sizes[at])

    @property
    def cost(self) -> float:
        """Bytes where a ladder's loss passes what is allowed, between its rungs by a power law; of
        ladders of which only the largest rung may pass, the safest comes first."""
        at = self.edge
        if at == 0 or self.strain[at] > 1:
            return float(self.sizes[at])
        if at == len(self.strain) - 1:  # the sources: nothing lies between them and the other rungs
            return float(self.sizes[at] * (1 + TIE * min(1.0, self.strain[at - 1] - 1)))
        # losses fall with a power of the bytes
        above, below = np.log(np.maximum(self.strain[at - 1 : at + 1], LEAST_STRAIN))
        share = above / (above - below)
        return float(
            np.exp((1 - share) * np.log(self.sizes[at - 1]) + share * np.log(self.sizes[at]))
        )

    def near(self, ladder: Sequence[Setting], share: int) -> list[Setting]:
        """The half, or another share, of all rungs of the ladder next to the edge, with one more
        that is safer than riskier ones."""
        count = max(FEWER, math.ceil(len(ladder) / share))
        edge = ladder.index(self.rungs[self.edge])
        low = min(max(0, edge - (count - 1) // 2), max(0, len(ladder) - count))
        return list(ladder[low : low + count])


def _kept(
    seen: Sequence[tuple[_Seen[Setting], Sequence[Setting]]],
    kind: Callable[[Setting], Hashable],
) -> list[tuple[_Seen[Setting], Sequence[Setting]]]:
    """Of ladders, best first: the better half, the best of each kind, and the safest of all, which
    is left where more units show that none of the others holds."""
    half = max(2, math.ceil(len(seen) / 2))
    best: dict[Hashable, int] = {}
    for place, (_, ladder) in enumerate(seen):
        best.setdefault(kind(ladder[0]), place)
    safest = min(range(len(seen)), key=lambda place: seen[place][0].least)
    kept = {*range(half), *best.values(), safest}
    return [pair for place, pair in enumerate(seen) if place in kept]


@dataclasses.dataclass(frozen=True)
class Order(Generic[Setting]):
    """The order in which settings are to be tested.

    Attributes:
        rungs: of one ladder, safest first.
        near: how many of them lie so far above the edge that steps between them would be wasted.
        sizes: mean bytes of those that were looked at.
    """

    rungs: tuple[Setting, ...]
    near: int
    sizes: dict[Setting, float]


def cost_of(ladder: Sequence[Setting], scores: dict[Setting, Scores], aim: Aim) -> float:
    """Mean bytes where a ladder's loss passes what is allowed."""
    return _Seen.of(ladder, scores, Outlook(aim, scores)).cost


def order_of(ladder: Sequence[Setting], scores: dict[Setting, Scores], aim: Aim) -> Order[Setting]:
    """The order of the tests: from the largest rung down to the smallest that may pass.

    A test that is rather sure to pass costs answers and no confidence, so the large rungs stand
    first: there is a certificate where the search was too hopeful. Steps between rungs are worth
    their answers from the rung above the first that is not sure to pass.
    """
    seen = _Seen.of(ladder, scores, Outlook(aim, scores))
    sure = seen.chances >= SURE
    start = next((i for i in range(len(seen.rungs)) if sure[i:].all()), len(seen.rungs) - 1)
    chances = dict(zip(seen.rungs, seen.chances, strict=True))
    rungs, chance = [ladder[-1]], 1.0
    for setting in reversed(ladder[:-1]):
        # one that was not looked at is as the next larger one
        chance = chances.get(setting, chance)
        if chance < HOPELESS:
            break
        rungs.append(setting)
    near = max(0, rungs.index(seen.rungs[start]) - 1)
    sure_ones = near - SAFE_FIRST  # the largest files first, then the nearest to the edge
    if sure_ones > 1:
        del rungs[1:sure_ones]
        near -= sure_ones - 1
    sizes = {one: float(scores[one].sizes.mean()) for one in ladder if one in scores}
    return Order(tuple(rungs), near, sizes)


def seen_of(order: Order[Setting], scores: Mapping[Setting, Scores]) -> list[Scores]:
    """What the explore part says of the settings that will be tested; of all, where it says nothing
    of them."""
    return [scores[one] for one in order.rungs if one in scores] or list(scores.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Tested(Generic[Setting]):
    """A setting on the certify part: its scores, its p-value, and whether it passed."""

    setting: Setting
    scores: Scores
    p_value: float
    passed: bool


def certify(
    sequence: Sequence[Setting], measure: Callable[[Setting], Scores], aim: Aim
) -> Iterator[Tested[Setting]]:
    """Test settings in their order until one fails, which comes too: the last that passed is
    certified.

    Args:
        sequence: fixed before the certify part was looked at.
        measure: a setting's scores on the whole certify part, or on as much as it takes to see that
            it cannot pass.
    """
    for setting in sequence:
        scores = measure(setting)
        value = aim.p_value(scores)
        passed = value <= 1 - aim.confidence
        yield Tested(setting, scores, value, passed)
        if not passed:
            return
