"""A depth map, folders of ready-made maps, and maps as pictures."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vizcomp.depth.kinds import Depth, check_kind, kind_of, scaled, to_depth
from vizcomp.depth.values import read_values
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile
from vizcomp.files.names import folded
from vizcomp.photos.decoders import DEFAULT_MAX_PIXELS
from vizcomp.photos.frame import resize_map, rgb
from vizcomp.photos.photo import Photo

GALLERY_LONG_SIDE = 1024

MAP_SUFFIXES = (
    *(".depth.png", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".pgm"),
    *(".npy", ".npz", ".pfm", ".exr"),
)


class DepthSource(Protocol):
    """Gives the depth of a photo."""

    name: str

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        """Depth of `photo`; raises a `VizcompError` where there is none."""


class MapFolder:
    """Ready-made maps from a folder, found by the photo's relative path or by its stem.

    Names that differ only in case or in Unicode composition are the same, where none fits exactly.

    Args:
        folder: of the maps.
        what: what such a map is called in messages.
        kind: what its numbers mean; one of `kinds.KINDS`.
        names: how maps are called, with {stem} in the place of the photo's name without suffix;
            "": by `MAP_SUFFIXES`.

    Raises:
        InputError: the folder is missing.
        SettingsError: no such kind, or `names` without {stem}.
    """

    def __init__(
        self, folder: Path, *, what: str = "depth map", kind: str = "auto", names: str = ""
    ) -> None:
        if not os.path.isdir(folder):
            raise InputError(
                f"{folder} is not a folder",
                f"give the folder that holds one {what} for each photo, by file stem",
            )
        if names and (
            "{stem}" not in names
            or names.startswith(("/", ".."))
            or re.search(r"[{}]", names.replace("{stem}", ""))
        ):
            raise SettingsError(
                f"`depth_names` {names} does not say how maps are called",
                "write it as 'depth_{stem}.png'",
            )
        self._folder = folder
        self._what = what
        self._kind = check_kind(kind)
        self._names = names
        self._listings: dict[Path, dict[str, Path]] = {}
        self.name = f"maps in {folder}"

    def path_for(self, file: InputFile) -> Path | None:
        """The map of a photo: in the same sub-folder if there is one, else beside the folder's top;
        None if missing."""
        stem = Path(file.relative.name).stem
        names = (
            [self._names.replace("{stem}", stem)]
            if self._names
            else [stem + suffix for suffix in MAP_SUFFIXES]
        )
        for place in dict.fromkeys((self._folder / file.relative.parent, self._folder)):
            for name in names:
                path = place / name
                if os.path.isfile(path):
                    return path
            for name in names:
                alike = self._alike(place / name)
                if alike is not None and os.path.isfile(alike):
                    return alike
        return None

    def _alike(self, path: Path) -> Path | None:
        """What is called as `path` is, below the folder, with case and composition ignored."""
        here = self._folder
        for part in path.relative_to(self._folder).parts:
            if here not in self._listings:
                with contextlib.suppress(OSError):
                    self._listings[here] = {
                        folded(p.name): p for p in sorted(here.iterdir(), reverse=True)
                    }
            below = self._listings.get(here, {}).get(folded(part))
            if below is None:
                return None
            here = below
        return here

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        return to_depth(read_values(self.path_or_error(file)), self._kind)

    def check(self, file: InputFile) -> bool:
        """Whether a photo has a map; one that is there must be of one kind only.

        Raises:
            SettingsError: the map may be of several kinds, and none was said.
            InputError, FormatError, MissingExtraError: it cannot be read.
        """
        path = self.path_for(file)
        if path is not None and self._kind == "auto":
            kind_of(read_values(path))
        return path is not None

    def read(self, file: InputFile) -> npt.NDArray[np.float32]:
        """The mask of a photo, float32 (h, w) in 0..1, bright = keep.

        Raises:
            InputError: there is no map for this photo, or it cannot be read.
        """
        return read_depth_map(self.path_or_error(file))

    def path_or_error(self, file: InputFile) -> Path:
        """As `path_for`; an `InputError` where it is missing."""
        path = self.path_for(file)
        if path is None:
            stem = Path(file.relative.name).stem
            name = self._names.replace("{stem}", stem) if self._names else f"{stem}.png"
            raise InputError(
                f"no {self._what} for {file.shown} in {self._folder}",
                f"it is looked for as {name}; `guide` uniform needs none",
            )
        return path


def mask_hint(mask: npt.NDArray[np.float32]) -> tuple[str, ...]:
    """A notice where a mask's brightest level is so dark that 0 and 1 were meant."""
    brightest = float(mask.max())
    if 0 < brightest <= 1.5 / 255:
        return (
            (
                "the mask's brightest level is 1 of 255: white (255) keeps all, so write 0 and 255"
                " where 0 and 1 are meant"
            ),
        )
    return ()


# Control points of a perceptually even ramp from dark violet (far) over teal to yellow (near),
# 8-bit RGB.
_RAMP = np.array(
    [
        [36, 10, 62],
        [60, 40, 120],
        [50, 84, 140],
        [36, 124, 142],
        [34, 164, 128],
        [96, 200, 88],
        [180, 222, 60],
        [250, 232, 60],
    ],
    np.float32,
)


def colourise(nearness: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A depth map as a picture: float (h, w) in 0..1 to uint8 (h, w, 3) RGB, near = bright
    yellow."""
    low, high = float(nearness.min()), float(nearness.max())
    level = (nearness - low) / (high - low) if high > low else np.full_like(nearness, 0.5)
    where = np.linspace(0, 1, len(_RAMP))
    return (
        np.stack([np.interp(level, where, _RAMP[:, c]) for c in range(3)], axis=-1)
        .round()
        .astype(np.uint8)
    )


def side_by_side(
    pixels: npt.NDArray[np.uint8], nearness: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Photo and coloured depth map in one picture: uint8 (H, 2 W, 3)."""
    height, width = pixels.shape[:2]
    photo = rgb(pixels)
    return np.concatenate([photo, colourise(resize_map(nearness, height, width))], axis=1)


def read_depth_map(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.float32]:
    """A map as it is, as a mask is read: float32 (h, w) in 0..1, in the file's stored frame.

    8-bit and 16-bit grey by their full range, colour by its luma (BT.601), transparency ignored;
    32-bit integers and floats by their own least and largest value (all 0 where they are equal).

    Raises:
        InputError, FormatError, MissingExtraError: as `load`.
    """
    return scaled(read_values(Path(path), colour=True, max_pixels=max_pixels))
