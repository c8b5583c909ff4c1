"""Images to train and measure on: CIFAR in its published forms, class folders, plain photos; and their split.

Everything is read in place: no archive is unpacked to disk, and no pickle is ever run. The batches of CIFAR are pickles
of Python 2; `_unpickled` reads the few things that they hold as data and refuses the rest, since a pickle that is loaded
as such can start any program.
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import io
import json
import lzma
import os
import pickletools
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from vizcomp.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    SettingsError,
    TooLargeError,
    TruncatedError,
    VizcompError,
    first_line,
)
from vizcomp.files.find import EXTENSIONS, find_inputs
from vizcomp.files.place import printable
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import load_bytes

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Part = Literal["train", "test", "all"]
OnSkip = Callable[[str, str], None]

MAX_SIZE = 1024
"""Longest side of a labelled image; larger ones are photos, which are read one by one."""

_MAX_FILE = 256 << 20  # bytes of a picture or batch; CIFAR-100's is the largest published one, 155 MB
_MAX_ARCHIVE = 64 << 30  # bytes of an archive when unpacked
_MAX_MEMBERS = 5_000_000
_MAX_DEPTH = 16
_MAX_NAME = 4096
_HEADER_BYTES = 4 << 20  # the most that a tar header may make us read at once
_MAX_OPCODES = 4_000_000  # a published batch has 35,000, CIFAR-100's 600,000
_SMALL = 256 << 10  # bytes of a picture that is read the quick way
_SMALL_PIXELS = 1 << 20
_FORMS_READ = "readable are CIFAR-10 and CIFAR-100 as published, Parquet, and folders with one sub-folder for each class"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Images of one size with a class each, in memory.

    Attributes:
        images: uint8 (N, size, size, 3), RGB, C-contiguous.
        labels: int64 (N,), indices into `classes`.
        classes: names of the classes.
        names: for each image the file it came from, below the data's own folder, or the name that its batch states;
            safe to print.
        skipped: (name, reason) of each picture that could not be read.
        source: what the data were found as, such as "CIFAR-10, python batches".
    """

    images: Pixels
    labels: Labels
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    source: str

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(path: str | Path, *, part: Part = "train", size: int = 32, on_skip: OnSkip | None = None) -> LabelledImages:
    """Labelled images from a folder or a tar archive (plain, gz, bz2 or xz), whichever of these it holds:

    - CIFAR-10 or CIFAR-100 (fine labels), python or binary version: the folder of the batches, the folder above it, or
      the archive as published;
    - class folders, `PATH/CLASS/*.jpg`, or `PATH/train/CLASS/*.jpg` beside a `test`, `val`, `valid` or `validation`;
    - Parquet as on Hugging Face, `train-*.parquet` and `test-*.parquet` in the folder or below it, or one such file, where
      pyarrow is installed.

    Pictures of other sizes are cropped to the square in their middle and resized; broken ones are skipped and counted.
    The order is that of the batches, or by class and then by name: the same on every machine.

    Args:
        part: "train", "test" or "all" (train before test). Class folders without `train` and `test` are all training data.
            Classes have the same numbers in each part.
        size: side of the images, 1..1024.
        on_skip: is told name and reason of each picture that is skipped, at once.

    Raises:
        SettingsError: `part` or `size` is none of those.
        InputError: nothing there, nothing recognised, no such part, a class without a readable picture.
        FormatError: a batch or archive that is broken (`TruncatedError`: cut off, `TooLargeError`: beyond the limits),
            or a pickle that holds anything but a batch.
        MissingExtraError: Parquet files, and no pyarrow.
    """
    if part not in ("train", "test", "all"):
        raise SettingsError(f"no part of a data set is called {part!r}", "use train, test or all")
    if not 1 <= size <= MAX_SIZE:
        raise SettingsError(f"images of side {size} cannot be made", f"use 1 to {MAX_SIZE}")
    if (tables := _tables(Path(path))) and Path(path).is_file():
        return _read_tables(Path(path), tables, part, size, on_skip)
    with _opened(Path(path)) as source:
        for form in _FORMS:
            folder = _find(source, form)
            if folder is not None:
                return _read_cifar(source, form, folder, part, size)
        if source.is_folder:
            for name in _ARCHIVES:  # the download, kept as it came
                if (Path(path) / name).is_file():
                    return read_labelled(Path(path) / name, part=part, size=size, on_skip=on_skip)
        if tables:
            return _read_tables(Path(path), tables, part, size, on_skip)
        return _read_classes(source, part, size, on_skip)


def find_photos(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The photos of a folder, a file, a pattern or several of them, sub-folders included, in a fixed order.

    Raises:
        InputError: something named does not exist, or there is no photo at all.
    """
    found = []
    for file in find_inputs([path] if isinstance(path, str | Path) else path):
        if not isinstance(file.path, Path):
            raise InputError(f"{file.shown} does not lie on a disk", "copy the data set to a disk first: it is read many times")
        found.append(file.path)
    return found


def read_photos(paths: Sequence[Path], *, min_side: int, on_skip: OnSkip | None = None) -> list[Pixels]:
    """Photos as displayed: for each one uint8 (H, W, 3), RGB, C-contiguous, turned upright by its EXIF orientation.

    Args:
        min_side: photos whose shorter side is below it are skipped.
        on_skip: is told name and reason of each photo that is too small or cannot be read.

    Raises:
        InputError: no photo is left.
    """
    found: list[Pixels] = []
    for path in paths:
        try:
            pixels = _upright_rgb(_file_bytes(Path(path)))
            if min(pixels.shape[:2]) < min_side:
                height, width = pixels.shape[:2]
                raise InputError(f"{width} x {height} pixels are too few: each side must have {min_side} at least")
        except VizcompError as exc:
            if on_skip is not None:
                on_skip(printable(path), exc.message)
        else:
            found.append(pixels)
    if not found:
        raise InputError(f"none of {len(paths)} photos can be used", f"photos of {min_side} pixels a side and more are needed")
    return found


def split(labels_or_count: npt.ArrayLike, share: float, seed: int) -> tuple[Labels, Labels]:
    """Indices for training and for validation, drawn by a seed; the same ones on every machine.

    With labels, each class gives its share, rounded so that the total is right, and keeps one image at least for training.

    Args:
        labels_or_count: int (N,) labels, or N.
        share: of the images that go to validation, 0 <= share < 1; above 0, it is one image at least where there are two.
        seed: 0 or above.

    Returns:
        Two int64 arrays, each ascending; together 0..N - 1.

    Raises:
        SettingsError: an argument out of its range.
    """
    given = np.asarray(labels_or_count)
    if given.shape == (0,):
        given = given.astype(np.int64)  # an empty list is one of floats to numpy
    if given.ndim > 1 or not np.issubdtype(given.dtype, np.integer) or (given.ndim == 0 and given < 0):
        raise SettingsError("a split needs whole numbers: one label for each image, or how many there are")
    if not 0 <= share < 1:
        raise SettingsError(f"{share} is no share for validation", "use 0 or more, and less than 1")
    if seed < 0:
        raise SettingsError(f"{seed} is no seed", "use 0 or more")
    labels = given if given.ndim else np.zeros(int(given), np.int64)
    # Raw output of the bit generator: numpy promises that this stays, and does not promise it of `permutation`.
    keys = np.random.PCG64(seed).random_raw(len(labels)) if len(labels) else np.zeros(0, np.uint64)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    held = [np.zeros(0, np.int64)]
    for group, count in zip(groups, _shares([len(group) for group in groups], share), strict=True):
        held.append(group[np.argsort(keys[group], kind="stable")[:count]])
    validation = np.sort(np.concatenate(held))
    training = np.setdiff1d(np.arange(len(labels)), validation, assume_unique=True)
    return training.astype(np.int64), validation.astype(np.int64)


def _shares(counts: Sequence[int], share: float) -> list[int]:
    """How many of each group: largest remainders, so that the sum is right; one is left over in each group."""
    total = round(share * sum(counts))
    if share > 0 and total == 0 and max(counts, default=0) > 1:
        total = 1
    chosen = [min(int(share * count), count - 1) for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda k: (int(share * counts[k]) - share * counts[k], -counts[k], k))
    missing = total - sum(chosen)
    for k in by_remainder:
        if missing > 0 and chosen[k] < counts[k] - 1:
            chosen[k] += 1
            missing -= 1
    return chosen


# --- folders and archives -------------------------------------------------------------------------------------------

Parts = tuple[str, ...]  # names of folders from the data's own folder down


class _Source(Protocol):
    """A tree of files, on disk or in an archive."""

    shown: str
    is_folder: bool

    def folders(self, at: Parts) -> list[str]:
        """Names of the sub-folders, sorted; hidden ones are left out."""

    def has_pictures(self, at: Parts) -> bool:
        """Whether pictures lie directly in the folder."""

    def pictures(self, at: Parts, on_skip: OnSkip) -> list[tuple[Parts, Any]]:
        """Pictures in and below a folder, by name, and what `read` takes; files before sub-folders."""

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
        return path if path.is_file() else None

    def read(self, handle: Path) -> bytes:
        return _file_bytes(handle)

    def in_reading_order(self, handles: Sequence[Path]) -> list[int]:
        return list(range(len(handles)))

    def _entries(self, at: Parts) -> list[os.DirEntry[str]]:
        path = self._path.joinpath(*at)
        try:
            with os.scandir(path) as entries:
                return [entry for entry in entries if not _is_hidden(entry.name)]
        except OSError as exc:
            cause = (exc.strerror or str(exc)).lower()
            raise InputError(f"the folder {printable(path)} cannot be read: {cause}", "check its permissions") from exc


@dataclasses.dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


class _Archive:
    """A tar archive: listed once, then read by offsets. Nothing is written to disk, so no name in it can do harm."""

    is_folder = False

    def __init__(self, stream: _Stream, shown: str) -> None:
        self.shown = shown
        self._stream = stream
        self._odd: list[tuple[str, str]] = []
        self._root: dict[str, Any] = {}
        with _archive_errors(shown):
            self._list(tarfile.TarFile(fileobj=stream, mode="r"))  # type: ignore[arg-type]

    def folders(self, at: Parts) -> list[str]:
        return sorted(name for name, node in self._node(at).items() if isinstance(node, dict))

    def has_pictures(self, at: Parts) -> bool:
        return any(_is_picture(name) for name, node in self._node(at).items() if isinstance(node, _Member))

    def pictures(self, at: Parts, on_skip: OnSkip) -> list[tuple[Parts, Any]]:
        for name, reason in self._odd:  # told once, and only where pictures are asked for at all
            on_skip(name, reason)
        self._odd.clear()
        node = self._node(at)
        files = [name for name in sorted(node) if isinstance(node[name], _Member) and _is_picture(name)]
        found = [((*at, name), node[name]) for name in files]
        for name in self.folders(at):
            found += self.pictures((*at, name), on_skip)
        return found

    def file(self, at: Parts) -> _Member | None:
        node = self._node(at[:-1]).get(at[-1])
        return node if isinstance(node, _Member) else None

    def read(self, handle: _Member) -> bytes:
        if handle.size > _MAX_FILE:
            raise TooLargeError(f"{handle.name} has {handle.size} bytes, more than the {_MAX_FILE} allowed")
        with _archive_errors(self.shown):
            self._stream.limit = _MAX_FILE
            self._stream.seek(handle.offset)
            data = self._stream.read(handle.size)
        if len(data) < handle.size:
            raise _cut(self.shown)
        return data

    def in_reading_order(self, handles: Sequence[_Member]) -> list[int]:
        return sorted(range(len(handles)), key=lambda k: handles[k].offset)  # going back means to unpack it all again

    def _node(self, at: Parts) -> dict[str, Any]:
        node: Any = self._root
        for name in at:
            node = node.get(name) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}

    def _list(self, tar: tarfile.TarFile) -> None:
        for count in range(_MAX_MEMBERS + 1):
            member = tar.next()
            if member is None:
                break
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            if member.size < 0:  # tarfile would go round in circles
                raise FormatError(f"{self.shown} is broken: a file of {member.size} bytes")
            if count == _MAX_MEMBERS or member.offset_data + member.size > _MAX_ARCHIVE:
                raise TooLargeError(f"{self.shown} holds more than an archive may", "unpack it and name the folder")
            self._add(member)
        # tarfile takes a cut inside a header, or between two files, for the end.
        self._stream.seek(tar.offset)
        if self._stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise _cut(self.shown)
        while self._stream.read(1 << 20):  # to the very end, where the checksum is
            if self._stream.tell() > _MAX_ARCHIVE:
                raise TooLargeError(f"{self.shown} holds more than an archive may", "unpack it and name the folder")

    def _add(self, member: tarfile.TarInfo) -> None:
        name = printable(member.name)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        is_file = member.isreg() and not member.issparse()
        if any(_is_hidden(part) for part in parts if part != "..") or not (parts or member.isdir()):
            return
        if ".." in parts or member.name.startswith("/"):
            self._odd.append((name, "its name leads out of the archive"))
        elif len(parts) > _MAX_DEPTH or len(name) > _MAX_NAME:
            self._odd.append((name[:100] + "...", f"it lies more than {_MAX_DEPTH} folders deep, or its name is too long"))
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


class _Stream:
    """An unpacked archive as tarfile wants it, which refuses to read more at once than is allowed just now.

    tarfile reads some headers whole, whatever size they claim; a small hostile file could so fill the memory.
    """

    def __init__(self, file: Any, shown: str) -> None:
        self._file = file
        self._shown = shown
        self.limit = _HEADER_BYTES

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= self.limit:
            raise TooLargeError(f"{self._shown} is broken: a header of {count} bytes")
        return self._file.read(count)  # type: ignore[no-any-return]

    def seek(self, position: int) -> int:
        if not 0 <= position <= _MAX_ARCHIVE:
            raise TooLargeError(f"{self._shown} is broken: it refers to byte {position}")
        return self._file.seek(position)  # type: ignore[no-any-return]

    def tell(self) -> int:
        return self._file.tell()  # type: ignore[no-any-return]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    """A folder or an archive, told apart by its first bytes."""
    shown = printable(path)
    if path.is_dir():
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
            raise InputError(f"{shown} is a zip archive, which is not read", "unpack it and name the folder")
        elif head[257:262] != b"ustar":
            raise InputError(f"{shown} is neither a folder nor a tar archive", _FORMS_READ)
        yield _Archive(_Stream(unpacked, shown), shown)


@contextlib.contextmanager
def _archive_errors(shown: str) -> Iterator[None]:
    """Turns whatever tarfile and the decompressors throw into our errors. Only calls into them belong inside."""
    try:
        yield
    except VizcompError:
        raise
    except EOFError as exc:
        raise _cut(shown) from exc
    except MemoryError as exc:
        raise TooLargeError(f"{shown} needs more memory to unpack than there is", "unpack it and name the folder") from exc
    except Exception as exc:  # ReadError, zlib.error, LZMAError, and ValueError, KeyError, RecursionError from odd headers
        if isinstance(exc, OSError) and exc.errno is not None:
            raise InputError(f"{shown} cannot be read: {(exc.strerror or str(exc)).lower()}", "check the disk") from exc
        if "unexpected end" in str(exc) or "truncated" in str(exc):
            raise _cut(shown) from exc
        raise FormatError(f"{shown} is broken: it cannot be unpacked", "copy or download it again") from exc


def _cut(shown: str) -> TruncatedError:
    return TruncatedError(f"{shown} is cut off", "copy or download it again")


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


@contextlib.contextmanager
def _regular_file(path: Path) -> Iterator[Any]:
    """A file open for reading; a pipe or a device is refused, and never waited for."""
    shown = printable(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as exc:
        raise InputError(f"{shown} does not exist", "check the path") from exc
    except (OSError, ValueError) as exc:
        cause = (getattr(exc, "strerror", None) or str(exc)).lower()
        raise InputError(f"{shown} cannot be opened: {cause}", "check the path and its permissions") from exc
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{shown} is not an ordinary file", "check the path")
        yield file


def _file_bytes(path: Path) -> bytes:
    """A file whole, its size checked first."""
    with _regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_FILE:
            raise TooLargeError(f"{printable(path.name)} has {size} bytes, more than the {_MAX_FILE} allowed")
        try:
            return file.read(size)  # type: ignore[no-any-return]
        except OSError as exc:
            raise InputError(
                f"{printable(path.name)} cannot be read: {(exc.strerror or str(exc)).lower()}", "check the disk"
            ) from exc


# --- pickles, read as data ------------------------------------------------------------------------------------------


class _PickledDtype:
    """What a pickle says of an array's element type."""

    def __init__(self, code: object) -> None:
        self.code = code


class _PickledArray:
    """What a pickle says of an array: uint8, any shape; None until its state was read."""

    value: Pixels | None = None

    def build(self, state: object) -> None:
        """Takes the state (version, shape, element type, whether columns come first, bytes), checked before it is used."""
        match state:
            case (int(), tuple(shape), _PickledDtype(code="u1" | "|u1" | b"u1" | b"|u1"), bool() | int() as columns, content):
                data = content.encode("latin-1") if isinstance(content, str) else content
                if all(type(n) is int and 0 <= n <= _MAX_FILE for n in shape) and isinstance(data, bytes) and len(shape) <= 4:
                    count = 1
                    for n in shape:
                        count *= n
                    if count == len(data):
                        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if columns else "C")
                        return
        raise ValueError("an array of another kind than the batches hold, or of another length than it claims")


_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NDARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"


class _Global(str):
    """The name of a function or class that a pickle asks for; never the thing itself."""

    __slots__ = ()


def _unpickled(data: bytes, shown: str) -> dict[Any, Any]:
    """The dict in a pickle of a CIFAR batch: lists, tuples, dicts, numbers, text and uint8 arrays; text keys as str.

    Not by `pickle.Unpickler`: even with `find_class` closed, it takes gigabytes for a memo number of a hostile file, and
    crashes where keys are nested deeply. Here nothing is called, whatever the pickle says.

    Raises:
        FormatError: anything else is in it, or it is broken.
    """
    try:
        found = _interpreted(data)
    except _Refused as exc:
        raise FormatError(
            f"{shown} is refused: its pickle {exc}, which no batch of CIFAR does", "download the data again"
        ) from exc
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise FormatError(f"{shown} is broken: it is not the pickle of a batch", "copy or download it again") from exc
    if not isinstance(found, dict):
        raise FormatError(f"{shown} is not a batch of CIFAR: its pickle holds no dict", "download the data again")
    return found


class _Refused(Exception):
    """A pickle asks for what no batch needs."""


def _interpreted(data: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if count > _MAX_OPCODES:
            raise _Refused(f"has more than {_MAX_OPCODES} steps")
        if name in _VALUES:
            stack.append(arg)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(arg)] = stack[-1]  # type: ignore[arg-type]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(arg)])  # type: ignore[arg-type]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("LIST", "TUPLE"):
            items = since_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name in _TUPLES:
            start = len(stack) - _TUPLES[name]
            stack[start:] = [tuple(stack[start:])]
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            if type(stack[-1]) is not list:
                raise ValueError("appends to what is no list")
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
            if name == "DICT":
                stack.append({})
            if type(stack[-1]) is not dict:
                raise ValueError("sets an item of what is no dict")
            stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = arg if name == "GLOBAL" else " ".join((stack.pop(-2), stack.pop()))
            if wanted not in (*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE):
                raise _Refused(f"asks for '{printable(str(wanted)[:100]).replace(' ', '.')}'")
            stack.append(_Global(wanted))
        elif name == "REDUCE":
            args = stack.pop()
            stack.append(_made(stack.pop(), args))
        elif name == "BUILD":
            state, target = stack.pop(), stack[-1]
            if isinstance(target, _PickledArray):
                target.build(state)
            elif not isinstance(target, _PickledDtype):
                raise _Refused("sets the state of an object")
        elif name == "STOP":
            break
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"uses {name}")
    return stack.pop()


def _key(key: object) -> str | int:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    if isinstance(key, str | int):
        return key
    raise ValueError("a key that is neither text nor number")  # hashing a deeply nested one would overflow the stack


def _made(function: object, args: object) -> object:
    """The few calls in a batch, as data."""
    match function, args:
        case _Global(), (_Global(), *_) if function in _RECONSTRUCT and args[0] == _NDARRAY:  # type: ignore[index]
            return _PickledArray()
        case _Global(), (str() | bytes() as code, *_) if function == _DTYPE:
            return _PickledDtype(code)
        case _Global(), (str() as text, "latin1" | "latin-1") if function == _ENCODE:
            return text.encode("latin-1")
    raise _Refused("makes an object")


# --- CIFAR as published ---------------------------------------------------------------------------------------------

_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE


@dataclasses.dataclass(frozen=True)
class _Form:
    """One form in which a set is published (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009)."""

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    classes: int
    kind: str = ""  # "fine_" where there are coarse labels too
    label_bytes: int = 0  # before the pixels of each image; 0 for pickles


_FORMS = (
    _Form(
        "CIFAR-10, python batches",
        "cifar-10-batches-py",
        tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test_batch",
        "batches.meta",
        10,
    ),
    _Form(
        "CIFAR-10, binary version",
        "cifar-10-batches-bin",
        tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
        10,
        label_bytes=1,
    ),
    _Form("CIFAR-100, python version", "cifar-100-python", ("train",), "test", "meta", 100, "fine_"),
    _Form("CIFAR-100, binary version", "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 100, "fine_", 2),
)
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "cifar-100-python.tar.gz", "cifar-100-binary.tar.gz")


def _find(source: _Source, form: _Form) -> Parts | None:
    """The folder of the batches in a source, None where there is none."""
    for folder in ((), (form.folder,)):
        present = any(source.file((*folder, name)) is not None for name in (form.meta, *form.train, form.test))
        # CIFAR-100's own names are everyday words, so that all of them must be there.
        if present and (form.classes == 10 or all(source.file((*folder, name)) for name in (form.meta, *form.train))):
            return folder
    return None


def _read_cifar(source: _Source, form: _Form, folder: Parts, part: Part, size: int) -> LabelledImages:
    def content(name: str) -> bytes:
        handle = source.file((*folder, name))
        if handle is None:
            raise InputError(f"{source.shown} lacks {'/'.join((*folder, name))}", f"{form.title} needs it: unpack the set again")
        return source.read(handle)

    classes = _class_names(content(form.meta), form)
    files = [*(form.train if part != "test" else ()), *((form.test,) if part != "train" else ())]
    pixels: list[Pixels] = []
    labels: list[int] = []
    names: list[str] = []
    for file in files:
        batch = (_binary_batch if form.label_bytes else _pickled_batch)(content(file), file, form)
        pixels.append(batch[0])
        labels += batch[1]
        names += batch[2]
    images = np.concatenate(pixels)
    pixels.clear()
    if size != _SIDE:
        images = np.stack([_square(image, size) for image in images])
    where = "" if source.is_folder else ", in an archive"
    return LabelledImages(
        images=images,
        labels=np.asarray(labels, np.int64),
        classes=classes,
        names=tuple(names),
        skipped=(),
        source=form.title + where,
    )


def _class_names(data: bytes, form: _Form) -> tuple[str, ...]:
    if form.label_bytes:
        found: list[Any] = data.decode("utf-8", "replace").split()
    else:
        listed = _unpickled(data, form.meta).get(form.kind + "label_names")
        found = [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in listed] if type(listed) is list else []
    if len(found) != form.classes or not all(isinstance(n, str) for n in found) or len(set(found)) != len(found):
        raise FormatError(f"{form.meta} does not name the {form.classes} classes of {form.title}", "download the set again")
    return tuple(printable(name) for name in found)


def _pickled_batch(data: bytes, file: str, form: _Form) -> tuple[Pixels, list[int], list[str]]:
    """uint8 (N, 32, 32, 3), labels and file names of a python batch: planes of red, green and blue, row by row."""
    batch = _unpickled(data, file)
    array = batch.get("data")
    planes = array.value if isinstance(array, _PickledArray) else None
    if planes is None or planes.ndim != 2 or planes.shape[1] != _PIXEL_BYTES or not len(planes):
        raise FormatError(f"{file} holds no images of 3 x 32 x 32 bytes", "download the set again")
    count = len(planes)
    labels = batch.get(form.kind + "labels")
    if type(labels) is not list or len(labels) != count or not all(type(label) is int for label in labels):
        raise FormatError(f"{file} does not have one label for each of its {count} images", "download the set again")
    _check_labels(min(labels), max(labels), file, form)
    names = batch.get("filenames")
    if type(names) is list and len(names) == count and all(isinstance(name, str | bytes) for name in names):
        known = [printable(n.decode("latin-1") if isinstance(n, bytes) else n) for n in names]
    else:
        known = [f"{file}/{k:05d}" for k in range(count)]
    return _channels_last(planes), labels, known


def _binary_batch(data: bytes, file: str, form: _Form) -> tuple[Pixels, list[int], list[str]]:
    """uint8 (N, 32, 32, 3), labels and made-up names of a binary batch: for each image its label or two, then planes."""
    length = form.label_bytes + _PIXEL_BYTES
    if len(data) % length or not data:
        raise TruncatedError(f"{file} has {len(data)} bytes, no multiple of {length}", "download the set again")
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    labels = records[:, form.label_bytes - 1]
    _check_labels(int(labels.min()), int(labels.max()), file, form)
    names = [f"{file}/{k:05d}" for k in range(len(records))]
    return _channels_last(records[:, form.label_bytes :]), labels.tolist(), names


def _check_labels(low: int, high: int, file: str, form: _Form) -> None:
    if low < 0 or high >= form.classes:
        wrong = low if low < 0 else high
        raise FormatError(f"{file} has the label {wrong}, not one of 0 to {form.classes - 1}", "download the set again")


def _channels_last(planes: Pixels) -> Pixels:
    planes = planes.reshape(-1, 3, _SIDE, _SIDE)  # (N, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # (N, 32, 32, 3)


# --- Parquet, as on Hugging Face ------------------------------------------------------------------------------------

_SPLITS = {"train": "train", **dict.fromkeys(("test", "val", "valid", "validation"), "test")}
_LABEL_COLUMNS = ("label", "fine_label", "labels")
_MAX_GROUP = 1 << 30  # bytes of one row group when unpacked; the whole of CIFAR-10 has 120 MB
_ROWS = 1000  # read at a time


def _tables(path: Path) -> list[Path]:
    """The Parquet files that `path` names or holds, two folders down at most, by name."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    found = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}*.parquet")]
    hidden = [file for file in found if any(map(_is_hidden, file.relative_to(path).parts))]
    return sorted(set(found) - set(hidden))


def _read_tables(path: Path, tables: list[Path], part: Part, size: int, on_skip: OnSkip | None) -> LabelledImages:
    """Rows of an encoded picture (`img` or `image`: its bytes) and a whole number (`label`), with the names of the classes in
    the schema's metadata, as the `datasets` library writes them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingExtraError("pyarrow, which reads Parquet files,", "parquet") from exc
    of_split: dict[str, list[Path]] = {"train": [], "test": []}
    for table in tables:
        of_split[_SPLITS.get(table.stem.split("-")[0].lower(), "train")].append(table)
    chosen = [file for split, files in of_split.items() if part in (split, "all") for file in files]
    if not chosen:
        raise InputError(f"{printable(path)} has no {part} part", f"its Parquet files should be named {part}-*.parquet")
    classes: tuple[str, ...] = ()
    kept: list[Pixels] = []
    labels: list[int] = []
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    for file in chosen:
        shown = printable(file.name)
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                picture, label, found = _columns(table, shown)
                if classes and found and found != classes:
                    raise FormatError(f"{shown} has other classes than the file before it", "keep one data set in a folder")
                classes = classes or found
                count = 0
                for rows in table.iter_batches(_ROWS, columns=[picture, label]):
                    for cell, number in zip(rows.column(picture), rows.column(label).to_pylist(), strict=True):
                        data = cell["bytes"].as_py() if pyarrow.types.is_struct(cell.type) else cell.as_py()
                        name = f"{shown}/{count:05d}"
                        count += 1
                        try:
                            if not data or type(number) is not int:
                                raise _Unreadable("no picture, or no label")
                            kept.append(_picture(data, size))
                        except _Unreadable as exc:
                            skipped.append((name, exc.reason))
                            if on_skip is not None:
                                on_skip(*skipped[-1])
                            continue
                        labels.append(number)
                        names.append(name)
        except (pyarrow.ArrowException, OSError) as exc:
            raise FormatError(f"{shown} cannot be read as Parquet: {first_line(exc)}", "download it again") from exc
    if not kept:
        raise InputError(f"{printable(path)} has no readable picture", skipped[-1][1] if skipped else "it has no rows")
    low, high = min(labels), max(labels)
    if low < 0 or high >= (len(classes) or 100_000):
        raise FormatError(f"{printable(path)} has the label {low if low < 0 else high}, which names no class")
    return LabelledImages(
        images=np.stack(kept),
        labels=np.asarray(labels, np.int64),
        classes=classes or tuple(map(str, range(high + 1))),
        names=tuple(names),
        skipped=tuple(skipped),
        source="Parquet files",
    )


def _columns(table: Any, shown: str) -> tuple[str, str, tuple[str, ...]]:
    """Names of the columns of pictures and of labels, and of the classes where the file says them; sizes checked."""
    about, schema = table.metadata, table.schema_arrow
    largest = max((about.row_group(k).total_byte_size for k in range(about.num_row_groups)), default=0)
    if about.num_rows > _MAX_MEMBERS or largest > _MAX_GROUP:
        raise TooLargeError(f"{shown} holds more than a file may: {about.num_rows} rows, {largest} bytes in one group")
    picture = next((name for name in ("img", "image") if name in schema.names), "")
    label = next((name for name in _LABEL_COLUMNS if name in schema.names), "")
    kinds = (str(schema.field(picture).type) if picture else "", str(schema.field(label).type) if label else "")
    if not kinds[0].startswith(("struct<bytes: binary", "binary")) or not kinds[1].startswith(("int", "uint")):
        raise FormatError(
            f"{shown} has the columns {', '.join(map(printable, schema.names[:8]))}",
            "pictures are looked for in img or image (bytes), classes in label or fine_label (whole numbers)",
        )
    try:
        listed = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return picture, label, ()
    good = isinstance(listed, list) and all(isinstance(name, str) for name in listed) and len(set(listed)) == len(listed)
    return picture, label, tuple(map(printable, listed)) if good else ()


# --- class folders --------------------------------------------------------------------------------------------------


def _read_classes(source: _Source, part: Part, size: int, on_skip: OnSkip | None) -> LabelledImages:
    skipped: list[tuple[str, str]] = []

    def skip(name: str, reason: str) -> None:
        skipped.append((printable(name), reason))
        if on_skip is not None:
            on_skip(*skipped[-1])

    root = _root(source)
    parts = _parts(source, root)
    chosen = _chosen(source, parts, part)
    listed = _listed(source, root, parts, chosen, skip)
    try:
        images = np.empty((len(listed.files), size, size, 3), np.uint8)
    except MemoryError as exc:
        raise TooLargeError(f"{len(listed.files)} images of side {size} do not fit into memory", "use a smaller size") from exc
    good = np.zeros(len(images), bool)
    for k in source.in_reading_order([handle for _, handle in listed.files]):
        try:
            images[k] = _picture(_content(source, listed.files[k][1]), size)
        except _Unreadable as exc:
            skip("/".join(listed.files[k][0]), exc.reason)
        else:
            good[k] = True
    labels = np.asarray(listed.labels, np.int64)
    for label in sorted({*listed.labels} - {*labels[good].tolist()}):
        bad = int((labels == label).sum())
        raise InputError(
            f"the class {printable(listed.classes[label])} of {source.shown} has no readable picture ({bad} skipped)",
            f"the last one: {skipped[-1][1]}",
        )
    names = ["/".join(map(printable, at)) for at, _ in listed.files]
    source_words = "class folders" + ("" if chosen == [()] else ", " + " and ".join(f"{p[0]}/" for p in chosen))
    return LabelledImages(
        images=images if good.all() else images[good],
        labels=labels[good],
        classes=tuple(map(printable, listed.classes)),
        names=tuple(name for name, is_good in zip(names, good.tolist(), strict=True) if is_good),
        skipped=tuple(skipped),
        source=source_words + ("" if source.is_folder else ", in an archive"),
    )


@dataclasses.dataclass(frozen=True)
class _Listed:
    """Pictures by class before they are read: path below the data's own folder, and what the source's `read` takes."""

    classes: list[str]
    files: list[tuple[Parts, Any]]
    labels: list[int]


def _listed(source: _Source, root: Parts, parts: list[Parts], chosen: list[Parts], skip: OnSkip) -> _Listed:
    """The pictures of the chosen parts. Classes are those of all parts, so that each has one number in all of them."""
    of_part = {folder: source.folders((*root, *folder)) for folder in parts}
    classes = sorted(set().union(*of_part.values()))
    if not classes:
        alone = "its pictures lie in one folder; each class needs one of its own"
        raise InputError(f"{source.shown} holds no classes", alone if source.has_pictures(root) else _FORMS_READ)
    found = _Listed(classes, [], [])
    for folder in chosen:
        for label, name in enumerate(classes):
            at = (*root, *folder, name)
            if name not in of_part[folder] and folder != _TRAIN:
                continue  # a test may leave classes out; training may not
            pictures = source.pictures(at, skip) if name in of_part[folder] else []
            if not pictures:
                where = "/".join(printable(n) for n in (*folder, name))
                raise InputError(f"the class {where} of {source.shown} has no pictures", "add some, or remove the class")
            found.files.extend((file[len(root) :], handle) for file, handle in pictures)
            found.labels.extend([label] * len(pictures))
    return found


_TRAIN: Parts = ("train",)
_TESTS: tuple[Parts, ...] = (("test",), ("val",), ("valid",), ("validation",))


def _root(source: _Source) -> Parts:
    """The folder that holds classes or parts: archives, and many folders, have one more around it."""
    at: Parts = ()
    for _ in range(4):
        folders = source.folders(at)
        if len(folders) != 1 or (folders[0],) in (_TRAIN, *_TESTS) or source.has_pictures(at):
            break
        inner = (*at, folders[0])
        if source.has_pictures(inner) or not source.folders(inner):
            break  # a class, though the only one
        at = inner
    return at


def _parts(source: _Source, root: Parts) -> list[Parts]:
    """The folders of train, test and so on; only the root itself, (), where the classes are not in parts."""
    names = source.folders(root)

    def holds_classes(part: Parts) -> bool:  # `train` may be a class among others, with pictures of trains
        at = (*root, *part)
        return part[0] in names and bool(source.folders(at)) and not source.has_pictures(at)

    found = [part for part in (_TRAIN, *_TESTS) if holds_classes(part)]
    return found if _TRAIN in found or (found and len(found) == len(names)) else [()]


def _chosen(source: _Source, parts: list[Parts], part: Part) -> list[Parts]:
    if part == "all" or (part == "train" and parts == [()]):
        return parts
    chosen = [p for p in parts if (p == _TRAIN if part == "train" else p in _TESTS)][:1]
    if not chosen:
        raise InputError(f"{source.shown} has no {part} part", f"name a folder with {part}/ in it, or use all of this one")
    return chosen


class _Unreadable(Exception):
    """One picture cannot be used; the others may."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _content(source: _Source, handle: Any) -> bytes:
    try:
        return source.read(handle)
    except VizcompError as exc:
        if source.is_folder or isinstance(exc, TooLargeError):
            raise _Unreadable(exc.message) from exc
        raise  # an archive that breaks has no more pictures


def _picture(data: bytes, size: int) -> Pixels:
    """One picture as uint8 (size, size, 3)."""
    pixels = _small_picture(data)
    if pixels is None:
        try:
            pixels = _upright_rgb(data)
        except VizcompError as exc:
            raise _Unreadable(exc.message) from exc
    return pixels if pixels.shape[:2] == (size, size) else _square(pixels, size)


def _small_picture(data: bytes) -> Pixels | None:
    """The plain case, quickly: a small JPEG or PNG without anything odd. None for all others, the broken ones too.

    The checks of `images.load_bytes` cost more time than such a picture itself, 50,000 times.
    """
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    if len(data) > _SMALL:
        return None
    try:
        image: JpegImageFile | PngImageFile
        if data.startswith(b"\xff\xd8\xff"):
            image = JpegImageFile(io.BytesIO(data))
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            image = PngImageFile(io.BytesIO(data))
        else:
            return None
        if image.mode not in ("L", "RGB") or image.width * image.height > _SMALL_PIXELS:
            return None
        image.load()
        if "exif" in image.info or "transparency" in image.info:
            return None
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception:  # decoders fail with almost anything; the careful way says what is wrong
        return None


def _upright_rgb(data: bytes) -> Pixels:
    """Any picture as displayed: uint8 (H, W, 3), C-contiguous. Errors as `images.load_bytes`."""
    photo = load_bytes(data, "the file")
    pixels = upright(photo.pixels, photo.orientation)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels)


def _square(pixels: Pixels, size: int) -> Pixels:
    """The square in the middle of uint8 (H, W, 3), resized to (size, size, 3); Lanczos, widened where it shrinks."""
    from PIL import Image

    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0))
