"""Parquet tables with a column of photos, as Hugging Face's `datasets` writes them: photos
replaced, the rest as it is.

A column of photos holds the bytes of a file in each row: binary, or a struct of `bytes` and `path`.
Other columns, the order of the rows, their groups, the schema with its metadata, and each column's
compression stay; the bytes of the file itself do not.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from vizcomp.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    TooLargeError,
    VizcompError,
    first_line,
)
from vizcomp.files.foreign import read_json
from vizcomp.files.place import printable
from vizcomp.photos.decoders import recognise
from vizcomp.shards.shard import Member, Replaced

MAX_GROUP = 1 << 31  # bytes of one group of rows, unpacked: it is in memory as a whole


class TableShard:
    """A Parquet file; arguments and errors as of `open_shard`."""

    def __init__(self, path: Path, shown: str, fields: Sequence[str] = ()) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as exc:
            raise MissingExtraError("pyarrow, which reads Parquet files,", "parquet") from exc
        self.shown = shown
        self.arrow = pyarrow
        with self._errors():
            self.file = pyarrow.parquet.ParquetFile(path)
        try:
            with self._errors():
                self.schema = self.file.schema_arrow
                about = self.file.metadata
                largest = max(
                    (about.row_group(k).total_byte_size for k in range(about.num_row_groups)),
                    default=0,
                )
                if largest > MAX_GROUP:
                    raise TooLargeError(
                        f"{shown} has a group of rows of {largest} bytes",
                        f"write it in groups below {MAX_GROUP}",
                    )
                self.columns = self._columns_of_photos(fields)
        except BaseException:
            self.close()
            raise
        # groups that were read and are not yet written
        self.waiting: collections.deque[Any] = collections.deque()

    def _columns_of_photos(self, fields: Sequence[str]) -> list[str]:
        names = self.schema.names
        for name in fields:
            if name not in names:
                raise InputError(
                    f"{self.shown} has no column {printable(name)}",
                    f"it has {', '.join(map(printable, names[:12]))}",
                )
            if not self._can_hold(name):
                raise InputError(
                    f"{self.shown}: the column {printable(name)} holds"
                    f" {self.schema.field(name).type}",
                    "photos are binary",
                )
        if fields:
            return list(dict.fromkeys(fields))
        said = self._said_to_be_images()
        columns = [
            name
            for name in names
            if self._can_hold(name) and (name in said if said else self._starts_as_photo(name))
        ]
        if not columns:
            listed = ", ".join(
                f"{printable(name)} ({self.schema.field(name).type})" for name in names[:8]
            )
            raise InputError(
                f"{self.shown} has no column of photos: {listed}", "name it with `fields`"
            )
        return columns

    def _can_hold(self, name: str) -> bool:
        types, kind = self.arrow.types, self.schema.field(name).type
        if types.is_struct(kind):
            return any(part.name == "bytes" and _is_binary(types, part.type) for part in kind)
        return _is_binary(types, kind)

    def _said_to_be_images(self) -> set[str]:
        """The columns that the metadata of `datasets` call images."""
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            features = read_json((self.schema.metadata or {})[b"huggingface"])["info"]["features"]
            return {name for name, feature in features.items() if feature.get("_type") == "Image"}
        return set()

    def _starts_as_photo(self, name: str) -> bool:
        """Whether the first value of a column is a photo of a kind that is read."""
        for batch in self.file.iter_batches(64, columns=[name]):
            for value in _cells(batch.column(0), self.arrow):
                if value is not None:
                    with contextlib.suppress(VizcompError):
                        recognise(value[:4096], name)
                        return True
                    return False
        return False

    def members(self) -> Iterator[Member]:
        row = 0
        for group in range(self.file.metadata.num_row_groups):
            with self._errors():
                table = self.file.read_row_group(group)
            self.waiting.append(table)
            cells = [self._photos_of(table, name) for name in self.columns]
            for index in range(table.num_rows):
                for name, values in zip(self.columns, cells, strict=True):
                    data, path = next(values)
                    fixed = (
                        ""
                        if data
                        else (
                            f"no bytes, only the path {printable(path)}"
                            if path
                            else "the cell is empty"
                        )
                    )
                    yield Member(f"{name}[{row}]", data or b"", os.path.splitext(path)[1], fixed)
                row += 1
                del index
            del table, cells

    def _photos_of(self, table: Any, name: str) -> Iterator[tuple[bytes | None, str]]:
        column = table.column(name)
        paths: Iterator[Any] = iter([None] * table.num_rows)
        if self.arrow.types.is_struct(column.type) and "path" in [
            part.name for part in column.type
        ]:
            paths = (
                cell["path"].as_py() if cell.is_valid else None
                for chunk in column.chunks
                for cell in chunk
            )
        for data, path in zip(
            (v for chunk in column.chunks for v in _cells(chunk, self.arrow)), paths, strict=True
        ):
            yield data, path if isinstance(path, str) else ""

    def writer(self, file: BinaryIO) -> TableWriter:
        return TableWriter(self, file)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.file.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except VizcompError:
            raise
        except MemoryError as exc:
            raise TooLargeError(
                f"{self.shown} does not fit into memory", "write it in smaller groups of rows"
            ) from exc
        except Exception as exc:  # ArrowInvalid, OSError and others
            raise FormatError(
                f"{self.shown} cannot be read as Parquet: {first_line(exc)}",
                "copy or download it again",
            ) from exc


class TableWriter:
    """The table again, group by group."""

    def __init__(self, shard: TableShard, file: BinaryIO) -> None:
        self._shard = shard
        self._arrow = shard.arrow
        self._file = file
        self._new: list[Replaced | None] = []
        self._writer: Any = None

    def put(self, new: Replaced | None) -> None:
        self._new.append(new)
        with self._errors():
            self._write_whole_groups()

    def _write_whole_groups(self, *, all_of_them: bool = False) -> None:
        columns = self._shard.columns
        while self._shard.waiting:
            table = self._shard.waiting[0]
            count = table.num_rows * len(columns)
            if len(self._new) < count or (count == 0 and not all_of_them and not self._new):
                return
            self._shard.waiting.popleft()
            new, self._new = self._new[:count], self._new[count:]
            for k, name in enumerate(columns):
                place = table.schema.get_field_index(name)
                changed = _changed(table.column(place), new[k :: len(columns)], self._arrow)
                table = table.set_column(place, table.schema.field(place), changed)
            self._opened().write_table(
                table.cast(self._shard.schema), row_group_size=max(1, table.num_rows)
            )

    def _opened(self) -> Any:
        """The writer; not before a group was read, since Arrow aborts where it is asked for a
        compression that is none."""
        if self._writer is None:
            options = _as_written(self._shard.file)
            self._writer = self._arrow.parquet.ParquetWriter(
                self._file, self._shard.schema, **options
            )
        return self._writer

    def close(self) -> None:
        with self._errors():
            self._write_whole_groups(all_of_them=True)
            self._opened().close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What cannot be written again; a full disk is said by the caller."""
        try:
            yield
        except (VizcompError, OSError):
            raise
        # ArrowInvalid and others: values that its own schema does not allow, say
        except Exception as exc:
            raise FormatError(
                f"{self._shard.shown} cannot be written again: {first_line(exc)}", "write it anew"
            ) from exc


def _is_binary(types: Any, kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _cells(array: Any, arrow: Any) -> Iterator[bytes | None]:
    if arrow.types.is_struct(array.type):
        for cell in array:
            yield cell["bytes"].as_py() if cell.is_valid else None
    else:
        for cell in array:
            yield cell.as_py()


def _changed(column: Any, new: list[Replaced | None], arrow: Any) -> Any:
    """A column with some of its photos replaced; nulls, and other parts of a struct, stay."""
    values = list(
        _cells(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0), arrow)
    )
    values = [value if each is None else each.data for value, each in zip(values, new, strict=True)]
    if not arrow.types.is_struct(column.type):
        return arrow.array(values, column.type)
    cells = column.to_pylist()
    for cell, value, each in zip(cells, values, new, strict=True):
        if cell is None or each is None:
            continue
        cell["bytes"] = value
        if isinstance(cell.get("path"), str):
            cell["path"] = os.path.splitext(cell["path"])[0] + each.suffix
    return arrow.array(cells, column.type)


def _as_written(file: Any) -> dict[str, Any]:
    """Options of a writer that does as the one of this file did."""
    about = file.metadata
    options: dict[str, Any] = {"store_schema": b"ARROW:schema" in (about.metadata or {})}
    if about.format_version in ("1.0", "2.4", "2.6"):
        options["version"] = about.format_version
    if about.num_row_groups:
        first = about.row_group(0)
        columns = [first.column(k) for k in range(first.num_columns)]
        options["compression"] = {
            column.path_in_schema: (
                "NONE" if column.compression == "UNCOMPRESSED" else column.compression
            )
            for column in columns
        }
        options["use_dictionary"] = [
            c.path_in_schema for c in columns if any("DICTIONARY" in e for e in c.encodings)
        ]
        options["write_statistics"] = [c.path_in_schema for c in columns if c.is_stats_set]
    return options
