"""Downloads against a server that misbehaves, and the cache that keeps them."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import http.server
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit import PATIENCE, wait_until
from typer.testing import CliRunner

from vizcomp.cli import app
from vizcomp.errors import (
    InputError,
    ModelError,
    OutputError,
    SettingsError,
    VizcompError,
    WeightsMissingError,
)
from vizcomp.weights import cache as weights_cache
from vizcomp.weights import download, table, transfer
from vizcomp.weights.download import TRIES, Fetched, fetch, watched
from vizcomp.weights.transfer import OnBytes, _asked_wait

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes
SHA = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Answers each path by a function of the handler; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Any], None]] = {}
        self.asked: list[tuple[str, str]] = []  # path, Range header
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers.get("Range", "")))
                outer.answers.get(self.path, status(404))(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # clients that hang up are part of the game

        self.http = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def source(self, path: str, member: str = "", words: str = "") -> table.Source:
        return table.Source(self.address + path, member, words)

    def ranges(self, path: str) -> list[str]:
        return [r for p, r in self.asked if p == path]


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()


def reply(handler: Any, code: int, body: bytes, **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, **headers: str) -> Callable[[Any], None]:
    return lambda handler: reply(handler, code, b"no", **headers)


def serving(content: bytes = CONTENT, tag: str = '"1"', **headers: str) -> Callable[[Any], None]:
    """As a good server does: ranges, If-Range."""

    def answer(handler: Any) -> None:
        asked, condition = handler.headers.get("Range", ""), handler.headers.get("If-Range", tag)
        if asked and condition == tag:
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last or len(content) - 1), len(content) - 1)
            if start >= len(content):
                reply(handler, 416, b"", ETag=tag)
                return
            where = f"bytes {start}-{stop}/{len(content)}"
            reply(handler, 206, content[start : stop + 1], Content_Range=where, ETag=tag, **headers)
        else:
            reply(handler, 200, content, ETag=tag, **headers)

    return answer


def in_turn(*answers: Callable[[Any], None]) -> Callable[[Any], None]:
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def cut(at: int, tag: str = '"1"') -> Callable[[Any], None]:
    """Promises all, and hangs up in the middle."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", tag)
        handler.end_headers()
        handler.wfile.write(CONTENT[:at])
        handler.wfile.flush()
        handler.close_connection = True

    return answer


def reset(at: int) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        cut(at)(handler)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return answer


def stall(at: int) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        cut(at)(handler)
        hung_up(handler)

    return answer


def hung_up(handler: Any) -> None:
    """Waits until the client gives up."""
    handler.connection.settimeout(PATIENCE)
    with contextlib.suppress(OSError):
        while handler.connection.recv(1000):
            pass


def get(sources: list[table.Source], path: Path, **more: Any) -> Fetched:
    return fetch(sources, path, **{"timeout": PATIENCE, "pause": 0.01, **more})


def leftovers(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock")


class Watcher:
    def __init__(self) -> None:
        self.told: list[str] = []

    @contextlib.contextmanager
    def source(self, file: str, source: table.Source) -> Iterator[OnBytes]:
        self.told.append("from /" + source.url.rpartition("/")[2])
        yield lambda have, total: self.told.append(f"{have} of {total}")

    def done(self, file: str, sha256: str) -> None:
        self.told.append(f"{file} {sha256}")


# --- one source
# --------------------------------------------------------------------------------------------------


def test_a_file_comes_whole(server: Server, tmp_path: Path) -> None:
    server.answers["/f"] = serving()
    path = tmp_path / "deep" / "file"
    watcher = Watcher()
    with watched(watcher):
        got = get(
            [server.source("/none"), server.source("/f", words="2019")],
            path,
            size=len(CONTENT),
            sha256=SHA,
        )
    assert path.read_bytes() == CONTENT
    assert (got.sha256, got.source and got.source.words) == (SHA, "2019")
    assert watcher.told[:2] == ["from /none", "from /f"]
    assert watcher.told[-2:] == [f"{len(CONTENT)} of {len(CONTENT)}", f"file {SHA}"]
    assert leftovers(path) == ["file"]
    again = get([server.source("/f")], path)
    assert again == Fetched(None, SHA)
    assert len(server.asked) == 2


@pytest.mark.parametrize("broken", [cut(100_000), reset(100_000), stall(100_000)])
def test_what_broke_off_goes_on(
    server: Server, tmp_path: Path, broken: Callable[[Any], None]
) -> None:
    server.answers["/f"] = in_turn(broken, serving())
    stalls = broken.__qualname__.startswith("stall")
    timeout = 1.0 if stalls else PATIENCE
    get([server.source("/f")], tmp_path / "file", size=len(CONTENT), timeout=timeout)
    assert (tmp_path / "file").read_bytes() == CONTENT
    first, *others = server.ranges("/f")
    assert first == ""
    # after a reset the system may have dropped what was not read yet; and a machine that stops for
    # a second is one more server that stalls
    resets = broken.__qualname__.startswith("reset")
    assert {*others} <= {"bytes=100000-", *([""] if resets else [])}
    assert len(others) == 1 or (others and stalls)


def test_a_file_that_changed_meanwhile_is_taken_anew(server: Server, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    server.answers["/f"] = in_turn(cut(100_000, '"1"'), serving(other, '"2"'))
    get([server.source("/f")], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == other
    assert server.ranges("/f") == ["", "bytes=100000-"]


def test_without_checksum_or_tag_nothing_is_joined(server: Server, tmp_path: Path) -> None:
    server.answers["/f"] = in_turn(cut(100_000, ""), serving(tag=""))
    get([server.source("/f")], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges("/f") == ["", ""]


def test_a_server_without_ranges_sends_it_again(server: Server, tmp_path: Path) -> None:
    server.answers["/f"] = in_turn(cut(100_000), lambda handler: reply(handler, 200, CONTENT))
    get([server.source("/f")], tmp_path / "file", sha256=SHA)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_errors_that_pass_are_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    server.answers["/f"] = in_turn(status(code), status(code, Retry_After="0"), serving())
    get([server.source("/f")], tmp_path / "file")
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_errors_that_stay_are_not(server: Server, tmp_path: Path, code: int) -> None:
    server.answers["/f"] = status(code)
    with pytest.raises(WeightsMissingError, match=f"answers {code}") as caught:
        get([server.source("/f")], tmp_path / "file", by_hand="do this")
    assert len(server.asked) == 1
    assert caught.value.exit_code == 3
    assert caught.value.hint == "do this"
    assert leftovers(tmp_path / "file") == []


def test_tries_end(server: Server, tmp_path: Path) -> None:
    server.answers["/f"] = status(503)
    with pytest.raises(WeightsMissingError, match=r"503.*4 tries"):
        get([server.source("/f")], tmp_path / "file")
    assert len(server.asked) == TRIES


def test_tries_begin_anew_where_more_has_come(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs up after every few bytes gives the whole file in the end."""
    monkeypatch.setattr(download, "PROGRESS", 30_000)

    def answer(handler: Any) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(CONTENT) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        handler.wfile.write(CONTENT[start : start + 40_000])
        handler.close_connection = True

    server.answers["/f"] = answer
    get([server.source("/f")], tmp_path / "file", size=len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.asked) == 8 > TRIES
    monkeypatch.setattr(download, "PROGRESS", 200_000)
    with pytest.raises(WeightsMissingError, match="too early"):
        get([server.source("/f")], tmp_path / "other", size=len(CONTENT))


def wrong(
    body: bytes = CONTENT, length: int | None = None, **headers: str
) -> Callable[[Any], None]:
    return lambda handler: reply(
        handler, 200, body, **({"Content_Length": str(length)} if length else {}), **headers
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (wrong(CONTENT[::-1]), "checksum"),
        (wrong(CONTENT + b"x"), "307,201 bytes, should have 307,200"),
        (wrong(CONTENT[:-1]), "307,199 bytes, should have 307,200"),
        (
            wrong(
                b"<!DOCTYPE html><title>Quota exceeded</title>",
                Content_Type="text/html; charset=utf-8",
            ),
            "web page",
        ),
        (lambda h: reply(h, 302, b"", Location="/f"), "redirects without end"),
        (lambda h: reply(h, 302, b"", Location="file:///etc/passwd"), "file"),
        (
            lambda h: reply(h, 206, CONTENT[5:], Content_Range="bytes 5-307199/307200"),
            "bytes from 5 on",
        ),
        (lambda h: reply(h, 206, CONTENT), "without saying which"),
        (status(416), "416 to the whole file"),
    ],
)
def test_wrong_answers_are_refused(
    server: Server, tmp_path: Path, answer: Callable[[Any], None], why: str
) -> None:
    server.answers["/f"] = answer
    with pytest.raises(WeightsMissingError, match=why):
        get([server.source("/f")], tmp_path / "file", size=len(CONTENT), sha256=SHA)
    assert leftovers(tmp_path / "file") == []


def test_a_page_without_its_type_is_recognised(server: Server, tmp_path: Path) -> None:
    server.answers["/f"] = wrong(
        b"\n <HTML><body>Sign in</body></html>", Content_Type="application/octet-stream"
    )
    with pytest.raises(WeightsMissingError, match="web page"):
        get([server.source("/f")], tmp_path / "file")
    assert leftovers(tmp_path / "file") == []


def test_what_is_not_http_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(TRIES):
                with listening.accept()[0] as client:
                    client.recv(10_000)
                    client.sendall(b"\0\1 hello\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(WeightsMissingError, match="no answer of a web server"):
            get(
                [table.Source(f"http://127.0.0.1:{listening.getsockname()[1]}/f")],
                tmp_path / "file",
            )


def test_a_name_that_nobody_knows_is_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unknown(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        WeightsMissingError, match=r"no such server is known.*\n.*no such server is known"
    ):
        get(
            [table.Source("https://a.invalid/f"), table.Source("https://b.invalid/f")],
            tmp_path / "file",
        )
    assert asked == ["a.invalid", "b.invalid"]


def test_the_content_is_looked_at_before_it_counts(server: Server, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        if path.read_bytes()[:1] == b"x":
            raise ModelError(f"{path} holds nothing")

    server.answers |= {"/a": wrong(b"x" * 1000), "/b": serving()}
    with pytest.raises(
        WeightsMissingError, match="/a: gave other content: what came holds nothing"
    ):
        get([server.source("/a")], tmp_path / "file", check=check)
    assert leftovers(tmp_path / "file") == []
    got = get([server.source("/a"), server.source("/b")], tmp_path / "file", check=check)
    assert got.sha256 == SHA


def test_more_than_was_said_is_cut(server: Server, tmp_path: Path) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT))
        handler.wfile.write(b"0\r\n\r\n")

    server.answers["/f"] = answer
    with pytest.raises(WeightsMissingError, match="more than the 307,200 bytes"):
        get([server.source("/f")], tmp_path / "file", size=len(CONTENT))
    assert leftovers(tmp_path / "file") == []


def test_a_trickle_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TRIES", 1)

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        with contextlib.suppress(OSError):  # until it hangs up
            for at in range(0, 40_000, 16):
                handler.wfile.write(CONTENT[at : at + 16])
                time.sleep(0.05)

    server.answers["/f"] = answer
    # on a machine that stops for a second no piece comes at all, which is given up too
    with pytest.raises(WeightsMissingError, match=r"bytes a second|broke off after"):
        get([server.source("/f")], tmp_path / "file", timeout=1.0)


def test_the_pace_of_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=lambda: now))
    pace = transfer.Pace(10)
    for count in (0, 100, 29_900):
        now += 4
        pace.took(count)  # 30,000 bytes in twelve seconds are few, but enough
    now += 11
    with pytest.raises(transfer.Passing, match="1,818 bytes a second"):
        pace.took(20_000)


def test_a_transfer_said_to_be_compressed(server: Server, tmp_path: Path) -> None:
    """Some servers name the compression of a .tar.gz as that of the transfer; to undo it would
    change the file."""
    packed = gzip.compress(CONTENT)
    server.answers["/f.tar.gz"] = server.answers["/f"] = wrong(packed, Content_Encoding="gzip")
    get(
        [server.source("/f.tar.gz")],
        tmp_path / "file",
        size=len(packed),
        md5=hashlib.md5(packed).hexdigest(),
    )
    assert (tmp_path / "file").read_bytes() == packed
    with pytest.raises(WeightsMissingError, match="compressed"):
        get([server.source("/f")], tmp_path / "other")


@pytest.mark.parametrize(
    ("words", "low", "high"), [("7", 7, 7), ("soon", 0, 0), ("", 0, 0), ("-3", 0, 0)]
)
def test_what_a_server_asks_to_wait(words: str, low: float, high: float) -> None:
    assert low <= _asked_wait(words) <= high


def test_a_wait_until_a_date() -> None:
    assert 3000 < _asked_wait(email.utils.formatdate(time.time() + 4000, usegmt=True)) <= 4000
    assert _asked_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # ours, so that nobody else comes to listen
        port = free.getsockname()[1]
        with pytest.raises(WeightsMissingError, match="refused"):
            get(
                [table.Source(f"http://127.0.0.1:{port}/f"), table.Source("ftp://127.0.0.1/f")],
                tmp_path / "file",
            )


def test_no_room_is_said_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/f"] = serving()
    monkeypatch.setattr(
        transfer.shutil,
        "disk_usage",
        lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 10}),
    )
    with pytest.raises(WeightsMissingError, match="free"):
        get([server.source("/f")], tmp_path / "file")


def test_a_proxy_is_honoured(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["http://files.invalid/f"] = serving()
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    get([table.Source("http://files.invalid/f")], tmp_path / "file", sha256=SHA)
    assert (tmp_path / "file").read_bytes() == CONTENT


# --- several sources, several processes
# -----------------------------------------------------------------------------


def test_the_next_mirror_goes_on_where_a_checksum_tells(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    server.answers |= {"/a": cut(100_000), "/b": serving(tag='"b"')}
    get(
        [server.source("/none"), server.source("/a"), server.source("/b")],
        tmp_path / "file",
        md5=MD5,
    )
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges("/b") == ["bytes=100000-"]


def test_the_next_mirror_begins_anew_where_none_tells(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    server.answers |= {"/a": cut(100_000), "/b": serving(tag='"b"')}
    get([server.source("/a"), server.source("/b")], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges("/b") == [""]


def test_every_source_has_its_line(server: Server, tmp_path: Path) -> None:
    server.answers |= {"/a": status(403), "/b": wrong(b"<html>", Content_Type="text/html")}
    with pytest.raises(WeightsMissingError) as caught:
        get([server.source("/a"), server.source("/b"), server.source("/c")], tmp_path / "file")
    lines = caught.value.message.splitlines()
    assert [line.split(": ", 1)[1] for line in lines[1:]] == [
        "answers 403 Forbidden",
        "gives a web page in place of the file",
        "answers 404 Not Found",
    ]


CHILD = """
import sys
from pathlib import Path
from vizcomp.weights.download import fetch
from vizcomp.weights.table import Source
got = fetch([Source(sys.argv[1])], Path(sys.argv[2]), sha256=sys.argv[3], timeout=300)
print("fetched" if got.source else "there")
"""


def child(server: Server, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, server.address + "/f", str(path), SHA],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    def slowly(handler: Any) -> None:
        time.sleep(1.0)
        serving()(handler)

    server.answers["/f"] = slowly
    both = [child(server, tmp_path / "file") for _ in range(2)]
    assert sorted(one.communicate(timeout=PATIENCE)[0].strip() for one in both) == [
        "fetched",
        "there",
    ]
    assert len(server.asked) == 1


def test_killed_in_the_middle_it_goes_on(server: Server, tmp_path: Path) -> None:
    def first(handler: Any) -> None:
        cut(200_000)(handler)
        hung_up(handler)

    server.answers["/f"] = first
    one = child(server, tmp_path / "file")
    part = tmp_path / ".file.part"
    wait_until(lambda: part.is_file() and part.stat().st_size == 200_000, unless=one.poll)
    one.send_signal(signal.SIGKILL)
    one.wait()
    if one.stdout:
        one.stdout.close()
    assert not (tmp_path / "file").exists()
    server.answers["/f"] = serving()
    get([server.source("/f")], tmp_path / "file", sha256=SHA)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert leftovers(tmp_path / "file") == ["file"]
    assert server.ranges("/f") == ["", "bytes=200000-"]


# --- a member of an archive
# -----------------------------------------------------------------------------------------


def archive(method: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        file.writestr("big.bin", os.urandom(4_000_000))
        file.writestr("dir/wanted.pt", CONTENT)
    return data.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_comes_without_the_rest(server: Server, tmp_path: Path, method: int) -> None:
    whole = archive(method)
    sent = []

    def counted(handler: Any) -> None:
        asked = handler.headers.get("Range", "")
        first, last = asked.removeprefix("bytes=").split("-")
        sent.append(int(last) - int(first) + 1)
        serving(whole)(handler)

    server.answers["/z"] = counted
    get([server.source("/z", "dir/wanted.pt")], tmp_path / "file", sha256=SHA)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert sum(sent) < len(whole) - 1_000_000
    assert leftovers(tmp_path / "file") == ["file"]


@pytest.mark.parametrize("broken", ["stall", "short", "reset"])
def test_a_member_that_breaks_off_is_asked_for_again(
    server: Server, tmp_path: Path, broken: str
) -> None:
    whole = archive()
    good = serving(whole)

    def bad(handler: Any) -> None:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(whole)}")
        handler.send_header("Content-Length", str(last - first + 1))
        handler.end_headers()
        handler.wfile.write(whole[first : first + 10])
        handler.wfile.flush()
        handler.close_connection = True
        if broken == "stall":
            hung_up(handler)
        elif broken == "reset":
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            handler.connection.close()

    server.answers["/z"] = in_turn(good, bad, good)  # the size; then the directory at its end
    timeout = 1.0 if broken == "stall" else PATIENCE
    get([server.source("/z", "dir/wanted.pt")], tmp_path / "file", sha256=SHA, timeout=timeout)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_member_where_ranges_are_not_answered(server: Server, tmp_path: Path) -> None:
    whole = archive()
    server.answers["/z"] = lambda handler: reply(handler, 200, whole)
    get([server.source("/z", "dir/wanted.pt")], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert leftovers(tmp_path / "file") == ["file"]


@pytest.mark.parametrize(
    ("body", "member", "why"),
    [
        (archive(), "absent.pt", "has no absent.pt"),
        (b"PK\x03\x04 not really", "a", "no zip archive"),
        (archive()[:-5000], "dir/wanted.pt", "no zip archive"),
        (archive().replace(CONTENT[:500], b"\x00" * 500), "dir/wanted.pt", "CRC"),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_bad_archives_are_refused(
    server: Server, tmp_path: Path, body: bytes, member: str, why: str, ranges: bool
) -> None:
    server.answers["/z"] = serving(body) if ranges else wrong(body)
    with pytest.raises(WeightsMissingError, match=why):
        get([server.source("/z", member)], tmp_path / "file")
    assert not (tmp_path / "file").exists()


# --- the cache
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIZCOMP_OFFLINE", raising=False)
    server.answers["/f"] = serving()
    row = table.WeightFile(
        id="one",
        what="a file",
        file="one.bin",
        licence="MIT",
        sources=(server.source("/gone"), server.source("/f", words="2021")),
    )
    sized = table.WeightFile(
        id="two",
        what="another",
        file="two.bin",
        licence="MIT",
        sources=row.sources,
        size=5,
        md5=MD5,
    )
    monkeypatch.setattr(table, "PUBLISHED", (row, sized))
    return tmp_path / "cache"


def test_what_came_first_is_compared_ever_after(server: Server, cache: Path) -> None:
    assert weights_cache.state(table.find("one")) == "downloadable"
    path = weights_cache.obtain("one")
    assert path.read_bytes() == CONTENT
    assert weights_cache.recorded("one")["sha256"] == SHA
    assert weights_cache.recorded("one")["words"] == "2021"
    asked = len(server.asked)
    assert weights_cache.obtain("one", offline=True) == path
    os.utime(path)  # touched, the same: recorded anew
    assert weights_cache.state(table.find("one")) == "cached"
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(ModelError, match="not the file that was recorded"):
        weights_cache.obtain("one")
    assert len(server.asked) == asked
    assert weights_cache.clear("one") == len(CONTENT)
    assert weights_cache.recorded("one") == {}
    assert weights_cache.obtain("one").read_bytes() == CONTENT


def test_offline_opens_no_socket(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", forbidden)
    with pytest.raises(WeightsMissingError, match="not to be used") as caught:
        weights_cache.obtain("one", offline=True)
    assert "weights add one one.bin" in caught.value.hint
    monkeypatch.setenv("VIZCOMP_OFFLINE", "1")
    with pytest.raises(WeightsMissingError, match="not to be used"):
        weights_cache.obtain("one")


def test_add_checks_and_copies(cache: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(CONTENT)
    assert weights_cache.add("one", mine).read_bytes() == CONTENT
    assert weights_cache.recorded("one")["source"] == "added by hand"
    assert weights_cache.obtain("one", offline=True).is_file()
    with pytest.raises(InputError, match="307,200 bytes; two has 5"):
        weights_cache.add("two", mine)
    mine.write_bytes(b"12345")
    with pytest.raises(InputError, match="checksum"):
        weights_cache.add("two", mine)
    with pytest.raises(InputError, match="not there"):
        weights_cache.add("one", tmp_path / "absent")
    for name in ("cifar", "unknown", "../up"):
        with pytest.raises(SettingsError):
            weights_cache.add(name, mine)


def test_a_model_of_ones_own_gets_a_name(cache: Path, tmp_path: Path) -> None:
    own = table.bundled_path("watcher.safetensors")
    target = weights_cache.add("my-eyes", own)
    assert weights_cache.added() == [target]
    assert weights_cache.added_model("my-eyes") == target
    assert run("verify", "my-eyes").stdout == "my-eyes: ok\n"
    assert "my-eyes: ok" in run("verify").stdout
    content = target.read_bytes()
    target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for words in (("verify", "my-eyes"), ("verify",)):
        changed = run(*words)
        assert (changed.exit_code, "my-eyes: changed" in changed.stdout) == (1, True)
    listed = {one["id"]: one["state"] for one in json.loads(run("list", "--json").stdout)}
    assert listed["my-eyes"] == "changed"
    assert weights_cache.add("my-eyes", own) == target
    assert run("verify", "my-eyes").exit_code == 0
    fake = tmp_path / "fake.safetensors"
    fake.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as weights"):
        weights_cache.add("fake", fake)
    from vizcomp.nets import classifiers

    assert classifiers.load("my-eyes").classes == classifiers.load("watcher").classes
    assert weights_cache.clear("my-eyes") == own.stat().st_size
    assert weights_cache.added_model("my-eyes") is None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    cache.chmod(0o500)
    with pytest.raises(WeightsMissingError, match="cannot be written"):
        weights_cache.obtain("one")


RECORDER = """
import sys
from vizcomp.weights import cache
for i in range(40):
    cache._change_records(lambda known: known | {f"{sys.argv[1]}{i}": {}})
"""


def test_two_processes_record_what_each_has(cache: Path) -> None:
    cache.mkdir()
    both = [subprocess.Popen([sys.executable, "-c", RECORDER, name]) for name in "ab"]
    assert [one.wait(timeout=PATIENCE) for one in both] == [0, 0]
    assert len(weights_cache._records()) == 80


def test_a_cache_that_is_a_file(cache: Path, tmp_path: Path) -> None:
    cache.write_bytes(b"")
    mine = tmp_path / "mine.bin"
    mine.write_bytes(CONTENT)
    with pytest.raises(WeightsMissingError, match="cannot be written"):
        weights_cache.obtain("one")
    with pytest.raises(OutputError):
        weights_cache.add("one", mine)


def test_published_rows_say_what_a_user_must_know() -> None:
    ids = [row.id for row in table.rows()]
    assert len(set(ids)) == len(ids)
    assert {"nyu", "inception-v3", "cifar10"} <= set(ids)
    for row in table.PUBLISHED:
        assert row.licence
        assert row.sources
        assert all(s.url.startswith("https://") for s in row.sources)


# --- the command
# --------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["weights", *arguments])


def test_the_command_lists_pulls_verifies_and_clears(server: Server, cache: Path) -> None:
    found = {one["id"]: one for one in json.loads(run("list", "--json").stdout)}
    assert found["inception"]["state"] == "bundled"
    assert found["one"]["state"] == "downloadable"
    pulled = run("pull", "one")
    assert pulled.exit_code == 0
    assert pulled.stdout.split()[0] == str(cache / "one.bin")
    said = " ".join(pulled.stderr.split())
    assert f"one.bin: fetching it from {server.address}/gone" in said
    assert said.count(SHA) == 1
    assert " ".join(run("pull", "one").stderr.split()) == f"one: sha256 {SHA}"
    found = {one["id"]: one for one in json.loads(run("list", "--json").stdout)}
    assert (found["one"]["state"], found["one"]["sha256"], found["one"]["bytes"]) == (
        "cached",
        SHA,
        len(CONTENT),
    )
    line = next(line for line in run("list").stdout.splitlines() if line.startswith("one "))
    assert line.split()[1:] == ["cached", "0.3", "MB", SHA[:12], "MIT", "a", "file"]
    assert run("path").stdout.strip() == str(cache)
    assert run("path", "one").stdout.strip() == str(cache / "one.bin")
    good = run("verify")
    assert (good.exit_code, good.stdout.count(": ok")) == (0, len(table.BUNDLED) + 1)
    (cache / "one.bin").write_bytes(b"other")
    bad = run("verify")
    assert bad.exit_code == 1
    assert "one: changed" in bad.stdout
    assert run("clear", "one").exit_code == 0
    assert not (cache / "one.bin").exists()
    assert isinstance(run("clear").exception, SettingsError)
    assert isinstance(run("pull", "nothing").exception, VizcompError)
    server.answers.clear()
    assert isinstance(run("pull", "one").exception, WeightsMissingError)
    assert isinstance(run("path", "one").exception, WeightsMissingError)


def test_weights_of_torchvision_come_by_the_same_way(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked by the digits in the name; offline, nothing is asked for."""
    import torch
    import torchvision

    from vizcomp.vision.systems import open_system

    out = io.BytesIO()
    torch.save(torchvision.models.squeezenet1_1().state_dict(), out)
    body = out.getvalue()
    right, wrong = (
        f"/squeezenet-{digits}.pth" for digits in (hashlib.sha256(body).hexdigest()[:8], "0" * 8)
    )
    server.answers[right] = server.answers[wrong] = serving(body)
    choice = torchvision.models.SqueezeNet1_1_Weights.DEFAULT

    def at(path: str) -> None:
        changed = types.SimpleNamespace(
            url=server.source(path).url, meta=choice.meta, transforms=choice.transforms
        )
        monkeypatch.setattr(
            torchvision.models,
            "get_model_weights",
            lambda _: types.SimpleNamespace(DEFAULT=changed),
        )

    def model(_name: str, **_: Any) -> Any:
        built = torchvision.models.squeezenet1_1()
        built.load_state_dict(
            torch.load(cache / "torchvision" / "checkpoints" / right[1:], weights_only=True)
        )
        return built

    monkeypatch.setattr(torchvision.models, "get_model", model)
    at(wrong)
    with pytest.raises(WeightsMissingError, match="checksum differs"):
        open_system("torchvision:squeezenet1_1")
    at(right)
    with pytest.raises(WeightsMissingError, match="not in the cache"):
        open_system("torchvision:squeezenet1_1", offline=True)
    found = open_system("torchvision:squeezenet1_1")
    assert found.fingerprint == hashlib.sha256(body).hexdigest()[:12]
    asked = len(server.asked)
    open_system("torchvision:squeezenet1_1")
    assert len(server.asked) == asked
