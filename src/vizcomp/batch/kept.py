"""Sources that are kept as they are: where they go, and with how much of their metadata."""

from __future__ import annotations

import dataclasses

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import FormatError
from vizcomp.files.store import AnyPath
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import essential_segments, with_metadata
from vizcomp.jpeg.write import write_jpeg
from vizcomp.photos.photo import Photo


def under_own_suffix(target: AnyPath, source: AnyPath) -> AnyPath:
    """Where a source that is kept as it is goes: "a.jpg", made for a.png, becomes "a.png"; so does "a.png.jpg"."""
    base, suffix = target.name.removesuffix(".jpg"), source.suffix.lower()
    return target.with_name(base if base.lower().endswith(suffix) else base + suffix)


def can_be_kept_without_metadata(photo: Photo) -> bool:
    """Whether a source can be an output although no metadata are to be in it."""
    if photo.jpeg is not None:
        return photo.orientation == 1  # its coefficients can be written again without; a turned one would lie on its side
    return not (photo.icc or photo.exif or photo.xmp)


def kept_jpeg(jpeg: bytes, settings: DjpegSettings) -> tuple[bytes, tuple[str, ...]]:
    """The same picture with no more metadata than the user asked for, since a kept source is an output too, and its scans.

    Returns:
        The bytes, and what a user should know.
    """
    try:
        image = read_jpeg(jpeg) if settings.scans == "baseline" or settings.metadata == "none" else None
    except FormatError as exc:  # of a kind that only pixels tell
        notices = (f"its scans stay as they are: {exc.message}",) if settings.scans == "baseline" else ()
        return (jpeg if settings.metadata == "all" else with_metadata(jpeg, settings.metadata)), notices
    if image is not None and (settings.metadata == "none" or image.progressive):
        image = dataclasses.replace(image, segments=essential_segments(image.segments, settings.metadata))
        return write_jpeg(image, progressive=settings.scans == "progressive"), ()
    return (jpeg if settings.metadata == "all" else with_metadata(jpeg, settings.metadata)), ()


def times_of(path: AnyPath) -> tuple[int, int]:
    """Times of a file's last access and change, in nanoseconds."""
    stat = path.stat()
    return getattr(stat, "st_atime_ns", stat.st_mtime_ns), stat.st_mtime_ns
