"""Folders through the recurrent codec: photos to .vzc files or one pack, and back to PNG files.

As in `batch`: one record for each input, in input order, whatever happens to any of them. Small files travel in groups, since
the network takes many small images in little more time than one; a group is made from the list of inputs alone, so that the
number of jobs changes no output.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vizcomp._version import __version__
from vizcomp.batch import one_line, open_log, reason_to_skip, size_of, system_by_name, system_errors
from vizcomp.engines import available_cores, in_worker
from vizcomp.errors import FormatError, InputError, OutputError, SettingsError, VizcompError
from vizcomp.files.find import EXTENSIONS, InputFile
from vizcomp.files.names import OutputNames
from vizcomp.files.place import printable
from vizcomp.files.read import FileState, file_state, map_file, read_file
from vizcomp.files.store import AnyPath
from vizcomp.files.write import check_output_folder, write_atomic
from vizcomp.loop import CRASH, Item, Log, Outcome, Records, attempt, replacing, run_batch
from vizcomp.neural.codec import BATCH, NeuralCodec
from vizcomp.neural.find import find_model
from vizcomp.neural.models import MODELS, saved_fingerprint
from vizcomp.neural.packs import VzcPack
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.encode import encode_png
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import load, to_srgb
from vizcomp.results import CodecRecord, CodecStatus, CodecTotals
from vizcomp.vision import verify as vision_verify
from vizcomp.vision.answers import Answer, Comparison, compare
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc
from vizcomp.vzc.fields import MAX_ITERATIONS, TAG_ALPHA, check_name
from vizcomp.vzc.packs import BLOCK, PackEntry, PackReader, PackWriter

Pixels = npt.NDArray[np.uint8]
OnRecord = Callable[[CodecRecord], None]

VZC_EXTENSIONS = frozenset({".vzc"})
GROUP = 64  # small files that travel together
SMALL_FILE = 16_384  # bytes: above, a file travels alone
SMALL_SIDE = 64  # pixels: above, an image of a group is coded alone
MAX_PACKED_PIXELS = 1 << 21  # packs are decoded whole, without tiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    """What every input of `encode` shares.

    Attributes:
        model: a bundled codec's name, or the path of one.
        iterations, bpp, search: as in `NeuralCodec.encode`; in a pack, `bpp` is of the payload.
        max_pixels: larger photos are refused before memory is taken.
        overwrite: replace outputs that exist; otherwise such an input is skipped.
        resume: skip what an earlier run finished with the same content and settings; redo what it only started.
        dry_run: do all the work, write nothing.
        verify: a vision system by name: each image gets the fewest iterations on which it answers as on the source, no more than
            the settings above allow; "" for none.
        tolerance: how much its answer may differ, 0..1; see `vision.compare`.
        offline: never touch the network.
    """

    model: str = "photo"
    iterations: int | None = None
    bpp: float | None = None
    search: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    overwrite: bool = False
    resume: bool = False
    dry_run: bool = False
    verify: str = ""
    tolerance: float = 0.0
    offline: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise SettingsError(f"--tolerance {self.tolerance} is out of range", "it goes from 0 to 1")
        if self.bpp is not None and not 0 < self.bpp < math.inf:
            raise SettingsError(f"{self.bpp} bits for each pixel are not possible", "use a number above 0, as --bpp 0.5")
        _check_resume(self.resume, self.overwrite)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        return dataclasses.asdict(self)


def _check_resume(resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise SettingsError("--resume and --overwrite contradict each other", "omit one of them")


def _what_decides(verb: str, settings: EncodeSettings | DecodeSettings, **more: Any) -> dict[str, Any]:
    """All on which the content of an output depends."""
    leave = ("overwrite", "resume", "dry_run", "offline", "max_pixels")
    return {"verb": verb, **{k: v for k, v in settings.to_dict().items() if k not in leave}, **more, "version": __version__}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecRun:
    """A finished or interrupted run.

    Attributes:
        records: one for each input, in their order.
        pack: the pack that was written, if one was.
    """

    records: Records[CodecRecord]
    totals: CodecTotals
    interrupted: bool = False
    pack: AnyPath | None = None

    @property
    def exit_code(self) -> int:
        """As the contract has it; 3 where nothing could be done for want of a model."""
        if self.interrupted:
            return 130
        if not self.totals.failed and not self.totals.partial:
            return 0
        if self.totals.images:
            return 1
        wrong = (r for r in self.records if r.status in ("failed", "partial"))
        return 3 if all(r.error_type == "WeightsMissingError" for r in wrong) else 1


@dataclasses.dataclass(eq=False)
class _Image:
    """One input on its way through a worker.

    `company`: an earlier run finished this image. It is encoded again, but not written, so that its batch stays the same:
    a network's sums depend in the last digits on the batch.
    """

    file: InputFile
    target: AnyPath | None
    record: CodecRecord
    root: AnyPath | None = None
    replace: bool = False
    company: bool = False
    pixels: Pixels | None = None
    stored: vzc.Vzc | None = None
    data: bytes = b""
    entry: PackEntry | None = None
    found: vision_verify.Verified[int] | None = None
    written: bool = False

    @property
    def open(self) -> bool:
        return self.record.status == "ok"

    def step(self, work: Callable[[_Image], CodecRecord]) -> None:
        """One step of the work: its record replaces the last, the time is added."""
        before = self.record
        after = attempt(lambda: _within_memory(work, self), lambda exc: _failed(self.file, exc, before.source_bytes))
        self.record = dataclasses.replace(after, seconds=before.seconds + after.seconds)

    def write(self, data: bytes, settings: EncodeSettings | DecodeSettings) -> str | None:
        """Write its file where it has one of its own; what the record says of it."""
        if self.target is None or settings.dry_run or self.company:
            return None
        write_atomic(self.target, data, below=self.root)
        self.written = True
        return printable(self.target)

    def outcome(self) -> Outcome[CodecRecord]:
        """Its result. Only a whole one can be reused."""
        return Outcome(
            self.record,
            written=self.target if self.written and self.open else None,
            payload=bytes([self.entry.grey]) + self.entry.payload if self.entry is not None and self.open else None,
            extra=self.entry if self.open else None,
        )


def _image(item: Item) -> _Image:
    file = item.file
    record = CodecRecord(input=file.shown, output=None, status="ok", source_bytes=size_of(file.path))
    return _Image(file, item.target, record, item.root, item.replace, item.known is not None)


def _failed(file: InputFile, error: VizcompError, source_bytes: int = 0) -> CodecRecord:
    return CodecRecord(
        input=file.shown,
        output=None,
        status="failed",
        error=one_line(error),
        error_type=type(error).__name__,
        images=0,
        source_bytes=source_bytes or size_of(file.path),
    )


def _skipped(item: _Image, why: str) -> CodecRecord:
    return dataclasses.replace(item.record, status="skipped", error=why, images=0)


def _within_memory(work: Callable[[Any], Any], on: Any) -> Any:
    """`work(on)`; torch says by a RuntimeError of its own that memory ran out."""
    try:
        return work(on)
    except RuntimeError as exc:
        if "allocate" in str(exc):
            raise MemoryError from exc
        raise


def _limit_threads(jobs: int) -> None:
    """Workers share the cores: more threads than one each would only get in each other's way."""
    import torch

    if in_worker():
        torch.set_num_threads(1)
    elif jobs:
        torch.set_num_threads(min(jobs, available_cores()))


@functools.lru_cache(maxsize=1)
def _codec(model: str, jobs: int) -> NeuralCodec:
    """One codec for each process, loaded on the first image."""
    _limit_threads(jobs)
    return NeuralCodec.load(model)


def _groups(items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
    """Neighbouring small files together, any other alone, in their order."""
    waiting: list[Item] = []
    for item in items:
        if size_of(item.file.path) > SMALL_FILE:
            if waiting:
                yield tuple(waiting)
            waiting = []
            yield (item,)
            continue
        waiting.append(item)
        if len(waiting) == GROUP:
            yield tuple(waiting)
            waiting = []
    if waiting:
        yield tuple(waiting)


def _images_of(items: Sequence[Item]) -> list[_Image]:
    """The images of a task; of those that need no work, only those that may have been coded with others."""
    alone = len(items) == 1 or all(item.known is not None for item in items)
    return [
        image
        for item, image in ((item, _image(item)) for item in items)
        if item.known is None or not (alone or max(item.known["width"], item.known["height"]) > SMALL_SIDE)
    ]


def _outcomes_of(items: Sequence[Item], coded: Sequence[_Image]) -> list[Outcome[CodecRecord]]:
    """One for each item; for what was known the loop has the record."""
    found = {id(image.file): image for image in coded}
    known = Outcome(CodecRecord(input="", output=None, status="skipped"))
    return [known if item.known is not None else found[id(item.file)].outcome() for item in items]


def _targets(
    files: Iterable[InputFile], output: AnyPath | None, suffix: str, *, extensions: frozenset[str], dry_run: bool
) -> tuple[Iterator[InputFile], Callable[[InputFile], AnyPath], AnyPath | None]:
    """Where outputs go: beside the inputs (None), below a folder, or, for one input, into the very file that `output` names.

    The inputs, what gives each its output, and the folder.
    """
    files = iter(files)
    if output is None or output.suffix.lower() != suffix or output.is_dir():
        if output is not None and not dry_run:
            check_output_folder(output)
        return files, OutputNames(output, suffix, extensions=extensions).path_for, output
    first = list(itertools.islice(files, 2))
    if len(first) > 1:
        raise OutputError(f"{printable(output)} is one file, but the inputs are several", "name a folder with -o")
    if not dry_run:
        check_output_folder(output.parent)
    the_file = output
    return iter(first), lambda _: the_file, output.parent


def _totals(records: Iterable[CodecRecord], seconds: float, *, vzc_is_output: bool, pack_bytes: int | None = None) -> CodecTotals:
    files = partial = skipped = failed = coded = pixels = source = output = 0
    for record in records:  # once: they may be on disk
        files += 1
        partial += record.status == "partial"
        skipped += record.status == "skipped"
        failed += record.status == "failed"
        if record.images:
            coded += record.images
            pixels += record.pixels
            source += record.source_bytes
            output += record.output_bytes
    output = output if pack_bytes is None else pack_bytes
    return CodecTotals(
        files=files,
        partial=partial,
        skipped=skipped,
        failed=failed,
        images=coded,
        pixels=pixels,
        source_bytes=source,
        output_bytes=output,
        bpp=8 * (output if vzc_is_output else source) / pixels if pixels else None,
        seconds=seconds,
        images_per_second=coded / seconds if seconds > 0 else 0.0,
    )


# --- encode ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class EncodeTask:
    """Some inputs of `encode` that travel together; an item without target goes into a pack."""

    items: tuple[Item, ...]
    settings: EncodeSettings
    jobs: int = 0

    def again(self) -> EncodeTask:
        """As `loop.Task`."""
        return dataclasses.replace(self, items=replacing(self.items))


def run_encode(
    files: Iterable[InputFile],
    output: AnyPath | None,
    settings: EncodeSettings,
    *,
    jobs: int = 0,
    engine: str = "local",
    isolate: bool = False,
    on_record: OnRecord = lambda record: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> CodecRun:
    """Write NAME.vzc for each photo, beside it or below `output`.

    Ctrl-C ends the run after what is in hand; what is finished stays.

    Args:
        output: a folder; for one photo also a file that ends in .vzc; None: beside each photo.
        isolate: as for `batch.run_djpeg`.

    Raises:
        VizcompError: what no file can do without is wrong: the model, a setting, the folder.
    """
    decides = _what_decides("encode", settings, identities=_check_encoder(settings, jobs)[1])
    files, target, folder = _targets(files, output, ".vzc", extensions=EXTENSIONS, dry_run=settings.dry_run)
    started = time.perf_counter()
    records = Records(CodecRecord)
    with open_log(folder, decides, settings) as log:
        interrupted = run_batch(
            (log.item(file, target(file)) for file in files),
            records,
            tasks=lambda items: (EncodeTask(group, settings, jobs) for group in _groups(items)),
            work=encode_some,
            on_crash=_encode_crashed,
            log=log,
            on_record=on_record,
            on_interrupt=on_interrupt,
            jobs=jobs,
            engine=engine,
            isolate=isolate,
        )
    totals = _totals(records, time.perf_counter() - started, vzc_is_output=True)
    return CodecRun(records=records, totals=totals, interrupted=interrupted)


def _check_encoder(settings: EncodeSettings, jobs: int) -> tuple[NeuralCodec, list[str]]:
    """The codec, and who codes and judges, with fingerprints; fails before the first file where every file would fail."""
    codec = _codec(settings.model, jobs)
    if settings.iterations is not None and not 1 <= settings.iterations <= codec.iterations:
        raise SettingsError(
            f"{settings.iterations} iterations: model {codec.name} has 1 to {codec.iterations}", "choose another --iterations"
        )
    identities = [codec.fingerprint.hex()]
    if settings.verify:
        identities.append(system_by_name(settings.verify, settings.offline).fingerprint)
    return codec, identities


def _encode_crashed(task: EncodeTask) -> list[Outcome[CodecRecord]]:
    return [Outcome(_failed(item.file, VizcompError(CRASH))) for item in task.items]


def encode_some(task: EncodeTask) -> list[Outcome[CodecRecord]]:
    """Encode the photos of a task and write them, or make what a pack holds of them: one outcome each, whatever happens."""
    coded = _images_of(task.items)
    small: dict[tuple[int, ...], list[_Image]] = {}
    for image in coded:
        image.step(lambda it: _read_photo(it, task.settings))
        if not image.open or image.pixels is None:
            continue
        if max(image.pixels.shape) <= SMALL_SIDE:
            small.setdefault(image.pixels.shape[:2], []).append(image)
        elif not image.company:
            _encode_alone(image, task)
    for group in small.values():
        if not all(image.company for image in group):
            _encode_together(group, task)
    return _outcomes_of(task.items, coded)


def _read_photo(item: _Image, settings: EncodeSettings) -> CodecRecord:
    replace = settings.overwrite or settings.dry_run or item.replace or item.company
    if item.target is not None and (why := reason_to_skip(item.target, item.file, replace=replace)) is not None:
        return _skipped(item, why)
    photo = load(item.file.path, max_pixels=settings.max_pixels)
    pixels, notices = to_srgb(photo)
    item.pixels = np.ascontiguousarray(upright(pixels, photo.orientation))
    height, width = item.pixels.shape[:2]
    return dataclasses.replace(item.record, width=width, height=height, pixels=width * height, notices=(*photo.notices, *notices))


def _encode_together(group: list[_Image], task: EncodeTask) -> None:
    """Small images of one size. Where that fails each is tried alone, so that each gets its own error."""
    started = time.perf_counter()
    try:
        _within_memory(lambda g: _encode(g, task), group)
    except Exception:
        for item in group:
            if not item.company:
                _encode_alone(item, task)
        return
    share = (time.perf_counter() - started) / len(group)
    for item in group:
        item.record = dataclasses.replace(item.record, seconds=item.record.seconds + share)
        item.step(lambda it: _write_vzc(it, task.settings))


def _encode_alone(item: _Image, task: EncodeTask) -> None:
    def work(it: _Image) -> CodecRecord:
        _encode([it], task)
        return _write_vzc(it, task.settings)

    item.step(work)


def _encode(group: list[_Image], task: EncodeTask) -> None:
    """Gives each of the items, all of one size, its file's bytes, or its entry of a pack."""
    settings = task.settings
    codec = _codec(settings.model, task.jobs)
    sources = [item.pixels for item in group if item.pixels is not None]
    if group[0].target is None:
        for item, entry in zip(group, _entries(codec, sources, settings), strict=True):
            item.entry = entry
        return
    if len(sources) == 1:
        made = [codec.encode(sources[0], iterations=settings.iterations, bpp=settings.bpp, search=settings.search)]
    else:
        most = codec.iterations if settings.bpp is not None and settings.iterations is None else settings.iterations
        files = codec.encode_many(np.stack([_rgb(s) for s in sources]), iterations=most, search=settings.search)
        made = [_fitted(data, settings.bpp, grey=s.ndim == 2) for data, s in zip(files, sources, strict=True)]
    for item, data, source in zip(group, made, sources, strict=True):
        if settings.verify and not item.company:
            item.found = _verified(codec, source, data, settings)
        item.data = data if item.found is None else item.found.data


def _verified(codec: NeuralCodec, source: Pixels, data: bytes, settings: EncodeSettings) -> vision_verify.Verified[int]:
    """The fewest iterations of a file on which the system answers as on the source; each verdict is on the decoded file."""
    system = system_by_name(settings.verify, settings.offline)

    def answer(image: Pixels) -> Answer:
        with system_errors(settings.verify):
            return system.answers([np.ascontiguousarray(_rgb(image))])[0]

    wanted = answer(source)
    file = vzc.unpack(data)
    header = file.header

    def shortened(count: int) -> bytes:
        chunks = list(file.chunks)[:count]
        return vzc.pack(chunks, model=header.model, width=header.width, height=header.height, grey=header.grey)

    def judge(written: bytes) -> Comparison:
        return compare(wanted, answer(codec.decode(written).image), tolerance=settings.tolerance)

    return vision_verify.smallest(range(1, len(file.chunks) + 1), shortened, judge)


def _rgb(image: Pixels) -> Pixels:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)


def _fitted(data: bytes, bpp: float | None, *, grey: bool) -> bytes:
    """A file with its last iterations left out until it fits, and marked as grey where its source was."""
    file = vzc.unpack(data)
    header, chunks = file.header, list(file.chunks)
    while True:
        data = vzc.pack(chunks, model=header.model, width=header.width, height=header.height, grey=grey)
        if bpp is None or len(chunks) == 1 or 8 * len(data) <= bpp * header.width * header.height:
            return data
        chunks.pop()


def _entries(codec: NeuralCodec, sources: Sequence[Pixels], settings: EncodeSettings) -> list[PackEntry]:
    """What a pack holds of images of one size; with `bpp` as many iterations as fit, one at least."""
    height, width = sources[0].shape[:2]
    if height * width > MAX_PACKED_PIXELS:
        raise InputError(f"{width}x{height} pixels are too many for a pack", "packs are for small images: leave out --pack")
    most = codec.iterations if settings.bpp is not None and settings.iterations is None else settings.iterations
    codes = codec.codes_many(np.stack([_rgb(s) for s in sources]), iterations=most, search=settings.search)
    payloads = coding.encode_batch(codec.context, codes, [])
    counts = [len(codes)] * len(sources)
    for shorter in range(len(codes) - 1, 0, -1):
        over = [i for i, p in enumerate(payloads) if settings.bpp is not None and 8 * len(p) > settings.bpp * height * width]
        if not over:
            break
        again = coding.encode_batch(codec.context, [plane[over] for plane in codes[:shorter]], [])
        for i, payload in zip(over, again, strict=True):
            payloads[i], counts[i] = payload, shorter
    return [
        PackEntry(payload=payload, width=width, height=height, grey=s.ndim == 2, iterations=count)
        for payload, count, s in zip(payloads, counts, sources, strict=True)
    ]


def _write_vzc(item: _Image, settings: EncodeSettings) -> CodecRecord:
    """The record of an encoded image; writes its file where it has one of its own."""
    item.pixels = None
    found = item.found
    if found is not None and not found.verified:
        reached = f"{settings.verify} answers otherwise up to iteration {found.rung} (score {found.verdict.score:.2f})"
        item.record = dataclasses.replace(item.record, notices=(*item.record.notices, f"not verified: {reached}"))
    if item.entry is not None:
        size, iterations = len(item.entry.payload), item.entry.iterations
    else:
        size, iterations = len(item.data), vzc.read_header(item.data).iterations
    return dataclasses.replace(
        item.record,
        output=item.write(item.data, settings),
        output_bytes=size,
        iterations=iterations,
        bpp=8 * size / item.record.pixels,
        verified=None if found is None else found.verified,
        verify_score=None if found is None else found.verdict.score,
        verify_trials=0 if found is None else found.trials,
    )


# --- encode into a pack ---------------------------------------------------------------------------------------------


def run_encode_pack(
    files: Iterable[InputFile],
    output: AnyPath,
    settings: EncodeSettings,
    *,
    names: bool = True,
    jobs: int = 0,
    engine: str = "local",
    isolate: bool = False,
    on_record: OnRecord = lambda record: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> CodecRun:
    """Write photos into one pack. An image in a folder below its input has that folder for a class.

    Ctrl-C ends the run after what is in hand; what is finished goes into `NAME.partial.vzc`, which nobody takes for the whole.

    Args:
        output: the pack.
        names: keep the photos' paths below their input.
        isolate: as for `batch.run_djpeg`.

    With `resume`, images that an earlier run coded are taken from the journal, also where it was killed before it wrote the pack.

    Raises:
        OutputError: `output` exists, is a folder, or cannot be written.
        VizcompError: what no file can do without is wrong: the model, or a setting.
    """
    if output.is_dir():
        raise OutputError(f"{printable(output)} is a folder", "name a file for the pack, as -o set.vzc")
    if settings.verify:
        raise SettingsError("--verify and --pack cannot go together", "encode to files of their own, or omit --verify")
    codec, identities = _check_encoder(settings, jobs)
    decides = _what_decides("encode --pack", settings, identities=identities)
    whole_pack = os.fsencode(output.name) + b"\0"
    with open_log(output.parent, decides, settings) as log:
        ours = settings.resume and log.journal is not None and log.journal.begun(whole_pack)
        if output.exists() and not (settings.overwrite or settings.dry_run or ours):
            raise OutputError(f"{printable(output)} exists already", "--overwrite replaces it")
        if not settings.dry_run:
            check_output_folder(output.parent)
        if log.journal is not None:
            log.journal.begin(whole_pack)
        listed = list(files)  # the classes must be known before the first image is added
        classes = sorted({c for file in listed if (c := _class_of(file)) is not None})
        number = {name: i for i, name in enumerate(classes)}
        writer = PackWriter(model=codec.fingerprint, classes=classes)
        taken: set[str] = set()

        def into_the_pack(item: Item, outcome: Outcome[CodecRecord]) -> Outcome[CodecRecord] | None:
            entry, record = outcome.extra, outcome.record
            if item.known is not None and outcome.payload is not None:
                grey, payload = outcome.payload[:1] == b"\1", outcome.payload[1:]
                entry = PackEntry(
                    payload=payload, width=record.width, height=record.height, grey=grey, iterations=record.iterations
                )
            if entry is None:
                return None
            name, notice = _packed_name(item.file, taken) if names else (None, "")
            label = number.get(_class_of(item.file) or "")
            record = _added(writer, item.file, record, dataclasses.replace(entry, name=name, label=label))
            return Outcome(dataclasses.replace(record, notices=(*record.notices, notice)) if notice else record)

        started = time.perf_counter()
        records = Records(CodecRecord)
        interrupted = run_batch(
            (log.item(file, None, whole_pack + os.fsencode(str(file.path.absolute()))) for file in listed),
            records,
            tasks=lambda items: (EncodeTask(group, settings, jobs) for group in _groups(items)),
            work=encode_some,
            on_crash=_encode_crashed,
            log=log,
            on_outcome=into_the_pack,
            on_record=on_record,
            on_interrupt=on_interrupt,
            jobs=jobs,
            engine=engine,
            isolate=isolate,
        )
    written: AnyPath | None = None
    data = writer.finish()
    if len(writer) and not settings.dry_run:
        written = output.with_name(f"{output.stem}.partial{output.suffix}") if interrupted else output
        write_atomic(written, data)
        shown = printable(written)
        packed = (dataclasses.replace(r, output=shown) if r.images else r for r in records)
        records = Records(CodecRecord, packed)
    size = len(data) if len(writer) else 0
    totals = _totals(records, time.perf_counter() - started, vzc_is_output=True, pack_bytes=size)
    return CodecRun(records=records, totals=totals, interrupted=interrupted, pack=written)


def _added(writer: PackWriter, file: InputFile, record: CodecRecord, entry: PackEntry) -> CodecRecord:
    try:
        writer.add(
            entry.payload,
            entry.width,
            entry.height,
            grey=entry.grey,
            iterations=entry.iterations,
            name=entry.name,
            label=entry.label,
        )
    except VizcompError as exc:
        return _failed(file, exc)
    return record


def _class_of(file: InputFile) -> str | None:
    """The folder of a photo, below its input; None where it is there directly, or the format has no such name."""
    if len(file.relative.parts) < 2:
        return None
    name = file.relative.parts[-2]
    try:
        check_name(name)
    except InputError:
        return None
    return name


def _packed_name(file: InputFile, taken: set[str]) -> tuple[str | None, str]:
    """A photo's name in a pack, made different from those `taken`, and what is to be said about it."""
    path = PurePosixPath(file.relative.as_posix())
    for number in itertools.count(1):
        name = str(path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}"))
        try:
            check_name(name)
        except InputError as exc:
            return None, f"packed without its name: {exc.message}"
        if name not in taken:
            taken.add(name)
            return name, "" if number == 1 else f"named {name} in the pack: there is another of its name"
    raise AssertionError("unreachable: the numbers do not end")


# --- decode ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What every input of `decode` shares.

    Attributes:
        model: a codec to look at first, before the bundled ones and those in the cache; a name or a path.
        iterations: stop after so many; None: all there are.
        max_pixels: a larger image is refused by its header.
        overwrite, resume, dry_run: as in `EncodeSettings`.
    """

    model: str | None = None
    iterations: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    overwrite: bool = False
    resume: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise SettingsError(f"{self.iterations} iterations cannot be decoded", "use 1 or more")
        _check_resume(self.resume, self.overwrite)

    @property
    def models(self) -> tuple[str, ...]:
        """As `neural.find_model` wants it; the bundled ones it tries by itself."""
        return () if self.model is None or self.model in MODELS else (self.model,)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class DecodeTask:
    """Some inputs of `decode`, each of one image, that travel together."""

    items: tuple[Item, ...]
    settings: DecodeSettings
    jobs: int = 0

    def again(self) -> DecodeTask:
        """As `loop.Task`."""
        return dataclasses.replace(self, items=replacing(self.items))


class PackTarget(NamedTuple):
    """An image of a pack: its number, where it goes, whether a file there may be replaced, and whether it is done already."""

    number: int
    path: AnyPath
    replace: bool
    known: bool
    fresh: bool = False


@dataclasses.dataclass(frozen=True)
class PackTask:
    """Some images of one pack."""

    item: Item
    targets: tuple[PackTarget, ...]
    settings: DecodeSettings
    jobs: int = 0

    @property
    def items(self) -> tuple[Item, ...]:
        return (self.item,)

    def again(self) -> PackTask:
        """As `loop.Task`."""
        return dataclasses.replace(self, targets=tuple(t._replace(replace=t.replace or t.fresh) for t in self.targets))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackPart:
    """What became of some images of a pack; `lost` and `skipped` are not among `images`."""

    images: int = 0
    skipped: int = 0
    lost: int = 0
    error: VizcompError | None = None
    pixels: int = 0
    output_bytes: int = 0
    sizes: frozenset[tuple[int, int]] = frozenset()
    iterations: frozenset[int] = frozenset()
    seconds: float = 0.0
    written: tuple[PackedImage, ...] = ()


@dataclasses.dataclass(frozen=True)
class PackedImage:
    """One image of a pack that was written: what a later run must know of it."""

    target: AnyPath
    state: FileState
    width: int
    height: int
    iterations: int

    def to_dict(self) -> dict[str, Any]:
        """What the journal keeps, as JSON types."""
        return {"width": self.width, "height": self.height, "iterations": self.iterations, "bytes": self.state[0]}


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A pack whose parts are about to come; `broken` is what could not even be planned, `done` what an earlier run did."""

    file: InputFile
    folder: AnyPath
    count: int
    broken: PackPart
    tasks: tuple[PackTask, ...]
    done: PackPart = PackPart()  # frozen
    source_state: FileState | None = None


def run_decode(
    files: Iterable[InputFile],
    output: AnyPath | None,
    settings: DecodeSettings,
    *,
    jobs: int = 0,
    engine: str = "local",
    isolate: bool = False,
    on_record: OnRecord = lambda record: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> CodecRun:
    """Write NAME.png for each .vzc file, beside it or below `output`; for a pack, a folder NAME with its images.

    Ctrl-C ends the run after what is in hand; what is finished stays.

    Args:
        output: a folder; for one file also one that ends in .png; None: beside each file.
        isolate: as for `batch.run_djpeg`.

    Raises:
        VizcompError: what no file can do without is wrong: the model that was given, the folder.
    """
    # a wrong path ends the command, not each of its files
    identities = [saved_fingerprint(Path(model)).hex() for model in settings.models]
    files, target, folder = _targets(files, output, ".png", extensions=VZC_EXTENSIONS, dry_run=settings.dry_run)
    started = time.perf_counter()
    plans: collections.deque[_Plan] = collections.deque()
    records = Records(CodecRecord)
    with open_log(folder, _what_decides("decode", settings, identities=identities), settings) as log:
        interrupted = run_batch(
            (log.item(file, target(file)) for file in files),
            records,
            tasks=lambda items: _decode_tasks(items, settings, jobs, plans, log),
            work=decode_some,
            on_crash=_decode_crashed,
            log=log,
            whole=lambda results: _with_packs_whole(results, plans, settings, log),
            on_record=on_record,
            on_interrupt=on_interrupt,
            jobs=jobs,
            engine=engine,
            isolate=isolate,
        )
    totals = _totals(records, time.perf_counter() - started, vzc_is_output=False)
    return CodecRun(records=records, totals=totals, interrupted=interrupted)


def _decode_tasks(
    items: Iterable[Item], settings: DecodeSettings, jobs: int, plans: collections.deque[_Plan], log: Log
) -> Iterator[DecodeTask | PackTask]:
    """Tasks in the order of the inputs; a pack becomes as many as it needs, and its plan is left in `plans`."""
    singles: list[Item] = []

    def waiting() -> Iterator[DecodeTask]:
        yield from (DecodeTask(group, settings, jobs) for group in _groups(singles))
        singles.clear()

    for item in items:
        plan = None if item.known is not None else _planned(item, settings, jobs, log)
        if plan is None:
            singles.append(item)
            if len(singles) == GROUP:
                yield from waiting()
            continue
        yield from waiting()
        plans.append(plan)
        yield from plan.tasks
    yield from waiting()


def _with_packs_whole(
    results: Iterator[list[Outcome[CodecRecord]] | PackPart], plans: collections.deque[_Plan], settings: DecodeSettings, log: Log
) -> Iterator[Outcome[CodecRecord]]:
    """One outcome for each pack, when its last part has come; where it is interrupted, of the parts that came."""
    parts: list[PackPart] = []
    for result in results:
        if isinstance(result, list):
            yield from result
            continue
        parts.append(result)
        _remember(log, plans[0], result)
        if len(parts) == len(plans[0].tasks):
            yield Outcome(_pack_record(plans.popleft(), parts, settings))
            parts = []
    if parts:
        yield Outcome(_pack_record(plans.popleft(), parts, settings))


def _remember(log: Log, plan: _Plan, part: PackPart) -> None:
    """What was written of a pack, for a run that resumes."""
    if log.journal is None or plan.source_state is None:
        return
    for each in part.written:
        log.journal.finish(
            each.target, plan.file.path, plan.source_state, written=each.target, written_state=each.state, record=each.to_dict()
        )


def _decode_crashed(task: DecodeTask | PackTask) -> list[Outcome[CodecRecord]] | PackPart:
    if isinstance(task, PackTask):
        return PackPart(lost=sum(not each.known for each in task.targets), error=VizcompError(CRASH))
    return [Outcome(_failed(item.file, VizcompError(CRASH))) for item in task.items]


def decode_some(task: DecodeTask | PackTask) -> list[Outcome[CodecRecord]] | PackPart:
    """Decode the files of a task, or some images of a pack, and write them, whatever happens to any of them."""
    if isinstance(task, PackTask):
        return _decode_pack(task)
    coded = _images_of(task.items)
    alike: dict[tuple[bytes, int, int, int], list[_Image]] = {}
    for image in coded:
        image.step(lambda it: _read_vzc(it, task.settings))
        if not image.open or image.stored is None:
            continue
        header = image.stored.header
        if image.stored.complete and max(header.width, header.height) <= SMALL_SIDE:
            alike.setdefault((header.model, header.width, header.height, header.iterations), []).append(image)
        elif not image.company:
            _decode_alone(image, task)
    for group in alike.values():
        if not all(image.company for image in group):
            _decode_together(group, task)
    return _outcomes_of(task.items, coded)


def _read_vzc(item: _Image, settings: DecodeSettings) -> CodecRecord:
    replace = settings.overwrite or settings.dry_run or item.replace or item.company
    if item.target is not None and (why := reason_to_skip(item.target, item.file, replace=replace)) is not None:
        return _skipped(item, why)
    most = 16 * settings.max_pixels + (64 << 20)
    data = read_file(item.file.path, check=lambda head, name: vzc.kind(head), max_bytes=most)
    if data and vzc.kind(data) == "pack":
        PackReader(data)  # says why it could not be planned as one
    item.stored = vzc.unpack(data, max_pixels=settings.max_pixels, allow_truncated=True)
    item.data = data
    header = item.stored.header
    return dataclasses.replace(item.record, width=header.width, height=header.height, pixels=header.width * header.height)


def _found(wanted: bytes, task: DecodeTask) -> NeuralCodec:
    _limit_threads(task.jobs)
    return find_model(wanted, task.settings.models)


def _decode_together(group: list[_Image], task: DecodeTask) -> None:
    """Small files of one model and size. Where that fails each is tried alone, so that each gets its own error."""
    started = time.perf_counter()
    stored = [item.stored for item in group if item.stored is not None]
    many = min(task.settings.iterations or MAX_ITERATIONS, stored[0].header.iterations)
    try:
        codec = _found(stored[0].header.model, task)
        made = _within_memory(lambda files: codec.decode_many(files, iterations=many), stored)
    except Exception:
        for item in group:
            if not item.company:
                _decode_alone(item, task)
        return
    share = (time.perf_counter() - started) / len(group)
    for item, image in zip(group, made, strict=True):
        item.pixels = image
        item.record = dataclasses.replace(item.record, seconds=item.record.seconds + share, iterations=many)
        item.step(lambda it: _write_png(it, task.settings))


def _decode_alone(item: _Image, task: DecodeTask) -> None:
    def work(it: _Image) -> CodecRecord:
        codec = _found(vzc.read_header(it.data, max_pixels=task.settings.max_pixels).model, task)
        found = codec.decode(
            it.data, iterations=task.settings.iterations, max_pixels=task.settings.max_pixels, allow_truncated=True
        )
        it.pixels = found.image
        it.record = dataclasses.replace(it.record, iterations=found.iterations)
        return _write_png(it, task.settings)

    item.step(work)


def _write_png(item: _Image, settings: DecodeSettings) -> CodecRecord:
    """The record of a decoded image; writes it."""
    assert item.pixels is not None
    assert item.stored is not None
    stored, pixels = item.stored, item.pixels
    item.pixels = None
    header = stored.header
    if (alpha := header.item(TAG_ALPHA)) is not None:
        colours = pixels if pixels.ndim == 3 else pixels[..., None]
        pixels = np.concatenate([colours, vzc.unpack_alpha(alpha, header.width, header.height)[..., None]], axis=2)
    data = encode_png(pixels)
    record = dataclasses.replace(
        item.record,
        output=item.write(data, settings),
        output_bytes=len(data),
        bpp=8 * len(item.data) / item.record.pixels,
    )
    if stored.complete:
        return record
    return dataclasses.replace(
        record,
        status="partial",
        error=f"{stored.problem}; decoded {record.iterations} of {header.iterations} iterations",
        error_type="TruncatedError",
    )


# --- decode a pack --------------------------------------------------------------------------------------------------


def _planned(item: Item, settings: DecodeSettings, jobs: int, log: Log) -> _Plan | None:
    """How a pack is to be unpacked; None for what is no pack, or cannot be opened as one."""
    file, path = item.file, item.target
    assert path is not None
    try:
        data = map_file(file.path, check=lambda head, name: vzc.kind(head))
        if vzc.kind(data) != "pack":
            return None
        reader = PackReader(data, max_pixels=settings.max_pixels)
    except VizcompError:
        return None
    log.give_up(item)  # its outputs are those of its images
    known: list[tuple[int, str | None, str | None]] = []
    broken = PackPart()
    for first in range(0, len(reader), BLOCK):
        block = range(first, min(first + BLOCK, len(reader)))
        try:
            for i in block:
                label = reader.label(i)
                known.append((i, reader.name(i), None if label is None else reader.classes[label]))
        except FormatError as exc:
            known = [each for each in known if each[0] < first]
            broken = dataclasses.replace(broken, lost=broken.lost + len(block), error=broken.error or exc)
    folder = path.with_name(path.name.removesuffix(".png"))
    source_state = None
    if log.journal is not None:
        with contextlib.suppress(OSError):
            source_state = file_state(file.path)
    done, targets = PackPart(), []
    for i, name in _png_names(known, len(str(max(0, len(reader) - 1)))):
        each = log.item(file, folder / name)
        targets.append(PackTarget(i, folder / name, each.replace, each.known is not None, each.fresh))
        if each.known is not None:
            done = _with_one_more(done, each.known["width"], each.known["height"], each.known["iterations"], each.known["bytes"])
    # The images of a batch stay together in every run, as `_Image.company` says.
    batches = [tuple(targets[a : a + BATCH]) for a in range(0, len(targets), BATCH)]
    batches = [batch for batch in batches if not all(each.known for each in batch)]
    tasks = tuple(PackTask(item, batch, settings, jobs) for batch in batches or [()])  # one at least, to bring the record
    return _Plan(file, folder, len(reader), broken, tasks, done, source_state)


def _with_one_more(part: PackPart, width: int, height: int, iterations: int, size: int) -> PackPart:
    return dataclasses.replace(
        part,
        images=part.images + 1,
        pixels=part.pixels + width * height,
        output_bytes=part.output_bytes + size,
        sizes=part.sizes | {(width, height)},
        iterations=part.iterations | {iterations},
    )


def _png_names(known: Sequence[tuple[int, str | None, str | None]], digits: int) -> list[tuple[int, PurePosixPath]]:
    """Where the images of a pack go, given as (number, name, class): all different, also where upper and lower case are one.

    A name keeps its folders, and gets the suffix .png: `a.jpg` becomes `a.png`, or `a.jpg.png` where the pack has an `a.png`. A
    class that is not among the folders of the name becomes one. An image without a name has its number for one.
    """
    found: dict[int, PurePosixPath] = {}
    taken: set[str] = set()

    def claim(number: int, *wanted: PurePosixPath) -> None:
        numbered = (wanted[-1].with_name(f"{wanted[-1].stem}-{n}.png") for n in itertools.count(2))
        for path in itertools.chain(wanted, numbered):
            if (key := str(path).casefold()) not in taken:
                taken.add(key)
                found[number] = path
                return

    for as_they_are in (True, False):
        for number, name, label in known:
            path = PurePosixPath(name if name is not None else f"{number:0{digits}}.png")
            if label is not None and f"/{label}/" not in f"/{path.parent}/":
                path = label / path
            if (name is not None and path.suffix == ".png") != as_they_are:
                continue
            claim(number, path.with_suffix(".png"), path.with_name(f"{path.name}.png"))
    return [(number, found[number]) for number, _, _ in known]


@functools.lru_cache(maxsize=1)
def _pack(path: AnyPath, model: str | None, max_pixels: int, jobs: int) -> VzcPack:
    """One pack and its codec for each process."""
    _limit_threads(jobs)
    return VzcPack(path, model=model, max_pixels=max_pixels)


def _decode_pack(task: PackTask) -> PackPart:
    started = time.perf_counter()
    settings = task.settings
    part = PackPart()
    todo: list[PackTarget] = []
    for each in task.targets:
        if each.path.exists() and not (settings.overwrite or settings.dry_run or each.replace or each.known):
            part = dataclasses.replace(part, skipped=part.skipped + 1)
        else:
            todo.append(each)
    path = task.item.file.path
    try:
        pack = _pack(path, next(iter(settings.models), None), settings.max_pixels, task.jobs) if todo else None
    except VizcompError as exc:
        pack, part = None, dataclasses.replace(part, lost=sum(not each.known for each in todo), error=exc)
        todo = []
    while pack is not None and todo:
        count = _how_many(pack, todo)
        part, todo = _decode_portion(pack, task.item, todo[:count], settings, part), todo[count:]
    return dataclasses.replace(part, seconds=time.perf_counter() - started)


def _how_many(pack: VzcPack, todo: Sequence[PackTarget]) -> int:
    """How many of the next images go through together without taking much memory: one at least."""
    room = 1 << 24  # pixels
    for count, each in enumerate(todo):
        try:
            width, height = pack.reader.size(each.number)
        except FormatError:
            return max(1, count)
        room -= width * height
        if room < 0:
            return max(1, count)
    return len(todo)


def _decode_portion(pack: VzcPack, item: Item, todo: Sequence[PackTarget], settings: DecodeSettings, part: PackPart) -> PackPart:
    """Images that are decoded together; where that fails, each alone."""

    def pixels_of(numbers: list[int]) -> list[Pixels]:
        found: list[Pixels] = _within_memory(lambda wanted: pack.batch(wanted, iterations=settings.iterations), numbers)
        return found

    if all(each.known for each in todo):
        return part
    root = item.root if item.root is not None else (item.target or item.file.path).parent
    made: list[Pixels] = []
    with contextlib.suppress(FormatError, MemoryError):
        made = pixels_of([each.number for each in todo])
    for at, each in enumerate(todo):
        if each.known:
            continue
        state: FileState | None = None
        try:
            image = made[at] if made else pixels_of([each.number])[0]
            data = encode_png(image)
            if not settings.dry_run:
                write_atomic(each.path, data, below=root)
                with contextlib.suppress(OSError):
                    state = file_state(each.path)
        except (VizcompError, MemoryError) as exc:
            error = exc if isinstance(exc, VizcompError) else VizcompError("out of memory", "try fewer --jobs")
            part = dataclasses.replace(part, lost=part.lost + 1, error=part.error or error)
            continue
        entry = pack.reader.entry(each.number)
        iterations = min(entry.iterations, settings.iterations or entry.iterations)
        part = _with_one_more(part, entry.width, entry.height, iterations, len(data))
        if state is not None:
            one = PackedImage(each.path, state, entry.width, entry.height, iterations)
            part = dataclasses.replace(part, written=(*part.written, one))
    return part


def _pack_record(plan: _Plan, parts: Sequence[PackPart], settings: DecodeSettings) -> CodecRecord:
    """The record of a whole pack; a part that has not come was interrupted."""
    parts = (plan.broken, plan.done, *parts)
    done, skipped, lost = (sum(getattr(p, what) for p in parts) for what in ("images", "skipped", "lost"))
    missing = plan.count - done - skipped - lost
    error = next((p.error for p in parts if p.error is not None), None)
    sizes = frozenset[tuple[int, int]]().union(*(p.sizes for p in parts))
    iterations = frozenset[int]().union(*(p.iterations for p in parts))
    width, height = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
    pixels = sum(p.pixels for p in parts)
    source = size_of(plan.file.path)
    record = CodecRecord(
        input=plan.file.shown,
        output=printable(plan.folder) if done and not settings.dry_run else None,
        status="ok",
        width=width,
        height=height,
        images=done,
        pixels=pixels,
        source_bytes=source,
        output_bytes=sum(p.output_bytes for p in parts),
        iterations=next(iter(iterations)) if len(iterations) == 1 else 0,
        bpp=8 * source / pixels if pixels and done == plan.count else None,
        seconds=sum(p.seconds for p in parts),
        notices=() if plan.count else ("the pack holds no images",),
    )
    if error is not None:
        text = one_line(error) if lost == plan.count and not done else f"{lost} of {plan.count} images lost: {one_line(error)}"
        status: CodecStatus = "partial" if done or skipped else "failed"
        return dataclasses.replace(record, status=status, error=text, error_type=type(error).__name__)
    if missing:
        return dataclasses.replace(record, status="partial", error=f"interrupted: {missing} of {plan.count} images are missing")
    if skipped == plan.count and skipped:
        return dataclasses.replace(record, status="skipped", error="output exists; --overwrite replaces it")
    if skipped:
        return dataclasses.replace(record, notices=(f"{skipped} of {plan.count} images were there; --overwrite replaces them",))
    return record
