"""What runs a model file, and how a photo becomes its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vizcomp.vision.inputs import Slot
from vizcomp.vision.views import Fit

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
