"""Labelled pictures of any published form, read from a folder or an archive."""

from __future__ import annotations

import os
from pathlib import Path

from vizcomp.datasets.archive import open_source
from vizcomp.datasets.cifar import ARCHIVES, FORMS, find_form, read_cifar
from vizcomp.datasets.class_folders import read_classes
from vizcomp.datasets.labelled import MAX_SIZE, LabelledImages, OnSkip, Part
from vizcomp.datasets.parquet import find_tables, read_tables
from vizcomp.errors import SettingsError


def read_labelled(
    path: str | Path,
    *,
    part: Part = "train",
    size: int = 32,
    exact: bool = False,
    on_skip: OnSkip | None = None,
) -> LabelledImages:
    """Labelled images from a folder or a tar archive (plain, gz, bz2 or xz), whichever of these it
    holds:

    - CIFAR-10 or CIFAR-100 (fine labels), python or binary version: the folder of the batches, the
      folder above it, or the archive as published;
    - class folders, `PATH/CLASS/*.jpg`, or `PATH/train/CLASS/*.jpg` beside a `test`, `val`, `valid`
    or `validation`; - Parquet as on Hugging Face, `train-*.parquet` and `test-*.parquet` in the
      folder or below it, or one such file, where pyarrow is installed.

    Pictures of other sizes are cropped to the square in their middle and resized; broken ones are
    skipped and counted. The order is that of the batches, or by class and then by name: the same on
    every machine.

    Args:
        part: "train", "test" or "all" (train before test); "validation" for a `val`, `valid` or
            `validation` beside `train`, which class folders alone may have, and which is their test
            where there is no `test`. Class folders without parts are all training data. Classes
            have the same numbers in each part.
        size: side of the images, 1..1024.
        exact: refuse pictures of another size.
        on_skip: is told name and reason of each picture that is skipped, at once.

    Raises:
        SettingsError: `part` or `size` is none of those.
        InputError: nothing there, nothing recognised, no such part, a class without a readable
            picture, and, where `exact`, a picture of another size.
        FormatError: a batch or archive that is broken (`TruncatedError`: cut off, `TooLargeError`:
            beyond the limits), or a pickle that holds anything but a batch.
        MissingExtraError: Parquet files, and no pyarrow.
    """
    if part not in ("train", "validation", "test", "all"):
        raise SettingsError(
            f"no part of a data set is called {part!r}", "use train, validation, test or all"
        )
    if not 1 <= size <= MAX_SIZE:
        raise SettingsError(f"images of side {size} cannot be made", f"use 1 to {MAX_SIZE}")
    if (tables := find_tables(Path(path))) and os.path.isfile(path):
        return read_tables(Path(path), tables, part, size, on_skip, exact=exact)
    with open_source(Path(path)) as source:
        for form in FORMS:
            folder = find_form(source, form)
            if folder is not None:
                return read_cifar(source, form, folder, part, size)
        if source.is_folder:
            for name in ARCHIVES:  # the download, kept as it came
                if os.path.isfile(Path(path) / name):
                    return read_labelled(
                        Path(path) / name, part=part, size=size, exact=exact, on_skip=on_skip
                    )
        if tables:
            return read_tables(Path(path), tables, part, size, on_skip, exact=exact)
        return read_classes(source, part, size, on_skip, exact=exact)
