"""Names that the disk refuses, and other errors while outputs are looked at, cost their input
alone."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture
from PIL import Image

from vizcomp.batch.decode import run_decode
from vizcomp.batch.depth import run_depth
from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.encode import run_encode
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings, DecodeSettings, EncodeSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import OutputError
from vizcomp.files.find import find_inputs
from vizcomp.files.names import OutputNames, is_there
from vizcomp.files.store import StorePath
from vizcomp.neural.codec import NeuralCodec

ALONE = RunOptions(jobs=1)
LONG = "a" * 251  # with .jpg as long as a disk allows


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    data = jpeg_bytes(picture(1, 48, 64))
    for name in (f"{LONG}.jpg", f"{LONG}.jpe", "fine.jpg"):
        (folder / name).write_bytes(data)
    return folder


def statuses(records: object) -> list[tuple[str, str]]:
    return [(r.status, r.error or "") for r in records]  # type: ignore[attr-defined]


@pytest.mark.parametrize("resume", [False, True])
def test_depth_does_the_rest_where_a_name_is_too_long(
    photos: Path, tmp_path: Path, resume: bool
) -> None:
    records, _ = run_depth(
        find_inputs([photos]), tmp_path / "out", BatchSettings(resume=resume), ALONE, preview=True
    )
    told = statuses(records)
    assert [status for status, _ in told] == ["failed", "failed", "ok"]
    assert all("the name is too long" in error and "defect" not in error for _, error in told[:2])


def test_djpeg_does_the_rest_where_a_second_name_is_too_long(photos: Path, tmp_path: Path) -> None:
    run = run_djpeg(
        find_inputs([photos]),
        tmp_path / "out",
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        ALONE,
    )
    told = statuses(run.records)
    assert [status for status, _ in told] == ["failed", "ok", "ok"]  # a.jpe becomes a.jpe.jpg
    assert "the name is too long" in told[0][1]


def test_encode_and_decode_do_the_rest_where_a_name_is_too_long(
    photos: Path, tmp_path: Path, any_model: Path
) -> None:
    coded = run_encode(
        find_inputs([photos]), tmp_path / "out", EncodeSettings(model=str(any_model)), ALONE
    )
    assert [r.status for r in coded.records] == ["failed", "ok", "ok"]
    files = tmp_path / "vzc"
    files.mkdir()
    data = NeuralCodec.load(any_model).encode(np.zeros((8, 8, 3), np.uint8))
    for name in (LONG, LONG[:-4] + ".x.y", "fine"):
        (files / f"{name}.vzc").write_bytes(data)
    found = find_inputs([files], extensions=frozenset({".vzc"}))
    run = run_decode(found, tmp_path / "png", DecodeSettings(model=str(any_model)), ALONE)
    assert [r.status for r in run.records] == ["ok"] * 3


def test_any_error_while_an_output_is_looked_at_costs_its_input(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists

    def broken(self: Path, **options: bool) -> bool:
        if self.parent.name == "out" and self.name.startswith("fine"):
            raise OSError(errno.EIO, "input/output error")
        return exists(self, **options)

    monkeypatch.setattr(Path, "exists", broken)
    for name in (f"{LONG}.jpg", f"{LONG}.jpe"):
        (photos / name).rename(photos / f"{name[-12:]}")
    records, _ = run_depth(find_inputs([photos]), tmp_path / "out", BatchSettings(), ALONE)
    assert [status for status, _ in statuses(records)] == ["ok", "ok", "failed"]
    assert "the disk reports an error" in statuses(records)[2][1]


def test_a_store_that_does_not_answer_costs_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: StorePath) -> None:
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(StorePath, "list", silent)
    monkeypatch.setattr(StorePath, "exists", silent)
    (tmp_path / "a.jpg").write_bytes(b"x")
    (file,) = find_inputs([tmp_path / "a.jpg"])
    target = OutputNames(StorePath("s3", "bucket", "out")).path_for(file)
    with pytest.raises(OutputError, match="cannot be looked at: no answer"):
        is_there(target)


@pytest.mark.parametrize("suffix", [".vzc", ".png", ""])
def test_an_output_folder_with_too_long_a_name_is_an_error_of_ours(
    photos: Path, tmp_path: Path, suffix: str
) -> None:
    with pytest.raises(OutputError):
        run_encode(find_inputs([photos]), tmp_path / ("b" * 300 + suffix), EncodeSettings(), ALONE)


TOO_LONG = "z" * 300
GIVEN = {
    "labels": ["djpeg", "in", "--guide", "uniform", "--labels", TOO_LONG],
    "a system": ["djpeg", "in", "--guide", "uniform", "--verify", f"{TOO_LONG}.onnx"],
    "a depth model": ["djpeg", "in", "--guide", "depth", "--depth-model", f"{TOO_LONG}.onnx"],
    "masks": ["djpeg", "in", "--guide", "mask", "--masks", TOO_LONG],
    "maps": ["djpeg", "in", "--guide", "depth", "--depth-maps", TOO_LONG],
    "data": ["eval", "--classifier", "watcher", "--data", TOO_LONG],
    "a model to add": ["weights", "add", "x", f"{TOO_LONG}.safetensors"],
    "a policy": ["djpeg", "in", "--policy", TOO_LONG],
}


@pytest.mark.parametrize("what", GIVEN)
def test_names_that_are_given_and_too_long_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    what: str,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg_bytes(picture(1, 48, 64)))
    monkeypatch.chdir(tmp_path)
    output = [] if GIVEN[what][0] == "weights" else ["-o", "out"]
    assert command(*GIVEN[what], *output) in (2, 3)
    assert [line[:7] for line in capfd.readouterr().err.splitlines()].count("error: ") == 1


@pytest.mark.parametrize("kind", ["labels", "masks", "maps"])
def test_what_goes_with_a_photo_of_the_longest_name_is_not_there(tmp_path: Path, kind: str) -> None:
    """Its labels, mask or map would have a longer name than the disk allows."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    for name in ("a.jpg", "z" * 255):
        (tmp_path / name).write_bytes(jpeg_bytes(picture(1, 48, 64)))
    Image.new("L", (64, 48)).save(tmp_path / "beside" / "a.png")
    beside = str(tmp_path / "beside")
    settings = DjpegSettings(guide={"labels": "uniform", "masks": "mask", "maps": "depth"}[kind])
    batch = BatchSettings(
        labels=beside if kind == "labels" else None,
        masks=beside if kind == "masks" else None,
        depth_maps=beside if kind == "maps" else None,
    )
    files = find_inputs([tmp_path / "a.jpg", tmp_path / ("z" * 255)])
    run = run_djpeg(files, tmp_path / "out", settings, batch, ALONE)
    assert [r.status for r in run.records] == ["ok", "failed"]
    assert "defect" not in (run.records[1].error or "")
