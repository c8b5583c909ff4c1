"""Published depth networks: their reading is known, found beside them, or asked for; large = near
comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from vizcomp.cli import app
from vizcomp.depth.published import KNOWN, PublishedDepth, Reading, parse_options, reading_beside
from vizcomp.depth.sources import open_depth
from vizcomp.errors import ModelError, SettingsError
from vizcomp.files.find import InputFile
from vizcomp.photos.photo import load
from vizcomp.weights import table
from vizcomp.weights.options import split_name

Shape = tuple["int | str", ...]


def network(
    path: Path,
    shape: Shape = (1, 3, "h", "w"),
    *,
    outputs: tuple[str, ...] = ("predicted_depth",),
    words: dict[str, str] | None = None,
    keep: bool = False,
    scale: float = 1.0,
) -> Path:
    """A network whose map is the mean of the channels as they enter, times `scale`."""
    last = shape[-1] == 3 and shape[-3] != 3
    axis = len(shape) - 1 if last else len(shape) - 3
    factor = numpy_helper.from_array(np.array(scale, np.float32), "scale")
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[axis], keepdims=int(keep))]
    nodes += [helper.make_node("Mul", ["mean", "scale"], [name]) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "depth",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [factor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, words or {})
    onnx.save(model, path)
    return path


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """A photo that is dark on the left and bright on the right."""
    row = np.linspace(0, 255, 96).astype(np.uint8)
    pixels = np.repeat(np.repeat(row[None, :, None], 64, 0), 3, 2)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "ramp.png")
    return tmp_path / "photos" / "ramp.png"


def nearness(model: str, photo: Path) -> np.ndarray:
    source = open_depth(model, None)
    depth = source(load(photo), InputFile(photo, Path(photo.name)))
    assert depth.confidence is None
    return depth.nearness


@pytest.mark.parametrize(
    ("shape", "options", "size"),
    [
        ((1, 3, 32, 48), "norm=unit,polarity=near", (32, 48)),
        ((1, 32, 48, 3), "norm=bytes,polarity=near", (32, 48)),
        ((1, 1, 3, 28, 42), "norm=signed,polarity=near", (28, 42)),
        (("n", "c", "h", "w"), "norm=imagenet,polarity=near,size=64x32", (32, 64)),
        ((1, 3, "h", "w"), "norm=imagenet,polarity=near,size=56,fit=aspect,multiple=14", (56, 84)),
    ],
)
def test_inputs_of_all_forms(
    tmp_path: Path, ramp: Path, shape: Shape, options: str, size: tuple[int, int]
) -> None:
    path = network(tmp_path / "net.onnx", shape)
    near = nearness(f"{path}:{options}", ramp)
    assert near.shape == size
    assert near.dtype == np.float32
    assert near.min() == 0
    assert near.max() == 1
    assert np.all(np.diff(near[3]) >= 0)  # bright is near
    far = nearness(f"{path}:{options.replace('polarity=near', 'polarity=far')}", ramp)
    np.testing.assert_allclose(far, 1 - near, atol=1e-6)


def test_what_enters_is_what_the_norm_says(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", (1, 3, 4, 4))
    grey = np.full((4, 4, 3), (255, 0, 51), np.uint8)
    for norm, expected in {"unit": 0.4, "bytes": 102.0, "signed": -0.2}.items():
        found = PublishedDepth(path, Reading(norm=norm, polarity="near")).answer(grey)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found = PublishedDepth(path, Reading(norm="imagenet", polarity="near")).answer(grey)
    np.testing.assert_allclose(found, ((np.array([1, 0, 0.2]) - mean) / std).mean(), rtol=1e-5)
    found = PublishedDepth(path, Reading(mean=(0.5,), std=(0.25,), polarity="near")).answer(grey)
    np.testing.assert_allclose(found, -0.4, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ("", ["norm=imagenet", "size=518", "polarity=near"]),
        ("norm=unit", ["size=518", "polarity=near"]),
        ("norm=unit,size=64", ["polarity=near"]),
        ("polarity=far", ["norm=imagenet", "size=518"]),
    ],
)
def test_what_is_not_said_is_asked(
    tmp_path: Path, ramp: Path, options: str, asked: list[str]
) -> None:
    path = network(tmp_path / "net.onnx")
    model = f"{path}:{options}" if options else str(path)
    with pytest.raises(SettingsError) as told:
        open_depth(model, None)
    assert told.value.exit_code == 2
    assert f"net.onnx:{','.join(asked)} " in told.value.hint
    for command in (
        ["depth", str(ramp), "--model", model],
        ["djpeg", str(ramp), "--depth-model", model],
    ):
        result = CliRunner().invoke(
            app, [*command, "-o", str(tmp_path / "out"), "-j", "1", "--quiet"]
        )
        assert isinstance(result.exception, SettingsError)


def test_files_beside_say_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "repo" / "onnx"
    folder.mkdir(parents=True)
    path = network(folder / "model.onnx", words={"polarity": "near"})
    before = {
        "do_normalize": True,
        "ensure_multiple_of": 14,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.2],
        "keep_aspect_ratio": True,
        "rescale_factor": 1 / 255,
        "size": {"height": 56, "width": 56},
    }
    (folder.parent / "preprocessor_config.json").write_text(json.dumps(before))
    (folder.parent / "config.json").write_text(
        '{"model_type": "depth_anything", "depth_estimation_type": "metric"}'
    )
    said = reading_beside(path)
    assert said.mean == (0.5, 0.4, 0.3)
    assert (said.size, said.fit, said.multiple, said.polarity) == ((56, 56), "aspect", 14, "far")
    source = PublishedDepth(path)
    assert source.working_size(30, 60) == (56, 112)
    # the user's own word comes first
    (folder / "model.json").write_text('{"polarity": "near", "norm": "unit", "size": 28}')
    own = PublishedDepth(path).reading
    assert (own.polarity, own.norm, own.mean, own.size) == ("near", "unit", (), (28, 28))
    assert PublishedDepth(path).name != source.name
    assert PublishedDepth(path, Reading(polarity="far")).reading.polarity == "far"
    (folder / "model.json").write_text("[")
    with pytest.raises(ModelError, match=r"model\.json"):
        PublishedDepth(path)


@pytest.mark.parametrize(
    "content",
    [
        '{"size": [1], "image_mean": "x", "ensure_multiple_of": 1e9}',
        "[]",
        "{",
        '{"size": {"width": true}}',
    ],
)
def test_odd_files_of_others_are_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    assert reading_beside(tmp_path / "net.onnx") == Reading()


def test_several_outputs(tmp_path: Path) -> None:
    said = Reading(norm="unit", size=(28, 28), polarity="far")
    both = network(tmp_path / "both.onnx", outputs=("depth", "confidence"))
    assert PublishedDepth(both, said).answer(np.zeros((9, 9, 3), np.uint8)).shape == (28, 28)
    odd = network(tmp_path / "odd.onnx", outputs=("a", "b"))
    with pytest.raises(SettingsError, match="several outputs: a, b"):
        PublishedDepth(odd, said)
    with pytest.raises(SettingsError, match="no output 'c'"):
        PublishedDepth(odd, Reading(norm="unit", size=(28, 28), polarity="far", output="c"))


def test_what_is_no_depth_network(tmp_path: Path) -> None:
    said = Reading(norm="unit", size=(28, 28), polarity="far")
    (tmp_path / "text.onnx").write_bytes(b"no network")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx"):
        with pytest.raises(ModelError, match=name):
            open_depth(f"{tmp_path / name}:norm=unit,size=28,polarity=far", None)
    with pytest.raises(ModelError, match="no RGB picture"):
        PublishedDepth(network(tmp_path / "grey.onnx", (1, 1, 28, 28)), said)
    with pytest.raises(ModelError, match="inputs are"):
        PublishedDepth(network(tmp_path / "batch.onnx", (4, 3, 28, 28)), said)
    with pytest.raises(ModelError, match="above 4096"):
        PublishedDepth(network(tmp_path / "large.onnx", (1, 3, 9000, 28)), said)
    with pytest.raises(SettingsError, match="takes 32x28"):
        PublishedDepth(network(tmp_path / "fixed.onnx", (1, 3, 28, 32)), said)
    with pytest.raises(ModelError, match="not finite"):
        PublishedDepth(network(tmp_path / "nan.onnx", scale=float("nan")), said).answer(
            np.zeros((9, 9, 3), np.uint8)
        )
    with pytest.raises(ModelError, match="no depth model at"):
        open_depth(str(tmp_path / "missing.onnx:norm=unit"), None)


def test_a_list_of_numbers_in_the_name(tmp_path: Path, ramp: Path) -> None:
    """Its slashes are no folders."""
    path = network(tmp_path / "net.onnx", (1, 3, 28, 28))
    by_norm = nearness(f"{path}:norm=imagenet,polarity=near", ramp)
    by_numbers = nearness(
        f"{path}:mean=0.485/0.456/0.406,std=0.229/0.224/0.225,polarity=near", ramp
    )
    np.testing.assert_allclose(by_numbers, by_norm, atol=1e-6)


def test_options_and_names() -> None:
    assert split_name("a/b.onnx", ".onnx") == (Path("a/b.onnx"), "")
    assert split_name("b.ONNX:size=1,norm=unit", ".onnx") == (Path("b.ONNX"), "size=1,norm=unit")
    assert split_name("a/b.onnx:mean=0.5/0.4/0.3,std=1", ".onnx") == (
        Path("a/b.onnx"),
        "mean=0.5/0.4/0.3,std=1",
    )
    assert split_name("compact", ".onnx") is None
    assert parse_options("size=640x480,mean=0.5/0.4/0.3,std=1") == Reading(
        size=(640, 480), mean=(0.5, 0.4, 0.3), std=(1.0,)
    )
    for text, hint in (
        ("nrom=unit", "norm"),
        ("norm=imgnet", "imagenet"),
        ("size", "key=value"),
        ("size=0", ""),
        ("std=0", ""),
    ):
        with pytest.raises(SettingsError) as told:
            parse_options(text)
        assert hint in told.value.hint
    with pytest.raises(SettingsError, match="takes no options"):
        open_depth("midas-small:norm=unit", None)


def test_rows_name_sources_and_licences() -> None:
    rows = {row.id: row for row in table.PUBLISHED}
    for name, reading in KNOWN.items():
        assert rows[name].licence in ("MIT", "Apache-2.0")
        assert all(source.url.startswith("https://") for source in rows[name].sources)
        assert reading.norm
        assert reading.size
        assert reading.polarity
    result = CliRunner().invoke(app, ["weights", "list"])
    assert all(name in result.stdout for name in KNOWN)
    assert "unchecked" in result.stdout


def test_a_row_by_hand(tmp_path: Path, ramp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    wrong = network(tmp_path / "wrong.onnx", (1, 1, 256, 256))
    right = network(tmp_path / "right.onnx", (1, 3, 256, 256))
    run = CliRunner().invoke
    missing = run(
        app,
        ["depth", str(ramp), "--model", "midas-small", "-o", str(tmp_path / "out"), "--offline"],
    )
    assert getattr(missing.exception, "exit_code", 0) == 3
    assert run(app, ["weights", "add", "midas-small", str(wrong)]).exit_code != 0
    assert run(app, ["weights", "add", "midas-small", str(right)]).exit_code == 0
    done = run(
        app,
        [
            "depth",
            str(ramp),
            "--model",
            "midas-small",
            "-o",
            str(tmp_path / "out"),
            "--offline",
            "-j",
            "1",
            "--quiet",
        ],
    )
    assert done.exit_code == 0
    with Image.open(tmp_path / "out" / "ramp.depth.png") as made:
        values = np.asarray(made)
    assert values.shape == (64, 96)
    assert values[:, -1].min() > values[:, 0].max()


def test_djpeg_is_guided_by_it(tmp_path: Path) -> None:
    photo = tmp_path / "noise.png"
    noise = (
        np.random.default_rng(0).normal(0, 30, (64, 96, 3))
        + np.linspace(60, 200, 96)[None, :, None]
    )
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(photo)
    path = network(tmp_path / "net.onnx", (1, 3, 32, 48))
    made = {}
    for polarity in ("near", "far"):
        out = tmp_path / polarity
        options = [
            "--depth-model",
            f"{path}:norm=unit,polarity={polarity}",
            "--guide",
            "depth",
            "--strength",
            "1",
        ]
        done = CliRunner().invoke(
            app, ["djpeg", str(photo), "-o", str(out), "-j", "1", "--quiet", *options]
        )
        assert done.exit_code == 0, done.output
        made[polarity] = (out / "noise.jpg").read_bytes()
    assert made["near"] != made["far"]
