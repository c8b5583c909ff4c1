"""Results in order, whatever the workers do."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from vizcomp.batch import local_engine
from vizcomp.batch.engines import map_tasks
from vizcomp.errors import SettingsError


def slow_square(task: int) -> int:
    time.sleep(0.02 if task % 5 == 0 else 0)
    return task * task


def process_id(task: int) -> int:
    return os.getpid()


def thread_limit(task: int) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def dies_on_seven(task: int) -> int:
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def crashed(task: int) -> int:
    return -task


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    assert list(map_tasks(slow_square, range(40), on_crash=crashed, jobs=jobs)) == [
        n * n for n in range(40)
    ]


def test_few_tasks_start_no_worker() -> None:
    assert set(map_tasks(process_id, range(3), on_crash=crashed, jobs=2)) == {os.getpid()}


def test_workers_are_limited_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert set(map_tasks(thread_limit, range(14), on_crash=crashed, jobs=2)) == {"1"}  # type: ignore[comparison-overlap]


def test_a_worker_that_dies_costs_one_task() -> None:
    results = list(map_tasks(dies_on_seven, range(30), on_crash=crashed, jobs=2))
    assert results == [-7 if n == 7 else n for n in range(30)]


def test_tasks_are_consumed_as_workers_become_free() -> None:
    taken = 0

    def tasks() -> object:
        nonlocal taken
        for n in range(10_000):
            taken += 1
            yield n

    results = map_tasks(slow_square, tasks(), on_crash=crashed, jobs=2)  # type: ignore[arg-type]
    assert next(results) == 0
    assert taken < 100
    results.close()  # type: ignore[attr-defined]


def test_a_pool_that_breaks_while_tasks_are_given_up_says_nothing() -> None:
    """Its thread tells that all tasks; those that were given up before are no error."""

    class Breaking:
        def submit(self, function: object, task: int) -> Future[int]:
            return Future()

    given_up = local_engine._submit(Breaking(), slow_square, 1)  # type: ignore[arg-type]
    assert given_up.cancel()
    given_up.set_exception(BrokenProcessPool("a worker was ended"))
    assert given_up.cancelled()
    other = local_engine._submit(Breaking(), slow_square, 1)  # type: ignore[arg-type]
    other.set_exception(BrokenProcessPool("a worker was ended"))
    assert isinstance(other.exception(), BrokenProcessPool)


def test_unknown_engine() -> None:
    with pytest.raises(SettingsError, match="spark"):
        list(map_tasks(slow_square, [1], on_crash=crashed, engine="spark"))
