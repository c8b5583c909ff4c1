"""What a disk, a folder or a user may do to a batch: each costs its own input at most, and nothing
half-written stays."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.util
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import wait_until
from PIL import Image

from vizcomp.batch import single
from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.engines import map_tasks
from vizcomp.batch.items import Item, Outcome
from vizcomp.batch.log import Log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.record_list import Records
from vizcomp.batch.records import FileRecord
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.compress import finished
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import OutputError
from vizcomp.files.find import InputFile, find_inputs
from vizcomp.files.write import write_atomic

UNIFORM = DjpegSettings(guide="uniform")
posix = pytest.mark.skipif(os.name != "posix", reason="names and special files of POSIX")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))


def photo(path: Path, seed: int = 0, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(
    source: Path, output: Path, told: list[str] | None = None, **settings: Any
) -> dict[str, FileRecord]:
    tell = None if told is None else lambda problem: told.append(problem.message)
    files = find_inputs([str(source)], exclude=output, report=tell)
    found = run_djpeg(files, output, UNIFORM, BatchSettings(**settings), options=RunOptions(jobs=1))
    return {Path(record.input).name: record for record in found.records}


def all_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


# --- names and kinds of files
# -----------------------------------------------------------------------------------------


@posix
def test_a_tree_of_everything_that_a_disk_can_hold(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    photo(source / "a.png", 1)
    photo(source / "-o.png", 2)
    photo(source / "new\nline.png", 3)
    photo(Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.png")), 4)
    photo(source / "sub" / "b.png", 5)
    (source / "sub" / "up").symlink_to(source)  # a loop
    (source / "self").symlink_to("self")
    (source / "nowhere.png").symlink_to("gone.png")
    (source / "null.png").symlink_to("/dev/null")
    os.mkfifo(source / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(source)  # a socket's path must be short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
        with (source / "huge.png").open("wb") as huge:
            huge.truncate(4 << 30)  # takes no room on the disk
        (source / "empty.png").write_bytes(b"")
        told: list[str] = []
        records = run(source, output, told)
    ok = {name for name, r in records.items() if r.status == "ok"}
    assert ok == {"a.png", "-o.png", "new\\nline.png", "caf\\xe9.png", "b.png"}
    failed = {name: r.error or "" for name, r in records.items() if r.status == "failed"}
    assert set(failed) == {"huge.png", "empty.png"}
    assert "not an image" in failed["huge.png"]
    assert len([name for name in all_files(output) if name.endswith(".jpg")]) == 5
    assert (output / "sub" / "b.jpg").exists()
    assert not (output / "sub" / "up").exists()
    assert any("nowhere.png" in message for message in told)


@posix
def test_a_dash_at_the_start_of_a_name_is_no_flag(tmp_path: Path) -> None:
    photo(tmp_path / "-o.png")
    arguments = ["djpeg", "--guide", "uniform", "--output", "out", "--quiet", "--", "-o.png"]
    done = subprocess.run(
        [sys.executable, "-m", "vizcomp", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "-o.jpg").exists()


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="nothing is unreadable for this user"
)
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    source = tmp_path / "in"
    photo(source / "a.png")
    photo(source / "locked.png").chmod(0)
    photo(source / "shut" / "b.png")
    (source / "shut").chmod(0)
    told: list[str] = []
    try:
        records = run(source, tmp_path / "out", told)
    finally:
        (source / "shut").chmod(0o700)
    assert records["a.png"].status == "ok"
    assert "permission denied" in (records["locked.png"].error or "")
    assert any("shut" in message for message in told)


def test_a_folder_that_cannot_be_listed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    photo(source / "a.png")
    photo(source / "shut" / "b.png")
    listing = os.scandir

    def refusing(path: Any = ".") -> Any:
        if os.fspath(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", refusing)
    told: list[str] = []
    assert {n: r.status for n, r in run(source, tmp_path / "out", told).items()} == {"a.png": "ok"}
    assert len(told) == 1
    assert "permission denied" in told[0]


def test_two_inputs_never_share_an_output(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    for i, name in enumerate(("a.jpg", "a.png", "a.bmp", "A.gif")):
        photo(source / name, i)
    records = run(source, output)
    outputs = [r.output for r in records.values()]
    assert len({str(o).casefold() for o in outputs}) == 4
    assert records["a.jpg"].output == str(output / "a.jpg")
    assert records["a.png"].output == str(output / "a.png.jpg")


@posix
def test_a_loop_of_links_does_not_change_the_names_of_outputs(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("a.jpg", "a.png"):
        photo(source / name)
    for i in range(30):  # listed in any order, some come before the photos
        (source / f"loop{i}").symlink_to(f"loop{i}")
    records = run(source, tmp_path / "out", [])
    assert records["a.png"].output == str(tmp_path / "out" / "a.png.jpg")


def test_an_input_that_vanishes_costs_itself(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for i in range(4):
        photo(source / f"{i}.png", i)
    files = list(find_inputs([str(source)]))
    (source / "2.png").unlink()
    found = run_djpeg(files, tmp_path / "out", UNIFORM, BatchSettings(), options=RunOptions(jobs=1))
    assert [r.status for r in found.records] == ["ok", "ok", "failed", "ok"]
    assert "does not exist" in (found.records[2].error or "")
    assert found.totals.failed == 1


# --- where outputs go
# -------------------------------------------------------------------------------------------------


@posix
def test_no_output_goes_through_a_link_below_the_output_folder(tmp_path: Path) -> None:
    source, output, elsewhere = tmp_path / "in", tmp_path / "out", tmp_path / "elsewhere"
    photo(source / "sub" / "a.png")
    photo(source / "b.png")
    elsewhere.mkdir()
    output.mkdir()
    (output / "sub").symlink_to(elsewhere)
    (output / "b.jpg").symlink_to(elsewhere / "planted.jpg")
    records = run(source, output)
    assert records["a.png"].status == "failed"
    assert "is a link" in (records["a.png"].error or "")
    assert records["b.png"].status == "ok"
    assert list(elsewhere.iterdir()) == []
    assert not (output / "b.jpg").is_symlink()  # the link itself was replaced


@posix
def test_the_output_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    photo(tmp_path / "in" / "sub" / "a.png")
    assert run(tmp_path / "in", tmp_path / "out")["a.png"].status == "ok"
    assert (tmp_path / "real" / "sub" / "a.jpg").exists()


@posix
def test_a_link_that_appears_between_check_and_write_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (output / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    looked = os.stat

    def swapping(path: Any, **options: Any) -> os.stat_result:
        found = looked(path, **options)
        if path == "sub" and not (output / "sub").is_symlink():
            (output / "sub").rmdir()
            (output / "sub").symlink_to(elsewhere)
        return found

    monkeypatch.setattr(os, "stat", swapping)
    with pytest.raises(OutputError):
        write_atomic(output / "sub" / "a.jpg", b"x", below=output)
    assert list(elsewhere.iterdir()) == []


@posix
def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    for i in range(6):
        photo(source / f"{i}.png", i, 256)
    whole = sum(r.output_bytes or 0 for r in run(source, tmp_path / "whole").values())
    output.mkdir()
    options = f"size={whole * 6 // 10 // 1024}k"
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(output)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        records = run(source, output)
        failed = [r for r in records.values() if r.status == "failed"]
        assert 0 < len(failed) < 6
        assert all("no space left" in (r.error or "") for r in failed)
        ok = sorted(Path(r.output or "").name for r in records.values() if r.status == "ok")
        assert all_files(output) == ok
        for name in ok:
            Image.open(output / name).load()
        (output / ok[0]).unlink()
        again = run(source, output, resume=True)
        assert sum(r.status == "ok" for r in again.values()) >= len(ok)  # those that fit
    finally:
        subprocess.run(["umount", str(output)], check=True)


def test_a_disk_that_is_full_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    for i in range(4):
        photo(source / f"{i}.png", i)
    writing, writes = os.write, []

    def full(descriptor: int, data: Any) -> int:
        writes.append(len(data))
        if len(writes) == 3:
            writing(descriptor, data[:100])  # a part fits
            raise OSError(28, "No space left on device")
        return writing(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    records = run(source, output)
    assert [r.status for r in records.values()] == ["ok", "ok", "failed", "ok"]
    assert "no space left" in (records["2.png"].error or "")
    assert all_files(output) == ["0.jpg", "1.jpg", "3.jpg"]


@posix
def test_where_the_disk_is_full_for_the_report_its_json_is_still_printed(tmp_path: Path) -> None:
    import resource

    photo(tmp_path / "in" / "a.png")
    arguments = ["djpeg", "--guide", "uniform", "in", "-o", "out", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "vizcomp", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        # the photo fits, the page does not
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "report.html cannot be written" in done.stderr
    assert [f["status"] for f in json.loads(done.stdout)["files"]] == ["ok"]
    assert (tmp_path / "out" / "a.jpg").exists()
    assert not (tmp_path / "out" / "report.html").exists()
    assert not [name for name in all_files(tmp_path / "out") if name.startswith(".vizcomp")]


def test_a_defect_of_ours_costs_one_input_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    for i in range(3):
        photo(source / f"{i}.png", i)
    compressing = finished

    def broken(*arguments: Any) -> Any:
        if len(calls) == 1:
            calls.append("broken")
            raise ZeroDivisionError("oh")
        calls.append("fine")
        return compressing(*arguments)

    calls: list[str] = []
    monkeypatch.setattr(single, "finished", broken)
    records = run(source, tmp_path / "out")
    assert [r.status for r in records.values()] == ["ok", "failed", "ok"]
    error = records["1.png"].error or ""
    assert "unexpected ZeroDivisionError at single.py:" in error
    assert "defect" in error


# --- workers
# --------------------------------------------------------------------------------------------------


def dies_on(task: tuple[int, str]) -> tuple[int, str]:
    """Ends its own process as a decoder or the kernel would."""
    number, how = task
    if how == "segfault":
        ctypes.string_at(0)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    return number, "done"


def lost(task: tuple[int, str]) -> tuple[int, str]:
    return task[0], "lost"


@posix
def test_a_crash_costs_one_task_with_one_job_too() -> None:
    tasks = [(0, ""), (1, "segfault"), (2, ""), (3, "killed")]
    found = list(map_tasks(dies_on, tasks, on_crash=lost, jobs=1, isolate=True))
    assert found == [(n, "lost" if how else "done") for n, how in tasks]


@dataclasses.dataclass(frozen=True)
class Group:
    """Some inputs that travel together, as `encode` groups small files."""

    items: tuple[Item, ...]

    def again(self) -> Group:
        return self


def dies_on_one(task: Group) -> list[Outcome[FileRecord]]:
    if any("deadly" in item.file.shown for item in task.items):
        os.kill(os.getpid(), signal.SIGKILL)
    return [
        Outcome(FileRecord(input=item.file.shown, output=None, status="ok")) for item in task.items
    ]


def lost_group(task: Group) -> list[Outcome[FileRecord]]:
    return [
        Outcome(FileRecord(input=item.file.shown, output=None, status="failed"))
        for item in task.items
    ]


@posix
def test_a_crash_in_a_group_costs_one_input_and_not_the_group() -> None:
    names = ["a.png", "b.png", "deadly.png", "c.png", "d.png"]
    items = [Item(InputFile(Path(name), Path(name)), None) for name in names]
    verb = Verb(
        record=FileRecord,
        tasks=lambda taken: (
            Group(tuple(part)) for part in iter(lambda: list(itertools.islice(taken, 4)), [])
        ),
        work=dies_on_one,
        on_crash=lost_group,
    )
    records, interrupted = run_batch(iter(items), verb, Log(None), RunOptions(jobs=2, isolate=True))
    assert not interrupted
    assert [(r.input, r.status) for r in records] == [
        (name, "failed" if "deadly" in name else "ok") for name in names
    ]


def parent_of_workers() -> None:
    """A run in a process of its own, for a test that kills it."""
    list(map_tasks(sleeps, range(40), on_crash=lambda task: task, jobs=2))


def sleeps(task: int) -> int:
    print(os.getpid(), flush=True)
    time.sleep(0.5)
    return task


@posix
def test_workers_end_with_a_parent_that_was_killed() -> None:
    code = "from test_faults import parent_of_workers as run\nif __name__ == '__main__': run()"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.stdout.close()
    running.kill()
    running.wait()
    try:
        wait_until(lambda: not alive(running.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def alive(group: int) -> bool:
    """Whether there is a process in the group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# --- records
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 5, 11, 1200])
def test_records_on_disk_are_the_records(count: int) -> None:
    made = [
        FileRecord(input=f"{i}\\udc80é", output=None, status="ok", psnr=i / 7, notices=("a", "b"))
        for i in range(count)
    ]
    kept = Records(FileRecord, made, in_memory=10)
    assert kept == made
    assert len(kept) == count
    assert list(kept) == list(kept) == made
    assert kept[: count // 2] == made[: count // 2]
    if count:
        assert (kept[0], kept[-1], kept[count // 2]) == (made[0], made[-1], made[count // 2])
        kept.append(made[0])
        assert kept[-1] == made[0]
    with pytest.raises(IndexError):
        kept[count + 1]


def test_records_take_no_memory_however_many() -> None:
    kept = Records(FileRecord, in_memory=100)
    tracemalloc.start()
    for i in range(3000):
        kept.append(
            FileRecord(
                input=f"photos/{i:07}.jpg", output=f"out/{i:07}.jpg", status="ok", psnr=i / 7
            )
        )
    assert sum(1 for _ in kept) == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 800_000  # 1,160,000 as a list of objects


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak as Linux has it")
def test_memory_is_flat_over_twenty_thousand_inputs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        "batch_memory", Path(__file__).parents[2] / "benchmarks" / "batch_memory.py"
    )
    assert spec is not None
    assert spec.loader is not None
    memory = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(memory)
    found = {}
    for count in (1000, 20_000):
        memory.make(tmp_path / str(count), count)
        found[count] = memory.measure(
            tmp_path / str(count), tmp_path / f"{count}-out", 2, "uniform"
        )
    assert found[20_000]["parent_mb"] - found[1000]["parent_mb"] < 20
    assert found[20_000]["worker_mb"] - found[1000]["worker_mb"] < 10
    assert found[20_000]["html_mb"] < 1
