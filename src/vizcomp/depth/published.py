"""Depth networks that others published as ONNX files, run as they are: MiDaS, Depth Anything, and
exports like them.

What such a file does not say of itself (how pixels enter, and whether large is near or far) comes
from options in its name, from NAME.json beside it, from its own metadata, or from the
`preprocessor_config.json` and `config.json` that Hugging Face's exports have beside or above them.
Where it stays unsaid the user is asked; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.depth.compact import NAME as OWN
from vizcomp.depth.kinds import Depth
from vizcomp.errors import ModelError, SettingsError, first_line, in_one_line
from vizcomp.files.find import InputFile
from vizcomp.files.foreign import read_object_file
from vizcomp.photos.frame import rgb, upright
from vizcomp.photos.photo import Photo
from vizcomp.weights.options import NORMS, a_number, check_choice, check_names, read_pairs
from vizcomp.weights.sessions import open_session

HINT = "see docs/depth.md for the options of published networks"
MAX_SIDE = 4096  # of an input: a hostile file must not take all memory
POLARITIES = ("near", "far")
ORDERS = ("rgb", "bgr")
FITS = ("stretch", "aspect")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a network is read; "" and 0 and () are silent.

    Attributes:
        norm: one of `NORMS`; or `mean` and `std`, of all channels or of each, in units of white.
        size: width and height of the input; where the network takes any size, with `fit` "aspect"
            it is the photo's shorter side.
        fit: "stretch" to the size, or keep the "aspect", sides rounded to multiples of `multiple`.
        polarity: "near": large is near (disparity); "far": large is far (a distance).
        order: of the channels, "rgb" or "bgr".
        output: name of the output that is the map, where there are several.
    """

    norm: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, ...] = ()
    fit: str = ""
    multiple: int = 0
    polarity: str = ""
    order: str = ""
    output: str = ""

    def __post_init__(self) -> None:
        """Raises SettingsError for a value out of range."""
        for key, choices in {
            "norm": tuple(NORMS),
            "fit": FITS,
            "polarity": POLARITIES,
            "order": ORDERS,
        }.items():
            check_choice(key, getattr(self, key), choices)
        fits = {
            "size": len(self.size) in (0, 2) and all(0 < side <= MAX_SIDE for side in self.size),
            "multiple": 0 <= self.multiple <= 256,
            "mean": (
                len(self.mean) in (0, 1, 3) and all(math.isfinite(value) for value in self.mean)
            ),
            "std": (
                len(self.std) in (0, 1, 3)
                and all(math.isfinite(value) and value > 0 for value in self.std)
            ),
        }
        for key, good in fits.items():
            if not good:
                raise SettingsError(f"{key}: its value is out of range", HINT)

    def merged(self, other: Reading) -> Reading:
        """This, and the other's values where this is silent; a mean and deviation here silence a
        norm there."""
        silent = {
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) == field.default
        }
        if self.norm or self.mean or self.std:
            silent -= {"norm", "mean", "std"}
        return dataclasses.replace(self, **{name: getattr(other, name) for name in silent})


KNOWN: Mapping[str, Reading] = {
    "midas-small": Reading(
        norm="unit", size=(256, 256), fit="stretch", polarity="near", order="rgb"
    ),
    "midas": Reading(norm="unit", size=(384, 384), fit="stretch", polarity="near", order="rgb"),
    "depth-anything-v2-small": Reading(
        norm="imagenet",
        size=(518, 518),
        fit="aspect",
        multiple=14,
        polarity="near",
        order="rgb",
        output="predicted_depth",
    ),
}
"""Readings of the rows of `weights list`. MiDaS's own exports subtract the mean inside (its
`make_onnx_model.py`)."""


def check_file(name: str) -> Callable[[Path], None]:
    """What tells whether a file can be the network of a row of `weights list`; it raises as
    `PublishedDepth`."""

    def check(path: Path) -> None:
        try:
            PublishedDepth(path, KNOWN[name])
        except SettingsError as exc:
            raise ModelError(f"{path} is not {name}: {exc.message}", exc.hint) from exc

    return check


def is_own(path: Path) -> bool:
    """Whether an .onnx file is a network of `vizcomp train --kind depth`: its metadata then have
    that name as it is.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.rfind(OWN.encode()) >= 0
    except ValueError:
        return False  # empty
    except OSError as exc:
        raise ModelError(f"{path}: {exc.strerror or exc}", HINT) from exc


def parse_options(text: str) -> Reading:
    """From "key=value,key=value": sizes as 640x480 or 518, numbers of a list separated by /.

    Raises:
        SettingsError: an unknown key, or a value that does not fit.
    """
    return _made(read_pairs(text), "the depth model's options")


def _made(values: Mapping[str, Any], place: str) -> Reading:
    check_names(values, [field.name for field in dataclasses.fields(Reading)], place)
    fields: dict[str, Any] = {}
    for key, value in values.items():
        try:
            fields[key] = _value(key, value)
        except (TypeError, ValueError) as exc:
            said = " ".join(str(value).split())[:80]
            raise SettingsError(f"{place}: {key}={said}: {in_one_line(exc)}", HINT) from exc
    return Reading(**fields)


def _value(key: str, value: Any) -> Any:
    if key in ("mean", "std", "size"):
        items = (
            value.replace("x", "/").split("/")
            if isinstance(value, str)
            else value
            if isinstance(value, list)
            else [value]
        )
        if key == "size":
            sides = tuple(int(item) for item in items)
            return sides * 2 if len(sides) == 1 else sides
        return tuple(a_number(item) for item in items)
    if key == "multiple":
        return int(value)
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value if key == "output" else value.lower()


def reading_beside(path: Path) -> Reading:
    """What files beside a network say of it: NAME.json, then Hugging Face's two, beside it or a
    folder above.

    Raises:
        ModelError: NAME.json cannot be read, or a value does not fit.
    """
    own = path.with_suffix(".json")
    try:
        said = _made(read_object_file(own), str(own))
    except FileNotFoundError:
        said = Reading()
    except (OSError, ValueError) as exc:
        raise ModelError(f"{own} cannot be read: {first_line(exc)}", HINT) from exc
    except SettingsError as exc:
        raise ModelError(" ".join(exc.message.split()), exc.hint) from exc
    for folder in (path.parent, path.parent.parent):
        said = said.merged(_hugging_face(folder))
    return said


def _hugging_face(folder: Path) -> Reading:
    """The reading that `preprocessor_config.json` and `config.json` of transformers give; what is
    odd in them is left out."""
    files = {}
    for name in ("preprocessor_config.json", "config.json"):
        try:
            files[name] = read_object_file(folder / name)
        except (OSError, ValueError):
            files[name] = {}
    fields: dict[str, Any] = {}
    before, model = files["preprocessor_config.json"], files["config.json"]
    mean, std, size = before.get("image_mean"), before.get("image_std"), before.get("size")
    white = (
        255 * float(before["rescale_factor"])
        if isinstance(before.get("rescale_factor"), float)
        else 1.0
    )
    means, deviations = _numbers(mean, 3), _numbers(std, 3)
    if means and deviations and abs(white - 1) < 1e-3 and before.get("do_normalize", True):
        fields |= {"mean": means, "std": deviations, "order": "rgb"}
    if isinstance(size, dict) and (sides := _numbers([size.get("width"), size.get("height")], 2)):
        fields["size"] = tuple(map(int, sides))
        fields["fit"] = "aspect" if before.get("keep_aspect_ratio") is True else "stretch"
    if multiple := _numbers([before.get("ensure_multiple_of")], 1):
        fields["multiple"] = int(multiple[0])
    kind, estimates = model.get("model_type"), model.get("depth_estimation_type")
    if kind in ("glpn", "zoedepth", "depth_pro") or estimates == "metric":
        fields["polarity"] = "far"
    elif kind in ("dpt", "depth_anything"):
        fields["polarity"] = "near"
    try:
        return Reading(**fields)
    except SettingsError:
        return Reading()


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    """A list of so many numbers; () for anything else."""
    good = (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) for value in values)
    )
    # `foreign` lets no integers in that a float cannot hold
    return tuple(float(value) for value in values) if good else ()


class PublishedDepth:
    """A published depth network; a `DepthSource`.

    Args:
        path: of the .onnx file.
        said: options of its name, or the reading of a row of `weights list`; they come before what
            files say.
        threads: of ONNX Runtime.

    Attributes:
        name: with what decides its answers: the file's SHA-256 and the reading.

    Raises:
        ModelError: it cannot be read, or is no network from a picture to a map.
        SettingsError: how it is to be read is not known.
    """

    def __init__(self, path: Path, said: Reading | None = None, *, threads: int = 1) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._session = open_session(str(path), threads=threads)
            metadata = self._session.get_modelmeta().custom_metadata_map
        except OSError as exc:
            raise ModelError(f"{path}: {exc.strerror or exc}", HINT) from exc
        except Exception as exc:  # ONNX Runtime raises several kinds
            raise ModelError(
                f"{path} is not an ONNX file that can be read: {first_line(exc)[:120]}", HINT
            ) from exc
        names = {field.name for field in dataclasses.fields(Reading)}
        inside = _made(
            {key: value for key, value in metadata.items() if key in names}, f"{path}: its metadata"
        )
        self.reading = (said or Reading()).merged(reading_beside(path)).merged(inside)
        self._input, self._shape = self._only_input()
        self._output = self._map_output()
        self._require()
        self.name = f"{path.stem} {digest[:12]} {_in_words(self.reading)}"

    def _only_input(self) -> tuple[Any, tuple[int | None, ...]]:
        inputs = self._session.get_inputs()
        shape = tuple(
            side if isinstance(side, int) and side > 0 else None
            for side in (inputs[0].shape if inputs else ())
        )
        # (N, 3, H, W), (N, H, W, 3), or (N, views, 3, H, W) as Depth Anything 3 has it
        good = (
            len(inputs) == 1
            and len(shape) in (4, 5)
            and all(side in (None, 1) for side in shape[: len(shape) - 3])
        )
        if not good or inputs[0].type not in ("tensor(float)", "tensor(float16)", "tensor(uint8)"):
            kinds = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise ModelError(
                f"{self._path} is no network from one picture to a map: its inputs are {kinds}",
                HINT,
            )
        if shape[-3] not in (3, None) and shape[-1] != 3:
            raise ModelError(f"{self._path} takes no RGB picture: its input is {list(shape)}", HINT)
        if any(side is not None and side > MAX_SIDE for side in shape):
            raise ModelError(
                f"{self._path} has an input of {list(shape)}, above {MAX_SIDE} pixels a side", HINT
            )
        return inputs[0], shape

    def _map_output(self) -> str:
        names = [one.name for one in self._session.get_outputs()]
        if self.reading.output:
            if self.reading.output not in names:
                raise SettingsError(
                    f"{self._path} has no output {self.reading.output!r}",
                    f"it has {', '.join(names)}",
                )
            return self.reading.output
        if len(names) == 1:
            return str(names[0])
        called = [name for name in names if name in ("predicted_depth", "depth")]
        if len(called) == 1:
            return str(called[0])
        raise SettingsError(
            f"{self._path} has several outputs: {', '.join(names)}",
            f"say which is the map, as {self._path.name}:output={names[0]}",
        )

    @property
    def _channels_last(self) -> bool:
        return self._shape[-3] != 3 and self._shape[-1] == 3

    def _fixed(self) -> tuple[int | None, int | None]:
        """Height and width that the file itself fixes."""
        sides = self._shape[-3:-1] if self._channels_last else self._shape[-2:]
        return sides[0], sides[1]

    def _require(self) -> None:
        """Ask for what is not known; complete the reading with what the file fixes."""
        height, width = self._fixed()
        wanted, fixed = self.reading.size, None not in (height, width)
        if height is not None and width is not None:
            if wanted and wanted != (width, height) and self.reading.fit != "aspect":
                raise SettingsError(
                    f"{self._path} takes {width}x{height}, not {wanted[0]}x{wanted[1]}",
                    "leave size out",
                )
            self.reading = dataclasses.replace(self.reading, size=(width, height), fit="stretch")
        missing = []
        if not (self.reading.norm or (self.reading.mean and self.reading.std)):
            missing.append("norm=imagenet")
        if not (self.reading.size or fixed):
            missing.append("size=518")
        if not self.reading.polarity:
            missing.append("polarity=near")
        if missing:
            what = {
                "norm": "how pixels enter it",
                "size": "at which size",
                "polarity": "whether large is near or far",
            }
            raise SettingsError(
                f"{self._path} does not say"
                f" {', '.join(what[one.partition('=')[0]] for one in missing)}",
                f"say it as {self._path.name}:{','.join(missing)} (norm: {', '.join(NORMS)};"
                f" polarity: near or far), or in {self._path.stem}.json",
            )

    def __call__(self, photo: Photo, file: InputFile) -> Depth:
        values = self.answer(rgb(upright(photo.pixels, photo.orientation)))
        low, high = float(values.min()), float(values.max())
        if high <= low:
            return Depth(np.full(values.shape, 0.5, np.float32))
        nearness = (values - low) / (high - low)
        return Depth(1 - nearness if self.reading.polarity == "far" else nearness)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a photo of a height and width goes through."""
        across, down = self.reading.size
        if self.reading.fit != "aspect":
            return down, across
        scale, step = max(across / width, down / height), max(1, self.reading.multiple)
        high, wide = (max(step, round(side * scale / step) * step) for side in (height, width))
        return min(high, MAX_SIDE // step * step), min(wide, MAX_SIDE // step * step)

    def answer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The network's map of a photo, (H, W, 3) RGB upright: float32 (h, w) as it gives it.

        Raises:
            ModelError: it failed, or its answer is no map or not finite.
        """
        height, width = self.working_size(*pixels.shape[:2])
        image = Image.fromarray(pixels).resize(
            (width, height), Image.Resampling.BICUBIC, reducing_gap=3.0
        )
        field = np.asarray(image)[:, :, ::-1] if self.reading.order == "bgr" else np.asarray(image)
        white, mean, std = (
            NORMS[self.reading.norm]
            if self.reading.norm
            else (1.0, self.reading.mean, self.reading.std)
        )
        real = (
            field.astype(np.float32) * np.float32(white / 255) - np.array(mean, np.float32)
        ) / np.array(std, np.float32)
        real = real if self._channels_last else real.transpose(2, 0, 1)
        real = real.reshape((1,) * (len(self._shape) - 3) + real.shape)
        dtype = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(
            self._input.type, np.float32
        )
        try:
            (output,) = self._session.run(
                [self._output], {self._input.name: np.ascontiguousarray(real.astype(dtype))}
            )
        except Exception as exc:  # ONNX Runtime raises several kinds
            raise ModelError(
                f"{self._path}: the network failed: {first_line(exc)[:160]}", HINT
            ) from exc
        sides = [side for side in output.shape if side != 1]
        if len(sides) != 2:
            raise ModelError(
                f"{self._path}: its output {self._output} of the shape {list(output.shape)} is"
                " no map",
                HINT,
            )
        values = np.asarray(output, np.float32).reshape(sides)
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self._path}: the network's answer is not finite",
                "its reading may be wrong, or its file damaged",
            )
        return values


def _in_words(reading: Reading) -> str:
    """A reading as options."""
    parts = []
    for field in dataclasses.fields(reading):
        value = getattr(reading, field.name)
        if value != field.default:
            if isinstance(value, tuple):
                value = (
                    "x".join(map(str, value))
                    if field.name == "size"
                    else "/".join(f"{number:g}" for number in value)
                )
            parts.append(f"{field.name}={value}")
    return ",".join(parts)
