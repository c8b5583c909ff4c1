"""The statistics of a certificate: published figures, and promises kept in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vizcomp.fitting import bounds

RISK = 0.05


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


@pytest.mark.parametrize("photos", [60, 300])
def test_a_risk_just_too_large_passes_at_most_as_often_as_agreed(photos: int) -> None:
    """Samples at the very risk: more than 5% + three standard errors would be a broken promise."""
    changed = np.random.default_rng(1).binomial(photos, RISK, 2000)
    passed = [bounds.binomial_p_value(int(count), photos, RISK) <= 0.05 for count in changed]
    assert np.mean(passed) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


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
        changed = (rng.random(300)[:, None] < risks).sum(0)
        fallen = bounds.fixed_sequence(
            (bounds.binomial_p_value(int(one), 300, RISK) for one in changed), 0.95
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
