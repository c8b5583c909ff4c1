"""Standard input and output, lists of names, and one named file."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import kit
import numpy as np
import pytest
from PIL import Image

import vizcomp
from vizcomp.batch.streams import Plan, planned
from vizcomp.errors import InputError, OutputError, SettingsError

OPTIONS = ("--guide", "uniform", "--table", "photo")


def photo(kind: str = "JPEG") -> bytes:
    rng = np.random.default_rng(1)
    pixels = np.clip(
        128 + 60 * np.sin(np.mgrid[:40, :48].sum(0) / 5)[..., None] + rng.normal(0, 5, (40, 48, 3)),
        0,
        255,
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(
        buffer, kind, **({"quality": 95} if kind == "JPEG" else {})
    )
    return buffer.getvalue()


def command(
    folder: Path, *arguments: str, given: bytes = b"", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "vizcomp", "djpeg", *OPTIONS, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def test_through_a_pipe(tmp_path: Path) -> None:
    source = photo()
    done = command(tmp_path, "-", "-o", "-", given=source)
    assert done.stdout == vizcomp.compress(source, guide="uniform", table="photo").data
    assert b"smaller" in done.stderr
    assert list(tmp_path.iterdir()) == []
    failed = command(tmp_path, "-", "-o", "-", given=b"no photo", code=1)
    assert failed.stdout == b""
    assert b"standard input is not an image" in failed.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is not installed")
def test_an_output_that_takes_nothing_is_told_in_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    one = ("djpeg", tmp_path / "a.jpg", "-j", 1, "--guide", "uniform", "-o")
    # large and small, of ours and of Rich: some fail when they are written, some at the end
    for words in (
        ("--version",),
        ("weights", "list"),
        (*one, tmp_path / "out", "--json"),
        (*one, "-"),
    ):
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            assert kit.command(*words) == 2
        said = capfd.readouterr().err.splitlines()
        assert said[-2:] == [
            "error: standard output cannot be written: no space left on the disk",
            "  try: free some space, or choose another output folder",
        ]
        assert not any("Traceback" in line for line in said)
    monkeypatch.setattr(sys, "stdout", None)  # closed
    assert kit.command(*one, tmp_path / "other") == 0
    assert kit.command(*one, tmp_path / "more", "--json") == 2
    assert not (tmp_path / "more").exists()
    assert kit.command(*one, "-") == 2
    said = capfd.readouterr().err
    assert said.count("error: standard output is closed") == 2


def test_one_file_and_a_list_of_names(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(photo())
    (tmp_path / "flat.png").write_bytes(_flat())
    command(tmp_path, "flat.png", "-o", "one.jpg")
    # although it is larger than the PNG: its name says JPEG
    with Image.open(tmp_path / "one.jpg") as image:
        assert image.format == "JPEG"
    assert not (tmp_path / "report.html").exists()
    command(tmp_path, "--files-from", "-", "-o", "out", "--quiet", given=b"a.jpg\nb.jpg\n")
    assert {"a.jpg", "b.jpg"} < {path.name for path in (tmp_path / "out").iterdir()}


def _flat() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


def plan(
    folder: Path,
    inputs: list[str],
    output: str,
    *,
    given: bytes = b"",
    files_from: str = "",
    replace: bool = False,
) -> Plan:
    with planned(
        [str(folder / name) if name != "-" else name for name in inputs],
        Path(output) if output == "-" else folder / output,
        standard_input=io.BytesIO(given),
        files_from=files_from,
        replace=replace,
        max_pixels=1000,
    ) as made:
        list(made.files())
        return made


def test_a_name_of_another_format_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    plan(tmp_path, ["a.jpg"], "x.avif").check_format("avif")
    for name, hint in (
        ("x.avif", "call it x.jpg, or use `format` avif"),
        ("x.png", "call it x.jpg"),
    ):
        with pytest.raises(SettingsError) as caught:
            plan(tmp_path, ["a.jpg"], name).check_format("jpeg")
        assert caught.value.hint == hint


def test_what_contradicts_itself(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "there.jpg"):
        (tmp_path / name).write_bytes(photo())
    (tmp_path / "empty.txt").write_bytes(b"\n\n")
    for wrong, kind, words in (
        (
            lambda: plan(tmp_path, ["a.jpg", "b.jpg"], "x.jpg"),
            SettingsError,
            "the inputs are several",
        ),
        (lambda: plan(tmp_path, ["a.jpg", "b.jpg"], "-"), SettingsError, "standard output"),
        (
            lambda: plan(tmp_path, ["-", "a.jpg"], "x.jpg", given=photo()),
            SettingsError,
            "the inputs are several",
        ),
        (
            lambda: plan(tmp_path, ["-"], "out", files_from="-"),
            SettingsError,
            "cannot be a photo and a list",
        ),
        (lambda: plan(tmp_path, ["-"], "out"), InputError, "is empty"),
        (lambda: plan(tmp_path, [], "out"), InputError, "no input given"),
        (
            lambda: plan(tmp_path, [], "out", files_from=str(tmp_path / "empty.txt")),
            InputError,
            "no name in",
        ),
        (
            lambda: plan(tmp_path, [], "out", files_from=str(tmp_path / "none.txt")),
            InputError,
            "cannot be read",
        ),
        (lambda: plan(tmp_path, ["a.jpg"], "there.jpg"), OutputError, "exists already"),
    ):
        with pytest.raises(kind, match=words):
            wrong()


def test_where_results_go(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    (tmp_path / "folder.jpg").mkdir()
    assert plan(tmp_path, ["a.jpg"], "x.jpg").target == tmp_path / "x.jpg"
    assert plan(tmp_path, ["a.jpg"], "a.jpg", replace=True).target == tmp_path / "a.jpg"
    for folder in ("out", "out.v2", "folder.jpg"):
        made = plan(tmp_path, ["a.jpg"], folder)
        assert (made.target, made.folder) == (None, tmp_path / folder)
        assert made.writes_report
    piped = plan(tmp_path, ["-", "a.jpg"], "out", given=photo())
    assert piped.piped is not None
    assert piped.piped.shown == "standard input"
