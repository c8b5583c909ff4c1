"""What a model file does not say of itself: options in a system's name, or in NAME.json beside the model.

yolox_nano.onnx:detector=yolox,least=0.4,norm=imagenet,resize=letterbox
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vizcomp.errors import ModelError, SettingsError, VizcompError
from vizcomp.files.foreign import read_object_file, read_small
from vizcomp.weights.options import NORMS, a_number, check_choice, check_names, read_pairs, split_name

MAX_INPUT_SIDE = 8192  # pixels of a model's input: a damaged or hostile one must not take all memory
MOST_NAMES = 8 << 20  # bytes of a file of the names of classes
HINT = "see docs/vision.md for the options of models"

SCRIPTS = (".torchscript", ".pt")
SUFFIXES = (".onnx", ".tflite", *SCRIPTS)  # of model files whose names may have options

KINDS = ("classes", "boxes", "masks", "keypoints", "embedding")
DETECTORS = ("yolov5", "yolov8", "yolov10", "yolox", "detr", "ssd", "torchvision")
RESIZES = ("letterbox", "letterbox-centre", "letterbox-corner", "stretch", "crop")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "area", "opencv", "opencv-lanczos")
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
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of a model file; "" or None or () = by the model, or by the family of detectors.

    Attributes:
        kind: one of `KINDS`.
        detector: one of `DETECTORS`: how the outputs hold boxes.
        layout: "NCHW" or "NHWC".
        size: height and width of the input.
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
        keypoints: of a pose: how many points a figure has, and how many numbers each point (2, or 3 with its certainty).
        points: order of a point's numbers, "xy" or "yx".
        seen: points below this certainty are not seen.
        least: boxes and figures below this score are no answer.
        nms: of two boxes of one class that overlap more (IoU), the surer one stays; 1 = both do.
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

    def __post_init__(self) -> None:
        """Raises SettingsError for a value out of range."""
        for key, choices in CHOICES.items():
            check_choice(key, getattr(self, key), choices)
        fits = {
            "size": len(self.size) in (0, 2) and all(0 < side <= MAX_INPUT_SIDE for side in self.size),
            "grey": self.grey is None or 0 <= self.grey <= 255,
            "crop": self.crop is None or 0 < self.crop <= 1,
            "range": self.range is None or self.range > 0,
            "mean": len(self.mean) in (0, 1, 3),
            "std": len(self.std) in (0, 1, 3) and all(value > 0 for value in self.std),
            "extra": self.extra is None or self.extra >= 0,
            "keypoints": not self.keypoints
            or (len(self.keypoints) == 2 and 0 < self.keypoints[0] <= 1000 and self.keypoints[1] in (2, 3)),
            "seen": self.seen is None or 0 < self.seen <= 1,
            "least": self.least is None or 0 <= self.least <= 1,
            "nms": self.nms is None or 0 < self.nms <= 1,
        }
        for key, good in fits.items():
            if not good:
                raise SettingsError(f"{key}: its value is out of range", HINT)

    def merged(self, others: ModelOptions) -> ModelOptions:
        """These, and the others' values where these are silent."""
        silent = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) == f.default]
        return dataclasses.replace(self, **{name: getattr(others, name) for name in silent})


def model_path(spec: str) -> Path | None:
    """The model file that a system's name stands for, options left out; None where it stands for something else."""
    if spec.lower().endswith(".safetensors"):
        return Path(spec)
    split = split_suffixes(spec, SUFFIXES)
    return None if split is None else split[0]


def split_suffixes(spec: str, suffixes: Iterable[str]) -> tuple[Path, str] | None:
    """`split_name` by the first of some suffixes that fits."""
    return next((split for suffix in suffixes if (split := split_name(spec, suffix)) is not None), None)


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
        raise ModelError(text, exc.hint) from exc


def _made(values: Mapping[str, Any], place: str) -> ModelOptions:
    kinds = {f.name: str(f.type) for f in dataclasses.fields(ModelOptions)}
    made: dict[str, Any] = {}
    if values.get("kind") == "text":
        raise SettingsError(f"{place}: a model file cannot be read as a reader of text", "use the system text:read")
    check_names(values, kinds, place)
    for key, value in values.items():
        try:
            made[key] = _value(key, kinds[key], value)
        except VizcompError:
            raise
        except (TypeError, ValueError) as exc:
            raise SettingsError(f"{place}: {key}={str(value)[:80]}: {exc}", HINT) from exc
    return ModelOptions(**made)


def _value(key: str, kind: str, value: Any) -> Any:
    if key == "classes" and isinstance(value, str):
        return _names(Path(value))
    if kind.startswith("tuple"):
        if isinstance(value, int | float):
            value = [value]
        items = re.split(r"[/x]", value) if isinstance(value, str) else list(value)
        if key == "size" and len(items) == 1:
            items *= 2
        make = str if key == "classes" else int if key in ("size", "keypoints") else a_number
        return tuple(make(item) for item in items)
    if kind.startswith("float"):
        return a_number(value)
    if kind.startswith("int"):
        return int(value)
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value.upper() if key in ("layout", "order") else value.lower() if key in CHOICES else value


def _names(path: Path) -> tuple[str, ...]:
    try:
        text = read_small(path, MOST_NAMES)
        if len(text) > MOST_NAMES:
            raise ValueError(f"more than {MOST_NAMES:,} bytes")
        return tuple(line.strip() for line in text.decode("utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as exc:
        raise SettingsError(f"the names of classes cannot be read: {path}: {exc}", "give a text file with a name a line") from exc
