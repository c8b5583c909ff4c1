"""Photos and results in object storage, by fsspec: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`.
`file:///PATH` is a local path.

`parse` is where a name given by a user becomes a place: a `pathlib.Path` for anything local, which
takes the way it always took, or a `StorePath`, which has those methods of a path that this package
uses. fsspec is imported when a store is first asked.

What a store promises and a disk does not: an object appears whole or not at all (a PUT, or a
multipart upload when it is completed), so there is no file beside it and no renaming. Requests that
fail are repeated by the library of the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vizcomp.errors import MissingExtraError, OutputError, SettingsError
from vizcomp.files.place import store_cause

# scheme to the package that speaks it, and our extra that brings it
SCHEMES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gs")}

RETRIES = 8
CONNECT_SECONDS = 10
READ_SECONDS = 60
PAGE = 1000  # names for each request; S3 gives no more
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


def is_url(text: str) -> bool:
    """Whether a name says of itself where it is, as s3://bucket/a.jpg; a file that exists under
    that name is a file."""
    return _URL.fullmatch(text) is not None and not os.path.lexists(text)


def parse_place(text: str | os.PathLike[str]) -> AnyPath:
    """A place that a user named.

    Raises:
        SettingsError: a scheme that we do not know, no bucket, `file://` of another machine.
    """
    name = os.fspath(text)
    match = _URL.fullmatch(name)
    if match is None or os.path.lexists(name):
        return Path(name)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        if not rest.startswith("/"):
            raise SettingsError(
                f"{name!r} names a machine", "write file:///PATH, with three slashes"
            )
        return Path(rest)
    if scheme not in SCHEMES:
        schemes = ", ".join(f"{s}://" for s in ("file", *SCHEMES))
        raise SettingsError(
            f"{scheme}:// is no storage that is known here", f"use {schemes} or a local path"
        )
    bucket, _, key = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        raise SettingsError(f"{name!r} names no bucket", f"write {scheme}://BUCKET/KEY")
    return StorePath(scheme, bucket, key)


class Stat(NamedTuple):
    """What is known of an object: its bytes, time of change in nanoseconds (0 where unknown), and a
    tag of its content."""

    st_size: int
    st_mtime_ns: int
    tag: str


@dataclasses.dataclass(frozen=True)
class StorePath:
    """An object, or a prefix of objects, which acts as a folder. Keys are kept to the letter:
    `a//b` and `a/../b` are names.

    Attributes:
        scheme, bucket, key: its parts; a folder that was listed has its whole prefix for a key,
            with the last slash.
        known: what a listing said of it, so that it is not asked for again; it travels to workers.
        existed: whether the object existed when its task was handed out; None if not checked. It
            lets a retried task tell its own output from an earlier file.
    """

    scheme: str
    bucket: str
    key: str
    known: Stat | None = dataclasses.field(default=None, compare=False)
    existed: bool | None = dataclasses.field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.removesuffix("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """As `PurePath.suffix`."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """As `PurePath.suffix`."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> StorePath:
        """The folder."""
        above, slash, _ = self.key.removesuffix("/").rpartition("/")
        return StorePath(self.scheme, self.bucket, above + slash)

    @property
    def prefix(self) -> str:
        """What the keys of all objects below begin with."""
        return self.key if not self.key or self.key.endswith("/") else self.key + "/"

    def joinpath(self, *parts: str | PurePosixPath) -> StorePath:
        """A place below; parts are safe ones, made by `names.OutputNames`."""
        return StorePath(
            self.scheme, self.bucket, self.prefix + "/".join(str(part) for part in parts)
        )

    def __truediv__(self, part: str | PurePosixPath) -> StorePath:
        return self.joinpath(part)

    def with_name(self, name: str) -> StorePath:
        """Another object of the same folder."""
        return self.parent.joinpath(name)

    def absolute(self) -> StorePath:
        """Itself."""
        return self

    def relative_to(self, folder: StorePath) -> PurePosixPath:
        """The rest of the key.

        Raises:
            ValueError: it is not below.
        """
        if (self.scheme, self.bucket) != (folder.scheme, folder.bucket) or not self.key.startswith(
            folder.prefix
        ):
            raise ValueError(f"{self} does not lie below {folder}")
        return PurePosixPath(self.key[len(folder.prefix) :])

    # --- asked of the store

    @property
    def _name(self) -> str:
        return f"{self.bucket}/{self.key}"

    def _info(self) -> dict[str, Any] | None:
        with _errors(self):
            try:
                info: dict[str, Any] = _system(self.scheme).info(
                    self._name if self.key else self.bucket
                )
            except FileNotFoundError:
                return None
            return info

    def exists(self) -> bool:
        """Whether there is such an object; the answer of the moment when its task was handed out,
        where that was kept."""
        if self.existed is not None:
            return self.existed
        info = self._info()
        return info is not None and info["type"] == "file"

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        info = self._info()
        return info is not None and info["type"] == "directory"

    def stat(self) -> Stat:
        """What is known of the object.

        Raises:
            FileNotFoundError: there is none.
            OSError: the store does not answer, or refuses.
        """
        if self.known is not None:
            return self.known
        info = self._info()
        if info is None or info["type"] != "file":
            raise FileNotFoundError(2, "does not exist", str(self))
        return _stat(info)

    def state(self) -> tuple[int, int, str]:
        """Size, time, and a mark of the content as the store has it (its ETag or checksum): nothing
        is read for it."""
        fresh = dataclasses.replace(self, known=None).stat()
        return fresh.st_size, fresh.st_mtime_ns, fresh.tag

    def read_bytes(self) -> bytes:
        """The object.

        Raises:
            OSError: there is none, or the store gives none after all attempts.
        """
        with _errors(self):
            data: bytes = _system(self.scheme).cat_file(self._name)
        if self.known is not None and len(data) != self.known.st_size:
            changed = dataclasses.replace(self, known=None).stat()
            if changed.st_size != len(data):
                raise OSError(5, f"the store gave {len(data)} of {changed.st_size} bytes")
        return data

    def write_bytes(self, data: bytes) -> None:
        """Put the object: whole, or not at all.

        Raises:
            OSError: the store does not take it after all attempts.
        """
        with _errors(self):
            _system(self.scheme).pipe_file(self._name, data)

    def read_to(self, path: Path) -> None:
        """The object, as a file: never in memory as a whole.

        Raises:
            OSError: as `read_bytes`.
        """
        with _errors(self):
            _system(self.scheme).get_file(self._name, str(path))

    def unlink(self) -> None:
        """Remove the object.

        Raises:
            OSError: the store does not do so after all attempts.
        """
        with _errors(self):
            _system(self.scheme).rm_file(self._name)

    def write_from(self, path: Path) -> None:
        """Put the object from a file: whole, or not at all.

        Raises:
            OSError: as `write_bytes`.
        """
        with _errors(self):
            _system(self.scheme).put_file(str(path), self._name)

    def head(self, count: int) -> bytes:
        """The first bytes of the object."""
        with _errors(self):
            data: bytes = _system(self.scheme).cat_file(self._name, start=0, end=count)
        return data

    def list(self) -> Iterator[tuple[StorePath, bool]]:
        """What is directly in the folder, in the order of the store (by name), and whether it is a
        folder itself; pages of `PAGE` are asked for as they are needed."""
        with _errors(self):
            for info in _entries(self):
                key = info["name"].partition("/")[2]
                if info["type"] == "directory":
                    yield (
                        StorePath(
                            self.scheme,
                            self.bucket,
                            key.removesuffix("/") + "/" if self.scheme != "s3" else key,
                        ),
                        True,
                    )
                elif not key.endswith("/"):  # with a slash it is an object that marks a folder
                    yield StorePath(self.scheme, self.bucket, key, _stat(info)), False

    def check_writable(self) -> None:
        """Proves that objects can be written below, without leaving one.

        Raises:
            OutputError: no such bucket, no permission, no answer.
        """
        try:
            system = _system(self.scheme)
            with _errors(self):
                if self.scheme == "s3":  # an upload that is begun and given up makes no object
                    probe = self.joinpath(".vizcomp-probe").key
                    begun = system.call_s3("create_multipart_upload", Bucket=self.bucket, Key=probe)
                    system.call_s3(
                        "abort_multipart_upload",
                        Bucket=self.bucket,
                        Key=probe,
                        UploadId=begun["UploadId"],
                    )
                elif not system.exists(self.bucket):
                    raise FileNotFoundError(2, "no such bucket")
        except OSError as exc:
            raise OutputError(
                f"{self} cannot be written: {store_cause(exc)}",
                "check the bucket, the credentials and the endpoint",
            ) from exc


AnyPath = Path | StorePath


def same_place(one: AnyPath, other: AnyPath) -> bool:
    """Whether two places are one file or one object; the first exists."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.samefile(other)
    return one == other


def walk(
    folder: StorePath, exclude: StorePath | None = None
) -> Iterator[tuple[StorePath, PurePosixPath]]:
    """The objects below a folder with their path below it: those of a folder by name, then its
    sub-folders by name; hidden ones and those below `exclude` are left out.

    Raises:
        OSError: the store does not answer.
    """
    stack = [(folder, PurePosixPath())]
    while stack:
        here, below = stack.pop()
        folders = []
        for place, is_dir in here.list():
            if place.name.startswith("."):
                continue
            if not is_dir:
                yield place, below / place.name
            elif exclude is None or (place.bucket, place.prefix) != (
                exclude.bucket,
                exclude.prefix,
            ):
                folders.append((place, below / place.name))
        stack.extend(sorted(folders, key=lambda each: each[0].key, reverse=True))


def matches(pattern: StorePath) -> Iterator[tuple[StorePath, PurePosixPath]]:
    """The objects whose key has the pattern's parts, `**` for any number of folders; with their
    path below the part of the pattern that has no wildcards.

    Raises:
        OSError: the store does not answer.
    """
    parts = pattern.key.split("/")
    fixed = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    root = StorePath(pattern.scheme, pattern.bucket, "".join(part + "/" for part in parts[:fixed]))
    stack: list[tuple[StorePath, PurePosixPath, tuple[tuple[str, ...], ...]]] = [
        (root, PurePosixPath(), (tuple(parts[fixed:]),))
    ]
    while stack:
        here, below, open_ = stack.pop()
        folders = []
        for place, is_dir in here.list():
            rests = tuple(
                dict.fromkeys(rest for parts in open_ for rest in _advanced(parts, place.name))
            )
            if is_dir:
                if any(rests):
                    folders.append(
                        (place, below / place.name, tuple(rest for rest in rests if rest))
                    )
            elif any(not rest or set(rest) == {"**"} for rest in rests):
                yield place, below / place.name
        stack.extend(sorted(folders, key=lambda each: each[0].key, reverse=True))


def _advanced(parts: Sequence[str], name: str) -> Iterator[tuple[str, ...]]:
    """What is left of a pattern after one name; a name that starts with a dot has to be spelled
    out."""
    head, *rest = parts
    if head == "**":
        if not name.startswith("."):
            yield tuple(parts)
        if rest:
            yield from _advanced(rest, name)
    elif (not name.startswith(".") or head.startswith(".")) and fnmatch.fnmatchcase(name, head):
        yield tuple(rest)


@contextlib.contextmanager
def _errors(place: StorePath) -> Iterator[None]:
    """Whatever a library of a store throws is an OSError, with its cause."""
    try:
        yield
    except (OSError, MemoryError, MissingExtraError):
        raise
    except Exception as exc:  # botocore, aiohttp and google each have trees of their own
        raise OSError(5, store_cause(exc) or type(exc).__name__, str(place)) from exc


def _stat(info: dict[str, Any]) -> Stat:
    when: Any = info.get("LastModified") or info.get("updated") or info.get("mtime")
    if isinstance(when, str):
        import datetime

        when = datetime.datetime.fromisoformat(when.replace("Z", "+00:00"))
    # whole seconds: a listing and a single answer give the rest differently
    nanoseconds = int(when.timestamp()) * 1_000_000_000 if when is not None else 0
    tag = str(info.get("ETag") or info.get("etag") or info.get("md5Hash") or "").strip('"')
    return Stat(int(info.get("size") or 0), nanoseconds, tag)


@functools.lru_cache(maxsize=4)
def _system(scheme: str) -> Any:
    """The store's fsspec file system, one for each process.

    Credentials, region and endpoint come from where the store's own tools take them:
    AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws, the role of the machine;
    GOOGLE_APPLICATION_CREDENTIALS and so on.
    """
    package, extra = SCHEMES[scheme]
    try:
        import fsspec

        if scheme == "s3":
            options: dict[str, Any] = {
                "config_kwargs": {
                    "connect_timeout": CONNECT_SECONDS,
                    "read_timeout": READ_SECONDS,
                    "retries": {"max_attempts": 2, "mode": "standard"},
                }
            }
        else:
            options = {"cache_timeout": 0}
        system = fsspec.filesystem(
            scheme, use_listings_cache=False, skip_instance_cache=True, **options
        )
    except ImportError as exc:
        raise MissingExtraError(package, extra) from exc
    if scheme == "s3":
        system.retries = RETRIES
    return system


def _entries(folder: StorePath) -> Iterator[dict[str, Any]]:
    system = _system(folder.scheme)
    prefix = folder.prefix
    if folder.scheme != "s3":
        with contextlib.suppress(FileNotFoundError):
            yield from sorted(
                system.ls(f"{folder.bucket}/{prefix}", detail=True),
                key=lambda info: info["name"].encode(),
            )
        return
    token: dict[str, str] = {}
    while True:  # by hand, since fsspec's own listing of a folder holds all of it at once
        page = system.call_s3(
            "list_objects_v2",
            Bucket=folder.bucket,
            Prefix=prefix,
            Delimiter="/",
            MaxKeys=PAGE,
            **token,
        )
        for one in page.get("Contents", ()):
            yield {
                **one,
                "name": f"{folder.bucket}/{one['Key']}",
                "size": one["Size"],
                "type": "file",
            }
        for one in page.get("CommonPrefixes", ()):
            yield {"name": f"{folder.bucket}/{one['Prefix']}", "type": "directory"}
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}
