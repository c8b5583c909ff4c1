"""ONNX graphs put together and written as the bytes of a file, without the package `onnx`.

An ONNX file is one message of Protocol Buffers (`ModelProto` of onnx.proto): each field is a key,
number * 8 + wire type, and then a varint (type 0), a length and that many bytes (type 2), or four
bytes (type 5). That little is written here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IR_VERSION, OPSET = 8, 17  # ONNX 1.12; every ONNX Runtime that we ask for reads it
TYPES: dict[str, int] = {"float32": 1, "uint8": 2, "int64": 7}  # TensorProto.DataType
Attribute = float | int | str | Sequence[int]
_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7  # AttributeProto.AttributeType


class Graph:
    """A graph that grows: values are called by name, and each node gives the names of what it
    makes.

    Args:
        name: of the graph, for those who look at the file.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """A value that is given from outside; `shape` has names for sides that are free. Its name
        again."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Gives a value to the outside, under a name."""
        self._nodes.append(_node("Identity", [value], [name], f"{name}_", {}))
        self._outputs.append(_value_info(name, dtype, shape))

    def constant(self, array: npt.ArrayLike, dtype: Any = np.float32, name: str = "") -> str:
        """An array that is part of the file: weights, or a number."""
        name = name or self._fresh("constant")
        self._constants.append(_tensor(name, np.ascontiguousarray(array, dtype)))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """The result of an operator of ONNX with one output; an input "" is left out."""
        return self.nodes(kind, *inputs, outputs=1, **attributes)[0]

    def nodes(self, kind: str, *inputs: str, outputs: int, **attributes: Attribute) -> list[str]:
        """The results of an operator with several outputs."""
        name = self._fresh(kind)
        made = [name if outputs == 1 else f"{name}.{i}" for i in range(outputs)]
        self._nodes.append(_node(kind, inputs, made, name, attributes))
        return made

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def to_bytes(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """The file.

        Args:
            metadata: properties of the model, which ONNX Runtime gives back.
        """
        graph = b"".join(
            [
                *(_bytes(1, node) for node in self._nodes),
                _text(2, self._name),
                *(_bytes(5, tensor) for tensor in self._constants),
                *(_bytes(11, value) for value in self._inputs),
                *(_bytes(12, value) for value in self._outputs),
            ]
        )
        properties = [
            _bytes(14, _text(1, key) + _text(2, value)) for key, value in (metadata or {}).items()
        ]
        opset = _text(1, "") + _number(2, OPSET)
        return b"".join(
            [
                _number(1, IR_VERSION),
                _text(2, "vizcomp"),
                _bytes(7, graph),
                _bytes(8, opset),
                *properties,
            ]
        )


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # two's complement, as int64 is written
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return b"".join([_varint(field << 3 | 2), _varint(len(value)), value])


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    """A `TensorProto`."""
    shape = b"".join(_number(1, side) for side in array.shape)
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return shape + _number(2, TYPES[array.dtype.name]) + _text(8, name) + _bytes(9, data)


def _value_info(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """A `ValueInfoProto`: a name, and the type of a tensor."""
    sides = b"".join(
        _bytes(1, _number(1, side) if isinstance(side, int) else _text(2, side)) for side in shape
    )
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, TYPES[dtype]) + _bytes(2, sides)))


def _node(
    kind: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str,
    attributes: Mapping[str, Attribute],
) -> bytes:
    """A `NodeProto`."""
    parts = [
        *(_text(1, each) for each in inputs),
        *(_text(2, each) for each in outputs),
        _text(3, name),
        _text(4, kind),
    ]
    for key, value in attributes.items():
        if isinstance(value, float):
            body = _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, _FLOAT)
        elif isinstance(value, int):
            body = _number(3, value) + _number(20, _INT)
        elif isinstance(value, str):
            body = _text(4, value) + _number(20, _STRING)
        else:
            body = b"".join(_number(8, each) for each in value) + _number(20, _INTS)
        parts.append(_bytes(5, _text(1, key) + body))
    return b"".join(parts)
