"""A model, its options or its weights change: runs with --resume do the work again, and so do calls
in one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from kit import command, jpeg_bytes, picture
from test_reading import constant

import vizcomp
from vizcomp.batch.judges import system_by_name
from vizcomp.evaluation.tasks import worker_system


def made(folder: Path, spec: str) -> str:
    asked = ("djpeg", folder / "a.jpg", "-o", folder / "out", "--guide", "uniform", "-j", 1)
    assert command(*asked, "--verify", spec, "--resume") == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    return str(report["settings"]["systems"][0]["fingerprint"])


def model(path: Path, best: int) -> str:
    return constant(path, y=np.eye(3, dtype=np.float32)[best : best + 1])


def test_a_changed_model_is_another(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(picture(0, 48, 64)))
    spec = model(tmp_path / "own.onnx", 0)
    fingerprints = [made(tmp_path, spec)]
    model(tmp_path / "own.onnx", 1)
    fingerprints.append(made(tmp_path, spec))
    (tmp_path / "own.json").write_text('{"range": 255}')
    fingerprints.append(made(tmp_path, spec))
    graph = onnx.load(spec)
    for tensor in graph.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, "own.weights")
    onnx.save(graph, spec)
    fingerprints.append(made(tmp_path, spec))
    written = (tmp_path / "own.weights").read_bytes()
    (tmp_path / "own.weights").write_bytes(written[::-1])
    fingerprints.append(made(tmp_path, f"{spec}:grey=0"))
    assert len(set(fingerprints)) == len(fingerprints)


def test_what_did_not_change_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(picture(0, 48, 64)))
    spec = model(tmp_path / "own.onnx", 0)
    reports = []
    for _ in range(2):
        made(tmp_path, spec)
        reports.append(json.loads((tmp_path / "out" / "report.json").read_text())["files"])
    assert reports[0] == reports[1]  # the time that it took as well


def test_calls_in_one_process_see_the_change(tmp_path: Path) -> None:
    spec = model(tmp_path / "own.onnx", 0)
    photo = picture(0, 48, 64)
    for open_one in (system_by_name, worker_system):
        before = open_one(spec, False)
        assert open_one(spec, False) is before
        (tmp_path / "own.json").write_text(json.dumps({"crop": 0.5, "classes": ["a", "b", "c"]}))
        after = open_one(spec, False)
        assert after.fingerprint != before.fingerprint
        assert after.answers([photo])[0].words() == "a 100%"
        (tmp_path / "own.json").unlink()
    assert vizcomp.compress(photo, verify=spec, guide="uniform").verify_state == "verified"
