"""Blocks of a pack: their images in columns, written and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vizcomp.errors import FormatError
from vizcomp.vzc.fields import (
    GET_AGAIN,
    MAX_ITERATIONS,
    MAX_NAME,
    Cursor,
    decoded_name,
    write_column,
    write_varint,
)

MAX_PACKED_PAYLOAD = 2**24 - 1
MAX_PACKED_SIDE = 2**24 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackEntry:
    """One image of a pack.

    Attributes:
        payload: all its iterations, coded together.
        width, height: pixels.
        grey: whether the source was greyscale.
        iterations: how many the payload holds, 1 to 64.
        name: relative path of the source, or None.
        label: index into the classes of the pack, or None.
    """

    payload: bytes
    width: int
    height: int
    grey: bool = False
    iterations: int = 1
    name: str | None = None
    label: int | None = None


def _shared(before: bytes, name: bytes) -> tuple[int, int]:
    """Head and tail: the leading and then the trailing bytes that `name` takes from the name before
    it."""
    most = min(len(before), len(name))
    head = 0
    while head < most and before[head] == name[head]:
        head += 1
    tail = 0
    while tail < most - head and before[-1 - tail] == name[-1 - tail]:
        tail += 1
    return head, tail


def block_body(images: Sequence[PackEntry]) -> bytes:
    """The body of a block's section; of 1 to 64 images, those that follow each other."""
    heads, tails, middles = [], [], []
    before = b""
    for image in images:
        name = (image.name or "").encode("utf-8")
        head, tail = _shared(before, name)
        heads.append(head)
        tails.append(tail)
        middles.append(name[head : len(name) - tail])
        before = name
    columns: list[list[int]] = [
        [len(image.payload) for image in images],
        [image.width for image in images],
        [image.height for image in images],
        [image.iterations for image in images],
        [int(image.grey) for image in images],
        [0 if image.label is None else image.label + 1 for image in images],
        heads,
        tails,
        [len(middle) for middle in middles],
    ]
    payloads = (image.payload for image in images)
    return b"".join([write_varint(len(images)), *map(write_column, columns), *middles, *payloads])


class Block:
    """The columns of one block, checked; payloads and names stay in the file until they are asked
    for."""

    _LIMITS = (  # of each column: least, most; the number of classes is filled in
        (0, MAX_PACKED_PAYLOAD),
        (1, MAX_PACKED_SIDE),
        (1, MAX_PACKED_SIDE),
        (1, MAX_ITERATIONS),
        (0, 1),
        (0, -1),
        (0, MAX_NAME),
        (0, MAX_NAME),
        (0, MAX_NAME),
    )

    def __init__(self, data: memoryview, n: int, classes: int, what: str, *, counted: bool) -> None:
        cursor = Cursor(data, 0, len(data), what)
        if counted and cursor.varint() != n:
            raise cursor.damaged("it holds another number of images than the directory says")
        columns = []
        for least, most in self._LIMITS:
            column = cursor.column(n)
            if column.min() < least or column.max() > (classes if most < 0 else most):
                raise cursor.damaged("a number is out of its range")
            columns.append(column)
        self.data, self.what = data, what
        (
            lengths,
            self.widths,
            self.heights,
            self.iterations,
            self.grey,
            self.labels,
            self._heads,
            self._tails,
            middles,
        ) = columns
        self._middles = cursor.at + np.concatenate(([0], np.cumsum(middles)))
        self.starts = self._middles[-1] + np.concatenate(([0], np.cumsum(lengths)))
        if self.starts[-1] != len(data):
            raise cursor.damaged("its length is not that of what it holds")
        self._names: list[str | None] | None = None

    def names(self) -> list[str | None]:
        """Names of the images, None where one has none. Raises FormatError."""
        if self._names is None:
            names: list[str | None] = []
            before = b""
            for i, (head, tail) in enumerate(
                zip(self._heads.tolist(), self._tails.tolist(), strict=True)
            ):
                middle = bytes(self.data[self._middles[i] : self._middles[i + 1]])
                name = before[:head] + middle + before[max(len(before) - tail, 0) :]
                if (head, tail) != _shared(before, name):
                    raise FormatError(
                        f"{self.what}: a name is not written the shortest way", GET_AGAIN
                    )
                names.append(decoded_name(name, self.what) if name else None)
                before = name
            self._names = names
        return self._names
