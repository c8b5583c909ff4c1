"""JSON and TOML out of files that anybody may have written: their size, depth, numbers and texts
are bounded."""

from __future__ import annotations

import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 8 << 20  # DenseDepth's configuration has 0.3 MB
MOST_NESTED = 64
MOST_INTEGER = 1 << 64  # beyond it a float, an array or SQLite may not hold it


def read_json(text: str | bytes, *, most_bytes: int = MOST_BYTES) -> Any:
    """What a JSON text holds.

    Args:
        most_bytes: a longer text is refused.

    Raises:
        ValueError: no JSON; too long, nested too deeply; a number that is not finite or beyond
            `MOST_INTEGER`, or text that is no Unicode.
    """
    if len(text) > most_bytes:
        raise ValueError(f"more than {most_bytes:,} bytes of JSON")
    try:
        value = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    _check(value)
    return value


def read_object(text: str | bytes, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a text; errors as `read_json`, and a ValueError where it is another
    value."""
    value = read_json(text, most_bytes=most_bytes)
    if not isinstance(value, dict):
        raise ValueError("its JSON is no object")
    return value


def read_object_file(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file, of which no more than `most_bytes` are read.

    Raises:
        OSError: it cannot be read.
        ValueError: as `read_object`.
    """
    return read_object(read_small(path, most_bytes), most_bytes=most_bytes)


def read_small(path: Path, most_bytes: int) -> bytes:
    """The bytes of a file, and of a larger one `most_bytes` and one more. A pipe is not waited for,
    a device not read.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size  # memory is taken for as much as is asked for
        return file.read(min(size, most_bytes) + 1)


def read_toml(text: str, *, finite: bool = True) -> dict[str, Any]:
    """What a TOML text holds; the caller has bounded its length.

    Args:
        finite: refuse `nan` and `inf`, which TOML has.

    Raises:
        ValueError: no TOML; nested too deeply, or a number that is too large.
    """
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(value, finite)
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _check(value: Any, finite: bool = True) -> None:
    level = [value]
    for _ in range(MOST_NESTED):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
                inner += each
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                each.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
            elif isinstance(each, float) and finite and not math.isfinite(each):
                raise ValueError("a number is not finite, or too large")
            elif isinstance(each, int) and abs(each) > MOST_INTEGER:
                raise ValueError("a number is too large")
        if not inner:
            return
        level = inner
    raise ValueError("it is nested too deeply")
