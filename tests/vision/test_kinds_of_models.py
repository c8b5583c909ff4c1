"""Models of many kinds as exporters write them: read right, asked about, or refused in one line,
and never taken for what they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from test_exported_layouts import ONE, PHOTO, real, whole
from test_reading import CELLS, SIDE, boxes_of, columns_of, constant

from vizcomp.errors import InputError, ModelError, SettingsError
from vizcomp.vision import verify
from vizcomp.vision.answers import Boxes, Classes, Masks, compare
from vizcomp.vision.draw import drawn
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

Outputs = dict[str, Any]
dice = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return dice.normal(size=shape).astype(np.float32)


def shares(*shape: int) -> np.ndarray:
    return dice.random(shape).astype(np.float32)


def soft(*shape: int) -> np.ndarray:
    powers = np.exp(noise(*shape))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def lists(count: int, scores: np.ndarray) -> Outputs:
    """Boxes (1, count, 4) in pixels, the first of them ONE, and their scores of classes."""
    boxes = np.zeros((1, count, 4), np.float32)
    boxes[0, 0] = ONE
    return {"boxes": boxes, "scores": scores}


def sure(count: int, classes: int, label: int) -> np.ndarray:
    scores = np.full((1, count, classes), 0.01, np.float32)
    scores[0, 0, label] = 0.9
    return scores


# what is refused, and words of the refusal
REFUSED: dict[str, tuple[Outputs, str]] = {
    "a reader of text before it": ({"x": noise(16, 1, 37)}, "for one picture"),
    "a caption": ({"logits": noise(1, 20, 300)}, "none that is read here"),
    "patches of a transformer": ({"last_hidden_state": noise(1, 17, 192)}, "each part of"),
    "queries of Mask2Former": (
        {"class_queries_logits": noise(1, 9, 7), "masks_queries_logits": noise(1, 9, 16, 16)},
        "of queries",
    ),
    "heat maps of points": ({"heatmaps": shares(1, 17, 16, 16)}, "for each point"),
    "rows of RTMPose": ({"simcc_x": shares(1, 17, 128), "simcc_y": shares(1, 17, 128)}, "point"),
    "depth": ({"predicted_depth": shares(1, SIDE, SIDE)}, "how near"),
    "depth without a name": ({"y": 90 * shares(1, 1, SIDE, SIDE)}, "depth map"),
    "the same without channels": ({"y": 90 * shares(1, SIDE, SIDE)}, "depth map"),
    "super-resolution": ({"y": shares(1, 3, 2 * SIDE, 2 * SIDE)}, "larger than its input"),
    "features": ({"y": noise(1, 512, 2, 2)}, "features"),
    "an encoder's map": ({"image_embeddings": noise(1, 256, 8, 8)}, "features"),
    "SCRFD": (
        {f"{what}_{n}": shares(n, width) for n in (64, 16) for what, width in (("s", 1), ("b", 4))},
        "before they are decoded",
    ),
    "RetinaFace": (
        {"loc": noise(1, 84, 4), "conf": soft(1, 84, 2), "landms": noise(1, 84, 10)},
        "none that is read here",
    ),
    "NanoDet": ({"y": np.concatenate([shares(1, 85, 8), noise(1, 85, 32)], 2)}, "none that is"),
    "corners of turned boxes": ({"boxes": shares(1, 9, 8), "scores": shares(1, 9)}, "turned"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    outputs, said = REFUSED[name]
    with pytest.raises(ModelError, match=said) as caught:
        open_system(constant(tmp_path / "m.onnx", **outputs))
    assert "\n" not in caught.value.message
    assert caught.value.hint


# what is asked about, what must be among the choices, and what must not
ASKED: dict[str, tuple[Outputs, str, str]] = {
    "an age and a gender": ({"age": soft(1, 101), "gender": soft(1, 2)}, "output=gender", "kind="),
    "an auxiliary head": ({"logits": noise(1, 9), "aux": noise(1, 9)}, "output=aux", "kind="),
    "a map beside classes": (
        {"features": noise(1, 64, 8, 8), "logits": noise(1, 9)},
        "output=logits",
        "masks",
    ),
    "CLIP": (
        {"logits_per_image": noise(1, 3), "image_embeds": noise(1, 512)},
        "output=image_embeds",
        "kind=",
    ),
    "a probability for each of several labels": ({"y": shares(1, 20)}, "kind=classes", "detector"),
    "YOLO-NAS": (lists(2000, sure(2000, 7, 3)), "detector=torchvision,units=pixels", "share"),
    "EfficientDet": (
        {"detections": real([[[0, 8, 16, 40, 48, 0.9, 2], [0, 8, 16, 40, 48, 0.1, 1]]])},
        "columns=other/top/left/bottom/right/score/label",
        "label/score/left",
    ),
    "YOLO-NAS with suppression": (
        {"flat": real([[0, *ONE, 0.9, 2]])},
        "columns=other/left/top/right/bottom/score/label",
        "label/score/left",
    ),
    "BatchedNMS": (
        {
            "num_detections": whole([[1]]),
            "nmsed_boxes": real([[ONE, ONE]]),
            "nmsed_scores": real([[0.9, 0.8]]),
            "nmsed_classes": real([[2, 3]]),
        },
        "detector=torchvision,units=pixels",
        "share",
    ),
    "names in Spanish": (
        {"cajas": real([[ONE]]), "puntos": real([[0.9]]), "clases": whole([[2]])},
        "detector=torchvision,units=pixels,boxes=cajas,scores=puntos,labels=clases",
        "share",
    ),
    "names in Chinese": (
        {"框": real([[ONE]]), "分数": real([[0.9]]), "类别": whole([[2]])},
        "units=pixels,boxes=框,scores=分数,labels=类别",
        "share",
    ),
    "SegFormer": ({"logits": noise(1, 15, 16, 16)}, "kind=masks", "detector"),
    "DeepLab, channels last": ({"y": noise(1, 33, 33, 21)}, "kind=masks", "detector"),
    "salient objects": ({"d0": shares(1, 1, 32, 32), "d1": shares(1, 1, 32, 32)}, "masks", "det"),
}


@pytest.mark.parametrize("name", ASKED)
def test_it_is_asked_about_and_not_what_cannot_be(tmp_path: Path, name: str) -> None:
    outputs, among, without = ASKED[name]
    spec = constant(tmp_path / "m.onnx", **outputs)
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert among in caught.value.hint
    assert f":{without}" not in caught.value.hint.replace(spec, "m.onnx")
    assert without not in caught.value.hint.split("; see")[0].replace(spec, "m.onnx")


def test_the_output_that_is_named_is_read_and_the_others_are_told(tmp_path: Path) -> None:
    outputs = {"age": soft(1, 101), "gender": real([[0.1, 0.9]])}
    spec = constant(tmp_path / "m.onnx", **outputs)
    system = open_system(f"{spec}:output=gender")
    answer = system.answers([PHOTO])[0]
    assert isinstance(answer, Classes)
    assert (answer.best, len(answer.probabilities)) == (1, 2)
    assert "not read: age" in reading_of(system)
    with pytest.raises(ModelError, match="no output pose"):
        open_system(f"{spec}:output=pose")


def test_a_column_of_nothing_is_asked_about_and_left_out(tmp_path: Path) -> None:
    scores = np.zeros((1, 20, 3), np.float32)
    scores[..., 0] = 1  # nothing is there
    scores[0, 0] = 0.05, 0.05, 0.9
    spec = constant(tmp_path / "m.onnx", **lists(20, scores))
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert f"{spec}:detector=torchvision,background=first" in caught.value.hint
    told = f"{spec}:detector=torchvision,background=first,units=pixels,resize=stretch"
    assert boxes_of(told, PHOTO) == [("class 2", ONE)]
    assert "background first" in reading_of(open_system(told))
    named = boxes_of(f"{spec}:detector=torchvision,background=none,units=pixels", PHOTO)
    assert len(named) == 20  # as it was told: nothing is a class


def test_boxes_of_all_places_lose_their_doubles(tmp_path: Path) -> None:
    outputs = lists(2000, sure(2000, 7, 3))
    outputs["boxes"][0, 1], outputs["scores"][0, 1, 3] = ONE, 0.8
    spec = constant(tmp_path / "m.onnx", **outputs) + ":detector=torchvision,units=pixels"
    assert boxes_of(f"{spec},resize=stretch", PHOTO) == [("class 3", ONE)]
    assert "doubles above IoU 0.5 dropped" in reading_of(open_system(spec))
    assert len(boxes_of(f"{spec},nms=1", PHOTO)) == 2


def test_efficientdet_rows(tmp_path: Path) -> None:
    rows = real([[[0, 8, 16, 40, 48, 0.9, 2], [0, 8, 16, 40, 48, 0.1, 1]]])
    spec = constant(tmp_path / "m.onnx", detections=rows)
    order = "columns=other/top/left/bottom/right/score/label,resize=stretch"
    assert boxes_of(f"{spec}:detector=yolov10,{order}", PHOTO) == [("class 2", ONE)]


def test_a_mask_beside_the_picture_is_proposed_as_ones(tmp_path: Path) -> None:
    picture = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    mask = helper.make_tensor_value_info("pixel_mask", TensorProto.INT64, [1, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    held = numpy_helper.from_array(noise(1, 4), "held")
    nodes = [helper.make_node("Identity", ["held"], ["y"])]
    graph = helper.make_graph(nodes, "g", [picture, mask], [y], [held])
    path = tmp_path / "m.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    with pytest.raises(SettingsError) as caught:
        open_system(str(path))
    assert f"{path}:input.pixel_mask=1;" in caught.value.hint
    assert open_system(f"{path}:input.pixel_mask=1").kind == "classes"


@pytest.mark.parametrize(("value", "said"), [(90.5, "no shares"), (-3.0, "no shares")])
def test_a_map_of_other_numbers_than_shares_is_an_error(
    tmp_path: Path, value: float, said: str
) -> None:
    numbers = np.zeros((1, 1, 32, 32), np.float32)
    spec = constant(tmp_path / "m.onnx", y=numbers) + ":kind=masks"
    system = open_system(spec)
    assert isinstance(system, ModelSystem)
    numbers[0, 0, :16] = value
    system._runtime.run = lambda feeds: {"y": numbers}  # type: ignore[method-assign]
    with pytest.raises(InputError, match=said):
        system.answers([PHOTO])
    edged = open_system(f"{spec},activation=sigmoid")
    assert isinstance(edged, ModelSystem)
    edged._runtime.run = system._runtime.run  # type: ignore[method-assign]
    answer = edged.answers([PHOTO])[0]
    assert isinstance(answer, Masks)
    assert answer.labels[:20].any() == (value > 0)


def test_no_list_of_boxes_is_a_map(tmp_path: Path) -> None:
    outputs = {"output0": columns_of(4, 32), "output1": noise(1, 32, 16, 16)}
    with pytest.raises(ModelError, match="no map of labels over the picture"):
        open_system(constant(tmp_path / "m.onnx", **outputs) + ":kind=masks")


def test_quantised_probabilities_are_probabilities(tmp_path: Path) -> None:
    row = np.zeros((1, 40), np.float32)
    row[0, :30] = 0.03125  # what rounding left of a softmax
    assert open_system(constant(tmp_path / "m.onnx", y=row)).kind == "classes"


def test_a_kind_that_the_outputs_do_not_have_is_an_error(tmp_path: Path) -> None:
    spec = constant(tmp_path / "m.onnx", y=shares(1, 10, 8, 8))
    for kind in ("classes", "embedding", "boxes"):
        with pytest.raises(ModelError, match=r"shape \(1, 10, 8, 8\)|none that is read here"):
            open_system(f"{spec}:kind={kind}")
    grid = constant(tmp_path / "g.onnx", output0=columns_of(4))
    assert len(boxes_of(f"{grid}:kind=boxes")) == 2
    with pytest.raises(ModelError, match="none that is read here"):
        open_system(constant(tmp_path / "c.onnx", y=noise(1, 9)) + ":kind=boxes")


# --- masks of instances ---


def segmenter(path: Path, weight: float = 1.0, end_to_end: bool = False) -> str:
    """A box that fills the input but 8 pixels on each side; its mask is the upper half of it, or
    the lower one with a weight of -1."""
    protos = np.ones((1, 2, 16, 16), np.float32)
    protos[0, 0, 8:] = -1
    protos[0, 1] = 0
    if end_to_end:
        rows = np.zeros((1, 300, 8), np.float32)
        rows[0, 0] = 8, 8, 56, 56, 0.9, 1, weight, 5
        meta = {"task": "segment", "names": "{0: 'a', 1: 'b'}", "imgsz": "[64, 64]"}
        return constant(path, meta, output0=rows, output1=protos)
    columns = np.zeros((1, 8, CELLS), np.float32)
    columns[0, :, 3] = 32, 32, 48, 48, 0, 0.9, weight, 5
    return constant(path, output0=columns, output1=protos)


def answer_of(spec: str) -> Boxes:
    answer = open_system(spec).answers([PHOTO])[0]
    assert isinstance(answer, Boxes)
    return answer


@pytest.mark.parametrize("end_to_end", [False, True])
def test_a_head_of_masks_gives_the_mask_of_each_instance(tmp_path: Path, end_to_end: bool) -> None:
    spec = segmenter(tmp_path / "m.onnx", end_to_end=end_to_end)
    answer = answer_of(spec)
    assert answer.masks is not None
    assert answer.masks.shape == (1, 16, 16)  # over the photo
    expected = np.zeros((16, 16), bool)
    expected[2:8, 2:14] = True
    assert (answer.masks[0] == expected).all()
    assert "masks of instances" in reading_of(open_system(spec))
    assert "not read" not in reading_of(open_system(spec))
    large = np.zeros((512, 512, 3), np.uint8)
    picture = drawn(large, open_system(spec).answers([large])[0])
    assert picture[150, 256].any()
    assert not picture[350, 256].any()


def test_boxes_with_other_masks_are_not_the_same(tmp_path: Path) -> None:
    one = answer_of(segmenter(tmp_path / "a.onnx"))
    other = answer_of(segmenter(tmp_path / "b.onnx", weight=-1))
    for before, after in ((one, other), (other, one)):
        assert compare(before, before).same
        found = compare(before, after)
        assert (found.same, found.score, found.matched) == (False, 0, 0)
        assert not verify.compare_views([before], [after]).same
        assert verify.compare_views([before], [before]).same
    boxes = answer_of(segmenter(tmp_path / "a.onnx") + ":kind=boxes")
    assert boxes.masks is None
    assert compare(one, boxes).same


def test_masks_that_differ_much_are_not_the_same_though_they_are_partners() -> None:
    quads = np.array([[[0.0, 0], [9, 0], [9, 9], [0, 9]]])
    masks = np.zeros((1, 10, 10), bool)
    masks[0, :9] = True
    smaller = masks.copy()
    smaller[0, 7:] = False
    one, other = (Boxes(quads, masks=m) for m in (masks, smaller))
    found = compare(one, other)
    assert (found.same, found.matched) == (False, 1)
    assert found.score == pytest.approx(7 / 9)
    assert compare(one, other, tolerance=0.2).same
    with pytest.raises(SettingsError, match="sizes"):
        compare(one, Boxes(quads, masks=np.zeros((1, 4, 4), bool)))


def test_a_cropped_input_says_that_masks_are_not_compared(tmp_path: Path) -> None:
    spec = segmenter(tmp_path / "m.onnx") + ":resize=crop"
    assert answer_of(spec).masks is None
    assert "masks not compared" in reading_of(open_system(spec))
