"""Starts a training's processes on this machine: `vizcomp train --devices N`.

They are set up as `torchrun` sets them up, through variables of the environment, so that a run started by `torchrun` or
`accelerate launch`, on one machine or several, takes the same path from there on (`loop.Processes`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # set by `accelerate launch` and `torchrun`
GRACE_SECONDS = 20.0  # for the others, once one has failed: a process that waits for a lost one never ends by itself


def launched() -> bool:
    """Whether this process is one of several."""
    return all(name in os.environ for name in LAUNCH_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def run_processes(arguments: Sequence[str], count: int) -> int:
    """Runs `vizcomp` with the arguments in `count` processes that find each other, and waits for them.

    The first process has this one's output. What the others say is kept, and shown where one of them was the first to fail.
    A signal that ends this process (Ctrl-C, SIGTERM) reaches all of them; each finishes the step in hand.

    Returns:
        exit code of the process that failed first; 0 when all ended well.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(count):
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
                environment = {**os.environ, **{name: str(n) for name, n in places.items()}, "MASTER_ADDR": "127.0.0.1"}
                with open(Path(folder) / str(rank), "wb") as words:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "vizcomp", *arguments],
                        env=environment,
                        stdout=None if rank == 0 else subprocess.DEVNULL,
                        stderr=None if rank == 0 else words,
                        # or Ctrl-C in a terminal would reach them twice, and twice means "at once"
                        start_new_session=True,
                    )
                processes.append(process)
            failed = _wait(processes)
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if failed is None:
                return 0
            code = _exit_code(processes[failed].returncode)
            # what is refused at the start is refused by all alike, and the first process has said it
            if failed > 0 and (code == 1 or code != _exit_code(processes[0].returncode)):
                said = (Path(folder) / str(failed)).read_text("utf-8", "replace").strip()
                sys.stderr.write(f"process {failed}: {said or f'ended with exit code {code}'}\n")
            return code
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen[bytes]]) -> int | None:
    """Until all have ended, or one has failed and the others had their time; gives the rank that failed first."""
    failed: int | None = None
    until = float("inf")
    while time.monotonic() < until and (failed is None or any(process.poll() is None for process in processes)):
        for rank, process in enumerate(processes):
            if failed is None and process.poll() not in (None, 0):
                failed, until = rank, time.monotonic() + GRACE_SECONDS
        if all(process.poll() == 0 for process in processes):
            return None
        time.sleep(0.1)
    return failed


def _exit_code(returned: int) -> int:
    """A shell's exit code: 128 and the signal's number where a signal ended the process."""
    return 128 - returned if returned < 0 else returned
