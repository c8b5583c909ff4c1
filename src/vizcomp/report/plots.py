"""The plot of savings: its bars, and where on the page they are. `report.html.j2` draws it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from vizcomp.report.page import count, percent, whole_percent

MAX_NAMED_BARS = 12
"""Up to this many files, the plot has one named bar for each."""

MAX_COLUMNS = 200
"""Up to this many files, the plot has one column for each; beyond, it is a histogram."""

LOWEST = -1.0
"""A file that doubled is at the edge; one that grew tenfold must not flatten the others."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Bar:
    """The savings of one file, as fractions.

    Attributes:
        plain: against optimised plain JPEG.
        name: empty in a histogram, which shows none.
        source: against the source; None where that is unknown.
    """

    plain: float
    name: str
    source: float | None = dataclasses.field(compare=False)

    def tooltip(self) -> str:
        """The name and both savings."""
        source = "" if self.source is None else f", {percent(self.source)} against the source"
        return f"{self.name}: {percent(self.plain)} against optimised JPEG{source}"

    def label(self, characters: int) -> str:
        """The name's last part, cut in its middle: files differ at the ends of their names."""
        name = PurePath(self.name).name or self.name
        if len(name) <= characters:
            return name
        tail = characters // 2
        return name[: characters - tail - 1] + "…" + name[-tail:]


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A scale between its first and its last tick, which are at `start` and `end` on the page."""

    ticks: Sequence[float]
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is; one below `LOWEST` is there."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (self.end - self.start) * (max(value, LOWEST) - low) / (high - low)

    def zero(self, tick: float) -> bool:
        """Whether a tick is zero, whatever the floats say."""
        return abs(tick) < 1e-9

    def odd(self, tick: float) -> bool:
        """Whether a tick is an odd multiple of the step; a narrow page omits its label."""
        return round(tick / (self.ticks[1] - self.ticks[0])) % 2 == 1

    def span(self, value: float) -> tuple[float, float]:
        """Where a bar from zero to a value begins, and how long it is."""
        first, last = sorted((self.at(0), self.at(value)))
        return first, last - first


@dataclasses.dataclass(frozen=True, slots=True)
class Bin:
    """One column of the histogram: its place in slots from the left, its files, its tooltip."""

    kind: str
    slot: float
    files: int
    tooltip: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot of savings.

    Attributes:
        kind: "bars" (named), "columns" or "histogram".
        bars: one for each file with an output, least saving first.
        axis: of savings, or of files in the histogram.
        edges: savings between which the histogram counts.
        bins: of the histogram, empty ones omitted.
        beyond: how many files more than doubled.
    """

    kind: str
    bars: Sequence[Bar]
    axis: Axis
    edges: Sequence[float] = ()
    bins: Sequence[Bin] = ()
    beyond: int

    def description(self) -> str:
        """The plot in words, for those who cannot see it."""
        savings = [bar.plain for bar in self.bars]
        median = statistics.median(savings)
        return (
            f"{count(len(savings), 'file')}. Saving against optimised JPEG: "
            f"least {percent(savings[0])}, median {percent(median)}, most {percent(savings[-1])}."
        )


def savings_plot(bars: Iterable[Bar]) -> Plot | None:
    """The plot that suits so many bars; None without any."""
    bars = sorted(bars)
    if not bars:
        return None
    beyond = sum(bar.plain < LOWEST or (bar.source or 0.0) < LOWEST for bar in bars)
    if len(bars) <= MAX_NAMED_BARS:
        axis = Axis(_saving_ticks(bars, 6), 0, 100)  # percent of the width
        return Plot(kind="bars", bars=bars, axis=axis, beyond=beyond)
    if len(bars) <= MAX_COLUMNS:
        axis = Axis(_saving_ticks(bars, 6), 284, 24)  # pixels from the top
        return Plot(kind="columns", bars=bars, axis=axis, beyond=beyond)
    edges = _saving_ticks(bars, 24)
    bins = [
        *_bins("p", "against optimised JPEG", edges, (bar.plain for bar in bars)),
        *_bins("s", "against the source", edges, (bar.source for bar in bars)),
    ]
    axis = Axis(_count_ticks(max(column.files for column in bins)), 284, 24)
    return Plot(kind="histogram", bars=bars, axis=axis, edges=edges, bins=bins, beyond=beyond)


def _saving_ticks(bars: Sequence[Bar], most: int) -> list[float]:
    """Round savings around those of all bars and zero, in `most` steps or fewer."""
    savings = [bar.plain for bar in bars] + [bar.source for bar in bars if bar.source is not None]
    low, high = max(LOWEST, min(0.0, *savings)), max(0.05, *savings)
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _count_ticks(tallest: int) -> list[float]:
    """Round numbers of files from zero to at or above the tallest column, in 5 steps or fewer."""
    steps = (digit * 10**power for power in range(19) for digit in (1, 2, 5))
    step = next(step for step in steps if tallest <= 5 * step)
    return [step * index for index in range(math.ceil(tallest / step) + 1)]


def _bins(
    kind: str,
    name: str,
    edges: Sequence[float],
    savings: Iterable[float | None],
) -> Iterable[Bin]:
    step = edges[1] - edges[0]
    files = [0] * (len(edges) - 1)
    for saving in savings:
        if saving is not None:
            # 1e-9: a saving of 30% belongs to the bin that starts there, whatever the floats say
            index = int((saving - edges[0]) / step + 1e-9)
            files[min(max(index, 0), len(files) - 1)] += 1
    for index, number in enumerate(files):
        if not number:
            continue
        span = f"{whole_percent(edges[index])} to {whole_percent(edges[index + 1])}"
        if index == 0 and edges[0] <= LOWEST:
            span = f"below {whole_percent(edges[1])}"
        # Two columns share a slot: plain JPEG on the left, the source on the right.
        place = index + (0.1 if kind == "p" else 0.5)
        yield Bin(kind, place, number, f"{span} {name}: {count(number, 'file')}")
