"""Labelled pictures in Parquet tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vizcomp.datasets.labelled import (
    MAX_MEMBERS,
    LabelledImages,
    NoPart,
    OnSkip,
    Part,
    Pixels,
    Unreadable,
    is_hidden,
    read_picture,
)
from vizcomp.errors import FormatError, InputError, MissingExtraError, TooLargeError, first_line
from vizcomp.files.foreign import read_json
from vizcomp.files.place import printable

_SPLITS = {"train": "train", **dict.fromkeys(("test", "val", "valid", "validation"), "test")}
_LABEL_COLUMNS = ("label", "fine_label", "labels")
_MAX_GROUP = 1 << 30  # bytes of one row group when unpacked; the whole of CIFAR-10 has 120 MB
_ROWS = 1000  # read at a time


class NoLabels(FormatError):
    """A table has not the columns of pictures with classes."""


def find_tables(path: Path) -> list[Path]:
    """The Parquet files that `path` names or holds, two folders down at most, by name."""
    if os.path.isfile(path):
        return [path] if path.suffix.lower() == ".parquet" else []
    files = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}*.parquet")]
    hidden = [file for file in files if any(map(is_hidden, file.relative_to(path).parts))]
    return sorted(set(files) - set(hidden))


def read_tables(
    path: Path,
    tables: list[Path],
    part: Part,
    size: int,
    on_skip: OnSkip | None,
    *,
    exact: bool = False,
) -> LabelledImages:
    """Rows of an encoded picture (`img` or `image`: its bytes) and a whole number (`label`), with
    the names of the classes in the schema's metadata, as the `datasets` library writes them."""
    pyarrow = _pyarrow()
    chosen = _of_part(path, tables, part)
    classes: tuple[str, ...] = ()
    kept: list[Pixels] = []
    labels: list[int] = []
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    resized = 0
    for file in chosen:
        shown = printable(file.name)
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                picture, label, class_names = _columns(table, shown)
                if classes and class_names and class_names != classes:
                    wrong = f"{shown} has other classes than the file before it"
                    raise FormatError(wrong, "keep one data set in a folder")
                classes = classes or class_names
                for count, (data, number) in enumerate(_rows(table, picture, label)):
                    name = f"{shown}/{count:05d}"
                    try:
                        if not data or type(number) is not int:
                            raise Unreadable("no picture, or no label")
                        one, other = read_picture(data, size, exact=exact)
                    except Unreadable as exc:
                        skipped.append((name, exc.reason))
                        if on_skip is not None:
                            on_skip(*skipped[-1])
                        continue
                    kept.append(one)
                    resized += other
                    labels.append(number)
                    names.append(name)
        except (pyarrow.ArrowException, OSError) as exc:
            raise FormatError(
                f"{shown} cannot be read as Parquet: {first_line(exc)}", "download it again"
            ) from exc
    if not kept:
        raise InputError(
            f"{printable(path)} has no readable picture",
            skipped[-1][1] if skipped else "it has no rows",
        )
    low, high = min(labels), max(labels)
    if low < 0 or high >= (len(classes) or 100_000):
        raise FormatError(
            f"{printable(path)} has the label {low if low < 0 else high}, which names no class"
        )
    return LabelledImages(
        images=np.stack(kept),
        labels=np.asarray(labels, np.int64),
        classes=classes or tuple(map(str, range(high + 1))),
        names=tuple(names),
        skipped=tuple(skipped),
        source="Parquet files",
        resized=resized,
    )


class Unpacked(NamedTuple):
    """A row's picture as a file."""

    place: Path
    name: str
    label: int


def unpack_tables(
    path: Path,
    tables: list[Path],
    folder: Path,
    choose: Callable[[npt.NDArray[np.int64]], Sequence[int]],
    on_skip: OnSkip,
) -> tuple[list[Unpacked], tuple[str, ...]]:
    """Some rows' pictures byte for byte, as files in a folder, and the names of the classes: of the
    test part, of all rows where there is none.

    Args:
        folder: where the files go, by number: no name of the table is used.
        choose: from the labels of all rows to the indices of those that are wanted.
        on_skip: is told of rows without a picture or label.

    Raises:
        FormatError: a table is broken, or has not the columns of `read_tables`.
        MissingExtraError: no pyarrow.
    """
    pyarrow = _pyarrow()
    files = tables_of_test(path, tables)
    labels: list[int] = []
    classes: tuple[str, ...] = ()
    there: list[Unpacked] = []
    wanted: set[int] = set()
    for second in (False, True):  # labels alone, then the pictures that are wanted
        at = -1
        for file in files:
            shown = printable(file.name)
            try:
                with pyarrow.parquet.ParquetFile(file) as table:
                    picture, label, class_names = _columns(table, shown)
                    classes = classes or class_names
                    for data, number in _rows(table, picture if second else "", label):
                        at += 1
                        good = type(number) is int and 0 <= number < (len(classes) or 100_000)
                        if not second:
                            labels.append(number if good else -1)
                        elif at in wanted and data and good:
                            place = folder / f"{at:07d}"
                            place.write_bytes(data)
                            there.append(Unpacked(place, f"{shown}/{at:05d}", number))
                        elif at in wanted:
                            on_skip(f"{shown}/{at:05d}", "no picture, or no label")
            except (pyarrow.ArrowException, OSError) as exc:
                raise FormatError(
                    f"{shown} cannot be read as Parquet: {first_line(exc)}", "download it again"
                ) from exc
        if not second:
            folder.mkdir(parents=True, exist_ok=True)
            wanted = set(choose(np.asarray(labels, np.int64)))
    return there, classes or tuple(map(str, range(max(labels, default=-1) + 1)))


def tables_of_test(path: Path, tables: list[Path]) -> list[Path]:
    """The tables of the test part, all where there is none."""
    try:
        return _of_part(path, tables, "test")
    except NoPart:
        return _of_part(path, tables, "all")


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingExtraError("pyarrow, which reads Parquet files,", "parquet") from exc
    return pyarrow


def _of_part(path: Path, tables: list[Path], part: Part) -> list[Path]:
    """The tables of a part, by their names.

    Raises:
        NoPart: there are none.
    """
    of_split: dict[str, list[Path]] = {"train": [], "test": []}
    for table in tables:
        of_split[_SPLITS.get(table.stem.split("-")[0].lower(), "train")].append(table)
    chosen = [file for split, files in of_split.items() if part in (split, "all") for file in files]
    if part == "validation":
        chosen = [file for file in of_split["test"] if file.stem.split("-")[0].lower() != "test"]
    if not chosen:
        raise NoPart(
            f"{printable(path)} has no {part} part",
            f"its Parquet files should be named {part}-*.parquet",
        )
    return chosen


def _rows(table: Any, picture: str, label: str) -> Iterator[tuple[Any, Any]]:
    """The encoded picture and the label of each row; no picture where its column is ""."""
    for rows in table.iter_batches(_ROWS, columns=[picture, label] if picture else [label]):
        numbers = rows.column(label).to_pylist()
        if not picture:
            yield from ((None, number) for number in numbers)
            continue
        for cell, number in zip(rows.column(picture), numbers, strict=True):
            value = cell.as_py()
            yield value["bytes"] if isinstance(value, dict) else value, number


def _columns(table: Any, shown: str) -> tuple[str, str, tuple[str, ...]]:
    """Names of the columns of pictures and of labels, and of the classes where the file says them;
    sizes checked."""
    about, schema = table.metadata, table.schema_arrow
    largest = max(
        (about.row_group(k).total_byte_size for k in range(about.num_row_groups)), default=0
    )
    if about.num_rows > MAX_MEMBERS or largest > _MAX_GROUP:
        raise TooLargeError(
            f"{shown} holds more than a file may: {about.num_rows} rows, {largest} bytes in one"
            " group"
        )
    picture = next((name for name in ("img", "image") if name in schema.names), "")
    label = next((name for name in _LABEL_COLUMNS if name in schema.names), "")
    kinds = (
        str(schema.field(picture).type) if picture else "",
        str(schema.field(label).type) if label else "",
    )
    if not kinds[0].startswith(("struct<bytes: binary", "binary")) or not kinds[1].startswith(
        ("int", "uint")
    ):
        raise NoLabels(
            f"{shown} has the columns {', '.join(map(printable, schema.names[:8]))}",
            "pictures are looked for in img or image (bytes), classes in label or fine_label (whole"
            " numbers)",
        )
    try:
        listed = read_json((schema.metadata or {})[b"huggingface"])["info"]["features"][label][
            "names"
        ]
    except (KeyError, TypeError, ValueError):
        return picture, label, ()
    good = (
        isinstance(listed, list)
        and all(isinstance(name, str) for name in listed)
        and len(set(listed)) == len(listed)
    )
    return picture, label, tuple(map(printable, listed)) if good else ()
