"""--resume: what an earlier run finished is taken over; a run that is killed at any moment ends in the same tree."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vizcomp import batch, images
from vizcomp.djpeg import DjpegSettings
from vizcomp.errors import SettingsError
from vizcomp.journal import Journal, place


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))


def photos(folder: Path, count: int, side: int = 64) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 255, (side // 8, side // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / f"{i:03}.bmp")
    return folder


def run(folder: Path, output: Path, quality: float = 50, **settings: Any) -> batch.BatchRun:
    files = images.find_inputs([str(folder)], exclude=output)
    chosen = DjpegSettings(quality=quality, guide="uniform")
    return batch.run_djpeg(files, output, chosen, batch.BatchSettings(**settings), jobs=1)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"))}


def done_again(run: batch.BatchRun, output: Path, before: dict[str, int]) -> list[str]:
    return [r.input for r in run.records if r.output and Path(r.output).stat().st_mtime_ns != before[Path(r.output).name]]


def times(output: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in output.iterdir()}


def test_what_is_finished_is_taken_over_with_its_figures(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 5), tmp_path / "out"
    first = run(source, output)
    before = times(output)
    again = run(source, output, resume=True)
    assert again.records == first.records
    assert done_again(again, output, before) == []
    without = run(source, output)
    assert [r.status for r in without.records] == ["skipped"] * 5


def test_what_changed_is_done_again(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 5), tmp_path / "out"
    run(source, output)
    before = times(output)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(source / "001.bmp")  # other content
    os.utime(source / "002.bmp")  # touched only
    (output / "003.jpg").write_bytes(b"not what was written")
    (output / "004.jpg").unlink()
    before.pop("004.jpg")
    before["004.jpg"] = 0
    again = run(source, output, resume=True)
    assert [Path(name).name for name in done_again(again, output, before)] == ["001.bmp", "003.bmp", "004.bmp"]
    assert {r.status for r in again.records} == {"ok"}
    other = run(source, output, quality=20, resume=True)  # other settings: all of them
    assert len(done_again(other, output, times(tmp_path / "out") | dict.fromkeys(before, 0))) == 5


def test_a_file_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 2), tmp_path / "out"
    output.mkdir()
    (output / "000.jpg").write_bytes(b"mine")
    found = run(source, output, resume=True)
    assert [r.status for r in found.records] == ["skipped", "ok"]
    assert (output / "000.jpg").read_bytes() == b"mine"


def test_kept_sources_are_known_again(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 3), tmp_path / "out"
    files = lambda: images.find_inputs([str(source)], exclude=output)  # noqa: E731
    settings = DjpegSettings(guide="uniform", min_saving=0.999)
    first = batch.run_djpeg(files(), output, settings, batch.BatchSettings(), jobs=1)
    assert {r.status for r in first.records} == {"kept"}
    before = times(output)
    again = batch.run_djpeg(files(), output, settings, batch.BatchSettings(resume=True), jobs=1)
    assert again.records == first.records
    assert done_again(again, output, before) == []


def test_maps_of_depth_resume_too(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 3), tmp_path / "maps"

    def depth(**settings: Any) -> Any:
        return batch.run_depth(images.find_inputs([str(source)]), output, batch.BatchSettings(**settings), jobs=1)[0]

    first, before = depth(), times(output)
    assert depth(resume=True) == first
    assert times(output) == before


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 100])
def test_a_damaged_journal_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    source, output = photos(tmp_path / "in", 2), tmp_path / "out"
    run(source, output)
    place(output).write_bytes(damage)
    assert [r.status for r in run(source, output, resume=True).records] == ["skipped"] * 2
    assert [r.status for r in run(source, output, overwrite=True).records] == ["ok"] * 2
    assert sqlite3.connect(place(output)).execute("SELECT count(*) FROM outputs WHERE record NOT NULL").fetchone() == (2,)


def test_a_journal_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "file"))
    log = Journal(tmp_path, {})
    log.begin(tmp_path / "a")
    assert log.finished(tmp_path / "a", tmp_path / "b") is None
    log.close()


def test_resume_and_overwrite_contradict() -> None:
    with pytest.raises(SettingsError):
        batch.BatchSettings(resume=True, overwrite=True)


def command(source: Path, output: Path) -> list[str]:
    options = ["--guide", "uniform", "--resume", "-j", "2", "--quiet"]
    return [sys.executable, "-m", "vizcomp", "djpeg", str(source), "-o", str(output), *options]


def killed_at_random_moments(tmp_path: Path, moments: int, count: int) -> None:
    source = photos(tmp_path / "in", count, 256)
    undisturbed, output = tmp_path / "calm", tmp_path / "out"
    started = time.monotonic()
    subprocess.run(command(source, undisturbed), check=True)
    whole = time.monotonic() - started
    wanted = tree(undisturbed)
    draw = random.Random(0)
    for _ in range(moments):
        one = subprocess.Popen(command(source, output), start_new_session=True)
        time.sleep(draw.uniform(0.3, 1.0) * whole)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()
        assert set(tree(output).items()) <= set(wanted.items())  # nothing half-written under a name of its own
    subprocess.run(command(source, output), check=True)
    assert tree(output) == wanted
    rows = {Path(r["input"]).name: r["output_bytes"] for r in json.loads((output / "report.json").read_text())["files"]}
    assert rows == {
        Path(r["input"]).name: r["output_bytes"] for r in json.loads((undisturbed / "report.json").read_text())["files"]
    }


def test_killed_and_resumed_the_tree_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    killed_at_random_moments(tmp_path, moments=3, count=60)


@pytest.mark.slow
def test_killed_at_twenty_moments(tmp_path: Path) -> None:
    killed_at_random_moments(tmp_path, moments=20, count=200)


def test_sigterm_finishes_what_is_in_hand_and_reports(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 400, 256), tmp_path / "out"
    one = subprocess.Popen(command(source, output))
    until = time.monotonic() + 30
    while len(list(output.glob("*.jpg"))) < 5 and time.monotonic() < until:
        time.sleep(0.02)
    one.send_signal(signal.SIGTERM)
    assert one.wait(60) == 130
    report = json.loads((output / "report.json").read_text())
    assert 5 <= report["totals"]["files"] < 400
    assert not [p for p in output.iterdir() if p.name.endswith((".part", ".tmp"))]
