"""Text that is read: words, character error rate, and photos without text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit import command
from PIL import Image, ImageDraw, ImageFont

from vizcomp.errors import ModelError
from vizcomp.vision.answers import NOWHERE, Boxes, Text, compare, is_empty
from vizcomp.vision.lettering import compared, edit_distance
from vizcomp.vision.system import corners_to_quads
from vizcomp.vision.systems import open_system
from vizcomp.vision.text_system import TextSystem

QUADS = corners_to_quads(np.array([[0.0, 0, 50, 20], [0, 30, 50, 50]]))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("abc", "abc", 0), ("kitten", "sitting", 3), ("", "ab", 2), ("ab", "", 2)],
)
def test_edit_distance(one: str, other: str, expected: int) -> None:
    assert edit_distance(one, other) == expected


def test_words_count_and_lines_do_not() -> None:
    read = compared(["NO PARKING", "42"], ["42", "PARKING", "NO"])
    assert (read.error_rate, read.matched, read.reference, read.found) == (0, 3, 3, 3)
    wrong = compared(["NO PARKING", "42"], ["NO PARKINC", "42"])
    assert wrong.error_rate == pytest.approx(1 / 11)
    assert (wrong.matched, wrong.odd_reference, wrong.odd_found) == (2, (0,), (0,))
    assert compared(["a"], []).error_rate == 1
    assert compared([], ["a"]).error_rate == 1
    assert compared([], []).error_rate == 0
    assert compared(["a a"], ["a"]).matched == 1  # each as often as both have it


def test_text_is_the_same_by_its_words() -> None:
    one, other = Text(("NO PARKING", "42"), QUADS), Text(("NO PARKINC", "42"), QUADS)
    assert compare(one, Text(("42", "NO PARKING"), QUADS[::-1])).same
    found = compare(one, other, where=True)
    assert not found.same
    assert found.score == pytest.approx(10 / 11)
    assert found.unlike is not None
    assert len(found.unlike) == 2
    assert compare(one, other, tolerance=0.1).same
    assert is_empty(Text((), NOWHERE))
    assert one.words() == '"NO PARKING / 42"'


def sign(path: Path) -> Path:
    picture = Image.new("RGB", (320, 200), "white")
    ImageDraw.Draw(picture).text((30, 60), "PARKING", "black", ImageFont.load_default(56))
    picture.save(path)
    return path


def test_rapidocr_reads(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    system = open_system("text:read")
    with Image.open(sign(tmp_path / "a.png")) as picture:
        image = np.asarray(picture)
    answer = system.answers([image])[0]
    assert isinstance(answer, Text)
    assert answer.lines == ("PARKING",)
    assert is_empty(system.answers([np.full((60, 80, 3), 255, np.uint8)])[0])
    assert isinstance(open_system("text").answers([image])[0], Boxes)
    heat = system.importance(image)
    assert heat[90, 100] > heat[190, 310] == 0
    with pytest.raises(ModelError) as caught:
        open_system("text:write")
    assert "text:read" in caught.value.hint


def test_verified_by_reading(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rapidocr")
    sign(tmp_path / "sign.png")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "nothing.png")
    out = tmp_path / "out"
    inputs = (tmp_path / "sign.png", tmp_path / "nothing.png")
    assert (
        command(
            "djpeg",
            *inputs,
            "-o",
            out,
            "--verify",
            "text:read",
            "--guide",
            "system:text:read",
            "--jobs",
            1,
        )
        == 0
    )
    said = "".join(capfd.readouterr())
    assert "1 of 1 photos; 1 with nothing to verify" in said
    assert "nothing to verify, made at `quality`" in (out / "report.json").read_text("utf-8")


def test_other_programs_views_are_opencvs_own_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey level of rounding moves a box's score by as much as the margins of verdicts."""
    pytest.importorskip("rapidocr")
    cv2 = pytest.importorskip("cv2")
    system = open_system("text")
    assert isinstance(system, TextSystem)
    seen: list[np.ndarray] = []

    def answers(images: list[np.ndarray]) -> list[Boxes]:
        seen.extend(images)
        return [Boxes(np.zeros((0, 4, 2)), (), (images[0].shape[1], images[0].shape[0]))]

    monkeypatch.setattr(system, "answers", answers)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    assert system.enlarges(480, 640)
    assert not system.enlarges(736, 992)
    for name, kind in (
        ("opencv", cv2.INTER_LINEAR),
        ("opencv-lanczos", cv2.INTER_LANCZOS4),
        ("opencv-area", cv2.INTER_AREA),
    ):
        answer = system.answer_with(picture, name)
        assert isinstance(answer, Boxes)
        assert answer.size == (640, 480)
        assert (seen[-1] == cv2.resize(picture, (992, 736), interpolation=kind)).all()
