"""A setting that passed, and what the certify part said of it, as a policy with its certificate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.fitting.asked import FitSettings
from vizcomp.fitting.candidates import Candidate
from vizcomp.fitting.measure import PhotoVerdict
from vizcomp.fitting.policy import Certificate, CertifiedSystem, Policy, Stratum, loss_of
from vizcomp.fitting.sample import Unit, sample_digest
from vizcomp.fitting.scores import Aim, Scores
from vizcomp.fitting.search import Tested
from vizcomp.vision.one_answer import Heard
from vizcomp.vision.system import System


def policy_of(
    best: Tested[Candidate],
    rows: Sequence[PhotoVerdict],
    *,
    asked: FitSettings,
    aim: Aim,
    units: Sequence[Unit],
    systems: Sequence[System],
    names: Sequence[str],
    strata: Sequence[str],
    labels: str,
    date: str,
) -> Policy:
    """The policy.

    Args:
        best: the setting, one of djpeg's, and its scores on the certify part.
        rows: each photo's verdict under it.
        units: of the certify part.
        systems, names: who looked, and by which names they were asked for.
        strata: names of the groups of the scores; () where there are none.
        labels, date: of the certificate; no labels have the hash "".
    """
    scores, setting = best.scores, best.setting
    assert isinstance(setting, DjpegSettings)
    worse = np.array([row.verdict.changed for row in rows]).T  # (systems, photos)
    if asked.unit == "folder":  # units in which any answer changed, which is what the sample counts
        worse = scores.losses > 0
    groups, uppers = scores.group_of, aim.uppers(scores)
    certificate = Certificate(
        risk=aim.risk,
        confidence=aim.confidence,
        photos=len(scores.sizes),
        changed=int(worse.sum(1).max()),
        bound=round(max(uppers), 6),
        date=date,
        loss=" and ".join(
            dict.fromkeys(loss_of(system.kind, labels=bool(labels)) for system in systems)
        ),
        mean_loss=round(scores.worst, 6),
        unit=asked.unit,
        sample=sample_digest(units),
        bytes=round(float(np.mean([row.verdict.size for row in rows]))),
        source_bytes=round(float(np.mean([row.source.size for row in rows]))),
        decoder=asked.decoder,
        by=asked.by,
        labels=labels,
        test=aim.test,
    )
    certified = []
    for i, system in enumerate(systems):
        right = [(row.source.right[i], row.verdict.right[i]) for row in rows] if labels else []
        on_sources, on_results = np.mean(right, axis=0) if right else (-1.0, -1.0)
        certified.append(
            CertifiedSystem(
                name=names[i],
                fingerprint=system.fingerprint,
                reading=str(getattr(system, "reading", "")),
                kind=system.kind,
                changed=int(worse[i].sum()),
                mean_loss=round(float(scores.losses[i].mean()), 6),
                right_on_sources=round(float(on_sources), 6),
                right_on_results=round(float(on_results), 6),
                one_answer=_one_answer([row.source.said for row in rows], i),
            )
        )
    parts = tuple(
        _stratum(name, groups == i, worse, scores, uppers[i]) for i, name in enumerate(strata)
    )
    return Policy(settings=setting, certificate=certificate, systems=tuple(certified), strata=parts)


def _stratum(
    name: str, mine: npt.NDArray[Any], worse: npt.NDArray[Any], scores: Scores, bound: float
) -> Stratum:
    """One folder's own figures: those of its units, which `mine` marks."""
    return Stratum(
        name=name,
        photos=int(mine.sum()),
        changed=int(worse[:, mine].sum(1).max()),
        mean_loss=round(float(scores.losses[:, mine].mean(1).max()), 6),
        bound=round(bound, 6),
    )


def _one_answer(said: Sequence[tuple[str, ...]], place: int) -> str:
    """What one system answers on all of some different photos; "" where answers differ."""
    heard = Heard()
    for number, one in enumerate(said):
        heard.add(one[place] if one else str(number), number)
    return heard.answer if heard.always else ""
