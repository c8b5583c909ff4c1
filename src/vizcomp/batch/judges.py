"""Vision systems, depth sources and guides, opened once a process."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import os
import threading
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vizcomp.batch.settings import BatchSettings
from vizcomp.depth.maps import DepthSource, MapFolder
from vizcomp.depth.sources import open_depth
from vizcomp.djpeg import guide
from vizcomp.djpeg.compress import learned_guide
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import FormatError, InputError, SettingsError, VizcompError, in_one_line
from vizcomp.files.find import InputFile
from vizcomp.files.place import printable
from vizcomp.photos.frame import rgb, upright
from vizcomp.photos.opencv import check_decoder
from vizcomp.photos.photo import Photo, to_srgb
from vizcomp.shards.shard import is_shard
from vizcomp.vision.callables import living_system
from vizcomp.vision.model_files import state_of, weights_beside
from vizcomp.vision.options import model_path
from vizcomp.vision.system import System, file_fingerprint
from vizcomp.vision.systems import open_system

Pixels = npt.NDArray[np.uint8]

# photos that are asked for their maps before a run, and maps that are read
_LOOK_AHEAD, _LOOKED_AT = 1000, 8


def check_guides(
    settings: DjpegSettings, batch: BatchSettings, *, in_hand: Collection[str] = ()
) -> list[str]:
    """Fail before the first file where every file would fail; who guides and judges, with
    fingerprints.

    Args:
        in_hand: guides whose maps are there already, "depth" or "mask".
    """
    problems = []
    if "mask" in settings.guides and batch.masks is None and "mask" not in in_hand:
        raise InputError(
            "`guide` mask needs masks",
            "give `masks` with a folder that holds one mask for each photo, by file stem",
        )
    if batch.masks is not None and "mask" not in settings.guides:
        raise SettingsError(
            "`masks` has no effect without the guide mask",
            f"use `guide` {settings.guide}+mask, or omit it",
        )
    if batch.depth_maps is not None and "depth" not in settings.guides:
        raise SettingsError(
            "`depth_maps` has no effect without the guide depth", "use `guide` depth, or omit it"
        )
    if batch.depth_maps is None and (batch.depth_kind != "auto" or batch.depth_names):
        raise SettingsError(
            "`depth_kind` and `depth_names` are of `depth_maps`", "give the folder of the maps too"
        )
    if needs_depth(settings) and "depth" not in in_hand:
        problems.append(depth_source(batch).name)
    for name in learned_guides(settings):
        problems.append(f"guide {learned_guide(name).fingerprint[:12]}")
    if settings.max_side == "auto" and not batch.verify:
        raise SettingsError(
            "`max_side` auto needs `verify`",
            "name the system whose answers must stay, or give a side in pixels",
        )
    if settings.lossless and batch.verify:
        raise SettingsError(
            "`lossless` and `verify` contradict each other",
            "omit one of them: lossless changes no pixel",
        )
    if batch.verify and settings.target_size is not None:
        raise SettingsError("`verify` and `target_size` contradict each other", "omit one of them")
    asked = sorted({*guide_systems(settings), *batch.verify, *batch.watch_with})
    if batch.decoder != "pillow":
        problems.append(check_decoder(batch.decoder, settings.formats))
        if not asked:
            raise SettingsError(
                "`decoder` has no effect where no vision system looks",
                "name one by `verify`, or omit it",
            )
    for name in asked:
        problems.append(
            " ".join([name, system_by_name(name, batch.offline).fingerprint, *beside(name)])
        )
    if batch.masks is not None:
        mask_folder(batch.masks)
    return problems


def check_maps(
    files: Iterable[InputFile], settings: DjpegSettings, batch: BatchSettings
) -> Iterator[InputFile]:
    """The same photos, if any of the first has the maps and masks that are asked for.

    Raises:
        InputError: none of them has.
        SettingsError: the kind of the maps has to be said.
    """
    files = iter(files)
    ahead = list(itertools.islice(files, _LOOK_AHEAD))
    # those of shards are found one by one
    first = [file for file in ahead if not is_shard(file.path)]
    folders = [mask_folder(batch.masks)] if batch.masks and "mask" in settings.guides else []
    if needs_depth(settings) and isinstance(source := depth_source(batch), MapFolder):
        folders.append(source)
    for folder in folders if first else []:
        there = [file for file in first if folder.path_for(file) is not None]
        if not there:
            folder.path_or_error(first[0])
        for file in there[:: max(1, len(there) // _LOOKED_AT)]:
            # one bad map is its own photo's error
            with contextlib.suppress(FormatError, InputError):
                folder.check(file)
    return itertools.chain(ahead, files)


@functools.lru_cache(maxsize=2)
def mask_folder(path: str) -> MapFolder:
    """The folder of masks, whose listing is read once a process."""
    return MapFolder(Path(path), what="mask", kind="nearness")


def needs_depth(settings: DjpegSettings) -> bool:
    other = settings.without_lettering
    own = "depth" in settings.guides and settings.strength > 0
    return own or (other is not None and needs_depth(other))


def guide_systems(settings: DjpegSettings) -> list[str]:
    """Names of the systems that guide."""
    if settings.strength == 0:
        return []
    return [
        name.removeprefix(guide.SYSTEM) for name in settings.guides if name.startswith(guide.SYSTEM)
    ]


def learned_guides(settings: DjpegSettings) -> list[str]:
    """The guides that are files of `vizcomp train --kind guide`, of photos of either kind."""
    other = settings.without_lettering
    own = [name for name in settings.guides if guide.is_learned(name) and settings.strength > 0]
    return own if other is None else list(dict.fromkeys([*own, *learned_guides(other)]))


def uncalibrated_guides(settings: DjpegSettings) -> tuple[str, ...]:
    """What to say of each learned guide whose factor on steps is not known.

    The table `photo` is calibrated for the eye, and other formats take no factor.

    Raises:
        ModelError: a guide cannot be opened.
    """
    if settings.table == "photo" or "jpeg" not in settings.formats:
        return ()
    opened = [(name, learned_guide(name)) for name in learned_guides(settings)]
    return tuple(
        f"under the guide {printable(name)} a quality may keep more or less than plain JPEG of it:"
        f" its factor on steps is not known ({one.uncalibrated}); vizcomp train --kind guide"
        " measures it"
        for name, one in opened
        if one.uncalibrated
    )


def beside(name: str) -> list[str]:
    """Fingerprints of the files that a model needs beside its own: NAME.json, and weights that an
    ONNX file keeps elsewhere."""
    path = model_path(name)
    if path is None or not os.path.isfile(path):
        return []
    files = [
        place for place in (path.with_suffix(".json"),) if os.path.isfile(place)
    ] + weights_beside(path)
    return [f"{each.name} {file_fingerprint(each)}" for each in files]


_given: contextvars.ContextVar[Mapping[str, System]] = contextvars.ContextVar(
    "given", default=types.MappingProxyType({})
)
# threads that need the same network wait for the first of them to open it
_opening = threading.RLock()


@contextlib.contextmanager
def given_systems(systems: Iterable[System]) -> Iterator[None]:
    """Within this, these objects answer to their names; in this thread alone."""
    before = _given.set({system.name: system for system in systems})
    try:
        yield
    finally:
        _given.reset(before)


def system_by_name(name: str, offline: bool) -> System:
    """A system that was given as an object, or a Python callable of this name, else one that is
    opened once for each process."""
    if (there := _given.get().get(name) or living_system(name)) is not None:
        return there
    with _opening:
        return opened_system(name, offline, state_of(name))


@functools.lru_cache(maxsize=4)
def opened_system(name: str, offline: bool, state: tuple[tuple[int, int], ...] = ()) -> System:
    """A system, opened again where the state of its files is another."""
    return open_system(name, offline=offline)


def displayed(photo: Photo) -> Pixels:
    """A photo as a vision system gets it: upright, sRGB, uint8 (H, W, 3)."""
    pixels = upright(to_srgb(photo)[0], photo.orientation)
    return np.ascontiguousarray(rgb(pixels))


@contextlib.contextmanager
def system_errors(name: str) -> Iterator[None]:
    """A user's own model may throw anything: on one photo that is this photo's error."""
    try:
        yield
    except (VizcompError, MemoryError):
        raise
    except Exception as exc:
        raise InputError(
            f"the vision system {name} fails: {in_one_line(exc)}", "try another system, or omit it"
        ) from exc


def depth_source(batch: BatchSettings) -> DepthSource:
    """One network for each process, loaded on the first photo."""
    with _opening:
        return _opened_depth(
            batch.depth_model, batch.depth_maps, batch.depth_kind, batch.depth_names, batch.offline
        )


@functools.lru_cache(maxsize=2)
def _opened_depth(
    model: str, maps: str | None, kind: str, names: str, offline: bool
) -> DepthSource:
    return open_depth(model, maps, kind=kind, names=names, offline=offline)
