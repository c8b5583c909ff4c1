"""DenseDepth's files: written by tf-keras in the legacy format, read by us, the answers
compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vizcomp.depth.densedepth import MOST, DenseDepth, check_file, working_size
from vizcomp.errors import ModelError

# Run in a process of its own: tf-keras and Keras 3 share TensorFlow's global state.
WRITER = """
import sys, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf, tf_keras as keras
folder, encoder, width, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
L = keras.layers
keras.utils.set_random_seed(3)

class BilinearUpSampling2D(L.Layer):
    def __init__(self, size=(2, 2), data_format="channels_last", **kwargs):
        super().__init__(**kwargs)
        self.size, self.data_format = size, data_format
    def call(self, x):
        s = tf.shape(x)
        return tf.compat.v1.image.resize_bilinear(x, (s[1] * 2, s[2] * 2), align_corners=True)
    def get_config(self):
        return {**super().get_config(), "size": self.size, "data_format": self.data_format}

blocks = {"DenseNet169": [6, 12, 32, 32], "a small DenseNet": [2, 2, 3, 2]}[encoder]
from tf_keras.src.applications.densenet import DenseNet  # of any number of layers
base = DenseNet(blocks, input_shape=(None, None, 3), include_top=False, weights=None)
x = L.Conv2D(width, 1, padding="same", name="conv2")(base.output)
for i, skip in enumerate(("pool3_pool", "pool2_pool", "pool1", "conv1/relu"), 1):
    plain = L.UpSampling2D(2, interpolation="bilinear")
    up = BilinearUpSampling2D(name=f"up{i}_upsampling2d") if kind == "aligned" else plain
    x = L.Concatenate(name=f"up{i}_concat")([up(x), base.get_layer(skip).output])
    x = L.Conv2D(width >> i, 3, padding="same", name=f"up{i}_convA")(x)
    x = L.Conv2D(width >> i, 3, padding="same", name=f"up{i}_convB")(x)
    x = L.LeakyReLU(alpha=0.2)(x)
model = keras.Model(base.input, L.Conv2D(1, 3, padding="same", name="conv3")(x))
rng = np.random.default_rng(0)
for layer in model.layers:
    if isinstance(layer, L.BatchNormalization):
        shape = layer.get_weights()[0].shape
        mean, low = rng.normal(0, 0.1, shape), rng.uniform(0.5, 1.5, shape)
        layer.set_weights([rng.uniform(0.8, 1.2, shape), rng.normal(0, 0.1, shape), mean, low])
    elif layer.get_weights():
        kernel, *bias = layer.get_weights()
        layer.set_weights([kernel, *(rng.normal(0, 0.1, b.shape) for b in bias)])
last = model.get_layer("conv3")
probe = rng.integers(0, 255, (1, 64, 96, 3)).astype(np.float32) / 255
spread = float(np.abs(model(probe)).max())
kernel, bias = last.get_weights()
last.set_weights([kernel * 15 / spread, bias + 40])
model.save(folder + "/model.h5", save_format="h5")
out = {}
for h, w in ((64, 96), (96, 160)):
    image = rng.integers(0, 255, (h, w, 3), np.uint8)
    out[f"image{h}"] = image
    out[f"raw{h}"] = model(image[None].astype(np.float32) / 255).numpy()[0, :, :, 0]
np.savez(folder + "/answers.npz", parameters=model.count_params(), **out)
"""


def written(folder: Path, encoder: str, width: int, kind: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(folder), encoder, str(width), kind],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "model.h5"


@pytest.fixture(scope="session")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("legacy"), "a small DenseNet", 64, "aligned")


def compare(path: Path) -> None:
    network = DenseDepth(path)
    with np.load(path.with_name("answers.npz")) as answers:
        assert network.parameters == int(answers["parameters"])
        for height in (64, 96):
            wanted = answers[f"raw{height}"]
            metres = np.clip(1000 / wanted, 10, 1000) / 100
            found = network(answers[f"image{height}"][None])[0]
            assert np.ptp(metres) > 0.05
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, metres, rtol=1e-4)


def test_a_legacy_file_gives_what_tf_keras_gives(legacy: Path) -> None:
    compare(legacy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "kind", "parameters"), [(1664, "aligned", 42.8e6), (832, "centred", 21.5e6)]
)
def test_the_published_architecture(
    tmp_path: Path, width: int, kind: str, parameters: float
) -> None:
    path = written(tmp_path, "DenseNet169", width, kind)
    compare(path)
    assert DenseDepth(path).parameters == pytest.approx(parameters, rel=0.01)


def test_any_size_and_flip(legacy: Path) -> None:
    network = DenseDepth(legacy)
    image = np.random.default_rng(1).integers(0, 255, (1, 45, 71, 3), np.uint8)
    found = network(image)
    assert found.shape == (1, 23, 36)
    assert found.dtype == np.float32
    assert 0.0999 <= found.min() < found.max() <= 10.0001
    both = network(image, flip=True)
    np.testing.assert_allclose(
        both, (found + network(image[:, :, ::-1])[:, :, ::-1]) / 2, rtol=1e-5
    )
    assert network(image[:, :1, :1]).shape == (1, 1, 1)
    with pytest.raises(ValueError, match="uint8"):
        network(image[0])


def test_torch_loads_after_it(legacy: Path) -> None:
    """TensorFlow and the Triton that torch brings hold an LLVM each, and in the wrong order the
    process is aborted."""
    script = (
        "import pathlib, sys; from vizcomp.depth.densedepth import DenseDepth; "
        "DenseDepth(pathlib.Path(sys.argv[1])); import torch._dynamo"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(legacy)], capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")  # nor does TensorFlow greet


@pytest.mark.parametrize(
    ("size", "wanted"), [("auto", (480, 640)), ("full", (1200, 1600)), ("320x240", (240, 320))]
)
def test_working_sizes(size: str, wanted: tuple[int, int]) -> None:
    assert working_size(1200, 1600, size) == wanted


def test_small_photos_are_not_enlarged_and_large_ones_are_bounded() -> None:
    assert working_size(100, 50, "auto") == (100, 50)
    height, width = working_size(8000, 6000, "full")
    assert height * width <= 1.001 * MOST
    for size in ("", "x", "640", "640x", "10x10", "9000x100", "2000x2000"):
        with pytest.raises(ValueError, match="size"):
            working_size(10, 10, size)


def changed(legacy: Path, folder: Path, change: Callable[[Any, dict[str, Any]], None]) -> Path:
    """A copy of the file; `change` gets the open file and the decoded configuration."""
    path = folder / "changed.h5"
    path.write_bytes(legacy.read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(file, config)
        if "model_config" in file.attrs:
            del file.attrs["model_config"]
            file.attrs["model_config"] = json.dumps(config)
    return path


def registered(_file: Any, config: dict[str, Any]) -> None:
    """As Keras names a class that was registered with it."""
    for one in config["config"]["layers"]:
        if one["class_name"] == "BilinearUpSampling2D":
            one["class_name"] = "densedepth>BilinearUpSampling2D"


def of_keras_3(_file: Any, config: dict[str, Any]) -> None:
    """References as Keras 3 writes them."""
    for one in config["config"]["layers"]:
        for i, node in enumerate(one["inbound_nodes"]):
            given = [
                {
                    "class_name": "__keras_tensor__",
                    "config": {"shape": [], "keras_history": each[:3]},
                }
                for each in node
            ]
            one["inbound_nodes"][i] = {
                "args": [given if len(given) > 1 else given[0]],
                "kwargs": {},
            }
    for ends in ("input_layers", "output_layers"):
        config["config"][ends] = config["config"][ends][0]


def nested(file: Any, config: dict[str, Any]) -> None:
    """The whole network as one layer of another; its arrays in one group, trainable ones first, in
    two lists of names."""
    group = file["model_weights"]
    names = []
    for name in group.attrs["layer_names"]:
        names += [(name, n) for n in group[name].attrs["weight_names"]]
    names.sort(key=lambda pair: "moving" in pair[1])
    inner = group.create_group("inner")
    for name, one in names:
        inner[one] = group[name][one][()]
    inner.attrs["weight_names0"] = [n for _, n in names[:100]]
    inner.attrs["weight_names1"] = [n for _, n in names[100:]]
    group.attrs["layer_names"] = ["photo", "inner"]
    group.create_group("photo")
    whole = {
        **config,
        "class_name": "Model",
        "inbound_nodes": [[["photo", 0, 0, {}]]],
        "name": "inner",
    }
    whole["config"] = {**config["config"], "name": "inner"}
    config["config"] = {
        "name": "outer",
        "layers": [
            {"class_name": "InputLayer", "config": {"name": "photo"}, "inbound_nodes": []},
            whole,
        ],
        "input_layers": [["photo", 0, 0]],
        "output_layers": [["inner", 0, 0]],
    }


@pytest.mark.parametrize("change", [registered, of_keras_3, nested])
def test_other_forms_of_the_same_network(
    legacy: Path, tmp_path: Path, change: Callable[[Any, dict[str, Any]], None]
) -> None:
    path = changed(legacy, tmp_path, change)
    check_file(path)
    path.with_name("answers.npz").write_bytes(legacy.with_name("answers.npz").read_bytes())
    compare(path)


def nested_lambda(file: Any, config: dict[str, Any]) -> None:
    to_lambda(file, config)
    nested(file, config)


def layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in config["config"]["layers"] if one["config"]["name"] == name)


def to_lambda(_file: Any, config: dict[str, Any]) -> None:
    layer(config, "up1_upsampling2d")["class_name"] = "Lambda"


def other_width(_file: Any, config: dict[str, Any]) -> None:
    layer(config, "up2_convA")["config"]["filters"] = 20


def other_activation(_file: Any, config: dict[str, Any]) -> None:
    layer(config, "conv3")["config"]["activation"] = "exec"


def no_weights(file: Any, _config: dict[str, Any]) -> None:
    del file["model_weights"]["conv3"]


def no_config(file: Any, _config: dict[str, Any]) -> None:
    del file.attrs["model_config"]


def two_channels(_file: Any, config: dict[str, Any]) -> None:
    layer(config, "conv3")["config"]["filters"] = 2


def ends_early(_file: Any, config: dict[str, Any]) -> None:
    config["config"]["output_layers"] = [["conv2", 0, 0]]


def sequential(_file: Any, config: dict[str, Any]) -> None:
    config["class_name"] = "Sequential"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (to_lambda, "is a Lambda, which is no part of DenseDepth"),
        (nested_lambda, "is a Lambda, which is no part of DenseDepth"),
        (other_width, "expected"),
        (other_activation, "activation 'exec'"),
        (no_weights, "cut off or damaged"),
        (no_config, "no model_config"),
        (two_channels, "answers 2 channels"),
        (ends_early, "channels"),
        (sequential, "holds a Sequential"),
    ],
)
def test_other_files_are_refused(
    legacy: Path, tmp_path: Path, change: Callable[[Any, dict[str, Any]], None], why: str
) -> None:
    with pytest.raises(ModelError, match=why):
        DenseDepth(changed(legacy, tmp_path, change))


def test_no_hdf5_and_cut_off(legacy: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    for content, why in (
        (b"", "not HDF5"),
        (b"<html>", "begin with b'<html>'"),
        (legacy.read_bytes()[:400_000], "cut off"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=why):
            DenseDepth(path)
    with pytest.raises(ModelError, match="No such file"):
        DenseDepth(tmp_path / "absent.h5")


def test_the_commands_use_it(legacy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image
    from typer.testing import CliRunner

    from vizcomp.cli import app
    from vizcomp.errors import SettingsError, WeightsMissingError
    from vizcomp.weights import cache

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments))

    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    photo = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (50, 70, 3), np.uint8)).save(photo)
    model = str(legacy)
    assert (
        run(
            "depth", str(photo), "-o", str(tmp_path / "near"), "--model", model, "-j", "1"
        ).exit_code
        == 0
    )
    assert (
        run(
            "depth",
            str(photo),
            "-o",
            str(tmp_path / "far"),
            "--model",
            f"{model}:flip",
            "--metric",
            "-j",
            "1",
        ).exit_code
        == 0
    )
    near = np.asarray(Image.open(tmp_path / "near" / "a.depth.png")).astype(float)
    far = np.asarray(Image.open(tmp_path / "far" / "a.depth.png")).astype(float)
    assert near.shape == far.shape == (50, 70)
    assert np.ptp(near) > 10_000
    assert 100 <= far.min() < far.max() <= 10_000
    assert np.corrcoef(near.ravel(), far.ravel())[0, 1] < -0.5
    made = run(
        "djpeg",
        str(photo),
        "-o",
        str(tmp_path / "out"),
        "--depth-model",
        f"{model}:size=64x64",
        "-j",
        "1",
    )
    assert made.exit_code == 0
    assert (tmp_path / "out" / "a.jpg").is_file()
    for wrong in (
        ["--model", "compact", "--metric"],
        ["--model", "compact:flip"],
        ["--model", f"{model}:size=big"],
    ):
        assert isinstance(
            run("depth", str(photo), "-o", str(tmp_path / "x"), *wrong).exception, SettingsError
        )
    mistyped = run(
        "depth", str(photo), "-o", str(tmp_path / "x"), "--model", f"{model}:flop"
    ).exception
    assert isinstance(mistyped, SettingsError)
    assert mistyped.hint == "did you mean flip?"
    offline = run("depth", str(photo), "-o", str(tmp_path / "x"), "--model", "nyu", "--offline")
    assert isinstance(offline.exception, WeightsMissingError)
    # one's own training has another size than the published file
    added = run("weights", "add", "nyu", model)
    assert added.exit_code == 0
    assert "not the published file" in added.output
    assert cache.recorded("nyu")["source"] == "added by hand, of another size"
    assert (
        run(
            "depth", str(photo), "-o", str(tmp_path / "y"), "--model", "nyu", "--offline", "-j", "1"
        ).exit_code
        == 0
    )
