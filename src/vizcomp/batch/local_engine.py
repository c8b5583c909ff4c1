"""Tasks over worker processes of this machine, results in order."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

_hiding = threading.Lock()

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_WORKER = "VIZCOMP_WORKER"  # in the environment of a worker that Ray started
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# tasks handed out ahead: enough to keep workers busy, few enough to keep memory flat
IN_HAND_PER_JOB = 4
TASKS_TO_ISOLATE = 2  # a crash on the only task takes nothing else down
TASKS_WORTH_A_WORKER = 6  # starting a worker costs about as much as this many photos


def in_worker() -> bool:
    """Whether this process is a worker of one of the engines: then it has one core."""
    import multiprocessing

    return multiprocessing.parent_process() is not None or IN_WORKER in os.environ


def map_processes(
    function: Callable[[Task], Result],
    stream: Iterator[Task],
    on_crash: Callable[[Task], Result],
    again: Callable[[Task], Task],
    jobs: int,
    stop: threading.Event,
    on_death: Callable[[], None],
) -> Iterator[Result]:
    waiting: collections.deque[tuple[Task, Future[Result]]] = collections.deque()
    pool = _pool(jobs)
    try:
        while True:
            if stop.is_set():
                yield from _finish(function, waiting, on_crash, again)
                return
            while (
                len(waiting) < jobs * IN_HAND_PER_JOB
                and (task := next(stream, None)) is not None
                and not stop.is_set()
            ):
                waiting.append((task, _submit(pool, function, task)))
            if not waiting:
                return
            task, future = waiting[0]
            try:
                result = future.result()
            except KeyboardInterrupt:
                yield from _finish(function, waiting, on_crash, again)
                raise
            except BrokenProcessPool:
                # Which of the tasks in hand killed its worker cannot be known: each is tried once
                # more, alone.
                pool.shutdown(wait=True, cancel_futures=True)
                on_death()
                yield from _each_alone(function, waiting, on_crash, again, stop)
                waiting.clear()
                pool = _pool(jobs)
                continue
            waiting.popleft()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(
    function: Callable[[Task], Result],
    waiting: collections.deque[tuple[Task, Future[Result]]],
    on_crash: Callable[[Task], Result],
    again: Callable[[Task], Task],
) -> Iterator[Result]:
    """After Ctrl-C: the results of what has been started, in order; what has not is given up."""
    # From the end: while the first ones are given up, a later one might be started, and there would
    # be a gap.
    while waiting and waiting[-1][1].cancel():
        waiting.pop()
    for i, (_, future) in enumerate(waiting):
        try:
            result = future.result()
        except BrokenProcessPool:
            yield from _each_alone(function, list(waiting)[i:], on_crash, again, threading.Event())
            return
        yield result


def _each_alone(
    function: Callable[[Task], Result],
    waiting: Iterable[tuple[Task, Future[Result]]],
    on_crash: Callable[[Task], Result],
    again: Callable[[Task], Task],
    stop: threading.Event,
) -> Iterator[Result]:
    """After a crash: the results that are there, and of the other tasks one after the other, each
    with a worker to itself."""
    pool: ProcessPoolExecutor | None = None
    try:
        for task, future in waiting:
            if future.done() and not future.cancelled() and future.exception() is None:
                yield future.result()
                continue
            if stop.is_set():
                return
            pool = pool or _pool(1)
            try:
                result = _submit(pool, function, again(task)).result()
            except BrokenProcessPool:
                pool.shutdown(wait=False)
                pool = None
                result = on_crash(task)
            yield result
    finally:
        if pool is not None:
            pool.shutdown(wait=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Task], Result], task: Task
) -> Future[Result]:
    try:
        # it may start a worker, which inherits that until it can say so itself
        with _no_interrupt(), _without_main():
            future = pool.submit(function, task)
        # A pool that breaks while tasks are given up tells these so too, and until Python 3.12 its
        # thread ends with a traceback where one is.
        future.set_exception = functools.partial(_fail, future)  # type: ignore[method-assign]
        return future
    except BrokenProcessPool as exc:
        failed: Future[Result] = Future()
        failed.set_exception(exc)
        return failed


def _fail(future: Future[Any], error: BaseException | None) -> None:
    """`Future.set_exception`, which a future that was given up does not mind."""
    with contextlib.suppress(InvalidStateError):
        Future.set_exception(future, error)


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of this; where the system cannot do that, they do
    not."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Workers started within this do not import the program's main module.

    They need nothing of it. A script that calls us at its top level would call us again in each of
    them, and a program that was read from standard input could not be imported at all.
    """
    main = sys.modules.get("__main__")
    if main is None:
        yield
        return
    with _hiding:
        before: dict[str, Any] = {
            name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)
        }
        vars(main).update(__spec__=None, __file__=None)
        try:
            yield
        finally:
            for name in ("__spec__", "__file__"):
                vars(main).pop(name, None)
            vars(main).update(before)


def _pool(jobs: int) -> ProcessPoolExecutor:
    import multiprocessing

    # spawn: a fork would copy the locks of threads that ONNX Runtime and the progress bar have
    #     started
    context = multiprocessing.get_context("spawn")
    # read once, when the numeric libraries load: so they must be in the inherited environment
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)


def _start_worker() -> None:
    # Ctrl-C is the parent's to handle: what is in hand gets finished
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        # the parent blocked it while it started this process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they would wait for tasks for ever."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
