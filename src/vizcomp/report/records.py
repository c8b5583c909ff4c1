"""Records without a page: report.json and report.csv of `depth`, `encode` and `decode`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vizcomp.files.store import AnyPath
from vizcomp.files.write import check_output_folder, write_atomic
from vizcomp.report.tables import csv_chunks, plain, report_chunks


def write_records(
    folder: AnyPath,
    report: Mapping[str, Any],
    records: Callable[[], Iterable[Any]],
    kind: type[Any],
) -> AnyPath:
    """Write both files, each beside its place and then renamed; gives the place of the JSON.

    Args:
        folder: made if it is missing.
        report: what goes before the records; not empty.
        records: gives them, each time it is called; dataclasses of one kind.
        kind: that dataclass, whose fields are the columns.

    Raises:
        OutputError: the folder cannot be made, or a file cannot be written.
    """
    check_output_folder(folder)
    columns = [field.name for field in dataclasses.fields(kind)]
    rows = (plain(record) for record in records())
    place = folder / "report.json"
    write_atomic(place, (part.encode("ascii") for part in report_chunks(plain(report), rows)))
    cells = ([row[name] for name in columns] for row in map(plain, records()))
    parts = (part.encode("utf-8") for part in csv_chunks(columns, cells))
    write_atomic(folder / "report.csv", parts)
    return place
