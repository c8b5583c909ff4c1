"""Files from the network: several mirrors, resume, checks. The only place that opens a socket for weights and data.

A download goes into the hidden file `.NAME.part` beside its place, with `.NAME.part.json` saying what it is of, and is renamed
when every check has passed; so a file under its own name is whole. Two processes that want one file fetch it once.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import email.utils
import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from vizcomp.errors import VizcompError, WeightsMissingError

if TYPE_CHECKING:
    import requests

BLOCK = 1 << 16  # what is lost at most when a connection breaks
RANGE = 1 << 20  # asked for at a time inside an archive
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
TRIES = 4  # of one source without getting further, where what went wrong may pass
FURTHER = 1 << 20  # new bytes that reset the count of tries
LONGEST_WAIT = 20.0  # seconds between two tries, whatever the server asks for
NO_NAME = "no such server is known: there is no network, or it is gone"
SLOWEST = 2048  # bytes a second over `timeout` seconds; a source below that is given up
MOST = 4 << 30  # bytes of a file of unknown size

OnBytes = Callable[[int, int], None]  # bytes so far, bytes in all or 0
Check = Callable[[Path], None]


class Watcher(Protocol):
    """Receives the progress of downloads."""

    def source(self, file: str, source: Source) -> contextlib.AbstractContextManager[OnBytes]:
        """A source is tried, as long as the context lasts; what it gives is told how far it is."""

    def done(self, file: str, sha256: str) -> None:
        """A file has come."""


class _Nobody:
    def source(self, file: str, source: Source) -> contextlib.AbstractContextManager[OnBytes]:
        return contextlib.nullcontext(lambda _have, _all: None)

    def done(self, file: str, sha256: str) -> None:
        pass


_watcher: contextvars.ContextVar[Watcher] = contextvars.ContextVar("watcher", default=_Nobody())  # noqa: B039 - it has no state


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Whatever is downloaded in this context is reported to the watcher.

    A context and no argument, since files come when a network is opened, many calls below the command that can show it.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a file may be had.

    Attributes:
        url: http or https.
        member: its name inside the zip archive at `url`; "" where the URL is the file itself.
        words: what is particular to the file of this source ("2019", say); kept with the cached copy.
    """

    url: str
    member: str = ""
    words: str = ""

    def __str__(self) -> str:
        return f"{self.url} ({self.member})" if self.member else self.url


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What came of a download: its source and the file's sha256, hexadecimal. `source` is None where another process had it."""

    source: Source | None
    sha256: str


class _Refused(Exception):
    """This source is of no use."""


class _Passing(Exception):
    """What went wrong may pass: try the same source again, after `wait` seconds if the server said so."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def fetch(
    sources: Sequence[Source],
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
        sha256, md5: that it must have; "" = unknown. Of the sha256 the first digits suffice, where no more was published.
        timeout: seconds without a byte after which a connection is given up.
        pause: seconds before the second try of a source; doubled for each further one.
        check: of the content, before it is put in its place: raises a `VizcompError` where it is not what it should be.
        by_hand: what to do where no source has it.

    Raises:
        WeightsMissingError: no source gave it; a line for each with its reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(path)
    except OSError as exc:
        raise WeightsMissingError(
            f"{path.parent} cannot be written: {exc.strerror}", "set VIZCOMP_CACHE to a folder of yours"
        ) from exc
    with lock:
        if path.is_file():  # another process was faster
            return Fetched(None, digest(path))
        job = _Job(path, size, sha256, md5, timeout, check)
        watcher = _watcher.get()
        answers = []
        for source in sources:
            try:
                with watcher.source(path.name, source) as on_bytes:
                    found = _persist(dataclasses.replace(job, on_bytes=on_bytes), source, pause)
                watcher.done(path.name, found)
                return Fetched(source, found)
            except _Refused as exc:
                answers.append(f"{source}: {exc}")
            except OSError as exc:  # of the disk: those of the network are handled below
                raise WeightsMissingError(f"{path} cannot be written: {exc.strerror or exc}", "make room, and try again") from exc
    reasons = "\n  ".join(answers) or "no source is known"
    raise WeightsMissingError(f"{path.name} could not be had:\n  {reasons}", by_hand or f"put it into {path.parent} yourself")


def digest(path: Path, kind: str = "sha256") -> str:
    """A file's checksum, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


@contextlib.contextmanager
def _held(file: IO[bytes]) -> Iterator[None]:
    with file:  # closing it, or dying, gives the lock back
        yield


def locked(path: Path) -> contextlib.AbstractContextManager[None]:
    """Waits until no other process is at work on this file, and keeps others out.

    Raises:
        OSError: its folder cannot be written.
    """
    file = path.with_name(f".{path.name}.lock").open("wb")
    with contextlib.suppress(ImportError):  # no such module on Windows: there two processes fetch it twice, the later rename wins
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    return _held(file)


@dataclasses.dataclass(frozen=True)
class _Job:
    path: Path
    size: int
    sha256: str
    md5: str
    timeout: float
    check: Check | None = None
    on_bytes: OnBytes = lambda _have, _all: None

    @property
    def part(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    @property
    def note(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part.json")

    @property
    def have(self) -> int:
        """Bytes that came so far."""
        try:
            return self.part.stat().st_size
        except OSError:
            return 0

    @property
    def known(self) -> bool:
        """Whether bytes of two sources may be joined: a checksum will tell."""
        return bool(self.sha256 or self.md5)

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _persist(job: _Job, source: Source, pause: float) -> str:
    """The sha256 of the file, which is then in its place."""
    import requests

    if urlsplit(source.url).scheme not in ("http", "https"):
        raise _Refused("neither http nor https")
    why, turn, furthest = "", 0, 0
    while turn < TRIES:
        try:
            with requests.Session() as session:
                session.max_redirects = 8
                session.headers["Accept-Encoding"] = "identity"  # sizes and ranges are of the file itself
                if source.member:
                    _take_member(job, source, session)
                else:
                    _take(job, source, session)
            return _finish(job)
        except _Passing as exc:
            why, wait = str(exc), exc.wait
        except requests.TooManyRedirects:
            raise _Refused("redirects without end") from None
        except requests.exceptions.SSLError as exc:  # of the kind of those that pass, and does not
            raise _Refused(_reason(exc)) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as exc:
            why, wait = _reason(exc), 0.0
            if why == NO_NAME:  # that lasts
                raise _Refused(why) from None
        except requests.RequestException as exc:
            raise _Refused(_reason(exc)) from None
        if (have := job.have) >= furthest + FURTHER:  # a server that hangs up now and then is slow, not dead
            furthest, turn = have, 0
        turn += 1
        if turn < TRIES:
            time.sleep(min(LONGEST_WAIT, max(wait, pause * 2 ** (turn - 1))))
    raise _Refused(f"{why} ({TRIES} tries)")


def _reason(error: BaseException) -> str:
    """The innermost words: requests wraps them three deep."""
    while (
        inner := error.__cause__ or error.__context__ or next((a for a in error.args if isinstance(a, BaseException)), None)
    ) is not None:
        error = inner
    if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
        return NO_NAME
    if isinstance(error, http.client.IncompleteRead):
        return f"broke off, {error.expected or 0:,} bytes too early"
    if isinstance(error, http.client.BadStatusLine):
        return "gives no answer of a web server"
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def _get(session: requests.Session, url: str, timeout: float, headers: dict[str, str]) -> requests.Response:
    response = session.get(url, headers=headers, stream=True, timeout=timeout)
    code = response.status_code
    if code < 400 or code == 416:
        return response
    response.close()
    said = f"answers {code} {response.reason or ''}".strip()
    if code in TRANSIENT:
        raise _Passing(said, _asked_wait(response.headers.get("Retry-After", "")))
    raise _Refused(said)


def _asked_wait(words: str) -> float:
    """Seconds of a Retry-After, which gives them or a date; 0 where it says neither."""
    if words.isdigit():
        return float(words)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(words).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """What comes, as it comes: to wait until a block is full would hide a server that gives a byte now and then.

    As it lies on the server, too: an archive whose own compression is named as that of the transfer would be unpacked else.
    """
    with _network():
        while data := response.raw.read1(BLOCK, decode_content=False):
            yield data


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Errors of urllib3, which requests lets through where bytes are read below it."""
    import requests
    import urllib3

    try:
        yield
    except urllib3.exceptions.HTTPError as exc:
        raise requests.ConnectionError(exc) from exc


def _take(job: _Job, source: Source, session: requests.Session) -> None:
    """Fill the hidden file, from where it stopped if that is safe."""
    have, headers = _resumable(job, source)
    if job.size and have == job.size:
        return  # only the checks were missing
    with _get(session, source.url, job.timeout, headers) as response:
        if response.status_code == 416:
            job.discard()
            if not headers:
                raise _Refused("answers 416 to the whole file")
            raise _Passing("what was there of it does not fit")
        _no_page(response)
        offset = _offset(response) if response.status_code == 206 else 0
        if offset not in (0, have):
            raise _Refused(f"gives bytes from {offset:,} on, was asked for {have:,}")
        length = response.headers.get("Content-Length", "")
        coded = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coded not in ("", "identity") and not urlsplit(source.url).path.lower().endswith((".gz", ".tgz")):
            raise _Refused(f"sends it compressed ({coded[:20]}), which was not asked for")
        total = offset + int(length) if length.isdigit() else 0
        if job.size and total and total != job.size:
            raise _Refused(f"has {total:,} bytes, should have {job.size:,}")
        _room(job, total - offset)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
        job.note.write_text(json.dumps({"url": source.url, "tag": "" if tag.startswith("W/") else tag}), "utf-8")
        _pour(job, _blocks(response), offset, job.size or total)
        found = job.part.stat().st_size
        if (job.size or total) and found < (job.size or total):
            raise _Passing(f"broke off after {found:,} of {job.size or total:,} bytes")


def _resumable(job: _Job, source: Source) -> tuple[int, dict[str, str]]:
    """Bytes that need not come again, and the headers that ask for the rest."""
    try:
        have = job.part.stat().st_size
        note = json.loads(job.note.read_text("utf-8"))
        url, tag = str(note["url"]), str(note["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        job.discard()
        return 0, {}
    if have == 0 or (job.size and have > job.size) or not (job.known or (url == source.url and tag)):
        job.discard()
        return 0, {}
    headers = {"Range": f"bytes={have}-"}
    if url == source.url and tag:
        headers["If-Range"] = tag  # changed meanwhile: the server sends all of it
    return have, headers


def _offset(response: requests.Response) -> int:
    try:
        return int(response.headers["Content-Range"].split()[1].split("-")[0])
    except (KeyError, IndexError, ValueError):
        raise _Refused("answers a part without saying which") from None


def _no_page(response: requests.Response) -> None:
    """Dead links of file hosts answer 200 with a page of excuses."""
    if response.headers.get("Content-Type", "").split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        raise _Refused("gives a web page in place of the file")


def _room(job: _Job, more: int) -> None:
    free = shutil.disk_usage(job.path.parent).free
    if more > free:
        raise OSError(0, f"{more:,} bytes are to come, and {free:,} are free")


def _pour(job: _Job, blocks: Iterator[bytes], offset: int, total: int) -> None:
    """Blocks into the hidden file from `offset` on."""
    most = total or MOST
    slow, window = 0, time.monotonic()
    with job.part.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        have = offset
        for block in blocks:
            if not have and block[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
                job.discard()
                raise _Refused("gives a web page in place of the file")
            have += len(block)
            if have > most:
                job.discard()
                raise _Refused(f"gives more than the {most:,} bytes it should have")
            file.write(block)
            job.on_bytes(have, total)
            slow += len(block)
            if (now := time.monotonic()) - window > job.timeout:
                if slow < SLOWEST * (now - window):
                    raise _Passing(f"gives {slow / (now - window):,.0f} bytes a second")
                slow, window = 0, now


def _finish(job: _Job) -> str:
    """Check the hidden file, and rename it: its sha256."""
    found, size = digest(job.part), job.part.stat().st_size
    wrong = ""
    if job.size and size != job.size:
        wrong = f"gave {size:,} bytes, should have given {job.size:,}"
    elif not size:
        wrong = "gave an empty file"
    elif not found.startswith(job.sha256) or (job.md5 and digest(job.part, "md5") != job.md5):
        wrong = "gave other content: the checksum differs"
    elif job.check is not None:
        try:
            job.check(job.part)
        except VizcompError as exc:
            wrong = f"gave other content: {exc.message.replace(str(job.part), 'what came')}"
    if wrong:
        job.discard()
        raise _Refused(wrong)
    os.replace(job.part, job.path)
    job.note.unlink(missing_ok=True)
    return found


# --- one member of a zip archive --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _passing() -> Iterator[None]:
    """Errors of the network as `_Passing`: those of requests are OSErrors too, which zipfile takes for a damaged archive."""
    import requests

    try:
        with _network():
            yield
    except (requests.ConnectionError, requests.Timeout) as exc:
        raise _Passing(_reason(exc)) from exc


class _Remote(io.RawIOBase):
    """A file on a server that answers ranges, to be read anywhere."""

    def __init__(self, session: requests.Session, url: str, timeout: float) -> None:
        self._session, self._timeout, self._at = session, timeout, 0
        with _get(session, url, timeout, {"Range": "bytes=0-0"}) as response:
            _no_page(response)
            said = response.headers.get("Content-Range", "").rpartition("/")[2]
            if response.status_code != 206 or not said.isdigit():
                raise io.UnsupportedOperation("no ranges")
            self._size, self._url = int(said), response.url  # where redirects led

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        span = {"Range": f"bytes={self._at}-{self._at + wanted - 1}"}
        with _passing(), _get(self._session, self._url, self._timeout, span) as response:
            if response.status_code != 206 or _offset(response) != self._at:
                raise _Refused("does not answer ranges all the time")
            data = response.raw.read(wanted)
        if len(data) != wanted:
            raise _Passing("broke off")
        buffer[:wanted] = data
        self._at += wanted
        return wanted


def _take_member(job: _Job, source: Source, session: requests.Session) -> None:
    """One member of an archive, without the rest where the server answers ranges."""
    job.discard()
    whole = _Job(job.path.with_name(f".{job.path.name}.zip"), 0, "", "", job.timeout, on_bytes=job.on_bytes)
    try:
        try:
            archive: IO[bytes] = io.BufferedReader(_Remote(session, source.url, job.timeout), RANGE)
        except io.UnsupportedOperation:
            _take(whole, dataclasses.replace(source, member=""), session)
            archive = whole.part.open("rb")
        with archive, zipfile.ZipFile(archive) as members:
            info = members.getinfo(source.member)
            if job.size and info.file_size != job.size:
                raise _Refused(f"{source.member} has {info.file_size:,} bytes, should have {job.size:,}")
            if info.file_size > MOST:
                raise _Refused(f"{source.member} has {info.file_size:,} bytes")
            _room(job, info.file_size)
            with members.open(info) as file:
                _pour(job, iter(lambda: file.read(BLOCK), b""), 0, info.file_size)
    except KeyError:
        raise _Refused(f"the archive has no {source.member}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as exc:
        raise _Refused(f"no zip archive that can be read: {exc}") from None
    finally:
        whole.discard()
