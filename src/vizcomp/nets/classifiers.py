"""Classifiers by name: build, save, load. A classifier here takes images in 0..1 and normalises them itself.

A file is safetensors; its metadata `vizcomp` is JSON with the architecture, its configuration (normalisation included), the
names of the classes, and what the training measured. Weights may be stored in half precision; they run in float32.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vizcomp import weights
from vizcomp.errors import ModelError, SettingsError
from vizcomp.nets.inception import PRESETS, Inception, InceptionConfig
from vizcomp.nets.watcher import Watcher, WatcherConfig

ARCHITECTURES = ("inception", "inception-full", "watcher")
BUNDLED = ("inception", "watcher")


class Classifier(nn.Module):
    """A network with its normalisation.

    `forward` takes float32 (N, 3, H, W) RGB in 0..1 and gives logits (N, classes).

    Attributes:
        network: `Inception` or `Watcher`.
        classes: names, in the order of the logits.
        words: the file's metadata.
    """

    def __init__(self, network: Inception | Watcher, classes: tuple[str, ...] = (), words: dict[str, Any] | None = None) -> None:
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


def build(architecture: str, config: dict[str, Any] | None = None) -> Inception | Watcher:
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
        if architecture in ("inception", "inception-full"):
            preset = PRESETS["full" if architecture == "inception-full" else "compact"].to_dict()
            return Inception(InceptionConfig(**{**preset, **values}))
    except (TypeError, ValueError) as exc:
        raise SettingsError(f"{architecture}: the configuration does not fit: {exc}") from exc
    raise SettingsError(f"unknown architecture {architecture!r}", f"use one of {', '.join(ARCHITECTURES)}")


def save(
    path: Path,
    architecture: str,
    network: Inception | Watcher,
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


def load(name: str | Path) -> Classifier:
    """A classifier in evaluation mode, its weights frozen.

    Args:
        name: a bundled name (`inception`, `watcher`) or the path of a .safetensors file.

    Raises:
        ModelError: no such file, damaged, or no classifier of vizcomp.
    """
    from safetensors import SafetensorError, safe_open

    hint = f"use {' or '.join(BUNDLED)}, or a model.safetensors that vizcomp train --kind classifier wrote"
    path = weights.bundled_path(f"{name}.safetensors") if str(name) in BUNDLED else Path(name)
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {}).get("vizcomp", "{}"))
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError, ValueError) as exc:
        raise ModelError(f"{path} cannot be read as weights: {exc}", hint) from exc
    if not isinstance(about, dict) or about.get("kind") != "classifier":
        raise ModelError(f"{path} holds no classifier of vizcomp", hint)
    network = build(str(about.get("architecture")), dict(about.get("network", {})))
    missing = {n for n in network.state_dict() if not n.endswith("num_batches_tracked")}
    if set(tensors) != missing:
        raise ModelError(f"{path}: the weights do not fit the architecture they name", hint)
    try:
        network.load_state_dict(tensors, strict=False)
    except RuntimeError as exc:
        raise ModelError(f"{path}: {str(exc).splitlines()[0]}", hint) from exc
    classifier = Classifier(network, tuple(about.get("classes", ())), about).eval()
    return classifier.requires_grad_(False)
