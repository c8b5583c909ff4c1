"""Which setting to certify: ladders of settings explored by successive halving, then tested in one
order.

    sequence = explore(ladders, units, measure, aim)   # free to look, choose and smooth
    tests = certify(sequence, measure_certify, ...)    # fixed sequence, nothing is smoothed

Settings are any hashable values here, so that a simulation can run the very same search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from vizcomp.fitting import bounds

Setting = TypeVar("Setting", bound=Hashable)
Array = npt.NDArray[np.float64]

FIRST_SHARE = 4  # the first round has one of so many explore units
FEWEST = 16  # units of a round, where there are so many


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What settings cost and lose on some units.

    Attributes:
        sizes: float64 (N,), mean bytes of each unit's files.
        losses: float64 (S, N), of each system and unit, each in 0..1.
    """

    sizes: Array
    losses: Array

    @property
    def worst(self) -> float:
        """The mean loss of the system that loses most."""
        return float(self.losses.mean(1).max())

    def joined(self, other: Scores) -> Scores:
        """These units, then the other's."""
        return Scores(
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.losses, other.losses], 1),
        )


Measure = Callable[[Sequence[Setting], range], dict[Setting, Scores]]
"""From settings and a range of units to the scores of each setting on these units."""


@dataclasses.dataclass(frozen=True)
class Aim:
    """What is asked for.

    Attributes:
        risk, confidence: of the certificate.
        certify: units of the certify part.
        binary: of each system, whether a loss is 0 or 1.
    """

    risk: float
    confidence: float
    certify: int
    binary: tuple[bool, ...]

    def p_value(self, losses: Array) -> float:
        """The largest of the systems' p-values, (S, N) losses: all must hold, so no correction is
        due."""
        return max(
            self.one_p_value(one, is_binary)
            for one, is_binary in zip(losses, self.binary, strict=True)
        )

    def one_p_value(self, losses: Array, binary: bool) -> float:
        """Exact for changed answers, by betting for other losses: the kind of loss decides, not its
        values."""
        if binary:
            return bounds.binomial_p_value(round(float(losses.sum())), len(losses), self.risk)
        return bounds.betting_p_value(losses, self.risk, self.confidence)

    def upper(self, losses: Array) -> float:
        """The largest of the systems' upper bounds of the risk."""
        return max(
            (
                bounds.binomial_upper(round(float(one.sum())), len(one), self.confidence)
                if binary
                else bounds.betting_upper(one, self.confidence)
            )
            for one, binary in zip(losses, self.binary, strict=True)
        )

    @property
    def reachable(self) -> bool:
        """Whether losses of 0 on the whole certify part would be enough."""
        return (
            self.certify > 0
            and self.p_value(np.zeros((len(self.binary), self.certify))) <= 1 - self.confidence
        )

    @property
    def allowed(self) -> float:
        """About the largest mean loss that the certify part lets pass."""
        low, high = -1, self.certify
        while high - low > 1:
            middle = (low + high) // 2
            fits = bounds.binomial_p_value(middle, self.certify, self.risk) <= 1 - self.confidence
            low, high = (middle, high) if fits else (low, middle)
        return max(0, low) / max(1, self.certify)


def explore(
    ladders: Sequence[Sequence[Setting]],
    units: int,
    measure: Measure[Setting],
    aim: Aim,
    *,
    go_on: Callable[[], bool] = lambda: True,
    tell: Callable[[dict[Setting, Scores]], None] = lambda scores: None,
) -> tuple[list[Setting], dict[Setting, Scores]]:
    """Settings in the order in which they are to be tested, safest first, and the scores that this
    rests on.

    Rounds over twice as many units each: after a round the better half of the ladders stays, and of
    each the half of the rungs that lie next to where the loss passes what is allowed. The last
    ladder gives the sequence.

    Args:
        ladders: each from small files to large ones.
        units: of the explore part.
        measure: the scores of settings on some units.
        go_on: asked before each round but the first.
        tell: is given all scores after each round.
    """
    scores: dict[Setting, Scores] = {}
    alive = [list(ladder) for ladder in ladders]
    done, size = 0, min(units, max(FEWEST, -(-units // FIRST_SHARE)))
    while True:
        asked = list(dict.fromkeys(setting for ladder in alive for setting in ladder))
        for setting, fresh in measure(asked, range(done, size)).items():
            scores[setting] = scores[setting].joined(fresh) if setting in scores else fresh
        done = size
        tell(scores)
        alive.sort(key=lambda ladder: _cost(ladder, scores, aim))
        if done == units or not go_on():
            break
        alive = [
            _near(ladder, scores, aim) for ladder in alive[: max(2, math.ceil(len(alive) / 2))]
        ]
        size = min(units, 2 * done)
    best = next(ladder for ladder in ladders if alive[0][0] in ladder)
    return _sequence(best, scores, aim), scores


def _known(
    ladder: Sequence[Setting], scores: dict[Setting, Scores]
) -> tuple[list[Setting], Array, Array]:
    """The rungs that were measured, their mean bytes, and their losses smoothed so that they fall
    with size."""
    rungs = [setting for setting in ladder if setting in scores]
    sizes = np.array([scores[setting].sizes.mean() for setting in rungs])
    weights = np.array([len(scores[setting].sizes) for setting in rungs], float)
    return rungs, sizes, falling(np.array([scores[setting].worst for setting in rungs]), weights)


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


def _edge(losses: Array, allowed: float) -> int:
    """The smallest rung whose smoothed loss is allowed; the largest rung where none is."""
    return int(np.argmax(losses <= allowed)) if (losses <= allowed).any() else len(losses) - 1


def _cost(ladder: Sequence[Setting], scores: dict[Setting, Scores], aim: Aim) -> float:
    """Bytes where a ladder's loss passes what is allowed, between its rungs in equal parts of the
    loss."""
    _, sizes, losses = _known(ladder, scores)
    at = _edge(losses, aim.allowed)
    if at == 0 or losses[at] > aim.allowed:
        return float(sizes[at])
    share = (losses[at - 1] - aim.allowed) / (losses[at - 1] - losses[at])
    return float(np.exp((1 - share) * np.log(sizes[at - 1]) + share * np.log(sizes[at])))


def _near(ladder: Sequence[Setting], scores: dict[Setting, Scores], aim: Aim) -> list[Setting]:
    """The half of the rungs next to the edge, with one more that is safer than riskier ones."""
    rungs, _, losses = _known(ladder, scores)
    count = max(3, math.ceil(len(rungs) / 2))
    low = min(max(0, _edge(losses, aim.allowed) - (count - 1) // 2), max(0, len(rungs) - count))
    return rungs[low : low + count]


def _sequence(ladder: Sequence[Setting], scores: dict[Setting, Scores], aim: Aim) -> list[Setting]:
    """From the smallest rung that, with all above it, will hardly fail, down to the smallest that
    may pass.

    A start that fails leaves nothing, so two standard errors of the explore part are added; where
    no rung is so safe, the sequence starts at the largest.
    """
    rungs, _, losses = _known(ladder, scores)
    counts = np.array([len(scores[setting].sizes) for setting in rungs])
    spread = 2 * np.sqrt((losses + 1 / counts) / counts)
    safe = losses + spread <= aim.allowed
    start = next((i for i in range(len(rungs)) if safe[i:].all()), len(rungs) - 1)
    first = ladder.index(rungs[start])
    hopeless = {setting for setting in rungs if _hopeless(scores[setting], aim.risk)}
    return [setting for setting in reversed(ladder[: first + 1]) if setting not in hopeless] or [
        ladder[-1]
    ]


def _hopeless(scores: Scores, risk: float) -> bool:
    spread = 2 * math.sqrt(max(risk, scores.worst) / scores.losses.shape[1])
    return scores.worst - spread > risk


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
        measure: a setting's scores on the whole certify part.
    """
    for setting in sequence:
        scores = measure(setting)
        value = aim.p_value(scores.losses)
        passed = value <= 1 - aim.confidence
        yield Tested(setting, scores, value, passed)
        if not passed:
            return
