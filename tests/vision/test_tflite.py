"""TFLite models as vision systems. The models themselves are not in the project: where they are
absent, tests skip."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vizcomp.errors import MissingExtraError, ModelError, SettingsError
from vizcomp.vision.answers import Classes, Keypoints, Masks
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

MODELS = Path(__file__).parents[3] / "shared/models"
PHOTO = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)


def model(name: str) -> str:
    pytest.importorskip("ai_edge_litert")
    if not (MODELS / name).is_file():
        pytest.skip("the models are not here")
    return str(MODELS / name)


def test_without_its_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    with pytest.raises(MissingExtraError) as caught:
        open_system(str(tmp_path / "m.tflite"))
    assert "vizcomp[tflite]" in caught.value.hint


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    for name, data in (("empty.tflite", b""), ("no.tflite", b"no model at all")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match="cannot be read as a TFLite model"):
            open_system(str(tmp_path / name))
    with pytest.raises(ModelError, match="not there"):
        open_system(str(tmp_path / "gone.tflite"))


def test_quantised_answers_are_real_numbers() -> None:
    answer = open_system(model("mobilenet_v2_1.0_224_quant.tflite") + ":crop=0.875").answers(
        [PHOTO]
    )[0]
    assert isinstance(answer, Classes)
    assert answer.probabilities.shape == (1001,)
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert answer.probabilities.max() > 0.01  # rounded probabilities are none of logits
    assert answer.probabilities.min() == 0


def test_a_segmenter_and_a_pose_are_asked_about() -> None:
    spec = model("deeplabv3_mnv2_pascal_quant.tflite")
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert "kind=masks" in caught.value.hint
    answer = open_system(spec + ":kind=masks,resize=letterbox-corner,grey=128").answers([PHOTO])[0]
    assert isinstance(answer, Masks)
    assert answer.labels.shape == (60, 80)
    pose = model("movenet_single_pose_lightning_ptq.tflite")
    with pytest.raises(SettingsError) as caught:
        open_system(pose)
    assert f"{pose}:kind=keypoints,points=yx" in caught.value.hint
    system = open_system(f"{pose}:kind=keypoints,points=yx")
    answer = system.answers([PHOTO])[0]
    assert isinstance(answer, Keypoints)
    assert answer.points.shape[1:] == (17, 2)
    assert "letterbox-centre grey 0" in reading_of(system)
