"""HDF5 files that would take all time or memory are refused by a process with limits."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from vizcomp.depth import hdf5
from vizcomp.errors import ModelError


def keras_file(path: Path, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {}})
        layer = file.create_group("model_weights/one")
        file["model_weights"].attrs["layer_names"] = ["one"]
        layer.attrs["weight_names"] = ["w"]
        layer.create_dataset("w", **(options or {"data": np.arange(6, dtype=np.float32)}))
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    config, arrays = hdf5.read_keras(keras_file(tmp_path / "a.h5"))
    assert config["class_name"] == "Model"
    assert arrays["one"]["w"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_small_file_of_huge_arrays_is_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "a.h5", shape=(1 << 40,), dtype="f4", chunks=(1 << 20,))
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match="bytes of weights"):
        hdf5.read_keras(path)


def test_one_that_takes_more_memory_than_allowed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "MEMORY", 400 << 20)
    path = keras_file(tmp_path / "a.h5", shape=(400 << 20,), dtype="f4", chunks=(1 << 20,))
    with pytest.raises(ModelError, match="damaged"):
        hdf5.read_keras(path)


def test_one_that_does_not_come_to_an_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what HDF5 does in an endless loop, as far as time goes
    monkeypatch.setattr(hdf5, "SECONDS", 0.01)
    with pytest.raises(ModelError, match="does not come to an end"):
        hdf5.read_keras(keras_file(tmp_path / "a.h5"))


def test_deep_words_are_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = "[" * 20_000 + "]" * 20_000
    with pytest.raises(ModelError, match="nested too deeply"):
        hdf5.read_keras(path)
