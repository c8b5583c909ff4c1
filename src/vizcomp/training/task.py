"""A kind of training: its stages, its steps and what is kept of it."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from vizcomp.training.processes import Processes


@dataclass(frozen=True)
class Stage:
    """A part of a run with epochs of its own.

    Attributes:
        steps: updates in all; the last epoch may be cut short.
        steps_per_epoch: updates in an epoch.
        images_per_step: pictures in an update, over all processes.
        name: in progress and metrics; "" for the only stage of a run.
    """

    steps: int
    steps_per_epoch: int
    images_per_step: int
    name: str = ""


def stage_of(stages: Sequence[Stage], step: int) -> tuple[int, int]:
    """Number of the stage that a step of the run belongs to, and the step's number within it."""
    for number, stage in enumerate(stages):
        if step < stage.steps:
            return number, step
        step -= stage.steps
    raise IndexError("the run has fewer steps")


class Task(abc.ABC):
    """One kind of training; subclasses are made of settings and processes.

    Attributes:
        kind: its name on the command line.
        settings_class: a dataclass with at least `seed`, `device` and `validate_every`.
        stages: of the run, in order.
        skipped: (name, reason) of each picture that could not be used.
        notes: what a user should know at the end.
        model: the network in training.
        average: the average of its weights.
        optimiser: of its weights.
    """

    kind: ClassVar[str]
    settings_class: ClassVar[type]
    stages: Sequence[Stage]
    skipped: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()
    model: Any
    average: Any
    optimiser: torch.optim.Optimizer

    @classmethod
    def beginning(cls, settings: Any) -> str:
        """What a run with these settings starts from, in words; "" where that goes without saying.

        Raises:
            TrainingError: the file that it starts from cannot be read.
        """
        return ""

    @abc.abstractmethod
    def __init__(self, settings: Any, processes: Processes) -> None:
        """Reads the data and builds the network.

        Raises:
            SettingsError, TrainingError, InputError: settings or data cannot be used.
        """

    @abc.abstractmethod
    def step(self, index: int) -> Mapping[str, float | torch.Tensor]:
        """Step `index` of the run: one update of the weights. Draws from torch's global generator
        only.

        Returns:
            figures, to be averaged over an epoch.
        """

    @abc.abstractmethod
    def validate(self) -> Mapping[str, float]:
        """Figures on the validation part, at an epoch's end."""

    @abc.abstractmethod
    def export(self, folder: Path, figures: Mapping[str, float]) -> Mapping[str, float]:
        """Writes model.safetensors and model.json.

        Args:
            figures: of the last validation.

        Returns:
            figures of the exported model on the validation part.
        """

    def state(self) -> dict[str, Any]:
        """Tensors and plain values to resume from."""
        return {
            name: getattr(self, name).state_dict() for name in ("model", "average", "optimiser")
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name in ("model", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])

    @torch.no_grad()
    def update_average(self, index: int, decay: float) -> None:
        """Moves the average towards the model, buffers included (Polyak and Juditsky 1992).

        In the first steps it follows closely, or it would keep the first weights in a short run.
        """
        weights, share = self.model.state_dict(), 1 - min(decay, (1 + index) / (10 + index))
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(weights[name].to(value.dtype), share)
            else:
                value.copy_(weights[name])
