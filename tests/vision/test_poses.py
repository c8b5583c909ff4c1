"""Keypoints: heads of detectors and networks of their own, and when two poses are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from test_reading import PHOTO, columns_of, constant

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision import poses
from vizcomp.vision.answers import Boxes, Keypoints, compare, is_empty
from vizcomp.vision.system import answer_importance, reading_of
from vizcomp.vision.systems import open_system
from vizcomp.vision.verify import sees_nothing

ULTRALYTICS = {
    "task": "pose",
    "names": "{0: 'person'}",
    "kpt_shape": "[17, 3]",
    "imgsz": "[64, 64]",
}
# x and y in an input of 64x64; the photo lies 16 rows down
PLACES = np.stack([np.arange(17) * 1.0 + 20, np.full(17, 30.0)], 1)


def keypoints_of(spec: str) -> Keypoints:
    answer = open_system(spec).answers([PHOTO])[0]
    assert isinstance(answer, Keypoints)
    return answer


def triples(sure: float = 0.9) -> npt.NDArray[np.float32]:
    return np.concatenate([PLACES, np.full((17, 1), sure)], 1).astype(np.float32)


def raw_head() -> npt.NDArray[np.float32]:
    array = columns_of(1, 51)
    array[0, 4:] = 0
    array[0, 4, [5, 6]] = 0.9, 0.8  # two boxes in one place: a double
    array[0, 5:, 5] = triples().ravel()
    array[0, 5:, 6] = 7
    return array


def test_a_raw_head_of_ultralytics(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", ULTRALYTICS, output0=raw_head())
    answer = keypoints_of(spec)
    assert np.allclose(answer.points[0], PLACES - [0, 16])
    assert np.allclose(answer.corners, [[22, 11, 42, 21]])
    assert answer.words() == "1 figure, 17 of 17 points seen"
    assert "17 points of xy and certainty" in reading_of(open_system(spec))
    boxes = open_system(f"{spec}:kind=boxes").answers([PHOTO])[0]
    assert isinstance(boxes, Boxes)
    assert boxes.labels == ("person",)


def test_a_raw_head_without_metadata(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", output0=raw_head())
    answer = keypoints_of(f"{spec}:kind=keypoints,detector=yolov8,keypoints=17x3")
    assert np.allclose(answer.points[0], PLACES - [0, 16])
    with pytest.raises(ModelError, match="how many points") as caught:
        open_system(f"{spec}:kind=keypoints,detector=yolov8")
    assert "keypoints=17x3" in caught.value.hint
    with pytest.raises(ModelError, match="too few"):
        open_system(f"{spec}:kind=keypoints,detector=yolov8,keypoints=18x3")


def test_an_end_to_end_head(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 57), np.float32)
    rows[0, 0, :6] = 22, 27, 42, 37, 0.9, 0
    rows[0, 0, 6:] = triples().ravel()
    answer = keypoints_of(constant(tmp_path / "m.onnx", ULTRALYTICS, output0=rows))
    assert np.allclose(answer.points[0], PLACES - [0, 16])
    assert np.allclose(answer.corners, [[22, 11, 42, 21]])
    flat = np.concatenate([rows[..., :6], np.zeros((1, 300, 34), np.float32)], 2)
    pairs = {**ULTRALYTICS, "kpt_shape": "[17, 2]"}
    assert (keypoints_of(constant(tmp_path / "p.onnx", pairs, output0=flat)).scores == 1).all()


def test_points_alone_in_either_order(tmp_path: Path) -> None:
    shares = triples() / np.array([64, 64, 1], np.float32)
    for name, order in (("xy", [0, 1, 2]), ("yx", [1, 0, 2])):
        spec = constant(tmp_path / f"{name}.onnx", out=shares[None, None][..., order])
        answer = keypoints_of(f"{spec}:kind=keypoints,points={name},resize=letterbox")
        assert np.allclose(answer.points[0], PLACES - [0, 16], atol=1e-4)
        assert np.allclose(answer.corners, [[20, 14, 36, 14]], atol=1e-4)
    with pytest.raises(SettingsError, match="how is its output"):
        open_system(f"{spec}:kind=keypoints")


def test_many_figures_as_movenet_writes_them(tmp_path: Path) -> None:
    rows = np.zeros((1, 6, 56), np.float32)
    rows[0, 0, :51] = (triples()[:, [1, 0, 2]] / np.array([64, 64, 1], np.float32)).ravel()
    rows[0, 0, 51:] = 27 / 64, 22 / 64, 37 / 64, 42 / 64, 0.8
    answer = keypoints_of(constant(tmp_path / "m.onnx", out=rows) + ":kind=keypoints,points=yx")
    assert answer.points.shape == (1, 17, 2)
    assert np.allclose(answer.corners, [[22, 11, 42, 21]])


def test_nobody_is_nothing(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", out=triples(0.05)[None, None])
    answer = keypoints_of(f"{spec}:kind=keypoints,points=xy")
    assert is_empty(answer)
    assert sees_nothing([answer])
    assert answer.words() == "0 figures"


def figure(points: npt.NDArray[np.float64], sure: float = 0.9) -> Keypoints:
    scores = np.full((1, 17), sure, np.float32)
    return Keypoints(points[None], scores, np.array([[0.0, 0, 100, 200]]), (640, 480))


def test_points_may_move_by_what_people_differ_in() -> None:
    one = figure(PLACES)
    assert compare(one, one).score == 1
    assert compare(one, figure(PLACES + 1)).same
    far = compare(one, figure(PLACES + 60), where=True)
    assert not far.same
    assert far.unlike is not None
    assert len(far.unlike) == 2
    # COCO's formula by hand: the nose alone, 10 pixels off in a figure of 20,000 square pixels
    moved = poses.similarity(
        PLACES[:1], np.ones(1), PLACES[:1] + np.array([10, 0]), np.ones(1), 20_000, 0.3
    )
    assert moved == pytest.approx(np.exp(-100 / (2 * 20_000 * (2 * poses.OTHER_SIGMA) ** 2)))


def test_points_in_doubt_are_neither_lost_nor_new() -> None:
    one = figure(PLACES)
    sure = one.scores.copy()
    sure[0, :8] = 0.2  # of 0.3: in doubt
    doubtful = Keypoints(one.points, sure, one.corners, one.size)
    assert compare(one, doubtful).score == compare(doubtful, one).score == 1
    gone = Keypoints(
        one.points, np.where(sure < 0.3, 0.01, sure).astype(np.float32), one.corners, one.size
    )
    assert compare(one, gone).score == pytest.approx(9 / 17)
    with pytest.raises(SettingsError, match="numbers of points"):
        compare(one, Keypoints(np.zeros((1, 5, 2)), np.ones((1, 5), np.float32), np.zeros((1, 4))))


def test_a_figure_is_important(tmp_path: Path) -> None:
    spec = constant(
        tmp_path / "m.onnx", out=(triples() / np.array([64, 64, 1], np.float32))[None, None]
    )
    heat = answer_importance(
        open_system(f"{spec}:kind=keypoints,points=xy"), np.zeros((320, 640, 3), np.uint8)
    )
    assert heat[150, 280] == 1
    assert heat[0, 600] == 0
