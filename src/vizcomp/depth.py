"""Photo to depth map: one interface over the bundled network, a user's own network and ready-made maps.

A source of depth is anything that, asked for a photo, gives a `Depth`. Large = near everywhere in this package.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.errors import InputError, ModelError, SettingsError
from vizcomp.files.find import InputFile
from vizcomp.photos.frame import resize_map, upright
from vizcomp.photos.photo import Photo, read_depth_map

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


class NetworkDepth:
    """Depth from a compact network run by ONNX Runtime: the bundled one, or one that `vizcomp train --kind depth` made."""

    def __init__(self, path: Path | None = None, *, threads: int = 1) -> None:
        from vizcomp.nets.compact_onnx import CompactDepth

        self._network = CompactDepth(path, threads=threads)
        self.name = f"compact {self._network.fingerprint[:12]}"

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        prediction = self._network(upright(photo.pixels, photo.orientation))
        return Depth(prediction.depth, prediction.confidence)


class DenseNetworkDepth:
    """Depth from DenseDepth, the published network of the study of 2020 or a user's own training of it.

    Args:
        size: at which a photo goes through: "auto", "full" or "WIDTHxHEIGHT"; see `nets.densedepth.working_size`.
        flip: take the mean with the mirrored photo's answer, which takes twice as long.
    """

    def __init__(self, path: Path, *, size: str = "auto", flip: bool = False, threads: int = 1) -> None:
        from vizcomp.nets.densedepth import DenseDepth, working_size

        try:
            working_size(480, 640, size)
        except ValueError as exc:
            raise SettingsError(str(exc), "use auto, full, or as 640x480") from exc
        self._network = DenseDepth(path, threads=threads)
        self._size, self._flip = size, flip
        self.name = f"densedepth {self._network.fingerprint[:12]}"

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        from vizcomp.nets.densedepth import working_size

        pixels = upright(photo.pixels, photo.orientation)
        rgb = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
        height, width = working_size(rgb.shape[0], rgb.shape[1], self._size)
        if (height, width) != rgb.shape[:2]:
            rgb = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))
        metres = self._network(np.ascontiguousarray(rgb)[None], flip=self._flip)[0]
        near, far = float(metres.min()), float(metres.max())
        nearness = (far - metres) / (far - near) if far > near else np.full_like(metres, 0.5)
        return Depth(nearness, metres=metres)


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


def open_depth(
    model: str, maps: str | None, *, threads: int = 1, size: str = "auto", flip: bool = False, offline: bool = False
) -> DepthSource:
    """The source of depth that the settings name.

    Args:
        model: "compact", the path of an .onnx file made by `vizcomp train --kind depth`, "nyu" (DenseDepth's published
            weights, fetched where they are not in the cache) or the path of another .h5 file of DenseDepth.
        maps: folder of ready-made maps; takes precedence over the model.
        size, flip: as `DenseNetworkDepth`; for its networks only.
        offline: never touch the network.

    Raises:
        ModelError: no such model, or a damaged one.
        WeightsMissingError: the published weights could not be had.
        SettingsError: `size` or `flip` with another model, or no size.
        InputError: the folder of maps is missing.
    """
    if maps is not None:
        return MapFolder(Path(maps))
    path = Path(model)
    if model == "nyu" or path.suffix.lower() in (".h5", ".hdf5"):
        from vizcomp.nets import densedepth
        from vizcomp.weights import cache

        file = cache.obtain("nyu", offline=offline, check=densedepth.check_file) if model == "nyu" else path
        return DenseNetworkDepth(file, size=size, flip=flip, threads=threads)
    if size != "auto" or flip:
        raise SettingsError(f"the depth model {model} takes neither a size nor a flip", "they are of nyu and other .h5 files")
    if model == "compact":
        return NetworkDepth(threads=threads)
    if path.suffix == ".onnx" or os.sep in model:
        if not path.is_file():
            raise ModelError(f"no depth model at {model}", "train one with: vizcomp train --kind depth")
        return NetworkDepth(path, threads=threads)
    raise ModelError(
        f"unknown depth model {model!r}", "use compact, nyu, or the path of a model.onnx or of an .h5 file of DenseDepth"
    )


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
