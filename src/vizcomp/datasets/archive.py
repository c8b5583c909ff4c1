"""Files of a folder or of a tar or zip archive, read safely."""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import lzma
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from vizcomp.datasets.labelled import FORMS_READ, MAX_FILE, MAX_MEMBERS, OnSkip, is_hidden
from vizcomp.errors import FormatError, InputError, TooLargeError, TruncatedError, VizcompError
from vizcomp.files.find import EXTENSIONS, find_inputs
from vizcomp.files.place import printable

MAX_ARCHIVE = 64 << 30  # bytes of an archive when unpacked

_MAX_DEPTH = 16
_MAX_NAME = 4096
_HEADER_BYTES = 1 << 18  # what may be read for the headers of one file
_GLOBAL_KEYS = 64  # each file's own header copies those that hold for all
# Python before 3.11.10 takes the square of the length of each run of digits in a header
_DIGIT_STEPS = 1 << 27

_DIGITS = re.compile(rb"\d{300,}")  # a file's name has 255 bytes at most

Parts = tuple[str, ...]  # names of folders from the data's own folder down


class DataSource(Protocol):
    """A tree of files, on disk or in an archive."""

    shown: str
    is_folder: bool

    def folders(self, at: Parts) -> list[str]:
        """Names of the sub-folders, sorted; hidden ones are left out."""

    def has_pictures(self, at: Parts) -> bool:
        """Whether pictures lie directly in the folder."""

    def pictures(self, at: Parts, on_skip: OnSkip) -> list[tuple[Parts, Any]]:
        """Pictures in and below a folder, by name, and what `read` takes; files before
        sub-folders."""

    def file(self, at: Parts) -> Any:
        """What `read` takes, for one file; None where there is none."""

    def read(self, handle: Any) -> bytes:
        """The bytes of a file, its size checked before it is read."""

    def in_reading_order(self, handles: Sequence[Any]) -> list[int]:
        """The order in which files are best read, as indices."""


class _Folder:
    is_folder = True

    def __init__(self, path: Path) -> None:
        self.shown = printable(path)
        self._path = path

    def folders(self, at: Parts) -> list[str]:
        return sorted(entry.name for entry in self._entries(at) if entry.is_dir())

    def has_pictures(self, at: Parts) -> bool:
        return any(_is_picture(entry.name) and entry.is_file() for entry in self._entries(at))

    def pictures(self, at: Parts, on_skip: OnSkip) -> list[tuple[Parts, Any]]:
        if not self._entries(at):
            return []

        def report(problem: InputError) -> None:
            on_skip("/".join(at), problem.message)

        try:
            files = find_inputs([self._path.joinpath(*at)], report=report)
        except InputError:  # none in there; a folder that cannot be read at all was found above
            return []
        return [((*at, *file.relative.parts), file.path) for file in files]

    def file(self, at: Parts) -> Path | None:
        path = self._path.joinpath(*at)
        return path if os.path.isfile(path) else None

    def read(self, handle: Path) -> bytes:
        return file_bytes(handle)

    def in_reading_order(self, handles: Sequence[Path]) -> list[int]:
        return list(range(len(handles)))

    def _entries(self, at: Parts) -> list[os.DirEntry[str]]:
        path = self._path.joinpath(*at)
        try:
            with os.scandir(path) as entries:
                return [entry for entry in entries if not is_hidden(entry.name)]
        except OSError as exc:
            cause = (exc.strerror or str(exc)).lower()
            raise InputError(
                f"the folder {printable(path)} cannot be read: {cause}", "check its permissions"
            ) from exc


@dataclasses.dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


class _Archive:
    """A tar archive: listed once, then read by offsets. Nothing is written to disk, so no name in
    it can do harm."""

    is_folder = False

    def __init__(self, stream: BoundedStream, shown: str) -> None:
        self.shown = shown
        self._stream = stream
        self._odd: list[tuple[str, str]] = []
        self._root: dict[str, Any] = {}
        with archive_errors(shown):
            self._list(tarfile.TarFile(fileobj=stream, mode="r"))  # type: ignore[arg-type]

    def folders(self, at: Parts) -> list[str]:
        return sorted(name for name, node in self._node(at).items() if isinstance(node, dict))

    def has_pictures(self, at: Parts) -> bool:
        return any(
            _is_picture(name) for name, node in self._node(at).items() if isinstance(node, _Member)
        )

    def pictures(self, at: Parts, on_skip: OnSkip) -> list[tuple[Parts, Any]]:
        for name, reason in self._odd:  # told once, and only where pictures are asked for at all
            on_skip(name, reason)
        self._odd.clear()
        node = self._node(at)
        files = [
            name for name in sorted(node) if isinstance(node[name], _Member) and _is_picture(name)
        ]
        pictures = [((*at, name), node[name]) for name in files]
        for name in self.folders(at):
            pictures += self.pictures((*at, name), on_skip)
        return pictures

    def file(self, at: Parts) -> _Member | None:
        node = self._node(at[:-1]).get(at[-1])
        return node if isinstance(node, _Member) else None

    def read(self, handle: _Member) -> bytes:
        if handle.size > MAX_FILE:
            raise TooLargeError(
                f"{handle.name} has {handle.size} bytes, more than the {MAX_FILE} allowed"
            )
        with archive_errors(self.shown):
            self._stream.seek(handle.offset)
            data = self._stream.read(handle.size)
        if len(data) < handle.size:
            raise cut_off(self.shown)
        return data

    def in_reading_order(self, handles: Sequence[_Member]) -> list[int]:
        # going back means to unpack it all again
        return sorted(range(len(handles)), key=lambda k: handles[k].offset)

    def _node(self, at: Parts) -> dict[str, Any]:
        node: Any = self._root
        for name in at:
            node = node.get(name) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}

    def _list(self, tar: tarfile.TarFile) -> None:
        for count in range(MAX_MEMBERS + 1):
            self._stream.begin_header()
            member = tar.next()
            if member is None:
                break
            if len(tar.pax_headers) > _GLOBAL_KEYS:
                raise TooLargeError(
                    f"{self.shown} is broken: more than {_GLOBAL_KEYS} headers for all files"
                )
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            if member.size < 0:  # tarfile would go round in circles
                raise FormatError(f"{self.shown} is broken: a file of {member.size} bytes")
            if count == MAX_MEMBERS or member.offset_data + member.size > MAX_ARCHIVE:
                raise TooLargeError(
                    f"{self.shown} holds more than an archive may", "unpack it and name the folder"
                )
            self._add(member)
        self._stream.begin_data()
        # tarfile takes a cut inside a header, or between two files, for the end.
        self._stream.seek(tar.offset)
        if self._stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise cut_off(self.shown)
        while self._stream.read(1 << 20):  # to the very end, where the checksum is
            if self._stream.tell() > MAX_ARCHIVE:
                raise TooLargeError(
                    f"{self.shown} holds more than an archive may", "unpack it and name the folder"
                )

    def _add(self, member: tarfile.TarInfo) -> None:
        name = printable(member.name)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        is_file = member.isreg() and not member.issparse()
        if any(is_hidden(part) for part in parts if part != "..") or not (parts or member.isdir()):
            return
        if ".." in parts or member.name.startswith("/"):
            self._odd.append((name, "its name leads out of the archive"))
        elif len(parts) > _MAX_DEPTH or len(name) > _MAX_NAME:
            self._odd.append(
                (
                    name[:100] + "...",
                    f"it lies more than {_MAX_DEPTH} folders deep, or its name is too long",
                )
            )
        elif is_file or member.isdir():
            node = self._root
            for part in parts[: -1 if is_file else None]:
                child = node.get(part)
                if not isinstance(child, dict):
                    child = node[part] = {}
                node = child
            if is_file:  # of two with the same name the later one counts, as with tar itself
                node[parts[-1]] = _Member(name, member.offset_data, member.size)
        elif _is_picture(parts[-1]):
            self._odd.append((name, "it is a link or a special file, not a picture"))


class BoundedStream:
    """An unpacked archive as tarfile wants it, which bounds what the headers of one file may make
    it read and do.

    tarfile reads some headers whole, whatever size they claim, or block after block without end,
    and then searches them.
    """

    def __init__(self, file: Any, shown: str) -> None:
        self._file = file
        self._shown = shown
        self._limit = _HEADER_BYTES
        self._in_header = True
        self._steps = _DIGIT_STEPS

    def begin_header(self) -> None:
        """What is read now are the headers of one file."""
        self._limit, self._in_header = _HEADER_BYTES, True

    def begin_data(self) -> None:
        """What is read from now on are contents, as much at once as a file may have."""
        self._limit, self._in_header = max(MAX_FILE, 1 << 20), False

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= self._limit:
            raise TooLargeError(
                f"{self._shown} is broken: a header of more than {self._limit} bytes"
            )
        data: bytes = self._file.read(count)
        if self._in_header:
            self._limit -= len(data)
            self._steps -= sum((run.end() - run.start()) ** 2 for run in _DIGITS.finditer(data))
            if self._steps < 0:
                raise TooLargeError(f"{self._shown} is broken: headers of nothing but digits")
        return data

    def seek(self, position: int) -> int:
        if not 0 <= position <= MAX_ARCHIVE:
            raise TooLargeError(f"{self._shown} is broken: it refers to byte {position}")
        return self._file.seek(position)  # type: ignore[no-any-return]

    def tell(self) -> int:
        return self._file.tell()  # type: ignore[no-any-return]


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[DataSource]:
    """A folder or an archive, told apart by its first bytes."""
    shown = printable(path)
    if os.path.isdir(path):
        yield _Folder(path)
        return
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_regular_file(path))
        head = file.read(tarfile.BLOCKSIZE)
        file.seek(0)
        if not head:
            raise InputError(f"{shown} is empty", "copy or download it again")
        unpacked: Any = file
        if head.startswith(b"\x1f\x8b"):
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=file))
        elif head.startswith(b"\xfd7zXZ\x00"):
            unpacked = stack.enter_context(lzma.LZMAFile(file))
        elif head.startswith(b"BZh"):
            unpacked = stack.enter_context(bz2.BZ2File(file))
        elif head.startswith(b"PK\x03\x04"):
            raise InputError(
                f"{shown} is a zip archive, which is not read", "unpack it and name the folder"
            )
        elif head[257:262] != b"ustar":
            raise InputError(f"{shown} is neither a folder nor a tar archive", FORMS_READ)
        yield _Archive(BoundedStream(unpacked, shown), shown)


@contextlib.contextmanager
def archive_errors(shown: str) -> Iterator[None]:
    """Turns whatever tarfile and the decompressors throw into our errors. Only calls into them
    belong inside."""
    try:
        yield
    except VizcompError:
        raise
    except EOFError as exc:
        raise cut_off(shown) from exc
    except MemoryError as exc:
        raise TooLargeError(
            f"{shown} needs more memory to unpack than there is", "unpack it and name the folder"
        ) from exc
    # ReadError, zlib.error, LZMAError, and ValueError, KeyError, RecursionError from odd headers
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise InputError(
                f"{shown} cannot be read: {(exc.strerror or str(exc)).lower()}", "check the disk"
            ) from exc
        if "unexpected end" in str(exc) or "truncated" in str(exc):
            raise cut_off(shown) from exc
        raise FormatError(
            f"{shown} is broken: it cannot be unpacked", "copy or download it again"
        ) from exc


def cut_off(shown: str) -> TruncatedError:
    return TruncatedError(f"{shown} is cut off", "copy or download it again")


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


@contextlib.contextmanager
def _regular_file(path: Path) -> Iterator[Any]:
    """A file open for reading; a pipe or a device is refused, and never waited for."""
    shown = printable(path)
    try:
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError as exc:
        raise InputError(f"{shown} does not exist", "check the path") from exc
    except (OSError, ValueError) as exc:
        cause = (getattr(exc, "strerror", None) or str(exc)).lower()
        raise InputError(
            f"{shown} cannot be opened: {cause}", "check the path and its permissions"
        ) from exc
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{shown} is not an ordinary file", "check the path")
        yield file


def file_bytes(path: Path) -> bytes:
    """A file whole, its size checked first."""
    with _regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE:
            raise TooLargeError(
                f"{printable(path.name)} has {size} bytes, more than the {MAX_FILE} allowed"
            )
        try:
            return file.read(size)  # type: ignore[no-any-return]
        except OSError as exc:
            raise InputError(
                f"{printable(path.name)} cannot be read: {(exc.strerror or str(exc)).lower()}",
                "check the disk",
            ) from exc
