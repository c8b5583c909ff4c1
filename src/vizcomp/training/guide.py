"""Training of a guide for `djpeg`: where vision systems look, learned from what they look at on
photos.

    photo, and views of it ── each system's importance, largest in each 8x8 block ── what the
    network is to say
                          └── network of `nets.text_regions` ── logits ── binary cross-entropy
    photos left out ── d-JPEG under the guide, and plain JPEG ── answers ── factor on its steps

A guide costs milliseconds where a system costs a forward pass or many (AccMPEG, MLSys 2022, is the
published form of it).
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from vizcomp.datasets.photos import find_photos, read_photos, split
from vizcomp.djpeg.guide import grid_shape, mask_importance
from vizcomp.djpeg.learned import in_levels
from vizcomp.errors import SettingsError, TrainingError
from vizcomp.files.write import beside
from vizcomp.nets.text_regions import TextRegionsNet
from vizcomp.photos.frame import pad_to_stride, scale_photo
from vizcomp.training import loop
from vizcomp.training.export import export_guide
from vizcomp.training.processes import Processes
from vizcomp.training.settings import check_ranges, split_list
from vizcomp.training.step_scale import StepScale, finest, measured, softer
from vizcomp.training.task import Stage, Task
from vizcomp.vision.systems import open_system

BLOCK = 8
LOOKED = 0.5  # a block of at least this importance is one that was looked at
KEPT, SURE = 0.95, 0.8  # shares of those blocks: above 0, and at 1
SCORE = "blocks kept for 95%"
Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuideTrainSettings:
    """Settings of a training run; saved in the run folder.

    Attributes:
        data: photos: a folder, a file or a pattern, several separated as in PATH.
        system: the vision systems, as `djpeg` names them; a block matters as much as it does to the
            one to which it matters most.
        views: of each photo that are shown to the systems: itself, and crops of it in other sizes
            and light.
        long_side: to which larger photos are scaled.
        validation: share of the photos that is not trained on; the levels of the guide are set on
            them, and its factor on steps is measured.
        calibration: how many of these photos, or views of them, the systems look at for that
            factor, in fourteen files each; 0: it is not measured.
        epochs: passes over the views.
        crop: side of the squares that are trained on, a multiple of 16.
        batch, learning_rate, weight_decay: of AdamW; the rate rises for a tenth of the steps and
            falls in a line.
        miss: what a block costs that is missed, in units of one that is kept in vain.
        average: decay of the moving average of the weights; the average is what is kept.
        seed: of everything.
        device: of torch, "cpu" or "cuda".
        half: compute in bfloat16 where torch holds that safe.
        validate_every: in epochs.
        licence: of the weights, written into the ONNX file.
    """

    data: str = ""
    system: tuple[str, ...] = ()
    views: int = 4
    long_side: int = 640
    validation: float = 0.1
    calibration: int = 48
    epochs: int = 30
    crop: int = 256
    batch: int = 8
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    miss: float = 3.0
    average: float = 0.98
    seed: int = 0
    device: str = "cpu"
    half: bool = False
    validate_every: int = 5
    licence: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "system", tuple(self.system))
        ranges = {
            "views": (1, 100),
            "long_side": (64, 4096),
            "validation": (0.0, 0.9),
            "calibration": (0, 10_000),
            "epochs": (1, 1_000_000),
            "crop": (32, 2048),
            "batch": (1, 4096),
            "learning_rate": (1e-8, 10.0),
            "weight_decay": (0.0, 10.0),
            "miss": (0.01, 100.0),
            "average": (0.0, 0.99999),
            "seed": (0, 2**31 - 1),
            "validate_every": (1, 1_000_000),
        }
        check_ranges(self, ranges)
        if self.crop % 16:
            raise SettingsError(f"crop {self.crop} is no multiple of 16", "use 256")
        if not self.system or not all(isinstance(name, str) and name for name in self.system):
            raise SettingsError(
                "a guide learns from vision systems, and none is named", "add `system` NAME"
            )


class GuideTask(Task):
    """The training of a guide."""

    kind = "guide"
    settings_class = GuideTrainSettings

    def __init__(self, settings: GuideTrainSettings, processes: Processes) -> None:
        if processes.count > 1:
            raise SettingsError(
                "`devices` does not go with `kind` guide", "one process trains it in minutes"
            )
        self.settings, self.processes = settings, processes
        s = settings
        systems = self.systems = [open_system(name) for name in s.system]
        self.skipped: list[tuple[str, str]] = []
        photos = read_photos(
            find_photos(split_list(s.data)),
            min_side=64,
            on_skip=lambda name, why: self.skipped.append((name, why)),
        )
        train, held = split(len(photos), s.validation, s.seed)
        self.shown = [
            _shown(photos[k], view, s, (s.seed, int(k), view), systems)
            for k in train
            for view in range(s.views)
        ]
        self.held = [_shown(photos[k], 0, s, (s.seed, int(k), 0), systems) for k in held]
        again = max(1, s.calibration // max(1, len(held)))
        self.looked_at = [
            [_image(photos[k], view, s, (s.seed, int(k), view)) for view in range(again)]
            for k in held[: s.calibration]
        ]
        if not any((target >= LOOKED).any() for _, target in self.shown):
            raise TrainingError(
                f"{' and '.join(s.system)} looked nowhere on these photos",
                "give photos on which it finds something",
            )
        batch = min(s.batch, len(self.shown))
        per_epoch = len(self.shown) // batch
        self.stages = [Stage(per_epoch * s.epochs, per_epoch, batch)]
        torch.manual_seed(s.seed)
        self.model: Any = TextRegionsNet().to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": s.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=s.learning_rate)

    def step(self, index: int) -> Mapping[str, float | torch.Tensor]:
        s, stage = self.settings, self.stages[0]
        chosen = loop.batch_indices(
            index,
            count=len(self.shown),
            batch=stage.images_per_step,
            seed=s.seed,
            processes=self.processes,
        )
        rng = np.random.default_rng(loop.step_seed(s.seed, index, 2))
        crops = [_crop(self.shown[k], s.crop, rng) for k in chosen.tolist()]
        x = torch.from_numpy(np.stack([image for image, _ in crops])).to(self.processes.device)
        y = torch.from_numpy(np.stack([target for _, target in crops])).to(self.processes.device)
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate * loop.one_cycle(index, stage.steps, warm=0.1)
        self.model.train()
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=s.half):
            logits = self.model(x.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(
            logits.float(), y, pos_weight=torch.tensor(s.miss, device=y.device)
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.update_average(index, s.average)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def _logits(self, shown: list[tuple[Pixels, Field]]) -> tuple[Field, Field]:
        """What the average says of each block, and what it was to say, in a line."""
        said, wanted = [], []
        for image, target in shown:
            x = torch.from_numpy(_normal(pad_to_stride(image)))[None].to(self.processes.device)
            logits = self.average(x)[0, : target.shape[0], : target.shape[1]]
            said.append(logits.float().cpu().numpy().ravel())
            wanted.append(target.ravel())
        return np.concatenate(said), np.concatenate(wanted)

    def validate(self) -> Mapping[str, float]:
        if not self.held:
            return {}
        said, wanted = self._logits(self.held)
        looked = wanted >= LOOKED
        if not looked.any():
            return {}
        return {SCORE: float((said >= np.quantile(said[looked], 1 - KEPT)).mean())}

    def export(self, folder: Path, figures: Mapping[str, float]) -> Mapping[str, float]:
        s = self.settings
        said, wanted = self._logits(self.held) if self.held else self._logits(self.shown)
        if not (wanted >= LOOKED).any():  # the systems looked nowhere on the photos left out
            said, wanted = self._logits(self.shown)
        least, sure = (
            float(np.quantile(said[wanted >= LOOKED], 1 - share)) for share in (KEPT, SURE)
        )
        levels = (least, max(sure, least + 0.1))
        scales = self._step_scales(levels)
        scale = finest(scales)
        self.notes = (f"factor on steps: {scale.words()}",)
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in self.average.state_dict().items()
        }
        with beside(folder / "model.safetensors") as part:
            save_file(tensors, part)
        metadata = {"licence": s.licence, "data": "photos"} if s.licence else {"data": "photos"}
        export_guide(
            self.average,
            folder / "model.onnx",
            levels=levels,
            systems="; ".join(s.system),
            scale=None if scale.error is None else scale.value,
            uncalibrated=scale.why,
            metadata=metadata,
        )
        card = {
            "kind": "guide",
            "systems": list(s.system),
            "levels": list(levels),
            "settings": dataclasses.asdict(s),
            "views": {"trained_on": len(self.shown), "validation": len(self.held)},
            "looked_at": float((wanted >= LOOKED).mean()),
            "step_scale": {
                **dataclasses.asdict(scale),
                "by_system": [dataclasses.asdict(one) for one in scales],
            },
            "validation": dict(figures),
            "skipped": [f"{name}: {reason}" for name, reason in self.skipped],
        }
        loop.write_text(folder / "model.json", json.dumps(card, indent=2) + "\n")
        return figures

    def _step_scales(self, levels: tuple[float, float]) -> list[StepScale]:
        """The factor on steps under the guide, by each system."""
        if not self.settings.calibration:
            return [StepScale(why="nobody asked for it")]

        def guide(image: Pixels) -> Field:
            shape = grid_shape(image.shape[0], image.shape[1])
            logits, _ = self._logits([(image, np.zeros(shape, np.float32))])
            return in_levels(logits.reshape(shape), levels)

        named = zip(self.settings.system, self.systems, strict=True)
        systems = [softer(name, system) for name, system in named]
        return measured(self.looked_at, guide, systems, seed=self.settings.seed)


def _shown(
    photo: Pixels, view: int, s: GuideTrainSettings, seed: tuple[int, ...], systems: list[Any]
) -> tuple[Pixels, Field]:
    """A view of a photo and how much each of its blocks matters to the systems: (H, W, 3), (H / 8,
    W / 8) rounded up."""
    image = _image(photo, view, s, seed)
    size = (image.shape[0], image.shape[1])
    target = np.zeros(grid_shape(*size), np.float32)
    for system in systems:
        target = np.maximum(target, mask_importance(system.importance(image), size=size))
    return image, target


def _image(photo: Pixels, view: int, s: GuideTrainSettings, seed: tuple[int, ...]) -> Pixels:
    """A photo, or a view of it: uint8 (H, W, 3)."""
    if not view:
        return _scaled(photo, s.long_side)
    return _view(photo, s.long_side, np.random.default_rng(seed))


def _scaled(photo: Pixels, long_side: int) -> Pixels:
    return np.ascontiguousarray(
        scale_photo(photo, long_side) if max(photo.shape[:2]) > long_side else photo
    )


def _view(photo: Pixels, long_side: int, rng: np.random.Generator) -> Pixels:
    """A crop in another size and light."""
    height, width = photo.shape[:2]
    share = np.exp(rng.uniform(np.log(0.5), 0))
    rows, cols = max(64, int(height * share)), max(64, int(width * share))
    top, left = rng.integers(height - rows + 1), rng.integers(width - cols + 1)
    side = min(long_side, round(max(rows, cols) * np.exp(rng.uniform(np.log(0.6), np.log(1.5)))))
    cut = scale_photo(
        np.ascontiguousarray(photo[top : top + rows, left : left + cols]), max(64, side)
    )
    light = 255 * (cut.astype(np.float32) / 255) ** np.exp(rng.normal(0, 0.25))
    light = (light - 128) * np.exp(rng.normal(0, 0.2)) + 128 + rng.normal(0, 10)
    light = light * np.exp(rng.normal(0, 0.06, 3))
    return np.asarray(np.clip(light, 0, 255), np.uint8)


def _crop(shown: tuple[Pixels, Field], side: int, rng: np.random.Generator) -> tuple[Field, Field]:
    """A square of a view, perhaps mirrored, as the network takes it: (3, side, side), (side / 8,
    side / 8)."""
    image, target = shown
    blocks = side // BLOCK
    rows, cols = min(blocks, target.shape[0]), min(blocks, target.shape[1])
    top, left = rng.integers(target.shape[0] - rows + 1), rng.integers(target.shape[1] - cols + 1)
    part = image[top * BLOCK : (top + rows) * BLOCK, left * BLOCK : (left + cols) * BLOCK]
    part = np.pad(part, ((0, side - part.shape[0]), (0, side - part.shape[1]), (0, 0)), mode="edge")
    wanted = np.pad(
        target[top : top + rows, left : left + cols],
        ((0, blocks - rows), (0, blocks - cols)),
        mode="edge",
    )
    if rng.random() < 0.5:
        part, wanted = part[:, ::-1], wanted[:, ::-1]
    return _normal(part), np.ascontiguousarray(wanted)


def _normal(image: Pixels) -> Field:
    """uint8 (H, W, 3) as the network of `nets.text_regions` takes it: float32 (3, H, W)."""
    return np.ascontiguousarray(((image.astype(np.float32) / 255 - 0.45) / 0.25).transpose(2, 0, 1))
