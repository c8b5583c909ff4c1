"""`vizcomp doctor` and `vizcomp demo`."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest
from kit import command, tree

from vizcomp.batch import engines, health


def test_doctor_says_what_this_installation_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    assert command("doctor") == 0
    text = capsys.readouterr().out
    for word in (
        "vizcomp",
        "Python",
        "JPEG",
        "pillow",
        "cores",
        "extras",
        "gpu",
        str(tmp_path / "cache"),
    ):
        assert word in text
    assert command("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["formats"]["JPEG"]
    assert found["decoders"][0] | {"version": None, "library": None} == {
        "name": "pillow",
        "installed": True,
        "version": None,
        "library": None,
        "largest": 0,
        "mean": 0.0,
        "differ": 0.0,
    }
    assert found["problems"] == []


def test_doctor_finds_a_decoder_that_differs_and_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(health, "by_opencv", lambda data, shown: health._by_pillow(data) // 2)
    monkeypatch.setattr(health, "_is_there", lambda module: module == "cv2" or module == "PIL")
    monkeypatch.setitem(health.sys.modules, "cv2", health)
    assert command("doctor") == 1
    text = capsys.readouterr().out
    assert "of the samples differ from Pillow's, by " in text
    assert "cannot be written" in text
    assert "problem" in text


def test_demo_makes_a_report_of_the_samples_and_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(engines, "TASKS_TO_ISOLATE", 1000)
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPLAY", ":0")
    assert command("demo", "-j", 1, "--config", "none") == 0
    assert {"report.html", "report.json", "astronaut.jpg"} <= tree(tmp_path / "vizcomp-demo")
    assert opened == [(tmp_path / "vizcomp-demo" / "report.html").as_uri()]
    # nothing to do, and nothing opened
    assert command("demo", "-j", 1, "--config", "none", "--no-open") == 0
    assert len(opened) == 1
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert command("demo", "-j", 1, "--config", "none") == 0
    assert len(opened) == 1
