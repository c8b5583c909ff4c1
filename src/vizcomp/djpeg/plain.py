"""What an ordinary encoder makes of a photo, with the metadata and the scans that are asked for: a
candidate under a verdict, and the rival there."""

from __future__ import annotations

import dataclasses

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.djpeg.source import Source
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.write import write_jpeg
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo


class Plain:
    """Plain JPEG of one photo.

    Args:
        photo: what is coded.
        settings: metadata, scans and subsampling are taken from here.
        source: of this photo under these settings; its coefficients are not kept.
    """

    def __init__(self, photo: Photo, settings: DjpegSettings, source: Source) -> None:
        turned = source.orientation != photo.orientation
        self._pixels = upright(photo.pixels, photo.orientation) if turned else photo.pixels
        self._settings, self._segments = settings, source.segments
        self._subsampling = "4:4:4" if settings.subsampling == "444" else "4:2:0"

    def at(self, quality: int) -> bytes:
        """The file at a quality, 1..100: the ordinary encoder's integers, in our scans."""
        image = read_jpeg(
            encode_plain_jpeg(self._pixels, quality=quality, subsampling=self._subsampling)
        )
        image = dataclasses.replace(image, segments=self._segments)
        return write_jpeg(image, progressive=self._settings.scans == "progressive")

    def size(self, quality: int) -> int:
        """Bytes of the same as the ordinary encoder writes it, optimised and progressive, with the
        same metadata."""
        data = encode_plain_jpeg(
            self._pixels,
            quality=quality,
            subsampling=self._subsampling,
            optimize=True,
            progressive=True,
        )
        return len(data) + sum(len(payload) + 4 for _, payload in self._segments)
