"""Training of the small depth network: data, losses, loop, checkpoint, export.

Stages of a run, all from one seed:

    1. pretraining (if there is data for it): the encoder learns to tell classes of small pictures apart;
    2. folds (if asked for): for each part of the photos, an ensemble that learns from the others and then answers for it,
       so that every photo gets an answer of networks that have not seen it;
    3. members: each starts from that encoder, with its own decoder and its own order of the photos;
    4. calibration: what the members' disagreement is worth, on the folds' answers, or on the validation photos, which no
       member was trained on;
    5. export: model.safetensors, model.json, model.onnx.

The state is kept at every epoch's end and written at intervals and on Ctrl-C; a run that goes on from it gives the same
weights, bit for bit, as one that was never stopped (on one device and one version of torch).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import OutputError, SettingsError, TrainingError, first_line
from vizcomp.metrics import spearman
from vizcomp.nets.compact_depth import (
    POSITION_STRIDE,
    STRIDE,
    CompactDepthConfig,
    build,
    build_ensemble,
    ensemble_moments,
    export_onnx,
    pad_to_stride,
    position_planes,
    rank_scale,
    scale_photo,
)
from vizcomp.training.settings import check_choices, check_ranges

if TYPE_CHECKING:
    import torch

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAP_SUFFIXES = (".png", ".tif", ".tiff", ".jpg")
SOURCE_SCALE = 1.5  # photos are held this much larger than the network sees them: a crop of 2/3 is still sharp
CHECKPOINT = "checkpoint.pt"
FOLD_OVER = ("places", "photos")
PRIOR_CELLS = (24, 32)
ENCODER = ("stem.", "stage1.", "stage2.", "stage3.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthTrainSettings:
    """What a training run is made of; saved in the run folder.

    Attributes:
        data: folder with `photos/` and `depth/`, paired by file stem; bright = near in the maps.
        pretrain: folder with one sub-folder of small pictures for each class; "" for none.
        pretrain_epochs: passes over those pictures.
        pretrain_small: the first of these passes, which see the pictures at 48x48 only.
        pretrain_batch, pretrain_rate: of AdamW there; the rate falls to zero in a straight line.
        pretrain_erase: share of batches in which squares of the pictures are painted over.
        held_every: every n-th photo in sorted order is left out altogether, for a later test; 0 for none.
        folds: parts of the remaining photos for cross-validation; 0 for none. With folds no photo is kept for validation.
        fold_over: "places": photos whose stems agree up to the first "_" stay in one part, if there are as many such groups;
            "photos": dealt out one by one, so that the others of its place are learnt from.
        validation: share of the remaining photos that is not trained on, but followed and used for the calibration.
        epochs: passes over the photos, for each member.
        side: long side of the training crops; 0 for the network's. A network may be run at a larger side than it learned at.
        batch, learning_rate, weight_decay: of AdamW, with a cosine schedule.
        encoder_rate: learning rate of a pretrained encoder, as a share of `learning_rate`.
        dropout: of the network's deepest maps.
        average: decay of the moving average of the weights; the average is what is kept.
        gradient_weight: of the gradient term of the loss.
        zoom: crops are as small as 1 / zoom of the photo's sides.
        colour: strength of the changes of gamma, saturation, contrast, brightness and tint; 0 for none.
        cutmix: share of batches in which each photo is cut and joined with part of another.
        shapes: share of batches whose crops are not 4:3 (upright, square, wide).
        erase: share of photos in which a rectangle is painted over.
        seed: of everything.
        device: of torch, "cpu" or "cuda".
        half: compute in bfloat16 where torch holds that safe (on CPU: about 1.5 times as fast with AVX-512 BF16).
        validate_every, checkpoint_every: in epochs.
        licence: of the weights, written into the ONNX file.
        network: configuration of the network.
    """

    data: str = ""
    pretrain: str = ""
    pretrain_epochs: int = 3
    pretrain_small: int = 0
    pretrain_batch: int = 64
    pretrain_rate: float = 3e-3
    pretrain_erase: float = 0.0
    held_every: int = 0
    folds: int = 0
    fold_over: str = "places"
    validation: float = 0.1
    epochs: int = 200
    side: int = 0
    batch: int = 16
    learning_rate: float = 3e-3
    encoder_rate: float = 0.3
    weight_decay: float = 0.05
    dropout: float = 0.1
    average: float = 0.995
    gradient_weight: float = 0.25
    zoom: float = 1.5
    colour: float = 1.0
    cutmix: float = 0.0
    erase: float = 0.3
    shapes: float = 0.2
    seed: int = 0
    device: str = "cpu"
    half: bool = False
    validate_every: int = 20
    checkpoint_every: int = 20
    licence: str = ""
    network: CompactDepthConfig = dataclasses.field(default_factory=CompactDepthConfig)

    def __post_init__(self) -> None:
        ranges = {
            "pretrain_epochs": (0, 10_000),
            "pretrain_small": (0, 10_000),
            "pretrain_batch": (2, 4096),
            "pretrain_rate": (1e-8, 10.0),
            "pretrain_erase": (0.0, 1.0),
            "folds": (0, 1000),
            "held_every": (0, 1_000_000),
            "validation": (0.0, 0.9),
            "epochs": (1, 1_000_000),
            "side": (0, 1024),
            "batch": (2, 4096),
            "learning_rate": (1e-8, 10.0),
            "encoder_rate": (0.0, 10.0),
            "weight_decay": (0.0, 10.0),
            "dropout": (0.0, 0.5),
            "average": (0.0, 0.99999),
            "gradient_weight": (0.0, 100.0),
            "zoom": (1.0, 4.0),
            "colour": (0.0, 1.0),
            "cutmix": (0.0, 1.0),
            "erase": (0.0, 1.0),
            "shapes": (0.0, 1.0),
            "seed": (0, 2**31 - 1),
            "validate_every": (1, 1_000_000),
            "checkpoint_every": (1, 1_000_000),
        }
        check_ranges(self, ranges)
        check_choices(self, {"fold_over": FOLD_OVER})
        if self.held_every == 1:
            raise SettingsError("held_every = 1 leaves no photo to train on", "0 leaves none out, 5 every fifth")
        if self.side % STRIDE:
            raise SettingsError(f"side = {self.side} is not a multiple of {STRIDE}")
        if self.folds == 1:
            raise SettingsError("folds = 1 leaves no photo to train on", "0 does without, 5 leaves out a fifth at a time")

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dict of JSON types."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "network": self.network.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DepthTrainSettings:
        """The inverse of `to_dict`; fields that are left out get their defaults.

        Raises:
            SettingsError: an unknown field, or a value out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SettingsError(f"unknown training setting: {', '.join(unknown)}", f"there are: {', '.join(sorted(known))}")
        network = values.get("network", {})
        try:
            return cls(**{**values, "network": CompactDepthConfig.from_dict(dict(network))})
        except TypeError as exc:
            raise SettingsError(f"training settings: {exc}") from exc


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is. `rank_correlation` is of the validation photos (in a fold: of the photos left out), None where it
    was not measured in this epoch.

    Attributes:
        stage: "pretrain", "fold" or "member".
        fold: from 0 in the stage "fold", -1 elsewhere.
        member: from 0; of `members`.
        epoch: epochs done in this stage, of `epochs`.
        loss: mean over the epoch.
        fit: accuracy (pretraining) or Pearson correlation on the training crops (member), mean over the epoch.
        images_per_second: over the epoch.
        seconds_left: an estimate for the whole run.
    """

    stage: str
    fold: int
    member: int
    members: int
    epoch: int
    epochs: int
    loss: float
    fit: float
    rank_correlation: float | None
    images_per_second: float
    seconds_left: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run gave.

    Attributes:
        folder: the run folder.
        photos: photos trained on; `validation_photos` and `held_photos` were not.
        skipped: photos that were left out, with the reason.
        rank_correlation: mean Spearman of the ensemble on the validation photos, or of the folds' ensembles, each on the
            photos left out of it; None without either.
        seconds: of this call.
    """

    folder: str
    photos: int
    validation_photos: int
    held_photos: int
    skipped: tuple[str, ...]
    rank_correlation: float | None
    seconds: float


# --- data ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DepthData:
    """Photos with their maps.

    Attributes:
        names: file stems, sorted.
        sources: uint8 (h, w, 3), `SOURCE_SCALE` times as large as the network's input.
        photos: uint8 (h', w', 3), as the network sees them, not padded.
        ranks: float32 (h'', w''), maps on the rank scale, at half the network's input size.
        skipped: "name: reason" of photos left out.
    """

    names: tuple[str, ...]
    sources: tuple[npt.NDArray[np.uint8], ...]
    photos: tuple[npt.NDArray[np.uint8], ...]
    ranks: tuple[npt.NDArray[np.float32], ...]
    skipped: tuple[str, ...]


def read_depth_data(folder: Path, long_side: int) -> DepthData:
    """Reads `folder/photos` and `folder/depth`; what has no map or cannot be read is skipped and named.

    Raises:
        TrainingError: there is no such folder, or fewer than two usable photos.
    """
    from PIL import Image

    hint = "give a folder that holds photos/ and depth/, files paired by name (a.jpg and a.png), bright = near"
    photos, maps = folder / "photos", folder / "depth"
    for part in (photos, maps):
        if not part.is_dir():
            raise TrainingError(f"no training data: {part} is not a folder", hint)
    by_stem = {p.stem: p for p in sorted(maps.iterdir()) if p.suffix.lower() in MAP_SUFFIXES}
    names, sources, seen, ranks, skipped = [], [], [], [], []
    for path in sorted(p for p in photos.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES and not p.name.startswith(".")):
        if path.stem not in by_stem:
            skipped.append(f"{path.name}: no map of that name")
            continue
        try:
            with Image.open(path) as file:
                photo = np.asarray(file.convert("RGB"))
            with Image.open(by_stem[path.stem]) as file:
                depth = np.asarray(file.convert("L") if file.mode in ("P", "RGB", "RGBA", "LA", "1") else file, dtype=np.float32)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            skipped.append(f"{path.name}: {first_line(exc)}")
            continue
        small = scale_photo(photo, long_side)
        size = (max(2, small.shape[1] // 2), max(2, small.shape[0] // 2))
        map_small = np.asarray(Image.fromarray(depth).resize(size, Image.Resampling.BOX))
        if map_small.max() - map_small.min() <= 1e-6:
            skipped.append(f"{path.name}: its map has no differences")
            continue
        names.append(path.stem)
        sources.append(scale_photo(photo, round(long_side * SOURCE_SCALE)))
        seen.append(small)
        ranks.append(rank_scale(map_small))
    if len(names) < 2:
        raise TrainingError(f"{len(names)} usable photos in {folder}, {len(skipped)} skipped: too few to train on", hint)
    return DepthData(tuple(names), tuple(sources), tuple(seen), tuple(ranks), tuple(skipped))


def split_photos(count: int, held_every: int, validation: float) -> tuple[list[int], list[int], list[int]]:
    """Indices of training, validation and held photos. The validation photos lie evenly among those not held."""
    held = [i for i in range(count) if held_every and i % held_every == held_every - 1]
    rest = [i for i in range(count) if not (held_every and i % held_every == held_every - 1)]
    wanted = 0 if validation == 0 else max(1, round(len(rest) * validation))
    chosen = {rest[int((k + 0.5) * len(rest) / wanted)] for k in range(wanted)} if wanted else set()
    return [i for i in rest if i not in chosen], sorted(chosen), held


def fold_parts(names: list[str], folds: int, over: str = "places") -> list[list[int]]:
    """Indices of the photos of each fold.

    Over "photos", names are dealt out one by one. Over "places" they are grouped by what stands before their first "_" (in
    SVT, the place), and the groups are dealt out in sorted order, so that near-duplicates do not lie on both sides of a split.
    Names with fewer than `folds` groups are dealt out one by one.

    Raises:
        TrainingError: there are fewer names than folds.
    """
    if len(names) < folds:
        raise TrainingError(f"{len(names)} photos cannot be split into {folds} folds", "give more photos, or a smaller folds")
    places = [name.split("_")[0] for name in names]
    if over == "photos" or len(set(places)) < folds:
        places = list(names)
    number = {place: k for k, place in enumerate(sorted(set(places)))}
    return [[i for i, place in enumerate(places) if number[place] % folds == f] for f in range(folds)]


def read_class_folders(folder: Path, side: int = 32) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Small pictures in class folders: uint8 (N, 3, side, side) and classes int64 (N,).

    Raises:
        TrainingError: fewer than two classes with pictures.
    """
    from PIL import Image

    if not folder.is_dir():
        raise TrainingError(f"no pretraining data: {folder} is not a folder", "give a folder with one sub-folder for each class")
    pictures: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    for label, part in enumerate(sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))):
        for path in sorted(p for p in part.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES):
            try:
                with Image.open(path) as file:
                    picture = file.convert("RGB")
            except (OSError, ValueError, SyntaxError):
                continue
            if picture.size != (side, side):
                picture = picture.resize((side, side), Image.Resampling.BOX)
            pictures.append(np.asarray(picture).transpose(2, 0, 1))
            labels.append(label)
    if len(set(labels)) < 2:
        raise TrainingError(
            f"{folder} holds pictures of {len(set(labels))} classes", "two or more sub-folders with pictures are needed"
        )
    return np.stack(pictures), np.asarray(labels)


# --- augmentation and loss -----------------------------------------------------------------------------------------


def _uniform(low: float, high: float, *shape: int) -> torch.Tensor:
    import torch

    return torch.rand(shape) * (high - low) + low


def _chance(share: float) -> bool:
    import torch

    return bool(torch.rand(()) < share)


def _batch_size(side: int, other_shapes: float) -> tuple[int, int]:
    """Height and width of a batch: 4:3, or at random another shape of that size; multiples of the stride."""
    import torch

    shapes = ((0.75, 1.0), (1.0, 0.75), (0.875, 0.875), (0.625, 1.0), (0.5, 1.0))
    pick = int(torch.randint(1, len(shapes), ())) if _chance(other_shapes) else 0
    down, right = shapes[pick]
    return max(1, round(side * down / STRIDE)) * STRIDE, max(1, round(side * right / STRIDE)) * STRIDE


def augmented_batch(data: DepthData, chosen: list[int], settings: DepthTrainSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Random views of photos: float32 (N, 3, H, W) around 0..1, and their maps, standardised: (N, 1, H / 4, W / 4).

    Crop, zoom, aspect, a small turn, mirror; gamma, saturation, contrast, brightness, tint, blur, noise; rectangles
    painted over; and photos joined with parts of others (Yun et al., "CutMix", 2019), which keeps a place's depth from
    being read off a scene that was learnt by heart.
    """
    import torch
    from torch.nn import functional as F

    height, width = _batch_size(settings.side or settings.network.long_side, settings.shapes)
    views, maps = [], []
    for index in chosen:
        source = torch.from_numpy(data.sources[index].transpose(2, 0, 1)[None].astype(np.float32) / 255)
        ranks = torch.from_numpy(data.ranks[index][None, None])
        h, w = source.shape[2:]
        zoom = math.exp(-float(torch.rand(())) * math.log(settings.zoom))
        aspect = math.exp(float(_uniform(-0.09, 0.09)))
        fit = min(h / height, w / width) * zoom
        across, down = min(1.0, fit * width / w * aspect), min(1.0, fit * height / h / aspect)
        mirror = -1.0 if _chance(0.5) else 1.0
        turn = float(_uniform(-0.06, 0.06))
        theta = torch.tensor(
            [
                [across * mirror, turn * down * h / w, float(_uniform(-1, 1)) * (1 - across)],
                [-turn * across * mirror * w / h, down, float(_uniform(-1, 1)) * (1 - down)],
            ]
        )[None]
        grid = F.affine_grid(theta, [1, 3, height, width], align_corners=False)
        views.append(F.grid_sample(source, grid, padding_mode="reflection", align_corners=False))
        grid = F.affine_grid(theta, [1, 1, height // POSITION_STRIDE, width // POSITION_STRIDE], align_corners=False)
        maps.append(F.grid_sample(ranks, grid, padding_mode="border", align_corners=False))
    x, y = torch.cat(views), torch.cat(maps)
    n = len(chosen)
    c = settings.colour
    x = x.clamp(0, 1) ** torch.exp(_uniform(-0.5 * c, 0.5 * c, n, 1, 1, 1))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(1 - 0.8 * c, 1 + 0.5 * c, n, 1, 1, 1)
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + (x - level) * _uniform(1 - 0.4 * c, 1 + 0.3 * c, n, 1, 1, 1) + _uniform(-0.15 * c, 0.15 * c, n, 1, 1, 1)
    x = x * _uniform(1 - 0.15 * c, 1 + 0.15 * c, n, 3, 1, 1)
    if _chance(0.3):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    x = x + torch.randn_like(x) * _uniform(0.0, 0.04, n, 1, 1, 1)
    for k in range(n):
        if _chance(settings.erase):
            h, w = int(height * _uniform(0.1, 0.4)), int(width * _uniform(0.1, 0.4))
            top, left = int((height - h) * torch.rand(())), int((width - w) * torch.rand(()))
            x[k, :, top : top + h, left : left + w] = torch.rand(3, 1, 1)
    y = (y - y.mean((2, 3), keepdim=True)) / y.std((2, 3), keepdim=True).clamp(min=0.05)
    if _chance(settings.cutmix):
        others = torch.randperm(n)
        if _chance(0.5):
            cells = width // POSITION_STRIDE
            cut = int(torch.randint(cells // 4, cells * 3 // 4, ()))
            x[..., cut * POSITION_STRIDE :] = x[others][..., cut * POSITION_STRIDE :]
            y[..., cut:] = y[others][..., cut:]
        else:
            cells = height // POSITION_STRIDE
            cut = int(torch.randint(cells // 4, cells * 3 // 4, ()))
            x[:, :, cut * POSITION_STRIDE :] = x[others][:, :, cut * POSITION_STRIDE :]
            y[:, :, cut:] = y[others][:, :, cut:]
    return x, y


def depth_loss(found: torch.Tensor, target: torch.Tensor, gradient_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale-and-shift-invariant loss with a gradient term.

    1 - r, r being Pearson's correlation over the crop, is half the mean squared error that is left after the best scale
    and shift of standardised maps (the alignment of Ranftl et al., "Towards robust monocular depth estimation", 2020,
    section 5); on rank-scaled targets it follows the rank correlation. The gradient term compares differences between
    neighbours at three scales (their equation 11), after that alignment. A weak last term keeps the free scale near 1.

    Args:
        found: (N, 1, h, w), any scale and shift.
        target: (N, 1, h, w).

    Returns:
        the loss, and r of each crop (N,).
    """
    from torch.nn import functional as F

    cells = found.shape[2] * found.shape[3]
    f = found - found.mean((2, 3), keepdim=True)
    t = target - target.mean((2, 3), keepdim=True)
    norm = f.flatten(1).norm(dim=1)
    r = (f * t).flatten(1).sum(1) / (norm * t.flatten(1).norm(dim=1) + 1e-4)
    loss = (1 - r).mean()
    deviation = norm / math.sqrt(cells)
    a = f / (deviation[:, None, None, None] + 1e-3) * r[:, None, None, None].clamp(min=0)
    b = t
    for _ in range(3):
        across = (a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])
        down = (a[:, :, 1:] - a[:, :, :-1]) - (b[:, :, 1:] - b[:, :, :-1])
        loss = loss + gradient_weight * (across.abs().mean() + down.abs().mean())
        if min(a.shape[2:]) < 4:
            break
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return loss + 1e-3 * (deviation - 1).pow(2).mean(), r.detach()


# --- evaluation and calibration ------------------------------------------------------------------------------------


def _network_input(photo: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """A photo at the network's size, uint8 (h, w, 3), as image (1, h', w', 3) and position planes."""
    import torch

    return torch.from_numpy(pad_to_stride(photo)[None]), torch.from_numpy(position_planes(*photo.shape[:2])[None])


def _resized(array: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    from PIL import Image

    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


def mean_map(data: DepthData, chosen: list[int]) -> torch.Tensor:
    """Mean of the chosen photos' standardised maps, standardised again: (1, 1, 24, 32)."""
    import torch

    total = torch.zeros(1, 1, *PRIOR_CELLS)
    for index in chosen:
        ranks = torch.from_numpy(_resized(data.ranks[index], *PRIOR_CELLS).copy())
        total += (ranks - ranks.mean()) / ranks.std().clamp(min=0.05)
    total -= total.mean()
    return total / total.std().clamp(min=1e-6)


def member_maps(
    config: CompactDepthConfig,
    members: list[torch.nn.Module],
    prior: torch.Tensor | None,
    data: DepthData,
    chosen: list[int],
    first: int = 0,
) -> list[torch.Tensor]:
    """Maps of each photo, without its padding: (1, members, h / 4, w / 4); `members` are the network's from `first` on."""
    import torch

    sides = config.sides[first : first + len(members)]
    config = dataclasses.replace(config, members=len(members), sides=sides)
    ensemble: Any = build_ensemble(config, members, prior).eval()
    found = []
    with torch.no_grad():
        for index in chosen:
            photo = data.photos[index]
            maps = ensemble.maps(*_network_input(photo))
            rows, columns = math.ceil(photo.shape[0] / POSITION_STRIDE), math.ceil(photo.shape[1] / POSITION_STRIDE)
            found.append(maps[..., :rows, :columns].clone())
    return found


def rank_correlations(maps: list[torch.Tensor], data: DepthData, chosen: list[int]) -> npt.NDArray[np.float64]:
    """Spearman correlation of the members' mean with the map, for each photo chosen, of which `maps` are the answers."""
    scores = []
    for index, answer in zip(chosen, maps, strict=True):
        truth = data.ranks[index]
        found = _resized(answer.mean(1)[0].numpy().astype(np.float32), *truth.shape)
        score = spearman(found, truth)
        scores.append(score if math.isfinite(score) else 0.0)
    return np.asarray(scores)


def calibrate(maps: list[torch.Tensor], data: DepthData, chosen: list[int]) -> tuple[float, float, float]:
    """(a, b, c) of confidence = sigmoid(a - b log(spread) - c log(photo's mean spread)), by least squares.

    What is fitted is each cell's concordance: over all other cells of its photo, the share that the network puts in the
    right order minus the share in the wrong order. b and c are kept from being negative: a network that disagrees with
    itself is never trusted more.
    """
    import torch

    features, targets = [], []
    for index, answer in zip(chosen, maps, strict=True):
        mean, spread, photo = ensemble_moments(answer)
        p = mean.flatten()
        t = torch.from_numpy(_resized(data.ranks[index], *mean.shape[2:]).copy()).flatten()
        agree = torch.sign(p[:, None] - p[None]) * torch.sign(t[:, None] - t[None])
        targets.append(agree.sum(1) / (len(p) - 1))
        features.append(torch.stack([spread.flatten(), photo.expand_as(spread).flatten()], 1))
    x, y = torch.cat(features), torch.cat(targets)
    centre, scale = x.mean(0), x.std(0).clamp(min=1e-3)
    z = (x - centre) / scale
    parameters = torch.tensor([0.0, -1.0, -1.0], requires_grad=True)
    optimiser = torch.optim.Adam([parameters], lr=0.1)
    for _ in range(300):
        slopes = torch.nn.functional.softplus(parameters[1:])
        loss = (torch.sigmoid(parameters[0] - z @ slopes) - y).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    slopes = torch.nn.functional.softplus(parameters[1:]).detach() / scale
    a = parameters[0].detach() + (slopes * centre).sum()
    return round(float(a), 4), round(float(slopes[0]), 4), round(float(slopes[1]), 4)


# --- the run -------------------------------------------------------------------------------------------------------


def train_depth(
    settings: DepthTrainSettings,
    folder: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Trains the depth network and writes the run folder.

    Args:
        folder: gets settings.json, checkpoint.pt, metrics.jsonl, curves.svg, and at the end model.safetensors,
            model.json and model.onnx.
        resume: go on from the folder's checkpoint, with the same settings.
        on_progress: called at the end of every epoch. A KeyboardInterrupt from it, or at any time, writes the checkpoint
            of the last finished epoch and is raised again.

    Raises:
        TrainingError: no data, loss not finite, out of memory, device missing.
        SettingsError: `resume` with other settings or without a checkpoint; not `resume` and the folder holds a run.
        OutputError: the folder cannot be written.
    """
    import torch

    started = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{folder}: {exc.strerror or exc}", "choose a folder that can be written with -o") from exc
    checkpoint = folder / CHECKPOINT
    if not resume and checkpoint.exists():
        raise SettingsError(f"{folder} holds a run already", "add --resume to go on with it, or choose another folder with -o")
    state = _read_checkpoint(checkpoint, settings) if resume else None
    try:
        device = torch.device(settings.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise TrainingError(f"device {settings.device!r} cannot be used: {first_line(exc)}", "use --device cpu") from exc
    data = read_depth_data(Path(settings.data), settings.network.long_side)
    share = 0.0 if settings.folds else settings.validation
    train, validation, held = split_photos(len(data.names), settings.held_every, share)
    if len(train) < 2:
        raise TrainingError(f"{len(train)} photos are left to train on", "give more photos, or a smaller --validation")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = _Run(settings, folder, device, data, train, validation, on_progress)
        try:
            if state is None:
                run.start()
            else:
                run.restore(state)
            run.all_stages()
        except KeyboardInterrupt:
            run.write()
            raise
        except RuntimeError as exc:
            if "out of memory" in str(exc).lower() or "can't allocate" in str(exc).lower():
                raise TrainingError("out of memory", "use a smaller batch or smaller channels in the recipe") from exc
            raise
        except OSError as exc:
            raise _unwritable(exc, folder) from exc
        score = run.finish()
    return TrainResult(
        folder=str(folder),
        photos=len(train),
        validation_photos=len(validation),
        held_photos=len(held),
        skipped=data.skipped,
        rank_correlation=score,
        seconds=time.monotonic() - started,
    )


def _read_checkpoint(path: Path, settings: DepthTrainSettings) -> dict[str, Any]:
    import torch

    if not path.is_file():
        raise SettingsError(f"nothing to resume: no {path}", "leave --resume away to start a run")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = json.loads(state["settings"])
    except Exception as exc:  # torch raises several kinds for a damaged file
        raise TrainingError(f"{path} cannot be read: {type(exc).__name__}", "start the run again in another folder") from exc
    now = settings.to_dict()
    if different := [name for name in now if name != "device" and now[name] != before.get(name)]:
        raise SettingsError(
            f"the run in {path.parent} was started with another {', '.join(different)}", "resume with the same settings"
        )
    return state


class _Run:
    """The state of a run and its loop; `snapshot` is the state at the end of the last finished epoch."""

    def __init__(
        self,
        settings: DepthTrainSettings,
        folder: Path,
        device: torch.device,
        data: DepthData,
        train: list[int],
        validation: list[int],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        self.data, self.train, self.validation = data, train, validation
        self.report = on_progress
        names = [data.names[i] for i in train]
        self.parts = [[train[i] for i in part] for part in fold_parts(names, settings.folds, settings.fold_over)]
        self.jobs = [(fold, k) for fold in [*range(settings.folds), -1] for k in range(settings.network.members)]
        self.job = 0
        self.pretraining = bool(settings.pretrain and settings.pretrain_epochs)
        self.encoder: dict[str, torch.Tensor] = {}
        self.done: list[dict[str, torch.Tensor]] = []  # averaged weights of the finished members that are kept
        self.answers: dict[str, torch.Tensor] = {}  # of the folds' members, for the photos left out: (1, members, h, w)
        self.epoch = 0
        self.records: list[dict[str, Any]] = []
        self.snapshot: dict[str, Any] = {}

    # state

    def start(self) -> None:
        import torch

        torch.manual_seed(self.settings.seed)
        _write_text(self.folder / "settings.json", json.dumps(self.settings.to_dict(), indent=2) + "\n")
        if self.pretraining:
            self._begin_pretraining()
        else:
            self._begin_member()
        self._keep()
        self.write()

    def restore(self, state: dict[str, Any]) -> None:
        import torch

        self.pretraining, self.job, self.epoch = state["pretraining"], state["job"], state["epoch"]
        self.encoder, self.done, self.answers = state["encoder"], state["done"], state["answers"]
        self.records = json.loads(state["records"])
        if self.pretraining:
            self._begin_pretraining()
        else:
            self._begin_member()
        if "model" in state:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])  # fresh weights above took random numbers: back to where the epoch ended
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self._keep()

    def _keep(self) -> None:
        """Copies the state at an epoch's end, so that it can be written however the next epoch ends."""
        import copy

        import torch

        self.snapshot = {
            "settings": json.dumps(self.settings.to_dict()),
            "pretraining": self.pretraining,
            "encoder": self.encoder,
            "job": self.job,
            "done": list(self.done),
            "answers": dict(self.answers),
            "epoch": self.epoch,
            "records": json.dumps(self.records),
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            self.snapshot["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        if self.job < len(self.jobs):
            self.snapshot |= copy.deepcopy(
                {
                    "model": self.model.state_dict(),
                    "average": self.average.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                }
            )

    def write(self) -> None:
        """Checkpoint, metrics and curves, each written beside and renamed."""
        import torch

        if not self.snapshot:
            return
        beside = self.folder / f".{CHECKPOINT}.part"
        torch.save(self.snapshot, beside)
        os.replace(beside, self.folder / CHECKPOINT)
        records = json.loads(self.snapshot["records"])
        _write_text(self.folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        _write_text(self.folder / "curves.svg", curves_svg(records))

    # stages

    def _begin_member(self) -> None:
        """Network, its average and its optimiser for the member that comes next; nothing after the last."""
        import torch

        s = self.settings
        if self.job < len(self.jobs):
            fold, member = self.jobs[self.job]
            # so a member does not hang on how long the stage before it was
            torch.manual_seed(s.seed * 1000 + 1 + member + (fold + 1) * s.network.members)
            network = build(s.network, dropout=s.dropout)
            network.load_state_dict(self.encoder, strict=False)
            self._set_network(network, s.learning_rate, s.learning_rate * (s.encoder_rate if self.encoder else 1.0))

    def _set_network(self, network: torch.nn.Module, other_rate: float, encoder_rate: float) -> None:
        import copy

        import torch

        s = self.settings
        self.model = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval()
        groups: list[dict[str, Any]] = []
        for encoder in (False, True):
            some = [p for name, p in self.model.named_parameters() if name.startswith(ENCODER) == encoder]
            rate = encoder_rate if encoder else other_rate
            weights = [p for p in some if p.ndim > 1]
            others = [p for p in some if p.ndim <= 1]  # norms and biases are not pulled to zero
            groups.append({"params": weights, "weight_decay": s.weight_decay, "peak": rate})
            groups.append({"params": others, "weight_decay": 0.0, "peak": rate})
        self.optimiser = torch.optim.AdamW(groups, lr=s.learning_rate)

    def all_stages(self) -> None:
        import torch

        s = self.settings
        while self.pretraining:
            if self.epoch < s.pretrain_epochs:
                self._pretrain_epoch()
                continue
            self.encoder = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items() if k.startswith(ENCODER)}
            self.pretraining, self.epoch = False, 0
            self._begin_member()
            self._keep()
            self.write()
        while self.job < len(self.jobs):
            while self.epoch < s.epochs:
                self._member_epoch()
            fold, member = self.jobs[self.job]
            if fold < 0:
                self.done.append({k: v.detach().cpu().clone() for k, v in self.average.state_dict().items()})
            else:
                left_out = self.parts[fold]
                for index, maps in zip(left_out, self._answers(left_out), strict=True):
                    name = self.data.names[index]
                    self.answers[name] = torch.cat([self.answers[name], maps], 1) if member else maps
            self.epoch, self.job = 0, self.job + 1
            self._begin_member()
            self._keep()
            self.write()

    def _step(self, loss: torch.Tensor) -> None:
        import torch

        if not bool(torch.isfinite(loss)):
            raise TrainingError("the loss is not finite any more", "use a smaller --learning-rate, and --half off")
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()

    def _begin_pretraining(self) -> None:
        import torch

        s = self.settings
        pictures, labels = read_class_folders(Path(s.pretrain))
        self.images, self.classes = torch.from_numpy(pictures), torch.from_numpy(labels)
        network = build(s.network, dropout=s.dropout)
        network.head = torch.nn.Linear(2 * s.network.channels[3], int(self.classes.max()) + 1)
        self._set_network(network, s.pretrain_rate, s.pretrain_rate)

    def _pretrain_epoch(self) -> None:
        """The encoder learns to tell classes apart, at several scales, so that its features are of things."""
        import torch
        from torch.nn import functional as F

        s = self.settings
        began, losses, hits = time.monotonic(), [], []
        per_epoch = max(1, len(self.images) // s.pretrain_batch)
        total = per_epoch * s.pretrain_epochs
        order = torch.randperm(len(self.images))
        for k in range(per_epoch):
            step = self.epoch * per_epoch + k
            _set_rate(self.optimiser, min(1.0, (step + 1) / 100) * (1 - step / total))
            chosen = order[k * s.pretrain_batch : (k + 1) * s.pretrain_batch]
            x = self._small_views(self.images[chosen]).to(self.device)
            target = self.classes[chosen].to(self.device)
            self.model.train()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=s.half):
                at16 = self.model.features(x.contiguous(memory_format=torch.channels_last))[2]
            at16 = at16.float()
            answer = self.model.head(torch.cat([at16.mean((2, 3)), at16.amax((2, 3))], 1))
            loss = F.cross_entropy(answer, target, label_smoothing=0.1)
            self._step(loss)
            losses.append(float(loss.detach()))
            hits.append(float((answer.argmax(1) == target).float().mean()))
        self.epoch += 1
        self._tell("pretrain", s.pretrain_epochs, losses, hits, None, per_epoch * s.pretrain_batch, time.monotonic() - began)

    def _small_views(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, 3, 32, 32) to float32 (N, 3, s, s), s of 48 to 64, mirrored, shifted and recoloured at random."""
        import torch
        from torch.nn import functional as F

        n, side = len(images), images.shape[-1]
        x = images.float() / 255
        x = torch.where(torch.rand(n)[:, None, None, None] < 0.5, x.flip(3), x)
        top, left = (int(v) for v in torch.randint(0, 9, (2,)))
        x = F.pad(x, (4, 4, 4, 4), mode="reflect")[:, :, top : top + side, left : left + side]
        x = x ** torch.exp(_uniform(-0.4, 0.4, n, 1, 1, 1))
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * _uniform(0.3, 1.5, n, 1, 1, 1) + _uniform(-0.1, 0.1, n, 3, 1, 1)
        square = int(torch.randint(6, 16, ()))
        top, left = (int(v) for v in torch.randint(0, side - square, (2,)))
        if _chance(self.settings.pretrain_erase):
            x[:, :, top : top + square, left : left + square] = torch.rand(n, 3, 1, 1)
        size = 48 if self.epoch < self.settings.pretrain_small else (48, 64, 64)[int(torch.randint(3, ()))]
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)

    def _member_epoch(self) -> None:
        import torch

        s = self.settings
        began, losses, fits = time.monotonic(), [], []
        fold = self.jobs[self.job][0]
        left_out = self.validation if fold < 0 else self.parts[fold]
        train = self._learned_from()
        batch = min(s.batch, len(train))
        per_epoch = max(1, len(train) // batch)
        total = per_epoch * s.epochs
        order = [train[k] for k in torch.randperm(len(train))]
        for k in range(per_epoch):
            step = self.epoch * per_epoch + k
            _set_rate(self.optimiser, min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / total)))
            x, y = augmented_batch(self.data, order[k * batch : (k + 1) * batch], s)
            planes = torch.from_numpy(position_planes(*x.shape[2:])).expand(len(x), -1, -1, -1)
            x = x.to(self.device).contiguous(memory_format=torch.channels_last)
            self.model.train()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=s.half):
                found = self.model(x, planes.to(self.device))
            loss, r = depth_loss(found.float(), y.to(self.device), s.gradient_weight)
            self._step(loss)
            self._update_average(min(s.average, (step + 1) / (step + 10)))
            losses.append(float(loss.detach()))
            fits.append(float(r.mean()))
        self.epoch += 1
        score = None
        if left_out and (self.epoch % s.validate_every == 0 or self.epoch == s.epochs):
            score = float(rank_correlations(self._answers(left_out), self.data, left_out).mean())
        stage = "member" if fold < 0 else "fold"
        self._tell(stage, s.epochs, losses, fits, score, per_epoch * batch, time.monotonic() - began)

    def _learned_from(self) -> list[int]:
        """Indices of the photos of the current job: all but those of its fold."""
        fold = self.jobs[self.job][0]
        left_out = set(self.parts[fold]) if fold >= 0 else set()
        return [i for i in self.train if i not in left_out]

    def _answers(self, chosen: list[int]) -> list[torch.Tensor]:
        """Maps by the current member's average, with the mean map of what it learned from."""
        prior = mean_map(self.data, self._learned_from())
        member = self.jobs[self.job][1]
        maps = member_maps(self.settings.network, [self.average.cpu()], prior, self.data, chosen, member)
        self.average.to(self.device)
        return maps

    def _update_average(self, decay: float) -> None:
        import torch

        with torch.no_grad():
            now = self.model.state_dict()
            for name, value in self.average.state_dict().items():
                if value.dtype.is_floating_point:
                    value.lerp_(now[name], 1 - decay)
                else:
                    value.copy_(now[name])

    def _tell(
        self,
        stage: str,
        epochs: int,
        losses: list[float],
        fits: list[float],
        score: float | None,
        images: int,
        seconds: float,
    ) -> None:
        """Records an epoch's end, keeps the state, and calls `on_progress`."""
        fold, member = self.jobs[self.job]
        left = epochs - self.epoch
        if stage != "pretrain":
            left += (len(self.jobs) - 1 - self.job) * epochs
        progress = Progress(
            stage=stage,
            fold=-1 if stage == "pretrain" else fold,
            member=member,
            members=self.settings.network.members,
            epoch=self.epoch,
            epochs=epochs,
            loss=sum(losses) / len(losses),
            fit=sum(fits) / len(fits),
            rank_correlation=score,
            images_per_second=images / max(seconds, 1e-9),
            seconds_left=left * seconds,
        )
        record = {k: getattr(progress, k) for k in ("stage", "fold", "member", "epoch", "loss", "fit", "rank_correlation")}
        self.records.append(record)
        self._keep()
        if stage == "pretrain" or self.epoch % self.settings.checkpoint_every == 0:
            self.write()
        if self.report is not None:
            self.report(progress)

    def finish(self) -> float | None:
        """Calibration and export; the mean rank correlation of the ensemble on the validation photos."""
        from safetensors.torch import save_file

        s = self.settings
        members = []
        for weights in self.done:
            member = build(s.network)
            member.load_state_dict(weights)
            members.append(member.eval())
        score = None
        prior = mean_map(self.data, self.train)
        calibration = s.network.calibration
        chosen = sorted(i for part in self.parts for i in part) or self.validation
        if chosen:
            if self.parts:
                maps = [self.answers[self.data.names[i]] for i in chosen]
            else:
                maps = member_maps(s.network, members, prior, self.data, chosen)
            scores = rank_correlations(maps, self.data, chosen)
            score = float(scores.mean())
            calibration = calibrate(maps, self.data, chosen)
        config = dataclasses.replace(s.network, calibration=calibration)
        card = {
            "kind": "depth",
            "network": config.to_dict(),
            "settings": s.to_dict(),
            "validation_rank_correlation": score,
            "photos": {
                "trained_on": len(self.train),
                "validation": [self.data.names[i] for i in self.validation],
                "folds": [[self.data.names[i] for i in part] for part in self.parts],
            },
            "skipped": list(self.data.skipped),
        }
        try:
            self.write()
            beside = self.folder / ".model.safetensors.part"
            tensors = {f"{k}.{name}": v.contiguous() for k, weights in enumerate(self.done) for name, v in weights.items()}
            tensors["prior"] = prior
            save_file(tensors, beside)
            os.replace(beside, self.folder / "model.safetensors")
            words = {"licence": s.licence, "data": "photos with depth maps"}
            export_onnx(config, self.done, self.folder / "model.onnx", prior=prior, metadata=words)
            _write_text(self.folder / "model.json", json.dumps(card, indent=2) + "\n")
        except OSError as exc:
            raise _unwritable(exc, self.folder) from exc
        return score


def _set_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


def _unwritable(exc: OSError, folder: Path) -> OutputError:
    return OutputError(f"{exc.filename or folder}: {exc.strerror or exc}", "free space there, then go on with --resume")


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)


# --- curves --------------------------------------------------------------------------------------------------------

_COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#b7791f", "#7b4fb5", "#4a5568")


def curves_svg(records: list[dict[str, Any]]) -> str:
    """Training and validation correlation of each member over its epochs, as an SVG document of 640x360.

    Where there are folds, theirs.
    """
    left, top, right, bottom = 56, 20, 620, 310
    member_records = [r for r in records if r["stage"] == "fold"] or [r for r in records if r["stage"] == "member"]
    epochs = max((int(r["epoch"]) for r in member_records), default=1)

    def point(epoch: float, value: float) -> str:
        x = left + (right - left) * epoch / epochs
        y = bottom - (bottom - top) * min(1.0, max(0.0, value))
        return f"{x:.1f},{y:.1f}"

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 360" font-family="sans-serif" font-size="12">',
        '<rect width="640" height="360" fill="white"/>',
    ]
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - (bottom - top) * level
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
    parts.append(f'<text x="{left}" y="{bottom + 18}">0</text>')
    parts.append(f'<text x="{right}" y="{bottom + 18}" text-anchor="end">{epochs} epochs</text>')
    for number, which in enumerate(sorted({(r["fold"], r["member"]) for r in member_records})):
        mine = [r for r in member_records if (r["fold"], r["member"]) == which]
        colour = _COLOURS[number % len(_COLOURS)]
        train = " ".join(point(r["epoch"], r["fit"]) for r in mine)
        parts.append(f'<polyline points="{train}" fill="none" stroke="{colour}" opacity="0.35"/>')
        checked = [r for r in mine if r["rank_correlation"] is not None]
        if checked:
            line = " ".join(point(r["epoch"], r["rank_correlation"]) for r in checked)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
    parts.append(
        f'<text x="{left}" y="348">pale: Pearson correlation on training crops; strong: rank correlation on validation photos; '
        "a colour for each member</text></svg>"
    )
    return "\n".join(parts) + "\n"
