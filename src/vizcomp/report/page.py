"""What the pages of all reports share: their files, their templates, figures as people read them.

Every string may be hostile: whoever made a file chose its name. Templates escape what they are
given, and `visible` stands before that, so no module of this room writes HTML itself.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vizcomp.errors import OutputError
from vizcomp.files.store import AnyPath
from vizcomp.report.tables import plain, spelled_out

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_TABLE_ROWS = 500
"""Rows of a page's longest table; the CSV has them all."""

DASH = "\u2013"
"""Stands where there is no figure."""

THIN_SPACE = "\u202f"
"""Between a figure and its unit; a line does not break there."""

# Controls, marks that turn the direction of text, and halves of surrogate pairs.
_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff"
_DIRECTIONS = "\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = re.compile(f"[{_CONTROLS}{_DIRECTIONS}\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportPaths:
    """Where the three files of a report are."""

    html: AnyPath
    json: AnyPath
    csv: AnyPath


def write_files(
    folder: AnyPath,
    *,
    html: str,
    json: Iterable[str],
    csv: Iterable[str],
) -> ReportPaths:
    """Write report.html, report.json and report.csv into a folder, made if it is missing.

    Each is written beside its place and then renamed.

    Raises:
        OutputError: the folder cannot be made, or a file cannot be written.
    """
    from vizcomp.files.write import write_atomic

    if isinstance(folder, Path):  # a store has no folders
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            reason = exc.strerror or "it cannot be made"
            hint = "choose another folder with `output`"
            raise OutputError(f"{folder}: {reason}", hint) from exc
    paths = ReportPaths(
        html=folder / "report.html",
        json=folder / "report.json",
        csv=folder / "report.csv",
    )
    write_atomic(paths.json, (part.encode("ascii") for part in json))
    write_atomic(paths.csv, (part.encode("utf-8") for part in csv))
    write_atomic(paths.html, html.encode("utf-8"))
    return paths


# --- templates ------------------------------------------------------------------------------------


def render(template: str, **values: Any) -> str:
    """The page that a template in `bundled/` makes of its values.

    Raises:
        jinja2.UndefinedError: the template names a value that is missing.
    """
    today = datetime.date.today().isoformat()
    return _environment().get_template(template).render({"date": today, **values})


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vizcomp", "bundled"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=count,
        data_uri=data_uri,
        number=number,
        percent=percent,
        size=size,
        whole_percent=whole_percent,
    )
    environment.globals.update(aspect=aspect, dimensions=dimensions, whole_percent=whole_percent)
    return environment


def visible(value: object) -> str:
    r"""Any value as text in which nothing hides.

    Controls, marks that turn the direction of text, and bytes that are not UTF-8 are shown as
    ``\xNN`` or ``\uNNNN``: a name must not be able to look like another one.
    """
    return spelled_out(str(value), _INVISIBLE)


def setting_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of settings as text; a nested setting is named ``outer.inner``."""
    return [(name, _setting(value)) for name, value in _flat(plain(settings))]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _setting(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_setting(item) for item in value) or DASH
    return str(value)


# --- figures --------------------------------------------------------------------------------------


def count(number: int, one: str) -> str:
    """A number and what it counts: 1 file, 2,000 files."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes with three significant digits in decimal units: 842 B, 26.8 kB, 1.43 MB."""
    if number < 1000:
        return f"{number}{THIN_SPACE}B"
    value, units = number / 1000, ["TB", "GB", "MB", "kB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop()
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}{THIN_SPACE}{units[-1]}"


def number(value: float | None, digits: int) -> str:
    """A figure with so many decimals; a dash for None, NaN and infinity."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def percent(fraction: float | None) -> str:
    """A fraction as percent with one decimal and a true minus sign; never "-0.0"."""
    text = number(None if fraction is None else 100 * fraction, 1)
    if text == DASH:
        return text
    return ("0.0" if text == "-0.0" else text.replace("-", "\u2212")) + "%"


def whole_percent(fraction: float) -> str:
    """A fraction as percent without decimals, for the ticks of an axis."""
    return f"{round(100 * fraction)}%".replace("-", "\u2212")


def duration(seconds: float) -> str:
    """Seconds as 0.25 s, 12.5 s, 3 min 20 s or 2 h 5 min."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 99.95:
        return f"{seconds:.{2 if seconds < 0.995 else 1}f}{THIN_SPACE}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{THIN_SPACE}min {whole % 60}{THIN_SPACE}s"
    return f"{whole // 3600}{THIN_SPACE}h {whole % 3600 // 60}{THIN_SPACE}min"


# --- pictures -------------------------------------------------------------------------------------


def data_uri(data: bytes) -> str:
    """A PNG or a JPEG as a data URI."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def aspect(data: bytes) -> float:
    """Width of a PNG or a JPEG over its height; 1.5 where they are unknown."""
    sides = dimensions(data)
    return sides[0] / sides[1] if sides else 1.5


def dimensions(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a PNG or a JPEG (ITU-T T.81, B.2.2), or None.

    A page can then be laid out before its pictures are decoded, and no decoder is imported for it.
    """
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame: no DHT, JPG, DAC
            height = int.from_bytes(data[position + 5 : position + 7])
            width = int.from_bytes(data[position + 7 : position + 9])
            return (width, height) if width and height else None
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None
