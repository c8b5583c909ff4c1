"""Pickled batches read as data: no code of theirs is run."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from vizcomp.datasets.labelled import MAX_FILE, Pixels
from vizcomp.errors import FormatError
from vizcomp.files.pickles import Asked, Budget, Refused, Rules, interpreted


class _PickledDtype:
    """What a pickle says of an array's element type."""

    def __init__(self, code: object) -> None:
        self.code = code


class PickledArray:
    """What a pickle says of an array: uint8, any shape; None until its state was read."""

    value: Pixels | None = None

    def build(self, state: object, budget: Budget) -> None:
        """Takes the state (version, shape, element type, whether columns come first, bytes),
        checked before it is used."""
        match state:
            case (
                int(),
                tuple(shape),
                _PickledDtype(code="u1" | "|u1" | b"u1" | b"|u1"),
                bool() | int() as columns,
                content,
            ):
                data = budget.encoded(content) if isinstance(content, str) else content
                if (
                    all(type(n) is int and 0 <= n <= MAX_FILE for n in shape)
                    and isinstance(data, bytes)
                    and len(shape) <= 4
                ):
                    count = 1
                    for n in shape:
                        count *= n
                    if count == len(data):
                        self.value = np.frombuffer(data, np.uint8).reshape(
                            shape, order="F" if columns else "C"
                        )
                        return
        raise ValueError(
            "an array of another kind than the batches hold, or of another length than it claims"
        )


_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NDARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"


class _BatchRules(Rules):
    """What a batch may ask for."""

    def wanted(self, name: str) -> bool:
        return name in (*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE)

    def made(self, function: object, arguments: object) -> object:
        match function, arguments:
            case Asked(), (Asked(), *_) if function in _RECONSTRUCT and arguments[0] == _NDARRAY:  # type: ignore[index]
                return PickledArray()
            case Asked(), (str() | bytes() as code, *_) if function == _DTYPE:
                return _PickledDtype(code)
            case Asked(), (str() as text, "latin1" | "latin-1") if function == _ENCODE:
                return self.budget.encoded(text)
        raise Refused("makes an object")

    def built(self, target: object, state: object) -> None:
        if isinstance(target, PickledArray):
            target.build(state, self.budget)
        elif not isinstance(target, _PickledDtype):
            raise Refused("sets the state of an object")


def unpickled(data: bytes, shown: str) -> dict[Any, Any]:
    """The dict in a pickle of a CIFAR batch: lists, tuples, dicts, numbers, text and uint8 arrays;
    text keys as str.

    Raises:
        FormatError: anything else is in it, or it is broken.
    """
    try:
        value = interpreted(io.BytesIO(data), len(data), _BatchRules())
    except Refused as exc:
        raise FormatError(
            f"{shown} is refused: its pickle {exc}, which no batch of CIFAR does",
            "download the data again",
        ) from exc
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise FormatError(
            f"{shown} is broken: it is not the pickle of a batch", "copy or download it again"
        ) from exc
    if not isinstance(value, dict):
        raise FormatError(
            f"{shown} is not a batch of CIFAR: its pickle holds no dict", "download the data again"
        )
    return value
