"""Contrast and luminance of structural similarity, for losses and for the search."""

from __future__ import annotations

from collections.abc import Callable

import torch


def similarity(
    image: torch.Tensor,
    source: torch.Tensor,
    blurred: Callable[[torch.Tensor], torch.Tensor],
    peak: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Terms of SSIM at each window (Wang, Bovik, Sheikh and Simoncelli 2004), with their constants.

    Args:
        image, source: float (N, 3, H, W).
        blurred: means over windows, (5 N, 3, H, W) to (5 N, 3, h, w).
        peak: the range of the values.

    Returns:
        contrast and structure, and luminance, both (N, 3, h, w).
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    both = torch.cat([image, source, image * image, source * source, image * source])
    mx, my, xx, yy, xy = blurred(both).chunk(5)
    contrast = (2 * (xy - mx * my) + c2) / (xx - mx * mx + yy - my * my + c2)
    return contrast, (2 * mx * my + c1) / (mx * mx + my * my + c1)
