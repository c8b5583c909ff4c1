"""What `--resume` sees of sources and results that somebody touched meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kit import jpeg_bytes, picture

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(jpeg_bytes(picture(1, 64, 64)))
    return path


def run(photo: Path, quality: float = 50) -> tuple[str, str]:
    settings = DjpegSettings(guide="uniform", quality=quality)
    files = find_inputs([photo.parent])
    done = run_djpeg(
        files, photo.parents[1] / "out", settings, BatchSettings(resume=True), RunOptions(jobs=1)
    )
    return done.records[0].status, done.records[0].error or ""


def test_a_small_source_changed_within_size_and_time_is_done_again(photo: Path) -> None:
    run(photo)
    before, stat = photo.read_bytes(), photo.stat()
    other = before[:-30] + bytes(b ^ 1 for b in before[-30:-4]) + before[-4:]
    photo.write_bytes(other)
    os.utime(photo, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = photo.parents[1] / "out" / "a.jpg"
    written = result.stat().st_mtime_ns
    run(photo)
    assert result.stat().st_mtime_ns != written


def test_a_result_that_was_edited_is_not_replaced(photo: Path) -> None:
    assert run(photo)[0] == "ok"
    result = photo.parents[1] / "out" / "a.jpg"
    result.write_bytes(b"mine")
    assert run(photo, 70) == ("skipped", "output exists; `overwrite` replaces it")
    assert result.read_bytes() == b"mine"


def test_a_result_that_nobody_touched_is_replaced_where_settings_changed(photo: Path) -> None:
    run(photo)
    result = photo.parents[1] / "out" / "a.jpg"
    before = result.read_bytes()
    assert run(photo, 70)[0] == "ok"
    assert result.read_bytes() != before


def test_a_source_that_fails_once_costs_no_earlier_result(photo: Path) -> None:
    """The result that lies there is still that of the photo as it was: known again with it."""
    run(photo)
    result, whole = photo.parents[1] / "out" / "a.jpg", photo.read_bytes()
    before = result.stat()
    photo.write_bytes(whole[:100])
    for _ in range(2):  # and it fails again, where nothing was mended
        status, error = run(photo)
        assert status == "failed"
        assert "cut off" in error
    photo.write_bytes(whole)
    assert run(photo) == ("ok", "")
    assert result.stat().st_mtime_ns == before.st_mtime_ns
    photo.write_bytes(jpeg_bytes(picture(2, 64, 64)))
    assert run(photo) == ("ok", "")
    assert result.stat().st_mtime_ns != before.st_mtime_ns


def test_other_settings_that_fail_leave_the_earlier_result_known(photo: Path) -> None:
    run(photo)
    whole = photo.read_bytes()
    photo.write_bytes(whole[:100])
    assert run(photo, 70)[0] == "failed"
    photo.write_bytes(whole)
    result = photo.parents[1] / "out" / "a.jpg"
    before = result.read_bytes()
    assert run(photo) == ("ok", "")
    assert result.read_bytes() == before
    assert run(photo, 70) == ("ok", "")
    assert result.read_bytes() != before
