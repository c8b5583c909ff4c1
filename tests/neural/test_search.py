"""The search for better bits: it makes nothing worse, finds what trying everything finds, and knows
its cells."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from vizcomp.nets.recurrent import CodecState, RecurrentCodec
from vizcomp.neural import search
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.search import (
    Error,
    _in_cells,
    _of_cells,
    _to_cells,
    _turned,
    improved,
    picked,
    squared,
    structural,
)


@pytest.fixture(scope="module")
def network(any_model: Path) -> RecurrentCodec:
    """Blocks of 8, iterations of 4 bits; random weights give nearly grey images, so what the bits
    do is enlarged."""
    codec = NeuralCodec.load(any_model)
    network = search.torch_network(codec.config, codec.weights)
    for entrance in network.entrances:
        entrance.weight.mul_(4)
    network.exit.weight.mul_(12)
    return network


def source_of(image: np.ndarray, *size: int) -> torch.Tensor:
    """Two cuts of the image, (2, 3, H, W) in -1..1."""
    height, width = size
    cuts = np.stack([image[:height, :width], image[60 : 60 + height, 100 : 100 + width]])
    return torch.from_numpy(cuts).permute(0, 3, 1, 2).float() / 127.5 - 1


def start(network: RecurrentCodec, source: torch.Tensor) -> tuple[torch.Tensor, CodecState]:
    """Values and the state before the second iteration, so that there is one."""
    with torch.no_grad():
        state = network.start((len(source), *source.shape[-2:]))
        values, encoder = network.analyse(source, state)
        state = network.synthesise((values > 0) * 2.0 - 1.0, state)._replace(encoder=encoder)
        return network.analyse(source, state)[0], state


def errors(
    network: RecurrentCodec, bits: torch.Tensor, source: torch.Tensor, state: CodecState
) -> torch.Tensor:
    with torch.no_grad():
        return squared(network.synthesise(bits * 2.0 - 1.0, state).image, source).mean((1, 2))


@pytest.mark.parametrize("size", [(32, 32), (16, 24), (40, 104), (96, 64), (8, 200)])
def test_each_round_makes_the_image_better(
    network: RecurrentCodec, cat: np.ndarray, size: tuple[int, int]
) -> None:
    source = source_of(cat, *size)
    values, state = start(network, source)
    bits = values > 0
    found = [errors(network, bits, source, state)]
    for _ in range(3):
        before = bits.clone()
        after = improved(network, bits, values, source, state)
        assert torch.equal(bits, before), "what it is given stays as it is"
        assert after.dtype == torch.bool
        assert after.shape == bits.shape
        bits = after
        found.append(errors(network, bits, source, state))
    assert all((b <= a + 1e-6).all() for a, b in itertools.pairwise(found))
    assert found[-1].mean() < 0.99 * found[0].mean()


def test_one_bit_is_the_best_of_all_bits(network: RecurrentCodec, cat: np.ndarray) -> None:
    source = source_of(cat, 16, 16)
    values, state = start(network, source)
    bits = values > 0
    by_hand = []
    for at in itertools.product(*map(range, bits.shape[1:])):
        trial = bits.clone()
        trial[(slice(None), *at)] ^= True
        by_hand.append(errors(network, trial, source, state))
    best = torch.stack([errors(network, bits, source, state), *by_hand]).min(0).values
    found = improved(network, bits, values, source, state, singles=bits[0].numel(), joint=())
    torch.testing.assert_close(errors(network, found, source, state), best, rtol=1e-5, atol=1e-6)
    assert (found != bits).flatten(1).sum(1).max() == 1


def test_joint_turns_are_of_bits_that_help_alone(network: RecurrentCodec, cat: np.ndarray) -> None:
    source = source_of(cat, 32, 32)
    values, state = start(network, source)
    bits = values > 0
    now = errors(network, bits, source, state)

    def reward(image: torch.Tensor, trial: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        return -9.0 * (trial != bits[which]).flatten(1).sum(1)

    found = improved(network, bits, values, source, state, joint=(4,), cost=reward)
    turned = (found != bits).nonzero()
    assert len(turned) > 2
    for image, *at in turned.tolist():
        alone = bits[image : image + 1].clone()
        alone[(0, *at)] ^= True
        after = errors(
            network, alone, source[image : image + 1], picked(state, torch.tensor([image]))
        )
        assert after < now[image] + 1e-6


def test_what_else_counts_decides(network: RecurrentCodec, cat: np.ndarray) -> None:
    source = source_of(cat, 32, 64)  # two cells: with a cost they turn equally many
    values, state = start(network, source)
    bits = values > 0
    calls = []

    def cost(image: torch.Tensor, trial: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        calls.append((image.shape, trial.shape, which.tolist()))
        return 100.0 * (trial != bits[which]).flatten(1).sum(1) * (which == 0)

    found = improved(network, bits, values, source, state, cost=cost)
    assert torch.equal(found[0], bits[0]), "a turn costs more there than it can bring"
    assert not torch.equal(found[1], bits[1])
    assert [(shape[0], which) for shape, _, which in calls] == [(12, [0, 1] * 6)]
    assert errors(network, found, source, state)[1] < errors(network, bits, source, state)[1]


def test_many_passes_give_what_one_does(
    network: RecurrentCodec, cat: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(cat, 40, 72)
    values, state = start(network, source)
    once = improved(network, values > 0, values, source, state)
    monkeypatch.setattr(search, "TOGETHER", 1)
    assert torch.equal(once, improved(network, values > 0, values, source, state))


def test_cells_cover_every_bit_and_pixel_once() -> None:
    x = torch.arange(2 * 3 * 5 * 9).view(2, 3, 5, 9).float()
    cells = _to_cells(x, -torch.inf)
    assert cells.shape == (2, 2 * 3, 3 * 16)
    assert sorted(cells[cells > -torch.inf].tolist()) == x.flatten().tolist()
    bits = torch.zeros(2, 3, 5, 9, dtype=torch.bool)
    for cell, at in ((0, 17), (4, 0), (5, 32)):
        turned = _turned(
            bits,
            torch.full((2, 6, 1), at),
            torch.eye(6, dtype=torch.bool)[cell].expand(2, 6)[:, :, None],
        )
        assert torch.equal(x[turned], cells[:, cell, at])
        assert torch.equal(
            _of_cells(torch.eye(6)[cell].expand(2, 6), bits)[:, 0][turned.any(1)], torch.ones(2)
        )
    pixels = torch.rand(2, 5 * 8, 9 * 8)
    shares = _in_cells(pixels, 8)
    torch.testing.assert_close(shares.sum(1), pixels.mean((1, 2)))
    torch.testing.assert_close(shares[:, 1], pixels[:, :32, 32:64].sum((1, 2)) / pixels[0].numel())


def test_the_structural_error_is_of_places_and_of_what_ms_ssim_sees(cat: np.ndarray) -> None:
    source = source_of(cat, 128, 192)
    assert structural(source, source).abs().max() < 1e-5
    blurred = torch.nn.functional.avg_pool2d(source, 3, 1, 1)
    part = source.clone()
    part[:, :, :64, :64] = blurred[:, :, :64, :64]
    found = structural(part, source)
    assert found.shape == (2, 128, 192)
    cells = _in_cells(found, 16)  # the first of six is blurred; windows reach over its border
    assert (cells[:, 0] > 5 * cells[:, 1:].max(1).values).all()
    assert (structural(source + 0.1, source).mean() < structural(blurred, source).mean()).all(), (
        "light is not structure"
    )
    darker = structural(source.clamp(-0.8, 0.8) - 0.2, source)
    assert ((darker >= 0.025 - 1e-6).float().mean() > 0.9).all(), "but it counts a little"
    assert structural(source[:, :, :8, :9], source[:, :, :8, :9]).shape == (2, 8, 9)


def test_a_codec_is_searched_by_what_it_was_trained_for(any_model: Path, cat: np.ndarray) -> None:
    codec = NeuralCodec.load(any_model)
    by_error = codec.codes(cat[:64, :64], search=12)
    codec.words["settings"] = {"reconstruction": "ms-ssim"}
    by_structure = codec.codes(cat[:64, :64], search=12)
    assert not all(map(np.array_equal, by_error, by_structure))

    def mean(error: Error, codes: list[np.ndarray]) -> float:
        shown = (
            torch.from_numpy(codec.image(codes, 64, 64)).permute(2, 0, 1)[None].float() / 127.5 - 1
        )
        return float(
            error(
                shown, torch.from_numpy(cat[:64, :64]).permute(2, 0, 1)[None].float() / 127.5 - 1
            ).mean()
        )

    assert mean(squared, by_error[:1]) < mean(squared, by_structure[:1])
    assert mean(structural, by_structure[:1]) < mean(structural, by_error[:1])
