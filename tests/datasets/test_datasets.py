"""Data sets in every form that is read, and in every state in which they arrive."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from kit import jpeg_bytes
from PIL import Image

from vizcomp.datasets import archive, labelled
from vizcomp.datasets.cifar import fill_with_cifar10
from vizcomp.datasets.photos import find_photos, read_photos, split
from vizcomp.datasets.read import read_labelled
from vizcomp.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    OutputError,
    SettingsError,
    TooLargeError,
    TruncatedError,
    WeightsMissingError,
)
from vizcomp.files import pickles

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, 32, 32, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python2(value: object) -> bytes:
    """Protocol 2 as Python 2 wrote it, text as bytes without an encoding: the form that is
    published."""
    match value:
        case str():
            text = value.encode("latin-1")
            return (
                b"U" + bytes([len(text)])
                if len(text) < 256
                else b"T" + struct.pack("<i", len(text))
            ) + text
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"]q\x01(" + b"".join(map(python2, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(python2, value)) + b"t"
        case dict():
            return b"}q\x00(" + b"".join(python2(k) + python2(v) for k, v in value.items()) + b"u"
        case np.ndarray():
            start = (
                b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
                + python2((0,))
                + b"U\x01b\x87R"
            )
            dtype = (
                b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
                b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            )
            return (
                start
                + b"(K\x01"
                + python2(value.shape)
                + dtype
                + b"\x89"
                + python2(value.tobytes())
                + b"tb"
            )
    raise TypeError(value)


def pickled2(value: object) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def batch(images: np.ndarray, labels: list[int], **other: object) -> dict[str, object]:
    names = [f"thing_s_{k:06d}.png" for k in range(len(labels))]
    return {
        "batch_label": "a batch",
        "labels": labels,
        "data": planes(images),
        "filenames": names,
        **other,
    }


def cifar10_python(dump=pickled2) -> dict[str, bytes]:
    """The files of a tiny CIFAR-10: batch k holds images 4k to 4k + 3, the test batch the last
    four."""
    images = pictures(24)
    files = {
        f"data_batch_{k + 1}" if k < 5 else "test_batch": dump(
            batch(images[4 * k : 4 * k + 4], [(4 * k + j) % 10 for j in range(4)])
        )
        for k in range(6)
    }
    return files | {
        "batches.meta": dump({"num_cases_per_batch": 4, "label_names": TEN, "num_vis": 3072})
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tar(files: dict[str, bytes], compression: str = "gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


# --- CIFAR
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
def test_python_batches_in_their_folder_or_the_one_above(tmp_path: Path, inside: bool) -> None:
    folder = write(tmp_path / "cifar-10-batches-py", cifar10_python())
    data = read_labelled(folder if inside else tmp_path)
    assert data.source == "CIFAR-10, python batches"
    np.testing.assert_array_equal(data.images, pictures(24)[:20])
    assert data.images.dtype == np.uint8
    assert data.images.flags.c_contiguous
    assert data.labels.dtype == np.int64
    np.testing.assert_array_equal(data.labels, np.arange(20) % 10)
    assert data.classes == tuple(TEN)
    assert len(data) == len(data.names) == 20
    assert data.names[0] == "thing_s_000000.png"
    assert data.skipped == ()


def test_the_parts_of_cifar(tmp_path: Path) -> None:
    write(tmp_path, cifar10_python())
    np.testing.assert_array_equal(read_labelled(tmp_path, part="test").images, pictures(24)[20:])
    np.testing.assert_array_equal(read_labelled(str(tmp_path), part="all").images, pictures(24))
    assert read_labelled(tmp_path, part="test", size=16).images.shape == (4, 16, 16, 3)


@pytest.mark.parametrize("protocol", [2, 4])
def test_batches_that_python_3_wrote(tmp_path: Path, protocol: int) -> None:
    def dump(value: dict[str, object]) -> bytes:
        return pickle.dumps({key.encode(): v for key, v in value.items()}, protocol)

    data = read_labelled(write(tmp_path, cifar10_python(dump)), part="all")
    np.testing.assert_array_equal(data.images, pictures(24))
    assert data.classes == tuple(TEN)


def test_a_batch_whose_array_lies_by_columns(tmp_path: Path) -> None:
    files = cifar10_python() | {
        "test_batch": pickle.dumps(
            {"labels": [1, 2], "data": np.asfortranarray(planes(pictures(2, 5)))}, 2
        )
    }
    data = read_labelled(write(tmp_path, files), part="test")
    np.testing.assert_array_equal(data.images, pictures(2, 5))
    assert data.names == ("test_batch/00000", "test_batch/00001")


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_python_batches_in_an_archive(tmp_path: Path, compression: str) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(tar(below("cifar-10-batches-py", cifar10_python()), compression))
    data = read_labelled(archive)
    assert data.source == "CIFAR-10, python batches, in an archive"
    np.testing.assert_array_equal(data.images, pictures(24)[:20])
    # the folder of the download
    np.testing.assert_array_equal(read_labelled(tmp_path, part="test").images, pictures(24)[20:])
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]


def cifar10_binary() -> dict[str, bytes]:
    records = [bytes([k % 10]) + image.tobytes() for k, image in enumerate(planes(pictures(24)))]
    files = {
        f"data_batch_{k + 1}.bin" if k < 5 else "test_batch.bin": b"".join(
            records[4 * k : 4 * k + 4]
        )
        for k in range(6)
    }
    return files | {"batches.meta.txt": "\n".join([*TEN, ""]).encode()}


def test_the_binary_version(tmp_path: Path) -> None:
    folder = write(tmp_path / "cifar-10-batches-bin", cifar10_binary())
    archive = tmp_path / "x.tgz"
    archive.write_bytes(tar(below("cifar-10-batches-bin", cifar10_binary())))
    for path in (folder, tmp_path, archive):
        data = read_labelled(path, part="all")
        assert data.source.startswith("CIFAR-10, binary version")
        np.testing.assert_array_equal(data.images, pictures(24))
        np.testing.assert_array_equal(data.labels, np.arange(24) % 10)
        assert data.names[5] == "data_batch_2.bin/00001"


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100_has_fine_labels(tmp_path: Path, binary: bool) -> None:
    fine, coarse = [f"fine{k}" for k in range(100)], [f"coarse{k}" for k in range(20)]
    images, labels = pictures(3), [99, 0, 42]
    if binary:
        data = b"".join(
            bytes([7, k]) + image.tobytes() for k, image in zip(labels, planes(images), strict=True)
        )
        files = {
            "train.bin": data,
            "test.bin": data,
            "fine_label_names.txt": "\n".join(fine).encode(),
        }
    else:
        train = pickled2(
            {
                "filenames": ["a", "b", "c"],
                "fine_labels": labels,
                "coarse_labels": [7] * 3,
                "data": planes(images),
            }
        )
        files = {
            "train": train,
            "test": train,
            "meta": pickled2({"fine_label_names": fine, "coarse_label_names": coarse}),
        }
    read = read_labelled(write(tmp_path, files))
    assert read.source.startswith("CIFAR-100")
    assert read.classes == tuple(fine)
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    files = cifar10_python()
    del files["data_batch_3"]
    with pytest.raises(InputError, match="lacks data_batch_3"):
        read_labelled(write(tmp_path, files))


# --- hostile batches
# ------------------------------------------------------------------------------------------------


class Runs:
    """What a pickle of this does when it is loaded as such."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.what,)


def good_batch() -> dict[str, object]:
    return batch(pictures(4), [1, 2, 3, 4])


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["data", "labels", "filenames", "other"])
def test_a_pickle_is_never_run(tmp_path: Path, protocol: int, place: str) -> None:
    trace = tmp_path / "was run"
    hostile = pickle.dumps(
        {"labels": [1], "filenames": ["a"], place: Runs(f"touch '{trace}'")}, protocol
    )
    folder = write(tmp_path / "data", cifar10_python() | {"test_batch": hostile})
    with pytest.raises(FormatError, match=r"asks for '(posix|nt)\.system'"):
        read_labelled(folder, part="test")
    assert not trace.exists()


REFUSED = {
    "a class of builtins": b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
    "numpy's own loader": b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
    "an ndarray made directly": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "INST": b"(ios\nsystem\n.",
    "a persistent id": b"\x80\x02U\x01xQ.",
    "an extension": b"\x80\x02\x82\x01.",
    "a state for a list": b"\x80\x02]}b.",
    "an out-of-band buffer": b"\x80\x05\x97.",
    "no dict": b"\x80\x02].",
    "nothing": b"\x80\x02.",
    "no end": b"\x80\x02}",
    "text": b"hello, this is no pickle",
    "a large memo number": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a memo that was never set": b"\x80\x02h\x05.",
    "a stack that runs empty": b"\x80\x02\x85\x86\x87ttt.",
    "a key that nests deeply": b"\x80\x02}(" + b")" + b"\x85" * 10_000 + b"Nu.",
    "a list as a key": b"\x80\x02}(]Nu.",
    "an odd number of items": b"\x80\x02}(Nu.",
    "text that claims gigabytes": b"\x80\x02}X\xff\xff\xff\x7fx.",
    "bytes that claim exabytes": b"\x80\x04}\x8e" + b"\xff" * 7 + b"\x3fx.",
    "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a name that is a list": b"\x80\x04]]\x93.",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, what: str) -> None:
    folder = write(tmp_path, cifar10_python() | {"test_batch": REFUSED[what]})
    with pytest.raises(FormatError, match="test_batch"):
        read_labelled(folder, part="test")


def test_too_many_steps_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "_MAX_OPCODES", 1000)
    folder = write(tmp_path, cifar10_python() | {"test_batch": b"\x80\x02" + b"}" * 2000 + b"."})
    with pytest.raises(FormatError, match="1000 steps"):
        read_labelled(folder, part="test")


def array_state(shape: tuple[int, ...], content: bytes, dtype: bytes = b"u1") -> bytes:
    """A batch whose array claims something."""
    usual = python2(np.zeros((1, 1), np.uint8))
    claimed = usual.replace(python2((1, 1)), python2(shape)).replace(
        python2(b"\0"), python2(content)
    )
    return (
        b"\x80\x02}(U\x04data"
        + claimed.replace(b"U\x02u1", b"U\x02" + dtype)
        + b"U\x06labels"
        + python2([1])
        + b"u."
    )


def test_the_claims_above_are_good_otherwise(tmp_path: Path) -> None:
    write(tmp_path, cifar10_python() | {"test_batch": array_state((1, 3072), bytes(3072))})
    assert len(read_labelled(tmp_path, part="test")) == 1


@pytest.mark.parametrize(
    "data",
    [
        array_state((1, 3072), bytes(3071)),
        array_state((2**31 - 1, 3072), bytes(3072)),
        array_state((-1, -3072), bytes(3072)),
        array_state((1, 3072), bytes(3072), b"O8"),
        array_state((1, 3072), bytes(3072), b"i4"),
        array_state((3072,), bytes(3072)),
        array_state((1, 3073), bytes(3073)),
        array_state((0, 3072), b""),
        pickled2({"labels": [1]}),
        pickled2({"data": [[0] * 3072], "labels": [1]}),
        pickled2({"data": planes(pictures(1))}),
        pickled2(batch(pictures(2), [1])),
        pickled2(batch(pictures(2), [1, 10])),
        pickled2(batch(pictures(2), [1, -1])),
        pickled2({**good_batch(), "labels": [1, 2, 3, "4"]}),
        pickled2({**good_batch(), "labels": [1, 2, 3, [4]]}),
        pickled2({**good_batch(), "labels": "1234"}),
        pickled2(good_batch())[:-2000],
        pickled2(good_batch())[:100],
        b"",
    ],
    ids=range(20),
)
def test_broken_batches(tmp_path: Path, data: bytes) -> None:
    folder = write(tmp_path, cifar10_python() | {"test_batch": data})
    with pytest.raises(FormatError, match="test_batch"):
        read_labelled(folder, part="test")
    assert len(read_labelled(folder)) == 20


def test_file_names_that_do_not_fit_are_replaced_and_odd_ones_made_printable(
    tmp_path: Path,
) -> None:
    write(
        tmp_path, cifar10_python() | {"test_batch": pickled2({**good_batch(), "filenames": ["a"]})}
    )
    assert read_labelled(tmp_path, part="test").names[3] == "test_batch/00003"
    write(
        tmp_path, {"test_batch": pickled2({**good_batch(), "filenames": ["a\nb", "c", "d", "e"]})}
    )
    assert read_labelled(tmp_path, part="test").names[0] == "a\\nb"


@pytest.mark.parametrize("names", [TEN[:9], [*TEN[:9], 3], [*TEN[:9], "cat"], "airplane", []])
def test_class_names_that_are_none(tmp_path: Path, names: object) -> None:
    write(tmp_path, cifar10_python() | {"batches.meta": pickled2({"label_names": names})})
    with pytest.raises(FormatError, match=r"batches\.meta does not name"):
        read_labelled(tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "0 bytes"), (bytes(3072), "3072 bytes"), (b"\x0a" + bytes(3072), "label 10")],
)
def test_broken_binary_batches(tmp_path: Path, data: bytes, words: str) -> None:
    folder = write(tmp_path, cifar10_binary() | {"test_batch.bin": data})
    with pytest.raises(FormatError, match=words):
        read_labelled(folder, part="test")


def test_a_batch_beyond_the_limit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_FILE", 10_000)
    with pytest.raises(TooLargeError):
        read_labelled(write(tmp_path / "a", cifar10_python()))
    (tmp_path / "b.tgz").write_bytes(tar(cifar10_python()))
    with pytest.raises(TooLargeError):
        read_labelled(tmp_path / "b.tgz")


# --- class folders
# --------------------------------------------------------------------------------------------------


def animals(seed: int = 0) -> dict[str, bytes]:
    a, b, c, d = pictures(4, seed)
    return {
        "dog/2.png": png(c),
        "cat/10.png": png(b),
        "cat/1.png": png(a),
        "dog/more/1.PNG": png(d),
        "dog/notes.txt": b"x",
    }


@pytest.fixture(params=["folder", "archive", "archive in a folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path):
    """Writes files as a folder, as an archive, and as an archive whose files lie in a folder of
    their own."""

    def write_one(files: dict[str, bytes], name: str = "data") -> Path:
        if request.param == "folder":
            return write(tmp_path / name, files)
        path = tmp_path / f"{name}.tar.xz"
        path.write_bytes(tar(files if request.param == "archive" else below("./top", files), "xz"))
        return path

    return write_one


def test_class_folders(make) -> None:
    data = read_labelled(make(animals()))
    assert data.classes == ("cat", "dog")
    assert data.names == ("cat/1.png", "cat/10.png", "dog/2.png", "dog/more/1.PNG")
    np.testing.assert_array_equal(data.images, pictures(4))
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.labels.dtype == np.int64
    assert data.images.flags.c_contiguous
    assert data.source.startswith("class folders")


@pytest.mark.parametrize("held", ["test", "val", "valid", "validation"])
def test_class_folders_in_parts(make, held: str) -> None:
    files = (
        below("train", animals(1))
        | below(held, animals(2))
        | {
            "readme.txt": b"x",
            "notes/a.txt": b"y",
        }
    )
    path = make(files)
    np.testing.assert_array_equal(read_labelled(path).images, pictures(4, 1))
    test = read_labelled(path, part="test")
    np.testing.assert_array_equal(test.images, pictures(4, 2))
    assert test.names[0] == f"{held}/cat/1.png"
    both = read_labelled(path, part="all")
    np.testing.assert_array_equal(both.images, np.concatenate([pictures(4, 1), pictures(4, 2)]))
    assert both.source.startswith(f"class folders, train/ and {held}/")


def test_classes_keep_their_numbers_where_the_test_lacks_one(make) -> None:
    path = make(below("train", animals()) | {"test/dog/1.png": png(pictures(1)[0])})
    data = read_labelled(path, part="test")
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [1]


def test_a_class_that_only_the_test_has(make) -> None:
    path = make(below("train", animals()) | {"test/cow/1.png": png(pictures(1)[0])})
    with pytest.raises(InputError, match="train/cow"):
        read_labelled(path)


def test_train_may_be_a_class(make) -> None:
    image = png(pictures(1)[0])
    assert read_labelled(make({"train/1.png": image, "boat/1.png": image})).classes == (
        "boat",
        "train",
    )


def test_no_test_part(make) -> None:
    path = make(animals())
    assert len(read_labelled(path, part="all")) == 4
    with pytest.raises(InputError, match="no test part"):
        read_labelled(path, part="test")


def test_no_train_part(make) -> None:
    with pytest.raises(InputError, match="no train part"):
        read_labelled(make(below("test", animals())))


def test_an_empty_class_is_named(make) -> None:
    with pytest.raises(InputError, match=r"the class emu of .* has no pictures"):
        read_labelled(make({**animals(), "emu/readme.txt": b"x"}))


def test_broken_pictures_are_skipped_and_told(make) -> None:
    whole = jpeg_bytes(pictures(1)[0])
    broken = {
        "cat/a.jpg": b"",
        "cat/b.jpg": whole[:300],
        "cat/c.png": whole,
        "dog/d.png": b"<html>",
        "dog/.e.png": b"",
    }
    told: list[tuple[str, str]] = []
    data = read_labelled(
        make({**animals(), **broken}), on_skip=lambda name, reason: told.append((name, reason))
    )
    # c.png is a JPEG with another name
    assert len(data) == len(data.names) == len(data.images) == 5
    assert "cat/c.png" in data.names
    assert sorted(told) == sorted(data.skipped)
    reasons = {name.removeprefix("top/"): reason for name, reason in data.skipped}
    assert set(reasons) == {"cat/a.jpg", "cat/b.jpg", "dog/d.png"}
    assert reasons["cat/a.jpg"] == "the file is empty"
    assert "cut off" in reasons["cat/b.jpg"]
    assert "not an image" in reasons["dog/d.png"]


def test_a_class_without_a_readable_picture(make) -> None:
    with pytest.raises(InputError, match=r"the class emu of .* \(2 skipped\)"):
        read_labelled(make({**animals(), "emu/1.png": b"", "emu/2.png": b"x"}))


@pytest.mark.parametrize("files", [{}, {"a.txt": b"x"}, {"1.png": png(pictures(1)[0])}])
def test_no_class_at_all(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data.tar").write_bytes(tar({"b.txt": b"x", **files}, ""))
    for path in (write(tmp_path / "data", files), tmp_path / "data.tar"):
        with pytest.raises(InputError, match="no classes") as caught:
            read_labelled(path)
        assert "class" in caught.value.hint


def test_other_sizes_are_cropped_and_resized(tmp_path: Path) -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = (10, 200, 60)
    small = np.full((8, 8, 3), 77, np.uint8)
    # a fine chequerboard: grey when far
    large = np.indices((512, 512)).sum(0)[..., None].repeat(3, 2) % 2 * 255
    files = {
        "a/1.png": png(wide),
        "a/2.png": png(small),
        "a/3.png": png(large.astype(np.uint8)),
        "a/4.png": png(wide[..., 1].T),
    }
    images = read_labelled(write(tmp_path, files), size=16).images
    assert images.shape == (4, 16, 16, 3)
    assert (images[0] == (10, 200, 60)).all()
    assert (images[1] == 77).all()
    assert np.ptp(images[2][2:-2, 2:-2].astype(int)) <= 2
    assert abs(int(images[2][8, 8, 0]) - 127) <= 2
    assert (images[3] == 200).all()


def test_odd_pictures_read_as_they_are_shown(tmp_path: Path) -> None:
    image = pictures(1)[0]
    grey = Image.fromarray(image[..., 0])
    turned, out = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Image.fromarray(image).save(out, "PNG", exif=turned)
    clear = np.dstack([image, np.zeros((32, 32), np.uint8)])
    files = {"a/1.png": out.getvalue(), "a/2.png": png(np.asarray(grey)), "a/3.png": png(clear)}
    folder = write(tmp_path, files)
    grey.convert("P").save(folder / "a" / "4.gif")
    Image.fromarray(image).save(folder / "a" / "5.bmp")
    images = read_labelled(folder).images
    np.testing.assert_array_equal(images[0], np.rot90(image, -1))
    np.testing.assert_array_equal(images[1], np.repeat(image[..., :1], 3, axis=2))
    assert (images[2] == 255).all()
    np.testing.assert_array_equal(images[3], images[1])
    np.testing.assert_array_equal(images[4], image)


def test_the_quick_way_and_the_careful_way_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c, d = pictures(4)
    progressive = jpeg_bytes(d, progressive=True, subsampling="4:2:0")
    files = {
        "a/1.jpg": jpeg_bytes(a),
        "a/2.png": png(b),
        "a/3.jpg": jpeg_bytes(c[..., 0]),
        "a/4.jpg": progressive,
    }
    quick = read_labelled(write(tmp_path, files)).images
    monkeypatch.setattr(labelled, "_SMALL", 0)
    np.testing.assert_array_equal(read_labelled(tmp_path).images, quick)


@pytest.mark.parametrize(("part", "size"), [("both", 32), ("train", 0), ("train", 5000)])
def test_settings_out_of_range(tmp_path: Path, part: str, size: int) -> None:
    with pytest.raises(SettingsError):
        read_labelled(tmp_path, part=part, size=size)  # type: ignore[arg-type]


# --- hostile and broken archives
# ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_an_archive_that_is_cut_off(tmp_path: Path, compression: str) -> None:
    whole = tar(animals(), compression)
    path = tmp_path / "data.tar"
    for share in (0.02, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(TruncatedError, match="cut off"):
            read_labelled(path)


def test_a_plain_archive_that_is_cut_between_its_files(tmp_path: Path) -> None:
    whole = tar(animals(), "")
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        starts = [member.offset for member in archive]
    for length in (starts[1], starts[2], starts[2] + 100, starts[3] + 700):
        (tmp_path / "data.tar").write_bytes(whole[:length])
        with pytest.raises(TruncatedError, match="cut off"):
            read_labelled(tmp_path / "data.tar")


def test_names_that_lead_out_and_links_are_skipped_and_nothing_is_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(pictures(1)[0]))
    out = io.BytesIO()
    image = png(pictures(1)[0])
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in (
            "cat/1.png",
            "../evil.png",
            "cat/../../evil2.png",
            "/cat/absolute.png",
            "dog/1.png",
            "/".join("d" * 40) + ".png",
        ):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo(f"cat/link{kind.decode()}.png")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "data.tar").write_bytes(out.getvalue())
    data = read_labelled(inner / "data.tar")
    assert data.names == ("cat/1.png", "dog/1.png")
    assert len(data.skipped) == 8
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["data.tar", "inner", "secret.png"]


def test_a_flipped_bit_in_pixels_of_a_compressed_archive_is_found(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(tar(cifar10_python(), ""), compresslevel=0))
    whole[whole.index(planes(pictures(24))[9].tobytes()[:50]) + 7] ^= 1
    (tmp_path / "data.tgz").write_bytes(whole)
    with pytest.raises(FormatError, match="broken"):
        read_labelled(tmp_path / "data.tgz", part="test")


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """A tar header that may lie about its size."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (
        b"\x80" + size.to_bytes(11, "big") if size >= 0 else (size + (1 << 96)).to_bytes(12, "big")
    )
    block[148:156] = b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:512])
    return bytes(block)


@pytest.mark.parametrize(
    "blocks",
    [
        header("cat/1.png", 1 << 50),
        header("cat/1.png", 3 << 30),
        header("cat/1.png", -512),
        header("cat/1.png", -1024, b"5"),
        header("././@PaxHeader", 1 << 40, b"x"),
        header("././@PaxHeader", -512, b"x"),
        header("././@LongLink", 1 << 40, b"L"),
        header("././@PaxHeader", 1 << 40, b"g"),
        b"".join(header("././@LongLink", 0, b"L") for _ in range(3000)),
    ],
    ids=range(9),
)
def test_headers_that_lie(tmp_path: Path, blocks: bytes) -> None:
    path = tmp_path / "data.tgz"
    path.write_bytes(gzip.compress(tar({"dog/1.png": b"x"}, "")[:1024] + blocks + bytes(1 << 20)))
    with pytest.raises(FormatError):
        read_labelled(path)


def test_a_picture_beyond_the_limit_is_skipped(make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(animals() | {"cat/large.png": bytes(9000)})
    monkeypatch.setattr(archive, "MAX_FILE", 8000)
    ((name, reason),) = read_labelled(path).skipped
    assert name.endswith("cat/large.png")
    assert "9000 bytes" in reason


def test_flipped_bytes_end_in_our_errors_or_in_images(tmp_path: Path) -> None:
    files = {
        "a": tar(animals(), ""),
        "b": tar(animals(), "gz"),
        "c": tar(below("x", cifar10_python()), "xz"),
    }
    rng = np.random.default_rng(3)
    for name, whole in files.items():
        path, opened = tmp_path / name, 0
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 4):
                data[place] = rng.integers(256)
            path.write_bytes(data)
            try:
                read = read_labelled(path)
            except (FormatError, InputError):
                continue
            assert read.images.shape == (len(read), 32, 32, 3)
            opened += 1
        assert opened < 60
        assert opened or name != "a"  # a tar alone has no checksum over what it holds


def test_flipped_bytes_in_a_pickle(tmp_path: Path) -> None:
    whole = pickled2({"labels": [1, 2], "filenames": ["a", "b"], "data": planes(pictures(2))})
    ends = np.r_[0:150, len(whole) - 60 : len(whole)]  # what lies between is pixels
    folder = write(tmp_path, cifar10_python())
    rng = np.random.default_rng(4)
    opened = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.choice(ends)] = rng.integers(256)
        (folder / "test_batch").write_bytes(data)
        try:
            read = read_labelled(folder, part="test")
        except FormatError:
            continue
        assert read.images.shape == (2, 32, 32, 3)
        opened += 1
    assert 0 < opened < 300


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(99), "zip"),
        (b"hello", "neither"),
        (b"\xff\xd8\xff\xe0", "neither"),
    ],
)
def test_files_that_are_no_archive(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "data.tar.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_labelled(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_labelled(tmp_path / "nothing")
    with pytest.raises(InputError):
        read_labelled("a\0b")
    with pytest.raises(InputError, match="does not exist"):
        find_photos(tmp_path / "nothing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not an ordinary file"):
        read_labelled(tmp_path / "pipe")
    os.mkfifo(tmp_path / "data_batch_1")
    with pytest.raises(InputError):
        read_labelled(tmp_path)


# --- photos and the split
# -------------------------------------------------------------------------------------------


def test_photos_of_several_folders(tmp_path: Path) -> None:
    image = pictures(1)[0]
    write(
        tmp_path,
        {
            "a/2.png": png(image),
            "a/b/1.jpg": jpeg_bytes(image),
            "c/3.png": png(image),
            "a/x.txt": b"x",
        },
    )
    assert find_photos(tmp_path / "a") == [tmp_path / "a/2.png", tmp_path / "a/b/1.jpg"]
    assert find_photos([tmp_path / "c", str(tmp_path / "a")])[0] == tmp_path / "c/3.png"
    with pytest.raises(InputError, match="no photo"):
        find_photos(write(tmp_path / "e", {"x.txt": b"x"}))


def test_photos_are_read_upright_and_small_ones_skipped(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    turned, out = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Image.fromarray(image).save(out, "PNG", exif=turned)
    folder = write(
        tmp_path,
        {
            "1.png": out.getvalue(),
            "2.png": png(image[..., 0]),
            "3.png": png(image[:29]),
            "4.png": b"",
            "5.png": b"x",
        },
    )
    told: dict[str, str] = {}
    found = read_photos(
        [*find_photos(folder), folder / "6.png"], min_side=30, on_skip=told.__setitem__
    )
    assert [photo.shape for photo in found] == [(50, 30, 3), (30, 50, 3)]
    np.testing.assert_array_equal(found[0], np.rot90(image, -1))
    assert all(photo.flags.c_contiguous and photo.dtype == np.uint8 for photo in found)
    assert [Path(name).name for name in told] == ["3.png", "4.png", "5.png", "6.png"]
    assert "50 x 29" in told[str(folder / "3.png")]
    with pytest.raises(InputError, match="none of 5"):
        read_photos(find_photos(folder), min_side=31)


def test_a_split_takes_its_share_of_each_class() -> None:
    labels = np.repeat([3, 5, 9], [100, 50, 5])[np.random.default_rng(0).permutation(155)]
    train, held = split(labels, 0.1, seed=1)
    assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(155))
    assert train.dtype == held.dtype == np.int64
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(held) > 0)
    assert len(held) == 16
    counts = [int((labels[held] == label).sum()) for label in (3, 5, 9)]
    assert counts[:2] == [10, 5]
    assert counts[2] == 1
    assert not np.array_equal(held, split(labels, 0.1, seed=2)[1])


def test_a_split_is_the_same_for_ever() -> None:
    assert split(20, 0.25, seed=7)[1].tolist() == [3, 4, 6, 11, 12]
    assert split([0, 1] * 10, 0.2, seed=7)[1].tolist() == [3, 6, 11, 12]


def test_splits_at_the_edges() -> None:
    for count, share, held in (
        (0, 0.5, 0),
        (1, 0.5, 0),
        (2, 0.01, 1),
        (2, 0.99, 1),
        (10, 0.0, 0),
        (5, 0.999, 4),
    ):
        train, validation = split(count, share, seed=0)
        assert (len(train), len(validation)) == (count - held, held)
    assert len(split([], 0.5, seed=0)[0]) == 0
    assert len(split([1, 2, 3], 0.5, seed=0)[1]) == 0  # each class keeps its only image


@pytest.mark.parametrize(
    ("labels", "share", "seed"),
    [
        (5, 1.0, 0),
        (5, -0.1, 0),
        (5, float("nan"), 0),
        (-1, 0.1, 0),
        (5, 0.1, -1),
        ([[1]], 0.1, 0),
        ([0.5], 0.1, 0),
    ],
)
def test_splits_out_of_range(labels: object, share: float, seed: int) -> None:
    with pytest.raises(SettingsError):
        split(labels, share, seed)  # type: ignore[arg-type]


# --- real data
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "cifar10.tar.xz").is_file(), reason="needs the shared data")
def test_the_shared_copy_of_cifar() -> None:
    data = read_labelled(SHARED / "cifar10.tar.xz", part="test")
    assert data.images.shape == (5000, 32, 32, 3)
    assert data.classes == tuple(TEN)
    assert np.bincount(data.labels).tolist() == [500] * 10
    assert not data.skipped


@pytest.mark.skipif(not (SHARED / "bsds").is_dir(), reason="needs the shared data")
def test_the_shared_photos() -> None:
    paths = find_photos(SHARED / "bsds")
    assert len(paths) == 300
    assert {photo.shape for photo in read_photos(paths[:8], min_side=256)} <= {
        (321, 481, 3),
        (481, 321, 3),
    }


# --- Parquet, as on Hugging Face ---


def parquet_file(
    path: Path, images: np.ndarray, labels: list[int], names: list[str] | None = TEN, **columns: str
) -> Path:
    """As the `datasets` library writes CIFAR-10: PNG bytes in `img`, numbers in `label`, class
    names in the metadata."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    def png(image: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        return out.getvalue()

    picture, label = columns.get("picture", "img"), columns.get("label", "label")
    table = arrow.table(
        {
            picture: [{"bytes": png(i), "path": None} for i in images],
            label: arrow.array(labels, arrow.int64()),
        }
    )
    if names is not None:
        about = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    train, test = pictures(7), pictures(3, seed=1)
    parquet_file(tmp_path / "plain_text" / "train-00000-of-00002.parquet", train[:4], [0, 1, 2, 3])
    parquet_file(tmp_path / "plain_text" / "train-00001-of-00002.parquet", train[4:], [9, 9, 4])
    one = parquet_file(tmp_path / "plain_text" / "test-00000-of-00001.parquet", test, [5, 6, 7])
    found = read_labelled(tmp_path)
    assert (found.images == train).all()
    assert found.labels.tolist() == [0, 1, 2, 3, 9, 9, 4]
    assert found.classes == tuple(TEN)
    assert found.source == "Parquet files"
    assert (read_labelled(tmp_path, part="test").images == test).all()
    assert (read_labelled(one, part="test").images == test).all()
    assert len(read_labelled(tmp_path, part="all")) == 10
    assert read_labelled(tmp_path, size=16).images.shape == (7, 16, 16, 3)


def test_parquet_of_cifar_100_and_without_class_names(tmp_path: Path) -> None:
    parquet_file(
        tmp_path / "train-0.parquet", pictures(2), [0, 3], None, picture="image", label="fine_label"
    )
    found = read_labelled(tmp_path)
    assert found.classes == ("0", "1", "2", "3")
    with pytest.raises(InputError, match="no test part"):
        read_labelled(tmp_path, part="test")


def test_broken_parquet(tmp_path: Path) -> None:
    whole = parquet_file(tmp_path / "a" / "train.parquet", pictures(3), [0, 1, 2]).read_bytes()
    for k, content in enumerate((b"", b"PAR1", b"no table at all", whole[:-9])):
        file = tmp_path / f"{k}.parquet"
        file.write_bytes(content)
        with pytest.raises((FormatError, InputError)) as caught:
            read_labelled(file)
        assert "\n" not in caught.value.message
    with pytest.raises(FormatError, match="names no class"):
        read_labelled(parquet_file(tmp_path / "b.parquet", pictures(2), [0, 10]))
    with pytest.raises(FormatError, match="has the columns pic, label"):
        read_labelled(parquet_file(tmp_path / "c.parquet", pictures(2), [0, 1], picture="pic"))


def test_a_broken_picture_in_parquet_is_skipped(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    image = jpeg_bytes(pictures(1)[0])
    parquet.write_table(
        arrow.table({"image": [image, b"no picture", None], "label": [0, 1, 1]}),
        tmp_path / "train.parquet",
    )
    told: list[str] = []
    found = read_labelled(tmp_path, on_skip=lambda name, why: told.append(name))
    assert len(found) == 1
    assert told == ["train.parquet/00001", "train.parquet/00002"]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet_file(tmp_path / "train.parquet", pictures(1), [0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow") as caught:
        read_labelled(tmp_path)
    assert "vizcomp[parquet]" in caught.value.hint


# --- train --download ---


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "cifar"
    with pytest.raises(WeightsMissingError, match="not to be used"):
        fill_with_cifar10(folder, offline=True)
    assert not folder.exists()
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "cifar-10-python.tar.gz").write_bytes(b"the archive")
    assert fill_with_cifar10(folder, offline=True)
    assert [p.name for p in folder.iterdir()] == ["cifar-10-python.tar.gz"]
    assert not fill_with_cifar10(folder, offline=True), "what holds something stays as it is"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        fill_with_cifar10(tmp_path / "file" / "below", offline=True)
