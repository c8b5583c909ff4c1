"""Words and weights of files that anybody may have written: one line of ours, whatever they
hold."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import command

from vizcomp.errors import InputError, ModelError, VizcompError
from vizcomp.files import foreign
from vizcomp.graphs import classifiers as files
from vizcomp.nets import classifiers
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.models import saved_fingerprint
from vizcomp.weights import cache, table

DEEP = "[" * 100_000 + "]" * 100_000
ODD_JSON = {
    "deep lists": DEEP,
    "deep objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "deeper than allowed": "[" * 70 + "]" * 70,
    "too long": '"' + "x" * foreign.MOST_BYTES + '"',
    "no number": "[NaN]",
    "infinite": "[1e999]",
    "a long number": "[" + "9" * 5000 + "]",
    "no Unicode": '["\\ud800"]',
    "cut": '{"a": [1, 2',
    "nothing": "",
}


@pytest.mark.parametrize("text", ODD_JSON.values(), ids=ODD_JSON.keys())
def test_odd_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        foreign.read_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011
        foreign.read_object_file(tmp_path / "a.json")


def test_plain_json_is_read() -> None:
    value = {"a": [1, 2.5, None, True, "é"], "b": {"c": []}}
    assert foreign.read_object(json.dumps(value)) == value
    with pytest.raises(ValueError, match="no object"):
        foreign.read_object("[1]")


def with_words(path: Path, source: Path, words: str) -> Path:
    """A .safetensors file with other words in its metadata."""
    data = source.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = {"vizcomp": words}
    made = json.dumps(header).encode()
    made += b" " * (-len(made) % 8)
    path.write_bytes(struct.pack("<Q", len(made)) + made + data[8 + size :])
    return path


def openers(path: Path) -> list[Callable[[], Any]]:
    return [
        lambda: NeuralCodec.load(path),
        lambda: saved_fingerprint(path),
        lambda: files.read(path),
        lambda: cache.add("mine", path),
    ]


def wrong_types(words: dict[str, Any]) -> list[str]:
    values: list[Any] = [None, "x", [1], 1e300]
    made = [
        json.dumps({**words, key: value})
        for key in ("network", "classes", "architecture", "search")
        for value in values
    ]
    network = dict(words.get("network", {}))
    made += [
        json.dumps({**words, "network": {**network, key: value}})
        for key in network
        for value in values
    ]
    return made


@pytest.mark.parametrize(
    "text", [*ODD_JSON.values(), "[]", "1"], ids=[*ODD_JSON.keys(), "a list", "a number"]
)
def test_odd_words_in_a_model_file(
    tmp_path: Path, any_model: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    path = with_words(tmp_path / "odd.safetensors", any_model, text)
    for opened in openers(path):
        with pytest.raises((ModelError, InputError)) as caught:
            opened()
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ["codec", "classifier"])
def test_values_of_wrong_types_in_a_model_file(
    tmp_path: Path, any_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    source = any_model
    if kind == "classifier":
        source = tmp_path / "whole.safetensors"
        network = classifiers.build(
            "watcher",
            {"width": 4} if "width" in classifiers.build("watcher").config.to_dict() else {},
        )
        classifiers.save(source, "watcher", network, ("a", "b"), {})
    data = source.read_bytes()
    words = json.loads(
        json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["vizcomp"]
    )
    texts = wrong_types(words)
    for number, text in enumerate(texts if kind == "codec" else texts[::4]):
        path = with_words(tmp_path / f"odd{number}.safetensors", source, text)
        for opened in openers(path)[:2] if kind == "codec" else openers(path)[2:3]:
            with contextlib.suppress(VizcompError):
                opened()
        path.unlink()


def test_a_deep_header_of_tensors(tmp_path: Path) -> None:
    body = DEEP.encode()
    path = tmp_path / "deep.safetensors"
    path.write_bytes(struct.pack("<Q", len(body)) + body)
    for opened in openers(path):
        with pytest.raises((ModelError, InputError)):
            opened()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, any_model: Path, bad: float
) -> None:
    from safetensors.numpy import load_file, save_file

    for source in (any_model, table.bundled_path("watcher.safetensors")):
        data = source.read_bytes()
        metadata = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
        tensors = load_file(source)
        name = next(n for n, v in tensors.items() if v.dtype.kind == "f")
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = bad
        path = tmp_path / "bad.safetensors"
        save_file(tensors, path, metadata=metadata)
        for opened in openers(path):
            with pytest.raises((ModelError, InputError), match=r"finite|no codec|no classifier"):
                opened()


def test_published_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    import torch

    network = classifiers.build("inception-full")
    state = network.state_dict()
    next(iter(state.values())).view(-1)[0] = float("nan")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="not a finite number"):
        files.check_published(tmp_path / "a.pt")


def test_a_depth_network_whose_weights_are_not_finite_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    from vizcomp.depth.compact import CompactDepth

    model = onnx.load(str(table.bundled_path("compact_depth.onnx")))
    floats = [
        t
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and numpy_helper.to_array(t).size > 8
    ]
    for tensor in floats:
        values = np.full_like(numpy_helper.to_array(tensor), np.nan)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "nan.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="not finite"):
        CompactDepth(path)


@pytest.mark.parametrize(
    "text", [DEEP, '{"nyu": [1]}', '{"nyu": {"sha256": [[]], "words": {}}}', "[]", "\x00"]
)
def test_rubbish_in_the_records_counts_as_nothing(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path))
    (tmp_path / "records.json").write_text(text)
    assert cache.recorded("nyu") in ({}, {"sha256": "x"})
    assert command("weights", "list") == 0
    assert "nyu" in capsys.readouterr().out
