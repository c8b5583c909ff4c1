"""Structural similarity as a loss, with its gradient by formula: it is nearly half of an update of
the codec for photos where autograd derives it.

MS-SSIM: Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality
assessment", 2003.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from vizcomp.metrics import MS_SSIM_WEIGHTS

PEAK = 1.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


class Scale(NamedTuple):
    """What a source has on one scale.

    Attributes:
        image: its pixels, (N, C, H, W).
        mean, variance: of its windows, (N, C, h, w).
        stride: windows stand at every so many pixels.
    """

    image: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    stride: int


@torch.no_grad()
def scales_of(source: torch.Tensor, scales: int) -> list[Scale]:
    """The first scales of a source, float (N, C, H, W) in 0..1, each half of the one before.

    On the finest of several, windows stand at every second pixel: it counts least and costs most.
    """
    found = []
    for k in range(scales):
        stride = 2 if k == 0 and scales > 1 else 1
        mean, square = blurred(torch.stack([source, source * source]), stride)
        found.append(Scale(source, mean, square - mean * mean, stride))
        source = F.avg_pool2d(source, 2)
    return found


def ms_ssim_loss(image: torch.Tensor, source: list[Scale]) -> torch.Tensor:
    """One minus MS-SSIM over the first scales, for crops too small for all five.

    The window is a Gaussian of 11 pixels and sigma 1.5, smaller on small scales. The published
    weights are brought to a sum of one. The gradient goes to the image, not to the source.

    Args:
        image: float (N, C, H, W) in 0..1.
        source: of `scales_of`.

    Returns:
        a scalar.
    """
    weights = torch.tensor(MS_SSIM_WEIGHTS[: len(source)], device=image.device)
    weights = weights / weights.sum()
    total = torch.zeros(image.shape[0], device=image.device, dtype=image.dtype)
    last = len(source) - 1
    for k, (weight, scale) in enumerate(zip(weights, source, strict=True)):
        value: torch.Tensor = _Term.apply(image, scale, k == last)  # type: ignore[no-untyped-call]
        total = total + weight * value.clamp_min(1e-4).log()
        if k < last:
            image = F.avg_pool2d(image, 2)
    loss: torch.Tensor = 1 - total.exp().mean()
    return loss


class _Term(torch.autograd.Function):
    """Mean of contrast and structure of each image, (N,); times luminance where `bright`.

    With m the means, v the variances and c the covariance of windows of the image x and the source
    y, contrast is s = (2 c + C2) / (v_x + v_y + C2), luminance l = (2 m_x m_y + C1) / (m_x^2 +
    m_y^2 + C1). All are means over windows, W; its transpose carries the slopes back.
    """

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, source: Scale, bright: bool) -> torch.Tensor:
        y, mean_y, var_y, stride = source
        mean, square, product = blurred(torch.stack([image, image * image, image * y]), stride)
        below = (square - mean * mean).add_(var_y).add_(C2)
        term = (product - mean * mean_y).mul_(2).add_(C2).div_(below)
        # slopes by the covariance and by the variance (its sign turned), and by the mean
        to_product = 2 / below
        to_square = term * to_product
        to_mean = None
        if bright:
            under = (mean * mean).addcmul_(mean_y, mean_y).add_(C1)
            light = (mean * mean_y).mul_(2).add_(C1).div_(under)
            to_mean = (mean_y - mean * light).mul_(2).div_(under).mul_(term)
            to_product, to_square, term = to_product * light, to_square * light, term * light
        to_both = to_square * mean - to_product * mean_y
        if to_mean is not None:
            to_both += to_mean
        ctx.count, ctx.stride = term[0].numel(), stride
        ctx.save_for_backward(image, y, to_product, to_square, to_both)
        means: torch.Tensor = term.mean((1, 2, 3))
        return means

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, None, None]:
        image, y, *slopes = ctx.saved_tensors
        by_product, by_square, slope = _carried(torch.stack(slopes), ctx.stride, *image.shape[-2:])
        slope = slope.addcmul(by_product, y).addcmul_(by_square, image, value=-1)
        return slope.mul_((grads[0] / ctx.count)[:, None, None, None]), None, None


def blurred(planes: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Means over Gaussian windows inside the planes, every `stride` pixels: (..., H, W) to
    (..., h, w).

    As products with banded matrices: a convolution of one channel is many times slower on a CPU.
    """
    down, across = _matrices(planes, stride, *planes.shape[-2:])
    return down @ planes @ across.T


def _carried(slopes: torch.Tensor, stride: int, height: int, width: int) -> torch.Tensor:
    """The transpose of `blurred`: (..., h, w) to (..., H, W)."""
    down, across = _matrices(slopes, stride, height, width)
    return down.T @ slopes @ across


def _matrices(
    like: torch.Tensor, stride: int, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    side = min(11, height, width)
    side -= 1 - side % 2
    at = torch.arange(side, device=like.device, dtype=like.dtype) - side // 2
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    line = line / line.sum()
    return _bands(line, height)[::stride], _bands(line, width)[::stride]


def _bands(line: torch.Tensor, side: int) -> torch.Tensor:
    """A filter as a matrix, (side - len(line) + 1, side): each row is the filter, one place
    further."""
    rows = side - len(line) + 1
    at = (
        torch.arange(side, device=line.device)[None]
        - torch.arange(rows, device=line.device)[:, None]
    )
    return torch.where((at >= 0) & (at < len(line)), line[at.clamp(0, len(line) - 1)], 0.0)
