"""The frozen classifier of a codec's training: one of vizcomp, of torchvision, or any torch module.

    inception, watcher, inception-v3        shipped with vizcomp, or published
    run/model.safetensors                   of `vizcomp train --kind classifier`
    torchvision:resnet18                    with its official weights
    package.module:function                 a function without arguments that returns a torch module
    own.pt, own.torchscript, own.pt2        TorchScript, and programs of torch.export

The last three take options as systems do: `own.pt:norm=imagenet,size=224`. Without `norm` a module
gets RGB in 0..1.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.errors import ModelError, SettingsError, first_line
from vizcomp.graphs.classifiers import BUNDLED, PUBLISHED
from vizcomp.nets import classifiers, exported, inception
from vizcomp.vision.options import PROGRAM, ModelOptions, parse_options
from vizcomp.vision.script_systems import check_script
from vizcomp.vision.torch_systems import torchvision_module
from vizcomp.weights.options import NORMS, split_name

SCRIPTS = (".pt", ".pth", ".torchscript")
USED = ("norm", "mean", "std", "range", "size", "order", "classes")
_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)(?::(.*))?")


class FrozenClassifier(nn.Module):
    """A classifier that a codec is trained through; its weights stay as they are.

    `forward` takes float32 (N, 3, H, W) RGB in 0..1 and gives logits (N, count).

    Attributes:
        name: as it was asked for.
        count: of its classes.
        classes: their names, in the order of the logits; () where nobody says.
        shipped: every installation of vizcomp has it, or can fetch it.
    """

    def __init__(
        self, name: str, module: nn.Module, side: int, options: ModelOptions | None = None
    ) -> None:
        super().__init__()
        options = options or ModelOptions()
        self.name, self.module = name, module
        self.shipped = name in (*BUNDLED, *PUBLISHED)
        self._size = options.size
        self._bgr = options.order == "BGR"
        white, mean, std = NORMS[options.norm or "unit"]
        white, mean, std = options.range or white, options.mean or mean, options.std or std
        self.register_buffer(
            "_mean", torch.tensor(mean).view(1, -1, 1, 1) / white, persistent=False
        )
        self.register_buffer("_std", torch.tensor(std).view(1, -1, 1, 1) / white, persistent=False)
        self._mean: torch.Tensor
        self._std: torch.Tensor
        self.classes: tuple[str, ...] = options.classes or tuple(
            map(str, getattr(module, "classes", ()))
        )
        self.requires_grad_(False)
        self.eval()
        self.count = self._probe(side)
        if len(self.classes) != self.count:
            self.classes = ()

    def train(self, mode: bool = True) -> FrozenClassifier:
        """Stays in evaluation mode."""
        del mode
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self._size and tuple(images.shape[-2:]) != self._size:
            images = F.interpolate(
                images, self._size, mode="bilinear", align_corners=False, antialias=True
            )
        if self._bgr:
            images = images.flip(1)
        out: Any = self.module((images - self._mean) / self._std)
        for field in ("logits", "out"):
            out = getattr(out, field, out)
        if isinstance(out, tuple | list) and out:
            out = out[0]
        if isinstance(out, dict):
            out = out.get("logits", next(iter(out.values()), None))
        return out  # type: ignore[no-any-return]

    def _probe(self, side: int) -> int:
        """The number of classes, from an answer on grey pictures of the side that the codec is
        trained for."""
        images = torch.full((2, 3, side, side), 0.5, requires_grad=True)
        hint = (
            "a classifier takes float32 (N, 3, H, W) RGB and gives logits (N, classes); size= and"
            " norm= say what it expects"
        )
        try:
            with torch.enable_grad():
                logits = self(images)
                good = (
                    isinstance(logits, torch.Tensor)
                    and logits.is_floating_point()
                    and logits.ndim == 2
                )
                good = good and len(logits) == 2 and logits.shape[1] >= 2
                slope = None
                if good and logits.requires_grad:
                    slope = torch.autograd.grad(logits.sum(), images, allow_unused=True)[0]
        except Exception as exc:  # the module is anybody's: it may raise anything
            raise ModelError(
                f"{self.name} fails on pictures of {side}x{side}: {first_line(exc)}", hint
            ) from exc
        if not good:
            what = (
                f"{tuple(logits.shape)}"
                if isinstance(logits, torch.Tensor)
                else f"a {type(logits).__name__}"
            )
            raise ModelError(f"{self.name} answers two pictures with {what}", hint)
        if not bool(logits.isfinite().all()):
            raise ModelError(
                f"{self.name} answers with numbers that are not finite",
                "its weights are damaged, or norm= is wrong",
            )
        if slope is None:
            raise ModelError(
                f"{self.name} gives no gradients: a codec cannot be trained through it",
                "save it without torch.no_grad inside",
            )
        return int(logits.shape[1])


def open_frozen(name: str, side: int) -> FrozenClassifier:
    """A frozen classifier by its name (the head of this file lists the forms).

    Args:
        side: of the pictures that it will see.

    Raises:
        ModelError: no such classifier, or it does not answer as one.
        SettingsError: an option that does not fit.
        WeightsMissingError: official weights that could not be had.
    """
    if name.startswith("torchvision:"):
        spec, _, text = name.removeprefix("torchvision:").partition(":")
        module, weights, _ = torchvision_module(f"torchvision:{spec}", offline=False)
        return FrozenClassifier(name, module, side, _options(text).merged(_of_torchvision(weights)))
    for suffix in (*SCRIPTS, PROGRAM):
        if (split := split_name(name, suffix)) is not None:
            load = exported.load if suffix == PROGRAM else _loaded
            return FrozenClassifier(name, load(split[0]), side, _options(split[1]))
    if (match := _FUNCTION.fullmatch(name)) and not os.path.exists(name):
        return FrozenClassifier(name, _called(match[1], match[2]), side, _options(match[3] or ""))
    ours = classifiers.load(os.path.expanduser(name))
    return FrozenClassifier(name, ours, side)


def one_sided(frozen: FrozenClassifier) -> nn.Module:
    """The classifier itself, or a copy of it that looks at the picture and not at its mirror image,
    normalisations in the convolutions: half the work or less."""
    whole = frozen.module
    if not isinstance(whole, classifiers.Classifier):
        return frozen
    if not isinstance(whole.network, inception.Inception):
        return frozen
    network = copy.deepcopy(whole.network)
    network.config = dataclasses.replace(network.config, mirror=False)
    inception.fold(network)
    one = classifiers.Classifier(network, whole.classes, whole.words).eval().requires_grad_(False)
    one.to(next(whole.parameters()).device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return one


def _options(text: str) -> ModelOptions:
    options = parse_options(text)
    default = ModelOptions()
    given = [key for key in vars(default) if getattr(options, key) != getattr(default, key)]
    if other := sorted(set(given) - set(USED)):
        raise SettingsError(
            f"{other[0]}= says nothing of a classifier to train through", f"use {', '.join(USED)}"
        )
    return options


def _of_torchvision(weights: Any) -> ModelOptions:
    preset, classes = weights.transforms(), tuple(map(str, weights.meta.get("categories", ())))
    sides = list(getattr(preset, "crop_size", None) or [224])
    size = (int(sides[0]), int(sides[-1]))
    mean, std = getattr(preset, "mean", None), getattr(preset, "std", None)
    if not mean or not std:
        return ModelOptions(norm="imagenet", size=size, classes=classes)
    return ModelOptions(range=1.0, mean=tuple(mean), std=tuple(std), size=size, classes=classes)


def _loaded(path: Path) -> nn.Module:
    """TorchScript, which runs no Python code of the file."""
    hint = (
        "torch.jit.script(module).save(PATH.pt), torch.export.save(...) to PATH.pt2, or give"
        " package.module:function"
    )
    if not os.path.isfile(path):
        raise ModelError(f"there is no classifier {path}", "check the path")
    try:
        check_script(path)
        with warnings.catch_warnings():
            # torch calls TorchScript deprecated; people have it
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-any-return,no-untyped-call]
    except ModelError:
        raise
    except Exception as exc:  # a file may be anything: a state dict, a pickled module, no archive
        raise ModelError(f"{path} cannot be read as a TorchScript module", hint) from exc


def _called(module_name: str, function: str) -> nn.Module:
    """What a function of the user returns. The working directory counts as a place of modules, as
    in `python -m`."""
    try:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        module = getattr(importlib.import_module(module_name), function)()
    except Exception as exc:  # it is the user's code
        hint = "name a function without arguments that returns a torch module"
        raise ModelError(
            f"{module_name}:{function} gives no classifier: {type(exc).__name__}:"
            f" {first_line(exc)}",
            hint,
        ) from exc
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"{module_name}:{function} returns a {type(module).__name__}, no torch module",
            "return the module, in its own weights",
        )
    return module
