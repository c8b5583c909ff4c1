"""A policy on fresh photos: held, broken or undecided; day after day, if one likes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.files.place import cache_folder, printable
from vizcomp.files.write import write_atomic
from vizcomp.fitting import bets, bounds
from vizcomp.fitting.measure import Bench, Watch, Work
from vizcomp.fitting.policy import Policy
from vizcomp.fitting.sample import Sample, UsedPhotos, read_sample
from vizcomp.fitting.truth import read_truths
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.opencv import check_decoder
from vizcomp.vision.one_answer import about_all
from vizcomp.vision.system import System

STATES = ("held", "broken", "undecided")


@dataclasses.dataclass(frozen=True)
class CheckedSystem:
    """One system of a policy on fresh photos.

    Attributes:
        changed: units with another answer.
        mean_loss: 0..1.
        upper: bound of the risk from these photos alone, at the policy's confidence.
        evidence_held, evidence_broken: e-values against "the risk is above" and "is at most" the
            certified one, those of all checks so far multiplied; 20 speaks with 95% confidence.
        one_answer: as of `CertifiedSystem`, on these photos.
    """

    name: str
    changed: int
    mean_loss: float
    upper: float
    evidence_held: float
    evidence_broken: float
    one_answer: str = ""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a check came to.

    Attributes:
        state: one of `STATES`: broken where any system's evidence says so, held where that of all
            does.
        units: of fresh photos.
        bytes: mean of a file.
        systems: one for each of the policy.
        checks, units_so_far: how many checks the evidence is of, this one included, and of how many
            units.
        notices: what a user should know.
    """

    state: str
    units: int
    bytes: float
    systems: tuple[CheckedSystem, ...]
    checks: int
    units_so_far: int
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return dataclasses.asdict(self)


def check(
    policy: Policy,
    photos: Iterable[InputFile] | Sequence[str | Path],
    *,
    labels: str = "",
    once: bool = False,
    jobs: int = 0,
    engine: str = "local",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    offline: bool = False,
    on_progress: Any = lambda text: None,
) -> Checked:
    """Test a policy on fresh photos, with e-values: it may be done every day, and what earlier days
    showed counts.

    Args:
        policy: from `Policy.read`.
        labels: as `fit`; needed where the policy is about labels.
        once: neither count earlier checks nor remember this one.
        photos, jobs, engine, max_pixels, offline, on_progress: as `fit`. Photos that the fit or an
            earlier check looked at are left out. They are decoded as the certificate says.

    Raises:
        SettingsError: a system is not the one that was certified; labels are missing, or not asked
            for.
        InputError: no photo can be read or is fresh, or a system gives no answer.
    """
    names = tuple(system.name for system in policy.systems)
    decoder = policy.certificate.decoder
    check_decoder(decoder, (policy.settings.format,))
    more = {"max_pixels": max_pixels, "offline": offline, "decoder": decoder}
    work = Work(systems=names, jobs=jobs, engine=engine, **more)  # type: ignore[arg-type]
    opened = work.open()
    _check_systems(policy, opened)
    _check_labels(policy, labels)
    files = _files(photos)
    notices = [policy.other_encoder] if policy.other_encoder else []
    if labels:
        files = list(files)
        truths = read_truths(labels, files)
        notices += truths.notices
        files = [one for one in files if one in truths.by_file]
        work = dataclasses.replace(work, truths=truths.by_file)
    sample = read_sample(files, unit=policy.certificate.unit, max_pixels=max_pixels)
    log = _Log(policy, read=not once)
    units, said = _fresh(
        sample, log, UsedPhotos([f"{system.kind} {system.fingerprint}" for system in opened])
    )
    notices += said
    bench = Bench(work)
    scores = bench.scores(
        [policy.settings],
        units,
        Watch(lambda done, all: on_progress(f"check: {done:,} of {all:,} answers")),
    )[policy.settings]
    rows = bench.rows(policy.settings, units)
    worse = [sum(row.verdict.changed[i] for row in rows) for i in range(len(opened))]
    if policy.certificate.unit == "folder":
        worse = [int(np.count_nonzero(losses)) for losses in scores.losses]
    risk, confidence = policy.certificate.risk, policy.certificate.confidence
    today = [
        [bounds.log_e_value(losses, risk, above=above) for losses in scores.losses]
        for above in (False, True)
    ]
    log.add(today, len(scores.sizes), worse, [unit.digest for unit in units])
    if not once:
        log.write()
    one_answer = bench.one_answer(bench.sources)
    looked = []
    for i, system in enumerate(opened):
        evidence, always = [e[i] for e in log.evidence], one_answer.get(names[i], {})
        one = _checked(policy, system, names[i], scores.losses[i], worse[i], evidence)
        looked.append(dataclasses.replace(one, one_answer=always.get("answer", "")))
    notices += about_all(one_answer)
    notices += _passed_over(sample, bench)
    state, mean = _state(log, confidence), float(scores.sizes.mean())
    days, asked = len(log.days), len(scores.sizes)
    return Checked(state, asked, mean, tuple(looked), days, log.units, tuple(notices))


def _files(photos: Iterable[InputFile] | Sequence[str | Path]) -> Iterable[InputFile]:
    listed: list[Any] = list(photos)
    return listed if all(isinstance(one, InputFile) for one in listed) else find_inputs(listed)


def _passed_over(sample: Sample, bench: Bench) -> list[str]:
    said = [f"left out: {reason}" for reason in (*sample.unread, *bench.unread.values())]
    if sample.duplicates:
        said.insert(
            0, f"{sample.duplicates} photos have the same bytes as another: they count once"
        )
    return said


def _check_labels(policy: Policy, labels: str) -> None:
    if bool(labels) == bool(policy.certificate.labels):
        return
    wrong = (
        "is about labels: give `labels` of these photos"
        if policy.certificate.labels
        else "is not about `labels`: omit them"
    )
    raise SettingsError(f"the policy {wrong}", "see its [certificate]")


def _checked(
    policy: Policy,
    system: System,
    name: str,
    losses: npt.NDArray[Any],
    worse: int,
    evidence: Sequence[float],
) -> CheckedSystem:
    """A system by these photos, and the evidence of all days."""
    confidence = policy.certificate.confidence
    if system.kind == "classes" and policy.certificate.unit == "file":
        upper = bounds.binomial_upper(worse, len(losses), confidence)
    else:
        upper = bets.betting_upper(losses, confidence)
    held, broken = (math.exp(min(700.0, one)) for one in evidence)
    return CheckedSystem(name, worse, float(losses.mean()), upper, held, broken)


def _check_systems(policy: Policy, opened: Sequence[System]) -> None:
    for certified, system in zip(policy.systems, opened, strict=True):
        if system.fingerprint != certified.fingerprint:
            raise SettingsError(
                f"{certified.name} is not the system that was certified: {system.fingerprint}, not"
                f" {certified.fingerprint}",
                "run vizcomp fit for this version of it",
            )


def _fresh(sample: Sample, log: _Log, used: UsedPhotos) -> tuple[list[Any], list[str]]:
    """The units that neither a fit nor an earlier check looked at, and what to say of the
    others."""
    said = []
    unused = used.fresh(sample.units)
    if gone := len(sample.units) - len(unused):
        said.append(
            f"{gone} photos were used by a fit for these systems: they are not fresh, and are"
            " left out"
        )
    units = [unit for unit in unused if unit.digest not in log.photos]
    if gone := len(unused) - len(units):
        said.append(f"{gone} photos were checked before: they count once")
    if not units:
        raise InputError(
            f"none of the {len(sample.units)} photos is fresh: " + "; ".join(said),
            "give photos that were not looked at before",
        )
    return units, said


class _Log:
    """The checks of a policy so far, in the cache folder.

    Attributes:
        days: each check: its date, units, changed answers, and logarithms of e-values.
        photos: hashes of what was looked at.
    """

    def __init__(self, policy: Policy, *, read: bool) -> None:
        self._path = cache_folder() / "fit" / f"checks-{policy.checksum}.json"
        self.days: list[dict[str, Any]] = []
        self.photos: set[str] = set()
        if read and self._path.exists():
            try:
                there = json.loads(self._path.read_bytes())
                self.days, self.photos = list(there["days"]), set(there["photos"])
                self._sums()
            except (OSError, ValueError, TypeError, KeyError, IndexError) as exc:
                hint = "remove it; earlier checks are then forgotten"
                raise InputError(f"{printable(self._path)} cannot be read: {exc}", hint) from exc

    def add(
        self, evidence: list[list[float]], units: int, changed: list[int], photos: Sequence[str]
    ) -> None:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.days.append(
            {
                "date": date,
                "units": units,
                "changed": changed,
                "held": evidence[0],
                "broken": evidence[1],
            }
        )
        self.photos |= set(photos)

    def write(self) -> None:
        write_atomic(
            self._path, json.dumps({"days": self.days, "photos": sorted(self.photos)}).encode()
        )

    def _sums(self) -> tuple[Any, Any]:
        """Running sums of the logarithms, (checks, systems) each: products of e-values of photos
        drawn one after the other."""
        held, broken = (
            np.cumsum(np.array([day[name] for day in self.days], float), 0)
            for name in ("held", "broken")
        )
        return held, broken

    @property
    def evidence(self) -> tuple[list[float], list[float]]:
        """Of each system, the logarithms of the evidence for held and for broken, of all checks."""
        held, broken = self._sums()
        return held[-1].tolist(), broken[-1].tolist()

    @property
    def peaks(self) -> tuple[list[float], list[float]]:
        """The same, each at its highest: who looks every day may stop there (Ville's
        inequality)."""
        held, broken = self._sums()
        return held.max(0).tolist(), broken.max(0).tolist()

    @property
    def units(self) -> int:
        return sum(int(day["units"]) for day in self.days)


def _state(log: _Log, confidence: float) -> str:
    """One system is enough to break a policy, so each needs that much more evidence; to hold it
    takes all."""
    level = -math.log(1 - confidence)
    held, broken = log.peaks
    if any(one >= level + math.log(len(broken)) for one in broken):
        return "broken"
    return "held" if all(one >= level for one in held) else "undecided"
