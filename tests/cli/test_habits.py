"""What a command says and where, what it does where results exist, where its report goes, folders
that fill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from kit import PATIENCE, command, jpeg_bytes, picture, tree, wait_until

from vizcomp.batch import engines
from vizcomp.cli import progress

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Said:
    """Runs a command in this process, beside a folder `in` of two photos: exit code, standard
    output, standard error."""
    # no worker processes: they cost more than the work
    monkeypatch.setattr(engines, "TASKS_TO_ISOLATE", 1000)
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("NO_COLOR", "1"),
        ("COLUMNS", "200"),
        ("VIZCOMP_CACHE", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    (tmp_path / "in").mkdir()
    for n in (1, 2):
        (tmp_path / "in" / f"{n}.jpg").write_bytes(jpeg_bytes(picture(n, 64, 64)))

    def run(*arguments: object) -> tuple[int, str, str]:
        code = command(*arguments, "--config", "none")
        return code, *capfd.readouterr()

    return run


def djpeg(said: Said, *options: object, inputs: str = "in") -> tuple[int, str, str]:
    output = [] if "-o" in options else ["-o", "out"]
    return said("djpeg", inputs, *output, "--guide", "uniform", "-j", 1, *options)


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in tree(folder) if name.endswith(".jpg")}


def test_other_settings_into_the_same_folder_are_done_again(said: Said, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert djpeg(said)[0] == 0
    first = results(out)
    code, text, _ = djpeg(said)
    assert (code, "nothing to do" in text) == (0, True)
    assert results(out) == first
    code, text, _ = djpeg(said, "-q", 30)
    assert (code, "nothing to do" in text) == (0, False)
    assert all(results(out)[name] != data for name, data in first.items())
    (out / "1.jpg").write_bytes(b"edited")  # by the user: it is theirs
    code, text, error = djpeg(said, "-q", 20)
    assert code == 1
    assert (
        "1 result exists and is not known to be of these photos and settings: --overwrite replaces"
        in error
    )
    assert (out / "1.jpg").read_bytes() == b"edited"
    # another photo under its name
    (tmp_path / "in" / "2.jpg").write_bytes(jpeg_bytes(picture(7, 64, 64)))
    before = results(out)["2.jpg"]
    assert djpeg(said, "-q", 20)[0] == 1
    assert results(out)["2.jpg"] != before


def test_where_the_journal_knows_nothing_it_is_said_and_leaves_with_2(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    djpeg(said)
    before = results(tmp_path / "out")
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "another"))
    code, text, error = djpeg(said, "-q", 30)
    assert code == 2
    assert "2 results exist and are not known to be of these photos and settings" in error
    assert "nothing to do" not in text + error
    assert results(tmp_path / "out") == before
    (tmp_path / "other").mkdir()
    for n in (1, 2):  # photos of the same names from elsewhere
        (tmp_path / "other" / f"{n}.jpg").write_bytes(jpeg_bytes(picture(n + 5, 64, 64)))
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    assert djpeg(said, inputs="other")[0] == 2
    assert results(tmp_path / "out") == before
    assert djpeg(said, "--overwrite", inputs="other")[0] == 0
    assert results(tmp_path / "out") != before


def test_depth_with_other_options_is_done_again(said: Said, tmp_path: Path) -> None:
    for options in ((), (), ("--preview",)):
        code, _, error = said("depth", "in", "-o", "maps", "-j", 1, *options)
        assert code == 0, error
    assert "1.depth.jpg" in tree(tmp_path / "maps")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ("in", "in"),
        ("in", "in/out"),
        ("in/*.jpg", "in"),
        ("in/1.jpg", "in"),
        (".", "out"),
        ("in", "in/../in/x"),
    ],
)
@pytest.mark.parametrize("name", ["djpeg", "depth"])
def test_in_place_or_inside_is_refused_once(
    said: Said, tmp_path: Path, name: str, inputs: str, output: str
) -> None:
    if (name, inputs) == ("depth", "in/1.jpg"):
        return  # 1.depth.png beside 1.jpg harms nothing
    before = tree(tmp_path)
    code, _, error = said(name, inputs, "-o", output)
    assert code == 2
    assert error.startswith("error: the output folder ")
    assert len(error.splitlines()) == 2
    assert tree(tmp_path) == before


def test_a_link_to_the_input_is_the_input(said: Said, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("in")
    assert djpeg(said, "-o", "link")[0] == 2
    assert djpeg(said, "-o", "inner")[0] == 0  # only begins with the same letters


def test_summaries_go_to_standard_output_and_lines_to_standard_error(said: Said) -> None:
    code, text, error = djpeg(said, "-v")
    assert code == 0
    assert "against optimised JPEG" in text
    assert "against optimised JPEG" not in error
    line = next(
        line for line in error.splitlines() if line.startswith("ok: in/1.jpg -> out/1.jpg; ")
    )
    assert "kB -> " in line
    assert line.endswith("; quality 50")
    code, text, error = djpeg(said, "--json", "-o", "second")
    assert json.loads(text)["totals"]["files"] == 2
    assert "against optimised JPEG" in error
    assert djpeg(said, "--quiet", "-o", "third")[1:] == ("", "")


@contextlib.contextmanager
def until_told(
    count: Callable[[], int], tell: Callable[[progress.Far], None]
) -> Iterator[Callable[[progress.Record], None]]:
    """`progress.lines` of a run that lasts until a line was told: a tenth of a second is not enough
    for a second thread on every machine."""
    told = threading.Event()

    def telling(far: progress.Far) -> None:
        tell(far)
        told.set()

    with progress.lines(count, telling) as counted:
        yield counted
        assert told.wait(PATIENCE)


def test_off_a_terminal_a_line_every_few_seconds(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.001)
    monkeypatch.setattr("vizcomp.cli.voice.lines", until_told)
    error = djpeg(said)[2]
    assert " of 2 photos, " in error
    assert "/s" in error
    far = progress.Far(
        done=30,
        failed=1,
        skipped=0,
        total=90,
        seconds=10,
        source_bytes=3_000_000,
        output_bytes=1_000_000,
    )
    assert str(far) == "30 of 90 photos, 3.0/s, 3 MB -> 1 MB, 1 failed, about 20 s left"


def test_log_json_is_a_json_object_a_line(said: Said, tmp_path: Path) -> None:
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no photo")
    code, text, error = djpeg(said, "--log-json")
    assert (code, text) == (1, "")
    lines = [json.loads(line) for line in error.splitlines()]
    files = {Path(line["input"]).name: line for line in lines if line["event"] == "file"}
    assert {name: line["status"] for name, line in files.items()} == {
        "1.jpg": "ok",
        "2.jpg": "ok",
        "bad.jpg": "failed",
    }
    assert files["1.jpg"]["output_bytes"] > 0
    (summary,) = [line for line in lines if line["event"] == "summary"]
    assert summary["totals"]["failed"] == 1
    assert all(line["time"].endswith("+00:00") for line in lines)
    code, _, error = djpeg(said, "--log-json", "-o", "in")
    assert (code, json.loads(error)["event"], json.loads(error)["code"]) == (2, "error", 2)


def test_the_report_goes_where_it_is_wanted_and_without_photos(said: Said, tmp_path: Path) -> None:
    djpeg(said, "--report", "none")
    assert tree(tmp_path / "out") == {"1.jpg", "2.jpg"}
    djpeg(said, "-o", "second", "--report", "about", "--no-thumbnails")
    assert tree(tmp_path / "second") == {"1.jpg", "2.jpg"}
    assert tree(tmp_path / "about") == {"report.html", "report.json", "report.csv"}
    assert "data:image" not in (tmp_path / "about" / "report.html").read_text()
    djpeg(said, "-o", "third")
    assert "data:image" in (tmp_path / "third" / "report.html").read_text()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_folder_that_fills_is_watched_until_a_signal(tmp_path: Path, number: int) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    line = [
        sys.executable,
        "-m",
        "vizcomp",
        "djpeg",
        inbox,
        "-o",
        tmp_path / "out",
        "--watch",
        "--guide",
        "uniform",
        "-j",
        "1",
    ]
    environment = {**os.environ, "VIZCOMP_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1"}
    with subprocess.Popen(
        list(map(str, line)), stdout=-1, stderr=-1, text=True, env=environment, cwd=tmp_path
    ) as run:
        data = jpeg_bytes(picture(1, 64, 64))
        wait_until((tmp_path / "out").is_dir, unless=run.poll)
        (inbox / "b.jpg").write_bytes(data)
        wait_until(lambda: {"b.jpg"} <= tree(tmp_path / "out"), unless=run.poll)
        (inbox / "sub").mkdir()
        (inbox / "sub" / "a.jpg").write_bytes(data)
        wait_until(lambda: {"b.jpg", "sub/a.jpg"} <= tree(tmp_path / "out"), unless=run.poll)
        run.send_signal(number)
        text, error = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, error
    assert "Traceback" not in error
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["files"]
    assert sorted((Path(row["input"]).name, row["status"]) for row in rows) == [
        ("a.jpg", "ok"),
        ("b.jpg", "ok"),
    ]
    assert "photos" in text


def test_a_file_that_grows_is_taken_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizcomp.files import watch

    now = 1000.0
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: now))
    watched = watch.Watched([tmp_path])
    growing = tmp_path / "slow.jpg"
    for size in (0, 200, 400, 600):
        growing.write_bytes(bytes(size))
        assert watched.look() == []
        now += 0.9
        assert watched.look() == []
    now += 0.2  # since it grew last 1.1 seconds
    assert [file.path for file in watched.look()] == [growing]
    now += 100
    assert watched.look() == []
    growing.write_bytes(bytes(900))  # written again: it is done again
    assert watched.look() == []
    now += 1.1
    assert [file.path for file in watched.look()] == [growing]
    growing.write_bytes(b"")
    now += 100
    assert watched.look() == watched.look() == []  # empty as long as nothing has come


def test_a_signal_between_two_rounds_of_a_watch_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizcomp.batch.loop import RunOptions
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.batch.streams import Plan
    from vizcomp.cli.djpeg_run import Asked, rounds
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.files import watch

    monkeypatch.setattr(watch, "SETTLE_SECONDS", 0.0)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg_bytes(picture(1, 64, 64)))
    job = Asked(
        plan=Plan((str(tmp_path / "in"),), None, tmp_path / "out"),
        settings=DjpegSettings(guide="uniform"),
        batch=BatchSettings(),
        report=None,
    )
    heard: list[int] = []
    options = RunOptions(jobs=1, on_interrupt=lambda: heard.append(1))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        runs = rounds(job, watch.Watched([tmp_path / "in"]), options)
        (record,) = next(runs).records
        signal.raise_signal(signal.SIGINT)
        assert (record.status, list(runs), heard) == ("ok", [], [1])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_signal_while_a_network_loads_is_an_interruption(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as exc:
            raise RuntimeError("initialisation failed") from exc

    monkeypatch.setattr("vizcomp.weights.looking.opened", lambda data: None)
    monkeypatch.setattr("vizcomp.weights.sessions.open_session", interrupted)
    monkeypatch.setattr("vizcomp.batch.judges.depth_source", lambda batch: open_compact())
    monkeypatch.setattr("vizcomp.batch.depth.depth_source", lambda batch: open_compact())
    code, _, error = said("depth", "in", "-o", "maps", "-j", 1)
    assert (code, error.splitlines()[-1]) == (130, "interrupted")


def test_a_signal_in_the_middle_of_a_command_is_told(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vizcomp.batch.depth.run_depth", interrupted)
    code, _, error = said("depth", "in", "-o", "maps")
    assert (code, error.splitlines()) == (130, ["interrupted"])


STOPPED_CLASS = """
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as exc:  # as a class body that was stopped
                raise RuntimeError("__set_name__") from exc
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "comes",
    [
        STOPPED_CLASS,
        # as a dataclass that was stopped in the making: Python would end by SIGINT
        "            exec('raise KeyboardInterrupt')",
        "            signal.raise_signal(signal.SIGTERM)",
    ],
    ids=["class", "dataclass", "sigterm"],
)
def test_a_signal_while_the_command_line_loads_is_told(comes: str, tmp_path: Path) -> None:
    script = f"""
import signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
{comes}

sys.meta_path.insert(0, Interrupts())
from vizcomp.__main__ import main
main()
"""
    (tmp_path / "stopped.py").write_text(script)
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    run = subprocess.run(  # as `python -m vizcomp`: Python ends the two in different ways
        [sys.executable, "-m", "stopped"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_when_all_is_done_spoils_nothing() -> None:
    script = """
import atexit, signal, sys
atexit.register(signal.raise_signal, signal.SIGINT)
atexit.register(signal.raise_signal, signal.SIGTERM)
sys.argv = ["vizcomp", "--version"]
from vizcomp.__main__ import main
main()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("vizcomp ")


def test_a_signal_while_the_words_are_read_is_told(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = typer.main.get_command

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    def stopped(app: typer.Typer) -> Any:
        command = made(app)
        monkeypatch.setattr(command, "parse_args", interrupted)
        return command

    monkeypatch.setattr(typer.main, "get_command", stopped)
    assert said("depth", "in", "-o", "maps") == (130, "", "interrupted\n")


def open_compact() -> object:
    from vizcomp.weights.sessions import open_network

    return open_network(None, "compact_depth.onnx", "compact-depth", what="depth network", hint="")
