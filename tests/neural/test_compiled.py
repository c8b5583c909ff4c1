"""The compiled layers give what ONNX Runtime gives, for every layout that they support."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from vizcomp import _native
from vizcomp.graphs.recurrent import PRESETS, RecurrentConfig, Weights, shapes
from vizcomp.neural.compiled import PARTS, CompiledNetwork, supports
from vizcomp.neural.network import Network, picked, put_state

SMALL = RecurrentConfig(
    stem=(16, 4),
    encoder=((16, 2, 1), (24, 2, 1)),
    decoder=((32, 2, 1), (64, 2, 1), (16, 4, 1)),
    bits=(6, 18, 32),
    shared=False,
    residual_scaling=True,
    sees="both",
)
KINDS = {
    "both": SMALL,
    "residual": dataclasses.replace(SMALL, sees="residual", residual_scaling=False),
    "shared": dataclasses.replace(SMALL, bits=(8, 8, 8), shared=True),
    "one-shot": dataclasses.replace(SMALL, reconstruction="one-shot"),
    "told, without a step down": dataclasses.replace(
        SMALL,
        encoder=((16, 2, 1), (24, 1, 1)),
        decoder=((32, 2, 1), (32, 4, 1)),
        given=5,
    ),
}
here = pytest.mark.skipif(not _native.layers_possible(), reason="a processor without AVX2")


def weights_of(config: RecurrentConfig) -> Weights:
    generator = np.random.default_rng(1)
    made = {}
    for name, shape in shapes(config).items():
        spread = 1 / np.sqrt(max(1, np.prod(shape[1:]))) if len(shape) > 1 else 0.3
        made[name] = (generator.standard_normal(shape) * spread).astype(np.float32)
    return made


@here
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_each_step_gives_what_onnx_runtime_gives(kind: str, threads: int) -> None:
    config = KINDS[kind]
    assert supports(config)
    weights = weights_of(config)
    ours = CompiledNetwork(config, weights, threads=threads)
    theirs = Network(config, weights, threads=1)
    generator = np.random.default_rng(2)
    # grids that are no multiple of a tile, larger and smaller than what is worked on together
    for count, rows, columns in ((1, 1, 1), (3, 5, 7), (1, 14, 9)):
        side = config.block
        source = generator.uniform(-1, 1, (count, 3, rows * side, columns * side))
        source = source.astype(np.float32)
        given = generator.standard_normal((count, config.given)).astype(np.float32)
        a, b = (net.start(count, rows * side, columns * side) for net in (ours, theirs))
        for _ in range(config.iterations):
            told = given if config.given else None
            x, ours_encoder = ours.analyse(ours.prepared(source), a, told)
            y, their_encoder = theirs.analyse(source, b, told)
            assert x.shape == y.shape
            assert np.abs(x - y).max() < 2e-4
            bits = y > 0
            a = ours.synthesise(bits, a)._replace(encoder=ours_encoder)
            b = theirs.synthesise(bits, b)._replace(encoder=their_encoder)
            assert np.abs(ours.picture(a) - theirs.picture(b)).max() < 2e-4
            for one, other in zip(ours.in_torch_order(a).decoder, b.decoder, strict=True):
                assert np.abs(one - other).max() < 1e-4


@here
def test_a_layer_is_the_same_in_parts() -> None:
    network = CompiledNetwork(SMALL, weights_of(SMALL), threads=1)
    generator = np.random.default_rng(3)
    for part in ("encoder", "decoder"):
        layer = network.layers(part)[0]
        grid = (2, 9, 11)
        x = generator.standard_normal((2, 9 * layer.down, 11 * layer.down, layer.ins))
        x = x.astype(np.float32)
        state = generator.standard_normal((2, *grid, layer.channels)).astype(np.float32)
        sizes = (*grid, layer.ins, layer.channels, layer.up, layer.down, layer.gates)
        whole = np.zeros((2, *grid, layer.channels), np.float32)
        cut = np.zeros_like(whole)
        tail = (x, layer.kernel, layer.hidden, layer.bias, state[0], state[1])
        parts = _native.layer_parts(sizes)
        assert parts < PARTS * 2
        _native.layer_run(sizes, 0, parts, *tail, whole[0], whole[1])
        for first, last in pairwise((0, 1, 4, parts - 1, parts)):
            _native.layer_run(sizes, first, last, *tail, cut[0], cut[1])
        assert (whole == cut).all()


@here
def test_an_image_does_not_depend_on_its_company() -> None:
    network = CompiledNetwork(SMALL, weights_of(SMALL), threads=1)
    bits = np.random.default_rng(4).random((4, SMALL.bits[0], 3, 5)) < 0.5
    together = network.synthesise(bits, network.start(4, 48, 80))
    for index in range(4):
        alone = network.synthesise(bits[index : index + 1], network.start(1, 48, 80))
        assert (alone.image[0] == together.image[index]).all()
    some = picked(together, np.array([2, 2, 0]))
    assert (some.image[1] == together.image[2]).all()
    back = put_state(together, np.array([1]), picked(together, np.array([3])))
    assert (back.decoder[0][1] == together.decoder[0][3]).all()


@here
def test_it_goes_to_other_processes() -> None:
    network = CompiledNetwork(SMALL, weights_of(SMALL), threads=1)
    network.layers("decoder")
    again = pickle.loads(pickle.dumps(network))
    bits = np.ones((1, SMALL.bits[0], 2, 2), bool)
    start = network.start(1, 32, 32)
    assert (again.synthesise(bits, start).image == network.synthesise(bits, start).image).all()


def test_other_networks_are_left_to_onnx_runtime() -> None:
    assert not supports(PRESETS["published"])
    for change in (
        {"stem": (20, 4)},
        {"encoder": ((16, 2, 3), (24, 2, 1))},
        {"decoder": ((32, 2, 1), (36, 2, 1), (16, 4, 1))},
        {"decoder": ((32, 2, 1), (64, 2, 3), (16, 4, 1))},
    ):
        assert not supports(dataclasses.replace(SMALL, **change))


@here
def test_the_loops_refuse_what_does_not_fit() -> None:
    layer = CompiledNetwork(SMALL, weights_of(SMALL), threads=1).layers("decoder")[1]
    grid = (1, 4, 6)
    sizes = (*grid, layer.ins, layer.channels, layer.up, 1, 1)
    x = np.zeros((1, 2, 3, layer.up**2 * layer.ins), np.float32)
    out = np.zeros((2, *grid, layer.channels), np.float32)

    def run(sizes: tuple[int, ...] = sizes, first: int = 0, last: int = 2, **other: object) -> None:
        arrays = {
            "x": x,
            "kernel": layer.kernel,
            "hidden": layer.hidden,
            "bias": layer.bias,
            "h": None,
            "c": None,
            "new_h": out[0],
            "new_c": out[1],
        } | other
        _native.layer_run(sizes, first, last, *arrays.values())

    run()
    for bad in (
        {"sizes": (0, *sizes[1:])},
        {"sizes": (1, 3, *sizes[2:])},  # no depth to space makes three rows
        {"sizes": (*sizes[:3], 7, *sizes[4:])},
        {"sizes": (2**31 - 1, 65536, 65536, *sizes[3:])},
        {"last": 3},
        {"first": 2, "last": 1},
        {"first": -1},
        {"x": x[:, :1]},
        {"kernel": layer.kernel[:1]},
        {"h": out[0]},
        {"h": out[0], "c": out[0], "hidden": None},
        {"new_c": None},
    ):
        with pytest.raises(ValueError, match=r"layer|wanted"):
            run(**bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        run(x=x.astype(np.float64))
    image = np.zeros((1, 3, 16, 16), np.float32)
    for size in ((0, 16, 16, 4), (1, 12, 16, 4), (1, 16, 16, 3), (1, 16, 24, 4)):
        with pytest.raises(ValueError):  # noqa: PT011
            _native.picture_improve(*size, 1.0, image, None, image.copy())
    with pytest.raises(ValueError, match="points"):
        _native.points(1, 4, 17, 0, x, x, x, x.copy())


@here
def test_gates_are_exact_at_their_ends() -> None:
    # one input of any size through a single 1x1 convolution: tanh of it
    values = np.array([-1e30, -50, -9, -1, -1e-3, 0, 1e-3, 0.3, 2, 9, 50, 1e30], np.float32)
    kernel = np.zeros((1, 1, 16), np.float32)
    kernel[..., 0] = 1
    out = np.empty((len(values), 16), np.float32)
    _native.points(len(values), 1, 16, 1, values, kernel, np.zeros(16, np.float32), out)
    assert np.abs(out[:, 0] - np.tanh(values.astype(np.float64))).max() < 3e-7
    assert not out[:, 1:].any()
    # and what is no number stays none
    odd = np.array([struct.unpack("<f", b"\0\0\xc0\x7f")[0]], np.float32)
    _native.points(1, 1, 16, 0, odd, kernel, np.zeros(16, np.float32), out[:1])
    assert np.isnan(out[0, 0])


@here
def test_a_photo_is_coded_without_onnx_runtime_or_vision_systems() -> None:
    code = """
import sys
import numpy as np
import vizcomp.batch.encode
from vizcomp.neural.codec import NeuralCodec
codec = NeuralCodec.load("photo", threads=1)
codec.decode(codec.encode(np.zeros((16, 16, 3), np.uint8), iterations=2))
heavy = ("torch", "onnxruntime", "vizcomp.vision", "vizcomp.djpeg")
light = {"vizcomp.vision", "vizcomp.vision.one_answer"}  # which counts answers, and asks nobody
print([name for name in sys.modules if name.startswith(heavy) and name not in light])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
