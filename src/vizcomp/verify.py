"""The smallest file on which a vision system still answers as it did on the source.

    found = smallest(rungs, encode, judge)

`rungs` go from small files to large ones. Whether a system is content is not monotone in quality: it may be lucky on a coarse
file and not on a finer one. So a verdict counts only for the very file it was taken on, the file that is kept is one that passed
itself, and below the smallest rung that passed some more are tried while trials are left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from vizcomp.vision import Comparison

Rung = TypeVar("Rung")

TRIALS = 6
MORE_TRIALS = 8  # where the file that passed is a costly one


@dataclasses.dataclass(frozen=True)
class Found(Generic[Rung]):
    """What a search came to.

    Attributes:
        rung: of the file that is kept; the last one where none passed.
        data: the file.
        verdict: of the system on this very file.
        trials: files that were made and judged.
    """

    rung: Rung
    data: bytes
    verdict: Comparison
    trials: int

    @property
    def verified(self) -> bool:
        """Whether the system answers the same on the file."""
        return self.verdict.same


def smallest(
    rungs: Sequence[Rung],
    encode: Callable[[Rung], bytes],
    judge: Callable[[bytes], Comparison],
    *,
    trials: int = TRIALS,
    costly: int | None = None,
    more: int = MORE_TRIALS,
) -> Found[Rung]:
    """Search the ladder by halves, then look further down from the smallest rung that passed.

    Args:
        rungs: settings from small files to large ones.
        encode: a setting to a file.
        judge: a file, as it would be written, to the verdict.
        trials: files to make, about; one more where the last rung has to be asked.
        costly: bytes from which a file is worth `more` trials in all: it was perhaps one unlucky verdict that sent the search up.

    Raises:
        ValueError: no rungs.
    """
    if not rungs:
        raise ValueError("no rungs")
    tried: dict[int, Found[Rung]] = {}

    def passes(at: int) -> bool:
        if at not in tried:
            data = encode(rungs[at])
            tried[at] = Found(rungs[at], data, judge(data), 0)
        return tried[at].verified

    low, high = -1, len(rungs)  # every rung up to `low` that was asked failed; `high` passed, or is beyond the ladder
    while high - low > 1:
        middle = (low + high) // 2
        if passes(middle):
            high = middle
        else:
            low = middle
    at = high - 2  # high - 1 was asked, and failed
    while high < len(rungs) and at >= 0:
        if len(tried) >= (trials if costly is None or len(tried[high].data) < costly else max(trials, more)):
            break
        if at not in tried and passes(at):
            high = at
        at -= 1
    good = [f for f in tried.values() if f.verified]
    kept = min(good, key=lambda f: len(f.data)) if good else tried[max(tried)]
    return dataclasses.replace(kept, trials=len(tried))
