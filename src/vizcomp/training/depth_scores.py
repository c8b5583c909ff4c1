"""Loss, scores and calibration of depth maps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from vizcomp.depth.compact import POSITION_STRIDE, CompactDepthConfig, position_planes
from vizcomp.metrics import ByteImage, spearman
from vizcomp.nets.compact_depth import CompactDepthEnsemble, ensemble_moments
from vizcomp.photos.frame import pad_to_stride
from vizcomp.training.depth_data import DepthData

PRIOR_CELLS = (24, 32)  # rows and columns of the mean map


def depth_loss(
    nearness: torch.Tensor,
    target: torch.Tensor,
    gradient_weight: float,
    known: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale-and-shift-invariant loss with a gradient term.

    With r as Pearson's correlation over the crop, 1 - r is half the mean squared error of
    standardised maps after the best scale and shift (the alignment of Ranftl et al., "Towards
    robust monocular depth estimation", 2020, section 5). On rank-scaled targets it follows the rank
    correlation. The gradient term compares differences between neighbours at three scales (their
    equation 11), after that alignment. A weak last term keeps the free scale near 1.

    Args:
        nearness: float (N, K, h, w), any scale and shift; K answers for each crop.
        target: float (N, 1, h, w), standardised; anything finite where it is unknown.
        known: float (N, 1, h, w), 1 where the target is known, else 0; None: everywhere.
        weight: float (N, K) of each answer, of mean 1; None: 1.

    Returns:
        the loss, and r of each answer (N, K).
    """
    k = torch.ones_like(target) if known is None else known
    w = torch.ones(nearness.shape[:2], device=nearness.device) if weight is None else weight
    cells = k.sum((2, 3), keepdim=True).clamp(min=1)  # (N, 1, 1, 1)
    f = (nearness - (nearness * k).sum((2, 3), keepdim=True) / cells) * k
    t = (target - (target * k).sum((2, 3), keepdim=True) / cells) * k
    norm = f.flatten(2).norm(dim=2)  # (N, K)
    r = (f * t).flatten(2).sum(2) / (norm * t.flatten(2).norm(dim=2) + 1e-4)
    loss = ((1 - r) * w).mean()
    deviation = norm / cells[..., 0, 0].sqrt()
    a = f / (deviation[..., None, None] + 1e-3) * r[..., None, None].clamp(min=0)
    b, wide = t, w[..., None, None]
    for _ in range(3):
        across = ((a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])) * (
            k[..., 1:] * k[..., :-1]
        )
        down = ((a[:, :, 1:] - a[:, :, :-1]) - (b[:, :, 1:] - b[:, :, :-1])) * (
            k[:, :, 1:] * k[:, :, :-1]
        )
        loss = loss + gradient_weight * ((across.abs() * wide).mean() + (down.abs() * wide).mean())
        if min(a.shape[2:]) < 4:
            break
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        k = (F.avg_pool2d(k, 2) > 0.99).to(k.dtype)
    return loss + 1e-3 * (deviation - 1).pow(2).mean(), r.detach()


def _network_input(photo: ByteImage) -> tuple[torch.Tensor, torch.Tensor]:
    """A photo at the network's size, uint8 (h, w, 3), as image (1, h', w', 3) and position
    planes."""
    return torch.from_numpy(pad_to_stride(photo)[None]), torch.from_numpy(
        position_planes(*photo.shape[:2])[None]
    )


def _resized(array: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


def mean_map(data: DepthData, chosen: list[int]) -> torch.Tensor:
    """Mean of the chosen photos' standardised maps, standardised again: (1, 1, 24, 32)."""
    total = torch.zeros(1, 1, *PRIOR_CELLS)
    for index in chosen:
        ranks = torch.from_numpy(data.truth(index, PRIOR_CELLS).copy())
        known = ranks[ranks.isfinite()]
        total += ((ranks - known.mean()) / known.std().clamp(min=0.05)).nan_to_num(0.0)
    total -= total.mean()
    return total / total.std().clamp(min=1e-6)


def member_maps(
    config: CompactDepthConfig,
    members: Sequence[torch.nn.Module],
    prior: torch.Tensor | None,
    data: DepthData,
    chosen: list[int],
    first: int = 0,
) -> list[torch.Tensor]:
    """Maps by some members of a network.

    Args:
        members: the network's members from number `first` on, on the CPU.
        prior: the mean map, (1, 1, rows, columns); needed where the configuration has a weight for
            it.
        chosen: indices of photos.

    Returns:
        for each photo float32 (1, members, h / 4, w / 4), without its padding.
    """
    sides = config.sides[first : first + len(members)]
    if not config.shared:
        config = dataclasses.replace(config, members=len(members), sides=sides)
    ensemble = CompactDepthEnsemble(config, members, prior).eval()
    cropped = []
    with torch.no_grad():
        for index in chosen:
            photo = data.photo(index)
            maps = ensemble.maps(*_network_input(photo))
            rows, columns = (
                math.ceil(photo.shape[0] / POSITION_STRIDE),
                math.ceil(photo.shape[1] / POSITION_STRIDE),
            )
            cropped.append(maps[..., :rows, :columns].clone())
    return cropped


def rank_correlations(
    maps: list[torch.Tensor], data: DepthData, chosen: list[int]
) -> npt.NDArray[np.float64]:
    """Spearman correlation of the members' mean with the map: float64 (photos,).

    Args:
        maps: for each chosen photo (1, members, h, w).
        chosen: indices of the photos.
    """
    scores = []
    for index, answer in zip(chosen, maps, strict=True):
        truth = data.ranks[index].astype(np.float32)
        nearness = _resized(answer.mean(1)[0].numpy().astype(np.float32), *truth.shape)
        known = np.isfinite(truth)
        score = spearman(nearness[known], truth[known])
        scores.append(score if math.isfinite(score) else 0.0)
    return np.asarray(scores)


def calibrate(
    maps: list[torch.Tensor], data: DepthData, chosen: list[int]
) -> tuple[float, float, float]:
    """(a, b, c) of confidence = sigmoid(a - b log(spread) - c log(photo's mean spread)), by least
    squares.

    The target is each cell's concordance: over all other cells of its photo, the share in the right
    order minus the share in the wrong order. b and c are not negative: a network that disagrees
    with itself is never trusted more.
    """
    features, targets = [], []
    for index, answer in zip(chosen, maps, strict=True):
        mean, spread, photo = ensemble_moments(answer)
        t = torch.from_numpy(data.truth(index, (mean.shape[2], mean.shape[3])).copy()).flatten()
        known = t.isfinite()
        p, t = mean.flatten()[known], t[known]
        if len(p) < 2:
            continue
        agree = torch.sign(p[:, None] - p[None]) * torch.sign(t[:, None] - t[None])
        targets.append(agree.sum(1) / (len(p) - 1))
        features.append(
            torch.stack([spread.flatten(), photo.expand_as(spread).flatten()], 1)[known]
        )
    x, y = torch.cat(features), torch.cat(targets)
    centre, scale = x.mean(0), x.std(0).clamp(min=1e-3)
    z = (x - centre) / scale
    parameters = torch.tensor([0.0, -1.0, -1.0], requires_grad=True)
    optimiser = torch.optim.Adam([parameters], lr=0.1)
    for _ in range(300):
        slopes = F.softplus(parameters[1:])
        loss = (torch.sigmoid(parameters[0] - z @ slopes) - y).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    slopes = F.softplus(parameters[1:]).detach() / scale
    a = parameters[0].detach() + (slopes * centre).sum()
    return round(float(a), 4), round(float(slopes[0]), 4), round(float(slopes[1]), 4)
