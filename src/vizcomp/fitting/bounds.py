"""Statistics of a certificate: bounds of a mean loss, tests of many settings, and e-values.

A loss is a number in 0..1 for each unit of a sample: 1 for a changed answer, or 1 - F1. The risk of
a setting is the mean loss over all photos like the sample. Each test here has as null hypothesis
that the risk is above the one asked for; a small p-value speaks against that. Nothing assumes that
the risk falls as quality rises.

Sources: Clopper and Pearson, Biometrika 26 (1934); Angelopoulos, Bates, Candes, Jordan and Lei,
"Learn then Test", arXiv 2110.01052; Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", arXiv 2010.09686; Holm, Scandinavian Journal of Statistics 6 (1979). `bets`
has the test of losses that are not 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float64]  # (N,), each in 0..1

HALVINGS = 60  # of an interval in 0..1: beyond what a double holds
BETS = 24  # shares of the capital that `log_e_value` spreads its stake over


def binomial_tail(changed: int, photos: int, risk: float) -> float:
    """The probability of at most `changed` successes in `photos` trials of probability `risk`."""
    if changed >= photos or risk <= 0:
        return 1.0
    if risk >= 1 or changed < 0:
        return 0.0
    log_odds = math.log(risk) - math.log1p(-risk)
    log_term = photos * math.log1p(-risk)
    terms = [log_term]
    for count in range(changed):
        log_term += math.log((photos - count) / (count + 1)) + log_odds
        terms.append(log_term)
    most = max(terms)
    return min(1.0, math.exp(most) * math.fsum(math.exp(term - most) for term in terms))


def binomial_p_value(changed: int, photos: int, risk: float) -> float:
    """Exact p-value (Clopper and Pearson) that the risk is above `risk`, of changed answers among
    photos."""
    return binomial_tail(changed, photos, risk)


def binomial_upper(changed: int, photos: int, confidence: float) -> float:
    """Clopper and Pearson's upper bound of the risk: below it with at least this confidence."""
    low, high = changed / photos, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if binomial_tail(changed, photos, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def photos_needed(risk: float, confidence: float, changed: int = 0) -> int:
    """How many photos show, with so many changed answers among them, that the risk is at most
    `risk`.

    Raises:
        ValueError: risk or confidence is not between 0 and 1.
    """
    if not (0 < risk < 1 and 0 < confidence < 1):
        raise ValueError("risk and confidence lie between 0 and 1")
    low, high = changed, max(2, changed + 1)
    while binomial_tail(changed, high, risk) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_tail(changed, middle, risk) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def fixed_sequence(p_values: Iterable[float], confidence: float) -> int:
    """How many hypotheses, taken in an order fixed beforehand, fall before the first that stands.

    The chance of even one false rejection is at most 1 - `confidence`, however many there are and
    however they depend on each other ("Learn then Test", fixed sequence testing). Lazy: a p-value
    after the first that stands is never asked for.
    """
    fallen = 0
    for value in p_values:
        if value > 1 - confidence:
            break
        fallen += 1
    return fallen


def holm(p_values: Sequence[float], confidence: float) -> list[bool]:
    """Which hypotheses fall by Holm's step-down procedure; chance of a false rejection as in
    `fixed_sequence`."""
    falls = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > (1 - confidence) / (len(p_values) - step):
            break
        falls[index] = True
    return falls


def log_e_value(losses: Losses, risk: float, *, above: bool) -> float:
    """Logarithm of the evidence against "the mean loss is at least `risk`", or against "at most",
    by betting.

    An e-value has mean 1 at most where the hypothesis holds, so it is 20 or more in one of 20
    samples at most; those of samples that were drawn one after the other may be multiplied, and the
    product be looked at every day. The stake is spread evenly over `BETS` shares of the capital: no
    choice is made by looking at the losses.

    Args:
        losses: float64 (N,), each in 0..1.
        risk: strictly between 0 and 1.
        above: evidence that the mean is above `risk`; otherwise, that it is below.
    """
    gain = losses - risk if above else risk - losses
    most = 1 / risk if above else 1 / (1 - risk)  # a larger bet could lose more than there is
    shares = most * np.geomspace(0.005, 0.99, BETS)
    capitals = np.log1p(shares[:, None] * gain[None]).sum(1)
    peak = float(capitals.max())
    return peak + math.log(float(np.exp(capitals - peak).mean()))
