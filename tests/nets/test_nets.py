"""The networks of the codec and of the classifiers: shapes, counts, options, files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from vizcomp.errors import ModelError, SettingsError
from vizcomp.graphs.architectures import DOUBT, InceptionConfig, WhitenedConfig
from vizcomp.graphs.recurrent import PRESETS, RecurrentConfig
from vizcomp.nets import classifiers, inception
from vizcomp.nets.inception import ConvNormReLU, Inception
from vizcomp.nets.recurrent import RecurrentCodec, binarize
from vizcomp.nets.whitened import Whitened

SMALL = RecurrentConfig(
    stem=(8, 4),
    encoder=((8, 2, 1),),
    decoder=((8, 2, 1), (8, 4, 1)),
    bits=(2, 3, 4),
    shared=False,
    sees="both",
)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_full_inception_has_the_published_size_and_names() -> None:
    network = Inception()
    assert parameters(network) == 21_638_954  # 21.64 M, anchors of the published CIFAR-10 weights
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (192, 3, 3, 3)
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_6c.branch7x7dbl_3.conv.weight"] == (160, 160, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)
    assert shapes["fc.weight"] == (10, 2048)


def test_published_codec_has_the_published_size() -> None:
    assert parameters(RecurrentCodec(PRESETS["published"])) == 35_468_163  # 35.5 M


@pytest.mark.parametrize("side", [32, 40, 64])
def test_small_classifiers_take_images_of_several_sizes(side: int) -> None:
    for name in ("inception", "watcher", "whitened"):
        network = classifiers.Classifier(classifiers.build(name, {"classes": 7})).eval()
        assert network(torch.rand(2, 3, side, side)).shape == (2, 7)


def test_the_first_layer_whitens_patches() -> None:
    torch.manual_seed(0)
    # neighbours alike, as in photos
    images = 10 * torch.nn.functional.avg_pool2d(torch.randn(400, 3, 36, 36), 5, 1)
    network = Whitened(WhitenedConfig(classes=3))
    network.prepare(images)
    with torch.no_grad():
        seen = network.patches(images).transpose(0, 1).flatten(1)  # (24, N)
    torch.testing.assert_close(torch.cov(seen[:12]), torch.eye(12), atol=0.06, rtol=0)
    assert torch.equal(seen[:12], -seen[12:])
    with pytest.raises(SettingsError):
        WhitenedConfig(channels=(8, 256, 256))


def test_the_mirror_image_is_asked_in_doubt_only() -> None:
    network = classifiers.load("inception").network
    assert network.config.mirror
    generator = torch.Generator().manual_seed(0)
    blots = torch.nn.functional.interpolate(
        torch.randn(96, 3, 3, 3, generator=generator), size=32, mode="bicubic"
    )
    seen = 1.5 * blots
    with torch.inference_mode():
        found = network(seen)
        one, other = network.fc(network.features(seen)), network.fc(network.features(seen.flip(3)))
        alone = torch.cat([network(x[None]) for x in seen])
    first, second = one.topk(2, 1).values.T
    unsure = first - second < DOUBT
    assert 8 <= int(unsure.sum()) <= 88
    torch.testing.assert_close(found[~unsure], one[~unsure], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[unsure], ((one + other) / 2)[unsure], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone, found, atol=1e-4, rtol=1e-4)
    learned = seen.clone().requires_grad_(True)
    network(learned).sum().backward()
    assert learned.grad is not None
    assert bool((learned.grad.abs().sum((1, 2, 3)) > 0).all())


def test_pooling_after_the_convolution_is_pooling_before_it() -> None:
    torch.manual_seed(0)
    layer = ConvNormReLU(6, 5, 1).eval()
    x = torch.randn(2, 6, 9, 9)
    before = layer.bn(layer.conv(torch.nn.functional.avg_pool2d(x, 3, 1, 1)))
    torch.testing.assert_close(layer.pooled(x), before, atol=1e-5, rtol=1e-5)


def test_binarizer_gives_signs_and_lets_gradients_through() -> None:
    x = torch.tensor([-0.9, -0.1, 0.2, 1.0], requires_grad=True)
    bits = binarize(x)
    assert bits.tolist() == [-1, -1, 1, 1]
    bits.mul(torch.arange(4.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 2, 3]
    torch.manual_seed(0)
    drawn = binarize(torch.full((10_000,), 0.5), stochastic=True)
    assert set(drawn.tolist()) == {-1.0, 1.0}
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reconstruction": "one-shot"},
        {"residual_scaling": True},
        {"sees": "residual"},
        {"shared": True, "bits": (4, 4, 4)},
        {"given": 5},
        {"decoder": ((8, 2, 3), (16, 2, 3), (16, 2, 1))},
    ],
)
def test_options_train_and_decode_as_they_encode(changes: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    network = RecurrentCodec(config)
    source = torch.rand(2, 3, 24, 16) * 2 - 1
    given = torch.rand(2, config.given) if config.given else None
    images, codes = network(source, 3, given=given, stochastic=True)
    assert [tuple(c.shape) for c in codes] == [(2, b, 3, 2) for b in config.bits]
    sum(image.square().mean() for image in images).backward()
    assert all(p.grad is not None for n, p in network.named_parameters() if p.requires_grad)
    for many in (1, 3):
        torch.testing.assert_close(
            network.decode(codes[:many]), images[many - 1], atol=1e-5, rtol=1e-5
        )


def test_iterations_carry_state() -> None:
    torch.manual_seed(0)
    network = RecurrentCodec(SMALL)
    _, codes = network(torch.rand(1, 3, 16, 16) * 2 - 1, 2)
    other = [-codes[0], codes[1]]
    assert not torch.equal(network.decode(codes), network.decode(other))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_configuration_survives_json(name: str) -> None:
    config = PRESETS[name]
    assert RecurrentConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert RecurrentConfig.from_dict({"preset": name, "width": 0.5}).width == 0.5


@pytest.mark.parametrize(
    "values",
    [
        {"width": 1e9},
        {"bits": [0]},
        {"bits": [1] * 65},
        {"bits": [1, 2]},  # shared by default
        {"encoder": [[4, 3, 1]]},
        {"decoder": [[64, 2, 1]]},
        {"reconstruction": "twice"},
        {"preset": "none"},
        {"colour": 1},
        {"stem": 5},
        {"given": -1},
    ],
)
def test_impossible_codecs_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        RecurrentConfig.from_dict(values)


def test_classifier_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = classifiers.build("watcher", {"channels": [4, 6, 8], "classes": 3}).eval()
    path = tmp_path / "model.safetensors"
    classifiers.save(path, "watcher", network, ("a", "b", "c"), {"licence": "MIT"}, half=False)
    loaded = classifiers.load(path)
    assert loaded.classes == ("a", "b", "c")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), classifiers.Classifier(network).eval()(x))
    assert not any(p.requires_grad for p in loaded.parameters())

    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match="cannot be read"):
        classifiers.load(path)
    with pytest.raises(ModelError, match="is not there"):
        classifiers.load(tmp_path / "none.safetensors")
    classifiers.save(path, "watcher", network, (), {})
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    save_file(tensors, path, metadata={"vizcomp": json.dumps({"kind": "codec"})})
    with pytest.raises(ModelError, match="no classifier"):
        classifiers.load(path)
    words = {
        "kind": "classifier",
        "architecture": "watcher",
        "network": {"channels": [4, 6, 1e9], "classes": 3},
    }
    save_file(tensors, path, metadata={"vizcomp": json.dumps(words)})
    with pytest.raises(SettingsError, match="channels"):  # refused before memory is taken
        classifiers.load(path)
    tensors.pop("fc.weight")
    words["network"] = {"channels": [4, 6, 8], "classes": 3}
    save_file(tensors, path, metadata={"vizcomp": json.dumps(words)})
    with pytest.raises(ModelError, match="do not fit"):
        classifiers.load(path)


def test_absurd_inceptions_are_refused() -> None:
    for values in ({"width": 1e9}, {"pool": 3}, {"blocks": (9, 9, 9)}, {"classes": 1}):
        with pytest.raises(SettingsError):
            InceptionConfig(**values)
    with pytest.raises(SettingsError, match="unknown architecture"):
        classifiers.build("vgg")
    with pytest.raises(SettingsError, match="does not fit"):
        classifiers.build("inception", {"colour": 1})


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("shape", [(32, 32), (16, 15), (7, 8), (3, 3)])
def test_maximum_by_slices_is_the_maximum(kernel: int, shape: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *shape, requires_grad=True)
    wanted = torch.nn.functional.max_pool2d(x, kernel, 2)
    with torch.no_grad():
        assert torch.equal(inception.max_pool(x, kernel), wanted)
    assert inception.max_pool(x, kernel).requires_grad


@pytest.mark.parametrize("name", ["inception", "watcher"])
def test_folding_the_normalisation_changes_nothing(name: str) -> None:
    classifier = classifiers.load(name)
    images = torch.rand(4, 3, 32, 32)
    before = classifier(images)
    inception.fold(classifier.network)
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in classifier.modules()) < 8
    assert torch.allclose(classifier(images), before, atol=1e-4)
