"""What a worker does with a photo: every setting's file, and every system's answer on it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from vizcomp.batch.judges import depth_source, needs_depth, system_by_name, system_errors
from vizcomp.batch.seen import file_seen, source_seen
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.compress import Ready, prepare
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import VizcompError, first_line
from vizcomp.files.find import InputFile
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo, load
from vizcomp.vision.answers import Answer, Classes, compare, is_empty
from vizcomp.vision.scale import rescaled


@dataclasses.dataclass(frozen=True)
class JudgeTask:
    """A photo, the settings to try on it, and who looks.

    Attributes:
        number: of the photo in the sample.
        references: the systems' answers on the source, where they are known; () where not.
    """

    number: int
    file: InputFile
    settings: tuple[DjpegSettings, ...]
    systems: tuple[str, ...]
    references: tuple[Answer, ...] = ()
    max_pixels: int = DEFAULT_MAX_PIXELS
    offline: bool = False
    decoder: str = "pillow"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A file of one setting, as the systems see it.

    Attributes:
        size: its bytes.
        losses: of each system, 0..1: 1 for a changed answer of a classifier, 1 - F1 of a detector.
        changed: of each system, whether the answer is not the same.
        texts: of each system, its answer for people.
    """

    size: int
    losses: tuple[float, ...]
    changed: tuple[bool, ...]
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """What came of a task.

    Attributes:
        references: the answers on the source.
        verdicts: one for each setting.
        unread: why the photo cannot be read or coded; "" where it can.
        failed: why a system gives no answer on the source; "" where all do.
    """

    number: int
    source_bytes: int = 0
    references: tuple[Answer, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    unread: str = ""
    failed: str = ""


def judge_photo(task: JudgeTask) -> Judged:
    """All verdicts on one photo; its errors are in the result."""
    try:
        photo = load(task.file.path, max_pixels=task.max_pixels)
    except (VizcompError, MemoryError, OSError) as exc:
        return Judged(task.number, unread=f"{task.file.shown}: {first_line(exc)}")
    references = task.references
    if not references:
        try:
            references = _asked(task, photo)
        except (VizcompError, MemoryError) as exc:
            return Judged(task.number, failed=f"{task.file.shown}: {first_line(exc)}")
    try:
        verdicts = _verdicts(task, photo, references)
    except (VizcompError, MemoryError) as exc:
        return Judged(task.number, unread=f"{task.file.shown}: {first_line(exc)}")
    return Judged(task.number, photo.source_bytes, references, verdicts)


def crashed(task: JudgeTask) -> Judged:
    """The result of a photo whose worker died."""
    return Judged(
        task.number, unread=f"{task.file.shown}: the worker died, perhaps for lack of memory"
    )


def _asked(task: JudgeTask, photo: Photo) -> tuple[Answer, ...]:
    shown = source_seen(photo, task.file.path.read_bytes, task.file.shown, task)
    answers = []
    for name in task.systems:
        with system_errors(name):
            answers.append(system_by_name(name, task.offline).answers([shown])[0])
    return tuple(answers)


def _verdicts(task: JudgeTask, photo: Photo, references: Sequence[Answer]) -> tuple[Verdict, ...]:
    """Files as `djpeg` writes them: the source itself where nothing is saved. Each distinct file is
    looked at once."""
    batch = BatchSettings(max_pixels=task.max_pixels, offline=task.offline)
    depth = depth_source(batch)(photo, task.file) if any(map(needs_depth, task.settings)) else None
    prepared: dict[DjpegSettings, list[Ready]] = {}
    looked: dict[bytes, Verdict] = {}
    verdicts = []
    for settings in task.settings:
        family = dataclasses.replace(settings, quality=50.0)
        if family not in prepared:
            prepared[family] = prepare(photo, settings, depth=depth)
        data = min((one.at(settings.quality) for one in prepared[family]), key=len)
        if len(data) >= photo.source_bytes and prepared[family][0].photo is photo:
            texts = tuple(reference.words() for reference in references)
            verdicts.append(
                Verdict(photo.source_bytes, (0.0,) * len(texts), (False,) * len(texts), texts)
            )
            continue
        key = hashlib.sha256(data).digest()
        if key not in looked:
            looked[key] = _verdict(
                task, data, references, upright(photo.pixels, photo.orientation).shape
            )
        verdicts.append(looked[key])
    return tuple(verdicts)


def _verdict(
    task: JudgeTask, data: bytes, references: Sequence[Answer], size: tuple[int, ...]
) -> Verdict:
    """The verdict on a file; places are compared in the source's scale, `size` of the picture as
    displayed."""
    shown = file_seen(data, task.file.shown, task)
    losses, changed, texts = [], [], []
    for name, reference in zip(task.systems, references, strict=True):
        try:
            with system_errors(name):
                answer = system_by_name(name, task.offline).answers([shown])[0]
                answer = rescaled(answer, shown.shape[:2], (size[0], size[1]))
        except VizcompError:  # it answers on the source and not on the result: that is a loss
            losses.append(1.0)
            changed.append(True)
            texts.append("fails")
            continue
        compared = compare(reference, answer)
        losses.append(
            float(not compared.same) if isinstance(reference, Classes) else 1 - compared.score
        )
        changed.append(not compared.same)
        texts.append(answer.words())
    return Verdict(len(data), tuple(losses), tuple(changed), tuple(texts))


def says_nothing(judged: Judged) -> bool:
    """Whether no system finds anything on the source."""
    return all(is_empty(answer) for answer in judged.references)
