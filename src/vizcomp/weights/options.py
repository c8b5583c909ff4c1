"""Options of a model file: in its name, as PATH.onnx:key=value,key=value, or in NAME.json beside
it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vizcomp.errors import SettingsError

# name: value of white before mean and deviation, mean, deviation
NORMS: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "unit": (1.0, (0.0,), (1.0,)),
    "bytes": (255.0, (0.0,), (1.0,)),
    "signed": (1.0, (0.5,), (0.5,)),
    "imagenet": (1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": (1.0, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


def split_name(spec: str, suffix: str) -> tuple[Path, str] | None:
    """A model file's path and the text of its options, or None where no such file is named.

    Args:
        spec: as PATH.onnx, or PATH.onnx:key=value,key=value.
        suffix: of the file, as ".onnx".
    """
    if spec.lower().endswith(suffix):
        return Path(spec), ""
    match = re.fullmatch(rf"(.*{re.escape(suffix)}):(.*)", spec, re.IGNORECASE | re.DOTALL)
    return (Path(match[1]), match[2]) if match else None


def read_pairs(text: str) -> dict[str, str]:
    """The values of "key=value,key=value" by their keys.

    Raises:
        SettingsError: a part that is no pair.
    """
    values: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise SettingsError(
                f"option {part!r} has no value", "write options as key=value,key=value"
            )
        values[key.strip()] = value.strip()
    return values


def a_number(value: Any) -> float:
    """A finite number, from one or from its text.

    Raises:
        ValueError, TypeError: it is none.
    """
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a finite number is needed")
    return number


def check_names(values: Mapping[str, Any], names: Collection[str], place: str) -> None:
    """Refuses keys that name no option.

    Args:
        place: where the values stand, for the message.

    Raises:
        SettingsError: names the first of them.
    """
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(names)}"
            raise SettingsError(f"{place}: unknown option {key!r}", hint)


def check_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Refuses a value that is none of the words for it; "" is silence.

    Raises:
        SettingsError: with the nearest of the words, or all.
    """
    if value and value not in choices:
        near = difflib.get_close_matches(value, choices, 1)
        hint = f"did you mean {key}={near[0]}?" if near else f"{key} is one of {', '.join(choices)}"
        raise SettingsError(f"{key}={value}: no such choice", hint)
