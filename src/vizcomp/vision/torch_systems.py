"""Models of torchvision as vision systems. Needs the extra `train`."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vizcomp.errors import (
    MissingExtraError,
    ModelError,
    SettingsError,
    WeightsMissingError,
    first_line,
)
from vizcomp.files.place import cache_folder
from vizcomp.vision.answers import Answer, Array, Boxes, Classes, Pixels
from vizcomp.vision.named_options import Allowed, Range, read_options, with_options
from vizcomp.vision.system import (
    BAND,
    LEAST_SCORE,
    System,
    boxes_answer_importance,
    checked,
    corners_to_quads,
    file_fingerprint,
    softmax,
)
from vizcomp.weights import cache, table
from vizcomp.weights.download import fetch
from vizcomp.weights.options import check_choice, check_names

BATCH = 64  # images that are made ready together


@dataclasses.dataclass(frozen=True)
class MiddleFit:
    """The usual preparation of torchvision's classifiers: the shorter side to `resize` pixels, of
    which the middle `crop` are seen.

    Attributes:
        filter: of the resize, one of `OF_CLASSIFIERS["filter"]`.
    """

    resize: int
    crop: int
    filter: str

    @property
    def view(self) -> str:
        """For people."""
        return f"shorter side to {self.resize}, {self.crop} of its middle, {self.filter}"


class TorchClassifier:
    """A classifier of torchvision.

    Args:
        module: takes what `prepare` made, stacked, and gives logits (N, C).
        prepare: uint8 (H, W, 3) to a float tensor (3, h, w).
        fit: how `prepare` works; None where it takes any size.
        camera: the module whose output, float (N, c, h, w), says where it looks (Selvaraju et al.
            2017, Grad-CAM).
    """

    kind: Literal["classes", "boxes", "masks", "embedding"] = "classes"
    native = 0
    input_size: tuple[int, int] | None = None
    crops = False

    @property
    def reading(self) -> str:
        """How a photo comes to it, in one line."""
        named = f"{len(self.classes)} classes named" if self.classes else ""
        parts = [
            "classes",
            self._fit.view if self._fit else "any input size",
            named,
            f"fingerprint {self.fingerprint}",
        ]
        return "; ".join(filter(None, parts))

    def __init__(
        self,
        name: str,
        module: Any,
        prepare: Callable[[Pixels], Any],
        classes: tuple[str, ...],
        fingerprint: str,
        camera: Any,
        *,
        fit: MiddleFit | None = None,
    ) -> None:
        self._fit = fit
        if fit is not None:
            self.input_size, self.crops = (fit.crop, fit.crop), True
            self.seen, self.resample = fit.crop / fit.resize, fit.filter
        self.name, self.classes, self.fingerprint = name, classes, fingerprint
        self._module, self._prepare, self._camera = module, prepare, camera

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        import torch

        rows = [np.zeros((0, len(self.classes)), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                views = torch.stack(
                    [self._prepare(image) for image in images[start : start + BATCH]]
                )
                rows.append(
                    self._module(views.contiguous(memory_format=torch.channels_last))
                    .float()
                    .numpy()
                )
        logits = checked(np.concatenate(rows[1:] or rows), self.name)
        return [Classes(softmax(row), self.classes) for row in logits]

    def importance(self, image: Pixels) -> Array:
        import torch

        kept: list[torch.Tensor] = []

        def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.detach().requires_grad_(True)
            kept.append(output)
            return output

        handle = self._camera.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                logits = self._module(self._prepare(image)[None])
                logits[0, int(logits.argmax())].backward()
        finally:
            handle.remove()
        seen, slope = kept[0].detach()[0], kept[0].grad
        if slope is None or seen.ndim != 3:
            return np.ones((1, 1), np.float32)
        heat = (slope[0].mean((1, 2), keepdim=True) * seen).sum(0).clamp_min(0)
        largest = float(heat.max())
        if not largest > 0:
            return np.ones((1, 1), np.float32)  # nothing stands out: nothing may be given up
        return np.asarray((heat / largest).numpy(), np.float32)


def torchvision_module(spec: str, *, offline: bool, weights: str = "") -> tuple[Any, Any, str]:
    """A model of torchvision with its official weights, kept in our cache.

    Args:
        spec: torchvision:NAME.
        weights: name of the weights, as IMAGENET1K_V1; "": torchvision's default for the model.

    Returns:
        the module, torchvision's record of its weights, and the fingerprint of their file.

    Raises:
        ModelError: no torchvision, no such model, or weights that cannot be read.
        SettingsError: no such weights.
        WeightsMissingError: weights that could not be had.
    """
    try:
        import torch
        import torchvision
    except ImportError as exc:
        raise MissingExtraError("torchvision", "train") from exc
    name = spec.removeprefix("torchvision:")
    try:
        choices = torchvision.models.get_model_weights(name)
        default = choices.DEFAULT
    except (ValueError, AttributeError) as exc:
        near = difflib.get_close_matches(name, torchvision.models.list_models(), 1)
        raise ModelError(
            f"torchvision has no model {name!r} with weights",
            f"did you mean torchvision:{near[0]}?" if near else "as torchvision:resnet18",
        ) from exc
    if weights:
        check_choice("weights", weights, tuple(choices.__members__))
    choice = choices[weights] if weights else default
    folder = cache_folder() / "torchvision"
    file = folder / "checkpoints" / Path(choice.url).name
    by_hand = f"put {file.name} into {file.parent}"
    if not os.path.isfile(file):
        if cache.is_offline(offline):
            raise WeightsMissingError(
                f"the weights of {spec} are not in the cache",
                f"run once without `offline`, or {by_hand}",
            )
        # torchvision names its files NAME-HASH.pth, by the first digits of their SHA-256; torch's
        # own download neither resumes nor locks, and says little where it fails
        digits = file.stem.rpartition("-")[2]
        prefix = digits if re.fullmatch(r"[0-9a-f]{8,64}", digits) else ""
        fetch((table.Source(choice.url),), file, sha256=prefix, by_hand=by_hand)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    try:
        module = (
            torchvision.models.get_model(name, weights=choice, progress=False)
            .eval()
            .requires_grad_(False)
        )
    except (OSError, RuntimeError) as exc:
        why = first_line(exc)
        raise ModelError(
            f"the weights of {spec} cannot be read: {why}", f"remove {file}, and try again"
        ) from exc
    finally:
        torch.hub.set_dir(before)
    return (
        module,
        choice,
        file_fingerprint(file) if os.path.isfile(file) else torchvision.__version__,
    )


# Options in the name: of classifiers the sides in pixels and the filter of their usual
# preparation, of detectors the score from which a box is an answer.
OF_CLASSIFIERS: dict[str, Allowed] = {
    "weights": None,
    "resize": Range(8, 4096, whole=True),
    "crop": Range(8, 4096, whole=True),
    "filter": ("nearest", "bilinear", "bicubic"),
}
OF_DETECTORS: dict[str, Allowed] = {"weights": None, "least": Range(0, 1)}
_KEYWORDS = {"resize": "resize_size", "crop": "crop_size"}


def torchvision_system(spec: str, *, offline: bool) -> System:
    """Any classifier or detector of torchvision, perhaps with options, as
    torchvision:resnet50:resize=232,crop=224.

    Raises:
        SettingsError: an option that the model does not have.
        ModelError, WeightsMissingError, MissingExtraError: as `torchvision_module`.
    """
    name, _, text = spec.removeprefix("torchvision:").partition(":")
    given = read_options(spec, text, {**OF_CLASSIFIERS, **OF_DETECTORS})
    module, choice, fingerprint = torchvision_module(
        f"torchvision:{name}", offline=offline, weights=str(given.get("weights", ""))
    )
    import torch
    from torchvision.transforms import InterpolationMode

    detects = "num_params" in choice.meta and "box_map" in str(choice.meta.get("_metrics", ""))
    check_names(given, OF_DETECTORS if detects else OF_CLASSIFIERS, spec)
    sides: dict[str, Any] = {_KEYWORDS[k]: v for k, v in given.items() if k in _KEYWORDS}
    if "filter" in given:
        sides["interpolation"] = InterpolationMode(given["filter"])
    preset = choice.transforms(**sides)
    if not detects and preset.crop_size[0] > preset.resize_size[0]:
        raise SettingsError(
            f"{spec}: crop={preset.crop_size[0]} is larger than resize={preset.resize_size[0]}",
            "give both, as resize=256,crop=224",
        )
    names = tuple(str(n) for n in choice.meta.get("categories", ()))
    fingerprint = with_options(fingerprint, given)

    def prepare(image: Pixels) -> Any:
        return preset(torch.from_numpy(image.copy()).permute(2, 0, 1))

    if detects:
        least = float(given.get("least", LEAST_SCORE))
        return TorchDetector(spec, module, prepare, names, fingerprint, least=least)
    convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    camera = convolutions[-1] if convolutions else module
    fit = MiddleFit(preset.resize_size[0], preset.crop_size[0], preset.interpolation.value)
    return TorchClassifier(spec, module, prepare, names, fingerprint, camera, fit=fit)


class TorchDetector:
    """A detector with torchvision's manner: a list of images in, dicts of boxes, labels and scores
    out."""

    kind: Literal["classes", "boxes", "masks", "embedding"] = "boxes"
    native = 0

    def __init__(
        self,
        name: str,
        module: Any,
        prepare: Callable[[Pixels], Any],
        classes: tuple[str, ...],
        fingerprint: str,
        *,
        least: float = LEAST_SCORE,
    ) -> None:
        self.name, self.classes, self.fingerprint = name, classes, fingerprint
        self._module, self._prepare, self._least = module, prepare, least

    @property
    def reading(self) -> str:
        """How it answers, in one line."""
        named = f"{len(self.classes)} classes named"
        parts = ["boxes", "any input size", f"from score {self._least:g}", named]
        return "; ".join([*parts, f"fingerprint {self.fingerprint}"])

    def answers(self, images: Sequence[Pixels]) -> list[Answer]:
        import torch

        answers: list[Answer] = []
        for image in images:
            with torch.inference_mode():
                one = self._module([self._prepare(image)])[0]
            answers.append(self._boxes(one, (image.shape[1], image.shape[0])))
        return answers

    def _boxes(self, one: Any, size: tuple[int, int]) -> Boxes:
        """The boxes that are an answer, and beside them those of nearly the least score."""
        scores = one["scores"].numpy().astype(np.float32)
        corners = checked(one["boxes"].numpy().astype(np.float64), self.name)
        labels = [self._label(int(i)) for i in one["labels"]]

        def part(which: Any, below: Boxes | None = None) -> Boxes:
            at = np.flatnonzero(which)
            named = tuple(labels[i] for i in at)
            quads = corners_to_quads(corners[at])
            return Boxes(quads, named, size, scores[at], self._least, below)

        nearly = (scores < self._least) & (scores >= self._least - BAND)
        return part(scores >= self._least, part(nearly))

    def _label(self, index: int) -> str:
        return self.classes[index] if index < len(self.classes) else f"class {index}"

    def importance(self, image: Pixels) -> Array:
        return boxes_answer_importance(self, image)
