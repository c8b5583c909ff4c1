"""Codecs trained through anybody's classifier, at any size."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vizcomp.errors import InputError, ModelError, SettingsError
from vizcomp.neural.codec import NeuralCodec
from vizcomp.training import codec_data
from vizcomp.training.classifier import ClassifierTask, ClassifierTrainSettings
from vizcomp.training.codec import CodecTask
from vizcomp.training.codec_scores import class_numbers
from vizcomp.training.codec_settings import CodecTrainSettings
from vizcomp.training.curves import curves_svg
from vizcomp.training.frozen import FrozenClassifier, open_frozen
from vizcomp.training.loop import train
from vizcomp.training.pictures import Pictures, read_pictures
from vizcomp.training.processes import open_processes

SIDE = 64
COLOURS = {
    "blue": (20, 40, 200),
    "green": (30, 190, 40),
    "grey": (128, 128, 128),
    "red": (210, 30, 30),
}
SMALL = {"preset": "cifar", "width": 0.08, "bits": [2, 3]}
OWN = '''
import torch
from torch import nn


class Means(nn.Module):
    """Four classes by the mean colour; the ResNets of torchvision have such a head."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def build():
    torch.manual_seed(0)
    return Means()


def broken():
    raise OSError("no weights here\\nat all")


def number():
    return 4
'''


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of 64x64 pictures, with a validation part of their own."""
    folder = tmp_path_factory.mktemp("four")
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 3)):
        for name, colour in COLOURS.items():
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(
                    np.array(colour) + rng.integers(-20, 20, (SIDE, SIDE, 3)), 0, 255
                ).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`package.module:function` of a module in the working directory."""
    (tmp_path / "own_classifier.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_classifier", raising=False)
    return "own_classifier:build"


def settings(folder: Path, **changes: object) -> CodecTrainSettings:
    values = {
        "data": str(folder),
        "network": SMALL,
        "side": SIDE,
        "steps": 6,
        "batch": 8,
        "ramp": (0.0, 0.1),
        "device": "cpu",
    }
    return CodecTrainSettings(**{**values, **changes})  # type: ignore[arg-type]


def grey(side: int = SIDE) -> torch.Tensor:
    return torch.full((3, 3, side, side), 0.5)


def test_four_classes_at_64_and_the_file_alone(four: Path, own: str, tmp_path: Path) -> None:
    result = train(
        CodecTask, settings(four, classifier=own, judge="watcher", contexts=False), tmp_path / "run"
    )
    assert {
        "psnr at 2",
        "bits at 1",
        "accuracy at 2",
        "accuracy on sources",
        "judge agrees at 2",
    } <= result.figures.keys()
    assert result.figures["bits at 1"] == 2 * (SIDE // 8) ** 2
    code = (  # a colleague: the file, and nothing of the classifier
        "import sys, numpy as np; from vizcomp.neural.codec import NeuralCodec\ncodec ="
        " NeuralCodec.load(sys.argv[1]); image = np.full((64, 64, 3), 90, np.uint8)\nassert"
        " codec.decode(codec.encode(image)).image.shape == image.shape; assert 'own_classifier' not"
        " in sys.modules\nprint(codec.words['trained_through'], codec.words['classifier'] or"
        " 'none')"
    )
    model = tmp_path / "run" / "model.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", code, model], capture_output=True, text=True, cwd=tmp_path.parent
    )
    assert done.stdout.split() == [own, "none"], done.stderr


def test_features_of_own_networks(own: str, four: Path, tmp_path: Path) -> None:
    """`--features`, as often as wanted, with or without a classifier whose answer counts."""
    from typer.testing import CliRunner

    from vizcomp.cli import app

    line = ["train", "--data", str(four), "--side", "64", "--set", "steps=2", "--set", "batch=4"]
    line += ["--set", "width=0.08", "--set", "contexts=false", "--set", "ramp=[0, 0]"]
    given = ["--features", own, "--features", "watcher"]
    result = CliRunner().invoke(app, [*line, *given, "-o", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    words = json.loads((tmp_path / "run" / "model.json").read_text("utf-8"))
    assert words["settings"]["features"] == [own, "watcher"]
    assert words["trained_through"] == ""
    last = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()[-1]
    assert 0 < json.loads(last)["features"] < 4
    result = CliRunner().invoke(app, [*line, "--features", "no.pt", "-o", str(tmp_path / "other")])
    assert isinstance(result.exception, ModelError)
    result = CliRunner().invoke(
        app, ["train", "--kind", "classifier", "--data", str(four), "--features", "watcher"]
    )
    assert "`features` does not go with this kind" in str(result.exception)


def test_a_shipped_classifier_is_named_in_the_file(four: Path, tmp_path: Path) -> None:
    train(
        CodecTask, settings(four, classifier="watcher", side=32, contexts=False), tmp_path / "run"
    )
    trained = NeuralCodec.load(tmp_path / "run" / "model.safetensors")
    assert trained.words["classifier"] == "watcher"
    assert trained.config.given == 10
    assert "60 of 60 pictures resized to 32x32" in trained.words["data"]


@pytest.mark.parametrize("suffix", [".pt", ".torchscript", ".pt2"])
def test_torchscript_and_exported_programs(own: str, tmp_path: Path, suffix: str) -> None:
    module = open_frozen(own, SIDE).module
    path = tmp_path / f"own{suffix}"
    if suffix == ".pt2":
        batch = torch.export.Dim("batch", min=1)
        torch.export.save(
            torch.export.export(module, (grey(),), dynamic_shapes=({0: batch},)), path
        )
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; people have it
            torch.jit.trace(module, grey()).save(str(path))
    frozen = open_frozen(str(path), SIDE)
    frozen.train()
    assert frozen.count == 4
    torch.testing.assert_close(frozen(grey()), module(grey()))


def test_options_say_what_a_module_expects(own: str) -> None:
    plain = open_frozen(own, SIDE).module
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    )
    frozen = open_frozen(f"{own}:norm=imagenet,size=96,order=BGR", SIDE)
    images = torch.rand(2, 3, SIDE, SIDE)
    larger = nn.functional.interpolate(images, (96, 96), mode="bilinear", antialias=True)
    torch.testing.assert_close(frozen(images), plain((larger.flip(1) - mean) / std))


class _Odd(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> object:
        logits = x.mean((2, 3))
        match self.kind:
            case "tuple":
                return logits, None
            case "dict":
                return {"logits": logits}
            case "one number":
                return logits[:, :1]
            case "a map":
                return x
            case "nothing":
                return None
            case "not finite":
                return logits / 0
            case "no gradient":
                return logits.detach()
        raise RuntimeError("expects 224\nand more")


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_answers_that_hold_logits(kind: str) -> None:
    assert FrozenClassifier("x", _Odd(kind), SIDE).count == 3


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("one number", "answers two pictures with"),
        ("a map", "answers two pictures with"),
        ("nothing", "answers two pictures with a NoneType"),
        ("not finite", "not finite"),
        ("no gradient", "gives no gradients"),
        ("fails", "fails on pictures of 64x64: expects 224"),
    ],
)
def test_what_is_no_classifier_is_refused(kind: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        FrozenClassifier("x", _Odd(kind), SIDE)


def test_names_that_give_no_classifier(own: str, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"no archive")
    (tmp_path / "state.pt2").write_bytes(b"no archive")
    for name, said in (
        ("own_classifier:broken", "OSError: no weights here"),
        ("own_classifier:number", "returns a int, no torch module"),
        ("own_classifier:missing", "AttributeError"),
        ("not_there_at_all:build", "ModuleNotFoundError"),
        ("state.pt", "cannot be read as a TorchScript module"),
        ("state.pt2", "cannot be read as a program"),
        ("none.pt", "there is no classifier none.pt"),
    ):
        with pytest.raises(ModelError, match=said):
            open_frozen(name, SIDE)
    with pytest.raises(SettingsError, match="detector= says nothing"):
        open_frozen(f"{own}:detector=yolox", SIDE)


def test_another_number_of_classes(four: Path, own: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has 10 classes, the data 4"):
        train(CodecTask, settings(four, classifier="watcher", task="ce"), tmp_path / "a")
    with pytest.raises(SettingsError, match="cannot be told"):
        train(
            CodecTask, settings(four, classifier=own, network={**SMALL, "given": 4}), tmp_path / "b"
        )
    with pytest.raises(SettingsError, match="given is 4, and watcher has 10"):
        train(
            CodecTask,
            settings(four, classifier="watcher", network={**SMALL, "given": 4}),
            tmp_path / "c",
        )
    result = train(CodecTask, settings(four, classifier="watcher", contexts=False), tmp_path / "d")
    assert {"agreement at 1", "agreement at 2"} <= result.figures.keys()
    assert not any(name.startswith("accuracy") for name in result.figures)


def _pictures(four: Path, **changes: object) -> Pictures:
    values = {
        "side": SIDE,
        "exact": True,
        "validation": 0.1,
        "seed": 0,
        "batch": 4,
        "device": torch.device("cpu"),
        **changes,
    }
    return read_pictures(four, **values)  # type: ignore[arg-type]


def test_classes_meet_by_name(four: Path, own: str) -> None:
    frozen = open_frozen(own, SIDE)
    frozen.classes = ("red", "grey", "green", "blue")
    numbers = class_numbers(_pictures(four), frozen)
    assert numbers is not None
    assert numbers.tolist() == [3, 2, 1, 0]
    frozen.classes = ("a", "b", "c", "d")
    numbers = class_numbers(_pictures(four), frozen)
    assert numbers is not None
    assert numbers.tolist() == [0, 1, 2, 3]


def test_a_validation_part_is_honoured(four: Path) -> None:
    pictures = _pictures(four)
    assert (
        len(pictures.images),
        len(pictures.train),
        len(pictures.held_images),
        len(pictures.held),
    ) == (48, 48, 12, 12)
    alone = read_pictures(
        four / "train",
        side=SIDE,
        exact=True,
        validation=0.25,
        seed=0,
        batch=4,
        device=torch.device("cpu"),
    )
    assert (len(alone.train), len(alone.held)) == (36, 12)


def test_nothing_is_resized_in_silence(four: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"0\.png: a picture of 64x64 pixels among training data for 32x32"
    ):
        train(CodecTask, settings(four, side=0, task_weight=0), tmp_path / "codec")
    plain = {
        "data": str(four),
        "architecture": "watcher",
        "network": {"channels": [8, 8, 8]},
        "epochs": 1,
        "batch": 8,
    }
    with pytest.raises(InputError, match="64x64 pixels"):
        train(ClassifierTask, ClassifierTrainSettings(**plain, device="cpu"), tmp_path / "a")  # type: ignore[arg-type]
    made = train(
        ClassifierTask, ClassifierTrainSettings(**plain, device="cpu", side=64), tmp_path / "b"
    )  # type: ignore[arg-type]
    assert "accuracy" in made.figures
    with pytest.raises(SettingsError, match="side 36 is no multiple of the block, 8"):
        settings(four, side=36)


def test_pictures_beyond_memory_lie_in_a_file(four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = _pictures(four)
    monkeypatch.setattr("vizcomp.datasets.labelled.IN_MEMORY", 1000)
    assert torch.equal(_pictures(four).images, held.images)


def test_photos_beyond_memory_are_read_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    (tmp_path / "8.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    monkeypatch.setattr(codec_data, "IN_MEMORY", 3 * 40 * 48 * 3)
    monkeypatch.setattr(codec_data, "STAYS", 2)
    network = {"preset": "photo", "width": 0.1, "bits": [2]}
    s = CodecTrainSettings(
        data=str(tmp_path), network=network, batch=2, crop=32, validation=0.2, device="cpu"
    )
    with open_processes("cpu") as processes:
        whole, late = codec_data.PhotoData(s, processes), codec_data.PhotoData(s, processes)
        seen = set()
        for step in range(20):
            photos = whole._photos(step)
            assert 1 <= len(photos) <= 4
            seen |= {photo.numpy().tobytes() for photo in photos}
        assert len(seen) >= 6  # the part moves over all that are trained on
        # as of a resumed run
        assert [p.sum() for p in late._photos(19)] == [p.sum() for p in whole._photos(19)]
        assert whole.batch(3)[0].shape == (2, 3, 32, 32)
    assert [name for name, _ in whole.skipped] == [str(tmp_path / "8.png")]


def test_curves_of_a_run_that_rounds_to_no_epoch() -> None:
    """Two steps of an epoch of 6,000 are 0.000 of it."""
    records = [{"step": 2, "epoch": 0.0, "reconstruction": 1.5, "validation": {"psnr at 1": 9.0}}]
    assert "psnr at 1" in curves_svg(records)
