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
from vizcomp.fitting import candidates, check, judge, run, sample, scores, search
from vizcomp.fitting.policy import Policy
from vizcomp.photos.photo import load, size_in

WHOLE = ("--risk", "20%", "--confidence", "90%", "-j", 1)
ASK = (*WHOLE, "--format", "jpeg", "--no-rivals")  # a third of the work


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
def _own_cache_and_few_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used in one test is fresh in the next; and a fit tries a quarter of its settings."""
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(candidates, "QUALITIES", (14, 45, 90))
    monkeypatch.setattr(candidates, "RIVAL_QUALITIES", (40, 75, 93))
    monkeypatch.setattr(candidates, "GUIDES", (("uniform", 0.0),))
    monkeypatch.setattr(candidates, "SHAPES", {})
    monkeypatch.setattr(candidates, "BESIDE", ())


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
    assert command("fit", photos, "--system", model, *WHOLE, "-o", policy) == 0
    captured = capsys.readouterr()
    said = captured.out
    assert f"{model} is read as classes; input" in captured.err.replace("\n", " ")
    read = Policy.read(policy)
    assert read.certificate.sentence in said
    assert "At most 20% of the answers change, with 90% confidence" in said
    assert read.certificate.photos == 18  # of which one may change
    assert read.certificate.bound <= 0.2
    assert read.certificate.bytes < read.certificate.source_bytes

    assert "smaller than plain JPEG q75" in said
    page = (policy.parent / "report.html").read_text()
    assert "Beside what people use" in page
    assert "At most 20% of the answers change, with 90% confidence" in page
    assert "keeps little of its sides; --keep-sides keeps them" in page
    told = json.loads((policy.parent / "report.json").read_text())
    assert told["headline"] == read.certificate.sentence
    assert {row["part"] for row in told["rows"]} == {"explore", "certify"}
    assert {one["title"] for one in told["rivals"]} == {
        "plain JPEG",
        "optimised JPEG",
        "WebP",
        "AVIF",
    }
    assert {row["settings"]["format"] for row in told["rows"]} == {"jpeg", "webp", "avif"}
    assert (policy.parent / "report.csv").read_text().startswith("part,setting,units")

    model.rename(tmp_path / "gone.onnx")  # djpeg needs no system
    assert command("djpeg", photos, "--policy", policy, "-o", tmp_path / "out", "-j", 1) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    wanted = read.to_dict()["policy"]
    assert {"quality", "guide", "table", "strength", "format"} <= wanted.keys()
    assert {name: report["settings"][name.replace("-", "_")] for name in wanted} == wanted
    sizes = [one["output_bytes"] for one in report["files"]]
    assert len(sizes) == 24
    assert min(sizes) <= read.certificate.bytes <= max(sizes)
    assert read.certificate.sentence in capsys.readouterr().err
    (tmp_path / "gone.onnx").rename(model)

    fresh = write_photos(tmp_path / "fresh", 40, first=100)
    assert command("check", policy, fresh, "--json", "-j", 1) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["state"] in ("held", "undecided")
    assert checked["units"] == 40
    evidence = checked["systems"][0]
    assert evidence["evidence_held"] > evidence["evidence_broken"]


def test_a_fit_gives_the_very_files_that_djpeg_writes(
    tmp_path: Path, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "GUIDES", (("uniform", 0.0), ("depth+text", 0.25)))
    sizes = [
        candidates.Pixels(),
        candidates.Pixels(short_side=40, resample="bicubic"),
        candidates.Pixels(max_side=40),
    ]
    every = candidates.ladders(["jpeg", "webp", "avif"], sizes)
    settings = tuple(one for ladder in every for one in ladder if one.quality < 90)
    settings += (
        DjpegSettings(guide="uniform", table="photo", quality=60, max_side=40),
        candidates.LAST_RESORT,
    )
    path = sorted(photos.iterdir())[0]
    file = InputFile(path, Path(path.name))
    rival = candidates.Rival("webp", 60)
    judged = judge.judge_photo(judge.JudgeTask(0, file, (*settings, rival), (str(model),)))
    assert judged.unread == judged.failed == ""
    depth_of = vizcomp.open_depth("compact", None)
    for one, verdict in zip(settings, judged.verdicts, strict=False):
        photo = load(path)
        data = compress(photo, one, depth=depth_of(photo, file)).data
        assert verdict.size == (
            len(data) if one.resizes else min(len(data), path.stat().st_size)
        ), candidates.named(one)
    assert size_in(compress(load(path), settings[-2]).data)[0] <= 40
    assert judged.verdicts[-2].losses == (0.0,)
    assert judged.verdicts[-1].size == len(rival.encode(load(path)))


def test_a_certify_part_serves_once(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "p.toml") == 0
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "p.toml") == 2
    assert "exists" in capsys.readouterr().err
    assert command("fit", photos, "--system", model, *ASK, "-o", tmp_path / "q.toml") == 2
    assert "this very fit looked at its photos to certify with before" in one_error(capsys)
    assert (
        command("fit", photos, "--system", model, *ASK, "--risk", "25%", "-o", tmp_path / "q.toml")
        == 2
    )
    assert "18 of the 18 photos to certify with were used by an earlier fit" in one_error(capsys)
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
    whole = sorted(folder.glob("*"))[0].read_bytes()
    for number in range(7):
        (folder / f"cut-{number}.jpg").write_bytes(whole[: len(whole) // 3 + number])
    (folder / "no-photo.jpg").write_bytes(b"none")
    assert command("fit", folder, "--system", model, "-o", tmp_path / "p.toml") == 2
    assert (
        "50 different photos are too few (50 more have the same bytes as another, 8 more cannot be"
        " read)" in one_error(capsys)
    )
    assert not (tmp_path / "p.toml").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--risk", "0%"], "a risk of 0% cannot be certified"),
        (["--risk", "much"], "'much' is not a share"),
        (["--confidence", "100%"], "a confidence of 100% says nothing"),
        (["--unit", "clip"], "unknown --unit 'clip'"),
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
        [tmp_path / "clips"],
        str(model),
        risk=0.3,
        confidence=0.9,
        unit="folder",
        format="jpeg",
        rivals=False,
        jobs=1,
    )
    assert fitted.policy.certificate.photos == 19
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


def test_an_interrupted_fit_goes_on_and_asks_nothing_twice(
    tmp_path: Path,
    model: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped in the search, then at the certify part: the result is that of a run in one go."""
    ask = (photos, "--system", model, *ASK)
    asked = 0
    stop_at = 50

    def counting(self: object, data: bytes) -> judge.Verdict:
        nonlocal asked
        asked += 1
        if asked == stop_at:
            raise KeyboardInterrupt
        return look(self, data)  # type: ignore[arg-type]

    look = judge._Judging._look
    monkeypatch.setattr(judge._Judging, "_look", counting)
    assert command("fit", *ask, "-o", tmp_path / "p.toml") == 130
    assert "--resume goes on from there" in capsys.readouterr().err
    stop_at = -1
    add = sample.UsedPhotos.add

    def adding(self: sample.UsedPhotos, units: object, run: str, *, explored: object = ()) -> None:
        nonlocal stop_at
        stop_at = asked + 20 if stop_at < 0 else -1  # in the certify part
        add(self, units, run, explored=explored)  # type: ignore[arg-type]

    monkeypatch.setattr(sample.UsedPhotos, "add", adding)
    assert command("fit", *ask, "--resume", "-o", tmp_path / "p.toml") == 130
    assert "certify: " in capsys.readouterr().err
    monkeypatch.setattr(sample.UsedPhotos, "add", add)
    assert command("fit", *ask, "-o", tmp_path / "p.toml") == 2  # from the start it may not
    assert "--resume goes on with it" in capsys.readouterr().err
    stop_at = -1
    assert command("fit", *ask, "--resume", "-o", tmp_path / "p.toml") == 0
    total = asked
    assert command("fit", *ask, "--resume", "-o", tmp_path / "again.toml") == 0
    assert asked == total  # all of it is remembered
    assert (tmp_path / "again.toml").read_text() == (tmp_path / "p.toml").read_text()

    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "other cache"))
    asked = 0
    assert command("fit", *ask, "-o", tmp_path / "whole.toml") == 0
    assert (tmp_path / "whole.toml").read_text() == (tmp_path / "p.toml").read_text()
    # one photo under all settings, which was in hand when it was stopped
    assert total - asked <= 45


def test_nothing_to_resume_is_said(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        command("fit", photos, "--system", model, *ASK, "--resume", "-o", tmp_path / "p.toml") == 0
    )
    assert "there is nothing to resume" in capsys.readouterr().err
    older = next((tmp_path / "cache" / "fit").glob("*-*.sqlite"))
    older.rename(older.with_name(f"{older.name.split('-')[0]}-{'0' * 24}.sqlite"))
    (used,) = (tmp_path / "cache" / "fit").glob("*.json")
    used.unlink()
    assert (
        command("fit", photos, "--system", model, *ASK, "--resume", "-o", tmp_path / "q.toml") == 0
    )
    said = capsys.readouterr().err
    assert "of other settings or of another version of vizcomp; it starts anew" in said


def test_each_folder_has_a_policy_of_its_own(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = tmp_path / "cameras"
    for number, (name, count) in enumerate((("street", 26), ("yard", 26), ("few", 3))):
        write_photos(cameras / name, count, first=100 * number)
    made = tmp_path / "made"
    assert command("fit", cameras, "--system", model, *ASK, "--each", "-o", made) == 0
    said = capsys.readouterr().err
    assert sorted(path.parent.name for path in made.glob("*/policy.toml")) == ["street", "yard"]
    assert "no policy for few: 3 different photos are too few" in said.replace("\n", " ")
    assert "each of 3 folders is certified with 96.55% confidence" in said.replace("\n", " ")
    one = Policy.read(made / "yard" / "policy.toml")
    assert one.certificate.confidence == pytest.approx(0.9 ** (1 / 3))
    assert (made / "street" / "report.html").exists()
    before = (made / "street" / "policy.toml").read_bytes()
    assert command("fit", cameras, "--system", model, *ASK, "--each", "-o", made) == 2
    assert "street/policy.toml exists" in one_error(capsys)
    assert (made / "street" / "policy.toml").read_bytes() == before
    ask = ("fit", cameras / "few", "--system", model, *ASK)
    assert command(*ask, "--each", "-o", tmp_path / "q") == 2
    assert "all photos lie in one folder" in one_error(capsys)
    assert command(*ask, "--each", "--by", "folder", "-o", tmp_path / "q") == 2
    assert "--by and --each contradict each other" in one_error(capsys)


def test_each_folder_holds_by_itself(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, folder in enumerate(("street", "yard")):
        write_photos(tmp_path / "cameras" / folder, 18, first=100 * place)
    write_photos(tmp_path / "cameras" / "few", 3, first=900)
    policy = tmp_path / "p.toml"
    assert (
        command(
            "fit", tmp_path / "cameras", "--system", model, *ASK, "--by", "folder", "-o", policy
        )
        == 0
    )
    read = Policy.read(policy)
    assert [(one.name, one.photos) for one in read.strata] == [("street", 13), ("yard", 13)]
    assert all(one.bound <= 0.2 for one in read.strata)
    assert read.certificate.photos == 26
    assert "in each folder by itself" in read.certificate.sentence
    said = capsys.readouterr().err
    assert "the folder few has too few photos, 3: the certificate is not about it" in said
    assert "Folder by folder" in (tmp_path / "report.html").read_text()
    assert (
        command(
            "fit",
            tmp_path / "cameras",
            "--system",
            model,
            *ASK,
            "--by",
            "camera",
            "-o",
            tmp_path / "q.toml",
        )
        == 2
    )
    assert "unknown strata 'camera'" in one_error(capsys)
    both = ("--by", "folder", "--unit", "folder")
    assert (
        command(
            "fit", tmp_path / "cameras", "--system", model, *ASK, *both, "-o", tmp_path / "q.toml"
        )
        == 2
    )
    assert "contradict each other" in one_error(capsys)


def test_holm_names_the_folders_where_a_setting_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three folders, a setting that is broken in one of them: the certificate is about the other
    two, and says so."""
    monkeypatch.setattr("vizcomp.fitting.measure.open_system", lambda name, offline: SeesNothing())
    fit = run._Fit(("any",), run.FitSettings(risk=0.1, by="folder"), lambda text: None)
    fit._strata = ["a", "b", "c"]
    aim = scores.Aim(0.1, 0.95, 150, (True,), groups=(50, 50, 50))
    losses = np.zeros((1, 150))
    losses[0, 60:75] = 1
    groups = np.repeat([0, 1, 2], 50)
    made = scores.Scores(np.ones(150), losses, groups=groups)
    test = search.Tested(candidates.LAST_RESORT, made, aim.p_value(made), False)
    best, held = fit._best([test], aim, 0)
    assert held == ["a", "c"]
    assert any("holds in a, c, and is not shown to in b" in notice for notice in fit._notices)
    passed = search.Tested(candidates.LAST_RESORT, made, 0.01, True)
    best, held = fit._best([passed, test], aim, 0)
    assert best is passed
    assert held is None


def test_where_nothing_would_pass_the_certify_part_stays_fresh(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = vizcomp.System(lambda image: hashed(image), kind="classes", name="erratic")
    with pytest.raises(InputError, match="no setting seems to hold: the safest") as caught:
        vizcomp.fit([photos], system, risk=0.2, confidence=0.9, format="jpeg", rivals=False, jobs=1)
    assert "were not looked at" in caught.value.hint
    assert not list((tmp_path / "cache" / "fit").glob("*.json"))


def hashed(image: np.ndarray) -> np.ndarray:
    """A classifier that any changed pixel makes change its mind."""
    import hashlib

    return np.eye(10, dtype=np.float32)[hashlib.sha256(image.tobytes()).digest()[0] % 10]


def test_a_budget_is_kept_and_said(
    tmp_path: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "FEWEST", 4)  # so that there are rounds to leave out
    folder = write_photos(tmp_path / "many", 40)
    ask = ("--risk", "20%", "--confidence", "90%", "-j", 1, "--format", "jpeg", "--budget", "0.5s")
    assert command("fit", folder, "--system", model, *ask, "-o", tmp_path / "p.toml") == 0
    said = capsys.readouterr().err
    assert "the budget ended the search before it had seen all photos" in said
    assert "the budget was used up: nothing is compared" in said
    assert "the certificate is not shortened for a budget" in said
    assert Policy.read(tmp_path / "p.toml").certificate.photos == 32


def test_checks_of_several_days_add_up_and_photos_count_once(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "p.toml"
    assert command("fit", photos, "--system", model, *ASK, "-o", policy, "--quiet") == 0
    capsys.readouterr()
    evidence = []
    for day in range(2):
        fresh = write_photos(tmp_path / f"day {day}", 10, first=1000 * (day + 1))
        expected = 1.0 if not evidence else evidence[0]
        assert command("check", policy, fresh, "--json", "-j", 1) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["units"], told["checks"], told["units_so_far"]) == (
            10,
            day + 1,
            10 * (day + 1),
        )
        evidence.append(told["systems"][0]["evidence_held"])
        today = vizcomp.Policy.read(policy), [fresh]
        alone = check.check(*today, once=True, jobs=1).systems[0].evidence_held
        assert evidence[day] == pytest.approx(expected * alone)
    assert command("check", policy, tmp_path / "day 0", "-j", 1) == 2
    assert "none of the 10 photos is fresh: 10 photos were checked before" in one_error(capsys)
    assert command("check", policy, photos, "-j", 1) == 2
    assert "24 photos were used by a fit for these systems" in one_error(capsys)


def by_colour_in_daylight(image: np.ndarray) -> np.ndarray:
    """A classifier that goes by the strongest colour of bright pictures, and at random in the
    dark."""
    return (
        np.eye(10, dtype=np.float32)[int(image.mean((0, 1)).argmax())]
        if image.max() > 60
        else hashed(image)
    )


def test_a_broken_policy_is_told(tmp_path: Path, photos: Path) -> None:
    system = vizcomp.System(by_colour_in_daylight, kind="classes", name="daylight")
    ask = {"risk": 0.2, "confidence": 0.9, "format": "jpeg", "rivals": False, "jobs": 1}
    policy = vizcomp.fit([photos], system, **ask).policy
    night = tmp_path / "night"
    night.mkdir()
    for path in photos.iterdir():
        (night / path.name).write_bytes(jpeg_bytes(load(path).pixels // 5, quality=92))
    checked = check.check(policy, [night], jobs=1)
    assert checked.state == "broken"
    assert checked.systems[0].evidence_broken > 10 > 1 > checked.systems[0].evidence_held
