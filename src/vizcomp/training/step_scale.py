"""How fine steps must be under a guide, so that a quality keeps what plain JPEG of it keeps.

    photo ── d-JPEG under the guide, at seven sizes of its steps ──┐
          └─ plain JPEG at the same sizes ─────────────────────────┴─ how far answers moved
                                                                           └── one factor

What a guide takes from some places moves a system's answers; finer steps everywhere else bring them
back. `djpeg.encoder.STEP_SCALES` has the factors of the bundled guides; this measures that of any
other one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg.compress import Prepared
from vizcomp.djpeg.settings import DjpegSettings, steps_of
from vizcomp.errors import VizcompError
from vizcomp.fitting.moves import moved
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.photo import decode_jpeg, in_memory
from vizcomp.vision.answers import is_empty
from vizcomp.vision.system import System
from vizcomp.vision.systems import open_system

STEPS = (0.6, 0.71, 0.84, 1.0, 1.19, 1.41, 1.68)
"""Factors on the steps of quality 50 at which files are made; the mean of their logarithms is 0."""
PLAIN = (70, 64, 58, 50, 42, 35, 30)
"""Qualities of plain JPEG whose steps are as large."""
FEWEST = 5  # photos on which there is something to keep
MOST_ERROR = 0.15  # of the factor's logarithm, one standard error: more is no measurement
DRAWS = 400  # of photos, for that error
SURE = 0.975  # share of the draws in which answers must move more with coarser steps
LEAST = 0.1  # score of a detector's boxes that count here

OWN = "measured.onnx"  # a name for a guide whose map is in hand

Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepScale:
    """A factor on all steps.

    Attributes:
        value: the factor; 1 where it could not be measured.
        error: one standard error of its logarithm; None where it could not be measured.
        photos: on which there was something to keep.
        why: why it could not be measured; "" where it was.
    """

    value: float = 1.0
    error: float | None = None
    photos: int = 0
    why: str = ""

    def words(self) -> str:
        """For people: "0.83 (± 6%, 12 photos)"."""
        if self.error is None:
            return f"1, not measured: {self.why}"
        return f"{self.value:.2f} (± {100 * self.error:.0f}%, {self.photos} photos)"


def quality_of(steps: float) -> float:
    """The quality with so many times the steps of quality 50: the inverse of `steps_of`."""
    return 50 / steps if steps > 1 else 50 * (2 - steps)


def step_scale(own: Array, plain: Array, *, seed: int = 0) -> StepScale:
    """The factor at which answers move as far as under plain JPEG, in the mean over photos.

    How far they move is near a line over the logarithm of the steps, and the lines of both are
    near parallel: how far they are apart, over their slope, is the factor's logarithm. The error is
    that of a bootstrap over photos.

    Args:
        own: float64 (N, 7), how far the answers of N photos moved under the guide at `STEPS`.
        plain: float64 (N, 7), the same of plain JPEG at `PLAIN`.
        seed: of the draws.
    """
    count = len(own)
    if count < FEWEST:
        what = "1 photo has" if count == 1 else f"{count or 'no'} photos have"
        return StepScale(photos=count, why=f"{what} something to keep, {FEWEST} are needed")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    weights = np.vstack([np.ones(count), drawn]) / count  # row 0: the photos themselves
    x, y = np.log(STEPS), np.log([steps_of(quality) for quality in PLAIN])
    mine, theirs = weights @ own, weights @ plain  # (1 + DRAWS, 7)
    slopes = (_slopes(x, mine) + _slopes(y, theirs)) / 2
    if slopes[0] <= 0 or (slopes[1:] > 0).mean() < SURE:
        return StepScale(photos=count, why="answers hardly move with the quality")
    apart = theirs.mean(1) - mine.mean(1)
    logs = x.mean() - y.mean() + apart / np.maximum(slopes, slopes[0] / 4)
    error = float(logs[1:].std())
    if error > MOST_ERROR:
        return StepScale(
            photos=count,
            why=f"{count} photos tell it to ± {100 * error:.0f}% only",
        )
    value = float(np.clip(math.exp(logs[0]), STEPS[0], STEPS[-1]))
    return StepScale(value=round(value, 3), error=round(error, 4), photos=count)


def _slopes(x: Array, rows: Array) -> Array:
    """Of each row (K,) over x (K,)."""
    x = x - x.mean()
    return np.asarray(rows @ x / (x @ x))


def finest(scales: Sequence[StepScale]) -> StepScale:
    """The smallest of those that were measured, so that each system keeps its answers; the first
    where none was."""
    known = [one for one in scales if one.error is not None]
    return min(known, key=lambda one: one.value) if known else scales[0]


def moves(
    image: Pixels, make: Callable[[float], bytes], systems: Sequence[System]
) -> list[Array | None]:
    """How far each system's answer on a photo moves: under the guide at `STEPS`, then under plain
    JPEG at `PLAIN`, float64 (14,); None where there is nothing to keep.

    Args:
        image: uint8 (H, W, 3).
        make: a file under the guide at a quality.
    """
    files = [make(quality_of(steps)) for steps in STEPS]
    files += [encode_plain_jpeg(image, quality=quality) for quality in PLAIN]
    results = [decode_jpeg(data) for data in files]
    found: list[Array | None] = []
    for system in systems:
        truth, *answers = system.answers([image, *results])
        empty = is_empty(truth)
        found.append(None if empty else np.array([moved(truth, answer) for answer in answers]))
    return found


def guided(image: Pixels, field: Field, settings: DjpegSettings) -> Prepared:
    """A photo in memory, under a guide `OWN` whose answer on it is there.

    Args:
        image: uint8 (H, W, 3).
        field: float32 (h, w) in 0..1 over all of it.
        settings: whose guide is `OWN`, perhaps beside others.
    """
    return Prepared(in_memory(image), settings, looked={OWN: field})


def softer(name: str, system: System) -> System:
    """A detector that tells too what it is little sure of; any other system as it is.

    Few boxes come and go between two qualities, but all their scores move: with the weak ones a
    fifth of the photos tells the same.

    Args:
        name: by which the system was opened.
    """
    if system.kind != "boxes":
        return system
    place, colon, text = name.rpartition(":")
    if not colon or "=" not in text:
        place, text = name, ""
    kept = [one for one in text.split(",") if one and not one.startswith("least=")]
    try:
        return open_system(f"{place}:{','.join([*kept, f'least={LEAST}'])}")
    except VizcompError:  # it has no such option
        return system


def measured(
    photos: Sequence[Sequence[Pixels]],
    guide: Callable[[Pixels], Field],
    systems: Sequence[Any],
    *,
    seed: int = 0,
) -> list[StepScale]:
    """The factor of a guide, by each of the systems.

    Args:
        photos: of each photo that the guide has not learned from, itself and views of it, uint8
            (H, W, 3).
        guide: where they matter, float32 (h, w) in 0..1.
        systems: whose answers are to be kept.
        seed: of the draws of photos.
    """
    settings = DjpegSettings(guide=OWN)
    rows: list[list[Array]] = [[] for _ in systems]
    for views in photos:
        looked = [
            moves(image, guided(image, guide(image), settings).at, systems) for image in views
        ]
        for mine, found in zip(rows, zip(*looked, strict=True), strict=True):
            there = [row for row in found if row is not None]
            mine += [np.mean(there, axis=0)] if there else []
    files = len(STEPS)
    return [
        step_scale(table[:, :files], table[:, files:], seed=seed)
        for table in (np.array(mine, float).reshape(-1, files + len(PLAIN)) for mine in rows)
    ]
