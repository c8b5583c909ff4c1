"""An evaluation from settings to result."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vizcomp._version import __version__
from vizcomp.batch.engines import map_tasks
from vizcomp.batch.journal import Journal
from vizcomp.errors import EngineError, SettingsError, VizcompError
from vizcomp.evaluation import points as evaluation_points
from vizcomp.evaluation.data import EvalData, are_small, chunk_size, mapped_pixels, read_data
from vizcomp.evaluation.points import (
    PointSum,
    accuracy_on_sources,
    bytes_at_levels,
    no_answer,
    summed_point,
)
from vizcomp.evaluation.results import EvalResult, EvalSettings, Progress
from vizcomp.evaluation.summary import (
    example_gallery,
    headline_of,
    one_answer_of,
    package_versions,
    study_points,
    warnings_of,
)
from vizcomp.evaluation.sweeps import Codec
from vizcomp.evaluation.tasks import (
    ChunkResult,
    ChunkTask,
    crashed_chunk,
    work_on_chunk,
    worker_codec,
    worker_system,
)
from vizcomp.files.write import check_output_folder
from vizcomp.photos.opencv import check_decoder
from vizcomp.vision.answers import Answer
from vizcomp.vision.system import System, reading_of

_SHARED_FOLDER = "with `engine` ray, all nodes must see `data` and the folder of `output`"


def run_eval(
    settings: EvalSettings,
    *,
    jobs: int = 0,
    engine: str = "local",
    output: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_skip: Callable[[str, str], None] = lambda name, why: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> EvalResult:
    """Evaluate codecs for vision systems.

    Ctrl-C ends it early: codecs that went over all images stay in the result, which says so.

    Args:
        output: the folder of the report. Chunks that are finished are remembered for it, and on a
            Ray cluster the images lie in it while the run lasts: all nodes must see it. None:
            nothing is remembered.
        resume: reuse chunks that an earlier run for `output` finished, by pixels, codec, systems
            and versions.
        dry_run: nothing is remembered, and nothing stays in `output`.
        on_notice: is told, in one line, what concerns the run as a whole: that nothing is
            remembered, say.

    Raises:
        VizcompError: what no image can do without is wrong: a system, a codec, a setting, the data.
    """
    check_decoder(settings.decoder)
    systems = [worker_system(name, settings.offline) for name in settings.classifiers]
    named, side = _named_codecs(settings, systems)
    opened = {name: worker_codec(name, settings.decoder) for name in named}
    with _place_for_images(output if engine.startswith("ray") else None, dry_run) as folder:
        data = read_data(settings, folder, side, systems[0], on_skip)
        _check_labels(data, systems)
        journal = None if output is None or dry_run else Journal(output, {})
        try:
            if journal is not None and not resume:
                journal.forget()
            return _evaluated(settings, data, systems, opened, jobs, engine, on_progress, journal)
        finally:
            if journal is not None:
                if journal.problem:
                    on_notice(journal.problem)
                journal.close()
            mapped_pixels.cache_clear()


@contextlib.contextmanager
def _place_for_images(shared: Path | None, dry_run: bool) -> Iterator[str]:
    """A folder that goes when the run ends; in `shared`, if that is given, since other machines are
    to see it."""
    if shared is None:
        with tempfile.TemporaryDirectory(prefix="vizcomp-") as folder:
            yield folder
        return
    new_folder = not shared.exists()
    check_output_folder(shared)
    try:
        with tempfile.TemporaryDirectory(prefix=".vizcomp-", dir=shared.absolute()) as folder:
            yield folder
    finally:
        if new_folder and dry_run:
            with contextlib.suppress(OSError):
                shared.rmdir()


def _named_codecs(settings: EvalSettings, systems: Sequence[System]) -> tuple[list[str], int]:
    """Codecs and baselines, and the side to which all images are cut: that of the codecs that are
    made for one, else 0.

    Systems do not count: they resize what is decoded, as they do in use.
    """
    small = systems[0].native == 32 and not settings.codecs and are_small(settings, 32)
    named = [*(settings.codecs or (("cifar",) if small else ("djpeg",))), *settings.baselines]
    natives = {name: worker_codec(name, settings.decoder).native for name in named}
    side = next((n for n in natives.values() if n), 0)
    for name, native in natives.items():
        if native not in (0, side):
            raise SettingsError(
                f"codec {name} is for images of {native}x{native}, another for {side}x{side}",
                "choose one of them",
            )
    native = systems[0].native
    if side and native not in (0, side):
        raise SettingsError(
            f"a codec is for images of {side}x{side}, {systems[0].name} for {native}x{native}",
            "choose another",
        )
    return named, side


def _check_labels(data: EvalData, systems: Sequence[System]) -> None:
    """Labels are of use where the first system's classes are theirs; otherwise agreement is what
    there is."""
    if data.labels is None:
        return
    classifiers = [s for s in systems if s.kind == "classes" and s.classes]
    fit = [s.name for s in classifiers if set(data.classes) <= set(s.classes)]
    for system in systems:
        if system.kind == "classes" and system.name not in fit:
            what = (
                "does not name its classes"
                if not system.classes
                else "knows other classes than the data"
            )
            data.warnings.append(f"{system.name} {what}: agreement stands in for its accuracy.")


def _evaluated(
    settings: EvalSettings,
    data: EvalData,
    systems: Sequence[System],
    opened: dict[str, Codec],
    jobs: int,
    engine: str,
    on_progress: Callable[[Progress], None],
    journal: Journal | None,
) -> EvalResult:
    step = chunk_size(data)
    chunks = [tuple(range(i, min(i + step, len(data)))) for i in range(0, len(data), step)]
    count = itertools.count(1)
    total = len(chunks) * (1 + len(opened))
    request = _Asked(
        settings,
        data,
        systems,
        opened,
        chunks,
        lambda tasks: _mapped_tasks(tasks, jobs, engine),
        lambda what: on_progress(Progress(next(count), total, what)),
    )
    answers, errors = _answers_on_sources(request)
    sums, complete, more_errors, interrupted = _sums(request, answers, journal)
    return _described(request, answers, sums, complete, [*errors, *more_errors], interrupted)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What an evaluation is of, and how its chunks of images are worked on."""

    settings: EvalSettings
    data: EvalData
    systems: Sequence[System]
    codecs: dict[str, Codec]
    chunks: list[tuple[int, ...]]
    results: Callable[[Sequence[ChunkTask]], Iterator[ChunkResult]]
    tell: Callable[[str], None]

    def task(self, chunk: tuple[int, ...], codec: str, answers: tuple[Any, ...] = ()) -> ChunkTask:
        names = tuple(system.name for system in self.systems)
        return ChunkTask(
            self.data, chunk, codec, names, self.settings.offline, answers, self.settings.decoder
        )


def _readable(result: ChunkResult) -> ChunkResult:
    if result.unread:
        raise EngineError(f"a worker cannot read the images: {result.unread}", _SHARED_FOLDER)
    return result


def _answers_on_sources(request: _Asked) -> tuple[list[list[Answer | None]], list[str]]:
    """Each system's answers on the sources, and errors."""
    errors: list[str] = []
    answers: list[list[Answer | None]] = [[] for _ in request.systems]
    for result in map(
        _readable, request.results([request.task(chunk, "") for chunk in request.chunks])
    ):
        if not result.answers:
            raise VizcompError(
                result.errors[0] if result.errors else "the systems gave no answer",
                "try fewer `jobs`",
            )
        for all_answers, some in zip(answers, result.answers, strict=True):
            all_answers += some
        errors += result.errors
        request.tell("sources")
    return answers, errors


def _sums(
    request: _Asked, answers: list[list[Answer | None]], journal: Journal | None
) -> tuple[dict[tuple[str, str, str], PointSum], set[str], list[str], bool]:
    """(codec, series, setting) to its sum; the codecs that were finished; errors; whether Ctrl-C
    ended it early."""
    work = [
        request.task(chunk, name, tuple(tuple(a[i] for i in chunk) for a in answers))
        for name in request.codecs
        for chunk in request.chunks
    ]
    keys = [] if journal is None else _keys(work, request)
    earlier: list[ChunkResult | None] = [None] * len(work)
    if journal is not None:
        stored = (journal.remembered(key) for key in keys)
        earlier = [None if data is None else ChunkResult.from_bytes(data) for data in stored]
    sums: dict[tuple[str, str, str], PointSum] = {}
    finished_chunks: collections.Counter[str] = collections.Counter()
    errors: list[str] = []
    interrupted = False
    try:
        fresh = request.results(
            [task for task, before in zip(work, earlier, strict=True) if before is None]
        )
        for number, task in enumerate(work):
            result = earlier[number] or next(fresh, None)
            if result is None:
                break
            _readable(result)
            if journal is not None and earlier[number] is None and result.points:
                journal.remember(keys[number], result.to_bytes())
            errors += result.errors
            finished_chunks[task.codec] += 1
            for series, setting, rows, encoding, decoding in result.points:
                one = sums.setdefault((task.codec, series, setting), PointSum())
                one.rows += rows
                one.encoding += encoding
                one.decoding += decoding
                one.failed += result.failed[series, setting]
            request.tell(task.codec)
    except KeyboardInterrupt:
        interrupted = True
    finished = {name for name in request.codecs if finished_chunks[name] == len(request.chunks)}
    return sums, finished, errors, interrupted


def _described(
    request: _Asked,
    answers: list[list[Answer | None]],
    sums: dict[tuple[str, str, str], PointSum],
    finished: set[str],
    errors: list[str],
    interrupted: bool,
) -> EvalResult:
    """The result: points of the finished codecs, and what follows from them."""
    data, systems, opened = request.data, request.systems, request.codecs
    points, shown = [], []
    for (name, series, setting), one in sums.items():
        if name in finished and one.rows:
            points.append(
                summed_point(
                    series, setting, opened[name].ours, one, data, systems, request.settings.seed
                )
            )
            shown.append((name, points[-1], one))
    order = {series: i for i, series in enumerate(s for c in opened.values() for s in c.series)}
    points.sort(key=lambda p: (order.get(p.codec, 0), p.bytes_per_image))
    equal = bytes_at_levels(points, systems, data, answers)
    classifiers = [
        {
            "name": system.name,
            "kind": system.kind,
            "unseen": i > 0,
            "fingerprint": system.fingerprint,
            "reading": reading_of(system),
            "without_answer": sum(no_answer(a) for a in some),
            "one_answer": one_answer_of(some, data),
        }
        for i, (system, some) in enumerate(zip(systems, answers, strict=True))
    ]
    return EvalResult(
        headline=headline_of(points, equal, systems, data, answers),
        warnings=(*data.warnings, *warnings_of(points, errors, data, answers, systems)),
        data=data.about,
        classifiers=classifiers,
        source_accuracy={
            s.name: accuracy_on_sources(s, a, data) for s, a in zip(systems, answers, strict=True)
        },
        points=points,
        bd_rate=evaluation_points.bd_rates(points, systems),
        equal=equal,
        reference_points=study_points(data, systems),
        gallery=example_gallery(shown, data, systems, answers),
        codecs=[
            {"name": n, "ours": c.ours, "version": c.version, "fingerprint": c.fingerprint}
            for n, c in opened.items()
        ],
        versions=package_versions(),
        interrupted=interrupted,
        undone=tuple(n for n in opened if n in finished and not any(p[0] == n for p in shown)),
    )


def _keys(work: Sequence[ChunkTask], asked: _Asked) -> list[bytes]:
    """For each task all that decides what comes of it, as one hash."""
    data, opened = asked.data, asked.codecs
    looking = [[s.name, s.kind, s.fingerprint] for s in asked.systems]
    common = [
        __version__,
        len(data),
        package_versions(),
        check_decoder(asked.settings.decoder),
        looking,
    ]
    pixels: dict[tuple[int, ...], str] = {}
    keys = []
    for task in work:
        if task.chosen not in pixels:
            digest = hashlib.sha256()
            for i in task.chosen:
                digest.update(repr(data.shapes[i]).encode() + data.image(i).tobytes())
                original = data.originals[i]
                with contextlib.suppress(OSError):  # d-JPEG uses its coefficients
                    digest.update(b"" if original is None else original.read_bytes())
            pixels[task.chosen] = digest.hexdigest()
        codec = opened[task.codec]
        names = [data.names[i] for i in task.chosen]
        parts = [
            *common,
            [task.codec, codec.version, codec.fingerprint],
            names,
            task.chosen,
            pixels[task.chosen],
        ]
        keys.append(hashlib.sha256(json.dumps(parts).encode()).digest())
    return keys


def _mapped_tasks(tasks: Sequence[ChunkTask], jobs: int, engine: str) -> Iterator[ChunkResult]:
    return map_tasks(work_on_chunk, tasks, on_crash=crashed_chunk, jobs=jobs, engine=engine)
