"""Tar archives of WebDataset: photos replaced, all else byte for byte.

A member is a run of blocks of 512 bytes: headers of its own that some archives put first (a long
name, POSIX records), its header, its content, zeros up to a whole block. Of a photo that is
replaced, the content and what tells its size and name are written anew; every other block is
copied: owner, times and modes, other members, links, their order, the end of the archive.

WebDataset takes what comes after the first dot of a member's base name for its extension: of
`0001.jpg` that is `jpg`, of `0001.seg.png` it is `seg.png`. Photos are the members whose whole
extension is that of a photo, so masks and maps stay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from vizcomp.datasets.archive import MAX_ARCHIVE, BoundedStream, archive_errors, cut_off
from vizcomp.datasets.labelled import MAX_FILE, MAX_MEMBERS
from vizcomp.errors import FormatError, InputError, TooLargeError
from vizcomp.files.find import EXTENSIONS
from vizcomp.files.place import disk_cause, printable
from vizcomp.shards.shard import Member, Replaced

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE  # archives are usually padded to a multiple of this
_COPY = 1 << 20
_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")  # as tarfile reads them: "length key=value\n"


@dataclasses.dataclass(frozen=True)
class _Photo:
    """Where a photo lies: its headers from `start`, its content from `offset`, the next member at
    `end`."""

    name: str
    start: int
    offset: int
    size: int
    end: int
    fixed: str = ""


class TarShard:
    """A tar archive, uncompressed; arguments and errors as of `open_shard`."""

    def __init__(self, path: Path, shown: str, fields: Sequence[str] = ()) -> None:
        self.shown = shown
        self._fields = frozenset(name.lower().removeprefix(".") for name in fields)
        try:
            self._file = path.open("rb")
        except OSError as exc:
            raise InputError(
                f"{shown} cannot be opened: {disk_cause(exc)}", "check the path and its permissions"
            ) from exc
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._check_head()
            self.photos = self._listed()
        except BaseException:
            self._file.close()
            raise

    def _check_head(self) -> None:
        head = self._file.read(BLOCK)
        if not head:
            raise InputError(f"{self.shown} is empty", "copy or download it again")
        if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise FormatError(
                f"{self.shown} is compressed as a whole",
                "unpack it to a plain .tar first: photos do not get smaller by that",
            )
        if head[257:262] != b"ustar" and any(head):
            raise FormatError(f"{self.shown} is no tar archive", "shards are plain .tar files")

    def _listed(self) -> list[_Photo]:
        stream = BoundedStream(self._file, self.shown)
        photos: list[_Photo] = []
        names: set[str] = set()
        kinds: set[str] = set()
        self._file.seek(0)
        with archive_errors(self.shown):
            tar = tarfile.TarFile(fileobj=stream, mode="r")  # type: ignore[arg-type]
            start = 0
            for count in range(MAX_MEMBERS + 1):
                stream.begin_header()
                member = tar.next()
                if member is None:
                    break
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                if member.size < 0 or member.offset_data < start:
                    raise FormatError(f"{self.shown} is broken: a file of {member.size} bytes")
                if count == MAX_MEMBERS or member.offset_data + member.size > MAX_ARCHIVE:
                    raise TooLargeError(f"{self.shown} holds more than a shard may", "split it")
                end = tar.offset
                names.add(member.name)
                if member.isreg() and not member.issparse():
                    extension = _extension(member.name)
                    kinds.add(extension)
                    if self._holds_photo(extension):
                        photos.append(
                            _Photo(member.name, start, member.offset_data, member.size, end)
                        )
                start = end
            self._end = start
            stream.begin_data()
            stream.seek(tar.offset)
            # tarfile takes a cut inside a header for the end
            if stream.read(BLOCK) != bytes(BLOCK):
                raise cut_off(self.shown)
        if not photos:
            there = ", ".join(sorted(filter(None, kinds))[:8]) or "nothing"
            raise InputError(
                f"{self.shown} holds no photos (its extensions: {printable(there)})",
                "name those of photos with `fields`",
            )
        taken = [
            name for name, count in _counts(photo.name for photo in photos).items() if count > 1
        ]
        return [_fixed(photo, names, frozenset(taken)) for photo in photos]

    def _holds_photo(self, extension: str) -> bool:
        return extension in self._fields if self._fields else "." + extension in EXTENSIONS

    def members(self) -> Iterator[Member]:
        for photo in self.photos:
            if photo.size > MAX_FILE:
                yield Member(
                    photo.name,
                    b"",
                    _suffix(photo.name),
                    f"it has {photo.size} bytes, more than the {MAX_FILE} allowed",
                )
                continue
            data = b"" if photo.fixed else self._read(photo.offset, photo.size)
            yield Member(photo.name, data, _suffix(photo.name), photo.fixed)

    def _read(self, offset: int, count: int) -> bytes:
        try:
            self._file.seek(offset)
            data = self._file.read(count)
        except OSError as exc:
            raise InputError(
                f"{self.shown} cannot be read: {disk_cause(exc)}", "check the disk"
            ) from exc
        if len(data) < count:
            raise cut_off(self.shown)
        return data

    def parts(self, start: int, end: int) -> Iterator[bytes]:
        """Some bytes of the archive, part by part."""
        while start < end:
            part = self._read(start, min(_COPY, end - start))
            start += len(part)
            yield part

    @property
    def bounds(self) -> tuple[int, int]:
        """Where the end of the archive begins, and its size."""
        return self._end, self._size

    def writer(self, file: BinaryIO) -> TarWriter:
        return TarWriter(self, file)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class TarWriter:
    """The archive again, its photos replaced one after the other."""

    def __init__(self, shard: TarShard, file: BinaryIO) -> None:
        self._shard = shard
        self._file = file
        self._photos = iter(shard.photos)
        self._at = 0  # in the source

    def put(self, new: Replaced | None) -> None:
        photo = next(self._photos)
        self._copy(photo.start)
        if new is None:
            self._copy(photo.end)
            return
        headers = b"".join(self._shard.parts(photo.start, photo.offset))
        old = _suffix(photo.name)
        self._file.write(rewritten(headers, len(new.data), old, new.suffix))
        self._file.write(new.data)
        self._file.write(bytes(-len(new.data) % BLOCK))
        self._at = photo.end

    def _copy(self, end: int) -> None:
        for part in self._shard.parts(self._at, end):
            self._file.write(part)
        self._at = end

    def close(self) -> None:
        end, size = self._shard.bounds
        self._copy(end)
        zeros = all(not any(part) for part in self._shard.parts(end, size))
        if zeros and size % RECORD == 0:  # as long as it has to be for whole records again
            self._file.write(bytes(2 * BLOCK))
            self._file.write(bytes(-self._file.tell() % RECORD))
        else:
            self._copy(size)


def rewritten(headers: bytes, size: int, old: str, new: str) -> bytes:
    """The headers of a member with another size, and with another suffix of its name.

    Args:
        headers: whole blocks; the last is the member's own, those before it belong to it.
        size: of the new content, in bytes.
        old, new: suffixes, such as ".png".
    """
    parts, at, named = [], 0, False
    last = len(headers) - BLOCK
    while at < last:
        block = bytearray(headers[at : at + BLOCK])
        length = _number(block[124:136])
        body = headers[at + BLOCK : at + BLOCK + length]
        kind = bytes(block[156:157])
        if kind == b"x":  # POSIX records of this member
            body, has_name = _records(body, size, old, new)
            named = named or has_name
        elif kind == b"L":  # its long name, as GNU tar has it
            name = body.rstrip(b"\0")
            body, named = _renamed(name, old, new) + b"\0", True
        at += BLOCK + -(-length // BLOCK) * BLOCK
        parts.append(_sealed(block, len(body)) + body + bytes(-len(body) % BLOCK))
    block = bytearray(headers[last:])
    name = bytes(block[:100]).rstrip(b"\0")
    fresh = _renamed(name, old, new)
    if len(fresh) > 100 and not named:  # no room for a longer suffix
        prefix = bytes(block[345:500]).rstrip(b"\0")
        whole = prefix + b"/" + fresh if prefix else fresh
        extra = bytearray(block)
        extra[156:157] = b"x"
        body = _record(b"path", whole)
        parts.append(_sealed(extra, len(body)) + body + bytes(-len(body) % BLOCK))
    block[:100] = fresh[:100].ljust(100, b"\0")
    return b"".join(parts) + _sealed(block, size)


def _records(body: bytes, size: int, old: str, new: str) -> tuple[bytes, bool]:
    parts, at, named = [], 0, False
    while match := _RECORD.match(body, at):
        length, key = int(match[1]), match[2]
        end = at + length
        if end > len(body) or match.end() >= end:
            raise FormatError("its POSIX records are broken", "write the archive again")
        value = body[match.end() : end - 1]
        if key == b"path":
            value, named = _renamed(value, old, new), True
        elif key == b"size":
            value = b"%d" % size
        parts.append(_record(key, value))
        at = end
    # what tarfile does not take for a record is none for others either
    return b"".join(parts) + body[at:], named


def _record(key: bytes, value: bytes) -> bytes:
    """A POSIX record: its own length in decimal, counted in itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _renamed(name: bytes, old: str, new: str) -> bytes:
    tail = os.fsencode(old)
    return name[: -len(tail)] + os.fsencode(new) if old and name.endswith(tail) else name


def _sealed(block: bytearray, size: int) -> bytes:
    """A header with its size, and the checksum over it."""
    if _number(block[124:136]) != size:
        block[124:136] = b"%011o" % size + (b" " if block[135:136] == b" " else b"\0")
    block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:]))
    return bytes(block)


def _number(field: bytes | bytearray) -> int:
    return tarfile.nti(bytes(field))  # type: ignore[attr-defined,no-any-return]


def _extension(name: str) -> str:
    """What comes after the first dot of the base name, in lower case; "" of a hidden file."""
    base = name.rpartition("/")[2]
    return "" if base.startswith(".") else base.partition(".")[2].lower()


def _suffix(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[1]


def _counts(names: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _fixed(photo: _Photo, names: set[str], twice: frozenset[str]) -> _Photo:
    """The photo, marked where it cannot be another one: two of a name would be one sample for a
    reader."""
    if photo.name in twice:
        return dataclasses.replace(photo, fixed="the shard holds two of its name")
    suffix = _suffix(photo.name)
    beside = photo.name[: len(photo.name) - len(suffix)]
    others = [
        beside + each
        for each in (".jpg", ".jpeg")
        if beside + each != photo.name and beside + each in names
    ]
    if others and suffix.lower() not in (".jpg", ".jpeg"):
        return dataclasses.replace(photo, fixed=f"its sample holds {printable(others[0])} already")
    return photo
