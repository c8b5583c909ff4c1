"""JSON out of files that anybody may have written: its size, depth and texts are bounded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 8 << 20  # DenseDepth's configuration has 0.3 MB
MOST_NESTED = 64


def read_json(text: str | bytes, *, most_bytes: int = MOST_BYTES) -> Any:
    """What a JSON text holds.

    Args:
        most_bytes: a longer text is refused.

    Raises:
        ValueError: no JSON; too long, nested too deeply; a number that is not finite, or text that
            is no Unicode.
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
    with path.open("rb") as file:
        return read_object(file.read(most_bytes + 1), most_bytes=most_bytes)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _check(value: Any) -> None:
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
            elif isinstance(each, float) and not math.isfinite(each):
                raise ValueError("a number is too large")
        if not inner:
            return
        level = inner
    raise ValueError("its JSON is nested too deeply")
