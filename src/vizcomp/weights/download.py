"""One file from its sources, tried in turn, by one process at a time."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from vizcomp.errors import WeightsMissingError
from vizcomp.weights import table
from vizcomp.weights.member import take_member
from vizcomp.weights.transfer import (
    NO_NAME,
    Check,
    Job,
    OnBytes,
    Passing,
    Refused,
    digest,
    finish,
    not_a_link,
    open_session,
    reason,
    take,
)

TRIES = 4  # of one source without getting further, where what went wrong may pass
PROGRESS = 1 << 20  # new bytes that reset the count of tries
LONGEST_WAIT = 20.0  # seconds between two tries, whatever the server asks for


class Watcher(Protocol):
    """Receives the progress of downloads."""

    def source(self, file: str, source: table.Source) -> contextlib.AbstractContextManager[OnBytes]:
        """A source is tried, as long as the context lasts; what it gives is told how far it is."""

    def done(self, file: str, sha256: str) -> None:
        """A file has come."""

    def waits(self, file: str) -> None:
        """Another process is at work on a file: it is waited for."""


class _Nobody:
    def source(self, file: str, source: table.Source) -> contextlib.AbstractContextManager[OnBytes]:
        return contextlib.nullcontext(lambda _have, _all: None)

    def done(self, file: str, sha256: str) -> None:
        pass

    def waits(self, file: str) -> None:
        pass


_watcher: contextvars.ContextVar[Watcher] = contextvars.ContextVar("watcher", default=_Nobody())  # noqa: B039 - it has no state


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Whatever is downloaded in this context is reported to the watcher.

    A context and no argument, since files come when a network is opened, many calls below the
    command that can show it.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What came of a download: its source and the file's sha256, hexadecimal. `source` is None
    where another process had it."""

    source: table.Source | None
    sha256: str


def fetch(
    sources: Sequence[table.Source],
    path: Path,
    *,
    size: int = 0,
    sha256: str = "",
    md5: str = "",
    timeout: float = 20.0,
    pause: float = 1.0,
    check: Check | None = None,
    by_hand: str = "",
) -> Fetched:
    """Download a file from the first source that gives it whole; nothing where it is there already.

    Args:
        size: bytes it must have; 0 = unknown.
        sha256, md5: that it must have; "" = unknown. Of the sha256 the first digits suffice, where
            no more was published.
        timeout: seconds without a byte after which a connection is given up.
        pause: seconds before the second try of a source; doubled for each further one.
        check: of the content, before it is put in its place: raises a `VizcompError` where it is
            not what it should be.
        by_hand: what to do where no source has it.

    Raises:
        WeightsMissingError: no source gave it; a line for each with its reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(path)
    except OSError as exc:
        raise WeightsMissingError(
            f"{path.parent} cannot be written: {exc.strerror}",
            "set VIZCOMP_CACHE to a folder of yours",
        ) from exc
    with lock:
        if os.path.isfile(path):  # another process was faster
            return Fetched(None, digest(path))
        job = Job(path, size, sha256, md5, timeout, check)
        watcher = _watcher.get()
        answers = []
        for source in sources:
            try:
                with watcher.source(path.name, source) as on_bytes:
                    checksum = _persist(dataclasses.replace(job, on_bytes=on_bytes), source, pause)
                watcher.done(path.name, checksum)
                return Fetched(source, checksum)
            except Refused as exc:
                answers.append(f"{source}: {exc}")
            except OSError as exc:  # of the disk: those of the network are handled below
                raise WeightsMissingError(
                    f"{path} cannot be written: {exc.strerror or exc}", "make room, and try again"
                ) from exc
    reasons = "\n  ".join(answers) or "no source is known"
    raise WeightsMissingError(
        f"{path.name} could not be had:\n  {reasons}",
        by_hand or f"put it into {path.parent} yourself",
    )


@contextlib.contextmanager
def _held(file: IO[bytes]) -> Iterator[None]:
    with file:  # closing it, or dying, gives the lock back
        yield


def locked(path: Path) -> contextlib.AbstractContextManager[None]:
    """Waits until no other process is at work on this file, and keeps others out.

    Raises:
        OSError: its folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    not_a_link(lock)
    # neither is what it leads to emptied, nor is a pipe waited for
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = open(os.open(lock, flags, 0o644), "r+b", buffering=0)  # noqa: SIM115 - `_held` closes it
    # no such module on Windows: there two processes fetch it twice, the later rename wins
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _watcher.get().waits(path.name)
            fcntl.flock(file, fcntl.LOCK_EX)
    return _held(file)


def _persist(job: Job, source: table.Source, pause: float) -> str:
    """The sha256 of the file, which is then in its place."""
    import requests

    if urlsplit(source.url).scheme not in ("http", "https"):
        raise Refused("neither http nor https")
    why, turn, furthest = "", 0, 0
    while turn < TRIES:
        try:
            with open_session() as session:
                if source.member:
                    take_member(job, source, session)
                else:
                    take(job, source, session)
            return finish(job)
        except Passing as exc:
            why, wait = str(exc), exc.wait
        except requests.TooManyRedirects:
            raise Refused("redirects without end") from None
        except requests.exceptions.SSLError as exc:  # of the kind of those that pass, and does not
            raise Refused(reason(exc)) from None
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as exc:
            why, wait = reason(exc), 0.0
            if why == NO_NAME:  # that lasts
                raise Refused(why) from None
        except requests.RequestException as exc:
            raise Refused(reason(exc)) from None
        # a server that hangs up now and then is slow, not dead
        if (have := job.have) >= furthest + PROGRESS:
            furthest, turn = have, 0
        turn += 1
        if turn < TRIES:
            time.sleep(min(LONGEST_WAIT, max(wait, pause * 2 ** (turn - 1))))
    raise Refused(f"{why} ({TRIES} tries)")
