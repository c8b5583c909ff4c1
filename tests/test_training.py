"""Training of classifiers and codecs: the loop, the losses, the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from vizcomp.errors import SettingsError, TrainingError  # noqa: E402
from vizcomp.neural import NeuralCodec  # noqa: E402
from vizcomp.training import codec, loop  # noqa: E402
from vizcomp.training.classifier import ClassifierTrainSettings, corrupted, shifted_and_flipped, train_classifier  # noqa: E402
from vizcomp.training.codec import CodecTrainSettings, divergence, ms_ssim_loss, train_codec  # noqa: E402

TINY = {"preset": "cifar", "width": 0.08, "bits": [2, 3], "given": 0}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in colour: 40 pictures each, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for name, base in (("dark", 20), ("light", 150)):
        (folder / name).mkdir()
        for i in range(40):
            pixels = (base + rng.integers(0, 80, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    (folder / "light" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return folder


def classifier_settings(classes: Path, **changes: object) -> ClassifierTrainSettings:
    values = {"data": str(classes), "architecture": "watcher", "network": {"channels": [8, 8, 8]}, "epochs": 4, "batch": 16}
    return ClassifierTrainSettings(**{**values, "device": "cpu", "learning_rate": 0.05, **changes})  # type: ignore[arg-type]


def codec_settings(classes: Path, **changes: object) -> CodecTrainSettings:
    values = {"data": str(classes), "network": TINY, "steps": 8, "batch": 16, "task_weight": 0.0, "contexts": False}
    return CodecTrainSettings(**{**values, "device": "cpu", **changes})  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    mine, others = weights(a), weights(b)
    return mine.keys() == others.keys() and all(torch.equal(mine[k], others[k]) for k in mine)


def test_a_classifier_learns_and_writes_its_run(classes: Path, tmp_path: Path) -> None:
    seen: list[loop.Progress] = []
    result = train_classifier(classifier_settings(classes, epochs=16, average=0.5), tmp_path, on_progress=seen.append)
    assert result.figures["accuracy"] == 1.0  # a colour is easy
    assert seen[-1].figures["loss"] < seen[0].figures["loss"]
    assert [name for name, _ in result.skipped] == ["light/broken.png"]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == list(range(1, 17))
    ElementTree.parse(tmp_path / "curves.svg")
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["classes"] == ["dark", "light"]
    assert about["pictures"]["validation"] == 8


class _Stop:
    """Presses Ctrl-C once, after some reports."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, _: loop.Progress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), 2)


def test_a_stopped_classifier_goes_on_bit_for_bit(classes: Path, tmp_path: Path) -> None:
    settings = classifier_settings(classes)
    train_classifier(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_classifier(settings, tmp_path / "parts", on_progress=_Stop(2))
    train_classifier(settings, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts")
    train_classifier(settings, tmp_path / "parts", resume=True)  # a finished run writes its result again
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_a_stopped_codec_goes_on_bit_for_bit(classes: Path, tmp_path: Path) -> None:
    settings = codec_settings(classes)
    train_codec(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_codec(settings, tmp_path / "parts", on_progress=_Stop(1))
    train_codec(settings, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_a_codec_learns_through_a_classifier_and_can_be_used(classes: Path, tmp_path: Path) -> None:
    train_classifier(classifier_settings(classes), tmp_path / "seer")
    seer = str(tmp_path / "seer" / "model.safetensors")
    network = {**TINY, "given": 2}
    settings = codec_settings(
        classes, classifier=seer, task_weight=0.05, network=network, steps=40, ramp=(0.0, 0.1), contexts=True
    )
    seen: list[loop.Progress] = []
    result = train_codec(settings, tmp_path / "run", on_progress=seen.append)
    assert seen[-1].figures["reconstruction"] < seen[0].figures["reconstruction"]
    assert "task" in seen[-1].figures
    assert {"psnr at 1", "accuracy at 2", "accuracy on sources"} <= result.figures.keys()
    trained = NeuralCodec.load(tmp_path / "run" / "model.safetensors")
    image = np.asarray(Image.open(classes / "dark" / "00.png"))
    data = trained.encode(image, search=4)
    assert trained.decode(data).image.shape == (32, 32, 3)
    assert len(data) <= 13 + 3 + -(-5 * 16 // 8) + 1


def test_a_codec_learns_from_photos(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(4):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        small.resize((80, 64), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{i}.png")
    network = {"preset": "photo", "width": 0.1, "bits": [2, 2]}
    settings = CodecTrainSettings(
        data=str(tmp_path / "photos"), network=network, steps=6, batch=4, crop=32, task_weight=0, reconstruction="ms-ssim",
        validation=0.25, contexts=False, device="cpu",
    )  # fmt: skip
    result = train_codec(settings, tmp_path / "run")
    assert {"psnr at 2", "ms_ssim at 1"} <= result.figures.keys()


def test_a_loss_that_is_not_finite_ends_the_run(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = codec.reconstruction_loss
    calls = []

    def breaking(kind: str, found: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        calls.append(kind)
        return real(kind, found, source) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(codec, "reconstruction_loss", breaking)
    with pytest.raises(TrainingError, match="not finite"):
        train_codec(codec_settings(classes), tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_what_cannot_go_on_says_so(classes: Path, tmp_path: Path) -> None:
    settings = classifier_settings(classes, epochs=1)
    train_classifier(settings, tmp_path / "run")
    with pytest.raises(SettingsError, match="holds a run already"):
        train_classifier(settings, tmp_path / "run")
    with pytest.raises(SettingsError, match="another epochs"):
        train_classifier(classifier_settings(classes, epochs=2), tmp_path / "run", resume=True)
    with pytest.raises(SettingsError, match="nothing to resume"):
        train_classifier(settings, tmp_path / "none", resume=True)
    (tmp_path / "run" / loop.CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be read"):
        train_classifier(settings, tmp_path / "run", resume=True)
    for wrong in ({"epochs": 0}, {"architecture": "vgg"}, {"corrupt": 2}):
        with pytest.raises(SettingsError):
            classifier_settings(classes, **wrong)
    for wrong in ({"task": "guess"}, {"ramp": (0.5, 0.1)}, {"network": {"width": -1}}):
        with pytest.raises(SettingsError):
            codec_settings(classes, **wrong)


def test_views_move_and_flip_whole_pictures() -> None:
    torch.manual_seed(0)
    rows = torch.arange(8.0).view(1, 1, 8, 1).expand(200, 1, 8, 8)
    columns = torch.arange(8.0).view(1, 1, 1, 8).expand(200, 1, 8, 8)
    moved = shifted_and_flipped(torch.cat([rows, columns, rows], 1), 2)
    assert torch.equal(moved[:, 0], moved[:, 2])
    inner = moved[:, 1, :, 3] - moved[:, 1, :, 4]
    flipped = inner[:, 0] > 0
    assert 60 < int(flipped.sum()) < 140
    assert set(inner.abs().flatten().tolist()) == {1.0}  # columns keep their order or turn it round, whole
    assert set((moved[:, 0, 4, 0] - moved[:, 0, 3, 0]).tolist()) == {1.0}
    assert set(moved[:, 0, 4, 0].tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0}
    assert torch.equal(shifted_and_flipped(columns[:1].flip(-1) * 0 + 3, 0), columns[:1] * 0 + 3)


def test_corruption_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    images = torch.rand(200, 3, 16, 16)
    changed = (corrupted(images, 0.3) != images).flatten(1).any(1)
    assert 40 <= int(changed.sum()) <= 80
    assert torch.equal(corrupted(images, 0.0), images)


def test_losses() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 48, 48)
    assert float(ms_ssim_loss(image, image)) == pytest.approx(0, abs=1e-6)
    near, far = (image + 0.02 * torch.randn_like(image)).clamp(0, 1), torch.rand_like(image)
    assert 0 < float(ms_ssim_loss(near, image)) < 0.1 < float(ms_ssim_loss(far, image))
    one = torch.tensor([[0.0, 0.0]])
    other = torch.log(torch.tensor([[0.9, 0.1]]))
    expected = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)  # KL(wanted || found)
    assert float(divergence(one, other)) == pytest.approx(expected, abs=1e-6)


def test_batches_cover_an_epoch_once() -> None:
    processes = loop.Processes("cpu")
    parts = [loop.batch_indices(k, count=50, batch=8, seed=3, processes=processes) for k in range(6)]
    assert len(set(torch.cat(parts).tolist())) == 48
    again = torch.cat([loop.batch_indices(k + 6, count=50, batch=8, seed=3, processes=processes) for k in range(6)])
    assert not torch.equal(torch.cat(parts), again)
    halves = []
    for processes.rank, processes.count in ((0, 2), (1, 2)):
        halves.append(loop.batch_indices(0, count=50, batch=8, seed=3, processes=processes))
    assert sorted(torch.cat(halves).tolist()) == sorted(parts[0].tolist())


def test_the_rate_rises_and_falls() -> None:
    rates = [loop.one_cycle(k, 100) for k in range(100)]
    assert max(rates) == pytest.approx(1, abs=0.06)
    assert rates.index(max(rates)) in range(18, 23)
    assert rates[-1] < 0.02


def command(*arguments: object, code: int = 0) -> str:
    line = [sys.executable, "-m", "vizcomp", "train", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_command(classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ("--data", classes, "--device", "cpu", "--batch", 16)
    said = command(*common, "--task-weight", 0, "--width", 0.08, "--steps", 3, "-o", run)
    assert "psnr at 5" in said
    assert "1 picture skipped" in said
    assert "holds a run already" in command(*common, "--task-weight", 0, "--width", 0.08, "--steps", 3, "-o", run, code=2)
    command("--resume", "-o", run)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('kind = "classifier"\narchitecture = "watcher"\nepochs = 1\n[network]\nchannels = [8, 8, 8]\n')
    assert "accuracy" in command(*common, "--recipe", recipe, "-o", tmp_path / "other")
    assert "classifier" in json.loads((tmp_path / "other" / "model.json").read_text())["kind"]
    assert "does not go with" in command(*common, "--kind", "classifier", "--preset", "photo", code=2)
    assert "not known" in command(*common, "--kind", "poem", code=2)
    assert "does not exist" in command("--data", tmp_path / "none", code=2)
