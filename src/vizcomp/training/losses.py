"""Losses of trainings: of images, of a classifier's answers, and of bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.training.structure import ms_ssim_loss, scales_of

RECONSTRUCTIONS = ("l1", "l2", "ms-ssim")
REACH = 2  # as `coding.MAX_REACH`
_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def reconstruction_losses(
    kind: str,
    images: Sequence[torch.Tensor],
    source: torch.Tensor,
    scales: int = 3,
    absolute: float = 0.5,
) -> list[torch.Tensor]:
    """Scalar losses of several float images (N, 3, H, W) in about -1..1 against one source; `kind`
    is one of `RECONSTRUCTIONS`, `scales` those of MS-SSIM, `absolute` the factor of the absolute
    error beside it."""
    # variances are differences of near numbers: no half precision
    with torch.autocast(source.device.type, enabled=False):
        source = source.float()
        pyramid = scales_of(source / 2 + 0.5, scales) if kind == "ms-ssim" else []
        losses = []
        for image in images:
            difference = (image.float() - source) / 2
            if kind == "l1":
                losses.append(difference.abs().mean())
            elif kind == "l2":
                losses.append(10 * difference.square().mean())
            else:
                structure = ms_ssim_loss(image.float() / 2 + 0.5, pyramid)
                losses.append(absolute * difference.abs().mean() + structure)
        return losses


def colour_error(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """`colour_errors` of one image, a scalar."""
    return colour_errors([image], source)[0]


def colour_errors(images: Sequence[torch.Tensor], source: torch.Tensor) -> list[torch.Tensor]:
    """Mean distance in the plane a, b of CIELAB (CIE 15), in hundreds; lightness is left out.

    Structure hardly sees a shift of hue, and the eye does. Of means over 2x2 pixels: finer colour
    the eye sees as little, and it would take a tenth of an update.

    Args:
        images, source: float (N, 3, H, W), sRGB in about -1..1, clipped.

    Returns:
        a scalar for each image.
    """
    with torch.autocast(source.device.type, enabled=False):
        wanted = _opponents(F.avg_pool2d(source.float(), 2))
        differences = (_opponents(F.avg_pool2d(image.float(), 2)) - wanted for image in images)
        # the square root has no slope at zero
        return [(one.square().sum(1) + 1e-4).sqrt().mean() - 1e-2 for one in differences]


def _opponents(image: torch.Tensor) -> torch.Tensor:
    """a and b of CIELAB in hundreds, D65: (N, 3, H, W) in -1..1 to (N, 2, H, W)."""
    values = (image / 2 + 0.5).clamp(0, 1)
    linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(_XYZ, device=image.device)
    xyz = torch.einsum("kc,nchw->nkhw", matrix / matrix.sum(1, keepdim=True), linear)
    x, y, z = torch.where(
        xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116
    ).unbind(1)
    return torch.stack([5 * (x - y), 2 * (y - z)], 1)


def divergence(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence from the target to the answer, both logits (N, classes): (N,),
    nats."""
    return F.kl_div(
        F.log_softmax(logits, 1), F.log_softmax(target, 1), log_target=True, reduction="none"
    ).sum(1)


class BitGuesser(nn.Module):
    """Logistic regression of each bit on the bits that are coded before it, in the order of
    `vizcomp.vzc.coding`.

    It estimates the cost of bits after entropy coding. The reconstruction loss has no reason to
    make bits predictable. With a price on this cost, the encoder writes an unpredictable bit only
    where it is worth it (entropy-constrained coding: Chou, Lookabaugh and Gray 1989; Balle, Laparra
    and Simoncelli 2017). The regression sees what the entropy coder's context model sees: earlier
    bits within two rows and columns.

    Attributes:
        channels: bits of a position in each iteration.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        slots, side = sum(channels), 2 * REACH + 1
        # the last input is a plane of ones: it tells where the grid ends
        self.weight = nn.Parameter(torch.zeros(slots, slots + 1, side, side))
        self.bias = nn.Parameter(torch.zeros(slots))
        before = torch.zeros(side * side)
        before[: side * side // 2] = 1  # rows above, and to the left
        earlier = torch.ones(slots, slots).tril(-1)
        mask = earlier[:, :, None, None].expand(-1, -1, side, side).clone()
        mask[range(slots), range(slots)] = before.view(side, side)
        self.register_buffer(
            "mask", torch.cat([mask, torch.ones(slots, 1, side, side)], 1), persistent=False
        )
        self.mask: torch.Tensor

    def forward(self, codes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Cost of each bit of a position, in bits: float32 (bits,), the mean over images and
        positions.

        Args:
            codes: (N, channels[t], H, W), -1 or 1, of the first iterations, all or some. Gradients
                go to the codes too: a bit is drawn to its guess.
        """
        bits = torch.cat(list(codes), 1)
        count = bits.shape[1]
        seen = F.pad(torch.cat([bits, torch.ones_like(bits[:, :1])], 1), (REACH,) * 4)
        weight = (self.weight * self.mask)[:count]
        weight = torch.cat([weight[:, :count], weight[:, -1:]], 1)
        guess = F.conv2d(seen, weight, self.bias[:count]).float()
        nats = F.softplus(guess) - guess * (bits.float() + 1) / 2  # cross entropy of the bit
        return nats.mean((0, 2, 3)) / math.log(2)


class Guesser(nn.Module):
    """As `BitGuesser`, of pictures that are one position of the code: each bit by all that are
    coded before it.

    Args:
        count: bits of a picture, all iterations.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, count))
        self.bias = nn.Parameter(torch.zeros(count))
        self.register_buffer("mask", torch.ones(count, count).tril(-1), persistent=False)
        self.mask: torch.Tensor

    def forward(self, codes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Cost of each bit, in bits: float32 (bits,), the mean over pictures.

        Args:
            codes: (N, bits[t]), -1 or 1, of the first iterations, all or some. Gradients go to the
                codes too.
        """
        bits = torch.cat(list(codes), 1)
        count = bits.shape[1]
        guess = F.linear(bits, (self.weight * self.mask)[:count, :count], self.bias[:count])
        nats = F.softplus(guess) - guess * (bits + 1) / 2
        return nats.mean(0) / math.log(2)
