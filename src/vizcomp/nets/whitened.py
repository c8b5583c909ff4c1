"""A plain convolutional network that learns CIFAR-10 in few epochs: a teacher of other classifiers,
no system of its own.

After Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498): a first
layer of 2x2 patches that is not learned but whitens them, three stages of two 3x3 convolutions,
first filters that pass their input on, no factor in the normalisations, biases that learn faster
than weights, a scaled last layer.

    image (3, 32, 32) -> whitened patches (24, 31, 31) -> stage (c1, 15, 15) -> stage (c2, 7, 7) ->
    stage (c3, 3, 3) -> maximum -> classes
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.graphs.architectures import PATCH, WhitenedConfig

LEAST_VARIANCE = 5e-4  # added to each variance, so that directions of almost none are not blown up


class _Norm(nn.BatchNorm2d):
    """Batch normalisation whose factor stays 1, over about the last three batches."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.4)
        self.weight.requires_grad_(False)


class _Stage(nn.Module):
    """(N, ins, H, W) -> (N, outs, H // 2, W // 2)."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(ins, outs, 3, padding=1, bias=False)
        self.second = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([_Norm(outs), _Norm(outs)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.norms[0](F.max_pool2d(self.first(x), 2)))
        return F.gelu(self.norms[1](self.second(x)))


class Whitened(nn.Module):
    """The classifier: float32 (N, 3, H, W), normalised, to logits (N, classes). H and W from 18
    up."""

    def __init__(self, config: WhitenedConfig | None = None) -> None:
        super().__init__()
        self.config = config or WhitenedConfig()
        patch = 3 * PATCH * PATCH
        self.patches = nn.Conv2d(3, 2 * patch, PATCH)
        self.patches.weight.requires_grad_(False)
        sides = (2 * patch, *self.config.channels)
        self.stages = nn.Sequential(*(_Stage(ins, outs) for ins, outs in itertools.pairwise(sides)))
        self.fc = nn.Linear(sides[-1], self.config.classes, bias=False)
        nn.init.zeros_(self.patches.bias)  # type: ignore[arg-type]
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                with torch.no_grad():
                    ins = min(module.in_channels, module.out_channels)
                    nn.init.dirac_(module.weight[:ins])

    @torch.no_grad()
    def prepare(self, images: torch.Tensor) -> None:
        """Sets the first layer from normalised images, (N, 3, H, W): their patches get variance 1
        in every direction."""
        # (N * places, 12)
        patches = F.unfold(images, PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH)
        covariance = (patches - patches.mean(0)).T @ (patches - patches.mean(0)) / len(patches)
        variances, directions = torch.linalg.eigh(covariance)
        filters = (directions / (variances + LEAST_VARIANCE).sqrt()).T.reshape(-1, 3, PATCH, PATCH)
        self.patches.weight.copy_(torch.cat([filters, -filters]))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the last layer sees: (N, c3)."""
        return self.stages(F.gelu(self.patches(x))).amax((2, 3))  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.features(x)) * self.config.scale
        return logits
