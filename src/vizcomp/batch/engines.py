"""Tasks over the engines: this machine or a Ray cluster."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

from vizcomp.batch.local_engine import (
    TASKS_TO_ISOLATE,
    TASKS_WORTH_A_WORKER,
    Result,
    Task,
    map_processes,
)
from vizcomp.errors import SettingsError
from vizcomp.weights.sessions import available_cores

ENGINES = ("local", "ray")


def check_engine(name: str, address: str = "") -> str:
    """The name of an engine with its address, as `map_tasks` takes it.

    Raises:
        SettingsError: no such engine, or one that has no address.
    """
    if name not in ENGINES:
        raise SettingsError(f"unknown `engine` {name!r}", f"use {' or '.join(ENGINES)}")
    if address and name != "ray":
        raise SettingsError("`ray_address` goes with `engine` ray", "add `engine` ray, or omit it")
    return f"{name}:{address}" if address else name


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
        function: at module top, so that it can be sent to another process; it turns its own errors
            into results.
        tasks: consumed as workers become free, so a million of them never sit in memory.
        on_crash: the result of a task whose worker process died twice (killed for memory, say).
        again: what a task becomes when it is tried once more, since the worker that had it was
            lost.
        engine: one of `ENGINES`; "ray:ADDRESS" for a Ray cluster that runs already.
        jobs: worker processes; 0 = one for each core.
        isolate: do not work in the calling process, which a crash would take down, where there are
            `TASKS_TO_ISOLATE` or more.
        stop: once it is set nothing more is begun: the results of what is in hand come, in order,
            and then no more.
        on_death: called when a worker died.

    Closing the generator early waits for what is in hand and drops it; KeyboardInterrupt still
    gives the results of what is in hand, and is then raised again.
    """
    name, _, address = engine.partition(":")
    check_engine(name, address)
    stop = stop or threading.Event()
    if name == "ray":
        from vizcomp.batch.ray_engine import map_ray

        stream = iter(tasks)
        begun = list(itertools.islice(stream, 1))
        tasks = itertools.chain(begun, stream)
        function = _with_callables(function, begun[0]) if begun else function
        del begun
        yield from map_ray(
            function,
            tasks,
            on_crash=on_crash,
            again=again,
            jobs=jobs,
            address=address,
            stop=stop,
            on_death=on_death,
        )
        return
    asked, jobs = jobs, jobs or available_cores()
    stream = iter(tasks)
    first = list(itertools.islice(stream, jobs * TASKS_WORTH_A_WORKER))
    jobs = min(jobs, -(-len(first) // TASKS_WORTH_A_WORKER))
    several = len(first) >= TASKS_TO_ISOLATE
    stream = itertools.chain(first, stream)
    if jobs <= 1 and not (isolate and several):
        yield from _here(function, stream, stop)
        return
    if first:
        try:
            function = _with_callables(function, first[0])
        except SettingsError:
            if asked > 1:
                raise
            # it may be this process
            yield from _here(function, stream, stop)
            return
    del first  # only the chain holds them now, and lets go of each
    yield from map_processes(function, stream, on_crash, again, max(1, jobs), stop, on_death)


def _here(
    function: Callable[[Task], Result], stream: Iterable[Task], stop: threading.Event
) -> Iterator[Result]:
    for task in stream:
        if stop.is_set():
            return
        yield function(task)


def _with_callables(function: Callable[[Task], Result], task: Task) -> Callable[[Task], Result]:
    """A function that knows, in another process too, the Python callables that tasks name as vision
    systems."""
    module = sys.modules.get("vizcomp.vision.callables")  # never imported: there are none
    return function if module is None else module.brought(function, task)  # type: ignore[no-any-return]
