"""Training of the small depth network.

The stages of a run, all from one seed:

1. pretraining, if there are pictures for it: the encoder learns to tell classes of pictures apart;
2. folds, if asked for: for each part of the photos, an ensemble learns from the others and then
   answers for that part, so that every photo gets answers of networks that have not seen it;
3. members: each starts from that encoder, with its own decoder and its own order of the photos.

At the end the confidence is calibrated: on the folds' answers, or on the validation photos, which
no member was trained on. Then model.safetensors, model.json and model.onnx are written.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from vizcomp.datasets.read import read_labelled
from vizcomp.depth.compact import position_planes
from vizcomp.errors import SettingsError, TrainingError, first_line
from vizcomp.files.write import beside
from vizcomp.nets.compact_depth import CompactDepthNet
from vizcomp.training import loop
from vizcomp.training.depth_data import (
    DepthTrainSettings,
    fold_parts,
    read_depth_data,
    split_photos,
)
from vizcomp.training.depth_scores import (
    calibrate,
    depth_loss,
    mean_map,
    member_maps,
    rank_correlations,
)
from vizcomp.training.export import export_depth
from vizcomp.training.processes import Processes
from vizcomp.training.settings import split_list
from vizcomp.training.task import Stage, Task, stage_of
from vizcomp.training.views import MIXED, depth_views, small_views

SCORE = "rank correlation"
Weights = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """What one stage of the run trains.

    Attributes:
        seed: of all that is random in the stage; the same with and without other stages.
        photos: indices of the photos learned from; none in pretraining.
        checked: indices of the photos to check on.
        fold: its number; -1 for a member of the final network.
    """

    stage: Stage
    seed: int
    photos: list[int]
    checked: list[int]
    fold: int = -1
    member: int = 0


class DepthTask(Task):
    """The training of a depth network."""

    kind = "depth"
    settings_class = DepthTrainSettings

    def __init__(self, settings: DepthTrainSettings, processes: Processes) -> None:
        if processes.count > 1:
            raise SettingsError(
                "`devices` does not go with `kind` depth", "one process trains it in minutes"
            )
        self.settings, self.processes = settings, processes
        s = settings
        self.data = read_depth_data(
            [Path(path) for path in split_list(s.data)], s.network, s.kinds.split(",")
        )
        share = 0.0 if s.folds else s.validation
        self.train, self.validation, self.held = split_photos(
            self.data.names, s.held_every, share, s.checked
        )
        if len(self.train) < 2:
            raise TrainingError(
                f"{len(self.train)} photos are left to train on",
                "give more photos, or a smaller validation",
            )
        names = [self.data.names[i] for i in self.train]
        self.folds = [
            [self.train[i] for i in part] for part in fold_parts(names, s.folds, s.fold_over)
        ]
        self.skipped = list(self.data.skipped)
        self.networks = 1 if s.network.shared else s.network.members
        self.parts = [
            self._part(fold, k) for fold in [*range(s.folds), -1] for k in range(self.networks)
        ]
        folders = 1 + max(self.data.folders)
        if s.shares and len(s.shares) != folders:
            raise SettingsError(
                f"{len(s.shares)} shares for {folders} folders",
                "give one for each folder of `data`",
            )
        self.aspects = torch.tensor(
            [photo.shape[1] / photo.shape[0] for photo in self.data.sources]
        ).log()
        # of each photo in a batch, by stage and shape
        self.chances: dict[tuple[int, int], torch.Tensor] = {}
        self.start = _read_weights(s.start) if s.start else {}
        self.origin = _read_origin(s.start) if s.start else {}
        if s.pretrain and s.pretrain_epochs:
            self.parts.insert(0, self._pretraining())
        self.stages = [part.stage for part in self.parts]
        self.number = -1  # of the current stage
        self.encoder: Weights = {}
        # averaged weights of the finished members of the final network
        self.members: list[Weights] = []
        # of the folds' members, for each photo left out: (1, members, h, w)
        self.answers: Weights = {}

    @classmethod
    def beginning(cls, settings: DepthTrainSettings) -> str:
        encoder = settings.network.encoder
        if not settings.start:
            return f"starts from fresh weights, encoder {encoder}"
        origin = ", ".join(_read_origin(settings.start).values())
        return f"starts from {settings.start}, encoder {encoder}{origin and f' ({origin})'}"

    def _pretraining(self) -> _Part:
        s = self.settings
        pictures = read_labelled(Path(s.pretrain))
        if len(pictures.classes) < 2:
            raise TrainingError(
                f"{s.pretrain} holds pictures of one class", "two or more classes are needed"
            )
        self.images = torch.from_numpy(pictures.images).permute(0, 3, 1, 2)
        self.classes = torch.from_numpy(pictures.labels)
        self.skipped = [*self.skipped, *pictures.skipped]
        batch = min(s.pretrain_batch, len(pictures))
        per_epoch = len(pictures) // batch
        stage = Stage(per_epoch * s.pretrain_epochs, per_epoch, batch, "pretraining")
        return _Part(stage=stage, seed=loop.step_seed(s.seed, 0, 1), photos=[], checked=[])

    def _part(self, fold: int, member: int) -> _Part:
        s, many = self.settings, self.networks
        checked = self.validation if fold < 0 else self.folds[fold]
        photos = [i for i in self.train if i not in set(checked)]
        batch = min(s.batch, len(photos))
        per_epoch = len(photos) // batch
        name = (
            f"member {member + 1} of {many}"
            if fold < 0
            else f"fold {fold + 1} of {s.folds}, member {member + 1} of {many}"
        )
        stage = Stage(per_epoch * s.epochs, per_epoch, batch, name)
        seed = loop.step_seed(s.seed, 1 + (fold + 1) * many + member, 1)
        return _Part(
            stage=stage, seed=seed, photos=photos, checked=checked, fold=fold, member=member
        )

    # stages

    def _begin(self, number: int) -> None:
        """Fresh network, average and optimiser for a stage."""
        s, part = self.settings, self.parts[number]
        torch.manual_seed(part.seed)
        network: Any = CompactDepthNet(s.network, dropout=s.dropout)
        self.number = number
        if part.photos:
            _load_matching(network, self.start)
            network.load_state_dict(self.encoder, strict=False)
            encoder_rate = s.encoder_rate if self.encoder or self.start else 1.0
            groups = _groups(network, s, encoder_rate)
        else:
            network.head = torch.nn.Linear(2 * s.network.channels[3], int(self.classes.max()) + 1)
            rate = {"peak": s.pretrain_rate, "weight_decay": s.weight_decay}
            matrices = [p for p in network.parameters() if p.ndim > 1]
            others = [p for p in network.parameters() if p.ndim <= 1]
            groups = [{"params": matrices, **rate}, {"params": others, **rate, "weight_decay": 0.0}]
        self.model = network.to(self.processes.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        self.optimiser = torch.optim.AdamW(groups, lr=s.learning_rate)

    def _finish(self) -> None:
        """Keeps what the current stage has trained."""
        if self.number < 0:
            return
        part = self.parts[self.number]
        if not part.photos:
            self.encoder = {
                k: v
                for k, v in _copied(self.model).items()
                if k.startswith(self.model.encoder_names)
            }
        elif part.fold < 0:
            self.members.append(_copied(self.average))
        else:
            for index, maps in zip(part.checked, self._maps(part), strict=True):
                name = self.data.names[index]
                self.answers[name] = (
                    torch.cat([self.answers[name], maps], 1) if part.member else maps
                )
        self.number = -1

    def _maps(self, part: _Part) -> list[torch.Tensor]:
        """Maps by the current member's average, with the mean map of the photos it learned from."""
        prior = mean_map(self.data, part.photos)
        average = copy.deepcopy(self.average).cpu()
        return member_maps(
            self.settings.network, [average], prior, self.data, part.checked, part.member
        )

    def step(self, index: int) -> Mapping[str, float | torch.Tensor]:
        s = self.settings
        number, index = stage_of(self.stages, index)
        if number != self.number:
            self._finish()
            self._begin(number)
        part = self.parts[number]
        torch.manual_seed(loop.step_seed(part.seed, index))
        self.model.train()
        loss, figures = (
            self._member_loss(part, index) if part.photos else self._class_loss(part, index)
        )
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        if part.photos:
            self.update_average(index, s.average)
        return {"loss": loss.detach(), **figures}

    def _batch(self, part: _Part, index: int, count: int) -> torch.Tensor:
        batch = part.stage.images_per_step
        return loop.batch_indices(
            index, count=count, batch=batch, seed=part.seed, processes=self.processes
        )

    def _set_rate(self, share: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * share

    def _class_loss(self, part: _Part, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy of the encoder's classes, at several scales, so that it learns to see
        things."""
        s, device, stage = self.settings, self.processes.device, part.stage
        self._set_rate(min(1.0, (index + 1) / 100) * (1 - index / stage.steps))
        chosen = self._batch(part, index, len(self.images))
        small = index // stage.steps_per_epoch < s.pretrain_small
        x = small_views(self.images[chosen], s.pretrain_erase, small).to(device)
        target = self.classes[chosen].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=s.half):
            at16 = self.model.features(x.contiguous(memory_format=torch.channels_last))[2]
        at16 = at16.float()
        logits = self.model.head(torch.cat([at16.mean((2, 3)), at16.amax((2, 3))], 1))
        loss = F.cross_entropy(logits, target, label_smoothing=0.1)
        return loss, {"accuracy": (logits.detach().argmax(1) == target).float().mean()}

    def _member_loss(self, part: _Part, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        s, device = self.settings, self.processes.device
        self._set_rate(
            min(1.0, (index + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * index / part.stage.steps))
        )
        chosen, shape = self._drawn(part) if s.shares else (self._in_order(part, index), None)
        x, y, known = depth_views(self.data, chosen, s, shape)
        planes = torch.from_numpy(position_planes(*x.shape[2:])).expand(len(x), -1, -1, -1)
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=s.half):
            nearness = self.model(x, planes.to(device))
        weight = None
        # each decoder learns from its own half of the photos, so that they differ where they do not
        # know
        if s.network.shared:
            weight = 0.1 + 1.8 * (torch.rand(nearness.shape[:2]) < 0.5).to(device)
        loss, r = depth_loss(
            nearness.float(), y.to(device), s.gradient_weight, known.to(device), weight
        )
        return loss, {"correlation": r.mean()}

    def _in_order(self, part: _Part, index: int) -> list[int]:
        return [part.photos[k] for k in self._batch(part, index, len(part.photos)).tolist()]

    def _drawn(self, part: _Part) -> tuple[list[int], tuple[float, float]]:
        """Photos drawn by their folders' shares, and the shape of the crops: photos of about that
        shape are drawn more often."""
        s = self.settings
        number = int(torch.multinomial(torch.tensor([share for _, share in MIXED]), 1))
        shape = MIXED[number][0]
        key = self.parts.index(part), number
        if key not in self.chances:
            photos = torch.tensor(part.photos)
            folders = torch.tensor(self.data.folders)[photos]
            count = torch.bincount(folders, minlength=len(s.shares)).clamp(min=1)
            chance = (torch.tensor(s.shares) / count)[folders]
            self.chances[key] = chance * torch.exp(
                -3 * (self.aspects[photos] - math.log(shape[1] / shape[0])).abs()
            )
        drawn = torch.multinomial(self.chances[key], part.stage.images_per_step, replacement=True)
        return [part.photos[k] for k in drawn.tolist()], shape

    def validate(self) -> Mapping[str, float]:
        part = self.parts[self.number]
        if not part.checked:
            return {}
        return {SCORE: float(rank_correlations(self._maps(part), self.data, part.checked).mean())}

    def state(self) -> dict[str, Any]:
        stages = {
            "stage": self.number,
            "encoder": self.encoder,
            "members": self.members,
            "answers": self.answers,
        }
        return super().state() | stages

    def load_state(self, state: dict[str, Any]) -> None:
        self.encoder, self.members, self.answers = (
            state["encoder"],
            state["members"],
            state["answers"],
        )
        self._begin(state["stage"])
        super().load_state(state)

    def export(self, folder: Path, figures: Mapping[str, float]) -> Mapping[str, float]:
        """Calibrates and writes the network; the ensemble's mean rank correlation on photos not
        trained on."""
        self._finish()
        s = self.settings
        prior = mean_map(self.data, self.train)
        config, score = s.network, None
        if checked := sorted(i for fold in self.folds for i in fold) or self.validation:
            maps = (
                [self.answers[self.data.names[i]] for i in checked]
                if self.folds
                else self._ensemble_maps(prior)
            )
            score = float(rank_correlations(maps, self.data, checked).mean())
            config = dataclasses.replace(config, calibration=calibrate(maps, self.data, checked))
        tensors = {
            f"{k}.{name}": v.contiguous()
            for k, weights in enumerate(self.members)
            for name, v in weights.items()
        }
        with beside(folder / "model.safetensors") as part:
            save_file({**tensors, "prior": prior}, part, self.origin or None)
        properties = {"licence": s.licence, "data": "photos with depth maps"}
        properties |= {f"origin_{name}": text for name, text in self.origin.items()}
        export_depth(config, self.members, folder / "model.onnx", prior=prior, metadata=properties)

        def named(indices: list[int]) -> list[str]:
            return [self.data.names[i] for i in indices]

        card = {
            "kind": "depth",
            "network": config.to_dict(),
            "settings": dataclasses.asdict(s),
            "validation_rank_correlation": score,
            "origin": self.origin,
            "photos": {
                "trained_on": len(self.train),
                "validation": named(self.validation),
                "held": named(self.held),
                "folds": [named(fold) for fold in self.folds],
            },
            "skipped": [f"{name}: {reason}" for name, reason in self.skipped],
        }
        loop.write_text(folder / "model.json", json.dumps(card, indent=2) + "\n")
        return {} if score is None else {SCORE: score}

    def _ensemble_maps(self, prior: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the validation photos by all members."""
        networks = []
        for weights in self.members:
            network = CompactDepthNet(self.settings.network)
            network.load_state_dict(weights)
            networks.append(network.eval())
        return member_maps(self.settings.network, networks, prior, self.data, self.validation)


def _read_weights(path: str) -> Weights:
    """Tensors of a file of weights.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        weights: Weights = load_file(path)
        return weights
    except Exception as exc:  # safetensors raises several kinds
        raise _unreadable(path, exc) from exc


def _read_origin(path: str) -> dict[str, str]:
    """What a file of weights says of whose work it goes on from: licence and source, or nothing.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
    except Exception as exc:  # safetensors raises several kinds
        raise _unreadable(path, exc) from exc
    return {name: said[name] for name in ("source", "licence") if name in said}


def _unreadable(path: str, exc: Exception) -> TrainingError:
    return TrainingError(
        f"{path} cannot be read: {first_line(exc)}",
        "give the model.safetensors of a depth network, or a file of recipes/depth_encoder.py",
    )


def _groups(
    network: CompactDepthNet, settings: DepthTrainSettings, encoder_rate: float
) -> list[dict[str, Any]]:
    """Groups of the optimiser, each with its highest rate; norms and biases do not decay.

    Where an encoder's norms are folded into its weights, these differ a hundredfold in size. There
    each tensor's rate follows its size, and none decays.
    """
    s = settings
    for modules in network.encoder.parts()[: s.frozen] if network.pretrained else ():
        for module in modules:
            module.requires_grad_(False)
    groups: list[dict[str, Any]] = []
    plain: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, p in network.named_parameters():
        inside = name.startswith(network.encoder_names)
        if not p.requires_grad:
            continue
        rate = s.learning_rate * (encoder_rate if inside else 1.0)
        if inside and network.pretrained:
            size = float(p.detach().square().mean().sqrt())
            groups.append({"params": [p], "weight_decay": 0.0, "peak": rate * size})
        else:
            plain.setdefault((rate, s.weight_decay if p.ndim > 1 else 0.0), []).append(p)
    for (rate, decay), parameters in plain.items():
        groups.append({"params": parameters, "weight_decay": decay, "peak": rate})
    return groups


def _load_matching(network: CompactDepthNet, weights: Weights) -> None:
    """Takes over the tensors whose names and shapes fit; those of a run's first member lose its
    number.

    Raises:
        TrainingError: not even the encoder fits.
    """
    if not weights:
        return
    own = network.state_dict()
    plain = {name.removeprefix("0."): value for name, value in weights.items()}
    fitting = {
        name: value
        for name, value in plain.items()
        if name in own and own[name].shape == value.shape
    }
    inside = [name for name in own if name.startswith(network.encoder_names)]
    if missing := [name for name in inside if name not in fitting]:
        raise TrainingError(
            f"start: the encoder does not fit this network ({missing[0]})",
            "use the same encoder and channels",
        )
    network.load_state_dict(fitting, strict=False)


def _copied(network: torch.nn.Module) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
