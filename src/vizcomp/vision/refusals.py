"""Outputs that are no answer which is read here: what they are by their names, shapes and numbers,
and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.vision.readings import Outputs, Size

LEAST_CHARACTERS, LEAST_STEPS = 20, 4  # of a reader of text that answers step by step
COARSEST = 20  # input pixels a side for one of a map of labels; features are coarser
SHARE = 1.01  # the largest number that is a share, up to rounding

Refusal = tuple[str, str]  # what is wrong, and what to try


def refusal(outputs: Outputs, size: Size) -> Refusal | None:
    """Why a model's outputs are no answer, as answered to a grey picture of a height and width;
    None where that cannot be said."""
    for name in outputs:
        plain = name.lower()
        if "heatmap" in plain or "heat_map" in plain or "simcc" in plain:
            return (
                f"its output {name} has a map or a row of numbers for each point",
                "export it with the part that makes points of them",
            )
        if "queries" in plain:
            return (
                f"its output {name} has numbers of queries, before its answer",
                "export it with its postprocessing",
            )
    first, main = next(iter(outputs.items()))
    if "depth" in first.lower() or "dispar" in first.lower():
        return (
            f"its output {first} says how near things are, which is no answer to compare",
            "a depth network guides: give it as `depth_model`",
        )
    boxes = [a for n, a in outputs.items() if a.shape[-1:] == (4,) and "raw_" not in n.lower()]
    lists = {a.shape[-2] for a in boxes if a.ndim in (2, 3)}
    if any(a.ndim > 1 and a.shape[-1] == 8 and "box" in n.lower() for n, a in outputs.items()):
        return (
            "its boxes have eight numbers, for four corners: turned boxes are not read here",
            "export it with upright boxes, or give it as vizcomp.System",
        )
    if len(lists) > 1:
        return (
            f"its boxes lie in {len(lists)} outputs, before they are decoded",
            "export it with the part that decodes and joins them",
        )
    if len(outputs) == 1 and (why := _alone(first, main, size)):
        return why
    return None


def _alone(name: str, main: npt.NDArray[Any], size: Size) -> Refusal | None:
    if "hidden_state" in name.lower():
        return (
            f"its output {name} has numbers for each part of the picture, before an answer",
            "export it with the head that answers, or with the part that pools them",
        )
    sides = map_sides(main)
    if sides is None or not covers(main, size):
        return None
    if main.ndim == 4 and (sides[0] > size[0] or sides[1] > size[1]):
        return (
            f"its output {name} is a picture larger than its input, which is no answer",
            "give a classifier, detector, segmenter or embedding network",
        )
    features = COARSEST * sides[0] < size[0] or "embed" in name.lower() or "feature" in name.lower()
    if main.ndim == 4 and features:
        return (
            f"its output {name} is a map of {sides[0]}x{sides[1]} features, which is no answer",
            "export it with the head that answers",
        )
    largest = float(np.nan_to_num(main).max(initial=0)) if main.dtype.kind == "f" else 0.0
    if is_one_map(main, size) and largest > SHARE and bool((main != main.round()).any()):
        return (
            f"its output {name} has numbers up to {largest:.3g} for each pixel, no shares: is it a"
            " depth map?",
            "a depth network guides: give it as `depth_model`; numbers before a sigmoid are read"
            " with kind=masks,activation=sigmoid",
        )
    return None


def reads_text(outputs: Outputs) -> bool:
    """Whether the only output has probabilities over characters for each step: (1, T, C) or
    (T, 1, C)."""
    main = next(iter(outputs.values()))
    if len(outputs) > 1:
        return False
    if main.ndim != 3 or 1 not in main.shape[:2] or main.dtype.kind != "f":
        return False
    steps, characters = max(main.shape[:2]), main.shape[2]
    if steps < LEAST_STEPS or characters < LEAST_CHARACTERS or main.min() < 0:
        return False
    return bool(np.abs(main.sum(-1, dtype=np.float64) - 1).max() < 1e-2)


def map_sides(main: npt.NDArray[Any]) -> tuple[int, int] | None:
    """Height and width of a map over the picture, (1, C, h, w), (1, h, w, C) with few channels
    last, or (1, h, w); None where an output is none."""
    if main.ndim == 3:
        return (main.shape[1], main.shape[2]) if 1 not in main.shape[1:] else None
    if main.ndim != 4 or main.shape[2:] == (1, 1) or main.shape[1:3] == (1, 1):
        return None
    last = main.shape[3] < main.shape[1] and main.shape[3] < main.shape[2]
    return (main.shape[1], main.shape[2]) if last else (main.shape[2], main.shape[3])


def covers(main: npt.NDArray[Any], size: Size) -> bool:
    """Whether an output is a map that has the input's shape, up to rounding of each side."""
    sides = map_sides(main)
    if sides is None:
        return False
    steps = [size[at] / sides[at] for at in range(2)]
    return abs(steps[0] - steps[1]) <= 0.1 * max(steps) + 1e-9


def is_one_map(main: npt.NDArray[Any], size: Size) -> bool:
    """Whether an output is one number for each pixel of the input, or for each few of them."""
    sides = map_sides(main)
    if sides is None or main.size != sides[0] * sides[1]:
        return False
    whole = all(size[at] % sides[at] == 0 for at in range(2))
    return covers(main, size) and (main.ndim == 4 or whole)


def spoken(outputs: Outputs) -> list[str]:
    """The outputs that could each be an answer alone: rows of several numbers, but no label beside
    its probabilities and no score beside each of several rows."""
    rows = {array.shape[-2] for array in outputs.values() if array.ndim > 1}
    alone = [
        name
        for name, array in outputs.items()
        if array.dtype.kind == "f"
        and array.ndim
        and array.size == max(array.shape) > 1
        and array.size not in rows
    ]
    return [name for name in alone if "feature" not in name.lower()] or alone
