"""Trained networks as ONNX files."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from vizcomp.depth.compact import NAME, POSITION_STRIDE, CompactDepthConfig
from vizcomp.djpeg import learned, text_regions
from vizcomp.errors import ModelError, first_line
from vizcomp.files.write import beside
from vizcomp.nets.compact_depth import CompactDepthEnsemble, CompactDepthNet
from vizcomp.photos.frame import STRIDE


def export_depth(
    config: CompactDepthConfig,
    states: Sequence[dict[str, torch.Tensor]],
    path: Path,
    *,
    prior: torch.Tensor | None = None,
    metadata: dict[str, str] | None = None,
    small: bool = True,
) -> None:
    """Writes a depth network as one ONNX file, for `depth.compact.CompactDepth`.

    Args:
        states: the state dict of each member, `config.members` of them; one where they share an
            encoder.
        path: written beside and then renamed.
        prior: the mean map, as for `CompactDepthEnsemble`.
        metadata: further properties of the file (licence, data ...).
        small: weights in `config.bits` bits with a scale for each output channel, or for each
            `config.group` weights of one. They are widened once, when ONNX Runtime loads the file;
            the network computes in float32. False: weights in 32 bits.

    Raises:
        ModelError: the states do not fit the configuration, or its mean map is missing.
    """
    if len(states) != (networks := 1 if config.shared else config.members):
        raise ModelError(f"{len(states)} sets of weights for {networks} networks")
    members = []
    for state in states:
        member = CompactDepthNet(config)
        try:
            member.load_state_dict(state)
        except RuntimeError as exc:
            raise ModelError(
                f"the weights do not fit the configuration: {first_line(exc)}"
            ) from exc
        members.append(member.eval())
    image = torch.zeros(1, 2 * STRIDE, 3 * STRIDE, 3, dtype=torch.uint8)
    position = torch.zeros(
        1, 2, image.shape[1] // POSITION_STRIDE, image.shape[2] // POSITION_STRIDE
    )
    axes = {
        "image": {1: "height", 2: "width"},
        "position": {2: "rows", 3: "columns"},
        "nearness_confidence": {2: "height", 3: "width"},
    }
    model = _traced(CompactDepthEnsemble(config, members, prior), (image, position), axes)
    if small:
        _pack(model.graph, config)
    properties = {"name": NAME, "config": json.dumps(config.to_dict()), **(metadata or {})}
    _write(model, path, properties)


class _TextRegionsOfPixels(nn.Module):
    """The network on uint8 (1, H, W, 3)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(
            (image.permute(0, 3, 1, 2).float() / 255.0 - 0.45) / 0.25
        )
        return logits


def export_text_regions(
    network: nn.Module, path: Path, *, metadata: dict[str, str] | None = None
) -> None:
    """Writes a `TextRegionsNet` as an ONNX file, for `djpeg.text_regions.TextRegions`.

    Its input is uint8 (1, H, W, 3) RGB, its output float32 (1, H / 8, W / 8) logits.

    Args:
        path: written beside and then renamed.
        metadata: further properties of the file (licence, data ...).
    """
    image = torch.zeros(1, 2 * STRIDE, 3 * STRIDE, 3, dtype=torch.uint8)
    axes = {"image": {1: "height", 2: "width"}, "logits": {1: "rows", 2: "columns"}}
    model = _traced(_TextRegionsOfPixels(network), (image,), axes)
    _write(model, path, {"name": text_regions.NAME, **(metadata or {})})


def export_guide(
    network: nn.Module,
    path: Path,
    *,
    levels: tuple[float, float],
    systems: str,
    scale: float | None = None,
    uncalibrated: str = "",
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes a guide, a `TextRegionsNet` too, as an ONNX file for `djpeg.learned.LearnedGuide`.

    Args:
        path: written beside and then renamed.
        levels: logits that stand for importance 0 and 1.
        systems: whose looking it has learned.
        scale: factor on steps under it, as `djpeg.learned.LearnedGuide` has it; None: not known.
        uncalibrated: why it is not known.
        metadata: further properties of the file (licence, data ...).
    """
    image = torch.zeros(1, 2 * STRIDE, 3 * STRIDE, 3, dtype=torch.uint8)
    axes = {"image": {1: "height", 2: "width"}, "logits": {1: "rows", 2: "columns"}}
    model = _traced(_TextRegionsOfPixels(network), (image,), axes)
    entries = {
        "name": learned.NAME,
        "levels": f"{levels[0]:.6g},{levels[1]:.6g}",
        "systems": systems,
        **({"uncalibrated": uncalibrated} if scale is None else {"scale": f"{scale:.4g}"}),
    }
    _write(model, path, {**entries, **(metadata or {})})


def _traced(
    network: nn.Module, inputs: tuple[torch.Tensor, ...], axes: dict[str, dict[int, str]]
) -> Any:
    """An ONNX model of a network in evaluation mode.

    Args:
        axes: names of the inputs and then of the output, with the names of their free axes.
    """
    buffer, names = io.BytesIO(), list(axes)
    with warnings.catch_warnings():
        # the tracing exporter says that it is the old one; the new one needs another package
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            inputs,
            buffer,  # type: ignore[arg-type]  # the tracing exporter writes to streams too
            dynamo=False,
            opset_version=17,
            input_names=names[:-1],
            output_names=names[-1:],
            dynamic_axes=axes,
        )
    return onnx.load_from_string(buffer.getvalue())


def _write(model: Any, path: Path, properties: dict[str, str]) -> None:
    model.producer_name = "vizcomp"
    model.producer_version = ""
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    with beside(path) as part:
        part.write_bytes(model.SerializeToString(deterministic=True))


# --- packed weights ------------------------------------------------------------------------------

CHUNK = 1 << 19  # weights unpacked at once: more take more memory for a moment


def in_groups(weights: npt.NDArray[np.float32], group: int) -> npt.NDArray[np.float32]:
    """Weights (C, ...) as rows of at most `group` weights of one channel, equally long; 0: as they
    are.

    A channel's last row is filled up with zeros.
    """
    if not group:
        return weights
    flat = weights.reshape(len(weights), -1)
    rows = math.ceil(flat.shape[1] / group)
    length = math.ceil(flat.shape[1] / rows)
    return np.pad(flat, ((0, 0), (0, rows * length - flat.shape[1]))).reshape(-1, length)


def quantised(
    weights: npt.NDArray[np.float32], bits: int = 8, *, half: bool = False
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.floating]]:
    """Weights (C, ...) as int8 steps of the same shape, and the size of a step, (C, 1, ...).

    With 8 bits the largest weight of a row is the largest step. With fewer, six ranges are tried,
    five of which clip; each row gets the one with the least mean squared error.

    Args:
        half: the size of a step is float16 in place of float32.
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
        rounded = np.clip(np.rint(weights / step), -top - 1, top).astype(np.int8)
        error = np.square(rounded * step - weights).mean(axis=axes, keepdims=True)
        better = error < least
        steps, scale, least = (
            np.where(better, rounded, steps),
            np.where(better, step, scale),
            np.where(better, error, least),
        )
    return steps, scale.astype(np.float16) if half else scale


def _pack(graph: Any, config: CompactDepthConfig) -> None:
    """Replaces the larger weights of a graph by steps in few bits, and nodes that widen them."""
    chunks: list[list[Any]] = [[]]
    size = 0
    for weights in graph.initializer:
        count = math.prod(weights.dims)
        if weights.data_type != TensorProto.FLOAT or len(weights.dims) < 2 or count < 256:
            continue
        if size + count > CHUNK and chunks[-1]:
            chunks.append([])
            size = 0
        chunks[-1].append(weights)
        size += count
    widening: list[Any] = []
    for number, chunk in enumerate(chunks):
        if chunk:
            wide = _Widening(graph, f"w{number}")
            wide.add(chunk, config)
            widening.extend(wide.nodes)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*widening, *nodes])


class _Widening:
    """The nodes that make float32 weights of their steps and their scale.

    ONNX has no type of 5 or 6 bits, and of 4 only in a later version than this file's. So the bits
    of several weights share a byte: a step, raised by 2 ** (bits - 1), is cut into parts of 4, 2
    and 1 bits, each kept in an array of bytes. Integer division puts them together when the file is
    loaded. The steps of several tensors are put together at once and then parted: a file of a
    hundred tensors loads in half the time.

    Args:
        stem: of the names of all that is between.
    """

    def __init__(self, graph: Any, stem: str) -> None:
        self.graph, self.stem = graph, stem
        self.nodes: list[Any] = []

    def _constant(self, suffix: str, values: npt.NDArray[np.generic]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(values, f"{self.stem}.{suffix}"))
        return f"{self.stem}.{suffix}"

    def _integer(self, suffix: str, *values: int) -> str:
        return self._constant(suffix, np.asarray(values, np.int64))

    def _node(self, kind: str, inputs: Sequence[str], suffix: str, **attributes: int) -> str:
        """Adds a node; the name of its output."""
        output = f"{self.stem}.{suffix}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def add(self, chunk: Sequence[Any], config: CompactDepthConfig) -> None:
        """Adds the nodes, and the steps and scales to the graph in place of the tensors."""
        half = config.group > 0
        arrays = [numpy_helper.to_array(weights) for weights in chunk]
        found = [quantised(in_groups(a, config.group), config.bits, half=half) for a in arrays]
        flat = np.concatenate([steps.ravel() for steps, _ in found])
        packed = self._constant("steps", flat) if config.bits == 8 else None
        total = packed or self._unpacked(flat, config.bits)
        total = self._node("Cast", [total], "cast", to=TensorProto.FLOAT)
        parts = [f"{self.stem}.{number}" for number in range(len(chunk))]
        sizes = self._integer("sizes", *(steps.size for steps, _ in found))
        self.nodes.append(helper.make_node("Split", [total, sizes], parts, axis=0))
        for number, (weights, values, (steps, scale)) in enumerate(
            zip(chunk, arrays, found, strict=True)
        ):
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(scale, f"{self.stem}.{number}.scale"))
            self._scaled(number, name, steps.shape, values.shape, half=half)

    def _scaled(
        self,
        number: int,
        name: str,
        grouped: tuple[int, ...],
        shape: tuple[int, ...],
        *,
        half: bool,
    ) -> None:
        """Adds the nodes that make a tensor of a shape of its steps, which lie in groups."""
        scale, rows = f"{self.stem}.{number}.scale", f"{number}.rows"
        if half:
            scale = self._node("Cast", [scale], f"{number}.wide", to=TensorProto.FLOAT)
        steps = self._node(
            "Reshape",
            [f"{self.stem}.{number}", self._integer(f"{number}.groups", *grouped)],
            f"{number}.steps",
        )
        x = self._node("Mul", [steps, scale], f"{number}.scaled")
        length = math.prod(shape[1:])
        if math.prod(grouped) != shape[0] * length:  # each channel's last group was filled up
            x = self._node("Reshape", [x, self._integer(f"{rows}.shape", shape[0], -1)], rows)
            start, end = self._integer(f"{rows}.start", 0), self._integer(f"{rows}.end", length)
            axis = self._integer(f"{rows}.axis", 1)
            x = self._node("Slice", [x, start, end, axis], f"{rows}.cut")
        whole = self._integer(f"{number}.shape", *shape)
        self.nodes.append(helper.make_node("Reshape", [x, whole], [name]))

    def _unpacked(self, steps: npt.NDArray[np.int8], bits: int) -> str:
        """Packs steps (n,) and adds the nodes that unpack them to int32; the name of the last
        one's output."""
        raised = steps.astype(np.int32) + 2 ** (bits - 1)
        total, low = "", 0
        for width in (4, 2, 1):
            if bits & width:
                part = self._unpacked_part((raised >> low) & (2**width - 1), width, low)
                total = self._node("Add", [total, part], f"part{width}.sum") if total else part
                low += width
        middle = self._constant("zero", np.asarray(2 ** (bits - 1), np.int32))
        return self._node("Sub", [total, middle], "signed")

    def _unpacked_part(self, part: npt.NDArray[np.int32], width: int, low: int) -> str:
        """The same for `width` bits of each step, from bit `low` on."""
        stem, each, count = f"part{width}", 8 // width, len(part)
        part = np.pad(part, (0, -count % each)).reshape(-1, each)
        shifts = (np.arange(each) * width).astype(np.int32)
        packed = self._constant(stem, (part << shifts).sum(1, keepdims=True).astype(np.uint8))
        divisors = self._constant(f"{stem}.divisors", (2**shifts).astype(np.int32)[None])
        modulus = self._constant(f"{stem}.modulus", np.asarray(2**width, np.int32))
        weight = self._constant(f"{stem}.weight", np.asarray(2**low, np.int32))
        x = self._node("Cast", [packed], f"{stem}.wide", to=TensorProto.INT32)
        x = self._node("Div", [x, divisors], f"{stem}.divided")
        x = self._node("Mod", [x, modulus], f"{stem}.cut")
        x = self._node("Mul", [x, weight], f"{stem}.placed")
        x = self._node("Reshape", [x, self._integer(f"{stem}.flat", -1)], f"{stem}.padded")
        return self._node(
            "Slice",
            [x, self._integer(f"{stem}.start", 0), self._integer(f"{stem}.end", count)],
            f"{stem}.line",
        )
