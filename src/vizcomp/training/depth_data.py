"""Photos with depth maps to train on, and the settings of that training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.depth.compact import CompactDepthConfig
from vizcomp.errors import SettingsError, TrainingError, first_line
from vizcomp.metrics import ByteImage, rank_scale
from vizcomp.photos.frame import STRIDE, scale_photo
from vizcomp.training.settings import check_choices, check_ranges

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAP_SUFFIXES = (".png", ".tif", ".tiff", ".jpg")
SOURCE_SCALE = 1.5  # of the network's input: a crop of 2/3 of a held photo is still sharp
FOLD_OVER = ("places", "photos")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthTrainSettings:
    """Settings of a training run; saved in the run folder.

    Attributes:
        data: folder with `photos/` and `depth/`, paired by file stem; bright = near in the maps.
        pretrain: labelled pictures (`datasets.read.read_labelled`); "" for none.
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
        validate_every: in epochs.
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
        }
        check_ranges(self, ranges)
        check_choices(self, {"fold_over": FOLD_OVER})
        if self.held_every == 1:
            raise SettingsError("held_every = 1 leaves no photo to train on", "0 leaves none out, 5 every fifth")
        if self.side % STRIDE:
            raise SettingsError(f"side = {self.side} is not a multiple of {STRIDE}")
        if self.folds == 1:
            raise SettingsError("folds = 1 leaves no photo to train on", "0 does without, 5 leaves out a fifth at a time")


@dataclasses.dataclass(frozen=True)
class DepthData:
    """Photos with their maps.

    Attributes:
        names: file stems, sorted.
        sources: uint8 (h, w, 3), `SOURCE_SCALE` times as large as the network's input.
        photos: uint8 (h', w', 3), as the network sees them, not padded.
        ranks: float32 (h'', w''), maps on the rank scale, at half the network's input size.
        skipped: (name, reason) of each photo left out.
    """

    names: tuple[str, ...]
    sources: tuple[ByteImage, ...]
    photos: tuple[ByteImage, ...]
    ranks: tuple[npt.NDArray[np.float32], ...]
    skipped: tuple[tuple[str, str], ...]


def read_depth_data(folder: Path, long_side: int) -> DepthData:
    """Reads `folder/photos` and `folder/depth`, paired by file stem.

    Args:
        long_side: of the network's input, in pixels.

    Returns:
        the photos with a usable map; the others are named in `skipped`.

    Raises:
        TrainingError: there is no such folder, or fewer than two usable photos.
    """
    hint = "give a folder that holds photos/ and depth/, files paired by name (a.jpg and a.png), bright = near"
    photos, maps = folder / "photos", folder / "depth"
    for part in (photos, maps):
        if not part.is_dir():
            raise TrainingError(f"no training data: {part} is not a folder", hint)
    map_of = {p.stem: p for p in sorted(maps.iterdir()) if p.suffix.lower() in MAP_SUFFIXES}
    names, sources, inputs, ranks, skipped = [], [], [], [], []
    for path in sorted(p for p in photos.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES and not p.name.startswith(".")):
        if path.stem not in map_of:
            skipped.append((path.name, "no map of that name"))
            continue
        try:
            photo, depth = _read_pair(path, map_of[path.stem])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            skipped.append((path.name, first_line(exc)))
            continue
        small = scale_photo(photo, long_side)
        size = (max(2, small.shape[1] // 2), max(2, small.shape[0] // 2))
        map_small = np.asarray(Image.fromarray(depth).resize(size, Image.Resampling.BOX))
        if map_small.max() - map_small.min() <= 1e-6:
            skipped.append((path.name, "its map has no differences"))
            continue
        names.append(path.stem)
        sources.append(scale_photo(photo, round(long_side * SOURCE_SCALE)))
        inputs.append(small)
        ranks.append(rank_scale(map_small))
    if len(names) < 2:
        raise TrainingError(f"{len(names)} usable photos in {folder}, {len(skipped)} skipped: too few to train on", hint)
    return DepthData(tuple(names), tuple(sources), tuple(inputs), tuple(ranks), tuple(skipped))


def _read_pair(photo: Path, depth: Path) -> tuple[ByteImage, npt.NDArray[np.float32]]:
    """A photo, uint8 (H, W, 3), and its map, float32 (h, w)."""
    with Image.open(photo) as file:
        pixels = np.asarray(file.convert("RGB"))
    with Image.open(depth) as file:
        colours = file.mode in ("P", "RGB", "RGBA", "LA", "1")
        return pixels, np.asarray(file.convert("L") if colours else file, dtype=np.float32)


def split_photos(count: int, held_every: int, validation: float) -> tuple[list[int], list[int], list[int]]:
    """Indices of training, validation and held photos.

    Args:
        count: photos.
        held_every: every n-th photo is held; 0 for none.
        validation: share of the others, taken evenly.
    """
    held = [i for i in range(count) if held_every and i % held_every == held_every - 1]
    rest = [i for i in range(count) if not (held_every and i % held_every == held_every - 1)]
    count = 0 if validation == 0 else max(1, round(len(rest) * validation))
    checked = {rest[int((k + 0.5) * len(rest) / count)] for k in range(count)}
    return [i for i in rest if i not in checked], sorted(checked), held


def fold_parts(names: list[str], folds: int, over: str = "places") -> list[list[int]]:
    """Indices of the photos of each fold.

    Args:
        over: "photos" deals names out one by one. "places" groups them by the part before the first "_"
            (in SVT, the place) and deals out the groups in sorted order, so that near-duplicates are in
            one fold. With fewer groups than folds names are dealt out one by one.

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
