"""The readings that a model's outputs leave by their shapes and numbers, as they are typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError
from vizcomp.vision import detectors
from vizcomp.vision.detectors import part_of
from vizcomp.vision.options import ModelOptions
from vizcomp.vision.parts import like_a_list, parts_of
from vizcomp.vision.readings import Outputs, Size
from vizcomp.vision.refusals import is_one_map, spoken
from vizcomp.vision.shapes import (
    MULTIPOSE,
    OBB,
    POSES,
    end_to_end,
    of_rows,
    of_vector,
    softmaxed,
    strides_fit,
)


class Choices:
    """What a model's outputs may be.

    Args:
        outputs: arrays by name, as answered to a grey picture.
        size: height and width of that picture in the input.
        options: what the user says.
        names: of the classes, or ().
        wrong: makes an error of what is wrong and what to try.
    """

    def __init__(
        self,
        outputs: Outputs,
        size: Size,
        options: ModelOptions,
        names: tuple[str, ...],
        wrong: Callable[[str, str], ModelError],
    ) -> None:
        self._outputs, self._size, self._options = outputs, size, options
        self._names, self._wrong = names, wrong

    def all(self) -> list[str]:
        """Readings as they are typed; one that has no "=" is certain where it is alone."""
        masked = prototypes(self._outputs) > 0
        said = self._options.boxes or self._options.scores or self._options.units
        boxes = self._options.kind == "boxes"
        if said or (boxes and not masked and like_a_list(self._outputs)):
            return self._listed_choices()
        if len(self._outputs) > 1 and like_a_list(self._outputs) and not masked:
            return self._listed_choices()
        several = spoken(self._outputs)
        if len(several) > 1 or (several and main_output(self._outputs) not in several):
            return [f"output={name}" for name in several]
        choices = self._single(self._outputs[main_output(self._outputs)])
        others = ("kind=", "classes")
        return [c for c in choices if not c.startswith(others)] if boxes else choices

    def _single(self, main: npt.NDArray[Any]) -> list[str]:
        if (
            main.ndim >= 3
            and main.shape[-1] in (2, 3)
            and main.shape[-2] > 3
            and main[..., 0].size == main.shape[-2]
        ):
            return [f"kind=keypoints,points={order}" for order in ("yx", "xy")]
        if main.dtype.kind not in "fiub":
            raise self._wrong(
                "its output holds no numbers", "export it with the numbers that it chooses by"
            )
        if rows := self._rows(main):
            return rows
        if main.ndim == 4 and main.size != max(main.shape):
            maps = {a.shape[1:] for a in self._outputs.values() if a.ndim == 4}
            if len(maps) > 1:
                raise self._wrong(
                    f"its outputs are {len(maps)} kinds of maps, as a detector's before its boxes"
                    " are decoded",
                    "export it with the head that decodes boxes",
                )
            return ["kind=masks"]
        whole = np.issubdtype(main.dtype, np.integer)
        if main.ndim == 3 and (whole or is_one_map(main, self._size)):
            return ["kind=masks"]
        if main.ndim == 3 and 1 not in main.shape[1:]:
            return self._grids(*main.shape[1:])
        if not main.ndim or main.size < 1 or main.ndim > 4:
            raise self._wrong(
                f"its output has the shape {main.shape}: neither classes nor boxes",
                "export it with the head that answers",
            )
        if main.ndim > 1 and len(main) != 1:
            raise self._wrong(
                f"its output has the shape {main.shape} for one picture: no row of classes",
                "export it with the axis of the batch first",
            )
        count = main.size
        if main.dtype in (np.int32, np.int64):
            raise self._wrong(
                f"its output is {count} whole numbers: which classes, but not how sure",
                "export it before that choice",
            )
        if count == 1:
            return ["kind=classes,activation=sigmoid", "kind=classes,activation=none"]
        if count > 100_000:
            return ["kind=classes", "kind=masks", "kind=embedding"]
        if self._names:
            return ["classes"]
        return of_vector(next(iter(self._outputs)), main.reshape(-1)[-count:], count)

    def _rows(self, main: npt.NDArray[Any]) -> list[str]:
        """Readings of a list of boxes in rows, as suppression inside the graph leaves them; []
        where it is none."""
        width = (
            main.shape[-1] if main.ndim in (2, 4) or (main.ndim == 3 and main.shape[-1] == 7) else 0
        )
        inner = main.shape[1:-1]
        if width not in (6, 7) or any(
            side != 1 for side in (inner if main.ndim == 2 else main.shape[:-2])
        ):
            return []
        if main.ndim == 3 and (main.shape[1] > 1000 or strides_fit(main.shape[1], self._size, 3)):
            return []
        orders = of_rows(main.reshape(-1, width).astype(np.float64))
        if main.ndim == 4:
            return [*(f"{order},units=share" for order in orders[:1]), *orders]
        if main.ndim == 3:
            return [*orders, "detector=detr,activation=none"]
        name = main_output(self._outputs).lower()
        if (
            len(main) != 1
            or any(word in name for word in ("nms", "det", "box"))
            or len(self._outputs) > 1
        ):
            return orders
        return [*orders, "kind=classes"] if orders and not self._names else []

    def _grids(self, rows: int, columns: int) -> list[str]:
        """Readings of one output (1, rows, columns)."""
        main = next(iter(self._outputs.values()))
        protos = prototypes(self._outputs)
        least = 5 + protos
        by_rows, by_columns = strides_fit(rows, self._size), strides_fit(columns, self._size)
        cells = detectors.strides_of(rows, *self._size)
        if (
            cells
            and rows > columns >= 6
            and detectors.is_raw_grid(part_of({"m": main}, "m"), *self._size, cells)
        ):
            return ["yolox"]
        if (
            by_columns
            and not by_rows
            and not strides_fit(rows, self._size, 3)
            and least <= rows < columns
        ):
            for count in POSES if not self._names else ():
                if rows == 5 + 3 * count:
                    pose = f"kind=keypoints,detector=yolov8,keypoints={count}x3"
                    return [pose, "detector=yolov8", f"detector=yolov8,extra={3 * count}"]
            named = len(self._names) in (0, rows - 4 - protos) and (
                rows != OBB or bool(self._names)
            )
            return ["yolov8"] if named else ["detector=yolov8"]
        if strides_fit(rows, self._size, 3) and not by_columns and not by_rows and columns >= 6:
            return ["yolov5"]
        if columns == 6 + protos and rows <= 1000 and not by_rows and not by_columns:
            return end_to_end(part_of({"m": main}, "m"), protos)
        if columns == MULTIPOSE and rows <= 20:
            return ["kind=keypoints,points=yx", "kind=keypoints,points=xy", "kind=embedding"]
        if rows <= 1000 and any(columns == 6 + 3 * count for count in POSES):
            return [
                f"kind=keypoints,detector=yolov10,keypoints={(columns - 6) // 3}x3",
                "detector=detr,activation=none",
            ]
        choices = ["detector=yolov8"] if least <= rows < columns else []
        if by_rows or strides_fit(rows, self._size, 3):
            choices += [
                "detector=yolov5",
                *(["detector=yolox"] if by_rows and columns >= 6 else []),
            ]
        if rows >= max(least, columns):
            choices.append("detector=yolov8")
        if columns >= 5:
            choices += ["detector=detr,activation=none"] + ([] if choices else ["detector=yolov5"])
        return [*choices, "kind=embedding"] if not choices or max(rows, columns) < 80 else choices

    def _listed_choices(self) -> list[str]:
        parts = parts_of(self._outputs, self._options, self._wrong)
        if parts.count and parts.of_tensorflow:
            return ["ssd"]
        if "logit" in parts.scores.lower():
            return ["detr"]
        array = self._outputs[parts.boxes]
        numbers = self._outputs[parts.scores or parts.boxes]
        if not self._options.background and parts.scores and softmaxed(numbers):
            given = "" if self._options.detector else "detector=torchvision,"
            return [f"{given}background={where}" for where in ("first", "last", "none")]
        said = self._options.units or self._options.boxes or self._options.kind
        certain = (array.ndim == 2 and numbers.ndim <= 2) or not parts.scores
        if said or (certain and parts.said and not parts.count):
            return ["torchvision"]
        named = "" if parts.said else f",{parts.typed()}"
        if certain and not parts.count:
            return [f"detector=torchvision{named}"]
        sigmoid = (
            ["detector=detr,activation=sigmoid", "detector=detr,activation=none"]
            if numbers.ndim == 3
            else []
        )
        units = [f"detector=torchvision,units={units}{named}" for units in ("pixels", "share")]
        if any(a.dtype.kind == "i" and a.shape[-1:] == (3,) for a in self._outputs.values()):
            # numbers of the chosen boxes beside them, as ONNX's suppression has them: top first
            units = [f"detector=ssd,units=pixels{named}", *units]
        return [*units, f"detector=ssd{named}", *sigmoid]


def main_output(outputs: Outputs) -> str:
    """The output that is read: the first that is no number of a class beside its probabilities."""
    others = [
        name
        for name, array in outputs.items()
        if not (np.issubdtype(array.dtype, np.integer) and array.size <= 1)
    ]
    return next(iter(others or outputs))


def prototypes(outputs: Outputs) -> int:
    """How many coefficients of masks follow the classes: the channels of a second output of four
    axes."""
    arrays = list(outputs.values())
    if len(arrays) == 2 and arrays[0].ndim == 3 and arrays[1].ndim == 4 and len(arrays[1]) == 1:
        return int(arrays[1].shape[1] if arrays[1].shape[1] <= 64 else 0)
    return 0
