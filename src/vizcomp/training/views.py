"""Random views of pictures, for training."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from vizcomp.depth.compact import POSITION_STRIDE
from vizcomp.photos.frame import STRIDE
from vizcomp.training.depth_data import DepthData, DepthTrainSettings

MIXED = (
    ((0.75, 1.0), 0.45),
    ((0.3, 1.0), 0.2),
    ((0.5625, 1.0), 0.1),
    ((1.0, 1.0), 0.08),
    ((1.0, 0.75), 0.1),
    ((1.0, 0.6), 0.07),
)
"""Shapes of crops where photos of several shapes are learned from, each with its share of the
batches."""

# shares of the long side; the first is 4:3
SHAPES = ((0.75, 1.0), (1.0, 0.75), (0.875, 0.875), (0.625, 1.0), (0.5, 1.0))


def _uniform(low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.rand(shape) * (high - low) + low


def _chance(share: float) -> bool:
    return bool(torch.rand(()) < share)


def shifted_and_flipped(images: torch.Tensor, most: int) -> torch.Tensor:
    """Pictures moved by up to `most` pixels both ways, mirrored at the edges, and flipped left to
    right at random.

    (N, 3, H, W) to the same shape and dtype, channels last in memory.
    """
    n, _, height, width = images.shape
    device = images.device
    if most:
        images = F.pad(images, (most,) * 4, mode="reflect")
        dy = torch.randint(0, 2 * most + 1, (n, 1), device=device)
        dx = torch.randint(0, 2 * most + 1, (n, 1), device=device)
    else:
        dy = dx = torch.zeros(n, 1, dtype=torch.long, device=device)
    rows = dy + torch.arange(height, device=device)  # (N, H)
    columns = torch.arange(width, device=device).expand(n, width)
    flip = torch.rand(n, 1, device=device) < 0.5
    columns = dx + torch.where(flip, width - 1 - columns, columns)  # (N, W)
    index = torch.arange(n, device=device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def corrupted(images: torch.Tensor, share: float) -> torch.Tensor:
    """About `share` of the pictures blurred or made noisy: float (N, 3, H, W) in 0..1 to the same.

    Half of those are made smaller by up to 2.3 and large again, half get noise of standard
    deviation up to 0.1.
    """
    chosen = torch.rand(len(images)) < share
    count = int(chosen.sum())
    if not count:
        return images
    some = images[chosen]
    half = (count + 1) // 2
    side = images.shape[-1]
    smaller = int(torch.randint(max(1, round(side * 0.44)), side, (1,)))
    blurred = F.interpolate(some[:half], size=(smaller, smaller), mode="area")
    blurred = F.interpolate(blurred, size=images.shape[-2:], mode="bilinear", align_corners=False)
    noisy = some[half:]
    noise = torch.rand(len(noisy), 1, 1, 1, device=images.device) * 0.1 * torch.randn_like(noisy)
    images = images.clone()
    images[chosen] = torch.cat([blurred, (noisy + noise).clamp(0, 1)])
    return images


def erased(images: torch.Tensor, side: int) -> torch.Tensor:
    """A square of `side` at a random place of each picture becomes grey (DeVries and Taylor 2017):
    (N, 3, H, W) to the same."""
    if not side:
        return images
    n, _, height, width = images.shape
    y = torch.randint(0, height, (n, 1), device=images.device) - torch.arange(
        height, device=images.device
    )
    x = torch.randint(0, width, (n, 1), device=images.device) - torch.arange(
        width, device=images.device
    )
    inside = ((2 * y).abs() <= side)[:, None, :, None] & ((2 * x).abs() <= side)[:, None, None, :]
    return images.masked_fill(inside, 0.5)


def view_size(settings: DepthTrainSettings, shape: tuple[float, float]) -> tuple[int, int]:
    """Height and width of training crops of a shape, multiples of the stride; of one area where the
    network's input is."""
    side = settings.side or settings.network.long_side
    height, width = (side * share for share in shape)
    if settings.network.pixels:
        scale = (
            math.sqrt(settings.network.pixels / (height * width))
            * side
            / settings.network.long_side
        )
        height, width = height * scale, width * scale
    return max(1, round(height / STRIDE)) * STRIDE, max(1, round(width / STRIDE)) * STRIDE


def depth_views(
    data: DepthData,
    chosen: list[int],
    settings: DepthTrainSettings,
    shape: tuple[float, float] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random views of photos with their maps.

    Crop, zoom, aspect, a small turn, mirror; gamma, saturation, contrast, brightness, tint, blur,
    noise; rectangles painted over. Photos may be joined with parts of others (Yun et al., "CutMix",
    2019), so that depth is not learned from the scene as a whole.

    Args:
        chosen: indices of photos.
        shape: (height, width) of the crops as shares of the long side; None: drawn at random.

    Returns:
        views, float32 (N, 3, H, W) around 0..1, their standardised maps, (N, 1, H / 4, W / 4), 0
        where unknown, and where they are known, 0 or 1, in the same shape.
    """
    if shape is None:
        shape = SHAPES[int(torch.randint(1, len(SHAPES), ())) if _chance(settings.shapes) else 0]
    height, width = view_size(settings, shape)
    crops = [_crop(data, index, height, width, settings.zoom) for index in chosen]
    x = _recoloured(torch.cat([view for view, _, _ in crops]), settings.colour)
    y, known = (torch.cat([crop[k] for crop in crops]) for k in (1, 2))
    for view in x:
        if _chance(settings.erase):
            h, w = int(height * _uniform(0.1, 0.4)), int(width * _uniform(0.1, 0.4))
            top, left = int((height - h) * torch.rand(())), int((width - w) * torch.rand(()))
            view[:, top : top + h, left : left + w] = torch.rand(3, 1, 1)
    cells = known.sum((2, 3), keepdim=True).clamp(min=1)
    y = (y - (y * known).sum((2, 3), keepdim=True) / cells) * known
    y = y / (y.pow(2).sum((2, 3), keepdim=True) / cells).sqrt().clamp(min=0.05)
    if _chance(settings.cutmix):
        _join(x, y, known)
    return x, y, known


def _crop(
    data: DepthData, index: int, height: int, width: int, most: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A crop of a photo, zoomed up to `most`, (1, 3, height, width); its map, and where that is
    known, at a quarter the size."""
    source = torch.tensor(data.sources[index])[None].permute(0, 3, 1, 2) / 255
    ranks = torch.from_numpy(data.ranks[index][None, None].astype(np.float32))
    h, w = source.shape[2:]
    zoom = math.exp(-float(torch.rand(())) * math.log(most))
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
    view = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    grid = F.affine_grid(
        theta, [1, 1, height // POSITION_STRIDE, width // POSITION_STRIDE], align_corners=False
    )
    unknown = ranks.isnan()
    both = torch.cat([ranks.nan_to_num(0.0), (~unknown).float()], 1)
    sampled = F.grid_sample(both, grid, padding_mode="border", align_corners=False)
    known = (sampled[:, 1:] > 0.9).float()
    return view, sampled[:, :1] / sampled[:, 1:].clamp(min=0.5) * known, known


def _recoloured(x: torch.Tensor, strength: float) -> torch.Tensor:
    """Other gamma, saturation, contrast, brightness and tint; blur and noise: (N, 3, H, W) to the
    same."""
    n, c = len(x), strength
    x = x.clamp(0, 1) ** torch.exp(_uniform(-0.5 * c, 0.5 * c, n, 1, 1, 1))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(1 - 0.8 * c, 1 + 0.5 * c, n, 1, 1, 1)
    level = x.mean((1, 2, 3), keepdim=True)
    x = (
        level
        + (x - level) * _uniform(1 - 0.4 * c, 1 + 0.3 * c, n, 1, 1, 1)
        + _uniform(-0.15 * c, 0.15 * c, n, 1, 1, 1)
    )
    x = x * _uniform(1 - 0.15 * c, 1 + 0.15 * c, n, 3, 1, 1)
    if _chance(0.3):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    return x + torch.randn_like(x) * _uniform(0.0, 0.04, n, 1, 1, 1)


def _join(x: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> None:
    """Replaces the right or the lower part of each view and its map by that of another."""
    axis = 3 if _chance(0.5) else 2
    others = torch.randperm(len(x))
    cells = y.shape[axis]
    cut = int(torch.randint(cells // 4, cells * 3 // 4, ()))
    for planes, place in ((x, cut * POSITION_STRIDE), (y, cut), (known, cut)):
        length = planes.shape[axis] - place
        planes.narrow(axis, place, length).copy_(planes[others].narrow(axis, place, length))


def small_views(images: torch.Tensor, erase: float, small: bool) -> torch.Tensor:
    """Small pictures mirrored, shifted and recoloured at random, for pretraining.

    Args:
        images: uint8 (N, 3, 32, 32).
        erase: chance that a square of each picture is painted over.
        small: 48 pixels only.

    Returns:
        float32 (N, 3, s, s), s of 48 or 64.
    """
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
    if _chance(erase):
        x[:, :, top : top + square, left : left + square] = torch.rand(n, 3, 1, 1)
    size = 48 if small else (48, 64, 64)[int(torch.randint(3, ()))]
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
