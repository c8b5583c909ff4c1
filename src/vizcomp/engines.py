"""Engines: map a function over tasks, by name. One rule for all: results come back in the order of the tasks.

`local` runs worker processes on this machine, each limited to one thread, or the calling process itself where one job is
enough. `ray` runs actors on a Ray cluster (`ray_engine`). A further engine joins as one more branch of `map_tasks`.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vizcomp.errors import SettingsError

Task = TypeVar("Task")
Result = TypeVar("Result")

ENGINES = ("local", "ray")
IN_WORKER = "VIZCOMP_WORKER"  # in the environment of a worker that Ray started
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
IN_HAND_PER_JOB = 4  # tasks handed out ahead: enough to keep workers busy, few enough to keep memory flat
TASKS_TO_ISOLATE = 2  # a crash on the only task takes nothing else down
TASKS_WORTH_A_WORKER = 6  # starting a worker costs about as much as this many photos


def check_engine(name: str, address: str = "") -> str:
    """The name of an engine with its address, as `map_tasks` takes it.

    Raises:
        SettingsError: no such engine, or one that has no address.
    """
    if name not in ENGINES:
        raise SettingsError(f"unknown engine {name!r}", f"use {' or '.join(ENGINES)}")
    if address and name != "ray":
        raise SettingsError("--ray-address goes with --engine ray", "add --engine ray, or omit it")
    return f"{name}:{address}" if address else name


def in_worker() -> bool:
    """Whether this process is a worker of one of the engines: then it has one core."""
    import multiprocessing

    return multiprocessing.parent_process() is not None or IN_WORKER in os.environ


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    on_crash: Callable[[Task], Result],
    again: Callable[[Task], Task] = lambda task: task,
    engine: str = "local",
    jobs: int = 0,
    isolate: bool = False,
    stop: threading.Event | None = None,
    on_death: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Apply `function` to each task; yield the results in the order of the tasks.

    Args:
        function: at module top, so that it can be sent to another process; it turns its own errors into results.
        tasks: consumed as workers become free, so a million of them never sit in memory.
        on_crash: the result of a task whose worker process died twice (killed for memory, say).
        again: what a task becomes when it is tried once more, since the worker that had it was lost.
        engine: one of `ENGINES`; "ray:ADDRESS" for a Ray cluster that runs already.
        jobs: worker processes; 0 = one for each core.
        isolate: do not work in the calling process, which a crash would take down, where there are `TASKS_TO_ISOLATE` or more.
        stop: once it is set nothing more is begun: the results of what is in hand come, in order, and then no more.
        on_death: called when a worker died.

    Closing the generator early waits for what is in hand and drops it; KeyboardInterrupt still gives the results of what is in
    hand, and is then raised again.
    """
    name, _, address = engine.partition(":")
    check_engine(name, address)
    stop = stop or threading.Event()
    if name == "ray":
        from vizcomp.ray_engine import map_ray

        yield from map_ray(
            function, tasks, on_crash=on_crash, again=again, jobs=jobs, address=address, stop=stop, on_death=on_death
        )
        return
    jobs = jobs or available_cores()
    stream = iter(tasks)
    first = list(itertools.islice(stream, jobs * TASKS_WORTH_A_WORKER))
    jobs = min(jobs, -(-len(first) // TASKS_WORTH_A_WORKER))
    several = len(first) >= TASKS_TO_ISOLATE
    stream = itertools.chain(first, stream)
    del first  # only the chain holds them now, and lets go of each
    if jobs <= 1 and not (isolate and several):
        for task in stream:
            if stop.is_set():
                return
            yield function(task)
        return
    yield from _map_processes(function, stream, on_crash, again, max(1, jobs), stop, on_death)


def _map_processes(
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
            while len(waiting) < jobs * IN_HAND_PER_JOB and (task := next(stream, None)) is not None and not stop.is_set():
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
                # Which of the tasks in hand killed its worker cannot be known: each is tried once more, alone.
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
    # From the end: while the first ones are given up, a later one might be started, and there would be a gap.
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
    """After a crash: the results that are there, and of the other tasks one after the other, each with a worker to itself."""
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


def _submit(pool: ProcessPoolExecutor, function: Callable[[Task], Result], task: Task) -> Future[Result]:
    try:
        with _no_interrupt():  # it may start a worker, which inherits that until it can say so itself
            return pool.submit(function, task)
    except BrokenProcessPool as exc:
        failed: Future[Result] = Future()
        failed.set_exception(exc)
        return failed


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of this; where the system cannot do that, they do not."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pool(jobs: int) -> ProcessPoolExecutor:
    import multiprocessing

    # spawn: a fork would copy the locks of threads that ONNX Runtime and the progress bar have started
    context = multiprocessing.get_context("spawn")
    for name in THREAD_VARIABLES:  # read once, when the numeric libraries load: so they must be in the inherited environment
        os.environ.setdefault(name, "1")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: what is in hand gets finished
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the parent blocked it while it started this process
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they would wait for tasks for ever."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
