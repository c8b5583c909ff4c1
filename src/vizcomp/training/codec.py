"""Training of the recurrent codec, through a frozen classifier where one is given.

The loss is a weighted sum over iterations of

- reconstruction: L1, L2, or one minus MS-SSIM mixed with L1;
- task: the Kullback-Leibler divergence from the classifier's answer on the source to its answer on the
  reconstruction, or cross-entropy with the label; the same for a second, watching classifier;
- rate: the estimated cost of the bits after entropy coding (`losses.BitGuesser`).

The defaults come from trials. The task term is ramped in after the reconstruction, since with it from the
start the image never forms. Random flips, shifts, blur and noise lie between codec and classifier, so
that the codec cannot write what only this classifier reads. The encoder gets the classifier's answer on
the source. Bits are drawn at random in training (stochastic binarization), except in the last part, which
trains what will run.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vizcomp.datasets.photos import find_photos, read_photos, split
from vizcomp.datasets.read import read_labelled
from vizcomp.errors import ModelError, SettingsError, TrainingError, first_line
from vizcomp.metrics import ms_ssim
from vizcomp.nets import classifiers, inception
from vizcomp.nets.recurrent import RecurrentCodec, RecurrentConfig
from vizcomp.training import loop
from vizcomp.training.contexts import fit_contexts
from vizcomp.training.losses import RECONSTRUCTIONS, BitGuesser, divergence, reconstruction_loss
from vizcomp.training.processes import Processes
from vizcomp.training.settings import check_choices, check_ranges, split_list
from vizcomp.training.views import corrupted, shifted_and_flipped

TASKS = ("kl", "ce")
SHOWN = ("batch", "image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecTrainSettings:
    """What a codec's training is made of.

    Attributes:
        data: labelled pictures (`datasets.read.read_labelled`) where the network has a native size; photos otherwise, a
            `split_list` of folders.
        network: fields of `RecurrentConfig`; `preset` names where to start from.
        start: a codec's .safetensors to start from, of the same configuration but perhaps for the bits of an iteration: what is
            wider then gets fresh weights, what is narrower loses its last bits. "" for fresh weights.
        classifier: the frozen classifier, a bundled name or a path; "" for none.
        watching: a second frozen classifier in the loss; "" for none.
        task: "kl" or "ce".
        task_weight, watching_weight, reconstruction_weight: factors of the terms.
        reconstruction: "l1", "l2" or "ms-ssim". L1 and L2 are of images in 0..1, L2 times 10.
        later_reconstruction: factor of the reconstruction term of the last iteration against the first, in between geometric.
        rate_weight: price of the bits: factor of the share of the raw bits that is left by the estimate; 0 for none.
        ramp: shares of the run between which the task term rises from nothing to full weight.
        views: share of the reconstructions blurred or made noisy before a classifier sees them; all are shifted and flipped.
        shown_first: how often it is the first iteration that the classifier is shown; else one of the later ones.
        shown: "batch": the same iteration of all images; "image": each image's own draw, and a classifier that takes the mirror
            image too looks at one side only (the views are flipped at random anyway).
        later_factor: of the classifiers' terms where it is a later one. To the reconstruction loss, detail
            that only the classifier needs is an error; later iterations remove it unless this term applies
            to them too.
        hard: share of the run, at its end, with the signs as bits instead of random bits.
        iterations: "drawn" (a random number for each batch, so that early ones are trained most) or "all".
        steps: updates; 0 = `epochs` passes over the data.
        crop: side of the crops from photos, a multiple of the block.
        contexts: fit the context model of the entropy coder at the end; without it bits are stored as they are.
    """

    data: str = ""
    network: dict[str, Any] = dataclasses.field(default_factory=lambda: {"preset": "cifar"})
    start: str = ""
    classifier: str = ""
    watching: str = ""
    task: str = "kl"
    task_weight: float = 0.05
    watching_weight: float = 0.0
    reconstruction: str = "l2"
    reconstruction_weight: float = 1.0
    later_reconstruction: float = 1.0
    rate_weight: float = 0.0
    ramp: tuple[float, float] = (0.2, 0.4)
    views: float = 0.5
    shown_first: float = 0.5
    shown: str = "batch"
    later_factor: float = 1.0
    hard: float = 0.4
    iterations: str = "drawn"
    epochs: int = 10
    steps: int = 0
    batch: int = 64
    crop: int = 64
    learning_rate: float = 1e-3
    clip: float = 1.0
    average: float = 0.998
    validation: float = 0.1
    validate_every: int = 1
    seed: int = 0
    device: str = "auto"
    half: bool = False
    contexts: bool = True
    licence: str = "MIT"

    def __post_init__(self) -> None:
        ranges = {
            "task_weight": (0, 1000),
            "watching_weight": (0, 1000),
            "reconstruction_weight": (0, 1000),
            "later_reconstruction": (0.001, 1000),
            "rate_weight": (0, 1000),
            "views": (0, 1),
            "shown_first": (0, 1),
            "later_factor": (0, 1000),
            "hard": (0, 1),
            "epochs": (1, 1_000_000),
            "steps": (0, 1_000_000_000),
            "batch": (1, 65_536),
            "crop": (16, 1024),
            "learning_rate": (1e-9, 10),
            "clip": (1e-6, 1e6),
            "average": (0, 0.999999),
            "validation": (0, 0.9),
            "validate_every": (1, 100_000),
            "seed": (0, 2**63 - 1),
        }
        check_ranges(self, ranges)
        object.__setattr__(self, "ramp", tuple(self.ramp))
        if len(self.ramp) != 2 or not 0 <= self.ramp[0] <= self.ramp[1] <= 1:
            raise SettingsError(f"ramp {self.ramp} is not two rising shares in 0..1")
        choices = {"reconstruction": RECONSTRUCTIONS, "task": TASKS, "iterations": ("drawn", "all"), "shown": SHOWN}
        check_choices(self, choices)
        RecurrentConfig.from_dict(self.network)


def _one_sided(classifier: classifiers.Classifier | None) -> classifiers.Classifier | None:
    """A copy that looks at the picture and not at its mirror image, normalisations in the convolutions: half the work or less."""
    network = copy.deepcopy(classifier.network) if classifier is not None else None
    if classifier is None or not isinstance(network, inception.Inception):
        return classifier
    network.config = dataclasses.replace(network.config, mirror=False)
    inception.fold(network)
    one = classifiers.Classifier(network, classifier.classes, classifier.words).eval().requires_grad_(False)
    one.to(next(classifier.network.parameters()).device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return one


def save_codec(
    path: Path, network: RecurrentCodec, metadata: dict[str, Any], extra: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes a codec beside and renames it: weights in half precision, the configuration in the metadata.

    Args:
        metadata: JSON values.
        extra: further integer arrays (the context model's), stored under their names.
    """
    from safetensors.torch import save_file

    tensors = {k: (v.half() if v.ndim >= 2 else v).contiguous().cpu() for k, v in network.state_dict().items()}
    tensors |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in (extra or {}).items()}
    about = {**metadata, "kind": "codec", "network": network.config.to_dict()}
    beside = path.with_name(f".{path.name}.part")
    save_file(tensors, beside, metadata={"vizcomp": json.dumps(about)})
    beside.chmod(0o644)
    os.replace(beside, path)


def load_weights(path: Path, network: RecurrentCodec) -> None:
    """Takes the weights of a saved codec of the same configuration but for the bits of its iterations.

    Where an iteration has more bits now, the new ones keep the network's own weights; where it has fewer, the last ones go.

    Raises:
        ModelError: the file cannot be read or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = load_file(path)
        weights = network.state_dict()
        for name, value in weights.items():
            head = name.startswith(("binarizers.", "entrances."))
            axes = [a for a, b in zip(value.shape, saved[name].shape, strict=True) if a != b]
            if head and len(axes) == 1:
                common = tuple(slice(min(a, b)) for a, b in zip(value.shape, saved[name].shape, strict=True))
                value[common] = saved[name][common].float()
            else:
                weights[name] = saved[name].float()
        network.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as exc:
        raise ModelError(f"{path}: not the weights of such a codec: {first_line(exc)}") from exc


class CodecTask(loop.Task):
    """A codec's training."""

    kind = "codec"
    settings_class = CodecTrainSettings

    def __init__(self, settings: CodecTrainSettings, processes: Processes) -> None:
        self.settings, self.processes = settings, processes
        s, device = settings, processes.device
        processes.check_batch(s.batch)
        self.config = RecurrentConfig.from_dict(s.network)
        if self.config.given and not s.classifier and s.task_weight:
            raise SettingsError(
                "this network is told a classifier's answer", "give `classifier`, or `set` task_weight=0 for a first stage"
            )
        if not self.config.native and s.crop % self.config.block:
            raise SettingsError(f"crop {s.crop} is no multiple of the block, {self.config.block}")
        self._read(s)
        torch.manual_seed(s.seed)
        network = RecurrentCodec(self.config)
        if network.told is not None:
            torch.nn.init.zeros_(network.told.weight)  # what it is told is learnt when there is something to tell
        if s.start:
            load_weights(Path(s.start), network)
        self.model = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.classifier = classifiers.load(s.classifier).to(device) if s.classifier else None
        self.watching = classifiers.load(s.watching).to(device) if s.watching else None
        self.viewer = _one_sided(self.classifier) if s.shown == "image" else self.classifier
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters()), "factor": 1.0}]
        self.guesser = BitGuesser(self.config.bits).to(device) if s.rate_weight else None
        if self.guesser is not None:
            groups.append({"params": list(self.guesser.parameters()), "factor": 2.0})
        self.optimiser = torch.optim.Adam(groups, lr=s.learning_rate, betas=(0.9, 0.99))
        count = len(self.train) if self.config.native else len(self.photos) * 16
        per_epoch = max(1, count // s.batch)
        self.steps = s.steps or s.epochs * per_epoch
        self.stages = [loop.Stage(self.steps, per_epoch, s.batch)]

    def _read(self, s: CodecTrainSettings) -> None:
        device = self.processes.device
        self.skipped: list[tuple[str, str]] = []
        if self.config.native:
            data = read_labelled(Path(s.data), part="train", size=self.config.native)
            train, held = split(data.labels, s.validation, s.seed)
            if len(train) < s.batch:
                raise TrainingError(
                    f"{len(train)} pictures are fewer than one batch of {s.batch}", "give more pictures, or a smaller batch"
                )
            self.images = torch.from_numpy(data.images).permute(0, 3, 1, 2).to(device)
            self.labels = torch.from_numpy(data.labels).to(device)
            self.train, self.held = torch.from_numpy(train), torch.from_numpy(held)
            self.source, self.skipped = data.source, list(data.skipped)
            return
        paths = find_photos([Path(path) for path in split_list(s.data)])
        photos = read_photos(paths, min_side=s.crop, on_skip=lambda *skip: self.skipped.append(skip))
        train, held = split(len(photos), min(s.validation, 20 / max(1, len(photos))), s.seed)
        self.photos = [torch.from_numpy(photos[i]).permute(2, 0, 1) for i in train]
        self.held_photos = [photos[i] for i in held]
        self.source = f"{len(photos)} photos"

    def _batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images (n, 3, H, W) in -1..1 and their labels, for this process."""
        s, device = self.settings, self.processes.device
        if self.config.native:
            chosen = loop.batch_indices(index, count=len(self.train), batch=s.batch, seed=s.seed, processes=self.processes)
            chosen = self.train[chosen].to(device)
            images = shifted_and_flipped(self.images[chosen], 0)
            return images.float().div_(127.5).sub_(1), self.labels[chosen]
        crops = []
        for _ in range(max(1, s.batch // self.processes.count)):
            photo = self.photos[int(torch.randint(0, len(self.photos), ()))]
            height, width = photo.shape[-2:]
            # photos come from cameras, screens and thumbnails: some crops are taken at half the size
            side = 2 * s.crop if torch.rand(()) < 0.4 and min(height, width) >= 2 * s.crop else s.crop
            y, x = int(torch.randint(0, height - side + 1, ())), int(torch.randint(0, width - side + 1, ()))
            crop = photo[:, y : y + side, x : x + side].float()
            crop = F.avg_pool2d(crop, 2) if side > s.crop else crop
            crops.append(crop.flip(-1) if torch.rand(()) < 0.5 else crop)
        images = torch.stack(crops).to(device).div_(127.5).sub_(1)
        return images.contiguous(memory_format=torch.channels_last), None

    def _drawn(self) -> int:
        most = self.config.iterations
        if self.settings.iterations == "all" or most == 1:
            return most
        # a half: up to one or two iterations; the rest: any number; early iterations stand under all later ones
        if torch.rand(()) < 0.4:
            return int(torch.randint(1, max(2, most // 4 + 1), ()))
        return int(torch.randint(1, most + 1, ()))

    def _answers(
        self, classifier: classifiers.Classifier, image: torch.Tensor, target: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """The task's term of each image, (n,)."""
        view = corrupted(shifted_and_flipped((image / 2 + 0.5).clamp(0, 1), 2), self.settings.views)
        logits = classifier(view)
        if self.settings.task == "ce" and labels is not None:
            return F.cross_entropy(logits, labels, reduction="none")
        return divergence(logits, target)

    def step(self, index: int) -> Mapping[str, float | torch.Tensor]:
        s = self.settings
        share = index / self.steps
        rate = s.learning_rate * loop.one_cycle(index, self.steps, warm=0.05, last=0.01)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        source, labels = self._batch(index)
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=s.half):
            loss, figures = self._loss(source, labels, share)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.model.parameters())
        self.processes.average_gradients(parameters + (list(self.guesser.parameters()) if self.guesser is not None else []))
        torch.nn.utils.clip_grad_norm_(parameters, s.clip)
        self.optimiser.step()
        self.update_average(index, s.average)
        return figures

    def _loss(
        self, source: torch.Tensor, labels: torch.Tensor | None, share: float
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        """The loss of a batch, and its terms; `share` of the run is done."""
        s, bits = self.settings, self.config.bits
        answer = hint = second = None
        if self.viewer is not None:
            with torch.no_grad():
                answer = self.viewer(source / 2 + 0.5)
                hint = F.log_softmax(answer, 1).clamp_min(-10) if self.config.given else None
                second = self.watching(source / 2 + 0.5) if self.watching is not None else None
        many = self.processes.of_the_first(self._drawn())  # or the processes would have gradients of different parts
        images, codes = self.model(source, many, given=hint, stochastic=share < 1 - s.hard)
        weights = [1.0 / (1 + t) for t in range(many)] if s.iterations == "drawn" else [1.0] * many
        last = max(1, self.config.iterations - 1)
        weights = [w * s.later_reconstruction ** (t / last) for t, w in enumerate(weights)]
        losses = [reconstruction_loss(s.reconstruction, image, source) for image in images]
        loss = s.reconstruction_weight * sum(w / sum(weights) * each for w, each in zip(weights, losses, strict=True))
        loss = torch.as_tensor(loss)
        figures: dict[str, float | torch.Tensor] = {"reconstruction": loss.detach()}
        if self.guesser is not None:
            cost = self.guesser(codes).sum() / sum(bits)  # of all bits, so that each costs the same in any batch
            figures["rate"] = cost.detach() * (sum(bits) / sum(bits[:many]))
            loss = loss + s.rate_weight * cost
        low, high = s.ramp
        ramp = min(1.0, max(0.0, (share - low) / (high - low) if high > low else float(share >= low)))
        if ramp * s.task_weight > 0:
            image, factor = self._shown(images)
            for name, classifier, target, weight in (
                ("task", self.viewer, answer, s.task_weight),
                ("watching", self.watching, second, s.watching_weight),
            ):
                if classifier is not None and target is not None and weight:
                    terms = self._answers(classifier, image, target, labels)
                    figures[name] = terms.detach().mean()
                    loss = loss + weight * (ramp * factor * terms).mean()
        return loss, figures

    def _shown(self, images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | float]:
        """The reconstructions for the classifiers, (n, 3, H, W), and the factor of each one's term."""
        s, many = self.settings, len(images)
        count, device = len(images[0]), images[0].device
        if s.shown == "image":
            first = torch.rand(count, device=device) < s.shown_first
            iteration = torch.where(first, 0, torch.randint(min(1, many - 1), many, (count,), device=device))
            chosen = torch.stack(images)[iteration, torch.arange(count, device=device)]
            return chosen, torch.where(iteration == 0, 1.0, s.later_factor)
        one = 0 if many == 1 or torch.rand(()) < s.shown_first else int(torch.randint(1, many, ()))
        return images[one], s.later_factor if one else 1.0

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        if self.config.native:
            return self._validate_labelled()
        return self._validate_photos()

    def _at_most(self, least: int, most: int) -> int:
        """How many images of a native size to look at after a run: no more than it trained on.

        A published classifier at full width takes 60 ms an image; a trial of a few steps would wait minutes for its figures.
        """
        return min(most, max(least, self.steps * self.settings.batch))

    def _validate_labelled(self) -> dict[str, float]:
        iterations, most = self.config.iterations, self._at_most(100, 1000)
        errors, right, seen, right_on_source = [0.0] * iterations, [0] * iterations, 0, 0
        count = min(most, len(self.held))
        for chosen in torch.split(self.held[torch.arange(count) * len(self.held) // max(1, count)], 250):
            chosen = chosen.to(self.images.device)
            source = self.images[chosen].float().div_(127.5).sub_(1)
            hint = None
            if self.classifier is not None:
                answer = self.classifier(source / 2 + 0.5)
                right_on_source += int((answer.argmax(1) == self.labels[chosen]).sum())
                hint = F.log_softmax(answer, 1).clamp_min(-10) if self.config.given else None
            images, _ = self.average(source, iterations, given=hint)
            seen += len(chosen)
            for t, image in enumerate(images):
                image = image.clamp(-1, 1)
                errors[t] += float(-10 * ((image - source) / 2).square().mean((1, 2, 3)).log10().sum())
                if self.classifier is not None:
                    right[t] += int((self.classifier(image / 2 + 0.5).argmax(1) == self.labels[chosen]).sum())
        if not seen:
            return {}
        figures = {f"psnr at {t + 1}": e / seen for t, e in enumerate(errors)}
        if self.classifier is not None:
            figures |= {f"accuracy at {t + 1}": r / seen for t, r in enumerate(right)}
            figures["accuracy on sources"] = right_on_source / seen
        return figures

    def _validate_photos(self) -> dict[str, float]:
        iterations, block = self.config.iterations, self.config.block
        scores = np.zeros((iterations, 2))
        for photo in self.held_photos:
            height, width = (min(192, side) // block * block for side in photo.shape[:2])
            top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
            crop = photo[top : top + height, left : left + width]
            source = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float().div_(127.5).sub_(1).to(self.processes.device)
            images, _ = self.average(source, iterations)
            for t, image in enumerate(images):
                error = float(((image.clamp(-1, 1) - source) / 2).square().mean())
                shown = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
                scores[t] += (-10 * np.log10(max(error, 1e-10)), ms_ssim(crop, shown))
        if not self.held_photos:
            return {}
        scores /= len(self.held_photos)
        figures = {f"psnr at {t + 1}": float(scores[t, 0]) for t in range(iterations)}
        return figures | {f"ms_ssim at {t + 1}": float(scores[t, 1]) for t in range(iterations)}

    def state(self) -> dict[str, Any]:
        guesser = {"guesser": self.guesser.state_dict()} if self.guesser is not None else {}
        return super().state() | guesser

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        if self.guesser is not None:
            self.guesser.load_state_dict(state["guesser"])

    def export(self, folder: Path, figures: Mapping[str, float]) -> Mapping[str, float]:
        s = self.settings
        metadata = {
            "validation": dict(figures),
            "data": self.source,
            "skipped": len(self.skipped),
            "classifier": s.classifier,
            # small images: the whole file in about two dozen bytes; photos: all that the network was trained for
            "default_iterations": 1 if self.config.native else self.config.iterations,
            "settings": {k: v for k, v in dataclasses.asdict(s).items() if k not in ("data", "device", "start")},
            "licence": s.licence,
        }
        arrays: Mapping[str, np.ndarray] = {}
        if s.contexts:
            network = copy.deepcopy(self.average).cpu()
            if self.config.native:
                images = self.images[self.train.to(self.images.device)].permute(0, 2, 3, 1).cpu().numpy()
                _, arrays = fit_contexts(network, metadata, images, most=self._at_most(200, 10_000), seed=s.seed)
            else:
                photos = [photo.permute(1, 2, 0).numpy() for photo in self.photos]
                _, arrays = fit_contexts(network, metadata, photos, seed=s.seed)
        save_codec(folder / "model.safetensors", self.average, metadata, arrays)
        about = {"kind": "codec", "network": self.config.to_dict(), **metadata}
        loop.write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
        return figures
