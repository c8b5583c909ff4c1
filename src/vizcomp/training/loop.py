"""What trainings share: the run folder, steps that can be stopped anywhere, checkpoints, metrics, curves, several processes.

A run is a number of steps, and everything random in a step comes from (seed, step, process). So a checkpoint is the step's
number and the task's state, and a run that goes on from one gives the same weights, bit for bit, as one that was never stopped
(on one device, with one number of threads and one version of torch).

Ctrl-C and SIGTERM are answered between steps: the step in hand is finished, the checkpoint is written, and then the run ends.

Several devices or machines: start the command with `accelerate launch`. Each process takes its share of every batch, and
gradients are averaged over the processes before each update (synchronous data parallelism, Dean et al. 2012), so that all
hold the same weights. Only the first process writes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from vizcomp.errors import OutputError, SettingsError, TrainingError

CHECKPOINT = "checkpoint.pt"
LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # set by `accelerate launch` and `torchrun`


class Task(Protocol):
    """One kind of training, seen from the loop."""

    steps: int  # in all
    steps_per_epoch: int

    def step(self, index: int) -> Mapping[str, float | torch.Tensor]:
        """One update of the weights; figures to be averaged over an epoch. Draws from torch's global generator only."""
        ...

    def validate(self) -> Mapping[str, float]:
        """Figures on the validation part, at an epoch's end."""
        ...

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, enough to go on from here."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def export(self, folder: Path, figures: Mapping[str, float]) -> None:
        """Writes model.safetensors and model.json."""
        ...

    images_per_step: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        step: steps done, of `steps`.
        epoch: epochs done, as a fraction.
        figures: means since the last report: losses, accuracies.
        validation: figures on the validation part; empty where it was not measured.
        images_per_second: since the last report, over all processes.
        seconds_left: an estimate for the run.
    """

    step: int
    steps: int
    epoch: float
    figures: Mapping[str, float]
    validation: Mapping[str, float]
    images_per_second: float
    seconds_left: float


class Processes:
    """The processes of a run, one alone or several under `accelerate launch`."""

    def __init__(self, device: str) -> None:
        self.rank, self.count = 0, 1
        self._accelerator: Any = None
        if all(name in os.environ for name in LAUNCH_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1:
            try:
                from accelerate import Accelerator
            except ImportError as exc:  # pragma: no cover - it is a dependency
                raise TrainingError("several processes need the package accelerate", "pip install accelerate") from exc
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
        mine = [p for p in parameters if p.grad is not None]
        flat = torch.cat([p.grad.reshape(-1) for p in mine if p.grad is not None])
        flat = self._accelerator.reduce(flat, "mean")
        start = 0
        for p in mine:
            if p.grad is not None:
                p.grad.copy_(flat[start : start + p.numel()].view_as(p))
                start += p.numel()

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replaces each floating-point tensor by its mean over the processes (statistics of batch normalisation)."""
        if self._accelerator is not None:
            for tensor in tensors:
                if tensor.is_floating_point():
                    tensor.copy_(self._accelerator.reduce(tensor, "mean"))

    def wait(self) -> None:
        """Until all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def open_device(name: str) -> torch.device:
    """`auto`, or a name of torch's (`cpu`, `cuda`, `cuda:1`, `mps`).

    Raises:
        TrainingError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise TrainingError(f"device {name!r} cannot be used: {str(exc).splitlines()[0]}", "use --device cpu") from exc
    return device


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's random numbers: a mix in which neighbouring steps share nothing (constants of SplitMix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB + 1) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of `count` samples in an epoch: int64 (count,)."""
    generator = torch.Generator().manual_seed(step_seed(seed, -1 - epoch))
    return torch.randperm(count, generator=generator)


def batch_indices(step: int, *, count: int, batch: int, seed: int, processes: Processes) -> torch.Tensor:
    """The samples of a step that fall to this process: int64 (batch / processes,). The last, short batch of an epoch is left out."""
    per_epoch = max(1, count // batch)
    order = epoch_order(count, seed, step // per_epoch)
    start = (step % per_epoch) * batch
    return order[start : start + batch][processes.rank :: processes.count]


def one_cycle(step: int, steps: int, warm: float = 0.2, last: float = 0.0) -> float:
    """Share of the peak learning rate: up in a line over the first `warm` of the steps, then down in a line to `last`."""
    up = max(1.0, warm * steps)
    if step < up:
        return (step + 1) / (up + 1)
    return last + (1 - last) * max(0.0, (steps - step) / max(1.0, steps - up))


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Moves `average` towards `model` by 1 - decay, buffers of batch normalisation included (Polyak and Juditsky 1992)."""
    now = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(now[name].to(value.dtype), 1 - decay)
        else:
            value.copy_(now[name])


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM set a flag, which the yielded function reads, instead of breaking into a step."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield asked.is_set
        return
    before = {s: signal.signal(s, lambda *_: asked.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    task: Task,
    folder: Path,
    *,
    settings: dict[str, Any],
    seed: int,
    processes: Processes,
    resume: bool,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint_seconds: float = 120.0,
    validate_every: int = 1,
) -> dict[str, float]:
    """Runs a task to its end and writes the run folder: settings.json, checkpoint.pt, metrics.jsonl, curves.svg, the model.

    Args:
        settings: JSON values; a run goes on only with the settings that it was started with (`device` and `data` aside).
        validate_every: epochs between validations; the last epoch is always validated.

    Returns:
        the last validation's figures.

    Raises:
        SettingsError: `resume` without a checkpoint or with other settings; not `resume` and the folder holds a run.
        TrainingError: the loss is not finite, out of memory, or the checkpoint is damaged.
        OutputError: the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the checkpoint is written.
    """
    started_at, records = 0, []
    checkpoint = folder / CHECKPOINT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if resume:
            state = _read_checkpoint(checkpoint, settings)
            started_at, records = int(state["step"]), json.loads(state["records"])
            task.load_state(state["task"])
        elif checkpoint.exists() and processes.first:
            raise SettingsError(
                f"{folder} holds a run already", "add --resume to go on with it, or choose another folder with -o"
            )
        processes.wait()
        if processes.first:
            write_text(folder / "settings.json", json.dumps(settings, indent=2) + "\n")
    except OSError as exc:
        raise _unwritable(exc, folder) from exc

    def write(step: int) -> None:
        if processes.first:
            try:
                _write_checkpoint(folder, {"step": step, "settings": settings, "records": records}, task)
            except (OSError, RuntimeError) as exc:  # torch.save reports a full disk as RuntimeError
                raise _unwritable(exc, folder) from exc

    sums: dict[str, list[float]] = {}
    validation: dict[str, float] = dict(records[-1]["validation"]) if records else {}
    since, since_step, written = time.monotonic(), started_at, time.monotonic()
    with stop_between_steps() as asked_to_stop, torch.random.fork_rng(enabled=processes.device.type != "mps"):
        for step in range(started_at, task.steps):
            torch.manual_seed(step_seed(seed, step, processes.rank))
            try:
                figures = {name: float(value) for name, value in task.step(step).items()}
            except RuntimeError as exc:
                if "out of memory" in str(exc).lower() or "can't allocate" in str(exc).lower():
                    raise TrainingError("out of memory", "use a smaller --batch, or a smaller network") from exc
                raise
            if bad := [name for name, value in figures.items() if not math.isfinite(value)]:
                raise TrainingError(
                    f"{bad[0]} is not finite at step {step + 1}", "use a smaller --learning-rate; the last checkpoint is kept"
                )
            for name, value in figures.items():
                sums.setdefault(name, []).append(value)
            done = step + 1
            at_end = done == task.steps
            if done % task.steps_per_epoch == 0 or at_end:
                now = time.monotonic()
                epoch = done / task.steps_per_epoch
                checked = at_end or round(epoch) % validate_every == 0
                validation = dict(task.validate()) if checked else {}
                means = {name: sum(values) / len(values) for name, values in sums.items()}
                records.append({"step": done, "epoch": round(epoch, 3), **means, "validation": validation})
                sums = {}
                if on_progress is not None and processes.first:
                    each = (now - since) / max(1, done - since_step)
                    on_progress(
                        Progress(
                            step=done,
                            steps=task.steps,
                            epoch=epoch,
                            figures=means,
                            validation=validation,
                            images_per_second=task.images_per_step / max(each, 1e-9),
                            seconds_left=each * (task.steps - done),
                        )
                    )
                since, since_step = time.monotonic(), done
            stop = asked_to_stop()
            if stop or at_end or time.monotonic() - written > checkpoint_seconds:
                write(done)
                written = time.monotonic()
            if stop and not at_end:
                raise KeyboardInterrupt
    if processes.first:
        try:
            task.export(folder, validation)
        except OSError as exc:
            raise _unwritable(exc, folder) from exc
    processes.wait()
    return validation


def _read_checkpoint(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if not path.is_file():
        raise SettingsError(f"nothing to resume: no {path}", "leave --resume away to start a run")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = json.loads(state["settings"])
    except Exception as exc:  # torch raises several kinds for a damaged file
        raise TrainingError(f"{path} cannot be read: {type(exc).__name__}", "start the run again in another folder") from exc
    now = json.loads(json.dumps(settings))
    free = {"device", "data", "threads"}
    if different := sorted(name for name in now.keys() | before.keys() if name not in free and now.get(name) != before.get(name)):
        raise SettingsError(
            f"the run in {path.parent} was started with other settings: {', '.join(different)}", "resume with the same settings"
        )
    return state


def _write_checkpoint(folder: Path, words: dict[str, Any], task: Task) -> None:
    records = words["records"]
    state = {
        "step": words["step"],
        "settings": json.dumps(words["settings"]),
        "records": json.dumps(records),
        "task": task.state(),
    }
    beside = folder / f".{CHECKPOINT}.part"
    torch.save(state, beside)
    os.replace(beside, folder / CHECKPOINT)
    write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    write_text(folder / "curves.svg", curves_svg(records))


def _unwritable(exc: Exception, folder: Path) -> OutputError:
    where = getattr(exc, "filename", None) or folder
    reason = getattr(exc, "strerror", None) or str(exc).splitlines()[0]
    return OutputError(f"{where}: {reason}", "free space there, then go on with --resume")


def write_text(path: Path, text: str) -> None:
    """Writes beside and renames."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)


_COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#b7791f", "#7b4fb5", "#4a5568", "#0e7c86", "#a03e99")


def curves_svg(records: list[dict[str, Any]]) -> str:
    """Each figure over the epochs, in its own range, validation strong and training pale: an SVG document, 640 wide."""
    series: dict[str, list[tuple[float, float, bool]]] = {}
    for record in records:
        for name, value in record.items():
            if name not in ("step", "epoch", "validation"):
                series.setdefault(name, []).append((record["epoch"], value, False))
        for name, value in record["validation"].items():
            series.setdefault(name, []).append((record["epoch"], value, True))
    last = max((r["epoch"] for r in records), default=1.0)
    height = 70 * len(series) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="640" height="{height}" fill="white"/>',
    ]
    for row, (name, points) in enumerate(sorted(series.items())):
        top, bottom = 70 * row + 20, 70 * row + 70
        low, high = min(v for _, v, _ in points), max(v for _, v, _ in points)
        colour = _COLOURS[row % len(_COLOURS)]
        parts.append(
            f'<text x="8" y="{top - 4}" fill="{colour}">{name}: {low:.4g} to {high:.4g}, last {points[-1][1]:.4g}</text>'
        )
        parts.append(f'<line x1="8" x2="632" y1="{bottom}" y2="{bottom}" stroke="#ddd"/>')
        for checked in (False, True):
            line = " ".join(
                f"{8 + 624 * e / last:.1f},{bottom - (bottom - top) * (v - low) / max(high - low, 1e-12):.1f}"
                for e, v, c in points
                if c == checked
            )
            width = 2 if checked else 1
            if line:
                parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    parts.append(f'<text x="8" y="{height - 6}">0 to {last:g} epochs; thick: on the validation part</text></svg>')
    return "\n".join(parts) + "\n"
