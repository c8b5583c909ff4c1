"""Runs the small depth network: how near each part of a photo is, and how far the answer can be
trusted.

The network itself is in `compact_depth`; this file needs no torch.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError, SettingsError
from vizcomp.files.foreign import read_object
from vizcomp.metrics import rank_scale
from vizcomp.photos.frame import STRIDE, check_image, pad_to_stride, scale_photo, scaled_size
from vizcomp.weights.sessions import open_network, return_memory

NAME = "vizcomp-compact-depth"

# every level in every channel, edges and ramps
_TRIED = np.stack(
    [np.add.outer(np.arange(64) * k, np.arange(64) * 4).astype(np.uint8) for k in (1, 5, 63)],
    axis=2,
)

# of a very wide photo's long side to `long_side`, where photos are scaled to a number of pixels
MOST_SIDES = 2

# each with the channels of its stem; 0 for any
ENCODERS = {"residual": 0, "efficientnet-lite0": 32}

POSITION_STRIDE = 4
"""Pixels of the input for each cell of a map."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompactDepthConfig:
    """Configuration of the network; saved beside its weights and inside the ONNX file.

    Attributes:
        encoder: "residual", or "efficientnet-lite0", which has learned from ImageNet and needs a
            start for its training.
        channels: of the stem and of the three stages. Under "efficientnet-lite0" the first is 32,
            and the others are what its maps at 1/4, 1/8 and 1/16 are brought to.
        pyramid: channels of the decoder at 1/8 and at 1/4.
        members: networks in the ensemble.
        long_side: photos are scaled so that their long side has this many pixels.
        sides: for each member, the long side to which it scales the photo further; empty for
            `long_side` throughout.
        prior: weight of the training photos' mean map, which is added to the members' maps; 0 for
            none.
        pixels: photos are scaled to about this many pixels whatever their shape, but to no side
            beyond `MOST_SIDES` times `long_side`; 0: to `long_side`. Wide and upright photos then
            keep their detail.
        shared: the members share one encoder and differ in their decoders.
        mirrored: the photo and its mirror image go through together, and both are answers: twice
            the time, a steadier map.
        deeper: further blocks at 1/16, with a wide view.
        bits: of a weight in the exported file, 2 to 8.
        group: weights of an output channel that share a scale there; 0 for all.
        calibration: (a, b, c) of confidence = sigmoid(a - b log(spread) - c log(photo's mean
            spread)).
    """

    encoder: str = "residual"
    channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    pyramid: tuple[int, int] = (48, 24)
    members: int = 3
    long_side: int = 128
    sides: tuple[int, ...] = ()
    prior: float = 0.0
    pixels: int = 0
    shared: bool = False
    mirrored: bool = False
    deeper: int = 0
    bits: int = 8
    group: int = 0
    calibration: tuple[float, float, float] = (0.0, 1.0, 0.0)

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise SettingsError(
                f"encoder = {self.encoder!r} is not known", f"use {' or '.join(ENCODERS)}"
            )
        sizes = (*self.channels, *self.pyramid, self.members, self.long_side)
        if (
            len(self.channels) != 4
            or len(self.pyramid) != 2
            or any(not isinstance(n, int) or n < 1 for n in sizes)
        ):
            raise SettingsError(
                f"channels {self.channels} and {self.pyramid}: four and two positive numbers are"
                " needed"
            )
        stem = ENCODERS[self.encoder]
        if stem and self.channels[0] != stem:
            raise SettingsError(f"channels {self.channels}: the stem of {self.encoder} has {stem}")
        if self.long_side % STRIDE or self.long_side > 1024:
            raise SettingsError(
                f"long side {self.long_side} is not a multiple of {STRIDE} up to 1024"
            )
        sides = self.sides
        if (sides and len(sides) != self.members) or any(
            not isinstance(n, int) or not 16 <= n <= self.long_side for n in sides
        ):
            raise SettingsError(
                f"sides {sides} are not one for each of {self.members} members, of 16 to"
                f" {self.long_side}"
            )
        if not isinstance(self.prior, (int, float)) or not 0 <= self.prior <= 10:
            raise SettingsError(f"prior = {self.prior!r} is not between 0 and 10")
        if not isinstance(self.pixels, int) or (
            self.pixels and not STRIDE**2 <= self.pixels <= 1 << 20
        ):
            raise SettingsError(
                f"pixels = {self.pixels!r} is neither 0 nor between {STRIDE**2} and {1 << 20}"
            )
        if not isinstance(self.shared, bool) or (self.shared and sides):
            raise SettingsError(
                "members that share an encoder see the photo at one scale",
                "give shared = true or sides, not both",
            )
        if not isinstance(self.mirrored, bool) or (self.mirrored and sides):
            raise SettingsError(
                "a mirror image goes through at the photo's own scale",
                "give mirrored = true or sides, not both",
            )
        if not isinstance(self.deeper, int) or not 0 <= self.deeper <= 16:
            raise SettingsError(f"deeper = {self.deeper!r} is not between 0 and 16")
        if not isinstance(self.bits, int) or not 2 <= self.bits <= 8:
            raise SettingsError(f"bits = {self.bits!r} is not between 2 and 8")
        if not isinstance(self.group, int) or (self.group and not 8 <= self.group <= 65536):
            raise SettingsError(f"group = {self.group!r} is neither 0 nor between 8 and 65536")
        if len(self.calibration) != 3 or not all(math.isfinite(x) for x in self.calibration):
            raise SettingsError("calibration must be three finite numbers")

    def side_for(self, height: int, width: int) -> int:
        """Pixels of the long side to which a photo of this size is scaled."""
        if not self.pixels:
            return self.long_side
        long, short = max(height, width), min(height, width)
        return max(
            1, round(min(math.sqrt(self.pixels * long / short), MOST_SIDES * self.long_side))
        )

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a photo of this size is scaled."""
        return scaled_size(height, width, self.side_for(height, width))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a dict of JSON types."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CompactDepthConfig:
        """The inverse of `to_dict`.

        Raises:
            SettingsError: a value is missing, unknown or out of range.
        """
        try:
            fields: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            return cls(**fields)
        except TypeError as exc:
            raise SettingsError(f"not a configuration of the compact depth network: {exc}") from exc


@dataclasses.dataclass(frozen=True)
class DepthPrediction:
    """Depth of one photo; (h, w) is the photo scaled to the network's long side.

    Attributes:
        depth: float32 (h, w) in 0..1, large = near: the share of the photo that lies farther away
            than this place.
        confidence: float32 (h, w) in 0..1. Of the pairs of this place and another, the expected
            share in the right order minus the share in the wrong order; 0 is a guess. Its mean over
            the photo is the expected rank correlation (Kendall's tau).
    """

    depth: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]


def position_planes(height: int, width: int) -> npt.NDArray[np.float32]:
    """Vertical and horizontal position of each 4x4 cell, -1 and 1 at the edges of the *unpadded*
    photo.

    Args:
        height, width: of the photo before padding to the stride.

    Returns:
        float32 (2, h' / 4, w' / 4), h' and w' padded; beyond 1 in the padding, where it is cut off
        at 1.5.
    """
    rows = (height + -height % STRIDE) // POSITION_STRIDE
    columns = (width + -width % STRIDE) // POSITION_STRIDE
    y = np.minimum((np.arange(rows) + 0.5) * POSITION_STRIDE * 2 / height - 1, 1.5)
    x = np.minimum((np.arange(columns) + 0.5) * POSITION_STRIDE * 2 / width - 1, 1.5)
    return np.stack(np.meshgrid(y, x, indexing="ij")).astype(np.float32)


class CompactDepth:
    """Runs an exported network on the CPU.

    Args:
        path: an .onnx file of `training.export.export_depth`; None for the bundled one.
        threads: that compute together; more than one by ONNX Runtime.

    Attributes:
        config: the configuration that the file carries.
        fingerprint: SHA-256 of the file, in hexadecimal.

    Raises:
        ModelError: the file is missing, damaged, or not a network of this kind.
    """

    def __init__(self, path: Path | None = None, *, threads: int = 1) -> None:
        hint = "use the bundled network, or the model.onnx that vizcomp train --kind depth wrote"
        what = "depth network"
        bundled = path is None
        self._session, metadata, inputs, self.fingerprint, path = open_network(
            path, "compact_depth.onnx", NAME, what=what, hint=hint, threads=threads
        )
        self._path = path
        return_memory()  # unpacking the weights took 170 MB for a moment
        if inputs != {"image": "tensor(uint8)", "position": "tensor(float)"}:
            raise ModelError(f"{path} is an ONNX file, but no {what} of vizcomp", hint)
        try:
            self.config = CompactDepthConfig.from_dict(read_object(metadata.get("config", "")))
        except (SettingsError, ValueError, TypeError, AttributeError) as exc:
            raise ModelError(f"{path}: the network's configuration cannot be read", hint) from exc
        # its weights are tried, since what is not finite in them spoils every answer
        if not bundled:
            self(_TRIED)

    def __call__(self, image: npt.NDArray[np.uint8]) -> DepthPrediction:
        """Depth and confidence of a photo.

        Args:
            image: uint8 (H, W, 3) RGB or (H, W) grey, upright, of any size and aspect from 1x1.

        Raises:
            ValueError: `image` is no such array.
            ModelError: the network failed on it.
        """
        check_image(image)
        small = scale_photo(image, self.config.side_for(*image.shape[:2]))
        height, width = small.shape[:2]
        feeds = {
            "image": pad_to_stride(small)[None],
            "position": position_planes(height, width)[None],
        }
        try:
            (maps,) = self._session.run(None, feeds)
        except Exception as exc:  # ONNX Runtime raises several kinds
            raise ModelError(f"{self._path}: the network failed: {exc}") from exc
        nearness, confidence = maps[0, 0, :height, :width], maps[0, 1, :height, :width]
        if not np.isfinite(maps).all():
            raise ModelError(
                f"{self._path}: the network's answer is not finite",
                "its weights are damaged; train or fetch it again",
            )
        return DepthPrediction(
            rank_scale(nearness), np.clip(confidence, 0.0, 1.0).astype(np.float32)
        )
