"""A second reader of .vzc files, written from docs/vzc-format.md with the standard library alone,
and the page's test vector."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vizcomp.neural.codec import NeuralCodec
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc
from vizcomp.weights.table import bundled_path

PAGE = (Path(__file__).parents[2] / "docs" / "vzc-format.md").read_text("utf-8")
FORMATS = {"U8": "B", "U16": "H", "I16": "h", "I32": "i"}


def arrays_of(file: bytes) -> dict[str, list[int]]:
    """The integers of a model file's context model, each array flat, row by row."""
    (size,) = struct.unpack_from("<Q", file)
    about = json.loads(file[8 : 8 + size])
    found = {}
    for name, entry in about.items():
        if name.startswith("context."):
            first, last = entry["data_offsets"]
            code = FORMATS[entry["dtype"]]
            data = file[8 + size + first : 8 + size + last]
            found[name.removeprefix("context.")] = list(
                struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)
            )
    return found


def nearest(x: int, n: int) -> int:
    """x / 2^n to the nearest whole number, halves away from zero."""
    half = 1 << n >> 1
    return (x + half) >> n if x >= 0 else -((-x + half) >> n)


class Probabilities:
    """Tables of the logistic domain."""

    def __init__(self) -> None:
        power, self._squash = 1 << 31, []
        for _ in range(2817):
            total = (1 << 31) + power
            self._squash.append(((1 << 47) + total // 2) // total)
            power = (power * 2139111403 + (1 << 30)) >> 31
        self._stretch = [0] * 4096
        for step in range(2048, 4096):
            x = next((x for x in range(2817) if self._squash[x] >= 16 * step + 8), 2816)
            self._stretch[step], self._stretch[4095 - step] = x, -x

    def squash(self, x: int) -> int:
        x = max(-2816, min(2816, x))
        return self._squash[x] if x >= 0 else 65536 - self._squash[-x]

    def stretch(self, probability: int) -> int:
        return self._stretch[probability >> 4]


class Range:
    """The range decoder."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 7
        self._value, self._range = int.from_bytes(data[:7].ljust(7, b"\0"), "big"), 1 << 56

    def bit(self, probability: int) -> int:
        part = (self._range >> 16) * probability
        bit = int(self._value < part)
        if bit:
            self._range = part
        else:
            self._value -= part
            self._range -= part
        while self._range < 1 << 48:
            following = self._data[self._at] if self._at < len(self._data) else 0
            self._value, self._range, self._at = (
                self._value << 8 | following,
                self._range << 8,
                self._at + 1,
            )
        return bit


def decoded(
    model: dict[str, list[int]],
    payload: bytes,
    first: int,
    last: int,
    rows: int,
    columns: int,
    planes: list[list[int]],
) -> list[list[int]]:
    """The planes of iterations first..last, one list of bits a slot, row by row; `planes` are those
    of the slots before."""
    tables = Probabilities()
    channels = model["channels"]
    starts = [sum(channels[:t]) for t in range(len(channels) + 1)]
    begin, end = starts[first], starts[last + 1]
    planes = [list(plane) for plane in planes]
    count = (end - begin) * rows * columns
    if len(payload) == (count + 7) // 8:  # the bits as they are
        bits = [payload[i // 8] >> (7 - i % 8) & 1 for i in range(count)]
        return planes + [bits[i : i + rows * columns] for i in range(0, count, rows * columns)]
    sets = len(model["lengths"]) // starts[-1]
    coder = Range(payload)
    reference = entry = 0
    for slot in range(end):
        lengths = model["lengths"][slot * sets : (slot + 1) * sets]
        shapes = []
        for length in lengths:
            rows_of = [
                model["references"][4 * r : 4 * r + 4] for r in range(reference, reference + length)
            ]
            shapes.append((rows_of, entry))
            reference, entry = reference + length, entry + (1 << length)
        if slot < begin:
            continue
        entries, weights = (
            list(model["tables"]),
            model["weights"][slot * (sets + 1) : (slot + 1) * (sets + 1)],
        )
        planes.append([0] * (rows * columns))
        for place in range(rows * columns):
            y, x = divmod(place, columns)
            used, inputs = [], []
            for rows_of, at in shapes:
                for j, (dy, dx, iteration, channel) in enumerate(rows_of):
                    inside = 0 <= y + dy < rows and 0 <= x + dx < columns
                    if inside and iteration < 0:
                        at += 1 << j
                    elif inside:
                        at += planes[starts[iteration] + channel][(y + dy) * columns + x + dx] << j
                used.append(at)
                inputs.append(tables.stretch(entries[at]))
            inputs.append(256)
            total = sum(w * i for w, i in zip(weights, inputs, strict=True))
            probability = tables.squash(nearest(total, 16))
            bit = coder.bit(probability)
            planes[slot][place] = bit
            for at, rate in zip(used, model["rates"], strict=False):
                if rate:
                    entries[at] += (65536 - entries[at]) >> rate if bit else -(entries[at] >> rate)
            if rate := model["rates"][sets]:
                error = 65536 * bit - probability
                weights = [
                    max(-2097151, min(2097151, w + nearest(error * i, rate)))
                    for w, i in zip(weights, inputs, strict=True)
                ]
    return planes


def vector() -> dict[str, Any]:
    text = PAGE.split("```json test vector\n")[1].split("```")[0]
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("learning", [False, True])
def test_the_page_holds(learning: bool) -> None:
    """The page's vector, by this reader and by vizcomp: both say what the page says."""
    page = vector()
    model = {**page["model"], "rates": page["learning" if learning else "still"]["rates"]}
    payload = bytes.fromhex(page["learning" if learning else "still"]["payload"])
    rows, columns = page["grid"]
    planes = [[int(c) for c in plane.replace(" ", "")] for plane in page["planes"]]
    assert decoded(model, payload, 0, 1, rows, columns, []) == planes
    channels, sets = model["channels"], page["sets"]
    arrays = {
        "arithmetic": np.array([1], np.int32),
        "channels": np.array(channels, np.int32),
        "lengths": np.array(model["lengths"], np.uint8).reshape(-1, sets),
        "references": np.array(model["references"], np.int16).reshape(-1, 4),
        "tables": np.array(model["tables"], np.uint16),
        "weights": np.array(model["weights"], np.int32).reshape(-1, sets + 1),
        "rates": np.array(model["rates"], np.uint8),
    }
    bits = np.array(planes, np.uint8).reshape(-1, rows, columns)
    split = [bits[: channels[0]], bits[channels[0] :]]
    assert coding.encode(coding.ContextModel.from_arrays(arrays), split, []) == payload


@pytest.mark.parametrize("name", ["cifar", "cifar-label", "photo"])
def test_files_of_bundled_models(name: str) -> None:
    """A file of each model, chunk after chunk."""
    codec = NeuralCodec.load(name, threads=1)
    side = codec.native or 40
    y, x = np.mgrid[:side, :side] * 255 / side
    image = np.stack([x, y, 255 - x], 2).astype(np.uint8)
    many = min(2, codec.iterations)
    codes = codec.codes(image, iterations=many, search=0)
    chunks = [coding.encode(codec.context, [plane], codes[:t]) for t, plane in enumerate(codes)]
    data = vzc.pack(chunks, model=codec.fingerprint, width=side, height=side)
    model = arrays_of(bundled_path(f"{name}.safetensors").read_bytes())
    rows, columns = codes[0].shape[1:]
    planes: list[list[int]] = []
    for t, chunk in enumerate(vzc.unpack(data).chunks):
        planes = decoded(model, chunk, t, t, rows, columns, planes)
    assert planes == [plane.ravel().tolist() for code in codes for plane in code]
