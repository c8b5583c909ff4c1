"""Inputs that vanish after the run began have a row of their own, and the run does not end well."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from kit import jpeg_bytes, picture

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import InputFile, find_inputs


def test_a_folder_that_vanishes_before_it_is_listed_is_a_failed_input(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(jpeg_bytes(picture(1)))
    files = find_inputs([tmp_path / "one", tmp_path / "two"])
    shutil.rmtree(tmp_path / "two")
    done = run_djpeg(
        files, tmp_path / "out", DjpegSettings(guide="uniform"), BatchSettings(), RunOptions(jobs=1)
    )
    assert [r.status for r in done.records] == ["ok", "failed"]
    assert "does not exist" in (done.records[1].error or "")
    assert done.totals.failed == 1


def done(files: Iterator[InputFile], folder: Path) -> list[tuple[str, str]]:
    """Status and name of each input of a run."""
    settings = DjpegSettings(guide="uniform")
    run = run_djpeg(files, folder / "out", settings, BatchSettings(), RunOptions(jobs=1))
    assert run.totals.failed == 1
    return [(record.status, Path(record.input).name) for record in run.records]


def test_a_pattern_whose_files_vanish_is_a_failed_input(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(jpeg_bytes(picture(1)))
    files = find_inputs([tmp_path / "a.jpg", str(tmp_path / "b*.jpg")])
    (tmp_path / "b.jpg").unlink()
    assert done(files, tmp_path) == [("ok", "a.jpg"), ("failed", "b*.jpg")]


def test_a_folder_in_a_folder_that_vanishes_is_a_failed_input(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / "in" / name).write_bytes(jpeg_bytes(picture(1)))
    files = find_inputs([tmp_path / "in"])
    shutil.rmtree(tmp_path / "in" / "sub")
    assert done(files, tmp_path) == [("ok", "a.jpg"), ("failed", "sub")]
    (tmp_path / "in" / "empty").mkdir()  # one that is there and holds nothing is none
    assert len(list(find_inputs([tmp_path / "in"]))) == 1
