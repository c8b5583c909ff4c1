"""Published classifiers: PyTorch_CIFAR10's Inception v3 by name, its normalisation, the message when it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from vizcomp import vision, weights  # noqa: E402
from vizcomp.cli import app  # noqa: E402
from vizcomp.errors import ModelError, WeightsMissingError  # noqa: E402
from vizcomp.nets import classifiers  # noqa: E402
from vizcomp.nets.inception import Inception  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIZCOMP_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def state() -> dict[str, Any]:
    torch.manual_seed(0)
    return dict(Inception().eval().state_dict())


def published(folder: Path, state: dict[str, Any]) -> Path:
    path = folder / "inception_v3.pt"
    torch.save(state, path)
    return path


def test_the_published_state_dict_loads_by_name(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(WeightsMissingError, match="not in the cache"):
        vision.open_system("inception-v3")
    added = CliRunner().invoke(app, ["weights", "add", "inception-v3", str(published(tmp_path, state))])
    assert added.exit_code == 0
    assert "normalisation of 2021 assumed" in " ".join(added.output.split())
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    network = Inception()
    network.load_state_dict(state)
    for year, deviation in (("2021", (0.2471, 0.2435, 0.2616)), ("2019", (0.2023, 0.1994, 0.2010))):
        weights.note("inception-v3", words=year)
        scaled = torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - torch.tensor((0.4914, 0.4822, 0.4465)).view(1, 3, 1, 1)
        with torch.inference_mode():
            wanted = network.eval()(scaled / torch.tensor(deviation).view(1, 3, 1, 1)).softmax(1)[0].numpy()
        system = vision.open_system("inception-v3")
        assert system.classes == classifiers.CIFAR_CLASSES
        answer = system.answers([image])[0]
        np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)  # type: ignore[union-attr]


def test_what_does_not_fit_is_listed(tmp_path: Path, state: dict[str, Any]) -> None:
    del state["Mixed_5b.branch1x1.conv.weight"]
    state["AuxLogits.fc.bias"] = torch.zeros(10)
    state["fc.bias"] = torch.zeros(100)
    with pytest.raises(ModelError) as caught:
        classifiers.load_published(published(tmp_path, state), "2021")
    for words in ("missing: Mixed_5b.branch1x1.conv.weight", "extra: AuxLogits.fc.bias", "fc.bias (100,) for (10,)"):
        assert words in caught.value.message


class Hostile:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("/tmp/vizcomp-was-run"),)


@pytest.mark.parametrize("content", ["pickle", "empty", "text", "list", "cut"])
def test_other_files_are_refused_and_nothing_runs(tmp_path: Path, state: dict[str, Any], content: str) -> None:
    path = published(tmp_path, {"a": Hostile()} if content == "pickle" else state)
    if content == "list":
        torch.save([1, 2], path)
    elif content != "pickle":
        path.write_bytes({"empty": b"", "text": b"no weights", "cut": path.read_bytes()[:100_000]}[content])
    Path("/tmp/vizcomp-was-run").unlink(missing_ok=True)
    with pytest.raises(ModelError):
        classifiers.load_published(path, "2021")
    assert not Path("/tmp/vizcomp-was-run").exists()


def test_the_normalisation_is_chosen_on_data_and_kept(
    tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.add("inception-v3", published(tmp_path, state))
    images = np.random.default_rng(1).integers(0, 255, (12, 32, 32, 3), np.uint8)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    labels = classifiers.load_published(weights.obtain("inception-v3"), "2019")(batch).argmax(1).numpy()
    figures = classifiers.calibrate("inception-v3", images, labels)
    assert figures["2019"] == 1.0
    if figures["2021"] < 1:
        assert classifiers.year_of("inception-v3") == "2019"
    folder = tmp_path / "data"
    for i, name in enumerate(("cat", "dog") * 6):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(folder / name / f"{i}.png")
    done = CliRunner().invoke(
        app,
        [
            "eval",
            "--classifier",
            "inception-v3",
            "--data",
            str(folder),
            "--codec",
            "cifar",
            "--baseline",
            "none",
            "-j",
            "1",
            "-o",
            str(tmp_path / "r"),
        ],
    )
    assert done.exit_code == 0, done.output
