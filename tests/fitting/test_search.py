"""The search and the order of the tests, on made scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vizcomp.fitting.run import LAST_RESORT, ladders, refined
from vizcomp.fitting.search import Aim, Scores, certify, explore, falling

AIM = Aim(0.05, 0.95, 700, (True,))
NAMES = [[("plain", rung) for rung in range(9)], [("better", rung) for rung in range(9)]]
RISKS = np.minimum(0.9, 0.4 * 0.5 ** np.arange(9))


def scores_of(one: tuple[str, int], units: range) -> Scores:
    """The better ladder has files of four fifths of the size."""
    rng = np.random.default_rng(7)
    hard = rng.random(1000)[units.start : units.stop]
    size = 1.3 ** one[1] * (0.8 if one[0] == "better" else 1.0)
    return Scores(np.full(len(hard), size), (hard < RISKS[one[1]]).astype(float)[None])


def test_the_search_finds_the_smaller_ladder_and_tests_it_from_the_safe_end() -> None:
    asked: list[tuple[int, int]] = []

    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        asked.append((len(some), len(units)))
        return {one: scores_of(one, units) for one in some}

    sequence, scores = explore(NAMES, 300, measure, AIM)
    assert [units for _, units in asked] == [75, 75, 150]
    assert [settings for settings, _ in asked] == [18, 10, 6]
    assert len(scores) == 18
    assert {name for name, _ in sequence} == {"better"}
    rungs = [rung for _, rung in sequence]
    assert rungs == sorted(rungs, reverse=True)
    assert RISKS[rungs[0]] < 0.02
    tests = list(certify(sequence, lambda one: scores_of(one, range(300, 1000)), AIM))
    assert [test.passed for test in tests] == [True] * (len(tests) - 1) + [False]
    last = next(test for test in reversed(tests) if test.passed)
    assert RISKS[last.setting[1]] <= 0.05
    assert last.setting[1] <= 4


def test_a_budget_ends_the_search_after_a_round() -> None:
    rounds = []

    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        rounds.append(units)
        return {one: scores_of(one, units) for one in some}

    sequence, _ = explore(NAMES, 300, measure, AIM, go_on=lambda: False)
    assert rounds == [range(75)]
    assert sequence


def test_where_nothing_is_safe_the_largest_is_tested() -> None:
    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        return {one: Scores(np.ones(len(units)), np.ones((1, len(units)))) for one in some}

    sequence, _ = explore(NAMES, 30, measure, AIM)
    assert [rung for _, rung in sequence] == [8]


def test_all_systems_must_hold() -> None:
    aim = Aim(0.05, 0.95, 100, (True, False))
    good, bad = np.zeros(100), np.full(100, 0.06)
    assert aim.p_value(np.stack([good, good])) <= 0.05
    assert aim.p_value(np.stack([good, bad])) > 0.05
    assert aim.p_value(np.stack([good, good])) == max(
        aim.one_p_value(good, True), aim.one_p_value(good, False)
    )
    assert aim.upper(np.stack([good, bad])) > 0.06


@pytest.mark.parametrize(("units", "reachable"), [(0, False), (58, False), (59, True)])
def test_what_can_be_reached(units: int, reachable: bool) -> None:
    assert Aim(0.05, 0.95, units, (True,)).reachable is reachable


def test_pooling_gives_the_nearest_falling_sequence() -> None:
    assert falling(np.array([3.0, 1, 2, 0]), np.ones(4)).tolist() == [3, 1.5, 1.5, 0]
    assert falling(np.array([0.0, 1]), np.array([3.0, 1])).tolist() == [0.25, 0.25]


def test_a_sequence_is_refined_between_its_qualities_and_below() -> None:
    ladder = ladders()[0]
    finer = refined([LAST_RESORT, ladder[5], ladder[4]])
    assert [one.quality for one in finer] == [100, 60, 52, 45, 38]
    assert refined([LAST_RESORT]) == [LAST_RESORT]
    assert sum(len(set(ladder)) for ladder in ladders()) - 6 == 57
