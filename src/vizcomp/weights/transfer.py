"""Bytes from a server to a file: resumed, measured, checked."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import hashlib
import http.client
import ipaddress
import json
import os
import queue
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from vizcomp.errors import VizcompError
from vizcomp.files.foreign import read_object_file
from vizcomp.weights import table

if TYPE_CHECKING:
    import requests


BLOCK = 1 << 16  # what is lost at most when a connection breaks
RANGE = 1 << 20  # asked for at a time inside an archive
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

NO_NAME = "no such server is known: there is no network, or it is gone"
SLOWEST = 2048  # bytes a second over `timeout` seconds; a source below that is given up
MOST = 4 << 30  # bytes of a file of unknown size

OnBytes = Callable[[int, int], None]  # bytes so far, bytes in all or 0
Check = Callable[[Path], None]


class Refused(Exception):
    """This source is of no use."""


class Passing(Exception):
    """What went wrong may pass: try the same source again, after `wait` seconds if the server said
    so."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def digest(path: Path, kind: str = "sha256") -> str:
    """A file's checksum, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


@dataclasses.dataclass(frozen=True)
class Job:
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


def reason(error: BaseException) -> str:
    """The innermost words: requests wraps them three deep."""
    while (
        inner := error.__cause__
        or error.__context__
        or next((a for a in error.args if isinstance(a, BaseException)), None)
    ) is not None:
        error = inner
    if isinstance(error, socket.gaierror) and error.errno in (
        socket.EAI_NONAME,
        getattr(socket, "EAI_NODATA", None),
    ):
        return NO_NAME
    if isinstance(error, http.client.IncompleteRead):
        return f"broke off, {error.expected or 0:,} bytes too early"
    if isinstance(error, http.client.BadStatusLine):
        return "gives no answer of a web server"
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def open_session() -> requests.Session:
    """A session whose redirects do not lead from the internet into a private network."""
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target = super().get_redirect_target(resp)
            if (
                target is not None
                and is_private(urljoin(resp.url, target))
                and not is_private(resp.url)
            ):
                resp.close()
                raise Refused("redirects to an address of a private network")
            return target

    session = Session()
    session.max_redirects = 8
    session.headers["Accept-Encoding"] = "identity"  # sizes and ranges are of the file itself
    return session


def is_private(url: str) -> bool:
    """Whether a URL's server has an address that is not one of the internet: of this machine, a
    local network, a link."""
    host = (urlsplit(url).hostname or "").partition("%")[0]
    try:
        addresses = (
            {host}
            if _is_address(host)
            else {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
        )
    except (OSError, UnicodeError):  # the request itself says that there is no such name
        return host == "localhost"
    return not all(ipaddress.ip_address(each.partition("%")[0]).is_global for each in addresses)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def get(
    session: requests.Session, url: str, timeout: float, headers: dict[str, str]
) -> requests.Response:
    """The answer of a server, redirects followed, within three times the time that one read of it
    may take.

    Raises:
        Passing: it took longer, or the server says that it is busy.
        Refused: it says that there is nothing.
    """
    response = _within(
        3 * timeout, lambda: session.get(url, headers=headers, stream=True, timeout=timeout)
    )
    code = response.status_code
    if code < 400 or code == 416:
        return response
    response.close()
    said = f"answers {code} {response.reason or ''}".strip()
    if code in TRANSIENT:
        raise Passing(said, _asked_wait(response.headers.get("Retry-After", "")))
    raise Refused(said)


def _within(seconds: float, ask: Callable[[], requests.Response]) -> requests.Response:
    """What `ask` gives: a server that sends its headers a byte at a time would keep each single
    read from ever being late."""
    answers: queue.SimpleQueue[requests.Response | BaseException] = queue.SimpleQueue()
    late = threading.Event()

    def work() -> None:
        try:
            response = ask()
        except BaseException as exc:
            answers.put(exc)
        else:
            answers.put(response)
            if late.is_set():
                response.close()

    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        late.set()
        raise Passing(f"gave no answer within {seconds:g} seconds") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


@contextlib.contextmanager
def deadline(response: requests.Response, seconds: float) -> Iterator[Callable[[], None]]:
    """Ends the reading of a response where what is given is not called for so many seconds: reads
    may trickle within one."""
    last = time.monotonic()
    over = threading.Event()

    def watch() -> None:
        while (rest := last + seconds - time.monotonic()) > 0:
            if over.wait(rest):
                return
        with contextlib.suppress(Exception):  # it has ended by itself
            response.raw.shutdown()

    def renew() -> None:
        nonlocal last
        last = time.monotonic()

    threading.Thread(target=watch, name="deadline", daemon=True).start()
    try:
        yield renew
    finally:
        over.set()


def _asked_wait(words: str) -> float:
    """Seconds of a Retry-After, which gives them or a date; 0 where it says neither."""
    if words.isdigit():
        return float(words)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(words).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def read_blocks(response: requests.Response, timeout: float) -> Iterator[bytes]:
    """What comes, as it comes: to wait until a block is full would hide a server that gives a byte
    now and then.

    As it lies on the server, too: an archive whose own compression is named as that of the transfer
    would be unpacked else.
    """
    with network_errors(), deadline(response, 2 * timeout) as renew:
        while data := response.raw.read1(BLOCK, decode_content=False):
            renew()
            yield data


@contextlib.contextmanager
def network_errors() -> Iterator[None]:
    """Errors of urllib3, which requests lets through where bytes are read below it."""
    import requests
    import urllib3

    try:
        yield
    except urllib3.exceptions.HTTPError as exc:
        raise requests.ConnectionError(exc) from exc


def take(job: Job, source: table.Source, session: requests.Session) -> None:
    """Fill the hidden file, from where it stopped if that is safe."""
    have, headers = _resumable(job, source)
    if job.size and have == job.size:
        return  # only the checks were missing
    with get(session, source.url, job.timeout, headers) as response:
        if response.status_code == 416:
            job.discard()
            if not headers:
                raise Refused("answers 416 to the whole file")
            raise Passing("what was there of it does not fit")
        refuse_page(response)
        offset = range_offset(response) if response.status_code == 206 else 0
        if offset not in (0, have):
            raise Refused(f"gives bytes from {offset:,} on, was asked for {have:,}")
        length = response.headers.get("Content-Length", "")
        coded = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coded not in ("", "identity") and not urlsplit(source.url).path.lower().endswith(
            (".gz", ".tgz")
        ):
            raise Refused(f"sends it compressed ({coded[:20]}), which was not asked for")
        total = offset + int(length) if length.isdigit() else 0
        if job.size and total and total != job.size:
            raise Refused(f"has {total:,} bytes, should have {job.size:,}")
        check_room(job, total - offset)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
        not_a_link(job.note)
        job.note.write_text(
            json.dumps({"url": source.url, "tag": "" if tag.startswith("W/") else tag}), "utf-8"
        )
        pour(job, read_blocks(response, job.timeout), offset, job.size or total)
        size = job.part.stat().st_size
        if (job.size or total) and size < (job.size or total):
            raise Passing(f"broke off after {size:,} of {job.size or total:,} bytes")


def _resumable(job: Job, source: table.Source) -> tuple[int, dict[str, str]]:
    """Bytes that need not come again, and the headers that ask for the rest."""
    try:
        have = job.part.stat().st_size
        note = read_object_file(job.note)
        url, tag = str(note["url"]), str(note["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        job.discard()
        return 0, {}
    if (
        have == 0
        or (job.size and have > job.size)
        or not (job.known or (url == source.url and tag))
    ):
        job.discard()
        return 0, {}
    headers = {"Range": f"bytes={have}-"}
    if url == source.url and tag:
        headers["If-Range"] = tag  # changed meanwhile: the server sends all of it
    return have, headers


def not_a_link(path: Path) -> None:
    """A link in the place of a file that is to be written goes: it would be written through."""
    if path.is_symlink():
        path.unlink()


def range_offset(response: requests.Response) -> int:
    try:
        return int(response.headers["Content-Range"].split()[1].split("-")[0])
    except (KeyError, IndexError, ValueError):
        raise Refused("answers a part without saying which") from None


def refuse_page(response: requests.Response) -> None:
    """Dead links of file hosts answer 200 with a page of excuses."""
    if response.headers.get("Content-Type", "").split(";")[0].strip().lower() in (
        "text/html",
        "application/xhtml+xml",
    ):
        raise Refused("gives a web page in place of the file")


def check_room(job: Job, more: int) -> None:
    free = shutil.disk_usage(job.path.parent).free
    if more > free:
        raise OSError(0, f"{more:,} bytes are to come, and {free:,} are free")


class Pace:
    """How fast bytes come."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._bytes, self._window = 0, time.monotonic()

    def took(self, count: int) -> None:
        """So many more have come.

        Raises:
            Passing: they come too slowly.
        """
        self._bytes += count
        if (passed := time.monotonic() - self._window) > self._timeout:
            if self._bytes < SLOWEST * passed:
                raise Passing(f"gives {self._bytes / passed:,.0f} bytes a second")
            self._bytes, self._window = 0, time.monotonic()


def pour(job: Job, blocks: Iterator[bytes], offset: int, total: int) -> None:
    """Blocks into the hidden file from `offset` on."""
    most = total or MOST
    pace = Pace(job.timeout)
    not_a_link(job.part)
    with job.part.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        have = offset
        for block in blocks:
            if not have and block[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
                job.discard()
                raise Refused("gives a web page in place of the file")
            have += len(block)
            if have > most:
                job.discard()
                raise Refused(f"gives more than the {most:,} bytes it should have")
            file.write(block)
            file.flush()  # a process that is killed has kept it
            job.on_bytes(have, total)
            pace.took(len(block))


def finish(job: Job) -> str:
    """Check the hidden file, and rename it: its sha256."""
    sha256, size = digest(job.part), job.part.stat().st_size
    wrong = ""
    if job.size and size != job.size:
        wrong = f"gave {size:,} bytes, should have given {job.size:,}"
    elif not size:
        wrong = "gave an empty file"
    elif not sha256.startswith(job.sha256) or (job.md5 and digest(job.part, "md5") != job.md5):
        wrong = "gave other content: the checksum differs"
    elif job.check is not None:
        try:
            job.check(job.part)
        except VizcompError as exc:
            wrong = f"gave other content: {exc.message.replace(str(job.part), 'what came')}"
    if wrong:
        job.discard()
        raise Refused(wrong)
    os.replace(job.part, job.path)
    job.note.unlink(missing_ok=True)
    return sha256
