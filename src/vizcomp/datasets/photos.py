"""Photos to train on, and the split of any data into training and validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vizcomp.datasets.archive import file_bytes
from vizcomp.datasets.labelled import Labels, OnSkip, Pixels, upright_rgb
from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.files.find import find_inputs
from vizcomp.files.place import printable


def find_photos(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The photos of a folder, a file, a pattern or several of them, sub-folders included, in a
    fixed order.

    Raises:
        InputError: something named does not exist, or there is no photo at all.
    """
    paths = []
    for file in find_inputs([path] if isinstance(path, str | Path) else path):
        if not isinstance(file.path, Path):
            raise InputError(
                f"{file.shown} does not lie on a disk",
                "copy the data set to a disk first: it is read many times",
            )
        paths.append(file.path)
    return paths


def read_photos(
    paths: Sequence[Path], *, min_side: int, on_skip: OnSkip | None = None
) -> list[Pixels]:
    """The photos of `each_photo` as a list.

    Raises:
        InputError: no photo is left.
    """
    photos = list(each_photo(paths, min_side=min_side, on_skip=on_skip))
    if not photos:
        raise InputError(
            f"none of {len(paths)} photos can be used",
            f"photos of {min_side} pixels a side and more are needed",
        )
    return photos


def each_photo(
    paths: Iterable[Path], *, min_side: int, on_skip: OnSkip | None = None
) -> Iterator[Pixels]:
    """Photos as displayed, read one by one: uint8 (H, W, 3), RGB, C-contiguous, turned upright by
    their EXIF orientation.

    Args:
        min_side: photos whose shorter side is below it are skipped.
        on_skip: is told name and reason of each photo that is too small or cannot be read.
    """
    for path in paths:
        try:
            pixels = upright_rgb(file_bytes(Path(path)))
            if min(pixels.shape[:2]) < min_side:
                height, width = pixels.shape[:2]
                raise InputError(
                    f"{width} x {height} pixels are too few: each side must have {min_side} at"
                    " least"
                )
        except VizcompError as exc:
            if on_skip is not None:
                on_skip(printable(path), exc.message)
        else:
            yield pixels


def split(labels_or_count: npt.ArrayLike, share: float, seed: int) -> tuple[Labels, Labels]:
    """Indices for training and for validation, drawn by a seed; the same ones on every machine.

    With labels, each class gives its share, rounded so that the total is right, and keeps one image
    at least for training.

    Args:
        labels_or_count: int (N,) labels, or N.
        share: of the images that go to validation, 0 <= share < 1; above 0, it is one image at
            least where there are two.
        seed: 0 or above.

    Returns:
        Two int64 arrays, each ascending; together 0..N - 1.

    Raises:
        SettingsError: an argument out of its range.
    """
    given = np.asarray(labels_or_count)
    if given.shape == (0,):
        given = given.astype(np.int64)  # an empty list is one of floats to numpy
    if (
        given.ndim > 1
        or not np.issubdtype(given.dtype, np.integer)
        or (given.ndim == 0 and given < 0)
    ):
        raise SettingsError(
            "a split needs whole numbers: one label for each image, or how many there are"
        )
    if not 0 <= share < 1:
        raise SettingsError(f"{share} is no share for validation", "use 0 or more, and less than 1")
    if seed < 0:
        raise SettingsError(f"{seed} is no seed", "use 0 or more")
    labels = given if given.ndim else np.zeros(int(given), np.int64)
    # Raw output of the bit generator: numpy promises that this stays, and does not promise it of
    # `permutation`.
    keys = np.random.PCG64(seed).random_raw(len(labels)) if len(labels) else np.zeros(0, np.uint64)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    held = [np.zeros(0, np.int64)]
    for group, count in zip(groups, _shares([len(group) for group in groups], share), strict=True):
        held.append(group[np.argsort(keys[group], kind="stable")[:count]])
    validation = np.sort(np.concatenate(held))
    training = np.setdiff1d(np.arange(len(labels)), validation, assume_unique=True)
    return training.astype(np.int64), validation.astype(np.int64)


def _shares(counts: Sequence[int], share: float) -> list[int]:
    """How many of each group: largest remainders, so that the sum is right; one is left over in
    each group."""
    total = round(share * sum(counts))
    if share > 0 and total == 0 and max(counts, default=0) > 1:
        total = 1
    chosen = [min(int(share * count), count - 1) for count in counts]
    by_remainder = sorted(
        range(len(counts)),
        key=lambda k: (int(share * counts[k]) - share * counts[k], -counts[k], k),
    )
    missing = total - sum(chosen)
    for k in by_remainder:
        if missing > 0 and chosen[k] < counts[k] - 1:
            chosen[k] += 1
            missing -= 1
    return chosen
