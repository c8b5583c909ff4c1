"""--resume: what an earlier run finished is taken over; a run that is killed at any moment ends in
the same tree."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import PATIENCE, contents, wait_until
from PIL import Image

from vizcomp.batch import groups, packs
from vizcomp.batch.decode import VZC_EXTENSIONS, run_decode
from vizcomp.batch.depth import run_depth
from vizcomp.batch.djpeg import BatchRun, run_djpeg
from vizcomp.batch.encode import run_encode
from vizcomp.batch.encode_pack import run_encode_pack
from vizcomp.batch.groups import CodecRun
from vizcomp.batch.journal import Journal, place, prune
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings, DecodeSettings, EncodeSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import SettingsError
from vizcomp.files.find import find_inputs
from vizcomp.files.read import file_state
from vizcomp.files.store import StorePath
from vizcomp.files.write import _leftover_prefix
from vizcomp.neural import tiling


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


def run(folder: Path, output: Path, quality: float = 50, **settings: Any) -> BatchRun:
    files = find_inputs([str(folder)], exclude=output)
    chosen = DjpegSettings(quality=quality, guide="uniform")
    return run_djpeg(files, output, chosen, BatchSettings(**settings), options=RunOptions(jobs=1))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"))}


def done_again(run: BatchRun, output: Path, before: dict[str, int]) -> list[str]:
    return [
        r.input
        for r in run.records
        if r.output and Path(r.output).stat().st_mtime_ns != before[Path(r.output).name]
    ]


def times(output: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in output.iterdir()}


def test_what_is_finished_is_taken_over_with_its_figures(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 5), tmp_path / "out"
    first = run(source, output)
    before = times(output)
    again = run(source, output, resume=True)
    assert again.records == first.records
    assert done_again(again, output, before) == []
    # sums are of all photos, the speed of this run alone
    assert again.totals.output_bytes == first.totals.output_bytes
    assert (first.totals.resumed, again.totals.resumed) == (0, 5)
    assert first.totals.megapixels_per_second > 0 == again.totals.megapixels_per_second
    (output / "002.jpg").unlink()
    one_more = run(source, output, resume=True).totals
    assert one_more.resumed == 4
    assert one_more.megapixels_per_second * one_more.seconds == pytest.approx(64 * 64 / 1e6)
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
    assert [Path(name).name for name in done_again(again, output, before)] == ["001.bmp", "004.bmp"]
    # what somebody changed is theirs
    assert [r.status for r in again.records] == ["ok", "ok", "ok", "skipped", "ok"]
    (output / "003.jpg").write_bytes(b"")  # as a power cut leaves it
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
    files = lambda: find_inputs([str(source)], exclude=output)  # noqa: E731
    settings = DjpegSettings(guide="uniform", min_saving=0.999)
    first = run_djpeg(files(), output, settings, BatchSettings(), options=RunOptions(jobs=1))
    assert {r.status for r in first.records} == {"kept"}
    before = times(output)
    again = run_djpeg(
        files(), output, settings, BatchSettings(resume=True), options=RunOptions(jobs=1)
    )
    assert again.records == first.records
    assert done_again(again, output, before) == []


def test_maps_of_depth_resume_too(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 3), tmp_path / "maps"

    def depth(**settings: Any) -> Any:
        return run_depth(
            find_inputs([str(source)]),
            output,
            BatchSettings(**settings),
            options=RunOptions(jobs=1),
        )[0]

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
    assert sqlite3.connect(place(output)).execute(
        "SELECT count(*) FROM outputs WHERE record NOT NULL"
    ).fetchone() == (2,)


def test_a_journal_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "file"))
    log = Journal(tmp_path, {})
    log.begin(tmp_path / "a")
    assert log.finished(tmp_path / "a", tmp_path / "b") is None
    log.close()


def aged(journal_of: Path, days: float) -> Path:
    """A journal that was used last so many days ago."""
    path = place(journal_of)
    used = time.time() - days * 86_400
    for part in path.parent.glob(f"{path.name}*"):
        os.utime(part, (used, used))
    return path


def test_journals_of_no_use_are_removed(tmp_path: Path) -> None:
    old, gone, away, kept = (tmp_path / name for name in ("old", "gone", "away", "kept"))
    for folder in (old, gone, away, kept):
        folder.mkdir()
        Journal(folder, {}).close()
    stored = StorePath("s3", "bucket", "out")
    Journal(stored, {}).close()
    gone.rmdir()
    away.rmdir()
    days = {old: 200, gone: 20, away: 5, kept: 100, stored: 100}
    paths = {folder: aged(folder, age) for folder, age in days.items()}  # type: ignore[arg-type]
    mark = place(kept).parent / ".pruned"
    Journal(tmp_path / "new", {}).close()
    assert all(path.exists() for path in paths.values())  # looked for today already
    os.utime(mark, (0, 0))
    Journal(tmp_path / "new", {}).close()
    assert {folder for folder, path in paths.items() if not path.exists()} == {old, gone}


def test_a_journal_that_is_used_is_kept(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 2), tmp_path / "out"
    run(source, output)
    path = aged(output, 400)
    (path.parent / ".pruned").unlink()
    assert {r.status for r in run(source, output, resume=True).records} == {"ok"}
    assert time.time() - path.stat().st_mtime < 60
    assert prune(path.parent) == 0


def test_old_rows_of_outputs_beside_their_inputs_are_removed(tmp_path: Path) -> None:
    log = Journal(None, {})
    now = time.time_ns()
    for name, written in (("old", now - 200 * 86_400 * 10**9), ("new", now)):
        path = tmp_path / name
        path.write_bytes(b"x")
        os.utime(path, ns=(written, written))
        log.finish(
            path,
            path,
            file_state(path),
            record={"input": name},
            written=path,
            written_state=file_state(path),
        )
    log.close()
    prune(place(None).parent)
    log = Journal(None, {})
    assert [
        log.finished(tmp_path / name, tmp_path / name) is not None for name in ("old", "new")
    ] == [False, True]
    log.close()


def test_resume_and_overwrite_contradict() -> None:
    with pytest.raises(SettingsError):
        BatchSettings(resume=True, overwrite=True)


def command(source: Path, output: Path) -> list[str]:
    options = ["--guide", "uniform", "--resume", "-j", "2", "--quiet"]
    return [sys.executable, "-m", "vizcomp", "djpeg", str(source), "-o", str(output), *options]


def whole_tree(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, but the reports: those tell the time that it took."""
    return {name: data for name, data in contents(folder).items() if not name.startswith("report.")}


def kill(one: subprocess.Popen[bytes], workers_too: bool) -> None:
    """kill -9 of a run; without its workers they must end by themselves."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL) if workers_too else one.kill()
    one.wait()
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(one.pid, 0)  # the group lives as long as one of its processes
            time.sleep(0.01)
        raise AssertionError("workers outlive their parent")


def files_of(folder: Path) -> int:
    return sum(p.is_file() and not p.name.startswith(".") for p in folder.rglob("*"))


def killed_at_random_moments(
    run: Callable[[Path], list[str]], tmp_path: Path, moments: int, *, several: bool = True
) -> None:
    """Kill a run so many times, and compare. `several`: it writes more than a file.

    What comes to its end before it can be killed counts for nothing, and is begun anew: so neither
    a fast machine nor a slow one changes how many kills there are, or that they come among the
    outputs.
    """
    undisturbed, output = tmp_path / "calm", tmp_path / "out"
    started = time.monotonic()
    subprocess.run(run(undisturbed), check=True)
    whole = time.monotonic() - started
    wanted = whole_tree(undisturbed)
    assert wanted
    draw = random.Random(0)
    killed = ended = among = 0
    while killed < moments:
        before = files_of(output)
        started = time.monotonic()
        one = subprocess.Popen(run(output), start_new_session=True)
        # any time, often before the first output
        until = started + (draw.uniform(0, whole) if killed % 3 == 0 else 600)
        # a little after some more outputs are there
        enough = before + draw.randrange(1, max(2, len(wanted) // moments))
        while one.poll() is None and time.monotonic() < until and files_of(output) < enough:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.05))
        alive = one.poll() is None
        kill(one, workers_too=killed % 2 == 0)
        there = {
            name: data
            for name, data in whole_tree(output).items()
            if not Path(name).name.startswith(".vizcomp-")
        }
        # nothing half-written under a name of its own
        assert set(there.items()) <= set(wanted.items())
        if alive:
            killed += 1
            among += 0 < len(there) < len(wanted)
        else:
            ended += 1
            assert (one.returncode, ended <= 2 * moments) == (0, True)
            assert whole_tree(output) == wanted
            shutil.rmtree(output)
    assert among >= moments // 3 or not several
    subprocess.run(run(output), check=True)
    assert whole_tree(output) == wanted


def same_figures(tmp_path: Path) -> bool:
    one, other = (
        json.loads((tmp_path / name / "report.json").read_text())["files"]
        for name in ("calm", "out")
    )
    return [(r["input"], r["output_bytes"], r["psnr"]) for r in one] == [
        (r["input"], r["output_bytes"], r["psnr"]) for r in other
    ]


def test_killed_and_resumed_the_tree_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    source = photos(tmp_path / "in", 40, 256)
    killed_at_random_moments(lambda output: command(source, output), tmp_path, moments=3)
    assert same_figures(tmp_path)


@pytest.mark.slow
def test_djpeg_killed_at_twenty_moments(tmp_path: Path) -> None:
    source = photos(tmp_path / "in", 200, 256)
    killed_at_random_moments(lambda output: command(source, output), tmp_path, moments=20)
    assert same_figures(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["encode", "decode", "pack"])
def test_codec_killed_at_twenty_moments(tmp_path: Path, verb: str) -> None:
    """With the bundled codec for small images, which travel in groups: many of them are cut in
    their middle."""
    # a pack goes in parts of 256
    source = photos(tmp_path / "in", 1300 if verb == "pack" else 640, 32)
    start = [sys.executable, "-m", "vizcomp"]
    end = ["--resume", "-j", "2", "--quiet"]
    if verb == "encode":
        run = lambda output: [  # noqa: E731
            *start,
            "encode",
            str(source),
            "-o",
            str(output),
            "--model",
            "cifar",
            *end,
        ]
    elif verb == "decode":
        codes = tmp_path / "codes"
        subprocess.run(
            [*start, "encode", str(source), "-o", str(codes), "--model", "cifar", "--quiet"],
            check=True,
        )
        run = lambda output: [*start, "decode", str(codes), "-o", str(output), *end]  # noqa: E731
    else:
        pack = tmp_path / "set.vzc"
        subprocess.run(
            [
                *start,
                "encode",
                "--pack",
                str(source),
                "-o",
                str(pack),
                "--model",
                "cifar",
                "--quiet",
            ],
            check=True,
        )
        run = lambda output: [*start, "decode", str(pack), "-o", str(output), *end]  # noqa: E731
    killed_at_random_moments(run, tmp_path, moments=20)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["formats and verdicts", "shards", "a pack that is written"])
def test_other_runs_killed_at_random_moments(tmp_path: Path, what: str) -> None:
    source = photos(tmp_path / "in", 600 if "pack" in what else 24, 32 if "pack" in what else 128)
    start, end = [sys.executable, "-m", "vizcomp"], ["--resume", "-j", "2", "--quiet"]
    if what == "shards":
        shards = tmp_path / "shards"
        shards.mkdir()
        paths = sorted(source.iterdir())
        for number in range(0, len(paths), 4):
            with tarfile.open(shards / f"{number:02}.tar", "w") as tar:
                for path in paths[number : number + 4]:
                    tar.add(path, path.name)
        names = [str(path) for path in sorted(shards.iterdir())]
        command = ["djpeg", *names, "--guide", "uniform"]
    elif "pack" in what:
        command = ["encode", "--pack", str(source), "--model", "cifar"]
    else:
        verdict = ["--format", "auto", "--verify", "watcher"]
        command = ["djpeg", str(source), "--guide", "uniform", *verdict]
    place = (lambda output: output / "set.vzc") if "pack" in what else (lambda output: output)
    run = lambda output: [*start, *command, "-o", str(place(output)), *end]  # noqa: E731
    killed_at_random_moments(run, tmp_path, moments=6, several="pack" not in what)


def codes_of(source: Path, output: Path, model: Path, **settings: Any) -> CodecRun:
    files = find_inputs([str(source)], exclude=output)
    return run_encode(
        files, output, EncodeSettings(model=str(model), **settings), options=RunOptions(jobs=1)
    )


def test_encode_and_decode_take_over_what_is_finished(
    tmp_path: Path, any_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "GROUP", 4)
    source, output = photos(tmp_path / "in", 10, 32), tmp_path / "out"
    first = codes_of(source, output, any_model)
    wanted, before = whole_tree(output), times(output)
    again = codes_of(source, output, any_model, resume=True)
    assert again.records == first.records  # with the time that they took then
    assert (first.totals.resumed, again.totals.resumed) == (0, 10)
    assert first.totals.images_per_second > 0 == again.totals.images_per_second
    assert times(output) == before
    # one group in part, another one too: neighbours are coded with them again
    for name in ("001.vzc", "002.vzc", "007.vzc"):
        (output / name).unlink()
    again = codes_of(source, output, any_model, resume=True)
    assert whole_tree(output) == wanted
    assert sorted(n for n, t in times(output).items() if t != before[n]) == [
        "001.vzc",
        "002.vzc",
        "007.vzc",
    ]
    assert [r.output_bytes for r in again.records] == [r.output_bytes for r in first.records]
    other = codes_of(source, output, any_model, resume=True, iterations=1)
    assert {r.iterations for r in other.records} == {1}
    # other settings: done again, unasked
    assert [r.status for r in codes_of(source, output, any_model).records] == ["ok"] * 10
    assert [r.status for r in codes_of(source, output, any_model).records] == ["skipped"] * 10

    def pixels(**settings: Any) -> CodecRun:
        chosen = DecodeSettings(model=str(any_model), **settings)
        files = find_inputs([str(output)], extensions=VZC_EXTENSIONS)
        return run_decode(files, tmp_path / "png", chosen, options=RunOptions(jobs=1))

    first = pixels()
    wanted, before = whole_tree(tmp_path / "png"), times(tmp_path / "png")
    (tmp_path / "png" / "003.png").write_bytes(b"")  # as a power cut leaves it
    again = pixels(resume=True)
    assert whole_tree(tmp_path / "png") == wanted
    assert sorted(n for n, t in times(tmp_path / "png").items() if t != before[n]) == ["003.png"]
    assert [r.output_bytes for r in again.records] == [r.output_bytes for r in first.records]


def test_images_of_a_pack_are_taken_over(
    tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "BATCH", 4)
    monkeypatch.setattr(packs, "BATCH", 4)
    source, pack, output = photos(tmp_path / "in", 10, 32), tmp_path / "set.vzc", tmp_path / "out"
    settings = EncodeSettings(model=str(small_model))
    run_encode_pack(find_inputs([str(source)]), pack, settings, options=RunOptions(jobs=1))

    def unpack(**more: Any) -> CodecRun:
        chosen = DecodeSettings(model=str(small_model), **more)
        return run_decode(find_inputs([str(pack)]), output, chosen, options=RunOptions(jobs=1))

    first = unpack()
    wanted = whole_tree(output)
    before = {n: (output / n).stat().st_mtime_ns for n in wanted}
    (output / "set" / "002.png").unlink()
    (output / "set" / "009.png").write_bytes(b"")  # as a power cut leaves it
    again = unpack(resume=True)
    assert whole_tree(output) == wanted
    changed = [n for n in wanted if (output / n).stat().st_mtime_ns != before[n]]
    assert changed == ["set/002.png", "set/009.png"]
    same = ("status", "images", "pixels", "output_bytes", "iterations", "bpp")
    assert [getattr(again.records[0], f) for f in same] == [
        getattr(first.records[0], f) for f in same
    ]


def test_what_a_killed_run_was_writing_is_swept(tmp_path: Path) -> None:
    source, output = photos(tmp_path / "in", 2), tmp_path / "out"
    run(source, output)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    prefix = _leftover_prefix()
    theirs = output / f"{prefix}{gone.pid}-0123456789ab.tmp"
    ours = output / f"{prefix}{os.getpid()}-0123456789ab.tmp"
    elsewhere = output / f".vizcomp-00000000-{gone.pid}-0123456789ab.tmp"
    for path in (theirs, ours, elsewhere):
        path.write_bytes(b"half")
    run(source, output, resume=True)
    assert not theirs.exists()
    assert ours.exists()  # a process that lives may still be writing
    assert elsewhere.exists()  # so may one on another machine


@pytest.mark.parametrize("background", [False, True])
def test_sigterm_finishes_what_is_in_hand_and_reports(tmp_path: Path, background: bool) -> None:
    """In the background too: there a shell without job control has SIGINT ignored."""
    # a minute of work at least: it must not end before the signal comes
    source, output = photos(tmp_path / "in", 400, 256), tmp_path / "out"
    ignore = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if background else None
    one = subprocess.Popen([*command(source, output), "--target-size", "2kB"], preexec_fn=ignore)
    wait_until(lambda: len(list(output.glob("*.jpg"))) >= 5, unless=one.poll)
    one.send_signal(signal.SIGTERM)
    assert one.wait(PATIENCE) == 130
    report = json.loads((output / "report.json").read_text())
    assert 5 <= report["totals"]["files"] < 400
    assert not [p for p in output.iterdir() if p.name.endswith((".part", ".tmp"))]
