"""A small network that tells which 8x8 blocks of a photo look like lettering.

    image (3, H, W) -> stem 8x8 /4 (24, H/4, W/4) -> /8 (48) ------------------ + -> block -> logit
    (1, H/8, W/8)
                                                      |                         |
                                                      +-> /16 (64) -> 1x1, up --+

Blocks are a depthwise 3x3 convolution and two pointwise ones around a shortcut (Howard et al.,
"MobileNets", 2017; Liu et al., "A ConvNet for the 2020s", 2022, have this order). It finds no words
and no boxes: in a few milliseconds it says where a text detector is likely to look, so that `djpeg`
can keep bits there. Its teacher is such a detector (`recipes/text_regions.py`). `training.export`
writes it as an ONNX file, `djpeg.text_regions` runs that file.

The network that is bundled is `SmallTextRegionsNet`, which has learned from this one (Hinton et
al., "Distilling the Knowledge in a Neural Network", 2015) and takes a third of its time: patches in
place of the wide stem, no block at 1/4, fewer channels.

    image (3, H, W) -> patches 4x4 (24, H/4, W/4) -> 2x2 (32) -> blocks -- + -> block -> logit
                                                                    |       |
                                             patches 2x2 (48) -> blocks, 1x1, up
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = (24, 48, 64)  # at 1/4, 1/8 and 1/16
BLOCKS = (1, 3, 3)
SMALL_CHANNELS = (24, 32, 48)  # of the small one
SMALL_BLOCKS = (2, 4)  # at 1/8 and at 1/16


class Block(nn.Module):
    """A depthwise 3x3 convolution and two pointwise ones around a shortcut."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.spread = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.narrow(F.relu(self.widen(self.norm(self.spread(x)))))
        return y


class TextRegionsNet(nn.Module):
    """The network with fresh weights from torch's current seed."""

    def __init__(self) -> None:
        super().__init__()
        c4, c8, c16 = CHANNELS
        self.stem = nn.Sequential(nn.Conv2d(3, c4, 8, 4, padding=2), nn.BatchNorm2d(c4), nn.ReLU())
        self.at4 = nn.Sequential(*(Block(c4) for _ in range(BLOCKS[0])))
        self.down8 = nn.Sequential(
            nn.Conv2d(c4, c8, 3, 2, padding=1), nn.BatchNorm2d(c8), nn.ReLU()
        )
        self.at8 = nn.Sequential(*(Block(c8) for _ in range(BLOCKS[1])))
        self.down16 = nn.Sequential(
            nn.Conv2d(c8, c16, 3, 2, padding=1), nn.BatchNorm2d(c16), nn.ReLU()
        )
        self.at16 = nn.Sequential(*(Block(c16, 1 + index % 2) for index in range(BLOCKS[2])))
        self.up = nn.Conv2d(c16, c8, 1)
        self.fuse = Block(c8)
        self.head = nn.Conv2d(c8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, (N, H / 8, W / 8).

        Args:
            x: float32 (N, 3, H, W), scaled as (v / 255 - 0.45) / 0.25; H and W multiples of 16.
        """
        x = self.at4(self.stem(x))  # (N, 24, H/4, W/4)
        fine = self.at8(self.down8(x))  # (N, 48, H/8, W/8)
        coarse = self.up(self.at16(self.down16(fine)))  # (N, 48, H/16, W/16)
        # (N, 48, H/8, W/8)
        x = self.fuse(fine + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        logits: torch.Tensor = self.head(x)[:, 0]  # (N, H/8, W/8)
        return logits


class SmallTextRegionsNet(nn.Module):
    """The network that imitates `TextRegionsNet`, with fresh weights from torch's current seed.

    Its stem looks beyond no border, so that the scaling of pixels can be moved into its weights
    (`takes_pixels`).
    """

    def __init__(self) -> None:
        super().__init__()
        c4, c8, c16 = SMALL_CHANNELS
        self.stem = nn.Sequential(nn.Conv2d(3, c4, 4, 4), nn.BatchNorm2d(c4), nn.ReLU())
        self.down8 = nn.Sequential(nn.Conv2d(c4, c8, 2, 2), nn.BatchNorm2d(c8), nn.ReLU())
        self.at8 = nn.Sequential(*(Block(c8) for _ in range(SMALL_BLOCKS[0])))
        self.down16 = nn.Sequential(nn.Conv2d(c8, c16, 2, 2), nn.BatchNorm2d(c16), nn.ReLU())
        self.at16 = nn.Sequential(*(Block(c16, 1 + index % 2) for index in range(SMALL_BLOCKS[1])))
        self.up = nn.Conv2d(c16, c8, 1)
        self.fuse = Block(c8)
        self.head = nn.Conv2d(c8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, (N, H / 8, W / 8); `x` as for `TextRegionsNet`."""
        fine = self.at8(self.down8(self.stem(x)))  # (N, 32, H/8, W/8)
        coarse = self.up(self.at16(self.down16(fine)))  # (N, 32, H/16, W/16)
        # (N, 32, H/8, W/8)
        x = self.fuse(fine + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        logits: torch.Tensor = self.head(x)[:, 0]  # (N, H/8, W/8)
        return logits

    def takes_pixels(self) -> None:
        """Moves the scaling (v / 255 - 0.45) / 0.25 into the stem's weights: from now on `x` is
        0..255, as it is stored. Three passes over the picture less."""
        conv = self.stem[0]
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        with torch.no_grad():
            conv.bias -= conv.weight.sum((1, 2, 3)) * (0.45 / 0.25)
            conv.weight /= 255 * 0.25
