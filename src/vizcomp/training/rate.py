"""An estimate of what the bits of a codec cost after entropy coding, differentiable, for its training.

The bits of the learned code are made to be told apart from noise as little as possible: nothing in the reconstruction term
asks for bits that can be guessed. With a price on what a guess does not save, the encoder writes a bit that cannot be guessed
only where it buys something (entropy-constrained coding: Chou, Lookabaugh and Gray 1989; Balle, Laparra and Simoncelli 2017).
The guesser sees no more than the entropy coder's context model: bits coded before, within two rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

REACH = 2  # as `coding.MAX_REACH`


class BitGuesser(nn.Module):
    """Logistic regression of each bit on the bits that are coded before it, in the order of `vizcomp.vzc.coding`.

    Attributes:
        channels: bits of a position in each iteration.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        slots, side = sum(channels), 2 * REACH + 1
        self.weight = nn.Parameter(
            torch.zeros(slots, slots + 1, side, side)
        )  # the last input is a plane of ones: where the grid ends
        self.bias = nn.Parameter(torch.zeros(slots))
        before = torch.zeros(side * side)
        before[: side * side // 2] = 1  # rows above, and to the left
        earlier = torch.ones(slots, slots).tril(-1)
        known = earlier[:, :, None, None].expand(-1, -1, side, side).clone()
        known[range(slots), range(slots)] = before.view(side, side)
        self.register_buffer("known", torch.cat([known, torch.ones(slots, 1, side, side)], 1), persistent=False)
        self.known: torch.Tensor

    def forward(self, codes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Bits that are left of each bit: float32 (bits of a position,), the mean over images and positions.

        Args:
            codes: (N, channels[t], H, W), -1 or 1, of the first iterations, all or some. Gradients go to the codes as well: a bit
                is drawn to what is guessed for it.
        """
        bits = torch.cat(list(codes), 1)
        count = bits.shape[1]
        seen = F.pad(torch.cat([bits, torch.ones_like(bits[:, :1])], 1), (REACH,) * 4)
        weight = (self.weight * self.known)[:count]
        weight = torch.cat([weight[:, :count], weight[:, -1:]], 1)
        guess = F.conv2d(seen, weight, self.bias[:count]).float()
        nats = F.softplus(guess) - guess * (bits.float() + 1) / 2  # cross entropy of the bit
        return nats.mean((0, 2, 3)) / math.log(2)
