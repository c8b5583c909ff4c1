"""Pickled batches read as data: no code of theirs is run."""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np

from vizcomp.datasets.labelled import MAX_FILE, Pixels
from vizcomp.errors import FormatError
from vizcomp.files.place import printable

_MAX_OPCODES = 4_000_000  # a published batch has 35,000, CIFAR-100's 600,000
_MADE_ANYWAY = 1 << 16  # bytes that a pickle of any size may make out of texts


class _PickledDtype:
    """What a pickle says of an array's element type."""

    def __init__(self, code: object) -> None:
        self.code = code


class _Refused(Exception):
    """A pickle asks for what no batch needs."""


class _Budget:
    """Bytes that may be made out of texts: a memo gives one text again and again, and each copy would take memory."""

    def __init__(self, size: int) -> None:
        self._left = 2 * size + _MADE_ANYWAY

    def encoded(self, text: str) -> bytes:
        self._spend(len(text))
        return text.encode("latin-1")

    def decoded(self, data: bytes) -> str:
        self._spend(len(data))
        return data.decode("latin-1")

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _Refused("copies one text again and again")


class PickledArray:
    """What a pickle says of an array: uint8, any shape; None until its state was read."""

    value: Pixels | None = None

    def build(self, state: object, budget: _Budget) -> None:
        """Takes the state (version, shape, element type, whether columns come first, bytes), checked before it is used."""
        match state:
            case (int(), tuple(shape), _PickledDtype(code="u1" | "|u1" | b"u1" | b"|u1"), bool() | int() as columns, content):
                data = budget.encoded(content) if isinstance(content, str) else content
                if all(type(n) is int and 0 <= n <= MAX_FILE for n in shape) and isinstance(data, bytes) and len(shape) <= 4:
                    count = 1
                    for n in shape:
                        count *= n
                    if count == len(data):
                        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if columns else "C")
                        return
        raise ValueError("an array of another kind than the batches hold, or of another length than it claims")


_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NDARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"


class _Global(str):
    """The name of a function or class that a pickle asks for; never the thing itself."""

    __slots__ = ()


def unpickled(data: bytes, shown: str) -> dict[Any, Any]:
    """The dict in a pickle of a CIFAR batch: lists, tuples, dicts, numbers, text and uint8 arrays; text keys as str.

    Not by `pickle.Unpickler`: even with `find_class` closed, it takes gigabytes for a memo number of a hostile file, and
    crashes where keys are nested deeply. Here nothing is called, whatever the pickle says.

    Raises:
        FormatError: anything else is in it, or it is broken.
    """
    try:
        found = _interpreted(data)
    except _Refused as exc:
        raise FormatError(
            f"{shown} is refused: its pickle {exc}, which no batch of CIFAR does", "download the data again"
        ) from exc
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise FormatError(f"{shown} is broken: it is not the pickle of a batch", "copy or download it again") from exc
    if not isinstance(found, dict):
        raise FormatError(f"{shown} is not a batch of CIFAR: its pickle holds no dict", "download the data again")
    return found


def _interpreted(data: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    budget = _Budget(len(data))

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if count > _MAX_OPCODES:
            raise _Refused(f"has more than {_MAX_OPCODES} steps")
        if name in _VALUES:
            stack.append(arg)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(arg)] = stack[-1]  # type: ignore[arg-type]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(arg)])  # type: ignore[arg-type]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("LIST", "TUPLE"):
            items = since_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name in _TUPLES:
            start = len(stack) - _TUPLES[name]
            stack[start:] = [tuple(stack[start:])]
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            if type(stack[-1]) is not list:
                raise ValueError("appends to what is no list")
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
            if name == "DICT":
                stack.append({})
            if type(stack[-1]) is not dict:
                raise ValueError("sets an item of what is no dict")
            stack[-1].update(zip((_key(key, budget) for key in items[::2]), items[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = arg if name == "GLOBAL" else " ".join((stack.pop(-2), stack.pop()))
            if wanted not in (*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE):
                raise _Refused(f"asks for '{printable(str(wanted)[:100]).replace(' ', '.')}'")
            stack.append(_Global(wanted))
        elif name == "REDUCE":
            args = stack.pop()
            stack.append(_made(stack.pop(), args, budget))
        elif name == "BUILD":
            state, target = stack.pop(), stack[-1]
            if isinstance(target, PickledArray):
                target.build(state, budget)
            elif not isinstance(target, _PickledDtype):
                raise _Refused("sets the state of an object")
        elif name == "STOP":
            break
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"uses {name}")
    return stack.pop()


def _key(key: object, budget: _Budget) -> str | int:
    if isinstance(key, bytes):
        return budget.decoded(key)
    if isinstance(key, str | int):
        return key
    raise ValueError("a key that is neither text nor number")  # hashing a deeply nested one would overflow the stack


def _made(function: object, args: object, budget: _Budget) -> object:
    """The few calls in a batch, as data."""
    match function, args:
        case _Global(), (_Global(), *_) if function in _RECONSTRUCT and args[0] == _NDARRAY:  # type: ignore[index]
            return PickledArray()
        case _Global(), (str() | bytes() as code, *_) if function == _DTYPE:
            return _PickledDtype(code)
        case _Global(), (str() as text, "latin1" | "latin-1") if function == _ENCODE:
            return budget.encoded(text)
    raise _Refused("makes an object")
