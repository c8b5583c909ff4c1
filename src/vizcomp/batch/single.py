"""One photo in memory to the bytes of its file: its guides, the verdict on it, and whether its source is kept.

Files, members of shards and the photos of `vizcomp.compress` all come through here, so that all are made alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.batch.judges import displayed, guide_systems, system_by_name, system_errors
from vizcomp.batch.records import FileRecord
from vizcomp.batch.rivals import against_plain, likeness
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.verdicts import Found, Panel, plain_rival, verified
from vizcomp.depth.maps import DepthSource, mask_hint
from vizcomp.djpeg import guide
from vizcomp.djpeg.compress import LARGE, Prepared, finished
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import FormatError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.jpeg.exif import essential_exif, has_more_than_essential
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import EXIF, essential_segments, with_metadata
from vizcomp.jpeg.write import write_jpeg
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.photo import Photo, load_bytes
from vizcomp.photos.strip import with_essential
from vizcomp.weights.sessions import return_memory


@dataclasses.dataclass(frozen=True)
class Finished:
    """A photo's file before it is written.

    Attributes:
        data: its bytes.
        kept: the source's own bytes, perhaps with less metadata.
        suffix: that of the source's kind, such as ".png", where it was kept and is no JPEG; else "".
        found: what was made, also where it was not taken, and the verdict on it.
        notices: what a user should know, that of the reading included.
    """

    data: bytes
    kept: bool
    suffix: str
    found: Found
    notices: tuple[str, ...]


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
        original: the bytes that the photo was read from; None: it was no file, so there is nothing to keep.
        depth: gives its depth, where the guides need that.
        mask: float (h, w) in 0..1 as displayed, bright = keep, where the guides need that.
        keep_other: a source that is no JPEG may be kept as it is; False: what is made is a JPEG in any case.

    Raises:
        VizcompError: the photo cannot be made, a map is missing, a system fails.
    """
    found = _compressed(photo, file, depth, mask, settings, batch)
    made = found.made
    notices = (*photo.notices, *made.notices)
    data = made.data
    larger = original is not None and len(data) >= photo.source_bytes
    kept = larger or (original is not None and 1 - len(data) / photo.source_bytes < settings.min_saving)
    failed = found.state == "not_reached"
    if failed:
        score = min(found.scores[name] for name in found.against)
        reached = f"{' and '.join(found.against)} answers otherwise up to quality {made.quality:g} (score {score:.2f})"
        keep = photo.jpeg is not None  # its own bytes answer the same; pixels of another kind are no JPEG
        notices = (*notices, f"not verified: {reached}" + ("; the source is kept" if keep else ""))
        kept = kept or keep
    if kept and settings.metadata == "none" and not _can_be_kept_without_metadata(photo):
        kept = False
        notices = (*notices, "written although the source was to be kept: it cannot be kept without its metadata")
    if kept and photo.jpeg is None and not keep_other:
        kept = False
        notices = (*notices, f"written although {'it is larger than' if larger else 'it saves little over'} the source")
    if not kept or original is None:
        return Finished(data, False, "", found, notices)
    if settings.metadata == "all":  # the whole file: nothing that it carries is lost
        notices = tuple(n for n in notices if not n.endswith("is not in the result"))
    stripped, told = _kept_other(photo, original, settings)
    notices = (*notices, *told)
    if larger:
        notices = (*notices, "source kept: compressing would not make it smaller")
    elif not failed:
        notices = (*notices, "source kept: the saving is below `min_saving`")
    if photo.jpeg is None:
        return Finished(stripped, True, file.relative.suffix.lower() or f".{photo.format.lower()}", found, notices)
    return Finished(_kept_jpeg(photo.jpeg, settings.metadata), True, "", found, notices)


def measured(photo: Photo, made: Finished, file: InputFile, batch: BatchSettings, *, sampled: bool) -> FileRecord:
    """The record of a photo and its file, without where that is written; `sampled`: plain JPEG is searched at our bytes too."""
    quality = made.found.made.quality
    plain = encode_plain_jpeg(photo.pixels, quality=round(quality) or 1)
    psnr: float | None = None
    ms_ssim: float | None = 1.0
    if not made.kept:
        if photo.pixels.size >= LARGE:
            return_memory()  # what the encoders took
        psnr, ms_ssim = likeness(photo, made.data)
    height, width = photo.pixels.shape[:2]
    return FileRecord(
        input=file.shown,
        output=None,
        status="kept" if made.kept else "ok",
        width=width,
        height=height,
        source_bytes=photo.source_bytes,
        output_bytes=len(made.data),
        plain_jpeg_bytes=len(plain),
        **against_plain(photo, quality, len(made.data) if sampled and not made.kept else None),
        format="source" if made.suffix else "jpeg",
        psnr=psnr,
        ms_ssim=ms_ssim,
        quality=quality,
        notices=made.notices,
        **verdict_fields(made.found, kept=made.kept),
        **(plain_rival(photo, file.shown, batch) if sampled and made.found.state in ("verified", "not_reached") else {}),
        **watch_fields(photo, made.data, file, batch),
    )


def _compressed(
    photo: Photo,
    file: InputFile,
    source: DepthSource | None,
    mask: npt.NDArray[np.float32] | None,
    settings: DjpegSettings,
    batch: BatchSettings,
) -> Found:
    """The photo's file, under `verify` with what the systems say of it."""
    depth = source(photo, file) if source is not None else None
    looked = {}
    for name in guide_systems(settings):
        with system_errors(name):
            looked[guide.SYSTEM + name] = system_by_name(name, batch.offline).importance(displayed(photo))
    prepared = Prepared(photo, settings, depth=depth, mask=mask, looked=looked)
    found = _judged(prepared, photo, file, settings, batch)
    hints = () if mask is None else mask_hint(mask)
    return dataclasses.replace(found, made=dataclasses.replace(found.made, notices=(*found.made.notices, *hints)))


def _judged(prepared: Prepared, photo: Photo, file: InputFile, settings: DjpegSettings, batch: BatchSettings) -> Found:
    if not batch.verify:
        return Found(finished(prepared, settings))
    panel = Panel(batch.verify, displayed(photo), batch)
    if len(panel.blind) < len(batch.verify):
        return verified(prepared, photo, panel, file.shown, batch)
    made = finished(prepared, settings)
    nobody = f"{' and '.join(batch.verify)} finds nothing on the source: nothing to verify, made at `quality` {made.quality:g}"
    return Found(dataclasses.replace(made, notices=(*made.notices, nobody)), "nothing")


def verdict_fields(found: Found, *, kept: bool) -> dict[str, Any]:
    """The record's fields on `verify`; the source's own bytes, where they are kept, answer as they do."""
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


def watch_fields(photo: Photo, data: bytes, file: InputFile, batch: BatchSettings) -> dict[str, Any]:
    """The record's fields on `watch_with`, from the bytes of the file that is written."""
    if not batch.watch_with:
        return {}
    panel = Panel(batch.watch_with, displayed(photo), batch)
    verdicts = panel.compare(displayed(load_bytes(data, file.shown, max_pixels=batch.max_pixels)))
    seeing = {name: verdict for name, verdict in verdicts.items() if name not in panel.blind}
    return {
        "watch_score": {name: verdict.score for name, verdict in seeing.items()},
        "watch_same": {name: verdict.same for name, verdict in seeing.items()},
    }


def _can_be_kept_without_metadata(photo: Photo) -> bool:
    if photo.jpeg is not None:
        return photo.orientation == 1  # its coefficients can be written again without; a turned one would lie on its side
    return not (photo.icc or photo.exif or photo.xmp)


def _kept_other(photo: Photo, original: Callable[[], bytes], settings: DjpegSettings) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a kept source that is no JPEG, with no more metadata than asked for where that can be done; notices."""
    if photo.jpeg is not None:
        return b"", ()
    data, exif = original(), (photo.exif or b"").removeprefix(EXIF)
    if settings.metadata == "all":
        return data, ()
    stripped = with_essential(data, essential_exif(exif, photo.orientation))
    if stripped == data:
        return data, ()
    if stripped is not None:
        with contextlib.suppress(VizcompError):
            if _same_picture(load_bytes(stripped, "kept", max_pixels=photo.pixels.size), photo):
                return stripped, ()
    if not (photo.xmp or has_more_than_essential(exif)):
        return data, ()
    return data, ("the kept source carries its metadata, such as place and camera: use `metadata` none",)


def _same_picture(one: Photo, other: Photo) -> bool:
    alike = (one.orientation, one.icc, one.pixels.shape) == (other.orientation, other.icc, other.pixels.shape)
    return alike and bool(np.array_equal(one.pixels, other.pixels))


def _kept_jpeg(jpeg: bytes, metadata: str) -> bytes:
    """The same picture with no more metadata than the user asked for, since a kept source is an output too."""
    if metadata == "all":
        return jpeg
    if metadata == "essential":
        return with_metadata(jpeg, "essential")
    try:
        image = read_jpeg(jpeg)
    except FormatError:  # of a kind that only pixels tell
        return with_metadata(jpeg, "none")
    return write_jpeg(dataclasses.replace(image, segments=essential_segments(image.segments, "none")))
