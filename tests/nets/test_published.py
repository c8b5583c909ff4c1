"""Published classifiers: PyTorch_CIFAR10's Inception v3 by name, its normalisation, the message
when it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vizcomp.cli import app
from vizcomp.errors import InputError, ModelError, SettingsError, WeightsMissingError
from vizcomp.graphs import classifiers
from vizcomp.nets.classifiers import built
from vizcomp.nets.inception import Inception
from vizcomp.vision.systems import open_system
from vizcomp.weights import cache as weights_cache


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
        open_system("inception-v3")
    added = CliRunner().invoke(
        app, ["weights", "add", "inception-v3", str(published(tmp_path, state))]
    )
    assert added.exit_code == 0
    assert "normalisation of 2021 assumed" in " ".join(added.output.split())
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    network = Inception()
    network.load_state_dict(state)
    for year, deviation in (("2021", (0.2471, 0.2435, 0.2616)), ("2019", (0.2023, 0.1994, 0.2010))):
        weights_cache.note("inception-v3", words=year)
        scaled = torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - torch.tensor(
            (0.4914, 0.4822, 0.4465)
        ).view(1, 3, 1, 1)
        with torch.inference_mode():
            wanted = (
                network.eval()(scaled / torch.tensor(deviation).view(1, 3, 1, 1))
                .softmax(1)[0]
                .numpy()
            )
        system = open_system("inception-v3")
        assert system.classes == classifiers.CIFAR_CLASSES
        answer = system.answers([image])[0]
        np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)  # type: ignore[union-attr]


def plainly(state: dict[str, Any], x: Any) -> Any:
    """The published forward pass again, without a module: each branch as torchvision's Inception3
    has it."""
    from torch.nn import functional as F

    def unit(x: Any, name: str, stride: int = 1, padding: Any = 0) -> Any:
        x = F.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding)
        stats = [
            state[f"{name}.bn.{what}"].view(1, -1, 1, 1)
            for what in ("running_mean", "running_var", "weight", "bias")
        ]
        return ((x - stats[0]) / torch.sqrt(stats[1] + 0.001) * stats[2] + stats[3]).clamp_min(0)

    def chain(x: Any, *steps: Any) -> Any:
        for name, *more in steps:
            x = unit(x, name, *more)
        return x

    x = unit(x, "Conv2d_1a_3x3", 1, 1)
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = torch.cat(
            [
                unit(x, f"{b}.branch1x1"),
                chain(x, (f"{b}.branch5x5_1",), (f"{b}.branch5x5_2", 1, 2)),
                chain(
                    x,
                    (f"{b}.branch3x3dbl_1",),
                    (f"{b}.branch3x3dbl_2", 1, 1),
                    (f"{b}.branch3x3dbl_3", 1, 1),
                ),
                unit(F.avg_pool2d(x, 3, 1, 1), f"{b}.branch_pool"),
            ],
            1,
        )
    b = "Mixed_6a"
    double = chain(
        x, (f"{b}.branch3x3dbl_1",), (f"{b}.branch3x3dbl_2", 1, 1), (f"{b}.branch3x3dbl_3", 2)
    )
    x = torch.cat([unit(x, f"{b}.branch3x3", 2), double, F.max_pool2d(x, 3, 2)], 1)
    across, down = (0, 3), (3, 0)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        pads = (0, down, across, down, across)
        x = torch.cat(
            [
                unit(x, f"{b}.branch1x1"),
                chain(
                    x,
                    (f"{b}.branch7x7_1",),
                    (f"{b}.branch7x7_2", 1, across),
                    (f"{b}.branch7x7_3", 1, down),
                ),
                chain(x, *((f"{b}.branch7x7dbl_{i + 1}", 1, pads[i]) for i in range(5))),
                unit(F.avg_pool2d(x, 3, 1, 1), f"{b}.branch_pool"),
            ],
            1,
        )
    b = "Mixed_7a"
    seven = [
        (f"{b}.branch7x7x3_1",),
        (f"{b}.branch7x7x3_2", 1, across),
        (f"{b}.branch7x7x3_3", 1, down),
        (f"{b}.branch7x7x3_4", 2),
    ]
    x = torch.cat(
        [
            chain(x, (f"{b}.branch3x3_1",), (f"{b}.branch3x3_2", 2)),
            chain(x, *seven),
            F.max_pool2d(x, 3, 2),
        ],
        1,
    )
    for b in ("Mixed_7b", "Mixed_7c"):
        three = unit(x, f"{b}.branch3x3_1")
        double = chain(x, (f"{b}.branch3x3dbl_1",), (f"{b}.branch3x3dbl_2", 1, 1))
        forks = [
            unit(y, f"{b}.{n}a", 1, (0, 1))
            for y, n in ((three, "branch3x3_2"), (double, "branch3x3dbl_3"))
        ]
        others = [
            unit(y, f"{b}.{n}b", 1, (1, 0))
            for y, n in ((three, "branch3x3_2"), (double, "branch3x3dbl_3"))
        ]
        pooled = unit(F.avg_pool2d(x, 3, 1, 1), f"{b}.branch_pool")
        x = torch.cat(
            [unit(x, f"{b}.branch1x1"), forks[0], others[0], forks[1], others[1], pooled], 1
        )
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("form", ["plain", "module.", "model.", "checkpoint", "untracked"])
def test_the_forward_pass_is_the_published_one(
    tmp_path: Path, state: dict[str, Any], form: str
) -> None:
    generator = torch.Generator().manual_seed(5)
    for name, value in state.items():  # statistics that matter
        if name.endswith(("running_mean", "bn.bias", "fc.bias")):
            value.normal_(0, 0.1, generator=generator)
        elif name.endswith(("running_var", "bn.weight")):
            value.uniform_(0.5, 1.5, generator=generator)
    saved: dict[str, Any] = {
        "plain": state,
        "checkpoint": {"epoch": 3, "state_dict": {f"model.{n}": v for n, v in state.items()}},
        "untracked": {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
    }.get(form) or {form + n: v for n, v in state.items()}
    path = published(tmp_path, saved)
    loaded = built(classifiers.read_published(path, "2019"))
    assert sum(p.numel() for p in loaded.network.parameters()) == pytest.approx(21.64e6, abs=5e3)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.inference_mode():
        scaled = (images - torch.tensor((0.4914, 0.4822, 0.4465)).view(1, 3, 1, 1)) / torch.tensor(
            (0.2023, 0.1994, 0.2010)
        ).view(1, 3, 1, 1)
        wanted = plainly(state, scaled)
        found = loaded(images)
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_a_wrong_file_is_not_added(tmp_path: Path, state: dict[str, Any], cache: Path) -> None:
    del state["fc.bias"]
    result = CliRunner().invoke(
        app, ["weights", "add", "inception-v3", str(published(tmp_path, state))]
    )
    assert isinstance(result.exception, InputError)
    assert "missing: fc.bias" in result.exception.message
    assert not (cache / "inception_v3.pt").exists()
    result = CliRunner().invoke(app, ["weights", "add", "nyu", str(tmp_path / "inception_v3.pt")])
    assert isinstance(result.exception, InputError)
    assert "is not HDF5" in result.exception.message
    assert "nyu has 172,897,376" in result.exception.message
    result = CliRunner().invoke(app, ["weights", "pull", "nyu", "--calibrate", str(tmp_path)])
    assert isinstance(result.exception, SettingsError)
    result = CliRunner().invoke(
        app, ["weights", "pull", "inception-v3", "--calibrate", str(tmp_path / "no")]
    )
    assert isinstance(result.exception, SettingsError)
    assert "does not exist" in result.exception.message


def test_what_does_not_fit_is_listed(tmp_path: Path, state: dict[str, Any]) -> None:
    del state["Mixed_5b.branch1x1.conv.weight"]
    state["AuxLogits.fc.bias"] = torch.zeros(10)
    state["fc.bias"] = torch.zeros(100)
    with pytest.raises(ModelError) as caught:
        classifiers.read_published(published(tmp_path, state), "2021")
    for words in (
        "missing: Mixed_5b.branch1x1.conv.weight",
        "extra: AuxLogits.fc.bias",
        "fc.bias (100,) for (10,)",
    ):
        assert words in caught.value.message


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("content", ["pickle", "empty", "text", "list", "cut"])
def test_other_files_are_refused_and_nothing_runs(
    tmp_path: Path, state: dict[str, Any], content: str
) -> None:
    mark = tmp_path / "was-run"
    path = published(tmp_path, {"a": Hostile(mark)} if content == "pickle" else state)
    if content == "list":
        torch.save([1, 2], path)
    elif content != "pickle":
        path.write_bytes(
            {"empty": b"", "text": b"no weights", "cut": path.read_bytes()[:100_000]}[content]
        )
    with pytest.raises(ModelError):
        classifiers.read_published(path, "2021")
    assert not mark.exists()


def test_images_to_calibrate_on(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("test", 6)):
        # as numbers 9 and 3 of CIFAR-10, 1 and 0 in the folder
        for value, name in enumerate(("truck", "cat")):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(np.full((32, 32, 3), 100 * value, np.uint8)).save(
                    folder / f"{k}.png"
                )
    images, labels = classifiers.calibration_images(tmp_path / "set", 4)
    # evenly over the classes, though they lie one after the other
    assert labels.tolist() == [3, 3, 9, 9]
    assert images[:, 0, 0, 0].tolist() == [100, 100, 0, 0]
    assert len(classifiers.calibration_images(tmp_path / "set" / "train")[1]) == 4
    (tmp_path / "set" / "train" / "cow").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "set" / "train" / "cow" / "1.png")
    with pytest.raises(InputError, match="class cow"):
        classifiers.calibration_images(tmp_path / "set")
    with pytest.raises(InputError, match="does not exist"):
        classifiers.calibration_images(tmp_path / "nowhere")


def test_the_normalisation_is_chosen_on_data_and_kept(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    weights_cache.add("inception-v3", published(tmp_path, state))

    class ByBrightness:
        def __init__(self, _: Path, year: str) -> None:
            self.year = year

        def logits(self, images: np.ndarray) -> np.ndarray:
            steps = images.mean((1, 2, 3)) / 255 / classifiers.DEVIATIONS[self.year][0] * 2
            return np.eye(10)[steps.astype(int).clip(0, 9)]

    images = np.repeat(np.arange(0, 252, 21, dtype=np.uint8), 32 * 32 * 3).reshape(12, 32, 32, 3)
    for year, other in (("2019", "2021"), ("2021", "2019")):
        labels = ByBrightness(tmp_path, year).logits(images).argmax(1)
        figures = classifiers.calibrate("inception-v3", images, labels, opened=ByBrightness)
        assert figures[year] == 1.0
        assert figures[other] < 1
        assert classifiers.year_of("inception-v3") == year
    weights_cache.note("inception-v3", words="2021")
    assert classifiers.calibrate("inception-v3", images, np.full(12, 99), opened=ByBrightness) == {
        "2019": 0,
        "2021": 0,
    }
    assert classifiers.year_of("inception-v3") == "2021"  # alike: as it was
