"""An answer as a short text: equal texts are the same answer, on whatever photo it was given."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.vision.answers import (
    Answer,
    Boxes,
    Classes,
    Embedding,
    Keypoints,
    Masks,
    Text,
    is_empty,
)
from vizcomp.vision.one_answer import NOTHING

SHOWN = 4  # parts of an answer that are written out
TEXT_SHOWN = 60  # characters of a text that are


def gist(answer: Answer) -> str:
    """What an answer says, for people and to compare: a class by its name alone; boxes and figures
    with their scores, which two photos do not share by chance; text as it was read."""
    if is_empty(answer):
        return NOTHING
    if isinstance(answer, Classes):
        return _clipped(answer.names[answer.best] if answer.names else f"class {answer.best}")
    if isinstance(answer, Masks):
        return _shares(answer)
    if isinstance(answer, Embedding):
        return f"{len(answer.vector)} numbers, {_mark(np.round(_unit(answer.vector), 4))}"
    if isinstance(answer, Keypoints):
        means = answer.scores.mean(1) if answer.scores.size else np.zeros(0)
        return _listed(["figure"] * len(answer.quads), means, answer.quads, answer.size)
    if isinstance(answer, Boxes):
        labels = [_clipped(label) for label in answer.labels] or ["box"] * len(answer.quads)
        return _listed(labels, answer.scores, answer.quads, answer.size)
    read = " / ".join(" ".join(line.split()) for line in answer.lines)
    return f'"{_clipped(read)}"'


def numbers(answer: Answer) -> str:
    """A fingerprint of all numbers of an answer: a system that gives the same for different photos
    does not look at them. "" where they are no proof: nothing was found, one class has all the
    probability or all the photo, or text comes without scores."""
    if is_empty(answer):
        return ""
    if isinstance(answer, Classes):
        return "" if np.count_nonzero(answer.probabilities) < 2 else _mark(answer.probabilities)
    if isinstance(answer, Masks):
        return "" if len(np.unique(answer.labels)) < 2 else _mark(answer.labels)
    if isinstance(answer, Embedding):
        return _mark(answer.vector)
    if isinstance(answer, Text) and answer.scores is None:
        return ""
    parts = [gist(answer), _mark(_shares_of(answer.quads, answer.size))]
    if answer.scores is not None:
        parts.append(_mark(answer.scores))
    return " ".join(parts)


def _listed(
    labels: list[str],
    scores: npt.NDArray[np.floating[Any]] | None,
    quads: npt.NDArray[np.float64],
    size: tuple[int, int],
) -> str:
    """The first parts, each with its score; with their places, as shares of the photo, where scores
    tell nothing."""
    if scores is not None and ((scores > 0) & (scores < 1)).any():
        each = [f"{label} {score:.5f}" for label, score in zip(labels, scores, strict=True)]
    else:
        shares = _shares_of(quads, size)
        ends = np.round(100 * np.concatenate([shares.min(1), shares.max(1)], 1)).astype(int)
        each = [
            f"{label} at {left},{top} to {right},{bottom}%"
            for label, (left, top, right, bottom) in zip(labels, ends.tolist(), strict=True)
        ]
    rest = each[SHOWN:]
    more = f", {len(rest)} more, {zlib.crc32(repr(rest).encode()):08x}" if rest else ""
    return ", ".join(each[:SHOWN]) + more


def _clipped(text: str) -> str:
    """A text that may be of any length, still to compare."""
    if len(text) <= TEXT_SHOWN:
        return text
    mark = zlib.crc32(text.encode("utf-8", "replace"))
    return f"{text[: TEXT_SHOWN - 1]}… ({len(text)} characters, {mark:08x})"


def _shares_of(quads: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Corners (N, 4, 2) as shares of the photo."""
    shares: npt.NDArray[np.float64] = quads.reshape(len(quads), -1, 2) / np.maximum(1, size)
    return shares


def _shares(answer: Masks) -> str:
    labels, counts = np.unique(answer.labels, return_counts=True)
    order = [i for i in np.argsort(-counts, kind="stable") if labels[i]]
    return ", ".join(
        f"{_clipped(answer.name_of(int(labels[i])))} {100 * counts[i] / answer.labels.size:.1f}%"
        for i in order[: 2 * SHOWN]
    )


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = vector.astype(np.float64)
    return wide / max(float(np.linalg.norm(wide)), 1e-30)


def _mark(values: npt.NDArray[Any]) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(values + 0).tobytes()):08x}"
