"""Answers of vision systems (classes, boxes, masks, keypoints, text, embeddings) and their
comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vizcomp.errors import SettingsError
from vizcomp.vision import instances, lettering, poses
from vizcomp.vision.boxes import corners_to_quads, match_boxes

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
Quads = npt.NDArray[np.float64]  # (N, 4, 2), corners x, y in pixels

Kind = Literal["classes", "boxes", "masks", "keypoints", "text", "embedding"]
COUNTED: tuple[Kind, ...] = ("boxes", "keypoints", "text")
"""Kinds whose answers have parts that are counted: boxes, figures, words."""

NOWHERE: Quads = np.empty((0, 4, 2))

SAME_PLACE = 0.3  # IoU from which two boxes are one place
# mean IoU from which two label maps are the same: edges move a little with any coding
SAME_MASKS = 0.9
SAME_POSES = 0.9  # mean similarity of keypoints from which two poses are the same
SAME_EMBEDDING = 0.95  # cosine from which two embeddings are the same


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """What a classifier answers.

    Attributes:
        probabilities: float32 (C,), sum 1.
        names: of the classes, or () where the model does not say.
    """

    probabilities: Array
    names: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    def words(self) -> str:
        """For people: "cat 93%"."""
        name = self.names[self.best] if self.names else f"class {self.best}"
        return f"{name} {100 * float(self.probabilities[self.best]):.0f}%"


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """What a detector answers.

    Attributes:
        quads: float64 (N, 4, 2), corners x, y in pixels.
        labels: of each box, or () where there is one kind only.
        size: width and height of the image.
        scores: float32 (N,), or None where the system gives none.
        least: the score from which a box is an answer; None where the system does not say.
        below: boxes of nearly that score, which are no answer; None where the system gives none.
            Verdicts with margins use them.
        masks: bool (N, h, w), each box's own over the whole image at any resolution; None where the
            system gives none.
    """

    quads: npt.NDArray[np.float64]
    labels: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    scores: Array | None = None
    least: float | None = None
    below: Boxes | None = None
    masks: npt.NDArray[np.bool_] | None = None

    def words(self) -> str:
        """For people: "3 boxes" or "2 person, 1 dog"."""
        if not self.labels:
            return f"{len(self.quads)} box{'' if len(self.quads) == 1 else 'es'}"
        counts = {label: self.labels.count(label) for label in dict.fromkeys(self.labels)}
        return ", ".join(f"{count} {label}" for label, count in counts.items())


@dataclasses.dataclass(frozen=True, eq=False)
class Masks:
    """What a segmenter answers.

    Attributes:
        labels: int32 (H, W), the class of each pixel of the image; 0 is background.
        names: of the classes, or ().
    """

    labels: npt.NDArray[np.int32]
    names: tuple[str, ...] = ()

    def words(self) -> str:
        """For people: "person 31%, dog 5%", shares of the picture."""
        numbers, counts = np.unique(self.labels[self.labels != 0], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        shares = [
            f"{self.name_of(int(numbers[i]))} {100 * counts[i] / self.labels.size:.0f}%"
            for i in order
        ]
        return ", ".join(shares) or "background alone"

    def name_of(self, label: int) -> str:
        """The name of a class, or its number."""
        return self.names[label] if 0 <= label < len(self.names) else f"class {label}"


@dataclasses.dataclass(frozen=True, eq=False)
class Keypoints:
    """What a network for poses answers: figures, each with the same K points.

    Attributes:
        points: float64 (N, K, 2), x, y in pixels.
        scores: float32 (N, K), how sure each point is.
        corners: float64 (N, 4), left, top, right, bottom of each figure: the network's own box, or
            the bounds of the seen points.
        size: width and height of the image.
        least: a point from this score on is seen. Every figure has one at least.
    """

    points: npt.NDArray[np.float64]
    scores: Array
    corners: npt.NDArray[np.float64]
    size: tuple[int, int] = (0, 0)
    least: float = 0.3

    @property
    def quads(self) -> Quads:
        """The figures' boxes, (N, 4, 2)."""
        return corners_to_quads(self.corners)

    def words(self) -> str:
        """For people: "2 figures, 29 of 34 points seen"."""
        count = len(self.points)
        seen = (
            f", {int((self.scores >= self.least).sum())} of {self.scores.size} points seen"
            if count
            else ""
        )
        return f"{count} figure{'' if count == 1 else 's'}{seen}"


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """What a reader of text answers.

    Attributes:
        lines: what stands in each place.
        quads: float64 (N, 4, 2), the place of each line, corners x, y in pixels.
        size: width and height of the image.
        scores: float32 (N,), or None where the system gives none.
    """

    lines: tuple[str, ...]
    quads: npt.NDArray[np.float64]
    size: tuple[int, int] = (0, 0)
    scores: Array | None = None

    def words(self) -> str:
        """For people: the lines, or the first of many."""
        said = " / ".join(self.lines)
        return f'"{said if len(said) <= 60 else said[:59] + "…"}"' if said else "no text"


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """What an embedding network answers.

    Attributes:
        vector: float32 (C,).
    """

    vector: Array

    def words(self) -> str:
        """For people: "512 numbers, length 11.3"."""
        return f"{len(self.vector)} numbers, length {float(np.linalg.norm(self.vector)):.3g}"


Answer = Classes | Boxes | Masks | Keypoints | Text | Embedding


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How an answer stands to the answer on the source.

    Attributes:
        score: 0..1. Classes: share of probability that both answers put on the same classes. Boxes:
            F1 at IoU 0.5, with masks no more than their IoU. Masks: mean IoU of the classes that
            either has. Keypoints: mean similarity of the figures' points. Text: 1 - character error
            rate. Embeddings: cosine, 0 where it is negative.
        same: the verdict.
        matched, reference, found: boxes, figures or words; 0 for other answers.
        unlike: float64 (N, 4, 2), the places of either answer that have no partner in the other;
            None where nobody asked for them, or where an answer has no places.
    """

    score: float
    same: bool
    matched: int = 0
    reference: int = 0
    found: int = 0
    unlike: Quads | None = dataclasses.field(default=None, compare=False, repr=False)


def is_empty(answer: Answer) -> bool:
    """Whether there is no box, figure or text, or background alone; a classifier always says
    something."""
    if isinstance(answer, Masks):
        return not answer.labels.any()
    if isinstance(answer, Text):
        return not any(line.split() for line in answer.lines)
    return isinstance(answer, Boxes | Keypoints) and not len(answer.quads)


def compare(
    reference: Answer, answer: Answer, *, tolerance: float = 0.0, where: bool = False
) -> Comparison:
    """Whether `answer`, the answer on a result, is the same as `reference`, the answer on its
    source.

    Classes are the same if the source's best class is still the best, or is at most `tolerance`
    (relative) less probable than the best. Boxes are the same if their F1 with the source's,
    matched one to one at IoU 0.5 with equal labels, is at least 1 - `tolerance`; none against none
    is the same. Masks, keypoints and embeddings are the same from a score of `SAME_MASKS`,
    `SAME_POSES` and `SAME_EMBEDDING`, times 1 - `tolerance`. Text is the same if its words are, in
    any order; with a tolerance, if the character error rate is no larger.

    Args:
        where: say too which places have no partner.

    Raises:
        SettingsError: answers of different kinds, or of different classes.
    """
    if isinstance(reference, Classes) and isinstance(answer, Classes):
        p, q = reference.probabilities, answer.probabilities
        if p.shape != q.shape:
            raise SettingsError("answers over different classes cannot be compared")
        same = float(q[reference.best]) >= (1 - tolerance) * float(q.max())
        return Comparison(float(np.minimum(p, q).sum().clip(0, 1)), bool(same))
    if isinstance(reference, Boxes) and isinstance(answer, Boxes):
        pairs = matching(reference, answer)
        mine, theirs = [i for i, _ in pairs], [j for _, j in pairs]
        count = len(reference.quads) + len(answer.quads)
        score = 2 * len(mine) / count if count else 1.0
        without = (
            np.concatenate(
                [np.delete(reference.quads, mine, 0), np.delete(answer.quads, theirs, 0)]
            )
            if where
            else None
        )
        alike = masks_alike(reference, answer, pairs)
        same = score >= 1 - tolerance - 1e-12 and alike >= SAME_MASKS * (1 - tolerance) - 1e-12
        score = min(score, alike)
        return Comparison(score, same, len(mine), len(reference.quads), len(answer.quads), without)
    if isinstance(reference, Masks) and isinstance(answer, Masks):
        score = _mean_iou(reference.labels, answer.labels)
        return Comparison(score, score >= SAME_MASKS * (1 - tolerance) - 1e-12)
    if isinstance(reference, Keypoints) and isinstance(answer, Keypoints):
        return _poses(reference, answer, tolerance, where)
    if isinstance(reference, Text) and isinstance(answer, Text):
        return _texts(reference, answer, tolerance, where)
    if isinstance(reference, Embedding) and isinstance(answer, Embedding):
        score = _cosine(reference.vector, answer.vector)
        return Comparison(score, score >= SAME_EMBEDDING * (1 - tolerance) - 1e-12)
    raise SettingsError(
        "answers of different kinds, as a classifier's and a detector's, cannot be compared"
    )


def _poses(reference: Keypoints, answer: Keypoints, tolerance: float, where: bool) -> Comparison:
    if (
        len(reference.points)
        and len(answer.points)
        and reference.points.shape[1] != answer.points.shape[1]
    ):
        raise SettingsError("poses of different numbers of points cannot be compared")
    pairs = poses.matched(
        (reference.points, reference.scores, reference.corners),
        (answer.points, answer.scores, answer.corners),
        reference.least,
    )
    count = len(reference.points) + len(answer.points)
    score = 2 * sum(alike for _, _, alike in pairs) / count if count else 1.0
    without = None
    if where:
        good = [(i, j) for i, j, alike in pairs if alike >= SAME_POSES]
        mine, theirs = (
            np.delete(a.quads, [p[k] for p in good], 0) for k, a in enumerate((reference, answer))
        )
        without = np.concatenate([mine, theirs])
    same = score >= SAME_POSES * (1 - tolerance) - 1e-12
    return Comparison(score, same, len(pairs), len(reference.points), len(answer.points), without)


def _texts(reference: Text, answer: Text, tolerance: float, where: bool) -> Comparison:
    read = lettering.compared(reference.lines, answer.lines)
    without = None
    if where:
        without = np.concatenate(
            [reference.quads[list(read.odd_reference)], answer.quads[list(read.odd_found)]]
        )
    same = read.error_rate <= tolerance + 1e-12
    return Comparison(
        max(0.0, 1 - read.error_rate), same, read.matched, read.reference, read.found, without
    )


def _mean_iou(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> float:
    if a.shape != b.shape:
        raise SettingsError("masks of different sizes cannot be compared")
    shares = [np.sum((a == k) & (b == k)) / np.sum((a == k) | (b == k)) for k in np.union1d(a, b)]
    return float(np.mean(shares)) if shares else 1.0


def _cosine(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        raise SettingsError("embeddings of different lengths cannot be compared")
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if lengths == 0:
        return float(not a.any() and not b.any())
    return float(np.clip(np.dot(a.astype(np.float64), b.astype(np.float64)) / lengths, 0, 1))


def matching(reference: Boxes, answer: Boxes) -> list[tuple[int, int]]:
    """The boxes of two answers that are partners: of equal labels, one to one at IoU 0.5, and so
    their masks where both have some; by index in each."""
    pairs = []
    for label in dict.fromkeys(reference.labels) if reference.labels else [None]:
        mine = [
            i for i in range(len(reference.quads)) if label is None or reference.labels[i] == label
        ]
        theirs = [i for i in range(len(answer.quads)) if label is None or answer.labels[i] == label]
        pairs += [
            (mine[i], theirs[j])
            for i, j, _ in match_boxes(reference.quads[mine], answer.quads[theirs])
        ]
    if reference.masks is not None and answer.masks is not None:
        _check_shapes(reference.masks, answer.masks)
        pairs = instances.partners(reference.masks, answer.masks, pairs)
    return pairs


def masks_alike(reference: Boxes, answer: Boxes, pairs: Sequence[tuple[int, int]]) -> float:
    """`instances.mean_iou` of partners; 1 where there are no masks."""
    if reference.masks is None or answer.masks is None:
        return 1.0
    return instances.mean_iou(reference.masks, answer.masks, pairs)


def _check_shapes(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
    if one.shape[1:] != other.shape[1:]:
        raise SettingsError("masks of different sizes cannot be compared")


def together(places: Quads, others: Quads | None) -> Quads:
    """Some places, and those of the others that overlap none of them."""
    for quad in NOWHERE if others is None else others:
        if not match_boxes(places, quad[None], SAME_PLACE):
            places = np.concatenate([places, quad[None]])
    return places
