"""The search for the bits of an image at encode time."""

from __future__ import annotations

import dataclasses

from vizcomp.errors import SettingsError

ROUND = 8  # candidates decoded together when an answer is restored,
MEND = 64  # at most this many candidates an image
MEND_TASK = 0.5  # weight of the divergence there: the answer first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """The objective of the search at encode time, to be minimised: error + task * divergence + rate * bits.

    Attributes:
        task: weight of the divergence of the classifier's answer, in nats.
        rate: weight of a bit.
        least: smallest probability that a bit is tried the other way.
    """

    task: float = 2.0
    rate: float = 0.0005
    least: float = 0.02


def candidate_count(search: int | None) -> int:
    """How many to try in each iteration of every image."""
    if search is not None and search < 0:
        raise SettingsError(f"a search of {search} candidates is not possible", "use 0 or more")
    return search or 0
