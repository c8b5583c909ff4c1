"""One member of a zip archive on a server, without the rest of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from vizcomp.weights import table
from vizcomp.weights.transfer import (
    BLOCK,
    MOST,
    RANGE,
    Job,
    Pace,
    Passing,
    Refused,
    check_room,
    get,
    network_errors,
    pour,
    range_offset,
    read_blocks,
    reason,
    refuse_page,
    take,
)

if TYPE_CHECKING:
    import requests


@contextlib.contextmanager
def _passing() -> Iterator[None]:
    """Errors of the network as `Passing`: those of requests are OSErrors too, which zipfile takes
    for a damaged archive."""
    import requests

    try:
        with network_errors():
            yield
    except (requests.ConnectionError, requests.Timeout) as exc:
        raise Passing(reason(exc)) from exc


_DIRECTORY = 64 << 20  # bytes of an archive's directory, which zipfile holds in memory


class _Remote(io.RawIOBase):
    """A file on a server that answers ranges, to be read anywhere."""

    def __init__(self, session: requests.Session, url: str, timeout: float) -> None:
        self._session, self._timeout, self._at, self._left = session, timeout, 0, _DIRECTORY
        with get(session, url, timeout, {"Range": "bytes=0-0"}) as response:
            refuse_page(response)
            said = response.headers.get("Content-Range", "").rpartition("/")[2]
            if response.status_code != 206 or not said.isdigit():
                raise io.UnsupportedOperation("no ranges")
            self._size, self._url = int(said), response.url  # where redirects led

    def allow(self, count: int) -> None:
        """So many more bytes may be read: until then no more than the archive's directory may
        have."""
        self._left += count

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
        self._left -= wanted
        if self._left < 0:
            raise Refused("an archive that takes too many bytes to read")
        span = {"Range": f"bytes={self._at}-{self._at + wanted - 1}"}
        with _passing(), get(self._session, self._url, self._timeout, span) as response:
            if response.status_code != 206 or range_offset(response) != self._at:
                raise Refused("does not answer ranges all the time")
            parts, pace = [], Pace(self._timeout)
            for part in read_blocks(response, self._timeout):
                parts.append(part)
                pace.took(len(part))
                if sum(map(len, parts)) >= wanted:
                    break
        data = b"".join(parts)
        if len(data) != wanted:
            raise Passing("broke off")
        buffer[:wanted] = data
        self._at += wanted
        return wanted


def take_member(job: Job, source: table.Source, session: requests.Session) -> None:
    """One member of an archive, without the rest where the server answers ranges."""
    job.discard()
    whole = Job(
        job.path.with_name(f".{job.path.name}.zip"), 0, "", "", job.timeout, on_bytes=job.on_bytes
    )
    try:
        remote: _Remote | None = None
        try:
            remote = _Remote(session, source.url, job.timeout)
            archive: IO[bytes] = io.BufferedReader(remote, RANGE)
        except io.UnsupportedOperation:
            take(whole, dataclasses.replace(source, member=""), session)
            archive = whole.part.open("rb")
        with archive, zipfile.ZipFile(archive) as members:
            info = members.getinfo(source.member)
            if job.size and info.file_size != job.size:
                raise Refused(
                    f"{source.member} has {info.file_size:,} bytes, should have {job.size:,}"
                )
            if info.file_size > MOST:
                raise Refused(f"{source.member} has {info.file_size:,} bytes")
            check_room(job, info.file_size)
            if remote is not None:
                remote.allow(2 * info.compress_size + RANGE)
            with members.open(info) as file:
                pour(job, iter(lambda: file.read(BLOCK), b""), 0, info.file_size)
    except KeyError:
        raise Refused(f"the archive has no {source.member}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as exc:
        raise Refused(f"no zip archive that can be read: {exc}") from None
    finally:
        whole.discard()
