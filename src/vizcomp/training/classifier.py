"""Training of the classifiers: `inception` (compact or full), `watcher`, and `whitened`, which
teaches others.

Stochastic gradient descent with Nesterov momentum, a one-cycle rate, label smoothing (Szegedy et
al. 2015), weight decay on convolutions only, random flips and shifts, and an average of the weights
(Polyak and Juditsky 1992) as the result. A run may begin with the weights of an earlier one and
learn from the answers of other classifiers (Hinton et al. 2015). A share of the pictures may be
blurred or made noisy, so that the classifier also learns to look at what compression leaves.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from vizcomp.datasets.labelled import MAX_SIZE
from vizcomp.errors import SettingsError
from vizcomp.graphs import architectures
from vizcomp.nets import classifiers
from vizcomp.nets.whitened import Whitened
from vizcomp.training import loop
from vizcomp.training.pictures import read_pictures
from vizcomp.training.processes import Processes
from vizcomp.training.settings import COMMON_RANGES, check_choices, check_ranges, split_list
from vizcomp.training.task import Stage, Task
from vizcomp.training.views import corrupted, erased, shifted_and_flipped

TAUGHT = ("once", "views")
SIDE = 32  # of the pictures unless asked
LEAST_SIDE = 18  # the smallest that all architectures take
WHITENED_ON = 5000  # pictures that a first layer of `Whitened` is computed from


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierTrainSettings:
    """What a classifier's training is made of.

    Attributes:
        data: see `datasets.read.read_labelled`; a `val` beside `train` is what it is checked on.
        side: of the pictures; 0 for 32, and then pictures of another size are refused.
        architecture: one of `architectures.ARCHITECTURES`; `network` changes fields of its
            configuration.
        epochs, batch: passes over the data; pictures for each update, over all processes.
        learning_rate: peak, for the mean loss over a batch.
        bias_factor: on the rate of what has one axis: biases, factors of normalisations.
        weight_decay: on weights of two axes and more.
        label_smoothing: share of the target spread over all classes.
        shift: largest random shift, in pixels; edges are mirrored.
        corrupt: share of pictures that are blurred or made noisy.
        erase: side of a square that is blanked, 0 for none.
        mix: share of the views into which another one is mixed, by up to a half (Zhang et al.
            2018); so are their labels.
        start: a classifier of the same shape whose weights to begin with, "" for fresh ones.
        teachers: classifiers to learn from beside the labels (Hinton et al. 2015), a `split_list`.
        teaching: share of the target that is the teachers' answer.
        taught: "once": the teachers' mean answer on each picture and its mirror image, taken before
            the first step; "views": their mean answer on each moved and flipped view, before it is
            blurred or erased, as it is shown to the network (Beyer et al. 2022).
        average: decay of the averaged weights, for each step.
        validation: share of the data to check on, never trained on.
        half: bfloat16 arithmetic (on GPUs).
    """

    data: str = ""
    side: int = 0
    architecture: str = "inception"
    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 0.2
    bias_factor: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 3
    corrupt: float = 0.15
    erase: int = 0
    mix: float = 0.0
    start: str = ""
    teachers: str = ""
    teaching: float = 0.7
    taught: str = "once"
    average: float = 0.998
    validation: float = 0.1
    validate_every: int = 2
    seed: int = 0
    device: str = "auto"
    half: bool = False
    licence: str = "MIT"

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "side": (0, MAX_SIZE),
            "epochs": (1, 100_000),
            "batch": (2, 65_536),
            "learning_rate": (1e-9, 100),
            "bias_factor": (0, 1000),
            "momentum": (0, 0.999),
            "weight_decay": (0, 1),
            "label_smoothing": (0, 0.9),
            "shift": (0, 16),
            "corrupt": (0, 1),
            "erase": (0, 64),
            "mix": (0, 1),
            "teaching": (0, 1),
            **COMMON_RANGES,
        }
        check_ranges(self, ranges)
        check_choices(self, {"taught": TAUGHT, "architecture": architectures.ARCHITECTURES})
        if 0 < self.side < LEAST_SIDE:
            raise SettingsError(
                f"side {self.side} is too small for these classifiers", f"use {LEAST_SIDE} or more"
            )


def _views_of(images: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Pictures and their mirror images, some at a time: uint8 (N, 3, H, W) to float in 0..1."""
    for part in torch.split(images, 250):
        views = part.float().to(memory_format=torch.channels_last) / 255
        yield [views, views.flip(3)]


@torch.no_grad()
def answers_of(
    teachers: list[classifiers.Classifier],
    batches: Iterable[list[torch.Tensor]],
    *,
    half: bool = False,
) -> torch.Tensor:
    """The mean probabilities of some classifiers over the views of each picture.

    Args:
        batches: for each batch its views, float (N, 3, H, W) in 0..1.
        half: multiply in bfloat16.

    Returns:
        float32 (N of all batches, classes), on the pictures' device.
    """
    parts = []
    for views in batches:
        with torch.autocast(views[0].device.type, torch.bfloat16, enabled=half):
            logits = [teacher(view) for teacher in teachers for view in views]
        parts.append(torch.stack([x.float().softmax(1) for x in logits]).mean(0))
    return torch.cat(parts)


class ClassifierTask(Task):
    """A classifier's training."""

    kind = "classifier"
    settings_class = ClassifierTrainSettings

    def __init__(self, settings: ClassifierTrainSettings, processes: Processes) -> None:
        self.settings, self.processes = settings, processes
        s, device = settings, processes.device
        processes.check_batch(s.batch, least=2)
        side = s.side or SIDE
        pictures = read_pictures(
            Path(s.data),
            side=side,
            exact=not s.side,
            validation=s.validation,
            seed=s.seed,
            batch=s.batch,
            device=device,
        )
        self.pictures, self.skipped, self.side = pictures, pictures.skipped, side
        self.images, self.labels, self.train = pictures.images, pictures.labels, pictures.train
        train = self.train
        torch.manual_seed(s.seed)
        network = classifiers.build(
            s.architecture, {"classes": len(self.pictures.classes), **s.network}
        )
        self.model = classifiers.Classifier(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(network, Whitened):
            self._whiten(network)
        if s.start:
            self._begin_with(classifiers.load(s.start))
        self.teachers = self._open_teachers()
        self.answered = self._answered_once() if self.teachers and s.taught == "once" else None
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in learned if p.ndim > 1],
                "weight_decay": s.weight_decay,
                "factor": 1.0,
            },
            {
                "params": [p for p in learned if p.ndim <= 1],
                "weight_decay": 0.0,
                "factor": s.bias_factor,
            },
        ]
        self.optimiser = torch.optim.SGD(
            groups, lr=s.learning_rate, momentum=s.momentum, nesterov=s.momentum > 0
        )
        per_epoch = len(train) // s.batch
        self.steps = per_epoch * s.epochs
        self.stages = [Stage(self.steps, per_epoch, s.batch)]

    def _whiten(self, network: Whitened) -> None:
        """Its first layer from some pictures that are trained on."""
        chosen = self.train[:: max(1, len(self.train) // WHITENED_ON)].to(self.images.device)
        network.prepare((self.images[chosen].float() / 255 - self.model.mean) / self.model.std)

    def _begin_with(self, start: classifiers.Classifier) -> None:
        try:
            self.model.network.load_state_dict(start.network.state_dict())
        except RuntimeError as exc:
            raise SettingsError(
                f"{self.settings.start} has another shape than this network", "use the same network"
            ) from exc

    def _open_teachers(self) -> list[classifiers.Classifier]:
        s = self.settings
        names = split_list(s.teachers)
        teachers = [classifiers.load_folded(name).to(self.images.device) for name in names]
        for teacher, name in zip(teachers, names, strict=True):
            if teacher.classes != tuple(self.pictures.classes):
                raise SettingsError(
                    f"the teacher {name} knows other classes than the data",
                    "teach with the same classes",
                )
        return teachers

    def _answered_once(self) -> torch.Tensor:
        """The teachers' answers on the pictures that are trained on, (N, classes) with zeros for
        the others."""
        answers = torch.zeros(
            len(self.images), len(self.pictures.classes), device=self.images.device
        )
        chosen = self.train.to(self.images.device)
        answers[chosen] = answers_of(
            self.teachers, _views_of(self.images[chosen]), half=self.settings.half
        )
        return answers

    def _views_and_target(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Moved, flipped and mixed pictures, float (N, 3, H, W) in 0..1, and what to answer on
        them, (N, classes)."""
        s = self.settings
        chosen = chosen.to(self.labels.device)
        views = shifted_and_flipped(self.images[chosen], s.shift).float() / 255
        classes = len(self.pictures.classes)
        target = (
            F.one_hot(self.labels[chosen], classes) * (1 - s.label_smoothing)
            + s.label_smoothing / classes
        )
        if self.answered is not None:
            target = (1 - s.teaching) * target + s.teaching * self.answered[chosen]
        if s.mix:
            other = (
                torch.rand(len(views), 1, device=views.device)
                / 2
                * (torch.rand(len(views), 1, device=views.device) < s.mix)
            )
            views = views.lerp(views.flip(0), other[..., None, None])
            target = target.lerp(target.flip(0), other)
        if self.teachers and self.answered is None:
            target = (1 - s.teaching) * target + s.teaching * answers_of(
                self.teachers, [[views]], half=s.half
            )
        return views, target

    def step(self, index: int) -> Mapping[str, float | torch.Tensor]:
        s = self.settings
        chosen = loop.batch_indices(
            index, count=len(self.train), batch=s.batch, seed=s.seed, processes=self.processes
        )
        chosen = self.train[chosen]
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate * group["factor"] * loop.one_cycle(index, self.steps)
        self.model.train()
        labels = self.labels[chosen.to(self.labels.device)]
        views, target = self._views_and_target(chosen)
        images = erased(corrupted(views, s.corrupt), s.erase)
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=s.half):
            logits = self.model(images)
            loss = F.cross_entropy(logits, target)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(self.model.parameters())
        self.optimiser.step()
        self.update_average(index, s.average)
        return {
            "loss": loss.detach(),
            "accuracy": (logits.detach().argmax(1) == labels).float().mean(),
        }

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        p = self.pictures
        if not len(p.held):
            return {}
        self.processes.average(self.average.state_dict().values())
        right = 0
        for chosen in torch.split(p.held, 500):
            chosen = chosen.to(p.held_images.device)
            right += int(
                (
                    self.average(p.held_images[chosen].float() / 255).argmax(1)
                    == p.held_labels[chosen]
                ).sum()
            )
        return {"accuracy": right / len(p.held)}

    def export(self, folder: Path, figures: Mapping[str, float]) -> Mapping[str, float]:
        s = self.settings
        metadata = {
            "validation_accuracy": figures.get("accuracy"),
            "data": self.pictures.source,
            "side": self.side,
            "pictures": {
                "trained_on": len(self.train),
                "validation": len(self.pictures.held),
                "skipped": len(self.skipped),
            },
            "settings": {
                k: v for k, v in dataclasses.asdict(s).items() if k not in ("data", "device")
            },
            "licence": s.licence,
        }
        network = self.average.network
        classifiers.save(
            folder / "model.safetensors",
            s.architecture,
            network,
            tuple(self.pictures.classes),
            metadata,
        )
        about = {
            "kind": "classifier",
            "architecture": s.architecture,
            "network": network.config.to_dict(),
            **metadata,
        }
        loop.write_text(
            folder / "model.json",
            json.dumps({**about, "classes": self.pictures.classes}, indent=2) + "\n",
        )
        return figures
