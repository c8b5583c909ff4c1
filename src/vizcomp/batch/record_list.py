"""The records of a run: a few in memory, many in a temporary file."""

from __future__ import annotations

import array
import contextlib
import itertools
import operator
import pickle
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

from vizcomp.batch.records import CodecRecord, DepthRecord, FileRecord

Record = TypeVar("Record", FileRecord, DepthRecord, CodecRecord)

IN_MEMORY = 2048  # records; a longer run keeps them in a temporary file

READ_TOGETHER = 256  # records read from the temporary file at a time


class Records(Sequence[Record]):
    """The records of a run in input order. A few are a list; many are in a temporary file without a
    name, 8 bytes each in memory.

    Args:
        kind: their class.
        in_memory: so many are kept as a list.

    Attributes:
        resumed: how many of them an earlier run made.
        resumed_work: what speeds would count of those (`InputRecord.work`).
    """

    def __init__(
        self, kind: type[Record], records: Iterable[Record] = (), *, in_memory: int = IN_MEMORY
    ) -> None:
        self._kind: type[Record] = kind
        self._names = tuple(kind.__dataclass_fields__)
        self._values = operator.attrgetter(*self._names)
        self._in_memory = in_memory
        self._list: list[Record] = []
        self._file: Any = None
        self._starts = array.array("q", [0])
        self._unwritten: list[bytes] = []
        self.resumed = self.resumed_work = 0
        for record in records:
            self.append(record)

    @property
    def kind(self) -> type[Record]:
        """The class of its records."""
        return self._kind

    def append(self, record: Record, *, resumed: bool = False) -> None:
        """One more record, at the end.

        Args:
            resumed: an earlier run made it.
        """
        self.resumed += resumed
        self.resumed_work += record.work if resumed else 0
        if self._file is None:
            self._list.append(record)
            if len(self._list) > self._in_memory:
                self._spill()
            return
        self._store(record)

    def _spill(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="vizcomp-")  # noqa: SIM115  # lives as long as the records
            weakref.finalize(self, self._file.close)
        except OSError:  # no room for temporary files: memory it is
            self._in_memory *= 2
            return
        records, self._list = self._list, []
        for record in records:
            self._store(record)

    def _store(self, record: Record) -> None:
        # pickled: five times as quick to read as JSON, and the file has no name by which another
        # could change it
        data = pickle.dumps(self._values(record), pickle.HIGHEST_PROTOCOL)
        self._unwritten.append(data)
        self._starts.append(self._starts[-1] + len(data))
        if len(self._unwritten) >= READ_TOGETHER:
            with contextlib.suppress(OSError):  # a full disk: tried again with the next one
                self._flush()

    def _flush(self) -> None:
        data = b"".join(self._unwritten)
        start = self._starts[len(self._starts) - 1 - len(self._unwritten)]
        self._file.seek(start)
        self._file.write(data)
        self._file.flush()
        self._unwritten = []

    def __len__(self) -> int:
        return len(self._list) if self._file is None else len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if self._file is None:
            return self._list[index]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return next(self._read(number, number + 1))

    def __iter__(self) -> Iterator[Record]:
        if self._file is None:
            yield from self._list
            return
        count = len(self)
        for first in range(0, count, READ_TOGETHER):
            yield from self._read(first, min(first + READ_TOGETHER, count))

    def _read(self, first: int, last: int) -> Iterator[Record]:
        stored = len(self) - len(self._unwritten)
        parts: list[bytes] = []
        if first < stored:
            start, end = self._starts[first], self._starts[min(last, stored)]
            self._file.seek(start)
            data = self._file.read(end - start)
            bounds = [place - start for place in self._starts[first : min(last, stored) + 1]]
            parts += [data[a:b] for a, b in itertools.pairwise(bounds)]
        parts += self._unwritten[max(0, first - stored) : max(0, last - stored)]
        for part in parts:
            yield self._kind.from_values(dict(zip(self._names, pickle.loads(part), strict=True)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} {self._kind.__name__}s>"
