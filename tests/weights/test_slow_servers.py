"""Servers that give a byte now and then, or lead elsewhere: given up in time, and never followed
inwards."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import PATIENCE

from vizcomp.errors import WeightsMissingError
from vizcomp.weights import download, table, transfer
from vizcomp.weights.download import fetch, locked, watched

HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/100000\r\nContent-Length: 100000\r\n"
)
TRICKLES = {
    "headers": b"HTTP/1.1 200 OK\r\nX: ",
    "answers that go on": b"",
    "a range": HEAD + b"\r\n",
    "the size of a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
}


@contextlib.contextmanager
def trickling(start: bytes) -> Iterator[str]:
    """A server that begins well, and then gives a byte twenty times a second."""
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(one: socket.socket) -> None:
        with contextlib.suppress(OSError), one:
            one.recv(4096)
            one.sendall(start)
            until = time.monotonic() + PATIENCE
            while not over.wait(0.05):
                assert time.monotonic() < until, "not given up"
                one.sendall(b"a" if start else b"HTTP/1.1 100 Continue\r\n\r\n")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/f"
    over.set()
    server.close()
    for thread in threading.enumerate():
        if thread.name == "download":
            thread.join(PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what was given up is closed by nobody but the collector
        gc.collect()


@pytest.mark.parametrize("member", ["", "a.bin"])
@pytest.mark.parametrize("start", TRICKLES.values(), ids=TRICKLES.keys())
def test_a_server_that_trickles_is_given_up(
    tmp_path: Path, start: bytes, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    # a server that is not given up trickles for ever, and so would this test
    with trickling(start) as url, pytest.raises(WeightsMissingError):
        fetch([table.Source(url, member)], tmp_path / "f", timeout=0.4, pause=0)


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://127.0.0.1/x", True),
        ("http://localhost:8080/x", True),
        ("http://169.254.169.254/latest/meta-data", True),
        ("http://10.1.2.3/", True),
        ("http://192.168.0.1/", True),
        ("http://[::1]/", True),
        ("http://[fe80::1%25eth0]/", True),
        ("http://[::ffff:10.0.0.1]/", True),
        ("http://0.0.0.0/", True),
        ("https://8.8.8.8/x", False),
    ],
)
def test_addresses_of_private_networks(url: str, private: bool) -> None:
    assert transfer.is_private(url) == private


@pytest.mark.parametrize("followed", [True, False])
def test_redirects_do_not_lead_into_a_private_network(
    tmp_path: Path, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the first address was one of it already."""
    asked: list[Any] = []
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = server.accept()
                with one:
                    path = one.recv(4096).split()[1]
                    asked.append(path)
                    there = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
                    away = (
                        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/in\r\nContent-Length:"
                        b" 0\r\n" % port
                    )
                    one.sendall(there if path == b"/in" else away + b"Connection: close\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    if not followed:
        plain = transfer.is_private
        monkeypatch.setattr(transfer, "is_private", lambda url: plain(url) and "/in" in url)
    source = table.Source(f"http://127.0.0.1:{port}/out")
    with server:
        if followed:
            fetch([source], tmp_path / "f", timeout=PATIENCE)
            assert (tmp_path / "f").read_bytes() == b"x"
        else:
            with pytest.raises(WeightsMissingError, match="private network"):
                fetch([source], tmp_path / "f", timeout=PATIENCE)
            assert b"/in" not in asked
    server.close()


class Told:
    def __init__(self) -> None:
        self.waited = threading.Event()

    def waits(self, file: str) -> None:
        self.waited.set()


def test_waiting_for_another_process_is_said(tmp_path: Path) -> None:
    told = Told()
    with locked(tmp_path / "f"):
        holding = threading.Event()

        def second() -> None:
            with watched(told), locked(tmp_path / "f"):  # type: ignore[arg-type]
                holding.set()

        threading.Thread(target=second, daemon=True).start()
        assert told.waited.wait(PATIENCE)
        assert not holding.is_set()
    assert holding.wait(PATIENCE)
