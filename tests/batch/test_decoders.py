"""`decoder`: vision systems see what the decoder of their own programs makes of a photo."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture
from PIL import Image

import vizcomp
from vizcomp.batch.about import about_system
from vizcomp.batch.encode import check_encoder
from vizcomp.batch.settings import BatchSettings, EncodeSettings
from vizcomp.errors import MissingExtraError, SettingsError, UnsupportedError
from vizcomp.evaluation.results import EvalSettings
from vizcomp.evaluation.run import run_eval
from vizcomp.files.find import find_inputs
from vizcomp.fitting.check import check
from vizcomp.fitting.policy import Certificate, CertifiedSystem, Policy
from vizcomp.photos import opencv
from vizcomp.photos.opencv import by_opencv, check_decoder

pytest.importorskip("cv2")


class Watch:
    """A classifier that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def __call__(self, image: np.ndarray) -> list[float]:
        self.shown.append(image.copy())
        return [0.9, 0.1]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def system(watch: Watch) -> vizcomp.System:
    return vizcomp.System(watch, "classes", name="decoder-watch", fingerprint="1")


def transparent(path: Path | None = None) -> bytes:
    """A PNG that is red under full transparency: white by Pillow, red by OpenCV."""
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[..., :3] -= picture(1, 40, 60) // 8
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    if path is not None:
        path.write_bytes(out.getvalue())
    return out.getvalue()


@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
def test_the_source_is_shown_as_the_decoder_makes_it(
    watch: Watch, system: vizcomp.System, decoder: str
) -> None:
    made = vizcomp.compress(transparent(), verify=system, guide="uniform", decoder=decoder)
    assert made.verify_state == "verified"
    assert (watch.shown[0][0, 0, 2] == 255) == (decoder == "pillow")
    assert len(watch.shown) >= 2


def test_results_are_decoded_by_opencv_too(watch: Watch, system: vizcomp.System) -> None:
    made = vizcomp.compress(
        jpeg_bytes(picture(0, 64, 96)), verify=system, guide="uniform", decoder="opencv"
    )
    assert np.array_equal(watch.shown[-1], by_opencv(bytes(made), "it"))


def test_a_turned_photo_is_shown_upright(watch: Watch, system: vizcomp.System) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg_bytes(picture(0, 64, 96), exif=exif.tobytes())
    vizcomp.compress(data, watch_with=system, guide="uniform", decoder="opencv")
    assert {image.shape for image in watch.shown} == {(96, 64, 3)}


def test_an_array_was_never_decoded(watch: Watch, system: vizcomp.System) -> None:
    pixels = picture(0, 40, 40)
    vizcomp.compress(pixels, watch_with=system, guide="uniform", decoder="opencv")
    assert np.array_equal(watch.shown[0], pixels)


def test_without_a_system_it_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    assert command("djpeg", tmp_path / "a.png", "-o", tmp_path / "out", "--decoder", "opencv") == 2
    assert "--decoder has no effect" in capfd.readouterr().err
    with pytest.raises(SettingsError, match="no effect"):
        check_encoder(EncodeSettings(model="cifar", decoder="opencv"), 1)


def test_an_unknown_decoder_and_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="unknown `decoder`"):
        check_decoder("turbo")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="opencv-python-headless") as caught:
        check_decoder("opencv")
    assert caught.value.exit_code == 2
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    asked = (
        "look",
        tmp_path / "a.png",
        "-o",
        tmp_path / "out",
        "--system",
        "watcher",
        "--decoder",
        "opencv",
    )
    assert command(*asked) == 2


def test_formats_that_it_does_not_read_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_decoder("opencv", ("jpeg", "webp")).startswith("opencv ")
    monkeypatch.setattr(opencv, "_reads", lambda kind: kind != "avif")
    with pytest.raises(SettingsError, match="does not read AVIF"):
        check_decoder("opencv", ("jpeg", "avif"))
    with pytest.raises(UnsupportedError, match=r"x.png: OpenCV does not read it"):
        by_opencv(b"no picture", "x.png")


def test_reports_and_journals_name_the_decoder(system: vizcomp.System) -> None:
    assert "opencv" in about_system(system.name, decoder="opencv")["versions"]
    assert "opencv" not in about_system(system.name)["versions"]
    assert BatchSettings(decoder="opencv").what_decides() != BatchSettings().what_decides()


def test_look_and_encode_take_it(tmp_path: Path, watch: Watch, system: vizcomp.System) -> None:
    transparent(tmp_path / "a.png")
    system.fingerprint = "2"
    common = ("--decoder", "opencv", "-o", tmp_path / "out")
    assert command("look", tmp_path / "a.png", "--system", system.name, *common) == 0
    assert command("encode", tmp_path / "a.png", "--verify", system.name, "-j", 1, *common) == 0
    assert len(watch.shown) >= 3
    assert all(image[0, 0, 2] < 255 for image in watch.shown[:2])


def test_eval_decodes_sources_and_results_by_it(
    tmp_path: Path, watch: Watch, system: vizcomp.System
) -> None:
    (tmp_path / "in").mkdir()
    transparent(tmp_path / "in" / "a.png")
    common = {
        "classifiers": (system.name,),
        "data": str(tmp_path / "in"),
        "codecs": ("djpeg:guide=uniform",),
    }
    run_eval(EvalSettings(**common, baselines=("jpeg",), decoder="opencv"), jobs=1)
    assert watch.shown[0][0, 0, 2] < 255
    Image.fromarray(picture(0, 40, 40)).save(tmp_path / "in" / "a.png")
    with pytest.raises(SettingsError, match="unknown `decoder`"):
        run_eval(EvalSettings(**common, decoder="turbo"), jobs=1)


def test_a_policy_says_who_decoded(tmp_path: Path, watch: Watch, system: vizcomp.System) -> None:
    (tmp_path / "in").mkdir()
    transparent(tmp_path / "in" / "a.png")
    certificate = Certificate(
        risk=0.1,
        confidence=0.9,
        photos=1,
        changed=0,
        bound=0.05,
        date="2026-01-01",
        decoder="opencv",
    )
    systems = (CertifiedSystem(name=system.name, fingerprint="1"),)
    Policy(
        settings=vizcomp.DjpegSettings(guide="uniform"), certificate=certificate, systems=systems
    ).write(tmp_path / "p.toml")
    policy = Policy.read(tmp_path / "p.toml")
    assert policy.certificate.decoder == "opencv"
    check(policy, find_inputs([str(tmp_path / "in")]), jobs=1)
    assert watch.shown[0][0, 0, 2] < 255


def test_the_command_writes_it_into_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(picture(0, 48, 64)))
    out = tmp_path / "out"
    asked = (
        "djpeg",
        tmp_path / "a.jpg",
        "-o",
        out,
        "--guide",
        "uniform",
        "--verify",
        "watcher",
        "--decoder",
        "opencv",
        "-j",
        1,
    )
    assert command(*asked) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["settings"]["decoder"] == "opencv"
    assert "opencv" in report["settings"]["systems"][0]["versions"]
    assert command(*asked, "--resume") == 0
    assert command(*asked[:-4], "--resume", "-j", 1) == 0  # by Pillow: done again
    assert json.loads((out / "report.json").read_text())["settings"]["decoder"] == "pillow"
