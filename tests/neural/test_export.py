"""Models as ONNX files: what other programs run gives what vizcomp gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from kit import command, picture

from vizcomp.errors import ModelError, SettingsError
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.export import exported
from vizcomp.vision.answers import Classes
from vizcomp.vision.systems import open_system
from vizcomp.weights.sessions import open_session


def test_a_decoder_in_a_file_of_its_own(
    tmp_path: Path, cat: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "decoder.onnx"
    assert command("weights", "export", "photo", "-o", path, "--iterations", 3) == 0
    assert capsys.readouterr().out.strip() == str(path)
    onnx.checker.check_model(str(path))
    session = open_session(str(path))
    codec = NeuralCodec.load("photo", threads=1)
    words = session.get_modelmeta().custom_metadata_map
    assert (words["model"], words["part"], words["block"]) == (
        codec.fingerprint.hex(),
        "decoder",
        "16",
    )
    codes = codec.codes(cat[:64, :96], iterations=3)
    inputs = {f"bits{t}": plane[None] * np.float32(2) - 1 for t, plane in enumerate(codes, 1)}
    assert [i.name for i in session.get_inputs()] == list(inputs)
    pixels = session.run(["pixels"], inputs)[0][0]
    assert np.abs(pixels.astype(int) - codec.image(codes, 64, 96)).max() <= 1
    assert command("weights", "export", "photo", "-o", path) == 2
    assert "exists already" in capsys.readouterr().err
    assert command("weights", "export", "photo", "-o", path, "--overwrite") == 0
    assert len(open_session(str(path)).get_inputs()) == codec.iterations


def test_an_encoder_is_told_what_the_codec_is_told(cat: np.ndarray) -> None:
    codec = NeuralCodec.load("cifar-label", threads=1)
    pictures = np.stack([cat[100:132, x : x + 32] for x in range(0, 320, 32)])
    logits = codec._analyser._answers(pictures)
    told = np.maximum(logits - np.log(np.exp(logits).sum(1, keepdims=True)), -10).astype(np.float32)
    found = open_session(exported("cifar-label", part="encoder")).run(
        None, {"pixels": pictures, "given": told}
    )
    wanted = codec.codes_many(pictures, iterations=codec.iterations, search=0)
    for ours, theirs in zip(wanted, found, strict=True):
        assert (ours != (theirs > 0)).mean() < 0.002


@pytest.mark.parametrize("name", ["inception", "watcher"])
def test_a_classifier_is_a_vision_system_of_its_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / "eyes.onnx"
    path.write_bytes(exported(name))
    ours, theirs = open_system(name), open_system(f"{path}:size=own")
    assert theirs.classes == ours.classes
    one, other = (system.answers([picture(3)])[0] for system in (ours, theirs))
    assert isinstance(one, Classes)
    assert isinstance(other, Classes)
    assert one.best == other.best


def test_what_cannot_be_exported(tmp_path: Path, small_model: Path) -> None:
    for name, how in (
        ("cifar", {"part": "middle"}),
        ("cifar", {"iterations": 9}),
        ("watcher", {"part": "encoder"}),
        ("watcher", {"iterations": 1}),
    ):
        with pytest.raises(SettingsError):
            exported(name, **how)
    with pytest.raises(ModelError, match="no-such"):
        exported(str(tmp_path / "no-such.safetensors"))
    assert len(exported(str(small_model))) > 1000
