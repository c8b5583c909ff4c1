"""The .vzc format, version 1: framing of one coded image, and packs of many. docs/vzc-format.md specifies each byte.

Payloads are opaque here: `entropy` makes and reads them. Everything works on bytes in memory (or mapped); the only stream is the
one that `PackWriter` may be given.

    image   header (magic, version, flags, model, size, metadata, lengths, checksum), then payload and checksum of each iteration
    pack    header, blocks of 64 images in columns, footer (classes, directory), trailer

Readers check every length against the bytes that are there before they use it, and every limit before they take memory.
"""

from __future__ import annotations

import binascii
import dataclasses
import mmap
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from vizcomp.errors import FormatError, InputError, TooLargeError, TruncatedError, UnsupportedError

MAGIC = b"\xb5VZ"
VERSION = 1
GREY, SIZED, METADATA, PACK = 1, 2, 4, 8  # flags

DEFAULT_SIZE = (32, 32)  # width and height of an image without the flag SIZED
DEFAULT_MAX_PIXELS = 200_000_000
MAX_ITERATIONS = 64
MAX_PAYLOAD = 2**31 - 1  # bytes of one iteration's payload in a file of one image
MAX_SIDE = 2**31 - 1
MAX_ITEMS = 64  # metadata
MAX_NAME = 1024  # bytes
SHORT = 256  # bytes: up to here a checksum is a CRC-16

BLOCK = 64  # images in a block of a pack
MAX_PACKED_PAYLOAD = 2**24 - 1
MAX_PACKED_SIDE = 2**24 - 1
MAX_COUNT = 2**31 - 1
MAX_CLASSES = 65536
END_MARK = b"Z\xb5"

TAG_ALPHA = 2
TAG_NAME = 4

Data = bytes | bytearray | memoryview | mmap.mmap
Ints = npt.NDArray[np.int64]

_AGAIN = "get the file again from where it came"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


# What a file is -----------------------------------------------------------------------------------------------------------------


def kind(data: Data) -> Literal["image", "pack"]:
    """Whether `data`, a file or its first four bytes at least, is one image or a pack.

    Raises:
        FormatError: it is no .vzc file; the message says what it looks like.
        TruncatedError: it is shorter than four bytes, and they begin like a .vzc file.
        UnsupportedError: its version is not 1.
    """
    start = bytes(data[:64])
    if not start.startswith(MAGIC):
        if start and MAGIC.startswith(start):
            raise TruncatedError("the file ends within its header", _AGAIN)
        raise FormatError(f"not a .vzc file: {_looks_like(start)}", "give a file that `vizcomp encode` wrote")
    if len(start) == len(MAGIC):
        raise TruncatedError("the file ends within its header", _AGAIN)
    version, flags = divmod(start[3], 16)
    if version != VERSION:
        raise UnsupportedError(f"version {version} of the .vzc format is not known", "a later vizcomp may read it")
    if not flags & PACK:
        return "image"
    if flags != PACK:
        raise FormatError("the flags of the pack are damaged", _AGAIN)
    return "pack"


_SIGNATURES = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"PK\x03\x04", "a ZIP archive (or .npz, .pt)"),
    (b"\x1f\x8b", "gzip data"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array"),
)


def _looks_like(start: bytes) -> str:
    if not start:
        return "it is empty"
    for signature, what in _SIGNATURES:
        if start.startswith(signature):
            return f"it looks like {what}"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "it looks like a WebP image"
    if start[4:8] == b"ftyp":
        return "it looks like an AVIF or HEIF image" if start[8:11] in (b"avi", b"hei", b"mif") else "it looks like an MP4 file"
    if not start.strip(b"\0"):
        return "it begins with zeros"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as exc:
        text = start[: exc.start].decode("utf-8") if exc.start >= len(start) - 3 else ""  # 64 bytes may end within a character
    if text and not re.search(r"[\x00-\x08\x0e-\x1f]", text):
        return "it looks like text"
    return "it begins with " + start[:4].hex(" ")


# Numbers and checksums ----------------------------------------------------------------------------------------------------------


def write_varint(value: int) -> bytes:
    """The varint of `value`, 0 to 2^63 - 1: 1 to 9 bytes."""
    if not 0 <= value < 2**63:
        raise ValueError(f"a varint holds 0 to 2^63 - 1, not {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_column(values: Sequence[int] | Ints) -> bytes:
    """The column of one or more numbers from 0 up that differ by less than 2^31: smallest, bit width, packed differences."""
    numbers = np.asarray(values, np.int64)
    least = int(numbers.min())
    bits = int(numbers.max() - least).bit_length()
    if least < 0 or bits > 31:
        raise ValueError("a column holds numbers from 0 up that differ by less than 2^31")
    planes = (numbers - least)[:, None] >> np.arange(bits) & 1
    return write_varint(least * 32 + bits) + np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()


def checksum_size(length: int) -> int:
    """Bytes of the short checksum of `length` bytes."""
    return 2 if length <= SHORT else 4


def short_checksum(before: Data, body: Data) -> bytes:
    """The checksum of `body` after `before`: a CRC-16 (two bytes) where `body` has at most 256 bytes, else a CRC-32 (four)."""
    if len(body) <= SHORT:
        return binascii.crc_hqx(body, binascii.crc_hqx(before, 0xFFFF)).to_bytes(2, "little")
    return zlib.crc32(body, zlib.crc32(before)).to_bytes(4, "little")


class _Cursor:
    """Reads fields from `data[at:end]`; `what` names the part for messages, and `short` is the error where it ends early."""

    def __init__(self, data: memoryview, at: int, end: int, what: str, short: type[FormatError] = FormatError) -> None:
        self.data, self.at, self.end, self.what, self.short = data, at, end, what, short

    def damaged(self, why: str) -> FormatError:
        return FormatError(f"{self.what} is damaged: {why}", _AGAIN)

    def take(self, length: int) -> memoryview:
        if length > self.end - self.at:
            if self.short is TruncatedError:
                raise TruncatedError(f"the file ends within {self.what}", _AGAIN)
            raise self.damaged("a field is longer than what is left")
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if not byte and shift:
                    raise self.damaged("a number is not written the shortest way")
                return value
        raise self.damaged("a number is too long")

    def column(self, n: int) -> Ints:
        """n numbers; the caller has checked that n is small or that as many things are there."""
        least, bits = divmod(self.varint(), 32)
        packed = np.frombuffer(self.take((n * bits + 7) // 8), np.uint8)
        values = np.full(n, least, np.int64)
        if not bits:
            return values
        for start in range(0, n, 65536):  # 65,536 values begin at a whole byte; in pieces, since a bit takes a byte here
            part = min(65536, n - start)
            planes = np.unpackbits(packed[start * bits // 8 :][: (part * bits + 7) // 8], bitorder="little")
            for k in range(bits):
                values[start : start + part] += planes[k : part * bits : bits].astype(np.int64) << k
        top = int(values.max()) - least
        if values.min() != least or top.bit_length() != bits or packed[-1] >> ((n * bits - 1) % 8 + 1):
            raise self.damaged("a column is not written the shortest way")
        return values


def check_name(name: str) -> bytes:
    """The UTF-8 bytes of a name that may stand in a file.

    Raises:
        InputError: the name is empty, longer than 1024 bytes, absolute, leads upwards, or has control characters or backslashes.
    """
    problem = _name_problem(name)
    if problem:
        raise InputError(f"{name!r} cannot name an image in a .vzc file: {problem}", "rename the file")
    return name.encode("utf-8")


def _name_problem(name: str) -> str:
    """Why a name is refused, or an empty string. One set of rules for writer and reader."""
    if not name:
        return "it is empty"
    try:
        if len(name.encode("utf-8")) > MAX_NAME:
            return f"it has more than {MAX_NAME} bytes"
    except UnicodeEncodeError:
        return "it is not Unicode"
    if _CONTROL.search(name):
        return "it has control characters or a backslash"
    if name[1:2] == ":":
        return "it begins like a drive of Windows"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it is not a plain relative path"
    return ""


def _decoded_name(raw: bytes, what: str) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError(f"{what}: a name is not UTF-8", _AGAIN) from exc
    problem = _name_problem(name)
    if problem:
        raise FormatError(f"{what}: the name {name!r} is refused, {problem}", "the file may be hostile")
    return name


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLargeError(
            f"{width}x{height} pixels are more than the limit of {max_pixels:,}", "raise the limit if you trust the file"
        )


# One image ----------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of one image says.

    Attributes:
        model: the first four bytes of the SHA-256 of the model's canonical content.
        width, height: pixels, 1 or more.
        grey: whether the source was greyscale.
        lengths: bytes of the payload of each iteration; 1 to 64 of them.
        metadata: pairs of tag (1 or more, rising) and content; `TAG_ALPHA` and `TAG_NAME` are defined.

    Raises:
        ValueError: a value that the format cannot hold, or an odd tag, of which version 1 has none.
    """

    model: bytes
    width: int
    height: int
    lengths: tuple[int, ...]
    grey: bool = False
    metadata: tuple[tuple[int, bytes], ...] = ()

    def __post_init__(self) -> None:
        if len(self.model) != 4:
            raise ValueError("a model's fingerprint has 4 bytes")
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise ValueError(f"no image has {self.width}x{self.height} pixels")
        if not 1 <= len(self.lengths) <= MAX_ITERATIONS:
            raise ValueError(f"a file holds 1 to {MAX_ITERATIONS} iterations, not {len(self.lengths)}")
        if not all(0 <= n <= MAX_PAYLOAD for n in self.lengths):
            raise ValueError("the payload of an iteration has 0 to 2^31 - 1 bytes")
        tags = [tag for tag, _ in self.metadata]
        if len(tags) > MAX_ITEMS or tags != sorted(set(tags)) or any(tag < 2 or tag % 2 for tag in tags):
            raise ValueError(f"metadata are at most {MAX_ITEMS} items with rising even tags from 2")
        name = self.item(TAG_NAME)
        if name is not None and _name_problem(name.decode("utf-8", "surrogateescape")):
            raise ValueError("the name would be refused when read; make it by check_name")

    def to_bytes(self) -> bytes:
        """The header as it stands in a file, checksum included."""
        sized = (self.width, self.height) != DEFAULT_SIZE
        out = bytearray(MAGIC)
        out.append(VERSION << 4 | GREY * self.grey | SIZED * sized | METADATA * bool(self.metadata))
        out += self.model
        if sized:
            out += write_varint(self.width) + write_varint(self.height)
        if self.metadata:
            block = b"".join(write_varint(tag) + write_varint(len(content)) + content for tag, content in self.metadata)
            out += write_varint(len(block)) + block
        last = len(self.lengths) - 1
        for i, length in enumerate(self.lengths):
            out += write_varint(length * 2 + (i < last))
        return bytes(out + short_checksum(b"", out))

    @property
    def iterations(self) -> int:
        return len(self.lengths)

    @property
    def header_bytes(self) -> int:
        """Bytes before the first payload."""
        return len(self.to_bytes())

    @property
    def payload_bytes(self) -> int:
        return sum(self.lengths)

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return self.header_bytes + sum(n + checksum_size(n) for n in self.lengths)

    @property
    def overhead(self) -> int:
        """Bytes of the file that are not payload, metadata included."""
        return self.file_bytes - self.payload_bytes

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where in the file the payload of each iteration begins."""
        starts, at = [], self.header_bytes
        for n in self.lengths:
            starts.append(at)
            at += n + checksum_size(n)
        return tuple(starts)

    def item(self, tag: int) -> bytes | None:
        """The metadata item with this tag, or None."""
        return dict(self.metadata).get(tag)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vzc:
    """A file of one image, checked.

    Attributes:
        header: what the file says it holds.
        chunks: payloads of the first iterations; all of them if `complete`, at least one if not.
        complete: False where the file was cut off, and the caller allowed it.
        problem: one line that says what is missing; empty if complete.
    """

    header: Header
    chunks: tuple[bytes, ...]
    complete: bool = True
    problem: str = ""


def pack(
    chunks: Sequence[Data],
    *,
    model: bytes,
    width: int,
    height: int,
    grey: bool = False,
    metadata: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """The file of one image.

    Args:
        chunks: payload of each iteration, 1 to 64; may be empty bytes.
        model, width, height, grey, metadata: as in `Header`.

    Raises:
        ValueError: a value that the format cannot hold.
    """
    lengths = tuple(len(chunk) for chunk in chunks)
    header = Header(model=model, width=width, height=height, grey=grey, lengths=lengths, metadata=tuple(metadata)).to_bytes()
    parts: list[Data] = [header]
    before: Data = header[-checksum_size(len(header) - 2) :]
    for chunk in chunks:
        before = short_checksum(before, chunk)
        parts += [chunk, before]
    return b"".join(parts)


def read_header(data: Data, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Header:
    """The header of one image, checked; of `data` only the beginning need be there.

    Raises:
        FormatError: `data` is no .vzc file, a pack, or damaged; TruncatedError, UnsupportedError, TooLargeError as they say.
    """
    return _parse_header(memoryview(data), max_pixels)[0]


def _parse_header(view: memoryview, max_pixels: int) -> tuple[Header, bytes, int]:
    """The header, its checksum as stored, and where the first payload begins."""
    if kind(view) == "pack":
        raise FormatError("this .vzc file is a pack of many images", "open it as a pack")
    cursor = _Cursor(view, len(MAGIC), len(view), "its header", TruncatedError)
    flags = cursor.take(1)[0]
    model = bytes(cursor.take(4))
    width, height = (cursor.varint(), cursor.varint()) if flags & SIZED else DEFAULT_SIZE
    block = cursor.take(cursor.varint()) if flags & METADATA else None
    lengths: list[int] = []
    more = 1
    while more:
        if len(lengths) == MAX_ITERATIONS:
            raise cursor.damaged(f"more than {MAX_ITERATIONS} iterations")
        length, more = divmod(cursor.varint(), 2)
        lengths.append(length)
    end = cursor.at
    checksum = bytes(cursor.take(checksum_size(end)))
    if checksum != short_checksum(b"", view[:end]):
        raise FormatError("the checksum of the header does not match", _AGAIN)
    # The checksum holds, so what is wrong from here on was written so.
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE) or (flags & SIZED and (width, height) == DEFAULT_SIZE):
        raise cursor.damaged(f"a size of {width}x{height}")
    if max(lengths) > MAX_PAYLOAD:
        raise cursor.damaged("an iteration is too long")
    metadata = () if block is None else _parse_metadata(block)
    _check_pixels(width, height, max_pixels)
    header = Header(model=model, width=width, height=height, lengths=tuple(lengths), grey=bool(flags & GREY), metadata=metadata)
    return header, checksum, cursor.at


def _parse_metadata(block: memoryview) -> tuple[tuple[int, bytes], ...]:
    cursor = _Cursor(block, 0, len(block), "its metadata block")
    items: list[tuple[int, bytes]] = []
    if not block:
        raise cursor.damaged("it is empty")
    while cursor.at < cursor.end:
        tag = cursor.varint()
        if len(items) == MAX_ITEMS or tag <= (items[-1][0] if items else 0):
            raise cursor.damaged("tags do not rise, or are too many")
        content = bytes(cursor.take(cursor.varint()))
        if tag % 2:
            raise UnsupportedError(f"the file needs a feature that is not known, number {tag}", "a later vizcomp may read it")
        if tag == TAG_NAME:
            _decoded_name(content, cursor.what)
        items.append((tag, content))
    return tuple(items)


def unpack(data: Data, *, max_pixels: int = DEFAULT_MAX_PIXELS, allow_truncated: bool = False) -> Vzc:
    """The file of one image, every checksum compared.

    Args:
        data: the whole file, or what there is of it.
        max_pixels: limit of width * height.
        allow_truncated: return the complete iterations of a file that was cut off, if there is one at least.

    Raises:
        TruncatedError: the file ends early, and that was not allowed or not even the first iteration is complete.
        FormatError: `data` is no .vzc file, a pack, or damaged; the message names the iteration (the first is 1).
        UnsupportedError, TooLargeError: as they say.
    """
    view = memoryview(data)
    header, before, at = _parse_header(view, max_pixels)
    chunks: list[bytes] = []
    problem = ""
    for number, length in enumerate(header.lengths, 1):
        end = at + length + checksum_size(length)
        if end > len(view):
            problem = (
                f"the file ends in iteration {number} of {header.iterations}, {header.file_bytes - len(view)} bytes are missing"
            )
            break
        payload = view[at : at + length]
        checksum = bytes(view[at + length : end])
        if checksum != short_checksum(before, payload):
            raise FormatError(f"the checksum of iteration {number} does not match", _AGAIN)
        chunks.append(bytes(payload))
        before, at = checksum, end
    if problem and not (allow_truncated and chunks):
        raise TruncatedError(problem, f"{len(chunks)} complete iterations can be decoded" if chunks else _AGAIN)
    if at < len(view) and not problem:
        raise FormatError(f"{len(view) - at} bytes follow the last iteration", _AGAIN)
    return Vzc(header=header, chunks=tuple(chunks), complete=not problem, problem=problem)


def pack_alpha(alpha: npt.NDArray[np.uint8]) -> bytes:
    """The content of `TAG_ALPHA` for an opacity plane: uint8 (H, W), 255 = opaque."""
    return zlib.compress(np.ascontiguousarray(alpha, np.uint8).tobytes(), 9)


def unpack_alpha(content: bytes, width: int, height: int) -> npt.NDArray[np.uint8]:
    """The opacity plane in the content of `TAG_ALPHA`: uint8 (height, width), 255 = opaque.

    Raises:
        FormatError: the stream is broken or does not hold exactly width * height bytes.
    """
    stream = zlib.decompressobj()
    try:
        plane = stream.decompress(content, width * height + 1)  # never inflates more than one byte too many
    except zlib.error as exc:
        raise FormatError("the alpha plane is damaged", _AGAIN) from exc
    if len(plane) != width * height or not stream.eof or stream.unused_data:
        raise FormatError(f"the alpha plane does not have {width}x{height} values", _AGAIN)
    return np.frombuffer(plane, np.uint8).reshape(height, width)


# Packs --------------------------------------------------------------------------------------------------------------------------


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
    """Head and tail: the leading and then the trailing bytes that `name` takes from the name before it."""
    most = min(len(before), len(name))
    head = 0
    while head < most and before[head] == name[head]:
        head += 1
    tail = 0
    while tail < most - head and before[-1 - tail] == name[-1 - tail]:
        tail += 1
    return head, tail


class PackWriter:
    """Writes a pack, image by image, in bounded memory where a stream is given.

    Args:
        stream: a buffered binary stream, where bytes go as blocks fill (its OSErrors pass through); without one the pack is
            kept in memory.
        model: the first four bytes of the SHA-256 of the model's canonical content; the same for all images.
        classes: names that labels index.

    Raises:
        InputError: a class name that cannot stand in a file, two that are equal, or too many.
    """

    def __init__(self, stream: BinaryIO | None = None, *, model: bytes, classes: Sequence[str] = ()) -> None:
        if len(model) != 4:
            raise ValueError("a model's fingerprint has 4 bytes")
        if len(classes) > MAX_CLASSES or len(set(classes)) < len(classes):
            raise InputError(f"a pack has at most {MAX_CLASSES} classes, all different", "look through the class folders")
        self._classes = [check_name(name) for name in classes]
        self._stream = stream
        self._parts: list[bytes] = []
        self._waiting: list[PackEntry] = []
        self._sizes: list[int] = []
        self._checksums: list[int] = []
        self._names: set[str] = set()
        self._count = 0
        self._open = True
        self.bytes_written = 0  # so far; blocks that are not full yet do not count
        header = MAGIC + bytes([VERSION << 4 | PACK]) + model
        self._header = header + short_checksum(b"", header)
        self._write(self._header)

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        payload: Data,
        width: int,
        height: int,
        *,
        grey: bool = False,
        iterations: int = 1,
        name: str | None = None,
        label: int | None = None,
    ) -> int:
        """Adds an image and returns its index.

        Args:
            payload: all its iterations, coded together; less than 16 MiB.
            width, height: pixels, 1 to 2^24 - 1.
            grey, iterations, name, label: as in `PackEntry`.

        Raises:
            InputError: a name that cannot stand in a file or is there already, a payload or a pack that is too large.
            ValueError: any other value that the format cannot hold, or `finish` was called.
        """
        if not self._open:
            raise ValueError("the pack is finished")
        if not (1 <= width <= MAX_PACKED_SIDE and 1 <= height <= MAX_PACKED_SIDE and 1 <= iterations <= MAX_ITERATIONS):
            raise ValueError(f"a pack cannot hold {width}x{height} pixels in {iterations} iterations")
        if label is not None and not 0 <= label < len(self._classes):
            raise ValueError(f"label {label}, but {len(self._classes)} classes")
        if len(payload) > MAX_PACKED_PAYLOAD or self._count == MAX_COUNT:
            raise InputError("too large for a pack: less than 16 MiB an image, 2^31 images", "write a file for each image")
        if name is not None:
            check_name(name)
            if name in self._names:
                raise InputError(f"two images are named {name!r}", "a pack needs different names")
            self._names.add(name)
        self._waiting.append(
            PackEntry(
                payload=bytes(payload), width=width, height=height, grey=grey, iterations=iterations, name=name, label=label
            )
        )
        self._count += 1
        if len(self._waiting) == BLOCK:
            self._flush()
        return self._count - 1

    def finish(self) -> bytes:
        """Writes what is left, directory and trailer. Returns the pack, or nothing where a stream was given."""
        if not self._open:
            raise ValueError("the pack is finished")
        self._open = False
        if self._waiting:
            self._flush()
        footer = [write_varint(self._count), write_varint(len(self._classes))]
        footer += [write_varint(len(name)) + name for name in self._classes]
        if self._sizes:
            footer += [write_column(self._sizes), np.asarray(self._checksums, "<u4").tobytes()]
        body = b"".join(footer)
        body += len(body).to_bytes(4, "little")
        self._write(body + zlib.crc32(body, zlib.crc32(self._header)).to_bytes(4, "little") + END_MARK)
        return b"".join(self._parts)

    def _flush(self) -> None:
        images, self._waiting = self._waiting, []
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
        block = b"".join([*map(write_column, columns), *middles, *(image.payload for image in images)])
        self._sizes.append(len(block))
        self._checksums.append(zlib.crc32(block))
        self._write(block)

    def _write(self, data: bytes) -> None:
        if self._stream is None:
            self._parts.append(data)
        else:
            self._stream.write(data)
        self.bytes_written += len(data)


class _Block:
    """The columns of one block, checked; payloads and names stay in the file until they are asked for."""

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

    def __init__(self, data: memoryview, n: int, classes: int, what: str) -> None:
        cursor = _Cursor(data, 0, len(data), what)
        columns = []
        for least, most in self._LIMITS:
            column = cursor.column(n)
            if column.min() < least or column.max() > (classes if most < 0 else most):
                raise cursor.damaged("a number is out of its range")
            columns.append(column)
        self.data, self.what = data, what
        lengths, self.widths, self.heights, self.iterations, self.grey, self.labels, self._heads, self._tails, middles = columns
        self._middles = cursor.at + np.concatenate(([0], np.cumsum(middles)))
        self.starts = self._middles[-1] + np.concatenate(([0], np.cumsum(lengths)))
        if self.starts[-1] != len(data):
            raise cursor.damaged("its length is not that of what it holds")
        self._names: list[str | None] | None = None

    def names(self) -> list[str | None]:
        if self._names is None:
            names: list[str | None] = []
            before = b""
            for i, (head, tail) in enumerate(zip(self._heads.tolist(), self._tails.tolist(), strict=True)):
                middle = bytes(self.data[self._middles[i] : self._middles[i + 1]])
                name = before[:head] + middle + before[max(len(before) - tail, 0) :]
                if (head, tail) != _shared(before, name):
                    raise FormatError(f"{self.what}: a name is not written the shortest way", _AGAIN)
                names.append(_decoded_name(name, self.what) if name else None)
                before = name
            self._names = names
        return self._names


class PackReader:
    """Random access to the images of a pack, by index and by name.

    Opening checks header, footer and directory; the checksum of a block is compared when one of its images is first asked for, so
    that a damaged block costs its own images only. A reader must not be used by several threads at once.

    Args:
        data: the whole pack: bytes, or a mapped file. It is not copied.
        max_pixels: limit of width * height of an image.

    Attributes:
        model: fingerprint of the model, four bytes.
        classes: names that labels index.
        blocks: number of blocks.

    Raises:
        FormatError: `data` is no .vzc file, one image, or damaged.
        TruncatedError: the end mark is missing.
        UnsupportedError: another version.
    """

    _KEPT = 16  # blocks whose columns are kept

    def __init__(self, data: Data, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        view = memoryview(data)
        if kind(view) != "pack":
            raise FormatError("this .vzc file is one image, not a pack", "decode it as an image")
        head = len(MAGIC) + 1 + 4 + 2
        if len(view) < head:
            raise TruncatedError("the file ends within its header", _AGAIN)
        if view[head - 2 : head] != short_checksum(b"", view[: head - 2]):
            raise FormatError("the checksum of the header does not match", _AGAIN)
        if view[-len(END_MARK) :] != END_MARK or len(view) < head + 12:
            raise TruncatedError("the pack has no end mark: it was cut off, or something was added", _AGAIN)
        trailer = len(view) - 10
        length = int.from_bytes(view[trailer : trailer + 4], "little")
        start = trailer - length
        if start < head:
            raise FormatError("the footer is damaged: it is longer than the file", _AGAIN)
        if zlib.crc32(view[start : trailer + 4], zlib.crc32(view[:head])) != int.from_bytes(view[-6:-2], "little"):
            raise FormatError("the checksum of the footer does not match", _AGAIN)
        self.model = bytes(view[4:8])
        cursor = _Cursor(view, start, trailer, "the footer")
        self._count = cursor.varint()
        classes = cursor.varint()
        if self._count > MAX_COUNT or classes > MAX_CLASSES:
            raise cursor.damaged("too many images or classes")
        self.classes = tuple(_decoded_name(bytes(cursor.take(cursor.varint())), cursor.what) for _ in range(classes))
        if len(set(self.classes)) < classes:
            raise cursor.damaged("two classes have the same name")
        self.blocks = -(-self._count // BLOCK)
        if self.blocks * 4 > trailer - cursor.at:  # before the directory takes memory
            raise cursor.damaged("more images than the directory has room for")
        sizes = cursor.column(self.blocks) if self.blocks else np.zeros(0, np.int64)
        self._checksums = np.frombuffer(cursor.take(self.blocks * 4), "<u4")
        if cursor.at != trailer:
            raise cursor.damaged("bytes follow the directory")
        if sizes.size and int(sizes.max()) > len(view):  # so that their sum cannot overflow
            raise cursor.damaged("a block is longer than the file")
        self._starts = head + np.concatenate(([0], np.cumsum(sizes)))
        if self._starts[-1] != start:
            raise cursor.damaged("the blocks do not fill the file")
        self._view = view
        self._max_pixels = max_pixels
        self._checked = bytearray(self.blocks)
        self._kept: dict[int, _Block] = {}
        self._index: tuple[Ints, Ints] | None = None
        self._unnamed: list[int] = []  # blocks that were damaged when the index was made

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PackEntry]:
        return (self.entry(i) for i in range(self._count))

    def _block(self, number: int) -> _Block:
        kept = self._kept.get(number)
        if kept is not None:
            return kept
        first, n = number * BLOCK, min(BLOCK, self._count - number * BLOCK)
        what = f"block {number} (images {first} to {first + n - 1})"
        data = self._view[self._starts[number] : self._starts[number + 1]]
        if not self._checked[number]:
            if zlib.crc32(data) != self._checksums[number]:
                raise FormatError(f"the checksum of {what} does not match", "other blocks can be read")
            self._checked[number] = 1
        block = _Block(data, n, len(self.classes), what)
        if len(self._kept) >= self._KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[number] = block
        return block

    def _find(self, i: int) -> tuple[_Block, int]:
        if not 0 <= i < self._count:
            raise IndexError(f"image {i} of a pack of {self._count}")
        number, k = divmod(i, BLOCK)
        return self._block(number), k

    def payload(self, i: int) -> bytes:
        """The payload of image i, counted from 0. Raises FormatError where its block is damaged, IndexError outside the pack."""
        block, k = self._find(i)
        return bytes(block.data[block.starts[k] : block.starts[k + 1]])

    def size(self, i: int) -> tuple[int, int]:
        """Width and height of image i, pixels. Raises as `payload`, and TooLargeError beyond the limit."""
        block, k = self._find(i)
        width, height = int(block.widths[k]), int(block.heights[k])
        _check_pixels(width, height, self._max_pixels)
        return width, height

    def name(self, i: int) -> str | None:
        """Name of image i, if it has one. Raises as `payload`."""
        block, k = self._find(i)
        return block.names()[k]

    def label(self, i: int) -> int | None:
        """Class of image i, an index into `classes`, if it has one. Raises as `payload`."""
        block, k = self._find(i)
        return int(block.labels[k]) - 1 if block.labels[k] else None

    def entry(self, i: int) -> PackEntry:
        """All of image i. Raises as `payload` and `size`."""
        block, k = self._find(i)
        width, height = self.size(i)
        return PackEntry(
            payload=self.payload(i),
            width=width,
            height=height,
            grey=bool(block.grey[k]),
            iterations=int(block.iterations[k]),
            name=self.name(i),
            label=self.label(i),
        )

    def index_of(self, name: str) -> int:
        """Index of the image with this name. The first call reads all names and keeps 16 bytes for each.

        Raises:
            InputError: no image has it.
            FormatError: no image of a good block has it, and some blocks are damaged; or two images have the same name.
        """
        hashes, images = self._index or self._make_index()
        wanted = hash(name)
        for at in range(int(np.searchsorted(hashes, wanted)), len(hashes)):
            if hashes[at] != wanted:
                break
            if self.name(int(images[at])) == name:
                return int(images[at])
        if self._unnamed:
            raise FormatError(f"no image is named {name!r} where names can be read: block {self._unnamed[0]} is damaged", _AGAIN)
        raise InputError(f"the pack has no image named {name!r}", "names are relative paths, as `vizcomp info` lists them")

    def _make_index(self) -> tuple[Ints, Ints]:
        parts: list[Ints] = []
        unnamed = []
        for number in range(self.blocks):
            try:
                names = self._block(number).names()
            except FormatError:
                unnamed.append(number)
                continue
            pairs = [(hash(name), number * BLOCK + k) for k, name in enumerate(names) if name is not None]
            parts.append(np.asarray(pairs, np.int64).reshape(-1, 2))
        table = np.concatenate([np.zeros((0, 2), np.int64), *parts])
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        for at in np.flatnonzero(table[1:, 0] == table[:-1, 0]):
            one, two = int(table[at, 1]), int(table[at + 1, 1])
            if self.name(one) == self.name(two):
                raise FormatError(f"images {one} and {two} have the same name", "the file may be hostile")
        self._unnamed = unnamed
        self._index = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
        return self._index

    def check(self) -> list[str]:
        """Reads everything and returns one line for each damaged block; none if all is well."""
        problems = []
        for number in range(self.blocks):
            try:
                block = self._block(number)
                block.names()
                k = int(np.argmax(block.widths * block.heights))
                _check_pixels(int(block.widths[k]), int(block.heights[k]), self._max_pixels)
            except FormatError as exc:
                problems.append(exc.message)
        return problems

    def close(self) -> None:
        """Lets go of `data`, so that a mapped file can be closed. Images can not be read after that."""
        self._kept.clear()
        self._checksums = np.zeros(0, np.uint32)
        self._view.release()

    def __enter__(self) -> PackReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
