"""The small depth network: how near each part of a photo is, and how far the answer can be trusted.

One member of the network, for a photo scaled to 128x96 (n = channels of the configuration):

    image  (3, 96, 128) -> stem /2 -> stage /4 (n1, 24, 32) -> stage /8 (n2, 12, 16) -> stage /16 (n3, 6, 8)
                                          |                         |                          | + photo-wide context
                                          |                         |                          v + position planes
    nearness (1, 24, 32)  <- fuse <-------+-- up 2 <-- fuse <-------+------ up 2 <-- block, dilation 2, + context

Blocks are residual (He et al., "Deep residual learning for image recognition", 2016), the decoder is a feature pyramid
(Lin et al., "Feature pyramid networks for object detection", 2017). The context is a mean and a maximum over the whole
photo, sent through two dense layers and added to every place: far and near are relative, so each place needs the rest.

The exported network holds several members, some of which look at the photo at a smaller scale. They share a pretrained
start and then saw the photos in another order and another way. The answer is the mean of their standardised maps, plus a
share of the mean map of all training photos. Where they disagree, they do not know: the confidence is a logistic function of
that spread, fitted on photos that no member was trained on (Lakshminarayanan et al., "Simple and scalable predictive
uncertainty estimation using deep ensembles", 2017, take the spread in the same way).

torch is imported by `build` and `export_onnx` only; `CompactDepth`, which runs the exported file, needs ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError, SettingsError, first_line
from vizcomp.nets.sessions import open_network, return_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

NAME = "vizcomp-compact-depth"
STRIDE = 16
"""The encoder halves four times: both sides of its input must be multiples of this."""
POSITION_STRIDE = 4
SPREAD_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompactDepthConfig:
    """What has to be known to rebuild the network from its weights; saved beside them and inside the ONNX file.

    Attributes:
        channels: of the stem and of the three stages.
        pyramid: channels of the decoder at 1/8 and at 1/4.
        members: networks in the ensemble.
        long_side: photos are scaled so that their long side has this many pixels.
        sides: for each member, the long side to which it scales the photo further; empty for `long_side` throughout.
        prior: weight of the training photos' mean map, which is added to the members' maps; 0 for none.
        bits: of a weight in the exported file, 2 to 8.
        group: weights of an output channel that share a scale there; 0 for all.
        calibration: (a, b, c) of confidence = sigmoid(a - b log(spread) - c log(photo's mean spread)).
    """

    channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    pyramid: tuple[int, int] = (48, 24)
    members: int = 3
    long_side: int = 128
    sides: tuple[int, ...] = ()
    prior: float = 0.0
    bits: int = 8
    group: int = 0
    calibration: tuple[float, float, float] = (0.0, 1.0, 0.0)

    def __post_init__(self) -> None:
        sizes = (*self.channels, *self.pyramid, self.members, self.long_side)
        if len(self.channels) != 4 or len(self.pyramid) != 2 or any(not isinstance(n, int) or n < 1 for n in sizes):
            raise SettingsError(f"channels {self.channels} and {self.pyramid}: four and two positive numbers are needed")
        if self.long_side % STRIDE or self.long_side > 1024:
            raise SettingsError(f"long side {self.long_side} is not a multiple of {STRIDE} up to 1024")
        sides = self.sides
        if (sides and len(sides) != self.members) or any(not isinstance(n, int) or not 16 <= n <= self.long_side for n in sides):
            raise SettingsError(f"sides {sides} are not one for each of {self.members} members, of 16 to {self.long_side}")
        if not isinstance(self.prior, (int, float)) or not 0 <= self.prior <= 10:
            raise SettingsError(f"prior = {self.prior!r} is not between 0 and 10")
        if not isinstance(self.bits, int) or not 2 <= self.bits <= 8:
            raise SettingsError(f"bits = {self.bits!r} is not between 2 and 8")
        if not isinstance(self.group, int) or (self.group and not 8 <= self.group <= 65536):
            raise SettingsError(f"group = {self.group!r} is neither 0 nor between 8 and 65536")
        if len(self.calibration) != 3 or not all(math.isfinite(x) for x in self.calibration):
            raise SettingsError("calibration must be three finite numbers")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a dict of JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CompactDepthConfig:
        """The inverse of `to_dict`.

        Raises:
            SettingsError: a value is missing, unknown or out of range.
        """
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**fields)
        except TypeError as exc:
            raise SettingsError(f"not a configuration of the compact depth network: {exc}") from exc


@dataclasses.dataclass(frozen=True)
class DepthPrediction:
    """What the network says about one photo; (h, w) is the photo scaled to the network's long side.

    Attributes:
        depth: float32 (h, w) in 0..1, large = near: the share of the photo that lies farther away than this place.
        confidence: float32 (h, w) in 0..1: of pairs of this place and another of the photo, the share that is expected
            to be in the right order minus the share in the wrong order. 0 is a guess. Its mean over the photo is the
            rank correlation (Kendall's tau) to be expected.
    """

    depth: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]


# --- geometry, shared by training and running ----------------------------------------------------------------------


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Height and width of a photo scaled to a long side, aspect kept, each at least 1."""
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def scale_photo(image: npt.NDArray[np.uint8], long_side: int) -> npt.NDArray[np.uint8]:
    """A photo scaled to a long side: uint8 (H, W, 3) or (H, W) to uint8 (h, w, 3).

    Photos of more than 16 times that size are first thinned, to 8 pixels or more on a side for each one that is kept;
    then the mean of whole squares is taken, which is fast, and the rest is filtered bilinearly.
    """
    from PIL import Image

    height, width = scaled_size(image.shape[0], image.shape[1], long_side)
    thin = min(image.shape[0] // (8 * height), image.shape[1] // (8 * width))
    if thin > 1:
        image = image[::thin, ::thin]
    picture = Image.fromarray(np.ascontiguousarray(image))
    factor = min(picture.width // (2 * width), picture.height // (2 * height))
    if factor > 1:
        picture = picture.reduce(factor)
    return np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def pad_to_stride(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Repeats the last row and column until both sides are multiples of `STRIDE`: uint8 (h, w, 3) to (h', w', 3)."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")


def position_planes(height: int, width: int) -> npt.NDArray[np.float32]:
    """Vertical and horizontal position of each 4x4 cell, -1 and 1 at the edges of the *unpadded* photo.

    Args:
        height, width: of the photo before padding to the stride.

    Returns:
        float32 (2, h' / 4, w' / 4), h' and w' padded; beyond 1 in the padding, where it is cut off at 1.5.
    """
    rows = (height + -height % STRIDE) // POSITION_STRIDE
    columns = (width + -width % STRIDE) // POSITION_STRIDE
    y = np.minimum((np.arange(rows) + 0.5) * POSITION_STRIDE * 2 / height - 1, 1.5)
    x = np.minimum((np.arange(columns) + 0.5) * POSITION_STRIDE * 2 / width - 1, 1.5)
    return np.stack(np.meshgrid(y, x, indexing="ij")).astype(np.float32)


# --- the network ---------------------------------------------------------------------------------------------------


def build(config: CompactDepthConfig, *, dropout: float = 0.0) -> torch.nn.Module:
    """One member, with fresh weights from torch's current seed.

    Its `forward(image, position)` takes float32 (N, 3, H, W) in 0..1 and (N, 2, H / 4, W / 4), and returns nearness
    (N, 1, H / 4, W / 4) of no fixed scale or shift. `features(image)` returns the three stages, for pretraining.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    stem, n1, n2, n3 = config.channels
    p8, p4 = config.pyramid

    class Block(nn.Module):
        """Two 3x3 convolutions and a shortcut; the first halves the size where `halve` is set."""

        def __init__(self, inputs: int, outputs: int, *, halve: bool = False, dilation: int = 1) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation=dilation, bias=False)
            self.norm2 = nn.BatchNorm2d(outputs)
            self.shortcut: nn.Module = nn.Identity()
            if halve or inputs != outputs:
                pool = nn.AvgPool2d(2) if halve else nn.Identity()
                self.shortcut = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(self.norm1(self.conv1(x)))
            added: torch.Tensor = self.norm2(self.conv2(y)) + self.shortcut(x)
            return torch.relu(added)

    class Context(nn.Module):
        """Adds to every place what the whole photo looks like."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.squeeze = nn.Linear(2 * channels, channels // 4)
            self.spread = nn.Linear(channels // 4, channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            summary = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)  # (N, 2 C)
            summary = F.dropout(summary, 2 * dropout, self.training)
            added = self.spread(F.relu(self.squeeze(summary)))  # (N, C)
            y: torch.Tensor = x + added[:, :, None, None]
            return y

    class CompactDepthNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, stem, 5, 2, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
            self.stage1 = Block(stem, n1, halve=True)
            self.stage2 = Block(n1, n2, halve=True)
            self.stage3 = Block(n2, n3, halve=True)
            self.context1 = Context(n3)
            self.top = Block(n3 + 2, n3, dilation=2)
            self.context2 = Context(n3)
            self.reduce8 = nn.Conv2d(n3, p8, 1)
            self.lateral8 = nn.Conv2d(n2, p8, 1)
            self.fuse8 = Block(p8 + 2, p8)
            self.reduce4 = nn.Conv2d(p8, p4, 1)
            self.lateral4 = nn.Conv2d(n1, p4, 1)
            self.fuse4 = Block(p4, p4)
            self.out = nn.Conv2d(p4, 1, 3, 1, 1)

        def features(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            x = self.stem(image - 0.45)  # (N, n0, H/2, W/2)
            at4 = self.stage1(x)  # (N, n1, H/4, W/4)
            at8 = self.stage2(at4)  # (N, n2, H/8, W/8)
            return at4, at8, self.stage3(at8)  # (N, n3, H/16, W/16)

        def forward(self, image: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            at4, at8, at16 = self.features(image)
            x = torch.cat([self.context1(at16), F.avg_pool2d(position, 4)], 1)  # (N, n3 + 2, H/16, W/16)
            x = self.context2(self.top(x))  # (N, n3, H/16, W/16)
            x = F.dropout2d(x, dropout, self.training)
            x = F.interpolate(self.reduce8(x), scale_factor=2.0, mode="bilinear", align_corners=False)  # (N, p8, H/8, W/8)
            x = torch.cat([x + self.lateral8(at8), F.avg_pool2d(position, 2)], 1)  # (N, p8 + 2, H/8, W/8)
            x = self.reduce4(self.fuse8(x))  # (N, p4, H/8, W/8)
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)  # (N, p4, H/4, W/4)
            nearness: torch.Tensor = self.out(self.fuse4(x + self.lateral4(at4)))  # (N, 1, H/4, W/4)
            return nearness

    return CompactDepthNet()


def build_ensemble(
    config: CompactDepthConfig, members: list[torch.nn.Module], prior: torch.Tensor | None = None
) -> torch.nn.Module:
    """The network that is exported: all members together, nearness and confidence out.

    `prior` is the mean map, (1, 1, rows, columns) of any size, standardised; needed where `config.prior` is not 0.
    Its `forward(image, position)` takes uint8 (1, H, W, 3) RGB and float32 (1, 2, H / 4, W / 4), and returns float32
    (1, 2, H, W): standardised nearness, and confidence in 0..1. H and W are multiples of `STRIDE`.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    a, b, c = config.calibration
    long_side = config.long_side
    sides = config.sides or (long_side,) * len(members)
    if config.prior and prior is None:
        raise ModelError("the configuration wants a mean map, and there is none")

    def smaller(n: Any, side: int) -> Any:
        """A padded side of the input, scaled, as a multiple of the stride: a number, or a traced one."""
        scaled = (n * side // long_side + STRIDE // 2) // STRIDE
        return scaled.clamp(min=1) * STRIDE if isinstance(scaled, torch.Tensor) else max(1, scaled) * STRIDE

    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList(members)
            if config.prior and prior is not None:
                self.register_buffer("prior", config.prior * prior)

        def maps(self, image: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            """Standardised maps of all members, each with the prior added: (1, members, H/4, W/4)."""
            x = image.permute(0, 3, 1, 2).float() / 255.0  # (1, 3, H, W)
            cells = position.shape[2], position.shape[3]
            found = []
            for member, side in zip(self.members, sides, strict=True):
                if side == long_side:
                    y = member(x, position)  # (1, 1, H/4, W/4)
                else:
                    height, width = smaller(x.shape[2], side), smaller(x.shape[3], side)
                    few = height // POSITION_STRIDE, width // POSITION_STRIDE
                    y = member(
                        F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False),
                        F.interpolate(position, size=few, mode="bilinear", align_corners=False),
                    )
                    y = F.interpolate(y, size=cells, mode="bilinear", align_corners=False)  # (1, 1, H/4, W/4)
                y = y - y.mean((2, 3), keepdim=True)
                found.append(y / (y.pow(2).mean((2, 3), keepdim=True) + 1e-6).sqrt())
            maps = torch.cat(found, 1)
            if config.prior:
                added: torch.Tensor = self.prior  # type: ignore[assignment]  # a buffer
                maps = maps + F.interpolate(added, size=cells, mode="bilinear", align_corners=False)
            return maps

        def forward(self, image: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            maps = self.maps(image, position)
            mean, log_spread, photo = ensemble_moments(maps)
            confidence = torch.sigmoid(a - b * log_spread - c * photo)  # (1, 1, H/4, W/4)
            out = torch.cat([mean, confidence], 1)
            return F.interpolate(out, scale_factor=4.0, mode="bilinear", align_corners=False)  # (1, 2, H, W)

    return Ensemble()


def ensemble_moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and spread of standardised maps.

    Args:
        maps: float32 (N, K, h, w), each map of mean 0 and variance 1, before the prior is added to each.

    Returns:
        mean (N, 1, h, w), log of the standard deviation over K (N, 1, h, w), and log of its mean square's root over
        the photo (N, 1, 1, 1).
    """
    mean = maps.mean(1, keepdim=True)
    variance = (maps - mean).pow(2).mean(1, keepdim=True)
    floor = SPREAD_FLOOR**2
    return mean, 0.5 * (variance + floor).log(), 0.5 * (variance.mean((2, 3), keepdim=True) + floor).log()


def export_onnx(
    config: CompactDepthConfig,
    states: list[dict[str, torch.Tensor]],
    path: Path,
    *,
    prior: torch.Tensor | None = None,
    metadata: dict[str, str] | None = None,
    small: bool = True,
) -> None:
    """Writes the ensemble as one ONNX file.

    Args:
        states: the state dict of each member, `config.members` of them.
        path: written beside and then renamed.
        prior: the mean map, as for `build_ensemble`.
        metadata: further words for the file's properties (licence, data ...).
        small: weights in `config.bits` bits with a scale for each output channel, or for each `config.group` weights of one.
            They are widened once, when ONNX Runtime loads the file: what runs is float32. False: weights as they are, in 32 bits.

    Raises:
        ModelError: the states do not fit the configuration, or it wants a mean map that is not there.
    """
    import io
    import os
    import warnings

    import onnx
    import torch
    from onnx import helper, numpy_helper

    if len(states) != config.members:
        raise ModelError(f"{len(states)} sets of weights for {config.members} members")
    members = []
    for state in states:
        member = build(config)
        try:
            member.load_state_dict(state)
        except RuntimeError as exc:
            raise ModelError(f"the weights do not fit the configuration: {first_line(exc)}") from exc
        members.append(member.eval())
    network = build_ensemble(config, members, prior).eval()
    image = torch.zeros(1, 2 * STRIDE, 3 * STRIDE, 3, dtype=torch.uint8)
    position = torch.zeros(1, 2, image.shape[1] // POSITION_STRIDE, image.shape[2] // POSITION_STRIDE)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter announces that it is the old one; it needs no further package
        torch.onnx.export(
            network,
            (image, position),
            buffer,  # type: ignore[arg-type]  # the tracing exporter writes to streams too
            dynamo=False,
            opset_version=17,
            input_names=["image", "position"],
            output_names=["nearness_confidence"],
            dynamic_axes={
                "image": {1: "height", 2: "width"},
                "position": {2: "rows", 3: "columns"},
                "nearness_confidence": {2: "height", 3: "width"},
            },
        )
    model = onnx.load_from_string(buffer.getvalue())
    widen = []
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if small and values.dtype == np.float32 and values.ndim >= 2 and values.size >= 256:
            wide = weights.name
            rows = in_groups(values, config.group)
            steps, scale = quantised(rows, config.bits, half=config.group > 0)
            weights.CopyFrom(numpy_helper.from_array(scale, f"{wide}.scale"))
            widen.extend(_widening(model.graph, wide, steps, config.bits, scale.dtype == np.float16, values.shape))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*widen, *nodes])
    model.producer_name = "vizcomp"
    model.producer_version = ""
    words = {"name": NAME, "config": json.dumps(config.to_dict()), **(metadata or {})}
    helper.set_model_props(model, words)
    onnx.checker.check_model(model)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(model.SerializeToString(deterministic=True))
    os.replace(beside, path)


def in_groups(weights: npt.NDArray[np.float32], group: int) -> npt.NDArray[np.float32]:
    """Weights (C, ...) as rows of at most `group` weights of one channel, all rows equally long, with zeros where a channel's
    weights end; 0: as they are."""
    if not group:
        return weights
    flat = weights.reshape(len(weights), -1)
    rows = math.ceil(flat.shape[1] / group)
    length = math.ceil(flat.shape[1] / rows)
    return np.pad(flat, ((0, 0), (0, rows * length - flat.shape[1]))).reshape(-1, length)


def quantised(
    weights: npt.NDArray[np.float32], bits: int = 8, *, half: bool = False
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.floating]]:
    """Weights (C, ...) as int8 steps of the same shape, and the size of a step, (C, 1, ...), float32 or with `half` float16.

    With 8 bits the largest weight of a row is the largest step. With fewer, a smaller range is tried as well, whose ends
    clip: of six, each row gets the one with the least mean squared error.
    """
    axes = tuple(range(1, weights.ndim))
    top = 2 ** (bits - 1) - 1
    largest = np.maximum(np.abs(weights).max(axis=axes, keepdims=True), 1e-12).astype(np.float32)
    steps, scale = np.zeros(weights.shape, np.int8), largest
    least = np.full(largest.shape, np.inf, np.float32)
    for share in (1.0,) if bits == 8 else (1.0, 0.92, 0.85, 0.78, 0.7, 0.62):
        step = (largest * np.float32(share / top)).astype(np.float32)
        if half:
            step = np.maximum(step, np.finfo(np.float16).tiny).astype(np.float16).astype(np.float32)
        these = np.clip(np.rint(weights / step), -top - 1, top).astype(np.int8)
        error = np.square(these * step - weights).mean(axis=axes, keepdims=True)
        better = error < least
        steps, scale, least = np.where(better, these, steps), np.where(better, step, scale), np.where(better, error, least)
    return steps, scale.astype(np.float16) if half else scale


def _widening(graph: Any, name: str, steps: npt.NDArray[np.int8], bits: int, half: bool, shape: tuple[int, ...]) -> list[Any]:
    """Adds steps to an ONNX graph; returns the nodes that make float32 weights `name` of them and of `name`.scale.

    `steps` are of the weights' `shape`, or in groups. `half`: the scale is float16.

    ONNX has no type of 5 or 6 bits, and of 4 only from a later version than the rest of the file asks for. So the bits of
    two or four weights share a byte: a step, raised by 2 ** (bits - 1), is cut into parts of 4, 2 and 1 bits, as `bits` asks for,
    each kept in an array of bytes, and put together again by integer division, all once, when the file is loaded.
    """
    from onnx import TensorProto, helper, numpy_helper

    def constant(suffix: str, values: npt.NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, f"{name}.{suffix}"))
        return f"{name}.{suffix}"

    def integer(suffix: str, *values: int) -> str:
        return constant(suffix, np.asarray(values, np.int64))

    nodes: list[Any] = []
    total = constant("steps", steps) if bits == 8 else _unpacking(nodes, constant, integer, name, steps, bits)
    nodes.append(helper.make_node("Cast", [total], [f"{name}.cast"], to=TensorProto.FLOAT))
    scale = f"{name}.scale"
    if half:
        nodes.append(helper.make_node("Cast", [scale], [f"{scale}.wide"], to=TensorProto.FLOAT))
        scale = f"{scale}.wide"
    if steps.shape == shape:
        return [*nodes, helper.make_node("Mul", [f"{name}.cast", scale], [name])]
    many = math.prod(shape[1:])
    return [
        *nodes,
        helper.make_node("Mul", [f"{name}.cast", scale], [f"{name}.grouped"]),
        helper.make_node("Reshape", [f"{name}.grouped", integer("rows", shape[0], -1)], [f"{name}.rows.padded"]),
        helper.make_node(
            "Slice",
            [f"{name}.rows.padded", integer("rows.start", 0), integer("rows.end", many), integer("rows.axis", 1)],
            [f"{name}.rows.cut"],
        ),
        helper.make_node("Reshape", [f"{name}.rows.cut", integer("shape", *shape)], [name]),
    ]


def _unpacking(
    nodes: list[Any],
    constant: Callable[[str, npt.NDArray[Any]], str],
    integer: Callable[..., str],
    name: str,
    steps: npt.NDArray[np.int8],
    bits: int,
) -> str:
    """Appends the nodes that put packed steps together; returns the name of what they make, int32 of the steps' shape."""
    from onnx import TensorProto, helper

    raised = steps.ravel().astype(np.int32) + 2 ** (bits - 1)
    total, low = "", 0
    for width in (4, 2, 1):
        if not bits & width:
            continue
        each = 8 // width
        part = (raised >> low) & (2**width - 1)
        part = np.pad(part, (0, -len(part) % each)).reshape(-1, each)
        shifts = (np.arange(each) * width).astype(np.int32)
        stem = f"part{width}"
        packed = constant(stem, (part << shifts).sum(1, keepdims=True).astype(np.uint8))
        divisors = constant(f"{stem}.divisors", (2**shifts).astype(np.int32)[None])
        modulus = constant(f"{stem}.modulus", np.asarray(2**width, np.int32))
        weight = constant(f"{stem}.weight", np.asarray(2**low, np.int32))
        x = f"{name}.{stem}"
        nodes += [
            helper.make_node("Cast", [packed], [f"{x}.wide"], to=TensorProto.INT32),
            helper.make_node("Div", [f"{x}.wide", divisors], [f"{x}.divided"]),
            helper.make_node("Mod", [f"{x}.divided", modulus], [f"{x}.cut"]),
            helper.make_node("Mul", [f"{x}.cut", weight], [f"{x}.placed"]),
            helper.make_node("Reshape", [f"{x}.placed", integer(f"{stem}.flat", -1)], [f"{x}.padded"]),
            helper.make_node(
                "Slice", [f"{x}.padded", integer(f"{stem}.start", 0), integer(f"{stem}.end", len(raised))], [f"{x}.line"]
            ),
        ]
        if total:
            nodes.append(helper.make_node("Add", [total, f"{x}.line"], [f"{x}.sum"]))
        total = f"{x}.sum" if total else f"{x}.line"
        low += width
    nodes += [
        helper.make_node("Sub", [total, constant("zero", np.asarray(2 ** (bits - 1), np.int32))], [f"{name}.signed"]),
        helper.make_node("Reshape", [f"{name}.signed", integer("steps.shape", *steps.shape)], [f"{name}.shaped"]),
    ]
    return f"{name}.shaped"


# --- running the exported file -------------------------------------------------------------------------------------


class CompactDepth:
    """Runs an exported network with ONNX Runtime on the CPU.

    Args:
        path: an .onnx file written by `export_onnx`; None for the bundled one.
        threads: threads of ONNX Runtime.

    Attributes:
        config: the configuration that the file carries.
        fingerprint: SHA-256 of the file, in hexadecimal.

    Raises:
        ModelError: the file is missing, damaged, or not a network of this kind.
    """

    def __init__(self, path: Path | None = None, *, threads: int = 1) -> None:
        hint = "use the bundled network, or the model.onnx that vizcomp train --kind depth wrote"
        what = "depth network"
        self._session, words, self.fingerprint, path = open_network(
            path, "compact_depth.onnx", NAME, what=what, hint=hint, threads=threads
        )
        self._path = path
        return_memory()  # unpacking the weights took 170 MB for a moment
        if {i.name: i.type for i in self._session.get_inputs()} != {"image": "tensor(uint8)", "position": "tensor(float)"}:
            raise ModelError(f"{path} is an ONNX file, but no {what} of vizcomp", hint)
        try:
            self.config = CompactDepthConfig.from_dict(json.loads(words.get("config", "null") or "null"))
        except (SettingsError, ValueError, TypeError, AttributeError) as exc:
            raise ModelError(f"{path}: the network's configuration cannot be read", hint) from exc

    def __call__(self, image: npt.NDArray[np.uint8]) -> DepthPrediction:
        """Depth and confidence of a photo.

        Args:
            image: uint8 (H, W, 3) RGB or (H, W) grey, upright, of any size and aspect from 1x1.

        Raises:
            ValueError: `image` is no such array.
            ModelError: the network failed on it.
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
            raise ValueError(f"a photo is a uint8 array (H, W, 3) or (H, W), not {image.dtype} {image.shape}")
        small = scale_photo(image, self.config.long_side)
        height, width = small.shape[:2]
        feeds = {"image": pad_to_stride(small)[None], "position": position_planes(height, width)[None]}
        try:
            (found,) = self._session.run(None, feeds)
        except Exception as exc:  # as above
            raise ModelError(f"{self._path}: the network failed: {exc}") from exc
        nearness, confidence = found[0, 0, :height, :width], found[0, 1, :height, :width]
        if not np.isfinite(found).all():
            raise ModelError(
                f"{self._path}: the network's answer is not finite", "its weights are damaged; train or fetch it again"
            )
        return DepthPrediction(rank_scale(nearness), np.clip(confidence, 0.0, 1.0).astype(np.float32))


def rank_scale(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Values as the share of the array that is smaller, 0..1; equal values stay equal: float32 (h, w) to float32 (h, w).

    An array without differences becomes 0.5 throughout.
    """
    flat = values.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    if ordered[-1] - ordered[0] <= 1e-6:
        return np.full(values.shape, 0.5, np.float32)
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    group = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(flat)) - 1
    ranks = np.empty(len(flat), np.float32)
    ranks[order] = ((first + last) / (2.0 * (len(flat) - 1)))[group]
    return ranks.reshape(values.shape)
