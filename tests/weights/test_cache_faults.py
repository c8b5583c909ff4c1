"""The cache of weights with rubbish in it, odd names, and links that wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kit import command

from vizcomp.errors import SettingsError
from vizcomp.weights import cache
from vizcomp.weights.download import locked
from vizcomp.weights.transfer import not_a_link


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models").mkdir(parents=True)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "name", ["", " ", "nyu ", " nyu", "a\nb", "a\x1b[1m", "../a", ".a", "-a", "a/b", "a" * 300, "é"]
)
def test_odd_names_are_refused(any_model: Path, name: str) -> None:
    with pytest.raises(SettingsError):
        cache.add(name, any_model)
    assert cache.added() == []


def test_no_link_is_written_through(any_model: Path, own_cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    for waiting in (".mine.safetensors.add", "mine.safetensors"):
        (own_cache / "models" / waiting).symlink_to(outside)
    target = cache.add("mine", any_model)
    assert outside.read_bytes() == b"mine"
    assert target.read_bytes() == any_model.read_bytes()
    assert not target.is_symlink()


def test_weights_list_survives_rubbish(
    own_cache: Path, any_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = own_cache / "models"
    cache.add("mine", any_model)
    (models / "gone.safetensors").symlink_to("nowhere")
    (models / "folder.safetensors").mkdir()
    (models / "a\nb[red].safetensors").write_bytes(b"x")
    (models / "[bold]x.safetensors").write_bytes(b"x")
    (own_cache / "nyu.h5").mkdir()
    (own_cache / "records.json").write_bytes(b"\xff\xfe{")
    for more in ([], ["--json"]):
        assert command("weights", "list", *more) == 0
        out = capsys.readouterr().out
        assert "mine" in out
        assert "bold" not in out


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
def test_locks_and_notes_of_downloads_are_not_written_through_links(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    path = tmp_path / "cache" / "net.onnx"
    path.parent.mkdir(exist_ok=True)
    lock = path.with_name(".net.onnx.lock")
    lock.symlink_to(mine)
    with locked(path):
        assert mine.read_text() == "mine"
    assert not lock.is_symlink()
    lock.unlink()
    os.mkfifo(lock)  # nobody reads it: it is not waited for
    with locked(path):
        pass
    note = path.with_name(".net.onnx.part.json")
    note.symlink_to(mine)
    not_a_link(note)
    assert not note.is_symlink()
    assert mine.read_text() == "mine"
