"""A policy on fresh photos: held, broken or undecided."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.errors import SettingsError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.fitting import bounds
from vizcomp.fitting.measure import Bench, Work
from vizcomp.fitting.policy import Policy
from vizcomp.fitting.sample import read_sample
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.opencv import check_decoder

STATES = ("held", "broken", "undecided")


@dataclasses.dataclass(frozen=True)
class CheckedSystem:
    """One system of a policy on fresh photos.

    Attributes:
        changed: units with another answer.
        mean_loss: 0..1.
        upper: bound of the risk from these photos alone, at the policy's confidence.
        evidence_held, evidence_broken: e-values against "the risk is above" and "is at most" the
            certified one. Those of checks on photos drawn one after the other may be multiplied; 20
            speaks with 95% confidence.
    """

    name: str
    changed: int
    mean_loss: float
    upper: float
    evidence_held: float
    evidence_broken: float


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a check came to.

    Attributes:
        state: one of `STATES`: broken where any system's evidence says so, held where that of all
            does.
        units: of fresh photos.
        bytes: mean of a file.
        systems: one for each of the policy.
        notices: what a user should know.
    """

    state: str
    units: int
    bytes: float
    systems: tuple[CheckedSystem, ...]
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return dataclasses.asdict(self)


def check(
    policy: Policy,
    photos: Iterable[InputFile] | Sequence[str | Path],
    *,
    jobs: int = 0,
    engine: str = "local",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    offline: bool = False,
) -> Checked:
    """Test a policy on fresh photos, with e-values: it may be done every day.

    Args:
        policy: from `Policy.read`.
        photos, jobs, engine, max_pixels, offline: as `fit`.

    The photos are decoded as the certificate says.

    Raises:
        SettingsError: a system is not the one that was certified.
        InputError: no photo can be read, or a system gives no answer.
    """
    names = tuple(system.name for system in policy.systems)
    decoder = policy.certificate.decoder
    check_decoder(decoder, (policy.settings.format,))
    work = Work(
        systems=names,
        jobs=jobs,
        engine=engine,
        max_pixels=max_pixels,
        offline=offline,
        decoder=decoder,
    )
    opened = work.open()
    for certified, system in zip(policy.systems, opened, strict=True):
        if system.fingerprint != certified.fingerprint:
            raise SettingsError(
                f"{certified.name} is not the system that was certified: {system.fingerprint}, not"
                f" {certified.fingerprint}",
                "run vizcomp fit for this version of it",
            )
    listed: list[Any] = list(photos)
    files = listed if all(isinstance(one, InputFile) for one in listed) else find_inputs(listed)
    unit = policy.certificate.unit
    sample = read_sample(files, unit=unit, max_pixels=max_pixels)
    bench = Bench(work)
    scores = bench.scores([policy.settings], sample.units)[policy.settings]
    rows = bench.verdicts[policy.settings]
    risk, confidence = policy.certificate.risk, policy.certificate.confidence
    looked = []
    for i, system in enumerate(opened):
        losses = scores.losses[i]
        binary = system.kind == "classes" and unit == "file"
        changed = (
            sum(row.verdict.changed[i] for row in rows)
            if unit == "file"
            else int(np.count_nonzero(losses))
        )
        upper = (
            bounds.binomial_upper(changed, len(losses), confidence)
            if binary
            else bounds.betting_upper(losses, confidence)
        )
        held, broken = (_e_value(losses, risk, above=above) for above in (False, True))
        looked.append(CheckedSystem(names[i], changed, float(losses.mean()), upper, held, broken))
    notices = [policy.other_encoder] if policy.other_encoder else []
    if sample.duplicates:
        notices.append(
            f"{sample.duplicates} photos have the same bytes as another: they count once"
        )
    notices += [f"left out: {reason}" for reason in (*sample.unread, *bench.unread.values())]
    state = _state(looked, confidence)
    return Checked(
        state, len(scores.sizes), float(scores.sizes.mean()), tuple(looked), tuple(notices)
    )


def _e_value(losses: bounds.Losses, risk: float, *, above: bool) -> float:
    return math.exp(min(700.0, bounds.log_e_value(losses, risk, above=above)))


def _state(systems: Sequence[CheckedSystem], confidence: float) -> str:
    """One system is enough to break a policy, so each needs that much more evidence; to hold it
    takes all."""
    level = 1 / (1 - confidence)
    if any(system.evidence_broken >= level * len(systems) for system in systems):
        return "broken"
    return "held" if all(system.evidence_held >= level for system in systems) else "undecided"
