"""Where the parts of a pack lie: version 2 in sections that stand for themselves, version 1 by its
footer."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from vizcomp.errors import FormatError, TruncatedError
from vizcomp.vzc.fields import (
    GET_AGAIN,
    MAGIC,
    PACK,
    PACK_VERSION,
    Cursor,
    Ints,
    decoded_name,
    short_checksum,
    write_column,
    write_varint,
)

BLOCK = 64  # images in a block of a pack
MAX_COUNT = 2**31 - 1
MAX_CLASSES = 65536
MAX_SECTION = 2**32 - 1  # bytes
END_MARK = b"Z\xb5"
MARK = b"\xb5S"  # before each section
CLASSES, MODEL, IMAGES, DIRECTORY = 1, 2, 3, 4  # kinds of sections
HEADER = len(MAGIC) + 1 + 4 + 2
SECTION_HEAD = len(MARK) + 1 + 4 + 4  # mark, kind, length, checksum
_TRAILER = 4 + len(END_MARK)  # where the directory begins, counted from the end mark


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The parts of a pack.

    Attributes:
        model: fingerprint of the model, four bytes.
        count: of images; of a pack that was cut off, those of its whole blocks.
        classes: names that labels index.
        spans: where each block begins and ends.
        checksum: of block k, (what it is, what it should be).
        model_file: where the model's own file lies in the pack; None where it is not in it.
        model_checksum: of it, as `checksum`.
        problem: one line about what is missing; "" for a whole pack.
    """

    model: bytes
    count: int
    classes: tuple[str, ...]
    spans: Sequence[tuple[int, int]]
    checksum: Callable[[int], tuple[int, int]]
    model_file: tuple[int, int] | None = None
    model_checksum: Callable[[], tuple[int, int]] = lambda: (0, 0)
    problem: str = ""


def pack_header(model: bytes) -> bytes:
    """The first ten bytes of a pack."""
    header = MAGIC + bytes([PACK_VERSION << 4 | PACK]) + model
    return header + short_checksum(b"", header)


def section(header: bytes, number: int, kind: int, body: bytes) -> bytes:
    """One section of a pack: mark, kind, length, checksum, body.

    Args:
        header: of the pack; it goes into the checksum, as the section's number does, so that none
            can stand elsewhere.
        number: of the section, from 0.
        kind: one of `CLASSES`, `MODEL`, `IMAGES`, `DIRECTORY`.
    """
    head = bytes([kind]) + len(body).to_bytes(4, "little")
    return MARK + head + _checksum(header, number, head, body).to_bytes(4, "little") + body


def class_list(classes: Sequence[bytes]) -> bytes:
    """The body of a section of class names."""
    return write_varint(len(classes)) + b"".join(write_varint(len(name)) + name for name in classes)


def directory(count: int, sections: Sequence[tuple[int, int]]) -> bytes:
    """The body of the directory: the number of images, and kind and size of each section before
    it."""
    body = write_varint(count) + write_varint(len(sections))
    if sections:
        body += write_column([kind for kind, _ in sections]) + write_column(
            [size for _, size in sections]
        )
    return body


def trailer(length: int) -> bytes:
    """The last bytes of a pack: how long the directory's section is, and the end mark."""
    return length.to_bytes(4, "little") + END_MARK


def read_layout(view: memoryview, *, allow_truncated: bool = False) -> Layout:
    """The layout of a pack of either version.

    Args:
        allow_truncated: of a pack that was cut off, or whose directory is damaged, give the
            sections that are whole.

    Raises:
        FormatError: the header is damaged; the directory, without `allow_truncated`.
        TruncatedError: it was cut off; with `allow_truncated`, within its header, or it is of
            version 1.
    """
    if len(view) < HEADER:
        raise TruncatedError("the file ends within its header", GET_AGAIN)
    if view[HEADER - 2 : HEADER] != short_checksum(b"", view[: HEADER - 2]):
        raise FormatError("the checksum of the header does not match", GET_AGAIN)
    if view[len(MAGIC)] >> 4 == 1:
        return _version_1(view)
    try:
        return _by_directory(view)
    except FormatError as exc:
        if not allow_truncated:
            raise
        return _by_marks(view, exc.message)


def _checksum(
    header: bytes | memoryview, number: int, head: bytes | memoryview, body: bytes | memoryview
) -> int:
    return zlib.crc32(
        body, zlib.crc32(head, zlib.crc32(number.to_bytes(4, "little"), zlib.crc32(header)))
    )


@dataclasses.dataclass(frozen=True)
class _Section:
    """A section in a file: its number, its kind, and where its body begins and ends."""

    number: int
    kind: int
    start: int
    end: int


def _section_at(view: memoryview, at: int, number: int) -> _Section:
    """The section that begins at `at`; its checksum is not compared."""
    if at + SECTION_HEAD > len(view):
        raise TruncatedError(f"the file ends within section {number}", GET_AGAIN)
    if view[at : at + 2] != MARK:
        raise FormatError(f"section {number} has no mark", GET_AGAIN)
    start = at + SECTION_HEAD
    end = start + int.from_bytes(view[at + 3 : at + 7], "little")
    if end > len(view):
        raise TruncatedError(f"the file ends within section {number}", GET_AGAIN)
    return _Section(number, view[at + 2], start, end)


def _sums(view: memoryview, part: _Section) -> tuple[int, int]:
    """What a section's checksum is, and what it should be."""
    at = part.start - SECTION_HEAD
    is_now = _checksum(
        view[:HEADER], part.number, view[at + 2 : at + 7], view[part.start : part.end]
    )
    if view[at : at + 2] != MARK:
        is_now = -1
    return is_now, int.from_bytes(view[at + 7 : at + 11], "little")


def _checked(view: memoryview, part: _Section, what: str) -> memoryview:
    is_now, should = _sums(view, part)
    if is_now != should:
        raise FormatError(f"the checksum of {what} does not match", GET_AGAIN)
    return view[part.start : part.end]


def _by_directory(view: memoryview) -> Layout:
    if view[-len(END_MARK) :] != END_MARK or len(view) < HEADER + SECTION_HEAD + _TRAILER:
        raise TruncatedError(
            "the pack has no end mark: it was cut off, or something was added", GET_AGAIN
        )
    length = int.from_bytes(view[-_TRAILER : -len(END_MARK)], "little")
    at = len(view) - _TRAILER - length
    if at < HEADER or length < SECTION_HEAD:
        raise FormatError("the directory is damaged: it is longer than the file", GET_AGAIN)
    # Its number is that of the sections that it lists, which is inside; its checksum tells whether
    # that is so.
    body = view[at + SECTION_HEAD : at + length]
    cursor = Cursor(body, 0, len(body), "the directory")
    count, many = cursor.varint(), cursor.varint()
    if count > MAX_COUNT or many > len(view) // SECTION_HEAD:
        raise cursor.damaged("more images or sections than the file has room for")
    part = _section_at(view, at, many)
    if part.kind != DIRECTORY or part.end != at + length:
        raise FormatError(
            "the directory is damaged: its place is not where the file says", GET_AGAIN
        )
    _checked(view, part, "the directory")
    kinds = cursor.column(many) if many else np.zeros(0, np.int64)
    sizes = cursor.column(many) if many else np.zeros(0, np.int64)
    if cursor.at != len(body):
        raise cursor.damaged("bytes follow it")
    sections = list(_listed(kinds, sizes, at))
    return _layout(view, sections, count, "")


def _listed(kinds: Ints, sizes: Ints, end: int) -> Iterator[_Section]:
    """The sections that a directory lists; they fill the file up to the directory."""
    at = HEADER
    for number, (kind, size) in enumerate(zip(kinds.tolist(), sizes.tolist(), strict=True)):
        if kind not in (CLASSES, MODEL, IMAGES):
            raise FormatError(
                f"the directory lists a section of the unknown kind {kind}", GET_AGAIN
            )
        yield _Section(number, kind, at + SECTION_HEAD, at + SECTION_HEAD + size)
        at += SECTION_HEAD + size
        if at > end:
            break
    if at != end:
        raise FormatError("the directory is damaged: the sections do not fill the file", GET_AGAIN)


def _by_marks(view: memoryview, why: str) -> Layout:
    """The whole sections from the beginning up to the first that is cut off; a damaged one in
    between counts as damaged."""
    sections: list[_Section] = []
    at = HEADER
    while True:
        try:
            part = _section_at(view, at, len(sections))
        except FormatError:
            break
        if part.kind == DIRECTORY:
            break
        is_now, should = _sums(view, part)
        if is_now != should and part.end != len(view) and view[part.end : part.end + 2] != MARK:
            break  # its length may be what is damaged
        sections.append(part)
        at = part.end
    blocks = [part for part in sections if part.kind == IMAGES]
    # how many images the last one has is written in it
    while blocks and len(set(_sums(view, blocks[-1]))) > 1:
        sections.remove(blocks.pop())
    last = (
        Cursor(view, blocks[-1].start, blocks[-1].end, "the last block").varint() if blocks else 0
    )
    count = BLOCK * max(0, len(blocks) - 1) + min(last, BLOCK)
    lost = len(view) - at
    return _layout(
        view,
        sections,
        count,
        f"{why}; {count} images of whole blocks are left, {lost} bytes cannot be read",
    )


def _layout(view: memoryview, sections: Sequence[_Section], count: int, problem: str) -> Layout:
    of = {
        kind: [part for part in sections if part.kind == kind] for kind in (CLASSES, MODEL, IMAGES)
    }
    if len(of[CLASSES]) > 1 or len(of[MODEL]) > 1:
        raise FormatError("the pack has a section twice that may be there once", GET_AGAIN)
    blocks = of[IMAGES]
    if len(blocks) != -(-count // BLOCK):
        raise FormatError(
            f"the directory is damaged: {count} images in {len(blocks)} blocks", GET_AGAIN
        )
    classes: tuple[str, ...] = ()
    if of[CLASSES]:
        body = _checked(view, of[CLASSES][0], "the class names")
        cursor = Cursor(body, 0, len(body), "the list of classes")
        classes = _classes(cursor, cursor.varint())
        if cursor.at != len(body):
            raise cursor.damaged("bytes follow the names")
    return Layout(
        model=bytes(view[4:8]),
        count=count,
        classes=classes,
        spans=[(part.start, part.end) for part in blocks],
        checksum=lambda k: _sums(view, blocks[k]),
        model_file=(of[MODEL][0].start, of[MODEL][0].end) if of[MODEL] else None,
        model_checksum=lambda: _sums(view, of[MODEL][0]) if of[MODEL] else (0, 0),
        problem=problem,
    )


def _classes(cursor: Cursor, many: int) -> tuple[str, ...]:
    if many > MAX_CLASSES:
        raise cursor.damaged("too many images or classes")
    classes = tuple(
        decoded_name(bytes(cursor.take(cursor.varint())), cursor.what) for _ in range(many)
    )
    if len(set(classes)) < many:
        raise cursor.damaged("two classes have the same name")
    return classes


def _version_1(view: memoryview) -> Layout:
    if view[-len(END_MARK) :] != END_MARK or len(view) < HEADER + 12:
        raise TruncatedError(
            "the pack has no end mark: it was cut off, or something was added", GET_AGAIN
        )
    end = len(view) - 10
    length = int.from_bytes(view[end : end + 4], "little")
    start = end - length
    if start < HEADER:
        raise FormatError("the footer is damaged: it is longer than the file", GET_AGAIN)
    if zlib.crc32(view[start : end + 4], zlib.crc32(view[:HEADER])) != int.from_bytes(
        view[-6:-2], "little"
    ):
        raise FormatError("the checksum of the footer does not match", GET_AGAIN)
    cursor = Cursor(view, start, end, "the footer")
    count, many = cursor.varint(), cursor.varint()
    if count > MAX_COUNT:
        raise cursor.damaged("too many images or classes")
    classes = _classes(cursor, many)
    blocks = -(-count // BLOCK)
    if blocks * 4 > end - cursor.at:  # before the directory takes memory
        raise cursor.damaged("more images than the directory has room for")
    sizes = cursor.column(blocks) if blocks else np.zeros(0, np.int64)
    checksums = np.frombuffer(cursor.take(blocks * 4), "<u4").copy()
    if cursor.at != end:
        raise cursor.damaged("bytes follow the directory")
    if sizes.size and int(sizes.max()) > len(view):  # so that their sum cannot overflow
        raise cursor.damaged("a block is longer than the file")
    starts = (HEADER + np.concatenate(([0], np.cumsum(sizes)))).tolist()
    if starts[-1] != start:
        raise cursor.damaged("the blocks do not fill the file")
    spans = list(itertools.pairwise(starts))
    return Layout(
        model=bytes(view[4:8]),
        count=count,
        classes=classes,
        spans=spans,
        checksum=lambda k: (zlib.crc32(view[slice(*spans[k])]), int(checksums[k])),
    )
