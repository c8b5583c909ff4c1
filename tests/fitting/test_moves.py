"""How far answers moved."""

from __future__ import annotations

import numpy as np
import pytest

from vizcomp.fitting.moves import moved
from vizcomp.vision.answers import Boxes, Classes


def boxes(*rows: tuple[float, float], below: tuple[tuple[float, float], ...] = ()) -> Boxes:
    """Squares of ten pixels: where each begins, and its score."""

    def made(some: tuple[tuple[float, float], ...]) -> Boxes:
        quads = np.array(
            [[[x, 0], [x + 10, 0], [x + 10, 10], [x, 10]] for x, _ in some], float
        ).reshape(-1, 4, 2)
        scores = np.array([score for _, score in some], np.float32)
        return Boxes(quads, ("a",) * len(some), (100, 100), scores)

    whole = made(rows)
    return Boxes(whole.quads, whole.labels, whole.size, whole.scores, 0.3, made(below))


@pytest.mark.parametrize(
    ("one", "other", "far"),
    [
        (boxes((0, 0.9)), boxes((0, 0.9)), 0.0),
        (boxes((0, 0.8)), boxes((0, 0.4)), 0.5),  # no F1 is lost
        (boxes((0, 0.4)), boxes(below=((0, 0.2),)), 0.5),  # a whole box of F1 is lost
        (boxes(below=((0, 0.2),)), boxes((0, 0.4)), 0.5),
        (boxes((0, 0.5)), boxes(), 1.0),
        (boxes(), boxes((0, 0.5)), 1.0),
        (boxes((0, 0.5), (50, 0.5)), boxes((0, 0.5)), 0.5),
        (boxes(below=((0, 0.2),)), boxes(below=((0, 0.1),)), 0.0),  # no answer on either side
        (boxes(), boxes(), 0.0),
    ],
)
def test_of_boxes_the_scores_count_also_of_those_that_are_nearly_boxes(
    one: Boxes, other: Boxes, far: float
) -> None:
    assert moved(one, other) == pytest.approx(far, abs=1e-6)


def test_without_scores_and_of_classes_it_is_what_their_comparison_says() -> None:
    plain = boxes((0, 0.9), (50, 0.9))
    plain = Boxes(plain.quads, plain.labels, plain.size)
    half = Boxes(plain.quads[:1], plain.labels[:1], plain.size)
    assert moved(plain, half) == pytest.approx(1 - 2 / 3)
    p, q = Classes(np.array([0.9, 0.1], np.float32)), Classes(np.array([0.6, 0.4], np.float32))
    assert moved(p, q) == pytest.approx(0.3, abs=1e-6)
