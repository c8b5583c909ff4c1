"""Coefficients rounded to multiples of their steps, with a price on the bits that they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.errors import SettingsError
from vizcomp.jpeg.image import BAND, real_values

STANDARD_CODE_LENGTHS: npt.NDArray[np.uint8] = np.frombuffer(_native.standard_lengths(), np.uint8)
"""uint8 (256,): lengths of the typical luminance AC code (T.81, table K.5); 0 = no code."""


def quantise(
    values: npt.NDArray[np.float32] | npt.NDArray[np.int16],
    table: npt.ArrayLike,
    *,
    unit: npt.ArrayLike | None = None,
    dead_zone: npt.ArrayLike = 0.5,
    rate_weight: npt.ArrayLike | None = None,
    exact: npt.ArrayLike | None = None,
    worth: npt.ArrayLike | None = None,
    mcu: tuple[int, int] | None = None,
    reuse: bool = False,
) -> npt.NDArray[np.int16]:
    """Round coefficients to multiples of their steps, with a dead zone and a price for each block.

    AC: q = floor(|x| / t + 1 - dead_zone), with the sign of x, at most 1023; 0.5 is plain rounding.
    DC: plain rounding, unless `mcu` is given. Where `rate_weight` is positive, the block's non-zero
    coefficients may then become one smaller or zero, such that

        sum worth ((x - q t) / t)^2  +  rate_weight * bits

    is least over all those choices. `bits` counts run-length codes of `STANDARD_CODE_LENGTHS`, the
    values' own bits, runs of 16 zeros and the end of the block. This is a shortest path, found by
    dynamic programming (Crouse & Ramchandran, "Joint thresholding and quantizer selection for
    transform image coding", IEEE Trans. Image Processing 6(2), 1997).

    Args:
        values: float32 (R, C, 64), natural order; or int16, to be multiplied by `unit`.
        table: (64,) steps, natural order, above 0.
        unit: (64,) what one of `values` is worth; default 1.
        dead_zone: scalar or (R, C), from 0 to 2.
        rate_weight: scalar or (R, C), squared steps for a bit, 0 or more.
        exact: bool (64,): frequencies whose values lie on the table's lattice already; they are
            kept as they are or dropped.
        worth: (64,) above 0, what a squared step of each frequency counts in these choices; default
            1. DC counts 1.
        mcu: blocks of the component in an MCU, (down, across). Where `rate_weight` is positive the
            DC value too may then differ from the nearest, by two steps at most, such that the same
            sum is least along the scan, whose differences are what DC costs.
        reuse: put the result into the memory of `values`, which are lost.

    Returns:
        int16 (R, C, 64).

    Raises:
        SettingsError: shapes or ranges do not fit.
    """
    rows, cols = _grid(values)
    steps = _vector("table", table, np.float32, 64)
    if not (steps > 0).all():
        raise SettingsError("a quantisation step is not positive", "steps go from 1 to 65535")
    scale = None if unit is None else _vector("unit", unit, np.float32, 64)
    counts = np.ones(64, np.float32) if worth is None else _vector("worth", worth, np.float32, 64)
    if not (counts > 0).all():
        raise SettingsError("a frequency's `worth` is not positive", "give numbers above 0")
    zones = _field("dead_zone", dead_zone, (rows, cols))
    rates = None if rate_weight is None else _field("rate_weight", rate_weight, (rows, cols))
    lattice = np.zeros(64, np.uint8) if exact is None else _vector("exact", exact, np.uint8, 64)
    kept = (counts, STANDARD_CODE_LENGTHS, lattice)
    result = _memory(values) if reuse else np.empty(values.shape, np.int16)
    settles = mcu is not None and rates is not None and not lattice[0] and rates.max(initial=0) > 0
    ratio = np.empty((rows, cols) if settles else (0, 0), np.float32)
    for top in range(0, rows, BAND):
        part = slice(top, top + BAND)
        real = np.ascontiguousarray(real_values(values[part], scale))
        rounded = np.empty(real.shape, np.int16)
        weights = None if rates is None else rates[part]
        blocks = real.shape[0] * cols
        status = _native.quantise(blocks, real, steps, zones[part], weights, *kept, rounded)
        if status:
            raise AssertionError(f"quantise: status {status}")
        if settles:
            ratio[part] = real[:, :, 0] / steps[0]
        result[part] = rounded  # last: it may lie where the real values were
    if settles:
        assert mcu is not None
        result[:, :, 0] = _settled_dc(ratio, rates, mcu)
    return result


def _settled_dc(
    ratio: npt.NDArray[np.float32],
    rates: npt.NDArray[np.float32] | None,
    mcu: tuple[int, int],
) -> npt.NDArray[np.int16]:
    """DC of all blocks along the scan: int16 (R, C), of real values in steps."""
    rows, cols = ratio.shape
    dc = np.empty((rows, cols), np.int16)
    if _native.settle_dc(rows, cols, *mcu, ratio, rates, dc):
        raise SettingsError(
            f"{rows}x{cols} blocks are not whole MCUs of {mcu[0]}x{mcu[1]}", "give the padded grid"
        )
    return dc


def _grid(values: npt.NDArray[Any]) -> tuple[int, int]:
    """Rows and columns of blocks."""
    if values.ndim != 3 or values.shape[2] != 64:
        raise SettingsError(
            f"coefficients have the shape {values.shape}", "give (rows, columns, 64)"
        )
    return values.shape[0], values.shape[1]


def _memory(values: npt.NDArray[np.float32] | npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """int16 in the memory of `values`: a band written never reaches the values of the next."""
    if not values.flags.c_contiguous:
        return np.empty(values.shape, np.int16)
    return values.reshape(-1).view(np.int16)[: values.size].reshape(values.shape)


def _vector(name: str, numbers: npt.ArrayLike, dtype: Any, size: int) -> npt.NDArray[Any]:
    array = np.ascontiguousarray(numbers, dtype).ravel()
    if array.size != size:
        raise SettingsError(f"{name} has {array.size} values", f"give {size}")
    return array


def _field(name: str, numbers: npt.ArrayLike, grid: tuple[int, ...]) -> npt.NDArray[np.float32]:
    array = np.asarray(numbers, np.float32)
    if array.shape not in ((), grid):
        raise SettingsError(
            f"{name} has the shape {array.shape}", f"give one number, or {grid}: one for each block"
        )
    return np.ascontiguousarray(np.broadcast_to(array, grid))
