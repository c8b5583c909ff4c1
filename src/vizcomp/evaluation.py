"""Rate against accuracy: any codecs, any vision systems, on a user's own images.

    sources ── systems' answers on the sources ─────────────────────────────┐
       └── codecs.sweep ── files, and images decoded from these files ── answers, PSNR, MS-SSIM ── points, BD-rates, gallery

The images are in one file that worker processes map, in chunks that depend on the settings alone: so any number of jobs gives the
same report but for its times, and a chunk that an earlier run finished can be reused.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vizcomp import codecs, metrics
from vizcomp._version import __version__
from vizcomp.datasets.cifar import cifar10_archive
from vizcomp.datasets.labelled import LabelledImages
from vizcomp.datasets.read import read_labelled
from vizcomp.engines import map_tasks
from vizcomp.errors import EngineError, InputError, SettingsError, VizcompError
from vizcomp.files.find import EXTENSIONS, InputFile, find_inputs
from vizcomp.files.place import printable
from vizcomp.files.write import check_output_folder
from vizcomp.journal import Journal
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.encode import encode_plain_jpeg, encode_png
from vizcomp.photos.frame import thumbnail, upright
from vizcomp.photos.photo import load, to_srgb
from vizcomp.results import EvalExample, EvalPoint, EvalResult
from vizcomp.vision.answers import Answer, Boxes, Classes, Comparison, compare, is_empty
from vizcomp.vision.boxes import box_score
from vizcomp.vision.system import System, fitted
from vizcomp.vision.systems import open_system
from vizcomp.vision.torch_systems import TorchClassifier

Pixels = npt.NDArray[np.uint8]

CHUNK_SMALL, CHUNK_LARGE = 500, 8  # images that one task takes: 32x32 ones, and photos
SMALL_SIDE = 64
MAX_PIXELS = 4_000_000  # larger photos are made smaller: every codec and system sees each of them dozens of times
DRAWS = 1000  # of the bootstrap
GALLERY = 24
LARGE_SIDE = 224  # of labelled images for systems of any size
LEAST_POINTS = 6  # for a BD-rate
_SHARED_FOLDER = "with --engine ray, all nodes must see --data and the folder of -o"
LEVELS = (0.99, 0.95, 0.9, 0.8)  # shares of the accuracy on the sources at which bytes are compared
SAME_ENOUGH = 0.95  # the headline's point: the fewest bytes that keep this share

# The original study of 2020: its own evaluation log (47.1% at 128 bits) and report (that code lay in a 410-byte archive).
STUDY = (
    {"name": "study 2020, code alone", "bytes": 16.0, "value": 0.471, "source": "its evaluation log: 128 bits an image"},
    {"name": "study 2020, file as stored", "bytes": 410.0, "value": 0.471, "source": "its report: .npz archives of 410 bytes"},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What is evaluated.

    Attributes:
        classifiers: vision systems by name; a codec may know the first, the others are unseen.
        data: class folders, CIFAR-10 in its published forms, or plain photos; "" for CIFAR-10 from the cache or its mirrors.
        codecs: ours; () = cifar for images of 32x32, djpeg for others.
        baselines: jpeg, webp, avif, jxl.
        limit: at most so many images, drawn by `seed`, evenly over the classes; 0 = all.
        seed: of the draw and of the bootstrap.
        max_pixels: larger photos are refused.
        offline: never touch the network.
    """

    classifiers: tuple[str, ...] = ("inception",)
    data: str = ""
    codecs: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("jpeg", "webp", "avif")
    limit: int = 0
    seed: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    offline: bool = False

    def __post_init__(self) -> None:
        if not self.classifiers:
            raise SettingsError("no vision system is named", "add --classifier inception")
        if self.limit < 0:
            raise SettingsError(f"a limit of {self.limit} images is not possible", "use 0 for all of them")
        for what, names in (("classifier", self.classifiers), ("codec", self.codecs), ("baseline", self.baselines)):
            if len(set(names)) < len(names):
                raise SettingsError(f"a {what} is named twice", "name each once")

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far an evaluation is: chunks of images done, of how many, and what is being done."""

    done: int
    total: int
    what: str


# --- data -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class _Data:
    """Images on disk in one flat file, and what is known of them."""

    folder: str
    shapes: list[tuple[int, int]]
    starts: list[int]
    names: list[str]
    labels: list[int] | None
    classes: tuple[str, ...]
    about: dict[str, Any]
    warnings: list[str]
    originals: list[Path | None]  # the JPEG file that an image is, pixel for pixel, if it is one

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Pixels:
        flat = _mapped(self.folder)
        height, width = self.shapes[index]
        start = self.starts[index]
        return np.array(flat[start : start + 3 * height * width]).reshape(height, width, 3)


@functools.lru_cache(maxsize=2)
def _mapped(folder: str) -> Pixels:
    return np.memmap(Path(folder) / "pixels", np.uint8, "r")


def _read_data(settings: EvalSettings, folder: str, side: int, first: System, on_skip: Callable[[str, str], None]) -> _Data:
    """The images that are evaluated; `side` cuts all of them to squares of this size, 0 leaves photos as they are."""
    path, warnings, name = _where(settings) if side or settings.data else (None, [_SAMPLES_SAID], _SAMPLES_NAME)
    labelled = None
    if path is not None and first.kind == "classes":
        labelled = _labelled(path, side or LARGE_SIDE)
    skipped: list[tuple[str, str]] = []

    def skip(what: str, why: str) -> None:
        skipped.append((what, why))
        on_skip(what, why)

    if labelled is not None:
        for what, why in labelled.skipped:
            skip(what, why)
        chosen = _sample(labelled.labels, settings.limit, settings.seed)
        originals: list[Path | None] = [None] * len(chosen)
        arrays: Iterator[Pixels] = (labelled.images[i] for i in chosen)
        names, labels = [labelled.names[i] for i in chosen], [int(labelled.labels[i]) for i in chosen]
        classes, source = labelled.classes, labelled.source
        sizes, jpeg = None, sum(n.lower().endswith((".jpg", ".jpeg")) for n in names)
        if len({*labels}) < 2:
            warnings.append(f"All images are of one class, {classes[labels[0]]}: an accuracy says little.")
    else:
        found = list(find_inputs([str(path)] if path is not None else [str(_samples())]))
        chosen = _sample(np.zeros(len(found), np.int64), settings.limit, settings.seed)
        photos = _photos([found[i] for i in chosen], side, settings.max_pixels, skip)
        kept = list(photos)
        if not kept:
            raise InputError(f"none of {len(chosen)} photos can be read", "give a folder of photos, or class folders")
        arrays, names = (k.pixels for k in kept), [k.name for k in kept]
        labels, classes, source = None, (), f"{len(kept)} photos"
        sizes, jpeg, originals = [k.size for k in kept], sum(k.jpeg for k in kept), [k.original for k in kept]
    with (Path(folder) / "pixels").open("wb") as file:
        shapes, starts, at = [], [], 0
        for array in arrays:
            file.write(np.ascontiguousarray(array).tobytes())
            shapes.append((array.shape[0], array.shape[1]))
            starts.append(at)
            at += array.size
    same = len(set(shapes)) == 1
    about = {
        "name": name or source,
        "path": "" if path is None else str(path),
        "images": len(names),
        "labels": labels is not None,
        "classes": list(classes),
        "skipped": len(skipped),
        "source_bytes_per_image": None if sizes is None or side else sum(sizes) / len(sizes),
        "width": shapes[0][1] if same else 0,
        "height": shapes[0][0] if same else 0,
        "jpeg_sources": jpeg,
    }
    if skipped:
        warnings.append(f"{len(skipped)} images could not be read and are left out, such as {skipped[0][0]}: {skipped[0][1]}.")
    if jpeg:
        warnings.append(
            f"{jpeg:,} of {len(names):,} sources are JPEG themselves: what that cost is in them already, and figures differ from "
            f"those of lossless sources."
        )
    return _Data(folder, shapes, starts, names, labels, classes, about, warnings, originals)


def _labelled(path: Path, side: int) -> LabelledImages | None:
    """A data set's test part, class folders without one as a whole; None where the photos have no classes."""
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return None
    try:
        return read_labelled(path, part="test", size=side)
    except VizcompError as exc:
        try:
            return read_labelled(path, part="all", size=side)
        except VizcompError:
            if path.is_dir():
                return None
            raise exc from None


def _where(settings: EvalSettings) -> tuple[Path | None, list[str], str]:
    """Where the data are: as given, CIFAR-10 from the cache or its mirrors, or nowhere, which means the samples."""
    if settings.data == "cifar10" and not Path(settings.data).exists():
        return cifar10_archive(offline=settings.offline), [], "CIFAR-10, test part"
    if settings.data:
        path = Path(settings.data)
        if not path.exists():
            raise InputError(f"{settings.data} is not there", "give --data a folder or an archive, or omit it")
        return path, [], ""
    try:
        return cifar10_archive(offline=settings.offline), [], "CIFAR-10, test part"
    except VizcompError as exc:
        why = (
            f"CIFAR-10 could not be had ({exc.message}), so this is measured on the few sample photos that come with vizcomp, "
            "cut to the classifier's size: agreement with its answer on the source stands in for accuracy, and so few photos "
            "prove little. Give --data, or run once with the network."
        )
        return None, [why], _SAMPLES_NAME


_SAMPLES_NAME = "the sample photos that come with vizcomp"
_SAMPLES_SAID = (
    "Without --data this is measured on the few sample photos that come with vizcomp, which prove little. "
    "Give --data with your own."
)


def _samples() -> Path:
    return Path(str(package_files("vizcomp").joinpath("bundled", "samples")))


def _sample(labels: npt.NDArray[Any], limit: int, seed: int) -> list[int]:
    """Indices of at most `limit` images, evenly over the classes, drawn by a seed, in their order."""
    count = len(labels)
    if not limit or limit >= count:
        return list(range(count))
    generator = np.random.default_rng(seed)
    turns = np.empty(count)  # an image's turn within its class; those of the earliest turns are taken
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turns[generator.permutation(members)] = np.arange(len(members))
    order = np.lexsort((generator.random(count), turns))
    return sorted(int(i) for i in order[:limit])


class _Kept(NamedTuple):
    """A photo that could be read."""

    name: str
    pixels: Pixels
    size: int
    jpeg: bool
    original: Path | None


def _photos(found: Sequence[InputFile], side: int, max_pixels: int, skip: Callable[[str, str], None]) -> Iterator[_Kept]:
    for file in found:
        try:
            photo = load(file.path, max_pixels=max_pixels)
            pixels = upright(to_srgb(photo)[0], photo.orientation)
            rgb = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
            height, width = rgb.shape[:2]
            there = file.path if isinstance(file.path, Path) else None
            original = there if photo.jpeg is not None and np.array_equal(rgb, photo.pixels) else None
            if side:
                rgb = fitted(np.ascontiguousarray(rgb), side, side)
            elif height * width > MAX_PIXELS:
                rgb = thumbnail(rgb, long_side=round(max(height, width) * math.sqrt(MAX_PIXELS / (height * width))))
            whole = rgb.shape[:2] == (height, width)
            yield _Kept(
                printable(file.relative),
                np.ascontiguousarray(rgb),
                photo.source_bytes,
                photo.jpeg is not None,
                original if whole else None,
            )
        except VizcompError as exc:
            skip(printable(file.relative), exc.message)


# --- tasks ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """Some images through one codec, or, with codec "", the systems' answers on the sources."""

    data: _Data
    chosen: tuple[int, ...]
    codec: str
    systems: tuple[str, ...]
    offline: bool
    reference: tuple[tuple[Answer | None, ...], ...] = ()  # for each system, for each image


@dataclasses.dataclass(frozen=True)
class _Row:
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
class _Done:
    """What came of a task."""

    answers: tuple[tuple[Answer | None, ...], ...] = ()
    points: tuple[tuple[str, str, tuple[_Row, ...], float, float], ...] = ()  # series, setting, rows, seconds
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
        text = json.dumps([points, self.errors, failed], separators=(",", ":"), default=lambda number: number.item())
        return zlib.compress(text.encode(), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> _Done | None:
        """What `to_bytes` made; None of anything else."""
        with contextlib.suppress(ValueError, TypeError, zlib.error):
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


def _row(index: int, size: float, payload: float, psnr: float, ms_ssim: float, *answers: Sequence[Any]) -> _Row:
    best, within5, comparisons = answers
    compared = tuple(c and Comparison(*c) for c in comparisons)
    return _Row(index, size, payload, psnr, ms_ssim, tuple(best), tuple(within5), compared)


@functools.lru_cache(maxsize=8)
def _system(name: str, offline: bool) -> System:
    _one_thread()
    system = open_system(name, offline=offline)
    if isinstance(system, TorchClassifier) and not name.startswith("torchvision:"):
        system.hurry()
    return system


@functools.lru_cache(maxsize=8)
def _codec(name: str) -> codecs.Codec:
    _one_thread()
    return codecs.open_codec(name)


def _one_thread() -> None:
    """Workers share the cores; and sums in one order give the same digits for any number of jobs."""
    import torch

    torch.set_num_threads(1)


def _work(task: _Task) -> _Done:
    try:
        sources = [task.data.image(i) for i in task.chosen]
        for original in (task.data.originals[i] for i in task.chosen):
            if original is not None:
                original.stat()
    except OSError as exc:
        return _Done(unread=exc.strerror or type(exc).__name__)
    systems = [_system(name, task.offline) for name in task.systems]
    errors: list[str] = []
    if not task.codec:
        return _Done(answers=tuple(_answers(s, sources, errors, task) for s in systems), errors=tuple(errors))
    points = []
    failed: dict[tuple[str, str], int] = {}
    seen: dict[bytes, tuple[Any, ...]] = {}  # one image decoded from files of different kinds is judged once
    codec = _codec(task.codec)
    for sweep in codec.sweep(sources, len(task.data), [task.data.originals[i] for i in task.chosen]):
        series = sweep.series or codec.name
        keys = [
            b"" if r is None else hashlib.sha256(r.tobytes() + bytes([i % 256, i // 256])).digest()
            for i, r in enumerate(sweep.results)
        ]
        new = [i for i, key in enumerate(keys) if key and key not in seen]
        found = [_answers(s, [r for i in new if (r := sweep.results[i]) is not None], errors, task) for s in systems]
        for at, i in enumerate(new):
            result = sweep.results[i]
            assert result is not None
            seen[keys[i]] = _judged(sources[i], result, [f[at] for f in found], [r[i] for r in task.reference])
        rows = tuple(
            _Row(task.chosen[i], float(sweep.sizes[i] or 0), float(sweep.payloads[i] or 0), *seen[key])
            for i, key in enumerate(keys)
            if key
        )
        errors += [f"{task.data.names[task.chosen[i]]}: {why}" for i, why in sweep.errors]
        failed[series, sweep.setting] = len(sources) - len(rows)
        points.append((series, sweep.setting, rows, sweep.encode_seconds, sweep.decode_seconds))
    return _Done(points=tuple(points), errors=tuple(errors), failed=failed)


def _judged(
    source: Pixels, result: Pixels, answers: Sequence[Answer | None], reference: Sequence[Answer | None]
) -> tuple[Any, ...]:
    best, within, comparisons = [], [], []
    for answer, before in zip(answers, reference, strict=True):
        best.append(answer.best if isinstance(answer, Classes) else -1)
        if isinstance(answer, Classes) and isinstance(before, Classes):
            within.append(before.best in np.argsort(-answer.probabilities, kind="stable")[:5])
        else:
            within.append(False)
        comparisons.append(None if answer is None or before is None else compare(before, answer))
    return metrics.psnr(source, result), metrics.ms_ssim(source, result), tuple(best), tuple(within), tuple(comparisons)


def _answers(system: System, pictures: Sequence[Pixels], errors: list[str], task: _Task) -> tuple[Answer | None, ...]:
    """The answers; where a system throws on a batch each image is tried alone, and None is for those it cannot take."""
    if not pictures:
        return ()
    try:
        return tuple(system.answers(pictures))
    except Exception:  # a user's own model may throw anything
        found: list[Answer | None] = []
        for picture in pictures:
            try:
                found += system.answers([picture])
            except Exception as exc:
                errors.append(f"{system.name} fails on an image: {' '.join(str(exc).split())[:200] or type(exc).__name__}")
                found.append(None)
        return tuple(found)


def _crashed(task: _Task) -> _Done:
    return _Done(errors=(f"{task.codec or 'the systems'}: a worker process died twice (out of memory?)",))


# --- the whole ------------------------------------------------------------------------------------------------------


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
    systems = [_system(name, settings.offline) for name in settings.classifiers]
    named, side = _named_codecs(settings, systems)
    opened = {name: _codec(name) for name in named}
    with _place_for_images(output if engine.startswith("ray") else None, dry_run) as folder:
        data = _read_data(settings, folder, side, systems[0], on_skip)
        _check_labels(data, systems)
        kept = None if output is None or dry_run else Journal(output, {})
        try:
            if kept is not None and not resume:
                kept.forget()
            return _evaluated(settings, data, systems, opened, jobs, engine, on_progress, kept)
        finally:
            if kept is not None:
                kept.close()
            _mapped.cache_clear()


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
    natives = {name: _codec(name).native for name in named}
    side = side or next((n for n in natives.values() if n), 0)
    for name, native in natives.items():
        if native and native != side:
            raise SettingsError(
                f"codec {name} is for images of {native}x{native}, {systems[0].name} for {side}x{side}", "choose another"
            )
    return named, side


def _check_labels(data: _Data, systems: Sequence[System]) -> None:
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
    data: _Data,
    systems: Sequence[System],
    opened: dict[str, codecs.Codec],
    jobs: int,
    engine: str,
    on_progress: Callable[[Progress], None],
    kept: Journal | None,
) -> EvalResult:
    step = _chunk_size(data)
    chunks = [tuple(range(i, min(i + step, len(data)))) for i in range(0, len(data), step)]
    total, done = len(chunks) * (1 + len(opened)), 0
    names = tuple(s.name for s in systems)

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        on_progress(Progress(done, total, what))

    errors: list[str] = []
    answers: list[list[Answer | None]] = [[] for _ in systems]
    tasks = [_Task(data, chunk, "", names, settings.offline) for chunk in chunks]
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
        _Task(data, chunk, name, names, settings.offline, tuple(tuple(a[i] for i in chunk) for a in answers))
        for name in opened
        for chunk in chunks
    ]
    keys = [] if kept is None else _keys(work, data, opened, systems)
    known: list[_Done | None] = [None] * len(work)
    if kept is not None:
        found_before = (kept.remembered(key) for key in keys)
        known = [None if stored is None else _Done.from_bytes(stored) for stored in found_before]
    collected: dict[tuple[str, str, str], _Sum] = {}
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
                one = collected.setdefault((task.codec, series, setting), _Sum())
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
            points.append(_point(series, setting, opened[name].ours, one, data, systems, settings.seed))
            sums.append((name, points[-1], one))
    order = {series: i for i, series in enumerate(s for c in opened.values() for s in c.series)}
    points.sort(key=lambda p: (order.get(p.codec, 0), p.bytes_per_image))
    warnings = [*data.warnings, *_warnings(points, errors, data, answers, systems)]
    bd_rates, equal = _bd_rates(points, systems), _equal(points, systems, data, answers)
    classifiers = [
        {
            "name": s.name,
            "kind": s.kind,
            "unseen": i > 0,
            "fingerprint": s.fingerprint,
            "without_answer": sum(_empty(a) for a in found),
        }
        for i, (s, found) in enumerate(zip(systems, answers, strict=True))
    ]
    return EvalResult(
        headline=_headline(points, equal, systems, data, answers),
        warnings=tuple(warnings),
        data=data.about,
        classifiers=classifiers,
        source_accuracy={s.name: _source_accuracy(s, a, data) for s, a in zip(systems, answers, strict=True)},
        points=points,
        bd_rate=bd_rates,
        equal=equal,
        reference_points=_reference_points(data, systems),
        gallery=_gallery(sums, data, systems, answers),
        codecs=[{"name": n, "ours": c.ours, "version": c.version, "fingerprint": c.fingerprint} for n, c in opened.items()],
        versions=_versions(),
        interrupted=interrupted,
    )


def _chunk_size(data: _Data) -> int:
    return CHUNK_SMALL if max(max(s) for s in data.shapes) <= SMALL_SIDE else CHUNK_LARGE


def _keys(work: Sequence[_Task], data: _Data, opened: dict[str, codecs.Codec], systems: Sequence[System]) -> list[bytes]:
    """For each task all that decides what comes of it, as one hash."""
    looking = [[s.name, s.kind, s.fingerprint] for s in systems]
    common = [__version__, len(data), _versions(), looking]
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


def _mapped_tasks(tasks: Sequence[_Task], jobs: int, engine: str) -> Iterator[_Done]:
    return map_tasks(_work, tasks, on_crash=_crashed, jobs=jobs, engine=engine)


@dataclasses.dataclass
class _Sum:
    """What is collected for one point."""

    rows: list[_Row] = dataclasses.field(default_factory=list)
    encoding: float = 0.0
    decoding: float = 0.0
    failed: int = 0


def _empty(answer: Answer | None) -> bool:
    return answer is None or is_empty(answer)


def _numbers(system: System, data: _Data) -> list[int] | None:
    """For each of the data's classes its number in the system's answers; None where labels say nothing about it."""
    if data.labels is None or system.kind != "classes" or not set(data.classes) <= set(system.classes):
        return None
    return [system.classes.index(name) for name in data.classes]


def _source_accuracy(system: System, answers: Sequence[Answer | None], data: _Data) -> float | None:
    numbers = _numbers(system, data)
    if numbers is None or data.labels is None:
        return None
    right = [isinstance(a, Classes) and a.best == numbers[label] for a, label in zip(answers, data.labels, strict=True)]
    return sum(right) / len(right)


def _point(series: str, setting: str, ours: bool, one: _Sum, data: _Data, systems: Sequence[System], seed: int) -> EvalPoint:
    rows = one.rows
    count = len(rows)
    accuracy: dict[str, float | None] = {}
    agreement: dict[str, float | None] = {}
    top5: dict[str, float | None] = {}
    recall: dict[str, float | None] = {}
    precision: dict[str, float | None] = {}
    interval: dict[str, tuple[float, float] | None] = {}
    for at, system in enumerate(systems):
        compared = [c for r in rows if (c := r.comparisons[at]) is not None]
        accuracy[system.name] = top5[system.name] = recall[system.name] = precision[system.name] = None
        agreement[system.name] = interval[system.name] = None
        if not compared:
            continue
        if system.kind == "boxes":
            counts = np.array([(c.matched, c.reference, c.found) for c in compared], float)
            score = box_score(*(int(x) for x in counts.sum(0)))
            agreement[system.name], recall[system.name], precision[system.name] = score.f1, score.recall, score.precision
            interval[system.name] = _bootstrap_f1(counts, seed)
            continue
        same = np.array([c.same for c in compared], float)
        agreement[system.name] = float(same.mean())
        top5[system.name] = sum(r.within5[at] for r in rows) / count
        numbers = _numbers(system, data)
        if numbers is not None and data.labels is not None:
            same = np.array([r.best[at] == numbers[data.labels[r.index]] for r in rows], float)
            accuracy[system.name] = float(same.mean())
        interval[system.name] = _bootstrap_mean(same, seed)
    finite = [r.psnr for r in rows if math.isfinite(r.psnr)]
    pixels = sum(data.shapes[r.index][0] * data.shapes[r.index][1] for r in rows)
    size = sum(r.size for r in rows)
    return EvalPoint(
        codec=series,
        setting=setting,
        ours=ours,
        images=count,
        failed=one.failed,
        bytes_per_image=size / count,
        payload_bytes_per_image=sum(r.payload for r in rows) / count,
        bpp=8 * size / pixels,
        accuracy=accuracy,
        agreement=agreement,
        top5=top5,
        recall=recall,
        precision=precision,
        interval=interval,
        psnr=sum(finite) / len(finite) if finite else None,
        ms_ssim=sum(r.ms_ssim for r in rows) / count,
        encode_seconds=one.encoding / count,
        decode_seconds=one.decoding / count,
    )


def _bootstrap_mean(values: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean of zeros and ones (Efron 1979); resampling such values is a binomial draw."""
    draws = np.random.default_rng(seed).binomial(len(values), values.mean(), DRAWS) / len(values)
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def _bootstrap_f1(counts: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """The same for F1: whole images are drawn, with their boxes."""
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS) @ counts
    both = drawn[:, 1] + drawn[:, 2]
    scores = np.where(both > 0, 2 * drawn[:, 0] / np.maximum(both, 1), 1.0)
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(low), float(high)


# --- what is made of the points -------------------------------------------------------------------------------------


def _value(point: EvalPoint, measure: str) -> float | None:
    kind, _, name = measure.partition(":")
    if kind == "psnr":
        return point.psnr
    if kind == "ms_ssim":
        return point.ms_ssim
    return (point.accuracy if kind == "accuracy" else point.agreement).get(name)


def _measures(points: Sequence[EvalPoint], systems: Sequence[System]) -> list[str]:
    """For each system its accuracy, or its agreement where there is none."""
    return [f"{'accuracy' if any(p.accuracy.get(s.name) is not None for p in points) else 'agreement'}:{s.name}" for s in systems]


def _curves(points: Sequence[EvalPoint]) -> dict[str, list[EvalPoint]]:
    found: dict[str, list[EvalPoint]] = {}
    for point in points:
        found.setdefault(point.codec, []).append(point)
    return found


def _bd_rates(points: Sequence[EvalPoint], systems: Sequence[System]) -> list[dict[str, Any]]:
    """Each of our curves against each baseline, by each measure."""
    curves = _curves(points)
    rows = []
    for mine in (c for c, some in curves.items() if some[0].ours):
        for anchor in (c for c, some in curves.items() if not some[0].ours):
            for measure in ("psnr", "ms_ssim", *_measures(points, systems)):
                rows.append(
                    {"codec": mine, "anchor": anchor, "measure": measure, **_bd_rate(curves[anchor], curves[mine], measure)}
                )
    return rows


def _bd_rate(anchor: Sequence[EvalPoint], mine: Sequence[EvalPoint], measure: str) -> dict[str, Any]:
    sides = []
    for curve in (anchor, mine):
        pairs = [(p.bytes_per_image, v) for p in curve if (v := _value(p, measure)) is not None]
        sides.append(pairs)
    none = {"bd_rate": None, "overlap": None}
    short = min(len(pairs) for pairs in sides)
    if short < LEAST_POINTS:
        return {**none, "why": f"a curve has {short} points; {LEAST_POINTS} are needed"}
    (rate_a, value_a), (rate_b, value_b) = (tuple(zip(*pairs, strict=True)) for pairs in sides)
    low, high = max(min(value_a), min(value_b)), min(max(value_a), max(value_b))
    if low >= high:
        return {**none, "why": "no overlap"}
    try:
        found = metrics.bd_rate(rate_a, value_a, rate_b, value_b)
    except ValueError as exc:
        return {**none, "why": str(exc)}
    return {"bd_rate": found, "overlap": [low, high], "why": ""} if math.isfinite(found) else {**none, "why": "no overlap"}


def bytes_at(points: Sequence[EvalPoint], measure: str, level: float) -> float | None:
    """The fewest bytes at which a curve reaches a level: linear in the logarithm of bytes between neighbouring points.

    None where no point reaches it; the size of the smallest point where that one does already.
    """
    pairs = sorted((p.bytes_per_image, v) for p in points if (v := _value(p, measure)) is not None)
    for at, (size, value) in enumerate(pairs):
        if value < level:
            continue
        if at == 0:
            return size
        before, low = pairs[at - 1]
        share = (level - low) / (value - low)
        return math.exp(math.log(before) + share * (math.log(size) - math.log(before)))
    return None


def _top(measure: str, systems: Sequence[System], data: _Data, answers: Sequence[Sequence[Answer | None]]) -> float:
    """What the sources themselves reach: their accuracy, or 1 for agreement."""
    kind, _, name = measure.partition(":")
    if kind != "accuracy":
        return 1.0
    at = next(i for i, s in enumerate(systems) if s.name == name)
    return _source_accuracy(systems[at], answers[at], data) or 0.0


def _equal(
    points: Sequence[EvalPoint],
    systems: Sequence[System],
    data: _Data,
    answers: Sequence[Sequence[Answer | None]],
) -> list[dict[str, Any]]:
    curves = _curves(points)
    rows = []
    for measure in _measures(points, systems):
        top = _top(measure, systems, data, answers)
        for share in LEVELS:
            for mine in (c for c, some in curves.items() if some[0].ours):
                for anchor in (c for c, some in curves.items() if not some[0].ours):
                    ours, theirs = (bytes_at(curves[c], measure, share * top) for c in (mine, anchor))
                    saving = None if ours is None or theirs is None else 1 - ours / theirs
                    rows.append(
                        {
                            "measure": measure,
                            "level": share * top,
                            "codec": mine,
                            "bytes": ours,
                            "anchor": anchor,
                            "anchor_bytes": theirs,
                            "saving": saving,
                        }
                    )
    return rows


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _headline(
    points: Sequence[EvalPoint],
    equal: Sequence[dict[str, Any]],
    systems: Sequence[System],
    data: _Data,
    answers: Sequence[Sequence[Answer | None]],
) -> str:
    """One sentence: our first codec's cheapest good point, for every system, beside what the best baseline needs for the same."""
    curves = _curves(points)
    mine = next((c for c, some in curves.items() if some[0].ours), None)
    others = {c: some for c, some in curves.items() if not some[0].ours}
    if mine is None:
        return "No codec of vizcomp was measured." if points else "Nothing was measured."
    measures = _measures(points, systems)
    top = _top(measures[0], systems, data, answers)
    able = [p for p in curves[mine] if (_value(p, measures[0]) or 0) >= SAME_ENOUGH * top]
    point = min(able, key=lambda p: p.bytes_per_image) if able else max(curves[mine], key=lambda p: _value(p, measures[0]) or 0)
    parts = []
    for at, (system, measure) in enumerate(zip(systems, measures, strict=True)):
        value = _value(point, measure)
        if value is None:
            continue
        who = f"Unseen {system.name}" if at else system.name
        if measure.startswith("accuracy"):
            top = _top(measure, systems, data, answers)
            says = f"{who} is right on {_percent(value)} ({_percent(top)} of the sources)"
        elif system.kind == "boxes" and all(_empty(a) for a in answers[at]):
            parts.append(f"{who} finds nothing on any source, so there is nothing to keep")
            continue
        elif system.kind == "boxes":
            says = f"{who} finds its boxes again with an F1 of {value:.3f}"
        else:
            says = f"{who} answers {_percent(value)} as on the source"
        needs = {c: b for c, some in others.items() if (b := bytes_at(some, measure, value)) is not None}
        best = min(needs, key=lambda c: needs[c]) if needs else ""
        against = f"; {best} needs {needs[best]:,.0f} bytes for that" if best else "; no baseline reaches that" if others else ""
        parts.append(says + against)
    quality = f", at a PSNR of {point.psnr:.1f} dB" if point.psnr is not None else ""
    return f"{mine} in {point.bytes_per_image:,.0f} bytes an image{quality}: {'. '.join(parts)}."


def _warnings(
    points: Sequence[EvalPoint],
    errors: Sequence[str],
    data: _Data,
    answers: Sequence[Sequence[Answer | None]],
    systems: Sequence[System],
) -> list[str]:
    warnings = []
    for system, found in zip(systems, answers, strict=True):
        if empty := sum(_empty(a) for a in found):
            warnings.append(
                f"{system.name} finds nothing on {empty:,} of {len(found):,} sources: "
                "a result there is the same if it finds nothing too."
            )
    if errors:
        counts = collections.Counter(errors)
        first, many = counts.most_common(1)[0]
        more = f" ({many} times)" if many > 1 else ""
        warnings.append(f"{len(errors):,} times something failed and was left out, most often: {first}{more}.")
    if data.labels is None:
        warnings.append("The images have no labels: agreement with each system's own answer on the source replaces accuracy.")
    source = data.about["source_bytes_per_image"]
    if source and points and all(p.bytes_per_image >= source for p in points):
        warnings.append(f"No setting gives files smaller than the sources ({source:,.0f} bytes an image).")
    return warnings


def _reference_points(data: _Data, systems: Sequence[System]) -> list[dict[str, Any]]:
    """The original study's published points, where the data are CIFAR-10 and the first system a classifier of it."""
    if data.labels is None or "airplane" not in data.classes or len(data.classes) != 10 or systems[0].kind != "classes":
        return []
    return [{**row, "measure": f"accuracy:{systems[0].name}"} for row in STUDY]


def _versions() -> dict[str, str]:
    found = {}
    for name in ("vizcomp", "torch", "numpy", "pillow", "onnxruntime", "torchvision", "rapidocr"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


# --- gallery --------------------------------------------------------------------------------------------------------


def _gallery(
    sums: Sequence[tuple[str, EvalPoint, _Sum]],
    data: _Data,
    systems: Sequence[System],
    answers: Sequence[Sequence[Answer | None]],
) -> list[EvalExample]:
    """The images on which our first codec's middle setting lost most for the systems, worst first."""
    mine = [(name, point, one) for name, point, one in sums if point.ours]
    if not mine:
        return []
    curve = sorted((x for x in mine if x[1].codec == mine[0][1].codec), key=lambda x: x[1].bytes_per_image)
    name, point, one = curve[len(curve) // 2] if name_is_photo(curve[0][0]) else curve[0]

    def score(row: _Row) -> float:
        found = [c.score for c in row.comparisons if c is not None]
        return sum(found) / len(found) if found else 0.0

    worst = sorted(one.rows, key=lambda r: (score(r), r.index))[:GALLERY]
    codec = _codec(name)
    results: list[Pixels | None] = []
    step = _chunk_size(data)
    for some in (worst[i : i + step] for i in range(0, len(worst), step)):
        sweeps = codec.sweep([data.image(r.index) for r in some], len(data), [data.originals[r.index] for r in some])
        results += next(s for s in sweeps if (s.series or codec.name, s.setting) == (point.codec, point.setting)).results
    examples = []
    for row, result in zip(worst, results, strict=True):
        source = data.image(row.index)
        if result is None:
            continue
        words: dict[str, tuple[str, str, bool]] = {}
        boxes: dict[str, Any] = {}
        for system, found in zip(systems, answers, strict=True):
            before, after = found[row.index], _answers(system, [result], [], _NO_TASK)[0]
            if before is None or after is None:
                continue
            words[system.name] = before.words(), after.words(), compare(before, after).same
            if isinstance(before, Boxes) and isinstance(after, Boxes):
                scale = np.array([source.shape[1], source.shape[0]], float)
                boxes[system.name] = tuple(
                    [[(float(x), float(y)) for x, y in q / scale] for q in b.quads] for b in (before, after)
                )
        examples.append(
            EvalExample(
                name=data.names[row.index],
                codec=point.codec,
                setting=point.setting,
                result_bytes=round(row.size),
                source_bytes=round(data.about["source_bytes_per_image"] or 0),
                source=_picture(source),
                result=_picture(result),
                answers=words,
                boxes=boxes,
                score=score(row),
            )
        )
    return examples


_NO_TASK: Any = None


def name_is_photo(codec: str) -> bool:
    """Whether a codec's middle setting is its usual one; of a codec of few bytes it is the first."""
    return not codec.startswith("cifar")


def _picture(pixels: Pixels) -> bytes:
    """Small images as PNG, exactly; photos as a small JPEG."""
    if max(pixels.shape[:2]) <= 128:
        return encode_png(pixels)
    return encode_plain_jpeg(thumbnail(pixels, long_side=640), quality=85)
