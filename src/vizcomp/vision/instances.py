"""Masks of instances: each box's own, out of prototypes and coefficients (Bolya et al., "YOLACT:
Real-time Instance Segmentation", ICCV 2019), and how alike two are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vizcomp.vision.detectors import Detections

Masks = npt.NDArray[np.bool_]  # (N, h, w) over the whole photo, at any resolution

SAME_INSTANCE = 0.5  # IoU from which two masks are of one instance


def masks_of(
    boxes: Detections,
    prototypes: npt.NDArray[np.float64],
    size: tuple[int, int],
    place: tuple[float, float, float, float],
) -> Masks:
    """The masks of boxes, each cut to its box: bool (N, h, w) over the photo.

    Args:
        boxes: in pixels of the input, with coefficients (N, K).
        prototypes: (K, H, W) over the model's input.
        size: height and width of the input.
        place: left, top, right, bottom of the photo in the input; all of it must be there.
    """
    assert boxes.coefficients is not None
    count, height, width = prototypes.shape
    numbers = (boxes.coefficients @ prototypes.reshape(count, -1)).reshape(-1, height, width)
    across, down = size[1] / width, size[0] / height
    middles = (np.arange(width) + 0.5) * across, (np.arange(height) + 0.5) * down
    left, top, right, bottom = (side[:, None] for side in boxes.corners.T)
    across_it = (middles[0] >= left) & (middles[0] < right)
    down_it = (middles[1] >= top) & (middles[1] < bottom)
    # above 0 is above a half after the sigmoid
    masks = (numbers > 0) & down_it[:, :, None] & across_it[:, None]
    columns, rows = [round(x / across) for x in place[::2]], [round(y / down) for y in place[1::2]]
    rows[1], columns[1] = max(rows[1], rows[0] + 1), max(columns[1], columns[0] + 1)
    cut = masks[:, slice(*rows), slice(*columns)]
    return np.ascontiguousarray(cut)


def shared(one: Masks, other: Masks, pairs: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Pixels of the intersection and of the union of each pair, (P, 2)."""
    counts = [
        ((one[i] & other[j]).sum(), (one[i] | other[j]).sum())
        for i, j in pairs
        if one[i].shape == other[j].shape
    ]
    return np.array(counts, np.int64).reshape(-1, 2)


def partners(one: Masks, other: Masks, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pairs whose masks are of one instance; two without a pixel are."""
    counts = shared(one, other, pairs)
    good = counts[:, 0] >= SAME_INSTANCE * counts[:, 1]
    return [pair for pair, same in zip(pairs, good, strict=True) if same]


def mean_iou(one: Masks, other: Masks, pairs: Sequence[tuple[int, int]]) -> float:
    """Over all pixels of the pairs' masks together, 0..1, so that small ones, whose edges are most
    of them, count as little as they are; 1 without a pixel."""
    inside, outside = shared(one, other, pairs).sum(0)
    return float(inside / outside) if outside else 1.0
