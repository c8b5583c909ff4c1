"""Recipes around the depth network's training: maps of its own, and the mean of several runs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import script
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from vizcomp.depth.compact import CompactDepth, CompactDepthConfig, position_planes
from vizcomp.nets.compact_depth import CompactDepthNet
from vizcomp.training.depth import DepthTask
from vizcomp.training.depth_data import DepthTrainSettings
from vizcomp.training.depth_scores import member_maps
from vizcomp.training.export import export_depth
from vizcomp.training.loop import train
from vizcomp.training.processes import Processes
from vizcomp.training.views import depth_views

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TINY = CompactDepthConfig(
    channels=(8, 8, 12, 16),
    pyramid=(12, 8),
    members=2,
    shared=True,
    pixels=1600,
    long_side=48,
    bits=6,
)


def run(recipe: str, *options: str) -> str:
    code, said, errors = script(RECIPES / recipe, *options)
    assert code == 0, errors
    return said


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of a box in front of a ground that comes nearer downwards."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "photos").mkdir()
    (folder / "depth").mkdir()
    rng = np.random.default_rng(0)
    for k in range(8):
        photo = np.full((48, 64, 3), 90, np.uint8) + rng.integers(
            0, 12, (48, 64, 3), dtype=np.uint8
        )
        depth = np.repeat(np.linspace(20, 120, 48).astype(np.uint8)[:, None], 64, axis=1)
        top, left = rng.integers(0, 20), rng.integers(0, 40)
        photo[top : top + 20, left : left + 22] = (220, 40, 30)
        depth[top : top + 20, left : left + 22] = 240
        Image.fromarray(photo).save(folder / "photos" / f"s{k}.jpg", quality=95)
        Image.fromarray(depth).save(folder / "depth" / f"s{k}.png")
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        start = str(folder / "0" / "model.safetensors") if seed else ""
        settings = DepthTrainSettings(
            data=str(data),
            checked="s0,s1",
            epochs=8,
            batch=3,
            average=0.5,
            seed=seed,
            start=start,
            network=TINY,
            licence="MIT",
        )
        train(DepthTask, settings, folder / str(seed))
    return [folder / "0", folder / "1"]


def test_runs_are_averaged_and_the_confidence_is_fitted_on_what_they_kept_out(
    runs: list[Path], tmp_path: Path
) -> None:
    said = run("depth_average.py", *map(str, runs), "--out", str(tmp_path / "mean"))
    assert "2 photos, rank correlation" in said
    first, second, mean = (
        load_file(folder / "model.safetensors") for folder in (*runs, tmp_path / "mean")
    )
    assert set(mean) == set(first)
    name = "0.stage1.conv1.weight"
    np.testing.assert_allclose(mean[name], (first[name] + second[name]) / 2, atol=1e-6)
    card = json.loads((tmp_path / "mean" / "model.json").read_text())
    assert card["averaged"] == ["0", "1"]
    assert CompactDepth(tmp_path / "mean" / "model.onnx").config == CompactDepthConfig.from_dict(
        card["network"]
    )
    assert card["network"]["calibration"] != list(TINY.calibration)


def test_a_networks_own_maps_can_be_learned_from(
    runs: list[Path], data: Path, tmp_path: Path
) -> None:
    options = (
        "--photos",
        str(data / "photos"),
        "--model",
        str(runs[0] / "model.onnx"),
        "--out",
        str(tmp_path / "own"),
    )
    assert "8 of 8 photos" in run("depth_own.py", *options, "--least", "0")
    assert "0 of 8 photos" in run(
        "depth_own.py", *options[:-1], str(tmp_path / "none"), "--least", "1.1"
    )
    assert list((tmp_path / "none" / "depth").iterdir()) == []
    both = os.pathsep.join([str(data), str(tmp_path / "own")])
    settings = DepthTrainSettings(
        data=both, shares=(1.0, 1.0), validation=0.0, epochs=1, batch=4, network=TINY
    )
    train(DepthTask, settings, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "model.json").read_text())["photos"]["trained_on"] == 16


def test_a_file_is_unpacked_to_weights_that_answer_as_it_does(
    runs: list[Path], data: Path, tmp_path: Path
) -> None:
    said = run(
        "depth_unpack.py",
        str(runs[1] / "model.onnx"),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "start"),
    )
    assert float(said.split()[-1]) > 0.9
    settings = DepthTrainSettings(
        data=str(data),
        checked="s0,s1",
        epochs=1,
        batch=3,
        start=str(tmp_path / "start" / "model.safetensors"),
        network=TINY,
    )
    task = DepthTask(settings, Processes("cpu"))
    network = CompactDepthNet(TINY).eval()
    network.load_state_dict({k.removeprefix("0."): v for k, v in task.start.items()})
    own = CompactDepthNet(TINY).eval()
    own.load_state_dict(
        {
            k.removeprefix("0."): v
            for k, v in load_torch(runs[1] / "model.safetensors").items()
            if k != "prior"
        }
    )
    checked = task.validation
    for one, other in zip(
        *(member_maps(TINY, [net], None, task.data, checked) for net in (network, own)), strict=True
    ):
        # six bits a weight
        assert np.corrcoef(one.numpy().ravel(), other.numpy().ravel())[0, 1] > 0.97
    # in training, where norms go by the batch, it answers nearly so too
    views = depth_views(task.data, [2, 3, 4, 5, 6, 7], settings, (0.75, 1.0))[0]
    planes = torch.from_numpy(position_planes(*views.shape[2:])).expand(len(views), -1, -1, -1)
    with torch.no_grad():
        still, moving = network(views, planes), network.train()(views, planes)
    assert np.corrcoef(still.numpy().ravel(), moving.numpy().ravel())[0, 1] > 0.8


def test_a_file_with_a_published_encoder_is_unpacked(data: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, encoder="efficientnet-lite0", channels=(32, 8, 12, 16))
    torch.manual_seed(4)
    network = CompactDepthNet(config).eval()
    origin = {"origin_licence": "Apache-2.0"}
    export_depth(config, [network.state_dict()], tmp_path / "m.onnx", metadata=origin)
    options = ("--data", str(data), "--out", str(tmp_path / "start"))
    said = run("depth_unpack.py", str(tmp_path / "m.onnx"), *options)
    assert float(said.split()[-1]) > 0.9
    found = load_torch(tmp_path / "start" / "model.safetensors")
    name = "encoder.blocks.3.expand.weight"
    step = float(network.state_dict()[name].abs().max()) / 2**5
    torch.testing.assert_close(found[f"0.{name}"], network.state_dict()[name], atol=step, rtol=0)
    with safe_open(tmp_path / "start" / "model.safetensors", "pt") as file:
        assert file.metadata()["licence"] == "Apache-2.0"


def test_a_stopped_run_is_unpacked(runs: list[Path], tmp_path: Path) -> None:
    checkpoint = str(runs[0] / "checkpoint.pt")
    run("depth_unpack.py", checkpoint, "--out", str(tmp_path / "start"))
    finished = load_file(runs[0] / "model.safetensors")
    assert set(load_file(tmp_path / "start" / "model.safetensors")) == set(finished) - {"prior"}
    run("depth_unpack.py", checkpoint, "--averaged", "--out", str(tmp_path / "average"))
    found = load_file(tmp_path / "average" / "model.safetensors")
    # the run was not stopped: its average is what it kept
    assert all(np.array_equal(found[name], finished[name]) for name in found)
    said = run("depth_average.py", str(tmp_path / "average"), "--out", str(tmp_path / "mean"))
    assert "2 photos, rank correlation" in said


def test_the_mean_can_be_run_on_the_photo_and_its_mirror_image(
    runs: list[Path], tmp_path: Path
) -> None:
    run(
        "depth_average.py",
        *map(str, runs),
        "--out",
        str(tmp_path / "mean"),
        "--pixels",
        "3072",
        "--mirrored",
    )
    network = CompactDepth(tmp_path / "mean" / "model.onnx")
    assert network.config.mirrored
    assert network.config.pixels == 3072
    photo = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    found, mirrored = network(photo).depth, network(np.ascontiguousarray(photo[:, ::-1])).depth
    assert np.corrcoef(found.ravel(), mirrored[:, ::-1].ravel())[0, 1] > 0.99
