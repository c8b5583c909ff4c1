"""Small images that travel and are coded together; their records and totals."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from vizcomp.batch.items import Item, Outcome, attempt, one_line, reason_to_skip, size_of
from vizcomp.batch.local_engine import in_worker
from vizcomp.batch.record_list import Records
from vizcomp.batch.records import CodecRecord, CodecTotals, VerifyState
from vizcomp.batch.settings import DecodeSettings, EncodeSettings
from vizcomp.errors import OutputError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import OutputNames, is_folder
from vizcomp.files.place import printable
from vizcomp.files.store import AnyPath
from vizcomp.files.write import check_output_folder, write_atomic
from vizcomp.metrics import bits_per_pixel
from vizcomp.neural.codec import NeuralCodec
from vizcomp.vision.one_answer import Hearing, about_all
from vizcomp.vzc import image as vzc
from vizcomp.vzc.pack_blocks import PackEntry
from vizcomp.weights.sessions import available_cores

Pixels = npt.NDArray[np.uint8]

GROUP = 64  # small files that travel together
SMALL_FILE = 16_384  # bytes: above, a file travels alone
SMALL_SIDE = 64  # pixels: above, an image of a group is coded alone


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
    def told(self) -> tuple[str, ...]:
        """What the systems' answers on all photos together prove."""
        return tuple(about_all(self.totals.one_answer))

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """A file of the codec, and what `verify` came to.

    Attributes:
        data: the file's bytes.
        state, scores, trials, against: as `verdicts.Found`.
        iterations: of the file.
        said: as `verdicts.Found`.
    """

    data: bytes
    state: VerifyState
    iterations: int
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    trials: int = 0
    against: tuple[str, ...] = ()
    said: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class GroupImage:
    """One input on its way through a worker.

    `company`: an earlier run finished this image. It is encoded again, but not written, so that
    its batch stays the same: a network's sums depend in the last digits on the batch.
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
    found: Judged | None = None
    written: bool = False

    @property
    def open(self) -> bool:
        return self.record.status == "ok"

    def step(self, work: Callable[[GroupImage], CodecRecord]) -> None:
        """One step of the work: its record replaces the last, the time is added."""
        before = self.record
        after = attempt(
            lambda: within_memory(work, self),
            lambda exc: failed_record(self.file, exc, before.source_bytes),
        )
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
            payload=(
                bytes([self.entry.grey]) + self.entry.payload
                if self.entry is not None and self.open
                else None
            ),
            extra=self.entry if self.open else None,
        )


def _image(item: Item) -> GroupImage:
    file = item.file
    record = CodecRecord(
        input=file.shown, output=None, status="ok", source_bytes=size_of(file.path)
    )
    return GroupImage(file, item.target, record, item.root, item.replace, item.known is not None)


def failed_record(file: InputFile, error: VizcompError, source_bytes: int = 0) -> CodecRecord:
    return CodecRecord(
        input=file.shown,
        output=None,
        status="failed",
        error=one_line(error),
        error_type=type(error).__name__,
        images=0,
        source_bytes=source_bytes or size_of(file.path),
    )


def skipped_record(
    item: GroupImage, settings: EncodeSettings | DecodeSettings
) -> CodecRecord | None:
    """The record of an image whose output may not be written; None where it may."""
    replace = settings.overwrite or settings.dry_run or item.replace or item.company
    if item.target is None:
        return None
    why = reason_to_skip(item.target, item.file, replace=replace)
    return (
        None
        if why is None
        else dataclasses.replace(item.record, status="skipped", error=why, images=0)
    )


def within_memory(work: Callable[[Any], Any], on: Any) -> Any:
    """`work(on)`; torch and ONNX Runtime say by exceptions of their own that memory ran out."""
    try:
        return work(on)
    except VizcompError:
        raise
    except Exception as exc:
        if "allocate" in str(exc):
            raise MemoryError from exc
        raise


def threads_for(jobs: int) -> int:
    """Threads of a network: workers share the cores, more than one each would only get in each
    other's way. 0: all cores."""
    return 1 if in_worker() else min(jobs, available_cores())


@functools.lru_cache(maxsize=1)
def worker_codec(model: str, jobs: int) -> NeuralCodec:
    """One codec for each process, loaded on the first image."""
    return NeuralCodec.load(model, threads=threads_for(jobs))


def grouped(items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
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


def images_of(items: Sequence[Item]) -> list[GroupImage]:
    """The images of a task; of those that need no work, only those that may have been coded with
    others."""
    alone = len(items) == 1 or all(item.known is not None for item in items)
    return [
        image
        for item, image in ((item, _image(item)) for item in items)
        if item.known is None
        or not (alone or max(item.known["width"], item.known["height"]) > SMALL_SIDE)
    ]


def outcomes_of(items: Sequence[Item], coded: Sequence[GroupImage]) -> list[Outcome[CodecRecord]]:
    """One for each item; for what was known the loop has the record."""
    by_file = {id(image.file): image for image in coded}
    unchanged = Outcome(CodecRecord(input="", output=None, status="skipped"))
    return [
        unchanged if item.known is not None else by_file[id(item.file)].outcome() for item in items
    ]


def output_targets(
    files: Iterable[InputFile],
    output: AnyPath | None,
    suffix: str,
    *,
    extensions: frozenset[str],
    dry_run: bool,
) -> tuple[Iterator[InputFile], Callable[[InputFile], AnyPath], AnyPath | None]:
    """Where outputs go: beside the inputs (None), below a folder, or, for one input, into the very
    file that `output` names.

    The inputs, what gives each its output, and the folder.
    """
    files = iter(files)
    if output is None or output.suffix.lower() != suffix or is_folder(output):
        if output is not None and not dry_run:
            check_output_folder(output)
        return files, OutputNames(output, suffix, extensions=extensions).path_for, output
    first = list(itertools.islice(files, 2))
    if len(first) > 1:
        raise OutputError(
            f"{printable(output)} is one file, but the inputs are several",
            "name a folder with `output`",
        )
    if not dry_run:
        check_output_folder(output.parent)
    the_file = output
    return iter(first), lambda _: the_file, output.parent


def codec_totals(
    records: Records[CodecRecord],
    seconds: float,
    *,
    vzc_is_output: bool,
    pack_bytes: int | None = None,
) -> CodecTotals:
    files = partial = skipped = failed = coded = pixels = source = output = 0
    states = dict.fromkeys(get_args(VerifyState), 0)
    hearing = Hearing()
    for record in records:  # once: they may be on disk
        files += 1
        partial += record.status == "partial"
        skipped += record.status == "skipped"
        failed += record.status == "failed"
        if record.verify_state is not None and record.images:
            states[record.verify_state] += 1
        if record.images:
            photo = record.width, record.height, record.source_bytes
            hearing.add(record.source_answers, photo)
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
        bpp=bits_per_pixel(output if vzc_is_output else source, pixels) if pixels else None,
        seconds=seconds,
        images_per_second=(coded - records.resumed_work) / seconds if seconds > 0 else 0.0,
        verified=states["verified"],
        nothing_to_verify=states["nothing"],
        not_reached=states["not_reached"],
        one_answer=hearing.found(),
        resumed=records.resumed,
    )
