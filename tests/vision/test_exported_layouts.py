"""Lists of boxes as exporters write them: read right, asked about, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import command
from PIL import Image
from test_reading import CELLS, EXPECTED, SIDE, boxes_of, columns_of, constant

from vizcomp.errors import InputError, ModelError, SettingsError
from vizcomp.vision.answers import Boxes, Classes
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.options import parse_options
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

Outputs = dict[str, Any]
ONE = [16.0, 8.0, 48.0, 40.0]  # a box in an input of 64x64; of a photo of 64x64 the same
PHOTO = np.zeros((SIDE, SIDE, 3), np.uint8)
ROW = "detector=yolov10,columns="
PADDLE = f"{ROW}label/score/left/top/right/bottom"


def real(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def whole(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


# what is asked about, an answer to that, and the boxes that are read then
ASKED: dict[str, tuple[Outputs, str]] = {
    "EfficientNMS of TensorRT": (
        {
            "num_dets": whole([[1]]),
            "det_boxes": real([[ONE, ONE]]),
            "det_scores": real([[0.9, 0.8]]),
            "det_classes": whole([[2, 3]]),
        },
        "detector=torchvision,units=pixels",
    ),
    "YOLOv7 with suppression": (
        {"output": real([[0, *ONE, 2, 0.9]])},
        f"{ROW}other/left/top/right/bottom/label/score",
    ),
    "OpenVINO's DetectionOutput": (
        {"detection_out": real([[[[0, 2, 0.9, 0.25, 0.125, 0.75, 0.625]]]])},
        f"{ROW}other/label/score/left/top/right/bottom,units=share",
    ),
    "PaddleDetection": (
        {"multiclass_nms3_0.tmp_0": real([[2, 0.9, *ONE]]), "multiclass_nms3_0.tmp_2": whole([1])},
        PADDLE,
    ),
    "PaddleDetection, two rows": ({"out": real([[2, 0.9, *ONE], [-1, -1, 0, 0, 0, 0]])}, PADDLE),
    "a zoo's Faster R-CNN": (
        {"6379": real([ONE]), "6381": whole([2]), "6383": real([0.9])},
        "detector=torchvision,boxes=6379,scores=6383,labels=6381",
    ),
    "an SSD in pixels": (
        {"bboxes": real([[ONE]]), "labels": whole([[2]]), "scores": real([[0.9]])},
        "detector=torchvision,units=pixels",
    ),
    "scores by class, without suppression": (
        {"boxes": real([[ONE, ONE]]), "scores": real([[[0, 0, 0.9], [0, 0, 0.1]]])},
        "detector=torchvision,units=pixels",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_it_is_asked_and_then_read(tmp_path: Path, name: str) -> None:
    outputs, answer = ASKED[name]
    spec = constant(tmp_path / "m.onnx", **outputs)
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert f"{spec}:{answer}" in caught.value.hint
    found = open_system(f"{spec}:{answer},resize=stretch").answers([PHOTO])[0]
    assert isinstance(found, Boxes)
    assert found.labels == ("class 2",)
    assert np.allclose(found.quads[0][[0, 2]].ravel(), ONE)


def test_corners_with_a_score_beside_labels_are_certain(tmp_path: Path) -> None:
    outputs = {"dets": real([[[*ONE, 0.9], [*ONE, 0.1]]]), "labels": whole([[2, 1]])}
    assert boxes_of(constant(tmp_path / "m.onnx", **outputs), PHOTO) == [("class 2", ONE)]
    empty = {"dets": real(np.zeros((1, 0, 5))), "labels": whole(np.zeros((1, 0)))}
    assert not boxes_of(constant(tmp_path / "e.onnx", **empty), PHOTO)


def test_an_empty_list_of_rows_is_asked_about_and_is_an_answer(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", out=real(np.zeros((0, 7))))
    with pytest.raises(SettingsError, match="0x7"):
        open_system(spec)
    assert not boxes_of(f"{spec}:{ROW}other/left/top/right/bottom/label/score", PHOTO)


def test_classes_may_come_first_in_scores(tmp_path: Path) -> None:
    outputs = {"boxes": real([[ONE, ONE]]), "scores": real([[[0, 0], [0, 0], [0.9, 0.1]]])}
    assert boxes_of(constant(tmp_path / "m.onnx", **outputs) + ":detector=torchvision", PHOTO) == [
        ("class 2", ONE)
    ]
    other = {"boxes": real([[ONE, ONE]]), "scores": real([[0.9, 0.1, 0.2]])}
    with pytest.raises(ModelError, match="3 scores in scores are not those of 2 boxes"):
        open_system(constant(tmp_path / "o.onnx", **other) + ":detector=torchvision")


def test_a_grid_of_yolov8_turned_round(tmp_path: Path) -> None:
    turned = columns_of(4).transpose(0, 2, 1)
    spec = constant(tmp_path / "m.onnx", output0=np.ascontiguousarray(turned))
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert "detector=yolov8" in caught.value.hint
    assert boxes_of(f"{spec}:detector=yolov8") == EXPECTED


def test_a_fixed_batch_of_a_detector(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", batch=4, output0=np.repeat(columns_of(6), 4, 0))
    assert boxes_of(spec) == EXPECTED


@pytest.mark.parametrize("detector", ["yolov8", "yolov5"])
def test_numbers_before_an_activation_are_refused(tmp_path: Path, detector: str) -> None:
    array = np.full((1, 9, CELLS), -5, np.float32)
    array = array if detector == "yolov8" else np.repeat(array.transpose(0, 2, 1), 3, 1)
    with pytest.raises(ModelError, match=r"below 0.*obb"):
        open_system(constant(tmp_path / "m.onnx", output0=np.ascontiguousarray(array)))


def test_a_head_that_may_have_an_angle_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="1x20x84"):
        open_system(constant(tmp_path / "m.onnx", output0=columns_of(16)))


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (
            {
                "a": np.zeros((1, 255, 8, 8)),
                "b": np.zeros((1, 255, 4, 4)),
                "c": np.zeros((1, 255, 2, 2)),
            },
            "before its boxes are decoded",
        ),
        (
            {"hm": np.zeros((1, 80, 16, 16)), "wh": np.zeros((1, 2, 16, 16))},
            "before its boxes are decoded",
        ),
        (
            {"a": np.zeros((1, 3, 8, 8, 85)), "b": np.zeros((1, 3, 4, 4, 85))},
            "neither classes nor boxes",
        ),
        ({"label": np.array([3], np.int64)}, "but not how sure"),
        ({"best": np.array([[3, 1, 2]], np.int64)}, "but not how sure"),
        ({"y": np.array(1.0)}, "neither classes nor boxes"),
    ],
)
def test_what_is_no_answer_is_refused(tmp_path: Path, outputs: Outputs, said: str) -> None:
    arrays = {n: a if a.dtype == np.int64 else a.astype(np.float32) for n, a in outputs.items()}
    with pytest.raises(ModelError, match=said) as caught:
        open_system(constant(tmp_path / "m.onnx", **arrays))
    assert "export it" in caught.value.hint


def test_an_auxiliary_map_of_a_segmenter_is_no_head(tmp_path: Path) -> None:
    maps = {name: np.zeros((1, 21, 16, 16), np.float32) for name in ("out", "aux")}
    with pytest.raises(SettingsError) as caught:
        open_system(constant(tmp_path / "m.onnx", **maps))
    assert "kind=masks" in caught.value.hint


def test_one_number_is_a_question(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", y=real([[2.0]]))
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert f"{spec}:kind=classes,activation=sigmoid" in caught.value.hint
    answer = open_system(f"{spec}:kind=classes,activation=sigmoid").answers([PHOTO])[0]
    assert isinstance(answer, Classes)
    assert answer.best == 1
    assert answer.probabilities[1] == pytest.approx(1 / (1 + np.exp(-2)))
    with pytest.raises(InputError, match="no probability"):
        open_system(f"{spec}:kind=classes,activation=none").answers([PHOTO])


def test_a_label_beside_its_probabilities(tmp_path: Path) -> None:
    outputs = {"label": np.array([1], np.int64), "probabilities": real([[0.2, 0.7, 0.1]])}
    answer = open_system(constant(tmp_path / "m.onnx", **outputs)).answers([PHOTO])[0]
    assert isinstance(answer, Classes)
    assert answer.best == 1


def test_the_size_of_an_open_classifier_is_asked_for(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", shape=(None, 3, None, None), y=real([[0, 1]]))
    with pytest.raises(SettingsError, match="how large is its input") as caught:
        open_system(spec)
    assert f"{spec}:size=224" in caught.value.hint
    assert "input 32x32" in reading_of(open_system(f"{spec}:size=32"))
    assert "the photo's own size" in reading_of(open_system(f"{spec}:size=own"))


def test_an_answer_that_changes_its_length_is_no_classes(tmp_path: Path) -> None:
    system = open_system(constant(tmp_path / "m.onnx", y=real([[0, 1, 2]])))
    assert isinstance(system, ModelSystem)
    system._runtime.run = lambda feeds: {"y": real(np.zeros((4, 3)))}  # type: ignore[method-assign]
    with pytest.raises(InputError, match="12 numbers here, 3 on a grey picture"):
        system.answers([PHOTO])


@pytest.mark.parametrize("more", ["", "/bottom/left", "/bottom/sure"])
def test_columns_are_checked(more: str) -> None:
    with pytest.raises(SettingsError, match="columns"):
        parse_options(f"columns=left/top/right{more}")


def test_columns_must_be_those_of_the_output(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", out=real([[2, 0.9, *ONE]]))
    with pytest.raises(ModelError, match="has 6 columns, and 7 are named"):
        open_system(f"{spec}:{ROW}other/label/score/left/top/right/bottom")
    with pytest.raises(ModelError, match=r"corners of a box are not in order|above 1"):
        open_system(f"{spec}:{ROW}left/top/right/bottom/score/label")


def test_the_command_ends_with_2_and_what_to_type(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    spec = constant(tmp_path / "m.onnx", out=real([[2, 0.9, *ONE]]))
    assert command("djpeg", tmp_path / "a.png", "-o", tmp_path / "out", "--verify", spec) == 2
    assert f"{spec}:{PADDLE}" in capfd.readouterr().err.replace("\n", "")
    assert (
        command(
            "djpeg",
            tmp_path / "a.png",
            "-o",
            tmp_path / "out",
            "--verify",
            f"{spec}:{PADDLE}",
            "-j",
            1,
        )
        == 0
    )
