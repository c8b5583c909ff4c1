"""What a model file does not say of itself: options in a system's name, or in NAME.json beside the
model.

yolox_nano.onnx:detector=yolox,least=0.4,norm=imagenet,resize=letterbox
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vizcomp.errors import ModelError, SettingsError, VizcompError, in_one_line
from vizcomp.files.foreign import read_object_file, read_small
from vizcomp.weights.options import (
    NORMS,
    a_number,
    check_choice,
    check_names,
    read_pairs,
    split_name,
)

# pixels of a model's input: a damaged or hostile one must not take all memory
MAX_INPUT_SIDE = 8192
MOST_NAMES = 8 << 20  # bytes of a file of the names of classes
KEYS_FILES = (".txt", ".dict", ".keys")  # with the characters of a reader of text
INPUT = "input."  # before the name of a further input, in an option
SIDES = ("height", "width")
OWN_SIZE = (0, 0)
BOX = ("left", "top", "right", "bottom")
COLUMNS = (*BOX, "score", "label", "other")  # of rows of boxes; "other" is not looked at

HINT = "see docs/vision.md for the options of models"

SCRIPTS = (".torchscript", ".pt")
PROGRAM = ".pt2"
SUFFIXES = (".onnx", ".tflite", *SCRIPTS, PROGRAM)  # of model files whose names may have options

KINDS = ("classes", "boxes", "masks", "keypoints", "embedding", "text")
DETECTORS = ("yolov5", "yolov8", "yolov10", "yolox", "detr", "ssd", "torchvision")
RESIZES = ("letterbox", "letterbox-centre", "letterbox-corner", "stretch", "crop")
FILTERS = (
    "nearest",
    "bilinear",
    "bicubic",
    "lanczos",
    "area",
    "opencv",
    "opencv-lanczos",
    "opencv-area",
)
ACTIVATIONS = ("none", "sigmoid", "softmax")
CHOICES = {
    "kind": KINDS,
    "detector": DETECTORS,
    "layout": ("NCHW", "NHWC"),
    "order": ("RGB", "BGR"),
    "units": ("pixels", "share"),
    "resize": RESIZES,
    "filter": FILTERS,
    "activation": ACTIVATIONS,
    "norm": tuple(NORMS),
    "points": ("xy", "yx"),
    "background": ("none", "first", "last"),
    "blank": ("first", "last"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of a model file; "" or None or () = by the model, or by the family of detectors.

    Attributes:
        kind: one of `KINDS`.
        detector: one of `DETECTORS`: how the outputs hold boxes.
        layout: "NCHW" or "NHWC".
        size: height and width of the input; (0, 0): each photo's own.
        resize: one of `RESIZES`; "letterbox" has the picture in the centre.
        grey: of the rest of a letterbox, 0..255.
        crop: share of the shorter side that is seen, with resize=crop.
        filter: one of `FILTERS`.
        norm: one of `NORMS`: range, mean and std by a name.
        range: the value that white has in the input, before mean and deviation.
        mean, std: of all channels or of each, in units of `range`.
        order: "RGB" or "BGR".
        classes: names.
        first: the number of the first name, where boxes have labels.
        boxes, scores, labels: names of a detector's outputs.
        units: of a detector's boxes: "pixels" of its input, or "share" of it.
        activation: what makes scores of the numbers.
        extra: columns after the classes that are no classes: keypoints, coefficients of masks.
        keypoints: of a pose: how many points a figure has, and how many numbers each point (2, or 3
            with its certainty).
        points: order of a point's numbers, "xy" or "yx".
        seen: points below this certainty are not seen.
        least: boxes and figures below this score are no answer.
        nms: of two boxes of one class that overlap more (IoU), the surer one stays; 1 = both do.
        output: the output that is read, where several could be.
        background: the column of class scores that means nothing is there: "first", "last" or
            "none".
        image: the input that takes the picture, where a model has several.
        inputs: what the others hold: names and numbers, or "height" and "width" of the picture in
            its input.
        columns: what the columns of rows of boxes hold, of `COLUMNS`.
        characters: of a reader of text, in the order of its answer.
        blank: which column of its answer stands for no character: "first" or "last".
        signature: of a TFLite file with several, the one that is run.
    """

    kind: str = ""
    detector: str = ""
    layout: str = ""
    size: tuple[int, ...] = ()
    resize: str = ""
    grey: float | None = None
    crop: float | None = None
    filter: str = ""
    norm: str = ""
    range: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    order: str = ""
    classes: tuple[str, ...] = ()
    first: int | None = None
    boxes: str = ""
    scores: str = ""
    labels: str = ""
    units: str = ""
    activation: str = ""
    extra: int | None = None
    keypoints: tuple[int, ...] = ()
    points: str = ""
    seen: float | None = None
    least: float | None = None
    nms: float | None = None
    output: str = ""
    background: str = ""
    image: str = ""
    inputs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    columns: tuple[str, ...] = ()
    characters: tuple[str, ...] = ()
    blank: str = ""
    signature: str = ""

    def __post_init__(self) -> None:
        """Raises SettingsError for a value out of range."""
        for key, choices in CHOICES.items():
            check_choice(key, getattr(self, key), choices)
        fits = {
            "size": (
                len(self.size) in (0, 2)
                and (all(0 < side <= MAX_INPUT_SIDE for side in self.size) or self.size == OWN_SIZE)
            ),
            "grey": self.grey is None or 0 <= self.grey <= 255,
            "crop": self.crop is None or 0 < self.crop <= 1,
            "range": self.range is None or self.range > 0,
            "mean": len(self.mean) in (0, 1, 3),
            "std": len(self.std) in (0, 1, 3) and all(value > 0 for value in self.std),
            "extra": self.extra is None or self.extra >= 0,
            "keypoints": (
                not self.keypoints
                or (
                    len(self.keypoints) == 2
                    and 0 < self.keypoints[0] <= 1000
                    and self.keypoints[1] in (2, 3)
                )
            ),
            "seen": self.seen is None or 0 < self.seen <= 1,
            "least": self.least is None or 0 <= self.least <= 1,
            "nms": self.nms is None or 0 < self.nms <= 1,
            "columns": not self.columns or _are_columns(self.columns),
        }
        for key, good in fits.items():
            if not good:
                raise SettingsError(f"{key}: its value is out of range", HINT)

    def merged(self, others: ModelOptions) -> ModelOptions:
        """These, and the others' values where these are silent."""
        silent = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) == f.default]
        return dataclasses.replace(self, **{name: getattr(others, name) for name in silent})


def _are_columns(columns: tuple[str, ...]) -> bool:
    """Whether a box and a score are there, and nothing twice."""
    named = [column for column in columns if column != "other"]
    return {*BOX, "score"} <= {*named} <= {*COLUMNS} and len(named) == len({*named})


def model_path(spec: str) -> Path | None:
    """The model file that a system's name stands for, options left out; None where it stands for
    something else."""
    if spec.lower().endswith(".safetensors"):
        return Path(spec)
    split = split_suffixes(spec, SUFFIXES)
    return None if split is None else split[0]


def split_suffixes(spec: str, suffixes: Iterable[str]) -> tuple[Path, str] | None:
    """`split_name` by the first of some suffixes that fits."""
    return next(
        (split for suffix in suffixes if (split := split_name(spec, suffix)) is not None), None
    )


def typed(name: str, options: str) -> str:
    """A system's name with further options, as it is typed."""
    split = split_suffixes(name, SUFFIXES)
    base, given = (name, "") if split is None else (str(split[0]), split[1])
    return f"{base}:{','.join(filter(None, [given, options]))}"


def parse_options(text: str) -> ModelOptions:
    """From "key=value,key=value"; numbers of a list are separated by /, sizes are as 640x480.

    Raises:
        SettingsError: an unknown key, or a value that does not fit.
    """
    return _made(read_pairs(text), "the name's options")


def read_options(path: Path) -> ModelOptions:
    """From a JSON file; defaults where there is none.

    Raises:
        ModelError: the file cannot be read, or a value does not fit.
    """
    try:
        values = read_object_file(path)
    except FileNotFoundError:
        return ModelOptions()
    except (OSError, ValueError) as exc:
        raise ModelError(f"{path} cannot be read: {exc}", HINT) from exc
    try:
        return _made(values, str(path))
    except SettingsError as exc:
        text = exc.message if exc.message.startswith(str(path)) else f"{path}: {exc.message}"
        raise ModelError(" ".join(text.split()), exc.hint) from exc


def _made(values: Mapping[str, Any], place: str) -> ModelOptions:
    kinds = {f.name: str(f.type) for f in dataclasses.fields(ModelOptions)}
    fields: dict[str, Any] = {}
    values = _with_inputs(values, place)
    check_names(values, kinds, place)
    for key, value in values.items():
        try:
            fields[key] = _value(key, kinds[key], value)
        except VizcompError:
            raise
        except (TypeError, ValueError) as exc:
            said = " ".join(str(value).split())[:80]
            raise SettingsError(f"{place}: {key}={said}: {in_one_line(exc)}", HINT) from exc
    return ModelOptions(**fields)


def _with_inputs(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Options whose `input.NAME` are gathered as `inputs`."""
    rest = {
        key: value for key, value in values.items() if key != "inputs" and not key.startswith(INPUT)
    }
    named = {
        key.removeprefix(INPUT): value for key, value in values.items() if key.startswith(INPUT)
    }
    if isinstance(values.get("inputs"), dict):
        named = {**values["inputs"], **named}
    elif "inputs" in values:
        raise SettingsError(
            f"{place}: inputs={values['inputs']}: names and their numbers are needed",
            "write input.NAME=1/1",
        )
    return {**rest, "inputs": named} if named else rest


def _value(key: str, kind: str, value: Any) -> Any:
    if key == "inputs":
        return tuple((name, _numbers(numbers)) for name, numbers in value.items())
    if key == "size" and value == "own":
        return OWN_SIZE
    if key == "classes" and isinstance(value, str):
        return tuple(filter(None, map(str.strip, _text_of(Path(value), "names").splitlines())))
    if key == "characters" and isinstance(value, str):
        return _characters(value)
    if kind.startswith("tuple"):
        if isinstance(value, int | float):
            value = [value]
        items = re.split(r"[/x]", value) if isinstance(value, str) else list(value)
        if key == "size" and len(items) == 1:
            items *= 2
        whole = key in ("size", "keypoints")
        make = str if key in ("classes", "columns", "characters") else int if whole else a_number
        return tuple(make(item) for item in items)
    if kind.startswith("float"):
        return a_number(value)
    if kind.startswith("int"):
        return int(value)
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return (
        value.upper() if key in ("layout", "order") else value.lower() if key in CHOICES else value
    )


def _numbers(value: Any) -> tuple[str, ...]:
    items = (
        value.split("/")
        if isinstance(value, str)
        else value
        if isinstance(value, list)
        else [value]
    )
    texts = tuple(str(item).strip() for item in items)
    for text in texts:
        if text not in SIDES:
            float(text)
    return texts


def _characters(value: str) -> tuple[str, ...]:
    """Of a file with a character a line; where the value names none, its own."""
    path = Path(value)
    named = path.suffix.lower() in KEYS_FILES or os.path.isfile(path)
    return characters_in(_text_of(path, "characters")) if named else tuple(value)


def characters_in(text: str) -> tuple[str, ...]:
    """A character a line; a space alone on its line is one."""
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _text_of(path: Path, what: str) -> str:
    try:
        text = read_small(path, MOST_NAMES)
        if len(text) > MOST_NAMES:
            raise ValueError(f"more than {MOST_NAMES:,} bytes")
        return text.decode("utf-8")
    except (OSError, ValueError) as exc:
        whose = "the names of classes" if what == "names" else "the characters"
        raise SettingsError(
            f"{whose} cannot be read: {path}: {exc}",
            f"give a text file with a {what.removesuffix('s')} a line",
        ) from exc
