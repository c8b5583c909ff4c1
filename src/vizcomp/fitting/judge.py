"""What a worker does with a photo: every setting's file, and every system's answer on it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from vizcomp.batch.judges import depth_source, needs_depth, system_by_name, system_errors
from vizcomp.batch.seen import file_seen, source_seen
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.compress import Ready, prepare
from vizcomp.djpeg.formats import Picture
from vizcomp.djpeg.kinds import has_lettering, of_kind
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import VizcompError, first_line
from vizcomp.files.find import InputFile
from vizcomp.fitting.candidates import Candidate, Rival
from vizcomp.fitting.moves import moved
from vizcomp.fitting.truth import Truth
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.photo import Photo, load
from vizcomp.vision.answers import Answer, Classes, Pixels, compare
from vizcomp.vision.scale import rescaled

NO_GUIDE = ("uniform",)


@dataclasses.dataclass(frozen=True)
class JudgeTask:
    """A photo, the settings to try on it, and who looks.

    Attributes:
        number: of the photo in the sample.
        references: the systems' answers on the source, where they are known; () where not.
        truth: the photo's label, where labels are what counts.
        kinds: say whether there is lettering on it.
        quick: files as of `encode_format`.
    """

    number: int
    file: InputFile
    settings: tuple[Candidate, ...]
    systems: tuple[str, ...]
    references: tuple[Answer, ...] = ()
    truth: Truth | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    offline: bool = False
    decoder: str = "pillow"
    kinds: bool = False
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A file of one setting, as the systems see it.

    Attributes:
        size: its bytes.
        losses: of each system, 0..1: 1 for a changed answer of a classifier, 1 - F1 of a detector;
            with labels, by how much the answer is worse than that on the source.
        soft: of each system, 0..1: how far the answer has moved, changed or not. The search goes by
            it, no test does.
        changed: of each system, whether the answer is not the same; with labels, whether it is
            worse.
        texts: of each system, its answer for people.
        right: of each system, how right the answer is by the label, 0..1; () without labels.
    """

    size: int
    losses: tuple[float, ...]
    soft: tuple[float, ...]
    changed: tuple[bool, ...]
    texts: tuple[str, ...]
    right: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Judged:
    """What came of a task.

    Attributes:
        references: the answers on the source.
        right: of each system, how right that is by the label; () without labels.
        verdicts: one for each setting.
        unread: why the photo cannot be read or coded; "" where it can.
        failed: why a system gives no answer on the source, or one that its label does not fit; ""
            where all is well.
        lettering: whether there is some on the photo; None where nobody asked.
    """

    number: int
    source_bytes: int = 0
    references: tuple[Answer, ...] = ()
    right: tuple[float, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    unread: str = ""
    failed: str = ""
    lettering: bool | None = None


def judge_photo(task: JudgeTask) -> Judged:
    """All verdicts on one photo; its errors are in the result."""
    try:
        photo = load(task.file.path, max_pixels=task.max_pixels)
        shown = source_seen(photo, task.file.path.read_bytes, task.file.shown, task)
    except (VizcompError, MemoryError, OSError) as exc:
        return Judged(task.number, unread=f"{task.file.shown}: {first_line(exc)}")
    try:
        references = task.references or asked(task.systems, shown, offline=task.offline)
        right = rights(task.truth, references, photo)
    except (VizcompError, MemoryError) as exc:
        return Judged(task.number, failed=f"{task.file.shown}: {first_line(exc)}")
    try:
        judging = _Judging(task, photo, shown, references, right)
        verdicts = tuple(judging.verdict(one) for one in task.settings)
    except (VizcompError, MemoryError) as exc:
        return Judged(task.number, unread=f"{task.file.shown}: {first_line(exc)}")
    lettering = has_lettering(photo) if task.kinds else None
    return Judged(task.number, photo.source_bytes, references, right, verdicts, lettering=lettering)


def crashed(task: JudgeTask) -> Judged:
    """The result of a photo whose worker died."""
    return Judged(
        task.number, unread=f"{task.file.shown}: the worker died, perhaps for lack of memory"
    )


def asked(systems: Sequence[str], shown: Pixels, *, offline: bool) -> tuple[Answer, ...]:
    """The answers of systems on a picture as displayed."""
    answers = []
    for name in systems:
        with system_errors(name):
            answers.append(system_by_name(name, offline).answers([shown])[0])
    return tuple(answers)


def rights(truth: Truth | None, answers: Sequence[Answer], photo: Photo) -> tuple[float, ...]:
    """How right answers in the scale of a photo are by its label; () without one."""
    return () if truth is None else tuple(truth.right(answer, photo) for answer in answers)


class Coder:
    """A photo as settings make it: files as `djpeg` writes them, and those of rivals. Guides are
    asked once for all qualities.

    Args:
        quick: files as of `encode_format`, which `djpeg` does not write.
    """

    def __init__(
        self, photo: Photo, file: InputFile, batch: BatchSettings, *, quick: bool = False
    ) -> None:
        self._photo, self._file, self._batch, self._quick = photo, file, batch, quick
        self._ready: dict[DjpegSettings, Ready] = {}
        self._files: dict[DjpegSettings, bytes] = {}

    @functools.cached_property
    def _lettering(self) -> bool:
        return has_lettering(self._photo)

    def data(self, one: Candidate) -> bytes | None:
        """The file of a setting; None where the source is kept, since nothing is saved."""
        if isinstance(one, DjpegSettings) and one.without_lettering is not None:
            one = of_kind(one, lettering=self._lettering)
        if isinstance(one, Rival):
            data = one.encode(self._photo, quick=self._quick)
            kept = one.codec != "plain"
        else:
            ready = self._prepared(one)
            if one.guides != NO_GUIDE and not ready.guided:  # then the file is that of no guide
                one = dataclasses.replace(one, guide="uniform", strength=0.0)
                ready = self._prepared(one)
            if one not in self._files:
                self._files[one] = ready.at(one.quality)
            data, kept = self._files[one], ready.photo is self._photo
        return None if kept and len(data) >= self._photo.source_bytes else data

    def _prepared(self, one: DjpegSettings) -> Ready:
        family = dataclasses.replace(one, quality=50.0)
        if family in self._ready:
            return self._ready[family]
        depth = depth_source(self._batch)(self._photo, self._file) if needs_depth(one) else None
        (ready,) = prepare(self._photo, one, depth=depth)
        if isinstance(ready, Picture):
            ready.quick = self._quick
        return self._ready.setdefault(family, ready)


class _Judging:
    """One photo before the systems. Each distinct file is looked at once, and no picture that is
    the source's own."""

    def __init__(
        self,
        task: JudgeTask,
        photo: Photo,
        shown: Pixels,
        references: Sequence[Answer],
        right: tuple[float, ...],
    ) -> None:
        self._task, self._photo, self._shown, self._references, self._right = (
            task,
            photo,
            shown,
            references,
            right,
        )
        self._coder = Coder(
            photo,
            task.file,
            BatchSettings(max_pixels=task.max_pixels, offline=task.offline),
            quick=task.quick,
        )
        self._looked: dict[bytes, Verdict] = {}

    def verdict(self, one: Candidate) -> Verdict:
        data = self._coder.data(one)
        if data is None:
            return self._unchanged(self._photo.source_bytes)
        key = hashlib.sha256(data).digest()
        if key not in self._looked:
            self._looked[key] = self._look(data)
        return self._looked[key]

    def _unchanged(self, size: int) -> Verdict:
        count = len(self._references)
        none = (0.0,) * count
        texts = tuple(reference.words() for reference in self._references)
        return Verdict(size, none, none, (False,) * count, texts, self._right)

    def _look(self, data: bytes) -> Verdict:
        """The verdict on a file; places are compared in the source's scale."""
        task = self._task
        shown = file_seen(data, task.file.shown, task)
        if shown.shape == self._shown.shape and np.array_equal(shown, self._shown):
            return self._unchanged(len(data))
        losses: list[float] = []
        soft: list[float] = []
        right: list[float] = []
        changed, texts = [], []
        for at, (name, reference) in enumerate(zip(task.systems, self._references, strict=True)):
            try:
                answer = rescaled(
                    asked([name], shown, offline=task.offline)[0],
                    shown.shape[:2],
                    self._shown.shape[:2],
                )
            except VizcompError:  # it answers on the source and not on the result: that is a loss
                lost = self._right[at] if self._right else 1.0
                for some, value in ((losses, lost), (soft, 1.0), (right, 0.0)):
                    some.append(value)
                changed.append(lost > 0)
                texts.append("fails")
                continue
            compared = compare(reference, answer)
            loss = (
                float(not compared.same) if isinstance(reference, Classes) else 1 - compared.score
            )
            worse = not compared.same
            if task.truth is not None:
                right.append(task.truth.right(answer, self._photo))
                loss = max(0.0, self._right[at] - right[at])
                worse = loss > 0
            losses.append(loss)
            soft.append(moved(reference, answer))
            changed.append(worse)
            texts.append(answer.words())
        kept = tuple(right) if task.truth is not None else ()
        return Verdict(len(data), tuple(losses), tuple(soft), tuple(changed), tuple(texts), kept)
