"""The inputs of a model: the one that takes the picture, and what others hold, which the user says.

rtdetr.onnx:input.orig_target_sizes=640/640
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision.options import INPUT, SIDES, ModelOptions, typed

# What exporters' inputs usually hold: proposed where it is asked for, never taken.
_USUAL = {"orig_target_sizes": "width/height", "orig_size": "width/height", "scale_factor": "1/1"}
MOST_PROPOSED = 8  # numbers; one number fills larger inputs
_DTYPES = (np.float32, np.float16, np.float64, np.uint8, np.int8)


@dataclasses.dataclass(frozen=True)
class Slot:
    """An input of a model.

    Attributes:
        name: as the file has it.
        shape: 0 where it is open.
        dtype: of numpy, or None where it is none that is known here.
        said: its type in the file's own words.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    said: str = ""

    @property
    def like_a_picture(self) -> bool:
        """Whether a picture fits: (N, C, H, W) or (N, H, W, C), or the same without N."""
        if self.dtype not in _DTYPES or len(self.shape) not in (3, 4):
            return False
        return any(side in (0, 1, 3) for side in (self.shape[-1], self.shape[-3]))

    def described(self) -> str:
        """For people: "im_shape (float32 1x2)"."""
        kind = np.dtype(self.dtype).name if self.dtype is not None else self.said
        return (
            f"{self.name}"
            f" ({' '.join([kind, 'x'.join(str(side or '?') for side in self.shape)]).strip()})"
        )


def picture_slot(name: str, slots: Sequence[Slot], options: ModelOptions) -> Slot:
    """The input that takes the picture.

    Raises:
        SettingsError: several could.
        ModelError: none can, or the option names none of them.
    """
    if options.image:
        chosen = [slot for slot in slots if slot.name == options.image]
        if not chosen:
            raise ModelError(
                f"{name}: it has no input {options.image}",
                f"there are {', '.join(slot.name for slot in slots)}",
            )
        return chosen[0]
    if len(slots) == 1:
        return slots[0]
    given = dict(options.inputs)
    able = [slot for slot in slots if slot.like_a_picture and slot.name not in given]
    if not able:
        said = ", ".join(slot.described() for slot in slots) or "none"
        raise ModelError(
            f"{name}: none of its inputs takes a picture: {said}",
            "export it with an input (N, 3, H, W)",
        )
    if len(able) > 1:
        choices = " or ".join(typed(name, f"image={slot.name}") for slot in able)
        raise SettingsError(
            f"{name}: which of its inputs takes the photo?",
            f"say which: {choices}; see docs/vision.md",
        )
    return able[0]


def check_others(
    name: str, slots: Sequence[Slot], picture: Slot, options: ModelOptions, size: Sequence[int]
) -> None:
    """All inputs but the picture's must be said.

    Args:
        size: height and width of the picture's input, or () where they are open.

    Raises:
        SettingsError: one is not; it says what to type.
        ModelError: an option names no input.
    """
    others = {slot.name: slot for slot in slots if slot is not picture}
    given = dict(options.inputs)
    for key in given:
        if key not in others:
            there = f"there are {', '.join(others)}" if others else "the picture's is its only one"
            raise ModelError(f"{name}: it has no further input {key}", there)
    asked = [slot for key, slot in others.items() if key not in given]
    if not asked:
        return
    hint = ",".join(f"{INPUT}{slot.name}={_proposed(slot, size)}" for slot in asked)
    raise SettingsError(
        f"{name}: what are its further inputs to hold?"
        f" {', '.join(slot.described() for slot in asked)}",
        f"say it, as {typed(name, hint)}; see docs/vision.md",
    )


def _proposed(slot: Slot, size: Sequence[int]) -> str:
    usual = next((text for word, text in _USUAL.items() if word in slot.name.lower()), "")
    if not usual and ("shape" in slot.name.lower() or "size" in slot.name.lower()):
        usual = "height/width"
    if not usual and "mask" in slot.name.lower():
        return "1"  # all of it is picture
    if not usual:
        count = int(np.prod([side or 1 for side in slot.shape[1:]]))
        return "/".join(["NUMBER"] * (count if 1 <= count <= MOST_PROPOSED else 1))
    for word, side in zip(SIDES, size, strict=False):
        usual = usual.replace(word, str(side))
    return usual


def constants(
    name: str, slots: Sequence[Slot], options: ModelOptions, batch: int, size: Sequence[int]
) -> dict[str, npt.NDArray[Any]]:
    """What the further inputs hold for a batch of pictures of this height and width.

    Raises:
        ModelError: the numbers of an option do not fill the input.
    """
    by_name = {slot.name: slot for slot in slots}
    words = {word: float(side) for word, side in zip(SIDES, size, strict=True)}
    return {
        key: _filled(name, by_name[key], [_number(words, text) for text in texts], batch)
        for key, texts in options.inputs
    }


def _number(words: Mapping[str, float], text: str) -> float:
    return words[text] if text in words else float(text)


def _filled(name: str, slot: Slot, values: list[float], batch: int) -> npt.NDArray[Any]:
    if slot.dtype is None:
        raise ModelError(
            f"{name}: its input {slot.name} is {slot.said}, which holds no numbers",
            "export it without that input",
        )
    shape = [side or (batch if at == 0 else 0) for at, side in enumerate(slot.shape)]
    if 0 in shape:  # open sides hold all numbers that are given
        shape = [batch, len(values)] if len(shape) == 2 else [side or 1 for side in shape]
    whole, one = int(np.prod(shape)), int(np.prod(shape[1:]))
    for count in (whole, one, 1):
        if len(values) == count:
            return np.broadcast_to(np.resize(np.array(values), shape), shape).astype(slot.dtype)
    raise ModelError(
        f"{name}: input {slot.described()} takes {one} numbers for each picture, {len(values)} are"
        " given",
        "see docs/vision.md",
    )
