"""Which output of a detector holds what, where boxes, scores and labels lie apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError
from vizcomp.vision.options import ModelOptions
from vizcomp.vision.readings import Outputs


@dataclasses.dataclass(frozen=True)
class Parts:
    """Names of outputs; "" where there is none.

    Attributes:
        boxes: of four columns, or of five, the last of which is the score.
        scores: of the boxes, or of each class.
        labels: of the boxes.
        count: how many boxes are meant.
        said: whether names or options say which is which; else their shapes and types do.
    """

    boxes: str
    scores: str
    labels: str
    count: str
    said: bool

    def typed(self) -> str:
        """As options."""
        pairs = (("boxes", self.boxes), ("scores", self.scores), ("labels", self.labels))
        return ",".join(f"{key}={name}" for key, name in pairs if name)

    @property
    def of_tensorflow(self) -> bool:
        """Whether they are called as in TensorFlow's zoo, or by TFLite's operator for them."""
        plain = _plain(self.boxes)
        return (
            plain == "detection_boxes"
            or "detection_postprocess" in plain
            or "statefulpartitioned" in plain
        )


def _plain(name: str) -> str:
    return name.lower().split(":")[0]


def _counts(array: npt.NDArray[Any], rows: int) -> bool:
    """Whether one number may be how many of the boxes are meant."""
    number = float(array.reshape(-1)[0])
    return number == round(number) and 0 <= number <= rows


def like_a_list(arrays: Outputs) -> bool:
    """Whether one of several outputs holds boxes."""
    if any(like_boxes(name, array) for name, array in arrays.items()):
        return True
    ones = [
        array.dtype.kind for array in arrays.values() if array.size == 1
    ]  # of a single box: its label, its score
    return any(array.shape == (1, 4) for array in arrays.values()) and {*ones} >= {"i", "f"}


def like_boxes(name: str, array: npt.NDArray[Any]) -> bool:
    """Whether an output holds boxes; one row of four numbers may be one of classes."""
    if array.ndim < 2 or array.shape[-1] not in (4, 5):
        return False
    if array.shape[-1] == 5:  # corners and a score, as MMDetection has it
        return name.lower() in ("dets", "det", "bboxes", "boxes") and array.ndim in (2, 3)
    return array.ndim == 3 or len(array) != 1 or "box" in name.lower()


def parts_of(
    arrays: Outputs, options: ModelOptions, wrong: Callable[[str, str], ModelError]
) -> Parts:
    """The parts by options, names, and shapes.

    Args:
        wrong: makes an error of what is wrong and what to try.

    Raises:
        ModelError: boxes or scores cannot be told.
    """
    plain = {name: _plain(name) for name in arrays}
    sets = [n for n, a in arrays.items() if a.ndim > 1 and a.shape[-1] == 4]
    sets = sets or [n for n, a in arrays.items() if like_boxes(n, a)]
    boxes = options.boxes or next(
        (n for n in sets if plain[n] in ("boxes", "detection_boxes")), next(iter(sets), "")
    )
    rows = int(np.prod(arrays[boxes].shape[:-1])) if boxes in arrays else 0
    others = [
        n for n in arrays if n != boxes and "raw_" not in plain[n] and "multiclass" not in plain[n]
    ]
    counts = [
        n for n in others if ("num" in plain[n] or "count" in plain[n]) and arrays[n].size == 1
    ]
    tflite = all("detection_postprocess" in p or "statefulpartitioned" in p for p in plain.values())
    if not counts and len(arrays) == 4 and rows > 1:
        single = [n for n in others if arrays[n].size == 1]
        counts = single if tflite or len(single) == 1 else []
        counts = [n for n in counts if tflite or _counts(arrays[n], rows)][:1]
    called = [n for n in others if "label" in plain[n] or "class" in plain[n]]
    # scores of classes may be called labels, as RF-DETR's are
    rated = [n for n in called if arrays[n].dtype.kind == "f" and arrays[n].size > rows > 0]
    labels = options.labels or next((n for n in called if n not in rated), "")
    scores = options.scores or next((n for n in others if "score" in plain[n]), "")
    scores = scores or next(iter(rated), "")
    scores = scores or next(
        (n for n in others if any(word in plain[n] for word in ("logit", "prob", "conf"))), ""
    )
    merged = not scores and boxes in arrays and arrays[boxes].shape[-1] == 5
    said = bool(scores) or merged
    loose = [n for n in others if n not in (*counts, scores, labels)]
    if not scores and all("detection_postprocess" in p for p in plain.values()) and len(loose) == 2:
        labels, scores = loose
        said = True
    each = [n for n in loose if arrays[n].size == rows]
    whole = [n for n in each if arrays[n].dtype.kind in "iu"]
    if not whole and len(each) + bool(scores) > 1:  # numbers of classes may be floats
        whole = [n for n in each if bool((arrays[n] == arrays[n].round()).all())]
    if not labels and len(whole) == 1:
        labels, loose = whole[0], [n for n in loose if n != whole[0]]
    # a mask for each box, (N, 1, h, w), is no score
    fitting = [n for n in loose if rows and arrays[n].size >= rows and arrays[n].ndim < 4]
    if not scores and not merged and len(fitting) == 1:
        scores = fitting[0]
    for what, name in (("boxes", boxes), *([] if merged else [("scores", scores)])):
        if name not in arrays:
            there = ", ".join(loose or arrays)
            raise wrong(
                f"which of its outputs are the {what}? There are {there}",
                f"say it: option {what}=NAME",
            )
    if labels and labels not in arrays:
        raise wrong(f"it has no output {labels}; there are {', '.join(arrays)}", "")
    if not merged and arrays[scores].size % max(1, rows):
        raise wrong(
            f"{arrays[scores].size} scores in {scores} are not those of {rows} boxes",
            "say it: option scores=NAME",
        )
    return Parts(boxes, scores, labels, next(iter(counts), ""), said or bool(options.boxes))
