"""A JPEG written again with the same coefficients: only Huffman tables, scans and metadata
differ."""

from __future__ import annotations

import dataclasses

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.jpeg.exif import essential_exif
from vizcomp.jpeg.image import Segment
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import APP1, EXIF, essential_segments, orientation
from vizcomp.jpeg.write import write_jpeg


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A JPEG that was written again.

    Attributes:
        data: the file's bytes.
        plain_bytes, optimised_bytes: of the same coefficients as one scan with the typical Huffman
            tables, and as progressive scans with the best ones.
        notices: what a user should know.
    """

    data: bytes
    plain_bytes: int
    optimised_bytes: int
    notices: tuple[str, ...] = ()


def rewritten(jpeg: bytes, settings: DjpegSettings, *, max_pixels: int) -> Rewritten:
    """The same picture, coefficient for coefficient, with as much metadata as the settings say.

    Without metadata the orientation stays nonetheless: without it the picture would lie on its
    side, and turning it would be a change.

    Args:
        jpeg: of any colour, progressive or not.
        settings: their `scans` and `metadata` count.
        max_pixels: a larger picture is refused.

    Raises:
        FormatError: damaged, or of a kind that has no coefficients here: arithmetic coding, 12
            bits.
    """
    image = read_jpeg(jpeg, max_pixels=max_pixels)
    image = dataclasses.replace(image, segments=(segments := _segments(image.segments, settings)))
    optimised = write_jpeg(image)
    data = optimised if settings.scans == "progressive" else write_jpeg(image, progressive=False)
    notices = image.notices
    if settings.metadata == "none" and orientation(segments) != 1:
        notices = (
            *notices,
            "its orientation is kept: without it the picture would lie on its side",
        )
    return Rewritten(
        data, len(write_jpeg(image, progressive=False, optimise=False)), len(optimised), notices
    )


def _segments(segments: list[Segment], settings: DjpegSettings) -> list[Segment]:
    kept = essential_segments(segments, settings.metadata)
    if settings.metadata == "none":
        blocks = essential_exif(b"", value) if (value := orientation(segments)) != 1 else b""
        kept = ([(APP1, EXIF + blocks)] if blocks else []) + kept
    return kept
