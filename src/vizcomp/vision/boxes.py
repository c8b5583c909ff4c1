"""Quadrilaterals: overlap, matching, precision, recall and F1."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from vizcomp.metrics import FloatArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxScore:
    """How well the boxes of one system answer those of another, pooled over images.

    Attributes:
        precision: matched / found; 1 when nothing was found.
        recall: matched / reference; 1 when the reference has no boxes.
        f1: 2 matched / (reference + found); 1 when both are empty.
        matched, reference, found: numbers of boxes.
    """

    precision: float
    recall: float
    f1: float
    matched: int
    reference: int
    found: int


def polygon_iou(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Intersection over union of two convex polygons.

    The intersection is clipped edge by edge (Sutherland and Hodgman, "Reentrant polygon clipping",
    1974).

    Args:
        a, b: (N, 2) corners x, y in order, either way round; convex.

    Returns:
        0..1; 0 when a polygon has no area.
    """
    polygon_a, polygon_b = _oriented(a), _oriented(b)
    area_a, area_b = _area(polygon_a), _area(polygon_b)
    if area_a <= 0.0 or area_b <= 0.0:
        return 0.0
    clipped = polygon_a
    for index, start in enumerate(polygon_b):
        clipped = _clip(clipped, start, polygon_b[(index + 1) % len(polygon_b)])
        if len(clipped) < 3:
            return 0.0
    shared = _area(clipped)
    return min(1.0, max(0.0, shared / (area_a + area_b - shared)))


def match_boxes(
    reference: npt.ArrayLike, answer: npt.ArrayLike, iou: float = 0.5
) -> list[tuple[int, int, float]]:
    """Pairs boxes one to one: the pair of the largest overlap first, then the largest among the
    boxes still free (greedy), as long as the overlap is at least `iou`. Of equal overlaps the lower
    reference index goes first.

    Args:
        reference, answer: (N, 4) axis-aligned boxes x0, y0, x1, y1, or (N, 4, 2) corners of convex
            quadrilaterals; each may be empty, and the two may differ in kind.
        iou: the least intersection over union of a pair, above 0.

    Returns:
        (index in reference, index in answer, overlap) for each pair, by index in reference.

    Raises:
        ValueError: a shape is neither of these, or `iou` is not in (0, 1].
    """
    if not 0.0 < iou <= 1.0:
        raise ValueError(f"iou must be in (0, 1], is {iou}")
    quads_a, quads_b = _as_quads(reference), _as_quads(answer)
    if not len(quads_a) or not len(quads_b):
        return []
    low_a, high_a = quads_a.min(axis=1), quads_a.max(axis=1)
    low_b, high_b = quads_b.min(axis=1), quads_b.max(axis=1)
    # (A, B, 2)
    extent = np.minimum(high_a[:, None], high_b[None]) - np.maximum(low_a[:, None], low_b[None])
    candidates = np.argwhere((extent > 0).all(axis=2))
    overlaps = []
    for i, j in candidates.tolist():
        overlap = polygon_iou(quads_a[i], quads_b[j])
        if overlap >= iou:
            overlaps.append((-overlap, i, j))
    pairs = []
    used_a: set[int] = set()
    used_b: set[int] = set()
    for negative, i, j in sorted(overlaps):
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            pairs.append((i, j, -negative))
    return sorted(pairs)


def overlaps(
    quad: npt.NDArray[np.float64], places: npt.NDArray[np.float64], share: float = 0.3
) -> bool:
    """Whether the bounds of a quadrilateral (4, 2) and of one of some places (N, 4, 2) share at
    least this share of the smaller of the two."""
    low, high = quad.min(0), quad.max(0)
    lows, highs = places.min(1), places.max(1)
    shared = np.maximum(np.minimum(high, highs) - np.maximum(low, lows), 0).prod(1)
    smaller = np.minimum((high - low).prod(), (highs - lows).prod(1))
    return bool(((shared >= share * smaller) & (shared > 0)).any())


def box_score(matched: int, reference: int, answer: int) -> BoxScore:
    """The score of boxes that are counted already.

    Raises:
        ValueError: a count is negative, or more are matched than there are.
    """
    if matched < 0 or matched > min(reference, answer):
        raise ValueError(f"{matched} matched of {reference} and {answer}")
    return BoxScore(
        precision=matched / answer if answer else 1.0,
        recall=matched / reference if reference else 1.0,
        f1=2.0 * matched / (reference + answer) if reference + answer else 1.0,
        matched=matched,
        reference=reference,
        found=answer,
    )


def corners_to_quads(corners: FloatArray) -> FloatArray:
    """(N, 4) left, top, right, bottom to the four corners of each, (N, 4, 2)."""
    return corners.reshape(-1, 4)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def _as_quads(boxes: npt.ArrayLike) -> FloatArray:
    """Boxes of either kind as float64 corners (N, 4, 2)."""
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4, 2))
    if array.ndim == 3 and array.shape[1:] == (4, 2):
        return array
    if array.ndim == 2 and array.shape[1] == 4:
        return corners_to_quads(array)
    raise ValueError(f"boxes must be (N, 4) or (N, 4, 2), are {array.shape}")


def _oriented(polygon: npt.ArrayLike) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = [
        (float(x), float(y)) for x, y in np.asarray(polygon, dtype=np.float64)
    ]
    return points if _area(points) >= 0.0 else points[::-1]


def _area(points: list[tuple[float, float]]) -> float:
    """Signed area, positive when the corners turn from the x axis towards the y axis."""
    total = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        total += x0 * y1 - x1 * y0
    return 0.5 * total


def _clip(
    points: list[tuple[float, float]], start: tuple[float, float], end: tuple[float, float]
) -> list[tuple[float, float]]:
    """The part of a polygon on the inner side of the line from start to end."""
    (x0, y0), (x1, y1) = start, end
    sides = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in points]
    kept: list[tuple[float, float]] = []
    for index, (point, side) in enumerate(zip(points, sides, strict=True)):
        previous, before = points[index - 1], sides[index - 1]
        if (side >= 0.0) != (before >= 0.0):
            share = before / (before - side)
            kept.append(
                (
                    previous[0] + share * (point[0] - previous[0]),
                    previous[1] + share * (point[1] - previous[1]),
                )
            )
        if side >= 0.0:
            kept.append(point)
    return kept
