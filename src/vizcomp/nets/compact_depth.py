"""The small depth network, for training.

One member of the network, for a photo scaled to 128x96 (n = channels of the configuration):

    image (3, 96, 128) -> stem /2 -> stage /4 -> stage /8 -> stage /16
                                       |           |           |  + photo-wide context
                                       |           |           v  + position planes
    nearness (1, 24, 32)   <- fuse <---+-- fuse <--+--- up 2, block, dilation 2, + context

The stages have n1 channels at (24, 32), n2 at (12, 16) and n3 at (6, 8); each fuse takes what is
below it at twice the size.

Blocks are residual (He et al., "Deep residual learning for image recognition", 2016), the decoder
is a feature pyramid (Lin et al., "Feature pyramid networks for object detection", 2017). The
context is a mean and a maximum over the whole photo, sent through two dense layers and added to
every place: far and near are relative, so each place needs the rest.

The exported network holds several members, some of which see the photo at a smaller scale. They
share a pretrained encoder and then saw the photos in another order and in other views. The answer
is the mean of their standardised maps, plus a share of the mean map of all training photos. The
confidence is a logistic function of their spread, fitted on photos that no member was trained on
(Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
ensembles", 2017, use the spread in the same way).

`training.depth` trains it, `training.export` writes it as an ONNX file, `depth.compact` runs that
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.depth.compact import POSITION_STRIDE, CompactDepthConfig
from vizcomp.errors import ModelError
from vizcomp.nets.efficientnet_lite import WIDTHS, EfficientNetLite0
from vizcomp.photos.frame import STRIDE

SPREAD_FLOOR = 1e-3  # added to the members' spread before its logarithm


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first halves the size where `halve` is set."""

    def __init__(
        self, inputs: int, outputs: int, *, halve: bool = False, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation=dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if halve or inputs != outputs:
            pool = nn.AvgPool2d(2) if halve else nn.Identity()
            self.shortcut = nn.Sequential(
                pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        added: torch.Tensor = self.norm2(self.conv2(y)) + self.shortcut(x)
        return torch.relu(added)


class Context(nn.Module):
    """Adds a summary of the whole photo to every place."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.squeeze = nn.Linear(2 * channels, channels // 4)
        self.spread = nn.Linear(channels // 4, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        summary = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)  # (N, 2 C)
        summary = F.dropout(summary, 2 * self.dropout, self.training)
        added = self.spread(F.relu(self.squeeze(summary)))  # (N, C)
        y: torch.Tensor = x + added[:, :, None, None]
        return y


class Decoder(nn.Module):
    """From the deepest map back to a quarter of the photo: one map of nearness."""

    def __init__(self, config: CompactDepthConfig) -> None:
        super().__init__()
        _, n1, n2, n3 = config.channels
        p8, p4 = config.pyramid
        self.reduce8 = nn.Conv2d(n3, p8, 1)
        self.lateral8 = nn.Conv2d(n2, p8, 1)
        self.fuse8 = Block(p8 + 2, p8)
        self.reduce4 = nn.Conv2d(p8, p4, 1)
        self.lateral4 = nn.Conv2d(n1, p4, 1)
        self.fuse4 = Block(p4, p4)
        self.out = nn.Conv2d(p4, 1, 3, 1, 1)

    def forward(
        self, at4: torch.Tensor, at8: torch.Tensor, deepest: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        # (N, p8, H/8, W/8)
        x = F.interpolate(
            self.reduce8(deepest), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        # (N, p8 + 2, H/8, W/8)
        x = torch.cat([x + self.lateral8(at8), F.avg_pool2d(position, 2)], 1)
        x = self.reduce4(self.fuse8(x))  # (N, p4, H/8, W/8)
        # (N, p4, H/4, W/4)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        nearness: torch.Tensor = self.out(self.fuse4(x + self.lateral4(at4)))  # (N, 1, H/4, W/4)
        return nearness


class CompactDepthNet(nn.Module):
    """One member, or all members where they share an encoder; with fresh weights from torch's
    current seed.

    Args:
        dropout: of the deepest maps; twice as much of the photo-wide context.
    """

    def __init__(self, config: CompactDepthConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        stem, n1, n2, n3 = config.channels
        self.dropout = dropout
        self.pretrained = config.encoder != "residual"
        if self.pretrained:
            self.encoder = EfficientNetLite0()
            self.adapters = nn.ModuleList(
                nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
                for inputs, outputs in zip(WIDTHS, (n1, n2, n3, n3), strict=True)
            )
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(3, stem, 5, 2, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
            )
            self.stage1 = Block(stem, n1, halve=True)
            self.stage2 = Block(n1, n2, halve=True)
            self.stage3 = Block(n2, n3, halve=True)
        self.context1 = Context(n3, dropout)
        self.top = Block(n3 + 2, n3, dilation=2)
        self.context2 = Context(n3, dropout)
        self.deeper = nn.ModuleList(Block(n3, n3, dilation=4) for _ in range(config.deeper))
        self.decoders = nn.ModuleList(
            Decoder(config) for _ in range(config.members if config.shared else 1)
        )

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """Beginnings of the names of the encoder's weights."""
        return ("encoder.",) if self.pretrained else ("stem.", "stage1.", "stage2.", "stage3.")

    def features(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps at 1/4, 1/8 and 1/16 of the image: (N, n1, ...), (N, n2, ...), (N, n3, ...)."""
        if self.pretrained:
            pairs = zip(self.adapters, self.encoder(image), strict=True)
            at4, at8, at16, at32 = (adapter(x) for adapter, x in pairs)
            # (N, n3, H/16, W/16): the sides of at32 were rounded up
            x = F.interpolate(at32, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = x[:, :, : at16.shape[2], : at16.shape[3]]
            return F.relu(at4), F.relu(at8), F.relu(x + at16)
        x = self.stem(image - 0.45)  # (N, n0, H/2, W/2)
        at4 = self.stage1(x)  # (N, n1, H/4, W/4)
        at8 = self.stage2(at4)  # (N, n2, H/8, W/8)
        return at4, at8, self.stage3(at8)  # (N, n3, H/16, W/16)

    def forward(self, image: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Nearness without fixed scale or shift, float32 (N, decoders, H / 4, W / 4).

        Args:
            image: float32 (N, 3, H, W) in 0..1.
            position: float32 (N, 2, H / 4, W / 4), `position_planes`.
        """
        at4, at8, at16 = self.features(image)
        # (N, n3 + 2, H/16, W/16)
        x = torch.cat([self.context1(at16), F.avg_pool2d(position, 4)], 1)
        x = self.context2(self.top(x))  # (N, n3, H/16, W/16)
        for block in self.deeper:
            x = block(x)
        x = F.dropout2d(x, self.dropout, self.training)
        return torch.cat([decoder(at4, at8, x, position) for decoder in self.decoders], 1)


class CompactDepthEnsemble(nn.Module):
    """The network that is exported: all members together.

    Args:
        members: with one side each in the configuration.
        prior: the mean map, (1, 1, rows, columns), standardised; needed where `config.prior` is not
            0.

    Raises:
        ModelError: the configuration has a weight for a mean map, and there is none.
    """

    def __init__(
        self,
        config: CompactDepthConfig,
        members: Sequence[nn.Module],
        prior: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        if config.prior and prior is None:
            raise ModelError("the configuration has a weight for a mean map, and there is none")
        self.config = config
        self.sides = config.sides[: len(members)] or (config.long_side,) * len(members)
        self.members = nn.ModuleList(members)
        if config.prior and prior is not None:
            self.register_buffer("prior", config.prior * prior)

    def _smaller(self, n: Any, side: int) -> Any:
        """A padded side of the input, scaled, as a multiple of the stride: a number, or a traced
        one."""
        scaled = (n * side // self.config.long_side + STRIDE // 2) // STRIDE
        return (
            scaled.clamp(min=1) * STRIDE
            if isinstance(scaled, torch.Tensor)
            else max(1, scaled) * STRIDE
        )

    def maps(self, image: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Standardised maps of all members, each with the prior added: (1, members, H/4, W/4),
        twice as many of mirrored ones."""
        x = image.permute(0, 3, 1, 2).float() / 255.0  # (1, 3, H, W)
        # a mirrored photo has its padding on the left, and its right is where its left was
        if self.config.mirrored:
            x = torch.cat([x, x.flip(3)])
            position = torch.cat(
                [position, torch.cat([position[:, :1], -position[:, 1:]], 1).flip(3)]
            )
        cells = position.shape[2], position.shape[3]
        standardised = []
        for member, side in zip(self.members, self.sides, strict=True):
            if side == self.config.long_side:
                # (1, 1, H/4, W/4); with a shared encoder (1, members, H/4, W/4)
                y = member(x, position)
            else:
                height, width = self._smaller(x.shape[2], side), self._smaller(x.shape[3], side)
                few = height // POSITION_STRIDE, width // POSITION_STRIDE
                y = member(
                    F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False),
                    F.interpolate(position, size=few, mode="bilinear", align_corners=False),
                )
                # (1, 1, H/4, W/4)
                y = F.interpolate(y, size=cells, mode="bilinear", align_corners=False)
            if self.config.mirrored:
                y = torch.cat([y[:1], y[1:].flip(3)], 1)
            y = y - y.mean((2, 3), keepdim=True)
            standardised.append(y / (y.pow(2).mean((2, 3), keepdim=True) + 1e-6).sqrt())
        maps = torch.cat(standardised, 1)
        if self.config.prior:
            added: torch.Tensor = self.prior  # type: ignore[assignment]  # a buffer
            maps = maps + F.interpolate(added, size=cells, mode="bilinear", align_corners=False)
        return maps

    def forward(self, image: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Standardised nearness and confidence in 0..1: float32 (1, 2, H, W).

        Args:
            image: uint8 (1, H, W, 3) RGB, H and W multiples of `STRIDE`.
            position: float32 (1, 2, H / 4, W / 4).
        """
        a, b, c = self.config.calibration
        maps = self.maps(image, position)
        mean, log_spread, photo = ensemble_moments(maps)
        confidence = torch.sigmoid(a - b * log_spread - c * photo)  # (1, 1, H/4, W/4)
        out = torch.cat([mean, confidence], 1)
        # (1, 2, H, W)
        return F.interpolate(out, scale_factor=4.0, mode="bilinear", align_corners=False)


def ensemble_moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and spread of standardised maps.

    Args:
        maps: float32 (N, K, h, w), each map of mean 0 and variance 1, before the prior is added to
            each.

    Returns:
        mean (N, 1, h, w), log of the standard deviation over K (N, 1, h, w), and log of its mean
        square's root over the photo (N, 1, 1, 1).
    """
    mean = maps.mean(1, keepdim=True)
    variance = (maps - mean).pow(2).mean(1, keepdim=True)
    floor = SPREAD_FLOOR**2
    return (
        mean,
        0.5 * (variance + floor).log(),
        0.5 * (variance.mean((2, 3), keepdim=True) + floor).log(),
    )
