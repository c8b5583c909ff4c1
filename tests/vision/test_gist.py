"""An answer as a text to compare, and systems that give one answer for all photos."""

from __future__ import annotations

import numpy as np
import pytest

from vizcomp.vision.answers import Answer, Boxes, Classes, Embedding, Keypoints, Masks, Text
from vizcomp.vision.boxes import corners_to_quads
from vizcomp.vision.gist import gist, numbers
from vizcomp.vision.one_answer import FEWEST, NOTHING, Hearing, about, about_all


def boxes(corners: list[list[float]], *, size: int = 100, **more: object) -> Boxes:
    quads = corners_to_quads(np.array(corners, float).reshape(-1, 4))
    return Boxes(quads, size=(size, size), **more)  # type: ignore[arg-type]


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def pose(score: float) -> Keypoints:
    return Keypoints(np.zeros((1, 2, 2)), scores(score, 0.5)[None], np.zeros((1, 4)), (9, 9))


def mask(share: float) -> Masks:
    labels = np.zeros((10, 100), np.int32)
    labels[:, : round(100 * share)] = 1
    return Masks(labels, ("background", "road"))


EMPTY = [boxes([]), Text(("", " "), np.zeros((2, 4, 2))), mask(0.0)]
# what is said, and another photo's answer that says otherwise
SAID: list[tuple[Answer, str, Answer]] = [
    (Classes(scores(0.2, 0.8), ("cat", "dog")), "dog", Classes(scores(0.8, 0.2), ("cat", "dog"))),
    (Classes(scores(0.2, 0.8)), "class 1", Classes(scores(0.8, 0.2))),
    (
        boxes([[0, 0, 5, 5]], labels=("cat",), scores=scores(0.5)),
        "cat 0.50000",
        boxes([[0, 0, 5, 5]], labels=("cat",), scores=scores(0.51)),
    ),
    (boxes([[0, 0, 5, 5]]), "box at 0,0 to 5,5%", boxes([[0, 0, 9, 5]])),
    (
        boxes([[0, 0, 5, 5]], scores=scores(1.0)),
        "box at 0,0 to 5,5%",
        boxes([[0, 0, 9, 5]], scores=scores(1.0)),
    ),
    (pose(0.7), "figure 0.60000", pose(0.8)),
    (mask(0.25), "road 25.0%", mask(0.26)),
    (
        Text(("STOP", "a  b"), np.zeros((2, 4, 2))),
        '"STOP / a b"',
        Text(("GO",), np.zeros((1, 4, 2))),
    ),
]


@pytest.mark.parametrize(("answer", "said", "other"), SAID)
def test_what_an_answer_says(answer: Answer, said: str, other: Answer) -> None:
    assert gist(answer) == said
    assert gist(other) != said


@pytest.mark.parametrize("answer", EMPTY)
def test_empty_answers_say_nothing(answer: Answer) -> None:
    assert gist(answer) == NOTHING
    assert numbers(answer) == ""


def test_long_answers_are_cut_but_compared_whole() -> None:
    one, other = ("x" * 300, "x" * 299 + "y")
    texts = [Text((line,), np.zeros((1, 4, 2))) for line in (one, other)]
    assert len(gist(texts[0])) < 100
    assert gist(texts[0]) != gist(texts[1])
    many = [boxes([[0, 0, 5, 5]] * 50, scores=scores(*[0.5] * 49, last)) for last in (0.5, 0.6)]
    assert len(gist(many[0])) < 100
    assert gist(many[0]) != gist(many[1])
    names = Classes(scores(0.2, 0.8), ("a", "b" * 500))
    assert len(gist(names)) < 100


def test_places_are_shares_of_the_photo() -> None:
    assert gist(boxes([[0, 0, 50, 50]])) == gist(boxes([[0, 0, 100, 100]], size=200))


def test_embeddings_compare_by_their_direction() -> None:
    vector = np.arange(1.0, 9.0, dtype=np.float32)
    assert gist(Embedding(vector)) == gist(Embedding(2 * vector))
    assert gist(Embedding(vector)) != gist(Embedding(vector[::-1]))
    assert numbers(Embedding(vector)) != numbers(Embedding(2 * vector))


def test_numbers_are_the_same_only_where_all_are() -> None:
    one, other = Classes(scores(0.3, 0.7)), Classes(scores(0.2, 0.8))
    assert gist(one) == gist(other)
    assert numbers(one) != numbers(other)
    assert numbers(one) == numbers(Classes(scores(0.3, 0.7))) != ""
    # a system that says a class without its probability says the same of two photos of a class
    assert numbers(Classes(scores(0.0, 1.0))) == ""
    assert numbers(mask(1.0)) == ""
    words = Text(("STOP",), np.zeros((1, 4, 2)), (9, 9))
    assert numbers(words) == ""
    sure = [Text(("STOP",), np.zeros((1, 4, 2)), (9, 9), scores(s)) for s in (0.7, 0.8)]
    assert numbers(sure[0]) != numbers(sure[1])


def test_one_answer_for_different_photos_enough() -> None:
    def found(answers: list[str], photos: list[int]) -> dict[str, object]:
        hearing = Hearing()
        for answer, photo in zip(answers, photos, strict=True):
            hearing.add({"s": answer}, photo)
            hearing.add(None, photo)
        return hearing.found()

    assert found(["cat"] * FEWEST, list(range(FEWEST))) == {
        "s": {"answer": "cat", "photos": FEWEST}
    }
    assert found(["cat"] * (FEWEST - 1), list(range(FEWEST - 1))) == {}
    assert found(["cat"] * 9, [1, 2] * 4 + [1]) == {}, "two photos, again and again"
    assert found(["cat"] * 9 + ["dog"], list(range(10))) == {}
    assert found([], []) == {}


def test_what_is_said_of_it() -> None:
    assert about("s", "cat", 1200) == (
        "s gave the same answer for all 1,200 photos, cat: that it does so for the results too"
        " proves nothing, unless all of them show that"
    )
    assert about_all({"s": {"answer": NOTHING, "photos": 3}}) == [
        "s gave an empty answer for all 3 photos: that it does so for the results too proves"
        " nothing"
    ]
    assert about("s", "cat", 0).startswith("s gave the same answer for all photos, cat")
