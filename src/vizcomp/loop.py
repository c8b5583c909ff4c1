"""The one loop of all batch commands: inputs to items, items to tasks, tasks through an engine, outcomes to records.

    find_inputs ──▶ Log.item ──▶ tasks ──▶ engines.map_tasks ──▶ outcomes ──▶ Log.settle, Records, on_record
    one by one      known?       groups    in worker processes    in order

It knows nothing of what a verb does with an input. Little of it grows with the number of inputs: names come one by one, a few
tasks are in hand, and records beyond the first thousands are in a temporary file.
"""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

from vizcomp import journal
from vizcomp.engines import map_tasks
from vizcomp.errors import VizcompError
from vizcomp.images import InputFile, remove_leftovers
from vizcomp.journal import Journal
from vizcomp.results import CodecRecord, DepthRecord, FileRecord
from vizcomp.storage import AnyPath

Record = TypeVar("Record", FileRecord, DepthRecord, CodecRecord)

IN_MEMORY = 2048  # records; a longer run keeps them in a temporary file
KNOWN_TOGETHER = 256  # inputs that need no work go through the engine as one
READ_TOGETHER = 256  # records read from the temporary file at a time

CRASH = "the worker process died twice on this file (out of memory, or a decoder that crashed); try fewer --jobs"


@dataclasses.dataclass(frozen=True)
class Item:
    """One input on its way.

    Attributes:
        file: the input.
        target: where its output goes; None where it has none of its own (an image that goes into a pack).
        root: the folder of all outputs; None where they are beside their inputs.
        replace: True if an earlier run started this output, so that it may be overwritten.
        fresh: True if `target` did not exist when the item was handed out: a file found there later is this run's.
        known: the record of an earlier run that finished it, as a dict; None where it is to be done.
        payload: what else that run remembered.
        key: what the journal calls it, where it has no target.
    """

    file: InputFile
    target: AnyPath | None
    root: AnyPath | None = None
    replace: bool = False
    fresh: bool = False
    known: Mapping[str, Any] | None = None
    payload: bytes | None = None
    key: bytes = b""


class Task(Protocol):
    """What an engine hands to a worker: some items that travel together, and what the verb adds."""

    @property
    def items(self) -> tuple[Item, ...]: ...

    def again(self) -> Task:
        """The task as it is tried once more, where the worker that had it was lost: it may have written before that."""
        ...


def replacing(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items of a retried task. They may overwrite what this run wrote, not what was there before."""
    return tuple(dataclasses.replace(item, replace=True) if item.fresh else item for item in items)


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[Record]):
    """What came of one item.

    Attributes:
        record: its row of the report.
        written: the output that a later run may reuse; None where there is nothing to reuse.
        payload: what is to be remembered of an item that has no output of its own.
        extra: anything else that the verb's own code wants to see.
        source_state, written_state: of the files, as `journal.state`; the loop fills them in, in the worker.
    """

    record: Record
    written: AnyPath | None = None
    payload: bytes | None = None
    extra: Any = None
    source_state: journal.State | None = None
    written_state: journal.State | None = None


# --- records --------------------------------------------------------------------------------------------------------


class Records(Sequence[Record]):
    """The records of a run in input order. A few are a list; many are in a temporary file without a name, 8 bytes each in memory.

    Args:
        kind: their class.
        in_memory: so many are kept as a list.
    """

    def __init__(self, kind: type[Record], records: Iterable[Record] = (), *, in_memory: int = IN_MEMORY) -> None:
        self._kind: type[Record] = kind
        self._in_memory = in_memory
        self._list: list[Record] = []
        self._file: Any = None
        self._starts = array.array("q", [0])
        self._unwritten: list[bytes] = []
        for record in records:
            self.append(record)

    def append(self, record: Record) -> None:
        """One more record, at the end."""
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
        line = json.dumps(record.to_dict(), separators=(",", ":")).encode() + b"\n"
        self._unwritten.append(line)
        self._starts.append(self._starts[-1] + len(line))
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
        lines: list[bytes] = []
        if first < stored:
            self._file.seek(self._starts[first])
            lines += self._file.read(self._starts[min(last, stored)] - self._starts[first]).splitlines()
        lines += self._unwritten[max(0, first - stored) : max(0, last - stored)]
        for line in lines:
            yield self._kind.from_dict(json.loads(line))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} {self._kind.__name__}s>"


# --- what is done already -------------------------------------------------------------------------------------------


class Log:
    """Which inputs need not be done, and which are done now; does nothing where no journal is kept.

    Args:
        kept: the journal, or None.
        root: the folder of all outputs; None where they are beside their inputs.
        resume: skip what an earlier run finished.
        overwrite: replace existing outputs, whoever wrote them.
    """

    def __init__(
        self, kept: Journal | None, root: AnyPath | None = None, *, resume: bool = False, overwrite: bool = False
    ) -> None:
        self.journal = kept
        self._root = root
        self._resume = resume
        self._overwrite = overwrite

    def item(self, file: InputFile, target: AnyPath | None, key: bytes = b"") -> Item:
        """An input as it starts on its way: known from an earlier run, or begun now."""
        if self.journal is None:
            return Item(file, target, self._root, key=key)
        name = target if target is not None else key
        ours = False
        if self._resume:
            if (found := self.journal.finished(file.path, name)) is not None:
                record, payload = found
                return Item(file, target, self._root, known={**record, "input": file.shown}, payload=payload, key=key)
            ours = self.journal.begun(name)
        fresh = target is not None and not target.exists()
        if target is not None and (ours or self._overwrite or fresh):
            self.journal.begin(target)
        return Item(file, target, self._root, ours, fresh, key=key)

    def settle(self, item: Item, outcome: Outcome[Any]) -> None:
        """The outcome of an input is there: what was written is remembered, what was not is no longer begun."""
        if self.journal is None or item.known is not None:
            return
        name = item.target if item.target is not None else item.key
        if outcome.source_state is not None and (outcome.written_state is not None or outcome.payload is not None):
            self.journal.finish(
                name,
                item.file.path,
                outcome.source_state,
                written=outcome.written,
                written_state=outcome.written_state,
                record=outcome.record.to_dict(),
                payload=outcome.payload,
            )
        elif item.target is not None and outcome.record.status in ("failed", "skipped"):
            self.journal.abandon(item.target)

    def give_up(self, item: Item) -> None:
        """An input that was taken and then not begun."""
        if self.journal is not None and item.known is None and item.target is not None and not item.replace:
            self.journal.abandon(item.target)

    def sweep(self) -> None:
        """Remove what an earlier run, killed while it wrote, left in the folders of the outputs that it had begun."""
        if self.journal is None:
            return
        base: AnyPath = self._root if self._root is not None else Path()
        folders = {(base / str(target)).parent for target in self.journal.unfinished()}
        for folder in folders | ({self._root} if self._root is not None else set()):
            remove_leftovers(folder)

    def close(self) -> None:
        """The run is over."""
        if self.journal is not None:
            self.journal.close()


# --- the loop -------------------------------------------------------------------------------------------------------


def run_batch(
    items: Iterable[Item],
    records: Records[Record],
    *,
    tasks: Callable[[Iterator[Item]], Iterable[Task]],
    work: Callable[[Any], Any],
    on_crash: Callable[[Any], Any],
    log: Log,
    whole: Callable[[Iterator[Any]], Iterator[Outcome[Record]]] | None = None,
    on_outcome: Callable[[Item, Outcome[Record]], Outcome[Record] | None] = lambda item, outcome: None,
    on_record: Callable[[Record], None] = lambda record: None,
    on_interrupt: Callable[[], None] = lambda: None,
    jobs: int = 0,
    engine: str = "local",
    isolate: bool = False,
) -> bool:
    """Take items through a verb; append one record for each to `records`, in their order. Returns whether Ctrl-C ended it early.

    Ctrl-C once: nothing more is begun, what is in hand is finished. Twice: it ends at once. (In another thread than the main one
    nothing listens for it.)

    Args:
        items: consumed as workers become free.
        tasks: puts neighbouring items together; each item into one task (or, for a pack, into several that follow each other),
            and keeps their order.
        work: at module top; in a worker, a task to its list of outcomes.
        on_crash: the same where the worker died twice. Items that travelled together are tried apart first.
        whole: what makes outcomes of the results of `work`, where these are no lists of them; one for each item, in order.
        on_outcome: is called with each; may return another in its place.
        isolate: work in another process even where one job is enough, since a decoder might crash.
    """
    in_hand: collections.deque[Item] = collections.deque()
    all_taken = False
    left: set[AnyPath] = set()

    def died() -> None:
        """A worker did, and the others were ended with it: they may have been writing."""
        left.update(item.target.parent for item in in_hand if item.target is not None)

    with _stopped_by_interrupt(on_interrupt) as stop:

        def taken() -> Iterator[Item]:
            nonlocal all_taken
            for item in items:
                in_hand.append(item)
                yield item
                if stop.is_set():
                    return
            all_taken = True

        function = functools.partial(_work, work, log.journal is not None)
        results = map_tasks(
            function,
            _known_together(tasks(taken())),
            on_crash=functools.partial(_crashed, on_crash, function),
            again=lambda task: task if isinstance(task, _Known) else task.again(),
            jobs=jobs,
            engine=engine,
            isolate=isolate,
            stop=stop,
            on_death=died,
        )
        outcomes = _outcomes(results, whole or itertools.chain.from_iterable)
        interrupted = False
        try:
            for outcome in outcomes:
                item = in_hand.popleft()
                if outcome is None or item.known is not None:
                    outcome = _known_outcome(item, records)
                log.settle(item, outcome)
                outcome = on_outcome(item, outcome) or outcome
                records.append(outcome.record)
                on_record(outcome.record)
        except KeyboardInterrupt:
            interrupted = True
        for item in in_hand:
            log.give_up(item)
        for folder in left:
            remove_leftovers(folder)
        return interrupted or (stop.is_set() and not (all_taken and not in_hand))


def _known_outcome(item: Item, records: Records[Record]) -> Outcome[Record]:
    assert item.known is not None
    return Outcome(records._kind.from_dict(dict(item.known)), payload=item.payload)


@dataclasses.dataclass(frozen=True)
class _Known:
    """Some items in a row that need no work; the items themselves wait in the loop."""

    count: int


def _known_together(tasks: Iterable[Task]) -> Iterator[Task | _Known]:
    """The tasks, of which those with nothing to do are put together."""
    count = 0
    for task in tasks:
        idle = all(item.known is not None for item in task.items)
        if idle:
            count += len(task.items)
        if count and (not idle or count >= KNOWN_TOGETHER):
            yield _Known(count)
            count = 0
        if not idle:
            yield task
    if count:
        yield _Known(count)


def _outcomes(
    results: Iterator[Any], whole: Callable[[Iterator[Any]], Iterator[Outcome[Record]]]
) -> Iterator[Outcome[Record] | None]:
    """One for each item; None for one that was known before it began."""
    ready: collections.deque[None] = collections.deque()

    def of_work() -> Iterator[Any]:
        for result in results:
            if isinstance(result, _Known):
                ready.extend([None] * result.count)
                yield None
            else:
                yield result

    # What makes packs whole must see every result of a pack in a row, and known items never come between those.
    rest, end = of_work(), object()
    while (head := next(rest, end)) is not end:
        if head is None:
            yield from ready
            ready.clear()
            continue
        run = itertools.chain([head], itertools.takewhile(lambda result: result is not None, rest))
        yield from whole(run)
        yield from ready
        ready.clear()


def _work(work: Callable[[Any], Any], seal: bool, task: Any) -> Any:
    """In the worker: do a task, and say in what state its sources and outputs were."""
    if isinstance(task, _Known):
        return task
    if not seal:
        return work(task)
    before = [journal.stamp(item.file.path) for item in task.items]
    done = work(task)
    if not isinstance(done, list):
        return done
    return [_sealed(outcome, item, stamp) for outcome, item, stamp in zip(done, task.items, before, strict=True)]


def _sealed(outcome: Outcome[Any], item: Item, before: tuple[int, int] | None) -> Outcome[Any]:
    if item.known is not None or (outcome.written is None and outcome.payload is None):
        return outcome
    with contextlib.suppress(OSError):
        source = journal.state(item.file.path)
        if source[:2] != before:
            return outcome  # changed while it was read: which of the two was read is not known
        written = None if outcome.written is None else journal.state(outcome.written)
        return dataclasses.replace(outcome, source_state=source, written_state=written)
    return outcome


def _crashed(on_crash: Callable[[Any], Any], function: Callable[[Any], Any], task: Any) -> Any:
    """What comes of a task that cost its worker twice: of several items only those that do so by themselves are lost.

    They are tried one by one in workers of this machine, whatever the engine: a crash is rare, and caution worth more than speed.
    """
    if isinstance(task, _Known):
        return task
    items = getattr(task, "items", ())
    if len(items) < 2:
        return on_crash(task)
    whole = task.again()
    apart = [dataclasses.replace(whole, items=(item,)) for item in whole.items]
    found = map_tasks(function, apart, on_crash=on_crash, again=lambda single: single.again(), jobs=1, isolate=True)
    return list(itertools.chain.from_iterable(found))


@contextlib.contextmanager
def _stopped_by_interrupt(on_interrupt: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM, on the command line) sets; the second raises KeyboardInterrupt."""
    stop = threading.Event()
    ours = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is signal.default_int_handler]
    if threading.current_thread() is not threading.main_thread() or not ours:
        yield stop  # somebody else handles it: then that is what happens
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        on_interrupt()

    for each in ours:
        signal.signal(each, handle)
    try:
        yield stop
    finally:
        for each in ours:
            signal.signal(each, signal.default_int_handler)


def attempt(work: Callable[[], Record], failed: Callable[[VizcompError], Record]) -> Record:
    """The record of `work`, or where anything ends it, that of `failed`; with the time it took.

    An exception that is none of ours is a defect of ours. It is said with its place, and costs this input and no other.
    """
    import time

    started = time.perf_counter()
    try:
        record = work()
    except VizcompError as exc:
        record = failed(exc)
    except MemoryError:
        record = failed(VizcompError("out of memory", "try fewer --jobs"))
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
