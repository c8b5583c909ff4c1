"""The processes of a training: starting them on this machine, and what they tell each other.

`vizcomp train --devices N` sets them up as `torchrun` does, through variables of the environment.
So a run started by `torchrun` or `accelerate launch`, on one machine or several, is the same from
there on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vizcomp.errors import MissingExtraError, SettingsError, TrainingError, first_line

LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # set by `accelerate launch` and `torchrun`
# for the others, once one has failed: a process that waits for a lost one never ends by itself
GRACE_SECONDS = 20.0


def launched() -> bool:
    """Whether this process is one of several."""
    return (
        all(name in os.environ for name in LAUNCH_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1
    )


def run_processes(arguments: Sequence[str], count: int) -> int:
    """Runs `vizcomp` with the arguments in `count` processes that find each other, and waits for
    them.

    The first process has this one's output. The output of another is shown only if it was the first
    to fail. Ctrl-C and SIGTERM reach all of them; each finishes its step.

    Returns:
        exit code of the process that failed first; 0 when all ended well.
    """
    with _free_port() as port:
        return _run_at(port, arguments, count)


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    """A port of this machine that the system gives to nobody else while the context lasts: the
    first process needs seconds until it listens there."""
    with socket.socket() as held:
        # with it another socket may listen at the port of one that does not, if it says so too
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def _run_at(port: int, arguments: Sequence[str], count: int) -> int:
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    handlers = {
        number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(count):
                variables = {
                    "RANK": rank,
                    "LOCAL_RANK": rank,
                    "WORLD_SIZE": count,
                    "LOCAL_WORLD_SIZE": count,
                    "MASTER_PORT": port,
                }
                environment = {
                    **os.environ,
                    **{name: str(n) for name, n in variables.items()},
                    "MASTER_ADDR": "127.0.0.1",
                }
                with open(Path(folder) / str(rank), "wb") as errors:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "vizcomp", *arguments],
                        env=environment,
                        stdout=None if rank == 0 else subprocess.DEVNULL,
                        stderr=None if rank == 0 else errors,
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
            # what is refused at the start is refused by all alike, and the first process has said
            # it
            if failed > 0 and (code == 1 or code != _exit_code(processes[0].returncode)):
                said = (Path(folder) / str(failed)).read_text("utf-8", "replace").strip()
                sys.stderr.write(f"process {failed}: {said or f'ended with exit code {code}'}\n")
            return code
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen[bytes]]) -> int | None:
    """Until all have ended, or one has failed and the others had their time; gives the rank that
    failed first."""
    failed: int | None = None
    until = float("inf")
    while time.monotonic() < until and (
        failed is None or any(process.poll() is None for process in processes)
    ):
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


class Processes:
    """The processes of a run: one, or several that `run_processes`, `accelerate launch` or
    `torchrun` started."""

    def __init__(self, device: str) -> None:
        self.rank, self.count = 0, 1
        self._accelerator: Any = None
        if launched():
            try:
                from accelerate import Accelerator
            except ImportError as exc:  # pragma: no cover - it is a dependency
                raise MissingExtraError(
                    "accelerate, which several processes need,", "train"
                ) from exc
            self._accelerator = Accelerator(cpu=device == "cpu")
            self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
            self.device = self._accelerator.device
        else:
            self.device = open_device(device)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces each gradient by its mean over the processes."""
        if self._accelerator is None:
            return
        learned = [p for p in parameters if p.grad is not None]
        flat = torch.cat([p.grad.reshape(-1) for p in learned if p.grad is not None])
        flat = self._accelerator.reduce(flat, "mean")
        start = 0
        for p in learned:
            if p.grad is not None:
                p.grad.copy_(flat[start : start + p.numel()].view_as(p))
                start += p.numel()

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replaces each floating-point tensor by its mean over the processes (statistics of batch
        normalisation)."""
        if self._accelerator is not None:
            for tensor in tensors:
                if tensor.is_floating_point():
                    tensor.copy_(self._accelerator.reduce(tensor, "mean"))

    def agree(self, figures: Mapping[str, float], stop: bool) -> tuple[dict[str, float], bool]:
        """The figures' means over the processes, and whether any of them is to stop. All give the
        same names."""
        if self._accelerator is None:
            return dict(figures), stop
        tensor = torch.tensor([*figures.values(), float(stop)], device=self.device)
        *means, stopped = self._accelerator.reduce(tensor, "mean").tolist()
        return dict(zip(figures, means, strict=True)), stopped > 0

    def of_the_first(self, number: int) -> int:
        """The first process's number, in all processes."""
        if self._accelerator is None:
            return number
        tensor = torch.tensor([number if self.first else 0], device=self.device)
        return int(self._accelerator.reduce(tensor, "sum"))

    def wait(self) -> None:
        """Until all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Ends the connection between the processes."""
        if self._accelerator is not None and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def check_batch(self, batch: int, least: int = 1) -> None:
        """Refuses a batch of which a process would get fewer than `least` pictures.

        Raises:
            SettingsError: the batch is too small.
        """
        if batch // self.count < least:
            raise SettingsError(
                f"a batch of {batch} gives {self.count} processes fewer than {least} pictures each",
                "use a larger batch",
            )


def open_device(name: str) -> torch.device:
    """`auto`, or a name of torch's (`cpu`, `cuda`, `cuda:1`, `mps`).

    Raises:
        SettingsError: the device is not there.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise SettingsError(
            f"device {name!r} cannot be used: {first_line(exc)}", "use `device` cpu"
        ) from exc
    return device


@contextlib.contextmanager
def open_processes(device: str) -> Iterator[Processes]:
    """The run's processes, their connection closed at the end."""
    processes = Processes(device)
    try:
        yield processes
    finally:
        processes.close()


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM set a flag for the yielded function, in place of breaking into a step.

    A second Ctrl-C, some seconds later, does break in; the last checkpoint is then that of an
    interval.
    """
    asked: list[float] = []
    # signals belong to the main thread
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def answer(number: int, _: object) -> None:
        if number == signal.SIGINT and asked and time.monotonic() - asked[0] > 3:
            raise KeyboardInterrupt
        asked.append(time.monotonic())

    handlers = {s: signal.signal(s, answer) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def troubles_told() -> Iterator[None]:
    """Turns the exceptions of short memory and of lost processes into errors.

    Raises:
        TrainingError: out of memory, or the connection to another process is lost.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        message = str(exc).lower()
        if (
            isinstance(exc, MemoryError)
            or "out of memory" in message
            or "can't allocate" in message
        ):
            raise TrainingError(
                "out of memory", "use a smaller batch, or a smaller network"
            ) from exc
        if launched() and (
            isinstance(exc, torch.distributed.DistError) or "gloo" in message or "nccl" in message
        ):
            raise TrainingError(
                "another process of this run has ended", "use `resume` once the reason is gone"
            ) from exc
        raise
