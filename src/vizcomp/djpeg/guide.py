"""From what is known of a photo to an importance for each 8x8 block.

    depth map ── block grid ── edge-aware ── median ── rank ── kept where doubtful ─────────────┐
    DCT coefficients ── local detail ───────────────────────────────────────────────────────────┼──
    combine ── importance how much each block looks like lettering, and its detail
    ───────────────────────────────────┤ mask, and later the vision system itself
    ───────────────────────────────────────────────────┘

An *importance map* is a float32 array (R, C), one value for each 8x8 luma block, in 0..1: 1 = keep
all that the quality promises, 0 = as cheap as the strength allows. `djpeg` turns it into rounding
and rate decisions; this file knows nothing of quantisation. A further guide joins by giving an
importance map to `combine`.

Depth maps here are float arrays (h, w), any size, large = near, of which only the order of the
values counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

BLOCK = 8
NEUTRAL = 0.5

GUIDES = ("depth", "detail", "mask", "text", "centre", "machine", "uniform")
TEXT_DETAIL = 2.0  # weight of local detail beside the network's logit
TEXT_LEAST, TEXT_SURE = -0.8, 1.9
BESIDE_CENTRE = 8  # pixels beside the middle square that a filter may still reach
NEAR = 2 / 3  # rank from which a block is near, and pays nothing for its depth: the nearest third
BESIDE_TEXT = 0.9  # the nearest block without lettering, on the scale where lettering is 1
# spreads what the other guides say there: the nearest third and the farthest are at the ends
CONTRAST_BESIDE_TEXT = 3.0
LETTERING_LOGIT = 4.0
LEAST_LETTERING, MUCH_LETTERING = 0.001, 0.005  # shares of a photo's places
LEARNED = ".onnx"  # ends the name of a guide that `vizcomp train --kind guide` made: its path
MACHINE = "machine"
"""Another name of the bundled guide that is best for vision systems in general, as measured:
`text`. Where a detector itself looks helped no other system (docs/decisions/0021)."""
SYSTEM = "system:"  # before the name of a vision system: bits go where it looked on the source


def parse(spec: str) -> tuple[str, ...]:
    """Split "depth+detail" into its guides; `MACHINE` is the one that it stands for.

    Raises:
        ValueError: a name is unknown, given twice, or "uniform" is combined with another.
    """
    parts = (part.strip() for part in spec.split("+"))
    names = tuple("text" if part == MACHINE else part for part in parts)
    for name in names:
        if (
            name not in GUIDES
            and not (name.startswith(SYSTEM) and len(name) > len(SYSTEM))
            and not is_learned(name)
        ):
            raise ValueError(f"unknown guide {name!r}")
    if len(set(names)) != len(names):
        raise ValueError("a guide is named twice")
    if "uniform" in names and len(names) > 1:
        raise ValueError("uniform means no guide: it cannot be combined")
    return names


def is_learned(name: str) -> bool:
    """Whether a guide is a file of `vizcomp train --kind guide`."""
    return (
        not name.startswith(SYSTEM) and name.lower().endswith(LEARNED) and len(name) > len(LEARNED)
    )


def is_system_or_learned(name: str) -> bool:
    """Whether a guide says where a vision system looks, or would."""
    return name.startswith(SYSTEM) or is_learned(name)


def grid_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of 8x8 blocks that cover an image."""
    return -(-height // BLOCK), -(-width // BLOCK)


def depth_importance(
    depth: npt.NDArray[np.floating],
    confidence: npt.NDArray[np.floating] | None,
    luma: npt.NDArray[np.floating],
    *,
    size: tuple[int, int],
    beside_text: bool = False,
    strength: float = 0.0,
) -> Array:
    """Importance from a depth map: by the rank of each block's nearness in its photo, weaker where
    depth is doubtful.

    The nearest third has 1, the farthest block 0, in a straight line between. What a doubtful place
    pays is multiplied by its confidence to the power 1 + `strength`: a price too high for a near
    place costs more than one too low for a far one gains, the more so the higher it is.

    Args:
        depth: (h, w), large = near; covers the whole photo, at any resolution.
        confidence: (h, w) in 0..1, or None where the depth is measured and not guessed.
        luma: (R, C) mean luma of each block (any linear scale): the edges that an upsampled map
            must follow.
        size: height and width of the photo in pixels (the last row and column of blocks may be
            partly outside).
        beside_text: the text guide says what must stay, and the rest pays: the rank itself is the
            importance then, and `NEUTRAL` where confidence is 0. Without it that is 1: nothing is
            known to be far, so nothing pays for it.
        strength: 0..1, of the guide.

    Returns:
        (R, C) in 0..1. A flat depth map gives one value everywhere: no order, no guidance.
    """
    rows, cols = luma.shape
    grid = to_block_grid(depth, size)
    if depth.shape[0] < rows or depth.shape[1] < cols:
        radius = max(1, round(max(rows / depth.shape[0], cols / depth.shape[1])))
        grid = guided_filter(luma, grid, radius=radius)
    rank = rank_normalise(median3(grid))
    doubtful = NEUTRAL if beside_text else 1.0
    if not beside_text:
        rank = np.minimum(rank / np.float32(NEAR), 1)
    if confidence is None:
        return rank
    sure: Array = np.clip(to_block_grid(confidence, size), 0.0, 1.0)
    if not beside_text:
        sure = sure ** np.float32(1 + strength)
    return np.asarray(doubtful + sure * (rank - doubtful), np.float32)


def detail_importance(energy: npt.NDArray[np.floating]) -> Array:
    """Importance from local detail: strong edges (lettering, outlines) against flat or faintly
    textured blocks.

    Args:
        energy: (R, C) root of the summed squared AC coefficients of each luma block, in grey levels
            x 8.

    Returns:
        (R, C) in 0..1: where each block's neighbourhood is between faint (32) and strong (512)
        contrast, on a log scale. Absolute and not ranked: a photo of fog has no block that deserves
        bits because it is the least foggy.
    """
    # a letter's strokes reach into the blocks beside it
    spread = _max3(np.asarray(energy, np.float32))
    level = (np.log2(np.maximum(spread, 1.0)) - 5.0) / 4.0
    return np.asarray(np.clip(level, 0.0, 1.0), np.float32)


def text_importance(
    logits: npt.NDArray[np.floating], energy: npt.NDArray[np.floating], *, size: tuple[int, int]
) -> Array:
    """Importance from how much each place looks like lettering: what a text detector may look at,
    with few misses.

    Args:
        logits: (h, w), from `djpeg.text_regions`; covers the whole photo, at any resolution.
        energy: (R, C) as `detail_importance` takes it: faint blocks hold no lettering that survives
            compression.
        size: height and width of the photo in pixels.

    Returns:
        (R, C) in 0..1: 0 below a level that 95% of the blocks with text reach on street photos, 1
        above one that 80% reach.
    """
    level = to_block_grid(logits, size) + TEXT_DETAIL * detail_importance(energy)
    return np.asarray(
        np.clip((level - TEXT_LEAST) / (TEXT_SURE - TEXT_LEAST), 0.0, 1.0), np.float32
    )


def lettering(logits: npt.NDArray[np.floating]) -> float:
    """How much a photo is one of lettering, 0..1: by the share of its places where the text network
    is sure.

    Leaves and bricks reach the level of `TEXT_SURE` on natural photos as often as letters do on
    street photos; this one they hardly reach.
    """
    sure = float((np.asarray(logits) > LETTERING_LOGIT).mean())
    return min(1.0, max(0.0, (sure - LEAST_LETTERING) / (MUCH_LETTERING - LEAST_LETTERING)))


def mask_importance(mask: npt.NDArray[np.floating], *, size: tuple[int, int]) -> Array:
    """Importance from a mask (h, w) in 0..1, bright = keep: each block takes the brightest pixel
    that it touches."""
    rows, cols = grid_shape(*size)
    top, left = _edges(rows, size[0], mask.shape[0]), _edges(cols, size[1], mask.shape[1])
    down = np.stack([mask[a:b].max(0) for a, b in top])
    brightest = np.stack([down[:, a:b].max(1) for a, b in left], axis=1)
    return np.asarray(np.clip(brightest, 0.0, 1.0), np.float32)


def centre_importance(size: tuple[int, int]) -> Array:
    """Importance of what a system sees that takes the middle square of a photo: all of that square
    and the blocks beside it, and nothing of the rest.

    Args:
        size: height and width of the photo in pixels.

    Returns:
        (R, C) of 0 and 1.
    """
    side = min(size)
    inside = []
    for count, length in zip(grid_shape(*size), size, strict=True):
        first = (length - side) / 2
        edges = BLOCK * np.arange(count)
        inside.append(
            (edges + BLOCK > first - BESIDE_CENTRE) & (edges < first + side + BESIDE_CENTRE)
        )
    return np.outer(*inside).astype(np.float32)


def combine(
    maps: Sequence[npt.NDArray[np.floating]], *, text: npt.NDArray[np.floating] | None = None
) -> Array:
    """One importance map from several: their mean, so that a block is cheap only where all agree.

    Args:
        maps: of the guides, all of one shape.
        text: the map of the text guide. It is not averaged with the others: likely lettering always
            keeps its bits. The other guides can therefore be bolder: their contrast is multiplied
            by `CONTRAST_BESIDE_TEXT`, and the rest gets `BESIDE_TEXT` of it.

    Raises:
        ValueError: no maps, or shapes differ.
    """
    everything = [*maps] if text is None else [*maps, text]
    if not everything:
        raise ValueError("nothing to combine")
    if len({m.shape for m in everything}) != 1:
        raise ValueError("importance maps differ in shape")
    if not maps:
        return np.asarray(text, np.float32)
    mean = np.asarray(
        sum(np.asarray(m, np.float32) for m in maps) / np.float32(len(maps)), np.float32
    )
    if text is None:
        return mean
    spread = np.clip(NEUTRAL + np.float32(CONTRAST_BESIDE_TEXT) * (mean - NEUTRAL), 0, 1)
    return np.asarray(
        1 - (1 - np.asarray(text, np.float32)) * (1 - np.float32(BESIDE_TEXT) * spread), np.float32
    )


def for_component(importance: Array, rows: int, cols: int, *, luma_size: tuple[int, int]) -> Array:
    """The importance on a subsampled component's own block grid: each of its blocks takes the mean
    over what it covers.

    Args:
        importance: (R, C) on the luma grid.
        rows, cols: the component's block grid, padding to whole MCUs included.
        luma_size: luma blocks that one block of the component covers, (down, across); 1 for luma
            itself.
    """
    down, across = luma_size
    padded = pad_to(importance, rows * down, cols * across)
    return np.asarray(padded.reshape(rows, down, cols, across).mean((1, 3)), np.float32)


def pad_to(array: Array, rows: int, cols: int) -> Array:
    """Repeat the last row and column until the shape is (rows, cols); cut what is beyond."""
    more = (max(0, rows - array.shape[0]), max(0, cols - array.shape[1]))
    padded = np.pad(array, ((0, more[0]), (0, more[1])), mode="edge") if any(more) else array
    return padded[:rows, :cols]


def to_block_grid(field: npt.NDArray[np.floating], size: tuple[int, int]) -> Array:
    """Resample a map of the whole photo to one value for each block.

    Where the map is finer than the grid each block takes the mean over its area; where it is
    coarser, bilinear values at the blocks' centres.

    Args:
        field: (h, w), any size.
        size: height and width of the photo in pixels.
    """
    rows, cols = grid_shape(*size)
    first = _resample_axis(np.asarray(field, np.float32), rows, size[0])
    return np.ascontiguousarray(_resample_axis(first.T, cols, size[1]).T)


def _resample_axis(field: Array, count: int, pixels: int) -> Array:
    length = field.shape[0]
    scale = length / pixels
    start = np.arange(count) * BLOCK * scale
    stop = np.minimum((np.arange(count) + 1) * BLOCK, pixels) * scale
    # area mean by differences of the running integral, exact at fractional bounds
    if scale * BLOCK >= 1.0:
        integral = np.concatenate(
            [np.zeros((1, field.shape[1])), np.cumsum(field, axis=0, dtype=np.float64)]
        )
        mean = (_at(integral, stop) - _at(integral, start)) / (stop - start)[:, None]
        return np.asarray(mean, np.float32)
    return np.asarray(_at(field, np.clip((start + stop) / 2 - 0.5, 0, length - 1)), np.float32)


def _at(
    field: npt.NDArray[np.floating], where: npt.NDArray[np.float64]
) -> npt.NDArray[np.floating]:
    """Rows of `field` at fractional positions, linear between."""
    low = np.minimum(where.astype(np.intp), field.shape[0] - 1)
    high = np.minimum(low + 1, field.shape[0] - 1)
    part = (where - low)[:, None]
    return np.asarray(field[low] * (1 - part) + field[high] * part)


def _edges(count: int, pixels: int, length: int) -> list[tuple[int, int]]:
    scale = length / pixels
    bounds = []
    for index in range(count):
        start = min(int(index * BLOCK * scale), length - 1)
        stop = int(np.ceil(min((index + 1) * BLOCK, pixels) * scale))
        bounds.append((start, max(start + 1, min(stop, length))))
    return bounds


def guided_filter(
    guide: npt.NDArray[np.floating], field: Array, *, radius: int, epsilon: float = 1e-3
) -> Array:
    """Smooth `field` while its edges follow those of `guide` (He, Sun and Tang 2010, equations 5
    and 6).

    Args:
        guide, field: (R, C).
        radius: half side of the windows, in elements.
        epsilon: how much the guide must vary in a window, as a variance of the guide scaled to
            0..1, to count as an edge.
    """
    low, high = float(guide.min()), float(guide.max())
    if high <= low:
        return _box(field, radius)
    edge: Array = ((guide - low) / (high - low)).astype(np.float32)
    mean_guide, mean_field = _box(edge, radius), _box(field, radius)
    variance = _box(edge * edge, radius) - mean_guide * mean_guide
    slope = np.asarray(
        (_box(edge * field, radius) - mean_guide * mean_field) / (variance + epsilon), np.float32
    )
    offset = np.asarray(mean_field - slope * mean_guide, np.float32)
    return np.asarray(_box(slope, radius) * edge + _box(offset, radius), np.float32)


def _box(field: Array, radius: int) -> Array:
    """Mean over a square window, cut at the borders."""
    for _ in range(2):
        count = field.shape[0]
        integral = np.concatenate(
            [np.zeros((1, field.shape[1])), np.cumsum(field, axis=0, dtype=np.float64)]
        )
        start = np.maximum(np.arange(count) - radius, 0)
        stop = np.minimum(np.arange(count) + radius + 1, count)
        field = ((integral[stop] - integral[start]) / (stop - start)[:, None]).astype(np.float32).T
    return field


def median3(field: Array) -> Array:
    """3x3 median, borders repeated: removes single stray blocks without moving edges."""
    nine = list(_windows3(field))
    for a, b in _MEDIAN_OF_NINE:
        nine[a], nine[b] = np.minimum(nine[a], nine[b]), np.maximum(nine[a], nine[b])
    return np.asarray(nine[4], np.float32)


# exchanges that bring the middle one of nine values to place 4 (Smith, "Implementing median filters
# in XC4000E FPGAs", 1996)
_MEDIAN_OF_NINE = (
    *((1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3)),
    *((5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2)),
)


def _max3(field: Array) -> Array:
    return np.asarray(_windows3(field).max(0), np.float32)


def _windows3(field: Array) -> Array:
    padded = np.pad(field, 1, mode="edge")
    rows, cols = field.shape
    return np.stack([padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3)])


def rank_normalise(field: Array) -> Array:
    """Each value's rank among all, scaled to 0..1; equal values share their mean rank, all equal
    gives `NEUTRAL`."""
    flat = field.ravel()
    order = np.argsort(flat)
    ordered = flat[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    below = np.flatnonzero(starts)
    if len(below) == 1:
        return np.full(field.shape, NEUTRAL, np.float32)
    counts = np.diff(below, append=flat.size)
    middle = (below + (counts - 1) / 2) / (flat.size - 1)
    ranks = np.empty(flat.size, np.float32)
    ranks[order] = middle[np.cumsum(starts) - 1]
    return ranks.reshape(field.shape)
