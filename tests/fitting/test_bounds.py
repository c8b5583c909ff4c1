"""The statistics of a certificate: published figures, and promises kept in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vizcomp.fitting import bounds

RISK, CONFIDENCE = 0.05, 0.95


@pytest.mark.parametrize(("changed", "photos"), [(0, 299), (1, 473), (3, 773)])
def test_how_many_photos_one_percent_takes(changed: int, photos: int) -> None:
    assert bounds.photos_needed(0.01, 0.95, changed) == photos
    assert (
        bounds.binomial_upper(changed, photos, 0.95)
        <= 0.01
        < bounds.binomial_upper(changed, photos - 1, 0.95)
    )
    assert (
        bounds.binomial_p_value(changed, photos, 0.01)
        <= 0.05
        < bounds.binomial_p_value(changed, photos - 1, 0.01)
    )


@pytest.mark.parametrize("photos", [1, 7, 60])
@pytest.mark.parametrize("risk", [0.003, 0.2, 0.9])
def test_the_binomial_tail_is_the_sum_of_its_terms(photos: int, risk: float) -> None:
    terms = [math.comb(photos, k) * risk**k * (1 - risk) ** (photos - k) for k in range(photos + 1)]
    for changed in range(photos + 1):
        assert bounds.binomial_tail(changed, photos, risk) == pytest.approx(
            sum(terms[: changed + 1]), rel=1e-10
        )


def test_ends_of_the_binomial() -> None:
    assert bounds.binomial_upper(5, 5, 0.95) == 1
    assert bounds.binomial_tail(-1, 5, 0.5) == 0
    assert bounds.binomial_tail(0, 5, 1.0) == 0
    assert bounds.binomial_tail(0, 5, 0.0) == 1
    assert 0 < bounds.binomial_tail(10, 100_000, 0.001) < 1e-20
    for risk, confidence in ((0.0, 0.9), (1.0, 0.9), (0.1, 1.0)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            bounds.photos_needed(risk, confidence)


KINDS = {
    "changed answers": lambda rng, shape: (rng.random(shape) < RISK).astype(float),
    "few and whole": lambda rng, shape: (rng.random(shape) < RISK / 0.5) * 0.5,
    "many and small": lambda rng, shape: rng.beta(2, 2 * (1 - RISK) / RISK, shape),
    "one kind of F1": lambda rng, shape: rng.choice([0, 0, 0, 0.1, 0.15], shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("photos", [60, 300])
def test_a_risk_just_too_large_passes_at_most_as_often_as_agreed(kind: str, photos: int) -> None:
    """Samples at the very risk: more than 5% + three standard errors would be a broken promise."""
    rng = np.random.default_rng(1)
    samples = KINDS[kind](rng, (2000, photos))
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    betting = np.array([bounds.betting_p_value(s, RISK, CONFIDENCE) for s in samples[:1000]])
    assert (betting <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
    means = samples.mean(1)
    assert (
        np.mean([bounds.hoeffding_bentkus_p_value(m, photos, RISK) <= 0.05 for m in means]) <= most
    )
    if bounds.is_binary(samples):
        assert (
            np.mean(
                [bounds.binomial_p_value(round(s.sum()), photos, RISK) <= 0.05 for s in samples]
            )
            <= most
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_betting_bound_covers_and_agrees_with_its_test(kind: str) -> None:
    rng = np.random.default_rng(2)
    samples = KINDS[kind](rng, (200, 200))
    uppers = np.array([bounds.betting_upper(s, CONFIDENCE) for s in samples])
    assert (uppers < RISK).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    for sample, upper in zip(samples[:20], uppers, strict=False):
        assert bounds.betting_p_value(sample, min(1.0, upper + 1e-6), CONFIDENCE) <= 0.05 + 1e-9
        assert bounds.betting_p_value(sample, upper - 1e-6, CONFIDENCE) > 0.05 - 1e-9


def test_betting_is_sharper_than_hoeffding_and_bentkus_where_losses_are_small() -> None:
    sample = np.random.default_rng(3).beta(2, 98, 300)  # mean .02
    assert bounds.betting_p_value(
        sample, RISK, CONFIDENCE
    ) < 0.01 * bounds.hoeffding_bentkus_p_value(sample.mean(), 300, RISK)


def test_bets_that_aim_at_the_end_pass_more_often_than_those_of_one_size() -> None:
    """A detector's losses, mean .033: of the bets of arXiv 2010.09686 43% pass 400 photos, by a
    simulation of 2,000 samples beside this one."""
    rng = np.random.default_rng(6)
    values = np.array([1 / 9, 1 / 7, 1 / 5, 1 / 3, 1 / 2, 1.0])
    shares = np.array([0.2, 0.2, 0.2, 0.2, 0.1, 0.1])
    hit = rng.random((300, 400)) < 0.033 / float(values @ shares)
    samples = np.where(hit, rng.choice(values, (300, 400), p=shares), 0.0)
    passed = np.mean([bounds.betting_p_value(s, RISK, CONFIDENCE) <= 0.05 for s in samples])
    assert passed > 0.45


def test_a_goal_that_is_reached_gives_way_to_the_next() -> None:
    """Corrections for several tests need p-values far below 5%."""
    assert bounds.betting_p_value(np.zeros(600), RISK, CONFIDENCE) < 1e-6


def test_the_kind_of_loss_chooses_the_test() -> None:
    binary, other = np.zeros(100), np.full(100, 0.01)
    assert bounds.p_value(binary, RISK, 0.95) == bounds.binomial_p_value(0, 100, RISK)
    assert bounds.p_value(other, RISK, 0.95) == bounds.betting_p_value(other, RISK, 0.95)
    for mean, risk in ((0.0, 0.5), (1.0, 0.5), (0.2, 0.0), (0.5, 1.0)):
        assert 0 <= bounds.hoeffding_bentkus_p_value(mean, 10, risk) <= 1


def test_a_sequence_stops_at_the_first_that_stands() -> None:
    def values() -> object:
        yield 0.01
        yield 0.05
        yield 0.2
        raise AssertionError("asked for too much")

    assert bounds.fixed_sequence(values(), 0.95) == 2  # type: ignore[arg-type]
    assert bounds.fixed_sequence([], 0.95) == 0


def test_a_sequence_of_risks_that_go_up_and_down_keeps_its_promise() -> None:
    """Learn-then-Test assumes no order of the risks: some settings far down the sequence are safe
    again."""
    rng = np.random.default_rng(4)
    risks = np.array([0.01, 0.06, 0.02, 0.055, 0.03, 0.08])
    broken = 0
    for _ in range(2000):
        # the same photos for all settings: dependent tests
        draws = rng.random(300)[:, None] < risks
        fallen = bounds.fixed_sequence(
            (bounds.p_value(d, RISK, 0.95) for d in draws.T.astype(float)), 0.95
        )
        broken += bool((risks[:fallen] > RISK).any())
    assert broken / 2000 <= 0.05


def test_holm() -> None:
    assert bounds.holm([0.01, 0.04, 0.03, 0.005], 0.95) == [True, False, False, True]
    assert bounds.holm([0.02, 0.02], 0.95) == [True, True]
    assert bounds.holm([], 0.95) == []


@pytest.mark.parametrize("above", [True, False])
def test_an_e_value_seldom_speaks_against_the_truth_and_soon_against_the_false(above: bool) -> None:
    rng = np.random.default_rng(5)
    for kind in KINDS.values():
        values = np.array(
            [bounds.log_e_value(s, RISK, above=above) for s in kind(rng, (2000, 100))]
        )
        assert (values >= math.log(20)).mean() <= 0.05
    false = np.array(
        [
            bounds.log_e_value(
                (rng.random(400) < (0.12 if above else 0.01)) * 1.0, RISK, above=above
            )
            for _ in range(200)
        ]
    )
    assert (false >= math.log(20)).mean() >= 0.8
    assert bounds.log_e_value(np.zeros(0), RISK, above=above) == pytest.approx(0)
