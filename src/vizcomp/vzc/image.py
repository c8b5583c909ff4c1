"""One image in a .vzc file, version 1: what kind of file it is, its header, its payloads.
docs/vzc-format.md specifies each byte.

Payloads are opaque here: `coding` makes and reads them. Everything works on bytes in memory (or
mapped).

    image   header (magic, version, flags, model, size, metadata, lengths, checksum), then
            payload and checksum of each iteration

Readers check every length against the bytes that are there before they use it, and every limit
before they take memory.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from vizcomp.errors import FormatError, TruncatedError, UnsupportedError
from vizcomp.vzc.fields import (
    DEFAULT_MAX_PIXELS,
    DEFAULT_SIZE,
    GET_AGAIN,
    GREY,
    MAGIC,
    MAX_ITEMS,
    MAX_ITERATIONS,
    MAX_PAYLOAD,
    MAX_SIDE,
    METADATA,
    PACK,
    PACK_VERSION,
    SIZED,
    TAG_NAME,
    VERSION,
    Cursor,
    Data,
    check_pixels,
    checksum_size,
    decoded_name,
    name_problem,
    short_checksum,
    write_varint,
)


def kind(data: Data) -> Literal["image", "pack"]:
    """Whether `data`, a file or its first four bytes at least, is one image or a pack.

    Raises:
        FormatError: it is no .vzc file; the message says what it looks like.
        TruncatedError: it is shorter than four bytes, and they begin like a .vzc file.
        UnsupportedError: its version is not known.
    """
    start = bytes(data[:64])
    if not start.startswith(MAGIC):
        if start and MAGIC.startswith(start):
            raise TruncatedError("the file ends within its header", GET_AGAIN)
        raise FormatError(
            f"not a .vzc file: {_looks_like(start)}", "give a file that `vizcomp encode` wrote"
        )
    if len(start) == len(MAGIC):
        raise TruncatedError("the file ends within its header", GET_AGAIN)
    version, flags = divmod(start[3], 16)
    if version not in ((1, PACK_VERSION) if flags & PACK else (VERSION,)):
        raise UnsupportedError(
            f"version {version} of the .vzc format is not known", "a later vizcomp may read it"
        )
    if not flags & PACK:
        return "image"
    if flags != PACK:
        raise FormatError("the flags of the pack are damaged", GET_AGAIN)
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
        return (
            "it looks like an AVIF or HEIF image"
            if start[8:11] in (b"avi", b"hei", b"mif")
            else "it looks like an MP4 file"
        )
    if not start.strip(b"\0"):
        return "it begins with zeros"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as exc:
        # 64 bytes may end within a character
        text = start[: exc.start].decode("utf-8") if exc.start >= len(start) - 3 else ""
    if text and not re.search(r"[\x00-\x08\x0e-\x1f]", text):
        return "it looks like text"
    return "it begins with " + start[:4].hex(" ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of one image says.

    Attributes:
        model: the first four bytes of the SHA-256 of the model's canonical content.
        width, height: pixels, 1 or more.
        grey: whether the source was greyscale.
        lengths: bytes of the payload of each iteration; 1 to 64 of them.
        metadata: pairs of tag (1 or more, rising) and content; `TAG_ALPHA` and `TAG_NAME` are
            defined.

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
            raise ValueError(
                f"a file holds 1 to {MAX_ITERATIONS} iterations, not {len(self.lengths)}"
            )
        if not all(0 <= n <= MAX_PAYLOAD for n in self.lengths):
            raise ValueError("the payload of an iteration has 0 to 2^31 - 1 bytes")
        tags = [tag for tag, _ in self.metadata]
        if (
            len(tags) > MAX_ITEMS
            or tags != sorted(set(tags))
            or any(tag < 2 or tag % 2 for tag in tags)
        ):
            raise ValueError(f"metadata are at most {MAX_ITEMS} items with rising even tags from 2")
        name = self.item(TAG_NAME)
        if name is not None and name_problem(name.decode("utf-8", "surrogateescape")):
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
            block = b"".join(
                write_varint(tag) + write_varint(len(content)) + content
                for tag, content in self.metadata
            )
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
    header = Header(
        model=model,
        width=width,
        height=height,
        grey=grey,
        lengths=lengths,
        metadata=tuple(metadata),
    ).to_bytes()
    parts: list[Data] = [header]
    before: Data = header[-checksum_size(len(header) - 2) :]
    for chunk in chunks:
        before = short_checksum(before, chunk)
        parts += [chunk, before]
    return b"".join(parts)


def read_header(data: Data, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Header:
    """The header of one image, checked; of `data` only the beginning need be there.

    Raises:
        FormatError: `data` is no .vzc file, a pack, or damaged; TruncatedError, UnsupportedError,
            TooLargeError as they say.
    """
    return _parse_header(memoryview(data), max_pixels)[0]


def _parse_header(view: memoryview, max_pixels: int) -> tuple[Header, bytes, int]:
    """The header, its checksum as stored, and where the first payload begins."""
    if kind(view) == "pack":
        raise FormatError("this .vzc file is a pack of many images", "open it as a pack")
    cursor = Cursor(view, len(MAGIC), len(view), "its header", TruncatedError)
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
        raise FormatError("the checksum of the header does not match", GET_AGAIN)
    # The checksum holds, so what is wrong from here on was written so.
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE) or (
        flags & SIZED and (width, height) == DEFAULT_SIZE
    ):
        raise cursor.damaged(f"a size of {width}x{height}")
    if max(lengths) > MAX_PAYLOAD:
        raise cursor.damaged("an iteration is too long")
    metadata = () if block is None else _parse_metadata(block)
    check_pixels(width, height, max_pixels)
    header = Header(
        model=model,
        width=width,
        height=height,
        lengths=tuple(lengths),
        grey=bool(flags & GREY),
        metadata=metadata,
    )
    return header, checksum, cursor.at


def _parse_metadata(block: memoryview) -> tuple[tuple[int, bytes], ...]:
    cursor = Cursor(block, 0, len(block), "its metadata block")
    items: list[tuple[int, bytes]] = []
    if not block:
        raise cursor.damaged("it is empty")
    while cursor.at < cursor.end:
        tag = cursor.varint()
        if len(items) == MAX_ITEMS or tag <= (items[-1][0] if items else 0):
            raise cursor.damaged("tags do not rise, or are too many")
        content = bytes(cursor.take(cursor.varint()))
        if tag % 2:
            raise UnsupportedError(
                f"the file needs a feature that is not known, number {tag}",
                "a later vizcomp may read it",
            )
        if tag == TAG_NAME:
            decoded_name(content, cursor.what)
        items.append((tag, content))
    return tuple(items)


def unpack(
    data: Data, *, max_pixels: int = DEFAULT_MAX_PIXELS, allow_truncated: bool = False
) -> Vzc:
    """The file of one image, every checksum compared.

    Args:
        data: the whole file, or what there is of it.
        max_pixels: limit of width * height.
        allow_truncated: return the complete iterations of a file that was cut off, if there is one
            at least.

    Raises:
        TruncatedError: the file ends early, and that was not allowed or not even the first
            iteration is complete.
        FormatError: `data` is no .vzc file, a pack, or damaged; the message names the iteration
            (the first is 1).
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
                f"the file ends in iteration {number} of {header.iterations},"
                f" {header.file_bytes - len(view)} bytes are missing"
            )
            break
        payload = view[at : at + length]
        checksum = bytes(view[at + length : end])
        if checksum != short_checksum(before, payload):
            raise FormatError(f"the checksum of iteration {number} does not match", GET_AGAIN)
        chunks.append(bytes(payload))
        before, at = checksum, end
    if problem and not (allow_truncated and chunks):
        raise TruncatedError(
            problem, f"{len(chunks)} complete iterations can be decoded" if chunks else GET_AGAIN
        )
    if at < len(view) and not problem:
        raise FormatError(f"{len(view) - at} bytes follow the last iteration", GET_AGAIN)
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
        # never inflates more than one byte too many
        plane = stream.decompress(content, width * height + 1)
    except zlib.error as exc:
        raise FormatError("the alpha plane is damaged", GET_AGAIN) from exc
    if len(plane) != width * height or not stream.eof or stream.unused_data:
        raise FormatError(f"the alpha plane does not have {width}x{height} values", GET_AGAIN)
    return np.frombuffer(plane, np.uint8).reshape(height, width)
