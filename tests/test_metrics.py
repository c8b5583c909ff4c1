"""Measures against independent implementations: scikit-image, SciPy, and values worked out by
hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import scipy.interpolate as interpolate
import scipy.ndimage as ndimage
import scipy.stats as stats
import skimage.data as skimage_data
import skimage.metrics as skimage_metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from vizcomp import metrics
from vizcomp.evaluation.bd_rate import bd_rate
from vizcomp.vision.boxes import box_score, match_boxes, polygon_iou


def noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return skimage_data.astronaut()


# --- PSNR


@pytest.mark.parametrize("shape", [(64, 48, 3), (33, 17), (1, 1), (700, 401, 3)])
def test_psnr_agrees_with_scikit_image(shape):
    a = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    b = noisy(a, 5)
    b.flat[0] = 255 - a.flat[0]
    assert metrics.psnr(a, b) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(a, b), rel=1e-12
    )


def test_psnr_of_the_largest_error_is_zero_and_of_none_infinite():
    black, white = np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)
    assert metrics.psnr(black, white) == pytest.approx(0.0)
    assert metrics.psnr(white, white) == math.inf


def test_psnr_region_sees_its_region_only():
    a = np.full((10, 10, 3), 100, np.uint8)
    b = a.copy()
    b[:5] += 10
    top = np.zeros((10, 10), bool)
    top[:5] = True
    assert metrics.psnr_region(a, b, top) == pytest.approx(20 * math.log10(255 / 10))
    assert metrics.psnr_region(a, b, ~top) == math.inf
    assert math.isnan(metrics.psnr_region(a, b, np.zeros((10, 10), bool)))
    assert metrics.psnr_region(a, b, np.ones((10, 10), bool)) == pytest.approx(metrics.psnr(a, b))


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ms_ssim])
def test_unequal_pairs_are_refused(measure):
    image = np.zeros((20, 20, 3), np.uint8)
    for other in (
        np.zeros((20, 21, 3), np.uint8),
        image.astype(np.float32),
        np.zeros((20, 20, 4), np.uint8),
    ):
        with pytest.raises(ValueError, match="images"):
            measure(image, other)
    with pytest.raises(ValueError, match="images"):
        measure(np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8))
    with pytest.raises(ValueError, match="mask"):
        metrics.psnr_region(image, image, np.ones((20, 20), np.uint8))


# --- MS-SSIM


def ms_ssim_by_the_paper(a: np.ndarray, b: np.ndarray) -> float:
    """Straightforward float64 MS-SSIM: full filters over the image, cropped to where the window
    fits."""
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    x, y = (np.float64(i) @ [0.299, 0.587, 0.114] if i.ndim == 3 else np.float64(i) for i in (a, b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2

    def mean(z: np.ndarray) -> np.ndarray:
        return ndimage.correlate(z, kernel)[5:-5, 5:-5]

    terms = []
    scales = sum(min(x.shape) // 2**s >= 11 for s in range(5))
    for scale in range(scales):
        mx, my = mean(x), mean(y)
        vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
        cs = (2 * vxy + c2) / (vx + vy + c2)
        lum = (2 * mx * my + c1) / (mx * mx + my * my + c1)
        terms.append((cs * lum).mean() if scale == scales - 1 else cs.mean())
        even = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
        x, y = (
            z[: even[0], : even[1]].reshape(even[0] // 2, 2, even[1] // 2, 2).mean(axis=(1, 3))
            for z in (x, y)
        )
    weights = weights[:scales] / weights[:scales].sum()
    return float(np.prod(np.maximum(terms, 0) ** weights))


@pytest.mark.parametrize(
    "size", [(512, 512), (481, 321), (176, 240), (175, 300), (90, 87), (11, 64), (22, 21)]
)
@pytest.mark.parametrize("sigma", [2, 25])
def test_ms_ssim_agrees_with_the_paper(photo, size, sigma):
    image = photo[: size[0], : size[1]]
    assert image.shape[:2] == size
    other = noisy(image, sigma)
    assert metrics.ms_ssim(image, other) == pytest.approx(
        ms_ssim_by_the_paper(image, other), abs=2e-5
    )


def test_ms_ssim_of_grey_dark_and_bright_images(photo):
    for image in (photo[:, :, 0], photo // 8, 255 - photo // 8):
        other = noisy(image, 4)
        assert metrics.ms_ssim(image, other) == pytest.approx(
            ms_ssim_by_the_paper(image, other), abs=1e-4
        )


def test_ms_ssim_of_one_scale_is_ssim(photo):
    grey = photo[100:121, 200:260, 1]
    other = noisy(grey, 12)
    _, full = skimage_metrics.structural_similarity(
        grey,
        other,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        truncate=3.4,
        use_sample_covariance=False,
        full=True,
    )
    assert metrics.ms_ssim(grey, other) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (10, 3), (300, 8, 3)])
def test_ms_ssim_takes_any_size(shape):
    a = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    assert metrics.ms_ssim(a, a) == pytest.approx(1.0, abs=1e-6)
    assert 0 <= metrics.ms_ssim(a, 255 - a) < 1


def test_ms_ssim_falls_as_noise_grows(photo):
    scores = [metrics.ms_ssim(photo, noisy(photo, sigma)) for sigma in (1, 5, 20, 60)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.99
    assert scores[-1] < 0.8


def test_large_images_are_sampled_close_to_the_whole(photo):
    large = np.tile(photo, (3, 4, 1))
    other = noisy(large, 15)
    whole = metrics.ms_ssim(large, other, max_pixels=None)
    assert metrics.ms_ssim(large, other) == pytest.approx(whole, abs=0.01)
    with pytest.raises(ValueError, match="max_pixels"):
        metrics.ms_ssim(large, other, max_pixels=0)


@pytest.mark.parametrize("shape", [(4000, 6000), (100, 200_000), (200_000, 3), (2000, 1001)])
def test_the_tiles_stay_inside_and_hold_about_the_pixels_asked_for(shape):
    rows, columns = min(256, shape[0]), min(256, shape[1])
    corners = metrics._tile_grid(*shape, rows, columns, 2_000_000)
    assert all(
        0 <= top <= shape[0] - rows and 0 <= left <= shape[1] - columns for top, left in corners
    )
    assert len(corners) * rows * columns <= 2_600_000
    assert len(corners) * rows * columns >= min(1_000_000, shape[0] * shape[1] // 2)


@pytest.mark.slow
def test_ms_ssim_is_fast_enough_for_a_batch():
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    other = noisy(image, 10)
    times = []
    for _ in range(10):
        started = time.process_time()
        metrics.ms_ssim(image, other)
        times.append(time.process_time() - started)
    assert min(times) < 0.030


def test_bits_per_pixel():
    assert metrics.bits_per_pixel(1000, 100 * 80) == 1.0
    with pytest.raises(ValueError, match="no pixels"):
        metrics.bits_per_pixel(10, 0)


# --- boxes


def test_iou_of_boxes_worked_out_by_hand():
    square = [(0, 0), (2, 0), (2, 2), (0, 2)]
    shifted = [(1, 1), (3, 1), (3, 3), (1, 3)]
    diamond = [(1, 0), (2, 1), (1, 2), (0, 1)]
    assert polygon_iou(square, square) == pytest.approx(1.0)
    assert polygon_iou(square, shifted) == pytest.approx(1 / 7)
    assert polygon_iou(square, diamond) == pytest.approx(0.5)
    assert polygon_iou(square[::-1], diamond) == pytest.approx(0.5)
    assert polygon_iou(square, [(5, 5), (6, 5), (6, 6), (5, 6)]) == 0.0
    assert polygon_iou(square, [(0, 0), (2, 0), (2, 0), (0, 0)]) == 0.0
    assert polygon_iou(square, [(2, 0), (4, 0), (4, 2), (2, 2)]) == 0.0


def test_iou_of_two_squares_one_turned_by_45_degrees_is_that_of_the_octagon():
    half = math.sqrt(2)
    square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    turned = [(0, -half), (half, 0), (0, half), (-half, 0)]
    octagon = 8 * (math.sqrt(2) - 1)
    assert polygon_iou(square, turned) == pytest.approx(octagon / (8 - octagon))


corner = st.integers(0, 30)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(corner, corner, st.integers(1, 20), st.integers(1, 20)), min_size=2, max_size=2
    )
)
def test_iou_of_axis_aligned_boxes_agrees_with_counted_cells(pair):
    grids = np.zeros((2, 50, 50), bool)
    boxes = []
    for grid, (x, y, w, h) in zip(grids, pair, strict=True):
        grid[y : y + h, x : x + w] = True
        boxes.append([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])
    expected = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
    assert polygon_iou(boxes[0], boxes[1]) == pytest.approx(expected, abs=1e-9)
    assert polygon_iou(boxes[1], boxes[0]) == pytest.approx(expected, abs=1e-9)


def test_matching_is_one_to_one_and_takes_the_largest_overlap_first():
    reference = [[0, 0, 10, 10], [20, 0, 30, 10]]
    found = [[0, 0, 10, 8], [0, 0, 10, 10], [26, 0, 36, 10]]
    assert match_boxes(reference, found) == [(0, 1, pytest.approx(1.0))]
    assert match_boxes(reference, found, iou=0.2) == [
        (0, 1, pytest.approx(1.0)),
        (1, 2, pytest.approx(0.25)),
    ]
    assert match_boxes(found, reference, iou=0.2) == [
        (1, 0, pytest.approx(1.0)),
        (2, 1, pytest.approx(0.25)),
    ]


def test_kinds_of_boxes_mix_and_may_be_empty():
    quads = np.array([[(0, 0), (4, 0), (4, 2), (0, 2)]], float)
    assert match_boxes(quads, [[0, 0, 4, 2]]) == [(0, 0, pytest.approx(1.0))]
    assert match_boxes([], quads) == []
    assert match_boxes(quads, np.zeros((0, 4, 2))) == []
    with pytest.raises(ValueError, match="boxes must be"):
        match_boxes(np.zeros((2, 5)), quads)
    with pytest.raises(ValueError, match="iou"):
        match_boxes(quads, quads, iou=0.0)


def test_f1_is_of_counts():
    score = box_score(2, 3, 3)
    assert (score.precision, score.recall, score.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert box_score(0, 0, 0).f1 == 1.0
    assert box_score(0, 1, 0).f1 == 0.0
    with pytest.raises(ValueError, match="matched"):
        box_score(3, 2, 5)


def turned_box(rng: np.random.Generator) -> np.ndarray:
    angle, middle, half = rng.uniform(0, math.pi), rng.uniform(20, 80, 2), rng.uniform(6, 18, 2)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return corners @ turn.T + middle


def test_box_score_agrees_with_a_slow_plain_computation():
    """Overlaps by OpenCV's intersection of convex polygons; pairs by taking the largest of a table
    until none is left."""
    import cv2

    rng = np.random.default_rng(8)
    reference, found, matched = [], [], 0
    for _ in range(60):
        boxes = np.array([turned_box(rng) for _ in range(rng.integers(0, 7))]).reshape(-1, 4, 2)
        moved = [b + rng.normal(0, 3, 2) for b in boxes if rng.random() < 0.8] + [
            turned_box(rng) for _ in range(rng.integers(0, 3))
        ]
        answers = np.array(moved).reshape(-1, 4, 2)
        reference.append(boxes)
        found.append(answers)
        table = np.zeros((len(boxes), len(answers)))
        for i, a in enumerate(boxes):
            for j, b in enumerate(answers):
                shared = cv2.intersectConvexConvex(a.astype(np.float32), b.astype(np.float32))[0]
                table[i, j] = shared / (
                    cv2.contourArea(a.astype(np.float32))
                    + cv2.contourArea(b.astype(np.float32))
                    - shared
                )
        while table.size and table.max() >= 0.5:
            i, j = np.unravel_index(table.argmax(), table.shape)
            table[i, :] = table[:, j] = 0
            matched += 1
    count_a, count_b = sum(map(len, reference)), sum(map(len, found))
    pairs = sum(len(match_boxes(a, b, 0.5)) for a, b in zip(reference, found, strict=True))
    score = box_score(pairs, count_a, count_b)
    assert 60 < matched < count_a
    assert (score.matched, score.reference, score.found) == (matched, count_a, count_b)
    assert (score.precision, score.recall, score.f1) == (
        matched / count_b,
        matched / count_a,
        2 * matched / (count_a + count_b),
    )


# --- correlation and rate


@pytest.mark.parametrize("levels", [3, 1000])
def test_spearman_agrees_with_scipy(levels):
    rng = np.random.default_rng(levels)
    a = rng.integers(0, levels, 500)
    b = a + rng.integers(0, levels, 500)
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert metrics.spearman(a.reshape(20, 25), -a.reshape(20, 25)) == pytest.approx(-1.0)


def test_spearman_at_the_edges():
    assert math.isnan(metrics.spearman([1, 1, 1], [1, 2, 3]))
    assert metrics.spearman([1, 2, 3], [1, 10, 100]) == pytest.approx(1.0)
    for a, b in (([1], [1]), ([1, 2], [1, 2, 3]), ([1, math.nan], [1, 2])):
        with pytest.raises(ValueError, match="spearman"):
            metrics.spearman(a, b)


def test_bd_rate_of_a_curve_with_its_rates_scaled():
    rate, quality = [100, 200, 400, 900, 1500], [30, 33, 35.5, 38, 39]
    assert bd_rate(rate, quality, rate, quality) == pytest.approx(0.0)
    assert bd_rate(rate, quality, [0.6 * r for r in rate], quality) == pytest.approx(-0.4)
    assert bd_rate(rate[::-1], quality[::-1], [2 * r for r in rate], quality) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_bd_rate_agrees_with_scipys_interpolation(count):
    rng = np.random.default_rng(count)
    curves = []
    for _ in range(2):
        quality = np.sort(rng.uniform(28, 42, count))
        quality[0], quality[-1] = rng.uniform(27, 28), rng.uniform(42, 43)
        curves.append((np.exp(np.sort(rng.uniform(4, 8, count))), quality))
    (rate_a, quality_a), (rate_b, quality_b) = curves
    low, high = max(quality_a[0], quality_b[0]), min(quality_a[-1], quality_b[-1])
    integrals = []
    for rate, quality in curves:
        if count == 2:
            line = np.polynomial.Polynomial.fit(quality, np.log(rate), 1).integ()
            integrals.append(line(high) - line(low))
        else:
            integrals.append(
                interpolate.PchipInterpolator(quality, np.log(rate)).integrate(low, high)
            )
    expected = math.expm1((integrals[1] - integrals[0]) / (high - low))
    assert bd_rate(rate_a, quality_a, rate_b, quality_b) == pytest.approx(expected, rel=1e-9)


def test_bd_rate_merges_equal_qualities_and_refuses_what_is_no_curve():
    merged = bd_rate([100, 400, 800], [1, 2, 3], [100, 200, 800, 800], [1, 2, 2, 3])
    assert merged == pytest.approx(0.0)
    assert math.isnan(bd_rate([1, 2], [1, 2], [1, 2], [3, 4]))
    for rate, quality in (
        ([1, 2], [5, 5]),
        ([0, 2], [1, 2]),
        ([1, 2, 3], [1, 2]),
        ([1, math.inf], [1, 2]),
    ):
        with pytest.raises(ValueError, match="rate curve"):
            bd_rate([1, 2], [1, 2], rate, quality)
