"""Inputs of models as people have them: several of them, any axes, sizes and types. What is not
said is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_reading import PHOTO, SIDE, constant

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision.answers import Boxes, Classes
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

THIRDS = np.arange(3, dtype=np.float32)[None]


def scaled(path: Path, batch: int | None = 1) -> str:
    """As RT-DETR's and PaddleDetection's exports: boxes in shares, times what a further input
    holds."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    size = helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [batch, 2])
    boxes = helper.make_tensor("held", TensorProto.FLOAT, [1, 1, 4], [0.25, 0.25, 0.75, 0.5])
    scores = helper.make_tensor("sure", TensorProto.FLOAT, [1, 1], [0.9])
    labels = helper.make_tensor("kind", TensorProto.INT64, [1, 1], [2])
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["real", "real"], ["twice"], axis=1),
        helper.make_node("Mul", ["held", "twice"], ["boxes"]),
        helper.make_node("Identity", ["sure"], ["scores"]),
        helper.make_node("Identity", ["kind"], ["labels"]),
    ]
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 1]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 1, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1]),
    ]
    graph = helper.make_graph(nodes, "g", [size, image], outputs, [boxes, scores, labels])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        str(path),
    )
    return str(path)


def test_a_further_input_is_asked_for_by_name(tmp_path: Path) -> None:
    spec = scaled(tmp_path / "m.onnx")
    with pytest.raises(
        SettingsError, match=r"further inputs to hold\? orig_target_sizes \(int64 1x2\)"
    ) as caught:
        open_system(spec)
    assert caught.value.exit_code == 2
    assert f"{spec}:input.orig_target_sizes=64/64" in caught.value.hint


@pytest.mark.parametrize("numbers", ["64/64", "64", "width/height"])
@pytest.mark.parametrize("batch", [1, None])
def test_a_further_input_holds_what_is_said(
    tmp_path: Path, numbers: str, batch: int | None
) -> None:
    spec = (
        scaled(tmp_path / "m.onnx", batch)
        + f":detector=torchvision,units=pixels,input.orig_target_sizes={numbers}"
    )
    answer = open_system(spec).answers([PHOTO])[0]
    assert isinstance(answer, Boxes)
    # of a photo 64 wide and 32 high
    assert answer.quads[0][[0, 2]].ravel().tolist() == [16, 8, 48, 16]
    assert answer.labels == ("class 2",)


def test_the_same_in_the_file_beside_the_model(tmp_path: Path) -> None:
    spec = scaled(tmp_path / "m.onnx")
    options = {
        "detector": "torchvision",
        "units": "pixels",
        "inputs": {"orig_target_sizes": [64, "height"]},
    }
    (tmp_path / "m.json").write_text(json.dumps(options))
    before = open_system(spec).fingerprint
    options["inputs"] = {"orig_target_sizes": [32, 32]}
    (tmp_path / "m.json").write_text(json.dumps(options))
    assert open_system(spec).fingerprint != before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("input.orig_target_sizes=1/2/3", "takes 2 numbers"),
        ("input.size=64/64", "no further input size"),
        ("image=pixels,input.orig_target_sizes=1/1", "no input pixels"),
        ("input.orig_target_sizes=wide/high", "could not convert"),
        ("inputs=3", "names and their numbers"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, options: str, said: str) -> None:
    with pytest.raises((ModelError, SettingsError), match=said):
        open_system(f"{scaled(tmp_path / 'm.onnx')}:detector=torchvision,units=pixels,{options}")


def test_which_of_two_pictures_is_asked(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", y=THIRDS)
    model = onnx.load(spec)
    model.graph.input.append(
        helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    )
    onnx.save(model, spec)
    with pytest.raises(SettingsError, match="which of its inputs takes the photo") as caught:
        open_system(spec)
    assert f"{spec}:image=second" in caught.value.hint
    assert open_system(f"{spec}:image=image,input.second=0").kind == "classes"


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, SIDE, SIDE, 3), TensorProto.FLOAT, "input 64x64"),
        ((None, SIDE, SIDE, 1), TensorProto.FLOAT, "input 64x64 grey"),
        # without an axis of the batch, as torchvision's detectors
        ((3, SIDE, SIDE), TensorProto.FLOAT, "input 64x64"),
        ((1, 3, SIDE, SIDE), TensorProto.FLOAT16, "RGB 0..1"),
        ((1, 3, SIDE, SIDE), TensorProto.DOUBLE, "RGB 0..1"),
        ((1, SIDE, SIDE, 3), TensorProto.UINT8, "RGB bytes"),
        ((7, 3, SIDE, SIDE), TensorProto.FLOAT, "input 64x64"),
    ],
)
def test_any_axes_and_types_of_pictures(
    tmp_path: Path, shape: tuple[int | None, ...], dtype: int, said: str
) -> None:
    count = shape[0] if len(shape) == 4 and shape[0] else 1
    system = open_system(
        constant(tmp_path / "m.onnx", shape=shape, dtype=dtype, y=np.repeat(THIRDS, count, 0))
    )
    answers = system.answers([PHOTO] * 3)
    assert all(isinstance(answer, Classes) and answer.best == 2 for answer in answers)
    assert said in reading_of(system)


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 100), TensorProto.FLOAT, "no batch of images"),
        ((1, 4, SIDE, SIDE), TensorProto.FLOAT, "4 channels"),
        ((1, 3, SIDE, SIDE), TensorProto.INT32, "no image"),
    ],
)
def test_what_takes_no_picture_is_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: int, said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        open_system(constant(tmp_path / "m.onnx", shape=shape, dtype=dtype, y=THIRDS))
    assert "export it" in caught.value.hint
