"""What systems answer, and when two answers are the same."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from vizcomp.errors import InputError, MissingExtraError, ModelError, SettingsError, VizcompError
from vizcomp.vision.answers import NOWHERE, Boxes, Classes, compare, together
from vizcomp.vision.onnx_systems import OnnxSystem
from vizcomp.vision.options import ModelOptions
from vizcomp.vision.system import boxes_importance, corners_to_quads, fitted, surroundings
from vizcomp.vision.systems import GROUP, open_system
from vizcomp.vision.text_system import LOSS_PER_DOUBLING, MAX_LOSS, lettering_worth


def classes(*probabilities: float) -> Classes:
    return Classes(np.array(probabilities, np.float32))


def boxes(*corners: tuple[float, float, float, float], labels: tuple[str, ...] = ()) -> Boxes:
    return Boxes(corners_to_quads(np.array(corners, float).reshape(-1, 4)), labels, (100, 100))


def test_classes_are_the_same_while_the_best_stays_the_best() -> None:
    before = classes(0.6, 0.3, 0.1)
    assert compare(before, classes(0.4, 0.35, 0.25)).same
    other = compare(before, classes(0.38, 0.40, 0.22))
    assert not other.same
    assert other.score == pytest.approx(0.38 + 0.30 + 0.1, abs=1e-6)
    assert compare(before, classes(0.38, 0.40, 0.22), tolerance=0.06).same
    assert compare(before, before).score == pytest.approx(1)


def test_boxes_are_the_same_when_each_finds_its_own() -> None:
    before = boxes((0, 0, 10, 10), (50, 50, 80, 60))
    found = compare(before, boxes((1, 0, 10, 10), (50, 50, 80, 61)))
    assert (found.same, found.score, found.matched) == (True, 1.0, 2)
    more = compare(before, boxes((0, 0, 10, 10), (50, 50, 80, 60), (20, 20, 30, 30)))
    assert not more.same
    assert more.score == pytest.approx(4 / 5)
    assert compare(
        before, boxes((0, 0, 10, 10), (50, 50, 80, 60), (20, 20, 30, 30)), tolerance=0.2
    ).same
    assert not compare(before, boxes()).same
    assert compare(boxes(), boxes()).same
    assert not compare(boxes(), before).same


def test_where_two_answers_differ() -> None:
    before = boxes((0, 0, 10, 10), (50, 50, 80, 60), labels=("dog", "cat"))
    others = boxes((0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 80, 60), labels=("dog", "dog", "dog"))
    found = compare(before, others, where=True)
    assert found.unlike is not None
    # the cat, then what stands in its place and another
    assert found.unlike[:, 0].tolist() == [[50, 50], [20, 20], [50, 50]]
    places = together(NOWHERE, found.unlike)
    assert places[:, 0].tolist() == [[50, 50], [20, 20]]
    assert len(together(places, found.unlike)) == 2
    same = compare(before, before, where=True).unlike
    assert same is not None
    assert not len(same)
    assert compare(before, others).unlike is None
    assert not len(together(NOWHERE, compare(classes(1, 0), classes(0, 1), where=True).unlike))
    around = surroundings(places[:1], 100, 120)
    assert around.shape == (100, 120)
    # 16 pixels, half the height and the margin
    assert around[50:60, 50:80].min() == around[55 - 25, 65] == 1
    assert around[0, 0] == around[99, 119] == 0
    assert not surroundings(NOWHERE, 8, 8).any()


def test_boxes_of_other_labels_do_not_match() -> None:
    dog, cat = boxes((0, 0, 10, 10), labels=("dog",)), boxes((0, 0, 10, 10), labels=("cat",))
    assert compare(dog, dog).same
    assert compare(dog, cat).score == 0
    assert dog.words() == "1 dog"


def test_answers_of_two_kinds_cannot_be_compared() -> None:
    with pytest.raises(SettingsError):
        compare(boxes(), classes(1, 0))
    with pytest.raises(SettingsError):
        compare(classes(1, 0, 0), classes(1, 0))


def test_bundled_classifiers_answer_and_say_where_they_look() -> None:
    images = [
        np.full((40, 60, 3), 200, np.uint8),
        np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8),
    ]
    for name in ("inception", "watcher"):
        system = open_system(name)
        answers = system.answers(images)
        assert len(system.classes) == 10
        for answer in answers:
            assert isinstance(answer, Classes)
            assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)
        alone = system.answers(images[1:])[0]
        assert compare(answers[1], alone).score == pytest.approx(1, abs=1e-4)
        where = system.importance(images[1])
        assert where.ndim == 2
        assert 0 <= where.min() <= where.max() <= 1
        assert system.answers([]) == []


def test_importance_of_boxes_has_a_margin() -> None:
    found = boxes_importance(boxes((40, 40, 60, 50)).quads, 100, 100)
    assert found.shape == (100, 100)
    assert (found[32:58, 32:68] == 1).all()
    assert (np.diff(found[57:66, 50]) < 0).all(), "it falls beyond the margin"
    assert found[:20].sum() == found[70:].sum() == 0
    edge = boxes_importance(boxes((-20, -20, 5, 5), (200, 200, 300, 300)).quads, 100, 100)
    assert edge[0, 0] == 1
    assert edge[50:].sum() == 0


def test_large_lettering_is_worth_less() -> None:
    tall = (5, 20, 40, 80, 160, 320)
    quads = np.concatenate([boxes((0, 0, 600, side)).quads for side in tall])
    worth = lettering_worth(quads, 480, 640)
    assert worth[:2].tolist() == [1, 1]
    assert (np.diff(worth[1:]) < 0).all()
    assert np.allclose(np.diff(worth[2:]), -LOSS_PER_DOUBLING)
    assert lettering_worth(100 * quads, 480, 640).min() == 1 - MAX_LOSS
    assert np.allclose(lettering_worth(2 * quads, 4000, 3000), lettering_worth(quads, 1500, 2000))
    assert (lettering_worth(2 * quads, 960, 1280) >= lettering_worth(2 * quads, 480, 640)).all()
    assert lettering_worth(quads[:0], 480, 640).shape == (0,)
    found = boxes_importance(
        boxes((0, 0, 20, 20), (60, 60, 90, 90)).quads, 100, 100, np.array([1.0, 0.5])
    )
    assert (found[5, 5], found[75, 75]) == (1, 0.5)


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (7, 200), (1, 1), (32, 32)])
def test_fitting_covers_and_cuts(shape: tuple[int, int]) -> None:
    assert fitted(np.zeros((*shape, 3), np.uint8), 32, 32).shape == (32, 32, 3)


def test_unknown_systems_are_refused() -> None:
    for name in ("nothing", "no/such.onnx", "no/such.safetensors", "photo"):
        with pytest.raises(ModelError):
            open_system(name)


def test_text_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    with pytest.raises(MissingExtraError, match="rapidocr") as caught:
        open_system("text")
    assert "vizcomp[text]" in caught.value.hint


class Plugged:
    name, kind, fingerprint, classes, native = "plugged", "classes", "1", ("a", "b"), 0

    def answers(self, images: Any) -> Any:
        return [classes(1, 0) for _ in images]

    def importance(self, image: Any) -> Any:
        return np.ones((1, 1), np.float32)


def test_systems_join_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("good", f"{__name__}:Plugged", GROUP),
        importlib.metadata.EntryPoint("bad", f"{__name__}:boxes", GROUP),
        importlib.metadata.EntryPoint("gone", "no_such_module:x", GROUP),
    ]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points if group == GROUP else []
    )
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
    assert open_system("good").classes == ("a", "b")
    for name in ("bad", "gone"):
        with pytest.raises(ModelError):
            open_system(name)


# --- ONNX
# --------------------------------------------------------------------------------------------------


def classifier(
    path: Path, *, layout: str = "NCHW", size: int | str = 8, count: int = 3, inputs: int = 1
) -> Path:
    """Means of the channels times 10 as logits, with more classes at zero."""
    from onnx import TensorProto, helper, numpy_helper

    shape = ["n", 3, size, size] if layout == "NCHW" else ["n", size, size, 3]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    more = [
        helper.make_tensor_value_info(f"other{i}", TensorProto.FLOAT, [1])
        for i in range(inputs - 1)
    ]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", count])
    weights = np.zeros((3, count), np.float32)
    weights[:3, :3] = 10 * np.eye(3)
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
    ]
    held = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array(axes, np.int64), "axes"),
    ]
    graph = helper.make_graph(nodes, "g", [image, *more], [out], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
    return path


def coloured(*rgb: int, size: int = 16) -> npt.NDArray[np.uint8]:
    return np.full((size, size, 3), rgb, np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("size", [8, "side"])
def test_an_onnx_classifier_answers(tmp_path: Path, layout: str, size: int | str) -> None:
    path = classifier(tmp_path / "m.onnx", layout=layout, size=size)
    if size == "side":  # the file leaves it open
        with pytest.raises(SettingsError, match="how large is its input"):
            open_system(str(path))
    system = open_system(f"{path}:size=own" if size == "side" else str(path))
    assert system.kind == "classes"
    answers = system.answers(
        [coloured(255, 0, 0), coloured(0, 255, 0, size=9), coloured(0, 0, 255)]
    )
    assert [a.best for a in answers if isinstance(a, Classes)] == [0, 1, 2]
    heat = system.importance(coloured(255, 0, 0))
    assert 0 <= heat.min() <= heat.max() <= 1


def test_the_words_beside_an_onnx_model_are_obeyed(tmp_path: Path) -> None:
    path = classifier(tmp_path / "m.onnx")
    words = {
        "order": "BGR",
        "range": 255,
        "mean": [0, 0, 0],
        "std": [255, 255, 255],
        "classes": ["blue", "green", "red"],
    }
    (tmp_path / "m.json").write_text(json.dumps(words))
    system = open_system(str(path))
    assert system.answers([coloured(255, 0, 0)])[0].words().startswith("red")


@pytest.mark.parametrize(
    "words",
    [
        "[1]",
        "{",
        '{"colour": 1}',
        '{"std": [0, 1, 1]}',
        '{"size": [9, 9]}',
        '{"classes": ["a", "b"]}',
        '{"mean": [1, 2]}',
        '{"layout": "HWC"}',
        '{"kind": "boxes"}',
    ],
)
def test_wrong_words_beside_a_model_are_refused(tmp_path: Path, words: str) -> None:
    path = classifier(tmp_path / "m.onnx")
    (tmp_path / "m.json").write_text(words)
    with pytest.raises(ModelError):
        open_system(str(path))


def test_models_that_take_no_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="further inputs to hold"):
        OnnxSystem(classifier(tmp_path / "two.onnx", inputs=2))
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxSystem(tmp_path / "no.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError):
        OnnxSystem(tmp_path / "empty.onnx")


def test_numbers_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    system = OnnxSystem(classifier(tmp_path / "m.onnx"), ModelOptions(std=(1e-45, 1.0, 1.0)))
    with pytest.raises(VizcompError):
        system.answers([coloured(255, 0, 0)])


def detector(path: Path) -> Path:
    """Two boxes at fixed shares of the picture; the score of the second is below any threshold."""
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 10, 10])
    outs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [2, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [2]),
    ]
    held = [
        numpy_helper.from_array(np.array([[0, 0, 5, 5], [1, 1, 2, 2]], np.float32), "b"),
        numpy_helper.from_array(np.array([0.9, 0.1], np.float32), "s"),
        numpy_helper.from_array(np.array([1, 0], np.int64), "l"),
    ]
    nodes = [
        helper.make_node("Identity", [a], [b])
        for a, b in (("b", "boxes"), ("s", "scores"), ("l", "labels"))
    ]
    graph = helper.make_graph(nodes, "g", [image], outs, held)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        str(path),
    )
    return path


def test_an_onnx_detector_answers_in_the_pixels_of_the_image(tmp_path: Path) -> None:
    system = OnnxSystem(detector(tmp_path / "d.onnx"), ModelOptions(classes=("cat", "dog")))
    assert system.kind == "boxes"
    answer = system.answers([np.zeros((40, 20, 3), np.uint8)])[0]
    assert isinstance(answer, Boxes)
    assert answer.labels == ("dog",)
    assert answer.quads.tolist() == [[[0, 0], [10, 0], [10, 20], [0, 20]]]
    assert system.importance(np.zeros((40, 20, 3), np.uint8)).shape == (40, 20)


def test_a_model_that_fails_says_so(tmp_path: Path) -> None:
    system = OnnxSystem(classifier(tmp_path / "m.onnx"))
    system._size = (9, 9)
    with pytest.raises(InputError, match="fails"):
        system.answers([coloured(1, 2, 3)])
