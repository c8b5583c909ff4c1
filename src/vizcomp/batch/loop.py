"""The one loop of all batch commands: inputs to items, items to tasks, tasks through an engine,
outcomes to records.

    find_inputs ─▶ Log.item ─▶ tasks ─▶ engines.map_tasks ─▶ outcomes ─▶ Log.settle, Records,
    one by one     known?      groups   in worker processes  in order    on_record

It knows nothing of what a verb does with an input. Little of it grows with the number of inputs:
names come one by one, a few tasks are in hand, and records beyond the first thousands are in a
temporary file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic

from vizcomp.batch.engines import map_tasks
from vizcomp.batch.items import Item, Outcome, Task
from vizcomp.batch.log import Log
from vizcomp.batch.record_list import Record, Records
from vizcomp.files.read import file_stamp, file_state
from vizcomp.files.store import AnyPath
from vizcomp.files.write import remove_leftovers

KNOWN_TOGETHER = 256  # inputs that need no work go through the engine as one


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out; nothing here decides what an output holds.

    Attributes:
        jobs: worker processes; 0 = one for each core.
        engine: as `engines.map_tasks` takes it.
        isolate: work in other processes even where one job is enough, so that a decoder that
            crashes costs one photo.
        on_record: is called with each record, in the order of the inputs.
        on_interrupt: is called after the first Ctrl-C.
        on_notice: is told, in one line, what concerns the run as a whole.
        on_left: is told at the end how many outputs were there and stayed, and are not known to be
            of these settings.
        stop: begin nothing more once it is set: of a caller who listens for signals himself, with
            `stopped_by_interrupt`. None: the run listens.
    """

    jobs: int = 0
    engine: str = "local"
    isolate: bool = False
    on_record: Callable[[Any], None] = lambda record: None
    on_interrupt: Callable[[], None] = lambda: None
    on_notice: Callable[[str], None] = lambda text: None
    on_left: Callable[[int], None] = lambda count: None
    stop: threading.Event | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb(Generic[Record]):
    """What a command does with its inputs.

    Attributes:
        record: the class of its records.
        tasks: puts neighbouring items together; each item into one task (or, for a pack, into
            several that follow each other), and keeps their order.
        work: at module top; in a worker, a task to its list of outcomes.
        on_crash: the same where the worker died twice. Items that travelled together are tried
            apart first.
        whole: makes outcomes of the results of `work` where these are no lists of them; one for
            each item, in order.
        on_outcome: is called with each; may return another in its place.
    """

    record: type[Record]
    tasks: Callable[[Iterator[Item]], Iterable[Task]]
    work: Callable[[Any], Any]
    on_crash: Callable[[Any], Any]
    whole: Callable[[Iterator[Any]], Iterator[Outcome[Record]]] = itertools.chain.from_iterable
    on_outcome: Callable[[Item, Outcome[Record]], Outcome[Record] | None] = lambda item, outcome: (
        None
    )


def run_batch(
    items: Iterable[Item], verb: Verb[Record], log: Log, options: RunOptions
) -> tuple[Records[Record], bool]:
    """Take items through a verb. Returns one record for each, in their order, and whether Ctrl-C
    ended the run early.

    Ctrl-C once: nothing more is begun, what is in hand is finished. Twice: it ends at once. (In
    another thread than the main one nothing listens for it.)

    `items` are consumed as workers become free.
    """
    records = Records(verb.record)
    log.reads = verb.record.from_dict
    in_hand: collections.deque[Item] = collections.deque()
    all_taken = False
    left: set[AnyPath] = set()
    problem = log.problem
    if problem:
        options.on_notice(problem)

    def died() -> None:
        """A worker did, and the others were ended with it: they may have been writing."""
        left.update(item.target.parent for item in in_hand if item.target is not None)

    with (
        contextlib.nullcontext(options.stop)
        if options.stop is not None
        else stopped_by_interrupt(options.on_interrupt)
    ) as stop:

        def taken() -> Iterator[Item]:
            nonlocal all_taken
            for item in items:
                in_hand.append(item)
                yield item
                if stop.is_set():
                    return
            all_taken = True

        function = functools.partial(_work, verb.work, log.journal is not None)
        through_workers = functools.partial(
            map_tasks,
            function,
            on_crash=functools.partial(_crashed, verb.on_crash, function),
            again=lambda task: task if isinstance(task, _Known) else task.again(),
            jobs=options.jobs,
            engine=options.engine,
            isolate=options.isolate,
            stop=stop,
            on_death=died,
        )
        results = _known_first(_known_together(verb.tasks(taken())), through_workers)
        outcomes = _outcomes(results, verb.whole)
        interrupted = False
        try:
            for outcome in outcomes:
                item = in_hand.popleft()
                if outcome is None or item.known is not None:
                    outcome = _known_outcome(item, verb.record)
                log.settle(item, outcome)
                outcome = verb.on_outcome(item, outcome) or outcome
                records.append(outcome.record, resumed=item.known is not None)
                options.on_record(outcome.record)
        except KeyboardInterrupt:
            interrupted = True
        for item in in_hand:
            log.give_up(item)
        for folder in left:
            remove_leftovers(folder)
        if log.problem != problem:
            options.on_notice(log.problem)
        if log.left:
            options.on_left(log.left)
        return records, interrupted or (stop.is_set() and not (all_taken and not in_hand))


def _known_outcome(item: Item, kind: type[Record]) -> Outcome[Record]:
    assert item.known is not None
    return Outcome(kind.from_dict(dict(item.known)), payload=item.payload)


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


def _known_first(
    tasks: Iterator[Task | _Known], through_workers: Callable[[Iterable[Any]], Iterator[Any]]
) -> Iterator[Any]:
    """Results of tasks; no worker is started before there is something to do."""
    for task in tasks:
        if not isinstance(task, _Known):
            yield from through_workers(itertools.chain([task], tasks))
            return
        yield task


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

    # What makes packs whole must see every result of a pack in a row, and known items never come
    # between those.
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
    before = [file_stamp(item.file.path) for item in task.items]
    done = work(task)
    if not isinstance(done, list):
        return done
    return [
        _sealed(outcome, item, stamp)
        for outcome, item, stamp in zip(done, task.items, before, strict=True)
    ]


def _sealed(outcome: Outcome[Any], item: Item, before: tuple[int, int] | None) -> Outcome[Any]:
    if item.known is not None or (outcome.written is None and outcome.payload is None):
        return outcome
    with contextlib.suppress(OSError):
        source = file_state(item.file.path)
        if source[:2] != before:
            return outcome  # changed while it was read: which of the two was read is not known
        written = None if outcome.written is None else file_state(outcome.written)
        return dataclasses.replace(outcome, source_state=source, written_state=written)
    return outcome


def _crashed(on_crash: Callable[[Any], Any], function: Callable[[Any], Any], task: Any) -> Any:
    """What comes of a task that cost its worker twice: of several items only those that do so by
    themselves are lost.

    They are tried one by one in workers of this machine, whatever the engine: a crash is rare, and
    caution worth more than speed.
    """
    if isinstance(task, _Known):
        return task
    items = getattr(task, "items", ())
    if len(items) < 2:
        return on_crash(task)
    whole = task.again()
    apart = [dataclasses.replace(whole, items=(item,)) for item in whole.items]
    outcomes = map_tasks(
        function,
        apart,
        on_crash=on_crash,
        again=lambda single: single.again(),
        jobs=1,
        isolate=True,
    )
    return list(itertools.chain.from_iterable(outcomes))


@contextlib.contextmanager
def stopped_by_interrupt(on_interrupt: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM, on the command line) sets; the second raises
    KeyboardInterrupt."""
    stop = threading.Event()
    ours = [
        s
        for s in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(s) is signal.default_int_handler
    ]
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
