"""What commands rely on, for every kind of vision system: a new one joins the list and passes all
of it."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import picture
from test_reading import constant
from test_vision import classifier, detector

import vizcomp
import vizcomp.vision
from vizcomp.vision.answers import (
    Answer,
    Boxes,
    Classes,
    Embedding,
    Keypoints,
    Masks,
    Text,
    compare,
    is_empty,
)
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.onnx_systems import OnnxSystem
from vizcomp.vision.options import ModelOptions
from vizcomp.vision.script_systems import TorchSystem
from vizcomp.vision.system import System, fitted
from vizcomp.vision.systems import open_system
from vizcomp.vision.text_system import TextSystem
from vizcomp.vision.tflite_systems import TfliteSystem
from vizcomp.vision.torch_systems import TorchClassifier, TorchDetector


def torch_classifier(_folder: Path) -> System:
    """As one of torchvision: any size, no names."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        camera = torch.nn.Conv2d(3, 4, 3, padding=1)
        module = torch.nn.Sequential(
            camera, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 5)
        )
    module.eval().requires_grad_(False)
    return TorchClassifier("made", module, resized, (), "1", camera)


def resized(image: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(fitted(image, 16, 16).copy()).permute(2, 0, 1).float() / 255


def torch_detector(_folder: Path) -> System:
    """As one of torchvision: three boxes in shares of the picture, the last below the threshold of
    scores."""
    import torch

    def module(images: Any) -> Any:
        height, width = images[0].shape[1:]
        corners = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.4, 0.1, 0.9, 0.9], [0, 0, 1, 1]])
        scale = torch.tensor([width, height, width, height])
        return [
            {
                "boxes": corners * scale,
                "scores": torch.tensor([0.9, 0.8, 0.1]),
                "labels": torch.tensor([1, 7, 0]),
            }
        ]

    def prepare(image: np.ndarray) -> Any:
        return torch.from_numpy(image.copy()).permute(2, 0, 1)

    return TorchDetector("made", module, prepare, ("cat", "dog"), "1")


def text(name: str) -> Callable[[Path], System]:
    def opened(_folder: Path) -> System:
        pytest.importorskip("rapidocr")
        return open_system(name)

    return opened


def grey_share(image: np.ndarray) -> list[float]:
    share = float(image.mean()) / 255
    return [share, 1 - share]


def held(options: str, shape: tuple[int, ...]) -> Callable[[Path], System]:
    """A model that answers the same numbers to any picture."""

    def opened(folder: Path) -> System:
        name = options.replace("=", "_").replace(",", "_")
        array = np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        return open_system(constant(folder / f"{name}.onnx", out=array) + f":{options}")

    return opened


SYSTEMS: dict[str, Callable[[Path], System]] = {
    "inception": lambda _: open_system("inception"),
    "watcher": lambda _: open_system("watcher"),
    "torch classifier": torch_classifier,
    "torch detector": torch_detector,
    "onnx classifier": lambda folder: open_system(str(classifier(folder / "classifier.onnx"))),
    "onnx detector": lambda folder: OnnxSystem(
        detector(folder / "d.onnx"), ModelOptions(classes=("cat", "dog"))
    ),
    "onnx masks": held("kind=masks", (1, 3, 8, 8)),
    "onnx keypoints": held("kind=keypoints,points=yx", (1, 1, 17, 3)),
    "onnx poses": held("kind=keypoints,points=xy", (1, 2, 56)),
    "onnx embedding": held("kind=embedding", (1, 512)),
    "callable": lambda _: vizcomp.System(grey_share, "classes"),
    "text": text("text"),
    "text that is read": text("text:read"),
}
KINDS = {
    "classes": Classes,
    "boxes": Boxes,
    "masks": Masks,
    "keypoints": Keypoints,
    "text": Text,
    "embedding": Embedding,
}

SHAPES = [(32, 32), (48, 64), (7, 120), (64, 32), (1, 1)]


@functools.cache
def opened(name: str, folder: Path) -> System:
    return SYSTEMS[name](folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("systems")


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, folder: Path) -> System:
    return opened(request.param, folder)


@pytest.fixture
def pictures(system: System) -> list[np.ndarray]:
    """Of many sizes, two for the slow ones; nobody may write into them."""
    shapes = SHAPES[1:2] + SHAPES[-1:] if system.name.startswith("text") else SHAPES
    made = [picture(seed, *shape) for seed, shape in enumerate(shapes)]
    for image in made:
        image.setflags(write=False)
    return made


def assert_alike(one: Answer, other: Answer) -> None:
    assert type(one) is type(other)
    if isinstance(one, Classes) and isinstance(other, Classes):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    if isinstance(one, Boxes) and isinstance(other, Boxes):
        np.testing.assert_allclose(one.quads, other.quads, atol=1e-3)
        assert (one.labels, one.size) == (other.labels, other.size)
    if isinstance(one, Masks) and isinstance(other, Masks):
        assert np.array_equal(one.labels, other.labels)
    if isinstance(one, Keypoints) and isinstance(other, Keypoints):
        np.testing.assert_allclose(one.points, other.points, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    if isinstance(one, Text) and isinstance(other, Text):
        assert one.lines == other.lines
    if isinstance(one, Embedding) and isinstance(other, Embedding):
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


def test_every_system_of_the_module_is_in_the_list(folder: Path) -> None:
    theirs = set()
    for file in pkgutil.iter_modules(vizcomp.vision.__path__, "vizcomp.vision."):
        module = importlib.import_module(file.name)
        theirs |= {
            c
            for _, c in inspect.getmembers(module, inspect.isclass)
            if hasattr(c, "importance") and c is not System
        }
    # ModelSystem is what files share; a TFLite file cannot be made here, making a TorchScript file
    # warns: own tests
    theirs -= {ModelSystem, TfliteSystem, TorchSystem}
    assert {type(opened(name, folder)) for name in SYSTEMS if not name.startswith("text")} | {
        TextSystem
    } == theirs


def test_it_says_who_it_is(system: System) -> None:
    assert isinstance(system, System)
    for words in (system.name, system.fingerprint):
        assert isinstance(words, str)
        assert words == words.strip() != ""
    assert system.kind in KINDS
    assert isinstance(system.classes, tuple)
    assert len(set(system.classes)) == len(system.classes)
    assert all(isinstance(name, str) and name for name in system.classes)
    assert system.native >= 0


def test_an_answer_for_each_picture_in_their_order(
    system: System, pictures: list[np.ndarray]
) -> None:
    answers = system.answers(pictures)
    assert len(answers) == len(pictures)
    assert system.answers([]) == []
    for image, answer in zip(pictures, answers, strict=True):
        assert answer.words()
        (alone,) = system.answers([image])
        assert_alike(answer, alone)
    for answer, again in zip(answers[::-1], system.answers(pictures[::-1]), strict=True):
        assert_alike(answer, again)


def test_answers_are_well_formed(system: System, pictures: list[np.ndarray]) -> None:
    for image, answer in zip(pictures, system.answers(pictures), strict=True):
        assert isinstance(answer, KINDS[system.kind])
        height, width = image.shape[:2]
        if isinstance(answer, Classes):
            assert answer.probabilities.dtype == np.float32
            assert answer.probabilities.ndim == 1
            assert answer.probabilities.min() >= 0
            assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert answer.names == system.classes
            assert not answer.names or len(answer.names) == len(answer.probabilities)
        if isinstance(answer, Masks):
            assert answer.labels.dtype == np.int32
            assert answer.labels.shape == (height, width)
        if isinstance(answer, Embedding):
            assert answer.vector.dtype == np.float32
            assert answer.vector.ndim == 1
        if isinstance(answer, Boxes | Keypoints | Text):
            assert answer.quads.dtype == np.float64
            assert answer.quads.shape == (len(answer.quads), 4, 2)
            assert np.isfinite(answer.quads).all()
            assert answer.size == (width, height)
        if isinstance(answer, Keypoints):
            assert answer.points.shape == (len(answer.quads), answer.scores.shape[1], 2)
            assert (answer.scores >= answer.least).any(1).all()
        if isinstance(answer, Text):
            assert len(answer.lines) == len(answer.quads)
            assert all(line.strip() for line in answer.lines)
        if isinstance(answer, Boxes):
            assert len(answer.labels) in (
                (0, len(answer.quads)) if not system.classes else (len(answer.quads),)
            )


def test_pictures_are_left_alone_and_answers_stay(
    system: System, pictures: list[np.ndarray]
) -> None:
    before = [image.copy() for image in pictures]
    first = system.answers(pictures)
    maps = [system.importance(image) for image in pictures]
    for answer, again in zip(first, system.answers(pictures), strict=True):
        assert_alike(answer, again)
    for found, image in zip(maps, pictures, strict=True):
        np.testing.assert_allclose(found, system.importance(image), atol=1e-5)
    assert all(map(np.array_equal, before, pictures))


def test_importance_is_a_map_in_0_to_1(system: System, pictures: list[np.ndarray]) -> None:
    for image in pictures:
        found = system.importance(image)
        assert found.dtype == np.float32
        assert found.ndim == 2
        assert found.size > 0
        assert np.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1


def test_an_answer_is_the_same_as_itself(system: System, pictures: list[np.ndarray]) -> None:
    for answer in system.answers(pictures):
        found = compare(answer, answer, where=True)
        assert found.same
        assert found.score == pytest.approx(1)
        assert found.unlike is None or len(found.unlike) == 0
        assert is_empty(answer) == (
            isinstance(answer, Boxes | Keypoints | Text) and len(answer.quads) == 0
        )


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_opened_again_has_the_same_fingerprint(name: str, folder: Path) -> None:
    one, other = opened(name, folder), SYSTEMS[name](folder)
    assert one is not other
    assert (one.name, one.fingerprint, one.classes) == (
        other.name,
        other.fingerprint,
        other.classes,
    )
