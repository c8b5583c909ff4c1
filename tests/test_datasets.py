"""Data sets in every form that is read, and in every state in which they arrive."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import jpeg_bytes
from PIL import Image

from vizcomp import datasets
from vizcomp.datasets import find_photos, read_labelled, read_photos, split
from vizcomp.errors import FormatError, InputError, SettingsError, TooLargeError, TruncatedError

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, 32, 32, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python2(value: object) -> bytes:
    """Protocol 2 as Python 2 wrote it, text as bytes without an encoding: the form that is published."""
    match value:
        case str():
            text = value.encode("latin-1")
            return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))) + text
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
            start = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n" + python2((0,)) + b"U\x01b\x87R"
            dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            return start + b"(K\x01" + python2(value.shape) + dtype + b"\x89" + python2(value.tobytes()) + b"tb"
    raise TypeError(value)


def pickled2(value: object) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def batch(images: np.ndarray, labels: list[int], **other: object) -> dict[str, object]:
    names = [f"thing_s_{k:06d}.png" for k in range(len(labels))]
    return {"batch_label": "a batch", "labels": labels, "data": planes(images), "filenames": names, **other}


def cifar10_python(dump=pickled2) -> dict[str, bytes]:
    """The files of a tiny CIFAR-10: batch k holds images 4k to 4k + 3, the test batch the last four."""
    images = pictures(24)
    files = {
        f"data_batch_{k + 1}" if k < 5 else "test_batch": dump(
            batch(images[4 * k : 4 * k + 4], [(4 * k + j) % 10 for j in range(4)])
        )
        for k in range(6)
    }
    return files | {"batches.meta": dump({"num_cases_per_batch": 4, "label_names": TEN, "num_vis": 3072})}


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


# --- CIFAR ----------------------------------------------------------------------------------------------------------


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
        "test_batch": pickle.dumps({"labels": [1, 2], "data": np.asfortranarray(planes(pictures(2, 5)))}, 2)
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
    np.testing.assert_array_equal(read_labelled(tmp_path, part="test").images, pictures(24)[20:])  # the folder of the download
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]


def cifar10_binary() -> dict[str, bytes]:
    records = [bytes([k % 10]) + image.tobytes() for k, image in enumerate(planes(pictures(24)))]
    files = {f"data_batch_{k + 1}.bin" if k < 5 else "test_batch.bin": b"".join(records[4 * k : 4 * k + 4]) for k in range(6)}
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
        data = b"".join(bytes([7, k]) + image.tobytes() for k, image in zip(labels, planes(images), strict=True))
        files = {"train.bin": data, "test.bin": data, "fine_label_names.txt": "\n".join(fine).encode()}
    else:
        train = pickled2({"filenames": ["a", "b", "c"], "fine_labels": labels, "coarse_labels": [7] * 3, "data": planes(images)})
        files = {"train": train, "test": train, "meta": pickled2({"fine_label_names": fine, "coarse_label_names": coarse})}
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
