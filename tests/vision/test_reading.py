"""Models are read right, or the user is asked: layouts on small graphs that hold known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision import detectors
from vizcomp.vision.answers import Boxes, Classes, Embedding, Masks, compare, is_empty
from vizcomp.vision.detectors import Detections
from vizcomp.vision.options import ModelOptions, parse_options
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system
from vizcomp.vision.views import Fit, view_of
from vizcomp.weights.options import split_name

Values = npt.NDArray[Any]
SIDE = 64
CELLS = 84  # of strides 8, 16, 32
FAULTS = Path(__file__).parents[3] / "shared/data/faults"
PHOTO = np.zeros((32, 64, 3), np.uint8)  # in a centred letterbox of 64x64 it lies 16 rows down


def constant(
    path: Path,
    metadata: dict[str, str] | None = None,
    channels: int = 3,
    batch: int = 1,
    shape: tuple[int | None, ...] = (),
    dtype: int = TensorProto.FLOAT,
    **outputs: Values,
) -> str:
    """A model that answers these arrays to any picture; `shape` is that of its input, None where it
    is open."""
    image = helper.make_tensor_value_info(
        "image", dtype, list(shape) or [batch, channels, SIDE, SIDE]
    )
    held, nodes, infos = [], [], []
    for name, array in outputs.items():
        held.append(numpy_helper.from_array(array, f"held_{name}"))
        nodes.append(helper.make_node("Identity", [f"held_{name}"], [name]))
        infos.append(
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
        )
    graph = helper.make_graph(nodes, "g", [image], infos, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return str(path)


def boxes_of(spec: str, photo: npt.NDArray[np.uint8] = PHOTO) -> list[tuple[str, list[float]]]:
    answer = open_system(spec).answers([photo])[0]
    assert isinstance(answer, Boxes)
    return sorted(
        (answer.labels[i] if answer.labels else "", q[[0, 2]].ravel().round(3).tolist())
        for i, q in enumerate(answer.quads)
    )


def columns_of(classes: int, extra: int = 0, count: int = CELLS) -> Values:
    """(1, 4 + classes + extra, N) with a double of class 1, and class 2 in the same place."""
    array = np.zeros((1, 4 + classes + extra, count), np.float32)
    array[0, :4, 5] = array[0, :4, 9] = 32, 32, 20, 10
    array[0, :4, 6] = 33, 32, 20, 10
    array[0, 5, 5], array[0, 5, 6], array[0, 6, 9] = 0.9, 0.8, 0.7
    array[0, 4 + classes :] = 50  # what is no class must not become one
    return array


EXPECTED = [("class 1", [22.0, 11.0, 42.0, 21.0]), ("class 2", [22.0, 11.0, 42.0, 21.0])]


def test_yolov8_by_its_shape(tmp_path: Path) -> None:
    assert (
        boxes_of(constant(tmp_path / "m.onnx", output0=columns_of(80, count=CELLS)[:, :10]))
        == EXPECTED
    )


def test_yolov8_by_its_metadata(tmp_path: Path) -> None:
    metadata = {
        "task": "detect",
        "names": "{0: 'a', 1: 'dog', 2: 'cat'}",
        "imgsz": "[64, 64]",
        "stride": "32",
    }
    spec = constant(tmp_path / "m.onnx", metadata, output0=columns_of(3))
    assert [label for label, _ in boxes_of(spec)] == ["cat", "dog"]
    assert "3 classes named" in reading_of(open_system(spec))


def test_a_head_of_masks_gives_its_boxes(tmp_path: Path) -> None:
    protos = np.zeros((1, 32, 16, 16), np.float32)
    assert (
        boxes_of(constant(tmp_path / "s.onnx", output0=columns_of(4, 32), output1=protos))
        == EXPECTED
    )


def test_obb_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="obb"):
        open_system(constant(tmp_path / "m.onnx", {"task": "obb"}, output0=columns_of(4, 1)))


def test_yolov5_rows(tmp_path: Path) -> None:
    rows = np.zeros((1, 3 * CELLS, 8), np.float32)
    rows[0, 3, :5] = 32, 32, 20, 10, 0.9
    rows[0, 3, 6] = 0.9
    rows[0, 4, :5] = 32, 32, 20, 10, 0.4  # sure of its class, not that there is something
    rows[0, 4, 7] = 1
    assert boxes_of(constant(tmp_path / "m.onnx", output=rows)) == EXPECTED[:1]


def test_end_to_end_rows(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = 22, 27, 42, 37, 0.9, 1
    rows[0, 1] = 22, 27, 42, 37, 0.8, 2
    assert boxes_of(constant(tmp_path / "m.onnx", output0=rows)) == EXPECTED


def yolox_rows(classes: int = 3) -> Values:
    rows = np.zeros((1, CELLS, 5 + classes), np.float32)
    rows[0, :, :2] = np.random.default_rng(0).uniform(0, 1, (CELLS, 2))
    rows[0, 8 * 2 + 3] = [0.5, 0.25, np.log(2), np.log(1), 0.9, 0, 0.9, 0][: 5 + classes]
    return rows


@pytest.mark.parametrize("text", ["", ":detector=yolox"])
def test_yolox_grid(tmp_path: Path, text: str) -> None:
    spec = constant(tmp_path / "m.onnx", output=yolox_rows()) + text
    assert boxes_of(spec) == [("class 1", [20.0, 14.0, 36.0, 22.0])]
    assert "BGR 0..255" in reading_of(open_system(spec))
    assert "letterbox-corner grey 114" in reading_of(open_system(spec))


def test_detr_asks_for_its_activation(tmp_path: Path) -> None:
    logits = np.full((1, 5, 3), -9, np.float32)
    logits[..., 2] = 4  # "nothing", where the last is that
    logits[0, 2] = -9, 5, -9
    boxes = np.tile(np.array([0.5, 0.5, 0.25, 0.5], np.float32), (1, 5, 1))
    spec = constant(tmp_path / "m.onnx", pred_logits=logits, pred_boxes=boxes)
    with pytest.raises(SettingsError, match="how is its output") as caught:
        open_system(spec)
    assert "activation=softmax" in caught.value.hint
    assert boxes_of(f"{spec}:detector=detr,activation=softmax") == [
        ("class 1", [24.0, 8.0, 40.0, 24.0])
    ]
    assert len(boxes_of(f"{spec}:detector=detr,activation=sigmoid")) == 5


def test_the_given_models_are_read_or_refused() -> None:
    """Those that went wrong once; skipped where they are absent."""
    if not FAULTS.is_dir():
        pytest.skip("no models here")
    assert is_empty(open_system(str(FAULTS / "detector_finds_nothing.onnx")).answers([PHOTO])[0])
    assert open_system(str(FAULTS / "classifier_4_classes.onnx")).kind == "classes"
    for name, choice in (
        ("yolo_raw_1x84x100", "detector=yolov8"),
        ("segmenter_1x21x16x16", "kind=masks"),
    ):
        with pytest.raises(SettingsError) as caught:
            open_system(str(FAULTS / f"{name}.onnx"))
        assert choice in caught.value.hint
    with pytest.raises(SettingsError, match="pred_logits"):
        open_system(str(FAULTS / "detector_cxcywh_logits.onnx"))


def test_ssd_of_the_zoo(tmp_path: Path) -> None:
    outputs = {
        "detection_boxes": np.array([[[0.25, 0.5, 0.5, 1], [0, 0, 1, 1]]], np.float32),
        "detection_scores": np.array([[0.9, 0.8]], np.float32),
        "detection_classes": np.array([[1, 2]], np.float32),
        "num_detections": np.array([1], np.float32),
    }
    assert boxes_of(constant(tmp_path / "m.onnx", **outputs)) == [
        ("class 1", [32.0, 8.0, 64.0, 16.0])
    ]


def test_torchvision_and_its_empty_answer(tmp_path: Path) -> None:
    one = {
        "boxes": np.array([[0, 0, 32, 32]]),
        "scores": np.array([0.9]),
        "labels": np.array([1], np.int64),
    }
    outputs = {n: a if n == "labels" else a.astype(np.float32) for n, a in one.items()}
    assert boxes_of(constant(tmp_path / "m.onnx", **outputs)) == [
        ("class 1", [0.0, 0.0, 32.0, 16.0])
    ]
    empty = open_system(constant(tmp_path / "e.onnx", **{n: a[:0] for n, a in outputs.items()}))
    assert is_empty(empty.answers([PHOTO])[0])


@pytest.mark.parametrize(
    ("shape", "choice"),
    [
        ((1, 84, 100), "detector=yolov8"),
        ((1, 84, 85), "detector=yolox"),
        ((1, 21, 16, 16), "kind=masks"),
        ((1, 512), "kind=embedding"),
        ((1, 300, 84), "detector=detr"),
        ((1, 300, 6), "detector=yolov10"),
        ((1, 300, 6), "detector=detr,activation=none"),
        ((1, 300, 57), "kind=keypoints,detector=yolov10,keypoints=17x3"),
        ((1, 56, 84), "kind=keypoints,detector=yolov8,keypoints=17x3"),
        ((1, 1, 17, 3), "kind=keypoints,points=yx"),
        ((1, 17, 2), "kind=keypoints,points=xy"),
        ((1, 6, 56), "kind=keypoints,points=yx"),
        ((1, 300), "kind=embedding"),
    ],
)
def test_where_several_readings_are_possible_it_asks(
    tmp_path: Path, shape: tuple[int, ...], choice: str
) -> None:
    spec = constant(tmp_path / "m.onnx", output0=np.zeros(shape, np.float32))
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert f"{spec}:{choice}" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("shape", [(1, 4), (1, 1000), (1, 10, 1, 1)])
def test_classifiers_stay_classifiers(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert (
        open_system(
            constant(
                tmp_path / "m.onnx", y=np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            )
        ).kind
        == "classes"
    )


def test_numbers_that_are_no_boxes_are_refused(tmp_path: Path) -> None:
    outputs = {
        "boxes": np.array([[30, 0, 2, 32]], np.float32),
        "scores": np.array([0.9], np.float32),
    }
    with pytest.raises(ModelError, match="not in order"):
        open_system(constant(tmp_path / "m.onnx", **outputs))
    outputs = {"boxes": np.array([[0, 0, 2, 32]], np.float32), "scores": np.array([7], np.float32)}
    with pytest.raises(ModelError, match="above 1"):
        open_system(constant(tmp_path / "s.onnx", **outputs))


def test_masks_and_embeddings(tmp_path: Path) -> None:
    logits = np.zeros((1, 3, 16, 16), np.float32)
    logits[0, 2, :8] = 1
    system = open_system(constant(tmp_path / "m.onnx", out=logits) + ":kind=masks")
    answer = system.answers([PHOTO])[0]
    assert isinstance(answer, Masks)
    assert answer.labels.shape == (32, 64)
    assert set(answer.labels[:16].ravel()) == {2}
    assert not answer.labels[16:].any()
    assert answer.words() == "class 2 50%"
    assert compare(answer, answer).same
    other = Masks(np.roll(answer.labels, 12, 0))
    assert compare(answer, other).score == pytest.approx(1 / 7)
    assert is_empty(Masks(0 * answer.labels))
    heat = system.importance(PHOTO)
    assert (heat[0, 0], heat[-1, 0]) == (1, 0)
    vector = open_system(
        constant(tmp_path / "e.onnx", out=np.ones((1, 512), np.float32)) + ":kind=embedding"
    )
    one = vector.answers([PHOTO])[0]
    assert isinstance(one, Embedding)
    assert compare(one, Embedding(-one.vector)).score == 0
    assert vector.importance(PHOTO).shape == (1, 1)
    turned = Embedding(np.concatenate([one.vector[:400], 0 * one.vector[400:]]))
    assert not compare(one, turned).same
    assert compare(one, turned, tolerance=0.1).same


def test_fixed_batches_and_grey_inputs_work(tmp_path: Path) -> None:
    batch = constant(
        tmp_path / "b.onnx", batch=4, y=np.tile(np.arange(3, dtype=np.float32), (4, 1))
    )
    answers = open_system(batch).answers([PHOTO] * 5)
    assert len(answers) == 5
    assert all(isinstance(a, Classes) and a.best == 2 for a in answers)
    grey = open_system(
        constant(tmp_path / "g.onnx", channels=1, y=np.arange(3, dtype=np.float32)[None])
    )
    assert "grey" in reading_of(grey)
    assert len(grey.answers([PHOTO])) == 1


def test_options_are_read_and_unknown_ones_named() -> None:
    options = parse_options(
        "detector=yolox,least=0.4,norm=imagenet,resize=letterbox,mean=0.1/0.2/0.3,size=320x416"
    )
    assert (options.detector, options.least, options.mean, options.size) == (
        "yolox",
        0.4,
        (0.1, 0.2, 0.3),
        (320, 416),
    )
    assert split_name("a:b.onnx:kind=boxes", ".onnx") == (Path("a:b.onnx"), "kind=boxes")
    assert split_name("a.onnx", ".tflite") is None
    assert ModelOptions(nms=0.3).merged(ModelOptions(nms=0.6, least=0.1)) == ModelOptions(
        nms=0.3, least=0.1
    )
    for text, hint in (
        ("detecter=yolox", "detector"),
        ("detector=yolo8", "yolov8"),
        ("nms=2", "docs"),
        ("least", "key=value"),
    ):
        with pytest.raises(SettingsError) as caught:
            parse_options(text)
        assert hint in caught.value.hint


def test_places_come_back_through_each_resize() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    for fit in (
        Fit("letterbox-centre"),
        Fit("letterbox-corner"),
        Fit("stretch"),
        Fit("crop"),
        Fit("crop", "bilinear", crop=0.875),
    ):
        view = view_of(photo, (64, 64), fit)
        assert view.pixels.shape == (64, 64, 3)
        (across, down), (left, top) = view.scale, view.offset
        inside = np.array(
            [[left + 10 * across, top + 5 * down, left + 20 * across, top + 15 * down]]
        )
        assert np.allclose(view.on_photo(inside), [[10, 5, 20, 15]])
    assert (view_of(photo, (64, 64), Fit("letterbox-corner")).pixels[-1] == 114).all()
    assert (view_of(photo, (64, 64), Fit("letterbox-centre", grey=7)).pixels[[0, -1]] == 7).all()


def test_suppression_is_by_class() -> None:
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60]], float)
    found = Detections(corners, np.array([0.5, 0.9, 0.8, 0.1]), np.array([0, 0, 1, 0]))
    assert detectors.suppressed(found, 0.5).scores.tolist() == [0.9, 0.8, 0.1]
    assert len(detectors.suppressed(found, 1.0).scores) == 4
    assert not len(detectors.suppressed(found.at_least(1), 0.5).scores)


def test_ssd_as_tflite_names_it(tmp_path: Path) -> None:
    name = "TFLite_Detection_PostProcess"
    outputs = {
        name: np.array([[[0.25, 0.5, 0.5, 1], [0, 0, 1, 1]]], np.float32),
        f"{name}:1": np.array([[1, 2]], np.float32),
        f"{name}:2": np.array([[0.9, 0.8]], np.float32),
        f"{name}:3": np.array([1], np.float32),
    }
    assert boxes_of(constant(tmp_path / "m.onnx", **outputs)) == [
        ("class 1", [32.0, 8.0, 64.0, 16.0])
    ]


def test_rtdetr_in_one_output(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 4 + 3), np.float32)
    rows[0, 7] = 0.5, 0.5, 0.25, 0.5, 0, 0.9, 0
    metadata = {"task": "detect", "names": "{0: 'a', 1: 'dog', 2: 'cat'}"}
    assert boxes_of(constant(tmp_path / "m.onnx", metadata, output0=rows)) == [
        ("dog", [24.0, 8.0, 40.0, 24.0])
    ]


def test_yolo_boxes_in_shares(tmp_path: Path) -> None:
    array = columns_of(6)
    array[:, :4] /= SIDE
    assert boxes_of(constant(tmp_path / "m.onnx", output0=array)) == EXPECTED


def test_a_classifier_with_a_second_output_stays_one(tmp_path: Path) -> None:
    outputs = {"y": np.zeros((1, 4), np.float32), "features": np.zeros((1, 512), np.float32)}
    assert open_system(constant(tmp_path / "m.onnx", **outputs)).kind == "classes"


def test_fingerprints_know_options_and_weights_beside(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", y=np.arange(3, dtype=np.float32)[None])
    prints = [open_system(spec).fingerprint, open_system(spec + ":crop=0.5").fingerprint]
    (tmp_path / "m.json").write_text('{"crop": 0.5}')
    assert open_system(spec).fingerprint == prints[1] != prints[0]
    (tmp_path / "m.onnx.data").write_bytes(b"1")
    assert open_system(spec).fingerprint not in prints
    (tmp_path / "m.json").write_text('{"cropp": 0.5}')
    with pytest.raises(ModelError, match="cropp") as caught:
        open_system(spec)
    assert caught.value.hint == "did you mean crop?"


@pytest.mark.parametrize("size", [(24, 40), (90, 130)])
def test_filters_of_opencv(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    photo = np.random.default_rng(0).integers(0, 255, (61, 87, 3), np.uint8)
    for name, kind in (("opencv", cv2.INTER_LINEAR), ("opencv-lanczos", cv2.INTER_LANCZOS4)):
        made = view_of(photo, size, Fit("stretch", name)).pixels.astype(int)
        assert np.abs(made - cv2.resize(photo, size[::-1], interpolation=kind)).max() <= 1
    assert view_of(photo, (24, 24), Fit("crop", "opencv", crop=0.5)).pixels.shape == (24, 24, 3)
