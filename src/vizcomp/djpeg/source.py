"""A photo as real-valued coefficients, with what is needed to write it back."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import DamagedError, FormatError, TruncatedError
from vizcomp.jpeg.image import JpegImage, RealImage
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import essential_segments, metadata_segments, what_does_not_fit
from vizcomp.jpeg.transform import consume, from_pixels
from vizcomp.photos.encode import check_jpeg_sides
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo

Tables = tuple[npt.NDArray[np.uint16] | None, ...]


def _luma_is_finest(jpeg: JpegImage) -> bool:
    """Chroma sampled finer than luma is legal and odd; the block grids here are all counted in
    luma's."""
    luma = jpeg.components[0]
    return all(luma.h % c.h == 0 and luma.v % c.v == 0 for c in jpeg.components)


@dataclasses.dataclass(frozen=True)
class Source:
    """The photo as real-valued coefficients, and what is needed to write it back."""

    image: RealImage
    tables: Tables  # the steps that each component already lies on, if any
    segments: list[tuple[int, bytes]]
    orientation: int  # between the file's frame and the displayed one
    notices: tuple[str, ...]

    @classmethod
    def of(cls, photo: Photo, settings: DjpegSettings) -> Source:
        """Read as coefficients where the photo is a JPEG in YCbCr or grey; from the pixels
        otherwise."""
        height, width = photo.pixels.shape[:2]
        check_jpeg_sides(height, width)
        # without the tag the pixels themselves must be turned
        turn = settings.metadata == "none" and photo.orientation != 1
        notices: tuple[str, ...] = (
            ("turned upright, since the orientation tag is dropped",) if turn else ()
        )
        if photo.jpeg is not None and not turn:
            try:
                jpeg = read_jpeg(photo.jpeg, max_pixels=height * width)  # no more than was allowed
            except (DamagedError, TruncatedError):
                raise
            except FormatError as exc:  # Pillow could read it: go by its pixels
                notices = (f"read as pixels: {exc.message}",)
            else:
                notices = jpeg.notices
                if jpeg.colour in ("grey", "ycbcr") and _luma_is_finest(jpeg):
                    image, tables = _from_jpeg(jpeg, photo, settings.subsampling)
                    segments = essential_segments(jpeg.segments, settings.metadata)
                    return cls(image, tables, segments, photo.orientation, notices)
        pixels = upright(photo.pixels, photo.orientation) if turn else photo.pixels
        image = from_pixels(pixels, subsampling=_of_pixels(photo, settings.subsampling))
        blocks = {"icc": photo.icc, "exif": photo.exif, "xmp": photo.xmp}
        notices += what_does_not_fit(settings.metadata, **blocks)
        segments = essential_segments(metadata_segments(**blocks, dpi=photo.dpi), settings.metadata)
        return cls(
            image,
            (None,) * len(image.components),
            segments,
            1 if turn else photo.orientation,
            notices,
        )


def _from_jpeg(jpeg: JpegImage, photo: Photo, subsampling: str) -> tuple[RealImage, Tables]:
    """A JPEG's own coefficients, its chroma at the resolution that is asked for."""
    tables: list[npt.NDArray[np.uint16] | None] = [jpeg.tables[c.table] for c in jpeg.components]
    fuller = subsampling == "444" and any(
        (c.h, c.v) != (jpeg.components[0].h, jpeg.components[0].v) for c in jpeg.components
    )
    real, halved = consume(jpeg, halve=subsampling == "420")
    if fuller:  # luma's own coefficients; chroma as decoders show it
        luma, shown = real.components[0], from_pixels(photo.pixels, subsampling="4:4:4").components
        rows, cols = shown[0].values.shape[:2]
        first = dataclasses.replace(luma, h=1, v=1)
        first.values = luma.values[:rows, :cols].copy()
        real = RealImage(real.width, real.height, [first, *shown[1:]], real.colour, real.segments)
    if halved or fuller:
        tables[1:] = [None, None]
    return real, tuple(tables)


def _of_pixels(photo: Photo, subsampling: str) -> Literal["4:2:0", "4:4:4"]:
    """Subsampling of a picture whose pixels are coded; to keep it means 4:2:0 where the file is a
    JPEG that has it."""
    if subsampling == "keep":
        return "4:2:0" if photo.subsampling == "4:2:0" else "4:4:4"
    return "4:4:4" if subsampling == "444" else "4:2:0"
