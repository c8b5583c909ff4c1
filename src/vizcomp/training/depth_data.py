"""Photos with depth maps to train on, and the settings of that training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcomp.depth.compact import CompactDepthConfig
from vizcomp.depth.kinds import FARTHER
from vizcomp.depth.values import read_values
from vizcomp.errors import InputError, SettingsError, TrainingError, VizcompError, first_line
from vizcomp.metrics import ByteImage, rank_scale
from vizcomp.photos.frame import STRIDE, scale_photo
from vizcomp.training.settings import check_choices, check_ranges

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAP_SUFFIXES = (".png", ".tif", ".tiff", ".jpg")
MAP_KINDS = ("nearness", "metres", "millimetres", "disparity")
SKY = -0.15  # on the rank scale: a little beyond the farthest thing
SOURCE_SCALE = 1.5  # of the network's input: a crop of 2/3 of a held photo is still sharp
_HINT = (
    "give a folder that holds photos/ and depth/, files paired by name (a.jpg and a.png), bright ="
    " near or as kinds says"
)
FOLD_OVER = ("places", "photos")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthTrainSettings:
    """Settings of a training run; saved in the run folder.

    Attributes:
        data: folder with `photos/` and `depth/`, paired by file stem; or several such folders,
            separated as in PATH.
        kinds: what the numbers in the maps mean, "nearness" (bright = near), "metres" or
            "millimetres" (small = near, 0 = unknown) or "disparity"; one for all folders, or one
            for each, separated by commas.
        shares: how often each folder is drawn from, where there are several; empty: as often as it
            has photos.
        checked: beginnings of names, separated by commas; photos so called are validation photos,
            whatever `validation` says.
        start: weights (model.safetensors) whose encoder, or all of which, a network starts from; ""
            for fresh ones.
        pretrain: labelled pictures (`datasets.read.read_labelled`); "" for none.
        pretrain_epochs: passes over those pictures.
        pretrain_small: the first of these passes, which see the pictures at 48x48 only.
        pretrain_batch, pretrain_rate: of AdamW there; the rate falls to zero in a straight line.
        pretrain_erase: share of batches in which squares of the pictures are painted over.
        held_every: every n-th photo in sorted order is left out altogether, for a later test; 0 for
            none.
        folds: parts of the remaining photos for cross-validation; 0 for none. With folds no photo
            is kept for validation.
        fold_over: "places": photos whose stems agree up to the first "_" stay in one part, if there
            are as many such groups; "photos": dealt out one by one, so that the others of its place
            are learnt from.
        validation: share of the remaining photos that is not trained on, but followed and used for
            the calibration.
        epochs: passes over the photos, for each member.
        side: long side of the training crops; 0 for the network's. A network may be run at a larger
            side than it learned at.
        batch, learning_rate, weight_decay: of AdamW, with a cosine schedule.
        encoder_rate: learning rate of a pretrained encoder, as a share of `learning_rate`; under
            "efficientnet-lite0" times the root mean square of each tensor.
        frozen: scales of "efficientnet-lite0" that stay as they are, from the finest on, 0 to 4.
        dropout: of the network's deepest maps.
        average: decay of the moving average of the weights; the average is what is kept.
        gradient_weight: of the gradient term of the loss.
        zoom: crops are as small as 1 / zoom of the photo's sides.
        colour: strength of the changes of gamma, saturation, contrast, brightness and tint; 0 for
            none.
        cutmix: share of batches in which each photo is cut and joined with part of another.
        shapes: share of batches whose crops are not 4:3 (upright, square, wide).
        erase: share of photos in which a rectangle is painted over.
        seed: of everything.
        device: of torch, "cpu" or "cuda".
        half: compute in bfloat16 where torch holds that safe (on CPU: about 1.5 times as fast with
            AVX-512 BF16).
        validate_every: in epochs.
        licence: of the weights, written into the ONNX file.
        network: configuration of the network.
    """

    data: str = ""
    kinds: str = "nearness"
    shares: tuple[float, ...] = ()
    checked: str = ""
    start: str = ""
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
    frozen: int = 0
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
            "frozen": (0, 4),
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
        object.__setattr__(self, "shares", tuple(self.shares))  # a file of settings holds a list
        for kind in self.kinds.split(","):
            if kind not in MAP_KINDS:
                raise SettingsError(
                    f"kinds = {self.kinds}: {kind!r} is not known", f"use {', '.join(MAP_KINDS)}"
                )
        wrong = [x for x in self.shares if not isinstance(x, (int, float)) or not 0 <= x <= 1e6]
        if wrong or (self.shares and not any(self.shares)):
            raise SettingsError(
                f"shares = {self.shares} are not numbers from 0 on, one above 0",
                "for example [2, 1], one number for each folder",
            )
        if self.held_every == 1:
            raise SettingsError(
                "held_every = 1 leaves no photo to train on", "0 leaves none out, 5 every fifth"
            )
        residual = self.network.encoder == "residual"
        if residual and self.frozen:
            raise SettingsError(
                f"frozen = {self.frozen}: the residual encoder has nothing to keep as it is",
                "0, or another `encoder`",
            )
        if not residual and not self.start:
            raise SettingsError(
                f"the encoder {self.network.encoder} has no norms to learn from nothing with",
                "give `start`, a file of recipes/depth_encoder.py or of such a network",
            )
        if not residual and self.pretrain:
            raise SettingsError(
                f"`pretrain` does not go with the encoder {self.network.encoder}",
                "it has learned from pictures",
            )
        if self.side % STRIDE:
            raise SettingsError(
                f"side = {self.side} is not a multiple of {STRIDE}",
                f"use {max(1, round(self.side / STRIDE)) * STRIDE}",
            )
        if self.folds == 1:
            raise SettingsError(
                "folds = 1 leaves no photo to train on",
                "0 does without, 5 leaves out a fifth at a time",
            )


@dataclasses.dataclass(frozen=True)
class DepthData:
    """Photos with their maps.

    Attributes:
        names: file stems, sorted within each folder.
        sources: uint8 (h, w, 3), `SOURCE_SCALE` times as large as the network's input.
        ranks: float16 (h'', w''), maps on the rank scale, large = near, at half the network's input
            size; NaN where unknown.
        folders: number of the folder that each photo is from.
        skipped: (name, reason) of each photo left out.
        network: configuration whose input size counts.
    """

    names: tuple[str, ...]
    sources: tuple[ByteImage, ...]
    ranks: tuple[npt.NDArray[np.float16], ...]
    folders: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...]
    network: CompactDepthConfig

    def photo(self, index: int) -> ByteImage:
        """A photo as the network sees it, not padded: uint8 (h', w', 3)."""
        source = self.sources[index]
        return scale_photo(source, self.network.side_for(source.shape[0], source.shape[1]))

    def truth(self, index: int, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """A map at another size, float32 (h, w); NaN where unknown."""
        return np.asarray(
            Image.fromarray(self.ranks[index].astype(np.float32)).resize(
                (shape[1], shape[0]), Image.Resampling.BILINEAR
            )
        )


def read_depth_data(
    folders: Sequence[Path],
    network: CompactDepthConfig,
    kinds: Sequence[str] = ("nearness",),
    only: str = "",
) -> DepthData:
    """Reads `photos/` and `depth/` of each folder, paired by file stem.

    Args:
        network: whose input size the photos are read for.
        kinds: what the maps' numbers mean, one for all folders or one for each.
        only: beginnings of names, separated by commas, of the photos to read; "": all.

    Returns:
        the photos with a usable map; the others are named in `skipped`.

    Raises:
        InputError: there is no such folder.
        TrainingError: fewer than two usable photos.
        SettingsError: as many kinds as folders are needed, or one.
    """
    if len(kinds) not in (1, len(folders)):
        raise SettingsError(
            f"{len(kinds)} kinds of maps for {len(folders)} folders",
            "give one for all, or one for each",
        )
    names, sources, ranks, numbers = [], [], [], []
    skipped: list[tuple[str, str]] = []
    for number, folder in enumerate(folders):
        kind = kinds[number if len(kinds) > 1 else 0]
        for photo, depth in _pairs(folder, skipped):
            if not photo.name.startswith(tuple(only.split(","))):
                continue
            try:
                source, map_ = _read_pair(photo, depth, kind, network)
            except (
                OSError,
                ValueError,
                SyntaxError,
                Image.DecompressionBombError,
                VizcompError,
            ) as exc:
                skipped.append((photo.name, first_line(exc)))
                continue
            known = map_[np.isfinite(map_)]
            if len(known) < 0.1 * map_.size or known.max() - known.min() <= 1e-6:
                skipped.append(
                    (
                        photo.name,
                        "its map has no differences" if len(known) else "its map is all holes",
                    )
                )
                continue
            names.append(photo.stem)
            sources.append(source)
            ranks.append(ranked(map_).astype(np.float16))
            numbers.append(number)
    if len(names) < 2:
        where = ", ".join(str(folder) for folder in folders)
        raise TrainingError(
            f"{len(names)} usable photos in {where}, {len(skipped)} skipped: too few to train on",
            _HINT,
        )
    return DepthData(
        tuple(names), tuple(sources), tuple(ranks), tuple(numbers), tuple(skipped), network
    )


def _pairs(folder: Path, skipped: list[tuple[str, str]]) -> list[tuple[Path, Path]]:
    """Photos of a folder and their maps, by file stem; what has no map goes to `skipped`."""
    photos, maps = folder / "photos", folder / "depth"
    for part in (photos, maps):
        if not os.path.isdir(part):
            raise InputError(f"no training data: {part} is not a folder", _HINT)
    map_of = {p.stem: p for p in sorted(maps.iterdir()) if p.suffix.lower() in MAP_SUFFIXES}
    files = sorted(
        p
        for p in photos.iterdir()
        if p.suffix.lower() in PHOTO_SUFFIXES and not p.name.startswith(".")
    )
    skipped += [(p.name, "no map of that name") for p in files if p.stem not in map_of]
    return [(p, map_of[p.stem]) for p in files if p.stem in map_of]


def ranked(nearness: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A map on the rank scale, 0..1, large = near, float32 (h, w); what is NaN stays so.

    What lies at the largest distance of all in more than a hundredth of the map is taken for sky:
    it gets `SKY` and no ranks, or it would press all else together.
    """
    out = np.full(nearness.shape, np.nan, np.float32)
    known = np.isfinite(nearness)
    values = nearness[known]
    sky = values <= values.min() + 1e-9
    sky = sky if 0.01 * sky.size < sky.sum() < 0.95 * sky.size else np.zeros_like(sky)
    ranks = np.full(values.shape, SKY, np.float32)
    ranks[~sky] = rank_scale(values[~sky][None])[0]
    out[known] = ranks
    return out


def _read_pair(
    photo: Path, depth: Path, kind: str, network: CompactDepthConfig
) -> tuple[ByteImage, npt.NDArray[np.float32]]:
    """A photo at `SOURCE_SCALE`, uint8 (h, w, 3); its nearness at half the network's size, float32
    (h', w'), NaN for unknown."""
    with Image.open(photo) as file:
        pixels = np.asarray(file.convert("RGB"))
    if kind == "nearness":
        with Image.open(depth) as file:
            colours = file.mode in ("P", "RGB", "RGBA", "LA", "1")
            numbers = np.asarray(file.convert("L") if colours else file, dtype=np.float32)
        known = np.isfinite(numbers)
    else:
        numbers = read_values(depth).numbers.astype(np.float32)
        known = np.isfinite(numbers) & (numbers > 0)
        numbers = np.where(known, -numbers if kind in FARTHER else numbers, 0).astype(np.float32)
    side = network.side_for(pixels.shape[0], pixels.shape[1])
    height, width = network.scaled(pixels.shape[0], pixels.shape[1])
    size = max(2, width // 2), max(2, height // 2)
    mean = np.asarray(
        Image.fromarray(np.where(known, numbers, 0).astype(np.float32)).resize(
            size, Image.Resampling.BOX
        )
    )
    share = np.asarray(Image.fromarray(known.astype(np.float32)).resize(size, Image.Resampling.BOX))
    with np.errstate(invalid="ignore", divide="ignore"):
        small = np.where(share > 0.5, mean / share, np.nan).astype(np.float32)
    return scale_photo(pixels, round(side * SOURCE_SCALE)), small


def split_photos(
    names: Sequence[str], held_every: int, validation: float, checked: str = ""
) -> tuple[list[int], list[int], list[int]]:
    """Indices of training, validation and held photos.

    Args:
        names: of the photos.
        held_every: every n-th photo is held; 0 for none.
        validation: share of the others, taken evenly.
        checked: beginnings of names, separated by commas, that are validated on in place of that
            share.

    Raises:
        TrainingError: no photo is called as one of `checked`.
    """
    held = [i for i in range(len(names)) if held_every and i % held_every == held_every - 1]
    rest = [i for i in range(len(names)) if not (held_every and i % held_every == held_every - 1)]
    if checked:
        beginnings = tuple(checked.split(","))
        if unused := [b for b in beginnings if not any(name.startswith(b) for name in names)]:
            raise TrainingError(
                f"checked: no photo is called {unused[0]}...", "give beginnings of file names"
            )
        named = {i for i in rest if names[i].startswith(beginnings)}
    else:
        count = 0 if validation == 0 else max(1, round(len(rest) * validation))
        named = {rest[int((k + 0.5) * len(rest) / count)] for k in range(count)}
    return [i for i in rest if i not in named], sorted(named), held


def fold_parts(names: list[str], folds: int, over: str = "places") -> list[list[int]]:
    """Indices of the photos of each fold.

    Args:
        over: "photos" deals names out one by one. "places" groups them by the part before the first
            "_" (in SVT, the place) and deals out the groups in sorted order, so that
            near-duplicates are in one fold. With fewer groups than folds names are dealt out one by
            one.

    Raises:
        TrainingError: there are fewer names than folds.
    """
    if len(names) < folds:
        raise TrainingError(
            f"{len(names)} photos cannot be split into {folds} folds",
            "give more photos, or a smaller folds",
        )
    places = [name.split("_")[0] for name in names]
    if over == "photos" or len(set(places)) < folds:
        places = list(names)
    number = {place: k for k, place in enumerate(sorted(set(places)))}
    return [
        [i for i, place in enumerate(places) if number[place] % folds == f] for f in range(folds)
    ]
