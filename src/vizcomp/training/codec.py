"""Training of the recurrent codec, through a frozen classifier where one is given.

The loss is a weighted sum over iterations of

- reconstruction: L1, L2, or one minus MS-SSIM mixed with L1;
- task: the Kullback-Leibler divergence from the classifier's answer on the source to its answer on
  the reconstruction, or cross-entropy with the label; the same for a second, watching classifier;
- rate: the estimated cost of the bits after entropy coding (`losses.BitGuesser`).

The defaults come from trials. The task term is ramped in after the reconstruction, since with it
from the start the image never forms. Random flips, shifts, blur and noise lie between codec and
classifier, so that the codec cannot write what only this classifier reads. The encoder gets the
classifier's answer on the source. Bits are drawn at random in training (stochastic binarization),
except in the last part, which trains what will run.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vizcomp.errors import ModelError, SettingsError, first_line
from vizcomp.files.write import beside
from vizcomp.graphs import classifiers as files
from vizcomp.graphs.recurrent import RecurrentConfig
from vizcomp.nets import classifiers
from vizcomp.nets.recurrent import RecurrentCodec
from vizcomp.nets.spectral import SpectralCodec
from vizcomp.neural.models import CLASSIFIER, CLASSIFIER_PREFIX
from vizcomp.training import loop
from vizcomp.training.codec_data import CodecData, PhotoData, PictureData
from vizcomp.training.codec_scores import PhotoScores, PictureScores, Scores, class_numbers
from vizcomp.training.codec_settings import CodecTrainSettings
from vizcomp.training.contexts import fit_contexts
from vizcomp.training.features import open_features, seen_apart
from vizcomp.training.frozen import one_sided, open_frozen
from vizcomp.training.losses import BitGuesser, colour_errors, divergence, reconstruction_losses
from vizcomp.training.processes import Processes
from vizcomp.training.task import Stage, Task
from vizcomp.training.views import corrupted, shifted_and_flipped

VALIDATED = 1000  # pictures at most


def save_codec(
    path: Path,
    network: RecurrentCodec | SpectralCodec,
    metadata: dict[str, Any],
    extra: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a codec beside and renames it: weights in half precision, the configuration in the
    metadata.

    Args:
        metadata: JSON values.
        extra: further arrays (the context model's, a classifier's), stored as they are under their
            names.
    """
    from safetensors.torch import save_file

    tensors = {
        k: (v.half() if v.ndim >= 2 else v).contiguous().cpu()
        for k, v in network.state_dict().items()
    }
    tensors |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in (extra or {}).items()}
    about = {**metadata, "kind": "codec", "network": network.config.to_dict()}
    with beside(path) as part:
        save_file(tensors, part, metadata={"vizcomp": json.dumps(about)})


def load_weights(path: Path, network: RecurrentCodec | SpectralCodec) -> None:
    """Takes the weights of a saved codec of the same configuration but for the bits of its
    iterations.

    Where an iteration has more bits now, the new ones keep the network's own weights; where it has
    fewer, the last ones go.

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
                common = tuple(
                    slice(min(a, b)) for a, b in zip(value.shape, saved[name].shape, strict=True)
                )
                value[common] = saved[name][common].float()
            else:
                weights[name] = saved[name].float()
        network.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as exc:
        raise ModelError(f"{path}: not the weights of such a codec: {first_line(exc)}") from exc


class CodecTask(Task):
    """A codec's training."""

    kind = "codec"
    settings_class = CodecTrainSettings

    def __init__(self, settings: CodecTrainSettings, processes: Processes) -> None:
        self.settings, self.processes = settings, processes
        s, device = settings, processes.device
        processes.check_batch(s.batch)
        config = s.config()
        side = config.native or s.crop
        self.classifier = open_frozen(s.classifier, side).to(device) if s.classifier else None
        self.watching = open_frozen(s.watching, side).to(device) if s.watching else None
        self.config = self._told(config)
        self.data, self.scores = self._read()
        self.skipped = self.data.skipped
        torch.manual_seed(s.seed)
        network = RecurrentCodec(self.config)
        if network.told is not None:
            # what it is told is learnt when there is something to tell
            torch.nn.init.zeros_(network.told.weight)
        if s.start:
            load_weights(Path(s.start), network)
        # in full precision a CPU's own layout takes a tenth less than channels last
        plain = device.type == "cpu" and not s.half
        layout = torch.contiguous_format if plain else torch.channels_last
        self._layout = layout
        self.model = network.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.viewer: torch.nn.Module | None = self.classifier
        if self.classifier is not None and s.shown == "image":
            self.viewer = one_sided(self.classifier)
        self.eyes = open_features(s.features, side, device)
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters()), "factor": 1.0}]
        self.guesser = BitGuesser(self.config.bits).to(device) if s.rate_weight else None
        each = s.factors(s.prices, 1 / s.first_price)
        scale = 1.0 if s.prices else s.first_price
        prices = [
            scale * price
            for price, count in zip(each, self.config.bits, strict=True)
            for _ in range(count)
        ]
        self.prices = torch.tensor(prices, device=device)
        if self.guesser is not None:
            groups.append({"params": list(self.guesser.parameters()), "factor": 2.0})
        self.optimiser = torch.optim.Adam(groups, lr=s.learning_rate, betas=(0.9, 0.99))
        per_epoch = max(1, self.data.per_epoch // s.batch)
        self.steps = s.steps or s.epochs * per_epoch
        self.stages = [Stage(self.steps, per_epoch, s.batch)]

    def _told(self, config: RecurrentConfig) -> RecurrentConfig:
        """The configuration with as much as the encoder is told of the classifier's answer.

        A classifier that is no file of vizcomp tells it nothing: whoever has the codec's file must
        be able to encode.
        """
        s, explicit = self.settings, "given" in self.settings.network
        if self.classifier is None:
            if s.features and not explicit:
                return dataclasses.replace(config, given=0)  # such networks tell no answer
            if config.given and s.task_weight:
                raise SettingsError(
                    "this network is told a classifier's answer",
                    "give `classifier`, or `set` task_weight=0 for a first stage",
                )
            return config
        ours = isinstance(self.classifier.module, classifiers.Classifier)
        if explicit and config.given and not ours:
            raise SettingsError(
                f"the encoder cannot be told what {s.classifier} answers: the codec's file does not"
                " hold that classifier",
                "omit given; the codec is trained through the classifier all the same",
            )
        if explicit and config.given not in (0, self.classifier.count):
            raise SettingsError(
                f"given is {config.given}, and {s.classifier} has {self.classifier.count} classes",
                "omit given",
            )
        told = self.classifier.count if config.given and ours else 0
        return dataclasses.replace(config, given=told)

    def _read(self) -> tuple[CodecData, Scores]:
        s = self.settings
        if not self.config.native:
            if s.judge:
                raise SettingsError(
                    "a judge looks at labelled pictures of one size", "omit it, or give side"
                )
            photos = PhotoData(s, self.processes)
            return photos, PhotoScores(photos, self.config, self.processes.device)
        data = PictureData(s, self.config.native, self.processes)
        self._numbers = (
            class_numbers(data.pictures, self.classifier) if self.classifier is not None else None
        )
        if s.task == "ce" and self.classifier is not None and self._numbers is None:
            raise SettingsError(
                f"{s.classifier} has {self.classifier.count} classes, the data"
                f" {len(data.pictures.classes)}",
                "task=kl keeps the classifier's own answers, whatever the classes",
            )
        return data, PictureScores(data.pictures, self.config, self.classifier, s.judge, VALIDATED)

    def _drawn(self) -> int:
        most = self.config.iterations
        if self.settings.iterations == "all" or most == 1:
            return most
        # a half: up to one or two iterations; the rest: any number; early iterations stand under
        # all later ones
        if torch.rand(()) < 0.4:
            return int(torch.randint(1, max(2, most // 4 + 1), ()))
        return int(torch.randint(1, most + 1, ()))

    def _answers(
        self,
        classifier: torch.nn.Module,
        image: torch.Tensor,
        target: torch.Tensor,
        labels: torch.Tensor | None,
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
        source, labels = self.data.batch(index)
        source = source.contiguous(memory_format=self._layout)
        if labels is not None and self._numbers is not None:
            labels = self._numbers.to(labels.device)[labels]
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=s.half):
            loss, figures = self._loss(source, labels, share)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.model.parameters())
        self.processes.average_gradients(
            parameters + (list(self.guesser.parameters()) if self.guesser is not None else [])
        )
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
        # or the processes would have gradients of different parts
        many = self.processes.of_the_first(self._drawn())
        images, codes = self.model(source, many, given=hint, stochastic=share < 1 - s.hard)
        weights = [1.0 / (1 + t) for t in range(many)] if s.iterations == "drawn" else [1.0] * many
        factors = s.factors(s.shares, s.later_reconstruction)
        weights = [w * factor for w, factor in zip(weights, factors, strict=False)]
        losses = reconstruction_losses(s.reconstruction, images, source, s.scales, s.absolute)
        loss = s.reconstruction_weight * sum(
            w / sum(weights) * each for w, each in zip(weights, losses, strict=True)
        )
        loss = torch.as_tensor(loss)
        figures: dict[str, float | torch.Tensor] = {"reconstruction": loss.detach()}
        if s.colour_weight:
            # hue is to be right at every rate, and is hardest to have at the lowest
            shares = s.factors((), s.later_colour)[:many]
            colour = sum(
                share / sum(shares) * error
                for share, error in zip(shares, colour_errors(images, source), strict=True)
            )
            figures["colour"] = torch.as_tensor(colour).detach()
            loss = loss + s.colour_weight * colour
        if self.guesser is not None:
            # of all bits, so that each costs the same in any batch
            costs = self.guesser(codes) / sum(bits)
            figures["rate"] = costs.detach().sum() * (sum(bits) / sum(bits[:many]))
            loss = loss + s.rate_weight * (costs * self.prices[: len(costs)]).sum()
        low, high = s.ramp
        ramp = min(
            1.0, max(0.0, (share - low) / (high - low) if high > low else float(share >= low))
        )
        if ramp > 0 and (s.task_weight or self.eyes):
            image, factor = self._shown(images)
            if self.eyes:
                pair = shifted_and_flipped((torch.cat([image, source], 1) / 2 + 0.5).clamp(0, 1), 2)
                away = seen_apart(self.eyes, *pair.chunk(2, 1))
                figures["features"] = away.detach().mean()
                loss = loss + s.feature_weight * (ramp * factor * away).mean()
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
        """The reconstructions for the classifiers, (n, 3, H, W), and the factor of each one's
        term."""
        s, many = self.settings, len(images)
        count, device = len(images[0]), images[0].device
        if s.shown == "image":
            first = torch.rand(count, device=device) < s.shown_first
            iteration = torch.where(
                first, 0, torch.randint(min(1, many - 1), many, (count,), device=device)
            )
            chosen = torch.stack(images)[iteration, torch.arange(count, device=device)]
            return chosen, torch.where(iteration == 0, 1.0, s.later_factor)
        one = 0 if many == 1 or torch.rand(()) < s.shown_first else int(torch.randint(1, many, ()))
        return images[one], s.later_factor if one else 1.0

    def validate(self) -> Mapping[str, float]:
        return self.scores(self.average, self.guesser, at_most=self._at_most)

    def _at_most(self, least: int, most: int) -> int:
        """How many images of a native size to look at after a run: no more than it trained on.

        A published classifier at full width takes 60 ms an image; a trial of a few steps would wait
        minutes for its figures.
        """
        return min(most, max(least, self.steps * self.settings.batch))

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
            "data": self.data.source,
            "skipped": len(self.skipped),
            "classifier": self._kept_classifier(),
            "trained_through": Path(s.classifier).name if s.classifier else "",
            # small images: the whole file in about two dozen bytes; photos: all that the network
            # was trained for
            "default_iterations": 1 if self.config.native else self.config.iterations,
            "settings": {
                k: v
                for k, v in dataclasses.asdict(s).items()
                if k not in ("data", "device", "start")
            },
            "licence": s.licence,
        }
        arrays: Mapping[str, np.ndarray] = {}
        if s.contexts:
            network = copy.deepcopy(self.average).cpu()
            most = self._at_most(200, 10_000 if self.config.native else 400)  # parts of photos
            _, arrays = fit_contexts(
                network, metadata, self.data.samples(most), most=most, seed=s.seed
            )
        kept, own = self._embedded()
        metadata |= kept
        save_codec(folder / "model.safetensors", self.average, metadata, {**arrays, **own})
        about = {"kind": "codec", "network": self.config.to_dict(), **metadata}
        loop.write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
        return figures

    def _kept_classifier(self) -> str:
        """The classifier that encoding asks: one of vizcomp, at hand everywhere or part of the
        codec's file; or none."""
        ours = self.classifier is not None and isinstance(
            self.classifier.module, classifiers.Classifier
        )
        return self.settings.classifier if ours else ""

    def _embedded(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What the codec's file has of a classifier that was trained by `vizcomp train`: its words,
        and its arrays."""
        frozen = self.classifier
        if (
            frozen is None
            or frozen.shipped
            or not isinstance(frozen.module, classifiers.Classifier)
        ):
            return {}, {}
        file = files.read(self.settings.classifier)
        half = {n: v.astype(np.float16) if v.ndim >= 2 else v for n, v in file.weights.items()}
        metadata = {"classifier": Path(frozen.name).name, CLASSIFIER: dict(file.words)}
        return metadata, {CLASSIFIER_PREFIX + name: value for name, value in half.items()}
