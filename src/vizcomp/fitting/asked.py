"""What is asked of a fit, and what of its sample makes it impossible."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence

from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.fitting import bounds
from vizcomp.fitting.measure import Bench
from vizcomp.fitting.policy import percent
from vizcomp.fitting.sample import Sample, Unit
from vizcomp.fitting.scores import EXPLORE_FEWEST, EXPLORE_LEAST, Aim
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.photo import load
from vizcomp.vision.one_answer import about_all
from vizcomp.vision.system import System


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What is asked of a fit; see `fit`.

    Raises:
        SettingsError: a value is out of its range.
    """

    risk: float = 0.01
    confidence: float = 0.95
    unit: str = "file"
    by: str = ""
    labels: str = ""
    format: str = "auto"
    readers: str = ""
    kinds: bool = True
    keep_sides: bool = False
    rivals: bool = True
    budget: float | None = None
    resume: bool = False
    jobs: int = 0
    engine: str = "local"
    max_pixels: int = DEFAULT_MAX_PIXELS
    offline: bool = False
    decoder: str = "pillow"

    def __post_init__(self) -> None:
        if not 0 < self.risk < 1:
            raise SettingsError(
                f"a risk of {percent(self.risk)} cannot be certified",
                "use one between 0% and 100%, as `risk` 1%",
            )
        if not 0.5 <= self.confidence < 1:
            raise SettingsError(
                f"a confidence of {percent(self.confidence)} says nothing",
                "use 50% or more, below 100%",
            )
        if self.budget is not None and self.budget <= 0:
            raise SettingsError(
                "the budget must be more than no time", "write it as `budget` 30min"
            )
        if self.by and self.unit == "folder":
            raise SettingsError(
                "`by` folder and `unit` folder contradict each other",
                "a folder is either what is drawn, as a clip, or where photos are drawn from, as a"
                " camera",
            )


def refuse_too_few(sample: Sample, count: int, aim: Aim, asked: FitSettings) -> None:
    """Refuse to pretend where even no change at all would not be enough."""
    what = "photos" if asked.unit == "file" else "folders"
    needed = bounds.photos_needed(aim.risk, aim.confidence)
    while not aim.reachable_with(needed):  # betting needs a few more
        needed += 1
    total = needed + max(EXPLORE_FEWEST, math.ceil(needed * EXPLORE_LEAST / (1 - EXPLORE_LEAST)))
    least = 1 - (1 - aim.confidence) ** (1 / count) if count else 1.0
    readable = [unit for unit in sample.units if _readable(unit, asked.max_pixels)]
    unread = len(sample.unread) + len(sample.units) - len(readable)
    beside = [f"{sample.duplicates} more have the same bytes as another"] * (sample.duplicates > 0)
    beside += [f"{unread} more cannot be read"] * (unread > 0)
    twins = f" ({', '.join(beside)})" if beside else ""
    each = " in one folder at least" if asked.by else " in all"
    raise InputError(
        f"{len(readable)} different {what} are too few{twins}: {percent(aim.risk)} at"
        f" {percent(aim.confidence)} needs {needed} unchanged to certify with, about {total}{each}",
        f"add {what}" + (f", or ask for a `risk` above {percent(least)}" if count > 1 else ""),
    )


def _readable(unit: Unit, max_pixels: int) -> bool:
    """Whether a photo of a unit can be decoded: a header says too little of a file that was cut
    off."""
    for file in unit.files:
        with contextlib.suppress(VizcompError, MemoryError, OSError):
            load(file.path, max_pixels=max_pixels)
            return True
    return False


def about_answers(bench: Bench, systems: Sequence[System]) -> list[str]:
    """What the answers on the sources say of the certificate to come.

    Raises:
        InputError: a system finds nothing on any photo, or does not look at them.
    """
    notices = []
    if blind := bench.one_answer(bench.sources, blind=True):
        name, one = next(iter(blind.items()))
        raise InputError(
            f"{name} answers all {one['photos']:,} photos that were looked at with the very same"
            " numbers: it does not look at them, and a certificate would prove nothing",
            "look at how the model is read, or give another system",
        )
    for system, share in zip(systems, bench.empty(), strict=True):
        if share == 1:
            raise InputError(
                f"{system.name} finds nothing on any photo that was looked at: there is no answer"
                " to keep",
                "give photos with something to find, or look at how the model is read",
            )
        if share > 0:
            notices.append(
                f"{system.name} finds nothing on {percent(round(share, 3))} of the photos: no box"
                " there is no change"
            )
    return notices + about_all(bench.one_answer(bench.sources))
