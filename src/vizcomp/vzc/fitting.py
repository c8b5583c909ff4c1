"""A context model learned from the codes of training images. `coding` has the model and its
arithmetic."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.vzc.coding import (
    MAX_REACH,
    MAX_REFERENCES,
    MAX_SETS,
    ONES,
    Bits,
    ContextModel,
    Grid,
    cost_bits,
)

_NEAR = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_CROSS = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]
_OWN = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)]
_EDGES = [(0, -1), (0, 1), (-1, 0), (1, 0)]  # of the plane of ones
# earlier iterations whose neighbouring positions are candidates; from older ones only the same
# position is
_RECENT = 4
_SCORED, _POOL = 256, 64  # candidates kept for a slot, and tried for each reference of a set
# bits of a slot by which references are chosen, and candidates scored at first
_SAMPLES, _SCORING = 40_000, 20_000
_MOST_BITS = 400_000_000  # of training data that are kept; images beyond are left out, by the seed
_RIDGE = 20.0
_ROUNDS = 4
# rates tried for the weights, and the tables of the first set
_LEARNING = (0, 11, 12, 13, 14, 15, 16)
_TABLE_LEARNING = (0, 4, 5, 6, 7)
_TRIED = 24  # images at most by which rates are chosen

_Reference = tuple[int, int, int]  # dy, dx, slot; slot -1 is the plane of ones
_Reals = npt.NDArray[np.float64]


class _Cells:
    """Training bits, one flat row of bytes to a slot, with zeros between images, so that any
    reference is one `take`.

    Attributes:
        rows: uint8 (slots + 1, bytes); the first row is the plane of ones.
        at, stride: int64 (bits of a slot,): where each bit lies, and its image's bytes to a row.
    """

    def __init__(self, images: Sequence[Bits]) -> None:
        by_grid: dict[Grid, list[Bits]] = {}
        for image in images:
            by_grid.setdefault((image.shape[1], image.shape[2]), []).append(image)
        parts, at, stride, done = [], [], [], 0
        for (height, width), group in sorted(by_grid.items(), key=lambda item: item[0]):
            pitch, count = width + MAX_REACH, len(group)
            part = np.zeros(
                (group[0].shape[0] + 1, count * (height + MAX_REACH) + 2 * MAX_REACH, pitch),
                np.uint8,
            )
            tops = MAX_REACH + np.arange(count) * (height + MAX_REACH)
            for top, image in zip(tops.tolist(), group, strict=True):
                part[0, top : top + height, :width] = 1
                part[1:, top : top + height, :width] = image
            cells = (tops[:, None, None] + np.arange(height)[:, None]) * pitch + np.arange(width)
            at.append(done + cells.ravel())
            stride.append(np.full(cells.size, pitch))
            parts.append(part.reshape(len(part), -1))
            done += parts[-1].shape[1]
        self.rows = np.concatenate(parts, 1)
        self.at, self.stride = np.concatenate(at), np.concatenate(stride)

    def bits(self, slot: int, which: npt.NDArray[np.int64] | slice = slice(None)) -> Bits:
        return np.asarray(self.rows[slot + 1].take(self.at[which]), np.uint8)

    def referred(self, references: Sequence[_Reference], which: npt.NDArray[np.int64]) -> Bits:
        """uint8 (references, samples)."""
        at, stride = self.at[which], self.stride[which]
        result = np.empty((len(references), len(at)), np.uint8)
        for row, (dy, dx, slot) in zip(result, references, strict=True):
            # clip: without it `out` is copied
            self.rows[slot + 1].take(at + (dy * stride + dx), out=row, mode="clip")
        return result

    def contexts(self, references: Sequence[_Reference]) -> npt.NDArray[np.int64]:
        """Index into a set's table, for every bit of a slot."""
        result = np.zeros(len(self.at), np.int64)
        for j, (dy, dx, slot) in enumerate(references):
            result |= (
                self.rows[slot + 1].take(self.at + (dy * self.stride + dx)).astype(np.int64) << j
            )
        return result


def _candidates(
    channels: Sequence[int], iteration: int, slot: int, *, alone: bool = False
) -> list[_Reference]:
    """References that a slot may have; `alone`: grids have one position, which has no
    neighbours."""
    starts = [0, *np.cumsum(channels).tolist()]
    if alone:
        return [(0, 0, earlier) for earlier in range(slot)]
    result = [(dy, dx, -1) for dy, dx in _EDGES] + [(dy, dx, slot) for dy, dx in _OWN]
    result += [(dy, dx, earlier) for earlier in range(starts[iteration], slot) for dy, dx in _NEAR]
    recent = starts[max(0, iteration - _RECENT)]
    result += [
        (dy, dx, earlier) for earlier in range(recent, starts[iteration]) for dy, dx in _CROSS
    ]
    return result + [(0, 0, earlier) for earlier in range(recent)]


def _logistic(x: _Reals) -> _Reals:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))


def _strongest(bits: Bits, residual: _Reals, count: int) -> npt.NDArray[np.int64]:
    """The `count` rows of bits that correlate most with the residual, best first."""
    sums, share = np.empty(len(bits)), bits.mean(1)
    for start in range(0, len(bits), 64):  # as floats the whole would be large
        sums[start : start + 64] = bits[start : start + 64].astype(np.float32) @ (
            residual - residual.mean()
        ).astype(np.float32)
    order = np.argsort(-np.abs(sums) / np.sqrt(share * (1 - share) + 1e-3), kind="stable")
    return order[:count]


def _grow(bits: Bits, residual: _Reals, variance: _Reals, price: float) -> list[int]:
    """Choose a set's references, one by one: the rows of bits whose table, as a Newton step, lowers
    the code length most.

    A table of cells with residual sum G and variance sum V lowers it by G^2 / V / 2 nats. Each cell
    must earn its price.
    """
    pool = _strongest(bits, residual, _POOL).tolist()
    ones = {row: np.flatnonzero(bits[row]) for row in pool}
    weighed = {row: (residual[at], variance[at]) for row, at in ones.items()}
    chosen: list[int] = []
    contexts, reached = np.zeros(bits.shape[1], np.int64), 0.0
    while pool and len(chosen) < MAX_REFERENCES:
        cells = 1 << len(chosen)
        all_g, all_v = (
            np.bincount(contexts, residual, cells),
            np.bincount(contexts, variance, cells),
        )
        gains = []
        for row in pool:
            where = contexts[ones[row]]
            g, v = (
                np.bincount(where, weighed[row][0], cells),
                np.bincount(where, weighed[row][1], cells),
            )
            gains.append(float((g * g / (v + 1) + (all_g - g) ** 2 / (all_v - v + 1)).sum()))
        best = int(np.argmax(gains))
        if gains[best] - reached < price * cells:
            break
        reached = gains[best]
        row = pool.pop(best)
        contexts[ones[row]] += cells
        chosen.append(row)
    return chosen


@dataclasses.dataclass
class _Slot:
    """One slot's part of a model, in real numbers: the logit of a one is the sum of one leaf of
    each set."""

    references: list[list[_Reference]]
    leaves: list[_Reals]


def _fit_slot(
    cells: _Cells, candidates: list[_Reference], slot: int, sets: int, rng: np.random.Generator
) -> _Slot:
    """Boosting of tables: each set is chosen by what those before it leave unexplained, then all
    leaves are fitted together."""
    bits = cells.bits(slot)
    n = len(bits)
    logits = np.full(n, _base(bits))
    sample = np.sort(rng.permutation(n)[:_SAMPLES])
    price = 2 * (1 + len(sample) / n)  # AIC's, and more where the choice is made on all there is
    if len(candidates) > _SCORED:
        few = (
            sample[: len(sample) // 2]
            if len(sample) < _SCORING
            else np.sort(rng.permutation(sample)[:_SCORING])
        )
        best = _strongest(
            cells.referred(candidates, few), bits[few] - _logistic(logits[few]), _SCORED
        )
        candidates = [candidates[i] for i in best]
    seen = cells.referred(candidates, sample)
    part, contexts = _Slot([], []), []
    for _ in range(sets):
        p = _logistic(logits[sample])
        chosen = _grow(seen, bits[sample] - p, p * (1 - p), price)
        if not chosen and part.references:
            break
        part.references.append([candidates[i] for i in chosen])
        part.leaves.append(np.zeros(1 << len(chosen)))
        contexts.append(cells.contexts(part.references[-1]))
        for _ in range(2):
            _step(bits, logits, contexts[-1], part.leaves[-1])
    _settle(bits, logits, contexts, part.leaves)
    return part


def _refit_slot(cells: _Cells, slot: int, part: _Slot) -> _Slot:
    """The same references, leaves fitted to these cells."""
    bits = cells.bits(slot)
    contexts = [cells.contexts(references) for references in part.references]
    again = _Slot(part.references, [leaves.copy() for leaves in part.leaves])
    logits = np.sum([leaves[c] for leaves, c in zip(again.leaves, contexts, strict=True)], 0)
    again.leaves[0] -= _base(bits)  # the penalty draws leaves to zero, not the base
    _settle(bits, logits, contexts, again.leaves)
    return again


def _base(bits: Bits) -> float:
    """Logit of a slot's share of ones, drawn to zero: bits of few images are alike and prove less
    than their count."""
    ones = int(bits.sum(dtype=np.int64))
    return float(np.log((ones + 2) / (len(bits) - ones + 2)))


def _settle(
    bits: Bits, logits: _Reals, contexts: list[npt.NDArray[np.int64]], leaves: list[_Reals]
) -> None:
    """Fit all sets' leaves in turn, and let the first set's hold the base."""
    for _ in range(_ROUNDS):
        for one, context in zip(leaves, contexts, strict=True):
            _step(bits, logits, context, one)
    leaves[0] += _base(bits)


def _step(bits: Bits, logits: _Reals, contexts: npt.NDArray[np.int64], leaves: _Reals) -> None:
    """A Newton step of one set's leaves, in place, the others held: L2 penalty, and no leap."""
    p = _logistic(logits)
    gradient = np.bincount(contexts, bits - p, len(leaves)) - _RIDGE * leaves
    step = np.clip(gradient / (np.bincount(contexts, p * (1 - p), len(leaves)) + _RIDGE), -2, 2)
    leaves += step
    logits += step[contexts]


def _assembled(channels: Sequence[int], parts: Sequence[_Slot], sets: int) -> ContextModel:
    starts = [0, *np.cumsum(channels).tolist()]
    iteration_of = np.repeat(np.arange(len(channels)), channels).tolist()
    lengths, references, leaves = np.zeros((len(parts), sets), np.uint8), [], []
    for slot, part in enumerate(parts):
        for s in range(sets):
            chosen = part.references[s] if s < len(part.references) else []
            leaves.append(part.leaves[s] if s < len(part.leaves) else np.zeros(1))
            lengths[slot, s] = len(chosen)
            for dy, dx, other in chosen:
                iteration = iteration_of[other] if other >= 0 else ONES
                references.append(
                    (dy, dx, iteration, other - starts[iteration] if other >= 0 else 0)
                )
    tables = np.clip(np.rint(65536 * _logistic(np.concatenate(leaves))), 1, 65535).astype(np.uint16)
    weights = np.zeros((len(parts), sets + 1), np.int32)
    for slot, part in enumerate(parts):
        weights[slot, : len(part.references)] = 65536
    return ContextModel(
        channels=tuple(channels),
        lengths=lengths,
        references=np.array(references, np.int16).reshape(-1, 4),
        tables=tables,
        weights=weights,
        rates=np.zeros(sets + 1, np.uint8),
    )


def _best_rates(model: ContextModel, images: list[Bits]) -> Bits:
    """Rates of the weights and of the first set's tables that code these images in fewest bits.

    The other sets' tables are corrections, no probabilities of the bit, and must not learn it.
    """

    def cost(pair: tuple[int, int]) -> float:
        tried = dataclasses.replace(model, rates=_rates(model.sets, *pair))
        return sum(
            cost_bits(tried, [image[a:b] for a, b in itertools.pairwise(model.starts)], [])
            for image in images
        )

    return _rates(model.sets, *min(itertools.product(_TABLE_LEARNING, _LEARNING), key=cost))


def _rates(sets: int, first: int, weights: int) -> Bits:
    return np.array([first, *[0] * (sets - 1), weights], np.uint8)


def _fit(images: list[Bits], channels: Sequence[int], sets: int, seed: int) -> list[_Slot]:
    cells = _Cells(images)
    rng = np.random.default_rng(seed)
    iterations = np.repeat(np.arange(len(channels)), channels).tolist()
    alone = all(image.shape[1:] == (1, 1) for image in images)
    return [
        _fit_slot(cells, _candidates(channels, t, slot, alone=alone), slot, sets, rng)
        for slot, t in enumerate(iterations)
    ]


def fit(
    codes: Sequence[Sequence[npt.NDArray[Any]]], *, adaptive: bool, sets: int = 8, seed: int = 0
) -> ContextModel:
    """Fit a model to training codes.

    Each set's references and table are one round of boosting: references are chosen one by one by
    the gain in code length of the Newton step that their table allows (Friedman, "Greedy function
    approximation: a gradient boosting machine", 2001), given what the earlier sets explain. So the
    sets differ by themselves, their logits add up, and weights start at 1.

    Args:
        codes: codes[i][t] is the uint8 array (C_t, H, W) of image i, iteration t. Grids may differ
            between images.
        adaptive: try rates of learning while coding, on an eighth of the images that is held back
            for this, and take the best; pays for large grids only.
        sets: S, 1..16; more code better and slower.
        seed: of the random samples of bits by which references are chosen.

    Raises:
        ValueError: the codes do not fit together.
    """
    if not codes or not 1 <= sets <= MAX_SETS:
        raise ValueError(f"fit: codes of at least one image are needed, and 1 to {MAX_SETS} sets")
    channels = [len(plane) for plane in codes[0]]
    images = []
    for i, one in enumerate(codes):
        shapes = [plane.shape for plane in one]
        if [shape[:1] for shape in shapes] != [(c,) for c in channels] or len(
            {shape[1:] for shape in shapes}
        ) != 1:
            raise ValueError(f"fit: image {i} has planes of {shapes}")
        images.append(np.concatenate(one).astype(np.uint8))
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    fits = np.cumsum([images[i].size for i in order]) <= _MOST_BITS
    images = [images[i] for i in order[: max(1, int(fits.sum()))]]
    if not adaptive or len(images) < 8:
        return _assembled(channels, _fit(images, channels, sets, seed), sets)
    held, rest = images[: len(images) // 8], images[len(images) // 8 :]
    parts = _fit(rest, channels, sets, seed)
    rates = _best_rates(_assembled(channels, parts, sets), held[:_TRIED])
    cells = _Cells(images)
    parts = [_refit_slot(cells, slot, part) for slot, part in enumerate(parts)]
    return dataclasses.replace(_assembled(channels, parts, sets), rates=rates)
