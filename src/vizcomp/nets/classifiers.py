"""Classifiers as torch modules, for training: build, save, load.

A classifier here takes images in 0..1 and normalises them itself. `graphs.classifiers` reads their
files and runs them without torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vizcomp.files.write import beside
from vizcomp.graphs import classifiers as files
from vizcomp.graphs.architectures import InceptionConfig, WatcherConfig, configured
from vizcomp.nets.inception import Inception, fold
from vizcomp.nets.watcher import Watcher
from vizcomp.nets.whitened import Whitened

Network = Inception | Watcher | Whitened
PART = 64  # images that go through together: more do not fit the processor's caches


class Classifier(nn.Module):
    """A network with its normalisation.

    `forward` takes float32 (N, 3, H, W) RGB in 0..1 and gives logits (N, classes).

    Attributes:
        network: `Inception`, `Watcher` or `Whitened`.
        classes: names, in the order of the logits.
        words: the file's metadata.
    """

    def __init__(
        self,
        network: Network,
        classes: tuple[str, ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.words = metadata or {}
        self.register_buffer(
            "mean", torch.tensor(network.config.mean).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(network.config.std).view(1, 3, 1, 1), persistent=False
        )
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean) / self.std)  # type: ignore[no-any-return]


def logits_of(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The logits of a classifier in evaluation mode, a part of the images at a time: float32 (N, 3,
    H, W) to float32 (N, C)."""
    parts = [
        module(part.contiguous(memory_format=torch.channels_last))
        for part in torch.split(images, PART)
    ]
    return torch.cat(parts).float()


def build(architecture: str, config: dict[str, Any] | None = None) -> Network:
    """A network with fresh weights.

    Args:
        architecture: one of `architectures.ARCHITECTURES`.
        config: fields of its configuration that differ from the preset.

    Raises:
        SettingsError: an unknown architecture or field, or a value out of range.
    """
    network = configured(architecture, config)
    if isinstance(network, InceptionConfig):
        return Inception(network)
    return Watcher(network) if isinstance(network, WatcherConfig) else Whitened(network)


def save(
    path: Path,
    architecture: str,
    network: Network,
    classes: tuple[str, ...],
    metadata: dict[str, Any],
    *,
    half: bool = True,
) -> None:
    """Writes a classifier beside and renames it.

    Args:
        metadata: JSON values: what the training measured, licence, data.
        half: store the weights of convolutions in half precision.
    """
    from safetensors.torch import save_file

    tensors = {
        name: (
            (value.half() if half and value.dtype == torch.float32 and value.ndim >= 2 else value)
            .contiguous()
            .cpu()
        )
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    about = {
        **metadata,
        "kind": "classifier",
        "architecture": architecture,
        "network": network.config.to_dict(),
        "classes": classes,
    }
    with beside(path) as part:
        save_file(tensors, part, metadata={"vizcomp": json.dumps(about)})


def built(file: files.ClassifierFile) -> Classifier:
    """The classifier of a file, in evaluation mode, its weights frozen."""
    network = build(file.architecture, file.config.to_dict())
    network.load_state_dict(
        {n: torch.from_numpy(v.copy()) for n, v in file.weights.items()}, strict=False
    )
    return Classifier(network, file.classes, dict(file.words)).eval().requires_grad_(False)


def load(name: str | Path, *, offline: bool = False) -> Classifier:
    """A classifier in evaluation mode, its weights frozen. Names and errors are those of
    `graphs.classifiers.read`."""
    return built(files.read(name, offline=offline))


def load_folded(name: str | Path, *, offline: bool = False) -> Classifier:
    """As `load`, made ready for `logits_of`: normalisations folded into the convolutions, weights
    laid out as images are."""
    classifier = load(name, offline=offline)
    fold(classifier.network)
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]
