"""The recurrent codec as a verb, on small networks with fixed random weights; the bundled models
where they are there."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import tiny_codec
from PIL import Image

from vizcomp.errors import (
    FormatError,
    InputError,
    ModelError,
    SettingsError,
    TruncatedError,
    WeightsMissingError,
)
from vizcomp.neural import find, models, tiling
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.find import find_model
from vizcomp.neural.models import MODELS, saved_fingerprint
from vizcomp.neural.packs import VzcPack
from vizcomp.neural.search import torch_network
from vizcomp.training.codec import save_codec
from vizcomp.vzc import coding, fitting
from vizcomp.vzc import image as vzc
from vizcomp.vzc.packs import PackWriter
from vizcomp.weights import cache, table


@pytest.fixture(scope="module")
def codec(any_model: Path) -> NeuralCodec:
    return NeuralCodec.load(any_model)


@pytest.fixture(scope="module")
def small(small_model: Path) -> NeuralCodec:
    return NeuralCodec.load(small_model)


@pytest.fixture(scope="module")
def patches(cat: np.ndarray) -> np.ndarray:
    """uint8 (20, 32, 32, 3)."""
    return np.stack(
        [cat[y : y + 32, x : x + 32] for y in range(0, 160, 32) for x in range(64, 192, 32)]
    )


# --- files of one image
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 77), (130, 3), (32, 32), (37, 61), (64, 96)]
)
@pytest.mark.parametrize("grey", [False, True])
def test_images_of_any_size_come_back_in_it(
    codec: NeuralCodec, cat: np.ndarray, height: int, width: int, grey: bool
) -> None:
    image = cat[:height, :width, 1] if grey else cat[:height, :width]
    data = codec.encode(image)
    found = codec.decode(data)
    assert found.image.shape == image.shape
    assert found.image.dtype == np.uint8
    assert (found.iterations, found.complete, found.problem) == (3, True, "")
    assert (found.header.width, found.header.height, found.header.grey) == (width, height, grey)
    assert found.header.model == codec.fingerprint
    codes = codec.codes(image)
    shown = codec.image(codes, height, width)
    assert np.array_equal(found.image, np.rint(shown.mean(2)) if grey else shown), (
        "the file holds the encoder's bits"
    )
    assert codec.encode(image) == data


def test_each_iteration_is_decodable(codec: NeuralCodec, cat: np.ndarray) -> None:
    data = codec.encode(cat)
    for many in (1, 2, 3):
        assert np.array_equal(
            codec.decode(data, iterations=many).image,
            codec.decode(codec.encode(cat, iterations=many)).image,
        )
    assert codec.decode(data, iterations=9).iterations == 3
    assert len({codec.decode(data, iterations=many).image.tobytes() for many in (1, 2, 3)}) == 3


def test_what_is_complete_of_a_cut_file_decodes_as_fewer_iterations(
    codec: NeuralCodec, cat: np.ndarray
) -> None:
    data = codec.encode(cat[:50, :70])
    header = vzc.read_header(data)
    for many, end in enumerate(header.offsets[1:], 1):
        for cut in (data[:end], data[: end + 1]):
            with pytest.raises(TruncatedError):
                codec.decode(cut)
            found = codec.decode(cut, allow_truncated=True)
            assert (found.iterations, found.complete) == (many, False)
            assert f"iteration {many + 1} of 3" in found.problem
            assert np.array_equal(found.image, codec.decode(data, iterations=many).image)
    with pytest.raises(TruncatedError):
        codec.decode(data[: header.offsets[0]], allow_truncated=True)


def test_the_images_of_all_iterations_come_in_one_pass(codec: NeuralCodec, cat: np.ndarray) -> None:
    codes = codec.codes_many(np.stack([cat[:64, :96], cat[64:128, :96]]))
    found = codec.images_between(codes)
    assert len(found) == len(codes) == 3
    for many, images in enumerate(found, 1):
        assert np.array_equal(images, codec.images(codes[:many]))
    assert [
        np.array_equal(a, b) for a, b in zip(codec.images_between(codes, 2), found[1:], strict=True)
    ] == [True, True]


def test_bits_for_each_pixel_are_a_limit(codec: NeuralCodec, cat: np.ndarray) -> None:
    sizes = [len(codec.encode(cat, iterations=n)) for n in (1, 2, 3)]
    assert sizes == sorted(set(sizes))
    pixels = cat.shape[0] * cat.shape[1]
    for many, size in enumerate(sizes, 1):
        limit = 8 * size / pixels
        assert len(codec.encode(cat, bpp=limit)) == size
        assert vzc.read_header(codec.encode(cat, bpp=limit * 1.0001)).iterations == many
        assert vzc.read_header(codec.encode(cat, bpp=limit * 0.9999)).iterations == max(1, many - 1)
    assert len(codec.encode(cat, bpp=100, iterations=2)) == sizes[1]


def test_a_limit_spares_iterations_of_large_images(
    codec: NeuralCodec, cat: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is hardly computed; the file is that of all iterations, cut."""
    image = cat[:160, :208]
    sizes = [len(codec.encode(image, iterations=n)) for n in (1, 2, 3)]
    monkeypatch.setattr("vizcomp.neural.codec.PART", 48)
    done: list[int] = []
    chunks = codec._chunks

    def counted(one: np.ndarray, iterations: int | None, search: int | None) -> list[bytes]:
        if one.shape == image.shape:
            done.append(iterations or 0)
        return chunks(one, iterations, search)

    monkeypatch.setattr(codec, "_chunks", counted)
    pixels = image.shape[0] * image.shape[1]
    for many, size in enumerate(sizes, 1):
        assert len(codec.encode(image, bpp=8.1 * size / pixels)) == size, many
    assert done[0] == 2, "one more than fits"
    assert done[-1] == 3
    # a part that says too little is found out
    done.clear()
    monkeypatch.setattr(codec, "_likely", lambda image, most, bpp: 1)
    assert len(codec.encode(image, bpp=100)) == sizes[2]
    assert done == [1, 3]


def test_tiles_leave_no_seams(
    codec: NeuralCodec, cat: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat = cat[60:220, 120:320]
    whole = codec.codes(cat)
    shown = codec.image(whole, 160, 200)
    monkeypatch.setattr(tiling, "TILE", 32)
    monkeypatch.setattr(tiling, "REACH", 32)
    tiled = codec.image(whole, 160, 200).astype(int)
    assert np.abs(tiled - shown).max() <= 1
    assert (tiled != shown).mean() < 0.001
    parts = codec.codes(cat)
    for one, other in zip(whole, parts, strict=True):
        assert one.shape == other.shape
        assert (one != other).mean() < 0.01
    found = codec.image(codec.codes(cat, search=4), 160, 200).astype(float)
    assert ((found - cat) ** 2).mean() < ((shown.astype(float) - cat) ** 2).mean(), (
        "tiles are searched too"
    )
    with pytest.raises(SettingsError, match="search"):
        codec.codes(cat, search=-1)
    assert np.array_equal(codec.decode(codec.encode(cat)).image, codec.image(parts, 160, 200))


def test_many_at_once_are_the_same_as_one_by_one(small: NeuralCodec, patches: np.ndarray) -> None:
    files = small.encode_many(patches, search=0)
    assert files == [small.encode(p, search=0) for p in patches]
    together = small.decode_many([vzc.unpack(data) for data in files])
    for data, image in zip(files, together, strict=True):
        assert np.abs(image.astype(int) - small.decode(data).image).max() <= 1
    first = small.decode_many([vzc.unpack(data) for data in files[:3]], iterations=1)
    for data, image in zip(files, first, strict=False):
        assert np.abs(image.astype(int) - small.decode(data, iterations=1).image).max() <= 1
    assert small.encode_many(patches[:0]) == []


def test_a_file_of_fixed_bytes(small: NeuralCodec) -> None:
    """Bits to bytes is exact on every machine; only the last step, to pixels, may round."""
    rng = np.random.default_rng(5)
    codes = [rng.integers(0, 2, (4, 4, 4)).astype(np.uint8) for _ in range(3)]
    chunks = [coding.encode(small.context, [plane], codes[:t]) for t, plane in enumerate(codes)]
    data = vzc.pack(chunks, model=small.fingerprint, width=32, height=32)
    assert data.hex() == FIXED
    found = small.decode(bytes.fromhex(FIXED)).image.astype(float)
    assert np.abs(found - small.image(codes, 32, 32)).max() <= 1


FIXED = "b5565a10ec339cdb111110ad86d68816172ee453ce1ba14a4198769b3965e9ee779e4195f459b827e649be"


# --- search
# --------------------------------------------------------------------------------------------------


def score(codec: NeuralCodec, image: np.ndarray, codes: list[np.ndarray]) -> float:
    shown = codec.image(codes, 32, 32) / 255
    return float(
        10 * ((shown - image / 255) ** 2).mean()
        + codec.search.rate * coding.cost_bits(codec.context, codes, [])
    )


def test_search_makes_nothing_worse(small: NeuralCodec, patches: np.ndarray) -> None:
    plain = small.codes_many(patches, iterations=1, search=0)
    for candidates in (2, 9, 32):
        found = small.codes_many(patches, iterations=1, search=candidates)
        before, after = (
            [score(small, image, [plane[i] for plane in planes]) for i, image in enumerate(patches)]
            for planes in (plain, found)
        )
        # the search counts in float32
        assert all(b <= a + 1e-3 for a, b in zip(before, after, strict=True))
    assert np.mean(after) < np.mean(before)
    single = small.codes_many(patches, iterations=1, search=1)[0]
    assert (single != plain[0]).sum((1, 2, 3)).max() == 1, "one candidate is one bit turned"


def test_search_is_deterministic_and_each_image_s_own(
    small: NeuralCodec, patches: np.ndarray
) -> None:
    all_at_once = small.codes_many(patches, search=12)
    again = small.codes_many(patches[::-1].copy(), search=12)
    for i in (0, 7, 19):
        alone = small.codes(patches[i], search=12)
        for t in range(3):
            assert np.array_equal(all_at_once[t][i], alone[t])
            assert np.array_equal(again[t][19 - i], alone[t])


def test_nothing_is_searched_unless_asked(small: NeuralCodec, patches: np.ndarray) -> None:
    assert (
        small.encode(patches[0])
        == small.encode(patches[0], search=0)
        != small.encode(patches[0], search=32)
    )


class StandIn:
    """In a classifier's place."""

    mirrors = False

    def __init__(self, logits: Callable[[np.ndarray], np.ndarray]) -> None:
        self._logits = logits

    def logits(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        return self._logits(images).astype(np.float32)


def test_a_codec_that_is_told_the_classifier_s_answer(tmp_path: Path, patches: np.ndarray) -> None:
    codec = NeuralCodec.load(tiny_codec(tmp_path / "given.safetensors", native=32, given=10))
    codec.words["classifier"] = "stand-in"
    codec._analyser.classifier = StandIn(
        lambda x: x.transpose(0, 3, 1, 2).reshape(len(x), -1)[:, :10] / 51
    )
    plain, found = codec.encode_many(patches, search=0), codec.encode_many(patches, search=12)
    assert plain != found
    assert found == codec.encode_many(patches, search=12)
    codec._analyser.classifier = None  # a decoder needs none
    assert codec.decode(found[0]).image.shape == (32, 32, 3)


def test_images_that_the_classifier_would_mistake_are_mended(
    tmp_path: Path, patches: np.ndarray
) -> None:
    codec = NeuralCodec.load(tiny_codec(tmp_path / "model.safetensors", native=32, given=10))
    plain = codec.codes_many(patches)  # without a classifier nothing is searched

    def quarters(images: np.ndarray) -> np.ndarray:
        return images.reshape(-1, 2, 16, 2, 16, 3).mean((2, 4)).reshape(-1, 12) / 255

    # random weights give nearly grey images: the stand-in sees in which way their quarters lie
    # beside the mean of them
    middle = quarters(codec.images(plain[:1])).mean(0)
    weights = np.random.default_rng(0).normal(size=(12, 10))
    codec.words["classifier"] = "stand-in"
    stand_in = StandIn(
        lambda x: (np.sign(quarters(x) - middle) + 50 * (quarters(x) - middle)) @ weights
    )
    codec._analyser.classifier = stand_in

    def seen(images: np.ndarray) -> np.ndarray:
        return stand_in.logits(images).argmax(1)

    wanted = seen(patches)
    plain, mended = codec.codes_many(patches, search=0), codec.codes_many(patches)
    for t in range(1, 4):
        before, after = (seen(codec.images(planes[:t])) == wanted for planes in (plain, mended))
        # of 20; which candidates are drawn decides the rest
        assert before.sum() < after.sum() >= 14
    kept = seen(codec.images(plain[:1])) == wanted
    assert 0 < kept.sum() < len(kept)
    assert np.array_equal(plain[0][kept], mended[0][kept])  # what is right stays as it is
    assert codec.encode(patches[3]) == codec.encode_many(patches)[3]


# --- models
# --------------------------------------------------------------------------------------------------


def test_a_model_s_fingerprint_is_its_content(
    tmp_path: Path, small_model: Path, any_model: Path, small: NeuralCodec
) -> None:
    assert small.fingerprint.hex() == "ec339cdb"
    assert saved_fingerprint(small_model) == small.fingerprint
    assert (
        saved_fingerprint(any_model) == NeuralCodec.load(any_model).fingerprint != small.fingerprint
    )
    rng = np.random.default_rng(0)
    codes = [[rng.integers(0, 2, (4, 4, 4)).astype(np.uint8) for _ in range(3)] for _ in range(40)]
    context = fitting.fit(codes, adaptive=False)
    network = torch_network(small.config, small.weights)
    save_codec(
        tmp_path / "context.safetensors",
        network,
        {},
        {f"context.{k}": v for k, v in context.to_arrays().items()},
    )
    other = NeuralCodec.load(tmp_path / "context.safetensors")
    assert other.fingerprint != small.fingerprint
    assert saved_fingerprint(tmp_path / "context.safetensors") == other.fingerprint
    changed = NeuralCodec.load(small_model)
    for name, value in changed.weights.items():
        other_value = value.copy()
        other_value.flat[0] += 0.5
        other_weights = {**changed.weights, name: other_value}
        same = (
            models.fingerprint(changed.config.to_dict(), other_weights, changed.context)
            == small.fingerprint
        )
        assert same == (not name.startswith(("entrances.", "decoder.", "exit."))), name


def test_a_replaced_model_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path))
    for fingerprint, (name, commit) in table.FORMER.items():
        with pytest.raises(WeightsMissingError, match=fingerprint) as missing:
            find_model(bytes.fromhex(fingerprint))
        assert (
            f"git show {commit[:12]}:src/vizcomp/bundled/{name}.safetensors" in missing.value.hint
        )
        assert f"weights add {name}-{fingerprint}" in missing.value.hint
    assert table.FORMER, "models were replaced"
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text("utf-8")
    rows = page.split("## Models of releases")[1]
    for fingerprint, (name, commit) in table.FORMER.items():
        row = next(line for line in rows.splitlines() if f"`{fingerprint}`" in line)
        assert f"`{name}`" in row
        assert f"`{commit[:12]}`" in row
    for name in MODELS:
        assert f"`{NeuralCodec.load(name).fingerprint.hex()}`" in rows


def test_models_are_found_by_fingerprint(
    tmp_path: Path,
    small_model: Path,
    any_model: Path,
    small: NeuralCodec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path))
    monkeypatch.setattr(find, "_cache", {})
    with pytest.raises(WeightsMissingError, match="ec339cdb") as missing:
        find_model(small.fingerprint, [any_model])
    assert missing.value.exit_code == 3
    assert str(cache.model_folder()) in missing.value.hint
    folder = cache.model_folder()
    folder.mkdir(parents=True)
    (folder / "a-damaged.safetensors").write_bytes(b"not a model")
    (folder / "b-mine.safetensors").write_bytes(small_model.read_bytes())
    assert find_model(small.fingerprint).name == str(folder / "b-mine.safetensors")
    assert find_model(small.fingerprint, [any_model, small_model]).name == str(small_model), (
        "given ones come first"
    )
    with pytest.raises(ModelError, match="a-damaged"):
        find_model(small.fingerprint, [folder / "a-damaged.safetensors"])
    data = small.encode(np.zeros((32, 32, 3), np.uint8), search=0)
    assert find.decode(data).image.shape == (32, 32, 3)


@pytest.mark.parametrize(
    "what", ["nothing there", "not safetensors", "another kind", "missing weights", "wrong shapes"]
)
def test_files_that_are_no_codec(tmp_path: Path, small_model: Path, what: str) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    about = {"vizcomp": '{"kind": "classifier"}'}
    if what == "not safetensors":
        path.write_bytes(b"\x89PNG" * 100)
    elif what == "another kind":
        save_file({"x": torch.zeros(3)}, path, metadata=about)
    elif what in ("missing weights", "wrong shapes"):
        from safetensors import safe_open

        with safe_open(str(small_model), "pt") as file:
            about = file.metadata()
        tensors = load_file(small_model)
        name = max(tensors, key=lambda n: tensors[n].numel())
        tensors[name] = tensors[name][:1].clone()
        if what == "missing weights":
            del tensors[name]
        save_file(tensors, path, metadata=about)
    with pytest.raises(ModelError) as error:
        NeuralCodec.load(path)
    assert str(path) in error.value.message
    if what not in ("missing weights", "wrong shapes"):
        with pytest.raises(ModelError):
            saved_fingerprint(path)


def test_what_is_refused(small: NeuralCodec, codec: NeuralCodec, cat: np.ndarray) -> None:
    patch = cat[:32, :32]
    for wrong in (0, 4, -1):
        with pytest.raises(SettingsError, match="iterations"):
            small.encode(patch, iterations=wrong)
    with pytest.raises(SettingsError, match="search"):
        small.encode(patch, search=-1)
    with pytest.raises(InputError, match="32x32"):
        small.encode(cat)
    for bad in (patch.astype(float), patch[..., :2], patch[:0], patch[None]):
        with pytest.raises(ValueError, match="uint8 array"):
            codec.encode(bad)
    with pytest.raises(ValueError, match="uint8 array"):
        codec.codes_many(patch)
    data = small.encode(patch, search=0)
    with pytest.raises(ModelError, match="ec339cdb"):
        codec.decode(data)
    with pytest.raises(SettingsError):
        small.decode(data, iterations=0)
    with pytest.raises(FormatError, match="pixels"):
        small.decode(data, max_pixels=1000)
    with pytest.raises(FormatError, match="iteration 1"):
        small.decode(data[:17] + bytes([data[17] ^ 1]) + data[18:])
    with pytest.raises(FormatError, match="PNG"):
        small.decode(b"\x89PNG\r\n\x1a\n")
    rows = vzc.pack([b""] * 4, model=small.fingerprint, width=32, height=32)
    with pytest.raises(FormatError, match="4 iterations"):
        small.decode(rows)
    with pytest.raises(FormatError, match="4 iterations"):
        small.decode_many([vzc.unpack(rows)])
    long = vzc.pack([b"x" * 500], model=small.fingerprint, width=32, height=32)
    for decode in (lambda: small.decode(long), lambda: small.decode_many([vzc.unpack(long)])):
        with pytest.raises(FormatError):
            decode()


# --- packs
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pack_file(
    tmp_path_factory: pytest.TempPathFactory, small: NeuralCodec, patches: np.ndarray
) -> Path:
    """140 images, three blocks: image 5 is grey, image 6 has one iteration, image 7 neither name
    nor label."""
    writer = PackWriter(model=small.fingerprint, classes=("cat", "dog"))
    for i in range(140):
        iterations = 1 if i == 6 else 3
        payload = small.payloads(patches[i % 20][None], iterations=iterations, search=0)[0]
        about = (
            {}
            if i == 7
            else {"name": f"{'cat' if i % 2 else 'dog'}/{i:03}.png", "label": 1 - i % 2}
        )
        writer.add(payload, 32, 32, grey=i == 5, iterations=iterations, **about)
    path = tmp_path_factory.mktemp("packs") / "set.vzc"
    path.write_bytes(writer.finish())
    return path


def test_a_pack_holds_what_files_would(
    pack_file: Path, small_model: Path, small: NeuralCodec, patches: np.ndarray
) -> None:
    pack = VzcPack(pack_file, model=small_model)
    assert (len(pack), pack.classes) == (140, ("cat", "dog"))
    expected = [small.decode(small.encode(p, search=0)).image for p in patches]
    found = list(pack)
    assert found[5].shape == (32, 32)
    assert np.array_equal(
        found[6], small.decode(small.encode(patches[6], iterations=1, search=0)).image
    )
    for i in (0, 1, 63, 64, 139):
        assert np.array_equal(found[i], expected[i % 20])
        assert np.array_equal(pack[i], found[i])
        assert np.array_equal(pack[f"{'cat' if i % 2 else 'dog'}/{i:03}.png"], found[i])
    assert np.array_equal(pack[-1], found[139])
    assert [pack.label(i) for i in (0, 1, 7)] == [1, 0, None]
    coarse = pack.batch([0, 6], iterations=1)
    assert np.array_equal(
        coarse[0], small.decode(small.encode(patches[0], iterations=1, search=0)).image
    )
    with pytest.raises(InputError, match="nowhere"):
        pack["nowhere.png"]
    with pytest.raises(IndexError):
        pack[140]
    again = VzcPack(pack_file.read_bytes(), model=small_model)
    assert np.array_equal(again[3], found[3])


def test_a_damaged_block_costs_its_own_images(pack_file: Path, small_model: Path) -> None:
    data = bytearray(pack_file.read_bytes())
    data[200] ^= 1
    pack = VzcPack(bytes(data), model=small_model)
    with pytest.raises(FormatError, match="block 0"):
        pack[3]
    assert np.array_equal(pack[70], VzcPack(pack_file, model=small_model)[70])


def test_a_pack_travels_to_other_processes(pack_file: Path, small_model: Path) -> None:
    pack = VzcPack(pack_file, model=small_model)
    state = pickle.dumps(pack)
    assert len(state) < 1000, "the path travels, not the images"
    assert np.array_equal(pickle.loads(state)[4], pack[4])


@pytest.mark.parametrize("workers", [0, 2])
def test_training_straight_from_a_pack(pack_file: Path, small_model: Path, workers: int) -> None:
    pack = VzcPack(pack_file, model=small_model)
    loader = torch.utils.data.DataLoader(
        pack.dataset(),
        batch_size=50,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert images.shape == (140, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.tolist() == [-1 if i == 7 else 1 - i % 2 for i in range(140)]
    assert np.array_equal((images[9] * 255).round().byte().permute(1, 2, 0).numpy(), pack[9])
    assert torch.equal(images[5][0], images[5][1])
    sums = pack.dataset(transform=lambda image: int(image.sum()))
    assert sums[3] == (int(pack[3].sum()), 0)


def test_packs_that_cannot_be_opened(
    tmp_path: Path, pack_file: Path, small_model: Path, small: NeuralCodec
) -> None:
    with pytest.raises(InputError, match="nowhere"):
        VzcPack(tmp_path / "nowhere.vzc")
    (tmp_path / "empty.vzc").write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        VzcPack(tmp_path / "empty.vzc")
    with pytest.raises(FormatError, match="one image"):
        VzcPack(small.encode(np.zeros((32, 32, 3), np.uint8), search=0))
    with pytest.raises(TruncatedError):
        VzcPack(pack_file.read_bytes()[:-3], model=small_model)
    with pytest.raises(WeightsMissingError):
        VzcPack(pack_file)
    with pytest.raises(FormatError, match="iterations"):
        small.decode_payloads([b""], 32, 32, 9)


# --- the bundled models
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_bundled_models(name: str, cat: np.ndarray) -> None:
    path = table.bundled_path(f"{name}.safetensors")
    codec = NeuralCodec.load(name)
    assert saved_fingerprint(path) == codec.fingerprint
    image = cat[:32, :32] if codec.native else cat[:160, :208]
    data = codec.encode(image, iterations=min(4, codec.iterations), search=0)
    errors = [
        float(((find.decode(data, iterations=n).image.astype(float) - image) ** 2).mean())
        for n in range(1, vzc.read_header(data).iterations + 1)
    ]
    assert errors[-1] < image.astype(float).var()
    assert errors[-1] <= errors[0]


GOLDEN = Path(__file__).parents[1] / "golden" / "decoded"


def former_model(fingerprint: str, folder: Path) -> list[Path]:
    """The file of a model that does not ship any more, from the repository's history as the table
    says."""
    name, commit = table.FORMER[fingerprint]
    path = f"src/vizcomp/bundled/{name}.safetensors"
    done = subprocess.run(  # fixed arguments
        ["git", "show", f"{commit}:{path}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no history of the repository here")
    (folder / "former.safetensors").write_bytes(done.stdout)
    return [folder / "former.safetensors"]


@pytest.mark.parametrize("fingerprint", table.FORMER)
def test_every_model_that_shipped_is_in_the_history(fingerprint: str, tmp_path: Path) -> None:
    (path,) = former_model(fingerprint, tmp_path)
    assert saved_fingerprint(path).hex() == fingerprint


@pytest.mark.parametrize(
    "name",
    [
        "cifar-3b375970",
        "photo-7a8659ab",
        "cifar-e5a38b96",
        "photo-900ddfde",
        "cifar-1d402f2f",
        "photo-94b818e1",
        "photo-041ed8f2",
    ],
)
def test_files_decode_as_on_the_day_they_were_written(name: str, tmp_path: Path) -> None:
    """The first two were written, and decoded after each iteration, by eager PyTorch 2.14, the
    others by ONNX Runtime; a pixel may be rounded the other way."""
    data = (GOLDEN / f"{name}.vzc").read_bytes()
    wanted = np.asarray(Image.open(GOLDEN / f"{name}.png")).astype(int)
    header = vzc.read_header(data)
    fingerprint = name.partition("-")[2]
    assert header.model.hex() == fingerprint
    models = former_model(fingerprint, tmp_path) if fingerprint in table.FORMER else []
    found = np.concatenate(
        [find.decode(data, models=models, iterations=t + 1).image for t in range(header.iterations)]
    )
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1
    assert (found != wanted).mean() < 0.001
