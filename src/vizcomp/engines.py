"""Engines: map a function over tasks, by name. One rule for all: results come back in the order of the tasks.

`local` runs worker processes on this machine, each limited to one thread, or the calling process itself where one job is
enough. A further engine joins as one more branch of `map_tasks`.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vizcomp.errors import EngineError

Task = TypeVar("Task")
Result = TypeVar("Result")

ENGINES = ("local",)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
IN_HAND_PER_JOB = 4  # tasks handed out ahead: enough to keep workers busy, few enough to keep memory flat
TASKS_WORTH_A_WORKER = 6  # starting a worker costs about as much as this many photos


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    on_crash: Callable[[Task], Result],
    engine: str = "local",
    jobs: int = 0,
) -> Iterator[Result]:
    """Apply `function` to each task; yield the results in the order of the tasks.

    Args:
        function: at module top, so that it can be sent to another process; it turns its own errors into results.
        tasks: consumed as workers become free, so a million of them never sit in memory.
        on_crash: the result of a task whose worker process died twice (killed for memory, say).
        engine: one of `ENGINES`.
        jobs: worker processes; 0 = one for each core.

    Closing the generator early waits for what is in hand and drops it; KeyboardInterrupt still gives the results of what is in
    hand, and is then raised again.
    """
    if engine not in ENGINES:
        raise EngineError(f"unknown engine {engine!r}", f"use {', '.join(ENGINES)}")
    jobs = jobs or available_cores()
    stream = iter(tasks)
    first = list(itertools.islice(stream, jobs * TASKS_WORTH_A_WORKER))
    jobs = min(jobs, -(-len(first) // TASKS_WORTH_A_WORKER))
    stream = itertools.chain(first, stream)
    if jobs <= 1:
        yield from map(function, stream)
        return
    yield from _map_processes(function, stream, on_crash, jobs)


def _map_processes(
    function: Callable[[Task], Result], stream: Iterator[Task], on_crash: Callable[[Task], Result], jobs: int
) -> Iterator[Result]:
    waiting: collections.deque[tuple[Task, Future[Result]]] = collections.deque()
    pool = _pool(jobs)
    try:
        while True:
            for task in itertools.islice(stream, jobs * IN_HAND_PER_JOB - len(waiting)):
                waiting.append((task, _submit(pool, function, task)))
            if not waiting:
                return
            task, future = waiting[0]
            try:
                result = future.result()
            except KeyboardInterrupt:
                yield from _finish(waiting)
                raise
            except BrokenProcessPool:
                # Which of the tasks in hand killed its worker cannot be known: each is tried once more, alone.
                again = [t for t, _ in waiting]
                done = {id(t): f.result() for t, f in waiting if f.done() and not f.exception()}
                waiting.clear()
                for each in again:
                    yield done[id(each)] if id(each) in done else _alone(function, each, on_crash)
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(jobs)
                continue
            waiting.popleft()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(waiting: collections.deque[tuple[Task, Future[Result]]]) -> Iterator[Result]:
    """After Ctrl-C: the results of what has been started, in order; what has not is given up."""
    for _, future in waiting:
        if not future.cancel():
            with contextlib.suppress(BrokenProcessPool):
                yield future.result()


def _submit(pool: ProcessPoolExecutor, function: Callable[[Task], Result], task: Task) -> Future[Result]:
    try:
        return pool.submit(function, task)
    except BrokenProcessPool as exc:
        failed: Future[Result] = Future()
        failed.set_exception(exc)
        return failed


def _alone(function: Callable[[Task], Result], task: Task, on_crash: Callable[[Task], Result]) -> Result:
    with _pool(1) as pool:
        try:
            return pool.submit(function, task).result()
        except BrokenProcessPool:
            return on_crash(task)


def _pool(jobs: int) -> ProcessPoolExecutor:
    import multiprocessing

    # spawn: a fork would copy the locks of threads that ONNX Runtime and the progress bar have started
    context = multiprocessing.get_context("spawn")
    for name in THREAD_VARIABLES:  # read once, when the numeric libraries load: so they must stand in the inherited environment
        os.environ.setdefault(name, "1")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: what is in hand gets finished
