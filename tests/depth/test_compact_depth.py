"""The small depth network: geometry, runner, export, and what the bundled file promises."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vizcomp.depth.compact import CompactDepth, CompactDepthConfig, position_planes
from vizcomp.errors import ModelError, SettingsError, WeightsMissingError
from vizcomp.metrics import rank_scale, spearman
from vizcomp.nets.compact_depth import CompactDepthEnsemble, CompactDepthNet
from vizcomp.photos.frame import STRIDE, pad_to_stride, scale_photo, scaled_size
from vizcomp.training.export import export_depth, in_groups, quantised
from vizcomp.weights import table

SVT = Path(__file__).resolve().parents[3] / "shared" / "data" / "svt"
SMALL = CompactDepthConfig(
    channels=(8, 8, 16, 24), pyramid=(16, 8), members=2, long_side=64, calibration=(0.2, 0.7, 0.1)
)


@pytest.fixture(scope="module")
def bundled() -> CompactDepth:
    return CompactDepth()


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(3)
        states = [CompactDepthNet(SMALL).state_dict() for _ in range(SMALL.members)]
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    export_depth(SMALL, states, path, metadata={"licence": "MIT"})
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


# --- geometry


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (96, 128)),
        ((640, 480), (128, 96)),
        ((1, 1), (128, 128)),
        ((1, 5000), (1, 128)),
        ((2, 3), (85, 128)),
    ],
)
def test_scaled_size_keeps_the_aspect(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_size(*size, 128) == expected


def test_scaling_is_a_mean_also_where_large_photos_are_thinned() -> None:
    ramp = np.broadcast_to(
        np.linspace(0, 255, 4096).astype(np.uint8)[None, :, None], (3072, 4096, 3)
    )
    small = scale_photo(np.ascontiguousarray(ramp), 128)
    assert small.shape == (96, 128, 3)
    expected = np.linspace(0, 255, 128)
    assert np.abs(small[40, :, 0] - expected).max() <= 2


def test_padding_repeats_the_edge_and_positions_ignore_it() -> None:
    photo = noise(85, 128, 3)
    padded = pad_to_stride(photo)
    assert padded.shape == (96, 128, 3)
    assert (padded[85:] == photo[84]).all()
    planes = position_planes(85, 128)
    assert planes.shape == (2, 24, 32)
    assert planes[0, 0, 0] == pytest.approx(2 * 2 / 85 - 1)
    assert planes[0, 21, 0] > 1  # the first row of cells that lies wholly in the padding
    np.testing.assert_allclose(planes[1, 0], -planes[1, 0, ::-1], atol=1e-6)


def test_rank_scale_is_monotone_and_keeps_ties() -> None:
    values = np.array([[3.0, 1.0], [1.0, 9.0]], np.float32)
    np.testing.assert_allclose(rank_scale(values), [[2 / 3, 1 / 6], [1 / 6, 1.0]], atol=1e-6)
    assert (rank_scale(np.full((3, 4), 7, np.float32)) == 0.5).all()


def test_quantised_weights_are_within_half_a_step() -> None:
    weights_ = np.random.default_rng(0).normal(size=(5, 4, 3, 3)).astype(np.float32)
    steps, scale = quantised(weights_)
    assert steps.dtype == np.int8
    assert scale.shape == (5, 1, 1, 1)
    assert np.abs(steps * scale - weights_).max() <= 0.5001 * scale.max()


def test_fewer_bits_are_coarser_and_clip_where_that_is_nearer() -> None:
    weights_ = np.random.default_rng(0).normal(size=(5, 16, 3, 3)).astype(np.float32)
    errors = []
    for bits in range(2, 9):
        steps, scale = quantised(weights_, bits)
        assert -(2 ** (bits - 1)) <= steps.min() <= steps.max() < 2 ** (bits - 1)
        errors.append(float(np.square(steps * scale - weights_).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.02  # 4 bits, of weights with variance 1
    widest = np.abs(weights_).max(axis=(1, 2, 3), keepdims=True) / 7
    assert errors[2] < float(np.square(np.rint(weights_ / widest) * widest - weights_).mean())


def test_config_round_trips_and_refuses_nonsense() -> None:
    assert CompactDepthConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL
    for wrong in (
        {"members": 0},
        {"long_side": 100},
        {"channels": [1, 2]},
        {"colour": 3},
        {"bits": 1},
        {"bits": 4.5},
        {"group": 3},
        {"sides": [64]},
        {"members": 1, "sides": [256]},
        {"prior": -1},
        {"calibration": [1.0, float("nan"), 0.0]},
        {"encoder": "resnet"},
        {"encoder": "efficientnet-lite0", "channels": [16, 32, 64, 128]},
    ):
        with pytest.raises(SettingsError):
            CompactDepthConfig.from_dict(wrong)


# --- runner


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 3), (1, 5000, 3), (5000, 1, 3), (33, 47, 3), (33, 47), (480, 640, 3), (2000, 40)],
)
def test_any_size_gives_a_map_of_its_aspect(bundled: CompactDepth, shape: tuple[int, ...]) -> None:
    prediction = bundled(noise(*shape))
    assert (
        prediction.depth.shape == prediction.confidence.shape == bundled.config.scaled(*shape[:2])
    )
    for plane in (prediction.depth, prediction.confidence):
        assert plane.dtype == np.float32
        assert np.isfinite(plane).all()
        assert plane.min() >= 0.0
        assert plane.max() <= 1.0


def test_grey_is_the_photo_with_three_equal_channels(bundled: CompactDepth) -> None:
    grey = noise(60, 80)
    np.testing.assert_array_equal(
        bundled(grey).depth, bundled(np.repeat(grey[:, :, None], 3, axis=2)).depth
    )


def test_the_same_photo_gives_the_same_bytes(bundled: CompactDepth) -> None:
    photo = noise(120, 160, 3)
    first, again, other = bundled(photo), bundled(photo), CompactDepth()(photo)
    for found in (again, other):
        np.testing.assert_array_equal(first.depth, found.depth)
        np.testing.assert_array_equal(first.confidence, found.confidence)


def test_views_that_are_not_contiguous_are_read_rightly(bundled: CompactDepth) -> None:
    photo = noise(120, 160, 3)
    np.testing.assert_array_equal(
        bundled(photo[:, ::-1]).depth, bundled(np.ascontiguousarray(photo[:, ::-1])).depth
    )


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_photo_is_refused(bundled: CompactDepth, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        bundled(wrong)


def test_files_that_are_no_network_are_model_errors(tmp_path: Path, small_file: Path) -> None:
    good = small_file.read_bytes()
    flipped = bytearray(good)
    flipped[: len(good) // 2] = bytes(len(good) // 2)
    for name, data in {
        "empty": b"",
        "garbage": bytes(range(256)) * 40,
        "cut": good[: len(good) // 2],
        "zeros": bytes(flipped),
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelError) as caught:
            CompactDepth(path)
        assert str(path) in caught.value.message
        assert caught.value.hint
    with pytest.raises(ModelError):
        CompactDepth(tmp_path / "missing.onnx")
    with pytest.raises(ModelError):
        CompactDepth(tmp_path)


def test_another_onnx_file_is_not_taken_for_ours(tmp_path: Path, small_file: Path) -> None:
    import onnx

    model = onnx.load(str(small_file))
    kept = {p.key: p.value for p in model.metadata_props}
    for words in (
        {},
        {**kept, "name": "something else"},
        {**kept, "config": "{"},
        {**kept, "config": '{"members": -1}'},
    ):
        onnx.helper.set_model_props(model, words)
        path = tmp_path / "other.onnx"
        onnx.save(model, str(path))
        with pytest.raises(ModelError):
            CompactDepth(path)


def test_importing_the_module_loads_no_framework() -> None:
    code = (
        "import sys, vizcomp.depth.compact\nprint([m for m in ('torch', 'onnxruntime', 'onnx',"
        " 'scipy', 'tensorflow') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_running_needs_no_torch() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\n"  # an import of torch would now fail
        "import numpy as np\nfrom vizcomp.depth.compact import CompactDepth\n"
        "print(CompactDepth()(np.zeros((48, 64, 3), np.uint8)).depth.shape)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().startswith("(")


# --- export


def test_onnx_agrees_with_torch(small_file: Path, tmp_path: Path) -> None:
    import onnxruntime
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(3)
        members = [CompactDepthNet(SMALL) for _ in range(SMALL.members)]
    export_depth(SMALL, [m.state_dict() for m in members], tmp_path / "wide.onnx", small=False)
    network = CompactDepthEnsemble(SMALL, members).eval()
    wide, narrow = (
        onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        for path in (tmp_path / "wide.onnx", small_file)
    )
    for height, width in ((48, 64), (64, 16), (16, 16)):
        image, planes = noise(1, height, width, 3), position_planes(height, width)[None]
        with torch.no_grad():
            expected = network(torch.from_numpy(image), torch.from_numpy(planes)).numpy()
        (found,) = wide.run(None, {"image": image, "position": planes})
        assert found.shape == (1, 2, height, width)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        (rounded,) = narrow.run(None, {"image": image, "position": planes})
        assert np.corrcoef(rounded[0, 0].ravel(), expected[0, 0].ravel())[0, 1] > 0.99


def test_members_that_share_an_encoder_agree_with_torch(tmp_path: Path) -> None:
    import onnxruntime
    import torch

    config = dataclasses.replace(
        SMALL, members=3, shared=True, deeper=1, pixels=3000, bits=6, group=32
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = CompactDepthNet(config)
    export_depth(config, [network.state_dict()], tmp_path / "shared.onnx", small=False)
    ensemble = CompactDepthEnsemble(config, [network]).eval()
    session = onnxruntime.InferenceSession(
        (tmp_path / "shared.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    for height, width in ((48, 64), (32, 96)):
        image, planes = noise(1, height, width, 3), position_planes(height, width)[None]
        with torch.no_grad():
            maps = ensemble.maps(torch.from_numpy(image), torch.from_numpy(planes))
            expected = ensemble(torch.from_numpy(image), torch.from_numpy(planes)).numpy()
        assert maps.shape == (1, 3, height // 4, width // 4)
        # each decoder answers for itself
        assert float((maps[:, 0] - maps[:, 1]).abs().max()) > 1e-3
        (found,) = session.run(None, {"image": image, "position": planes})
        np.testing.assert_allclose(found, expected, atol=2e-3)
    with pytest.raises(ModelError, match="for 1 networks"):
        export_depth(config, [network.state_dict()] * 3, tmp_path / "three.onnx")


def test_a_published_encoder_under_three_decoders_agrees_with_torch(tmp_path: Path) -> None:
    import onnxruntime
    import torch

    config = CompactDepthConfig(
        encoder="efficientnet-lite0",
        channels=(32, 8, 12, 16),
        pyramid=(12, 8),
        shared=True,
        long_side=64,
        bits=7,
        group=96,
    )
    with torch.random.fork_rng():
        torch.manual_seed(8)
        network = CompactDepthNet(config).eval()
    for small, name in ((False, "wide.onnx"), (True, "narrow.onnx")):
        export_depth(config, [network.state_dict()], tmp_path / name, small=small)
    assert CompactDepth(tmp_path / "narrow.onnx").config == config
    ensemble = CompactDepthEnsemble(config, [network]).eval()
    wide, narrow = (
        onnxruntime.InferenceSession(
            (tmp_path / name).read_bytes(), providers=["CPUExecutionProvider"]
        )
        for name in ("wide.onnx", "narrow.onnx")
    )
    # in the last sizes a map at 1/16 has an odd side
    for height, width in ((64, 96), (48, 80), (16, 16)):
        image, planes = noise(1, height, width, 3), position_planes(height, width)[None]
        with torch.no_grad():
            maps = ensemble.maps(torch.from_numpy(image), torch.from_numpy(planes))
            expected = ensemble(torch.from_numpy(image), torch.from_numpy(planes)).numpy()
        assert maps.shape == (1, 3, height // 4, width // 4)
        (found,) = wide.run(None, {"image": image, "position": planes})
        np.testing.assert_allclose(found, expected, atol=5e-3)
        (rounded,) = narrow.run(None, {"image": image, "position": planes})
        assert np.corrcoef(rounded[0, 0].ravel(), expected[0, 0].ravel())[0, 1] > 0.95


def test_a_file_from_before_encoders_had_names_is_read() -> None:
    values = {k: v for k, v in SMALL.to_dict().items() if k != "encoder"}
    assert CompactDepthConfig.from_dict(values) == SMALL


def test_a_photo_and_its_mirror_image_are_answered_alike(tmp_path: Path) -> None:
    import onnxruntime
    import torch

    config = dataclasses.replace(SMALL, members=2, shared=True, pixels=3000, mirrored=True)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        network = CompactDepthNet(config)
    export_depth(config, [network.state_dict()], tmp_path / "mirrored.onnx", small=False)
    ensemble = CompactDepthEnsemble(config, [network]).eval()
    session = onnxruntime.InferenceSession(
        (tmp_path / "mirrored.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    for height, width in ((48, 64), (32, 96)):
        image, planes = noise(1, height, width, 3), position_planes(height, width)[None]
        with torch.no_grad():
            maps = ensemble.maps(torch.from_numpy(image), torch.from_numpy(planes))
            expected = ensemble(torch.from_numpy(image), torch.from_numpy(planes)).numpy()
        assert maps.shape == (1, 4, height // 4, width // 4)
        (found,) = session.run(None, {"image": image, "position": planes})
        np.testing.assert_allclose(found, expected, atol=2e-3)
        (other,) = session.run(None, {"image": image[:, :, ::-1].copy(), "position": planes})
        np.testing.assert_allclose(found, other[..., ::-1], atol=2e-3)
    with pytest.raises(SettingsError, match="mirror image"):
        dataclasses.replace(SMALL, members=3, sides=(32, 32, 32), mirrored=True)


def test_photos_of_every_shape_are_scaled_to_about_as_many_pixels() -> None:
    config = dataclasses.replace(SMALL, long_side=160, pixels=19200)
    assert config.scaled(480, 640) == (120, 160)
    for height, width in ((375, 1242), (1024, 580), (700, 700), (33, 47)):
        h, w = config.scaled(height, width)
        assert abs(h * w - 19200) < 400
        assert abs(w / h - width / height) < 0.02 * width / height
    assert config.scaled(10, 5000) == (1, 320)  # a strip: twice the long side, no more
    assert dataclasses.replace(config, pixels=0).scaled(375, 1242) == scaled_size(375, 1242, 160)


def test_groups_have_scales_of_their_own_and_tiny_ones_stay_finite() -> None:
    weights_ = np.random.default_rng(1).normal(size=(3, 5, 3, 3)).astype(np.float32)
    weights_[0, 0] *= 100
    weights_[2] *= 1e-9
    rows = in_groups(weights_, 12)
    assert rows.shape == (12, 12)  # 45 weights a channel: four rows, the last with three zeros
    assert (rows[3, 9:] == 0).all()
    assert in_groups(weights_, 96).shape == (3, 45)
    assert (in_groups(weights_, 0) == weights_).all()
    steps, scale = quantised(rows, 4, half=True)
    assert scale.dtype == np.float16
    assert (scale > 0).all()
    again = (steps * scale.astype(np.float32)).reshape(3, -1)[:, :45].reshape(weights_.shape)
    whole, one = quantised(weights_, 4)
    for channel in (0, 1):
        assert (
            np.square(again - weights_)[channel].sum()
            < np.square(whole * one - weights_)[channel].sum()
        )
    assert np.abs(again[2]).max() < 1e-3


@pytest.mark.parametrize(
    ("bits", "group"), [*((bits, 0) for bits in range(2, 9)), (4, 64), (5, 48), (8, 64)]
)
def test_the_file_holds_the_weights_in_any_number_of_bits(
    tmp_path: Path, bits: int, group: int
) -> None:
    import onnxruntime
    import torch

    config = dataclasses.replace(SMALL, bits=bits, group=group, members=1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = CompactDepthNet(config).state_dict()
    export_depth(config, [state], tmp_path / "few.onnx")
    assert CompactDepth(tmp_path / "few.onnx").config.bits == bits
    export_depth(config, [state], tmp_path / "wide.onnx", small=False)
    import onnx

    model = onnx.load(str(tmp_path / "wide.onnx"))
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim >= 2 and values.size >= 256:
            steps, scale = quantised(in_groups(values, group), bits, half=group > 0)
            again = (
                (steps * scale.astype(np.float32))
                .reshape(len(values), -1)[:, : values[0].size]
                .reshape(values.shape)
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(again, tensor.name))
    image, planes = noise(1, 48, 64, 3), position_planes(48, 64)[None]
    few, expected = (
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(
            None, {"image": image, "position": planes}
        )[0]
        for data in ((tmp_path / "few.onnx").read_bytes(), model.SerializeToString())
    )
    np.testing.assert_allclose(few, expected, atol=1e-4)


def test_members_at_smaller_scales_and_a_mean_map_agree_with_torch(tmp_path: Path) -> None:
    import onnxruntime
    import torch

    config = dataclasses.replace(SMALL, long_side=80, sides=(80, 48), prior=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        members = [CompactDepthNet(config) for _ in range(2)]
        prior = torch.randn(1, 1, 6, 8)
    states = [m.state_dict() for m in members]
    export_depth(config, states, tmp_path / "wide.onnx", prior=prior, small=False)
    network = CompactDepthEnsemble(config, members, prior).eval()
    session = onnxruntime.InferenceSession(
        (tmp_path / "wide.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    for height, width in ((64, 80), (80, 16), (16, 16)):
        image, planes = noise(1, height, width, 3), position_planes(height, width)[None]
        with torch.no_grad():
            maps = network.maps(torch.from_numpy(image), torch.from_numpy(planes))
            expected = network(torch.from_numpy(image), torch.from_numpy(planes)).numpy()
        assert maps.shape == (1, 2, height // 4, width // 4)
        (found,) = session.run(None, {"image": image, "position": planes})
        assert found.shape == (1, 2, height, width)
        np.testing.assert_allclose(found, expected, atol=2e-3)
    plain = CompactDepthEnsemble(dataclasses.replace(config, prior=0.0), members).eval()
    resized = torch.nn.functional.interpolate(
        prior, size=(4, 4), mode="bilinear", align_corners=False
    )
    with torch.no_grad():  # the mean map is added, and only added
        torch.testing.assert_close(
            plain.maps(torch.from_numpy(image), torch.from_numpy(planes)) + 0.5 * resized, maps
        )
    with pytest.raises(ModelError, match="mean map"):
        export_depth(config, states, tmp_path / "none.onnx")


def test_a_photo_alone_and_padded_differ_little_in_position(small_file: Path) -> None:
    network = CompactDepth(small_file)
    assert network.config == SMALL
    assert network.fingerprint == hashlib.sha256(small_file.read_bytes()).hexdigest()
    assert network(noise(STRIDE, STRIDE, 3)).depth.shape == (64, 64)


def test_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = CompactDepthNet(SMALL).state_dict()
    with pytest.raises(ModelError, match="1 sets"):
        export_depth(SMALL, [state], tmp_path / "a.onnx")
    other = dataclasses.replace(SMALL, pyramid=(8, 8))
    with pytest.raises(ModelError, match="do not fit"):
        export_depth(other, [state, state], tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


# --- the bundled file


def test_the_bundled_file_is_the_one_in_the_table() -> None:
    (row,) = [r for r in table.BUNDLED if r.id == "compact-depth"]
    path = table.bundled_path(row.file)
    assert path.stat().st_size <= 4_000_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256
    assert (Path(__file__).resolve().parents[2] / row.card).is_file()
    beside = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert beside["sha256"] == row.sha256
    assert CompactDepthConfig.from_dict(beside["network"]) == CompactDepth().config


def test_a_missing_bundled_file_says_so() -> None:
    with pytest.raises(WeightsMissingError) as caught:
        table.bundled_path("no_such.onnx")
    assert caught.value.exit_code == 3


@pytest.mark.skipif(not (SVT / "photos").is_dir(), reason="the street photos are not here")
def test_street_photos_are_ranked_and_confidence_tells_which(bundled: CompactDepth) -> None:
    """The bundled file has learned from these photos: this finds a broken file or runner, and is no
    measure of quality."""
    from PIL import Image

    scores, sure = [], []
    for path in sorted((SVT / "photos").glob("*.jpg"))[4::5]:
        prediction = bundled(np.asarray(Image.open(path).convert("RGB")))
        truth = (
            Image.open(SVT / "depth" / f"{path.stem}.png")
            .convert("L")
            .resize(prediction.depth.shape[::-1], Image.Resampling.BOX)
        )
        scores.append(spearman(prediction.depth, np.asarray(truth)))
        sure.append(float(prediction.confidence.mean()))
    assert np.mean(scores) > 0.33 + 0.05  # the mean map of the other photos reaches 0.33
    best = np.argsort(sure)[len(sure) // 2 :]
    assert np.mean(np.asarray(scores)[best]) > np.mean(scores)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_bundled_network_keeps_little_memory() -> None:
    """Its weights are packed; what unpacking them took must not stay with each worker."""
    code = """
import onnxruntime
def resident():
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('VmRSS'))
before = resident()
from vizcomp.depth.compact import CompactDepth
network = CompactDepth()
print((resident() - before) // 1024)
"""
    taken = int(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
    )
    assert taken < 100, f"{taken} MB"
