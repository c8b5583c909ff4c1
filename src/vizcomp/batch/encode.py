"""What `encode` does with images that become a file each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence

import numpy as np

from vizcomp.batch.groups import (
    SMALL_SIDE,
    CodecRun,
    GroupImage,
    Pixels,
    codec_totals,
    failed_record,
    grouped,
    images_of,
    outcomes_of,
    output_targets,
    skipped_record,
    within_memory,
    worker_codec,
)
from vizcomp.batch.items import CRASH, ItemsTask, Outcome
from vizcomp.batch.log import open_log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.packs import MAX_PACKED_PIXELS
from vizcomp.batch.records import CodecRecord
from vizcomp.batch.settings import EncodeSettings, deciding_settings
from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.files.find import EXTENSIONS, InputFile
from vizcomp.files.store import AnyPath
from vizcomp.metrics import bits_per_pixel
from vizcomp.neural.analysis import candidate_count
from vizcomp.neural.codec import NeuralCodec
from vizcomp.photos.frame import rgb, upright
from vizcomp.photos.opencv import by_opencv, check_decoder
from vizcomp.photos.photo import load, to_srgb
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc
from vizcomp.vzc.pack_blocks import PackEntry


@dataclasses.dataclass(frozen=True)
class EncodeTask(ItemsTask):
    """Some inputs of `encode` that travel together; an item without target goes into a pack."""

    settings: EncodeSettings
    jobs: int = 0


def run_encode(
    files: Iterable[InputFile],
    output: AnyPath | None,
    settings: EncodeSettings,
    options: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
) -> CodecRun:
    """Write NAME.vzc for each photo, beside it or below `output`.

    Ctrl-C ends the run after what is in hand; what is finished stays.

    Args:
        output: a folder; for one photo also a file that ends in .vzc; None: beside each photo.

    Raises:
        VizcompError: what no file can do without is wrong: the model, a setting, the folder.
    """
    decides = deciding_settings(
        "encode", settings, identities=check_encoder(settings, options.jobs)[1]
    )
    files, target, folder = output_targets(
        files, output, ".vzc", extensions=EXTENSIONS, dry_run=settings.dry_run
    )
    started = time.perf_counter()
    with open_log(folder, decides, settings) as log:
        verb = Verb(
            record=CodecRecord,
            tasks=lambda items: (
                EncodeTask(group, settings, options.jobs) for group in grouped(items)
            ),
            work=encode_some,
            on_crash=encode_crashed,
        )
        records, interrupted = run_batch(
            (log.item(file, target(file)) for file in files), verb, log, options
        )
    totals = codec_totals(records, time.perf_counter() - started, vzc_is_output=True)
    return CodecRun(records=records, totals=totals, interrupted=interrupted)


def check_encoder(settings: EncodeSettings, jobs: int) -> tuple[NeuralCodec, list[str]]:
    """The codec, and who codes and judges, with fingerprints; fails before the first file where
    every file would fail."""
    candidate_count(settings.search)
    codec = worker_codec(settings.model, jobs)
    if settings.iterations is not None and not 1 <= settings.iterations <= codec.iterations:
        raise SettingsError(
            f"{settings.iterations} iterations: model {codec.name} has 1 to {codec.iterations}",
            "choose another `iterations`",
        )
    identities = [codec.fingerprint.hex()]
    if settings.decoder != "pillow":
        identities.append(check_decoder(settings.decoder))
        if not settings.verify:
            raise SettingsError(
                "`decoder` has no effect without `verify`", "name a vision system, or omit it"
            )
    if settings.verify:
        from vizcomp.batch.encode_verified import judges_of

        identities += judges_of(settings)
    return codec, identities


def encode_crashed(task: EncodeTask) -> list[Outcome[CodecRecord]]:
    return [Outcome(failed_record(item.file, VizcompError(CRASH))) for item in task.items]


def encode_some(task: EncodeTask) -> list[Outcome[CodecRecord]]:
    """Encode the photos of a task and write them, or make what a pack holds of them: one outcome
    each, whatever happens."""
    coded = images_of(task.items)
    small: dict[tuple[int, ...], list[GroupImage]] = {}
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
    return outcomes_of(task.items, coded)


def _read_photo(item: GroupImage, settings: EncodeSettings) -> CodecRecord:
    if (skipped := skipped_record(item, settings)) is not None:
        return skipped
    photo = load(item.file.path, max_pixels=settings.max_pixels)
    pixels, notices = to_srgb(photo)
    item.pixels = np.ascontiguousarray(upright(pixels, photo.orientation))
    height, width = item.pixels.shape[:2]
    return dataclasses.replace(
        item.record,
        width=width,
        height=height,
        pixels=width * height,
        notices=(*photo.notices, *notices),
    )


def _encode_together(group: list[GroupImage], task: EncodeTask) -> None:
    """Small images of one size. Where that fails each is tried alone, so that each gets its own
    error."""
    started = time.perf_counter()
    try:
        within_memory(lambda g: _encode(g, task), group)
    except Exception:
        for item in group:
            if not item.company:
                _encode_alone(item, task)
        return
    share = (time.perf_counter() - started) / len(group)
    for item in group:
        item.record = dataclasses.replace(item.record, seconds=item.record.seconds + share)
        item.step(lambda it: _write_vzc(it, task.settings))


def _encode_alone(item: GroupImage, task: EncodeTask) -> None:
    def work(it: GroupImage) -> CodecRecord:
        _encode([it], task)
        return _write_vzc(it, task.settings)

    item.step(work)


def _encode(group: list[GroupImage], task: EncodeTask) -> None:
    """Gives each of the items, all of one size, its file's bytes, or its entry of a pack."""
    settings = task.settings
    codec = worker_codec(settings.model, task.jobs)
    sources = [item.pixels for item in group if item.pixels is not None]
    if group[0].target is None:
        for item, entry in zip(group, _entries(codec, sources, settings), strict=True):
            item.entry = entry
        return
    if len(sources) == 1:
        encodings = [
            codec.encode(
                sources[0], iterations=settings.iterations, bpp=settings.bpp, search=settings.search
            )
        ]
    else:
        most = (
            codec.iterations
            if settings.bpp is not None and settings.iterations is None
            else settings.iterations
        )
        files = codec.encode_many(
            np.stack([rgb(s) for s in sources]), iterations=most, search=settings.search
        )
        encodings = [
            _fitted(data, settings.bpp, grey=s.ndim == 2)
            for data, s in zip(files, sources, strict=True)
        ]
    for item, data, source in zip(group, encodings, sources, strict=True):
        if settings.verify and not item.company:
            from vizcomp.batch.encode_verified import verified

            shown = (
                source
                if settings.decoder == "pillow"
                else by_opencv(item.file.path.read_bytes(), item.file.shown)
            )
            item.found = verified(codec, shown, data, settings)
        item.data = data if item.found is None else item.found.data


def _fitted(data: bytes, bpp: float | None, *, grey: bool) -> bytes:
    """A file with its last iterations left out until it fits, and marked as grey where its source
    was."""
    file = vzc.unpack(data)
    header, chunks = file.header, list(file.chunks)
    while True:
        data = vzc.pack(
            chunks, model=header.model, width=header.width, height=header.height, grey=grey
        )
        if bpp is None or len(chunks) == 1 or 8 * len(data) <= bpp * header.width * header.height:
            return data
        chunks.pop()


def _entries(
    codec: NeuralCodec, sources: Sequence[Pixels], settings: EncodeSettings
) -> list[PackEntry]:
    """What a pack holds of images of one size; with `bpp` as many iterations as fit, one at
    least."""
    height, width = sources[0].shape[:2]
    if height * width > MAX_PACKED_PIXELS:
        raise InputError(
            f"{width}x{height} pixels are too many for a pack",
            "packs are for small images: leave out `pack`",
        )
    most = (
        codec.iterations
        if settings.bpp is not None and settings.iterations is None
        else settings.iterations
    )
    codes = codec.codes_many(
        np.stack([rgb(s) for s in sources]), iterations=most, search=settings.search
    )
    payloads = coding.encode_batch(codec.context, codes, [])
    counts = [len(codes)] * len(sources)
    for shorter in range(len(codes) - 1, 0, -1):
        over = [
            i
            for i, p in enumerate(payloads)
            if settings.bpp is not None and 8 * len(p) > settings.bpp * height * width
        ]
        if not over:
            break
        again = coding.encode_batch(codec.context, [plane[over] for plane in codes[:shorter]], [])
        for i, payload in zip(over, again, strict=True):
            payloads[i], counts[i] = payload, shorter
    return [
        PackEntry(payload=payload, width=width, height=height, grey=s.ndim == 2, iterations=count)
        for payload, count, s in zip(payloads, counts, sources, strict=True)
    ]


def _write_vzc(item: GroupImage, settings: EncodeSettings) -> CodecRecord:
    """The record of an encoded image; writes its file where it has one of its own."""
    item.pixels = None
    verdict = item.found
    if verdict is not None and verdict.state != "verified":
        if verdict.state == "nothing":
            said = f"{' and '.join(settings.verify)} finds nothing on the source: nothing to verify"
        else:
            score = min(verdict.scores[name] for name in verdict.against)
            otherwise = f"{' and '.join(verdict.against)} answers otherwise"
            said = (
                f"not verified: {otherwise} up to iteration {verdict.iterations} (score"
                f" {score:.2f})"
            )
        item.record = dataclasses.replace(item.record, notices=(*item.record.notices, said))
    if item.entry is not None:
        size, iterations = len(item.entry.payload), item.entry.iterations
    else:
        size, iterations = len(item.data), vzc.read_header(item.data).iterations
    return dataclasses.replace(
        item.record,
        output=item.write(item.data, settings),
        output_bytes=size,
        iterations=iterations,
        bpp=bits_per_pixel(size, item.record.pixels),
        verified=None if verdict is None else verdict.state == "verified",
        verify_state=None if verdict is None else verdict.state,
        verify_score=None if verdict is None else verdict.scores,
        verify_trials=0 if verdict is None else verdict.trials,
        source_answers=None if verdict is None else verdict.said,
    )
