"""WebP, AVIF and JPEG XL under d-JPEG's guides, qualities and verdicts.

    source ── importance for each 8x8 block, as for JPEG ── blur of what is of little importance ── the format's encoder

These encoders take no guide, so it works on the pixels in front of them (`prefilter`). `--quality` keeps what our JPEG of that
quality keeps: the tables here say which quality of each encoder that is, docs/decisions/0014-formats.md how they were made.
Pictures are written upright, since readers of these formats disagree on tags that turn them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg import guide
from vizcomp.djpeg.prefilter import prefiltered
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.jpeg.segments import promises_more, upright_exif, upright_xmp
from vizcomp.photos.decoders import Pixels
from vizcomp.photos.formats import FORMATS, check_sides, encode_format
from vizcomp.photos.frame import stored, upright
from vizcomp.photos.photo import Photo

Array = npt.NDArray[np.float32]

QUALITIES = (1.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0, 100.0)
"""Qualities of JPEG at which the encoders were calibrated; between them straight lines."""
ENCODER_QUALITIES: dict[str, tuple[float, ...]] = {
    "webp": (1, 12, 22, 32, 46, 70, 84, 100),
    "avif": (8, 30, 39, 46, 55, 68, 80, 100),
    "jxl": (5, 20, 38, 50, 64, 78, 89, 100),
}
"""Of each encoder, the quality that keeps what JPEG keeps at `QUALITIES`."""

# Widest blur in pixels at quality 50 and strength 0.25, by who guides.
FAR_SIGMA = 1.0
TEXT_SIGMA = 1.5  # where the text guide says what must stay
SYSTEM_SIGMA = 2.5  # where a vision system says what it looked at
WIDEST = 8.0  # no blur is wider
STRENGTH = 0.25  # at which the above hold: the default


def encoder_quality(name: str, quality: float) -> float:
    """The quality of a format's encoder, 0..100, that keeps what our JPEG of a quality keeps."""
    return float(np.interp(quality, QUALITIES, ENCODER_QUALITIES[name]))


def widest_blur(settings: DjpegSettings, quality: float) -> float:
    """Standard deviation in pixels of the blur at importance 0; it goes with the root of JPEG's steps, and is 0 at quality 100."""
    if settings.guides == ("uniform",):
        return 0.0
    if any(name.startswith(guide.SYSTEM) for name in settings.guides):
        sigma = SYSTEM_SIGMA
    else:
        sigma = TEXT_SIGMA if "text" in settings.guides else FAR_SIGMA
    steps = 50 / quality if quality < 50 else 2 - quality / 50
    return float(min(WIDEST, sigma * (settings.strength / STRENGTH) ** 0.5 * steps**0.5))


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a file carries beside its picture."""

    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None

    @classmethod
    def of(cls, photo: Photo, keep: str) -> Metadata:
        """What `--metadata` keeps of a photo whose pixels are written upright."""
        if keep == "none":
            return cls(None, None, None)
        if keep == "essential":
            return cls(photo.icc, None, None)
        xmp = photo.xmp if photo.xmp and not promises_more(photo.xmp) else None
        return cls(photo.icc, upright_exif(photo.exif), upright_xmp(xmp) if xmp else None)


class Picture:
    """A photo and its importance map, ready to be coded in one format at several qualities.

    Args:
        photo: the photo.
        importance: float32 (R, C), one value for each 8x8 block of its pixels.
        settings: what is asked.
        name: of the format: a key of `FORMATS`.

    Raises:
        UnsupportedError: the format cannot hold its sides.
    """

    def __init__(self, photo: Photo, importance: Array, settings: DjpegSettings, name: str) -> None:
        self.format = FORMATS[name]
        check_sides(self.format, *photo.pixels.shape[:2])
        self.importance = importance
        self._photo = photo
        self._settings = settings
        self._metadata = Metadata.of(photo, settings.metadata)
        turned = photo.orientation != 1
        self.notices: tuple[str, ...] = ("turned upright: readers differ on orientation tags",) if turned else ()

    @property
    def plain(self) -> bool:
        """Whether a file holds the picture and nothing else."""
        return self._photo.alpha is None and not (self._metadata.icc or self._metadata.exif or self._metadata.xmp)

    def at(self, quality: float, share: float = 1.0) -> bytes:
        """The file at a quality, the guides' blur `share` of what the strength says; as `Prepared.at`."""
        return self.coded(encoder_quality(self.format.name, quality), share * widest_blur(self._settings, quality))

    def mended(self, quality: float, share: float, fine: float, places: Array) -> bytes:
        """The file at a quality, some places without their blur.

        An encoder has one quality for all of a picture. Where the places have lost no more than it takes, half the way to
        `fine` is gone everywhere.

        Args:
            quality, share: as in `at`.
            fine: the quality in the places.
            places: float32 (h, w) in 0..1 over the photo as displayed; 1: kept.
        """
        size = self._photo.pixels.shape[:2]
        kept = guide.mask_importance(stored(places, self._photo.orientation), size=(size[0], size[1]))
        sigma = share * widest_blur(self._settings, quality)
        blurred = kept * (1 - self.importance) * sigma
        if blurred.size == 0 or float(blurred.max()) < FELT:
            quality = (quality + fine) / 2
        return self.coded(encoder_quality(self.format.name, quality), sigma, np.maximum(self.importance, kept))

    def coded(self, quality: float, sigma: float, importance: Array | None = None) -> bytes:
        """The file at the encoder's own quality, and a widest blur in pixels."""
        pixels = prefiltered(self._photo.pixels, self.importance if importance is None else importance, sigma)
        alpha = self._photo.alpha
        turn = self._photo.orientation
        return encode_format(
            upright(pixels, turn),
            self.format,
            quality,
            alpha=None if alpha is None else _contiguous(upright(alpha, turn)),
            icc=self._metadata.icc,
            exif=self._metadata.exif,
            xmp=self._metadata.xmp,
        )


FELT = 0.4  # pixels of blur: what a place with less has lost is not worth a trial


def _contiguous(array: Pixels) -> Pixels:
    return np.ascontiguousarray(array)
