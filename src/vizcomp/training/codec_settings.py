"""What a codec's training is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

from vizcomp.datasets.labelled import MAX_SIZE
from vizcomp.errors import SettingsError
from vizcomp.graphs.recurrent import RecurrentConfig
from vizcomp.training.losses import RECONSTRUCTIONS
from vizcomp.training.settings import STEP_RANGES, check_choices, check_ranges, names_of

TASKS = ("kl", "ce")
SHOWN = ("batch", "image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecTrainSettings:
    """What a codec's training is made of.

    Attributes:
        data: labelled pictures (`datasets.read.read_labelled`) where the network has a native size;
            photos otherwise, a `split_list` of folders.
        network: fields of `RecurrentConfig`; `preset` names where to start from.
        side: of the labelled pictures; 0 for the network's own, and then pictures of another size
            are refused.
        start: a codec's .safetensors to start from, of the same configuration but perhaps for the
            bits of an iteration: what is wider then gets fresh weights, what is narrower loses its
            last bits. "" for fresh weights.
        classifier: the frozen classifier, in one of the forms of `training.frozen`; "" for none.
        watching: a second frozen classifier in the loss; "" for none.
        features: networks whose features count, in the forms of `training.frozen`: how far
            reconstructions are from their sources at several depths of each, the mean over all.
        judge: a vision system that gives classes and has no part in the training, such as
            PATH.onnx: how often it answers on the reconstructions as on the sources is measured at
                each validation; "" for none.
        task: "kl" or "ce".
        task_weight, watching_weight, feature_weight, reconstruction_weight: factors of the terms.
        reconstruction: "l1", "l2" or "ms-ssim". L1 and L2 are of images in 0..1, L2 times 10.
        scales: of MS-SSIM, 1..5. Five are the published measure; crops of 64 pixels have room for
            three.
        absolute: factor of the absolute error beside MS-SSIM.
        colour_weight: factor of the error of colour (`losses.colour_error`), the mean of all
            iterations.
        later_colour: factor of the error of colour of the last iteration against the first, in
            between geometric.
        later_reconstruction: factor of the reconstruction term of the last iteration against the
            first, in between geometric.
        shares: factors of the reconstruction term of each iteration, in place of
            `later_reconstruction`; none: as that says.
        rate_weight: price of the bits: factor of the share of the raw bits that is left by the
            estimate; 0 for none.
        first_price: factor of the price of the first iteration's bits against the last one's, in
            between geometric. A bit of the first iteration is part of all rates.
        prices: factors of the price of the bits of each iteration, in place of `first_price`; none:
            as that says.
        ramp: shares of the run between which the task term rises from nothing to full weight.
        views: share of the reconstructions blurred or made noisy before a classifier sees them; all
            are shifted and flipped.
        shown_first: how often it is the first iteration that the classifier is shown; else one of
            the later ones.
        shown: "batch": the same iteration of all images; "image": each image's own draw, and a
            classifier that takes the mirror image too looks at one side only (the views are flipped
            at random anyway).
        later_factor: of the classifiers' terms where it is a later one. To the reconstruction loss,
            detail that only the classifier needs is an error; later iterations remove it unless
            this term applies to them too.
        hard: share of the run, at its end, with the signs as bits instead of random bits.
        iterations: "drawn" (a random number for each batch, so that early ones are trained most) or
            "all".
        steps: updates; 0 = `epochs` passes over the data.
        crop: side of the crops from photos, a multiple of the block.
        smaller: share of the crops that are taken at half the size, where a photo allows it.
        held: names of photos, without folder and ending, that are kept out to validate on; none:
            `validation` of them, drawn.
        contexts: fit the context model of the entropy coder at the end; without it bits are stored
            as they are.
    """

    data: str = ""
    network: dict[str, Any] = dataclasses.field(default_factory=lambda: {"preset": "cifar"})
    side: int = 0
    start: str = ""
    classifier: str = ""
    watching: str = ""
    features: tuple[str, ...] = ()
    judge: str = ""
    task: str = "kl"
    task_weight: float = 0.05
    watching_weight: float = 0.0
    feature_weight: float = 0.05
    reconstruction: str = "l2"
    scales: int = 3
    absolute: float = 0.5
    colour_weight: float = 0.0
    later_colour: float = 1.0
    reconstruction_weight: float = 1.0
    later_reconstruction: float = 1.0
    shares: tuple[float, ...] = ()
    rate_weight: float = 0.0
    first_price: float = 1.0
    prices: tuple[float, ...] = ()
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
    smaller: float = 0.4
    held: tuple[str, ...] = ()
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
            "feature_weight": (0, 1000),
            "reconstruction_weight": (0, 1000),
            "later_reconstruction": (0.001, 1000),
            "side": (0, MAX_SIZE),
            "scales": (1, 5),
            "absolute": (0, 1000),
            "colour_weight": (0, 1000),
            "later_colour": (0.001, 1000),
            "rate_weight": (0, 1000),
            "first_price": (0.001, 1000),
            "views": (0, 1),
            "shown_first": (0, 1),
            "later_factor": (0, 1000),
            "hard": (0, 1),
            "crop": (16, 1024),
            "smaller": (0, 1),
            **STEP_RANGES,
        }
        check_ranges(self, ranges)
        object.__setattr__(self, "ramp", tuple(self.ramp))
        object.__setattr__(self, "features", names_of("features", self.features))
        object.__setattr__(self, "held", names_of("held", self.held))
        if len(self.ramp) != 2 or not 0 <= self.ramp[0] <= self.ramp[1] <= 1:
            raise SettingsError(
                f"ramp {self.ramp} is not two rising shares in 0..1", "for example [0.1, 0.4]"
            )
        choices = {
            "reconstruction": RECONSTRUCTIONS,
            "task": TASKS,
            "iterations": ("drawn", "all"),
            "shown": SHOWN,
        }
        check_choices(self, choices)
        count = self.config().iterations
        for name, last in (
            ("shares", self.later_reconstruction),
            ("prices", 1 / self.first_price),
        ):
            object.__setattr__(self, name, _factors(name, getattr(self, name), count))
            if getattr(self, name) and last != 1:
                other = "later_reconstruction" if name == "shares" else "first_price"
                raise SettingsError(f"both {name} and {other} are given", f"omit {other}")

    def factors(self, factors: tuple[float, ...], last: float) -> list[float]:
        """The factor of each iteration: as given, or geometric from 1 to `last`."""
        count = self.config().iterations
        return list(factors) or [last ** (t / max(1, count - 1)) for t in range(count)]

    def config(self) -> RecurrentConfig:
        """The network's configuration, at the side that is asked for.

        Raises:
            SettingsError: impossible values.
        """
        config = RecurrentConfig.from_dict(self.network)
        if self.side:
            config = dataclasses.replace(config, native=self.side)
        side, name = (config.native, "side") if config.native else (self.crop, "crop")
        if side % config.block:
            raise SettingsError(
                f"{name} {side} is no multiple of the block, {config.block}",
                f"use {max(1, round(side / config.block)) * config.block}",
            )
        if self.reconstruction == "ms-ssim" and side >> (self.scales - 1) < 4:
            raise SettingsError(
                f"{self.scales} scales of MS-SSIM need pictures of {4 << (self.scales - 1)} pixels,"
                f" {name} is {side}",
                f"use fewer `scales`, or a larger {name}",
            )
        return config

    @property
    def exact(self) -> bool:
        """Whether pictures of another size are refused: nobody asked for this one."""
        return not self.side and "native" not in self.network


def _factors(name: str, values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """The factors, checked.

    Raises:
        SettingsError: not one number for each iteration, none of them below 0, one above.
    """
    values = tuple(values)
    if not values:
        return values
    fits = all(
        isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1000 for v in values
    )
    if len(values) != count or not fits or not any(values):
        raise SettingsError(
            f"{name} {list(values)} is not a number in 0..1000 for each of {count} iterations,"
            " one above 0 among them"
        )
    return values
