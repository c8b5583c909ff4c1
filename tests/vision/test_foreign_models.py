"""Models of other houses whose answers a careless reader would take for something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_reading import PHOTO, SIDE, boxes_of, constant

from vizcomp.errors import InputError, ModelError, SettingsError
from vizcomp.vision.answers import Classes
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

# left, top, right, bottom as shares of the input, and what that is on PHOTO, stretched
ONE, ON_PHOTO = np.array([[0.25, 0.5, 0.75, 1]], np.float32), [16.0, 16.0, 48.0, 32.0]


def asked(path: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        open_system(path)
    return caught.value.hint.removeprefix("say which: ").split("; see")[0].split(" or ")


def test_corners_within_two_pixels_are_shares(tmp_path: Path) -> None:
    """boxes, scores, labels as torchvision names them, but normalised: as pixels all of them would
    lie in the corner, and any photo would be "verified"."""
    path = constant(
        tmp_path / "own.onnx",
        boxes=ONE,
        scores=np.array([0.9], np.float32),
        labels=np.array([3], np.int64),
    )
    assert boxes_of(path) == [("class 3", ON_PHOTO)]
    assert "torchvision (shares)" in reading_of(open_system(path))
    with pytest.raises(ModelError, match="within two pixels"):
        open_system(f"{path}:units=pixels")


def test_a_detector_silent_on_grey_whose_boxes_are_shares_fails_on_a_photo(tmp_path: Path) -> None:
    """Nothing is found on a grey picture, so it cannot be seen before the first photo."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    held = [
        numpy_helper.from_array(ONE, "one"),
        numpy_helper.from_array(np.array([3], np.int64), "labels_held"),
        numpy_helper.from_array(np.array([0, 1, 2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array([1], np.int64), "row"),
        numpy_helper.from_array(np.array(0.4, np.float32), "dark"),
    ]
    nodes = [  # a box where the picture is dark
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Less", ["mean", "dark"], ["is_dark"]),
        helper.make_node("Cast", ["is_dark"], ["score"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["score", "row"], ["scores"]),
        helper.make_node("Mul", ["one", "score"], ["boxes"]),
        helper.make_node("Identity", ["labels_held"], ["labels"]),
    ]
    infos = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "g", [image], infos, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "own.onnx"))
    path = str(tmp_path / "own.onnx")
    with pytest.raises(InputError, match="within two pixels of the corner: are they shares"):
        open_system(path).answers([PHOTO])
    assert boxes_of(f"{path}:units=share") == [("class 3", ON_PHOTO)]


def test_numbers_tell_scores_from_labels_and_the_count(tmp_path: Path) -> None:
    """TFLite's operator without its names: boxes top first, labels as floats, scores, count."""
    boxes = np.concatenate([ONE[:, [1, 0, 3, 2]], ONE[:, [1, 0, 3, 2]] / 2])[None]
    path = constant(
        tmp_path / "own.onnx",
        a=np.array([[3, 17]], np.float32),
        b=np.array([1], np.float32),
        c=boxes,
        d=np.array([[0.9, 0.8]], np.float32),
    )
    assert asked(path) == [
        f"{path}:detector={kind},boxes=c,scores=d,labels=a"
        for kind in ("torchvision,units=share", "ssd")
    ]
    assert boxes_of(asked(path)[1]) == [("class 3", ON_PHOTO)]  # the count is 1


def test_scores_of_classes_may_be_called_labels(tmp_path: Path) -> None:
    """RF-DETR: `dets` (1, N, 4) centre and size as shares, `labels` (1, N, C) before a sigmoid."""
    dets = np.tile(np.array([0.5, 0.75, 0.5, 0.5], np.float32), (1, 30, 1))
    labels = np.full((1, 30, 91), -6, np.float32)
    labels[0, 4, 17] = 4
    path = constant(tmp_path / "own.onnx", dets=dets, labels=labels)
    assert asked(path) == [f"{path}:detector=detr,activation=sigmoid"]
    assert boxes_of(asked(path)[0]) == [("class 17", ON_PHOTO)]


def test_suppression_of_onnx_beside_boxes_says_that_top_may_be_first(tmp_path: Path) -> None:
    """YOLOv3 of the model zoo: boxes top, left, bottom, right in pixels, (1, C, N) scores, and
    which of them were chosen."""
    boxes = SIDE * np.tile(ONE[None, :, [1, 0, 3, 2]], (1, 50, 1))
    scores = np.zeros((1, 80, 50), np.float32)
    scores[0, 5, 7] = 0.9
    chosen = np.array([[0, 5, 7]], np.int32)
    path = constant(tmp_path / "own.onnx", a=boxes, b=scores, c=chosen)
    assert asked(path)[0] == f"{path}:detector=ssd,units=pixels,boxes=a,scores=b"
    assert boxes_of(asked(path)[0]) == [("class 5", ON_PHOTO)]
    assert "not read: c" in reading_of(open_system(asked(path)[0]))


def test_masks_beside_boxes_are_no_scores(tmp_path: Path) -> None:
    """Mask R-CNN without names."""
    path = constant(
        tmp_path / "own.onnx",
        o1=SIDE * ONE,
        o2=np.array([3], np.int64),
        o3=np.array([0.9], np.float32),
        o4=np.zeros((1, 1, 28, 28), np.float32),
    )
    assert asked(path) == [f"{path}:detector=torchvision,boxes=o1,scores=o3,labels=o2"]
    assert boxes_of(asked(path)[0]) == [("class 3", ON_PHOTO)]


@pytest.mark.parametrize("shape", [(1, 20, 1, 1), (1, 1, 20, 1), (1, 1, 1, 20)])
def test_a_row_of_classes_may_have_any_axes_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    row = np.arange(20, dtype=np.float32)
    path = constant(tmp_path / "own.onnx", y=row.reshape(shape))
    answer = open_system(path).answers([PHOTO])[0]
    assert isinstance(answer, Classes)
    assert answer.best == 19


def test_of_several_labels_the_best_counts_and_the_reading_says_so(tmp_path: Path) -> None:
    row = np.full((1, 80), 0.01, np.float32)
    row[0, 3], row[0, 5] = 0.99, 0.8
    path = constant(tmp_path / "own.onnx", y=row)
    system = open_system(path)
    assert "scores of several labels, of which the best counts" in reading_of(system)
    answer = system.answers([PHOTO])[0]
    assert isinstance(answer, Classes)
    assert answer.best == 3
    assert answer.probabilities[5] / answer.probabilities[3] == pytest.approx(0.8 / 0.99)


@pytest.mark.parametrize(
    ("name", "whose"), [("a.engine", "TensorRT"), ("b.keras:size=9", "Keras"), ("c.pth", "PyTorch")]
)
def test_files_of_other_runtimes_are_refused_by_name(name: str, whose: str) -> None:
    with pytest.raises(ModelError, match=f"models of {whose}") as caught:
        open_system(name)
    assert ".onnx or .tflite" in caught.value.hint
