"""Functions for the workers of the tests of the engine `ray`: at module top, so that they can be
sent to another process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(task: int) -> int:
    time.sleep(0.01 if task % 5 == 0 else 0)
    return task * task


def process(task: int) -> tuple[int, str]:
    """The process that does it, and its limit of threads."""
    time.sleep(0.05)
    return os.getpid(), os.environ.get("OMP_NUM_THREADS", "")


def dies_on_seven(task: int) -> int:
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def dies_once(task: tuple[str, int]) -> int:
    """Kills its worker the first time that it comes to number 7."""
    folder, number = task
    mark = Path(folder) / "died"
    if number == 7 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fails(task: int) -> int:
    raise ZeroDivisionError(task)


def counted(task: tuple[str, int]) -> int:
    """Leaves a file for each time that it is done, and takes its time."""
    folder, number = task
    (Path(folder) / f"{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(0.1)
    return number
