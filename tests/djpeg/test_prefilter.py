"""The blur in front of encoders that take no guide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import picture

from vizcomp.djpeg.prefilter import prefiltered


def test_what_is_important_stays_as_it_is_and_the_rest_loses_its_detail() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    sigmas = np.zeros((8, 16), np.float32)
    sigmas[:, 8:] = 3
    made = prefiltered(pixels, sigmas)
    # half a block from the edge the blur begins
    assert np.array_equal(made[:, :60], pixels[:, :60])
    assert made[:, 72:].std() < pixels[:, 72:].std() / 4
    assert made[:, 72:].mean() == pytest.approx(pixels[:, 72:].mean(), abs=3)


def test_more_sigma_is_more_blur() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 320, 3), np.uint8)
    sigmas = np.broadcast_to(np.linspace(0, 4, 40, dtype=np.float32), (4, 40))
    made = prefiltered(pixels, sigmas)
    spread = [made[:, at : at + 40].std() for at in range(0, 320, 40)]
    assert spread == sorted(spread, reverse=True)


def test_the_edge_of_importance_leaves_no_seam() -> None:
    rows, cols = np.mgrid[:96, :96]
    smooth = ((rows + cols) * 255 // 190).astype(np.uint8)
    sigmas = np.zeros((12, 12), np.float32)
    sigmas[4:8, 4:8] = 5
    made = prefiltered(smooth, sigmas)
    assert made.shape == smooth.shape
    assert (
        np.abs(np.diff(made[12:84, 12:84].astype(int), axis=0)).max()
        <= np.abs(np.diff(smooth.astype(int), axis=0)).max() + 1
    )


def test_nothing_to_blur_costs_nothing() -> None:
    pixels = picture(3, 40, 56)
    assert prefiltered(pixels, np.zeros((5, 7), np.float32)) is pixels


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 41), st.integers(1, 41), st.floats(0, 12), st.booleans())
def test_any_size_keeps_its_shape(height: int, width: int, most: float, grey: bool) -> None:
    pixels = picture(1, height, width)
    pixels = pixels[..., 0] if grey else pixels
    sigmas = np.full((-(-height // 8), -(-width // 8)), most, np.float32)
    made = prefiltered(pixels, sigmas)
    assert made.shape == pixels.shape
    assert made.dtype == np.uint8
