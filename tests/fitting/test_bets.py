"""The test of losses in 0..1: promises kept in simulation, and how near it is to the exact test."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from vizcomp.fitting import bets, bounds

RISK, CONFIDENCE = 0.05, 0.95
LEVEL = 1 - CONFIDENCE
Losses = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, float, tuple[int, int]], Losses]


def detector(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Losses:
    """Mostly nothing, else a box of several, or all."""
    values = np.array([1 / 9, 1 / 7, 1 / 5, 1 / 3, 1 / 2, 1.0])
    shares = np.array([0.2, 0.2, 0.2, 0.2, 0.1, 0.1])
    hit = rng.random(shape) < mean / float(values @ shares)
    return np.where(hit, rng.choice(values, shape, p=shares), 0.0)


def changed(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Losses:
    return (rng.random(shape) < mean).astype(float)


def halves(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Losses:
    return (rng.random(shape) < 2 * mean) * 0.5


def small(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Losses:
    return rng.beta(2, 2 * (1 - mean) / mean, shape)


def nearly_always(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Losses:
    """A little on every photo, and now and then all: what a lucky sample does not show."""
    return np.where(rng.random(shape) < mean / 2, 1.0, mean / 2 / (1 - mean / 2))


def first_small(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Losses:
    """Photos that lose a little come first: still each has the same mean."""
    late = np.arange(shape[1]) > shape[1] / 2
    return np.where(late, changed(rng, mean, shape), mean)


KINDS = (detector, changed, halves, small, nearly_always, first_small)


def passes(samples: Losses, risk: float = RISK, seen: bets.Seen = bets.NOTHING) -> float:
    values = [bets.betting_p_value(one, risk, CONFIDENCE, seen) for one in samples]
    return float(np.mean(np.array(values) <= LEVEL))


@pytest.mark.parametrize("draw", KINDS)
@pytest.mark.parametrize("photos", [60, 300])
def test_a_risk_just_too_large_passes_at_most_as_often_as_agreed(draw: Draw, photos: int) -> None:
    """Samples at the very risk, whatever was seen before: more than 5% + three standard errors
    would be a broken promise."""
    rng = np.random.default_rng(1)
    for seen in ((5.0, 5.0), (5.0, 0.2)):
        share = passes(draw(rng, RISK, (200, photos)), seen=seen)
        assert share <= LEVEL + 3 * math.sqrt(LEVEL * CONFIDENCE / 200)


@pytest.mark.parametrize("photos", [59, 93, 153, 400])
def test_changed_answers_are_tested_nearly_as_by_the_exact_test(photos: int) -> None:
    """As many changes pass, or one less; where they come is of little account."""
    most = max(k for k in range(photos) if bounds.binomial_p_value(k, photos, RISK) <= LEVEL)
    places = np.random.default_rng(2).permuted(np.arange(photos))
    for count, share in ((most, 0.0), (most - 1, 0.5), (most + 2, -1.0)):
        rows = []
        for shift in range(20):
            losses = np.zeros(photos)
            losses[np.roll(places, 7 * shift)[: max(0, count)]] = 1.0
            rows.append(losses)
        passed = passes(np.array(rows), seen=(9.0, 9.0))
        assert passed <= 0.2 if share < 0 else passed >= share
    assert passes(np.zeros((1, photos))) == 1


def test_a_detectors_losses_pass_more_often_than_by_bets_for_many_small_ones() -> None:
    """342 photos, mean .03: of the bets of arXiv 2505.22422 60% of 300 samples passed, of those of
    2010.09686 55%, by simulations beside this one; a normal distribution would say 85%."""
    rng = np.random.default_rng(6)
    samples = detector(rng, 0.03, (300, 342))
    assert passes(samples) > 0.7
    seen = float(samples[0].sum()), float((samples[0] ** 2).sum())
    assert passes(samples[1:], seen=seen) > 0.7


def test_what_was_seen_before_helps_where_losses_are_many_and_small() -> None:
    samples = small(np.random.default_rng(7), 0.035, (100, 240))
    seen = float(samples[0].sum()), float((samples[0] ** 2).sum())
    assert passes(samples[1:], seen=seen) > passes(samples[1:]) + 0.05


@pytest.mark.parametrize("draw", KINDS)
def test_the_upper_bound_covers_and_agrees_with_its_test(draw: Draw) -> None:
    samples = draw(np.random.default_rng(2), RISK, (30, 100))
    uppers = np.array([bets.betting_upper(s, CONFIDENCE) for s in samples])
    assert (uppers < RISK).mean() <= LEVEL + 3 * math.sqrt(LEVEL * CONFIDENCE / 30)
    for sample, upper in zip(samples[:4], uppers, strict=False):
        assert bets.betting_p_value(sample, min(1.0, upper + 1e-9), CONFIDENCE) <= LEVEL
        assert upper == 1 or bets.betting_p_value(sample, upper - 1e-6, CONFIDENCE) > LEVEL


def test_many_photos_cost_little_beside_a_normal_distribution() -> None:
    """5,000 photos: the bound is about what the normal distribution says."""
    losses = detector(np.random.default_rng(3), 0.04, (1, 5_000))[0]
    gap = bets.betting_upper(losses, CONFIDENCE) - losses.mean()
    assert 0.8 < gap / (1.645 * losses.std() / math.sqrt(5_000)) < 1.35


def test_a_goal_that_is_reached_gives_way_to_the_next() -> None:
    """Corrections for several tests need p-values far below 5%."""
    assert bets.betting_p_value(np.zeros(600), RISK, CONFIDENCE) < 1e-4


def test_ends() -> None:
    ones, none = np.ones(30), np.zeros(0)
    assert bets.betting_p_value(ones, RISK, CONFIDENCE) == 1
    assert bets.betting_p_value(none, RISK, CONFIDENCE) == 1
    assert bets.betting_p_value(np.zeros(30), 0.0, CONFIDENCE) == 1
    assert bets.betting_upper(ones, CONFIDENCE) == 1
    assert bets.betting_upper(none, CONFIDENCE) == 1
    assert bets.betting_upper(np.zeros(299), CONFIDENCE) == pytest.approx(0.01, rel=0.02)
    assert 0 < bets.betting_p_value(np.full(50, 0.2), 1.0, CONFIDENCE) <= LEVEL
