"""What a frozen network sees on its way to an answer: how far two pictures are apart in its eyes.

The distance of activations at several depths, after Weber, Renner, Hornauer and others, "Lossy
image compression with recurrent neural networks: from human perceived visual quality to
classification accuracy", 2019 (arXiv 1910.03472), and Johnson, Alahi and Fei-Fei, "Perceptual
losses for real-time style transfer and super-resolution", 2016. What each place holds is compared
by its direction, as Zhang, Isola, Efros and others do ("The unreasonable effectiveness of deep
features as a perceptual metric", 2018): a depth with large numbers counts no more than another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from vizcomp.errors import ModelError
from vizcomp.training.frozen import one_sided, open_frozen


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
        used: dict[nn.Module, None] = {}  # each once, in the order of its first use
        handles = []
        for one in module.modules():
            if isinstance(one, nn.Conv2d):
                handles.append(one.register_forward_hook(lambda m, *_: used.setdefault(m)))
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            module(torch.full((1, 3, side, side), 0.5, device=device))
        for handle in handles:
            handle.remove()
        seen = list(used)
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
            # a network that looks twice, as at the mirror image too, is judged by its first look
            self._found.setdefault(number, output)

        return keep

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits (N, classes), and the activations at each depth, (N, c, h, w)."""
        self._found.clear()
        logits = self._module(images)
        found = [self._found[number] for number in sorted(self._found)]
        self._found.clear()
        return logits, found


def apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> torch.Tensor:
    """How far activations are apart, (N,): at each place the squared distance of the two as unit
    vectors over the channels, 0 to 4; the mean over places, then over depths."""
    found = []
    for a, b in zip(one, other, strict=True):
        away = (_unit(a.float()) - _unit(b.float())).square().sum(1)
        found.append(away.flatten(1).mean(1))
    return torch.stack(found).mean(0)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt()


def open_features(names: Iterable[str], side: int, device: torch.device) -> list[Features]:
    """Frozen networks by their names (`training.frozen` has the forms), to be looked through.

    Args:
        side: of the pictures that they will see.

    Raises:
        ModelError: none such, it does not answer as a classifier, or its convolutions cannot be
            reached.
    """
    opened = []
    for name in names:
        one = Features(one_sided(open_frozen(name, side).to(device)), side)
        if not one.count:
            raise ModelError(
                f"{name} has no convolutions that can be reached, so no features",
                "give package.module:function, which returns the module itself",
            )
        opened.append(one)
    return opened


def seen_apart(
    networks: Sequence[Features], image: torch.Tensor, source: torch.Tensor
) -> torch.Tensor:
    """How far pictures are from their sources in the eyes of networks, (N,): the mean of `apart`
    over them.

    Args:
        image, source: float32 (N, 3, H, W) in 0..1; gradients go to `image`.
    """
    away = []
    for network in networks:
        with torch.no_grad():
            _, wanted = network(source)
        _, found = network(image)
        away.append(apart(found, wanted))
    return torch.stack(away).mean(0)
