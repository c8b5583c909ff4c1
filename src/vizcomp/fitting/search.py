"""Which setting to certify: ladders of settings explored by successive halving, then tested in one
order.

    order, scores = explore(ladders, units, measure, aim)   # free to look, choose and smooth
    tests = certify(order.rungs, measure_certify, aim)      # fixed sequence, nothing is smoothed

Settings are any hashable values here, so that a simulation can run the very same search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

import numpy as np

from vizcomp.fitting.scores import Aim, Array, Outlook, Scores, Setting

FIRST_SHARE = 16  # the first round has one of so many explore units
FEWEST = 16  # units of a round, where there are so many
SURE = 0.9  # chance to pass from which steps between rungs would be wasted
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
    go_on: Callable[[int, int], bool] = lambda answers, units: True,
    tell: Callable[[Round[Setting]], None] = lambda found: None,
) -> tuple[Order[Setting], dict[Setting, Scores]]:
    """The order in which settings are to be tested, safest first, and the scores that this rests
    on.

    The first round takes every second rung. Later ones are over twice as many units each: the
    better half of the ladders stays, and of each the half of its rungs that lie next to where the
    loss passes what is allowed. The best ladder gives the sequence.

    Args:
        ladders: each from small files to large ones.
        units: of the explore part.
        measure: the scores of settings on some units.
        go_on: asked before each round but the first, with the settings it would try and the units
            it would try them on.
        tell: is given where the search is after each round.
    """
    scores: dict[Setting, Scores] = {}
    alive = [(ladder, [*ladder[-2::-2][::-1], ladder[-1]]) for ladder in ladders]
    done, size = 0, min(units, max(FEWEST, -(-units // FIRST_SHARE)))
    while True:
        asked = list(dict.fromkeys(setting for _, rungs in alive for setting in rungs))
        known = [setting for setting in asked if setting in scores]
        for setting, more in (measure(known, range(done, size)) if known else {}).items():
            scores[setting] = scores[setting].joined(more)
        new = [setting for setting in asked if setting not in scores]
        scores |= measure(new, range(size)) if new else {}
        done = size
        outlook = Outlook(aim, scores)
        seen = [(_Seen.of(rungs, scores, outlook), ladder) for ladder, rungs in alive]
        seen.sort(key=lambda pair: pair[0].cost)
        tell(Round(done, scores, seen[0][0].best))
        if done == units:
            break
        alive = [
            (ladder, one.near(ladder)) for one, ladder in seen[: max(2, math.ceil(len(seen) / 2))]
        ]
        size = min(units, 2 * done)
        if not go_on(len({setting for _, rungs in alive for setting in rungs}), size - done):
            break
    return order_of(seen[0][1], scores, aim), scores


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
            np.array(
                [outlook.strain(setting, mean) for setting, mean in zip(rungs, smooth, strict=True)]
            ),
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
    def cost(self) -> float:
        """Bytes where a ladder's loss passes what is allowed, between its rungs in equal parts of
        the loss."""
        at = self.edge
        if at == 0 or self.strain[at] > 1:
            return float(self.sizes[at])
        share = (self.strain[at - 1] - 1) / (self.strain[at - 1] - self.strain[at])
        return float(
            np.exp((1 - share) * np.log(self.sizes[at - 1]) + share * np.log(self.sizes[at]))
        )

    def near(self, ladder: Sequence[Setting]) -> list[Setting]:
        """The half of all rungs of the ladder next to the edge, with one more that is safer than
        riskier ones."""
        count = max(3, math.ceil(len(ladder) / 2))
        edge = ladder.index(self.rungs[self.edge])
        low = min(max(0, edge - (count - 1) // 2), max(0, len(ladder) - count))
        return list(ladder[low : low + count])


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
    sizes = {one: float(scores[one].sizes.mean()) for one in ladder if one in scores}
    return Order(tuple(rungs), near, sizes)


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
