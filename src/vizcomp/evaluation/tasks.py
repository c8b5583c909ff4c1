"""What a worker does with a chunk of images: every codec's settings, every system's answers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vizcomp import metrics
from vizcomp.errors import in_one_line
from vizcomp.evaluation.codecs import open_codec
from vizcomp.evaluation.data import EvalData, Pixels
from vizcomp.evaluation.sweeps import Codec
from vizcomp.vision.answers import Answer, Classes, Comparison, compare
from vizcomp.vision.callables import living_system
from vizcomp.vision.model_files import state_of
from vizcomp.vision.system import System
from vizcomp.vision.systems import open_system


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkTask:
    """Some images through one codec, or, with codec "", the systems' answers on the sources."""

    data: EvalData
    chosen: tuple[int, ...]
    codec: str
    systems: tuple[str, ...]
    offline: bool
    reference: tuple[tuple[Answer | None, ...], ...] = ()  # for each system, for each image
    decoder: str = "pillow"


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """One image at one setting; the answers' parts in the order of the systems."""

    index: int
    size: float
    payload: float
    psnr: float
    ms_ssim: float
    best: tuple[int, ...]  # class, -1 for boxes
    within5: tuple[bool, ...]
    comparisons: tuple[Comparison | None, ...]  # None where the system failed


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkResult:
    """What came of a task."""

    answers: tuple[tuple[Answer | None, ...], ...] = ()
    # series, setting, rows, seconds
    points: tuple[tuple[str, str, tuple[ImageResult, ...], float, float], ...] = ()
    errors: tuple[str, ...] = ()
    failed: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    unread: str = ""  # why the images could not be read: a node that does not see them

    def to_bytes(self) -> bytes:
        """For the journal; the answers on sources are not kept."""
        points = [
            [series, setting, encoding, decoding, [list(dataclasses.astuple(row)) for row in rows]]
            for series, setting, rows, encoding, decoding in self.points
        ]
        failed = [[*key, count] for key, count in self.failed.items()]
        text = json.dumps(
            [points, self.errors, failed],
            separators=(",", ":"),
            default=lambda number: number.item(),
        )
        return zlib.compress(text.encode(), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> ChunkResult | None:
        """What `to_bytes` made; None of anything else."""
        with contextlib.suppress(ValueError, TypeError, zlib.error, RecursionError):
            points, errors, failed = json.loads(zlib.decompress(data))
            return cls(
                points=tuple(
                    (series, setting, tuple(_row(*row) for row in rows), encoding, decoding)
                    for series, setting, encoding, decoding, rows in points
                ),
                errors=tuple(errors),
                failed={(series, setting): count for series, setting, count in failed},
            )
        return None


def _row(
    index: int, size: float, payload: float, psnr: float, ms_ssim: float, *answers: Sequence[Any]
) -> ImageResult:
    best, within5, comparisons = answers
    compared = tuple(c and Comparison(*c) for c in comparisons)
    return ImageResult(index, size, payload, psnr, ms_ssim, tuple(best), tuple(within5), compared)


def worker_system(name: str, offline: bool) -> System:
    """A Python callable of this name, else a system opened once for each process."""
    return living_system(name) or opened_system(name, offline, state_of(name))


@functools.lru_cache(maxsize=8)
def opened_system(name: str, offline: bool, state: tuple[tuple[int, int], ...] = ()) -> System:
    """A system, opened again where the state of its files is another."""
    system = open_system(name, offline=offline)
    if (torch := sys.modules.get("torch")) is not None:
        # workers share the cores; and sums in one order give the same digits for any number of jobs
        torch.set_num_threads(1)
    return system


@functools.lru_cache(maxsize=8)
def worker_codec(name: str, decoder: str = "pillow") -> Codec:
    return open_codec(name, decoder)


def work_on_chunk(task: ChunkTask) -> ChunkResult:
    try:
        sources = [task.data.image(i) for i in task.chosen]
        for original in (task.data.originals[i] for i in task.chosen):
            if original is not None:
                original.stat()
    except OSError as exc:
        return ChunkResult(unread=exc.strerror or type(exc).__name__)
    systems = [worker_system(name, task.offline) for name in task.systems]
    errors: list[str] = []
    if not task.codec:
        return ChunkResult(
            answers=tuple(system_answers(s, sources, errors, task) for s in systems),
            errors=tuple(errors),
        )
    points = []
    failed: dict[tuple[str, str], int] = {}
    # one image decoded from files of different kinds is judged once
    seen: dict[bytes, tuple[Any, ...]] = {}
    codec = worker_codec(task.codec, task.decoder)
    for sweep in codec.sweep(
        sources, len(task.data), [task.data.originals[i] for i in task.chosen]
    ):
        series = sweep.series or codec.name
        keys = [
            b"" if r is None else hashlib.sha256(r.tobytes() + bytes([i % 256, i // 256])).digest()
            for i, r in enumerate(sweep.results)
        ]
        new = [i for i, key in enumerate(keys) if key and key not in seen]
        answers_after = [
            system_answers(s, [r for i in new if (r := sweep.results[i]) is not None], errors, task)
            for s in systems
        ]
        for at, i in enumerate(new):
            result = sweep.results[i]
            assert result is not None
            seen[keys[i]] = _judged(
                sources[i], result, [f[at] for f in answers_after], [r[i] for r in task.reference]
            )
        rows = tuple(
            ImageResult(
                task.chosen[i],
                float(sweep.sizes[i] or 0),
                float(sweep.payloads[i] or 0),
                *seen[key],
            )
            for i, key in enumerate(keys)
            if key
        )
        errors += [f"{task.data.names[task.chosen[i]]}: {why}" for i, why in sweep.errors]
        failed[series, sweep.setting] = len(sources) - len(rows)
        points.append((series, sweep.setting, rows, sweep.encode_seconds, sweep.decode_seconds))
    return ChunkResult(points=tuple(points), errors=tuple(errors), failed=failed)


def _judged(
    source: Pixels,
    result: Pixels,
    answers: Sequence[Answer | None],
    reference: Sequence[Answer | None],
) -> tuple[Any, ...]:
    best, within, comparisons = [], [], []
    for answer, before in zip(answers, reference, strict=True):
        best.append(answer.best if isinstance(answer, Classes) else -1)
        if isinstance(answer, Classes) and isinstance(before, Classes):
            within.append(before.best in np.argsort(-answer.probabilities, kind="stable")[:5])
        else:
            within.append(False)
        comparisons.append(None if answer is None or before is None else compare(before, answer))
    return (
        metrics.psnr(source, result),
        metrics.ms_ssim(source, result),
        tuple(best),
        tuple(within),
        tuple(comparisons),
    )


def system_answers(
    system: System, pictures: Sequence[Pixels], errors: list[str], task: ChunkTask
) -> tuple[Answer | None, ...]:
    """The answers; where a system throws on a batch each image is tried alone, and None is for
    those it cannot take."""
    if not pictures:
        return ()
    try:
        return tuple(system.answers(pictures))
    except Exception:  # a user's own model may throw anything
        answers: list[Answer | None] = []
        for picture in pictures:
            try:
                answers += system.answers([picture])
            except Exception as exc:
                errors.append(f"{system.name} fails on an image: {in_one_line(exc)}")
                answers.append(None)
        return tuple(answers)


def crashed_chunk(task: ChunkTask) -> ChunkResult:
    return ChunkResult(
        errors=(f"{task.codec or 'the systems'}: a worker process died twice (out of memory?)",)
    )
