"""Names and files of depth networks and map folders to depth sources."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vizcomp.depth.kinds import Depth
from vizcomp.depth.maps import DepthSource, MapFolder
from vizcomp.depth.published import KNOWN, PublishedDepth, is_own, parse_options
from vizcomp.depth.published import check_file as check_network
from vizcomp.errors import ModelError, SettingsError
from vizcomp.files.find import InputFile
from vizcomp.photos.frame import rgb, upright
from vizcomp.photos.photo import Photo
from vizcomp.weights.options import split_name

_OPTIONS = ("size", "flip")


class NetworkDepth:
    """Depth from a compact network run by ONNX Runtime: the bundled one, or one that
    `vizcomp train --kind depth` made."""

    def __init__(self, path: Path | None = None, *, threads: int = 1) -> None:
        from vizcomp.depth.compact import CompactDepth

        self._network = CompactDepth(path, threads=threads)
        self.name = f"compact {self._network.fingerprint[:12]}"
        self.guesses = path is None

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        prediction = self._network(upright(photo.pixels, photo.orientation))
        return Depth(prediction.depth, prediction.confidence, guess=self.guesses)


def of_photo(source: DepthSource, photo: Photo, file: InputFile) -> Depth | Callable[[], Depth]:
    """A photo's depth; where the bundled network would guess it, a call that does, for who may do
    without."""
    if isinstance(source, NetworkDepth) and source.guesses:
        return functools.partial(source, photo, file)
    return source(photo, file)


class DenseNetworkDepth:
    """Depth from DenseDepth, the published network of the study of 2020 or a user's own training of
    it.

    Args:
        size: at which a photo goes through: "auto", "full" or "WIDTHxHEIGHT"; see
            `densedepth.working_size`.
        flip: take the mean with the mirrored photo's answer, which takes twice as long.
    """

    def __init__(
        self, path: Path, *, size: str = "auto", flip: bool = False, threads: int = 1
    ) -> None:
        from vizcomp.depth.densedepth import DenseDepth, working_size

        try:
            working_size(480, 640, size)
        except ValueError as exc:
            raise SettingsError(str(exc), "use auto, full, or as 640x480") from exc
        self._network = DenseDepth(path, threads=threads)
        self._size, self._flip = size, flip
        self.name = f"densedepth {self._network.fingerprint[:12]}"

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        from vizcomp.depth.densedepth import working_size

        pixels = rgb(upright(photo.pixels, photo.orientation))
        height, width = working_size(pixels.shape[0], pixels.shape[1], self._size)
        if (height, width) != pixels.shape[:2]:
            pixels = np.asarray(
                Image.fromarray(pixels).resize(
                    (width, height), Image.Resampling.BICUBIC, reducing_gap=3.0
                )
            )
        metres = self._network(np.ascontiguousarray(pixels)[None], flip=self._flip)[0]
        near, far = float(metres.min()), float(metres.max())
        nearness = (far - metres) / (far - near) if far > near else np.full_like(metres, 0.5)
        return Depth(nearness, metres=metres)


def model_options(spec: str) -> tuple[str, str, bool]:
    """Name, size and flip of a model: "nyu:size=full,flip" is ("nyu", "full", True).

    Raises:
        SettingsError: an option is unknown, or its value is.
    """
    name, colon, tail = spec.rpartition(":")
    if not colon or not name or os.sep in tail or "/" in tail or os.path.exists(spec):
        return spec, "auto", False
    size, flip = "auto", False
    for part in tail.split(","):
        key, equals, value = part.strip().partition("=")
        if key == "size" and value:
            size = value
        elif key == "flip" and (not equals or value in ("yes", "no", "true", "false")):
            flip = value not in ("no", "false")
        else:
            near = difflib.get_close_matches(key, _OPTIONS, 1)
            hint = (
                f"did you mean {near[0]}?"
                if near and near[0] != key
                else "write them as nyu:size=640x480,flip"
            )
            raise SettingsError(f"the depth model {name} has no option {part.strip()!r}", hint)
    return name, size, flip


def open_depth(
    model: str,
    maps: str | None = None,
    *,
    threads: int = 1,
    kind: str = "auto",
    names: str = "",
    offline: bool = False,
) -> DepthSource:
    """The source of depth that the settings name.

    Args:
        model: "compact"; the path of an .onnx file made by `vizcomp train --kind depth`; "nyu"
            (DenseDepth's published weights, fetched where they are not in the cache) or the path of
            another .h5 file of DenseDepth, both with options, as "nyu:size=full,flip": see
            `DenseNetworkDepth`; a name of `published.KNOWN`, fetched too, or the path of another
            published .onnx file, with options where it does not say how it is read: see
            `published.Reading`.
        maps: folder of ready-made maps; takes precedence over the model.
        kind, names: of the maps, as `MapFolder`.
        offline: never touch the network.

    Raises:
        ModelError: no such model, or a damaged one.
        MissingExtraError: DenseDepth needs TensorFlow.
        WeightsMissingError: the published weights could not be had.
        SettingsError: an option that the model has not, or one that it needs; no such kind, or no
            pattern of names.
        InputError: the folder of maps is missing.
    """
    if maps is not None:
        return MapFolder(Path(maps), kind=kind, names=names)
    if (network := _onnx_depth(model, threads=threads, offline=offline)) is not None:
        return network
    model, size, flip = model_options(model)
    path = Path(model)
    if model == "nyu" or path.suffix.lower() in (".h5", ".hdf5"):
        from vizcomp.depth.densedepth import check_file, need_tensorflow
        from vizcomp.weights import cache

        need_tensorflow()
        file = cache.obtain("nyu", offline=offline, check=check_file) if model == "nyu" else path
        return DenseNetworkDepth(file, size=size, flip=flip, threads=threads)
    if size != "auto" or flip:
        raise SettingsError(
            f"the depth model {model} takes neither a size nor a flip",
            "they are of nyu and other .h5 files",
        )
    if model == "compact":
        return NetworkDepth(threads=threads)
    if os.sep in model:
        if not os.path.isfile(path):
            raise ModelError(
                f"no depth model at {model}", "train one with: vizcomp train --kind depth"
            )
        return NetworkDepth(path, threads=threads)
    raise ModelError(
        f"unknown depth model {model!r}",
        f"use compact, nyu, {', '.join(KNOWN)}, or the path of an .onnx file, or of an .h5 file of"
        " DenseDepth",
    )


def _onnx_depth(model: str, *, threads: int, offline: bool) -> DepthSource | None:
    """The network of a published row or of an .onnx file; None for another kind of name."""
    name, _, options = model.partition(":")
    if name in KNOWN:
        if options:
            raise SettingsError(f"the depth model {name} takes no options", "its reading is known")
        from vizcomp.weights import cache

        file = cache.obtain(name, offline=offline, check=check_network(name))
        return PublishedDepth(file, KNOWN[name], threads=threads)
    if (split := split_name(model, ".onnx")) is None:
        return None
    path, options = split
    if not os.path.isfile(path):
        raise ModelError(f"no depth model at {path}", "train one with: vizcomp train --kind depth")
    if is_own(path):
        if options:
            raise SettingsError(
                f"{path} is a network of vizcomp and takes no options", "leave them out"
            )
        return NetworkDepth(path, threads=threads)
    return PublishedDepth(path, parse_options(options), threads=threads)
