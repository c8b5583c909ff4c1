"""The recurrent codec's networks on compiled loops (`native/lstm.c`), on processors that have AVX2
and FMA: what `network` does with ONNX Runtime, in about half the time.

Arrays have their channels last. A decoder's layer that is followed by depth to space has its
channels in the order (row, column, channel), so that the next one reads them where they are.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.graphs.recurrent import RecurrentConfig, Weights, after_layer, head_of
from vizcomp.neural.network import Floats, State
from vizcomp.weights.sessions import available_cores

LANES, PANEL = 8, 16  # as native/lstm.c has them
PARTS = 192  # a layer is not cut into smaller pieces for threads

# 3x3 kernels to the domain of F(4x4, 3x3), Lavin and Gray 2016
TO_DOMAIN = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)


class Layer(NamedTuple):
    """A layer as `_native.layer_run` wants it: sizes, factors, and packed weights."""

    ins: int
    channels: int
    up: int
    down: int
    gates: int
    kernel: Floats
    hidden: Floats | None
    bias: Floats


class Points(NamedTuple):
    """A 1x1 convolution as `_native.points` wants it; of its outputs, the first `outs` are real."""

    outs: int
    kernel: Floats
    bias: Floats


def supports(config: RecurrentConfig) -> bool:
    """Whether this processor and these networks are such that the loops can be used."""
    if not _native.layers_possible():
        return False
    up = config.decoder[-1][1]
    channels = [config.scaled(config.stem[0]), config.scaled(config.decoder[0][0])]
    channels += [config.scaled(one[0]) for one in config.encoder]
    channels += [config.scaled(one[0], one[1] ** 2) for one in config.decoder]
    channels += [after_layer(config, index) for index in range(len(config.decoder))]
    return (
        config.stem[1] == 4
        and config.block % 8 == 0
        and config.scaled(config.stem[0]) % PANEL == 0
        and config.scaled(config.decoder[0][0]) % PANEL == 0
        and all(count % LANES == 0 for count in channels)
        and all(down <= 2 and hidden == 1 for _, down, hidden in config.encoder)
        and all(hidden == 1 for _, _, hidden in config.decoder)
        and up == 4
    )


def _panels(matrix: Floats) -> Floats:
    """(outs, ins) to (outs / 16, ins, 16)."""
    outs, ins = matrix.shape
    return np.ascontiguousarray(matrix.reshape(outs // PANEL, PANEL, ins).transpose(0, 2, 1))


def _gate_order(channels: int, shuffle: int) -> npt.NDArray[np.intp]:
    """Which of the 4 * channels outputs of a layer stands where: the four gates of eight channels
    together."""
    order = _channel_order(channels, shuffle).reshape(-1, 1, LANES)
    return np.asarray((order + channels * np.arange(4)[:, None]).reshape(-1))


def _channel_order(channels: int, shuffle: int) -> npt.NDArray[np.intp]:
    """Which channel stands where, so that depth to space by `shuffle` has nothing to do."""
    return np.arange(channels).reshape(-1, shuffle**2).T.reshape(-1)


def _in_domain(kernel: Floats, panels: int) -> Floats:
    """(outs, ins, 3, 3) to (blocks, 36, panels, ins, 16)."""
    outs, ins = kernel.shape[:2]
    moved = np.einsum("ia,oxab,jb->ijox", TO_DOMAIN, kernel, TO_DOMAIN, optimize=True)
    packed = moved.reshape(36, outs // (panels * PANEL), panels, PANEL, ins)
    return np.ascontiguousarray(packed.transpose(1, 0, 2, 4, 3))


def _cell(weights: Weights, name: str, up: int, down: int, shuffle: int) -> Layer:
    """A ConvLSTM layer; `up` is the depth to space before it, `shuffle` that after it."""
    kernel, hidden = weights[f"{name}.input.weight"], weights[f"{name}.hidden.weight"][..., 0, 0]
    channels, ins = hidden.shape[1], kernel.shape[1]
    order = _gate_order(channels, shuffle)
    kernel, bias = kernel[order], np.ascontiguousarray(weights[f"{name}.input.bias"][order])
    hidden = hidden[order][:, _channel_order(channels, shuffle)]
    if down == 1:
        return Layer(ins, channels, up, 1, 1, _in_domain(kernel, 2), _panels(hidden), bias)
    taps = kernel.transpose(0, 2, 3, 1).reshape(4 * channels, 9 * ins)
    both = _panels(np.concatenate([taps, hidden], 1))
    return Layer(ins, channels, 1, down, 1, both, None, bias)


def _points(matrix: Floats, bias: Floats) -> Points:
    """(outs, ins); outputs are filled up with zeros to whole panels."""
    outs, ins = matrix.shape
    more = -outs % PANEL
    return Points(
        outs,
        _panels(np.concatenate([matrix, np.zeros((more, ins), np.float32)])),
        np.concatenate([bias, np.zeros(more, np.float32)]),
    )


class CompiledNetwork:
    """Encoder, binarizer and decoder of one codec, as `network.Network`; its states are (N, h, w,
    c).

    Args:
        config: one that `supports` allows.
        weights: float32, as `graphs.recurrent.shapes`.
        threads: that compute together; 0: as many as there are cores.
    """

    def __init__(self, config: RecurrentConfig, weights: Weights, *, threads: int = 0) -> None:
        self.config = config
        self._weights = weights
        self._threads = threads or available_cores()
        self._made: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}

    def start(self, count: int, height: int, width: int) -> State:
        """As `Network.start`."""
        return State((), (), np.zeros((count, 3, height, width), np.float32), 0)

    def prepared(self, source: Floats) -> Floats:
        """As `Network.prepared`."""
        return np.ascontiguousarray(source)

    def picture(self, state: State) -> Floats:
        """As `Network.picture`."""
        return state.image

    def layers(self, part: str) -> list[Layer]:
        """The packed weights of a side, made when they are first needed."""
        if part not in self._made:
            if part == "encoder":
                downs = [down for _, down, _ in self.config.encoder]
                made = [
                    _cell(self._weights, f"encoder.{i}", 1, down, 1) for i, down in enumerate(downs)
                ]
            else:
                ups = [up for _, up, _ in self.config.decoder]
                shuffles = [*ups[:-1], 1]
                made = [
                    _cell(self._weights, f"decoder.{i}", before, 1, shuffle)
                    for i, (before, shuffle) in enumerate(
                        zip([1, *ups[:-1]], shuffles, strict=True)
                    )
                ]
                kernel, bias = self._weights["exit.0.weight"], self._weights["exit.0.bias"]
                outs, ins = kernel.shape[:2]
                made.append(Layer(ins, outs, 1, 1, 0, _in_domain(kernel, 1), None, bias))
            self._made[part] = made
        layers: list[Layer] = self._made[part]
        return layers

    def _run(self, layer: Layer, x: Floats, state: tuple[Any, Any], grid: tuple[int, ...]) -> Any:
        """One step of a layer: its hidden state and cell, or outputs and None."""
        shape = (*grid, layer.channels)
        hidden = np.empty(shape, np.float32)
        cell = np.empty(shape, np.float32) if layer.gates else None
        sizes = (*grid, layer.ins, layer.channels, layer.up, layer.down, layer.gates)
        parts = _native.layer_parts(sizes)
        count = min(self._threads, max(1, parts // PARTS))
        cuts = [parts * i // count for i in range(count + 1)]

        def run(i: int) -> None:
            _native.layer_run(
                sizes,
                cuts[i],
                cuts[i + 1],
                x,
                layer.kernel,
                layer.hidden,
                layer.bias,
                *state,
                hidden,
                cell,
            )

        if count == 1:
            run(0)
        else:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(run, range(count)))
        return hidden, cell

    def _at(self, points: Points, x: Floats, *, tanh: bool) -> Floats:
        """A 1x1 convolution of (N, h, w, c)."""
        out = np.empty((*x.shape[:-1], len(points.bias)), np.float32)
        places = math.prod(x.shape[:-1])
        _native.points(
            places, x.shape[-1], out.shape[-1], int(tanh), x, points.kernel, points.bias, out
        )
        return out[..., : points.outs]

    def _head(self, part: str, iteration: int) -> Points:
        key = f"{part} {iteration}"
        if key not in self._made:
            weight, bias = head_of(self.config, part, iteration)
            self._made[key] = _points(self._weights[weight][..., 0, 0], self._weights[bias])
        head: Points = self._made[key]
        return head

    def _strength(self, iteration: int) -> float:
        return 1 + iteration / 2 if self.config.residual_scaling and iteration else 0.0

    def analyse(
        self, source: Floats, state: State, given: Floats | None = None
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """As `Network.analyse`; `source` is of `prepared`."""
        config, n = self.config, len(source)
        height, width = source.shape[2:]
        both = config.sees == "both"
        side = config.stem[1]
        planes = 6 if both else 3
        x = np.empty((n, height // side, width // side, planes * side**2), np.float32)
        image = np.ascontiguousarray(state.image) if state.iteration else None
        strength = self._strength(state.iteration)
        _native.picture_patches(n, height, width, side, strength, int(both), source, image, x)
        if "stem" not in self._made:
            kernel = self._weights["stem.weight"]
            self._made["stem"] = _points(
                kernel.reshape(len(kernel), -1), self._weights["stem.bias"]
            )
        x = self._at(self._made["stem"], x, tanh=False)
        if config.given and given is not None:
            x += (given @ self._weights["told.weight"].T)[:, None, None]
        after: list[Floats] = []
        for index, layer in enumerate(self.layers("encoder")):
            before = state.encoder[2 * index : 2 * index + 2] or (None, None)
            grid = (n, x.shape[1] // layer.down, x.shape[2] // layer.down)
            after += self._run(layer, x, (before[0], before[1]), grid)
            x = after[-2]
        values = self._at(self._head("encoder", state.iteration), x, tanh=True)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)), tuple(after)

    def synthesise(self, bits: npt.NDArray[np.bool_], state: State) -> State:
        """As `Network.synthesise`."""
        signs = np.where(bits, np.float32(1), np.float32(-1)).transpose(0, 2, 3, 1)
        head = self._head("decoder", state.iteration)
        x = self._at(head, np.ascontiguousarray(signs), tanh=True)
        grid = x.shape[:3]
        after: list[Floats] = []
        *cells, leave = self.layers("decoder")
        for index, layer in enumerate(cells):
            before = state.decoder[2 * index : 2 * index + 2] or (None, None)
            grid = (grid[0], grid[1] * layer.up, grid[2] * layer.up)
            after += self._run(layer, x, (before[0], before[1]), grid)
            x = after[-2]
        out, _ = self._run(leave, x, (None, None), grid)
        side = self.config.decoder[-1][1]
        n, height, width = grid[0], grid[1] * side, grid[2] * side
        image = np.empty((n, 3, height, width), np.float32)
        additive = self.config.reconstruction == "additive" and state.iteration > 0
        old = np.ascontiguousarray(state.image) if additive else None
        strength = self._strength(state.iteration)
        _native.picture_improve(n, height, width, side, strength, out, old, image)
        return State(state.encoder, tuple(after), image, state.iteration + 1)

    def in_torch_order(self, state: State) -> State:
        """The decoder's state as the modules of `nets` have it: (N, c, h, w), no channel moved."""
        layers = self.config.decoder
        decoder = []
        for index, array in enumerate(state.decoder):
            up = layers[index // 2][1] if index // 2 < len(layers) - 1 else 1
            plain = np.empty_like(array)
            plain[..., _channel_order(array.shape[-1], up)] = array
            decoder.append(np.ascontiguousarray(plain.transpose(0, 3, 1, 2)))
        return state._replace(decoder=tuple(decoder))
