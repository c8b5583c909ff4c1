"""Outputs that are written whole or not at all: beside, then renamed."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import platform
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from vizcomp.errors import OutputError
from vizcomp.files.place import STORE_HINT, disk_cause, disk_hint, printable, store_cause
from vizcomp.files.store import AnyPath, StorePath


def write_atomic(
    path: AnyPath,
    data: bytes | Iterable[bytes],
    *,
    overwrite: bool = True,
    times: tuple[int, int] | None = None,
    below: AnyPath | None = None,
) -> None:
    """Write a file whole or not at all: into a hidden file beside it, then renamed. Missing folders
    are made.

    A link at `path` is itself replaced, never followed. Whatever fails, Ctrl-C included, leaves no
    file behind; only a process that is killed can, and `remove_leftovers` finds that. An object of
    a store is put whole, and keeps no times.

    Args:
        data: the content, whole or part by part.
        overwrite: False refuses a `path` that exists, also one that appears meanwhile.
        times: times of last access and last change, in nanoseconds.
        below: a folder of outputs that holds `path`; no folder between the two may be a link,
            whoever put it there and when.

    Raises:
        OutputError: with the cause: no space, no permission, read-only, name too long, exists ...
    """
    name = printable(path)
    if isinstance(path, StorePath):
        try:
            path.write_bytes(data if isinstance(data, bytes) else b"".join(data))
        except OSError as exc:
            raise OutputError(f"{name} cannot be written: {store_cause(exc)}", STORE_HINT) from exc
        return
    if not isinstance(below, Path):
        below = None
    path = Path(path)
    temporary: str | None = None
    with contextlib.ExitStack() as stack:
        try:
            # a descriptor, or None where names are whole paths
            folder = stack.enter_context(_folder_of(path, below))
            here = (
                (lambda part: part)
                if folder is not None
                else (lambda part: os.path.join(path.parent, part))
            )
            final = here(path.name)
            if not overwrite and lexists(final, folder):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if lexists(final, folder) and stat.S_ISDIR(
                os.stat(final, dir_fd=folder, follow_symlinks=False).st_mode
            ):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            # A name of its own, not made from the target's: that may be as long as the file system
            # allows.
            temporary = here(_temporary_name())
            _write_new(temporary, (data,) if isinstance(data, bytes) else data, folder)
            if times is not None:
                os.utime(temporary, ns=times, dir_fd=folder)
            if overwrite:
                os.replace(temporary, final, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                _rename_to_new(temporary, final, folder)
            temporary = None
        except FileExistsError as exc:
            # mkdir says the same of a file where a folder is needed
            if overwrite:
                raise OutputError(
                    f"{name} cannot be written: {disk_cause(exc)}", "choose another output folder"
                ) from exc
            raise OutputError(f"{name} exists already", "`overwrite` replaces it") from exc
        except (OSError, ValueError) as exc:
            raise OutputError(
                f"{name} cannot be written: {disk_cause(exc)}", disk_hint(exc)
            ) from exc
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)


_NEW = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)


def _write_new(path: str | Path, parts: Iterable[bytes], folder: int | None) -> None:
    """Writes a file that was not there; `folder` is a descriptor, or None for a whole path."""
    descriptor = os.open(path, _NEW, 0o666, dir_fd=folder)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)  # may be the first to say that a quota or a network disk is full


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden new file beside `path`, for libraries that write to a name. It becomes `path` at the
    end; where writing fails it goes, and `path` stays as it was. Nobody can know its name before,
    so no link that waits there is written through."""
    part = path.with_name(_temporary_name())
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield part
        part.chmod(0o644)  # some libraries write files for their owner alone
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _folder_of(path: Path, below: Path | None) -> Iterator[int | None]:
    """The folder that a file is to be written into, made where it is missing: a descriptor, entered
    from `below` part by part without following a link. None (the path is used as it is) without
    `below`, or where the system has no such descriptors."""
    if below is None or os.open not in os.supports_dir_fd or os.replace not in _WITH_FOLDERS:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield None
        return
    below.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
    folder = os.open(below, flags)
    try:
        for part in path.parent.relative_to(below).parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
                raise OutputError(
                    f"{printable(path)} cannot be written: the folder {printable(part)} is a link",
                    "remove it, or choose another folder",
                )
            inner = os.open(part, flags | getattr(os, "O_NOFOLLOW", 0), dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


_WITH_FOLDERS = os.supports_dir_fd | ({os.replace} if os.rename in os.supports_dir_fd else set())


def lexists(name: str | Path, folder: int | None) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _rename_to_new(temporary: str | Path, path: str | Path, folder: int | None = None) -> None:
    """Rename, failing with FileExistsError where there is a file already; atomic where the disk
    knows hard links."""
    try:
        os.link(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        raise
    except OSError:
        if lexists(path, folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(temporary, dir_fd=folder)


def _temporary_name() -> str:
    """A new name of a file that this process is writing."""
    return f"{_leftover_prefix()}{os.getpid()}-{secrets.token_hex(6)}.tmp"


@functools.lru_cache(maxsize=1)
def _leftover_prefix() -> str:
    """Begins the names of files that are being written, and says on which machine."""
    return f".vizcomp-{blake2b(platform.node().encode(), digest_size=4).hexdigest()}-"


def remove_leftovers(folder: AnyPath) -> int:
    """Remove what processes of this machine that are no more were writing in a folder when they
    were killed; how many files."""
    removed = 0
    if isinstance(folder, StorePath):
        return removed  # an object appears whole
    pattern = re.compile(re.escape(_leftover_prefix()) + r"(\d+)-[0-9a-f]{12}\.tmp")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := pattern.fullmatch(entry.name)) and not _runs(int(match[1])):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def _runs(process: int) -> bool:
    if os.name == "nt":
        return True  # a signal would end it there, and there is no other way to ask
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def check_output_folder(path: AnyPath) -> None:
    """Make the folder if it is missing, and prove by a small file that it can be written.

    Raises:
        OutputError: it is a file, or cannot be made or written.
    """
    if isinstance(path, StorePath):
        path.check_writable()
        return
    path = Path(path)
    name = printable(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise OutputError(f"{name} is not a folder", "choose another output folder") from exc
    except (OSError, ValueError) as exc:
        raise OutputError(
            f"the folder {name} cannot be made: {disk_cause(exc)}", disk_hint(exc)
        ) from exc
    probe = path / _temporary_name()
    try:
        write_atomic(probe, b"\n", overwrite=False)
    except OutputError as exc:
        cause = exc.__cause__
        text = disk_cause(cause) if cause is not None else exc.message
        raise OutputError(f"the folder {name} cannot be written: {text}", exc.hint) from exc
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
