"""Classifiers of vizcomp: their configurations, and their networks as layers of an ONNX graph.

`nets.inception`, `nets.watcher` and `nets.whitened` describe the networks and train them; their
weights' names are used here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from vizcomp.errors import SettingsError
from vizcomp.graphs.layers import Layers

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2471, 0.2435, 0.2616)

# A lead in logits below which the mirror image is asked, too. Asking it about all of 5,000 held
# pictures changed no best class, neither as they are nor at JPEG qualities of 30, 12 and 5; it is
# asked about 22% of them as they are, 61% at quality 5.
DOUBT = 2.0
PATCH = 2  # side of a whitened patch


@dataclasses.dataclass(frozen=True)
class InceptionConfig:
    """What an Inception network looks like.

    Attributes:
        width: factor on the number of channels everywhere.
        pool: side of the maximum after the first layer; 1 = none, as published.
        blocks: how many of the published blocks stand at each of the three scales, at most (3, 4,
            2).
        classes: answers.
        dropout: before the last layer, in training.
        mirror: in evaluation, where the answer leads by less than `DOUBT` it is the mean over the
            image and its mirror image.
        mean, std: of each channel, in 0..1; the input is normalised by them inside the network's
            caller.
    """

    width: float = 1.0
    pool: int = 1
    blocks: tuple[int, int, int] = (3, 4, 2)
    classes: int = 10
    dropout: float = 0.5
    mirror: bool = False
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD

    def __post_init__(self) -> None:
        if not 0.05 <= self.width <= 2:
            raise SettingsError(f"inception: width {self.width} is not in 0.05..2")
        if self.pool not in (1, 2):
            raise SettingsError(f"inception: pool {self.pool} is neither 1 nor 2")
        if len(self.blocks) != 3 or any(
            not 1 <= n <= m for n, m in zip(self.blocks, (3, 4, 2), strict=True)
        ):
            raise SettingsError(f"inception: blocks {self.blocks} are not 1..3, 1..4, 1..2")
        if not 2 <= self.classes <= 100_000:
            raise SettingsError(f"inception: {self.classes} classes are not in 2..100000")

    def to_dict(self) -> dict[str, Any]:
        """For model.json."""
        return dataclasses.asdict(self)


PRESETS: dict[str, InceptionConfig] = {
    "full": InceptionConfig(),
    "compact": InceptionConfig(width=0.375, pool=2, blocks=(2, 2, 1), dropout=0.1),
}


@dataclasses.dataclass(frozen=True)
class WatcherConfig:
    """What a watcher looks like.

    Attributes:
        channels: of the three stages.
        classes: answers.
        scale: factor on the logits.
        mean, std: of each channel, in 0..1.
    """

    channels: tuple[int, int, int] = (64, 128, 192)
    classes: int = 10
    scale: float = 0.125
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or not all(4 <= c <= 2048 for c in self.channels):
            raise SettingsError(
                f"watcher: channels {self.channels} are not three numbers in 4..2048"
            )
        if not 2 <= self.classes <= 100_000:
            raise SettingsError(f"watcher: {self.classes} classes are not in 2..100000")

    def to_dict(self) -> dict[str, Any]:
        """For model.json."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class WhitenedConfig:
    """What the network looks like.

    Attributes:
        channels: of the three stages.
        classes: answers.
        scale: factor on the logits.
        mean, std: of each channel, in 0..1.
    """

    channels: tuple[int, int, int] = (64, 256, 256)
    classes: int = 10
    scale: float = 1 / 9
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or not all(24 <= c <= 2048 for c in self.channels):
            raise SettingsError(
                f"whitened: channels {self.channels} are not three numbers in 24..2048"
            )
        if not 2 <= self.classes <= 100_000:
            raise SettingsError(f"whitened: {self.classes} classes are not in 2..100000")

    def to_dict(self) -> dict[str, Any]:
        """For model.json."""
        return dataclasses.asdict(self)


def inception(layers: Layers, x: str, config: InceptionConfig) -> tuple[str, int]:
    """What the last layer sees, (N, w 2048, h, w), and its channels: from a normalised image (N, 3,
    H, W)."""
    width, (many_a, many_c, many_e) = config.width, config.blocks

    def n(published: int) -> int:
        return max(4, round(published * width / 4) * 4)

    unit = layers.convolved
    outs = n(192)
    x = unit(x, "Conv2d_1a_3x3", 3, outs, 3, padding=1)
    if config.pool > 1:
        x = layers.largest(x, config.pool)
    for name, pool in list(zip(("Mixed_5b", "Mixed_5c", "Mixed_5d"), (32, 64, 64), strict=True))[
        :many_a
    ]:
        x, outs = _inception_a(layers, x, name, outs, n, pool)
    x, outs = _inception_b(layers, x, "Mixed_6a", outs, n)
    middles = list(
        zip(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), (128, 160, 160, 192), strict=True)
    )
    for name, middle in middles[:many_c]:
        x, outs = _inception_c(layers, x, name, outs, n, middle)
    x, outs = _inception_d(layers, x, "Mixed_7a", outs, n)
    for name in ("Mixed_7b", "Mixed_7c")[:many_e]:
        x, outs = _inception_e(layers, x, name, outs, n)
    return x, outs


Count = Callable[[int], int]


def _inception_a(layers: Layers, x: str, at: str, ins: int, n: Count, pool: int) -> tuple[str, int]:
    unit = layers.convolved
    one = unit(x, f"{at}.branch1x1", ins, n(64), 1)
    five = unit(x, f"{at}.branch5x5_1", ins, n(48), 1)
    five = unit(five, f"{at}.branch5x5_2", n(48), n(64), 5, padding=2)
    three = unit(x, f"{at}.branch3x3dbl_1", ins, n(64), 1)
    three = unit(three, f"{at}.branch3x3dbl_2", n(64), n(96), 3, padding=1)
    three = unit(three, f"{at}.branch3x3dbl_3", n(96), n(96), 3, padding=1)
    pooled = unit(x, f"{at}.branch_pool", ins, n(pool), 1, pool="mean")
    return layers.joined([one, five, three, pooled]), n(64) + n(64) + n(96) + n(pool)


def _inception_b(layers: Layers, x: str, at: str, ins: int, n: Count) -> tuple[str, int]:
    unit = layers.convolved
    three = unit(x, f"{at}.branch3x3", ins, n(384), 3, stride=2)
    double = unit(x, f"{at}.branch3x3dbl_1", ins, n(64), 1)
    double = unit(double, f"{at}.branch3x3dbl_2", n(64), n(96), 3, padding=1)
    double = unit(double, f"{at}.branch3x3dbl_3", n(96), n(96), 3, stride=2)
    return layers.joined([three, double, layers.largest(x, 3)]), n(384) + n(96) + ins


def _inception_c(
    layers: Layers, x: str, at: str, ins: int, n: Count, middle: int
) -> tuple[str, int]:
    across: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
    down: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
    unit, m = layers.convolved, n(middle)
    one = unit(x, f"{at}.branch1x1", ins, n(192), 1)
    seven = unit(x, f"{at}.branch7x7_1", ins, m, 1)
    seven = unit(seven, f"{at}.branch7x7_2", m, m, **across)
    seven = unit(seven, f"{at}.branch7x7_3", m, n(192), **down)
    double = unit(x, f"{at}.branch7x7dbl_1", ins, m, 1)
    for number, (outs, how) in enumerate(((m, down), (m, across), (m, down), (n(192), across)), 2):
        double = unit(double, f"{at}.branch7x7dbl_{number}", m, outs, **how)
    pooled = unit(x, f"{at}.branch_pool", ins, n(192), 1, pool="mean")
    return layers.joined([one, seven, double, pooled]), 4 * n(192)


def _inception_d(layers: Layers, x: str, at: str, ins: int, n: Count) -> tuple[str, int]:
    unit = layers.convolved
    three = unit(x, f"{at}.branch3x3_1", ins, n(192), 1)
    three = unit(three, f"{at}.branch3x3_2", n(192), n(320), 3, stride=2)
    seven = unit(x, f"{at}.branch7x7x3_1", ins, n(192), 1)
    seven = unit(seven, f"{at}.branch7x7x3_2", n(192), n(192), (1, 7), padding=(0, 3))
    seven = unit(seven, f"{at}.branch7x7x3_3", n(192), n(192), (7, 1), padding=(3, 0))
    seven = unit(seven, f"{at}.branch7x7x3_4", n(192), n(192), 3, stride=2)
    return layers.joined([three, seven, layers.largest(x, 3)]), n(320) + n(192) + ins


def _inception_e(layers: Layers, x: str, at: str, ins: int, n: Count) -> tuple[str, int]:
    unit = layers.convolved
    one = unit(x, f"{at}.branch1x1", ins, n(320), 1)
    three = unit(x, f"{at}.branch3x3_1", ins, n(384), 1)
    double = unit(x, f"{at}.branch3x3dbl_1", ins, n(448), 1)
    double = unit(double, f"{at}.branch3x3dbl_2", n(448), n(384), 3, padding=1)
    forks = [
        unit(source, f"{at}.{name}{side}", n(384), n(384), kernel, padding=padding)
        for source, name in ((three, "branch3x3_2"), (double, "branch3x3dbl_3"))
        for side, kernel, padding in (("a", (1, 3), (0, 1)), ("b", (3, 1), (1, 0)))
    ]
    pooled = unit(x, f"{at}.branch_pool", ins, n(192), 1, pool="mean")
    return layers.joined([one, *forks, pooled]), n(320) + 4 * n(384) + n(192)


def watcher(layers: Layers, x: str, config: WatcherConfig) -> str:
    """What the last layer sees, (N, c3, H / 8, W / 8): from a normalised image (N, 3, H, W)."""
    unit = layers.convolved
    outs = config.channels[0] // 2
    x = unit(x, "stem", 3, outs, 4, stride=2, padding=1)
    for index, channels in enumerate(config.channels):
        at = f"stages.{index}"
        x = unit(x, f"{at}.enter", outs, channels, 3, padding=1, pool="max2" if index else "")
        y = unit(x, f"{at}.first", channels, channels, 3, padding=1)
        y = unit(y, f"{at}.second", channels, channels, 3, padding=1)
        x, outs = layers.node("Add", x, y), channels
    return x


def whitened(layers: Layers, x: str, config: WhitenedConfig) -> str:
    """What the last layer sees, (N, c3, 3, 3) of 32x32: from a normalised image (N, 3, H, W)."""
    outs = 6 * PATCH * PATCH
    x = layers.gelu(layers.plain(x, "patches", 3, outs, PATCH))
    how: dict[str, Any] = {"padding": 1, "epsilon": 1e-5, "activation": "Gelu"}
    for index, channels in enumerate(config.channels):
        at = f"stages.{index}"
        x = layers.convolved(
            x, at, outs, channels, 3, names=("first", "norms.0"), pool="max2", **how
        )
        x = layers.convolved(x, at, channels, channels, 3, names=("second", "norms.1"), **how)
        outs = channels
    return x


Config = InceptionConfig | WatcherConfig | WhitenedConfig
ARCHITECTURES = ("inception", "inception-full", "watcher", "whitened")


def configured(architecture: str, config: dict[str, Any] | None = None) -> Config:
    """The configuration of an architecture.

    Args:
        architecture: one of `ARCHITECTURES`.
        config: fields that differ from the preset.

    Raises:
        SettingsError: an unknown architecture or field, or a value out of range.
    """
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in (config or {}).items()
    }
    try:
        if architecture == "watcher":
            return WatcherConfig(**values)
        if architecture == "whitened":
            return WhitenedConfig(**values)
        if architecture in ("inception", "inception-full"):
            preset = PRESETS["full" if architecture == "inception-full" else "compact"].to_dict()
            return InceptionConfig(**{**preset, **values})
    except (TypeError, ValueError) as exc:
        raise SettingsError(f"{architecture}: the configuration does not fit: {exc}") from exc
    raise SettingsError(
        f"unknown architecture {architecture!r}", f"use one of {', '.join(ARCHITECTURES)}"
    )


def classified(layers: Layers, x: str, config: Config) -> tuple[str, str]:
    """What the last layer sees, and the logits (N, classes): from a normalised image (N, 3, H,
    W)."""
    if isinstance(config, InceptionConfig):
        seen, outs = inception(layers, x, config)
        return seen, layers.answered(seen, outs, config.classes, how="Mean", bias=True)
    seen = (
        watcher(layers, x, config)
        if isinstance(config, WatcherConfig)
        else whitened(layers, x, config)
    )
    return seen, layers.answered(
        seen, config.channels[-1], config.classes, how="Max", bias=False, scale=config.scale
    )
