"""Keypoints of figures: how alike two poses are, and which figure of one answer is which of
another.

Similarity is COCO's object keypoint similarity (cocodataset.org, "Keypoint evaluation"): exp(-d^2 /
(2 a k^2)) for each point, with its distance d, the area a of the figure, and a k for each kind of
point. Where we differ: the reference is an answer and no label, so points that either answer is
unsure of are left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
# points (N, K, 2), scores (N, K), corners (N, 4)
Figures = tuple[Values, npt.NDArray[np.float32], Values]

# COCO's 17 points from the nose to the ankles: standard deviations of people who label them, as
# shares of a figure's size.
_HEAD = (0.026, 0.025, 0.025, 0.035, 0.035)
COCO_SIGMAS = (
    *_HEAD,
    0.079,
    0.079,
    0.072,
    0.072,
    0.062,
    0.062,
    0.107,
    0.107,
    0.087,
    0.087,
    0.089,
    0.089,
)
OTHER_SIGMA = 0.05  # of points of other figures
# a point below this share of the least score is not seen; between the two it is in doubt
DOUBT = 0.5
SAME_FIGURE = 0.5  # similarity from which two figures can be one


def similarity(
    one: Values, sure: Values, other: Values, other_sure: Values, area: float, least: float
) -> float:
    """How alike two figures of K points are, 0..1.

    Args:
        one, other: (K, 2) x, y; `sure` and `other_sure` are the points' scores, (K,).
        area: of the first figure, in square pixels.
        least: a point from this score on is seen.

    Returns:
        The mean over the points that either sees. A point that one sees and the other certainly
        does not counts 0; one that the other is in doubt about counts by its place where the first
        sees it, and not at all where the second does.
    """
    count = len(one)
    sigmas = np.array(COCO_SIGMAS if count == len(COCO_SIGMAS) else [OTHER_SIGMA] * count)
    seen, there = sure >= least, other_sure >= DOUBT * least
    new = (other_sure >= least) & (sure < DOUBT * least)
    if not (seen | new).any():
        return 1.0
    squares = np.square(one - other).sum(1)
    near = np.exp(-squares / (2 * max(area, 1.0) * np.square(2 * sigmas)))
    return float(np.where(seen & there, near, 0.0)[seen | new].mean())


def matched(reference: Figures, answer: Figures, least: float) -> list[tuple[int, int, float]]:
    """Pairs figures one to one, the most alike first: (index in reference, index in found,
    similarity)."""
    points, scores, corners = reference
    others, other_scores, _ = answer
    every = []
    for i in range(len(points)):
        area = float(np.prod(np.maximum(corners[i, 2:] - corners[i, :2], 0)))
        for j in range(len(others)):
            alike = similarity(
                points[i],
                scores[i].astype(np.float64),
                others[j],
                other_scores[j].astype(np.float64),
                area,
                least,
            )
            if alike >= SAME_FIGURE:
                every.append((-alike, i, j))
    pairs: list[tuple[int, int, float]] = []
    for negative, i, j in sorted(every):
        if all(i != a and j != b for a, b, _ in pairs):
            pairs.append((i, j, -negative))
    return sorted(pairs)


def bounds(points: Values, scores: npt.NDArray[np.float32], least: float) -> Values:
    """The bounds of the seen points of each figure, (N, K, 2) to (N, 4); every figure has a seen
    point."""
    seen = (scores >= least)[..., None]
    low = np.where(seen, points, np.inf).min(1)
    high = np.where(seen, points, -np.inf).max(1)
    return np.concatenate([low, high], 1)
