"""A small network that tells which 8x8 blocks of a photo look like lettering.

    image (3, H, W) -> stem 8x8 /4 (24, H/4, W/4) -> /8 (48) ------------------ + -> block -> logit (1, H/8, W/8)
                                                      |                         |
                                                      +-> /16 (64) -> 1x1, up --+

Blocks are a depthwise 3x3 convolution and two pointwise ones around a shortcut (Howard et al., "MobileNets", 2017; Liu et
al., "A ConvNet for the 2020s", 2022, draw them in this order). It finds no words and no boxes: it says where a text detector
is likely to look, in a few milliseconds, so that `djpeg` can keep bits there. Its teacher is such a detector
(`training/text_regions.py`).

torch is imported by `build` and `export_onnx` only; `TextRegions`, which runs the exported file, needs ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vizcomp.nets.compact_depth import STRIDE, pad_to_stride, scale_photo
from vizcomp.nets.sessions import open_network

if TYPE_CHECKING:
    import torch

NAME = "vizcomp-text-regions"
CHANNELS = (24, 48, 64)
BLOCKS = (1, 3, 3)
BLOCK = 8
LONG_SIDE = 1280
"""Larger photos are scaled to this long side: lettering that a photo of 1280 pixels does not show is not looked for."""


def build() -> torch.nn.Module:
    """The network with fresh weights from torch's current seed.

    Its `forward(x)` takes float32 (N, 3, H, W), scaled as (v / 255 - 0.45) / 0.25, H and W multiples of `STRIDE`, and returns
    logits (N, H / 8, W / 8).
    """
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, channels: int, dilation: int = 1) -> None:
            super().__init__()
            self.spread = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)
            self.norm = nn.BatchNorm2d(channels)
            self.widen = nn.Conv2d(channels, 2 * channels, 1)
            self.narrow = nn.Conv2d(2 * channels, channels, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = x + self.narrow(F.relu(self.widen(self.norm(self.spread(x)))))
            return y

    class TextRegionsNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            c4, c8, c16 = CHANNELS
            self.stem = nn.Sequential(nn.Conv2d(3, c4, 8, 4, padding=2), nn.BatchNorm2d(c4), nn.ReLU())
            self.at4 = nn.Sequential(*(Block(c4) for _ in range(BLOCKS[0])))
            self.down8 = nn.Sequential(nn.Conv2d(c4, c8, 3, 2, padding=1), nn.BatchNorm2d(c8), nn.ReLU())
            self.at8 = nn.Sequential(*(Block(c8) for _ in range(BLOCKS[1])))
            self.down16 = nn.Sequential(nn.Conv2d(c8, c16, 3, 2, padding=1), nn.BatchNorm2d(c16), nn.ReLU())
            self.at16 = nn.Sequential(*(Block(c16, 1 + index % 2) for index in range(BLOCKS[2])))
            self.up = nn.Conv2d(c16, c8, 1)
            self.fuse = Block(c8)
            self.head = nn.Conv2d(c8, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.at4(self.stem(x))  # (N, 24, H/4, W/4)
            fine = self.at8(self.down8(x))  # (N, 48, H/8, W/8)
            coarse = self.up(self.at16(self.down16(fine)))  # (N, 48, H/16, W/16)
            x = self.fuse(fine + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))  # (N, 48, H/8, W/8)
            logits: torch.Tensor = self.head(x)[:, 0]  # (N, H/8, W/8)
            return logits

    return TextRegionsNet()


def export_onnx(network: torch.nn.Module, path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Writes a trained network as an ONNX file: uint8 (1, H, W, 3) RGB in, float32 (1, H / 8, W / 8) logits out.

    Args:
        path: written beside and then renamed.
        metadata: words for the file's properties (licence, data ...).
    """
    import io
    import os
    import warnings

    import onnx
    import torch
    from onnx import helper
    from torch import nn

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.eval()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network((image.permute(0, 3, 1, 2).float() / 255.0 - 0.45) / 0.25)
            return logits

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter announces that it is the old one; it needs no further package
        torch.onnx.export(
            Exported().eval(),
            (torch.zeros(1, 2 * STRIDE, 3 * STRIDE, 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]  # the tracing exporter writes to streams too
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {1: "height", 2: "width"}, "logits": {1: "rows", 2: "columns"}},
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.producer_name = "vizcomp"
    model.producer_version = ""
    helper.set_model_props(model, {"name": NAME, **(metadata or {})})
    onnx.checker.check_model(model)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(model.SerializeToString(deterministic=True))
    os.replace(beside, path)


class TextRegions:
    """Runs an exported network with ONNX Runtime on the CPU.

    Args:
        path: an .onnx file written by `export_onnx`; None for the bundled one.
        threads: threads of ONNX Runtime.

    Attributes:
        fingerprint: SHA-256 of the file, in hexadecimal.

    Raises:
        ModelError: the file is missing, damaged, or not a network of this kind.
    """

    def __init__(self, path: Path | None = None, *, threads: int = 1) -> None:
        hint = "use the bundled network, or a model.onnx that training/text_regions.py wrote"
        self._session, _, self.fingerprint, _ = open_network(
            path, "text_regions.onnx", NAME, what="network for text regions", hint=hint, threads=threads
        )

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """How much each place looks like lettering.

        Args:
            image: uint8 (H, W, 3) RGB or (H, W), any size.

        Returns:
            float32 (h, w) logits, one value for each 8x8 block of the photo (scaled to `LONG_SIDE` where it is larger); they
            cover the photo and nothing more.
        """
        if max(image.shape[:2]) > LONG_SIDE:
            image = scale_photo(image, LONG_SIDE)
        elif image.ndim == 2:
            image = np.repeat(image[..., None], 3, 2)
        height, width = image.shape[:2]
        padded = np.ascontiguousarray(pad_to_stride(image))
        logits = self._session.run(None, {"image": padded[None]})[0][0]
        return np.asarray(logits[: -(-height // BLOCK), : -(-width // BLOCK)], np.float32)
