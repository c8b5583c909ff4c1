"""The watcher's network: a small residual network of plain 3x3 convolutions, of another family than Inception.

Three stages of two convolutions with a skip (He et al., "Deep residual learning for image recognition", 2015), in the
proportions that train fast on CIFAR-10 (pooling inside a stage, a maximum at the end, a scaled last layer; Page, "How to
train your ResNet", 2018).

    image (3, 32, 32) -> stem (c1, 16, 16) -> stage (c1, 16, 16) -> stage (c2, 8, 8) -> stage (c3, 4, 4) -> maximum -> classes
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.errors import SettingsError
from vizcomp.nets.inception import CIFAR_MEAN, CIFAR_STD, ConvNormReLU, max_pool


@dataclasses.dataclass(frozen=True)
class WatcherConfig:
    """What a watcher looks like.

    Attributes:
        channels: of the three stages.
        classes: answers.
        scale: factor on the logits.
        mean, std: of each channel, in 0..1.
    """

    channels: tuple[int, int, int] = (64, 128, 192)
    classes: int = 10
    scale: float = 0.125
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or not all(4 <= c <= 2048 for c in self.channels):
            raise SettingsError(f"watcher: channels {self.channels} are not three numbers in 4..2048")
        if not 2 <= self.classes <= 100_000:
            raise SettingsError(f"watcher: {self.classes} classes are not in 2..100000")

    def to_dict(self) -> dict[str, Any]:
        """For model.json."""
        return dataclasses.asdict(self)


class _Stage(nn.Module):
    """(N, ins, H, W) -> (N, outs, H / pool, W / pool)."""

    def __init__(self, ins: int, outs: int, pool: int) -> None:
        super().__init__()
        self.enter = ConvNormReLU(ins, outs, 3, padding=1)
        self.first = ConvNormReLU(outs, outs, 3, padding=1)
        self.second = ConvNormReLU(outs, outs, 3, padding=1)
        self._pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter.bn(max_pool(self.enter.conv(x), self._pool)) if self._pool > 1 else self.enter.linear(x)
        x = F.relu(x)
        out: torch.Tensor = x + self.second(self.first(x))
        return out


class Watcher(nn.Module):
    """The classifier: float32 (N, 3, H, W), normalised, to logits (N, classes). H and W from 16 up."""

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
