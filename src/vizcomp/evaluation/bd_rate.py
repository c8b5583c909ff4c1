"""Bjontegaard's delta rate by piecewise cubic interpolation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vizcomp.metrics import FloatArray


def bd_rate(
    reference_rate: npt.ArrayLike,
    reference_quality: npt.ArrayLike,
    rate: npt.ArrayLike,
    quality: npt.ArrayLike,
) -> float:
    """Average difference in rate at equal quality: Bjontegaard, "Calculation of average PSNR
    differences between RD-curves", VCEG-M33, 2001.

    The logarithm of the rate is interpolated as a function of quality and averaged over the
    qualities that both curves reach. Instead of the paper's cubic through four points we use the
    piecewise cubic that never overshoots its points (Fritsch and Carlson, "Monotone piecewise cubic
    interpolation", 1980), for any number of points from two. Points of one quality are merged, at
    the mean of their log rates.

    Args:
        reference_rate, reference_quality: the curve that is compared with; rates above 0, in any
            order.
        rate, quality: the curve that is judged.

    Returns:
        A fraction: -0.4 means 40% less rate for the same quality; `nan` when the curves share no
        range of quality.

    Raises:
        ValueError: lengths differ, a curve has fewer than two qualities, or a rate is not above 0.
    """
    x_a, y_a = _rate_curve(reference_rate, reference_quality)
    x_b, y_b = _rate_curve(rate, quality)
    low, high = max(x_a[0], x_b[0]), min(x_a[-1], x_b[-1])
    if low >= high:
        return math.nan
    mean = (_pchip_integral(x_b, y_b, low, high) - _pchip_integral(x_a, y_a, low, high)) / (
        high - low
    )
    return math.expm1(mean)


def _rate_curve(rate: npt.ArrayLike, quality: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Quality, increasing, and log rate of a curve."""
    rates, qualities = (
        np.asarray(rate, dtype=np.float64).reshape(-1),
        np.asarray(quality, dtype=np.float64).reshape(-1),
    )
    if (
        len(rates) != len(qualities)
        or not (np.isfinite(rates).all() and np.isfinite(qualities).all())
        or (rates <= 0.0).any()
    ):
        raise ValueError(
            "a rate curve needs as many qualities as rates, finite, with rates above 0"
        )
    x, inverse, counts = np.unique(qualities, return_inverse=True, return_counts=True)
    if len(x) < 2:
        raise ValueError("a rate curve needs at least two different qualities")
    y = np.bincount(inverse.reshape(-1), weights=np.log(rates)) / counts
    return x, y


def _pchip_slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """Slopes at the points of the monotone piecewise cubic, with the weighted harmonic mean inside
    and the three-point formula, limited, at the ends."""
    step = np.diff(x)
    secant = np.diff(y) / step
    if len(x) == 2:
        return np.array([secant[0], secant[0]])
    slopes = np.zeros_like(x)
    left, right = secant[:-1], secant[1:]
    weight_left, weight_right = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    rising = left * right > 0
    slopes[1:-1][rising] = ((weight_left + weight_right)[rising]) / (
        weight_left[rising] / left[rising] + weight_right[rising] / right[rising]
    )
    slopes[0] = _end_slope(step[0], step[1], secant[0], secant[1])
    slopes[-1] = _end_slope(step[-1], step[-2], secant[-1], secant[-2])
    return slopes


def _end_slope(near_step: float, far_step: float, near: float, far: float) -> float:
    slope = ((2 * near_step + far_step) * near - near_step * far) / (near_step + far_step)
    if slope * near <= 0.0:
        return 0.0
    if near * far < 0.0 and abs(slope) > 3 * abs(near):
        return 3 * near
    return slope


def _pchip_integral(x: FloatArray, y: FloatArray, low: float, high: float) -> float:
    """Integral of the monotone piecewise cubic from low to high, both inside the points."""
    slopes = _pchip_slopes(x, y)
    total = 0.0
    for i in range(len(x) - 1):
        start, end = max(low, x[i]), min(high, x[i + 1])
        if start >= end:
            continue
        step = x[i + 1] - x[i]
        secant = (y[i + 1] - y[i]) / step
        square = (3 * secant - 2 * slopes[i] - slopes[i + 1]) / step
        cube = (slopes[i] + slopes[i + 1] - 2 * secant) / step**2
        for at, sign in ((end - x[i], 1.0), (start - x[i], -1.0)):
            total += sign * at * (y[i] + at * (slopes[i] / 2 + at * (square / 3 + at * cube / 4)))
    return float(total)
