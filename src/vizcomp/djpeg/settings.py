"""What is asked of a d-JPEG, and its quantisation tables."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg import guide as djpeg_guide
from vizcomp.djpeg.readers import DEFAULT as DEFAULT_READERS
from vizcomp.djpeg.readers import READERS, parse_readers, readable
from vizcomp.errors import SettingsError

TABLES = ("auto", "machine", "photo")
METADATA = ("none", "essential", "all")
OUTSIDE = ("cheap", "drop")
FORMATS = ("jpeg", "webp", "avif", "jxl", "auto")
SUBSAMPLING = ("keep", "444", "420")
SCANS = ("progressive", "baseline")
RESAMPLES = ("lanczos", "bicubic", "bilinear", "area")

# Steps at quality 50; other qualities scale them as the IJG software does. Luma and chroma, 64
# values in natural order.
# machine: see docs/decisions/0002-machine-table.md for how it was chosen and what lost.
MACHINE_LUMA = 35.0
MACHINE_CHROMA = 23.0
# photo: ITU-T T.81 (1992), annex K, tables K.1 and K.2.
PHOTO_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
PHOTO_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)

DEFAULT_STRENGTH = 0.25
BESIDE_QUALITY = 20.0  # where `centre` alone guides, the sides are worth no finer steps
# settings that say something about lossless results
BESIDE_LOSSLESS = ("lossless", "scans", "metadata", "min_saving")

# a source step is kept, and its integers with it, unless the wanted step is at least this much
# coarser
KEEP_STEP_RATIO = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Numbers behind the tables `auto` and `photo`: docs/decisions/0012-table-by-photo.md,
    0021-busy-blocks.md, 0026-felt-frequencies.md.

    Attributes:
        flat: share (0..1) of the machine table in it, the rest is the photo table; below 0: by how
            much lettering there is.
        least, most: that share where there is no lettering, and where there is much.
        scale: factor on all steps of the photo table's share, such that a quality keeps what plain
            JPEG of that quality keeps.
        chroma: factor on the photo table's steps of chroma.
        dc: factor on the steps of DC.
        low, high: factors on luma's steps of the lowest and of the highest AC frequencies.
        chroma_low, chroma_high: the same of chroma's.
        price: of a bit everywhere, in squared steps; guides add theirs.
        busy: price added for each octave by which a block's contrast is above `CALM`, where there
            is no lettering.
        keep: what a squared step of luma's lowest AC frequencies counts where bits have a price and
            there is no lettering; one of the others counts 1.
        colour: share of these prices that chroma pays where there is no lettering; with it all.
        text_price: the price, instead of both, where a photo is one of lettering.
        beside: factor on the text guide's price where there is no lettering, at strength 1; none at
            the default strength.
        even: with lettering, the share of the text guide's price that calm blocks pay as well as
            busy ones; 1 beside a map or mask that a user has given.
        text_busy: with lettering, price added to it for each octave above `CALM`, of luma, at the
            default strength.
    """

    flat: float = -1.0
    least: float = 0.0
    most: float = 0.8
    scale: float = 1.25
    chroma: float = 0.4
    dc: float = 0.5
    low: float = 0.8
    high: float = 1.0
    chroma_low: float = 1.0
    chroma_high: float = 1.0
    price: float = 0.0
    busy: float = 0.06
    keep: float = 4.0
    colour: float = 0.0
    text_price: float = 0.03
    beside: float = 0.1
    even: float = 0.25
    text_busy: float = 0.5

    @classmethod
    def of(cls, text: str, table: str) -> Shape:
        """The shape of a table, some of its numbers replaced: "price=0.1,high=1.2".

        Raises:
            SettingsError: a name or a number that is none, or out of range.
        """
        base = PHOTO_SHAPE if table == "photo" else SHAPE
        known = {field.name for field in dataclasses.fields(cls)}
        numbers: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in known:
                raise SettingsError(
                    f"`shape` has no number {name!r}", f"use some of {', '.join(sorted(known))}"
                )
            try:
                numbers[name] = float(value)
            except ValueError as exc:
                raise SettingsError(
                    f"`shape` {part.strip()}: {value!r} is no number", "write it as price=0.1"
                ) from exc
            low = 0.0 if name in SHARES + PRICES else LEAST_FACTOR
            high = 1.0 if name in SHARES else MOST_FACTOR
            _in_range(f"shape {name}", numbers[name], low, high)
        return dataclasses.replace(base, **numbers)


SHAPE = Shape()
PHOTO_SHAPE = Shape(
    flat=0.3,
    scale=0.68,
    chroma=1.55,
    dc=0.75,
    low=1.0,
    price=0.08,
    busy=0.0,
    keep=1.0,
    colour=1.0,
)
"""Of the table `photo`: what PSNR and MS-SSIM gain most by together."""

# numbers of a shape that lie in 0..1, those from 0 up, and the range of the others
SHARES = ("flat", "least", "most", "colour", "beside", "even")
PRICES = ("price", "busy", "text_price", "text_busy")
LEAST_FACTOR, MOST_FACTOR = 0.1, 10.0

CALM = 64.0  # root of the summed squared AC coefficients of a block: contrast that hides nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class DjpegSettings:
    """What a user asks of d-JPEG.

    Attributes:
        quality: 1..100, of the regions that the guide calls most important; 50 is the setting of
            the original study.
        strength: 0..1, how much cheaper the least important regions get; 0 = the guide is ignored.
        guide: names joined by "+": depth, detail, mask, text (also called machine, and kept
            as text), centre, system:NAME, PATH.onnx (`djpeg.learned`); or uniform.
        table: "auto" (by what the photo holds: nearly the machine table for lettering, else the
            standard's with finer means and colour, and a price on bits of busy blocks), "machine"
            (one step for all frequencies: what lettering needs) or "photo" (tables and prices made
            for the eye).
        target_size: bytes for each output file, met within 2% from below; it replaces `quality`.
            None: no target.
        min_saving: fraction of the source's bytes that must be saved, else the source is kept as it
            is.
        metadata: "none", "essential" (ICC profile and orientation) or "all".
        mask_outside: "cheap", or "drop": of what the mask does not keep nothing is left, black is
            in its place.
        format: "jpeg", "webp", "avif", "jxl", or "auto": of those that all readers open, for each
            photo the one whose file is smallest.
        readers: who must open the files, as "pillow,opencv"; "" for `readers.DEFAULT` where the
            format is "auto".
        max_side: pixels of a result's longer side, at most; "auto": as few as the systems of
            --verify allow. None: no limit.
        short_side: pixels of a result's shorter side, at most. None: no limit.
        scale: of both sides, above 0 and at most 1. None: as they are. Nothing is ever enlarged.
        resample: the filter that makes photos smaller: "lanczos", or that of the system that will
            look, if it resizes them too.
        subsampling: of chroma: "420", "444", or "keep" as the source has it.
        scans: "progressive", or "baseline": one scan, which decodes faster and is all that hardware
            decoders take.
        lossless: nothing but Huffman tables, scans and metadata change; of the others, `min_saving`
            alone has its meaning then. With the format "jxl" a JPEG's coefficients become a JPEG
            XL, from which that JPEG can be had again.
        shape: numbers of `Shape` in place of those of the table, as "price=0.1,high=1.2"; "": none.
            Of JPEG, and of the tables "auto" and "photo".
        without_lettering: of photos without lettering, in place of all the others (`djpeg.kinds`);
            of the same format. None: all photos have the same.

    Raises:
        SettingsError: a value is out of its range, or two contradict each other.
    """

    quality: float = 50.0
    strength: float = DEFAULT_STRENGTH
    guide: str = "depth+machine"
    table: Literal["auto", "machine", "photo"] = "auto"
    target_size: int | None = None
    min_saving: float = 0.0
    metadata: Literal["none", "essential", "all"] = "essential"
    mask_outside: Literal["cheap", "drop"] = "cheap"
    format: Literal["jpeg", "webp", "avif", "jxl", "auto"] = "jpeg"
    readers: str = ""
    max_side: int | Literal["auto"] | None = None
    short_side: int | None = None
    scale: float | None = None
    resample: Literal["lanczos", "bicubic", "bilinear", "area"] = "lanczos"
    subsampling: Literal["keep", "444", "420"] = "420"
    scans: Literal["progressive", "baseline"] = "progressive"
    lossless: bool = False
    shape: str = ""
    without_lettering: DjpegSettings | None = None

    def __post_init__(self) -> None:
        _in_range("quality", self.quality, 1, 100)
        _in_range("strength", self.strength, 0, 1)
        _in_range("min_saving", self.min_saving, 0, 1)
        try:
            guides = djpeg_guide.parse(self.guide)
        except ValueError as exc:
            raise SettingsError(
                f"`guide` {self.guide}: {exc}",
                f"use {', '.join(djpeg_guide.GUIDES)}, system:NAME or a trained PATH.onnx, or"
                " several as depth+detail",
            ) from exc
        object.__setattr__(self, "guide", "+".join(guides))  # one name for the same settings
        if self.table not in TABLES:
            raise SettingsError(f"unknown `table` {self.table!r}", "use auto, machine or photo")
        if self.metadata not in METADATA:
            raise SettingsError(
                f"unknown `metadata` {self.metadata!r}", "use none, essential or all"
            )
        if self.target_size is not None and self.target_size < 1:
            raise SettingsError(
                "the target size must be at least one byte",
                "write it as 20kB, 1.5MB or a number of bytes",
            )
        if self.format not in FORMATS:
            raise SettingsError(
                f"unknown `format` {self.format!r}",
                f"use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
            )
        for reader in parse_readers(self.readers):
            if self.format != "auto" and self.format not in READERS[reader]:
                read = ", ".join(READERS[reader])
                raise SettingsError(
                    f"{reader} does not read `format` {self.format}",
                    f"it reads {read}; or use `format` auto",
                )
        if self.subsampling not in SUBSAMPLING:
            raise SettingsError(
                f"unknown `subsampling` {self.subsampling!r}", "use keep, 444 or 420"
            )
        if self.scans not in SCANS:
            raise SettingsError(f"unknown `scans` {self.scans!r}", "use progressive or baseline")
        if self.shape:
            self._check_shape()
        if self.without_lettering is not None:
            self._check_kinds(self.without_lettering)
        self._check_mask()
        self._check_size()
        self._check_format()
        self._check_lossless()

    def _check_shape(self) -> None:
        Shape.of(self.shape, self.table)
        if self.format != "jpeg" or self.table == "machine":
            what = "the table machine" if self.format == "jpeg" else f"`format` {self.format}"
            raise SettingsError(
                f"`shape` is of JPEG's tables auto and photo, not of {what}", "omit it"
            )

    def _check_kinds(self, other: DjpegSettings) -> None:
        if other.without_lettering is not None:
            raise SettingsError("settings by kind within settings by kind", "give two kinds")
        if other.format != self.format or self.format == "auto":
            raise SettingsError(
                f"settings by kind have one `format`, not {self.format} and {other.format}",
                "give the same to both",
            )
        if self.lossless or other.lossless or self.target_size is not None:
            raise SettingsError(
                "settings by kind are no setting of `lossless` or `target_size`", "omit that"
            )

    def _check_mask(self) -> None:
        if self.mask_outside not in OUTSIDE:
            raise SettingsError(
                f"unknown `mask_outside` {self.mask_outside!r}", f"use {' or '.join(OUTSIDE)}"
            )
        if self.mask_outside == "cheap":
            return
        if "mask" not in self.guides:
            raise SettingsError(
                "`mask_outside` drop needs the guide mask", "use `guide` mask, and give `masks`"
            )
        if self.metadata == "all":
            hint = "a thumbnail in them may show the whole photo: use essential or none"
            raise SettingsError(
                "`mask_outside` drop and `metadata` all contradict each other", hint
            )

    def _check_size(self) -> None:
        if self.max_side not in (None, "auto") and not (
            isinstance(self.max_side, int) and self.max_side >= 1
        ):
            raise SettingsError(
                f"`max_side` {self.max_side} is no side of a photo",
                "use a number of pixels from 1, or auto",
            )
        if self.scale is not None and not 0 < self.scale <= 1:
            hint = "photos are never enlarged: use a share above 0 and up to 1, as `scale` 0.5"
            raise SettingsError(f"`scale` {self.scale:g} is out of range", hint)
        whole = isinstance(self.short_side, int) and not isinstance(self.short_side, bool)
        if self.short_side is not None and not (whole and self.short_side >= 1):
            raise SettingsError(
                f"`short_side` {self.short_side} is no side of a photo",
                "use a number of pixels from 1",
            )
        if self.resample not in RESAMPLES:
            raise SettingsError(
                f"unknown `resample` {self.resample!r}", f"use {', '.join(RESAMPLES)}"
            )
        if self.resample != "lanczos" and not self.resizes:
            hint = "give `short_side`, `max_side` or `scale`"
            raise SettingsError("`resample` has no effect on photos of their own size", hint)
        given = [
            name for name in ("max_side", "short_side", "scale") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise SettingsError(
                f"`{given[0]}` and `{given[1]}` contradict each other", "omit one of them"
            )
        if self.max_side == "auto" and self.target_size is not None:
            raise SettingsError(
                "`max_side` auto and `target_size` contradict each other", "give a side in pixels"
            )

    def _check_format(self) -> None:
        if self.format == "jpeg":
            return
        if self.scans != "progressive":
            raise SettingsError("`scans` are of JPEG alone", "omit them, or use `format` jpeg")
        if self.subsampling != "420" and (self.format, self.subsampling) != ("avif", "444"):
            raise SettingsError(
                "`subsampling` is of JPEG alone, and of AVIF 444", "omit it, or use `format` jpeg"
            )

    def _check_lossless(self) -> None:
        if not self.lossless:
            return
        plain = DjpegSettings()
        for name in self.__dataclass_fields__:
            if name == "format" and self.format == "jxl":  # it holds a JPEG's coefficients
                continue
            if name not in BESIDE_LOSSLESS and getattr(self, name) != getattr(plain, name):
                hint = "omit one of them: lossless changes no pixel"
                raise SettingsError(f"`lossless` and `{name}` contradict each other", hint)

    @property
    def resizes(self) -> bool:
        """Whether results may have fewer pixels than their sources."""
        return (
            self.max_side is not None
            or self.short_side is not None
            or (self.scale is not None and self.scale < 1)
        )

    @property
    def guides(self) -> tuple[str, ...]:
        """The guides by name."""
        return djpeg_guide.parse(self.guide)

    @property
    def reading(self) -> tuple[str, ...]:
        """Who must open the files."""
        return parse_readers(self.readers) or (DEFAULT_READERS if self.format == "auto" else ())

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that come into question, those that promise most first."""
        if self.format != "auto":
            return (self.format,)
        return tuple(
            name for name in ("avif", "webp", "jxl", "jpeg") if readable(name, self.reading)
        )

    @property
    def suffix(self) -> str:
        """Of the files' names; of those of the format "auto", until it is known which that is."""
        return ".jpg" if self.format in ("jpeg", "auto") else f".{self.format}"

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DjpegSettings:
        """The inverse of `to_dict`."""
        other = values.get("without_lettering")
        if isinstance(other, dict):
            values = {**values, "without_lettering": cls(**other)}
        return cls(**values)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise SettingsError(f"`{name}` {value!r} is no number", f"it goes from {low} to {high}")
    if not (math.isfinite(value) and low <= value <= high):
        raise SettingsError(f"`{name}` {value} is out of range", f"it goes from {low} to {high}")


def mean_step(table: npt.NDArray[np.uint16]) -> float:
    """The mean over the ten lowest frequencies, which most bits go to."""
    return float(table.reshape(8, 8)[np.add.outer(np.arange(8), np.arange(8)) < 4].mean())


def steps_of(quality: float) -> float:
    """How many times as large as at quality 50 the IJG software's steps are: 5000/q percent below
    50, 200 - 2q percent above."""
    return 50.0 / quality if quality < 50 else 2 - quality / 50


def quantisation_tables(
    name: str, quality: float, *, scale: float = 1.0, flat: float = 0.0, shape: Shape = SHAPE
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Luma and chroma steps, uint16 (64,) in natural order, 1..255.

    The scale is that of `steps_of`, times `scale`.
    `flat` is the share of the machine table in `auto`.
    """
    scale *= steps_of(quality)
    if name == "photo":
        shape = PHOTO_SHAPE if shape is SHAPE else shape
        flat = shape.flat
    bases = [np.array(PHOTO_LUMA, float).ravel(), np.array(PHOTO_CHROMA, float).ravel()]
    if name == "machine":
        bases = [np.full(64, MACHINE_LUMA), np.full(64, MACHINE_CHROMA)]
    else:
        bases[0] *= _by_frequency(shape.dc, shape.low, shape.high) * shape.scale
        bases[1] *= (
            _by_frequency(shape.dc, shape.chroma_low, shape.chroma_high)
            * shape.chroma
            * shape.scale
        )
        ends = (MACHINE_LUMA, MACHINE_CHROMA)
        bases = [
            np.exp((1 - flat) * np.log(base) + flat * np.log(end))
            for base, end in zip(bases, ends, strict=True)
        ]
    luma, chroma = (
        np.clip(np.floor(base * scale + 0.5), 1, 255).astype(np.uint16) for base in bases
    )
    return luma, chroma


def _by_frequency(dc: float, low: float, high: float) -> npt.NDArray[np.float64]:
    """Factors on 64 steps: `low` at the lowest AC frequencies, `high` at the highest; none from u +
    v = 4 to 6."""
    order = np.add.outer(np.arange(8), np.arange(8)).ravel()
    logs = math.log(low) * np.clip((4 - order) / 3, 0, 1) + math.log(high) * np.clip(
        (order - 6) / 8, 0, 1
    )
    factors: npt.NDArray[np.float64] = np.exp(logs)
    factors[0] = dc
    return factors


def respect_source(
    wanted: npt.NDArray[np.uint16], source: npt.NDArray[np.uint16] | None
) -> npt.NDArray[np.uint16]:
    """Steps that do not spend bits on what the source has already lost.

    A step finer than the source's buys nothing, and one only a little coarser costs a second
    rounding on another lattice for few bits: in both cases the source's own step stays, and the
    integers on it are kept exactly.
    """
    if source is None:
        return wanted
    return np.where(wanted < KEEP_STEP_RATIO * source, np.minimum(source, 255), wanted).astype(
        np.uint16
    )
