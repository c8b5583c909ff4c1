"""Coefficients and an importance map to the bytes of a JPEG file."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg import guide
from vizcomp.djpeg.settings import (
    BESIDE_QUALITY,
    CALM,
    DEFAULT_STRENGTH,
    PHOTO_SHAPE,
    SHAPE,
    DjpegSettings,
    Shape,
    mean_step,
    quantisation_tables,
    respect_source,
    steps_of,
)
from vizcomp.djpeg.source import Source
from vizcomp.jpeg.image import Component, JpegImage, RealComponent
from vizcomp.jpeg.quantise import quantise
from vizcomp.jpeg.write import write_jpeg

Array = npt.NDArray[np.float32]

DEAD_ZONE = 0.5  # plain rounding: a wider zone cost more text than it saved bytes
# Price of a bit at importance 0 and strength 1, in squared steps, by who guides; nothing at
# importance 1. What a system did not look at may go; what a learned guide calls unimportant may be
# a mistake.
RATE_WEIGHTS = {
    "uniform": 0.0,
    "text": 1.65,
    "system": 3.6,
    "learned": 1.65,
    "centre": 3.6,
    "other": 0.3,
}
LEAST_STEPS = 0.02  # of those at quality 50: the finest that a file has
DEPTH_RATE_WEIGHT = 1.6  # the same where depth is among them, without text
# of the strength there: little at the default, where no system may lose, and much at 1
DEPTH_POWER = 1.7

ORDER = np.add.outer(np.arange(8), np.arange(8)).ravel()  # u + v of each frequency
LOW = 3  # the highest order of luma's lowest frequencies

# rounding to a step s errs by s^2 / 12 in the mean, and a further bit quarters that: it is worth 2
# ln 2 / 12 squared steps
BIT_WORTH = math.log(2) / 6


# Factor on all steps by who guides, without lettering and with it, such that a quality keeps what
# plain JPEG of that quality keeps of the answers: docs/decisions/0021-busy-blocks.md. What a guide
# saves elsewhere pays for finer steps.
STEP_SCALES = {
    "uniform": (1.0, 0.95),
    "text": (1.0, 0.85),
    "even text": (1.0, 0.78),  # where calm blocks pay the whole price too: see `Shape.even`
    "system": (0.95, 0.95),
    "learned": (1.0, 1.0),  # times what its file says
    "depth": (0.88, 0.85),
    "other": (0.9, 0.9),
    "centre": (1.0, 0.95),  # what lies beside it pays for nothing
}

# The same beside these under the table machine, on a photo without lettering: its one step for all
# frequencies is too coarse for means and colour there.
MACHINE_SCALE = 0.66


class Encoder:
    """One photo, ready to be coded at any quality: what does not depend on the quality is done
    once.

    Attributes:
        say: `guides_say` of this photo.

    Args:
        lettering: `guide.lettering` of the photo.
        given: the user has said what matters, by a depth map or a mask.
        learned: factor on all steps under a learned guide, beside that of `STEP_SCALES`.
    """

    def __init__(
        self,
        source: Source,
        importance: Array,
        settings: DjpegSettings,
        *,
        lettering: float = 0.0,
        given: bool = False,
        shape: Shape = SHAPE,
        learned: float = 1.0,
    ) -> None:
        self._source = source
        self._learned = learned
        self._settings = settings
        photo = settings.table == "photo"
        if settings.shape:
            shape = Shape.of(settings.shape, settings.table)
        elif photo:
            shape = PHOTO_SHAPE
        self._shape = shape
        self._by_photo = settings.table != "machine"
        self._flat = (
            shape.flat if shape.flat >= 0 else shape.least + (shape.most - shape.least) * lettering
        )
        # people look at all of a photo
        self._lettering = 0.0 if photo else lettering if shape.flat < 0 else shape.flat
        # colour and low frequencies that are dropped change more answers than their squared error
        # tells (0026-felt-frequencies.md); letters are in the others, and a few words are enough
        words = math.sqrt(self._lettering)
        keep = shape.keep ** (1 - words) if self._by_photo else 1.0
        self._colour = shape.colour + (1 - shape.colour) * words
        self._worth = np.where(ORDER <= LOW, keep, 1.0).astype(np.float32)
        self.say = guides_say(settings, self._lettering, given=given, shape=shape)
        self._kind = kind_of_guide(settings)
        self._far = settings.strength * rate_weight(settings, self._kind) * self.say
        busy = 0.0
        if self._kind == "text" and self._by_photo and not photo:
            # what is busy pays for the lettering; a user's own maps lose no say by that
            even = 1.0 if given else shape.even
            self._far *= 1 - (1 - even) * words
            busy = shape.text_busy * settings.strength / DEFAULT_STRENGTH * words
        if self._kind == "text" and (given or not self._by_photo):
            self._kind = "even text"
        # all (R, C) of luma: what the guides say, what they ask of the least important blocks, and
        # what all blocks pay
        self._importance = importance
        self._most = self._by_contrast(self._far, busy)
        self._price = self._everywhere()

    def _everywhere(self) -> Array:
        """The price that blocks pay whatever the guides say, (R, C) of luma.

        What a rounding error does to a picture's answers is less where contrast hides it, so busy
        blocks pay more (0021-busy-blocks.md); but lettering is busy, and is to be kept.
        """
        luma = self._source.image.components[0]
        if not self._by_photo:
            return np.zeros(luma.values.shape[:2], np.float32)
        shape, lettering = self._shape, self._lettering
        calm, busy = (
            shape.price + lettering * (shape.text_price - shape.price),
            shape.busy * (1 - lettering),
        )
        return self._by_contrast(calm, busy)

    def _by_contrast(self, calm: float, busy: float) -> Array:
        """A price, and more of it for each octave by which a luma block's contrast is above
        `CALM`."""
        luma = self._source.image.components[0]
        if busy == 0:
            return np.full(luma.values.shape[:2], calm, np.float32)
        octaves = np.log2(np.maximum(luma.ac_norm(), CALM) / np.float32(CALM))
        return np.asarray(calm + busy * octaves, np.float32)

    def _on_grid_of(self, component: RealComponent, field: Array) -> Array:
        """A map of luma's blocks on a component's own."""
        first = self._source.image.components[0]
        rows, cols = component.values.shape[:2]
        return guide.for_component(
            field, rows, cols, luma_size=(first.v // component.v, first.h // component.h)
        )

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
            rest: the quality that blocks are worth where `kept`, (R, C) of luma in 0..1, is 0;
                where it is 1 they are worth `quality`, whatever the guides say. Goes without
                `price`.
        """
        image = self._source.image
        fine = self._step_scale(guided)
        wanted = self._tables(quality, fine)
        fade, rest_fade = _fade(quality), _fade(rest if rest is not None else quality)
        tables: dict[int, npt.NDArray[np.uint16]] = {}
        components = []
        for index, component in enumerate(image.components):
            cheap = 1 - self._on_grid_of(component, self._importance)  # 1 = least important
            kind = min(index, 1)
            table = respect_source(wanted[kind], self._source.tables[index])
            own = self._source.tables[index]
            slot = next((s for s, t in tables.items() if np.array_equal(t, table)), len(tables))
            tables[slot] = table
            # colour that is dropped is felt where it is busy too
            most = np.float32(obey if guided else 0) * (self._far if kind else self._most)
            # a block of colour may lie half in the middle
            pays = np.where(cheap == 1, price_beside(self._settings, quality), cheap)
            # what a bit is worth goes by the wanted steps: a source that is coarser in all of them
            # keeps its integers
            worth = min(1.0, mean_step(wanted[kind]) / mean_step(table)) ** 2
            own_price = self._on_grid_of(component, self._price) * np.float32(
                0.0 if own is not None and (own >= wanted[kind]).all() else worth
            )
            own_price *= np.float32(self._colour if kind else 1)
            if rest is not None and kept is not None:
                coarser = self._tables(rest, fine)[kind]
                ratio = mean_step(coarser) / mean_step(table)
                here = self._on_grid_of(component, kept)
                base = ((1 - here) * rest_fade + here * fade) * own_price
                rate = _rest_rate(most * np.minimum(pays, 1 - here), here, ratio, base)
            else:
                rate = most * pays + fade * own_price + _prices(cheap, price, higher, share)
            quantised = quantise(
                component.values,
                table,
                unit=component.unit,
                reuse=last,
                dead_zone=DEAD_ZONE,
                rate_weight=rate,
                exact=None if own is None else table == own,
                worth=None if kind else self._worth,
                mcu=(1, 1) if len(image.components) == 1 else (component.v, component.h),
            )
            components.append(
                Component(
                    id=component.id,
                    h=component.h,
                    v=component.v,
                    table=slot,
                    coefficients=quantised,
                )
            )
        return self._written(components, tables)

    def _written(
        self, components: list[Component], tables: dict[int, npt.NDArray[np.uint16]]
    ) -> bytes:
        image = JpegImage(
            width=self._source.image.width,
            height=self._source.image.height,
            components=components,
            tables=tables,
            colour="grey" if len(components) == 1 else "ycbcr",
            segments=self._source.segments,
        )
        return write_jpeg(image, progressive=self._settings.scans == "progressive")

    def _step_scale(self, guided: bool) -> float:
        """Of `STEP_SCALES`; between no lettering and much of it by a geometric mean, as below the
        default strength."""
        if self._settings.table == "photo":
            return 1.0  # calibrated for the eye, to which guides are all alike
        kind = self._kind
        if kind == "other" and self._settings.guides == ("mask",):
            kind = "uniform"  # whatever it shows: what is bright has the quality that was asked for
        share = (
            min(1.0, self._settings.strength / DEFAULT_STRENGTH)
            if guided and self._far > 0
            else 0.0
        )
        more = self._learned if kind == "learned" else 1.0
        pairs = zip(STEP_SCALES["uniform"], STEP_SCALES[kind], strict=True)
        calm, lettered = (even ** (1 - share) * (own * more) ** share for even, own in pairs)
        if not self._by_photo:
            return float(lettered * MACHINE_SCALE ** (1 - self._lettering))
        return float(calm ** (1 - self._lettering) * lettered**self._lettering)

    def _tables(
        self, quality: float, fine: float
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        return quantisation_tables(
            self._settings.table, quality, scale=fine, flat=self._flat, shape=self._shape
        )


def _rest_rate(rate: Array, kept: Array, ratio: float, base: Array) -> Array:
    """The price of a bit, in squared steps, that a bit is worth at `ratio` times the steps and a
    price of `rate` and `base` there."""
    steps = np.float32(max(ratio, 1.0)) ** (1 - kept)
    return np.asarray((rate + base + BIT_WORTH) * steps**2 - BIT_WORTH, np.float32)


def kind_of_guide(settings: DjpegSettings) -> str:
    """The key of `STEP_SCALES` and prices: that of the guide that counts most."""
    names = settings.guides
    if any(name.startswith(guide.SYSTEM) for name in names):
        return "system"
    if any(guide.is_learned(name) for name in names):
        return "learned"
    known = ("centre", "text", "depth", "uniform")
    return next((name for name in known if name in names), "other")


def rate_weight(settings: DjpegSettings, kind: str) -> float:
    """Price of a bit at importance 0, in squared steps, over the strength."""
    if kind == "depth":
        return float(DEPTH_RATE_WEIGHT * settings.strength ** (DEPTH_POWER - 1))
    return RATE_WEIGHTS[kind]


def price_beside(settings: DjpegSettings, quality: float) -> np.float32:
    """Factor on the price under the guide `centre` alone: what no system sees is worth no more
    where the rest has fine steps, so it pays what it pays at `BESIDE_QUALITY`."""
    if settings.guides != ("centre",):
        return np.float32(1)
    steps = max(LEAST_STEPS, steps_of(quality))
    return np.float32(max(1.0, steps_of(BESIDE_QUALITY) / steps) ** 2)


def guides_say(
    settings: DjpegSettings, lettering: float, *, given: bool = False, shape: Shape = SHAPE
) -> float:
    """How much (0..1) of what the strength gives them the guides have on a photo.

    Where `text` is among them and there is no lettering, every system but a reader of text loses by
    bits taken from one place for another: then they have none at the default strength, and some at
    a higher one. What a user has given (a depth map, a mask) has what it has without `text`.

    Args:
        lettering: `guide.lettering` of the photo.
    """
    names = settings.guides
    if (
        settings.table == "machine"
        or "text" not in names
        or any(guide.is_system_or_learned(name) for name in names)
    ):
        return 1.0
    bold = max(0.0, settings.strength - DEFAULT_STRENGTH) / (1 - DEFAULT_STRENGTH)
    lettering = 0.0 if settings.table == "photo" else lettering
    # a few words are worth keeping
    say = shape.beside * bold + math.sqrt(lettering) * (1 - shape.beside * bold)
    alone = rate_weight(settings, "depth" if "depth" in names else "other") / RATE_WEIGHTS["text"]
    return float(max(say, alone) if given else say)


def _fade(quality: float) -> np.float32:
    """Of the price that all blocks pay; none at quality 100, where all integers of a JPEG source
    stay."""
    return np.float32(min(1.0, (100 - quality) / 10))


def _prices(cheap: Array, price: float, higher: float, share: float) -> Array:
    if share == 0:
        return np.full(cheap.shape, price, np.float32)
    # blocks of one importance take their turns all over the picture
    scatter = (np.arange(cheap.size) * 0.6180339887) % 1
    order = np.empty(cheap.size)
    order[np.lexsort((scatter, -cheap.ravel()))] = (np.arange(cheap.size) + 0.5) / cheap.size
    return np.where(order < share, higher, price).astype(np.float32).reshape(cheap.shape)
