"""CIFAR-10 and CIFAR-100 in their published forms."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.datasets.archive import DataSource, Parts
from vizcomp.datasets.labelled import LabelledImages, NoPart, Part, Pixels, square
from vizcomp.datasets.pickles import PickledArray, unpickled
from vizcomp.errors import FormatError, InputError, OutputError, TruncatedError
from vizcomp.files.place import printable
from vizcomp.files.write import beside
from vizcomp.weights import cache

_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE


@dataclasses.dataclass(frozen=True)
class _Form:
    """One form in which a set is published (Krizhevsky, "Learning Multiple Layers of Features from
    Tiny Images", 2009)."""

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    classes: int
    kind: str = ""  # "fine_" where there are coarse labels too
    label_bytes: int = 0  # before the pixels of each image; 0 for pickles


FORMS = (
    _Form(
        "CIFAR-10, python batches",
        "cifar-10-batches-py",
        tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test_batch",
        "batches.meta",
        10,
    ),
    _Form(
        "CIFAR-10, binary version",
        "cifar-10-batches-bin",
        tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
        10,
        label_bytes=1,
    ),
    _Form(
        "CIFAR-100, python version", "cifar-100-python", ("train",), "test", "meta", 100, "fine_"
    ),
    _Form(
        "CIFAR-100, binary version",
        "cifar-100-binary",
        ("train.bin",),
        "test.bin",
        "fine_label_names.txt",
        100,
        "fine_",
        2,
    ),
)
ARCHIVES = (
    "cifar-10-python.tar.gz",
    "cifar-10-binary.tar.gz",
    "cifar-100-python.tar.gz",
    "cifar-100-binary.tar.gz",
)


def find_form(source: DataSource, form: _Form) -> Parts | None:
    """The folder of the batches in a source, None where there is none."""
    for folder in ((), (form.folder,)):
        present = any(
            source.file((*folder, name)) is not None for name in (form.meta, *form.train, form.test)
        )
        # CIFAR-100's own names are everyday words, so that all of them must be there.
        if present and (
            form.classes == 10
            or all(source.file((*folder, name)) for name in (form.meta, *form.train))
        ):
            return folder
    return None


def read_cifar(
    source: DataSource, form: _Form, folder: Parts, part: Part, size: int
) -> LabelledImages:
    def content(name: str) -> bytes:
        handle = source.file((*folder, name))
        if handle is None:
            raise InputError(
                f"{source.shown} lacks {'/'.join((*folder, name))}",
                f"{form.title} needs it: unpack the set again",
            )
        return source.read(handle)

    if part == "validation":
        raise NoPart(
            f"{source.shown} has no validation part", "CIFAR is published in train and test"
        )
    classes = _class_names(content(form.meta), form)
    files = [*(form.train if part != "test" else ()), *((form.test,) if part != "train" else ())]
    pixels: list[Pixels] = []
    labels: list[int] = []
    names: list[str] = []
    for file in files:
        batch = (_binary_batch if form.label_bytes else _pickled_batch)(content(file), file, form)
        pixels.append(batch[0])
        labels += batch[1]
        names += batch[2]
    images = np.concatenate(pixels)
    pixels.clear()
    if size != _SIDE:
        images = np.stack([square(image, size) for image in images])
    where = "" if source.is_folder else ", in an archive"
    return LabelledImages(
        images=images,
        labels=np.asarray(labels, np.int64),
        classes=classes,
        names=tuple(names),
        skipped=(),
        source=form.title + where,
    )


def _class_names(data: bytes, form: _Form) -> tuple[str, ...]:
    if form.label_bytes:
        names: list[Any] = data.decode("utf-8", "replace").split()
    else:
        listed = unpickled(data, form.meta).get(form.kind + "label_names")
        names = (
            [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in listed]
            if type(listed) is list
            else []
        )
    if (
        len(names) != form.classes
        or not all(isinstance(n, str) for n in names)
        or len(set(names)) != len(names)
    ):
        raise FormatError(
            f"{form.meta} does not name the {form.classes} classes of {form.title}",
            "download the set again",
        )
    return tuple(printable(name) for name in names)


def _pickled_batch(data: bytes, file: str, form: _Form) -> tuple[Pixels, list[int], list[str]]:
    """uint8 (N, 32, 32, 3), labels and file names of a python batch: planes of red, green and blue,
    row by row."""
    batch = unpickled(data, file)
    array = batch.get("data")
    planes = array.value if isinstance(array, PickledArray) else None
    if planes is None or planes.ndim != 2 or planes.shape[1] != _PIXEL_BYTES or not len(planes):
        raise FormatError(f"{file} holds no images of 3 x 32 x 32 bytes", "download the set again")
    count = len(planes)
    labels = batch.get(form.kind + "labels")
    if (
        type(labels) is not list
        or len(labels) != count
        or not all(type(label) is int for label in labels)
    ):
        raise FormatError(
            f"{file} does not have one label for each of its {count} images",
            "download the set again",
        )
    _check_labels(min(labels), max(labels), file, form)
    names = batch.get("filenames")
    if (
        type(names) is list
        and len(names) == count
        and all(isinstance(name, str | bytes) for name in names)
    ):
        known = [printable(n.decode("latin-1") if isinstance(n, bytes) else n) for n in names]
    else:
        known = [f"{file}/{k:05d}" for k in range(count)]
    return _channels_last(planes), labels, known


def _binary_batch(data: bytes, file: str, form: _Form) -> tuple[Pixels, list[int], list[str]]:
    """uint8 (N, 32, 32, 3), labels and made-up names of a binary batch: for each image its label or
    two, then planes."""
    length = form.label_bytes + _PIXEL_BYTES
    if len(data) % length or not data:
        raise TruncatedError(
            f"{file} has {len(data)} bytes, no multiple of {length}", "download the set again"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    labels = records[:, form.label_bytes - 1]
    _check_labels(int(labels.min()), int(labels.max()), file, form)
    names = [f"{file}/{k:05d}" for k in range(len(records))]
    return _channels_last(records[:, form.label_bytes :]), labels.tolist(), names


def _check_labels(low: int, high: int, file: str, form: _Form) -> None:
    if low < 0 or high >= form.classes:
        wrong = low if low < 0 else high
        raise FormatError(
            f"{file} has the label {wrong}, not one of 0 to {form.classes - 1}",
            "download the set again",
        )


def _channels_last(planes: Pixels) -> Pixels:
    planes = planes.reshape(-1, 3, _SIDE, _SIDE)  # (N, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # (N, 32, 32, 3)


def cifar10_archive(*, offline: bool = False) -> Path:
    """The archive of CIFAR-10, as `obtain`."""
    return cache.obtain("cifar10", offline=offline)


def fill_with_cifar10(folder: Path, *, offline: bool = False) -> bool:
    """Puts the archive of CIFAR-10, as it came, into a folder that is empty or not there yet; False
    where it holds something.

    Raises:
        WeightsMissingError: offline, or no source has it.
        OutputError: the folder cannot be written.
    """
    try:
        if os.path.exists(folder) and (
            not os.path.isdir(folder) or any(not p.name.startswith(".") for p in folder.iterdir())
        ):
            return False
        archive = cifar10_archive(offline=offline)
        folder.mkdir(parents=True, exist_ok=True)
        with beside(folder / archive.name) as part:
            shutil.copyfile(archive, part)
    except OSError as exc:
        raise OutputError(
            f"{folder} cannot be filled: {exc.strerror or exc}",
            "name a folder of yours with `data`",
        ) from exc
    return True
