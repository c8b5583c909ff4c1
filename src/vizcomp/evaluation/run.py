"""An evaluation from settings to result."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vizcomp._version import __version__
from vizcomp.batch.engines import map_tasks
from vizcomp.batch.journal import Journal
from vizcomp.errors import EngineError, SettingsError, VizcompError
from vizcomp.evaluation import points as evaluation_points
from vizcomp.evaluation.codecs import Codec
from vizcomp.evaluation.data import EvalData, chunk_size, mapped_pixels, read_data
from vizcomp.evaluation.points import PointSum, accuracy_on_sources, bytes_at_levels, no_answer, summed_point
from vizcomp.evaluation.results import EvalResult, EvalSettings, Progress
from vizcomp.evaluation.summary import example_gallery, headline_of, package_versions, study_points, warnings_of
from vizcomp.evaluation.tasks import ChunkResult, ChunkTask, crashed_chunk, work_on_chunk, worker_codec, worker_system
from vizcomp.files.write import check_output_folder
from vizcomp.vision.answers import Answer
from vizcomp.vision.system import System

_SHARED_FOLDER = "with --engine ray, all nodes must see --data and the folder of -o"


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
) -> EvalResult:
    """Evaluate codecs for vision systems.

    Ctrl-C ends it early: codecs that went over all images stay in the result, which says so.

    Args:
        output: the folder of the report. Chunks that are finished are remembered for it, and on a Ray cluster the images lie in
            it while the run lasts: all nodes must see it. None: nothing is remembered.
        resume: reuse chunks that an earlier run for `output` finished, by pixels, codec, systems and versions.
        dry_run: nothing is remembered, and nothing stays in `output`.

    Raises:
        VizcompError: what no image can do without is wrong: a system, a codec, a setting, the data.
    """
    systems = [worker_system(name, settings.offline) for name in settings.classifiers]
    named, side = _named_codecs(settings, systems)
    opened = {name: worker_codec(name) for name in named}
    with _place_for_images(output if engine.startswith("ray") else None, dry_run) as folder:
        data = read_data(settings, folder, side, systems[0], on_skip)
        _check_labels(data, systems)
        kept = None if output is None or dry_run else Journal(output, {})
        try:
            if kept is not None and not resume:
                kept.forget()
            return _evaluated(settings, data, systems, opened, jobs, engine, on_progress, kept)
        finally:
            if kept is not None:
                kept.close()
            mapped_pixels.cache_clear()


@contextlib.contextmanager
def _place_for_images(shared: Path | None, dry_run: bool) -> Iterator[str]:
    """A folder that goes when the run ends; in `shared`, if that is given, since other machines are to see it."""
    if shared is None:
        with tempfile.TemporaryDirectory(prefix="vizcomp-") as folder:
            yield folder
        return
    made = not shared.exists()
    check_output_folder(shared)
    try:
        with tempfile.TemporaryDirectory(prefix=".vizcomp-", dir=shared.absolute()) as folder:
            yield folder
    finally:
        if made and dry_run:
            with contextlib.suppress(OSError):
                shared.rmdir()


def _named_codecs(settings: EvalSettings, systems: Sequence[System]) -> tuple[list[str], int]:
    """Codecs and baselines, and the side to which all images are cut: that of the first system or codec that has one."""
    side = systems[0].native
    ours = settings.codecs or (("cifar",) if side == 32 else ("djpeg",))
    named = [*ours, *settings.baselines]
    natives = {name: worker_codec(name).native for name in named}
    side = side or next((n for n in natives.values() if n), 0)
    for name, native in natives.items():
        if native and native != side:
            raise SettingsError(
                f"codec {name} is for images of {native}x{native}, {systems[0].name} for {side}x{side}", "choose another"
            )
    return named, side


def _check_labels(data: EvalData, systems: Sequence[System]) -> None:
    """Labels are of use where the first system's classes are theirs; otherwise agreement is what there is."""
    if data.labels is None:
        return
    known = [s for s in systems if s.kind == "classes" and s.classes]
    fit = [s.name for s in known if set(data.classes) <= set(s.classes)]
    for system in systems:
        if system.kind == "classes" and system.name not in fit:
            what = "does not name its classes" if not system.classes else "knows other classes than the data"
            data.warnings.append(f"{system.name} {what}: agreement stands in for its accuracy.")


def _evaluated(
    settings: EvalSettings,
    data: EvalData,
    systems: Sequence[System],
    opened: dict[str, Codec],
    jobs: int,
    engine: str,
    on_progress: Callable[[Progress], None],
    kept: Journal | None,
) -> EvalResult:
    step = chunk_size(data)
    chunks = [tuple(range(i, min(i + step, len(data)))) for i in range(0, len(data), step)]
    total, done = len(chunks) * (1 + len(opened)), 0
    names = tuple(s.name for s in systems)

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        on_progress(Progress(done, total, what))

    errors: list[str] = []
    answers: list[list[Answer | None]] = [[] for _ in systems]
    tasks = [ChunkTask(data, chunk, "", names, settings.offline) for chunk in chunks]
    for found in _mapped_tasks(tasks, jobs, engine):
        if found.unread:
            raise EngineError(f"a worker cannot read the images: {found.unread}", _SHARED_FOLDER)
        if not found.answers:
            raise VizcompError(found.errors[0] if found.errors else "the systems gave no answer", "try fewer --jobs")
        for mine, some in zip(answers, found.answers, strict=True):
            mine += some
        errors += found.errors
        tell("sources")
    work = [
        ChunkTask(data, chunk, name, names, settings.offline, tuple(tuple(a[i] for i in chunk) for a in answers))
        for name in opened
        for chunk in chunks
    ]
    keys = [] if kept is None else _keys(work, data, opened, systems)
    known: list[ChunkResult | None] = [None] * len(work)
    if kept is not None:
        found_before = (kept.remembered(key) for key in keys)
        known = [None if stored is None else ChunkResult.from_bytes(stored) for stored in found_before]
    collected: dict[tuple[str, str, str], PointSum] = {}
    complete: collections.Counter[str] = collections.Counter()
    interrupted = False
    try:
        fresh = _mapped_tasks([task for task, before in zip(work, known, strict=True) if before is None], jobs, engine)
        for number, task in enumerate(work):
            done_now = known[number] or next(fresh, None)
            if done_now is None:
                break
            if done_now.unread:
                raise EngineError(f"a worker cannot read the images: {done_now.unread}", _SHARED_FOLDER)
            if kept is not None and known[number] is None and done_now.points:
                kept.remember(keys[number], done_now.to_bytes())
            errors += done_now.errors
            complete[task.codec] += 1
            for series, setting, rows, encoding, decoding in done_now.points:
                one = collected.setdefault((task.codec, series, setting), PointSum())
                one.rows += rows
                one.encoding += encoding
                one.decoding += decoding
                one.failed += done_now.failed[series, setting]
            tell(task.codec)
    except KeyboardInterrupt:
        interrupted = True
    finished = {name for name in opened if complete[name] == len(chunks)}
    points, sums = [], []
    for (name, series, setting), one in collected.items():
        if name in finished and one.rows:
            points.append(summed_point(series, setting, opened[name].ours, one, data, systems, settings.seed))
            sums.append((name, points[-1], one))
    order = {series: i for i, series in enumerate(s for c in opened.values() for s in c.series)}
    points.sort(key=lambda p: (order.get(p.codec, 0), p.bytes_per_image))
    warnings = [*data.warnings, *warnings_of(points, errors, data, answers, systems)]
    bd_rates, equal = evaluation_points.bd_rates(points, systems), bytes_at_levels(points, systems, data, answers)
    classifiers = [
        {
            "name": s.name,
            "kind": s.kind,
            "unseen": i > 0,
            "fingerprint": s.fingerprint,
            "without_answer": sum(no_answer(a) for a in found),
        }
        for i, (s, found) in enumerate(zip(systems, answers, strict=True))
    ]
    return EvalResult(
        headline=headline_of(points, equal, systems, data, answers),
        warnings=tuple(warnings),
        data=data.about,
        classifiers=classifiers,
        source_accuracy={s.name: accuracy_on_sources(s, a, data) for s, a in zip(systems, answers, strict=True)},
        points=points,
        bd_rate=bd_rates,
        equal=equal,
        reference_points=study_points(data, systems),
        gallery=example_gallery(sums, data, systems, answers),
        codecs=[{"name": n, "ours": c.ours, "version": c.version, "fingerprint": c.fingerprint} for n, c in opened.items()],
        versions=package_versions(),
        interrupted=interrupted,
    )


def _keys(work: Sequence[ChunkTask], data: EvalData, opened: dict[str, Codec], systems: Sequence[System]) -> list[bytes]:
    """For each task all that decides what comes of it, as one hash."""
    looking = [[s.name, s.kind, s.fingerprint] for s in systems]
    common = [__version__, len(data), package_versions(), looking]
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
        told = [*common, [task.codec, codec.version, codec.fingerprint], names, task.chosen, pixels[task.chosen]]
        keys.append(hashlib.sha256(json.dumps(told).encode()).digest())
    return keys


def _mapped_tasks(tasks: Sequence[ChunkTask], jobs: int, engine: str) -> Iterator[ChunkResult]:
    return map_tasks(work_on_chunk, tasks, on_crash=crashed_chunk, jobs=jobs, engine=engine)
