"""Images of an evaluation, in one flat file on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vizcomp.batch.judges import displayed
from vizcomp.batch.seen import source_seen
from vizcomp.datasets.cifar import cifar10_archive
from vizcomp.datasets.class_folders import ClassFiles, list_classes, unpacked_classes
from vizcomp.datasets.labelled import LabelledImages, OnSkip
from vizcomp.datasets.parquet import NoLabels
from vizcomp.datasets.read import read_labelled
from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.evaluation.packed import unpacked_photos
from vizcomp.evaluation.results import EvalSettings
from vizcomp.files.find import EXTENSIONS, InputFile, find_inputs
from vizcomp.files.place import printable
from vizcomp.photos.photo import load
from vizcomp.vision.system import System, fitted

Pixels = npt.NDArray[np.uint8]

CHUNK_SMALL, CHUNK_LARGE = 500, 8  # images that one task takes: 32x32 ones, and photos
SMALL_SIDE = 64
ALONE = 4_000_000  # pixels: a larger photo is a task of its own, for its memory
SET_SIDE = 32  # of the published sets that are read, which have no files
PACKED_SIDE = 224  # of pictures of an archive with one class alone, which is no set of classes


@dataclasses.dataclass(eq=False)
class EvalData:
    """Images on disk in one flat file, and what is known of them."""

    folder: str
    shapes: list[tuple[int, int]]
    starts: list[int]
    names: list[str]
    labels: list[int] | None
    classes: tuple[str, ...]
    about: dict[str, Any]
    warnings: list[str]
    originals: list[Path | None]  # the JPEG file that an image is, pixel for pixel, if it is one

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Pixels:
        flat = mapped_pixels(self.folder)
        height, width = self.shapes[index]
        start = self.starts[index]
        return np.array(flat[start : start + 3 * height * width]).reshape(height, width, 3)


@functools.lru_cache(maxsize=2)
def mapped_pixels(folder: str) -> Pixels:
    return np.memmap(Path(folder) / "pixels", np.uint8, "r")


def read_data(
    settings: EvalSettings,
    folder: str,
    side: int,
    first: System,
    on_skip: Callable[[str, str], None],
) -> EvalData:
    """The images that are evaluated; `side` cuts all of them to squares of this size, 0 leaves
    photos as they are."""
    wanted = side or settings.data or first.native
    path, warnings, name = (
        _where(settings, side) if wanted else (None, [_SAMPLES_SAID], _SAMPLES_NAME)
    )
    skipped: list[tuple[str, str]] = []

    def skip(what: str, why: str) -> None:
        skipped.append((what, why))
        on_skip(what, why)

    taken = _taken(settings, path, folder, side, first, warnings, skip)
    with (Path(folder) / "pixels").open("wb") as file:
        shapes, starts, at = [], [], 0
        for array in taken.arrays:
            file.write(np.ascontiguousarray(array).tobytes())
            shapes.append((array.shape[0], array.shape[1]))
            starts.append(at)
            at += array.size
    same, sizes, count = len(set(shapes)) == 1, taken.sizes, len(taken.names)
    about = {
        "name": name or taken.source,
        "path": "" if path is None else str(path),
        "images": count,
        "labels": taken.labels is not None,
        "classes": list(taken.classes),
        "skipped": len(skipped),
        "source_bytes_per_image": None if sizes is None or side else sum(sizes) / len(sizes),
        "width": shapes[0][1] if same else 0,
        "height": shapes[0][0] if same else 0,
        "jpeg_sources": taken.jpeg,
    }
    if taken.labels is not None and len({*taken.labels}) < 2:
        only = taken.classes[taken.labels[0]]
        warnings.append(f"All images are of one class, {only}: an accuracy says little.")
    if skipped:
        warnings.append(
            f"{len(skipped)} images could not be read and are left out, such as {skipped[0][0]}:"
            f" {skipped[0][1]}."
        )
    if taken.jpeg:
        warnings.append(
            f"{taken.jpeg:,} of {count:,} sources are JPEG themselves: what that cost is in them"
            " already, and figures differ from those of lossless sources."
        )
    return EvalData(
        folder,
        shapes,
        starts,
        taken.names,
        taken.labels,
        taken.classes,
        about,
        warnings,
        taken.originals,
    )


@dataclasses.dataclass
class _Taken:
    """The images that were chosen; fields as in `EvalData`.

    Attributes:
        sizes: bytes of their files, or None where they are none.
        jpeg: how many of them are JPEG.
    """

    arrays: Iterator[Pixels]
    names: list[str]
    labels: list[int] | None
    classes: tuple[str, ...]
    source: str
    sizes: list[int] | None
    jpeg: int
    originals: list[Path | None]


def _taken(
    settings: EvalSettings,
    path: Path | None,
    folder: str,
    side: int,
    first: System,
    warnings: list[str],
    skip: Callable[[str, str], None],
) -> _Taken:
    """The chosen images: files as they are, but for codecs and systems of small images."""
    listed = labelled = None
    unpacked = Path(folder) / "unpacked"

    def choose(labels: npt.NDArray[Any]) -> list[int]:
        return _sample(labels, settings.limit, settings.seed)

    if path is not None and first.kind == "classes":
        if not side:
            listed = list_classes(path)
        photo = os.path.isfile(path) and path.suffix.lower() in EXTENSIONS
        if listed is None and not (side or first.native or photo):
            try:
                listed = unpacked_classes(path, unpacked, choose, skip)
            except NoLabels:
                return _of_files(_packed(path, unpacked, choose, skip), None, settings, side, skip)
        if listed is None:
            labelled = _labelled(path, side or first.native or SET_SIDE)
            if labelled is not None and labelled.resized and not side and not first.native:
                labelled = _labelled(path, PACKED_SIDE)
                warnings.append(
                    f"Pictures of this archive are cut to {PACKED_SIDE} x {PACKED_SIDE}: unpack it"
                    " for whole ones."
                )
    if labelled is None:
        files = listed.files if listed is not None else None
        if files is None:
            files = _packed(path or samples_folder(), unpacked, choose, skip)
        return _of_files(files, listed, settings, side, skip)
    if settings.decoder != "pillow":
        raise SettingsError(
            f"`decoder` {settings.decoder} is for photos: pictures of a table or of a published set"
            " are read by Pillow",
            "give a folder or an archive of pictures, or omit `decoder`",
        )
    return _of_arrays(labelled, settings, skip)


def _packed(
    path: Path, folder: Path, choose: Callable[[npt.NDArray[Any]], list[int]], skip: OnSkip
) -> list[InputFile]:
    """Photos without classes: files, or those of a table or an archive."""
    if os.path.isdir(path):
        with contextlib.suppress(InputError):
            return list(find_inputs([str(path)]))
    packed = unpacked_photos(path, folder, choose, skip)
    return list(find_inputs([str(path)])) if packed is None else packed


def _of_arrays(
    labelled: LabelledImages, settings: EvalSettings, skip: Callable[[str, str], None]
) -> _Taken:
    for what, why in labelled.skipped:
        skip(what, why)
    chosen = _sample(labelled.labels, settings.limit, settings.seed)
    names = [labelled.names[i] for i in chosen]
    return _Taken(
        (labelled.images[i] for i in chosen),
        names,
        [int(labelled.labels[i]) for i in chosen],
        labelled.classes,
        labelled.source,
        None,
        sum(name.lower().endswith((".jpg", ".jpeg")) for name in names),
        [None] * len(chosen),
    )


def _of_files(
    files: Sequence[InputFile],
    listed: ClassFiles | None,
    settings: EvalSettings,
    side: int,
    skip: Callable[[str, str], None],
) -> _Taken:
    marks = np.asarray(
        listed.labels if listed is not None else np.zeros(len(files), np.int64), np.int64
    )
    chosen = _sample(marks, settings.limit, settings.seed)
    sources = list(_photos([files[i] for i in chosen], side, settings, skip))
    if not sources:
        raise InputError(
            f"none of {len(chosen)} photos can be read", "give a folder of photos, or class folders"
        )
    labels: list[int] | None = None
    classes: tuple[str, ...] = ()
    source = f"{len(sources)} photos"
    if listed is not None:
        label_of = {
            printable(file.relative): label
            for file, label in zip(listed.files, listed.labels, strict=True)
        }
        labels, classes = [label_of[one.name] for one in sources], listed.classes
        where = ", in an archive" if listed.unpacked else ""
        source = "Parquet files" if listed.tables else f"class folders{where}"
    return _Taken(
        (one.pixels for one in sources),
        [one.name for one in sources],
        labels,
        classes,
        source,
        [one.size for one in sources],
        sum(one.jpeg for one in sources),
        [one.original for one in sources],
    )


def _labelled(path: Path, side: int) -> LabelledImages | None:
    """A data set's test part, class folders without one as a whole; None where the photos have no
    classes."""
    if os.path.isfile(path) and path.suffix.lower() in EXTENSIONS:
        return None
    try:
        return read_labelled(path, part="test", size=side)
    except VizcompError as exc:
        try:
            return read_labelled(path, part="all", size=side)
        except VizcompError:
            if os.path.isdir(path):
                return None
            raise exc from None


def _where(settings: EvalSettings, side: int) -> tuple[Path | None, list[str], str]:
    """Where the data are: as given, CIFAR-10 from the cache or its mirrors, or nowhere, which means
    the samples."""
    if settings.data == "cifar10" and not os.path.exists(settings.data):
        return cifar10_archive(offline=settings.offline), [], "CIFAR-10, test part"
    if settings.data:
        path = Path(settings.data)
        if not os.path.exists(path):
            raise InputError(
                f"{settings.data} is not there", "give `data` a folder or an archive, or omit it"
            )
        return path, [], ""
    try:
        return cifar10_archive(offline=settings.offline), [], "CIFAR-10, test part"
    except VizcompError as exc:
        cut = ", cut to the size that the codec is made for" if side else ""
        why = (
            f"CIFAR-10 could not be had ({exc.message}), so this is measured on the few sample"
            f" photos of vizcomp{cut}: agreement with its answer on the source stands in for"
            " accuracy, and so few photos prove little. Give `data`, or run once with the network."
        )
        return None, [why], _SAMPLES_NAME


_SAMPLES_NAME = "the sample photos that come with vizcomp"
_SAMPLES_SAID = (
    "Without `data` this is measured on the few sample photos that come with vizcomp, which prove"
    " little. Give `data` with your own."
)


def samples_folder() -> Path:
    """The sample photos that come with the package."""
    return Path(str(package_files("vizcomp").joinpath("bundled", "samples")))


def _sample(labels: npt.NDArray[Any], limit: int, seed: int) -> list[int]:
    """Indices of at most `limit` images, evenly over the classes, drawn by a seed, in their
    order."""
    count = len(labels)
    if not limit or limit >= count:
        return list(range(count))
    generator = np.random.default_rng(seed)
    # an image's turn within its class; those of the earliest turns are taken
    turns = np.empty(count)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turns[generator.permutation(members)] = np.arange(len(members))
    order = np.lexsort((generator.random(count), turns))
    return sorted(int(i) for i in order[:limit])


class _Kept(NamedTuple):
    """A photo that could be read."""

    name: str
    pixels: Pixels
    size: int
    jpeg: bool
    original: Path | None


def _photos(
    files: Sequence[InputFile], side: int, settings: EvalSettings, skip: Callable[[str, str], None]
) -> Iterator[_Kept]:
    for file in files:
        try:
            photo = load(file.path, max_pixels=settings.max_pixels)
            shown = source_seen(photo, file.path.read_bytes, file.shown, settings)
            height, width = shown.shape[:2]
            there = file.path if isinstance(file.path, Path) else None
            as_stored = shown if settings.decoder == "pillow" else displayed(photo)
            original = (
                there
                if photo.jpeg is not None and np.array_equal(as_stored, photo.pixels)
                else None
            )
            if side:
                shown = fitted(np.ascontiguousarray(shown), side, side)
            whole = shown.shape[:2] == (height, width)
            yield _Kept(
                printable(file.relative),
                np.ascontiguousarray(shown),
                photo.source_bytes,
                photo.jpeg is not None,
                original if whole else None,
            )
        except VizcompError as exc:
            skip(printable(file.relative), exc.message)


def chunk_size(data: EvalData) -> int:
    if max(max(s) for s in data.shapes) <= SMALL_SIDE:
        return CHUNK_SMALL
    return CHUNK_LARGE if max(height * width for height, width in data.shapes) <= ALONE else 1


def are_small(settings: EvalSettings, side: int) -> bool:
    """Whether the images that settings name are of this side; data sets that are no files are taken
    to be."""
    if not settings.data or not os.path.exists(settings.data):
        return True
    first = (
        next(iter(find_inputs([settings.data], report=lambda *_: None)), None)
        if os.path.isdir(settings.data)
        else None
    )
    if first is None:
        return True
    try:
        return bool(max(load(first.path, max_pixels=settings.max_pixels).pixels.shape[:2]) <= side)
    except VizcompError:
        return False
