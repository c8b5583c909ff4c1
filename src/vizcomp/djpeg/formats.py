"""WebP, AVIF and JPEG XL under d-JPEG's guides, qualities and verdicts.

    source ── importance for each 8x8 block, as for JPEG ── blur of what is of little importance ──
    the format's encoder

These encoders take no guide, so it works on the pixels in front of them (`prefilter`). `--quality`
keeps what our JPEG of that quality keeps: the tables here say which quality of each encoder that
is, docs/decisions/0016-formats.md how they were made. Pictures are written upright, since readers
of these formats disagree on tags that turn them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg import guide
from vizcomp.djpeg.prefilter import prefiltered
from vizcomp.djpeg.settings import BESIDE_QUALITY, DEFAULT_STRENGTH, DjpegSettings, steps_of
from vizcomp.errors import InputError
from vizcomp.jpeg.exif import essential_exif
from vizcomp.jpeg.segments import EXIF, promises_more, upright_exif
from vizcomp.jpeg.xmp import upright_xmp
from vizcomp.photos.formats import (
    FORMATS,
    WITHOUT_PROFILES,
    check_sides,
    check_writable,
    encode_format,
)
from vizcomp.photos.frame import stored, upright
from vizcomp.photos.photo import Photo, to_srgb

Array = npt.NDArray[np.float32]

QUALITIES = (0.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0, 95.0, 100.0)
"""Qualities of JPEG at which the encoders were calibrated; between them straight lines."""
ENCODER_QUALITIES: dict[str, tuple[float, ...]] = {
    "webp": (0, 9, 26, 42, 57, 79, 88, 96, 100),
    "avif": (0, 22, 35, 44, 52, 62, 79, 92, 100),
    "jxl": (0, 18, 38, 56, 67, 80, 89, 96, 99.9),  # at 100 it would be lossless
}
"""Of each encoder, the quality that keeps what JPEG keeps at `QUALITIES`."""
WITHOUT_LETTERING: dict[str, tuple[float, ...]] = {
    "webp": (0, 29, 49, 67, 80, 89, 94, 97, 100),
    "avif": (0, 36, 46, 54, 62, 73, 86, 95, 100),  # not tuned for signal-to-noise there
    "jxl": (0, 44, 56, 67, 74, 84, 91, 96, 99.9),
}
"""The same on photos without lettering, where classifiers and detectors need more than text does
(docs/decisions/0029-measured-factors.md)."""

# Widest blur in pixels at quality 50 and strength 0.25, by who guides.
FAR_SIGMA = 0.8
TEXT_SIGMA = 1.2  # where the text guide, or a learned one, says what must stay
SYSTEM_SIGMA = 5.0  # where a vision system says what it looked at, or sees the middle alone
WIDEST = 12.0  # no blur is wider
FELT = 0.4  # pixels of blur: what a place with less has lost is not worth a trial

TARGET_TOLERANCE = 0.02
LEAST_STEP = 0.05  # of quality, between two that are tried for a target size
WIDEST_OF_ALL = 64.0  # pixels, where a target size takes it
SQUEEZES = 12


def check_formats(settings: DjpegSettings) -> None:
    """Fail before the first photo where the library is missing that writes the format.

    Raises:
        MissingExtraError, SettingsError: as `photos.formats.check_writable`.
    """
    if settings.format in FORMATS:
        check_writable(settings.format)


def encoder_quality(name: str, quality: float, *, lettering: float = 1.0) -> float:
    """The quality of a format's encoder, 0..100, that keeps what our JPEG of a quality keeps.

    Args:
        lettering: `guide.lettering` of the photo: between none and much of it both tables are
            mixed, but for AVIF, which is tuned otherwise as soon as there is some.
    """
    there = float(np.interp(quality, QUALITIES, ENCODER_QUALITIES[name]))
    without = float(np.interp(quality, QUALITIES, WITHOUT_LETTERING[name]))
    share = float(lettering > 0) if name == "avif" else float(lettering**0.5)
    return without + share * (there - without)


def widest_blur(settings: DjpegSettings, quality: float) -> float:
    """Standard deviation in pixels of the blur at importance 0: with the root of JPEG's steps, so
    that it is 0 at quality 100; under the guide `centre` alone as at `BESIDE_QUALITY` at any finer
    one."""
    if settings.guides == ("uniform",):
        return 0.0
    if any(name.startswith(guide.SYSTEM) or name == "centre" for name in settings.guides):
        sigma = SYSTEM_SIGMA
    elif "text" in settings.guides or any(guide.is_learned(name) for name in settings.guides):
        sigma = TEXT_SIGMA
    else:
        sigma = FAR_SIGMA
    if settings.guides == ("centre",):
        quality = min(quality, BESIDE_QUALITY)
    steps = steps_of(max(quality, 1))
    return float(min(WIDEST, sigma * (settings.strength / DEFAULT_STRENGTH) ** 0.5 * steps**0.5))


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
        tiff = (photo.exif or b"").removeprefix(EXIF)
        if keep == "essential":
            block = essential_exif(tiff, 1)
            return cls(photo.icc, EXIF + block if block else None, None)
        xmp = photo.xmp if photo.xmp and not promises_more(photo.xmp) else None
        return cls(photo.icc, upright_exif(photo.exif), upright_xmp(xmp) if xmp else None)


class Picture:
    """A photo and its importance map, ready to be coded in one format at several qualities.

    Args:
        photo: the photo.
        importance: float32 (R, C), one value for each 8x8 block of its pixels.
        settings: what is asked.
        name: of the format: a key of `FORMATS`.
        say: factor (0..1) on the blur, which goes with the root of a price: that of `guides_say` of
            the same photo.
        lettering: `guide.lettering` of the photo.

    Attributes:
        quick: files are only tried: as of `encode_format`.

    Raises:
        UnsupportedError: the format cannot hold its sides.
    """

    quick = False

    def __init__(
        self,
        photo: Photo,
        importance: Array,
        settings: DjpegSettings,
        name: str,
        *,
        say: float = 1.0,
        lettering: float = 1.0,
    ) -> None:
        self.format = name
        self._say = say
        self._kind = FORMATS[name]
        check_sides(self._kind, *photo.pixels.shape[:2])
        self.importance = importance
        self.photo = photo
        self.notices: tuple[str, ...] = ()
        if photo.orientation != 1:
            self.notices += ("turned upright: readers differ on orientation tags",)
        if name in WITHOUT_PROFILES and photo.icc is not None:
            pixels, said = to_srgb(photo)
            photo = dataclasses.replace(photo, pixels=pixels, icc=None)
            self.notices += said
        self._photo = photo
        self._settings = settings
        # tuned for signal-to-noise AVIF keeps lettering; all other systems do better without
        self._by_signal, self._lettering = lettering > 0, lettering
        self._metadata = Metadata.of(photo, settings.metadata)

    @property
    def guided(self) -> bool:
        """Whether the guides have a say; as of `Prepared`."""
        return self._say > 0 and float(self.importance.min()) < 1

    @property
    def plain(self) -> bool:
        """Whether a file holds the picture and nothing else."""
        return self._photo.alpha is None and not (
            self._metadata.icc or self._metadata.exif or self._metadata.xmp
        )

    def at(self, quality: float, share: float = 1.0) -> bytes:
        """The file at a quality, the guides' blur `share` of what the strength says; as
        `Prepared.at`."""
        return self._coded(quality, self._blur(quality, share))

    def mended(self, quality: float, share: float, fine: float, places: Array) -> bytes:
        """The file at a quality, some places without their blur.

        An encoder has one quality for all of a picture. Where the places have lost no blur that
        counts, half the way to `fine` is gone everywhere.

        Args:
            quality, share: as in `at`.
            fine: the quality in the places.
            places: float32 (h, w) in 0..1 over the photo as displayed; 1: kept.
        """
        height, width = self._photo.pixels.shape[:2]
        mask = guide.mask_importance(stored(places, self._photo.orientation), size=(height, width))
        blur = self._blur(quality, share)
        if float((mask * blur).max()) < FELT:
            quality = (quality + fine) / 2
        return self._coded(quality, (1 - mask) * blur)

    def meet(self, target: int) -> tuple[bytes, float, tuple[str, ...]]:
        """The best file of at most `target` bytes, its quality, and notices.

        Encoders' qualities go in jumps; between two of them all is blurred a little until the finer
        one fits.

        Raises:
            InputError: no file is so small.
        """
        floor = target * (1 - TARGET_TOLERANCE)
        data = self.at(100)
        if len(data) <= target:
            return (
                data,
                100.0,
                (
                    ("smaller than the target size at the highest quality",)
                    if len(data) < floor
                    else ()
                ),
            )
        low, high, best = 0.0, 100.0, b""
        while high - low > LEAST_STEP and len(best) < floor:
            middle = (low + high) / 2
            if self._setting(middle) == self._setting(high):  # this encoder has none between
                break
            data = self.at(middle)
            if len(data) <= target:
                low, best = middle, data
            else:
                high = middle
        if len(best) >= floor:
            return best, low, ()
        finer = self._squeezed(high, target, floor)
        if not best and not finer:
            data = self._squeezed(0.0, target, floor) or b""
            if not data:
                raise InputError(
                    f"cannot be made as small as {target} bytes in {self._kind.title}",
                    "give a larger `target_size`, or resize the photo",
                )
            return data, 0.0, ()
        return (finer, high, ()) if len(finer) >= len(best) else (best, low, ())

    def _squeezed(self, quality: float, target: int, floor: float) -> bytes:
        """The largest file found at a quality, with a blur over all of it, that fits; none where
        none does."""
        blur = self._blur(quality, 1.0)
        sharp, soft, best = 0.0, WIDEST_OF_ALL, b""
        for _ in range(SQUEEZES):
            middle = sharp + (soft - sharp) / 4 if not best else (sharp + soft) / 2
            data = self._coded(quality, np.hypot(blur, np.float32(middle)))
            if len(data) <= target:
                soft, best = middle, max(best, data, key=len)
            else:
                sharp = middle
            if len(best) >= floor:
                break
        return best

    def _setting(self, quality: float) -> float:
        """The encoder's quality, as it tells them apart."""
        setting = encoder_quality(self.format, quality, lettering=self._lettering)
        return round(setting) if self.format == "avif" else setting

    def _blur(self, quality: float, share: float) -> Array:
        """The guides' blur: float32 (R, C), in pixels."""
        widest = share * self._say * widest_blur(self._settings, quality)
        return np.asarray((1 - self.importance) * np.float32(widest), np.float32)

    def _coded(self, quality: float, blur: Array) -> bytes:
        """The file at a quality of ours, blurred by (R, C) pixels first."""
        turn, alpha = self._photo.orientation, self._photo.alpha
        return encode_format(
            upright(prefiltered(self._photo.pixels, blur), turn),
            self._kind,
            encoder_quality(self.format, quality, lettering=self._lettering),
            by_signal=self._by_signal,
            alpha=None if alpha is None else np.ascontiguousarray(upright(alpha, turn)),
            icc=self._metadata.icc,
            exif=self._metadata.exif,
            xmp=self._metadata.xmp,
            full_chroma=self._settings.subsampling == "444",
            quick=self.quick,
        )
