"""The settings that a fit tries: ladders of qualities for each format, number of pixels and guide;
and plain rivals."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vizcomp.djpeg.readers import DEFAULT, parse_readers, readable
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import MissingExtraError, SettingsError
from vizcomp.fitting.inputs import Pixels
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.formats import FORMATS, check_writable, encode_format
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo

# the largest stand close: there AVIF of few pixels keeps what a certificate takes
QUALITIES = (14, 22, 32, 45, 60, 76, 86, 93, 97)
GUIDES = (("uniform", 0.0), ("depth+text", 0.25))
# Held against the best ladder: prices of a bit and the few numbers of JPEG's tables, one changed at
# a time; what AVIF is tuned for; and guides with their strengths.
SHAPES = {
    "photo": ("price=0", "price=0.16", "flat=0", "flat=0.6", "chroma=0.8", "high=1.5"),
    "auto": ("price=0.06", "busy=0", "busy=0.08", "flat=0.3", "chroma=0.7", "high=1.5"),
}
TUNED = ("photo", "machine")
BESIDE = (("detail", 0.25), ("depth+text", 0.5))
CENTRE = ("centre", 1.0)  # in place of no guide, where nobody looks at the sides
STEP = 0.05  # of the bytes, between two settings that are tested
MOST_STEPS = 6  # between two rungs
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

    def encode(self, photo: Photo, *, quick: bool = False) -> bytes:
        """The file, upright, with the photo's ICC profile.

        Args:
            quick: as of `encode_format`.

        Raises:
            UnsupportedError: the format cannot hold the photo.
        """
        pixels = np.ascontiguousarray(upright(photo.pixels, photo.orientation))
        if self.codec in FORMATS:
            kind = FORMATS[self.codec]
            return encode_format(pixels, kind, self.quality, icc=photo.icc, quick=quick)
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


def ladders(
    formats: Sequence[str] = ("jpeg",),
    sizes: Sequence[Pixels] = (Pixels(),),
    *,
    centre: bool = False,
) -> list[list[DjpegSettings]]:
    """The candidates: for each kind of setting a ladder of qualities, small files first, and above
    them the last resort.

    With all pixels each guide has a ladder, and JPEG one for each of its tables. With fewer there
    is no guide: what a resize leaves has no smooth far parts to save on. JPEG and AVIF have colour
    at full resolution too then.

    Args:
        centre: all systems see the middle square alone: the guide `centre` stands in place of none.
    """
    last = LAST_RESORT
    if "jpeg" not in formats:
        last = dataclasses.replace(LAST_RESORT, format=formats[0], subsampling="420")  # type: ignore[arg-type]
    return [
        [*(dataclasses.replace(kind, quality=float(quality)) for quality in QUALITIES), last]
        for name in formats
        for pixels in sizes
        for kind in _kinds(name, pixels, centre=centre)
    ]


def _kinds(name: str, pixels: Pixels, *, centre: bool) -> list[DjpegSettings]:
    """Settings of a format and so many pixels, at any quality."""
    whole = pixels == Pixels()
    guides = (CENTRE, *GUIDES[1:]) if centre else GUIDES
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
        for guide, strength in (guides if whole and table == "auto" else guides[:1])
    ]


def rungs_like(one: DjpegSettings) -> list[DjpegSettings]:
    """All qualities of a ladder that a setting is of, small files first."""
    return [dataclasses.replace(one, quality=float(quality)) for quality in QUALITIES]


def variants(ladder: Sequence[DjpegSettings]) -> list[list[DjpegSettings]]:
    """Ladders like one, each with one number of its tables, or its guide, changed; its last rung is
    theirs too."""
    kind = ladder[0]
    kinds: list[DjpegSettings] = []
    if kind.format == "jpeg":
        kinds += [dataclasses.replace(kind, shape=shape) for shape in SHAPES.get(kind.table, ())]
    elif kind.format == "avif":
        kinds += [dataclasses.replace(kind, table=table) for table in TUNED]  # type: ignore[arg-type]
    for guide, strength in BESIDE:
        names = "centre+detail" if "centre" in kind.guides else guide
        strength = kind.strength if "centre" in kind.guides else strength
        kinds.append(dataclasses.replace(kind, guide=names, strength=strength))
    return [
        [*(dataclasses.replace(one, quality=rung.quality) for rung in ladder[:-1]), ladder[-1]]
        for one in dict.fromkeys(kinds)
        if one != kind
    ]


def rival_ladder(codec: str) -> list[Candidate]:
    """A rival's qualities, small files first."""
    return [Rival(codec, quality) for quality in RIVAL_QUALITIES]


def is_last(one: Candidate) -> bool:
    """Whether a setting is the one above all ladders."""
    return isinstance(one, DjpegSettings) and one.quality == 100


def refined(
    rungs: Sequence[Candidate], near: int = 0, sizes: Mapping[Candidate, float] | None = None
) -> list[Candidate]:
    """An order of tests with steps between its rungs, and below the last.

    Args:
        rungs: safest first.
        near: how many stand before the first step.
        sizes: mean bytes of some rungs: between two of them steps are about `STEP` of the bytes
            apart. Where a size is not known, there are two steps.
    """
    known = sizes or {}
    finer: list[Candidate] = list(rungs[: near + 1])
    for above, one in itertools.pairwise(rungs[near:]):
        finer += [_on_the_way(one, above, share) for share in _shares(above, one, known)]
        finer.append(one)
    last = rungs[-1]
    steps = RIVAL_QUALITIES if isinstance(last, Rival) else QUALITIES
    below = max((q for q in steps if q < last.quality), default=0)
    by_kind = isinstance(last, DjpegSettings) and last.without_lettering is not None
    if below and not is_last(last) and not by_kind:
        lower = _between(last, below, below, 0)
        finer += [
            _between(last, below, last.quality, share) for share in _shares(last, lower, known)
        ]
    return list(dict.fromkeys(finer))


def _shares(above: Candidate, one: Candidate, sizes: Mapping[Candidate, float]) -> list[float]:
    """Where steps lie between two rungs, as shares of the way up, the largest first."""
    if above not in sizes or one not in sizes:
        return [2 / 3, 1 / 3]
    parts = math.log(max(1.0, sizes[above] / sizes[one])) / math.log1p(STEP)
    count = min(MOST_STEPS, max(1, round(parts)))
    return [place / count for place in range(count - 1, 0, -1)]


def _on_the_way(one: Candidate, above: Candidate, share: float) -> Candidate:
    """A setting so far from one to the next larger; of those by kind, each kind by itself."""
    found = _between(one, one.quality, above.quality, share)
    if not isinstance(found, DjpegSettings) or found.without_lettering is None:
        return found
    other = found.without_lettering
    larger = getattr(above, "without_lettering", None) or above
    between = _between(other, other.quality, larger.quality, share)
    assert isinstance(between, DjpegSettings)
    return dataclasses.replace(found, without_lettering=between)


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
    # the usual strengths go without saying
    if one.strength and (one.guide, one.strength) not in (CENTRE, *GUIDES):
        guide += f" at {one.strength:g}"
    kind = "JPEG" if one.format == "jpeg" else FORMATS[one.format].title
    if one.format == "jpeg" or one.table != "auto":
        kind += f", {one.table} table"
    pixels = Pixels(
        one.max_side if isinstance(one.max_side, int) else None, one.short_side, one.resample
    )
    chroma = ", 4:4:4" if one.subsampling == "444" else ""
    chroma += f" ({one.shape})" if one.shape else ""
    other = one.without_lettering
    more = f"; without lettering: quality {other.quality:g}" if other else ""
    return f"{kind}{chroma}, quality {one.quality:g}, {guide}, {pixels}{more}"
