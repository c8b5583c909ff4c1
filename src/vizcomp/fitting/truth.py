"""Labels that answers are held against: where they are given, what counts is how right an answer
is, not whether it changed."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path, PurePath

import numpy as np

from vizcomp.datasets.true_boxes import TrueBoxes, true_boxes
from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile
from vizcomp.files.place import disk_cause, printable
from vizcomp.photos.photo import Photo
from vizcomp.vision import lettering
from vizcomp.vision.answers import Answer, Boxes, Classes, Text, matching
from vizcomp.vision.boxes import corners_to_quads

FOLDERS = "folders"
MOST_BYTES = 1 << 28  # of a table
FILE_COLUMNS, LABEL_COLUMNS = (
    ("file", "filename", "file_name", "image", "path"),
    ("label", "class", "text", "words"),
)


@dataclasses.dataclass(frozen=True)
class Truth:
    """The label of a photo.

    Attributes:
        words: the name of its class, or what there is to read; "" where `boxes` are what is known.
        rank: the place of that name among all names in order, from 0; it stands for the class of a
            system that names none.
        names: how many names there are.
        boxes: what stands where, or None.
    """

    words: str = ""
    rank: int = -1
    names: int = 0
    boxes: TrueBoxes | None = None

    def right(self, answer: Answer, photo: Photo) -> float:
        """How right an answer in a photo's scale is, 0..1: the class, F1 of boxes at IoU 0.5, or
        the share of the words read.

        Raises:
            InputError: the label is no label of such an answer, or of a photo of another size.
        """
        if isinstance(answer, Classes) and self.boxes is None:
            return float(answer.best == self._class_of(answer))
        if isinstance(answer, Boxes) and self.boxes is not None:
            return self._f1(answer, photo)
        if isinstance(answer, Text) and self.boxes is None:
            read = lettering.compared(
                [self.words.casefold()], [line.casefold() for line in answer.lines]
            )
            return read.matched / read.reference if read.reference else float(not read.found)
        wanted = {
            Classes: "the class of each photo",
            Boxes: "boxes",
            Text: "the words of each photo",
        }.get(type(answer))
        if wanted is None:
            raise InputError(
                "`labels` are for classes, boxes and text alone",
                "omit them: agreement is certified then",
            )
        raise InputError(
            f"`labels` do not say what this system answers: it needs {wanted}",
            "see docs/fit.md for the kinds",
        )

    def _class_of(self, answer: Classes) -> int:
        names = [name.casefold() for name in answer.names]
        if (name := self.words.casefold()) in names:
            return names.index(name)
        if self.words.isdecimal() and int(self.words) < len(answer.probabilities):
            return int(self.words)
        if not names and self.names == len(answer.probabilities):
            return self.rank
        raise InputError(
            f"the label {printable(PurePath(self.words))!r} is no class of the system, which has"
            f" {len(answer.probabilities)}",
            "use its names of classes, or their numbers from 0",
        )

    def _f1(self, answer: Boxes, photo: Photo) -> float:
        assert self.boxes is not None
        height, width = photo.pixels.shape[:2]
        try:
            corners = self.boxes.on((width, height), photo.orientation)
        except ValueError as exc:
            raise InputError(
                f"its labels do not fit: {exc}", "give the labels of these photos"
            ) from exc
        labels: tuple[str, ...] = ()
        if answer.labels:
            labels = _as_answered(self.boxes, answer.labels)
        elif not len(answer.quads):
            return float(not corners)
        quads = corners_to_quads(np.array(corners, np.float64).reshape(-1, 4))
        truth = Boxes(quads, labels, answer.size)
        pairs = matching(truth, answer)
        count = len(corners) + len(answer.quads)
        return 2 * len(pairs) / count if count else 1.0


def _as_answered(boxes: TrueBoxes, answered: Iterable[str]) -> tuple[str, ...]:
    """The classes of labels in the words that a system has for them: its names, or "class 3"."""
    known = set(answered)
    folded = {word.casefold(): word for word in known}
    words = []
    for name, number in zip(boxes.names, boxes.numbers, strict=True):
        plain = f"class {number}"
        words.append(plain if plain in known else folded.get(name.casefold(), name or plain))
    return tuple(words)


@dataclasses.dataclass(frozen=True)
class Truths:
    """The labels of a sample.

    Attributes:
        by_file: of each photo that has one.
        digest: 12 hexadecimal digits of them all.
        notices: what to say of photos that have none.
    """

    by_file: dict[InputFile, Truth]
    digest: str
    notices: tuple[str, ...]


def read_truths(place: str, files: Iterable[InputFile]) -> Truths:
    """The labels of photos.

    Args:
        place: "folders" where a photo's folder is its class; a .csv or .tsv file with a column
            `file` and one `label` (or `class`, `text`, `words`); a COCO .json file, or a folder of
            YOLO's .txt or VOC's .xml files.

    Raises:
        InputError: no labels, or none of these photos.
        SettingsError: as `label_kind`.
    """
    listed = list(files)
    if place == FOLDERS:
        names = {file: file.path.parent.name for file in listed}
        found = _named(names)
    elif PurePath(place).suffix.lower() in (".csv", ".tsv"):
        found = _named(_table(Path(place), listed))
    else:
        read = true_boxes(Path(place))
        found = {}
        for file in listed:
            try:
                boxes = read(file.path, file.relative)
            except (ValueError, OSError) as exc:
                why = disk_cause(exc) if isinstance(exc, OSError) else str(exc)
                raise InputError(
                    f"the labels of {file.shown} cannot be read: {why}",
                    "mend them, or leave the photo out",
                ) from exc
            if boxes is not None:
                found[file] = Truth(boxes=boxes)
    if not found:
        raise InputError(
            f"{printable(PurePath(place))} has no labels of these photos"
            + (f", such as {listed[0].shown}" if listed else ""),
            "labels go by the names of photos: see docs/fit.md",
        )
    digest = hashlib.sha256(
        repr(sorted((file.shown, truth) for file, truth in found.items())).encode()
    ).hexdigest()[:12]
    missing = len(listed) - len(found)
    notices = (
        (f"{missing} of {len(listed)} photos have no label and are left out",) if missing else ()
    )
    return Truths(found, digest, notices)


def _named(names: dict[InputFile, str]) -> dict[InputFile, Truth]:
    places = {name: place for place, name in enumerate(sorted(set(names.values())))}
    return {file: Truth(name, places[name], len(places)) for file, name in names.items()}


def _table(path: Path, files: list[InputFile]) -> dict[InputFile, str]:
    """A label for each photo that the table names, by its path or by the end of it; several rows of
    one photo are its words."""
    try:
        with path.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        why = disk_cause(exc) if isinstance(exc, OSError) else "it is no text in UTF-8"
        raise InputError(
            f"{printable(path)} cannot be read: {why}",
            "give a .csv file with the columns file and label",
        ) from exc
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{printable(path)} has more than {MOST_BYTES:,} bytes", "give a smaller table"
        )
    rows = csv.DictReader(
        io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ","
    )
    columns = {(name or "").strip().casefold(): name for name in rows.fieldnames or ()}
    at = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
    said = next((columns[name] for name in LABEL_COLUMNS if name in columns), None)
    if at is None or said is None:
        raise SettingsError(
            f"{printable(path)} has no columns file and label",
            "its first line names them: file,label",
        )
    labels: dict[tuple[str, ...], list[str]] = {}
    try:
        for row in rows:
            parts = PurePath((row[at] or "").strip().replace("\\", "/")).parts
            labels.setdefault(parts, []).append((row[said] or "").strip())
    except csv.Error as exc:
        raise InputError(
            f"{printable(path)} is no table: {exc}",
            "give a .csv file with the columns file and label",
        ) from exc
    found = {}
    for file in files:
        parts = PurePath(str(file.path).replace("\\", "/")).parts
        key = next((parts[start:] for start in range(len(parts)) if parts[start:] in labels), None)
        if key:
            found[file] = " ".join(labels[key])
    return found
