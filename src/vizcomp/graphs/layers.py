"""Layers of classifiers as nodes of an ONNX graph, each normalisation folded into the convolution
before it.

An architecture is written once, as calls of these layers. Without a graph nothing is built, and
`shapes` says which weights it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.graphs.onnx_file import Graph

Array = npt.NDArray[np.float32]
Pair = tuple[int, int]


class Layers:
    """A graph of layers, or, without weights, the shapes of the weights that they have.

    Args:
        graph: where the nodes go; None: only shapes are wanted.
        weights: by the names of the torch modules.
    """

    def __init__(
        self, graph: Graph | None = None, weights: Mapping[str, Array] | None = None
    ) -> None:
        self.graph = graph
        self._weights = weights or {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def _claim(self, name: str, *shape: int) -> None:
        self.shapes[name] = shape

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """An operator without weights."""
        return self.graph.node(kind, *inputs, **attributes) if self.graph is not None else ""

    def _constant(self, array: npt.ArrayLike) -> str:
        assert self.graph is not None
        return self.graph.constant(array)

    def _convolved(
        self, x: str, weight: Array, bias: Array | None, stride: int, padding: Pair
    ) -> str:
        more = [self._constant(bias)] if bias is not None else []
        return self.node(
            "Conv",
            x,
            self._constant(weight),
            *more,
            strides=(stride, stride),
            pads=(*padding, *padding),
        )

    def plain(self, x: str, name: str, ins: int, outs: int, kernel: int) -> str:
        """A convolution with a bias."""
        self._claim(f"{name}.weight", outs, ins, kernel, kernel)
        self._claim(f"{name}.bias", outs)
        if self.graph is None:
            return ""
        return self._convolved(
            x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], 1, (0, 0)
        )

    def convolved(
        self,
        x: str,
        name: str,
        ins: int,
        outs: int,
        kernel: int | Pair,
        *,
        stride: int = 1,
        padding: int | Pair = 0,
        names: Pair | tuple[str, str] = ("conv", "bn"),
        epsilon: float = 0.001,
        pool: str = "",
        activation: str = "Relu",
    ) -> str:
        """A convolution without bias, a pooling, a normalisation, an activation.

        Args:
            names: of the convolution and of the normalisation, below `name`.
            pool: "": none; "mean": over 3x3 at stride 1; "max2": over 2x2 at stride 2.
            activation: an operator of ONNX, "Gelu", or "" for none.
        """
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        convolution, norm = f"{name}.{names[0]}", f"{name}.{names[1]}"
        self._claim(f"{convolution}.weight", outs, ins, high, wide)
        for each in ("weight", "bias", "running_mean", "running_var"):
            self._claim(f"{norm}.{each}", outs)
        if self.graph is None:
            return ""
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{each}"]
            for each in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + np.float32(epsilon))
        bias = beta - mean * factor
        weight = self._weights[f"{convolution}.weight"]
        sides = padding if isinstance(padding, tuple) else (padding, padding)
        if not pool:
            x = self._convolved(x, weight * factor[:, None, None, None], bias, stride, sides)
        elif pool == "mean":  # zeros are part of the mean at the border: the bias comes after it
            x = self._convolved(x, weight * factor[:, None, None, None], None, stride, sides)
            x = self.node(
                "AveragePool", x, kernel_shape=(3, 3), pads=(1, 1, 1, 1), count_include_pad=1
            )
            x = self.node("Add", x, self._constant(bias[:, None, None]))
        else:  # a maximum knows nothing of a factor below zero
            x = self._convolved(x, weight, None, stride, sides)
            x = self.largest(x, 2)
            x = self.node(
                "Add",
                self.node("Mul", x, self._constant(factor[:, None, None])),
                self._constant(bias[:, None, None]),
            )
        return (
            self.gelu(x) if activation == "Gelu" else self.node(activation, x) if activation else x
        )

    def largest(self, x: str, kernel: int) -> str:
        """The largest of each 2x2, or of each 3x3, at stride 2."""
        return self.node("MaxPool", x, kernel_shape=(kernel, kernel), strides=(2, 2))

    def gelu(self, x: str) -> str:
        """Hendrycks and Gimpel 2016, exactly."""
        if self.graph is None:
            return ""
        half, one, root = (self._constant(value) for value in (0.5, 1.0, 2**0.5))
        return self.node(
            "Mul",
            self.node("Mul", x, half),
            self.node("Add", self.node("Erf", self.node("Div", x, root)), one),
        )

    def joined(self, branches: Sequence[str]) -> str:
        """Channels side by side."""
        return self.node("Concat", *branches, axis=1)

    def answered(
        self, x: str, ins: int, classes: int, *, how: str, bias: bool, scale: float = 1.0
    ) -> str:
        """The mean or the maximum (`how`: "Mean", "Max") over all places, and a linear layer `fc`:
        logits (N, classes)."""
        self._claim("fc.weight", classes, ins)
        if bias:
            self._claim("fc.bias", classes)
        if self.graph is None:
            return ""
        x = self.node(
            "Flatten", self.node("GlobalAveragePool" if how == "Mean" else "GlobalMaxPool", x)
        )
        more = [self._constant(self._weights["fc.bias"])] if bias else []
        return self.node(
            "Gemm",
            x,
            self._constant(self._weights["fc.weight"]),
            *more,
            transB=1,
            alpha=float(scale),
        )
