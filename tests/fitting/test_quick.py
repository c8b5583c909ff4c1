"""Files that a search tries and throws away are made quickly; those of a certificate are djpeg's
own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit import jpeg_bytes, picture
from test_vision import classifier

import vizcomp
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.fitting import candidates, measure
from vizcomp.fitting.measure import Bench, Work
from vizcomp.fitting.sample import read_sample
from vizcomp.photos import formats
from vizcomp.photos.photo import load

AVIF = DjpegSettings(format="avif", guide="uniform", strength=0.0, quality=86)
WEBP = DjpegSettings(format="webp", guide="uniform", strength=0.0, quality=86)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(24):
        (folder / f"{seed:02}.jpg").write_bytes(jpeg_bytes(picture(seed, 96, 128), quality=95))
    return folder


def test_what_is_tried_is_nearly_what_is_written(tmp_path: Path, photos: Path) -> None:
    units = read_sample(find_inputs([photos]), unit="file", max_pixels=10**8).units[:2]
    rival = candidates.Rival("avif", 70)
    settings = [AVIF, WEBP, rival]
    work = Work(systems=(str(classifier(tmp_path / "m.onnx")),), jobs=1)
    own, quick = (Bench(work).scores(settings, units, quick=one) for one in (False, True))
    sources = [load(unit.files[0].path) for unit in units]
    written = [len(compress(photo, AVIF).data) for photo in sources]
    assert own[AVIF].sizes.tolist() == written
    assert own[rival].sizes.tolist() == [len(rival.encode(photo)) for photo in sources]
    for one in settings:
        assert (quick[one].sizes != own[one].sizes).any()
        np.testing.assert_allclose(quick[one].sizes, own[one].sizes, rtol=0.15)


@pytest.mark.parametrize("name", ["webp", "avif", "jxl"])
def test_a_format_is_quick_where_it_has_a_faster_way(name: str) -> None:
    if name == "jxl":
        pytest.importorskip("pillow_jxl")
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    first, second = (
        formats.encode_format(pixels, formats.FORMATS[name], 70, quick=one) for one in (False, True)
    )
    assert (first != second) == (name in formats.QUICK)


def test_nothing_is_certified_by_files_that_djpeg_does_not_write(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "QUALITIES", (45, 90))
    monkeypatch.setattr(candidates, "RIVAL_QUALITIES", (40, 93))
    monkeypatch.setattr(candidates, "GUIDES", (("uniform", 0.0),))
    asked: dict[bool, set[Path]] = {True: set(), False: set()}

    def judge_photo(task: measure.JudgeTask) -> measure.Judged:
        asked[task.quick].add(task.file.path)
        return judged(task)

    judged = measure.judge_photo
    monkeypatch.setattr(measure, "judge_photo", judge_photo)
    model = str(classifier(tmp_path / "m.onnx"))
    fitted = vizcomp.fit([photos], model, risk=0.2, confidence=0.9, jobs=1, kinds=False)
    assert len(asked[False]) == fitted.policy.certificate.photos
    assert not asked[True] & asked[False]
    assert len(asked[True]) + len(asked[False]) == 24
