"""`vizcomp look`: answers drawn, readings printed, errors in two lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kit import command
from PIL import Image

from vizcomp.vision.answers import Boxes, Classes, Embedding, Keypoints, Masks, Text
from vizcomp.vision.draw import drawn
from vizcomp.vision.system import corners_to_quads


def photo(path: Path) -> Path:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(path)
    return path


def test_look_draws_and_says_how_the_system_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, out = photo(tmp_path / "a.png"), tmp_path / "out"
    assert command("look", source, "-o", out, "--system", "watcher", "--json") == 0
    said = capfd.readouterr()
    report = json.loads(said.out)
    assert report["reading"].startswith("classes; input 32x32")
    assert report["files"][0]["status"] == "ok"
    assert "watcher is read as classes" in said.err
    with Image.open(out / "a.look.jpg") as picture:
        assert picture.size == (60, 40)


def test_a_drawing_of_an_unknown_system_does_not_pass_for_that_of_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    source, out = photo(tmp_path / "in" / "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "a.look.jpg").write_bytes(b"earlier")
    assert command("look", source, "-o", out, "--system", "watcher", "--quiet") == 2
    assert "1 result exists and is not known to be" in capfd.readouterr().err
    assert (out / "a.look.jpg").read_bytes() == b"earlier"
    photo(tmp_path / "in" / "b.png")
    assert command("look", tmp_path / "in", "-o", out, "--system", "watcher") == 1
    assert (out / "b.look.jpg").exists()
    assert command("look", source, "-o", out, "--system", "watcher", "--overwrite") == 0


def test_look_ends_as_other_commands_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    source, out = photo(tmp_path / "in" / "a.png"), tmp_path / "out"
    assert command("look", source, "-o", out, "--system", "no-such") == 2
    assert command("look", tmp_path / "none.png", "-o", out, "--system", "watcher") == 2
    assert "error:" in capfd.readouterr().err
    (tmp_path / "in" / "broken.png").write_bytes(source.read_bytes()[:60])
    assert command("look", tmp_path / "in", "-o", out, "--system", "watcher") == 1
    said = capfd.readouterr()
    assert "failed:" in said.err
    assert "1 of 2 photos drawn" in said.out


def test_every_kind_of_answer_is_drawn() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    quads = corners_to_quads(np.array([[20.0, 40, 120, 160], [150, 30, 400, 90]]))
    answers = [
        Boxes(quads, ("dog", "cat"), (300, 200), np.array([0.9, 0.6], np.float32)),
        Boxes(quads),
        Boxes(quads[:0]),
        Classes(np.array([0.2, 0.8], np.float32), ("a", "b")),
        Masks(np.pad(np.full((50, 50), 3, np.int32), 75)[:, :300].repeat(2, 1)[:200, :300], ()),
        Embedding(np.ones(4, np.float32)),
        Text(("STOP", "42"), quads),
        Keypoints(
            np.full((1, 17, 2), 60.0), np.ones((1, 17), np.float32), np.array([[50.0, 50, 70, 70]])
        ),
        Keypoints(np.full((2, 5, 2), 60.0), np.ones((2, 5), np.float32), np.zeros((2, 4))),
    ]
    for answer in answers:
        picture = drawn(image, answer)
        assert picture.shape == image.shape
        assert picture.dtype == np.uint8
        assert (picture != image).any() == (not isinstance(answer, Boxes) or len(answer.quads) > 0)
    assert (image == 90).all()
