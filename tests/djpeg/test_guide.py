"""Importance maps: near is large, doubt is neutral, and the grid is the photo's."""

from __future__ import annotations

import numpy as np
import pytest

from vizcomp.djpeg import guide


def flat(rows: int, cols: int) -> np.ndarray:
    return np.zeros((rows, cols), np.float32)


def test_parse_names_and_refusals() -> None:
    assert guide.parse("depth+detail") == ("depth", "detail")
    assert guide.parse("uniform") == ("uniform",)
    assert guide.parse("depth+machine") == guide.parse("depth+text") == ("depth", "text")
    for bad in ("", "depth+", "depth+depth", "uniform+depth", "nearness"):
        with pytest.raises(ValueError, match=r".+"):
            guide.parse(bad)


@pytest.mark.parametrize("shape", [(6, 8), (60, 80), (240, 320), (1, 1)])
def test_nearer_blocks_are_more_important_at_any_map_size(shape: tuple[int, int]) -> None:
    height, width = 480, 640
    depth = np.broadcast_to(np.linspace(0, 1, shape[0])[:, None], shape)
    importance = guide.depth_importance(depth, None, flat(60, 80), size=(height, width))
    assert importance.shape == (60, 80)
    assert importance.dtype == np.float32
    if shape == (1, 1):
        assert np.all(importance == importance[0, 0])
    else:
        assert importance[-1].min() > 0.9
        assert importance[0].max() < 0.1
        assert np.all(np.diff(importance[:, 40]) >= 0)


def test_the_nearest_third_pays_nothing_and_the_farthest_all() -> None:
    depth = np.broadcast_to(np.linspace(0, 1, 60, dtype=np.float32)[:, None], (60, 80))
    importance = guide.depth_importance(depth, None, flat(60, 80), size=(480, 640))[:, 40]
    assert np.all(importance[41:] == 1)
    assert importance[0] < 0.02
    assert np.all(np.diff(importance[:38]) > 0)
    beside = guide.depth_importance(depth, None, flat(60, 80), size=(480, 640), beside_text=True)[
        :, 40
    ]
    assert np.all(np.diff(beside[1:-1]) > 0)  # its own rank there


def test_only_the_order_of_depth_counts() -> None:
    rng = np.random.default_rng(1)
    depth = rng.random((60, 80)).astype(np.float32)
    size = (480, 640)
    one = guide.depth_importance(depth, None, flat(60, 80), size=size)
    other = guide.depth_importance(depth * 7 + 3, None, flat(60, 80), size=size)
    assert np.allclose(one, other, atol=1e-3)


def test_doubt_turns_the_guide_off() -> None:
    depth = np.broadcast_to(np.linspace(0, 1, 60, dtype=np.float32)[:, None], (60, 80))
    sure = guide.depth_importance(
        depth, np.ones((60, 80), np.float32), flat(60, 80), size=(480, 640)
    )
    half = guide.depth_importance(
        depth, np.full((60, 80), 0.5, np.float32), flat(60, 80), size=(480, 640)
    )
    none = guide.depth_importance(
        depth, np.zeros((60, 80), np.float32), flat(60, 80), size=(480, 640)
    )
    assert np.allclose(1 - half, (1 - sure) / 2, atol=1e-6)
    assert np.all(none == 1)
    strong = guide.depth_importance(
        depth, np.full((60, 80), 0.5, np.float32), flat(60, 80), size=(480, 640), strength=1.0
    )
    # the stronger the guide, the surer a place must be
    assert np.allclose(1 - strong, (1 - sure) / 4, atol=1e-6)
    neutral = guide.depth_importance(
        depth, np.zeros((60, 80), np.float32), flat(60, 80), size=(480, 640), beside_text=True
    )
    assert np.all(neutral == guide.NEUTRAL)


def test_upsampling_follows_the_edges_of_the_photo() -> None:
    """A map of 8 columns says only roughly where the near object ends; the luma edge at block
    column 37 says exactly."""
    luma = np.zeros((60, 80), np.float32)
    luma[:, 37:] = 800
    depth = np.broadcast_to(np.array([0, 0, 0, 0.3, 0.8, 1, 1, 1], np.float32), (6, 8))
    coarse = guide.to_block_grid(depth, (480, 640))
    sharp = guide.guided_filter(luma, coarse, radius=10)
    blurred = guide.guided_filter(flat(60, 80), coarse, radius=10)
    assert sharp[30, 37] - sharp[30, 36] > 4 * (blurred[30, 37] - blurred[30, 36])
    assert np.all(
        np.diff(guide.depth_importance(depth, None, luma, size=(480, 640))[30, 20:60]) >= 0
    )


def test_stray_blocks_are_smoothed_away() -> None:
    field = np.zeros((20, 20), np.float32)
    field[7, 9] = 1
    assert guide.median3(field).max() == 0
    field[:, 10:] = 1
    assert np.array_equal(guide.median3(field)[:, 10:], field[:, 10:])


def test_the_median_is_that_of_nine() -> None:
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (1, 9), (7, 2), (12, 17)):
        for field in (
            rng.random(shape).astype(np.float32),
            rng.integers(0, 3, shape).astype(np.float32),
        ):
            padded = np.pad(field, 1, mode="edge")
            nine = [padded[i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3)]
            assert np.array_equal(guide.median3(field), np.median(nine, axis=0))


def test_equal_values_share_their_mean_rank() -> None:
    field = np.array([[3.0, 1.0, 1.0], [7.0, 3.0, 3.0]], np.float32)
    expected = np.array([[3.0, 0.5, 0.5], [5.0, 3.0, 3.0]]) / 5
    np.testing.assert_allclose(guide.rank_normalise(field), expected, rtol=1e-6)
    assert np.all(guide.rank_normalise(np.full((3, 4), 2.0, np.float32)) == guide.NEUTRAL)


def test_detail_prefers_strong_edges() -> None:
    energy = np.full((10, 10), 4.0, np.float32)
    energy[5, 5] = 2000
    importance = guide.detail_importance(energy)
    assert importance[5, 5] == 1
    assert importance[4, 4] == 1  # the neighbours of a strong block count too
    assert importance[0, 0] == 0


def test_text_needs_a_sign_of_lettering_or_strong_detail() -> None:
    faint, strong = np.full((4, 6), 16.0), np.full((4, 6), 2000.0)
    logits = np.zeros((4, 6), np.float32)
    logits[1, 2], logits[3, 5] = 5, -9
    for energy in (faint, strong):
        found = guide.text_importance(logits, energy, size=(32, 48))
        assert found.shape == (4, 6)
        assert found.dtype == np.float32
        assert found[1, 2] == 1
        assert found[3, 5] == 0
        assert 0 < found[0, 0] <= 1
    assert (
        guide.text_importance(logits, strong, size=(32, 48))
        >= guide.text_importance(logits, faint, size=(32, 48))
    ).all()


def test_text_stands_beside_the_other_guides() -> None:
    text = np.array([[1.0, 0.0, 0.0, 0.5]], np.float32)
    depth = np.array([[0.0, 0.0, 1.0, 0.5]], np.float32)
    both = guide.combine([depth], text=text)
    assert both[0, 0] == 1  # far lettering is kept
    assert both[0, 1] == 0
    assert 0.5 < both[0, 2] < 1  # near, and no lettering
    assert max(text[0, 3], depth[0, 3] * guide.BESIDE_TEXT) < both[0, 3] < 1
    np.testing.assert_array_equal(guide.combine([], text=text), text)
    with pytest.raises(ValueError, match="differ"):
        guide.combine([depth], text=np.zeros((2, 2), np.float32))


def test_mask_takes_the_brightest_pixel_of_a_block() -> None:
    mask = np.zeros((480, 640), np.float32)
    mask[17, 100] = 1
    importance = guide.mask_importance(mask, size=(480, 640))
    assert importance.sum() == 1
    assert importance[2, 12] == 1


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (480, 641), (1, 5000)])
def test_block_grid_covers_every_size(size: tuple[int, int]) -> None:
    rows, cols = guide.grid_shape(*size)
    for shape in [(1, 1), (3, 5), (600, 700)]:
        grid = guide.to_block_grid(np.full(shape, 0.25, np.float32), size)
        assert grid.shape == (rows, cols)
        assert np.allclose(grid, 0.25, atol=1e-6)


def test_area_mean_is_exact() -> None:
    rng = np.random.default_rng(2)
    field = rng.random((48, 64)).astype(np.float32)
    grid = guide.to_block_grid(field, (48, 64))
    assert np.allclose(grid, field.reshape(6, 8, 8, 8).mean((1, 3)), atol=1e-6)


def test_chroma_blocks_take_the_mean_of_the_luma_blocks_they_cover() -> None:
    importance = np.arange(15, dtype=np.float32).reshape(3, 5) / 15
    chroma = guide.for_component(importance, 2, 3, luma_size=(2, 2))
    assert chroma.shape == (2, 3)
    assert chroma[0, 0] == pytest.approx(importance[:2, :2].mean())
    assert chroma[1, 2] == pytest.approx(importance[2, 4])  # the padding repeats the last block


def test_ranks_share_ties() -> None:
    assert np.array_equal(
        guide.rank_normalise(np.array([[3, 1, 3]], np.float32)),
        np.array([[0.75, 0, 0.75]], np.float32),
    )
    assert np.all(guide.rank_normalise(np.ones((4, 4), np.float32)) == guide.NEUTRAL)


def test_combine_is_the_mean_and_refuses_other_shapes() -> None:
    assert np.all(guide.combine([flat(2, 2), flat(2, 2) + 1]) == 0.5)
    with pytest.raises(ValueError, match="shape"):
        guide.combine([flat(2, 2), flat(3, 2)])
    with pytest.raises(ValueError, match="nothing"):
        guide.combine([])


def test_lettering_is_told_by_what_is_surely_some() -> None:
    logits = np.full((60, 80), 2.0, np.float32)  # leaves: likely, never sure
    assert guide.lettering(logits) == 0
    logits[10:12, 10:22] = 6
    assert guide.lettering(logits) == 1
    logits[11] = 2
    assert 0 < guide.lettering(logits) < 1


def test_the_centre_is_the_middle_square_and_the_blocks_beside_it() -> None:
    wide = guide.centre_importance((224, 336))
    assert wide.shape == (28, 42)
    assert (wide == wide[0]).all()
    # the square goes from column 56 to 280 of 336: blocks 7 to 34, and one more on each side
    assert np.flatnonzero(wide[0]).tolist() == list(range(6, 36))
    assert (guide.centre_importance((336, 224)) == wide.T).all()
    assert guide.centre_importance((100, 100)).all()
