"""Shards through the loop of all batches: their photos are items like any other, and what comes of
them is put together again.

    shard.tar ── its photos, with their bytes ──▶ workers ──▶ their new bytes, in order ──▶
    out/shard.tar

The bytes travel with the tasks, so workers on other machines need no disk in common. Only this
process reads and writes shards: beside, then renamed. A shard is finished or not: the journal
remembers it with the records of all its photos.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Self

from vizcomp.batch.items import CRASH, Item, Outcome, attempt, one_line, reason_to_skip, size_of
from vizcomp.batch.judges import depth_source, given_systems, mask_folder, needs_depth
from vizcomp.batch.log import Log
from vizcomp.batch.records import FileRecord
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.single import finish, measured
from vizcomp.djpeg.kinds import settings_for
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import OutputError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import OutputNames
from vizcomp.files.place import disk_cause, disk_hint, printable
from vizcomp.files.read import file_state
from vizcomp.files.store import AnyPath, StorePath
from vizcomp.files.write import write_atomic
from vizcomp.photos.photo import load_bytes
from vizcomp.shards.open import open_shard
from vizcomp.shards.shard import (
    SHARDS,
    Member,
    Replaced,
    Shard,
    ShardWriter,
    chunks_of,
    is_shard,
    local_copy,
    new_suffix,
    put_file,
)
from vizcomp.vision.system import System

# what another try may not meet again: such a shard is not remembered as done
_PASSING = (CRASH, "out of memory")


@dataclasses.dataclass(frozen=True)
class MemberItem(Item):
    """A photo of a shard on its way.

    Attributes:
        shard: number of the shard.
        member: the photo; None: it stands for a shard of which nothing is done, `why` and whether
            that is a failure.
        last: it is the last of its shard.
    """

    shard: int = 0
    member: Member | None = None
    last: bool = False
    why: str = ""
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class MemberTask:
    """One photo of a shard: all that a worker needs; the attributes as of `DjpegTask`."""

    items: tuple[MemberItem]
    settings: DjpegSettings
    batch: BatchSettings
    number: int = 0
    systems: tuple[System, ...] = ()

    def again(self) -> Self:
        """As it is: a worker writes nothing."""
        return self


@dataclasses.dataclass(frozen=True)
class MemberResult:
    """What became of a photo of a shard; `new` is None where it stays."""

    record: FileRecord
    new: Replaced | None
    shard: int
    last: bool


def member_one(task: MemberTask) -> MemberResult:
    """Compress one photo of a shard; whatever happens, there is a record."""
    (item,) = task.items
    box: list[Replaced] = []
    file = item.file
    if item.member is None or item.member.fixed:
        size = size_of(file.path) if item.member is None else len(item.member.data)
        why = item.why if item.member is None else f"left as it was: {item.member.fixed}"
        status: Any = "failed" if item.failed else "skipped"
        record = FileRecord(
            input=file.shown, output=None, status=status, error=why, source_bytes=size
        )
        return MemberResult(record, None, item.shard, item.last)
    with given_systems(task.systems):
        record = attempt(
            lambda: _member(task, item.member, box),  # type: ignore[arg-type]
            lambda exc: _failed(item, one_line(exc)),
        )
    return MemberResult(record, box[0] if box else None, item.shard, item.last)


def member_crashed(task: MemberTask) -> MemberResult:
    """The same where the worker died twice."""
    (item,) = task.items
    return MemberResult(_failed(item, CRASH), None, item.shard, item.last)


def _failed(item: MemberItem, error: str) -> FileRecord:
    size = len(item.member.data) if item.member is not None else 0
    notices = ("it is in the new shard as it was",)
    return FileRecord(
        input=item.file.shown,
        output=None,
        status="failed",
        error=error,
        source_bytes=size,
        notices=notices,
    )


def _member(task: MemberTask, member: Member, box: list[Replaced]) -> FileRecord:
    file, settings, batch = task.items[0].file, task.settings, task.batch
    source = depth_source(batch) if needs_depth(settings) else None
    photo = load_bytes(member.data, file.shown, max_pixels=batch.max_pixels)
    settings = settings_for(photo, settings)
    mask = (
        mask_folder(batch.masks).read(file) if batch.masks and "mask" in settings.guides else None
    )
    result = finish(
        photo, file, settings, batch, original=lambda: member.data, depth=source, mask=mask
    )
    suffix = (
        member.suffix
        if result.kept
        else new_suffix(member.suffix, result.suffix or task.settings.suffix)
    )
    if result.data != member.data:
        box.append(Replaced(result.data, suffix))
    return measured(
        photo,
        result,
        file,
        settings,
        batch,
        number=task.number,
        original=lambda: member.data,
    )


class Shards:
    """The shards of a run: taken apart into items, put together from results.

    Args:
        output: the folder of the results.
        batch: settings of the run.
        log: what earlier runs finished.
        fields: as `shards.open.open_shard`.
        target: where the only shard goes; None: below `output`, under its own name.
    """

    def __init__(
        self,
        output: AnyPath,
        batch: BatchSettings,
        log: Log,
        fields: tuple[str, ...] = (),
        *,
        target: AnyPath | None = None,
    ) -> None:
        self._batch = batch
        self._log = log
        self._fields = fields
        self._target = target
        self._names = {
            suffix: OutputNames(output, suffix, extensions=frozenset((suffix,)))
            for suffix in SHARDS
        }
        self._open: dict[int, _Open] = {}
        self._count = 0

    def among(
        self, files: Iterable[InputFile], photo: Callable[[InputFile], Item]
    ) -> Iterator[Item]:
        """The items of files: `photo` makes that of a photo, shards give theirs."""
        for file in files:
            if is_shard(file.path):
                yield from self.items(file)
            else:
                yield photo(file)

    def notices(self) -> tuple[str, ...]:
        """What a user should know when the run is over."""
        useless = self._fields and not self._count
        return ("`fields` has no effect: no input is a .tar or .parquet file",) if useless else ()

    def items(self, file: InputFile) -> Iterator[Item]:
        """The photos of a shard; or one item that stands for it where nothing is done."""
        number, self._count = self._count, self._count + 1
        target = self._target or self._names[file.path.suffix.lower()].path_for(file)
        whole = self._log.item(file, target)
        if whole.known is not None and (known := _known_rows(whole.payload)) is not None:
            yield from (Item(file, None, known=row) for row in known)
            return
        replace = (
            self._batch.overwrite or self._batch.dry_run or whole.replace or whole.known is not None
        )
        whole = dataclasses.replace(whole, known=None)
        stands = MemberItem(file, None, shard=number, last=True)
        with contextlib.ExitStack() as stack:
            try:
                why = reason_to_skip(target, file, replace=replace)
                if why is None:
                    shard = open_shard(
                        stack.enter_context(local_copy(file.path)), file.shown, self._fields
                    )
            except VizcompError as exc:
                self._log.give_up(whole)
                yield dataclasses.replace(stands, why=one_line(exc), failed=True)
                return
            if why is not None:
                yield dataclasses.replace(stands, why=why)
                return
            self._open[number] = _Open(whole, target, shard, stack.pop_all())
        yield from self._members(number, file, shard, stands)

    def _members(
        self, number: int, file: InputFile, shard: Shard, stands: MemberItem
    ) -> Iterator[Item]:
        before: MemberItem | None = None
        try:
            for member in shard.members():
                if before is not None:
                    yield before
                shown = f"{file.shown}::{printable(member.name)}"
                relative = PurePath(
                    member.name if "[" not in member.name else member.name + member.suffix
                )
                before = MemberItem(
                    InputFile(file.path, relative, shown), None, shard=number, member=member
                )
        except VizcompError as exc:  # it is broken further on: nothing of it is written
            self._open[number].broken = one_line(exc)
            yield from (each for each in (before,) if each is not None)
            yield dataclasses.replace(stands, why=one_line(exc), failed=True)
            return
        if before is None:
            self._open[number].broken = "it holds no photos"
            yield dataclasses.replace(stands, why=f"{file.shown} holds no photos", failed=True)
        else:
            yield dataclasses.replace(before, last=True)

    def outcomes(
        self, results: Iterable[MemberResult | list[Outcome[FileRecord]]]
    ) -> Iterator[Outcome[FileRecord]]:
        """Outcomes of photos by themselves as they come; those of a shard once it is written."""
        held: list[FileRecord] = []
        for result in results:
            if isinstance(result, list):
                yield from result
                continue
            shard = self._open.get(result.shard)
            if shard is None:  # nothing of it is done
                yield Outcome(result.record)
                continue
            held.append(result.record)
            shard.put(result.new, dry_run=self._batch.dry_run)
            if result.last:
                del self._open[result.shard]
                yield from self._finished(shard, held)
                held = []

    def close(self) -> None:
        """The run is over: shards that it did not come to the end of are as if they had not been
        begun."""
        for shard in self._open.values():
            self._log.give_up(shard.item)
            shard.close()
        self._open.clear()

    def _finished(self, shard: _Open, records: list[FileRecord]) -> Iterator[Outcome[FileRecord]]:
        """Write a shard, and give the outcomes of its photos: all failed where that cannot be
        done."""
        error = shard.broken
        try:
            if not error and not self._batch.dry_run:
                times = _times(shard.item.file.path) if self._batch.keep_dates else None
                shard.write(times, below=shard.item.root)
                records = [_written(record, shard.target) for record in records]
        except VizcompError as exc:
            error = one_line(exc)
        finally:
            shard.close()
        if error:
            self._log.give_up(shard.item)
            records = [
                dataclasses.replace(r, status="failed", output=None, error=f"its shard: {error}")
                for r in records
            ]
        elif not self._batch.dry_run and not any(
            (r.error or "").startswith(_PASSING) for r in records
        ):
            self._remember(shard, records)
        yield from (Outcome(record) for record in records)

    def _remember(self, shard: _Open, records: list[FileRecord]) -> None:
        with contextlib.suppress(OSError):  # then it is done again
            payload = zlib.compress(json.dumps([record.to_dict() for record in records]).encode())
            states = file_state(shard.item.file.path), file_state(shard.target)
            whole = FileRecord(
                input=shard.item.file.shown, output=printable(shard.target), status="ok"
            )
            outcome = Outcome(
                whole, shard.target, payload, source_state=states[0], written_state=states[1]
            )
            self._log.settle(shard.item, outcome)


def _known_rows(payload: bytes | None) -> list[dict[str, Any]] | None:
    """The records of a shard's photos as the journal has them; None where they cannot be read."""
    try:
        rows = json.loads(zlib.decompress(payload or b""))
        for row in rows:
            FileRecord.from_dict(row)
    except (ValueError, TypeError, RecursionError, zlib.error):
        return None
    return list(rows)


class _Open:
    """A shard between its first photo and its last."""

    def __init__(
        self, item: Item, target: AnyPath, shard: Shard, stack: contextlib.ExitStack
    ) -> None:
        self.item = item
        self.target = target
        self.broken = ""
        self._shard = shard
        self._stack = stack
        self._stack.callback(shard.close)
        self._writer: ShardWriter | None = None
        self._file: BinaryIO | None = None

    def put(self, new: Replaced | None, *, dry_run: bool) -> None:
        """The next photo; what the disk has against it is kept for `write`."""
        if self.broken or dry_run:
            return
        self._attempt(lambda: self._open_writer().put(new))

    def _open_writer(self) -> ShardWriter:
        if self._writer is None:
            folder = (
                self.target.parent
                if isinstance(self.target, Path) and self.target.parent.is_dir()
                else None
            )
            temporary = tempfile.TemporaryFile(prefix=".vizcomp-", dir=folder)  # noqa: SIM115
            self._file = self._stack.enter_context(temporary)
            self._writer = self._shard.writer(self._file)
        return self._writer

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except VizcompError as exc:
            self.broken = one_line(exc)
        except OSError as exc:
            self.broken = one_line(
                OutputError(
                    f"{printable(self.target)} cannot be written: {disk_cause(exc)}", disk_hint(exc)
                )
            )

    def write(self, times: tuple[int, int] | None, *, below: AnyPath | None) -> None:
        """The new shard, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        self._attempt(lambda: self._open_writer().close())
        if self.broken or self._file is None:
            raise VizcompError(self.broken)
        if not isinstance(self.target, StorePath):
            write_atomic(self.target, chunks_of(self._file), times=times, below=below)
            return
        with tempfile.NamedTemporaryFile(prefix="vizcomp-") as copy:
            for part in chunks_of(self._file):
                copy.write(part)
            copy.flush()
            put_file(self.target, Path(copy.name))

    def close(self) -> None:
        self._stack.close()


def _written(record: FileRecord, target: AnyPath) -> FileRecord:
    if record.status not in ("ok", "kept"):
        return record
    return dataclasses.replace(
        record, output=f"{printable(target)}::{record.input.partition('::')[2]}"
    )


def _times(path: AnyPath) -> tuple[int, int]:
    stat = path.stat()
    return getattr(stat, "st_atime_ns", stat.st_mtime_ns), stat.st_mtime_ns
