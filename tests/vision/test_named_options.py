"""Options of systems that are no files: text, text:read and torchvision's models."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from kit import picture
from PIL import Image

from vizcomp.errors import ModelError, SettingsError
from vizcomp.fitting.inputs import Input, input_of
from vizcomp.vision import systems, torch_systems
from vizcomp.vision.answers import Boxes, Classes
from vizcomp.vision.named_options import split_options
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system


def test_names_are_split() -> None:
    names = ("text", "text:read")
    assert split_options("text", names) == ("text", "")
    assert split_options("text:side=800", names) == ("text", "side=800")
    assert split_options("text:read:least=0.7", names) == ("text:read", "least=0.7")
    with pytest.raises(ModelError) as caught:
        split_options("text:reads", names)
    assert caught.value.hint == "did you mean text:read?"


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("text:treshold=0.6", "did you mean threshold?"),
        ("text:least=0.6", "the options are threshold, side, max_side"),
        ("text:threshold=2", "threshold is a number from 0.05 to 1"),
        ("text:side=lots", "side is a whole number from 32 to 4000"),
        ("text:read:side=", "side is a whole number"),
        ("txt", "did you mean text?"),
        ("inceptoin", "did you mean inception?"),
    ],
)
def test_unknown_options_say_what_is_near(spec: str, hint: str) -> None:
    with pytest.raises((SettingsError, ModelError)) as caught:
        open_system(spec)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def lettering() -> np.ndarray:
    from PIL import ImageDraw, ImageFont

    image = Image.new("RGB", (320, 120), "white")
    ImageDraw.Draw(image).text((30, 30), "STOP 42", "black", ImageFont.load_default(48))
    return np.asarray(image)


def test_options_of_text_are_those_of_its_engine() -> None:
    pytest.importorskip("rapidocr")
    usual, strict = open_system("text"), open_system("text:threshold=1,side=320,max_side=640")
    assert strict.name == "text:threshold=1,side=320,max_side=640"
    assert strict.fingerprint.startswith(usual.fingerprint + "-")
    assert "threshold 1, side 320, max_side 640" in reading_of(strict)
    found, none = (system.answers([lettering()])[0] for system in (usual, strict))
    assert isinstance(found, Boxes)
    assert isinstance(none, Boxes)
    assert len(found.quads) > len(none.quads) == 0


def test_a_reader_takes_a_certainty() -> None:
    pytest.importorskip("rapidocr")
    assert "from score 0.9" in reading_of(open_system("text:read:least=0.9"))


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's records of weights, with networks that need none."""
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision").models

    class Detector(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, images: Any) -> Any:
            boxes = torch.tensor([[1.0, 2.0, 9.0, 9.0], [2.0, 2.0, 8.0, 8.0], [0.0, 0.0, 4.0, 4.0]])
            scores = torch.tensor([0.9, 0.49, 0.2])
            return [{"boxes": boxes, "scores": scores, "labels": torch.tensor([1, 2, 3])}]

    def module(spec: str, *, offline: bool, weights: str = "") -> Any:
        name = spec.removeprefix("torchvision:")
        choices = models.get_model_weights(name)
        choice = choices[weights] if weights else choices.DEFAULT
        if "rcnn" in name:
            return Detector(), choice, "abc"
        layers = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 1000))
        return torch.nn.Sequential(*layers).eval().requires_grad_(False), choice, "abc"

    monkeypatch.setattr(torch_systems, "torchvision_module", module)
    monkeypatch.setattr(systems, "torchvision_system", torch_systems.torchvision_system)


@pytest.mark.usefixtures("torchvision")
def test_a_classifier_of_torchvision_takes_sides_and_a_filter() -> None:
    usual = open_system("torchvision:resnet18")
    assert "shorter side to 256, 224 of its middle, bilinear" in reading_of(usual)
    other = open_system("torchvision:resnet18:resize=64,crop=48,filter=bicubic")
    assert "shorter side to 64, 48 of its middle, bicubic" in reading_of(other)
    assert input_of(other) == Input((48, 48), True, "bicubic", 0.75)
    assert other.fingerprint != usual.fingerprint == "abc"
    assert isinstance(other.answers([picture(0, 90, 70)])[0], Classes)
    older = open_system("torchvision:resnet50:weights=IMAGENET1K_V1")
    assert "shorter side to 256" in reading_of(older)


@pytest.mark.usefixtures("torchvision")
def test_a_detector_of_torchvision_takes_a_score_and_tells_what_is_in_doubt() -> None:
    answer = open_system("torchvision:fasterrcnn_resnet50_fpn").answers([picture(0)])[0]
    assert isinstance(answer, Boxes)
    assert answer.labels == ("person",)
    assert answer.below is not None
    assert answer.below.labels == ("bicycle",)  # of 0.49
    low = open_system("torchvision:fasterrcnn_resnet50_fpn:least=0.1").answers([picture(0)])[0]
    assert isinstance(low, Boxes)
    assert len(low.quads) == 3
    assert "from score 0.1" in reading_of(
        open_system("torchvision:fasterrcnn_resnet50_fpn:least=0.1")
    )


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("torchvision:resnet18:rezise=64", "did you mean resize?"),
        ("torchvision:resnet18:least=0.4", "the options are weights, resize, crop, filter"),
        ("torchvision:fasterrcnn_resnet50_fpn:crop=64", "the options are weights, least"),
        ("torchvision:resnet18:crop=512", "resize=256,crop=224"),
        ("torchvision:resnet18:filter=bicubik", "did you mean filter=bicubic?"),
    ],
)
def test_options_that_a_model_does_not_have(spec: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_system(spec)
    assert hint in caught.value.hint


def test_an_unknown_model_and_unknown_weights_of_torchvision() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(ModelError) as caught:
        open_system("torchvision:resnet19", offline=True)
    assert "did you mean torchvision:resnet" in caught.value.hint
    with pytest.raises(SettingsError) as wrong:
        open_system("torchvision:resnet50:weights=IMAGENET1K_V3", offline=True)
    assert "did you mean weights=IMAGENET1K_V" in wrong.value.hint


def test_options_of_a_guide_stay_with_its_system() -> None:
    from vizcomp.evaluation import codecs

    asked: list[str] = []
    system = types.SimpleNamespace(fingerprint="1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecs, "system_by_name", lambda name, offline: asked.append(name) or system)
        codecs.open_codec("djpeg:guide=system:text:threshold=0.6,side=800,strength=0.5")
    assert asked == ["text:threshold=0.6,side=800"]
