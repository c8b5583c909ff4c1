"""Settings by kind of photo: whether there is lettering on it."""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import TYPE_CHECKING

from vizcomp.djpeg import guide
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo

if TYPE_CHECKING:
    from vizcomp.djpeg.text_regions import TextRegions

_opening = threading.Lock()


def text_regions() -> TextRegions:
    """The bundled network, opened once in a process, by the first thread that needs it."""
    with _opening:
        return _opened()


@functools.lru_cache(maxsize=1)
def _opened() -> TextRegions:
    """With one thread, as all of a worker."""
    from vizcomp.djpeg.text_regions import TextRegions

    return TextRegions()


def has_lettering(photo: Photo) -> bool:
    """Whether the bundled network is sure of some lettering on a photo."""
    return guide.lettering(text_regions()(upright(photo.pixels, photo.orientation))) > 0


def of_kind(settings: DjpegSettings, *, lettering: bool) -> DjpegSettings:
    """The settings of a photo with or without lettering; the same where there are none by kind."""
    other = settings.without_lettering
    if other is None:
        return settings
    return dataclasses.replace(settings, without_lettering=None) if lettering else other


def settings_for(photo: Photo, settings: DjpegSettings) -> DjpegSettings:
    """The settings of a photo, which is looked at only where there are some by kind."""
    if settings.without_lettering is None:
        return settings
    return of_kind(settings, lettering=has_lettering(photo))
