"""The networks that the codec `cifar` is trained in the eyes of, beside `inception`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from kit import script
from PIL import Image

from vizcomp.graphs.recurrent import RecurrentConfig
from vizcomp.graphs.spectral import SpectralConfig
from vizcomp.nets.recurrent import RecurrentCodec
from vizcomp.nets.spectral import SpectralCodec
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.models import read_model
from vizcomp.training.codec import save_codec
from vizcomp.training.features import open_features, seen_apart

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
MOBILENET = RECIPES.parent.parent / "shared" / "models" / "mobilenet_v2_1.0_224_quant.tflite"


def noisy(base: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Pictures of one grey, uint8 (N, 32, 32, 3), with noise."""
    pixels = base + rng.normal(0, 20, (count, 32, 32, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_classes(data: Path, count: int, *, dark: int) -> None:
    rng = np.random.default_rng(0)
    for name, base in (("dark", dark), ("light", 190)):
        folder = data / "train" / name
        folder.mkdir(parents=True)
        for i, pixels in enumerate(noisy(base, rng, count)):
            Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.fixture
def eyes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("codec_eyes", RECIPES / "codec_eyes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "codec_eyes", module)
    return module


def test_a_residual_network_is_trained_and_found_by_its_name(
    eyes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path / "data", 160, dark=30)
    made = tmp_path / "eyes"
    line = ("--data", tmp_path / "data", "--out", made, "--epochs", 2)
    code, said, errors = script(RECIPES / "codec_eyes.py", *line)
    assert code == 0, errors
    assert "right on " in said
    monkeypatch.setenv("EYES", str(made))
    opened = open_features(["codec_eyes:residual"], 32, torch.device("cpu"))
    image, source = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    assert (seen_apart(opened, image, source) > 0).all()


def test_mobilenet_answers_as_its_file_does(
    eyes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    if not MOBILENET.exists():
        pytest.skip("needs ../shared/models")
    monkeypatch.setenv("MOBILENET", str(MOBILENET))
    monkeypatch.setattr(eyes, "SIDE", 224)
    file = litert.Interpreter(str(MOBILENET))
    file.allocate_tensors()
    y, x = np.mgrid[:224, :224]
    image = np.stack([y, x, 255 - y], 2).astype(np.uint8)
    image[60:150, 80:170] = (200, 40, 30)
    file.set_tensor(file.get_input_details()[0]["index"], image[None])
    file.invoke()
    wanted = file.get_tensor(file.get_output_details()[0]["index"])[0] / 255
    planes = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        found = eyes.mobilenet()(planes).softmax(1)[0].numpy()
    assert found.argmax() == wanted.argmax()
    assert np.abs(found - wanted).max() < 0.15  # the file rounds every layer to 8 bits


def test_other_steps_for_a_trained_codec(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", 40, dark=60)
    bundled = RECIPES.parent / "src" / "vizcomp" / "bundled" / "cifar.safetensors"
    line = (bundled, "--data", tmp_path / "data", "--pictures", 24, "-o", tmp_path)
    code, said, errors = script(RECIPES / "cifar_steps.py", *line, "--steps", "4.4,2.84,1.21,0.6")
    assert code == 0, errors
    assert [row.split()[0] for row in said.splitlines()] == ["1:", "2:", "3:", "4:"]
    made = tmp_path / "model.safetensors"
    assert read_model(made)[0]["network"]["steps"] == [4.4, 2.84, 1.21, 0.6]
    pictures = noisy(190, np.random.default_rng(1), 4)
    coarse, fine = (
        sum(map(len, NeuralCodec.load(path, threads=1).payloads(pictures, iterations=4)))
        for path in (made, bundled)
    )
    assert fine > 1.2 * coarse


def test_a_context_model_is_fitted_anew(tmp_path: Path) -> None:
    rng, data = np.random.default_rng(0), tmp_path / "data"
    data.mkdir()
    for name in ("a", "b", "apart"):
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8))
        small.resize((272, 256), Image.Resampling.BICUBIC).save(data / f"{name}.png")
    torch.manual_seed(0)
    config = RecurrentConfig.from_dict({"preset": "photo", "width": 0.1, "bits": [4, 4]})
    network = RecurrentCodec(config).requires_grad_(False)
    words = {"settings": {"held": ["apart"]}, "classifier": "", "default_iterations": 2}
    save_codec(tmp_path / "model.safetensors", network, words)
    line = (tmp_path / "model.safetensors", "--data", data, "--parts", 6, "--sets", 2)
    code, out, errors = script(RECIPES / "photo_contexts.py", *line, "-o", tmp_path / "fitted")
    assert code == 0, errors
    said = out.splitlines()
    assert said[0] == "6 parts of 2 photos; 1 held"
    before, now = (np.array(row.split(": ")[1].split()[:2], float) for row in said[1:])
    assert before == pytest.approx([4 / 256, 8 / 256], abs=1e-4)  # bits as they are
    assert now[1] < before[1]
    assert NeuralCodec.load(tmp_path / "fitted" / "model.safetensors").context.sets == 2


def test_a_metric_is_measured_and_trained_by(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", 30, dark=30)
    config = SpectralConfig(
        zones=(5, 3, 2), encoder=4, decoder=4, ladders=(((3, 2),),) * 2, steps=(2, 1), finish=()
    )
    codec = SpectralCodec(config)
    save_codec(tmp_path / "codec.safetensors", codec, {}, {})
    made = tmp_path / "metric.npy"
    line = (tmp_path / "codec.safetensors", "--data", tmp_path / "data", "-o", made)
    code, said, errors = script(
        RECIPES / "cifar_metric.py", *line, "--network", "watcher", "--pictures", 20
    )
    assert code == 0, errors
    assert "watcher: " in said
    metric = np.load(made)
    count = config.components
    assert metric.shape == (count, count)
    assert np.linalg.eigvalsh(metric.astype(float)).min() > -1e-5
    assert metric.trace() == pytest.approx(count, rel=1e-4)
    # mirrored pictures count alike: nothing ties even frequencies to odd ones
    odd = np.array([h % 2 for _, _, h in config.frequencies()])
    assert abs(metric[odd[:, None] != odd[None]]).max() < 1e-6
