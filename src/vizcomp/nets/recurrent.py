"""The recurrent codec: ConvLSTM encoder, binarizer, ConvLSTM decoder.

Toderici, Vincent, Johnston, Hwang, Minnen, Shor and Covell, "Full resolution image compression with
recurrent neural networks", 2017 (arXiv 1608.05148). In every iteration the encoder sees what is
still wrong, the binarizer turns its answer into bits, and the decoder improves the image; both
carry their state over the iterations.

Shapes at full width, for an image of H x W (multiples of `block` = 16):

    image (3, H, W) -> stem (64, H/2, W/2) -> lstm (256, H/4, W/4) -> lstm (512, H/8, W/8) -> lstm
    (512, H/16, W/16)
    binarizer: 1x1 and tanh -> bits (32, H/16, W/16), each -1 or 1
    enter (512, H/16, W/16) -> lstm (512, H/16, W/16) -> lstm (512, H/8, W/8) -> lstm (256, H/4,
    W/4) -> lstm (128, H/2, W/2) after each lstm, depth to space by 2: (128, H/8, W/8), (128, H/4,
    W/4), (64, H/2, W/2), (32, H, W) -> 1x1 -> (3, H, W)

What a configuration may change:

- the widths, by one factor, or the list of layers (a stem of stride 4 spares the costly fine
layers);
- the bits of each iteration (`bits`): constant, as published, with one binarizer for all
  iterations; or a growing schedule, with a binarizer and an entrance for each;
- what an iteration's output means (`reconstruction`): "additive", the sum of all outputs, or
  "one-shot", the last output; and whether the residual is brought to a like size in every iteration
  (`residual_scaling`: the paper's gain, computed from the reconstruction, so that the decoder knows
  it without being told);
- what the encoder sees (`sees`): "residual", as published, or "both", the image and the residual;
- `given`: numbers about the image that the encoder is told (a classifier's answer). The decoder
  needs none of it.

Images are float32 in -1..1. torch is imported at the top: nothing that starts fast imports this
file.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.graphs.recurrent import RecurrentConfig


class _Sign(torch.autograd.Function):
    """The sign, -1 or 1, with the gradient of the identity (the straight-through estimator, Bengio
    et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        return torch.where(x > threshold, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0], None


def binarize(x: torch.Tensor, *, stochastic: bool = False) -> torch.Tensor:
    """Values in -1..1 to bits -1 and 1: the sign, or 1 with probability (1 + x) / 2 (Raiko et al.
    2015)."""
    threshold = torch.rand_like(x) * 2 - 1 if stochastic else torch.zeros((), device=x.device)
    return _Sign.apply(x, threshold)  # type: ignore[no-any-return,no-untyped-call]


# hidden and cell, (N, c, h, w) each; None at the start
State = tuple[torch.Tensor, torch.Tensor] | None


class ConvLSTM(nn.Module):
    """A convolutional LSTM cell (Shi et al. 2015): (N, ins, H, W) and a state to (N, outs,
    H/stride, W/stride) and a state.

    The state starts at zero. Then its convolution gives zero as well and is left out.
    """

    def __init__(self, ins: int, outs: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(ins, 4 * outs, 3, stride, 1)
        self.hidden = nn.Conv2d(outs, 4 * outs, kernel, 1, kernel // 2, bias=False)
        with torch.no_grad():
            assert self.input.bias is not None
            self.input.bias.zero_()
            self.input.bias[outs : 2 * outs] = 1.0  # remember at first (Jozefowicz et al. 2015)

    def forward(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        gates = self.input(x)  # (N, 4 outs, h, w)
        if state is not None:
            gates = gates + self.hidden(state[0])
        take, keep, new, show = gates.chunk(4, 1)
        cell = torch.sigmoid(take) * torch.tanh(new)
        if state is not None:
            cell = cell + torch.sigmoid(keep) * state[1]
        return torch.sigmoid(show) * torch.tanh(cell), cell


class CodecState(NamedTuple):
    """What encoder and decoder carry from one iteration to the next.

    Attributes:
        encoder, decoder: states of the layers; empty for the side that is not run.
        image: the reconstruction so far, (N, 3, H, W).
        iteration: iterations done.
    """

    encoder: tuple[State, ...]
    decoder: tuple[State, ...]
    image: torch.Tensor
    iteration: int


class RecurrentCodec(nn.Module):
    """Encoder, binarizer and decoder."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config

        n = config.scaled
        heads = 1 if config.shared else config.iterations
        stem, stride = n(config.stem[0]), config.stem[1]
        kernel, padding = (3, 1) if stride <= 2 else (stride, 0)
        self.stem = nn.Conv2d(3 if config.sees == "residual" else 6, stem, kernel, stride, padding)
        self.told = nn.Linear(config.given, stem, bias=False) if config.given else None
        outs = stem
        self.encoder = nn.ModuleList()
        for channels, down, hidden in config.encoder:
            self.encoder.append(ConvLSTM(outs, n(channels), down, hidden))
            outs = n(channels)
        self.binarizers = nn.ModuleList(nn.Conv2d(outs, config.bits[t], 1) for t in range(heads))
        outs = n(config.decoder[0][0])
        self.entrances = nn.ModuleList(nn.Conv2d(config.bits[t], outs, 1) for t in range(heads))
        self.decoder = nn.ModuleList()
        for index, (channels, up, hidden) in enumerate(config.decoder):
            last = index == len(config.decoder) - 1
            residual = n(channels, up * up)
            self.decoder.append(ConvLSTM(outs, residual, 1, hidden))
            # With a last factor above 2 few channels would be left for a pixel: there the
            # convolution comes first.
            outs = residual if last and up > 2 else residual // (up * up)
        up = config.decoder[-1][1]
        self.exit: nn.Module
        if up > 2:
            self.exit = nn.Sequential(nn.Conv2d(outs, 3 * up * up, 3, 1, 1), nn.PixelShuffle(up))
        else:
            self.exit = nn.Conv2d(outs, 3, 1)

    def start(self, size: tuple[int, int, int], like: torch.Tensor | None = None) -> CodecState:
        """The state before the first iteration, for N images of H x W: `size` = (N, H, W),
        multiples of the block."""
        reference = next(self.parameters()) if like is None else like
        image = torch.zeros(size[0], 3, *size[1:], device=reference.device, dtype=reference.dtype)
        return CodecState((None,) * len(self.encoder), (None,) * len(self.decoder), image, 0)

    def _gain(self, image: torch.Tensor, iteration: int) -> torch.Tensor | float:
        """By how much the residual is enlarged: from the reconstruction's own activity, which the
        decoder knows too.

        Smooth reconstructions and late iterations have small residuals (section 3.2 of the paper).
        """
        if not self.config.residual_scaling or iteration == 0:
            return 1.0
        local = F.avg_pool2d(image, 8, 8)
        spread = (
            (F.avg_pool2d(image * image, 8, 8) - local * local)
            .clamp_min(0)
            .mean(1, keepdim=True)
            .sqrt()
        )
        gain = (1.0 + 0.5 * iteration) / (0.5 + spread)
        return F.interpolate(gain, size=image.shape[-2:], mode="nearest")

    def analyse(
        self, source: torch.Tensor, state: CodecState, given: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, tuple[State, ...]]:
        """One step of the encoder.

        Args:
            source: (N, 3, H, W) in -1..1.
            given: (N, config.given) what the encoder is told.

        Returns:
            values in -1..1 whose signs are the bits, (N, bits, H/block, W/block), and the encoder's
            new state.
        """
        residual = (source - state.image) * self._gain(state.image, state.iteration)
        x = self.stem(
            residual if self.config.sees == "residual" else torch.cat([source, residual], 1)
        )
        if self.told is not None and given is not None:
            x = x + self.told(given)[:, :, None, None]
        states: list[State] = []
        for layer, before in zip(self.encoder, state.encoder, strict=True):
            after = layer(x, before)
            states.append(after)
            x = after[0]
        head = self.binarizers[0 if self.config.shared else state.iteration]
        return torch.tanh(head(x)), tuple(states)

    def synthesise(self, bits: torch.Tensor, state: CodecState) -> CodecState:
        """One step of the decoder.

        Args:
            bits: (N, bits, H/block, W/block), -1 or 1.

        Returns:
            the state with the new reconstruction and one iteration more.
        """
        x = torch.tanh(self.entrances[0 if self.config.shared else state.iteration](bits))
        states: list[State] = []
        last = len(self.decoder) - 1
        for index, (layer, before) in enumerate(zip(self.decoder, state.decoder, strict=True)):
            after = layer(x, before)
            states.append(after)
            up = self.config.decoder[index][1]
            x = after[0] if index == last and up > 2 else F.pixel_shuffle(after[0], up)
        out = self.exit(x)  # (N, 3, H, W)
        if self.config.reconstruction == "additive":
            out = state.image + out / self._gain(state.image, state.iteration)
        return CodecState(state.encoder, tuple(states), out, state.iteration + 1)

    def forward(
        self,
        source: torch.Tensor,
        iterations: int,
        *,
        given: torch.Tensor | None = None,
        stochastic: bool = False,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Encodes and decodes: the reconstruction and the bits after each iteration.

        Args:
            source: (N, 3, H, W) in -1..1, H and W multiples of the block.

        Returns:
            reconstructions (N, 3, H, W), about -1..1, not clipped; bits (N, bits[t], H/block,
            W/block), -1 or 1.
        """
        state = self.start((source.shape[0], *source.shape[-2:]), source)
        images, codes = [], []
        for _ in range(iterations):
            values, encoder = self.analyse(source, state, given)
            bits = binarize(values, stochastic=stochastic)
            state = self.synthesise(bits, state)._replace(encoder=encoder)
            images.append(state.image)
            codes.append(bits)
        return images, codes

    def decode_each(self, codes: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The image after each iteration's bits: (N, 3, H, W), about -1..1."""
        state: CodecState | None = None
        for bits in codes:
            if state is None:
                n, _, rows, columns = bits.shape
                state = self.start((n, rows * self.config.block, columns * self.config.block))
            state = self.synthesise(bits, state)
            yield state.image

    def decode(self, codes: Iterable[torch.Tensor]) -> torch.Tensor:
        """The image after the given iterations' bits: (N, 3, H, W), about -1..1."""
        images = collections.deque(self.decode_each(codes), maxlen=1)
        if not images:
            raise ValueError("no iterations to decode")
        return images[0]
