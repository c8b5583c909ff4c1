"""The bytes of a JPEG file to a `JpegImage`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.errors import (
    DamagedError,
    FormatError,
    TooLargeError,
    TruncatedError,
    UnsupportedError,
)
from vizcomp.jpeg.image import ZIGZAG, Colour, Component, JpegImage, Segment, ceil_div
from vizcomp.jpeg.segments import (
    BROKEN_HINT,
    COM,
    DAC,
    DHT,
    DNL,
    DQT,
    DRI,
    EOI,
    SOS,
    is_adobe,
    is_jfif,
    markers,
)
from vizcomp.jpeg.standard import STANDARD_CODES

MAX_PIXELS = 200_000_000
MAX_SCANS = 200  # an honest file has about ten; each scan of a bomb costs a pass over all blocks

_REFUSED = {
    0xC3: "lossless coding",
    0xC5: "hierarchical coding",
    0xC6: "hierarchical coding",
    0xC7: "hierarchical coding",
    0xC8: "the reserved JPG extension",
    0xC9: "arithmetic coding",
    0xCA: "arithmetic coding",
    0xCB: "lossless arithmetic coding",
    0xCD: "hierarchical arithmetic coding",
    0xCE: "hierarchical arithmetic coding",
    0xCF: "hierarchical arithmetic coding",
    DAC: "arithmetic coding",
    0xDE: "hierarchical coding",
    0xDF: "hierarchical coding",
}
_LEFT_OVER = 8  # a status of `_native.decode_scan` beside those that end in an error
_LEFT_OVER_NOTICE = "a byte or two before a restart marker belong to no block: passed over"
_OTHER_HINT = "convert it to an ordinary JPEG or PNG with the program that made it"


def read_jpeg(data: bytes, *, max_pixels: int = MAX_PIXELS) -> JpegImage:
    """Read a JPEG's quantised coefficients, exactly.

    Baseline, extended sequential with 8 bits, and progressive; any sampling; 1, 3 or 4 components;
    restart markers. What follows the end of the picture is ignored. A missing end marker is no
    error if nothing else is missing. A sequential file may leave out the standard's own Huffman
    tables, as Motion JPEG does.

    Args:
        data: the file.
        max_pixels: limit of width times height.

    Raises:
        FormatError: markers, tables or headers are broken.
        DamagedError: the coded data are, so that decoders guess what they show.
        TruncatedError: the data end before the picture does.
        UnsupportedError: arithmetic coding, 12 bits, lossless, hierarchical, two components, height
            in a DNL segment.
        TooLargeError: more than `max_pixels`.
    """
    return _Reader(data, max_pixels).read()


@dataclass(frozen=True)
class HeaderComponent:
    """A component as the frame header declares it."""

    id: int
    h: int
    v: int
    table: int


@dataclass
class _State:
    """A component while it is read.

    Attributes:
        bits_left: int8 (64,) by zigzag position: bits that refinement scans still have to bring;
            -1: no scan yet.
    """

    frame: HeaderComponent
    coefficients: npt.NDArray[np.int16]
    real_rows: int
    real_cols: int
    table: npt.NDArray[np.uint16] | None = None
    bits_left: npt.NDArray[np.int8] = field(default_factory=lambda: np.full(64, -1, np.int8))

    def arguments(self, dc: object | None, ac: object | None) -> tuple[Any, ...]:
        """For `_native.decode_scan`: the component with its Huffman tables."""
        f = self.frame
        sizes = (*self.coefficients.shape[:2], self.real_rows, self.real_cols)
        return (self.coefficients, *sizes, f.h, f.v, f.id, 0, dc, ac)


@dataclass(frozen=True)
class _Band:
    """What a scan codes: zigzag positions ss..se, from bit ah (0: none yet) to al (T.81, B.2.3)."""

    ss: int
    se: int
    ah: int
    al: int


class _Reader:
    """Reads one file, marker by marker."""

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._data = bytes(data)
        self._max_pixels = max_pixels
        self._tables: dict[int, npt.NDArray[np.uint16]] = {}
        self._codes: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._built: dict[tuple[int, int], object] = {}
        self._segments: list[Segment] = []
        self._frame: tuple[HeaderComponent, ...] = ()
        self._width = self._height = 0
        self._progressive = False
        self._restart = 0
        self._scans = 0
        self._notices: dict[str, None] = {}
        self._states: list[_State] = []
        if len(self._data) < 4:
            raise TruncatedError("the file is too short to be a JPEG", BROKEN_HINT)
        if self._data[:2] != b"\xff\xd8":
            raise FormatError("not a JPEG: it does not start with FF D8", "check the file's type")

    def read(self) -> JpegImage:
        ended = False
        for marker in markers(self._data):
            if marker.code == EOI:
                ended = True
            elif marker.code == SOS:
                self._scan(marker.payload, marker.end)
            else:
                self._take(marker.code, marker.payload)
        if not self._frame or not self._states:
            raise TruncatedError("the file ends before its first scan", BROKEN_HINT)
        for s in self._states:
            missing = s.bits_left[0] < 0 if ended else bool((s.bits_left != 0).any())
            if missing:
                raise TruncatedError("the file ends before its last scan", BROKEN_HINT)
        return self._image()

    def _take(self, marker: int, payload: bytes) -> None:
        if marker in (0xC0, 0xC1, 0xC2):
            self._start_frame(marker, payload)
        elif marker in _REFUSED:
            raise UnsupportedError(f"this JPEG uses {_REFUSED[marker]}", _OTHER_HINT)
        elif marker == DQT:
            self._take_tables(payload)
        elif marker == DHT:
            self._take_codes(payload)
        elif marker == DRI:
            if len(payload) != 2:
                raise FormatError("the restart interval is broken", BROKEN_HINT)
            self._restart = payload[0] << 8 | payload[1]
        elif marker == DNL:
            raise UnsupportedError("this JPEG gives its height after the first scan", _OTHER_HINT)
        elif 0xE0 <= marker <= 0xEF or marker == COM:
            self._segments.append((marker, payload))

    def _start_frame(self, marker: int, payload: bytes) -> None:
        if self._frame:
            raise FormatError("the file has two frame headers", BROKEN_HINT)
        if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
            raise FormatError("the frame header is broken", BROKEN_HINT)
        precision, height, width, count = struct.unpack(">BHHB", payload[:6])
        if precision != 8:
            raise UnsupportedError(f"this JPEG has {precision} bits a sample", _OTHER_HINT)
        if width == 0:
            raise FormatError("the frame header says that the width is 0", BROKEN_HINT)
        if height == 0:
            raise UnsupportedError("this JPEG gives its height after the first scan", _OTHER_HINT)
        if width * height > self._max_pixels:
            limit = f"{self._max_pixels / 1e6:g} megapixels"
            raise TooLargeError(
                f"{width} x {height} is more than {limit}", "raise the limit with `max_pixels`"
            )
        if count not in (1, 3, 4):
            raise UnsupportedError(f"this JPEG has {count} components", _OTHER_HINT)
        self._frame = _frame_components(payload[6:])
        self._width, self._height = width, height
        self._progressive = marker == 0xC2

    def _take_tables(self, payload: bytes) -> None:
        at = 0
        while at < len(payload):
            wide, slot = payload[at] >> 4, payload[at] & 15
            size = 128 if wide else 64
            body = payload[at + 1 : at + 1 + size]
            if wide > 1 or slot > 3 or len(body) != size:
                raise FormatError("a quantisation table is broken", BROKEN_HINT)
            steps = np.frombuffer(body, ">u2" if wide else np.uint8).astype(np.uint16)
            if not steps.all():
                raise FormatError("a quantisation table holds a step of 0", BROKEN_HINT)
            table = np.empty(64, np.uint16)
            table[ZIGZAG] = steps
            self._tables[slot] = table
            at += 1 + size

    def _take_codes(self, payload: bytes) -> None:
        at = 0
        while at < len(payload):
            key = (payload[at] >> 4, payload[at] & 15)
            counts = payload[at + 1 : at + 17]
            total = sum(counts)
            values = payload[at + 17 : at + 17 + total]
            if key[0] > 1 or key[1] > 3 or len(counts) != 16 or total > 256 or len(values) != total:
                raise FormatError("a Huffman table is broken", BROKEN_HINT)
            self._codes[key] = (counts, values)
            self._built.pop(key, None)
            at += 17 + total

    def _code(self, klass: int, slot: int) -> object:
        key = (klass, slot)
        if key not in self._built:
            codes = self._codes.get(key) or (None if self._progressive else STANDARD_CODES.get(key))
            if codes is None:
                raise FormatError("a scan uses a Huffman table that is missing", BROKEN_HINT)
            table = _native.huffman_table(*codes)
            if table is None:
                raise FormatError("a Huffman table is no prefix code", BROKEN_HINT)
            self._built[key] = table
        return self._built[key]

    def _mcus(self) -> tuple[int, int, int, int]:
        """Largest sampling factors of the frame (down, across), and its MCUs (rows, columns)."""
        v_max, h_max = max(c.v for c in self._frame), max(c.h for c in self._frame)
        return v_max, h_max, ceil_div(self._height, 8 * v_max), ceil_div(self._width, 8 * h_max)

    def _allocate(self) -> None:
        v_max, h_max, rows, cols = self._mcus()
        real = [
            (
                ceil_div(ceil_div(self._height * c.v, v_max), 8),
                ceil_div(ceil_div(self._width * c.h, h_max), 8),
            )
            for c in self._frame
        ]
        # Each block takes a bit at the very least.
        # Those beside the picture are coded in interleaved scans only.
        stored = rows * cols * sum(c.h * c.v for c in self._frame)
        if stored > 64 * len(self._data) and sum(down * across for down, across in real) > 8 * len(
            self._data
        ):
            raise TruncatedError("the file is too short for the size that it declares", BROKEN_HINT)
        for c, (real_rows, real_cols) in zip(self._frame, real, strict=True):
            coefficients = np.zeros((rows * c.v, cols * c.h, 64), np.int16)
            self._states.append(_State(c, coefficients, real_rows, real_cols))

    def _scan(self, payload: bytes, start: int) -> None:
        """Decode the scan with the header `payload`, whose entropy-coded data begin at `start`."""
        if not self._frame:
            raise FormatError("a scan comes before the frame header", BROKEN_HINT)
        self._scans += 1
        if self._scans > MAX_SCANS:
            raise FormatError(f"the file has more than {MAX_SCANS} scans", BROKEN_HINT)
        if len(payload) < 6 or not 1 <= payload[0] <= 4 or len(payload) != 4 + 2 * payload[0]:
            raise FormatError("a scan header is broken", BROKEN_HINT)
        if not self._states:
            self._allocate()
        parts = self._scan_parts(payload)
        states = [s for s, _, _ in parts]
        band = _Band(payload[-3], payload[-2], payload[-1] >> 4, payload[-1] & 15)
        if self._progressive:
            _check_progression(states, band)
        else:
            band = _Band(0, 63, 0, 0)
            if any(s.bits_left[0] == 0 for s in states):
                raise FormatError("a component is coded twice", BROKEN_HINT)
        for s in states:
            if s.table is None:
                s.table = self._tables.get(s.frame.table)
                if s.table is None:
                    raise FormatError("a component's quantisation table is missing", BROKEN_HINT)
        self._decode(parts, band, start)
        for s in states:
            s.bits_left[band.ss : band.se + 1] = band.al

    def _scan_parts(self, payload: bytes) -> list[tuple[_State, int, int]]:
        """The components that a scan header names, with the slots of their DC and AC codes."""
        count = payload[0]
        by_id = {s.frame.id: s for s in self._states}
        parts = []
        for i in range(count):
            state, slots = by_id.get(payload[1 + 2 * i]), payload[2 + 2 * i]
            if state is not None:
                parts.append((state, slots >> 4, slots & 15))
        if len({s.frame.id for s, _, _ in parts}) != count:
            raise FormatError("a scan names a component that the frame has not", BROKEN_HINT)
        if count > 1 and sum(s.frame.h * s.frame.v for s, _, _ in parts) > 10:
            raise FormatError("a scan interleaves more than ten blocks", BROKEN_HINT)
        return parts

    def _decode(self, parts: list[tuple[_State, int, int]], band: _Band, start: int) -> None:
        arguments = []
        for s, dc, ac in parts:
            dc_code = self._code(0, dc) if band.ss == 0 and band.ah == 0 else None
            arguments.append(s.arguments(dc_code, self._code(1, ac) if band.se > 0 else None))
        status, end = _native.decode_scan(
            self._data,
            start,
            tuple(arguments),
            int(self._progressive),
            band.ss,
            band.se,
            band.ah,
            band.al,
            self._restart,
            *self._mcus()[2:],
        )
        if status == 1:
            if end + 1 >= len(self._data) or self._data[end + 1] == EOI:
                raise TruncatedError("the file ends inside a scan", BROKEN_HINT)
            raise DamagedError("a marker interrupts a scan", BROKEN_HINT)
        if status == _LEFT_OVER:
            self._notices[_LEFT_OVER_NOTICE] = None
            return
        reasons = {
            2: "a scan holds a bit pattern that is no Huffman code",
            3: "a scan holds an impossible coefficient",
            4: "a restart marker is missing or out of order",
        }
        if status:
            raise DamagedError(
                reasons.get(status, f"a scan is broken (status {status})"), BROKEN_HINT
            )

    def _colour(self) -> Colour:
        """As decoders agree: JFIF means YCbCr; then Adobe's last transform; then the numbers."""
        ids = tuple(c.id for c in self._frame)
        adobe = next((s[1][11] for s in reversed(self._segments) if is_adobe(s)), None)
        if len(ids) == 1:
            return "grey"
        if len(ids) == 4:
            return "ycck" if adobe == 2 else "cmyk"
        if any(is_jfif(s) for s in self._segments):
            return "ycbcr"
        if adobe is not None:
            return "rgb" if adobe == 0 else "ycbcr"
        return "rgb" if ids == tuple(b"RGB") else "ycbcr"

    def _image(self) -> JpegImage:
        tables: dict[int, npt.NDArray[np.uint16]] = {}
        components = []
        for s in self._states:
            assert s.table is not None  # set by the component's first scan
            key = s.frame.table
            while key in tables and not np.array_equal(tables[key], s.table):
                key += 1  # the slot was used again between scans
            tables[key] = s.table
            components.append(Component(s.frame.id, s.frame.h, s.frame.v, key, s.coefficients))
        return JpegImage(
            self._width,
            self._height,
            components,
            tables,
            self._colour(),
            list(self._segments),
            self._progressive,
            self._restart,
            tuple(self._notices),
        )


def _frame_components(fields: bytes) -> tuple[HeaderComponent, ...]:
    """The components of a frame header, three bytes each."""
    components = []
    for at in range(0, len(fields), 3):
        identifier, sampling, table = fields[at : at + 3]
        h, v = sampling >> 4, sampling & 15
        if not (1 <= h <= 4 and 1 <= v <= 4) or table > 3:
            raise FormatError(
                "the frame header's sampling or table numbers are broken", BROKEN_HINT
            )
        if len(fields) == 3:
            h = v = 1  # a lone component is never interleaved: its factors mean nothing
        components.append(HeaderComponent(identifier, h, v, table))
    if len({c.id for c in components}) != len(components):
        raise FormatError("two components have the same number", BROKEN_HINT)
    return tuple(components)


def _check_progression(states: Sequence[_State], band: _Band) -> None:
    """A band is sent once, then refined by bits (T.81 G.1.1.1). This bounds a file's work."""
    ss, se, ah, al = band.ss, band.se, band.ah, band.al
    if (
        ss > se
        or se > 63
        or (ss == 0 and se != 0)
        or (ss > 0 and len(states) > 1)
        or al > 13
        or (ah and ah != al + 1)
    ):
        raise FormatError("a progressive scan has an impossible band", BROKEN_HINT)
    for s in states:
        if (s.bits_left[ss : se + 1] != (ah if ah else -1)).any():
            raise DamagedError("progressive scans come in an impossible order", BROKEN_HINT)
