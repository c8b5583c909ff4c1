"""A system with one answer for all photos is told of, once, wherever agreement is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture
from test_vision import classifier

import vizcomp
from vizcomp.errors import InputError
from vizcomp.fitting import candidates
from vizcomp.fitting.check import check
from vizcomp.vision.answers import NOWHERE, Boxes, Classes
from vizcomp.vision.one_answer import FEWEST

PROVES = "proves nothing"


def photos(folder: Path, count: int, *, first: int = 0, width: int = 40) -> Path:
    folder.mkdir()
    for seed in range(first, first + count):
        (folder / f"{seed}.jpg").write_bytes(jpeg_bytes(picture(seed, 32, width)))
    return folder


def always(image: np.ndarray) -> Classes:
    """One class, how surely depends on the photo."""
    other = float(image.mean()) / 1000
    return Classes(np.array([1 - other, other], np.float32), ("plate", "none"))


def blind(image: np.ndarray) -> Classes:
    return Classes(np.array([0.7, 0.3], np.float32), ("plate", "none"))


def empty(image: np.ndarray) -> Boxes:
    return Boxes(NOWHERE, size=image.shape[1::-1])


def same_box(image: np.ndarray) -> Boxes:
    height, width = image.shape[:2]
    quad = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], float)
    return Boxes(quad, ("car",), (width, height), np.array([0.75], np.float32))


def brightest(image: np.ndarray) -> Classes:
    """An answer that differs from photo to photo."""
    means = image.reshape(-1, 3).mean(0)
    return Classes((means / means.sum()).astype(np.float32), ("red", "green", "blue"))


KINDS = {
    "always": (always, "classes", "the same answer for all {} photos, plate"),
    "blind": (blind, "classes", "the same answer for all {} photos, plate"),
    "empty": (empty, "boxes", "an empty answer for all {} photos"),
    "same box": (same_box, "boxes", "the same answer for all {} photos, car 0.75000"),
}


def system(kind: str) -> tuple[vizcomp.System, str]:
    function, answers, said = KINDS[kind]
    return vizcomp.System(function, kind=answers, name=f"the-{kind}-one".replace(" ", "-")), said


@pytest.mark.parametrize(
    ("verify", "watch"),
    [(("always", "empty"), ("blind", "same box")), (("blind", "same box"), ("always", "empty"))],
)
def test_files_are_made_and_the_report_says_so(
    tmp_path: Path, verify: tuple[str, ...], watch: tuple[str, ...]
) -> None:
    systems = {kind: system(kind) for kind in (*verify, *watch)}
    folder = photos(tmp_path / "in", 3)
    report = vizcomp.compress_files(
        folder,
        tmp_path / "out",
        verify=[systems[kind][0] for kind in verify],
        watch_with=[systems[kind][0] for kind in watch],
        guide="uniform",
        jobs=1,
    )
    assert report.totals.failed == 0
    assert len(report.totals.one_answer) == len(KINDS)
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["totals"]["one_answer"] == report.totals.one_answer
    page = (tmp_path / "out" / "report.html").read_text()
    for one, said in systems.values():
        assert report.totals.one_answer[one.name]["photos"] == 3
        (notice,) = (text for text in report.notices if f"{one.name} gave " in text)
        assert f"{one.name} gave {said.format(3)}" in notice
        assert PROVES in notice
        assert notice in written["notices"]
        assert page.count(notice) == 1


def test_few_photos_and_copies_of_one_prove_nothing_either_way(tmp_path: Path) -> None:
    one, _ = system("blind")
    folder = photos(tmp_path / "in", FEWEST - 1)
    for copy in range(3):
        (folder / f"copy{copy}.jpg").write_bytes((folder / "0.jpg").read_bytes())
    report = vizcomp.compress_files(folder, tmp_path / "out", verify=one, guide="uniform", jobs=1)
    assert report.totals.verified == FEWEST + 2
    assert not report.totals.one_answer
    assert not report.notices


def test_a_system_that_looks_is_not_told_of(tmp_path: Path) -> None:
    one = vizcomp.System(brightest, kind="classes", name="brightest")
    folder = photos(tmp_path / "in", 3)
    report = vizcomp.compress_files(folder, tmp_path / "out", verify=one, guide="uniform", jobs=1)
    assert len({record.source_answers["brightest"] for record in report.files}) > 1
    assert not report.notices
    assert report.totals.one_answer == {}


def constant(path: Path) -> Path:
    """A classifier of ten classes that names the strongest colour, by far outdone by its eighth."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(classifier(path, count=10))
    bias = numpy_helper.from_array(np.eye(10, dtype=np.float32)[7] * 50, "bias")
    model.graph.initializer.append(bias)
    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "bias"], [last]))
    onnx.save(model, path)
    return path


def test_commands_say_it_even_quietly_and_after_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = constant(tmp_path / "constant.onnx")
    folder = photos(tmp_path / "in", 3)
    line = ("djpeg", folder, "--verify", model, "--guide", "uniform", "-j", 1, "--quiet")
    for more in ((), ("--resume",)):
        assert command(*line, "-o", tmp_path / "out", *more) == 0
        assert capsys.readouterr().err.count(PROVES) == 1, more
    photos(tmp_path / "in" / "more", 1, first=9)
    assert command(*line, "-o", tmp_path / "out", "--resume") == 0
    assert "for all 4 photos, class 7" in capsys.readouterr().err


def test_encode_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = constant(tmp_path / "constant.onnx")
    folder = photos(tmp_path / "in", 3, width=32)
    line = ("encode", folder, "-o", tmp_path / "out", "--model", "cifar", "-j", 1)
    assert command(*line, "--verify", model, "--json") == 0
    said = capsys.readouterr()
    assert said.err.count(PROVES) == 1
    report = json.loads(said.out)
    assert report["totals"]["one_answer"] == {str(model): {"answer": "class 7", "photos": 3}}
    assert PROVES in report["notices"][0]


def test_eval_warns_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = constant(tmp_path / "constant.onnx")
    folder = photos(tmp_path / "in", 3)
    line = ("eval", "--data", folder, "--classifier", model, "--codec", "djpeg", "-j", 1)
    assert command(*line, "--baseline", "jpeg", "-o", tmp_path / "out") == 0
    assert capsys.readouterr().err.count(PROVES) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sum(PROVES in warning for warning in report["warnings"]) == 1
    assert report["classifiers"][0]["one_answer"] == {"answer": "class 7", "photos": 3}


@pytest.fixture
def _few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "QUALITIES", (45, 90))
    monkeypatch.setattr(candidates, "GUIDES", (("uniform", 0.0),))
    monkeypatch.setattr(candidates, "SHAPES", {})
    monkeypatch.setattr(candidates, "BESIDE", ())


ASK = {"risk": 0.3, "confidence": 0.9, "format": "jpeg", "rivals": False, "jobs": 1}


@pytest.mark.usefixtures("_few_settings")
@pytest.mark.parametrize("kind", ["blind", "same box"])
def test_nothing_is_certified_for_who_does_not_look(tmp_path: Path, kind: str) -> None:
    one, _ = system(kind)
    with pytest.raises(InputError, match="with the very same numbers: it does not look at them"):
        vizcomp.fit([photos(tmp_path / "in", 20)], one, **ASK)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_few_settings")
def test_a_certificate_and_a_check_carry_it(tmp_path: Path) -> None:
    one, _ = system("always")
    fitted = vizcomp.fit([photos(tmp_path / "in", 20)], one, **ASK)  # type: ignore[arg-type]
    assert sum(PROVES in notice for notice in fitted.notices) == 1
    (certified,) = fitted.policy.systems
    assert certified.one_answer == "plate"
    text = fitted.policy.to_toml()
    assert 'one_answer = "plate"' in text
    (tmp_path / "policy.toml").write_text(text)
    policy = vizcomp.Policy.read(tmp_path / "policy.toml")
    assert policy == fitted.policy
    checked = check(policy, [photos(tmp_path / "fresh", 3, first=100)], once=True, jobs=1)
    assert checked.systems[0].one_answer == "plate"
    assert sum(PROVES in notice for notice in checked.notices) == 1


@pytest.mark.usefixtures("_few_settings")
def test_a_certificate_for_a_system_that_looks_has_no_word_of_it(tmp_path: Path) -> None:
    one = vizcomp.System(brightest, kind="classes", name="bright")
    fitted = vizcomp.fit([photos(tmp_path / "in", 20)], one, **ASK)  # type: ignore[arg-type]
    assert "one_answer" not in fitted.policy.to_toml()
    assert not any(PROVES in notice for notice in fitted.notices)
