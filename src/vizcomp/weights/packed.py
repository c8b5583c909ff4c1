"""Convolutions as the compiled loops of `native/convolve.c` want them: weights and activations as
16-bit integers.

Weights are rounded to steps of their output's own and activations to steps of their largest, so
that all sums are exact in 32 bits. With the usual sizes that is 11 to 13 bits of each.
Arrays are (N, C, H, W) as ONNX has them; in memory the channels are the last.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vizcomp import _native

Floats = npt.NDArray[np.float32]
LANES, PANEL = 8, 16  # as native/convolve.c has them
PIXEL_STEPS = 32  # of a sample's level, there
MOST_LEVELS = (1 << 15) - 1
SUM = (1 << 31) - 1
LARGEST = 1e12  # weight
ALIGNED = 64  # bytes of a line of the cache
MOST_LAYOUTS = 64  # sizes of pictures that are remembered


class NotFinite(Exception):
    """A number in a network is none, or would be infinite."""


class Kernel(NamedTuple):
    """The weights of a convolution: how finely activations are told, and for each output its
    weights, the size of a step, and what is added."""

    levels: int
    weights: npt.NDArray[np.int16]
    scale: Floats
    bias: Floats


def check(*weights: Floats) -> None:
    """Raises NotFinite for weights that are no numbers, or so large that what they make may be
    none."""
    if not all((np.abs(array) < LARGEST).all() for array in weights):
        raise NotFinite


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy that begins at a line of the cache."""
    room = np.empty(array.nbytes + ALIGNED, np.uint8)
    start = -room.ctypes.data % ALIGNED
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def packed(weights: Floats, bias: Floats, *, dilation: int = 1, levels: int = 0) -> Kernel:
    """A kernel (outs, ins, rows, cols) and its bias for `_native.convolve`.

    Args:
        levels: steps from 0 to the largest activation; 0: as many as give activations and weights
            errors of about one size.

    Raises:
        NotFinite: a weight is no number.
    """
    outs, ins, rows, cols = weights.shape
    check(weights, bias)
    segments, numbers = (rows, cols * ins) if dilation == 1 else (rows * cols, ins)
    count = segments * numbers
    if not levels:
        levels = min(MOST_LEVELS, max(256, math.isqrt((1 << 34) // count)))
    wide, pairs = -(-outs // LANES) * LANES, -(-numbers // 2)
    flat = np.zeros((wide, segments, 2 * pairs), np.float32)
    flat[:outs, :, :numbers] = weights.transpose(0, 2, 3, 1).reshape(outs, segments, numbers)
    size, total = np.abs(flat).max((1, 2)), np.abs(flat).sum((1, 2), dtype=np.float64)
    # rounding may add half a step to each of them
    room = SUM / levels - count / 2 - 1
    steps = np.minimum(MOST_LEVELS / np.maximum(size, 1e-30), room / np.maximum(total, 1e-30))
    whole = np.rint(flat * steps.astype(np.float32)[:, None, None]).astype(np.int16)
    panels = []
    for start in range(0, wide, PANEL):
        some = whole[start : start + PANEL].reshape(-1, segments, pairs, 2)
        panels.append(some.transpose(1, 2, 0, 3).reshape(-1))
    more = wide - outs
    return Kernel(
        levels,
        aligned(np.concatenate(panels)),
        np.where(size > 0, 1 / steps, 0).astype(np.float32),
        np.pad(np.asarray(bias, np.float32), (0, more)),
    )


class Desk:
    """Arrays to work in: what is given back is handed out again, since memory that is new costs as
    much as the work on it."""

    def __init__(self) -> None:
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}
        self._out: dict[int, npt.NDArray[np.uint8]] = {}
        self.size = 0

    def array(self, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
        """An array of that shape, with anything in it."""
        size = math.prod(shape) * dtype().itemsize
        waiting = self._free.get(size)
        if waiting:
            block = waiting.pop()
        else:
            room = np.empty(size + ALIGNED, np.uint8)
            start = -room.ctypes.data % ALIGNED
            block = room[start : start + size]
            self.size += size
        made: npt.NDArray[Any] = block.view(dtype).reshape(shape)
        self._out[id(made.base)] = block
        return made

    def give_back(self, array: npt.NDArray[Any]) -> None:
        """An array that `array` gave, or a view of all of it; others are let be."""
        block = self._out.pop(id(array.base), None)
        if block is not None:
            self._free.setdefault(block.size, []).append(block)

    def forget(self) -> None:
        """What was not given back is no longer of this desk."""
        self.size -= sum(block.size for block in self._out.values())
        self._out.clear()


class Convolution:
    """A convolution, what is added to it, and the ramp behind it.

    Args:
        weights, bias: (outs, ins, rows, cols), (outs,).
        relu: nothing below zero.
        samples: what a sample's level u means, for photos as uint8 (N, H, W, ins): factor and
            offset of each channel, factor * u + offset; without dilation.

    Raises:
        NotFinite: a weight is no number.
    """

    def __init__(
        self,
        weights: Floats,
        bias: Floats,
        *,
        stride: int = 1,
        dilation: int = 1,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        relu: bool = False,
        samples: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
    ) -> None:
        self._outs, self._ins, *self._sides = weights.shape
        self._stride, self._dilation, self._pads, self.relu = stride, dilation, pads, relu
        self._nothing: npt.NDArray[np.int16] | None = None
        self._cells = self._sides
        self._layouts: dict[tuple[int, int, bool], tuple[tuple[int, ...], int]] = {}
        levels = 0
        if samples is not None:
            factor, offset = samples
            nothing = np.rint(-offset / factor * PIXEL_STEPS)
            most = np.abs([255 * PIXEL_STEPS - nothing, nothing, 0 * nothing + 255 * PIXEL_STEPS])
            levels = int(most.max())
            if levels > MOST_LEVELS:
                raise NotFinite
            self._nothing = nothing.astype(np.int16)
            weights = (weights * (factor / PIXEL_STEPS)[:, None, None]).astype(np.float32)
            weights = _folded(weights, stride)
            self._cells = list(weights.shape[2:])
        self._kernel = packed(weights, bias, dilation=dilation, levels=levels)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the result."""
        (rows, cols), (top, left, bottom, right) = self._sides, self._pads
        down = (height + top + bottom - self._dilation * (rows - 1) - 1) // self._stride + 1
        across = (width + left + right - self._dilation * (cols - 1) - 1) // self._stride + 1
        return down, across

    def fits(self, x: npt.NDArray[Any], added: npt.NDArray[Any]) -> bool:
        """Whether a value has the shape of the result for `x`, (N, ins, H, W)."""
        return added.shape == (len(x), self._outs, *self._grid(*x.shape[2:]))

    def __call__(
        self,
        desk: Desk,
        x: npt.NDArray[Any],
        added: Floats | None = None,
        *,
        relu: bool | None = None,
    ) -> Floats:
        """x: (N, ins, H, W), or samples (N, H, W, ins); added: as the result; relu: as in
        `__init__`, for this time.

        Raises:
            NotFinite: a number of `x` is none.
        """
        last = x if self._nothing is not None else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        count, height, width = last.shape[:3]
        ramp = self.relu if relu is None else relu
        sizes, room = self._layout(height, width, ramp)
        more = None if added is None else np.ascontiguousarray(added.transpose(0, 2, 3, 1))
        out = desk.array((count, *sizes[3:6]))
        _, weights, scale, bias = self._kernel
        field = desk.array((room,), np.int16)
        for n in range(count):
            extra = None if more is None else more[n]
            if not _native.convolve(
                sizes, last[n], self._nothing, weights, scale, bias, extra, field, out[n]
            ):
                raise NotFinite
        desk.give_back(field)
        return out.transpose(0, 3, 1, 2)

    def _layout(self, height: int, width: int, ramp: bool) -> tuple[tuple[int, ...], int]:
        """What `_native.convolve` needs for a picture of this size, and numbers of its field."""
        known = self._layouts.get((height, width, ramp))
        if known is None:
            down, across = self._grid(height, width)
            top, left, *_ = self._pads
            sizes = (
                *(height, width, self._ins, down, across, self._outs, *self._cells),
                *(self._stride, self._dilation, top, left, int(ramp), self._kernel.levels),
            )
            known = sizes, self._room(height, width, down, across)
            if len(self._layouts) >= MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[height, width, ramp] = known
        return known

    def _room(self, height: int, width: int, down: int, across: int) -> int:
        """Numbers of the field, at least as many as `_native.convolve` needs."""
        top, left, *_ = self._pads
        stride, reach = self._stride, self._dilation
        tall = max(height + top, stride * (down + self._cells[0]), stride * down + reach * 16)
        wide = max(width + left, stride * (across + self._cells[1]), stride * across + reach * 16)
        return int(self._ins * wide * (tall + 2) + 64)


def _folded(weights: Floats, side: int) -> Floats:
    """A kernel over cells of `side` x `side` samples: (outs, side * side * ins, rows, cols), rows
    and columns filled up with zeros to whole cells."""
    outs, ins, rows, cols = weights.shape
    padded = np.pad(weights, ((0, 0), (0, 0), (0, -rows % side), (0, -cols % side)))
    cells = padded.reshape(outs, ins, -(-rows // side), side, -(-cols // side), side)
    moved = cells.transpose(0, 3, 5, 1, 2, 4)  # (outs, side, side, ins, rows, cols)
    return np.ascontiguousarray(moved.reshape(outs, -1, *moved.shape[4:]))


class SeparableBlock:
    """x + narrow(relu(widen(spread(x)))): a depthwise 3x3 convolution (Howard et al., "MobileNets",
    2017) and two 1x1 convolutions around a residual.

    Args:
        spread, widen, narrow: weights and bias of each.

    Raises:
        NotFinite: a weight is no number.
    """

    def __init__(
        self,
        spread: tuple[Floats, Floats],
        widen: tuple[Floats, Floats],
        narrow: tuple[Floats, Floats],
        *,
        dilation: int,
    ) -> None:
        taps, bias = spread
        check(taps, bias)
        self._channels, self._inner, self._dilation = len(taps), len(widen[0]), dilation
        self._taps = np.ascontiguousarray(taps.reshape(len(taps), 9).T)
        self._bias = np.ascontiguousarray(bias)
        self._widen, self._narrow = packed(*widen), packed(*narrow)

    def __call__(self, desk: Desk, x: Floats) -> Floats:
        """x: (N, channels, H, W).

        Raises:
            NotFinite: a number is none, or would be infinite.
        """
        last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        out = desk.array(last.shape)
        widen, narrow = self._widen, self._narrow
        inside = (self._channels, self._inner, self._dilation, widen.levels, narrow.levels)
        for n in range(len(last)):
            if not _native.separate(
                (*last.shape[1:3], *inside),
                last[n],
                self._taps,
                self._bias,
                widen.weights,
                widen.scale,
                widen.bias,
                narrow.weights,
                narrow.scale,
                narrow.bias,
                out[n],
            ):
                raise NotFinite
        return out.transpose(0, 3, 1, 2)
