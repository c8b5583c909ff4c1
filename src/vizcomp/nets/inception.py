"""Inception v3 for small images, at full width and compact.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for computer
vision", 2015 (arXiv 1512.00567), with the changes that are usual for 32x32: a first layer of 3x3 at
stride 1 instead of the stem, and no auxiliary head. The names of the parameters are those of
torchvision and of the published CIFAR-10 weights, so these load by name into the full configuration
(21.6 M parameters).

Shapes for a 32x32 image at full width (w = 1, pool = 1) and for the compact network (w = 0.375,
pool = 2):

    Conv2d_1a_3x3   192 x 32 x 32      72 x 16 x 16 (after a maximum over 2x2)
    Mixed_5b..5d    288 x 32 x 32     108 x 16 x 16
    Mixed_6a        768 x 15 x 15     288 x  7 x  7
    Mixed_6b..6e    768 x 15 x 15     288 x  7 x  7
    Mixed_7a       1280 x  7 x  7     480 x  3 x  3
    Mixed_7b..7c   2048 x  7 x  7     768 x  3 x  3
    mean, fc         10                10

In the pooling branch the 1x1 convolution comes before the mean over 3x3. Both are linear and work
on different axes, so the order does not change the result; it changes how much there is to pool.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vizcomp.graphs.architectures import DOUBT, PRESETS, InceptionConfig


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch normalisation (epsilon 0.001, as published), ReLU.

    `linear` leaves the ReLU out: where branches are joined, one ReLU over the join is the same and
    quicker.
    """

    def __init__(
        self, ins: int, outs: int, kernel: int | tuple[int, int], stride: int = 1, padding: Any = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """Without the ReLU."""
        return self.bn(self.conv(x))  # type: ignore[no-any-return]

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """Without the ReLU, after a mean over 3x3, taken after the convolution instead."""
        return self.bn(F.avg_pool2d(self.conv(x), 3, 1, 1))  # type: ignore[no-any-return]


def max_pool(x: torch.Tensor, kernel: int) -> torch.Tensor:
    """The largest of each 2x2, or of each 3x3, at stride 2. Without gradients by slices, which is
    faster on a CPU."""
    if torch.is_grad_enabled():
        return F.max_pool2d(x, kernel, 2)
    # from the first place taken to the last
    many = [2 * ((side - kernel) // 2) + 1 for side in x.shape[2:]]
    x = functools.reduce(torch.maximum, [x[:, :, at : at + many[0] : 2] for at in range(kernel)])
    x = functools.reduce(torch.maximum, [x[:, :, :, at : at + many[1] : 2] for at in range(kernel)])
    return x


def fold(network: nn.Module) -> None:
    """Puts each normalisation into the convolution before it, in place: for evaluation only, the
    same but for rounding.

    Not where a mean or a maximum lies between the two.
    """
    for name, module in network.named_modules():
        if isinstance(module, ConvNormReLU) and not name.endswith(("branch_pool", "enter")):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)  # type: ignore[arg-type]
            module.bn = nn.Identity()


def _join(branches: list[torch.Tensor]) -> torch.Tensor:
    return F.relu(torch.cat(branches, 1), inplace=True)


class _Block(nn.Module):
    """Counts channels by one width factor."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self._width = width

    def _n(self, published: int) -> int:
        return max(4, round(published * self._width / 4) * 4)


class InceptionA(_Block):
    """(N, c, H, W) -> (N, w(224 + pool), H, W): 1x1, 5x5, two 3x3, pooling."""

    def __init__(self, ins: int, pool: int, width: float) -> None:
        super().__init__(width)
        n = self._n
        self.branch1x1 = ConvNormReLU(ins, n(64), 1)
        self.branch5x5_1 = ConvNormReLU(ins, n(48), 1)
        self.branch5x5_2 = ConvNormReLU(n(48), n(64), 5, padding=2)
        self.branch3x3dbl_1 = ConvNormReLU(ins, n(64), 1)
        self.branch3x3dbl_2 = ConvNormReLU(n(64), n(96), 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(n(96), n(96), 3, padding=1)
        self.branch_pool = ConvNormReLU(ins, n(pool), 1)
        self.outs = n(64) + n(64) + n(96) + n(pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        five = self.branch5x5_2.linear(self.branch5x5_1(x))
        three = self.branch3x3dbl_3.linear(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _join([self.branch1x1.linear(x), five, three, self.branch_pool.pooled(x)])


class InceptionB(_Block):
    """(N, c, H, W) -> (N, c + w 480, (H - 1) / 2, (W - 1) / 2): reduction."""

    def __init__(self, ins: int, width: float) -> None:
        super().__init__(width)
        n = self._n
        self.branch3x3 = ConvNormReLU(ins, n(384), 3, 2)
        self.branch3x3dbl_1 = ConvNormReLU(ins, n(64), 1)
        self.branch3x3dbl_2 = ConvNormReLU(n(64), n(96), 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(n(96), n(96), 3, 2)
        self.outs = n(384) + n(96) + ins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3.linear(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        # what comes in has no negative values
        return _join([self.branch3x3.linear(x), double, max_pool(x, 3)])


class InceptionC(_Block):
    """(N, c, H, W) -> (N, w 768, H, W): 7x7 taken apart into 1x7 and 7x1."""

    def __init__(self, ins: int, middle: int, width: float) -> None:
        super().__init__(width)
        n = self._n
        across, down = (1, 7), (7, 1)
        self.branch1x1 = ConvNormReLU(ins, n(192), 1)
        self.branch7x7_1 = ConvNormReLU(ins, n(middle), 1)
        self.branch7x7_2 = ConvNormReLU(n(middle), n(middle), across, padding=(0, 3))
        self.branch7x7_3 = ConvNormReLU(n(middle), n(192), down, padding=(3, 0))
        self.branch7x7dbl_1 = ConvNormReLU(ins, n(middle), 1)
        self.branch7x7dbl_2 = ConvNormReLU(n(middle), n(middle), down, padding=(3, 0))
        self.branch7x7dbl_3 = ConvNormReLU(n(middle), n(middle), across, padding=(0, 3))
        self.branch7x7dbl_4 = ConvNormReLU(n(middle), n(middle), down, padding=(3, 0))
        self.branch7x7dbl_5 = ConvNormReLU(n(middle), n(192), across, padding=(0, 3))
        self.branch_pool = ConvNormReLU(ins, n(192), 1)
        self.outs = 4 * n(192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7_3.linear(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5.linear(self.branch7x7dbl_4(double))
        return _join([self.branch1x1.linear(x), seven, double, self.branch_pool.pooled(x)])


class InceptionD(_Block):
    """(N, c, H, W) -> (N, c + w 512, (H - 1) / 2, (W - 1) / 2): reduction."""

    def __init__(self, ins: int, width: float) -> None:
        super().__init__(width)
        n = self._n
        self.branch3x3_1 = ConvNormReLU(ins, n(192), 1)
        self.branch3x3_2 = ConvNormReLU(n(192), n(320), 3, 2)
        self.branch7x7x3_1 = ConvNormReLU(ins, n(192), 1)
        self.branch7x7x3_2 = ConvNormReLU(n(192), n(192), (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNormReLU(n(192), n(192), (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNormReLU(n(192), n(192), 3, 2)
        self.outs = n(320) + n(192) + ins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7x3_4.linear(
            self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        )
        return _join([self.branch3x3_2.linear(self.branch3x3_1(x)), seven, max_pool(x, 3)])


class InceptionE(_Block):
    """(N, c, H, W) -> (N, w 2048, H, W): the widest block, with branches that fork."""

    def __init__(self, ins: int, width: float) -> None:
        super().__init__(width)
        n = self._n
        self.branch1x1 = ConvNormReLU(ins, n(320), 1)
        self.branch3x3_1 = ConvNormReLU(ins, n(384), 1)
        self.branch3x3_2a = ConvNormReLU(n(384), n(384), (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNormReLU(n(384), n(384), (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNormReLU(ins, n(448), 1)
        self.branch3x3dbl_2 = ConvNormReLU(n(448), n(384), 3, padding=1)
        self.branch3x3dbl_3a = ConvNormReLU(n(384), n(384), (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNormReLU(n(384), n(384), (3, 1), padding=(1, 0))
        self.branch_pool = ConvNormReLU(ins, n(192), 1)
        self.outs = n(320) + 4 * n(384) + n(192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = [self.branch3x3_2a.linear(three), self.branch3x3_2b.linear(three)]
        forks += [self.branch3x3dbl_3a.linear(double), self.branch3x3dbl_3b.linear(double)]
        return _join([self.branch1x1.linear(x), *forks, self.branch_pool.pooled(x)])


class Inception(nn.Module):
    """The classifier: float32 (N, 3, H, W), normalised, to logits (N, classes). H and W from 32 up.

    `features` gives what the last layer sees, (N, w 2048).
    """

    def __init__(self, config: InceptionConfig = PRESETS["full"]) -> None:
        super().__init__()
        self.config = config
        w, (many_a, many_c, many_e) = config.width, config.blocks
        first = max(4, round(192 * w / 4) * 4)
        self.Conv2d_1a_3x3 = ConvNormReLU(3, first, 3, padding=1)
        blocks: list[_Block] = []
        outs = first

        def add(name: str, block: Any) -> None:
            nonlocal outs
            self.add_module(name, block)
            blocks.append(block)
            outs = block.outs

        for name, pool in list(
            zip(("Mixed_5b", "Mixed_5c", "Mixed_5d"), (32, 64, 64), strict=True)
        )[:many_a]:
            add(name, InceptionA(outs, pool, w))
        add("Mixed_6a", InceptionB(outs, w))
        for name, middle in list(
            zip(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), (128, 160, 160, 192), strict=True)
        )[:many_c]:
            add(name, InceptionC(outs, middle, w))
        add("Mixed_7a", InceptionD(outs, w))
        for name in ("Mixed_7b", "Mixed_7c")[:many_e]:
            add(name, InceptionE(outs, w))
        self.fc = nn.Linear(outs, config.classes)
        self._blocks = [
            name for name, module in self.named_children() if isinstance(module, _Block)
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.Conv2d_1a_3x3(x)
        if self.config.pool > 1:
            x = max_pool(x, self.config.pool)
        for name in self._blocks:
            x = getattr(self, name)(x)
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(
            F.dropout(self.features(x), self.config.dropout, self.training)
        )
        if self.config.mirror and not self.training:
            first, second = logits.detach().topk(2, 1).values.T
            (unsure,) = torch.nonzero(first - second < DOUBT, as_tuple=True)
            if len(unsure):
                mirrored = x[unsure].flip(3).contiguous(memory_format=torch.channels_last)
                logits = logits.index_put(
                    (unsure,), (logits[unsure] + self.fc(self.features(mirrored))) / 2
                )
        return logits
