"""The recurrent codec of small pictures in their spectrum: its configuration, and its networks as
ONNX graphs.

`nets.spectral` describes them. A picture goes through the front once; then encoder and decoder take
turns, a step each in every iteration, with what differs between iterations as inputs; what is shown
goes through the last graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import SettingsError
from vizcomp.graphs.onnx_file import Graph

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]
Ladder = tuple[
    tuple[int, int], ...
]  # (how many components, thresholds of each), the largest components first

Weights = Mapping[str, Array]
Pair = tuple[str, str] | None  # hidden state and cell of a layer; None at the start
Before = tuple[str, str]  # what was seen, and the components, before a step
Head = Mapping[str, str]  # what differs between iterations

MAX_SIDE, MAX_BITS = 128, 4096
SOURCE_SCALE = 0.3  # of the picture's components, as the encoder's layer sees them
SLOPE = 2.0  # of tanh about a threshold, in steps


@dataclasses.dataclass(frozen=True)
class SpectralConfig:
    """What such a codec's networks look like.

    Attributes:
        native: side of the pictures.
        zones: for each of the three colours, the frequencies that are kept: vertical and horizontal
            number below this sum.
        encoder, decoder: channels of the two ConvLSTM layers.
        ladders: for each iteration, how many thresholds (so many bits) the components have.
        steps: for each iteration, the distance of thresholds, in units of pixels in -1..1: the
            scale of its weights.
        finish: channels of the last network at a half and a quarter of the side; () for none.
    """

    native: int = 32
    zones: tuple[int, int, int] = (26, 12, 8)
    encoder: int = 128
    decoder: int = 160
    ladders: tuple[Ladder, ...] = ()
    steps: tuple[float, ...] = ()
    finish: tuple[int, ...] = (48, 96)

    def __post_init__(self) -> None:
        def refuse(reason: str) -> None:
            raise SettingsError(f"codec network: {reason}")

        if not 8 <= self.native <= MAX_SIDE or self.native % 4:
            refuse(f"native {self.native} is no multiple of 4 in 8..{MAX_SIDE}")
        if len(self.zones) != 3 or not all(1 <= zone < 2 * self.native for zone in self.zones):
            refuse(f"zones {self.zones} are not three numbers in 1..{2 * self.native - 1}")
        if not 1 <= self.encoder <= 1024 or not 1 <= self.decoder <= 1024:
            refuse("layers of 1 to 1024 channels are possible")
        if not 1 <= len(self.ladders) <= 16 or len(self.steps) != len(self.ladders):
            refuse("1 to 16 iterations, each with ladders and a step, are needed")
        for ladder, bits in zip(self.ladders, self.bits, strict=True):
            if not 1 <= bits <= MAX_BITS or not all(
                count >= 1 and many in range(2, 65, 2) for count, many in ladder
            ):
                refuse(
                    f"an iteration of {bits} bits is not possible, with an even number up to 64 for"
                    " a component"
                )
            if sum(count for count, _ in ladder) > self.components:
                refuse(f"ladders for more than {self.components} components")
        if not all(1e-3 <= step <= 1e3 for step in self.steps):
            refuse(f"steps {self.steps} are not in 0.001..1000")
        if len(self.finish) not in (0, 2) or not all(
            4 <= channels <= 512 and channels % 4 == 0 for channels in self.finish
        ):
            refuse(f"finish {self.finish} is not two multiples of 4 up to 512")

    given = 0  # such an encoder is told nothing
    shared = False

    @property
    def block(self) -> int:
        """Side of the square behind one position of the code: the whole picture."""
        return self.native

    @property
    def components(self) -> int:
        """Numbers that the networks see of a picture."""
        return len(self.frequencies())

    @property
    def bits(self) -> tuple[int, ...]:
        """Of each iteration."""
        return tuple(sum(count * many for count, many in ladder) for ladder in self.ladders)

    @property
    def iterations(self) -> int:
        """How many iterations there can be."""
        return len(self.ladders)

    def frequencies(self) -> list[tuple[int, int, int]]:
        """(colour, vertical, horizontal) of what is kept, in the order of the networks' input."""
        side = range(self.native)
        return [
            (colour, v, h)
            for colour, zone in enumerate(self.zones)
            for v in side
            for h in side
            if v + h < zone
        ]

    def component_of(self, iteration: int) -> npt.NDArray[np.int64]:
        """The component that each bit of an iteration compares."""
        counts = [many for count, many in self.ladders[iteration] for _ in range(count)]
        return np.repeat(np.arange(len(counts)), counts)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SpectralConfig:
        """The inverse of `to_dict`.

        Raises:
            SettingsError: an unknown field or an impossible value.
        """
        values = dict(values)
        if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(cls)}):
            raise SettingsError(f"unknown setting of the codec network: {', '.join(unknown)}")
        try:
            for key in ("zones", "steps", "finish"):
                if key in values:
                    values[key] = tuple(values[key])
            if "ladders" in values:
                values["ladders"] = tuple(
                    tuple((int(a), int(b)) for a, b in ladder) for ladder in values["ladders"]
                )
            return cls(**values)
        except (TypeError, ValueError) as exc:
            raise SettingsError(f"codec network: {exc}") from exc


def spectrum(config: SpectralConfig) -> Array:
    """The transform of a picture: float32 (components, 3 * native * native), orthonormal rows.

    A DCT (type II) of three colours: their sum, red minus blue, and green against both, as the
    principal axes of natural pictures' colours nearly are.
    """
    side = config.native
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float64)
    colours /= np.sqrt((colours**2).sum(1, keepdims=True))
    waves = np.cos(
        np.pi * (2 * np.arange(side) + 1) * np.arange(side)[:, None] / (2 * side)
    ) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    rows = [
        np.einsum("c,y,x->cyx", colours[c], waves[v], waves[h]).ravel()
        for c, v, h in config.frequencies()
    ]
    return np.asarray(rows, np.float32)


def shapes(config: SpectralConfig) -> dict[str, Shape]:
    """The weights that such a codec has: names and shapes."""
    k = config.components
    found: dict[str, Shape] = {
        "stem.weight": (k, k),
        "stem.bias": (k,),
        "exit.weight": (k, k),
        "exit.bias": (k,),
    }
    for name, ins, channels in (("encoder", 2 * k, config.encoder), ("decoder", k, config.decoder)):
        found |= {
            f"{name}.input.weight": (4 * channels, ins),
            f"{name}.input.bias": (4 * channels,),
        }
        found |= {
            f"{name}.hidden.weight": (4 * channels, channels),
            f"{name}.output.weight": (k, channels),
        }
    for t, bits in enumerate(config.bits):
        found |= {f"binarizers.{t}.bias": (bits,), f"binarizers.{t}.shift": (k,)}
        found |= {
            f"entrances.{t}.step": (bits,),
            f"entrances.{t}.bias": (k,),
            f"entrances.{t}.shift": (k,),
        }
    if config.finish:
        fine, coarse = config.finish
        sizes = {
            "enter": (fine, 12, 3),
            "down": (coarse, fine, 3),
            "coarse1": (coarse, coarse, 3),
            "coarse2": (coarse, coarse, 3),
            "up": (4 * fine, coarse, 1),
            "fine1": (fine, fine, 3),
            "fine2": (fine, fine, 3),
            "leave": (12, fine, 3),
        }
        for name, (outs, ins, side) in sizes.items():
            found |= {
                f"finish.{name}.weight": (outs, ins, side, side),
                f"finish.{name}.bias": (outs,),
            }
        found |= {
            "finish.fine": (config.iterations, fine),
            "finish.coarse": (config.iterations, coarse),
        }
    return found


class Steps:
    """Adds parts of the networks to a graph; each weight stands in it once."""

    def __init__(self, graph: Graph, config: SpectralConfig, weights: Weights) -> None:
        self.graph, self.config = graph, config
        self._weights = weights
        self._made: dict[str, str] = {}

    def weight(self, name: str, *, turned: bool = False) -> str:
        """A weight; `turned`: as the right side of a product."""
        if name not in self._made:
            value = self._weights[name]
            self._made[name] = self.graph.constant(value.T if turned else value, name=name)
        return self._made[name]

    def linear(self, x: str, name: str, *, bias: bool = True) -> str:
        product = self.graph.node("MatMul", x, self.weight(f"{name}.weight", turned=True))
        return self.graph.node("Add", product, self.weight(f"{name}.bias")) if bias else product

    def layer(self, x: str, state: Pair, name: str) -> tuple[str, tuple[str, str]]:
        """An LSTM cell and its output: the output's name, and those of the new hidden state and
        cell."""
        node = self.graph.node
        gates = self.linear(x, f"{name}.input")
        if state is not None:
            gates = node("Add", gates, self.linear(state[0], f"{name}.hidden", bias=False))
        take, keep, new, show = self.graph.nodes("Split", gates, outputs=4, axis=1)
        cell = node("Mul", node("Sigmoid", take), node("Tanh", new))
        if state is not None:
            cell = node("Add", cell, node("Mul", node("Sigmoid", keep), state[1]))
        hidden = node("Mul", node("Sigmoid", show), node("Tanh", cell))
        return self.linear(hidden, f"{name}.output", bias=False), (hidden, cell)

    def front(self, image: str) -> str:
        """A picture (N, 3, H, W) in -1..1 to its components (N, K)."""
        flat = self.graph.node("Flatten", image, axis=1)
        waves = self.graph.constant(spectrum(self.config).T)
        return self.linear(self.graph.node("MatMul", flat, waves), "stem")

    def analysed(
        self, source: str, before: Before | None, state: Pair, head: Head
    ) -> tuple[str, tuple[str, str]]:
        """One step of the encoder: its values, whose signs are the bits, and the new state."""
        node, number = self.graph.node, self.graph.constant
        left = node("Div", node("Sub", source, before[1]) if before else source, head["scale"])
        x = node("Concat", node("Mul", source, number(SOURCE_SCALE)), left, axis=1)
        change, after = self.layer(x, state, "encoder")
        z = node("Add", left, change)
        if before:
            z = node("Add", z, node("Mul", before[0], head["shift"]))
        compared = node("Sub", node("Gather", z, head["of"], axis=1), head["thresholds"])
        return node("Tanh", node("Mul", compared, number(SLOPE))), after

    def synthesised(
        self, bits: str, before: Before | None, state: Pair, head: Head
    ) -> tuple[Before, tuple[str, str]]:
        """One step of the decoder: what was seen, and the components, after it; and the new
        state."""
        node, number = self.graph.node, self.graph.constant
        level = node("Add", node("MatMul", bits, head["steps"]), head["offset"])
        count = node("MatMul", bits, head["counted"])
        seen = node("Min", node("Abs", count), number(1.0))  # sums of ones: whole numbers
        if before:
            level = node("Add", level, node("Mul", before[0], head["back"]))
            seen = node("Max", seen, before[0])
        correction, after = self.layer(level, state, "decoder")
        change = node("Mul", node("Add", level, correction), head["scale"])
        return (seen, node("Add", before[1], change) if before else change), after

    def picture(self, components: str, rows: tuple[str, str] | None) -> str:
        """Components (N, K) to the picture (N, 3, H, W); `rows`: what the last network is told of
        the iteration."""
        graph, side = self.graph, self.config.native
        flat = graph.node(
            "MatMul", self.linear(components, "exit"), graph.constant(spectrum(self.config))
        )
        image = graph.node("Reshape", flat, graph.constant([-1, 3, side, side], np.int64))
        return self._finished(image, rows) if rows else image

    def _finished(self, image: str, rows: tuple[str, str]) -> str:
        graph, half = self.graph, self.config.native // 2
        node = graph.node

        def convolved(x: str, name: str, stride: int = 1) -> str:
            pads = (
                (1, 1, 1, 1)
                if self._weights[f"finish.{name}.weight"].shape[2] == 3
                else (0, 0, 0, 0)
            )
            weight, bias = self.weight(f"finish.{name}.weight"), self.weight(f"finish.{name}.bias")
            return node("Conv", x, weight, bias, strides=(stride, stride), pads=pads)

        def twice(x: str, first: str, second: str) -> str:
            return node(
                "Add", x, convolved(node("Relu", convolved(node("Relu", x), first)), second)
            )

        squares = node("Reshape", image, graph.constant([-1, 3, half, 2, half, 2], np.int64))
        squares = node("Transpose", squares, perm=(0, 1, 3, 5, 2, 4))
        x = convolved(
            node("Reshape", squares, graph.constant([-1, 12, half, half], np.int64)), "enter"
        )
        x = node("Add", x, rows[0])
        low = twice(
            node("Add", convolved(node("Relu", x), "down", 2), rows[1]), "coarse1", "coarse2"
        )
        up = convolved(node("Relu", low), "up")
        x = twice(
            node("Add", x, node("DepthToSpace", up, blocksize=2, mode="CRD")), "fine1", "fine2"
        )
        change = node("DepthToSpace", convolved(node("Relu", x), "leave"), blocksize=2, mode="CRD")
        return node("Add", image, change)


def head_arrays(
    config: SpectralConfig, weights: Weights, part: str, iteration: int
) -> dict[str, npt.NDArray[Any]]:
    """What a step of an iteration takes beside states: of the encoder thresholds and shift, of the
    decoder steps and offsets."""
    of = config.component_of(iteration)
    scale = np.asarray(config.steps[iteration], np.float32)
    if part == "encoder":
        head = f"binarizers.{iteration}"
        return {
            "scale": scale,
            "of": of,
            "thresholds": weights[f"{head}.bias"],
            "shift": weights[f"{head}.shift"],
        }
    head = f"entrances.{iteration}"
    counted = np.zeros((len(of), config.components), np.float32)
    counted[np.arange(len(of)), of] = 1
    steps = counted * weights[f"{head}.step"][:, None]
    return {
        "scale": scale,
        "steps": steps,
        "counted": counted,
        "offset": weights[f"{head}.bias"],
        "back": weights[f"{head}.shift"],
    }


def finish_rows(weights: Weights, iteration: int) -> tuple[Array, Array]:
    """What the last network is told of the iteration: (1, channels, 1, 1) each."""
    fine, coarse = (weights[f"finish.{name}"][iteration] for name in ("fine", "coarse"))
    return fine[None, :, None, None], coarse[None, :, None, None]


def step_graph(
    config: SpectralConfig, weights: Weights, part: str, *, first: bool = False
) -> bytes:
    """One iteration of one side as an ONNX file, for `neural.spectral`. Inputs and outputs have the
    names of `head_arrays`, and `source` or `bits`, `seen`, `components`, `hidden`, `cell`.

    Args:
        weights: `shapes(config)`.
        part: "encoder" or "decoder".
        first: the first iteration, which has no state before it.
    """
    graph = Graph(f"{part} step")
    steps = Steps(graph, config, weights)
    k, channels = config.components, config.encoder if part == "encoder" else config.decoder
    state, before = None, None
    if not first:
        state = (
            graph.input("hidden", "float32", ("n", channels)),
            graph.input("cell", "float32", ("n", channels)),
        )
        before = (
            graph.input("seen", "float32", ("n", k)),
            graph.input("components", "float32", ("n", k)),
        )
    head = {"scale": graph.input("scale", "float32", ())}
    if part == "encoder":
        head["of"] = graph.input("of", "int64", ("bits",))
        head["thresholds"] = graph.input("thresholds", "float32", ("bits",))
        if not first:
            head["shift"] = graph.input("shift", "float32", (k,))
        values, after = steps.analysed(
            graph.input("source", "float32", ("n", k)), before, state, head
        )
        graph.output(values, "values", "float32", ("n", "bits"))
    else:
        for name in ("steps", "counted"):
            head[name] = graph.input(name, "float32", ("bits", k))
        for name in ("offset", "back")[: 1 if first else 2]:
            head[name] = graph.input(name, "float32", (k,))
        (seen, components), after = steps.synthesised(
            graph.input("bits", "float32", ("n", "bits")), before, state, head
        )
        graph.output(seen, "new_seen", "float32", ("n", k))
        graph.output(components, "new_components", "float32", ("n", k))
    for name, value in zip(("hidden", "cell"), after, strict=True):
        graph.output(value, f"new_{name}", "float32", ("n", channels))
    return graph.to_bytes()


def front_graph(config: SpectralConfig, weights: Weights) -> bytes:
    """Pictures `source` (N, 3, H, W) in -1..1 to `components` (N, K), as an ONNX file."""
    graph = Graph("front")
    image = graph.input("source", "float32", ("n", 3, config.native, config.native))
    graph.output(
        Steps(graph, config, weights).front(image),
        "components",
        "float32",
        ("n", config.components),
    )
    return graph.to_bytes()


def picture_graph(config: SpectralConfig, weights: Weights) -> bytes:
    """`components` (N, K), and `fine` and `coarse` of `finish_rows`, to pictures `image` (N, 3, H,
    W), as an ONNX file."""
    graph = Graph("picture")
    components = graph.input("components", "float32", ("n", config.components))
    rows = None
    if config.finish:
        fine, coarse = config.finish
        rows = (
            graph.input("fine", "float32", (1, fine, 1, 1)),
            graph.input("coarse", "float32", (1, coarse, 1, 1)),
        )
    image = Steps(graph, config, weights).picture(components, rows)
    graph.output(image, "image", "float32", ("n", 3, config.native, config.native))
    return graph.to_bytes()
