"""Files of many photos, opened by their suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vizcomp.shards.shard import Shard
from vizcomp.shards.tables import TableShard
from vizcomp.shards.tars import TarShard


def open_shard(path: Path, shown: str, fields: Sequence[str] = ()) -> Shard:
    """A shard, looked through once.

    Args:
        path: a local file.
        shown: its name in messages.
        fields: of a tar the extensions, of a table the columns, that hold photos; empty: those that
            do.

    Raises:
        FormatError: it is broken; TooLargeError: it holds more than a shard may.
        InputError: it holds no photos.
        MissingExtraError: a Parquet file without pyarrow.
    """
    return (
        TableShard(path, shown, fields)
        if path.suffix.lower() == ".parquet"
        else TarShard(path, shown, fields)
    )
