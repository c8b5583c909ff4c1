"""Answers on a photo with fewer pixels, in the scale of the photo itself."""

from __future__ import annotations

import dataclasses

import numpy as np

from vizcomp.vision.answers import Answer, Boxes, Keypoints, Masks, Text


def rescaled(answer: Answer, size: tuple[int, int], wanted: tuple[int, int]) -> Answer:
    """An answer on a picture of one height and width, as if it were on the same picture with
    another.

    Corners and points are multiplied; a mask's pixels are taken from the nearest ones; other
    answers have no places.
    """
    if size == wanted:
        return answer
    factors = np.array([wanted[1] / size[1], wanted[0] / size[0]])
    whole = (wanted[1], wanted[0])
    if isinstance(answer, Boxes):
        below = None if answer.below is None else rescaled(answer.below, size, wanted)
        assert below is None or isinstance(below, Boxes)
        return dataclasses.replace(answer, quads=answer.quads * factors, size=whole, below=below)
    if isinstance(answer, Text):
        return dataclasses.replace(answer, quads=answer.quads * factors, size=whole)
    if isinstance(answer, Keypoints):
        corners = answer.corners * np.tile(factors, 2)
        return dataclasses.replace(
            answer, points=answer.points * factors, corners=corners, size=whole
        )
    if isinstance(answer, Masks):
        rows, columns = (
            ((np.arange(count) + 0.5) * have / count).astype(int).clip(0, have - 1)
            for count, have in zip(wanted, answer.labels.shape, strict=True)
        )
        return dataclasses.replace(
            answer, labels=np.ascontiguousarray(answer.labels[rows[:, None], columns])
        )
    return answer
