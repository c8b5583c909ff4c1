"""Search for better bits of the recurrent codec, at encode time: the decoder needs to know nothing
of it.

The encoder answers in one pass, and its bits are near a good code but seldom at it. One round goes
on from them:

1. the slope of the error along each bit, by one pass backwards through the decoder;
2. the bits that promise most, turned one at a time: what each is really worth;
3. the best of these turned together, two, three, ... at a time; what is best by everything that
counts is kept.

The slope alone misleads (a turned bit is no small step), and bits that help alone get in each
other's way, hence the second and the third step. What is closed is the gap between amortised and
optimal inference (Yang, Bamler and Mandt 2020, "Improving inference for neural image compression",
arXiv 2006.04240; there by gradients alone, since their codes are not bits).

Large images are searched everywhere at once, in cells of `CELL` x `CELL` positions that decide for
themselves.

Images are float32 in -1..1. This is the one file of the room that needs torch, for the slope:
nothing else imports it but `analysis`, where a search is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from vizcomp.graphs.codecs import CodecConfig
from vizcomp.graphs.recurrent import RecurrentConfig, Weights
from vizcomp.graphs.spectral import SpectralConfig
from vizcomp.metrics import MS_SSIM_WEIGHTS
from vizcomp.nets.recurrent import CodecState, RecurrentCodec, State
from vizcomp.nets.spectral import SpectralCodec
from vizcomp.nets.ssim import similarity
from vizcomp.neural import network as arrays
from vizcomp.neural.arrays import Floats, Pixels, to_pixels

CELL = 4  # positions: all of an image of 32x32 under `cifar`, a square of 64 pixels under `photo`
WINDOW = 8  # of the structural error
SCALES = MS_SSIM_WEIGHTS[:4]  # coarser windows would be larger than a cell of a photo
SINGLES, JOINT = 8, (2, 3, 4, 5)  # a round: bits tried alone, and how many of the best together
TOGETHER = 1 << 19  # pixels that go through the decoder in one pass

Error = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Cost = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
ArrayCost = Callable[[Pixels, npt.NDArray[np.bool_], npt.NDArray[np.intp]], Floats]


class Decoder(Protocol):
    """What the search asks of a codec's networks."""

    @property
    def config(self) -> CodecConfig: ...

    def synthesise(self, bits: torch.Tensor, state: CodecState) -> CodecState: ...


class _Spectral:
    """The decoder of a codec of small pictures in their spectrum, as `Decoder`: its state as two
    pairs."""

    def __init__(self, network: SpectralCodec) -> None:
        self._network = network
        self.config = network.config

    def synthesise(self, bits: torch.Tensor, state: CodecState) -> CodecState:
        layer: State = None
        before = self._network.start(len(bits))
        if state.iteration:
            layer, pair = state.decoder
            assert pair is not None
            before = before._replace(
                decoder=layer, seen=pair[0], components=pair[1], iteration=state.iteration
            )
        after = self._network.synthesise(bits[:, :, 0, 0], before)
        image = self._network.shown(after.components, state.iteration)
        return CodecState(
            (), (after.decoder, (after.seen, after.components)), image, after.iteration
        )


def torch_network(config: CodecConfig, weights: Weights) -> Decoder:
    """A codec's networks with their weights, in evaluation mode."""
    network = (
        SpectralCodec(config) if isinstance(config, SpectralConfig) else RecurrentCodec(config)
    )
    network.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in weights.items()}
    )
    network.eval().requires_grad_(False)
    return _Spectral(network) if isinstance(network, SpectralCodec) else network


def searched(
    config: CodecConfig,
    weights: Weights,
    values: Floats,
    source: Floats,
    state: arrays.State,
    *,
    candidates: int,
    structure: bool,
    cost: ArrayCost | None,
    threads: int,
) -> npt.NDArray[np.bool_]:
    """Rounds of `improved`, from arrays to arrays.

    Args:
        values: the encoder's answer in -1..1, (N, bits, rows, columns), whose signs are what the
            search starts from.
        source: (N, 3, H, W) in -1..1.
        state: before this iteration.
        candidates: tried in all.
        structure: by the `structural` error, in place of the `squared` one.
        cost: as for `improved`, of images in whole levels.
        threads: that compute together; 0: as torch has it.

    Returns:
        bool, as `values`.
    """
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        network = torch_network(config, weights)
        pairs = [
            tuple(map(torch.from_numpy, state.decoder[i : i + 2]))
            for i in range(0, len(state.decoder), 2)
        ]
        decoder: tuple[State, ...] = tuple((pair[0], pair[1]) for pair in pairs)
        if not state.iteration and isinstance(config, RecurrentConfig):
            decoder = (None,) * len(config.decoder)
        at = CodecState((), decoder, torch.from_numpy(state.image), state.iteration)

        def counted(image: torch.Tensor, trial: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
            assert cost is not None
            return torch.from_numpy(cost(to_pixels(image.numpy()), trial.numpy(), which.numpy()))

        told, wanted = torch.from_numpy(values), torch.from_numpy(source)
        best = told > 0
        while candidates > 0:
            singles = min(SINGLES, candidates)
            joint = JOINT[: candidates - singles]
            best = improved(
                network,
                best,
                told,
                wanted,
                at,
                singles=singles,
                joint=joint,
                error=structural if structure else squared,
                cost=counted if cost is not None else None,
            )
            candidates -= singles + len(joint)
        return np.asarray(best.numpy())
    finally:
        torch.set_num_threads(before)


def squared(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Squared error of each pixel of images in -1..1, clipped as they are shown: (N, 3, H, W) to
    (N, H, W).

    Its mean is ten times the mean squared error of images in 0..1, as in training.
    """
    return 2.5 * (image.clamp(-1, 1) - source).square().mean(1)


def structural(image: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """What codecs trained for MS-SSIM (Wang, Simoncelli and Bovik 2003) make small, at each place:
    (N, 3, H, W) to (N, H, W).

    Half of the absolute error of images in 0..1, and one minus the mean of the scales' terms of
    contrast and structure, with the published weights. A sum of scales where MS-SSIM has their
    product: so each place has its own. Windows are squares of 8 pixels, every 4; small images have
    fewer scales.
    """
    shown = image.clamp(-1, 1)
    total = 0.25 * (shown - source).abs().mean(1)
    weights = [w for k, w in enumerate(SCALES) if min(image.shape[-2:]) >= WINDOW << k]
    for weight in weights:
        contrast, _ = similarity(shown, source, _windows, peak=2.0)
        term = F.interpolate(1 - contrast.mean(1, keepdim=True), size=total.shape[-2:])[:, 0]
        total = total + weight / sum(weights) * term
        shown, source = F.avg_pool2d(shown, 2), F.avg_pool2d(source, 2)
    return total


def _windows(planes: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(planes, WINDOW, WINDOW // 2)


def improved(
    network: Decoder,
    bits: torch.Tensor,
    values: torch.Tensor,
    source: torch.Tensor,
    state: CodecState,
    *,
    singles: int = SINGLES,
    joint: Sequence[int] = JOINT,
    error: Error = squared,
    cost: Cost | None = None,
) -> torch.Tensor:
    """One round of the search: bits that decode to nothing worse, and to something better where
    that was found.

    Args:
        bits: what to start from, bool (N, bits, rows, columns).
        values: the encoder's answer in -1..1: what it was sure of is rather left alone.
        source: (N, 3, H, W) in -1..1.
        state: before this iteration.
        singles: bits of each cell that are tried alone.
        joint: how many of the best of these are turned together; none that does harm alone.
        error: of each pixel, (n, 3, H, W) of decoded images and of their sources to (n, H, W).
        cost: what counts for an image beside its mean error. It is called with decoded images (n,
            3, H, W) in -1..1, their bits (n, bits, rows, columns) and the index (n,) of what they
            are to be, and gives float32 (n,). With it all cells of an image turn equally many bits.

    Returns:
        bool, as `bits`.
    """
    with torch.enable_grad():
        signs = (bits * 2.0 - 1.0).requires_grad_()
        image = network.synthesise(signs, state).image
        (slope,) = torch.autograd.grad(error(image, source).sum(), signs)
    with torch.no_grad():
        promise = _to_cells(
            signs * slope * (1.02 - values.abs()).clamp_min(0.02).sqrt(), -torch.inf
        )
        most = promise.topk(min(singles, promise.shape[2]), 2).indices  # (N, cells, singles)
        now = _in_cells(error(image, source), network.config.block)  # (N, cells)
        alone = (
            _tried(
                network,
                [_turned(bits, at[:, :, None]) for at in most.unbind(2)],
                source,
                state,
                error,
                None,
            )[0]
            - now
        )
        alone, order = alone.permute(1, 2, 0).sort(2)  # the best first
        most = most.gather(2, order)
        trials = [
            bits,
            *(_turned(bits, most[:, :, :many], alone[:, :, :many] < 0) for many in (1, *joint)),
        ]
        errors, costs = _tried(network, trials, source, state, error, cost)  # (K, N, cells), (K, N)
        if cost is not None:
            errors = (errors.sum(2) + costs)[:, :, None].expand_as(errors)
        best = errors.argmin(0)  # (N, cells); of equals the first, which is what there was
        result = bits.clone()
        for k, trial in enumerate(trials[1:], 1):
            result = torch.where(_of_cells(best == k, bits), trial, result)
        if cost is None and now.shape[1] > 1:
            # each cell was judged while its neighbours had other bits: together they might be worse
            after = _tried(network, [result], source, state, error, None)[0][0].sum(1)
            result = torch.where((after < now.sum(1))[:, None, None, None], result, bits)
    return result


def _tried(
    network: Decoder,
    trials: Sequence[torch.Tensor],
    source: torch.Tensor,
    state: CodecState,
    error: Error,
    cost: Cost | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean error by cells (K, N, cells), and the cost (K, N), of K trials of the bits of N
    images."""
    n, _, height, width = source.shape
    step = max(1, TOGETHER // (n * height * width))
    errors, costs = [], []
    for start in range(0, len(trials), step):
        part = torch.stack(list(trials[start : start + step]))
        # the images in turn, as they stand in `part`
        which = torch.arange(n, device=source.device).repeat(len(part))
        flat = part.flatten(0, 1)
        image = network.synthesise(flat * 2.0 - 1.0, picked(state, which)).image
        cells = _in_cells(error(image, source[which]), network.config.block)
        errors.append(cells.view(len(part), n, -1))
        more = torch.zeros(len(which)) if cost is None else cost(image, flat, which)
        costs.append(more.view(len(part), n))
    return torch.cat(errors), torch.cat(costs).to(source.device)


def picked(state: CodecState, which: torch.Tensor) -> CodecState:
    """The decoder's state and the reconstruction of some images, which may be there several
    times."""

    def some(one: State) -> State:
        return None if one is None else (one[0][which], one[1][which])

    return state._replace(
        encoder=(), decoder=tuple(some(s) for s in state.decoder), image=state.image[which]
    )


def _to_cells(x: torch.Tensor, fill: float) -> torch.Tensor:
    """(N, bits, rows, columns) to (N, cells, bits * CELL * CELL), cells row by row, beyond the
    border `fill`."""
    rows, columns = (math.ceil(side / CELL) for side in x.shape[2:])
    x = F.pad(x, (0, columns * CELL - x.shape[3], 0, rows * CELL - x.shape[2]), value=fill)
    n, bits = x.shape[:2]
    return (
        x.view(n, bits, rows, CELL, columns, CELL)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(n, rows * columns, -1)
    )


def _turned(
    bits: torch.Tensor, at: torch.Tensor, where: torch.Tensor | None = None
) -> torch.Tensor:
    """The bits with those at the indices (N, cells, k) of each cell turned, only `where` that is
    true."""
    n, channels, height, width = bits.shape
    rows, columns = math.ceil(height / CELL), math.ceil(width / CELL)
    turn = torch.zeros(
        n, rows * columns, channels * CELL * CELL, dtype=torch.bool, device=bits.device
    )
    turn.scatter_(2, at, torch.ones_like(at, dtype=torch.bool) if where is None else where)
    plane = turn.view(n, rows, columns, channels, CELL, CELL).permute(0, 3, 1, 4, 2, 5)
    return bits ^ plane.reshape(n, channels, rows * CELL, columns * CELL)[:, :, :height, :width]


def _of_cells(x: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """A value for each cell (N, cells) as one for each position, (N, 1, rows, columns)."""
    height, width = bits.shape[2:]
    grid = x.view(len(x), 1, math.ceil(height / CELL), math.ceil(width / CELL))
    return grid.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)[:, :, :height, :width]


def _in_cells(x: torch.Tensor, block: int) -> torch.Tensor:
    """The sum over the pixels of each cell, in shares of all pixels' number: (N, H, W) to (N,
    cells)."""
    side = CELL * block
    height, width = x.shape[1:]
    x = F.pad(x, (0, -width % side, 0, -height % side))
    return F.avg_pool2d(x[:, None], side).flatten(1) * (side * side / (height * width))
