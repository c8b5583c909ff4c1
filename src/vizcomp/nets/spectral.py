"""The recurrent codec of small pictures, in their spectrum: LSTM encoder, binarizer, LSTM decoder,
and a last network.

After Toderici et al. 2017 (arXiv 1608.05148), as `nets.recurrent`: in every iteration the encoder
sees what is still wrong, the binarizer turns its answer into bits, the decoder improves the
picture, and both carry their state. What differs is where: a picture of 32x32 pixels is one
position of the code, which sees all of it, and what the networks see of it are its principal
components, so that training starts from what a linear transform coder can do. On one position a
ConvLSTM is an LSTM.

    picture (3, 32, 32) -> DCT, low frequencies (K) -> stem, a matrix that starts as the principal
    axes (K) in iteration t, with y the picture and x the reconstruction so far, both of K
      components, and the step d: encoder: [y, y - x] -> LSTM (128) -> a change of the components
      (K); z = y - x + change + shift of those seen before binarizer: component k is compared with
      its ladder of thresholds, bit j = z_k > d * threshold_j: a quantiser decoder: each bit adds
      its step or takes it away (K) -> LSTM (160) -> a correction (K); x = x + both
    x -> exit, a matrix (K) -> inverse DCT (3, 32, 32) -> finish, a small convolutional network, for
    the picture that is shown

A component whose ladder has answered other than "near zero" counts as seen. Its interval is bounded
on both sides, so later ladders are shifted by half a step there and halve it.

The rate is left to the entropy coder (`vzc.coding`): most bits of a ladder can be guessed, and cost
next to nothing.

Images are float32 in -1..1. torch is imported at the top: nothing that starts fast imports this
file.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from vizcomp.graphs.spectral import SLOPE, SOURCE_SCALE, SpectralConfig, spectrum
from vizcomp.nets.recurrent import binarize

Pair = tuple[torch.Tensor, torch.Tensor] | None  # hidden and cell, (N, c) each; None at the start


class SpectralState(NamedTuple):
    """What encoder and decoder carry from one iteration to the next.

    Attributes:
        encoder, decoder: states of the two layers.
        seen: (N, K), 1 for a component that was not near zero in some iteration.
        components: the reconstruction so far, (N, K).
        iteration: iterations done.
    """

    encoder: Pair
    decoder: Pair
    seen: torch.Tensor
    components: torch.Tensor
    iteration: int


class Layer(nn.Module):
    """An LSTM cell (Hochreiter and Schmidhuber 1997) and a linear output that starts at zero."""

    def __init__(self, ins: int, channels: int, outs: int) -> None:
        super().__init__()
        self.input = nn.Linear(ins, 4 * channels)
        self.hidden = nn.Linear(channels, 4 * channels, bias=False)
        self.output = nn.Linear(channels, outs, bias=False)
        with torch.no_grad():
            self.input.bias.zero_()
            self.input.bias[channels : 2 * channels] = (
                1.0  # remember at first (Jozefowicz et al. 2015)
            )
            self.output.weight.zero_()

    def forward(
        self, x: torch.Tensor, state: Pair
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        gates = self.input(x)
        if state is not None:
            gates = gates + self.hidden(state[0])
        take, keep, new, show = gates.chunk(4, 1)
        cell = torch.sigmoid(take) * torch.tanh(new)
        if state is not None:
            cell = cell + torch.sigmoid(keep) * state[1]
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return self.output(hidden), (hidden, cell)


class Ladder(nn.Module):
    """The thresholds of an iteration's bits, in steps, and the shift of each component that was
    seen."""

    def __init__(self, bits: int, components: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(bits))
        self.shift = nn.Parameter(torch.full((components,), 0.6))


class Steps(nn.Module):
    """What each bit of an iteration adds to its component, in steps; an offset; and the shift taken
    back."""

    def __init__(self, bits: int, components: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.full((bits,), 0.5))
        self.bias = nn.Parameter(torch.zeros(components))
        self.shift = nn.Parameter(torch.full((components,), -0.5))


class Finish(nn.Module):
    """The last network: what a picture of so many bits is likely to have had beside them. Starts as
    the identity."""

    def __init__(self, fine: int, coarse: int, iterations: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(12, fine, 3, 1, 1)
        self.down = nn.Conv2d(fine, coarse, 3, 2, 1)
        self.coarse1, self.coarse2 = (
            nn.Conv2d(coarse, coarse, 3, 1, 1),
            nn.Conv2d(coarse, coarse, 3, 1, 1),
        )
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine1, self.fine2 = nn.Conv2d(fine, fine, 3, 1, 1), nn.Conv2d(fine, fine, 3, 1, 1)
        self.leave = nn.Conv2d(fine, 12, 3, 1, 1)
        self.fine = nn.Parameter(torch.zeros(iterations, fine))
        self.coarse = nn.Parameter(torch.zeros(iterations, coarse))
        with torch.no_grad():
            self.leave.weight.zero_()
            assert self.leave.bias is not None
            self.leave.bias.zero_()

    def forward(self, image: torch.Tensor, iteration: torch.Tensor) -> torch.Tensor:
        """Args:
        image: (N, 3, H, W).
        iteration: int64 (N,), that was the last.
        """
        x = (
            self.enter(F.pixel_unshuffle(image, 2)) + self.fine[iteration][:, :, None, None]
        )  # (fine, H/2, W/2)
        low = self.down(F.relu(x)) + self.coarse[iteration][:, :, None, None]  # (coarse, H/4, W/4)
        low = low + self.coarse2(F.relu(self.coarse1(F.relu(low))))
        x = x + F.pixel_shuffle(self.up(F.relu(low)), 2)
        x = x + self.fine2(F.relu(self.fine1(F.relu(x))))
        return image + F.pixel_shuffle(self.leave(F.relu(x)), 2)


class SpectralCodec(nn.Module):
    """Encoder, binarizer, decoder and last network."""

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__()
        self.config = config
        k = config.components
        self.stem, self.exit = nn.Linear(k, k), nn.Linear(k, k)
        self.encoder, self.decoder = Layer(2 * k, config.encoder, k), Layer(k, config.decoder, k)
        ladders, entrances = (
            [Ladder(bits, k) for bits in config.bits],
            [Steps(bits, k) for bits in config.bits],
        )
        self.binarizers, self.entrances = nn.ModuleList(ladders), nn.ModuleList(entrances)
        self.finish = (
            Finish(config.finish[0], config.finish[1], config.iterations) if config.finish else None
        )
        self.register_buffer("spectrum", torch.from_numpy(spectrum(config)), persistent=False)
        self.spectrum: torch.Tensor
        for t in range(config.iterations):
            of = torch.from_numpy(config.component_of(t))
            self.register_buffer(f"component{t}", of, persistent=False)
            with torch.no_grad():
                ladders[t].bias.copy_(_thresholds(config, t))

    def set_axes(self, images: torch.Tensor, root: torch.Tensor | None = None) -> None:
        """The principal axes of pictures (N, 3, H, W), as the start of stem and exit.

        Args:
            root: (K, K), symmetric, of full rank: the axes are those that pictures have after this
                matrix, so that its square weighs errors. Its scale is left out: a step stays the
                geometric mean of what it is in the components.
        """
        with torch.no_grad():
            x = images.flatten(1) @ self.spectrum.T
            mean = x.mean(0)
            spread = (x - mean).T.double() @ (x - mean).double()
            weight = torch.eye(len(mean), dtype=torch.float64, device=x.device)
            if root is not None:
                values, vectors = torch.linalg.eigh(root.double())
                weight = vectors * (values / values.log().mean().exp()) @ vectors.T
            _, axes = torch.linalg.eigh(weight @ spread @ weight)
            axes = axes.flip(1)  # (K, K): column k is the k-th axis
            stem = (axes.T @ weight).float()
            self.stem.weight.copy_(stem)
            self.stem.bias.copy_(-(stem @ mean))
            self.exit.weight.copy_(torch.linalg.solve(weight, axes))
            self.exit.bias.copy_(mean)

    def start(self, count: int) -> SpectralState:
        """The state before the first iteration."""
        zero = self.stem.weight.new_zeros(count, self.config.components)
        return SpectralState(None, None, zero, zero, 0)

    def components(self, source: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, K)."""
        return self.stem(source.flatten(1) @ self.spectrum.T)  # type: ignore[no-any-return]

    def picture(self, components: torch.Tensor) -> torch.Tensor:
        """(N, K) to (N, 3, H, W): the picture before the last network."""
        side = self.config.native
        return (self.exit(components) @ self.spectrum).view(-1, 3, side, side)  # type: ignore[no-any-return]

    def analyse(self, source: torch.Tensor, state: SpectralState) -> tuple[torch.Tensor, Pair]:
        """One step of the encoder: `source` (N, K) to values (N, bits) in -1..1 whose signs are the
        bits, and its state."""
        t = state.iteration
        step, ladder = self.config.steps[t], self.binarizers[t]
        assert isinstance(ladder, Ladder)
        left = (source - state.components) / step
        change, after = self.encoder(torch.cat([source * SOURCE_SCALE, left], 1), state.encoder)
        z = left + change + state.seen * ladder.shift
        return torch.tanh(SLOPE * (z[:, getattr(self, f"component{t}")] - ladder.bias)), after

    def synthesise(self, bits: torch.Tensor, state: SpectralState) -> SpectralState:
        """One step of the decoder: bits (N, bits), -1 or 1, to the state with the new
        reconstruction and one iteration more."""
        t = state.iteration
        of, entrance = getattr(self, f"component{t}"), self.entrances[t]
        assert isinstance(entrance, Steps)
        zero = torch.zeros_like(state.components, dtype=bits.dtype)
        level = (
            zero.index_add(1, of, bits * entrance.step)
            + entrance.bias
            + state.seen * entrance.shift
        )
        correction, after = self.decoder(level, state.decoder)
        with torch.no_grad():
            seen = torch.maximum(
                state.seen, (zero.index_add(1, of, bits) != 0).to(state.seen.dtype)
            )
        components = state.components + self.config.steps[t] * (level + correction)
        return SpectralState(state.encoder, after, seen, components, t + 1)

    def forward(
        self, source: torch.Tensor, iterations: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Encodes and decodes: the components after each iteration, (N, K), and its bits, (N,
        bits[t]), -1 or 1.

        Args:
            source: (N, 3, H, W) in -1..1.
        """
        wanted = self.components(source)
        state = self.start(len(source))
        found, codes = [], []
        for _ in range(iterations):
            values, encoder = self.analyse(wanted, state)
            bits = binarize(values)
            state = self.synthesise(bits, state)._replace(encoder=encoder)
            found.append(state.components)
            codes.append(bits)
        return found, codes

    def shown(self, components: torch.Tensor, iteration: int) -> torch.Tensor:
        """The picture of `components` (N, K) that `iteration` left: (N, 3, H, W), about -1..1, not
        clipped."""
        image = self.picture(components)
        if self.finish is None:
            return image
        return self.finish(image, torch.full((len(image),), iteration, device=image.device))  # type: ignore[no-any-return]


def _thresholds(config: SpectralConfig, iteration: int) -> torch.Tensor:
    """Where an iteration's ladders start: a zone about zero that is wider than a step, then one a
    step, from below to above."""
    found = []
    for count, many in config.ladders[iteration]:
        above = 0.62 + torch.arange(many // 2)
        found += [torch.cat([-above.flip(0), above])] * count
    return torch.cat(found)
