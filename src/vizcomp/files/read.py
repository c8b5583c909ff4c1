"""A file read once, checked by its first bytes, or mapped; the state of a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from vizcomp.errors import InputError, TooLargeError
from vizcomp.files.place import disk_cause, file_kind, printable, store_error
from vizcomp.files.store import AnyPath, StorePath

HEAD_BYTES = 4096
_STORED_WHOLE = 1 << 26  # bytes: below, looking at an object's head first costs more than it saves

Check = Callable[[bytes, str], object]


def read_file(path: AnyPath, *, check: Check, max_bytes: int) -> bytes:
    """The bytes of a file, read once; nothing large that is not what is wanted is ever read.

    Args:
        path: the file.
        check: is given the first bytes of a file that is not empty, and its name; raises where it
            is not wanted.
        max_bytes: a larger file is refused before it is read.

    Raises:
        InputError: missing, not a file, no permission; TooLargeError.
    """
    if isinstance(path, StorePath):
        return _stored_bytes(path, check, max_bytes)
    with _file(path, check) as (file, size):
        if size > max_bytes:
            raise _too_many_bytes(path, size)
        file.seek(0)
        return file.read()


def _too_many_bytes(path: AnyPath, size: int) -> TooLargeError:
    return TooLargeError(
        f"{printable(path)} has {size} bytes, more than a picture of the allowed size",
        "raise the limit with `max_pixels`",
    )


def _stored_bytes(path: StorePath, check: Check, max_bytes: int | None) -> bytes:
    """An object of a store; one that is large shows its first bytes before the rest is fetched."""
    name = printable(path)
    try:
        size = path.stat().st_size
        if size > _STORED_WHOLE:
            check(path.head(HEAD_BYTES), name)
        if max_bytes is not None and size > max_bytes:
            raise _too_many_bytes(path, size)
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise InputError(f"{name} does not exist", "check the bucket and the key") from exc
    except OSError as exc:
        raise store_error(name, exc) from exc
    except MemoryError as exc:
        raise TooLargeError(
            f"{name} does not fit into memory", "make it smaller, or run fewer jobs at once"
        ) from exc
    if data:
        check(data[:HEAD_BYTES], name)
    return data


def map_file(path: AnyPath, *, check: Check) -> bytes | mmap.mmap:
    """The bytes of a file, mapped and not read (fetched from a store); arguments and errors as for
    `read_file`."""
    if isinstance(path, StorePath):
        return _stored_bytes(path, check, None)
    with _file(path, check) as (file, size):
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


@contextlib.contextmanager
def _file(path: Path, check: Check) -> Iterator[tuple[io.FileIO, int]]:
    """A regular file that passes the check, and its size; what goes wrong with it is one of our
    errors."""
    name = printable(path)
    try:
        # Without O_NONBLOCK the opening of a pipe with no writer would wait for ever.
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError as exc:
        raise InputError(f"{name} does not exist", "check the path") from exc
    except (OSError, ValueError) as exc:
        raise InputError(
            f"{name} cannot be opened: {disk_cause(exc)}", "check the path and its permissions"
        ) from exc
    try:
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(
                    f"{name} is a {file_kind(status.st_mode)}, not a file", "name a file"
                )
            head = file.read(HEAD_BYTES)
            if head:
                check(head, name)
            yield file, status.st_size
    except OSError as exc:
        raise InputError(
            f"{name} cannot be read: {disk_cause(exc)}", "check the disk and the file's permissions"
        ) from exc
    except MemoryError as exc:
        raise TooLargeError(
            f"{name} does not fit into memory", "make it smaller, or run fewer jobs at once"
        ) from exc


FileState = tuple[int, int, str]
"""Of a file: its size in bytes, its time of change in nanoseconds, and the SHA-256 of its
content."""


def file_stamp(path: AnyPath) -> tuple[int, int] | None:
    """Size and time of change, which tell whether a file was touched; None where it is not
    there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def file_state(path: AnyPath) -> FileState:
    """The state of a file, which is read for it; of an object, for which its store is asked (it has
    a mark of the content).

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(path, StorePath):
        return path.state()
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        return stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()
