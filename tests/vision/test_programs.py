"""Programs of torch.export as vision systems, and TorchScript that opens files."""

from __future__ import annotations

import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from kit import command, picture
from PIL import Image

from vizcomp.errors import MissingExtraError, ModelError
from vizcomp.vision import script_systems
from vizcomp.vision.answers import Classes
from vizcomp.vision.script_systems import check_script
from vizcomp.vision.system import reading_of
from vizcomp.vision.systems import open_system

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names the strongest colour, of one picture at a time."""
    path = tmp_path_factory.mktemp("programs") / "own.pt2"
    mean = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.export.save(torch.export.export(mean.eval(), (torch.zeros(1, 3, 32, 32),)), path)
    return path


def test_a_program_is_read_without_a_word_of_its_size(program: Path) -> None:
    system = open_system(f"{program}:resize=stretch")
    assert system.kind == "classes"
    assert "input 32x32" in reading_of(system)
    colours = np.zeros((2, 40, 60, 3), np.uint8)
    colours[0, ..., 1] = colours[1, ..., 2] = 255
    answers = system.answers(list(colours))
    assert [answer.best for answer in answers if isinstance(answer, Classes)] == [1, 2]
    (answer,) = system.answers([picture(3, 32, 32)])
    means = picture(3, 32, 32).reshape(-1, 3).mean(0) / 255
    assert isinstance(answer, Classes)
    # logits in 0..1
    wanted = np.exp(means) / np.exp(means).sum()
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)


@pytest.mark.parametrize("data", [b"", b"PK", b"PK" + bytes(100)])
def test_what_is_no_program_is_two_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes
) -> None:
    spec = tmp_path / "own.pt2"
    spec.write_bytes(data)
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    assert command("look", tmp_path / "a.png", "-o", tmp_path / "out", "--system", spec) == 2
    said = capfd.readouterr().err
    assert "cannot be read as a program of torch.export" in said
    assert len(said.splitlines()) == 2


def test_without_torch_it_says_what_to_install(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError) as caught:
        open_system(str(program))
    assert "vizcomp[train]" in caught.value.hint


class Writes(torch.nn.Module):  # type: ignore[misc]
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        torch.save(image, "written")
        return image.mean((2, 3))


def test_torchscript_that_opens_files_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; people have it
        torch.jit.script(Writes()).save(str(tmp_path / "own.pt"))
    with pytest.raises(ModelError, match="its code opens files"):
        open_system(f"{tmp_path / 'own.pt'}:size=32")


@pytest.mark.parametrize("between", ["", " ", "\n", " # of the photo\n ", "\\\n"])
def test_no_blank_hides_that_files_are_opened(tmp_path: Path, between: str) -> None:
    with zipfile.ZipFile(tmp_path / "own.pt", "w") as archive:
        archive.writestr("own/code/__torch__.py", f"x = (torch.save{between}(image, name))")
    with pytest.raises(ModelError, match="its code opens files"):
        check_script(tmp_path / "own.pt")


def test_code_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_systems, "MOST_CODE", 1000)
    with zipfile.ZipFile(tmp_path / "own.pt", "w") as archive:
        archive.writestr("own/code/__torch__.py", "#" + 1000 * " " + "\ntorch.save(image, name)")
    with pytest.raises(ModelError, match="too large"):
        check_script(tmp_path / "own.pt")
