"""A depth map, folders of ready-made maps, and maps as pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vizcomp.errors import InputError
from vizcomp.files.find import InputFile
from vizcomp.files.place import printable
from vizcomp.photos.colour import sample_bits, stretched
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS, decode_image, opened, pillow_errors
from vizcomp.photos.frame import resize_map
from vizcomp.photos.photo import Photo, read_photo

GALLERY_LONG_SIDE = 1024

MAP_SUFFIXES = (".depth.png", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")


@dataclasses.dataclass(frozen=True)
class Depth:
    """Depth of one photo, as displayed (EXIF orientation applied).

    Attributes:
        nearness: float32 (h, w) in 0..1, large = near; any resolution, the photo's aspect.
        confidence: float32 (h, w) in 0..1, or None where the map is taken at its word.
        metres: float32 (h, w), large = far, where the model knows distances.
    """

    nearness: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32] | None = None
    metres: npt.NDArray[np.float32] | None = None


class DepthSource(Protocol):
    """Gives the depth of a photo."""

    name: str

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        """Depth of `photo`; raises a `VizcompError` where there is none."""


class MapFolder:
    """Ready-made maps from a folder, found by the photo's relative path or by its stem; bright = near."""

    def __init__(self, folder: Path, *, what: str = "depth map") -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder", f"give the folder that holds one {what} for each photo, by file stem")
        self._folder = folder
        self._what = what
        self.name = f"maps in {folder}"

    def path_for(self, file: InputFile) -> Path | None:
        """The map of a photo: in the same sub-folder if there is one, else beside the folder's top; None if missing."""
        stem = Path(file.relative.name).stem
        for place in dict.fromkeys((self._folder / file.relative.parent, self._folder)):
            for suffix in MAP_SUFFIXES:
                path = place / f"{stem}{suffix}"
                if path.is_file():
                    return path
        return None

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        return Depth(self.read(file))

    def read(self, file: InputFile) -> npt.NDArray[np.float32]:
        """The map of a photo, float32 (h, w) in 0..1.

        Raises:
            InputError: there is no map for this photo, or it cannot be read.
        """
        path = self.path_for(file)
        if path is None:
            raise InputError(
                f"no {self._what} for {file.shown} in {self._folder}",
                f"it is looked for as {Path(file.relative.name).stem}.png; --guide uniform needs none",
            )
        return read_depth_map(path)


# Control points of a perceptually even ramp from dark violet (far) over teal to yellow (near), 8-bit RGB.
_RAMP = np.array(
    [[36, 10, 62], [60, 40, 120], [50, 84, 140], [36, 124, 142], [34, 164, 128], [96, 200, 88], [180, 222, 60], [250, 232, 60]],
    np.float32,
)


def colourise(nearness: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A depth map as a picture: float (h, w) in 0..1 to uint8 (h, w, 3) RGB, near = bright yellow."""
    low, high = float(nearness.min()), float(nearness.max())
    level = (nearness - low) / (high - low) if high > low else np.full_like(nearness, 0.5)
    where = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(level, where, _RAMP[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def side_by_side(pixels: npt.NDArray[np.uint8], nearness: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Photo and coloured depth map in one picture: uint8 (H, 2 W, 3)."""
    height, width = pixels.shape[:2]
    photo = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
    return np.concatenate([photo, colourise(resize_map(nearness, height, width))], axis=1)


def read_depth_map(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.float32]:
    """A ready-made depth map: float32 (h, w) in 0..1, bright = near, in the file's stored frame.

    8-bit and 16-bit grey by their full range, colour by its luma (BT.601), transparency ignored; 32-bit integer and
    float maps by their own least and largest value (all 0 where they are equal; not-a-number counts as far).

    Raises:
        InputError, FormatError, MissingExtraError: as `load`.
    """
    data = read_photo(Path(path), max_pixels)
    name = printable(path)
    with opened(data, name, max_pixels) as (image, kind):
        decode_image(image, data, name, kind)
        with pillow_errors(name, kind, data):
            if image.mode.startswith("I;16"):
                return np.asarray(image).astype(np.float32) / np.float32(65535)
            if image.mode in ("I", "F"):
                values = np.asarray(image)
                if image.mode == "I" and sample_bits(image, data, kind) == 16 and values.min() >= 0 and values.max() <= 65535:
                    return values.astype(np.float32) / np.float32(65535)
                return stretched(values, name)[0]
            if image.mode in ("P", "PA", "RGBA", "LA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
                image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
            return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
