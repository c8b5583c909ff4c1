"""Graphs made of weights: valid ONNX files that give what the torch modules give, step by step and
as a whole."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from kit import picture

from vizcomp.errors import ModelError
from vizcomp.graphs import classifiers as files
from vizcomp.graphs.onnx_file import Graph
from vizcomp.graphs.recurrent import (
    PRESETS,
    RecurrentConfig,
    shapes,
    step_graph,
)
from vizcomp.graphs.unrolled import recurrent_decoder, recurrent_encoder
from vizcomp.nets import classifiers
from vizcomp.nets.recurrent import RecurrentCodec
from vizcomp.neural.arrays import to_pixels, to_planes
from vizcomp.neural.network import Network
from vizcomp.weights.sessions import open_session
from vizcomp.weights.state_dict import read_state_dict

LAYERS: dict[str, Any] = {
    "stem": (8, 2),
    "encoder": ((8, 2, 1), (12, 2, 1)),
    "decoder": ((12, 2, 1), (8, 2, 3), (8, 2, 3)),
}
CONFIGS = {
    "as published": RecurrentConfig(**LAYERS, bits=(4, 4, 4)),
    "one binarizer each": RecurrentConfig(
        **LAYERS, bits=(3, 4, 5), shared=False, sees="both", reconstruction="one-shot"
    ),
    "gain": RecurrentConfig(**LAYERS, bits=(4, 4, 4), residual_scaling=True),
    "told": RecurrentConfig(
        stem=(8, 4),
        encoder=((8, 2, 3), (6, 1, 1)),
        decoder=((8, 2, 1), (8, 4, 1)),
        bits=(2, 3),
        shared=False,
        sees="both",
        given=5,
    ),
    "narrow": RecurrentConfig(
        width=0.3,
        stem=(9, 4),
        encoder=((20, 2, 1),),
        decoder=((24, 2, 1), (15, 4, 5)),
        bits=(2, 2, 2),
    ),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def codec(config: RecurrentConfig) -> tuple[RecurrentCodec, dict[str, np.ndarray]]:
    torch.manual_seed(1)
    network = RecurrentCodec(config).eval().requires_grad_(False)
    return network, {name: value.numpy() for name, value in network.state_dict().items()}


def images(config: RecurrentConfig, count: int = 2) -> np.ndarray:
    side = 3 * config.block
    return np.stack([picture(seed, 2 * side, side) for seed in range(count)])


def test_a_file_says_what_was_put_in() -> None:
    graph = Graph("small")
    x = graph.input("x", "float32", ("n", 3))
    weight = graph.constant([[1, 2], [3, 4], [5, 6]], name="weight")
    left, right = graph.nodes("Split", graph.node("Gemm", x, weight, alpha=0.5), outputs=2, axis=-1)
    graph.output(graph.node("Concat", right, left, axis=1), "y", "float32", ("n", 2))
    data = graph.to_bytes({"name": "ü", "long": "x" * 300})
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props} == {"name": "ü", "long": "x" * 300}
    assert [
        d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim
    ] == ["n", 3]
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).tolist() == [
        [1, 2],
        [3, 4],
        [5, 6],
    ]
    found = open_session(data).run(["y"], {"x": np.array([[1, 1, 1], [0, 0, 2]], np.float32)})[0]
    assert found.tolist() == [[6, 4.5], [6, 5]]
    assert open_session(data).get_modelmeta().custom_metadata_map == {
        "name": "ü",
        "long": "x" * 300,
    }


@each_config
def test_names_and_shapes_are_the_module_s(config: RecurrentConfig) -> None:
    _, weights = codec(config)
    assert {name: value.shape for name, value in weights.items()} == shapes(config)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_module_s_shapes_too(name: str) -> None:
    with torch.device("meta"):
        state = RecurrentCodec(PRESETS[name]).state_dict()
    assert {n: tuple(v.shape) for n, v in state.items()} == shapes(PRESETS[name])


@each_config
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_steps_are_valid(config: RecurrentConfig, part: str) -> None:
    _, weights = codec(config)
    for first in (True, False):
        onnx.checker.check_model(
            onnx.load_from_string(step_graph(config, weights, part, first=first))
        )


@each_config
def test_each_step_gives_what_torch_gives(config: RecurrentConfig) -> None:
    module, weights = codec(config)
    network = Network(config, weights, threads=1)
    # a spread is a small difference of large numbers
    near = 1e-4 if config.residual_scaling else 2e-6
    source = to_planes(images(config))
    given = (
        np.random.default_rng(0).normal(size=(len(source), config.given)).astype(np.float32)
        if config.given
        else None
    )
    state = network.start(len(source), *source.shape[2:])
    with torch.no_grad():
        theirs = module.start((len(source), *source.shape[2:]))
        for _ in range(config.iterations):
            told = None if given is None else torch.from_numpy(given)
            values, encoder = network.analyse(source, state, given)
            wanted, after = module.analyse(torch.from_numpy(source), theirs, told)
            np.testing.assert_allclose(values, wanted.numpy(), atol=near)
            bits = wanted.numpy() > 0
            state = network.synthesise(bits, state)._replace(encoder=encoder)
            theirs = module.synthesise((wanted > 0) * 2.0 - 1.0, theirs)._replace(encoder=after)
            np.testing.assert_allclose(state.image, theirs.image.numpy(), atol=near)
            pairs = [
                each
                for pair in (*theirs.encoder, *theirs.decoder)
                if pair is not None
                for each in pair
            ]
            for one, other in zip((*state.encoder, *state.decoder), pairs, strict=True):
                np.testing.assert_allclose(one, other.numpy(), atol=near)


def test_an_image_does_not_depend_on_its_company() -> None:
    config = CONFIGS["told"]
    network = Network(config, codec(config)[1], threads=1)
    source = to_planes(images(config, 5))
    state = network.start(5, *source.shape[2:])
    values, _ = network.analyse(source, state)
    for i in range(5):
        alone, _ = network.analyse(source[i : i + 1], network.start(1, *source.shape[2:]))
        np.testing.assert_array_equal(alone[0], values[i])


@each_config
def test_all_iterations_in_one_file(config: RecurrentConfig) -> None:
    weights = codec(config)[1]
    network = Network(config, weights, threads=1)
    pictures = images(config)
    source = to_planes(pictures)
    given = (
        np.random.default_rng(0).normal(size=(len(source), config.given)).astype(np.float32)
        if config.given
        else None
    )
    state, codes = network.start(len(source), *source.shape[2:]), []
    for _ in range(config.iterations):
        values, encoder = network.analyse(source, state, given)
        codes.append(values > 0)
        state = network.synthesise(values > 0, state)._replace(encoder=encoder)
    encoder_file = recurrent_encoder(config, weights, config.iterations, {})
    decoder_file = recurrent_decoder(config, weights, config.iterations, {})
    for data in (encoder_file, decoder_file):
        onnx.checker.check_model(onnx.load_from_string(data))
    inputs = {"pixels": pictures} | ({} if given is None else {"given": given})
    bits = open_session(encoder_file).run(None, inputs)
    for found, wanted in zip(bits, codes, strict=True):
        assert (found != np.where(wanted, 1, -1)).mean() < 0.002
    image, pixels = open_session(decoder_file).run(
        ["image", "pixels"],
        {f"bits{t + 1}": np.where(c, 1, -1).astype(np.float32) for t, c in enumerate(codes)},
    )
    np.testing.assert_allclose(image, state.image, atol=1e-4 if config.residual_scaling else 2e-6)
    assert np.abs(pixels.astype(int) - to_pixels(state.image)).max() <= 1


def test_levels_are_those_of_the_networks() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(to_pixels(to_planes(every)), every)
    assert to_pixels(np.full((1, 3, 1, 1), 7.5, np.float32)).max() == 255
    assert to_pixels(np.full((1, 3, 1, 1), -7.5, np.float32)).max() == 0


SMALL = {
    "inception": {"width": 0.1, "blocks": (1, 1, 1), "classes": 7},
    "inception-full": {"width": 0.1, "classes": 3, "pool": 1},
    "watcher": {"channels": (8, 12, 16), "classes": 5},
    "whitened": {"channels": (24, 26, 28), "classes": 4},
}


def trained(architecture: str) -> classifiers.Network:
    """Fresh weights, with statistics that matter, some factors below zero."""
    generator = torch.Generator().manual_seed(3)
    network = classifiers.build(architecture, SMALL[architecture]).eval()
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", ".bias")):
            value.normal_(0, 0.2, generator=generator)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim == 1 and name.endswith("weight"):
            value.uniform_(-0.5, 1.5, generator=generator)
    return network.requires_grad_(False)


@pytest.mark.parametrize("architecture", SMALL)
def test_classifiers_give_what_torch_gives(architecture: str, tmp_path: Path) -> None:
    network = trained(architecture)
    path = tmp_path / "model.safetensors"
    classes = tuple("abcdefg"[: network.config.classes])
    classifiers.save(path, architecture, network, classes, {}, half=False)
    file = files.read(path)
    onnx.checker.check_model(onnx.load_from_string(files.graph(file)))
    found = files.Classifier(file)
    pictures = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        wanted = classifiers.Classifier(network).eval()(x).numpy()
    np.testing.assert_allclose(
        found.logits(pictures), wanted, atol=1e-4 * np.abs(wanted).max(), rtol=1e-4
    )
    assert found.classes == classes
    again = classifiers.load(path)
    with torch.no_grad():
        np.testing.assert_allclose(
            again(x).numpy(), wanted, atol=1e-5 * np.abs(wanted).max(), rtol=1e-4
        )


@pytest.mark.parametrize("name", files.BUNDLED)
def test_the_bundled_classifiers_give_what_torch_gives(name: str, cat: np.ndarray) -> None:
    places = itertools.product(range(0, 256, 32), range(0, 400, 32))
    pictures = np.stack([cat[y : y + 32, x : x + 32] for y, x in places])
    found = files.Classifier.load(name)
    with torch.no_grad():
        wanted = classifiers.load(name)(
            torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
        ).numpy()
    np.testing.assert_allclose(found.logits(pictures), wanted, atol=1e-4)
    assert found.mirrors == (name == "inception")


@pytest.mark.parametrize("name", files.BUNDLED)
def test_where_a_classifier_looks_is_its_gradient(name: str, cat: np.ndarray) -> None:
    """Grad-CAM by torch, after the last block."""
    picture = cat[60:92, 100:132]
    module = classifiers.load(name)
    network: Any = module.network
    kept: list[torch.Tensor] = []
    blocks = [each for _, each in network.named_children() if not isinstance(each, torch.nn.Linear)]
    blocks[-1].register_forward_hook(
        lambda _m, _i, out: kept.append(out.detach().requires_grad_()) or kept[-1]
    )
    with torch.enable_grad():
        logits = module(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255)
        logits[0, int(logits.argmax())].backward()
    assert kept[0].grad is not None
    heat = (
        (kept[0].grad[0].mean((1, 2), keepdim=True) * kept[0][0])
        .sum(0)
        .clamp_min(0)
        .detach()
        .numpy()
    )
    found = files.Classifier.load(name).importance(picture)
    np.testing.assert_allclose(found / found.max(), heat / heat.max(), atol=1e-4)


def test_a_session_opens_again_after_a_fork() -> None:
    """Its threads do not come along, and its end would wait for them."""
    import multiprocessing

    found = files.Classifier.load("watcher", threads=2)
    pictures = np.stack([picture(seed) for seed in range(40)])
    before = found.logits(pictures)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(found.logits(pictures)))
    process.start()
    assert ours.poll(60)
    np.testing.assert_allclose(ours.recv(), before, atol=1e-5)
    process.join(10)
    assert process.exitcode == 0
    assert np.array_equal(found.logits(pictures), before)


# --- state dicts of torch
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_of_both_forms(tmp_path: Path, zipped: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(40, 30, generator=generator)
    state = {
        "a": large,
        "half": large[:3].half(),
        "view": large[5:9, 3:20].t(),  # an offset, and strides of another order
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(large[:2].clone()),
        "flags": torch.tensor([True, False]),
    }
    path = tmp_path / "a.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = read_state_dict(path, "")
    assert list(found) == list(state)
    for name, value in state.items():
        assert np.array_equal(found[name], value.detach().numpy()), name
        assert found[name].dtype == value.detach().numpy().dtype
    module = torch.nn.Linear(2, 3)
    torch.save(
        {"epoch": 3, "state_dict": module.state_dict()}, path, _use_new_zipfile_serialization=zipped
    )
    assert np.array_equal(read_state_dict(path, "")["weight"], module.weight.detach().numpy())


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_state_dicts_are_model_errors(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(200.0)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    said = []
    for k in range(200):
        changed = bytearray(data[: len(data) if k % 2 else int(rng.integers(0, len(data)))])
        for _ in range(int(rng.integers(k % 2, 4))):
            if changed:
                changed[int(rng.integers(0, len(changed)))] = int(rng.integers(0, 256))
        path.write_bytes(bytes(changed))
        try:
            read_state_dict(path, "")
        except ModelError as exc:
            said.append(exc.message)
    assert len(said) > 50
    assert not any("\n" in message for message in said)


def test_a_tensor_that_claims_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    # strides of 0
    for tensor in (torch.zeros(1).expand(1 << 40), torch.zeros(1).expand(3000, 3000)):
        torch.save({"a": tensor}, path)
        with pytest.raises(ModelError, match="ends too early"):
            read_state_dict(path, "")
