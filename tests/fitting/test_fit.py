"""From photos to a policy, and from a policy to files: the commands `fit`, `check` and
`djpeg --policy`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture
from test_vision import classifier

import vizcomp
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError
from vizcomp.files.find import InputFile
from vizcomp.fitting import judge, run
from vizcomp.fitting.policy import Policy
from vizcomp.photos.photo import load, size_in

ASK = ("--risk", "20%", "--confidence", "90%", "-j", 1)


def write_photos(folder: Path, count: int, *, first: int = 0) -> Path:
    """JPEG files of made pictures, each of its own content."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        pixels = picture(seed, 48, 64) // 2 + np.random.default_rng(seed).integers(
            0, 100, (48, 64, 3), np.uint8
        )
        (folder / f"{seed:03}.jpg").write_bytes(jpeg_bytes(pixels, quality=92))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used in one test is fresh in the next."""
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier that names the strongest colour."""
    return classifier(tmp_path / "model.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 24)


def test_fit_then_djpeg_then_check(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "made" / "policy.toml"
    assert command("fit", photos, "--system", model, *ASK, "-o", policy) == 0
    captured = capsys.readouterr()
    said = captured.out
    assert f"{model} is read as classes; input" in captured.err.replace("\n", " ")
    read = Policy.read(policy)
    assert read.certificate.sentence in said
    assert "At most 20% of the answers change, with 90% confidence" in said
    assert read.certificate.photos == 17
    assert read.certificate.bound <= 0.2
    assert read.certificate.bytes < read.certificate.source_bytes

    page = (policy.parent / "report.html").read_text()
    assert "At most 20% of the answers change, with 90% confidence" in page
    told = json.loads((policy.parent / "report.json").read_text())
    assert told["headline"] == read.certificate.sentence
    assert {row["part"] for row in told["rows"]} == {"explore", "certify"}
    assert (policy.parent / "report.csv").read_text().startswith("part,setting,units")

    model.rename(tmp_path / "gone.onnx")  # djpeg needs no system
    assert command("djpeg", photos, "--policy", policy, "-o", tmp_path / "out", "-j", 1) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    wanted = read.to_dict()["policy"]
    assert {"quality", "guide", "table", "strength", "format"} == wanted.keys()
    assert {name: report["settings"][name] for name in wanted} == wanted
    assert read.certificate.sentence in capsys.readouterr().err
    (tmp_path / "gone.onnx").rename(model)

    fresh = write_photos(tmp_path / "fresh", 40, first=100)
    assert command("check", policy, fresh, "--json", "-j", 1) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["state"] in ("held", "undecided")
    assert checked["units"] == 40
    assert checked["systems"][0]["evidence_held"] > 1


def test_a_fit_gives_the_very_files_that_djpeg_writes(
    tmp_path: Path, model: Path, photos: Path
) -> None:
    settings = tuple(
        one for ladder in run.ladders() for one in ladder if one.quality in (14, 76, 100)
    )
    settings += (
        DjpegSettings(guide="uniform", table="photo", quality=60, max_side=40),
        run.LAST_RESORT,
    )
    path = sorted(photos.iterdir())[0]
    file = InputFile(path, Path(path.name))
    judged = judge.judge_photo(judge.JudgeTask(0, file, settings, (str(model),)))
    depth_of = vizcomp.open_depth("compact", None)
    for one, verdict in zip(settings, judged.verdicts, strict=True):
        photo = load(path)
        data = compress(photo, one, depth=depth_of(photo, file)).data
        assert verdict.size == min(len(data), path.stat().st_size)
    assert size_in(compress(load(path), settings[-2]).data)[0] <= 40
    assert judged.verdicts[-1].losses == (0.0,)


def test_a_certify_part_serves_once(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "p.toml") == 0
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "p.toml") == 2
    assert "exists" in capsys.readouterr().err
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "q.toml") == 2
    assert (
        "17 of the 17 photos to certify with were used by an earlier fit" in capsys.readouterr().err
    )
    write_photos(photos, 24, first=200)  # more beside the old ones is no new sample
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "q.toml") == 2
    other = classifier(tmp_path / "other.onnx", count=5)
    assert command("fit", photos, "--system", other, *ASK, "-o", tmp_path / "q.toml") == 0


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says what was wrong; no traceback."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("error:")]
    return line


def test_too_few_photos_are_told_how_many_it_takes(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_photos(tmp_path / "few", 1)
    assert command("fit", folder, "--system", model, "-o", tmp_path / "p.toml") == 2
    assert (
        "1 different photos are too few: 1% at 95% needs 299 unchanged to certify with"
        in one_error(capsys)
    )
    write_photos(folder, 50)
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / f"again-{path.name}")
    assert command("fit", folder, "--system", model, "-o", tmp_path / "p.toml") == 2
    assert "50 different photos are too few (50 more have the same bytes as another)" in one_error(
        capsys
    )
    assert not (tmp_path / "p.toml").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--risk", "0%"], "a risk of 0% cannot be certified"),
        (["--risk", "much"], "'much' is not a share"),
        (["--confidence", "100%"], "a confidence of 100% says nothing"),
        (["--unit", "clip"], "unknown unit 'clip'"),
        (["--budget", "soon"], "'soon' is not a time"),
        (["--system", "nothing"], "unknown vision system 'nothing'"),
        (["--ray-address", "here:1"], "--ray-address goes with --engine ray"),
    ],
)
def test_contradictory_wishes(
    tmp_path: Path,
    model: Path,
    photos: Path,
    options: list[str],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("fit", photos, "--system", model, *options, "-o", tmp_path / "p.toml") == 2
    assert why in one_error(capsys)


def test_no_system_is_refused(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("fit", photos, "-o", tmp_path / "p.toml") == 2
    assert "no vision system is named" in one_error(capsys)


class Fails:
    """A classifier that throws on some photos."""

    name, kind, fingerprint, classes, native = "fails", "classes", "1", (), 0

    def answers(self, images: list[np.ndarray]) -> list[vizcomp.vision.answers.Classes]:  # type: ignore[name-defined]
        from vizcomp.vision.answers import Classes

        if images[0].mean() > images[0].max() / 2.2:
            raise RuntimeError("out of\nrange")
        return [Classes(np.array([1.0, 0.0], np.float32)) for _ in images]


class SeesNothing:
    """A detector without boxes."""

    name, kind, fingerprint, classes, native = "nothing", "boxes", "1", (), 0

    def answers(self, images: list[np.ndarray]) -> list[vizcomp.vision.answers.Boxes]:  # type: ignore[name-defined]
        from vizcomp.vision.answers import NOWHERE, Boxes

        return [Boxes(NOWHERE) for _ in images]


@pytest.mark.parametrize(
    ("system", "why"),
    [
        (Fails(), "a system gives no answer on"),
        (SeesNothing(), "nothing finds nothing on any photo"),
    ],
    ids=["fails", "sees nothing"],
)
def test_systems_without_answers(
    photos: Path, monkeypatch: pytest.MonkeyPatch, system: object, why: str
) -> None:
    def in_this_process(function, tasks, **rest):  # type: ignore[no-untyped-def]
        return map(function, tasks)

    monkeypatch.setattr("vizcomp.fitting.measure.open_system", lambda name, offline: system)
    monkeypatch.setattr("vizcomp.fitting.judge.system_by_name", lambda name, offline: system)
    monkeypatch.setattr("vizcomp.fitting.measure.map_tasks", in_this_process)
    with pytest.raises(InputError, match=why) as caught:
        run.fit([photos], "any", risk=0.2, confidence=0.9, jobs=1)
    assert "\n" not in caught.value.message


def test_photos_that_cannot_be_read_are_left_out_and_said(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "000.jpg").read_bytes()[:500])
    (photos / "text.jpg").write_text("no photo")
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "p.toml") == 0
    said = capsys.readouterr().err
    assert "left out" in said
    assert "text.jpg" in said
    assert "broken.jpg" in said


def test_frames_of_one_folder_are_one_unit(tmp_path: Path, model: Path) -> None:
    for clip in range(24):
        write_photos(tmp_path / "clips" / str(clip), 2, first=2 * clip)
    fitted = vizcomp.fit(
        [tmp_path / "clips"], str(model), risk=0.3, confidence=0.9, unit="folder", jobs=1
    )
    assert fitted.policy.certificate.photos == 17
    assert fitted.policy.certificate.unit == "folder"


def test_options_that_contradict_a_policy(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "p.toml"
    assert command("fit", photos, "--system", model, *ASK, "-o", policy, "--quiet") == 0
    for option, value in (
        ("-q", "50"),
        ("--guide", "detail"),
        ("--verify", "text"),
        ("--metadata", "none"),
        ("--table", "photo"),
    ):
        assert (
            command("djpeg", photos, "--policy", policy, option, value, "-o", tmp_path / "out") == 2
        )
        assert "contradict each other" in one_error(capsys)
    policy.write_text(policy.read_text().replace("risk = 0.2", "risk = 0.1"))
    for words in (
        ("djpeg", photos, "--policy", policy, "-o", tmp_path / "out"),
        ("check", policy, photos),
    ):
        assert command(*words) == 2
        assert "was changed by hand" in one_error(capsys)
    assert not (tmp_path / "out").exists()


def test_another_version_of_a_system_is_no_certified_one(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "p.toml"
    assert command("fit", photos, "--system", model, *ASK, "-o", policy, "--quiet") == 0
    classifier(model, count=5)
    assert command("check", policy, photos) == 2
    assert "is not the system that was certified" in one_error(capsys)


def test_a_policy_needs_no_framework(tmp_path: Path, model: Path, photos: Path) -> None:
    policy = tmp_path / "p.toml"
    assert command("fit", photos, "--system", model, *ASK, "-o", policy, "--quiet") == 0
    words = [
        "vizcomp",
        "djpeg",
        str(photos),
        "--policy",
        str(policy),
        "-o",
        str(tmp_path / "out"),
        "-j",
        "1",
    ]
    code = (
        f"import sys; sys.argv = {words!r}\n"
        "try:\n    from vizcomp.cli import main; main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'tensorflow', 'rapidocr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
