"""ONNX files read without ONNX Runtime and without the package `onnx`: their nodes, their arrays,
their words.

An ONNX file is one message of Protocol Buffers (`ModelProto` of onnx.proto): each field is a key,
number * 8 + wire type, and then a varint (type 0), eight bytes (type 1), a length and that many
bytes (type 2), or four bytes (type 5). Nothing is allocated that the file does not hold.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# TensorProto.DataType
TYPES: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}
Value = int | memoryview


class Unreadable(Exception):
    """Not an ONNX file, or one with something in it that is not read here."""


class Node(NamedTuple):
    """One operator: its kind, the names of what it takes ("" for what is left out) and makes, and
    its attributes as numbers, bytes, tuples and arrays."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class OnnxFile(NamedTuple):
    """A graph: nodes in their order, constant arrays, what goes in and out, and the file's words.

    `inputs` has for each name the type of its numbers and its sides, 0 for one that is free.
    """

    nodes: list[Node]
    constants: dict[str, npt.NDArray[Any]]
    inputs: dict[str, tuple[Any, tuple[int, ...]]]
    outputs: tuple[str, ...]
    words: dict[str, str]
    opset: int


def read_onnx(data: bytes) -> OnnxFile:
    """The graph in a file.

    Raises:
        Unreadable: the bytes are no such file, or its weights lie in another, or it has functions
            of its own or operators of other makers.
    """
    try:
        return _model(memoryview(data))
    except (
        ValueError,
        IndexError,
        struct.error,
        KeyError,
        TypeError,
        UnicodeError,
        AttributeError,
    ) as exc:
        raise Unreadable(str(exc)) from exc


def _model(data: memoryview) -> OnnxFile:
    graph: memoryview | None = None
    words, opset = {}, 0
    for number, value in _fields(data):
        if number == 7:
            graph = _view(value)
        elif number == 14:
            pair = dict(_fields(_view(value)))
            words[_text(pair[1])] = _text(pair.get(2, memoryview(b"")))
        elif number == 8:
            found = dict(_fields(_view(value)))
            if _text(found.get(1, memoryview(b""))) not in ("", "ai.onnx"):
                raise Unreadable("operators of another maker")
            opset = _number(found[2])
        elif number == 25:
            raise Unreadable("functions of its own")
    if graph is None:
        raise Unreadable("no graph")
    return _graph(graph, words, opset)


def _graph(data: memoryview, words: dict[str, str], opset: int) -> OnnxFile:
    nodes, constants, inputs, outputs = [], {}, {}, []
    for number, value in _fields(data):
        if number == 1:
            nodes.append(_node(_view(value)))
        elif number == 5:
            name, array = _tensor(_view(value))
            constants[name] = array
        elif number == 11:
            name, kind, sides = _value_info(_view(value))
            inputs[name] = (kind, sides)
        elif number == 12:
            outputs.append(_value_info(_view(value))[0])
    given = {name: kind for name, kind in inputs.items() if name not in constants}
    return OnnxFile(nodes, constants, given, tuple(outputs), words, opset)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
        if shift > 63:
            raise Unreadable("a number without an end")


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise Unreadable(f"wire type {kind}")
        if length > len(data) - at:
            raise Unreadable("a field is cut off")
        yield key >> 3, data[at : at + length]
        at += length


def _view(value: Value) -> memoryview:
    if not isinstance(value, memoryview):
        raise Unreadable("a number where bytes are due")
    return value


def _text(value: Value) -> str:
    return bytes(_view(value)).decode()


def _number(value: Value) -> int:
    """An int64: of a varint."""
    if not isinstance(value, int):
        raise Unreadable("bytes where a number is due")
    return value - (1 << 64) if value >> 63 else value


def _numbers(values: list[Value]) -> tuple[int, ...]:
    """Repeated int64, packed or not."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(_number(value))
            continue
        at = 0
        while at < len(value):
            each, at = _varint(value, at)
            found.append(_number(each))
    return tuple(found)


def _floats(values: list[Value]) -> npt.NDArray[np.float32]:
    """Repeated float, packed or not."""
    data = b"".join(bytes(_view(value)) for value in values)
    return np.frombuffer(data, "<f4").astype(np.float32)


def _grouped(data: memoryview) -> dict[int, list[Value]]:
    found: dict[int, list[Value]] = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _node(data: memoryview) -> Node:
    parts = _grouped(data)
    if any(_text(value) not in ("", "ai.onnx") for value in parts.get(7, [])):
        raise Unreadable("an operator of another maker")
    attributes = dict(_attribute(_view(value)) for value in parts.get(5, []))
    return Node(
        _text(parts[4][-1]),
        tuple(_text(value) for value in parts.get(1, [])),
        tuple(_text(value) for value in parts.get(2, [])),
        attributes,
    )


def _attribute(data: memoryview) -> tuple[str, Any]:
    parts = _grouped(data)
    kind = _number(parts[20][-1])
    name = _text(parts[1][-1])
    if kind == 1:
        return name, struct.unpack("<f", _view(parts[2][-1]))[0]
    if kind == 2:
        return name, _number(parts[3][-1]) if 3 in parts else 0
    if kind == 3:
        return name, bytes(_view(parts[4][-1])) if 4 in parts else b""
    if kind == 4:
        return name, _tensor(_view(parts[5][-1]))[1]
    if kind == 6:
        return name, tuple(float(x) for x in _floats(parts.get(7, [])))
    if kind == 7:
        return name, _numbers(parts.get(8, []))
    raise Unreadable(f"an attribute of kind {kind}")


def _tensor(data: memoryview) -> tuple[str, npt.NDArray[Any]]:
    parts = _grouped(data)
    if 13 in parts or any(_number(value) for value in parts.get(14, [])):
        raise Unreadable("weights in another file")
    name = _text(parts[8][-1]) if 8 in parts else ""
    shape = _numbers(parts.get(1, []))
    native = np.dtype(TYPES[_number(parts[2][-1])])
    dtype = native if sys.byteorder == "little" else native.newbyteorder("<")
    if 9 in parts:
        array = np.frombuffer(_view(parts[9][-1]), dtype)
    elif 4 in parts:
        array = _floats(parts[4]).astype(dtype)
    elif 5 in parts or 7 in parts:
        array = np.array(_numbers(parts.get(5, parts.get(7, []))), np.int64).astype(dtype)
    else:
        array = np.zeros(0, dtype)
    if any(side < 0 for side in shape) or math.prod(shape) != array.size:
        raise Unreadable("an array of another size than it says")
    # a copy, since numbers in a file need not lie where a processor wants them
    return name, array.astype(native).reshape(shape)


def _value_info(data: memoryview) -> tuple[str, Any, tuple[int, ...]]:
    parts = _grouped(data)
    kind: Any = None
    sides: list[int] = []
    for whole in parts.get(2, []):
        for tensor in _grouped(_view(whole)).get(1, []):
            inner = _grouped(_view(tensor))
            kind = TYPES.get(_number(inner[1][-1])) if 1 in inner else None
            for shape in inner.get(2, []):
                for side in _grouped(_view(shape)).get(1, []):
                    sides.append(_number(dict(_fields(_view(side))).get(1, 0)))
    return _text(parts[1][-1]), kind, tuple(sides)
