"""Ctrl-C and SIGTERM at random moments of every command: 130 and one line, or all is done; nothing
is half-written, nothing lies beside, and the same command does the rest."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import PATIENCE, contents, jpeg_bytes, picture
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

# what tells of a run, not of a photo, and differs from run to run
TOLD = {
    "report.html",
    "report.json",
    "report.csv",
    "metrics.jsonl",
    "checkpoint.pt",
    "curves.svg",
    "policy.toml",
}
PULL = """
import http.server, os, sys, threading
from vizcomp.weights import table

class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        first = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(2_000_000 - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-1999999/2000000")
        self.send_header("ETag", '"1"')
        self.end_headers()
        for at in range(first, 2_000_000, 20_000):
            self.wfile.write(bytes(20_000)[: 2_000_000 - at])
            threading.Event().wait(0.01)
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
threading.Thread(target=server.serve_forever, daemon=True).start()
source = table.Source(f"http://127.0.0.1:{server.server_port}/f")
row = {"id": "one", "what": "a file", "file": "one.bin", "licence": "MIT", "size": 2_000_000}
table.PUBLISHED = (table.WeightFile(**row, sources=(source,)),)
from vizcomp.__main__ import main
main()
"""


def photos(folder: Path, count: int, side: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        pixels = picture(seed, side, side)
        (folder / f"{seed:02}.jpg").write_bytes(jpeg_bytes(pixels))
        Image.fromarray(pixels).save(folder / f"{seed:02}.png")
    return folder


def vizcomp(*words: object) -> list[str]:
    return [sys.executable, "-m", "vizcomp", *map(str, words)]


COMMANDS: dict[str, tuple[Callable[[Path, Path], list[str]], tuple[str, ...]]] = {
    "djpeg": (lambda data, out: vizcomp("djpeg", data, "-o", out, "-j", 2), ("--resume",)),
    "djpeg alone": (lambda data, out: vizcomp("djpeg", data, "-o", out, "-j", 1), ("--resume",)),
    "verify": (
        lambda data, out: vizcomp("djpeg", data, "-o", out, "-j", 2, "--verify", "watcher"),
        ("--resume",),
    ),
    "depth": (
        lambda data, out: vizcomp("depth", data, "-o", out, "-j", 2, "--preview"),
        ("--resume",),
    ),
    "encode": (
        lambda data, out: vizcomp("encode", data, "-o", out, "-j", 2, "--iterations", 2),
        ("--resume",),
    ),
    "pack": (
        lambda data, out: vizcomp(
            "encode", data, "--pack", "--model", "cifar", "-o", out / "set.vzc", "-j", 2
        ),
        ("--resume",),
    ),
    "eval": (
        lambda data, out: vizcomp(
            *("eval", "--data", data, "--classifier", "watcher", "--codec", "djpeg"),
            *("--baseline", "jpeg", "-o", out, "-j", 2),
        ),
        ("--resume",),
    ),
    "decode": (
        lambda data, out: vizcomp("decode", data, "-o", out, "-j", 2),
        ("--resume",),
    ),
    "check": (
        lambda data, out: vizcomp("check", data.parent / "policy.toml", data, "-j", 2),
        (),
    ),
    "look": (
        lambda data, out: vizcomp("look", data, "--system", "watcher", "-o", out),
        ("--overwrite",),
    ),
    "fit": (
        lambda data, out: vizcomp(
            *("fit", data, "--system", "watcher", "--risk", "60%", "--confidence", "60%"),
            *("--format", "jpeg", "--no-rivals", "--budget", "3s", "-o", out / "policy.toml"),
        ),
        ("--resume", "--overwrite"),
    ),
    "train": (
        lambda data, out: vizcomp(
            *("train", "--data", data, "-o", out, "--device", "cpu", "--set", "steps=20"),
            *("--set", "batch=8", "--set", "task_weight=0", "--set", "width=0.08"),
        ),
        (),
    ),
    "pull": (lambda data, out: [sys.executable, "-c", PULL, "weights", "pull", "one"], ()),
}
MOMENTS = 20


def given(command: str, folder: Path) -> Path:
    """The inputs of a command, and what it needs beside them."""
    side = 32 if command in ("pack", "train") else 160
    data = photos(folder / "in" / "a", 10, side).parent
    photos(folder / "in" / "b", 10, side)
    environment = {**os.environ, "VIZCOMP_CACHE": str(folder / "cache-before")}
    before = {
        "decode": vizcomp("encode", data, "-o", folder / "coded", "--iterations", 2),
        "check": vizcomp(
            *("fit", data, "--system", "watcher", "--risk", "60%", "--confidence", "60%"),
            *("--format", "jpeg", "--no-rivals", "--budget", "3s", "-o", folder / "policy.toml"),
        ),
    }.get(command)
    if before is not None:
        subprocess.run(before, check=True, capture_output=True, env=environment, cwd=folder)
    return folder / "coded" if command == "decode" else data


def undone(folder: Path) -> list[str]:
    """Files that no run should leave."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name.startswith(".vizcomp-") or path.suffix == ".tmp"
    ]


def results(folder: Path) -> dict[str, bytes]:
    """What is there under names of its own."""
    cached = folder.parent / "cache" / "one.bin"  # what `weights pull` fetched
    if cached.exists():
        return {"one.bin": cached.read_bytes()}
    found = contents(folder) if folder.is_dir() else {}
    # of a pack that was interrupted docs/codec.md says where its images are
    return {
        name: data
        for name, data in found.items()
        if Path(name).name not in TOLD and ".partial." not in name
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_signals_at_random_moments(command: str, tmp_path: Path) -> None:
    line, again = COMMANDS[command]
    data = given(command, tmp_path)
    draw = random.Random(0)

    def start(folder: Path) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "VIZCOMP_CACHE": str(folder / "cache"), "NO_COLOR": "1"}
        return subprocess.Popen(
            line(data, folder / "out"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    began = time.monotonic()
    calm = start(tmp_path / "calm")
    said = calm.communicate(timeout=PATIENCE)
    assert calm.returncode == 0, said
    whole = time.monotonic() - began
    wanted = results(tmp_path / "calm" / "out")
    for moment in range(MOMENTS):
        folder = tmp_path / str(moment)
        run = start(folder)
        # Python itself needs some hundredths of a second until it can listen
        wait = draw.uniform(0.1, 1.05) * whole
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(wait)
        number = (signal.SIGINT, signal.SIGTERM)[moment % 2]
        with contextlib.suppress(ProcessLookupError):
            # a terminal reaches the workers too
            (os.killpg if moment % 3 else os.kill)(run.pid, number)
        _, errors = run.communicate(timeout=PATIENCE)
        where = f"{number.name} after {wait:.2f} of {whole:.2f} s: {run.returncode}, {errors}"
        assert run.returncode in (0, 130), where
        assert "Traceback" not in errors, where
        assert "Exception ignored" not in errors, where
        assert undone(folder) == [], where
        if command not in ("train", "fit"):  # of these a second run may end elsewhere
            assert results(folder / "out").items() <= wanted.items(), where
        more = [*again]
        if command == "train":
            more = ["--resume"] if (folder / "out" / "checkpoint.pt").exists() else []
        if run.returncode and moment % 4 == 0:
            environment = {**os.environ, "VIZCOMP_CACHE": str(folder / "cache")}
            rest = subprocess.run(
                [*line(data, folder / "out"), *more],
                capture_output=True,
                text=True,
                env=environment,
                cwd=folder,
            )
            assert rest.returncode == 0, (where, rest.stderr)
            assert results(folder / "out").keys() == wanted.keys(), where
            if command not in ("train", "fit"):
                assert results(folder / "out") == wanted, where
