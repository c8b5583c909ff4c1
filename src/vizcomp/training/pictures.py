"""Labelled pictures of one size to train on, and those that validate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vizcomp.datasets.labelled import LabelledImages, NoPart
from vizcomp.datasets.photos import split
from vizcomp.datasets.read import read_labelled
from vizcomp.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a training on labelled pictures reads.

    Attributes:
        images, labels: uint8 (N, 3, H, W), channels last in memory; int64 (N,). Those that are
            trained on are `images[train]`.
        held_images, held_labels: of the validation part, on which `held` picks; the same arrays
            where it is a share of the data.
        train, held: int64 indices.
        classes: their names, in the order of the labels.
        source: what the data were found as, and what was resized.
        skipped: (name, reason) of each picture that could not be read.
    """

    images: torch.Tensor
    labels: torch.Tensor
    held_images: torch.Tensor
    held_labels: torch.Tensor
    train: torch.Tensor
    held: torch.Tensor
    classes: tuple[str, ...]
    source: str
    skipped: tuple[tuple[str, str], ...]


def read_pictures(
    path: Path,
    *,
    side: int,
    exact: bool,
    validation: float,
    seed: int,
    batch: int,
    device: torch.device,
) -> Pictures:
    """The training part of labelled pictures, and what is held to validate.

    A folder `val`, `valid` or `validation` beside `train` is the validation part; else a share of
    each class is.

    Args:
        side: of the pictures.
        exact: refuse pictures of another size; else they are cropped to the square in their middle
            and resized.
        validation: share that is held where the data have no part of their own for it.
        batch: pictures of an update, of which one must be full.

    Raises:
        InputError: as `datasets.read.read_labelled`.
        TrainingError: fewer pictures than a batch.
    """
    data = read_labelled(path, part="train", size=side, exact=exact)
    own = _own_validation(path, side, exact)
    train, held = split(data.labels, 0.0 if own else validation, seed)
    if len(train) < batch:
        raise TrainingError(
            f"{len(train)} pictures are fewer than one batch of {batch}",
            "give more pictures, or a smaller batch",
        )
    images, labels = _tensors(data, device)
    held_images, held_labels = _tensors(own, device) if own else (images, labels)
    resized = data.resized + (own.resized if own else 0)
    count = len(data) + (len(own) if own else 0)
    return Pictures(
        images=images,
        labels=labels,
        held_images=held_images,
        held_labels=held_labels,
        train=torch.from_numpy(train),
        held=torch.from_numpy(np.arange(len(own))) if own else torch.from_numpy(held),
        classes=data.classes,
        source=data.source
        + (f"; {resized} of {count} pictures resized to {side}x{side}" if resized else ""),
        skipped=(*data.skipped, *(own.skipped if own else ())),
    )


def _own_validation(path: Path, side: int, exact: bool) -> LabelledImages | None:
    """The validation part that the data have; None without one."""
    try:
        return read_labelled(path, part="validation", size=side, exact=exact)
    except NoPart:
        return None


def _tensors(data: LabelledImages, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.asarray(data.images)).permute(0, 3, 1, 2).to(device)
    return images, torch.from_numpy(data.labels).to(device)
