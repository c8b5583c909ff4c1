"""What all trainings share: run folder, steps, checkpoints, resuming, metrics.

A run is a number of steps, in one stage or several. Everything random in a step comes from
(seed, step, process). A checkpoint is therefore the step's number and the task's state. A resumed
run gives the same weights, bit for bit, as one that was never stopped. This holds on one device,
with one number of threads and one version of torch.

Ctrl-C and SIGTERM are answered between steps: the step is finished, the checkpoint is written, and
then the run ends.

With several processes each takes its share of every batch. Gradients are averaged before each
update (synchronous data parallelism, Dean et al. 2012), so that all hold the same weights. A signal
or a loss that is not finite ends all of them in the same step. Only the first process writes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vizcomp.errors import OutputError, SettingsError, TrainingError, first_line
from vizcomp.files.write import beside
from vizcomp.training.curves import curves_svg
from vizcomp.training.processes import Processes, open_processes, stop_between_steps, troubles_told
from vizcomp.training.settings import SAVED, check_unchanged
from vizcomp.training.task import Stage, Task, stage_of

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 120.0
REPORT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        stage: its name; "" where the run has one stage.
        step: steps done, of `steps` in all stages.
        epoch: epochs done in this stage, as a fraction; of `epochs`.
        at_end: whether an epoch has just ended; other reports are made by the clock.
        figures: means since the epoch began: losses, accuracies.
        validation: figures on the validation part; empty where it was not measured.
        images_per_second: since the last report, over all processes.
        seconds_left: an estimate for the run.
    """

    stage: str
    step: int
    steps: int
    epoch: float
    epochs: float
    at_end: bool
    figures: Mapping[str, float]
    validation: Mapping[str, float]
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        figures: of the exported model on the validation part; empty without one.
        steps: in all; `new_steps` were done by this call.
        seconds: of this call.
        skipped: (name, reason) of each picture that could not be used.
        first: whether this process is the one that speaks for the run.
        notes: what a user should know.
    """

    folder: Path
    figures: Mapping[str, float]
    steps: int
    new_steps: int
    seconds: float
    skipped: tuple[tuple[str, str], ...]
    first: bool
    notes: tuple[str, ...] = ()


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's random numbers: a mix in which neighbouring steps share nothing
    (constants of SplitMix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB + 1) & (
        2**64 - 1
    )
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of `count` samples in an epoch: int64 (count,)."""
    generator = torch.Generator().manual_seed(step_seed(seed, -1 - epoch))
    return torch.randperm(count, generator=generator)


def batch_indices(
    step: int, *, count: int, batch: int, seed: int, processes: Processes
) -> torch.Tensor:
    """The samples of a step that fall to this process: int64 (batch / processes,). An epoch's last,
    short batch is left out."""
    per_epoch = max(1, count // batch)
    order = epoch_order(count, seed, step // per_epoch)
    start = (step % per_epoch) * batch
    return order[start : start + batch][processes.rank :: processes.count]


def one_cycle(step: int, steps: int, warm: float = 0.2, last: float = 0.0) -> float:
    """Share of the peak learning rate: up in a line over the first `warm` of the steps, then down
    in a line to `last`."""
    up = max(1.0, warm * steps)
    if step < up:
        return (step + 1) / (up + 1)
    return last + (1 - last) * max(0.0, (steps - step) / max(1.0, steps - up))


class _Means:
    """Means of figures since an epoch began."""

    def __init__(self, sums: Mapping[str, list[float]] | None = None) -> None:
        # name to sum and count
        self.sums = {name: list(pair) for name, pair in (sums or {}).items()}

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            pair = self.sums.setdefault(name, [0.0, 0])
            pair[0] += value
            pair[1] += 1

    def __call__(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.sums.items()}


class _Run:
    """A run's step, records and files.

    Attributes:
        step: steps done, of `steps`.
        records: a line of metrics.jsonl for each epoch.
        means: sums of the figures in the current epoch.
        validation: the last figures on the validation part.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        settings: dict[str, Any],
        processes: Processes,
        on_progress: Callable[[Progress], None] | None,
        on_stage: Callable[[str], None] | None,
    ) -> None:
        self.task, self.folder, self.settings, self.first = task, folder, settings, processes.first
        self.on_progress = on_progress if processes.first else None
        self.on_stage = on_stage if processes.first else None
        self.step, self.steps = 0, sum(stage.steps for stage in task.stages)
        self.records: list[dict[str, Any]] = []
        self.means = _Means()
        self.validation: dict[str, float] = {}
        self.reported = self.written = time.monotonic()
        self.reported_step = 0

    def open(self, resume: bool, processes: Processes) -> None:
        """Makes the run folder, or restores the state of its checkpoint."""
        checkpoint = self.folder / CHECKPOINT
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if resume:
                self._restore(checkpoint)
            elif os.path.exists(checkpoint):
                raise SettingsError(
                    f"{self.folder} holds a run already",
                    "add `resume` to continue it, or choose another `output`",
                )
            processes.wait()
            if self.first:
                write_text(self.folder / SAVED, json.dumps(self.settings, indent=2) + "\n")
        except OSError as exc:
            raise _unwritable(exc, self.folder) from exc
        self.reported = self.written = time.monotonic()
        self.reported_step = self.step

    def _restore(self, path: Path) -> None:
        if not os.path.isfile(path):
            raise SettingsError(f"nothing to resume: no {path}", "omit `resume` to start a run")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            settings, extent = json.loads(state["settings"]), json.loads(state["stages"])
            step, records, sums = (
                int(state["step"]),
                json.loads(state["records"]),
                json.loads(state["means"]),
            )
            weights = state["task"]
        except Exception as exc:  # torch raises several kinds for a damaged file
            raise TrainingError(
                f"{path} cannot be read: {type(exc).__name__}",
                "start the run again in another folder",
            ) from exc
        check_unchanged(self.folder, settings, self.settings)
        if extent != self._extent():
            raise SettingsError(
                f"the run in {self.folder} was started with other data",
                "use the same `data`, or a new folder",
            )
        try:
            self.task.load_state(weights)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as exc:
            raise TrainingError(
                f"{path} does not fit this network", "start the run again in another folder"
            ) from exc
        self.step, self.records, self.means = step, records, _Means(sums)
        self.validation = dict(records[-1]["validation"]) if records else {}

    def _extent(self) -> list[list[int]]:
        return [[stage.steps, stage.steps_per_epoch] for stage in self.task.stages]

    def say(self, stage: str) -> None:
        """Tells what is done between the steps."""
        if self.on_stage is not None:
            self.on_stage(stage)

    def add(self, figures: Mapping[str, float], validate_every: int) -> None:
        """Counts a step; closes an epoch at its end, or reports where that is due."""
        if names := [name for name, value in figures.items() if not math.isfinite(value)]:
            raise _not_finite(f"the {names[0]} is", self.step + 1, self.folder)
        self.means.add(figures)
        number, index = stage_of(self.task.stages, self.step)
        stage = self.task.stages[number]
        self.step += 1
        ended = index + 1 == stage.steps
        if not ended and (index + 1) % stage.steps_per_epoch:
            if time.monotonic() - self.reported > REPORT_SECONDS:
                self._report(stage, index + 1, {}, at_end=False)
            return
        epoch = (index + 1) / stage.steps_per_epoch
        self.validation = {}
        if ended or round(epoch) % validate_every == 0:
            self.say("checking on the validation part")
            self.validation = dict(self.task.validate())
        name = {"stage": stage.name} if stage.name else {}
        self.records.append(
            {
                **name,
                "step": self.step,
                "epoch": round(epoch, 3),
                **self.means(),
                "validation": self.validation,
            }
        )
        self._report(stage, index + 1, self.validation, at_end=True)
        self.means = _Means()

    def _report(
        self, stage: Stage, step: int, validation: Mapping[str, float], *, at_end: bool
    ) -> None:
        clock = time.monotonic()
        seconds = (clock - self.reported) / max(1, self.step - self.reported_step)
        self.reported, self.reported_step = clock, self.step
        if self.on_progress is None:
            return
        self.on_progress(
            Progress(
                stage=stage.name,
                step=self.step,
                steps=self.steps,
                epoch=step / stage.steps_per_epoch,
                epochs=stage.steps / stage.steps_per_epoch,
                at_end=at_end,
                figures=self.means(),
                validation=validation,
                images_per_second=stage.images_per_step / max(seconds, 1e-9),
                seconds_left=seconds * (self.steps - self.step),
            )
        )

    def write(self) -> None:
        """Checkpoint, metrics and curves, by the first process."""
        self.written = time.monotonic()
        if not self.first:
            return
        state = self.task.state()
        _check_finite(state, self.step, self.folder)
        checkpoint = {
            "step": self.step,
            "stages": json.dumps(self._extent()),
            "settings": json.dumps(self.settings),
            "records": json.dumps(self.records),
            "means": json.dumps(self.means.sums),
            "task": state,
        }
        try:
            with beside(self.folder / CHECKPOINT) as part:
                torch.save(checkpoint, part)
            write_text(
                self.folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in self.records)
            )
            write_text(self.folder / "curves.svg", curves_svg(self.records))
        except (OSError, RuntimeError) as exc:  # torch.save reports a full disk as RuntimeError
            raise _unwritable(exc, self.folder) from exc

    def export(self) -> Mapping[str, float]:
        """Writes the model, by the first process; figures of it."""
        if not self.first:
            return self.validation
        self.say("finishing the model")
        try:
            return self.task.export(self.folder, self.validation)
        except OSError as exc:
            raise _unwritable(exc, self.folder) from exc


def train(
    task_class: type[Task],
    settings: Any,
    folder: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> RunResult:
    """Trains a model and writes the run folder.

    The folder gets settings.json, checkpoint.pt, metrics.jsonl, curves.svg and the model.

    Args:
        settings: of the task's settings class. A run is resumed only with the same settings, those
            in `FREE` aside. The last epoch of a stage is validated whatever `validate_every` says.
        on_progress: called at every epoch's end and every `REPORT_SECONDS`, in the first process.
        on_stage: called with a few words for what may take a while between the steps.

    Raises:
        SettingsError: `resume` without a checkpoint, with other settings or other data; or without
            `resume`, and the folder holds a run.
        TrainingError: loss or weights not finite, out of memory, or a damaged checkpoint.
        OutputError: the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the checkpoint is written.
    """
    began = time.monotonic()
    with open_processes(settings.device) as processes:
        task = task_class(settings, processes)
        run = _Run(
            task,
            folder,
            {"kind": task.kind, **dataclasses.asdict(settings)},
            processes,
            on_progress,
            on_stage,
        )
        with torch.random.fork_rng(enabled=processes.device.type != "mps"), troubles_told():
            run.open(resume, processes)
            start = run.step
            with stop_between_steps() as asked_to_stop:
                for step in range(start, run.steps):
                    torch.manual_seed(step_seed(settings.seed, step, processes.rank))
                    figures = {name: float(value) for name, value in task.step(step).items()}
                    figures, stop = processes.agree(figures, asked_to_stop())
                    run.add(figures, settings.validate_every)
                    at_end = run.step == run.steps
                    if stop or at_end or time.monotonic() - run.written > CHECKPOINT_SECONDS:
                        run.write()
                    if stop and not at_end:
                        raise KeyboardInterrupt
            final = run.export()
        processes.wait()
        return RunResult(
            folder=folder,
            figures=final,
            steps=run.steps,
            new_steps=max(0, run.steps - start),
            seconds=time.monotonic() - began,
            skipped=tuple(task.skipped),
            first=processes.first,
            notes=tuple(task.notes),
        )


def _not_finite(what: str, step: int, folder: Path) -> TrainingError:
    note = "; the checkpoint before is kept" if os.path.exists(folder / CHECKPOINT) else ""
    return TrainingError(
        f"{what} not finite any more at step {step}",
        f"use a smaller learning_rate, and half=false{note}",
    )


def _check_finite(state: dict[str, Any], step: int, folder: Path) -> None:
    """A loss can be finite once more where the weights are no longer: such a state must not replace
    a good one.

    Raises:
        TrainingError: a weight is not finite.
    """
    for value in state["model"].values():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise _not_finite("a weight is", step, folder)


def _unwritable(exc: Exception, folder: Path) -> OutputError:
    where = getattr(exc, "filename", None) or folder
    reason = getattr(exc, "strerror", None) or first_line(exc)
    return OutputError(f"{where}: {reason}", "free space there, then continue with `resume`")


def write_text(path: Path, text: str) -> None:
    """Writes beside and renames."""
    with beside(path) as part:
        part.write_text(text, "utf-8")
