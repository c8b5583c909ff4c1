"""What people use instead, under the same promise: each rival with its own best certified
setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vizcomp.errors import MissingExtraError, SettingsError
from vizcomp.fitting.candidates import RIVALS, STORED, Candidate, Rival, refined, rival_ladder
from vizcomp.fitting.measure import Bench, Watch
from vizcomp.fitting.result import RivalRow
from vizcomp.fitting.sample import Unit
from vizcomp.fitting.scores import Aim, Scores
from vizcomp.fitting.search import certify, explore, seen_of
from vizcomp.photos.formats import FORMATS, check_writable


def rival_rows(
    bench: Bench,
    aim: Aim,
    explored: Sequence[Unit],
    certified: Sequence[Unit],
    *,
    go_on: Callable[[], bool],
    watch: Callable[[str], Watch],
) -> tuple[list[RivalRow], list[str]]:
    """Optimised JPEG, WebP and AVIF, searched and tested as our own settings are; and plain JPEG as
    it is stored.

    Args:
        go_on: asked before each rival.
        watch: from a text to how its work is watched.

    Returns:
        The rows, and what to say of rivals that are left out.
    """
    rows: list[RivalRow] = []
    said: list[str] = []
    if not go_on():
        return rows, ["the budget was used up: nothing is compared with JPEG, WebP and AVIF"]
    stored = Rival("plain", STORED)
    scores = bench.scores([stored], certified, watch(f"compare: plain JPEG q{STORED}"))[stored]
    rows.append(_row(stored, scores, aim))
    for codec in RIVALS:
        title = Rival(codec, 0).title
        try:
            if codec in FORMATS:
                check_writable(codec)
        except (MissingExtraError, SettingsError) as exc:
            said.append(f"{title} is not compared: {exc.message}")
            continue
        if not go_on():
            said.append(f"the budget was used up: {title} is not compared")
            continue
        rows.append(_best(codec, bench, aim, explored, certified, watch(f"compare: {title}")))
    return rows, said


def _best(
    codec: str,
    bench: Bench,
    aim: Aim,
    explored: Sequence[Unit],
    certified: Sequence[Unit],
    watch: Watch,
) -> RivalRow:
    def measure(settings: Sequence[Candidate], some: range) -> dict[Candidate, Scores]:
        return bench.scores(settings, [explored[i] for i in some], watch, quick=True)

    order, scores = explore([rival_ladder(codec)], len(explored), measure, aim)
    sequence = refined(order.rungs, order.near, order.sizes)
    aim = aim.informed(seen_of(order, scores))
    stops = Watch(watch.tell, lambda scores: aim.p_value(scores) > 1 - aim.confidence)
    tests = list(certify(sequence, lambda one: bench.scores([one], certified, stops)[one], aim))
    passed = [test for test in tests if test.passed]
    if not passed:
        return RivalRow(Rival(codec, 0).title, None)
    best = min(passed, key=lambda test: float(test.scores.sizes.mean()))
    return _row(best.setting, best.scores, aim)


def _row(one: Candidate, scores: Scores, aim: Aim) -> RivalRow:
    assert isinstance(one, Rival)
    holds = aim.p_value(scores) <= 1 - aim.confidence
    return RivalRow(one.title, one, float(scores.sizes.mean()), scores.worst, holds)
