"""Charts of rate against a measure: what is drawn, and where. `charts.html.j2` draws it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vizcomp.evaluation.results import EvalPoint, EvalResult
from vizcomp.report.page import percent, size

WIDTH, HEIGHT = 560, 360
LEFT, RIGHT, TOP, BOTTOM = 56, WIDTH - 14, 16, HEIGHT - 46  # the edges of the plot
FRAME = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": LEFT,
    "right": RIGHT,
    "top": TOP,
    "bottom": BOTTOM,
}
"""The edges of every chart in pixels, for the template."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """A line across the chart, and its label."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A point of a codec; `interval` is the two ends of its bar, downwards from the mark."""

    x: float
    y: float
    tooltip: str
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """A published point; `leftwards` says on which side its name has room."""

    x: float
    y: float
    name: str
    tooltip: str
    leftwards: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart; `curves` has the marks of each codec, and `level` is the line of the sources."""

    title: str
    note: str
    description: str
    sizes: Sequence[Tick]
    values: Sequence[Tick]
    level: Tick | None
    curves: Sequence[Sequence[Mark]]
    references: Sequence[Reference]


LEAST_SHARE, LEAST_PART = 0.1, 0.02  # what a chart shows at least, of a share and of a figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """What a chart shows over bytes.

    Attributes:
        title, note: above the chart.
        value: of a point; None where it was not measured.
        system: name of the system whose intervals are drawn; "" for none.
        sources: the value on the sources; None where it says nothing.
        references: published points: "name", "bytes", "value", "source" of each.
        share: the value is a fraction, shown as percent.
    """

    title: str
    note: str
    value: Callable[[EvalPoint], float | None]
    system: str = ""
    sources: float | None = None
    references: Sequence[Mapping[str, Any]] = ()
    share: bool = False


def by_codec(result: EvalResult) -> dict[str, list[EvalPoint]]:
    """The points of each codec, in their order."""
    series: dict[str, list[EvalPoint]] = {}
    for point in result.points:
        series.setdefault(point.codec, []).append(point)
    return series


def charts(result: EvalResult) -> list[Chart]:
    """A chart for each system, then for PSNR and MS-SSIM where these were measured."""
    series = by_codec(result)
    measures = [_of_system(result, system) for system in result.classifiers]
    for title, note, value in (
        ("PSNR", "dB, mean over images", lambda point: point.psnr),
        ("MS-SSIM", "mean over images", lambda point: point.ms_ssim),
    ):
        measures.append(Measure(title=title, note=note, value=value))
    return [chart for measure in measures if (chart := _chart(measure, series)) is not None]


def _of_system(result: EvalResult, system: Mapping[str, Any]) -> Measure:
    name = str(system["name"])
    accuracy = result.source_accuracy.get(name)
    labelled = accuracy is not None
    kind = "accuracy" if labelled else "agreement"
    title = "F1 against its own boxes" if system["kind"] == "boxes" else "Agreement"
    return Measure(
        title=f"{'Accuracy' if labelled else title} of {name}",
        note="unseen by the codecs" if system["unseen"] else "a codec may know it",
        value=lambda point: (point.accuracy if labelled else point.agreement).get(name),
        system=name,
        sources=accuracy if labelled else 1.0,
        references=[r for r in result.reference_points if r["measure"] == f"{kind}:{name}"],
        share=True,
    )


class _Scales:
    """From bytes (on a scale of ratios) and values to pixels."""

    def __init__(self, sizes: Sequence[float], values: Sequence[float], share: bool) -> None:
        self.share = share
        self.low_size, self.high_size = min(sizes) / 1.15, max(sizes) * 1.15
        self.ticks = _value_ticks(min(values), max(values))
        self.low, self.high = self.ticks[0], max(self.ticks[-1], self.ticks[0] + 1e-9)

    def x(self, size: float) -> float:
        ratio = math.log(size / self.low_size) / math.log(self.high_size / self.low_size)
        return LEFT + (RIGHT - LEFT) * ratio

    def y(self, value: float) -> float:
        return TOP + (BOTTOM - TOP) * (1 - (value - self.low) / (self.high - self.low))

    def text(self, value: float) -> str:
        if self.share:
            return percent(value)
        return f"{value:.4f}" if self.high <= 1.5 else f"{value:.2f}"

    def value_ticks(self) -> list[Tick]:
        labels = (f"{100 * tick:.0f}%" if self.share else f"{tick:.3g}" for tick in self.ticks)
        return [Tick(self.y(tick), label) for tick, label in zip(self.ticks, labels, strict=True)]

    def size_ticks(self) -> list[Tick]:
        ticks = _size_ticks(self.low_size, self.high_size)
        return [Tick(self.x(tick), size(round(tick))) for tick in ticks]


def _chart(measure: Measure, series: Mapping[str, Sequence[EvalPoint]]) -> Chart | None:
    """The chart of a measure; None where nothing was measured and nothing published."""
    curves = {codec: _curve(measure, points) for codec, points in series.items()}
    pairs = [(point.bytes_per_image, value) for curve in curves.values() for point, value in curve]
    pairs += [(reference["bytes"], reference["value"]) for reference in measure.references]
    if not pairs:
        return None
    sizes, values = [size for size, _ in pairs], [value for _, value in pairs]
    level = measure.sources
    shown = _spread(values if level is None else [*values, level], measure.share)
    scales = _Scales(sizes, shown, measure.share)
    ranges = "; ".join(
        f"{codec} {scales.text(min(levels))} to {scales.text(max(levels))}"
        for codec, curve in curves.items()
        if (levels := [value for _, value in curve])
    )
    return Chart(
        title=measure.title,
        note=measure.note,
        description=f"{measure.title} over bytes for each image. {ranges}.",
        sizes=scales.size_ticks(),
        values=scales.value_ticks(),
        level=None if level is None else Tick(scales.y(level), f"sources {scales.text(level)}"),
        curves=[_marks(scales, measure.system, curve) for curve in curves.values()],
        references=[_reference(scales, reference) for reference in measure.references],
    )


def _spread(values: Sequence[float], share: bool) -> list[float]:
    """The values, and one below where they hardly differ: a flat curve is no line at the bottom."""
    least = max(values) - (LEAST_SHARE if share else LEAST_PART * abs(max(values)))
    return [*values, max(least, 0.0)] if min(values) > least else list(values)


def _curve(measure: Measure, points: Sequence[EvalPoint]) -> list[tuple[EvalPoint, float]]:
    """The points at which a measure has a value, with this value."""
    pairs = ((point, measure.value(point)) for point in points)
    return [(point, value) for point, value in pairs if value is not None and math.isfinite(value)]


def _marks(
    scales: _Scales,
    system: str,
    curve: Sequence[tuple[EvalPoint, float]],
) -> list[Mark]:
    return [_mark(scales, system, point, value) for point, value in curve]


def _mark(scales: _Scales, system: str, point: EvalPoint, value: float) -> Mark:
    x, y = scales.x(point.bytes_per_image), scales.y(value)
    figures = f"{point.bytes_per_image:,.1f} bytes, {scales.text(value)}"
    tooltip = f"{point.codec}, {point.setting}: {figures}"
    interval = point.interval.get(system) if system else None
    if interval is None:
        return Mark(x, y, tooltip, None)
    low, high = interval
    tooltip += f" ({scales.text(low)} to {scales.text(high)})"
    above, below = (min(max(scales.y(end), TOP), BOTTOM) - y for end in (high, low))
    return Mark(x, y, tooltip, (above, below))


def _reference(scales: _Scales, reference: Mapping[str, Any]) -> Reference:
    x, name, value = scales.x(reference["bytes"]), reference["name"], reference["value"]
    figures = f"{reference['bytes']:,.0f} bytes, {scales.text(value)}"
    tooltip = f"{name}: {figures} ({reference['source']})"
    return Reference(x, scales.y(value), name, tooltip, leftwards=x > WIDTH * 0.6)


def _size_ticks(low: float, high: float) -> list[float]:
    """Sizes of one digit in between, 1, 2 and 5 of each power of ten or, if many, only 1."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [(digit, digit * 10.0**power) for power in powers for digit in (1, 2, 5)]
    inside = [(digit, tick) for digit, tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return [tick for digit, tick in inside if len(inside) <= 9 or digit == 1]


def _value_ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about six steps."""
    span = max(high - low, 1e-9)
    steps = (digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5))
    step = next((step for step in steps if span / step <= 6), span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]
