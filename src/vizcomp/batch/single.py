"""One photo in memory to the bytes of its file: its guides, the verdict on it, and whether its
source is kept.

Files, members of shards and the photos of `vizcomp.compress` all come through here, so that all are
made alike.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.batch.judges import guide_systems, system_by_name, system_errors
from vizcomp.batch.kept import kept_jpeg, kept_or_not, kept_other
from vizcomp.batch.lossless import without_loss
from vizcomp.batch.near import measures_near, near_field
from vizcomp.batch.records import FileRecord
from vizcomp.batch.rivals import SAMPLE, against_plain, likeness
from vizcomp.batch.seen import file_seen, source_seen, uncoloured
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.sides import fewest_pixels
from vizcomp.batch.verdicts import Found, Panel, plain_rival, verified
from vizcomp.depth.maps import DepthSource, mask_hint
from vizcomp.depth.sources import of_photo
from vizcomp.djpeg import guide
from vizcomp.djpeg.compress import LARGE, Ready, finished, prepare
from vizcomp.djpeg.kinds import settings_for
from vizcomp.djpeg.outside import without_outside
from vizcomp.djpeg.readers import readable
from vizcomp.djpeg.settings import FORMATS, DjpegSettings
from vizcomp.errors import InputError
from vizcomp.files.find import InputFile
from vizcomp.photos.colour import FLATTENED
from vizcomp.photos.decoders import Pixels
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.photo import STILL_THERE, Photo, size_in
from vizcomp.weights.sessions import return_memory

Shown = Callable[[], Pixels]  # a source as systems see it, made where one is asked


@dataclasses.dataclass(frozen=True)
class Finished:
    """A photo's file before it is written.

    Attributes:
        data: its bytes.
        kept: the source's own bytes, perhaps with less metadata.
        suffix: of its name, where it is not the one that the settings ask for: that of the source's
            kind, such as ".png", where it was kept, or that of the format that "auto" took; else
            "".
        format: "jpeg", "webp", "avif", "jxl", or "source" where a source of another kind than was
            asked for is kept.
        found: what was made, also where it was not taken, and the verdict on it.
        notices: what a user should know, that of the reading included.
        masked: the photo without what is outside its mask, which all was compared with; None where
            nothing was dropped.
    """

    data: bytes
    kept: bool
    suffix: str
    found: Found
    notices: tuple[str, ...]
    format: str = "jpeg"
    masked: Photo | None = None


def finish(
    photo: Photo,
    file: InputFile,
    settings: DjpegSettings,
    batch: BatchSettings,
    *,
    original: Callable[[], bytes] | None,
    depth: DepthSource | None = None,
    mask: npt.NDArray[np.float32] | None = None,
    keep_other: bool = True,
) -> Finished:
    """A photo's file, as the settings ask for it.

    Args:
        photo: from `photos.load` or `load_bytes`.
        file: by which its maps are found, and named in errors.
        original: the bytes that the photo was read from; None: it was no file, so there is nothing
            to keep.
        depth: gives its depth, where the guides need that.
        mask: float (h, w) in 0..1 as displayed, bright = keep, where the guides need that.
        keep_other: a source of another format than is asked for may be kept as it is; False: it is
            made in that in any case.

    Raises:
        VizcompError: the photo cannot be made, a map is missing, a system fails.
    """
    whole = photo
    settings = settings_for(photo, settings)
    if settings.mask_outside == "drop" and mask is not None:
        photo = without_outside(photo, mask)
    if photo is not whole:
        original = None  # no source may be kept of which something is to go
    shown = shown_source(photo, original, file, batch)
    result = _compressed(photo, file, shown, depth, mask, settings, batch)
    output = result.made
    read = photo.notices
    if photo is not whole and len(output.data) >= photo.source_bytes:
        read = (*read, "larger than its source, which has more than its mask keeps")
    if output.format != "jpeg" and photo.alpha is not None:  # which the file has
        read = tuple(notice for notice in read if notice != FLATTENED)
    kept, said = kept_or_not(photo, result, settings, is_file=original is not None)
    notices = (*read, *output.notices, *said)
    source_format = photo.format.lower()  # of the source
    if kept and not _read_by_all(source_format, settings.reading):
        kept = False
        notices = (
            *notices,
            "written although the source was to be kept: not all `readers` open its format",
        )
    if kept and source_format not in settings.formats and not keep_other:
        if result.keep:
            raise InputError(result.keep, "leave it out, or omit `lossless`")
        kept = False
        larger = len(output.data) >= photo.source_bytes
        notices = (
            *notices,
            (
                f"written although {'it is larger than' if larger else 'it saves little over'} the"
                " source"
            ),
        )
    if not kept or original is None:
        suffix = f".{output.format}".replace(".jpeg", ".jpg")
        return Finished(
            output.data,
            False,
            "" if suffix == settings.suffix else suffix,
            result,
            notices,
            output.format,
            masked=None if photo is whole else photo,
        )
    return _kept(photo, file, original, result, settings, notices)


def _kept(
    photo: Photo,
    file: InputFile,
    original: Callable[[], bytes],
    result: Found,
    settings: DjpegSettings,
    notices: tuple[str, ...],
) -> Finished:
    """The source itself, with no more metadata than asked for."""
    source_format = photo.format.lower()
    if settings.metadata == "all":  # the whole file: nothing that it carries is lost
        notices = tuple(n for n in notices if not n.endswith("is not in the result"))
    same_format = (
        source_format == "jpeg" if settings.format == "auto" else source_format == settings.format
    )
    kind = source_format if source_format in settings.formats else "source"
    if photo.jpeg is None:
        notices = tuple(n for n in notices if not n.endswith(STILL_THERE))
        data, said = kept_other(photo, original, settings)
        suffix = (
            settings.suffix if same_format else file.relative.suffix.lower() or f".{source_format}"
        )
        return Finished(
            data, True, "" if suffix == settings.suffix else suffix, result, (*notices, *said), kind
        )
    data, said = kept_jpeg(photo.jpeg, settings)
    return Finished(data, True, "" if same_format else ".jpg", result, (*notices, *said), kind)


def measured(
    photo: Photo,
    output: Finished,
    file: InputFile,
    settings: DjpegSettings,
    batch: BatchSettings,
    *,
    number: int,
    original: Callable[[], bytes] | None = None,
) -> FileRecord:
    """The record of a photo and its file, without where that is written.

    Args:
        number: of the photo in its run, from 0: on the first ones plain JPEG is searched at our
            bytes too, and what the depth guide bought is measured.
        original: as `finish`.
    """
    sampled = number < SAMPLE
    if output.masked is not None:
        photo, original = output.masked, None
    shown = shown_source(photo, original, file, batch)
    psnr: float | None = None
    ms_ssim: float | None = 1.0
    if not output.kept:
        if photo.pixels.size >= LARGE:
            return_memory()  # what the encoders took
        psnr, ms_ssim = likeness(output.found.photo, output.data)
    height, width = photo.pixels.shape[:2]
    output_width, output_height = (width, height) if output.kept else size_in(output.data)
    return FileRecord(
        input=file.shown,
        output=None,
        status="kept" if output.kept else "ok",
        width=width,
        height=height,
        orientation=photo.orientation,
        output_width=output_width,
        output_height=output_height,
        source_bytes=photo.source_bytes,
        output_bytes=len(output.data),
        near=_near(output, settings, number),
        **_rivals(output.found, len(output.data) if sampled and not output.kept else None),
        format=output.format,
        psnr=psnr,
        ms_ssim=ms_ssim,
        quality=output.found.made.quality,
        notices=output.notices,
        **system_fields(output, shown, file, batch),
        **(
            plain_rival(photo, settings, shown(), file.shown, batch)
            if sampled and output.found.state in ("verified", "not_reached")
            else {}
        ),
    )


def _near(output: Finished, settings: DjpegSettings, number: int) -> dict[str, float] | None:
    """`FileRecord.near`, on the photos of a run on which it is measured."""
    found = output.found
    if output.kept or found.depth is None or not measures_near(number, found.photo, settings):
        return None
    return near_field(
        found.photo, output.data, found.made.quality, output.format, found.depth, settings
    )


def shown_source(
    photo: Photo, original: Callable[[], bytes] | None, file: InputFile, batch: BatchSettings
) -> Shown:
    """Gives the source as systems see it; `original` as `finish`."""
    return lambda: source_seen(photo, original, file.shown, batch)


def _rivals(result: Found, size: int | None) -> dict[str, Any]:
    """The record's fields on plain JPEG; of a file without loss, of the same coefficients. `size`
    as `against_plain`."""
    if result.rivals is not None:
        return result.rivals
    plain = encode_plain_jpeg(result.photo.pixels, quality=round(result.made.quality) or 1)
    return {
        "plain_jpeg_bytes": len(plain),
        **against_plain(result.photo, result.made.quality, size),
    }


def _compressed(
    photo: Photo,
    file: InputFile,
    shown: Shown,
    source: DepthSource | None,
    mask: npt.NDArray[np.float32] | None,
    settings: DjpegSettings,
    batch: BatchSettings,
) -> Found:
    """The photo's file, under `verify` with what the systems say of it."""
    if settings.lossless:
        return without_loss(photo, settings, batch)
    depth = of_photo(source, photo, file) if source is not None else None
    guess = functools.cache(depth) if callable(depth) else None  # asked once, or not at all
    looked = {}
    for name in guide_systems(settings):
        with system_errors(name):
            looked[guide.SYSTEM + name] = system_by_name(name, batch.offline).importance(shown())

    def ready(settings: DjpegSettings) -> list[Ready]:
        return prepare(photo, settings, depth=guess or depth, mask=mask, looked=looked)

    verdict = _judged(ready, photo, file, shown, settings, batch)
    hints = () if mask is None else mask_hint(mask)
    if guess is not None:
        depth = guess() if guess.cache_info().currsize else None
    assert not callable(depth)
    return dataclasses.replace(
        verdict,
        depth=depth,
        made=dataclasses.replace(verdict.made, notices=(*verdict.made.notices, *hints)),
    )


def _judged(
    prepare: Callable[[DjpegSettings], list[Ready]],
    photo: Photo,
    file: InputFile,
    shown: Shown,
    settings: DjpegSettings,
    batch: BatchSettings,
) -> Found:
    if not batch.verify:
        ready = prepare(settings)
        return Found(finished(ready, settings), ready[0].photo)
    panel = Panel(batch.verify, shown(), batch, uncoloured(photo, batch))
    if len(panel.blind) < len(batch.verify):
        if settings.max_side == "auto":
            found = fewest_pixels(prepare, photo, settings, panel, file.shown, batch)
        else:
            found = verified(prepare(settings), photo, panel, file.shown, batch)
        return dataclasses.replace(found, said=panel.said)
    ready = prepare(settings)
    files = finished(ready, settings)
    nobody = (
        f"{' and '.join(batch.verify)} finds nothing on the source: nothing to verify, made at"
        f" `quality` {files.quality:g}"
    )
    if settings.max_side == "auto":
        nobody += " with all its pixels"
    return Found(
        dataclasses.replace(files, notices=(*files.notices, nobody)),
        ready[0].photo,
        "nothing",
        said=panel.said,
    )


def system_fields(
    result: Finished, shown: Shown, file: InputFile, batch: BatchSettings
) -> dict[str, Any]:
    """The record's fields on `verify` and `watch_with`; `shown` gives the source."""
    watched, said = _watch_fields(shown, result.data, file, batch)
    answers = {**result.found.said, **said}
    verdict = _verdict_fields(result.found, kept=result.kept)
    return {**verdict, **watched, "source_answers": answers or None}


def _verdict_fields(result: Found, *, kept: bool) -> dict[str, Any]:
    """The record's fields on `verify`; the source's own bytes, where they are kept, answer as they
    do."""
    if result.state is None:
        return {}
    state = "verified" if kept and result.state == "not_reached" else result.state
    scores = dict.fromkeys(result.scores, 1.0) if kept else result.scores
    return {
        "verified": state == "verified",
        "verify_state": state,
        "verify_score": scores,
        "verify_trials": result.trials,
    }


def _watch_fields(
    shown: Shown, data: bytes, file: InputFile, batch: BatchSettings
) -> tuple[dict[str, Any], dict[str, str]]:
    """The record's fields on `watch_with`, from the bytes of the file that is written, and what the
    systems say of the source."""
    if not batch.watch_with:
        return {}, {}
    panel = Panel(batch.watch_with, shown(), batch)
    verdicts = panel.compare(file_seen(data, file.shown, batch))
    seeing = {name: verdict for name, verdict in verdicts.items() if name not in panel.blind}
    fields = {
        "watch_score": {name: verdict.score for name, verdict in seeing.items()},
        "watch_same": {name: verdict.same for name, verdict in seeing.items()},
    }
    return fields, panel.said


def _read_by_all(kind: str, readers: tuple[str, ...]) -> bool:
    """Whether all readers open a source of a format; of those that are not written here, all but
    HEIF are old."""
    if not readers or kind not in ("heif", *FORMATS):
        return True
    return kind != "heif" and readable(kind, readers)
