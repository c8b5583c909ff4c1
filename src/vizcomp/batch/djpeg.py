"""What `djpeg` does with a photo."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast, get_args

from vizcomp._version import __version__
from vizcomp.batch.chosen import Chosen
from vizcomp.batch.items import (
    CRASH,
    Item,
    ItemsTask,
    Outcome,
    Task,
    attempt,
    one_line,
    reason_to_skip,
    size_of,
)
from vizcomp.batch.judges import (
    check_maps,
    depth_source,
    given_systems,
    mask_folder,
    needs_depth,
)
from vizcomp.batch.labels import Labels
from vizcomp.batch.log import open_log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.near import near_totals
from vizcomp.batch.record_list import Records
from vizcomp.batch.records import FileRecord, GalleryItem, Totals, VerifyState
from vizcomp.batch.rivals import rival_totals
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.shards import (
    MemberItem,
    MemberResult,
    MemberTask,
    Shards,
    member_crashed,
    member_one,
)
from vizcomp.batch.single import Finished, finish, measured
from vizcomp.depth.maps import GALLERY_LONG_SIDE, colourise
from vizcomp.djpeg.kinds import settings_for
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.place import printable
from vizcomp.files.store import AnyPath
from vizcomp.files.write import write_atomic
from vizcomp.photos import frame
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo, decode_jpeg, load, load_bytes, size_in
from vizcomp.photos.resize import resized_pixels
from vizcomp.vision.one_answer import Hearing, about_all
from vizcomp.vision.system import System

GALLERY_SIZE = 8


@dataclasses.dataclass(frozen=True)
class DjpegTask(ItemsTask):
    """One input of `djpeg`: all that a worker needs.

    Attributes:
        number: of the photo in the run, from 0: the first ones are compared with plain JPEG more
            closely.
        systems: those that were given as objects; they are found by their names.
        named: the output's name was given, so that it is a file of the asked format in any case.
        refused: why there are no settings for it.
    """

    settings: DjpegSettings
    batch: BatchSettings
    number: int = 0
    systems: tuple[System, ...] = ()
    named: bool = False
    refused: InputError | None = None


@dataclasses.dataclass
class BatchRun:
    """A finished or interrupted run of `djpeg`.

    Attributes:
        worst: the written files of lowest MS-SSIM, worst first, with the paths of their source and
            result.
        notices: what a user should know of the run as a whole.
    """

    records: Records[FileRecord]
    totals: Totals
    interrupted: bool
    worst: list[tuple[FileRecord, InputFile, AnyPath]]
    notices: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """`notices`, and what the systems' answers on all photos together prove."""
        return self.notices + tuple(about_all(self.totals.one_answer))


def run_djpeg(
    files: Iterable[InputFile],
    output: AnyPath,
    settings: DjpegSettings,
    batch: BatchSettings,
    options: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
    systems: tuple[System, ...] = (),
    fields: tuple[str, ...] = (),
    target: AnyPath | None = None,
    remember: bool = True,
    by_folder: Mapping[str, DjpegSettings] | None = None,
) -> BatchRun:
    """Compress photos into a folder; of shards (`shards.shard.SHARDS`) the photos in them.

    Args:
        systems: of those that the settings name, the ones that are objects; they travel to the
            workers by pickle.
        fields: of shards, what holds photos: extensions in a tar, columns in a table; empty: all
            that do.
        target: the only output, of the only input; it lies in `output`.
        remember: keep a journal, for a later run with `resume`.
        by_folder: settings by the folder of a photo (`Chosen`); one of another folder fails.

    Ctrl-C ends the run after what is in hand; what is finished stays, and is in the records.

    Raises:
        VizcompError: what no file can do without is missing (the depth model, the folder of maps).
    """
    chosen = Chosen(settings, by_folder)
    with given_systems(systems):
        identities = chosen.checked(batch)
    files = chosen.photos(check_maps(files, settings, batch))
    labels = None if batch.labels is None else Labels(Path(batch.labels), output, settings, batch)
    files = files if labels is None else labels.checked(files)
    decides = {"verb": "djpeg", **chosen.to_dict(), **batch.what_decides()}
    decides |= {"identities": identities, "version": __version__}
    decides |= {"fields": fields} if fields else {}
    worst: list[tuple[FileRecord, InputFile, AnyPath]] = []

    def settled(item: Item, outcome: Outcome[FileRecord]) -> Outcome[FileRecord]:
        if outcome.record.status == "ok" and not batch.dry_run and item.target is not None:
            worst.append((outcome.record, item.file, item.target))
            worst.sort(key=lambda each: each[0].ms_ssim or 0.0)
            del worst[GALLERY_SIZE:]
        if labels is None:
            return outcome
        return dataclasses.replace(outcome, record=labels.add(item, outcome.record))

    def tasks(items: Iterable[Item]) -> Iterator[Task]:
        for number, item in enumerate(items):
            yield _task(item, number, chosen, batch, systems, named=bool(target))

    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open_log(output, decides, batch, remember=remember))
        shards = Shards(output, batch, log, fields, target=target)
        stack.callback(shards.close)
        if labels is not None:
            labels.remember_with(log.journal)

        def item(file: InputFile) -> Item:
            place = target or chosen.path_for(file, output)
            return log.item(file, place, others=_possible(place, chosen.of(file))[1:])

        verb = Verb(
            record=FileRecord,
            tasks=tasks,
            work=djpeg_one,
            on_crash=_djpeg_crashed,
            whole=shards.outcomes,
            on_outcome=settled,
        )
        records, interrupted = run_batch(shards.among(files, item), verb, log, options)
        if labels is not None:
            labels.close()
    totals = total(records, time.perf_counter() - started, batch.watch_with)
    if labels is not None:
        totals = dataclasses.replace(totals, labels=labels.totals())
    notices = (*(() if labels is None else labels.notices), *shards.notices(), *chosen.notices())
    return BatchRun(records, totals, interrupted, worst, notices)


def _task(
    item: Item,
    number: int,
    chosen: Chosen,
    batch: BatchSettings,
    systems: tuple[System, ...],
    *,
    named: bool,
) -> Task:
    settings = chosen.of(item.file)
    if isinstance(item, MemberItem):
        return MemberTask((item,), settings, batch, number, systems)
    refused = None
    try:
        chosen.check(item.file)
    except InputError as exc:
        refused = exc
    return DjpegTask((item,), settings, batch, number, systems, named, refused)


def joined(runs: Iterable[BatchRun]) -> BatchRun:
    """Several runs as one, in which a photo that came again counts as often; it ends with one that
    was interrupted."""
    records = Records(FileRecord)
    worst: list[tuple[FileRecord, InputFile, AnyPath]] = []
    seconds, notices, watch = 0.0, {}, {}
    for run in runs:
        notices.update(dict.fromkeys(run.notices))
        watch.update(run.totals.watched)
        for record in run.records:
            records.append(record)
        records.resumed += run.records.resumed
        records.resumed_work += run.records.resumed_work
        seconds += run.totals.seconds
        worst = sorted(worst + run.worst, key=lambda each: each[0].ms_ssim or 0.0)[:GALLERY_SIZE]
        if run.interrupted:
            break
    totals = total(records, seconds, watch)
    return BatchRun(records, totals, False, worst, tuple(notices))


def djpeg_one(task: DjpegTask | MemberTask) -> list[Outcome[FileRecord]] | MemberResult:
    """Compress one photo and write it: one outcome, whatever happens. One of a shard is not written
    here."""
    if isinstance(task, MemberTask):
        return member_one(task)
    (item,) = task.items
    written: list[AnyPath] = []
    with given_systems(task.systems):
        record = attempt(
            lambda: _djpeg(task, written), lambda exc: _djpeg_failed(item, one_line(exc))
        )
    return [Outcome(record, written[0] if written else None)]


def _djpeg_crashed(task: DjpegTask | MemberTask) -> list[Outcome[FileRecord]] | MemberResult:
    if isinstance(task, MemberTask):
        return member_crashed(task)
    return [Outcome(_djpeg_failed(item, CRASH)) for item in task.items]


def _djpeg_failed(item: Item, error: str) -> FileRecord:
    size = size_of(item.file.path)
    # another name for what came from standard input
    error = error.replace(printable(item.file.path), item.file.shown)
    return FileRecord(
        input=item.file.shown, output=None, status="failed", error=error, source_bytes=size
    )


def _djpeg(task: DjpegTask, written: list[AnyPath]) -> FileRecord:
    """The record of a photo; where its file was written goes into `written`."""
    (item,), settings, batch = task.items, task.settings, task.batch
    file, target = item.file, item.target
    assert target is not None
    if task.refused is not None:
        raise task.refused
    replace = batch.overwrite or batch.dry_run or item.replace
    for place in _possible(target, settings):
        if (skipped := reason_to_skip(place, file, replace=replace)) is not None:
            return FileRecord(
                input=file.shown,
                output=None,
                status="skipped",
                error=skipped,
                source_bytes=size_of(file.path),
            )
    # opened before a large photo takes its memory
    source = depth_source(batch) if needs_depth(settings) else None
    photo = load(file.path, max_pixels=batch.max_pixels)
    settings = settings_for(photo, settings)
    mask = (
        mask_folder(batch.masks).read(file) if batch.masks and "mask" in settings.guides else None
    )
    result = finish(
        photo,
        file,
        settings,
        batch,
        original=file.path.read_bytes,
        depth=source,
        mask=mask,
        keep_other=not task.named,
    )
    if result.suffix and not task.named:
        target = _with_suffix(target, settings.suffix, result)
        if (skipped := reason_to_skip(target, file, replace=replace)) is not None:
            return FileRecord(
                input=file.shown,
                output=None,
                status="skipped",
                error=skipped,
                source_bytes=photo.source_bytes,
            )
    record = measured(
        photo,
        result,
        file,
        settings,
        batch,
        number=task.number,
        original=file.path.read_bytes,
    )
    if batch.dry_run:
        return record
    write_atomic(
        target, result.data, times=_times(file.path) if batch.keep_dates else None, below=item.root
    )
    written.append(target)
    return dataclasses.replace(record, output=printable(target))


def _possible(target: AnyPath, settings: DjpegSettings) -> list[AnyPath]:
    """Where the output of an input may be, before its format is chosen."""
    if settings.format != "auto":
        return [target]
    base = target.name.removesuffix(settings.suffix)
    return [
        target,
        *(target.with_name(f"{base}.{name}") for name in settings.formats if name != "jpeg"),
    ]


def _with_suffix(target: AnyPath, asked: str, suffix: Finished) -> AnyPath:
    """Where a file of another kind than was asked for goes.

    Kept as it is, "a.jpg", made for a.png, becomes "a.png"; so does "a.png.jpg".
    """
    base = target.name.removesuffix(asked)
    return target.with_name(
        base if suffix.kept and base.lower().endswith(suffix.suffix) else base + suffix.suffix
    )


def gallery(
    run: BatchRun,
    settings: DjpegSettings,
    batch: BatchSettings,
    by_folder: Mapping[str, DjpegSettings] | None = None,
) -> list[GalleryItem]:
    """The photos that lost most (lowest MS-SSIM), worst first, with their source, result and depth
    map as small JPEGs."""
    items: list[GalleryItem] = []
    chosen = Chosen(settings, by_folder)
    if settings.mask_outside == "drop":
        return items  # their sources show what is to go
    for record, file, output in run.worst:
        try:  # one whole picture in memory at a time
            photo = load(file.path, max_pixels=batch.max_pixels)
            guided = needs_depth(chosen.of(file))
            depth = depth_source(batch)(photo, file) if guided else None
            small = [_small(photo)]
            del photo
            data = output.read_bytes()
            result = load_bytes(data, record.input, max_pixels=batch.max_pixels)
        except (VizcompError, OSError):
            continue  # gone or changed since it was compressed: the report does without its picture
        # the very file is shown where it can be
        small_enough = max(result.pixels.shape[:2]) <= GALLERY_LONG_SIDE
        same = small_enough and result.orientation == 1 and result.format == "JPEG"
        small.append(data if same else _small(result))
        # it may have fewer pixels: the two are shown at one size
        if max(result.pixels.shape[:2]) < GALLERY_LONG_SIDE:
            small[0] = _at_size_of(small[0], small[1])
        del result
        coloured = (
            None if depth is None else encode_plain_jpeg(colourise(depth.nearness), quality=85)
        )
        items.append(
            GalleryItem(
                name=record.input, caption="", source=small[0], result=small[1], depth=coloured
            )
        )
    return items


def _small(photo: Photo) -> bytes:
    thumbnail = frame.thumbnail(photo.pixels, long_side=GALLERY_LONG_SIDE)
    return encode_plain_jpeg(upright(thumbnail, photo.orientation), quality=92, subsampling="4:4:4")


def _at_size_of(source: bytes, result: bytes) -> bytes:
    """A source's picture at the size of its result's, both JPEGs; as it is where they agree."""
    pixels, (width, height) = decode_jpeg(source), size_in(result)
    if pixels.shape[:2] == (height, width):
        return source
    return encode_plain_jpeg(resized_pixels(pixels, height, width), quality=92, subsampling="4:4:4")


def total(records: Records[FileRecord], seconds: float, watch: Iterable[str] = ()) -> Totals:
    """Sums over a batch; sizes count the files that have an output.

    Args:
        watch: the systems that watched, those too that found nothing on any source.
    """
    files = failed = skipped = source = output = plain = optimised = 0
    pixels = -records.resumed_work  # an earlier run took the time for those
    # of ours PSNR and MS-SSIM, of plain JPEG's the same
    equal: list[tuple[float, float, float, float]] = []
    states = dict.fromkeys(get_args(VerifyState), 0)
    rivals: list[tuple[int, int]] = []
    hearing = Hearing()
    near: list[dict[str, float]] = []
    watched: dict[str, dict[str, int]] = {name: {"photos": 0, "same": 0} for name in watch}
    formats: dict[str, int] = {}
    for record in records:  # once: they may be on disk
        files += 1
        failed += record.status == "failed"
        skipped += record.status == "skipped"
        if record.status in ("ok", "kept"):
            source += record.source_bytes
            output += record.output_bytes
            plain += record.plain_jpeg_bytes
            optimised += record.optimised_jpeg_bytes
            figures = (
                record.psnr,
                record.ms_ssim,
                record.equal_bytes_psnr,
                record.equal_bytes_ms_ssim,
            )
            if None not in figures:
                equal.append(cast(tuple[float, float, float, float], figures))
            pixels += record.work
            formats[record.format or "jpeg"] = formats.get(record.format or "jpeg", 0) + 1
            if record.verify_state is not None:
                states[record.verify_state] += 1
            hearing.add(record.source_answers, _as_photo(record))
            if record.rival_bytes is not None:
                rivals.append((record.rival_bytes, record.output_bytes))
            if record.near is not None:
                near.append(record.near)
            for name, same in (record.watch_same or {}).items():
                counts = watched.setdefault(name, {"photos": 0, "same": 0})
                counts["photos"] += 1
                counts["same"] += same
    return Totals(
        files=files,
        failed=failed,
        skipped=skipped,
        source_bytes=source,
        output_bytes=output,
        plain_jpeg_bytes=plain,
        saving_vs_source=1 - output / source if source else 0.0,
        saving_vs_plain_jpeg=1 - output / plain if plain else 0.0,
        seconds=seconds,
        megapixels_per_second=pixels / 1e6 / seconds if seconds > 0 else 0.0,
        optimised_jpeg_bytes=optimised,
        saving_vs_optimised_jpeg=1 - output / optimised if optimised else 0.0,
        equal_bytes=_equal_bytes(equal),
        verified=states["verified"],
        nothing_to_verify=states["nothing"],
        not_reached=states["not_reached"],
        rival=rival_totals(rivals),
        near=near_totals(near),
        watched=watched,
        formats=formats,
        one_answer=hearing.found(),
        resumed=records.resumed,
    )


def _as_photo(record: FileRecord) -> tuple[int, ...]:
    """What two different photos do not share."""
    return record.width, record.height, record.source_bytes, record.plain_jpeg_bytes


def _equal_bytes(photos: list[tuple[float, float, float, float]]) -> dict[str, float] | None:
    if not photos:
        return None
    names = ("psnr", "ms_ssim", "jpeg_psnr", "jpeg_ms_ssim")
    means = {
        name: sum(column) / len(photos)
        for name, column in zip(names, zip(*photos, strict=True), strict=True)
    }
    return {
        "photos": len(photos),
        **means,
        "jpeg_better_psnr": sum(jpeg > ours for ours, _, jpeg, _ in photos),
        "jpeg_better_ms_ssim": sum(jpeg > ours for _, ours, _, jpeg in photos),
    }


def _times(path: AnyPath) -> tuple[int, int]:
    stat = path.stat()
    return getattr(stat, "st_atime_ns", stat.st_mtime_ns), stat.st_mtime_ns
