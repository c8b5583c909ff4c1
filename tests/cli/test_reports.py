"""Reports of depth, encode and decode as files; the page of eval without pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from kit import command, jpeg_bytes, picture, tree


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg_bytes(picture(1)))
    (folder / "=b.jpg").write_bytes(jpeg_bytes(picture(2)))
    (folder / "broken.jpg").write_bytes(jpeg_bytes(picture(3))[:200])
    return folder


def of(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    assert tree(folder) == {"report.json", "report.csv"}
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return json.loads((folder / "report.json").read_text("ascii")), list(csv.DictReader(file))


@pytest.mark.parametrize("verb", ["depth", "encode"])
def test_a_report_has_a_row_for_every_input(photos: Path, tmp_path: Path, verb: str) -> None:
    where = tmp_path / "rep ort"
    model = ("--model", "cifar") if verb == "encode" else ()
    asked = (verb, photos, "-o", tmp_path / "out", *model, "-j1", "--quiet")
    assert command(*asked, "--report", where) == 1
    report, rows = of(where)
    assert report["tool"] == f"vizcomp {verb}"
    assert report["command"].startswith(f"vizcomp {verb}")
    assert [row["status"] for row in report["files"]] == ["ok", "ok", "failed"]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert len(tree(tmp_path / "out")) == 2
    (where / "report.json").unlink()
    assert command(*asked, "--report", "none", "--overwrite") == 1
    assert command(*asked, "--report", where, "--overwrite", "--dry-run") == 1
    assert tree(where) == {"report.csv"}


def test_decode_reports_too_and_json_goes_beside(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").unlink()
    assert command("encode", photos, "-o", tmp_path / "v", "--model", "cifar", "--quiet") == 0
    capfd.readouterr()
    where = tmp_path / "report"
    assert command("decode", tmp_path / "v", "-o", tmp_path / "p", "--report", where, "--json") == 0
    report, rows = of(where)
    printed = json.loads(capfd.readouterr().out)
    assert printed["files"] == report["files"]
    assert len(rows) == 2


def test_a_report_that_cannot_be_written_stops_before_the_first_photo(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for verb in ("depth", "encode"):
        assert command(verb, photos, "-o", tmp_path / "out", "--report", tmp_path / "file") == 2
        assert "file" in capfd.readouterr().err
    assert not (tmp_path / "out").exists() or not tree(tmp_path / "out")


def test_eval_without_thumbnails_has_no_picture(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").unlink()
    asked = ("eval", "--data", photos, "--baseline", "jpeg", "--codec", "djpeg:guide=uniform")
    asked = (*asked, "--classifier", "inception", "-j1", "--quiet", "-o", tmp_path / "out")
    assert command(*asked, "--no-thumbnails") == 0
    assert "data:image" not in (tmp_path / "out/report.html").read_text("utf-8")
