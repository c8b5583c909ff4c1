"""What `djpeg` does with a photo."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any, cast, get_args

from vizcomp._version import __version__
from vizcomp.batch.items import CRASH, Item, ItemsTask, Outcome, attempt, one_line, reason_to_skip, size_of
from vizcomp.batch.judges import (
    check_guides,
    check_maps,
    depth_source,
    displayed,
    guide_systems,
    mask_folder,
    needs_depth,
    system_by_name,
    system_errors,
)
from vizcomp.batch.kept import can_be_kept_without_metadata, kept_jpeg, times_of, under_own_suffix
from vizcomp.batch.log import open_log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.lossless import without_loss
from vizcomp.batch.record_list import Records
from vizcomp.batch.records import FileRecord, GalleryItem, Totals, VerifyState
from vizcomp.batch.rivals import SAMPLE, against_plain, likeness
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.sides import fewest_pixels
from vizcomp.batch.verdicts import Found, Panel, verified
from vizcomp.depth.maps import GALLERY_LONG_SIDE, DepthSource, colourise, mask_hint
from vizcomp.djpeg import guide
from vizcomp.djpeg.compress import LARGE, Prepared, finished
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import OutputNames
from vizcomp.files.place import printable
from vizcomp.files.store import AnyPath
from vizcomp.files.write import write_atomic
from vizcomp.jpeg.segments import has_more_than_orientation
from vizcomp.photos import frame
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo, decode_jpeg, load, load_bytes, size_in
from vizcomp.photos.resize import resized_pixels
from vizcomp.weights.sessions import return_memory

GALLERY_SIZE = 8


@dataclasses.dataclass(frozen=True)
class DjpegTask(ItemsTask):
    """One input of `djpeg`: all that a worker needs; `sampled`: plain JPEG is searched at our bytes too."""

    settings: DjpegSettings
    batch: BatchSettings
    sampled: bool = False


@dataclasses.dataclass
class BatchRun:
    """A finished or interrupted run of `djpeg`.

    Attributes:
        worst: the written files of lowest MS-SSIM, worst first, with the paths of their source and result.
    """

    records: Records[FileRecord]
    totals: Totals
    interrupted: bool
    worst: list[tuple[FileRecord, InputFile, AnyPath]]


def run_djpeg(
    files: Iterable[InputFile],
    output: AnyPath,
    settings: DjpegSettings,
    batch: BatchSettings,
    options: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
) -> BatchRun:
    """Compress photos into a folder.

    Ctrl-C ends the run after what is in hand; what is finished stays, and the records say how far it came.

    Raises:
        VizcompError: what no file can do without is missing (the depth model, the folder of maps).
    """
    identities = check_guides(settings, batch)
    files = check_maps(files, settings, batch)
    names = OutputNames(output, ".jpg")
    decides = {"verb": "djpeg", **settings.to_dict(), **batch.what_decides(), "identities": identities, "version": __version__}
    worst: list[tuple[FileRecord, InputFile, AnyPath]] = []

    def keep_worst(item: Item, outcome: Outcome[FileRecord]) -> None:
        if outcome.record.status == "ok" and not batch.dry_run and item.target is not None:
            worst.append((outcome.record, item.file, item.target))
            worst.sort(key=lambda each: each[0].ms_ssim or 0.0)
            del worst[GALLERY_SIZE:]

    started = time.perf_counter()
    with open_log(output, decides, batch) as log:
        verb = Verb(
            record=FileRecord,
            tasks=lambda items: (DjpegTask((item,), settings, batch, n < SAMPLE) for n, item in enumerate(items)),
            work=djpeg_one,
            on_crash=_djpeg_crashed,
            on_outcome=keep_worst,
        )
        records, interrupted = run_batch((log.item(file, names.path_for(file)) for file in files), verb, log, options)
    return BatchRun(records, total(records, time.perf_counter() - started), interrupted, worst)


def djpeg_one(task: DjpegTask) -> list[Outcome[FileRecord]]:
    """Compress one photo and write it: one outcome, whatever happens."""
    (item,) = task.items
    written: list[AnyPath] = []
    record = attempt(lambda: _djpeg(task, written), lambda exc: _djpeg_failed(item, one_line(exc)))
    return [Outcome(record, written[0] if written else None)]


def _djpeg_crashed(task: DjpegTask) -> list[Outcome[FileRecord]]:
    return [Outcome(_djpeg_failed(item, CRASH)) for item in task.items]


def _djpeg_failed(item: Item, error: str) -> FileRecord:
    size = size_of(item.file.path)
    return FileRecord(input=item.file.shown, output=None, status="failed", error=error, source_bytes=size)


def _djpeg(task: DjpegTask, written: list[AnyPath]) -> FileRecord:
    """The record of a photo; where its file was written goes into `written`."""
    (item,), settings, batch, sampled = task.items, task.settings, task.batch, task.sampled
    file, target = item.file, item.target
    assert target is not None
    replace = batch.overwrite or batch.dry_run or item.replace
    if (skipped := reason_to_skip(target, file, replace=replace)) is not None:
        return FileRecord(input=file.shown, output=None, status="skipped", error=skipped, source_bytes=size_of(file.path))
    source = depth_source(batch) if needs_depth(settings) else None  # opened before a large photo takes its memory
    photo = load(file.path, max_pixels=batch.max_pixels)
    found = _compressed(photo, file, source, settings, batch)
    made, data = found.made, found.made.data
    kept, said = _kept_or_not(photo, found, settings)
    notices = (*photo.notices, *made.notices, *said)
    psnr: float | None = None
    ms_ssim: float | None = 1.0
    if kept:
        if settings.metadata == "all":  # the whole file: nothing that it carries is lost
            notices = tuple(n for n in notices if not n.endswith("is not in the result"))
        elif photo.jpeg is None and (photo.xmp or has_more_than_orientation(photo.exif)):
            notices = (*notices, "the kept source carries its metadata, such as place and camera: use --metadata none")
        if photo.jpeg is None:
            data, target = file.path.read_bytes(), under_own_suffix(target, file.path)
            if (skipped := reason_to_skip(target, file, replace=replace)) is not None:
                return FileRecord(input=file.shown, output=None, status="skipped", error=skipped, source_bytes=photo.source_bytes)
        else:
            data, said = kept_jpeg(photo.jpeg, settings)
            notices = (*notices, *said)
    else:
        if photo.pixels.size >= LARGE:
            return_memory()  # what the encoders took
        psnr, ms_ssim = likeness(found.photo, data)
    if not batch.dry_run:
        write_atomic(target, data, times=times_of(file.path) if batch.keep_dates else None, below=item.root)
        written.append(target)
    height, width = photo.pixels.shape[:2]
    output_width, output_height = (width, height) if kept else size_in(data)
    return FileRecord(
        input=file.shown,
        output=None if batch.dry_run else printable(target),
        status="kept" if kept else "ok",
        width=width,
        height=height,
        orientation=photo.orientation,
        output_width=output_width,
        output_height=output_height,
        source_bytes=photo.source_bytes,
        output_bytes=len(data),
        **_rivals(found, len(data) if sampled and not kept else None),
        format="source" if kept and photo.jpeg is None else "jpeg",
        psnr=psnr,
        ms_ssim=ms_ssim,
        quality=made.quality,
        notices=notices,
        **_verdict(found, kept=kept),
        **_watched(photo, data, file, batch),
    )


def _rivals(found: Found, size: int | None) -> dict[str, Any]:
    """The record's fields on plain JPEG; of a file without loss, of the same coefficients. `size` as `against_plain`."""
    if found.rivals is not None:
        return found.rivals
    plain = encode_plain_jpeg(found.photo.pixels, quality=round(found.made.quality) or 1)
    return {"plain_jpeg_bytes": len(plain), **against_plain(found.photo, found.made.quality, size)}


def _kept_or_not(photo: Photo, found: Found, settings: DjpegSettings) -> tuple[bool, tuple[str, ...]]:
    """Whether the source's own bytes are the output, and what is to be said about that."""
    kept, notices = _reasons_to_keep(photo, found, settings)
    if kept and settings.metadata == "none" and not can_be_kept_without_metadata(photo):
        if settings.lossless and (found.keep or photo.jpeg is None):
            hint = "use --metadata essential, or omit --lossless"
            raise InputError("cannot be kept without its metadata, and --lossless makes no other file of it", hint)
        return False, (*notices, "written although the source was to be kept: it cannot be kept without its metadata")
    if kept and settings.subsampling == "444" and photo.subsampling not in ("4:4:4", ""):
        notices = (*notices, f"its chroma is as the source has it: {photo.subsampling}")
    return kept, notices


def _reasons_to_keep(photo: Photo, found: Found, settings: DjpegSettings) -> tuple[bool, tuple[str, ...]]:
    if found.keep:
        return True, (found.keep,)
    made = found.made
    notices: tuple[str, ...] = ()
    fewer_pixels = found.photo is not photo
    kept = failed = found.state == "not_reached"
    if failed:
        score = min(found.scores[name] for name in found.against)
        reached = f"{' and '.join(found.against)} answers otherwise up to quality {made.quality:g} (score {score:.2f})"
        kept = photo.jpeg is not None  # its own bytes answer the same; pixels of another kind are no JPEG
        notices = (f"not verified: {reached}" + ("; the source is kept" if kept else ""),)
    own_size = ", with all its pixels" if fewer_pixels else ""
    larger = len(made.data) >= photo.source_bytes
    if larger and fewer_pixels and settings.max_side != "auto" and not kept and not settings.min_saving:
        return False, (*notices, "larger than its source, which has more pixels")
    if larger:
        return True, (*notices, f"source kept{own_size}: compressing would not make it smaller")
    if 1 - len(made.data) / photo.source_bytes < settings.min_saving and not failed:
        return True, (*notices, f"source kept{own_size}: the saving is below --min-saving")
    return kept or 1 - len(made.data) / photo.source_bytes < settings.min_saving, notices


def _compressed(
    photo: Photo, file: InputFile, source: DepthSource | None, settings: DjpegSettings, batch: BatchSettings
) -> Found:
    """The photo's file, under `--verify` with what the systems say of it."""
    if settings.lossless:
        return without_loss(photo, settings, batch)
    depth = source(photo, file) if source is not None else None
    mask = mask_folder(batch.masks).read(file) if batch.masks and "mask" in settings.guides else None
    looked = {}
    for name in guide_systems(settings):
        with system_errors(name):
            looked[guide.SYSTEM + name] = system_by_name(name, batch.offline).importance(displayed(photo))

    def prepare(settings: DjpegSettings) -> Prepared:
        return Prepared(photo, settings, depth=depth, mask=mask, looked=looked)

    found = _judged(prepare, photo, file, settings, batch)
    hints = () if mask is None else mask_hint(mask)
    return dataclasses.replace(found, made=dataclasses.replace(found.made, notices=(*found.made.notices, *hints)))


def _judged(
    prepare: Callable[[DjpegSettings], Prepared], photo: Photo, file: InputFile, settings: DjpegSettings, batch: BatchSettings
) -> Found:
    if not batch.verify:
        prepared = prepare(settings)
        return Found(finished(prepared, settings), prepared.photo)
    panel = Panel(batch.verify, displayed(photo), batch)
    if len(panel.blind) < len(batch.verify):
        if settings.max_side == "auto":
            return fewest_pixels(prepare, photo, settings, panel, file.shown, batch)
        return verified(prepare(settings), photo, panel, file.shown, batch)
    prepared = prepare(settings)
    made = finished(prepared, settings)
    nobody = f"{' and '.join(batch.verify)} finds nothing on the source: nothing to verify, made at --quality {made.quality:g}"
    if settings.max_side == "auto":
        nobody += " with all its pixels"
    return Found(dataclasses.replace(made, notices=(*made.notices, nobody)), prepared.photo, "nothing")


def _verdict(found: Found, *, kept: bool) -> dict[str, Any]:
    """The record's fields on `--verify`; the source's own bytes, where they are kept, answer as they do."""
    if found.state is None:
        return {}
    state = "verified" if kept and found.state == "not_reached" else found.state
    scores = dict.fromkeys(found.scores, 1.0) if kept else found.scores
    return {
        "verified": state == "verified",
        "verify_state": state,
        "verify_score": scores,
        "verify_trials": found.trials,
    }


def _watched(photo: Photo, data: bytes, file: InputFile, batch: BatchSettings) -> dict[str, Any]:
    """The record's fields on `--watch-with`, from the bytes of the file that is written."""
    if not batch.watch_with:
        return {}
    panel = Panel(batch.watch_with, displayed(photo), batch)
    verdicts = panel.compare(displayed(load_bytes(data, file.shown, max_pixels=batch.max_pixels)))
    seeing = {name: verdict for name, verdict in verdicts.items() if name not in panel.blind}
    return {
        "watch_score": {name: verdict.score for name, verdict in seeing.items()},
        "watch_same": {name: verdict.same for name, verdict in seeing.items()},
    }


def gallery(run: BatchRun, settings: DjpegSettings, batch: BatchSettings) -> list[GalleryItem]:
    """The photos that lost most (lowest MS-SSIM), worst first, with their source, result and depth map as small JPEGs."""
    items = []
    for record, file, output in run.worst:
        try:  # one whole picture in memory at a time
            photo = load(file.path, max_pixels=batch.max_pixels)
            depth = depth_source(batch)(photo, file) if needs_depth(settings) else None
            small = [_small(photo)]
            del photo
            data = output.read_bytes()
            result = load_bytes(data, record.input, max_pixels=batch.max_pixels)
        except (VizcompError, OSError):
            continue  # gone or changed since it was compressed: the report does without its picture
        # small enough: the very file is shown
        same = max(result.pixels.shape[:2]) <= GALLERY_LONG_SIDE and result.orientation == 1
        small.append(data if same else _small(result))
        if max(result.pixels.shape[:2]) < GALLERY_LONG_SIDE:  # it may have fewer pixels: the two are shown at one size
            small[0] = _at_size_of(small[0], small[1])
        del result
        coloured = None if depth is None else encode_plain_jpeg(colourise(depth.nearness), quality=85)
        items.append(GalleryItem(name=record.input, caption="", source=small[0], result=small[1], depth=coloured))
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


def total(records: Iterable[FileRecord], seconds: float) -> Totals:
    """Sums over a batch; sizes count the files that have an output."""
    files = failed = skipped = source = output = plain = pixels = 0
    optimised = 0
    equal: list[tuple[float, float, float, float]] = []  # of ours PSNR and MS-SSIM, of plain JPEG's the same
    states = dict.fromkeys(get_args(VerifyState), 0)
    watched: dict[str, dict[str, int]] = {}
    for record in records:  # once: they may be on disk
        files += 1
        failed += record.status == "failed"
        skipped += record.status == "skipped"
        if record.status in ("ok", "kept"):
            source += record.source_bytes
            output += record.output_bytes
            plain += record.plain_jpeg_bytes
            optimised += record.optimised_jpeg_bytes
            figures = (record.psnr, record.ms_ssim, record.equal_bytes_psnr, record.equal_bytes_ms_ssim)
            if None not in figures:
                equal.append(cast(tuple[float, float, float, float], figures))
            pixels += record.width * record.height
            if record.verify_state is not None:
                states[record.verify_state] += 1
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
        watched=watched,
    )


def _equal_bytes(photos: list[tuple[float, float, float, float]]) -> dict[str, float] | None:
    if not photos:
        return None
    names = ("psnr", "ms_ssim", "jpeg_psnr", "jpeg_ms_ssim")
    means = {name: sum(column) / len(photos) for name, column in zip(names, zip(*photos, strict=True), strict=True)}
    return {
        "photos": len(photos),
        **means,
        "jpeg_better_psnr": sum(jpeg > ours for ours, _, jpeg, _ in photos),
        "jpeg_better_ms_ssim": sum(jpeg > ours for _, ours, _, jpeg in photos),
    }
