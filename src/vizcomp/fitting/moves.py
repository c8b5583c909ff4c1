"""How far an answer moved, changed or not: what a search sees on every photo, where a change is
seen on few."""

from __future__ import annotations

import numpy as np

from vizcomp.vision.answers import Answer, Boxes, compare, matching


def moved(reference: Answer, answer: Answer) -> float:
    """How far an answer is from that on the source, 0..1; no test sees it.

    Of boxes that have scores, what a score lost or gained counts, and that from nearly a box to
    one: 1 - the sum of the smaller scores over that of the larger, over all boxes that are an
    answer on one side at least (a weighted Jaccard distance). Otherwise it is 1 - the score of
    their comparison: of classes, the share of probability that is not on the same ones.
    """
    if (
        isinstance(reference, Boxes)
        and isinstance(answer, Boxes)
        and reference.scores is not None
        and answer.scores is not None
    ):
        return _boxes_moved(reference, answer)
    return 1 - compare(reference, answer).score


def _boxes_moved(reference: Boxes, answer: Boxes) -> float:
    """Every box that is an answer, against its partner among all that the other side gives."""
    mine, theirs = (_with_below(one) for one in (reference, answer))
    partners = dict(matching(mine, theirs))
    taken = set(partners.values())
    first, second = (np.asarray(one.scores, float) for one in (mine, theirs))
    smaller = larger = 0.0
    for i, score in enumerate(first):
        j = partners.get(i)
        if i >= len(reference.quads) and (j is None or j >= len(answer.quads)):
            continue  # no answer on either side
        other = 0.0 if j is None else float(second[j])
        smaller += min(float(score), other)
        larger += max(float(score), other)
    larger += sum(float(second[j]) for j in range(len(answer.quads)) if j not in taken)
    return 1 - smaller / larger if larger > 0 else 0.0


def _with_below(one: Boxes) -> Boxes:
    """The boxes that are answers, then those that nearly are."""
    below = one.below
    if below is None or below.scores is None or not len(below.quads):
        return one
    assert one.scores is not None
    return Boxes(
        np.concatenate([one.quads, below.quads]),
        (*one.labels, *below.labels),
        one.size,
        np.concatenate([one.scores, below.scores]),
    )
