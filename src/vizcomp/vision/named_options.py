"""Options of systems that are no files: text:threshold=0.6, torchvision:resnet50:resize=232."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Mapping, Sequence

from vizcomp.errors import ModelError, SettingsError
from vizcomp.weights.options import check_choice, check_names, read_pairs

HINT = "see docs/vision.md for the options of systems"


@dataclasses.dataclass(frozen=True)
class Range:
    """What a number may be.

    Attributes:
        low, high: its bounds, both allowed.
        whole: of pixels.
    """

    low: float
    high: float
    whole: bool = False


Allowed = Range | tuple[str, ...] | None  # None: any text


def split_options(spec: str, names: Sequence[str]) -> tuple[str, str]:
    """The longest of some names that a spec begins with, and the text of its options.

    Raises:
        ModelError: what follows is none; it says what is near.
    """
    known = sorted((name for name in names if spec == name or spec.startswith(f"{name}:")), key=len)
    name = known[-1] if known else spec.partition(":")[0]
    rest = spec[len(name) + 1 :]
    if rest and "=" not in rest:
        near = difflib.get_close_matches(spec, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"options follow as {name}:key=value"
        raise ModelError(f"unknown vision system {spec!r}", hint)
    return name, rest


def read_options(spec: str, text: str, allowed: Mapping[str, Allowed]) -> dict[str, float | str]:
    """The options of a system's name.

    Args:
        spec: the whole name, for messages.
        text: as "key=value,key=value".
        allowed: by key.

    Raises:
        SettingsError: an unknown key, with what is near, or a value out of range.
    """
    pairs = read_pairs(text)
    check_names(pairs, allowed, spec)
    return {key: _value(spec, key, value, allowed[key]) for key, value in pairs.items()}


def _value(spec: str, key: str, value: str, allowed: Allowed) -> float | str:
    if allowed is None:
        return value
    if isinstance(allowed, tuple):
        check_choice(key, value, allowed)
        return value
    try:
        number: float = int(value) if allowed.whole else float(value)
    except ValueError:
        number = float("nan")
    if not allowed.low <= number <= allowed.high:
        kind = "a whole number" if allowed.whole else "a number"
        raise SettingsError(
            f"{spec}: {key}={value}", f"{key} is {kind} from {allowed.low:g} to {allowed.high:g}"
        )
    return number


def with_options(fingerprint: str, options: Mapping[str, float | str]) -> str:
    """A fingerprint that knows the options: six more digits where there are any."""
    if not options:
        return fingerprint
    digest = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()
    return f"{fingerprint}-{digest[:6]}"


def said(options: Mapping[str, float | str]) -> str:
    """Options for people."""
    return ", ".join(
        f"{key} {value:g}" if not isinstance(value, str) else f"{key} {value}"
        for key, value in options.items()
    )
