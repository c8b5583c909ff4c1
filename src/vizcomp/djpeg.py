"""d-JPEG: a photo and a guide to an ordinary JPEG file that any decoder opens.

    source ── DCT coefficients (a JPEG's own, or of the pixels) ──┐
    depth, detail, mask ── importance for each 8x8 block ─────────┼── rounding and rate decisions ── progressive JPEG
    quality, strength, table ── one step for each frequency ──────┘

A JPEG has one quantisation table for the whole picture, so a block cannot have a step of its own. What each block can have
is its own price of a bit in the rate-distortion decision over its coefficients: the nearest are rounded as the quality says,
farther ones give up, or lower, the coefficients that buy least for their bits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vizcomp import guide
from vizcomp.depth.maps import Depth
from vizcomp.errors import InputError, SettingsError, UnsupportedError
from vizcomp.jpeg.image import Component, JpegImage, RealComponent, RealImage
from vizcomp.jpeg.quantise import quantise
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import essential_segments, metadata_segments
from vizcomp.jpeg.transform import consume, from_pixels
from vizcomp.jpeg.write import write_jpeg
from vizcomp.photos.frame import stored, upright
from vizcomp.photos.photo import Photo
from vizcomp.weights.sessions import return_memory

if TYPE_CHECKING:
    from vizcomp.nets.text_regions_onnx import TextRegions

Array = npt.NDArray[np.float32]

TABLES = ("machine", "photo")
METADATA = ("none", "essential", "all")

# Steps at quality 50; other qualities scale them as the IJG software does. Luma and chroma, 64 values in natural order.
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

DEAD_ZONE = 0.5  # plain rounding: a wider zone cost more text than it saved bytes
FAR_RATE_WEIGHT = 0.3  # price of a bit at importance 0 and strength 1, in squared steps; nothing at importance 1

TEXT_RATE_WEIGHT = 1.65  # the same where the text guide says what must stay
TEXT_STEP_SCALE = 0.78  # and what it saves elsewhere pays for finer steps: docs/decisions/0006-text-guide.md
SYSTEM_RATE_WEIGHT = 3.6  # the same where a vision system says what it looked at: what it did not look at may go

# rounding to a step s errs by s^2 / 12 in the mean, and a further bit quarters that: it is worth 2 ln 2 / 12 squared steps
BIT_WORTH = math.log(2) / 6

KEEP_STEP_RATIO = 1.5  # a source step is kept, and its integers with it, unless the wanted step is at least this much coarser
LARGE = 4_000_000 * 3  # samples from which freed memory is worth some milliseconds
TARGET_TOLERANCE = 0.02
SMALLEST_QUALITY = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DjpegSettings:
    """What a user asks of d-JPEG.

    Attributes:
        quality: 1..100, of the regions that the guide calls most important; 50 is the setting of the original study.
        strength: 0..1, how much cheaper the least important regions get; 0 = the guide is ignored.
        guide: names joined by "+": depth, detail, mask, text, system:NAME; or uniform.
        table: "machine" (one step for almost all frequencies: what a detector or a reader needs) or "photo" (the
            standard's tables, made for the eye).
        target_size: bytes for each output file, met within 2% from below; it replaces `quality`. None: no target.
        min_saving: fraction of the source's bytes that must be saved, else the source is kept as it is.
        metadata: "none", "essential" (ICC profile and orientation) or "all".

    Raises:
        SettingsError: a value is out of its range.
    """

    quality: float = 50.0
    strength: float = 0.25
    guide: str = "depth+text"
    table: Literal["machine", "photo"] = "machine"
    target_size: int | None = None
    min_saving: float = 0.0
    metadata: Literal["none", "essential", "all"] = "essential"

    def __post_init__(self) -> None:
        _in_range("quality", self.quality, 1, 100)
        _in_range("strength", self.strength, 0, 1)
        _in_range("min-saving", self.min_saving, 0, 1)
        try:
            guide.parse(self.guide)
        except ValueError as exc:
            raise SettingsError(
                f"--guide {self.guide}: {exc}", f"use {', '.join(guide.GUIDES)}, or several as depth+detail"
            ) from exc
        if self.table not in TABLES:
            raise SettingsError(f"unknown table {self.table!r}", "use machine or photo")
        if self.metadata not in METADATA:
            raise SettingsError(f"unknown metadata setting {self.metadata!r}", "use none, essential or all")
        if self.target_size is not None and self.target_size < 1:
            raise SettingsError("the target size must be at least one byte", "write it as 20kB, 1.5MB or a number of bytes")

    @property
    def guides(self) -> tuple[str, ...]:
        """The guides by name."""
        return guide.parse(self.guide)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DjpegSettings:
        """The inverse of `to_dict`."""
        return cls(**values)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise SettingsError(f"--{name} {value} is out of range", f"it goes from {low} to {high}")


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A finished d-JPEG.

    Attributes:
        data: the file's bytes.
        quality: the quality that was used: the asked one, or the one that met the target size.
        importance: float32 (R, C), one value for each luma block in the file's own frame.
        notices: what a user should know.
    """

    data: bytes
    quality: float
    importance: Array
    notices: tuple[str, ...] = ()


def compress(
    photo: Photo,
    settings: DjpegSettings,
    *,
    depth: Depth | None = None,
    mask: Array | None = None,
    looked: Mapping[str, Array] | None = None,
) -> Compressed:
    """Compress one photo.

    Args:
        photo: from `vizcomp.images.load`.
        settings: what is asked.
        depth: the photo's depth as displayed; needed where the guide names depth.
        mask: float (h, w) in 0..1 as displayed, bright = keep; needed where the guide names mask.
        looked: for each guide "system:NAME" where that system looked, float (h, w) in 0..1 as displayed
            (`System.importance` of `vizcomp.vision`).

    Raises:
        InputError: the guide needs a map that is not given, or the target size cannot be reached.
    """
    prepared = Prepared(photo, settings, depth=depth, mask=mask, looked=looked)
    encoder, source, importance = prepared.encoder, prepared.source, prepared.importance
    if settings.target_size is not None:
        data, quality, notices = _meet_target(encoder, settings.target_size)
    else:
        data, quality, notices = encoder.encode(settings.quality, last=True), settings.quality, ()
    return Compressed(data, quality, importance, (*source.notices, *notices))


class Prepared:
    """A photo and its guides, ready to be coded at several qualities; arguments and errors as in `compress`."""

    def __init__(
        self,
        photo: Photo,
        settings: DjpegSettings,
        *,
        depth: Depth | None = None,
        mask: Array | None = None,
        looked: Mapping[str, Array] | None = None,
    ) -> None:
        # before the coefficients are there: the network's memory and theirs need not be had at once
        logits = None
        if "text" in settings.guides and settings.strength > 0:
            logits = _text_regions()(upright(photo.pixels, photo.orientation))
        if photo.pixels.size >= LARGE:
            return_memory()  # what decoding took and the networks, a third of the peak
        self.source = _Source.of(photo, settings)
        self.importance = _importance(self.source, logits, settings, depth, mask, looked or {})
        self.encoder = _Encoder(self.source, self.importance, settings)

    def at(self, quality: float, share: float = 1.0) -> bytes:
        """The file at a quality, the guides' price `share` (0..1) of what the strength says.

        At quality 100 without the guides, so that a JPEG source keeps every one of its integers.
        """
        return self.encoder.encode(quality, guided=quality < 100, obey=share)

    def mended(self, quality: float, share: float, fine: float, places: Array) -> bytes:
        """The file at a quality, with a finer one in some places.

        Args:
            quality, share: as in `at`, of most of the picture.
            fine: the quality in the places, where the guides have no say.
            places: float32 (h, w) in 0..1 over the photo as displayed; 1: `fine`, 0: `quality`.
        """
        height, width = self.source.image.height, self.source.image.width
        kept = guide.mask_importance(stored(places, self.source.orientation), size=(height, width))
        return self.encoder.encode(fine, obey=share, rest=quality, kept=kept)

    @property
    def notices(self) -> tuple[str, ...]:
        return self.source.notices


def _luma_is_finest(jpeg: JpegImage) -> bool:
    """Chroma sampled finer than luma is legal and odd; the block grids here are all counted in luma's."""
    luma = jpeg.components[0]
    return all(luma.h % c.h == 0 and luma.v % c.v == 0 for c in jpeg.components)


@dataclasses.dataclass(frozen=True)
class _Source:
    """The photo as real-valued coefficients, and what is needed to write it back."""

    image: RealImage
    tables: tuple[npt.NDArray[np.uint16] | None, ...]  # the steps that each component already lies on, if any
    segments: list[tuple[int, bytes]]
    orientation: int  # between the file's frame and the displayed one
    notices: tuple[str, ...]

    @classmethod
    def of(cls, photo: Photo, settings: DjpegSettings) -> _Source:
        """Read as coefficients where the photo is a JPEG in YCbCr or grey; from the pixels otherwise."""
        turn = settings.metadata == "none" and photo.orientation != 1  # without the tag the pixels themselves must be turned
        notices: tuple[str, ...] = ("turned upright, since the orientation tag is dropped",) if turn else ()
        if photo.jpeg is not None and not turn:
            try:
                jpeg = read_jpeg(photo.jpeg)
            except UnsupportedError as exc:  # Pillow could read it: go by its pixels
                notices = (f"read as pixels: {exc.message}",)
            else:
                if jpeg.colour in ("grey", "ycbcr") and _luma_is_finest(jpeg):
                    image, tables = _from_jpeg(jpeg)
                    segments = essential_segments(jpeg.segments, settings.metadata)
                    return cls(image, tables, segments, photo.orientation, notices)
        pixels = upright(photo.pixels, photo.orientation) if turn else photo.pixels
        image = from_pixels(pixels, subsampling="4:2:0")
        segments = essential_segments(metadata_segments(icc=photo.icc, exif=photo.exif, xmp=photo.xmp), settings.metadata)
        return cls(image, (None,) * len(image.components), segments, 1 if turn else photo.orientation, notices)


def _from_jpeg(jpeg: JpegImage) -> tuple[RealImage, tuple[npt.NDArray[np.uint16] | None, ...]]:
    tables: list[npt.NDArray[np.uint16] | None] = [jpeg.tables[c.table] for c in jpeg.components]
    real, halved = consume(jpeg)
    if halved:
        tables[1:] = [None, None]
    return real, tuple(tables)


def _importance(
    source: _Source,
    logits: Array | None,
    settings: DjpegSettings,
    depth: Depth | None,
    mask: Array | None,
    looked: Mapping[str, Array],
) -> Array:
    """The guides' importance maps, combined, in the file's own frame; `logits` of the text network, as displayed."""
    luma = source.image.components[0]
    height, width = source.image.height, source.image.width
    rows, cols = guide.grid_shape(height, width)
    if settings.strength == 0 or settings.guides == ("uniform",):
        return np.ones((rows, cols), np.float32)
    maps: list[Array] = []
    text: Array | None = None
    for name in settings.guides:
        if name == "depth":
            if depth is None:
                raise InputError("the depth guide needs a depth map", "use --guide uniform or detail, or give --depth-maps")
            nearness = stored(depth.nearness, source.orientation)
            confidence = None if depth.confidence is None else stored(depth.confidence, source.orientation)
            maps.append(guide.depth_importance(nearness, confidence, luma.dc()[:rows, :cols], size=(height, width)))
        elif name == "detail":
            maps.append(guide.detail_importance(luma.ac_norm()[:rows, :cols]))
        elif name == "text":
            assert logits is not None
            text = guide.text_importance(stored(logits, source.orientation), luma.ac_norm()[:rows, :cols], size=(height, width))
        elif name == "mask":
            if mask is None:
                raise InputError("the mask guide needs a mask", "give --masks with a folder that holds one for each photo")
            maps.append(guide.mask_importance(stored(mask, source.orientation), size=(height, width)))
        elif name.startswith(guide.SYSTEM):
            if name not in looked:
                raise InputError(f"the guide {name} needs where the system looked", "give it as looked")
            maps.append(guide.mask_importance(stored(looked[name], source.orientation), size=(height, width)))
    return guide.combine(maps, text=text)


@functools.lru_cache(maxsize=1)
def _text_regions() -> TextRegions:
    """The bundled network, opened once in a process; one thread, as all of a worker."""
    from vizcomp.nets.text_regions_onnx import TextRegions

    return TextRegions()


class _Encoder:
    """One photo, ready to be coded at any quality: what does not depend on the quality is done once."""

    def __init__(self, source: _Source, importance: Array, settings: DjpegSettings) -> None:
        self._source = source
        self._settings = settings
        if any(name.startswith(guide.SYSTEM) for name in settings.guides):
            weight = SYSTEM_RATE_WEIGHT
        else:
            weight = TEXT_RATE_WEIGHT if "text" in settings.guides else FAR_RATE_WEIGHT
        self._far = 0.0 if settings.guides == ("uniform",) else settings.strength * weight
        # for each component 0 = as important as can be, 1 = least
        self._cheap = [1 - self._on_grid_of(component, importance) for component in source.image.components]

    def _on_grid_of(self, component: RealComponent, field: Array) -> Array:
        """A map of luma's blocks on a component's own."""
        first = self._source.image.components[0]
        rows, cols = component.values.shape[:2]
        return guide.for_component(field, rows, cols, luma_size=(first.v // component.v, first.h // component.h))

    def encode(
        self,
        quality: float,
        price: float = 0.0,
        higher: float = 0.0,
        share: float = 0.0,
        *,
        last: bool = False,
        guided: bool = True,
        obey: float = 1.0,
        rest: float | None = None,
        kept: Array | None = None,
    ) -> bytes:
        """The file at a quality.

        Args:
            quality: 1..100; below 1 for sizes that no ordinary quality reaches.
            price: of a bit, added everywhere, in squared steps; it makes the file smaller.
            higher: the price instead for a `share` (0..1) of the blocks, the least important first.
            last: write the integers over the real values: no further call can follow.
            guided: obey the guides.
            obey: how far: the share (0..1) of their price.
            rest: the quality that blocks are worth where `kept`, (R, C) of luma in 0..1, is 0; where it is 1 they are worth
                `quality`, whatever the guides say. Goes without `price`.
        """
        image = self._source.image
        fine = TEXT_STEP_SCALE if guided and self._far > 0 and "text" in self._settings.guides else 1.0
        wanted = quantisation_tables(self._settings.table, quality, scale=fine)
        tables: dict[int, npt.NDArray[np.uint16]] = {}
        components = []
        for index, (component, cheap) in enumerate(zip(image.components, self._cheap, strict=True)):
            kind = min(index, 1)
            table = _respect_source(wanted[kind], self._source.tables[index])
            own = self._source.tables[index]
            slot = next((s for s, t in tables.items() if np.array_equal(t, table)), len(tables))
            tables[slot] = table
            far = np.float32(self._far * obey if guided else 0.0)
            if rest is not None and kept is not None:
                coarser = quantisation_tables(self._settings.table, rest, scale=fine)[kind]
                ratio = _mean_step(coarser) / _mean_step(table)
                rate = self._rest_rate(far * cheap, self._on_grid_of(component, kept), ratio)
            else:
                rate = far * cheap + _prices(cheap, price, higher, share)
            quantised = quantise(
                component.values,
                table,
                unit=component.unit,
                reuse=last,
                dead_zone=DEAD_ZONE,
                rate_weight=rate,
                exact=None if own is None else table == own,
                mcu=(1, 1) if len(image.components) == 1 else (component.v, component.h),
            )
            components.append(Component(id=component.id, h=component.h, v=component.v, table=slot, coefficients=quantised))
        return write_jpeg(
            JpegImage(
                width=image.width,
                height=image.height,
                components=components,
                tables=tables,
                colour="grey" if len(components) == 1 else "ycbcr",
                segments=self._source.segments,
            )
        )

    def _rest_rate(self, rate: Array, kept: Array, ratio: float) -> Array:
        """The price of a bit, in squared steps, that a bit is worth at `ratio` times the steps and a price of `rate` there."""
        steps = np.float32(max(ratio, 1.0)) ** (1 - kept)
        return np.asarray((np.minimum(rate, self._far * (1 - kept)) + BIT_WORTH) * steps**2 - BIT_WORTH, np.float32)


def _mean_step(table: npt.NDArray[np.uint16]) -> float:
    """The mean over the ten lowest frequencies, which most bits go to."""
    return float(table.reshape(8, 8)[np.add.outer(np.arange(8), np.arange(8)) < 4].mean())


def _prices(cheap: Array, price: float, higher: float, share: float) -> Array:
    if share == 0:
        return np.full(cheap.shape, price, np.float32)
    scatter = (np.arange(cheap.size) * 0.6180339887) % 1  # blocks of one importance take their turns all over the picture
    order = np.empty(cheap.size)
    order[np.lexsort((scatter, -cheap.ravel()))] = (np.arange(cheap.size) + 0.5) / cheap.size
    return np.where(order < share, higher, price).astype(np.float32).reshape(cheap.shape)


def quantisation_tables(
    name: str, quality: float, *, scale: float = 1.0
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Luma and chroma steps, uint16 (64,) in natural order, 1..255.

    The scale is the IJG software's: 5000/q percent below 50, 200 - 2q percent above; times `scale`.
    """
    scale *= 50.0 / quality if quality < 50 else 2 - quality / 50
    if name == "machine":
        bases = (np.full(64, MACHINE_LUMA), np.full(64, MACHINE_CHROMA))
    else:
        bases = (np.array(PHOTO_LUMA, float).ravel(), np.array(PHOTO_CHROMA, float).ravel())
    luma, chroma = (np.clip(np.floor(base * scale + 0.5), 1, 255).astype(np.uint16) for base in bases)
    return luma, chroma


def _respect_source(wanted: npt.NDArray[np.uint16], source: npt.NDArray[np.uint16] | None) -> npt.NDArray[np.uint16]:
    """Steps that do not spend bits on what the source has already lost.

    A step finer than the source's buys nothing, and one only a little coarser costs a second rounding on another lattice
    for few bits: in both cases the source's own step stays, and the integers on it are kept exactly.
    """
    if source is None:
        return wanted
    return np.where(wanted < KEEP_STEP_RATIO * source, np.minimum(source, 255), wanted).astype(np.uint16)


def _meet_target(encoder: _Encoder, target: int) -> tuple[bytes, float, tuple[str, ...]]:
    """The best file of at most `target` bytes, and of at least 98% of it where the photo has that much to say.

    Steps are whole numbers, so the size as a function of quality goes in jumps; between two jumps the price of a bit
    is raised until the finer steps fit.
    """
    floor = target * (1 - TARGET_TOLERANCE)
    best, best_quality = encoder.encode(100), 100.0
    if len(best) <= target:
        return best, best_quality, ("smaller than the target size at the highest quality",) if len(best) < floor else ()
    low, high = SMALLEST_QUALITY, 100.0  # the file fits at `low`, not at `high`
    best, best_quality = encoder.encode(low), low
    if len(best) > target:
        return (*_squeeze(encoder, low, target), ())
    for _ in range(12):
        if len(best) >= floor:
            return best, best_quality, ()
        middle = (low * high) ** 0.5 if low < 20 else (low + high) / 2
        data = encoder.encode(middle)
        if len(data) <= target:
            low, best, best_quality = middle, data, middle
        else:
            high = middle
        if high - low < 0.05:
            break
    finer, quality = _squeeze(encoder, high, target)
    return (finer, quality, ()) if len(finer) >= len(best) else (best, best_quality, ())


def _squeeze(encoder: _Encoder, quality: float, target: int) -> tuple[bytes, float]:
    """Raise the price of a bit at one quality, too large as it is, until the file fits; the largest that fits.

    Coefficients of a source that was a JPEG lie on a lattice, so many of them give way at the very same price. Where the
    size jumps over the target for that reason, only a share of the blocks, the least important first, pays the higher price.
    """
    low, high = 0.0, 0.125  # the file is too large at `low`
    while len(data := encoder.encode(quality, high)) > target:
        low, high = high, high * 4
        if high > 1e4:
            raise InputError(
                f"cannot be made as small as {target} bytes: its smallest is {len(data)}",
                "give a larger --target-size, or resize the photo",
            )
    data, low, high = _bisect(lambda price: encoder.encode(quality, price), high, low, data, target, steps=12)
    if len(data) < target * (1 - TARGET_TOLERANCE):
        data = _bisect(lambda share: encoder.encode(quality, low, high, share), 1.0, 0.0, data, target, steps=12)[0]
    return data, quality


def _bisect(
    encode: Callable[[float], bytes], fits: float, too_large: float, data: bytes, target: int, *, steps: int
) -> tuple[bytes, float, float]:
    """Halve the way between a setting that fits and one that is too large, until within the tolerance of the target.

    Returns:
        The largest file that fits, and the last settings that were too large and that fitted.
    """
    for _ in range(steps):
        if len(data) >= target * (1 - TARGET_TOLERANCE):
            break
        middle = (fits + too_large) / 2
        made = encode(middle)
        if len(made) <= target:
            fits, data = middle, max(data, made, key=len)
        else:
            too_large = middle
    return data, too_large, fits


def parse_size(text: str) -> int:
    """Bytes from "20kB", "1.5 MB", "900" or "16KiB": k and M are powers of 1000, Ki and Mi of 1024.

    Raises:
        SettingsError: not a size.
    """
    units = {
        "": 1,
        "b": 1,
        "k": 1000,
        "kb": 1000,
        "m": 10**6,
        "mb": 10**6,
        "ki": 1024,
        "kib": 1024,
        "mi": 1 << 20,
        "mib": 1 << 20,
    }
    number = text.strip().rstrip("abegikmABEGIKM").strip()
    unit = text.strip()[len(number) :].strip().lower()
    try:
        size = float(number) * units[unit]
    except (ValueError, KeyError) as exc:
        raise SettingsError(f"{text!r} is not a size", "write it as 20kB, 1.5MB, 16KiB or a number of bytes") from exc
    if not (math.isfinite(size) and size >= 1):
        raise SettingsError(f"{text!r} is not a size of at least one byte", "write it as 20kB, 1.5MB, 16KiB or a number of bytes")
    return int(size)


def parse_fraction(text: str) -> float:
    """A fraction from "5%" or "0.05".

    Raises:
        SettingsError: not a fraction between 0 and 1.
    """
    number = text.strip()
    try:
        value = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError as exc:
        raise SettingsError(f"{text!r} is not a share", "write it as 5% or 0.05") from exc
    if not 0 <= value <= 1:
        raise SettingsError(f"{text!r} is not between 0% and 100%", "write it as 5% or 0.05")
    return value
