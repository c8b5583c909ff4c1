"""The commands as a user types them: files, reports, messages, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from kit import PATIENCE, command, jpeg_bytes, size_of, tree, wait_until
from PIL import Image

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


class Done(NamedTuple):
    stdout: str
    stderr: str


Command = Callable[..., Done]


def checked(ended: int, code: int, done: Done) -> Done:
    assert ended == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def vizcomp(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process."""
    for name, value in (("NO_COLOR", "1"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)

    def run(*arguments: object, code: int = 0) -> Done:
        ended = command(*arguments)
        return checked(ended, code, Done(*capfd.readouterr()))

    return run


def process(*arguments: object, code: int = 0) -> Done:
    """Runs a command in a process of its own, as a shell does, with pipes for what it says."""
    line = [sys.executable, "-m", "vizcomp", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT)
    # what a slow machine says every ten seconds
    said = re.sub(r"(?m)^\d+ of \d+ photos, .*/s.*\n", "", done.stderr)
    return checked(done.returncode, code, Done(done.stdout, said))


def test_djpeg_mirrors_the_tree_and_reports(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = process("djpeg", folder, "-o", out)
    assert tree(out) == {
        "a/coffee.jpg",
        "cat.jpg",
        "cat.png.jpg",
        "grey.jpg",
        "report.html",
        "report.json",
        "report.csv",
    }
    report = json.loads((out / "report.json").read_text())
    assert report["totals"]["files"] == 4
    assert report["totals"]["failed"] == 0
    for row in report["files"]:
        assert row["status"] == "ok"
        assert row["output_bytes"] == Path(row["output"]).stat().st_size
        assert row["source_bytes"] == Path(row["input"]).stat().st_size
        assert (row["width"], row["height"]) == size_of(row["output"])
        plain = io.BytesIO()
        with Image.open(row["input"]) as source:
            source.save(plain, "JPEG", quality=50, subsampling="4:2:0")
        assert row["plain_jpeg_bytes"] == len(plain.getvalue())
        assert row["psnr"] > 25
        assert 0.9 < row["ms_ssim"] < 1
        assert row["seconds"] > 0
    totals = report["totals"]
    assert totals["output_bytes"] == sum(r["output_bytes"] for r in report["files"])
    assert totals["saving_vs_plain_jpeg"] == pytest.approx(
        1 - totals["output_bytes"] / totals["plain_jpeg_bytes"]
    )
    assert len(list(csv.DictReader(io.StringIO((out / "report.csv").read_text(), newline="")))) == 4
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 8
    assert "smaller" in done.stdout
    assert done.stderr == ""


def test_json_alone_on_standard_output(folder: Path, tmp_path: Path) -> None:
    done = process(
        "djpeg", folder / "cat.jpg", "-o", tmp_path / "out", "--json", "--guide", "uniform"
    )
    assert json.loads(done.stdout)["totals"]["files"] == 1


def test_serial_and_parallel_runs_are_equal(vizcomp: Command, folder: Path, tmp_path: Path) -> None:
    for n in range(12):
        (folder / f"more{n}.jpg").write_bytes((folder / "cat.jpg").read_bytes())
    for jobs in (1, 2):
        vizcomp("djpeg", folder, "-o", tmp_path / str(jobs), "-j", jobs)
    one, two = tmp_path / "1", tmp_path / "2"
    assert tree(one) == tree(two)
    for name in tree(one):
        if name.endswith(".jpg"):
            assert (one / name).read_bytes() == (two / name).read_bytes()
    rows = [
        [r["input"] for r in json.loads((d / "report.json").read_text())["files"]]
        for d in (one, two)
    ]
    assert rows[0] == rows[1]


def test_one_bad_file_never_stops_a_folder(folder: Path, tmp_path: Path) -> None:
    good = (folder / "cat.jpg").read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a photo")
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    out = tmp_path / "out"
    done = process("djpeg", folder, "-o", out, "--guide", "uniform", code=1)
    report = json.loads((out / "report.json").read_text())
    failed = {Path(r["input"]).name: r for r in report["files"] if r["status"] == "failed"}
    assert set(failed) == {"empty.jpg", "text.jpg", "cut.jpg"}
    assert report["totals"]["failed"] == 3
    for name, row in failed.items():
        assert row["error"]
        assert "\n" not in row["error"]
        assert row["output"] is None
        assert not (out / name).exists()
        assert name in done.stderr
    assert (out / "cat.jpg").exists()
    assert not [n for n in tree(out) if n.startswith(".")]


def test_existing_results_are_skipped_unless_told(
    vizcomp: Command, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("djpeg", folder / "cat.jpg", "-o", out, "--guide", "uniform")
    vizcomp(*arguments)
    (out / "cat.jpg").write_bytes(b"mine")
    vizcomp(*arguments)
    assert (out / "cat.jpg").read_bytes() == b"mine"
    # the report of the run that did it
    assert json.loads((out / "report.json").read_text())["files"][0]["status"] == "ok"
    said = json.loads(vizcomp(*arguments, "--json").stdout)
    assert said["files"][0]["status"] == "skipped"
    vizcomp(*arguments, "--overwrite")
    assert (out / "cat.jpg").read_bytes() != b"mine"


def test_a_source_is_never_replaced_by_its_output(vizcomp: Command, folder: Path) -> None:
    before = (folder / "cat.jpg").read_bytes()
    done = vizcomp(
        "djpeg", folder / "cat.jpg", "-o", folder, "--overwrite", "--guide", "uniform", code=2
    )
    assert (folder / "cat.jpg").read_bytes() == before
    assert "is the input" in done.stderr


def test_dry_run_writes_nothing(vizcomp: Command, folder: Path, tmp_path: Path) -> None:
    done = vizcomp(
        "djpeg", folder, "-o", tmp_path / "out", "--dry-run", "--json", "--guide", "uniform"
    )
    assert not (tmp_path / "out").exists()
    assert json.loads(done.stdout)["totals"]["output_bytes"] > 0


def test_min_saving_keeps_the_source(vizcomp: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    vizcomp("djpeg", folder, "-o", out, "--guide", "uniform", "--min-saving", "99.9%")
    assert (out / "cat.jpg").read_bytes() == (folder / "cat.jpg").read_bytes()
    assert (out / "cat.png").read_bytes() == (folder / "cat.png").read_bytes()
    rows = json.loads((out / "report.json").read_text())["files"]
    assert {r["status"] for r in rows} == {"kept"}
    assert all(r["output_bytes"] == r["source_bytes"] for r in rows)


def test_no_metadata_means_none_even_where_the_source_is_kept(
    vizcomp: Command, tmp_path: Path, cat: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    small, photos = Image.fromarray(cat[:64, :64]), tmp_path / "photos"
    photos.mkdir()
    small.save(photos / "a.jpg", quality=5, exif=exif)
    exif[0x0112] = 6
    small.save(photos / "turned.jpg", quality=5, exif=exif)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(photos / "tiny.png", exif=exif)
    out = tmp_path / "out"
    vizcomp(
        "djpeg",
        photos,
        "-o",
        out,
        "--guide",
        "uniform",
        "--quality",
        "100",
        "--metadata",
        "none",
        "--min-saving",
        "99%",
    )
    rows = json.loads((out / "report.json").read_text())["files"]
    assert len(rows) == 3
    for row in rows:
        with Image.open(row["output"]) as made:
            assert not made.getexif()
    assert b"Maker" not in b"".join(p.read_bytes() for p in out.rglob("*.*g"))


def test_target_size_for_each_photo_of_a_batch(
    vizcomp: Command, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    vizcomp("djpeg", folder, "-o", out, "--target-size", "9kB", "--guide", "uniform")
    for row in json.loads((out / "report.json").read_text())["files"]:
        assert 0.98 * 9000 <= row["output_bytes"] <= 9000


def test_keep_dates(vizcomp: Command, folder: Path, tmp_path: Path) -> None:
    os.utime(folder / "cat.jpg", ns=(10**18, 10**18))
    vizcomp(
        "djpeg", folder / "cat.jpg", "-o", tmp_path / "out", "--guide", "uniform", "--keep-dates"
    )
    assert (tmp_path / "out" / "cat.jpg").stat().st_mtime_ns == 10**18


def test_ready_made_maps_and_a_missing_one(vizcomp: Command, folder: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    ramp = np.broadcast_to(np.linspace(0, 255, 20, dtype=np.uint8)[:, None], (20, 30))
    Image.fromarray(np.ascontiguousarray(ramp)).save(maps / "cat.png")
    out = tmp_path / "out"
    vizcomp("djpeg", folder, "-o", out, "--depth-maps", maps, code=1)
    rows = {
        Path(r["input"]).name: r for r in json.loads((out / "report.json").read_text())["files"]
    }
    assert rows["cat.jpg"]["status"] == rows["cat.png"]["status"] == "ok"
    assert "no depth map" in rows["grey.jpg"]["error"]


def test_masks(vizcomp: Command, folder: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("cat", "grey", "coffee"):
        Image.fromarray(np.full((4, 4), 255, np.uint8)).save(masks / f"{name}.png")
    vizcomp("djpeg", folder, "-o", tmp_path / "a", "--guide", "mask", "--masks", masks)
    vizcomp("djpeg", folder, "-o", tmp_path / "b", "--guide", "uniform")
    assert (tmp_path / "a" / "cat.jpg").read_bytes() == (tmp_path / "b" / "cat.jpg").read_bytes()


def test_strange_names(vizcomp: Command, tmp_path: Path, cat: np.ndarray) -> None:
    photos = tmp_path / "in"
    photos.mkdir()
    names = ["été 日本.jpg", "-dash.jpg", "new\nline.jpg", "quote'\".jpg", "<b>.jpg"]
    for name in names:
        (photos / name).write_bytes(jpeg_bytes(cat))
    vizcomp("djpeg", photos, "-o", tmp_path / "out", "--guide", "uniform")
    assert set(names) <= tree(tmp_path / "out")


def test_depth_writes_sixteen_bit_maps(vizcomp: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    vizcomp("depth", folder, "-o", out, "--preview")
    maps = {n for n in tree(out) if n.endswith(".png")}
    assert maps == {"a/coffee.depth.png", "cat.depth.png", "cat.png.depth.png", "grey.depth.png"}
    image = Image.open(out / "a" / "coffee.depth.png")
    assert image.mode == "I;16"
    assert image.size == (600, 400)
    assert np.ptp(np.asarray(image).astype(int)) > 10_000
    assert size_of(out / "a" / "coffee.depth.jpg") == (1200, 400)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["djpeg", "nowhere", "-o", "out"], 2, "nowhere"),
        (["djpeg", "empty", "-o", "out"], 2, "no photo"),
        (["djpeg", "cat.jpg", "-o", "cat.jpg/out"], 2, "cat.jpg"),
        (["djpeg", "cat.jpg", "-o", "out", "--guide", "nearness"], 2, "nearness"),
        (["djpeg", "cat.jpg", "-o", "out", "--quality", "0"], 2, "quality"),
        (["djpeg", "cat.jpg", "-o", "out", "--target-size", "big"], 2, "big"),
        (["djpeg", "cat.jpg", "-o", "out", "--depth-model", "nyu2"], 2, "nyu2"),
        (["djpeg", "cat.jpg", "-o", "out", "--depth-model", "./none.onnx"], 2, "none.onnx"),
        (["djpeg", "cat.jpg", "-o", "out", "--depth-maps", "none"], 2, "none"),
        (["djpeg", "cat.jpg", "-o", "out", "--guide", "mask"], 2, "--masks"),
        (["djpeg", "cat.jpg", "-o", "out", "--no-such-flag"], 2, "no-such-flag"),
        (["djpeg"], 2, ""),
        (["depth", "nowhere", "-o", "out"], 2, "nowhere"),
    ],
)
def test_wrong_commands_say_what_is_wrong(
    vizcomp: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cat: np.ndarray,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    (tmp_path / "cat.jpg").write_bytes(jpeg_bytes(cat))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    done = vizcomp(*arguments, code=code)
    assert says in done.stderr
    assert not (tmp_path / "out" / "cat.jpg").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupt_keeps_what_is_finished(tmp_path: Path, coffee: np.ndarray, jobs: int) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    data = jpeg_bytes(coffee)
    for n in range(400):  # a minute of work at least: it must not end before the signal comes
        (photos / f"{n:03}.jpg").write_bytes(data)
    line = [
        sys.executable,
        "-m",
        "vizcomp",
        "djpeg",
        str(photos),
        "-o",
        str(out),
        "-j",
        str(jobs),
        "--target-size",
        "20kB",
    ]
    running = subprocess.Popen(
        line, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: len(list(out.glob("*.jpg"))) >= 5, unless=running.poll)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: workers get it too
    _, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert "interrupted" in said
    report = json.loads((out / "report.json").read_text())
    assert report["interrupted"] is True
    done = [r for r in report["files"] if r["status"] == "ok"]
    assert 0 < len(done) < 400
    assert {Path(r["output"]).name for r in done} == {n for n in tree(out) if n.endswith(".jpg")}
    for row in done:
        Image.open(row["output"]).load()
    assert not [n for n in tree(out) if Path(n).name.startswith(".")]


def test_version_and_help() -> None:
    assert process("--version").stdout.startswith("vizcomp ")
    assert "djpeg" in process("--help").stdout


def test_an_exception_that_says_nothing_is_named() -> None:
    from vizcomp.errors import first_line

    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(ValueError("\n a\nb")) == "a"
