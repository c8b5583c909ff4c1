"""What a frozen network sees on its way to an answer: how far two pictures are apart in its eyes.

The distance of activations at several depths, after Weber, Renner, Hornauer and others, "Lossy
image compression with recurrent neural networks: from human perceived visual quality to
classification accuracy", 2019 (arXiv 1910.03472), and Johnson, Alahi and Fei-Fei, "Perceptual
losses for real-time style transfer and super-resolution", 2016.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Features:
    """The activations of a frozen module at several depths.

    Args:
        module: takes float32 (N, 3, H, W) in 0..1, gives logits (N, classes).
        side: of the pictures that it will see.
        depths: how many of its convolutions are looked at, evenly from the first to the last.

    Attributes:
        count: how many there are: 0 for a module whose convolutions cannot be reached, as in a file
            of TorchScript.
    """

    def __init__(self, module: nn.Module, side: int, depths: int = 5) -> None:
        self._module = module
        self._found: dict[int, torch.Tensor] = {}
        seen: list[nn.Module] = []
        handles = []
        for one in module.modules():
            if isinstance(one, nn.Conv2d):
                handles.append(one.register_forward_hook(lambda m, *_: seen.append(m)))
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            module(torch.full((1, 3, side, side), 0.5, device=device))
        for handle in handles:
            handle.remove()
        places = (
            sorted({round(i * (len(seen) - 1) / max(1, depths - 1)) for i in range(depths)})
            if seen
            else []
        )
        self.count = len(places)
        for number, place in enumerate(places):
            seen[place].register_forward_hook(self._kept(number))

    def _kept(self, number: int) -> Any:
        def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            del module, inputs
            self._found[number] = output

        return keep

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits (N, classes), and the activations at each depth, (N, c, h, w)."""
        self._found.clear()
        logits = self._module(images)
        found = [self._found[number] for number in sorted(self._found)]
        self._found.clear()
        return logits, found


def apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> torch.Tensor:
    """How far activations are apart, (N,): squared distance in shares of the other's square, the
    mean over depths."""
    shares = []
    for a, b in zip(one, other, strict=True):
        a, b = a.flatten(1).float(), b.flatten(1).float()
        shares.append((a - b).square().sum(1) / b.square().sum(1).clamp_min(1e-6))
    return torch.stack(shares).mean(0)
