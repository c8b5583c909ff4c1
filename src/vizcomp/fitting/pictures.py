"""What changed, drawn: photos that lose most, with the answers on the source and on the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vizcomp.batch.seen import file_seen, source_seen
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import VizcompError
from vizcomp.fitting.judge import Coder, asked
from vizcomp.fitting.measure import PhotoVerdict
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.frame import thumbnail
from vizcomp.photos.photo import load
from vizcomp.vision.answers import Answer, Pixels
from vizcomp.vision.draw import drawn
from vizcomp.vision.scale import rescaled

LONG_SIDE = 480  # pixels of a picture in the report
QUALITY = 88


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A photo that lost something to one system.

    Attributes:
        row: the photo and its verdict.
        system: by its place among the systems.
        source, result: JPEGs with the answer drawn, of one size.
    """

    row: PhotoVerdict
    system: int
    source: bytes
    result: bytes


def draw_worst(
    rows: Sequence[PhotoVerdict],
    settings: DjpegSettings,
    systems: Sequence[str],
    *,
    max_pixels: int,
    offline: bool,
    decoder: str = "pillow",
) -> list[Drawn]:
    """The pictures of some photos, each with the system that lost most; those that cannot be made
    are left out."""
    found = []
    for row in rows:
        at = max(range(len(systems)), key=lambda i: row.verdict.losses[i])
        try:
            source, result = _pair(
                row,
                settings,
                systems[at],
                BatchSettings(max_pixels=max_pixels, offline=offline, decoder=decoder),
            )
        except (VizcompError, OSError, MemoryError):
            continue
        found.append(Drawn(row, at, source, result))
    return found


def _pair(
    row: PhotoVerdict, settings: DjpegSettings, system: str, batch: BatchSettings
) -> tuple[bytes, bytes]:
    photo = load(row.file.path, max_pixels=batch.max_pixels)
    shown = source_seen(photo, row.file.path.read_bytes, row.file.shown, batch)
    data = Coder(photo, row.file, batch).data(settings)
    result = shown if data is None else file_seen(data, row.file.shown, batch)
    answers = [asked([system], picture, offline=batch.offline)[0] for picture in (shown, result)]
    size = thumbnail(shown, long_side=LONG_SIDE).shape[:2]
    return _picture(shown, answers[0], size), _picture(result, answers[1], size)


def _picture(pixels: Pixels, answer: Answer, size: tuple[int, ...]) -> bytes:
    """A picture at the report's size, the answer on it in that size, so that both are drawn with
    equal lines."""
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    answer = rescaled(answer, pixels.shape[:2], (size[0], size[1]))
    return encode_plain_jpeg(drawn(np.asarray(image), answer), quality=QUALITY, subsampling="4:4:4")
