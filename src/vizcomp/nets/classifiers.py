"""Classifiers by name: build, save, load. A classifier here takes images in 0..1 and normalises them itself.

A file is safetensors; its metadata `vizcomp` is JSON with the architecture, its configuration (normalisation included), the
names of the classes, and what the training measured. Weights may be stored in half precision; they run in float32.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vizcomp.errors import InputError, ModelError, SettingsError, first_line
from vizcomp.nets.inception import PRESETS, Inception, InceptionConfig, fold
from vizcomp.nets.watcher import Watcher, WatcherConfig
from vizcomp.nets.whitened import Whitened, WhitenedConfig
from vizcomp.weights import cache, table
from vizcomp.weights.tensors import read_tensors

ARCHITECTURES = ("inception", "inception-full", "watcher", "whitened")
Network = Inception | Watcher | Whitened
BUNDLED = ("inception", "watcher")
PUBLISHED = ("inception-v3",)
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# A lead in logits that bfloat16 may get wrong: of 15,000 answers of the bundled classifiers, two thirds on images spoilt by JPEG,
# it got 32 wrong, none with a lead above 0.032.
CLOSE = 0.1
PART = 64  # images that go through together: more do not fit the processor's caches
LEAST_CALIBRATED = 0.7  # accuracy below which a calibration says nothing
DEVIATIONS = {"2019": (0.2023, 0.1994, 0.2010), "2021": (0.2471, 0.2435, 0.2616)}  # by the year of PyTorch_CIFAR10's weights


class Classifier(nn.Module):
    """A network with its normalisation.

    `forward` takes float32 (N, 3, H, W) RGB in 0..1 and gives logits (N, classes).

    Attributes:
        network: `Inception`, `Watcher` or `Whitened`.
        classes: names, in the order of the logits.
        words: the file's metadata.
    """

    def __init__(self, network: Network, classes: tuple[str, ...] = (), words: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.words = words or {}
        self.register_buffer("mean", torch.tensor(network.config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(network.config.std).view(1, 3, 1, 1), persistent=False)
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean) / self.std)  # type: ignore[no-any-return]


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16: about twice as fast as float32, and slower without them."""
    able = (getattr(torch.cpu, f"_is_{what}_supported", lambda: False) for what in ("avx512_bf16", "amx_tile"))
    return any(ask() for ask in able)  # no public way to ask


def logits_of(module: nn.Module, images: torch.Tensor, *, mixed: bool = False) -> torch.Tensor:
    """The logits of a classifier in evaluation mode, a part of the images at a time: float32 (N, 3, H, W) to float32 (N, C).

    Args:
        module: a `Classifier`, or one of torchvision.
        mixed: multiply in bfloat16. The best class stays what it is in float32: where it leads by less than `CLOSE` the image is
            answered again. Other probabilities differ by up to about 0.01.
    """
    logits = _through(module, images, mixed=mixed)
    if mixed and len(logits):
        first, second = logits.topk(2, 1).values.T
        if len(close := torch.nonzero(first - second < CLOSE)[:, 0]):
            logits[close] = _through(module, images[close], mixed=False)
    return logits


def _through(module: nn.Module, images: torch.Tensor, *, mixed: bool) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        parts = [module(part.contiguous(memory_format=torch.channels_last)) for part in torch.split(images, PART)]
    return torch.cat(parts).float()


def build(architecture: str, config: dict[str, Any] | None = None) -> Network:
    """A network with fresh weights.

    Args:
        architecture: one of `ARCHITECTURES`.
        config: fields of its configuration that differ from the preset.

    Raises:
        SettingsError: an unknown architecture or field, or a value out of range.
    """
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (config or {}).items()}
    try:
        if architecture == "watcher":
            return Watcher(WatcherConfig(**values))
        if architecture == "whitened":
            return Whitened(WhitenedConfig(**values))
        if architecture in ("inception", "inception-full"):
            preset = PRESETS["full" if architecture == "inception-full" else "compact"].to_dict()
            return Inception(InceptionConfig(**{**preset, **values}))
    except (TypeError, ValueError) as exc:
        raise SettingsError(f"{architecture}: the configuration does not fit: {exc}") from exc
    raise SettingsError(f"unknown architecture {architecture!r}", f"use one of {', '.join(ARCHITECTURES)}")


def save(
    path: Path,
    architecture: str,
    network: Network,
    classes: tuple[str, ...],
    words: dict[str, Any],
    *,
    half: bool = True,
) -> None:
    """Writes a classifier beside and renames it.

    Args:
        words: JSON values for the metadata: what the training measured, licence, data.
        half: store the weights of convolutions in half precision.
    """
    from safetensors.torch import save_file

    tensors = {
        name: (value.half() if half and value.dtype == torch.float32 and value.ndim >= 2 else value).contiguous().cpu()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    about = {**words, "kind": "classifier", "architecture": architecture, "network": network.config.to_dict(), "classes": classes}
    beside = path.with_name(f".{path.name}.part")
    save_file(tensors, beside, metadata={"vizcomp": json.dumps(about)})
    beside.chmod(0o644)
    os.replace(beside, path)


def file_of(name: str | Path, *, offline: bool = False) -> Path:
    """The file of a classifier: bundled, published (fetched where it is not in the cache), added by hand, or a path.

    Raises:
        WeightsMissingError: a published one that could not be had.
    """
    if str(name) in BUNDLED:
        return table.bundled_path(f"{name}.safetensors")
    if str(name) in PUBLISHED:
        return cache.obtain(str(name), offline=offline, check=check_published)
    return cache.added_model(str(name)) or Path(name)


def load_published(path: Path, year: str) -> Classifier:
    """PyTorch_CIFAR10's Inception v3 from its state dict; nothing in the file is executed.

    Args:
        year: of the weights, a key of `DEVIATIONS`: that says how their input was normalised.

    Raises:
        ModelError: no state dict, or not of this network; lists what is missing, extra or of another shape.
    """
    import pickle
    import warnings

    network = Inception(dataclasses.replace(PRESETS["full"], std=DEVIATIONS[year]))
    hint = "give inception_v3.pt of PyTorch_CIFAR10"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols than torch's own: it reads them or refuses them
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:  # its own words advise to let the file run code
        raise ModelError(
            f"{path} cannot be read as a state dict: it holds other things than tensors, or is damaged", hint
        ) from exc
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as exc:
        raise ModelError(
            f"{path} cannot be read as a state dict: {(str(exc) or 'it ends too early').splitlines()[0].partition('. ')[0]}", hint
        ) from exc
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):  # a whole checkpoint
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise ModelError(f"{path} holds no state dict", hint)
    state = {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    weights = {n: v for n, v in _without_prefix(weights).items() if not n.endswith("num_batches_tracked")}
    wrong = {
        "missing": sorted(state.keys() - weights.keys()),
        "extra": sorted(map(str, weights.keys() - state.keys())),
        "of another shape": [
            f"{n} {tuple(weights[n].shape)} for {tuple(state[n].shape)}"
            for n in state
            if n in weights and weights[n].shape != state[n].shape
        ],
    }
    if any(wrong.values()):
        said = [
            f"{what}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
            for what, names in wrong.items()
            if names
        ]
        raise ModelError(f"{path} is not Inception v3 for CIFAR-10; {'; '.join(said)}", hint)
    weights = {n: v.float() for n, v in weights.items()}
    if damaged := next((n for n, v in weights.items() if not bool(v.isfinite().all())), ""):
        raise ModelError(f"{path}: {damaged!r} holds what is not a finite number", "its weights are damaged; get it again")
    network.load_state_dict(weights, strict=False)
    return Classifier(network, CIFAR_CLASSES, {"architecture": "inception-full"}).eval().requires_grad_(False)


def _without_prefix(state: dict[Any, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without what a wrapper (DataParallel, Lightning) put before each name: "module.", "model."."""
    first = "Conv2d_1a_3x3.conv.weight"
    before = next((str(n).removesuffix(first) for n in state if str(n).endswith(first)), "")
    return {str(n).removeprefix(before): v for n, v in state.items()}


def check_published(path: Path) -> None:
    """Whether a file is PyTorch_CIFAR10's Inception v3.

    Raises:
        ModelError: as `load_published`.
    """
    load_published(path, "2021")


def year_of(name: str) -> str:
    """The normalisation that is kept with the cached copy of a published classifier; that of 2021 where nobody knows."""
    remark = str(cache.recorded(name).get("words", ""))
    return remark if remark in DEVIATIONS else "2021"


def calibrate(name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> dict[str, float]:
    """Chooses the normalisation of a published classifier by its accuracy, and keeps it with the cached copy.

    Args:
        images: uint8 (N, 32, 32, 3).
        labels: (N,), in the order of CIFAR-10's classes.

    Returns:
        Accuracy of each year.
    """
    path = cache.obtain(name, offline=True)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    figures = {}
    for year in DEVIATIONS:
        classifier = load_published(path, year)
        with torch.inference_mode():
            answers = torch.cat([classifier(part).argmax(1) for part in torch.split(batch, 50)]).numpy()
        figures[year] = float((answers == labels).mean())
    before = year_of(name)
    cache.note(name, words=max(figures, key=lambda year: (figures[year], year == before)))  # alike: as it was
    return figures


def calibration_images(path: Path, most: int = 1000) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images to calibrate on, evenly chosen from a data set's test part, or from all of it where it has none.

    Returns:
        uint8 (N, 32, 32, 3), and int64 (N,) labels in the order of CIFAR-10's classes, whatever the order in the data.

    Raises:
        InputError: nothing there, or classes that CIFAR-10 does not have.
    """
    from vizcomp.datasets.read import read_labelled

    try:
        data = read_labelled(path, part="test", size=32)
    except InputError:
        data = read_labelled(path, part="all", size=32)
    if strange := [c for c in data.classes if c not in CIFAR_CLASSES]:
        raise InputError(
            f"{path} has the class {strange[0]}, which CIFAR-10 does not have", f"its classes are {', '.join(CIFAR_CLASSES)}"
        )
    numbers = np.array([CIFAR_CLASSES.index(c) for c in data.classes], np.int64)
    count = min(most, len(data))
    chosen = np.arange(count) * len(data) // max(1, count)
    return data.images[chosen], numbers[data.labels[chosen]]


def load(name: str | Path, *, offline: bool = False) -> Classifier:
    """A classifier in evaluation mode, its weights frozen.

    Args:
        name: a bundled name (`inception`, `watcher`), a published one (`inception-v3`), one that `weights add` gave, or the
            path of a .safetensors file.
        offline: never touch the network.

    Raises:
        ModelError: no such file, damaged, or no classifier of vizcomp.
        WeightsMissingError: a published one that could not be had.
    """
    if str(name) in PUBLISHED:
        return load_published(file_of(name, offline=offline), year_of(str(name)))
    hint = f"use {' or '.join(BUNDLED)}, or a model.safetensors that vizcomp train --kind classifier wrote"
    path = file_of(name)
    about, tensors = read_tensors(path, "pt", hint, what="weights")
    if about.get("kind") != "classifier":
        raise ModelError(f"{path} holds no classifier of vizcomp", hint)
    tensors = {n: v.float() for n, v in tensors.items()}
    try:
        architecture, config = str(about.get("architecture")), dict(about.get("network", {}))
        with torch.device("meta"):  # a network that the words claim and the file does not hold takes no memory
            own = build(architecture, config).state_dict()
        shapes = {n: v.shape for n, v in own.items() if not n.endswith("num_batches_tracked")}
        if {n: v.shape for n, v in tensors.items()} != shapes:
            raise ModelError(f"{path}: the weights do not fit the architecture they name", hint)
        network = build(architecture, config)
        network.load_state_dict(tensors, strict=False)
        classifier = Classifier(network, tuple(map(str, about.get("classes", ()))), about)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, OverflowError) as exc:
        # the words are the file's: anything may stand there
        raise ModelError(f"{path}: its configuration is invalid: {first_line(exc)}", hint) from exc
    return classifier.eval().requires_grad_(False)


def load_folded(name: str | Path, *, offline: bool = False) -> Classifier:
    """As `load`, made ready for `logits_of`: normalisations folded into the convolutions, weights laid out as images are."""
    classifier = load(name, offline=offline)
    fold(classifier.network)
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]
