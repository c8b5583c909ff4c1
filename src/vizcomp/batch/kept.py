"""Whether a source is kept as it is, why, and with how much of its metadata."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np

from vizcomp.batch.verdicts import Found
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import FormatError, InputError, VizcompError
from vizcomp.jpeg.exif import essential_exif, has_more_than_essential
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import EXIF, essential_segments, with_metadata
from vizcomp.jpeg.write import write_jpeg
from vizcomp.photos.photo import Photo, load_bytes
from vizcomp.photos.strip import with_essential


def kept_or_not(
    photo: Photo, result: Found, settings: DjpegSettings, *, is_file: bool
) -> tuple[bool, tuple[str, ...]]:
    """Whether the source's own bytes are the output, and what is to be said about that.

    Args:
        is_file: the photo was one, so that there are bytes to keep.

    Raises:
        InputError: it has to be, and cannot be without its metadata.
    """
    if not is_file:
        if result.keep:
            raise InputError(result.keep, "omit `lossless`")
        return False, _not_reached(photo, result)
    reason, notices = _reasons_to_keep(photo, result, settings)
    if reason and settings.metadata == "none" and not _can_be_kept_without_metadata(photo):
        if result.keep:
            hint = "use `metadata` essential, or omit `lossless`"
            raise InputError(
                "cannot be kept without its metadata, and `lossless` makes no other file of it",
                hint,
            )
        return False, (
            *notices,
            "written although the source was to be kept: it cannot be kept without its metadata",
        )
    if reason and settings.subsampling == "444" and photo.subsampling not in ("4:4:4", ""):
        notices = (*notices, f"its chroma is as the source has it: {photo.subsampling}")
    return reason, notices


def _reasons_to_keep(
    photo: Photo, result: Found, settings: DjpegSettings
) -> tuple[bool, tuple[str, ...]]:
    if result.keep:
        return True, (result.keep,)
    data, larger = result.made, len(result.made.data) >= photo.source_bytes
    little = 1 - len(data.data) / photo.source_bytes < settings.min_saving
    fewer_pixels = result.photo is not photo
    notices = _not_reached(photo, result)
    if result.state == "not_reached":
        # its own bytes answer the same; pixels of another kind are no JPEG
        keep = photo.jpeg is not None
        if keep or not larger:
            more = ("source kept: compressing would not make it smaller",) if larger else ()
            return keep or little, (*notices, *more)
    as_it_is = ", with all its pixels" if fewer_pixels else ""
    if larger and fewer_pixels and settings.max_side != "auto" and not settings.min_saving:
        return False, (*notices, "larger than its source, which has more pixels")
    if larger:
        return True, (*notices, f"source kept{as_it_is}: compressing would not make it smaller")
    return little, (
        (
            *notices,
            f"source kept{as_it_is}: the saving is below `min_saving`",
        )
        if little
        else notices
    )


def _not_reached(photo: Photo, result: Found) -> tuple[str, ...]:
    if result.state != "not_reached":
        return ()
    score = min(result.scores[name] for name in result.against)
    reached = (
        f"{' and '.join(result.against)} answers otherwise up to quality {result.made.quality:g}"
        f" (score {score:.2f})"
    )
    return (
        f"not verified: {reached}" + ("; the source is kept" if photo.jpeg is not None else ""),
    )


def _can_be_kept_without_metadata(photo: Photo) -> bool:
    """Whether a source can be an output although no metadata are to be in it."""
    if photo.jpeg is not None:
        # its coefficients can be written again without; a turned one would lie on its side
        return photo.orientation == 1
    return not (photo.icc or photo.exif or photo.xmp)


def kept_jpeg(jpeg: bytes, settings: DjpegSettings) -> tuple[bytes, tuple[str, ...]]:
    """The same picture with no more metadata than the user asked for, since a kept source is an
    output too, and its scans.

    Returns:
        The bytes, and what a user should know.
    """
    try:
        image = (
            read_jpeg(jpeg) if settings.scans == "baseline" or settings.metadata == "none" else None
        )
    except FormatError as exc:  # of a kind that only pixels tell
        notices = (
            (f"its scans stay as they are: {exc.message}",) if settings.scans == "baseline" else ()
        )
        return (
            jpeg if settings.metadata == "all" else with_metadata(jpeg, settings.metadata)
        ), notices
    if image is not None and (settings.metadata == "none" or image.progressive):
        image = dataclasses.replace(
            image, segments=essential_segments(image.segments, settings.metadata)
        )
        return write_jpeg(image, progressive=settings.scans == "progressive"), ()
    return (jpeg if settings.metadata == "all" else with_metadata(jpeg, settings.metadata)), ()


def kept_other(
    photo: Photo, original: Callable[[], bytes], settings: DjpegSettings
) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a kept source that is no JPEG, with no more metadata than asked for where that
    can be done; notices."""
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
    return data, (
        "the kept source carries its metadata, such as place and camera: use `metadata` none",
    )


def _same_picture(one: Photo, other: Photo) -> bool:
    alike = (one.orientation, one.icc, one.pixels.shape) == (
        other.orientation,
        other.icc,
        other.pixels.shape,
    )
    return alike and bool(np.array_equal(one.pixels, other.pixels))
