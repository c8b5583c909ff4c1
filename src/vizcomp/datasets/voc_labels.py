"""Labels in the XML of PASCAL VOC (Everingham et al., IJCV 2010), one file a photo, for a photo of
another size.

The numbers of `size`, `bndbox`, `polygon` and `point` and the photo's name are replaced where they
stand in the file; every other byte stays. Whole numbers stay whole. They are taken as places
between pixels: where a tool counts pixels from 1, as VOC does, they may be one pixel off.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

from vizcomp.datasets.moved_labels import Move, Result, rounded
from vizcomp.errors import in_one_line

MOST_BYTES = 8 << 20
MOST_NESTED, MOST_ELEMENTS = 64, 200_000
SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass
class _Field:
    """An element without others in it: where its text lies, in bytes, and what it says."""

    path: tuple[str, ...]
    holder: int  # number of the element that holds it
    start: int
    end: int = 0
    text: str = ""
    above: int = 0  # number of the element that holds that one


def moved(path: Path, result: Result) -> bytes:
    """The labels of a file, for a photo's result.

    Raises:
        OSError: it cannot be read.
        ValueError: no labels of VOC's, or of a photo of another size.
    """
    data = _read(path)
    fields, encoding = _fields(data)
    declared = _declared(fields)
    move = result.move(declared)
    changes = [
        (f, _renamed(f.text, result))
        for name in ("filename", "path")
        for f in _at(fields, ("annotation", name))
    ]
    if move.moves:
        if declared is not None:
            for side, value in zip(("width", "height"), move.wanted, strict=True):
                changes.append((_at(fields, ("annotation", "size", side))[0], str(value)))
        changes += _places(fields, move)
    return _spliced(data, [(f, text) for f, text in changes if text != f.text], encoding)


def boxes(
    path: Path,
) -> tuple[list[tuple[str, tuple[float, float, float, float]]], tuple[int, int] | None]:
    """The boxes of a file: class, and left, top, right, bottom; and width and height that it names,
    or None.

    Raises:
        OSError: it cannot be read.
        ValueError: no labels of VOC's.
    """
    fields, _ = _fields(_read(path))
    corners: dict[int, dict[str, float]] = {}
    owners: dict[int, int] = {}
    for field in fields:
        if (
            field.path[:3] == ("annotation", "object", "bndbox")
            and field.path[-1] in SIDES
            and len(field.path) == 4
        ):
            corners.setdefault(field.holder, {})[field.path[-1]] = _number(field)
            owners.setdefault(field.holder, field.above)
    named = {
        field.holder: field.text.strip()
        for field in fields
        if field.path == ("annotation", "object", "name")
    }
    rows = []
    for holder, sides in corners.items():
        if len(sides) != len(SIDES):
            raise ValueError("a bndbox has not all of " + ", ".join(SIDES))
        left, top, right, bottom = (sides[side] for side in SIDES)
        rows.append((named.get(owners[holder], ""), (left, top, right, bottom)))
    return rows, _declared(fields)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes of XML")
    return data


def _declared(fields: list[_Field]) -> tuple[int, int] | None:
    """Width and height that a file names."""
    size = tuple(
        round(_number(found[0]))
        for side in ("width", "height")
        if (found := _at(fields, ("annotation", "size", side)))
    )
    return (size[0], size[1]) if len(size) == 2 and min(size) > 0 else None


def _fields(data: bytes) -> tuple[list[_Field], str]:
    """All elements that hold text alone, and the file's encoding. Document types, and so entities,
    are refused."""
    if b"\0" in data:
        raise ValueError("XML in UTF-16 is not read: save it as UTF-8")
    parser = expat.ParserCreate()
    open_elements: list[tuple[str, int]] = []
    fields: list[_Field] = []
    current: _Field | None = None
    count, encoding = 0, "utf-8"

    def declared(version: str, name: str | None, standalone: int) -> None:
        nonlocal encoding
        encoding = (name or encoding).lower()

    def starts(name: str, attributes: Any) -> None:
        nonlocal current, count
        if not open_elements and (name != "annotation" or count):
            raise ValueError("its XML is no annotation of VOC's")
        count += 1
        if len(open_elements) >= MOST_NESTED or count > MOST_ELEMENTS:
            raise ValueError("its XML is nested too deeply, or has too many elements")
        above, holder = ([0, 0] + [number for _, number in open_elements])[-2:]
        open_elements.append((name, count))
        current = _Field(tuple(part for part, _ in open_elements), holder, -1, above=above)

    def says(text: str) -> None:
        if current is not None:
            current.start = parser.CurrentByteIndex if current.start < 0 else current.start
            current.text += text

    def ends(name: str) -> None:
        nonlocal current
        if current is not None and current.start >= 0:
            current.end = parser.CurrentByteIndex
            fields.append(current)
        current = None
        open_elements.pop()

    def refused(*_: Any) -> None:
        raise ValueError("it declares a document type: entities are not read")

    parser.XmlDeclHandler, parser.StartDoctypeDeclHandler = declared, refused
    parser.StartElementHandler, parser.CharacterDataHandler, parser.EndElementHandler = (
        starts,
        says,
        ends,
    )
    try:
        parser.Parse(data, True)
        "".encode(encoding)
    except (expat.ExpatError, LookupError) as exc:  # the second: an encoding that is none
        raise ValueError(f"broken XML: {in_one_line(exc)}") from exc
    return fields, encoding


def _at(fields: list[_Field], path: tuple[str, ...]) -> list[_Field]:
    return [field for field in fields if field.path == path]


def _number(field: _Field) -> float:
    text = field.text.strip()
    if not re.fullmatch(r"[+-]?\d{1,12}(\.\d{0,12})?([eE][+-]?\d{1,2})?", text, re.ASCII):
        raise ValueError(f"{field.path[-1]} is no number: {text[:40]!r}")
    return float(text)


def _written(field: _Field, value: float) -> str:
    return (
        str(round(value))
        if re.fullmatch(r"\s*[+-]?\d+\s*", field.text)
        else f"{rounded(value):.12g}"
    )


# --- places
# --------------------------------------------------------------------------------------------------


def _places(fields: list[_Field], move: Move) -> list[tuple[_Field, str]]:
    """What the fields of all boxes, polygons and points say on the result."""
    groups: dict[int, list[_Field]] = {}
    for field in fields:
        if field.path[:2] == ("annotation", "object") and len(field.path) > 3:
            groups.setdefault(field.holder, []).append(field)
    changes = []
    for group in groups.values():
        kind, by_name = group[0].path[-2], {field.path[-1]: field for field in group}
        if kind == "bndbox":
            if any(side not in by_name for side in SIDES):
                raise ValueError("a bndbox has not all of " + ", ".join(SIDES))
            changes += _box([by_name[side] for side in SIDES], move)
        elif kind in ("polygon", "point"):
            changes += _points(by_name, kind, move)
        elif kind == "robndbox":
            raise ValueError("boxes that are turned (robndbox) are not moved")
    return changes


def _box(sides: list[_Field], move: Move) -> list[tuple[_Field, str]]:
    """The sides of a box; whole ones stay at least a pixel apart, and inside where they were."""
    values = [_number(side) for side in sides]
    left, top, right, bottom = move.box(*values)
    texts = [
        _written(side, value) for side, value in zip(sides, (left, top, right, bottom), strict=True)
    ]
    for low, high, most in ((0, 2, move.wanted[0]), (1, 3, move.wanted[1])):
        if texts[low].isdigit() and texts[high].isdigit() and values[high] > values[low]:
            first = max(int(texts[low]), int(min(values[low], 1)))
            first = min(first, max(0, most - 1))
            texts[low], texts[high] = str(first), str(max(int(texts[high]), first + 1))
    return list(zip(sides, texts, strict=True))


def _points(by_name: dict[str, _Field], kind: str, move: Move) -> list[tuple[_Field, str]]:
    changes = []
    for name, field in by_name.items():
        if not (match := re.fullmatch(r"x(\d*)", name)):
            continue
        other = by_name.get("y" + match[1])
        if other is None:
            raise ValueError(f"a {kind} has {name} and no y{match[1]}")
        x, y = move.point(_number(field), _number(other))
        changes += [(field, _written(field, x)), (other, _written(other, y))]
    return changes


# --- text
# --------------------------------------------------------------------------------------------------


def _renamed(text: str, result: Result) -> str:
    """A name or path whose last part is the photo's name, with that of the result."""
    name = text.strip()
    last = re.split(r"[/\\]", name)[-1]
    return name[: len(name) - len(last)] + result.output if last == result.name else text


def _spliced(data: bytes, changes: list[tuple[_Field, str]], encoding: str) -> bytes:
    for field, text in sorted(changes, key=lambda change: -change[0].start):
        fresh = escape(text)
        letters = (
            fresh.encode("utf-8")
            if encoding == "utf-8"
            else fresh.encode("ascii", "xmlcharrefreplace")
        )
        data = data[: field.start] + letters + data[field.end :]
    return data
