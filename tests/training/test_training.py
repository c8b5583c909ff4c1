"""Training of classifiers and codecs: the loop, the losses, the commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit import PATIENCE, command
from PIL import Image

from vizcomp.errors import ModelError, SettingsError, TrainingError
from vizcomp.graphs.codecs import is_spectral
from vizcomp.nets import classifiers
from vizcomp.neural.codec import NeuralCodec
from vizcomp.training import codec, loop, processes
from vizcomp.training.classifier import ClassifierTask, ClassifierTrainSettings
from vizcomp.training.codec import CodecTask, load_weights, save_codec
from vizcomp.training.codec_settings import CodecTrainSettings
from vizcomp.training.depth_data import DepthTrainSettings
from vizcomp.training.loop import train
from vizcomp.training.losses import BitGuesser, colour_error, divergence
from vizcomp.training.settings import build, changed, read_values
from vizcomp.training.spectral import SpectralTrainSettings
from vizcomp.training.structure import ms_ssim_loss, scales_of
from vizcomp.training.views import corrupted, shifted_and_flipped

TINY = {"preset": "cifar", "width": 0.08, "bits": [2, 3], "given": 0}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    "OMP_NUM_THREADS": "1",
}


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
    values = {
        "data": str(classes),
        "architecture": "watcher",
        "network": {"channels": [8, 8, 8]},
        "epochs": 4,
        "batch": 16,
    }
    return ClassifierTrainSettings(**{**values, "device": "cpu", "learning_rate": 0.05, **changes})  # type: ignore[arg-type]


def codec_settings(classes: Path, **changes: object) -> CodecTrainSettings:
    values = {
        "data": str(classes),
        "network": TINY,
        "steps": 8,
        "batch": 16,
        "task_weight": 0.0,
        "contexts": False,
    }
    return CodecTrainSettings(**{**values, "device": "cpu", **changes})  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    mine, others = weights(a), weights(b)
    return mine.keys() == others.keys() and all(torch.equal(mine[k], others[k]) for k in mine)


def test_a_classifier_learns_and_writes_its_run(classes: Path, tmp_path: Path) -> None:
    seen: list[loop.Progress] = []
    result = train(
        ClassifierTask,
        classifier_settings(classes, epochs=16, average=0.5),
        tmp_path,
        on_progress=seen.append,
    )
    assert result.figures["accuracy"] == 1.0  # a colour is easy
    assert seen[-1].figures["loss"] < seen[0].figures["loss"]
    assert [name for name, _ in result.skipped] == ["light/broken.png"]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == list(range(1, 17))
    ElementTree.parse(tmp_path / "curves.svg")
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["classes"] == ["dark", "light"]
    assert about["pictures"]["validation"] == 8


def test_a_teacher_answers_every_view(classes: Path, tmp_path: Path) -> None:
    """What the teacher takes for the other class the pupil learns to take for it too, whatever the
    labels say."""
    taught: dict[str, object] = {
        "architecture": "whitened",
        "network": {"channels": [24, 24, 24]},
        "learning_rate": 0.1,
    }
    settings = classifier_settings(classes, epochs=16, average=0.5, **taught)
    assert train(ClassifierTask, settings, tmp_path / "teacher").figures["accuracy"] == 1.0
    teacher = classifiers.load(tmp_path / "teacher" / "model.safetensors")
    with torch.no_grad():
        teacher.network.fc.weight.copy_(teacher.network.fc.weight.flip(0))
    wrong = tmp_path / "wrong.safetensors"
    classifiers.save(wrong, "whitened", teacher.network, teacher.classes, {})
    pupil = {
        "epochs": 16,
        "average": 0.5,
        "teachers": str(wrong),
        "teaching": 1.0,
        "taught": "views",
        "mix": 0.5,
    }
    assert (
        train(ClassifierTask, classifier_settings(classes, **pupil), tmp_path / "pupil").figures[
            "accuracy"
        ]
        == 0.0
    )
    with pytest.raises(SettingsError, match="taught"):
        classifier_settings(classes, taught="twice")


@pytest.mark.parametrize("taught", ["once", "views"])
def test_a_taught_classifier_goes_on_bit_for_bit(
    classes: Path, tmp_path: Path, taught: str
) -> None:
    train(ClassifierTask, classifier_settings(classes), tmp_path / "teacher")
    settings = classifier_settings(
        classes,
        teachers=str(tmp_path / "teacher" / "model.safetensors"),
        taught=taught,
        mix=0.5,
        erase=4,
        bias_factor=8.0,
    )
    train(ClassifierTask, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(ClassifierTask, settings, tmp_path / "parts", on_progress=_Stop(2))
    train(ClassifierTask, settings, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts")


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
    train(ClassifierTask, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(ClassifierTask, settings, tmp_path / "parts", on_progress=_Stop(2))
    train(ClassifierTask, settings, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts")
    # a finished run writes its result again
    train(ClassifierTask, settings, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_a_stopped_codec_goes_on_bit_for_bit(classes: Path, tmp_path: Path) -> None:
    settings = codec_settings(classes)
    train(CodecTask, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(CodecTask, settings, tmp_path / "parts", on_progress=_Stop(1))
    train(CodecTask, settings, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_a_codec_learns_through_a_classifier_and_can_be_used(classes: Path, tmp_path: Path) -> None:
    train(ClassifierTask, classifier_settings(classes), tmp_path / "seer")
    seer = str(tmp_path / "seer" / "model.safetensors")
    network = {**TINY, "given": 2}
    settings = codec_settings(
        classes,
        classifier=seer,
        task_weight=0.05,
        network=network,
        steps=40,
        ramp=(0.0, 0.1),
        contexts=True,
    )
    seen: list[loop.Progress] = []
    result = train(CodecTask, settings, tmp_path / "run", on_progress=seen.append)
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
        data=str(tmp_path / "photos"),
        network=network,
        steps=6,
        batch=4,
        crop=32,
        task_weight=0,
        reconstruction="ms-ssim",
        colour_weight=1.5,
        rate_weight=0.01,
        first_price=10.0,
        validation=0.25,
        contexts=False,
        device="cpu",
    )
    seen: list[loop.Progress] = []
    result = train(CodecTask, settings, tmp_path / "run", on_progress=seen.append)
    assert {"psnr at 2", "ms_ssim at 1", "colour at 2"} <= result.figures.keys()
    assert seen[-1].figures["colour"] > 0


def test_a_loss_that_is_not_finite_ends_the_run(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = codec.reconstruction_losses
    calls = []

    def breaking(
        kind: str, found: list[torch.Tensor], source: torch.Tensor, *how: float
    ) -> list[torch.Tensor]:
        calls.append(kind)
        factor = float("nan") if len(calls) > 6 else 1.0
        return [one * factor for one in real(kind, found, source, *how)]

    monkeypatch.setattr(codec, "reconstruction_losses", breaking)
    with pytest.raises(TrainingError, match="not finite"):
        train(CodecTask, codec_settings(classes), tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_what_cannot_go_on_says_so(classes: Path, tmp_path: Path) -> None:
    settings = classifier_settings(classes, epochs=1)
    train(ClassifierTask, settings, tmp_path / "run")
    with pytest.raises(SettingsError, match="holds a run already"):
        train(ClassifierTask, settings, tmp_path / "run")
    with pytest.raises(SettingsError, match="another epochs"):
        train(ClassifierTask, classifier_settings(classes, epochs=2), tmp_path / "run", resume=True)
    with pytest.raises(SettingsError, match="nothing to resume"):
        train(ClassifierTask, settings, tmp_path / "none", resume=True)
    (tmp_path / "run" / loop.CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(ClassifierTask, settings, tmp_path / "run", resume=True)
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
    # columns keep their order or turn it round, whole
    assert set(inner.abs().flatten().tolist()) == {1.0}
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
    near, far = (image + 0.02 * torch.randn_like(image)).clamp(0, 1), torch.rand_like(image)
    scales = scales_of(image, 3)
    same, close, other = (float(ms_ssim_loss(one, scales)) for one in (image, near, far))
    assert same == pytest.approx(0, abs=1e-6)
    assert 0 < close < 0.1 < other
    one = torch.tensor([[0.0, 0.0]])
    other = torch.log(torch.tensor([[0.9, 0.1]]))
    expected = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)  # KL(wanted || found)
    assert float(divergence(one, other)) == pytest.approx(expected, abs=1e-6)


def test_the_error_of_colour_is_that_of_cielab() -> None:
    red = torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    grey = torch.full((2, 3, 8, 8), -0.2)
    # sRGB red has a = 80.09, b = 67.20 (D65); greys of any lightness have none
    assert float(colour_error(red, grey)) == pytest.approx(np.hypot(80.09, 67.20) / 100, abs=0.012)
    assert float(colour_error(grey, -grey)) == pytest.approx(0, abs=1e-3)
    image = (red * 0.9).clone().requires_grad_()
    colour_error(image, grey).backward()
    assert image.grad is not None
    assert (image.grad[:, 0] > 0).all(), "less red is nearer to grey"
    assert image.grad.isfinite().all()


def test_what_a_bit_costs_falls_from_iteration_to_iteration(classes: Path) -> None:
    network = {**TINY, "bits": [2, 2, 3, 3]}
    settings = codec_settings(classes, network=network, rate_weight=0.1, first_price=8.0)
    task = CodecTask(settings, processes.Processes("cpu"))
    assert task.prices.tolist() == pytest.approx([8, 8, 4, 4, 2, 2, 2, 1, 1, 1])


@pytest.mark.parametrize(
    ("scales", "crop", "possible"), [(3, 16, True), (5, 64, True), (5, 48, False), (4, 16, False)]
)
def test_scales_of_structure_need_room(scales: int, crop: int, possible: bool) -> None:
    values: dict[str, Any] = {"network": {"preset": "photo"}, "reconstruction": "ms-ssim"}
    if possible:
        CodecTrainSettings(**values, scales=scales, crop=crop)
    else:
        with pytest.raises(SettingsError, match=f"{scales} scales of MS-SSIM need"):
            CodecTrainSettings(**values, scales=scales, crop=crop)


def test_the_guesser_knows_only_what_is_coded_before() -> None:
    torch.manual_seed(0)
    guesser = BitGuesser((2, 3))
    torch.nn.init.normal_(guesser.weight)
    bits = torch.randn(1, 5, 4, 4).sign()

    def guesses(changed: torch.Tensor) -> torch.Tensor:
        """What a bit costs tells the guess only if the bit is the same: so all bits that are not
        changed."""
        seen = torch.nn.functional.pad(torch.cat([changed, torch.ones(1, 1, 4, 4)], 1), (2,) * 4)
        return torch.nn.functional.conv2d(seen, guesser.weight * guesser.mask)

    for slot, y, x in ((0, 0, 0), (1, 2, 1), (4, 3, 3), (3, 1, 2)):
        other = bits.clone()
        other[0, slot, y, x] *= -1
        moved = (guesses(bits) != guesses(other))[0]
        assert not moved[:slot].any(), "an earlier plane"
        assert not moved[slot].flatten()[: 4 * y + x + 1].any(), (
            "the same plane, before it or itself"
        )
        later = moved[slot + 1 :, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        assert later.all(), "every later plane around it"
    costs = guesser([bits[:, :2], bits[:, 2:]])
    expected = torch.nn.functional.softplus(-guesses(bits) * bits).mean((0, 2, 3)) / np.log(2)
    assert torch.allclose(costs, expected, atol=1e-5)
    assert torch.allclose(guesser([bits[:, :2]]), costs[:2], atol=1e-6), (
        "fewer iterations, the same costs"
    )


def test_a_price_draws_bits_to_the_guess() -> None:
    torch.manual_seed(0)
    guesser = BitGuesser((2,))
    optimiser = torch.optim.Adam(guesser.parameters(), lr=0.05)
    for _ in range(150):  # the second plane repeats the first, which is noise
        first = torch.randn(64, 1, 4, 4).sign()
        costs = guesser([torch.cat([first, first], 1)])
        optimiser.zero_grad()
        costs.sum().backward()
        optimiser.step()
    assert costs[0] > 0.95
    assert costs[1] < 0.1
    bits = torch.cat([first, -first], 1).requires_grad_()  # against the guess
    guesser([bits])[1].backward()
    assert bits.grad is not None
    assert bool((bits.grad[:, 1] * -first[:, 0] > 0).all()), (
        "a step down the gradient turns them to it"
    )


def test_a_codec_begins_with_one_of_other_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = codec.RecurrentCodec(codec.RecurrentConfig.from_dict(TINY))
    save_codec(tmp_path / "model.safetensors", before.half().float(), {})
    after = codec.RecurrentCodec(codec.RecurrentConfig.from_dict({**TINY, "bits": [1, 5]}))
    fresh = after.binarizers[1].weight.clone()
    load_weights(tmp_path / "model.safetensors", after)
    assert torch.equal(after.stem.weight, before.stem.weight)
    assert torch.equal(after.binarizers[0].weight, before.binarizers[0].weight[:1])
    assert torch.equal(after.entrances[0].weight, before.entrances[0].weight[:, :1])
    assert torch.equal(after.binarizers[1].weight[:3], before.binarizers[1].weight)
    assert torch.equal(after.binarizers[1].weight[3:], fresh[3:])
    wider = codec.RecurrentCodec(codec.RecurrentConfig.from_dict({**TINY, "width": 0.2}))
    with pytest.raises(ModelError, match="not the weights of such a codec"):
        load_weights(tmp_path / "model.safetensors", wider)


@pytest.mark.parametrize("shown", ["batch", "image"])
def test_a_priced_codec_through_a_classifier_goes_on_bit_for_bit(
    classes: Path, tmp_path: Path, shown: str
) -> None:
    train(ClassifierTask, classifier_settings(classes), tmp_path / "seer")
    settings = codec_settings(
        classes,
        classifier=str(tmp_path / "seer" / "model.safetensors"),
        network={**TINY, "given": 2},
        task_weight=0.1,
        rate_weight=0.05,
        later_factor=2.0,
        later_reconstruction=3.0,
        ramp=(0.0, 0.0),
        shown=shown,
        iterations="all",
    )
    seen: list[loop.Progress] = []
    train(CodecTask, settings, tmp_path / "whole", on_progress=seen.append)
    assert 0.9 < seen[-1].figures["rate"] < 1.1, "of untrained bits next to nothing can be guessed"
    with pytest.raises(KeyboardInterrupt):
        train(CodecTask, settings, tmp_path / "parts", on_progress=_Stop(1))
    train(CodecTask, settings, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_factors_of_iterations_are_geometric_or_given_each(classes: Path, tmp_path: Path) -> None:
    geometric = {"later_reconstruction": 3.0, "first_price": 4.0}
    given = {"shares": (2.0, 6.0), "prices": (4.0, 1.0)}
    others = {"shares": (6.0, 2.0), "prices": (4.0, 1.0)}
    for name, changes in (("geometric", geometric), ("given", given), ("others", others)):
        settings = codec_settings(
            classes, steps=2, rate_weight=0.05, iterations="all", hard=1.0, **changes
        )
        train(CodecTask, settings, tmp_path / name)
    mine, their = weights(tmp_path / "geometric"), weights(tmp_path / "given")
    assert all(torch.allclose(mine[k].float(), their[k].float(), atol=1e-3) for k in mine)
    assert not same(tmp_path / "given", tmp_path / "others")


@pytest.mark.parametrize("name", ["shares", "prices"])
def test_factors_that_fit_no_iterations_are_refused(classes: Path, name: str) -> None:
    for values in ((1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, "2"), (1.0, True), (1.0, float("nan"))):
        with pytest.raises(SettingsError, match=f"{name} .* for each of 2 iterations"):
            codec_settings(classes, **{name: values})
    other = {"shares": "later_reconstruction", "prices": "first_price"}[name]
    with pytest.raises(SettingsError, match=f"both {name} and {other} are given"):
        codec_settings(classes, **{name: (1.0, 2.0), other: 3.0})


def test_batches_cover_an_epoch_once() -> None:
    alone = processes.Processes("cpu")
    parts = [loop.batch_indices(k, count=50, batch=8, seed=3, processes=alone) for k in range(6)]
    assert len(set(torch.cat(parts).tolist())) == 48
    again = torch.cat(
        [loop.batch_indices(k + 6, count=50, batch=8, seed=3, processes=alone) for k in range(6)]
    )
    assert not torch.equal(torch.cat(parts), again)
    halves = []
    for alone.rank, alone.count in ((0, 2), (1, 2)):
        halves.append(loop.batch_indices(0, count=50, batch=8, seed=3, processes=alone))
    assert sorted(torch.cat(halves).tolist()) == sorted(parts[0].tolist())


def test_the_rate_rises_and_falls() -> None:
    rates = [loop.one_cycle(k, 100) for k in range(100)]
    assert max(rates) == pytest.approx(1, abs=0.06)
    assert rates.index(max(rates)) in range(18, 23)
    assert rates[-1] < 0.02


def test_set_takes_the_types_of_the_settings() -> None:
    pairs = [
        "steps=7",
        "task_weight=.5",
        "half=true",
        "ramp=[0.1, 0.2]",
        "width=0.5",
        "preset=photo",
        "task=ce",
        "start=~/a",
    ]
    values = changed(
        CodecTrainSettings,
        {"network": {"bits": [2, 3]}, "batch": 9},
        {"seed": 1},
        [*pairs, "seed=1"],
    )
    assert values == {
        "batch": 9,
        "seed": 1,
        "steps": 7,
        "task_weight": 0.5,
        "half": True,
        "ramp": [0.1, 0.2],
        "task": "ce",
        "network": {"preset": "photo", "bits": [2, 3], "width": 0.5},
        "start": str(Path.home() / "a"),
    }
    assert changed(ClassifierTrainSettings, {}, {}, ["width=0.5"]) == {"network": {"width": 0.5}}
    network = changed(DepthTrainSettings, {}, {}, ["network={members = 1}", "pretrain=a"])
    assert build(DepthTrainSettings, network).network.members == 1


@pytest.mark.parametrize(
    ("cls", "pairs", "message"),
    [
        (CodecTrainSettings, ["epochs"], "`set` epochs is not NAME=VALUE"),
        (CodecTrainSettings, ["taskweight=1"], "unknown training setting: taskweight"),
        (CodecTrainSettings, ["teachers=a"], "unknown training setting: teachers"),
        (DepthTrainSettings, ["width=1"], "unknown training setting: width"),
        (CodecTrainSettings, ["epochs=ten"], "epochs = 'ten' is not a whole number"),
        (CodecTrainSettings, ["epochs=1.5"], "epochs = '1.5' is not a whole number"),
        (CodecTrainSettings, ["width=wide"], "width = 'wide' is not a number"),
        (CodecTrainSettings, ["half=1"], "half = '1' is not true or false"),
        (CodecTrainSettings, ["ramp=0.1"], "ramp = 0.1 is not a list"),
        (CodecTrainSettings, ["ramp=[0.1"], "is not a list"),
        (DepthTrainSettings, ["network=3"], "network = 3 is not a table"),
        (CodecTrainSettings, ["seed=2"], "`seed` 1 and `set` seed=2 disagree"),
        (
            CodecTrainSettings,
            ["epochs=2", "epochs=3"],
            "`set` epochs=2 and `set` epochs=3 disagree",
        ),
        (CodecTrainSettings, ["views=nan"], "views nan is not in 0..1"),
    ],
)
def test_set_refuses_what_is_no_setting(cls: type, pairs: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build(cls, changed(cls, {}, {"seed": 1}, pairs))
    assert message in caught.value.message
    if "taskweight" in message:
        assert caught.value.hint == "did you mean task_weight?"


def test_the_kind_of_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("pretrain_epochs = 3\n")
    assert read_values(None, recipe, None) == ("depth", {"pretrain_epochs": 3})
    assert read_values("codec", recipe, None)[0] == "codec"
    recipe.write_text('kind = "classifier"\n')
    assert read_values(None, recipe, None) == ("classifier", {})
    assert read_values(None, None, None) == ("codec", {})


RECIPES = Path(__file__).parents[2] / "recipes"
README_LINES = re.findall(r"`vizcomp train ([^`]*)`", (RECIPES / "README.md").read_text("utf-8"))


@pytest.mark.parametrize("line", README_LINES)
def test_the_commands_of_the_recipes_are_valid(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parent)
    arguments = shlex.split(line.replace("THROUGH", "--classifier a --set watching=b"))
    options = dict(pairwise(arguments))
    pairs = [value for name, value in pairwise(arguments) if name == "--set"]
    kind, values = read_values(options.get("--kind"), Path(options["--recipe"]), None)
    cls: type = {
        "codec": CodecTrainSettings,
        "classifier": ClassifierTrainSettings,
        "depth": DepthTrainSettings,
    }[kind]
    if kind == "codec" and is_spectral(values.get("network", {})):
        cls = SpectralTrainSettings
    build(cls, changed(cls, values, {"data": options["--data"]}, pairs))


def process(*arguments: object, code: int = 0) -> str:
    line = [sys.executable, "-m", "vizcomp", "train", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`vizcomp train` in this process, which has torch already; gives what it and the processes
    that it starts write."""

    def run(*arguments: object, code: int = 0) -> str:
        found = command("train", *arguments)
        text = capfd.readouterr().err
        assert found == code, text
        assert "Traceback" not in text
        return text

    return run


def test_the_command(classes: Path, tmp_path: Path, said: Callable[..., str]) -> None:
    run = tmp_path / "run"
    common = ("--data", classes, "--device", "cpu", "--set", "batch=16")
    small = ("--set", "task_weight=0", "--set", "width=0.08", "--set", "steps=3")
    told = process(*common, *small, "-o", run)
    assert "psnr at 5" in told
    assert "1 picture skipped" in told
    assert "holds a run already" in said(*common, *small, "-o", run, code=2)
    said("--resume", "-o", run)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'kind = "classifier"\narchitecture = "watcher"\nepochs = 1\n[network]\nchannels = [8, 8,'
        " 8]\n"
    )
    assert "accuracy" in said(*common, "--recipe", recipe, "-o", tmp_path / "other")
    assert "classifier" in json.loads((tmp_path / "other" / "model.json").read_text())["kind"]
    assert "--classifier does not go with" in said(
        *common, "--kind", "classifier", "--classifier", "watcher", code=2
    )
    assert "did you mean epochs?" in said(*common, "--set", "epoch=3", code=2)
    assert "epochs 0 is not in" in said(*common, "--set", "epochs=0", code=2)
    assert "not known" in said(*common, "--kind", "poem", code=2)
    assert "does not exist" in said("--data", tmp_path / "none", code=2)


def test_two_processes_train_one_model(
    classes: Path,
    tmp_path: Path,
    said: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gradients are averaged: two processes with half a batch each take the steps of one with the
    whole batch."""
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    common = ("--data", classes, "--device", "cpu", "--seed", 3)
    for pair in ("batch=16", "task_weight=0", "width=0.08", "steps=6"):
        common = (*common, "--set", pair)
    told = said(*common, "--devices", 2, "-o", tmp_path / "two")
    assert told.count("6 steps in") == 1
    assert told.count("1 picture skipped") == 1
    figures = json.loads((tmp_path / "two" / "model.json").read_text())["validation"]
    assert figures["psnr at 1"] > 5
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path / "two").values())
    assert "6 steps" not in said("--resume", "-o", tmp_path / "two", "--devices", 2)
    assert "holds a run already" in said(*common, "--devices", 2, "-o", tmp_path / "two", code=2)
    classifier = ("--kind", "classifier", "--data", classes)
    for pair in ("architecture=watcher", "epochs=1", "batch=16"):
        classifier = (*classifier, "--set", pair)
    assert "accuracy" in said(
        *classifier, "--device", "cpu", "--devices", 2, "-o", tmp_path / "classifier"
    )
    assert "does not go with --kind depth" in said(
        "--kind", "depth", "--data", classes, "--devices", 2, "-o", tmp_path / "depth", code=2
    )


def test_a_batch_smaller_than_the_processes_is_refused(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Many(processes.Processes):
        def __init__(self, device: str) -> None:
            super().__init__(device)
            self.count = 4

    monkeypatch.setattr(processes, "Processes", Many)
    with pytest.raises(SettingsError, match="a batch of 3 gives 4 processes fewer than 1"):
        train(CodecTask, codec_settings(classes, batch=3), tmp_path / "codec")
    with pytest.raises(SettingsError, match="a batch of 7 gives 4 processes fewer than 2"):
        train(ClassifierTask, classifier_settings(classes, batch=7), tmp_path / "classifier")
    assert not list(tmp_path.iterdir())


SHARED = """
import sys, torch
from vizcomp.training.processes import open_processes
torch.manual_seed(0)
model, data = torch.nn.Linear(4, 3), torch.randn(8, 4)
with open_processes("cpu") as processes:
    assert processes.count == int(sys.argv[1]), processes.count
    mine = data[processes.rank :: processes.count]
    model(mine).square().mean().backward()
    processes.average_gradients(model.parameters())
    figures, stop = processes.agree({"rank": float(processes.rank)}, processes.rank == 1)
    if processes.first:
        whole = torch.nn.Linear(4, 3)
        whole.load_state_dict(model.state_dict())
        whole(data).square().mean().backward()
        assert torch.allclose(model.weight.grad, whole.weight.grad, atol=1e-6)
        assert figures == {"rank": (processes.count - 1) / 2} and stop == (processes.count > 1)
        print("equal")
"""


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(SHARED)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    launch += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    for many, start in ((1, [sys.executable]), (2, launch)):
        done = subprocess.run(
            [*start, "shared.py", str(many)],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("equal")


def test_a_process_that_fails_ends_the_others(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    code = (
        "import os, sys, time; r = int(os.environ['RANK']); sys.exit('lost') if r == 1 else"
        " time.sleep(900)"
    )
    popen = subprocess.Popen
    monkeypatch.setattr(
        processes.subprocess, "Popen", lambda _, **how: popen([sys.executable, "-c", code], **how)
    )
    began = time.monotonic()
    assert processes.run_processes(["train"], 3) == 1
    assert time.monotonic() - began < PATIENCE
    assert "process 1: lost" in capfd.readouterr().err


def test_ctrl_c_reaches_every_process(classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    line = ["--data", classes, "--device", "cpu", "-o", run]
    for pair in ("batch=16", "task_weight=0", "width=0.08", "steps=100000"):
        line += ["--set", pair]
    process = subprocess.Popen(
        [sys.executable, "-m", "vizcomp", "train", *map(str, line), "--devices", "2"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        # the first figures: training goes on in both
        assert any("epoch " in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert (run / "checkpoint.pt").exists()
    assert "Traceback" not in err
