"""A real S3 server on the loopback interface (moto), that can be told to fail."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Faults:
    """In front of a WSGI application: a seeded share of the requests to objects fails, in one of
    several ways.

    Attributes:
        share: of the requests that fail, 0..1.
        kinds: what may happen: "500", "503", "slow", "cut" (the answer ends too early), "lost"
            (done, but the answer is a 500).
        seen: (method, path) of all requests; `failed` how many of them failed.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.share = 0.0
        self.kinds: tuple[str, ...] = ("500", "503", "slow", "cut", "lost")
        self.random = random.Random(0)
        self.seen: list[tuple[str, str]] = []
        self.failed: dict[str, int] = {}
        self.lock = threading.Lock()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        with self.lock:
            self.seen.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            kind = self.random.choice(self.kinds) if self.random.random() < self.share else ""
            if kind:
                self.failed[kind] = self.failed.get(kind, 0) + 1
        if kind in ("500", "503"):
            return self._refuse(kind, environ, start_response)
        if kind == "slow":
            time.sleep(0.3)
        if kind == "lost":
            list(self.application(environ, lambda *_: None))
            return self._refuse("500", {**environ, "wsgi.input": None}, start_response)
        if kind == "cut" and environ["REQUEST_METHOD"] == "GET":
            whole = b"".join(self.application(environ, start_response))
            return self._half(whole)
        return self.application(environ, start_response)

    @staticmethod
    def _refuse(
        status: str, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> list[bytes]:
        if environ.get("wsgi.input") is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        name = {"500": "InternalError", "503": "SlowDown"}[status]
        error = f"<Error><Code>{name}</Code><Message>told to</Message></Error>"
        body = f"<?xml version='1.0'?>{error}".encode()
        start_response(
            f"{status} {name}",
            [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))],
        )
        return [body]

    @staticmethod
    def _half(whole: bytes) -> Iterator[bytes]:
        yield whole[: len(whole) // 2]
        raise ConnectionResetError("told to")


def serve() -> tuple[Any, Faults, str]:
    """A running server, what makes it fail, and its address."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    faults = Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, faults, f"http://127.0.0.1:{server.server_port}"
