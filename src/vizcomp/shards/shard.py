"""What a file of many photos owes; which files are such."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Protocol

from vizcomp.errors import InputError, OutputError
from vizcomp.files.place import STORE_HINT, printable, store_cause, store_error
from vizcomp.files.store import AnyPath, StorePath
from vizcomp.photos.formats import SUFFIXES

SHARDS = (".tar", ".parquet")
"""Lower-case suffixes of files that hold many photos. They are taken where they are named; folders
are not searched for them."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A photo in a shard.

    Attributes:
        name: by which it is found in the shard; of a table, its column and row.
        data: the bytes of its file.
        suffix: of its file's name, as ".png"; "" where it has none.
        fixed: why it must stay as it is, "" where it need not.
    """

    name: str
    data: bytes
    suffix: str
    fixed: str = ""


@dataclasses.dataclass(frozen=True)
class Replaced:
    """What takes a member's place: its bytes, and the suffix of its name where that is another one
    now; None: it stays."""

    data: bytes
    suffix: str


class ShardWriter(Protocol):
    """Writes a shard again."""

    def put(self, new: Replaced | None) -> None:
        """The next photo, in the order of `Shard.members`; None: as it was."""

    def close(self) -> None:
        """What comes after the last photo."""


class Shard(Protocol):
    """A file of many photos."""

    def members(self) -> Iterator[Member]:
        """Its photos in order, read as they are asked for."""

    def writer(self, file: BinaryIO) -> ShardWriter:
        """Writes it again, all but its photos as it is."""

    def close(self) -> None:
        """Nothing more is read."""


def is_shard(path: AnyPath) -> bool:
    """Whether a file's name says that it holds many photos."""
    return path.suffix.lower() in SHARDS


def new_suffix(own: str, wanted: str) -> str:
    """The suffix of a member that was written in another format: its own where that says the
    same."""
    if wanted in SUFFIXES["jpeg"] and own.lower() in SUFFIXES["jpeg"]:
        return own
    return wanted if wanted.lower() != own.lower() else own


@contextlib.contextmanager
def local_copy(place: AnyPath) -> Iterator[Path]:
    """A file on this machine's disks: itself, or a copy of an object for as long as the context
    lasts.

    Raises:
        InputError: it cannot be had.
    """
    if not isinstance(place, StorePath):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="vizcomp-") as folder:
        copy = Path(folder) / (PurePath(place.name).name or "shard")
        try:
            place.read_to(copy)
        except FileNotFoundError as exc:
            raise InputError(
                f"{printable(place)} does not exist", "check the bucket and the key"
            ) from exc
        except OSError as exc:
            raise store_error(printable(place), exc) from exc
        yield copy


def put_file(place: StorePath, file: Path) -> None:
    """An object from a file, whole or not at all.

    Raises:
        OutputError: the store does not take it.
    """
    try:
        place.write_from(file)
    except OSError as exc:
        raise OutputError(
            f"{printable(place)} cannot be written: {store_cause(exc)}", STORE_HINT
        ) from exc


def chunks_of(file: Any, size: int = 1 << 20) -> Iterator[bytes]:
    """A file from its beginning, part by part."""
    file.seek(0)
    while data := file.read(size):
        yield data
