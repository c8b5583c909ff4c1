"""Decoders and encoders of codecs with all iterations in one ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vizcomp.graphs import recurrent, spectral
from vizcomp.graphs.onnx_file import Graph
from vizcomp.graphs.recurrent import RecurrentConfig, Weights
from vizcomp.graphs.spectral import Before, Pair, SpectralConfig


def _shown_pixels(graph: Graph, image: str) -> str:
    """Images in -1..1 as whole levels: float32 (N, 3, H, W) to uint8 (N, H, W, 3), as
    `neural.arrays.to_pixels`."""
    node, number = graph.node, graph.constant
    shown = node("Clip", image, number(-1.0), number(1.0))
    levels = node("Round", node("Mul", node("Add", shown, number(1.0)), number(127.5)))
    return node("Cast", node("Transpose", levels, perm=(0, 2, 3, 1)), to=2)


def recurrent_decoder(
    config: RecurrentConfig, weights: Weights, iterations: int, metadata: Mapping[str, str]
) -> bytes:
    """A decoder of so many iterations as one ONNX file.

    Its inputs are `bits1`, `bits2` ..., float32 (N, bits of the iteration, rows, columns), each -1
    or 1; its outputs `image`, float32 (N, 3, H, W) in about -1..1, and `pixels`, uint8 (N, H, W,
    3).
    """
    graph = Graph("decoder")
    steps = recurrent.Steps(graph, config, weights)
    states: list[tuple[str, str] | None] = [None] * len(config.decoder)
    image = ""
    for t in range(iterations):
        bits = graph.input(f"bits{t + 1}", "float32", ("n", config.bits[t], "rows", "columns"))
        image, after = _decoded(steps, bits, image, states, t)
        states = list(after)
    graph.output(image, "image", "float32", ("n", 3, "h", "w"))
    graph.output(_shown_pixels(graph, image), "pixels", "uint8", ("n", "h", "w", 3))
    return graph.to_bytes(metadata)


def recurrent_encoder(
    config: RecurrentConfig, weights: Weights, iterations: int, metadata: Mapping[str, str]
) -> bytes:
    """An encoder of so many iterations as one ONNX file; it holds the decoder too, whose image each
    iteration improves.

    Its input is `pixels`, uint8 (N, H, W, 3) with sides that are multiples of the block, and, where
    the codec is told something, `given`, float32 (N, config.given): the logarithms of a
    classifier's probabilities, -10 at least. Its outputs are `bits1`, `bits2` ... as
    `recurrent_decoder` wants them.
    """
    graph = Graph("encoder")
    steps = recurrent.Steps(graph, config, weights)
    node, number = graph.node, graph.constant
    pixels = graph.input("pixels", "uint8", ("n", "h", "w", 3))
    given = graph.input("given", "float32", ("n", config.given)) if config.given else ""
    source = node("Transpose", node("Cast", pixels, to=1), perm=(0, 3, 1, 2))
    source = node("Sub", node("Div", source, number(127.5)), number(1.0))
    states: list[tuple[str, str] | None] = [None] * len(config.encoder)
    decoder: list[tuple[str, str] | None] = [None] * len(config.decoder)
    image = ""
    for t in range(iterations):
        iteration = number(float(t)) if config.residual_scaling and t else ""
        head = _weights_of(steps, "encoder", t)
        values, after = steps.analysed(
            source, image, states, head, given=given, iteration=iteration
        )
        states = list(after)
        bits = node(
            "Sub",
            node("Mul", node("Cast", node("Greater", values, number(0.0)), to=1), number(2.0)),
            number(1.0),
        )
        graph.output(bits, f"bits{t + 1}", "float32", ("n", config.bits[t], "rows", "columns"))
        if t + 1 < iterations:
            image, later = _decoded(steps, bits, image, decoder, t)
            decoder = list(later)
    return graph.to_bytes(metadata)


def _weights_of(steps: recurrent.Steps, part: str, iteration: int) -> tuple[str, str]:
    weight, bias = recurrent.head_of(steps.config, part, iteration)
    return steps.weight(weight), steps.weight(bias)


def _decoded(
    steps: recurrent.Steps, bits: str, image: str, states: Sequence[tuple[str, str] | None], t: int
) -> tuple[str, Iterable[tuple[str, str]]]:
    iteration = steps.graph.constant(float(t)) if steps.config.residual_scaling and t else ""
    return steps.synthesised(
        bits, image, states, _weights_of(steps, "decoder", t), iteration=iteration
    )


def _constant_head(
    graph: Graph, config: SpectralConfig, weights: Weights, part: str, iteration: int
) -> dict[str, str]:
    arrays = spectral.head_arrays(config, weights, part, iteration)
    return {
        name: graph.constant(value, np.int64 if name == "of" else np.float32)
        for name, value in arrays.items()
    }


def _shown(
    steps: spectral.Steps, config: SpectralConfig, weights: Weights, components: str, iteration: int
) -> str:
    rows = None
    if config.finish:
        fine, coarse = spectral.finish_rows(weights, iteration)
        rows = steps.graph.constant(fine), steps.graph.constant(coarse)
    return steps.picture(components, rows)


def spectral_decoder(
    config: SpectralConfig, weights: Weights, iterations: int, metadata: Mapping[str, str]
) -> bytes:
    """A decoder of so many iterations as one ONNX file; inputs and outputs as
    `recurrent_decoder` has them."""
    graph = Graph("decoder")
    steps = spectral.Steps(graph, config, weights)
    before: Before | None = None
    state: Pair = None
    for t in range(iterations):
        bits = graph.input(f"bits{t + 1}", "float32", ("n", config.bits[t], 1, 1))
        head = _constant_head(graph, config, weights, "decoder", t)
        before, state = steps.synthesised(graph.node("Flatten", bits, axis=1), before, state, head)
    assert before is not None
    image = _shown(steps, config, weights, before[1], iterations - 1)
    graph.output(image, "image", "float32", ("n", 3, config.native, config.native))
    graph.output(
        _shown_pixels(graph, image), "pixels", "uint8", ("n", config.native, config.native, 3)
    )
    return graph.to_bytes(metadata)


def spectral_encoder(
    config: SpectralConfig, weights: Weights, iterations: int, metadata: Mapping[str, str]
) -> bytes:
    """An encoder of so many iterations as one ONNX file; inputs and outputs as
    `recurrent_encoder` has them."""
    graph = Graph("encoder")
    steps = spectral.Steps(graph, config, weights)
    node, number = graph.node, graph.constant
    pixels = graph.input("pixels", "uint8", ("n", config.native, config.native, 3))
    source = node("Transpose", node("Cast", pixels, to=1), perm=(0, 3, 1, 2))
    source = steps.front(node("Sub", node("Div", source, number(127.5)), number(1.0)))
    before: Before | None = None
    state: Pair = None
    decoder: Pair = None
    for t in range(iterations):
        head = _constant_head(graph, config, weights, "encoder", t)
        values, state = steps.analysed(source, before, state, head)
        bits = node(
            "Sub",
            node("Mul", node("Cast", node("Greater", values, number(0.0)), to=1), number(2.0)),
            number(1.0),
        )
        square = node("Unsqueeze", bits, graph.constant([2, 3], np.int64))
        graph.output(square, f"bits{t + 1}", "float32", ("n", config.bits[t], 1, 1))
        if t + 1 < iterations:
            head = _constant_head(graph, config, weights, "decoder", t)
            before, decoder = steps.synthesised(bits, before, decoder, head)
    return graph.to_bytes(metadata)
