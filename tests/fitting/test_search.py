"""The search and the order of the tests, on made scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import SettingsError
from vizcomp.fitting import bounds, search
from vizcomp.fitting.candidates import (
    LAST_RESORT,
    QUALITIES,
    Rival,
    formats_of,
    is_last,
    ladders,
    named,
    refined,
    rival_ladder,
    variants,
)
from vizcomp.fitting.inputs import Input, Pixels, centre_alone, pixels_of
from vizcomp.fitting.scores import (
    Aim,
    Outlook,
    Scores,
    beta_binomial,
    passing,
    units_to_explore,
)
from vizcomp.fitting.search import Order, certify, explore, falling, seen_of

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

    order, scores = explore(NAMES, 300, measure, AIM)
    assert asked[0] == (8, 19)  # every third rung, and the largest
    assert asked[-1][1] == 300 - 152 or asked[-1][1] == 300
    whole = sum(settings * units for settings, units in asked)
    assert whole < 0.65 * 18 * 300
    assert max(len(one.sizes) for one in scores.values()) == 300
    assert {name for name, _ in order.rungs} == {"better"}
    rungs = [rung for _, rung in order.rungs]
    assert rungs == [8, *range(rungs[1], rungs[-1] - 1, -1)]
    assert RISKS[rungs[order.near]] < 0.02 < RISKS[rungs[order.near + 2]]
    assert order.sizes[order.rungs[order.near]] == 0.8 * 1.3 ** rungs[order.near]
    tests = list(certify(order.rungs, lambda one: scores_of(one, range(300, 1000)), AIM))
    assert [test.passed for test in tests] == [True] * (len(tests) - 1) + [False]
    last = next(test for test in reversed(tests) if test.passed)
    assert RISKS[last.setting[1]] <= 0.05
    assert last.setting[1] <= 4


def test_a_format_is_not_dropped_for_what_a_few_photos_say_of_it() -> None:
    """Five ladders of one kind and one of another, which a change on one of the first photos makes
    look worst; on all photos it is the smallest."""
    names = [[(f"one {i}", rung) for rung in range(9)] for i in range(5)]
    names.append([("other", rung) for rung in range(9)])

    def made(one: tuple[str, int], units: range) -> Scores:
        kind, rung = one
        hard = np.random.default_rng(7).random(400)
        if kind == "other":
            hard[:3] = 0.0  # changed at every rung but the last
        lost = (hard < (RISKS[rung] if rung < 8 else 0.0)).astype(float)[units.start : units.stop]
        size = 1.3**rung * (0.6 if kind == "other" else 1 + 0.01 * int(kind[-1]))
        return Scores(np.full(len(lost), size if rung < 8 else 30.0), lost[None])

    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        return {one: made(one, units) for one in some}

    def first_word(one: tuple[str, int]) -> str:
        return one[0].split()[0]

    aim = Aim(0.05, 0.95, 1600, (True,))
    order, _ = explore(names, 400, measure, aim)
    assert order.rungs[1][0].startswith("one")
    order, scores = explore(names, 400, measure, aim, kind=first_word)
    assert order.rungs[1][0] == "other"
    # of each kind something was seen on all photos
    whole = {first_word(one) for one, both in scores.items() if len(both.sizes) == 400}
    assert whole == {"one", "other"}


def test_the_safest_ladder_is_left_where_no_smaller_one_holds() -> None:
    """Few pixels look well on the first photos; later one answer in eight changes at all of their
    qualities, and large files alone hold."""
    names = [[(kind, rung) for rung in range(9)] for kind in ("few 1", "few 2", "few 3", "all")]

    def made(one: tuple[str, int], units: range) -> Scores:
        kind, rung = one
        hard = np.random.default_rng(4).random(400)
        hard[:25] = 1.0
        risk = 0.0 if rung == 8 else 0.125 if kind != "all" else RISKS[rung]
        size = 30.0 if rung == 8 else 1.3**rung * (1.8 if kind == "all" else 0.4)
        lost = (hard < risk).astype(float)[units.start : units.stop]
        return Scores(np.full(len(lost), size), lost[None])

    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        return {one: made(one, units) for one in some}

    order, _ = explore(names, 400, measure, Aim(0.05, 0.95, 1600, (True,)))
    assert order.rungs[1][0] == "all"


def test_the_best_ladder_is_held_against_its_variants() -> None:
    """One is a fifth smaller and is taken, another looks so on the first photos alone."""

    def vary(ladder: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
        return [[(kind, rung) for _, rung in ladder] for kind in ("lucky", "smaller")]

    seen: dict[str, int] = {}

    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        found = {}
        for one in some:
            seen[one[0]] = max(seen.get(one[0], 0), units.stop)
            scores = scores_of(one, units)
            share = {"smaller": 0.64, "lucky": 0.6 if units.start < 80 else 1.5}.get(one[0])
            found[one] = (
                scores
                if share is None
                else Scores(np.full(len(units), share * 1.3 ** one[1]), scores.losses)
            )
        return found

    order, _ = explore(NAMES, 300, measure, AIM, vary=vary)
    assert {kind for kind, _ in order.rungs} == {"smaller"}
    assert seen["smaller"] == 300
    order, _ = explore(NAMES, 300, measure, AIM, vary=lambda ladder: [])
    assert {kind for kind, _ in order.rungs} == {"better"}


def test_bytes_between_two_rungs_follow_a_power_law() -> None:
    """Two ladders of the same curve, one of few rungs: neither looks smaller."""

    def made(one: tuple[str, int], units: range) -> Scores:
        size = 1000 * 1.2 ** one[1]
        return Scores(np.full(len(units), size), np.full((1, len(units)), 0.3 * (1000 / size) ** 2))

    aim = Aim(0.05, 0.95, 700, (False,))
    costs = []
    for step in (1, 4):
        ladder = [("curve", rung) for rung in range(0, 17, step)]
        scores = {one: made(one, range(100)) for one in ladder}
        costs.append(search._Seen.of(ladder, scores, Outlook(aim, scores)).cost)
    assert costs[1] == pytest.approx(costs[0], rel=0.03)


def test_a_budget_ends_the_search_after_a_round() -> None:
    rounds = []

    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        rounds.append(units)
        return {one: scores_of(one, units) for one in some}

    order, _ = explore(NAMES, 300, measure, AIM, go_on=lambda settings, units: False)
    assert rounds == [range(19)]
    assert order.rungs


def test_where_nothing_is_safe_the_largest_is_tested() -> None:
    def measure(some: Sequence[tuple[str, int]], units: range) -> dict[tuple[str, int], Scores]:
        return {one: Scores(np.ones(len(units)), np.ones((1, len(units)))) for one in some}

    order, _ = explore(NAMES, 30, measure, AIM)
    assert [rung for _, rung in order.rungs] == [8]
    assert (
        Outlook(AIM, {one: measure([one], range(30))[one] for one in NAMES[0]}).chance(
            NAMES[0][8], np.ones(1)
        )
        < 0.01
    )


def made_scores(
    *losses: np.ndarray, groups: list[int] | None = None, rest: tuple[int, ...] = ()
) -> Scores:
    numbers = None if groups is None else np.array(groups)
    return Scores(np.ones(len(losses[0])), np.stack(losses), groups=numbers, rest=rest)


def test_bets_go_by_what_was_lost_where_a_choice_was_made() -> None:
    """Of settings that lose not far too much; of the least where all do."""
    aim = Aim(0.05, 0.95, 300, (False, True))
    none, few, many = np.zeros(50), np.repeat([0.25, 0.0], [8, 42]), np.full(50, 0.3)
    rows = [made_scores(one, one) for one in (few, none, many)]
    informed = aim.informed(rows)
    assert informed.seen == ((2.0, 0.5), (2.0, 0.5))
    assert aim.informed(rows[2:]).seen[0] == pytest.approx((15.0, 4.5))
    assert aim.informed(rows[1:2]).seen == ((0.0, 0.0),) * 2
    losses = np.repeat([0.5, 0.0], [15, 285])
    values = [aim.one_p_value(losses, False, seen) for seen in ((0.0, 0.0), (2.0, 0.5))]
    assert values[0] != values[1]
    scores = made_scores(losses, np.zeros(300))
    assert informed.group_p_values(scores) == [values[1]]
    assert informed.uppers(scores) != aim.uppers(scores)
    assert aim.test == "betting and exact binomial"
    assert Aim(0.05, 0.95, 300, (True, True)).test == "exact binomial"


def test_what_was_seen_is_of_settings_that_will_be_tested() -> None:
    one, other = made_scores(np.zeros(5)), made_scores(np.ones(5))
    order = Order(("a", "b"), 0, {})
    assert seen_of(order, {"a": one, "c": other}) == [one]
    assert seen_of(order, {"c": other}) == [other]


def test_all_systems_must_hold() -> None:
    aim = Aim(0.05, 0.95, 100, (True, False))
    good, bad = np.zeros(100), np.full(100, 0.06)
    assert aim.p_value(made_scores(good, good)) <= 0.05
    assert aim.p_value(made_scores(good, bad)) > 0.05
    assert aim.p_value(made_scores(good, good)) == max(
        aim.one_p_value(good, True), aim.one_p_value(good, False)
    )
    assert aim.uppers(made_scores(good, bad))[0] > 0.06


def test_all_groups_must_hold_and_each_has_its_own_p_value() -> None:
    aim = Aim(0.05, 0.95, 160, (True,), groups=(100, 60))
    losses = np.zeros(160)
    losses[100:104] = 1
    groups = [0] * 100 + [1] * 60
    values = aim.group_p_values(made_scores(losses, groups=groups))
    assert values == [bounds.binomial_p_value(0, 100, 0.05), bounds.binomial_p_value(4, 60, 0.05)]
    assert aim.p_value(made_scores(losses, groups=groups)) == values[1] > 0.05
    assert Aim(0.05, 0.95, 160, (True,)).p_value(made_scores(losses)) < values[1]


def test_what_was_not_looked_at_counts_as_unchanged() -> None:
    aim = Aim(0.05, 0.95, 100, (True,))
    losses = np.array([1.0, 1, 1, 0, 0])
    assert (
        aim.p_value(made_scores(losses, rest=(95,))) == bounds.binomial_p_value(3, 100, 0.05) > 0.05
    )
    three_of_all = np.concatenate([losses, np.zeros(95)])
    assert aim.p_value(made_scores(three_of_all)) == aim.p_value(made_scores(losses, rest=(95,)))


def test_units_of_some_groups() -> None:
    scores = made_scores(np.arange(4.0), groups=[2, 0, 2, 1])
    some = scores.of_groups({2: 0, 1: 1})
    assert some.losses.tolist() == [[0, 2, 3]]
    assert some.group_of.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("units", "most"), [(58, -1), (59, 0), (93, 1), (153, 3), (700, 25)])
def test_how_many_changed_answers_pass(units: int, most: int) -> None:
    assert passing(units, 0.05, 0.95) == most


def test_the_beta_binomial_is_a_distribution_and_nears_the_binomial() -> None:
    assert beta_binomial(20, 20, 2.0, 3.0) == pytest.approx(1)
    assert beta_binomial(2, 100, 1e7 * 0.02, 1e7 * 0.98) == pytest.approx(
        bounds.binomial_tail(2, 100, 0.02), rel=1e-3
    )


def test_how_far_answers_move_tells_of_changes_that_few_photos_do_not_show() -> None:
    """Two settings without a change on 16 photos: the one that moves answers more is expected to
    lose more."""
    aim = Aim(0.05, 0.95, 700, (True,))
    none, some = np.zeros((1, 16)), (np.arange(16) < 4).astype(float)[None]
    scores = {
        "still": Scores(np.ones(16), none, np.full((1, 16), 0.01)),
        "moves": Scores(np.ones(16), none, np.full((1, 16), 0.1)),
        "changes": Scores(np.ones(16), some, np.full((1, 16), 0.3)),
    }
    outlook = Outlook(aim, scores)
    still, moves, changes = (float(outlook.means(one)[0]) for one in scores)
    assert still < moves < changes
    assert (
        outlook.chance("still", outlook.means("still"))
        > 0.9
        > outlook.chance("moves", outlook.means("moves"))
    )


@pytest.mark.parametrize(("units", "reachable"), [(0, False), (58, False), (59, True)])
def test_what_can_be_reached(units: int, reachable: bool) -> None:
    assert Aim(0.05, 0.95, units, (True,)).reachable is reachable


def test_pooling_gives_the_nearest_falling_sequence() -> None:
    assert falling(np.array([3.0, 1, 2, 0]), np.ones(4)).tolist() == [3, 1.5, 1.5, 0]
    assert falling(np.array([0.0, 1]), np.array([3.0, 1])).tolist() == [0.25, 0.25]


def test_a_sequence_is_refined_between_its_qualities_and_below() -> None:
    ladder = ladders()[0]
    rungs = [LAST_RESORT, ladder[4], ladder[3]]
    finer = refined(rungs)
    assert [one.quality for one in finer] == [100, 84, 71, 60, 55, 50, 45, 40, 36]
    assert {one.guide for one in finer[1:]} == {ladder[4].guide}
    assert refined([LAST_RESORT]) == [LAST_RESORT]
    rivals = refined([Rival("webp", 97), Rival("webp", 93)])
    assert [one.quality for one in rivals] == [97, 96, 94, 93, 91, 90]
    assert [one.quality for one in refined(rungs, 1)] == [100, 60, 55, 50, 45, 40, 36]


def test_steps_of_an_order_are_as_far_apart_as_their_bytes() -> None:
    ladder = ladders()[0]
    rungs = [LAST_RESORT, ladder[5], ladder[4], ladder[3]]
    sizes = {ladder[5]: 1100.0, ladder[4]: 1000.0, ladder[3]: 990.0, ladder[2]: 500.0}
    finer = refined(rungs, 1, sizes)
    # 10% apart: one step between; 1%: none; half: as many as there may be
    assert [one.quality for one in finer] == [100, 76, 68, 60, 45, 43, 40, 38, 36, 34]


def test_only_systems_that_cut_all_photos_to_a_square_see_the_middle_alone() -> None:
    square = Input((224, 224), True)
    assert centre_alone([square, square])
    assert not centre_alone([square, None])
    assert not centre_alone([square, Input((416, 416), False)])
    assert not centre_alone([Input((224, 320), True)])
    assert not centre_alone([])
    guides = {one.guide for ladder in ladders(centre=True) for one in ladder[:-1]}
    assert guides == {"centre", "depth+text"}
    fewer = ladders(["avif"], [Pixels(short_side=224)], centre=True)
    assert {(one.guide, one.strength) for ladder in fewer for one in ladder[:-1]} == {
        ("centre", 1.0)
    }


def test_the_part_to_choose_with_leaves_as_many_as_the_test_makes_use_of() -> None:
    def rest(count: int, binary: bool = True) -> int:
        return count - units_to_explore(count, 0.05, 0.95, binary=binary)

    assert (rest(300), rest(1000), rest(100)) == (260, 877, 75)
    assert rest(1000, binary=False) == 800
    assert passing(rest(300), 0.05, 0.95) == 7  # 30% of them to choose with would leave 5 of 210
    assert rest(75) == rest(68) == 59 > rest(67)
    assert rest(10) == 5
    assert rest(5) == 0


def test_ladders_are_of_every_format_and_number_of_pixels() -> None:
    sizes = [Pixels(), Pixels(short_side=224, resample="bicubic")]
    every = ladders(["jpeg", "webp", "avif"], sizes)
    assert all(len(set(ladder)) == len(QUALITIES) + 1 for ladder in every)
    assert all(is_last(ladder[-1]) and ladder[-1] == LAST_RESORT for ladder in every)
    kinds = {
        (one.format, one.short_side, one.subsampling) for ladder in every for one in ladder[:-1]
    }
    assert kinds == {
        *((name, None, "420") for name in ("jpeg", "webp", "avif")),
        *((name, 224, "420") for name in ("jpeg", "webp", "avif")),
        *((name, 224, "444") for name in ("jpeg", "avif")),
    }
    assert {one.guide for ladder in every for one in ladder if one.short_side is None} == {
        "uniform",
        "depth+text",
    }
    assert ladders(["avif"])[0][-1].format == "avif"
    names = [named(one) for ladder in every for one in ladder]
    assert len(set(names)) == len({one for ladder in every for one in ladder})


def test_variants_change_one_thing_each() -> None:
    for ladder in ladders(["jpeg", "avif"], [Pixels(), Pixels(max_side=416)]):
        kind = ladder[0].to_dict()
        for other in variants(ladder):
            assert [one.quality for one in other] == [one.quality for one in ladder]
            assert other[-1] == ladder[-1]
            (changed,) = {
                "guide" if name == "strength" else name
                for one in other[:-1]
                for name, value in one.to_dict().items()
                if name != "quality" and value != kind[name]
            }
            assert changed in ("guide", "shape" if kind["format"] == "jpeg" else "table")
    photo = next(one for one in ladders() if one[0].table == "photo")
    assert sum(bool(one[0].shape) for one in variants(photo)) == 6
    avif = ladders(["avif"])[0]
    assert [one[0].table for one in variants(avif)] == ["photo", "machine", "auto", "auto"]
    names = [named(one[3]) for ladder in (photo, avif) for one in variants(ladder)]
    assert len(set(names)) == len(names)
    assert "(price=0.16)" in " ".join(names)
    assert "guide depth+text at 0.5" in " ".join(names)


def test_pixels_to_try_come_from_the_systems_inputs() -> None:
    sides = [(640, 480)] * 10
    assert pixels_of([Input((224, 224), True, "bicubic")], sides) == [
        Pixels(),
        Pixels(short_side=224, resample="bicubic"),
        Pixels(short_side=299, resample="bicubic"),
    ]
    assert pixels_of([Input((416, 416), False, "bilinear")], sides) == [
        Pixels(),
        Pixels(max_side=416, resample="bilinear"),
        Pixels(max_side=555, resample="bilinear"),
    ]
    seen = Input((224, 224), True, "bicubic", 0.875)  # of the middle of what it made 256 pixels
    assert [one.short_side for one in pixels_of([seen], sides)] == [None, 256, 341]
    assert pixels_of([], sides) == [Pixels(), Pixels(max_side=320), Pixels(max_side=448)]
    assert pixels_of([Input((224, 224), True)], [(200, 150)] * 10) == [Pixels()]


def test_formats_to_try_are_those_that_all_readers_open(monkeypatch: pytest.MonkeyPatch) -> None:
    assert formats_of("auto", "") == (["jpeg", "webp", "avif"], [])
    assert formats_of("auto", "torchvision") == (["jpeg", "webp"], [])
    assert formats_of("webp", "") == (["webp"], [])
    with pytest.raises(SettingsError, match="dali does not read"):
        formats_of("avif", "dali")
    with pytest.raises(SettingsError, match="unknown `format`"):
        formats_of("gif", "")

    def none(name: str) -> None:
        raise SettingsError(f"this Pillow writes no {name}", "pip install -U pillow")

    monkeypatch.setattr("vizcomp.fitting.candidates.check_writable", none)
    formats, said = formats_of("auto", "")
    assert formats == ["jpeg"]
    assert said[0] == "WebP is not tried: this Pillow writes no webp; pip install -U pillow"
    assert [one.codec for one in rival_ladder("webp")] == ["webp"] * 9
    assert isinstance(ladders(formats)[0][0], DjpegSettings)
