"""Training of the codec of small pictures in their spectrum: both parts, resuming, refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vizcomp.errors import ModelError, SettingsError, TrainingError
from vizcomp.neural.codec import NeuralCodec

torch = pytest.importorskip("torch")

from vizcomp.training import loop  # noqa: E402
from vizcomp.training.features import (  # noqa: E402
    Features,
    apart,
    open_features,
    seen_apart,
)
from vizcomp.training.frozen import open_frozen  # noqa: E402
from vizcomp.training.loop import train  # noqa: E402
from vizcomp.training.losses import Guesser  # noqa: E402
from vizcomp.training.metric import metric_of  # noqa: E402
from vizcomp.training.processes import Processes  # noqa: E402
from vizcomp.training.spectral import SpectralTask, SpectralTrainSettings  # noqa: E402

NETWORK: dict[str, Any] = {
    "native": 16,
    "zones": [8, 4, 3],
    "encoder": 6,
    "decoder": 7,
    "steps": [2.0, 1.0],
    "finish": [8, 12],
}


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of smooth pictures of 16x16, dark and light."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] / 16
    for name, base in (("dark", 20), ("light", 150)):
        (folder / name).mkdir()
        for i in range(60):
            slope = rng.uniform(-60, 60, (2, 3))
            pixels = (
                base
                + 40
                + y[..., None] * slope[0]
                + x[..., None] * slope[1]
                + rng.normal(0, 4, (16, 16, 3))
            )
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
                folder / name / f"{i:02}.png"
            )
    return folder


def settings(classes: Path, **changes: object) -> SpectralTrainSettings:
    values: dict[str, Any] = {
        "data": str(classes),
        "network": NETWORK,
        "steps": 6,
        "batch": 16,
        "device": "cpu",
    }
    values |= {"prices": (0.007, 0.003), "drawn": (0.5, 0.5), "contexts": False, "validation": 0.2}
    return SpectralTrainSettings(**{**values, **changes})


def bits_left(path: Path) -> float:
    codec = NeuralCodec.load(path, threads=1)
    images = np.full((4, 16, 16, 3), 90, np.uint8)
    return float(np.mean([len(p) for p in codec.payloads(images, iterations=2)]))


def test_both_parts(classes: Path, tmp_path: Path) -> None:
    first = train(SpectralTask, settings(classes, contexts=True), tmp_path / "codec")
    path = tmp_path / "codec" / "model.safetensors"
    words = json.loads((tmp_path / "codec" / "model.json").read_text("utf-8"))
    assert words["network"]["ladders"][0][0][1] > 2  # made of the pictures
    assert first.figures["psnr at 2"] > first.figures["psnr at 1"] > 20
    assert first.figures["bits at 2"] > first.figures["bits at 1"] > 0
    codec = NeuralCodec.load(path, threads=1)
    assert bits_left(path) < sum(codec.config.bits) / 8

    # the last network alone, in the eyes of a classifier; the rest stays, but for the steps
    finer = {**NETWORK, "steps": [1.5, 0.8]}
    more = settings(
        classes,
        network=finer,
        trained="finish",
        start=str(path),
        classifier="watcher",
        average=0.0,
        learning_rate=0.01,
    )
    train(SpectralTask, more, tmp_path / "finish")
    again = NeuralCodec.load(tmp_path / "finish" / "model.safetensors", threads=1)
    assert again.config.steps == (1.5, 0.8)
    assert again.config.ladders == codec.config.ladders
    changed = [
        name
        for name, value in codec.weights.items()
        if not np.array_equal(value, again.weights[name])
    ]
    assert changed
    assert all(name.startswith("finish.") for name in changed)
    assert again.fingerprint != codec.fingerprint
    metrics = [
        json.loads(line)
        for line in (tmp_path / "finish" / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    assert {"error", "answer", "features"} <= set(metrics[-1])


class _Stop:
    """Presses Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, progress: Any) -> None:
        if progress.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_the_same_seed_gives_the_same_weights(classes: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(SpectralTask, settings(classes), tmp_path / name)
    one, other = (
        NeuralCodec.load(tmp_path / name / "model.safetensors").weights for name in ("a", "b")
    )
    assert all(np.array_equal(value, other[name]) for name, value in one.items())


def test_both_parts_go_on_bit_for_bit(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after any step and resumed, a run ends with the weights of one that was not."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", -1.0)  # after every step
    # 96 pictures of 16 a batch: six steps are an epoch, so the stop at eight lies inside the second
    first = settings(classes, steps=10)
    train(SpectralTask, first, tmp_path / "whole")
    second = settings(
        classes,
        steps=4,
        trained="finish",
        classifier="watcher",
        start=str(tmp_path / "whole" / "model.safetensors"),
    )
    train(SpectralTask, second, tmp_path / "finish")
    for whole, part, asked, stop in (
        ("whole", "parts", first, 8),
        ("finish", "finish in parts", second, 2),
    ):
        with pytest.raises(KeyboardInterrupt):
            train(SpectralTask, asked, tmp_path / part, on_progress=_Stop(stop))
        train(SpectralTask, asked, tmp_path / part, resume=True)
        one, other = (
            NeuralCodec.load(tmp_path / name / "model.safetensors") for name in (whole, part)
        )
        assert one.weights.keys() == other.weights.keys()
        for name, value in one.weights.items():
            np.testing.assert_array_equal(value, other.weights[name], name)
        assert one.config == other.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prices": (0.1,)}, "prices"),
        ({"drawn": (0, 0)}, "drawn"),
        ({"trained": "all"}, "trained"),
        ({"trained": "finish"}, "needs a trained codec"),
        ({"classifier": "watcher"}, "the last network alone"),
        ({"features": ("watcher",)}, "omit `features`|the last network alone"),
        ({"features": ("",)}, "is no name"),
        ({"seen_from": 3}, "seen_from"),
        ({"batch": 0}, "batch"),
        ({"network": {**NETWORK, "zones": [8]}}, "zones"),
        ({"network": {**NETWORK, "preset": "cifar"}}, "preset"),
    ],
)
def test_settings_that_cannot_be(classes: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(classes, **changes)


def test_another_network_is_no_start(classes: Path, tmp_path: Path) -> None:
    train(SpectralTask, settings(classes), tmp_path / "codec")
    start = str(tmp_path / "codec" / "model.safetensors")
    with pytest.raises(TrainingError, match="another network: encoder"):
        train(
            SpectralTask,
            settings(classes, network={**NETWORK, "encoder": 8}, start=start),
            tmp_path / "other",
        )


def test_the_command_line_knows_it(classes: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vizcomp.cli import app

    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'kind = "codec"\nsteps = 2\nbatch = 16\ncontexts = false\nprices = [0.007, 0.003]\ndrawn ='
        " [1, 1]\n\n[network]\nnative = 16\nzones = [8, 4, 3]\nsteps = [2.0, 1.0]\nencoder ="
        " 4\ndecoder = 4\nfinish = []\n"
    )
    result = CliRunner().invoke(
        app, ["train", "--recipe", str(recipe), "--data", str(classes), "-o", str(tmp_path / "run")]
    )
    assert result.exit_code == 0, result.output
    assert NeuralCodec.load(tmp_path / "run" / "model.safetensors").native == 16


def test_features_of_any_convolutional_module() -> None:
    frozen = open_frozen("watcher", 32)
    eyes = Features(frozen, 32)
    images = torch.rand(3, 3, 32, 32)
    logits, found = eyes(images)
    assert logits.shape == (3, 10)
    assert len(found) == eyes.count == 5
    assert torch.allclose(apart(found, found), torch.zeros(3))
    other = eyes((images + 0.2 * torch.rand_like(images)).clamp(0, 1).requires_grad_())[1]
    far = apart(other, found)
    assert (far > 0).all()
    far.sum().backward()
    assert Features(torch.nn.Flatten(), 32).count == 0


class _Two(torch.nn.Module):
    """Looks at a picture, and at its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.conv(x)
        return first.mean((2, 3)) + self.conv(x[:1].flip(3)).mean((2, 3))


def test_a_second_look_does_not_hide_the_first() -> None:
    """`inception` looks again at pictures it is unsure of: features are of all, in their order."""
    network = _Two()
    images = torch.rand(3, 3, 8, 8)
    _, (found,) = Features(network, 8)(images)
    assert torch.equal(found, network.conv(images))


def test_a_loud_depth_counts_no_more_than_another() -> None:
    one, other = [torch.rand(2, 4, 5, 5)], [torch.rand(2, 4, 5, 5)]
    once = apart(one, other)
    assert torch.allclose(apart([100 * one[0]], [100 * other[0]]), once, atol=1e-4)
    assert torch.allclose(apart(one * 2, other * 2), once)


def test_features_of_several_networks(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean over networks and depths; they act on the iterations that they are shown alone, and
    where nothing is left out they draw the picture to what they see."""
    (tmp_path / "seers.py").write_text(
        "import torch\n\n\ndef one():\n    torch.manual_seed(1)\n    return torch.nn.Sequential("
        "torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),"
        " torch.nn.Flatten(), torch.nn.Linear(6, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    opened = open_features(["watcher", "seers:one"], 16, torch.device("cpu"))
    image, source = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    both = seen_apart(opened, image, source)
    each = [seen_apart([one], image, source) for one in opened]
    assert torch.allclose(both, (each[0] + each[1]) / 2)
    assert torch.allclose(seen_apart(opened, source, source), torch.zeros(2))

    train(SpectralTask, settings(classes), tmp_path / "codec")
    values = {
        "trained": "finish",
        "start": str(tmp_path / "codec" / "model.safetensors"),
        "features": ("seers:one",),
        "average": 0.0,
        "learning_rate": 0.01,
    }
    found = {}
    for weight in (0.0, 20.0):
        run = tmp_path / f"finish {weight:g}"
        train(SpectralTask, settings(classes, feature_weight=weight, **values), run)
        found[weight] = json.loads((run / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
        assert json.loads((run / "model.json").read_text("utf-8"))["settings"]["features"] == [
            "seers:one"
        ]
    assert found[20.0]["features"] < found[0.0]["features"]
    # none of a batch is of the second iteration
    run = tmp_path / "none"
    train(SpectralTask, settings(classes, drawn=(1, 0), seen_from=2, **values), run)
    last = json.loads((run / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    assert "features" not in last


def test_what_networks_see_acts_on_the_bits_too(classes: Path, tmp_path: Path) -> None:
    """Both parts at once, after the estimate of bits has learned alone."""
    train(SpectralTask, settings(classes), tmp_path / "codec")
    start = tmp_path / "codec" / "model.safetensors"
    asked = settings(
        classes,
        trained="all",
        start=str(start),
        features=("watcher",),
        guessing=2,
        average=0.0,
        learning_rate=0.01,
    )
    train(SpectralTask, asked, tmp_path / "all")
    one, other = (
        NeuralCodec.load(path).weights for path in (start, tmp_path / "all" / "model.safetensors")
    )
    changed = {name for name, value in one.items() if not np.array_equal(value, other[name])}
    assert any(name.startswith("finish.") for name in changed)
    assert {"encoder.input.weight", "binarizers.0.bias", "entrances.1.step"} <= changed
    last = (tmp_path / "all" / "metrics.jsonl").read_text("utf-8").splitlines()[-1]
    assert {"bits at 2", "error", "features"} <= set(json.loads(last))
    bare = settings(classes, network={**NETWORK, "finish": []}, steps=1)
    train(SpectralTask, bare, tmp_path / "bare")
    start = tmp_path / "bare" / "model.safetensors"
    both = dataclasses.replace(bare, trained="all", start=str(start))
    with pytest.raises(SettingsError, match="no last network"):
        train(SpectralTask, both, tmp_path / "none")


def test_networks_without_features_are_refused(tmp_path: Path) -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(tmp_path / "closed.pt"))
    with pytest.raises(ModelError, match="no convolutions that can be reached"):
        open_features([str(tmp_path / "closed.pt")], 4, torch.device("cpu"))


def test_going_on_begins_with_the_estimate_of_bits(classes: Path, tmp_path: Path) -> None:
    train(SpectralTask, settings(classes), tmp_path / "codec")
    start = tmp_path / "codec" / "model.safetensors"
    held = settings(classes, start=str(start), guessing=6, average=0.0)
    train(SpectralTask, held, tmp_path / "held")
    one, other = (
        NeuralCodec.load(path).weights for path in (start, tmp_path / "held" / "model.safetensors")
    )
    assert all(np.array_equal(value, other[name]) for name, value in one.items())


def test_a_guesser_learns_what_bits_have_in_common() -> None:
    torch.manual_seed(0)
    guesser = Guesser(6)
    optimiser = torch.optim.Adam(guesser.parameters(), 0.1)
    first = torch.randint(0, 2, (400, 3)) * 2.0 - 1
    codes = [first, -first]
    for _ in range(60):
        optimiser.zero_grad()
        guesser(codes).sum().backward()
        optimiser.step()
    costs = guesser(codes)
    assert costs[:3].min() > 0.9
    assert costs[3:].max() < 0.2
    assert guesser(codes[:1]).shape == (3,)


def test_a_metric_weighs_the_errors_of_later_iterations(classes: Path, tmp_path: Path) -> None:
    task = SpectralTask(settings(classes), Processes(torch.device("cpu")))
    count = task.config.components
    odd = np.eye(count, dtype=np.float32)
    odd[0, 0] = 9.0
    np.save(tmp_path / "odd.npy", odd)
    asked = {"metric": str(tmp_path / "odd.npy"), "power": 1.0}
    # a difference counts as the matrix says: three times as long along the first axis
    found = metric_of(tmp_path / "odd.npy", count, 1.0)
    np.testing.assert_allclose(found.diagonal()[:2], [3, 1], atol=1e-5)
    np.testing.assert_allclose(
        metric_of(tmp_path / "odd.npy", count, 0.0), np.eye(count), atol=1e-5
    )

    def losses(**changes: object) -> list[float]:
        task = SpectralTask(
            settings(classes, guessing=9, **changes), Processes(torch.device("cpu"))
        )
        source, _ = task.data.batch(0)
        found, codes = task.model(source, 2)
        return [float(task._codec_loss(source, found[:n], codes[:n])[0].detach()) for n in (1, 2)]

    alike, late = losses(), losses(**asked, seen_from=2)
    assert late[0] == alike[0]  # the first iteration is for the squared error alone
    assert late[1] != alike[1]
    assert losses(**asked)[0] != alike[0]
    train(SpectralTask, settings(classes, **asked, steps=2), tmp_path / "run")
    words = json.loads((tmp_path / "run" / "model.json").read_text("utf-8"))
    assert words["settings"]["metric"] == "odd.npy"  # no path of this machine


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.eye(3, dtype=np.float32), "is no matrix of"),
        (np.full((0, 0), 1.0), "is no matrix of"),
        (None, "metric"),
        ("skewed", "not symmetric"),
        ("empty", "or zero"),
    ],
)
def test_a_file_that_is_no_metric_is_refused(
    classes: Path, tmp_path: Path, matrix: object, words: str
) -> None:
    path = tmp_path / "metric.npy"
    count = SpectralTask(settings(classes), Processes(torch.device("cpu"))).config.components
    if matrix is None:
        path.write_text("no matrix")
    elif isinstance(matrix, str):
        skewed = np.triu(np.ones((count, count))) if matrix == "skewed" else np.zeros((count,) * 2)
        np.save(path, skewed)
    else:
        np.save(path, matrix)
    with pytest.raises(TrainingError, match=words):
        SpectralTask(settings(classes, metric=str(path)), Processes(torch.device("cpu")))


def test_axes_in_the_eyes_of_a_metric(classes: Path, tmp_path: Path) -> None:
    plain = SpectralTask(settings(classes), Processes(torch.device("cpu"))).model
    count = plain.config.components
    weights = np.ones(count, dtype=np.float32)
    weights[-1] = 1e6  # the last number of the transform counts more than anything
    np.save(tmp_path / "metric.npy", np.diag(weights))
    asked = {"metric": str(tmp_path / "metric.npy"), "power": 1.0}
    based = settings(classes, **asked, based=True)
    model = SpectralTask(based, Processes(torch.device("cpu"))).model
    first = model.stem.weight[0].detach().abs()
    assert first.argmax() == count - 1  # and is the first axis
    assert plain.stem.weight[0].detach().abs().argmax() != count - 1
    pictures = torch.rand(3, 3, 16, 16) * 2 - 1
    numbers = pictures.flatten(1) @ model.spectrum.T
    with torch.no_grad():  # nothing is lost, though the axes are not orthogonal
        again = model.exit(model.components(pictures))
    torch.testing.assert_close(again, numbers, atol=1e-3, rtol=1e-3)
    # without `based` it weighs errors alone
    alike = SpectralTask(settings(classes, **asked), Processes(torch.device("cpu"))).model
    torch.testing.assert_close(alike.stem.weight, plain.stem.weight)
