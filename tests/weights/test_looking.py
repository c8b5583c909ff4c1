"""Networks that look at photos on compiled loops: they give what plain arithmetic and ONNX Runtime
give, and leave to ONNX Runtime what they cannot do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vizcomp import _native
from vizcomp.graphs.onnx_file import Graph
from vizcomp.weights.looking import LookingNetwork, opened
from vizcomp.weights.onnx_read import Unreadable, read_onnx
from vizcomp.weights.packed import Convolution, Desk, NotFinite, SeparableBlock, packed
from vizcomp.weights.sessions import open_network, open_session
from vizcomp.weights.table import bundled_path

Floats = npt.NDArray[np.float32]
here = pytest.mark.skipif(not _native.layers_possible(), reason="a processor without AVX2")
RANDOM = np.random.default_rng(5)


def numbers(*shape: int) -> Floats:
    return RANDOM.standard_normal(shape).astype(np.float32)


def plainly(
    x: Floats, weights: Floats, bias: Floats, stride: int, dilation: int, pads: tuple[int, ...]
) -> Floats:
    """A convolution by its definition, in float64."""
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    outs, _, rows, cols = weights.shape
    down = (padded.shape[2] - dilation * (rows - 1) - 1) // stride + 1
    across = (padded.shape[3] - dilation * (cols - 1) - 1) // stride + 1
    y = np.zeros((len(x), outs, down, across)) + bias[:, None, None]
    for i in range(rows):
        for j in range(cols):
            seen = padded[
                :,
                :,
                i * dilation : i * dilation + stride * (down - 1) + 1 : stride,
                j * dilation : j * dilation + stride * (across - 1) + 1 : stride,
            ]
            y += np.einsum("oc,nchw->nohw", weights[:, :, i, j].astype(np.float64), seen)
    return y.astype(np.float32)


def near(found: Floats, wanted: Floats) -> None:
    """Apart by what rounding to some 12 bits does, and by no more."""
    assert found.shape == wanted.shape
    size = max(1.0, float(np.abs(wanted).max()))
    assert float(np.abs(found - wanted).max()) < 4e-3 * size
    assert float(np.sqrt(((found - wanted) ** 2).mean())) < 6e-4 * size


CASES = {
    "1x1": (2, 7, 5, 24, 48, 1, 1, 1, (0, 0, 0, 0)),
    "one pixel": (1, 1, 1, 8, 1, 3, 1, 1, (1, 1, 1, 1)),
    "odd": (1, 13, 11, 3, 20, 3, 2, 1, (1, 1, 1, 1)),
    "wide apart": (1, 8, 10, 64, 40, 3, 1, 4, (4, 4, 4, 4)),
    "apart, odd inputs": (1, 9, 7, 5, 17, 3, 1, 2, (2, 2, 2, 2)),
    "uneven zeros": (1, 6, 9, 10, 16, 5, 2, 1, (0, 2, 3, 1)),
    "deep": (1, 4, 6, 258, 32, 3, 1, 1, (1, 1, 1, 1)),
    "wider than a chunk": (1, 3, 120, 8, 8, 3, 1, 1, (1, 1, 1, 1)),
}


@here
@pytest.mark.parametrize("case", CASES)
def test_a_convolution_is_what_it_is_by_definition(case: str) -> None:
    n, height, width, ins, outs, side, stride, dilation, pads = CASES[case]
    x, weights, bias = numbers(n, ins, height, width), numbers(outs, ins, side, side), numbers(outs)
    wanted = plainly(x, weights, bias, stride, dilation, pads)
    more = numbers(*wanted.shape)
    ways: dict[str, Any] = {"stride": stride, "dilation": dilation, "pads": pads}
    near(Convolution(weights, bias, **ways)(Desk(), x), wanted)
    near(Convolution(weights, bias, **ways)(Desk(), x, more), wanted + more)
    ramp = Convolution(weights, bias, relu=True, **ways)
    near(ramp(Desk(), x), np.maximum(wanted, 0))
    near(ramp(Desk(), x, more), np.maximum(wanted + more, 0))


@here
@pytest.mark.parametrize(("stride", "side", "pad"), [(4, 8, 2), (2, 5, 2), (1, 3, 1), (3, 3, 0)])
@pytest.mark.parametrize(("height", "width", "ins"), [(16, 32, 3), (13, 9, 3), (20, 17, 1)])
def test_a_photos_samples_are_read_as_their_numbers(
    stride: int, side: int, pad: int, height: int, width: int, ins: int
) -> None:
    photo = RANDOM.integers(0, 256, (1, height, width, ins)).astype(np.uint8)
    weights, bias = numbers(12, ins, side, side), numbers(12)
    factor, offset = np.full(ins, 1 / 63.75), np.linspace(-1.8, -1.2, ins)
    does = Convolution(
        weights, bias, stride=stride, pads=(pad,) * 4, relu=True, samples=(factor, offset)
    )
    x = (photo * factor + offset).astype(np.float32).transpose(0, 3, 1, 2)
    found = does(Desk(), photo)
    near(found, np.maximum(plainly(x, weights, bias, stride, 1, (pad,) * 4), 0))


@here
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 13), (12, 30)])
def test_a_separable_block_is_what_its_three_convolutions_are(
    height: int, width: int, dilation: int
) -> None:
    taps, wide, back = numbers(16, 1, 3, 3), numbers(40, 16, 1, 1), numbers(16, 40, 1, 1)
    biases = numbers(16), numbers(40), numbers(16)
    x = numbers(2, 16, height, width)
    inside = np.stack(
        [
            plainly(x[:, c : c + 1], taps[c : c + 1], biases[0][c : c + 1], 1, dilation, pads)[:, 0]
            for pads in [(dilation,) * 4]
            for c in range(16)
        ],
        axis=1,
    )
    middle = np.maximum(plainly(inside, wide, biases[1], 1, 1, (0,) * 4), 0)
    wanted = x + plainly(middle, back, biases[2], 1, 1, (0,) * 4)
    block = SeparableBlock(
        (taps, biases[0]), (wide, biases[1]), (back, biases[2]), dilation=dilation
    )
    near(block(Desk(), x), wanted)


@here
@pytest.mark.parametrize("count", [1, 31, 2304, 9000])
def test_no_sum_can_be_too_large(count: int) -> None:
    """All weights and all activations at their largest, of one sign."""
    for weights in (np.full((8, count, 1, 1), 3.0, np.float32), numbers(8, count, 1, 1)):
        kernel = packed(weights, np.zeros(8, np.float32))
        sums = np.abs(kernel.weights.astype(np.int64)).reshape(-1, 8, 2).sum((0, 2))
        assert sums.max() * kernel.levels < 1 << 31
    if count < 4096:
        x = np.full((1, count, 1, 2), -2.0, np.float32)
        does = Convolution(np.full((8, count, 1, 1), 3.0, np.float32), np.zeros(8, np.float32))
        np.testing.assert_allclose(does(Desk(), x), -6.0 * count, rtol=1e-2)


def position(rows: int, columns: int) -> Floats:
    return numbers(1, 2, rows // 4, columns // 4)


@here
@pytest.mark.parametrize("file", ["text_regions.onnx", "compact_depth.onnx"])
def test_bundled_networks_give_what_onnx_runtime_gives(file: str) -> None:
    data = bundled_path(file).read_bytes()
    ours, theirs = opened(data), open_session(data)
    assert ours is not None
    assert ours.words == theirs.get_modelmeta().custom_metadata_map
    assert ours.inputs == {each.name: each.type for each in theirs.get_inputs()}
    for size in ((16, 16), (32, 48), (128, 96)):
        photo = RANDOM.integers(0, 256, (1, *size, 3)).astype(np.uint8)
        feeds: dict[str, Any] = {"image": photo}
        if file == "compact_depth.onnx":
            feeds["position"] = position(*size)
        near(ours.run(None, feeds)[0], theirs.run(None, feeds)[0])


@here
def test_answers_stay_when_the_next_photo_comes_and_threads_share_a_network() -> None:
    network = opened(bundled_path("text_regions.onnx").read_bytes())
    assert network is not None
    photos = [
        RANDOM.integers(0, 256, (1, 32 + 16 * (i % 2), 48, 3)).astype(np.uint8) for i in range(8)
    ]
    first = [network.run(None, {"image": photo})[0] for photo in photos]
    kept = [answer.copy() for answer in first]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda photo: network.run(None, {"image": photo})[0], photos * 3))
    for i, answer in enumerate(again):
        np.testing.assert_array_equal(answer, kept[i % len(photos)])
    for before, after in zip(first, kept, strict=True):
        np.testing.assert_array_equal(before, after)


def test_without_avx2_onnx_runtime_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = RANDOM.integers(0, 256, (1, 32, 48, 3)).astype(np.uint8)
    ways = []
    for possible in (True, False):
        if possible and not _native.layers_possible():
            continue
        monkeypatch.setattr(_native, "layers_possible", lambda now=possible: now)
        network = open_network(
            None, "text_regions.onnx", "vizcomp-text-regions", what="network", hint=""
        )
        assert isinstance(network.session, LookingNetwork) == possible
        assert network.inputs == {"image": "tensor(uint8)"}
        ways.append(network.session.run(None, {"image": photo})[0])
    for other in ways[1:]:
        near(ways[0], other)


# --- what is left to ONNX Runtime


def graph_of(weights: Floats, *, more: str = "", **attributes: Any) -> bytes:
    graph = Graph("small")
    x = graph.input("x", "float32", [1, weights.shape[1], "h", "w"])
    y = graph.node("Conv", x, graph.constant(weights), **attributes)
    graph.output(graph.node(more, y) if more else y, "y", "float32", [1, len(weights), "h", "w"])
    return graph.to_bytes({"name": "small"})


@here
def test_a_small_graph_is_run() -> None:
    weights, x = numbers(6, 4, 3, 3), numbers(1, 4, 9, 8)
    network = opened(graph_of(weights, more="Sigmoid", pads=[1, 1, 1, 1]))
    assert network is not None
    y = plainly(x, weights, np.zeros(6, np.float32), 1, 1, (1, 1, 1, 1))
    near(network.run(["y"], {"x": x})[0], 1 / (1 + np.exp(-y)))
    with pytest.raises(ValueError, match="x: an array of float32"):
        network.run(None, {"x": x.astype(np.float64)})
    with pytest.raises(ValueError, match="x: an array"):
        network.run(None, {})


@pytest.mark.parametrize(
    "data",
    [
        graph_of(numbers(4, 2, 3, 3), group=2),
        graph_of(numbers(4, 2, 3, 3), strides=[1, 2]),
        graph_of(numbers(4, 2, 3, 3), auto_pad="SAME_UPPER"),
        graph_of(numbers(4, 2, 3, 3), more="Softplus"),
        graph_of(np.full((4, 2, 3, 3), np.nan, np.float32)),
        graph_of(np.full((4, 2, 3, 3), 1e30, np.float32)),
        graph_of(numbers(4, 2, 3, 3)).replace(b"small", b"\xff\xfe\xfd\xfc\xfb"),
        b"",
        b"\x08",
        b"\xff" * 40,
    ],
)
def test_what_is_not_done_here_is_left_to_onnx_runtime(data: bytes) -> None:
    assert opened(data) is None


@here
def test_a_number_that_would_be_infinite_is_none_in_the_answer() -> None:
    network = opened(graph_of(np.full((4, 2, 1, 1), 1e11, np.float32)))
    assert network is not None
    for x in (np.full((1, 2, 3, 3), 1e30, np.float32), np.full((1, 2, 3, 3), np.nan, np.float32)):
        assert np.isnan(network.run(None, {"x": x})[0]).all()
    tiny = np.full((1, 2, 3, 3), 1e-38, np.float32)
    assert np.abs(network.run(None, {"x": tiny})[0]).max() < 1e-20
    with pytest.raises(NotFinite):
        packed(np.full((4, 2, 1, 1), np.inf, np.float32), np.zeros(4, np.float32))


def test_damaged_files_are_read_or_refused_and_nothing_else() -> None:
    good = bundled_path("text_regions.onnx").read_bytes()
    assert read_onnx(good).words["name"] == "vizcomp-text-regions"
    for size in (1, 100, 5000, len(good) - 1):
        with pytest.raises(Unreadable):
            read_onnx(good[:size])
    small = graph_of(numbers(4, 2, 3, 3), pads=[1, 1, 1, 1])
    x = numbers(1, 2, 5, 5)
    for _ in range(400):
        bad = bytearray(small)
        for _ in range(int(RANDOM.integers(1, 4))):
            bad[int(RANDOM.integers(0, len(bad)))] = int(RANDOM.integers(0, 256))
        network = opened(bytes(bad))
        if network is not None:
            try:
                network.run(None, {"x": x})
            except (ValueError, KeyError, IndexError):
                continue


@here
def test_an_unpacked_array_has_a_limit() -> None:
    graph = Graph("large")
    x = graph.input("x", "float32", [1, 1])
    tall = graph.constant(np.zeros((1 << 13, 1), np.float32))
    wide = graph.constant(np.zeros((1, 1 << 13), np.float32))
    graph.output(graph.node("Add", x, graph.node("Mul", tall, wide)), "y", "float32", [1, 1])
    assert opened(graph.to_bytes()) is None


SIZES = (4, 4, 2, 4, 4, 8, 3, 3, 1, 1, 1, 1, 0, 1000)


def arrays() -> list[Any]:
    return [
        np.zeros(32, np.float32),
        None,
        np.zeros(8 * 3 * 6, np.int16),
        np.zeros(8, np.float32),
        np.zeros(8, np.float32),
        None,
        np.zeros(1000, np.int16),
        np.zeros(128, np.float32),
    ]


@here
def test_sizes_and_arrays_that_do_not_fit_are_refused() -> None:
    assert _native.convolve(SIZES, *arrays())
    for index, value in [(0, 0), (2, 5000), (5, 0), (6, 17), (8, 0), (9, 17), (10, -1), (13, 0)]:
        sizes = list(SIZES)
        sizes[index] = value
        with pytest.raises(ValueError, match="out of range"):
            _native.convolve(tuple(sizes), *arrays())
    for index in (0, 2, 3, 4, 6, 7):
        short = arrays()
        short[index] = short[index][: min(20, len(short[index]) - 1)]
        with pytest.raises(ValueError, match="items wanted"):
            _native.convolve(SIZES, *short)
        short[index] = None
        with pytest.raises(TypeError):
            _native.convolve(SIZES, *short)
    pixels = arrays()
    pixels[0], pixels[1] = np.zeros(32, np.uint8), np.zeros(2, np.int16)
    with pytest.raises(ValueError, match="out of range"):  # too few levels for samples
        _native.convolve(SIZES, *pixels)
    with pytest.raises(ValueError, match="out of range"):
        _native.separate((4, 4, 12, 8, 1, 100, 100), *[np.zeros(8, np.float32)] * 10)
