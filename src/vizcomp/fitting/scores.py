"""What settings cost and lose on units of a sample, what is asked of them, and what one part says
of the next.

A *group* is a stratum of the sample (a camera, a site); where nobody asked for any, all units are
of one. What is asked has to hold for every system in every group, which takes no correction: the
largest of the p-values decides.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from vizcomp.fitting import bets, bounds

Setting = TypeVar("Setting", bound=Hashable)
Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

SOFT_WEIGHT = 60.0  # units that how far answers move is worth, beside how many change
SOFT_TRUST = 0.5  # share of that weight that counts as evidence: one ratio serves all settings
POWERS = (1.0, 1.25, 1.5, 1.75, 2.0)  # of the law by which losses follow from moves
SHRINK = 10.0  # units of the whole sample that are added to each group's own
# of the units, what is looked at to choose: to order settings takes far fewer than to certify one
EXPLORE_LEAST, EXPLORE_USUAL, EXPLORE_MOST = 0.12, 0.2, 0.25
EXPLORE_FEWEST = 5  # units
QUANTILE = 1.75  # standard errors that a test by betting takes, about
USUAL_LOSS = 0.5  # where there is one, before any was seen
FAR_TOO_MUCH = 2.0  # times the risk: what is lost more says little of losses that may pass


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What a setting costs and loses on some units.

    Attributes:
        sizes: float64 (N,), mean bytes of each unit's files.
        losses: float64 (S, N), of each system and unit, each in 0..1.
        soft: float64 (S, N), how far each answer moved; None: `losses` say all that is known.
        groups: int64 (N,), the group of each unit; None: one group.
        rest: units of each group that were not looked at, since nothing that they might say could
            help; () for none.
    """

    sizes: Array
    losses: Array
    soft: Array | None = None
    groups: Numbers | None = None
    rest: tuple[int, ...] = ()

    @property
    def worst(self) -> float:
        """The mean loss of the system that loses most."""
        return float(self.losses.mean(1).max())

    @property
    def moved(self) -> Array:
        """`soft`, or what stands for it."""
        return self.losses if self.soft is None else self.soft

    @property
    def group_of(self) -> Numbers:
        """`groups`, or what stands for them."""
        return np.zeros(len(self.sizes), np.int64) if self.groups is None else self.groups

    def joined(self, other: Scores) -> Scores:
        """These units, then the other's."""
        return Scores(
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.losses, other.losses], 1),
            np.concatenate([self.moved, other.moved], 1),
            np.concatenate([self.group_of, other.group_of]),
        )

    def first(self, count: int) -> Scores:
        """The first of these units."""
        if len(self.sizes) <= count:
            return self
        return Scores(
            self.sizes[:count],
            self.losses[:, :count],
            self.moved[:, :count],
            self.group_of[:count],
        )

    def of_groups(self, chosen: Mapping[int, int]) -> Scores:
        """The units of some groups, each with its new number."""
        keep = np.isin(self.group_of, list(chosen))
        numbers = np.array([chosen[int(group)] for group in self.group_of[keep]], np.int64)
        rest = tuple(self.rest[group] for group in chosen) if self.rest else ()
        return Scores(self.sizes[keep], self.losses[:, keep], self.moved[:, keep], numbers, rest)


@functools.lru_cache(maxsize=1024)
def passing(units: int, risk: float, confidence: float) -> int:
    """How many changed answers among so many units still show that the risk is at most `risk`; -1
    where not even none does."""
    low, high = -1, units
    while high - low > 1:
        middle = (low + high) // 2
        fits = bounds.binomial_p_value(middle, units, risk) <= 1 - confidence
        low, high = (middle, high) if fits else (low, middle)
    return low


def units_to_explore(count: int, risk: float, confidence: float, *, binary: bool) -> int:
    """How many of so many units are looked at to choose; the others certify.

    Where losses are 0 or 1, a certify part lets a larger share pass just where one more changed
    answer is allowed: of `EXPLORE_LEAST` to `EXPLORE_MOST`, the share that leaves such a part. What
    decides has not been looked at.
    """
    least = max(EXPLORE_FEWEST, math.ceil(EXPLORE_LEAST * count))
    most = max(least, int(EXPLORE_MOST * count))
    if not binary:
        return min(count, max(least, round(EXPLORE_USUAL * count)))
    if most >= count:
        return min(count, least)
    return max(
        range(least, most + 1),
        key=lambda explore: (
            passing(count - explore, risk, confidence) / (count - explore),
            explore,
        ),
    )


@dataclasses.dataclass(frozen=True)
class Aim:
    """What is asked for.

    Attributes:
        risk, confidence: of the certificate.
        certify: units of the certify part.
        binary: of each system, whether a loss is 0 or 1.
        groups: units of the certify part in each group; () for one group of them all.
        seen: of each system, how large losses are where there are some, by units that are not
            certified with: the bets of its test go by it. () for nothing.
    """

    risk: float
    confidence: float
    certify: int
    binary: tuple[bool, ...]
    groups: tuple[int, ...] = ()
    seen: tuple[bets.Seen, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of the certify part in each group."""
        return self.groups or (self.certify,)

    def p_value(self, scores: Scores) -> float:
        """The largest p-value of all systems in all groups: all must hold, so no correction is
        due."""
        return max(self.group_p_values(scores))

    def group_p_values(self, scores: Scores) -> list[float]:
        """Of each group the largest p-value of the systems."""
        return [
            max(
                self.one_p_value(one, binary, seen)
                for one, binary, seen in zip(losses, self.binary, self._seen, strict=True)
            )
            for losses in self._by_group(scores)
        ]

    def one_p_value(self, losses: Array, binary: bool, seen: bets.Seen = bets.NOTHING) -> float:
        """Exact for changed answers, by betting for other losses: the kind of loss decides, not its
        values."""
        if not len(losses):
            return 1.0
        if binary:
            return bounds.binomial_p_value(round(float(losses.sum())), len(losses), self.risk)
        return bets.betting_p_value(losses, self.risk, self.confidence, seen)

    def uppers(self, scores: Scores) -> list[float]:
        """Of each group the largest of the systems' upper bounds of the risk."""
        return [
            max(
                (
                    bounds.binomial_upper(round(float(one.sum())), len(one), self.confidence)
                    if binary
                    else bets.betting_upper(one, self.confidence, seen)
                )
                for one, binary, seen in zip(losses, self.binary, self._seen, strict=True)
            )
            for losses in self._by_group(scores)
        ]

    @property
    def test(self) -> str:
        """Which test decides, for people."""
        tests = ("exact binomial" if binary else "betting" for binary in self.binary)
        return " and ".join(dict.fromkeys(tests))

    @property
    def _seen(self) -> tuple[bets.Seen, ...]:
        return self.seen or (bets.NOTHING,) * len(self.binary)

    def informed(self, explored: Sequence[Scores]) -> Aim:
        """The same aim, with what settings that will be tested lost where a choice was made: the
        mean over those that lose not far too much."""
        seen = []
        for system in range(len(self.binary)):
            rows = [one.losses[system] for one in explored]
            least = min((float(row.mean()) for row in rows if row.any()), default=1.0)
            most = max(FAR_TOO_MUCH * self.risk, least)
            rows = [row for row in rows if row.any() and row.mean() <= most]
            seen.append(
                (
                    float(np.mean([row.sum() for row in rows])) if rows else 0.0,
                    float(np.mean([(row**2).sum() for row in rows])) if rows else 0.0,
                )
            )
        return dataclasses.replace(self, seen=tuple(seen))

    def _by_group(self, scores: Scores) -> Iterator[Array]:
        """The losses of each group, (S, n); units that were not looked at count as lost in
        nothing."""
        for group in range(len(self.sizes)):
            losses = scores.losses[:, scores.group_of == group]
            rest = scores.rest[group] if scores.rest else 0
            yield np.concatenate([losses, np.zeros((len(losses), rest))], 1) if rest else losses

    @property
    def reachable(self) -> bool:
        """Whether losses of 0 on the whole certify part would be enough, in every group."""
        return all(self.reachable_with(units) for units in self.sizes)

    def reachable_with(self, units: int) -> bool:
        """Whether losses of 0 on so many units would be enough."""
        return units > 0 and all(
            self.one_p_value(np.zeros(units), binary) <= 1 - self.confidence
            for binary in self.binary
        )

    @property
    def allowed(self) -> int:
        """How many changed answers of a system, in its smallest group, the certify part lets
        pass."""
        return max(0, passing(min(self.sizes), self.risk, self.confidence))


class Outlook(Generic[Setting]):
    """What the explore part says of how settings will fare on the certify part. It looks, smooths
    and guesses; it proves nothing.

    How far answers move goes along with how many of them change, or with what detectors lose, by
    one power law for all settings; it is seen on every photo, a change on few. Both are joined, as
    a prior and its observations are.
    """

    def __init__(self, aim: Aim, scores: Mapping[Setting, Scores]) -> None:
        self._aim, self._scores = aim, scores
        lost, moved = (
            np.array([getattr(one, name).mean(1) for one in scores.values()])
            for name in ("losses", "moved")
        )
        counts = np.array([len(one.sizes) for one in scores.values()], float)
        self._links = [_link(moved[:, i], lost[:, i], counts) for i in range(len(aim.binary))]
        # whether how far its answers moved says more than what they lost
        self._told = [
            aim.binary[i]
            or any(not np.array_equal(one.losses[i], one.moved[i]) for one in scores.values())
            for i in range(len(aim.binary))
        ]
        # how large losses are where there are some: 1 where they are 0 or 1
        whole = [[one.losses[i] for one in scores.values()] for i in range(len(aim.binary))]
        self._weights = [
            (sum(float((one**2).sum()) for one in rows) + USUAL_LOSS)
            / (sum(float(one.sum()) for one in rows) + 1)
            for rows in whole
        ]
        self._columns = [
            (system, group) for system in range(len(aim.binary)) for group in range(len(aim.sizes))
        ]

    def means(self, one: Setting) -> Array:
        """The loss to expect of each system in each group, (S * G,)."""
        return self.means_of(self._scores[one])

    def means_of(self, scores: Scores) -> Array:
        """The same, of scores that need not be of a setting."""
        found = []
        for system, group in self._columns:
            mine = scores.group_of == group
            whole, own = (
                self._blend(scores.losses[system][part], scores.moved[system][part], system)
                for part in (..., mine)
            )
            count = float(mine.sum())
            found.append(
                (count * own + SHRINK * whole) / (count + SHRINK)
                if len(self._aim.sizes) > 1
                else whole
            )
        return np.array(found)

    def _blend(self, losses: Array, moved: Array, system: int) -> float:
        if not len(losses):
            return 0.0
        if not self._told[system]:
            return float(losses.mean())
        factor, power = self._links[system]
        expected = min(1.0, factor * math.pow(float(moved.mean()), power))
        return (float(losses.sum()) + SOFT_WEIGHT * expected) / (len(losses) + SOFT_WEIGHT)

    def strain(self, means: Array) -> float:
        """The largest expected loss, as a share of what will just about pass."""
        return float(np.max(means / [self._allowed(*column) for column in self._columns]))

    def _allowed(self, system: int, group: int) -> float:
        """About the mean loss that passes in one of two cases."""
        units, risk = self._aim.sizes[group], self._aim.risk
        if self._aim.binary[system]:
            return max(0.5, passing(units, risk, self._aim.confidence)) / units
        return max(risk / 20, risk - QUANTILE * self._spread(risk, system) / math.sqrt(units))

    def _spread(self, mean: float, system: int) -> float:
        """Standard deviation of a system's losses where their mean is so high: seldom and large, or
        often and small, as those of all settings are."""
        least = self._aim.risk / 4
        return math.sqrt(max(mean, least) * max(self._weights[system] - mean, 0.01))

    def chance(self, one: Setting, means: Array) -> float:
        """The probability that a setting passes, where it is least."""
        count = len(self._scores[one].sizes)
        return min(
            self._chance(one, system, group, float(mean), count)
            for (system, group), mean in zip(self._columns, means, strict=True)
        )

    def _chance(self, one: Setting, system: int, group: int, mean: float, count: int) -> float:
        units = self._aim.sizes[group]
        if self._aim.binary[system]:
            known = count + SOFT_TRUST * SOFT_WEIGHT
            most = passing(units, self._aim.risk, self._aim.confidence)
            return beta_binomial(most, units, mean * known + 0.5, (1 - mean) * known + 0.5)
        known = count + (SOFT_TRUST * SOFT_WEIGHT if self._told[system] else 0)
        spread = self._spread(mean, system) * math.sqrt(1 / known + 1 / units)
        return 0.5 * math.erfc((mean - self._allowed(system, group)) / (spread * math.sqrt(2)))


def _link(moved: Array, lost: Array, counts: Array) -> tuple[float, float]:
    """Factor and power by which mean losses follow from how far answers move: the likeliest of
    counts of changes (Poisson)."""
    best = (0.0, 1.0)
    most = -math.inf
    for power in POWERS:
        shape = np.maximum(moved, 1e-9) ** power
        factor = float((counts * lost).sum() / (counts * shape).sum())
        if factor <= 0:
            return 0.0, 1.0
        likely = float((counts * (lost * np.log(factor * shape) - factor * shape)).sum())
        if likely > most:
            best, most = (factor, power), likely
    return best


def beta_binomial(most: int, count: int, a: float, b: float) -> float:
    """The probability of at most `most` successes in `count` trials, whose probability has a
    Beta(a, b) distribution."""

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    logs = [
        math.lgamma(count + 1)
        - math.lgamma(k + 1)
        - math.lgamma(count - k + 1)
        + log_beta(k + a, count - k + b)
        - log_beta(a, b)
        for k in range(most + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))
