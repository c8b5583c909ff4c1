"""Inputs that vanish after the run began have a row of their own, and the run does not end well."""

from __future__ import annotations

import shutil
from pathlib import Path

from kit import jpeg_bytes, picture

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs


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
