"""A guide learned from where a system looks, and `--guide PATH.onnx`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

from vizcomp.cli import app
from vizcomp.djpeg import guide
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.learned import LearnedGuide
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import ModelError, SettingsError, TrainingError
from vizcomp.photos.photo import load

SIDE = 96
QUICK = (
    "views=2",
    "epochs=24",
    "crop=96",
    "batch=4",
    "validation=0.2",
    "learning_rate=0.01",
    "average=0.9",
)


def segmenter(path: Path, threshold: float = 0.6) -> str:
    """A system that sees what is bright: masks of two classes."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["level"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["level", "none"], ["flat"]),
        helper.make_node("Add", ["flat", "threshold"], ["other"]),
        helper.make_node("Concat", ["other", "level"], ["masks"], axis=1),
    ]
    numbers = {"none": 0.0, "threshold": threshold}
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("masks", TensorProto.FLOAT, (1, 2, SIDE, SIDE))],
        [
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in numbers.items()
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )
    return f"{path}:kind=masks,norm=unit,resize=stretch,layout=NCHW"


def scene(seed: int, size: tuple[int, int] = (128, 160)) -> tuple[np.ndarray, tuple[int, int]]:
    """A dark, noisy photo with a bright square in it, and the square's corner."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(60, 20, (*size, 3))
    top, left = int(rng.integers(8, size[0] - 56)), int(rng.integers(8, size[1] - 56))
    pixels[top : top + 48, left : left + 48] = rng.normal(225, 15, (48, 48, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), (top, left)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide") / "photos"
    folder.mkdir()
    for k in range(10):
        Image.fromarray(scene(k)[0]).save(folder / f"{k}.png")
    return folder


def train(photos: Path, run: Path, *more: str) -> Result:
    sets = [word for pair in QUICK for word in ("--set", pair)]
    return CliRunner().invoke(
        app,
        [
            "train",
            "--kind",
            "guide",
            "--data",
            str(photos),
            "-o",
            str(run),
            "--quiet",
            *sets,
            *more,
        ],
    )


@pytest.fixture(scope="module")
def run(photos: Path) -> Path:
    result = train(
        photos, photos.parent / "run", "--system", segmenter(photos.parent / "bright.onnx")
    )
    assert result.exit_code == 0, result.output
    return photos.parent / "run"


def test_it_knows_where_the_system_looks(run: Path) -> None:
    learned = LearnedGuide(run / "model.onnx")
    assert "bright.onnx" in learned.systems
    for seed in (100, 101, 102):
        pixels, (top, left) = scene(seed)
        found = learned(pixels)
        assert found.shape == (16, 20)
        inside = np.zeros(found.shape, bool)
        inside[top // 8 + 1 : (top + 48) // 8 - 1, left // 8 + 1 : (left + 48) // 8 - 1] = True
        assert found[inside].mean() > 0.8
        far = np.ones(found.shape, bool)
        far[
            max(0, top // 8 - 5) : (top + 48) // 8 + 6, max(0, left // 8 - 5) : (left + 48) // 8 + 6
        ] = False
        assert found[far].mean() < 0.3
    card = json.loads((run / "model.json").read_text())
    assert card["kind"] == "guide"
    assert 0 < card["validation"]["blocks kept for 95%"] < 0.9
    scale = card["step_scale"]
    assert learned.scale == pytest.approx(scale["value"], rel=1e-3)
    assert (learned.uncalibrated == "") == (scale["error"] is not None)
    assert learned.uncalibrated == scale["why"]
    assert scale["by_system"] == [{key: scale[key] for key in scale if key != "by_system"}]
    assert scale["photos"] == 2  # all that were left out
    assert "5 are needed" in scale["why"]
    assert (run / "model.onnx").stat().st_size < 1_000_000


def test_djpeg_takes_it_as_a_guide(run: Path, tmp_path: Path) -> None:
    pixels, (top, left) = scene(200)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    path = str(run / "model.onnx")
    made = compress(load(tmp_path / "a.png"), DjpegSettings(guide=path, strength=1))
    plain = compress(load(tmp_path / "a.png"), DjpegSettings(guide="uniform"))
    assert len(made.data) < 0.8 * len(plain.data)
    assert made.importance[(top + 24) // 8, (left + 24) // 8] == 1
    out = tmp_path / "out"
    command = [
        "djpeg",
        str(tmp_path / "a.png"),
        "-o",
        str(out),
        "--guide",
        f"{path}+detail",
        "-j",
        "1",
        "--quiet",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert (out / "a.jpg").is_file()


def test_runs_are_resumed(photos: Path, tmp_path: Path) -> None:
    system = segmenter(tmp_path / "bright.onnx")
    # two values for epochs
    assert train(photos, tmp_path / "run", "--system", system, "--set", "epochs=1").exit_code != 0
    sets = [word for pair in QUICK if "epochs" not in pair for word in ("--set", pair)]
    command = [
        "train",
        "--kind",
        "guide",
        "--data",
        str(photos),
        "-o",
        str(tmp_path / "run"),
        "--quiet",
        *sets,
    ]
    first = CliRunner().invoke(app, [*command, "--system", system, "--set", "epochs=1"])
    assert first.exit_code == 0, first.output
    resume = ["train", "--data", str(photos), "-o", str(tmp_path / "run"), "--resume", "--quiet"]
    again = CliRunner().invoke(app, [*resume, "--set", "calibration=0"])  # may be another
    assert again.exit_code == 0, again.output
    assert LearnedGuide(tmp_path / "run" / "model.onnx").uncalibrated == "nobody asked for it"
    assert (
        "factor on steps: 1, not measured: nobody asked for it"
        in CliRunner().invoke(app, [*resume[:-1], "--set", "calibration=0"]).output
    )
    other = CliRunner().invoke(app, [*command, "--system", system, "--set", "epochs=2", "--resume"])
    assert isinstance(other.exception, SettingsError)


def test_what_cannot_be_learned(photos: Path, tmp_path: Path) -> None:
    none = train(photos, tmp_path / "none")
    assert isinstance(none.exception, SettingsError)
    assert "system" in none.exception.hint
    blind = train(
        photos, tmp_path / "blind", "--system", segmenter(tmp_path / "blind.onnx", threshold=9.0)
    )
    assert isinstance(blind.exception, TrainingError)
    assert "looked nowhere" in blind.exception.message
    assert (
        train(photos, tmp_path / "odd", "--system", str(tmp_path / "missing.onnx")).exception
        is not None
    )
    wrong = CliRunner().invoke(
        app,
        [
            "train",
            "--kind",
            "codec",
            "--data",
            str(photos),
            "--system",
            "text",
            "-o",
            str(tmp_path / "c"),
        ],
    )
    assert isinstance(wrong.exception, SettingsError)


def test_what_is_no_guide(run: Path, tmp_path: Path) -> None:
    assert guide.parse("depth+a/b.onnx") == ("depth", "a/b.onnx")
    assert not guide.is_learned("system:a.onnx")
    Image.fromarray(scene(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "text.onnx").write_text("no network")
    missing = str(tmp_path / "missing.onnx")
    for path in (
        missing,
        str(tmp_path / "text.onnx"),
        segmenter(tmp_path / "other.onnx").partition(":")[0],
    ):
        done = CliRunner().invoke(
            app, ["djpeg", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--guide", path]
        )
        assert isinstance(done.exception, ModelError), path
        assert done.exception.exit_code == 2
    model = onnx.load(run / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "levels":
            entry.value = "2,1"
    onnx.save(model, tmp_path / "levels.onnx")
    with pytest.raises(ModelError, match="no range"):
        LearnedGuide(tmp_path / "levels.onnx")
