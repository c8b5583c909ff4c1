"""Inputs on their way, the tasks that carry them, and what came of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self

from vizcomp.batch.record_list import Record
from vizcomp.errors import InputError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import is_there
from vizcomp.files.place import disk_cause
from vizcomp.files.read import FileState
from vizcomp.files.store import AnyPath, same_place


def reason_to_skip(target: AnyPath, file: InputFile, *, replace: bool) -> str | None:
    """Why an input is not done, where its output exists already; None where it is to be done.

    Raises:
        InputError: the output would replace its own source, or that is gone.
        OutputError: the output cannot be looked at.
    """
    if not is_there(target):
        return None
    try:
        same = same_place(target, file.path)
    except OSError as exc:
        raise InputError(
            f"{file.shown} cannot be opened: {disk_cause(exc)}",
            "check the path and its permissions",
        ) from exc
    if same:
        raise InputError(
            f"{file.shown} would be replaced by its own output", "choose another output folder"
        )
    return None if replace else "output exists; `overwrite` replaces it"


def one_line(error: VizcompError) -> str:
    """What is wrong and what to try, in one line for a record."""
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    return " ".join(text.split())


def size_of(path: AnyPath) -> int:
    """Bytes of a file; 0 where it cannot be read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


CRASH = (
    "the worker process died twice on this file (out of memory, or a decoder that crashed); try"
    " fewer `jobs`"
)


@dataclasses.dataclass(frozen=True)
class Item:
    """One input on its way.

    Attributes:
        file: the input.
        target: where its output goes; None where it has none of its own (an image that goes into a
            pack).
        root: the folder of all outputs; None where they are beside their inputs.
        replace: True if an earlier run started this output, so that it may be overwritten.
        fresh: True if `target` did not exist when the item was handed out: a file found there later
            is this run's.
        known: the record of an earlier run that finished it, as a dict; None where it is to be
            done.
        payload: what else that run remembered.
        key: what the journal calls it, where it has no target.
        same: True if `target` exists and an earlier run made it of this source under these
            settings.
        former: where an earlier run wrote this output, which nobody changed since.
        earlier: what the journal knew of that output.
    """

    file: InputFile
    target: AnyPath | None
    root: AnyPath | None = None
    replace: bool = False
    fresh: bool = False
    known: Mapping[str, Any] | None = None
    payload: bytes | None = None
    key: bytes = b""
    same: bool = False
    former: AnyPath | None = None
    earlier: tuple[str, bytes | None] | None = None


class Task(Protocol):
    """What an engine hands to a worker: some items that travel together, and what the verb adds."""

    @property
    def items(self) -> tuple[Item, ...]: ...

    def again(self) -> Task:
        """The task as it is tried once more, where the worker that had it was lost: it may have
        written before that."""
        ...


@dataclasses.dataclass(frozen=True)
class ItemsTask:
    """A task that is its items and settings."""

    items: tuple[Item, ...]

    def again(self) -> Self:
        """As `Task.again`."""
        return dataclasses.replace(self, items=replacing(self.items))


def replacing(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items of a retried task. They may overwrite what this run wrote, not what was there
    before."""
    return tuple(dataclasses.replace(item, replace=True) if item.fresh else item for item in items)


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[Record]):
    """What came of one item.

    Attributes:
        record: its row of the report.
        written: the output that a later run may reuse; None where there is nothing to reuse.
        payload: what is to be remembered of an item that has no output of its own.
        extra: anything else that the verb's own code wants to see.
        source_state, written_state: of the files, as `read.file_state`; the loop fills them in, in
            the worker.
    """

    record: Record
    written: AnyPath | None = None
    payload: bytes | None = None
    extra: Any = None
    source_state: FileState | None = None
    written_state: FileState | None = None


def attempt(work: Callable[[], Record], failed: Callable[[VizcompError], Record]) -> Record:
    """The record of `work`, or where anything ends it, that of `failed`; with the time it took.

    An exception that is none of ours is a defect of ours. It is said with its place, and costs this
    input and no other.
    """
    import time

    started = time.perf_counter()
    try:
        record = work()
    except VizcompError as exc:
        record = failed(exc)
    except MemoryError:
        record = failed(VizcompError("out of memory", "try fewer `jobs`"))
    except Exception as exc:
        record = failed(_defect(exc))
    return dataclasses.replace(record, seconds=time.perf_counter() - started)


def _defect(exc: Exception) -> VizcompError:
    trace = exc.__traceback__
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if f"{os.sep}vizcomp{os.sep}" in code.co_filename:
            place = f" at {os.path.basename(code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    text = " ".join(str(exc).split())[:200]
    return VizcompError(
        f"unexpected {type(exc).__name__}{place}{': ' + text if text else ''}",
        "this is a defect of vizcomp: please report it, with the file if you can",
    )
