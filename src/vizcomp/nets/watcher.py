"""The watcher's network: a small residual network of plain 3x3 convolutions, of another family than
Inception.

Three stages of two convolutions with a skip (He et al., "Deep residual learning for image
recognition", 2015), in the proportions that train fast on CIFAR-10 (pooling inside a stage, a
maximum at the end, a scaled last layer; Page, "How to train your ResNet", 2018).

    image (3, 32, 32) -> stem (c1, 16, 16) -> stage (c1, 16, 16) -> stage (c2, 8, 8) -> stage (c3,
    4, 4) -> maximum -> classes
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.graphs.architectures import WatcherConfig
from vizcomp.nets.inception import ConvNormReLU, max_pool


class _Stage(nn.Module):
    """(N, ins, H, W) -> (N, outs, H / pool, W / pool)."""

    def __init__(self, ins: int, outs: int, pool: int) -> None:
        super().__init__()
        self.enter = ConvNormReLU(ins, outs, 3, padding=1)
        self.first = ConvNormReLU(outs, outs, 3, padding=1)
        self.second = ConvNormReLU(outs, outs, 3, padding=1)
        self._pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (
            self.enter.bn(max_pool(self.enter.conv(x), self._pool))
            if self._pool > 1
            else self.enter.linear(x)
        )
        x = F.relu(x)
        out: torch.Tensor = x + self.second(self.first(x))
        return out


class Watcher(nn.Module):
    """The classifier: float32 (N, 3, H, W), normalised, to logits (N, classes). H and W from 16
    up."""

    def __init__(self, config: WatcherConfig | None = None) -> None:
        super().__init__()
        self.config = config or WatcherConfig()
        a, b, c = self.config.channels
        self.stem = ConvNormReLU(3, a // 2, 4, 2, 1)
        self.stages = nn.Sequential(_Stage(a // 2, a, 1), _Stage(a, b, 2), _Stage(b, c, 2))
        self.fc = nn.Linear(c, self.config.classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the last layer sees: (N, c3)."""
        return self.stages(self.stem(x)).amax((2, 3))  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.features(x)) * self.config.scale
        return logits
