"""What `decode` does with its inputs."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vizcomp.batch.groups import (
    GROUP,
    SMALL_SIDE,
    CodecRun,
    GroupImage,
    codec_totals,
    failed_record,
    grouped,
    images_of,
    outcomes_of,
    output_targets,
    skipped_record,
    threads_for,
    within_memory,
)
from vizcomp.batch.items import CRASH, Item, ItemsTask, Outcome
from vizcomp.batch.log import Log, open_log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.packs import PackPart, PackPlan, PackTask, decode_pack, pack_record, planned_pack
from vizcomp.batch.records import CodecRecord
from vizcomp.batch.settings import DecodeSettings, deciding_settings
from vizcomp.errors import VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.read import read_file
from vizcomp.files.store import AnyPath
from vizcomp.metrics import bits_per_pixel
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.find import find_model
from vizcomp.neural.models import saved_fingerprint
from vizcomp.photos.encode import encode_png
from vizcomp.vzc import image as vzc
from vizcomp.vzc.fields import MAX_ITERATIONS, TAG_ALPHA
from vizcomp.vzc.packs import PackReader

VZC_EXTENSIONS = frozenset({".vzc"})


@dataclasses.dataclass(frozen=True)
class DecodeTask(ItemsTask):
    """Some inputs of `decode`, each of one image, that travel together."""

    settings: DecodeSettings
    jobs: int = 0


def run_decode(
    files: Iterable[InputFile],
    output: AnyPath | None,
    settings: DecodeSettings,
    options: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
) -> CodecRun:
    """Write NAME.png for each .vzc file, beside it or below `output`; for a pack, a folder NAME
    with its images.

    Ctrl-C ends the run after what is in hand; what is finished stays.

    Args:
        output: a folder; for one file also one that ends in .png; None: beside each file.

    Raises:
        VizcompError: what no file can do without is wrong: the model that was given, the folder.
    """
    # a wrong path ends the command, not each of its files
    identities = [saved_fingerprint(Path(model)).hex() for model in settings.models]
    files, target, folder = output_targets(
        files, output, ".png", extensions=VZC_EXTENSIONS, dry_run=settings.dry_run
    )
    started = time.perf_counter()
    plans: collections.deque[PackPlan] = collections.deque()
    with open_log(
        folder, deciding_settings("decode", settings, identities=identities), settings
    ) as log:
        verb = Verb(
            record=CodecRecord,
            tasks=lambda items: _decode_tasks(items, settings, options.jobs, plans, log),
            work=decode_some,
            on_crash=_decode_crashed,
            whole=lambda results: _with_packs_whole(results, plans, settings, log),
        )
        records, interrupted = run_batch(
            (log.item(file, target(file)) for file in files), verb, log, options
        )
    totals = codec_totals(records, time.perf_counter() - started, vzc_is_output=False)
    return CodecRun(records=records, totals=totals, interrupted=interrupted)


def _decode_tasks(
    items: Iterable[Item],
    settings: DecodeSettings,
    jobs: int,
    plans: collections.deque[PackPlan],
    log: Log,
) -> Iterator[DecodeTask | PackTask]:
    """Tasks in the order of the inputs; a pack becomes as many as it needs, and its plan is left in
    `plans`."""
    singles: list[Item] = []

    def waiting() -> Iterator[DecodeTask]:
        yield from (DecodeTask(group, settings, jobs) for group in grouped(singles))
        singles.clear()

    for item in items:
        plan = None if item.known is not None else planned_pack(item, settings, jobs, log)
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
    results: Iterator[list[Outcome[CodecRecord]] | PackPart],
    plans: collections.deque[PackPlan],
    settings: DecodeSettings,
    log: Log,
) -> Iterator[Outcome[CodecRecord]]:
    """One outcome for each pack, when its last part has come; where it is interrupted, of the parts
    that came."""
    parts: list[PackPart] = []
    for result in results:
        if isinstance(result, list):
            yield from result
            continue
        parts.append(result)
        _remember(log, plans[0], result)
        if len(parts) == len(plans[0].tasks):
            yield Outcome(pack_record(plans.popleft(), parts, settings))
            parts = []
    if parts:
        yield Outcome(pack_record(plans.popleft(), parts, settings))


def _remember(log: Log, plan: PackPlan, part: PackPart) -> None:
    """What was written of a pack, for a run that resumes."""
    if log.journal is None or plan.source_state is None:
        return
    for each in part.written:
        log.journal.finish(
            each.target,
            plan.file.path,
            plan.source_state,
            written=each.target,
            written_state=each.state,
            record=each.to_dict(),
        )


def _decode_crashed(task: DecodeTask | PackTask) -> list[Outcome[CodecRecord]] | PackPart:
    if isinstance(task, PackTask):
        return PackPart(
            lost=sum(not each.known for each in task.targets), error=VizcompError(CRASH)
        )
    return [Outcome(failed_record(item.file, VizcompError(CRASH))) for item in task.items]


def decode_some(task: DecodeTask | PackTask) -> list[Outcome[CodecRecord]] | PackPart:
    """Decode the files of a task, or some images of a pack, and write them, whatever happens to any
    of them."""
    if isinstance(task, PackTask):
        return decode_pack(task)
    coded = images_of(task.items)
    alike: dict[tuple[bytes, int, int, int], list[GroupImage]] = {}
    for image in coded:
        image.step(lambda it: _read_vzc(it, task.settings))
        if not image.open or image.stored is None:
            continue
        header = image.stored.header
        if image.stored.complete and max(header.width, header.height) <= SMALL_SIDE:
            alike.setdefault(
                (header.model, header.width, header.height, header.iterations), []
            ).append(image)
        elif not image.company:
            _decode_alone(image, task)
    for group in alike.values():
        if not all(image.company for image in group):
            _decode_together(group, task)
    return outcomes_of(task.items, coded)


def _read_vzc(item: GroupImage, settings: DecodeSettings) -> CodecRecord:
    if (skipped := skipped_record(item, settings)) is not None:
        return skipped
    most = 16 * settings.max_pixels + (64 << 20)
    data = read_file(item.file.path, check=lambda head, name: vzc.kind(head), max_bytes=most)
    if data and vzc.kind(data) == "pack":
        PackReader(data)  # says why it could not be planned as one
    item.stored = vzc.unpack(data, max_pixels=settings.max_pixels, allow_truncated=True)
    item.data = data
    header = item.stored.header
    return dataclasses.replace(
        item.record, width=header.width, height=header.height, pixels=header.width * header.height
    )


def _found(fingerprint: bytes, task: DecodeTask) -> NeuralCodec:
    return find_model(fingerprint, task.settings.models, threads=threads_for(task.jobs))


def _decode_together(group: list[GroupImage], task: DecodeTask) -> None:
    """Small files of one model and size. Where that fails each is tried alone, so that each gets
    its own error."""
    started = time.perf_counter()
    stored = [item.stored for item in group if item.stored is not None]
    many = min(task.settings.iterations or MAX_ITERATIONS, stored[0].header.iterations)
    try:
        codec = _found(stored[0].header.model, task)
        images = within_memory(lambda files: codec.decode_many(files, iterations=many), stored)
    except Exception:
        for item in group:
            if not item.company:
                _decode_alone(item, task)
        return
    share = (time.perf_counter() - started) / len(group)
    for item, image in zip(group, images, strict=True):
        item.pixels = image
        item.record = dataclasses.replace(
            item.record, seconds=item.record.seconds + share, iterations=many
        )
        item.step(lambda it: _write_png(it, task.settings))


def _decode_alone(item: GroupImage, task: DecodeTask) -> None:
    def work(it: GroupImage) -> CodecRecord:
        codec = _found(vzc.read_header(it.data, max_pixels=task.settings.max_pixels).model, task)
        decoded = codec.decode(
            it.data,
            iterations=task.settings.iterations,
            max_pixels=task.settings.max_pixels,
            allow_truncated=True,
        )
        it.pixels = decoded.image
        it.record = dataclasses.replace(it.record, iterations=decoded.iterations)
        return _write_png(it, task.settings)

    item.step(work)


def _write_png(item: GroupImage, settings: DecodeSettings) -> CodecRecord:
    """The record of a decoded image; writes it."""
    assert item.pixels is not None
    assert item.stored is not None
    stored, pixels = item.stored, item.pixels
    item.pixels = None
    header = stored.header
    if (alpha := header.item(TAG_ALPHA)) is not None:
        colours = pixels if pixels.ndim == 3 else pixels[..., None]
        pixels = np.concatenate(
            [colours, vzc.unpack_alpha(alpha, header.width, header.height)[..., None]], axis=2
        )
    data = encode_png(pixels)
    record = dataclasses.replace(
        item.record,
        output=item.write(data, settings),
        output_bytes=len(data),
        bpp=bits_per_pixel(len(item.data), item.record.pixels),
    )
    if stored.complete:
        return record
    return dataclasses.replace(
        record,
        status="partial",
        error=f"{stored.problem}; decoded {record.iterations} of {header.iterations} iterations",
        error_type="TruncatedError",
    )
