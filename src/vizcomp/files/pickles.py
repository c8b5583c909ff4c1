"""Pickles read as data: no code of theirs is run.

Not by `pickle.Unpickler`: even with `find_class` closed, it takes gigabytes for a memo number of a
hostile file, and crashes where keys are nested deeply. Here nothing is called, whatever the pickle
says.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any

from vizcomp.files.place import printable

# a published batch of CIFAR-10 has 35,000, CIFAR-100's 600,000, a state dict of Inception 15,000
_MAX_OPCODES = 4_000_000
_MADE_ANYWAY = 1 << 16  # bytes that a pickle of any size may make out of texts


class Refused(Exception):
    """A pickle asks for what it has no business with; the words go on after "its pickle"."""


class Budget:
    """Bytes that may be made out of texts: a memo gives one text again and again, and each copy
    would take memory.

    Args:
        size: of the file.
    """

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
            raise Refused("copies one text again and again")


class Asked(str):
    """The name of a function or class that a pickle asks for, "MODULE NAME"; never the thing
    itself."""

    __slots__ = ()


class Rules:
    """What a pickle of some kind may ask for; by itself nothing."""

    budget: Budget

    def wanted(self, name: str) -> bool:
        """Whether it may name this function or class, "MODULE NAME"."""
        return False

    def made(self, function: object, arguments: object) -> object:
        """What a call stands for."""
        raise Refused("makes an object")

    def built(self, target: object, state: object) -> None:
        """The state of something that `made` gave."""
        raise Refused("sets the state of an object")

    def persistent(self, identity: object) -> object:
        """What a reference to something outside of the pickle stands for."""
        raise Refused("refers to something outside")


_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    {
        *(
            "INT",
            "BININT",
            "BININT1",
            "BININT2",
            "LONG",
            "LONG1",
            "FLOAT",
            "BINFLOAT",
            "STRING",
            "BINSTRING",
            "SHORT_BINSTRING",
        ),
        *(
            "BINBYTES",
            "SHORT_BINBYTES",
            "BINBYTES8",
            "UNICODE",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE8",
        ),
    }
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def interpreted(stream: io.BytesIO, size: int, rules: Rules) -> Any:
    """What the pickle at the stream's place holds: lists, tuples, dicts, numbers, text, and what
    the rules make.

    Args:
        size: of the whole file, which bounds what is made.

    Raises:
        Refused: it asks for what the rules do not know.
        ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError: it is broken.
    """
    rules.budget = budget = Budget(size)
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if count > _MAX_OPCODES:
            raise Refused(f"has more than {_MAX_OPCODES} steps")
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
            stack[-1].update(
                zip((_key(key, budget) for key in items[::2]), items[1::2], strict=True)
            )
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = arg if name == "GLOBAL" else " ".join((stack.pop(-2), stack.pop()))
            if not rules.wanted(str(wanted)):
                raise Refused(f"asks for '{printable(str(wanted)[:100]).replace(' ', '.')}'")
            stack.append(Asked(wanted))
        elif name == "REDUCE":
            args = stack.pop()
            stack.append(rules.made(stack.pop(), args))
        elif name == "BUILD":
            state, target = stack.pop(), stack[-1]
            rules.built(target, state)
        elif name == "BINPERSID":
            stack.append(rules.persistent(stack.pop()))
        elif name == "STOP":
            break
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"uses {name}")
    return stack.pop()


def _key(key: object, budget: Budget) -> str | int:
    if isinstance(key, bytes):
        return budget.decoded(key)
    if isinstance(key, str | int):
        return key
    # hashing a deeply nested one would overflow the stack
    raise ValueError("a key that is neither text nor number")
