"""Lossless coding of bit planes: context tables, logistic mixing and a range coder, all in
integers.

    bit planes ── encode ──> bytes          the same bytes on every machine, thread count and device
    bytes      ── decode ──> bit planes
    bit planes ── cost_bits ──> bits        what encode would spend, without writing

The planes of one iteration are a uint8 array (C_t, H, W) of zeros and ones; C_t is the model's, the
grid H x W is the image's and the same for all its iterations. A *slot* is one channel of one
iteration; slots are numbered in the order of coding: iterations, then channels. A slot's plane is
coded whole, row by row, before the next one.

For each bit, S *context sets* look at up to 8 *references* each: bits that are coded already, in
earlier slots anywhere within two rows and columns, in the same slot above or to the left. A set's
bits make the index of a table of probabilities; the S probabilities are mixed in the logistic
domain (Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", Florida Tech
CS-2005-16, 2005: stretch, weigh, squash), and the result drives a binary range coder (Martin,
"Range encoding: an algorithm for removing redundancy from a digitised message", 1979). Where a rate
is set, tables and weights learn while an image is coded, from their trained start for every image
and slot anew, so that iterations stay separately decodable.

The arithmetic, which `vizcomp._native` does (bits.c) and which a test repeats in Python. x >> n of
a negative x stands for the quotient rounded to nearest, halves away from zero.

    e(0) = 2^31; e(i + 1) = (e(i) * 2139111403 + 2^30) >> 31     exp(-i / 256) in 31 bits
    squash(x) = (2^47 + (2^31 + e(x)) // 2) // (2^31 + e(x)) for 0 <= x <= 2816
    squash(-x) = 65536 - squash(x)
    stretch(s), 2048 <= s < 4096: the least x >= 0 with squash(x) >= 16 s + 8, at most 2816
    stretch(4095 - s) = -stretch(s)
    p = squash(clip((256 w_S + sum_k w_k stretch(t_k >> 4)) >> 16, -2816, 2816))
    p is the probability of a one, in 1/65536

    range coder: low = 0, range = 2^56; part = (range >> 16) p; a one keeps [low, low + part), a
    zero the rest; while range < 2^48 a byte leaves at the top (low's bits 48..55, carries run into
    bytes that have left) and range *= 256. At the end the shortest byte string whose value lies in
    the interval; the decoder reads zeros behind it, so it never ends in zero. Raw bits are written
    where that string is not shorter, or where more bytes have left on the way than raw bits take.

    learning, after each bit: t_k += (65536 - t_k) >> r_k or t_k -= t_k >> r_k;
    w_k += ((65536 bit - p) stretch_k) >> r_S, w_S likewise with 256 in place of stretch; weights
    stay within +-(2^21 - 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.errors import FormatError, ModelError, TooLargeError

Bits = npt.NDArray[np.uint8]
Grid = tuple[int, int]

MAX_BITS = 1 << 28
"""Bits of one image, all iterations up to the last one wanted, that `decode` makes unless told
otherwise; one byte each."""

MAX_SLOTS, MAX_SETS, MAX_REFERENCES, MAX_REACH, MAX_RATE, MAX_WEIGHT = (
    16384,
    16,
    8,
    2,
    24,
    (1 << 21) - 1,
)
ARITHMETIC = 1
"""Version of the arithmetic above. A change of any byte of output is another version."""

_SHAPES: dict[str, tuple[type[np.generic], int]] = {
    "channels": (np.int32, 1),
    "lengths": (np.uint8, 2),
    "references": (np.int16, 2),
    "tables": (np.uint16, 1),
    "weights": (np.int32, 2),
    "rates": (np.uint8, 1),
}
ONES = -1  # "iteration" of the plane of ones
_BAD_MODEL = "the model's file is damaged or of another version; get it again"
_BAD_DATA = "the file is damaged, or made with another model"


def least_bytes(bits: int) -> int:
    """Bytes without which no encoder says so many bits: no probability is above 65535/65536, and 8
    bytes may be left out."""
    return max(0, bits // 363_406 - 8)  # 8 / log2(65536 / 65535), rounded up


# -------------------------------------------------------------------------------------------- model


@dataclass(frozen=True, eq=False, kw_only=True)
class ContextModel:
    """What is known about the bits of one codec. Every field is checked; `ModelError` where one is
    out of range.

    Attributes:
        channels: C_t of each iteration t.
        lengths: uint8 (slots, S), references of each set, 0..8.
        references: int16 (sum of lengths, 4): rows (dy, dx, iteration, channel), the first of a set
            being its index's lowest bit. Rows and columns are relative, -2..2, and bits outside the
            grid are 0. Iteration -1, channel 0 is a plane of ones: it tells where the grid ends.
        tables: uint16 (sum of 2^length,), probability of a one in 1/65536, never 0.
        weights: int32 (slots, S + 1), in 1/65536; the last is the bias's, whose input is 1.
        rates: uint8 (S + 1,), 0..24: shifts r_k of each set's tables and of the weights; 0 = no
            learning while coding.
    """

    channels: tuple[int, ...]
    lengths: Bits
    references: npt.NDArray[np.int16]
    tables: npt.NDArray[np.uint16]
    weights: npt.NDArray[np.int32]
    rates: Bits
    _native: object = field(init=False, repr=False)
    starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.channels or any(c < 1 for c in self.channels) or sum(self.channels) > MAX_SLOTS:
            raise ModelError("context model: channels out of range", _BAD_MODEL)
        for name, (dtype, dimensions) in _SHAPES.items():
            if name != "channels":
                array = getattr(self, name)
                if (
                    not isinstance(array, np.ndarray)
                    or array.dtype != dtype
                    or array.ndim != dimensions
                ):
                    form = f"{np.dtype(dtype)} in {dimensions} dimensions"
                    raise ModelError(f"context model: {name} is not {form}", _BAD_MODEL)
                # a model never changes, whatever becomes of the caller's array
                array = np.ascontiguousarray(array).copy()
                array.flags.writeable = False
                object.__setattr__(self, name, array)
        object.__setattr__(self, "starts", (0, *np.cumsum(self.channels).tolist()))
        self._check()
        slots = (
            np.array([-1, *self.starts], np.int32)[self.references[:, 2] + 1]
            + self.references[:, 3]
        )
        numbered = np.stack([slots, self.references[:, 0], self.references[:, 1]], 1).astype(
            np.int32
        )
        prepared = _native.context_model(
            self.starts[-1],
            self.sets,
            self.lengths,
            numbered,
            self.tables,
            self.weights,
            self.rates,
        )
        object.__setattr__(self, "_native", prepared)

    def _check(self) -> None:
        slots, sets = self.starts[-1], self.lengths.shape[1]
        if self.lengths.shape[0] != slots or not 1 <= sets <= MAX_SETS:
            raise ModelError("context model: lengths do not fit the channels", _BAD_MODEL)
        if self.lengths.max() > MAX_REFERENCES:
            raise ModelError("context model: a set has more than 8 references", _BAD_MODEL)
        if self.references.shape != (int(self.lengths.sum(dtype=np.int64)), 4):
            raise ModelError("context model: references do not fit the lengths", _BAD_MODEL)
        if (
            self.tables.size != int((1 << self.lengths.astype(np.int64)).sum())
            or self.tables.min() == 0
        ):
            raise ModelError(
                "context model: tables do not fit the lengths, or hold a zero", _BAD_MODEL
            )
        if (
            self.weights.shape != (slots, sets + 1)
            or np.abs(self.weights.astype(np.int64)).max() > MAX_WEIGHT
        ):
            raise ModelError("context model: weights out of range", _BAD_MODEL)
        if self.rates.shape != (sets + 1,) or self.rates.max() > MAX_RATE:
            raise ModelError("context model: rates out of range", _BAD_MODEL)
        dy, dx, iteration, channel = self.references.astype(np.int64).T
        limits = np.array([1, *self.channels])
        inside = (iteration >= ONES) & (iteration < len(self.channels))
        if not (
            inside & (np.abs(dy) <= MAX_REACH) & (np.abs(dx) <= MAX_REACH) & (channel >= 0)
        ).all():
            raise ModelError("context model: a reference is out of range", _BAD_MODEL)
        if (channel >= limits[iteration + 1]).any():
            raise ModelError(
                "context model: a reference to a channel that is not there", _BAD_MODEL
            )
        owner = np.repeat(np.arange(slots), self.lengths.sum(1, dtype=np.int64))
        slot = np.array([-1, *self.starts])[iteration + 1] + channel
        if not ((slot < owner) | ((slot == owner) & ((dy < 0) | ((dy == 0) & (dx < 0))))).all():
            raise ModelError(
                "context model: a reference to a bit that is not coded yet", _BAD_MODEL
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # the prepared model is a pointer, which stays here
        return ContextModel.from_arrays, (self.to_arrays(),)

    @property
    def sets(self) -> int:
        """S, the number of context sets."""
        return int(self.lengths.shape[1])

    @property
    def adaptive(self) -> bool:
        """Whether tables or weights learn while an image is coded."""
        return bool(self.rates.any())

    @classmethod
    def flat(cls, channels: Sequence[int]) -> ContextModel:
        """A model that knows nothing: every bit has probability 1/2, so that `encode` makes raw
        bits."""
        slots = sum(channels)
        return cls(
            channels=tuple(int(c) for c in channels),
            lengths=np.zeros((slots, 1), np.uint8),
            references=np.zeros((0, 4), np.int16),
            tables=np.full(slots, 32768, np.uint16),
            weights=np.zeros((slots, 2), np.int32),
            rates=np.zeros(2, np.uint8),
        )

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The model as integer arrays, to be stored with the weights; `from_arrays` takes them
        back."""
        arrays: dict[str, npt.NDArray[Any]] = {
            name: getattr(self, name) for name in _SHAPES if name != "channels"
        }
        return {
            "arithmetic": np.array([ARITHMETIC], np.int32),
            "channels": np.array(self.channels, np.int32),
            **{name: array.copy() for name, array in arrays.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> ContextModel:
        """A model from `to_arrays`. All is checked.

        Raises:
            ModelError: an array is missing, or of another type, shape or range than `to_arrays`
                makes.
        """
        missing = [
            name
            for name in ("arithmetic", *_SHAPES)
            if not isinstance(arrays.get(name), np.ndarray)
        ]
        if missing:
            raise ModelError(f"context model: {missing[0]} is missing", _BAD_MODEL)
        version, channels = arrays["arithmetic"], arrays["channels"]
        if version.dtype != np.int32 or version.shape != (1,) or int(version[0]) != ARITHMETIC:
            raise ModelError(
                "context model: made for another version of the arithmetic", _BAD_MODEL
            )
        if channels.dtype != np.int32 or channels.ndim != 1 or channels.size > MAX_SLOTS:
            raise ModelError("context model: channels is not int32 in 1 dimensions", _BAD_MODEL)
        fields = {name: arrays[name] for name in _SHAPES if name != "channels"}
        return cls(channels=tuple(int(c) for c in channels), **fields)

    def fingerprint_bytes(self) -> bytes:
        """Bytes that are equal exactly for models that code alike, to be hashed: names, shapes and
        little-endian items."""
        parts = []
        for name, array in sorted(self.to_arrays().items()):
            little = array.astype(array.dtype.newbyteorder("<"))
            parts.append(f"{name} {little.dtype.str} {little.shape}\n".encode() + little.tobytes())
        return b"".join(parts)


# ------------------------------------------------------------------------------------------- coding


def raw_bytes(model: ContextModel, first: int, last: int, grid: Grid) -> int:
    """Bytes that the bits of iterations `first`..`last` (both included) take uncoded on a grid of
    (rows, columns)."""
    start, end = _span(model, first, last)
    return -(-(end - start) * grid[0] * grid[1] // 8)


def encode(
    model: ContextModel, planes: Sequence[npt.NDArray[Any]], previous: Sequence[npt.NDArray[Any]]
) -> bytes:
    """Code the planes of one or more consecutive iterations.

    Args:
        model: the model of the codec that made the planes.
        planes: uint8 (C_t, H, W) of zeros and ones for each iteration `first`..`last`, where
            `first` is `len(previous)`.
        previous: the same for all iterations before `first`, which the decoder has.

    Returns:
        The shortest coded string if that is shorter than the packed bits, else the packed bits:
        most significant bit first, in the order of coding, the last byte filled with zeros. It may
        be empty.
    """
    return encode_batch(model, [p[None] for p in planes], [p[None] for p in previous])[0]


def encode_batch(
    model: ContextModel, planes: Sequence[npt.NDArray[Any]], previous: Sequence[npt.NDArray[Any]]
) -> list[bytes]:
    """`encode` of N images of one grid: planes and previous are uint8 (N, C_t, H, W), the result
    has one string for each."""
    bits, start = _joined(model, planes, previous)
    images, end, rows, columns = bits.shape
    raw = -(-(end - start) * rows * columns // 8)
    data, sizes = np.empty(images * raw, np.uint8), np.empty(images, np.int32)
    if images:
        _native.context_encode(model._native, images, start, end, rows, columns, bits, data, sizes)
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    return [data[a:b].tobytes() for a, b in zip([0, *ends], ends, strict=False)]


def decode(
    model: ContextModel,
    data: bytes,
    first: int,
    last: int,
    grid: Grid,
    previous: Sequence[npt.NDArray[Any]],
    *,
    max_bits: int = MAX_BITS,
) -> list[Bits]:
    """The planes that `encode` was given: uint8 (C_t, H, W) for each iteration `first`..`last`,
    both included.

    Any bytes are safe. Most strings that are not too long decode to some planes: checksums are the
    file format's affair.

    Args:
        model: the model that the data were coded with.
        data: one string of `encode`, whole.
        first, last: the iterations that it holds.
        grid: (rows, columns).
        previous: planes of all iterations before `first`.
        max_bits: limit of rows * columns * channels of all iterations up to `last`; that many bytes
            are taken, twice.

    Raises:
        FormatError: `encode` never makes these data.
        TooLargeError: more than `max_bits`.
    """
    return [
        p[0]
        for p in decode_batch(
            model, [data], first, last, grid, [p[None] for p in previous], max_bits=max_bits
        )
    ]


def decode_batch(
    model: ContextModel,
    data: Sequence[bytes],
    first: int,
    last: int,
    grid: Grid,
    previous: Sequence[npt.NDArray[Any]],
    *,
    max_bits: int = MAX_BITS,
) -> list[Bits]:
    """`decode` of N images of one grid: `previous` and the result are uint8 (N, C_t, H, W);
    `max_bits` is for all together."""
    start, end = _span(model, first, last)
    rows, columns = grid
    if rows < 1 or columns < 1 or len(previous) != first:
        raise ValueError(
            "decode: a grid of at least 1 x 1 and the planes of all earlier iterations are needed"
        )
    if len(data) * end * rows * columns > max_bits:
        raise TooLargeError(
            f"{len(data) * end * rows * columns} bits are more than the limit of {max_bits}",
            _BAD_DATA,
        )
    bits = np.zeros((len(data), end, rows, columns), np.uint8)
    for t, plane in enumerate(previous):
        if plane.dtype not in (np.uint8, np.bool_) or plane.shape != (
            len(data),
            model.channels[t],
            rows,
            columns,
        ):
            raise ValueError(f"decode: planes of iteration {t} are {plane.dtype} {plane.shape}")
        bits[:, model.starts[t] : model.starts[t + 1]] = plane
    raw = raw_bytes(model, first, last, grid)
    for i, one in enumerate(data):
        if len(one) > raw:
            raise FormatError(
                f"image {i}: {len(one)} bytes of codes where at most {raw} can be", _BAD_DATA
            )
    if data:
        sizes = np.array([len(one) for one in data], np.int32)
        joined = np.frombuffer(b"".join(data), np.uint8)
        status, bad = _native.context_decode(
            model._native, len(data), start, end, rows, columns, bits, joined, sizes
        )
        if status:
            raise FormatError(f"image {bad}: bytes that no codes make", _BAD_DATA)
    return [bits[:, model.starts[t] : model.starts[t + 1]].copy() for t in range(first, last + 1)]


def cost_bits(
    model: ContextModel, planes: Sequence[npt.NDArray[Any]], previous: Sequence[npt.NDArray[Any]]
) -> float:
    """Bits that `encode` spends on the planes, but for rounding to bytes and the choice of raw
    bits; arguments as there."""
    return float(cost_bits_batch(model, [p[None] for p in planes], previous)[0])


def cost_bits_batch(
    model: ContextModel,
    planes: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
    previous: Sequence[npt.NDArray[Any]],
) -> npt.NDArray[np.float64]:
    """`cost_bits` of N candidates.

    Args:
        model: the model of the codec that made the planes.
        planes: uint8 (N, C_t, H, W) of iteration `len(previous)`, or such an array for each of
            several consecutive iterations.
        previous: uint8 (C_t, H, W) of each earlier iteration where all candidates share it, else
            (N, C_t, H, W).

    Returns:
        float64 (N,), exact multiples of 1/65536 and the same on every machine.
    """
    listed = [planes] if isinstance(planes, np.ndarray) else list(planes)
    bits, start = _joined(model, listed, previous)
    images, end, rows, columns = bits.shape
    costs = np.zeros(images, np.uint64)
    if images:
        _native.context_cost(
            model._native, images, start, end, rows, columns, bits, None, costs.view(np.uint8)
        )
    return costs / 65536.0


def _span(model: ContextModel, first: int, last: int) -> tuple[int, int]:
    """Slots of iterations first..last: the first, and the one after the last."""
    if not 0 <= first <= last < len(model.channels):
        raise ValueError(f"iterations {first}..{last} of a model that has {len(model.channels)}")
    return model.starts[first], model.starts[last + 1]


def _joined(
    model: ContextModel, planes: Sequence[npt.NDArray[Any]], previous: Sequence[npt.NDArray[Any]]
) -> tuple[Bits, int]:
    """All planes of N images as uint8 (N, slots, H, W), and the first slot to code."""
    first, last = len(previous), len(previous) + len(planes) - 1
    start, end = _span(model, first, last)
    images, grid = planes[0].shape[0], planes[0].shape[2:]
    if len(grid) != 2 or 0 in grid:
        raise ValueError(f"planes are {planes[0].shape}, not (N, channels, rows, columns)")
    bits = np.empty((images, end, *grid), np.uint8)
    for t, array in enumerate([*previous, *planes]):
        shape = (model.channels[t], *grid)
        if array.dtype not in (np.uint8, np.bool_) or array.shape not in (
            (images, *shape),
            *[shape] * (t < first),
        ):
            raise ValueError(
                f"planes of iteration {t} are {array.dtype} {array.shape}, not uint8"
                f" {(images, *shape)}"
            )
        bits[:, model.starts[t] : model.starts[t + 1]] = array
    return bits, start
