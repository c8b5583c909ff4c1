"""Photos without classes out of Parquet tables and tar archives: files, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from vizcomp.datasets.archive import open_source
from vizcomp.datasets.labelled import OnSkip, Unreadable
from vizcomp.datasets.parquet import find_tables, tables_of_test
from vizcomp.errors import InputError, VizcompError
from vizcomp.files.find import EXTENSIONS, InputFile
from vizcomp.files.place import printable
from vizcomp.shards.tables import TableShard

Choose = Callable[[npt.NDArray[np.int64]], Sequence[int]]

_USUAL = ("image", "img", "photo", "picture")  # the column of photos where several hold some


def unpacked_photos(
    path: Path, folder: Path, choose: Choose, on_skip: OnSkip
) -> list[InputFile] | None:
    """The photos of Parquet tables (the test part where there is one), or of a tar archive; None
    where a path is neither.

    Args:
        folder: where the files go, by number: no name of a table or an archive is used.
        choose: from the labels of all, which are 0, to the indices of those that are wanted.
        on_skip: is told of what holds no photo.

    Raises:
        FormatError: it is broken.
        InputError: no photos, or several columns of them.
        MissingExtraError: tables, and no pyarrow.
    """
    if os.path.isfile(path) and path.suffix.lower() in EXTENSIONS:
        return None
    if tables := find_tables(path):
        return _of_tables(tables_of_test(path, tables), folder, choose, on_skip)
    return None if os.path.isdir(path) else _of_archive(path, folder, choose, on_skip)


def _of_tables(
    tables: Sequence[Path], folder: Path, choose: Choose, on_skip: OnSkip
) -> list[InputFile]:
    shards = [_opened(table) for table in tables]
    try:
        rows = [shard.file.metadata.num_rows for shard in shards]
        wanted = {*choose(np.zeros(sum(rows), np.int64))}
        folder.mkdir(parents=True, exist_ok=True)
        there: list[InputFile] = []
        at = 0
        for shard in shards:
            for row, member in enumerate(shard.members()):
                if at in wanted:
                    name = f"{shard.shown}/{row:05d}"
                    if member.data:
                        place = folder / f"{at:07d}"
                        place.write_bytes(member.data)
                        there.append(InputFile(place, PurePath(name)))
                    else:
                        on_skip(name, member.fixed)
                at += 1
    finally:
        for shard in shards:
            shard.close()
    return there


def _opened(table: Path) -> TableShard:
    """A table with one column of photos.

    Raises:
        InputError: it has several, none of a usual name.
    """
    shown = printable(table.name)
    shard = TableShard(table, shown)
    if len(shard.columns) == 1:
        return shard
    columns = shard.columns
    shard.close()
    usual = next((name for name in _USUAL if name in columns), "")
    if not usual:
        raise InputError(
            f"{shown} has several columns of photos: {', '.join(map(printable, columns))}",
            f"call the one that is meant {_USUAL[0]}, or write a table without the others",
        )
    return TableShard(table, shown, [usual])


def _of_archive(path: Path, folder: Path, choose: Choose, on_skip: OnSkip) -> list[InputFile]:
    with open_source(path) as source:
        photos = source.pictures((), on_skip)
        if not photos:
            raise InputError(f"{printable(path)} holds no photos", "check the path")
        chosen = list(choose(np.zeros(len(photos), np.int64)))
        folder.mkdir(parents=True, exist_ok=True)
        there: dict[int, InputFile] = {}
        for at in source.in_reading_order([photos[k][1] for k in chosen]):
            k = chosen[at]
            parts, handle = photos[k]
            place = folder / f"{k:07d}{PurePath(parts[-1]).suffix.lower()[:8]}"
            try:
                place.write_bytes(source.read(handle))
            except (Unreadable, VizcompError) as exc:
                why = exc.reason if isinstance(exc, Unreadable) else exc.message
                on_skip("/".join(map(printable, parts)), why)
                continue
            there[k] = InputFile(place, PurePath(*parts))
    return [there[k] for k in sorted(there)]
