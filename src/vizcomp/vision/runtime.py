"""What runs a model file, and how a photo becomes its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vizcomp.vision.inputs import Slot
from vizcomp.vision.options import ModelOptions
from vizcomp.vision.views import Fit
from vizcomp.weights.options import NORMS

PICTURES = (np.float32, np.float16, np.float64, np.uint8)  # dtypes of an input that takes a picture


class Runtime(Protocol):
    """What runs a model.

    Attributes:
        slots: the inputs.
        outputs: names.
        probabilities: those of them that are known to be such.
        metadata: texts that the file has of itself.
    """

    slots: tuple[Slot, ...]
    outputs: tuple[str, ...]
    probabilities: frozenset[str]
    metadata: Mapping[str, str]

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name, of all inputs by name; any exception where it fails."""
        ...


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How a photo becomes numbers: `fit`, then order, range, mean and deviation."""

    fit: Fit
    order: str
    range: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whole: bool = False

    def said(self) -> str:
        """For people."""
        fit = self.fit
        more = (
            f" grey {fit.grey:g}"
            if fit.resize.startswith("letterbox")
            else f" {fit.crop:.1%}"
            if fit.crop < 1
            else ""
        )
        numbers = f"{self.order} bytes" if self.whole else f"{self.order} 0..{self.range:g}"
        if not self.whole and (any(self.mean) or any(value != 1 for value in self.std)):
            numbers += (
                f" mean {'/'.join(f'{v:g}' for v in self.mean)} std"
                f" {'/'.join(f'{v:g}' for v in self.std)}"
            )
        return f"{fit.resize}{more} {fit.filter}; {numbers}"


def prepared(
    options: ModelOptions,
    family: str,
    *,
    poses: bool,
    activation: str,
    tflite: bool,
    whole: bool,
) -> Preparation:
    """What is done to a photo by the options, and where they are silent by the family of models.

    Args:
        family: one of `options.DETECTORS`, or of `options.KINDS`; "": not known yet.
        poses: a network of points alone, as MoveNet.
        activation: of a `detr`'s scores.
        tflite: as networks of that kind are trained.
        whole: the input takes bytes.
    """
    yolo = family.startswith("yolo")
    usual_resize = (
        "letterbox-corner"
        if family == "yolox"
        else "letterbox"
        if yolo or poses
        else "crop"
        if family in ("classes", "embedding", "")
        else "stretch"
    )
    resize = options.resize or usual_resize
    if resize == "letterbox":
        resize = "letterbox-corner" if family == "yolox" else "letterbox-centre"
    usual_filter = "bicubic" if resize == "crop" and not tflite else "bilinear"
    usual_grey = 0 if poses else 128 if family == "text" else 114
    fit = Fit(
        resize,
        options.filter or usual_filter,
        usual_grey if options.grey is None else options.grey,
        1.0 if options.crop is None else options.crop,
    )
    usual = {"yolox": "bytes", "text": "signed"}.get(family, "unit")
    if family == "detr" and activation == "softmax":
        usual = "imagenet"
    white, mean, std = NORMS[options.norm or usual]
    return Preparation(
        fit,
        options.order or ("BGR" if family in ("yolox", "text") else "RGB"),
        white if options.range is None else options.range,
        options.mean or mean,
        options.std or std,
        whole,
    )
