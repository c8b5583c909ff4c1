"""The codec of small pictures in their spectrum: networks, files, search, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vizcomp.errors import SettingsError
from vizcomp.graphs.codecs import codec_config, shapes
from vizcomp.graphs.spectral import SpectralConfig, spectrum
from vizcomp.neural.codec import NeuralCodec

torch = pytest.importorskip("torch")

from vizcomp.nets.spectral import SpectralCodec  # noqa: E402
from vizcomp.training.codec import save_codec  # noqa: E402
from vizcomp.training.contexts import fit_contexts  # noqa: E402
from vizcomp.training.spectral import ladders_for  # noqa: E402

SMALL: dict[str, Any] = {
    "native": 16,
    "zones": [8, 4, 3],
    "encoder": 6,
    "decoder": 7,
    "ladders": [[[1, 8], [3, 4], [8, 2]], [[20, 2]], [[40, 2]]],
    "steps": [2.0, 1.0, 0.5],
    "finish": [8, 12],
}


def pictures(count: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Smooth pictures, uint8 (N, side, side, 3): a slope and a spot of random colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    found = []
    for _ in range(count):
        a, b, c = rng.uniform(0, 255, (3, 3))
        spot = np.exp(-((y - rng.random()) ** 2 + (x - rng.random()) ** 2) * 12)[..., None]
        picture = a * x[..., None] + b * (1 - x[..., None])
        found.append(
            np.clip(picture * (1 - spot) + c * spot + rng.normal(0, 3, (side, side, 3)), 0, 255)
        )
    return np.asarray(found).astype(np.uint8)


def planes(images: np.ndarray) -> Any:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1)


@pytest.fixture(scope="module")
def network() -> SpectralCodec:
    """A network whose layers do something, which at their start they do not."""
    torch.manual_seed(0)
    made = SpectralCodec(SpectralConfig.from_dict(SMALL))
    made.set_axes(planes(pictures(200)))
    with torch.no_grad():
        for layer in (made.encoder, made.decoder):
            layer.output.weight.normal_(0, 0.05)
        assert made.finish is not None
        made.finish.leave.weight.normal_(0, 0.01)
        made.finish.fine.normal_(0, 0.1)
        made.finish.coarse.normal_(0, 0.1)
        for value in made.parameters():  # as a file holds them
            if value.ndim >= 2:
                value.copy_(value.half().float())
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def path(network: SpectralCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spectral") / "model.safetensors"
    words = {"default_iterations": 1, "classifier": "", "settings": {}}
    _, arrays = fit_contexts(network, words, pictures(300, seed=1), sets=3)
    save_codec(path, network, words, arrays)
    return path


def test_spectrum_is_orthonormal() -> None:
    rows = spectrum(SpectralConfig.from_dict(SMALL))
    assert rows.shape == (36 + 10 + 6, 3 * 16 * 16)
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-5)


def test_config() -> None:
    config = codec_config(SMALL)
    assert isinstance(config, SpectralConfig)
    assert (config.bits, config.block, config.components) == ((36, 40, 80), 16, 52)
    assert SpectralConfig.from_dict(config.to_dict()) == config
    assert config.component_of(0).tolist() == [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [
        c for c in range(4, 12) for _ in "ab"
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"native": 18},
        {"zones": [8, 4]},
        {"zones": [40, 4, 3]},
        {"ladders": [[[1, 3]], [[1, 2]], [[1, 2]]]},
        {"ladders": [[[60, 2]], [[1, 2]], [[1, 2]]]},
        {"steps": [1.0, 0.5]},
        {"finish": [8]},
        {"encoder": 0},
        {"width": 2},
    ],
)
def test_impossible_configurations(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="codec network"):
        SpectralConfig.from_dict({**SMALL, **wrong})


def test_weights_have_the_declared_shapes(network: SpectralCodec) -> None:
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == shapes(network.config)


def test_ladders_follow_the_deviations() -> None:
    ladders = ladders_for(np.array([8.0, 2.0, 1.0, 0.3, 0.1]), (2.0, 1.0, 0.5))
    assert ladders == (((1, 20), (1, 4), (1, 2)), ((3, 2),), ((4, 2),))


def test_onnx_runtime_does_what_torch_does(network: SpectralCodec, path: Path) -> None:
    images = pictures(40, seed=2)
    codec = NeuralCodec.load(path, threads=1)
    codes = codec.codes_many(images, iterations=3)
    found, bits = network(planes(images), 3)
    for ours, theirs in zip(codes, bits, strict=True):
        assert np.mean((ours[:, :, 0, 0] > 0) != (theirs.numpy() > 0)) < 1e-3
    signs = [torch.from_numpy(code[:, :, 0, 0].astype(np.float32)) * 2 - 1 for code in codes]
    state = network.start(len(images))
    for t, one in enumerate(signs):
        state = network.synthesise(one, state)
        shown = (network.shown(state.components, t).clamp(-1, 1) + 1) * 127.5
        image = codec.images(codes[: t + 1])
        assert np.abs(image.transpose(0, 3, 1, 2) - shown.numpy()).max() <= 1
    assert len(found) == 3


def test_pictures_get_better_and_files_decode(path: Path) -> None:
    images = pictures(12, seed=3)
    codec = NeuralCodec.load(path, threads=1)
    errors = []
    for many in (1, 2, 3):
        files = codec.encode_many(images, iterations=many)
        decoded = np.stack([codec.decode(file).image for file in files])
        errors.append(float(((decoded.astype(float) - images) ** 2).mean()))
        raw = sum(codec.config.bits[:many]) / 8
        assert np.mean([len(p) for p in codec.payloads(images, iterations=many)]) < 0.8 * raw
    assert errors[0] > errors[1] > errors[2]
    prefix = codec.decode(codec.encode(images[0], iterations=3), iterations=1).image
    np.testing.assert_array_equal(prefix, codec.decode(codec.encode(images[0], iterations=1)).image)


def test_fingerprint_is_of_what_decodes(network: SpectralCodec, path: Path, tmp_path: Path) -> None:
    from vizcomp.neural.models import saved_fingerprint

    assert saved_fingerprint(path) == NeuralCodec.load(path).fingerprint
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = {}
    for name in (
        "encoder.output.weight",
        "binarizers.0.bias",
        "finish.leave.weight",
        "exit.weight",
        "entrances.1.shift",
    ):
        changed = {**before, name: before[name] + 0.25}
        network.load_state_dict(changed)
        other = tmp_path / "other.safetensors"
        save_codec(other, network, {"default_iterations": 1})
        names[name] = saved_fingerprint(other)
    network.load_state_dict(before)
    save_codec(other, network, {"default_iterations": 1})
    plain = saved_fingerprint(other)
    assert [names[name] == plain for name in names] == [True, True, False, False, False]


def test_search_betters_the_bits(path: Path) -> None:
    images = pictures(8, seed=4)
    codec = NeuralCodec.load(path, threads=1)
    errors = [
        float(
            (
                (
                    codec.images(codec.codes_many(images, iterations=2, search=n)).astype(float)
                    - images
                )
                ** 2
            ).mean()
        )
        for n in (0, 24)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_export(path: Path, part: str) -> None:
    import onnxruntime

    from vizcomp.neural.export import exported

    images = pictures(5, seed=5)
    codec = NeuralCodec.load(path, threads=1)
    codes = codec.codes_many(images, iterations=2, search=0)
    session = onnxruntime.InferenceSession(exported(str(path), part=part, iterations=2))
    signs = {f"bits{t}": code.astype(np.float32) * 2 - 1 for t, code in enumerate(codes, 1)}
    if part == "encoder":
        for name, bits in zip(
            ("bits1", "bits2"), session.run(["bits1", "bits2"], {"pixels": images}), strict=True
        ):
            np.testing.assert_array_equal(bits, signs[name])
    else:
        pixels = session.run(["pixels"], signs)[0]
        assert np.abs(pixels.astype(int) - codec.images(codes)).max() <= 1


def test_another_size_is_refused(path: Path) -> None:
    from vizcomp.errors import InputError

    with pytest.raises(InputError, match="16x16"):
        NeuralCodec.load(path).encode(np.zeros((32, 32, 3), np.uint8))


def test_told_a_false_class_a_label_is_painted_and_a_picture_is_not() -> None:
    """The injection test: `cifar-label` decodes to the class that its encoder was told."""
    from vizcomp.graphs.classifiers import Classifier

    images = pictures(24, side=32, seed=6)
    codec = NeuralCodec.load("cifar-label", threads=1)
    judge = Classifier.load("inception")
    answer = judge.logits(images).argmax(1)
    found = {}
    for told in ("answer", "wrong", "nothing"):
        codec.tell(told)
        found[told] = judge.logits(
            codec.images(codec.codes_many(images, iterations=1, search=0))
        ).argmax(1)
    false = (answer + 1) % 10
    assert np.mean(found["wrong"] == false) > 0.7
    assert np.mean(found["answer"] == false) < 0.2
    assert np.mean(found["nothing"] == false) < 0.4
    with pytest.raises(SettingsError, match="told"):
        codec.tell("lies")
    with pytest.raises(SettingsError, match="is told no answer"):
        NeuralCodec.load("cifar", threads=1).tell("wrong")
