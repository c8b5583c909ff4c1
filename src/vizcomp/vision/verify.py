"""The smallest file on which a vision system still answers as it did on the source.

    found = smallest(rungs, encode, judge, mend=mend)

`rungs` go from small files to large ones. Whether a system is content is not monotone in quality:
it may be lucky on a coarse file and not on a finer one. So a verdict counts only for the very file
it was taken on, the file that is kept is one that passed itself, and below the smallest rung that
passed some more are tried while trials are left.

A detector that is not content says where: its answer lacks a box there, or has one too many. What
is tried below the smallest rung that passed then has that rung's quality in those places, and a
lower one elsewhere: docs/decisions/0008-mending-places.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.vision import lettering
from vizcomp.vision.answers import (
    COUNTED,
    NOWHERE,
    SAME_MASKS,
    Answer,
    Boxes,
    Classes,
    Comparison,
    Kind,
    Pixels,
    Quads,
    Text,
    compare,
    is_empty,
    masks_alike,
    matching,
    together,
)
from vizcomp.vision.boxes import match_boxes, overlaps

Rung = TypeVar("Rung")

TRIALS = 6
NEAR = 4  # a failure so many rungs below the one that passed, at most, says where to mend
MOST_PLACES = 50  # where two answers differ in more, the whole picture is what they differ in
# How many rungs below the mended places the rest of the picture is put, in the order tried until
# one passes. Under the last rungs, which are many times as large as the others, a trial is another
# throw of the dice more than a step.
BELOW = (2, 1)
BELOW_LAST = (4, 2, 6, 1, 5, 3, 7)
LAST = 2  # how many rungs are among the last

CLEARLY = 0.97  # of a file's bytes: what saves less is not worth a trial
THROWS = 2  # failures after which another ladder is left

DOUBT = 0.002  # boxes whose score is so near to the least that counts may be there or not
MARGIN = 0.01  # of others: half their distance from the least score must be left, at most so much
LEAD = 0.5  # share of the source's lead over the second class that must be left
# of programs that do not smooth before they reduce: docs/decisions/0011-verified.md
OTHER_FILTERS = ("opencv", "opencv-lanczos")
SMOOTH_FILTERS = (
    "bicubic",
    "bilinear",
)  # of programs that do; one of them more for counted answers
ENLARGING = "opencv-area"  # repeats pixels where it enlarges, as no other filter here
SLIGHT = 0.97  # of each side, for the second view of a picture


@dataclasses.dataclass(frozen=True)
class Verified(Generic[Rung]):
    """What a search came to.

    Attributes:
        rung: of the file that is kept, outside the places that were mended; the last one where none
            passed.
        data: the file.
        verdict: of the system on this very file.
        trials: files that were made and judged.
        places: how many places of the picture have more than the rung's quality.
    """

    rung: Rung
    data: bytes
    verdict: Comparison
    trials: int
    places: int = 0

    @property
    def verified(self) -> bool:
        """Whether the system answers the same on the file."""
        return self.verdict.same


def smallest(
    rungs: Sequence[Rung],
    encode: Callable[[Rung], bytes],
    judge: Callable[[bytes], Comparison],
    *,
    mend: Callable[[Rung, Rung, Quads], bytes] | None = None,
    budget: Callable[[int], int] = lambda size: TRIALS,
) -> Verified[Rung]:
    """Search the ladder by halves, then look for smaller files than that of the smallest rung that
    passed.

    Args:
        rungs: settings from small files to large ones.
        encode: a setting to a file.
        judge: a file, as it would be written, to the verdict.
        mend: settings of most of the picture and of some places, float64 (N, 4, 2), to a file;
            None: a file has one setting.
        budget: from the bytes of the smallest file that passed so far to the number of files that
            it is worth to make; one more is made where the last rung has to be asked.

    Raises:
        ValueError: no rungs.
    """
    if not rungs:
        raise ValueError("no rungs")
    tried: dict[int, Verified[Rung]] = {}

    def passes(at: int) -> bool:
        if at not in tried:
            data = encode(rungs[at])
            tried[at] = Verified(rungs[at], data, judge(data), 0)
        return tried[at].verified

    # every rung up to `low` that was asked failed; `high` passed, or is beyond the ladder
    low, high = -1, len(rungs)
    while high - low > 1:
        middle = (low + high) // 2
        if passes(middle):
            high = middle
        else:
            low = middle
    places = NOWHERE
    for at, one in tried.items():
        if not one.verified and at >= high - NEAR:
            places = together(places, _few(one.verdict.unlike))
    if mend is not None and len(places):
        return _mended(rungs, high, tried, places, mend, judge, budget)
    if high == len(rungs):
        return dataclasses.replace(tried[max(tried)], trials=len(tried))
    at = high - 2  # high - 1 was asked, and failed
    while at >= 0 and len(tried) < budget(len(tried[high].data)):
        if at not in tried and passes(at):
            high = at
        at -= 1
    kept = min((f for f in tried.values() if f.verified), key=lambda f: len(f.data))
    return dataclasses.replace(kept, trials=len(tried))


def _few(places: Quads | None) -> Quads | None:
    return None if places is None or len(places) > MOST_PLACES else places


def _mended(
    rungs: Sequence[Rung],
    high: int,
    tried: dict[int, Verified[Rung]],
    places: Quads,
    mend: Callable[[Rung, Rung, Quads], bytes],
    judge: Callable[[bytes], Comparison],
    budget: Callable[[int], int],
) -> Verified[Rung]:
    """Files whose places have the rung `high`, that passed, and lower ones elsewhere; what a
    failure lacks joins the places. Where none passed, the places have the last rung: the picture
    may be worth less than its boxes."""
    made = len(tried)
    high = min(high, len(rungs) - 1)
    best = tried[high]
    near_top = high >= len(rungs) - LAST
    tried_places: set[tuple[int, int]] = set()
    queue = [high - below for below in (BELOW_LAST if near_top else BELOW)]
    while queue and made < budget(len(best.data)):
        rest = queue.pop(0)
        if rest < 0 or (rest, len(places)) in tried_places:
            continue
        tried_places.add((rest, len(places)))
        data = mend(rungs[rest], rungs[high], places)
        if len(data) >= len(best.data):  # nothing to gain
            queue = queue or [rest - 1]
            continue
        made += 1
        one = Verified(rungs[rest], data, judge(data), 0, len(places))
        if one.verified:
            best = one
            queue = [rest - 2, rest - 1] if near_top else [rest - 1]
        else:
            places = together(places, _few(one.verdict.unlike))
    return dataclasses.replace(best, trials=made)


def thrown(
    rungs: Sequence[Rung],
    encode: Callable[[Rung], bytes],
    judge: Callable[[bytes], Comparison],
    *,
    below: int,
    trials: int,
) -> tuple[Verified[Rung] | None, int]:
    """Another ladder tried for a file smaller than one that passed: where it passes, it is the
    smaller of two throws.

    Tried are the rung of the largest file that is clearly smaller, and those below it as long as
    they pass. Files that are not judged are no trials.

    Args:
        rungs, encode, judge: as in `smallest`.
        below: bytes of the file that is there.
        trials: files that may be judged.

    Returns:
        The smallest that passed, or None, and how many were judged.
    """
    files: dict[int, bytes] = {}

    def file(at: int) -> bytes:
        if at not in files:
            files[at] = encode(rungs[at])
        return files[at]

    low, high = -1, len(rungs)  # the files up to `low` are small enough; that of `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        if len(file(middle)) <= CLEARLY * below:
            low = middle
        else:
            high = middle
    best: Verified[Rung] | None = None
    used, failed, at = 0, 0, low
    while at >= 0 and used < trials and failed < THROWS:
        data = file(at)
        if best is None or len(data) < len(best.data):
            one = Verified(rungs[at], data, judge(data), 0)
            used += 1
            if one.verified:
                best = one
            else:
                failed += 1
        at -= 1
    return best, used


def outdone(
    rungs: Sequence[Rung],
    encode: Callable[[Rung], bytes],
    judge: Callable[[bytes], Comparison],
    *,
    below: int,
    budget: Callable[[int], int],
) -> tuple[Verified[Rung] | None, int]:
    """The search of `smallest` on another encoder's ladder, for a file smaller than one that is
    there.

    A file that is not smaller is not judged, and the search goes on as if it had passed: had it
    failed, the other encoder's own search would end above it. So the smaller of both files is never
    larger than what that search finds.

    Args:
        rungs, encode, judge, budget: as in `smallest`.
        below: bytes of the file that is there.

    Returns:
        The smallest that passed, or None, and how many were judged.
    """
    judged = 0

    def smaller(data: bytes) -> Comparison:
        nonlocal judged
        if len(data) >= below:
            return Comparison(1.0, True)
        judged += 1
        return judge(data)

    found = smallest(rungs, encode, smaller, budget=budget)
    good = found.verified and len(found.data) < below
    return (found if good else None), judged


def other_filters(kind: Kind, own: str, *, enlarged: bool = False) -> tuple[str, ...]:
    """Filters under which an answer must hold too; `own` is the system's, one of
    `options.FILTERS`.

    Boxes and figures hang on a threshold each, so that one filter more finds what others do not;
    two where the photo is `enlarged` for the system.
    """
    others = tuple(other for other in OTHER_FILTERS if other != own)
    if kind not in COUNTED:
        return others
    smooth = next(other for other in SMOOTH_FILTERS if other != own)
    more = (ENLARGING,) if enlarged and own != ENLARGING else ()
    return (*others, smooth, *more)


def second_view(picture: Pixels) -> Pixels:
    """A picture, uint8 (H, W, 3), a little smaller and back again by other filters, as other
    software would hand it on."""
    height, width = picture.shape[:2]
    size = (max(1, round(SLIGHT * width)), max(1, round(SLIGHT * height)))
    smaller = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(smaller.resize((width, height), Image.Resampling.BILINEAR))


def sees_nothing(views: Sequence[Answer]) -> bool:
    """Whether there is nothing that a system finds in all views of a source; a classifier always
    says something."""
    read = [answer for answer in views if isinstance(answer, Text)]
    if read:
        odd = _odd_places(read)
        return any(is_empty(_apart(answer, odd)) for answer in read)
    boxes = [answer for answer in views if isinstance(answer, Boxes)]
    if boxes and all(_has_band(answer) for answer in boxes):
        doubt = DOUBT if len(boxes) > 1 else 0.0
        return not any((_scores(answer) >= (answer.least or 0) + doubt).any() for answer in boxes)
    if boxes:
        return not len(_firm(boxes)[0].quads)
    return any(is_empty(answer) for answer in views)


def compare_views(
    reference: Sequence[Answer], views: Sequence[Answer], *, tolerance: float = 0.0
) -> Comparison:
    """`compare` with margins, over one or more views of the source and as many of a result; all
    must hold.

    Classes: with no tolerance the best class must also keep `LEAD` of the source's lead over the
    second. Boxes with scores must keep half of their distance from the least score, at most
    `MARGIN`; where there are several views, those within `DOUBT` of it count neither as lost nor as
    new. Boxes without scores: those that only some of the source's views have are about the
    threshold, and count as little. So do lines of text with a word that not all of the source's
    views read alike.

    Args:
        reference, views: the answers on each view of the source, and of the result.

    Raises:
        SettingsError: as `compare`.
    """
    firm, doubtful = _firm([answer for answer in reference if isinstance(answer, Boxes)])
    odd = _odd_places([answer for answer in reference if isinstance(answer, Text)])
    doubt = DOUBT if len(reference) > 1 else 0.0  # one view is what the system itself has
    verdicts = []
    for before, after in zip(reference, views, strict=True):
        if (
            isinstance(before, Boxes)
            and isinstance(after, Boxes)
            and _has_band(before)
            and _has_band(after)
        ):
            verdicts.append(_banded(before, after, tolerance, doubt))
            continue
        if isinstance(before, Boxes) and isinstance(after, Boxes):
            fresh = _without(after, firm)
            verdicts.append(
                compare(
                    firm,
                    _without(after, _without(fresh, _without(fresh, doubtful))),
                    tolerance=tolerance,
                    where=True,
                )
            )
            continue
        if isinstance(before, Text) and isinstance(after, Text):
            before, after = _apart(before, odd), _apart(after, odd)
        verdict = compare(before, after, tolerance=tolerance, where=True)
        if isinstance(before, Classes) and isinstance(after, Classes) and tolerance == 0:
            verdict = dataclasses.replace(
                verdict, same=verdict.same and _lead(after) >= LEAD * _lead(before)
            )
        verdicts.append(verdict)
    worst = min(verdicts, key=lambda verdict: verdict.score)
    places = NOWHERE
    for verdict in verdicts:
        places = together(places, verdict.unlike)
    return dataclasses.replace(worst, same=all(verdict.same for verdict in verdicts), unlike=places)


def _odd_places(views: Sequence[Text]) -> Quads:
    """Places, (N, 4, 2), of lines with a word that not all views read."""
    common = lettering.common_words([view.lines for view in views])
    places = [
        view.quads[list(lettering.compared(view.lines, common).odd_reference)] for view in views
    ]
    return np.concatenate([NOWHERE, *places])


def _apart(answer: Text, places: Quads) -> Text:
    """The lines that lie on none of these places."""
    free = [i for i, quad in enumerate(answer.quads) if not overlaps(quad, places)]
    scores = None if answer.scores is None else answer.scores[free]
    return dataclasses.replace(
        answer,
        lines=tuple(answer.lines[i] for i in free),
        quads=answer.quads[free],
        scores=scores,
    )


def _has_band(answer: Boxes) -> bool:
    return answer.least is not None and answer.scores is not None and answer.below is not None


def _scores(answer: Boxes) -> npt.NDArray[np.float64]:
    return np.zeros(0) if answer.scores is None else answer.scores.astype(np.float64)


def _banded(before: Boxes, after: Boxes, tolerance: float, doubt: float) -> Comparison:
    """Boxes with scores, and those of nearly the least score that counts, on one view of the source
    and of the result."""
    one, other = _with_below(before), _with_below(after)
    least, pairs = before.least or 0.0, dict(matching(one, other))
    lead, sure = _scores(one) - least, _scores(other) - least
    kept = np.minimum(MARGIN, np.abs(lead) / 2)  # of each box's distance from the threshold
    firm = np.flatnonzero(lead >= doubt)
    held = [i for i in firm.tolist() if i in pairs and sure[pairs[i]] >= kept[i]]
    backwards = {j: i for i, j in pairs.items()}
    new = [
        j
        for j in range(len(sure))
        if (
            sure[j] >= -kept[backwards[j]] and lead[backwards[j]] < -doubt
            if j in backwards
            else sure[j] >= -MARGIN
        )
    ]
    count = len(firm) + len(held) + len(new)
    score = 2 * len(held) / count if count else 1.0
    lost = [i for i in firm.tolist() if i not in held]
    unlike = np.concatenate([one.quads[lost], other.quads[new]])
    alike = masks_alike(one, other, [(i, pairs[i]) for i in held])
    same = score >= 1 - tolerance - 1e-12 and alike >= SAME_MASKS * (1 - tolerance) - 1e-12
    return Comparison(min(score, alike), same, len(held), len(firm), len(held) + len(new), unlike)


def _with_below(answer: Boxes) -> Boxes:
    below = answer.below
    if below is None or not len(below.quads):
        return answer
    scores = np.concatenate([_scores(answer), _scores(below)]).astype(np.float32)
    labels = answer.labels + below.labels
    masks = None
    if answer.masks is not None and below.masks is not None:
        masks = np.concatenate([answer.masks, below.masks])
    return Boxes(
        np.concatenate([answer.quads, below.quads]),
        labels,
        answer.size,
        scores,
        answer.least,
        masks=masks,
    )


def _lead(answer: Classes) -> float:
    if len(answer.probabilities) < 2:
        return 0.0
    second, first = np.partition(answer.probabilities, -2)[-2:]
    return float(first - second)


def _firm(views: Sequence[Boxes]) -> tuple[Boxes, Boxes]:
    """The first view's boxes that all views have; and those that only some have."""
    if not views:
        return Boxes(NOWHERE), Boxes(NOWHERE)
    firm = views[0]
    for view in views[1:]:
        firm = _without(firm, _without(firm, view))
    rest = [_without(view, firm) for view in views]
    labels = tuple(label for view in rest for label in view.labels)
    return firm, Boxes(np.concatenate([view.quads for view in rest]), labels, firm.size)


def _without(boxes: Boxes, others: Boxes) -> Boxes:
    """The boxes that have no partner of their label among the others."""
    alone: list[int] = []
    for label in dict.fromkeys(boxes.labels) if boxes.labels else [None]:
        mine = [i for i in range(len(boxes.quads)) if label is None or boxes.labels[i] == label]
        theirs = [i for i in range(len(others.quads)) if label is None or others.labels[i] == label]
        partners = {i for i, _, _ in match_boxes(boxes.quads[mine], others.quads[theirs])}
        alone += [index for i, index in enumerate(mine) if i not in partners]
    alone.sort()
    return Boxes(
        boxes.quads[alone],
        tuple(boxes.labels[i] for i in alone) if boxes.labels else (),
        boxes.size,
    )
