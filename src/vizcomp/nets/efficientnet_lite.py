"""EfficientNet-Lite0 as an encoder: maps at 1/4, 1/8, 1/16 and 1/32 of a picture.

The network is that of Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural
networks", 2019, table 1, in the variant for phones: no squeeze-and-excitation, ReLU6 throughout.
Inverted residual blocks are those of Sandler et al., "MobileNetV2", 2018.

Every norm is folded into the convolution before it. So the encoder runs as it is exported, and what
its norms had counted on a million photos stays as it was. It has no norms of its own to learn from
nothing with: it needs weights of a network that has learned (`recipes/depth_encoder.py`).
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F

MEAN, SCALE = 127 / 255, 128 / 255  # of the input, as in its training on ImageNet
STEM = 32
# kernel, stride, expansion, channels, blocks
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
WIDTHS = (24, 40, 112, 320)
"""Channels of the four maps."""

_LAST = (2, 4, 10, 15)  # the block that ends each of the four scales


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a shortcut where the shape stays."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Conv2d(inputs, inner, 1) if expansion > 1 else None
        around = kernel // 2 if stride == 1 else 0
        self.depthwise = nn.Conv2d(inner, inner, kernel, stride, around, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)
        self.kernel, self.stride = kernel, stride
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = F.relu6(self.depthwise(y if self.stride == 1 else _padded(y, self.kernel)))
        projected: torch.Tensor = self.project(y)
        return x + projected if self.residual else projected


def _padded(x: torch.Tensor, kernel: int) -> torch.Tensor:
    """Zeros around a map that is halved, so that n cells give n / 2, rounded up; where n is even,
    as the "SAME" of the network's training lays them."""
    before, after = kernel // 2 - 1, kernel // 2 + 1
    return F.pad(x, (before, after, before, after))


class EfficientNetLite0(nn.Module):
    """The encoder, with fresh weights from torch's current seed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, 2)
        blocks, inputs = [], STEM
        for kernel, stride, expansion, outputs, count in STAGES:
            for number in range(count):
                blocks.append(
                    InvertedResidual(
                        inputs,
                        outputs,
                        kernel=kernel,
                        stride=1 if number else stride,
                        expansion=expansion,
                    )
                )
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # every one has a bias

    def parts(self) -> list[list[nn.Module]]:
        """The modules of each of the four scales, from fine to coarse."""
        blocks = list(self.blocks)
        ends = [-1, *_LAST]
        found = [blocks[a + 1 : b + 1] for a, b in itertools.pairwise(ends)]
        return [[self.stem, *found[0]], *found[1:]]

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32, sides rounded up: float32 (N, `WIDTHS`, h, w).

        Args:
            image: float32 (N, 3, H, W) in 0..1.
        """
        x = F.relu6(self.stem(_padded((image - MEAN) / SCALE, 3)))
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _LAST:
                maps.append(x)
        return maps
