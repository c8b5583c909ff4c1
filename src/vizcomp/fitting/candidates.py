"""The settings that a fit tries: ladders of qualities for each format, number of pixels and guide;
and plain rivals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vizcomp.djpeg.readers import DEFAULT, parse_readers, readable
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import MissingExtraError, SettingsError
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.formats import FORMATS, check_writable, encode_format
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo

QUALITIES = (8, 14, 22, 32, 45, 60, 76, 90)
GUIDES = (("uniform", 0.0), ("depth+text", 0.25))
THIRDS = (1 / 3, 2 / 3)
LARGER = 0.25  # share of the photos that have to be larger than a side for it to be tried
SHARES = (1.0, 4 / 3, 2.0)  # of the input of a system, sides that are tried
SIDES = (320, 448, 640, 1024)  # longer sides where no system says how large its input is
LAST_RESORT = DjpegSettings(
    quality=100.0, guide="uniform", strength=0.0, table="photo", subsampling="keep"
)
"""A JPEG source keeps its very integers."""

AUTO = "auto"
RIVALS = ("jpeg", "webp", "avif")
RIVAL_QUALITIES = (25, 40, 55, 65, 75, 82, 88, 93, 97)
STORED = 75  # quality of plain JPEG as people store it


@dataclasses.dataclass(frozen=True)
class Rival:
    """What people use: a format's own encoder at its own quality, without guide and with all
    pixels.

    Attributes:
        codec: "jpeg" is optimised and progressive, "plain" is JPEG as Pillow writes it, "webp" and
            "avif" are those.
        quality: of the encoder.
    """

    codec: str
    quality: int

    @property
    def title(self) -> str:
        """For people."""
        return {"jpeg": "optimised JPEG", "plain": "plain JPEG"}.get(self.codec) or FORMATS[
            self.codec
        ].title

    def encode(self, photo: Photo) -> bytes:
        """The file, upright, with the photo's ICC profile.

        Raises:
            UnsupportedError: the format cannot hold the photo.
        """
        pixels = np.ascontiguousarray(upright(photo.pixels, photo.orientation))
        if self.codec in FORMATS:
            return encode_format(pixels, FORMATS[self.codec], self.quality, icc=photo.icc)
        small = self.codec == "jpeg"
        return encode_plain_jpeg(
            pixels, quality=self.quality, optimize=small, progressive=small, icc=photo.icc
        )


Candidate = DjpegSettings | Rival


def formats_of(asked: str, readers: str) -> tuple[list[str], list[str]]:
    """The formats to try, and what to say of those that are left out.

    Args:
        asked: "auto", or one format.
        readers: who must open the files, as of `DjpegSettings`; "" for `readers.DEFAULT`.

    Raises:
        SettingsError: no such format or reader, or one that a reader does not open, or that cannot
            be written here.
        MissingExtraError: the library that writes it is not there.
    """
    names = parse_readers(readers) or (DEFAULT if asked == AUTO else ())
    if asked != AUTO:
        DjpegSettings(format=asked, readers=readers)  # type: ignore[arg-type]  # it says what is wrong
        if asked in FORMATS:
            check_writable(asked)
        return [asked], []
    found, said = [], []
    for name in ("jpeg", *FORMATS):
        if not readable(name, names):
            continue
        try:
            if name in FORMATS:
                check_writable(name)
        except (MissingExtraError, SettingsError) as exc:
            said.append(f"{FORMATS[name].title} is not tried: {exc.message}; {exc.hint}")
            continue
        found.append(name)
    return found, said


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How many pixels a result has.

    Attributes:
        max_side, short_side, resample: as of `DjpegSettings`; by default all pixels of the photo.
    """

    max_side: int | None = None
    short_side: int | None = None
    resample: str = "lanczos"

    def __str__(self) -> str:
        if self.short_side:
            return f"shorter side {self.short_side} {self.resample}"
        return f"longer side {self.max_side} {self.resample}" if self.max_side else "all pixels"


@dataclasses.dataclass(frozen=True)
class Input:
    """What a system makes of a photo first.

    Attributes:
        size: height and width.
        crops: it sees the middle of a photo that has another shape.
        resample: its filter, or "lanczos" where that is not known or not ours.
    """

    size: tuple[int, int]
    crops: bool = False
    resample: str = "lanczos"


def pixels_of(inputs: Sequence[Input], sides: Sequence[tuple[int, int]]) -> list[Pixels]:
    """How many pixels to try, all of them first; what would make hardly any photo smaller is left
    out.

    A photo that has just the size which a system's own resize gives, by the same filter, is to that
    system the photo itself.

    Args:
        inputs: of the systems that say how large theirs is.
        sides: width and height of some photos.
    """
    tried: list[Pixels] = []
    for one in inputs:
        for share in SHARES:
            side = round(max(one.size) * share)
            which = "short_side" if one.crops else "max_side"
            tried.append(Pixels(**{which: side}, resample=one.resample))  # type: ignore[arg-type]
    if not inputs:
        tried = [Pixels(max_side=side) for side in SIDES]
    longer, shorter = (np.array([by(size) for size in sides]) for by in (max, min))
    found = [Pixels()]
    for pixels in dict.fromkeys(tried):
        larger = (
            longer > 1.1 * (pixels.max_side or 0)
            if pixels.max_side
            else shorter > 1.1 * (pixels.short_side or 0)
        )
        if not len(sides) or float(larger.mean()) >= LARGER:
            found.append(pixels)
    return found


def ladders(
    formats: Sequence[str] = ("jpeg",), sizes: Sequence[Pixels] = (Pixels(),)
) -> list[list[DjpegSettings]]:
    """The candidates: for each kind of setting a ladder of qualities, small files first, and above
    them the last resort.

    With all pixels each guide has a ladder, and JPEG one for each of its tables. With fewer there
    is no guide: what a resize leaves has no smooth far parts to save on. JPEG and AVIF have colour
    at full resolution too then.
    """
    last = LAST_RESORT
    if "jpeg" not in formats:
        last = dataclasses.replace(LAST_RESORT, format=formats[0], subsampling="420")  # type: ignore[arg-type]
    return [
        [*(dataclasses.replace(kind, quality=float(quality)) for quality in QUALITIES), last]
        for name in formats
        for pixels in sizes
        for kind in _kinds(name, pixels)
    ]


def _kinds(name: str, pixels: Pixels) -> list[DjpegSettings]:
    """Settings of a format and so many pixels, at any quality."""
    whole = pixels == Pixels()
    if name == "jpeg":
        kinds = (
            [("auto", "420"), ("photo", "420"), ("machine", "420")]
            if whole
            else [("photo", "420"), ("photo", "444")]
        )
    else:
        kinds = [("auto", "420")] if whole or name != "avif" else [("auto", "420"), ("auto", "444")]
    return [
        DjpegSettings(
            guide=guide,
            strength=strength,
            table=table,  # type: ignore[arg-type]
            format=name,  # type: ignore[arg-type]
            subsampling=chroma,  # type: ignore[arg-type]
            **dataclasses.asdict(pixels),
        )
        for table, chroma in kinds
        for guide, strength in (GUIDES if whole and table == "auto" else GUIDES[:1])
    ]


def rival_ladder(codec: str) -> list[Candidate]:
    """A rival's qualities, small files first."""
    return [Rival(codec, quality) for quality in RIVAL_QUALITIES]


def is_last(one: Candidate) -> bool:
    """Whether a setting is the one above all ladders."""
    return isinstance(one, DjpegSettings) and one.quality == 100


def refined(sequence: Sequence[Candidate]) -> list[Candidate]:
    """A sequence with two steps between each two of its qualities, one between the first and the
    second, where the first is the last resort, and two below the last."""
    finer: list[Candidate] = []
    for one in sequence:
        if finer and is_last(finer[-1]):
            finer += [_between(one, one.quality, finer[-1].quality, 0.5)]
        elif finer:
            finer += [_between(one, finer[-1].quality, one.quality, share) for share in THIRDS]
        finer.append(one)
    last = sequence[-1]
    steps = RIVAL_QUALITIES if isinstance(last, Rival) else QUALITIES
    below = max((q for q in steps if q < last.quality), default=0)
    if below and not is_last(last):
        finer += [_between(last, last.quality, below, share) for share in THIRDS]
    return list(dict.fromkeys(finer))


def _between(one: Candidate, quality: float, other: float, share: float) -> Candidate:
    """A setting of this kind, so far from one quality to the other, in parts of their ratio."""
    middle = round(quality ** (1 - share) * other**share)
    if isinstance(one, Rival):
        return Rival(one.codec, middle)
    return dataclasses.replace(one, quality=float(middle))


def named(one: Candidate) -> str:
    """A setting for people."""
    if isinstance(one, Rival):
        return f"{one.title} q{one.quality}"
    if one == LAST_RESORT:
        return "quality 100, the sources' own pixels"
    guide = f"guide {one.guide}" if one.strength and one.guide != "uniform" else "no guide"
    kind = f"JPEG, {one.table} table" if one.format == "jpeg" else FORMATS[one.format].title
    pixels = Pixels(
        one.max_side if isinstance(one.max_side, int) else None, one.short_side, one.resample
    )
    chroma = ", 4:4:4" if one.subsampling == "444" else ""
    return f"{kind}{chroma}, quality {one.quality:g}, {guide}, {pixels}"
