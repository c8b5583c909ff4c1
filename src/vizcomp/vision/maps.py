"""Maps of labels out of a segmenter's numbers, brought to a photo's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import InputError
from vizcomp.vision.refusals import SHARE
from vizcomp.vision.views import View


def labels_on_photo(
    main: npt.NDArray[Any], classes: int, activation: str, size: tuple[int, ...], view: View
) -> npt.NDArray[np.int32]:
    """The map of labels, int32 (H, W), of a photo of this height and width.

    Args:
        main: whole numbers or scores, (1, C, h, w), (1, h, w, C) or (1, h, w).
        classes: how many are named; 0 where none is.
        activation: of the scores, one of `options.ACTIVATIONS`.
        view: the photo in the model's input.

    Raises:
        InputError: one map of numbers that are neither labels nor shares.
    """
    maps = main[0]
    if maps.ndim == 3:
        last = maps.shape[2] == classes or (
            maps.shape[2] < maps.shape[0] and maps.shape[2] < maps.shape[1]
        )
        maps = maps if not last else maps.transpose(2, 0, 1)
        maps = maps.argmax(0) if len(maps) > 1 else maps[0]
    labels = np.asarray(maps if maps.dtype.kind in "iub" else _edges(maps, activation), np.int32)
    height, width = size
    (across, down), (left, top) = view.scale, view.offset
    rows = ((np.arange(height) + 0.5) * down + top) * labels.shape[0] / view.pixels.shape[0]
    columns = ((np.arange(width) + 0.5) * across + left) * labels.shape[1] / view.pixels.shape[1]
    at_rows = rows.astype(int).clip(0, labels.shape[0] - 1)
    at_columns = columns.astype(int).clip(0, labels.shape[1] - 1)
    return np.asarray(labels[at_rows[:, None], at_columns[None]])


def _edges(numbers: npt.NDArray[Any], activation: str) -> npt.NDArray[Any]:
    """Labels of one map of numbers: labels as they are, or 1 where a share is above a half."""
    if activation == "sigmoid":
        return numbers > 0
    largest, least = float(numbers.max(initial=0)), float(numbers.min(initial=0))
    if largest > SHARE and bool((numbers == numbers.round()).all()):
        return numbers
    if largest > SHARE or least < 1 - SHARE:
        raise InputError(
            f"its map has numbers from {least:.3g} to {largest:.3g}, no shares and no labels",
            "say activation=sigmoid where they come before one; a depth map is no answer",
        )
    return numbers > 0.5
