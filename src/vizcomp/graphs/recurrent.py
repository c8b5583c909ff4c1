"""The recurrent codec's configuration, and its encoder and decoder as ONNX graphs. `nets.recurrent`
describes the networks.

A step is one iteration of one side, with the states of the ConvLSTM layers as inputs and outputs:

    encoder: source, image (the reconstruction so far), states -> values in -1..1 whose signs are
        the bits, states
    decoder: bits (-1 or 1), states (and the image, where outputs are added up) -> image, states

The binarizer and the entrance of an iteration are inputs too, so that one graph serves all
iterations; in the first one there are no states, and a graph without them leaves out what would be
zero. For files that others run, `graphs.unrolled` puts all iterations into one graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import SettingsError
from vizcomp.graphs.onnx_file import Graph

# channels, stride of an encoder's or upsampling of a decoder's layer, side of the hidden kernel
Layer = tuple[int, int, int]
Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
Shape = tuple[int, ...]
ACTIVITY = 8  # side of the squares whose spread decides the gain


@dataclasses.dataclass(frozen=True)
class RecurrentConfig:
    """What a codec's networks look like. Channels count before `width`.

    Attributes:
        width: factor on all channels.
        stem: channels and stride of the first convolution; a stride above 2 is a convolution
            without overlap.
        encoder: ConvLSTM layers as (channels, stride, hidden kernel).
        decoder: ConvLSTM layers as (channels, depth-to-space factor after it, hidden kernel).
        bits: of each position, for each iteration.
        shared: one binarizer and one entrance for all iterations; needs constant `bits`.
        reconstruction: "additive" or "one-shot".
        residual_scaling: bring the residual to a like size in every iteration.
        sees: "residual" or "both".
        given: numbers about the image that the encoder is told.
        native: side of the images it was made for, 0 for any.
    """

    width: float = 1.0
    stem: tuple[int, int] = (64, 2)
    encoder: tuple[Layer, ...] = ((256, 2, 1), (512, 2, 1), (512, 2, 1))
    decoder: tuple[Layer, ...] = ((512, 2, 1), (512, 2, 1), (256, 2, 3), (128, 2, 3))
    bits: tuple[int, ...] = (32,) * 16
    shared: bool = True
    reconstruction: str = "additive"
    residual_scaling: bool = False
    sees: str = "residual"
    given: int = 0
    native: int = 0

    def __post_init__(self) -> None:
        def refuse(reason: str) -> None:
            raise SettingsError(f"codec network: {reason}")

        if not 0.01 <= self.width <= 4:
            refuse(f"width {self.width} is not in 0.01..4")
        if not self.encoder or not self.decoder or len(self.encoder) > 6 or len(self.decoder) > 6:
            refuse("1 to 6 layers of encoder and decoder are needed")
        if len(self.stem) != 2 or any(len(one) != 3 for one in (*self.encoder, *self.decoder)):
            refuse("a stem has 2 numbers, a layer 3")
        for channels, factor, kernel in (*self.encoder, *self.decoder):
            if not 1 <= channels <= 4096 or factor not in (1, 2, 4) or kernel not in (1, 3, 5):
                refuse(
                    f"a layer of {channels} channels, factor {factor}, hidden kernel {kernel} is"
                    " not possible"
                )
        if not 1 <= self.stem[0] <= 4096 or self.stem[1] not in (1, 2, 4):
            refuse(f"a stem of {self.stem[0]} channels and stride {self.stem[1]} is not possible")
        up = 1
        for _, factor, _ in self.decoder:
            up *= factor
        if up != self.block:
            refuse(f"the encoder goes down by {self.block}, the decoder up by {up}")
        if not 1 <= len(self.bits) <= 64 or not all(1 <= b <= 256 for b in self.bits):
            refuse("1 to 64 iterations of 1 to 256 bits a position are possible")
        if self.shared and len(set(self.bits)) > 1:
            refuse("a shared binarizer needs the same number of bits in all iterations")
        if self.reconstruction not in ("additive", "one-shot"):
            refuse(f"reconstruction {self.reconstruction!r} is neither additive nor one-shot")
        if self.sees not in ("residual", "both"):
            refuse(f"sees {self.sees!r} is neither residual nor both")
        if not 0 <= self.given <= 100_000 or not 0 <= self.native <= 4096:
            refuse("given or native is out of range")

    @property
    def block(self) -> int:
        """Side of the square of pixels behind one position of the code."""
        side = self.stem[1]
        for _, stride, _ in self.encoder:
            side *= stride
        return side

    @property
    def iterations(self) -> int:
        """How many iterations there can be."""
        return len(self.bits)

    def scaled(self, channels: int, multiple: int = 1) -> int:
        """Channels after `width`, a multiple of `multiple` and one at least."""
        return max(multiple, round(channels * self.width / multiple) * multiple)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RecurrentConfig:
        """The inverse of `to_dict`; `preset` names where to start from.

        Raises:
            SettingsError: an unknown field or an impossible value.
        """
        values = dict(values)
        name = values.pop("preset", None)
        if name is not None and name not in PRESETS:
            raise SettingsError(
                f"unknown codec preset {name!r}", f"use one of {', '.join(PRESETS)}"
            )
        if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(cls)}):
            raise SettingsError(f"unknown setting of the codec network: {', '.join(unknown)}")
        try:
            for key in ("stem", "bits"):
                if key in values:
                    values[key] = tuple(values[key])
            for key in ("encoder", "decoder"):
                if key in values:
                    values[key] = tuple(tuple(layer) for layer in values[key])
            return (
                dataclasses.replace(PRESETS[name], **values) if name is not None else cls(**values)
            )
        except (TypeError, ValueError) as exc:
            raise SettingsError(f"codec network: {exc}") from exc


PRESETS: dict[str, RecurrentConfig] = {
    "published": RecurrentConfig(),
    "photo": RecurrentConfig(
        stem=(48, 4),
        encoder=((96, 2, 1), (128, 2, 1)),
        decoder=((128, 2, 1), (96, 2, 1), (64, 4, 1)),
        bits=(16, 16, 16, 16, 32, 32, 32, 32),
        shared=False,
        sees="both",
    ),
    "cifar": RecurrentConfig(
        stem=(64, 4),
        encoder=((128, 2, 1), (128, 1, 1)),
        decoder=((128, 2, 1), (64, 4, 1)),
        bits=(5, 7, 12, 12, 32),
        shared=False,
        sees="both",
        given=10,
        native=32,
    ),
}


def shapes(config: RecurrentConfig) -> dict[str, Shape]:
    """The weights that a codec has: names and shapes."""
    n = config.scaled
    of_layer: dict[str, Shape] = {}

    def layer(name: str, ins: int, outs: int, hidden: int) -> None:
        of_layer[f"{name}.input.weight"], of_layer[f"{name}.input.bias"] = (
            (4 * outs, ins, 3, 3),
            (4 * outs,),
        )
        of_layer[f"{name}.hidden.weight"] = (4 * outs, outs, hidden, hidden)

    def convolution(name: str, ins: int, outs: int, kernel: int) -> None:
        of_layer[f"{name}.weight"], of_layer[f"{name}.bias"] = (outs, ins, kernel, kernel), (outs,)

    outs, stride = n(config.stem[0]), config.stem[1]
    convolution("stem", 3 if config.sees == "residual" else 6, outs, 3 if stride <= 2 else stride)
    if config.given:
        of_layer["told.weight"] = (outs, config.given)
    for index, (channels, _, hidden) in enumerate(config.encoder):
        layer(f"encoder.{index}", outs, n(channels), hidden)
        outs = n(channels)
    enter = n(config.decoder[0][0])
    for head in range(1 if config.shared else config.iterations):
        convolution(f"binarizers.{head}", outs, config.bits[head], 1)
        convolution(f"entrances.{head}", config.bits[head], enter, 1)
    outs = enter
    for index, (channels, up, hidden) in enumerate(config.decoder):
        layer(f"decoder.{index}", outs, n(channels, up * up), hidden)
        outs = after_layer(config, index)
    up = config.decoder[-1][1]
    if up > 2:
        convolution("exit.0", outs, 3 * up * up, 3)
    else:
        convolution("exit", outs, 3, 1)
    return of_layer


def after_layer(config: RecurrentConfig, index: int) -> int:
    """Channels after a decoder's layer and its depth to space; the last layer's convolution comes
    first where it goes up by 4."""
    channels, up, _ = config.decoder[index]
    outs = config.scaled(channels, up * up)
    return outs if index == len(config.decoder) - 1 and up > 2 else outs // (up * up)


def state_shapes(config: RecurrentConfig, part: str) -> list[tuple[int, int]]:
    """Channels of each layer's state, and how many positions of it stand beside one of the code;
    part: encoder or decoder."""
    if part == "decoder":
        states, side = [], 1
        for channels, up, _ in config.decoder:
            states.append((config.scaled(channels, up * up), side))
            side *= up
        return states
    states, side = [], config.block // config.stem[1]
    for channels, down, _ in config.encoder:
        side //= down
        states.append((config.scaled(channels), side))
    return states


class Steps:
    """Adds iterations of encoder and decoder to a graph; each weight stands in it once."""

    def __init__(self, graph: Graph, config: RecurrentConfig, weights: Weights) -> None:
        self.graph, self.config = graph, config
        self._weights = weights
        self._made: dict[str, str] = {}

    def weight(self, name: str) -> str:
        if name not in self._made:
            self._made[name] = self.graph.constant(self._weights[name], name=name)
        return self._made[name]

    def convolved(
        self, x: str, name: str, stride: int = 1, padding: int = 0, *, bias: bool = True
    ) -> str:
        more = [self.weight(f"{name}.bias")] if bias else []
        return self.graph.node(
            "Conv",
            x,
            self.weight(f"{name}.weight"),
            *more,
            strides=(stride, stride),
            pads=(padding,) * 4,
        )

    def _layer(
        self, x: str, state: tuple[str, str] | None, name: str, stride: int, hidden: int
    ) -> tuple[str, str]:
        """A ConvLSTM cell (Shi et al. 2015): the names of the new hidden state and cell."""
        node = self.graph.node
        gates = self.convolved(x, f"{name}.input", stride, 1)
        if state is not None:
            gates = node(
                "Add", gates, self.convolved(state[0], f"{name}.hidden", 1, hidden // 2, bias=False)
            )
        take, keep, new, show = self.graph.nodes("Split", gates, outputs=4, axis=1)
        cell = node("Mul", node("Sigmoid", take), node("Tanh", new))
        if state is not None:
            cell = node("Add", cell, node("Mul", node("Sigmoid", keep), state[1]))
        return node("Mul", node("Sigmoid", show), node("Tanh", cell)), cell

    def gain(self, image: str, iteration: str) -> str:
        """By how much the residual is enlarged after the first iteration, (N, 1, H, W):
        `nets.recurrent` says why."""
        graph = self.graph
        node, number = graph.node, graph.constant
        pool = {"kernel_shape": (ACTIVITY, ACTIVITY), "strides": (ACTIVITY, ACTIVITY)}
        local = node("AveragePool", image, **pool)
        squares = node("AveragePool", node("Mul", image, image), **pool)
        spread = node("Max", node("Sub", squares, node("Mul", local, local)), number(0.0))
        spread = node("Sqrt", node("ReduceMean", spread, axes=(1,), keepdims=1))
        gain = node(
            "Div",
            node("Add", node("Mul", iteration, number(0.5)), number(1.0)),
            node("Add", spread, number(0.5)),
        )
        size = node(
            "Concat",
            node("Shape", gain, start=0, end=2),
            node("Shape", image, start=2, end=4),
            axis=0,
        )
        how = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        return node("Resize", gain, "", "", size, **how)

    def analysed(
        self,
        source: str,
        image: str,
        states: Sequence[tuple[str, str] | None],
        head: tuple[str, str],
        *,
        given: str = "",
        iteration: str = "",
    ) -> tuple[str, list[tuple[str, str]]]:
        """One step of the encoder: its values, whose signs are the bits, and the new states. image
        "": all zero."""
        node, config = self.graph.node, self.config
        residual = node("Sub", source, image) if image else source
        if iteration:
            residual = node("Mul", residual, self.gain(image, iteration))
        x = residual if config.sees == "residual" else node("Concat", source, residual, axis=1)
        stride = config.stem[1]
        x = self.convolved(x, "stem", stride, 1 if stride <= 2 else 0)
        if given:
            hint = node("Gemm", given, self.weight("told.weight"), transB=1)
            x = node("Add", x, node("Unsqueeze", hint, self.graph.constant([2, 3], np.int64)))
        after = []
        for index, (_, down, hidden) in enumerate(config.encoder):
            after.append(self._layer(x, states[index], f"encoder.{index}", down, hidden))
            x = after[-1][0]
        return node("Tanh", node("Conv", x, *head)), after

    def synthesised(
        self,
        bits: str,
        image: str,
        states: Sequence[tuple[str, str] | None],
        head: tuple[str, str],
        *,
        iteration: str = "",
    ) -> tuple[str, list[tuple[str, str]]]:
        """One step of the decoder: the new image and states. image "": all zero, or of no use."""
        node, config = self.graph.node, self.config
        x = node("Tanh", node("Conv", bits, *head))
        after = []
        for index, (_, up, hidden) in enumerate(config.decoder):
            after.append(self._layer(x, states[index], f"decoder.{index}", 1, hidden))
            x = after[-1][0]
            if after_layer(config, index) != config.scaled(config.decoder[index][0], up * up):
                x = self._shuffled(x, up)
        up = config.decoder[-1][1]
        out = (
            self._shuffled(self.convolved(x, "exit.0", 1, 1), up)
            if up > 2
            else self.convolved(x, "exit")
        )
        if config.reconstruction == "additive" and image:
            out = node(
                "Add", image, node("Div", out, self.gain(image, iteration)) if iteration else out
            )
        return out, after

    def _shuffled(self, x: str, up: int) -> str:
        return x if up == 1 else self.graph.node("DepthToSpace", x, blocksize=up, mode="CRD")


def head_of(config: RecurrentConfig, part: str, iteration: int) -> tuple[str, str]:
    """The names of the weights with which an iteration's encoder ends or its decoder begins."""
    head = (
        f"{'binarizers' if part == 'encoder' else 'entrances'}.{0 if config.shared else iteration}"
    )
    return f"{head}.weight", f"{head}.bias"


def state_names(count: int) -> list[str]:
    """How a step calls the states of its layers, before it; after it with "new_" before them."""
    return [f"{what}{index}" for index in range(count) for what in ("hidden", "cell")]


def step_graph(
    config: RecurrentConfig, weights: Weights, part: str, *, first: bool = False
) -> bytes:
    """One iteration of one side as an ONNX file, for `neural.network`.

    Args:
        weights: `shapes(config)`.
        part: "encoder" or "decoder".
        first: the first iteration, which has neither states nor an image before it.
    """
    graph = Graph(f"{part} step")
    steps = Steps(graph, config, weights)
    encoder = part == "encoder"
    layers = config.encoder if encoder else config.decoder
    picture = ("n", 3, "h", "w")
    free = "bits" if encoder else "outs"
    head = (
        graph.input("head.weight", "float32", (free, "ins", 1, 1)),
        graph.input("head.bias", "float32", (free,)),
    )
    states: list[tuple[str, str] | None] = [None] * len(layers)
    if not first:
        names = state_names(len(layers))
        for index, (channels, _) in enumerate(state_shapes(config, part)):
            shape = ("n", channels, f"rows{index}", f"columns{index}")
            states[index] = (
                graph.input(names[2 * index], "float32", shape),
                graph.input(names[2 * index + 1], "float32", shape),
            )
    wants_image = not first and (encoder or config.reconstruction == "additive")
    image = graph.input("image", "float32", picture) if wants_image else ""
    iteration = (
        graph.input("iteration", "float32", ()) if wants_image and config.residual_scaling else ""
    )
    if encoder:
        source = graph.input("source", "float32", picture)
        given = graph.input("given", "float32", ("n", config.given)) if config.given else ""
        made, after = steps.analysed(source, image, states, head, given=given, iteration=iteration)
        graph.output(made, "values", "float32", ("n", "bits", "rows", "columns"))
    else:
        bits = graph.input("bits", "float32", ("n", "bits", "rows", "columns"))
        made, after = steps.synthesised(bits, image, states, head, iteration=iteration)
        graph.output(made, "new_image", "float32", picture)
    for name, value in zip(
        state_names(len(after)), (each for pair in after for each in pair), strict=True
    ):
        graph.output(
            value, f"new_{name}", "float32", ("n", "channels", f"{name}.rows", f"{name}.columns")
        )
    return graph.to_bytes()
