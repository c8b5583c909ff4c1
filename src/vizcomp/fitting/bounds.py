"""Statistics of a certificate: bounds of a mean loss, tests of many settings, and e-values.

A loss is a number in 0..1 for each unit of a sample: 1 for a changed answer, or 1 - F1. The risk of
a setting is the mean loss over all photos like the sample. Each test here has as null hypothesis
that the risk is above the one asked for; a small p-value speaks against that. Nothing assumes that
the risk falls as quality rises.

Sources: Clopper and Pearson, Biometrika 26 (1934); Bentkus, Annals of Probability 32 (2004);
Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test", arXiv 2110.01052; Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", arXiv 2010.09686; Voracek and
Orabona, "STaR-Bets", arXiv 2505.22422; Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float64]  # (N,), each in 0..1

HALVINGS = 60  # of an interval in 0..1: beyond what a double holds
UPPER_STEPS = 200  # risks that a bound by betting is looked for between
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


def hoeffding_bentkus_p_value(mean: float, photos: int, risk: float) -> float:
    """The smaller of Hoeffding's and Bentkus' p-value for losses in 0..1 ("Learn then Test",
    proposition 1).

    Args:
        mean: mean loss of the sample.
    """
    if not 0 < risk < 1:
        return 1.0
    low = min(mean, risk)
    first = low * math.log(low / risk) if low > 0 else 0.0
    relative = first + (1 - low) * math.log((1 - low) / (1 - risk)) if low < 1 else first
    hoeffding = math.exp(-photos * relative)
    # a sum of floats may end a hair above a whole number
    bentkus = math.e * binomial_tail(math.ceil(photos * mean - 1e-9), photos, risk)
    return min(1.0, hoeffding, bentkus)


def betting_p_value(losses: Losses, risk: float, confidence: float) -> float:
    """P-value that the mean loss is above `risk`, by betting against it (Waudby-Smith and Ramdas).

    The capital of a gambler who bets that losses are below `risk` is at least 1/p at some time with
    probability p at most where they are not (Ville). Bets depend on earlier losses only, so the
    losses must stand in an order that does not depend on them. How much is staked follows Voracek
    and Orabona: what it takes to reach the goal with the losses that are left. Once it is reached,
    the next goal is as far again.

    Args:
        losses: float64 (N,), each in 0..1.
        risk: 0..1.
        confidence: at which the bets are aimed; any value gives a valid test.
    """
    return math.exp(-_most_capital(losses, risk, _variances(losses), confidence))


def betting_upper(losses: Losses, confidence: float) -> float:
    """Upper bound of the mean of losses in 0..1: no larger mean passes the test of
    `betting_p_value`; arguments as there."""
    variances = _variances(losses)
    level = -math.log(1 - confidence)
    # bets depend on the risk, so that what falls may not be an interval: from the top
    steps = np.linspace(0.0, 1.0, UPPER_STEPS + 1)
    stands = np.flatnonzero(_most_capitals(losses, steps, variances, confidence) < level)
    if stands[-1] == UPPER_STEPS:
        return 1.0
    low, high = float(steps[stands[-1]]), float(steps[stands[-1] + 1])
    for _ in range(HALVINGS // 2):
        middle = (low + high) / 2
        if _most_capital(losses, middle, variances, confidence) < level:
            low = middle
        else:
            high = middle
    return high


def _variances(losses: Losses) -> list[float]:
    """Before each loss, the variance of those so far, as arXiv 2010.09686 has it."""
    count = np.arange(1, len(losses) + 1)
    means = (0.5 + np.cumsum(losses)) / (count + 1)
    variances = (0.25 + np.cumsum((losses - means) ** 2)) / (count + 1)
    return [0.25, *variances[:-1].tolist()]


def _most_capital(
    losses: Losses, risk: float, variances: Sequence[float], confidence: float
) -> float:
    """The logarithm of the most that a capital of 1 becomes by betting on losses below `risk`;
    at least 0. No bet is above 1, so that no loss takes everything while `risk` is above 0."""
    goal = step = -math.log(1 - confidence)
    capital = most = 0.0
    left = len(losses)
    for loss, variance in zip(losses.tolist(), variances, strict=False):
        bet = min(1.0, math.sqrt(2 * (goal - capital) / (left * variance)))
        kept = 1 - bet * (loss - risk)
        if kept <= 0:  # a loss of 1 at a risk of 0
            break
        capital += math.log(kept)
        most = max(most, capital)
        while capital >= goal:
            goal += step
        left -= 1
    return most


def _most_capitals(
    losses: Losses, risks: Losses, variances: Sequence[float], confidence: float
) -> Losses:
    """`_most_capital` up to the first goal, of many risks at once: float64 (M,)."""
    goal = -math.log(1 - confidence)
    capital = np.zeros(len(risks))
    most = capital.copy()
    for at, (loss, variance) in enumerate(zip(losses.tolist(), variances, strict=False)):
        rest = np.maximum(0.0, goal - capital)
        bets = np.minimum(1.0, np.sqrt(2 * rest / ((len(losses) - at) * variance)))
        with np.errstate(divide="ignore"):
            capital += np.log(np.maximum(0.0, 1 - bets * (loss - risks)))
        most = np.maximum(most, capital)
    return most


def p_value(losses: Losses, risk: float, confidence: float) -> float:
    """The test of a certificate: exact where each loss is 0 or 1, by betting otherwise.

    Which of the two is used must be settled by the kind of loss: where losses of 1 - F1 happen to
    be all 0 or 1, both are valid, but the better of the two is not. Use `binomial_p_value` or
    `betting_p_value` where the kind is known.
    """
    if is_binary(losses):
        return binomial_p_value(int(losses.sum()), len(losses), risk)
    return betting_p_value(losses, risk, confidence)


def is_binary(losses: Losses) -> bool:
    """Whether every loss is 0 or 1."""
    return bool(np.isin(losses, (0.0, 1.0)).all())


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
