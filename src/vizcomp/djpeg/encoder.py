"""Coefficients and an importance map to the bytes of a JPEG file."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg import guide
from vizcomp.djpeg.settings import (
    SHAPE,
    DjpegSettings,
    Shape,
    mean_step,
    quantisation_tables,
    respect_source,
)
from vizcomp.djpeg.source import Source
from vizcomp.jpeg.image import Component, JpegImage, RealComponent
from vizcomp.jpeg.quantise import quantise
from vizcomp.jpeg.write import write_jpeg

Array = npt.NDArray[np.float32]

DEAD_ZONE = 0.5  # plain rounding: a wider zone cost more text than it saved bytes
# price of a bit at importance 0 and strength 1, in squared steps; nothing at importance 1
RATE_WEIGHT = 0.3
DEPTH_RATE_WEIGHT = 1.6  # the same where depth is among the guides
# of the strength there: little at the default, where no system may lose, and much at 1
DEPTH_POWER = 1.7

TEXT_RATE_WEIGHT = 1.65  # the same where the text guide says what must stay
# and what it saves elsewhere pays for finer steps: docs/decisions/0006-text-guide.md
TEXT_STEP_SCALE = 0.78
# the same where a guide has learned what systems look at: it misses some of it
LEARNED_RATE_WEIGHT = 1.65
# the same where a vision system says what it looked at: what it did not look at may go
SYSTEM_RATE_WEIGHT = 3.6

# rounding to a step s errs by s^2 / 12 in the mean, and a further bit quarters that: it is worth 2
# ln 2 / 12 squared steps
BIT_WORTH = math.log(2) / 6


class Encoder:
    """One photo, ready to be coded at any quality: what does not depend on the quality is done
    once."""

    def __init__(
        self,
        source: Source,
        importance: Array,
        settings: DjpegSettings,
        *,
        lettering: float = 0.0,
        shape: Shape = SHAPE,
    ) -> None:
        self._source = source
        self._settings = settings
        self._shape = shape
        self._auto = settings.table == "auto"
        self._price = (
            shape.price + lettering * (shape.text_price - shape.price) if self._auto else 0.0
        )
        self._flat = shape.flat if shape.flat >= 0 else shape.least + (1 - shape.least) * lettering
        self._lettering = lettering if shape.flat < 0 else shape.flat
        if any(name.startswith(guide.SYSTEM) for name in settings.guides):
            weight = SYSTEM_RATE_WEIGHT
        elif any(guide.is_learned(name) for name in settings.guides):
            weight = LEARNED_RATE_WEIGHT
        else:
            weight = TEXT_RATE_WEIGHT if "text" in settings.guides else RATE_WEIGHT
            if "depth" in settings.guides and "text" not in settings.guides:
                weight = DEPTH_RATE_WEIGHT * settings.strength ** (DEPTH_POWER - 1)
            if self._auto and "text" in settings.guides:
                # a few words are worth keeping
                weight *= shape.beside + math.sqrt(self._lettering) * (1 - shape.beside)
        self._far = 0.0 if settings.guides == ("uniform",) else settings.strength * weight
        # for each component 0 = as important as can be, 1 = least
        self._cheap = [
            1 - self._on_grid_of(component, importance) for component in source.image.components
        ]

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
        finer = (
            self._shape.finer ** (1 - self._lettering) * TEXT_STEP_SCALE**self._lettering
            if self._auto
            else TEXT_STEP_SCALE
        )
        fine = finer if guided and self._far > 0 and "text" in self._settings.guides else 1.0
        wanted = self._tables(quality, fine)
        base = self._base(quality)
        tables: dict[int, npt.NDArray[np.uint16]] = {}
        components = []
        for index, (component, cheap) in enumerate(zip(image.components, self._cheap, strict=True)):
            kind = min(index, 1)
            table = respect_source(wanted[kind], self._source.tables[index])
            own = self._source.tables[index]
            slot = next((s for s, t in tables.items() if np.array_equal(t, table)), len(tables))
            tables[slot] = table
            far = np.float32(self._far * obey if guided else 0.0)
            rate = far * cheap
            if rest is not None and kept is not None:
                coarser = self._tables(rest, fine)[kind]
                ratio = mean_step(coarser) / mean_step(table)
                here = self._on_grid_of(component, kept)
                rate = self._rest_rate(
                    rate, here, ratio, (1 - here) * self._base(rest) + here * base
                )
            else:
                rate = rate + base + _prices(cheap, price, higher, share)
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
            components.append(
                Component(
                    id=component.id,
                    h=component.h,
                    v=component.v,
                    table=slot,
                    coefficients=quantised,
                )
            )
        return write_jpeg(
            JpegImage(
                width=image.width,
                height=image.height,
                components=components,
                tables=tables,
                colour="grey" if len(components) == 1 else "ycbcr",
                segments=self._source.segments,
            ),
            progressive=self._settings.scans == "progressive",
        )

    def _tables(
        self, quality: float, fine: float
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        return quantisation_tables(
            self._settings.table, quality, scale=fine, flat=self._flat, shape=self._shape
        )

    def _base(self, quality: float) -> np.float32:
        """The price that all blocks pay; none at quality 100, where all integers of a JPEG source
        stay."""
        return np.float32(self._price * min(1.0, (100 - quality) / 10))

    def _rest_rate(self, rate: Array, kept: Array, ratio: float, base: Array) -> Array:
        """The price of a bit, in squared steps, that a bit is worth at `ratio` times the steps and
        a price of `rate` there."""
        steps = np.float32(max(ratio, 1.0)) ** (1 - kept)
        there = np.minimum(rate, self._far * (1 - kept)) + base
        return np.asarray((there + BIT_WORTH) * steps**2 - BIT_WORTH, np.float32)


def _prices(cheap: Array, price: float, higher: float, share: float) -> Array:
    if share == 0:
        return np.full(cheap.shape, price, np.float32)
    # blocks of one importance take their turns all over the picture
    scatter = (np.arange(cheap.size) * 0.6180339887) % 1
    order = np.empty(cheap.size)
    order[np.lexsort((scatter, -cheap.ravel()))] = (np.arange(cheap.size) + 0.5) / cheap.size
    return np.where(order < share, higher, price).astype(np.float32).reshape(cheap.shape)
