"""What a fit came to: its policy, what was tried, what changed, and what rivals cost under the same
promise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.fitting import bounds
from vizcomp.fitting.candidates import Candidate, Rival, named
from vizcomp.fitting.measure import PhotoVerdict
from vizcomp.fitting.policy import Policy
from vizcomp.fitting.scores import QUANTILE, Aim, Scores
from vizcomp.fitting.search import Tested

STRONGER = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001)  # risks that a stronger statement may have


@dataclasses.dataclass(frozen=True)
class Row:
    """A setting on one part of the sample.

    Attributes:
        part: "explore" or "certify".
        units: looked at.
        bytes: mean of a file.
        loss: mean, of the system that loses most.
        p_value: of the test, None on the explore part; where a test ended early, it is at least
            this.
        passed: the test's verdict, None on the explore part.
    """

    settings: Candidate
    part: str
    units: int
    bytes: float
    loss: float
    p_value: float | None = None
    passed: bool | None = None

    @classmethod
    def of(
        cls, settings: Candidate, part: str, scores: Scores, test: Tested[Candidate] | None = None
    ) -> Row:
        """From scores, and the test that they were for."""
        size = float(scores.sizes.mean())
        value, passed = (None, None) if test is None else (test.p_value, test.passed)
        return cls(settings, part, len(scores.sizes), size, scores.worst, value, passed)


@dataclasses.dataclass(frozen=True)
class RivalRow:
    """What people use, under the same promise and on the same photos of the certify part.

    Attributes:
        title: for people.
        setting: its smallest certified setting; None where none of its qualities holds.
        bytes: mean of a file; None where there is no setting.
        loss: mean, of the system that loses most; None where there is no setting.
        holds: whether it passes the test; plain JPEG as it is stored is shown although it may not.
    """

    title: str
    setting: Rival | None
    bytes: float | None = None
    loss: float | None = None
    holds: bool = False


@dataclasses.dataclass(frozen=True)
class Stronger:
    """What a smaller risk would take.

    Attributes:
        risk: 0..1.
        unchanged: units to certify with, if no answer changed.
        as_seen: the same, if as much is lost as was here; None where that is too much for the risk.
    """

    risk: float
    unchanged: int
    as_seen: int | None


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What a fit came to.

    Attributes:
        policy: the certified setting.
        rows: all settings, first as explored, then as tested.
        rivals: of people's own formats the best certified setting, and plain JPEG as it is stored;
            () where nobody asked.
        worst: photos of the certify part that lose most under the policy, worst first; those that
            lose nothing are left out.
        notices: what a user should know.
        stronger: smaller risks, and how many photos they take.
        seconds: the whole took.
        asked: verdicts that were made, not remembered.
    """

    policy: Policy
    rows: tuple[Row, ...]
    rivals: tuple[RivalRow, ...]
    worst: tuple[PhotoVerdict, ...]
    notices: tuple[str, ...]
    stronger: tuple[Stronger, ...]
    seconds: float
    asked: int

    @property
    def stored(self) -> RivalRow | None:
        """Plain JPEG as people store it."""
        return next(
            (
                one
                for one in self.rivals
                if one.setting is not None and one.setting.codec == "plain"
            ),
            None,
        )

    @property
    def best_rival(self) -> RivalRow | None:
        """Of the rivals that hold, the smallest."""
        held = [
            one
            for one in self.rivals
            if one.holds and one.bytes is not None and one is not self.stored
        ]
        return min(held, key=lambda one: one.bytes or 0, default=None)

    @property
    def compared(self) -> str:
        """The policy's bytes beside those of others, for people; "" where nothing was compared."""
        ours, parts = self.policy.certificate.bytes, []
        if self.stored is not None and self.stored.bytes and self.stored.setting is not None:
            note = (
                ""
                if self.stored.holds
                else f", which does not hold: {100 * (self.stored.loss or 0):.1f}% lost"
            )
            parts.append(f"{_against(ours, self.stored.bytes)} {named(self.stored.setting)}{note}")
        if (
            self.best_rival is not None
            and self.best_rival.bytes
            and self.best_rival.setting is not None
        ):
            parts.append(
                f"{_against(ours, self.best_rival.bytes)} the smallest certified rival,"
                f" {named(self.best_rival.setting)}"
            )
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        worst = [
            {
                "input": one.file.shown,
                "source_bytes": one.source.size,
                "bytes": one.verdict.size,
                "losses": list(one.verdict.losses),
                "source_answers": list(one.source.texts),
                "answers": list(one.verdict.texts),
            }
            for one in self.worst
        ]
        return {
            **self.policy.to_dict(),
            "headline": self.policy.certificate.sentence,
            "compared": self.compared,
            "rows": [
                {**dataclasses.asdict(row), "settings": _settings(row.settings)}
                for row in self.rows
            ],
            "rivals": [
                {
                    **dataclasses.asdict(one),
                    "setting": _settings(one.setting) if one.setting else None,
                }
                for one in self.rivals
            ],
            "worst": worst,
            "stronger": [dataclasses.asdict(one) for one in self.stronger],
            "notices": list(self.notices),
            "seconds": self.seconds,
            "asked": self.asked,
        }


def _settings(one: Candidate) -> dict[str, Any]:
    return one.to_dict() if isinstance(one, DjpegSettings) else dataclasses.asdict(one)


def _against(ours: float, theirs: float) -> str:
    change = ours / theirs - 1
    return f"{abs(100 * change):.0f}% {'smaller' if change <= 0 else 'LARGER'} than"


def stronger(aim: Aim, scores: Scores) -> tuple[Stronger, ...]:
    """What smaller risks would take, by the losses of a setting on the certify part."""
    rows = []
    for risk in STRONGER:
        if risk >= aim.risk:
            continue
        smaller = dataclasses.replace(aim, risk=risk)
        least = bounds.photos_needed(risk, aim.confidence)
        while not smaller.reachable_with(least):  # betting takes a few more
            least += 1
        seen = [
            _as_seen(smaller, losses, binary)
            for losses, binary in zip(scores.losses, aim.binary, strict=True)
        ]
        rows.append(
            Stronger(risk, least, None if None in seen else max(least, *(one or 0 for one in seen)))
        )
    return tuple(rows)


def _as_seen(aim: Aim, losses: Any, binary: bool) -> int | None:
    mean = float(np.mean(losses))
    if mean >= 0.9 * aim.risk:
        return None
    if not binary:
        return math.ceil((QUANTILE * float(np.std(losses)) / (aim.risk - mean)) ** 2)
    units = bounds.photos_needed(aim.risk, aim.confidence)
    for _ in range(60):  # it settles: each step counts the changes that the step before would see
        needed = bounds.photos_needed(aim.risk, aim.confidence, math.ceil(units * mean))
        if needed <= units:
            return units
        units = needed
    return None


def worst_of(rows: Sequence[PhotoVerdict], count: int) -> tuple[PhotoVerdict, ...]:
    """The photos that lose most, worst first; those that lose nothing are left out."""
    lost = [one for one in rows if max(one.verdict.losses) > 0]
    return tuple(sorted(lost, key=lambda one: (-max(one.verdict.losses), one.file.shown))[:count])
