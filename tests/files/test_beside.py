"""Files that libraries write by name: beside, then renamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vizcomp.files.write import beside


def test_the_file_appears_at_the_end_and_is_for_everybody_to_read(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"before")
    with beside(path) as part:
        part.write_bytes(b"after")
        assert path.read_bytes() == b"before"
        assert part.name.startswith(".")
    assert path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
def test_what_fails_leaves_the_file_before(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"before")

    def fails() -> None:
        with beside(path) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fails()
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


def test_a_link_at_the_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"not ours")
    path = tmp_path / "model.bin"
    path.symlink_to(other)
    with beside(path) as part:
        part.write_bytes(b"ours")
    assert other.read_bytes() == b"not ours"
    assert not path.is_symlink()
    assert path.read_bytes() == b"ours"


def test_a_missing_folder_is_the_librarys_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), beside(tmp_path / "none" / "model.bin"):
        raise AssertionError("no file could be made")
