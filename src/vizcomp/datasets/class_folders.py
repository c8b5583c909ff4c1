"""Labelled pictures in folders, one for each class."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.datasets.archive import DataSource, Parts, open_source
from vizcomp.datasets.cifar import FORMS, find_form
from vizcomp.datasets.labelled import (
    FORMS_READ,
    LabelledImages,
    NoPart,
    OnSkip,
    Part,
    Pixels,
    Unreadable,
    make_room,
    read_picture,
)
from vizcomp.datasets.parquet import find_tables, unpack_tables
from vizcomp.errors import InputError, TooLargeError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.place import printable


def read_classes(
    source: DataSource, part: Part, size: int, on_skip: OnSkip | None, *, exact: bool = False
) -> LabelledImages:
    skipped: list[tuple[str, str]] = []

    def skip(name: str, reason: str) -> None:
        skipped.append((printable(name), reason))
        if on_skip is not None:
            on_skip(*skipped[-1])

    root = _root(source)
    parts = _parts(source, root)
    chosen = _chosen(source, parts, part)
    listed = _listed(source, root, parts, chosen, skip)
    images = make_room(len(listed.files), size)
    good = np.zeros(len(images), bool)
    resized = 0
    for k in source.in_reading_order([handle for _, handle in listed.files]):
        try:
            images[k], other = read_picture(_content(source, listed.files[k][1]), size, exact=exact)
        except Unreadable as exc:
            skip("/".join(listed.files[k][0]), exc.reason)
        except InputError as exc:
            raise InputError(
                f"{'/'.join(map(printable, listed.files[k][0]))}: {exc.message}", exc.hint
            ) from exc
        else:
            good[k] = True
            resized += other
    labels = np.asarray(listed.labels, np.int64)
    for label in sorted({*listed.labels} - {*labels[good].tolist()}):
        bad = int((labels == label).sum())
        raise InputError(
            f"the class {printable(listed.classes[label])} of {source.shown} has no readable"
            f" picture ({bad} skipped)",
            f"the last one: {skipped[-1][1]}",
        )
    names = ["/".join(map(printable, at)) for at, _ in listed.files]
    source_words = "class folders" + (
        "" if chosen == [()] else ", " + " and ".join(f"{p[0]}/" for p in chosen)
    )
    return LabelledImages(
        images=_kept(images, good),
        labels=labels[good],
        classes=tuple(map(printable, listed.classes)),
        names=tuple(name for name, is_good in zip(names, good.tolist(), strict=True) if is_good),
        skipped=tuple(skipped),
        source=source_words + ("" if source.is_folder else ", in an archive"),
        resized=resized,
    )


def _kept(images: Pixels, good: npt.NDArray[np.bool_]) -> Pixels:
    """The good ones, moved together in place: a second copy may not fit."""
    chosen = np.flatnonzero(good)
    for place, k in enumerate(chosen.tolist()):
        if place != k:
            images[place] = images[k]
    return images[: len(chosen)]


@dataclasses.dataclass(frozen=True)
class ClassFiles:
    """Pictures of class folders as files, before any is read.

    Attributes:
        files: by class, then by name.
        labels: indices into `classes`.
        unpacked: they were in an archive, or in tables.
        tables: they were in Parquet tables.
    """

    files: list[InputFile]
    labels: list[int]
    classes: tuple[str, ...]
    unpacked: bool = False
    tables: bool = False


def list_classes(path: Path) -> ClassFiles | None:
    """The pictures of a folder with a sub-folder for each class: of its test part where it has one;
    None where it is no such."""
    if not os.path.isdir(path):
        return None
    with open_source(path) as source:
        if any(find_form(source, form) is not None for form in FORMS) or find_tables(path):
            return None
        root = _root(source)
        parts = _parts(source, root)
        tests = [part for part in parts if part in _TESTS][:1]
        try:
            listed = _listed(source, root, parts, tests or parts, lambda name, reason: None)
        except InputError:
            return None
    if len(listed.classes) < 2:
        return None  # a folder in a folder
    files = [InputFile(path.joinpath(*root, *at), PurePath(*at)) for at, _ in listed.files]
    return ClassFiles(files, listed.labels, tuple(map(printable, listed.classes)))


def unpacked_classes(
    path: Path,
    folder: Path,
    choose: Callable[[npt.NDArray[np.int64]], Sequence[int]],
    on_skip: OnSkip,
) -> ClassFiles | None:
    """The pictures of an archive with a folder for each class, or of Parquet tables, byte for byte;
    None where it is no such.

    Args:
        folder: where the files go, by number: no name of the archive is used.
        choose: from the labels of all to the indices of those that are wanted.
        on_skip: is told of what in the archive is no picture, and of what cannot be read.

    Raises:
        FormatError: the archive or a table is broken.
        MissingExtraError: tables, and no pyarrow.
    """
    if tables := find_tables(path):
        rows, classes = unpack_tables(path, tables, folder, choose, on_skip)
        return ClassFiles(
            [InputFile(row.place, PurePath(row.name)) for row in rows],
            [row.label for row in rows],
            classes,
            unpacked=True,
            tables=True,
        )
    if os.path.isdir(path):
        return None
    try:
        with open_source(path) as source:
            if any(find_form(source, form) is not None for form in FORMS):
                return None
            root = _root(source)
            parts = _parts(source, root)
            tests = [part for part in parts if part in _TESTS][:1]
            listed = _listed(source, root, parts, tests or parts, on_skip)
            if len(listed.classes) < 2:
                return None
            chosen = list(choose(np.asarray(listed.labels, np.int64)))
            folder.mkdir(parents=True, exist_ok=True)
            places: dict[int, Path] = {}
            for at in source.in_reading_order([listed.files[k][1] for k in chosen]):
                k = chosen[at]
                parts_of_name, handle = listed.files[k]
                place = folder / f"{k:07d}{PurePath(parts_of_name[-1]).suffix.lower()[:8]}"
                try:
                    place.write_bytes(_content(source, handle))
                except Unreadable as exc:
                    on_skip("/".join(map(printable, parts_of_name)), exc.reason)
                    continue
                places[k] = place
    except InputError:
        return None
    there = sorted(places)
    return ClassFiles(
        [InputFile(places[k], PurePath(*listed.files[k][0])) for k in there],
        [listed.labels[k] for k in there],
        tuple(map(printable, listed.classes)),
        unpacked=True,
    )


@dataclasses.dataclass(frozen=True)
class _Listed:
    """Pictures by class before they are read: path below the data's own folder, and what the
    source's `read` takes."""

    classes: list[str]
    files: list[tuple[Parts, Any]]
    labels: list[int]


def _listed(
    source: DataSource, root: Parts, parts: list[Parts], chosen: list[Parts], skip: OnSkip
) -> _Listed:
    """The pictures of the chosen parts. Classes are those of all parts, so that each has one number
    in all of them."""
    of_part = {folder: set(source.folders((*root, *folder))) for folder in parts}
    classes = sorted(set().union(*of_part.values()))
    if not classes:
        alone = "its pictures lie in one folder; each class needs one of its own"
        raise InputError(
            f"{source.shown} holds no classes", alone if source.has_pictures(root) else FORMS_READ
        )
    listing = _Listed(classes, [], [])
    for folder in chosen:
        for label, name in enumerate(classes):
            at = (*root, *folder, name)
            if name not in of_part[folder] and folder != _TRAIN:
                continue  # a test may leave classes out; training may not
            pictures = source.pictures(at, skip) if name in of_part[folder] else []
            if not pictures:
                where = "/".join(printable(n) for n in (*folder, name))
                raise InputError(
                    f"the class {where} of {source.shown} has no pictures",
                    "add some, or remove the class",
                )
            listing.files.extend((file[len(root) :], handle) for file, handle in pictures)
            listing.labels.extend([label] * len(pictures))
    return listing


_TRAIN: Parts = ("train",)
_TESTS: tuple[Parts, ...] = (("test",), ("val",), ("valid",), ("validation",))


def _root(source: DataSource) -> Parts:
    """The folder that holds classes or parts: archives, and many folders, have one more around
    it."""
    at: Parts = ()
    for _ in range(4):
        folders = source.folders(at)
        if len(folders) != 1 or (folders[0],) in (_TRAIN, *_TESTS) or source.has_pictures(at):
            break
        inner = (*at, folders[0])
        if source.has_pictures(inner) or not source.folders(inner):
            break  # a class, though the only one
        at = inner
    return at


def _parts(source: DataSource, root: Parts) -> list[Parts]:
    """The folders of train, test and so on; only the root itself, (), where the classes are not in
    parts."""
    names = source.folders(root)

    # `train` may be a class among others, with pictures of trains
    def holds_classes(part: Parts) -> bool:
        at = (*root, *part)
        return part[0] in names and bool(source.folders(at)) and not source.has_pictures(at)

    parts = [part for part in (_TRAIN, *_TESTS) if holds_classes(part)]
    return parts if _TRAIN in parts or (parts and len(parts) == len(names)) else [()]


def _chosen(source: DataSource, parts: list[Parts], part: Part) -> list[Parts]:
    if part == "all" or (part == "train" and parts == [()]):
        return parts
    wanted = {"train": (_TRAIN,), "validation": _TESTS[1:]}.get(part, _TESTS)
    chosen = [p for p in parts if p in wanted][:1]
    if not chosen:
        raise NoPart(
            f"{source.shown} has no {part} part",
            f"name a folder with {part}/ in it, or use all of this one",
        )
    return chosen


def _content(source: DataSource, handle: Any) -> bytes:
    try:
        return source.read(handle)
    except VizcompError as exc:
        if source.is_folder or isinstance(exc, TooLargeError):
            raise Unreadable(exc.message) from exc
        raise  # an archive that breaks has no more pictures
