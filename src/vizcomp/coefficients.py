"""JPEG as quantised DCT coefficients: read, requantise and write in memory (ITU-T T.81 | ISO/IEC 10918-1).

    bytes ── read ──> JpegImage ── consume ──┐
    pixels ── from_pixels ───────────────────> RealImage ── quantise ──> JpegImage ── write ──> bytes

Markers are parsed and written here; entropy-coded data and the loops over blocks are in `vizcomp._native`. All input is
taken as hostile: sizes are checked before memory is taken, and every error of the data is a `FormatError`.
Why this is our own code: docs/decisions/0001-jpeg-coefficients.md.

Blocks of coefficients hold 64 values in natural order (row by row, not zigzag). A component's blocks are padded to whole
MCUs, as in the stream; the blocks that hold samples of the picture are the first `real_rows` x `real_cols`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.errors import FormatError, SettingsError, TooLargeError, TruncatedError, UnsupportedError

Colour = Literal["grey", "ycbcr", "rgb", "cmyk", "ycck"]
Segment = tuple[int, bytes]

MAX_PIXELS = 200_000_000
MAX_SCANS = 200  # an honest progressive file has about ten; each scan of a bomb costs a pass over all blocks

ZIGZAG = np.array(
    [
        *(0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28),
        *(35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51),
        *(58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63),
    ]
)
"""Natural index of each zigzag position (T.81, figure 5)."""

STANDARD_CODE_LENGTHS: npt.NDArray[np.uint8] = np.frombuffer(_native.standard_lengths(), np.uint8)
"""uint8 (256,): code lengths of the typical luminance AC table (T.81, table K.5) by symbol; 0 = not in the table."""

_SOI, _EOI, _SOS, _DQT, _DHT, _DRI, _DNL, _DAC, _COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xDC, 0xCC, 0xFE
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_JFIF, _EXIF, _ICC, _XMP = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION = 0x0112
_PLAIN_JFIF = _JFIF + b"\1\1\0\0\1\0\1\0\0"
_MAX_PAYLOAD = 65533
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
    _DAC: "arithmetic coding",
    0xDE: "hierarchical coding",
    0xDF: "hierarchical coding",
}
_BROKEN_HINT = "the file is damaged; get it again from its source"
_OTHER_HINT = "convert it to an ordinary JPEG or PNG with the program that made it"


# ---------------------------------------------------------------------------------------------------- records


@dataclass
class Component:
    """One component's quantised coefficients.

    Attributes:
        id: identifier in the stream, 0..255.
        h, v: sampling factors, 1..4.
        table: key of its quantisation table in `JpegImage.tables`.
        coefficients: int16 (block_rows, block_cols, 64), natural order.
        real_rows, real_cols: blocks that hold samples; filled in by the image that the component belongs to.
    """

    id: int
    h: int
    v: int
    table: int
    coefficients: npt.NDArray[np.int16]
    real_rows: int = 0
    real_cols: int = 0


@dataclass
class JpegImage:
    """A JPEG as its integers.

    Attributes:
        width, height: of the picture, 1..65535.
        components: 1, 3 or 4 of them.
        tables: quantisation tables, uint16 (64,) in natural order, by key.
        colour: what the components mean.
        segments: APPn and COM segments in order: (marker's low byte, payload).
        progressive: how the source was coded; `write` has its own switch.
        restart_interval: of the source, in MCUs; 0 = none.
    """

    width: int
    height: int
    components: list[Component]
    tables: dict[int, npt.NDArray[np.uint16]]
    colour: Colour
    segments: list[Segment] = field(default_factory=list)
    progressive: bool = False
    restart_interval: int = 0

    def __post_init__(self) -> None:
        _fill_real_sizes(self.width, self.height, self.components)


@dataclass
class RealComponent:
    """One component's real-valued coefficients: as `Component`, but for `values`.

    Attributes:
        values: float32 (block_rows, block_cols, 64); or int16 of that shape, to be multiplied by `unit`: half the memory.
        unit: float32 (64,) where `values` are integers, else None.
    """

    id: int
    h: int
    v: int
    table: int
    values: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    real_rows: int = 0
    real_cols: int = 0
    unit: npt.NDArray[np.float32] | None = None

    def dc(self) -> npt.NDArray[np.float32]:
        """The real DC of each block: float32 (block_rows, block_cols)."""
        dc = self.values[:, :, 0]
        return np.asarray(dc, np.float32) if self.unit is None else np.multiply(dc, self.unit[0])

    def ac_norm(self) -> npt.NDArray[np.float32]:
        """Root of the summed squared real AC of each block: float32 (block_rows, block_cols)."""
        result = np.empty(self.values.shape[:2], np.float32)
        for top in range(0, len(result), _BAND):
            ac = _real(self.values[top : top + _BAND], self.unit)[:, :, 1:]
            np.sqrt(np.einsum("rck,rck->rc", ac, ac), out=result[top : top + _BAND])
        return result


@dataclass
class RealImage:
    """A picture as real-valued DCT coefficients, scaled as in JPEG: the DC of a flat block of value v is 8 (v - 128).

    Attributes: as of `JpegImage`.
    """

    width: int
    height: int
    components: list[RealComponent]
    colour: Colour
    segments: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        _fill_real_sizes(self.width, self.height, self.components)


@dataclass(frozen=True)
class HeaderComponent:
    """A component as the frame header declares it."""

    id: int
    h: int
    v: int
    table: int


def _fill_real_sizes(width: int, height: int, components: Sequence[Component] | Sequence[RealComponent]) -> None:
    h_max, v_max = max((c.h for c in components), default=1), max((c.v for c in components), default=1)
    for c in components:
        c.real_rows = _ceil(_ceil(height * c.v, v_max), 8)
        c.real_cols = _ceil(_ceil(width * c.h, h_max), 8)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# ---------------------------------------------------------------------------------------------------- reading


def read(data: bytes, *, max_pixels: int = MAX_PIXELS) -> JpegImage:
    """Read a JPEG's quantised coefficients, exactly.

    Baseline, extended sequential with 8 bits, and progressive; any sampling; 1, 3 or 4 components; restart markers.
    What follows the end of the picture is ignored; a missing end marker is no error if nothing else is missing.

    Args:
        data: the file.
        max_pixels: limit of width times height.

    Raises:
        FormatError: markers, tables or codes are broken.
        TruncatedError: the data end before the picture does.
        UnsupportedError: arithmetic coding, 12 bits, lossless, hierarchical, two components, height in a DNL segment.
        TooLargeError: more than `max_pixels`.
    """
    return _Reader(data, max_pixels).read()


@dataclass
class _State:
    """A component while it is read."""

    frame: HeaderComponent
    coefficients: npt.NDArray[np.int16]
    block_rows: int
    block_cols: int
    real_rows: int
    real_cols: int
    table: npt.NDArray[np.uint16] | None = None
    bits_left: npt.NDArray[np.int8] = field(default_factory=lambda: np.full(64, -1, np.int8))  # -1: not seen; by zigzag position

    def arguments(self, dc: object | None, ac: object | None) -> tuple[Any, ...]:
        f = self.frame
        return (self.coefficients, self.block_rows, self.block_cols, self.real_rows, self.real_cols, f.h, f.v, f.id, 0, dc, ac)


class _Reader:
    """Walks the markers of one file."""

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._data = bytes(data)
        self._max_pixels = max_pixels
        self._at = 2
        self._tables: dict[int, npt.NDArray[np.uint16]] = {}
        self._codes: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._built: dict[tuple[int, int], object] = {}
        self._segments: list[Segment] = []
        self._frame: tuple[HeaderComponent, ...] = ()
        self._width = self._height = 0
        self._progressive = False
        self._restart = 0
        self._scans = 0
        self._states: list[_State] = []
        if len(self._data) < 4:
            raise TruncatedError("the file is too short to be a JPEG", _BROKEN_HINT)
        if self._data[:2] != b"\xff\xd8":
            raise FormatError("not a JPEG: it does not start with FF D8", "check the file's type")

    def read(self) -> JpegImage:
        ended = False
        for marker, payload in self._markers():
            if marker == _EOI:
                ended = True
                break
            if marker == _SOS:
                self._scan(payload)
            else:
                self._take(marker, payload)
        if not self._frame or not self._states:
            raise TruncatedError("the file ends before its first scan", _BROKEN_HINT)
        for s in self._states:
            missing = s.bits_left[0] < 0 if ended else bool((s.bits_left != 0).any())
            if missing:
                raise TruncatedError("the file ends before its last scan", _BROKEN_HINT)
        return self._image()

    def _markers(self) -> Iterator[tuple[int, bytes]]:
        """Markers with their payloads, EOI included; reading goes on from wherever a scan has left `_at`."""
        data = self._data
        while True:
            at = data.find(b"\xff", self._at)
            while 0 <= at < len(data) and data[at] == 0xFF:
                at += 1
            if at < 0 or at >= len(data):
                return
            marker = data[at]
            self._at = at + 1
            if marker == _EOI:
                yield marker, b""
                return
            if marker in (0, 1) or 0xD0 <= marker <= 0xD7:
                continue
            if marker == _SOI:
                raise FormatError("a second picture starts inside the first", _BROKEN_HINT)
            if at + 3 > len(data):
                raise TruncatedError("the file ends inside a marker segment", _BROKEN_HINT)
            length = data[at + 1] << 8 | data[at + 2]
            if length < 2:
                raise FormatError(f"marker FF{marker:02X} has the impossible length {length}", _BROKEN_HINT)
            if at + 1 + length > len(data):
                raise TruncatedError("the file ends inside a marker segment", _BROKEN_HINT)
            self._at = at + 1 + length
            yield marker, data[at + 3 : self._at]

    def _take(self, marker: int, payload: bytes) -> None:
        if marker in (0xC0, 0xC1, 0xC2):
            self._start_frame(marker, payload)
        elif marker in _REFUSED:
            raise UnsupportedError(f"this JPEG uses {_REFUSED[marker]}", _OTHER_HINT)
        elif marker == _DQT:
            self._take_tables(payload)
        elif marker == _DHT:
            self._take_codes(payload)
        elif marker == _DRI:
            if len(payload) != 2:
                raise FormatError("the restart interval is broken", _BROKEN_HINT)
            self._restart = payload[0] << 8 | payload[1]
        elif marker == _DNL:
            raise UnsupportedError("this JPEG gives its height after the first scan", _OTHER_HINT)
        elif 0xE0 <= marker <= 0xEF or marker == _COM:
            self._segments.append((marker, payload))

    def _start_frame(self, marker: int, payload: bytes) -> None:
        if self._frame:
            raise FormatError("the file has two frame headers", _BROKEN_HINT)
        if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
            raise FormatError("the frame header is broken", _BROKEN_HINT)
        precision, height, width, count = struct.unpack(">BHHB", payload[:6])
        if precision != 8:
            raise UnsupportedError(f"this JPEG has {precision} bits a sample", _OTHER_HINT)
        if width == 0:
            raise FormatError("the frame header says that the width is 0", _BROKEN_HINT)
        if height == 0:
            raise UnsupportedError("this JPEG gives its height after the first scan", _OTHER_HINT)
        if width * height > self._max_pixels:
            raise TooLargeError(
                f"{width} x {height} is more than {self._max_pixels / 1e6:g} megapixels", "raise the limit with --max-pixels"
            )
        if count not in (1, 3, 4):
            raise UnsupportedError(f"this JPEG has {count} components", _OTHER_HINT)
        frame = []
        for i in range(count):
            identifier, sampling, table = payload[6 + 3 * i : 9 + 3 * i]
            h, v = sampling >> 4, sampling & 15
            if not (1 <= h <= 4 and 1 <= v <= 4) or table > 3:
                raise FormatError("the frame header's sampling or table numbers are broken", _BROKEN_HINT)
            if count == 1:
                h = v = 1  # a lone component is never interleaved: its factors mean nothing
            frame.append(HeaderComponent(identifier, h, v, table))
        if len({c.id for c in frame}) != count:
            raise FormatError("two components have the same number", _BROKEN_HINT)
        self._frame = tuple(frame)
        self._width, self._height = width, height
        self._progressive = marker == 0xC2

    def _take_tables(self, payload: bytes) -> None:
        at = 0
        while at < len(payload):
            wide, slot = payload[at] >> 4, payload[at] & 15
            size = 128 if wide else 64
            body = payload[at + 1 : at + 1 + size]
            if wide > 1 or slot > 3 or len(body) != size:
                raise FormatError("a quantisation table is broken", _BROKEN_HINT)
            steps = np.frombuffer(body, ">u2" if wide else np.uint8).astype(np.uint16)
            if not steps.all():
                raise FormatError("a quantisation table holds a step of 0", _BROKEN_HINT)
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
                raise FormatError("a Huffman table is broken", _BROKEN_HINT)
            self._codes[key] = (counts, values)
            self._built.pop(key, None)
            at += 17 + total

    def _code(self, klass: int, slot: int) -> object:
        key = (klass, slot)
        if key not in self._built:
            if key not in self._codes:
                raise FormatError("a scan uses a Huffman table that is missing", _BROKEN_HINT)
            table = _native.huffman_table(*self._codes[key])
            if table is None:
                raise FormatError("a Huffman table is no prefix code", _BROKEN_HINT)
            self._built[key] = table
        return self._built[key]

    def _allocate(self) -> None:
        h_max, v_max = max(c.h for c in self._frame), max(c.v for c in self._frame)
        cols, rows = _ceil(self._width, 8 * h_max), _ceil(self._height, 8 * v_max)
        if rows * cols * sum(c.h * c.v for c in self._frame) > 8 * 8 * len(self._data):
            # each block takes a bit at the very least, interleaved padding apart
            real = sum(
                _ceil(_ceil(self._height * c.v, v_max), 8) * _ceil(_ceil(self._width * c.h, h_max), 8) for c in self._frame
            )
            if real > 8 * len(self._data):
                raise TruncatedError("the file is too short for the size that it declares", _BROKEN_HINT)
        for c in self._frame:
            shape = (rows * c.v, cols * c.h, 64)
            self._states.append(
                _State(
                    c,
                    np.zeros(shape, np.int16),
                    shape[0],
                    shape[1],
                    _ceil(_ceil(self._height * c.v, v_max), 8),
                    _ceil(_ceil(self._width * c.h, h_max), 8),
                )
            )

    def _scan(self, payload: bytes) -> None:
        if not self._frame:
            raise FormatError("a scan comes before the frame header", _BROKEN_HINT)
        self._scans += 1
        if self._scans > MAX_SCANS:
            raise FormatError(f"the file has more than {MAX_SCANS} scans", _BROKEN_HINT)
        if len(payload) < 6 or not 1 <= payload[0] <= 4 or len(payload) != 4 + 2 * payload[0]:
            raise FormatError("a scan header is broken", _BROKEN_HINT)
        if not self._states:
            self._allocate()
        count = payload[0]
        by_id = {s.frame.id: s for s in self._states}
        chosen = [(by_id.get(payload[1 + 2 * i]), payload[2 + 2 * i] >> 4, payload[2 + 2 * i] & 15) for i in range(count)]
        states = [s for s, _, _ in chosen if s is not None]
        if len({s.frame.id for s in states}) != count:
            raise FormatError("a scan names a component that the frame has not", _BROKEN_HINT)
        if count > 1 and sum(s.frame.h * s.frame.v for s in states) > 10:
            raise FormatError("a scan interleaves more than ten blocks", _BROKEN_HINT)
        ss, se, ah, al = payload[-3], payload[-2], payload[-1] >> 4, payload[-1] & 15
        if self._progressive:
            self._check_progression(states, ss, se, ah, al)
        else:
            ss, se, ah, al = 0, 63, 0, 0
            if any(s.bits_left[0] == 0 for s in states):
                raise FormatError("a component is coded twice", _BROKEN_HINT)
        for s in states:
            if s.table is None:
                s.table = self._tables.get(s.frame.table)
                if s.table is None:
                    raise FormatError("a component's quantisation table is missing", _BROKEN_HINT)
        arguments = tuple(
            s.arguments(self._code(0, dc) if ss == 0 and ah == 0 else None, self._code(1, ac) if se > 0 else None)
            for s, dc, ac in chosen
            if s is not None
        )
        h_max, v_max = max(c.h for c in self._frame), max(c.v for c in self._frame)
        status, self._at = _native.decode_scan(
            self._data,
            self._at,
            arguments,
            int(self._progressive),
            ss,
            se,
            ah,
            al,
            self._restart,
            _ceil(self._height, 8 * v_max),
            _ceil(self._width, 8 * h_max),
        )
        if status:
            self._refuse(status)
        for s in states:
            s.bits_left[ss : se + 1] = al

    @staticmethod
    def _check_progression(states: list[_State], ss: int, se: int, ah: int, al: int) -> None:
        """T.81 G.1.1.1: a band is sent once and then refined bit by bit; so the work that a file can ask for is bounded."""
        if ss > se or se > 63 or (ss == 0 and se != 0) or (ss > 0 and len(states) > 1) or al > 13 or (ah and ah != al + 1):
            raise FormatError("a progressive scan has an impossible band", _BROKEN_HINT)
        for s in states:
            if (s.bits_left[ss : se + 1] != (ah if ah else -1)).any():
                raise FormatError("progressive scans come in an impossible order", _BROKEN_HINT)

    def _refuse(self, status: int) -> None:
        if status == 1:
            at_end = self._at + 1 >= len(self._data) or self._data[self._at + 1] == _EOI
            if at_end:
                raise TruncatedError("the file ends inside a scan", _BROKEN_HINT)
            raise FormatError("a marker interrupts a scan", _BROKEN_HINT)
        reasons = {
            2: "a scan holds a bit pattern that is no Huffman code",
            3: "a scan holds an impossible coefficient",
            4: "a restart marker is missing or out of order",
        }
        raise FormatError(reasons.get(status, f"a scan is broken (status {status})"), _BROKEN_HINT)

    def _colour(self) -> Colour:
        """As decoders have agreed on: JFIF means YCbCr; then Adobe's transform; then the components' numbers."""
        ids = tuple(c.id for c in self._frame)
        adobe = next((p[11] for m, p in self._segments if m == _APP14 and p[:5] == b"Adobe" and len(p) >= 12), None)
        if len(ids) == 1:
            return "grey"
        if len(ids) == 4:
            return "ycck" if adobe == 2 else "cmyk"
        if any(m == _APP0 and p.startswith(_JFIF) for m, p in self._segments):
            return "ycbcr"
        if adobe is not None:
            return "rgb" if adobe == 0 else "ycbcr"
        return "rgb" if ids == tuple(b"RGB") else "ycbcr"

    def _image(self) -> JpegImage:
        tables: dict[int, npt.NDArray[np.uint16]] = {}
        components = []
        for s in self._states:
            assert s.table is not None  # set by the component's first scan, and every component had one
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
        )


# ---------------------------------------------------------------------------------------------------- pixels


_SUBSAMPLING = {"4:2:0": (2, 2), "4:2:2": (2, 1), "4:4:4": (1, 1)}


def from_pixels(pixels: npt.NDArray[np.uint8], *, subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0") -> RealImage:
    """The DCT coefficients of a picture, before any quantisation.

    YCbCr as JFIF has it (ITU-T T.871: BT.601, full range), not rounded; chroma by the mean of each group of pixels; the last
    row and column repeated to whole MCUs.

    Args:
        pixels: uint8 (H, W, 3) RGB, or (H, W) grey; sides of 1..65535.
        subsampling: of chroma; ignored for grey.

    Raises:
        SettingsError: another shape, dtype or subsampling.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise SettingsError(f"pixels are {pixels.dtype} {pixels.shape}", "give uint8 (H, W, 3) or (H, W)")
    if subsampling not in _SUBSAMPLING:
        raise SettingsError(f"unknown subsampling {subsampling!r}", "use 4:2:0, 4:2:2 or 4:4:4")
    height, width = pixels.shape[:2]
    if not (1 <= height <= 65535 and 1 <= width <= 65535):
        raise SettingsError(f"{width} x {height} cannot be a JPEG", "sides go from 1 to 65535 pixels")
    channels = 1 if pixels.ndim == 2 else 3
    hx, vy = (1, 1) if channels == 1 else _SUBSAMPLING[subsampling]
    rows, cols = _ceil(height, 8 * vy), _ceil(width, 8 * hx)
    planes = [np.empty((rows * vy, cols * hx, 64), np.float32)]
    planes += [np.empty((rows, cols, 64), np.float32) for _ in range(channels - 1)]
    status = _native.forward(np.ascontiguousarray(pixels), height, width, channels, hx, vy, tuple(planes))
    if status:
        raise AssertionError(f"forward: status {status}")
    components = [RealComponent(i + 1, *((hx, vy) if i == 0 else (1, 1)), min(i, 1), plane) for i, plane in enumerate(planes)]
    return RealImage(width, height, components, "grey" if channels == 1 else "ycbcr")


def consume(jpeg: JpegImage) -> tuple[RealImage, bool]:
    """The real values of a JPEG's integers, coefficient times step; chroma of 4:4:4, 4:2:2 or 4:4:0 becomes 4:2:0.

    The mean of neighbouring pixels is a linear map, so it is one matrix on the 16 coefficients of two neighbouring blocks.
    Little memory is taken: integers stay integers, or are dropped once read.

    Args:
        jpeg: not to be used afterwards: its components are left without coefficients.

    Returns:
        The picture, and whether its chroma was halved.
    """
    halved = _can_halve(jpeg.components)
    first = jpeg.components[0]
    rows, cols = _ceil(jpeg.height, 16), _ceil(jpeg.width, 16)
    found: dict[int, RealComponent] = {}
    # Chroma first: once halved it is small, so that luma has the room.
    for index in (*range(1, len(jpeg.components)), 0):
        c = jpeg.components[index]
        steps = jpeg.tables[c.table].astype(np.float32)
        if not halved:
            found[index] = RealComponent(c.id, c.h, c.v, c.table, c.coefficients, unit=steps)
        elif index == 0 and c.coefficients.shape[:2] == (2 * rows, 2 * cols):
            found[0] = RealComponent(c.id, 2, 2, c.table, c.coefficients, unit=steps)
        elif index == 0:
            found[0] = RealComponent(c.id, 2, 2, c.table, _in_bands(c.coefficients, steps, 2 * rows, 2 * cols, 1, 1))
        else:
            values = _in_bands(c.coefficients, steps, rows, cols, 3 - first.v, 3 - first.h)
            found[index] = RealComponent(c.id, 1, 1, c.table, values)
        c.coefficients = np.empty((0, 0, 64), np.int16)
    components = [found[index] for index in range(len(found))]
    return RealImage(jpeg.width, jpeg.height, components, jpeg.colour, list(jpeg.segments)), halved


def _can_halve(components: Sequence[Component] | Sequence[RealComponent]) -> bool:
    if len(components) != 3:
        return False
    luma, *chroma = components
    return all((c.h, c.v) == (1, 1) for c in chroma) and (luma.h, luma.v) in ((1, 1), (2, 1), (1, 2))


_BAND = 32  # block rows worked on at a time; even, so that a band of padded rows holds a real one to mirror


def _real(
    blocks: npt.NDArray[np.int16] | npt.NDArray[np.float32], unit: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    return np.asarray(blocks, np.float32) if unit is None else np.multiply(blocks, unit)


def _in_bands(
    blocks: npt.NDArray[np.int16] | npt.NDArray[np.float32],
    unit: npt.NDArray[np.float32] | None,
    rows: int,
    cols: int,
    down: int,
    across: int,
) -> npt.NDArray[np.float32]:
    """Real blocks (R, C, 64) as (rows, cols, 64): padded or cut, and by `down` and `across` (1 or 2)
    neighbours averaged to one."""
    result = np.empty((rows, cols, 64), np.float32)
    for top in range(0, rows, _BAND):
        count = min(_BAND, rows - top)
        band = blocks[top * down : (top + count) * down, : cols * across]
        values = _pad_blocks(_real(band, unit), count * down, cols * across)
        if down == 2:
            values = _halve_blocks(values, axis=0)
        if across == 2:
            values = _halve_blocks(values, axis=1)
        result[top : top + count] = values
    return result


def _dct_matrix(size: int) -> npt.NDArray[np.float64]:
    u, x = np.mgrid[:size, :size]
    matrix: npt.NDArray[np.float64] = np.cos((2 * x + 1) * u * np.pi / (2 * size)) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix


def _pad_blocks(values: npt.NDArray[np.float32], rows: int, cols: int) -> npt.NDArray[np.float32]:
    """More blocks below and to the right: the last ones mirrored, so that no edge arises that the picture has not."""
    values = values[:rows, :cols]
    down, right = rows - values.shape[0], cols - values.shape[1]
    odd = np.where(np.arange(64) // 8 % 2, -1, 1).astype(np.float32)
    if down:
        values = np.concatenate([values, np.repeat(values[-1:] * odd, down, axis=0)], axis=0)
    if right:
        odd = np.where(np.arange(64) % 2, -1, 1).astype(np.float32)
        values = np.concatenate([values, np.repeat(values[:, -1:] * odd, right, axis=1)], axis=1)
    return values


def _halve_blocks(values: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Two neighbouring blocks to the one of their pixels' pairwise means; (R, C, 64) with an even side along `axis`."""
    dct = _dct_matrix(8)
    pairs = np.repeat(np.eye(8), 2, axis=1) / 2  # (8, 16)
    both = dct @ pairs @ np.kron(np.eye(2), dct.T)  # (8, 16): coefficients of two blocks to those of their mean
    first, second = both[:, :8].astype(np.float32), both[:, 8:].astype(np.float32)
    rows, cols = values.shape[:2]
    if axis == 0:
        blocks = values.reshape(rows // 2, 2, cols, 8, 8)
        halved = first @ blocks[:, 0] + second @ blocks[:, 1]
        return np.ascontiguousarray(halved.reshape(rows // 2, cols, 64), np.float32)
    blocks = values.reshape(rows, cols // 2, 2, 8, 8)
    halved = blocks[:, :, 0] @ first.T + blocks[:, :, 1] @ second.T
    return np.ascontiguousarray(halved.reshape(rows, cols // 2, 64), np.float32)


# ---------------------------------------------------------------------------------------------------- quantisation


def quantise(
    values: npt.NDArray[np.float32] | npt.NDArray[np.int16],
    table: npt.ArrayLike,
    *,
    unit: npt.ArrayLike | None = None,
    dead_zone: npt.ArrayLike = 0.5,
    rate_weight: npt.ArrayLike | None = None,
    exact: npt.ArrayLike | None = None,
    mcu: tuple[int, int] | None = None,
    reuse: bool = False,
) -> npt.NDArray[np.int16]:
    """Round coefficients to multiples of their steps, each block with its own dead zone and its own price of a bit.

    AC: q = floor(|x| / t + 1 - dead_zone), with the sign of x, at most 1023; 0.5 is plain rounding. DC: plain rounding, unless
    `mcu` is given.
    Where `rate_weight` is positive, the block's non-zero coefficients may then become one smaller or zero, such that

        sum ((x - q t) / t)^2  +  rate_weight * bits

    is least over all those choices; bits = run-length codes of `STANDARD_CODE_LENGTHS`, the values' own bits, runs of 16
    zeros and the end of the block. This is a shortest path, found by dynamic programming (Crouse & Ramchandran, "Joint
    thresholding and quantizer selection for transform image coding", IEEE Trans. Image Processing 6(2), 1997).

    Args:
        values: float32 (R, C, 64), natural order; or int16, to be multiplied by `unit`.
        table: (64,) steps, natural order, above 0.
        unit: (64,) what one of `values` is worth; default 1.
        dead_zone: scalar or (R, C), from 0 to 2.
        rate_weight: scalar or (R, C), squared steps for a bit, 0 or more.
        exact: bool (64,): frequencies whose values lie on the table's lattice already; they are kept as they are or dropped.
        mcu: blocks of the component in an MCU, (down, across). Where `rate_weight` is positive the DC value too may then
            differ from the nearest, by two steps at most, such that the same sum is least along the scan, whose differences
            are what DC costs.
        reuse: put the result into the memory of `values`, which are lost.

    Returns:
        int16 (R, C, 64).

    Raises:
        SettingsError: shapes or ranges do not fit.
    """
    if values.ndim != 3 or values.shape[2] != 64:
        raise SettingsError(f"coefficients have the shape {values.shape}", "give (rows, columns, 64)")
    rows, cols = values.shape[:2]
    steps = _vector("table", table, np.float32, 64)
    if not (steps > 0).all():
        raise SettingsError("a quantisation step is not positive", "steps go from 1 to 65535")
    scale = None if unit is None else _vector("unit", unit, np.float32, 64)
    zones = _field("dead_zone", dead_zone, (rows, cols))
    rates = None if rate_weight is None else _field("rate_weight", rate_weight, (rows, cols))
    kept = np.zeros(64, np.uint8) if exact is None else _vector("exact", exact, np.uint8, 64)
    if reuse and values.flags.c_contiguous:  # what is written of a band never reaches the values of the next one
        result = values.reshape(-1).view(np.int16)[: values.size].reshape(values.shape)
    else:
        result = np.empty(values.shape, np.int16)
    settles = mcu is not None and rates is not None and not kept[0] and rates.max(initial=0) > 0
    ratio = np.empty((rows, cols) if settles else (0, 0), np.float32)
    for top in range(0, rows, _BAND):
        part = slice(top, top + _BAND)
        real = np.ascontiguousarray(_real(values[part], scale))
        rounded = np.empty(real.shape, np.int16)
        status = _native.quantise(
            real.shape[0] * cols,
            real,
            steps,
            zones[part],
            None if rates is None else rates[part],
            STANDARD_CODE_LENGTHS,
            kept,
            rounded,
        )
        if status:
            raise AssertionError(f"quantise: status {status}")
        if settles:
            ratio[part] = real[:, :, 0] / steps[0]
        result[part] = rounded  # last: it may lie where the real values were
    if settles:
        assert mcu is not None
        dc = np.empty((rows, cols), np.int16)
        if _native.settle_dc(rows, cols, *mcu, ratio, rates, dc):
            raise SettingsError(f"{rows}x{cols} blocks are not whole MCUs of {mcu[0]}x{mcu[1]}", "give the padded grid")
        result[:, :, 0] = dc
    return result


def _vector(name: str, given: npt.ArrayLike, dtype: Any, size: int) -> npt.NDArray[Any]:
    array = np.ascontiguousarray(given, dtype).ravel()
    if array.size != size:
        raise SettingsError(f"{name} has {array.size} values", f"give {size}")
    return array


def _field(name: str, given: npt.ArrayLike, grid: tuple[int, ...]) -> npt.NDArray[np.float32]:
    array = np.asarray(given, np.float32)
    if array.shape not in ((), grid):
        raise SettingsError(f"{name} has the shape {array.shape}", f"give one number, or {grid}: one for each block")
    return np.ascontiguousarray(np.broadcast_to(array, grid))


# ---------------------------------------------------------------------------------------------------- writing


def write(image: JpegImage, *, progressive: bool = True, optimise: bool = True) -> bytes:
    """Write coefficients as a JPEG file that decodes to exactly these integers.

    Huffman tables are optimal for each scan (T.81 K.2). Progressive scan scripts are chosen by counting the bits of several:
    with and without successive approximation, with one to three bands, for each component alone. Blocks beside the picture
    get the cheapest code, not the values given. `JFIF` is added where the colour is grey or YCbCr.

    Args:
        image: what to write; tables hold 1..65535.
        progressive: SOF2; else sequential.
        optimise: sequential only: optimal tables instead of the standard's typical ones.

    Raises:
        FormatError: what is given cannot be a JPEG: sizes, tables, segments or coefficients out of range.
    """
    _check(image)
    slots, tables = _slots(image)
    wide = any(int(t.max()) > 255 for t in tables)
    chroma_set = 1 if image.colour in ("ycbcr", "ycck") else 0
    h_max, v_max = max(c.h for c in image.components), max(c.v for c in image.components)
    lone = len(image.components) == 1
    stored = []
    for i, c in enumerate(image.components):
        array = np.ascontiguousarray(c.coefficients)
        own_set = chroma_set if i in (1, 2) else 0
        stored.append((array, *array.shape[:2], c.real_rows, c.real_cols, 1 if lone else c.h, 1 if lone else c.v, c.id, own_set))
    status, scans = _native.encode_scans(
        tuple(stored),
        int(progressive),
        int(optimise),
        _ceil(image.height, 8 * v_max),
        _ceil(image.width, 8 * h_max),
    )
    if status or scans is None:
        raise FormatError("a coefficient is too large for an 8-bit JPEG", "use a coarser table")
    parts = [b"\xff\xd8"]
    parts += [_segment(marker, payload) for marker, payload in _colour_segments(image)]
    body = b"".join(
        (bytes([16 + slot]) + t[ZIGZAG].astype(">u2").tobytes())
        if int(t.max()) > 255
        else bytes([slot]) + t[ZIGZAG].astype(np.uint8).tobytes()
        for slot, t in enumerate(tables)
    )
    parts.append(_segment(_DQT, body))
    frame = struct.pack(">BHHB", 8, image.height, image.width, len(image.components))
    for c, slot in zip(image.components, slots, strict=True):
        frame += bytes([c.id, 0x11 if lone else c.h << 4 | c.v, slot])
    parts.append(_segment(0xC2 if progressive else 0xC1 if wide else 0xC0, frame))
    parts += [scans, b"\xff\xd9"]
    return b"".join(parts)


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def _check(image: JpegImage) -> None:
    if not (1 <= image.width <= 65535 and 1 <= image.height <= 65535):
        raise FormatError(f"{image.width} x {image.height} cannot be a JPEG", "sides go from 1 to 65535 pixels")
    if len(image.components) != {"grey": 1, "ycbcr": 3, "rgb": 3, "cmyk": 4, "ycck": 4}.get(image.colour):
        raise FormatError(f"{len(image.components)} components do not fit the colour {image.colour}", "")
    if len({c.id for c in image.components}) != len(image.components):
        raise FormatError("two components have the same number", "")
    _fill_real_sizes(image.width, image.height, image.components)
    for c in image.components:
        shape = c.coefficients.shape
        if c.coefficients.dtype != np.int16 or len(shape) != 3 or shape[2] != 64:
            raise FormatError(f"coefficients are {c.coefficients.dtype} {shape}", "give int16 (rows, columns, 64)")
        if shape[0] < c.real_rows or shape[1] < c.real_cols:
            raise FormatError(f"{shape[:2]} blocks are fewer than the picture's {(c.real_rows, c.real_cols)}", "")
        if not (1 <= c.h <= 4 and 1 <= c.v <= 4 and 0 <= c.id <= 255) or c.table not in image.tables:
            raise FormatError("a component's sampling, number or table is out of range", "")
    for marker, payload in image.segments:
        if not (0xE0 <= marker <= 0xEF or marker == _COM) or len(payload) > _MAX_PAYLOAD:
            raise FormatError("a metadata segment is too long or no APPn or COM", f"at most {_MAX_PAYLOAD} bytes each")


def _slots(image: JpegImage) -> tuple[list[int], list[npt.NDArray[np.uint16]]]:
    """Each component's slot, and the tables by slot: equal ones are written once."""
    slots: list[int] = []
    tables: list[npt.NDArray[np.uint16]] = []
    for c in image.components:
        table = np.asarray(image.tables[c.table])
        if table.shape != (64,) or not ((table >= 1) & (table <= 65535)).all():
            raise FormatError("a quantisation table is not 64 steps of 1 to 65535", "")
        slot = next((i for i, t in enumerate(tables) if np.array_equal(t, table)), len(tables))
        if slot == len(tables):
            tables.append(table.astype(np.uint16))
        slots.append(slot)
    return slots, tables


def _colour_segments(image: JpegImage) -> list[Segment]:
    """The image's segments, with those that tell decoders the colour put right: JFIF first, Adobe where it is needed."""
    jfif = [p for m, p in image.segments if m == _APP0 and p.startswith(_JFIF)]
    rest = [(m, p) for m, p in image.segments if not (m == _APP0 and p.startswith(_JFIF))]
    adobe = [p for m, p in rest if m == _APP14 and p[:5] == b"Adobe" and len(p) >= 12]
    wanted = {"grey": None, "ycbcr": 1, "rgb": 0, "cmyk": 0, "ycck": 2}[image.colour]
    if adobe and any(p[11] != wanted for p in adobe):
        rest = [(m, p) for m, p in rest if not (m == _APP14 and p[:5] == b"Adobe")]
    kept = any(m == _APP14 and p[:5] == b"Adobe" and len(p) >= 12 for m, p in rest)
    if image.colour in ("grey", "ycbcr"):
        return [(_APP0, jfif[0] if jfif else _PLAIN_JFIF), *rest]
    named = image.colour == "rgb" and tuple(c.id for c in image.components) == tuple(b"RGB")
    # without Adobe's segment CMYK is told by the count alone, and with it decoders take the values for inverted:
    # it is added only where the source had one that contradicted
    need = image.colour == "ycck" or (image.colour == "rgb" and not named) or (image.colour == "cmyk" and bool(adobe))
    if need and not kept:
        rest.insert(0, (_APP14, b"Adobe\0\x64\0\0\0\0" + bytes([wanted or 0])))
    return rest


# ---------------------------------------------------------------------------------------------------- metadata


def metadata_segments(*, icc: bytes | None = None, exif: bytes | None = None, xmp: bytes | None = None) -> list[Segment]:
    """Metadata of another format as JPEG segments; what does not fit into segments is left out.

    Args:
        icc: a colour profile, split as ICC.1 annex B says; at most 255 parts.
        exif: a TIFF structure, with or without its "Exif" header; at most 65527 bytes.
        xmp: a packet; at most 65504 bytes.
    """
    segments: list[Segment] = []
    if exif:
        body = exif if exif.startswith(_EXIF) else _EXIF + exif
        if len(body) <= _MAX_PAYLOAD:
            segments.append((_APP1, body))
    if xmp and len(_XMP) + len(xmp) <= _MAX_PAYLOAD:
        segments.append((_APP1, _XMP + xmp))
    if icc:
        size = _MAX_PAYLOAD - len(_ICC) - 2
        chunks = [icc[i : i + size] for i in range(0, len(icc), size)]
        if len(chunks) <= 255:
            segments += [(_APP2, _ICC + bytes([i + 1, len(chunks)]) + chunk) for i, chunk in enumerate(chunks)]
    return segments


def essential_segments(segments: Sequence[Segment], keep: Literal["none", "essential", "all"]) -> list[Segment]:
    """The segments that a rewritten file should carry.

    Args:
        segments: of the source.
        keep: "none": what the colour needs. "essential": also the ICC profile, the pixel density, and the orientation, as an
            EXIF segment of its own that holds nothing else. "all": everything but thumbnails in JFIF, and indexes of further
            pictures (MPF), which are not written; an orientation is written as one SHORT, which all readers take.

    Malformed EXIF counts as none.
    """
    if keep not in ("none", "essential", "all"):
        raise SettingsError(f"unknown metadata setting {keep!r}", "use none, essential or all")
    kept: list[Segment] = []
    turned = False
    for marker, payload in segments:
        if marker == _APP14 and payload[:5] == b"Adobe" and len(payload) >= 12:
            if keep == "all" or payload[11] != 1:  # 1 says YCbCr, and so does the JFIF segment that is always written
                kept.append((marker, payload))
        elif keep == "none":
            continue
        elif marker == _APP0 and payload.startswith(_JFIF):
            if len(payload) >= 14:
                kept.append((marker, payload[:12] + b"\0\0"))
        elif marker == _APP0 and payload.startswith(b"JFXX\0"):
            continue
        elif marker == _APP2 and payload.startswith(_ICC):
            kept.append((marker, payload))
        elif keep == "essential":
            if marker == _APP1 and payload.startswith(_EXIF) and not turned:
                value = orientation([(marker, payload)])
                turned = True
                if value != 1:
                    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)
                    kept.append((_APP1, _EXIF + tiff))
        elif not (marker == _APP2 and payload.startswith(b"MPF\0")):
            turning = marker == _APP1 and payload.startswith(_EXIF)
            kept.append((marker, _plain_orientation(payload) if turning else payload))
    return kept


def orientation(segments: Sequence[Segment]) -> int:
    """EXIF orientation, 1..8, of the first EXIF segment; 1 where there is none or it is malformed."""
    return exif_orientation(next((p[len(_EXIF) :] for m, p in segments if m == _APP1 and p.startswith(_EXIF)), b""))


def exif_orientation(tiff: bytes) -> int:
    """Orientation, 1..8, of an EXIF block that begins with its byte order; 1 where there is none or it is malformed.

    BYTE, SHORT and LONG count, as cameras write all three; of several values the first does. Read by hand: a broken block must
    cost nothing but itself.
    """
    entry = _orientation_entry(tiff)
    return entry[2] if entry else 1


def _orientation_entry(tiff: bytes) -> tuple[str, int, int] | None:
    """Byte order, place of the orientation's entry in the first directory, and its value 2..8; None where it says nothing."""
    directory = exif_directory(tiff)
    if directory is None:
        return None
    order, offset, count = directory
    for at in range(offset + 2, min(offset + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, at)
        if tag != _ORIENTATION:
            continue
        size, letter = {1: (1, "B"), 3: (2, "H"), 4: (4, "I")}.get(kind, (0, ""))
        if not size or not number:
            return None
        place = at + 8
        if size * number > 4:  # too long for the entry, which then holds their offset
            (place,) = struct.unpack_from(order + "I", tiff, place)
        if place + size > len(tiff):
            return None
        (value,) = struct.unpack_from(order + letter, tiff, place)
        return (order, at, value) if 2 <= value <= 8 else None
    return None


def exif_directory(tiff: bytes) -> tuple[Literal["<", ">"], int, int] | None:
    """Byte order, offset and number of entries of the first directory of an EXIF block; None if there cannot be one."""
    order: Literal["<", ">"]
    if tiff[:4] == b"II*\0":
        order = "<"
    elif tiff[:4] == b"MM\0*":
        order = ">"
    else:
        return None
    if len(tiff) < 8:
        return None
    (offset,) = struct.unpack_from(order + "I", tiff, 4)
    if offset < 8 or offset + 2 > len(tiff):
        return None
    return order, offset, struct.unpack_from(order + "H", tiff, offset)[0]


def _plain_orientation(payload: bytes) -> bytes:
    """An EXIF segment whose orientation is one SHORT, the only form that all readers take; else as it was."""
    tiff = payload[len(_EXIF) :]
    entry = _orientation_entry(tiff)
    if entry is None:
        return payload
    order, at, value = entry
    plain = struct.pack(order + "HHIHH", _ORIENTATION, 3, 1, value, 0)
    return _EXIF + tiff[:at] + plain + tiff[at + 12 :]
