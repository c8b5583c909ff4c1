"""Values as strict JSON and as CSV, part by part: a long report is never in memory as a whole."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

SURROGATES = re.compile("[\ud800-\udfff]")

# With the full-width forms that spreadsheets of East Asian locales take for the ASCII ones.
_FORMULA = re.compile(r"['\t\r\n]|\s*[=+\-@＝＋－＠]")
# Spreadsheets may be set to split cells at these too; `csv` itself quotes only for comma and quote.
_SEPARATORS = re.compile(r"[\s;']")


_AS_THEY_ARE = frozenset([str, int, bool])


def plain(value: Any) -> Any:
    """A value as JSON types.

    Paths and unknown objects become strings, tuples and sets lists, dataclasses dicts, and floats
    that JSON cannot hold (NaN, infinity) None.
    """
    if value is None or type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)  # an enum of strings is a subclass of its value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        some = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return {
            name: one if one is None or type(one) in _AS_THEY_ARE else plain(one)
            for name, one in some.items()
        }
    if hasattr(value, "item"):  # a numpy scalar
        return plain(value.item())
    return str(value)


def report_json(report: Mapping[str, Any]) -> str:
    r"""A report of JSON types as strict JSON text, with a line end.

    It is ASCII, so that any terminal can print it. A byte of a file name that is not UTF-8 is the
    lone surrogate ``\udc80`` to ``\udcff`` that Python uses for it (PEP 383).

    Raises:
        ValueError: a float is not finite.
    """
    return json.dumps(report, allow_nan=False, indent=2) + "\n"


def report_chunks(report: Mapping[str, Any], files: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The text of `report_json` for a non-empty report and its `files`, one line for each file.

    Raises:
        ValueError: a float is not finite.
    """
    yield report_json(report).removesuffix("\n}\n") + ',\n  "files": ['
    end = "]\n}\n"
    for number, row in enumerate(files):
        yield (",\n    " if number else "\n    ") + json.dumps(row, allow_nan=False)
        end = "\n  ]\n}\n"
    yield end


class _Line:
    """A file for `csv.writer`, whose `writerow` then returns the line."""

    def write(self, text: str) -> str:
        return text


def csv_chunks(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    r"""Lines of CSV (RFC 4180) of JSON types; CRLF ends a line, an empty cell is None.

    Text is kept reversible: a backslash is doubled, a byte that is not UTF-8 is ``\xNN``. Text that
    a spreadsheet would run as a formula (it starts with ``= + - @``, perhaps after blanks) gets an
    apostrophe before it, and so does text that starts with one. Lists are joined by "; ",
    and so are mappings, as ``name=value``.
    """
    sparing = csv.writer(_Line(), quoting=csv.QUOTE_MINIMAL)
    careful = csv.writer(_Line(), quoting=csv.QUOTE_NONNUMERIC)
    for row in itertools.chain([header], rows):
        cells = [_cell(value) for value in row]
        risky = any(isinstance(cell, str) and _SEPARATORS.search(cell) for cell in cells)
        yield (careful if risky else sparing).writerow(cells)


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, list):
        value = "; ".join(value)
    elif isinstance(value, dict):
        value = "; ".join(f"{key}={item}" for key, item in value.items())
    if not isinstance(value, str):
        return value
    text = spelled_out(value.replace("\\", "\\\\"), SURROGATES)
    return "'" + text if _FORMULA.match(text) else text


def spelled_out(text: str, characters: re.Pattern[str]) -> str:
    r"""Text with some characters as ``\xNN`` or ``\uNNNN``.

    A surrogate that stands for a byte that is not UTF-8 is ``\xNN``.
    """

    def spelling(match: re.Match[str]) -> str:
        code = ord(match[0])
        byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
        return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{code:04x}"

    return characters.sub(spelling, text)
