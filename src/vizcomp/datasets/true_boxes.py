"""What labels say stands where on a photo: boxes out of COCO's JSON, YOLO's text and VOC's XML, to
compare answers with."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from vizcomp.datasets import voc_labels, yolo_labels
from vizcomp.datasets.coco_labels import CocoLabels
from vizcomp.datasets.moved_labels import Move, Result, Size
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.place import printable

CLASSES = "classes.txt"
NO_LABELS = frozenset(
    [CLASSES, "obj.names", "labels.txt", "predefined_classes.txt", "readme.txt", "license.txt"]
)
"""Files beside labels that are none."""

_LOOKED_AT = 10_000  # files of a folder that tell of which kind its labels are


@dataclasses.dataclass(frozen=True)
class TrueBoxes:
    """The boxes of one photo.

    Attributes:
        names: of each box's class; "" where only its number is known.
        numbers: of each box's class, from 0 in the labels' own order.
        corners: left, top, right, bottom of each, in pixels of the labels' frame, or as shares of
            it.
        size: width and height of that frame; None where the labels do not say, or where corners are
            shares.
        shares: corners are shares of the photo as displayed.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    corners: tuple[tuple[float, float, float, float], ...]
    size: Size | None = None
    shares: bool = False

    def on(self, size: Size, orientation: int) -> list[tuple[float, float, float, float]]:
        """The corners in pixels of a photo as displayed.

        Args:
            size: width and height of the photo as stored.
            orientation: of its EXIF block, 1..8.

        Raises:
            ValueError: they are labels of a photo of another size.
        """
        shown = size[::-1] if orientation >= 5 else size
        if self.shares:
            width, height = shown
            return [(a * width, b * height, c * width, d * height) for a, b, c, d in self.corners]
        result = Result(
            name="", output="", size=size, orientation=orientation, output_size=shown, turned=True
        )
        move: Move = result.move(self.size)
        return [move.box(*corners) for corners in self.corners]


def label_kind(place: Path) -> str:
    """Of which kind the labels at a place are: coco, yolo or voc.

    Raises:
        InputError: there are none.
        SettingsError: there are several kinds.
    """
    if not os.path.exists(place):
        raise InputError(
            f"{printable(place)} does not exist",
            "give a COCO .json file, or a folder of YOLO's .txt or VOC's .xml",
        )
    if os.path.isfile(place):
        if place.suffix.lower() != ".json":
            raise InputError(
                f"{printable(place)} is no .json file",
                "give COCO's file, or the folder of YOLO's or VOC's files",
            )
        return "coco"
    some = itertools.islice(
        (p for p in place.rglob("*.*") if p.name.lower() not in NO_LABELS), _LOOKED_AT
    )
    found = {path.suffix.lower() for path in some}
    kinds = [kind for kind, suffix in (("yolo", ".txt"), ("voc", ".xml")) if suffix in found]
    if len(kinds) > 1:
        raise SettingsError(
            f"{printable(place)} holds .txt and .xml files", "give a folder with labels of one kind"
        )
    if not kinds:
        hint = (
            "give the .json file itself"
            if ".json" in found
            else "give a folder of YOLO's .txt or VOC's .xml files"
        )
        raise InputError(f"{printable(place)} holds no labels", hint)
    return kinds[0]


def label_file(place: Path, kind: str, relative: PurePath) -> Path | None:
    """A photo's file of labels, "yolo" or "voc": in its sub-folder, in that below the folder of
    photos, or at the top.

    Args:
        relative: the photo's path below the folder that was given.
    """
    name = PurePath(relative.name).stem + (".txt" if kind == "yolo" else ".xml")
    parts = relative.parent.parts
    for start in range(len(parts) + 1):
        path = place.joinpath(*parts[start:], name)
        if os.path.isfile(path):
            return path
    return None


def true_boxes(place: Path) -> Callable[[Any, PurePath], TrueBoxes | None]:
    """From a photo's path, and that below the folder that was given, to its boxes; None where it
    has no labels.

    Errors of one file are ValueErrors of the call.

    Raises:
        InputError, SettingsError: as `label_kind` and `CocoLabels`.
    """
    kind = label_kind(place)
    if kind == "coco":
        coco = CocoLabels(place)

        def of_coco(path: Any, relative: PurePath) -> TrueBoxes | None:
            images = coco.images_of(path)
            if len(images) != 1:
                return None
            rows, size = coco.boxes_of(images[0])
            return _rows(rows, size)

        return of_coco
    names = _class_names(place)

    def of_files(path: Any, relative: PurePath) -> TrueBoxes | None:
        file = label_file(place, kind, relative)
        if file is None:
            return None
        if kind == "voc":
            boxes, size = voc_labels.boxes(file)
            return _rows([(name, -1, *corners) for name, corners in boxes], size)
        shares = yolo_labels.boxes(file)
        rows = [
            (names[number] if number < len(names) else "", number, *corners)
            for number, corners in shares
        ]
        return dataclasses.replace(_rows(rows, None), shares=True)

    return of_files


def _rows(rows: list[tuple[str, int, float, float, float, float]], size: Size | None) -> TrueBoxes:
    corners = tuple((row[2], row[3], row[4], row[5]) for row in rows)
    return TrueBoxes(tuple(row[0] for row in rows), tuple(row[1] for row in rows), corners, size)


def _class_names(place: Path) -> list[str]:
    """The names of YOLO's classes, where they lie beside its labels."""
    try:
        return (
            (place / CLASSES).read_text("utf-8-sig").split("\n")
            if os.path.isfile(place / CLASSES)
            else []
        )
    except (OSError, UnicodeDecodeError):
        return []
