"""The test of a certificate for losses in 0..1: bets that repeat the exact test of losses that come
in jumps.

A gambler starts with a capital of 1 and stakes a part of it on each loss being below the risk. If
the mean loss is above the risk, the capital reaches 1/p with probability p at most, whatever the
losses' distribution (Ville; Waudby-Smith and Ramdas, arXiv 2010.09686). Any stake that depends on
earlier losses alone gives a valid test; a good one reaches the goal, and no more, with the last
loss (Voracek and Orabona, arXiv 2505.22422).

Here the capital, as a share of the goal, is the probability of a test: that no more jumps come from
now on than may, where jumps have one height and come as a Poisson process whose mean is the risk.
The share to start with is 1 - confidence, the level of that test. To keep the share at the
probability takes one stake, the difference that one jump makes ("quantile hedging", Foellmer and
Leukert, Finance and Stochastics 3, 1999). Where losses are such jumps, the bets repeat the exact
test and lose nothing to it. Where they are not, they stay valid and lose little. The height follows
the losses, of the part that was explored and of those that have been betted on.
"""

from __future__ import annotations

import functools
import math
import statistics

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float64]  # (N,), each in 0..1
Seen = tuple[float, float]
"""Sum of losses that were seen before, and sum of their squares: how large losses are."""

NOTHING: Seen = (0.0, 0.0)
USUAL: Seen = (1.0, 0.5)  # what counts as seen before anything was
LOWER = 0.8  # jumps are taken to be so much lower: to expect too high ones costs more
LEAST_JUMP = 0.25  # of the risk; a jump is what a loss has above it
NEARLY = 0.99  # of a goal, from which all that is missing is staked at once
TINY = 1e-12  # of a goal, that rounding may take
UPPER_STEPS = 200  # risks that an upper bound is looked for between
HALVINGS = 30  # of one such step

# Stakes are known at these shares of the goal and these numbers of jumps still to come, between
# them by lines. More jumps than the table has are as good as a normal distribution.
SHARES, JUMPS = 128, 96
JUMP_SCALE = 8.0  # the table has (i / 8)^2 jumps
MOST_JUMPS = (JUMPS / JUMP_SCALE) ** 2
NORMAL = statistics.NormalDist()


@functools.cache
def _table() -> Losses:
    """By how much a share of the goal falls with one jump; (JUMPS + 1, SHARES + 1)."""
    shares = np.sin(np.linspace(0, math.pi / 2, SHARES + 1)) ** 2
    rows = []
    for place in range(JUMPS + 1):
        mean = (place / JUMP_SCALE) ** 2
        count = np.arange(int(mean + 10 * math.sqrt(mean) + 20))
        terms = np.array([math.lgamma(one + 1) for one in count])
        logs = count * math.log(mean) - mean - terms if mean else np.where(count > 0, -np.inf, 0.0)
        chance = np.exp(logs)  # of just so many jumps
        rows.append(np.interp(shares, np.append(0, np.cumsum(chance)), np.append(0, chance)))
    return np.array(rows)


@functools.cache
def _rows() -> list[list[float]]:
    return [[float(fall) for fall in row] for row in _table()]


def _fall(jumps: float, share: float) -> float:
    """By how much a share of the goal, 0..1, falls with the next jump, of which so many are still
    to come."""
    if jumps >= MOST_JUMPS:
        place = NORMAL.inv_cdf(min(max(share, TINY), 1 - TINY))
        return NORMAL.pdf(place) / math.sqrt(jumps)
    x = JUMP_SCALE * math.sqrt(jumps)
    y = math.asin(math.sqrt(share)) * (2 * SHARES / math.pi)
    i, j = int(x), min(int(y), SHARES - 1)
    few, many = _rows()[i], _rows()[i + 1]
    at_few = few[j] + (y - j) * (few[j + 1] - few[j])
    at_many = many[j] + (y - j) * (many[j + 1] - many[j])
    return at_few + (x - i) * (at_many - at_few)


def _falls(jumps: Losses, share: Losses) -> Losses:
    """`_fall` of many at once."""
    x = JUMP_SCALE * np.sqrt(np.minimum(jumps, MOST_JUMPS))
    y = np.arcsin(np.sqrt(share)) * (2 * SHARES / math.pi)
    i = np.minimum(x.astype(int), JUMPS - 1)
    j = np.minimum(y.astype(int), SHARES - 1)
    table, part = _table(), y - j
    few, many = ((1 - part) * table[k, j] + part * table[k, j + 1] for k in (i, i + 1))
    falls: Losses = few + (x - i) * (many - few)
    for place in np.flatnonzero(jumps >= MOST_JUMPS):
        falls[place] = _fall(float(jumps[place]), float(share[place]))
    return falls


def betting_p_value(losses: Losses, risk: float, confidence: float, seen: Seen = NOTHING) -> float:
    """P-value that the mean loss is above `risk`, by betting against it.

    Bets depend on earlier losses only, so the losses must stand in an order that does not depend on
    them. Once the goal is reached, the next is as far again: where it is below 1 - `confidence`,
    the p-value is about a power of that.

    Args:
        losses: float64 (N,), each in 0..1.
        risk: 0..1.
        confidence: at which the bets are aimed; any value gives a valid test.
        seen: of other losses like these, which no bet is on. Any gives a valid test, if it does not
            depend on `losses`.
    """
    if risk <= 0:
        return 1.0
    start = 1 - confidence
    lost, squares = seen[0] + USUAL[0], seen[1] + USUAL[1]
    share, goals, most = start, 0, 0.0
    left = len(losses)
    for loss in losses.tolist():
        jump = max(LEAST_JUMP * risk, LOWER * squares / lost - risk)
        stake = _fall(left * risk / jump, share) / jump
        # neither more than there is, nor more than the goal takes
        if share > NEARLY:
            stake = math.inf
        most_stake = share / (1 - risk) if risk < 1 else math.inf
        share += min(stake, most_stake, (1 - share) / risk) * (risk - loss)
        if share <= TINY:
            break
        if share >= 1 - TINY:
            goals, share = goals + 1, start
        most = max(most, goals - math.log(share / start) / math.log(start))
        lost, squares, left = lost + loss, squares + loss * loss, left - 1
    return float(start**most)


def betting_upper(losses: Losses, confidence: float, seen: Seen = NOTHING) -> float:
    """Upper bound of the mean of losses in 0..1: no larger mean passes the test of
    `betting_p_value`; arguments as there."""
    # bets depend on the risk, so that what falls may not be an interval: from the top
    steps = np.linspace(0.0, 1.0, UPPER_STEPS + 1)
    stands = np.flatnonzero(~_reached(losses, steps, confidence, seen))
    if stands[-1] == UPPER_STEPS:
        return 1.0
    low, high = float(steps[stands[-1]]), float(steps[stands[-1] + 1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if betting_p_value(losses, middle, confidence, seen) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _reached(losses: Losses, risks: Losses, confidence: float, seen: Seen) -> npt.NDArray[np.bool_]:
    """Whether the bets reach their first goal, of many risks at once: bool (M,)."""
    lost, squares = seen[0] + USUAL[0], seen[1] + USUAL[1]
    share = np.full(len(risks), 1 - confidence)
    reached = np.zeros(len(risks), bool)
    with np.errstate(divide="ignore"):
        for at, loss in enumerate(losses.tolist()):
            jump = np.maximum(LEAST_JUMP * risks, LOWER * squares / lost - risks)
            stake = _falls((len(losses) - at) * risks / jump, share) / jump
            stake[share > NEARLY] = np.inf
            most_stake = np.minimum(share / (1 - risks), (1 - share) / risks)
            share = share + np.minimum(stake, most_stake) * (risks - loss)
            share = np.clip(share, 0.0, 1.0)
            reached |= share >= 1 - TINY
            lost, squares = lost + loss, squares + loss * loss
    return reached & (risks > 0)
