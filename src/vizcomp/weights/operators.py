"""Operators of ONNX in NumPy, as far as our own networks have them: those around their
convolutions, and those that unpack their weights.

Each takes a node's attributes and its arrays. `Unreadable` says that a variant is not done here;
`known` finds most of these before anything runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.weights.onnx_read import TYPES, Node, Unreadable

Array = npt.NDArray[Any]
Attributes = dict[str, Any]
OLDEST, NEWEST = 13, 17  # versions of the operators that are as below
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mod", "Pow")
# what unpacks weights; nothing else is worth a thought before a photo is there
UNPACKS = {
    *ARITHMETIC,
    *("Cast", "Constant", "Identity", "Reshape", "Slice", "Transpose", "Unsqueeze", "Concat"),
}
MOST_NUMBERS = 1 << 24  # of an unpacked array


def _divide(_: Attributes, a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        if (a < 0).any() or (b <= 0).any():
            raise Unreadable("a division of negative integers")
        return np.asarray(a // b)
    return np.asarray(a / b)


def _modulo(attributes: Attributes, a: Array, b: Array) -> Array:
    if attributes.get("fmod", 0) or a.dtype.kind not in "iu" or (b == 0).any():
        raise Unreadable("a remainder of numbers that are no integers")
    return np.asarray(np.mod(a, b))


def _sigmoid(_: Attributes, x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _reshape(attributes: Attributes, x: Array, shape: Array) -> Array:
    if attributes.get("allowzero", 0):
        raise Unreadable("sides of 0")
    sides = [x.shape[i] if side == 0 else int(side) for i, side in enumerate(shape)]
    return x.reshape(sides)


def _unsqueeze(_: Attributes, x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


def _slice(
    _: Attributes, x: Array, start: Array, end: Array, axes: Array | None = None, *more: Array
) -> Array:
    steps = more[0] if more else np.ones(len(start), np.int64)
    index = [slice(None)] * x.ndim
    for i, axis in enumerate(range(len(start)) if axes is None else axes):
        first, last, step = int(start[i]), int(end[i]), int(steps[i])
        # as ONNX cuts them: a last one far below 0 of a walk backwards means the beginning
        index[int(axis)] = slice(
            first, None if step < 0 and last < -x.shape[int(axis)] else last, step
        )
    return x[tuple(index)]


def _gather(attributes: Attributes, x: Array, index: Array) -> Array:
    return np.asarray(np.take(x, index, axis=attributes.get("axis", 0)))


def _mean(attributes: Attributes, x: Array) -> Array:
    axes, keep = attributes["axes"], bool(attributes.get("keepdims", 1))
    return np.asarray(x.mean(axes, keepdims=keep))


def _max(attributes: Attributes, x: Array) -> Array:
    axes, keep = attributes["axes"], bool(attributes.get("keepdims", 1))
    return np.asarray(x.max(axes, keepdims=keep))


def _pool(attributes: Attributes, x: Array) -> Array:
    """Means of squares that touch; rows and columns that fill none are left out."""
    down, across = attributes["kernel_shape"]
    rows, cols = x.shape[2] // down * down, x.shape[3] // across * across
    total = x[:, :, 0:rows:down, 0:cols:across].copy()
    for i in range(down):
        for j in range(across):
            if i or j:
                total += x[:, :, i:rows:down, j:cols:across]
    total *= np.float32(1 / (down * across))
    return np.asarray(total)


def _product(attributes: Attributes, x: Array, weights: Array, bias: Array) -> Array:
    return np.asarray(x @ (weights.T if attributes.get("transB", 0) else weights) + bias)


def _larger(attributes: Attributes, x: Array, *more: Array) -> Array:
    """Resize by whole factors: linear about the middles of cells, or each value repeated."""
    down, across = (int(factor) for factor in more[-1][2:])
    n, channels, rows, cols = x.shape
    last = x.transpose(0, 2, 3, 1)
    if attributes["mode"] == b"nearest":
        out = np.empty((n, rows, down, cols, across, channels), x.dtype)
        out[...] = last[:, :, None, :, None]
        return out.reshape(n, rows * down, cols * across, channels).transpose(0, 3, 1, 2)
    if channels < 8:  # plane by plane
        return np.asarray(between(rows, down) @ (x @ between(cols, across).T))
    last = np.ascontiguousarray(last)
    tall = between(rows, down) @ last.reshape(n, rows, cols * channels)
    wide = between(cols, across) @ tall.reshape(n, rows * down, cols, channels)
    return np.asarray(wide.transpose(0, 3, 1, 2))


@functools.lru_cache(maxsize=64)
def between(count: int, factor: int) -> npt.NDArray[np.float32]:
    """(count * factor, count): the shares of the cells beside each place."""
    places = np.clip((np.arange(count * factor) + 0.5) / factor - 0.5, 0, count - 1)
    low = np.minimum(places.astype(np.intp), max(0, count - 2))
    shares = np.zeros((len(places), count), np.float32)
    shares[np.arange(len(places)), low] = 1 - (places - low)
    if count > 1:
        shares[np.arange(len(places)), low + 1] = places - low
    return shares


OPERATORS: dict[str, Callable[..., Array]] = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": _divide,
    "Mod": _modulo,
    "Pow": lambda _, a, b: np.asarray(a**b, a.dtype),
    "Sqrt": lambda _, x: np.sqrt(x),
    "Log": lambda _, x: np.log(x),
    "Sigmoid": _sigmoid,
    "Relu": lambda _, x: np.maximum(x, 0),
    "Identity": lambda _, x: x,
    "Cast": lambda attributes, x: x.astype(TYPES[attributes["to"]]),
    "Constant": lambda attributes: attributes["value"],
    "Transpose": lambda attributes, x: x.transpose(attributes["perm"]),
    "Concat": lambda attributes, *parts: np.concatenate(parts, attributes["axis"]),
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Gather": _gather,
    "ReduceMean": _mean,
    "ReduceMax": _max,
    "AveragePool": _pool,
    "Gemm": _product,
    "Resize": _larger,
}


def unpacked(node: Node, given: list[Array]) -> Array:
    """The value of a node whose inputs are always the same.

    Raises:
        Unreadable: it is too large, or no such node unpacks weights.
    """
    if node.kind not in UNPACKS:
        raise Unreadable(f"{node.kind} of what is always the same")
    if node.kind in ARITHMETIC:
        size = math.prod(np.broadcast_shapes(*(array.shape for array in given)))
    else:
        size = sum(array.size for array in given)
    if size > MOST_NUMBERS:
        raise Unreadable("an array too large")
    return OPERATORS[node.kind](node.attributes, *given)


def known(node: Node, constants: dict[str, Array]) -> bool:
    """Whether an operator, in the variant that a node has, is done here."""
    has = node.attributes
    if node.kind == "Constant":
        return list(has) == ["value"]
    if node.kind == "Cast":
        return has["to"] in TYPES
    if node.kind == "AveragePool":
        return (
            len(has["kernel_shape"]) == 2
            and has.get("strides") == has["kernel_shape"]
            and not any(has.get("pads", ()))
            and not has.get("ceil_mode", 0)
            and has.get("auto_pad", b"NOTSET") == b"NOTSET"
        )
    if node.kind == "Gemm":
        one = has.get("alpha", 1.0) == has.get("beta", 1.0) == 1.0
        return one and not has.get("transA", 0) and len(node.inputs) == 3
    if node.kind in ("ReduceMean", "ReduceMax"):
        return "axes" in has
    if node.kind == "Resize":
        scales = constants.get(node.inputs[2]) if len(node.inputs) == 3 else None
        variants = {
            (b"linear", b"half_pixel"),
            (b"nearest", b"asymmetric"),
        }
        way = (has.get("mode"), has.get("coordinate_transformation_mode"))
        return (
            scales is not None
            and scales.shape == (4,)
            and tuple(scales[:2]) == (1, 1)
            and all(s == int(s) and 1 <= s <= 16 for s in scales)
            and way in variants
            and has.get("nearest_mode") == b"floor"
        )
    return node.kind in OPERATORS
