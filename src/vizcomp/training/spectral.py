"""Training of the codec of small pictures in their spectrum (`nets.spectral`), in two parts.

`trained = "codec"`: encoder, binarizer and decoder, from the principal axes of the pictures. For
each iteration t

    loss_t = ln(squared error) + price_t * bits up to t

where ln is the mean of that of each picture's error and that of the mean error, so that neither
smooth pictures nor busy ones are all that counts; the bits are those that `losses.Guesser` expects
the entropy coder to take. No classifier has a say here.

With a `metric` (`recipes/cifar_metric.py` measures one), the error of the iterations from
`seen_from` on is weighted: d^T M^p d of the difference d in the numbers of the transform, so that
bits go where the answers of networks move. A matrix costs nothing beside the networks themselves.

`trained = "finish"`: the last network alone, on pictures of a frozen codec after an iteration that
is drawn for each. The loss is the squared error in shares of what it was before, and how far the
picture is from its source in the eyes of frozen networks: the features of each at several depths,
and the answer of one of them, the classifier. Both are shown to them moved and mirrored alike. The
encoder is never told an answer: what is not in the bits, the last network cannot know.

`trained = "all"`: both losses at once, for a codec that is trained: what the networks see acts on
the bits too. For a few hundred updates; such a step costs as much as the two parts together.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vizcomp.datasets.labelled import MAX_SIZE
from vizcomp.errors import SettingsError, TrainingError
from vizcomp.graphs.spectral import Ladder, SpectralConfig
from vizcomp.nets.spectral import SpectralCodec
from vizcomp.neural.models import read_model
from vizcomp.training import loop
from vizcomp.training.codec import load_weights, save_codec
from vizcomp.training.codec_data import PictureData
from vizcomp.training.contexts import fit_contexts
from vizcomp.training.features import Features, apart, open_features, seen_apart
from vizcomp.training.frozen import one_sided, open_frozen
from vizcomp.training.losses import Guesser, divergence
from vizcomp.training.metric import metric_of
from vizcomp.training.processes import Processes
from vizcomp.training.settings import STEP_RANGES, check_choices, check_ranges, names_of
from vizcomp.training.task import Stage, Task
from vizcomp.training.views import shifted_and_flipped

VALIDATED = 1000  # pictures at most
AXES = 12_000  # pictures at most that give the principal axes
SEEN = 0.38  # a component's deviation in steps, from which on it has a ladder
REACH = 2.6  # deviations that a first ladder reaches


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectralTrainSettings:
    """What such a training is made of.

    Attributes:
        data: labelled pictures of the network's size (`datasets.read.read_labelled`).
        network: fields of `SpectralConfig`; `ladders` that are missing are made from the pictures
            and `steps`.
        side: of the pictures; 0 for the network's own, and then pictures of another size are
            refused.
        start: a codec's .safetensors of the same configuration to start from; "" for the principal
            axes of the pictures.
        trained: "codec", "finish" or "all".
        prices: of a bit, for each iteration, in units of ln(squared error).
        each: share of the mean of each picture's ln(squared error); the rest is that of the mean
            error. 1 is what a mean PSNR measures.
        guessing: first updates of the codec in which the estimate of the bits alone learns: for a
            run that goes on from a trained one.
        metric: a .npy file, (K, K) and positive semidefinite, in the numbers of the network's
            transform: how much errors count in iterations from `seen_from` on; "" for all alike.
        power: to which matrix power it is taken: 0 for the squared error, 1 for all of it.
        based: a network that starts from the pictures gets the principal axes that they have in
            the eyes of `metric`.
        classifier: the frozen classifier in whose eyes the last network is trained, in one of the
            forms of `training.frozen`: its answer counts, and its features.
        features: further networks whose features count, in the same forms; the mean over all.
        feature_weight, answers: factors of the distance of features, and of the divergence of the
            classifier's answer in nats.
        viewed: share of a batch that these networks are shown.
        seen_from: first iteration whose pictures they are shown, or for which `metric` counts: 1
            for all.
        drawn: weights by which the iterations of a batch are drawn, for the last network.
        matrices: factor of the learning rate of stem and exit, which start near where they should
            be.
        thresholds: factor of the learning rate of thresholds and of what each bit adds.
        sets: context sets of the entropy coder's model.
    """

    data: str = ""
    network: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"zones": [26, 12, 8], "steps": [3.6, 2.0, 0.98, 0.57]}
    )
    side: int = 0
    start: str = ""
    trained: str = "codec"
    prices: tuple[float, ...] = (0.0071, 0.0036, 0.0021, 0.0013)
    each: float = 0.5
    guessing: int = 0
    metric: str = ""
    power: float = 0.5
    based: bool = False
    classifier: str = ""
    features: tuple[str, ...] = ()
    feature_weight: float = 0.5
    answers: float = 0.05
    viewed: float = 0.5
    seen_from: int = 1
    drawn: tuple[float, ...] = (0.15, 0.25, 0.35, 0.25)
    matrices: float = 0.15
    thresholds: float = 1.0
    epochs: int = 2
    steps: int = 0
    batch: int = 128
    learning_rate: float = 2e-3
    clip: float = 1.0
    average: float = 0.998
    validation: float = 0.1
    validate_every: int = 1
    seed: int = 0
    device: str = "auto"
    contexts: bool = True
    sets: int = 4
    licence: str = "MIT"

    def __post_init__(self) -> None:
        ranges = {
            "side": (0, MAX_SIZE),
            "feature_weight": (0, 1000),
            "answers": (0, 1000),
            "viewed": (0, 1),
            "each": (0, 1),
            "guessing": (0, 1_000_000),
            "power": (0, 1),
            "seen_from": (1, max(1, len(self.network.get("steps", ())))),
            "matrices": (0, 10),
            "thresholds": (0, 100),
            **STEP_RANGES,
            "sets": (1, 16),
        }
        check_ranges(self, ranges)
        check_choices(self, {"trained": ("codec", "finish", "all")})
        object.__setattr__(self, "features", names_of("features", self.features))
        for name in ("prices", "drawn"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            many = len(self.network.get("steps", ()))
            values = getattr(self, name)
            if (
                len(values) != many
                or not all(isinstance(v, int | float) and v >= 0 for v in values)
                or not sum(values)
            ):
                raise SettingsError(
                    f"{name} {values} are not {many} numbers, one for each of the network's steps"
                )
        if self.trained != "codec" and not self.start:
            raise SettingsError(
                "the last network needs a trained codec", "`set` start=RUN/model.safetensors"
            )
        if self.trained == "codec" and (self.classifier or self.features):
            name = "classifier" if self.classifier else "features"
            raise SettingsError(
                "classifiers have a say in the last network alone",
                f"`set` trained=finish or trained=all, or omit `{name}`",
            )
        self.config()

    def config(self, ladders: tuple[Ladder, ...] = ()) -> SpectralConfig:
        """The network's configuration at the side that is asked for; with other ladders where it
        has none of its own.

        Raises:
            SettingsError: impossible values.
        """
        values = dict(self.network)
        if "ladders" not in values:
            values["ladders"] = ladders or [[[1, 2]]] * len(values.get("steps", ()))
        if self.side:
            values["native"] = self.side
        return SpectralConfig.from_dict(values)

    @property
    def exact(self) -> bool:
        """Whether pictures of another size are refused: nobody asked for this one."""
        return not self.side and "native" not in self.network


def ladders_for(deviations: np.ndarray, steps: tuple[float, ...]) -> tuple[Ladder, ...]:
    """How many thresholds the components need, the largest deviation first.

    A component has a ladder where it is often beyond the zone about zero; its first one reaches all
    that is likely, later ones refine what is left by two thresholds.
    """
    found: list[Ladder] = []
    before = math.inf
    for step in steps:
        runs: list[list[int]] = []
        for deviation in deviations:
            if deviation < SEEN * step:
                break
            many = 2
            if deviation < SEEN * before:
                many = min(64, 2 * max(1, math.ceil(REACH * float(deviation) / step - 0.62)))
            if runs and runs[-1][1] == many:
                runs[-1][0] += 1
            else:
                runs.append([1, many])
        found.append(tuple((count, many) for count, many in runs) or ((1, 2),))
        before = step
    return tuple(found)


class SpectralTask(Task):
    """Such a training."""

    kind = "codec"
    settings_class = SpectralTrainSettings

    def __init__(self, settings: SpectralTrainSettings, processes: Processes) -> None:
        self.settings, self.processes = settings, processes
        s, device = settings, processes.device
        processes.check_batch(s.batch)
        self.data = PictureData(s, s.config().native, processes)
        self.skipped = self.data.skipped
        torch.manual_seed(s.seed)
        self.metric = None
        if s.metric:
            self.metric = metric_of(Path(s.metric), s.config().components, s.power).to(device)
        self.model = self._network().to(device)
        self.config = self.model.config
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.guesser = Guesser(sum(self.config.bits)).to(device)
        self.answering = None
        side = self.config.native
        if s.classifier:
            self.answering = Features(one_sided(open_frozen(s.classifier, side).to(device)), side)
        self.eyes = open_features(s.features, side, device)
        self.optimiser = torch.optim.Adam(self._groups(), lr=s.learning_rate, betas=(0.9, 0.99))
        per_epoch = max(1, self.data.per_epoch // s.batch)
        self.steps = s.steps or s.epochs * per_epoch
        self.stages = [Stage(self.steps, per_epoch, s.batch)]

    def _network(self) -> SpectralCodec:
        s = self.settings
        p = self.data.pictures
        some = p.train[:: max(1, len(p.train) // AXES)].to(p.images.device)
        images = p.images[some].float().div_(127.5).sub_(1).cpu()
        base = SpectralCodec(s.config())
        if "ladders" in s.network or s.start:
            network = base
        else:
            base.set_axes(images, self._root())
            with torch.no_grad():
                deviations = base.components(images).std(0).numpy()
            network = SpectralCodec(s.config(ladders_for(deviations, base.config.steps)))
        if s.start:
            network = _started(Path(s.start), s)
        else:
            network.set_axes(images, self._root())
        return network

    def _root(self) -> torch.Tensor | None:
        """What the axes are those of, where the metric has a say in them."""
        return self.metric.cpu() if self.metric is not None and self.settings.based else None

    def _groups(self) -> list[dict[str, Any]]:
        s = self.settings
        if s.trained != "codec" and self.model.finish is None:
            raise SettingsError(
                "this network has no last network", "give `finish` in its configuration"
            )
        if s.trained == "finish":
            assert self.model.finish is not None
            self.model.requires_grad_(False)
            self.model.finish.requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return [{"params": list(self.model.finish.parameters()), "factor": 1.0}]
        if s.trained == "codec" and self.model.finish is not None:
            self.model.finish.requires_grad_(False)
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if name.startswith(("stem.", "exit."))]
        ladders = [p for name, p in named if name.startswith(("binarizers.", "entrances."))]
        apart = {id(p) for p in matrices + ladders}
        rest = [p for _, p in named if id(p) not in apart]
        return [
            {"params": matrices, "factor": s.matrices},
            {"params": ladders, "factor": s.thresholds},
            {"params": rest, "factor": 1.0},
            {"params": list(self.guesser.parameters()), "factor": 1.5},
        ]

    def step(self, index: int) -> Mapping[str, float | torch.Tensor]:
        s = self.settings
        rate = s.learning_rate * loop.one_cycle(index, self.steps, warm=0.05, last=0.01)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        if s.trained != "finish" and index < s.guessing:
            for group in self.optimiser.param_groups[:-1]:
                group["lr"] = 0.0
            self.optimiser.param_groups[-1]["lr"] = s.learning_rate
        source, _ = self.data.batch(index)
        if s.trained == "finish":
            with torch.no_grad():
                found, _ = self.model(source, self.config.iterations)
            loss, figures = self._finish_loss(source, found)
        else:
            found, codes = self.model(source, self.config.iterations)
            loss, figures = self._codec_loss(source, found, codes)
            if s.trained == "all" and index >= s.guessing:
                added, more = self._finish_loss(source, found)
                loss, figures = loss + added, {**figures, **more}
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        guessing = list(self.guesser.parameters()) if s.trained != "finish" else []
        self.processes.average_gradients(parameters + guessing)
        torch.nn.utils.clip_grad_norm_(parameters, s.clip)
        self.optimiser.step()
        self.update_average(index, s.average)
        return figures

    def _codec_loss(
        self, source: torch.Tensor, found: list[torch.Tensor], codes: list[torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        costs = self.guesser(codes)
        loss = torch.zeros((), device=source.device)
        figures: dict[str, float | torch.Tensor] = {}
        end = 0
        for t, components in enumerate(found):
            end += self.config.bits[t]
            error = counted = _errors(self.model.picture(components), source)
            if self.metric is not None and t + 1 >= self.settings.seen_from:
                there = source.flatten(1) @ self.model.spectrum.T
                apart_by = (self.model.exit(components) - there) @ self.metric
                counted = apart_by.square().mean(1).clamp_min(1e-9)
            bits = costs[:end].sum()
            loss = (
                loss
                + self.settings.each * counted.log().mean()
                + (1 - self.settings.each) * counted.mean().log()
                + self.settings.prices[t] * bits
            )
            figures[f"bits at {t + 1}"] = bits.detach()
            figures[f"psnr at {t + 1}"] = -10 * error.detach().log10().mean()
        return loss, figures

    def _finish_loss(
        self, source: torch.Tensor, found: list[torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        s = self.settings
        assert self.model.finish is not None
        count = len(source)
        iteration = torch.multinomial(torch.tensor(s.drawn, dtype=torch.float), count, True).to(
            source.device
        )
        before = self.model.picture(torch.stack(found)[iteration, torch.arange(count)])
        before = before.contiguous(memory_format=torch.channels_last)
        image = self.model.finish(before, iteration)
        loss = (_errors(image, source) / _errors(before, source).detach()).mean()
        figures: dict[str, float | torch.Tensor] = {"error": loss.detach()}
        (chosen,) = torch.nonzero(iteration + 1 >= s.seen_from, as_tuple=True)
        chosen = chosen[: math.ceil(count * s.viewed)]
        if len(chosen) and (self.answering is not None or self.eyes):
            added, seen = self._seen(image[chosen], source[chosen])
            loss = loss + added
            figures |= seen
        return loss, figures

    def _seen(
        self, image: torch.Tensor, source: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        """What pictures have lost in the eyes of the frozen networks, and its terms."""
        s = self.settings
        pair = torch.cat([image, source], 1) / 2 + 0.5
        view, wanted = (
            part.contiguous(memory_format=torch.channels_last)
            for part in shifted_and_flipped(pair.clamp(0, 1), 2).chunk(2, 1)
        )
        loss = torch.zeros((), device=source.device)
        figures: dict[str, float | torch.Tensor] = {}
        away = []
        if self.answering is not None:
            with torch.no_grad():
                answer, there = self.answering(wanted)
            logits, found = self.answering(view)
            lost = divergence(logits, answer).mean()
            loss = loss + s.answers * lost
            figures["answer"] = lost.detach()
            if self.answering.count:
                away.append(apart(found, there))
        away += [seen_apart([one], view, wanted) for one in self.eyes]
        if away:
            far = torch.stack(away).mean()
            loss = loss + s.feature_weight * far
            figures["features"] = far.detach()
        return loss, figures

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        p = self.data.pictures
        count = min(VALIDATED, max(100, self.steps * self.settings.batch), len(p.held))
        if not count:
            return {}
        chosen = p.held[torch.arange(count) * len(p.held) // count].to(p.held_images.device)
        sums: dict[str, float] = {}
        for part in torch.split(chosen, 250):
            source = p.held_images[part].float().div_(127.5).sub_(1)
            found, codes = self.average(source, self.config.iterations)
            costs = self.guesser(codes).cumsum(0).cpu()
            end = 0
            for t, components in enumerate(found):
                end += self.config.bits[t]
                error = _errors(self.average.shown(components, t).clamp(-1, 1), source)
                values = {f"psnr at {t + 1}": float((-10 * error.log10()).sum())}
                if self.settings.trained != "finish":
                    values[f"bits at {t + 1}"] = float(costs[end - 1]) * len(part)
                for name, value in values.items():
                    sums[name] = sums.get(name, 0.0) + value
        return {name: value / count for name, value in sums.items()}

    def state(self) -> dict[str, Any]:
        return super().state() | {"guesser": self.guesser.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.guesser.load_state_dict(state["guesser"])

    def export(self, folder: Path, figures: Mapping[str, float]) -> Mapping[str, float]:
        s = self.settings
        metadata: dict[str, Any] = {
            "validation": dict(figures),
            "data": self.data.source,
            "skipped": len(self.skipped),
            "classifier": "",
            "trained_through": Path(s.classifier).name if s.classifier else "",
            "default_iterations": 1,
            "settings": {
                k: v
                for k, v in dataclasses.asdict(s).items()
                if k not in ("data", "device", "start")
            }
            | {"metric": Path(s.metric).name},
            "licence": s.licence,
        }
        arrays: Mapping[str, np.ndarray] = {}
        if s.contexts:
            most = min(6000, max(200, self.steps * s.batch))
            network = copy.deepcopy(self.average).cpu()
            _, arrays = fit_contexts(
                network, metadata, self.data.samples(most), most=most, seed=s.seed, sets=s.sets
            )
        save_codec(folder / "model.safetensors", self.average, metadata, arrays)
        about = {"kind": "codec", "network": self.config.to_dict(), **metadata}
        loop.write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
        return figures


def _errors(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each picture in 0..1, (N,), for pictures in -1..1; never zero."""
    return ((image - source) / 2).square().mean((1, 2, 3)).clamp_min(1e-9)


def _started(path: Path, settings: SpectralTrainSettings) -> SpectralCodec:
    """The network of a codec's file, with its ladders."""
    words, _ = read_model(path)
    saved = dict(words.get("network", {}))
    wanted = json.loads(json.dumps(settings.config().to_dict()))
    fixed = ("native", "zones", "encoder", "decoder", "finish")
    other = [name for name in fixed if wanted[name] != saved.get(name)]
    if other:
        raise TrainingError(
            f"{path} has another network: {', '.join(other)}",
            "give the recipe that it was trained with",
        )
    network = SpectralCodec(SpectralConfig.from_dict({**saved, "steps": wanted["steps"]}))
    load_weights(path, network)
    return network
