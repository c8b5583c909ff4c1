"""`vizcomp.compress`: one image, from whatever holds it, to the bytes of a file."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.api.images import Opened, open_image
from vizcomp.api.keywords import (
    OF_RUNS,
    batch_settings,
    check_names,
    djpeg_settings,
    names_of,
    with_signature,
)
from vizcomp.api.systems import by_name
from vizcomp.batch.judges import (
    check_guides,
    depth_source,
    given_systems,
    mask_folder,
    needs_depth,
    uncalibrated_guides,
)
from vizcomp.batch.records import VerifyState
from vizcomp.batch.settings import BatchSettings
from vizcomp.batch.single import finish, shown_source, system_fields
from vizcomp.depth.kinds import Depth, to_depth
from vizcomp.depth.maps import DepthSource, read_depth_map
from vizcomp.depth.values import read_values, values_of
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile
from vizcomp.files.store import parse_place
from vizcomp.files.write import write_atomic
from vizcomp.photos.decoders import recognise
from vizcomp.photos.formats import SUFFIXES
from vizcomp.photos.photo import Photo, size_in
from vizcomp.vision.system import System

Array = npt.NDArray[np.float32]

_KNOWN = frozenset(names_of(DjpegSettings, BatchSettings, without=OF_RUNS))
_ELSEWHERE = dict.fromkeys(
    (*OF_RUNS, "jobs", "engine", "ray_address", "fields", "report"), "compress_files"
)
_OF_PATHS = ("depth_maps", "depth_names", "masks")


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed image.

    Attributes:
        data: the bytes of the file; `bytes(result)` is the same.
        width, height: its pixels as stored, before an EXIF rotation.
        format: of the file: "jpeg", ...
        quality: the quality that was used: the asked one, or the one that met the target size or
            the verdict.
        source_bytes: size of the file that was read, or of the samples of an array or a PIL image.
        kept: the source's own picture was kept, since nothing would have been saved.
        notices: what a user should know.
        importance: float32 (R, C) in 0..1, one value for each block of 8x8 pixels: what the guides
            said.
        verify_state: "verified"; "nothing": the systems of `verify` find nothing on the source;
            "not_reached": one answers otherwise on the result; None where none was asked.
        verify_score: by system, how alike the two answers are, 0..1.
        verify_trials: files that were made and judged on the way.
        watch_score, watch_same: by system of `watch_with`, how alike its answers are, and whether
            they are the same.
    """

    data: bytes
    width: int
    height: int
    format: str
    quality: float
    source_bytes: int
    kept: bool
    notices: tuple[str, ...]
    importance: Array
    verify_state: VerifyState | None = None
    verify_score: Mapping[str, float] | None = None
    verify_trials: int = 0
    watch_score: Mapping[str, float] | None = None
    watch_same: Mapping[str, bool] | None = None

    @property
    def output_bytes(self) -> int:
        """Size of the file."""
        return len(self.data)

    @property
    def saving(self) -> float:
        """Share of the source's bytes that is saved; below 0 where the result is larger."""
        return 1 - len(self.data) / self.source_bytes

    @property
    def verified(self) -> bool | None:
        """Whether all systems of `verify` answer the same; None where none was asked."""
        return None if self.verify_state is None else self.verify_state == "verified"

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the file, whole or not at all; missing folders are made. s3:// and gs:// too.

        Raises:
            OutputError: it cannot be written, or exists and `overwrite` is False.
            SettingsError: the path's suffix is that of another format.
        """
        place = parse_place(path)
        suffix, mine = place.suffix.lower(), SUFFIXES.get(self.format, (f".{self.format}",))
        if suffix not in mine and any(suffix in others for others in SUFFIXES.values()):
            raise SettingsError(
                f"{place.name} says {suffix}, but the result is {self.format.upper()}",
                f"call it {mine[0]}",
            )
        write_atomic(place, self.data, overwrite=overwrite)

    def open(self) -> Image.Image:
        """The file, decoded as a PIL image."""
        image = Image.open(io.BytesIO(self.data))
        image.load()
        return image

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        state = f", {self.verify_state}" if self.verify_state else ""
        return (
            f"<Compressed {self.format} {self.width}x{self.height}, {len(self.data):,} of"
            f" {self.source_bytes:,} bytes, quality {self.quality:g}{state}>"
        )


def compress(
    image: Any,
    settings: DjpegSettings | None = None,
    *,
    depth: Any = None,
    depth_kind: str = "auto",
    mask: Any = None,
    verify: str | System | list[str | System] | None = None,
    watch_with: str | System | list[str | System] | None = None,
    **options: Any,
) -> Compressed:
    """Compress one image, as `vizcomp djpeg` does it for a file.

        vizcomp.compress("street.jpg", quality=40).save("small.jpg")

    Networks that a guide or a verdict needs are opened once in a process; calls from several
    threads are safe.

    Args:
        image: a path (s3:// and gs:// too), the bytes of a file, a file object, a PIL image, a
            `Photo`, or a uint8 array (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGB and alpha.
        settings: ready-made settings, as a policy's, in the place of keywords.
        depth: the image's depth as displayed, (h, w) of any size: an array, the path of a map, or a
            `Depth`; without it the depth network is asked where the guide needs it.
        depth_kind: what the numbers of `depth` mean: "nearness" or "disparity" (large = near),
            "metres" or "millimetres" (large = far), or "auto": what the map tells, else an error
            that asks.
        mask: what is to be kept, as displayed, (h, w) of any size, bright = keep: an array (bool,
            uint8, or float in 0..1), a PIL image, or the path of one; for the guide "mask".
        verify: a vision system by name or as an object (`vizcomp.System`), or several: the result
            is the smallest file on which all of them answer as on the source.
        watch_with: the same of systems that are only asked.
        options: the fields of `DjpegSettings` (quality, guide, strength, table, target_size,
            min_saving, metadata, ...) and of `BatchSettings` (min_quality, tolerance, robust,
            depth_model, offline, max_pixels, ...); for an image that is a path also depth_maps and
            masks, folders of maps by its file stem.

    Raises:
        SettingsError: a value is out of its range, or two contradict each other.
        InputError, FormatError: the image, a map or a mask cannot be read or used.
        ModelError, MissingExtraError: a network is not there.
        TypeError: an unknown keyword.
    """
    check_names("compress", options, _KNOWN, elsewhere=_ELSEWHERE)
    djpeg = djpeg_settings("compress", settings, options)
    systems: dict[str, System] = {}
    judges = {
        "verify": by_name(verify, "verify", systems),
        "watch_with": by_name(watch_with, "watch_with", systems),
    }
    in_hand = tuple(name for name, value in (("depth", depth), ("mask", mask)) if value is not None)
    maps = options.get("depth_maps") is not None
    batch = batch_settings(options, **judges, depth_kind=depth_kind if maps else "auto")
    _check(djpeg, batch, in_hand, depth_kind)
    with given_systems(systems.values()):
        _check_once(djpeg, batch, in_hand, tuple(map(id, systems.values())))
        photo = open_image(image, max_pixels=batch.max_pixels)
        if not photo.named and (given := [name for name in _OF_PATHS if options.get(name)]):
            raise SettingsError(
                f"`{given[0]}` finds maps by the image's file stem, but it has no path",
                "give `depth` or `mask`",
            )
        return _compressed(photo, djpeg, batch, _depth_of(depth, depth_kind), _mask_of(mask))


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse what `compress` would refuse without looking at an image; nothing is opened.

    Raises:
        SettingsError, TypeError: as `compress`.
    """
    own = ("depth", "depth_kind", "mask", "verify", "watch_with", "settings")
    check_names("compress", options, {*_KNOWN, *own}, elsewhere=_ELSEWHERE)
    djpeg_settings("compress", options.get("settings"), options)
    batch_settings({name: value for name, value in options.items() if name not in own})


def _check(
    djpeg: DjpegSettings, batch: BatchSettings, in_hand: tuple[str, ...], depth_kind: str
) -> None:
    """What contradicts itself before anything is opened."""
    for name in in_hand:
        if name not in djpeg.guides:
            raise SettingsError(
                f"`{name}` has no effect without the guide {name}",
                f"use `guide` {djpeg.guide}+{name}",
            )
        if (batch.depth_maps if name == "depth" else batch.masks) is not None:
            folder = "depth_maps" if name == "depth" else "masks"
            raise SettingsError(
                f"`{name}` and `{folder}` contradict each other", "give one of them"
            )
    if "mask" in djpeg.guides and "mask" not in in_hand and batch.masks is None:
        raise InputError(
            "the guide mask needs a mask", "give `mask`: an array (h, w), bright = keep"
        )
    if depth_kind != "auto" and "depth" not in in_hand and batch.depth_maps is None:
        raise SettingsError(
            "`depth_kind` says what the numbers of `depth` mean", "give `depth` too, or omit it"
        )


@functools.lru_cache(maxsize=64)
def _check_once(
    djpeg: DjpegSettings, batch: BatchSettings, in_hand: tuple[str, ...], systems: tuple[int, ...]
) -> None:
    """As the command checks before its first file; for the same settings and systems not again."""
    check_guides(djpeg, batch, in_hand=in_hand)


def _compressed(
    photo: Opened,
    djpeg: DjpegSettings,
    batch: BatchSettings,
    depth: Depth | None,
    mask: Array | None,
) -> Compressed:
    source: DepthSource | None = None
    if needs_depth(djpeg):
        source = depth_source(batch) if depth is None else _Given(depth)
    if mask is None and batch.masks is not None:
        mask = mask_folder(batch.masks).read(photo.file)
    result = finish(
        *(photo.photo, photo.file, djpeg, batch),
        original=photo.original,
        depth=source,
        mask=mask,
        # else what is made is a file of the asked format in any case
        keep_other=djpeg.min_saving > 0,
    )
    shown = shown_source(
        result.masked or photo.photo,
        photo.original if result.masked is None else None,
        photo.file,
        batch,
    )
    verdict = system_fields(result, shown, photo.file, batch)
    for name in ("verified", "source_answers"):  # of many photos
        verdict.pop(name, None)
    width, height = size_in(result.data)
    return Compressed(
        data=result.data,
        width=width,
        height=height,
        format=recognise(result.data[:4096], photo.file.shown).lower(),
        quality=result.found.made.quality,
        source_bytes=photo.photo.source_bytes,
        kept=result.kept,
        notices=(*result.notices, *uncalibrated_guides(djpeg)),
        importance=result.found.made.importance,
        **verdict,
    )


class _Given:
    """A depth that is there already."""

    name = "given"

    def __init__(self, depth: Depth) -> None:
        self._depth = depth

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        return self._depth


def _depth_of(depth: Any, kind: str) -> Depth | None:
    if depth is None or isinstance(depth, Depth):
        return depth
    if isinstance(depth, str | os.PathLike):
        return to_depth(read_values(_local(depth, "depth")), kind)
    return to_depth(values_of(np.asarray(depth), "`depth`"), kind)


def _mask_of(mask: Any) -> Array | None:
    if mask is None:
        return None
    if isinstance(mask, str | os.PathLike):
        return read_depth_map(_local(mask, "mask"))
    if isinstance(mask, Image.Image):
        mask = mask.convert("L")
    values = values_of(np.asarray(mask), "`mask`")
    numbers = values.numbers.astype(np.float32) / np.float32(values.full or 1)
    if not (np.isfinite(numbers).all() and numbers.min() >= 0 and numbers.max() <= 1):
        raise InputError(
            "`mask` has numbers outside of 0..1", "give bool, uint8 (255 = keep), or float in 0..1"
        )
    return np.asarray(numbers, np.float32)


def _local(path: str | os.PathLike[str], name: str) -> Any:
    place = parse_place(path)
    if not hasattr(place, "is_file"):
        raise InputError(
            f"`{name}` is read from this machine's disks",
            f"fetch {place} first, or give it as an array",
        )
    return place


with_signature(compress, DjpegSettings, BatchSettings, without=OF_RUNS)
