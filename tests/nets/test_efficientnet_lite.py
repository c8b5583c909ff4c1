"""EfficientNet-Lite0 as an encoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.nets.efficientnet_lite import STAGES, WIDTHS, EfficientNetLite0, InvertedResidual


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EfficientNetLite0().eval()


@pytest.mark.parametrize("size", [(96, 128), (48, 80), (16, 16), (33, 47)])
def test_each_map_halves_the_one_before_rounded_up(
    network: EfficientNetLite0, size: tuple[int, int]
) -> None:
    with torch.no_grad():
        maps = network(torch.rand(2, 3, *size))
    for number, (found, width) in enumerate(zip(maps, WIDTHS, strict=True)):
        step = 4 << number
        assert found.shape == (2, width, -(-size[0] // step), -(-size[1] // step))
        assert found.isfinite().all()


def test_it_has_the_published_number_of_weights(network: EfficientNetLite0) -> None:
    """4,652,008 weights are published with the head (409,600 + 2 * 1,280 for 1,280 channels and
    1,281,000 for the classes); a folded norm is one number for each channel in place of two."""
    channels = sum(m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    folded = sum(p.numel() for p in network.parameters())
    assert folded + channels == 4_652_008 - 409_600 - 2_560 - 1_281_000
    assert sum(count for *_, count in STAGES) == len(network.blocks)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [8, 14])
def test_halving_lays_its_zeros_as_same_padding_does(kernel: int, side: int) -> None:
    """TensorFlow's "SAME": k - 2 zeros for an even side, the odd one at the end."""
    block = InvertedResidual(4, 6, kernel=kernel, stride=2, expansion=1)
    x = torch.rand(1, 4, side, side) + 1
    before = (kernel - 2) // 2
    padded = F.pad(x, (before, kernel - 2 - before) * 2)
    with torch.no_grad():
        expected = block.project(F.relu6(F.conv2d(padded, *_depthwise(block), 2, groups=4)))
        torch.testing.assert_close(block(x), expected)


def _depthwise(block: InvertedResidual) -> tuple[torch.Tensor, torch.Tensor]:
    convolution = block.depthwise
    assert convolution.bias is not None
    return convolution.weight, convolution.bias


def test_a_shortcut_stands_where_the_shape_stays() -> None:
    kept = InvertedResidual(8, 8, kernel=3, stride=1, expansion=2)
    nn.init.zeros_(kept.project.weight)
    nn.init.zeros_(kept.project.bias)  # type: ignore[arg-type]
    x = torch.rand(1, 8, 6, 6)
    with torch.no_grad():
        assert torch.equal(kept(x), x)
        assert not InvertedResidual(8, 9, kernel=3, stride=1, expansion=2).residual
        assert not InvertedResidual(8, 8, kernel=3, stride=2, expansion=2).residual


def test_its_parts_are_all_of_it_from_fine_to_coarse(network: EfficientNetLite0) -> None:
    parts = network.parts()
    found = [m for part in parts for m in part]
    assert [len(part) for part in parts] == [4, 2, 6, 5]
    assert found == [network.stem, *network.blocks]
